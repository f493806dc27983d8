//! Status numbers, their names, and what the last failure on a thread was.
//!
//! The sign carries meaning: 0 is success, above it "no, but nothing is wrong", below it a failure.
//! Numbers are never reused and never change meaning; a test pins each.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::io;

use crate::error::KvsError;

/// The result of nearly every function: KVS_OK, a positive KVS_* that is an answer and not a
/// failure, or a negative KVS_ERR_*. So failures are found by (status < 0).
pub type kvs_status = i32;

/// Done.
pub const KVS_OK: kvs_status = 0;
/// The key is not there.
pub const KVS_NOT_FOUND: kvs_status = 1;
/// There are no more records.
pub const KVS_END: kvs_status = 2;
/// The key is not what it was expected to be, and was left as it is.
pub const KVS_MISMATCH: kvs_status = 3;
/// The buffer is too small. Nothing was copied; the length to make room for was stored.
pub const KVS_TOO_SMALL: kvs_status = 4;
/// The time is over and what was waited for has not happened.
pub const KVS_TIMEOUT: kvs_status = 5;

/// An argument is NULL that must not be.
pub const KVS_ERR_NULL: kvs_status = -1;
/// An argument or an option has a value that cannot work.
pub const KVS_ERR_INVALID: kvs_status = -2;
/// This build of the library does not know the option, the engine, the operation or the ABI.
pub const KVS_ERR_UNSUPPORTED: kvs_status = -3;
/// The store has been closed.
pub const KVS_ERR_CLOSED: kvs_status = -4;
/// An earlier failure left unknown which writes are on disk, or a bug was caught on this handle, so
/// it takes no more writes. Reads go on. Reopen the store.
pub const KVS_ERR_POISONED: kvs_status = -5;
/// A bug in the library was caught before it could harm the program. The handle takes no more
/// writes.
pub const KVS_ERR_PANIC: kvs_status = -6;
/// The handle was made in the process that this one was forked from, and cannot be used here.
pub const KVS_ERR_FORKED: kvs_status = -7;
/// The operating system refused to read or write a file.
pub const KVS_ERR_IO: kvs_status = -8;
/// The disk or a quota is full. Nothing acknowledged is lost; reads go on, and writes work again
/// once there is room.
pub const KVS_ERR_NO_SPACE: kvs_status = -9;
/// Bytes on disk contradict themselves; the text says which.
pub const KVS_ERR_CORRUPT: kvs_status = -10;
/// The key is longer than KVS_KEY_LEN_MAX.
pub const KVS_ERR_KEY_TOO_LONG: kvs_status = -11;
/// The value is longer than KVS_VALUE_LEN_MAX.
pub const KVS_ERR_VALUE_TOO_LONG: kvs_status = -12;
/// The batch takes more room than a batch may.
pub const KVS_ERR_BATCH_TOO_LONG: kvs_status = -13;
/// The store is open already, here or in the process that the text names.
pub const KVS_ERR_LOCKED: kvs_status = -14;
/// The path of a store exists and is not a directory.
pub const KVS_ERR_NOT_A_DIRECTORY: kvs_status = -15;
/// There is no store there, and the options say not to create one.
pub const KVS_ERR_NO_STORE: kvs_status = -16;
/// There is a store there already, and the options ask for a new one.
pub const KVS_ERR_STORE_EXISTS: kvs_status = -17;
/// The store has a format that this version does not read.
pub const KVS_ERR_FORMAT: kvs_status = -18;
/// The store was written by another engine than the one asked for.
pub const KVS_ERR_WRONG_ENGINE: kvs_status = -19;
/// The store is open for reading only.
pub const KVS_ERR_READ_ONLY: kvs_status = -20;
/// A text argument is not UTF-8.
pub const KVS_ERR_NOT_UTF8: kvs_status = -21;
/// The operating system refused a network operation.
pub const KVS_ERR_NET: kvs_status = -22;
/// The operating system refused a thread.
pub const KVS_ERR_THREAD: kvs_status = -23;
/// The other side of a connection broke the protocol.
pub const KVS_ERR_PROTOCOL: kvs_status = -24;
/// An engine that is not ours failed; the text is its own.
pub const KVS_ERR_ENGINE: kvs_status = -25;
/// The operating system denies access to a file or directory.
pub const KVS_ERR_PERMISSION: kvs_status = -26;

/// Every status with its name and its sentence.
pub(super) const STATUSES: &[(kvs_status, &CStr, &CStr)] = &[
    (KVS_OK, c"KVS_OK", c"Done."),
    (KVS_NOT_FOUND, c"KVS_NOT_FOUND", c"The key is not there."),
    (KVS_END, c"KVS_END", c"There are no more records."),
    (KVS_MISMATCH, c"KVS_MISMATCH", c"The key is not what it was expected to be."),
    (KVS_TOO_SMALL, c"KVS_TOO_SMALL", c"The buffer is too small; nothing was copied."),
    (KVS_TIMEOUT, c"KVS_TIMEOUT", c"The time is over."),
    (KVS_ERR_NULL, c"KVS_ERR_NULL", c"An argument is NULL that must not be."),
    (KVS_ERR_INVALID, c"KVS_ERR_INVALID", c"An argument or an option cannot work."),
    (KVS_ERR_UNSUPPORTED, c"KVS_ERR_UNSUPPORTED", c"This build of the library has no such thing."),
    (KVS_ERR_CLOSED, c"KVS_ERR_CLOSED", c"The store has been closed."),
    (KVS_ERR_POISONED, c"KVS_ERR_POISONED", c"The store takes no more writes; reopen it."),
    (KVS_ERR_PANIC, c"KVS_ERR_PANIC", c"A bug in the library was caught."),
    (KVS_ERR_FORKED, c"KVS_ERR_FORKED", c"The handle belongs to the parent process."),
    (KVS_ERR_IO, c"KVS_ERR_IO", c"The operating system refused to read or write."),
    (KVS_ERR_NO_SPACE, c"KVS_ERR_NO_SPACE", c"The disk or a quota is full."),
    (KVS_ERR_CORRUPT, c"KVS_ERR_CORRUPT", c"Stored bytes contradict themselves."),
    (KVS_ERR_KEY_TOO_LONG, c"KVS_ERR_KEY_TOO_LONG", c"The key is over the limit."),
    (KVS_ERR_VALUE_TOO_LONG, c"KVS_ERR_VALUE_TOO_LONG", c"The value is over the limit."),
    (KVS_ERR_BATCH_TOO_LONG, c"KVS_ERR_BATCH_TOO_LONG", c"The batch is over the limit."),
    (KVS_ERR_LOCKED, c"KVS_ERR_LOCKED", c"The store is open already."),
    (KVS_ERR_NOT_A_DIRECTORY, c"KVS_ERR_NOT_A_DIRECTORY", c"The path is not a directory."),
    (KVS_ERR_NO_STORE, c"KVS_ERR_NO_STORE", c"There is no store."),
    (KVS_ERR_STORE_EXISTS, c"KVS_ERR_STORE_EXISTS", c"There is a store already."),
    (KVS_ERR_FORMAT, c"KVS_ERR_FORMAT", c"This version does not read the store's format."),
    (KVS_ERR_WRONG_ENGINE, c"KVS_ERR_WRONG_ENGINE", c"The store belongs to another engine."),
    (KVS_ERR_READ_ONLY, c"KVS_ERR_READ_ONLY", c"The store is open for reading only."),
    (KVS_ERR_NOT_UTF8, c"KVS_ERR_NOT_UTF8", c"A text argument is not UTF-8."),
    (KVS_ERR_NET, c"KVS_ERR_NET", c"The operating system refused a network operation."),
    (KVS_ERR_THREAD, c"KVS_ERR_THREAD", c"The operating system refused a thread."),
    (KVS_ERR_PROTOCOL, c"KVS_ERR_PROTOCOL", c"The other side broke the protocol."),
    (KVS_ERR_ENGINE, c"KVS_ERR_ENGINE", c"The engine failed."),
    (KVS_ERR_PERMISSION, c"KVS_ERR_PERMISSION", c"The operating system denies access."),
];

/// The status that tells C about `error`.
pub(super) fn status_of(error: &KvsError) -> kvs_status {
    use KvsError as E;
    match error {
        E::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            KVS_ERR_PERMISSION
        }
        E::Io { .. } => KVS_ERR_IO,
        E::NoSpace { .. } => KVS_ERR_NO_SPACE,
        E::Net { .. } => KVS_ERR_NET,
        E::Corrupt { .. } => KVS_ERR_CORRUPT,
        E::KeyTooLong { .. } => KVS_ERR_KEY_TOO_LONG,
        E::ValueTooLong { .. } => KVS_ERR_VALUE_TOO_LONG,
        E::BatchTooLong { .. } => KVS_ERR_BATCH_TOO_LONG,
        E::KeyNotFound => KVS_NOT_FOUND,
        E::NotUtf8 { .. } => KVS_ERR_NOT_UTF8,
        E::Locked { .. } => KVS_ERR_LOCKED,
        E::NotADirectory { .. } => KVS_ERR_NOT_A_DIRECTORY,
        E::NoStore { .. } => KVS_ERR_NO_STORE,
        E::StoreExists { .. } | E::NotEmpty { .. } => KVS_ERR_STORE_EXISTS,
        E::UnsupportedFormat { .. } => KVS_ERR_FORMAT,
        E::WrongEngine { .. } => KVS_ERR_WRONG_ENGINE,
        E::UnknownEngine { .. } | E::Unsupported { .. } => KVS_ERR_UNSUPPORTED,
        E::InvalidOption { .. } | E::BadLine { .. } => KVS_ERR_INVALID,
        E::ReadOnly => KVS_ERR_READ_ONLY,
        E::Poisoned => KVS_ERR_POISONED,
        E::Closed => KVS_ERR_CLOSED,
        E::Protocol { .. } | E::Server { .. } => KVS_ERR_PROTOCOL,
        E::Thread { .. } => KVS_ERR_THREAD,
        E::Engine { .. } => KVS_ERR_ENGINE,
    }
}

struct LastError {
    text: Cow<'static, CStr>,
    os_error: i32,
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> =
        const { RefCell::new(LastError { text: Cow::Borrowed(c""), os_error: 0 }) };
}

/// Keeps what is known about a failure for `kvs_last_error` on this thread. On a thread that is
/// being torn down there is no place left, and nothing is kept.
pub(super) fn file_last_error(text: &str, os_error: Option<i32>) {
    // A text with a zero byte in it would end there; none of ours has one.
    let text = Cow::Owned(CString::new(text.replace('\0', "?")).unwrap_or_default());
    let os_error = os_error.unwrap_or(0);
    let _ = LAST_ERROR.try_with(|last| last.replace(LastError { text, os_error }));
}

/// The name of a status, such as "KVS_ERR_LOCKED"; "KVS_ERR_UNKNOWN" for a number that is none.
///
/// Ownership: static text; do not free it.
/// Threads:   any.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_status_name(status: kvs_status) -> *const c_char {
    entry(status).map_or(c"KVS_ERR_UNKNOWN", |(_, name, _)| name).as_ptr()
}

/// What a status means, as one sentence. kvs_last_error says more about a failure.
///
/// Ownership: static text; do not free it.
/// Threads:   any.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_status_text(status: kvs_status) -> *const c_char {
    entry(status).map_or(c"This version of the library has no such status.", |(_, _, t)| t).as_ptr()
}

fn entry(status: kvs_status) -> Option<&'static (kvs_status, &'static CStr, &'static CStr)> {
    STATUSES.iter().find(|(number, ..)| *number == status)
}

/// What the last failure on the calling thread was about, with the path, the offset and the words
/// of the operating system where there are any; never the bytes of a key or a value. One line, in
/// UTF-8. "" if nothing has failed on this thread; never NULL. Calls that return KVS_OK or a
/// positive status leave it as it is.
///
/// Ownership: the library's; valid until the next failure on the same thread. A runtime that moves
///            its tasks between threads must not do so between the failed call and this one.
/// Threads:   any; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().text.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The error number of the operating system (errno) behind the last failure on the calling thread,
/// or 0.
///
/// Threads: any; each has its own.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_last_os_error() -> i32 {
    LAST_ERROR.try_with(|last| last.borrow().os_error).unwrap_or(0)
}
