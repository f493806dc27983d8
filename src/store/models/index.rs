//! The keydir beside its readers: what a key's entry points at can be read, a key that stays is
//! found, and a copy takes the place of nothing but what it is a copy of.

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

use super::Model;
use crate::error::Result;
use crate::store::key_hash::{KeyHash, KeyHasher};
use crate::store::keydir::{Keydir, ShardSource};
use crate::store::location::{Location, Slot};
use crate::sync::{Arc, AtomicU64, Ordering, pin};

pub(super) const ALL: &[Model] = &[
    ("index: what is found can be read", what_is_found_can_be_read),
    ("index: growth loses nothing", growth_loses_nothing),
    ("index: removal loses nothing else", removal_loses_nothing_else),
    ("index: a copy replaces its original only", a_copy_replaces_its_original_only),
    ("index: a shard is loaded once", a_shard_is_loaded_once),
];

/// Keys whose home is the first slot of the first shard, with tags of their own.
fn hash(tag: u64) -> KeyHash {
    KeyHash::from_raw(tag << 24)
}

fn location(n: u64) -> Location {
    Location::new(Slot::new(1).unwrap(), n * 8)
}

/// Each shard holds one key, with the tag 1, at location 1.
struct One;

impl ShardSource for One {
    fn load(&self, shard: usize) -> Result<Vec<(KeyHash, Location)>> {
        Ok(if shard == 0 { vec![(hash(1), location(1))] } else { Vec::new() })
    }
}

/// A keydir that holds the keys `1..=count`, each at the location of its number.
fn keydir(count: u64) -> Arc<Keydir> {
    let keydir = Keydir::pending(KeyHasher::new(0), Arc::new(One), None);
    (2..=count).for_each(|n| insert(&keydir, n));
    keydir.make_ready(hash(1), &pin()).unwrap();
    Arc::new(keydir)
}

fn insert(keydir: &Keydir, n: u64) {
    insert_at(keydir, n, n);
}

fn insert_at(keydir: &Keydir, n: u64, at: u64) {
    let guard = pin();
    keydir.change(hash(n), &guard).unwrap().insert(location(at));
}

fn remove(keydir: &Keydir, n: u64) {
    let guard = pin();
    let change = keydir.change(hash(n), &guard).unwrap();
    let entry = change.entry_at(location(n)).unwrap();
    change.remove(entry);
}

fn replace(keydir: &Keydir, n: u64, to: u64) {
    let guard = pin();
    let change = keydir.change(hash(n), &guard).unwrap();
    let entry = change.candidates().next().unwrap();
    change.replace(entry, location(to));
}

/// Where key `n` is said to be.
fn found(keydir: &Keydir, n: u64) -> Option<u64> {
    let guard = pin();
    let mut found = keydir.candidates(hash(n), &guard).unwrap();
    found.next().map(|location| location.offset() / 8)
}

/// Runs `read` beside `write`.
///
/// It is the first thread that writes: loom looks for another order when a load follows a store,
/// and forgets that a load came before one if the storing thread has loaded the same place itself.
fn beside(keydir: &Arc<Keydir>, read: impl Fn(&Keydir) + Send + 'static, write: impl FnOnce()) {
    let keydir = Arc::clone(keydir);
    let reader = thread::spawn(move || read(&keydir));
    write();
    reader.join().unwrap();
}

fn what_is_found_can_be_read() {
    let keydir = keydir(1);
    // Records, by the number of their location.
    let records: Arc<[AtomicU64; 4]> = Arc::new([0, 1, 0, 0].map(AtomicU64::new));
    let read = {
        let records = Arc::clone(&records);
        move |keydir: &Keydir| {
            for key in [1, 2] {
                let Some(at) = found(keydir, key) else { continue };
                // Relaxed: the keydir is to publish it.
                let record = records[usize::try_from(at).unwrap()].load(Ordering::Relaxed);
                assert_eq!(record, at, "key {key} was found before its record could be read");
            }
        }
    };
    beside(&keydir, read, || {
        // Pinned before the records are written: pinning is a fence, which would order them.
        let guard = pin();
        // Relaxed: as above.
        records[2].store(2, Ordering::Relaxed);
        let change = keydir.change(hash(1), &guard).unwrap();
        let entry = change.candidates().next().unwrap();
        change.replace(entry, location(2));
        records[3].store(3, Ordering::Relaxed);
        keydir.change(hash(2), &guard).unwrap().insert(location(3));
    });
    assert_eq!((found(&keydir, 1), found(&keydir, 2)), (Some(2), Some(3)));
}

fn growth_loses_nothing() {
    let keydir = keydir(3);
    let read = |keydir: &Keydir| assert_eq!(found(keydir, 3), Some(3), "a key that stays");
    // A table of four holds three.
    beside(&keydir, read, || insert(&keydir, 4));
    (1..=4).for_each(|key| assert_eq!(found(&keydir, key), Some(key)));
}

fn removal_loses_nothing_else() {
    let keydir = keydir(3);
    let read = |keydir: &Keydir| assert_eq!(found(keydir, 3), Some(3), "a key that stays");
    beside(&keydir, read, || {
        remove(&keydir, 2);
        insert_at(&keydir, 5, 5);
        remove(&keydir, 1);
    });
    let left = [1, 2, 3, 5].map(|key| found(&keydir, key));
    assert_eq!(left, [None, None, Some(3), Some(5)]);
}

fn a_copy_replaces_its_original_only() {
    let keydir = keydir(1);
    let compaction = {
        let keydir = Arc::clone(&keydir);
        thread::spawn(move || {
            let guard = pin();
            keydir.change(hash(1), &guard).unwrap().relocate(location(1), location(2))
        })
    };
    let read = |keydir: &Keydir| assert!(found(keydir, 1).is_some(), "it is always somewhere");
    beside(&keydir, read, || replace(&keydir, 1, 3));
    compaction.join().unwrap();
    assert_eq!(found(&keydir, 1), Some(3), "the copy of an older record took its place");
}

fn a_shard_is_loaded_once() {
    let keydir = Arc::new(Keydir::pending(KeyHasher::new(0), Arc::new(One), None));
    let read = |keydir: &Keydir| {
        let at = found(keydir, 1);
        assert!(matches!(at, Some(1 | 2)), "{at:?}");
    };
    beside(&keydir, read, || replace(&keydir, 1, 2));
    assert_eq!(found(&keydir, 1), Some(2), "it was loaded over a change");
}
