//! Logs of the first implementation: reading them, so that they can be imported.
//!
//! ```text
//! 1.log  2.log  10.log  ...        replayed in the order of their numbers
//! {"Set":{"key":"no","value":"Oslo"}}    or    {"cmd":"Set","key":"no","value":"Oslo"}
//! {"Remove":{"key":"no"}}                      {"cmd":"Remove","key":"no"}
//! ```
//! One object per line; several on a line are taken too. A process that died may have left half a
//! line at the very end: such a **crash tail** is passed over and counted. Broken text that any
//! write follows, in that file or a later one, is an error with file and line; so is text that no
//! write begins like, and whole JSON that is no write: another program's log. Files are opened for
//! reading only. One thread reads.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine_dir;
use crate::error::{KvsError, Result};
use crate::store::disk::{Disk, DiskFile, RealDisk};
use crate::store::location::len_of;
use crate::store::names::{self, Name};
use crate::store::stats::Progress;

/// One write of an old log.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OldLine {
    Nested(Nested),
    Flat(Flat),
}

#[derive(Debug, Deserialize)]
enum Nested {
    Set { key: String, value: String },
    Remove { key: String },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd")]
enum Flat {
    Set { key: String, value: String },
    Remove { key: String },
}

/// What reading the logs showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OldLogs {
    pub(crate) file_count: u64,
    pub(crate) crash_tail_bytes: u64,
}

/// What is done with each write: key, and value unless it is a removal.
pub(crate) type Visit<'a> = dyn FnMut(String, Option<String>) -> Result<()> + 'a;

/// Calls `visit` with every write of the logs in `dir`, oldest first, and `progress` after
/// each file.
pub(crate) fn read(
    dir: &Path,
    visit: &mut Visit<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<OldLogs> {
    let disk = RealDisk;
    let mut logs = Vec::new();
    for number in numbers(&disk, dir)? {
        let file = disk.open_to_read(&names::old_log(dir, number))?;
        let len = file.len()?;
        logs.push((file, len));
    }
    let total_bytes = logs.iter().map(|(_, len)| len).sum();
    let mut found = OldLogs::default();
    let mut done_bytes = 0;
    let mut tail = None;
    for (file, len) in logs {
        found.file_count += 1;
        let mut reader = Reader { file: &*file, len, line: 0, tail };
        reader.read(visit)?;
        tail = reader.tail;
        done_bytes += len;
        progress(Progress { done_bytes, total_bytes });
    }
    found.crash_tail_bytes = tail.map_or(0, |tail| tail.bytes);
    Ok(found)
}

/// Refuses a directory without such logs, and says why.
pub(crate) fn check(dir: &Path) -> Result<()> {
    numbers(&RealDisk, dir).map(drop)
}

/// The numbers of the old logs in `dir`, or why it has none.
fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let path = dir.to_path_buf();
    if !disk.exists(dir)? {
        return Err(KvsError::NoStore { path });
    }
    if let Some(found) = engine_dir::engine_in(dir)? {
        return Err(KvsError::WrongEngine { path, found, asked: "the first implementation" });
    }
    let files = disk.list(dir)?;
    let number = |name: &std::ffi::OsString| match Name::parse(name) {
        Name::OldLog(number) => Some(number),
        _ => None,
    };
    let mut numbers: Vec<_> = files.iter().filter_map(number).collect();
    numbers.sort_unstable();
    if numbers.is_empty() { Err(KvsError::NoStore { path }) } else { Ok(numbers) }
}

/// Broken text that nothing has followed yet.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    line: u64,
    bytes: u64,
}

impl Tail {
    /// Text that writes follow.
    fn into_error(self) -> KvsError {
        self.into_error_that("not a write of the first implementation, though others follow it")
    }

    fn into_error_that(self, what: &'static str) -> KvsError {
        KvsError::BadLine { path: Some(self.path), line: self.line, what }
    }
}

struct Reader<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    line: u64,
    tail: Option<Tail>,
}

impl Reader<'_> {
    fn read(&mut self, visit: &mut Visit<'_>) -> Result<()> {
        let failed = |source| KvsError::io("read", self.file.path(), source);
        let mut lines = BufReader::new(Bytes { file: self.file, offset: 0, len: self.len });
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            self.line += 1;
            self.take(&line, visit)?;
        }
    }

    /// Takes the writes of one line.
    fn take(&mut self, line: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let mut writes = serde_json::Deserializer::from_slice(line).into_iter::<OldLine>();
        let mut end = 0;
        while let Some(write) = writes.next() {
            // Whatever follows a broken line shows that it was no crash tail.
            if let Some(tail) = self.tail.take() {
                return Err(tail.into_error());
            }
            let write = match write {
                Ok(write) => write,
                Err(error) => {
                    let rest = line.get(end..).unwrap_or_default();
                    return self.take_broken(rest, error.is_data());
                }
            };
            end = writes.byte_offset();
            match write {
                OldLine::Nested(Nested::Set { key, value })
                | OldLine::Flat(Flat::Set { key, value }) => visit(key, Some(value))?,
                OldLine::Nested(Nested::Remove { key }) | OldLine::Flat(Flat::Remove { key }) => {
                    visit(key, None)?;
                }
            }
        }
        Ok(())
    }

    /// Takes down broken text, unless it cannot be a write that was cut. `is_whole` says that it is
    /// sound JSON, but no write.
    fn take_broken(&mut self, rest: &[u8], is_whole: bool) -> Result<()> {
        let bytes = len_of(rest.len());
        let tail = Tail { path: self.file.path().to_path_buf(), line: self.line, bytes };
        if is_whole || !begins_like_a_write(rest) {
            return Err(tail.into_error_that("not a write of the first implementation"));
        }
        if !is_one_write(rest) {
            return Err(tail.into_error());
        }
        self.tail = Some(tail);
        Ok(())
    }
}

/// Whether broken text can have been begun as a write. Zeros are what a disk may leave of one.
fn begins_like_a_write(rest: &[u8]) -> bool {
    let text = rest.trim_ascii_start();
    text.starts_with(b"{") || text.iter().all(|byte| *byte == 0)
}

/// Whether broken text can be a single write that was cut: no other begins in it.
fn is_one_write(rest: &[u8]) -> bool {
    let begins = |write: &[u8]| write.starts_with(b"}{");
    !rest.windows(2).any(begins)
}

/// A file as a stream.
struct Bytes<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    len: u64,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let buffer = buffer.get_mut(..len).unwrap_or_default();
        self.file.read_at(buffer, self.offset).map_err(io::Error::other)?;
        self.offset += len_of(len);
        Ok(len)
    }
}
