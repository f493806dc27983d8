//! Upkeep: verify, checkpoint, repair, the listing of records, on sound and on damaged stores.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use kvs::{
    Durability, KvStore, KvsEngine, KvsError, LogRecord, Options, Progress, RepairReport,
    VerifyReport, WriteBatch, WriteMode,
};

use crate::recovery::segments;
use crate::store::tiny_segments;

fn options() -> Options {
    tiny_segments().write_mode(WriteMode::Direct).segment_bytes_min(4096).auto_compaction(false)
}

fn snapshot_of_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn value_of(i: u32) -> Vec<u8> {
    [&i.to_be_bytes()[..], &[7; 60]].concat()
}

const KEYS: u32 = 400;

/// A closed store of several segments: `KEYS` keys, every tenth of them removed again.
fn sound_store(dir: &Path) {
    let store = KvStore::open_with(dir, options()).unwrap();
    for i in 0..KEYS {
        store.set_bytes(&i.to_be_bytes(), &value_of(i)).unwrap();
    }
    for i in (0..KEYS).step_by(10) {
        store.remove_bytes(&i.to_be_bytes()).unwrap();
    }
    store.close().unwrap();
    // Opening lists them all in the manifest.
    drop(KvStore::open_with(dir, options()).unwrap());
    assert!(segments(dir).len() > 3, "several segments");
}

#[track_caller]
fn verify_dir(dir: &Path) -> VerifyReport {
    KvStore::verify_dir(dir, &mut |_| {}).unwrap()
}

#[track_caller]
fn check_damage(dir: &Path, file: &Path, what: &str) -> VerifyReport {
    let before = snapshot_of_files(dir);
    let report = verify_dir(dir);
    let hit = |damage: &kvs::Damage| damage.path == file && damage.what.contains(what);
    assert!(report.damages.iter().any(hit), "no {what:?} of {}: {report:?}", file.display());
    assert!(!report.is_sound());
    assert_eq!(snapshot_of_files(dir), before, "verify changed something");
    report
}

#[test]
fn a_sound_store_verifies_open_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    sound_store(dir.path());
    let closed = verify_dir(dir.path());
    assert!(closed.is_sound(), "{closed:?}");
    assert_eq!(closed.crash_tail_bytes, 0);
    assert_eq!(closed.segment_count, segments(dir.path()).len() as u64);
    assert!(closed.record_count >= u64::from(KEYS + KEYS / 10));

    let store = KvStore::open_with(dir.path(), options()).unwrap();
    store.set_bytes(b"new", b"in the active log").unwrap();
    let mut bytes = Vec::new();
    let open = store.verify_with(&mut |progress| bytes.push(progress.done_bytes)).unwrap();
    assert!(open.is_sound(), "{open:?}");
    assert_eq!(open.live_key_count, store.len().unwrap());
    assert_eq!(open.total_bytes, store.stats().total_bytes);
    assert_eq!(bytes.last(), Some(&open.total_bytes), "progress ends at the end");
    assert!(bytes.is_sorted());
    match KvStore::verify_dir(dir.path(), &mut |_| {}) {
        Err(KvsError::Locked { .. }) => {}
        other => panic!("{other:?}"),
    }
    store.close().unwrap();
    assert!(matches!(store.verify(), Err(KvsError::Closed)));
}

#[test]
fn verify_finds_every_flipped_byte_of_a_record() {
    let dir = tempfile::tempdir().unwrap();
    sound_store(dir.path());
    let file = segments(dir.path()).remove(1);
    let good = std::fs::read(&file).unwrap();
    // Offsets in the header of the segment, in headers of records, keys, values, the footer.
    let footer = good.len() - 48;
    for at in [0, 9, 20, 63, 64, 70, 80, 90, 100, 500, 1001, 2000, footer, footer + 40] {
        let mut bent = good.clone();
        bent[at] ^= 0x10;
        std::fs::write(&file, &bent).unwrap();
        let report = check_damage(dir.path(), &file, "");
        assert!(report.damage_count <= 2, "byte {at}: {report:?}");
    }
    std::fs::write(&file, &good).unwrap();
    assert!(verify_dir(dir.path()).is_sound());
}

#[test]
fn verify_finds_files_that_are_cut_missing_or_foreign() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sound_store(dir.path());
    sound_store(other.path());
    let file = segments(dir.path()).remove(1);
    let good = std::fs::read(&file).unwrap();

    std::fs::write(&file, &good[..good.len() - 100]).unwrap();
    check_damage(dir.path(), &file, "does not end as the manifest says");
    std::fs::remove_file(&file).unwrap();
    check_damage(dir.path(), &file, "missing");
    let foreign = other.path().join(file.file_name().unwrap());
    std::fs::copy(foreign, &file).unwrap();
    check_damage(dir.path(), &file, "another store");
    std::fs::write(&file, [&good[..], b"more"].concat()).unwrap();
    check_damage(dir.path(), &file, "does not end as the manifest says");
    std::fs::write(&file, &good).unwrap();

    let manifest = snapshot_of_files(dir.path())
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.to_str().unwrap().contains("MANIFEST"))
        .unwrap();
    let text = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &text[..text.len() - 2]).unwrap();
    check_damage(dir.path(), &manifest, "checksum of the manifest");
}

#[test]
fn verify_says_what_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |dir: &Path| KvStore::verify_dir(dir, &mut |_| {});
    assert!(matches!(verify(dir.path()), Err(KvsError::NoStore { .. })));
    assert!(matches!(verify(&dir.path().join("missing")), Err(KvsError::NoStore { .. })));
    std::fs::write(dir.path().join("1.log"), b"{}").unwrap();
    assert!(matches!(verify(dir.path()), Err(KvsError::UnsupportedFormat { found: 0, .. })));
    assert_eq!(dir.path().read_dir().unwrap().count(), 1, "something was made");
}

/// Each row is what a crash may leave behind the last record of the newest log.
#[test]
fn a_crash_tail_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    store.set_bytes(b"k", b"v").unwrap();
    let crashed = dir.path().join("crashed");
    for tail in [&b""[..], b"x", &[0; 100], &[9; 1000]] {
        std::fs::create_dir_all(&crashed).unwrap();
        for (path, bytes) in snapshot_of_files(&live) {
            std::fs::write(crashed.join(path.file_name().unwrap()), bytes).unwrap();
        }
        let log = segments(&crashed).pop().unwrap();
        let bytes = [std::fs::read(&log).unwrap(), tail.to_vec()].concat();
        std::fs::write(&log, bytes).unwrap();
        let report = verify_dir(&crashed);
        assert!(report.is_sound(), "{report:?}");
        // Zeros may be room for what was to come.
        let torn = if tail.iter().any(|byte| *byte != 0) { tail.len() } else { 0 };
        assert_eq!(report.crash_tail_bytes, torn as u64);
        std::fs::remove_dir_all(&crashed).unwrap();
    }
}

/// A missing log that later ones follow: opening would take those for a crash tail.
#[test]
fn logs_behind_a_missing_one_are_reported_before_they_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    for i in 0..KEYS {
        store.set_bytes(&i.to_be_bytes(), &value_of(i)).unwrap();
    }
    // Not closed: closing lists the logs, and a listed one that is missing is reported as such.
    let crashed = crashed_copy(&live);
    let files = segments(&crashed);
    std::fs::remove_file(&files[1]).unwrap();
    let report = check_damage(&crashed, &files[2], "the log before it is missing");
    assert_eq!(report.damage_count, 1);
    let report = repair(&crashed, &dir.path().join("repaired"));
    assert!(report.key_count > u64::from(KEYS / 2), "logs behind the gap are saved");
    assert!(report.doubtful_key_count > 0 && report.doubtful_key_count < report.key_count);
}

/// The files of an open store, copied beside it as a crash would leave them.
fn crashed_copy(live: &Path) -> PathBuf {
    let crashed = live.with_file_name("crashed");
    std::fs::create_dir_all(&crashed).unwrap();
    for (path, bytes) in snapshot_of_files(live) {
        std::fs::write(crashed.join(path.file_name().unwrap()), bytes).unwrap();
    }
    crashed
}

/// The same hole is damage once a mark behind it says that it was durable.
#[test]
fn a_hole_below_a_mark_is_damage_with_the_writes_that_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    for key in [b"a", b"b", b"c"] {
        store.set_bytes(key, b"v").unwrap();
        store.sync().unwrap();
    }
    let crashed = crashed_copy(&live);
    let log = segments(&crashed).pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[64 + 8] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let report = check_damage(&crashed, &log, "header");
    assert_eq!(report.damages[0].writes, Some((1, 1)));
    assert_eq!(report.crash_tail_bytes, 0);
}

#[test]
fn an_open_store_counts_the_keys_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    sound_store(dir.path());
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    let file = segments(dir.path()).remove(1);
    let mut bytes = std::fs::read(&file).unwrap();
    // In the value of one record; the mapping sees what the file holds.
    bytes[64 + 24 + 4 + 10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.damage_count, report.unreadable_key_count), (1, 1), "{report:?}");
    assert_eq!(report.damages[0].path, file);
    assert_eq!(report.damages[0].offset, 64);
    assert!(report.damages[0].writes.is_some());
}

#[track_caller]
fn repair(from: &Path, to: &Path) -> RepairReport {
    let before = snapshot_of_files(from);
    let report = KvStore::repair(from, to, &mut |_| {}).unwrap();
    assert_eq!(snapshot_of_files(from), before, "the source was written");
    assert!(verify_dir(to).is_sound());
    report
}

#[test]
fn repair_of_a_sound_store_is_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    sound_store(&from);
    let report = repair(&from, &to);
    assert_eq!((report.doubtful_key_count, report.manifest_lost), (0, false));
    let store = KvStore::open(&to).unwrap();
    assert_eq!(store.len().unwrap(), u64::from(KEYS - KEYS / 10));
    assert_eq!(report.key_count, store.len().unwrap());
    for i in 0..KEYS {
        let expected = (i % 10 != 0).then(|| value_of(i));
        assert_eq!(store.get_bytes(&i.to_be_bytes()).unwrap().as_deref(), expected.as_deref());
    }
}

/// All the reading is told of, that of files which cannot be read included.
#[test]
fn verify_and_repair_say_how_far_they_have_come() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    sound_store(&from);
    let total_bytes: u64 =
        segments(&from).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    let check = |seen: &[Progress], total_bytes: u64, what: &str| {
        assert!(seen.iter().all(|at| at.total_bytes == total_bytes), "{what}: {seen:?}");
        assert!(seen.is_sorted_by_key(|at| at.done_bytes), "{what}: {seen:?}");
        assert_eq!(seen.last().unwrap().done_bytes, total_bytes, "{what}: {seen:?}");
    };
    for what in ["sound", "without a header"] {
        let mut seen = Vec::new();
        KvStore::verify_dir(&from, &mut |progress| seen.push(progress)).unwrap();
        check(&seen, total_bytes, what);
        let mut seen = Vec::new();
        let to = dir.path().join(what);
        KvStore::repair(&from, &to, &mut |progress| seen.push(progress)).unwrap();
        check(&seen, 3 * total_bytes, what);
        let file = segments(&from).remove(0);
        let len = std::fs::metadata(&file).unwrap().len();
        std::fs::write(&file, vec![0; usize::try_from(len).unwrap()]).unwrap();
    }
}

#[test]
fn repair_saves_every_record_outside_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    sound_store(&from);
    let file = segments(&from).remove(1);
    let mut bytes = std::fs::read(&file).unwrap();
    // From within one record into the next but one: three records are hit.
    let record_len = (24_usize + 4 + 64).next_multiple_of(8);
    let start = 64 + 5 * record_len + 10;
    bytes[start..start + 2 * record_len].fill(0xAB);
    std::fs::write(&file, bytes).unwrap();
    let report = repair(&from, &to);
    assert_eq!(report.found.damage_count, 1, "{report:?}");
    let (first, last) = report.found.damages[0].writes.unwrap();
    assert_eq!(last - first, 2, "three writes are lost");
    let store = KvStore::open(&to).unwrap();
    for i in 0..KEYS {
        let is_lost = (first..=last).contains(&u64::from(i + 1));
        let expected = (i % 10 != 0 && !is_lost).then(|| value_of(i));
        let found = store.get_bytes(&i.to_be_bytes()).unwrap();
        assert_eq!(found.as_deref(), expected.as_deref(), "key {i}");
    }
    // What was written later is certain; what was written before could be outdated.
    let older = (0..KEYS).filter(|i| i % 10 != 0 && u64::from(i + 1) < first).count();
    assert_eq!(report.doubtful_key_count, older as u64);
}

#[test]
fn repair_does_without_a_manifest_or_a_segment_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    sound_store(&from);
    let file = segments(&from).remove(1);
    std::fs::rename(&file, dir.path().join("aside")).unwrap();
    let report = repair(&from, &dir.path().join("to1"));
    assert!(report.key_count > 0 && report.key_count < u64::from(KEYS - KEYS / 10));
    assert_eq!(report.doubtful_key_count, report.key_count);
    std::fs::rename(dir.path().join("aside"), &file).unwrap();

    for (path, _) in snapshot_of_files(&from) {
        if path.to_str().unwrap().contains("MANIFEST") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let report = repair(&from, &dir.path().join("to2"));
    assert!(report.manifest_lost);
    assert_eq!(report.key_count, u64::from(KEYS - KEYS / 10));
    assert_eq!(report.doubtful_key_count, report.key_count);
}

#[test]
fn repair_is_refused_where_it_would_destroy() {
    let dir = tempfile::tempdir().unwrap();
    let (from, other) = (dir.path().join("from"), dir.path().join("other"));
    sound_store(&from);
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), b"mine").unwrap();
    let before = snapshot_of_files(&from);
    let repair = |from: &Path, to: &Path| KvStore::repair(from, to, &mut |_| {});
    assert!(matches!(repair(&from, &from), Err(KvsError::StoreExists { .. })));
    assert!(matches!(repair(&from, &other), Err(KvsError::NotEmpty { .. })));
    let missing = dir.path().join("missing");
    assert!(matches!(repair(&missing, &dir.path().join("to")), Err(KvsError::NoStore { .. })));
    assert!(!missing.exists() && !dir.path().join("to").exists(), "something was made");
    let open = KvStore::open_with(&from, options()).unwrap();
    assert!(matches!(repair(&from, &dir.path().join("to")), Err(KvsError::Locked { .. })));
    drop(open);
    assert_eq!(before.len(), snapshot_of_files(&from).len());
}

#[test]
fn a_checkpoint_opens_and_is_a_store_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copy) = (dir.path().join("live"), dir.path().join("deep/copy"));
    let store = KvStore::open_with(&live, options()).unwrap();
    for i in 0..KEYS {
        store.set_bytes(&i.to_be_bytes(), &value_of(i)).unwrap();
    }
    store.checkpoint(&copy).unwrap();
    let files = snapshot_of_files(&copy);
    store.set_bytes(b"later", b"not in the copy").unwrap();
    // Everything the original does from here on is its own business.
    for i in 0..KEYS {
        store.set_bytes(&i.to_be_bytes(), b"overwritten").unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    drop(KvStore::open_with(&live, options()).unwrap());
    assert_eq!(snapshot_of_files(&copy), files, "the original wrote into the copy");
    std::fs::remove_dir_all(&live).unwrap();

    assert!(verify_dir(&copy).is_sound());
    let copied = KvStore::open_with(&copy, options()).unwrap();
    assert_eq!(copied.len().unwrap(), u64::from(KEYS));
    for i in 0..KEYS {
        let found = copied.get_bytes(&i.to_be_bytes()).unwrap();
        assert_eq!(found.as_deref(), Some(&*value_of(i)), "key {i}");
    }
    copied.set_bytes(b"later", b"its own").unwrap();
    copied.compact().unwrap();
    copied.close().unwrap();
    assert!(verify_dir(&copy).is_sound());
}

#[test]
fn writing_into_a_copy_leaves_the_original_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (live, copy) = (dir.path().join("live"), dir.path().join("copy"));
    sound_store(&live);
    let store = KvStore::open_with(&live, options()).unwrap();
    store.checkpoint(&copy).unwrap();
    let copied = KvStore::open_with(&copy, options()).unwrap();
    for i in 0..KEYS {
        copied.set_bytes(&i.to_be_bytes(), b"overwritten").unwrap();
    }
    copied.compact().unwrap();
    copied.close().unwrap();
    assert!(store.verify().unwrap().is_sound());
    assert_eq!(store.get_bytes(&1_u32.to_be_bytes()).unwrap().as_deref(), Some(&*value_of(1)));
    store.close().unwrap();
    assert!(verify_dir(&live).is_sound());
}

/// Three writers count, each with its own key, while checkpoints are taken and segments compacted.
/// One counter is written in order across keys `n % 8`, so that any gap would show.
#[test]
fn a_checkpoint_under_writers_is_a_prefix_of_the_writes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).segment_bytes_max(1 << 20);
    let options = options.segment_bytes_min(1 << 18);
    let store = KvStore::open_with(dir.path().join("live"), options.clone()).unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                store.set_bytes(&(n % 8).to_be_bytes(), &n.to_be_bytes()).unwrap();
                done.store(n, Ordering::SeqCst);
            }
        });
        for writer in 0..2_u8 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let mut batch = WriteBatch::new();
                while !stop.load(Ordering::SeqCst) {
                    batch.clear();
                    for key in 0..10_u8 {
                        batch.set(&[b'w', writer, key], &done_value(key));
                    }
                    store.apply(&batch).unwrap();
                }
            });
        }
        // Also if a check fails: the scope waits for its threads.
        let _stopper = Stopper(&stop);
        for round in 0..12 {
            let copy = dir.path().join(format!("copy{round}"));
            let before = done.load(Ordering::SeqCst);
            store.checkpoint(&copy).unwrap();
            let after = done.load(Ordering::SeqCst) + 1;
            if round % 3 == 0 {
                store.compact().unwrap();
            }
            check_prefix(&copy, &options, before, after);
        }
    });
}

/// Tells threads to end when it goes.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn done_value(key: u8) -> Vec<u8> {
    vec![key; 100]
}

/// The counter of `copy` is somewhere between `before` and `after`, and no key is behind it.
#[track_caller]
fn check_prefix(copy: &Path, options: &Options, before: u64, after: u64) {
    let copied = KvStore::open_with(copy, options.clone()).unwrap();
    assert_eq!(copied.stats().crash_tails_cut, 0);
    let value = |key: u64| {
        let found = copied.get_bytes(&key.to_be_bytes()).unwrap();
        found.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
    };
    let last = (0..8).map(value).max().unwrap();
    assert!((before..=after).contains(&last), "{last} is not in {before}..={after}");
    for n in last.saturating_sub(7).max(1)..=last {
        assert_eq!(value(n % 8), n, "the write {n} is missing before {last}");
    }
    for writer in 0..2 {
        let count = (0..10).filter(|key| copied.contains(&[b'w', writer, *key]).unwrap()).count();
        assert!(count == 0 || count == 10, "part of a batch: {count}");
    }
}

#[test]
fn a_checkpoint_is_refused_where_something_is_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = KvStore::open_with(&live, options()).unwrap();
    store.set_bytes(b"k", b"v").unwrap();
    assert!(matches!(store.checkpoint(&live), Err(KvsError::StoreExists { .. })));
    let other = dir.path().join("other");
    drop(KvStore::open(&other).unwrap());
    assert!(matches!(store.checkpoint(&other), Err(KvsError::StoreExists { .. })));
    let notes = dir.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("mine.txt"), b"mine").unwrap();
    assert!(matches!(store.checkpoint(&notes), Err(KvsError::NotEmpty { .. })));
    assert_eq!(notes.read_dir().unwrap().count(), 1);
    let file = notes.join("mine.txt");
    assert!(matches!(store.checkpoint(&file), Err(KvsError::NotADirectory { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    // An empty directory is as good as none.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    store.checkpoint(&empty).unwrap();
    assert_eq!(KvStore::open(&empty).unwrap().get_bytes(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    store.close().unwrap();
    let late = dir.path().join("late");
    assert!(matches!(store.checkpoint(&late), Err(KvsError::Closed)));
    assert!(!late.exists());
}

/// `/dev/shm` is another file system, where there is one: no links lead there.
#[test]
fn a_checkpoint_on_another_file_system_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    sound_store(&live);
    let store = KvStore::open_with(&live, options()).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let copy = elsewhere.path().join("copy");
    store.checkpoint(&copy).unwrap();
    assert_eq!(KvStore::open(&copy).unwrap().len().unwrap(), store.len().unwrap());
}

#[test]
fn the_log_lists_every_record_and_what_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    store.set_bytes(b"city", b"Bergen").unwrap();
    store.set_bytes(b"city", b"Oslo").unwrap();
    store.set_bytes(b"\xff", b"\x00\xfe").unwrap();
    store.set_bytes(b"gone", b"").unwrap();
    store.remove_bytes(b"gone").unwrap();
    let mut batch = WriteBatch::new();
    batch.set(b"b2", b"longer").set(b"b1", b"1");
    store.apply(&batch).unwrap();

    // While it is open, and by whoever may only read it.
    let mut lines = Vec::new();
    let mut visit = |record: &LogRecord<'_>| {
        lines.push(record.to_json(true));
        Ok(())
    };
    KvStore::read_log(dir.path(), &mut visit).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines
        .iter()
        .filter(|line| line["kind"] != "footer")
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let key = if line["key"].is_null() { text("key_b64") } else { text("key") };
            let value = if line["value"].is_null() { text("value_b64") } else { text("value") };
            (line["seqno"].as_u64().unwrap(), text("kind"), key, value, text("state"))
        })
        .collect();
    let row = |seqno: u64, kind: &str, key: &str, value: &str, state: &str| {
        (seqno, kind.to_owned(), key.to_owned(), value.to_owned(), state.to_owned())
    };
    assert_eq!(
        seen,
        [
            row(1, "put", "city", "Bergen", "stale"),
            row(2, "put", "city", "Oslo", "live"),
            row(3, "put", "/w==", "AP4=", "live"),
            row(4, "put", "gone", "", "stale"),
            row(5, "tombstone", "gone", "-", "stale"),
            row(6, "put", "b1", "1", "live"),
            row(7, "put", "b2", "longer", "live"),
        ]
    );
    assert_eq!(lines[0]["offset"], 64);
    assert_eq!(lines[1]["offset"], 64 + lines[0]["bytes"].as_u64().unwrap());
    assert_eq!(lines[0]["value_len"], 6);
    assert_eq!(lines[6]["batch"], true);
    assert!(lines[0]["file"].as_str().unwrap().starts_with("seg-"));
}

#[test]
fn the_log_shows_damage_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    sound_store(dir.path());
    let file = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut damaged = Vec::new();
    let mut visit = |record: &LogRecord<'_>| {
        if record.damage.is_some() {
            damaged.push((record.path.to_path_buf(), record.offset));
        }
        Ok(())
    };
    KvStore::read_log(dir.path(), &mut visit).unwrap();
    assert_eq!(damaged, [(file, 64)]);
    let mut calls = 0;
    let mut stop = |_: &LogRecord<'_>| {
        calls += 1;
        Err(KvsError::Closed)
    };
    assert!(matches!(KvStore::read_log(dir.path(), &mut stop), Err(KvsError::Closed)));
    assert_eq!(calls, 1);
}

#[test]
fn statistics_of_segments_add_up() {
    let dir = tempfile::tempdir().unwrap();
    sound_store(dir.path());
    let store = KvStore::open_with(dir.path(), options()).unwrap();
    store.set_bytes(b"k", b"v").unwrap();
    let (stats, segments) = (store.stats(), store.segment_stats());
    assert_eq!(segments.len() as u64, stats.segment_count);
    assert_eq!(segments.iter().map(|s| s.total_bytes).sum::<u64>(), stats.total_bytes);
    assert_eq!(segments.iter().map(|s| s.live_bytes).sum::<u64>(), stats.live_bytes);
    assert_eq!(segments.iter().filter(|s| !s.is_sealed).count(), 1);
    assert!(segments.iter().all(|s| dir.path().join(&s.file).is_file()));
}

#[test]
fn a_checkpoint_that_fails_removes_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    sound_store(&live);
    let store = KvStore::open_with(&live, options()).unwrap();
    // Half way: some files are there, and one cannot be linked any more.
    std::fs::remove_file(&segments(&live)[2]).unwrap();
    let fresh = dir.path().join("fresh");
    assert!(matches!(store.checkpoint(&fresh), Err(KvsError::Io { .. })));
    assert!(!fresh.exists());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(store.checkpoint(&empty), Err(KvsError::Io { .. })));
    assert_eq!(empty.read_dir().unwrap().count(), 0);
}

#[cfg(feature = "sled")]
#[test]
fn an_engine_without_checkpoints_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = kvs::SledKvsEngine::open(dir.path().join("sled")).unwrap();
    let error = store.checkpoint(&dir.path().join("copy")).unwrap_err();
    assert!(matches!(error, KvsError::Unsupported { engine: "sled", .. }), "{error:?}");
    assert!(!dir.path().join("copy").exists());
}
