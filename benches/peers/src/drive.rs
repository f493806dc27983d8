//! The clock: threads that do one operation after the other, and how long it took.
//!
//! Reading the clock costs about as much as a tenth of a fast store's read, so only one operation
//! in [`SAMPLE_EVERY`] is timed by itself. The time *between* two timed ones is taken too, for
//! nothing, and the longest of all those is the **stall**: no operation took longer, and the
//! longest took at most the duration of a few ordinary ones less.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::data::{Random, random};
use crate::store::{Pair, Session, Store};

/// One operation in so many is timed by itself. A prime, so that the samples do not fall in step
/// with pages or blocks.
pub const SAMPLE_EVERY: u64 = 17;

/// What every thread of a measurement is to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub threads: usize,
    /// Calls of the operation, on each thread.
    pub calls: u64,
    /// How many keys a call is about.
    pub keys_per_call: u64,
    /// After this long, threads stop wherever they are.
    pub cap: Duration,
    pub sample_every: u64,
}

/// A thread's own things, made before the clock starts.
pub struct Worker<'a> {
    pub index: usize,
    pub session: Box<dyn Session + 'a>,
    pub random: Random,
    pub value: Vec<u8>,
    pub pairs: Vec<Pair>,
}

/// What the clock said.
#[derive(Debug)]
pub struct Timing {
    /// Keys, of all threads.
    pub ops: u64,
    /// From the first start to the last end.
    pub time: Duration,
    pub latencies: Histogram<u64>,
    pub stall: Duration,
    pub wrong: u64,
    pub cut_short: bool,
}

/// One thread's part.
struct Part {
    calls: u64,
    started: Instant,
    ended: Instant,
    latencies: Histogram<u64>,
    stall: Duration,
    wrong: u64,
    cut_short: bool,
}

/// Latencies are told to three figures.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Calls `operation` as `plan` says: with the thread's worker and the number of the call. It
/// returns whether what it read was right.
///
/// # Errors
///
/// The first one of any thread; the others finish their part.
pub fn drive(
    store: &dyn Store,
    plan: Plan,
    value_bytes: usize,
    operation: impl Fn(&mut Worker, u64) -> Result<bool> + Sync,
) -> Result<Timing> {
    let line = Barrier::new(plan.threads);
    let work = |index: usize| {
        let session = store.session();
        // Whatever happened, the others wait here.
        line.wait();
        let mut worker = Worker {
            index,
            session: session?,
            random: random(1000 + index as u64),
            value: vec![0; value_bytes],
            pairs: Vec::new(),
        };
        run_part(plan, &mut worker, &operation)
    };
    let parts: Result<Vec<Part>> = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..plan.threads).map(|index| scope.spawn(move || work(index))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("a thread panicked"));
        joined.collect()
    });
    Ok(sum(&parts?, plan.keys_per_call))
}

fn run_part(
    plan: Plan,
    worker: &mut Worker,
    operation: &impl Fn(&mut Worker, u64) -> Result<bool>,
) -> Result<Part> {
    let mut latencies = histogram();
    let mut stall = Duration::ZERO;
    let (mut calls, mut wrong, mut cut_short) = (0, 0, false);
    let started = Instant::now();
    let mut last = started;
    while calls < plan.calls && !cut_short {
        let is_timed = calls % plan.sample_every == plan.sample_every - 1;
        if is_timed {
            let before = Instant::now();
            wrong += u64::from(!operation(worker, calls)?);
            let after = Instant::now();
            latencies.saturating_record(nanoseconds(after - before).max(1));
            stall = stall.max(before - last).max(after - before);
            cut_short = after - started > plan.cap;
            last = after;
        } else {
            wrong += u64::from(!operation(worker, calls)?);
        }
        calls += 1;
    }
    let ended = Instant::now();
    stall = stall.max(ended - last);
    let cut_short = calls < plan.calls;
    Ok(Part { calls, started, ended, latencies, stall, wrong, cut_short })
}

fn sum(parts: &[Part], keys_per_call: u64) -> Timing {
    let mut latencies = histogram();
    for part in parts {
        latencies.add(&part.latencies).expect("all have the same bounds");
    }
    let started = parts.iter().map(|part| part.started).min();
    let ended = parts.iter().map(|part| part.ended).max();
    Timing {
        ops: parts.iter().map(|part| part.calls).sum::<u64>() * keys_per_call,
        time: started.zip(ended).map_or(Duration::ZERO, |(started, ended)| ended - started),
        latencies,
        stall: parts.iter().map(|part| part.stall).max().unwrap_or_default(),
        wrong: parts.iter().map(|part| part.wrong).sum(),
        cut_short: parts.iter().any(|part| part.cut_short),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::Key;

    /// A store that holds nothing: what is tested is the clock.
    struct Nothing;

    impl Store for Nothing {
        fn session(&self) -> Result<Box<dyn Session + '_>> {
            Ok(Box::new(Self))
        }
        fn sync(&self) -> Result<()> {
            Ok(())
        }
        fn close(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    impl Session for Nothing {
        fn set(&mut self, _: &Key, _: &[u8]) -> Result<()> {
            Ok(())
        }
        fn set_many(&mut self, _: &[Pair]) -> Result<()> {
            Ok(())
        }
        fn get(&mut self, _: &Key, _: &mut dyn FnMut(&[u8])) -> Result<bool> {
            Ok(false)
        }
        fn remove(&mut self, _: &Key) -> Result<()> {
            Ok(())
        }
        fn scan(&mut self, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
            Ok(())
        }
    }

    const PLAN: Plan = Plan {
        threads: 1,
        calls: 1000,
        keys_per_call: 1,
        cap: Duration::from_secs(60),
        sample_every: SAMPLE_EVERY,
    };

    #[test]
    fn every_thread_makes_every_call_once() {
        let calls = AtomicU64::new(0);
        let plan = Plan { threads: 3, keys_per_call: 100, ..PLAN };
        let timing = drive(&Nothing, plan, 100, |worker, call| {
            assert!(worker.index < 3 && call < 1000 && worker.value.len() == 100);
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(call % 10 != 0)
        });
        let timing = timing.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 3000);
        assert_eq!((timing.ops, timing.wrong, timing.cut_short), (300_000, 300, false));
        assert_eq!(timing.latencies.len(), 3 * (1000 / SAMPLE_EVERY));
    }

    #[test]
    fn a_stall_is_seen_wherever_it_is() {
        for slow in [0, 3, 16, 17, 500, 999] {
            let timing = drive(&Nothing, PLAN, 100, |_, call| {
                if call == slow {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(true)
            });
            let stall = timing.unwrap().stall;
            assert!(stall >= Duration::from_millis(20), "call {slow}: {stall:?}");
        }
    }

    #[test]
    fn the_cap_ends_it_and_says_so() {
        let plan = Plan { cap: Duration::from_millis(30), ..PLAN };
        let timing = drive(&Nothing, plan, 100, |_, _| {
            thread::sleep(Duration::from_millis(1));
            Ok(true)
        });
        let timing = timing.unwrap();
        assert!(timing.cut_short && timing.ops < 1000, "{}", timing.ops);
    }

    #[test]
    fn an_error_of_one_thread_is_returned() {
        let plan = Plan { threads: 2, ..PLAN };
        let timing = drive(&Nothing, plan, 100, |worker, call| {
            anyhow::ensure!(worker.index == 0 || call < 10, "call {call} failed");
            Ok(true)
        });
        assert_eq!(timing.unwrap_err().to_string(), "call 10 failed");
    }
}
