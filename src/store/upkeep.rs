//! Upkeep: what an operator does with a store, rather than a program with its data.
//!
//! ```text
//! open store         stats, verify, compact,    beside readers and writers
//!                    checkpoint
//! directory          verify_dir, read_log      nothing is opened, cut or changed
//! damaged directory  repair                    what can be saved, into a new store
//! ```
//! Each is a few lines over the room that does the work. Any thread may call them; they take as
//! long as reading the files takes.

use std::path::Path;

use crate::engine::KvsEngine;
#[cfg(doc)]
use crate::error::KvsError;
use crate::error::Result;
use crate::options::{Durability, Options};
use crate::store::KvStore;
use crate::store::compaction;
use crate::store::disk::RealDisk;
use crate::store::listing::{self, LogRecord};
use crate::store::repair::{self, RepairReport};
use crate::store::segment::{Origin, Segment};
use crate::store::stats::{Progress, SegmentStats, Stats};
use crate::store::survey;
use crate::store::verify::{self, VerifyReport};
use crate::store::writer::{Entry, Op, OpKind};
use crate::sync::{Arc, pin};

impl KvStore {
    /// Figures about the store. Takes locks, briefly: not for every read. Waits until the index is
    /// loaded, if the store was just opened.
    pub fn stats(&self) -> Stats {
        let core = &self.core;
        core.load_for_figures();
        let now = core.segments.snapshot().segments;
        let now_ms = core.segments.clock.now_ms();
        let sum = |of: fn(&Segment) -> u64| now.iter().map(|segment| of(segment)).sum();
        let (live_bytes, total_bytes) = (sum(Segment::live_bytes), sum(Segment::len));
        let (retired_file_count, retired_bytes) = core.segments.retired_count_and_bytes();
        let mut stats = Stats {
            key_count: core.keydir.len().unwrap_or(0),
            total_bytes,
            live_bytes,
            expired_bytes: now.iter().map(|segment| segment.expired_bytes(now_ms)).sum(),
            dead_bytes: total_bytes.saturating_sub(live_bytes),
            tombstone_count: sum(Segment::tombstone_count),
            tombstone_bytes: sum(Segment::tombstone_bytes),
            segment_count: now.iter().map(|_| 1).sum(),
            retired_file_count,
            retired_bytes,
            index_bytes: core.keydir.bytes(),
            is_reserve_lent: core.segments.reserve.is_lent(),
            has_tail: core.segments.has_tail(),
            background_error: core.background_error.lock().as_ref().map(ToString::to_string),
            crash_tails_cut: core.tails_cut,
            open_us: core.open_us,
            ..Stats::default()
        };
        core.writer.report(&mut stats);
        core.compactor.report(&mut stats);
        stats
    }

    /// Figures about each segment, oldest first. Waits as [`KvStore::stats`] does.
    pub fn segment_stats(&self) -> Vec<SegmentStats> {
        self.core.load_for_figures();
        let now = self.core.segments.snapshot().segments;
        let stats_of = |(segment, blocking_tombstone_bytes): (&Arc<Segment>, u64)| {
            let (total_bytes, live_bytes) = (segment.len(), segment.live_bytes());
            let file = segment.path().file_name().unwrap_or_default();
            SegmentStats {
                id: segment.header.id.get(),
                file: file.to_string_lossy().into_owned(),
                total_bytes,
                live_bytes,
                dead_bytes: total_bytes.saturating_sub(live_bytes),
                tombstone_count: segment.tombstone_count(),
                tombstone_bytes: segment.tombstone_bytes(),
                blocking_tombstone_bytes,
                is_sealed: segment.footer().is_some(),
                is_log: segment.header.origin == Origin::Log,
            }
        };
        let blocking = compaction::blocking_tombstone_bytes(&now);
        now.iter().zip(blocking).map(stats_of).collect()
    }

    /// As [`KvsEngine::compact`]; `progress` is called about once per MiB of the files that are
    /// read. On a full disk, where it takes several rounds, each begins anew. It must not call
    /// the store back: the right to compact is held meanwhile.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::compact`].
    pub fn compact_with(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.core.compact(progress)
    }

    /// As [`KvsEngine::checkpoint`]; `progress` is called after each file, and about once per MiB
    /// where files have to be copied.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::checkpoint`].
    pub fn checkpoint_with(
        &self,
        dir: impl AsRef<Path>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        self.core.checkpoint(dir.as_ref(), progress)
    }

    /// Reads every record of the store, and the record of every key, beside readers and writers.
    ///
    /// ```
    /// # use kvs::{KvStore, KvsEngine};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = KvStore::open(dir.path())?;
    /// # store.set_bytes(b"no", b"Oslo")?;
    /// let report = store.verify()?;
    /// assert!(report.is_sound(), "{:?}", report.damages);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KvsError::Closed`]; [`KvsError::Io`] if a
    /// file cannot be opened. Damage is no error: the report lists it.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(&mut |_| {})
    }

    /// As [`KvStore::verify`]; `progress` is called about once per MiB.
    ///
    /// # Errors
    ///
    /// As [`KvStore::verify`].
    pub fn verify_with(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport> {
        self.core.check_not_closed()?;
        verify::verify_open(&self.core.segments, &self.core.keydir, progress)
    }

    /// Reads every record of the store in `dir`, which nobody has open, and compares the files
    /// with the manifest: also if it is too damaged to open. Changes nothing. `progress` is called
    /// about once per MiB.
    ///
    /// # Errors
    ///
    /// [`KvsError::Locked`], [`KvsError::NoStore`],
    /// [`KvsError::WrongEngine`],
    /// [`KvsError::UnsupportedFormat`];
    /// [`KvsError::Io`] if the directory cannot be listed. Damage is no error.
    pub fn verify_dir(
        dir: impl AsRef<Path>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport> {
        verify::verify_dir(&RealDisk, dir.as_ref(), progress)
    }

    /// Saves what can be saved of the damaged store in `from` into a new store in `to`, which must
    /// not exist or be empty. `from` is only read, three times; `progress` is called about once per
    /// MiB. Takes about 40 bytes of memory for each key.
    ///
    /// Every value in the new store was once set under its key. What may be wrong is that a newer
    /// value or a removal was lost: [`RepairReport`] says for how many keys that is possible. If
    /// this fails, `to` holds a part of it; remove that and repair again.
    ///
    /// # Errors
    ///
    /// As [`KvStore::verify_dir`] for `from`;
    /// [`KvsError::StoreExists`] and
    /// [`KvsError::NotEmpty`] for `to`, also if it is `from`; otherwise
    /// as [`KvStore::open`] and [`KvsEngine::set_bytes`].
    pub fn repair(
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<RepairReport> {
        let (disk, from, to) = (RealDisk, from.as_ref(), to.as_ref());
        // Before anything is made: there must be something to save, and room for it.
        drop(survey::Survey::take(&disk, from)?);
        survey::check_vacant(&disk, to)?;
        // Closing makes it durable.
        let options = Options::new().durability(Durability::Os).exclusive(true);
        let store = Self::open_with(to, options)?;
        let report = repair::salvage(
            &disk,
            from,
            &mut |draft| {
                let entries = [Entry { hash: store.core.keydir.hash(draft.key), draft: *draft }];
                let op = Op { kind: OpKind::Apply, entries: &entries, sync: false };
                store.core.writer.write(&op, pin()).map(drop)
            },
            progress,
        )?;
        store.close()?;
        Ok(report)
    }

    /// Calls `visit` with every record of the store in `dir`, file by file, until it fails.
    ///
    /// The directory is only read, without its lock: it may be damaged, or open in another process
    /// or in this one. What is being written meanwhile may be missing, or show as unreadable at
    /// the end of the last file. Takes about 40 bytes of memory for each key.
    ///
    /// # Errors
    ///
    /// Those of `visit`; [`KvsError::NoStore`],
    /// [`KvsError::WrongEngine`],
    /// [`KvsError::UnsupportedFormat`];
    /// [`KvsError::Io`] if the directory cannot be listed. Damage is no error.
    pub fn read_log(
        dir: impl AsRef<Path>,
        visit: &mut dyn FnMut(&LogRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        listing::list(&RealDisk, dir.as_ref(), visit)
    }
}
