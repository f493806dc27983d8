//! Calls about when a key expires.
//!
//! In C a time is a number, and [`KVS_EXPIRY_NEVER`] stands for none, in both directions: the
//! engine promises that this time never comes, so nothing is lost by it.

use std::ffi::c_void;

use super::boundary::{boundary, bytes, out};
use super::status::{KVS_NOT_FOUND, KVS_OK, kvs_status};
use super::store::{kvs_store, store_and_key};
use crate::engine::{Expiry, KvsEngine};

/// In place of a time: the key does not expire.
pub const KVS_EXPIRY_NEVER: u64 = u64::MAX;

/// What `expiry_ms` asks of the engine.
pub(super) fn expiry_of(expiry_ms: u64) -> Option<u64> {
    (expiry_ms != KVS_EXPIRY_NEVER).then_some(expiry_ms)
}

/// Sets a key to a value until expiry_ms, in milliseconds since the Unix epoch by the system's
/// clock: from that millisecond on the key is absent, for every call, as if it had been removed. A
/// time in the past is no failure: the key is absent at once, whether or not it was there. With
/// KVS_EXPIRY_NEVER this is kvs_set. Setting the key anew takes its expiry off.
///
/// Expired keys are counted by kvs_len, and take up space, until compaction has dropped them.
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED: the engine has no expiry; otherwise as kvs_set.
/// Threads: any.
/// Cost:    as kvs_set, and 8 bytes in the file.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_set_with_expiry(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    expiry_ms: u64,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value, value_len) }?;
        store.write(|engine| match expiry_of(expiry_ms) {
            Some(expiry_ms) => Ok(engine.set_with_expiry(key, value, expiry_ms)?),
            None => Ok(engine.set_bytes(key, value)?),
        })?;
        Ok(KVS_OK)
    })
}

/// Stores when a key expires, in milliseconds since the Unix epoch, or KVS_EXPIRY_NEVER.
///
/// Returns: KVS_OK; KVS_NOT_FOUND: the key is absent, or has expired; KVS_ERR_CORRUPT; KVS_ERR_IO;
///          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID. *expiry_ms is 0 unless
///          KVS_OK.
/// Threads: any.
/// Cost:    a lookup; does not depend on the length of the value with the engine kvs.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get_expiry(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    expiry_ms: *mut u64,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let expiry_ms = unsafe { out("expiry_ms", expiry_ms, 0) }?;
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        *expiry_ms = match store.read(|engine| Ok(engine.expiry(key)?))? {
            Expiry::Absent => return Ok(KVS_NOT_FOUND),
            Expiry::Never => KVS_EXPIRY_NEVER,
            Expiry::At(at_ms) => at_ms,
        };
        Ok(KVS_OK)
    })
}

/// Lets a key expire at expiry_ms, as kvs_set_with_expiry does, or never with KVS_EXPIRY_NEVER. Its
/// value stays, and nobody's write falls between.
///
/// *previous_ms is when the key would have expired before, or KVS_EXPIRY_NEVER; 0 unless KVS_OK.
/// previous_ms may be NULL if you do not want to know.
///
/// Returns: KVS_OK; KVS_NOT_FOUND: the key is absent, and nothing was written; KVS_ERR_UNSUPPORTED:
///          the engine has no expiry (KVS_EXPIRY_NEVER it takes); otherwise as kvs_set and kvs_get.
/// Threads: any.
/// Cost:    kvs_get and kvs_set: the value is written anew. A lookup if the expiry is that already.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_set_expiry(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    expiry_ms: u64,
    previous_ms: *mut u64,
) -> kvs_status {
    boundary(|| {
        // NULL is the only refusal, and means that nobody asks.
        // SAFETY: promise 3.
        let place = unsafe { out("previous_ms", previous_ms, 0) }.ok();
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        let before = store.write(|engine| Ok(engine.set_expiry(key, expiry_of(expiry_ms))?))?;
        if let Some(place) = place {
            *place = before.unwrap_or(KVS_EXPIRY_NEVER);
        }
        Ok(KVS_OK)
    })
}
