//! What `src/engine.rs` promises, asked of every engine, of `AnyEngine` over each, and of a
//! `BTreeMap`. Each promise is one generic function; `every_engine!` makes a test of it per engine.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use kvs::options::{BATCH_BYTES_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use kvs::{
    AnyEngine, Durability, KvStore, KvsEngine, KvsError, Options, Result, Scan, Write, WriteBatch,
    WriteOptions,
};

use crate::model_engine::ModelEngine;

/// How the suite opens an engine.
pub(crate) trait Factory {
    type Engine: KvsEngine;

    /// What the engine calls itself.
    const NAME: &str;

    fn open_with(dir: &Path, options: Options) -> Result<Self::Engine>;

    #[track_caller]
    fn open(dir: &Path) -> Self::Engine {
        Self::open_with(dir, Options::new()).unwrap()
    }
}

pub(crate) struct Kvs;

impl Factory for Kvs {
    type Engine = KvStore;
    const NAME: &str = "kvs";

    fn open_with(dir: &Path, options: Options) -> Result<KvStore> {
        KvStore::open_with(dir, options)
    }
}

#[cfg(feature = "sled")]
pub(crate) struct Sled;

#[cfg(feature = "sled")]
impl Factory for Sled {
    type Engine = kvs::SledKvsEngine;
    const NAME: &str = "sled";

    fn open_with(dir: &Path, options: Options) -> Result<kvs::SledKvsEngine> {
        kvs::SledKvsEngine::open_with(dir, options)
    }
}

pub(crate) struct AnyKvs;

impl Factory for AnyKvs {
    type Engine = AnyEngine;
    const NAME: &str = "kvs";

    fn open_with(dir: &Path, options: Options) -> Result<AnyEngine> {
        AnyEngine::open(dir, Some("kvs"), options)
    }
}

#[cfg(feature = "sled")]
pub(crate) struct AnySled;

#[cfg(feature = "sled")]
impl Factory for AnySled {
    type Engine = AnyEngine;
    const NAME: &str = "sled";

    fn open_with(dir: &Path, options: Options) -> Result<AnyEngine> {
        AnyEngine::open(dir, Some("sled"), options)
    }
}

pub(crate) struct Model;

impl Factory for Model {
    type Engine = ModelEngine;
    const NAME: &str = "model";

    fn open_with(dir: &Path, _: Options) -> Result<ModelEngine> {
        ModelEngine::open(dir)
    }
}

/// Makes a module of tests for one factory.
macro_rules! promises {
    ($engine:ident, $factory:ident: $($promise:ident)*) => {
        mod $engine {
            $(#[test]
            fn $promise() {
                super::$promise::<$crate::contract::$factory>();
            })*
        }
    };
}
pub(crate) use promises;

/// The promises of every engine that keeps its data in a directory.
macro_rules! every_engine_on_disk {
    ($($promise:ident)*) => {
        promises!(on_kvs, Kvs: $($promise)*);
        promises!(on_any_kvs, AnyKvs: $($promise)*);
        #[cfg(feature = "sled")]
        promises!(on_sled, Sled: $($promise)*);
        #[cfg(feature = "sled")]
        promises!(on_any_sled, AnySled: $($promise)*);
    };
}
pub(crate) use every_engine_on_disk;

/// The promises of every engine, the model included.
macro_rules! every_engine {
    ($($promise:ident)*) => {
        every_engine_on_disk!($($promise)*);
        promises!(on_model, Model: $($promise)*);
    };
}
pub(crate) use every_engine;

every_engine! {
    absent_key_is_none_in_every_read
    empty_key_and_empty_value_are_ordinary
    keys_and_values_may_hold_any_byte
    key_at_the_limit_is_stored_and_one_above_is_refused
    key_over_the_limit_is_absent
    value_over_the_limit_is_refused_and_nothing_is_written
    value_larger_than_a_segment_comes_back_whole
    last_value_set_is_the_one_read
    removing_an_absent_key_is_key_not_found
    text_api_sets_gets_and_removes
    text_api_refuses_a_value_that_is_not_utf8
    later_operations_of_a_batch_win
    empty_batch_does_nothing
    clear_removes_every_key_for_good_and_the_store_goes_on
    clear_beside_writers_keeps_what_is_written_after_it
    batch_can_be_applied_again
    refused_batch_applies_nothing
    batch_over_the_limit_is_refused_and_nothing_is_applied
    batch_counts_towards_the_limit_what_it_comes_down_to
    batch_with_sync_asked_for_is_applied
    readers_see_all_of_a_batch_or_none
    len_counts_each_key_once
    len_belongs_to_one_moment_while_threads_write
    len_counts_a_key_that_a_batch_removes_while_others_set_it
    get_with_reads_once_and_only_what_is_there
    get_into_reuses_the_buffer
    clones_are_handles_of_one_store
    closed_store_refuses_everything_through_every_clone
    values_handed_out_survive_overwrite_removal_and_close
    reopening_sees_everything_at_every_durability
    store_is_closed_when_the_last_clone_goes
    directory_is_free_again_when_close_returns
    close_under_load_keeps_every_acknowledged_write
    sync_and_compact_lose_nothing
    many_threads_write_and_read_their_own_keys
    reads_of_a_key_never_go_back
    one_of_many_removers_wins
    writes_handed_over_are_done_in_order_with_their_outcome
    write_handed_over_to_a_closed_store_is_told_so
    close_waits_for_the_writes_handed_over
    engine_says_its_name
}

/// A store in a directory of its own, with the default options.
fn fresh<F: Factory>() -> (tempfile::TempDir, F::Engine) {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    (dir, store)
}

/// `key` reads as `expected` through every way of reading.
#[track_caller]
fn check_reads<E: KvsEngine>(store: &E, key: &[u8], expected: Option<&[u8]>) {
    let mut buffer = b"left over".to_vec();
    assert_eq!(store.get_bytes(key).unwrap().as_deref(), expected, "get_bytes");
    assert_eq!(store.get_with(key, <[u8]>::to_vec).unwrap().as_deref(), expected, "get_with");
    assert_eq!(store.contains(key).unwrap(), expected.is_some(), "contains");
    assert_eq!(store.get_into(key, &mut buffer).unwrap(), expected.is_some(), "get_into");
    assert_eq!(buffer, expected.unwrap_or_default(), "get_into");
}

#[track_caller]
fn check_len<E: KvsEngine>(store: &E, expected: u64) {
    assert_eq!(store.len().unwrap(), expected);
    assert_eq!(store.is_empty().unwrap(), expected == 0);
}

#[track_caller]
fn check_closed<T>(operation: &str, result: Result<T>) {
    match result {
        Err(KvsError::Closed) => {}
        Err(other) => panic!("{operation}: {other}"),
        Ok(_) => panic!("{operation} went through"),
    }
}

/// Far longer than any outcome takes; reached only by one that never comes.
const SAID_WITHIN: Duration = Duration::from_secs(20);

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

fn clear_removes_every_key_for_good_and_the_store_goes_on<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    store.clear().unwrap();
    for i in 0..300_u32 {
        store.set_bytes(&i.to_be_bytes(), &[1; 50]).unwrap();
    }
    store.remove_bytes(&7_u32.to_be_bytes()).unwrap();
    assert_eq!(store.scan(Scan::all()).unwrap().count(), 299);
    store.clear().unwrap();
    assert_eq!(store.len().unwrap(), 0);
    assert_eq!(store.iter().unwrap().count() + store.scan(Scan::all()).unwrap().count(), 0);
    assert_eq!(store.get_bytes(&5_u32.to_be_bytes()).unwrap(), None);
    assert!(matches!(store.remove_bytes(&5_u32.to_be_bytes()), Err(KvsError::KeyNotFound)));
    store.set_bytes(b"after", b"1").unwrap();
    store.close().unwrap();
    assert!(matches!(store.clear(), Err(KvsError::Closed)));
    drop(store);
    for _ in 0..2 {
        let store = F::open(dir.path());
        let keys: Vec<_> = store.iter().unwrap().map(|entry| entry.unwrap().0).collect();
        assert_eq!((keys, store.len().unwrap()), (vec![b"after".to_vec()], 1));
        store.compact().unwrap();
    }
}

/// Each writer waits for its set before a clear, or after it; what it set after the last clear it
/// has seen is there.
fn clear_beside_writers_keeps_what_is_written_after_it<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..3_u32 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                for i in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut batch = WriteBatch::new();
                    batch.set(&[b"a", &writer.to_be_bytes()[..]].concat(), &u32::to_be_bytes(i));
                    batch.set(&[b"b", &writer.to_be_bytes()[..]].concat(), &u32::to_be_bytes(i));
                    store.apply(&batch).unwrap();
                }
            });
        }
        for _ in 0..50 {
            store.clear().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let entries: Vec<_> = store.scan(Scan::all()).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len() as u64, store.len().unwrap());
    let (first, second) = entries.split_at(entries.len() / 2);
    let values = |half: &[(Vec<u8>, kvs::Value)]| -> Vec<Vec<u8>> {
        half.iter().map(|(_, value)| value.to_vec()).collect()
    };
    assert_eq!(values(first), values(second), "half a batch is left");
    store.clear().unwrap();
    store.set_bytes(b"last", b"1").unwrap();
    drop(store);
    assert_eq!(F::open(dir.path()).len().unwrap(), 1);
}

fn absent_key_is_none_in_every_read<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"here", b"1").unwrap();
    for key in [&b""[..], b"her", b"here ", b"there"] {
        check_reads(&store, key, None);
    }
    assert_eq!(store.get("there".to_owned()).unwrap(), None);
}

fn empty_key_and_empty_value_are_ordinary<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"", b"nameless").unwrap();
    store.set_bytes(b"void", b"").unwrap();
    check_reads(&store, b"", Some(b"nameless"));
    check_reads(&store, b"void", Some(b""));
    check_len(&store, 2);

    store.set_bytes(b"", b"").unwrap();
    check_reads(&store, b"", Some(b""));
    store.remove_bytes(b"").unwrap();
    check_reads(&store, b"", None);
    store.remove_bytes(b"void").unwrap();
    check_len(&store, 0);
}

fn keys_and_values_may_hold_any_byte<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    let every_byte: Vec<u8> = (0..=255).collect();
    store.set_bytes(&every_byte, &every_byte).unwrap();
    for byte in 0..=255_u8 {
        store.set_bytes(&[byte], &[byte, 0, byte]).unwrap();
        store.set_bytes(&[byte, 0], &[]).unwrap();
    }
    check_reads(&store, &every_byte, Some(&every_byte));
    for byte in 0..=255_u8 {
        check_reads(&store, &[byte], Some(&[byte, 0, byte]));
        check_reads(&store, &[byte, 0], Some(&[]));
    }
    check_len(&store, 513);
}

fn key_at_the_limit_is_stored_and_one_above_is_refused<F: Factory>() {
    let (dir, store) = fresh::<F>();
    let longest = vec![b'k'; KEY_LEN_MAX];
    let too_long = vec![b'k'; KEY_LEN_MAX + 1];
    store.set_bytes(&longest, b"v").unwrap();
    match store.set_bytes(&too_long, b"v") {
        Err(KvsError::KeyTooLong { len: 65_536, max: 65_535 }) => {}
        other => panic!("{other:?}"),
    }
    check_reads(&store, &longest, Some(b"v"));
    check_len(&store, 1);
    drop(store);

    let store = F::open(dir.path());
    check_reads(&store, &longest, Some(b"v"));
    store.remove_bytes(&longest).unwrap();
    check_len(&store, 0);
}

fn key_over_the_limit_is_absent<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    let too_long = vec![b'k'; KEY_LEN_MAX + 1];
    // The same key as 16 bits would count it.
    store.set_bytes(b"", b"v").unwrap();
    check_reads(&store, &too_long, None);
    match store.remove_bytes(&too_long) {
        Err(KvsError::KeyNotFound) => {}
        other => panic!("{other:?}"),
    }
    check_len(&store, 1);
}

fn value_over_the_limit_is_refused_and_nothing_is_written<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"before").unwrap();
    // Zeroed memory that nobody reads takes no room.
    let too_long = vec![0; VALUE_LEN_MAX + 1];
    match store.set_bytes(b"k", &too_long) {
        Err(KvsError::ValueTooLong { len, max: VALUE_LEN_MAX }) if len == too_long.len() => {}
        other => panic!("{other:?}"),
    }
    check_reads(&store, b"k", Some(b"before"));
    check_len(&store, 1);
}

fn value_larger_than_a_segment_comes_back_whole<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_bytes_min(0).segment_bytes_max(4 << 10);
    let value: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    for _ in 0..2 {
        let store = F::open_with(dir.path(), options.clone()).unwrap();
        store.set_bytes(b"large", &value).unwrap();
        store.set_bytes(b"small", b"1").unwrap();
        check_reads(&store, b"large", Some(&value));
        check_reads(&store, b"small", Some(b"1"));
    }
}

fn last_value_set_is_the_one_read<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    for value in [&b"first"[..], b"second, longer", b"", b"second, longer", b"3"] {
        store.set_bytes(b"k", value).unwrap();
        check_reads(&store, b"k", Some(value));
        check_len(&store, 1);
    }
}

fn removing_an_absent_key_is_key_not_found<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"v").unwrap();
    for key in [&b"other"[..], b""] {
        match store.remove_bytes(key) {
            Err(KvsError::KeyNotFound) => {}
            other => panic!("{other:?}"),
        }
    }
    check_len(&store, 1);

    store.remove_bytes(b"k").unwrap();
    check_reads(&store, b"k", None);
    check_len(&store, 0);
    let again = store.remove("k".to_owned()).unwrap_err();
    assert_eq!(again.to_string(), "Key not found");

    store.set_bytes(b"k", b"back").unwrap();
    check_reads(&store, b"k", Some(b"back"));
}

fn text_api_sets_gets_and_removes<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    for (key, value) in [("city", "Oslo"), ("", ""), ("\u{1f980}", "crab \u{1f980}")] {
        store.set(key.to_owned(), value.to_owned()).unwrap();
        assert_eq!(store.get(key.to_owned()).unwrap().as_deref(), Some(value));
        check_reads(&store, key.as_bytes(), Some(value.as_bytes()));
        store.remove(key.to_owned()).unwrap();
        assert_eq!(store.get(key.to_owned()).unwrap(), None);
    }
}

fn text_api_refuses_a_value_that_is_not_utf8<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"ab\xff").unwrap();
    match store.get("k".to_owned()) {
        Err(KvsError::NotUtf8 { what: "value", valid_up_to: 2 }) => {}
        other => panic!("{other:?}"),
    }
    check_reads(&store, b"k", Some(b"ab\xff"));
}

fn later_operations_of_a_batch_win<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    for key in [b"set twice", b"set, gone", b"gone, set", b"gone now."] {
        store.set_bytes(key, b"old").unwrap();
    }
    let mut batch = WriteBatch::new();
    batch.set(b"set twice", b"1").set(b"set, gone", b"1").remove(b"gone, set");
    batch.set(b"set twice", b"2").remove(b"set, gone").set(b"gone, set", b"2");
    batch.remove(b"gone now.").remove(b"gone now.").remove(b"never was");
    batch.set(b"new", b"1").set(b"new", b"2").set(b"new, gone", b"1").remove(b"new, gone");
    store.apply(&batch).unwrap();

    for (key, expected) in [
        (&b"set twice"[..], Some(&b"2"[..])),
        (b"set, gone", None),
        (b"gone, set", Some(b"2")),
        (b"gone now.", None),
        (b"never was", None),
        (b"new", Some(b"2")),
        (b"new, gone", None),
    ] {
        check_reads(&store, key, expected);
    }
    check_len(&store, 3);
}

fn empty_batch_does_nothing<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"v").unwrap();
    store.apply(&WriteBatch::new()).unwrap();
    store.apply_with(&WriteBatch::new(), WriteOptions { sync: true }).unwrap();
    check_reads(&store, b"k", Some(b"v"));
    check_len(&store, 1);
}

fn batch_can_be_applied_again<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    let mut batch = WriteBatch::new();
    batch.set(b"a", b"1").remove(b"b");
    for _ in 0..2 {
        store.set_bytes(b"b", b"back").unwrap();
        store.apply(&batch).unwrap();
        check_reads(&store, b"a", Some(b"1"));
        check_reads(&store, b"b", None);
        check_len(&store, 1);
    }
    batch.clear();
    store.apply(batch.set(b"c", b"3")).unwrap();
    check_len(&store, 2);
}

fn refused_batch_applies_nothing<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"old", b"1").unwrap();
    let mut batch = WriteBatch::new();
    batch.set(b"new", b"1").remove(b"old").set(&vec![b'k'; KEY_LEN_MAX + 1], b"v");
    match store.apply(&batch) {
        Err(KvsError::KeyTooLong { len: 65_536, max: 65_535 }) => {}
        other => panic!("{other:?}"),
    }
    check_reads(&store, b"new", None);
    check_reads(&store, b"old", Some(b"1"));
    check_len(&store, 1);
}

fn batch_over_the_limit_is_refused_and_nothing_is_applied<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    // The longest record is not counted. With its key the other one is over the limit, however
    // small a header is.
    let value = vec![0; BATCH_BYTES_MAX];
    let mut batch = WriteBatch::new();
    batch.set(b"small", b"1").set(b"k", &value).set(b"l", &value);
    match store.apply(&batch) {
        Err(KvsError::BatchTooLong { len, max: BATCH_BYTES_MAX }) if len > BATCH_BYTES_MAX => {}
        other => panic!("{other:?}"),
    }
    check_reads(&store, b"small", None);
    check_len(&store, 0);
}

fn batch_counts_towards_the_limit_what_it_comes_down_to<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    let value = vec![7; BATCH_BYTES_MAX / 3];
    let mut batch = WriteBatch::new();
    for _ in 0..5 {
        batch.set(b"often", &value);
    }
    store.apply(batch.set(b"once", b"1")).unwrap();
    assert_eq!(store.get_with(b"often", <[u8]>::len).unwrap(), Some(value.len()));
    check_len(&store, 2);
}

fn batch_with_sync_asked_for_is_applied<F: Factory>() {
    let (dir, store) = fresh::<F>();
    let mut batch = WriteBatch::new();
    batch.set(b"a", b"1").set(b"b", b"2");
    store.apply_with(&batch, WriteOptions { sync: true }).unwrap();
    check_reads(&store, b"b", Some(b"2"));
    drop(store);
    check_len(&F::open(dir.path()), 2);
}

/// Two keys always change together, so a reader that looks at one after the other never sees the
/// second one behind the first, whichever comes first.
fn readers_see_all_of_a_batch_or_none<F: Factory>() {
    const BATCH_COUNT: u64 = 300;
    let (_dir, store) = fresh::<F>();
    let apply = |n: u64| {
        let mut batch = WriteBatch::new();
        let value = n.to_le_bytes();
        // The keys between them give readers time to come in the middle.
        batch.set(b"first", &value);
        for filler in 0..20_u8 {
            batch.set(&[filler], &value);
        }
        store.apply(batch.set(b"last", &value)).unwrap();
    };
    apply(0);
    let read = |key: &[u8]| store.get_with(key, number).unwrap().unwrap();
    thread::scope(|scope| {
        for (one, other) in [(b"first".as_slice(), b"last".as_slice()), (b"last", b"first")] {
            scope.spawn(move || {
                while read(one) < BATCH_COUNT {
                    let (before, after) = (read(one), read(other));
                    assert!(before <= after, "{before} and then {after}");
                }
            });
        }
        for n in 1..=BATCH_COUNT {
            apply(n);
        }
    });
}

fn len_counts_each_key_once<F: Factory>() {
    let (dir, store) = fresh::<F>();
    check_len(&store, 0);
    for n in 0..100_u8 {
        store.set_bytes(&[n], b"1").unwrap();
        store.set_bytes(&[n], b"2").unwrap();
    }
    check_len(&store, 100);
    for n in 0..40_u8 {
        store.remove_bytes(&[n]).unwrap();
    }
    check_len(&store, 60);
    let mut batch = WriteBatch::new();
    for n in 30..70_u8 {
        batch.set(&[n], b"3").set(&[n, n], b"3").remove(&[n, n]);
    }
    store.apply(&batch).unwrap();
    check_len(&store, 70);
    drop(store);
    check_len(&F::open(dir.path()), 70);
}

/// Threads set and remove the same few keys; a count that is not kept with the writes drifts, or
/// leaves the possible range for a moment.
fn len_belongs_to_one_moment_while_threads_write<F: Factory>() {
    const KEY_COUNT: u8 = 3;
    let (_dir, store) = fresh::<F>();
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u8)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..400_u16 {
                        let key = [u8::try_from(round % u16::from(KEY_COUNT)).unwrap()];
                        store.set_bytes(&key, &[writer]).unwrap();
                        match store.remove_bytes(&key) {
                            Ok(()) | Err(KvsError::KeyNotFound) => {}
                            Err(error) => panic!("{error}"),
                        }
                        if round % 8 == 0 {
                            store.apply(WriteBatch::new().set(&key, b"b").remove(b"none")).unwrap();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while writing.load(Ordering::Relaxed) {
                let len = store.len().unwrap();
                assert!(len <= u64::from(KEY_COUNT), "{len} keys");
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        writing.store(false, Ordering::Relaxed);
    });
    let held = (0..KEY_COUNT).filter(|key| store.contains(&[*key]).unwrap()).count();
    check_len(&store, u64::try_from(held).unwrap());
}

/// A count that is raised after its key shows is caught when the writer is interrupted between the
/// two, which busy threads beside it make happen often.
#[cfg(feature = "sled")]
#[test]
fn sled_counts_a_key_before_anyone_has_read_it() {
    let (_dir, store) = fresh::<Sled>();
    let running = AtomicBool::new(true);
    let is_running = || running.load(Ordering::Relaxed);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| while is_running() {});
        }
        scope.spawn(|| {
            for n in (0_u32..).take_while(|_| is_running()) {
                store.set_bytes(&n.to_le_bytes(), b"").unwrap();
            }
        });
        let started = std::time::Instant::now();
        let mut seen = 0_u32;
        while started.elapsed() < Duration::from_millis(700) {
            while store.contains(&seen.to_le_bytes()).unwrap() {
                seen += 1;
            }
            let len = store.len().unwrap();
            if len < u64::from(seen) {
                running.store(false, Ordering::Relaxed);
                panic!("{len} keys after {seen} had been read");
            }
        }
        running.store(false, Ordering::Relaxed);
    });
}

/// Groups in which a batch removes the key and a later write sets it again once lost count.
fn len_counts_a_key_that_a_batch_removes_while_others_set_it<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open_with(dir.path(), Options::new().durability(Durability::Sync)).unwrap();
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..100 {
                    if number < 2 {
                        store.set_bytes(b"a", &[number]).unwrap();
                    } else {
                        let mut batch = WriteBatch::new();
                        store.apply(batch.remove(b"a").set(&[number], b"")).unwrap();
                    }
                }
            });
        }
    });
    let there = [&b"a"[..], &[2], &[3]].map(|key| u64::from(store.contains(key).unwrap()));
    assert_eq!(store.len().unwrap(), there.iter().sum::<u64>());
}

fn get_with_reads_once_and_only_what_is_there<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"value").unwrap();
    let mut calls = 0;
    let len = store.get_with(b"k", |value| {
        calls += 1;
        value.len()
    });
    assert_eq!((len.unwrap(), calls), (Some(5), 1));
    let absent = store.get_with(b"absent", |_| panic!("called for an absent key"));
    assert_eq!(absent.unwrap(), None::<()>);
}

fn get_into_reuses_the_buffer<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"long", &[7; 1000]).unwrap();
    store.set_bytes(b"short", b"7").unwrap();
    let mut buffer = Vec::with_capacity(1000);
    let place = buffer.as_ptr();
    for (key, expected) in
        [(&b"long"[..], &[7; 1000][..]), (b"short", b"7"), (b"absent", b""), (b"long", &[7; 1000])]
    {
        assert_eq!(store.get_into(key, &mut buffer).unwrap(), !expected.is_empty());
        assert_eq!(buffer, expected);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 1000), "reallocated");
    }
    store.close().unwrap();
    check_closed("get_into", store.get_into(b"long", &mut buffer));
    assert!(buffer.is_empty(), "holds a value after an error");
}

fn clones_are_handles_of_one_store<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    let other = store.clone();
    store.set_bytes(b"k", b"1").unwrap();
    check_reads(&other, b"k", Some(b"1"));
    drop(store);
    other.set_bytes(b"k", b"2").unwrap();
    check_reads(&other, b"k", Some(b"2"));
}

fn closed_store_refuses_everything_through_every_clone<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"v").unwrap();
    let other = store.clone();
    store.close().unwrap();
    let mut batch = WriteBatch::new();
    batch.set(b"k", b"v");
    for store in [store, other] {
        check_closed("set_bytes", store.set_bytes(b"k", b"v"));
        check_closed("get_with", store.get_with(b"k", <[u8]>::len));
        check_closed("get_bytes", store.get_bytes(b"k"));
        check_closed("get_bytes of an absent key", store.get_bytes(b"absent"));
        check_closed("remove_bytes", store.remove_bytes(b"k"));
        check_closed("remove_bytes of an absent key", store.remove_bytes(b"absent"));
        check_closed("apply", store.apply(&batch));
        check_closed("apply_with", store.apply_with(&batch, WriteOptions { sync: true }));
        check_closed("apply of an empty batch", store.apply(&WriteBatch::new()));
        check_closed("len", store.len());
        check_closed("is_empty", store.is_empty());
        check_closed("sync", store.sync());
        check_closed("compact", store.compact());
        check_closed("contains", store.contains(b"k"));
        check_closed("expiry", store.expiry(b"k"));
        check_closed("get_with_expiry", store.get_with_expiry(b"k"));
        check_closed("set_expiry", store.set_expiry(b"k", None));
        check_closed("persist of an absent key", store.persist(b"absent"));
        check_closed("get_into", store.get_into(b"k", &mut Vec::new()));
        check_closed("set", store.set("k".to_owned(), "v".to_owned()));
        check_closed("get", store.get("k".to_owned()));
        check_closed("remove", store.remove("k".to_owned()));
        store.close().unwrap();
    }
}

fn values_handed_out_survive_overwrite_removal_and_close<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"k", b"a value longer than any inline form").unwrap();
    store.set_bytes(b"s", b"short").unwrap();
    let long = store.get_bytes(b"k").unwrap().unwrap();
    let short = store.get_bytes(b"s").unwrap().unwrap();
    store.set_bytes(b"k", b"another").unwrap();
    store.remove_bytes(b"k").unwrap();
    store.compact().unwrap();
    assert_eq!(&*long, b"a value longer than any inline form");
    store.close().unwrap();
    drop(store);
    assert_eq!(&*long, b"a value longer than any inline form");
    assert_eq!(short.clone().into_vec(), b"short");
}

fn reopening_sees_everything_at_every_durability<F: Factory>() {
    for durability in
        [Durability::Os, Durability::Interval(Duration::from_secs(3600)), Durability::Sync]
    {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(durability);
        let store = F::open_with(dir.path(), options.clone()).unwrap();
        for n in 0..200_u8 {
            store.set_bytes(&[n], &[n; 100]).unwrap();
        }
        store.set_bytes(&[1], b"overwritten").unwrap();
        store.remove_bytes(&[2]).unwrap();
        store.apply(WriteBatch::new().set(&[3], b"batch").remove(&[4]).set(b"", b"")).unwrap();
        store.close().unwrap();

        let store = F::open_with(dir.path(), options).unwrap();
        check_len(&store, 199);
        check_reads(&store, &[1], Some(b"overwritten"));
        check_reads(&store, &[2], None);
        check_reads(&store, &[3], Some(b"batch"));
        check_reads(&store, &[4], None);
        check_reads(&store, b"", Some(b""));
        for n in 5..200_u8 {
            check_reads(&store, &[n], Some(&[n; 100]));
        }
    }
}

fn store_is_closed_when_the_last_clone_goes<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10_u64 {
        let store = F::open(dir.path());
        check_len(&store, n);
        let last = store.clone();
        drop(store);
        last.set_bytes(&n.to_le_bytes(), b"v").unwrap();
    }
    check_len(&F::open(dir.path()), 10);
}

/// Many at once, since an engine whose own threads linger shows it only on a busy machine.
fn directory_is_free_again_when_close_returns<F: Factory>() {
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let dir = tempfile::tempdir().unwrap();
                for round in 0..30_u8 {
                    let store = F::open(dir.path());
                    for n in 0..round {
                        store.set_bytes(&[n], &vec![n; 3_000 * usize::from(n % 7)]).unwrap();
                    }
                    store.close().unwrap();
                }
            });
        }
    });
}

fn close_under_load_keeps_every_acknowledged_write<F: Factory>() {
    let (dir, store) = fresh::<F>();
    let started = Barrier::new(4);
    let acknowledged: Vec<u64> = thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let (store, started) = (store.clone(), &started);
                scope.spawn(move || {
                    started.wait();
                    (writer << 32..(writer + 1) << 32).find(|n| {
                        match store.set_bytes(&n.to_le_bytes(), b"v") {
                            Ok(()) => false,
                            Err(KvsError::Closed) => true,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
            })
            .collect();
        started.wait();
        thread::sleep(Duration::from_millis(20));
        store.close().unwrap();
        writers.into_iter().map(|writer| writer.join().unwrap().unwrap()).collect()
    });
    drop(store);

    let store = F::open(dir.path());
    let mut total = 0;
    for (writer, end) in (0_u64..).zip(acknowledged) {
        for n in writer << 32..end {
            assert!(store.contains(&n.to_le_bytes()).unwrap(), "lost {n:x} of {end:x}");
            total += 1;
        }
    }
    check_len(&store, total);
}

fn sync_and_compact_lose_nothing<F: Factory>() {
    let (dir, store) = fresh::<F>();
    for round in 0..5_u8 {
        for n in 0..100_u8 {
            store.set_bytes(&[n], &[round; 200]).unwrap();
        }
        store.remove_bytes(&[round]).unwrap();
        store.sync().unwrap();
        store.compact().unwrap();
        check_len(&store, 99);
    }
    drop(store);
    let store = F::open(dir.path());
    check_len(&store, 99);
    for n in (0..100_u8).filter(|n| *n != 4) {
        check_reads(&store, &[n], Some(&[4; 200]));
    }
}

fn many_threads_write_and_read_their_own_keys<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    thread::scope(|scope| {
        for writer in 0..8_u8 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..200_u8 {
                    let key = [writer, n];
                    store.set_bytes(&key, &[n; 50]).unwrap();
                    check_reads(&store, &key, Some(&[n; 50]));
                    if n % 4 == 0 {
                        store.remove_bytes(&key).unwrap();
                        check_reads(&store, &key, None);
                    }
                }
            });
        }
    });
    check_len(&store, 8 * 150);
}

/// One thread counts a key up and says how far it got; the others never read less than was said
/// before they looked, nor less than they have read already.
fn reads_of_a_key_never_go_back<F: Factory>() {
    const LAST: u64 = 2_000;
    let (_dir, store) = fresh::<F>();
    store.set_bytes(b"count", &0_u64.to_le_bytes()).unwrap();
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < LAST {
                    let said = acknowledged.load(Ordering::Acquire);
                    let read = store.get_with(b"count", number).unwrap().unwrap();
                    assert!(read >= said, "{said} was acknowledged, {read} is read");
                    assert!(read >= seen, "{seen} was read, then {read}");
                    seen = read;
                }
            });
        }
        for n in 1..=LAST {
            store.set_bytes(b"count", &n.to_le_bytes()).unwrap();
            acknowledged.store(n, Ordering::Release);
        }
    });
}

fn one_of_many_removers_wins<F: Factory>() {
    const REMOVER_COUNT: usize = 4;
    let (_dir, store) = fresh::<F>();
    for round in 0..50 {
        store.set_bytes(b"prize", b"v").unwrap();
        let together = Barrier::new(REMOVER_COUNT);
        let wins = thread::scope(|scope| {
            let remover = || {
                together.wait();
                match store.remove_bytes(b"prize") {
                    Ok(()) => 1,
                    Err(KvsError::KeyNotFound) => 0,
                    Err(error) => panic!("{error}"),
                }
            };
            let removers: Vec<_> = (0..REMOVER_COUNT).map(|_| scope.spawn(remover)).collect();
            removers.into_iter().map(|remover| remover.join().unwrap()).sum::<u32>()
        });
        assert_eq!(wins, 1, "round {round}");
        check_len(&store, 0);
    }
}

fn writes_handed_over_are_done_in_order_with_their_outcome<F: Factory>() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let store = F::open_with(dir.path(), Options::new().durability(durability)).unwrap();
        let (said, outcomes) = mpsc::channel();
        let mut asked = 0;
        let mut hand_over = |write| {
            let (said, number) = (said.clone(), asked);
            store.write_then(write, Box::new(move |outcome| said.send((number, outcome)).unwrap()));
            asked += 1;
        };
        let set = |value: u32| Write::Set { key: b"k".to_vec(), value: value.to_le_bytes().into() };
        for value in 0..50 {
            hand_over(set(value));
        }
        hand_over(Write::Remove { key: b"k".to_vec() });
        hand_over(Write::Remove { key: b"k".to_vec() });
        hand_over(Write::Set { key: vec![0; KEY_LEN_MAX + 1], value: Vec::new() });
        let mut batch = WriteBatch::new();
        hand_over(Write::Batch(batch.set(b"k", b"batch").set(b"b", b"1").clone()));
        hand_over(Write::Set { key: b"k".to_vec(), value: b"last".to_vec() });

        let mut said_for: Vec<_> = (0..asked)
            .map(|_| match outcomes.recv_timeout(SAID_WITHIN).expect("a write without outcome") {
                (51, Err(KvsError::KeyNotFound)) => 51,
                (52, Err(KvsError::KeyTooLong { .. })) => 52,
                (n, Ok(())) if n != 51 && n != 52 => n,
                (n, outcome) => panic!("write {n}: {outcome:?}"),
            })
            .collect();
        said_for.sort_unstable();
        assert_eq!(said_for, (0..asked).collect::<Vec<_>>(), "one outcome for each");
        check_reads(&store, b"k", Some(b"last"));
        check_reads(&store, b"b", Some(b"1"));
        check_len(&store, 2);
    }
}

fn write_handed_over_to_a_closed_store_is_told_so<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    store.close().unwrap();
    let (said, outcome) = mpsc::channel();
    store.write_then(
        Write::Set { key: b"k".to_vec(), value: Vec::new() },
        Box::new(move |result| said.send(result).unwrap()),
    );
    check_closed("write_then", outcome.recv_timeout(SAID_WITHIN).unwrap());
}

fn close_waits_for_the_writes_handed_over<F: Factory>() {
    let dir = tempfile::tempdir().unwrap();
    let store = F::open_with(dir.path(), Options::new().durability(Durability::Sync)).unwrap();
    let said = Arc::new(AtomicU64::new(0));
    for n in 0..10_u8 {
        let said = Arc::clone(&said);
        let done = Box::new(move |outcome: Result<()>| {
            thread::sleep(Duration::from_millis(5));
            outcome.unwrap();
            said.fetch_add(1, Ordering::Relaxed);
        });
        store.write_then(Write::Set { key: vec![n], value: Vec::new() }, done);
    }
    store.close().unwrap();
    assert_eq!(said.load(Ordering::Relaxed), 10, "close returned before the outcomes were said");
    drop(store);
    check_len(&F::open(dir.path()), 10);
}

fn engine_says_its_name<F: Factory>() {
    let (_dir, store) = fresh::<F>();
    assert_eq!(store.name(), F::NAME);
    assert!(!store.writes_wait_for_disk(), "by default no write waits");
}
