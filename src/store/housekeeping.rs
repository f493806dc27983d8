//! Housekeeping: what an open store does by itself, and how it ends.
//!
//! ```text
//! kvs-sync      makes writes durable at the interval that the options say
//! kvs-commit    leads groups that no thread waits for, where every write waits for the disk
//! kvs-compact   hints and lists what was sealed; gives back what is dead
//! close         writer, threads, hints, manifest, lock: in this order
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{KvsError, Result};
use crate::options::Durability;
use crate::store::stats::Progress;
use crate::store::{Core, Held, checkpoint, loading};
use crate::sync::{self, Ordering, thread};

/// How often compaction looks for files whose last reader has gone, while nothing wakes it.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

impl Core {
    pub(super) fn sync_at_intervals(&self) {
        let Durability::Interval(interval) = self.options.durability else { return };
        while !self.is_stopping() {
            self.sync_wanted.wait(Some(interval));
            if self.writer.has_unsynced()
                && let Err(error) = self.writer.sync()
            {
                // Poisoned: every later write says so. Whoever closes the store makes all durable
                // itself, and wakes this thread when no more syncs are taken: that is no failure.
                if !self.is_stopping() {
                    self.options.logger.error(format_args!("no more syncs at intervals: {error}"));
                }
                return;
            }
        }
    }

    pub(super) fn compact_in_background(&self) {
        let (sync_log, stop) = (|| self.writer.sync_sealed(), || self.is_stopping());
        while !stop() {
            self.segments.compaction_wanted.wait(Some(SWEEP_INTERVAL));
            let work = || -> Result<()> {
                while !stop() {
                    let more = self.compact_some(&sync_log, &stop)?;
                    self.tend_sealed(&stop)?;
                    if !more {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = work()
                && !stop()
            {
                let text = error.to_string();
                // Said once, until someone has heard of it.
                if self.background_error.lock().replace(error).is_none() {
                    self.options.logger.error(format_args!("compaction failed: {text}"));
                }
            }
        }
    }

    fn compact_some(
        &self,
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        if self.segments.log_has_mostly_expired() {
            match self.writer.seal_active() {
                // Compaction makes room for a footer: the next look seals it.
                Err(KvsError::NoSpace { .. }) => {}
                sealed => sealed?,
            }
        }
        self.compactor.compact_some(sync_log, stop)
    }

    /// Makes the hints of logs that were sealed, and lists them, so that an open after a crash need
    /// not read them.
    pub(super) fn tend_sealed(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        loading::make_missing(&self.segments, self.keydir.hasher(), stop)?;
        if stop() || !self.compactor.has_unlisted() {
            return Ok(());
        }
        self.compactor.list_sealed(None, &|| self.writer.sync_sealed())
    }

    pub(super) fn compact(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        // Before the lane is waited for, which the caller may hold.
        self.options.logger.check_caller()?;
        if let Some(error) = self.background_error.lock().take() {
            return Err(error);
        }
        self.writer.seal_active()?;
        let (sync_log, stop) = (|| self.writer.sync_sealed(), || self.is_stopping());
        self.compactor.compact_all(&sync_log, &stop, progress)
    }

    pub(super) fn checkpoint(&self, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        // Before the right to compact is waited for, which the caller may have.
        self.options.logger.check_caller()?;
        let source = self.compactor.at_rest(|manifest| {
            self.writer.seal_active()?;
            let now = self.segments.snapshot();
            // What was sealed between these two may not be durable yet. Nobody but the writer syncs
            // a log: who was told of a failure must be the one who takes no more writes.
            self.writer.sync_sealed()?;
            Ok(checkpoint::Source::new(manifest.clone(), now))
        });
        let source: checkpoint::Source = source?;
        source.write(self.segments.disk(), dir, &self.options.logger, progress)
    }

    /// Loads the index, as far as it can be: bytes are known to be live only then.
    pub(super) fn load_for_figures(&self) {
        if let Err(error) = self.keydir.load_all(&|| self.is_stopping()) {
            let log = &self.options.logger;
            log.warn(format_args!("figures of a part of the index only: {error}"));
        }
    }

    /// The store in a few words, for its log.
    pub(super) fn what_it_holds(&self) -> String {
        let (_, total) = self.segments.live_and_total_bytes();
        let segments = self.segments.snapshot().segments.len();
        match self.keydir.known_len() {
            Some(keys) => format!("{keys} keys, {segments} segments of {total} bytes"),
            None => format!("{segments} segments of {total} bytes, keys not counted yet"),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        // Acquire: pairs with the Release in `close`.
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) -> Result<()> {
        self.options.logger.check_caller()?;
        let (log, began) = (&self.options.logger, Instant::now());
        let mut threads = self.threads.lock();
        // Release: pairs with the Acquire in `is_stopping`.
        self.stop.store(true, Ordering::Release);
        self.sync_wanted.raise();
        self.segments.compaction_wanted.raise();
        let closed = self.writer.close();
        for thread in threads.drain(..) {
            // The last handle may go in a thread of ours, at the end of a `write_then`.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                log.error(format_args!("a background thread panicked"));
            }
        }
        // Another process may have the directory from here on: nobody may be at work in it.
        self.compactor.finish();
        let mut held = self.held.lock();
        if matches!(*held, Held::Lock { .. }) {
            if closed.is_ok() {
                self.ease_next_open();
            }
            // For the last time: afterwards the same name may be another store's.
            if let Err(error) = self.segments.sweep() {
                log.warn(format_args!("a compacted file stays until the next open: {error}"));
            }
        }
        // Lists of segments that were replaced keep files open: none is when this returns, unless a
        // reader needs it.
        sync::collect_garbage();
        let before = std::mem::replace(&mut *held, Held::Nothing);
        drop((held, threads));
        if !matches!(before, Held::Nothing) {
            let ms = began.elapsed().as_millis();
            log.info(format_args!("closed in {ms} ms: {}", self.what_it_holds()));
        }
        // Here the lock is let go.
        drop(before);
        closed
    }

    /// Writes down what the next open would have to find out. Everything is durable.
    fn ease_next_open(&self) {
        let made = loading::make_missing(&self.segments, self.keydir.hasher(), &|| false);
        // A key whose record is damaged may have been counted twice, or not at all.
        let key_count = self.keydir.known_len().filter(|_| !self.segments.is_damaged());
        let listed = self.compactor.list_sealed(key_count, &|| Ok(()));
        if let Err(error) = made.and(listed) {
            let log = &self.options.logger;
            log.warn(format_args!("the next open reads the newest logs: {error}"));
        }
    }
}
