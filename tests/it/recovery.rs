//! Recovery: what a crash may leave, and what damage must not be mistaken for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kvs::{Durability, KvStore, KvsEngine, KvsError, Options, ReadMode, WriteBatch, WriteMode};

use crate::store::tiny_segments;

/// Everything is in the logs, where it can be bent: what a tail adds is in `tail.rs`.
fn options() -> Options {
    Options::new().durability(Durability::Os).write_mode(WriteMode::Direct).auto_compaction(false)
}

/// The segment files of a store, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = files(dir, "seg-");
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files
}

pub(crate) fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

/// Copies a store as a crash would leave it: without closing it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn contents(store: &KvStore, keys: u32) -> BTreeMap<u32, Vec<u8>> {
    let get = |i: u32| Some((i, store.get_bytes(&i.to_be_bytes()).unwrap()?.to_vec()));
    (0..keys).filter_map(get).collect()
}

/// A directory in memory where there is one: thousands of opens, each with its syncs.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A store with one finished record, whose log was never closed. Returns its directory and the
/// length of the log.
fn with_one_record() -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    store.set_bytes(b"old", b"kept").unwrap();
    copy(&live, &dir.path().join("crashed"));
    let len = std::fs::metadata(&segments(&live)[0]).unwrap().len();
    (dir, len)
}

/// Each row is a tail that a crash can leave. All must open, and none may cost an older record.
#[test]
fn torn_tail_is_cut_and_older_records_survive() {
    // What a second record looks like at its place: the log of a store that has it.
    let (dir, len) = with_one_record();
    let whole = {
        let store = KvStore::open_with(dir.path().join("two"), options()).unwrap();
        store.set_bytes(b"old", b"kept").unwrap();
        store.set_bytes(b"new", b"value").unwrap();
        let bytes = std::fs::read(&segments(&dir.path().join("two"))[0]).unwrap();
        bytes[len as usize..].to_vec()
    };
    for (name, tail) in [
        ("nothing", vec![]),
        ("one byte", whole[..1].to_vec()),
        ("half a header", whole[..12].to_vec()),
        ("a header only", whole[..24].to_vec()),
        ("all but one byte", whole[..whole.len() - 1].to_vec()),
        ("a record of another log", whole.clone()),
        ("zeros", vec![0; 4096]),
        ("zeros, then bytes", [vec![0; 4096], whole.clone()].concat()),
        ("ones", vec![0xFF; 333]),
    ] {
        let (dir, len) = with_one_record();
        let crashed = dir.path().join("crashed");
        let log = &segments(&crashed)[0];
        let mut bytes = std::fs::read(log).unwrap();
        assert_eq!(bytes.len() as u64, len);
        bytes.extend_from_slice(&tail);
        std::fs::write(log, &bytes).unwrap();

        let store = KvStore::open_with(&crashed, options()).unwrap();
        assert_eq!(store.get_bytes(b"old").unwrap().unwrap(), *b"kept", "{name}");
        assert_eq!(store.len().unwrap(), 1, "{name}");
        // Zeros may be room for what was to come.
        let is_torn = tail.iter().any(|byte| *byte != 0);
        assert_eq!(store.stats().crash_tails_cut, u64::from(is_torn), "{name}");
        store.set_bytes(b"newer", b"1").unwrap();
        drop(store);
        if is_torn {
            let kept = files(&crashed.join("lost+found"), "seg-").pop().unwrap();
            assert_eq!(std::fs::read(kept).unwrap(), tail, "{name}: the tail is kept");
        }
        let store = KvStore::open_with(&crashed, options()).unwrap();
        assert_eq!(store.len().unwrap(), 2, "{name}: writing went on");
        assert_eq!(store.stats().crash_tails_cut, 0, "{name}: cut once");
    }
}

/// The log of an unclosed store, cut at every byte: the state is always a prefix of the writes, and
/// a batch is there whole or not at all.
#[test]
fn truncation_at_every_byte_leaves_a_prefix_of_the_writes() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = fast_dir();
        let live = dir.path().join("live");
        let store = KvStore::open_with(&live, options()).unwrap();
        let mut states = vec![BTreeMap::new()];
        for i in 0..12_u32 {
            match i % 4 {
                3 => store.remove_bytes(&(i - 1).to_be_bytes()).unwrap(),
                2 => {
                    let mut batch = WriteBatch::new();
                    batch.set(&i.to_be_bytes(), b"batch").set(&(i + 100).to_be_bytes(), b"batch");
                    batch.remove(&(i - 1).to_be_bytes());
                    store.apply(&batch).unwrap();
                }
                _ => store.set_bytes(&i.to_be_bytes(), &vec![7; i as usize * 5]).unwrap(),
            }
            states.push(contents(&store, 200));
        }
        let log = std::fs::read(&segments(&live)[0]).unwrap();
        let mut at_state = 0;
        for len in 0..=log.len() {
            let crashed = dir.path().join("crashed");
            copy(&live, &crashed);
            std::fs::write(&segments(&crashed)[0], &log[..len]).unwrap();
            let store = KvStore::open_with(&crashed, options().read_mode(read_mode)).unwrap();
            let found = contents(&store, 200);
            let position = states.iter().position(|state| *state == found);
            let position = position.unwrap_or_else(|| panic!("cut at {len}: {found:?}"));
            assert!(position >= at_state, "cut at {len}: more bytes, fewer writes");
            at_state = position;
            drop(store);
            std::fs::remove_dir_all(&crashed).unwrap();
        }
        assert_eq!(at_state, states.len() - 1, "the whole log has every write");
    }
}

/// A value that goes bad while the store is open is reported, not returned; the others stay.
#[test]
fn a_record_that_goes_bad_is_reported_by_the_read() {
    use std::os::unix::fs::FileExt;

    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(dir.path(), options().read_mode(read_mode)).unwrap();
        store.set_bytes(b"good", b"stays").unwrap();
        store.set_bytes(b"bad", b"unique-bytes").unwrap();
        let log = &segments(dir.path())[0];
        let bytes = std::fs::read(log).unwrap();
        let at = bytes.windows(12).position(|window| window == b"unique-bytes").unwrap();
        let file = std::fs::File::options().write(true).open(log).unwrap();
        file.write_all_at(b"X", at as u64 + 3).unwrap();
        match store.get_bytes(b"bad") {
            Err(KvsError::Corrupt { path, offset, .. }) => {
                assert_eq!(&path, log);
                assert!(offset < at as u64 && offset > at as u64 - 64);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.get_bytes(b"good").unwrap().unwrap(), *b"stays");
        // Its key, too: a lookup must not take a damaged key for another one's.
        file.write_all_at(b"Y", at as u64 - 1).unwrap();
        assert!(matches!(store.get_bytes(b"bad"), Err(KvsError::Corrupt { .. })));
        // A new value heals it.
        store.set_bytes(b"bad", b"new").unwrap();
        assert_eq!(store.get_bytes(b"bad").unwrap().unwrap(), *b"new");
    }
}

/// After a sync the next write says so in the log: a hole below is damage, not a crash.
#[test]
fn a_hole_below_the_durable_mark_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let crashed = dir.path().join("crashed");
    let store = KvStore::open_with(&live, options()).unwrap();
    store.set_bytes(b"first", b"durable-value").unwrap();
    store.sync().unwrap();
    store.set_bytes(b"second", b"later").unwrap();
    copy(&live, &crashed);
    let log = segments(&crashed)[0].clone();
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(13).position(|window| window == b"durable-value").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    match KvStore::open_with(&crashed, options()) {
        Err(KvsError::Corrupt { path, .. }) => assert_eq!(path, log),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2_u32 {
        let store = KvStore::open_with(dir.path(), options()).unwrap();
        store.set_bytes(&round.to_be_bytes(), b"v").unwrap();
    }
    // The second open listed the first log.
    let first = segments(dir.path())[0].clone();
    let bytes = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    match KvStore::open_with(dir.path(), options()) {
        Err(KvsError::Corrupt { path, .. }) => assert_eq!(path, first),
        other => panic!("{other:?}"),
    }
    std::fs::write(&first, bytes).unwrap();
    assert_eq!(KvStore::open_with(dir.path(), options()).unwrap().len().unwrap(), 2);
}

/// Of the same length, so that nothing else tells it apart.
#[test]
fn a_segment_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ours", "theirs"] {
        for round in 0..2_u32 {
            let store = KvStore::open_with(dir.path().join(name), options()).unwrap();
            store.set_bytes(&round.to_be_bytes(), &name.as_bytes()[..4]).unwrap();
        }
    }
    let ours = segments(&dir.path().join("ours"))[0].clone();
    std::fs::copy(&segments(&dir.path().join("theirs"))[0], &ours).unwrap();
    match KvStore::open_with(dir.path().join("ours"), options()) {
        Err(KvsError::Corrupt { path, what, .. }) => {
            assert_eq!(path, ours);
            assert_eq!(what, "the segment belongs to another store");
        }
        other => panic!("{other:?}"),
    }
}

/// A process that died between creating a segment file and writing its header leaves an empty one.
#[test]
fn an_empty_segment_file_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, tiny_segments().auto_compaction(false)).unwrap();
    for i in 0..100_u32 {
        store.set_bytes(&i.to_be_bytes(), &[1; 100]).unwrap();
    }
    let expected = contents(&store, 100);
    let count = segments(&live).len() as u32;
    assert!(count > 3);
    // Zeros are what a disk leaves where a header was never written.
    for (name, bytes) in [("empty", vec![]), ("cut", vec![b'k'; 9]), ("zeros", vec![0; 4096])] {
        let crashed = dir.path().join(name);
        copy(&live, &crashed);
        std::fs::write(crashed.join(format!("seg-{:010}.log", count + 1)), bytes).unwrap();
        let store = KvStore::open_with(&crashed, tiny_segments()).unwrap();
        assert_eq!(contents(&store, 100), expected, "{name}");
    }
}

/// Seqnos and segment ids go on where they were, even when everything was compacted away: a new
/// write must outrank whatever may lie around.
#[test]
fn an_emptied_store_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5_u32 {
        let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
        assert_eq!(store.len().unwrap(), 0, "round {round}");
        for i in 0..100_u32 {
            store.set_bytes(&i.to_be_bytes(), &[9; 90]).unwrap();
        }
        for i in 0..100_u32 {
            store.remove_bytes(&i.to_be_bytes()).unwrap();
        }
        store.compact().unwrap();
        assert_eq!(store.stats().tombstone_bytes, 0);
    }
    let names: Vec<_> = segments(dir.path());
    assert!(names.len() <= 1, "{names:?}");
}
