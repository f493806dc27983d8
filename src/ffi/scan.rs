//! `kvs_iter`: a scan in the caller's hands, to be read record by record or many at a time.
//!
//! It owns its [`Entries`], which own a handle of the engine, so store and iterator may be freed in
//! either order. What did not fit, or could not be told yet, is kept for the next call, so that no
//! record is lost and none comes twice, however the two ways to read are mixed.

use std::ffi::c_void;
use std::{fmt, mem, ptr};

use super::boundary::{
    Failure, Outcome, Room, boundary, boundary_or, bytes, bytes_or_absent, check_flags, give, lend,
    lend_mut, out, take_back,
};
use super::fork::Generation;
use super::packed;
use super::status::{KVS_END, KVS_OK, KVS_TOO_SMALL, kvs_status};
use super::store::kvs_store;
use crate::any_engine::AnyEngine;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::scan::{Entries, Scan};
use crate::value::Value;

/// For scans: from the last key to the first.
pub const KVS_SCAN_REVERSE: u32 = 1;
/// For scans: leave the values out. Every value is empty then.
pub const KVS_SCAN_KEYS_ONLY: u32 = 2;

/// A scan under way. Used by one thread at a time.
///
/// A scan sees each key that is there for the whole of the scan exactly once. Keys that are set or
/// removed meanwhile may be seen or not. A value is one that the key had at a moment during the
/// scan, whole. A scan is no snapshot: two of its values can belong to different moments.
pub struct kvs_iter {
    /// `None` once a panic was caught in them.
    entries: Option<Entries>,
    /// What was found and not handed out.
    pending: Option<Result<Entry>>,
    /// What the pointers that were handed out last point at.
    current: Entry,
    keys_only: bool,
    closed: bool,
    born: Generation,
}

type Entry = (Vec<u8>, Value);

impl fmt::Debug for kvs_iter {
    /// Nothing of the keys or values: they do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("kvs_iter").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl kvs_iter {
    pub(super) fn new(entries: Entries, keys_only: bool) -> Self {
        Self {
            entries: Some(entries),
            pending: None,
            current: Entry::default(),
            keys_only,
            closed: false,
            born: Generation::now(),
        }
    }

    /// What an earlier call has left over; a failure if there is none and nothing can follow.
    fn left_over(&mut self) -> Outcome<Option<Entry>> {
        if self.born.is_past() {
            return Err(Failure::Forked);
        }
        if let Some(kept) = self.pending.take() {
            return Ok(Some(kept?));
        }
        if self.closed { Err(KvsError::Closed.into()) } else { Ok(None) }
    }

    /// The next record, `None` at the end.
    fn next(&mut self) -> Outcome<Option<Entry>> {
        if let Some(entry) = self.left_over()? {
            return Ok(Some(entry));
        }
        // Taken out meanwhile: if this panics they are gone, and later calls say so.
        let mut entries = self.entries.take().ok_or(Failure::Poisoned)?;
        let item = entries.next();
        self.entries = Some(entries);
        self.closed = matches!(item, Some(Err(KvsError::Closed)));
        let Some((key, value)) = item.transpose()? else { return Ok(None) };
        Ok(Some((key, if self.keys_only { Value::default() } else { value })))
    }

    /// Packs records into `room`, as many as fit. They are copied from where they are: only the one
    /// that does not fit is made to last.
    fn fill(&mut self, room: &mut Room) -> Outcome<Filled> {
        let mut filled = Filled { status: KVS_OK, used: 0, count: 0, needed: 0 };
        if let Some((key, value)) = self.left_over()?
            && !filled.take(room, &key, &value)
        {
            self.pending = Some(Ok((key, value)));
            return Ok(filled);
        }
        // As in `next`.
        let mut entries = self.entries.take().ok_or(Failure::Poisoned)?;
        let keys_only = self.keys_only;
        let mut take =
            |key: &[u8], value: &[u8]| filled.take(room, key, if keys_only { &[] } else { value });
        let left = entries.offer(&mut take);
        self.entries = Some(entries);
        self.closed = matches!(left, Some(Err(KvsError::Closed)));
        match left {
            // What was packed is handed out first.
            Some(Err(error)) if filled.count == 0 => return Err(error.into()),
            None if filled.count == 0 => filled.status = KVS_END,
            left if keys_only => {
                self.pending = left.map(|left| left.map(|(key, _)| (key, Value::default())));
            }
            left => self.pending = left,
        }
        Ok(filled)
    }
}

/// What came of filling the caller's memory.
struct Filled {
    status: kvs_status,
    used: usize,
    count: usize,
    needed: usize,
}

impl Filled {
    /// Packs one more record into `room`, or returns false if it does not fit.
    fn take(&mut self, room: &mut Room, key: &[u8], value: &[u8]) -> bool {
        let len = packed::record_len(key, value);
        let fits = packed::put_record(room, key, value);
        if fits {
            // An earlier one that did not fit has gone meanwhile.
            (self.status, self.needed) = (KVS_OK, 0);
            self.used += len;
            self.count += 1;
        } else if self.count == 0 {
            (self.status, self.needed) = (KVS_TOO_SMALL, len);
        }
        fits
    }
}

/// The body of the calls that begin a scan.
///
/// # Safety
///
/// Promises 1, 3 and 4; those of `start`, which looks at the other arguments.
unsafe fn begin(
    store: *const kvs_store,
    flags: (u32, u32),
    iter: *mut *mut kvs_iter,
    start: impl FnOnce(&AnyEngine) -> Outcome<Entries>,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let iter = unsafe { out("iter", iter, ptr::null_mut()) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        let (flags, known) = flags;
        check_flags(flags, known)?;
        let entries = store.read(start)?;
        *iter = give(kvs_iter::new(entries, flags & KVS_SCAN_KEYS_ONLY != 0));
        Ok(KVS_OK)
    })
}

/// What `flags` say of how to scan.
fn as_flagged(mut scan: Scan, flags: u32) -> Scan {
    if flags & KVS_SCAN_REVERSE != 0 {
        scan = scan.reverse();
    }
    if flags & KVS_SCAN_KEYS_ONLY != 0 {
        scan = scan.keys_only();
    }
    scan
}

const ORDERED_FLAGS: u32 = KVS_SCAN_REVERSE | KVS_SCAN_KEYS_ONLY;

/// Begins a scan of the keys from start on and before end, in the order of their bytes. NULL with
/// length 0 is no bound: both NULL are all keys. A range that ends before it starts is empty, which
/// is no failure.
///
/// flags is 0, or KVS_SCAN_REVERSE and KVS_SCAN_KEYS_ONLY by choice; either way start is the
/// smaller end, and in.
///
/// Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
///            on failure.
/// Returns:   KVS_OK, also if there is nothing to see; KVS_ERR_UNSUPPORTED: unknown flags;
///            KVS_ERR_IO; KVS_ERR_CORRUPT; KVS_ERR_CLOSED; KVS_ERR_FORKED; KVS_ERR_NULL;
///            KVS_ERR_INVALID.
/// Threads:   any; the iterator is for one thread at a time.
/// Cost:      the first scan in order of a store reads every key once to put them in order, which
///            from then on takes the length of each key and about 75 bytes of memory
///            (KVS_OPT_ORDERED does it when the store is opened); further ones begin at once.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_scan(
    store: *mut kvs_store,
    start: *const c_void,
    start_len: usize,
    end: *const c_void,
    end_len: usize,
    flags: u32,
    iter: *mut *mut kvs_iter,
) -> kvs_status {
    let scan = |engine: &AnyEngine| {
        // SAFETY: promise 2.
        let start = unsafe { bytes_or_absent("start", start, start_len) }?;
        // SAFETY: promise 2.
        let end = unsafe { bytes_or_absent("end", end, end_len) }?;
        // No bound and the empty key come to the same at the start.
        let start = start.unwrap_or_default();
        let range = match end {
            Some(end) => Scan::range(start..end),
            None => Scan::range(start..),
        };
        Ok(engine.scan(as_flagged(range, flags))?)
    };
    // SAFETY: promises 1 to 4.
    unsafe { begin(store, (flags, ORDERED_FLAGS), iter, scan) }
}

/// Begins a scan of the keys that begin with prefix, in the order of their bytes: of all keys, if
/// prefix_len is 0.
///
/// Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
///            on failure.
/// Returns:   as kvs_scan, whose flags it takes.
/// Threads:   any; the iterator is for one thread at a time.
/// Cost:      as kvs_scan.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_scan_prefix(
    store: *mut kvs_store,
    prefix: *const c_void,
    prefix_len: usize,
    flags: u32,
    iter: *mut *mut kvs_iter,
) -> kvs_status {
    let scan = |engine: &AnyEngine| {
        // SAFETY: promise 2.
        let prefix = unsafe { bytes("prefix", prefix, prefix_len) }?;
        Ok(engine.scan(as_flagged(Scan::prefix(prefix), flags))?)
    };
    // SAFETY: promises 1 to 4.
    unsafe { begin(store, (flags, ORDERED_FLAGS), iter, scan) }
}

/// Begins a scan of every key in no order: the cheapest way to see all of them.
///
/// flags is 0 or KVS_SCAN_KEYS_ONLY.
///
/// Ownership: *iter is yours; give it to kvs_iter_free, before or after the store. NULL is stored
///            on failure.
/// Returns:   as kvs_scan.
/// Threads:   any; the iterator is for one thread at a time.
/// Cost:      nothing is put in order; files are read from front to back. Until the iterator is
///            freed, files that compaction has replaced may stay on disk.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_scan_unordered(
    store: *mut kvs_store,
    flags: u32,
    iter: *mut *mut kvs_iter,
) -> kvs_status {
    // SAFETY: promises 1, 3 and 4.
    unsafe { begin(store, (flags, KVS_SCAN_KEYS_ONLY), iter, |engine| Ok(engine.iter()?)) }
}

/// Goes on to the next record of a scan and stores where it is. The pointers are not NULL with
/// KVS_OK, also to nothing; otherwise NULL and 0 are stored.
///
/// Example:
///
///   kvs_iter *iter = NULL;
///   const void *key, *value;
///   size_t key_len, value_len;
///   kvs_status status = kvs_scan_prefix(store, "user:", 5, 0, &iter);
///   if (status == KVS_OK)
///       while ((status = kvs_iter_next(iter, &key, &key_len, &value, &value_len)) == KVS_OK)
///           printf("%.*s\n", (int)key_len, (const char *)key);
///   if (status < 0)
///       fprintf(stderr, "%s\n", kvs_last_error());
///   kvs_iter_free(iter);
///
/// Ownership: the iterator's: the bytes are valid until its next call or kvs_iter_free, also after
///            the store was closed and freed.
/// Returns:   KVS_OK; KVS_END: there are no more, and never will be for this iterator;
///            KVS_ERR_CORRUPT or KVS_ERR_IO: about one key or about all that follow, so whoever
///            calls again gets what can still be read; KVS_ERR_CLOSED: the store has been closed,
///            and so has the scan; KVS_ERR_POISONED: a bug was caught in this iterator;
///            KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads:   promise 5.
/// Cost:      a lookup for each record; nothing is copied but the key.
///
/// # Safety
///
/// Promises 1, 3, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_iter_next(
    iter: *mut kvs_iter,
    key: *mut *const c_void,
    key_len: *mut usize,
    value: *mut *const c_void,
    value_len: *mut usize,
) -> kvs_status {
    boundary(|| {
        // All before any is refused, so that all are NULL and 0 on failure.
        // SAFETY: promise 3.
        let key = unsafe { out("key", key, ptr::null()) };
        // SAFETY: promise 3.
        let key_len = unsafe { out("key_len", key_len, 0) };
        // SAFETY: promise 3.
        let value = unsafe { out("value", value, ptr::null()) };
        // SAFETY: promise 3.
        let value_len = unsafe { out("value_len", value_len, 0) };
        let (key, key_len, value, value_len) = (key?, key_len?, value?, value_len?);
        // SAFETY: promises 1, 4 and 5.
        let iter = unsafe { lend_mut("iter", iter) }?;
        let Some(entry) = iter.next()? else { return Ok(KVS_END) };
        iter.current = entry;
        (*key, *key_len) = (iter.current.0.as_ptr().cast(), iter.current.0.len());
        (*value, *value_len) = (iter.current.1.as_ptr().cast(), iter.current.1.len());
        Ok(KVS_OK)
    })
}

/// Goes on to the next records of a scan, as many as fit, and copies them into memory of yours: dst
/// has room for capacity bytes. For languages in which a call of C is dear, and for programs that
/// copy what they read. It may be mixed with kvs_iter_next: no record is lost, and none comes
/// twice.
///
/// Records lie one after the other without padding. Each length has 4 bytes, least significant
/// first, on every machine. No record is ever split.
///
///   | key_len u32 | value_len u32 | key ... | value ... | key_len u32 | ...
///   0             4               8         8 + key_len   8 + key_len + value_len
///
/// *used is the number of bytes of dst that hold records and *count the number of records, with
/// KVS_OK at least 1. *needed is the size of the record that does not fit, with KVS_TOO_SMALL.
/// Otherwise they are 0; what dst holds behind *used is not said.
///
/// Example:
///
///   static unsigned char block[65536];
///   size_t used, count, needed;
///   kvs_iter *iter = NULL;
///   if (kvs_scan_unordered(store, 0, &iter) == KVS_OK)
///       while (kvs_iter_next_many(iter, block, sizeof block, &used, &count, &needed) == KVS_OK) {
///           const unsigned char *at = block;
///           while (at < block + used) {
///               size_t key_len = at[0] | at[1] << 8 | at[2] << 16 | (size_t)at[3] << 24;
///               size_t value_len = at[4] | at[5] << 8 | at[6] << 16 | (size_t)at[7] << 24;
///               printf("%.*s\n", (int)key_len, (const char *)at + 8);
///               at += 8 + key_len + value_len;
///           }
///       }
///   kvs_iter_free(iter);
///
/// Returns: KVS_OK; KVS_END; KVS_TOO_SMALL: not even the next record fits, so call again with
///          *needed bytes of room; otherwise as kvs_iter_next. A failure behind records that were
///          copied is told by the next call.
/// Threads: promise 5.
/// Cost:    a lookup and a copy for each record; 64 KiB are a good capacity.
///
/// # Safety
///
/// Promises 1, 3, 4 and 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_iter_next_many(
    iter: *mut kvs_iter,
    dst: *mut c_void,
    capacity: usize,
    used: *mut usize,
    count: *mut usize,
    needed: *mut usize,
) -> kvs_status {
    boundary(|| {
        // All before any is refused, so that all are 0 on failure.
        // SAFETY: promise 3.
        let used = unsafe { out("used", used, 0) };
        // SAFETY: promise 3.
        let count = unsafe { out("count", count, 0) };
        // SAFETY: promise 3.
        let needed = unsafe { out("needed", needed, 0) };
        let (used, count, needed) = (used?, count?, needed?);
        // SAFETY: promise 3.
        let mut room = unsafe { Room::new("dst", dst, capacity) }?;
        // SAFETY: promises 1, 4 and 5.
        let iter = unsafe { lend_mut("iter", iter) }?;
        let filled = iter.fill(&mut room)?;
        (*used, *count, *needed) = (filled.used, filled.count, filled.needed);
        Ok(filled.status)
    })
}

/// Frees an iterator, at whatever place it is. NULL is allowed. In a child made by fork it releases
/// memory and touches nothing else.
///
/// Threads: promises 4 and 5.
/// Cost:    hardly any.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_iter_free(iter: *mut kvs_iter) {
    // SAFETY: promises 1 and 4.
    let Some(iter) = (unsafe { take_back(iter) }) else { return };
    boundary_or((), || {
        if iter.born.is_past() {
            // It may be the last to hold the store or a file, which the parent has to close.
            mem::forget(*iter);
        }
    });
}
