//! The time of day, as one open store sees it: it never goes back.
//!
//! Expiry compares an absolute time with the clock of the system, which may be set back. A key that
//! somebody was told is gone must not return for that, so a [`Clock`] hands out the latest time it
//! has ever seen. That lasts as long as the store is open: after the next open the system's clock
//! counts anew, and an expired key that compaction has not dropped yet can be there again if that
//! clock was set back meanwhile. A clock that is set ahead by mistake makes keys expire, and they
//! stay so, until the next open at least.
//!
//! Any thread may ask. It costs a read of the system's clock, about 30 ns and no system call.

#[cfg(test)]
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sync::{AtomicU64, Ordering};

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum TimeSource {
    #[default]
    System,
    /// Milliseconds since the Unix epoch, set by a test.
    #[cfg(test)]
    Set(Arc<AtomicU64>),
}

impl TimeSource {
    /// Milliseconds since the Unix epoch; 0 before it.
    fn read_ms(&self) -> u64 {
        match self {
            // A model does the same each time that it is run.
            Self::System if cfg!(any(loom, shuttle)) => 1,
            Self::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
            }
            // Relaxed: a test orders its own steps.
            #[cfg(test)]
            Self::Set(now_ms) => now_ms.load(Ordering::Relaxed),
        }
    }
}

/// The clock of one open store.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    source: TimeSource,
    /// The latest time that was handed out.
    latest_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new(source: TimeSource) -> Self {
        Self { source, latest_ms: AtomicU64::new(0) }
    }

    /// Milliseconds since the Unix epoch, never less than anybody was told before.
    pub(crate) fn now_ms(&self) -> u64 {
        let read_ms = self.source.read_ms();
        // Relaxed: of one atomic nobody sees an older value than one whose reading happened before.
        let latest_ms = self.latest_ms.load(Ordering::Relaxed);
        if latest_ms >= read_ms {
            return latest_ms;
        }
        // Relaxed: as above. Written once a millisecond at most, so that readers share the line.
        self.latest_ms.fetch_max(read_ms, Ordering::Relaxed).max(read_ms)
    }

    /// Whether `expiry_ms` has come. Reads the clock only if there is an expiry.
    #[inline]
    pub(crate) fn has_passed(&self, expiry_ms: Option<u64>) -> bool {
        expiry_ms.is_some_and(|expiry_ms| self.is_past(expiry_ms))
    }

    /// Out of line: most records have no expiry.
    #[cold]
    fn is_past(&self, expiry_ms: u64) -> bool {
        self.now_ms() >= expiry_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let source = Arc::new(AtomicU64::new(1_000));
        let clock = Clock::new(TimeSource::Set(Arc::clone(&source)));
        for (set_ms, told_ms) in [(1_000, 1_000), (999, 1_000), (1_001, 1_001), (0, 1_001)] {
            source.store(set_ms, Ordering::Relaxed);
            assert_eq!(clock.now_ms(), told_ms, "set to {set_ms}");
        }
    }

    #[test]
    fn expiry_has_passed_from_its_millisecond_on() {
        let source = Arc::new(AtomicU64::new(999));
        let clock = Clock::new(TimeSource::Set(Arc::clone(&source)));
        for (set_ms, passed) in [(999, false), (1_000, true), (1_001, true)] {
            source.store(set_ms, Ordering::Relaxed);
            assert_eq!(clock.has_passed(Some(1_000)), passed, "{set_ms}");
        }
        assert!(clock.has_passed(Some(0)) && !clock.has_passed(Some(u64::MAX)));
        assert!(!clock.has_passed(None));
    }

    /// After 2023 and before 2100: the unit is right.
    #[test]
    fn the_system_s_clock_is_in_milliseconds() {
        let now_ms = Clock::default().now_ms();
        assert!((1_700_000_000_000..4_102_444_800_000).contains(&now_ms), "{now_ms}");
    }
}
