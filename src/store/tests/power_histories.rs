//! Power fails during histories that nobody has thought of.
//!
//! Random steps, of all kinds; power is lost at every moment of them, again while the store is
//! being opened, and after the process was killed. `KVS_POWER_LOSSES` is how often in all.

use std::sync::atomic::{AtomicU64, Ordering};

use super::power_loss::{Effort, Runner, say_losses};
use super::*;

/// Losses of power that every run of the tests tries.
pub(super) const LOSSES: usize = 8_000;
const STEPS: usize = 12;
/// Losses from one line of progress to the next.
const REPORT_EVERY: u64 = 100_000;

const BATCHES: &[&[(usize, Option<usize>)]] = &[
    &[(0, Some(300)), (1, None)],
    &[(1, Some(20)), (2, Some(900)), (3, Some(20))],
    &[(4, None), (5, Some(1500))],
    &[(0, None), (1, None), (2, None), (3, Some(1))],
];

fn random_step(random: &mut SmallRng) -> Step {
    let mut below = |n: usize| random.random_range(..n);
    let key = below(6);
    let len = [0, 10, 90, 400, 900, 1400][below(6)];
    match below(40) {
        0..15 => Set(key, len),
        15..20 => Remove(key),
        20..24 => SetExpired(key, len),
        24..28 => Batch(BATCHES[below(4)]),
        28 => Clear,
        29..32 => Sync,
        32..34 => Compact,
        34..37 => CompactSome,
        37 => Checkpoint,
        _ => Reopen,
    }
}

/// A remove of an absent key is refused, and no step.
fn random_history(seed: u64) -> Vec<Step> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut history, mut content) = (Vec::new(), Content::new());
    while history.len() < STEPS {
        let step = random_step(&mut random);
        if matches!(step, Remove(key) if !content.contains_key(KEYS[key])) {
            continue;
        }
        content = after(&content, step, history.len()).unwrap_or(content);
        history.push(step);
    }
    history
}

/// Loses power all through `history`; how often.
fn check(history: &[Step], seed: u64) -> Result<usize, String> {
    let route = ROUTES[usize::try_from(seed % 3).expect("less than three")];
    let run = Runner::new(route).run(history);
    let once = run.check(Effort { samples: 6, one_in: 1 })?;
    let twice = run.check_twice(Effort { samples: 2, one_in: 7 })?;
    let killed = run.check_killed(Effort { samples: 3, one_in: 5 })?;
    Ok(once + twice + killed)
}

/// The history without each step that it fails without, too.
fn shrunk(mut history: Vec<Step>, seed: u64) -> Vec<Step> {
    let mut at = 0;
    while at < history.len() {
        let mut shorter = history.clone();
        shorter.remove(at);
        let fails = std::panic::catch_unwind(|| check(&shorter, seed).is_err());
        // A step that cannot be done any more is another failure.
        if matches!(fails, Ok(true)) {
            history = shorter;
        } else {
            at += 1;
        }
    }
    history
}

#[test]
fn power_loss_at_any_moment_of_any_history_leaves_a_prefix() {
    let wanted = u64::try_from(from_environment("KVS_POWER_LOSSES", LOSSES)).unwrap();
    let is_long = wanted > u64::try_from(LOSSES).unwrap();
    let (lost, histories) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        // Relaxed: whoever takes a number has it alone; sums.
        while lost.load(Ordering::Relaxed) < wanted {
            let seed = histories.fetch_add(1, Ordering::Relaxed);
            let history = random_history(seed);
            let count = check(&history, seed).unwrap_or_else(|wrong| {
                let history = shrunk(history, seed);
                let wrong = check(&history, seed).err().unwrap_or(wrong);
                panic!("seed {seed}: {wrong}\nafter {history:?}");
            });
            let count = u64::try_from(count).unwrap();
            let before = lost.fetch_add(count, Ordering::Relaxed);
            if is_long && before / REPORT_EVERY != (before + count) / REPORT_EVERY {
                eprintln!("{} of {wanted} losses of power", before + count);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    // Relaxed: all threads have ended.
    let (lost, histories) = (lost.load(Ordering::Relaxed), histories.load(Ordering::Relaxed));
    say_losses(usize::try_from(lost).unwrap(), &format!("in {histories} random histories"));
    println!("\nsoak-power: {lost} losses of power in {histories} histories; failures: 0");
}
