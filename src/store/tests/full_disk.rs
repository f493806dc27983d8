//! The disk is full: nothing acknowledged is lost, everything is read, removes and compaction
//! work, and writing goes on when there is room.
//!
//! On a disk in memory with a limit, and on a small tmpfs where this process may mount one.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::failures::fault;
use super::*;
use crate::error::KvsError;
use crate::store::disk::RealDisk;
use crate::store::disk::failing::Call;
use crate::store::disk::modelled::ModelledDisk;
use crate::store::location::{SegmentId, len_of};
use crate::store::names;

/// Size of the disk (4 MiB): many segments, and many times the reserve.
const DISK_BYTES: usize = 4 << 20;

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn filler(number: usize) -> Vec<u8> {
    value(number, 1000 + number % 7 * 100)
}

#[track_caller]
fn check_full(outcome: &Result<()>) {
    assert!(matches!(outcome, Err(KvsError::NoSpace { .. })), "{outcome:?}");
}

#[track_caller]
fn check_holds(store: &KvStore, numbers: impl Iterator<Item = usize>) {
    let mut count = 0;
    for number in numbers {
        let found = store.get_bytes(&key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(&*filler(number)), "{number}");
        count += 1;
    }
    assert_eq!(store.len().unwrap(), count);
}

/// Compacts until the files of what was compacted have gone.
///
/// Under a sanitizer, on a busy machine, they stayed for longer than compaction waits for them: the
/// epochs that protect readers are those of the process, and a thread of another test stood still.
#[track_caller]
fn compact(store: &KvStore) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let compacted = store.compact();
        if store.core.segments.sweep().unwrap() && compacted.is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "{compacted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sets keys from `from` on until the disk is full; the first that was refused.
fn fill(store: &KvStore, from: usize) -> usize {
    let fits = |number: &usize| match store.set_bytes(&key(*number), &filler(*number)) {
        Ok(()) => true,
        Err(KvsError::NoSpace { .. }) => false,
        Err(other) => panic!("{other:?}"),
    };
    (from..from + DISK_BYTES).find(|number| !fits(number)).expect("a disk ends")
}

fn check_full_disk(disk: &Arc<dyn Disk>, dir: &Path, route: Route) {
    let options = options(route).segment_bytes_min(32 << 10).segment_bytes_max(64 << 10);
    let store = open(disk, dir, &options).unwrap();
    let count = fill(&store, 0);
    assert!(count > 2000, "only {count} values fit");
    // Full stays full, for whatever adds data, however small.
    for _ in 0..3 {
        check_full(&store.set_bytes(b"one more", b""));
    }
    assert!(store.stats().is_reserve_lent);
    check_holds(&store, 0..count);
    store.sync().unwrap();

    // It can be closed and opened.
    store.close().unwrap();
    drop(store);
    let store = open(disk, dir, &options).unwrap();
    check_holds(&store, 0..count);

    // Removes work, and what they free can be given back.
    let is_kept = |number: &usize| number.is_multiple_of(10);
    for number in (0..count).filter(|number| !is_kept(number)) {
        store.remove_bytes(&key(number)).unwrap();
    }
    check_holds(&store, (0..count).filter(is_kept));
    compact(&store);
    check_holds(&store, (0..count).filter(is_kept));
    let stats = store.stats();
    assert!(stats.total_bytes < 2 * stats.live_bytes, "{stats:?}");
    assert!(!stats.is_reserve_lent);

    // Writing goes on, until the disk is full again.
    let end = fill(&store, count);
    assert!(end > count + count / 2, "{end} after {count}");
    check_holds(&store, (0..count).filter(is_kept).chain(count..end));
    drop(store);
    let store = open(disk, dir, &options).unwrap();
    check_holds(&store, (0..count).filter(is_kept).chain(count..end));
}

#[test]
fn a_full_disk_refuses_new_data_and_nothing_else() {
    for route in ROUTES {
        let model = ModelledDisk::default();
        model.limit(DISK_BYTES);
        let disk: Arc<dyn Disk> = Arc::new(model);
        check_full_disk(&disk, Path::new(DIR), route);
    }
}

/// The copies of a large file of which much lives may not fit into the reserve. Then compaction
/// says so and changes nothing; files of which nothing lives need no room to go.
#[test]
fn a_full_disk_keeps_large_files_of_which_much_lives_until_they_are_dead() {
    let model = ModelledDisk::default();
    model.limit(DISK_BYTES);
    let disk: Arc<dyn Disk> = Arc::new(model);
    let options = options(Route::Tail).segment_bytes_min(1 << 20).segment_bytes_max(1 << 20);
    let store = open(&disk, Path::new(DIR), &options).unwrap();
    let count = fill(&store, 0);
    let is_odd = |number: &usize| number % 2 == 1;
    for number in (0..count).filter(|number| !is_odd(number)) {
        store.remove_bytes(&key(number)).unwrap();
    }
    for _ in 0..3 {
        check_full(&store.compact());
        check_holds(&store, (0..count).filter(is_odd));
    }
    check_full(&store.set_bytes(b"one more", b""));
    for number in (0..count / 2).filter(is_odd) {
        store.remove_bytes(&key(number)).unwrap();
    }
    compact(&store);
    let end = fill(&store, count);
    assert!(end > count + count / 4, "{end} after {count}");
    check_holds(&store, (count / 2..count).filter(is_odd).chain(count..end));
}

/// The disk gets full just when a log is to begin.
#[test]
fn a_log_begins_in_the_room_of_the_reserve() {
    let (failing, store) = failing_store(Route::Direct);
    failing.fail_after(0, fault(libc::ENOSPC, |call| call == Call::Create));
    store.set_bytes(b"key", b"value").unwrap();
    assert_eq!((failing.struck(), store.stats().is_reserve_lent), (1, true));
}

/// A file system of its own, taken away at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Self> {
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "kvs-test"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

#[test]
fn a_full_file_system_refuses_new_data_and_nothing_else() {
    for route in ROUTES {
        let dir = tempfile::tempdir().unwrap();
        let Some(mounted) = Tmpfs::mount(dir.path()) else {
            eprintln!(
                "NOT RUN on a file system: this process may not mount one; the test beside this \
                       one does the same on a disk in memory"
            );
            return;
        };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        check_full_disk(&disk, &mounted.0.join("store"), route);
    }
}

/// A log with room ahead ends in a hole. To look into that through a mapping takes a page, which a
/// full tmpfs does not have: it would end this process.
#[test]
fn nobody_looks_into_a_hole_on_a_full_file_system() {
    const PAGE_LEN: u64 = 4096;
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = Tmpfs::mount(dir.path()) else {
        eprintln!("NOT RUN: this process may not mount a file system");
        return;
    };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let [live, killed] = ["live", "killed"].map(|name| mounted.0.join(name));
    let options = options(Route::Sync).segment_bytes_min(64 << 10).segment_bytes_max(64 << 10);
    let store = open(&disk, &live, &options).unwrap();
    let set = |len: u64| {
        store.set_bytes(b"k", &vec![7; usize::try_from(len).unwrap()]).unwrap();
        store.core.segments.snapshot().segments[0].len()
    };
    // To the end of a page; but for the first, one is as much longer as its value is.
    let (_, before, after) = (set(8), set(8), set(8));
    let used = set(8 + PAGE_LEN - after - (after - before));
    assert_eq!(used, PAGE_LEN);
    let log = names::segment(&live, SegmentId::new(1));
    assert!(std::fs::metadata(&log).unwrap().len() > used, "no hole");
    std::fs::create_dir(&killed).unwrap();
    for file in std::fs::read_dir(&live).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        let copy = std::fs::File::create(killed.join(file.file_name().unwrap())).unwrap();
        let there = if file == log { usize::try_from(used).unwrap() } else { bytes.len() };
        copy.write_all_at(&bytes[..there], 0).unwrap();
        copy.set_len(len_of(bytes.len())).unwrap();
    }
    let filler = std::fs::File::create(mounted.0.join("filler")).unwrap();
    let is_full = |at: &u64| filler.write_all_at(&[7; 512], *at).is_err();
    (0..).step_by(512).find(is_full).expect("a disk ends");
    let opened = open(&disk, &killed, &options).unwrap();
    assert_eq!(opened.get_bytes(b"k").unwrap(), store.get_bytes(b"k").unwrap());
}
