//! A walk over every key of a store, in no order, without keys in memory.
//!
//! ```text
//! keydir:  shard 0 | shard 1 | ... | shard 255
//!          '---- a group ----'                     copied: 8 bytes an entry, a bounded number
//!                  | sorted by segment and offset
//!                  v
//! segments: read front to back, each record telling its key
//! ```
//!
//! Exact beside writers and compaction, because a key belongs to one shard for good and its shard
//! is copied at one moment, under its lock:
//!
//! - A key that is there at that moment has exactly one entry in the copy, so it is met once. One
//!   that is there for the whole walk is there at that moment.
//! - The segments that the copied entries point into are held from within that lock. A segment is
//!   retired only after every entry that points into it was moved away, under the locks of their
//!   shards (invariant 4), so all of them are still live then. Held, they stay readable whatever
//!   compaction does, and records never change (invariant 1). Their slots are given to no other
//!   segment meanwhile, so a location keeps its meaning.
//!
//! What the walk tells is records, as they were when their shard was copied: a moment of the walk.
//!
//! A walk holds files of compacted segments in place until it comes to the next group or is
//! dropped. Any number of walks may run at once, each used by one thread at a time.

use crate::error::{KvsError, Result};
use crate::store::key_hash::SHARD_COUNT;
use crate::store::keydir::Keydir;
use crate::store::location::Location;
use crate::store::record::{Kind, Record};
use crate::store::scratch::Scratch;
use crate::store::segment::Segment;
use crate::store::segments::{Held, Look, PREFETCH_KEYS, Segments};
use crate::sync::{Arc, pin};

/// A group takes on no more shards once it has this many entries (8 MiB of locations). Up to here a
/// store is read front to back once; a larger one several times, some records each time. Small in
/// tests, so that they see several groups.
const GROUP_ENTRIES: usize = if cfg!(test) { 1 << 9 } else { 1 << 20 };

/// Keys are put in order so many bytes at a time (32 MiB). Small in tests, as above.
const SORTED_BYTES: usize = if cfg!(test) { 1 << 12 } else { 32 << 20 };

/// Sees to it that the order of the keys in `keydir` is built. `check` says now and then whether to
/// go on.
pub(crate) fn put_in_order(
    keydir: &Arc<Keydir>,
    segments: &Arc<Segments>,
    check: &dyn Fn() -> Result<()>,
) -> Result<()> {
    keydir.order().build_once(|| {
        let mut walk = Walk::new(Arc::clone(keydir), Arc::clone(segments));
        let mut keys = SomeKeys::default();
        loop {
            let met = walk.next_with(|_, _, record| {
                check()?;
                // Not the tombstone of a batch that was just being published.
                if record.kind == Kind::Put {
                    keys.push(record.key);
                }
                Ok(keys.is_full().then_some(()))
            });
            match met {
                Some(Err(damage @ KvsError::Corrupt { .. })) => {
                    keydir.order().note_damage(&damage);
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => keys.add_sorted(keydir, segments, check)?,
                None => return keys.add_sorted(keydir, segments, check),
            }
        }
    })
}

/// Keys on their way into the order. They go there sorted, since what the order allocates for one
/// key after the other mostly lies one behind the other in memory: then so do the keys that a scan
/// comes to.
#[derive(Default)]
struct SomeKeys {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a key is in `SomeKeys::bytes`.
struct Place {
    /// Its first eight bytes, with zeros behind it, as a number that sorts like they do.
    beginning: u64,
    start: usize,
    len: u16,
}

impl SomeKeys {
    fn push(&mut self, key: &[u8]) {
        let byte = |at| u64::from(key.get(at).copied().unwrap_or(0));
        self.places.push(Place {
            beginning: (0..8).fold(0, |beginning, at| beginning << 8 | byte(at)),
            start: self.bytes.len(),
            len: u16::try_from(key.len()).expect("a key fits 16 bits"),
        });
        self.bytes.extend_from_slice(key);
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.places.len() * size_of::<Place>() >= SORTED_BYTES
    }

    /// Adds those that are still there to the order, and forgets them.
    fn add_sorted(
        &mut self,
        keydir: &Keydir,
        segments: &Segments,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        self.sort();
        for some in self.places.chunks(PREFETCH_KEYS) {
            check()?;
            let mut keys = some.iter().map(|place| place.key(&self.bytes));
            segments.prefetch_all(keydir, keys.clone());
            keys.try_for_each(|key| add_if_there(keydir, segments, key))?;
        }
        self.places.clear();
        self.bytes.clear();
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.places.sort_unstable_by(|one, other| {
            let by_beginning = one.beginning.cmp(&other.beginning);
            by_beginning.then_with(|| one.key(bytes).cmp(other.key(bytes)))
        });
    }
}

impl Place {
    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.start..self.start + usize::from(self.len)).expect("put there by `push`")
    }
}

/// Adds `key` to the order unless it has been removed since the walk met it.
fn add_if_there(keydir: &Keydir, segments: &Segments, key: &[u8]) -> Result<()> {
    let guard = pin();
    let change = keydir.change(keydir.hash(key), &guard)?;
    let is_there = change.candidates().any(|entry| {
        let mut scratch = Scratch::default();
        let look = segments.look(entry.location, key, &guard, &mut scratch);
        // What cannot be read may be the key's: the scan will say so, as a `get` does.
        matches!(&look, Ok(Look::Found(_, record)) if record.is_put()) || look.is_err()
    });
    if is_there {
        keydir.order().add(key);
    }
    Ok(())
}

/// The records of a store, one for each key.
pub(crate) struct Walk {
    keydir: Arc<Keydir>,
    segments: Arc<Segments>,
    /// The first shard that was not copied yet.
    next_shard: usize,
    /// What is left of the group, the last in the files first, so that the first is popped.
    group: Vec<Location>,
    /// The segments of the group.
    held: Held,
}

impl Walk {
    /// A walk over the keys of `keydir`, whose records are in `segments`.
    pub(crate) fn new(keydir: Arc<Keydir>, segments: Arc<Segments>) -> Self {
        let (group, held) = (Vec::new(), Held::default());
        Self { keydir, segments, next_shard: 0, group, held }
    }

    /// What `read` makes of the next record that it makes something of; it is given each with its
    /// place. `None` at the end. An error is about one record; the walk goes on behind it.
    pub(crate) fn next_with<T>(
        &mut self,
        mut read: impl FnMut(&Arc<Segment>, u64, &Record<'_>) -> Result<Option<T>>,
    ) -> Option<Result<T>> {
        // One for all: a record that is mapped needs none, and asking so costs a little.
        let mut scratch = Scratch::default();
        loop {
            let Some(location) = self.group.pop() else {
                match self.copy_group() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => {
                        // Whoever asks again must not be told the same for ever.
                        self.next_shard += 1;
                        return Some(Err(error));
                    }
                }
            };
            if let Some(made) = self.read_at(location, &mut scratch, &mut read).transpose() {
                return Some(made);
            }
        }
    }

    /// The keys alone.
    #[cfg(test)]
    pub(crate) fn keys(mut self) -> impl Iterator<Item = Result<Vec<u8>>> {
        std::iter::from_fn(move || {
            self.next_with(|_, _, record| {
                Ok((record.kind == Kind::Put).then(|| record.key.to_vec()))
            })
        })
    }

    /// Copies the next shards; false if there are none left.
    fn copy_group(&mut self) -> Result<bool> {
        self.held.clear();
        while self.group.len() < GROUP_ENTRIES && self.next_shard < SHARD_COUNT {
            let (segments, held) = (&self.segments, &mut self.held);
            self.keydir.copy_shard(self.next_shard, &mut self.group, || segments.hold(held))?;
            self.next_shard += 1;
        }
        sort_backwards(&mut self.group);
        Ok(!self.group.is_empty())
    }

    fn read_at<T>(
        &self,
        location: Location,
        scratch: &mut Scratch,
        read: &mut impl FnMut(&Arc<Segment>, u64, &Record<'_>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let segment = self.held.get(location.slot()).expect("held since its shard was copied");
        let record = segment.record(location.offset(), scratch)?;
        let record = segment.verify(record, location.offset())?;
        read(segment, location.offset(), &record)
    }
}

/// Sorts `locations`, the last in the files first. A million of them take a third of the time that
/// comparing them takes, which was a fifth of a walk.
fn sort_backwards(locations: &mut [Location]) {
    radsort::sort_by_key(locations, |location| !location.bits());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::scan::Scan;
    use crate::store::KvStore;
    use crate::{Durability, KvsEngine, Options, WriteBatch};

    #[test]
    fn keys_go_into_the_order_sorted_by_all_their_bytes() {
        let mut keys: Vec<&[u8]> =
            vec![b"b", b"", b"a\0", b"a", b"\xff\xff", b"12345678", b"1234567", b"123456789"];
        keys.extend([&b"12345678\0"[..], b"12345678\xff\0", b"12345678\xfe\xff", b"\0"]);
        let mut some = SomeKeys::default();
        for key in &keys {
            some.push(key);
        }
        some.sort();
        keys.sort_unstable();
        let sorted: Vec<_> = some.places.iter().map(|place| place.key(&some.bytes)).collect();
        assert_eq!(sorted, keys);
    }

    /// Few and many, with the bits in which they differ anywhere.
    #[test]
    fn locations_are_sorted_with_the_last_first() {
        let mut state = 1_u64;
        for len in [0, 1, 100, 10_000] {
            for mask in [0, 1, 0x1ff, 0x3ff << 20, 1 << 47, 0xffff_ffff_ffff] {
                let location = |_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    Location::from_bits(0x8040_2010_0805 ^ ((state >> 9) & mask))
                };
                let mut locations: Vec<_> = (0..len).map(location).collect();
                let mut expected = locations.clone();
                expected.sort_unstable_by(|one, other| other.cmp(one));
                sort_backwards(&mut locations);
                assert!(locations == expected, "{len} locations that differ in {mask:x}");
            }
        }
    }

    /// Sets and removes keys at random, one by one and in batches, until `done`.
    fn churn(store: &KvStore, mut state: u64, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = ((state >> 33) % 3_000).to_be_bytes();
            match (state >> 20) % 5 {
                0 | 1 => store.set_bytes(&key, b"1").unwrap(),
                2 | 3 => drop(store.remove_bytes(&key)),
                _ => {
                    let mut batch = WriteBatch::new();
                    batch.remove(&key).set(&((state >> 33) % 2_999).to_be_bytes(), b"2");
                    store.apply(&batch).unwrap();
                }
            }
        }
    }

    fn restless_store(dir: &Path) -> KvStore {
        let options = Options::new().durability(Durability::Os).auto_compaction(false);
        let options = options.segment_bytes_min(0).segment_bytes_max(32 << 10);
        let store = KvStore::open_with(dir, options).unwrap();
        for key in 0..3_000_u64 {
            store.set_bytes(&key.to_be_bytes(), b"0").unwrap();
        }
        store
    }

    /// Between any two groups every record moves to another file and the old files would go.
    #[test]
    fn keys_are_met_once_though_every_record_moves() {
        let dir = tempfile::tempdir().unwrap();
        let store = restless_store(dir.path());
        let mut met = BTreeSet::new();
        for (number, entry) in store.iter().unwrap().enumerate() {
            let (key, _) = entry.unwrap();
            assert!(met.insert(key.clone()), "{key:?} came twice");
            if number % 100 == 0 {
                for key in (u64::try_from(number).unwrap()..3_000).step_by(7) {
                    store.set_bytes(&key.to_be_bytes(), b"1").unwrap();
                }
                store.compact().unwrap();
            }
        }
        assert_eq!(met.len(), 3_000);
    }

    /// What was held for one shard stays in its slot while the next shards are copied.
    #[test]
    fn held_segments_stay_held_when_more_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = restless_store(dir.path());
        let mut walk = Walk::new(Arc::clone(&store.core.keydir), Arc::clone(&store.core.segments));
        assert!(walk.copy_group().unwrap());
        for key in 0..3_000_u64 {
            store.set_bytes(&key.to_be_bytes(), b"1").unwrap();
        }
        store.compact().unwrap();
        store.core.segments.hold(&mut walk.held);
        let mut locations = std::mem::take(&mut walk.group);
        locations.dedup();
        assert!(locations.len() >= GROUP_ENTRIES);
        for location in locations {
            let read = walk.read_at(location, &mut Scratch::default(), &mut |_, _, _| Ok(Some(())));
            assert!(read.is_ok(), "{location:?}");
        }
    }

    #[test]
    fn ordered_store_is_in_order_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        restless_store(dir.path()).close().unwrap();
        for (ordered, expected) in [(false, 0), (true, 3_000)] {
            let options = Options::new().ordered(ordered);
            let store = KvStore::open_with(dir.path(), options).unwrap();
            let held = store.core.keydir.order().first_of(&Scan::all(), usize::MAX).len();
            assert_eq!(held, expected, "ordered({ordered})");
        }
    }

    /// The order is built while keys come, go and move, many times over. Afterwards it holds
    /// exactly the keys of the store: none is lost, and none is left that was removed, which a scan
    /// would only skip.
    #[test]
    fn order_built_beside_writers_and_compaction_is_exact() {
        for round in 0..30 {
            let dir = tempfile::tempdir().unwrap();
            let store = restless_store(dir.path());
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| churn(&store, round, &done));
                scope.spawn(|| churn(&store, round + 1_000, &done));
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        store.compact().unwrap();
                    }
                });
                thread::sleep(std::time::Duration::from_millis(round % 5));
                store.core.put_in_order().unwrap();
                done.store(true, Ordering::Relaxed);
            });
            let order = store.core.keydir.order().first_of(&Scan::all(), usize::MAX);
            let order: Vec<_> = order.into_iter().map(|(key, ())| key).collect();
            let there: BTreeSet<_> = store.iter().unwrap().map(|entry| entry.unwrap().0).collect();
            assert_eq!(order, Vec::from_iter(there.clone()), "round {round}");
            assert_eq!(store.len().unwrap(), u64::try_from(there.len()).unwrap());
        }
    }
}
