//! Hints: what the index needs to know of one sealed segment, sorted, beside it on disk.
//!
//! ```text
//! offset    size        field
//!      0    8           magic "kvshint\n"
//!      8    4           format version, 1
//!     12    4           zeros
//!     16    8           segment id
//!     24    8           salt of the segment
//!     32    8           length of the segment file
//!     40    8           seqno of the last clear in it; 0 if there is none
//!     48    8           number of its tombstones
//!     56    8           bytes of its tombstones
//!     64    4           number of parts
//!     68    4           CRC-32C of bytes 0..68 and of the list of parts
//!     72    n x 12      for each part: shard of the keydir, length, CRC-32C
//!      .    ...         the parts, one after the other, for each shard that has entries
//!
//! entry: hash 8 | check 4 | length of the record / 8: 4 | seqno 7, kind 1 | offset / 8: 4
//!        | expiry 8, if the highest bit of the kind is set
//! ```
//! Integers are little-endian. A part holds the newest record of each key of that shard, puts and
//! tombstones, in the order of their hashes. So a shard is built from one stretch of each hint,
//! all of them sorted already, without a look at the segments, and shards nobody asks for cost
//! nothing: that is what makes an open fast.
//!
//! # What a key is
//!
//! Two records are taken to be of one key if hash and check agree: 96 bits of two independent
//! hashes, both seeded. With a billion keys, two of them agree with a probability of 6e-12. Which
//! record a location leads to is never taken on trust: every read compares the key.
//!
//! Hints are caches (invariant 11). They are never synced, and checksums tell a torn one; one that
//! is missing, torn or of another segment is made again from the segment. Whoever makes one reads
//! the whole segment and verifies every record; that may be any thread.

use std::cmp::Reverse;
use std::path::Path;

use crate::error::Result;
use crate::store::checksum::crc32c;
use crate::store::disk::{Disk, DiskFile};
use crate::store::key_hash::{KeyHash, KeyHasher, SHARD_COUNT};
use crate::store::location::{Location, Seqno, len_of};
use crate::store::record::{Kind, Record};
use crate::store::segment::Segment;

const MAGIC: [u8; 8] = *b"kvshint\n";
const FORMAT: u32 = 1;
const COUNT_AT: usize = 64;
const CRC_AT: usize = 68;
const PARTS_AT: usize = 72;
const PART_LEN: usize = 12;

const ENTRY_LEN: usize = 28;
const EXPIRY_LEN: usize = 8;

const TOMBSTONE: u8 = 1;
const EXPIRES: u8 = 1 << 7;

/// What a hint says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HintEntry {
    pub(crate) hash: KeyHash,
    /// Tells keys apart whose hashes are equal.
    pub(crate) check: u32,
    pub(crate) seqno: Seqno,
    pub(crate) is_put: bool,
    pub(crate) offset: u64,
    /// Length of the record, in bytes.
    pub(crate) len: u64,
    pub(crate) expiry_ms: Option<u64>,
}

impl HintEntry {
    /// The order of entries in a part: by key, the newest record of a key first. A tombstone that
    /// took the place of an expired put has its seqno, and comes first.
    pub(crate) fn order(&self) -> (KeyHash, u32, Reverse<Seqno>, bool) {
        (self.hash, self.check, Reverse(self.seqno), self.is_put)
    }

    /// Whether it is taken to be of the same key as `other`.
    pub(crate) fn same_key(&self, other: &Self) -> bool {
        (self.hash, self.check) == (other.hash, other.check)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let units = |bytes: u64| u32::try_from(bytes / 8).expect("records are 8-aligned, to 1 GiB");
        let mut kind = u8::from(!self.is_put) * TOMBSTONE;
        kind |= if self.expiry_ms.is_some() { EXPIRES } else { 0 };
        bytes.extend_from_slice(&self.hash.get().to_le_bytes());
        bytes.extend_from_slice(&self.check.to_le_bytes());
        bytes.extend_from_slice(&units(self.len).to_le_bytes());
        bytes.extend_from_slice(&(self.seqno.get() | u64::from(kind) << 56).to_le_bytes());
        bytes.extend_from_slice(&units(self.offset).to_le_bytes());
        if let Some(expiry_ms) = self.expiry_ms {
            bytes.extend_from_slice(&expiry_ms.to_le_bytes());
        }
    }

    /// The entry at the start of `bytes`, and what follows it.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = bytes.split_first_chunk::<ENTRY_LEN>()?;
        let word = le_u64(fixed, 16)?;
        let (kind, seqno) = (word.to_le_bytes()[7], Seqno::new(word & Seqno::MAX.get()));
        let (expiry_ms, rest) = if kind & EXPIRES == 0 {
            (None, rest)
        } else {
            let (expiry, rest) = rest.split_first_chunk::<EXPIRY_LEN>()?;
            (Some(u64::from_le_bytes(*expiry)), rest)
        };
        let entry = Self {
            hash: KeyHash::from_raw(le_u64(fixed, 0)?),
            check: le_u32(fixed, 8)?,
            seqno,
            is_put: kind & TOMBSTONE == 0,
            offset: u64::from(le_u32(fixed, 24)?) * 8,
            len: u64::from(le_u32(fixed, 12)?) * 8,
            expiry_ms,
        };
        Some((entry, rest))
    }
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// What is gathered from the records of one segment to become its hint.
#[derive(Debug)]
pub(crate) struct HintBuilder {
    hasher: KeyHasher,
    entries: Vec<HintEntry>,
    clear: Seqno,
    /// Clears: tombstones of every key, with none of their own.
    clears: Tombstones,
    is_partial: bool,
}

impl HintBuilder {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        let (entries, clear, clears) = (Vec::new(), Seqno::ZERO, Tombstones::default());
        Self { hasher, entries, clear, clears, is_partial: false }
    }

    /// Takes in the verified record at `offset`.
    pub(crate) fn add(&mut self, record: &Record<'_>, offset: u64) {
        let len = len_of(record.len());
        let is_put = match record.kind {
            Kind::Put => true,
            Kind::Tombstone => false,
            Kind::Clear => {
                self.clear = self.clear.max(record.seqno);
                self.clears.count += 1;
                self.clears.bytes += len;
                return;
            }
            Kind::Mark | Kind::Footer => return,
        };
        let (hash, check) = self.hasher.identity(record.key);
        let (seqno, expiry_ms) = (record.seqno, record.expiry_ms);
        self.entries.push(HintEntry { hash, check, seqno, is_put, offset, len, expiry_ms });
    }

    /// Takes down that not all records could be read.
    pub(crate) fn set_partial(&mut self) {
        self.is_partial = true;
    }

    /// Forgets the records of writes after `last`, which are those of an unfinished batch.
    pub(crate) fn forget_after(&mut self, last: Seqno) {
        self.entries.retain(|entry| entry.seqno <= last);
    }

    /// Where the records of writes up to `last` end, in a log that was taken in from front to back;
    /// 0 if there are none.
    pub(crate) fn end_of(&self, last: Seqno) -> u64 {
        let count = self.entries.partition_point(|entry| entry.seqno <= last);
        let entry = count.checked_sub(1).and_then(|index| self.entries.get(index));
        entry.map_or(0, |entry| entry.offset + entry.len)
    }

    /// The hint of `segment`, whose records were taken in.
    pub(crate) fn finish(mut self, segment: &HintOf) -> Hint {
        let mut tombstones = self.clears;
        for entry in self.entries.iter().filter(|entry| !entry.is_put) {
            tombstones.count += 1;
            tombstones.bytes += entry.len;
        }
        self.entries.sort_unstable_by_key(HintEntry::order);
        self.entries.dedup_by(|entry, newer| entry.same_key(newer));
        let mut content = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        let mut parts = Vec::new();
        for same_shard in self.entries.chunk_by(|one, other| one.hash.shard() == other.hash.shard())
        {
            let start = content.len();
            for entry in same_shard {
                entry.encode(&mut content);
            }
            let bytes = content.get(start..).unwrap_or_default();
            let shard = same_shard.first().map_or(0, |entry| entry.hash.shard());
            parts.push(Part { shard, start, len: bytes.len(), crc: crc32c(0, bytes) });
        }
        let head = Head { of: *segment, clear: self.clear, tombstones, parts };
        Hint { head, content: Content::Memory(content), is_partial: self.is_partial }
    }
}

/// How many tombstones there are, and how long they are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tombstones {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Which segment a hint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HintOf {
    pub(crate) id: u64,
    pub(crate) salt: u64,
    /// Length of its file.
    pub(crate) bytes: u64,
}

impl HintOf {
    pub(crate) fn segment(segment: &Segment) -> Self {
        let (id, salt) = (segment.header.id.get(), segment.header.salt.0);
        Self { id, salt, bytes: segment.len() }
    }
}

/// One shard's part of a hint.
#[derive(Debug, Clone, Copy)]
struct Part {
    shard: usize,
    /// Where it begins, from the end of the head.
    start: usize,
    len: usize,
    crc: u32,
}

#[derive(Debug)]
struct Head {
    of: HintOf,
    clear: Seqno,
    tombstones: Tombstones,
    /// In the order of their shards.
    parts: Vec<Part>,
}

impl Head {
    fn len(&self) -> usize {
        PARTS_AT + self.parts.len() * PART_LEN
    }

    fn encode(&self) -> Vec<u8> {
        let u32_of = |n: usize| u32::try_from(n).expect("a segment has 128 MiB, or one record");
        let mut parts = Vec::with_capacity(self.parts.len() * PART_LEN);
        for part in &self.parts {
            for number in [u32_of(part.shard), u32_of(part.len), part.crc] {
                parts.extend_from_slice(&number.to_le_bytes());
            }
        }
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let HintOf { id, salt, bytes: len } = self.of;
        let Tombstones { count, bytes: tombstone_bytes } = self.tombstones;
        for number in [id, salt, len, self.clear.get(), count, tombstone_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&u32_of(self.parts.len()).to_le_bytes());
        let crc = crc32c(crc32c(0, &bytes), &parts);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.append(&mut parts);
        bytes
    }

    /// The head of the hint in `file`, if that is a whole hint of `segment`.
    fn read(file: &dyn DiskFile, segment: HintOf) -> Option<Self> {
        let mut fixed = [0; PARTS_AT];
        file.read_at(&mut fixed, 0).ok()?;
        let count =
            usize::try_from(le_u32(&fixed, COUNT_AT)?).ok().filter(|n| *n <= SHARD_COUNT)?;
        let mut list = vec![0; count * PART_LEN];
        file.read_at(&mut list, u64::try_from(PARTS_AT).ok()?).ok()?;
        let covered = fixed.get(..CRC_AT)?;
        let is_ours = covered.starts_with(&MAGIC)
            && crc32c(crc32c(0, covered), &list) == le_u32(&fixed, CRC_AT)?
            && le_u32(covered, 8)? == FORMAT
            && le_u64(covered, 16)? == segment.id
            && le_u64(covered, 24)? == segment.salt
            && le_u64(covered, 32)? == segment.bytes;
        let clear = Seqno::new(le_u64(covered, 40)?);
        let tombstones = Tombstones { count: le_u64(covered, 48)?, bytes: le_u64(covered, 56)? };
        let (mut parts, mut start) = (Vec::with_capacity(count), 0);
        for part in list.chunks_exact(PART_LEN) {
            let shard = usize::try_from(le_u32(part, 0)?).ok()?;
            let len = usize::try_from(le_u32(part, 4)?).ok()?;
            parts.push(Part { shard, start, len, crc: le_u32(part, 8)? });
            start += len;
        }
        let head = Self { of: segment, clear, tombstones, parts };
        let is_whole = u64::try_from(head.len() + start).ok()? == file.len().ok()?;
        (is_ours && is_whole).then_some(head)
    }
}

#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    File(Box<dyn DiskFile>),
}

/// The hint of one segment.
#[derive(Debug)]
pub(crate) struct Hint {
    head: Head,
    content: Content,
    is_partial: bool,
}

impl Hint {
    /// The hint of `segment` at `path`; `None` if there is none that is whole.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, segment: &HintOf) -> Option<Self> {
        let file = disk.open_to_read(path).ok()?;
        let head = Head::read(&*file, *segment)?;
        Some(Self { head, content: Content::File(file), is_partial: false })
    }

    /// Writes it to `path`, in place of what is there, and reads it from there from now on. If
    /// that fails, it stays in memory.
    pub(crate) fn write(&mut self, disk: &dyn Disk, path: &Path) -> Result<()> {
        let Content::Memory(content) = &self.content else { return Ok(()) };
        if disk.exists(path)? {
            disk.remove(path)?;
        }
        let file = disk.create(path)?;
        let bytes = [self.head.encode().as_slice(), content.as_slice()].concat();
        if let Err(error) = file.write_at(&bytes, 0) {
            // Half a hint takes up room and says nothing.
            disk.remove(path)?;
            return Err(error);
        }
        self.content = Content::File(file);
        Ok(())
    }

    /// Whether records are missing in it, because the segment is damaged.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// The last clear in the segment; zero if there is none.
    pub(crate) fn clear(&self) -> Seqno {
        self.head.clear
    }

    /// The segment's tombstones, in sum.
    pub(crate) fn tombstones(&self) -> Tombstones {
        self.head.tombstones
    }

    /// Appends the entries of `shard` to `entries`, in their order; false if they cannot be read.
    #[must_use]
    pub(crate) fn read_shard(&self, shard: usize, entries: &mut Vec<HintEntry>) -> bool {
        let mut fetched = Vec::new();
        self.part(shard, &mut fetched).is_some_and(|mut bytes| {
            let before = entries.len();
            entries.reserve(bytes.len() / ENTRY_LEN);
            let end = self.head.of.bytes.min(Location::OFFSET_END);
            while let Some((entry, rest)) = HintEntry::decode(bytes) {
                if entry.offset >= end || entry.hash.shard() != shard {
                    break;
                }
                entries.push(entry);
                bytes = rest;
            }
            let is_whole = bytes.is_empty();
            if !is_whole {
                entries.truncate(before);
            }
            is_whole
        })
    }

    /// The bytes of one shard's part; `None` if they are damaged.
    fn part<'a>(&'a self, shard: usize, fetched: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let parts = &self.head.parts;
        let Ok(index) = parts.binary_search_by_key(&shard, |part| part.shard) else {
            return Some(&[]);
        };
        let part = parts.get(index)?;
        let bytes = match &self.content {
            Content::Memory(bytes) => bytes.get(part.start..part.start + part.len)?,
            Content::File(file) => {
                fetched.resize(part.len, 0);
                file.read_at(fetched, u64::try_from(self.head.len() + part.start).ok()?).ok()?;
                fetched
            }
        };
        (crc32c(0, bytes) == part.crc).then_some(bytes)
    }
}

/// Puts the checksums of a hint right, as far as it is whole: what a fuzzer makes up gets no
/// further without.
#[cfg(any(test, fuzzing))]
pub(crate) fn mend(bytes: &mut [u8]) -> Option<()> {
    let count = usize::try_from(le_u32(bytes, COUNT_AT)?).ok()?;
    let list_end = PARTS_AT + count.min(SHARD_COUNT) * PART_LEN;
    let mut start = list_end;
    for part in (PARTS_AT..list_end).step_by(PART_LEN) {
        let end = start + usize::try_from(le_u32(bytes, part + 4)?).ok()?;
        let crc = crc32c(0, bytes.get(start..end)?);
        bytes.get_mut(part + 8..part + 12)?.copy_from_slice(&crc.to_le_bytes());
        start = end;
    }
    let crc = crc32c(0, bytes.get(..CRC_AT)?);
    let crc = crc32c(crc, bytes.get(PARTS_AT..list_end)?);
    bytes.get_mut(CRC_AT..PARTS_AT)?.copy_from_slice(&crc.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::record::{BatchPlace, Draft, Salt};

    const OF: HintOf = HintOf { id: 7, salt: 8, bytes: 1 << 20 };

    fn add(builder: &mut HintBuilder, seqno: u64, draft: &Draft<'_>) {
        let mut bytes = Vec::new();
        draft.encode(&mut bytes, 0, Salt(1), Seqno::new(seqno), BatchPlace::Alone);
        let record = Record::decode(&bytes, Salt(1), 0).unwrap();
        builder.add(&record, seqno * 64);
    }

    /// Keys 0 to 99, some of them set again, some removed.
    fn builder() -> HintBuilder {
        let mut builder = HintBuilder::new(KeyHasher::new(5));
        for seqno in 1..=150_u64 {
            let key = (seqno % 100).to_le_bytes();
            let draft =
                if seqno % 7 == 0 { Draft::tombstone(&key) } else { Draft::put(&key, b"value") };
            add(&mut builder, seqno, &draft);
        }
        builder
    }

    fn entries(hint: &Hint) -> Option<Vec<HintEntry>> {
        let mut entries = Vec::new();
        (0..SHARD_COUNT).all(|shard| hint.read_shard(shard, &mut entries)).then_some(entries)
    }

    #[test]
    fn it_holds_the_newest_record_of_each_key_and_is_read_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hint");
        let mut hint = builder().finish(&OF);
        let made = entries(&hint).unwrap();
        let mut seqnos: Vec<_> = made.iter().map(|entry| entry.seqno.get()).collect();
        assert!(made.is_sorted_by_key(HintEntry::order));
        seqnos.sort_unstable();
        assert_eq!(seqnos, (51..=150).collect::<Vec<_>>());
        for entry in &made {
            assert_eq!(entry.is_put, entry.seqno.get() % 7 != 0);
            assert_eq!(
                (entry.offset, entry.len),
                (entry.seqno.get() * 64, if entry.is_put { 40 } else { 32 })
            );
        }
        hint.write(&RealDisk, &path).unwrap();
        assert_eq!(entries(&hint).unwrap(), made);
        let read = Hint::open(&RealDisk, &path, &OF).unwrap();
        assert_eq!(entries(&read).unwrap(), made);
        assert_eq!(read.tombstones(), Tombstones { count: 21, bytes: 21 * 32 });
        for other in [HintOf { id: 6, ..OF }, HintOf { salt: 6, ..OF }, HintOf { bytes: 6, ..OF }] {
            assert!(Hint::open(&RealDisk, &path, &other).is_none(), "{other:?}");
        }
    }

    /// Damage in the head makes it no hint; in a part, it is noticed when that part is read.
    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hint");
        builder().finish(&OF).write(&RealDisk, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let check_noticed = |bent: &[u8], what: &str| {
            std::fs::write(&path, bent).unwrap();
            let hint = Hint::open(&RealDisk, &path, &OF);
            assert!(hint.is_none_or(|hint| entries(&hint).is_none()), "{what}");
        };
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            check_noticed(&bent, &format!("byte {at}"));
            check_noticed(&bytes[..at], &format!("{at} bytes"));
        }
    }
}
