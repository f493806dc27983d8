//! `kvs scan`: keys in order, with their values, one a line, for people and for programs.
//!
//! ```text
//! no<tab>Oslo                                     a backslash before \ and tab, \n, \r;
//! \xff\x00<tab>tab:\t                             bytes that are no text as \x and two digits
//!
//! {"key":"no","value":"Oslo"}                     --json: an object a line;
//! {"key_base64":"/wA=","value":"tab:\t"}          bytes that are not UTF-8 in base64
//! ```
//! Both say every key and value exactly, whatever bytes are in it. When whoever reads the output
//! has had enough (`kvs scan | head`), the scan ends, which is no failure.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::Bound;

use clap::Args;
use kvs::{Entries, KvsEngine, KvsError, Scan};
use serde_json::{Map, Value};

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
/// As the scan and its items; [`KvsError::Io`] if standard output takes no more, unless its reader
/// has gone.
pub(crate) fn print(store: &impl KvsEngine, arguments: &ScanArguments) -> kvs::Result<()> {
    let entries = store.scan(arguments.scan())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = print_all(&mut out, entries, arguments)?;
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(KvsError::Io { op: "write to", path: "standard output".into(), source: error })
        }
        _ => Ok(()),
    }
}

/// The outer result is the scan's, the inner one the output's.
fn print_all(
    out: &mut impl Write,
    entries: Entries,
    arguments: &ScanArguments,
) -> kvs::Result<io::Result<()>> {
    for entry in entries {
        let (key, value) = entry?;
        let value = (!arguments.keys_only).then_some(&*value);
        let line = if arguments.json { json(&key, value) } else { text(&key, value) };
        if let Err(error) = writeln!(out, "{line}") {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
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
        Err(_) => object.insert(format!("{name}_base64"), Value::from(base64(bytes))),
    };
    put("key", key);
    if let Some(value) = value {
        put("value", value);
    }
    Value::Object(object).to_string()
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            let char = ALPHABET.get(index).map_or('=', |char| char::from(*char));
            text.push(if digit <= group.len() { char } else { '=' });
        }
    }
    text
}
