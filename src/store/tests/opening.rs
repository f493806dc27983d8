//! What opening makes of what it finds: no store, half a store, a crash tail, logs behind a gap, a
//! tail that nobody wants. And that closing is nothing to be alarmed at.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::error::KvsError;
use crate::logger::{LogLevel, Logger};
use crate::options::ReadMode;
use crate::store::disk::RealDisk;
use crate::store::disk::failing::{Call, FailingDisk, Fault};
use crate::store::key_hash::KeyHasher;
use crate::store::location::{SegmentId, Slot, len_of};
use crate::store::log_end::walk_to_end;
use crate::store::manifest::Manifest;
use crate::store::names::{self, Name};
use crate::store::record::Footer;
use crate::store::segment::{HEADER_LEN, Segment};
use crate::store::stats::Progress;
use crate::store::verify;

fn dir() -> &'static Path {
    Path::new(DIR)
}

/// An empty directory on a disk in memory.
fn empty() -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    disk.create_dir_all(dir()).unwrap();
    disk
}

/// What a process that did `steps` leaves when it is killed.
fn killed_after(steps: &[Step]) -> Arc<dyn Disk> {
    killed_on(Route::Direct, steps)
}

fn killed_on(route: Route, steps: &[Step]) -> Arc<dyn Disk> {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&disk, dir(), &options(route)).unwrap();
    steps.iter().zip(1..).for_each(|(step, number)| do_step(&store, *step, number).unwrap());
    let left: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
    left.create_dir_all(dir()).unwrap();
    left
}

/// The ids of the segments there are, in their order.
fn ids(disk: &Arc<dyn Disk>) -> BTreeSet<SegmentId> {
    let names = disk.list(dir()).unwrap();
    let id = |name: &std::ffi::OsString| match Name::parse(name) {
        Name::Segment(id) => Some(id),
        _ => None,
    };
    names.iter().filter_map(id).collect()
}

fn read(disk: &Arc<dyn Disk>, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn flip(disk: &Arc<dyn Disk>, path: &Path, at: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// In a few words, what came of an open.
fn outcome(opened: &Result<KvStore>) -> &'static str {
    match opened {
        Ok(_) => "opened",
        Err(KvsError::NoStore { .. }) => "no store",
        Err(KvsError::StoreExists { .. }) => "there is one",
        Err(KvsError::UnsupportedFormat { .. }) => "another format",
        Err(KvsError::WrongEngine { .. }) => "another engine",
        Err(KvsError::Corrupt { .. }) => "corrupt",
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    for (files, create, expected) in [
        (&[][..], false, "no store"),
        (&["17.log"], true, "another format"),
        (&["seg-0000000001.log"], true, "corrupt"),
        (&["MANIFEST-1", "seg-0000000001.log"], true, "corrupt"),
        (&["MANIFEST-2"], true, "corrupt"),
        (&["MANIFEST-2", "MANIFEST-3"], true, "corrupt"),
        (&["MANIFEST-1"], false, "no store"),
    ] {
        let disk = empty();
        for name in files {
            disk.create(&dir().join(name)).unwrap().write_at(b"half a line", 0).unwrap();
        }
        let opened = open(&disk, dir(), &options(Route::Tail).create(create));
        assert_eq!(outcome(&opened), expected, "{files:?}");
        for name in files {
            assert_eq!(read(&disk, &dir().join(name)), b"half a line", "{name} of {files:?}");
        }
    }
}

#[test]
fn the_store_of_another_engine_is_refused() {
    let real = tempfile::tempdir().unwrap();
    for name in ["db", "conf"] {
        std::fs::write(real.path().join(name), "").unwrap();
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = open(&disk, real.path(), &options(Route::Tail));
    assert_eq!(outcome(&opened), "another engine");
}

/// A crash while the first manifest was being written: it may be as long as the longest that lists
/// nothing, and lack a sector.
#[test]
fn a_store_that_was_never_born_is_made() {
    let first = |bytes: &[u8]| {
        let disk = empty();
        disk.create(&names::manifest(dir(), 1)).unwrap().write_at(bytes, 0).unwrap();
        disk
    };
    let mut longest = Manifest::new(u64::MAX, u64::MAX).encode();
    longest[..20].fill(0);
    assert_eq!(outcome(&open(&first(&longest), dir(), &options(Route::Tail))), "opened");
    longest.push(0);
    assert_eq!(outcome(&open(&first(&longest), dir(), &options(Route::Tail))), "corrupt");
    let disk = first(b"half a line");
    let store = open(&disk, dir(), &options(Route::Tail)).unwrap();
    do_step(&store, Set(0, 10), 1).unwrap();
    drop(store);
    let exclusive = options(Route::Tail).exclusive(true);
    assert_eq!(outcome(&open(&disk, dir(), &exclusive)), "there is one");
    let store = open(&disk, dir(), &options(Route::Tail)).unwrap();
    assert_eq!(content(&store).unwrap().len(), 1);
    assert_eq!(outcome(&open(&empty(), dir(), &exclusive)), "opened");
}

/// An open that finds logs sealed writes a manifest; the next one comes behind that.
#[test]
fn manifests_go_on_behind_the_one_that_an_open_has_written() {
    let disk = killed_after(&[Set(0, 1400), Set(1, 1400), Set(0, 1400), Set(1, 1400)]);
    let numbers = || Manifest::numbers(&disk.list(dir()).unwrap());
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!(numbers(), [2]);
    do_step(&store, Set(0, 100), 5).unwrap();
    store.compact().unwrap();
    let compacted = numbers();
    assert!(matches!(compacted[..], [number] if number > 2), "{compacted:?}");
    let before = content(&store).unwrap();
    drop(store);
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!(content(&store).unwrap(), before);
}

/// One that listed something was whole once: then files have gone.
#[test]
fn a_damaged_manifest_that_listed_something_is_no_store_to_be_made() {
    let disk = empty();
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    do_step(&store, Set(0, 10), 1).unwrap();
    store.close().unwrap();
    drop(store);
    let numbers = Manifest::numbers(&disk.list(dir()).unwrap());
    let manifest = read(&disk, &names::manifest(dir(), numbers[0]));
    let disk = empty();
    let file = disk.create(&names::manifest(dir(), 1)).unwrap();
    file.write_at(&manifest, 0).unwrap();
    file.write_at(b"{}", 40).unwrap();
    assert_eq!(outcome(&open(&disk, dir(), &options(Route::Direct))), "corrupt");
    assert_eq!(disk.list(dir()).unwrap().len(), 2, "a manifest and the lock");
}

#[test]
fn a_crash_tail_is_counted_and_kept_beside_older_ones() {
    const TORN: &[u8] = &[7; 300];
    let disk = killed_after(&[Set(0, 100), Set(1, 200)]);
    let id = *ids(&disk).first().unwrap();
    let log = disk.open(&names::segment(dir(), id)).unwrap();
    let end = log.len().unwrap();
    log.write_at(TORN, end).unwrap();
    // Others were cut at the same place before.
    let kept = |attempt| names::crash_tail(dir(), id, end, attempt);
    disk.create_dir_all(&names::lost_and_found(dir())).unwrap();
    for attempt in [0, 1] {
        disk.create(&kept(attempt)).unwrap().write_at(b"older", 0).unwrap();
    }
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!(store.stats().crash_tails_cut, 1);
    assert_eq!(content(&store).unwrap().len(), 2);
    let found = [0, 1, 2].map(|attempt| read(&disk, &kept(attempt)));
    assert_eq!(found, [b"older", b"older", TORN]);
    drop(store);
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!(store.stats().crash_tails_cut, 0);
}

/// A log that its writer has sealed stays as it is, and the newest one gets a footer: both are
/// sealed from then on, and the next open leaves them alone.
#[test]
fn logs_of_a_killed_process_end_in_one_footer_each() {
    let disk = killed_after(&[Set(0, 3000), Set(1, 3000)]);
    let logs: Vec<_> = ids(&disk).into_iter().map(|id| names::segment(dir(), id)).collect();
    let [sealed, newest] = [0, 1].map(|index| read(&disk, &logs[index]));
    for _ in 0..2 {
        let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
        let segments = store.core.segments.snapshot().segments;
        assert_eq!(segments.len(), 2);
        assert!(segments.iter().all(|segment| segment.footer().is_some()));
        assert_eq!(read(&disk, &logs[0]), sealed);
        let found = read(&disk, &logs[1]);
        assert_eq!((found.len(), found.starts_with(&newest)), (newest.len() + Footer::LEN, true));
        assert_eq!(Manifest::numbers(&disk.list(dir()).unwrap()), [2], "the one after the first");
    }
}

/// Where every write is synced, logs are longer than what is in them until they are sealed. Of a
/// killed process's no more is kept than that, and nobody takes the rest for an unfinished write;
/// nor a log for one that has room and nothing else, since power failed.
#[test]
fn room_that_was_not_used_is_no_crash_tail() {
    let disk = killed_on(Route::Sync, &[Set(0, 3000), Set(1, 2000), Set(2, 100)]);
    let logs: Vec<_> = ids(&disk).into_iter().collect();
    let [sealed, newest] = logs[..] else { panic!("two logs: {logs:?}") };
    let path = names::segment(dir(), newest);
    let left = read(&disk, &path);
    let used = left.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(left.len() > used + 500, "{used} of {}", left.len());
    let empty = names::segment(dir(), SegmentId::new(newest.get() + 1));
    disk.create(&empty).unwrap().set_len(1 << 10).unwrap();

    let report = verify::verify_dir(&*disk, dir(), &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.crash_tail_bytes, report.segment_count), (0, 3));
    let sealed_len = len_of(read(&disk, &names::segment(dir(), sealed)).len());
    let end = used.next_multiple_of(8);
    assert_eq!(report.total_bytes, sealed_len + len_of(end));
    let view = open(&disk, dir(), &options(Route::Sync).read_only(true)).unwrap();
    assert_eq!(content(&view).unwrap().len(), 3);

    let store = open(&disk, dir(), &options(Route::Sync)).unwrap();
    assert_eq!(content(&store).unwrap().len(), 3);
    assert_eq!(store.stats().crash_tails_cut, 0);
    assert!(!disk.exists(&names::lost_and_found(dir())).unwrap() && !disk.exists(&empty).unwrap());
    let found = read(&disk, &path);
    assert_eq!(found.len(), end + Footer::LEN);
    assert_eq!(found[..end], left[..end]);
}

/// A power failure between the cut and the footer's way to the disk can leave the footer alone.
#[test]
fn a_footer_with_room_behind_it_ends_its_log() {
    let disk = killed_after(&[Set(0, 3000), Set(1, 3000)]);
    let path = names::segment(dir(), *ids(&disk).first().unwrap());
    let sealed = read(&disk, &path);
    disk.open(&path).unwrap().set_len(5000).unwrap();
    let view = open(&disk, dir(), &options(Route::Direct).read_only(true)).unwrap();
    assert_eq!(content(&view).unwrap().len(), 2);
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!((content(&store).unwrap().len(), store.stats().crash_tails_cut), (2, 0));
    assert_eq!(read(&disk, &path), sealed);
}

/// Neither the log nor the hint that is made of it knows of its records afterwards.
#[test]
fn a_batch_without_its_last_record_is_cut_as_a_whole() {
    const BATCH: Step = Batch(&[(1, Some(100)), (0, Some(50)), (2, Some(100))]);
    let disk = killed_after(&[Set(0, 100), BATCH]);
    let path = names::segment(dir(), *ids(&disk).first().unwrap());
    let log = disk.open(&path).unwrap();
    log.set_len(log.len().unwrap() - 1).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    for cut in [1, 0] {
        let heard = Arc::clone(&heard);
        let options =
            options(Route::Direct).log_to(move |_, line| heard.lock().push(line.to_owned()));
        let store = open(&disk, dir(), &options).unwrap();
        assert_eq!(store.stats().crash_tails_cut, cut);
        assert_eq!(content(&store).unwrap(), Content::from([(KEYS[0], value(1, 100))]));
    }
    let heard = heard.lock();
    assert!(heard.iter().any(|line| line.contains("unfinished write")), "{heard:?}");
    assert!(!heard.iter().any(|line| line.contains("hint")), "{heard:?}");
}

/// Logs behind one that is not there are a crash tail as a whole: kept, unless there is nothing in
/// them, and removed.
#[test]
fn logs_behind_a_gap_are_given_up() {
    for (len, cut) in [(None, 1), (Some(HEADER_LEN), 0), (Some(HEADER_LEN + 1), 1)] {
        let disk = killed_after(&[Set(0, 3000), Set(1, 3000)]);
        let [first, second] = ids(&disk).into_iter().collect::<Vec<_>>()[..] else {
            panic!("two logs: {:?}", ids(&disk));
        };
        disk.remove(&names::segment(dir(), first)).unwrap();
        let path = names::segment(dir(), second);
        if let Some(len) = len {
            disk.open(&path).unwrap().set_len(len).unwrap();
        }
        let bytes = read(&disk, &path);
        let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
        assert_eq!(store.stats().crash_tails_cut, cut, "{len:?}");
        assert!(content(&store).unwrap().is_empty());
        assert!(!disk.exists(&path).unwrap());
        let kept = names::crash_tail(dir(), second, 0, 0);
        assert_eq!(disk.exists(&kept).unwrap(), cut == 1);
        assert!(cut == 0 || read(&disk, &kept) == bytes);
    }
}

/// A mark says up to which write the log was durable. A hole in what it covers is corruption, also
/// if the mark is in the next log; any other hole is a crash tail.
#[test]
fn what_was_durable_is_never_cut() {
    for (steps, expected) in [
        (&[Set(0, 10), Set(1, 10)][..], "opened"),
        (&[Set(0, 10), Sync, Set(1, 10)], "corrupt"),
        (&[Set(0, 3000), Set(1, 3000)], "opened"),
        (&[Set(0, 3000), Sync, Set(1, 3000)], "corrupt"),
    ] {
        let disk = killed_after(steps);
        let first = names::segment(dir(), *ids(&disk).first().unwrap());
        flip(&disk, &first, HEADER_LEN);
        let before = read(&disk, &first);
        let opened = open(&disk, dir(), &options(Route::Direct));
        assert_eq!(outcome(&opened), expected, "{steps:?}");
        if let Ok(store) = opened {
            assert!(content(&store).unwrap().is_empty(), "{steps:?}");
        } else {
            assert_eq!(read(&disk, &first), before, "{steps:?}");
        }
    }
}

/// The disk may say one thing when a log is verified and another when it is read to be written
/// again. Whenever that happens, the open ends, and what is damaged is not taken for good.
#[test]
fn a_log_that_changes_while_it_is_settled_is_damaged() {
    let mut outcomes = BTreeSet::new();
    for calls in 0..60 {
        let below = killed_after(&[Set(0, 300), Set(1, 300), Set(2, 300)]);
        let log = names::segment(dir(), *ids(&below).first().unwrap());
        let failing = FailingDisk::new(Arc::clone(&below));
        failing.act_after(calls, move || flip(&below, &log, HEADER_LEN + 500));
        let disk: Arc<dyn Disk> = Arc::new(failing);
        let opened = open(&disk, dir(), &options(Route::Direct));
        outcomes.insert(outcome(&opened));
        if let Ok(store) = opened {
            let second = store.get_bytes(KEYS[1].as_bytes());
            assert!(second.is_err() || second.unwrap().is_none_or(|held| *held == *value(2, 300)));
        }
    }
    assert_eq!(outcomes, BTreeSet::from(["corrupt", "opened"]));
}

/// Nothing is lost with a footer, whatever the logs behind it say was durable: there is another.
#[test]
fn a_log_that_lacks_its_footer_lacks_nothing() {
    let disk = killed_after(&[Set(0, 3000), Set(1, 3000), Sync, Set(2, 10)]);
    let path = names::segment(dir(), *ids(&disk).first().unwrap());
    let whole = read(&disk, &path);
    let file = disk.open(&path).unwrap();
    file.set_len(u64::try_from(whole.len() - Footer::LEN).unwrap()).unwrap();
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert_eq!((content(&store).unwrap().len(), store.stats().crash_tails_cut), (3, 0));
    assert_eq!(read(&disk, &path), whole);
}

/// While a long log is read to its end, it is told about once per MiB how far that has come.
#[test]
fn a_long_log_is_read_in_steps_of_a_mebibyte() {
    const STEP: u64 = 1 << 20;
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let options = options(Route::Direct).segment_bytes_min(8 << 20).segment_bytes_max(8 << 20);
    let store = open(&disk, dir(), &options).unwrap();
    (0..40).for_each(|number| do_step(&store, Set(number % 6, 100 << 10), number).unwrap());
    let killed: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
    // Each byte is counted once, before anyone sees to it that the sum is no more than the whole.
    let (path, slot) = (names::segment(dir(), SegmentId::new(1)), Slot::new(1).unwrap());
    let log = Segment::open(&*killed, &path, slot, ReadMode::Positioned, None).unwrap();
    let mut counted = 0;
    walk_to_end(&log, KeyHasher::new(1), &mut |bytes| counted += bytes).unwrap();
    assert_eq!(counted, log.len());
    let mut done = vec![0];
    let progress = &mut |now: Progress| done.push(now.done_bytes);
    KvStore::open_on(&killed, dir().to_path_buf(), options, progress).unwrap();
    assert_eq!(done.last(), Some(&store.stats().total_bytes));
    let steps: Vec<_> = done.windows(2).map(|two| two[1] - two[0]).collect();
    let (last, whole) = steps.split_last().unwrap();
    assert!(*last <= STEP + (101 << 10), "{steps:?}");
    assert_eq!(whole.len(), 3, "{steps:?}");
    assert!(whole.iter().all(|step| (STEP..STEP + (101 << 10)).contains(step)), "{steps:?}");
}

/// A process is killed when the outputs of a compaction are durable and no manifest lists them, or
/// when they are listed and the inputs could not be removed: either the ones go or the others.
#[test]
fn of_a_compaction_that_was_cut_short_only_one_side_stays() {
    for is_listed in [false, true] {
        let model = ModelledDisk::default();
        let failing = FailingDisk::new(Arc::new(model.clone()));
        let disk: Arc<dyn Disk> = Arc::new(failing.clone());
        let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
        for number in 0..8 {
            do_step(&store, Set(number % 5, 300), number).unwrap();
        }
        store.core.writer.seal_active().unwrap();
        let inputs = ids(&disk);
        let is_remove = |call| call == Call::Remove;
        failing.fail_after(0, Fault { code: 5, half: false, sticky: true, chosen: is_remove });
        let unlisted = Mutex::new(None);
        let sync_log = || {
            *unlisted.lock() = Some(moment_of(&model));
            store.core.writer.sync_sealed()
        };
        // It has happened all the same.
        let compacted = store.core.compactor.compact_some(&sync_log, &|| false);
        assert_eq!(compacted.unwrap_err().os_error(), Some(5));
        let unlisted = unlisted.into_inner().expect("there is something to compact");
        let moment = if is_listed { moment_of(&model) } else { unlisted };
        let killed: Arc<dyn Disk> = Arc::new(moment.after_kill());
        assert!(ids(&killed).is_superset(&inputs) && ids(&killed).len() > inputs.len());
        let opened = open(&killed, dir(), &options(Route::Direct)).unwrap();
        assert_eq!(content(&opened).unwrap(), content(&store).unwrap());
        assert_eq!(opened.stats().crash_tails_cut, 0);
        assert_eq!(ids(&killed) == inputs, !is_listed, "{:?}", ids(&killed));
        assert_eq!(ids(&killed).is_superset(&inputs), !is_listed, "{:?}", ids(&killed));
    }
}

#[test]
fn ids_of_segments_are_never_given_twice() {
    let disk = empty();
    let (mut seen, mut number) = (BTreeSet::new(), 1);
    for _ in 0..4 {
        let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
        for step in [Set(0, 3000), Set(1, 3000), Set(0, 10), Compact] {
            let before = ids(&disk);
            do_step(&store, step, number).unwrap();
            number += 1;
            let last = seen.last().copied();
            let new: Vec<_> = ids(&disk).difference(&before).copied().collect();
            assert!(new.iter().all(|id| Some(*id) > last), "{new:?} after {last:?}");
            seen.extend(new);
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
}

/// The count of keys, once it is known, is listed by closing, also if everything else was listed
/// before; and what changes nothing writes nothing.
#[test]
fn closing_lists_how_many_keys_there_are_unless_that_is_listed() {
    let disk = empty();
    let listed = || {
        let found = Manifest::find(&*disk, dir(), &disk.list(dir()).unwrap()).unwrap();
        found.map(|(number, manifest)| (number, manifest.key_count)).unwrap()
    };
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    (0..2).for_each(|key| do_step(&store, Set(key, 10), key).unwrap());
    let compactor = &store.core.compactor;
    assert!(!compactor.has_unlisted(), "it is not sealed");
    store.core.writer.seal_active().unwrap();
    assert!(compactor.has_unlisted());
    compactor.list_sealed(None, &|| Ok(())).unwrap();
    assert!(!compactor.has_unlisted());
    let (number, key_count) = listed();
    assert_eq!(key_count, None);
    assert_eq!(store.len().unwrap(), 2);
    store.close().unwrap();
    assert_eq!(listed(), (number + 1, Some(2)));
    open(&disk, dir(), &options(Route::Direct)).unwrap().close().unwrap();
    assert_eq!(listed(), (number + 1, Some(2)));
}

#[test]
fn there_is_a_tail_where_one_is_wanted_and_no_other() {
    for (mode, durability, expected) in [
        (WriteMode::Tail, Durability::Os, true),
        (WriteMode::Direct, Durability::Os, false),
        (WriteMode::Tail, Durability::Sync, false),
        (WriteMode::Direct, Durability::Sync, false),
    ] {
        let disk = empty();
        drop(open(&disk, dir(), &options(Route::Tail)).unwrap());
        assert!(disk.exists(&names::tail(dir())).unwrap());
        let options = options(Route::Tail).write_mode(mode).durability(durability);
        let store = open(&disk, dir(), &options).unwrap();
        do_step(&store, Set(0, 10), 1).unwrap();
        assert_eq!(content(&store).unwrap().len(), 1);
        assert_eq!(disk.exists(&names::tail(dir())).unwrap(), expected, "{mode:?}, {durability:?}");
    }
}

/// Closing wakes the thread that syncs at intervals, and the sync that it was about to do was
/// refused, because the store was closed: an error, said its log, at every other close.
#[test]
fn closing_is_no_error_to_the_log() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut options = options(Route::Direct);
    options.durability = Durability::Interval(Duration::from_millis(20));
    options.logger = Logger::to({
        let heard = Arc::clone(&heard);
        move |level, line| heard.lock().push((level, line.to_owned()))
    });
    let failing = FailingDisk::new(empty());
    let disk: Arc<dyn Disk> = Arc::new(failing.clone());
    let store = open(&disk, dir(), &options).unwrap();
    do_step(&store, Set(0, 10), 1).unwrap();
    // The thread is there when it has synced once.
    while store.stats().sync_count == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    do_step(&store, Set(0, 10), 2).unwrap();
    // Time for it to see that there is something to sync, before closing has synced it.
    failing.act_after(0, || std::thread::sleep(Duration::from_millis(50)));
    store.close().unwrap();
    let heard = heard.lock();
    let alarming: Vec<_> = heard.iter().filter(|(level, _)| *level <= LogLevel::Warn).collect();
    assert!(alarming.is_empty(), "{alarming:?}");
    assert!(!heard.is_empty());
}

/// What another store has written, or another log of this one has, in the place of a log. It is
/// left as it is.
#[test]
fn a_log_of_another_store_is_refused() {
    let log = |disk: &Arc<dyn Disk>| names::segment(dir(), *ids(disk).first().unwrap());
    let model = ModelledDisk::default();
    // Disks in memory all give the same numbers.
    model.random();
    let another: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&another, dir(), &options(Route::Direct)).unwrap();
    store.set_bytes(b"a", b"1").unwrap();
    let another: Arc<dyn Disk> = Arc::new(moment_of(&model).after_kill());
    let disk = killed_after(&[Set(0, 100)]);
    for (path, bytes) in [
        (log(&disk), read(&another, &log(&another))),
        (names::segment(dir(), SegmentId::new(9)), read(&disk, &log(&disk))),
    ] {
        let disk = killed_after(&[Set(0, 100)]);
        if disk.exists(&path).unwrap() {
            disk.remove(&path).unwrap();
        }
        disk.create(&path).unwrap().write_at(&bytes, 0).unwrap();
        let opened = open(&disk, dir(), &options(Route::Direct));
        assert_eq!(outcome(&opened), "corrupt", "{}", path.display());
        assert_eq!(read(&disk, &path), bytes, "{}", path.display());
    }
}

/// Compaction removes the file first: a crash leaves its hint behind.
#[test]
fn a_hint_without_its_file_is_removed() {
    let disk = killed_after(&[Set(0, 100)]);
    let hint = names::hint(&names::segment(dir(), SegmentId::new(9)));
    disk.create(&hint).unwrap().write_at(b"anything", 0).unwrap();
    let store = open(&disk, dir(), &options(Route::Direct)).unwrap();
    assert!(!disk.exists(&hint).unwrap());
    assert_eq!(content(&store).unwrap().len(), 1);
}
