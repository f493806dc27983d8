//! Dump: a store as text, and back; and what the first implementation wrote.
//!
//! ```text
//! {"key":"no","value":"Oslo"}
//! {"key_b64":"AP8=","value":"\u00e9"}      base64 where a key or a value is not UTF-8
//! {"key":"a","value":"b","expiry_ms":1}    milliseconds since the Unix epoch, if the key expires
//! ```
//! One JSON object per line, for any engine and any version: what a store is moved with when its
//! format changes, looked into with `jq`, sorted and compared with `sort` and `diff`. The order of
//! lines means nothing. Written and read in one pass with bounded memory; a dump of a store that is
//! in use is a scan, with a scan's promise ([`KvsEngine::scan`]).
//!
//! This file knows no engine. Any thread may call it.

use std::io::{self, BufRead, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::json_text;
use crate::options::{KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::store::Progress;
use crate::store::old_logs::{self, OldLogs};
use crate::write_batch::WriteBatch;

/// Most lines of a batch of [`load`]...
const BATCH_LINES_MAX: usize = 1000;
/// ... and the bytes from which on it is applied (1 MiB): enough to make the cost of a batch small.
const BATCH_LEN: usize = 1 << 20;

#[derive(Serialize)]
struct LineOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_ms: Option<u64>,
}

/// A field that this version does not know may be one that must not be lost, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    expiry_ms: Option<u64>,
}

/// Writes every key and value of `engine` to `out`, as lines of JSON, and returns how many. Keys
/// that have expired are left out.
///
/// ```
/// use kvs::{KvStore, KvsEngine, dump};
///
/// let dir = tempfile::tempdir()?;
/// let store = KvStore::open(dir.path().join("a"))?;
/// store.set_bytes(b"no", b"Oslo")?;
/// let mut text = Vec::new();
/// assert_eq!(dump::dump(&store, &mut text)?, 1);
/// assert_eq!(text, b"{\"key\":\"no\",\"value\":\"Oslo\"}\n");
///
/// let copy = KvStore::open(dir.path().join("b"))?;
/// assert_eq!(dump::load(&copy, &text[..], 0)?, 1);
/// assert_eq!(copy.get("no".to_owned())?, Some("Oslo".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`KvsEngine::scan`] and its items; [`KvsError::Io`] if `out` takes no more.
///
/// # Panics
///
/// Never: strings always have a JSON form.
pub fn dump<E: KvsEngine>(engine: &E, out: &mut dyn Write) -> Result<u64> {
    let failed = |source| KvsError::io("write to", Path::new("the dump"), source);
    let mut line_count = 0;
    for entry in engine.iter()? {
        let (key, _) = entry?;
        // Read once more, with the expiry of the same moment.
        let Some((value, expiry_ms)) = engine.get_with_expiry(&key)? else { continue };
        let ((key, key_b64), (value, value_b64)) =
            (json_text::split(&key), json_text::split(&value));
        let line = LineOut { key, key_b64, value, value_b64, expiry_ms };
        let mut line = serde_json::to_vec(&line).expect("strings have a JSON form");
        line.push(b'\n');
        out.write_all(&line).map_err(failed)?;
        line_count += 1;
    }
    out.flush().map_err(failed)?;
    Ok(line_count)
}

/// Sets every key and value that `input` holds as [`dump`] writes them, in batches, and returns how
/// many. The first `skip` lines are passed over; empty lines are, too. Keys that are there already
/// and not in `input` stay.
///
/// A key that has expired meanwhile is no error: it is absent afterwards, as if it had been loaded
/// in time, even if it was there before. An engine without expiry refuses lines with one.
///
/// Nothing is made durable beyond what the store's options say: call [`KvsEngine::sync`] then.
///
/// # Errors
///
/// [`KvsError::BadLine`] with the number of the line: every line before it is in the store then,
/// and none from it on, so that the rest can be loaded by passing over the lines before it. Any
/// other error leaves whole batches, from the first line on; loading again from the start is right
/// in every case. [`KvsError::Io`] if `input` fails; otherwise as [`KvsEngine::apply`].
pub fn load<E: KvsEngine>(engine: &E, mut input: impl BufRead, skip: u64) -> Result<u64> {
    let mut loading = Batches::new(engine);
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        text.clear();
        let failed = |source: io::Error| KvsError::io("read", Path::new("the dump"), source);
        if input.read_until(b'\n', &mut text).map_err(failed)? == 0 {
            return loading.finish();
        }
        line += 1;
        if line <= skip || text.trim_ascii().is_empty() {
            continue;
        }
        match parse(&text) {
            Ok(Loaded { key, value, expiry_ms }) => loading.set(&key, &value, expiry_ms)?,
            Err(what) => {
                loading.finish()?;
                return Err(KvsError::BadLine { path: None, line, what });
            }
        }
    }
}

/// What a line says.
struct Loaded {
    key: Vec<u8>,
    value: Vec<u8>,
    expiry_ms: Option<u64>,
}

fn parse(text: &[u8]) -> Result<Loaded, &'static str> {
    let line: LineIn = serde_json::from_slice(text)
        .map_err(|_| "not a JSON object with a key and a value, and nothing else")?;
    let key = json_text::join(line.key, line.key_b64).ok_or("no key, or not base64")?;
    let value = json_text::join(line.value, line.value_b64).ok_or("no value, or not base64")?;
    if key.len() > KEY_LEN_MAX {
        return Err("the key is over the limit of 65,535 bytes");
    }
    if value.len() > VALUE_LEN_MAX {
        return Err("the value is over the limit of 1 GiB");
    }
    Ok(Loaded { key, value, expiry_ms: line.expiry_ms })
}

/// What an import brought over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// Logs that were read.
    pub file_count: u64,
    /// Writes that were replayed, removals included.
    pub write_count: u64,
    /// Bytes of half a write at the very end, as a crash leaves it, that were passed over.
    pub crash_tail_bytes: u64,
}

/// Replays the logs that the first implementation left in `dir` into `engine`: files `N.log`, in
/// the order of their numbers, one JSON object per line, `{"Set":{"key":..,"value":..}}` or
/// `{"cmd":"Set","key":..,"value":..}`, and the same for `Remove`. `dir` is only read. After each
/// file `progress` is called.
///
/// Half a write at the very end is what a crash leaves: it is passed over and reported.
///
/// # Errors
///
/// [`KvsError::NoStore`] if `dir` holds no such logs, [`KvsError::WrongEngine`] if it holds another
/// store; [`KvsError::BadLine`] with file and line for broken text that others follow, and for text
/// that no such log has: the writes before it are in `engine` then, and importing again is right;
/// [`KvsError::Io`]; otherwise as [`KvsEngine::apply`].
pub fn import_old<E: KvsEngine>(
    dir: impl AsRef<Path>,
    engine: &E,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport> {
    let mut importing = Batches::new(engine);
    let read = old_logs::read(
        dir.as_ref(),
        &mut |key, value| match value {
            Some(value) => importing.set(key.as_bytes(), value.as_bytes(), None),
            None => importing.remove(key.as_bytes()),
        },
        progress,
    );
    let write_count = importing.finish()?;
    let OldLogs { file_count, crash_tail_bytes } = read?;
    Ok(ImportReport { file_count, write_count, crash_tail_bytes })
}

/// Whether `dir` holds logs of the first implementation, told from the names of its files.
///
/// # Errors
///
/// [`KvsError::NoStore`] if it holds none, [`KvsError::WrongEngine`] if it holds another store.
pub fn check_old(dir: impl AsRef<Path>) -> Result<()> {
    old_logs::check(dir.as_ref())
}

/// Writes, applied a batch at a time.
struct Batches<'a, E> {
    engine: &'a E,
    batch: WriteBatch,
    len: usize,
    count: u64,
}

impl<'a, E: KvsEngine> Batches<'a, E> {
    fn new(engine: &'a E) -> Self {
        Self { engine, batch: WriteBatch::new(), len: 0, count: 0 }
    }

    fn set(&mut self, key: &[u8], value: &[u8], expiry_ms: Option<u64>) -> Result<()> {
        match expiry_ms {
            Some(expiry_ms) => self.batch.set_with_expiry(key, value, expiry_ms),
            None => self.batch.set(key, value),
        };
        self.added(key.len() + value.len())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.batch.remove(key);
        self.added(key.len())
    }

    /// Counts one write of `len` bytes, and applies the batch if it is full.
    fn added(&mut self, len: usize) -> Result<()> {
        self.len += len;
        self.count += 1;
        let is_full = self.batch.len() >= BATCH_LINES_MAX || self.len >= BATCH_LEN;
        if is_full { self.apply() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<u64> {
        self.apply()?;
        Ok(self.count)
    }

    fn apply(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.engine.apply(&self.batch)?;
        }
        self.batch.clear();
        self.len = 0;
        Ok(())
    }
}
