//! A store is written to for a long time, and takes no more of anything at the end than before.
//!
//! Keys are set, removed, set in batches, expire; others read, scan, look at views and make
//! checkpoints; every now and then the store is opened anew. The second quarter of the time is
//! compared with the last: memory (without mapped files, which are the page cache's), descriptors,
//! mappings and space on disk must be as they were.
//!
//! `KVS_SOAK_MINUTES` is how long (`make soak-churn`: an hour). With `MALLOC_ARENA_MAX=1` glibc
//! keeps one heap; otherwise each of a dozen grows to the most that was ever needed at once, which
//! takes hours and is not the store's doing.
#![expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test program: a panic is how it fails"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use peak_alloc::PeakAlloc;

use kvs::{KvStore, KvsEngine, Options, Scan, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KEYS: u64 = 100_000;
const WRITERS: u64 = 3;
/// A writer rests after so many writes, which keeps this from being a test of the disk.
const BURST: u64 = 100;
const REST: Duration = Duration::from_millis(10);
/// Rows of the table, in a run of any length.
const ROWS: u32 = 40;
/// The store is opened anew as often.
const STORES: u32 = 8;
/// How much more is flat (percent), and what any process may vary by.
const GROWTH_PERCENT_MAX: f64 = 5.0;
const SLACK: [f64; COLUMNS.len()] = [1.0, 8.0, 16.0, 16.0, 16.0];
const COLUMNS: [&str; 5] =
    ["MiB allocated", "MiB resident", "descriptors", "mappings", "MiB on disk"];

fn options() -> Options {
    Options::new().segment_bytes_min(1 << 20).segment_bytes_max(4 << 20)
}

/// Writes until told to stop.
fn write(store: &KvStore, seed: u64, stop: &AtomicBool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut batch = WriteBatch::new();
    // Relaxed: nothing else hangs on it.
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let key = random.random_range(..KEYS).to_be_bytes();
            let value = vec![key[7]; random.random_range(..500_usize)];
            match random.random_range(0..20) {
                0..2 => match store.remove_bytes(&key) {
                    Ok(()) | Err(kvs::KvsError::KeyNotFound) => {}
                    Err(error) => panic!("{error}"),
                },
                2 => {
                    batch.clear();
                    for _ in 0..8 {
                        batch.set(&random.random_range(..KEYS).to_be_bytes(), &value);
                    }
                    store.apply(&batch).unwrap();
                }
                3 => {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    let soon = now + Duration::from_millis(random.random_range(0..3000));
                    let soon = u64::try_from(soon.as_millis()).unwrap();
                    store.set_with_expiry(&key, &value, soon).unwrap();
                }
                _ => store.set_bytes(&key, &value).unwrap(),
            }
        }
        std::thread::sleep(REST);
    }
}

/// Reads in every way until told to stop.
fn read(store: &KvStore, dir: &Path, stop: &AtomicBool) {
    let mut random = SmallRng::seed_from_u64(7);
    let copy = dir.with_extension("copy");
    // Relaxed: nothing else hangs on it.
    for turn in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for _ in 0..BURST {
            let key = random.random_range(..KEYS).to_be_bytes();
            if let Some(value) = store.get_bytes(&key).unwrap() {
                assert!(value.iter().all(|byte| *byte == value[0]), "a mixed value");
            }
        }
        if turn % 50 == 0 {
            let view = KvStore::open_with(dir, options().read_only(true)).unwrap();
            view.iter().unwrap().take(1000).for_each(|entry| drop(entry.unwrap()));
        }
        if turn % 500 == 100 {
            store.scan(Scan::all()).unwrap().take(1000).for_each(|entry| drop(entry.unwrap()));
        }
        if turn % 1000 == 500 {
            store.checkpoint(&copy).unwrap();
            std::fs::remove_dir_all(&copy).unwrap();
        }
        std::thread::sleep(REST);
    }
}

/// What this process and the store in `dir` take: the columns of the table.
fn taken(dir: &Path) -> [f64; COLUMNS.len()] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u32 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    // Compaction may remove one while this looks.
    let bytes: u64 = files.map(|file| file.metadata().map_or(0, |file| file.len())).sum();
    let allocated = f64::from(ALLOCATOR.current_usage_as_mb());
    [allocated, f64::from(kib) / 1024.0, fds as f64, maps as f64, bytes as f64 / f64::from(1 << 20)]
}

/// Runs one store for `time`, adding rows as time goes by.
fn churn(
    dir: &Path,
    seed: u64,
    time: Duration,
    began: Instant,
    rows: &mut Vec<[f64; COLUMNS.len()]>,
) {
    let store = KvStore::open_with(dir, options()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, stop) = (store.clone(), &stop);
            scope.spawn(move || write(&store, seed * WRITERS + writer, stop));
        }
        scope.spawn(|| read(&store, dir, &stop));
        for _ in 0..ROWS / STORES {
            std::thread::sleep(time / (ROWS / STORES));
            let row = taken(dir);
            let figures = row.map(|figure| format!("{figure:>14.1}"));
            rows.push(row);
            let (seconds, done) = (began.elapsed().as_secs(), rows.len());
            println!("{seconds:>8}{}    {done} of {ROWS}", figures.concat());
        }
        // Relaxed: nothing else hangs on it.
        stop.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
}

/// The mean of a column.
fn mean(rows: &[[f64; COLUMNS.len()]], column: usize) -> f64 {
    rows.iter().map(|row| row[column]).sum::<f64>() / rows.len() as f64
}

fn main() {
    let minutes = std::env::var("KVS_SOAK_MINUTES").map_or(0.5, |text| text.parse().unwrap());
    let time = Duration::from_secs_f64(minutes * 60.0);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("store");
    let (began, mut rows) = (Instant::now(), Vec::new());
    println!("{:>8}{}", "seconds", COLUMNS.map(|name| format!("{name:>14}")).concat());
    for store in 0..STORES {
        churn(&dir, u64::from(store), time / STORES, began, &mut rows);
    }
    let quarter = rows.len() / 4;
    let (before, after) = (&rows[quarter..2 * quarter], &rows[3 * quarter..]);
    let mut failures = 0;
    let mut figures = Vec::new();
    for (column, name) in COLUMNS.iter().enumerate() {
        let (before, after) = (mean(before, column), mean(after, column));
        let is_flat = after <= before * (1.0 + GROWTH_PERCENT_MAX / 100.0) + SLACK[column];
        failures += u32::from(!is_flat);
        figures.push(format!("{before:.1} -> {after:.1} {name}"));
    }
    let figures = figures.join(", ");
    println!("soak-churn: {minutes} minutes, {figures}; failures: {failures}");
    std::process::exit(i32::from(failures > 0));
}
