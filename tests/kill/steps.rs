//! What a writer does, one step after the other, and how a line on a pipe says it.

use kvs::WriteBatch;
use rand::RngExt as _;
use rand::rngs::SmallRng;

/// Threads that write at the same time, each to keys of its own.
pub(crate) const THREADS: u32 = 4;
const KEYS_PER_THREAD: u32 = 40;
pub(crate) const KEYS: u32 = THREADS * KEYS_PER_THREAD;

/// What one thread does in one step: new versions of keys, 0 for removal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step(pub(crate) Vec<(u32, u64)>);

impl Step {
    pub(crate) fn random(random: &mut SmallRng, thread: u32, version: u64) -> Self {
        if random.random_ratio(8, 10) {
            return Self::of_one_key(random, thread, version);
        }
        let mut keys: Vec<_> =
            (0..random.random_range(2..7)).map(|_| key_of(random, thread)).collect();
        keys.sort_unstable();
        keys.dedup();
        let remove = random.random_range(..4_usize);
        let version_of = |i: usize| if i == remove { 0 } else { version };
        Self(keys.into_iter().enumerate().map(|(i, k)| (k, version_of(i))).collect())
    }

    pub(crate) fn of_one_key(random: &mut SmallRng, thread: u32, version: u64) -> Self {
        let removes = random.random_ratio(1, 4);
        Self(vec![(key_of(random, thread), if removes { 0 } else { version })])
    }

    pub(crate) fn line(&self) -> String {
        self.0.iter().fold(String::new(), |line, (key, version)| format!("{line} {key}:{version}"))
    }

    pub(crate) fn parse(line: &str) -> Self {
        let pair = |word: &str| {
            let (key, version) = word.split_once(':').unwrap();
            (key.parse().unwrap(), version.parse().unwrap())
        };
        Self(line.split_whitespace().map(pair).collect())
    }

    pub(crate) fn batch(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (key, version) in &self.0 {
            match version {
                0 => batch.remove(name(*key).as_bytes()),
                _ => batch.set(name(*key).as_bytes(), value(*key, *version).as_bytes()),
            };
        }
        batch
    }
}

fn key_of(random: &mut SmallRng, thread: u32) -> u32 {
    thread * KEYS_PER_THREAD + random.random_range(..KEYS_PER_THREAD)
}

pub(crate) fn name(key: u32) -> String {
    format!("key {key}")
}

/// Short ones, and now and then one that takes several pages. The writers in other languages make
/// the same.
pub(crate) fn value(key: u32, version: u64) -> String {
    let filler = if version.is_multiple_of(23) { 20_000 } else { version as usize % 300 };
    format!("{key} {version} {}", "x".repeat(filler))
}
