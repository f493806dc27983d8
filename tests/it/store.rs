//! `KvStore` beyond the contract: opening, many threads, compaction, batches beside readers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvs::{Durability, KvStore, KvsEngine, KvsError, Options, ReadMode, WriteBatch};

use crate::process::PATIENCE;
use crate::recovery::segments;

/// Options under which a few kilobytes make many segments.
pub(crate) fn tiny_segments() -> Options {
    Options::new().segment_bytes_min(0).segment_bytes_max(4096).durability(Durability::Os)
}

fn key(i: u32) -> Vec<u8> {
    format!("key-{i:06}").into_bytes()
}

fn value(i: u32, version: u32) -> Vec<u8> {
    format!("value {version} of {i} {}", "x".repeat((i % 50) as usize)).into_bytes()
}

fn disk_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let segments = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
    // Compaction may remove one while this looks.
    segments.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn what_was_set_is_there_after_reopening_in_every_mode() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        for durability in
            [Durability::Os, Durability::Interval(Duration::from_millis(5)), Durability::Sync]
        {
            let dir = tempfile::tempdir().unwrap();
            let options = || tiny_segments().read_mode(read_mode).durability(durability);
            for round in 0..3 {
                let store = KvStore::open_with(dir.path(), options()).unwrap();
                for i in 0..100 {
                    if round > 0 {
                        let expected = value(i, round - 1);
                        assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), expected[..]);
                    }
                    store.set_bytes(&key(i), &value(i, round)).unwrap();
                }
                assert_eq!(store.len().unwrap(), 100);
            }
        }
    }
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    match KvStore::open(dir.path()) {
        Err(KvsError::Locked { path, pid }) => {
            assert_eq!((path.as_path(), pid), (dir.path(), Some(std::process::id())));
        }
        other => panic!("{other:?}"),
    }
    // A clone keeps it open; the last one lets go.
    let clone = store.clone();
    drop(store);
    assert!(matches!(KvStore::open(dir.path()), Err(KvsError::Locked { .. })));
    drop(clone);
    KvStore::open(dir.path()).unwrap();
}

#[test]
fn a_lock_timeout_waits_for_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let path = dir.path().to_path_buf();
    let waiting = std::thread::spawn(move || {
        KvStore::open_with(path, Options::new().lock_timeout(Duration::from_secs(20)))
    });
    std::thread::sleep(Duration::from_millis(50));
    drop(store);
    waiting.join().unwrap().unwrap();
}

#[test]
fn opening_says_what_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);

    std::fs::write(at("file"), b"x").unwrap();
    assert!(matches!(KvStore::open(at("file")), Err(KvsError::NotADirectory { .. })));
    assert!(matches!(KvStore::open(at("file/below")), Err(KvsError::NotADirectory { .. })));

    let missing = KvStore::open_with(at("missing"), Options::new().create(false));
    assert!(matches!(missing, Err(KvsError::NoStore { .. })), "{missing:?}");
    assert!(!at("missing").exists(), "refusing creates nothing");
    std::fs::create_dir(at("empty")).unwrap();
    let empty = KvStore::open_with(at("empty"), Options::new().create(false));
    assert!(matches!(empty, Err(KvsError::NoStore { .. })), "{empty:?}");

    drop(KvStore::open_with(at("new"), Options::new().exclusive(true)).unwrap());
    let again = KvStore::open_with(at("new"), Options::new().exclusive(true));
    assert!(matches!(again, Err(KvsError::StoreExists { .. })), "{again:?}");

    std::fs::create_dir(at("old")).unwrap();
    std::fs::write(at("old/1.log"), br#"{"Set":{"key":"a","value":"b"}}"#).unwrap();
    let old = KvStore::open(at("old"));
    assert!(matches!(old, Err(KvsError::UnsupportedFormat { found: 0, .. })), "{old:?}");
    assert!(old.unwrap_err().to_string().contains("import"));
}

/// A store may live in a directory with other files, as the program in a current directory does.
#[test]
fn other_files_in_the_directory_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
    for _ in 0..2 {
        let store = KvStore::open(dir.path()).unwrap();
        store.set_bytes(b"k", b"v").unwrap();
        store.compact().unwrap();
    }
    assert_eq!(std::fs::read(dir.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn overwrites_and_removals_give_their_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), tiny_segments().auto_compaction(false)).unwrap();
    for version in 0..10 {
        for i in 0..200 {
            store.set_bytes(&key(i), &value(i, version)).unwrap();
        }
    }
    let full = disk_bytes(dir.path());
    store.compact().unwrap();
    let compacted = disk_bytes(dir.path());
    assert!(compacted * 5 < full, "{full} bytes before, {compacted} after");
    for i in 0..200 {
        assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), value(i, 9)[..]);
    }
    for i in 0..200 {
        store.remove_bytes(&key(i)).unwrap();
    }
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!((stats.key_count, stats.live_bytes, stats.tombstone_bytes), (0, 0, 0), "{stats:?}");
    assert!(stats.segment_count <= 1, "{stats:?}");
    drop(store);
    let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    assert_eq!(store.len().unwrap(), 0, "removed keys stay removed");
}

/// Nobody calls `compact()`: the background thread keeps the files within the bound.
#[test]
fn space_stays_bounded_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = tiny_segments().segment_bytes_max(64 << 10);
    let store = KvStore::open_with(dir.path(), options).unwrap();
    for version in 0..100 {
        for i in 0..500 {
            store.set_bytes(&key(i), &value(i, version)).unwrap();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = store.stats();
        let on_disk = disk_bytes(dir.path());
        if on_disk <= 2 * stats.live_bytes + 2 * (64 << 10) {
            break;
        }
        assert!(Instant::now() < deadline, "{on_disk} bytes on disk, {stats:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    for i in 0..500 {
        assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), value(i, 99)[..]);
    }
}

/// A program that opens the store for one write, again and again, leaves no heap of files.
#[test]
fn small_segments_are_gathered() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40 {
        let store = KvStore::open(dir.path()).unwrap();
        store.set_bytes(&key(i), b"v").unwrap();
    }
    let store = KvStore::open(dir.path()).unwrap();
    store.compact().unwrap();
    assert!(store.stats().segment_count <= 2, "{:?}", store.stats());
    assert_eq!(store.len().unwrap(), 40);
}

/// Files that a reader still needs when the store is closed are removed by the next open. Later
/// they were removed by name, when the last handle went: who had made a new store in the same place
/// meanwhile lost a log.
#[test]
fn nothing_is_removed_once_the_store_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("store");
    let open = || KvStore::open_with(&home, tiny_segments().auto_compaction(false)).unwrap();
    let closed = open();
    let fill = |store: &KvStore, byte: u8| {
        (0..10_u8).for_each(|i| store.set_bytes(&[i], &[byte; 3000]).unwrap());
    };
    fill(&closed, 1);
    let lent = closed.get_bytes(&[3]).unwrap().unwrap();
    fill(&closed, 2);
    closed.compact().unwrap();
    assert!(closed.stats().retired_file_count > 0);
    closed.close().unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    let store = open();
    fill(&store, 3);
    let before = segments(&home);
    drop(lent);
    drop(closed);
    assert_eq!(segments(&home), before);
}

/// A lent value stays as it was through overwrite, compaction and close, and when the store is
/// opened again.
#[test]
fn a_value_outlives_overwrite_compaction_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    store.set_bytes(b"city", b"Oslo").unwrap();
    let value = store.get_bytes(b"city").unwrap().unwrap();
    store.set_bytes(b"city", b"Bergen").unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    assert_eq!(value, *b"Oslo");
    assert!(matches!(store.get_bytes(b"city"), Err(KvsError::Closed)));
    drop(store);
    let store = KvStore::open(dir.path()).unwrap();
    assert_eq!(value, *b"Oslo");
    assert_eq!(store.get_bytes(b"city").unwrap().unwrap(), *b"Bergen");
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![0xA7; 3 << 20];
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let options = || tiny_segments().read_mode(read_mode);
        let store = KvStore::open_with(dir.path(), options()).unwrap();
        store.set_bytes(b"before", b"1").unwrap();
        store.set_bytes(b"large", &large).unwrap();
        store.set_bytes(b"after", b"2").unwrap();
        drop(store);
        let store = KvStore::open_with(dir.path(), options()).unwrap();
        assert!(store.get_bytes(b"large").unwrap().unwrap() == large[..]);
        store.compact().unwrap();
        assert!(store.get_bytes(b"large").unwrap().unwrap() == large[..]);
        assert_eq!(store.get_bytes(b"before").unwrap().unwrap(), *b"1");
        assert_eq!(store.get_bytes(b"after").unwrap().unwrap(), *b"2");
    }
}

/// A batch that a crash has cut must not be half there, so it cannot lie in two files.
#[test]
fn a_batch_larger_than_a_segment_lies_in_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (live, cut) = (dir.path().join("live"), dir.path().join("cut"));
    let open = |path: &Path| KvStore::open_with(path, tiny_segments().auto_compaction(false));
    let store = open(&live).unwrap();
    store.set_bytes(&key(0), b"before").unwrap();
    let mut batch = WriteBatch::new();
    for i in 1..=300 {
        batch.set(&key(i), &value(i, 1));
    }
    store.apply(&batch).unwrap();
    crate::recovery::copy(&live, &cut);
    store.set_bytes(&key(301), b"after").unwrap();
    store.close().unwrap();

    let store = open(&live).unwrap();
    assert_eq!(store.len().unwrap(), 302);
    let largest = store.segment_stats().into_iter().max_by_key(|segment| segment.total_bytes);
    assert!(largest.unwrap().total_bytes > 4 * 4096, "it does not show");
    for i in 1..=300 {
        assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), value(i, 1)[..]);
    }

    let log = crate::recovery::segments(&cut).pop().unwrap();
    let len = std::fs::metadata(&log).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(len - 1).unwrap();
    let store = open(&cut).unwrap();
    assert_eq!(store.len().unwrap(), 1, "some of a batch is there");
    assert_eq!(store.get_bytes(&key(0)).unwrap().unwrap(), *b"before");
}

/// Writers, removers, readers and compaction at once: every read is a value that some writer wrote
/// for that very key, and in the end each key holds its last one.
#[test]
fn threads_and_compaction_never_mix_up_values() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(dir.path(), tiny_segments().read_mode(read_mode)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3_u32)
                .map(|w| {
                    let store = store.clone();
                    scope.spawn(move || {
                        for version in 0..60 {
                            for i in (w * 50)..(w * 50 + 50) {
                                store.set_bytes(&key(i), &value(i, version)).unwrap();
                                if (i + version) % 5 == 0 {
                                    store.remove_bytes(&key(i)).unwrap();
                                    assert_eq!(store.get_bytes(&key(i)).unwrap(), None);
                                    store.set_bytes(&key(i), &value(i, version)).unwrap();
                                }
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    store.compact().unwrap();
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for i in 0..150 {
                            if let Some(found) = store.get_bytes(&key(i)).unwrap() {
                                let text = String::from_utf8(found.to_vec()).unwrap();
                                assert!(text.contains(&format!(" of {i} ")), "{i}: {text}");
                            }
                        }
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        for i in 0..150 {
            assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), value(i, 59)[..], "{i}");
        }
        assert_eq!(store.len().unwrap(), 150);
        drop(store);
        let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
        assert_eq!(store.len().unwrap(), 150);
        for i in 0..150 {
            assert_eq!(store.get_bytes(&key(i)).unwrap().unwrap(), value(i, 59)[..], "{i}");
        }
    }
}

/// A reader that sees one member of a batch sees all of them from then on; removals included.
#[test]
fn readers_see_a_batch_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    let names: Vec<_> = (0..8).map(key).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let round_of = |i: usize| -> u64 {
                    let found = store.get_bytes(&names[i]).unwrap();
                    found.map_or(0, |value| {
                        String::from_utf8(value.to_vec()).unwrap().parse().unwrap()
                    })
                };
                while !done.load(Ordering::Relaxed) {
                    // Absent counts as round 0: keys are removed in every fourth round.
                    let first = round_of(0);
                    for i in (1..8).rev() {
                        let later = round_of(i);
                        assert!(later >= first || later == 0, "{later} after {first}");
                    }
                }
            });
        }
        for round in 1..3000_u64 {
            let mut batch = WriteBatch::new();
            for name in &names {
                if round % 4 == 0 {
                    batch.remove(name);
                } else {
                    batch.set(name, round.to_string().as_bytes());
                }
            }
            store.apply(&batch).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Closing while other threads compact: they stop, and nobody touches the directory afterwards.
#[test]
fn closing_waits_for_a_compaction_and_nothing_happens_after_it() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
        for i in 0..300 {
            store.set_bytes(&key(i), &value(i, round)).unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        match store.compact() {
                            Ok(()) => {}
                            Err(KvsError::Closed) => break,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                });
            }
            store.close().unwrap();
            let next = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
            for i in 0..300 {
                assert_eq!(next.get_bytes(&key(i)).unwrap().unwrap(), value(i, round)[..]);
            }
        });
    }
}

#[test]
fn removing_what_is_absent_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    assert!(matches!(store.remove_bytes(b"absent"), Err(KvsError::KeyNotFound)));
    let mut batch = WriteBatch::new();
    store.apply(batch.remove(b"absent").remove(b"too")).unwrap();
    assert_eq!(store.stats().segment_count, 0);
    assert_eq!(disk_bytes(dir.path()), 0);
}

/// Sync writers share their syncs.
#[test]
fn waiting_writers_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        KvStore::open_with(dir.path(), Options::new().durability(Durability::Sync)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                for i in 0..50 {
                    store.set_bytes(&key(thread * 1000 + i), b"v").unwrap();
                }
            });
        }
    });
    let stats = store.stats();
    assert_eq!(stats.record_count, 400);
    assert!(stats.sync_count < 300, "{stats:?}");
    assert_eq!(store.len().unwrap(), 400);
}
