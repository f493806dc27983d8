//! The mapped tail, seen from outside: what was acknowledged and is not in a log yet survives the
//! process, whatever else lies in the tail does no harm, and a host can do without.
//!
//! A copy of the directory of an open store is what `kill -9` leaves: the tail is a file, and what
//! was put into its mapping is what reading it gives.

use std::collections::BTreeMap;
use std::path::Path;

use kvs::{Durability, KvStore, KvsEngine, Options, ReadMode, WriteBatch, WriteMode, WriteOptions};

use crate::recovery::{copy, fast_dir, files, segments};
use crate::store::tiny_segments;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> Options {
    Options::new().durability(Durability::Os).auto_compaction(false)
}

fn state_of(store: &KvStore) -> State {
    let pairs = store.iter().unwrap().map(|pair| pair.unwrap());
    pairs.map(|(key, value)| (key, value.to_vec())).collect()
}

fn tail_of(dir: &Path) -> std::path::PathBuf {
    dir.join("TAIL")
}

/// Opens a copy of `live` with what `change` does to it, and compares what it holds.
#[track_caller]
fn after_kill(live: &Path, options: Options, change: impl FnOnce(&Path)) -> State {
    let dir = fast_dir();
    let left = dir.path().join("left");
    copy(live, &left);
    change(&left);
    let store = KvStore::open_with(&left, options.clone()).unwrap();
    let found = state_of(&store);
    assert!(store.verify().unwrap().is_sound());
    store.set_bytes(b"again", b"1").unwrap();
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(&left, options).unwrap();
    assert!(store.remove_bytes(b"again").is_ok());
    assert_eq!(state_of(&store), found, "it stays so");
    found
}

/// A history that ends in the tail, with every kind of write. Returns the state after each write.
fn write_history(store: &KvStore) -> Vec<State> {
    let mut states = vec![State::new()];
    for i in 0..12_u32 {
        let key = i.to_be_bytes();
        match i % 4 {
            3 => store.remove_bytes(&(i - 1).to_be_bytes()).unwrap(),
            2 => {
                let mut batch = WriteBatch::new();
                batch.set(&key, b"batch").set(&(i + 100).to_be_bytes(), b"batch");
                batch.remove(&(i - 1).to_be_bytes());
                store.apply(&batch).unwrap();
            }
            _ => store.set_bytes(&key, &vec![7; i as usize * 5]).unwrap(),
        }
        states.push(state_of(store));
    }
    states
}

/// What no system call has seen is there all the same.
#[test]
fn what_is_only_in_the_tail_survives() {
    let dir = fast_dir();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    let states = write_history(&store);
    let log = &segments(&live)[0];
    assert!(std::fs::metadata(log).unwrap().len() <= 64, "nothing but a header is in the log");
    for write_mode in [WriteMode::Tail, WriteMode::Direct] {
        let options = options().write_mode(write_mode);
        assert_eq!(after_kill(&live, options, |_| ()), states[12], "{write_mode:?}");
    }
    assert!(
        after_kill(&live, options(), |left| std::fs::remove_file(tail_of(left)).unwrap())
            .is_empty()
    );
    store.sync().unwrap();
    let found = after_kill(&live, options(), |left| std::fs::remove_file(tail_of(left)).unwrap());
    assert_eq!(found, states[12], "sync brings everything into the log");
}

/// The kernel may have been killed in the middle of a `write` of a piece: the log ends anywhere.
#[test]
fn a_log_cut_at_every_byte_goes_on_in_the_tail() {
    let dir = fast_dir();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    let states = write_history(&store);
    store.sync().unwrap();
    let log = std::fs::read(&segments(&live)[0]).unwrap();
    for len in 64..=log.len() {
        let found = after_kill(&live, options(), |left| {
            std::fs::write(&segments(left)[0], &log[..len]).unwrap();
        });
        assert_eq!(found, states[12], "cut at {len}");
    }
}

/// A tail that is torn at any byte, stale from there on or bent there: a prefix of the writes is
/// left, with everything that the log has.
#[test]
fn a_torn_or_stale_tail_leaves_a_prefix_of_the_writes() {
    let dir = fast_dir();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    // What the tail is stale with: other records at the same places, of another log.
    write_history(&store);
    store.clear().unwrap();
    store.close().unwrap();
    drop(store);
    let stale = std::fs::read(tail_of(&live)).unwrap();
    let store = KvStore::open_with(&live, options()).unwrap();
    let states = write_history(&store);
    let fresh = std::fs::read(tail_of(&live)).unwrap();
    let written = fresh.iter().zip(&stale).rposition(|(new, old)| new != old).unwrap();
    let mut reached = 0;
    for at in 0..=written + 1 {
        let torn = [&fresh[..at], &stale[at..]].concat();
        let found = after_kill(&live, options(), |left| {
            std::fs::write(tail_of(left), torn).unwrap();
        });
        let position = states.iter().rposition(|state| *state == found);
        let position = position.unwrap_or_else(|| panic!("torn at {at}: {found:?}"));
        assert!(position >= reached, "torn at {at}: more of the tail gives less");
        reached = position;
        if let Some(byte) = fresh.get(at) {
            let mut bent = fresh.clone();
            bent[at] = byte ^ 0x10;
            let found = after_kill(&live, options(), |left| {
                std::fs::write(tail_of(left), bent).unwrap();
            });
            assert!(states.contains(&found), "bent at {at}: {found:?}");
        }
    }
    assert_eq!(reached, 12, "all of the tail gives all");
}

/// Whatever lies where the tail should be: a store opens, and what its logs have is there.
#[test]
fn a_foreign_tail_is_replaced() {
    let dir = fast_dir();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    let states = write_history(&store);
    store.sync().unwrap();
    let other = dir.path().join("other");
    let store = KvStore::open_with(&other, options()).unwrap();
    store.set_bytes(b"foreign", b"record").unwrap();
    let len = std::fs::metadata(tail_of(&live)).unwrap().len();
    for bytes in [
        std::fs::read(tail_of(&other)).unwrap(),
        vec![],
        vec![0xFF; 7],
        vec![0xFF; usize::try_from(len).unwrap()],
        vec![0; 1 << 20],
    ] {
        let found = after_kill(&live, options(), |left| {
            std::fs::write(tail_of(left), bytes).unwrap();
        });
        assert_eq!(found, states[12]);
    }
}

/// The tail goes round many times, beside values that pass it by, syncs and full segments, and
/// whatever is read is what was written last.
#[test]
fn it_goes_round_and_round() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = fast_dir();
        let live = dir.path().join("live");
        let options = options().read_mode(read_mode).segment_bytes_min(1 << 20);
        let store = KvStore::open_with(&live, options.clone()).unwrap();
        let mut model = State::new();
        for i in 0..30_000_u32 {
            let key = (i % 1000).to_be_bytes();
            let len = if i % 997 == 0 { 100_000 } else { i as usize % 300 };
            let value = vec![i as u8; len];
            if i % 5000 == 4999 {
                let mut batch = WriteBatch::new();
                batch.set(&key, &value);
                store.apply_with(&batch, WriteOptions { sync: true }).unwrap();
            } else {
                store.set_bytes(&key, &value).unwrap();
            }
            model.insert(key.to_vec(), value);
            let (old, old_value) = model.iter().nth(i as usize * 7 % model.len()).unwrap();
            if i % 13 == 0 {
                assert_eq!(store.get_bytes(old).unwrap().unwrap(), **old_value, "{i}");
                assert_eq!(store.get_bytes(&key).unwrap().unwrap(), *model[&key[..]], "{i}");
            }
            if i % 7001 == 7000 {
                assert_eq!(after_kill(&live, options.clone(), |_| ()), model, "{i}");
            }
        }
        assert_eq!(state_of(&store), model);
    }
}

/// Views, checkpoints and hosts of the other mode find what a writer has acknowledged.
#[test]
fn everyone_sees_what_is_only_in_the_tail() {
    let dir = fast_dir();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    store.set_bytes(b"key", b"value").unwrap();
    let view = KvStore::open_with(&live, Options::new().read_only(true)).unwrap();
    assert_eq!(view.get_bytes(b"key").unwrap().unwrap(), *b"value");
    store.set_bytes(b"key", b"newer").unwrap();
    let view = view.refresh().unwrap();
    assert_eq!(view.get_bytes(b"key").unwrap().unwrap(), *b"newer");
    let copy = dir.path().join("copy");
    store.checkpoint(&copy).unwrap();
    assert!(!tail_of(&copy).exists(), "a checkpoint needs none");
    let checkpoint = KvStore::open(&copy).unwrap();
    assert_eq!(checkpoint.get_bytes(b"key").unwrap().unwrap(), *b"newer");
    store.close().unwrap();
    drop(store);
    let direct = options().write_mode(WriteMode::Direct);
    let store = KvStore::open_with(&live, direct).unwrap();
    assert!(!tail_of(&live).exists(), "without it, it is not left behind");
    assert_eq!(store.get_bytes(b"key").unwrap().unwrap(), *b"newer");
    store.set_bytes(b"key", b"newest").unwrap();
    assert_eq!(after_kill(&live, options(), |_| ())[&b"key"[..]], b"newest");
}

/// Where every write is synced, or the host says so, there is none; and `Stats` says which it is.
#[test]
fn only_who_needs_a_tail_has_one() {
    for (options, has_tail) in [
        (options(), true),
        (options().write_mode(WriteMode::Direct), false),
        (Options::new().durability(Durability::Sync), false),
        (tiny_segments(), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(dir.path(), options).unwrap();
        store.set_bytes(b"k", b"v").unwrap();
        assert_eq!(store.stats().has_tail, has_tail);
        assert_eq!(files(dir.path(), "TAIL").len(), usize::from(has_tail));
    }
}
