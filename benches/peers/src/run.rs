//! The order of a run, and the processes that measure.
//!
//! In each round every store has its turn, beginning with another one each time; on its turn it
//! runs the chosen workloads of one data set after the other on a directory, which is then
//! removed. Nothing ever runs beside anything.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::value_parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::machine::Machine;
use crate::outcome::{Line, Outcome, Run, StoreNote};
use crate::stores::{self, Entry};
use crate::workload::{self, DataSet, LOAD, Workload};

/// Fewer say nothing; of ten times more, indices no longer fit in 32 bits.
const KEYS_ALLOWED: RangeInclusive<u64> = 1000..=100_000_000;

/// Measure stores, one process and one measurement at a time.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Which stores, by name [default: all of this build; `peers list` names them]
    #[arg(long, value_delimiter = ',')]
    stores: Vec<String>,
    /// Which workloads, by name [default: all; `peers list` names them]
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Keys of the main data set; the other two have half and ten times as many
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u64).range(KEYS_ALLOWED))]
    keys: u64,
    /// How often everything is measured; the tenfold data set only once
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// A measurement is cut short after this long; a tenfold fill after six times this
    #[arg(long, default_value_t = 5.0)]
    cap_seconds: f64,
    /// Where the stores are made: on the file system that is to be measured
    #[arg(long, default_value = "peers-data")]
    dir: PathBuf,
    /// Where the results go, one JSON object a line; an existing file is added to
    #[arg(long, default_value = "peers.jsonl")]
    out: PathBuf,
}

/// One child process, or the end of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Measure { round: u32, store: usize, workload: &'static str, data: DataSet },
    Remove { store: usize },
}

/// Whether `entry` is there for `workload` at all.
fn offers(entry: &Entry, workload: &Workload) -> bool {
    let is_varied = entry.only.is_none_or(|only| only.contains(&workload.kind));
    // A setting is compared on the main data; other sizes are for the stores as such.
    let is_main = workload.data == DataSet::Main || entry.only.is_none();
    let is_able = entry.ordered || workload.kind != workload::Kind::Scan;
    let is_quick = workload.data != DataSet::Tenfold || entry.tenfold;
    is_varied && is_main && is_able && is_quick
}

/// Everything that is to be done, in order.
fn schedule(entries: &[Entry], workloads: &[Workload], rounds: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 1..=rounds {
        for data in DataSet::ALL {
            if round > data.rounds(rounds) {
                continue;
            }
            for turn in 0..entries.len() {
                let store = (turn + round as usize - 1) % entries.len();
                let chosen = workloads.iter().filter(|w| w.data == data);
                let chosen: Vec<_> = chosen.filter(|w| offers(&entries[store], w)).collect();
                let mut has_data = false;
                for workload in &chosen {
                    if workload.kind.needs_data() && !has_data {
                        let workload = LOAD.name;
                        steps.push(Step::Measure { round, store, workload, data });
                        has_data = true;
                    }
                    has_data |= workload.kind.makes_data();
                    let workload = workload.name;
                    steps.push(Step::Measure { round, store, workload, data });
                }
                if !chosen.is_empty() {
                    steps.push(Step::Remove { store });
                }
            }
        }
    }
    steps
}

/// Runs everything that `args` ask for.
///
/// # Errors
///
/// A mistake in the arguments, at once; a store that failed or answered wrongly, at the end, when
/// all others have been measured.
pub fn run(args: &RunArgs) -> Result<()> {
    let entries = chosen_entries(&args.stores)?;
    let workloads = workload::chosen(&args.workloads)?;
    let steps = schedule(&entries, &workloads, args.rounds);
    ensure!(!steps.is_empty(), "none of these stores offers any of these workloads");
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make the directory {}", args.dir.display()))?;
    let mut out = File::options()
        .create(true)
        .append(true)
        .open(&args.out)
        .with_context(|| format!("cannot write to {}", args.out.display()))?;
    write_line(&mut out, &Line::Run(about(&args.dir, &entries)))?;

    let bar = ProgressBar::new(steps.len() as u64).with_style(
        ProgressStyle::with_template("{elapsed_precise} {bar:24} {pos}/{len} {msg}, {eta} left")
            .expect("the template is right"),
    );
    let mut failed = HashSet::new();
    for &step in &steps {
        match step {
            Step::Measure { round, store, workload, data } => {
                let entry = &entries[store];
                let what = format!("round {round}, {} {workload}", entry.name);
                if bar.is_hidden() {
                    eprintln!("{}/{} {what}", bar.position(), steps.len());
                }
                bar.set_message(what);
                if let Err(error) = step_of(args, entry, round, workload, data, &mut out) {
                    bar.suspend(|| eprintln!("{} {workload}: {error:#}", entry.name));
                    failed.insert(entry.name);
                }
            }
            Step::Remove { store } => remove(&args.dir.join(entries[store].name))?,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(failed.is_empty(), "failed or answered wrongly: {failed:?}");
    Ok(())
}

fn chosen_entries(names: &[String]) -> Result<Vec<Entry>> {
    if names.is_empty() {
        return Ok(stores::all());
    }
    names.iter().map(|name| stores::named(name)).collect()
}

fn about(dir: &Path, entries: &[Entry]) -> Run {
    let note = |entry: &Entry| StoreNote {
        name: entry.name.to_owned(),
        version: (entry.version)(),
        settings: entry.settings.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    Run { machine: Machine::of(dir), stores: entries.iter().map(note).collect() }
}

fn write_line(out: &mut File, line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    out.write_all(text.as_bytes()).context("cannot write a result")
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Measures one workload in a new process and writes the outcome down.
fn step_of(
    args: &RunArgs,
    entry: &Entry,
    round: u32,
    name: &str,
    data: DataSet,
    out: &mut File,
) -> Result<()> {
    let kind = workload::named(name)?.kind;
    let mut dir = args.dir.join(entry.name);
    if kind.has_own_dir() {
        dir.set_extension("own");
    }
    if kind.has_own_dir() || kind.makes_data() {
        remove(&dir)?;
        fs::create_dir_all(&dir)?;
    }
    let outcome = measured(args, entry, round, name, data, &dir);
    if kind.has_own_dir() {
        remove(&dir)?;
    }
    let outcome = outcome?;
    let wrong = outcome.wrong;
    if kind != workload::Kind::Load {
        write_line(out, &Line::Outcome(outcome))?;
    }
    ensure!(wrong == 0, "{wrong} wrong answer(s)");
    Ok(())
}

fn measured(
    args: &RunArgs,
    entry: &Entry,
    round: u32,
    name: &str,
    data: DataSet,
    dir: &Path,
) -> Result<Outcome> {
    let output = Command::new(std::env::current_exe()?)
        .arg("child")
        .args(["--store", entry.name, "--workload", name])
        .args(["--round", &round.to_string()])
        .args(["--keys", &data.keys(args.keys).to_string()])
        .args(["--value-bytes", &data.value_bytes().to_string()])
        .args(["--cap-seconds", &args.cap_seconds.to_string()])
        .arg("--dir")
        .arg(dir)
        .stderr(Stdio::piped())
        .output()
        .context("cannot start a process")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, said.trim().replace('\n', "; "));
    }
    serde_json::from_slice(&output.stdout).context("a measurement printed no outcome")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Kind;

    fn entry(name: &'static str, ordered: bool, only: Option<&'static [Kind]>) -> Entry {
        Entry {
            name,
            settings: "",
            ordered,
            only,
            tenfold: name != "slow",
            version: String::new,
            open: |_| bail!("is not opened here"),
        }
    }

    fn names(steps: &[Step], of: usize) -> Vec<&'static str> {
        let name = |step: &Step| match *step {
            Step::Measure { store, workload, .. } if store == of => Some(workload),
            _ => None,
        };
        steps.iter().filter_map(name).collect()
    }

    #[test]
    fn stores_take_turns_and_another_begins_each_round() {
        let entries = [entry("a", true, None), entry("b", true, None)];
        let steps = schedule(&entries, &workload::chosen(&[]).unwrap(), 2);
        let first = |round| {
            steps.iter().find_map(|step| match *step {
                Step::Measure { round: r, store, .. } if r == round => Some(store),
                _ => None,
            })
        };
        assert_eq!((first(1), first(2)), (Some(0), Some(1)));
        // Every workload twice, but the tenfold ones.
        let main = workload::ALL.len() - 2;
        assert_eq!(names(&steps, 0).len(), main * 2 + 2);
        assert_eq!(names(&steps, 0).len(), names(&steps, 1).len());
        assert!(matches!(steps.last(), Some(Step::Remove { .. })));
        let slow = schedule(&[entry("slow", true, None)], &workload::chosen(&[]).unwrap(), 2);
        assert_eq!(names(&slow, 0).len(), main * 2, "what would take longest is left out");
    }

    #[test]
    fn what_needs_data_is_given_some() {
        let chosen = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            names_of(&schedule(&[entry("a", true, None)], &workload::chosen(&names).unwrap(), 1))
        };
        fn names_of(steps: &[Step]) -> Vec<&'static str> {
            names(steps, 0)
        }
        assert_eq!(chosen(&["readrandom", "scan"]), ["load", "readrandom", "scan"]);
        assert_eq!(chosen(&["fillrandom", "delete"]), ["fillrandom", "delete"]);
        assert_eq!(chosen(&["fillsync"]), ["fillsync"]);
        assert_eq!(chosen(&["fillsync", "overwrite"]), ["fillsync", "load", "overwrite"]);
        assert_eq!(chosen(&["readrandom-10x"]), ["load", "readrandom-10x"]);
    }

    #[test]
    fn stores_run_what_they_are_there_for() {
        let entries = [entry("a", false, None), entry("b", true, Some(&[Kind::Fill, Kind::Scan]))];
        let steps = schedule(&entries, &workload::chosen(&[]).unwrap(), 1);
        assert!(!names(&steps, 0).contains(&"scan"), "it has no order");
        assert!(names(&steps, 0).contains(&"iterate"));
        assert_eq!(names(&steps, 1), ["fillrandom", "scan"]);
    }
}
