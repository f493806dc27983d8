//! Point reads and writes, the same work for every engine, through the trait.
//!
//! Names read `operation/engine/durability/value_bytes`. Compare only lines that differ in one
//! part. One thread, 1 M keys of 16 bytes, values of 100 bytes, everything in the page cache: what
//! costs is the engine, not the disk. Stores are made and loaded outside the clock.
//!
//! `set` is timed by the million: one iteration fills an empty store, so read its `elem/s` line.
//! Before the timings, each engine says how much memory of its own (not mapped files) the million
//! keys took, and how much of that is its index, if it knows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops on failure")]
#![allow(clippy::print_stderr, reason = "figures that criterion has no place for")]

#[path = "common/figures.rs"]
mod figures;

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use figures::key;
use kvs::{Durability, KvStore, KvsEngine, Options};

const KEY_COUNT: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;

type Key = [u8; 16];
type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// A million keys, none of those that another `from` begins.
fn keys(from: u64) -> Vec<Key> {
    (from..from + KEY_COUNT).map(key).collect()
}

/// The keys in another order: neither that of writing nor that of the bytes, which trees keep.
fn shuffled(keys: &[Key]) -> Vec<Key> {
    let mut order = keys.to_vec();
    order.sort_unstable_by(|a, b| a[8..].cmp(&b[8..]));
    order
}

fn load<E: KvsEngine>(engine: &E, keys: &[Key]) {
    let value = [b'v'; VALUE_BYTES];
    for key in keys {
        engine.set_bytes(key, &value).unwrap();
    }
}

/// Memory of this process that is neither a file nor shared, in bytes.
fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Runs every operation on the engine that `open` makes in an empty directory.
fn engine<E: KvsEngine>(
    c: &mut Criterion,
    name: &str,
    open: impl Fn(&Path) -> E,
    index_bytes: impl Fn(&E) -> Option<u64>,
) {
    let id = format!("{name}/os/{VALUE_BYTES}");
    let present = keys(0);
    let order = shuffled(&present);
    let dir = tempfile::tempdir().unwrap();
    let loaded = open(dir.path());

    let before = anonymous_bytes();
    load(&loaded, &present);
    if let (Some(before), Some(after)) = (before, anonymous_bytes()) {
        let per_key = after.saturating_sub(before) / KEY_COUNT;
        eprintln!("memory/{id}: {per_key} bytes per key, index and buffers");
    }
    if let Some(bytes) = index_bytes(&loaded) {
        let per_key = bytes / KEY_COUNT;
        eprintln!("index/{id}: {per_key} bytes per key");
    }

    each_key(&mut c.benchmark_group("get"), &id, &order, |key, buffer| {
        assert!(loaded.get_into(key, buffer).unwrap());
    });
    each_key(&mut c.benchmark_group("get_absent"), &id, &keys(KEY_COUNT), |key, buffer| {
        assert!(!loaded.get_into(key, buffer).unwrap());
    });
    each_key(&mut c.benchmark_group("overwrite"), &id, &order, |key, _| {
        loaded.set_bytes(key, &[b'w'; VALUE_BYTES]).unwrap();
    });
    set_new(&mut c.benchmark_group("set"), &id, &present, &open);
}

/// Times `operation` on one key after the other, round and round, with one buffer for all.
fn each_key(
    group: &mut Group<'_>,
    id: &str,
    keys: &[Key],
    mut operation: impl FnMut(&[u8], &mut Vec<u8>),
) {
    let mut next = keys.iter().cycle();
    let mut buffer = Vec::with_capacity(VALUE_BYTES);
    group.throughput(Throughput::Elements(1));
    group.bench_function(id, |b| {
        b.iter(|| {
            operation(next.next().unwrap(), &mut buffer);
            black_box(&buffer);
        });
    });
}

/// Times the filling of an empty store with new keys.
fn set_new<E: KvsEngine>(
    group: &mut Group<'_>,
    id: &str,
    keys: &[Key],
    open: &impl Fn(&Path) -> E,
) {
    group.throughput(Throughput::Elements(u64::try_from(keys.len()).unwrap()));
    group.sample_size(10);
    group.bench_function(id, |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let dir = tempfile::tempdir().unwrap();
                let empty = open(dir.path());
                let started = Instant::now();
                load(&empty, keys);
                spent += started.elapsed();
                empty.close().unwrap();
            }
            spent
        });
    });
}

fn engines(c: &mut Criterion) {
    let options = || Options::new().durability(Durability::Os);
    engine(
        c,
        "kvs",
        |dir| KvStore::open_with(dir, options()).unwrap(),
        |store| Some(store.stats().index_bytes),
    );
    #[cfg(feature = "sled")]
    engine(c, "sled", |dir| kvs::SledKvsEngine::open_with(dir, options()).unwrap(), |_| None);
}

criterion_group!(benches, engines);
criterion_main!(benches);
