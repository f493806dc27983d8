//! Noticing that the process was forked.
//!
//! A child has a copy of the memory but not of the threads, and shares file offsets and locks with
//! its parent, so a store or server must not be used, flushed, joined or unlocked there. A hook
//! that `fork` runs in the child moves a counter on; every handle remembers the count it was made
//! at and compares on each call: one relaxed load, no system call. Children made around the C
//! library (`vfork`, a raw `clone`) are not noticed.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Forks that lie between the start of the library and this process.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The process in which a handle was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u32);

impl Generation {
    /// The generation of this process.
    pub(super) fn now() -> Self {
        // Relaxed: the child has one thread when the hook runs, and every later thread of the
        // child is started after it.
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is not the one in which `self` was taken.
    pub(super) fn is_past(self) -> bool {
        self != Self::now()
    }
}

/// Starts to notice forks; once per process, and inherited by children.
///
/// # Errors
///
/// The C library has no memory for one more hook.
pub(super) fn watch() -> io::Result<()> {
    static HOOKED: OnceLock<i32> = OnceLock::new();
    // SAFETY: `in_child` may run in a forked child: all it does is one atomic addition.
    match HOOKED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(in_child)) }) {
        0 => Ok(()),
        &code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// What a forked child runs first.
///
/// # Safety
///
/// None: it is `unsafe` only because that is the type `pthread_atfork` takes.
unsafe extern "C" fn in_child() {
    // Relaxed: the child has one thread, and the kernel orders it after the fork.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
