//! `kvs_stats`: figures of a store, as a structure that may grow and as JSON.

use std::ffi::c_void;
use std::{mem, slice};

use super::boundary::{Room, boundary, lend};
use super::buffer::kvs_buf;
use super::status::{KVS_OK, kvs_status};
use super::store::kvs_store;
use super::upkeep;
use crate::any_engine::AnyEngine;
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
    /// Groups of writes since the store was opened, each one write to the file.
    pub group_count: u64,
    /// Records written since the store was opened.
    pub record_count: u64,
    /// Syncs of the disk since the store was opened.
    pub sync_count: u64,
    /// Unfinished writes that the last open cut off and kept in "lost+found".
    pub crash_tails_cut: u64,
}

impl kvs_stats {
    /// The figures of `engine`. A new one is a line above, at the end, and a line here.
    fn of(engine: &AnyEngine) -> Result<Self> {
        let now = engine.stats()?;
        Ok(Self {
            key_count: now.key_count,
            live_bytes: now.live_bytes,
            total_bytes: now.total_bytes,
            tombstone_bytes: now.tombstone_bytes,
            segment_count: now.segment_count,
            index_bytes: now.index_bytes,
            compaction_count: now.compaction_count,
            group_count: now.group_count,
            record_count: now.record_count,
            sync_count: now.sync_count,
            crash_tails_cut: now.crash_tails_cut,
        })
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
///   kvs_stats stats;
///   if (kvs_get_stats(store, &stats, sizeof stats) == KVS_OK) ...
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
        room.put(&[known.get(..stats_len).unwrap_or(known)]);
        Ok(KVS_OK)
    })
}

/// The same figures as JSON: an object whose members are called as those of kvs_stats. Later
/// versions may add members.
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
    assert!(len >= 88 && len.is_multiple_of(8));
};
