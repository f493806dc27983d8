//! `kvs_store`: an open store in the caller's hands.
//!
//! Closing has two steps. `kvs_close` ends the store and may race with every other call, since the
//! engine itself lets calls under way finish and refuses later ones; `kvs_store_free` ends the
//! pointer, which only the caller can know to be unused.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{mem, ptr};

use super::boundary::{
    Failure, Outcome, Room, boundary, boundary_or, bytes, give, keep_panics_quiet, lend, out,
    take_back, text,
};
use super::buffer::kvs_buf;
use super::fork::{self, Generation};
use super::options::{KVS_OPT_ENGINE, kvs_options};
use super::status::{KVS_NOT_FOUND, KVS_OK, KVS_TOO_SMALL, kvs_status};
use crate::any_engine::AnyEngine;
use crate::engine::KvsEngine;
use crate::error::KvsError;

/// An open store. All calls on it may be made from any thread at once, kvs_store_free excepted.
#[derive(Debug)]
pub struct kvs_store {
    engine: AnyEngine,
    born: Generation,
    /// Whether a call on this handle panicked. What it left half-done is unknown, so no more is
    /// written through it; reads verify what they return.
    panicked: AtomicBool,
}

impl kvs_store {
    pub(super) fn new(engine: AnyEngine) -> Self {
        Self { engine, born: Generation::now(), panicked: AtomicBool::new(false) }
    }

    /// Runs a call that changes nothing.
    pub(super) fn read<R>(&self, call: impl FnOnce(&AnyEngine) -> Outcome<R>) -> Outcome<R> {
        if self.born.is_past() {
            return Err(Failure::Forked);
        }
        let poison = PoisonOnUnwind(&self.panicked);
        let result = call(&self.engine);
        mem::forget(poison);
        result
    }

    /// Runs a call that changes the store, or promises something about earlier changes.
    pub(super) fn write<R>(&self, call: impl FnOnce(&AnyEngine) -> Outcome<R>) -> Outcome<R> {
        // Relaxed: nothing else is published with it, and a call that races with the panic is as
        // good as one before it.
        if self.panicked.load(Ordering::Relaxed) && !self.born.is_past() {
            return Err(Failure::Poisoned);
        }
        self.read(call)
    }
}

/// Remembers a panic that unwinds through it.
struct PoisonOnUnwind<'a>(&'a AtomicBool);

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        // Relaxed: the flag stands for itself; a call that runs at the same time may miss it.
        self.0.store(true, Ordering::Relaxed);
    }
}

// Every call on these may come from any thread.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<kvs_store>();
    shared::<kvs_buf>();
};

/// Opens the store in a directory, and creates both if they are missing and the options do not
/// forbid it. A directory is opened once at a time, by one process.
///
/// path_utf8 is UTF-8 on every platform. options may be NULL for the defaults.
///
/// Ownership: *store is yours: kvs_close ends the store, kvs_store_free the pointer. NULL is stored
///            on failure.
/// Returns:   KVS_OK; KVS_ERR_LOCKED: it is open already; KVS_ERR_NOT_A_DIRECTORY;
///            KVS_ERR_NO_STORE and KVS_ERR_STORE_EXISTS, if the options ask for that;
///            KVS_ERR_WRONG_ENGINE; KVS_ERR_FORMAT; KVS_ERR_CORRUPT; KVS_ERR_UNSUPPORTED: no
///            engine has that name; KVS_ERR_INVALID: an option cannot work, or the path is
///            empty; KVS_ERR_PERMISSION; KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_THREAD;
///            KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
/// Threads:   any.
///
/// # Safety
///
/// Promises 1 to 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_open(
    path_utf8: *const c_char,
    options: *const kvs_options,
    store: *mut *mut kvs_store,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let store = unsafe { out("store", store, ptr::null_mut()) }?;
        // SAFETY: promise 2.
        let path = unsafe { text("path_utf8", path_utf8) }?;
        if path.is_empty() {
            // Nearly always a setting that was not read; the current directory is ".".
            return Err(Failure::Invalid {
                argument: "path_utf8",
                must: "the path of a directory",
            });
        }
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { options.as_ref() };
        *store = give(open(Path::new(path), &options.cloned().unwrap_or_default())?);
        Ok(KVS_OK)
    })
}

fn open(path: &Path, options: &kvs_options) -> Outcome<kvs_store> {
    keep_panics_quiet();
    fork::watch().map_err(|error| KvsError::io("watch for forks of the user of", path, error))?;
    let engine = AnyEngine::open(path, options.text(KVS_OPT_ENGINE), options.store_options()?)?;
    Ok(kvs_store::new(engine))
}

/// Closes a store: waits for calls under way, makes everything durable, and lets go of the
/// directory. Every later call on the store says KVS_ERR_CLOSED; the pointer stays valid until
/// kvs_store_free. Closing twice is no error. A server on the store answers with errors from then
/// on, so stop it first.
///
/// Returns: KVS_OK; KVS_ERR_IO or KVS_ERR_NO_SPACE: the last writes may not survive power loss; the
///          store is closed all the same; KVS_ERR_FORKED: nothing was done; KVS_ERR_NULL.
/// Threads: any, beside any other call but kvs_store_free.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_close(store: *mut kvs_store) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.read(|engine| Ok(engine.close()?))?;
        Ok(KVS_OK)
    })
}

/// Frees a store, and closes it first if that has not been done; then a failure to make the last
/// writes durable goes unseen. NULL is allowed. In a child made by fork it releases memory and
/// touches nothing else. Buffers and servers of the store are freed on their own, before or after.
///
/// Threads: promise 4.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_store_free(store: *mut kvs_store) {
    // SAFETY: promises 1 and 4.
    let Some(store) = (unsafe { take_back(store) }) else { return };
    boundary_or((), || {
        let kvs_store { engine, born, .. } = *store;
        if born.is_past() {
            // Dropping it would sync, join and unlock what belongs to the parent.
            mem::forget(engine);
        } else {
            // A server on it may live on, so dropping the engine would not close it. The failure
            // was to be asked for with `kvs_close`.
            let _ = engine.close();
        }
    });
}

/// Looks up the value of a key.
///
/// Ownership: *value is yours; give it to kvs_buf_free. It stays as it is, whatever happens to the
///            key or the store. NULL is stored unless the result is KVS_OK.
/// Returns:   KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///            KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads:   any.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut kvs_buf,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let value = unsafe { out("value", value, ptr::null_mut()) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        let Some(found) = store.read(|engine| Ok(engine.get_bytes(key)?))? else {
            return Ok(KVS_NOT_FOUND);
        };
        *value = give(kvs_buf::new(found));
        Ok(KVS_OK)
    })
}

/// Copies the value of a key into memory of yours: dst has room for capacity bytes. The cheapest
/// way to read: nothing is allocated.
///
/// *value_len is the length of the value with KVS_OK and with KVS_TOO_SMALL, else 0.
///
/// Returns: KVS_OK; KVS_NOT_FOUND; KVS_TOO_SMALL: nothing was copied, call again with *value_len
///          bytes of room; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get_into(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    dst: *mut c_void,
    capacity: usize,
    value_len: *mut usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let value_len = unsafe { out("value_len", value_len, 0) }?;
        // SAFETY: promise 3.
        let mut room = unsafe { Room::new("dst", dst, capacity) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        let copy = |value: &[u8]| (value.len(), room.fill(value));
        let Some((len, fits)) = store.read(|engine| Ok(engine.get_with(key, copy)?))? else {
            return Ok(KVS_NOT_FOUND);
        };
        *value_len = len;
        Ok(if fits { KVS_OK } else { KVS_TOO_SMALL })
    })
}

/// Tells whether a key is there, without its value.
///
/// Returns: KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_contains(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        let there = store.read(|engine| Ok(engine.contains(key)?))?;
        Ok(if there { KVS_OK } else { KVS_NOT_FOUND })
    })
}

/// Sets a key to a value, whether or not it was there. When this returns KVS_OK every later read
/// sees the value, and it is as durable as KVS_OPT_DURABILITY says.
///
/// Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_NO_SPACE; KVS_ERR_IO;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_set(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value, value_len) }?;
        store.write(|engine| Ok(engine.set_bytes(key, value)?))?;
        Ok(KVS_OK)
    })
}

/// Removes a key.
///
/// Returns: KVS_OK; KVS_NOT_FOUND: it was not there, and nothing was written; KVS_ERR_IO;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_remove(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let key = unsafe { bytes("key", key, key_len) }?;
        store.write(|engine| Ok(engine.remove_bytes(key)?))?;
        Ok(KVS_OK)
    })
}

/// Stores the number of keys. Costs the same however many there are.
///
/// Returns: KVS_OK; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL. *count is 0 unless KVS_OK.
/// Threads: any.
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

/// Makes every write that has returned so far survive power loss.
///
/// Returns: KVS_OK; KVS_ERR_IO: the disk refuses, and the store takes no more writes;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_sync(store: *mut kvs_store) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.write(|engine| Ok(engine.sync()?))?;
        Ok(KVS_OK)
    })
}

/// Gives back the disk space of overwritten and removed keys, and returns when that is done. Reads
/// and writes go on meanwhile. Not needed for correctness: by default it happens in the background.
///
/// Returns: KVS_OK; KVS_ERR_NO_SPACE; KVS_ERR_CORRUPT; KVS_ERR_IO: nothing is lost;
///          KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_compact(store: *mut kvs_store) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.write(|engine| Ok(engine.compact()?))?;
        Ok(KVS_OK)
    })
}
