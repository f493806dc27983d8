//! What `get` prints, the same for a store and for a server.

use std::io::{self, Write};

use kvs::KvsError;

/// Prints the value and a newline, or says that the key is absent, which is an answer too.
///
/// # Errors
///
/// [`KvsError::Io`] if standard output takes no more.
pub(crate) fn print(value: Option<&[u8]>) -> kvs::Result<()> {
    let mut out = io::stdout().lock();
    let printed = match value {
        Some(value) => out.write_all(value).and_then(|()| out.write_all(b"\n")),
        None => writeln!(out, "{}", KvsError::KeyNotFound),
    };
    printed.and_then(|()| out.flush()).map_err(|source| KvsError::Io {
        op: "write to",
        path: "standard output".into(),
        source,
    })
}
