//! The engine on disks that fail, lose power and run full: what no test from outside can arrange.
//!
//! A history is a list of steps. Running it keeps beside the store what the store must hold: the
//! state after each write. What a store holds later is compared with those states as a whole.

mod checkpoints;
mod compaction;
mod expiry;
mod failing_opens;
mod failures;
mod full_disk;
mod loading;
mod opening;
mod power_histories;
mod power_loss;
mod syncs;
mod views;
mod writing;

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::engine::KvsEngine;
use crate::error::Result;
use crate::options::{Durability, Options, WriteMode};
use crate::store::KvStore;
use crate::store::disk::Disk;
use crate::store::disk::failing::FailingDisk;
use crate::store::disk::modelled::{ModelledDisk, Moment};
use crate::store::walk::Walk;
use crate::sync::{Arc, Mutex};
use crate::write_batch::WriteBatch;

/// What a store holds.
type Content = BTreeMap<&'static str, Vec<u8>>;

const KEYS: [&str; 6] = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"];

/// Where stores of tests lie on disks in memory.
const DIR: &str = "/store";

/// One step of a history. Values are told apart by the number of the write, and have a length.
#[derive(Debug, Clone, Copy)]
enum Step {
    Set(usize, usize),
    Remove(usize),
    /// As `Set`, with an expiry in the past.
    SetExpired(usize, usize),
    /// For each key a length, or nothing to remove it.
    Batch(&'static [(usize, Option<usize>)]),
    Clear,
    Sync,
    Compact,
    /// Background compaction, once: only what is worth it.
    CompactSome,
    /// A copy of the store, in a directory of its own.
    Checkpoint,
    /// Closes the store and opens it again.
    Reopen,
}

use Step::{Batch, Checkpoint, Clear, Compact, CompactSome, Remove, Reopen, Set, SetExpired, Sync};

/// Everything that touches files, in every order that has been thought of.
const HISTORY: &[Step] = &[
    Set(0, 100),
    Set(1, 300),
    Sync,
    Set(0, 90),
    Batch(&[(2, Some(200)), (1, None), (3, Some(700))]),
    Remove(0),
    Set(4, 600),
    Set(2, 10),
    Compact,
    Set(0, 5),
    Batch(&[(4, Some(400)), (5, Some(400)), (0, Some(400))]),
    Set(3, 0),
    Sync,
    Compact,
    Remove(5),
    Set(1, 900),
    Reopen,
    Set(1, 30),
    Checkpoint,
    Batch(&[(0, None), (1, Some(1200)), (2, None)]),
    Set(2, 800),
    Compact,
    Remove(3),
    Set(3, 60),
    Sync,
    Set(5, 1),
    Compact,
    Set(5, 2),
    Clear,
    Set(2, 40),
    Compact,
    Set(0, 20),
    Clear,
    Reopen,
    Set(4, 300),
];

/// Without tombstones, compaction leaves sealed segments alone in which nothing is dead, among them
/// one whose records are durable while its footer is not.
const OVERWRITES: &[Step] = &[
    Set(0, 900),
    Set(1, 900),
    Set(0, 700),
    Set(2, 900),
    Set(3, 900),
    Sync,
    Compact,
    Set(4, 900),
    Set(3, 10),
    Compact,
    Set(1, 10),
    Set(2, 10),
    Sync,
    Compact,
];

/// Expired records over older ones: in the same files, in files that stay, alone, and set anew.
const EXPIRING: &[Step] = &[
    Set(0, 900),
    Set(1, 900),
    Set(2, 900),
    Sync,
    SetExpired(0, 600),
    SetExpired(1, 600),
    CompactSome,
    Set(3, 100),
    SetExpired(3, 900),
    Batch(&[(4, Some(300)), (2, None)]),
    Sync,
    CompactSome,
    Set(1, 50),
    SetExpired(5, 10),
    SetExpired(4, 900),
    CompactSome,
    Set(0, 900),
    Set(2, 900),
    Compact,
    SetExpired(0, 10),
    Reopen,
    SetExpired(1, 900),
    CompactSome,
    Set(4, 900),
    SetExpired(2, 1),
    CompactSome,
    Set(0, 5),
    Compact,
];

/// On which way a write reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Route {
    Tail,
    Direct,
    /// Synced before it returns.
    Sync,
}

const ROUTES: [Route; 3] = [Route::Tail, Route::Direct, Route::Sync];

fn options(route: Route) -> Options {
    let (durability, write_mode) = match route {
        Route::Tail => (Durability::Os, WriteMode::Tail),
        Route::Direct => (Durability::Os, WriteMode::Direct),
        Route::Sync => (Durability::Sync, WriteMode::Tail),
    };
    Options::new()
        .durability(durability)
        .write_mode(write_mode)
        .auto_compaction(false)
        .segment_bytes_min(1 << 10)
        .segment_bytes_max(4 << 10)
}

fn open(disk: &Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<KvStore> {
    KvStore::open_on(disk, dir.to_path_buf(), options.clone(), &mut |_| {})
}

/// The value that write number `number` gives to a key: no two are the same.
fn value(number: usize, len: usize) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    let stamp = value.clone();
    value.extend(stamp.iter().cycle().take(len));
    value
}

/// Where the copy of that number lies.
fn copy_dir(number: usize) -> std::path::PathBuf {
    format!("/copy-{number}").into()
}

/// Does `step`, as write or checkpoint number `number` if it is one; `Reopen` is not done here.
fn do_step(store: &KvStore, step: Step, number: usize) -> Result<()> {
    match step {
        Set(key, len) => store.set_bytes(KEYS[key].as_bytes(), &value(number, len)),
        Remove(key) => store.remove_bytes(KEYS[key].as_bytes()),
        SetExpired(key, len) => store.set_with_expiry(KEYS[key].as_bytes(), &value(number, len), 1),
        Batch(ops) => {
            let mut batch = WriteBatch::new();
            for (key, len) in ops {
                match len {
                    Some(len) => batch.set(KEYS[*key].as_bytes(), &value(number, *len)),
                    None => batch.remove(KEYS[*key].as_bytes()),
                };
            }
            store.apply(&batch)
        }
        Clear => store.clear(),
        Sync => store.sync(),
        Compact => store.compact(),
        Checkpoint => store.checkpoint(&copy_dir(number)),
        CompactSome => {
            store.core.writer.seal_active()?;
            let sync_log = || store.core.writer.sync_sealed();
            store.core.compactor.compact_some(&sync_log, &|| false).map(drop)
        }
        Reopen => Ok(()),
    }
}

/// What `content` is after `step`; `None` if it is not a write.
fn after(content: &Content, step: Step, number: usize) -> Option<Content> {
    let mut next = content.clone();
    let mut put = |key: usize, len: Option<usize>| match len {
        Some(len) => drop(next.insert(KEYS[key], value(number, len))),
        None => drop(next.remove(KEYS[key])),
    };
    match step {
        Set(key, len) => put(key, Some(len)),
        Remove(key) | SetExpired(key, _) => put(key, None),
        Batch(ops) => ops.iter().for_each(|(key, len)| put(*key, *len)),
        Clear => next.clear(),
        Sync | Compact | CompactSome | Checkpoint | Reopen => return None,
    }
    Some(next)
}

/// Everything in `store`.
fn content(store: &KvStore) -> Result<Content> {
    let mut content = Content::new();
    for key in KEYS {
        if let Some(value) = store.get_bytes(key.as_bytes())? {
            content.insert(key, value.to_vec());
        }
    }
    // Expired records have entries until they are dropped, and are counted.
    let walk = Walk::new(Arc::clone(&store.core.keydir), Arc::clone(&store.core.segments));
    let entries = walk.keys().collect::<Result<Vec<_>>>()?;
    assert_eq!(store.len()?, u64::try_from(entries.len()).unwrap(), "keys are counted");
    assert!(content.keys().all(|key| entries.iter().any(|entry| entry == key.as_bytes())));
    Ok(content)
}

/// What is on `model` at this moment.
fn moment_of(model: &ModelledDisk) -> Moment {
    model.record();
    model.moments().pop().expect("this very moment")
}

/// A store, and the disk it is on, whose calls can fail.
fn failing_store(route: Route) -> (FailingDisk, KvStore) {
    let failing = FailingDisk::new(Arc::new(ModelledDisk::default()));
    let disk: Arc<dyn Disk> = Arc::new(failing.clone());
    (failing, open(&disk, Path::new(DIR), &options(route)).unwrap())
}

/// A number from the environment, for longer runs, or `default`.
fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
