//! Stores that each version has written open, and hold what they held then.
//!
//! Below `tests/golden` is, for each version, a store that was closed, one that was killed, and
//! what both hold, as a dump of a map that was told the same. None is ever written anew.
//! `KVS_GOLDEN_WRITE=1 cargo test --test it golden` writes what is not there yet.

use std::path::{Path, PathBuf};
use std::{env, fs};

use kvs::{KvStore, KvsEngine, Options, ReadMode, WriteBatch, dump};

use crate::model_engine::ModelEngine;
use crate::recovery::{copy, files};

/// The first of January 2100.
const FAR_MS: u64 = 4_102_444_800_000;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Several logs, of which compaction makes fewer.
fn options() -> Options {
    let options = Options::new().segment_bytes_min(0).segment_bytes_max(16 << 10);
    options.auto_compaction(false)
}

/// What the store that is closed compacts: of the clear and of all before it nothing stays there.
fn begin(engine: &impl KvsEngine) {
    for i in 0..50_u32 {
        engine.set_bytes(format!("cleared {i}").as_bytes(), b"gone").unwrap();
    }
    engine.clear().unwrap();
    for round in 0..4_u32 {
        for i in 0..200_u32 {
            let value = format!("value {round} of {i} {}", "x".repeat((i % 40) as usize));
            engine.set_bytes(format!("key {i}").as_bytes(), value.as_bytes()).unwrap();
        }
    }
    engine.set_with_expiry(b"expires in 2100", b"later", FAR_MS).unwrap();
}

/// Every byte, batches, times, what is removed, what is longer than a log.
fn go_on(engine: &impl KvsEngine) {
    for i in (0..200_u32).step_by(5) {
        engine.remove_bytes(format!("key {i}").as_bytes()).unwrap();
    }
    for byte in 0..=255_u8 {
        engine.set_bytes(&[byte], &[byte, 0, 255 - byte]).unwrap();
    }
    engine.set_bytes(b"", b"").unwrap();
    engine.set_bytes(&[b'k'; 1000], &vec![0xE9; 20_000]).unwrap();
    engine.set_with_expiry(b"expired in 1970", b"gone", 1).unwrap();
    engine.set_bytes(b"told to expire", b"later, too").unwrap();
    engine.set_expiry(b"told to expire", Some(FAR_MS)).unwrap();
    let mut batch = WriteBatch::new();
    for i in 0..50_u32 {
        batch.set(format!("of a batch {i}").as_bytes(), &i.to_be_bytes());
        batch.remove(format!("key {}", i + 100).as_bytes());
    }
    batch.set_with_expiry(b"of a batch, expires", b"later", FAR_MS);
    engine.apply(&batch).unwrap();
    engine.set_bytes(b"last", b"write").unwrap();
}

/// What an engine holds, as the lines of its dump, sorted.
fn lines(engine: &impl KvsEngine) -> Vec<String> {
    let mut text = Vec::new();
    dump::dump(engine, &mut text).unwrap();
    let mut lines: Vec<_> = str::from_utf8(&text).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn write(version: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let map = ModelEngine::open(dir.path()).unwrap();
    begin(&map);
    go_on(&map);
    for (kind, is_killed) in [("closed", false), ("killed", true)] {
        let live = dir.path().join(kind);
        let store = KvStore::open_with(&live, options()).unwrap();
        begin(&store);
        if is_killed {
            go_on(&store);
            copy(&live, &version.join(kind));
        } else {
            store.compact().unwrap();
            go_on(&store);
            store.close().unwrap();
            copy(&live, &version.join(kind));
        }
    }
    let lines: String = lines(&map).into_iter().map(|line| line + "\n").collect();
    fs::write(version.join("content.ndjson"), lines).unwrap();
}

/// With its hints and without, by a view and by a store that goes on.
fn check_opens(files_of: &Path, expected: &[String]) {
    for (read_mode, has_hints) in [
        (ReadMode::Mapped, true),
        (ReadMode::Mapped, false),
        (ReadMode::Positioned, true),
        (ReadMode::Positioned, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(files_of, dir.path());
        if !has_hints {
            for file in files(dir.path(), "seg-") {
                if file.extension().is_some_and(|extension| extension == "hint") {
                    fs::remove_file(file).unwrap();
                }
            }
        }
        let told = format!("{}, {read_mode:?}, hints: {has_hints}", files_of.display());
        assert!(KvStore::verify_dir(dir.path(), &mut |_| {}).unwrap().is_sound(), "{told}");
        let options = options().read_mode(read_mode);
        let open = || KvStore::open_with(dir.path(), options.clone()).unwrap();
        let view = KvStore::open_with(dir.path(), options.clone().read_only(true)).unwrap();
        assert!(lines(&view) == expected, "a view of {told}");
        view.close().unwrap();
        // What this version knows of a key stands beside what that one knew, then in its place.
        let store = open();
        assert!(lines(&store) == expected, "{told}");
        store.set_bytes(b"last", b"replaced").unwrap();
        store.close().unwrap();
        let store = open();
        assert_eq!(lines(&store).len(), expected.len(), "{told}");
        store.set_bytes(b"last", b"write").unwrap();
        store.close().unwrap();
        let store = open();
        assert!(lines(&store) == expected, "written, {told}");
        store.compact().unwrap();
        store.close().unwrap();
        assert!(lines(&open()) == expected, "compacted, {told}");
    }
}

#[test]
fn stores_of_every_version_open() {
    let this = golden().join(env!("CARGO_PKG_VERSION"));
    if env::var_os("KVS_GOLDEN_WRITE").is_some() && !this.exists() {
        write(&this);
    }
    assert!(this.is_dir(), "this version has none; KVS_GOLDEN_WRITE=1 writes them, commit them");
    for version in fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()) {
        if !version.is_dir() {
            continue;
        }
        let content = fs::read_to_string(version.join("content.ndjson")).unwrap();
        let expected: Vec<_> = content.lines().map(str::to_owned).collect();
        for files_of in ["closed", "killed"] {
            check_opens(&version.join(files_of), &expected);
        }
    }
}
