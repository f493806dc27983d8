//! The hash of a key, and which of its bits the index uses for what.
//!
//! ```text
//! hash, 64 bits:   | shard 8 | home 16 .. | tag 16 | unused 24 |
//!                            '---- 32 bits kept for ever ----'
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

const SHARD_BITS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 8 };
pub(crate) const SHARD_COUNT: usize = 1 << SHARD_BITS;

/// The hash of a key under the store's seed: XXH3-64, a published and stable function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The shard that keys with this hash are in.
    pub(crate) fn shard(self) -> usize {
        usize::try_from(self.0 >> (64 - SHARD_BITS)).expect("8 bits")
    }

    /// The bits that home and tag are made of.
    pub(crate) fn kept(self) -> u32 {
        u32::try_from((self.0 >> 24) & 0xFFFF_FFFF).expect("32 bits")
    }

    pub(crate) fn tag(self) -> u64 {
        u64::from(self.kept()) & 0xFFFF
    }

    pub(crate) fn beside(self) -> u16 {
        u16::try_from(self.kept() >> 16).expect("16 bits")
    }
}

/// Hashes keys under the seed of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher {
    seed: u64,
}

impl KeyHasher {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    #[inline]
    pub(crate) fn hash(self, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_seed(key, self.seed))
    }

    /// The hash of `key`, and 32 bits of another hash of it, for those who cannot look at keys.
    pub(crate) fn identity(self, key: &[u8]) -> (KeyHash, u32) {
        let other = xxh3_64_with_seed(key, !self.seed);
        (self.hash(key), u32::try_from(other >> 32).expect("32 bits"))
    }
}

/// A map by the hashes of keys, which are not hashed once more. Two keys may have the same one.
pub(crate) type ByHash<V> = HashMap<KeyHash, V, BuildHasherDefault<AsItIs>>;

/// Takes the 64 bits of a [`KeyHash`], seeded like all of them, for a hash.
#[derive(Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
