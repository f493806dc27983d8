//! `kvs_batch`: writes that are gathered in the caller's hands and applied as a whole.

use std::ffi::c_void;
use std::ptr;

use super::boundary::{boundary, boundary_or, bytes, check_flags, give, lend, lend_mut, take_back};
use super::expiry::expiry_of;
use super::status::{KVS_OK, kvs_status};
use super::store::kvs_store;
use crate::engine::KvsEngine;
use crate::options::{WriteOptions, check_key, check_value};
use crate::write_batch::WriteBatch;

/// For kvs_write: return only when the batch survives power loss, whatever KVS_OPT_DURABILITY says.
pub const KVS_WRITE_SYNC: u32 = 1;

/// Writes that belong together. Only memory: it knows no store, and kvs_write applies it to one.
/// Used by one thread at a time.
#[derive(Debug, Default)]
pub struct kvs_batch {
    writes: WriteBatch,
}

/// Makes an empty batch.
///
/// Ownership: yours; give it to kvs_batch_free.
/// Returns:   NULL only if a bug was caught; kvs_last_error names it.
/// Threads:   any; the result is for one thread at a time.
/// Cost:      one small allocation.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn kvs_batch_new() -> *mut kvs_batch {
    boundary_or(ptr::null_mut(), || give(kvs_batch::default()))
}

/// Frees a batch. NULL is allowed.
///
/// Threads: promises 4 and 5.
/// Cost:    frees what was copied.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_batch_free(batch: *mut kvs_batch) {
    // SAFETY: promises 1 and 4.
    let batch = unsafe { take_back(batch) };
    boundary_or((), || drop(batch));
}

/// Adds to a batch: set a key to a value, which does not expire. A later write of the same key wins
/// over an earlier one. On failure the batch is as it was.
///
/// Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: promise 5.
/// Cost:    a copy of the key and the value, in memory.
///
/// # Safety
///
/// Promises 1, 2, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_batch_set(
    batch: *mut kvs_batch,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 4 and 5.
        let batch = unsafe { lend_mut("batch", batch) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value, value_len) }?;
        // Now rather than in kvs_write: this is the call with the mistake, and nothing is copied.
        check_key(key)?;
        check_value(value)?;
        batch.writes.set(key, value);
        Ok(KVS_OK)
    })
}

/// Adds to a batch: set a key to a value until expiry_ms; see kvs_set_with_expiry. KVS_EXPIRY_NEVER
/// is kvs_batch_set. On failure the batch is as it was.
///
/// Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
///          Whether the engine has expiry is found by kvs_write.
/// Threads: promise 5.
/// Cost:    a copy of the key and the value, in memory.
///
/// # Safety
///
/// Promises 1, 2, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_batch_set_with_expiry(
    batch: *mut kvs_batch,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    expiry_ms: u64,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 4 and 5.
        let batch = unsafe { lend_mut("batch", batch) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value, value_len) }?;
        check_key(key)?;
        check_value(value)?;
        match expiry_of(expiry_ms) {
            Some(expiry_ms) => batch.writes.set_with_expiry(key, value, expiry_ms),
            None => batch.writes.set(key, value),
        };
        Ok(KVS_OK)
    })
}

/// Adds to a batch: remove a key. If the key is not there that has no effect, and is no failure.
/// On failure the batch is as it was.
///
/// Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: promise 5.
/// Cost:    a copy of the key, in memory.
///
/// # Safety
///
/// Promises 1, 2, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_batch_remove(
    batch: *mut kvs_batch,
    key: *const c_void,
    key_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 4 and 5.
        let batch = unsafe { lend_mut("batch", batch) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        check_key(key)?;
        batch.writes.remove(key);
        Ok(KVS_OK)
    })
}

/// The number of writes in a batch; 0 for NULL.
///
/// Threads: promise 5.
/// Cost:    none.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_batch_count(batch: *const kvs_batch) -> usize {
    // SAFETY: promises 1, 4 and 5.
    let batch = unsafe { batch.as_ref() };
    boundary_or(0, || batch.map_or(0, |batch| batch.writes.len()))
}

/// Takes all writes out of a batch, which can then be filled anew. NULL is allowed.
///
/// Threads: promise 5.
/// Cost:    frees what was copied.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_batch_clear(batch: *mut kvs_batch) {
    // SAFETY: promises 1, 4 and 5.
    let batch = unsafe { batch.as_mut() };
    boundary_or((), || {
        if let Some(batch) = batch {
            batch.writes.clear();
        }
    });
}

/// Applies a batch to a store: all of its writes or none, for those who read at the same time, and
/// after a crash. The batch is left as it is: it may be applied again, to any store, or cleared and
/// filled anew. An empty one does nothing.
///
/// flags is 0 or KVS_WRITE_SYNC.
///
/// Example:
///
///   kvs_batch *batch = kvs_batch_new();
///   if (kvs_batch_set(batch, "to", 2, "110", 3) < 0 ||
///       kvs_batch_set(batch, "from", 4, "90", 2) < 0 ||
///       kvs_batch_remove(batch, "pending", 7) < 0 ||
///       kvs_write(store, batch, KVS_WRITE_SYNC) < 0)
///       fprintf(stderr, "%s\n", kvs_last_error());
///   kvs_batch_free(batch);
///
/// Returns: KVS_OK; KVS_ERR_BATCH_TOO_LONG: it takes more than 96 MiB, its longest write not
///          counted, so split it; KVS_ERR_UNSUPPORTED: unknown flags, or an expiry and an engine
///          without; KVS_ERR_READ_ONLY; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED;
///          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. Nothing of the batch is applied then.
/// Threads: any for the store, promise 5 for the batch.
/// Cost:    that of kvs_set, once for all of it; with KVS_WRITE_SYNC one sync.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_write(
    store: *mut kvs_store,
    batch: *const kvs_batch,
    flags: u32,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promises 1, 4 and 5.
        let batch = unsafe { lend("batch", batch) }?;
        check_flags(flags, KVS_WRITE_SYNC)?;
        let options = WriteOptions { sync: flags & KVS_WRITE_SYNC != 0 };
        store.write(|engine| Ok(engine.apply_with(&batch.writes, options)?))?;
        Ok(KVS_OK)
    })
}
