//! The copying half of a compaction: from inputs to outputs, which nobody reads yet.
//!
//! What is live is verified and copied with its seqno; a tombstone is kept unless it may be
//! forgotten; what has expired is left out, or leaves a tombstone. What was done with each live
//! record is told by a [`Move`], for the keydir to follow once the manifest says so.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::compaction::{Compactor, may_forget_tombstone};
use crate::store::key_hash::KeyHash;
use crate::store::location::{Location, Seqno, len_of};
use crate::store::record::{BatchPlace, Draft, Kind, Record};
use crate::store::segment::{self, Origin, Segment, SegmentWriter, Step};
use crate::store::verify::Meter;
use crate::sync::{Arc, pin, thread};

/// Copies are appended in pieces of this length (1 MiB).
const PIECE_LEN: usize = 1 << 20;

/// How long a compaction that keeps to a rate sleeps before it looks whether it is to stop.
const PACE_STEP: Duration = Duration::from_millis(20);

/// A live record that was copied, or has expired.
pub(super) struct Move {
    pub(super) hash: KeyHash,
    pub(super) from: Location,
    /// The copy; `None` if it has expired and its entry is to go.
    pub(super) to: Option<Location>,
    pub(super) len: usize,
    pub(super) expiry_ms: Option<u64>,
}

/// The copying half of a compaction.
pub(super) struct Copying<'a> {
    compactor: &'a Compactor,
    /// The segments that were live when it began, inputs included.
    live: &'a [Arc<Segment>],
    inputs: &'a [Arc<Segment>],
    /// What has expired by then is left out.
    now_ms: u64,
    writer: Option<SegmentWriter>,
    buffer: Vec<u8>,
    pub(super) outputs: Vec<Arc<Segment>>,
    pub(super) moves: Vec<Move>,
    pub(super) began: Instant,
    bytes: u64,
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        compactor: &'a Compactor,
        live: &'a [Arc<Segment>],
        inputs: &'a [Arc<Segment>],
    ) -> Self {
        Self {
            compactor,
            live,
            inputs,
            now_ms: compactor.segments.clock.now_ms(),
            writer: None,
            buffer: Vec::new(),
            outputs: Vec::new(),
            moves: Vec::new(),
            began: Instant::now(),
            bytes: 0,
        }
    }

    pub(super) fn copy_all(
        &mut self,
        stop: &dyn Fn() -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let mut paced_bytes = 0;
        for input in self.inputs {
            let mut scan = input.scan();
            loop {
                match scan.step()? {
                    Step::Record { offset, record } => {
                        meter.at(offset);
                        self.take(input, offset, &record)?;
                    }
                    Step::End => break,
                    Step::Damaged { offset, damage } => {
                        input.set_damaged();
                        return Err(input.corrupt(offset, damage));
                    }
                }
                if self.buffer.len() >= PIECE_LEN {
                    self.flush()?;
                }
                if self.bytes > paced_bytes {
                    paced_bytes = self.bytes;
                    self.pace(stop);
                    if stop() {
                        return Ok(());
                    }
                }
            }
            meter.end_of_file(input.len());
        }
        Ok(())
    }

    /// Copies `record`, which lies at `offset` of `input`, if it is needed.
    fn take(&mut self, input: &Segment, offset: u64, record: &Record<'_>) -> Result<()> {
        match record.kind {
            Kind::Put => self.take_put(input, offset, record),
            // A clear is a tombstone of every key.
            Kind::Tombstone | Kind::Clear if self.may_forget(record.seqno) => Ok(()),
            Kind::Tombstone | Kind::Clear => {
                self.append(&Draft::copy_of(record), record.seqno).map(drop)
            }
            Kind::Mark | Kind::Footer => Ok(()),
        }
    }

    fn take_put(&mut self, input: &Segment, offset: u64, record: &Record<'_>) -> Result<()> {
        let keydir = &self.compactor.keydir;
        let (hash, from) = (keydir.hash(record.key), input.location(offset));
        if !keydir.points_at(hash, from, &pin())? {
            return Ok(());
        }
        let has_expired = record.expiry_ms.is_some_and(|expiry_ms| self.now_ms >= expiry_ms);
        let to = if !has_expired {
            Some(self.append(&Draft::copy_of(record), record.seqno)?)
        } else if self.may_forget(record.seqno) {
            None
        } else {
            self.append(&Draft::tombstone(record.key), record.seqno)?;
            None
        };
        let (len, expiry_ms) = (record.len(), record.expiry_ms);
        self.moves.push(Move { hash, from, to, len, expiry_ms });
        Ok(())
    }

    fn may_forget(&self, seqno: Seqno) -> bool {
        may_forget_tombstone(seqno, self.live, self.inputs)
    }

    /// Appends `draft`, with the seqno it had, and returns where.
    fn append(&mut self, draft: &Draft<'_>, seqno: Seqno) -> Result<Location> {
        let fits = |writer: &SegmentWriter| writer.fits(self.buffer.len() + draft.len());
        if !self.writer.as_ref().is_some_and(fits) {
            self.finish()?;
            let segments = &self.compactor.segments;
            let capacity = segments.seal_bytes().max(segment::capacity_for(draft.len()));
            self.writer = Some(segments.create(Origin::Copies, Seqno::ZERO, capacity)?);
        }
        let writer = self.writer.as_mut().expect("made above");
        let output = writer.segment();
        let (base, salt) = (output.len(), output.header.salt);
        let start = len_of(self.buffer.len());
        let to = output.location(base + start);
        draft.encode(&mut self.buffer, base, salt, seqno, BatchPlace::Alone);
        if draft.kind != Kind::Put {
            output.add_tombstone(draft.len());
        }
        writer.note(seqno);
        Ok(to)
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.append(&self.buffer, true).map_err(|failed| failed.error)?;
            self.bytes += len_of(self.buffer.len());
            self.buffer.clear();
        }
        Ok(())
    }

    /// Seals the current output, if there is one. After a failure too, so that it can be removed.
    pub(super) fn finish(&mut self) -> Result<()> {
        let flushed = self.flush();
        if let Some(mut writer) = self.writer.take() {
            self.outputs.push(Arc::clone(writer.segment()));
            flushed?;
            writer.seal().map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Waits until the copied bytes are within the rate that the options allow, or `stop` says so.
    fn pace(&self, stop: &dyn Fn() -> bool) {
        let Some(rate) = self.compactor.options.compaction_bytes_per_second_max else { return };
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / rate);
        while !stop() {
            let left = due.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(PACE_STEP));
        }
    }
}
