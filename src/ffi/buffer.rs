//! `kvs_buf`: a value in the caller's hands.
//!
//! It holds a [`Value`], so no copy is made: a lent value keeps its segment mapped until the buffer
//! is freed, whatever happens to the key or the store.

use std::ffi::c_void;
use std::{mem, ptr};

use super::boundary::{boundary_or, give, take_back};
use super::fork::Generation;
use crate::value::Value;

/// The bytes of one value. Read-only, so it may be shared between threads.
#[derive(Debug)]
pub struct kvs_buf {
    value: Value,
    born: Generation,
}

impl kvs_buf {
    fn new(value: Value) -> Self {
        Self { value, born: Generation::now() }
    }

    /// A buffer for C to hold; NULL for no value.
    pub(super) fn give(value: Option<Value>) -> *mut Self {
        value.map_or(ptr::null_mut(), |value| give(Self::new(value)))
    }
}

/// What `of` says of the value of a buffer; `otherwise` for NULL.
///
/// # Safety
///
/// Promises 1 and 4.
unsafe fn ask<R: Copy>(buf: *const kvs_buf, otherwise: R, of: impl FnOnce(&Value) -> R) -> R {
    // SAFETY: promises 1 and 4.
    let buf = unsafe { buf.as_ref() };
    boundary_or(otherwise, || buf.map_or(otherwise, |buf| of(&buf.value)))
}

/// The bytes of a buffer. Not NULL for a buffer, also if it has no bytes; NULL for NULL. There is
/// no zero byte after the last one, and they begin at any address, aligned to nothing.
///
/// Ownership: the buffer's; valid until kvs_buf_free, also after the key was overwritten or the
///            store was closed and freed.
/// Threads:   any.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_buf_data(buf: *const kvs_buf) -> *const c_void {
    // SAFETY: promises 1 and 4.
    unsafe { ask(buf, ptr::null(), |value| value.as_ptr().cast()) }
}

/// The number of bytes of a buffer; 0 for NULL.
///
/// Threads: any.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_buf_len(buf: *const kvs_buf) -> usize {
    // SAFETY: promises 1 and 4.
    unsafe { ask(buf, 0, |value| value.len()) }
}

/// Frees a buffer. NULL is allowed. A buffer may hold back the disk space that its value lies in,
/// so do not keep it for long.
///
/// Threads: any; promise 4.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_buf_free(buf: *mut kvs_buf) {
    // SAFETY: promises 1 and 4.
    let Some(buf) = (unsafe { take_back(buf) }) else { return };
    boundary_or((), || {
        let kvs_buf { value, born } = *buf;
        if born.is_past() {
            // The last lender out may close and delete a file, which is the parent's to do.
            mem::forget(value);
        }
    });
}
