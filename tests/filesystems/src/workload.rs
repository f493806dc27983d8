//! A store that is written to, what it must hold afterwards, and the comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kvs::{Durability, KvStore, KvsEngine, Options, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::device::Device;
use crate::image::Note;

const KEYS: u64 = 12;

/// Which write each key has its value from.
pub(crate) type Content = BTreeMap<u64, usize>;

fn options(durability: Durability) -> Options {
    Options::new().durability(durability).segment_bytes_min(0).segment_bytes_max(16 << 10)
}

fn name(key: u64) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// The value of `key` from write `number`; mostly short, now and then some pages.
fn value(key: u64, number: usize) -> Vec<u8> {
    let len = if number.is_multiple_of(17) { 9000 } else { number * 7 % 700 };
    let mut value = format!("{key} {number} ").into_bytes();
    value.extend((0..len).map(|at| (at * number % 251) as u8));
    value
}

/// A writer, and the state after each of its writes.
pub(crate) struct Workload<'a> {
    device: &'a Device,
    dir: PathBuf,
    random: SmallRng,
    durability: Durability,
    pub(crate) states: Vec<Content>,
    durable: usize,
}

impl<'a> Workload<'a> {
    pub(crate) fn new(device: &'a Device, dir: &Path, durability: Durability, seed: u64) -> Self {
        let states = vec![Content::new()];
        let random = SmallRng::seed_from_u64(seed);
        Self { device, dir: dir.join("store"), random, durability, states, durable: 0 }
    }

    fn note(&self) {
        self.device.note(Note { attempted: self.states.len() - 1, durable: self.durable });
    }

    fn is_durable(&mut self) {
        self.durable = self.states.len() - 1;
        self.note();
    }

    /// Writes until there were `flushes`.
    pub(crate) fn run(&mut self, flushes: usize) {
        let mut store = KvStore::open_with(&self.dir, options(self.durability)).unwrap();
        while self.device.flush_count() < flushes {
            match self.random.random_range(0..100) {
                0..78 => self.write(&store),
                78..88 => {
                    store.sync().unwrap();
                    self.is_durable();
                }
                88..92 => store.compact().unwrap(),
                92..98 => self.write_back(),
                _ => {
                    store.close().unwrap();
                    self.is_durable();
                    store = KvStore::open_with(&self.dir, options(self.durability)).unwrap();
                }
            }
        }
        store.close().unwrap();
        self.is_durable();
    }

    /// Changes between one key and several, at once.
    fn write(&mut self, store: &KvStore) {
        let number = self.states.len();
        let mut next = self.states[number - 1].clone();
        let mut batch = WriteBatch::new();
        let count = if self.random.random_ratio(1, 6) { 4 } else { 1 };
        for _ in 0..count {
            let key = self.random.random_range(..KEYS);
            if self.random.random_ratio(1, 5) {
                batch.remove(&name(key));
                next.remove(&key);
            } else {
                batch.set(&name(key), &value(key, number));
                next.insert(key, number);
            }
        }
        self.states.push(next);
        self.note();
        store.apply(&batch).unwrap();
        if self.durability == Durability::Sync {
            self.is_durable();
        }
    }

    /// The kernel writes back some file now, as it does when it likes, without a flush.
    fn write_back(&mut self) {
        let files = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        let file = &files[self.random.random_range(..files.len())];
        // It may have been compacted away meanwhile.
        if let Ok(file) = std::fs::File::open(file) {
            let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            use std::os::fd::AsRawFd;
            // SAFETY: the descriptor is open; the call touches no memory of ours.
            unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
        }
    }
}

/// What the store in `dir` holds; what is wrong with it, if something is.
pub(crate) fn found(dir: &Path) -> Result<Content, String> {
    let store = KvStore::open_with(dir.join("store"), options(Durability::Os));
    let store = store.map_err(|error| format!("does not open: {error}"))?;
    let mut content = Content::new();
    for key in 0..KEYS {
        let read = store.get_bytes(&name(key)).map_err(|error| format!("key {key}: {error}"))?;
        let Some(read) = read else { continue };
        let text = String::from_utf8_lossy(&read);
        let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| format!("key {key} is {text:?}"))?;
        if *read != *value(key, number) {
            return Err(format!("key {key} has a value that nobody wrote"));
        }
        content.insert(key, number);
    }
    let count = store.len().map_err(|error| format!("does not count: {error}"))?;
    if count != content.len() as u64 {
        return Err(format!("counts {count} keys of {}", content.len()));
    }
    store.close().map_err(|error| format!("does not close: {error}"))?;
    Ok(content)
}
