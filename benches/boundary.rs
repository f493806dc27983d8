//! What the C boundary costs: the same reads from Rust, from C and from Python.
//!
//! ```text
//! get_into           kvs_get_into from C, beside KvsEngine::get_with into an array from Rust: few
//!                    keys, often, since waiting for memory would hide what a call costs
//! next, next_many    a scan by kvs_iter_next, and by kvs_iter_next_many: in order, and in none
//! ```
//! One store, with keys of 16 and values of 100 bytes, all in the page cache, is read by one
//! process after the other, round by round, each in a fresh process or on a freshly opened store.
//! Of each figure the best round counts: what else the machine does can only add to it. The bars
//! are printed with what they ask for. `make bench-ffi` builds what this runs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops on failure")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "common/figures.rs"]
mod figures;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use figures::{key, scratch};
use kvs::{Durability, KvStore, KvsEngine, Options};

const VALUE_BYTES: usize = 100;
/// As many lookups as `benches/boundary/calls.c` makes.
const GET_KEYS: usize = 2_000;
const GET_PASSES: usize = 500;

/// Prints what the C boundary costs.
#[derive(Parser)]
struct Arguments {
    /// Keys in the store
    #[arg(long, default_value_t = 1_000_000)]
    keys: u32,

    /// Rounds, of which the best counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// A few thousand keys: whether it works, not how fast
    #[arg(long)]
    quick: bool,

    /// benches/boundary/calls.c, compiled
    #[arg(long)]
    c: PathBuf,

    /// A Python that has the package
    #[arg(long)]
    python: PathBuf,

    /// Where to put the store
    #[arg(long)]
    dir: Option<PathBuf>,

    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Nanoseconds a key, by name; the best so far.
type Figures = BTreeMap<String, f64>;

fn main() {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.keys, arguments.rounds) = (10_000, 2);
    }
    let Arguments { keys, rounds, c, python, dir, .. } = arguments;
    let dir = scratch(dir.as_deref());
    let (store, order) = (dir.path().join("store"), dir.path().join("keys"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/boundary/calls.py");
    let keys = made(&store, &order, keys);

    let mut best = Figures::new();
    for _ in 0..rounds {
        from_rust(&store, &keys[..keys.len().min(GET_KEYS)], &mut best);
        from_program(Command::new(&c).arg(&store).arg(&order), "c", &mut best);
        from_program(Command::new(&python).arg(&script).arg(&store), "python", &mut best);
    }
    print(&best, keys.len(), rounds);
}

/// Fills a store, and writes down the keys in the order in which they are to be looked up: neither
/// that of writing nor that of their bytes.
fn made(store: &Path, order: &Path, count: u32) -> Vec<[u8; 16]> {
    let opened = KvStore::open_with(store, options()).unwrap();
    for number in 0..count {
        opened.set_bytes(&key(number.into()), &[b'v'; VALUE_BYTES]).unwrap();
    }
    opened.close().unwrap();
    let mut keys: Vec<_> = (0..count).map(|number| key(number.into())).collect();
    keys.sort_unstable_by(|one, other| one[8..].cmp(&other[8..]));
    fs::write(order, keys.concat()).unwrap();
    keys
}

fn options() -> Options {
    Options::new().durability(Durability::Os)
}

fn from_rust(store: &Path, keys: &[[u8; 16]], best: &mut Figures) {
    let store = KvStore::open_with(store, options()).unwrap();
    let mut dst = [0; VALUE_BYTES];
    for _ in 0..GET_PASSES {
        let began = Instant::now();
        for key in keys {
            let copy = |value: &[u8]| dst[..value.len()].copy_from_slice(value);
            assert!(store.get_with(key, copy).unwrap().is_some());
            black_box(&dst);
        }
        let spent = began.elapsed().as_secs_f64() * 1e9;
        keep_best(best, "rust get_into", spent / f64::from(u32::try_from(keys.len()).unwrap()));
    }
    store.close().unwrap();
}

/// Takes in what a program prints: lines of a name and nanoseconds.
fn from_program(command: &mut Command, who: &str, best: &mut Figures) {
    let output = command.stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (name, figure) = line.split_once(' ').unwrap();
        keep_best(best, &format!("{who} {name}"), figure.parse().unwrap());
    }
}

fn keep_best(best: &mut Figures, name: &str, figure: f64) {
    let kept = best.entry(name.to_owned()).or_insert(f64::INFINITY);
    *kept = kept.min(figure);
}

fn print(best: &Figures, keys: usize, rounds: usize) {
    println!("{keys} keys, best of {rounds} rounds");
    for (name, figure) in best {
        println!("{name:28} {figure:10.1} ns a key {:12.0} keys/s", 1e9 / figure);
    }
    let of = |name: &str| best.get(name).copied().unwrap();
    let cost = of("c get_into") - of("rust get_into");
    println!("kvs_get_into over Rust       {cost:10.1} ns, bar 40: {}", verdict(cost <= 40.0));
    for (who, bar) in [("c", 1.5), ("python", 5.0)] {
        for kind in ["unordered", "ordered"] {
            let ratio = of(&format!("{who} {kind}/next")) / of(&format!("{who} {kind}/next_many"));
            let name = format!("{who} {kind}/next_many over next");
            println!("{name:38} {ratio:.2} times, bar {bar}: {}", verdict(ratio >= bar));
        }
    }
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}
