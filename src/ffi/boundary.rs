//! The edge between C and Rust: one place for what every exported function needs.
//!
//! [`boundary`] runs a body, keeps panics inside and files failures for `kvs_last_error`. The
//! converters turn what C passed into Rust types once; each refuses NULL by the argument's name.
//! [`give`], [`lend`] and [`take_back`] are the only conversions between handles and pointers, so a
//! handle cannot be a box in one place and something else in another.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::{fmt, ptr, slice, str, thread};

use super::status::{
    KVS_ERR_FORKED, KVS_ERR_INVALID, KVS_ERR_NOT_UTF8, KVS_ERR_NULL, KVS_ERR_PANIC,
    KVS_ERR_POISONED, KVS_ERR_UNSUPPORTED, file_last_error, kvs_status, status_of,
};
use super::version::KVS_ABI_VERSION;
use crate::error::KvsError;

/// Why a function returns a negative status.
#[derive(Debug)]
pub(super) enum Failure {
    /// The argument of this name is NULL.
    Null { argument: &'static str },
    /// The argument of this name is not what it must be.
    Invalid { argument: &'static str, must: &'static str },
    /// The text argument of this name is not UTF-8.
    NotUtf8 { argument: &'static str, valid_up_to: usize },
    /// No option has this number.
    UnknownOption { id: i32 },
    /// These bits of the flags mean nothing to this version.
    UnknownFlags { flags: u32 },
    /// The program was compiled with a header of another ABI.
    Abi { asked: u32 },
    /// The host program has a logger of its own.
    LoggerTaken,
    /// The handle was made in the parent of this process.
    Forked,
    /// An earlier call on the handle panicked, and this one would write or go on with it.
    Poisoned,
    /// A panic was caught.
    Panic { text: String },
    /// The library proper says no.
    Kvs(KvsError),
}

impl Failure {
    fn status(&self) -> kvs_status {
        match self {
            Self::Null { .. } => KVS_ERR_NULL,
            Self::Invalid { .. } => KVS_ERR_INVALID,
            Self::NotUtf8 { .. } => KVS_ERR_NOT_UTF8,
            Self::UnknownOption { .. }
            | Self::UnknownFlags { .. }
            | Self::Abi { .. }
            | Self::LoggerTaken => KVS_ERR_UNSUPPORTED,
            Self::Forked => KVS_ERR_FORKED,
            Self::Poisoned => KVS_ERR_POISONED,
            Self::Panic { .. } => KVS_ERR_PANIC,
            Self::Kvs(error) => status_of(error),
        }
    }

    fn os_error(&self) -> Option<i32> {
        match self {
            Self::Kvs(error) => error.os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null { argument } => write!(f, "argument {argument} is NULL"),
            Self::Invalid { argument, must } => write!(f, "{argument} must be {must}"),
            Self::NotUtf8 { argument, valid_up_to } => {
                write!(f, "argument {argument} is not UTF-8 after byte {valid_up_to}")
            }
            Self::UnknownOption { id } => write!(f, "this version has no option {id}"),
            Self::UnknownFlags { flags } => {
                write!(f, "this version does not know the flags {flags:#x} here")
            }
            Self::Abi { asked } => write!(
                f,
                "the program was compiled for ABI {asked} of libkvs and this library has ABI \
                 {KVS_ABI_VERSION}"
            ),
            Self::LoggerTaken => f.write_str("the program has a logger of its own; it stays"),
            Self::Forked => f.write_str(
                "the handle belongs to the parent process; open the store anew after exec, or \
                 fork before opening it",
            ),
            Self::Poisoned => {
                f.write_str("a bug was caught on this handle earlier; close and reopen the store")
            }
            Self::Panic { text } => write!(f, "bug in libkvs: {text}"),
            Self::Kvs(error) => error.fmt(f),
        }
    }
}

impl From<KvsError> for Failure {
    fn from(error: KvsError) -> Self {
        Self::Kvs(error)
    }
}

pub(super) type Outcome<T = kvs_status> = Result<T, Failure>;

thread_local! {
    /// Whether this thread is inside [`boundary`], so that a panic is ours to tell about.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// What the panic hook heard on this thread.
    static PANIC_TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the body of an exported function: no panic unwinds into C, and the text of a failure is
/// kept for this thread.
///
/// `AssertUnwindSafe`: the body of a call that writes is run by `kvs_store::write`, which refuses
/// later writes once one has panicked, so no half-made state is built upon.
pub(super) fn boundary(body: impl FnOnce() -> Outcome) -> kvs_status {
    let failure = match caught(body) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(text) => Failure::Panic { text },
    };
    let status = failure.status();
    // `KeyNotFound` is an answer here, and answers leave the text of the last failure alone.
    if status < 0 {
        file_last_error(&failure.to_string(), failure.os_error());
    }
    status
}

/// Refuses flags that this version does not know: a program that sets them relies on something.
pub(super) fn check_flags(flags: u32, known: u32) -> Outcome<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Failure::UnknownFlags { flags: unknown }),
    }
}

/// As [`boundary`], for functions without a status: `body`'s result, or `otherwise` if it panics.
pub(super) fn boundary_or<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    caught(body).unwrap_or_else(|text| {
        file_last_error(&Failure::Panic { text }.to_string(), None);
        otherwise
    })
}

#[inline]
fn caught<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    // Found once for both uses: in a shared library the place of what is a thread's own takes a
    // call. It has nothing to drop, so it is there as long as the thread is.
    INSIDE.with(|inside| {
        let outside = inside.replace(true);
        let result = panic::catch_unwind(AssertUnwindSafe(body));
        inside.set(outside);
        result.map_err(|_| heard())
    })
}

/// What the panic hook heard last on this thread.
#[cold]
fn heard() -> String {
    let heard = PANIC_TEXT.try_with(RefCell::take).ok().flatten();
    heard.unwrap_or_else(|| "panic without a text".to_owned())
}

/// Keeps panics inside [`boundary`], and those of the library's own threads, off the standard
/// error of the program that hosts the library: the former become the text of the failure, the
/// latter a line for the logger. Every other panic goes where it went before. Once per process.
pub(super) fn keep_panics_quiet() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.try_with(Cell::get).unwrap_or(false) {
                let _ = PANIC_TEXT.try_with(|text| text.replace(Some(info.to_string())));
            } else if thread::current().name().is_some_and(|name| name.starts_with("kvs-")) {
                log::error!("{info}");
            } else {
                previous(info);
            }
        }));
    });
}

/// Makes a handle of `value` for C to hold.
pub(super) fn give<H>(value: H) -> *mut H {
    Box::into_raw(Box::new(value))
}

/// The handle behind `pointer`.
///
/// # Safety
///
/// Promises 1 and 4.
pub(super) unsafe fn lend<'a, H>(argument: &'static str, pointer: *const H) -> Outcome<&'a H> {
    // SAFETY: promise 1 makes a pointer that is not NULL one from `give`, and promise 4 keeps it
    // alive during the call.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null { argument })
}

/// The handle behind `pointer`, to change it.
///
/// # Safety
///
/// Promises 1, 4 and 5.
pub(super) unsafe fn lend_mut<'a, H>(
    argument: &'static str,
    pointer: *mut H,
) -> Outcome<&'a mut H> {
    // SAFETY: as in `lend`; promise 5 makes this the only reference.
    unsafe { pointer.as_mut() }.ok_or(Failure::Null { argument })
}

/// Takes a handle back from C to be dropped; `None` for NULL.
///
/// # Safety
///
/// Promises 1 and 4.
pub(super) unsafe fn take_back<H>(pointer: *mut H) -> Option<Box<H>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: promise 1 makes it a pointer from `give`, and promise 4 makes this its last use.
    Some(unsafe { Box::from_raw(pointer) })
}

/// The bytes at `pointer`; no bytes, wherever it points, if `len` is 0.
///
/// # Safety
///
/// Promise 2.
pub(super) unsafe fn bytes<'a>(
    argument: &'static str,
    pointer: *const c_void,
    len: usize,
) -> Outcome<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Failure::Null { argument });
    }
    if isize::try_from(len).is_err() {
        // Nearly always a negative number that was turned into a size.
        return Err(Failure::Invalid { argument, must: "shorter than half the address space" });
    }
    // SAFETY: promise 2: `len` bytes, not 0 and not more than an object can have, that do not
    // change; not NULL, and bytes need no alignment.
    Ok(unsafe { slice::from_raw_parts(pointer.cast(), len) })
}

/// The UTF-8 text at `pointer`, which ends in a zero byte.
///
/// # Safety
///
/// Promise 2.
pub(super) unsafe fn text<'a>(argument: &'static str, pointer: *const c_char) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: promise 2: a string that ends in a zero byte and does not change.
    utf8(argument, unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// The path of a directory at `pointer`.
///
/// # Safety
///
/// Promise 2.
pub(super) unsafe fn directory<'a>(
    argument: &'static str,
    pointer: *const c_char,
) -> Outcome<&'a Path> {
    // SAFETY: promise 2.
    let path = unsafe { text(argument, pointer) }?;
    if path.is_empty() {
        // Nearly always a setting that was not read; the current directory is ".".
        return Err(Failure::Invalid { argument, must: "the path of a directory" });
    }
    Ok(Path::new(path))
}

/// `bytes` as text.
pub(super) fn utf8<'a>(argument: &'static str, bytes: &'a [u8]) -> Outcome<&'a str> {
    str::from_utf8(bytes)
        .map_err(|error| Failure::NotUtf8 { argument, valid_up_to: error.valid_up_to() })
}

/// The place for an output, which holds `empty` until something better is put there.
///
/// # Safety
///
/// Promise 3.
pub(super) unsafe fn out<'a, T>(
    argument: &'static str,
    pointer: *mut T,
    empty: T,
) -> Outcome<&'a mut T> {
    if pointer.is_null() {
        return Err(Failure::Null { argument });
    }
    // SAFETY: promise 3: aligned and writable; what was there is C's and needs no drop.
    unsafe { pointer.write(empty) };
    // SAFETY: promise 3, and it was initialized in the line above.
    Ok(unsafe { &mut *pointer })
}

/// The bytes at `pointer`, or `None` if it is NULL and `len` is 0: absent is not empty.
///
/// # Safety
///
/// Promise 2.
pub(super) unsafe fn bytes_or_absent<'a>(
    argument: &'static str,
    pointer: *const c_void,
    len: usize,
) -> Outcome<Option<&'a [u8]>> {
    if pointer.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: promise 2.
    unsafe { bytes(argument, pointer, len) }.map(Some)
}

/// Room for bytes at `pointer`, in the caller's memory, filled from its start.
pub(super) struct Room {
    /// Where the next byte goes.
    next: *mut u8,
    left: usize,
}

impl Room {
    /// The `len` bytes at `pointer`, which may be NULL if `len` is 0.
    ///
    /// # Safety
    ///
    /// Promise 3, for as long as the result is used.
    pub(super) unsafe fn new(
        argument: &'static str,
        pointer: *mut c_void,
        len: usize,
    ) -> Outcome<Self> {
        if pointer.is_null() && len > 0 {
            return Err(Failure::Null { argument });
        }
        Ok(Self { next: pointer.cast(), left: len })
    }

    /// As [`Room::new`], and every byte there is 0 until something is put there.
    ///
    /// # Safety
    ///
    /// As for [`Room::new`].
    pub(super) unsafe fn zeroed(
        argument: &'static str,
        pointer: *mut c_void,
        len: usize,
    ) -> Outcome<Self> {
        if isize::try_from(len).is_err() {
            // Nearly always a negative number that was turned into a size.
            return Err(Failure::Invalid { argument, must: "shorter than half the address space" });
        }
        // SAFETY: the caller's promise.
        let room = unsafe { Self::new(argument, pointer, len) }?;
        if len > 0 {
            // SAFETY: `new`'s contract: `len` bytes there are writable; not NULL (checked above).
            unsafe { ptr::write_bytes(room.next, 0, len) };
        }
        Ok(room)
    }

    /// Copies `parts` there, one after the other, and returns true; or does nothing and returns
    /// false if they do not fit.
    #[inline]
    pub(super) fn put<const COUNT: usize>(&mut self, parts: [&[u8]; COUNT]) -> bool {
        let len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        if len > self.left {
            return false;
        }
        for part in parts {
            // SAFETY: `new`'s contract: `self.left` bytes at `next` are writable and nobody else's,
            // so they do not overlap `part`, and the parts are at most as many (checked above);
            // any pointer will do for none.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), self.next, part.len()) };
            // SAFETY: at most one past the end of those bytes, by the same check.
            self.next = unsafe { self.next.add(part.len()) };
            self.left -= part.len();
        }
        true
    }
}
