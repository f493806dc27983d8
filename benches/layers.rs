//! Each layer by itself, from the bytes of a record up to threads that share a store.
//!
//! ```text
//! record/encode, decode      one record, by bytes of value: checksums and copying
//! keydir/get, get_absent     one lookup among a million keys; no record is read
//! keydir/insert              a million keys into an empty index, each growth of it included
//! keydir/grow                the insert that makes a shard grow by half, of those that a million
//!                            keys fill: what the write that meets it waits longer
//! writer/os, sync            sets by as many threads: groups form by themselves
//! scan/unordered, ordered    a million entries; the order of keys stands already
//! recovery/log, hints        opening after kill -9: from logs alone, from hints
//! compaction                 rewriting a store half of which is dead
//! threads/get, set, mixed    by as many threads on one store; what is mixed is half and half
//! ```
//! Keys of 16 bytes, values of 100 where nothing is said, everything in the page cache. Throughput
//! is keys a second; of recovery and compaction it is bytes of log, so that `GiB/s` turned round is
//! the time for a GiB.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops on failure")]
#![allow(missing_docs, reason = "what criterion's macros make")]

#[path = "common/figures.rs"]
mod figures;

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use figures::{copy, key, lose_caches};
use kvs::layers::{Index, decode, encode};
use kvs::{Durability, KvStore, KvsEngine, Options, Scan};

const VALUE: [u8; 100] = [b'v'; 100];
const KEY_COUNT: u64 = 1_000_000;
/// Of stores that are made anew for every run.
const SMALL_COUNT: u64 = 200_000;

fn options() -> Options {
    Options::new().durability(Durability::Os)
}

fn filled(dir: &Path, options: Options, count: u64) -> KvStore {
    let store = KvStore::open_with(dir, options).unwrap();
    (0..count).for_each(|number| store.set_bytes(&key(number), &VALUE).unwrap());
    store
}

/// A group of runs that are long, and made ready outside the clock.
fn long_runs<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    for value_bytes in [0, 100, 1024, 64 << 10] {
        let (key, value) = (key(1), vec![b'v'; value_bytes]);
        let mut buffer = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("encode", value_bytes), |b| {
            b.iter(|| {
                buffer.clear();
                encode(&mut buffer, black_box(&key), black_box(&value));
            });
        });
        group.bench_function(BenchmarkId::new("decode", value_bytes), |b| {
            b.iter(|| decode(black_box(&buffer)).len());
        });
    }
}

fn keydir(c: &mut Criterion) {
    let keys: Vec<_> = (0..KEY_COUNT).map(key).collect();
    let fill = |index: &Index| {
        keys.iter().zip(0..).for_each(|(key, number)| index.insert(key, number).unwrap());
    };
    let index = Index::new();
    fill(&index);
    let mut group = c.benchmark_group("keydir");
    group.throughput(Throughput::Elements(1));
    for (name, from) in [("get", 0), ("get_absent", KEY_COUNT)] {
        // Hashing included. In the order of inserting, which is none to the index.
        let mut numbers = (0..KEY_COUNT).cycle();
        group.bench_function(name, |b| {
            b.iter_batched(
                || key(from + numbers.next().unwrap()),
                |key| index.get(&key).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
    // Keys of one shard, up to and with the last that makes it grow.
    let mut shard: Vec<_> = keys.iter().filter(|key| index.shard(*key) == 0).collect();
    let grown = Index::new();
    let mut last = 0;
    for (place, key) in shard.iter().enumerate() {
        let before = grown.bytes();
        grown.insert(*key, 0).unwrap();
        last = if grown.bytes() > before { place } else { last };
    }
    shard.truncate(last + 1);
    let (added, present) = shard.split_last().unwrap();
    let nearly_full = || {
        let index = Index::new();
        for key in present {
            index.insert(*key, 0).unwrap();
        }
        index
    };
    let grow = |index: &mut Index| index.insert(*added, 0).unwrap();
    group.throughput(Throughput::Elements(u64::try_from(shard.len()).unwrap()));
    group.bench_function("grow", |b| {
        b.iter_batched_ref(nearly_full, grow, BatchSize::SmallInput);
    });
    group.finish();
    let mut group = long_runs(c, "keydir");
    group.throughput(Throughput::Elements(KEY_COUNT));
    group.bench_function("insert", |b| {
        b.iter_batched_ref(Index::new, |index| fill(index), BatchSize::PerIteration);
    });
}

/// Times `count` calls by each of `threads`, which start together; `work` gets the number of the
/// thread and of the call.
fn together(threads: u64, count: u64, work: impl Fn(u64, u64) + Sync) -> Duration {
    let start = Barrier::new(usize::try_from(threads).unwrap() + 1);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                (0..count).for_each(|call| work(thread, call));
            });
        }
        start.wait();
        Instant::now()
    })
    .elapsed()
}

/// Benches `work` by as many threads as `threads` says, `count` calls in sum.
fn by_threads(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    threads: &[u64],
    count: u64,
    work: impl Fn(u64, u64) + Sync,
) {
    group.throughput(Throughput::Elements(count));
    for threads in threads {
        group.bench_function(BenchmarkId::new(name, threads), |b| {
            b.iter_custom(|rounds| {
                (0..rounds).map(|_| together(*threads, count / threads, &work)).sum()
            });
        });
    }
}

fn writer(c: &mut Criterion) {
    let mut group = long_runs(c, "writer");
    for (name, durability, count) in
        [("os", Durability::Os, SMALL_COUNT), ("sync", Durability::Sync, 4_000)]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = KvStore::open_with(dir.path(), options().durability(durability)).unwrap();
        by_threads(&mut group, name, &[1, 2, 4, 16], count, |thread, call| {
            store.set_bytes(&key(thread * count + call), &VALUE).unwrap();
        });
        store.close().unwrap();
    }
}

fn scan(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), options(), KEY_COUNT);
    let mut group = long_runs(c, "scan");
    group.throughput(Throughput::Elements(KEY_COUNT));
    // The first ordered scan orders the keys; criterion's warming up is that.
    for (name, scan) in [("unordered", None), ("ordered", Some(Scan::all()))] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let entries = match &scan {
                    None => store.iter(),
                    Some(scan) => store.scan(scan.clone()),
                };
                entries.unwrap().map(|entry| entry.unwrap().1.len()).sum::<usize>()
            });
        });
    }
}

fn recovery(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (live, killed, lost) =
        (dir.path().join("live"), dir.path().join("killed"), dir.path().join("lost"));
    let store = filled(&live, options(), KEY_COUNT);
    // What a process that is killed leaves.
    copy(&live, &killed);
    copy(&live, &lost);
    lose_caches(&lost);
    let log_bytes = store.stats().total_bytes;
    store.close().unwrap();
    let mut group = long_runs(c, "recovery");
    group.throughput(Throughput::Bytes(log_bytes));
    for (name, from) in [("log", &lost), ("hints", &killed)] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let run = tempfile::tempdir().unwrap();
                        let run = run.path().join("store");
                        copy(from, &run);
                        let started = Instant::now();
                        let store = KvStore::open_with(&run, options()).unwrap();
                        assert_eq!(store.len().unwrap(), KEY_COUNT);
                        started.elapsed()
                    })
                    .sum()
            });
        });
    }
}

fn compaction(c: &mut Criterion) {
    let options = || options().auto_compaction(false).segment_bytes_max(16 << 20);
    let half_dead = || {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path(), options(), SMALL_COUNT);
        let halves = (0..SMALL_COUNT).step_by(2);
        halves.for_each(|number| store.set_bytes(&key(number), &VALUE).unwrap());
        (dir, store)
    };
    let mut group = long_runs(c, "compaction");
    let (_dir, store) = half_dead();
    store.compact().unwrap();
    group.throughput(Throughput::Bytes(store.stats().compaction_read_bytes));
    group.bench_function("half_dead", |b| {
        b.iter_batched_ref(
            half_dead,
            |(_, store)| store.compact().unwrap(),
            BatchSize::PerIteration,
        );
    });
}

fn threads(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), options(), KEY_COUNT);
    let is_present = |number: u64| {
        let read = store.get_with(&key(number), |value| black_box(value).len());
        read.unwrap().is_some()
    };
    let set = |number: u64| store.set_bytes(&key(number), &VALUE).unwrap();
    let number = |thread: u64, call: u64| (thread * 7_919 + call * 104_729) % KEY_COUNT;
    let counts = [1, 2, 4];
    let mut group = long_runs(c, "threads");
    by_threads(&mut group, "get", &counts, KEY_COUNT, |thread, call| {
        assert!(is_present(number(thread, call)));
    });
    by_threads(&mut group, "set", &counts, SMALL_COUNT, |thread, call| {
        set(number(thread, call));
    });
    by_threads(&mut group, "mixed", &counts, SMALL_COUNT, |thread, call| {
        if call % 2 == 0 {
            set(number(thread, call));
        } else {
            assert!(is_present(number(thread, call)));
        }
    });
}

criterion_group!(benches, record, keydir, writer, scan, recovery, compaction, threads);
criterion_main!(benches);
