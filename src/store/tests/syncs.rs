//! Every sync in the code is needed: without it, some loss of power does harm.
//!
//! Which syncs there are is read from the sources, so that a new one is judged like the others: a
//! history must come by it, and must be harmed if it is left out. Which line asks for a sync is
//! found by looking at the stack.

use std::collections::{BTreeMap, BTreeSet};

use super::power_loss::{Effort, Run, Runner};
use super::*;
use crate::store::disk::counting::{Asked, CountingDisk};

const EFFORT: Effort = Effort { samples: 8, one_in: 1 };
const KILLED_SAMPLES: usize = 8;
/// Moments at which a process is killed, at least: enough to come by every sync of recovery.
const KILLED_MIN: usize = 60;

/// Syncs that no state of the store hangs on, by file and function, each with its reason.
const NOT_FOR_THE_STORE: &[(&str, &str)] = &[
    // So that the blocks of the tail exist and no write to it meets a full disk; what it holds
    // after a loss of power counts for nothing.
    ("store/tail.rs", "open"),
    // A failed append that was undone: bytes that the disk would not take must not come back later.
    // Here a disk takes the cut like anything else, in its order.
    ("store/log_file.rs", "write"),
    // What was cut off is kept for a person to look at: durable before the log is cut.
    ("store/recovery.rs", "keep_tail"),
];

/// Syncs that are needed, but not during this: what is asked for, in which file, and why not.
const NOT_THEN: &[(&str, &str, &str)] = &[
    // A store that was closed has left nothing to make durable. One that was killed may have.
    ("open", "sync", "store/recovery.rs"),
    ("open", "sync_dir", "store/recovery.rs"),
    // The names of copies are made durable afterwards, and with them those of the logs.
    ("compact", "sync_dir", "store/writer/sync_lane.rs"),
];

/// A sync in the code.
struct Site {
    file: String,
    function: String,
    what: &'static str,
}

impl Site {
    fn is_excused(&self) -> bool {
        NOT_FOR_THE_STORE.contains(&(&self.file, &self.function))
    }

    fn is_not_needed(&self, during: &str) -> bool {
        let function = format!("{}:{}", self.file, self.function);
        let is_it = |(then, what, place): &(&str, &str, &str)| {
            (*then, *what) == (during, self.what)
                && [&self.file, &function].contains(&&(*place).to_owned())
        };
        self.is_excused() || NOT_THEN.iter().any(is_it)
    }
}

/// The syncs in the code, by file and line.
fn in_the_code() -> BTreeMap<String, Site> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.join("store")];
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            // Below the door it is the disks themselves that sync; tests only ask for it.
            if ["store/disk", "store/tests", "store/models", "store/fuzzing"]
                .iter()
                .any(|of| name.starts_with(of))
            {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else {
                add_sites(&name, &std::fs::read_to_string(&path).unwrap(), &mut found);
            }
        }
    }
    found
}

/// Adds the syncs in `text`, other than those that functions called `sync` hand on.
fn add_sites(name: &str, text: &str, found: &mut BTreeMap<String, Site>) {
    let mut function = String::new();
    let live = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    for (index, line) in live.enumerate() {
        let code = line.split("//").next().unwrap();
        if let Some((_, rest)) = code.split_once("fn ") {
            function = rest.split(['(', '<']).next().unwrap().to_owned();
        }
        // Those of the writer lead to one in `sync_lane`.
        let of_file = code.contains(".sync()") && !code.contains("writer.sync()");
        let of_dir = code.contains(".sync_dir(");
        if (of_file || of_dir) && !["sync", "sync_dir"].contains(&&*function) {
            let what = if of_dir { "sync_dir" } else { "sync" };
            let site = Site { file: name.to_owned(), function: function.clone(), what };
            found.insert(format!("{name}:{}", index + 1), site);
        }
    }
}

/// Everything that asks for syncs, with the numbers of them.
fn by_asker(asked: &[Asked]) -> BTreeMap<&Asked, BTreeSet<usize>> {
    let mut numbers: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    for (number, asked) in asked.iter().enumerate() {
        numbers.entry(asked).or_default().insert(number);
    }
    numbers
}

/// What is known so far.
struct Search {
    code: BTreeMap<String, Site>,
    /// Each asker that was met, and whether a loss of power without its syncs has done harm.
    needed: BTreeMap<Asked, bool>,
}

impl Search {
    /// Calls `harms` with the numbers of what each asker asked for that is not known to be needed.
    fn look_at(&mut self, asked: &[Asked], harms: impl Fn(BTreeSet<usize>) -> bool) {
        for (asker, numbers) in by_asker(asked) {
            let site = self.code.get(&asker.by);
            let site = site.unwrap_or_else(|| panic!("{} is no sync to this test", asker.by));
            let is_needed = self.needed.entry(asker.clone()).or_default();
            if !*is_needed && !site.is_not_needed(asker.during) {
                *is_needed = harms(numbers);
            }
        }
    }

    /// Leaves out what each asker of `history` asks for.
    fn try_without(&mut self, history: &[Step], route: Route, links: bool) {
        let runner = || {
            let runner = Runner::new(route);
            if !links {
                runner.counting.refuse_links();
            }
            runner
        };
        let looking = runner();
        looking.counting.look();
        self.look_at(&looking.run(history).asked, |numbers| {
            let runner = runner();
            runner.counting.leave_out(numbers);
            runner.run(history).check(EFFORT).is_err()
        });
    }

    /// Leaves out what each asker asks for while a store is opened that a killed process left.
    fn try_recovery_without(&mut self, run: &Run) {
        let count = run.moments.len();
        // The first, when the store is being made; then all, scattered, so that moments of every
        // kind come early.
        let numbers = (0..10).chain((0..count).map(|turn| turn * 7919 % count));
        for (turn, number) in numbers.enumerate() {
            let looking = run.check_killed_at(number, 0, &CountingDisk::look);
            let (_, asked) = looking.expect("nothing was left out");
            self.look_at(&asked, |numbers| {
                let without = |disk: &CountingDisk| disk.leave_out(numbers.clone());
                run.check_killed_at(number, KILLED_SAMPLES, &without).is_err()
            });
            if turn > KILLED_MIN && self.idle().is_empty() {
                break;
            }
        }
    }

    /// Those without which nothing has gone wrong, and should have.
    fn idle(&self) -> Vec<&Asked> {
        let needed = self.needed.iter();
        let idle = needed.filter(|(asker, is_needed)| {
            !**is_needed && !self.code[&asker.by].is_not_needed(asker.during)
        });
        idle.map(|(asker, _)| asker).collect()
    }
}

#[test]
fn every_sync_in_the_code_is_needed() {
    let mut search = Search { code: in_the_code(), needed: BTreeMap::new() };
    assert!(search.code.len() > 10, "the sources are not where this test looks");
    for (route, links) in [(Route::Tail, true), (Route::Direct, false), (Route::Sync, true)] {
        for history in [OVERWRITES, HISTORY] {
            search.try_without(history, route, links);
        }
    }
    search.try_recovery_without(&Runner::new(Route::Tail).run(HISTORY));
    for (place, site) in search.code.iter().filter(|(_, site)| !site.is_excused()) {
        let mut met = search.needed.keys().filter(|asker| asker.by == *place).peekable();
        assert!(met.peek().is_some(), "{place}: no history comes by the {} there", site.what);
    }
    let idle = search.idle();
    assert!(idle.is_empty(), "nothing depends on {idle:#?}\nof {:#?}", search.needed);
}
