//! The contract every engine keeps, and everything above it relies on.
//!
//! The server, the C ABI, the programs and (later) replication are written against [`KvsEngine`]
//! and know no engine. Every promise below is a test in `tests/it/contract.rs`, run against each
//! implementation and against a `BTreeMap`.

use std::path::Path;

use crate::error::{KvsError, Result};
use crate::options::WriteOptions;
use crate::scan::{Entries, Scan};
use crate::value::Value;
use crate::write_batch::{Write, WriteBatch, WriteDone};

/// An embedded key-value engine.
///
/// Keys and values are bytes; both may be empty and may hold any byte. Methods take `&self` and
/// may be called from any thread at once. Operations on one key are linearizable; there is no
/// order between keys, except inside a batch. Clones are handles of one store; it is closed when
/// the last one goes, or by [`KvsEngine::close`].
///
/// # Expiry
///
/// A key can be given a time, in milliseconds since the Unix epoch, from which on it is absent, in
/// every read, condition and scan, as if it had been removed at that millisecond. Nothing needs to
/// run for that: reads compare with the system's clock. Setting a key anew takes its expiry off. If
/// the clock is set back, what has expired stays so until the store is opened again; see
/// [`crate::KvStore`]. An engine without expiry refuses to set one with [`KvsError::Unsupported`].
///
/// The methods on `String` are the text API of the first implementation, kept as it was.
pub trait KvsEngine: Clone + Send + Sync + 'static {
    /// Sets `key` to `value`. When this returns `Ok`, every later read sees it, and it is as
    /// durable as the store's options say. It does not expire, whatever the key did before.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyTooLong`], [`KvsError::ValueTooLong`] (nothing is written);
    /// [`KvsError::NoSpace`], [`KvsError::Io`], [`KvsError::Poisoned`], [`KvsError::Closed`].
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sets `key` to `value` until `expiry_ms`, in milliseconds since the Unix epoch: from that
    /// millisecond on the key is absent. A time in the past is no error: the key is absent at once,
    /// as if it had been removed, whether or not it was there. `u64::MAX` never comes.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime, UNIX_EPOCH};
    ///
    /// use kvs::{Expiry, KvStore, KvsEngine};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = KvStore::open(dir.path())?;
    /// let at = SystemTime::now() + Duration::from_secs(3600);
    /// let at_ms = at.duration_since(UNIX_EPOCH)?.as_millis().try_into()?;
    /// store.set_with_expiry(b"session", b"7", at_ms)?;
    /// assert_eq!(store.expiry(b"session")?, Expiry::At(at_ms));
    /// store.persist(b"session")?;
    /// assert_eq!(store.expiry(b"session")?, Expiry::Never);
    /// store.set_with_expiry(b"session", b"7", 0)?;
    /// assert_eq!(store.expiry(b"session")?, Expiry::Absent);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::set_bytes`]; [`KvsError::Unsupported`] if the engine has no expiry.
    fn set_with_expiry(&self, key: &[u8], value: &[u8], expiry_ms: u64) -> Result<()> {
        let _ = (key, value, expiry_ms);
        Err(without_expiry(self))
    }

    /// Calls `read` with the value of `key` and returns its result, or `None` if the key is absent
    /// (then `read` is not called). The cheapest read: nothing is copied or allocated. The bytes
    /// are verified before `read` sees them. Keep `read` short: it holds back the reclaiming of
    /// memory and disk space.
    ///
    /// A key over the limit is absent, not an error.
    ///
    /// # Errors
    ///
    /// [`KvsError::Corrupt`], [`KvsError::Io`], [`KvsError::Closed`].
    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Returns the value of `key`, or `None`.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`].
    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>>;

    /// Removes `key`.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`] if it is not there; then nothing is written. Otherwise as
    /// [`KvsEngine::set_bytes`].
    fn remove_bytes(&self, key: &[u8]) -> Result<()>;

    /// Applies all of `batch` or none of it, for concurrent readers and across crashes, as durably
    /// as `options` and the store ask.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::set_bytes`], and [`KvsError::BatchTooLong`]; nothing is applied then.
    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()>;

    /// Removes every key. After a crash all of them are gone or none is; a reader beside it may see
    /// some of them gone before others. `kvs` writes one record, whatever the store holds, waits
    /// for a compaction that is under way, and gives the space back in the background. sled removes
    /// key by key, and a crash may leave some.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::set_bytes`].
    fn clear(&self) -> Result<()>;

    /// Atomic read-modify-write: `change` is given the value of `key`, or `None`, and says what is
    /// to become of it; nobody else's write falls between. `change` runs outside every lock and
    /// runs again, with the newer value, whenever somebody was faster: it must not have effects of
    /// its own. [`Update::Keep`], or removing what is absent, writes nothing. A key that expires
    /// before the new value is written is absent: `change` runs again, with `None`.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`] and [`KvsEngine::set_bytes`]; [`KvsError::Unsupported`] for an
    /// expiry, if the engine has none.
    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()>;

    /// The keys that `scan` describes, in order, with their values; see [`Scan`] for ranges,
    /// prefixes, direction and keys only. An empty range finds nothing, which is no error.
    ///
    /// Each key that is there for the whole scan is seen exactly once, in order; keys set or
    /// removed meanwhile may be seen or not; a value is never torn. It is no snapshot. The
    /// [`Entries`] own a handle of the store and use memory that does not depend on its size.
    ///
    /// The first ordered scan of a [`crate::KvStore`] reads every key once, to put them in order;
    /// see [`crate::Options::ordered`].
    ///
    /// ```
    /// use kvs::{KvStore, KvsEngine, Scan};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = KvStore::open(dir.path())?;
    /// for key in ["b", "a", "c"] {
    ///     store.set_bytes(key.as_bytes(), b"1")?;
    /// }
    /// let mut keys = Vec::new();
    /// for entry in store.scan(Scan::range("b"..).reverse())? {
    ///     let (key, _) = entry?;
    ///     keys.push(key);
    /// }
    /// assert_eq!(keys, [b"c", b"b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KvsError::Closed`], [`KvsError::Io`]; what the items can be is said at [`Entries`].
    fn scan(&self, scan: Scan) -> Result<Entries>;

    /// Number of keys. Costs the same however many there are. Keys that have expired count until
    /// compaction has dropped them, which [`KvsEngine::compact`] does at once.
    ///
    /// # Errors
    ///
    /// [`KvsError::Closed`]; [`KvsError::Corrupt`] if damage may have taken keys that cannot be
    /// named, or may have removed some; [`KvsError::Io`].
    fn len(&self) -> Result<u64>;

    /// Makes every write that has returned so far survive power loss.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] if the disk refuses; the store is poisoned then.
    fn sync(&self) -> Result<()>;

    /// Gives back the space of overwritten, removed and expired records, and returns when that is
    /// done.
    /// Reads and writes go on meanwhile. An engine that does this by itself only returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`], [`KvsError::NoSpace`], [`KvsError::Corrupt`]; nothing is lost.
    fn compact(&self) -> Result<()>;

    /// Makes a copy of the store in `dir`, which must not exist or be empty, while reads and writes
    /// go on. The copy opens as it is and holds all writes up to one moment of their order, all of
    /// them durable. If this fails, nothing of it stays.
    ///
    /// `kvs` gives its sealed files a second name where the file system can, so that a copy takes
    /// no space at first; it waits for a compaction that is under way.
    ///
    /// # Errors
    ///
    /// [`KvsError::StoreExists`], [`KvsError::NotEmpty`], [`KvsError::NotADirectory`],
    /// [`KvsError::Locked`] for `dir`; [`KvsError::NoSpace`], [`KvsError::Io`],
    /// [`KvsError::Poisoned`], [`KvsError::Closed`]; [`KvsError::Unsupported`] if the engine has no
    /// checkpoints.
    fn checkpoint(&self, dir: &Path) -> Result<()> {
        let _ = dir;
        // A closed store says that first, on every engine.
        self.len()?;
        Err(KvsError::Unsupported { engine: self.name(), what: "checkpoints" })
    }

    /// A store opened with [`crate::Options::read_only`] as it is now: a new view, or a handle of
    /// this one if nothing has changed. This one stays as it is. An engine that is open for writing
    /// is always as it is now, and returns a handle of itself.
    ///
    /// Costs as much as opening.
    ///
    /// # Errors
    ///
    /// As opening the store.
    fn refresh(&self) -> Result<Self> {
        Ok(self.clone())
    }

    /// Makes everything durable, lets go of the directory and refuses every later call with
    /// [`KvsError::Closed`]. Calls under way finish first. Values handed out stay valid. Closing
    /// twice is no error.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::sync`]; the directory is let go all the same.
    fn close(&self) -> Result<()>;

    /// The engine's name, as programs and files say it: "kvs" or "sled".
    fn name(&self) -> &'static str;

    /// Whether a write may wait for the disk before it returns. Whoever serves many clients on few
    /// threads then prefers [`KvsEngine::write_then`].
    fn writes_wait_for_disk(&self) -> bool {
        false
    }

    /// Does `write` and calls `done` with the outcome, on this thread or another, possibly after
    /// this returns. Writes handed over by one thread are done in that order. An engine whose
    /// writes wait for the disk returns at once and shares one sync among all that wait.
    fn write_then(&self, write: Write, done: WriteDone) {
        done(write_now(self, &write));
    }

    /// When `key` expires, if it is there. Its value is not returned, and may not be read.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`].
    fn expiry(&self, key: &[u8]) -> Result<Expiry> {
        Ok(self.get_with_expiry(key)?.map(|(_, expiry_ms)| expiry_ms).into())
    }

    /// The value of `key` and when it expires, if it does, both of one moment; or `None`.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`].
    fn get_with_expiry(&self, key: &[u8]) -> Result<Option<(Value, Option<u64>)>> {
        Ok(self.get_bytes(key)?.map(|value| (value, None)))
    }

    /// Lets `key` expire at `expiry_ms`, as [`KvsEngine::set_with_expiry`] does, or never, and
    /// returns when it would have expired before. Nobody's write falls between; the value stays.
    /// If the expiry is the same already, nothing is written; otherwise the value is written anew,
    /// at the cost of setting it.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`] if the key is absent; nothing is written then. Otherwise as
    /// [`KvsEngine::set_with_expiry`].
    fn set_expiry(&self, key: &[u8], expiry_ms: Option<u64>) -> Result<Option<u64>> {
        match expiry_ms {
            Some(_) => Err(without_expiry(self)),
            None if self.contains(key)? => Ok(None),
            None => Err(KvsError::KeyNotFound),
        }
    }

    /// Takes the expiry of `key` off, and returns whether there was one: [`KvsEngine::set_expiry`]
    /// with `None`.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::set_expiry`].
    fn persist(&self, key: &[u8]) -> Result<bool> {
        Ok(self.set_expiry(key, None)?.is_some())
    }

    /// Sets `key` to `value`, or removes it if `value` is `None`, and returns what it was before.
    /// The key does not expire, whatever it did before.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::update`].
    fn swap(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<Value>> {
        let mut previous = None;
        self.update(key, &mut |old| {
            previous = old.map(|old| Value::from(old.to_vec()));
            Update::to(value)
        })?;
        Ok(previous)
    }

    /// Sets `key` to `desired` if it is `expected` now. `None` means absent, in both places; an
    /// empty value is something else. A key that is set does not expire, whatever it did before.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::update`].
    fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        desired: Option<&[u8]>,
    ) -> Result<CompareAndSwap> {
        let mut outcome = CompareAndSwap::Swapped;
        self.update(key, &mut |old| {
            if old == expected {
                outcome = CompareAndSwap::Swapped;
                return Update::to(desired);
            }
            outcome = CompareAndSwap::Mismatch(old.map(|old| Value::from(old.to_vec())));
            Update::Keep
        })?;
        Ok(outcome)
    }

    /// The values of `keys`, in their order, `None` for each absent one. Each key is read by
    /// itself: writes may fall between.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`], for the first key that cannot be read.
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get_bytes(key)).collect()
    }

    /// Calls `read` with the value of each of `keys`, in their order, `None` for an absent one,
    /// until it returns false. Each key is read by itself: writes may fall between. For many keys
    /// this waits for memory less often than [`KvsEngine::get_with`] for each.
    ///
    /// Returns what `read` returned last; true if there are no keys.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`], for the first key that cannot be read.
    fn get_many_with(
        &self,
        keys: &[&[u8]],
        read: &mut dyn FnMut(Option<&[u8]>) -> bool,
    ) -> Result<bool> {
        for key in keys {
            let goes_on = self.get_with(key, |value| read(Some(value)))?;
            if !goes_on.unwrap_or_else(|| read(None)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether `key` is there. Its value is not returned, and may not be read.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`].
    fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// Copies the value of `key` into `buffer`, in place of what was there, and returns whether the
    /// key is there. Allocates only if `buffer` is too small.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`]; `buffer` is empty then.
    fn get_into(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        Ok(self.get_with(key, |value| buffer.extend_from_slice(value))?.is_some())
    }

    /// As [`KvsEngine::apply_with`] with the store's own durability.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::apply_with`].
    fn apply(&self, batch: &WriteBatch) -> Result<()> {
        self.apply_with(batch, WriteOptions::default())
    }

    /// Every key with its value, in no order, but otherwise as [`KvsEngine::scan`] promises. The
    /// cheapest way to see all of them: nothing needs to be put in order, and a [`crate::KvStore`]
    /// reads its files from front to back. While it lasts, files that compaction has replaced may
    /// stay on disk; an ordered scan keeps none.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::scan`].
    #[expect(clippy::iter_not_returning_iterator, reason = "a closed store is told at once")]
    fn iter(&self) -> Result<Entries> {
        self.scan(Scan::all())
    }

    /// The keys that begin with `prefix`, in order, with their values: all keys, if it is empty.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::scan`].
    fn scan_prefix(&self, prefix: &[u8]) -> Result<Entries> {
        self.scan(Scan::prefix(prefix))
    }

    /// Whether there are no keys.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::len`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Sets `key` to `value`: the text API.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::set_bytes`].
    fn set(&self, key: String, value: String) -> Result<()> {
        self.set_bytes(key.as_bytes(), value.as_bytes())
    }

    /// Returns the value of `key`, or `None`: the text API.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::get_with`], and [`KvsError::NotUtf8`] if the value is not text.
    fn get(&self, key: String) -> Result<Option<String>> {
        self.get_with(key.as_bytes(), text)?.transpose()
    }

    /// Removes `key`: the text API.
    ///
    /// # Errors
    ///
    /// As [`KvsEngine::remove_bytes`].
    fn remove(&self, key: String) -> Result<()> {
        self.remove_bytes(key.as_bytes())
    }
}

/// What [`KvsEngine::update`] is to do with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Leave it as it is.
    Keep,
    /// Set it to this value. When it expires stays as it is; a key that was absent does not
    /// expire.
    Set(Vec<u8>),
    /// Set it to this value, and when it expires to this time.
    SetWithExpiry {
        /// The value.
        value: Vec<u8>,
        /// When it expires, in milliseconds since the Unix epoch; `None` if it does not.
        expiry_ms: Option<u64>,
    },
    /// Remove it.
    Remove,
}

impl Update {
    /// Sets the key to `value`, without expiry, or removes it.
    fn to(value: Option<&[u8]>) -> Self {
        value.map_or(Self::Remove, |value| Self::SetWithExpiry {
            value: value.to_vec(),
            expiry_ms: None,
        })
    }
}

/// When a key expires; see [`KvsEngine::expiry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// There is no such key, or it has expired.
    Absent,
    /// The key stays until it is removed.
    Never,
    /// From this time on the key is absent: milliseconds since the Unix epoch.
    At(u64),
}

impl From<Option<Option<u64>>> for Expiry {
    /// `None` for a key that is absent, `Some(None)` for one that does not expire.
    fn from(found: Option<Option<u64>>) -> Self {
        found.map_or(Self::Absent, |expiry_ms| expiry_ms.map_or(Self::Never, Self::At))
    }
}

/// How a [`KvsEngine::compare_and_swap`] went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum CompareAndSwap {
    /// The key was what it was expected to be, and is what was desired.
    Swapped,
    /// The key is this, `None` if it is absent, and was left as it is.
    Mismatch(Option<Value>),
}

/// Does `write` on this thread and returns when it is done.
pub(crate) fn write_now(engine: &impl KvsEngine, write: &Write) -> Result<()> {
    match write {
        Write::Set { key, value } => engine.set_bytes(key, value),
        Write::Remove { key } => engine.remove_bytes(key),
        Write::Batch(batch) => engine.apply(batch),
    }
}

/// What an engine without expiry says to who would set one.
pub(crate) fn without_expiry(engine: &impl KvsEngine) -> KvsError {
    // A closed store says that first, on every engine.
    let unsupported = KvsError::Unsupported { engine: engine.name(), what: "expiry of keys" };
    engine.len().map_or_else(|error| error, |_| unsupported)
}

fn text(value: &[u8]) -> Result<String> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(KvsError::NotUtf8 { what: "value", valid_up_to: error.valid_up_to() }),
    }
}
