//! One segment: a file of records, appended while active, immutable once sealed.
//!
//! ```text
//! offset    size   field
//!      0    8      magic "kvs.seg\n"
//!      8    4      format version, 1
//!     12    4      origin: 1 log (written in seqno order), 2 copies (written by compaction)
//!     16    8      segment id
//!     24    8      salt of this segment's record headers
//!     32    8      id of the store, the same in all of its files
//!     40    8      log: seqno of the last write before this segment; copies: 0
//!     48    12     zeros
//!     60    4      CRC-32C of bytes 0..60
//!     64    ...    records; in a sealed segment the last one is a footer, behind which the file
//!                  ends; elsewhere there may be zeros, which are no record
//! ```
//! Integers are little-endian.
//!
//! Invariants: a record never changes and never moves in its segment (invariant 1); a sealed
//! segment is immutable (invariant 5); a segment without a footer is the newest log, or was when
//! the process died. Reading may be done by any thread; there is one [`SegmentWriter`] per segment.

mod scan;

use std::ops::Range;
use std::path::Path;

use crate::error::{KvsError, Result};
use crate::options::{ReadMode, SEGMENT_BYTES_MAX};
use crate::store::checksum::crc32c;
use crate::store::disk::Disk;
use crate::store::expiring::Expiring;
use crate::store::location::{Location, SegmentId, Seqno, Slot, len_of};
use crate::store::log_file::{Ahead, AppendError, LogFile, LogWriter};
use crate::store::prefetch::prefetch;
use crate::store::record::{self, Damage, Footer, Record, Salt, Unverified};
use crate::store::scratch::Scratch;
pub(crate) use crate::store::segment::scan::{Scan, Step};
use crate::store::tail::TailImage;
use crate::sync::{Arc, AtomicBool, AtomicU64, CachePadded, Mutex, Ordering};
use crate::value::Lender;

/// Length of a segment's header, in bytes; its first record starts here.
pub(crate) const HEADER_LEN: u64 = 64;

const MAGIC: [u8; 8] = *b"kvs.seg\n";
/// The format version of segments and manifests.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of a record that are fetched at once where it is not mapped: the whole of most records.
const FIRST_READ_LEN: usize = 256;

/// What a processor fetches at a time.
const CACHE_LINE_LEN: usize = 64;
/// What is fetched early of a record: a key of 16 bytes and a value of 100, and what is with them.
const PREFETCHED_LINES: usize = 3;

/// Who wrote a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The writer: records in seqno order, the next log goes on where this one ends.
    Log,
    /// Compaction: copies, live only if the manifest says so.
    Copies,
}

/// What the first bytes of a segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    pub(crate) origin: Origin,
    pub(crate) salt: Salt,
    pub(crate) store_id: u64,
    pub(crate) seqno_before: Seqno,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let origin: u32 = match self.origin {
            Origin::Log => 1,
            Origin::Copies => 2,
        };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&origin.to_le_bytes());
        for number in [self.id.get(), self.salt.0, self.store_id, self.seqno_before.get()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(60, 0);
        bytes.extend_from_slice(&crc32c(0, &bytes).to_le_bytes());
        bytes
    }

    /// What the header at the start of `bytes` says; the error says what is wrong with it.
    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |what| KvsError::corrupt(path, 0, what);
        let Some(header) = bytes.first_chunk::<64>() else {
            return Err(corrupt("the file is shorter than a segment header"));
        };
        let (covered, crc) = header.split_last_chunk::<4>().expect("64 bytes");
        if !covered.starts_with(&MAGIC) {
            return Err(corrupt("the file does not begin like a segment"));
        }
        if crc32c(0, covered) != u32::from_le_bytes(*crc) {
            return Err(corrupt("the checksum of the segment header does not match"));
        }
        let u32_at = |at: usize| {
            covered.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_le_bytes)
        };
        let u64_at = |at: usize| {
            covered.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes)
        };
        if u32_at(8) != FORMAT {
            let (path, found) = (path.to_path_buf(), u32_at(8));
            return Err(KvsError::UnsupportedFormat { path, found, supported: FORMAT });
        }
        let origin = match u32_at(12) {
            1 => Origin::Log,
            2 => Origin::Copies,
            _ => return Err(corrupt("the segment header names no known origin")),
        };
        Ok(Self {
            id: SegmentId::new(u64_at(16)),
            origin,
            salt: Salt(u64_at(24)),
            store_id: u64_at(32),
            seqno_before: Seqno::new(u64_at(40)),
        })
    }

    /// The salt that the file at `path` names, though its header may be damaged elsewhere: whoever
    /// salvages tries it, and records prove it right or wrong by themselves.
    pub(crate) fn salt_unverified(disk: &dyn Disk, path: &Path) -> Result<Salt> {
        let mut bytes = [0; 8];
        disk.open_to_read(path)?.read_at(&mut bytes, 24)?;
        Ok(Salt(u64::from_le_bytes(bytes)))
    }

    /// The header of the segment file at `path`, verified; `None` if none was ever written, as
    /// when the process died right after it had created the file.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        let file = disk.open_to_read(path)?;
        let len = usize::try_from(file.len()?.min(HEADER_LEN)).expect("at most 64");
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, 0)?;
        // A header lies in one sector, which a disk writes whole or not at all.
        if bytes.len() < 64 || bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Self::decode(&bytes, path).map(Some)
    }
}

/// How a segment that is being made is found, read and written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) slot: Slot,
    pub(crate) read_mode: ReadMode,
    pub(crate) ahead: Ahead<'a>,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Its place in the segment table.
    pub(crate) slot: Slot,
    log: Arc<LogFile>,
    /// What the footer says; `None` while active.
    footer: Mutex<Option<Footer>>,
    weights: CachePadded<Weights>,
    /// Whether there is a hint beside it.
    has_hint: AtomicBool,
    is_damaged: AtomicBool,
}

/// What writers count of a segment that others only read.
#[derive(Debug, Default)]
struct Weights {
    /// Bytes of records that the keydir points at.
    live_bytes: AtomicU64,
    /// Those of them that expire. Touched only for records that do.
    expiring: Mutex<Expiring>,
    /// Bytes of tombstones.
    tombstone_bytes: AtomicU64,
    tombstone_count: AtomicU64,
}

impl Segment {
    /// Creates the file at `path`, with its header. Nothing is synced.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &Path,
        header: SegmentHeader,
        place: Place<'_>,
        capacity: u64,
    ) -> Result<SegmentWriter> {
        let Place { slot, read_mode, ahead } = place;
        let (log, mut writer) = LogFile::create(disk.create(path)?, capacity, read_mode, ahead);
        if let Err(failed) = writer.append(&header.encode(), true) {
            // A segment without a header would only puzzle the next open.
            drop((log, writer));
            disk.remove(path)?;
            return Err(failed.error);
        }
        let segment = Arc::new(Self::new(header, slot, log, None));
        Ok(SegmentWriter { segment, writer, capacity, summary: None })
    }

    /// Opens the file at `path`, sealed or not, for reading. If it is not sealed, it may go on in
    /// `tail`.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        slot: Slot,
        read_mode: ReadMode,
        tail: Option<&TailImage>,
    ) -> Result<Self> {
        let header = SegmentHeader::read(disk, path)?
            .ok_or_else(|| KvsError::corrupt(path, 0, "the segment has no header"))?;
        let file = disk.open_to_read(path)?;
        let len = file.len()?;
        let rest = tail.and_then(|tail| tail.rest_of(header.salt, HEADER_LEN, len));
        let log = Arc::new(LogFile::grown(file, len, read_mode, rest));
        let segment = Self::new(header, slot, log, None);
        let footer = segment.read_footer()?;
        *segment.footer.lock() = footer;
        Ok(segment)
    }

    fn new(header: SegmentHeader, slot: Slot, log: Arc<LogFile>, footer: Option<Footer>) -> Self {
        Self {
            header,
            slot,
            log,
            footer: Mutex::new(footer),
            weights: CachePadded::default(),
            has_hint: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }

    /// The footer, if the file ends with a valid one.
    fn read_footer(&self) -> Result<Option<Footer>> {
        let offset = self.len().checked_sub(len_of(Footer::LEN));
        let Some(offset) = offset.filter(|at| at % 8 == 0) else { return Ok(None) };
        let mut bytes = [0; Footer::LEN];
        self.log.read_at(&mut bytes, offset)?;
        let record = Record::decode(&bytes, self.header.salt, offset);
        Ok(record.ok().and_then(|record| Footer::decode(&record)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.log.path()
    }

    /// Length of the file, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.log.len()
    }

    /// Its bytes, for whoever looks at them one by one.
    pub(crate) fn log(&self) -> &LogFile {
        &self.log
    }

    /// Leaves out what lies from `len` on. Only whoever just opened it may.
    pub(crate) fn shorten_to(&self, len: u64) {
        self.log.shorten_to(len);
    }

    /// What the footer says, if the segment is sealed.
    pub(crate) fn footer(&self) -> Option<Footer> {
        *self.footer.lock()
    }

    /// Makes do without the footer, which is damaged: the segment is sealed, and holds no write
    /// after `last`.
    pub(crate) fn set_lost_footer(&self, last: Seqno) {
        *self.footer.lock() =
            Some(Footer { seqno_min: Seqno::ZERO, seqno_max: last, record_count: 0 });
        self.set_damaged();
    }

    /// Whether something in it is known to be damaged: then it stays as it is.
    pub(crate) fn is_damaged(&self) -> bool {
        // Relaxed: it decides what is compacted, never what is read.
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn set_damaged(&self) {
        // Relaxed: as in `is_damaged`.
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn location(&self, offset: u64) -> Location {
        Location::new(self.slot, offset)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.log.sync()
    }

    /// The record at `offset`. `scratch` holds it if it is not mapped.
    #[inline]
    pub(crate) fn record<'a>(
        &'a self,
        offset: u64,
        scratch: &'a mut Scratch,
    ) -> Result<Unverified<'a>> {
        let bytes = match self.log.mapped_from(offset) {
            Some(bytes) => bytes,
            None => self.read_record(offset, scratch)?,
        };
        Unverified::parse(bytes).map_err(|damage| self.corrupt(offset, damage))
    }

    /// The record at `offset`, if it is mapped and there.
    #[inline]
    pub(crate) fn mapped_record(&self, offset: u64) -> Option<Unverified<'_>> {
        Unverified::parse(self.log.mapped_from(offset)?).ok()
    }

    /// Begins to fetch the beginning of the record at `offset`, if it is mapped: its header, and
    /// mostly its key.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        self.log.mapped_from(offset).and_then(<[u8]>::first).map(prefetch);
    }

    /// As [`Segment::prefetch`], with as much behind it as a record of ordinary length has.
    #[inline]
    pub(crate) fn prefetch_all(&self, offset: u64) {
        let Some(bytes) = self.log.mapped_from(offset) else { return };
        for line in bytes.chunks(CACHE_LINE_LEN).take(PREFETCHED_LINES) {
            line.first().map(prefetch);
        }
    }

    #[cold]
    fn read_record<'a>(&self, offset: u64, scratch: &'a mut Scratch) -> Result<&'a [u8]> {
        let scratch = scratch.bytes();
        self.log.read_into(scratch, offset, FIRST_READ_LEN)?;
        // Lengths are trusted, for the second read, only if the header's checksum holds.
        let salt = self.header.salt;
        if let Some(len) = record::valid_header_len(scratch, salt, offset)
            && len > scratch.len()
        {
            self.log.read_into(scratch, offset, len)?;
        }
        Ok(scratch)
    }

    /// The record that lies at `offset`, with both checksums checked.
    #[inline]
    pub(crate) fn verify<'a>(&self, record: Unverified<'a>, offset: u64) -> Result<Record<'a>> {
        record.verify(self.header.salt, offset).map_err(|damage| self.corrupt(offset, damage))
    }

    /// The records one after the other, verified.
    pub(crate) fn scan(&self) -> Scan<'_> {
        self.scan_until(u64::MAX)
    }

    /// Those that begin before `end`; no byte at `end` or behind is looked at for another.
    pub(crate) fn scan_until(&self, end: u64) -> Scan<'_> {
        Scan::new(self, end)
    }

    #[cold]
    pub(crate) fn corrupt(&self, offset: u64, damage: Damage) -> KvsError {
        KvsError::corrupt(self.path(), offset, damage.what())
    }

    /// Bytes of records that the keydir points at, expired ones included.
    pub(crate) fn live_bytes(&self) -> u64 {
        // Relaxed: a statistic that decides when to compact, never what is live.
        self.weights.live_bytes.load(Ordering::Relaxed)
    }

    /// Of the live bytes, at least those that have expired at `now_ms`.
    pub(crate) fn expired_bytes(&self, now_ms: u64) -> u64 {
        self.weights.expiring.lock().expired_bytes(now_ms)
    }

    /// Whether a record in it may have expired at `now_ms`.
    pub(crate) fn may_hold_expired(&self, now_ms: u64) -> bool {
        self.weights.expiring.lock().may_have_expired(now_ms)
    }

    /// Live bytes without those that have expired at `now_ms`: what compaction would copy.
    pub(crate) fn lasting_bytes(&self, now_ms: u64) -> u64 {
        self.live_bytes().saturating_sub(self.expired_bytes(now_ms))
    }

    /// Counts a record of `len` bytes that the keydir points at from now on.
    pub(crate) fn add_live(&self, len: usize, expiry_ms: Option<u64>) {
        let len = len_of(len);
        // Relaxed: as in `live_bytes`.
        self.weights.live_bytes.fetch_add(len, Ordering::Relaxed);
        if let Some(expiry_ms) = expiry_ms {
            self.weights.expiring.lock().add(expiry_ms, len);
        }
    }

    /// Counts out a record of `len` bytes that the keydir points at no more.
    pub(crate) fn sub_live(&self, len: usize, expiry_ms: Option<u64>) {
        let len = len_of(len);
        // Relaxed: as in `live_bytes`.
        let before = self.weights.live_bytes.fetch_sub(len, Ordering::Relaxed);
        debug_assert!(before >= len, "{}: {len} of {before} live bytes", self.path().display());
        if let Some(expiry_ms) = expiry_ms {
            self.weights.expiring.lock().sub(expiry_ms, len);
        }
    }

    pub(crate) fn clear_live(&self) {
        // Relaxed: as in `live_bytes`.
        self.weights.live_bytes.store(0, Ordering::Relaxed);
        *self.weights.expiring.lock() = Expiring::default();
    }

    pub(crate) fn tombstone_bytes(&self) -> u64 {
        // Relaxed: as in `live_bytes`.
        self.weights.tombstone_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn tombstone_count(&self) -> u64 {
        // Relaxed: as in `live_bytes`.
        self.weights.tombstone_count.load(Ordering::Relaxed)
    }

    pub(crate) fn add_tombstone(&self, len: usize) {
        // Relaxed: as in `live_bytes`.
        self.weights.tombstone_bytes.fetch_add(len_of(len), Ordering::Relaxed);
        self.weights.tombstone_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Every put and tombstone in it is newer than this write. So it can hold an older record of a
    /// key than a tombstone only if the tombstone is newer than this too.
    pub(crate) fn all_after(&self) -> Seqno {
        match self.footer() {
            Some(footer) => Seqno::new(footer.seqno_min.get().saturating_sub(1)),
            None => self.header.seqno_before,
        }
    }

    /// No put or tombstone in it is newer than this write.
    pub(crate) fn none_after(&self) -> Seqno {
        self.footer().map_or(Seqno::MAX, |footer| footer.seqno_max)
    }

    /// Says how many tombstones there are, before anyone else asks.
    pub(crate) fn set_tombstones(&self, count: u64, bytes: u64) {
        // Relaxed: as in `live_bytes`.
        self.weights.tombstone_count.store(count, Ordering::Relaxed);
        self.weights.tombstone_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether there is a hint beside it.
    pub(crate) fn has_hint(&self) -> bool {
        // Relaxed: hints are made by one thread at a time, and are caches.
        self.has_hint.load(Ordering::Relaxed)
    }

    pub(crate) fn set_has_hint(&self) {
        // Relaxed: as in `has_hint`.
        self.has_hint.store(true, Ordering::Relaxed);
    }

    /// Whether a value in the record at `offset` can be lent: it is mapped, and not in the tail.
    pub(crate) fn lends(&self, offset: u64) -> bool {
        self.log.lends(offset)
    }
}

impl Lender for Segment {
    fn lent(&self, range: Range<usize>) -> &[u8] {
        let mapped = self.log.mapped_from(0).expect("only mapped segments lend");
        mapped.get(range).expect("the range was flushed before it was lent")
    }
}

/// The right to append to one segment, and what its footer will say.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    writer: LogWriter,
    capacity: u64,
    summary: Option<Footer>,
}

impl SegmentWriter {
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Whether `len` more bytes leave room for the footer. Behind a record that is larger than any
    /// regular segment nothing fits: a location could not say it.
    pub(crate) fn fits(&self, len: usize) -> bool {
        let end = self.segment.len() + len_of(len + Footer::LEN);
        self.capacity <= SEGMENT_BYTES_MAX && end <= self.capacity
    }

    /// Appends `bytes`, which are whole records: to the file if `through` says so, otherwise to
    /// the tail if there is one.
    pub(crate) fn append(&mut self, bytes: &[u8], through: bool) -> Result<(), AppendError> {
        self.writer.append(bytes, through)
    }

    /// Whether everything is in the file.
    pub(crate) fn is_flushed(&self) -> bool {
        self.writer.is_flushed()
    }

    /// Brings what is in the tail only into the file.
    pub(crate) fn flush(&mut self) -> Result<(), AppendError> {
        self.writer.flush()
    }

    /// Takes down that a put or tombstone with `seqno` was appended.
    pub(crate) fn note(&mut self, seqno: Seqno) {
        let none = Footer { seqno_min: seqno, seqno_max: seqno, record_count: 0 };
        let summary = self.summary.get_or_insert(none);
        summary.seqno_min = summary.seqno_min.min(seqno);
        summary.seqno_max = summary.seqno_max.max(seqno);
        summary.record_count += 1;
    }

    /// Appends the footer. The segment never changes again. After an error that was undone, it can
    /// be appended to as before.
    pub(crate) fn seal(&mut self) -> Result<(), AppendError> {
        let before = self.segment.header.seqno_before;
        let footer = self.summary.unwrap_or(Footer {
            seqno_min: before,
            seqno_max: before,
            record_count: 0,
        });
        let bytes = footer.encode(self.segment.len(), self.segment.header.salt);
        self.writer.append_last(&bytes)?;
        *self.segment.footer.lock() = Some(footer);
        Ok(())
    }
}

/// Room that a segment needs for records of `len` bytes in all.
pub(crate) fn capacity_for(len: usize) -> u64 {
    HEADER_LEN + len_of(len + Footer::LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::record::{BatchPlace, Draft};

    fn header() -> SegmentHeader {
        SegmentHeader {
            id: SegmentId::new(12),
            origin: Origin::Log,
            salt: Salt(99),
            store_id: 77,
            seqno_before: Seqno::new(3),
        }
    }

    fn slot() -> Slot {
        Slot::new(1).unwrap()
    }

    fn create(path: &Path, read_mode: ReadMode) -> SegmentWriter {
        let place = Place { slot: slot(), read_mode, ahead: Ahead::Nothing };
        Segment::create(&RealDisk, path, header(), place, 1 << 20).unwrap()
    }

    fn append(writer: &mut SegmentWriter, seqno: u64, key: &[u8], value: &[u8]) {
        let mut bytes = Vec::new();
        let (base, salt) = (writer.segment().len(), writer.segment().header.salt);
        let draft = Draft::put(key, value);
        draft.encode(&mut bytes, base, salt, Seqno::new(seqno), BatchPlace::Alone);
        writer.append(&bytes, false).unwrap();
        writer.note(Seqno::new(seqno));
    }

    #[test]
    fn records_come_back_in_order_and_the_footer_sums_them_up() {
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let mut writer = create(&path, read_mode);
            let long = vec![7; 5000];
            append(&mut writer, 4, b"a", b"1");
            append(&mut writer, 5, b"b", &long);
            writer.seal().unwrap();

            let segment = Segment::open(&RealDisk, &path, slot(), read_mode, None).unwrap();
            assert_eq!(segment.header, header());
            let footer = segment.footer().unwrap();
            assert_eq!((footer.seqno_min.get(), footer.seqno_max.get()), (4, 5));
            assert_eq!(footer.record_count, 2);
            let mut scan = segment.scan();
            let mut keys = Vec::new();
            while let Step::Record { record, .. } = scan.step().unwrap() {
                keys.push((record.seqno.get(), record.key.to_vec(), record.value.len()));
            }
            assert_eq!(keys[..2], [(4, b"a".to_vec(), 1), (5, b"b".to_vec(), 5000)]);
            assert_eq!(keys.len(), 3, "the footer is the last record");
        }
    }

    /// Every flipped bit of a segment header is refused with the file's name.
    #[test]
    fn a_damaged_header_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        create(&path, ReadMode::Mapped);
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..64 * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bent, &path).is_err(), "bit {bit}");
        }
        assert!(SegmentHeader::decode(&bytes[..63], &path).is_err());
        let mut newer = SegmentHeader::decode(&bytes, &path).unwrap().encode();
        newer[8] = 2;
        let crc = crc32c(0, &newer[..60]).to_le_bytes();
        newer[60..].copy_from_slice(&crc);
        let error = SegmentHeader::decode(&newer, &path).unwrap_err();
        assert!(matches!(error, KvsError::UnsupportedFormat { found: 2, .. }), "{error:?}");
    }
}
