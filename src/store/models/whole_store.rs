//! A store beside its readers, its compaction, a disk that fails and whoever closes it: the code of
//! this crate from `KvStore` down, on a disk in memory.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use shuttle::thread;

use super::Model;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::options::{Durability, Options};
use crate::store::KvStore;
use crate::store::disk::Disk;
use crate::store::disk::modelled::{Lost, ModelledDisk};
use crate::sync::{Arc, Mutex, Ordering};
use crate::write_batch::{Write, WriteBatch};

pub(super) const ALL: &[Model] = &[
    ("publication: a batch is seen as a whole", a_batch_is_seen_as_a_whole),
    ("relocation: compaction disturbs nobody", compaction_disturbs_nobody),
    ("hand-over: every writer is served", every_writer_is_served),
    ("hand-over: in the order of a thread", what_was_handed_over_comes_first),
    ("poison: nothing is promised after a failed sync", nothing_is_promised_after_a_failed_sync),
    ("poison: a sync after a failed one fails", a_sync_after_a_failed_one_fails),
    ("close: what was acknowledged stays", what_was_acknowledged_stays),
];

const DIR: &str = "/store";

fn options(durability: Durability) -> Options {
    let options = Options::new().durability(durability).auto_compaction(false);
    options.segment_bytes_min(1 << 10).segment_bytes_max(4 << 10)
}

fn open(model: &ModelledDisk, durability: Durability) -> KvStore {
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    KvStore::open_on(&disk, DIR.into(), options(durability), &mut |_| {}).unwrap()
}

/// A store that was just made, and its disk.
fn new_store(durability: Durability) -> (ModelledDisk, KvStore) {
    let model = ModelledDisk::default();
    model.create_dir_all(Path::new(DIR)).unwrap();
    let store = open(&model, durability);
    (model, store)
}

/// Sets `key` to `n`, in a record that fills a part of a segment.
fn set(store: &KvStore, key: &str, n: u8) -> Result<()> {
    store.set_bytes(key.as_bytes(), &[n; 300])
}

fn get(store: &KvStore, key: &str) -> Option<u8> {
    let value = store.get_bytes(key.as_bytes()).unwrap()?;
    assert!(value.len() == 300 && value.iter().all(|byte| *byte == value[0]), "a torn value");
    Some(value[0])
}

/// Two keys that are written together are read one after the other: the second is no older.
fn a_batch_is_seen_as_a_whole() {
    const REMOVED: u8 = 3;
    let (_, store) = new_store(Durability::Os);
    let write = |store: &KvStore, n: u8| {
        let mut batch = WriteBatch::new();
        for key in ["a", "b"] {
            match n {
                REMOVED => batch.remove(key.as_bytes()),
                n => batch.set(key.as_bytes(), &[n; 300]),
            };
        }
        store.apply(&batch).unwrap();
    };
    write(&store, 1);
    let writer = {
        let store = store.clone();
        thread::spawn(move || [2, REMOVED].into_iter().for_each(|n| write(&store, n)))
    };
    let reader = {
        let store = store.clone();
        thread::spawn(move || {
            for keys in [["a", "b"], ["b", "a"]] {
                let [first, second] = keys.map(|key| get(&store, key).unwrap_or(REMOVED));
                assert!(first <= second, "half of a batch: {keys:?} are {first} and {second}");
            }
        })
    };
    writer.join().unwrap();
    reader.join().unwrap();
    assert_eq!((get(&store, "a"), get(&store, "b")), (None, None));
}

/// Keys that stay are always found, what was written is read, and what was removed stays away, in
/// this process and in the next.
fn compaction_disturbs_nobody() {
    let (model, store) = new_store(Durability::Os);
    // Beside a dead record each, so that they are copied.
    for (n, key) in ["stays", "dead", "changes", "goes", "dead", "dead"].into_iter().enumerate() {
        set(&store, key, u8::try_from(n).unwrap()).unwrap();
    }
    let compaction = {
        let store = store.clone();
        thread::spawn(move || store.compact().unwrap())
    };
    let reader = {
        let store = store.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                assert_eq!(get(&store, "stays"), Some(0), "a key that stays was missed");
            }
        })
    };
    set(&store, "changes", 9).unwrap();
    assert_eq!(get(&store, "changes"), Some(9), "a write that had returned is not read");
    store.remove_bytes(b"goes").unwrap();
    assert_eq!(get(&store, "goes"), None, "a removed key is back");
    compaction.join().unwrap();
    reader.join().unwrap();
    let content = |store: &KvStore| ["stays", "changes", "goes", "dead"].map(|key| get(store, key));
    let expected = [Some(0), Some(9), None, Some(5)];
    assert_eq!(content(&store), expected);
    store.close().unwrap();
    drop(store);
    assert_eq!(content(&open(&model, Durability::Os)), expected);
}

/// Threads that wait for their writes and writes that nobody waits for share the lead: all are
/// done, and durable when they return.
fn every_writer_is_served() {
    let (model, store) = new_store(Durability::Sync);
    let is_done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|key| {
            let store = store.clone();
            thread::spawn(move || {
                set(&store, key, 1).unwrap();
                set(&store, key, 2).unwrap();
                assert_eq!(get(&store, key), Some(2), "a write that had returned is not read");
            })
        })
        .collect();
    let write = Write::Set { key: b"c".to_vec(), value: vec![3; 300] };
    let raised = Arc::clone(&is_done);
    // SeqCst: of the test alone.
    let done = move |outcome: Result<()>| {
        outcome.unwrap();
        raised.store(true, Ordering::SeqCst);
    };
    store.write_then(write, Box::new(done));
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    store.close().unwrap();
    assert!(is_done.load(Ordering::SeqCst), "a write that was handed over was forgotten");
    drop(store);
    model.record();
    let moments = model.moments();
    let left = moments.last().unwrap().after_power_loss(|_| false);
    let store = open(&left, Durability::Sync);
    assert_eq!(["a", "b", "c"].map(|key| get(&store, key)), [Some(2), Some(2), Some(3)]);
}

/// A thread hands over a write and then writes the same key: it is the second that stays.
fn what_was_handed_over_comes_first() {
    let (model, store) = new_store(Durability::Sync);
    let write = Write::Set { key: b"a".to_vec(), value: vec![1; 300] };
    store.write_then(write, Box::new(|outcome| outcome.unwrap()));
    set(&store, "a", 2).unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(get(&open(&model, Durability::Sync), "a"), Some(2), "the second came first");
}

/// From a failed sync on, every write fails that begins after somebody was told; what had been
/// acknowledged survives a loss of power; reads go on.
fn nothing_is_promised_after_a_failed_sync() {
    let (model, store) = new_store(Durability::Sync);
    set(&store, "a", 1).unwrap();
    model.fail_next_sync(Lost::Unseen);
    let has_failed = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(vec![("a", 1)]));
    let writers: Vec<_> = ["b", "c"]
        .into_iter()
        .map(|key| {
            let store = store.clone();
            let (has_failed, acknowledged) = (Arc::clone(&has_failed), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for n in [1, 2] {
                    // SeqCst: of the test alone.
                    let must_fail = has_failed.load(Ordering::SeqCst);
                    match set(&store, key, n) {
                        Ok(()) => {
                            assert!(!must_fail, "a write after a failed sync was acknowledged");
                            acknowledged.lock().push((key, n));
                        }
                        Err(_) => has_failed.store(true, Ordering::SeqCst),
                    }
                }
                assert_eq!(get(&store, "a"), Some(1));
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(has_failed.load(Ordering::SeqCst), "the failed sync was told to nobody");
    assert!(matches!(set(&store, "d", 1), Err(KvsError::Poisoned)));
    let closed = store.close();
    assert!(matches!(closed, Err(KvsError::Poisoned)), "{closed:?}");
    drop(store);
    model.record();
    let left = model.moments().last().unwrap().after_power_loss(|_| false);
    let store = open(&left, Durability::Sync);
    for (key, n) in &*acknowledged.lock() {
        assert!(get(&store, key) >= Some(*n), "{key} = {n} was acknowledged and is lost");
    }
}

/// Of two threads that sync, one fails, and the kernel takes what it was to write for clean: the
/// other must not be told that it is durable.
///
/// It found that the one who had waited was told just that: the lane was let go before the writer
/// was poisoned.
fn a_sync_after_a_failed_one_fails() {
    let (model, store) = new_store(Durability::Os);
    model.fail_next_sync(Lost::Unseen);
    let writers = ["a", "b"].map(|key| {
        let store = store.clone();
        thread::spawn(move || {
            // The other may have failed already.
            let written = set(&store, key, 1).and_then(|()| store.sync());
            written.is_ok().then_some(key)
        })
    });
    let durable: Vec<_> = writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect();
    assert!(matches!(store.sync(), Err(KvsError::Poisoned)));
    drop(store);
    model.record();
    let left = model.moments().last().unwrap().after_power_loss(|_| false);
    let store = open(&left, Durability::Os);
    for key in durable {
        assert_eq!(get(&store, key), Some(1), "{key} was synced and is lost");
    }
}

/// A store that is closed by two threads while others use it: everybody is told, nobody waits for
/// ever, and what was acknowledged is there at the next open.
fn what_was_acknowledged_stays() {
    let (model, store) = new_store(Durability::Os);
    set(&store, "read", 7).unwrap();
    let writer = {
        let store = store.clone();
        thread::spawn(move || {
            let mut last = 0;
            for n in 1..=3 {
                match set(&store, "written", n) {
                    Ok(()) => last = n,
                    Err(KvsError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            last
        })
    };
    let closer = {
        let store = store.clone();
        thread::spawn(move || store.close().unwrap())
    };
    match store.get_bytes(b"read") {
        Ok(value) => assert_eq!(value.unwrap()[0], 7),
        Err(KvsError::Closed) => {}
        Err(error) => panic!("{error}"),
    }
    store.close().unwrap();
    assert!(matches!(set(&store, "late", 1), Err(KvsError::Closed)));
    let last = writer.join().unwrap();
    closer.join().unwrap();
    drop(store);
    let store = open(&model, Durability::Os);
    assert!(get(&store, "written").unwrap_or(0) >= last, "write {last} is lost");
    assert_eq!(get(&store, "late"), None);
}
