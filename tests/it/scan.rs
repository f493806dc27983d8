//! What `src/scan.rs` promises, asked of every engine: each key once, in order, whatever else goes
//! on, and never more memory or locks than a batch needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kvs::options::SEGMENT_BYTES_FLOOR;
use kvs::{Durability, Entries, KvsEngine, KvsError, Options, ReadMode, Scan, WriteBatch};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use crate::contract::{Factory, every_engine, every_engine_on_disk, promises};

every_engine! {
    keys_come_in_the_order_of_their_bytes
    range_ends_where_its_bounds_say
    prefix_of_the_largest_byte_has_no_end
    empty_range_finds_nothing_and_is_no_error
    keys_only_leaves_the_values_out
    iter_sees_every_key_once
    entries_are_shown_until_that_breaks
    scan_longer_than_a_batch_is_whole
    scan_sees_what_becomes_of_keys_it_has_not_reached
    scan_fetches_little_ahead_where_values_are_long
    every_key_can_be_removed_while_it_is_scanned
    scan_outlives_every_other_handle_and_moves_between_threads
    closed_store_is_said_once_and_ends_the_scan
    closing_lets_go_of_the_directory_though_a_scan_is_held
    keys_that_stay_are_seen_once_whatever_else_is_written
    scans_agree_with_a_map
}

type Found = Vec<(Vec<u8>, Vec<u8>)>;

#[track_caller]
fn found(entries: kvs::Result<Entries>) -> Found {
    let entry = |entry: kvs::Result<(Vec<u8>, kvs::Value)>| {
        let (key, value) = entry.unwrap();
        (key, value.into_vec())
    };
    entries.unwrap().map(entry).collect()
}

#[track_caller]
fn keys(entries: kvs::Result<Entries>) -> Vec<Vec<u8>> {
    found(entries).into_iter().map(|(key, _)| key).collect()
}

/// A store in a directory of its own that holds `keys`, each with itself as its value.
fn store_of<F: Factory>(keys: &[&[u8]]) -> (tempfile::TempDir, F::Engine) {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    for key in keys {
        store.set_bytes(key, key).unwrap();
    }
    (dir, store)
}

/// Keys at which orders and bounds go wrong, in order.
const KEYS: &[&[u8]] =
    &[b"", b"\0", b"\0\0", b"a", b"a\0", b"ab", b"a\xFF", b"b", b"\x80", b"\xFF", b"\xFF\xFF"];

fn keys_come_in_the_order_of_their_bytes<F: Factory>() {
    let mut shuffled = KEYS.to_vec();
    shuffled.rotate_left(4);
    shuffled.swap(0, 5);
    let (_dir, store) = store_of::<F>(&shuffled);
    assert_eq!(keys(store.scan(Scan::all())), KEYS);
    let mut backwards = KEYS.to_vec();
    backwards.reverse();
    assert_eq!(keys(store.scan(Scan::all().reverse())), backwards);
    for (key, value) in found(store.scan(Scan::all())) {
        assert_eq!(key, value);
    }
}

/// Every pair of bounds at, before and behind every key, in both directions.
fn range_ends_where_its_bounds_say<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    let mut bounds: Vec<Bound<&[u8]>> = vec![Bound::Unbounded];
    bounds.extend(KEYS.iter().flat_map(|key| [Bound::Included(*key), Bound::Excluded(*key)]));
    for start in &bounds {
        for end in &bounds {
            let inside = |key: &&&[u8]| {
                let after = match start {
                    Bound::Included(start) => *key >= start,
                    Bound::Excluded(start) => *key > start,
                    Bound::Unbounded => true,
                };
                let before = match end {
                    Bound::Included(end) => *key <= end,
                    Bound::Excluded(end) => *key < end,
                    Bound::Unbounded => true,
                };
                after && before
            };
            let mut expected: Vec<_> = KEYS.iter().filter(inside).copied().collect();
            let scan = Scan::range::<&[u8]>((*start, *end));
            assert_eq!(keys(store.scan(scan.clone())), expected, "{scan:?}");
            expected.reverse();
            assert_eq!(keys(store.scan(scan.clone().reverse())), expected, "{scan:?}");
        }
    }
}

fn prefix_of_the_largest_byte_has_no_end<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    for prefix in [&b""[..], b"\0", b"a", b"a\xFF", b"b", b"\xFF", b"\xFF\xFF", b"\xFF\xFF\xFF"] {
        let expected: Vec<_> = KEYS.iter().filter(|key| key.starts_with(prefix)).copied().collect();
        assert_eq!(keys(store.scan_prefix(prefix)), expected, "{prefix:?}");
    }
}

fn empty_range_finds_nothing_and_is_no_error<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    for scan in [Scan::range("b".."a"), Scan::range("a".."a"), Scan::range("".."")] {
        assert!(found(store.scan(scan.clone())).is_empty(), "{scan:?}");
        assert!(found(store.scan(scan.clone().reverse())).is_empty(), "{scan:?}");
    }
    let (_dir, store) = store_of::<F>(&[]);
    assert!(found(store.scan(Scan::all())).is_empty());
    assert!(found(store.iter()).is_empty());
}

fn keys_only_leaves_the_values_out<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    let found = found(store.scan(Scan::all().keys_only()));
    assert_eq!(found.len(), KEYS.len());
    for ((key, value), expected) in found.iter().zip(KEYS) {
        assert_eq!((key.as_slice(), value.len()), (*expected, 0));
    }
}

fn iter_sees_every_key_once<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    store.set_bytes(b"ab", b"newer").unwrap();
    store.remove_bytes(b"b").unwrap();
    let mut found = found(store.iter());
    found.sort();
    let expected = KEYS.iter().filter(|key| **key != b"b").map(|key| {
        let value = if *key == b"ab" { b"newer" } else { *key };
        (key.to_vec(), value.to_vec())
    });
    assert_eq!(found, expected.collect::<Found>());
}

/// Shown is what the iterator yields, in its order, and nothing after a break or an error.
fn entries_are_shown_until_that_breaks<F: Factory>() {
    let (_dir, store) = store_of::<F>(KEYS);
    for scan in [Scan::all(), Scan::all().reverse(), Scan::all().keys_only(), Scan::prefix("a")] {
        let expected = found(store.scan(scan.clone()));
        for wanted in 1..=expected.len() + 1 {
            let mut shown = Found::new();
            let entries = store.scan(scan.clone()).unwrap();
            let outcome = entries.try_for_each_with(|key, value| {
                shown.push((key.to_vec(), value.to_vec()));
                if shown.len() == wanted {
                    ControlFlow::Break(wanted)
                } else {
                    ControlFlow::Continue(())
                }
            });
            let is_all = wanted > expected.len();
            let ended = if is_all { ControlFlow::Continue(()) } else { ControlFlow::Break(wanted) };
            assert_eq!(outcome.unwrap(), ended, "{scan:?} {wanted}");
            assert_eq!(shown, expected[..wanted.min(expected.len())], "{scan:?} {wanted}");
        }
    }
    let mut shown = Found::new();
    let outcome = store.iter().unwrap().try_for_each_with(|key, value| {
        shown.push((key.to_vec(), value.to_vec()));
        ControlFlow::<()>::Continue(())
    });
    assert!(outcome.unwrap().is_continue());
    shown.sort_unstable();
    assert_eq!(shown, found(store.scan(Scan::all())));

    // Removed at the moment it was shown last.
    let mut count = 0;
    let outcome = store.scan(Scan::all()).unwrap().try_for_each_with(|_, _| {
        count += 1;
        store.clear().unwrap();
        ControlFlow::Break(())
    });
    assert_eq!((outcome.unwrap(), count), (ControlFlow::Break(()), 1));

    store.set_bytes(b"k", b"v").unwrap();
    let entries = store.scan(Scan::all()).unwrap();
    store.close().unwrap();
    let outcome = entries.try_for_each_with(|_, _| ControlFlow::<()>::Continue(()));
    assert!(matches!(outcome, Err(KvsError::Closed)), "{outcome:?}");
}

fn scan_longer_than_a_batch_is_whole<F: Factory>() {
    let numbers = 0..2_000_u32;
    let all: Vec<_> = numbers.map(u32::to_be_bytes).collect();
    let (_dir, store) = store_of::<F>(&all.iter().map(|key| &key[..]).collect::<Vec<_>>());
    assert_eq!(keys(store.scan(Scan::all())), all);
    let mut found = keys(store.iter());
    found.sort();
    assert_eq!(found, all);
    let mut backwards = keys(store.scan(Scan::all().reverse()));
    backwards.reverse();
    assert_eq!(backwards, all);
}

fn scan_sees_what_becomes_of_keys_it_has_not_reached<F: Factory>() {
    let many: Vec<_> = (0..2_000_u32).map(u32::to_be_bytes).collect();
    let (_dir, store) = store_of::<F>(&many.iter().map(|key| &key[..]).collect::<Vec<_>>());
    let mut entries = store.scan(Scan::all()).unwrap();
    assert_eq!(entries.next().unwrap().unwrap().0, many[0]);
    // Far enough ahead that no engine has fetched it yet, except one that scans a snapshot.
    store.set_bytes(&many[1_500], b"newer").unwrap();
    store.remove_bytes(&many[1_501]).unwrap();
    let rest: BTreeMap<_, _> = found(Ok(entries)).into_iter().collect();
    if F::NAME != "model" {
        assert_eq!(rest[&many[1_500][..]], b"newer");
        assert!(!rest.contains_key(&many[1_501][..]));
    }
    assert_eq!(rest[&many[1_999][..]], many[1_999]);
}

/// What is fetched ahead is in memory, so its length is bounded and not only its count.
fn scan_fetches_little_ahead_where_values_are_long<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    for key in 0..20 {
        store.set_bytes(&[key], &vec![key; 400_000]).unwrap();
    }
    let mut entries = store.scan(Scan::all()).unwrap();
    for key in 0..6 {
        assert_eq!(entries.next().unwrap().unwrap().0, [key]);
    }
    store.remove_bytes(&[10]).unwrap();
    let rest = keys(Ok(entries));
    assert_eq!(rest.contains(&vec![10]), F::NAME == "model", "{rest:?}");
    assert!(rest.contains(&vec![19]));
}

fn every_key_can_be_removed_while_it_is_scanned<F: Factory>() {
    for scan in [Scan::all(), Scan::all().reverse()] {
        let (_dir, store) = store_of::<F>(KEYS);
        for entry in store.scan(scan).unwrap() {
            store.remove_bytes(&entry.unwrap().0).unwrap();
        }
        assert!(store.is_empty().unwrap());
    }
    let (_dir, store) = store_of::<F>(KEYS);
    for entry in store.iter().unwrap() {
        store.remove_bytes(&entry.unwrap().0).unwrap();
    }
    assert!(found(store.scan(Scan::all())).is_empty());
}

fn scan_outlives_every_other_handle_and_moves_between_threads<F: Factory>() {
    let (dir, store) = store_of::<F>(KEYS);
    let (scan, iter) = (store.scan(Scan::all()), store.iter());
    drop(store);
    let found = thread::spawn(move || (keys(scan), keys(iter).len())).join().unwrap();
    assert_eq!(found, (KEYS.iter().map(|key| key.to_vec()).collect(), KEYS.len()));
    // The last handle went with the scans.
    assert_eq!(F::open(dir.path()).len().unwrap(), KEYS.len() as u64);
}

fn closed_store_is_said_once_and_ends_the_scan<F: Factory>() {
    let many: Vec<_> = (0..2_000_u32).map(u32::to_be_bytes).collect();
    let (_dir, store) = store_of::<F>(&many.iter().map(|key| &key[..]).collect::<Vec<_>>());
    let mut held = vec![
        store.scan(Scan::all()).unwrap(),
        store.scan(Scan::all().reverse().keys_only()).unwrap(),
        store.iter().unwrap(),
    ];
    for entries in &mut held {
        entries.next().unwrap().unwrap();
    }
    held.push(store.scan_prefix(b"\0").unwrap());
    store.close().unwrap();
    for mut entries in held {
        // An engine that fetches ahead may still give what it has.
        let next = entries.by_ref().find(Result::is_err);
        assert!(matches!(next, Some(Err(KvsError::Closed))), "{next:?}");
        assert!(entries.next().is_none());
        assert!(entries.next().is_none());
    }
    for refused in [store.scan(Scan::all()), store.scan(Scan::range("b".."a")), store.iter()] {
        assert!(matches!(refused, Err(KvsError::Closed)), "{refused:?}");
    }
}

fn closing_lets_go_of_the_directory_though_a_scan_is_held<F: Factory>() {
    let (dir, store) = store_of::<F>(KEYS);
    let mut scan = store.scan(Scan::all()).unwrap();
    let mut iter = store.iter().unwrap();
    let (first, _) = (scan.next(), iter.next());
    store.close().unwrap();
    let again = F::open(dir.path());
    assert_eq!(again.len().unwrap(), KEYS.len() as u64);
    assert_eq!(first.unwrap().unwrap().0, KEYS[0]);
}

/// A damaged record is said once by every scan, and hides no other key.
#[test]
fn damage_is_an_item_of_its_own_and_the_rest_is_seen() {
    for damaged in [b"key 1".as_slice(), b"value 1"] {
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let dir = tempfile::tempdir().unwrap();
            let store = kvs::KvStore::open_with(dir.path(), Options::new().read_mode(read_mode));
            let store = store.unwrap();
            for number in 0..9 {
                let (key, value) = (format!("key {number}"), format!("value {number}"));
                store.set_bytes(key.as_bytes(), value.as_bytes()).unwrap();
            }
            damage(dir.path(), damaged);
            for _ in 0..2 {
                for entries in [store.iter(), store.scan(Scan::all())] {
                    let (found, errors): (Vec<_>, Vec<_>) =
                        entries.unwrap().partition(Result::is_ok);
                    assert_eq!(found.len(), 8);
                    let error = errors.first().unwrap();
                    assert!(matches!(error, Err(KvsError::Corrupt { .. })), "{error:?}");
                    assert_eq!(errors.len(), 1);
                }
            }
        }
    }
}

/// Flips a bit of the first `bytes` in a segment.
#[track_caller]
fn damage(dir: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let held = std::fs::read(&path).unwrap();
        if let Some(at) = held.windows(bytes.len()).position(|window| window == bytes) {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_at(&[bytes[0] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("no file holds {bytes:?}");
}

/// A value that shows whether it is whole, and of its own key.
fn sound(key: &[u8], number: u32) -> Vec<u8> {
    let mut value = key.to_vec();
    let len = 1 + number as usize % 300;
    value.extend(std::iter::repeat_n(number as u8, len));
    value
}

#[track_caller]
fn check_sound(key: &[u8], value: &[u8]) {
    let rest = value.strip_prefix(key).expect("the value is of another key");
    assert!(!rest.is_empty() && rest.iter().all(|byte| byte == &rest[0]), "a torn value");
}

fn stays(number: u32) -> Vec<u8> {
    format!("{:05} stays", number.wrapping_mul(7_919) % 100_000).into_bytes()
}

fn comes_and_goes(number: u32) -> Vec<u8> {
    format!("{:05} goes", number.wrapping_mul(7_919) % 100_000).into_bytes()
}

const STAYING: u32 = 700;

/// Small segments and a compaction of everything all the time: records move under the scans.
fn restless() -> Options {
    Options::new()
        .durability(Durability::Os)
        .segment_bytes_min(0)
        .segment_bytes_max(SEGMENT_BYTES_FLOOR * 4)
}

/// Overwrites keys that stay, sets and removes others, by single writes and by batches.
fn churn<E: KvsEngine>(store: &E, lane: u32, done: &AtomicBool) {
    let mut number = lane;
    while !done.load(Ordering::Relaxed) {
        number = number.wrapping_add(2);
        let kept = stays(number / 2 % STAYING);
        store.set_bytes(&kept, &sound(&kept, number)).unwrap();
        let gone = comes_and_goes((number / 2 % 400) * 2 + lane);
        store.set_bytes(&gone, &sound(&gone, number)).unwrap();
        if number % 4 < 2 {
            store.remove_bytes(&gone).unwrap();
        } else {
            let mut batch = WriteBatch::new();
            batch.remove(&gone).set(&kept, &sound(&kept, number + 1));
            store.apply(&batch).unwrap();
        }
    }
}

#[track_caller]
fn check_scan(entries: Entries, order: Option<&Scan>, staying: &BTreeSet<Vec<u8>>) {
    let mut seen = BTreeSet::new();
    let mut last: Option<Vec<u8>> = None;
    for entry in entries {
        let (key, value) = entry.unwrap();
        if let (Some(scan), Some(last)) = (order, &last) {
            assert!(if scan.is_reverse() { key < *last } else { key > *last }, "out of order");
        }
        if order.is_none_or(|scan| !scan.is_keys_only()) {
            check_sound(&key, &value);
        }
        assert!(order.is_none_or(|scan| scan.contains(&key)), "{key:?} is not in the range");
        assert!(seen.insert(key.clone()), "{key:?} came twice");
        last = Some(key);
    }
    let in_range = |key: &&Vec<u8>| order.is_none_or(|scan| scan.contains(key));
    for key in staying.iter().filter(in_range) {
        assert!(seen.contains(key), "{} was missed", String::from_utf8_lossy(key));
    }
}

/// Several stores, one after the other, because the first scan of each builds the order of keys
/// while they are written.
fn keys_that_stay_are_seen_once_whatever_else_is_written<F: Factory>() {
    let rounds = if F::NAME == "kvs" { 6 } else { 2 };
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let read_mode = if round % 3 == 2 { ReadMode::Positioned } else { ReadMode::Mapped };
        let store = F::open_with(dir.path(), restless().read_mode(read_mode)).unwrap();
        let staying: BTreeSet<_> = (0..STAYING).map(stays).collect();
        for key in &staying {
            store.set_bytes(key, &sound(key, 0)).unwrap();
        }
        let done = AtomicBool::new(false);
        let (store, staying, done) = (&store, &staying, &done);
        thread::scope(|scope| {
            let _end = RaisedOnDrop(done);
            scope.spawn(|| churn(store, 0, done));
            scope.spawn(|| churn(store, 1, done));
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    store.compact().unwrap();
                }
            });
            scope.spawn(|| check_scan(store.iter().unwrap(), None, staying));
            for scan in [
                Scan::all(),
                Scan::all().reverse(),
                Scan::all().keys_only(),
                Scan::range("1".."4"),
                Scan::range("1".."4").reverse().keys_only(),
                Scan::prefix("07"),
            ] {
                check_scan(store.scan(scan.clone()).unwrap(), Some(&scan), staying);
                check_scan(store.iter().unwrap(), None, staying);
            }
        });
        check_all_agree(store);
    }
}

/// Ends the other threads of a test that fails.
struct RaisedOnDrop<'a>(&'a AtomicBool);

impl Drop for RaisedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When nothing is written, every way to look at a store shows the same.
#[track_caller]
fn check_all_agree<E: KvsEngine>(store: &E) {
    let ordered = found(store.scan(Scan::all()));
    let mut backwards = found(store.scan(Scan::all().reverse()));
    backwards.reverse();
    assert!(ordered == backwards, "the directions differ");
    let mut unordered = found(store.iter());
    unordered.sort();
    assert!(ordered == unordered, "scan and iter differ");
    assert_eq!(store.len().unwrap(), ordered.len() as u64);
    for (key, value) in &ordered {
        assert_eq!(store.get_bytes(key).unwrap().as_deref(), Some(value.as_slice()));
    }
}

/// Keys of few bytes at the edges of bytes, so that prefixes and neighbours meet.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0_u8), Just(1), Just(b'a'), Just(0xFE), Just(0xFF)], 0..4)
}

fn any_scan() -> impl Strategy<Value = Scan> {
    let bound = || {
        prop_oneof![
            1 => Just(Bound::Unbounded),
            2 => any_key().prop_map(Bound::Included),
            2 => any_key().prop_map(Bound::Excluded),
        ]
    };
    let range = (bound(), bound()).prop_map(Scan::range::<Vec<u8>>);
    let scan = prop_oneof![3 => range, 1 => any_key().prop_map(Scan::prefix)];
    (scan, any::<bool>()).prop_map(|(scan, back)| if back { scan.reverse() } else { scan })
}

fn scans_agree_with_a_map<F: Factory>() {
    let keys = btree_map(any_key(), vec(any::<u8>(), 0..20), 0..60);
    let removed = btree_set(any_key(), 0..20);
    let cases = if F::NAME == "sled" { 16 } else { 48 };
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    proptest!(config, |(map in keys, removed in removed, scans in vec(any_scan(), 1..12))| {
        let dir = tempfile::tempdir().unwrap();
        let store = F::open(dir.path());
        // Half of the histories build the order first and keep it up, the others build it last.
        if map.len() % 2 == 0 {
            check_map(&store, &BTreeMap::new(), &Scan::all());
        }
        let mut map = map;
        for (key, value) in &map {
            store.set_bytes(key, value).unwrap();
        }
        for key in removed {
            if map.remove(&key).is_some() {
                store.remove_bytes(&key).unwrap();
            }
        }
        for scan in &scans {
            check_map(&store, &map, scan);
        }
    });
}

#[track_caller]
fn check_map<E: KvsEngine>(store: &E, map: &BTreeMap<Vec<u8>, Vec<u8>>, scan: &Scan) {
    let inside = |(key, _): &(&Vec<u8>, &Vec<u8>)| scan.contains(key);
    let mut expected: Found =
        map.iter().filter(inside).map(|(key, value)| (key.clone(), value.clone())).collect();
    if scan.is_reverse() {
        expected.reverse();
    }
    assert_eq!(found(store.scan(scan.clone())), expected, "{scan:?}");
}
