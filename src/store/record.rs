//! Records: one write, as bytes.
//!
//! A record is made here, appended once, and never changes (invariant 1). This file is the only
//! one that knows what its bytes mean; everyone else holds a [`Record`] or a location. It performs
//! no IO and reads no clock.
//!
//! # Bytes
//!
//! Integers are little-endian; a record begins at a multiple of 8 in its segment.
//!
//! ```text
//! offset        size       field        meaning
//!      0        4          header_crc   CRC-32C of bytes 4..24, seeded (see below)
//!      4        4          body_crc     CRC-32C of expiry, key and value
//!      8        7          seqno        place in the total order of writes
//!     15        1          kind         1 put, 2 tombstone, 3 mark, 4 footer, 5 clear
//!     16        4          value_len    bytes of value; 0 for a tombstone
//!     20        2          key_len      bytes of key
//!     22        2          flags        bit 0 MORE, bit 1 BATCH, bit 2 EXPIRY
//!     24        0 or 8     expiry       absolute milliseconds, if EXPIRY is set
//!      .        key_len    key
//!      .        value_len  value
//!      .        0 to 7     zeros up to a multiple of 8
//! ```
//!
//! Kind 0 does not exist, on purpose: space that was never written reads as zeros, and zeros must
//! never decode.
//!
//! BATCH marks every record of a batch of several, MORE all but the last: recovery applies a batch
//! whole or not at all, and a reader that meets one waits until all of it is published.
//!
//! A **mark** (key empty, value a seqno) says up to which write the log was durable when it was
//! appended: a hole below it is corruption, a hole above it a crash tail. A **footer** (key empty,
//! value as in [`Footer`]) ends a sealed segment. Both carry the seqno of the write before them.
//!
//! # Checksums
//!
//! The body checksum covers what the user gave and is computed before the writer's lane. The
//! header checksum covers the rest, the body checksum included, and is seeded with the segment's
//! salt and the record's offset: a record that is stale, misplaced or of another store fails, and
//! a length can be trusted before it is used.

use crate::store::checksum::{crc32c, crc32c_twice};
use crate::store::location::{Seqno, len_of};

/// Length of the fixed part of a record, in bytes.
pub(crate) const HEADER_LEN: usize = 24;

const EXPIRY_LEN: usize = 8;
const ALIGN: usize = 8;

const MORE: u16 = 1;
const BATCH: u16 = 1 << 1;
const EXPIRY: u16 = 1 << 2;

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sets its key.
    Put,
    /// Removes its key.
    Tombstone,
    /// Says what is durable.
    Mark,
    /// Ends a sealed segment.
    Footer,
    /// Removes every key.
    Clear,
}

impl Kind {
    const fn code(self) -> u64 {
        match self {
            Self::Put => 1,
            Self::Tombstone => 2,
            Self::Mark => 3,
            Self::Footer => 4,
            Self::Clear => 5,
        }
    }

    /// Whether it changes what the store holds, and so has a seqno of its own.
    pub(crate) const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Tombstone | Self::Clear)
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Put),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Mark),
            4 => Some(Self::Footer),
            5 => Some(Self::Clear),
            _ => None,
        }
    }
}

/// A record's place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchPlace {
    /// A write of its own.
    Alone,
    /// In a batch, and more of it follows.
    More,
    /// The last of a batch of several.
    Last,
}

/// The bytes of a segment are bound to it and to their place by its salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u64);

impl Salt {
    /// Where the header checksum of the record at `offset` starts from.
    #[inline]
    fn seed(self, offset: u64) -> u32 {
        // Fibonacci hashing: the high half of the product depends on every bit of both.
        let mixed = (self.0 ^ offset).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        u32::try_from(mixed >> 32).expect("32 bits")
    }
}

/// How bytes fail to be a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// They end too early.
    Short,
    /// The header contradicts its checksum, or says what no header says.
    Header,
    /// Expiry, key or value contradict the body checksum.
    Body,
}

impl Damage {
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Short => "a record ends too early",
            Self::Header => "the checksum of a record's header does not match",
            Self::Body => "the checksum of a record's key and value does not match",
        }
    }
}

/// A write that is about to become a record: everything but its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) expiry_ms: Option<u64>,
    body_crc: u32,
}

impl<'a> Draft<'a> {
    /// Sets `key` to `value`. The caller has checked both lengths.
    pub(crate) fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self::new(Kind::Put, key, value, None)
    }

    /// As [`Draft::put`], and `key` expires at `expiry_ms`, if that is given.
    pub(crate) fn put_with(key: &'a [u8], value: &'a [u8], expiry_ms: Option<u64>) -> Self {
        Self::new(Kind::Put, key, value, expiry_ms)
    }

    /// Removes `key`. The caller has checked its length.
    pub(crate) fn tombstone(key: &'a [u8]) -> Self {
        Self::new(Kind::Tombstone, key, b"", None)
    }

    /// Removes every key.
    pub(crate) fn clear() -> Self {
        Self::new(Kind::Clear, b"", b"", None)
    }

    fn new(kind: Kind, key: &'a [u8], value: &'a [u8], expiry_ms: Option<u64>) -> Self {
        let body_crc = body_crc(expiry_ms, key, value);
        Self { kind, key, value, expiry_ms, body_crc }
    }

    /// The same write with its parts somewhere else, as when a queue owns them.
    pub(crate) fn moved_to<'b>(&self, key: &'b [u8], value: &'b [u8]) -> Draft<'b> {
        Draft { kind: self.kind, key, value, expiry_ms: self.expiry_ms, body_crc: self.body_crc }
    }

    /// A copy of a verified record, for its new place. It keeps the body checksum, so the body is
    /// protected from the user's call onward, however often it is copied.
    pub(crate) fn copy_of(record: &Record<'a>) -> Self {
        Self {
            kind: record.kind,
            key: record.key,
            value: record.value,
            expiry_ms: record.expiry_ms,
            body_crc: record.body_crc,
        }
    }

    /// Length of the record, padding included.
    pub(crate) fn len(&self) -> usize {
        record_len(self.expiry_ms.is_some(), self.key.len(), self.value.len())
    }

    /// Appends the record to `buffer`, which starts at offset `base` of the segment with `salt`.
    pub(crate) fn encode(
        &self,
        buffer: &mut Vec<u8>,
        base: u64,
        salt: Salt,
        seqno: Seqno,
        place: BatchPlace,
    ) {
        let start = buffer.len();
        let offset = base + len_of(start);
        let len = self.len();
        buffer.reserve(len);
        buffer.extend_from_slice(&self.header(salt.seed(offset), seqno, place));
        if let Some(expiry_ms) = self.expiry_ms {
            buffer.extend_from_slice(&expiry_ms.to_le_bytes());
        }
        buffer.extend_from_slice(self.key);
        buffer.extend_from_slice(self.value);
        buffer.resize(start + len, 0);
    }

    fn header(&self, seed: u32, seqno: Seqno, place: BatchPlace) -> [u8; HEADER_LEN] {
        let key_len = u16::try_from(self.key.len()).expect("checked against KEY_LEN_MAX");
        let value_len = u32::try_from(self.value.len()).expect("checked against VALUE_LEN_MAX");
        assert!(seqno <= Seqno::MAX, "56 bits of sequence numbers last longer than hardware");
        let flags = match place {
            BatchPlace::Alone => 0,
            BatchPlace::More => BATCH | MORE,
            BatchPlace::Last => BATCH,
        } | if self.expiry_ms.is_some() { EXPIRY } else { 0 };
        let mut header = [0; HEADER_LEN];
        header[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        header[8..16].copy_from_slice(&(seqno.get() | self.kind.code() << 56).to_le_bytes());
        header[16..20].copy_from_slice(&value_len.to_le_bytes());
        header[20..22].copy_from_slice(&key_len.to_le_bytes());
        header[22..].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c(seed, &header[4..]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// What a sealed segment says of itself in its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Smallest seqno of its writes.
    pub(crate) seqno_min: Seqno,
    /// Largest.
    pub(crate) seqno_max: Seqno,
    /// Number of writes: puts, tombstones, clears.
    pub(crate) record_count: u64,
}

impl Footer {
    const PAYLOAD_LEN: usize = 24;

    /// Length of a footer, as a record.
    pub(crate) const LEN: usize = HEADER_LEN + Self::PAYLOAD_LEN;

    /// The footer as a record for `offset` of the segment with `salt`.
    pub(crate) fn encode(&self, offset: u64, salt: Salt) -> Vec<u8> {
        let mut payload = [0; Self::PAYLOAD_LEN];
        let numbers = [self.seqno_min.get(), self.seqno_max.get(), self.record_count];
        for (to, number) in payload.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        let mut buffer = Vec::with_capacity(Self::LEN);
        let draft = Draft::new(Kind::Footer, b"", &payload, None);
        draft.encode(&mut buffer, offset, salt, self.seqno_max, BatchPlace::Alone);
        buffer
    }

    /// What `record` says, if it is a footer.
    pub(crate) fn decode(record: &Record<'_>) -> Option<Self> {
        if record.kind != Kind::Footer || record.value.len() != Self::PAYLOAD_LEN {
            return None;
        }
        Some(Self {
            seqno_min: Seqno::new(le_u64(record.value, 0)?),
            seqno_max: Seqno::new(le_u64(record.value, 8)?),
            record_count: le_u64(record.value, 16)?,
        })
    }
}

/// Length of a mark, as a record.
pub(crate) const MARK_LEN: usize = HEADER_LEN + 8;

/// Appends a mark to `buffer`: every write up to `durable` was on disk when this was appended.
pub(crate) fn encode_mark(
    buffer: &mut Vec<u8>,
    base: u64,
    salt: Salt,
    seqno: Seqno,
    durable: Seqno,
) {
    let payload = durable.get().to_le_bytes();
    let draft = Draft::new(Kind::Mark, b"", &payload, None);
    draft.encode(buffer, base, salt, seqno, BatchPlace::Alone);
}

/// Up to which write a mark says the log was durable, if `record` is a mark.
pub(crate) fn decode_mark(record: &Record<'_>) -> Option<Seqno> {
    let is_mark = record.kind == Kind::Mark && record.value.len() == 8;
    if is_mark { le_u64(record.value, 0).map(Seqno::new) } else { None }
}

/// A record as it lies in a segment: its lengths were checked against what is there, and nothing
/// else. Lookups meet records in this form and verify those whose key is right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unverified<'a> {
    header: &'a [u8; HEADER_LEN],
    /// Expiry, key and value.
    body: &'a [u8],
    expiry: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Unverified<'a> {
    /// The record at the start of `bytes`.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Damage::Short)?;
        let value_len = u32::from_le_bytes(chunk(header, 16));
        let value_len = usize::try_from(value_len).map_err(|_| Damage::Short)?;
        let key_len = usize::from(u16::from_le_bytes(chunk(header, 20)));
        let has_expiry = u16::from_le_bytes(chunk(header, 22)) & EXPIRY != 0;
        let key_start = if has_expiry { EXPIRY_LEN } else { 0 };
        let value_start = key_start + key_len;
        let body = rest.get(..value_start + value_len).ok_or(Damage::Short)?;
        let (front, value) = body.split_at_checked(value_start).ok_or(Damage::Short)?;
        let (expiry, key) = front.split_at_checked(key_start).ok_or(Damage::Short)?;
        Ok(Self { header, body, expiry, key, value })
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Whether it says that it is a put.
    pub(crate) fn is_put(&self) -> bool {
        u64::from(self.header[15]) == Kind::Put.code()
    }

    /// When it says that its key expires. The body is not verified: for statistics only.
    #[inline]
    pub(crate) fn expiry_ms(&self) -> Option<u64> {
        self.expiry.first_chunk().copied().map(u64::from_le_bytes)
    }

    /// Length of the record, padding included, if the header's checksum holds.
    pub(crate) fn trusted_len(&self, salt: Salt, offset: u64) -> Option<usize> {
        valid_header_len(self.header, salt, offset)
    }

    /// Both checksums checked, for a record at `offset` of the segment with `salt`.
    pub(crate) fn verify(self, salt: Salt, offset: u64) -> Result<Record<'a>, Damage> {
        check_sums(self.header, self.body, salt.seed(offset))?;
        let (code, flags) = self.kind_and_flags();
        if flags & !(MORE | BATCH | EXPIRY) != 0 {
            return Err(Damage::Header);
        }
        let kind = Kind::from_code(code).ok_or(Damage::Header)?;
        let place = match (flags & BATCH != 0, flags & MORE != 0) {
            (false, false) => BatchPlace::Alone,
            (true, true) => BatchPlace::More,
            (true, false) => BatchPlace::Last,
            (false, true) => return Err(Damage::Header),
        };
        Ok(Record { kind, place, expiry_ms: self.expiry_ms(), ..self.plain() })
    }

    /// As [`Unverified::verify`], if it is what most records are: a put that never expires, in no
    /// batch or in one that is published as far as this. `None` says nothing of others.
    #[expect(clippy::inline_always, reason = "a lookup uses few of the parts")]
    #[inline(always)]
    pub(crate) fn verify_plain(
        self,
        salt: Salt,
        offset: u64,
        published: impl FnOnce() -> Seqno,
    ) -> Option<Record<'a>> {
        if check_sums(self.header, self.body, salt.seed(offset)).is_err() {
            return None;
        }
        let (code, flags) = self.kind_and_flags();
        let record = self.plain();
        if code != Kind::Put.code() {
            return None;
        }
        if flags != 0 && (flags & !MORE != BATCH || record.seqno > published()) {
            return None;
        }
        Some(record)
    }

    #[inline]
    fn kind_and_flags(&self) -> (u64, u16) {
        let word = u64::from_le_bytes(chunk(self.header, 8));
        (word >> 56, u16::from_le_bytes(chunk(self.header, 22)))
    }

    /// As if it were a put by itself.
    #[inline]
    fn plain(self) -> Record<'a> {
        let word = u64::from_le_bytes(chunk(self.header, 8));
        Record {
            kind: Kind::Put,
            seqno: Seqno::new(word & Seqno::MAX.get()),
            place: BatchPlace::Alone,
            expiry_ms: None,
            key: self.key,
            value: self.value,
            body_crc: u32::from_le_bytes(chunk(self.header, 4)),
        }
    }
}

/// Compares both checksums of a record: of `header`, which starts from `seed`, and of `body`.
#[expect(clippy::inline_always, reason = "a lookup compares a hundred bytes: a call counts")]
#[inline(always)]
fn check_sums(header: &[u8; HEADER_LEN], body: &[u8], seed: u32) -> Result<(), Damage> {
    let covered = header.last_chunk::<{ HEADER_LEN - 4 }>().ok_or(Damage::Short)?;
    let (of_header, of_body) = crc32c_twice(seed, covered, body);
    if of_header != u32::from_le_bytes(chunk(header, 0)) {
        return Err(Damage::Header);
    }
    let body_crc = u32::from_le_bytes(chunk(header, 4));
    if of_body == body_crc { Ok(()) } else { Err(Damage::Body) }
}

/// A verified record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) seqno: Seqno,
    pub(crate) place: BatchPlace,
    pub(crate) expiry_ms: Option<u64>,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    body_crc: u32,
}

impl<'a> Record<'a> {
    /// Parses and verifies the record at the start of `bytes`.
    ///
    /// The header is verified before its lengths are believed, so damage there is never taken for
    /// bytes that end too early.
    pub(crate) fn decode(bytes: &'a [u8], salt: Salt, offset: u64) -> Result<Self, Damage> {
        if bytes.len() < HEADER_LEN {
            return Err(Damage::Short);
        }
        let len = valid_header_len(bytes, salt, offset).ok_or(Damage::Header)?;
        let bytes = bytes.get(..len).ok_or(Damage::Short)?;
        Unverified::parse(bytes)?.verify(salt, offset)
    }

    /// Length of the record, padding included.
    pub(crate) fn len(&self) -> usize {
        record_len(self.expiry_ms.is_some(), self.key.len(), self.value.len())
    }

    /// Where the value starts, from the start of the record.
    pub(crate) fn value_start(&self) -> usize {
        let expiry_len = if self.expiry_ms.is_some() { EXPIRY_LEN } else { 0 };
        HEADER_LEN + expiry_len + self.key.len()
    }
}

/// Whether a valid header lies at the start of `bytes`, and the length of the record it begins.
pub(crate) fn valid_header_len(bytes: &[u8], salt: Salt, offset: u64) -> Option<usize> {
    let header = bytes.get(..HEADER_LEN)?;
    if le_u32(header, 0)? != crc32c(salt.seed(offset), header.get(4..)?) {
        return None;
    }
    let value_len = usize::try_from(le_u32(header, 16)?).ok()?;
    let key_len = usize::from(le_u16(header, 20)?);
    Some(record_len(le_u16(header, 22)? & EXPIRY != 0, key_len, value_len))
}

/// What a header whose checksum holds says about its place in the order of writes.
pub(crate) fn seqno_from_header(header: &[u8]) -> Option<Seqno> {
    le_u64(header, 8).map(|word| Seqno::new(word & Seqno::MAX.get()))
}

fn body_crc(expiry_ms: Option<u64>, key: &[u8], value: &[u8]) -> u32 {
    let start = expiry_ms.map_or(0, |expiry_ms| crc32c(0, &expiry_ms.to_le_bytes()));
    crc32c(crc32c(start, key), value)
}

const fn record_len(has_expiry: bool, key_len: usize, value_len: usize) -> usize {
    let expiry_len = if has_expiry { EXPIRY_LEN } else { 0 };
    (HEADER_LEN + expiry_len + key_len + value_len).next_multiple_of(ALIGN)
}

/// `N` bytes of a header at a constant offset.
#[inline]
fn chunk<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let bytes = header.get(at..).and_then(<[u8]>::first_chunk);
    *bytes.expect("a constant offset within a header")
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// Puts the checksums right of the record that begins `bytes`, as far as it is whole, and returns
/// its length: what a fuzzer makes up gets no further without.
#[cfg(any(test, fuzzing))]
pub(crate) fn mend(bytes: &mut [u8], salt: Salt, offset: u64) -> Option<usize> {
    let value_len = usize::try_from(le_u32(bytes, 16)?).ok()?;
    let (key_len, flags) = (usize::from(le_u16(bytes, 20)?), le_u16(bytes, 22)?);
    let expiry_len = if flags & EXPIRY == 0 { 0 } else { EXPIRY_LEN };
    let body = bytes.get(HEADER_LEN..HEADER_LEN + expiry_len + key_len + value_len)?;
    let body_crc = crc32c(0, body);
    bytes.get_mut(4..8)?.copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c(salt.seed(offset), bytes.get(4..HEADER_LEN)?);
    bytes.get_mut(..4)?.copy_from_slice(&header_crc.to_le_bytes());
    Some(record_len(expiry_len > 0, key_len, value_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(0x1234_5678_9ABC_DEF0);

    /// At offset 128, under that salt.
    const PUT: &str = "8ceeffad448900e8070000000000000105000000030000006b657976616c7565";
    const EXPIRING: &str = "51d8ca6d34c14e49ffffffffffffff0101000000010007007b68e5cf8b010000\
                 6b76000000000000";
    const TOMBSTONE: &str = "01f81b296d75a440070605040302010200000000030002006b65790000000000";
    const CLEAR: &str = "dbdb40400000000007000000000000050000000000000000";
    const MARK: &str = "504ccdd650b613ce090000000000000308000000000000000800000000000000";
    const FOOTER: &str = "b4b3e5211e000f5c090000000000000418000000000000000300000000000000\
                 09000000000000000500000000000000";

    fn encoded(draft: Draft<'_>, offset: u64, place: BatchPlace) -> Vec<u8> {
        let mut buffer = Vec::new();
        draft.encode(&mut buffer, offset, SALT, Seqno::new(7), place);
        buffer
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let long = vec![0xA5; 70_000];
        for (key, value) in [
            (&b""[..], &b""[..]),
            (b"k", b""),
            (b"", b"v"),
            (b"key", b"value"),
            (b"\0\xFF", &long),
            (&long[..65_535], b"x"),
        ] {
            for place in [BatchPlace::Alone, BatchPlace::More, BatchPlace::Last] {
                let bytes = encoded(Draft::put(key, value), 64, place);
                assert_eq!(bytes.len() % 8, 0);
                let record = Record::decode(&bytes, SALT, 64).unwrap();
                assert_eq!((record.kind, record.key, record.value), (Kind::Put, key, value));
                assert_eq!((record.place, record.seqno), (place, Seqno::new(7)));
                assert_eq!(record.len(), bytes.len());
                assert_eq!(&bytes[record.value_start()..][..value.len()], value);
            }
        }
    }

    #[test]
    fn expiry_is_kept_and_covered_by_the_body_checksum() {
        let draft = Draft::new(Kind::Put, b"key", b"value", Some(1_700_000_000_123));
        let mut bytes = encoded(draft, 8, BatchPlace::Alone);
        let record = Record::decode(&bytes, SALT, 8).unwrap();
        assert_eq!(record.expiry_ms, Some(1_700_000_000_123));
        assert_eq!(record.key, b"key");
        assert_eq!(&bytes[record.value_start()..][..5], b"value");
        bytes[HEADER_LEN] ^= 1;
        assert_eq!(Record::decode(&bytes, SALT, 8).unwrap_err(), Damage::Body);
    }

    /// The short way of a lookup takes a put that never expires, and of a batch only what is
    /// published. What it does not take goes the long way.
    #[test]
    fn a_record_of_a_batch_is_plain_once_it_is_published() {
        let plain = |draft: Draft<'_>, place: BatchPlace, published: u64| {
            let bytes = encoded(draft, 8, place);
            let record = Unverified::parse(&bytes).unwrap();
            let found = record.verify_plain(SALT, 8, || Seqno::new(published));
            found.map(|record| record.value.to_vec())
        };
        let put = || Draft::put(b"key", b"value");
        for place in [BatchPlace::More, BatchPlace::Last] {
            assert_eq!(plain(put(), place, 6), None, "{place:?}");
            assert_eq!(plain(put(), place, 7), Some(b"value".to_vec()), "{place:?}");
            assert_eq!(plain(put(), place, 8), Some(b"value".to_vec()), "{place:?}");
        }
        assert_eq!(plain(put(), BatchPlace::Alone, 0), Some(b"value".to_vec()));
        let expiring = Draft::new(Kind::Put, b"key", b"value", Some(u64::MAX));
        assert_eq!(plain(expiring, BatchPlace::Alone, 7), None);
        assert_eq!(plain(Draft::tombstone(b"key"), BatchPlace::Alone, 7), None);
    }

    #[test]
    fn zeros_never_decode() {
        for len in [0, 1, HEADER_LEN - 1, HEADER_LEN, 4096] {
            assert!(Record::decode(&vec![0; len], SALT, 0).is_err(), "{len}");
            assert!(Record::decode(&vec![0; len], Salt(0), 0).is_err(), "{len} without salt");
        }
    }

    #[test]
    fn every_flipped_bit_outside_the_padding_is_noticed() {
        let bytes = encoded(Draft::put(b"some key", b"some value"), 128, BatchPlace::Alone);
        for bit in 0..(HEADER_LEN + 18) * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bent, SALT, 128).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = encoded(Draft::put(b"some key", b"some value"), 128, BatchPlace::Alone);
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len], SALT, 128).unwrap_err(), Damage::Short);
        }
    }

    #[test]
    fn a_record_of_another_place_or_segment_fails() {
        let bytes = encoded(Draft::put(b"key", b"value"), 128, BatchPlace::Alone);
        assert_eq!(Record::decode(&bytes, SALT, 136).unwrap_err(), Damage::Header);
        assert_eq!(Record::decode(&bytes, Salt(SALT.0 + 1), 128).unwrap_err(), Damage::Header);
    }

    #[test]
    fn marks_and_footers_say_what_they_were_given() {
        let mut buffer = Vec::new();
        encode_mark(&mut buffer, 64, SALT, Seqno::new(9), Seqno::new(8));
        assert_eq!(buffer.len(), MARK_LEN);
        let mark = Record::decode(&buffer, SALT, 64).unwrap();
        assert_eq!(decode_mark(&mark), Some(Seqno::new(8)));
        assert_eq!(Footer::decode(&mark), None);

        let footer = Footer { seqno_min: Seqno::new(3), seqno_max: Seqno::new(9), record_count: 5 };
        let bytes = footer.encode(96, SALT);
        assert_eq!(bytes.len(), Footer::LEN);
        let record = Record::decode(&bytes, SALT, 96).unwrap();
        assert_eq!(Footer::decode(&record), Some(footer));
        assert_eq!(decode_mark(&record), None);
    }

    #[test]
    fn a_copy_keeps_the_body_checksum_of_the_user() {
        let bytes = encoded(Draft::put(b"key", b"value"), 0, BatchPlace::Last);
        let record = Record::decode(&bytes, SALT, 0).unwrap();
        let copy = encoded(Draft::copy_of(&record), 800, BatchPlace::Alone);
        assert_eq!(copy[4..8], bytes[4..8]);
        assert!(Record::decode(&copy, SALT, 800).is_ok());
    }

    /// The bytes of each kind of record, worked out by a program that knows the picture above and
    /// not this code: what agrees with itself only could not read the files of another version.
    #[test]
    fn records_have_the_bytes_of_their_format() {
        let bytes_of = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
            digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
        };
        let encoded = |draft: Draft<'_>, seqno, place| {
            let mut buffer = Vec::new();
            draft.encode(&mut buffer, 128, SALT, Seqno::new(seqno), place);
            buffer
        };
        let expiring = Draft::put_with(b"k", b"v", Some(1_700_000_000_123));
        let mut mark = Vec::new();
        encode_mark(&mut mark, 128, SALT, Seqno::new(9), Seqno::new(8));
        let footer = Footer { seqno_min: Seqno::new(3), seqno_max: Seqno::new(9), record_count: 5 };
        let tombstone_seqno = 0x0001_0203_0405_0607;
        for (bytes, expected) in [
            (encoded(Draft::put(b"key", b"value"), 7, BatchPlace::Alone), PUT),
            (encoded(expiring, Seqno::MAX.get(), BatchPlace::More), EXPIRING),
            (encoded(Draft::tombstone(b"key"), tombstone_seqno, BatchPlace::Last), TOMBSTONE),
            (encoded(Draft::clear(), 7, BatchPlace::Alone), CLEAR),
            (mark, MARK),
            (footer.encode(128, SALT), FOOTER),
        ] {
            assert_eq!(bytes, bytes_of(expected));
            // What is right already is mended to the same.
            let mut mended = bytes.clone();
            assert_eq!(mend(&mut mended, SALT, 128), Some(bytes.len()));
            assert_eq!(mended, bytes);
        }
    }

    /// Whatever a header says whose checksum holds, a record is only what the format knows.
    #[test]
    fn what_no_header_says_is_refused_though_its_checksums_hold() {
        let good = encoded(Draft::put(b"key", b"value"), 128, BatchPlace::Alone);
        for (at, byte, expected) in [
            (15, 0, None),
            (15, 6, None),
            (15, 2, Some(Kind::Tombstone)),
            (15, 5, Some(Kind::Clear)),
            (22, MORE, None),
            (22, 1 << 3, None),
            (22, BATCH | 1 << 7, None),
            (22, BATCH, Some(Kind::Put)),
            (23, 1, None),
        ] {
            let mut bytes = good.clone();
            bytes[at] = u8::try_from(byte).unwrap();
            assert_eq!(mend(&mut bytes, SALT, 128), Some(good.len()));
            let kind = Record::decode(&bytes, SALT, 128).map(|record| record.kind);
            assert_eq!(kind, expected.ok_or(Damage::Header), "{byte} at {at}");
        }
    }

    /// What a lookup is told before anything is verified.
    #[test]
    fn an_unverified_record_says_what_is_in_its_bytes() {
        let put = encoded(Draft::put(b"key", b"value"), 128, BatchPlace::Alone);
        let expiring = encoded(Draft::put_with(b"key", b"value", Some(12)), 128, BatchPlace::Alone);
        let tombstone = encoded(Draft::tombstone(b"key"), 128, BatchPlace::Alone);
        for (bytes, is_put, expiry_ms) in
            [(&put, true, None), (&expiring, true, Some(12)), (&tombstone, false, None)]
        {
            let found = Unverified::parse(bytes).unwrap();
            assert_eq!((found.key(), found.is_put()), (&b"key"[..], is_put));
            assert_eq!(found.expiry_ms(), expiry_ms);
            assert_eq!(found.trusted_len(SALT, 128), Some(bytes.len()));
            assert_eq!(found.trusted_len(SALT, 136), None);
            assert_eq!(seqno_from_header(bytes), Some(Seqno::new(7)));
            // Of what follows it, nothing is of it.
            let longer = [&bytes[..], &[0xFF; 16]].concat();
            let record = Unverified::parse(&longer).unwrap().verify(SALT, 128).unwrap();
            assert_eq!((record.key, record.len()), (&b"key"[..], bytes.len()));
        }
        assert_eq!(Unverified::parse(&put[..put.len() - 1]).unwrap_err(), Damage::Short);
    }

    /// Only the kind makes a mark or a footer, and only at its length.
    #[test]
    fn what_is_as_long_as_a_mark_or_a_footer_is_none() {
        let (eight, twenty_four) = ([1; 8], [1; 24]);
        for (kind, value) in [
            (Kind::Put, &eight[..]),
            (Kind::Put, &twenty_four),
            (Kind::Mark, &twenty_four),
            (Kind::Footer, &eight),
        ] {
            let bytes = encoded(Draft::new(kind, b"", value, None), 64, BatchPlace::Alone);
            let record = Record::decode(&bytes, SALT, 64).unwrap();
            assert_eq!((decode_mark(&record), Footer::decode(&record)), (None, None), "{kind:?}");
        }
    }

    /// A mark and a footer have the seqno of the write before them.
    #[test]
    fn some_kinds_are_writes() {
        let kinds = [Kind::Put, Kind::Tombstone, Kind::Clear, Kind::Mark, Kind::Footer];
        assert_eq!(kinds.map(Kind::is_write), [true, true, true, false, false]);
    }

    #[test]
    fn a_damage_says_what_is_damaged() {
        for (damage, word) in
            [(Damage::Short, "early"), (Damage::Header, "header"), (Damage::Body, "value")]
        {
            assert!(damage.what().contains(word), "{damage:?}: {}", damage.what());
        }
    }
}
