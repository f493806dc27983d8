//! `KvStore`: the log-structured engine.
//!
//! ```text
//! set   KvStore -> writer -> record -> segment -> keydir
//! get   KvStore -> keydir -> segments -> record
//! ```
//! Each operation is a few lines here; the rooms below do the work, each with one reason to exist.
//! Read them in this order: `record`, `segment`, `keydir`, `segments`, `writer`, `recovery`,
//! `compaction`.

mod checksum;
mod location;
mod record;

mod disk;
mod expiring;
mod names;
pub(crate) mod old_logs;
mod scratch;
mod tail;

mod hint;
mod key_hash;
mod key_order;
mod keydir;
mod log_file;
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

mod housekeeping;
mod lookup;
mod opening;
mod prefetch;
mod rewrite;
mod stats;
mod unordered;
mod upkeep;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(feature = "layers")]
pub mod layers;
#[cfg(any(loom, shuttle))]
pub mod models;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use listing::LogRecord;
pub use repair::RepairReport;
pub use stats::{Progress, SegmentStats, Stats};
pub use verify::{Damage, VerifyReport};

use crate::engine::{self, Expiry, KvsEngine, Update};
use crate::engine_dir;
use crate::error::{KvsError, Result};
use crate::options::{
    BATCH_BYTES_MAX, Durability, KEY_LEN_MAX, Options, WriteOptions, check_key, check_value,
};
use crate::scan::{Batches, Entries, Scan};
use crate::store::compaction::Compactor;
use crate::store::disk::{DirLock, Disk, RealDisk};
use crate::store::key_hash::{ByHash, KeyHash};
use crate::store::keydir::Keydir;
use crate::store::lookup::lend;
use crate::store::read_only::Fingerprint;
use crate::store::record::Draft;
use crate::store::segments::Segments;
use crate::store::unordered::Unordered;
use crate::store::writer::{Entry, Op, OpKind, Outcome, Writer};
use crate::sync::{Arc, AtomicBool, Guard, Mutex, Signal, pin, thread};
use crate::value::Value;
use crate::write_batch::{BatchOp, Write, WriteBatch, WriteDone};

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
    open_us: u64,
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
        Self::open_on(&disk, engine_dir::for_good(dir.into())?, options, progress)
    }

    /// The directory: as it was given, or, if that depends on the current directory of the process,
    /// what it was when the store was opened.
    pub fn path(&self) -> &Path {
        &self.core.dir
    }
}

impl KvsEngine for KvStore {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        self.core.write_one(OpKind::Apply, key, || Draft::put(key, value)).map(drop)
    }

    fn set_with_expiry(&self, key: &[u8], value: &[u8], expiry_ms: u64) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let draft = || Draft::put_with(key, value, Some(expiry_ms));
        self.core.write_one(OpKind::Apply, key, draft).map(drop)
    }

    #[inline]
    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.core.find(key, |_, _, record| read(record.value))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        self.core.find(key, lend)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        let mut found = Vec::with_capacity(keys.len());
        self.core.each(keys, |key| {
            found.push(self.get_bytes(key)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn get_many_with(
        &self,
        keys: &[&[u8]],
        read: &mut dyn FnMut(Option<&[u8]>) -> bool,
    ) -> Result<bool> {
        self.core.each(keys, |key| {
            let goes_on = self.get_with(key, |value| read(Some(value)))?;
            Ok(goes_on.unwrap_or_else(|| read(None)))
        })
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
        self.core.write_one(OpKind::IfPresent, key, || Draft::tombstone(key))?.or_key_not_found()
    }

    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()> {
        let entries = self.core.entries(batch)?;
        if entries.is_empty() {
            return self.core.writer.check_open();
        }
        let (kind, sync) = (OpKind::Apply, options.sync);
        self.core.writer.write(&Op { kind, entries: &entries, sync }, pin()).map(drop)
    }

    fn clear(&self) -> Result<()> {
        // Nothing is copied while every record dies.
        let clear = |_: &_| self.core.write_one(OpKind::Apply, &[], Draft::clear);
        let cleared = self.core.compactor.at_rest(clear);
        self.core.segments.compaction_wanted.raise();
        cleared.map(drop)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        self.core.update(key, change)
    }

    fn scan(&self, scan: Scan) -> Result<Entries> {
        self.core.put_in_order()?;
        let (keydir, keys_only) = (Arc::clone(&self.core.keydir), scan.is_keys_only());
        let doubt = self.core.segments.check_certain(None).err();
        let damage = keydir.order().damage().or(doubt).map(Err);
        let core = Arc::clone(&self.core);
        let keys = Batches::new(scan, move |left, n| {
            let keys = core.keydir.order().first_of(left, n);
            core.segments.prefetch_all(&core.keydir, keys.iter().map(|(key, ())| &**key));
            Ok(keys)
        });
        let keys = keys.map(|key| key.map(|(key, ())| key));
        let keys = damage.into_iter().chain(keys);
        Ok(Entries::of_keys(self.clone(), keys, keys_only))
    }

    fn iter(&self) -> Result<Entries> {
        self.core.check_not_closed()?;
        Ok(Entries::of(Unordered::new(self.clone())))
    }

    fn len(&self) -> Result<u64> {
        self.core.check_not_closed()?;
        let len = self.core.keydir.len()?;
        self.core.segments.check_certain(None)?;
        Ok(len)
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

    fn refresh(&self) -> Result<Self> {
        let core = &self.core;
        core.check_not_closed()?;
        let disk = core.segments.shared_disk();
        if let Held::View(fingerprint) = &*core.held.lock()
            && Fingerprint::take(&**disk, &core.dir)? != *fingerprint
        {
            let (dir, options) = (core.dir.clone(), core.options.clone());
            return Self::view_on(disk, dir, options, Instant::now(), &mut |_| {});
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
    #[inline]
    fn check_not_closed(&self) -> Result<()> {
        if self.writer.is_closed() { Err(KvsError::Closed) } else { Ok(()) }
    }

    fn put_in_order(&self) -> Result<()> {
        self.check_not_closed()?;
        walk::put_in_order(&self.keydir, &self.segments, &|| self.check_not_closed())
    }

    fn write_one<'a>(
        &self,
        kind: OpKind,
        key: &[u8],
        draft: impl FnOnce() -> Draft<'a>,
    ) -> Result<Outcome> {
        let guard = pin();
        let entries = [self.entry(self.keydir.hash(key), draft, &guard)];
        self.writer.write(&Op { kind, entries: &entries, sync: false }, guard)
    }

    fn write_then(&self, write: &Write, done: WriteDone) {
        let hash = |key: &[u8]| self.keydir.hash(key);
        let entries = match write {
            Write::Set { key, value } => check_key(key)
                .and_then(|()| check_value(value))
                .map(|()| vec![self.entry(hash(key), || Draft::put(key, value), &pin())]),
            Write::Remove { key } if key.len() > KEY_LEN_MAX => Err(KvsError::KeyNotFound),
            Write::Remove { key } => {
                Ok(vec![self.entry(hash(key), || Draft::tombstone(key), &pin())])
            }
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

    /// While `draft` takes its checksum, the place of its key in the index comes nearer.
    fn entry<'a>(
        &self,
        hash: KeyHash,
        draft: impl FnOnce() -> Draft<'a>,
        guard: &Guard,
    ) -> Entry<'a> {
        self.keydir.prefetch_change(hash, guard);
        Entry { hash, draft: draft() }
    }

    /// The last operation of the batch on each key, the longest one at the end.
    fn entries<'a>(&self, batch: &'a WriteBatch) -> Result<Vec<Entry<'a>>> {
        let guard = pin();
        let mut seen = ByHash::default();
        seen.reserve(batch.len());
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(batch.len());
        for op in batch.ops().rev() {
            let (key, value) = match op {
                BatchOp::Set { key, value, expiry_ms } => (key, Some((value, expiry_ms))),
                BatchOp::Remove { key } => (key, None),
            };
            check_key(key)?;
            value.map_or(Ok(()), |(value, _)| check_value(value))?;
            let hash = self.keydir.hash(key);
            let place = *seen.entry(hash).or_insert(entries.len());
            let is_key = |entry: &Entry<'_>| entry.draft.key == key;
            // Of two keys with the same 64 bits of hash, only one has its place there.
            if entries.get(place).is_some_and(|there| is_key(there) || entries.iter().any(is_key)) {
                continue;
            }
            let draft = || match value {
                Some((value, expiry_ms)) => Draft::put_with(key, value, expiry_ms),
                None => Draft::tombstone(key),
            };
            entries.push(self.entry(hash, draft, &guard));
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
