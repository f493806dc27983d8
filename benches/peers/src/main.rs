//! `peers`: kvs beside the embeddable stores a user would pick instead.
//!
//! In reading order: `store` is what an adapter implements and `stores` the adapters; `data` makes
//! keys and values, `workload` says what is done with them; `drive` holds the clock, `measure`
//! does one measurement, `run` all of them in processes of their own; the rest tells the results.

mod data;
mod drive;
mod figures;
mod machine;
mod measure;
mod outcome;
mod plot;
mod report;
mod run;
mod store;
mod stores;
mod summary;
mod table;
mod workload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::outcome::Results;

/// kvs beside the embeddable stores a user would pick instead, measured.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  peers run --stores kvs,lmdb --workloads fillrandom,readrandom\n  \
                        peers table peers.jsonl"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// The store that the others are compared with
    #[arg(long, global = true, default_value = "kvs")]
    base: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    /// Print medians and ratios of a results file, as Markdown
    Table {
        /// A results file of `peers run`
        results: PathBuf,
    },
    /// Draw a results file
    Plot {
        /// A results file of `peers run`
        results: PathBuf,
        /// The picture to write, as SVG
        out: PathBuf,
    },
    Report(report::ReportArgs),
    /// Name the stores and the workloads of this build
    List,
    /// One measurement, for `run`
    #[command(hide = true)]
    Child(measure::Spec),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match obey(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(args: &Args) -> Result<()> {
    match &args.command {
        Command::Run(wanted) => run::run(wanted)?,
        Command::Table { results } => {
            let text = table::text(&Results::read(results)?, &args.base);
            match writeln!(io::stdout(), "{text}") {
                // As `peers table FILE | head` does.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        Command::Plot { results, out } => {
            report::write(out, &plot::svg(&Results::read(results)?, &args.base))?;
        }
        Command::Report(wanted) => report::report(wanted, &args.base)?,
        Command::List => {
            for entry in stores::all() {
                println!("{:<14} {}", entry.name, (entry.version)());
            }
            println!();
            for workload in workload::ALL {
                println!("{:<16} {}", workload.name, workload.title);
            }
        }
        Command::Child(spec) => {
            let workload = workload::named(&spec.workload)?;
            println!("{}", serde_json::to_string(&measure::measure(spec, &workload)?)?);
        }
    }
    Ok(())
}
