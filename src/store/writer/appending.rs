//! What is done to the log: appending, flushing, sealing, syncing; and what becomes of a failure.
//!
//! Runs in the lane, but for the syncs.

use crate::error::{KvsError, Result};
use crate::store::location::{Seqno, len_of};
use crate::store::log_file::AppendError;
use crate::store::record::Kind;
use crate::store::writer::lane::Lane;
use crate::store::writer::{POISONED, RESERVE_USE_LEN_MAX, Writer};

impl Writer {
    /// Appends what is staged: past the tail, if it is to be synced. Returns its offset.
    pub(super) fn append(
        &self,
        lane: &mut Lane,
        before: Seqno,
        last: Seqno,
        sync: bool,
    ) -> Result<u64> {
        let active = lane.active.as_mut().expect("staging made sure of a segment");
        let base = active.segment().len();
        let may_lend = lane.buffer.len() <= RESERVE_USE_LEN_MAX;
        let appended = self.with_reserve(may_lend, || active.append(&lane.buffer, sync));
        if let Err(error) = appended {
            // The seqnos were never seen. The mark, if there was one, will be written anew.
            lane.seqno = before;
            lane.marked = Seqno::ZERO;
            return Err(error);
        }
        for staged in &lane.staged {
            active.note(staged.seqno);
            // Removing makes more room than it takes: it is never held back.
            lane.unweighed_bytes += if staged.kind == Kind::Put { len_of(staged.len) } else { 0 };
        }
        let bytes = len_of(lane.buffer.len());
        self.sync_lane.note_appended(before, last, bytes);
        if active.is_flushed() {
            self.sync_lane.note_flushed(last);
        }
        self.counts.add_group(lane.staged.len());
        Ok(base)
    }

    /// Brings what only the tail has into the log. Nothing is staged.
    pub(super) fn flush(&self, lane: &mut Lane) -> Result<()> {
        let Some(active) = &mut lane.active else { return Ok(()) };
        self.with_reserve(true, || active.flush())?;
        self.sync_lane.note_flushed(lane.seqno);
        Ok(())
    }

    /// Ends the active segment with a footer. Nothing is staged. If that fails, it stays the active
    /// one: no log may follow one without a footer.
    pub(super) fn seal(&self, lane: &mut Lane) -> Result<()> {
        let Some(active) = &mut lane.active else { return Ok(()) };
        self.with_reserve(false, || active.seal())?;
        lane.active = None;
        self.sync_lane.note_flushed(lane.seqno);
        Ok(())
    }

    /// Does `write`; on a full disk once more, with the reserve given up, if it `may_lend` that.
    /// What cannot be undone poisons.
    fn with_reserve(
        &self,
        may_lend: bool,
        mut write: impl FnMut() -> Result<(), AppendError>,
    ) -> Result<()> {
        let mut written = write();
        if let Err(AppendError { error: KvsError::NoSpace { .. }, undone: true }) = &written
            && may_lend
            && self.segments.reserve.lend()
        {
            written = write();
        }
        written.map_err(|AppendError { error, undone }| {
            if !undone {
                self.poison(&error);
            }
            error
        })
    }

    /// Makes every write that has returned so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_open()?;
        self.sync_to(self.flush_all()?)
    }

    /// Flushes, if there is anything to flush. Returns the last write that had returned.
    fn flush_all(&self) -> Result<Seqno> {
        let wanted = self.sync_lane.appended();
        if self.sync_lane.flushed() < wanted {
            self.flush(&mut self.lane.lock())?;
        }
        Ok(wanted)
    }

    /// As [`Writer::sync`], and the footers of sealed segments become durable too.
    pub(crate) fn sync_sealed(&self) -> Result<()> {
        self.check_open()?;
        self.flush_all()?;
        self.sync_all()
    }

    /// Seals the active segment, so that it is never appended to again, and makes it durable.
    pub(crate) fn seal_active(&self) -> Result<()> {
        let mut lane = self.lane.lock();
        self.check_open().and_then(|()| self.seal(&mut lane))?;
        drop(lane);
        self.sync_all()
    }

    /// `wanted` is flushed.
    pub(super) fn sync_to(&self, wanted: Seqno) -> Result<()> {
        let poisoned = || self.state() == POISONED;
        self.sync_lane.sync_to(wanted, &poisoned).inspect_err(|error| self.poison(error))
    }

    pub(super) fn sync_all(&self) -> Result<()> {
        let poisoned = || self.state() == POISONED;
        self.sync_lane.sync_all(&poisoned).inspect_err(|error| self.poison(error))
    }
}
