//! `kvs`: looks into a store on disk, and changes it, without a server.
//!
//! Keys and values are the bytes of the arguments. Every write is durable when the program ends,
//! because it closes the store. It never waits for another process that has the store open.

#[path = "common/answer.rs"]
mod answer;
#[path = "common/exit.rs"]
mod exit;
#[path = "kvs/scan.rs"]
mod scan;

#[path = "kvs/inspect.rs"]
mod inspect;
#[path = "kvs/maintain.rs"]
mod maintain;
#[path = "kvs/progress.rs"]
mod progress;
#[path = "kvs/report.rs"]
mod report;
#[path = "kvs/transfer.rs"]
mod transfer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use kvs::{AnyEngine, Durability, Expiry, KvStore, KvsEngine, KvsError, Options};

use crate::progress::Bar;
use crate::report::ReportArguments;

/// Read and write a key-value store in a directory.
#[derive(Parser)]
#[command(name = "kvs", version, disable_help_subcommand = true, help_template = HELP)]
struct Arguments {
    /// Directory of the store, made by the first set
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set KEY to VALUE
    #[command(after_help = SET_HELP)]
    Set {
        key: OsString,
        value: OsString,
        /// Let KEY expire after N milliseconds; otherwise it never does
        #[arg(long, value_name = "N")]
        ttl_ms: Option<u64>,
    },
    /// Print the value of KEY, or "Key not found"
    #[command(after_help = GET_HELP)]
    Get {
        key: OsString,
        /// Print how many milliseconds KEY has left instead, or "never"
        #[arg(long)]
        ttl_ms: bool,
    },
    /// Remove KEY; fails if it is not there
    #[command(after_help = RM_HELP)]
    Rm { key: OsString },
    /// Print keys and values in order, a line each
    #[command(after_help = SCAN_HELP)]
    Scan(scan::ScanArguments),
    /// Print figures about the store and its files
    #[command(after_help = inspect::STAT_HELP)]
    Stat(ReportArguments),
    /// Read every record and list what is damaged
    #[command(after_help = inspect::VERIFY_HELP)]
    Verify(ReportArguments),
    /// Save what can be saved of a damaged store into a new one
    #[command(after_help = maintain::REPAIR_HELP)]
    Repair(maintain::RepairArguments),
    /// Give back the space of everything that is dead
    #[command(after_help = maintain::COMPACT_HELP)]
    Compact(ReportArguments),
    /// Make a copy that opens as it is
    #[command(after_help = maintain::CHECKPOINT_HELP)]
    Checkpoint(maintain::CheckpointArguments),
    /// Print every record of the log files, live or stale, as JSON
    #[command(after_help = inspect::LOG_HELP)]
    Log(inspect::LogArguments),
    /// Print every key and value as lines of JSON
    #[command(after_help = transfer::DUMP_HELP)]
    Dump,
    /// Set the keys and values of a dump
    #[command(after_help = transfer::LOAD_HELP)]
    Load(transfer::LoadArguments),
    /// Bring over logs of the first implementation
    #[command(after_help = transfer::IMPORT_HELP)]
    Import(transfer::ImportArguments),
}

/// Without the blank lines of the usual one, so that the help fits a screen.
const HELP: &str = "\
{about}
{usage-heading} {usage}

Commands:
{subcommands}
Options:
{options}
Example:
  kvs --dir cities set no Oslo && kvs --dir cities get no
Exit code: 0 done, also if get finds nothing; 1 refused or failed; 2 usage
";

const SET_HELP: &str = "\
Example:
  kvs --dir cities set no Oslo";

const GET_HELP: &str = "\
Example:
  kvs --dir cities get no";

const RM_HELP: &str = "\
Example:
  kvs --dir cities rm no";

const SCAN_HELP: &str = "\
A line is the key, a tab and the value; bytes that are no text as \\xff.

Example:
  kvs --dir cities scan n && kvs --dir cities scan --from a --to n --json";

fn main() -> ExitCode {
    let Arguments { dir, command } = Arguments::parse();
    let result = match command {
        Command::Set { key, value, ttl_ms } => set(&dir, &bytes(key), &bytes(value), ttl_ms),
        Command::Get { key, ttl_ms: false } => get(&dir, &bytes(key)),
        Command::Get { key, ttl_ms: true } => ttl_ms(&dir, &bytes(key)),
        Command::Rm { key } => rm(&dir, &bytes(key)),
        Command::Scan(arguments) => report::unless_reader_has_gone(scan(&dir, &arguments)),
        Command::Stat(arguments) => inspect::stat(&dir, &arguments),
        Command::Verify(arguments) => inspect::verify(&dir, &arguments),
        Command::Repair(arguments) => maintain::repair(&dir, &arguments),
        Command::Compact(arguments) => maintain::compact(&dir, &arguments),
        Command::Checkpoint(arguments) => maintain::checkpoint(&dir, &arguments),
        Command::Log(arguments) => report::unless_reader_has_gone(inspect::log(&dir, &arguments)),
        Command::Dump => report::unless_reader_has_gone(transfer::dump(&dir)),
        Command::Load(arguments) => transfer::load(&dir, &arguments),
        Command::Import(arguments) => transfer::import(&dir, &arguments),
    };
    exit::code("kvs", result)
}

fn set(dir: &Path, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> kvs::Result<()> {
    let store = open(dir, options())?;
    match ttl_ms {
        Some(ttl_ms) => store.set_with_expiry(key, value, now_ms().saturating_add(ttl_ms))?,
        None => store.set_bytes(key, value)?,
    }
    store.close()
}

fn get(dir: &Path, key: &[u8]) -> kvs::Result<()> {
    match open_to_read(dir)? {
        Some(store) => answer::print(store.get_bytes(key)?.as_deref()),
        None => answer::print(None),
    }
}

fn ttl_ms(dir: &Path, key: &[u8]) -> kvs::Result<()> {
    let expiry = open_to_read(dir)?.map_or(Ok(Expiry::Absent), |store| store.expiry(key))?;
    let left = match expiry {
        Expiry::Absent => None,
        Expiry::Never => Some("never".to_owned()),
        Expiry::At(expiry_ms) => Some(expiry_ms.saturating_sub(now_ms()).to_string()),
    };
    answer::print(left.as_ref().map(String::as_bytes))
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn rm(dir: &Path, key: &[u8]) -> kvs::Result<()> {
    let store = match open(dir, options().create(false)) {
        Err(KvsError::NoStore { .. }) => return Err(KvsError::KeyNotFound),
        opened => opened?,
    };
    store.remove_bytes(key)?;
    store.close()
}

fn scan(dir: &Path, arguments: &scan::ScanArguments) -> kvs::Result<()> {
    open_to_read(dir)?.map_or(Ok(()), |store| scan::print(&store, arguments))
}

/// The store in `dir`, for reading: our own engine's also while another process has it open. Where
/// there is none, no key is found, and nothing is made for the asking.
fn open_to_read(dir: &Path) -> kvs::Result<Option<AnyEngine>> {
    let is_ours = AnyEngine::engine_in(dir)? == Some("kvs");
    match open(dir, options().create(false).read_only(is_ours)) {
        Err(KvsError::NoStore { .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

/// The store in `dir`, with a bar if its files have to be read.
fn open(dir: &Path, options: Options) -> kvs::Result<AnyEngine> {
    let mut bar = Bar::new("opening");
    AnyEngine::open_with_progress(dir, None, options, &mut |progress| bar.update(progress))
}

/// The store of our own engine in `dir`, for what only that one has.
fn open_kvs(dir: &Path, options: Options) -> kvs::Result<KvStore> {
    let mut bar = Bar::new("opening");
    KvStore::open_with_progress(dir, options, &mut |progress| bar.update(progress))
}

/// Closing makes everything durable, so nothing needs to be synced before.
fn options() -> Options {
    Options::new().durability(Durability::Os)
}

fn bytes(argument: OsString) -> Vec<u8> {
    argument.into_encoded_bytes()
}
