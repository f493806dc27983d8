//! Writes as values: a batch that applies as a whole, and a single write to be done later.

use std::fmt;

/// Writes that are applied all or nothing, across crashes and for concurrent readers.
///
/// Later operations on a key win over earlier ones. Removing a key that is not there has no effect
/// and is not an error. A batch can be applied again, and reused after [`WriteBatch::clear`].
///
/// ```
/// use kvs::{KvStore, KvsEngine, WriteBatch};
///
/// let dir = tempfile::tempdir()?;
/// let store = KvStore::open(dir.path())?;
/// let mut batch = WriteBatch::new();
/// batch.set(b"from", b"90").set(b"to", b"110").remove(b"pending");
/// store.apply(&batch)?;
/// assert_eq!(store.get("to".to_owned())?, Some("110".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

/// Where the bytes of an operation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    start: usize,
    key_len: usize,
    /// `None` if the key is to be removed.
    value_len: Option<usize>,
    expiry_ms: Option<u64>,
}

/// One operation of a [`WriteBatch`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchOp<'a> {
    /// Sets `key` to `value`.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
        /// When it expires, in milliseconds since the Unix epoch; `None` if it does not.
        expiry_ms: Option<u64>,
    },
    /// Removes `key` if it is there.
    Remove {
        /// The key.
        key: &'a [u8],
    },
}

impl fmt::Debug for BatchOp<'_> {
    /// Lengths only: keys and values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, value, expiry_ms: None } => {
                write!(f, "Set({} bytes, {} bytes)", key.len(), value.len())
            }
            Self::Set { key, value, expiry_ms: Some(expiry_ms) } => {
                write!(f, "Set({} bytes, {} bytes, until {expiry_ms})", key.len(), value.len())
            }
            Self::Remove { key } => write!(f, "Remove({} bytes)", key.len()),
        }
    }
}

impl fmt::Debug for WriteBatch {
    /// The lengths of its operations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ops()).finish()
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: set `key` to `value`. It does not expire, whatever it did before.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.add(key, Some(value), None)
    }

    /// Adds: set `key` to `value` until `expiry_ms`, in milliseconds since the Unix epoch; see
    /// [`crate::KvsEngine::set_with_expiry`]. An engine without expiry refuses the whole batch.
    pub fn set_with_expiry(&mut self, key: &[u8], value: &[u8], expiry_ms: u64) -> &mut Self {
        self.add(key, Some(value), Some(expiry_ms))
    }

    /// Adds: remove `key` if it is there.
    pub fn remove(&mut self, key: &[u8]) -> &mut Self {
        self.add(key, None, None)
    }

    fn add(&mut self, key: &[u8], value: Option<&[u8]>, expiry_ms: Option<u64>) -> &mut Self {
        let (start, value_len) = (self.bytes.len(), value.map(<[u8]>::len));
        self.parts.push(Part { start, key_len: key.len(), value_len, expiry_ms });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self
    }

    /// Forgets every operation, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is nothing to apply. Applying an empty batch does nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The operations, in the order they were added.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = BatchOp<'_>> + ExactSizeIterator {
        self.parts.iter().map(|part| {
            let (_, bytes) = self.bytes.split_at(part.start);
            let (key, bytes) = bytes.split_at(part.key_len);
            match part.value_len {
                Some(len) => {
                    let (value, _) = bytes.split_at(len);
                    BatchOp::Set { key, value, expiry_ms: part.expiry_ms }
                }
                None => BatchOp::Remove { key },
            }
        })
    }
}

/// One write, owned, to be handed to [`crate::KvsEngine::write_then`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Write {
    /// As `set_bytes`.
    Set {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// As `remove_bytes`: an absent key is `KeyNotFound`.
    Remove {
        /// The key.
        key: Vec<u8>,
    },
    /// As `apply`.
    Batch(WriteBatch),
}

/// What [`crate::KvsEngine::write_then`] calls when the write is done or has failed.
pub type WriteDone = Box<dyn FnOnce(crate::Result<()>) + Send>;
