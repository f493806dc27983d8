//! Opening: how long until a store answers.
//!
//! ```text
//! clean        closed before, everything in place
//! killed       a copy of the directory taken while it was open: as after `kill -9`
//! caches lost  closed, then every file removed but LOCK, MANIFEST-* and seg-*.log
//! ```
//! For each the time of opening, and from the start of opening to the first value read; the median
//! of some runs, each on a copy of its own that was just written: the page cache is warm. Values of
//! 100 bytes. `cargo bench --bench open -- --quick` is a run of seconds that shows that it works.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops on failure")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "common/figures.rs"]
mod figures;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use figures::{copy, files, key, lose_caches, scratch};
use kvs::{Durability, KvStore, KvsEngine, Options};

const VALUE_BYTES: usize = 100;

/// Prints how long opening a store takes.
#[derive(Parser)]
struct Arguments {
    /// Keys in the store
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,

    /// Runs of each kind
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// A few thousand keys: whether it works, not how fast
    #[arg(long)]
    quick: bool,

    /// Where to put the stores
    #[arg(long)]
    dir: Option<PathBuf>,

    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.keys, arguments.runs) = (20_000, 3);
    }
    let Arguments { keys, runs, dir, .. } = arguments;
    assert!(runs > 0, "--runs is at least 1");
    let dir = scratch(dir.as_deref());
    let (clean, killed) = (dir.path().join("clean"), dir.path().join("killed"));
    let lost = dir.path().join("lost");

    let store = KvStore::open_with(&clean, options()).unwrap();
    for number in 0..keys {
        store.set_bytes(&key(number), &[b'v'; VALUE_BYTES]).unwrap();
    }
    copy(&clean, &killed);
    store.close().unwrap();
    drop(store);
    copy(&clean, &lost);
    lose_caches(&lost);
    let bytes: u64 = files(&clean).map(|path| path.metadata().unwrap().len()).sum();
    println!("{keys} keys, {bytes} bytes in {} files", files(&clean).count());
    for (name, from) in [("clean", &clean), ("killed", &killed), ("caches lost", &lost)] {
        measure(name, from, &dir.path().join("run"), keys, runs);
    }
}

fn options() -> Options {
    Options::new().durability(Durability::Os)
}

fn measure(name: &str, from: &Path, run: &Path, keys: u64, runs: usize) {
    let mut times: Vec<(Duration, Duration)> = Vec::new();
    for _ in 0..runs {
        copy(from, run);
        let began = Instant::now();
        let store = KvStore::open_with(run, options()).unwrap();
        let opened = began.elapsed();
        let value = store.get_bytes(&key(keys / 2)).unwrap();
        times.push((opened, began.elapsed()));
        assert_eq!(value.as_deref(), Some(&[b'v'; VALUE_BYTES][..]));
        assert_eq!(store.len().unwrap(), keys, "{name}");
        drop((value, store));
        fs::remove_dir_all(run).unwrap();
    }
    times.sort_unstable();
    let (opened, first_get) = times[times.len() / 2];
    println!("{name:<12} open {:>9.1} ms   first get {:>9.1} ms", ms(opened), ms(first_get));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
