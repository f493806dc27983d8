//! What compaction counts, and says of itself.

use std::time::{Duration, Instant};

use crate::store::compaction::Compactor;
use crate::store::location::Seqno;
use crate::store::segment::Segment;
use crate::store::stats::{Stats, bump, micros};
use crate::sync::{Arc, AtomicU64, Ordering};

/// Statistics. Changed by whoever holds the manifest.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Compactions that happened.
    done: AtomicU64,
    /// Bytes of the files that they read, and of those that they wrote.
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// How long they took, and those that did not happen, in microseconds.
    us: AtomicU64,
}

impl Counts {
    /// One took so long, whether it happened or was given up.
    pub(super) fn add_time(&self, took: Duration) {
        bump(&self.us, micros(took));
    }
}

impl Compactor {
    /// Fills in the part of `stats` that is about compaction.
    pub(crate) fn report(&self, stats: &mut Stats) {
        // Relaxed: statistics.
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        stats.compaction_count = count(&self.counts.done);
        stats.compaction_read_bytes = count(&self.counts.read_bytes);
        stats.compaction_written_bytes = count(&self.counts.written_bytes);
        stats.compaction_us = count(&self.counts.us);
    }

    /// Says that `inputs` are about to be replaced.
    pub(super) fn say_begun(&self, inputs: &[Arc<Segment>]) {
        let live: u64 = inputs.iter().map(|input| input.live_bytes()).sum();
        let (count, bytes) = (inputs.len(), bytes_of(inputs));
        self.options.logger.debug(format_args!(
            "compaction begins: {count} segments of {bytes} bytes, {live} of them live"
        ));
    }

    /// Counts, and says, that `outputs` have replaced `inputs`.
    pub(super) fn note_done(
        &self,
        inputs: &[Arc<Segment>],
        outputs: &[Arc<Segment>],
        began: Instant,
    ) {
        let (read, written) = (bytes_of(inputs), bytes_of(outputs));
        bump(&self.counts.done, 1);
        bump(&self.counts.read_bytes, read);
        bump(&self.counts.written_bytes, written);
        let (from, to) = (inputs.len(), outputs.len());
        let seconds = began.elapsed().as_secs_f64();
        self.options.logger.info(format_args!(
            "compacted {from} segments of {read} bytes into {to} of {written} in {seconds:.3} s"
        ));
    }
}

/// Bytes of the files of `segments`.
pub(super) fn bytes_of(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.len()).sum()
}

/// For each segment of `live`, how many bytes of tombstones in the others have to stay as long as
/// it does, by the rule of `may_forget_tombstone`. Segments do not say which of their records are
/// the tombstones, so all of one that overlaps in time are counted.
pub(crate) fn blocking_tombstone_bytes(live: &[Arc<Segment>]) -> Vec<u64> {
    let holds = |segment: &Arc<Segment>| {
        (segment.all_after(), segment.none_after(), segment.tombstone_bytes())
    };
    // Asked for once: each answer takes a lock.
    let held: Vec<_> = live.iter().map(holds).collect();
    let blocked_by = |(index, after): (usize, Seqno)| {
        let others = held.iter().enumerate().filter(|(other, _)| *other != index);
        others.filter(|(_, (_, last, _))| *last > after).map(|(_, (_, _, bytes))| bytes).sum()
    };
    held.iter().map(|(after, ..)| *after).enumerate().map(blocked_by).collect()
}
