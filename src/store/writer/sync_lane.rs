//! The sync lane: makes the log durable, one round of `fdatasync` at a time.
//!
//! A round covers everything that was in the files when it began, whoever waits for it; what is in
//! the tail only is to be flushed before. Appends go on meanwhile; so does the sealing of a
//! segment, which stays in the list until a round has covered its footer too. Any thread may sync.
//!
//! What is durable is always a prefix of the write order: segments are synced oldest first, and the
//! durable seqno rises only after all of them.

use std::path::PathBuf;
use std::time::Instant;

use crate::error::{KvsError, Result};
use crate::store::disk::Disk;
use crate::store::location::Seqno;
use crate::store::segment::Segment;
use crate::store::stats::{Spans, Stats, bump, micros};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

pub(super) struct SyncLane {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held for a round. Whether one has failed: who waited for it must know before it begins
    /// another, which could report success for pages that the kernel has dropped.
    lane: Mutex<bool>,
    unsynced: Mutex<Unsynced>,
    /// Every write up to this one is in the log, in the file of a log, and there on disk.
    appended: AtomicU64,
    flushed: AtomicU64,
    durable: AtomicU64,
    /// Bytes of records appended, brought into files, and made durable, since the store was opened.
    appended_bytes: AtomicU64,
    flushed_bytes: AtomicU64,
    durable_bytes: AtomicU64,
    /// Since when there has been something that is not durable, in microseconds after `opened`:
    /// the age of the oldest such write, or a little more.
    unsynced_since_us: AtomicU64,
    opened: Instant,
    rounds: Spans,
}

#[derive(Default)]
struct Unsynced {
    /// Segments with bytes that may not be durable, oldest first.
    segments: Vec<Arc<Segment>>,
    /// Whether a segment's directory entry may not be durable.
    dir: bool,
}

impl SyncLane {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, last: Seqno) -> Self {
        Self {
            disk,
            dir,
            lane: Mutex::new(false),
            unsynced: Mutex::default(),
            appended: AtomicU64::new(last.get()),
            flushed: AtomicU64::new(last.get()),
            durable: AtomicU64::new(last.get()),
            appended_bytes: AtomicU64::new(0),
            flushed_bytes: AtomicU64::new(0),
            durable_bytes: AtomicU64::new(0),
            unsynced_since_us: AtomicU64::new(0),
            opened: Instant::now(),
            rounds: Spans::default(),
        }
    }

    /// Takes `segment`, just created, into the list. To be called before anything is appended to
    /// it for a write.
    pub(super) fn watch(&self, segment: &Arc<Segment>) {
        let mut unsynced = self.unsynced.lock();
        unsynced.segments.push(Arc::clone(segment));
        unsynced.dir = true;
    }

    /// Takes down that every write up to `last` is appended, those after `before` just now, in
    /// `bytes`. To be called in the lane.
    pub(super) fn note_appended(&self, before: Seqno, last: Seqno, bytes: u64) {
        // The clock is read by the first write after a sync, not by each.
        if self.durable() >= before {
            // Relaxed: a statistic.
            self.unsynced_since_us.store(micros(self.opened.elapsed()), Ordering::Relaxed);
        }
        bump(&self.appended_bytes, bytes);
        // Release: pairs with the Acquire in `appended`: who reads it flushes these bytes.
        self.appended.store(last.get(), Ordering::Release);
    }

    /// Takes down that every write up to `last` is in the file of a log. To be called in the lane.
    pub(super) fn note_flushed(&self, last: Seqno) {
        // Relaxed: statistics.
        self.flushed_bytes.store(self.appended_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: pairs with the Acquire in `flushed`: who reads it syncs these bytes.
        self.flushed.store(last.get(), Ordering::Release);
    }

    pub(super) fn appended(&self) -> Seqno {
        // Acquire: pairs with the Release in `note_appended`.
        Seqno::new(self.appended.load(Ordering::Acquire))
    }

    pub(super) fn flushed(&self) -> Seqno {
        // Acquire: pairs with the Release in `note_flushed`.
        Seqno::new(self.flushed.load(Ordering::Acquire))
    }

    pub(super) fn durable(&self) -> Seqno {
        // Acquire: pairs with the Release in `round`.
        Seqno::new(self.durable.load(Ordering::Acquire))
    }

    /// Fills in the part of `stats` that is about what is durable.
    pub(super) fn report(&self, stats: &mut Stats) {
        (stats.sync_count, stats.sync_us, stats.sync_us_max) = self.rounds.count_us_and_max();
        // Relaxed: statistics. In this order: what is durable was appended before.
        let durable_bytes = self.durable_bytes.load(Ordering::Relaxed);
        stats.written_bytes = self.appended_bytes.load(Ordering::Relaxed);
        stats.unsynced_bytes = stats.written_bytes.saturating_sub(durable_bytes);
        if self.appended() > self.durable() {
            let since = self.unsynced_since_us.load(Ordering::Relaxed);
            stats.unsynced_us = micros(self.opened.elapsed()).saturating_sub(since);
        }
    }

    /// Returns when every write up to `wanted`, which is flushed, is durable.
    ///
    /// After an error the caller poisons the writer; `is_poisoned` says that it has.
    pub(super) fn sync_to(&self, wanted: Seqno, is_poisoned: &dyn Fn() -> bool) -> Result<()> {
        if self.durable() >= wanted {
            return Ok(());
        }
        // The round that this one waits for may cover it.
        self.round_if(|| self.durable() < wanted, is_poisoned)
    }

    /// Makes everything durable, footers included. What `is_poisoned` is for, `sync_to` says.
    pub(super) fn sync_all(&self, is_poisoned: &dyn Fn() -> bool) -> Result<()> {
        self.round_if(|| !self.unsynced.lock().segments.is_empty(), is_poisoned)
    }

    /// Does a round if it `is_wanted` when its turn has come.
    fn round_if(
        &self,
        is_wanted: impl FnOnce() -> bool,
        is_poisoned: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut has_failed = self.lane.lock();
        if *has_failed || is_poisoned() {
            return Err(KvsError::Poisoned);
        }
        if is_wanted() {
            self.round().inspect_err(|_| *has_failed = true)?;
        }
        Ok(())
    }

    fn round(&self) -> Result<()> {
        // Read before the list: a segment is in the list before anything is appended to it. The
        // bytes are counted before the seqno rises, so they may be those of a write more.
        let began = Instant::now();
        let covered = self.flushed();
        // Relaxed: a statistic.
        let covered_bytes = self.flushed_bytes.load(Ordering::Relaxed);
        let (segments, dir) = {
            let mut unsynced = self.unsynced.lock();
            (unsynced.segments.clone(), std::mem::take(&mut unsynced.dir))
        };
        // What was sealed before the round is done with after it.
        let sealed: Vec<_> =
            segments.iter().filter(|segment| segment.footer().is_some()).cloned().collect();
        for segment in &segments {
            segment.sync()?;
        }
        if dir {
            self.disk.sync_dir(&self.dir)?;
        }
        self.rounds.add(began.elapsed());
        // Relaxed: statistics. Before the seqno, which tells the writer to set the time anew: what
        // was appended meanwhile is younger than the round.
        let since = micros(began.saturating_duration_since(self.opened));
        self.unsynced_since_us.store(since, Ordering::Relaxed);
        self.durable_bytes.store(covered_bytes, Ordering::Relaxed);
        // Release: pairs with the Acquire in `durable`.
        self.durable.fetch_max(covered.get(), Ordering::Release);
        let is_done = |held: &Arc<Segment>| sealed.iter().any(|done| Arc::ptr_eq(held, done));
        self.unsynced.lock().segments.retain(|segment| !is_done(segment));
        Ok(())
    }
}
