//! `kvs dump`, `kvs load`, `kvs import`: a store as text, and back.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use kvs::{KvsEngine, KvsError, dump};
use serde::Serialize;

use crate::progress::{Bar, Counted};
use crate::report::{ReportArguments, row};

/// Bytes between two lines of text and the operating system (1 MiB).
const BUFFER_LEN: usize = 1 << 20;

pub(crate) const DUMP_HELP: &str = "\
One JSON object a line: key and value; key_b64 and value_b64, in base64, where
they are not UTF-8; expiry_ms, milliseconds since 1970, if the key expires. The
order of lines means nothing.

Example:
  kvs --dir cities dump > cities.jsonl && kvs --dir copy load cities.jsonl";

pub(crate) const LOAD_HELP: &str = "\
Sets what the lines say; other keys stay. A line that cannot be taken is named:
everything before it is in the store then, and nothing from it on.

Example:
  kvs --dir copy load cities.jsonl --skip 1000";

pub(crate) const IMPORT_HELP: &str = "\
FROM holds logs of the first implementation: 1.log, 2.log, and so on. It is only
read. Half a line at the very end, as a crash leaves it, is passed over.

Example:
  kvs --dir cities import old-cities";

#[derive(Args)]
pub(crate) struct LoadArguments {
    /// File to read; standard input if there is none
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Pass over the first N lines
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,

    #[command(flatten)]
    report: ReportArguments,
}

#[derive(Serialize)]
struct Loaded {
    write_count: u64,
}

#[derive(Args)]
pub(crate) struct ImportArguments {
    /// Directory of the old logs
    #[arg(value_name = "FROM")]
    from: PathBuf,

    #[command(flatten)]
    report: ReportArguments,
}

pub(crate) fn dump(dir: &Path) -> kvs::Result<()> {
    let store =
        crate::open_to_read(dir)?.ok_or_else(|| KvsError::NoStore { path: dir.to_path_buf() })?;
    let out = io::stdout().lock();
    // A bar among the lines of a screen would only be in the way.
    if out.is_terminal() {
        dump::dump(&store, &mut BufWriter::with_capacity(BUFFER_LEN, out))?;
    } else {
        let out = Counted::new(out, "dumping", None);
        dump::dump(&store, &mut BufWriter::with_capacity(BUFFER_LEN, out))?;
    }
    store.close()
}

pub(crate) fn load(dir: &Path, arguments: &LoadArguments) -> kvs::Result<()> {
    let input: Box<dyn Read> = match &arguments.file {
        None => Box::new(Counted::new(io::stdin().lock(), "loading", None)),
        Some(path) => {
            let failed = |source| KvsError::Io { op: "open", path: path.clone(), source };
            let file = File::open(path).map_err(failed)?;
            let total_bytes = file.metadata().ok().map(|metadata| metadata.len());
            Box::new(Counted::new(file, "loading", total_bytes))
        }
    };
    let store = crate::open(dir, crate::options())?;
    let input = BufReader::with_capacity(BUFFER_LEN, input);
    let loaded = dump::load(&store, input, arguments.skip);
    // What was loaded before a broken line is kept.
    store.close()?;
    let write_count = loaded.map_err(|error| named(error, arguments.file.as_deref()))?;
    arguments.report.print(&Loaded { write_count }, |loaded, text| {
        row(text, "writes", loaded.write_count);
    })
}

/// The error with the file in it.
fn named(error: KvsError, file: Option<&Path>) -> KvsError {
    match error {
        KvsError::BadLine { path: None, line, what } => {
            KvsError::BadLine { path: file.map(Path::to_path_buf), line, what }
        }
        other => other,
    }
}

pub(crate) fn import(dir: &Path, arguments: &ImportArguments) -> kvs::Result<()> {
    // Looked at first, so that no store is made for nothing.
    dump::check_old(&arguments.from)?;
    let store = crate::open(dir, crate::options())?;
    let mut bar = Bar::new("importing");
    let imported = dump::import_old(&arguments.from, &store, &mut |progress| bar.update(progress));
    drop(bar);
    store.close()?;
    arguments.report.print(&imported?, |report, text| {
        row(text, "files", report.file_count);
        row(text, "writes", report.write_count);
        row(text, "crash tail", format!("{} bytes passed over", report.crash_tail_bytes));
    })
}
