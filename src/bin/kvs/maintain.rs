//! `kvs compact`, `kvs checkpoint`, `kvs repair`: looking after a store.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;
use kvs::{KvStore, KvsEngine};
use serde::Serialize;

use crate::inspect;
use crate::progress::Bar;
use crate::report::{ReportArguments, row};

pub(crate) const COMPACT_HELP: &str = "\
Reads and writes the files that hold anything dead. While it works, the copies
of what is live take space beside them.

Example:
  kvs --dir cities compact";

pub(crate) const CHECKPOINT_HELP: &str = "\
The copy opens as it is. Where the file system can, it shares the finished files
of the store and takes no space at first. DIR must not exist, or be empty.

Example:
  kvs --dir cities checkpoint backup && kvs --dir backup get no";

pub(crate) const REPAIR_HELP: &str = "\
Saves every record that proves itself into a new store in TO, which must not
exist, or be empty. The damaged store is only read. A newer value or a removal
may be among what is lost: doubtful keys are those for which that is possible.

Example:
  kvs --dir damaged repair saved";

#[derive(Args)]
pub(crate) struct CheckpointArguments {
    /// Directory to make
    #[arg(value_name = "DIR")]
    to: PathBuf,

    #[command(flatten)]
    report: ReportArguments,
}

#[derive(Args)]
pub(crate) struct RepairArguments {
    /// Directory to make
    #[arg(value_name = "TO")]
    to: PathBuf,

    #[command(flatten)]
    report: ReportArguments,
}

#[derive(Serialize)]
struct Compacted {
    bytes_before: u64,
    bytes_after: u64,
}

#[derive(Serialize)]
struct Checkpoint {
    key_count: u64,
    total_bytes: u64,
}

pub(crate) fn compact(dir: &Path, arguments: &ReportArguments) -> kvs::Result<()> {
    let store = crate::open_kvs(dir, crate::options().create(false).auto_compaction(false))?;
    let bytes_before = store.stats().total_bytes;
    let mut bar = Bar::new("compacting");
    let compacted = store.compact_with(&mut |progress| bar.update(progress));
    drop(bar);
    compacted?;
    let bytes_after = store.stats().total_bytes;
    store.close()?;
    arguments.print(&Compacted { bytes_before, bytes_after }, |compacted, text| {
        row(text, "before", HumanBytes(compacted.bytes_before));
        row(text, "after", HumanBytes(compacted.bytes_after));
    })
}

pub(crate) fn checkpoint(dir: &Path, arguments: &CheckpointArguments) -> kvs::Result<()> {
    let store = crate::open_kvs(dir, crate::options().create(false).auto_compaction(false))?;
    let mut bar = Bar::new("copying");
    let mut copied = Checkpoint { key_count: store.len()?, total_bytes: 0 };
    let made = store.checkpoint_with(&arguments.to, &mut |progress| {
        copied.total_bytes = progress.total_bytes;
        bar.update(progress);
    });
    drop(bar);
    made?;
    store.close()?;
    arguments.report.print(&copied, |copied, text| {
        row(text, "keys", copied.key_count);
        row(text, "files", HumanBytes(copied.total_bytes));
    })
}

pub(crate) fn repair(dir: &Path, arguments: &RepairArguments) -> kvs::Result<()> {
    let mut bar = Bar::new("repairing");
    let report = KvStore::repair(dir, &arguments.to, &mut |progress| bar.update(progress))?;
    drop(bar);
    arguments.report.print(&report, |report, text| {
        row(text, "keys kept", report.key_count);
        row(text, "doubtful keys", report.doubtful_key_count);
        row(text, "keys and values", HumanBytes(report.key_and_value_bytes));
        row(text, "manifest", if report.manifest_lost { "lost" } else { "sound" });
        inspect::verify_rows(&report.found, text);
    })
}
