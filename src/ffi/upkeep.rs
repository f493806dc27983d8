//! Calls on the store as a whole.

use std::ffi::c_char;
use std::ptr;

use serde::Serialize;

use super::boundary::{boundary, directory, lend, out};
use super::buffer::kvs_buf;
use super::status::{KVS_OK, kvs_status};
use super::store::{change, kvs_store};
use crate::any_engine::AnyEngine;
use crate::engine::KvsEngine;
use crate::error::Result;
use crate::value::Value;

/// Stores the number of keys. Keys that have expired count until compaction has dropped them, which
/// kvs_compact does at once.
///
/// Returns: KVS_OK; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. *count is 0 unless KVS_OK.
/// Threads: any.
/// Cost:    the same however many there are.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_len(store: *mut kvs_store, count: *mut u64) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let count = unsafe { out("count", count, 0) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        *count = store.read(|engine| Ok(engine.len()?))?;
        Ok(KVS_OK)
    })
}

/// Removes every key. After a crash all of them are gone or none is (with the engine sled, some may
/// be); who reads at the same time may see some keys gone before others. Keys that are set
/// meanwhile by other threads are gone or stay.
///
/// Returns: KVS_OK; KVS_ERR_READ_ONLY; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED;
///          KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    one record, however many keys there are, and a wait for a compaction under way; the
///          space comes back in the background. With the engine sled each key is removed by itself.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_clear(store: *mut kvs_store) -> kvs_status {
    // SAFETY: promises 1 and 4.
    unsafe { change(store, KvsEngine::clear) }
}

/// Makes every write that has returned so far survive power loss.
///
/// Returns: KVS_OK; KVS_ERR_IO: the disk refuses, and the store takes no more writes;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    one sync of the disk, shared with those who wait for one at the same time.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_sync(store: *mut kvs_store) -> kvs_status {
    // SAFETY: promises 1 and 4.
    unsafe { change(store, KvsEngine::sync) }
}

/// Gives back the disk space of overwritten and removed keys, and returns when that is done. Reads
/// and writes go on meanwhile. Not needed for correctness: by default it happens in the background.
///
/// Returns: KVS_OK; KVS_ERR_NO_SPACE; KVS_ERR_CORRUPT; KVS_ERR_IO: nothing is lost;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    copies every live record that shares a file with dead ones.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_compact(store: *mut kvs_store) -> kvs_status {
    // SAFETY: promises 1 and 4.
    unsafe { change(store, KvsEngine::compact) }
}

/// Makes a copy of the store in another directory, which must not exist or be empty, while reads
/// and writes go on. The copy opens as it is and holds all writes up to one moment of their order,
/// all of them durable. If this fails nothing of it stays.
///
/// dest_utf8 is UTF-8 on every platform.
///
/// Returns: KVS_OK; KVS_ERR_STORE_EXISTS: something is in the directory; KVS_ERR_NOT_A_DIRECTORY;
///          KVS_ERR_LOCKED; KVS_ERR_INVALID: the path is empty; KVS_ERR_NOT_UTF8;
///          KVS_ERR_UNSUPPORTED: the engine makes none; KVS_ERR_NO_SPACE; KVS_ERR_IO;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    on the same file system hardly any disk space at first: sealed files get a second
///          name. Elsewhere a copy of every file. Waits for a compaction under way.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_checkpoint(
    store: *mut kvs_store,
    dest_utf8: *const c_char,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let dest = unsafe { directory("dest_utf8", dest_utf8) }?;
        store.write(|engine| Ok(engine.checkpoint(dest)?))?;
        Ok(KVS_OK)
    })
}

/// Reads every record of the store, and the record of every key, and counts what is damaged.
/// Changes nothing; reads and writes go on meanwhile. A program that wants to know where the
/// damage is calls kvs_verify_json instead.
///
/// *records is how many records are whole. *bad is how many stretches of the files are damaged,
/// and how many keys cannot be read because of it, together: 0 if the store is sound. Both are 0 on
/// failure.
///
/// Returns: KVS_OK, also if there is damage; KVS_ERR_UNSUPPORTED: the engine cannot be verified;
///          KVS_ERR_IO: a file cannot be opened; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    reads every file of the store.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_verify(
    store: *mut kvs_store,
    records: *mut u64,
    bad: *mut u64,
) -> kvs_status {
    boundary(|| {
        // Both before either is refused, so that both are 0 on failure.
        // SAFETY: promise 3.
        let records = unsafe { out("records", records, 0) };
        // SAFETY: promise 3.
        let bad = unsafe { out("bad", bad, 0) };
        let (records, bad) = (records?, bad?);
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        let report = store.read(|engine| Ok(engine.verify()?))?;
        *records = report.record_count;
        *bad = report.damage_count + report.unreadable_key_count;
        Ok(KVS_OK)
    })
}

/// As kvs_verify, with all that it found as JSON: an object with the members segment_count,
/// record_count, total_bytes, live_key_count, unreadable_key_count, crash_tail_bytes, damage_count
/// and damages. The last is an array of the first thousand damages, objects with the members path,
/// offset, bytes, what (in words) and writes (the first and last number of the writes that were
/// there, or null). Later versions may add members.
///
/// Ownership: *report is yours; give it to kvs_buf_free. It is UTF-8 without a zero byte at the
///            end. NULL is stored on failure.
/// Returns:   as kvs_verify.
/// Threads:   any.
/// Cost:      reads every file of the store.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_verify_json(
    store: *mut kvs_store,
    report: *mut *mut kvs_buf,
) -> kvs_status {
    // SAFETY: promises 1, 3 and 4.
    unsafe { json("report", store, report, AnyEngine::verify) }
}

/// The body of a call that stores what `ask` returns, as JSON.
///
/// # Safety
///
/// Promises 1, 3 and 4.
pub(super) unsafe fn json<T: Serialize>(
    argument: &'static str,
    store: *const kvs_store,
    place: *mut *mut kvs_buf,
    ask: impl FnOnce(&AnyEngine) -> Result<T>,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let place = unsafe { out(argument, place, ptr::null_mut()) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        let answer = store.read(|engine| Ok(ask(engine)?))?;
        // Numbers, texts and lists of them have a form in JSON, and memory does not refuse bytes.
        let bytes = serde_json::to_vec(&answer).expect("figures are JSON");
        *place = kvs_buf::give(Some(Value::from(bytes)));
        Ok(KVS_OK)
    })
}
