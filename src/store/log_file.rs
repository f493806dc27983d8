//! A log file: a file that only grows, read by anyone, appended by the one holder of its
//! [`LogWriter`].
//!
//! ```text
//!  0                       flushed                 written            capacity
//!  |  in the file           |  in the tail          |  not there yet   |
//!  +------------------------+-----------------------+------------------+
//!  mapped read-only, once, when the file is created; the file grows beneath the mapping
//! ```
//! Without a tail, and in a sealed file, `flushed` and `written` are the same.
//!
//! Where every append is synced, the file is made longer ahead of them, by a hole that reads as
//! zeros and takes no room: a sync then has bytes to write and no new length, which is a third of
//! what it costs. A sealed file ends where its bytes do; in one that was not sealed, [`used_len`]
//! tells from where on there is nothing.
//!
//! Invariants: bytes below `written` can be read and never change (invariant 1); those below
//! `flushed` are in the file. Readers see only those. Nobody writes through this mapping.
//!
//! This file interprets no bytes. Any thread may read.
#![expect(unsafe_code, reason = "slices of mapped files")]

use std::path::Path;

use crate::error::{KvsError, Result};
use crate::options::ReadMode;
use crate::store::disk::{DiskFile, Mapping};
use crate::store::location::len_of;
use crate::store::tail::{PIECE_LEN, Rest, Tail};
use crate::sync::{Arc, AtomicU64, CachePadded, Ordering};

/// A file that only grows. Reading takes no lock and, mapped, no system call.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Box<dyn DiskFile>,
    /// `None` for positioned reads.
    mapping: Option<Mapping>,
    flushed: AtomicU64,
    written: CachePadded<AtomicU64>,
    behind: Behind,
}

/// What holds the bytes from `flushed` on.
#[derive(Debug)]
enum Behind {
    /// There are none.
    Nothing,
    /// The tail of an open store, where this log's positions begin at `base`.
    Tail { tail: Arc<Tail>, base: u64 },
    /// What was found in the tail that another process left, or is using.
    Rest(Rest),
}

/// What a log is given before there are bytes for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ahead<'a> {
    /// Nothing: each append makes the file longer.
    Nothing,
    /// A longer file: for appends that are synced one by one.
    Room,
    /// A tail, where appends go first: for those that are not.
    Tail(&'a Arc<Tail>),
}

/// How much longer a file is made at once (1 MiB). Little in tests, so that they see it often, and
/// beyond the end of a page.
const ROOM_LEN: u64 = if cfg!(test) { 3 << 9 } else { 1 << 20 };

/// Bytes that are looked at in one piece for [`used_len`].
const LOOK_LEN: usize = if cfg!(test) { 1 << 8 } else { 64 << 10 };

/// Everything in a log is a multiple of this long.
const UNIT_LEN: u64 = 8;

/// Length of `file` without what of it is zeros to its end: what is to come was not written yet. A
/// record may end with zeros, so this is not where the next one begins.
pub(crate) fn used_len(file: &dyn DiskFile) -> Result<u64> {
    let len = file.len()?;
    let mut end = len;
    let mut piece = Vec::new();
    while end > 0 {
        let start = (end - 1) / len_of(LOOK_LEN) * len_of(LOOK_LEN);
        piece.resize(usize::try_from(end - start).unwrap_or(LOOK_LEN), 0);
        file.read_at(&mut piece, start)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok((start + len_of(last) + 1).next_multiple_of(UNIT_LEN).min(len));
        }
        end = start;
    }
    Ok(0)
}

/// The right to append to one [`LogFile`]. There is one per file, so bytes that readers see are
/// never written again.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<LogFile>,
    /// The bytes from `flushed` to `written`.
    pending: Vec<u8>,
    /// How long the file is, if it is made longer ahead of what is written.
    room_end: Option<u64>,
    capacity: u64,
}

impl LogFile {
    /// An empty file that will grow to `capacity` bytes at most.
    pub(crate) fn create(
        file: Box<dyn DiskFile>,
        capacity: u64,
        read_mode: ReadMode,
        ahead: Ahead<'_>,
    ) -> (Arc<Self>, LogWriter) {
        let (behind, pending, room_end) = match ahead {
            Ahead::Nothing => (Behind::Nothing, Vec::new(), None),
            Ahead::Room => (Behind::Nothing, Vec::new(), Some(0)),
            Ahead::Tail(tail) => {
                let behind = Behind::Tail { tail: Arc::clone(tail), base: tail.begin() };
                (behind, Vec::with_capacity(PIECE_LEN), None)
            }
        };
        let log = Arc::new(Self::new(file, 0, capacity, read_mode, behind));
        (Arc::clone(&log), LogWriter { log, pending, room_end, capacity })
    }

    /// A file that will not grow any more, up to `len` bytes, and what a tail has of it.
    pub(crate) fn grown(
        file: Box<dyn DiskFile>,
        len: u64,
        read_mode: ReadMode,
        rest: Option<Rest>,
    ) -> Self {
        let Some(rest) = rest else {
            return Self::new(file, len, len, read_mode, Behind::Nothing);
        };
        let end = rest.from + len_of(rest.bytes.len());
        let from = rest.from;
        let log = Self::new(file, from, from, read_mode, Behind::Rest(rest));
        // Relaxed: nobody else knows it yet.
        log.written.store(end, Ordering::Relaxed);
        log
    }

    fn new(
        file: Box<dyn DiskFile>,
        written: u64,
        capacity: u64,
        read_mode: ReadMode,
        behind: Behind,
    ) -> Self {
        let mapping = match (read_mode, usize::try_from(capacity)) {
            (ReadMode::Mapped, Ok(capacity)) if capacity > 0 => match file.map(capacity) {
                Ok(mapping) => Some(mapping),
                // Address space or the number of mappings is used up: slower beats refused.
                Err(error) => {
                    log::warn!("reading without a mapping: {error}");
                    None
                }
            },
            _ => None,
        };
        let (flushed, written) = (AtomicU64::new(written), AtomicU64::new(written).into());
        Self { file, mapping, flushed, written, behind }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// How many bytes readers may look at.
    pub(crate) fn len(&self) -> u64 {
        // Acquire: pairs with the Release in `LogWriter::append`.
        self.written.load(Ordering::Acquire)
    }

    #[inline]
    fn flushed(&self) -> u64 {
        // Acquire: pairs with the Release in `LogWriter::write`.
        self.flushed.load(Ordering::Acquire)
    }

    /// Its length without the zeros that may be at the end of the file.
    pub(crate) fn used_len(&self) -> Result<u64> {
        match &self.behind {
            // What goes on in a tail has no room at its end.
            Behind::Rest(_) => Ok(self.len()),
            _ => Ok(used_len(&*self.file)?.min(self.len())),
        }
    }

    /// Lets readers look at no more than `len` bytes. For a file that another process appends to.
    pub(crate) fn shorten_to(&self, len: u64) {
        // Release: pairs with the Acquires in `len` and `flushed`.
        self.written.fetch_min(len, Ordering::Release);
        self.flushed.fetch_min(len, Ordering::Release);
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// Everything from `offset` on that lies in memory in one piece and never changes; `None` if
    /// `offset` does not.
    #[inline]
    pub(crate) fn mapped_from(&self, offset: u64) -> Option<&[u8]> {
        let mapping = self.mapping.as_ref()?;
        let to = usize::try_from(self.flushed()).ok()?;
        let from = usize::try_from(offset).ok()?;
        if from >= to {
            return self.rest_from(offset);
        }
        // SAFETY:
        // 1. `from < to` was checked; `to` is at most what was flushed, which `LogWriter::write`
        //    keeps within the capacity that was mapped.
        // 2. Bytes below `flushed` are in the file, which is never truncated below it, and only
        //    the one `LogWriter` writes, never below `flushed`.
        Some(unsafe { mapping.slice(from, to) })
    }

    /// What was found in a tail, from `offset` on.
    #[cold]
    fn rest_from(&self, offset: u64) -> Option<&[u8]> {
        let Behind::Rest(rest) = &self.behind else { return None };
        let from = usize::try_from(offset.checked_sub(rest.from)?).ok()?;
        let to = usize::try_from(self.len().checked_sub(rest.from)?).ok()?;
        rest.bytes.get(from..to)
    }

    /// Whether bytes at `offset` can be lent for as long as the file is held.
    pub(crate) fn lends(&self, offset: u64) -> bool {
        self.mapping.is_some() && offset < self.flushed()
    }

    /// Reads up to `len` bytes from `offset` into `buffer`, fewer if they end before.
    pub(crate) fn read_into(&self, buffer: &mut Vec<u8>, offset: u64, len: usize) -> Result<()> {
        let left = self.len().saturating_sub(offset);
        let len = usize::try_from(left).map_or(len, |left| left.min(len));
        buffer.resize(len, 0);
        self.read_at(buffer, offset)
    }

    /// Fills `buffer` from `offset`, a multiple of 8. Bytes that end before are an error. From the
    /// file it reads by position, so that a disk which fails is an error and no signal.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        loop {
            let flushed = self.flushed();
            let in_file = usize::try_from(flushed.saturating_sub(offset)).unwrap_or(usize::MAX);
            let Some((front, back)) = buffer.split_at_mut_checked(in_file) else {
                return self.file.read_at(buffer, offset);
            };
            let at = offset + len_of(front.len());
            let is_there = match &self.behind {
                _ if back.is_empty() => true,
                Behind::Nothing => return self.file.read_at(buffer, offset),
                // What was overwritten meanwhile was flushed before: the file has it.
                Behind::Tail { tail, base } => tail.copy(base + at, back),
                Behind::Rest(rest) => {
                    let from =
                        at.checked_sub(rest.from).and_then(|from| usize::try_from(from).ok());
                    let bytes = from.and_then(|from| rest.bytes.get(from..)?.get(..back.len()));
                    // Beyond the end: the file says so in its own words.
                    let Some(bytes) = bytes else { return self.file.read_at(buffer, offset) };
                    back.copy_from_slice(bytes);
                    true
                }
            };
            if is_there {
                let is_all = front.is_empty();
                return if is_all { Ok(()) } else { self.file.read_at(front, offset) };
            }
        }
    }

    /// The bytes below `end` that are not in the file, and where they begin. Nothing if the file
    /// has all of them.
    pub(crate) fn missing_below(&self, end: u64) -> Option<(u64, &[u8])> {
        let Behind::Rest(rest) = &self.behind else { return None };
        let len = usize::try_from(end.checked_sub(rest.from)?).ok()?;
        Some((rest.from, rest.bytes.get(..len)?))
    }
}

/// How an append failed.
#[derive(Debug)]
pub(crate) struct AppendError {
    pub(crate) error: KvsError,
    /// Whether the file is as it was before. If not, nothing more may be appended to it.
    pub(crate) undone: bool,
}

impl LogWriter {
    /// Appends `bytes` and lets readers see them. They survive the death of the process from here
    /// on: they are in the file, or, if there is a tail and `through` does not say otherwise, in
    /// the tail.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. Then nothing of `bytes` was ever visible.
    pub(crate) fn append(&mut self, bytes: &[u8], through: bool) -> Result<(), AppendError> {
        let is_piece = self.pending.len() + bytes.len() > PIECE_LEN;
        let Behind::Tail { tail, base } = &self.log.behind else {
            self.make_room(bytes.len());
            return self.write(bytes);
        };
        if through || bytes.len() > PIECE_LEN {
            self.flush()?;
            return self.write(bytes);
        }
        let (tail, base) = (Arc::clone(tail), *base);
        if is_piece {
            self.flush()?;
        }
        // Relaxed: only this writer changes it.
        let start = self.log.written.load(Ordering::Relaxed);
        // A piece and these bytes are half of a tail at most, so all that is overwritten was
        // flushed.
        tail.put(base + start, bytes);
        self.pending.extend_from_slice(bytes);
        // Release: pairs with the Acquire in `LogFile::len`: who sees the length sees the bytes.
        self.log.written.store(start + len_of(bytes.len()), Ordering::Release);
        Ok(())
    }

    /// Appends `bytes`, behind which the file ends: nothing is to come after them.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. If that was undone, it can be appended to as before.
    pub(crate) fn append_last(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        self.flush()?;
        let end = self.log.flushed();
        if let Some(room_end) = &mut self.room_end
            && *room_end > end
        {
            // First: if this fails, nothing has changed.
            self.log.file.set_len(end).map_err(|error| AppendError { error, undone: true })?;
            *room_end = end;
        }
        self.write(bytes)
    }

    /// Whether everything is in the file.
    pub(crate) fn is_flushed(&self) -> bool {
        self.pending.is_empty()
    }

    /// Brings what is in the tail only into the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. Then all of it is still in the tail, and can be read.
    pub(crate) fn flush(&mut self) -> Result<(), AppendError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let flushed = self.write(&pending);
        self.pending = pending;
        flushed.map(|()| self.pending.clear())
    }

    /// Makes the file longer than `len` more bytes need it to be, where it is not long enough.
    fn make_room(&mut self, len: usize) {
        let end = self.log.flushed() + len_of(len);
        if self.room_end.is_none_or(|room_end| end <= room_end) {
            return;
        }
        let wanted = end.next_multiple_of(ROOM_LEN).min(self.capacity);
        // Where there is no room, the bytes may still find some: then it is only slower.
        if wanted > end && self.log.file.set_len(wanted).is_ok() {
            self.room_end = Some(wanted);
        }
    }

    /// Appends `bytes` to the file with one write. On failure it is cut back to what it was.
    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let log = &*self.log;
        // Relaxed: only this writer changes it.
        let start = log.flushed.load(Ordering::Relaxed);
        let end = start + len_of(bytes.len());
        assert!(end <= self.capacity, "the caller keeps within the capacity it asked for");
        if let Err(error) = log.file.write_at(bytes, start) {
            self.room_end = self.room_end.map(|_| start);
            // The cut is made durable: after a power loss, sectors of the failed bytes must not
            // turn up among those that are written over them.
            let undone = log.file.set_len(start).and_then(|()| log.file.sync()).is_ok();
            return Err(AppendError { error, undone });
        }
        // Release: pairs with the Acquires in `flushed` and `len`: who sees the length sees the
        // bytes, which the kernel's page cache had before.
        log.flushed.store(end, Ordering::Release);
        log.written.fetch_max(end, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::modelled::ModelledDisk;
    use crate::store::disk::{Disk, RealDisk};

    const CAPACITY: u64 = 1 << 20;

    fn log_file(dir: &Path, read_mode: ReadMode, ahead: Ahead<'_>) -> (Arc<LogFile>, LogWriter) {
        let file = RealDisk.create(&dir.join("log")).unwrap();
        LogFile::create(file, CAPACITY, read_mode, ahead)
    }

    #[test]
    fn readers_see_what_was_appended_and_nothing_beyond() {
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let dir = tempfile::tempdir().unwrap();
            let (log, mut writer) = log_file(dir.path(), read_mode, Ahead::Nothing);
            writer.append(b"hello...", false).unwrap();
            writer.append(b"world", false).unwrap();
            let mut buffer = Vec::new();
            log.read_into(&mut buffer, 8, 100).unwrap();
            assert_eq!(buffer, b"world");
            match read_mode {
                ReadMode::Mapped => {
                    assert_eq!(log.mapped_from(0), Some(&b"hello...world"[..]));
                    assert_eq!(log.mapped_from(13), None);
                }
                ReadMode::Positioned => assert_eq!(log.mapped_from(0), None),
            }
        }
    }

    /// Bytes are read from the file, from the tail, and across the border, whatever was flushed.
    #[test]
    fn what_is_in_the_tail_is_read_like_what_is_in_the_file() {
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let dir = tempfile::tempdir().unwrap();
            let tail = Arc::new(Tail::open(&RealDisk, &dir.path().join("TAIL")).unwrap());
            let (log, mut writer) = log_file(dir.path(), read_mode, Ahead::Tail(&tail));
            let mut model = Vec::new();
            let mut buffer = Vec::new();
            for n in 0..400_u32 {
                let bytes =
                    vec![u8::try_from(n % 250).unwrap(); 8 * usize::try_from(n % 9).unwrap()];
                let through = n % 41 == 40;
                writer.append(&bytes, through).unwrap();
                model.extend_from_slice(&bytes);
                let on_disk = std::fs::read(log.path()).unwrap();
                assert!(model.starts_with(&on_disk) && model.len() - on_disk.len() <= PIECE_LEN);
                assert!(!through || on_disk.len() == model.len());
                for back in [8, 64, 1000, model.len()] {
                    let from = model.len().saturating_sub(back);
                    log.read_into(&mut buffer, len_of(from), back).unwrap();
                    assert_eq!(buffer, model[from..], "{n} {back}");
                }
            }
            let piece = vec![1; 2 * PIECE_LEN];
            writer.append(&piece, false).unwrap();
            model.extend_from_slice(&piece);
            assert_eq!(std::fs::read(log.path()).unwrap(), model, "long ones go through");
        }
    }

    /// The file is longer than what is in it, by a hole, and ends where its bytes do once the last
    /// ones are there. Values of zeros are bytes as well.
    #[test]
    fn a_file_with_room_ends_where_its_bytes_do_when_the_last_are_there() {
        for last_len in [8, 1000, CAPACITY - 4800] {
            let dir = tempfile::tempdir().unwrap();
            let (log, mut writer) = log_file(dir.path(), ReadMode::Mapped, Ahead::Room);
            let file_len = || std::fs::metadata(log.path()).unwrap().len();
            let mut model = Vec::new();
            for n in 0..100 {
                let bytes = [n; 48];
                writer.append(&bytes, true).unwrap();
                model.extend_from_slice(&bytes);
                let room = file_len().checked_sub(log.len()).unwrap();
                assert!(room < ROOM_LEN && file_len() % ROOM_LEN == 0, "{n}: {room}");
                assert_eq!(log.len(), len_of(model.len()));
                let used = if n == 0 { 0 } else { log.len() };
                assert_eq!(log.used_len().unwrap(), used);
            }
            let last = vec![7; usize::try_from(last_len).unwrap()];
            writer.append_last(&last).unwrap();
            model.extend_from_slice(&last);
            assert_eq!(std::fs::read(log.path()).unwrap(), model);
        }
    }

    /// A disk on which there is no room for more than is written, and then none for that.
    #[test]
    fn room_that_is_not_to_be_had_is_done_without() {
        let (disk, path) = (ModelledDisk::default(), Path::new("/log"));
        disk.limit(1500);
        let file = disk.create(path).unwrap();
        let (log, mut writer) = LogFile::create(file, CAPACITY, ReadMode::Positioned, Ahead::Room);
        for _ in 0..15 {
            writer.append(&[7; 96], true).unwrap();
        }
        let failed = writer.append(&[7; 96], true).unwrap_err();
        assert!(failed.undone && matches!(failed.error, KvsError::NoSpace { .. }), "{failed:?}");
        assert_eq!(log.len(), 15 * 96);
        writer.append(&[8; 8], true).unwrap();
        writer.append_last(&[9; 8]).unwrap();
        let file = disk.open(path).unwrap();
        assert_eq!(file.len().unwrap(), 15 * 96 + 16);
        assert_eq!(log.len(), 15 * 96 + 16);
    }

    /// As after a kill: the file ends somewhere, and the rest is found elsewhere.
    #[test]
    fn a_rest_is_read_like_what_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let bytes: Vec<u8> = (0..240).collect();
        std::fs::write(&path, &bytes[..100]).unwrap();
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let rest = Rest { from: 96, bytes: bytes[96..].to_vec() };
            let file = RealDisk.open_to_read(&path).unwrap();
            let log = LogFile::grown(file, 100, read_mode, Some(rest));
            assert_eq!(log.len(), 240);
            let mut buffer = Vec::new();
            for (from, len) in [(0, 96), (0, 240), (80, 40), (96, 8), (200, 40), (200, 100)] {
                log.read_into(&mut buffer, len_of(from), len).unwrap();
                assert_eq!(buffer, bytes[from..(from + len).min(240)]);
            }
            assert!(log.read_at(&mut [0; 16], 232).is_err());
            if read_mode == ReadMode::Mapped {
                assert_eq!(log.mapped_from(88), Some(&bytes[88..96]));
                assert_eq!(log.mapped_from(96), Some(&bytes[96..]));
            }
            assert_eq!(log.missing_below(200), Some((96, &bytes[96..200])));
            assert_eq!(log.missing_below(90), None);
            log.shorten_to(120);
            log.read_into(&mut buffer, 96, 100).unwrap();
            assert_eq!(buffer, bytes[96..120]);
        }
    }
}
