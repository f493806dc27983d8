//! kill -9, again and again, on one store that is never cleaned.
//!
//! Another process writes to the store from four threads while it is being compacted; it says on a
//! pipe what it is about to do and what was acknowledged. The parent kills it at a random moment,
//! opens the store, and compares: every acknowledged write is there, every removed key is absent,
//! an operation under way has happened wholly or not at all, batches included. The oracle lives in
//! the parent, outside the process that dies.
//!
//! `cargo test --test kill` kills a writer and a server of this program. Others, and how often, are
//! arguments: `cargo test --test kill -- this=100 server=100 target/ffi-tests/kill_writer=100`;
//! what a program has to do is at the head of `kill/victims.rs`. A failure prints the seed;
//! `KVS_KILL_SEED` makes the same choices again.
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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kvs::{KvStore, ReadMode};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use oracle::{acknowledged, check};
use victims::{Kind, Orders, Setting, VERSIONS_PER_CYCLE};

/// What is killed, and how often, if no arguments say it.
const DEFAULT: [&str; 2] = ["this=200", "server=50"];

/// One store, and what it must hold.
struct Kills {
    kind: Kind,
    dir: tempfile::TempDir,
    random: SmallRng,
    model: BTreeMap<u32, u64>,
    /// Cycles in which something was acknowledged.
    wrote: u64,
    crash_tails_cut: u64,
}

impl Kills {
    fn cycle(&mut self, cycle: u64) {
        let dir = self.dir.path();
        let seed = self.random.next_u64();
        let (command, version) = (self.kind.command(&[]), cycle * VERSIONS_PER_CYCLE);
        let mut victim = self.kind.start(command, dir, Setting::of(cycle), version, seed);
        // Mostly while it writes; now and then as early as while it opens the store.
        if self.random.random_ratio(7, 8) {
            assert!(victim.says_more(), "it died before it was killed");
        }
        std::thread::sleep(Duration::from_micros(self.random.random_range(0..25_000)));
        let before = self.model.clone();
        // This sends SIGKILL.
        victim.child.kill().unwrap();
        let (status, heard) = victim.ended();
        assert_eq!(status.code(), None, "it died before it was killed");
        let under_way = acknowledged(heard, &mut self.model);
        self.wrote += u64::from(before != self.model);
        let positioned = cycle % 4 == 3;
        let read_mode = if positioned { ReadMode::Positioned } else { ReadMode::Mapped };
        let options = Setting::of(cycle + 1).options().read_mode(read_mode);
        let store = KvStore::open_with(dir, options).unwrap();
        self.crash_tails_cut += store.stats().crash_tails_cut;
        check(&store, &mut self.model, under_way);
    }
}

/// Kills `kind` so often, on one store; whether nothing was amiss.
fn survives(kind: Kind, cycles: u64, seed: u64) -> bool {
    let (dir, random) = (tempfile::tempdir().unwrap(), SmallRng::seed_from_u64(seed));
    let mut kills =
        Kills { kind, dir, random, model: BTreeMap::new(), wrote: 0, crash_tails_cut: 0 };
    for cycle in 0..cycles {
        if catch_unwind(AssertUnwindSafe(|| kills.cycle(cycle))).is_err() {
            eprintln!("{:?}, cycle {cycle}; KVS_KILL_SEED={seed}", kills.kind);
            return false;
        }
        if cycle % 100 == 99 || cycle + 1 == cycles {
            let tails = kills.crash_tails_cut;
            let done = cycle + 1;
            eprintln!("{:?}: {done} of {cycles} kills, {tails} crash tails cut", kills.kind);
        }
    }
    let enough = kills.wrote * 2 > cycles;
    if !enough {
        eprintln!("{:?}: most were killed before they wrote anything", kills.kind);
    }
    enough
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if Orders::are_carried_out(&args) {
        return;
    }
    let seed = victims::seed("KVS_KILL_SEED");
    let (mut cycles, mut failures) = (Vec::new(), 0);
    for (kind, count) in victims::asked(&args, &DEFAULT) {
        failures += u64::from(!survives(kind, count, seed));
        cycles.push(count);
    }
    let total: u64 = cycles.iter().sum();
    println!("{total} passed, {failures} failed");
    println!("soak-kill: {total} kills of {} kinds of process; failures: {failures}", cycles.len());
    std::process::exit(i32::from(failures > 0));
}
