//! What `benches/layers.rs` times of the layers below [`crate::KvStore`]: records as bytes, and the
//! keydir. Not in the library: the feature `layers` brings it, and promises nothing.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    reason = "for one bench, which says what it does with them"
)]

use std::fmt;

use crate::error::Result;
use crate::store::keydir::Keydir;
use crate::store::location::{Location, Seqno, Slot};
use crate::store::record::{BatchPlace, Draft, Record, Salt};
use crate::sync::pin;

const SALT: Salt = Salt(0x6b76_7321);

/// Appends a record to `buffer`: what a `set` does before and within the writer's lane.
pub fn encode(buffer: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    Draft::put(key, value).encode(buffer, 0, SALT, Seqno::new(1), BatchPlace::Alone);
}

/// The value of the record that [`encode`] put at the start of an empty buffer, verified as a
/// scan of a log does.
pub fn decode(bytes: &[u8]) -> &[u8] {
    Record::decode(bytes, SALT, 0).expect("as it was encoded").value
}

/// A keydir whose entries point nowhere.
pub struct Index(Keydir);

impl Index {
    pub fn new() -> Self {
        Self(Keydir::empty(1))
    }

    /// The number that `key` was inserted with, or of a key with the same tag near by.
    pub fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        let guard = pin();
        let first = self.0.candidates(self.0.hash(key), &guard)?.next();
        Ok(first.map(|at| at.offset() / 8))
    }

    pub fn insert(&self, key: &[u8], number: u64) -> Result<()> {
        let guard = pin();
        let location = Location::new(Slot::new(1).expect("a slot"), number * 8);
        self.0.change(self.0.hash(key), &guard)?.insert(location);
        Ok(())
    }

    pub fn shard(&self, key: &[u8]) -> usize {
        self.0.hash(key).shard()
    }

    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
