//! Repair: what can be saved of a damaged directory, for a new store.
//!
//! ```text
//! pass 1   verify, for the report
//! pass 2   every record that proves itself: the highest seqno of each key; holes are skipped
//! pass 3   every put that is its key's highest, tombstones respected -> the new store
//! ```
//! The damaged directory is opened for reading only. Records behind a hole are kept as well, so
//! that as much as possible comes back; a batch whose end is missing is left out.
//!
//! # What may be wrong afterwards
//!
//! Every value is one that was once set under its key: both checksums held. But a record in a hole
//! may have been *newer* than what was kept: a lost put leaves an older value, a lost tombstone a
//! key that had been removed, a lost part of a batch the rest of it. A write in a hole can only
//! have been newer than writes with a smaller seqno, so the report counts the keys whose write is
//! older than the last one that may be lost: the others are certain. If the manifest is lost,
//! segments that no longer counted may have been read, and every key is in doubt.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::store::disk::Disk;
use crate::store::listing::Newest;
use crate::store::names;
use crate::store::record::{Draft, Kind};
use crate::store::sift::Met;
use crate::store::stats::Progress;
use crate::store::survey::Survey;
use crate::store::verify::{self, Meter, VerifyReport};

/// How often the files are read.
const PASSES: u64 = 3;

/// What a repair saved, and what may be wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// Keys in the new store.
    pub key_count: u64,
    /// Bytes of their keys and values.
    pub key_and_value_bytes: u64,
    /// Kept keys whose write is older than one that may be lost: they may have had a newer value,
    /// or have been removed.
    pub doubtful_key_count: u64,
    /// Whether the list of segments was lost, so that removed keys may be back.
    pub manifest_lost: bool,
    /// What is damaged in the old store.
    pub found: VerifyReport,
}

/// Calls `keep` with each write that is to be kept, in the order of files.
pub(crate) fn salvage(
    disk: &dyn Disk,
    from: &Path,
    keep: &mut dyn FnMut(&Draft<'_>) -> Result<()>,
    progress: &mut dyn FnMut(Progress),
) -> Result<RepairReport> {
    let found = verify::verify_dir(disk, from, &mut |now| {
        let Progress { done_bytes, total_bytes } = now;
        progress(Progress { done_bytes, total_bytes: PASSES * total_bytes });
    })?;
    let _lock = disk.lock_to_read(&names::lock(from))?;
    let survey = Survey::take(disk, from)?;
    let mut meter = Meter::new(progress, PASSES * survey.total_bytes());
    meter.end_of_file(survey.total_bytes());
    let mut newest = Newest::of(&survey, disk.random(), |len| meter.end_of_file(len));
    let manifest_lost = survey.manifest_error.is_some();
    let mut report = RepairReport { manifest_lost, found, ..RepairReport::default() };
    let lost_max = last_write_in_doubt(&report);
    for segment in &survey.segments {
        let Some(mut sift) = segment.sift() else {
            meter.end_of_file(segment.len);
            continue;
        };
        loop {
            match sift.step() {
                Met::Record { record, .. } if record.kind == Kind::Put && newest.take(&record) => {
                    keep(&Draft::copy_of(&record))?;
                    let len = record.key.len() + record.value.len();
                    report.key_count += 1;
                    report.key_and_value_bytes += u64::try_from(len).unwrap_or(u64::MAX);
                    report.doubtful_key_count += u64::from(record.seqno.get() < lost_max);
                }
                Met::Record { .. } | Met::Hole(_) => {}
                Met::End => break,
            }
            meter.at(sift.offset());
        }
        meter.end_of_file(segment.len);
    }
    Ok(report)
}

/// The last write that may be lost; older ones may have been outdated by it.
fn last_write_in_doubt(report: &RepairReport) -> u64 {
    let found = &report.found;
    let unlisted = found.damage_count > u64::try_from(found.damages.len()).unwrap_or(u64::MAX);
    if report.manifest_lost || unlisted {
        return u64::MAX;
    }
    let last = |damage: &verify::Damage| damage.writes.map_or(u64::MAX, |(_, last)| last);
    found.damages.iter().map(last).max().unwrap_or(0)
}
