//! What an operator sees of a store: its figures, its log, how far long work has come.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kvs::{
    Durability, KvStore, KvsEngine, KvsError, LogLevel, Options, Progress, Stats, WriteBatch,
};

use crate::process::{PATIENCE, eventually};
use crate::store::tiny_segments;

fn quiet() -> Options {
    tiny_segments().segment_bytes_min(4096).auto_compaction(false)
}

#[track_caller]
fn wait_for(store: &KvStore, what: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = store.stats();
        if what(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn groups_records_and_their_bytes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), quiet()).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    let mut batch = WriteBatch::new();
    for key in [b"b", b"c", b"d", b"e", b"f"] {
        batch.set(key, b"2");
    }
    store.apply(&batch).unwrap();
    store.remove_bytes(b"f").unwrap();
    assert!(matches!(store.remove_bytes(b"none"), Err(KvsError::KeyNotFound)));
    let stats = store.stats();
    assert_eq!(stats.key_count, 5);
    assert_eq!((stats.group_count, stats.record_count), (3, 7));
    assert_eq!(stats.group_sizes, [2, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!((stats.tombstone_count, stats.tombstone_bytes), (1, 32));
    assert_eq!(stats.written_bytes, 7 * 32);
    assert_eq!((stats.live_bytes, stats.total_bytes), (5 * 32, 64 + 7 * 32));
    assert_eq!(stats.dead_bytes, stats.total_bytes - stats.live_bytes);
    assert_eq!(stats.rotation_count, 1);
    for i in 0..200_u32 {
        store.set_bytes(&i.to_be_bytes(), &[7; 100]).unwrap();
    }
    let stats = store.stats();
    assert!(stats.rotation_count > 5 && stats.rotation_count == stats.segment_count, "{stats}");
}

/// Ten bytes a slot, and from four slots for three keys to two for each: whatever the keys are, and
/// whether they were written or loaded.
#[test]
fn the_memory_of_the_index_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = KvStore::open(dir.path()).unwrap();
    for i in 0..50_000_u32 {
        store.set_bytes(format!("{i:0100}").as_bytes(), b"").unwrap();
    }
    for how in ["written", "loaded"] {
        let stats = store.stats();
        let per_key = stats.index_bytes / stats.key_count;
        assert_eq!(stats.key_count, 50_000, "{how}");
        assert!((13..24).contains(&per_key), "{how}: {per_key} bytes a key");
        store.close().unwrap();
        store = KvStore::open(dir.path()).unwrap();
    }
}

#[test]
fn what_a_power_loss_would_take_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), quiet()).unwrap();
    assert_eq!((store.stats().unsynced_bytes, store.stats().unsynced_us), (0, 0));
    store.set_bytes(b"a", b"1").unwrap();
    thread::sleep(Duration::from_millis(30));
    store.set_bytes(b"b", b"2").unwrap();
    let stats = store.stats();
    assert_eq!(stats.unsynced_bytes, 2 * 32);
    assert!(stats.unsynced_us >= 30_000, "the age is that of the oldest: {stats}");

    store.sync().unwrap();
    let stats = store.stats();
    assert_eq!((stats.unsynced_bytes, stats.unsynced_us, stats.sync_count), (0, 0, 1));
    assert!(stats.sync_us > 0 && stats.sync_us == stats.sync_us_max, "{stats}");

    // The time without anything to lose is nobody's age.
    thread::sleep(Duration::from_millis(300));
    let before = Instant::now();
    store.set_bytes(b"c", b"3").unwrap();
    let stats = store.stats();
    // What precedes the mark that says how far the log is durable is counted with the write.
    assert!((32..=64).contains(&stats.unsynced_bytes), "{stats}");
    assert!(stats.unsynced_us <= before.elapsed().as_micros() as u64, "{stats}");

    let store_of_syncs =
        KvStore::open_with(dir.path().join("sync"), quiet().durability(Durability::Sync)).unwrap();
    store_of_syncs.set_bytes(b"a", b"1").unwrap();
    assert_eq!(store_of_syncs.stats().unsynced_bytes, 0);
}

#[test]
fn compaction_says_what_it_read_wrote_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), quiet()).unwrap();
    for i in 0..300_u32 {
        store.set_bytes(&(i % 100).to_be_bytes(), &[7; 100]).unwrap();
    }
    let lent = store.get_bytes(&1_u32.to_be_bytes()).unwrap();
    let before = store.stats();
    store.compact().unwrap();
    let after = store.stats();
    assert_eq!(after.compaction_count, 1);
    assert!(after.compaction_us > 0);
    let (read, written) = (after.compaction_read_bytes, after.compaction_written_bytes);
    assert!(read > 0 && written > 0, "{after}");
    // The log was sealed before: its footer came on top.
    let footer = after.total_bytes + read - written - before.total_bytes;
    assert!((1..=64).contains(&footer), "{before}{after}");
    // The next compaction looks which readers have gone, those of other tests among them.
    let wait_until_retired = |count| {
        eventually("the other readers have gone", || {
            store.compact().unwrap();
            store.stats().retired_file_count <= count
        });
        store.stats()
    };
    // The file that the lent value lies in.
    let stats = wait_until_retired(1);
    assert_eq!(stats.retired_file_count, 1, "{stats}");
    assert!((1..=4096).contains(&stats.retired_bytes), "{stats}");
    drop(lent);
    assert_eq!(wait_until_retired(0).retired_bytes, 0);
}

/// A removed key stays removed only because its tombstone outlives the put in the first log.
#[test]
fn segments_say_whose_tombstones_they_keep_alive() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), quiet()).unwrap();
    let fill = |from: u32| {
        for i in from..from + 30 {
            store.set_bytes(&i.to_be_bytes(), &[7; 100]).unwrap();
        }
    };
    fill(0);
    fill(100);
    for i in 0..10_u32 {
        store.remove_bytes(&i.to_be_bytes()).unwrap();
    }
    fill(200);
    let segments = store.segment_stats();
    assert_eq!(segments.iter().map(|segment| segment.tombstone_bytes).sum::<u64>(), 10 * 32);
    for (index, segment) in segments.iter().enumerate() {
        // A log may hold an older put than the tombstones of later ones, and no others.
        let later = segments[index + 1..].iter().map(|segment| segment.tombstone_bytes);
        assert_eq!(segment.blocking_tombstone_bytes, later.sum::<u64>(), "{segments:?}");
    }
    assert_eq!(segments[0].blocking_tombstone_bytes, 10 * 32);
    assert_eq!(segments.last().unwrap().blocking_tombstone_bytes, 0);
    store.compact().unwrap();
    assert!(store.segment_stats().iter().all(|segment| segment.blocking_tombstone_bytes == 0));
    assert_eq!(store.stats().tombstone_count, 0);
}

#[test]
fn a_write_that_waits_for_compaction_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = tiny_segments().compaction_bytes_per_second_max(Some(100_000));
    let store = KvStore::open_with(dir.path(), options).unwrap();
    let deadline = Instant::now() + PATIENCE;
    // The first wait may end at once, since compaction has got done meanwhile. Of nine records four
    // stay, so that there is much to copy: what is wholly dead goes at any rate, and under a
    // sanitizer faster than it was written.
    let mut staying = 1000_u32;
    while store.stats().throttle_us == 0 {
        for i in 0..900_u32 {
            let stays = i % 9 >= 5;
            staying += u32::from(stays);
            let key = if stays { staying } else { i % 9 };
            store.set_bytes(&key.to_be_bytes(), &[7; 1000]).unwrap();
        }
        assert!(Instant::now() < deadline, "{}", store.stats());
    }
    let stats = store.stats();
    assert!(stats.throttle_us >= stats.throttle_us_max && stats.throttle_us_max > 0, "{stats}");
    assert!(stats.throttle_count <= stats.written_bytes / (64 << 10), "not at each write: {stats}");
}

/// However small the segments are; and closing does not wait until the rate allows the rest.
#[test]
fn compaction_keeps_to_its_rate_and_stops_when_it_is_to() {
    // Syncs would take longer than the rate does.
    let dir = crate::recovery::fast_dir();
    let open = |rate: u64| {
        let store = quiet().compaction_bytes_per_second_max(Some(rate));
        KvStore::open_with(dir.path(), store).unwrap()
    };
    let store = open(200_000);
    for i in (0..2_000_u32).chain((0..2_000).step_by(2)) {
        store.set_bytes(&i.to_be_bytes(), &[7; 100]).unwrap();
    }
    let began = Instant::now();
    store.compact().unwrap();
    let (took, copied) = (began.elapsed(), store.stats().compaction_written_bytes);
    assert!(copied > 100_000, "{copied}");
    // The last segment need not be waited for.
    assert!(took >= Duration::from_micros(copied - 20_000) * 5, "{copied} bytes in {took:?}");
    store.close().unwrap();

    let store = open(100);
    for i in (0..2_000_u32).step_by(3) {
        store.set_bytes(&i.to_be_bytes(), &[8; 100]).unwrap();
    }
    thread::scope(|scope| {
        let compacting = scope.spawn(|| store.compact());
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        store.close().unwrap();
        assert!(matches!(compacting.join().unwrap(), Err(KvsError::Closed)));
        // All of it would take minutes.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    });
}

/// With less of a file dead, it is copied; with more dead, it may stay.
#[test]
fn how_much_must_be_dead_is_a_choice() {
    for (percent, compacted) in [(75, false), (25, true)] {
        let dir = tempfile::tempdir().unwrap();
        let fill = |options: Options| {
            let store = KvStore::open_with(dir.path(), options).unwrap();
            for i in 0..300_u32 {
                store.set_bytes(&i.to_be_bytes(), &[7; 100]).unwrap();
            }
            // A little less than half of every file of the first round.
            for i in (0..300_u32).filter(|i| i % 5 < 2) {
                store.set_bytes(&i.to_be_bytes(), &[8; 100]).unwrap();
            }
            store.close().unwrap();
        };
        fill(quiet());
        let options = quiet().auto_compaction(true).compaction_dead_percent_min(percent);
        let store = KvStore::open_with(dir.path(), options).unwrap();
        if compacted {
            wait_for(&store, |stats| stats.compaction_count > 0);
        } else {
            thread::sleep(Duration::from_millis(200));
            assert_eq!(store.stats().compaction_count, 0);
        }
    }
}

#[test]
fn an_open_store_says_how_it_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), quiet()).unwrap();
    let stats = store.stats();
    assert!(stats.open_us > 0);
    assert!(!stats.is_poisoned && !stats.is_reserve_lent && stats.background_error.is_none());
    let json: serde_json::Value = serde_json::from_str(&stats.to_json()).unwrap();
    assert_eq!(json["open_us"], stats.open_us);
    store.set_bytes(b"a", b"1").unwrap();
    let segment = &store.segment_stats()[0];
    let json: serde_json::Value = serde_json::from_str(&segment.to_json()).unwrap();
    assert_eq!(json["file"], segment.file);
    assert!(segment.to_string().starts_with(&segment.file), "{segment}");
}

type Heard = Arc<Mutex<Vec<(LogLevel, String)>>>;

fn listening(options: Options) -> (Heard, Options) {
    let heard = Heard::default();
    let log = Arc::clone(&heard);
    let hear = move |level, line: &str| log.lock().unwrap().push((level, line.to_owned()));
    (heard, options.log_to(hear))
}

/// One line of each kind that a quiet life brings, each with the directory of its own store.
#[test]
fn a_store_tells_its_callback_what_happens_and_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let ((heard, options), (other_heard, other_options)) = (listening(quiet()), listening(quiet()));
    let store = KvStore::open_with(dir.path().join("one"), options).unwrap();
    let other = KvStore::open_with(dir.path().join("two"), other_options).unwrap();
    other.set_bytes(b"secret", b"secret").unwrap();
    for _ in 0..300_u32 {
        store.set_bytes(b"secret", &[b's'; 100]).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    drop(store);
    let heard = heard.lock().unwrap();
    for (level, text) in [
        (LogLevel::Info, "opened: 0 segments of 0 bytes, keys not counted yet"),
        (LogLevel::Debug, "log 1 begins, for up to 4096 bytes"),
        (LogLevel::Debug, "compaction begins: "),
        (LogLevel::Info, "compacted "),
        (LogLevel::Info, "closed in "),
    ] {
        let prefix = format!("{}: {text}", dir.path().join("one").display());
        let count = heard.iter().filter(|line| line.0 == level && line.1.starts_with(&prefix));
        assert_eq!(count.count(), 1, "{prefix} in {heard:#?}");
    }
    assert!(heard.iter().all(|(level, _)| *level > LogLevel::Warn), "{heard:#?}");
    let other_heard = other_heard.lock().unwrap();
    assert_eq!(other_heard.len(), 2, "opened, and a log begun: {other_heard:#?}");
    for (_, line) in heard.iter().chain(&*other_heard) {
        assert!(!line.contains("secret") && !line.contains("sss") && line.lines().count() == 1);
    }
}

/// What is heard in the middle of a rotation and of a compaction is answered by every call there
/// is: none waits for a lock that its own thread holds.
#[test]
fn a_callback_that_calls_into_the_store_is_refused_and_waits_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let handle: Arc<Mutex<Option<KvStore>>> = Arc::default();
    let answers: Arc<Mutex<Vec<String>>> = Arc::default();
    let options = quiet().log_to({
        let (handle, answers) = (Arc::clone(&handle), Arc::clone(&answers));
        let copy = dir.path().join("copy");
        move |_, line| {
            let Some(store) = handle.lock().unwrap().clone() else { return };
            let mut batch = WriteBatch::new();
            batch.set(b"no", b"Bergen");
            let refused = [
                store.set_bytes(b"no", b"Bergen"),
                store.remove_bytes(b"no"),
                store.apply(&batch),
                store.swap(b"no", None).map(drop),
                store.sync(),
                store.compact(),
                store.checkpoint(&copy),
                store.close(),
            ];
            let unsupported = |outcome: &Result<(), KvsError>| {
                matches!(outcome, Err(KvsError::Unsupported { .. }))
            };
            assert!(refused.iter().all(unsupported), "{line}: {refused:?}");
            // Looking is allowed.
            assert_eq!(store.get_bytes(b"no").unwrap().as_deref(), Some(&b"Oslo"[..]));
            assert!(store.stats().key_count > 0 && !store.segment_stats().is_empty());
            assert!(store.iter().unwrap().next().is_some() && store.verify().unwrap().is_sound());
            answers.lock().unwrap().push(line.to_owned());
        }
    });
    let store = KvStore::open_with(dir.path().join("store"), options).unwrap();
    store.set_bytes(b"no", b"Oslo").unwrap();
    *handle.lock().unwrap() = Some(store.clone());
    for i in 0..100_u32 {
        store.set_bytes(&(i % 50).to_be_bytes(), &[7; 100]).unwrap();
    }
    store.compact().unwrap();
    handle.lock().unwrap().take();
    let answers = answers.lock().unwrap();
    for what in [": log ", ": compaction begins", ": compacted "] {
        assert!(answers.iter().any(|line| line.contains(what)), "no {what:?} in {answers:#?}");
    }
    store.close().unwrap();
}

#[test]
fn a_callback_that_panics_takes_nothing_down() {
    let dir = tempfile::tempdir().unwrap();
    let options = quiet().log_to(|_, line| panic!("a test panics on purpose at: {line}"));
    let store = KvStore::open_with(dir.path(), options).unwrap();
    for i in 0..100_u32 {
        store.set_bytes(&i.to_be_bytes(), &[7; 100]).unwrap();
    }
    store.compact().unwrap();
    assert!(!store.stats().is_poisoned);
    store.close().unwrap();
    drop(store);
    assert_eq!(KvStore::open_with(dir.path(), quiet()).unwrap().len().unwrap(), 100);
}

/// Rises, never falls, and ends at its end.
#[track_caller]
fn check_progress(seen: &[Progress], at_least_bytes: u64) {
    let last = seen.last().unwrap();
    assert!(last.total_bytes >= at_least_bytes, "{last:?}");
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(seen.iter().all(|at| at.total_bytes == last.total_bytes), "{seen:?}");
    assert!(seen.windows(2).all(|two| two[0].done_bytes <= two[1].done_bytes), "{seen:?}");
}

/// Nothing has to be read after a clean close, and everything if the hints are gone.
#[test]
fn an_open_that_has_to_read_says_how_far_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let options = Options::new().auto_compaction(false).segment_bytes_min(2 << 20);
    let store = KvStore::open_with(path, options.clone()).unwrap();
    for i in 0..200_u32 {
        store.set_bytes(&i.to_be_bytes(), &vec![7; 64 << 10]).unwrap();
    }
    let total_bytes = store.stats().total_bytes;
    store.close().unwrap();
    for is_view in [false, true] {
        let options = || options.clone().read_only(is_view);
        let open = |seen: &mut Vec<Progress>| {
            KvStore::open_with_progress(path, options(), &mut |progress| seen.push(progress))
        };
        let mut seen = Vec::new();
        open(&mut seen).unwrap().close().unwrap();
        assert_eq!(seen, []);
        for hint in crate::recovery::files(path, "seg-") {
            if hint.extension().is_some_and(|extension| extension == "hint") {
                std::fs::remove_file(hint).unwrap();
            }
        }
        let store = open(&mut seen).unwrap();
        // How often depends on how much of the reading other threads took on.
        check_progress(&seen, total_bytes);
        assert_eq!(store.len().unwrap(), 200);
        store.close().unwrap();
    }
}

/// What a crash leaves is read once, and each byte of it told once: by views, which leave it as it
/// is, and by the open that settles it. The next open has nothing to read.
#[test]
fn an_open_after_a_crash_reads_the_logs_once_and_says_how_far_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    let options = Options::new().auto_compaction(false).segment_bytes_min(2 << 20);
    let store = KvStore::open_with(&live, options.clone()).unwrap();
    for i in 0..200_u32 {
        store.set_bytes(&i.to_be_bytes(), &vec![7; 64 << 10]).unwrap();
    }
    store.sync().unwrap();
    crate::recovery::copy(&live, &crashed);
    let total_bytes = store.stats().total_bytes;
    let open = |read_only: bool| {
        let (mut seen, options) = (Vec::new(), options.clone().read_only(read_only));
        let store =
            KvStore::open_with_progress(&crashed, options, &mut |progress| seen.push(progress));
        assert_eq!(store.unwrap().len().unwrap(), 200);
        seen
    };
    for is_view in [true, false] {
        let seen = open(is_view);
        check_progress(&seen, total_bytes);
        assert_eq!(seen.last().unwrap().total_bytes, total_bytes, "read once");
    }
    assert_eq!(open(false), []);
}

#[test]
fn compaction_and_checkpoints_say_how_far_they_have_come() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().auto_compaction(false).segment_bytes_min(2 << 20);
    let store = KvStore::open_with(dir.path().join("store"), options).unwrap();
    for i in 0..200_u32 {
        store.set_bytes(&(i % 120).to_be_bytes(), &vec![7; 64 << 10]).unwrap();
    }
    let elsewhere = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for copy in [dir.path().join("copy"), elsewhere.path().join("copy")] {
        let mut seen = Vec::new();
        store.checkpoint_with(&copy, &mut |progress| seen.push(progress)).unwrap();
        check_progress(&seen, store.stats().total_bytes);
        assert!(seen.len() > 2, "{seen:?}");
    }
    let mut seen = Vec::new();
    store.compact_with(&mut |progress| seen.push(progress)).unwrap();
    check_progress(&seen, store.stats().compaction_read_bytes);
    assert!(seen.len() > 2, "{seen:?}");
}
