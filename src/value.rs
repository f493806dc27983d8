//! A value as the store hands it out: bytes lent by a segment, or owned.
//!
//! A lent value costs no copy. It keeps the segment that holds it mapped and its file in place, so
//! it stays valid across overwrites, removal, compaction and even after the store is closed; the
//! price is that the disk space of that segment is not given back while the value lives, nor, if
//! the store is closed meanwhile, before it is opened again. Copy the bytes out (`to_vec`) to keep
//! a value for long.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::{fmt, hash};

/// Something that holds bytes a [`Value`] can borrow for as long as it likes.
///
/// The bytes of a range never change and never move while the lender lives.
pub(crate) trait Lender: Send + Sync {
    /// The bytes at `range`.
    fn lent(&self, range: Range<usize>) -> &[u8];
}

/// The bytes of one value. Dereferences to `[u8]`.
///
/// Cheap to move and to clone when lent; `Send + Sync`.
///
/// ```
/// let value = kvs::Value::from(b"Oslo".to_vec());
/// assert_eq!(&*value, b"Oslo");
/// assert_eq!(value.len(), 4);
/// ```
#[derive(Clone)]
pub struct Value(Repr);

#[derive(Clone)]
enum Repr {
    Owned(Vec<u8>),
    Lent { lender: Arc<dyn Lender>, range: Range<usize> },
}

impl Value {
    /// A value that borrows `range` of `lender` and keeps it alive.
    pub(crate) fn lent(lender: Arc<dyn Lender>, range: Range<usize>) -> Self {
        Self(Repr::Lent { lender, range })
    }

    /// The bytes, as a vector: a copy if they are lent, moved out if they are owned.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Repr::Owned(bytes) => bytes,
            Repr::Lent { lender, range } => lender.lent(range).to_vec(),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Owned(bytes) => bytes,
            Repr::Lent { lender, range } => lender.lent(range.clone()),
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Value {
    /// No bytes.
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Repr::Owned(bytes))
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.into_vec()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Value {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other
    }
}

impl hash::Hash for Value {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Value {
    /// The length only: values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Repr::Owned(_) => "owned",
            Repr::Lent { .. } => "lent",
        };
        write!(f, "Value({} bytes, {kind})", self.len())
    }
}
