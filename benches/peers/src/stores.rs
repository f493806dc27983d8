//! The stores of this build, one adapter file each.
//!
//! To add one: a feature in `Cargo.toml`, a file here that returns its entries, a line in the list
//! below, and its fairness note in `README.md`. The contract at the end of this file then runs
//! over it.

use anyhow::{Context, Result};

use crate::store::{OpenOptions, Store};
use crate::workload::Kind;

/// One column of the tables: a store with its settings.
#[derive(Clone)]
pub struct Entry {
    pub name: &'static str,
    /// The settings, in one line for readers of a report.
    pub settings: &'static str,
    /// Whether `scan` yields the keys in order.
    pub ordered: bool,
    /// The workloads that this entry is there for; all of them if `None`. Settings that differ
    /// from another entry's in a few workloads only need not run the rest.
    pub only: Option<&'static [Kind]>,
    /// Whether it is measured with ten times as many keys: some take minutes to be given them, more
    /// than all else takes together.
    pub tenfold: bool,
    pub version: fn() -> String,
    pub open: fn(&OpenOptions) -> Result<Box<dyn Store>>,
}

macro_rules! adapters {
    ($($feature:literal: $module:ident),* $(,)?) => {
        $(#[cfg(feature = $feature)] mod $module;)*

        /// Every entry of this build.
        pub fn all() -> Vec<Entry> {
            #[allow(unused_mut, reason = "a build may have no store at all")]
            let mut entries: Vec<Entry> = Vec::new();
            $(#[cfg(feature = $feature)] entries.extend($module::entries());)*
            entries
        }
    };
}

adapters! {
    "kvs": kvs,
    "lmdb": lmdb,
    "rocksdb": rocksdb,
    "leveldb": leveldb,
    "tkrzw": tkrzw,
    "sled": sled,
    "redb": redb,
    "fjall": fjall,
    "sqlite": sqlite,
}

/// The entry called `name`.
pub fn named(name: &str) -> Result<Entry> {
    let known = || all().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    all()
        .into_iter()
        .find(|entry| entry.name == name)
        .with_context(|| format!("no store {name:?} in this build; it has {}", known()))
}

/// The version of the crate `name` that this program was built with.
#[cfg(any(feature = "sled", feature = "redb", feature = "fjall", feature = "kvs"))]
fn crate_version(name: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1);
    after.and_then(|rest| rest.split('"').next()).unwrap_or("unknown").to_owned()
}

/// Block or page cache given to every store that has one of its own, in bytes. More than the data
/// of all workloads but the tenfold ones, so that a store never reads a file twice for lack of it.
#[cfg(any(
    feature = "rocksdb",
    feature = "leveldb",
    feature = "sled",
    feature = "redb",
    feature = "fjall"
))]
const CACHE_BYTES: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::{Keys, Values};
    use crate::store::{Durability, Key, Pair, Session};

    const VALUE_BYTES: usize = 100;

    /// Runs `test` on each entry in a directory of its own, in both durabilities.
    fn each(test: impl Fn(&Entry, &OpenOptions)) {
        assert!(!all().is_empty(), "a build without stores tests nothing");
        for entry in all() {
            for durability in [Durability::Os, Durability::Sync] {
                let dir = tempfile::tempdir().unwrap();
                test(&entry, &OpenOptions { dir: dir.path(), durability, keys: 1000 });
            }
        }
    }

    #[track_caller]
    fn check_get(session: &mut dyn Session, name: &str, key: &Key, wanted: Option<&[u8]>) {
        let mut seen = None;
        let found = session.get(key, &mut |value| seen = Some(value.to_vec())).unwrap();
        assert_eq!(found, seen.is_some(), "{name}: the closure is called if and only if found");
        assert_eq!(seen.as_deref(), wanted, "{name}: {key:?}");
    }

    fn pair(keys: &Keys, values: &Values, index: u64, version: u64) -> Pair {
        let key = keys.key(index);
        let mut value = vec![0; VALUE_BYTES];
        values.write(&key, version, &mut value);
        Pair { key, value }
    }

    #[test]
    fn what_was_set_is_read_back_and_what_was_removed_is_not() {
        let (keys, values) = (Keys::new(1), Values::new(VALUE_BYTES));
        let old = pair(&keys, &values, 0, 1);
        let new = pair(&keys, &values, 0, 2);
        let other = pair(&keys, &values, 1, 1);
        each(|entry, options| {
            let name = entry.name;
            let store = (entry.open)(options).unwrap();
            let mut session = store.session().unwrap();
            check_get(&mut *session, name, &old.key, None);
            session.set(&old.key, &old.value).unwrap();
            session.set(&other.key, &other.value).unwrap();
            check_get(&mut *session, name, &old.key, Some(&old.value));
            session.set(&new.key, &new.value).unwrap();
            check_get(&mut *session, name, &new.key, Some(&new.value));
            session.remove(&new.key).unwrap();
            check_get(&mut *session, name, &new.key, None);
            check_get(&mut *session, name, &other.key, Some(&other.value));
        });
    }

    #[test]
    fn batches_scans_and_reopening_agree_with_a_map() {
        let (keys, values) = (Keys::new(2), Values::new(VALUE_BYTES));
        let pairs: Vec<_> = (0..300).map(|index| pair(&keys, &values, index, 1)).collect();
        let mut model: BTreeMap<_, _> =
            pairs.iter().map(|pair| (pair.key.to_vec(), pair.value.clone())).collect();
        model.remove(&pairs[7].key[..]);
        each(|entry, options| {
            let store = (entry.open)(options).unwrap();
            let mut session = store.session().unwrap();
            session.set_many(&pairs[..100]).unwrap();
            session.set_many(&pairs[100..]).unwrap();
            session.remove(&pairs[7].key).unwrap();
            check_all(entry, &mut *session, &model);
            drop(session);
            store.sync().unwrap();
            store.close().unwrap();

            let store = (entry.open)(options).unwrap();
            check_all(entry, &mut *store.session().unwrap(), &model);
            store.close().unwrap();
        });
    }

    #[track_caller]
    fn check_all(entry: &Entry, session: &mut dyn Session, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut scanned = Vec::new();
        session.scan(&mut |key, value| scanned.push((key.to_vec(), value.to_vec()))).unwrap();
        if !entry.ordered {
            scanned.sort();
        }
        assert!(scanned.iter().map(|(key, value)| (key, value)).eq(model), "{}: scan", entry.name);
        let mut iterated = Vec::new();
        session.iterate(&mut |key, value| iterated.push((key.to_vec(), value.to_vec()))).unwrap();
        iterated.sort();
        assert_eq!(iterated, scanned, "{}: iterate", entry.name);
        for (key, value) in model {
            let key = key.as_slice().try_into().unwrap();
            check_get(session, entry.name, key, Some(value));
        }
    }

    #[test]
    fn sessions_of_two_threads_see_each_others_writes() {
        let (keys, values) = (Keys::new(3), Values::new(VALUE_BYTES));
        each(|entry, options| {
            let store = (entry.open)(options).unwrap();
            let pairs: Vec<_> = (0..64).map(|index| pair(&keys, &values, index, 1)).collect();
            std::thread::scope(|scope| {
                for half in pairs.chunks(32) {
                    let store = &store;
                    scope.spawn(move || {
                        let mut session = store.session().unwrap();
                        for pair in half {
                            session.set(&pair.key, &pair.value).unwrap();
                        }
                    });
                }
            });
            let mut session = store.session().unwrap();
            for pair in &pairs {
                check_get(&mut *session, entry.name, &pair.key, Some(&pair.value));
            }
        });
    }
}
