//! Calls of the system fail under programs as they are shipped: a host in Rust, one in C, one in
//! Python, none of which knows of it. strace makes the N-th call of a kind fail, of those that
//! concern the store's own files.
//!
//! A program may go on, or say what is wrong and end; it may not crash, hang, or end without a
//! word. Without the fault its store is then opened and compared, as after kill -9: what was
//! acknowledged is there, what was under way has happened wholly or not at all.
//!
//! `cargo test --test faults -- this=100 target/ffi-tests/kill_writer=100` says under which
//! programs calls are to fail, and how many; what a program has to do is at the head of
//! `kill/victims.rs`. A failure prints the seed; `KVS_FAULTS_SEED` makes the same choices again.
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test program: a panic is how it fails"
)]

#[path = "kill/oracle.rs"]
mod oracle;
#[path = "kill/steps.rs"]
mod steps;
#[path = "kill/victims.rs"]
mod victims;

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use kvs::{KvStore, KvsEngine};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use oracle::{acknowledged, check};
use victims::{Kind, Orders, Setting, VERSIONS_PER_CYCLE};

/// Which call fails, and what the system says then.
const FAULTS: [(&str, &str); 19] = [
    ("fdatasync", "EIO"),
    ("fdatasync", "ENOSPC"),
    ("fsync", "EIO"),
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EDQUOT"),
    ("pwrite64", "EINTR"),
    ("openat", "EIO"),
    ("openat", "EMFILE"),
    ("openat", "ENOSPC"),
    ("openat", "EROFS"),
    ("ftruncate", "EIO"),
    ("ftruncate", "EINTR"),
    ("mmap", "ENOMEM"),
    ("unlink", "EIO"),
    ("unlink", "EROFS"),
    ("statx", "EIO"),
    ("getdents64", "EIO"),
    ("flock", "ENOLCK"),
];

/// Each thread counts its calls for itself: of some kinds it makes a few, of others hundreds.
const CALL_MAX: u64 = 12;

/// A program writes so many files at most before it is killed.
const NEW_FILES_MAX: u64 = 400;

/// The paths of all files of the store in `dir`, and of those that may come.
fn paths(dir: &Path) -> Vec<String> {
    let mut paths = vec![dir.to_str().unwrap().to_owned()];
    let mut newest = BTreeMap::from([("MANIFEST-", 0), ("seg-", 0)]);
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        for (prefix, newest) in &mut newest {
            let digits = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next());
            *newest = digits.map_or(*newest, |digits| digits.parse().unwrap()).max(*newest);
        }
        paths.push(format!("{}/{name}", dir.display()));
    }
    for name in ["LOCK", "RESERVE", "TAIL"] {
        paths.push(format!("{}/{name}", dir.display()));
    }
    for n in 1..=NEW_FILES_MAX {
        let (manifest, segment) = (newest["MANIFEST-"] + n, newest["seg-"] + n);
        paths.push(format!("{}/MANIFEST-{manifest}", dir.display()));
        paths.push(format!("{}/seg-{segment:010}.log", dir.display()));
        paths.push(format!("{}/seg-{segment:010}.hint", dir.display()));
    }
    paths
}

/// The words by which strace is called, which writes what it has done to `log`.
fn strace(dir: &Path, log: &Path, call: &str, injection: &str) -> Vec<String> {
    let mut words: Vec<_> =
        ["strace", "-f", "-qq", "--seccomp-bpf", "-o"].map(str::to_owned).into();
    words.extend([log.to_str().unwrap().to_owned(), "-e".to_owned(), format!("trace={call}")]);
    words.extend(["-e".to_owned(), format!("inject={injection}")]);
    words.extend(paths(dir).into_iter().flat_map(|path| ["-P".to_owned(), path]));
    words
}

/// One store, what it must hold, and what was done to those who wrote to it.
struct Faults {
    kind: Kind,
    dir: tempfile::TempDir,
    random: SmallRng,
    model: BTreeMap<u32, u64>,
    /// Runs in which a call failed, and those of them that went on.
    failed: u64,
    went_on: u64,
}

impl Faults {
    fn cycle(&mut self, cycle: u64) {
        let dir = self.dir.path().join("store");
        std::fs::create_dir_all(&dir).unwrap();
        let (log, errors) = (self.dir.path().join("strace"), self.dir.path().join("stderr"));
        let (call, error) = FAULTS[cycle as usize % FAULTS.len()];
        // A call that is interrupted is made again, for ever if need be.
        let stays = error != "EINTR" && self.random.random_ratio(1, 3);
        let and_later = if stays { "+" } else { "" };
        let nth = self.random.random_range(1..=CALL_MAX);
        let injection = format!("{call}:error={error}:when={nth}{and_later}");

        let mut command = self.kind.command(&strace(&dir, &log, call, &injection));
        command.process_group(0).stderr(std::fs::File::create(&errors).unwrap());
        let (version, seed) = (cycle * VERSIONS_PER_CYCLE, self.random.next_u64());
        let program = self.kind.start(command, &dir, Setting::of(cycle), version, seed);
        if program.says_more() {
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..100)));
            // It writes still, or has ended: it does not wait for what never comes.
            if program.says_more() {
                program.kill_group();
            }
        }
        let (status, heard) = program.ended();
        let has_failed = std::fs::read_to_string(&log).unwrap().contains("(INJECTED)");
        check_end(status, has_failed, &std::fs::read_to_string(&errors).unwrap(), &injection);
        self.failed += u64::from(has_failed);
        self.went_on += u64::from(has_failed && status.code().is_none());

        let under_way = acknowledged(heard, &mut self.model);
        let store = KvStore::open_with(&dir, Setting::of(cycle + 1).options()).unwrap();
        check(&store, &mut self.model, under_way);
        store.close().unwrap();
    }
}

/// Killed by this test, or ended with a word on what was wrong.
fn check_end(status: ExitStatus, has_failed: bool, errors: &str, injection: &str) {
    const KILLED: i32 = 9;
    let is_killed = status.signal() == Some(KILLED);
    let says_what = errors.contains("(os error ") || errors.contains("after a failed sync");
    let has_told = has_failed && status.code() == Some(1) && says_what;
    assert!(is_killed || has_told, "{injection}: {status}: {errors}");
    assert!(!errors.contains("panicked"), "{injection}: {errors}");
}

/// Lets calls fail in `wanted` runs of `kind`, on one store; how many went on, if nothing was
/// amiss.
fn survives(kind: Kind, wanted: u64, seed: u64) -> Option<u64> {
    let (dir, random) = (tempfile::tempdir().unwrap(), SmallRng::seed_from_u64(seed));
    let mut faults = Faults { kind, dir, random, model: BTreeMap::new(), failed: 0, went_on: 0 };
    for cycle in 0.. {
        let before = faults.failed;
        if catch_unwind(AssertUnwindSafe(|| faults.cycle(cycle))).is_err() {
            eprintln!("{:?}, run {cycle}; KVS_FAULTS_SEED={seed}", faults.kind);
            return None;
        }
        if faults.failed == wanted {
            break;
        }
        if faults.failed != before && faults.failed.is_multiple_of(20) {
            eprintln!("{:?}: {} of {wanted} faults", faults.kind, faults.failed);
        }
    }
    Some(faults.went_on)
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if Orders::are_carried_out(&args) {
        return;
    }
    // Where nobody may be traced, nothing fails: that is said, and no failure.
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is missing, or may not trace here");
        return println!("soak-faults: SKIPPED, 0 runs: nothing can be traced; failures: 0");
    }
    let seed = victims::seed("KVS_FAULTS_SEED");
    let (mut total, mut went_on, mut failures) = (0, 0, 0);
    for (kind, count) in victims::asked(&args, &[]) {
        match survives(kind, count, seed) {
            Some(of_them) => (total, went_on) = (total + count, went_on + of_them),
            None => failures += 1,
        }
    }
    println!("{total} passed, {failures} failed");
    println!(
        "soak-faults: {total} runs of programs under which a call failed, of which {went_on} went \
         on and {} said why not; failures: {failures}",
        total - went_on
    );
    std::process::exit(i32::from(failures > 0));
}
