//! Compaction comes to rest: what it makes is not worth compacting again.

use std::time::{Duration, Instant};

use super::failures::fault;
use super::*;
use crate::store::compaction::Compactor;
use crate::store::disk::failing::{Call, FailingDisk};
use crate::store::disk::modelled::ModelledDisk;
use crate::store::manifest::Manifest;
use crate::store::segments::Pressure;
use crate::sync::Ordering;

/// Background compaction until there is nothing left to do; how often it ran.
fn compact_to_rest(store: &KvStore) -> usize {
    let sync_log = || store.core.writer.sync_sealed();
    let runs =
        (0..20).take_while(|_| store.core.compactor.compact_some(&sync_log, &|| false).unwrap());
    runs.count()
}

/// A segment of tombstones that have to stay, because what they outrank does, was dead as a whole
/// by the figures, and rewritten as it was, without end.
#[test]
fn tombstones_that_have_to_stay_are_not_copied_for_ever() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Tail)).unwrap();
    for number in 0..200_u8 {
        store.set_bytes(&[number], &[1; 900]).unwrap();
    }
    store.core.writer.seal_active().unwrap();
    for number in 0..200_u8 {
        if number % 20 == 0 {
            store.remove_bytes(&[number]).unwrap();
        }
    }
    store.core.writer.seal_active().unwrap();
    assert!(compact_to_rest(&store) < 5);
    assert!(store.stats().tombstone_bytes > 0, "they stay");
    assert_eq!(compact_to_rest(&store), 0);
    // All of them are worth it: more is dead than lives.
    for number in 0..200_u8 {
        if number % 20 != 0 && number % 3 != 0 {
            store.remove_bytes(&[number]).unwrap();
        }
    }
    store.core.writer.seal_active().unwrap();
    assert!((1..5).contains(&compact_to_rest(&store)));
    let stats = store.stats();
    assert!(stats.total_bytes <= 2 * stats.live_bytes + 2 * (4 << 10), "{stats:?}");
}

/// No segment is half dead, and tombstones are less than a tenth. Where they and what is dead are
/// together more than what lives, tombstones go with all that they outrank; where they are not, all
/// of it stays.
#[test]
fn files_stay_within_twice_what_lives_though_tombstones_stay() {
    // What is dead and the tombstones are less than what lives, 1.6 logs more, and 3.1 logs more.
    for (count, dead_percent, runs) in [(8_000, 30, 0..1), (4_000, 48, 0..1), (8_000, 48, 1..5)] {
        let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
        let options = options(Route::Tail).segment_bytes_min(16 << 10).segment_bytes_max(16 << 10);
        let store = open(&disk, Path::new(DIR), &options).unwrap();
        for number in 0..count {
            store.set_bytes(&u16::to_be_bytes(number), &[1; 198]).unwrap();
        }
        store.core.writer.seal_active().unwrap();
        let is_dead = |number: &u16| u32::from(*number) * dead_percent % 100 < dead_percent;
        for number in (0..count).filter(is_dead) {
            store.remove_bytes(&number.to_be_bytes()).unwrap();
        }
        store.core.writer.seal_active().unwrap();
        let is_within = || {
            let stats = store.stats();
            // Headers and footers come on top.
            let record_bytes = stats.total_bytes - 112 * stats.segment_count;
            assert!(stats.tombstone_bytes * 10 < record_bytes, "{stats:?}");
            record_bytes <= 2 * stats.live_bytes + 2 * (16 << 10)
        };
        assert_eq!(is_within(), runs.contains(&0), "before: {:?}", store.stats());
        assert!(runs.contains(&compact_to_rest(&store)), "{dead_percent} % of {count}");
        assert!(is_within(), "{:?}", store.stats());
    }
}

/// A store whose segments are sealed when a test says so, with one of `count` keys, whose records
/// have `len` bytes.
fn with_one_segment(count: u8, len: usize) -> KvStore {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let options = options(Route::Direct).segment_bytes_min(64 << 10).segment_bytes_max(64 << 10);
    let store = open(&disk, Path::new(DIR), &options).unwrap();
    // The value begins after 24 bytes of header and one of key.
    (0..count).for_each(|key| store.set_bytes(&[key], &vec![1; len - 25]).unwrap());
    store.core.writer.seal_active().unwrap();
    store
}

/// To the record: of 20 equal ones 9 or 10 are dead.
#[test]
fn a_segment_is_worth_compacting_when_half_of_it_is_dead() {
    for (dead, runs) in [(9, 0), (10, 1), (11, 1)] {
        let store = with_one_segment(20, 200);
        (0..dead).for_each(|key| store.set_bytes(&[key], &[2; 175]).unwrap());
        store.core.writer.seal_active().unwrap();
        assert_eq!(compact_to_rest(&store), runs, "{dead} of 20");
    }
}

/// A log whose first write failed may be sealed with nothing in it.
#[test]
fn a_log_of_nothing_is_removed() {
    let (disk, store) = failing_store(Route::Direct);
    // The header can be written.
    disk.fail_after(1, fault(libc::EIO, |call| call == Call::Write));
    store.set_bytes(b"a", b"1").unwrap_err();
    store.core.writer.seal_active().unwrap();
    assert_eq!(store.stats().segment_count, 1);
    assert_eq!((compact_to_rest(&store), store.stats().segment_count), (1, 0));
}

/// Otherwise the key would be there again after the next open.
#[test]
fn a_tombstone_outlives_its_segment_where_what_it_outranks_stays() {
    let store = with_one_segment(20, 1000);
    store.remove_bytes(&[7]).unwrap();
    (0..10).for_each(|_| store.set_bytes(b"x", &[2; 975]).unwrap());
    store.core.writer.seal_active().unwrap();
    let ids = || store.segment_stats().iter().map(|segment| segment.id).collect::<Vec<_>>();
    assert_eq!((compact_to_rest(&store), ids()), (1, vec![1, 3]));
    assert_eq!(store.stats().tombstone_bytes, 32);
}

/// To the byte: 3 of 32 bytes each are a tenth of 13 records of 64, a mark of 32 and themselves,
/// and stay, though everything they outrank is there.
#[test]
fn tombstones_go_when_they_are_more_than_a_tenth() {
    for (removed, runs) in [(2, 0), (3, 0), (4, 1)] {
        let store = with_one_segment(13, 64);
        (0..removed).for_each(|key| store.remove_bytes(&[key]).unwrap());
        store.core.writer.seal_active().unwrap();
        assert_eq!(store.stats().tombstone_bytes, 32 * u64::from(removed));
        assert_eq!(compact_to_rest(&store), runs, "{removed} of 13");
        assert_eq!(store.stats().tombstone_bytes == 0, runs > 0);
    }
}

/// A program that opens the store for one write leaves a small segment each time.
#[test]
fn small_segments_become_one_when_there_are_more_than_eight() {
    let store = with_one_segment(1, 64);
    for count in 2..=9 {
        assert_eq!(compact_to_rest(&store), 0);
        store.set_bytes(&[count], &[1; 39]).unwrap();
        store.core.writer.seal_active().unwrap();
        assert_eq!(store.stats().segment_count, u64::from(count));
    }
    assert_eq!(compact_to_rest(&store), 1);
    assert_eq!((store.stats().segment_count, store.len().unwrap()), (1, 9));
}

/// Copies and what they are copied from are there at once. Where files take all that they may, one
/// segment of which something lives is copied at a time, and what is wholly dead goes with it.
#[test]
fn without_room_one_segment_is_copied_at_a_time() {
    const VALUE: [u8; 975] = [1; 975];
    let store = with_one_segment(0, 25);
    let seal = || store.core.writer.seal_active().unwrap();
    for keys in [0..20, 20..40, 40..60_u8] {
        keys.for_each(|key| store.set_bytes(&[key], &VALUE).unwrap());
        seal();
    }
    // Half of each of these three is dead.
    (0..60).step_by(2).for_each(|key| store.set_bytes(&[key], &VALUE).unwrap());
    seal();
    for _ in 0..5 {
        (0..40).for_each(|_| store.set_bytes(b"x", &VALUE).unwrap());
        seal();
    }
    store.set_bytes(b"x", &VALUE).unwrap();
    assert_eq!((store.stats().segment_count, store.core.segments.room_bytes()), (10, 0));
    let sync_log = || store.core.writer.sync_sealed();
    let is_compacting = || store.core.segments.compacting.load(Ordering::Relaxed);
    store.core.segments.want_compaction();
    assert!(store.core.compactor.compact_some(&sync_log, &|| false).unwrap());
    let stats = store.stats();
    assert_eq!((stats.segment_count, stats.live_bytes), (5, 61_000), "{stats}");
    assert!(is_compacting(), "there may be more to do");
    assert!(stats.total_bytes < 61_000 + 21_000, "two are half dead: {stats}");
    assert_eq!(compact_to_rest(&store), 1);
    assert!(!is_compacting());
    assert_eq!(store.len().unwrap(), 61);
}

/// Who asks for everything to be compacted gets back what is dead, and one file for several small
/// ones. A segment in which nothing is dead, and one that is small alone, are not copied for that.
#[test]
fn compaction_of_everything_copies_nothing_in_vain() {
    let store = with_one_segment(20, 1000);
    let set = |key: u8| store.set_bytes(&[key], &[1; 975]).unwrap();
    let copied = || {
        let before = store.stats();
        store.compact().unwrap();
        let after = store.stats();
        assert_eq!(after.live_bytes, after.key_count * 1000);
        (after.segment_count, (after.compaction_read_bytes - before.compaction_read_bytes) / 1000)
    };
    assert_eq!(copied(), (1, 0));
    set(100);
    assert_eq!(copied(), (2, 1), "it began with a mark, which is dead");
    assert_eq!(copied(), (2, 0), "one small segment stays");
    set(101);
    assert_eq!(copied(), (2, 2), "two small ones become one");
    assert_eq!(copied(), (2, 0));
    set(0);
    assert_eq!(copied(), (1, 23), "the large one has a dead record");
    assert_eq!(copied(), (1, 0));
}

/// A store of one small key is more header and footer than record.
#[test]
fn segment_of_one_small_record_is_left_alone() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Tail)).unwrap();
    store.set_bytes(b"k", b"").unwrap();
    store.core.writer.seal_active().unwrap();
    assert_eq!(compact_to_rest(&store), 0);
}

/// Writers are held back a little near the bound, and more beyond it, and not at all where
/// compaction has found nothing to do.
#[test]
fn pressure_rises_towards_the_bound_and_beyond_it() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    let segments = &store.core.segments;
    let mut seen = Vec::new();
    for number in 0..200_usize {
        store.set_bytes(KEYS[number % 3].as_bytes(), &value(number, 300)).unwrap();
        segments.want_compaction();
        let pressure = segments.pressure();
        if seen.last() != Some(&pressure) {
            seen.push(pressure);
        }
        let stats = store.stats();
        let is_over = stats.total_bytes > 2 * stats.live_bytes + 2 * segments.seal_bytes();
        assert_eq!(is_over, pressure == Pressure::Full, "{number}: {pressure:?}\n{stats}");
    }
    assert_eq!(seen, [Pressure::None, Pressure::Some, Pressure::Full]);
    segments.note_compacted(true);
    assert_eq!(segments.pressure(), Pressure::None);
    store.compact().unwrap();
    segments.want_compaction();
    assert_eq!(segments.pressure(), Pressure::None);
}

/// While there may be more to do they wait for it; when it fails there is nothing to wait for.
#[test]
fn writers_are_not_held_back_by_a_compaction_that_failed() {
    let failing = FailingDisk::new(Arc::new(ModelledDisk::default()));
    let disk: Arc<dyn Disk> = Arc::new(failing.clone());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    for number in 0..200 {
        do_step(&store, Set(number % 3, 300), number).unwrap();
    }
    let segments = &store.core.segments;
    let compact = || store.core.compactor.compact_some(&|| store.sync(), &|| false);
    segments.want_compaction();
    assert_eq!(segments.pressure(), Pressure::Full);
    let is_create = |call| call == Call::Create;
    failing.fail_after(0, fault(libc::EIO, is_create));
    assert_eq!(compact().unwrap_err().os_error(), Some(5));
    assert_eq!(segments.pressure(), Pressure::None);
    // What is worth it is found step by step.
    segments.want_compaction();
    assert!(compact().unwrap());
    for number in 0..200 {
        do_step(&store, Set(number % 3, 300), number).unwrap();
    }
    assert_eq!(segments.pressure(), Pressure::Full);
}

/// 19 records of 1 KB are copied, and the first three files of them are waited for.
#[test]
fn copying_takes_as_long_as_the_rate_says() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let options = options(Route::Direct)
        .compaction_bytes_per_second_max(Some(100_000))
        .log_to(move |_, line| log.lock().push(line.to_owned()));
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options).unwrap();
    (0..20_u8).for_each(|key| store.set_bytes(&[key], &[1; 975]).unwrap());
    store.remove_bytes(&[7]).unwrap();
    let began = Instant::now();
    store.compact().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    assert!(store.stats().compaction_us >= 120_000);
    assert!(said.lock().iter().any(|line| line.contains("compaction begins: ")));
}

/// No seqno is given twice, though nothing is left that had it.
#[test]
fn seqnos_go_on_behind_what_was_compacted_away() {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    store.remove_bytes(b"a").unwrap();
    store.compact().unwrap();
    assert_eq!(store.stats().segment_count, 0);
    let last = store.core.writer.published();
    let left: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
    let store = open(&left, Path::new(DIR), &options(Route::Direct)).unwrap();
    assert!(store.core.writer.published() >= last, "{last:?}");
}

/// Copies may take the place of older writes only once nothing newer can be lost.
#[test]
fn what_was_written_meanwhile_is_durable_after_compaction() {
    let store = with_one_segment(20, 200);
    (0..20).for_each(|key| store.set_bytes(&[key], &[2; 175]).unwrap());
    assert!(store.core.writer.has_unsynced());
    assert_eq!(compact_to_rest(&store), 1);
    assert!(!store.core.writer.has_unsynced());
}

/// A tombstone outranks what is older than itself, and nothing in a segment that comes after it.
#[test]
fn a_later_segment_keeps_no_tombstone_alive() {
    let store = with_one_segment(2, 64);
    store.remove_bytes(&[1]).unwrap();
    store.core.writer.seal_active().unwrap();
    store.set_bytes(&[2], b"").unwrap();
    store.core.writer.seal_active().unwrap();
    let blocking = |segment: crate::SegmentStats| segment.blocking_tombstone_bytes;
    let blocking: Vec<_> = store.segment_stats().into_iter().map(blocking).collect();
    assert_eq!(blocking, [32, 0, 0]);
}

/// A log can be sealed between two looks at it. What comes behind it goes on where it ends then: an
/// open after a crash would look for the writes between otherwise, and refuse the store.
#[test]
fn a_log_that_is_sealed_meanwhile_is_listed_with_all_its_writes() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    (0..3_u8).for_each(|key| store.set_bytes(&[key], b"").unwrap());
    let now = store.core.segments.snapshot();
    let next = |current: &Manifest| Compactor::manifest_without(&now, &[], current);
    let before = store.core.compactor.at_rest(next);
    store.core.writer.seal_active().unwrap();
    let after = store.core.compactor.at_rest(next);
    assert_eq!((before.log_from, before.log_after, before.segments.len()), (1, 0, 0));
    assert_eq!((after.log_from, after.log_after, after.segments.len()), (2, 3, 1));
}
