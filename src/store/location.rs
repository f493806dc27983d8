//! Where things are: sequence numbers, segment ids, and locations of records.
//!
//! Plain values, freely copied. Nothing here reads or writes.

use std::fmt;

/// A length in memory, to be reckoned with as one in a file.
#[inline]
pub(crate) fn len_of(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits 64 bits")
}

/// Place of a write in the total order of writes. The first is 1; 0 means "before every write".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Seqno(u64);

impl Seqno {
    pub(crate) const ZERO: Self = Self(0);

    /// A record says it in 56 bits: at ten million writes a second, 228 years.
    pub(crate) const MAX: Self = Self((1 << 56) - 1);

    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Name of a segment file for good: ids rise and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(u64);

impl SegmentId {
    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Place of an open segment in the segment table, 1 to `MAX`. Unlike ids, slots are reused, but
/// only after every reader that could have seen the previous holder has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    const BITS: u32 = 24;
    pub(crate) const MAX: u32 = (1 << Self::BITS) - 1;

    /// The slot numbered `raw`, if there is one.
    pub(crate) fn new(raw: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&raw).then_some(Self(raw))
    }

    /// Where the slot stands in a table.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).expect("a usize has 32 bits or more")
    }
}

/// Where a record begins: the slot of its segment and the offset in it, packed into 48 bits.
///
/// ```text
/// bit 47        24 23               0
///     segment slot  offset / 8 bytes
/// ```
///
/// Their order is the order in a segment, segment by segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location(u64);

impl Location {
    const OFFSET_BITS: u32 = 24;
    pub(crate) const BITS: u32 = Slot::BITS + Self::OFFSET_BITS;

    /// First offset that cannot be said.
    pub(crate) const OFFSET_END: u64 = 8 << Self::OFFSET_BITS;

    /// The record at `offset` of the segment in `slot`.
    pub(crate) fn new(slot: Slot, offset: u64) -> Self {
        assert!(
            offset.is_multiple_of(8) && offset < Self::OFFSET_END,
            "records are aligned and in range"
        );
        Self((u64::from(slot.0) << Self::OFFSET_BITS) | (offset / 8))
    }

    /// The location with these bits, as `bits` gave them. Bits above 48 are ignored.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn slot(self) -> Slot {
        Slot(u32::try_from(self.0 >> Self::OFFSET_BITS).expect("24 bits"))
    }

    pub(crate) const fn offset(self) -> u64 {
        (self.0 & ((1 << Self::OFFSET_BITS) - 1)) * 8
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} offset {}", self.slot().0, self.offset())
    }
}

const _: () = {
    // Every offset of a regular segment can be said; an oversized record starts near the front.
    assert!(crate::options::SEGMENT_BYTES_MAX <= Location::OFFSET_END);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_says_every_slot_and_offset_exactly() {
        for slot in [1, 2, 1000, Slot::MAX] {
            for offset in [0, 8, 64, Location::OFFSET_END - 8] {
                let slot = Slot::new(slot).unwrap();
                let location = Location::new(slot, offset);
                assert_eq!((location.slot(), location.offset()), (slot, offset));
                assert_eq!(Location::from_bits(location.bits()), location);
                assert!(location.bits() < 1 << 48 && location.bits() >= 1 << 24);
            }
        }
        assert_eq!(Slot::new(0), None);
        assert_eq!(Slot::new(Slot::MAX + 1), None);
    }
}
