//! One measurement, in a process that was started for it.
//!
//! Opening, warming up, syncing, settling, checking and closing are outside the clock, and told
//! beside it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;

use crate::data::{ABSENT, Keys, Order, Values, random, zipf};
use crate::drive::{Plan, SAMPLE_EVERY, Timing, Worker, drive};
use crate::machine;
use crate::outcome::Outcome;
use crate::store::{Durability, Key, OpenOptions, Pair, Result as StoreResult, Session, Store};
use crate::stores;
use crate::workload::{BATCH_LEN, Kind, Workload};

/// What the parent process asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct Spec {
    #[arg(long)]
    pub store: String,
    #[arg(long)]
    pub workload: String,
    #[arg(long)]
    pub round: u32,
    /// How many keys the store holds, or shall hold.
    #[arg(long)]
    pub keys: u64,
    #[arg(long)]
    pub value_bytes: usize,
    /// Where the store is; it exists.
    #[arg(long)]
    pub dir: PathBuf,
    /// After so many seconds a measurement is cut short.
    #[arg(long)]
    pub cap_seconds: f64,
}

const SEED: u64 = 0x6b76_7321;

/// Versions of values, by who writes them. A fill writes the first.
const FILLED: u64 = 1;
const MIXED: u64 = 2;
const OVERWRITTEN: u64 = 3;

/// Keys in a batch that is written outside the clock.
const LOAD_BATCH_LEN: u64 = 1000;
/// Reads against the clock, at most.
const READS_MAX: u64 = 1_000_000;
/// Keys of a synced fill by one thread, at most; several threads together write four times more.
const SYNCED_MAX: u64 = 5_000;
/// Keys that are looked at after a workload that writes.
const CHECKED_MAX: u64 = 20_000;
/// A warm-up ends after this long, wherever it is.
const WARM_UP_MAX: Duration = Duration::from_secs(10);

/// Measures `workload` on the store that `spec` names.
///
/// # Errors
///
/// What the store refuses. Wrong answers are counted instead.
pub fn measure(spec: &Spec, workload: &Workload) -> Result<Outcome> {
    let entry = stores::named(&spec.store)?;
    let is_synced = workload.kind == Kind::FillSync;
    let durability = if is_synced { Durability::Sync } else { Durability::Os };
    let options = OpenOptions { dir: &spec.dir, durability, keys: spec.keys };
    let bench = Bench::new(spec, workload);

    let before = Instant::now();
    let store = (entry.open)(&options).context("opening")?;
    if workload.kind == Kind::Reopen {
        let found = bench.check(&mut *store.session()?, spec.keys / 2, |_| true)?;
        let timing = Timing::once(before.elapsed(), !found);
        return bench.finish(store, &timing, before.elapsed(), Duration::ZERO, 0.0);
    }
    let opened = before.elapsed();
    if workload.kind.needs_data() {
        bench.warm_up(&*store)?;
    }

    let (cpu, busy, clock) = (machine::process_time(), machine::machine_time(), Instant::now());
    let mut timing = bench.run(&*store, entry.ordered)?;
    let cpu = machine::process_time() - cpu;
    let others = (machine::machine_time() - busy).saturating_sub(cpu);
    // The kernel counts in ticks: of a short while it says nothing.
    let is_told = clock.elapsed() > Duration::from_millis(250);
    let other_cores =
        if is_told { others.as_secs_f64() / clock.elapsed().as_secs_f64() } else { 0.0 };

    if workload.kind.makes_data() {
        bench.load(&mut *store.session()?, timing.ops)?;
    }
    timing.wrong += bench.check_written(&*store, &timing)?;
    bench.finish(store, &timing, opened, cpu, other_cores)
}

impl Timing {
    /// Of something that is done once.
    fn once(time: Duration, is_wrong: bool) -> Self {
        let latencies = hdrhistogram::Histogram::new(3).expect("three figures are allowed");
        let wrong = u64::from(is_wrong);
        Self { ops: 1, time, latencies, stall: Duration::ZERO, wrong, cut_short: false }
    }
}

struct Bench<'a> {
    spec: &'a Spec,
    workload: &'a Workload,
    keys: Keys,
    values: Values,
}

impl<'a> Bench<'a> {
    fn new(spec: &'a Spec, workload: &'a Workload) -> Self {
        let (keys, values) = (Keys::new(SEED), Values::new(spec.value_bytes));
        Self { spec, workload, keys, values }
    }

    /// A plan for `keys` keys, shared out among the threads.
    fn plan(&self, keys: u64) -> Plan {
        let threads = self.workload.threads;
        let mut seconds = self.spec.cap_seconds;
        if self.workload.kind == Kind::Fill {
            seconds *= self.workload.data.fill_cap_factor();
        }
        Plan {
            threads,
            calls: keys / threads as u64,
            keys_per_call: 1,
            cap: Duration::from_secs_f64(seconds),
            sample_every: SAMPLE_EVERY,
        }
    }

    fn run(&self, store: &dyn Store, ordered: bool) -> Result<Timing> {
        let keys = self.spec.keys;
        match self.workload.kind {
            Kind::Load => Ok(Timing { ops: 0, ..Timing::once(Duration::ZERO, false) }),
            Kind::Fill => self.set_each(store, self.plan(keys), FILLED, |_, call| call),
            Kind::FillBatch => self.set_batches(store),
            Kind::FillSync => {
                let threads = self.workload.threads as u64;
                let synced_max = if threads > 1 { SYNCED_MAX * 4 } else { SYNCED_MAX };
                let plan = Plan { sample_every: 1, ..self.plan(keys.min(synced_max)) };
                self.set_each(store, plan, FILLED, |thread, call| thread * plan.calls + call)
            }
            Kind::Overwrite => {
                let order = self.order();
                self.set_each(store, self.plan(keys), OVERWRITTEN, |_, call| order.at(call))
            }
            Kind::Delete => {
                let order = self.order();
                self.drive(store, self.plan(keys), |worker, call| {
                    worker.session.remove(&self.keys.key(order.at(call)))?;
                    Ok(true)
                })
            }
            Kind::Read => self.read(store, 0, |session, key| self.get(session, key)),
            Kind::ReadMissing => {
                self.read(store, ABSENT, |session, key| Ok(!session.get(key, &mut |_| {})?))
            }
            Kind::Mixed { writes_percent } => self.mixed(store, writes_percent),
            Kind::Scan => self.walk(store, ordered, |session, see| session.scan(see)),
            Kind::Iterate => self.walk(store, false, |session, see| session.iterate(see)),
            Kind::Reopen => unreachable!("opening is measured before there is a store"),
        }
    }

    fn drive(
        &self,
        store: &dyn Store,
        plan: Plan,
        operation: impl Fn(&mut Worker, u64) -> Result<bool> + Sync,
    ) -> Result<Timing> {
        drive(store, plan, self.spec.value_bytes, operation)
    }

    fn order(&self) -> Order {
        Order::new(self.spec.keys, 0x6f72_6465)
    }

    /// Calls `read` with keys that are drawn from those of the indices from `first` on. They are
    /// made before the clock starts: a processor goes ahead from one read to the next, as far as
    /// it has room for the instructions between.
    fn read(
        &self,
        store: &dyn Store,
        first: u64,
        read: impl Fn(&mut dyn Session, &Key) -> Result<bool> + Sync,
    ) -> Result<Timing> {
        let plan = self.plan(self.spec.keys.min(READS_MAX));
        let draw = |thread| {
            let mut random = random(1000 + thread);
            let mut key = || self.keys.key(first + random.random_range(0..self.spec.keys));
            (0..plan.calls).map(|_| key()).collect::<Vec<_>>()
        };
        let drawn: Vec<_> = (0..plan.threads as u64).map(draw).collect();
        self.drive(store, plan, |worker, call| {
            let place = usize::try_from(call).expect("drawn in memory");
            read(&mut *worker.session, &drawn[worker.index][place])
        })
    }

    /// Reads a key that is there; whether its value is right.
    #[inline]
    fn get(&self, session: &mut dyn Session, key: &Key) -> Result<bool> {
        let mut is_right = false;
        session.get(key, &mut |value| is_right = self.values.is_plausible(key, value))?;
        Ok(is_right)
    }

    /// Sets keys one by one: for each call, that of the index that thread and call give.
    fn set_each(
        &self,
        store: &dyn Store,
        plan: Plan,
        version: u64,
        index: impl Fn(u64, u64) -> u64 + Sync,
    ) -> Result<Timing> {
        self.drive(store, plan, |worker, call| {
            let key = self.keys.key(index(worker.index as u64, call));
            self.values.write(&key, version, &mut worker.value);
            worker.session.set(&key, &worker.value)?;
            Ok(true)
        })
    }

    fn set_batches(&self, store: &dyn Store) -> Result<Timing> {
        let plan = self.plan(self.spec.keys);
        let calls = plan.calls / BATCH_LEN;
        ensure!(calls > 0, "a batch has {BATCH_LEN} keys; ask for more");
        let plan = Plan { calls, keys_per_call: BATCH_LEN, sample_every: 1, ..plan };
        self.drive(store, plan, |worker, call| {
            self.fill_pairs(&mut worker.pairs, call * BATCH_LEN, BATCH_LEN);
            worker.session.set_many(&worker.pairs)?;
            Ok(true)
        })
    }

    /// Makes `pairs` those of the `len` keys from `start` on, in memory that it has had before.
    fn fill_pairs(&self, pairs: &mut Vec<Pair>, start: u64, len: u64) {
        pairs.resize_with(usize::try_from(len).expect("a batch fits"), Pair::default);
        for (index, pair) in (start..).zip(pairs) {
            pair.key = self.keys.key(index);
            pair.value.resize(self.spec.value_bytes, 0);
            self.values.write(&pair.key, FILLED, &mut pair.value);
        }
    }

    fn mixed(&self, store: &dyn Store, writes_percent: u32) -> Result<Timing> {
        let plan = self.plan(self.spec.keys.min(READS_MAX));
        let draw = |thread| zipf(self.spec.keys, plan.calls, 40 + thread);
        let drawn: Vec<_> = (0..plan.threads as u64).map(draw).collect();
        self.drive(store, plan, |worker, call| {
            let place = usize::try_from(call).expect("drawn in memory");
            let index = u64::from(drawn[worker.index][place]);
            if worker.random.random_range(0..100) >= writes_percent {
                return self.get(&mut *worker.session, &self.keys.key(index));
            }
            let key = self.keys.key(index);
            self.values.write(&key, MIXED, &mut worker.value);
            worker.session.set(&key, &worker.value)?;
            Ok(true)
        })
    }

    /// Sees every pair once; each must be right, all must be there, in order if `ordered`.
    fn walk(
        &self,
        store: &dyn Store,
        ordered: bool,
        walk: impl FnOnce(&mut dyn Session, &mut dyn FnMut(&[u8], &[u8])) -> StoreResult<()>,
    ) -> Result<Timing> {
        let mut session = store.session()?;
        let (mut seen, mut wrong) = (0, 0);
        let mut last = Vec::with_capacity(16);
        let before = Instant::now();
        walk(&mut *session, &mut |key, value| {
            let is_next = !ordered || last.as_slice() < key;
            wrong += u64::from(!is_next || !self.values.is_plausible(key, value));
            last.clear();
            last.extend_from_slice(key);
            seen += 1;
        })?;
        let time = before.elapsed();
        wrong += self.spec.keys.abs_diff(seen);
        Ok(Timing { ops: seen, time, wrong, ..Timing::once(time, false) })
    }

    /// Reads every key once, in an order of its own, and looks at every byte: fills the caches,
    /// the kernel's and the store's own.
    fn warm_up(&self, store: &dyn Store) -> Result<()> {
        let mut session = store.session()?;
        let order = Order::new(self.spec.keys, 0x7761_726d);
        let before = Instant::now();
        for place in 0..self.spec.keys {
            let index = order.at(place);
            let is_right = self.check(&mut *session, index, |_| true)?;
            ensure!(is_right, "key {index} is missing or wrong before the measurement");
            if place % 1024 == 0 && before.elapsed() > WARM_UP_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Whether the key of `index` has a right value, of a version that `is_wanted`.
    fn check(
        &self,
        session: &mut dyn Session,
        index: u64,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Result<bool> {
        let key = self.keys.key(index);
        let mut version = None;
        session.get(&key, &mut |value| version = self.values.version(&key, value))?;
        Ok(version.is_some_and(is_wanted))
    }

    /// Sets the keys from `start` on in large batches.
    fn load(&self, session: &mut dyn Session, start: u64) -> Result<()> {
        let mut pairs = Vec::new();
        let mut start = start;
        while start < self.spec.keys {
            let len = LOAD_BATCH_LEN.min(self.spec.keys - start);
            self.fill_pairs(&mut pairs, start, len);
            session.set_many(&pairs).context("loading")?;
            start += len;
        }
        Ok(())
    }

    /// How many of some keys do not hold what the workload wrote there.
    fn check_written(&self, store: &dyn Store, timing: &Timing) -> Result<u64> {
        let done = match self.workload.kind {
            Kind::Load | Kind::Fill => self.spec.keys,
            _ => timing.ops,
        };
        let order = self.order();
        let mut session = store.session()?;
        let mut wrong = 0;
        let stride = (done / CHECKED_MAX).max(1);
        for place in (0..done).step_by(usize::try_from(stride)?) {
            let is_right = match self.workload.kind {
                Kind::Delete => !session.get(&self.keys.key(order.at(place)), &mut |_| {})?,
                Kind::Overwrite => {
                    self.check(&mut *session, order.at(place), |v| v == OVERWRITTEN)?
                }
                Kind::Load | Kind::Fill | Kind::FillBatch => {
                    self.check(&mut *session, place, |v| v == FILLED)?
                }
                Kind::FillSync if timing.cut_short => {
                    // Which threads came how far is not known; the first has written its first.
                    place > 0 || self.check(&mut *session, 0, |v| v == FILLED)?
                }
                Kind::FillSync => self.check(&mut *session, place, |v| v == FILLED)?,
                Kind::Mixed { .. } => {
                    self.check(&mut *session, place % self.spec.keys, |v| v <= MIXED)?
                }
                _ => true,
            };
            wrong += u64::from(!is_right);
        }
        Ok(wrong)
    }

    /// Syncs and closes, and writes down what was found.
    fn finish(
        &self,
        store: Box<dyn Store>,
        timing: &Timing,
        opened: Duration,
        cpu: Duration,
        other_cores: f64,
    ) -> Result<Outcome> {
        let resident_bytes_max = machine::resident_bytes_max();
        let anonymous_bytes = machine::anonymous_bytes();
        let mut synced = Duration::ZERO;
        let mut settled = Duration::ZERO;
        if self.workload.kind.writes() {
            let before = Instant::now();
            store.sync().context("syncing")?;
            synced = before.elapsed();
            settled = machine::settle();
        }
        let before = Instant::now();
        store.close().context("closing")?;
        let closed = before.elapsed();
        let quantile = |q| timing.latencies.value_at_quantile(q);
        Ok(Outcome {
            store: self.spec.store.clone(),
            workload: self.workload.name.to_owned(),
            round: self.spec.round,
            threads: self.workload.threads,
            keys: self.spec.keys,
            value_bytes: self.spec.value_bytes,
            ops: timing.ops,
            seconds: timing.time.as_secs_f64(),
            cut_short: timing.cut_short,
            wrong: timing.wrong,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            stall_ns: u64::try_from(timing.stall.as_nanos()).unwrap_or(u64::MAX),
            open_seconds: opened.as_secs_f64(),
            sync_seconds: synced.as_secs_f64(),
            settle_seconds: settled.as_secs_f64(),
            close_seconds: closed.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            other_cores,
            disk_bytes: machine::disk_bytes(&self.spec.dir),
            resident_bytes_max,
            anonymous_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{self, DataSet};

    const KEYS: u64 = 1000;

    fn measured(store: &str, name: &str, dir: &std::path::Path) -> Result<Outcome> {
        let spec = Spec {
            store: store.to_owned(),
            workload: name.to_owned(),
            round: 1,
            keys: KEYS,
            value_bytes: 100,
            dir: dir.to_owned(),
            cap_seconds: 30.0,
        };
        measure(&spec, &workload::named(name)?)
    }

    #[test]
    fn every_workload_does_its_work_on_every_store() {
        for entry in stores::all().iter().filter(|entry| entry.only.is_none()) {
            let dir = tempfile::tempdir().unwrap();
            for workload in workload::ALL.iter().filter(|w| w.data == DataSet::Main) {
                if workload.kind == Kind::Scan && !entry.ordered {
                    continue;
                }
                let own = tempfile::tempdir().unwrap();
                let dir = if workload.kind.has_own_dir() { own.path() } else { dir.path() };
                let outcome = measured(entry.name, workload.name, dir).unwrap();
                let what = format!("{} {}: {outcome:?}", entry.name, workload.name);
                // Sixteen threads share a thousand keys, and leave some.
                let ops = if workload.kind == Kind::Reopen { 1 } else { KEYS - KEYS % 16 };
                assert!(outcome.ops >= ops && outcome.ops <= KEYS, "{what}");
                assert!(outcome.wrong == 0 && !outcome.cut_short, "{what}");
                assert!(outcome.seconds > 0.0 && outcome.disk_bytes > 0, "{what}");
            }
        }
    }

    #[test]
    fn data_that_is_not_whole_is_noticed() {
        for entry in stores::all().iter().filter(|entry| entry.only.is_none()) {
            let dir = tempfile::tempdir().unwrap();
            measured(entry.name, "load", dir.path()).unwrap();
            measured(entry.name, "delete", dir.path()).unwrap();
            let error = measured(entry.name, "readrandom", dir.path()).unwrap_err();
            assert!(error.to_string().ends_with("before the measurement"), "{error:#}");
            assert_eq!(measured(entry.name, "reopen", dir.path()).unwrap().wrong, 1);
        }
    }
}
