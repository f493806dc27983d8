//! `kvs_stats`: figures of a store, as a structure that may grow and as JSON.

use std::ffi::c_void;
use std::{mem, slice};

use super::boundary::{Room, boundary, lend};
use super::buffer::kvs_buf;
use super::status::{KVS_OK, kvs_status};
use super::store::kvs_store;
use super::upkeep;
use crate::any_engine::{AnyEngine, Stats};
use crate::error::Result;

/// Figures of a store, of about one moment. Later versions add members at the end and change none.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct kvs_stats {
    /// Number of keys.
    pub key_count: u64,
    /// Bytes of the newest records of all keys, with what stands around them.
    pub live_bytes: u64,
    /// Bytes of all segment files.
    pub total_bytes: u64,
    /// Bytes of the records that say that a key was removed.
    pub tombstone_bytes: u64,
    /// Number of segment files.
    pub segment_count: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Compactions since the store was opened.
    pub compaction_count: u64,
    /// Groups of writes since the store was opened: what was written at once, for all who wrote
    /// at the same time.
    pub group_count: u64,
    /// Records written since the store was opened.
    pub record_count: u64,
    /// Syncs of the disk since the store was opened.
    pub sync_count: u64,
    /// Unfinished writes that the last open cut off and kept in "lost+found".
    pub crash_tails_cut: u64,
    /// Bytes of everything that is not live: total_bytes without live_bytes.
    pub dead_bytes: u64,
    /// Of the live bytes, those of keys that have expired; at least so many.
    pub expired_bytes: u64,
    /// Number of records that say that a key was removed.
    pub tombstone_count: u64,
    /// Number of files that compaction has replaced and that a reader, a buffer, an iterator or a
    /// checkpoint still holds. They are not part of total_bytes.
    pub retired_file_count: u64,
    /// Bytes of those files.
    pub retired_bytes: u64,
    /// Bytes of records that a loss of power would take at this moment.
    pub unsynced_bytes: u64,
    /// Age of the oldest of them, in microseconds; 0 if there are none.
    pub unsynced_us: u64,
    /// 1 if the store takes no more writes (KVS_ERR_POISONED), else 0.
    pub is_poisoned: u64,
    /// 1 if the disk was found full, so that only removes and compaction work, else 0.
    pub is_reserve_lent: u64,
    /// How long opening the store took, in microseconds.
    pub open_us: u64,
    /// Bytes of the records written since the store was opened; what compaction writes comes on
    /// top.
    pub written_bytes: u64,
    /// New log files begun since the store was opened.
    pub rotation_count: u64,
    /// How long the syncs took together, in microseconds.
    pub sync_us: u64,
    /// How long the longest of them took, in microseconds.
    pub sync_us_max: u64,
    /// How often a write was held back because compaction was behind.
    pub throttle_count: u64,
    /// How long writes were held back together, in microseconds.
    pub throttle_us: u64,
    /// How long a write was held back at most, in microseconds.
    pub throttle_us_max: u64,
    /// Bytes of files that compactions read since the store was opened.
    pub compaction_read_bytes: u64,
    /// Bytes of files that they wrote.
    pub compaction_written_bytes: u64,
    /// How long they took together, in microseconds.
    pub compaction_us: u64,
    /// 1 if writes pass through a mapped tail, which may not be possible on the file system, else
    /// 0.
    pub has_tail: u64,
}

/// A `kvs_stats` of what `$stats` says. Every field of `Stats` has to be named, so that a new one
/// does not compile before it has been decided upon: a number is a member, at the end; what is none
/// is in the JSON only.
macro_rules! figures_of {
    ($stats:expr, members: $($member:ident)*, json_only: $($other:ident)*) => {{
        let Stats { $($member,)* $($other: _,)* } = $stats;
        kvs_stats { $($member: $member.into(),)* }
    }};
}

impl kvs_stats {
    fn of(engine: &AnyEngine) -> Result<Self> {
        Ok(figures_of!(
            engine.stats()?,
            members:
                key_count live_bytes total_bytes tombstone_bytes segment_count
                index_bytes compaction_count group_count record_count sync_count
                crash_tails_cut dead_bytes expired_bytes tombstone_count
                retired_file_count retired_bytes unsynced_bytes unsynced_us
                is_poisoned is_reserve_lent open_us written_bytes rotation_count
                sync_us sync_us_max throttle_count throttle_us throttle_us_max
                compaction_read_bytes compaction_written_bytes compaction_us has_tail,
            json_only: background_error group_sizes
        ))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: numbers of 8 bytes and nothing between them (the assertion below), so every byte
        // is initialized; they live as long as `self`.
        unsafe { slice::from_raw_parts((&raw const *self).cast(), mem::size_of::<Self>()) }
    }
}

/// Stores figures of a store in a structure of yours: stats has stats_len bytes. Pass
/// sizeof(kvs_stats), so that a program and a library of different versions understand each other:
/// of a structure longer than the library's the rest is 0, of a shorter one the rest is left out.
///
/// Example:
///
///   kvs_stats stats;
///   if (kvs_get_stats(store, &stats, sizeof stats) == KVS_OK)
///       printf("%lu keys\n", (unsigned long)stats.key_count);
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED: the engine has none; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID. All bytes of the structure are 0 unless KVS_OK.
/// Threads: any.
/// Cost:    takes locks, briefly, and looks at every segment: not for every read.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get_stats(
    store: *mut kvs_store,
    stats: *mut kvs_stats,
    stats_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3, for `stats_len` bytes.
        let mut room = unsafe { Room::zeroed("stats", stats.cast::<c_void>(), stats_len) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        let now = store.read(|engine| Ok(kvs_stats::of(engine)?))?;
        let known = now.bytes();
        room.put([known.get(..stats_len).unwrap_or(known)]);
        Ok(KVS_OK)
    })
}

/// The same figures as JSON: an object whose members are called as those of kvs_stats, of which
/// is_poisoned, is_reserve_lent and has_tail are true or false. Beyond them it has
/// background_error, the text of what background compaction failed with last, until kvs_compact has
/// returned it, or null; and group_sizes, an array that says how many groups were of 1 record, of 2
/// or 3, 4 to 7 and so on. Later versions may add members.
///
/// Ownership: *json is yours; give it to kvs_buf_free. It is UTF-8 without a zero byte at the end.
///            NULL is stored on failure.
/// Returns:   as kvs_get_stats.
/// Threads:   any.
/// Cost:      as kvs_get_stats.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_stats_json(
    store: *mut kvs_store,
    json: *mut *mut kvs_buf,
) -> kvs_status {
    // SAFETY: promises 1, 3 and 4.
    unsafe { upkeep::json("json", store, json, AnyEngine::stats) }
}

// Members that are all of 8 bytes leave no gaps. It only ever grows.
const _: () = {
    let len = mem::size_of::<kvs_stats>();
    assert!(len >= 248 && len.is_multiple_of(8));
};
