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

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kvs::{AnyEngine, Durability, KvsEngine, KvsError, Options};

/// Read and write a key-value store in a directory.
#[derive(Parser)]
#[command(name = "kvs", version, disable_help_subcommand = true, after_help = EXAMPLE)]
struct Arguments {
    /// Directory of the store, created by the first set
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set KEY to VALUE
    Set { key: OsString, value: OsString },
    /// Print the value of KEY, or "Key not found"
    Get { key: OsString },
    /// Remove KEY; fails if it is not there
    Rm { key: OsString },
    /// Print keys and values in order, a line each
    #[command(after_help = SCAN_HELP)]
    Scan(scan::ScanArguments),
}

const EXAMPLE: &str = "\
Example:
  kvs --dir cities set no Oslo && kvs --dir cities get no

Exit code: 0 done, also if get finds nothing; 1 refused or failed; 2 usage";

const SCAN_HELP: &str = "\
A line is the key, a tab and the value; bytes that are no text as \\xff.

Example:
  kvs --dir cities scan n && kvs --dir cities scan --from a --to n --json";

fn main() -> ExitCode {
    let Arguments { dir, command } = Arguments::parse();
    let result = match command {
        Command::Set { key, value } => set(&dir, &bytes(key), &bytes(value)),
        Command::Get { key } => get(&dir, &bytes(key)),
        Command::Rm { key } => rm(&dir, &bytes(key)),
        Command::Scan(arguments) => scan(&dir, &arguments),
    };
    exit::code("kvs", result)
}

fn set(dir: &Path, key: &[u8], value: &[u8]) -> kvs::Result<()> {
    let store = AnyEngine::open(dir, None, options())?;
    store.set_bytes(key, value)?;
    store.close()
}

fn get(dir: &Path, key: &[u8]) -> kvs::Result<()> {
    match open_existing(dir)? {
        Some(store) => answer::print(store.get_bytes(key)?.as_deref()),
        None => answer::print(None),
    }
}

fn rm(dir: &Path, key: &[u8]) -> kvs::Result<()> {
    let store = open_existing(dir)?.ok_or(KvsError::KeyNotFound)?;
    store.remove_bytes(key)?;
    store.close()
}

fn scan(dir: &Path, arguments: &scan::ScanArguments) -> kvs::Result<()> {
    open_existing(dir)?.map_or(Ok(()), |store| scan::print(&store, arguments))
}

/// The store in `dir`. Where there is none, no key is found, and nothing is made for the asking.
fn open_existing(dir: &Path) -> kvs::Result<Option<AnyEngine>> {
    match AnyEngine::open(dir, None, options().create(false)) {
        Err(KvsError::NoStore { .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Closing makes everything durable, so nothing needs to be synced before.
fn options() -> Options {
    Options::new().durability(Durability::Os)
}

fn bytes(argument: OsString) -> Vec<u8> {
    argument.into_encoded_bytes()
}
