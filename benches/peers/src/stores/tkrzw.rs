//! Tkrzw's `HashDBM` through its C interface (`tkrzw_langc.h`), in the system's shared library.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::slice;

use anyhow::{Result, bail};

use super::Entry;
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

/// A pointer to an open database.
type Handle = *mut c_void;

/// Called with a record; what it returns says what is to become of the record.
type Process = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    i32,
    *const c_char,
    i32,
    *mut i32,
) -> *const c_char;

/// `TkrzwKeyValuePair`.
#[repr(C)]
struct RawPair {
    key: *const u8,
    key_len: i32,
    value: *const u8,
    value_len: i32,
}

// SAFETY: as `tkrzw_langc.h` declares them; the contract of the adapters calls each one.
#[rustfmt::skip]
unsafe extern "C" {
    static TKRZW_PACKAGE_VERSION: *const c_char;
    static TKRZW_REC_PROC_NOOP: *const c_char;
    fn tkrzw_get_last_status_message() -> *const c_char;
    fn tkrzw_dbm_open(path: *const c_char, writable: bool, params: *const c_char) -> Handle;
    fn tkrzw_dbm_close(dbm: Handle) -> bool;
    fn tkrzw_dbm_set(dbm: Handle, key: *const u8, key_len: i32, value: *const u8, value_len: i32,
        overwrite: bool) -> bool;
    fn tkrzw_dbm_set_multi(dbm: Handle, pairs: *const RawPair, count: i32, overwrite: bool)
        -> bool;
    fn tkrzw_dbm_remove(dbm: Handle, key: *const u8, key_len: i32) -> bool;
    fn tkrzw_dbm_process(dbm: Handle, key: *const u8, key_len: i32, process: Process,
        argument: *mut c_void, writable: bool) -> bool;
    fn tkrzw_dbm_process_each(dbm: Handle, process: Process, argument: *mut c_void,
        writable: bool) -> bool;
    fn tkrzw_dbm_synchronize(dbm: Handle, hard: bool, process: *mut c_void,
        argument: *mut c_void, params: *const c_char) -> bool;
}

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "tkrzw",
        settings: "HashDBM, memory-mapped, updated in place, twice as many buckets as keys from \
                   the start",
        ordered: false,
        only: None,
        tenfold: true,
        version: || {
            // SAFETY: a string that the library holds for ever.
            let version = unsafe { CStr::from_ptr(TKRZW_PACKAGE_VERSION) };
            version.to_string_lossy().into_owned()
        },
        open,
    }]
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let path = CString::new(options.dir.join("peers.tkh").as_os_str().as_bytes())?;
    let params = CString::new(format!(
        "dbm=HashDBM,file=MemoryMapParallelFile,update_mode=UPDATE_IN_PLACE,num_buckets={}",
        options.keys * 2
    ))?;
    // SAFETY: both are C strings that outlive the call.
    let dbm = unsafe { tkrzw_dbm_open(path.as_ptr(), true, params.as_ptr()) };
    checked(!dbm.is_null())?;
    Ok(Box::new(Tkrzw { dbm, synced: options.durability == Durability::Sync }))
}

fn checked(succeeded: bool) -> Result<()> {
    if succeeded {
        return Ok(());
    }
    // SAFETY: valid until this thread asks again.
    let message = unsafe { CStr::from_ptr(tkrzw_get_last_status_message()) };
    bail!("tkrzw: {}", message.to_string_lossy());
}

struct Tkrzw {
    /// Null once it is closed.
    dbm: Handle,
    synced: bool,
}

// SAFETY: a database is documented as safe to use from any thread.
unsafe impl Send for Tkrzw {}
// SAFETY: as above.
unsafe impl Sync for Tkrzw {}

impl Tkrzw {
    fn close_once(&mut self) -> Result<()> {
        let dbm = std::mem::replace(&mut self.dbm, ptr::null_mut());
        // SAFETY: sessions borrow the store, so none is left; what is null is not closed again.
        checked(dbm.is_null() || unsafe { tkrzw_dbm_close(dbm) })
    }

    fn sync_if_asked(&self) -> Result<()> {
        if self.synced { self.sync() } else { Ok(()) }
    }
}

impl Drop for Tkrzw {
    fn drop(&mut self) {
        // An error was told by `close`, or nobody asked.
        let _ = self.close_once();
    }
}

impl Store for Tkrzw {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(TkrzwSession { store: self, raw: Vec::new() }))
    }

    fn sync(&self) -> Result<()> {
        let none = ptr::null_mut();
        // SAFETY: the database is open; there is no callback, and the parameters are empty.
        checked(unsafe { tkrzw_dbm_synchronize(self.dbm, true, none, none, c"".as_ptr()) })
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.close_once()
    }
}

struct TkrzwSession<'a> {
    store: &'a Tkrzw,
    raw: Vec<RawPair>,
}

// The pointers in `raw` are used within `set_many` only.

/// What [`see_value`] is given.
struct Reading<'a, 'b> {
    see: &'a mut (dyn FnMut(&[u8]) + 'b),
    found: bool,
}

/// # Safety
///
/// `argument` points at a [`Reading`] that nobody else uses; `value` is null or `value_len` bytes.
unsafe extern "C" fn see_value(
    argument: *mut c_void,
    _key: *const c_char,
    _key_len: i32,
    value: *const c_char,
    value_len: i32,
    _new_len: *mut i32,
) -> *const c_char {
    if let Ok(len) = usize::try_from(value_len)
        && !value.is_null()
    {
        // SAFETY: the caller's promise.
        let reading = unsafe { &mut *argument.cast::<Reading>() };
        reading.found = true;
        // SAFETY: the caller's promise.
        (reading.see)(unsafe { slice::from_raw_parts(value.cast(), len) });
    }
    // SAFETY: a constant of the library.
    unsafe { TKRZW_REC_PROC_NOOP }
}

/// What [`see_pair`] is given.
struct Walking<'a, 'b> {
    see: &'a mut (dyn FnMut(&[u8], &[u8]) + 'b),
}

/// # Safety
///
/// `argument` points at a [`Walking`] that nobody else uses; key and value are null (before the
/// first and after the last record) or as long as they say.
unsafe extern "C" fn see_pair(
    argument: *mut c_void,
    key: *const c_char,
    key_len: i32,
    value: *const c_char,
    value_len: i32,
    _new_len: *mut i32,
) -> *const c_char {
    if let (Ok(key_len), Ok(value_len)) = (usize::try_from(key_len), usize::try_from(value_len))
        && !key.is_null()
        && !value.is_null()
    {
        // SAFETY: the caller's promise.
        let walking = unsafe { &mut *argument.cast::<Walking>() };
        // SAFETY: the caller's promise.
        let key = unsafe { slice::from_raw_parts(key.cast(), key_len) };
        // SAFETY: the caller's promise.
        (walking.see)(key, unsafe { slice::from_raw_parts(value.cast(), value_len) });
    }
    // SAFETY: a constant of the library.
    unsafe { TKRZW_REC_PROC_NOOP }
}

/// A length as the library says it.
fn raw_len(bytes: &[u8]) -> Result<i32> {
    Ok(i32::try_from(bytes.len())?)
}

impl Session for TkrzwSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let (key_len, value_len) = (raw_len(key)?, raw_len(value)?);
        let (dbm, key, value) = (self.store.dbm, key.as_ptr(), value.as_ptr());
        // SAFETY: the database is open; key and value are read during the call only.
        checked(unsafe { tkrzw_dbm_set(dbm, key, key_len, value, value_len, true) })?;
        self.store.sync_if_asked()
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        self.raw.clear();
        for Pair { key, value } in pairs {
            self.raw.push(RawPair {
                key: key.as_ptr(),
                key_len: raw_len(key)?,
                value: value.as_ptr(),
                value_len: raw_len(value)?,
            });
        }
        let count = i32::try_from(self.raw.len())?;
        // SAFETY: the database is open; the pairs, and what they point at, outlive the call.
        checked(unsafe {
            tkrzw_dbm_set_multi(self.store.dbm, self.raw.as_ptr(), count, true)
        })?;
        self.store.sync_if_asked()
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let key_len = raw_len(key)?;
        let mut reading = Reading { see, found: false };
        let argument = (&raw mut reading).cast();
        // SAFETY: the database is open; `argument` is what `see_value` takes, and is used during
        // the call only.
        checked(unsafe {
            tkrzw_dbm_process(self.store.dbm, key.as_ptr(), key_len, see_value, argument, false)
        })?;
        Ok(reading.found)
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        let key_len = raw_len(key)?;
        // SAFETY: the database is open; the key is read during the call only.
        checked(unsafe { tkrzw_dbm_remove(self.store.dbm, key.as_ptr(), key_len) })?;
        self.store.sync_if_asked()
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut walking = Walking { see };
        let argument = (&raw mut walking).cast();
        // SAFETY: the database is open; `argument` is what `see_pair` takes, and is used during
        // the call only.
        checked(unsafe { tkrzw_dbm_process_each(self.store.dbm, see_pair, argument, false) })
    }
}
