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
mod expiring;
mod names;
pub(crate) mod old_logs;

mod hint;
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
mod loading;
mod log_end;
mod read_only;
mod recovery;
mod repair;
mod verify;
mod walk;
mod writer;

mod lookup;
mod rewrite;
mod stats;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, thread};

pub use listing::LogRecord;
pub use repair::RepairReport;
pub use stats::{Progress, SegmentStats, Stats};
pub use verify::{Damage, VerifyReport};

use crate::engine::{self, Expiry, KvsEngine, Update};
use crate::error::{KvsError, Result};
use crate::options::{
    BATCH_BYTES_MAX, Durability, KEY_LEN_MAX, Options, WriteOptions, check_key, check_value,
};
use crate::scan::{Batches, Entries, Scan};
use crate::store::compaction::Compactor;
use crate::store::disk::{DirLock, Disk, RealDisk};
use crate::store::keydir::Keydir;
use crate::store::loading::Opened;
use crate::store::lookup::lend;
use crate::store::read_only::Fingerprint;
use crate::store::record::Draft;
use crate::store::reserve::Reserve;
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
/// # Expiry
///
/// Nothing is written and nothing runs when a key expires: reads compare the time in its record
/// with the system's clock, which is read only for records that have one. A clock that is set back
/// revives nothing while the store is open. The next open believes the clock again: set back far
/// enough, it shows keys that had expired and that compaction had not dropped yet. The space of
/// expired keys comes back in the background, like that of removed ones, also if nobody writes.
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
    /// Tells the threads to end.
    stop: AtomicBool,
    /// Raised to end the sync thread before its interval is over.
    sync_wanted: Signal,
    /// What background compaction met; the next `compact()` returns it.
    background_error: Mutex<Option<KvsError>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    held: Mutex<Held>,
}

/// By what right the store is open.
#[derive(Debug)]
enum Held {
    /// It may write.
    Lock { _lock: Box<dyn DirLock> },
    /// It may read what it was made of.
    View(Fingerprint),
    /// It is closed.
    Nothing,
}

struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            log::error!("{}: closing failed: {error}", self.0.dir.display());
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

    /// Opens the store in `dir`, or creates one there. How long that takes does not depend on the
    /// number of keys: the index is loaded piece by piece by the first reads that need it, and by a
    /// background thread meanwhile. After a crash the newest files are read.
    ///
    /// Other files in `dir` are left alone. What a crash left unfinished is cut off and kept in
    /// `lost+found/`; [`Stats::crash_tails_cut`] counts it. Damage within a file is told by the
    /// reads that it makes doubtful, with [`KvsError::Corrupt`]; the rest stays readable.
    ///
    /// # Errors
    ///
    /// [`KvsError::Locked`] if it is open already; [`KvsError::NotADirectory`],
    /// [`KvsError::NoStore`], [`KvsError::StoreExists`], [`KvsError::WrongEngine`],
    /// [`KvsError::UnsupportedFormat`], [`KvsError::InvalidOption`]; [`KvsError::Corrupt`] if a
    /// file that was durable is missing, cut short or of another store (nothing is changed then;
    /// see [`KvStore::repair`]); [`KvsError::Io`].
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        Self::open_with_progress(dir, options, &mut |_| {})
    }

    /// As [`KvStore::open_with`]. `progress` is called about once per MiB that has to be read: not
    /// at all after a clean close, about the newest files after a crash, about everything if the
    /// hints are missing.
    ///
    /// # Errors
    ///
    /// As [`KvStore::open_with`].
    pub fn open_with_progress(
        dir: impl Into<PathBuf>,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Self::open_on(&disk, dir.into(), options, progress)
    }

    fn open_on(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        options.check()?;
        if options.read_only {
            return Self::view_on(disk, dir, options, progress);
        }
        if !options.create && !disk.exists(&dir) {
            return Err(KvsError::NoStore { path: dir });
        }
        disk.create_dir_all(&dir)?;
        recovery::check_dir(&**disk, &dir, &options)?;
        let lock = disk.lock(&names::lock(&dir), options.lock_timeout)?;
        let reserve = Arc::new(Reserve::new(Arc::clone(disk), &dir));
        if let Err(error) = reserve.hold() {
            log::warn!("{}: no room for the reserve: {error}", dir.display());
        }
        let recovered = match recovery::recover(disk, &dir, &options, &reserve, progress) {
            Err(KvsError::NoSpace { .. }) if reserve.lend() => {
                recovery::recover(disk, &dir, &options, &reserve, progress)
            }
            recovered => recovered,
        }?;
        Self::start(Core::new(disk, dir, options, recovered, Held::Lock { _lock: lock }))
    }

    /// A view of the store as it is now; see `read_only`.
    fn view_on(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        if !disk.exists(&dir) {
            return Err(KvsError::NoStore { path: dir });
        }
        recovery::check_dir(&**disk, &dir, &options.clone().create(false))?;
        let (view, fingerprint) = read_only::open(disk, &dir, &options, progress)?;
        Self::start(Core::new(disk, dir, options, view, Held::View(fingerprint)))
    }

    fn start(core: Core) -> Result<Self> {
        let core = Arc::new(core);
        let store = Self { _handle: Arc::new(Handle(Arc::clone(&core))), core };
        store.core.start_threads()?;
        if store.core.options.ordered {
            store.core.put_in_order()?;
        }
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

    fn set_with_expiry(&self, key: &[u8], value: &[u8], expiry_ms: u64) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let draft = Draft::put_with(key, value, Some(expiry_ms));
        self.core.write_one(OpKind::Apply, draft).map(drop)
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

    fn get_with_expiry(&self, key: &[u8]) -> Result<Option<(Value, Option<u64>)>> {
        self.core
            .find(key, |segment, offset, record| (lend(segment, offset, record), record.expiry_ms))
    }

    fn expiry(&self, key: &[u8]) -> Result<Expiry> {
        Ok(self.core.find(key, |_, _, record| record.expiry_ms)?.into())
    }

    fn set_expiry(&self, key: &[u8], expiry_ms: Option<u64>) -> Result<Option<u64>> {
        self.core.set_expiry(key, expiry_ms)
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

    fn clear(&self) -> Result<()> {
        // Nothing is copied while every record dies.
        let cleared =
            self.core.compactor.at_rest(|_| self.core.write_one(OpKind::Apply, Draft::clear()));
        self.core.segments.compaction_wanted.raise();
        cleared.map(drop)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        self.core.update(key, change)
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
        self.core.keydir.len()
    }

    fn sync(&self) -> Result<()> {
        self.core.writer.sync()
    }

    fn compact(&self) -> Result<()> {
        if let Some(error) = self.core.background_error.lock().take() {
            return Err(error);
        }
        self.core.writer.seal_active()?;
        let core = &self.core;
        core.compactor.compact_all(&|| core.writer.sync_sealed(), &|| core.is_stopping())
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        let core = &self.core;
        let source = core.compactor.at_rest(|manifest| {
            core.writer.seal_active()?;
            Ok(checkpoint::Source::new(manifest.clone(), core.segments.snapshot()))
        });
        source.and_then(|source: checkpoint::Source| source.write(core.segments.disk(), dir))
    }

    fn refresh(&self) -> Result<Self> {
        let core = &self.core;
        core.check_not_closed()?;
        let disk = core.segments.shared_disk();
        if let Held::View(fingerprint) = &*core.held.lock()
            && Fingerprint::take(&**disk, &core.dir)? != *fingerprint
        {
            return Self::view_on(disk, core.dir.clone(), core.options.clone(), &mut |_| {});
        }
        Ok(self.clone())
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
        opened: Opened,
        held: Held,
    ) -> Self {
        let Opened { keydir, segments, manifest, manifest_number, .. } = opened;
        let writer = Writer::new(
            Arc::clone(disk),
            dir.clone(),
            &options,
            Arc::clone(&keydir),
            Arc::clone(&segments),
            opened.seqno,
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
            tails_cut: opened.tails_cut,
            stop: AtomicBool::new(false),
            sync_wanted: Signal::default(),
            background_error: Mutex::new(None),
            threads: Mutex::default(),
            held: Mutex::new(held),
        }
    }

    fn start_threads(self: &Arc<Self>) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
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
                log::error!("{}: {error}", self.dir.display());
                return;
            }
        }
    }

    fn compact_in_background(&self) {
        let (sync_log, stop) = (|| self.writer.sync_sealed(), || self.is_stopping());
        while !stop() {
            self.segments.compaction_wanted.wait(Some(SWEEP_INTERVAL));
            let worked = self.tend_sealed(&stop).and_then(|()| {
                while !stop() && self.compact_some(&sync_log, &stop)? {}
                Ok(())
            });
            if let Err(error) = worked
                && !stop()
            {
                let mut kept = self.background_error.lock();
                if kept.is_none() {
                    log::error!("{}: compaction: {error}", self.dir.display());
                }
                *kept = Some(error);
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
    fn tend_sealed(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        loading::make_missing(&self.segments, self.keydir.hasher(), stop)?;
        if stop() || !self.compactor.has_unlisted() {
            return Ok(());
        }
        self.writer.sync_sealed()?;
        self.compactor.list_sealed(None)
    }

    fn is_stopping(&self) -> bool {
        // Acquire: pairs with the Release in `close`.
        self.stop.load(Ordering::Acquire)
    }

    fn close(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        // Release: pairs with the Acquire in `is_stopping`.
        self.stop.store(true, Ordering::Release);
        self.sync_wanted.raise();
        self.segments.compaction_wanted.raise();
        let closed = self.writer.close();
        for thread in threads.drain(..) {
            // The last handle may go in a thread of ours, at the end of a `write_then`.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                log::error!("{}: a background thread panicked", self.dir.display());
            }
        }
        // Another process may have the directory from here on: nobody may be at work in it.
        self.compactor.finish();
        let mut held = self.held.lock();
        if closed.is_ok() && matches!(*held, Held::Lock { .. }) {
            self.ease_next_open();
        }
        if let Err(error) = self.segments.sweep() {
            log::warn!("a compacted file stays until the next open: {error}");
        }
        *held = Held::Nothing;
        closed
    }

    /// Writes down what the next open would have to find out. Everything is durable.
    fn ease_next_open(&self) {
        let made = loading::make_missing(&self.segments, self.keydir.hasher(), &|| false);
        let listed = self.compactor.list_sealed(self.keydir.known_len());
        if let Err(error) = made.and(listed) {
            log::warn!("{}: the next open reads the newest logs: {error}", self.dir.display());
        }
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
                BatchOp::Set { key, value, expiry_ms } => (key, Some((value, *expiry_ms))),
                BatchOp::Remove { key } => (key, None),
            };
            check_key(key)?;
            value.map_or(Ok(()), |(value, _)| check_value(value))?;
            if seen.insert(key) {
                let draft = match value {
                    Some((value, expiry_ms)) => Draft::put_with(key, value, expiry_ms),
                    None => Draft::tombstone(key),
                };
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
