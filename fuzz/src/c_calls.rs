//! Calls of the C library in an order that a fuzzer makes up, beside a map that does the same.
//!
//! Every promise of a caller is kept (handles are freed once, lengths are right); NULL is passed
//! for handles that are not there, which is no broken promise. What each call may answer is
//! checked, and a sanitizer sees the memory.
#![allow(unsafe_code, reason = "a C caller, in Rust")]

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, ptr, slice};

type Handle = *mut c_void;

const OK: i32 = 0;
const NOT_FOUND: i32 = 1;
const END: i32 = 2;

/// Calls of one input that count; what comes after them is ignored.
const CALLS_MAX: usize = 300;

// SAFETY: as `include/kvs.h` declares them; handles are opaque.
unsafe extern "C" {
    fn kvs_open(path: *const c_char, options: *const c_void, store: *mut Handle) -> i32;
    fn kvs_close(store: Handle) -> i32;
    fn kvs_store_free(store: Handle);
    fn kvs_set(
        store: Handle,
        key: *const u8,
        len: usize,
        value: *const u8,
        value_len: usize,
    ) -> i32;
    fn kvs_get(store: Handle, key: *const u8, len: usize, buf: *mut Handle) -> i32;
    fn kvs_buf_data(buf: Handle) -> *const u8;
    fn kvs_buf_len(buf: Handle) -> usize;
    fn kvs_buf_free(buf: Handle);
    fn kvs_remove(store: Handle, key: *const u8, len: usize) -> i32;
    fn kvs_contains(store: Handle, key: *const u8, len: usize) -> i32;
    fn kvs_clear(store: Handle) -> i32;
    fn kvs_len(store: Handle, count: *mut u64) -> i32;
    fn kvs_compact(store: Handle) -> i32;
    fn kvs_batch_new() -> Handle;
    fn kvs_batch_free(batch: Handle);
    fn kvs_batch_set(
        batch: Handle,
        key: *const u8,
        len: usize,
        value: *const u8,
        value_len: usize,
    ) -> i32;
    fn kvs_batch_remove(batch: Handle, key: *const u8, len: usize) -> i32;
    fn kvs_write(store: Handle, batch: Handle, flags: u32) -> i32;
    fn kvs_scan_prefix(
        store: Handle,
        prefix: *const u8,
        len: usize,
        flags: u32,
        iter: *mut Handle,
    ) -> i32;
    fn kvs_iter_next(
        iter: Handle,
        key: *mut *const u8,
        len: *mut usize,
        value: *mut *const u8,
        value_len: *mut usize,
    ) -> i32;
    fn kvs_iter_free(iter: Handle);
}

/// A caller: its handles, NULL where there is none, and what the store should hold.
struct Caller {
    dir: PathBuf,
    store: Handle,
    is_closed: bool,
    batch: Handle,
    batched: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    iter: Handle,
    buf: Handle,
    held: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Calls, each a byte that says which and bytes for its arguments.
pub(crate) fn c_calls(data: &[u8]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let null = ptr::null_mut();
    let mut caller = Caller {
        dir: home.join(format!("kvs-c-calls-{}-{number}", std::process::id())),
        store: null,
        is_closed: false,
        batch: null,
        batched: Vec::new(),
        iter: null,
        buf: null,
        held: BTreeMap::new(),
    };
    caller.open();
    let mut bytes = data.iter().copied();
    for _ in 0..CALLS_MAX {
        let Some(call) = bytes.next() else { break };
        caller.call(call, &mut || bytes.next().unwrap_or(0));
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.free();
        // SAFETY: from their functions, each freed once; NULL is ignored.
        unsafe {
            kvs_batch_free(self.batch);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Caller {
    fn open(&mut self) {
        let path = CString::new(self.dir.to_str().expect("UTF-8")).expect("no zero byte");
        // SAFETY: a string, no options, and a place for the handle.
        let opened = unsafe { kvs_open(path.as_ptr(), ptr::null(), &raw mut self.store) };
        assert_eq!(opened, OK);
        self.is_closed = false;
    }

    /// Frees everything that belongs to the store, in some order that is allowed: what was lent
    /// outlives it.
    fn free(&mut self) {
        // SAFETY: from their functions, each freed once; NULL is ignored.
        unsafe { kvs_store_free(self.store) };
        // SAFETY: as above.
        unsafe { kvs_iter_free(self.iter) };
        // SAFETY: as above.
        unsafe { kvs_buf_free(self.buf) };
        (self.store, self.iter, self.buf) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    }

    /// What a call that would answer `answer` answers.
    #[track_caller]
    fn check(&self, status: i32, answer: i32) {
        if self.store.is_null() || self.is_closed {
            assert!(status < 0, "{status} without a store");
        } else {
            assert_eq!(status, answer);
        }
    }

    fn works(&self) -> bool {
        !self.store.is_null() && !self.is_closed
    }

    fn call(&mut self, call: u8, next: &mut dyn FnMut() -> u8) {
        let key = vec![b'k'; usize::from(next() % 5)];
        let value = vec![call; usize::from(next())];
        let (at, len) = (key.as_ptr(), key.len());
        let found = self.held.get(&key).map_or(NOT_FOUND, |_| OK);
        match call % 16 {
            0..3 => {
                // SAFETY: a store or NULL; pointers with their lengths.
                let status = unsafe { kvs_set(self.store, at, len, value.as_ptr(), value.len()) };
                self.check(status, OK);
                if self.works() {
                    self.held.insert(key, value);
                }
            }
            3 => self.get(&key, found),
            4 => {
                // SAFETY: as above.
                let status = unsafe { kvs_remove(self.store, at, len) };
                self.check(status, found);
                if self.works() {
                    self.held.remove(&key);
                }
            }
            5 => {
                // SAFETY: as above.
                let status = unsafe { kvs_contains(self.store, at, len) };
                self.check(status, found);
            }
            6 => {
                let mut count = 7;
                // SAFETY: as above; a place for the number.
                let status = unsafe { kvs_len(self.store, &raw mut count) };
                self.check(status, OK);
                let held = if self.works() { self.held.len() } else { 0 };
                assert_eq!(count, u64::try_from(held).expect("few"));
            }
            7 => {
                // SAFETY: as above.
                let status = unsafe { kvs_compact(self.store) };
                self.check(status, OK);
            }
            8 => {
                // SAFETY: as above.
                let status = unsafe { kvs_clear(self.store) };
                self.check(status, OK);
                if self.works() {
                    self.held.clear();
                }
            }
            9..12 => self.batch(call, key, value),
            12 => self.scan(&key),
            13 => self.advance(),
            14 => {
                // SAFETY: as above. Closing twice is allowed.
                let status = unsafe { kvs_close(self.store) };
                assert_eq!(status >= 0, !self.store.is_null());
                self.is_closed = true;
            }
            _ => {
                self.free();
                self.open();
            }
        }
    }

    fn get(&mut self, key: &[u8], found: i32) {
        // SAFETY: from `kvs_get`, freed once; NULL is ignored.
        unsafe { kvs_buf_free(self.buf) };
        self.buf = ptr::null_mut();
        // SAFETY: a store or NULL; a pointer with its length; a place for the handle.
        let status = unsafe { kvs_get(self.store, key.as_ptr(), key.len(), &raw mut self.buf) };
        self.check(status, found);
        if status == OK {
            // SAFETY: from `kvs_get`.
            let at = unsafe { kvs_buf_data(self.buf) };
            // SAFETY: as above.
            let len = unsafe { kvs_buf_len(self.buf) };
            // SAFETY: what it points at lives until the buffer is freed.
            assert_eq!(unsafe { bytes(at, len) }, self.held[key]);
        } else {
            assert!(self.buf.is_null());
        }
    }

    fn batch(&mut self, call: u8, key: Vec<u8>, value: Vec<u8>) {
        if self.batch.is_null() {
            // SAFETY: it takes nothing.
            self.batch = unsafe { kvs_batch_new() };
        }
        let (at, len) = (key.as_ptr(), key.len());
        match call % 16 {
            9 => {
                // SAFETY: a batch; pointers with their lengths.
                let set =
                    unsafe { kvs_batch_set(self.batch, at, len, value.as_ptr(), value.len()) };
                assert_eq!(set, OK);
                self.batched.push((key, Some(value)));
            }
            10 => {
                // SAFETY: as above.
                assert_eq!(unsafe { kvs_batch_remove(self.batch, at, len) }, OK);
                self.batched.push((key, None));
            }
            _ => {
                // SAFETY: a store or NULL, and a batch.
                let status = unsafe { kvs_write(self.store, self.batch, 0) };
                self.check(status, OK);
                // SAFETY: from `kvs_batch_new`, freed once.
                unsafe { kvs_batch_free(self.batch) };
                self.batch = ptr::null_mut();
                let works = self.works();
                for (key, value) in self.batched.drain(..).filter(|_| works) {
                    match value {
                        Some(value) => self.held.insert(key, value),
                        None => self.held.remove(&key),
                    };
                }
            }
        }
    }

    fn scan(&mut self, prefix: &[u8]) {
        // SAFETY: from `kvs_scan_prefix`, freed once; NULL is ignored.
        unsafe { kvs_iter_free(self.iter) };
        self.iter = ptr::null_mut();
        let (at, len) = (prefix.as_ptr(), prefix.len());
        // SAFETY: a store or NULL; a pointer with its length; a place for the handle.
        let status = unsafe { kvs_scan_prefix(self.store, at, len, 0, &raw mut self.iter) };
        self.check(status, OK);
    }

    fn advance(&mut self) {
        let (mut key, mut key_len) = (ptr::null(), 1);
        let (mut value, mut value_len) = (ptr::null(), 1);
        // SAFETY: an iterator or NULL, and places for what it finds.
        let status = unsafe {
            kvs_iter_next(
                self.iter,
                &raw mut key,
                &raw mut key_len,
                &raw mut value,
                &raw mut value_len,
            )
        };
        if status == OK {
            // SAFETY: what it points at lives until the next call on the iterator.
            let key = unsafe { bytes(key, key_len) };
            // SAFETY: as above.
            let value = unsafe { bytes(value, value_len) };
            assert!(key.iter().all(|byte| *byte == b'k'));
            assert!(value.windows(2).all(|two| two[0] == two[1]), "a mixed value");
        } else {
            assert!(status == END || status < 0);
            assert!(key.is_null() && value.is_null() && key_len == 0 && value_len == 0);
        }
    }
}

/// # Safety
///
/// `at` is NULL and `len` 0, or it points at `len` bytes that live and stay as they are for `'a`.
unsafe fn bytes<'a>(at: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: by the contract.
    unsafe { slice::from_raw_parts(at, len) }
}
