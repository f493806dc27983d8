//! Sift: the records of a segment file as they lie there, damage included.
//!
//! ```text
//! | header | record | record |/////////| record | record | footer |
//!                            '- hole --'
//! ```
//! A **hole** is a stretch in which no record proves itself. If its first record still has a valid
//! header, its length is trusted and the hole is that record; otherwise the sift tries every 8th
//! byte until header and body of a record are both right. It cannot mistake other bytes for one:
//! header checksums are seeded with the segment's salt and the place.
//!
//! The file is read by positioned reads in pieces, so a disk that fails is a hole and not a signal,
//! and never more than the file holds is allocated. Nothing is written. One thread sifts; the file
//! may grow meanwhile, beyond the end that was given.

use crate::store::location::{Seqno, len_of};
use crate::store::log_file::LogFile;
use crate::store::record::{self, Damage, Record, Salt};
use crate::store::segment;

/// Bytes that are read at once (1 MiB).
const PIECE_LEN: usize = 1 << 20;

/// Where one sector cannot be read, the bytes up to the next multiple of this are given up.
const SECTOR_LEN: u64 = 4096;

const RECORD_HEADER_LEN: usize = record::HEADER_LEN;

/// a sift through the records of one file.
pub(crate) struct Sift<'a> {
    log: &'a LogFile,
    salt: Salt,
    offset: u64,
    /// Nothing begins here or behind.
    end: u64,
    /// Where the file ends.
    file_end: u64,
    piece: Vec<u8>,
    /// Where `piece` begins.
    base: u64,
}

/// What a [`Sift`] meets.
#[derive(Debug)]
pub(crate) enum Met<'a> {
    /// A record, verified.
    Record { offset: u64, record: Record<'a> },
    /// Bytes that are no record.
    Hole(Hole),
    /// The end.
    End,
}

/// A stretch without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) what: &'static str,
    /// The write that was here, if its header is right: then it is the only one.
    pub(crate) seqno: Option<Seqno>,
}

/// What lies at one offset.
enum Probe {
    Record(usize),
    Bad {
        what: &'static str,
        /// Where to look next.
        next: u64,
        seqno: Option<Seqno>,
    },
}

impl<'a> Sift<'a> {
    /// a sift through the records of `log`, which end at `end`.
    pub(crate) fn new(log: &'a LogFile, salt: Salt, end: u64) -> Self {
        let (offset, piece) = (segment::HEADER_LEN, Vec::new());
        Self { log, salt, offset, end, file_end: end, piece, base: 0 }
    }

    /// The same, but no record begins at `end` or behind.
    pub(crate) fn until(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// The same, from `offset` on.
    pub(crate) fn from(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// How far it has come, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.min(self.end)
    }

    /// The next record or hole.
    pub(crate) fn step(&mut self) -> Met<'_> {
        let offset = self.offset;
        if offset >= self.end {
            return Met::End;
        }
        match self.probe(offset) {
            Probe::Record(len) => {
                self.offset += len_of(len);
                let salt = self.salt;
                let record =
                    Record::decode(self.have(offset, len).unwrap_or_default(), salt, offset);
                Met::Record { offset, record: record.expect("it was verified just now") }
            }
            Probe::Bad { what, next, seqno } => {
                self.offset = if seqno.is_some() { next } else { self.resynchronise(next) };
                Met::Hole(Hole { offset, end: self.offset, what, seqno })
            }
        }
    }

    /// The next place from `at` on where a record begins, or the end.
    fn resynchronise(&mut self, mut at: u64) -> u64 {
        while at < self.end {
            match self.probe(at) {
                Probe::Record(_) => return at,
                // A header found by trying proves nothing without its body: go on right behind it.
                Probe::Bad { seqno: Some(_), .. } => at += 8,
                Probe::Bad { next, seqno: None, .. } => at = next,
            }
        }
        self.end
    }

    fn probe(&mut self, at: u64) -> Probe {
        let left = self.file_end - at;
        let bad = |damage: Damage, next, seqno| Probe::Bad { what: damage.what(), next, seqno };
        if left < len_of(RECORD_HEADER_LEN) {
            return bad(Damage::Short, self.file_end, None);
        }
        let unreadable = Probe::Bad {
            what: "the disk cannot read it",
            next: (at + 1).next_multiple_of(SECTOR_LEN).min(self.file_end),
            seqno: None,
        };
        let salt = self.salt;
        let Some(header) = self.fetch(at, RECORD_HEADER_LEN) else { return unreadable };
        let Some(len) = record::valid_header_len(header, salt, at) else {
            return bad(Damage::Header, at + 8, None);
        };
        let seqno = record::seqno_from_header(header);
        if len_of(len) > left {
            return bad(Damage::Short, self.file_end, seqno);
        }
        let Some(bytes) = self.fetch(at, len) else { return unreadable };
        match Record::decode(bytes, salt, at) {
            Ok(_) => Probe::Record(len),
            Err(damage) => bad(damage, at + len_of(len), seqno),
        }
    }

    /// The `len` bytes at `at`, which lie before the end; `None` if the disk refuses.
    fn fetch(&mut self, at: u64, len: usize) -> Option<&[u8]> {
        if self.have(at, len).is_none() {
            let left = usize::try_from(self.file_end - at).unwrap_or(usize::MAX);
            let ample = self.read(at, len.max(PIECE_LEN).min(left));
            // Where a long read fails, the bytes that are asked for may still be there.
            if !ample && !self.read(at, len) {
                return None;
            }
        }
        self.have(at, len)
    }

    fn read(&mut self, at: u64, len: usize) -> bool {
        self.piece.resize(len, 0);
        self.base = at;
        let done = self.log.read_at(&mut self.piece, at).is_ok();
        if !done {
            self.piece.clear();
        }
        done
    }

    fn have(&self, at: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.base)?).ok()?;
        self.piece.get(from..)?.get(..len)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::{KvsError, Result};
    use crate::options::ReadMode;
    use crate::store::disk::{Disk, DiskFile, Mapping, RealDisk, Words};
    use crate::store::record::{BatchPlace, Draft};

    const SALT: Salt = Salt(5);

    /// A file in which one stretch cannot be read.
    #[derive(Debug)]
    struct BadSectors {
        file: Box<dyn DiskFile>,
        from: u64,
        to: u64,
    }

    impl DiskFile for BadSectors {
        fn path(&self) -> &Path {
            self.file.path()
        }

        fn len(&self) -> Result<u64> {
            self.file.len()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
            if offset < self.to && offset + len_of(buffer.len()) > self.from {
                let source = std::io::Error::from_raw_os_error(libc::EIO);
                return Err(KvsError::io("read", self.path(), source));
            }
            self.file.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
            self.file.write_at(bytes, offset)
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.file.set_len(len)
        }

        fn sync(&self) -> Result<()> {
            self.file.sync()
        }

        fn map(&self, capacity: usize) -> Result<Mapping> {
            self.file.map(capacity)
        }

        fn map_shared(&self, len: usize) -> Result<Words> {
            self.file.map_shared(len)
        }
    }

    /// `count` records of 1,024 bytes each, behind room for the header of a segment.
    fn records(count: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        for seqno in 1..=count {
            let draft = Draft::put(b"key", &[7; 1024 - 27]);
            draft.encode(&mut bytes, 0, SALT, Seqno::new(seqno), BatchPlace::Alone);
        }
        bytes
    }

    fn file(dir: &Path, bytes: &[u8]) -> Box<dyn DiskFile> {
        let path = dir.join("file");
        let _ = std::fs::remove_file(&path);
        let file = RealDisk.create(&path).unwrap();
        file.write_at(bytes, 0).unwrap();
        file
    }

    /// Seqnos of the records, and the holes.
    fn sift(file: Box<dyn DiskFile>) -> (Vec<u64>, Vec<Hole>) {
        let len = file.len().unwrap();
        let log = LogFile::grown(file, len, ReadMode::Positioned, None);
        let mut sift = Sift::new(&log, SALT, len);
        let (mut seqnos, mut holes) = (Vec::new(), Vec::new());
        loop {
            match sift.step() {
                Met::Record { record, .. } => seqnos.push(record.seqno.get()),
                Met::Hole(hole) => holes.push(hole),
                Met::End => return (seqnos, holes),
            }
        }
    }

    #[test]
    fn a_damaged_body_costs_its_record_and_a_damaged_header_no_more() {
        let dir = tempfile::tempdir().unwrap();
        for (at, seqno) in [(64 + 1024 + 500, Some(2)), (64 + 1024 + 16, None), (64 + 1024, None)] {
            let mut bytes = records(5);
            bytes[at] ^= 1;
            let (seqnos, holes) = sift(file(dir.path(), &bytes));
            assert_eq!(seqnos, [1, 3, 4, 5], "byte {at}");
            let [hole] = holes[..] else { panic!("{holes:?}") };
            assert_eq!((hole.offset, hole.end), (64 + 1024, 64 + 2048));
            assert_eq!(hole.seqno.map(Seqno::get), seqno);
        }
    }

    /// Every length to which a file can be cut: whole records before, one hole, no panic.
    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = records(2);
        for len in 64..bytes.len() {
            let (seqnos, holes) = sift(file(dir.path(), &bytes[..len]));
            let whole = (len - 64) / 1024;
            assert_eq!(seqnos.len(), whole, "{len} bytes");
            assert_eq!(holes.len(), usize::from(!(len - 64).is_multiple_of(1024)), "{len} bytes");
        }
    }

    /// A length in a header that was never written is not believed.
    #[test]
    fn a_record_that_says_it_is_longer_than_the_file_is_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 64];
        let long = vec![0; 1 << 20];
        let draft = Draft::put(b"key", &long);
        draft.encode(&mut bytes, 0, SALT, Seqno::new(1), BatchPlace::Alone);
        let (seqnos, holes) = sift(file(dir.path(), &bytes[..5000]));
        assert_eq!((seqnos.len(), holes.len()), (0, 1));
        assert_eq!((holes[0].end, holes[0].seqno), (5000, Some(Seqno::new(1))));
    }

    #[test]
    fn sectors_that_cannot_be_read_are_a_hole_and_the_rest_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), &records(40));
        let (from, to) = (4096, 8192);
        let (seqnos, holes) = sift(Box::new(BadSectors { file, from, to }));
        let lies_outside = |seqno: &u64| 64 + seqno * 1024 <= from || 64 + (seqno - 1) * 1024 >= to;
        let expected: Vec<_> = (1..=40).filter(lies_outside).collect();
        assert_eq!(seqnos, expected);
        assert_eq!(holes.len(), 1, "{holes:?}");
        assert!(holes[0].what.contains("cannot read"), "{holes:?}");
    }
}
