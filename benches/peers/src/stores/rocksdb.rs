//! RocksDB through its C interface (`rocksdb/c.h`), in the system's shared library.

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

// SAFETY: as `rocksdb/c.h` declares them; the contract of the adapters calls each one.
#[rustfmt::skip]
unsafe extern "C" {
    fn rocksdb_options_create() -> Handle;
    fn rocksdb_options_set_create_if_missing(options: Handle, on: c_uchar);
    fn rocksdb_options_set_write_buffer_size(options: Handle, bytes: usize);
    fn rocksdb_options_set_max_background_jobs(options: Handle, count: c_int);
    fn rocksdb_options_set_max_open_files(options: Handle, count: c_int);
    fn rocksdb_options_set_compression(options: Handle, kind: c_int);
    fn rocksdb_options_set_block_based_table_factory(options: Handle, table: Handle);
    fn rocksdb_options_destroy(options: Handle);
    fn rocksdb_block_based_options_create() -> Handle;
    fn rocksdb_block_based_options_set_block_cache(table: Handle, cache: Handle);
    fn rocksdb_block_based_options_set_filter_policy(table: Handle, policy: Handle);
    fn rocksdb_block_based_options_set_data_block_index_type(table: Handle, kind: c_int);
    fn rocksdb_block_based_options_set_data_block_hash_ratio(table: Handle, ratio: f64);
    fn rocksdb_block_based_options_destroy(table: Handle);
    fn rocksdb_cache_create_lru(bytes: usize) -> Handle;
    fn rocksdb_cache_destroy(cache: Handle);
    fn rocksdb_filterpolicy_create_bloom_full(bits_per_key: f64) -> Handle;
    fn rocksdb_readoptions_create() -> Handle;
    fn rocksdb_readoptions_set_verify_checksums(options: Handle, on: c_uchar);
    fn rocksdb_readoptions_destroy(options: Handle);
    fn rocksdb_writeoptions_create() -> Handle;
    fn rocksdb_writeoptions_set_sync(options: Handle, on: c_uchar);
    fn rocksdb_writeoptions_destroy(options: Handle);
    fn rocksdb_open(options: Handle, name: *const c_char, error: *mut Error) -> Handle;
    fn rocksdb_close(db: Handle);
    fn rocksdb_flush_wal(db: Handle, sync: c_uchar, error: *mut Error);
    fn rocksdb_put(db: Handle, options: Handle, key: *const u8, key_len: usize,
        value: *const u8, value_len: usize, error: *mut Error);
    fn rocksdb_delete(db: Handle, options: Handle, key: *const u8, key_len: usize,
        error: *mut Error);
    fn rocksdb_get_pinned(db: Handle, options: Handle, key: *const u8, key_len: usize,
        error: *mut Error) -> Handle;
    fn rocksdb_pinnableslice_value(slice: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_pinnableslice_destroy(slice: Handle);
    fn rocksdb_writebatch_create() -> Handle;
    fn rocksdb_writebatch_clear(batch: Handle);
    fn rocksdb_writebatch_put(batch: Handle, key: *const u8, key_len: usize,
        value: *const u8, value_len: usize);
    fn rocksdb_writebatch_destroy(batch: Handle);
    fn rocksdb_write(db: Handle, options: Handle, batch: Handle, error: *mut Error);
    fn rocksdb_create_iterator(db: Handle, options: Handle) -> Handle;
    fn rocksdb_iter_seek_to_first(iterator: Handle);
    fn rocksdb_iter_valid(iterator: Handle) -> c_uchar;
    fn rocksdb_iter_next(iterator: Handle);
    fn rocksdb_iter_key(iterator: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_iter_value(iterator: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_iter_get_error(iterator: Handle, error: *mut Error);
    fn rocksdb_iter_destroy(iterator: Handle);
    fn rocksdb_free(memory: *mut c_void);
}

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "rocksdb",
        settings: "block cache 1 GiB, bloom filter 10 bits a key, hash index in data blocks, \
                   64 MiB write buffer, no compression, 2 background jobs, all files open",
        ordered: true,
        only: None,
        tenfold: true,
        version: || env!("PEERS_ROCKSDB_VERSION").to_owned(),
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
    unsafe { rocksdb_free(error.cast()) };
    bail!("rocksdb: {text}");
}

/// The options, which the caller destroys.
fn settings() -> Handle {
    // SAFETY: each object is passed to the functions of its own kind; the table's options share
    // the cache and own the filter policy, and the options copy the table's.
    unsafe {
        let cache = rocksdb_cache_create_lru(CACHE_BYTES);
        let table = rocksdb_block_based_options_create();
        rocksdb_block_based_options_set_block_cache(table, cache);
        let filter = rocksdb_filterpolicy_create_bloom_full(10.0);
        rocksdb_block_based_options_set_filter_policy(table, filter);
        // 1: binary search and hash.
        rocksdb_block_based_options_set_data_block_index_type(table, 1);
        rocksdb_block_based_options_set_data_block_hash_ratio(table, 0.75);
        let options = rocksdb_options_create();
        rocksdb_options_set_create_if_missing(options, 1);
        rocksdb_options_set_write_buffer_size(options, 64 << 20);
        rocksdb_options_set_max_background_jobs(options, 2);
        rocksdb_options_set_max_open_files(options, -1);
        // 0: none.
        rocksdb_options_set_compression(options, 0);
        rocksdb_options_set_block_based_table_factory(options, table);
        rocksdb_block_based_options_destroy(table);
        rocksdb_cache_destroy(cache);
        options
    }
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let name = CString::new(options.dir.as_os_str().as_bytes())?;
    let settings = settings();
    // SAFETY: the name is a C string that outlives the call.
    let opened = checked(|error| unsafe { rocksdb_open(settings, name.as_ptr(), error) });
    // SAFETY: an open database keeps what it needs of its options.
    unsafe { rocksdb_options_destroy(settings) };
    let db = opened?;
    // SAFETY: the options are made, set and kept by this store alone.
    let (reading, writing) = unsafe {
        let reading = rocksdb_readoptions_create();
        rocksdb_readoptions_set_verify_checksums(reading, 1);
        let writing = rocksdb_writeoptions_create();
        rocksdb_writeoptions_set_sync(writing, (options.durability == Durability::Sync).into());
        (reading, writing)
    };
    Ok(Box::new(Rocks { db, reading, writing }))
}

struct Rocks {
    db: Handle,
    reading: Handle,
    writing: Handle,
}

// SAFETY: a database is documented as safe to use from any thread, and so are options that nobody
// changes any more.
unsafe impl Send for Rocks {}
// SAFETY: as above.
unsafe impl Sync for Rocks {}

impl Store for Rocks {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        // SAFETY: takes nothing, returns an object that the session destroys.
        let batch = unsafe { rocksdb_writebatch_create() };
        Ok(Box::new(RocksSession { store: self, batch }))
    }

    fn sync(&self) -> Result<()> {
        // SAFETY: the database is open.
        checked(|error| unsafe { rocksdb_flush_wal(self.db, 1, error) })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        // SAFETY: sessions borrow the store, so none is left; each object is destroyed once.
        unsafe {
            rocksdb_close(self.db);
            rocksdb_readoptions_destroy(self.reading);
            rocksdb_writeoptions_destroy(self.writing);
        }
    }
}

struct RocksSession<'a> {
    store: &'a Rocks,
    batch: Handle,
}

impl Drop for RocksSession<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this session, destroyed once.
        unsafe { rocksdb_writebatch_destroy(self.batch) };
    }
}

impl Session for RocksSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let Rocks { db, writing, .. } = *self.store;
        let (bytes, len) = (value.as_ptr(), value.len());
        // SAFETY: the database is open; key and value are read during the call only.
        checked(|error| unsafe {
            rocksdb_put(db, writing, key.as_ptr(), key.len(), bytes, len, error);
        })
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        // SAFETY: the batch is this session's, and copies what it is given.
        unsafe {
            rocksdb_writebatch_clear(self.batch);
            for Pair { key, value } in pairs {
                let (bytes, len) = (value.as_ptr(), value.len());
                rocksdb_writebatch_put(self.batch, key.as_ptr(), key.len(), bytes, len);
            }
        }
        let Rocks { db, writing, .. } = *self.store;
        // SAFETY: the database is open.
        checked(|error| unsafe { rocksdb_write(db, writing, self.batch, error) })
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Rocks { db, reading, .. } = *self.store;
        // SAFETY: the database is open; the key is read during the call only.
        let found = checked(|error| unsafe {
            rocksdb_get_pinned(db, reading, key.as_ptr(), key.len(), error)
        })?;
        let Some(pinned) = NonNull::new(found) else { return Ok(false) };
        let mut len = 0;
        // SAFETY: the bytes stay where they are until the pin is destroyed.
        unsafe {
            let bytes = rocksdb_pinnableslice_value(pinned.as_ptr(), &mut len);
            see(slice::from_raw_parts(bytes, len));
            rocksdb_pinnableslice_destroy(pinned.as_ptr());
        }
        Ok(true)
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        let Rocks { db, writing, .. } = *self.store;
        // SAFETY: the database is open; the key is read during the call only.
        checked(|error| unsafe { rocksdb_delete(db, writing, key.as_ptr(), key.len(), error) })
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let Rocks { db, reading, .. } = *self.store;
        // SAFETY: the iterator lives within this block; what it points at is valid until it moves.
        unsafe {
            let iterator = rocksdb_create_iterator(db, reading);
            rocksdb_iter_seek_to_first(iterator);
            while rocksdb_iter_valid(iterator) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                let key = rocksdb_iter_key(iterator, &mut key_len);
                let value = rocksdb_iter_value(iterator, &mut value_len);
                let key = slice::from_raw_parts(key, key_len);
                see(key, slice::from_raw_parts(value, value_len));
                rocksdb_iter_next(iterator);
            }
            let ended = checked(|error| rocksdb_iter_get_error(iterator, error));
            rocksdb_iter_destroy(iterator);
            ended
        }
    }
}
