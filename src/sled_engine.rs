//! The second engine: sled behind [`KvsEngine`], so that a host can compare, or bring its data.
//!
//! ```text
//! set      SledKvsEngine -> open (shared) -> tally (shared)    -> sled -> flush, if asked for
//! apply    SledKvsEngine -> open (shared) -> tally (exclusive) -> sled -> flush, if asked for
//! get      SledKvsEngine -> open (shared) -> sled
//! close    SledKvsEngine -> open (exclusive), and the database is taken out
//! ```
//!
//! # Counting keys
//!
//! sled counts by walking all keys. `len` must cost the same however many there are, so the keys
//! are counted once, when the database is opened, and the count is kept up from what each write
//! replaced, which sled reports atomically with the write. Between the two a write is in sled and
//! not yet counted; it holds `tally` shared for that long, and `len` takes it exclusively. So `len`
//! never shows half a write, and each count belongs to one moment.
//!
//! Every method may be called from any thread. No lock is held while a caller's closure runs. The
//! directory is locked by sled, which does not tell who holds it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{collections::BTreeMap, fmt, sync::mpsc, thread};

use parking_lot::RwLock;

use crate::engine::{self, KvsEngine, Update};
use crate::engine_dir::{self, SLED};
use crate::error::{KvsError, Result};
use crate::options::{BATCH_BYTES_MAX, Durability, Options, WriteOptions, check_key, check_value};
use crate::scan::{Batch, Batches, Entries, Scan};
use crate::sync;
use crate::value::{Lender, Value};
use crate::write_batch::{BatchOp, Write, WriteBatch, WriteDone};

/// How often sled flushes, in milliseconds, when the durability names no interval: its own default.
/// The table at [`SledKvsEngine`] says it too.
const OS_FLUSH_MS: u64 = 500;

/// How long an open waits for sled's lock whatever the options say: on a busy machine a worker
/// thread of sled can hold the file for a moment after the database has been closed.
const LOCK_LINGER: Duration = Duration::from_millis(200);

/// A scan asks sled for no more at a time once keys and values have this length (1 MiB): they are
/// all in memory.
const SCAN_BATCH_LEN_MAX: usize = 1 << 20;

/// Pause between two tries to take sled's lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// A store kept by sled 0.34 in one directory.
///
/// Clones are handles of the same store; it is closed when the last one goes, or by
/// [`KvsEngine::close`]. It keeps the same limits as [`crate::KvStore`].
///
/// sled holds writes in its own memory until it flushes them, so [`Durability::Os`] promises less
/// here than elsewhere:
///
/// | durability    | sled flushes      | a returned write survives `kill -9` and power loss |
/// |---------------|-------------------|----------------------------------------------------|
/// | `Os`          | every 500 ms      | after at most 500 ms                               |
/// | `Interval(d)` | every `d`         | after at most `d`                                  |
/// | `Sync`        | after each write  | at once; others may read it a moment earlier       |
///
/// Options about segments, compaction and how to read change nothing here. Keys cannot expire: who
/// asks for that is told [`KvsError::Unsupported`], and nothing is written.
///
/// ```
/// use kvs::{KvsEngine, SledKvsEngine};
///
/// let dir = tempfile::tempdir()?;
/// let store = SledKvsEngine::open(dir.path())?;
/// store.set_bytes(b"no", b"Oslo")?;
/// assert_eq!(store.get_bytes(b"no")?.as_deref(), Some(&b"Oslo"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SledKvsEngine {
    shared: Arc<Shared>,
}

/// What the clones share.
struct Shared {
    dir: PathBuf,
    /// Whether every write is flushed before it returns.
    sync: bool,
    /// `None` once closed. Each operation holds it shared from beginning to end; only closing
    /// takes it exclusively.
    open: RwLock<Option<Open>>,
}

struct Open {
    db: sled::Db,
    /// Number of keys. Held shared by a write from before sled applies it until it is counted, so
    /// whoever has it exclusively sees the count of a moment without half-done writes. Under the
    /// shared lock the count may pass below zero for a moment and wrap: the arithmetic is modular.
    tally: RwLock<AtomicU64>,
    /// Answers those that handed a write over, if writes wait for the disk.
    lane: Option<SyncLane>,
}

impl SledKvsEngine {
    /// Opens the store in `dir` with the default options, creating it if there is none.
    ///
    /// # Errors
    ///
    /// As [`SledKvsEngine::open_with`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(dir, Options::new())
    }

    /// Opens the store in `dir`. Costs a walk over all keys, to count them.
    ///
    /// # Errors
    ///
    /// [`KvsError::NotADirectory`]; [`KvsError::WrongEngine`] if `dir` holds a store of another
    /// engine; [`KvsError::Locked`] (without a process id) if it is open already;
    /// [`KvsError::NoStore`] and [`KvsError::StoreExists`] as the options ask;
    /// [`KvsError::InvalidOption`]; [`KvsError::Unsupported`] for reading only; [`KvsError::Io`],
    /// [`KvsError::Corrupt`], [`KvsError::Thread`]; [`KvsError::Engine`] for what sled does not
    /// explain.
    #[expect(clippy::needless_pass_by_value, reason = "one signature for all engines")]
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        options.check()?;
        if options.read_only {
            let what = "opening for reading only";
            return Err(KvsError::Unsupported { engine: SLED, what });
        }
        let dir = engine_dir::for_good(dir.into())?;
        check_dir(&dir, &options)?;
        let db = open_db(&dir, &options)?;
        let mut key_count = 0;
        for entry in db.iter() {
            entry.map_err(|error| explain("read", &dir, error))?;
            key_count += 1;
        }
        let sync = options.durability == Durability::Sync;
        let lane = if sync { Some(SyncLane::start(db.clone(), dir.clone())?) } else { None };
        let open = Open { db, tally: RwLock::new(AtomicU64::new(key_count)), lane };
        Ok(Self { shared: Arc::new(Shared { dir, sync, open: RwLock::new(Some(open)) }) })
    }

    /// Runs `body` on the open database; closing waits for it.
    fn with<R>(&self, body: impl FnOnce(&Open) -> Result<R>) -> Result<R> {
        self.shared.open.read().as_ref().map_or(Err(KvsError::Closed), body)
    }

    fn explain(&self, op: &'static str, error: sled::Error) -> KvsError {
        explain(op, &self.shared.dir, error)
    }

    fn lookup(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.with(|open| open.db.get(key).map_err(|error| self.explain("read", error)))
    }

    fn insert(&self, open: &Open, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let tally = open.tally.read();
        let replaced =
            open.db.insert(key, value).map_err(|error| self.explain("write to", error))?;
        if replaced.is_none() {
            // Relaxed: `len` reads under the exclusive lock, which orders it after this.
            tally.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn take_out(&self, open: &Open, key: &[u8]) -> Result<()> {
        let tally = open.tally.read();
        let removed = open.db.remove(key).map_err(|error| self.explain("write to", error))?;
        if removed.is_none() {
            return Err(KvsError::KeyNotFound);
        }
        // Relaxed: as in `insert`.
        tally.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sets `key` to `new` if it is `old` still; says whether it did.
    fn swap_if(&self, key: &[u8], old: Option<&sled::IVec>, new: Option<&[u8]>) -> Result<bool> {
        self.with(|open| {
            let tally = open.tally.read();
            let swapped = open.db.compare_and_swap(key, old, new);
            if swapped.map_err(|error| self.explain("write to", error))?.is_err() {
                return Ok(false);
            }
            match (old.is_some(), new.is_some()) {
                // Relaxed: as in `insert`.
                (false, true) => drop(tally.fetch_add(1, Ordering::Relaxed)),
                (true, false) => drop(tally.fetch_sub(1, Ordering::Relaxed)),
                _ => {}
            }
            drop(tally);
            self.settle(open, WriteOptions::default())?;
            Ok(true)
        })
    }

    fn apply_batch(&self, open: &Open, batch: &WriteBatch) -> Result<()> {
        let last_ops = self.last_ops(batch)?;
        let mut writes = sled::Batch::default();
        for (&key, value) in &last_ops {
            match value {
                Some(value) => writes.insert(key, *value),
                None => writes.remove(key),
            }
        }
        // With the exclusive lock no write comes between looking at the keys and applying.
        let mut tally = open.tally.write();
        let mut key_count = *tally.get_mut();
        for (key, value) in last_ops {
            let held = open.db.contains_key(key).map_err(|error| self.explain("read", error))?;
            match (held, value.is_some()) {
                (false, true) => key_count += 1,
                (true, false) => key_count -= 1,
                _ => {}
            }
        }
        open.db.apply_batch(writes).map_err(|error| self.explain("write to", error))?;
        *tally.get_mut() = key_count;
        Ok(())
    }

    /// What `batch` comes down to: the last operation on each key, `None` being a removal.
    fn last_ops<'a>(&self, batch: &'a WriteBatch) -> Result<BTreeMap<&'a [u8], Option<&'a [u8]>>> {
        let mut last_ops = BTreeMap::new();
        for op in batch.ops() {
            let (key, value) = match op {
                BatchOp::Set { expiry_ms: Some(_), .. } => {
                    return Err(engine::without_expiry(self));
                }
                BatchOp::Set { key, value, expiry_ms: None } => (key, Some(value)),
                BatchOp::Remove { key } => (key, None),
            };
            check_key(key)?;
            check_value(value.unwrap_or_default())?;
            last_ops.insert(key, value);
        }
        // The longest is not counted, so that whatever can be set can be in a batch.
        let (mut len, mut longest) = (0_usize, 0);
        for (key, value) in &last_ops {
            let op_len = key.len() + value.map_or(0, <[u8]>::len);
            len += op_len;
            longest = longest.max(op_len);
        }
        let len = len - longest;
        if len > BATCH_BYTES_MAX {
            return Err(KvsError::BatchTooLong { len, max: BATCH_BYTES_MAX });
        }
        Ok(last_ops)
    }

    /// The first keys of `scan`, at most as many as `wanted`. An iterator of sled would keep the
    /// directory locked for as long as a caller keeps it, so none is held between batches.
    fn first_of(&self, scan: &Scan, wanted: usize) -> Result<Batch<Value>> {
        self.with(|open| {
            let mut range = open.db.range::<&[u8], _>(scan.bounds());
            let (mut batch, mut len) = (Batch::new(), 0);
            while batch.len() < wanted && len < SCAN_BATCH_LEN_MAX {
                let next = if scan.is_reverse() { range.next_back() } else { range.next() };
                let Some(entry) = next else { break };
                let (key, value) = entry.map_err(|error| self.explain("read", error))?;
                len += key.len() + value.len();
                let value = if scan.is_keys_only() { Value::default() } else { lent(value) };
                batch.push_back((key.to_vec(), value));
            }
            Ok(batch)
        })
    }

    fn flush(&self, open: &Open) -> Result<()> {
        open.db.flush().map(drop).map_err(|error| self.explain("sync", error))
    }

    /// Makes a write as durable as the store and the call ask.
    fn settle(&self, open: &Open, options: WriteOptions) -> Result<()> {
        if self.shared.sync || options.sync { self.flush(open) } else { Ok(()) }
    }

    /// Does `write` as far as sled's memory.
    fn write(&self, open: &Open, write: &Write) -> Result<()> {
        match write {
            Write::Set { key, value } => self.insert(open, key, value),
            Write::Remove { key } => self.take_out(open, key),
            Write::Batch(batch) => self.apply_batch(open, batch),
        }
    }
}

impl KvsEngine for SledKvsEngine {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.with(|open| {
            self.insert(open, key, value)?;
            self.settle(open, WriteOptions::default())
        })
    }

    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        // sled shares the bytes, so the lock is let go before `read` runs: it may call us again.
        Ok(self.lookup(key)?.map(|value| read(&value)))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.lookup(key)?.map(lent))
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        self.with(|open| {
            self.take_out(open, key)?;
            self.settle(open, WriteOptions::default())
        })
    }

    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()> {
        self.with(|open| {
            self.apply_batch(open, batch)?;
            self.settle(open, options)
        })
    }

    fn clear(&self) -> Result<()> {
        self.with(|open| {
            let mut tally = open.tally.write();
            open.db.clear().map_err(|error| self.explain("write to", error))?;
            *tally.get_mut() = 0;
            drop(tally);
            self.settle(open, WriteOptions::default())
        })
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        check_key(key)?;
        loop {
            let old = self.lookup(key)?;
            let update = change(old.as_deref());
            let new = match &update {
                Update::Keep => return Ok(()),
                Update::Remove if old.is_none() => return Ok(()),
                Update::Remove => None,
                Update::SetWithExpiry { expiry_ms: Some(_), .. } => {
                    return Err(engine::without_expiry(self));
                }
                Update::Set(value) | Update::SetWithExpiry { value, expiry_ms: None } => {
                    check_value(value)?;
                    Some(&value[..])
                }
            };
            if self.swap_if(key, old.as_ref(), new)? {
                return Ok(());
            }
        }
    }

    fn scan(&self, scan: Scan) -> Result<Entries> {
        self.with(|_| Ok(()))?;
        let (store, held) = (self.clone(), self.clone());
        let entries = Batches::new(scan, move |left, n| store.first_of(left, n));
        // What was fetched ahead is not handed out once the store is closed.
        Ok(Entries::new(entries.map(move |entry| held.with(|_| Ok(())).and(entry))))
    }

    fn len(&self) -> Result<u64> {
        self.with(|open| Ok(*open.tally.write().get_mut()))
    }

    fn sync(&self) -> Result<()> {
        self.with(|open| self.flush(open))
    }

    fn compact(&self) -> Result<()> {
        // sled rewrites its log by itself.
        self.with(|_| Ok(()))
    }

    fn close(&self) -> Result<()> {
        self.shared.close()
    }

    fn name(&self) -> &'static str {
        SLED
    }

    fn writes_wait_for_disk(&self) -> bool {
        self.shared.sync
    }

    fn write_then(&self, write: Write, done: WriteDone) {
        let guard = self.shared.open.read();
        let Some(open) = guard.as_ref() else {
            drop(guard);
            return done(Err(KvsError::Closed));
        };
        let outcome = self.write(open, &write);
        let unanswered = match &open.lane {
            Some(lane) => lane.hand_over(Waiting { done, outcome }),
            None => Some(Waiting { done, outcome }),
        };
        drop(guard);
        if let Some(Waiting { done, outcome }) = unanswered {
            done(outcome);
        }
    }
}

impl fmt::Debug for SledKvsEngine {
    /// The directory only: keys and values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledKvsEngine").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes the database out, so that later calls find nothing, then makes it durable and lets it
    /// go. No lock is held meanwhile: those whose writes are answered now may call us.
    fn close(&self) -> Result<()> {
        let Some(Open { db, lane, .. }) = self.open.write().take() else {
            return Ok(());
        };
        if let Some(lane) = lane {
            lane.finish();
        }
        db.flush().map(drop).map_err(|error| explain("sync", &self.dir, error))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("closing a sled store: {error}");
        }
    }
}

/// `value` without a copy.
fn lent(value: sled::IVec) -> Value {
    let len = value.len();
    Value::lent(Arc::new(Shelf(value)), 0..len)
}

/// Lends the bytes of one value that sled shares with us.
struct Shelf(sled::IVec);

impl Lender for Shelf {
    fn lent(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).expect("the only range ever lent is the whole value")
    }
}

/// The thread that flushes once for all writes that wait at that time, and answers them in the
/// order they were handed over.
struct SyncLane {
    waiting: mpsc::Sender<Waiting>,
    thread: thread::JoinHandle<()>,
}

/// A write that sled holds in memory, or has refused.
struct Waiting {
    done: WriteDone,
    outcome: Result<()>,
}

impl SyncLane {
    fn start(db: sled::Db, dir: PathBuf) -> Result<Self> {
        let (waiting, queue) = mpsc::channel();
        let thread = sync::spawn("kvs-sled-sync", move || Self::run(&db, &dir, &queue))?;
        Ok(Self { waiting, thread })
    }

    fn run(db: &sled::Db, dir: &Path, queue: &mpsc::Receiver<Waiting>) {
        while let Ok(first) = queue.recv() {
            // Taken before the flush: what arrives later may not be covered by it.
            let group: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
            let flushed = db.flush();
            for Waiting { done, outcome } in group {
                done(outcome.and_then(|()| match &flushed {
                    Ok(_) => Ok(()),
                    Err(error) => Err(explain("sync", dir, error.clone())),
                }));
            }
        }
    }

    /// Queues `write`, or gives it back as poisoned if a `done` panicked and took the thread along.
    fn hand_over(&self, write: Waiting) -> Option<Waiting> {
        let refused = self.waiting.send(write).err()?.0;
        Some(Waiting { outcome: Err(KvsError::Poisoned), ..refused })
    }

    /// Answers everyone who waits, then ends the thread.
    fn finish(self) {
        drop(self.waiting);
        // A `done` may drop the last handle of the store: then this is the lane's own thread,
        // which cannot wait for itself and ends when that `done` returns.
        if self.thread.thread().id() != thread::current().id() && self.thread.join().is_err() {
            log::error!("a write's completion panicked");
        }
    }
}

fn check_dir(dir: &Path, options: &Options) -> Result<()> {
    engine_dir::check_is_dir(dir)?;
    let path = || dir.to_path_buf();
    match engine_dir::engine_in(dir)? {
        Some(SLED) if options.exclusive => Err(KvsError::StoreExists { path: path() }),
        Some(SLED) => Ok(()),
        Some(found) => Err(KvsError::WrongEngine { path: path(), found, asked: SLED }),
        None if options.create => Ok(()),
        None => Err(KvsError::NoStore { path: path() }),
    }
}

fn open_db(dir: &Path, options: &Options) -> Result<sled::Db> {
    let flush_every_ms = match options.durability {
        Durability::Interval(every) => u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1),
        // With `Sync` there is nothing left to flush, but the same thread reclaims space.
        Durability::Os | Durability::Sync => OS_FLUSH_MS,
    };
    let config = sled::Config::new().path(dir).flush_every_ms(Some(flush_every_ms));
    let timeout = options.lock_timeout.max(LOCK_LINGER);
    let start = Instant::now();
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(error) if !is_lock_refusal(&error) => return Err(explain("open", dir, error)),
            Err(_) if start.elapsed() >= timeout => {
                return Err(KvsError::Locked { path: dir.to_path_buf(), pid: None });
            }
            Err(_) => thread::sleep(LOCK_RETRY),
        }
    }
}

/// Whether sled could not lock its file. It says so in words only; the version of sled is pinned,
/// and a test opens a directory twice.
fn is_lock_refusal(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(source)
        if source.kind() == std::io::ErrorKind::Other
            && source.to_string().starts_with("could not acquire lock"))
}

/// Files an error of sled under what the caller can do about it.
fn explain(op: &'static str, dir: &Path, error: sled::Error) -> KvsError {
    match error {
        sled::Error::Io(source) => KvsError::io(op, dir, source),
        sled::Error::Corruption { at, .. } => {
            KvsError::corrupt(&dir.join("db"), at.map_or(0, |at| at.lid()), "a page of sled")
        }
        other => KvsError::Engine { engine: SLED, source: Box::new(other) },
    }
}
