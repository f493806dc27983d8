//! `kvs stat`, `kvs verify`, `kvs log`: looking at a store.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::Args;
use indicatif::HumanBytes;
use kvs::{KvStore, KvsEngine, KvsError, SegmentStats, Stats, VerifyReport};
use serde::Serialize;

use crate::progress::Bar;
use crate::report::{self, ReportArguments, row};

pub(crate) const STAT_HELP: &str = "\
Lines of figures carry the names of the JSON: _bytes of files, _us microseconds.
Bars show how much of a file is live (#) and how much is dead (-); blocks,
how many bytes of tombstones in other files cannot go before this one does.

Example:
  kvs --dir cities stat && kvs --dir cities stat --json | jq .stats.live_bytes";

pub(crate) const VERIFY_HELP: &str = "\
Works on a store that is too damaged to open, and changes nothing. Exit code 1
if anything is damaged. An unfinished write that a crash left is no damage.

Example:
  kvs --dir cities verify || kvs --dir cities repair saved";

pub(crate) const LOG_HELP: &str = "\
One JSON object a line: file, offset, bytes, kind, seqno, state (live or stale),
key (key_b64 if it is not UTF-8), value_len. Only reads: the store may be
damaged, or in use.

Example:
  kvs --dir cities log --values | grep '\"key\":\"no\"'";

#[derive(Args)]
pub(crate) struct LogArguments {
    /// Print values too
    #[arg(long)]
    values: bool,
}

#[derive(Serialize)]
struct StatReport {
    dir: String,
    stats: Stats,
    segments: Vec<SegmentStats>,
}

pub(crate) fn stat(dir: &Path, arguments: &ReportArguments) -> kvs::Result<()> {
    let store = crate::open_kvs(dir, crate::options().read_only(true))?;
    let dir = dir.display().to_string();
    let report = StatReport { dir, stats: store.stats(), segments: store.segment_stats() };
    store.close()?;
    arguments.print(&report, |report, text| {
        row(text, "store", &report.dir);
        text.push_str(&report.stats.to_string());
        text.push_str("segments\n");
        for segment in &report.segments {
            text.push_str("  ");
            text.push_str(&segment.to_string());
            text.push('\n');
        }
    })
}

pub(crate) fn verify(dir: &Path, arguments: &ReportArguments) -> kvs::Result<()> {
    let mut bar = Bar::new("verifying");
    let report = KvStore::verify_dir(dir, &mut |progress| bar.update(progress))?;
    drop(bar);
    arguments.print(&report, verify_rows)?;
    match report.damages.first() {
        None => Ok(()),
        Some(damage) => Err(KvsError::Corrupt {
            path: damage.path.clone(),
            offset: damage.offset,
            what: damage.what,
        }),
    }
}

pub(crate) fn verify_rows(report: &VerifyReport, text: &mut String) {
    row(text, "segments", report.segment_count);
    row(text, "sound records", report.record_count);
    row(text, "files", HumanBytes(report.total_bytes));
    row(text, "crash tail", HumanBytes(report.crash_tail_bytes));
    row(text, "damages", report.damage_count);
    report::damage_rows(text, &report.damages, report.damage_count);
}

pub(crate) fn log(dir: &Path, arguments: &LogArguments) -> kvs::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    KvStore::read_log(dir, &mut |record| {
        writeln!(out, "{}", record.to_json(arguments.values)).map_err(report::stdout_failed)
    })?;
    out.flush().map_err(report::stdout_failed)
}
