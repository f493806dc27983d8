//! An index that is loaded piece by piece, beside all that goes on meanwhile, and the lists and
//! hints that make it possible.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::error::KvsError;
use crate::scan::Scan;
use crate::store::disk::RealDisk;
use crate::store::disk::failing::{Call, FailingDisk, Fault};
use crate::store::stats::Progress;

/// A store on `disk` whose first log is sealed and not listed.
fn with_sealed_log(disk: &Arc<dyn Disk>) -> KvStore {
    let store = open(disk, Path::new(DIR), &options(Route::Tail)).unwrap();
    store.set_bytes(b"a", &[1; 900]).unwrap();
    store.core.writer.seal_active().unwrap();
    store
}

/// A log that is sealed between the sync and the list must not be listed: after a loss of power its
/// end may be missing, and what a manifest lists must be whole.
#[test]
fn only_what_was_synced_is_listed() {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = with_sealed_log(&disk);
    let listed = store.core.compactor.list_sealed(None, &|| {
        store.core.writer.sync_sealed()?;
        (0..9_u8).try_for_each(|i| store.set_bytes(&[i], &[2; 900]))
    });
    listed.unwrap();
    assert!(store.core.segments.snapshot().segments.len() > 2, "logs were sealed meanwhile");
    let left: Arc<dyn Disk> = Arc::new(moment_of(&model).after_power_loss(|_| false));
    let store = open(&left, Path::new(DIR), &options(Route::Tail)).unwrap();
    assert_eq!(store.get_bytes(b"a").unwrap().unwrap(), [1; 900][..]);
}

/// One file that cannot be read must not keep all others from being compacted.
#[test]
fn a_hint_that_cannot_be_made_is_tried_once() {
    let failing = FailingDisk::new(Arc::new(ModelledDisk::default()));
    let disk: Arc<dyn Disk> = Arc::new(failing.clone());
    let store = with_sealed_log(&disk);
    let chosen = |call| call == Call::Read;
    failing.fail_after(0, Fault { code: libc::EIO, half: false, sticky: true, chosen });
    let tended = store.core.tend_sealed(&|| false);
    assert!(matches!(tended, Err(KvsError::Io { .. })), "{tended:?}");
    store.core.tend_sealed(&|| false).unwrap();
    failing.heal();
    assert!(!store.core.compactor.has_unlisted());
}

/// On a full disk no hint can be kept. What was found out when the end of a log was looked for is
/// used all the same, instead of reading the log again.
#[test]
fn a_log_is_read_once_by_an_open_that_can_keep_no_hint() {
    let model = ModelledDisk::default();
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&disk, Path::new(DIR), &options(Route::Direct)).unwrap();
    (0..20_u8).for_each(|i| store.set_bytes(&[i], &[i; 500]).unwrap());
    let total_bytes = store.stats().total_bytes;
    let left = moment_of(&model).after_kill();
    let disk: Arc<dyn Disk> = Arc::new(left.clone());
    let names = disk.list(Path::new(DIR)).unwrap();
    let len = |name: &std::ffi::OsString| disk.open(&Path::new(DIR).join(name))?.len();
    let taken: u64 = names.iter().map(|name| len(name).unwrap()).sum();
    left.limit(usize::try_from(taken).unwrap());
    let mut read_bytes = 0;
    let mut progress = |progress: Progress| {
        assert_eq!(progress.total_bytes, total_bytes);
        read_bytes = progress.done_bytes;
    };
    let options = options(Route::Direct);
    let store = KvStore::open_on(&disk, DIR.into(), options, &mut progress).unwrap();
    assert_eq!(read_bytes, total_bytes);
    assert!((0..20_u8).all(|i| store.get_bytes(&[i]).unwrap().unwrap() == [i; 500][..]));
    let is_hint = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".hint");
    assert!(!disk.list(Path::new(DIR)).unwrap().iter().any(is_hint), "there was room");
}

/// Otherwise a segment of nothing but a clear would count as dead, and be copied at each open.
#[test]
fn a_clear_is_a_tombstone_before_and_after_reopening() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    let mut store = with_sealed_log(&disk);
    store.clear().unwrap();
    for round in 0..2 {
        let stats = store.stats();
        assert_eq!((stats.tombstone_count, stats.live_bytes), (1, 0), "round {round}");
        assert!(stats.tombstone_bytes > 0);
        store.close().unwrap();
        drop(store);
        store = open(&disk, Path::new(DIR), &options(Route::Tail)).unwrap();
    }
}

/// Figures of a store that was just opened are those of all of it.
#[test]
fn segments_are_not_dead_before_they_are_loaded() {
    let disk: Arc<dyn Disk> = Arc::new(ModelledDisk::default());
    with_sealed_log(&disk).close().unwrap();
    let store = open(&disk, Path::new(DIR), &options(Route::Tail)).unwrap();
    let live: u64 = store.segment_stats().iter().map(|segment| segment.live_bytes).sum();
    assert!(live > 900, "{live}");
    assert_eq!(live, store.stats().live_bytes);
}

/// A damaged hint is met in the middle of a lookup. Whoever hears of it may look up keys, those of
/// the very same shard among them.
#[test]
fn who_hears_of_a_damaged_hint_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = open(&disk, dir.path(), &options(Route::Tail)).unwrap();
    (0..20_u8).for_each(|i| store.set_bytes(&[i], &[i; 50]).unwrap());
    store.close().unwrap();
    drop(store);
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for hint in files.filter(|path| path.extension().is_some_and(|end| end == "hint")) {
        let mut bytes = std::fs::read(&hint).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&hint, bytes).unwrap();
    }
    let handle: Arc<Mutex<Option<KvStore>>> = Arc::default();
    let (heard, hear) = mpsc::channel();
    let options = options(Route::Tail).log_to({
        let handle = Arc::clone(&handle);
        move |_, line| {
            let store = handle.lock().clone();
            if let Some(store) = store {
                assert!((0..20_u8).all(|i| store.contains(&[i]).unwrap()));
                heard.send(line.to_owned()).unwrap();
            }
        }
    });
    let store = open(&disk, dir.path(), &options).unwrap();
    *handle.lock() = Some(store.clone());
    thread::spawn(move || (0..20_u8).for_each(|i| assert!(store.contains(&[i]).unwrap())));
    let line = hear.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
        // A store whose thread waits for ever cannot be closed.
        std::mem::forget(Arc::clone(&handle));
        panic!("a thread waits for itself");
    });
    assert!(line.contains("the hint of"), "{line}");
    // Closing may be heard of too, so the lock is let go before.
    let last = handle.lock().take();
    drop(last);
}

/// Readers, scans, counts and checkpoints load shards while a writer publishes into them, clears
/// them and closes the store before the last one is loaded. Keys and live bytes are counted once.
#[test]
fn what_is_loaded_beside_writers_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let home = dir.path().join("store");
    let mut random = SmallRng::seed_from_u64(1);
    let mut expected = BTreeMap::<u16, u64>::new();
    for round in 0..40_u64 {
        let opened = options(Route::Tail).auto_compaction(round % 3 == 0);
        let store = open(&disk, &home, &opened).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..600_u16).for_each(|i| drop(store.get_bytes(&i.to_be_bytes()).unwrap()));
            });
            scope.spawn(|| match round % 4 {
                0 => drop(store.len().unwrap()),
                1 => drop(store.scan(Scan::all()).unwrap().count()),
                2 => store.checkpoint(&dir.path().join(round.to_string())).unwrap(),
                _ => store.compact().unwrap(),
            });
            let clear_at = if round % 5 == 4 { random.random_range(..200) } else { u64::MAX };
            for write in 0..200 {
                if write == clear_at {
                    store.clear().unwrap();
                    expected.clear();
                }
                let key = random.random_range(..600_u16);
                if random.random_ratio(1, 4) {
                    let removed = store.remove_bytes(&key.to_be_bytes()).is_ok();
                    assert_eq!(removed, expected.remove(&key).is_some());
                } else {
                    store.set_bytes(&key.to_be_bytes(), &write.to_be_bytes()).unwrap();
                    expected.insert(key, write);
                }
            }
            // Every other time it is closed with shards pending, or while they are being loaded.
            if round % 2 == 0 {
                let keys = u64::try_from(expected.len()).unwrap();
                assert_eq!(store.len().unwrap(), keys, "round {round}");
                let stats = store.stats();
                // Header, key, value, padding.
                assert_eq!((stats.key_count, stats.live_bytes), (keys, keys * 40), "round {round}");
                assert_eq!(store.iter().unwrap().count(), expected.len());
            }
        });
        store.close().unwrap();
    }
    let store = open(&disk, &home, &options(Route::Tail)).unwrap();
    for key in 0..600_u16 {
        let found = store.get_bytes(&key.to_be_bytes()).unwrap();
        let found = found.map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()));
        assert_eq!(found, expected.get(&key).copied(), "{key}");
    }
}
