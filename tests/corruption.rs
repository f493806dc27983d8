//! Files of a store are damaged, in every way there is, and the store is opened.
//!
//! Every bit is flipped, every file cut at every byte, zeroed by pages, appended to, removed,
//! swapped with another, doubled, exchanged for that of another store. Whatever was done: each key
//! reads as it was, or its read (or the open) is an error that says what is damaged. Never another
//! value, never one that was there before, never a key that is silently gone; no panic, no hang, no
//! allocation beyond what the files are long.
//!
//! That holds for a store that was closed, with its hints and without. What a killed process left
//! may end anywhere: there a state of the past is right, if it is one as a whole.
//!
//! `cargo test --test corruption` tries one damage in many; `KVS_CORRUPTION_STRIDE=1` all of them.
#![expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test program: a panic is how it fails"
)]

#[path = "corruption/damage.rs"]
mod damage;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kvs::{Durability, KvStore, KvsEngine, KvsError, Options, ReadMode, WriteBatch};
use peak_alloc::PeakAlloc;

use damage::{Damage, Files};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// All threads together stay below (MiB): a length of 1 GiB that is believed would not.
const PEAK_MIB_MAX: f32 = 256.0;
/// Of so many damages one is tried, if not told otherwise. A prime, so that all bits have a turn.
const DEFAULT_STRIDE: usize = 211;
/// A damage that takes as long is a hang.
const STUCK: Duration = Duration::from_secs(300);

type Content = BTreeMap<u32, Vec<u8>>;

fn options() -> Options {
    Options::new()
        .durability(Durability::Os)
        .auto_compaction(false)
        .segment_bytes_min(0)
        .segment_bytes_max(4096)
}

/// A store to be damaged, and what it may hold.
struct Victim {
    name: &'static str,
    files: Files,
    foreign: Files,
    keys: u32,
    /// One state if it was closed; else the one after each write.
    states: Vec<Content>,
}

/// Keys of every age: overwritten, removed, set in batches, and moved by compaction. Then `states`
/// has the state after each write.
fn fill(store: &KvStore, keys: u32, salt: u8, states: &mut Vec<Content>) {
    let mut write = |sets: &[(u32, u8)], removed: Option<u32>| {
        let mut next = states.last().cloned().unwrap_or_default();
        let mut batch = WriteBatch::new();
        for (key, version) in sets {
            let value = vec![version ^ salt; 20 + (*key as usize * 37) % 150];
            batch.set(&key.to_be_bytes(), &value);
            next.insert(*key, value);
        }
        if let Some(key) = removed {
            batch.remove(&key.to_be_bytes());
            next.remove(&key);
        }
        store.apply(&batch).unwrap();
        states.push(next);
    };
    (0..keys).for_each(|key| write(&[(key, 1)], None));
    (0..keys).step_by(2).for_each(|key| write(&[(key, 2), (key + 1, 2)], None));
    store.compact().unwrap();
    (0..keys).step_by(3).for_each(|key| write(&[(key, 3)], None));
    (0..keys).step_by(7).for_each(|key| write(&[], Some(key)));
    (0..keys).step_by(10).for_each(|key| write(&[(key, 4)], Some(key + 1)));
}

impl Victim {
    fn new(name: &'static str, keys: u32, is_closed: bool) -> Self {
        let dir = fast_dir();
        let mut states = vec![Content::new()];
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        let store = KvStore::open_with(&one, options()).unwrap();
        fill(&store, keys, 0, &mut states);
        let foreign = KvStore::open_with(&other, options()).unwrap();
        fill(&foreign, keys, 0x55, &mut Vec::new());
        if is_closed {
            store.close().unwrap();
            foreign.close().unwrap();
            states.drain(..states.len() - 1);
        }
        let (files, foreign) = (Files::of(&one), Files::of(&other));
        Self { name, files, foreign, keys, states }
    }

    /// The same, without hints.
    fn without_hints(mut self) -> Self {
        for files in [&mut self.files, &mut self.foreign] {
            files.0.retain(|(name, _)| name.extension().is_none_or(|found| found != "hint"));
        }
        self
    }

    /// Damages a copy in `dir` and looks at it; how that went.
    fn try_damage(&self, damage: &Damage, number: usize, dir: &Path) -> Outcome {
        let _ = std::fs::remove_dir_all(dir);
        self.files.write_to(dir);
        damage.apply(&self.files, &self.foreign, dir);
        let read_mode =
            if number.is_multiple_of(2) { ReadMode::Mapped } else { ReadMode::Positioned };
        let options = options().read_mode(read_mode);
        if number % 8 == 3 {
            // A view first, which writes nothing.
            if let Ok(view) = KvStore::open_with(dir, options.clone().read_only(true)) {
                self.look(&view, dir);
            }
        }
        let store = match KvStore::open_with(dir, options.clone()) {
            Ok(store) => store,
            Err(error) => {
                check_says_what(&error, dir);
                return Outcome::Refused;
            }
        };
        let outcome = self.look(&store, dir);
        if number % 8 == 5 {
            check_goes_on(store, dir, options);
        }
        outcome
    }

    /// Reads every key, in every way.
    fn look(&self, store: &KvStore, dir: &Path) -> Outcome {
        let mut found = BTreeMap::new();
        for key in 0..=self.keys {
            match store.get_bytes(&key.to_be_bytes()) {
                Ok(value) => drop(found.insert(key, value.map(|value| value.to_vec()))),
                Err(error) => check_says_what(&error, dir),
            }
        }
        let is_whole = found.len() == self.keys as usize + 1;
        let agrees =
            |state: &&Content| found.iter().all(|(key, value)| value.as_ref() == state.get(key));
        let Some(state) = self.states.iter().find(agrees) else {
            panic!("holds what no state does: {found:?}");
        };
        match store.len() {
            Ok(count) => assert_eq!(count, state.len() as u64, "counts other keys than there are"),
            Err(error) => check_says_what(&error, dir),
        }
        let mut walked = Content::new();
        let mut damaged = false;
        for entry in store.iter().unwrap() {
            match entry {
                Ok((key, value)) => {
                    let key = u32::from_be_bytes(key[..].try_into().unwrap());
                    walked.insert(key, value.to_vec());
                }
                Err(error) => {
                    check_says_what(&error, dir);
                    damaged = true;
                }
            }
        }
        assert!(walked.iter().all(|(key, value)| state.get(key) == Some(value)), "{walked:?}");
        assert!(damaged || walked.len() == state.len(), "a walk lacks keys and does not say so");
        if is_whole { Outcome::Right } else { Outcome::Reported }
    }
}

/// What is written over damage stays.
fn check_goes_on(store: KvStore, dir: &Path, options: Options) {
    match store.set_bytes(b"after", b"damage").and_then(|()| store.close()) {
        Ok(()) => {}
        Err(error) => return check_says_what(&error, dir),
    }
    drop(store);
    match KvStore::open_with(dir, options).and_then(|store| store.get_bytes(b"after")) {
        Ok(value) => assert_eq!(value.unwrap(), *b"damage"),
        Err(error) => check_says_what(&error, dir),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Right,
    Reported,
    Refused,
}

#[track_caller]
fn check_says_what(error: &KvsError, dir: &Path) {
    match error {
        KvsError::Corrupt { path, .. } | KvsError::UnsupportedFormat { path, .. } => {
            assert!(path.starts_with(dir), "{}", path.display());
        }
        other => panic!("{other:?}"),
    }
}

/// A directory in memory where there is one: hundreds of thousands of opens.
fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// How many went which way, and which did not go well.
#[derive(Default)]
struct Counts {
    outcomes: [u64; 3],
    failures: u64,
}

/// Damages from one line of progress to the next.
const REPORT_EVERY: usize = 10_000;

static DONE: AtomicUsize = AtomicUsize::new(0);
/// Of any thread, the store's own among them.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Tries one damage in `stride`.
fn try_all(victim: &Victim, stride: usize, counts: &Mutex<Counts>) {
    let damages = damage::all(&victim.files);
    let chosen: Vec<_> = damages.iter().enumerate().step_by(stride).collect();
    let (name, bytes, count) = (victim.name, victim.files.bytes(), chosen.len());
    eprintln!("{name}: {bytes} bytes, one in {stride} of the {} damages", damages.len());
    // Relaxed: a figure.
    let started = DONE.load(Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    let try_on = || {
        let dir = fast_dir();
        // Relaxed: whoever takes a number has it alone.
        while let Some((number, damage)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let store = dir.path().join("store");
            let tried =
                catch_unwind(AssertUnwindSafe(|| victim.try_damage(damage, *number, &store)));
            let mut counts = counts.lock().unwrap();
            if let Ok(outcome) = tried {
                counts.outcomes[outcome as usize] += 1;
            } else {
                eprintln!("FAILED: {name}, damage {number}: {damage:?}");
                counts.failures += 1;
            }
            // Relaxed: a figure.
            let done = DONE.fetch_add(1, Ordering::Relaxed) + 1 - started;
            if done.is_multiple_of(REPORT_EVERY) {
                eprintln!("{name}: {done} of {count} damages");
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(try_on);
        }
    });
}

/// Ends the program if nothing is done for too long.
fn watch() {
    let mut before = None;
    loop {
        std::thread::sleep(STUCK);
        // Relaxed: a figure.
        let done = Some(DONE.load(Ordering::Relaxed));
        if done == before {
            eprintln!("a damage hangs");
            std::process::abort();
        }
        before = done;
    }
}

fn count_panics() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Relaxed: a figure.
        PANICS.fetch_add(1, Ordering::Relaxed);
        say(panic);
    }));
}

fn main() {
    let stride = std::env::var("KVS_CORRUPTION_STRIDE").map(|text| text.parse().unwrap());
    let stride = stride.unwrap_or(DEFAULT_STRIDE);
    let counts = Mutex::new(Counts::default());
    count_panics();
    std::thread::spawn(watch);
    for victim in [
        Victim::new("closed", 180, true),
        Victim::new("closed, without hints", 180, true).without_hints(),
        Victim::new("killed", 60, false),
    ] {
        try_all(&victim, stride, &counts);
    }
    let Counts { outcomes: [right, reported, refused], failures } = counts.into_inner().unwrap();
    // Relaxed: all threads have ended. What failed has panicked, too.
    let failures = failures.max(PANICS.load(Ordering::Relaxed));
    let peak = ALLOCATOR.peak_usage_as_mb();
    assert!(peak < PEAK_MIB_MAX, "{peak} MiB were allocated");
    let passed = right + reported + refused;
    println!("{passed} passed, {failures} failed");
    println!(
        "soak-corruption: {passed} damages: {right} read right, {reported} reported by a read, \
         {refused} refused when opened; failures: {failures}"
    );
    std::process::exit(i32::from(failures > 0));
}
