//! Space: how much of it a store takes beyond its data, and what that costs writers.
//!
//! ```text
//! overwrites   N keys, set again and again 20 times over, uniformly and by Zipf (0.99): the most
//!              that files took, against the bound of 2 x live + 2 segments, files that readers
//!              still hold counted too; the longest `set`; write amplification
//! removal      then every key removed, and `compact()`: one segment or none, no tombstone
//! index        bytes a key, and the peak while it grew as a ratio to what stayed: an allocator
//!              counts, so mapped files do not; bars 22 bytes and 1.3
//! ```
//! Values of 100 bytes, durability `Os`. Ends with 1 if a bound is missed; a time is no bound.
//! `cargo bench --bench space -- --quick` is a run of seconds that shows that it works, and fails
//! on nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops on failure")]
#![allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks are small")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "common/figures.rs"]
mod figures;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use figures::{key, scratch};
use kvs::options::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use kvs::{Durability, KvStore, KvsEngine, Options, Stats};
use peak_alloc::PeakAlloc;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Uniform, Zipf};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const VALUE_BYTES: usize = 100;
const SEED: u64 = 0x6b76_7321;

/// Writes between two looks at the files: a look costs some microseconds.
const LOOK_EVERY: u64 = 512;

/// Most bytes of index for each key, once it has grown, and its peak as a ratio to that.
const INDEX_BYTES_MAX: f64 = 22.0;
const INDEX_PEAK_MAX: f64 = 1.3;

/// Prints how much space a store takes, and what that costs.
#[derive(Parser)]
struct Arguments {
    /// Keys that are overwritten
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,

    /// How often each of them, on the average
    #[arg(long, default_value_t = 20)]
    turnover: u64,

    /// Keys of which the index is weighed
    #[arg(long, default_value_t = 10_000_000)]
    index_keys: u64,

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

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.keys, arguments.turnover, arguments.index_keys) = (20_000, 20, 200_000);
    }
    let Arguments { keys, turnover, index_keys, .. } = arguments;
    let dir = arguments.dir.as_deref();
    let mut met = true;

    let uniform = Uniform::new(0, keys).unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    met &= overwrites(dir, "uniform", keys, turnover, || uniform.sample(&mut random));

    let zipf = Zipf::new(keys as f64, 0.99).unwrap();
    let mut random = StdRng::seed_from_u64(SEED);
    met &= overwrites(dir, "zipf", keys, turnover, || zipf.sample(&mut random) as u64 - 1);

    met &= index(dir, index_keys);
    if met || arguments.quick { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints one figure and, if it has a bound, whether it is met, which it returns.
fn figure(name: &str, what: &str, is_met: bool) -> bool {
    println!("{name:<34}{what}{}", if is_met { "" } else { "   MISSED" });
    is_met
}

/// The most there was in the course of a run.
#[derive(Default)]
struct Peak {
    /// Files to live bytes, files to the bound, the same with files that readers hold.
    of_live: f64,
    of_bound: f64,
    of_bound_with_held: f64,
    longest_set: Duration,
}

impl Peak {
    fn look(&mut self, stats: &Stats) {
        // A segment is sealed at the size of the live data, within these limits.
        let segment = stats.live_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let bound = (2 * stats.live_bytes + 2 * segment) as f64;
        let (live, total) = (stats.live_bytes as f64, stats.total_bytes as f64);
        self.of_live = self.of_live.max(total / live);
        self.of_bound = self.of_bound.max(total / bound);
        let held = stats.retired_bytes as f64;
        self.of_bound_with_held = self.of_bound_with_held.max((total + held) / bound);
    }
}

fn overwrites(
    dir: Option<&Path>,
    name: &str,
    keys: u64,
    turnover: u64,
    mut pick: impl FnMut() -> u64,
) -> bool {
    let dir = scratch(dir);
    let store = KvStore::open_with(dir.path(), Options::new().durability(Durability::Os)).unwrap();
    let value = [b'v'; VALUE_BYTES];
    for number in 0..keys {
        store.set_bytes(&key(number), &value).unwrap();
    }
    let mut peak = Peak::default();
    let began = Instant::now();
    for number in 0..keys * turnover {
        let key = key(pick());
        let set = Instant::now();
        store.set_bytes(&key, &value).unwrap();
        peak.longest_set = peak.longest_set.max(set.elapsed());
        if number % LOOK_EVERY == 0 {
            peak.look(&store.stats());
        }
    }
    let ns = began.elapsed().as_nanos() / u128::from(keys * turnover);
    let stats = store.stats();
    let written = stats.written_bytes as f64;
    let amplification = (written + stats.compaction_written_bytes as f64) / written;
    let line = |what: &str| format!("{name}/{what}");
    figure(&line("overwrite"), &format!("{ns} ns each, {turnover} times over"), true);
    figure(&line("files at most"), &format!("{:.2} x live", peak.of_live), true);
    let met = figure(
        &line("of 2 x live + 2 segments"),
        &format!("{:.2} (bar 1.00)", peak.of_bound),
        peak.of_bound <= 1.0,
    );
    figure(&line("with files still held"), &format!("{:.2}", peak.of_bound_with_held), true);
    figure(&line("longest set"), &format!("{:.1?}", peak.longest_set), true);
    let throttled = Duration::from_micros(stats.throttle_us);
    let waits = format!("{} waits, {throttled:.1?} together", stats.throttle_count);
    figure(&line("held back"), &waits, true);
    figure(&line("write amplification"), &format!("{amplification:.2}"), true);
    removal(&store, name, keys) && met
}

fn removal(store: &KvStore, name: &str, keys: u64) -> bool {
    for number in 0..keys {
        store.remove_bytes(&key(number)).unwrap();
    }
    store.compact().unwrap();
    let stats = store.stats();
    let what = format!(
        "{} segments, {} tombstones, {} bytes (bars 1, 0)",
        stats.segment_count, stats.tombstone_count, stats.total_bytes
    );
    let is_met = stats.segment_count <= 1 && stats.tombstone_count == 0;
    figure(&format!("{name}/after removing all"), &what, is_met)
}

fn index(dir: Option<&Path>, keys: u64) -> bool {
    let dir = scratch(dir);
    let options = Options::new().durability(Durability::Os).auto_compaction(false);
    let store = KvStore::open_with(dir.path(), options).unwrap();
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    for number in 0..keys {
        store.set_bytes(&key(number), b"8 bytes.").unwrap();
    }
    let peak = ALLOCATED.peak_usage().saturating_sub(before) as f64;
    let after = ALLOCATED.current_usage().saturating_sub(before) as f64;
    let index = store.stats().index_bytes as f64;
    let (per_key, ratio) = (index / keys as f64, peak / index);
    let memory = format!("{:.1} bytes a key", after / keys as f64);
    figure("index/all memory", &memory, true);
    let per_key_met = per_key <= INDEX_BYTES_MAX;
    let what = format!("{per_key:.1} bytes a key at {keys} keys (bar {INDEX_BYTES_MAX})");
    let per_key_met = figure("index/bytes", &what, per_key_met);
    let what = format!("{ratio:.2} x what stays (bar {INDEX_PEAK_MAX})");
    figure("index/peak while growing", &what, ratio <= INDEX_PEAK_MAX) && per_key_met
}
