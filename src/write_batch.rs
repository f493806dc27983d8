//! Writes as values: a batch that applies as a whole, and a single write to be done later.

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    ops: Vec<BatchOp>,
}

/// One operation of a [`WriteBatch`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchOp {
    /// Sets `key` to `value`.
    Set {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
        /// When it expires, in milliseconds since the Unix epoch; `None` if it does not.
        expiry_ms: Option<u64>,
    },
    /// Removes `key` if it is there.
    Remove {
        /// The key.
        key: Vec<u8>,
    },
}

impl std::fmt::Debug for BatchOp {
    /// Lengths only: keys and values do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: set `key` to `value`. It does not expire, whatever it did before.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.add_set(key, value, None)
    }

    /// Adds: set `key` to `value` until `expiry_ms`, in milliseconds since the Unix epoch; see
    /// [`crate::KvsEngine::set_with_expiry`]. An engine without expiry refuses the whole batch.
    pub fn set_with_expiry(&mut self, key: &[u8], value: &[u8], expiry_ms: u64) -> &mut Self {
        self.add_set(key, value, Some(expiry_ms))
    }

    fn add_set(&mut self, key: &[u8], value: &[u8], expiry_ms: Option<u64>) -> &mut Self {
        self.ops.push(BatchOp::Set { key: key.to_vec(), value: value.to_vec(), expiry_ms });
        self
    }

    /// Adds: remove `key` if it is there.
    pub fn remove(&mut self, key: &[u8]) -> &mut Self {
        self.ops.push(BatchOp::Remove { key: key.to_vec() });
        self
    }

    /// Forgets every operation, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.ops.clear();
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to apply. Applying an empty batch does nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations, in the order they were added.
    pub fn ops(&self) -> &[BatchOp] {
        &self.ops
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
