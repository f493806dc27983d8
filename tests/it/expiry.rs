//! Expiry as every engine promises it, with the clock of the system: an hour is far enough ahead.
//! What needs a clock that can be set is tested inside the crate (`src/store/tests/expiry.rs`).

use std::thread;
use std::time::{Duration, Instant};

use kvs::{
    AnyEngine, CompareAndSwap, Expiry, KvStore, KvsEngine, KvsError, Options, Result, Scan, Update,
    WriteBatch, dump,
};

use crate::contract::{Factory, every_engine, every_engine_on_disk, promises};
use crate::model_engine::now_ms;

const HOUR_MS: u64 = 3_600_000;

every_engine! {
    key_does_not_expire_unless_it_is_told_to
    expiry_is_told_changed_and_taken_off
    key_with_a_past_expiry_is_absent_everywhere
    key_expires_by_itself
    setting_a_key_takes_its_expiry_off
    update_keeps_the_expiry_or_sets_it
    batch_sets_expiry_and_its_last_operation_wins
    engine_without_expiry_says_so_and_writes_nothing
    expiry_survives_reopening
}

fn fresh<F: Factory>() -> (tempfile::TempDir, F::Engine) {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    (dir, store)
}

/// Whether keys can expire; see `engine_without_expiry_says_so_and_writes_nothing` for the others.
fn can_expire<F: Factory>() -> bool {
    F::NAME != "sled"
}

#[track_caller]
fn check_expiry<E: KvsEngine>(store: &E, key: &[u8], expected: Expiry) {
    assert_eq!(store.expiry(key).unwrap(), expected);
    let found = store.get_with_expiry(key).unwrap();
    assert_eq!(Expiry::from(found.map(|(_, expiry_ms)| expiry_ms)), expected);
    assert_eq!(store.contains(key).unwrap(), expected != Expiry::Absent);
}

/// Asks in every way whether `key` is there, and finds that it is not.
#[track_caller]
fn check_absent<E: KvsEngine>(store: &E, key: &[u8]) {
    check_expiry(store, key, Expiry::Absent);
    assert_eq!(store.get_bytes(key).unwrap(), None);
    assert_eq!(store.get_with(key, <[u8]>::len).unwrap(), None);
    assert!(!store.get_into(key, &mut Vec::new()).unwrap());
    assert_eq!(store.get_many(&[key]).unwrap(), [None]);
    let keys = |entries: kvs::Entries| entries.map(|entry| entry.unwrap().0).collect::<Vec<_>>();
    assert!(!keys(store.iter().unwrap()).iter().any(|met| met == key));
    assert!(!keys(store.scan(Scan::all().keys_only()).unwrap()).iter().any(|met| met == key));
    assert!(!keys(store.scan_prefix(key).unwrap()).iter().any(|met| met == key));
    let key_not_found = |result: Result<()>| matches!(result, Err(KvsError::KeyNotFound));
    assert!(key_not_found(store.remove_bytes(key)));
    assert!(key_not_found(store.persist(key).map(drop)));
    assert!(key_not_found(store.set_expiry(key, None).map(drop)));
    store.update(key, &mut |old| old.map_or(Update::Keep, |_| panic!("it is there"))).unwrap();
    let swapped = store.compare_and_swap(key, Some(b"no such value"), None).unwrap();
    assert_eq!(swapped, CompareAndSwap::Mismatch(None));
}

fn key_does_not_expire_unless_it_is_told_to<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    check_absent(&store, b"k");
    store.set_bytes(b"k", b"v").unwrap();
    check_expiry(&store, b"k", Expiry::Never);
    assert!(!store.persist(b"k").unwrap());
    assert_eq!(store.set_expiry(b"k", None).unwrap(), None);
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"v");
}

fn expiry_is_told_changed_and_taken_off<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let at = now_ms() + HOUR_MS;
    store.set_with_expiry(b"k", b"v", at).unwrap();
    check_expiry(&store, b"k", Expiry::At(at));
    assert_eq!(store.set_expiry(b"k", Some(at + 1)).unwrap(), Some(at));
    check_expiry(&store, b"k", Expiry::At(at + 1));
    assert!(store.persist(b"k").unwrap());
    check_expiry(&store, b"k", Expiry::Never);
    assert!(!store.persist(b"k").unwrap());
    assert_eq!(store.set_expiry(b"k", Some(u64::MAX)).unwrap(), None);
    check_expiry(&store, b"k", Expiry::At(u64::MAX));
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"v");
    assert_eq!(store.set_expiry(b"k", Some(at - 2 * HOUR_MS)).unwrap(), Some(u64::MAX));
    check_absent(&store, b"k");
    assert!(matches!(store.set_expiry(b"absent", Some(at)), Err(KvsError::KeyNotFound)));
    check_absent(&store, b"absent");
}

fn key_with_a_past_expiry_is_absent_everywhere<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    store.set_bytes(b"a", b"1").unwrap();
    for past_ms in [0, 1, now_ms()] {
        store.set_bytes(b"k", b"v").unwrap();
        store.set_with_expiry(b"k", b"w", past_ms).unwrap();
        check_absent(&store, b"k");
        assert!(matches!(
            store.compare_and_swap(b"k", None, Some(b"n")),
            Ok(CompareAndSwap::Swapped)
        ));
        check_expiry(&store, b"k", Expiry::Never);
        store.set_with_expiry(b"k", b"w", past_ms).unwrap();
        assert_eq!(store.swap(b"k", Some(b"n")).unwrap(), None);
        store.set_with_expiry(b"k", b"w", past_ms).unwrap();
    }
    assert!((1..=2).contains(&store.len().unwrap()), "expired keys may be counted");
    store.compact().unwrap();
    assert_eq!(store.len().unwrap(), 1);
}

fn key_expires_by_itself<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let at = now_ms() + 50;
    store.set_with_expiry(b"k", b"v", at).unwrap();
    let began = Instant::now();
    while store.contains(b"k").unwrap() {
        assert!(began.elapsed() < Duration::from_secs(10), "it stays");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(now_ms() >= at, "it went early");
    check_absent(&store, b"k");
}

/// A way of setting a key, by name.
type Way<'a, E> = (&'a str, &'a dyn Fn(&E) -> Result<()>);

fn setting_a_key_takes_its_expiry_off<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let mut batch = WriteBatch::new();
    batch.set(b"k", b"2");
    let cas = |store: &F::Engine| store.compare_and_swap(b"k", Some(b"1"), Some(b"2")).map(drop);
    let ways: [Way<F::Engine>; 4] = [
        ("set_bytes", &|store| store.set_bytes(b"k", b"2")),
        ("swap", &|store| store.swap(b"k", Some(b"2")).map(drop)),
        ("compare_and_swap", &cas),
        ("apply", &|store| store.apply(&batch)),
    ];
    for (name, set) in ways {
        store.set_with_expiry(b"k", b"1", now_ms() + HOUR_MS).unwrap();
        set(&store).unwrap();
        assert_eq!(store.expiry(b"k").unwrap(), Expiry::Never, "{name}");
        assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"2", "{name}");
    }
}

fn update_keeps_the_expiry_or_sets_it<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let at = now_ms() + HOUR_MS;
    let append = &mut |old: Option<&[u8]>| Update::Set([old.unwrap_or_default(), b"!"].concat());
    store.update(b"k", append).unwrap();
    check_expiry(&store, b"k", Expiry::Never);
    store.set_expiry(b"k", Some(at)).unwrap();
    store.update(b"k", append).unwrap();
    check_expiry(&store, b"k", Expiry::At(at));
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"!!");
    for expiry_ms in [Some(at + 1), None, Some(at)] {
        let set = |_: Option<&[u8]>| Update::SetWithExpiry { value: b"new".to_vec(), expiry_ms };
        store.update(b"k", &mut { set }).unwrap();
        check_expiry(&store, b"k", Expiry::from(Some(expiry_ms)));
    }
    store.update(b"k", &mut |_| Update::Keep).unwrap();
    check_expiry(&store, b"k", Expiry::At(at));
    // What has expired passes nothing on.
    store.set_expiry(b"k", Some(1)).unwrap();
    store.update(b"k", append).unwrap();
    check_expiry(&store, b"k", Expiry::Never);
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"!");
}

fn batch_sets_expiry_and_its_last_operation_wins<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let at = now_ms() + HOUR_MS;
    store.set_bytes(b"past", b"1").unwrap();
    store.set_with_expiry(b"gone", b"1", 1).unwrap();
    let mut batch = WriteBatch::new();
    batch.set_with_expiry(b"a", b"1", at).set_with_expiry(b"b", b"1", at).set(b"b", b"2");
    batch.set(b"c", b"1").set_with_expiry(b"c", b"2", at).set_with_expiry(b"past", b"2", 1);
    batch.set_with_expiry(b"d", b"1", at).remove(b"d").remove(b"gone");
    store.apply(&batch).unwrap();
    check_expiry(&store, b"a", Expiry::At(at));
    check_expiry(&store, b"b", Expiry::Never);
    check_expiry(&store, b"c", Expiry::At(at));
    for absent in [&b"d"[..], b"past", b"gone"] {
        check_absent(&store, absent);
    }
}

fn engine_without_expiry_says_so_and_writes_nothing<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    if can_expire::<F>() {
        return;
    }
    store.set_bytes(b"k", b"v").unwrap();
    let mut batch = WriteBatch::new();
    batch.set(b"other", b"w").set_with_expiry(b"k", b"w", u64::MAX);
    let expiry_ms = Some(1);
    let refused = [
        store.set_with_expiry(b"k", b"w", u64::MAX),
        store.set_expiry(b"k", expiry_ms).map(drop),
        store.apply(&batch),
        store.update(b"k", &mut |_| Update::SetWithExpiry { value: b"w".to_vec(), expiry_ms }),
    ];
    for (number, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(KvsError::Unsupported { .. })), "{number}: {result:?}");
    }
    let (value, expiry_ms) = (b"x".to_vec(), None);
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"v");
    assert_eq!(store.len().unwrap(), 1);
    store.update(b"k", &mut |_| Update::SetWithExpiry { value: value.clone(), expiry_ms }).unwrap();
    assert_eq!(store.get_bytes(b"k").unwrap().unwrap(), *b"x");
}

fn expiry_survives_reopening<F: Factory>() {
    let (dir, store) = fresh::<F>();
    if !can_expire::<F>() {
        return;
    }
    let at = now_ms() + HOUR_MS;
    store.set_with_expiry(b"k", b"v", at).unwrap();
    store.set_bytes(b"past", b"v").unwrap();
    store.set_with_expiry(b"past", b"v", 1).unwrap();
    store.close().unwrap();
    drop(store);
    let store = F::open(dir.path());
    check_expiry(&store, b"k", Expiry::At(at));
    check_absent(&store, b"past");
    store.compact().unwrap();
    check_expiry(&store, b"k", Expiry::At(at));
    assert_eq!(store.len().unwrap(), 1);
}

#[test]
fn checkpoint_repair_and_dump_keep_the_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_ms() + HOUR_MS;
    let store = KvStore::open(dir.path().join("store")).unwrap();
    store.set_with_expiry(b"k", b"v", at).unwrap();
    store.set_with_expiry(b"past", b"v", 1).unwrap();
    store.set_bytes(b"plain", b"v").unwrap();
    store.checkpoint(&dir.path().join("copy")).unwrap();
    let mut text = Vec::new();
    assert_eq!(dump::dump(&store, &mut text).unwrap(), 2);
    store.close().unwrap();
    let mut lines: Vec<_> = std::str::from_utf8(&text).unwrap().lines().collect();
    lines.sort_unstable();
    let dumped = format!(r#"{{"key":"k","value":"v","expiry_ms":{at}}}"#);
    assert_eq!(lines, [dumped.as_str(), r#"{"key":"plain","value":"v"}"#]);

    KvStore::repair(dir.path().join("store"), dir.path().join("repaired"), &mut |_| {}).unwrap();
    let loaded = KvStore::open(dir.path().join("loaded")).unwrap();
    assert_eq!(dump::load(&loaded, &text[..], 0).unwrap(), 2);
    loaded.close().unwrap();
    for copy in ["copy", "repaired", "loaded"] {
        let copy = KvStore::open(dir.path().join(copy)).unwrap();
        check_expiry(&copy, b"k", Expiry::At(at));
        check_expiry(&copy, b"plain", Expiry::Never);
        check_absent(&copy, b"past");
    }
    let mut logged = Vec::new();
    KvStore::read_log(dir.path().join("store"), &mut |record| {
        let line: serde_json::Value = serde_json::from_str(&record.to_json(false)).unwrap();
        assert_eq!(line["expiry_ms"].as_u64(), record.expiry_ms);
        logged.push((record.key.to_vec(), record.expiry_ms));
        Ok(())
    })
    .unwrap();
    assert!(logged.contains(&(b"k".to_vec(), Some(at))), "{logged:?}");
    assert!(logged.contains(&(b"plain".to_vec(), None)), "{logged:?}");
}

#[test]
fn line_of_a_dump_that_has_expired_makes_its_key_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = KvStore::open(dir.path()).unwrap();
    store.set_bytes(b"k", b"old").unwrap();
    let text = r#"{"key":"k","value":"v","expiry_ms":1}"#;
    assert_eq!(dump::load(&store, text.as_bytes(), 0).unwrap(), 1);
    check_absent(&store, b"k");
    for broken in ["-1", "1.5", "\"1\"", "18446744073709551616"] {
        let text = format!(r#"{{"key":"k","value":"v","expiry_ms":{broken}}}"#);
        let loaded = dump::load(&store, text.as_bytes(), 0);
        assert!(matches!(loaded, Err(KvsError::BadLine { line: 1, .. })), "{broken}: {loaded:?}");
    }
}

/// A dump with expiry is not taken by an engine that would keep such keys for ever.
#[cfg(feature = "sled")]
#[test]
fn dump_with_expiry_is_refused_by_an_engine_without() {
    let dir = tempfile::tempdir().unwrap();
    let store = AnyEngine::open(dir.path(), Some("sled"), Options::new()).unwrap();
    let text = "{\"key\":\"a\",\"value\":\"v\"}\n{\"key\":\"b\",\"value\":\"v\",\"expiry_ms\":1}";
    let loaded = dump::load(&store, text.as_bytes(), 0);
    assert!(matches!(loaded, Err(KvsError::Unsupported { .. })), "{loaded:?}");
    assert_eq!(store.len().unwrap(), 0);
}
