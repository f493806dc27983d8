//! Power fails at every moment of a history, and takes any part of what was not synced.
//!
//! Whatever is left must open, and hold the state after some write: not before the last one that
//! was durable, not after the last one that was begun. The same if power fails again while the
//! store is being opened, and if the process is killed first and power fails while what it left is
//! being recovered.
//!
//! That the tests would notice is tested too: with any one sync left out they must fail.
//!
//! `KVS_POWER_STATES` is how many ways of losing power are tried at a moment with too many to try
//! all; there are more of them, by the same factor, during recovery.

use super::*;
use crate::store::disk::modelled::{ModelledDisk, Moment, SyncKind};

/// With so many pending units or fewer, every subset is tried.
const EXHAUSTIVE_MAX: usize = 6;

/// The phases of a history, to tell syncs of the same kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Write,
    Compact,
    Close,
}

/// A sync to be left out: the n-th of its kind in every phase of that sort, or all of them.
#[derive(Debug, Clone, Copy)]
struct Omission {
    phase: Phase,
    kind: SyncKind,
    pass: Option<u64>,
}

/// What a history leaves to be judged: the state after each write, and every moment.
struct Run {
    states: Vec<Content>,
    moments: Vec<Moment>,
    omitted: u64,
}

struct Runner {
    model: ModelledDisk,
    disk: Arc<dyn Disk>,
    options: Options,
    omission: Option<Omission>,
    states: Vec<Content>,
    /// Every write up to this one is durable.
    durable: usize,
}

impl Runner {
    fn new(route: Route, omission: Option<Omission>) -> Self {
        let model = ModelledDisk::default();
        model.record();
        Self {
            disk: Arc::new(model.clone()),
            model,
            options: options(route),
            omission,
            states: vec![Content::new()],
            durable: 0,
        }
    }

    /// Does `work` with the syncs of `phase` left out that are to be.
    fn phase<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        if let Some(omission) = self.omission.filter(|omission| omission.phase == phase) {
            self.model.ignore(omission.kind, omission.pass);
        }
        let done = work();
        self.model.ignore_no_more();
        done
    }

    fn open(&self) -> KvStore {
        self.phase(Phase::Open, || open(&self.disk, Path::new(DIR), &self.options).unwrap())
    }

    fn note(&mut self, attempted: usize) {
        self.model.note((attempted, self.durable));
    }

    fn run(mut self, history: &[Step]) -> Run {
        let mut store = self.open();
        for step in history {
            let last = self.states.len() - 1;
            if let Some(next) = after(&self.states[last], *step, last + 1) {
                self.states.push(next);
                self.note(last + 1);
                self.phase(Phase::Write, || do_step(&store, *step, last + 1)).unwrap();
                if self.options.durability == Durability::Sync {
                    self.durable = last + 1;
                }
            } else if let Step::Reopen = step {
                self.phase(Phase::Close, || store.close()).unwrap();
                self.durable = last;
                self.note(last);
                store = self.open();
            } else {
                let compacts = matches!(step, Compact | CompactSome);
                let phase = if compacts { Phase::Compact } else { Phase::Write };
                self.phase(phase, || do_step(&store, *step, 0)).unwrap();
                if let Sync = step {
                    self.durable = last;
                }
            }
            self.note(self.states.len() - 1);
        }
        self.phase(Phase::Close, || store.close()).unwrap();
        self.durable = self.states.len() - 1;
        self.note(self.durable);
        let (moments, omitted) = (self.model.moments(), self.model.ignored_count());
        Run { states: self.states, moments, omitted }
    }
}

/// Calls `judge` with disks after losses of power at `moment`: all ways, or the two extremes and
/// `samples` others.
fn each_power_loss(
    moment: &Moment,
    samples: usize,
    random: &mut Random,
    mut judge: impl FnMut(ModelledDisk) -> Result<(), String>,
) -> Result<(), String> {
    let count = moment.pending_count();
    if count <= EXHAUSTIVE_MAX && 1 << count <= samples {
        return (0..1_u64 << count)
            .try_for_each(|kept| judge(moment.after_power_loss(|unit| kept >> unit & 1 == 1)));
    }
    judge(moment.after_power_loss(|_| false))?;
    judge(moment.after_power_loss(|_| true))?;
    for sample in 0..samples {
        // Half of them lose few units, so that much is there that depends on what is not.
        let one_in = if sample % 2 == 0 { 2 } else { u64::try_from(count).unwrap().min(8) };
        let kept: Vec<bool> = (0..count).map(|_| !random.next().is_multiple_of(one_in)).collect();
        judge(moment.after_power_loss(|unit| kept[unit]))?;
    }
    Ok(())
}

/// Opens the store on `model` and compares what it holds with the states it may be in.
fn judge(model: &ModelledDisk, allowed: &[Content]) -> Result<KvStore, String> {
    let disk: Arc<dyn Disk> = Arc::new(model.clone());
    let store = open(&disk, Path::new(DIR), &options(Route::Tail));
    let store = store.map_err(|error| format!("does not open: {error}"))?;
    let found = content(&store).map_err(|error| format!("does not read: {error}"))?;
    if allowed.contains(&found) {
        return Ok(store);
    }
    let keys = |content: &Content| -> Vec<(&str, String)> {
        let stamp =
            |value: &[u8]| value.iter().take_while(|byte| **byte != b':').copied().collect();
        let number = |value: &Vec<u8>| String::from_utf8(stamp(value)).unwrap_or_default();
        content.iter().map(|(key, value)| (*key, number(value))).collect()
    };
    let allowed: Vec<_> = allowed.iter().map(keys).collect();
    Err(format!("holds {:?}, and none of {allowed:?}", keys(&found)))
}

impl Run {
    /// The states the store may be in after power failed at `moment`.
    fn after_power_loss(&self, moment: &Moment) -> &[Content] {
        let (attempted, durable) = moment.note;
        &self.states[durable..=attempted]
    }

    /// The states the store may be in after the process died at `moment`.
    fn after_kill(&self, moment: &Moment) -> &[Content] {
        let (attempted, durable) = moment.note;
        &self.states[durable.max(attempted.saturating_sub(1))..=attempted]
    }

    /// Tries power losses at all moments; what went wrong first, and at which moment.
    fn check(&self, samples: usize) -> Result<usize, String> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut count = 0;
        for (number, moment) in self.moments.iter().enumerate() {
            let allowed = self.after_power_loss(moment);
            each_power_loss(moment, samples, &mut random, |disk| {
                count += 1;
                judge(&disk, allowed).map(drop)
            })
            .map_err(|wrong| format!("moment {number}: {wrong}"))?;
        }
        Ok(count)
    }

    /// Power fails again during the recovery from a power loss.
    fn check_twice(&self, samples: usize) -> Result<usize, String> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut count = 0;
        for (number, moment) in self.moments.iter().enumerate() {
            let allowed = self.after_power_loss(moment);
            let kept = random.next();
            let disk = moment.after_power_loss(|unit| kept >> (unit % 64) & 1 == 1);
            disk.record();
            let failed = |wrong| format!("moment {number}: {wrong}");
            let store = judge(&disk, allowed).map_err(failed)?;
            for (second, moment) in disk.moments().iter().enumerate() {
                each_power_loss(moment, samples, &mut random, |disk| {
                    count += 1;
                    judge(&disk, allowed).map(drop)
                })
                .map_err(|wrong| format!("moment {number}, then {second}: {wrong}"))?;
            }
            drop(store);
        }
        Ok(count)
    }

    /// The process is killed, the store is opened again with `omission`, and power fails then.
    fn check_killed(
        &self,
        samples: usize,
        omission: Option<(SyncKind, Option<u64>)>,
    ) -> Result<usize, String> {
        let mut random = Random(0xd1b5_4a32_d192_ed03);
        let mut count = 0;
        for (number, moment) in self.moments.iter().enumerate() {
            let disk = moment.after_kill();
            disk.record();
            if let Some((kind, pass)) = omission {
                disk.ignore(kind, pass);
            }
            let failed = |wrong| format!("killed at {number}: {wrong}");
            let store = judge(&disk, self.after_kill(moment)).map_err(failed)?;
            let opened = content(&store).map_err(|error| error.to_string())?;
            let mut moments = disk.moments();
            drop(store);
            let last = moments.pop().expect("the moment after opening");
            for (second, during) in moments.iter().enumerate() {
                let allowed = self.after_power_loss(moment);
                each_power_loss(during, samples, &mut random, |disk| {
                    count += 1;
                    judge(&disk, allowed).map(drop)
                })
                .map_err(|wrong| format!("killed at {number}, then {second}: {wrong}"))?;
            }
            // What was recovered is durable when the store is open.
            each_power_loss(&last, samples, &mut random, |disk| {
                count += 1;
                judge(&disk, std::slice::from_ref(&opened)).map(drop)
            })
            .map_err(|wrong| format!("killed at {number}, opened, then: {wrong}"))?;
        }
        Ok(count)
    }
}

fn samples(default: usize) -> usize {
    from_environment("KVS_POWER_STATES", default)
}

#[track_caller]
fn check_found(checked: Result<usize, String>) {
    match checked {
        Ok(count) => assert!(count > 500, "only {count} losses of power were tried"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn power_loss_leaves_a_prefix_with_everything_durable() {
    for route in ROUTES {
        for history in [HISTORY, OVERWRITES, EXPIRING] {
            check_found(Runner::new(route, None).run(history).check(samples(8)));
        }
    }
}

#[test]
fn power_loss_during_recovery_changes_nothing() {
    for history in [HISTORY, EXPIRING] {
        let run = Runner::new(Route::Tail, None).run(history);
        check_found(run.check_twice(samples(2)));
    }
}

#[test]
fn what_a_killed_process_left_is_durable_once_it_is_opened() {
    for history in [HISTORY, EXPIRING] {
        let run = Runner::new(Route::Tail, None).run(history);
        check_found(run.check_killed(samples(4), None));
    }
}

/// Each row is a sync in the code. With it left out, some loss of power must do harm.
#[test]
fn every_sync_is_needed() {
    use Phase::{Close, Compact, Open, Write};
    use SyncKind::{Copies, Dir, Log, Manifest};
    for (phase, kind, pass) in [
        // The first manifest, and its name.
        (Open, Manifest, Some(0)),
        (Open, Dir, Some(0)),
        // The log, and its name, when a write or `sync` asks for it.
        (Write, Log, None),
        (Write, Dir, None),
        // Rule 3: what made records dead; then the copies, their names, the manifest, its name.
        (Compact, Log, None),
        (Compact, Copies, None),
        (Compact, Dir, Some(0)),
        (Compact, Manifest, Some(0)),
        (Compact, Dir, Some(1)),
        (Compact, Dir, Some(2)),
        (Close, Log, None),
        (Close, Manifest, Some(0)),
        (Close, Dir, Some(0)),
        (Close, Dir, Some(1)),
    ] {
        let omission = Omission { phase, kind, pass };
        let mut omitted = 0;
        let harmed = [HISTORY, OVERWRITES].iter().any(|history| {
            ROUTES.iter().any(|route| {
                let run = Runner::new(*route, Some(omission)).run(history);
                omitted += run.omitted;
                run.check(samples(8)).is_err()
            })
        });
        assert!(omitted > 0, "{omission:?}: there is no such sync");
        assert!(harmed, "{omission:?}: nothing depends on it");
    }
}

/// The same for the syncs of an open that finds what a killed process left.
#[test]
fn every_sync_of_recovery_is_needed() {
    use SyncKind::{Dir, Log, Manifest};
    let run = Runner::new(Route::Tail, None).run(HISTORY);
    for omission in
        [(Log, None), (Manifest, Some(0)), (Manifest, Some(1)), (Dir, Some(0)), (Dir, Some(1))]
    {
        let checked = run.check_killed(samples(4), Some(omission));
        assert!(checked.is_err(), "{omission:?}: nothing depends on it");
    }
}
