//! What `Options` and the `open` functions promise about directories: asked of each engine, and of
//! `AnyEngine` for the choice between them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kvs::options::SEGMENT_BYTES_FLOOR;
use kvs::{AnyEngine, KvsEngine, KvsError, Options};

use crate::contract::{Factory, every_engine_on_disk, promises};

every_engine_on_disk! {
    missing_directories_are_created
    file_in_place_of_the_directory_is_refused
    without_create_a_missing_store_is_refused_and_nothing_is_made
    exclusive_refuses_a_store_that_is_there
    options_that_cannot_work_are_refused
    second_opener_is_refused_until_the_first_closes
    lock_timeout_waits_for_the_first_to_let_go
}

fn missing_directories_are_created<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    F::open(&deep).set_bytes(b"k", b"v").unwrap();
    assert!(F::open(&deep).contains(b"k").unwrap());
    assert_eq!(AnyEngine::engine_in(&deep).unwrap(), Some(F::NAME));
}

fn file_in_place_of_the_directory_is_refused<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"precious").unwrap();
    match F::open_with(&file, Options::new()).map(drop) {
        Err(KvsError::NotADirectory { path }) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

fn without_create_a_missing_store_is_refused_and_nothing_is_made<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(false);
    for path in [dir.path().to_path_buf(), dir.path().join("missing")] {
        match F::open_with(&path, options.clone()).map(drop) {
            Err(KvsError::NoStore { path: named }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");

    F::open(dir.path()).set_bytes(b"k", b"v").unwrap();
    assert!(F::open_with(dir.path(), options).unwrap().contains(b"k").unwrap());
}

fn exclusive_refuses_a_store_that_is_there<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().exclusive(true);
    F::open_with(dir.path(), options.clone()).unwrap().set_bytes(b"k", b"v").unwrap();
    match F::open_with(dir.path(), options).map(drop) {
        Err(KvsError::StoreExists { path }) => assert_eq!(path, dir.path()),
        other => panic!("{other:?}"),
    }
    assert!(F::open(dir.path()).contains(b"k").unwrap());
}

fn options_that_cannot_work_are_refused<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes_max(SEGMENT_BYTES_FLOOR - 1);
    match F::open_with(dir.path(), options).map(drop) {
        Err(KvsError::InvalidOption { name: "segment_bytes_max", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");
}

fn second_opener_is_refused_until_the_first_closes<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    for _ in 0..2 {
        match F::open_with(dir.path(), Options::new()).map(drop) {
            Err(KvsError::Locked { path, pid }) => {
                assert_eq!(path, dir.path());
                // sled does not say who holds its lock.
                let known = (F::NAME == "kvs").then(std::process::id);
                assert_eq!(pid, known);
            }
            other => panic!("{other:?}"),
        }
    }
    store.set_bytes(b"k", b"the first opener is undisturbed").unwrap();
    store.close().unwrap();
    assert!(F::open(dir.path()).contains(b"k").unwrap());
}

fn lock_timeout_waits_for_the_first_to_let_go<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    let held = Duration::from_millis(500);
    thread::scope(|scope| {
        let start = Instant::now();
        scope.spawn(move || {
            thread::sleep(held);
            store.set_bytes(b"k", b"v").unwrap();
            store.close().unwrap();
        });
        let options = Options::new().lock_timeout(Duration::from_secs(20));
        let store = F::open_with(dir.path(), options).unwrap();
        assert!(start.elapsed() >= held, "opened while another had it open");
        assert!(store.contains(b"k").unwrap());
    });
}

#[test]
fn any_engine_opens_what_the_directory_holds_else_kvs() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(AnyEngine::engine_in(dir.path()).unwrap(), None);
    assert_eq!(open_any(dir.path(), None).name(), "kvs");
    assert_eq!(AnyEngine::engine_in(dir.path()).unwrap(), Some("kvs"));
    assert_eq!(open_any(dir.path(), None).name(), "kvs");
    assert_eq!(open_any(dir.path(), Some("kvs")).name(), "kvs");
}

#[test]
fn unknown_engine_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bolt", "", "KVS"] {
        match AnyEngine::open(dir.path(), Some(name), Options::new()) {
            Err(KvsError::UnknownEngine { name: told }) => assert_eq!(told, name),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something was made");
}

#[cfg(feature = "sled")]
#[test]
fn sled_store_is_opened_by_whoever_names_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    open_any(dir.path(), Some("sled")).set_bytes(b"k", b"v").unwrap();
    assert_eq!(AnyEngine::engine_in(dir.path()).unwrap(), Some("sled"));
    let store = open_any(dir.path(), None);
    assert_eq!(store.name(), "sled");
    assert!(store.contains(b"k").unwrap());
}

#[cfg(feature = "sled")]
#[test]
fn directory_of_another_engine_is_refused_and_left_as_it_is() {
    let kvs_dir = tempfile::tempdir().unwrap();
    let sled_dir = tempfile::tempdir().unwrap();
    kvs::KvStore::open(kvs_dir.path()).unwrap().set_bytes(b"k", b"v").unwrap();
    kvs::SledKvsEngine::open(sled_dir.path()).unwrap().set_bytes(b"k", b"v").unwrap();
    let (kvs_files, sled_files) = (files(kvs_dir.path()), files(sled_dir.path()));

    for options in [Options::new(), Options::new().create(false), Options::new().exclusive(true)] {
        let sled = kvs::SledKvsEngine::open_with(kvs_dir.path(), options.clone()).map(drop);
        check_wrong_engine(sled, kvs_dir.path(), "kvs", "sled");
        let sled = AnyEngine::open(kvs_dir.path(), Some("sled"), options.clone()).map(drop);
        check_wrong_engine(sled, kvs_dir.path(), "kvs", "sled");
        let kvs = AnyEngine::open(sled_dir.path(), Some("kvs"), options).map(drop);
        check_wrong_engine(kvs, sled_dir.path(), "sled", "kvs");
    }
    assert_eq!(files(kvs_dir.path()), kvs_files);
    assert_eq!(files(sled_dir.path()), sled_files);
}

#[cfg(feature = "sled")]
#[test]
fn kvs_itself_refuses_a_directory_of_sled() {
    let dir = tempfile::tempdir().unwrap();
    kvs::SledKvsEngine::open(dir.path()).unwrap().set_bytes(b"k", b"v").unwrap();
    let before = files(dir.path());
    for options in [Options::new(), Options::new().create(false), Options::new().exclusive(true)] {
        let kvs = kvs::KvStore::open_with(dir.path(), options).map(drop);
        check_wrong_engine(kvs, dir.path(), "sled", "kvs");
    }
    assert_eq!(files(dir.path()), before);
}

#[test]
fn engines_of_this_build_are_listed_with_the_default_first() {
    let sled = cfg!(feature = "sled").then_some("sled");
    assert_eq!(kvs::ENGINE_NAMES, ["kvs"].into_iter().chain(sled).collect::<Vec<_>>());
}

#[track_caller]
fn open_any(dir: &Path, engine: Option<&str>) -> AnyEngine {
    AnyEngine::open(dir, engine, Options::new()).unwrap()
}

#[cfg(feature = "sled")]
#[track_caller]
fn check_wrong_engine(result: kvs::Result<()>, dir: &Path, wrote: &str, wanted: &str) {
    match result {
        Err(KvsError::WrongEngine { path, found, asked }) => {
            assert_eq!((path.as_path(), found, asked), (dir, wrote, wanted));
        }
        other => panic!("{other:?}"),
    }
}

/// Names and contents, to see that nothing was touched.
#[cfg(feature = "sled")]
fn files(dir: &Path) -> std::collections::BTreeMap<std::ffi::OsString, Option<Vec<u8>>> {
    let entries = dir.read_dir().unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).ok())).collect()
}
