//! Runs the models of kvs under the checker that this was built with.
//!
//! shuttle runs each of them `KVS_MODEL_SCHEDULES` times (1,000), half of them in random orders and
//! half in those of probabilistic concurrency testing; loom runs each in all orders of at most
//! `KVS_MODEL_PREEMPTIONS` (2) preemptions: with 4 all of them take some minutes. `KVS_MODEL`
//! chooses those whose name has that text.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvs::models;

/// How often it says that it is still at work.
const PROGRESS_SCHEDULES: u64 = 20_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[cfg(feature = "shuttle")]
fn check(run: impl Fn() + Send + Sync + Clone + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};

    let schedules = usize::try_from(number("KVS_MODEL_SCHEDULES", 1_000)).expect("a count");
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    let half = schedules / 2;
    Runner::new(RandomScheduler::new(schedules - half), config.clone()).run(run.clone());
    if half > 0 {
        Runner::new(PctScheduler::new(3, half), config).run(run);
    }
}

#[cfg(feature = "loom")]
fn check(run: impl Fn() + Send + Sync + Clone + 'static) {
    let mut builder = loom::model::Builder::new();
    let preemptions = number("KVS_MODEL_PREEMPTIONS", 2);
    let preemptions = usize::try_from(preemptions).expect("a count");
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(run);
}

fn main() {
    let chosen = std::env::var("KVS_MODEL").unwrap_or_default();
    let (mut count, mut schedules, mut failures) = (0_u64, 0, 0_u64);
    let mut chosen_ones = models::all();
    chosen_ones.retain(|(name, _)| name.contains(&chosen));
    let total = chosen_ones.len();
    for (name, model) in chosen_ones {
        let ran = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ran);
        let run = move || {
            // Relaxed: a count of one thread.
            let before = counted.fetch_add(1, Ordering::Relaxed);
            if before > 0 && before.is_multiple_of(PROGRESS_SCHEDULES) {
                eprintln!("{name}: {before} schedules");
            }
            models::begin_execution();
            model();
        };
        let passed = panic::catch_unwind(AssertUnwindSafe(|| check(run))).is_ok();
        let ran = ran.load(Ordering::Relaxed);
        (count, schedules, failures) = (count + 1, schedules + ran, failures + u64::from(!passed));
        let outcome = if passed { "ok    " } else { "FAILED" };
        println!("{outcome} {name}: {ran} schedules ({count} of {total})");
    }
    assert!(count > 0, "no model is named like that");
    println!("{} passed, {failures} failed", count - failures);
    println!("models: {count} models, {schedules} schedules; failures: {failures}");
    if failures > 0 {
        std::process::exit(1);
    }
}
