//! A store that two threads use for a moment: publication, relocation, the hand-over of the lead,
//! poison and closing, with so little at work that all orders can be tried.
//!
//! Appends go straight to the log: the tail has a model of its own. The disk in memory is behind a
//! lock, so whoever reads a record has seen what was written before it: that the index publishes
//! records by itself, the models of the index say.

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Model;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::options::{Durability, Options, WriteMode};
use crate::store::KvStore;
use crate::store::disk::Disk;
use crate::store::disk::modelled::{Lost, ModelledDisk};
use crate::sync::{Arc, Ordering};
use crate::write_batch::{Write, WriteBatch};

pub(super) const ALL: &[Model] = &[
    ("publication: two keys of a batch", two_keys_of_a_batch),
    ("publication: two removed keys of a batch", two_removed_keys_of_a_batch),
    ("relocation: removals beside compaction", removals_beside_compaction),
    ("relocation: reads beside compaction", reads_beside_compaction),
    ("hand-over: two writers", two_writers),
    ("hand-over: a writer and a write that nobody waits for", a_writer_and_a_write_handed_over),
    ("poison: two syncs, one of which fails", two_syncs_one_of_which_fails),
    ("close: a write beside it", a_write_beside_close),
    ("close: a write that nobody waits for", a_write_handed_over_before_close),
];

const DIR: &str = "/store";

fn open(model: &ModelledDisk, durability: Durability) -> KvStore {
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let options = Options::new().durability(durability).write_mode(WriteMode::Direct);
    let options = options.auto_compaction(false);
    KvStore::open_on(&disk, DIR.into(), options, &mut |_| {}).unwrap()
}

/// A store that was just made and holds `content`, and its disk.
fn store_of(content: &[(&str, u8)], durability: Durability) -> (ModelledDisk, KvStore) {
    let model = ModelledDisk::default();
    model.create_dir_all(Path::new(DIR)).unwrap();
    let store = open(&model, durability);
    content.iter().for_each(|(key, n)| set(&store, key, *n).unwrap());
    (model, store)
}

fn set(store: &KvStore, key: &str, n: u8) -> Result<()> {
    store.set_bytes(key.as_bytes(), &[n])
}

fn get(store: &KvStore, key: &str) -> Option<u8> {
    store.get_bytes(key.as_bytes()).unwrap().map(|value| value[0])
}

/// Runs `work` in a thread of its own.
fn beside<R: Send + 'static>(
    store: &KvStore,
    work: impl FnOnce(&KvStore) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let store = store.clone();
    thread::spawn(move || work(&store))
}

/// What a loss of power at this moment leaves, with nothing that was not synced.
fn after_power_loss(model: &ModelledDisk) -> ModelledDisk {
    model.record();
    model.moments().last().unwrap().after_power_loss(|_| false)
}

/// Reads one key, the other, and the first again: which of them the index learns of first is the
/// writer's business.
fn read_in_turn(store: &KvStore) -> [Option<u8>; 3] {
    ["b", "a", "b"].map(|key| get(store, key))
}

/// Of two keys that are written together, the one that is read last is no older.
fn two_keys_of_a_batch() {
    let (_, store) = store_of(&[("a", 1), ("b", 1)], Durability::Os);
    let reader = beside(&store, |store| {
        let found = read_in_turn(store);
        assert!(found.is_sorted(), "half of a batch: {found:?}");
    });
    let mut batch = WriteBatch::new();
    batch.set(b"a", &[2]).set(b"b", &[2]);
    store.apply(&batch).unwrap();
    assert_eq!((get(&store, "a"), get(&store, "b")), (Some(2), Some(2)));
    reader.join().unwrap();
}

/// Of two keys that are removed together, the one that is read last is not there if the first was
/// not.
fn two_removed_keys_of_a_batch() {
    let (_, store) = store_of(&[("a", 1), ("b", 1)], Durability::Os);
    let reader = beside(&store, |store| {
        let found = read_in_turn(store);
        assert!(found.iter().rev().is_sorted(), "half of a batch: {found:?}");
    });
    let mut batch = WriteBatch::new();
    batch.remove(b"a").remove(b"b");
    store.apply(&batch).unwrap();
    assert_eq!((get(&store, "a"), get(&store, "b")), (None, None));
    reader.join().unwrap();
}

/// A store whose log is sealed and holds `keys` and a dead record, so that it is to be compacted.
fn store_to_compact(keys: &[&str]) -> (ModelledDisk, KvStore) {
    let (model, store) = store_of(&[("stays", 1)], Durability::Os);
    keys.iter().for_each(|key| set(&store, key, 1).unwrap());
    store.core.writer.seal_active().unwrap();
    set(&store, "stays", 2).unwrap();
    (model, store)
}

/// Compacts what is sealed. `KvsEngine::compact` would seal first, and wait for the lane.
fn compact_sealed(store: &KvStore) {
    let core = &store.core;
    let sync_log = || core.writer.sync_sealed();
    core.compactor.compact_all(&sync_log, &|| false, &mut |_| {}).unwrap();
}

/// What is removed stays away, in this process and in the next, wherever compaction is at that
/// moment: all of it may happen between two steps of the writer, who has learnt where the record
/// is and then finds no segment there.
///
/// The writer did not look again then, as readers did: a remove answered "key not found" for a key
/// that was there, and a batch left its removal out.
fn removals_beside_compaction() {
    // Each is a chance for shuttle.
    const KEYS: &[&str] =
        if cfg!(loom) { &["a"] } else { &["a", "b", "c", "d", "e", "f", "g", "h"] };
    let (model, store) = store_to_compact(KEYS);
    let compaction = beside(&store, compact_sealed);
    let mut batch = WriteBatch::new();
    for key in KEYS {
        batch.remove(key.as_bytes());
    }
    store.apply(&batch).unwrap();
    compaction.join().unwrap();
    let left = |store: &KvStore| KEYS.iter().filter(|key| get(store, key).is_some()).count();
    assert_eq!((left(&store), store.len().unwrap()), (0, 1), "a removed key is there");
    drop(store);
    let store = open(&model, Durability::Os);
    assert_eq!((left(&store), get(&store, "stays")), (0, Some(2)), "a removed key is back");
}

/// A key that stays is found, wherever compaction is at that moment.
fn reads_beside_compaction() {
    // Each is a chance for shuttle.
    const READS: usize = if cfg!(loom) { 1 } else { 16 };
    let (_, store) = store_to_compact(&["a"]);
    let compaction = beside(&store, compact_sealed);
    for _ in 0..READS {
        assert_eq!(get(&store, "a"), Some(1), "a key that stays was missed");
    }
    compaction.join().unwrap();
}

/// Whoever finds a leader is served by it, or leads next; each reads what it wrote.
fn two_writers() {
    let (model, store) = store_of(&[], Durability::Os);
    let write = |store: &KvStore, key: &str| {
        set(store, key, 1).unwrap();
        assert_eq!(get(store, key), Some(1), "a write that had returned is not read");
    };
    let other = beside(&store, move |store| write(store, "b"));
    write(&store, "a");
    other.join().unwrap();
    assert_eq!(store.len().unwrap(), 2);
    drop(store);
    let store = open(&model, Durability::Os);
    assert_eq!((get(&store, "a"), get(&store, "b")), (Some(1), Some(1)));
}

/// Hands a write of "h" over; what is returned is true when it is done.
fn hand_over(store: &KvStore) -> Arc<AtomicBool> {
    let is_done = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&is_done);
    let write = Write::Set { key: b"h".to_vec(), value: vec![1] };
    // SeqCst: of the test alone.
    let done = move |outcome: Result<()>| {
        outcome.unwrap();
        raised.store(true, Ordering::SeqCst);
    };
    store.write_then(write, Box::new(done));
    is_done
}

/// A write that nobody waits for is done by whoever leads, or by the thread that is there for it.
fn a_writer_and_a_write_handed_over() {
    let (model, store) = store_of(&[], Durability::Sync);
    let other = beside(&store, |store| set(store, "a", 1).unwrap());
    let is_done = hand_over(&store);
    other.join().unwrap();
    store.close().unwrap();
    assert!(is_done.load(Ordering::SeqCst), "a write that was handed over was forgotten");
    drop(store);
    let store = open(&after_power_loss(&model), Durability::Os);
    assert_eq!((get(&store, "a"), get(&store, "h")), (Some(1), Some(1)));
}

/// The kernel takes what a failed sync was to write for clean: whoever syncs after that, or has
/// waited meanwhile, is not told that it is durable.
fn two_syncs_one_of_which_fails() {
    let (model, store) = store_of(&[], Durability::Os);
    model.fail_next_sync(Lost::Unseen);
    // The other may have failed already.
    let write = |store: &KvStore, key: &'static str| {
        set(store, key, 1).and_then(|()| store.sync()).is_ok().then_some(key)
    };
    let other = beside(&store, move |store| write(store, "b"));
    let durable = [write(&store, "a"), other.join().unwrap()];
    assert!(matches!(set(&store, "c", 1), Err(KvsError::Poisoned)));
    assert!(matches!(store.sync(), Err(KvsError::Poisoned)));
    drop(store);
    let store = open(&after_power_loss(&model), Durability::Os);
    for key in durable.into_iter().flatten() {
        assert_eq!(get(&store, key), Some(1), "{key} was synced and is lost");
    }
}

/// A write beside `close` is done, and there after it, or is told that the store is closed.
fn a_write_beside_close() {
    let (model, store) = store_of(&[], Durability::Os);
    let writer = beside(&store, |store| match set(store, "a", 1) {
        Ok(()) => true,
        Err(KvsError::Closed) => false,
        Err(error) => panic!("{error}"),
    });
    store.close().unwrap();
    assert!(matches!(set(&store, "late", 1), Err(KvsError::Closed)));
    // All that is there is durable, also what the other thread has not been told of yet.
    let left = after_power_loss(&model);
    let is_written = writer.join().unwrap();
    drop(store);
    let store = open(&left, Durability::Os);
    assert_eq!(get(&store, "a").is_some(), is_written, "what was told is not what is there");
    assert_eq!(get(&store, "late"), None);
}

/// A write that was handed over is done before `close` returns.
fn a_write_handed_over_before_close() {
    let (model, store) = store_of(&[], Durability::Sync);
    let is_done = hand_over(&store);
    store.close().unwrap();
    assert!(is_done.load(Ordering::SeqCst), "a write that was handed over was forgotten");
    drop(store);
    let store = open(&after_power_loss(&model), Durability::Os);
    assert_eq!(get(&store, "h"), Some(1));
}
