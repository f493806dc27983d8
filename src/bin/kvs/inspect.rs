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
Bars show how much of a file is live (#) and how much is dead (-).

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

/// Columns of the bar of a segment.
const BAR_LEN: u64 = 24;

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
    let store = crate::open_kvs(dir)?;
    let dir = dir.display().to_string();
    let report = StatReport { dir, stats: store.stats(), segments: store.segment_stats() };
    store.close()?;
    arguments.print(&report, |report, text| {
        let stats = &report.stats;
        row(text, "store", &report.dir);
        row(text, "keys", stats.key_count);
        row(text, "files", HumanBytes(stats.total_bytes));
        let live = percent(stats.live_bytes, stats.total_bytes);
        row(text, "live", format!("{} ({live} %)", HumanBytes(stats.live_bytes)));
        row(text, "tombstones", HumanBytes(stats.tombstone_bytes));
        row(text, "index in memory", HumanBytes(stats.index_bytes));
        row(text, "crash tails cut", stats.crash_tails_cut);
        for segment in &report.segments {
            text.push_str(&segment_row(segment));
        }
    })
}

fn segment_row(segment: &SegmentStats) -> String {
    let SegmentStats { file, total_bytes, live_bytes, .. } = segment;
    let size = HumanBytes(*total_bytes).to_string();
    let live = percent(*live_bytes, *total_bytes);
    format!("  {file}  {size:>10}  {live:>3} % live  {}\n", bar(*live_bytes, *total_bytes))
}

/// As `####----`: live, then dead.
fn bar(live: u64, total: u64) -> String {
    let filled = (live.min(total) * BAR_LEN).div_ceil(total.max(1));
    (0..BAR_LEN).map(|column| if column < filled { '#' } else { '-' }).collect()
}

fn percent(part: u64, whole: u64) -> u64 {
    part * 100 / whole.max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_full_empty_and_between() {
        assert_eq!(bar(100, 100), "#".repeat(24));
        assert_eq!(bar(0, 100), "-".repeat(24));
        assert_eq!(bar(50, 100), format!("{}{}", "#".repeat(12), "-".repeat(12)));
        assert_eq!(bar(1, 1_000_000), format!("#{}", "-".repeat(23)));
        assert_eq!(bar(0, 0), "-".repeat(24));
    }
}
