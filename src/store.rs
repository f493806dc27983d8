//! `KvStore`: the log-structured engine.
//!
//! ```text
//! set   KvStore -> writer -> record -> segment -> keydir
//! get   KvStore -> keydir -> segments -> record
//! ```
//! Each operation is a few lines here; the rooms below do the work, each with one reason to exist.
//! Read them in this order: `record`, `segment`, `keydir`, `segments`, `writer`, `recovery`,
//! `compaction`.

mod location;
mod record;

mod disk;
mod names;
pub(crate) mod old_logs;

mod key_order;
mod keydir;
mod reserve;
mod segment;
mod sift;

mod manifest;
mod segments;
mod survey;

mod checkpoint;
mod compaction;
mod listing;
mod recovery;
mod repair;
mod verify;
mod walk;
mod writer;

mod lookup;
mod stats;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, thread};

pub use listing::LogRecord;
pub use repair::RepairReport;
pub use stats::{Progress, SegmentStats, Stats};
pub use verify::{Damage, VerifyReport};

use crate::engine::{self, KvsEngine, Update};
use crate::error::{KvsError, Result};
use crate::options::{
    BATCH_BYTES_MAX, Durability, KEY_LEN_MAX, Options, WriteOptions, check_key, check_value,
};
use crate::scan::{Batches, Entries, Scan};
use crate::store::compaction::Compactor;
use crate::store::disk::{DirLock, Disk, RealDisk};
use crate::store::keydir::Keydir;
use crate::store::lookup::lend;
use crate::store::record::{Draft, Record};
use crate::store::recovery::Recovered;
use crate::store::reserve::Reserve;
use crate::store::segment::Segment;
use crate::store::segments::Segments;
use crate::store::walk::Walk;
use crate::store::writer::{Entry, Op, OpKind, Outcome, Writer};
use crate::sync::{self, Arc, AtomicBool, Mutex, Ordering, Signal};
use crate::value::Value;
use crate::write_batch::{BatchOp, Write, WriteBatch, WriteDone};

/// How often compaction looks for files whose last reader has gone, while nothing wakes it.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// A store of ours: an append-only log with an index of 8 bytes a key in memory.
///
/// Clones are handles of the same store, usable from any thread. Reads take no lock and, mapped,
/// make no system call; writers share appends and syncs. The store is closed when the last clone
/// goes, or by [`KvsEngine::close`].
///
/// One process can have a directory open, once.
///
/// ```
/// use kvs::{KvStore, KvsEngine};
///
/// let dir = tempfile::tempdir()?;
/// let store = KvStore::open(dir.path())?;
/// store.set_bytes(b"no", b"Oslo")?;
/// assert_eq!(store.get_bytes(b"no")?.as_deref(), Some(&b"Oslo"[..]));
/// assert_eq!(store.get_bytes(b"se")?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KvStore {
    core: Arc<Core>,
    /// Closes the store when the last clone goes.
    _handle: Arc<Handle>,
}

/// The store, shared by its handles and its threads.
#[derive(Debug)]
struct Core {
    dir: PathBuf,
    options: Options,
    keydir: Arc<Keydir>,
    segments: Arc<Segments>,
    writer: Writer,
    compactor: Compactor,
    tails_cut: u64,
    open_us: u64,
    /// Tells the threads to end.
    stop: AtomicBool,
    /// Raised to end the sync thread before its interval is over.
    sync_wanted: Signal,
    /// What background compaction met; the next `compact()` returns it.
    background_error: Mutex<Option<KvsError>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            self.0.options.logger.error(format_args!("closing failed: {error}"));
        }
    }
}

impl KvStore {
    /// Opens the store in `dir`, or creates one there, with the default [`Options`].
    ///
    /// # Errors
    ///
    /// As [`KvStore::open_with`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(dir, Options::default())
    }

    /// Opens the store in `dir`, or creates one there. Reads all of its segments, several at once.
    ///
    /// Other files in `dir` are left alone. What a crash left unfinished is cut off and kept in
    /// `lost+found/`; [`Stats::crash_tails_cut`] counts it.
    ///
    /// # Errors
    ///
    /// [`KvsError::Locked`] if it is open already; [`KvsError::NotADirectory`],
    /// [`KvsError::NoStore`], [`KvsError::StoreExists`], [`KvsError::WrongEngine`],
    /// [`KvsError::UnsupportedFormat`], [`KvsError::InvalidOption`]; [`KvsError::Corrupt`] if
    /// something that was durable is damaged (nothing is changed then); [`KvsError::Io`].
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Self::open_on(&disk, dir.into(), options)
    }

    fn open_on(disk: &Arc<dyn Disk>, dir: PathBuf, mut options: Options) -> Result<Self> {
        let began = Instant::now();
        options.check()?;
        options.logger = options.logger.for_store(&dir);
        let log = options.logger.clone();
        if !options.create && !disk.exists(&dir) {
            return Err(KvsError::NoStore { path: dir });
        }
        disk.create_dir_all(&dir)?;
        recovery::check_dir(&**disk, &dir, &options)?;
        let lock = disk.lock(&names::lock(&dir), options.lock_timeout)?;
        let recovered = match recovery::recover(disk, &dir, &options) {
            Err(KvsError::NoSpace { .. })
                if Reserve::new(Arc::clone(disk), &dir, log.clone()).lend() =>
            {
                recovery::recover(disk, &dir, &options)
            }
            recovered => recovered,
        }?;
        if let Err(error) = recovered.segments.reserve.hold() {
            log.warn(format_args!("no room for the reserve: {error}"));
        }
        let core = Arc::new(Core::new(disk, dir, options, recovered, lock, began));
        let store = Self { _handle: Arc::new(Handle(Arc::clone(&core))), core };
        store.core.start_threads()?;
        if store.core.options.ordered {
            store.core.put_in_order()?;
        }
        log.info(format_args!("opened: {}", store.core.what_it_holds()));
        Ok(store)
    }

    /// The directory, as it was given.
    pub fn path(&self) -> &Path {
        &self.core.dir
    }
}

impl KvsEngine for KvStore {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        self.core.write_one(OpKind::Apply, Draft::put(key, value)).map(drop)
    }

    #[inline]
    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.core.find(key, |_, _, record| read(record.value))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        self.core.find(key, lend)
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.core.find(key, |_, _, _| ())?.is_some())
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        if key.len() > KEY_LEN_MAX {
            return self.core.writer.check_open().and(Err(KvsError::KeyNotFound));
        }
        self.core.write_one(OpKind::IfPresent, Draft::tombstone(key))?.or_key_not_found()
    }

    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()> {
        let entries = self.core.entries(batch)?;
        if entries.is_empty() {
            return self.core.writer.check_open();
        }
        let (kind, sync) = (OpKind::Apply, options.sync);
        self.core.writer.write(&Op { kind, entries: &entries, sync }).map(drop)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        check_key(key)?;
        loop {
            let read = |segment: &Arc<Segment>, offset, record: &Record<'_>| {
                (record.seqno, lend(segment, offset, record))
            };
            let (seqno, value) = self.core.find(key, read)?.unzip();
            self.core.writer.check_open()?;
            // Out of every lock and pin: it may take its time, and come again.
            let update = change(value.as_deref());
            let draft = match &update {
                Update::Keep => return Ok(()),
                Update::Remove if seqno.is_none() => return Ok(()),
                Update::Remove => Draft::tombstone(key),
                Update::Set(value) => {
                    check_value(value)?;
                    Draft::put(key, value)
                }
            };
            if self.core.write_one(OpKind::IfUnchanged(seqno), draft)? == Outcome::Done {
                return Ok(());
            }
        }
    }

    fn scan(&self, scan: Scan) -> Result<Entries> {
        self.core.put_in_order()?;
        let (keydir, keys_only) = (Arc::clone(&self.core.keydir), scan.is_keys_only());
        let damage = keydir.order().damage().map(Err);
        let keys = Batches::new(scan, move |left, n| Ok(keydir.order().first_of(left, n)));
        let keys = keys.map(|key| key.map(|(key, ())| key));
        let keys = damage.into_iter().chain(keys);
        Ok(Entries::of_keys(self.clone(), keys, keys_only))
    }

    fn iter(&self) -> Result<Entries> {
        self.core.check_not_closed()?;
        let (keydir, segments) = (Arc::clone(&self.core.keydir), Arc::clone(&self.core.segments));
        Ok(Entries::of_keys(self.clone(), Walk::new(keydir, segments), false))
    }

    fn len(&self) -> Result<u64> {
        self.core.check_not_closed()?;
        Ok(self.core.writer.key_count())
    }

    fn sync(&self) -> Result<()> {
        self.core.writer.sync()
    }

    fn compact(&self) -> Result<()> {
        self.core.compact(&mut |_| {})
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        self.core.checkpoint(dir, &mut |_| {})
    }

    fn close(&self) -> Result<()> {
        self.core.close()
    }

    fn name(&self) -> &'static str {
        "kvs"
    }

    fn writes_wait_for_disk(&self) -> bool {
        self.core.options.durability == Durability::Sync
    }

    fn write_then(&self, write: Write, done: WriteDone) {
        if !self.writes_wait_for_disk() {
            return done(engine::write_now(self, &write));
        }
        self.core.write_then(&write, done);
    }
}

impl fmt::Debug for KvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore").field("dir", &self.core.dir).finish_non_exhaustive()
    }
}

impl Core {
    fn new(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        recovered: Recovered,
        lock: Box<dyn DirLock>,
        began: Instant,
    ) -> Self {
        let Recovered { keydir, segments, manifest, manifest_number, .. } = recovered;
        let writer = Writer::new(
            Arc::clone(disk),
            dir.clone(),
            &options,
            Arc::clone(&keydir),
            Arc::clone(&segments),
            recovered.seqno,
            recovered.key_count,
        );
        let compactor = Compactor::new(
            Arc::clone(disk),
            dir.clone(),
            options.clone(),
            Arc::clone(&keydir),
            Arc::clone(&segments),
            manifest_number,
            manifest,
        );
        Self {
            dir,
            options,
            keydir,
            segments,
            writer,
            compactor,
            tails_cut: recovered.tails_cut,
            open_us: stats::micros(began.elapsed()),
            stop: AtomicBool::new(false),
            sync_wanted: Signal::default(),
            background_error: Mutex::new(None),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        }
    }

    fn start_threads(self: &Arc<Self>) -> Result<()> {
        let mut threads = self.threads.lock();
        let mut start = |name: &str, body: fn(&Self)| -> Result<()> {
            let core = Arc::clone(self);
            threads.push(sync::spawn(name, move || body(&core))?);
            Ok(())
        };
        match self.options.durability {
            Durability::Interval(_) => start("kvs-sync", Self::sync_at_intervals)?,
            Durability::Sync => start("kvs-commit", |core| core.writer.run_committer())?,
            Durability::Os => {}
        }
        if self.options.auto_compaction {
            start("kvs-compact", Self::compact_in_background)?;
            self.segments.compaction_wanted.raise();
        }
        Ok(())
    }

    fn sync_at_intervals(&self) {
        let Durability::Interval(interval) = self.options.durability else { return };
        while !self.is_stopping() {
            self.sync_wanted.wait(Some(interval));
            if self.writer.has_unsynced()
                && let Err(error) = self.writer.sync()
            {
                // The writer is poisoned, or closed: every later write says so.
                self.options.logger.error(format_args!("no more syncs at intervals: {error}"));
                return;
            }
        }
    }

    fn compact_in_background(&self) {
        while !self.is_stopping() {
            self.segments.compaction_wanted.wait(Some(SWEEP_INTERVAL));
            let (sync_log, stop) = (|| self.writer.sync_sealed(), || self.is_stopping());
            loop {
                match self.compactor.compact_some(&sync_log, &stop) {
                    Ok(true) if !stop() => {}
                    Ok(_) => break,
                    Err(_) if stop() => break,
                    Err(error) => {
                        let text = error.to_string();
                        // Said once, until someone has heard of it.
                        if self.background_error.lock().replace(error).is_none() {
                            self.options.logger.error(format_args!("compaction failed: {text}"));
                        }
                        break;
                    }
                }
            }
        }
    }

    fn compact(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        // Before the lane is waited for, which the caller may hold.
        self.options.logger.check_caller()?;
        if let Some(error) = self.background_error.lock().take() {
            return Err(error);
        }
        self.writer.seal_active()?;
        let (sync_log, stop) = (|| self.writer.sync_sealed(), || self.is_stopping());
        self.compactor.compact_all(&sync_log, &stop, progress)
    }

    fn checkpoint(&self, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        // Before the right to compact is waited for, which the caller may have.
        self.options.logger.check_caller()?;
        let source = self.compactor.at_rest(|manifest| {
            self.writer.seal_active()?;
            Ok(checkpoint::Source::new(manifest.clone(), self.segments.snapshot()))
        });
        let source: checkpoint::Source = source?;
        source.write(self.segments.disk(), dir, &self.options.logger, progress)
    }

    /// The store in a few words, for its log.
    fn what_it_holds(&self) -> String {
        let (live, total) = self.segments.live_and_total_bytes();
        let (keys, segments) = (self.writer.key_count(), self.segments.snapshot().segments.len());
        format!("{keys} keys, {segments} segments of {total} bytes, {live} of them live")
    }

    fn is_stopping(&self) -> bool {
        // Acquire: pairs with the Release in `close`.
        self.stop.load(Ordering::Acquire)
    }

    fn close(&self) -> Result<()> {
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
        let mut lock = self.lock.lock();
        if closed.is_ok()
            && lock.is_some()
            && let Err(error) = self.compactor.list_sealed()
        {
            log.warn(format_args!("the next open looks at the newest logs: {error}"));
        }
        if let Err(error) = self.segments.sweep() {
            log.warn(format_args!("a compacted file stays until the next open: {error}"));
        }
        let was_open = lock.take().is_some();
        drop((lock, threads));
        if was_open {
            let ms = began.elapsed().as_millis();
            log.info(format_args!("closed in {ms} ms: {}", self.what_it_holds()));
        }
        closed
    }

    #[inline]
    fn check_not_closed(&self) -> Result<()> {
        if self.writer.is_closed() { Err(KvsError::Closed) } else { Ok(()) }
    }

    fn put_in_order(&self) -> Result<()> {
        self.check_not_closed()?;
        walk::put_in_order(&self.keydir, &self.segments, &|| self.check_not_closed())
    }

    fn write_one(&self, kind: OpKind, draft: Draft<'_>) -> Result<Outcome> {
        let entries = [Entry { hash: self.keydir.hash(draft.key), draft }];
        self.writer.write(&Op { kind, entries: &entries, sync: false })
    }

    fn write_then(&self, write: &Write, done: WriteDone) {
        let entries = match write {
            Write::Set { key, value } => check_key(key)
                .and_then(|()| check_value(value))
                .map(|()| vec![self.entry(Draft::put(key, value))]),
            Write::Remove { key } if key.len() > KEY_LEN_MAX => Err(KvsError::KeyNotFound),
            Write::Remove { key } => Ok(vec![self.entry(Draft::tombstone(key))]),
            Write::Batch(batch) => self.entries(batch),
        };
        let kind = match write {
            Write::Remove { .. } => OpKind::IfPresent,
            Write::Set { .. } | Write::Batch(_) => OpKind::Apply,
        };
        match entries {
            Ok(entries) if entries.is_empty() => done(self.writer.check_open()),
            Ok(entries) => {
                self.writer.write_then(&Op { kind, entries: &entries, sync: true }, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    fn entry<'a>(&self, draft: Draft<'a>) -> Entry<'a> {
        Entry { hash: self.keydir.hash(draft.key), draft }
    }

    /// The last operation of the batch on each key, the longest one at the end.
    fn entries<'a>(&self, batch: &'a WriteBatch) -> Result<Vec<Entry<'a>>> {
        let mut seen = HashSet::new();
        let mut entries = Vec::with_capacity(batch.len());
        for op in batch.ops().iter().rev() {
            let (key, value) = match op {
                BatchOp::Set { key, value } => (key, Some(value)),
                BatchOp::Remove { key } => (key, None),
            };
            check_key(key)?;
            value.map_or(Ok(()), |value| check_value(value))?;
            if seen.insert(key) {
                let draft =
                    value.map_or_else(|| Draft::tombstone(key), |value| Draft::put(key, value));
                entries.push(self.entry(draft));
            }
        }
        // A location says where a record begins: only the last one may reach beyond what it says.
        entries.sort_by_key(|entry| entry.draft.len());
        let front = entries.split_last().map_or(&[][..], |(_, front)| front);
        let len: usize = front.iter().map(|entry| entry.draft.len()).sum();
        if len > BATCH_BYTES_MAX {
            return Err(KvsError::BatchTooLong { len, max: BATCH_BYTES_MAX });
        }
        Ok(entries)
    }
}
