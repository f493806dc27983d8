//! The concurrency primitives of this crate, chosen once, so that a model checker can stand in for
//! them in one place: loom under `--cfg loom`, shuttle under `--cfg shuttle` (`tests/models`).
//!
//! [`EpochCell`] is the only lock-free building block here that is ours: a pointer that is replaced
//! as a whole, read under an epoch pin, and freed after its last reader. The tables of the keydir
//! and of the segments are built on it, so neither needs `unsafe` of its own.
#![expect(unsafe_code, reason = "EpochCell dereferences epoch-protected pointers; signal masks")]

#[cfg(any(loom, shuttle))]
mod checked;
#[cfg(any(loom, shuttle))]
mod checked_epoch;

use std::{fmt, mem, ptr};

#[cfg(not(any(loom, shuttle)))]
use crossbeam_epoch::{Atomic, Owned};

pub(crate) use std::sync::Arc;

/// For what is reached under a lock only: no checker looks at its order.
pub(crate) use std::sync::atomic::AtomicU16;

/// A value on cache lines of its own: what one thread writes all the time is not on a line that
/// others only read.
pub(crate) use crossbeam_utils::CachePadded;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use {
    crossbeam_epoch::{Guard, pin},
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
    std::thread,
};

#[cfg(any(loom, shuttle))]
use checked_epoch::{Atomic, Owned};
#[cfg(any(loom, shuttle))]
pub(crate) use {
    checked::{
        AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, fence,
        thread,
    },
    checked_epoch::{Guard, begin_execution, pin},
};

use crate::error::{KvsError, Result};

/// A `T` that is replaced, never edited. Readers take no lock.
pub(crate) struct EpochCell<T: Send + Sync + 'static> {
    current: Atomic<T>,
}

impl<T: Send + Sync + 'static> EpochCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { current: Atomic::new(value) }
    }

    /// The value of this moment, valid as long as `guard`.
    #[inline]
    pub(crate) fn load<'g>(&self, guard: &'g Guard) -> &'g T {
        // Acquire: pairs with the AcqRel swap in `replace`, so the pointed-to value is seen whole.
        let shared = self.current.load(std::sync::atomic::Ordering::Acquire, guard);
        // SAFETY: the pointer is never null (`new` and `replace` store owned values), and what it
        // points at is freed only after every guard that could have loaded it is gone.
        unsafe { shared.deref() }
    }

    /// Puts `value` in place. The previous one is dropped when its last reader has gone; which
    /// thread drops it is not known.
    pub(crate) fn replace(&self, value: T) {
        let guard = pin();
        let previous =
            self.current.swap(Owned::new(value), std::sync::atomic::Ordering::AcqRel, &guard);
        // SAFETY: `previous` was just unlinked, so no new reader can load it, and each value is
        // unlinked once.
        unsafe { guard.defer_destroy(previous) };
        // Otherwise it would wait in this thread's bag until the thread replaces many more.
        guard.flush();
    }
}

impl<T: Send + Sync + 'static> Drop for EpochCell<T> {
    fn drop(&mut self) {
        let current = mem::replace(&mut self.current, Atomic::null());
        // SAFETY: `&mut self` means no reader holds a reference into this cell, and the pointer is
        // never null.
        drop(unsafe { current.into_owned() });
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for EpochCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochCell")
    }
}

/// Turns of [`collect_garbage`] at most, so that it never waits for a reader: some thousand values.
const COLLECT_TURNS_MAX: usize = 256;

/// Helps the epochs along, so that what was replaced before is freed now rather than at some later
/// pin. Frees nothing that a reader still holds, nor what was replaced after that.
pub(crate) fn collect_garbage() {
    // The epochs of a model free at once what they can. Turns would be steps for a checker to look
    // at, hundreds of them while there is a reader.
    if cfg!(any(loom, shuttle)) {
        return;
    }
    let freed = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&freed);
    let guard = pin();
    // Release: pairs with the Acquire below.
    guard.defer(move || mark.store(true, Ordering::Release));
    guard.flush();
    drop(guard);
    // A turn frees a few, the oldest first: all that was there before the mark, when it is.
    for _ in 0..COLLECT_TURNS_MAX {
        // Acquire: pairs with the Release above.
        if freed.load(Ordering::Acquire) {
            break;
        }
        pin().flush();
    }
}

/// Starts a thread that carries `name` and takes no signals: those belong to the host program.
///
/// # Errors
///
/// [`KvsError::Thread`] if the operating system refuses.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let mut all = mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to room for one set, which the call fills.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled above; `before` is room for one set, which the call fills. A thread
    // inherits the mask of the one that starts it, so the mask is set here and put back below.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    // SAFETY: `before` was filled by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started.map_err(|source| KvsError::Thread { source })
}

/// Something one thread raises and another waits for. Raising twice before a wait counts once.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Lets one `wait` return, now or later.
    pub(crate) fn raise(&self) {
        *self.raised.lock() = true;
        self.changed.notify_one();
    }

    /// Waits until the signal is raised, and lowers it; false if `timeout` ran out before.
    pub(crate) fn wait(&self, timeout: Option<std::time::Duration>) -> bool {
        let mut raised = self.raised.lock();
        match timeout {
            None => self.changed.wait_while(&mut raised, |raised| !*raised),
            Some(timeout) => {
                self.changed.wait_while_for(&mut raised, |raised| !*raised, timeout);
            }
        }
        mem::take(&mut *raised)
    }
}
