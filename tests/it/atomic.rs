//! Atomic operations on one key: `update`, `swap`, `compare_and_swap`; and `get_many`. Each promise
//! is asked of every engine.

use std::thread;

use kvs::options::KEY_LEN_MAX;
use kvs::{CompareAndSwap, KvsEngine, KvsError, Options, Update};

use crate::contract::{Factory, every_engine, every_engine_on_disk, promises};

every_engine! {
    update_sees_the_value_and_decides
    updates_of_many_threads_are_all_counted
    update_may_use_the_store_and_other_keys
    swap_returns_what_was_there
    compare_and_swap_tells_absent_from_empty
    one_of_many_swappers_wins
    set_if_absent_is_won_once
    values_over_the_limit_and_closed_stores_are_refused
    get_many_answers_in_order
    atomic_writes_are_there_after_reopening
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| String::from_utf8(bytes.to_vec()).unwrap().parse().unwrap())
}

fn increment(old: Option<&[u8]>) -> Update {
    Update::Set((number(old) + 1).to_string().into_bytes())
}

#[track_caller]
fn check_value<E: KvsEngine>(store: &E, key: &[u8], expected: Option<&[u8]>) {
    assert_eq!(store.get_bytes(key).unwrap().as_deref(), expected);
}

fn update_sees_the_value_and_decides<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    store.update(b"n", &mut increment).unwrap();
    store.update(b"n", &mut increment).unwrap();
    check_value(&store, b"n", Some(b"2"));
    let mut seen = Vec::new();
    store
        .update(b"n", &mut |old| {
            seen.push(old.map(<[u8]>::to_vec));
            Update::Keep
        })
        .unwrap();
    assert_eq!(seen, [Some(b"2".to_vec())]);
    store.update(b"n", &mut |_| Update::Remove).unwrap();
    check_value(&store, b"n", None);
    assert_eq!(store.len().unwrap(), 0);
    // Nothing is there to be removed: allowed, without effect.
    store.update(b"n", &mut |_| Update::Remove).unwrap();
    assert_eq!(store.len().unwrap(), 0);
}

fn updates_of_many_threads_are_all_counted<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open_with(dir.path(), Options::new().segment_bytes_min(0)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    store.update(b"counter", &mut increment).unwrap();
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| store.compact().unwrap()));
    });
    check_value(&store, b"counter", Some(b"2000"));
}

fn update_may_use_the_store_and_other_keys<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    store.set_bytes(b"price", b"7").unwrap();
    store
        .update(b"total", &mut |old| {
            let price = number(store.get_bytes(b"price").unwrap().as_deref());
            store.set_bytes(b"seen", b"yes").unwrap();
            Update::Set((number(old) + price).to_string().into_bytes())
        })
        .unwrap();
    check_value(&store, b"total", Some(b"7"));
    check_value(&store, b"seen", Some(b"yes"));
}

fn swap_returns_what_was_there<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    let check = |value: Option<&[u8]>, expected: Option<&[u8]>| {
        assert_eq!(store.swap(b"k", value).unwrap().as_deref(), expected);
        check_value(&store, b"k", value);
    };
    check(None, None);
    check(Some(b"a"), None);
    check(Some(b""), Some(b"a"));
    check(Some(b"b"), Some(b""));
    check(None, Some(b"b"));
    check(None, None);
}

fn compare_and_swap_tells_absent_from_empty<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    let states: [Option<&[u8]>; 3] = [None, Some(b""), Some(b"v")];
    for actual in states {
        for expected in states {
            for desired in states {
                store.swap(b"k", actual).unwrap();
                let outcome = store.compare_and_swap(b"k", expected, desired).unwrap();
                if actual == expected {
                    assert_eq!(outcome, CompareAndSwap::Swapped);
                    check_value(&store, b"k", desired);
                } else {
                    let CompareAndSwap::Mismatch(found) = outcome else { panic!("{outcome:?}") };
                    assert_eq!(found.as_deref(), actual);
                    check_value(&store, b"k", actual);
                }
            }
        }
    }
}

/// A lock made of `compare_and_swap`: what it guards is never entered twice.
fn one_of_many_swappers_wins<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let store = &store;
            scope.spawn(move || {
                let mut rounds = 0;
                while rounds < 50 {
                    let taken = store.compare_and_swap(b"lock", None, Some(name.as_bytes()));
                    if taken.unwrap() != CompareAndSwap::Swapped {
                        thread::yield_now();
                        continue;
                    }
                    let inside = number(store.get_bytes(b"inside").unwrap().as_deref());
                    assert_eq!(inside % 2, 0, "somebody else is inside");
                    store.set_bytes(b"inside", (inside + 1).to_string().as_bytes()).unwrap();
                    store.set_bytes(b"inside", (inside + 2).to_string().as_bytes()).unwrap();
                    let freed = store.compare_and_swap(b"lock", Some(name.as_bytes()), None);
                    assert_eq!(freed.unwrap(), CompareAndSwap::Swapped);
                    rounds += 1;
                }
            });
        }
    });
    check_value(&store, b"inside", Some(b"300"));
}

fn set_if_absent_is_won_once<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    for round in 0..50_u32 {
        let key = round.to_be_bytes();
        let wins: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..3_u8)
                .map(|name| {
                    let store = &store;
                    scope.spawn(move || {
                        let outcome = store.compare_and_swap(&key, None, Some(&[name])).unwrap();
                        u32::from(outcome == CompareAndSwap::Swapped)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(wins, 1, "round {round}");
    }
}

fn values_over_the_limit_and_closed_stores_are_refused<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    let long = vec![b'k'; KEY_LEN_MAX + 1];
    let mut asked = 0;
    let refused = store.update(&long, &mut |_| {
        asked += 1;
        Update::Keep
    });
    assert!(matches!(refused, Err(KvsError::KeyTooLong { .. })), "{refused:?}");
    assert_eq!(asked, 0);
    store.close().unwrap();
    let closed = store.update(b"k", &mut increment);
    assert!(matches!(closed, Err(KvsError::Closed)), "{closed:?}");
    assert!(matches!(store.swap(b"k", None), Err(KvsError::Closed)));
    assert!(matches!(store.get_many(&[b"k"]), Err(KvsError::Closed)));
}

fn get_many_answers_in_order<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    store.set_bytes(b"a", b"1").unwrap();
    store.set_bytes(b"b", b"").unwrap();
    let keys: [&[u8]; 4] = [b"b", b"absent", b"a", b"b"];
    let mut met = Vec::new();
    let until = |count, met: &mut Vec<_>| {
        met.clear();
        let all = store.get_many_with(&keys, &mut |value| {
            met.push(value.map(<[u8]>::to_vec));
            met.len() < count
        });
        all.unwrap()
    };
    assert!(until(9, &mut met));
    assert_eq!(met, [Some(Vec::new()), None, Some(b"1".to_vec()), Some(Vec::new())]);
    assert!(!until(2, &mut met) && met.len() == 2);
    assert!(!until(4, &mut met) && met.len() == 4);
    let found = store.get_many(&keys).unwrap();
    let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
    assert_eq!(found, [Some(&b""[..]), None, Some(b"1"), Some(b"")]);
    assert!(store.get_many(&[]).unwrap().is_empty());
}

fn atomic_writes_are_there_after_reopening<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    store.swap(b"swapped", Some(b"1")).unwrap();
    assert_eq!(store.compare_and_swap(b"cas", None, Some(b"2")).unwrap(), CompareAndSwap::Swapped);
    store.update(b"updated", &mut increment).unwrap();
    store.swap(b"gone", Some(b"3")).unwrap();
    store.swap(b"gone", None).unwrap();
    store.close().unwrap();
    drop(store);
    let store = F::open(dir.path());
    check_value(&store, b"swapped", Some(b"1"));
    check_value(&store, b"cas", Some(b"2"));
    check_value(&store, b"updated", Some(b"1"));
    check_value(&store, b"gone", None);
}
