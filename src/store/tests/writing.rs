//! What writers leave behind in memory, nothing of keys that have gone; and what those who share a
//! group find.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::failures::fault;
use super::*;
use crate::Write;
use crate::error::KvsError;
use crate::options::WriteOptions;
use crate::store::disk::failing::{Call, FailingDisk};
use crate::sync::pin;

/// The places where the newest record of `key` may be.
fn candidate_count(store: &KvStore, key: &[u8]) -> usize {
    let keydir = &store.core.keydir;
    keydir.candidates(keydir.hash(key), &pin()).unwrap().count()
}

/// Hands `writes` over. Their outcomes as they are told; they end also if nobody tells them.
fn hand_over(
    store: &KvStore,
    writes: impl Iterator<Item = Write>,
) -> impl Iterator<Item = Result<()>> {
    let (done, outcomes) = channel();
    let count = writes
        .map(|write| {
            let done = done.clone();
            store.write_then(write, Box::new(move |outcome| done.send(outcome).unwrap()));
        })
        .count();
    (0..count).map(move |_| outcomes.recv().unwrap())
}

/// Until a batch is published, the keys that it removes have entries. Afterwards they have none.
#[test]
fn removed_keys_of_a_batch_leave_no_entry_behind() {
    for route in ROUTES {
        let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
        let store = open(&disk, Path::new(DIR), &options(route)).unwrap();
        do_step(&store, Batch(&[(0, Some(10)), (1, Some(10)), (2, Some(10))]), 0).unwrap();
        do_step(&store, Batch(&[(3, Some(10)), (0, None), (1, Some(20)), (2, None)]), 1).unwrap();
        let counts = [0, 1, 2, 3].map(|key| candidate_count(&store, KEYS[key].as_bytes()));
        assert_eq!(counts, [0, 1, 0, 1], "{route:?}");
    }
}

/// A key that was set behind the clear is there afterwards; then one that was removed after that,
/// by the same thread, was not there any more, though all three waited in the same queue.
#[test]
fn what_waits_behind_a_clear_is_decided_on_an_empty_store() {
    const PAUSE: Duration = Duration::from_millis(5);
    let (failing, store) = failing_store(Route::Sync);
    let key = |index: usize| KEYS[index].as_bytes().to_vec();
    // Until they came in that order, which is nearly always.
    for round in 0.. {
        do_step(&store, Set(0, 10), round).unwrap();
        // Whoever leads now is held up, so that the others queue.
        failing.act_after(0, || std::thread::sleep(4 * PAUSE));
        store.write_then(Write::Set { key: key(1), value: vec![1] }, Box::new(drop));
        let clearing = store.clone();
        let clearing = std::thread::spawn(move || clearing.clear());
        std::thread::sleep(2 * PAUSE);
        let (done, outcomes) = channel();
        store.write_then(Write::Set { key: key(2), value: vec![2] }, Box::new(drop));
        let told = move |outcome: Result<()>| done.send(outcome.is_ok()).unwrap();
        store.write_then(Write::Remove { key: key(0) }, Box::new(told));
        let was_there = outcomes.recv().unwrap();
        clearing.join().unwrap().unwrap();
        let is_behind = store.get_bytes(&key(2)).unwrap().is_some();
        assert!(!(is_behind && was_there), "round {round}");
        if is_behind {
            break;
        }
    }
}

/// Somebody else does what a thread has handed over; what it writes afterwards comes behind it all
/// the same.
#[test]
fn what_was_handed_over_comes_before_what_is_written_next() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Sync)).unwrap();
    for round in 0..200_u32 {
        let set = Write::Set { key: b"key".to_vec(), value: b"before".to_vec() };
        let mut outcomes = hand_over(&store, [set].into_iter());
        store.set_bytes(b"key", &round.to_le_bytes()).unwrap();
        outcomes.next().unwrap().unwrap();
        let value = store.get_bytes(b"key").unwrap();
        assert_eq!(value.as_deref(), Some(&round.to_le_bytes()[..]), "round {round}");
    }
}

/// A store whose next write is held up with the lane in its hands, and `meanwhile`, whose write has
/// to queue then.
fn while_a_write_is_held_up<T>(
    store: &KvStore,
    disk: &FailingDisk,
    meanwhile: impl FnOnce() -> T,
) -> T {
    let (holding, is_held) = channel();
    disk.act_after(0, move || {
        holding.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    });
    std::thread::scope(|scope| {
        scope.spawn(|| store.set_bytes(b"held up", b""));
        is_held.recv().unwrap();
        meanwhile()
    })
}

#[test]
fn a_write_that_has_queued_is_durable_if_it_or_the_store_says_so() {
    for (route, sync) in [(Route::Direct, true), (Route::Sync, false)] {
        let (failing, store) = failing_store(route);
        let mut batch = WriteBatch::new();
        batch.set(b"key", b"value");
        while_a_write_is_held_up(&store, &failing, || {
            store.apply_with(&batch, WriteOptions { sync }).unwrap();
            assert!(!store.core.writer.has_unsynced(), "{route:?}");
        });
    }
}

#[test]
fn a_write_that_has_queued_is_told_that_no_more_are_taken() {
    let (failing, store) = failing_store(Route::Sync);
    store.set_bytes(b"key", b"old").unwrap();
    failing.fail_after(0, fault(libc::EIO, |call| call == Call::Sync));
    while_a_write_is_held_up(&store, &failing, || {
        let queued = store.set_bytes(b"key", b"new");
        assert!(matches!(queued, Err(KvsError::Poisoned)), "{queued:?}");
    });
    assert_eq!(store.get_bytes(b"key").unwrap().as_deref(), Some(&b"old"[..]));
}

#[test]
fn what_has_queued_becomes_one_group() {
    let (failing, store) = failing_store(Route::Sync);
    let becomes_one = || {
        let before = store.stats().group_count;
        let sets = (0..5).map(|n| Write::Set { key: vec![n], value: vec![] });
        while_a_write_is_held_up(&store, &failing, || hand_over(&store, sets))
            .for_each(Result::unwrap);
        store.stats().group_count - before == 2
    };
    // Nearly always all five come while it is held up.
    assert!((0..50).any(|_| becomes_one()));
}

/// A group lies in one log: what does not fit behind those before it begins the next one.
#[test]
fn a_group_that_is_longer_than_a_log_goes_into_several() {
    let (failing, store) = failing_store(Route::Sync);
    let value = |n: u8| vec![n; 900 + usize::from(n)];
    let sets = (0..20).map(|n| Write::Set { key: vec![n], value: value(n) });
    while_a_write_is_held_up(&store, &failing, || hand_over(&store, sets)).for_each(Result::unwrap);
    let check = |store: &KvStore| {
        (0..20).for_each(|n| assert_eq!(store.get_bytes(&[n]).unwrap().unwrap()[..], value(n)));
    };
    check(&store);
    drop(store);
    let disk: Arc<dyn Disk> = Arc::new(failing);
    check(&open(&disk, Path::new(DIR), &options(Route::Sync)).unwrap());
}

/// A leader waits once for each 64 KiB that were set beyond the bound, to the record. Without
/// compaction there is nothing to wait for.
#[test]
fn writes_beyond_the_bound_wait_for_compaction_every_64_kib() {
    for (is_compacted, waits) in [(true, 3), (false, 0)] {
        let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
        let options = options(Route::Direct).auto_compaction(is_compacted);
        let store = open(&disk, Path::new(DIR), &options).unwrap();
        // Meanwhile nothing can be compacted.
        store.core.compactor.at_rest(|_| {
            for _ in 0..3 * 64 {
                // A KiB with header and key.
                store.set_bytes(b"k", &[1; 1024 - 25]).unwrap();
            }
        });
        assert_eq!(store.stats().throttle_count, waits, "compacted: {is_compacted}");
    }
}

#[test]
fn writes_that_are_not_durable_have_an_age() {
    const PAUSE: Duration = Duration::from_millis(20);
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    for _ in 0..2 {
        store.set_bytes(b"a", b"1").unwrap();
        std::thread::sleep(PAUSE);
        // The age is that of the oldest.
        store.set_bytes(b"a", b"2").unwrap();
        assert!(store.stats().unsynced_us >= 20_000, "{}", store.stats());
        store.sync().unwrap();
        std::thread::sleep(PAUSE);
        assert_eq!(store.stats().unsynced_us, 0);
    }
    store.core.writer.seal_active().unwrap();
    store.set_bytes(b"a", b"3").unwrap();
    assert_eq!(store.stats().rotation_count, 2);
}

#[test]
fn a_store_that_is_closed_or_a_view_says_so() {
    let (failing, store) = failing_store(Route::Direct);
    store.set_bytes(b"a", b"1").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(failing.clone());
    let view = open(&disk, Path::new(DIR), &options(Route::Direct).read_only(true)).unwrap();
    assert!(matches!(view.set_bytes(b"a", b"2"), Err(KvsError::ReadOnly)));
    view.close().unwrap();
    assert!(matches!(view.get_bytes(b"a"), Err(KvsError::Closed)));
    assert!(matches!(view.set_bytes(b"a", b"2"), Err(KvsError::Closed)));
    // What was wrong when it was closed is said once.
    failing.fail_after(0, fault(libc::EIO, |call| call == Call::Sync));
    assert_eq!(store.close().unwrap_err().os_error(), Some(libc::EIO));
    store.close().unwrap();
    assert!(matches!(store.iter().map(drop), Err(KvsError::Closed)));
}
