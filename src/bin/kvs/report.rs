//! Reports: a table for a person, or one line of JSON for a program.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use kvs::{Damage, KvsError};
use serde::Serialize;

/// What every command that reports takes.
#[derive(Args)]
pub(crate) struct ReportArguments {
    /// Print one line of JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

impl ReportArguments {
    /// Prints `report` as JSON, or `table`.
    pub(crate) fn print<R: Serialize>(
        &self,
        report: &R,
        table: impl FnOnce(&R, &mut String),
    ) -> kvs::Result<()> {
        let mut text = String::new();
        if self.json {
            text = serde_json::to_string(report).expect("reports have a JSON form");
            text.push('\n');
        } else {
            table(report, &mut text);
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)
    }
}

/// The error for a standard output that takes no more.
pub(crate) fn stdout_failed(source: io::Error) -> KvsError {
    KvsError::Io { op: "write to", path: Path::new("standard output").into(), source }
}

/// The outcome of what prints line by line. When its reader has had enough (`kvs scan | head`), the
/// lines end, which is no failure.
pub(crate) fn unless_reader_has_gone(printed: kvs::Result<()>) -> kvs::Result<()> {
    match printed {
        Err(KvsError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Adds one line of a table: a name and what it is.
pub(crate) fn row(text: &mut String, name: &str, what: impl std::fmt::Display) {
    let line = format!("{name:<16}{what}\n");
    text.push_str(&line);
}

/// Adds a line for each damage that is listed, and one for the rest.
pub(crate) fn damage_rows(text: &mut String, damages: &[Damage], count: u64) {
    for damage in damages {
        let Damage { path, offset, bytes, what, .. } = damage;
        let writes = damage
            .writes
            .map_or(String::new(), |(first, last)| format!("; writes {first} to {last}"));
        let line =
            format!("  {} at byte {offset}, {bytes} bytes: {what}{writes}\n", path.display());
        text.push_str(&line);
    }
    let listed = u64::try_from(damages.len()).unwrap_or(count);
    if count > listed {
        let line = format!("  and {} more\n", count - listed);
        text.push_str(&line);
    }
}
