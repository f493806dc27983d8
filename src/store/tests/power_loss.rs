//! Power fails at every moment of a history, and takes any part of what was not synced.
//!
//! Whatever is left must open, and hold the state after some write: not before the last one that
//! was durable, not after the last one that was begun. The same if power fails again while the
//! store is being opened, and if the process is killed first and power fails while what it left is
//! being recovered.
//!
//! That the tests would notice is tested in `syncs`: with any one sync left out they must fail.
//!
//! `KVS_POWER_STATES` is how many ways of losing power are tried at a moment with too many to try
//! all; there are more of them, by the same factor, during recovery.

use std::io::Write;

use super::power_histories::LOSSES;
use super::*;
use crate::store::disk::counting::{Asked, CountingDisk};
use crate::store::disk::modelled::{ModelledDisk, Moment};

/// With so many pending units or fewer, every subset is tried.
const EXHAUSTIVE_MAX: usize = 6;

/// What power leaves behind, so many times at least, in each of the tests here ...
const STATES_MIN: usize = 11_000;
const STATES_TWICE_MIN: usize = 22_000;
const STATES_KILLED_MIN: usize = 28_000;
/// ... and, with random histories, in every run of the tests.
const STATES_ALL_MIN: usize = 50_000;
const _: () = assert!(
    STATES_MIN + STATES_TWICE_MIN + STATES_KILLED_MIN + LOSSES >= STATES_ALL_MIN,
    "fewer states than the documents say"
);

/// How far a history had come at a moment: writes begun, writes that were durable, checkpoints.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    attempted: usize,
    durable: usize,
    copies: usize,
}

/// What a history leaves to be judged: the state after each write, those that copies were made of,
/// every moment, and the syncs that were asked for.
pub(super) struct Run {
    states: Vec<Content>,
    copied: Vec<usize>,
    notes: Vec<Note>,
    pub(super) moments: Vec<Moment>,
    pub(super) asked: Vec<Asked>,
}

pub(super) struct Runner {
    model: ModelledDisk,
    pub(super) counting: CountingDisk,
    disk: Arc<dyn Disk>,
    options: Options,
    states: Vec<Content>,
    copied: Vec<usize>,
    notes: Vec<Note>,
    /// Every write up to this one is durable.
    durable: usize,
}

impl Runner {
    pub(super) fn new(route: Route) -> Self {
        let model = ModelledDisk::default();
        model.record();
        let counting = CountingDisk::new(Arc::new(model.clone()));
        Self {
            disk: Arc::new(counting.clone()),
            model,
            counting,
            options: options(route),
            states: vec![Content::new()],
            copied: Vec::new(),
            notes: Vec::new(),
            durable: 0,
        }
    }

    fn open(&self) -> KvStore {
        self.counting.during("open");
        open(&self.disk, Path::new(DIR), &self.options).unwrap()
    }

    fn close(&mut self, store: &KvStore) {
        self.counting.during("close");
        store.close().unwrap();
        self.durable = self.states.len() - 1;
        self.note();
    }

    fn note(&mut self) {
        let attempted = self.states.len() - 1;
        self.model.note(self.notes.len());
        self.notes.push(Note { attempted, durable: self.durable, copies: self.copied.len() });
    }

    pub(super) fn run(mut self, history: &[Step]) -> Run {
        self.note();
        let mut store = self.open();
        for step in history {
            let last = self.states.len() - 1;
            if let Some(next) = after(&self.states[last], *step, last + 1) {
                self.counting.during("write");
                self.states.push(next);
                self.note();
                do_step(&store, *step, last + 1).unwrap();
                if self.options.durability == Durability::Sync {
                    self.durable = last + 1;
                }
            } else if let Step::Reopen = step {
                self.close(&store);
                store = self.open();
            } else {
                self.counting.during(match step {
                    Compact | CompactSome => "compact",
                    Checkpoint => "checkpoint",
                    _ => "write",
                });
                do_step(&store, *step, self.copied.len()).unwrap();
                match step {
                    Sync => self.durable = last,
                    Checkpoint => self.copied.push(last),
                    _ => {}
                }
            }
            self.note();
        }
        self.close(&store);
        let (moments, asked) = (self.model.moments(), self.counting.asked());
        Run { states: self.states, copied: self.copied, notes: self.notes, moments, asked }
    }
}

/// Calls `judge` with disks after losses of power at `moment`: all ways, or the two extremes and
/// `samples` others.
fn each_power_loss(
    moment: &Moment,
    samples: usize,
    random: &mut SmallRng,
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
        let one_in = if sample % 2 == 0 { 2 } else { u32::try_from(count).unwrap().min(8) };
        let kept: Vec<bool> = (0..count).map(|_| !random.random_ratio(1, one_in)).collect();
        judge(moment.after_power_loss(|unit| kept[unit]))?;
    }
    Ok(())
}

/// Opens the store in `dir` and compares what it holds with the states it may be in.
fn judge_in(disk: &Arc<dyn Disk>, dir: &Path, allowed: &[Content]) -> Result<KvStore, String> {
    let store = open(disk, dir, &options(Route::Tail));
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
    Err(format!("{} holds {:?}, and none of {allowed:?}", dir.display(), keys(&found)))
}

fn judge(disk: &Arc<dyn Disk>, allowed: &[Content]) -> Result<KvStore, String> {
    judge_in(disk, Path::new(DIR), allowed)
}

/// The moments of a run that are looked at: all, or one in so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) samples: usize,
    pub(super) one_in: usize,
}

impl Run {
    fn note(&self, moment: &Moment) -> Note {
        self.notes[moment.note]
    }

    /// The states the store may be in after power failed at `moment`.
    fn after_power_loss(&self, moment: &Moment) -> &[Content] {
        let Note { attempted, durable, .. } = self.note(moment);
        &self.states[durable..=attempted]
    }

    /// The states the store may be in after the process died at `moment`.
    fn after_kill(&self, moment: &Moment) -> &[Content] {
        let Note { attempted, durable, .. } = self.note(moment);
        &self.states[durable.max(attempted.saturating_sub(1))..=attempted]
    }

    fn chosen(&self, effort: Effort) -> impl Iterator<Item = (usize, &Moment)> {
        self.moments.iter().enumerate().step_by(effort.one_in)
    }

    /// The last copy that was made by then is what it is a copy of.
    fn judge_copy(&self, disk: &Arc<dyn Disk>, moment: &Moment) -> Result<(), String> {
        let Some(last) = self.note(moment).copies.checked_sub(1) else { return Ok(()) };
        let state = &self.states[self.copied[last]];
        judge_in(disk, &copy_dir(last), std::slice::from_ref(state)).map(drop)
    }

    /// Tries power losses at the moments chosen; what went wrong first, and at which moment.
    pub(super) fn check(&self, effort: Effort) -> Result<usize, String> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut count = 0;
        for (number, moment) in self.chosen(effort) {
            let allowed = self.after_power_loss(moment);
            each_power_loss(moment, effort.samples, &mut random, |disk| {
                count += 1;
                let disk: Arc<dyn Disk> = Arc::new(disk);
                judge(&disk, allowed).map(drop)?;
                self.judge_copy(&disk, moment)
            })
            .map_err(|wrong| format!("moment {number}: {wrong}"))?;
        }
        Ok(count)
    }

    /// Power fails again during the recovery from a power loss.
    pub(super) fn check_twice(&self, effort: Effort) -> Result<usize, String> {
        let mut random = SmallRng::seed_from_u64(2);
        let mut count = 0;
        for (number, moment) in self.chosen(effort) {
            let allowed = self.after_power_loss(moment);
            let kept = random.next_u64();
            let model = moment.after_power_loss(|unit| kept >> (unit % 64) & 1 == 1);
            model.record();
            let disk: Arc<dyn Disk> = Arc::new(model.clone());
            let failed = |wrong| format!("moment {number}: {wrong}");
            let store = judge(&disk, allowed).map_err(failed)?;
            for (second, moment) in model.moments().iter().enumerate() {
                each_power_loss(moment, effort.samples, &mut random, |disk| {
                    count += 1;
                    let disk: Arc<dyn Disk> = Arc::new(disk);
                    judge(&disk, allowed).map(drop)
                })
                .map_err(|wrong| format!("moment {number}, then {second}: {wrong}"))?;
            }
            drop(store);
        }
        Ok(count)
    }

    /// The process is killed at the moment of that number, the store is opened again on a disk that
    /// `prepare` has had, and power fails then; how many times, and the syncs that were asked for.
    pub(super) fn check_killed_at(
        &self,
        number: usize,
        samples: usize,
        prepare: &dyn Fn(&CountingDisk),
    ) -> Result<(usize, Vec<Asked>), String> {
        let mut random = SmallRng::seed_from_u64(u64::try_from(number).unwrap());
        let mut count = 0;
        let moment = &self.moments[number];
        let model = moment.after_kill();
        model.record();
        let counting = CountingDisk::new(Arc::new(model.clone()));
        counting.during("recovery");
        prepare(&counting);
        let disk: Arc<dyn Disk> = Arc::new(counting.clone());
        let failed = |wrong| format!("killed at {number}: {wrong}");
        let store = judge(&disk, self.after_kill(moment)).map_err(failed)?;
        let asked = counting.asked();
        let opened = content(&store).map_err(|error| error.to_string())?;
        let mut moments = model.moments();
        // What is written and synced from here on does not hang on what the killed process left.
        let mut written = opened.clone();
        written.insert(KEYS[0], value(0, 5));
        let outcome = store.set_bytes(KEYS[0].as_bytes(), &value(0, 5)).and_then(|()| store.sync());
        outcome.map_err(|error| error.to_string())?;
        let after_write = moment_of(&model);
        drop(store);
        let last = moments.pop().expect("the moment after opening");
        let mut lose = |moment: &Moment, allowed: &[Content]| {
            each_power_loss(moment, samples, &mut random, |disk| {
                count += 1;
                let disk: Arc<dyn Disk> = Arc::new(disk);
                judge(&disk, allowed).map(drop)
            })
        };
        for (second, during) in moments.iter().enumerate() {
            lose(during, self.after_power_loss(moment))
                .map_err(|wrong| format!("killed at {number}, then {second}: {wrong}"))?;
        }
        // What was recovered is durable when the store is open.
        lose(&last, std::slice::from_ref(&opened))
            .map_err(|wrong| format!("killed at {number}, opened, then: {wrong}"))?;
        lose(&after_write, std::slice::from_ref(&written))
            .map_err(|wrong| format!("killed at {number}, opened, written, then: {wrong}"))?;
        Ok((count, asked))
    }

    pub(super) fn check_killed(&self, effort: Effort) -> Result<usize, String> {
        let numbers = (0..self.moments.len()).step_by(effort.one_in);
        let counts = numbers.map(|number| self.check_killed_at(number, effort.samples, &|_| {}));
        counts.map(|checked| checked.map(|(count, _)| count)).sum()
    }
}

fn effort(samples: usize) -> Effort {
    Effort { samples: from_environment("KVS_POWER_STATES", samples), one_in: 1 }
}

/// Says how often power was lost, past what is kept of the output of a test that passes.
pub(super) fn say_losses(count: usize, what: &str) {
    let said = writeln!(std::io::stderr(), "power loss: {count} states, {what}");
    said.expect("an open stderr");
}

#[track_caller]
fn check_found(min: usize, what: &str, checked: impl IntoIterator<Item = Result<usize, String>>) {
    let counts: Result<Vec<_>, _> = checked.into_iter().collect();
    let count = counts.unwrap_or_else(|wrong| panic!("{wrong}")).into_iter().sum();
    say_losses(count, what);
    assert!(count >= min, "only {count} losses of power were tried");
}

#[test]
fn power_loss_leaves_a_prefix_with_everything_durable() {
    let each = ROUTES.into_iter().flat_map(|route| {
        [HISTORY, OVERWRITES, EXPIRING].map(|history| Runner::new(route).run(history))
    });
    let checked = each.map(|run| run.check(effort(5)));
    check_found(STATES_MIN, "at every moment of three histories on three routes", checked);
}

/// What is tried with two failures, at one moment in so many: each way that a log can go on behind
/// its last write.
const HISTORIES_TWICE: [(Route, &[Step], usize); 3] =
    [(Route::Tail, HISTORY, 1), (Route::Tail, EXPIRING, 1), (Route::Sync, HISTORY, 4)];

#[test]
fn power_loss_during_recovery_changes_nothing() {
    let checked = HISTORIES_TWICE.map(|(route, history, one_in)| {
        Runner::new(route).run(history).check_twice(Effort { one_in, ..effort(1) })
    });
    check_found(STATES_TWICE_MIN, "again while the store is being opened", checked);
}

#[test]
fn what_a_killed_process_left_is_durable_once_it_is_opened() {
    let checked = HISTORIES_TWICE.map(|(route, history, one_in)| {
        Runner::new(route).run(history).check_killed(Effort { one_in, ..effort(2) })
    });
    check_found(STATES_KILLED_MIN, "after the process was killed", checked);
}
