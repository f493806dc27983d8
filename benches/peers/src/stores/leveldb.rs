//! LevelDB through its C interface (`leveldb/c.h`), in the system's shared library.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};
use std::slice;

use anyhow::{Result, bail};

use super::{CACHE_BYTES, Entry};
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

/// A pointer to one of the library's own objects.
type Handle = *mut c_void;
/// Where the library puts the text of an error; it stays null if there is none.
type Error = *mut c_char;

// SAFETY: as `leveldb/c.h` declares them; the contract of the adapters calls each one.
#[rustfmt::skip]
unsafe extern "C" {
    fn leveldb_options_create() -> Handle;
    fn leveldb_options_set_create_if_missing(options: Handle, on: c_uchar);
    fn leveldb_options_set_write_buffer_size(options: Handle, bytes: usize);
    fn leveldb_options_set_max_open_files(options: Handle, count: c_int);
    fn leveldb_options_set_compression(options: Handle, kind: c_int);
    fn leveldb_options_set_cache(options: Handle, cache: Handle);
    fn leveldb_options_set_filter_policy(options: Handle, policy: Handle);
    fn leveldb_options_destroy(options: Handle);
    fn leveldb_cache_create_lru(bytes: usize) -> Handle;
    fn leveldb_cache_destroy(cache: Handle);
    fn leveldb_filterpolicy_create_bloom(bits_per_key: c_int) -> Handle;
    fn leveldb_filterpolicy_destroy(policy: Handle);
    fn leveldb_readoptions_create() -> Handle;
    fn leveldb_readoptions_set_verify_checksums(options: Handle, on: c_uchar);
    fn leveldb_readoptions_destroy(options: Handle);
    fn leveldb_writeoptions_create() -> Handle;
    fn leveldb_writeoptions_set_sync(options: Handle, on: c_uchar);
    fn leveldb_writeoptions_destroy(options: Handle);
    fn leveldb_open(options: Handle, name: *const c_char, error: *mut Error) -> Handle;
    fn leveldb_close(db: Handle);
    fn leveldb_put(db: Handle, options: Handle, key: *const u8, key_len: usize,
        value: *const u8, value_len: usize, error: *mut Error);
    fn leveldb_delete(db: Handle, options: Handle, key: *const u8, key_len: usize,
        error: *mut Error);
    fn leveldb_get(db: Handle, options: Handle, key: *const u8, key_len: usize,
        value_len: *mut usize, error: *mut Error) -> *mut u8;
    fn leveldb_writebatch_create() -> Handle;
    fn leveldb_writebatch_clear(batch: Handle);
    fn leveldb_writebatch_put(batch: Handle, key: *const u8, key_len: usize,
        value: *const u8, value_len: usize);
    fn leveldb_writebatch_destroy(batch: Handle);
    fn leveldb_write(db: Handle, options: Handle, batch: Handle, error: *mut Error);
    fn leveldb_create_iterator(db: Handle, options: Handle) -> Handle;
    fn leveldb_iter_seek_to_first(iterator: Handle);
    fn leveldb_iter_valid(iterator: Handle) -> c_uchar;
    fn leveldb_iter_next(iterator: Handle);
    fn leveldb_iter_key(iterator: Handle, len: *mut usize) -> *const u8;
    fn leveldb_iter_value(iterator: Handle, len: *mut usize) -> *const u8;
    fn leveldb_iter_get_error(iterator: Handle, error: *mut Error);
    fn leveldb_iter_destroy(iterator: Handle);
    fn leveldb_free(memory: *mut c_void);
    fn leveldb_major_version() -> c_int;
    fn leveldb_minor_version() -> c_int;
}

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "leveldb",
        settings: "block cache 1 GiB, bloom filter 10 bits a key, 64 MiB write buffer, no \
                   compression, checksums verified",
        ordered: true,
        only: None,
        tenfold: true,
        version: || {
            // SAFETY: takes nothing and returns a number.
            let (major, minor) = unsafe { (leveldb_major_version(), leveldb_minor_version()) };
            format!("{major}.{minor}")
        },
        open,
    }]
}

/// Runs `call` with room for an error.
fn checked<T>(call: impl FnOnce(*mut Error) -> T) -> Result<T> {
    let mut error = ptr::null_mut();
    let returned = call(&mut error);
    if error.is_null() {
        return Ok(returned);
    }
    // SAFETY: an error that is not null is a string of the library, which we own.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above; this is how it is given back.
    unsafe { leveldb_free(error.cast()) };
    bail!("leveldb: {text}");
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let name = CString::new(options.dir.as_os_str().as_bytes())?;
    // SAFETY: each object is passed to the functions of its own kind; `Level` destroys all of them
    // after the database, which uses them as long as it is open.
    let mut level = unsafe {
        Level {
            db: ptr::null_mut(),
            cache: leveldb_cache_create_lru(CACHE_BYTES),
            filter: leveldb_filterpolicy_create_bloom(10),
            options: leveldb_options_create(),
            reading: leveldb_readoptions_create(),
            writing: leveldb_writeoptions_create(),
        }
    };
    // SAFETY: as above.
    unsafe {
        leveldb_options_set_create_if_missing(level.options, 1);
        leveldb_options_set_write_buffer_size(level.options, 64 << 20);
        leveldb_options_set_max_open_files(level.options, 5000);
        // 0: none.
        leveldb_options_set_compression(level.options, 0);
        leveldb_options_set_cache(level.options, level.cache);
        leveldb_options_set_filter_policy(level.options, level.filter);
        leveldb_readoptions_set_verify_checksums(level.reading, 1);
        let synced = options.durability == Durability::Sync;
        leveldb_writeoptions_set_sync(level.writing, synced.into());
    }
    // SAFETY: the name is a C string that outlives the call.
    level.db = checked(|error| unsafe { leveldb_open(level.options, name.as_ptr(), error) })?;
    Ok(Box::new(level))
}

struct Level {
    /// Null until it is open.
    db: Handle,
    cache: Handle,
    filter: Handle,
    options: Handle,
    reading: Handle,
    writing: Handle,
}

// SAFETY: a database is documented as safe to use from any thread, and so are options that nobody
// changes any more.
unsafe impl Send for Level {}
// SAFETY: as above.
unsafe impl Sync for Level {}

impl Store for Level {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        // SAFETY: takes nothing, returns an object that the session destroys.
        let batch = unsafe { leveldb_writebatch_create() };
        Ok(Box::new(LevelSession { store: self, batch }))
    }

    fn sync(&self) -> Result<()> {
        // There is no call for it: a synced write syncs the log, and all writes before it.
        // SAFETY: options and batch are made, used and destroyed here; the database is open.
        unsafe {
            let synced = leveldb_writeoptions_create();
            leveldb_writeoptions_set_sync(synced, 1);
            let nothing = leveldb_writebatch_create();
            let outcome = checked(|error| leveldb_write(self.db, synced, nothing, error));
            leveldb_writebatch_destroy(nothing);
            leveldb_writeoptions_destroy(synced);
            outcome
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // SAFETY: sessions borrow the store, so none is left; each object is destroyed once.
        unsafe {
            if !self.db.is_null() {
                leveldb_close(self.db);
            }
            leveldb_options_destroy(self.options);
            leveldb_cache_destroy(self.cache);
            leveldb_filterpolicy_destroy(self.filter);
            leveldb_readoptions_destroy(self.reading);
            leveldb_writeoptions_destroy(self.writing);
        }
    }
}

struct LevelSession<'a> {
    store: &'a Level,
    batch: Handle,
}

impl Drop for LevelSession<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this session, destroyed once.
        unsafe { leveldb_writebatch_destroy(self.batch) };
    }
}

impl Session for LevelSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let Level { db, writing, .. } = *self.store;
        let (bytes, len) = (value.as_ptr(), value.len());
        // SAFETY: the database is open; key and value are read during the call only.
        checked(|error| unsafe {
            leveldb_put(db, writing, key.as_ptr(), key.len(), bytes, len, error);
        })
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        // SAFETY: the batch is this session's, and copies what it is given.
        unsafe {
            leveldb_writebatch_clear(self.batch);
            for Pair { key, value } in pairs {
                let (bytes, len) = (value.as_ptr(), value.len());
                leveldb_writebatch_put(self.batch, key.as_ptr(), key.len(), bytes, len);
            }
        }
        let Level { db, writing, .. } = *self.store;
        // SAFETY: the database is open.
        checked(|error| unsafe { leveldb_write(db, writing, self.batch, error) })
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Level { db, reading, .. } = *self.store;
        let mut len = 0;
        // SAFETY: the database is open; the key is read during the call only.
        let found = checked(|error| unsafe {
            leveldb_get(db, reading, key.as_ptr(), key.len(), &mut len, error)
        })?;
        let Some(bytes) = NonNull::new(found) else { return Ok(false) };
        // SAFETY: the bytes are ours until they are given back.
        unsafe {
            see(slice::from_raw_parts(bytes.as_ptr(), len));
            leveldb_free(bytes.as_ptr().cast());
        }
        Ok(true)
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        let Level { db, writing, .. } = *self.store;
        // SAFETY: the database is open; the key is read during the call only.
        checked(|error| unsafe { leveldb_delete(db, writing, key.as_ptr(), key.len(), error) })
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let Level { db, reading, .. } = *self.store;
        // SAFETY: the iterator lives within this block; what it points at is valid until it moves.
        unsafe {
            let iterator = leveldb_create_iterator(db, reading);
            leveldb_iter_seek_to_first(iterator);
            while leveldb_iter_valid(iterator) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                let key = leveldb_iter_key(iterator, &mut key_len);
                let value = leveldb_iter_value(iterator, &mut value_len);
                let key = slice::from_raw_parts(key, key_len);
                see(key, slice::from_raw_parts(value, value_len));
                leveldb_iter_next(iterator);
            }
            let ended = checked(|error| leveldb_iter_get_error(iterator, error));
            leveldb_iter_destroy(iterator);
            ended
        }
    }
}
