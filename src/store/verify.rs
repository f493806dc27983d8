//! Verify: reads every record and says what is damaged. Changes nothing.
//!
//! Two ways in. An open store is verified beside its readers and writers: the segments of one
//! moment, up to where they ended then, and every live entry of the keydir. A directory is verified
//! without opening it, so that one which is too damaged to open can be looked at too; then the
//! manifest is held against the files as well.
//!
//! # What is no damage
//!
//! A process that died leaves a crash tail at the end of the newest log, which the next open cuts.
//! The same rule as in recovery tells it apart: a hole in an unsealed log is a crash tail unless a
//! mark, anywhere in the unlisted logs, says that a write in the hole was durable.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::{KvsError, Result};
use crate::store::disk::Disk;
use crate::store::key_hash::SHARD_COUNT;
use crate::store::keydir::Keydir;
use crate::store::location::{Seqno, len_of};
use crate::store::names;
use crate::store::record::{self, BatchPlace, Footer, Record};
use crate::store::scratch::Scratch;
use crate::store::segment::{HEADER_LEN, Origin, Segment};
use crate::store::segments::Segments;
use crate::store::sift::{Hole, Met, Sift};
use crate::store::stats::Progress;
use crate::store::survey::{self, Survey, Surveyed};
use crate::sync::pin;

/// Most damages that a report lists one by one; the rest is counted. A disk that is gone has
/// millions.
const DAMAGES_LISTED_MAX: usize = 1000;

/// Bytes between two reports of progress (1 MiB).
const PROGRESS_BYTES: u64 = 1 << 20;

/// Reports progress now and then.
pub(crate) struct Meter<'a> {
    report: &'a mut dyn FnMut(Progress),
    total_bytes: u64,
    /// Bytes of the files that are done with.
    before: u64,
    reported: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(report: &'a mut dyn FnMut(Progress), total_bytes: u64) -> Self {
        Self { report, total_bytes, before: 0, reported: 0 }
    }

    /// `offset` bytes of the current file are done.
    pub(crate) fn at(&mut self, offset: u64) {
        let done_bytes = self.before + offset;
        if done_bytes >= self.reported + PROGRESS_BYTES || done_bytes >= self.total_bytes {
            self.reported = done_bytes;
            (self.report)(Progress { done_bytes, total_bytes: self.total_bytes });
        }
    }

    /// The current file, of `len` bytes, is done.
    pub(crate) fn end_of_file(&mut self, len: u64) {
        self.at(len);
        self.before += len;
    }
}

/// A stretch of a file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    #[serde(serialize_with = "path_as_text")]
    pub path: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is; 0 if that cannot be told.
    pub bytes: u64,
    /// What contradicts what.
    pub what: &'static str,
    /// First and last sequence number of the writes that were there, as far as their neighbours
    /// tell.
    pub writes: Option<(u64, u64)>,
}

fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were read.
    pub segment_count: u64,
    /// Records whose checksums hold, marks and footers included.
    pub record_count: u64,
    /// Bytes of the segments.
    pub total_bytes: u64,
    /// Live keys whose record was read, in an open store; 0 for a directory.
    pub live_key_count: u64,
    /// Live keys whose record cannot be read, in an open store; 0 for a directory.
    pub unreadable_key_count: u64,
    /// Bytes of an unfinished write at the end of the newest log, which the next open cuts off. No
    /// damage.
    pub crash_tail_bytes: u64,
    /// How many damages there are.
    pub damage_count: u64,
    /// The first thousand of them.
    pub damages: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0 && self.unreadable_key_count == 0
    }

    fn add(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_LISTED_MAX {
            self.damages.push(damage);
        }
    }
}

/// What a sift through one segment showed.
#[derive(Debug, Default)]
struct Tally {
    record_count: u64,
    /// Puts and tombstones.
    write_count: u64,
    seqno_max: Seqno,
    /// The end of the last write that is whole, its batch included.
    whole_end: u64,
    in_batch: bool,
    footer: Option<Footer>,
    /// The highest write that a mark says is durable.
    durable: Seqno,
    /// Holes, each with the last write before it and the first one behind.
    holes: Vec<(Hole, Seqno, Option<Seqno>)>,
}

impl Tally {
    /// The last write before the first hole; without a hole, the last one.
    fn last_before_hole(&self) -> Seqno {
        self.holes.first().filter(|_| self.footer.is_none()).map_or_else(
            || self.footer.map_or(self.seqno_max, |footer| footer.seqno_max),
            |(_, before, _)| *before,
        )
    }

    /// Counts `record`, which ends at `end`.
    fn note(&mut self, record: &Record<'_>, end: u64) {
        self.record_count += 1;
        self.footer = Footer::decode(record).or(self.footer);
        self.durable = self.durable.max(record::decode_mark(record).unwrap_or_default());
        let is_write = record.kind.is_write();
        if let Some((_, _, behind @ None)) = self.holes.last_mut() {
            // The others carry the seqno of the write before them.
            *behind = Some(if is_write { record.seqno } else { record.seqno.next() });
        }
        if is_write {
            self.write_count += 1;
            self.seqno_max = self.seqno_max.max(record.seqno);
            self.in_batch = record.place == BatchPlace::More;
        }
        if !self.in_batch {
            self.whole_end = end;
        }
    }
}

/// Sifts a segment to its end. In a log, its first write follows `before`.
fn tally(mut sift: Sift<'_>, before: Seqno, meter: &mut Meter<'_>) -> Tally {
    let mut tally = Tally { whole_end: HEADER_LEN, seqno_max: before, ..Tally::default() };
    loop {
        match sift.step() {
            Met::Record { offset, record } => {
                let end = offset + len_of(record.len());
                tally.note(&record, end);
            }
            Met::Hole(hole) if tally.holes.len() < DAMAGES_LISTED_MAX => {
                tally.holes.push((hole, tally.seqno_max, None));
            }
            // Beyond that, the last one stands for all that follow.
            Met::Hole(hole) => {
                if let Some((last, _, behind)) = tally.holes.last_mut() {
                    last.end = hole.end;
                    *behind = None;
                }
            }
            Met::End => return tally,
        }
        meter.at(sift.offset());
    }
}

/// The damage that `hole` is. Which writes are missing, the neighbours say, in a log.
fn damage_of(
    path: &Path,
    (hole, before, behind): (Hole, Seqno, Option<Seqno>),
    is_log: bool,
) -> Damage {
    let only = hole.seqno.map(|seqno| (seqno.get(), seqno.get()));
    let between = behind.filter(|_| is_log).and_then(|behind| {
        let (first, last) = (before.get() + 1, behind.get().saturating_sub(1));
        (first <= last).then_some((first, last))
    });
    let (path, bytes) = (path.to_path_buf(), hole.end - hole.offset);
    Damage { path, offset: hole.offset, bytes, what: hole.what, writes: only.or(between) }
}

/// Verifies the segments of an open store, as they are at this moment, and its keydir.
///
/// # Errors
///
/// Only if a file cannot be opened: damage is not an error but a result.
pub(crate) fn verify_open(
    segments: &Segments,
    keydir: &Keydir,
    report_progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport> {
    let now: Vec<_> = segments.snapshot().segments.into_iter().map(|s| (s.len(), s)).collect();
    let mut report = VerifyReport::default();
    let mut meter = Meter::new(report_progress, now.iter().map(|(len, _)| len).sum());
    for (len, segment) in &now {
        let sift = Sift::new(segment.log(), segment.header.salt, *len);
        let tally = tally(sift, segment.header.seqno_before, &mut meter);
        meter.end_of_file(*len);
        report.segment_count += 1;
        report.total_bytes += len;
        report.record_count += tally.record_count;
        let is_log = segment.header.origin == Origin::Log;
        for hole in tally.holes {
            report.add(damage_of(segment.path(), hole, is_log));
        }
    }
    verify_keydir(segments, keydir, &mut report)?;
    Ok(report)
}

/// Reads the record of every live entry.
fn verify_keydir(segments: &Segments, keydir: &Keydir, report: &mut VerifyReport) -> Result<()> {
    let (mut locations, mut scratch) = (Vec::new(), Scratch::default());
    for shard in 0..SHARD_COUNT {
        locations.clear();
        keydir.copy_shard(shard, &mut locations, || {})?;
        for location in &locations {
            let guard = pin();
            // Compaction has moved the entry since: it is not live here any more.
            let Some(segment) = segments.get(location.slot(), &guard) else { continue };
            let is_sound = is_readable(segment, location.offset(), &mut scratch);
            report.live_key_count += u64::from(is_sound);
            report.unreadable_key_count += u64::from(!is_sound);
        }
    }
    Ok(())
}

fn is_readable(segment: &Segment, offset: u64, scratch: &mut Scratch) -> bool {
    let record = segment.record(offset, scratch);
    record.is_ok_and(|record| segment.verify(record, offset).is_ok())
}

/// Verifies a directory that no process has open, without opening it as a store.
pub(crate) fn verify_dir(
    disk: &dyn Disk,
    dir: &Path,
    report_progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport> {
    let _lock = disk.lock_to_read(&names::lock(dir))?;
    let survey = Survey::take(disk, dir)?;
    let mut report = VerifyReport::default();
    for error in survey.manifest_error.iter().chain(&survey.tail_error) {
        report.add(damage_of_file(dir, error));
    }
    let mut meter = Meter::new(report_progress, survey.total_bytes());
    let mut logs = Vec::new();
    for segment in &survey.segments {
        report.segment_count += 1;
        report.total_bytes += segment.len;
        if let Some((offset, what)) = segment.wrong {
            report.add(whole_file(segment, offset, what));
        }
        let Some(sift) = segment.sift() else {
            meter.end_of_file(segment.len);
            continue;
        };
        let before = segment.header.map_or(Seqno::ZERO, |header| header.seqno_before);
        let tally = tally(sift, before, &mut meter);
        meter.end_of_file(segment.len);
        report.record_count += tally.record_count;
        if segment.listed == Some(true) {
            verify_sealed(segment, tally, &mut report);
        } else {
            logs.push((segment, tally));
        }
    }
    verify_logs(survey.log_after, logs, &mut report);
    Ok(report)
}

/// A segment that is never appended to again: every hole is a damage.
fn verify_sealed(segment: &Surveyed, tally: Tally, report: &mut VerifyReport) {
    let counted = tally.footer.map(|footer| footer.record_count);
    if tally.holes.is_empty() && segment.wrong.is_none() && counted != Some(tally.write_count) {
        let what = match counted {
            Some(_) => "the footer counts other records than there are",
            None => "a sealed segment ends without a footer",
        };
        report.add(whole_file(segment, segment.len, what));
    }
    for hole in tally.holes {
        report.add(damage_of(&segment.path, hole, segment.is_log()));
    }
}

/// The logs that the manifest need not list, oldest first: each goes on where the one before
/// ended, and the rule of the crash tail holds. `last` is the write before the first of them; not
/// known if the manifest is lost.
fn verify_logs(last: Option<Seqno>, logs: Vec<(&Surveyed, Tally)>, report: &mut VerifyReport) {
    let durable = logs.iter().map(|(_, tally)| tally.durable).max().unwrap_or_default();
    let mut last = last;
    let mut gave_up = false;
    for (segment, tally) in logs {
        let Some(header) = segment.header else { continue };
        let before = header.seqno_before;
        if let Some(last) = last.filter(|last| *last != before) {
            let what = "the log before it is missing, or ends too early";
            let damage = Damage {
                writes: Some((last.get() + 1, before.get())),
                ..whole_file(segment, segment.len, what)
            };
            // A log that was sealed was followed by others: that is more than a crash leaves.
            let is_tail = before > last && durable <= last && tally.footer.is_none();
            gave_up = gave_up || is_tail;
            if !gave_up {
                report.add(damage);
            }
        }
        if gave_up {
            report.crash_tail_bytes += segment.len;
            continue;
        }
        if last.is_some() {
            last = Some(before.max(tally.last_before_hole()));
        }
        if tally.footer.is_some() {
            verify_sealed(segment, tally, report);
        } else {
            verify_unsealed(segment, tally, durable, report);
        }
    }
}

/// A log that its process had not sealed when it died.
fn verify_unsealed(segment: &Surveyed, tally: Tally, durable: Seqno, report: &mut VerifyReport) {
    match tally.holes.first() {
        Some((_, before, _)) if durable > *before => {
            for hole in tally.holes {
                report.add(damage_of(&segment.path, hole, true));
            }
        }
        Some((hole, ..)) => report.crash_tail_bytes += segment.len - hole.offset,
        None => report.crash_tail_bytes += segment.len - tally.whole_end.min(segment.len),
    }
}

fn damage_of_file(dir: &Path, error: &KvsError) -> Damage {
    let path = match error {
        KvsError::Corrupt { path, .. } | KvsError::Io { path, .. } => path.clone(),
        _ => dir.to_path_buf(),
    };
    Damage { path, offset: 0, bytes: 0, what: survey::what_of(error), writes: None }
}

fn whole_file(segment: &Surveyed, offset: u64, what: &'static str) -> Damage {
    let bytes = segment.len.saturating_sub(offset);
    Damage { path: segment.path.clone(), offset, bytes, what, writes: None }
}
