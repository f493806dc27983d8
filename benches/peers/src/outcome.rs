//! What one measurement found, as a line of JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One line of a results file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Where, and of which stores, the outcomes after it are.
    Run(Run),
    Outcome(Outcome),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub stores: Vec<StoreNote>,
}

/// What a reader should know of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreNote {
    pub name: String,
    pub version: String,
    pub settings: String,
}

/// One workload on one store in one round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub store: String,
    pub workload: String,
    pub round: u32,
    pub threads: usize,
    /// How many keys the store held, and how long values were.
    pub keys: u64,
    pub value_bytes: usize,

    /// Keys read or written against the clock.
    pub ops: u64,
    pub seconds: f64,
    /// The time limit ended it before all keys had their turn.
    pub cut_short: bool,
    /// Reads that returned a wrong value, or one too many or too few; and, after a writing
    /// workload, keys that do not hold what was written.
    pub wrong: u64,

    /// Of one operation; of a batch, where those are what is measured. Sampled, see README.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    /// The longest time in which no operation, or no more than a few, got done.
    pub stall_ns: u64,

    pub open_seconds: f64,
    /// Of the syncing, the settling and the closing after the clock was stopped.
    pub sync_seconds: f64,
    pub settle_seconds: f64,
    pub close_seconds: f64,
    /// Processor time of all threads while the clock ran.
    pub cpu_seconds: f64,
    /// How many cores something else was using meanwhile; 0 if it was too short to tell.
    pub other_cores: f64,
    pub disk_bytes: u64,
    pub resident_bytes_max: u64,
    pub anonymous_bytes: u64,
}

impl Outcome {
    pub fn ops_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let ops = self.ops as f64;
        if self.seconds > 0.0 { ops / self.seconds } else { 0.0 }
    }
}

/// A results file.
#[derive(Debug, Default)]
pub struct Results {
    /// Of the last run in the file.
    pub machine: Machine,
    pub stores: Vec<StoreNote>,
    pub outcomes: Vec<Outcome>,
}

impl Results {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the results in {}", path.display()))?;
        let mut results = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = serde_json::from_str(line)
                .with_context(|| format!("{}:{} is no result", path.display(), index + 1))?;
            match line {
                Line::Outcome(outcome) => results.outcomes.push(outcome),
                Line::Run(run) => {
                    results.machine = run.machine;
                    for note in run.stores {
                        results.stores.retain(|known| known.name != note.name);
                        results.stores.push(note);
                    }
                }
            }
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let note = |version: &str| StoreNote {
            name: "kvs".to_owned(),
            version: version.to_owned(),
            settings: String::new(),
        };
        let run = |version| Run { machine: Machine::of(dir.path()), stores: vec![note(version)] };
        let outcome = Outcome { store: "kvs".to_owned(), ops: 3, ..Outcome::default() };
        let lines = [Line::Run(run("1")), Line::Outcome(outcome.clone()), Line::Run(run("2"))];
        let text: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        fs::write(&path, text.join("\n")).unwrap();

        let results = Results::read(&path).unwrap();
        assert_eq!(results.outcomes, [outcome]);
        assert_eq!(results.stores, [note("2")]);
        assert_eq!(results.machine, Machine::of(dir.path()));

        fs::write(&path, format!("{}\nnonsense\n", text[0])).unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().ends_with(":2 is no result"));
    }
}
