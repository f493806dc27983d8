//! kill -9, again and again, on one store that is never cleaned.
//!
//! A child process writes to the store from four threads while another thread compacts; it says on
//! a pipe what it is about to do and what was acknowledged. The parent kills it at a random moment,
//! opens the store, and compares: every acknowledged write is there, every removed key is absent,
//! an operation under way has happened wholly or not at all, batches included. The oracle lives in
//! the parent, outside the process that dies.
//!
//! `cargo test --test kill` runs 200 cycles; `KVS_KILL_CYCLES=10000 cargo test --test kill` more.
//! A failure prints the seed; `KVS_KILL_SEED` runs the same choices again.
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test program: a panic is how it fails"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kvs::{Durability, KvStore, KvsEngine, KvsError, Options, ReadMode, WriteBatch, WriteMode};

const THREADS: u32 = 4;
const KEYS_PER_THREAD: u32 = 40;

/// The shortest generator that does: Steele's `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What one thread does in one step: new versions of keys, 0 for removal.
#[derive(Debug, Clone, PartialEq)]
struct Step(Vec<(u32, u64)>);

impl Step {
    fn random(random: &mut Random, thread: u32, version: u64) -> Self {
        let key = |random: &mut Random| {
            thread * KEYS_PER_THREAD + random.below(u64::from(KEYS_PER_THREAD)) as u32
        };
        match random.below(10) {
            0..6 => Self(vec![(key(random), version)]),
            6..8 => Self(vec![(key(random), 0)]),
            _ => {
                let mut keys: Vec<_> = (0..2 + random.below(5)).map(|_| key(random)).collect();
                keys.sort_unstable();
                keys.dedup();
                let remove = random.below(4);
                let version_of = |i: usize| if i as u64 == remove { 0 } else { version };
                Self(keys.into_iter().enumerate().map(|(i, k)| (k, version_of(i))).collect())
            }
        }
    }

    fn line(&self) -> String {
        self.0.iter().fold(String::new(), |line, (key, version)| format!("{line} {key}:{version}"))
    }

    fn parse(line: &str) -> Self {
        let pair = |word: &str| {
            let (key, version) = word.split_once(':').unwrap();
            (key.parse().unwrap(), version.parse().unwrap())
        };
        Self(line.split_whitespace().map(pair).collect())
    }

    fn run(&self, store: &KvStore) {
        let name = |key: u32| format!("key {key}");
        match &self.0[..] {
            [(key, 0)] => match store.remove(name(*key)) {
                Ok(()) | Err(KvsError::KeyNotFound) => {}
                Err(error) => panic!("{error}"),
            },
            [(key, version)] => store.set(name(*key), value(*key, *version)).unwrap(),
            several => {
                let mut batch = WriteBatch::new();
                for (key, version) in several {
                    match version {
                        0 => batch.remove(name(*key).as_bytes()),
                        _ => batch.set(name(*key).as_bytes(), value(*key, *version).as_bytes()),
                    };
                }
                store.apply(&batch).unwrap();
            }
        }
    }
}

/// Short ones, and now and then one that takes several pages.
fn value(key: u32, version: u64) -> String {
    let filler = if version.is_multiple_of(23) { 20_000 } else { version as usize % 300 };
    format!("{key} {version} {}", "x".repeat(filler))
}

fn options(cycle: u64) -> Options {
    let durability = match cycle % 3 {
        0 => Durability::Os,
        1 => Durability::Interval(Duration::from_millis(3)),
        _ => Durability::Sync,
    };
    let options = Options::new().durability(durability).lock_timeout(Duration::from_secs(5));
    let options = if cycle.is_multiple_of(2) {
        options.segment_bytes_min(0).segment_bytes_max(16 << 10)
    } else {
        options
    };
    let positioned = cycle % 4 == 3;
    let options =
        options.write_mode(if cycle % 5 == 4 { WriteMode::Direct } else { WriteMode::Tail });
    options.read_mode(if positioned { ReadMode::Positioned } else { ReadMode::Mapped })
}

/// Writes until it is killed.
fn child(dir: &Path, cycle: u64, seed: u64) {
    let store = KvStore::open_with(dir, options(cycle)).unwrap();
    let say = |line: String| {
        // One write of less than a page to a pipe arrives whole, whoever else writes.
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::exit(0);
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, say) = (store.clone(), &say);
            scope.spawn(move || {
                let mut random = Random(seed ^ u64::from(thread) << 32);
                for n in 1.. {
                    let step = Step::random(&mut random, thread, cycle * 1_000_000 + n);
                    say(format!("? {thread}{}\n", step.line()));
                    step.run(&store);
                    say(format!("! {thread}\n"));
                }
            });
        }
        scope.spawn(|| {
            loop {
                store.compact().unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
    });
}

/// Runs one child and kills it. Applies what was acknowledged to `model`; returns, for each
/// thread, the step that was under way.
fn kill_one(
    dir: &Path,
    cycle: u64,
    random: &mut Random,
    model: &mut BTreeMap<u32, u64>,
) -> Vec<Option<Step>> {
    let seed = random.next();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", dir.to_str().unwrap(), &cycle.to_string(), &seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let (started, wait_for_start) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = lines.lines().map_while(Result::ok).inspect(|_| {
            let _ = started.send(());
        });
        lines.collect::<Vec<_>>()
    });
    // Mostly while it writes; now and then as early as while it opens the store.
    if !random.next().is_multiple_of(8) {
        wait_for_start.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    std::thread::sleep(Duration::from_micros(random.below(25_000)));
    // `kill` sends SIGKILL.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "cycle {cycle}: the child died before it was killed");
    let mut under_way = vec![None; THREADS as usize];
    for line in reader.join().unwrap() {
        let (said, rest) = line.split_at(2);
        let (thread, step) = rest.split_once(' ').unwrap_or((rest, ""));
        let slot: &mut Option<Step> = &mut under_way[thread.parse::<usize>().unwrap()];
        match said {
            "? " => *slot = Some(Step::parse(step)),
            _ => model.extend(slot.take().unwrap().0),
        }
    }
    under_way
}

fn found(store: &KvStore, key: u32) -> u64 {
    let Some(text) = store.get(format!("key {key}")).unwrap() else { return 0 };
    let mut words = text.split(' ').map(str::to_owned);
    assert_eq!(words.next().unwrap(), key.to_string(), "a value of another key");
    let version = words.next().unwrap().parse().unwrap();
    assert_eq!(text, value(key, version), "a mixed value");
    version
}

fn check(store: &KvStore, cycle: u64, model: &mut BTreeMap<u32, u64>, steps: Vec<Option<Step>>) {
    for step in steps.into_iter().flatten() {
        let happened = step.0.iter().filter(|(key, version)| found(store, *key) == *version);
        // A key may have had that state before: all, or as many as had it before.
        let already =
            step.0.iter().filter(|(key, version)| model.get(key).unwrap_or(&0) == version);
        let (happened, already) = (happened.count(), already.count());
        assert!(
            happened == step.0.len() || happened == already,
            "cycle {cycle}: half of {step:?} happened"
        );
        if happened == step.0.len() {
            model.extend(step.0);
        }
    }
    let mut present = 0;
    for key in 0..THREADS * KEYS_PER_THREAD {
        let expected = model.get(&key).copied().unwrap_or(0);
        assert_eq!(found(store, key), expected, "cycle {cycle}: key {key}");
        present += u64::from(expected != 0);
    }
    assert_eq!(store.len().unwrap(), present, "cycle {cycle}");
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let [_, flag, dir, cycle, seed] = &args[..]
        && flag == "--child"
    {
        return child(Path::new(dir), cycle.parse().unwrap(), seed.parse().unwrap());
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cycles = number("KVS_KILL_CYCLES").unwrap_or(200);
    let seed = number("KVS_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{cycles} kills, seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let mut model = BTreeMap::new();
    let (mut acknowledged, mut tails) = (0, 0);
    for cycle in 0..cycles {
        let before = model.clone();
        let under_way = kill_one(dir.path(), cycle, &mut random, &mut model);
        acknowledged += u64::from(before != model);
        let store = KvStore::open_with(dir.path(), options(cycle + 1)).unwrap();
        tails += store.stats().crash_tails_cut;
        check(&store, cycle, &mut model, under_way);
        if cycle % 100 == 99 {
            eprintln!("{} kills, {tails} crash tails cut", cycle + 1);
        }
    }
    assert!(acknowledged * 2 > cycles, "most children were killed before they wrote anything");
    println!("{cycles} passed, 0 failed");
}
