//! Random histories of an engine, reopened now and then, beside a `BTreeMap` that does the same.
//!
//! A history that fails is shrunk and printed, and its seed is kept in `model.regressions`, from
//! where it is tried first from then on. `make soak-engines` tries 10,000.

use std::path::Path;
use std::time::Duration;

use kvs::options::{KEY_LEN_MAX, SEGMENT_BYTES_FLOOR};
use kvs::{
    Durability, KvsEngine, KvsError, Options, ReadMode, Update, WriteBatch, WriteMode, WriteOptions,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::contract::{Factory, Kvs};
use crate::model_engine::{Held, Map, apply, held};

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn kvs_does_what_a_map_does(options in any_options(), history in vec(any_step(true), 1..150)) {
        check_history::<Kvs>(&options, &history);
    }
}

#[cfg(feature = "sled")]
proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn sled_does_what_a_map_does(
        options in any_options(),
        history in vec(any_step(false), 1..100),
    ) {
        check_history::<crate::contract::Sled>(&options, &history);
    }
}

pub(crate) fn config(cases: u32) -> ProptestConfig {
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
pub(crate) enum Step {
    Set {
        key: u8,
        value: Filled,
        expiry: Expires,
    },
    /// Sets the expiry alone.
    Expire {
        key: u8,
        expiry: Expires,
    },
    /// Sets the value and keeps the expiry.
    Update {
        key: u8,
        value: Filled,
    },
    Remove {
        key: u8,
    },
    Batch {
        ops: Vec<(u8, Option<(Filled, Expires)>)>,
        sync: bool,
    },
    Get {
        key: u8,
    },
    Len,
    Clear,
    Sync,
    Compact,
    Reopen {
        closing: bool,
    },
}

/// A value of `len` times the byte `fill`.
#[derive(Debug, Clone)]
pub(crate) struct Filled {
    fill: u8,
    len: usize,
}

impl Filled {
    fn bytes(&self) -> Vec<u8> {
        vec![self.fill; self.len]
    }
}

/// Expiry without a clock to wait for: what has expired, and what will not while tests run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expires {
    Never,
    Past,
    Future,
}

impl Expires {
    fn ms(self) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::Past => Some(1),
            Self::Future => Some(u64::MAX - 1),
        }
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

fn any_expiry(expires: bool) -> BoxedStrategy<Expires> {
    if !expires {
        return Just(Expires::Never).boxed();
    }
    prop_oneof![6 => Just(Expires::Never), 1 => Just(Expires::Past), 1 => Just(Expires::Future)]
        .boxed()
}

/// A step; one that makes keys expire only if `expires`.
pub(crate) fn any_step(expires: bool) -> impl Strategy<Value = Step> {
    let expiry = || any_expiry(expires);
    let op = proptest::option::weighted(0.7, (any_value(), expiry()));
    let ops = vec((any_key(), op), 0..12);
    prop_oneof![
        40 => (any_key(), any_value(), expiry())
            .prop_map(|(key, value, expiry)| Step::Set { key, value, expiry }),
        8 => (any_key(), expiry()).prop_map(|(key, expiry)| Step::Expire { key, expiry }),
        5 => (any_key(), any_value()).prop_map(|(key, value)| Step::Update { key, value }),
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

pub(crate) fn any_options() -> impl Strategy<Value = Options> {
    let durability = prop_oneof![
        Just(Durability::Os),
        Just(Durability::Interval(Duration::from_millis(1))),
        Just(Durability::Sync),
    ];
    let read_mode = prop_oneof![Just(ReadMode::Mapped), Just(ReadMode::Positioned)];
    let write_mode = prop_oneof![Just(WriteMode::Tail), Just(WriteMode::Direct)];
    let segment_bytes_max = prop_oneof![Just(SEGMENT_BYTES_FLOOR), Just(64 << 10)];
    (durability, read_mode, write_mode, segment_bytes_max, any::<bool>()).prop_map(
        |(durability, read_mode, write_mode, segment_bytes_max, auto_compaction)| {
            Options::new()
                .durability(durability)
                .read_mode(read_mode)
                .write_mode(write_mode)
                .segment_bytes_min(0)
                .segment_bytes_max(segment_bytes_max)
                .auto_compaction(auto_compaction)
        },
    )
}

fn check_history<F: Factory>(options: &Options, history: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Some(F::open_with(dir.path(), options.clone()).unwrap());
    let mut map = Map::new();
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
fn reopen<F: Factory>(dir: &Path, options: &Options, map: &Map) -> F::Engine {
    let store = F::open_with(dir, options.clone()).unwrap();
    check_len(&store, map);
    for number in 0..KEY_COUNT {
        check_get(&store, map, number);
    }
    store
}

pub(crate) fn check_step<E: KvsEngine>(store: &E, map: &mut Map, step: &Step) {
    match step {
        Step::Set { key: number, value, expiry } => {
            let (key, value, expiry_ms) = (key(*number), value.bytes(), expiry.ms());
            match expiry_ms {
                Some(expiry_ms) => store.set_with_expiry(&key, &value, expiry_ms).unwrap(),
                None => store.set_bytes(&key, &value).unwrap(),
            }
            map.insert(key, Held { value, expiry_ms });
        }
        Step::Expire { key: number, expiry } => {
            let held = map.get_mut(&key(*number)).filter(|held| held.is_there());
            match (store.set_expiry(&key(*number), expiry.ms()), held) {
                (Ok(previous_ms), Some(held)) => {
                    assert_eq!(std::mem::replace(&mut held.expiry_ms, expiry.ms()), previous_ms);
                }
                (Err(KvsError::KeyNotFound), None) => {}
                (result, held) => panic!("{result:?} with {held:?} held"),
            }
        }
        Step::Update { key: number, value } => {
            store.update(&key(*number), &mut |_| Update::Set(value.bytes())).unwrap();
            let expiry_ms = held(map, &key(*number)).and_then(|held| held.expiry_ms);
            map.insert(key(*number), Held { value: value.bytes(), expiry_ms });
        }
        Step::Remove { key: number } => {
            match (store.remove_bytes(&key(*number)), held(map, &key(*number))) {
                (Ok(()), Some(_)) => drop(map.remove(&key(*number))),
                (Err(KvsError::KeyNotFound), None) => {}
                (result, held) => panic!("{result:?} with {held:?} held"),
            }
        }
        Step::Batch { ops, sync } => {
            let mut batch = WriteBatch::new();
            for (number, value) in ops {
                match value {
                    Some((value, Expires::Never)) => batch.set(&key(*number), &value.bytes()),
                    Some((value, expiry)) => {
                        batch.set_with_expiry(&key(*number), &value.bytes(), expiry.ms().unwrap())
                    }
                    None => batch.remove(&key(*number)),
                };
            }
            store.apply_with(&batch, WriteOptions { sync: *sync }).unwrap();
            apply(map, &batch);
        }
        Step::Get { key } => check_get(store, map, *key),
        Step::Len => check_len(store, map),
        Step::Clear => {
            store.clear().unwrap();
            map.clear();
        }
        Step::Sync => store.sync().unwrap(),
        Step::Compact => {
            store.compact().unwrap();
            map.retain(|_, held| held.is_there());
            check_len(store, map);
        }
        Step::Reopen { .. } => {}
    }
}

/// Keys that have expired, all that are in the map, may be counted until compaction.
#[track_caller]
pub(crate) fn check_len<E: KvsEngine>(store: &E, map: &Map) {
    let there = map.values().filter(|held| held.is_there()).count();
    let len = usize::try_from(store.len().unwrap()).unwrap();
    assert!((there..=map.len()).contains(&len), "{len} of {there} to {}", map.len());
}

#[track_caller]
fn check_get<E: KvsEngine>(store: &E, map: &Map, number: u8) {
    let found = store.get_with_expiry(&key(number)).unwrap();
    let expected = held(map, &key(number));
    let same = match (&found, expected) {
        (Some((value, expiry_ms)), Some(held)) => {
            *value == held.value[..] && *expiry_ms == held.expiry_ms
        }
        (None, None) => true,
        _ => false,
    };
    assert!(same, "key {number}: {found:?}");
    assert_eq!(store.contains(&key(number)).unwrap(), expected.is_some(), "key {number}");
}
