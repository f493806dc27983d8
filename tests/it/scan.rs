//! What `src/scan.rs` promises, asked of every engine: each key once, in order, whatever else goes
//! on, and never more memory or locks than a batch needs.

use std::ops::Bound;

use kvs::{Entries, KvsEngine, Scan};

use crate::contract::{Factory, promises};

macro_rules! every_engine {
    ($($promise:ident)*) => {
        promises!(on_kvs, Kvs: $($promise)*);
        promises!(on_any_kvs, AnyKvs: $($promise)*);
        #[cfg(feature = "sled")]
        promises!(on_sled, Sled: $($promise)*);
        #[cfg(feature = "sled")]
        promises!(on_any_sled, AnySled: $($promise)*);
        promises!(on_model, Model: $($promise)*);
    };
}

every_engine! {
    keys_come_in_the_order_of_their_bytes
    range_ends_where_its_bounds_say
    prefix_of_the_largest_byte_has_no_end
    empty_range_finds_nothing_and_is_no_error
    keys_only_leaves_the_values_out
    iter_sees_every_key_once
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
