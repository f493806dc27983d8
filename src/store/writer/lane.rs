//! The lane: what only the leader touches, among it the buffer in which a group is put together.
//!
//! ```text
//! active segment | record | record | ...       on disk
//!                                   [ mark | record | record ... ]    buffer, appended as a whole
//! ```
//! Staging gives each record its seqno and its place; nothing is visible before the writer has
//! appended and published it.

use crate::store::key_hash::{ByHash, KeyHash};
use crate::store::location::Seqno;
use crate::store::record::{self, BatchPlace, Kind, MARK_LEN};
use crate::store::segment::SegmentWriter;
use crate::store::writer::queue::Entry;

/// The buffer of a group gives memory above this back after the group (4 MiB).
const BUFFER_KEPT_LEN_MAX: usize = 4 << 20;

/// What only the leader touches.
pub(super) struct Lane {
    pub(super) active: Option<SegmentWriter>,
    /// The last seqno that was given away.
    pub(super) seqno: Seqno,
    /// Up to where the last mark in the log says it is durable.
    pub(super) marked: Seqno,
    /// The staged records, to be appended at the end of `active`.
    pub(super) buffer: Vec<u8>,
    pub(super) staged: Vec<Staged>,
    /// The last staged record of a key, by hash; kept only while a group has several operations.
    pub(super) latest: ByHash<usize>,
    /// Appended since the space bound was last looked at.
    pub(super) unweighed_bytes: u64,
}

/// A record in the buffer.
pub(super) struct Staged {
    pub(super) hash: KeyHash,
    pub(super) kind: Kind,
    pub(super) seqno: Seqno,
    pub(super) expiry_ms: Option<u64>,
    pub(super) in_batch: bool,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) key_start: usize,
    pub(super) key_len: usize,
}

impl Lane {
    /// The lane of a log that goes on after `last`, which is durable.
    pub(super) fn new(last: Seqno) -> Self {
        Self {
            active: None,
            seqno: last,
            marked: last,
            buffer: Vec::new(),
            staged: Vec::new(),
            latest: ByHash::default(),
            unweighed_bytes: 0,
        }
    }

    /// Whether the records of `entries` fit behind what is staged.
    pub(super) fn fits(&self, entries: &[Entry<'_>]) -> bool {
        let len: usize = entries.iter().map(|entry| entry.draft.len()).sum();
        let active = self.active.as_ref();
        active.is_some_and(|active| active.fits(self.buffer.len() + len + MARK_LEN))
    }

    /// Where the buffer will lie.
    pub(super) fn place(&self) -> (u64, record::Salt) {
        let segment = self.active.as_ref().expect("staging made sure of a segment").segment();
        (segment.len(), segment.header.salt)
    }

    pub(super) fn stage(&mut self, entry: &Entry<'_>, place: BatchPlace, grouped: bool) {
        let (base, salt) = self.place();
        let start = self.buffer.len();
        self.seqno = self.seqno.next();
        entry.draft.encode(&mut self.buffer, base, salt, self.seqno, place);
        let key_len = entry.draft.key.len();
        let expiry_len = entry.draft.expiry_ms.map_or(0, |_| 8);
        if grouped {
            self.latest.insert(entry.hash, self.staged.len());
        }
        self.staged.push(Staged {
            hash: entry.hash,
            kind: entry.draft.kind,
            seqno: self.seqno,
            expiry_ms: entry.draft.expiry_ms,
            in_batch: place != BatchPlace::Alone,
            start,
            len: self.buffer.len() - start,
            key_start: start + record::HEADER_LEN + expiry_len,
            key_len,
        });
    }

    pub(super) fn key(&self, staged: &Staged) -> &[u8] {
        let end = staged.key_start + staged.key_len;
        self.buffer.get(staged.key_start..end).expect("staged records lie in the buffer")
    }

    /// The last staged record of the entry's key, if there is one.
    pub(super) fn latest_of(&self, entry: &Entry<'_>) -> Option<&Staged> {
        let staged = self.staged.get(*self.latest.get(&entry.hash)?)?;
        if self.key(staged) == entry.draft.key {
            return Some(staged);
        }
        // Two keys of one group with the same 64-bit hash: look at all of them.
        self.staged.iter().rev().find(|staged| self.key(staged) == entry.draft.key)
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_LEN_MAX);
        self.staged.clear();
        self.latest.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::options::ReadMode;
    use crate::store::disk::modelled::ModelledDisk;
    use crate::store::key_hash::KeyHasher;
    use crate::store::location::{SegmentId, Slot};
    use crate::store::log_file::Ahead;
    use crate::store::record::{Draft, Salt};
    use crate::store::segment::{Origin, Place, Segment, SegmentHeader};

    fn lane() -> Lane {
        let header = SegmentHeader {
            id: SegmentId::new(1),
            origin: Origin::Log,
            salt: Salt(7),
            store_id: 7,
            seqno_before: Seqno::ZERO,
        };
        let slot = Slot::new(1).unwrap();
        let place = Place { slot, read_mode: ReadMode::Positioned, ahead: Ahead::Nothing };
        let disk = ModelledDisk::default();
        let active = Segment::create(&disk, Path::new("/log"), header, place, 1 << 20).unwrap();
        Lane { active: Some(active), ..Lane::new(Seqno::ZERO) }
    }

    /// Two keys of a group may have the same hash. Each is found by its bytes.
    #[test]
    fn the_latest_record_of_a_key_is_not_that_of_another_with_its_hash() {
        let hash = KeyHasher::new(1).hash(b"any");
        let entry = |key, value| Entry { hash, draft: Draft::put(key, value) };
        let mut lane = lane();
        for (key, value) in [(b"one", b"1"), (b"one", b"2"), (b"two", b"3")] {
            lane.stage(&entry(key, value), BatchPlace::Alone, true);
        }
        let latest = |key| lane.latest_of(&entry(key, b"")).map(|staged| staged.seqno.get());
        assert_eq!((latest(b"one"), latest(b"two"), latest(b"six")), (Some(2), Some(3), None));
    }
}
