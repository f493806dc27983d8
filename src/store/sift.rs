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

use crate::store::disk::DiskFile;
use crate::store::location::Seqno;
use crate::store::record::{self, Damage, Record, Salt};
use crate::store::segment;

/// Bytes that are read at once (1 MiB).
const PIECE_LEN: usize = 1 << 20;

/// Where one sector cannot be read, the bytes up to the next multiple of this are given up.
const SECTOR_LEN: u64 = 4096;

const RECORD_HEADER_LEN: usize = record::HEADER_LEN;

/// a sift through the records of one file.
pub(crate) struct Sift<'a> {
    file: &'a dyn DiskFile,
    salt: Salt,
    offset: u64,
    end: u64,
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
    /// a sift through the records of `file`, which end at `end`.
    pub(crate) fn new(file: &'a dyn DiskFile, salt: Salt, end: u64) -> Self {
        Self { file, salt, offset: segment::HEADER_LEN, end, piece: Vec::new(), base: 0 }
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
                self.offset += offset_of(len);
                let record = Record::parse(self.have(offset, len).unwrap_or_default());
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
        let left = self.end - at;
        let bad = |damage: Damage, next, seqno| Probe::Bad { what: damage.what(), next, seqno };
        if left < offset_of(RECORD_HEADER_LEN) {
            return bad(Damage::Short, self.end, None);
        }
        let unreadable = Probe::Bad {
            what: "the disk cannot read it",
            next: (at + 1).next_multiple_of(SECTOR_LEN).min(self.end),
            seqno: None,
        };
        let salt = self.salt;
        let Some(header) = self.fetch(at, RECORD_HEADER_LEN) else { return unreadable };
        let Some(len) = record::valid_header_len(header, salt, at) else {
            return bad(Damage::Header, at + 8, None);
        };
        let seqno = record::seqno_from_header(header);
        if offset_of(len) > left {
            return bad(Damage::Short, self.end, seqno);
        }
        let Some(bytes) = self.fetch(at, len) else { return unreadable };
        match Record::decode(bytes, salt, at) {
            Ok(_) => Probe::Record(len),
            Err(damage) => bad(damage, at + offset_of(len), seqno),
        }
    }

    /// The `len` bytes at `at`, which lie before the end; `None` if the disk refuses.
    fn fetch(&mut self, at: u64, len: usize) -> Option<&[u8]> {
        if self.have(at, len).is_none() {
            let left = usize::try_from(self.end - at).unwrap_or(usize::MAX);
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
        let done = self.file.read_at(&mut self.piece, at).is_ok();
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

fn offset_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits 64 bits")
}
