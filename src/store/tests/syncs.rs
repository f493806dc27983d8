//! Every sync in the code is needed: without it, some loss of power does harm.
//!
//! Which syncs there are is read from the sources, so that a new one is judged like the others: a
//! history must come by it, and must be harmed if it is left out. Which line asks for a sync is
//! found by looking at the stack.

use std::collections::{BTreeMap, BTreeSet};

use super::power_loss::{Effort, Run, Runner};
use super::*;
use crate::store::disk::counting::Asked;

const EFFORT: Effort = Effort { samples: 8, one_in: 1 };
/// Of the moments at which a process is killed, one in so many is enough to come by every sync.
const KILLED_ONE_IN: usize = 3;
const KILLED_SAMPLES: usize = 4;

/// Syncs that no state of the store hangs on, by file and function, each with its reason.
const NOT_FOR_THE_STORE: &[(&str, &str)] = &[
    // So that the blocks of the tail exist and no write to it meets a full disk; what it holds after
    // a loss of power counts for nothing.
    ("store/tail.rs", "open"),
    // A failed append that was undone: bytes that the disk would not take must not come back later.
    // Here a disk takes the cut like anything else, in its order.
    ("store/log_file.rs", "write"),
    // What was cut off is kept for a person to look at: durable before the log is cut.
    ("store/recovery.rs", "keep_tail"),
];

/// The syncs in the code: file and line, and the function.
fn in_the_code() -> BTreeMap<String, (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.join("store")];
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            // Below the door it is the disks themselves that sync.
            if name.starts_with("store/disk") || name.starts_with("store/tests") {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut function = String::new();
            for (index, line) in text.lines().enumerate() {
                if line.starts_with("#[cfg(test)]") {
                    break;
                }
                let code = line.split("//").next().unwrap();
                if let Some((_, rest)) = code.split_once("fn ") {
                    function = rest.split(['(', '<']).next().unwrap().to_owned();
                }
                // Those of the writer lead to one in `sync_lane`.
                let syncs = code.contains(".sync()") && !code.contains("writer.sync()");
                let hands_on = ["sync", "sync_dir"].contains(&&*function);
                if (syncs || code.contains(".sync_dir(")) && !hands_on {
                    let place = format!("{name}:{}", index + 1);
                    found.insert(place, (name.clone(), function.clone()));
                }
            }
        }
    }
    found
}

/// Everything that asks for syncs, with the numbers of them.
fn by_asker(asked: &[Asked]) -> BTreeMap<&Asked, BTreeSet<usize>> {
    let mut numbers: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    for (number, asked) in asked.iter().enumerate() {
        numbers.entry(asked).or_default().insert(number);
    }
    numbers
}

/// Each asker that was met, and whether a loss of power without its syncs has done harm.
type Needed = BTreeMap<Asked, bool>;

/// Leaves out what each asker of `history` asks for.
fn try_without(history: &[Step], route: Route, links: bool, needed: &mut Needed) {
    let runner = || {
        let runner = Runner::new(route);
        if !links {
            runner.counting.refuse_links();
        }
        runner
    };
    let looking = runner();
    looking.counting.look();
    let t = std::time::Instant::now();
    let asked = looking.run(history).asked;
    eprintln!("looked {:?} {} {}", t.elapsed(), asked.len(), by_asker(&asked).len());
    for (asker, numbers) in by_asker(&asked) {
        let is_needed = needed.entry(asker.clone()).or_default();
        if !*is_needed {
            let runner = runner();
            runner.counting.leave_out(numbers);
            let t = std::time::Instant::now();
            *is_needed = runner.run(history).check(EFFORT).is_err();
            eprintln!("{asker:?} {is_needed} {:?}", t.elapsed());
        }
    }
}

/// Leaves out what each asker asks for while a store is opened that a killed process left.
fn try_recovery_without(run: &Run, needed: &mut Needed) {
    for number in (0..run.moments.len()).step_by(KILLED_ONE_IN) {
        let looking = run.check_killed_at(number, 0, &|disk| disk.look());
        let (_, asked) = looking.expect("nothing was left out");
        for (asker, numbers) in by_asker(&asked) {
            let is_needed = needed.entry(asker.clone()).or_default();
            if !*is_needed {
                let without = |disk: &crate::store::disk::counting::CountingDisk| {
                    disk.leave_out(numbers.clone());
                };
                *is_needed = run.check_killed_at(number, KILLED_SAMPLES, &without).is_err();
            }
        }
    }
}

#[test]
fn every_sync_in_the_code_is_needed() {
    let in_the_code = in_the_code();
    assert!(in_the_code.len() > 10, "the sources are not where this test looks");
    let is_excused = |place: &str| {
        in_the_code.get(place).is_some_and(|(file, function)| {
            NOT_FOR_THE_STORE.contains(&(file.as_str(), function.as_str()))
        })
    };
    let mut needed = Needed::new();
    for (route, links) in [(Route::Tail, true), (Route::Direct, false), (Route::Sync, true)] {
        for history in [HISTORY, OVERWRITES] {
            try_without(history, route, links, &mut needed);
        }
    }
    let t = std::time::Instant::now();
    try_recovery_without(&Runner::new(Route::Tail).run(HISTORY), &mut needed);
    eprintln!("recovery {:?}", t.elapsed());
    for place in in_the_code.keys().filter(|place| !is_excused(place)) {
        let is_met = needed.keys().any(|asker| asker.by == *place);
        assert!(is_met, "{place}: no history comes by this sync");
    }
    let idle = needed.iter().filter(|(asker, is_needed)| !**is_needed && !is_excused(&asker.by));
    let idle: Vec<_> = idle.map(|(asker, _)| asker).collect();
    assert!(idle.is_empty(), "nothing depends on {idle:#?}\nof {needed:#?}");
}
