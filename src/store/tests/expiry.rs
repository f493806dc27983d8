//! Expiry by a clock that tests set: to the millisecond, set back, across compaction and reopening.
//!
//! What every engine promises is in `tests/it/expiry.rs`; what a loss of power does to expired
//! records, in `power_loss`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::TimeSource;
use crate::engine::{CompareAndSwap, Expiry, Update};
use crate::error::KvsError;
use crate::options::ReadMode;
use crate::scan::Scan;
use crate::store::Stats;
use crate::store::disk::RealDisk;
use crate::store::disk::failing::{Call, FailingDisk, Fault};
use crate::store::disk::modelled::ModelledDisk;
use crate::store::walk::Walk;
use crate::sync::{AtomicU64, Ordering};

/// A disk in memory, a clock, and how stores are opened on them.
struct Bench {
    disk: Arc<dyn Disk>,
    now_ms: Arc<AtomicU64>,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(0));
        let time = TimeSource::Set(Arc::clone(&now_ms));
        let options = Options { time, ..options(Route::Tail) };
        Self { disk: Arc::new(ModelledDisk::default()), now_ms, options }
    }

    fn open(&self) -> KvStore {
        open(&self.disk, Path::new(DIR), &self.options).unwrap()
    }

    fn set_clock(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// Background compaction, once, with `before_edit` called between copying and the manifest.
fn compact_some(store: &KvStore, before_edit: &dyn Fn()) -> bool {
    store.core.writer.seal_active().unwrap();
    let sync_log = || {
        before_edit();
        store.core.writer.sync_sealed()
    };
    store.core.compactor.compact_some(&sync_log, &|| false).unwrap()
}

/// Compares everything the store can be asked about its keys with `expected`. `counted` keys have
/// entries: those and, perhaps, some that have expired.
#[track_caller]
fn check_keys(store: &KvStore, expected: &[&[u8]], counted: u64) {
    let expected: BTreeSet<Vec<u8>> = expected.iter().map(|key| key.to_vec()).collect();
    let keys = |entries: crate::Entries| -> BTreeSet<Vec<u8>> {
        entries.map(|entry| entry.unwrap().0).collect()
    };
    assert_eq!(keys(store.iter().unwrap()), expected);
    assert_eq!(keys(store.scan(Scan::all()).unwrap()), expected);
    assert_eq!(keys(store.scan(Scan::all().reverse().keys_only()).unwrap()), expected);
    assert_eq!(store.len().unwrap(), counted);
    check_order(store);
}

/// The order of keys, once built, and the keydir hold the same, and so many as are counted.
#[track_caller]
fn check_order(store: &KvStore) {
    store.core.put_in_order().unwrap();
    let order = store.core.keydir.order().first_of(&Scan::all(), usize::MAX);
    let order: Vec<_> = order.into_iter().map(|(key, ())| key).collect();
    let walk = Walk::new(Arc::clone(&store.core.keydir), Arc::clone(&store.core.segments));
    let entries: BTreeSet<_> = walk.keys().map(Result::unwrap).collect();
    assert_eq!(order, Vec::from_iter(entries));
    assert_eq!(store.len().unwrap(), u64::try_from(order.len()).unwrap());
}

#[track_caller]
fn check_key_not_found<T: std::fmt::Debug>(outcome: &Result<T>) {
    assert!(matches!(outcome, Err(KvsError::KeyNotFound)), "{outcome:?}");
}

#[test]
fn key_is_there_until_the_millisecond_of_its_expiry() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        for expiry_ms in [1_000, 1_700_000_000_000, u64::MAX] {
            let mut bench = Bench::new();
            bench.options.read_mode = read_mode;
            let store = bench.open();
            store.set_with_expiry(b"k", b"v", expiry_ms).unwrap();
            bench.set_clock(expiry_ms - 1);
            assert_eq!(store.get_bytes(b"k").unwrap().as_deref(), Some(&b"v"[..]));
            assert_eq!(store.expiry(b"k").unwrap(), Expiry::At(expiry_ms));
            assert_eq!(store.get_with(b"k", <[u8]>::len).unwrap(), Some(1));
            check_keys(&store, &[b"k"], 1);

            bench.set_clock(expiry_ms);
            assert_eq!(store.get_bytes(b"k").unwrap(), None);
            assert_eq!(store.expiry(b"k").unwrap(), Expiry::Absent);
            assert_eq!(store.get_with_expiry(b"k").unwrap(), None);
            assert_eq!(store.get_with(b"k", <[u8]>::len).unwrap(), None);
            assert_eq!(store.get_many(&[b"k"]).unwrap(), [None]);
            assert!(!store.contains(b"k").unwrap());
            check_keys(&store, &[], 1);
        }
    }
}

#[test]
fn expiry_of_zero_is_past_at_once() {
    let bench = Bench::new();
    let store = bench.open();
    store.set_bytes(b"k", b"v").unwrap();
    store.set_with_expiry(b"k", b"w", 0).unwrap();
    check_keys(&store, &[], 1);
    store.compact().unwrap();
    check_keys(&store, &[], 0);
}

/// What depends on whether the key is there finds that it is not, and writes nothing.
#[test]
fn writes_to_what_has_expired_meet_an_absent_key() {
    let bench = Bench::new();
    let store = bench.open();
    store.set_with_expiry(b"k", b"v", 1_000).unwrap();
    bench.set_clock(1_000);
    let before = store.stats().record_count;
    check_key_not_found(&store.remove_bytes(b"k"));
    check_key_not_found(&store.persist(b"k"));
    check_key_not_found(&store.set_expiry(b"k", Some(5_000)));
    let mut batch = WriteBatch::new();
    store.apply(batch.remove(b"k")).unwrap();
    store.apply(batch.remove(b"also absent")).unwrap();
    store.update(b"k", &mut |_| Update::Remove).unwrap();
    let swapped = store.compare_and_swap(b"k", Some(b"v"), Some(b"w")).unwrap();
    assert_eq!(swapped, CompareAndSwap::Mismatch(None));
    assert_eq!(store.swap(b"k", None).unwrap(), None);
    assert_eq!(store.stats().record_count, before, "something was written");
    // What sets it does, and the key is counted once.
    assert_eq!(store.compare_and_swap(b"k", None, Some(b"1")).unwrap(), CompareAndSwap::Swapped);
    check_keys(&store, &[b"k"], 1);
    store.remove_bytes(b"k").unwrap();
    check_keys(&store, &[], 0);
}

/// Setting an expiry to what it is writes nothing.
#[test]
fn the_same_expiry_again_writes_nothing() {
    let bench = Bench::new();
    let store = bench.open();
    store.set_with_expiry(b"k", b"v", 1_000).unwrap();
    store.set_bytes(b"l", b"v").unwrap();
    let before = store.stats().record_count;
    assert_eq!(store.set_expiry(b"k", Some(1_000)).unwrap(), Some(1_000));
    assert!(!store.persist(b"l").unwrap());
    assert_eq!(store.stats().record_count, before);
}

/// The key expires while `change` runs: its value is not written back to life.
#[test]
fn key_that_expires_during_an_update_is_absent_for_it() {
    let bench = Bench::new();
    let store = bench.open();
    store.set_with_expiry(b"k", b"v", 1_000).unwrap();
    let mut met = Vec::new();
    let change = &mut |old: Option<&[u8]>| {
        met.push(old.map(<[u8]>::to_vec));
        bench.set_clock(1_000);
        Update::Set(b"w".to_vec())
    };
    store.update(b"k", change).unwrap();
    assert_eq!(met, [Some(b"v".to_vec()), None]);
    assert_eq!(store.expiry(b"k").unwrap(), Expiry::Never);
}

/// The operations of one group see each other's expiry.
#[test]
fn removal_behind_an_expired_set_of_the_same_group_finds_nothing() {
    let mut bench = Bench::new();
    bench.options.durability = Durability::Sync;
    let store = bench.open();
    bench.set_clock(1_000);
    for (expiry_ms, expected) in [(1_000, "Err(KeyNotFound)"), (1_001, "Ok(())")] {
        for _ in 0..50 {
            let (done, outcomes) = std::sync::mpsc::channel();
            let mut batch = WriteBatch::new();
            batch.set_with_expiry(b"k", b"v", expiry_ms);
            store.write_then(crate::Write::Batch(batch), Box::new(drop));
            let told = move |outcome: Result<()>| done.send(format!("{outcome:?}")).unwrap();
            store.write_then(crate::Write::Remove { key: b"k".to_vec() }, Box::new(told));
            assert_eq!(outcomes.recv().unwrap(), expected);
        }
    }
}

#[test]
fn clock_that_is_set_back_revives_nothing_in_an_open_store() {
    let bench = Bench::new();
    let store = bench.open();
    store.set_with_expiry(b"k", b"v", 1_000).unwrap();
    bench.set_clock(1_000);
    assert!(!store.contains(b"k").unwrap());
    bench.set_clock(10);
    assert!(!store.contains(b"k").unwrap());
    check_key_not_found(&store.remove_bytes(b"k"));
    check_keys(&store, &[], 1);
    // The next open counts anew; this is what the documents say, not what anyone wishes for.
    store.close().unwrap();
    let store = bench.open();
    check_keys(&store, &[b"k"], 1);
    bench.set_clock(1_000);
    store.compact().unwrap();
    store.close().unwrap();
    bench.set_clock(10);
    check_keys(&bench.open(), &[], 0);
}

#[test]
fn expiry_is_there_again_after_reopening_and_after_moving() {
    let bench = Bench::new();
    let mut store = bench.open();
    for number in 0..40_u64 {
        let key = number.to_be_bytes();
        store.set_with_expiry(&key, &[7; 100], 1_000 + number).unwrap();
        store.set_bytes(&[number.to_be_bytes(), [0; 8]].concat(), &[7; 100]).unwrap();
    }
    for round in 0..3 {
        for number in (0..40_u64).step_by(3) {
            store.set_bytes(&[number.to_be_bytes(), [0; 8]].concat(), &[8; 100]).unwrap();
        }
        store.compact().unwrap();
        store.close().unwrap();
        store = bench.open();
        for number in 0..40_u64 {
            let expected = Expiry::At(1_000 + number);
            assert_eq!(store.expiry(&number.to_be_bytes()).unwrap(), expected, "round {round}");
        }
    }
    for number in 0..40_u64 {
        bench.set_clock(1_000 + number);
        assert!(!store.contains(&number.to_be_bytes()).unwrap());
        assert_eq!(store.iter().unwrap().count(), 79 - usize::try_from(number).unwrap());
    }
}

/// The bytes of what has expired are told and go, though nobody writes: the files of sealed
/// segments, and the log that was being written.
#[test]
fn expired_space_comes_back_without_a_write() {
    let mut bench = Bench::new();
    bench.options.auto_compaction = true;
    let store = bench.open();
    for number in 0..200_u32 {
        let key = number.to_be_bytes();
        if number % 10 == 0 {
            store.set_bytes(&key, &[1; 100]).unwrap();
        } else {
            store.set_with_expiry(&key, &[2; 100], 10_000).unwrap();
        }
    }
    let before = store.stats();
    assert_eq!((before.expired_bytes, before.key_count), (0, 200));
    bench.set_clock(20_000);
    let lasting_bytes = 20 * 128;
    let began = Instant::now();
    let came_back = |stats: &Stats| stats.total_bytes < 2 * lasting_bytes + 2 * 1024;
    let mut now = store.stats();
    while !came_back(&now) {
        assert!(began.elapsed() < Duration::from_secs(30), "{now:?}");
        std::thread::sleep(Duration::from_millis(5));
        now = store.stats();
    }
    assert_eq!(now.record_count, before.record_count, "somebody wrote");
    assert!(now.key_count < 40 && now.total_bytes * 4 < before.total_bytes, "{now:?}");
    store.compact().unwrap();
    let now = store.stats();
    assert_eq!((now.key_count, now.expired_bytes, now.live_bytes), (20, 0, lasting_bytes));
    store.close().unwrap();
}

/// Without a write the log would never be sealed, and what is in it never be compacted.
#[test]
fn log_in_which_everything_has_expired_is_sealed_and_goes() {
    let mut bench = Bench::new();
    bench.options = bench.options.segment_bytes_min(0).segment_bytes_max(1 << 20);
    bench.options.auto_compaction = true;
    let store = bench.open();
    for number in 0..2_000_u32 {
        store.set_with_expiry(&number.to_be_bytes(), &[2; 100], 10_000).unwrap();
    }
    // What compaction is just making, as these segments are small, is not sealed either.
    let segments = store.segment_stats();
    let unsealed = |live_bytes| segments.iter().any(|s| !s.is_sealed && s.live_bytes > live_bytes);
    assert!(unsealed(10_000), "{segments:?}");
    bench.set_clock(20_000);
    let began = Instant::now();
    while store.len().unwrap() > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", store.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    store.close().unwrap();
}

/// The figure is exact but for the bucket that time is in, follows overwrites, removals and moves,
/// and recovery counts the same.
#[test]
fn expired_bytes_are_told() {
    for reopened in [false, true] {
        let bench = Bench::new();
        let mut store = bench.open();
        let record_bytes = 24 + 8 + 8 + 96;
        for number in 0..20_u64 {
            let expiry_ms = 100_000 * (number / 10 + 1);
            store.set_with_expiry(&number.to_be_bytes(), &[1; 96], expiry_ms).unwrap();
        }
        for number in [0_u64, 10] {
            store.set_bytes(&number.to_be_bytes(), b"").unwrap();
            store.remove_bytes(&(number + 1).to_be_bytes()).unwrap();
            store.persist(&(number + 2).to_be_bytes()).unwrap();
        }
        if reopened {
            store.compact().unwrap();
            store.close().unwrap();
            drop(store);
            store = bench.open();
        }
        for (now_ms, count) in [(99_000, 0), (110_000, 7), (199_000, 7), (210_000, 14)] {
            bench.set_clock(now_ms);
            assert_eq!(store.stats().expired_bytes, count * record_bytes, "at {now_ms}");
        }
        store.compact().unwrap();
        assert_eq!((store.stats().expired_bytes, store.len().unwrap()), (0, 4));
    }
}

/// Two segments: one whose keys stay, with an old value of `k` in it if `with_old`, and one in
/// which everything, `k` too, has expired.
fn store_with_expired_segment(bench: &Bench, with_old: bool) -> KvStore {
    let store = bench.open();
    let keep = |store: &KvStore| {
        for number in 0..10_u8 {
            store.set_bytes(&[b'a', number], &[1; 100]).unwrap();
        }
    };
    if with_old {
        store.set_bytes(b"k", b"old").unwrap();
        keep(&store);
        store.core.writer.seal_active().unwrap();
    }
    store.set_with_expiry(b"k", b"new", 1_000).unwrap();
    for number in 0..10_u8 {
        store.set_with_expiry(&[b'x', number], &[2; 100], 1_000).unwrap();
    }
    store.core.writer.seal_active().unwrap();
    if !with_old {
        keep(&store);
    }
    bench.set_clock(5_000);
    store
}

/// The rule of tombstones: what is older and stays may not come back, however often the store is
/// compacted and opened, and wherever the clock stands.
#[test]
fn old_value_never_comes_back_when_the_newer_one_has_expired() {
    for reverse in [false, true] {
        let bench = Bench::new();
        let store = store_with_expired_segment(&bench, true);
        let first = store.segment_stats()[0].clone();
        assert!(compact_some(&store, &|| {}), "it was worth it");
        let now = store.segment_stats()[0].clone();
        assert_eq!((now.id, now.live_bytes), (first.id, first.live_bytes), "it stays");
        assert!(now.blocking_tombstone_bytes > 0, "it is why the tombstones stay");
        assert!(store.stats().tombstone_bytes > 0);
        let kept: Vec<_> = (0..10_u8).map(|number| [b'a', number]).collect();
        let kept: Vec<&[u8]> = kept.iter().map(|key| &key[..]).collect();
        check_keys(&store, &kept, 10);
        store.close().unwrap();
        bench.set_clock(0);
        let store = bench.open();
        check_keys(&store, &kept, 10);
        // Which of the files goes first makes no difference.
        for _ in 0..3 {
            store.set_bytes(if reverse { b"a\x00" } else { b"x\x00" }, &[3; 2000]).unwrap();
            compact_some(&store, &|| {});
            assert_eq!(store.get_bytes(b"k").unwrap(), None);
        }
        store.compact().unwrap();
        assert_eq!(store.stats().tombstone_bytes, 0, "nothing is left to outrank");
        store.close().unwrap();
        assert_eq!(bench.open().get_bytes(b"k").unwrap(), None);
    }
}

#[test]
fn nothing_takes_the_place_of_an_expired_record_that_outranks_nothing() {
    let bench = Bench::new();
    let store = store_with_expired_segment(&bench, false);
    assert!(compact_some(&store, &|| {}));
    let now = store.stats();
    assert_eq!((now.tombstone_bytes, now.key_count), (0, 10));
    assert!(store.segment_stats().iter().all(|segment| segment.is_log), "something was copied");
}

/// Between copying and the manifest edit: reads say what they said, and a key that is set anew
/// keeps its new value, its count and its place in the order.
#[test]
fn key_set_anew_while_compaction_drops_it_stays() {
    for with_old in [false, true] {
        let bench = Bench::new();
        let store = store_with_expired_segment(&bench, with_old);
        check_order(&store);
        let before = store.len().unwrap();
        let meanwhile = || {
            assert_eq!(store.get_bytes(b"k").unwrap(), None);
            check_key_not_found(&store.remove_bytes(b"x\x00"));
            assert_eq!(store.len().unwrap(), before);
            store.set_bytes(b"k", b"newer").unwrap();
            store.set_with_expiry(b"x\x01", b"again", 9_000).unwrap();
            store.set_with_expiry(b"x\x02", b"past", 1_000).unwrap();
            let mut batch = WriteBatch::new();
            batch.set(b"x\x03", b"1").remove(b"x\x04").set(b"n", b"1");
            store.apply(&batch).unwrap();
            store.set_bytes(b"x\x05", b"1").unwrap();
            store.remove_bytes(b"x\x05").unwrap();
        };
        assert!(compact_some(&store, &meanwhile));
        let mut expected: Vec<Vec<u8>> = (0..10_u8).map(|number| vec![b'a', number]).collect();
        expected.extend([&b"k"[..], b"n", b"x\x01", b"x\x03"].map(<[u8]>::to_vec));
        let expected: Vec<&[u8]> = expected.iter().map(|key| &key[..]).collect();
        check_keys(&store, &expected, 15);
        assert_eq!(store.get_bytes(b"k").unwrap().as_deref(), Some(&b"newer"[..]));
        store.close().unwrap();
        let store = bench.open();
        check_keys(&store, &expected, 15);
        store.compact().unwrap();
        check_keys(&store, &expected, 14);
    }
}

/// The key of a record is read once more when its entry goes. If that fails, its count goes all the
/// same, and the order of keys holds one too many, which scans pass over.
#[test]
fn record_that_cannot_be_read_again_is_dropped_all_the_same() {
    let failing = FailingDisk::new(Arc::new(ModelledDisk::default()));
    let mut bench = Bench::new();
    bench.disk = Arc::new(failing.clone());
    bench.options.read_mode = ReadMode::Positioned;
    let store = store_with_expired_segment(&bench, false);
    check_order(&store);
    let reads = |call| call == Call::Read;
    let fault = Fault { code: libc::EIO, half: false, sticky: true, chosen: reads };
    assert!(compact_some(&store, &|| failing.fail_after(0, fault)));
    assert!(failing.struck() > 0);
    failing.heal();
    assert_eq!(store.len().unwrap(), 10);
    assert_eq!(store.scan(Scan::all()).unwrap().count(), 10);
    store.set_bytes(b"k", b"1").unwrap();
    assert_eq!(store.scan(Scan::all()).unwrap().count(), 11);
    store.close().unwrap();
    assert_eq!(bench.open().iter().unwrap().count(), 11);
}

/// A full disk on which keys have expired has room again, though there is none for copies.
#[test]
fn full_disk_has_room_again_when_keys_have_expired() {
    let model = ModelledDisk::default();
    model.limit(1 << 20);
    let mut bench = Bench::new();
    bench.disk = Arc::new(model);
    let store = bench.open();
    let set = |number: u32| store.set_with_expiry(&number.to_be_bytes(), &[1; 1000], 1_000);
    let count = (0..100_000).find(|number| set(*number).is_err()).unwrap();
    assert!(count > 500, "{count}");
    bench.set_clock(2_048);
    store.compact().unwrap();
    assert_eq!(store.len().unwrap(), 0);
    store.set_bytes(b"k", &[1; 10_000]).unwrap();
    assert_eq!(store.iter().unwrap().count(), 1);
}

#[test]
fn expired_records_cross_a_checkpoint_and_a_repair_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicU64::new(0));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let time = TimeSource::Set(Arc::clone(&now_ms));
    let options = Options { time, ..options(Route::Tail) };
    let store = open(&disk, &dir.path().join("store"), &options).unwrap();
    store.set_with_expiry(b"soon", b"v", 1_000).unwrap();
    store.set_with_expiry(b"later", b"v", 9_000).unwrap();
    store.checkpoint(&dir.path().join("checkpoint")).unwrap();
    store.close().unwrap();
    KvStore::repair(dir.path().join("store"), dir.path().join("repaired"), &mut |_| {}).unwrap();
    for copy in ["checkpoint", "repaired"] {
        now_ms.store(999, Ordering::Relaxed);
        let copy = open(&disk, &dir.path().join(copy), &options).unwrap();
        assert_eq!(copy.expiry(b"soon").unwrap(), Expiry::At(1_000));
        now_ms.store(1_000, Ordering::Relaxed);
        assert_eq!(copy.expiry(b"soon").unwrap(), Expiry::Absent);
        assert_eq!(copy.expiry(b"later").unwrap(), Expiry::At(9_000));
    }
}

/// What a key holds, in the model.
type Model = BTreeMap<u8, (Vec<u8>, Option<u64>)>;

/// One random step on store and model; returns whether the store is to be opened anew.
fn random_step(store: &KvStore, model: &mut Model, bench: &Bench, random: &mut SmallRng) -> bool {
    let now_ms = bench.now_ms.load(Ordering::Relaxed);
    let mut below = |limit: u64| random.random_range(..limit);
    let key = u8::try_from(below(12)).unwrap();
    let value = vec![u8::try_from(below(256)).unwrap(); usize::try_from(below(300)).unwrap()];
    let expiry_ms = (below(3) > 0).then_some(now_ms + below(4_000));
    let there = model.get(&key).cloned();
    match below(20) {
        0..=6 => {
            store.apply(&batch_of(&[(key, Some((&value, expiry_ms)))])).unwrap();
            model.insert(key, (value, expiry_ms));
        }
        7..=8 => {
            let other = u8::try_from(below(12)).unwrap();
            let batch = batch_of(&[(key, None), (other, Some((&value, expiry_ms)))]);
            store.apply(&batch).unwrap();
            model.remove(&key);
            model.insert(other, (value, expiry_ms));
        }
        9..=10 => {
            store.update(&[key], &mut |_| Update::Set(value.clone())).unwrap();
            model.insert(key, (value, there.and_then(|(_, expiry_ms)| expiry_ms)));
        }
        11..=12 => match store.set_expiry(&[key], expiry_ms) {
            Ok(previous_ms) => {
                let (value, known_ms) = there.expect("the model has it too");
                assert_eq!(previous_ms, known_ms);
                model.insert(key, (value, expiry_ms));
            }
            Err(KvsError::KeyNotFound) => assert_eq!(there, None),
            Err(error) => panic!("{error:?}"),
        },
        13 => match store.remove_bytes(&[key]) {
            Ok(()) => assert!(model.remove(&key).is_some()),
            outcome => {
                check_key_not_found(&outcome);
                assert_eq!(there, None);
            }
        },
        14..=15 => bench.set_clock(now_ms + below(1_500)),
        16 => drop(compact_some(store, &|| {})),
        17 => store.core.writer.seal_active().unwrap(),
        18 => store.compact().unwrap(),
        _ => return true,
    }
    false
}

/// A key, and what it is to hold, if anything.
type Op<'a> = (u8, Option<(&'a [u8], Option<u64>)>);

fn batch_of(ops: &[Op<'_>]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in ops {
        match value {
            Some((value, Some(expiry_ms))) => batch.set_with_expiry(&[*key], value, *expiry_ms),
            Some((value, None)) => batch.set(&[*key], value),
            None => batch.remove(&[*key]),
        };
    }
    batch
}

/// Random histories beside a map, with the clock going on, compaction of both kinds, and reopening.
/// `KVS_EXPIRY_HISTORIES` makes it longer.
#[test]
fn random_histories_with_a_clock_do_what_a_map_does() {
    for seed in 1..=from_environment("KVS_EXPIRY_HISTORIES", 60) {
        let mut random = SmallRng::seed_from_u64(u64::try_from(seed).unwrap());
        let (bench, mut model) = (Bench::new(), Model::new());
        let mut store = bench.open();
        for step in 0..150 {
            if random_step(&store, &mut model, &bench, &mut random) {
                store.close().unwrap();
                drop(store);
                store = bench.open();
            }
            let now_ms = bench.now_ms.load(Ordering::Relaxed);
            model.retain(|_, (_, expiry_ms)| expiry_ms.is_none_or(|expiry_ms| now_ms < expiry_ms));
            for key in 0..12_u8 {
                let found = store.get_with_expiry(&[key]).unwrap();
                let found = found.map(|(value, expiry_ms)| (value.to_vec(), expiry_ms));
                assert_eq!(found, model.get(&key).cloned(), "seed {seed}, step {step}, key {key}");
            }
            let met: Vec<_> = store.scan(Scan::all()).unwrap().map(|met| met.unwrap().0).collect();
            let expected: Vec<_> = model.keys().map(|key| vec![*key]).collect();
            assert_eq!(met, expected, "seed {seed}, step {step}");
            check_order(&store);
        }
        store.compact().unwrap();
        assert_eq!(store.len().unwrap(), u64::try_from(model.len()).unwrap(), "seed {seed}");
        let stats = store.stats();
        assert_eq!((stats.expired_bytes, stats.tombstone_bytes), (0, 0), "seed {seed}");
    }
}
