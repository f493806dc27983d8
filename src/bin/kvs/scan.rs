//! `kvs scan`: keys in order, with their values, one a line, for people and for programs.
//!
//! ```text
//! no<tab>Oslo                                     a backslash before \ and tab, \n, \r;
//! \xff\x00<tab>tab:\t                             bytes that are no text as \x and two digits
//!
//! {"key":"no","value":"Oslo"}                     --json: an object a line;
//! {"key_b64":"/wA=","value":"tab:\t"}             bytes that are not UTF-8 in base64
//! ```
//! Both say every key and value exactly, whatever bytes are in it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::Bound;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use kvs::{KvsEngine, Scan};
use serde_json::{Map, Value};

use crate::report::stdout_failed;

/// What `kvs scan` takes.
#[derive(Args)]
pub(crate) struct ScanArguments {
    /// Only keys that begin with this
    #[arg(conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// Only this key and those behind it
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// An object a line; bytes that are not UTF-8 in base64
    #[arg(long)]
    json: bool,
}

impl ScanArguments {
    fn scan(&self) -> Scan {
        let bytes = |argument: &OsString| argument.as_encoded_bytes().to_vec();
        let scan = match &self.prefix {
            Some(prefix) => Scan::prefix(bytes(prefix)),
            None => Scan::range::<Vec<u8>>((
                self.from.as_ref().map_or(Bound::Unbounded, |key| Bound::Included(bytes(key))),
                self.to.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(bytes(key))),
            )),
        };
        let scan = if self.reverse { scan.reverse() } else { scan };
        if self.keys_only { scan.keys_only() } else { scan }
    }
}

/// Prints what is asked for of `store`.
///
/// # Errors
///
/// As the scan and its items; [`kvs::KvsError::Io`] if standard output takes no more.
pub(crate) fn print(store: &impl KvsEngine, arguments: &ScanArguments) -> kvs::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for entry in store.scan(arguments.scan())? {
        let (key, value) = entry?;
        let value = (!arguments.keys_only).then_some(&*value);
        let line = if arguments.json { json(&key, value) } else { text(&key, value) };
        writeln!(out, "{line}").map_err(stdout_failed)?;
    }
    out.flush().map_err(stdout_failed)
}

fn text(key: &[u8], value: Option<&[u8]>) -> String {
    let mut line = String::with_capacity(key.len() + value.map_or(0, <[u8]>::len) + 1);
    escape(&mut line, key);
    if let Some(value) = value {
        line.push('\t');
        escape(&mut line, value);
    }
    line
}

/// Appends `bytes` so that they stay on their line, in their column, and can be told again.
fn escape(line: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                _ if char.is_control() => escape_bytes(line, char.encode_utf8(&mut [0; 4])),
                _ => line.push(char),
            }
        }
        escape_bytes(line, chunk.invalid());
    }
}

fn escape_bytes(line: &mut String, bytes: impl AsRef<[u8]>) {
    for byte in bytes.as_ref() {
        write!(line, "\\x{byte:02x}").expect("a string takes everything");
    }
}

fn json(key: &[u8], value: Option<&[u8]>) -> String {
    let mut object = Map::new();
    let mut put = |name: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(format!("{name}_b64"), Value::from(BASE64_STANDARD.encode(bytes))),
    };
    put("key", key);
    if let Some(value) = value {
        put("value", value);
    }
    Value::Object(object).to_string()
}
