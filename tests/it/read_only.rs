//! Views: a store opened for reading only, beside its writer or without one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use kvs::{
    AnyEngine, KvStore, KvsEngine, KvsError, Options, ReadMode, Scan, Update, WriteBatch, WriteMode,
};

use crate::process::{eventually, in_own_process};
use crate::recovery::{copy, fast_dir, files, segments};
use crate::store::tiny_segments;

fn view(dir: &Path) -> KvStore {
    KvStore::open_with(dir, tiny_segments().read_only(true)).unwrap()
}

fn keys(store: &KvStore) -> Vec<Vec<u8>> {
    store.scan(Scan::all().keys_only()).unwrap().map(|entry| entry.unwrap().0).collect()
}

/// Names and contents of everything in `dir`.
fn everything(dir: &Path) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    files(dir, "").into_iter().map(|path| (path.clone(), std::fs::read(path).ok())).collect()
}

#[test]
fn a_view_is_of_its_moment_and_refresh_makes_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let writer = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    for i in 0..200_u8 {
        writer.set_bytes(&[i], &[i; 90]).unwrap();
    }
    let old = view(dir.path());
    assert_eq!(old.len().unwrap(), 200);
    writer.remove_bytes(&[0]).unwrap();
    writer.set_bytes(&[1], b"newer").unwrap();
    let new = old.refresh().unwrap();
    for (view, first, second, len) in
        [(&old, Some(&[0; 90][..]), &[1; 90][..], 200), (&new, None, &b"newer"[..], 199)]
    {
        assert_eq!(view.get_bytes(&[0]).unwrap().as_deref(), first);
        assert_eq!(view.get_bytes(&[1]).unwrap().as_deref(), Some(second));
        assert_eq!((view.len().unwrap(), keys(view).len()), (len, usize::try_from(len).unwrap()));
    }
    // All values move, and the files that the views were made of go.
    for i in 2..200_u8 {
        writer.set_bytes(&[i], b"moved").unwrap();
    }
    writer.compact().unwrap();
    assert_eq!(old.get_bytes(&[199]).unwrap().unwrap(), [199; 90][..]);
    assert_eq!(new.refresh().unwrap().get_bytes(&[199]).unwrap().unwrap(), *b"moved");
    drop(writer);
    assert_eq!(old.refresh().unwrap().len().unwrap(), 199);
    old.close().unwrap();
    assert!(matches!(old.get_bytes(&[1]), Err(KvsError::Closed)));
    assert!(matches!(old.refresh(), Err(KvsError::Closed)));
}

#[test]
fn a_view_takes_no_writes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = tiny_segments().auto_compaction(false);
    let writer = KvStore::open_with(dir.path(), options).unwrap();
    (0..100_u8).for_each(|i| writer.set_bytes(&[i], &[i; 90]).unwrap());
    let mut batch = WriteBatch::new();
    batch.set(b"k", b"v");
    // As it is while a writer has it, as a crash leaves it, without its caches, and closed.
    let crashed = dir.path().join("crashed");
    copy(dir.path(), &crashed);
    let log = segments(&crashed).pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(&[7; 100]);
    std::fs::write(&log, bytes).unwrap();
    let bare = dir.path().join("bare");
    copy(dir.path(), &bare);
    for hint in files(&bare, "seg-").iter().filter(|path| path.extension().unwrap() == "hint") {
        std::fs::remove_file(hint).unwrap();
    }
    for dir in [dir.path(), &crashed, &bare] {
        let before = everything(dir);
        let view = view(dir);
        let refused = |outcome: kvs::Result<()>| {
            assert!(matches!(outcome, Err(KvsError::ReadOnly)), "{outcome:?}");
        };
        refused(view.set_bytes(b"k", b"v"));
        refused(view.remove_bytes(&[1]));
        refused(view.apply(&batch));
        refused(view.apply(&WriteBatch::new()));
        refused(view.update(&[1], &mut |_| Update::Remove));
        refused(view.clear());
        refused(view.sync());
        refused(view.compact());
        refused(view.checkpoint(&dir.join("copy")));
        assert_eq!(view.len().unwrap(), 100);
        assert!((0..100_u8).all(|i| *view.get_bytes(&[i]).unwrap().unwrap() == [i; 90]));
        assert!(view.verify().unwrap().damage_count == 0);
        assert_eq!(view.stats().key_count, 100);
        drop(view);
        assert!(everything(dir) == before, "{} was changed", dir.display());
    }
}

#[test]
fn what_cannot_be_viewed_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().read_only(true);
    for path in [dir.path().to_path_buf(), dir.path().join("missing")] {
        let opened = KvStore::open_with(&path, options());
        assert!(matches!(opened, Err(KvsError::NoStore { .. })), "{opened:?}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    let opened = KvStore::open_with(dir.path(), options().exclusive(true));
    assert!(matches!(opened, Err(KvsError::InvalidOption { name: "exclusive", .. })));
    #[cfg(feature = "sled")]
    {
        let opened = AnyEngine::open(dir.path(), Some("sled"), options());
        assert!(matches!(opened, Err(KvsError::Unsupported { engine: "sled", .. })), "{opened:?}");
    }
    // A segment that is missing for good is damage, and not waited for.
    let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    (0..100_u8).for_each(|i| store.set_bytes(&[i], &[i; 90]).unwrap());
    drop(store);
    let lost = segments(dir.path()).remove(1);
    std::fs::remove_file(&lost).unwrap();
    match AnyEngine::open(dir.path(), None, options()) {
        Err(KvsError::Corrupt { path, .. }) => assert_eq!(path, lost),
        other => panic!("{other:?}"),
    }
}

/// Views taken while a writer sets, removes, batches, rotates, compacts and is closed: each is a
/// prefix of the writes, and holds at least what had returned before it was taken.
#[test]
fn views_beside_a_busy_writer_are_prefixes() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let dir = tempfile::tempdir().unwrap();
        drop(KvStore::open_with(dir.path(), tiny_segments()).unwrap());
        let (returned, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let views = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut round = 0_u64;
                // Until enough was seen of it, however slow the views are.
                let enough = |_: &u32| views.load(Ordering::SeqCst) >= 30;
                for _ in (0..300).take_while(|turn| !enough(turn)) {
                    let store = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
                    for _ in 0..200 {
                        round += 1;
                        let stamp = round.to_be_bytes();
                        store.set_bytes(b"first", &stamp).unwrap();
                        let mut batch = WriteBatch::new();
                        batch.set(b"a", &stamp).set(b"b", &[&stamp[..], &[0; 80]].concat());
                        // There in every other round.
                        match round % 2 {
                            0 => batch.set(b"even", &stamp),
                            _ => batch.remove(b"even"),
                        };
                        store.apply(&batch).unwrap();
                        store.set_bytes(b"last", &stamp).unwrap();
                        returned.store(round, Ordering::SeqCst);
                    }
                    store.close().unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            let options = || Options::new().read_only(true).read_mode(read_mode);
            let mut view = KvStore::open_with(dir.path(), options()).unwrap();
            while !done.load(Ordering::SeqCst) {
                let at_least = returned.load(Ordering::SeqCst);
                view = view.refresh().unwrap();
                views.fetch_add(1, Ordering::SeqCst);
                let round = |key: &[u8]| {
                    let read = |value: &[u8]| u64::from_be_bytes(*value.first_chunk().unwrap());
                    view.get_with(key, read).unwrap().unwrap_or(0)
                };
                let (first, a, last) = (round(b"first"), round(b"a"), round(b"last"));
                assert!(at_least <= last && last <= a && a <= first && first <= last + 1);
                assert_eq!(a, round(b"b"));
                assert_eq!(round(b"even"), if a % 2 == 0 { a } else { 0 });
                assert_eq!(keys(&view).len() as u64, view.len().unwrap());
            }
        });
    }
}

/// What a view leaves out behind the last whole write it calls unfinished; a mark says that this
/// was durable.
#[test]
fn a_view_does_not_pass_over_damage_in_what_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    for later_log in [false, true] {
        let live = dir.path().join(later_log.to_string());
        // A tail that holds the same records would make up for it.
        let options = tiny_segments().write_mode(WriteMode::Direct);
        let options = options.segment_bytes_min(4096).auto_compaction(false);
        let writer = KvStore::open_with(&live, options).unwrap();
        writer.set_bytes(b"first", b"1").unwrap();
        writer.set_bytes(b"second", b"durable-value").unwrap();
        writer.sync().unwrap();
        let filler = if later_log { 3_990 } else { 10 };
        writer.set_bytes(b"third", &vec![3; filler]).unwrap();
        assert_eq!(segments(&live).len(), if later_log { 2 } else { 1 });
        let old = view(&live);
        let log = segments(&live).remove(0);
        let sound = std::fs::read(&log).unwrap();
        let at = sound.windows(13).position(|window| window == b"durable-value").unwrap();
        let mut bent = sound.clone();
        bent[at] ^= 1;
        std::fs::write(&log, &bent).unwrap();
        match KvStore::open_with(&live, tiny_segments().read_only(true)) {
            Err(KvsError::Corrupt { path, .. }) => {
                assert_eq!(path.parent(), Some(&*live), "{later_log}");
            }
            other => panic!("{later_log}: {other:?}"),
        }
        assert!(matches!(old.get_bytes(b"second"), Err(KvsError::Corrupt { .. })));
        std::fs::write(&log, sound).unwrap();
        assert_eq!(view(&live).len().unwrap(), 3, "{later_log}");
    }
}

/// Descriptors and mappings of old views go with them. In a process of its own, since they wait for
/// the last reader of an epoch, whichever store it reads.
#[cfg(target_os = "linux")]
#[test]
fn a_thousand_refreshes_leave_nothing_behind() {
    let test = "read_only::a_thousand_refreshes_leave_nothing_behind";
    in_own_process(test, "", refresh_a_thousand_times);
}

#[cfg(target_os = "linux")]
fn refresh_a_thousand_times() {
    let held = |dir: &Path| {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
            let target = std::fs::read_link(fd.unwrap().path()).ok()?;
            target.starts_with(dir).then_some(())
        });
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        fds.count() + maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
    };
    let dir = fast_dir();
    let writer = KvStore::open_with(dir.path(), tiny_segments()).unwrap();
    let mut views = [ReadMode::Mapped, ReadMode::Positioned].map(|read_mode| {
        let options = tiny_segments().read_only(true).read_mode(read_mode);
        KvStore::open_with(dir.path(), options).unwrap()
    });
    let mut most = 0;
    for round in 0..500_u32 {
        writer.set_bytes(&(round % 30).to_be_bytes(), &[7; 200]).unwrap();
        for view in &mut views {
            *view = view.refresh().unwrap();
            assert!(view.contains(&(round % 30).to_be_bytes()).unwrap());
        }
        most = most.max(held(dir.path()));
    }
    // A dozen small files, two views and a writer, and what waits for the last reader of an epoch.
    assert!(most < 400, "{most} descriptors and mappings");
    drop((writer, views));
    eventually("no descriptor and no mapping is left", || {
        drop(KvStore::open(tempfile::tempdir().unwrap().path()).unwrap());
        held(dir.path()) == 0
    });
}
