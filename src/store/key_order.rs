//! The key order: the keys of a store in order, for those who scan in order.
//!
//! ```text
//! off      no scan in order yet: empty, costs nothing
//!   | kept_up := true
//! building a walk adds the keys that are there; the writer adds new keys, takes out removed ones
//!   | is_built := true
//! built    the writer goes on; scans read
//! ```
//! The set holds keys and nothing else. Where a record is the keydir alone knows, so overwriting a
//! key or compacting it does not touch the set: its price is on new and on removed keys, and in
//! memory: each key, and about 75 bytes with it.
//!
//! # Why it is exact
//!
//! A key is added and taken out only under the lock of its shard of the keydir: by the writer
//! together with the change of the keydir's entry, and by the builder after it has looked, under
//! that lock, whether the key is there. So once both see `kept_up`, the set and the keydir say the
//! same about every key that either of them has dealt with. What is left to show is that none is
//! forgotten: the builder deals with every key that the writer did not.
//!
//! - The builder sets `kept_up` first, and then copies each shard under its lock (see `walk`).
//! - A change made before that copy, seen to be kept up or not, is in the copy: the builder meets
//!   the key if it is there.
//! - A change made after it comes after `kept_up` was set, in the order of that lock: the writer
//!   keeps the set up itself. If it removes a key that the builder has met and not yet added, the
//!   builder looks again before it adds, finds no such key, and leaves it out.
//!
//! The set holds each key once (`get_or_insert` under one lock per key, never `insert`, which takes
//! the old entry out for a moment in which a scan would miss it).
//!
//! Scans take no lock. Any thread may scan; the writer and one builder change. It reads no file.

use crossbeam_skiplist::SkipSet;

use crate::error::{KvsError, Result};
use crate::scan::{Batch, Scan};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// A batch takes no more keys once they have this length (64 KiB).
const BATCH_LEN_MAX: usize = 64 << 10;

/// The keys of a store in order, once somebody has asked for it.
#[derive(Default)]
pub(crate) struct KeyOrder {
    keys: SkipSet<Box<[u8]>>,
    /// Whether the writer keeps the set up.
    kept_up: AtomicBool,
    is_built: AtomicBool,
    /// Held by the builder, and by those who wait for it.
    building: Mutex<()>,
    /// The first record met whose key cannot be read.
    damage: Mutex<Option<KvsError>>,
}

impl KeyOrder {
    /// Takes in `key`, which was not there before. The lock of its shard of the keydir is held.
    pub(crate) fn add(&self, key: &[u8]) {
        // Relaxed: the lock of the shard orders it; see the head of this file.
        if self.kept_up.load(Ordering::Relaxed) {
            self.keys.get_or_insert(key.into());
        }
    }

    /// Takes out `key`, which is there no more. The lock of its shard of the keydir is held.
    pub(crate) fn remove(&self, key: &[u8]) {
        // Relaxed: as in `add`.
        if self.kept_up.load(Ordering::Relaxed) {
            self.keys.remove(key);
        }
    }

    /// Takes out every key. None is in the keydir any more, and none is added meanwhile.
    pub(crate) fn clear(&self) {
        self.keys.clear();
        *self.damage.lock() = None;
    }

    /// Returns when the set is built. If it is not, and nobody is at it, `add_all` is to call
    /// [`KeyOrder::add`] for every key, under the lock of its shard. If it fails, the next one to
    /// ask begins anew.
    pub(crate) fn build_once(&self, add_all: impl FnOnce() -> Result<()>) -> Result<()> {
        // Acquire: pairs with the Release below, so that a scan finds what the builder added.
        if self.is_built.load(Ordering::Acquire) {
            return Ok(());
        }
        let _building = self.building.lock();
        // Relaxed: set under the lock only.
        if !self.is_built.load(Ordering::Relaxed) {
            // Relaxed: the locks of the shards, taken after this, order it.
            self.kept_up.store(true, Ordering::Relaxed);
            add_all()?;
            // Release: pairs with the Acquire above.
            self.is_built.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Takes down that a key is missing because its record cannot be read.
    pub(crate) fn note_damage(&self, damage: &KvsError) {
        self.damage.lock().get_or_insert_with(|| damage.for_another());
    }

    /// The damage because of which the set may lack a key, if there is any.
    pub(crate) fn damage(&self) -> Option<KvsError> {
        self.damage.lock().as_ref().map(KvsError::for_another)
    }

    /// The first keys of `scan`, about as many as `wanted`, none if there are none.
    pub(crate) fn first_of(&self, scan: &Scan, wanted: usize) -> Batch<()> {
        // From entry to entry, not by `range`, which never lets go of the entries it has passed: a
        // key that is removed afterwards would stay in memory for ever.
        let (start, end) = scan.bounds();
        let mut next = if scan.is_reverse() {
            self.keys.upper_bound::<[u8]>(end)
        } else {
            self.keys.lower_bound::<[u8]>(start)
        };
        let (mut batch, mut len) = (Batch::new(), 0);
        while batch.len() < wanted && len < BATCH_LEN_MAX {
            let Some(entry) = next.filter(|entry| scan.contains(entry.value())) else { break };
            len += entry.value().len();
            batch.push_back((entry.value().to_vec(), ()));
            next = if scan.is_reverse() { entry.prev() } else { entry.next() };
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(order: &KeyOrder, scan: &Scan, wanted: usize) -> Vec<Vec<u8>> {
        order.first_of(scan, wanted).into_iter().map(|(key, ())| key).collect()
    }

    #[test]
    fn nothing_is_kept_before_somebody_asks() {
        let order = KeyOrder::default();
        order.add(b"a");
        assert!(keys(&order, &Scan::all(), 9).is_empty());
        order.build_once(|| Ok(())).unwrap();
        order.add(b"c");
        order.add(b"b");
        order.add(b"b");
        order.remove(b"c");
        assert_eq!(keys(&order, &Scan::all(), 9), [b"b"]);
    }

    #[test]
    fn a_failed_build_is_done_again_and_a_good_one_is_not() {
        let order = KeyOrder::default();
        let failed = order.build_once(|| Err(KvsError::Closed));
        assert!(matches!(failed, Err(KvsError::Closed)), "{failed:?}");
        let add_all = || {
            order.add(b"a");
            Ok(())
        };
        order.build_once(add_all).unwrap();
        order.build_once(|| panic!("it is built")).unwrap();
        assert_eq!(keys(&order, &Scan::all(), 9), [b"a"]);
    }

    #[test]
    fn batches_end_at_their_count_and_at_their_length() {
        let order = KeyOrder::default();
        order.build_once(|| Ok(())).unwrap();
        for key in 0..9_u8 {
            order.add(&vec![key; 20_000]);
        }
        assert_eq!(keys(&order, &Scan::all(), 2).len(), 2);
        assert_eq!(keys(&order, &Scan::all(), 9).len(), 4);
        let last = keys(&order, &Scan::all().reverse(), 1);
        assert_eq!(last, [vec![8; 20_000]]);
    }
}
