//! Listing: every record of a directory, one by one, with whether it is live.
//!
//! ```text
//! pass 1   every record: the highest seqno of each key          about 40 bytes of memory a key
//! pass 2   every record again: is it its key's highest, a put?  then it is live
//! ```
//! The files are read as they lie there, without opening the store and without its lock: it may be
//! damaged, or open in another process, whose half-written last record then shows as unreadable.
//! Nothing is changed. A key is known by 128 bits of a hash with a random seed.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::error::Result;
use crate::json_text;
use crate::store::disk::Disk;
use crate::store::location::{Seqno, len_of};
use crate::store::record::{BatchPlace, Kind, Record};
use crate::store::sift::Met;
use crate::store::survey::{Survey, Surveyed};

/// One record of a log, or a stretch that is none.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LogRecord<'a> {
    /// The file it is in.
    pub path: &'a Path,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How long it is in the file, in bytes.
    pub bytes: u64,
    /// Its place in the order of writes; 0 if it is unreadable.
    pub seqno: u64,
    /// "put", "tombstone" (a key was removed), "clear" (all keys were), "mark" (what was durable),
    /// "footer" (the end of a file), or "unreadable".
    pub kind: &'static str,
    /// Key of a put or tombstone, else empty.
    pub key: &'a [u8],
    /// Value of a put, else empty.
    pub value: &'a [u8],
    /// When it expires, in milliseconds since 1970.
    pub expiry_ms: Option<u64>,
    /// Whether it is the value that its key has now. Expiry is not looked at.
    pub is_live: bool,
    /// Whether it is part of a batch.
    pub in_batch: bool,
    /// What is wrong with it, if it is unreadable.
    pub damage: Option<&'static str>,
}

/// A record as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    file: std::borrow::Cow<'a, str>,
    offset: u64,
    bytes: u64,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seqno: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    batch: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_len: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<&'a str>,
}

impl LogRecord<'_> {
    /// The record as one line of JSON, without a newline: `file`, `offset`, `bytes`, `kind`; then,
    /// where they apply, `seqno`, `state` ("live" or "stale"), `batch`, `key` (`key_b64`, in
    /// base64, if it is not UTF-8), `value_len`, `expiry_ms`, `damage`, and, if `with_value`,
    /// `value` (or `value_b64`).
    ///
    /// # Panics
    ///
    /// Never: strings and numbers always have a JSON form.
    pub fn to_json(&self, with_value: bool) -> String {
        let is_put = self.kind == PUT;
        let has_key = is_put || self.kind == TOMBSTONE;
        let (key, key_b64) = if has_key { json_text::split(self.key) } else { (None, None) };
        let (value, value_b64) =
            if is_put && with_value { json_text::split(self.value) } else { (None, None) };
        let line = Line {
            file: self.path.file_name().unwrap_or_default().to_string_lossy(),
            offset: self.offset,
            bytes: self.bytes,
            kind: self.kind,
            seqno: self.damage.is_none().then_some(self.seqno),
            state: has_key.then_some(if self.is_live { "live" } else { "stale" }),
            batch: self.in_batch,
            key,
            key_b64,
            value_len: is_put.then_some(self.value.len()),
            value,
            value_b64,
            expiry_ms: self.expiry_ms,
            damage: self.damage,
        };
        serde_json::to_string(&line).expect("strings and numbers have a JSON form")
    }
}

const PUT: &str = "put";
const TOMBSTONE: &str = "tombstone";

/// The newest write of every key.
#[derive(Debug)]
pub(crate) struct Newest {
    seed: u64,
    seqnos: HashMap<[u64; 2], Seqno>,
    /// The last clear: what is older is not live.
    clear: Seqno,
}

impl Newest {
    /// Reads all of `survey`. `note` is called for each segment when it was read, with how many
    /// bytes it has.
    pub(crate) fn of(survey: &Survey, seed: u64, mut note: impl FnMut(u64)) -> Self {
        let mut newest = Self { seed, seqnos: HashMap::new(), clear: Seqno::ZERO };
        for segment in &survey.segments {
            newest.read(segment);
            note(segment.len);
        }
        newest
    }

    fn read(&mut self, segment: &Surveyed) {
        let Some(mut sift) = segment.sift() else { return };
        // A batch whose last record never came does not count.
        let mut batch = Vec::new();
        loop {
            let Met::Record { record, .. } = (match sift.step() {
                Met::End => break,
                met => met,
            }) else {
                continue;
            };
            match record.kind {
                Kind::Put | Kind::Tombstone => {}
                Kind::Clear => {
                    self.clear = self.clear.max(record.seqno);
                    continue;
                }
                Kind::Mark | Kind::Footer => continue,
            }
            batch.push((self.hash(record.key), record.seqno));
            if record.place != BatchPlace::More {
                for (hash, seqno) in batch.drain(..) {
                    let newest = self.seqnos.entry(hash).or_default();
                    *newest = seqno.max(*newest);
                }
            }
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = xxh3_128_with_seed(key, self.seed);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
        [half(hash >> 64), half(hash)]
    }

    /// Whether `record` is the newest write of its key, and nothing was cleared since.
    pub(crate) fn is(&self, record: &Record<'_>) -> bool {
        record.seqno > self.clear && self.seqnos.get(&self.hash(record.key)) == Some(&record.seqno)
    }

    /// As [`Newest::is`], once: another copy of the same write is not new any more.
    pub(crate) fn take(&mut self, record: &Record<'_>) -> bool {
        let is_newest = self.is(record);
        if is_newest {
            self.seqnos.remove(&self.hash(record.key));
        }
        is_newest
    }
}

/// Calls `visit` with every record of the store in `dir`, file by file, until it fails.
pub(crate) fn list(
    disk: &dyn Disk,
    dir: &Path,
    visit: &mut dyn FnMut(&LogRecord<'_>) -> Result<()>,
) -> Result<()> {
    let survey = Survey::take(disk, dir)?;
    let newest = Newest::of(&survey, disk.random(), |_| {});
    for segment in &survey.segments {
        let path = &segment.path;
        if let Some((offset, what)) = segment.wrong {
            visit(&unreadable(path, offset, segment.len.saturating_sub(offset), what))?;
        }
        let Some(mut sift) = segment.sift() else { continue };
        loop {
            match sift.step() {
                Met::Record { offset, record } => {
                    let is_live = record.kind == Kind::Put && newest.is(&record);
                    visit(&readable(path, offset, &record, is_live))?;
                }
                Met::Hole(hole) => {
                    visit(&unreadable(path, hole.offset, hole.end - hole.offset, hole.what))?;
                }
                Met::End => break,
            }
        }
    }
    Ok(())
}

fn unreadable<'a>(path: &'a Path, offset: u64, bytes: u64, what: &'static str) -> LogRecord<'a> {
    LogRecord {
        path,
        offset,
        bytes,
        seqno: 0,
        kind: "unreadable",
        key: b"",
        value: b"",
        expiry_ms: None,
        is_live: false,
        in_batch: false,
        damage: Some(what),
    }
}

fn readable<'a>(path: &'a Path, offset: u64, record: &Record<'a>, is_live: bool) -> LogRecord<'a> {
    let kind = match record.kind {
        Kind::Put => PUT,
        Kind::Tombstone => TOMBSTONE,
        Kind::Clear => "clear",
        Kind::Mark => "mark",
        Kind::Footer => "footer",
    };
    LogRecord {
        path,
        offset,
        bytes: len_of(record.len()),
        seqno: record.seqno.get(),
        kind,
        key: record.key,
        value: if kind == PUT { record.value } else { b"" },
        expiry_ms: record.expiry_ms,
        is_live,
        in_batch: record.place != BatchPlace::Alone,
        damage: None,
    }
}
