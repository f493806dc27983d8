//! Random histories of an engine, reopened now and then, beside a `BTreeMap` that does the same.
//!
//! A history that fails is shrunk and printed, and its seed is kept in `model.regressions`, from
//! where it is tried first from then on. `PROPTEST_CASES=10000` makes it a soak.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kvs::options::{KEY_LEN_MAX, SEGMENT_BYTES_FLOOR};
use kvs::{Durability, KvsEngine, KvsError, Options, ReadMode, WriteBatch, WriteOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::contract::{Factory, Kvs};
use crate::model_engine::apply;

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn kvs_does_what_a_map_does(options in any_options(), history in vec(any_step(), 1..150)) {
        check_history::<Kvs>(&options, &history);
    }
}

#[cfg(feature = "sled")]
proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn sled_does_what_a_map_does(options in any_options(), history in vec(any_step(), 1..100)) {
        check_history::<crate::contract::Sled>(&options, &history);
    }
}

fn config(cases: u32) -> ProptestConfig {
    let seeds = FileFailurePersistence::Direct("tests/it/model.regressions");
    let defaults =
        ProptestConfig { failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => defaults,
        None => ProptestConfig { cases, ..defaults },
    }
}

/// One step of a history. Keys are numbers of [`key`], so that histories meet the same keys often
/// and print short.
#[derive(Debug, Clone)]
enum Step {
    Set { key: u8, value: Filled },
    Remove { key: u8 },
    Batch { ops: Vec<(u8, Option<Filled>)>, sync: bool },
    Get { key: u8 },
    Len,
    Clear,
    Sync,
    Compact,
    Reopen { closing: bool },
}

/// A value of `len` times the byte `fill`.
#[derive(Debug, Clone)]
struct Filled {
    fill: u8,
    len: usize,
}

impl Filled {
    fn bytes(&self) -> Vec<u8> {
        vec![self.fill; self.len]
    }
}

const KEY_COUNT: u8 = 24;

/// The keys of the histories: empty, one the start of the next, and one as long as a key can be.
fn key(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        1..=8 => vec![b'a'; usize::from(number)],
        9 => vec![b'z'; KEY_LEN_MAX],
        _ => format!("key {number}").into_bytes(),
    }
}

fn any_key() -> impl Strategy<Value = u8> {
    // The longest key, alone larger than a small segment, comes seldom.
    prop_oneof![20 => 10..KEY_COUNT, 9 => 0..9_u8, 1 => Just(9)]
}

fn any_value() -> impl Strategy<Value = Filled> {
    let len = prop_oneof![
        4 => 0..200_usize,
        2 => 200..3_000_usize,
        1 => Just(0_usize),
        // One record more than a small segment holds.
        1 => 4_000..9_000_usize,
    ];
    (any::<u8>(), len).prop_map(|(fill, len)| Filled { fill, len })
}

fn any_step() -> impl Strategy<Value = Step> {
    let ops = vec((any_key(), proptest::option::weighted(0.7, any_value())), 0..12);
    prop_oneof![
        40 => (any_key(), any_value()).prop_map(|(key, value)| Step::Set { key, value }),
        15 => any_key().prop_map(|key| Step::Remove { key }),
        10 => (ops, any::<bool>()).prop_map(|(ops, sync)| Step::Batch { ops, sync }),
        20 => any_key().prop_map(|key| Step::Get { key }),
        5 => Just(Step::Len),
        1 => Just(Step::Clear),
        2 => Just(Step::Sync),
        3 => Just(Step::Compact),
        5 => any::<bool>().prop_map(|closing| Step::Reopen { closing }),
    ]
}

fn any_options() -> impl Strategy<Value = Options> {
    let durability = prop_oneof![
        Just(Durability::Os),
        Just(Durability::Interval(Duration::from_millis(1))),
        Just(Durability::Sync),
    ];
    let read_mode = prop_oneof![Just(ReadMode::Mapped), Just(ReadMode::Positioned)];
    let segment_bytes_max = prop_oneof![Just(SEGMENT_BYTES_FLOOR), Just(64 << 10)];
    (durability, read_mode, segment_bytes_max, any::<bool>()).prop_map(
        |(durability, read_mode, segment_bytes_max, auto_compaction)| {
            Options::new()
                .durability(durability)
                .read_mode(read_mode)
                .segment_bytes_min(0)
                .segment_bytes_max(segment_bytes_max)
                .auto_compaction(auto_compaction)
        },
    )
}

fn check_history<F: Factory>(options: &Options, history: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Some(F::open_with(dir.path(), options.clone()).unwrap());
    let mut map = BTreeMap::new();
    for step in history {
        if let Step::Reopen { closing } = step {
            let old = store.take().unwrap();
            if *closing {
                old.close().unwrap();
            }
            drop(old);
            store = Some(reopen::<F>(dir.path(), options, &map));
        }
        check_step(store.as_ref().unwrap(), &mut map, step);
    }
    drop(store);
    reopen::<F>(dir.path(), options, &map);
}

/// Opens the store, which must hold exactly what the map holds.
fn reopen<F: Factory>(
    dir: &Path,
    options: &Options,
    map: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> F::Engine {
    let store = F::open_with(dir, options.clone()).unwrap();
    assert_eq!(store.len().unwrap(), u64::try_from(map.len()).unwrap());
    for number in 0..KEY_COUNT {
        check_get(&store, map, number);
    }
    store
}

fn check_step<E: KvsEngine>(store: &E, map: &mut BTreeMap<Vec<u8>, Vec<u8>>, step: &Step) {
    match step {
        Step::Set { key: number, value } => {
            store.set_bytes(&key(*number), &value.bytes()).unwrap();
            map.insert(key(*number), value.bytes());
        }
        Step::Remove { key: number } => {
            match (store.remove_bytes(&key(*number)), map.remove(&key(*number))) {
                (Ok(()), Some(_)) | (Err(KvsError::KeyNotFound), None) => {}
                (result, held) => panic!("{result:?} with {held:?} held"),
            }
        }
        Step::Batch { ops, sync } => {
            let mut batch = WriteBatch::new();
            for (number, value) in ops {
                match value {
                    Some(value) => batch.set(&key(*number), &value.bytes()),
                    None => batch.remove(&key(*number)),
                };
            }
            store.apply_with(&batch, WriteOptions { sync: *sync }).unwrap();
            apply(map, &batch);
        }
        Step::Get { key } => check_get(store, map, *key),
        Step::Len => assert_eq!(store.len().unwrap(), u64::try_from(map.len()).unwrap()),
        Step::Clear => {
            store.clear().unwrap();
            map.clear();
        }
        Step::Sync => store.sync().unwrap(),
        Step::Compact => store.compact().unwrap(),
        Step::Reopen { .. } => {}
    }
}

#[track_caller]
fn check_get<E: KvsEngine>(store: &E, map: &BTreeMap<Vec<u8>, Vec<u8>>, number: u8) {
    let value = store.get_bytes(&key(number)).unwrap();
    let expected = map.get(&key(number));
    assert!(value.as_deref() == expected.map(Vec::as_slice), "key {number}: {value:?}");
}
