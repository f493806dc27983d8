//! What the writer counts, and says of itself.
//!
//! Counted in the lane, by the leader alone, so that counting costs a write next to nothing.

use crate::store::location::len_of;
use crate::store::stats::{GroupSizes, Spans, Stats, bump};
use crate::store::writer::{POISONED, Writer};
use crate::sync::{AtomicU64, Ordering};

/// Counters for statistics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Appends, each of one group, by the number of records in them.
    pub(super) groups: GroupSizes,
    /// Records in them.
    records: AtomicU64,
    /// Logs begun.
    rotations: AtomicU64,
    /// Waits of a leader for compaction.
    pub(super) throttled: Spans,
}

impl Counts {
    /// A group of `count` records was appended. To be called in the lane.
    pub(super) fn add_group(&self, count: usize) {
        self.groups.add(count);
        bump(&self.records, len_of(count));
    }

    /// A log was begun. To be called in the lane.
    pub(super) fn add_rotation(&self) {
        bump(&self.rotations, 1);
    }
}

impl Writer {
    /// Fills in the writer's part of `stats`.
    pub(crate) fn report(&self, stats: &mut Stats) {
        // Relaxed: statistics.
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        stats.group_sizes = self.counts.groups.counts();
        stats.group_count = stats.group_sizes.iter().sum();
        stats.record_count = count(&self.counts.records);
        stats.rotation_count = count(&self.counts.rotations);
        let throttled = self.counts.throttled.count_us_and_max();
        (stats.throttle_count, stats.throttle_us, stats.throttle_us_max) = throttled;
        stats.is_poisoned = self.state() == POISONED;
        self.sync_lane.report(stats);
    }
}
