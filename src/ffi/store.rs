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
    Failure, Outcome, boundary, boundary_or, bytes, directory, give, keep_panics_quiet, lend, out,
    take_back,
};
use super::buffer::kvs_buf;
use super::fork::{self, Generation};
use super::options::{KVS_OPT_ENGINE, kvs_options};
use super::status::{KVS_OK, kvs_status};
use crate::any_engine::AnyEngine;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::sync::Mutex;

/// An open store. All calls on it may be made from any thread at once, kvs_store_free excepted.
#[derive(Debug)]
pub struct kvs_store {
    engine: Current,
    born: Generation,
    /// Whether a call on this handle panicked. What it left half-done is unknown, so no more is
    /// written through it; reads verify what they return.
    panicked: AtomicBool,
}

impl kvs_store {
    fn new(engine: Current) -> Self {
        Self { engine, born: Generation::now(), panicked: AtomicBool::new(false) }
    }

    /// Runs a call that changes nothing.
    pub(super) fn read<R>(&self, call: impl FnOnce(&AnyEngine) -> Outcome<R>) -> Outcome<R> {
        self.on_current(|current| current.with(call))
    }

    /// Runs a call on the engine of this moment, or on which one that is.
    fn on_current<R>(&self, call: impl FnOnce(&Current) -> Outcome<R>) -> Outcome<R> {
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

/// The engine that calls on a handle go to.
#[derive(Debug)]
enum Current {
    /// One for all of the handle's life.
    Fixed(AnyEngine),
    /// A view, in whose place `kvs_refresh` puts newer ones.
    View {
        newest: Mutex<AnyEngine>,
        /// Held while a newer one is made: of two refreshes that overlap, the one that looked
        /// first must not have the last word; and none may undo that the store is closed.
        replacing: Mutex<()>,
    },
}

impl Current {
    fn new(engine: AnyEngine, is_view: bool) -> Self {
        if is_view {
            Self::View { newest: Mutex::new(engine), replacing: Mutex::new(()) }
        } else {
            Self::Fixed(engine)
        }
    }

    fn with<R>(&self, call: impl FnOnce(&AnyEngine) -> R) -> R {
        match self {
            Self::Fixed(engine) => call(engine),
            Self::View { newest, .. } => {
                // A handle of it, so that a long call does not hold up the others.
                let engine = newest.lock().clone();
                call(&engine)
            }
        }
    }

    fn refresh(&self) -> Result<()> {
        match self {
            // It always is as it is now, but may be closed, which `len` says.
            Self::Fixed(engine) => engine.len().map(|_| ()),
            Self::View { newest, replacing } => {
                let _replacing = replacing.lock();
                let now = self.with(KvsEngine::refresh)?;
                // Dropped behind the lock: it may be the last handle of a view.
                let _previous = mem::replace(&mut *newest.lock(), now);
                Ok(())
            }
        }
    }

    fn close(&self) -> Result<()> {
        let _replacing = match self {
            Self::Fixed(_) => None,
            Self::View { replacing, .. } => Some(replacing.lock()),
        };
        self.with(KvsEngine::close)
    }
}

/// The store and the key that most calls begin with.
///
/// # Safety
///
/// Promises 1, 2 and 4.
pub(super) unsafe fn store_and_key<'a>(
    store: *const kvs_store,
    key: *const c_void,
    key_len: usize,
) -> Outcome<(&'a kvs_store, &'a [u8])> {
    // SAFETY: promises 1 and 4.
    let store = unsafe { lend("store", store) }?;
    // SAFETY: promise 2.
    let key = unsafe { bytes("key", key, key_len) }?;
    Ok((store, key))
}

/// The body of a call that changes the store and says nothing but that it is done.
///
/// # Safety
///
/// Promises 1 and 4.
pub(super) unsafe fn change(
    store: *const kvs_store,
    call: impl FnOnce(&AnyEngine) -> Result<()>,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.write(|engine| Ok(call(engine)?))?;
        Ok(KVS_OK)
    })
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
/// forbid it. A directory is opened once at a time, by one process; with KVS_OPT_READ_ONLY by any
/// number beside that one.
///
/// path_utf8 is UTF-8 on every platform; if it is relative, it is so to the current directory of
/// the process at this moment. options may be NULL for the defaults.
///
/// Ownership: *store is yours: kvs_close ends the store, kvs_store_free the pointer. NULL is stored
///            on failure.
/// Returns:   KVS_OK; KVS_ERR_LOCKED: it is open already; KVS_ERR_NOT_A_DIRECTORY;
///            KVS_ERR_NO_STORE and KVS_ERR_STORE_EXISTS, if the options ask for that;
///            KVS_ERR_WRONG_ENGINE; KVS_ERR_FORMAT; KVS_ERR_CORRUPT; KVS_ERR_UNSUPPORTED: no
///            engine has that name, or it cannot open for reading only; KVS_ERR_INVALID: an
///            option cannot work, or the path is empty; KVS_ERR_PERMISSION; KVS_ERR_NO_SPACE;
///            KVS_ERR_IO; KVS_ERR_THREAD; KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
/// Threads:   any.
/// Cost:      milliseconds after a clean close, however many keys there are; after a crash the
///            newest files are read. The index, about 14 bytes for each key, comes into memory
///            piece by piece, with the calls that need it and in the background.
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
        let path = unsafe { directory("path_utf8", path_utf8) }?;
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { options.as_ref() };
        *store = give(open(path, &options.cloned().unwrap_or_default())?);
        Ok(KVS_OK)
    })
}

fn open(path: &Path, options: &kvs_options) -> Outcome<kvs_store> {
    keep_panics_quiet();
    fork::watch().map_err(|error| KvsError::io("watch for forks of the user of", path, error))?;
    let engine = AnyEngine::open(path, options.text(KVS_OPT_ENGINE), options.store_options()?)?;
    Ok(kvs_store::new(Current::new(engine, options.is_read_only()?)))
}

/// Brings a store that is open for reading only (KVS_OPT_READ_ONLY) up to what the writing process
/// has done by now: every later call on the store, from any thread, sees that or something newer.
/// On failure the store shows what it showed before. On a store that is open for writing this does
/// nothing: it always is as it is now.
///
/// Iterators and servers that were begun before go on with what they began with, also after
/// kvs_close. Buffers stay as they are. Until the last iterator of an older view is freed, the
/// files it was made of take up space, even if the writing process has no more use for them.
///
/// Returns: KVS_OK, also if nothing has changed; KVS_ERR_NO_STORE: it was removed; KVS_ERR_CORRUPT;
///          KVS_ERR_IO; KVS_ERR_PERMISSION; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any; calls at the same time wait for each other.
/// Cost:    that of kvs_open; a look at the directory if nothing has changed.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_refresh(store: *mut kvs_store) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.on_current(|current| Ok(current.refresh()?))?;
        Ok(KVS_OK)
    })
}

/// Closes a store: waits for calls under way, makes everything durable, and lets go of the
/// directory. Every later call on the store says KVS_ERR_CLOSED; the pointer stays valid until
/// kvs_store_free. Closing twice is no error. A server on the store answers with errors from then
/// on, so stop it first; an iterator says KVS_ERR_CLOSED.
///
/// Returns: KVS_OK; KVS_ERR_IO or KVS_ERR_NO_SPACE: the last writes may not survive power loss; the
///          store is closed all the same; KVS_ERR_FORKED: nothing was done; KVS_ERR_NULL.
/// Threads: any, beside any other call but kvs_store_free.
/// Cost:    a sync; waits for a compaction under way to stop.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_close(store: *mut kvs_store) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        store.on_current(|current| Ok(current.close()?))?;
        Ok(KVS_OK)
    })
}

/// Frees a store, and closes it first if that has not been done; then a failure to make the last
/// writes durable goes unseen. NULL is allowed. In a child made by fork it releases memory and
/// touches nothing else. Buffers, iterators and servers of the store are freed on their own, before
/// or after.
///
/// Threads: promise 4.
/// Cost:    that of kvs_close, if it was not called.
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
