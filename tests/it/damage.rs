//! Damage, and files that are missing: the right value, or an error that names the file. Caches may
//! go at any time: they change how long an open takes, never what it finds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kvs::{CompareAndSwap, KvStore, KvsEngine, KvsError, Options, Scan};

use crate::recovery::{copy, fast_dir, files, segments};
use crate::store::tiny_segments;

type Content = BTreeMap<u32, Vec<u8>>;

const KEYS: u32 = 60;

fn options() -> Options {
    tiny_segments().auto_compaction(false)
}

fn hints(dir: &Path) -> Vec<PathBuf> {
    let mut files = files(dir, "seg-");
    files.retain(|path| path.extension().is_some_and(|extension| extension == "hint"));
    files
}

fn remove_hints(dir: &Path) {
    for hint in hints(dir) {
        std::fs::remove_file(hint).unwrap();
    }
}

/// A closed store: keys of every age, overwritten, removed, and moved by compaction.
fn closed_store(dir: &Path) -> Content {
    let store = KvStore::open_with(dir, options()).unwrap();
    let mut expected = Content::new();
    let mut set = |store: &KvStore, i: u32, version: u8| {
        store.set_bytes(&i.to_be_bytes(), &[version; 80]).unwrap();
        expected.insert(i, vec![version; 80]);
    };
    for i in 0..KEYS {
        set(&store, i, 1);
    }
    for i in (0..KEYS).step_by(2) {
        set(&store, i, 2);
    }
    store.compact().unwrap();
    for i in (0..KEYS).step_by(3) {
        set(&store, i, 3);
    }
    for i in (0..KEYS).step_by(7) {
        store.remove_bytes(&i.to_be_bytes()).unwrap();
        expected.remove(&i);
    }
    store.close().unwrap();
    expected
}

/// Every key is what it was, or its read says what is damaged, in a file below `dir`; then how many
/// are. `what` says what was done to the store.
#[track_caller]
fn check_right_or_reported(dir: &Path, expected: &Content, what: &str) -> usize {
    let check_named = |error: &KvsError| match error {
        KvsError::Corrupt { path, .. } | KvsError::UnsupportedFormat { path, .. } => {
            assert!(path.starts_with(dir), "{what}: {}", path.display());
        }
        other => panic!("{what}: {other:?}"),
    };
    let store = match KvStore::open_with(dir, options()) {
        Ok(store) => store,
        Err(error) => {
            check_named(&error);
            return usize::try_from(KEYS).unwrap();
        }
    };
    let mut reported = 0;
    for key in 0..KEYS {
        match store.get_bytes(&key.to_be_bytes()) {
            Ok(found) => assert_eq!(found.as_deref(), expected.get(&key).map(|v| &v[..]), "{what}"),
            Err(error) => {
                check_named(&error);
                reported += 1;
            }
        }
    }
    reported
}

/// With its hint, a damaged record is known to be this key's and no other's. Without, an older or a
/// missing record proves nothing; what was written later is certain still.
#[test]
fn every_flipped_byte_is_right_or_reported() {
    let dir = fast_dir();
    let (clean, bent) = (dir.path().join("clean"), dir.path().join("bent"));
    let expected = closed_store(&clean);
    for with_hints in [true, false] {
        let mut worst = 0;
        for file in segments(&clean).iter().chain(&files(&clean, "MANIFEST-")) {
            let name = file.file_name().unwrap();
            let bytes = std::fs::read(file).unwrap();
            // Without hints each open makes them anew: every third byte.
            for at in (0..bytes.len()).step_by(if with_hints { 1 } else { 3 }) {
                copy(&clean, &bent);
                if !with_hints {
                    remove_hints(&bent);
                }
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                std::fs::write(bent.join(name), &flipped).unwrap();
                let what = format!("{name:?} byte {at}, hints: {with_hints}");
                let reported = check_right_or_reported(&bent, &expected, &what);
                if at >= 64 && name.to_str().unwrap().starts_with("seg-") {
                    worst = worst.max(reported);
                }
                std::fs::remove_dir_all(&bent).unwrap();
            }
        }
        if with_hints {
            assert_eq!(worst, 1, "one damaged record is one key that cannot be read");
        }
    }
}

/// Any of them may go, be torn or belong to another segment.
#[test]
fn hints_change_no_result() {
    let dir = fast_dir();
    let (clean, bent) = (dir.path().join("clean"), dir.path().join("bent"));
    let expected = closed_store(&clean);
    let names: Vec<_> =
        hints(&clean).iter().map(|hint| hint.file_name().unwrap().to_owned()).collect();
    assert!((3..10).contains(&names.len()), "{names:?}");
    assert_eq!(names.len(), segments(&clean).len(), "each segment has one after a close");
    for subset in 0..1_u32 << names.len() {
        for way in ["removed", "cut", "foreign"] {
            copy(&clean, &bent);
            for (index, name) in names.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1) {
                let hint = bent.join(name);
                let other = clean.join(&names[(index + 1) % names.len()]);
                match way {
                    "removed" => std::fs::remove_file(&hint).unwrap(),
                    "cut" => {
                        let bytes = std::fs::read(&hint).unwrap();
                        std::fs::write(&hint, &bytes[..bytes.len() - 10]).unwrap();
                    }
                    _ => drop(std::fs::copy(other, &hint).unwrap()),
                }
            }
            let what = format!("hints {subset:b} {way}");
            assert_eq!(check_right_or_reported(&bent, &expected, &what), 0, "{what}");
            let store = KvStore::open_with(&bent, options()).unwrap();
            assert_eq!(store.len().unwrap(), expected.len() as u64, "{what}");
            drop(store);
            assert_eq!(hints(&bent).len(), names.len(), "{what}: they are made again");
            std::fs::remove_dir_all(&bent).unwrap();
        }
    }
}

/// A hint whose head is right and whose content is not is met when its part is read, by then in the
/// middle of a lookup.
#[test]
fn every_flipped_byte_of_a_hint_changes_no_result() {
    let dir = fast_dir();
    let (clean, bent) = (dir.path().join("clean"), dir.path().join("bent"));
    let expected = closed_store(&clean);
    let hint = &hints(&clean)[0];
    let bytes = std::fs::read(hint).unwrap();
    for at in 0..bytes.len() {
        copy(&clean, &bent);
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(bent.join(hint.file_name().unwrap()), flipped).unwrap();
        let what = format!("hint byte {at}");
        assert_eq!(check_right_or_reported(&bent, &expected, &what), 0, "{what}");
        std::fs::remove_dir_all(&bent).unwrap();
    }
}

/// Without a hint nobody knows whose record was in a hole. Keys that were written later are
/// certain; of every other key the hole might have held the last write. Writing heals, compaction
/// goes on.
#[test]
fn a_hole_puts_in_doubt_what_it_may_have_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    let set = |i: u32| store.set_bytes(&i.to_be_bytes(), &[7; 80]).unwrap();
    (0..40).for_each(set);
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    (30..80).for_each(|i: u32| store.set_bytes(&i.to_be_bytes(), &[8; 80]).unwrap());
    store.close().unwrap();
    drop(store);
    remove_hints(dir.path());
    // The header of the first record of all, so that not even its length is known.
    let first = &segments(dir.path())[0];
    let mut bytes = std::fs::read(first).unwrap();
    bytes[64 + 9] ^= 1;
    std::fs::write(first, &bytes).unwrap();

    let store = KvStore::open_with(dir.path(), options()).unwrap();
    let get = |i: u32| store.get_bytes(&i.to_be_bytes());
    for i in [0, 80, 1000] {
        match get(i) {
            Err(KvsError::Corrupt { path, offset: 64, .. }) => assert_eq!(&path, first),
            other => panic!("{i}: {other:?}"),
        }
    }
    (1..80).for_each(|i| assert_eq!(get(i).unwrap().unwrap()[0], if i < 30 { 7 } else { 8 }));
    // What depends on the doubtful state is refused; what does not, is done and heals the key.
    let doubtful = 0_u32.to_be_bytes();
    assert!(matches!(store.remove_bytes(&doubtful), Err(KvsError::Corrupt { .. })));
    assert!(matches!(store.swap(&doubtful, Some(b"x")), Err(KvsError::Corrupt { .. })));
    store.set_bytes(&doubtful, b"new").unwrap();
    assert_eq!(get(0).unwrap().unwrap(), *b"new");
    // Compaction leaves the damaged file as it is, and goes on with the others.
    store.compact().unwrap();
    assert_eq!(std::fs::read(first).unwrap(), bytes);
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    assert_eq!(store.get_bytes(&doubtful).unwrap().unwrap(), *b"new");
    assert!(matches!(store.get_bytes(&1000_u32.to_be_bytes()), Err(KvsError::Corrupt { .. })));
    assert!(!store.verify().unwrap().is_sound());
}

/// A store whose first record lost its header, and with it its key, and which has no hints. All
/// other records are newer, so each of them is certain.
fn store_with_a_hole(dir: &Path) -> KvStore {
    let store = KvStore::open_with(dir, options()).unwrap();
    (0..40_u32).for_each(|i| store.set_bytes(&i.to_be_bytes(), &[7; 80]).unwrap());
    store.close().unwrap();
    drop(store);
    remove_hints(dir);
    flip(&segments(dir)[0], 64 + 9);
    KvStore::open_with(dir, options()).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, &bytes).unwrap();
}

fn is_corrupt<T>(outcome: &kvs::Result<T>) -> bool {
    matches!(outcome, Err(KvsError::Corrupt { .. }))
}

/// Each of them lacks a key that nobody can name: one that only skipped it would pass for whole.
#[test]
fn what_shows_all_keys_says_that_one_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store_with_a_hole(dir.path());
    for round in ["written", "reopened"] {
        if round == "reopened" {
            store.close().unwrap();
            store = KvStore::open_with(dir.path(), options()).unwrap();
        }
        let views = KvStore::open_with(dir.path(), options().read_only(true)).unwrap();
        for store in [&store, &views] {
            assert!(is_corrupt(&store.len()), "{round}: {:?}", store.len());
            let all: [(&str, Vec<_>); 4] = [
                ("iter", store.iter().unwrap().collect()),
                ("scan", store.scan(Scan::all()).unwrap().collect()),
                ("keys", store.scan(Scan::all().keys_only()).unwrap().collect()),
                ("prefix", store.scan(Scan::prefix([0; 4])).unwrap().collect()),
            ];
            for (what, entries) in all {
                let damaged = entries.iter().filter(|entry| is_corrupt(*entry)).count();
                let sound = entries.len() - damaged;
                assert_eq!((sound, damaged), (if what == "prefix" { 0 } else { 39 }, 1), "{what}");
            }
            assert!(is_corrupt(&kvs::dump::dump(store, &mut Vec::new())));
        }
        store.set_bytes(&1_u32.to_be_bytes(), &[8; 80]).unwrap();
        let copy = dir.path().join(round);
        store.checkpoint(&copy).unwrap();
        let copy = KvStore::open_with(&copy, options()).unwrap();
        assert!(is_corrupt(&copy.len()) && is_corrupt(&copy.get_bytes(b"?")), "{round}");
    }
}

/// Whatever was in the hole, it is gone now.
#[test]
fn clear_ends_every_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store_with_a_hole(dir.path());
    assert!(is_corrupt(&store.get_bytes(b"?")));
    store.clear().unwrap();
    for round in ["cleared", "reopened", "compacted"] {
        assert_eq!(store.get_bytes(b"?").unwrap(), None, "{round}");
        assert_eq!(store.len().unwrap(), 0, "{round}");
        assert_eq!(store.iter().unwrap().count(), 0, "{round}");
        store.compact().unwrap();
        store.close().unwrap();
        drop(store);
        store = KvStore::open_with(dir.path(), options()).unwrap();
    }
}

/// A footer holds nobody's value, so one that is damaged puts nothing in doubt.
#[test]
fn a_damaged_footer_costs_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let (clean, bent) = (dir.path().join("clean"), dir.path().join("bent"));
    let expected = closed_store(&clean);
    for log in segments(&clean) {
        let len = std::fs::metadata(&log).unwrap().len() as usize;
        for back in 1..=40 {
            copy(&clean, &bent);
            remove_hints(&bent);
            flip(&bent.join(log.file_name().unwrap()), len - back);
            let what = format!("{} {back} bytes before its end", log.display());
            assert_eq!(check_right_or_reported(&bent, &expected, &what), 0, "{what}");
            std::fs::remove_dir_all(&bent).unwrap();
        }
    }
}

/// The key of a damaged record cannot be read, so its entry stays beside the one of a later write,
/// which counts alone.
#[test]
fn a_key_that_was_set_over_damage_is_a_key_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    (0..40_u32).for_each(|i| store.set_bytes(&i.to_be_bytes(), &[7; 80]).unwrap());
    // Counted, so that the count is written down when it is closed.
    assert_eq!(store.len().unwrap(), 40);
    store.close().unwrap();
    drop(store);
    // The key in the record of key 0, whose hint says where it is.
    flip(&segments(dir.path())[0], 64 + 24);
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    let key = 0_u32.to_be_bytes();
    assert!(is_corrupt(&store.get_bytes(&key)));
    store.set_bytes(&key, b"new").unwrap();
    let swapped = store.compare_and_swap(&key, Some(b"new"), Some(b"newer"));
    assert!(matches!(swapped, Ok(CompareAndSwap::Swapped)), "{swapped:?}");
    store.remove_bytes(&key).unwrap();
    store.set_bytes(&key, b"newest").unwrap();
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    assert_eq!(store.get_bytes(&key).unwrap().unwrap(), *b"newest");
    assert_eq!(store.len().unwrap(), 40);
    assert_eq!(store.iter().unwrap().flatten().count(), 40);
}

/// Segments without a manifest are somebody's data: no new store is begun over them.
#[test]
fn a_store_without_its_manifest_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path());
    for manifest in files(dir.path(), "MANIFEST-") {
        std::fs::remove_file(manifest).unwrap();
    }
    let before = files(dir.path(), "seg-");
    assert!(!before.is_empty());
    for options in [options(), options().create(false), options().read_only(true)] {
        match KvStore::open_with(dir.path(), options) {
            Err(KvsError::Corrupt { path, .. }) => assert!(before.contains(&path), "{path:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(files(dir.path(), "seg-"), before);
    assert!(files(dir.path(), "MANIFEST-").is_empty());
}
