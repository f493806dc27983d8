//! The end of a log that nobody vouches for: where its last whole write is.
//!
//! Used by those who find a log as its writer left it, or is just writing it. Reads the file from
//! front to back, verifies every record, and changes nothing; any thread may.

use std::path::Path;

use crate::error::{KvsError, Result};
use crate::options::ReadMode;
use crate::store::disk::Disk;
use crate::store::hint::HintBuilder;
use crate::store::key_hash::KeyHasher;
use crate::store::location::{SegmentId, Seqno, Slot, len_of};
use crate::store::names;
use crate::store::record::{self, BatchPlace, Footer, Kind};
use crate::store::segment::{HEADER_LEN, Segment, SegmentHeader, Step};
use crate::store::sift::{Met, Sift};
use crate::store::stats::Progress;
use crate::store::tail::TailImage;

/// Bytes of a log after which the count of bytes read goes on (1 MiB).
const COUNT_BYTES: u64 = 1 << 20;

/// Where the good part of a log ends.
pub(crate) struct LogEnd {
    pub(crate) offset: u64,
    /// What its footer says, or is to say.
    pub(crate) footer: Footer,
    pub(crate) sealed: bool,
    /// Whether there is anything but zeros behind `offset`.
    pub(crate) torn: bool,
    /// Every write up to this one was durable once: a mark says so.
    pub(crate) durable: Seqno,
}

/// Walks a log to its first byte that is no record, and gathers its hint. An unfinished batch does
/// not count. Zeros at the end of the file are room for what was to come.
///
/// A footer at the end proves nothing: rotation does not wait for the disk, so after a power loss
/// the footer may be there and records before it may not.
///
/// `count` is told of bytes that were read.
pub(crate) fn walk_to_end(
    log: &Segment,
    hasher: KeyHasher,
    count: &mut dyn FnMut(u64),
) -> Result<(LogEnd, HintBuilder)> {
    // Now: who is writing the log may add to it meanwhile. Nothing is read behind that: where a
    // file system is full, as tmpfs, looking into a hole through a mapping can kill.
    let used_len = log.log().used_len()?;
    let before = log.header.seqno_before;
    let mut hint = HintBuilder::new(hasher);
    let mut footer = Footer { seqno_min: before.next(), seqno_max: before, record_count: 0 };
    let mut end = HEADER_LEN;
    // Records of a batch whose last one has not come yet.
    let mut open_batch = 0;
    let mut durable = Seqno::ZERO;
    let (mut counted, mut sealed) = (0, false);
    let mut scan = log.scan_until(used_len);
    while let Step::Record { offset, record } = scan.step()? {
        if offset > counted + COUNT_BYTES {
            count(offset - counted);
            counted = offset;
        }
        if record.kind == Kind::Footer {
            let after = offset + len_of(record.len());
            let says = Footer::decode(&record).map(|written| written.seqno_max);
            sealed = after >= used_len && open_batch == 0 && says == Some(footer.seqno_max);
            end = if sealed { after } else { end };
            break;
        }
        open_batch += u64::from(record.kind.is_write());
        // A record that does not follow on was not written after the one before: the log ended.
        if record.seqno.get() != footer.seqno_max.get() + open_batch {
            break;
        }
        hint.add(&record, offset);
        durable = record::decode_mark(&record).map_or(durable, |marked| durable.max(marked));
        if record.place == BatchPlace::More {
            continue;
        }
        footer.seqno_max = record.seqno;
        footer.record_count += open_batch;
        open_batch = 0;
        end = offset + len_of(record.len());
    }
    if open_batch > 0 {
        hint.forget_after(footer.seqno_max);
    }
    count(log.len() - counted);
    let torn = end < used_len;
    Ok((LogEnd { offset: end, footer, sealed, torn, durable }, hint))
}

/// How far the reading of logs has come, and of what is read after them.
pub(crate) struct Reading<'a> {
    report: &'a mut dyn FnMut(Progress),
    done_bytes: u64,
    /// Bytes of the logs.
    total_bytes: u64,
}

impl<'a> Reading<'a> {
    /// `report` is told, once something is read.
    pub(crate) fn new(report: &'a mut dyn FnMut(Progress), total_bytes: u64) -> Self {
        Self { report, done_bytes: 0, total_bytes }
    }

    /// `bytes` more were read. What a tail has of a log is not in the total.
    pub(crate) fn add(&mut self, bytes: u64) {
        let total_bytes = self.total_bytes;
        self.done_bytes = (self.done_bytes + bytes).min(total_bytes);
        (self.report)(Progress { done_bytes: self.done_bytes, total_bytes });
    }

    /// All logs were read, or will not be; reports what is read now on top of that.
    pub(crate) fn rest(self) -> impl FnMut(Progress) {
        let Self { report, done_bytes, total_bytes } = self;
        if 0 < done_bytes && done_bytes < total_bytes {
            report(Progress { done_bytes: total_bytes, total_bytes });
        }
        move |now| {
            let (done_bytes, all_bytes) = (total_bytes + now.done_bytes, now.total_bytes);
            report(Progress { done_bytes, total_bytes: total_bytes + all_bytes });
        }
    }
}

/// The logs of a store that its manifest does not list.
pub(crate) struct Unlisted<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) store_id: u64,
    pub(crate) read_mode: ReadMode,
    /// What the newest of them may go on in.
    pub(crate) tail: Option<&'a TailImage>,
}

impl Unlisted<'_> {
    /// The log `id`; `None` if not even its header was written.
    pub(crate) fn open(&self, id: SegmentId) -> Result<Option<Segment>> {
        let path = names::segment(self.dir, id);
        let Some(header) = SegmentHeader::read(self.disk, &path)? else { return Ok(None) };
        if header.store_id != self.store_id || header.id != id {
            return Err(KvsError::corrupt(&path, 16, "the segment belongs to another store"));
        }
        let slot = Slot::new(1).expect("slot 1 exists");
        Segment::open(self.disk, &path, slot, self.read_mode, self.tail).map(Some)
    }

    /// Refuses to leave out what follows a log's last whole write, if a mark in one of `ids` says
    /// that the write `lost`, the next one, was durable. Looks at the bytes from `from` on in the
    /// first log, and at all of the others.
    pub(crate) fn check_not_durable(
        &self,
        ids: &[SegmentId],
        from: u64,
        lost: Seqno,
    ) -> Result<()> {
        let mut offset = from;
        for id in ids {
            if let Some(log) = self.open(*id)?
                && vouches(&log, offset, lost)
            {
                let what =
                    "writes that were durable are damaged; repair the store into a new directory";
                return Err(KvsError::corrupt(log.path(), offset, what));
            }
            offset = HEADER_LEN;
        }
        Ok(())
    }
}

/// Whether a mark in `log`, at `from` or behind, says that the write `lost` was durable.
fn vouches(log: &Segment, from: u64, lost: Seqno) -> bool {
    let mut sift = Sift::new(log.log(), log.header.salt, log.len()).from(from);
    loop {
        match sift.step() {
            Met::Record { record, .. } => {
                if record::decode_mark(&record).is_some_and(|durable| durable >= lost) {
                    return true;
                }
            }
            Met::Hole(_) => {}
            Met::End => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    /// The logs first, and what is read after them on top; what is to be read twice is told once.
    #[test]
    fn progress_rises_to_the_length_of_the_logs_and_goes_on_behind_it() {
        const AFTER: Progress = Progress { done_bytes: 5, total_bytes: 7 };
        // What is read of logs of 100 bytes, and what is told of that, before more is read.
        for (read, told) in [
            (&[][..], &[][..]),
            (&[30], &[30, 100]),
            (&[30, 40], &[30, 70, 100]),
            (&[30, 70], &[30, 100]),
            // Some of it in a tail.
            (&[30, 90], &[30, 100]),
        ] {
            let seen = Mutex::new(Vec::new());
            let report = &mut |Progress { done_bytes, total_bytes }| {
                seen.lock().push((done_bytes, total_bytes));
            };
            let mut reading = Reading::new(report, 100);
            for bytes in read {
                reading.add(*bytes);
            }
            reading.rest()(AFTER);
            let logs = told.iter().map(|done_bytes| (*done_bytes, 100));
            let expected: Vec<_> = logs.chain([(105, 107)]).collect();
            assert_eq!(seen.into_inner(), expected, "{read:?}");
        }
    }
}
