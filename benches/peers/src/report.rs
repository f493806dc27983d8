//! The report that is kept with the source: medians and ratios, where and when.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::machine::Machine;
use crate::outcome::{Results, StoreNote};
use crate::plot;
use crate::summary::{Cell, rows};

/// Write `peers.json` and `peers.svg` from a results file.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// A results file of `peers run`
    results: PathBuf,
    /// The day of the measurement, as YYYY-MM-DD
    #[arg(long)]
    date: String,
    /// What was measured, as git names it
    #[arg(long)]
    commit: String,
    /// The directory to write to
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    date: &'a str,
    commit: &'a str,
    machine: &'a Machine,
    stores: &'a [StoreNote],
    /// Whose operations per second the ratios are taken of.
    base: &'a str,
    workloads: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    title: &'a str,
    threads: usize,
    keys: u64,
    value_bytes: usize,
    /// Fastest first.
    stores: Vec<Cell>,
}

/// Writes the report that `args` ask for.
pub fn report(args: &ReportArgs, base: &str) -> Result<()> {
    let results = Results::read(&args.results)?;
    let wrong: u64 = results.outcomes.iter().map(|outcome| outcome.wrong).sum();
    ensure!(wrong == 0, "{wrong} wrong answer(s): that is no report, but a mistake to be found");
    ensure!(!results.outcomes.is_empty(), "{} holds no outcome", args.results.display());
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make the directory {}", args.dir.display()))?;
    let mut json = serde_json::to_string_pretty(&made(&results, args, base))?;
    json.push('\n');
    write(&args.dir.join("peers.json"), &json)?;
    write(&args.dir.join("peers.svg"), &plot::svg(&results, base))
}

fn made<'a>(results: &'a Results, args: &'a ReportArgs, base: &'a str) -> Report<'a> {
    let part = |row: crate::summary::Row| Part {
        name: row.workload.name,
        title: row.workload.title,
        threads: row.workload.threads,
        keys: row.keys,
        value_bytes: row.value_bytes,
        stores: row.cells,
    };
    Report {
        date: &args.date,
        commit: &args.commit,
        machine: &results.machine,
        stores: &results.stores,
        base,
        workloads: rows(&results.outcomes, base).into_iter().map(part).collect(),
    }
}

/// Writes `text` to `path`.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Line, Outcome};

    fn reported(outcome: &Outcome) -> (Result<()>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let results = dir.path().join("peers.jsonl");
        let line = serde_json::to_string(&Line::Outcome(outcome.clone())).unwrap();
        fs::write(&results, line).unwrap();
        let args = ReportArgs {
            results,
            date: "2026-11-21".to_owned(),
            commit: "abc".to_owned(),
            dir: dir.path().join("report"),
        };
        (report(&args, "kvs"), dir)
    }

    #[test]
    fn a_report_says_what_when_and_where_and_refuses_wrong_answers() {
        let outcome = Outcome {
            store: "kvs".to_owned(),
            workload: "overwrite".to_owned(),
            ops: 7,
            seconds: 1.0,
            ..Outcome::default()
        };
        let (done, dir) = reported(&outcome);
        done.unwrap();
        let text = fs::read_to_string(dir.path().join("report/peers.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["date"], &json["commit"]), (&"2026-11-21".into(), &"abc".into()));
        assert_eq!(json["workloads"][0]["stores"][0]["ops_per_second"], 7.0);
        assert!(fs::read_to_string(dir.path().join("report/peers.svg")).unwrap().contains("<svg"));

        let (done, dir) = reported(&Outcome { wrong: 1, ..outcome });
        assert!(done.unwrap_err().to_string().starts_with("1 wrong answer"));
        assert!(!dir.path().join("report").exists());
    }
}
