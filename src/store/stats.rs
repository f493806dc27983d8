//! What a store says of itself.

use serde::Serialize;

/// Figures of one moment. Writes go on while they are gathered, so they may differ by a few
/// operations among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Number of keys.
    pub key_count: u64,
    /// Bytes of the newest records of all keys, headers and padding included.
    pub live_bytes: u64,
    /// Bytes of all segment files.
    pub total_bytes: u64,
    /// Of the live bytes, those of keys that have expired; at least so many. Compaction gives them
    /// back, and their keys are counted until then.
    pub expired_bytes: u64,
    /// Bytes of tombstones: records that say that a key was removed.
    pub tombstone_bytes: u64,
    /// Number of segments.
    pub segment_count: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Compactions since the store was opened.
    pub compaction_count: u64,
    /// Groups of writes appended since the store was opened.
    pub group_count: u64,
    /// Records appended since the store was opened; divided by `group_count`, how many writes share
    /// one append.
    pub record_count: u64,
    /// Rounds of `fdatasync` since the store was opened.
    pub sync_count: u64,
    /// Unfinished writes that the last open cut off and kept in `lost+found/`.
    pub crash_tails_cut: u64,
}

/// Figures about one segment, of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its number: ids rise and are never reused.
    pub id: u64,
    /// The name of its file.
    pub file: String,
    /// Bytes of the file.
    pub total_bytes: u64,
    /// Bytes of the newest records of keys, headers and padding included.
    pub live_bytes: u64,
    /// Bytes of tombstones: records that say that a key was removed.
    pub tombstone_bytes: u64,
    /// Whether it is immutable; otherwise it is the log that is being written.
    pub is_sealed: bool,
    /// Whether it was written in the order of writes; otherwise by compaction.
    pub is_log: bool,
}

/// How far long work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done so far.
    pub done_bytes: u64,
    /// Bytes there are, as far as known.
    pub total_bytes: u64,
}
