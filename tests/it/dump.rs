//! Dump, load and import: a store as text and back, and the first implementation's logs.

use std::collections::BTreeMap;
use std::path::Path;

use kvs::{AnyEngine, ENGINE_NAMES, KvStore, KvsEngine, KvsError, Options, dump};

fn contents<E: KvsEngine>(engine: &E) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entry = |entry: kvs::Result<(Vec<u8>, kvs::Value)>| {
        let (key, value) = entry.unwrap();
        (key, value.to_vec())
    };
    engine.iter().unwrap().map(entry).collect()
}

#[test]
fn what_is_dumped_is_loaded_by_every_engine() {
    for from in ENGINE_NAMES {
        for to in ENGINE_NAMES {
            let dir = tempfile::tempdir().unwrap();
            let open = |at: &str, engine: &str| {
                AnyEngine::open(dir.path().join(at), Some(engine), Options::new()).unwrap()
            };
            let (from, to) = (open("from", from), open("to", to));
            // More than one batch; every byte as key and in values; empty, long, awkward text.
            for i in 0..2500_u32 {
                from.set_bytes(format!("key{i}").as_bytes(), &i.to_be_bytes()).unwrap();
            }
            for byte in 0..=255_u8 {
                from.set_bytes(&[byte], &[byte, 0, 255 - byte]).unwrap();
            }
            from.set_bytes(b"", b"").unwrap();
            from.set_bytes(b"quote\"\n\\", "\u{1F600}\u{2028}".as_bytes()).unwrap();
            from.set_bytes(b"long", &vec![0xE9; 3 << 20]).unwrap();
            let mut text = Vec::new();
            let count = dump::dump(&from, &mut text).unwrap();
            assert_eq!(count, from.len().unwrap());
            assert_eq!(text.split_inclusive(|byte| *byte == b'\n').count() as u64, count);
            assert_eq!(dump::load(&to, &text[..], 0).unwrap(), count);
            assert!(contents(&to) == contents(&from));
        }
    }
}

/// Each row is a line that cannot be taken.
#[test]
fn a_broken_line_is_named_and_everything_before_it_is_loaded() {
    for (name, broken) in [
        ("no JSON", "key = value"),
        ("half a line", r#"{"key":"half"#),
        ("no value", r#"{"key":"k"}"#),
        ("no key", r#"{"value":"v"}"#),
        ("two keys", r#"{"key":"k","key_b64":"aw==","value":"v"}"#),
        ("no base64", r#"{"key_b64":"!","value":"v"}"#),
        ("an unknown field", r#"{"key":"k","value":"v","colour":"red"}"#),
        ("a number", r#"{"key":"k","value":1}"#),
        ("two objects", r#"{"key":"k","value":"v"}{"key":"l","value":"v"}"#),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open(dir.path()).unwrap();
        let line = |i: u32| format!("{{\"key\":\"k{i:04}\",\"value\":\"{i}\"}}\n");
        let before: String = (1..=1500).map(line).collect();
        let after: String = (1502..=1510).map(line).collect();
        let text = format!("{before}{broken}\n{after}");
        match dump::load(&store, text.as_bytes(), 0) {
            Err(KvsError::BadLine { path: None, line: 1501, .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(store.len().unwrap(), 1500, "{name}");
        // Resumed behind the broken line.
        assert_eq!(dump::load(&store, text.as_bytes(), 1501).unwrap(), 9, "{name}");
        assert_eq!(store.len().unwrap(), 1509, "{name}");
    }
}

#[test]
fn limits_of_keys_are_the_line_s_fault_and_empty_lines_are_nobody_s() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    let line = |len: usize| format!("\n  \n{{\"key\":\"{}\",\"value\":\"\"}}\r\n", "k".repeat(len));
    assert_eq!(dump::load(&store, line(65_535).as_bytes(), 0).unwrap(), 1);
    let error = dump::load(&store, line(65_536).as_bytes(), 0).unwrap_err();
    assert!(matches!(error, KvsError::BadLine { line: 3, .. }), "{error:?}");
    assert_eq!(store.len().unwrap(), 1);
}

/// A writer that takes so many bytes and no more.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = bytes.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_dump_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    store.set_bytes(b"k", b"v").unwrap();
    assert!(matches!(dump::dump(&store, &mut Full(5)), Err(KvsError::Io { .. })));
    store.close().unwrap();
    assert!(matches!(dump::dump(&store, &mut Vec::new()), Err(KvsError::Closed)));
}

fn set(layout: &str, key: &str, value: &str) -> String {
    match layout {
        "nested" => format!("{{\"Set\":{{\"key\":\"{key}\",\"value\":\"{value}\"}}}}"),
        _ => format!("{{\"cmd\":\"Set\",\"key\":\"{key}\",\"value\":\"{value}\"}}"),
    }
}

fn remove(layout: &str, key: &str) -> String {
    match layout {
        "nested" => format!("{{\"Remove\":{{\"key\":\"{key}\"}}}}"),
        _ => format!("{{\"cmd\":\"Remove\",\"key\":\"{key}\"}}"),
    }
}

/// Writes logs in the layout; `10.log` comes after `2.log`. `end` closes the last file.
fn write_old(dir: &Path, layout: &str, separator: &str, end: &str) {
    let log = |number: u32, lines: &[String], end: &str| {
        let text = [&lines.join(separator), separator, end].concat();
        std::fs::write(dir.join(format!("{number}.log")), text).unwrap();
    };
    log(1, &[set(layout, "a", "1"), set(layout, "b", "1"), set(layout, "\\u00e9", "\\n")], "");
    log(2, &[set(layout, "a", "2"), remove(layout, "b"), remove(layout, "never")], "");
    log(10, &[set(layout, "a", "10"), set(layout, "c", "10")], end);
}

#[test]
fn old_logs_are_replayed_in_both_layouts() {
    for layout in ["nested", "flat"] {
        for separator in ["\n", ""] {
            let dir = tempfile::tempdir().unwrap();
            let old = dir.path().join("old");
            std::fs::create_dir(&old).unwrap();
            write_old(&old, layout, separator, "");
            let store = KvStore::open(dir.path().join("new")).unwrap();
            let mut done = Vec::new();
            let report =
                dump::import_old(&old, &store, &mut |progress| done.push(progress.done_bytes));
            let report = report.unwrap();
            assert_eq!((report.file_count, report.write_count), (3, 8), "{layout} {separator:?}");
            assert_eq!(report.crash_tail_bytes, 0);
            assert_eq!(done.len(), 3);
            let expected = [("a", "10"), ("c", "10"), ("\u{e9}", "\n")];
            let expected: BTreeMap<_, _> =
                expected.map(|(key, value)| (key.into(), value.into())).into();
            assert_eq!(contents(&store), expected, "{layout} {separator:?}");
        }
    }
}

#[test]
fn half_a_line_at_the_end_of_old_logs_is_a_crash_tail() {
    for tail in [r#"{"Set":{"key":"half","va"#, "{", "\0\0\0\0"] {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        write_old(&old, "nested", "\n", tail);
        std::fs::write(old.join("11.log"), "").unwrap();
        let store = KvStore::open(dir.path().join("new")).unwrap();
        let report = dump::import_old(&old, &store, &mut |_| {}).unwrap();
        assert_eq!(report.crash_tail_bytes, tail.len() as u64, "{tail:?}");
        assert_eq!(report.write_count, 8);
        assert_eq!(store.len().unwrap(), 3);
    }
}

#[test]
fn broken_text_that_writes_follow_is_an_error_with_file_and_line() {
    for (number, text, line) in [
        (1, format!("{}\nbroken\n{}\n", set("flat", "k", "1"), set("flat", "k", "2")), 2),
        (1, format!("{{\"Set\":\n{}\n", set("flat", "k", "2")), 1),
        // At the end of a log, with writes in the next one.
        (9, "\n\n{\"Set\":{\"key\"".to_owned(), 3),
        (1, format!("{{\"Get\":{{}}}}{}", set("flat", "k", "2")), 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        write_old(&old, "flat", "\n", "");
        let file = old.join(format!("{number}.log"));
        std::fs::write(&file, &text).unwrap();
        let store = KvStore::open(dir.path().join("new")).unwrap();
        match dump::import_old(&old, &store, &mut |_| {}) {
            Err(KvsError::BadLine { path: Some(path), line: found, .. }) => {
                assert_eq!((path, found), (file, line), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

/// Other programs call their logs `1.log` too. One that was taken for a crash tail would be an
/// import of nothing, and pass for a success.
#[test]
fn a_log_of_another_program_is_no_crash_tail() {
    for (text, line) in [
        (&b"\x8f\x1d\x0c\xe1\x25\x00\x01binary"[..], 1),
        (b"2026-11-26 12:00:00 started", 1),
        (b"\n\n[1, 2, 3]\n", 3),
        (b"{\"log\":\"started\"}\n", 1),
        (b"{\"Get\":{\"key\":\"k\"}}", 1),
        (b"{\"Set\":{\"key\":\"k\",\"value\":1}}", 1),
        (b"\"Set\"", 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        std::fs::write(old.join("1.log"), text).unwrap();
        let store = KvStore::open(dir.path().join("new")).unwrap();
        let said = String::from_utf8_lossy(text);
        match dump::import_old(&old, &store, &mut |_| {}) {
            Err(KvsError::BadLine { path: Some(path), line: found, .. }) => {
                assert_eq!((path, found), (old.join("1.log"), line), "{said}");
            }
            other => panic!("{said}: {other:?}"),
        }
        assert!(store.is_empty().unwrap(), "{said}");
    }
}

#[test]
fn a_directory_without_old_logs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path().join("new")).unwrap();
    let import = |from: &str| dump::import_old(dir.path().join(from), &store, &mut |_| {});
    assert!(matches!(import("missing"), Err(KvsError::NoStore { .. })));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::write(dir.path().join("empty/notes.log"), "hello").unwrap();
    assert!(matches!(import("empty"), Err(KvsError::NoStore { .. })));
    assert!(matches!(import("new"), Err(KvsError::WrongEngine { found: "kvs", .. })));
    assert!(store.is_empty().unwrap());
}
