//! How a program ends: 0 done, 1 refused or failed, 2 wrong usage (which clap sees to).
//!
//! Results go to standard output, everything else to standard error.

use std::io::Write;
use std::process::ExitCode;

use kvs::KvsError;

/// Says on standard error what went wrong, if anything did, and turns it into an exit code.
pub(crate) fn code(program: &str, result: kvs::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Scripts compare this line with the words of the first implementation.
    let text = match error {
        KvsError::KeyNotFound => error.to_string(),
        _ => format!("{program}: {error}"),
    };
    // If standard error is gone too, the code must do.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}
