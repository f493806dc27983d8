//! Calls on single keys, and on several that have nothing to do with each other.

use std::ffi::c_void;
use std::ptr;

use super::boundary::{Failure, Room, boundary, bytes, bytes_or_absent, lend, out};
use super::buffer::kvs_buf;
use super::options::KVS_VALUE_LEN_MAX;
use super::packed;
use super::status::{KVS_MISMATCH, KVS_NOT_FOUND, KVS_OK, KVS_TOO_SMALL, kvs_status};
use super::store::{kvs_store, store_and_key};
use crate::engine::{CompareAndSwap, KvsEngine};
use crate::value::Value;

/// Looks up the value of a key.
///
/// Example:
///
///   kvs_buf *value = NULL;
///   if (kvs_get(store, "no", 2, &value) == KVS_OK)
///       fwrite(kvs_buf_data(value), 1, kvs_buf_len(value), stdout);
///   kvs_buf_free(value);
///
/// Ownership: *value is yours; give it to kvs_buf_free. It stays as it is, whatever happens to the
///            key or the store. NULL is stored unless the result is KVS_OK.
/// Returns:   KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///            KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads:   any.
/// Cost:      a lookup; the value is not copied, but verified.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut kvs_buf,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let value = unsafe { out("value", value, ptr::null_mut()) }?;
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        let found = store.read(|engine| Ok(engine.get_bytes(key)?))?;
        let status = if found.is_some() { KVS_OK } else { KVS_NOT_FOUND };
        *value = kvs_buf::give(found);
        Ok(status)
    })
}

/// Copies the value of a key into memory of yours: dst has room for capacity bytes.
///
/// *value_len is the length of the value with KVS_OK and with KVS_TOO_SMALL, else 0.
///
/// Example:
///
///   char value[100];
///   size_t len;
///   kvs_status status = kvs_get_into(store, "no", 2, value, sizeof value, &len);
///   if (status == KVS_OK)
///       printf("%.*s\n", (int)len, value);
///   else if (status == KVS_TOO_SMALL)
///       printf("%lu bytes\n", (unsigned long)len);
///
/// Returns: KVS_OK; KVS_NOT_FOUND; KVS_TOO_SMALL: nothing was copied, call again with *value_len
///          bytes of room; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
/// Cost:    a lookup and a copy, without an allocation: the cheapest way to read.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get_into(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    dst: *mut c_void,
    capacity: usize,
    value_len: *mut usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let value_len = unsafe { out("value_len", value_len, 0) }?;
        // SAFETY: promise 3.
        let mut room = unsafe { Room::new("dst", dst, capacity) }?;
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        let copy = |value: &[u8]| (value.len(), room.put([value]));
        let Some((len, fits)) = store.read(|engine| Ok(engine.get_with(key, copy)?))? else {
            return Ok(KVS_NOT_FOUND);
        };
        *value_len = len;
        Ok(if fits { KVS_OK } else { KVS_TOO_SMALL })
    })
}

/// Tells whether a key is there, without its value.
///
/// Returns: KVS_OK; KVS_NOT_FOUND; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
/// Cost:    a lookup; does not depend on the length of the value with the engine kvs.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_contains(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        let there = store.read(|engine| Ok(engine.contains(key)?))?;
        Ok(if there { KVS_OK } else { KVS_NOT_FOUND })
    })
}

/// Sets a key to a value, whether or not it was there. When this returns KVS_OK every later read
/// sees the value, and it is as durable as KVS_OPT_DURABILITY says. It does not expire, whatever
/// the key did before.
///
/// Returns: KVS_OK; KVS_ERR_KEY_TOO_LONG; KVS_ERR_VALUE_TOO_LONG; KVS_ERR_READ_ONLY;
///          KVS_ERR_NO_SPACE; KVS_ERR_IO; KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
/// Cost:    a copy, and a write to the file for many calls together; with KVS_WRITE_MODE_DIRECT a
///          write to the file, and with KVS_DURABILITY_SYNC a sync too, both shared with those who
///          write at the same time.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_set(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value, value_len) }?;
        store.write(|engine| Ok(engine.set_bytes(key, value)?))?;
        Ok(KVS_OK)
    })
}

/// Removes a key.
///
/// Returns: KVS_OK; KVS_NOT_FOUND: it was not there, and nothing was written;
///          KVS_ERR_READ_ONLY; KVS_ERR_IO; KVS_ERR_POISONED; KVS_ERR_CLOSED; KVS_ERR_FORKED;
///          KVS_ERR_NULL; KVS_ERR_INVALID.
/// Threads: any.
/// Cost:    as kvs_set; nothing but a lookup if it is not there.
///
/// # Safety
///
/// Promises 1, 2 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_remove(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        store.write(|engine| Ok(engine.remove_bytes(key)?))?;
        Ok(KVS_OK)
    })
}

/// Sets a key to a value and tells what it was before, in one step: nobody's write falls between.
/// With value NULL and value_len 0 the key is removed; NULL is absent, and length 0 is empty.
///
/// Ownership: *previous is yours; give it to kvs_buf_free. NULL is stored if the key was absent,
///            and on failure. previous may be NULL if you do not want to know.
/// Returns:   KVS_OK, whether or not the key was there; otherwise as kvs_set and kvs_get.
/// Threads:   any.
/// Cost:      kvs_get and kvs_set, and a copy of the previous value; again if another write of
///            this key came between.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_swap(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    previous: *mut *mut kvs_buf,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let previous = unsafe { OptionalBuf::new(previous) };
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes_or_absent("value", value, value_len) }?;
        previous.give(store.write(|engine| Ok(engine.swap(key, value)?))?);
        Ok(KVS_OK)
    })
}

/// Sets a key to a desired value if it has the expected one now, in one step. NULL with length 0 is
/// absent, in both places: expect it to insert what must not be there, desire it to remove.
/// Length 0 with another pointer is the empty value.
///
/// Example:
///
///   kvs_status status = kvs_compare_and_swap(store, "lock", 4, NULL, 0, "mine", 4, NULL);
///   if (status == KVS_OK)
///       puts("the lock was free, and is mine");
///   else if (status == KVS_MISMATCH)
///       puts("somebody has it");
///
/// Ownership: *actual is yours; give it to kvs_buf_free. With KVS_MISMATCH it is what the key is,
///            NULL if absent; otherwise NULL is stored. actual may be NULL if you do not want to
///            know.
/// Returns:   KVS_OK: the key is what was desired; KVS_MISMATCH: it was not what was expected, and
///            was left as it is; otherwise as kvs_set and kvs_get.
/// Threads:   any.
/// Cost:      kvs_get and kvs_set; with KVS_MISMATCH a lookup, and a copy of the value.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_compare_and_swap(
    store: *mut kvs_store,
    key: *const c_void,
    key_len: usize,
    expected: *const c_void,
    expected_len: usize,
    desired: *const c_void,
    desired_len: usize,
    actual: *mut *mut kvs_buf,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let actual = unsafe { OptionalBuf::new(actual) };
        // SAFETY: promises 1, 2 and 4.
        let (store, key) = unsafe { store_and_key(store, key, key_len) }?;
        // SAFETY: promise 2.
        let expected = unsafe { bytes_or_absent("expected", expected, expected_len) }?;
        // SAFETY: promise 2.
        let desired = unsafe { bytes_or_absent("desired", desired, desired_len) }?;
        match store.write(|engine| Ok(engine.compare_and_swap(key, expected, desired)?))? {
            CompareAndSwap::Swapped => Ok(KVS_OK),
            CompareAndSwap::Mismatch(value) => {
                actual.give(value);
                Ok(KVS_MISMATCH)
            }
        }
    })
}

/// Looks up many keys in one call, each by itself: writes may fall between. For languages in which
/// a call of C is dear, and for many keys of a large store: the waits for memory are shared.
///
/// packed_keys holds count keys, one after the other without padding: the length in 4 bytes,
/// least significant first, then the key. *packed_values holds as many values in their order: the
/// length, or 0xffffffff for a key that is absent, then the value.
///
///   keys    | key_len u32 | key ... | key_len u32 | key ... |
///   values  | value_len u32 | value ... | 0xffffffff | value_len u32 | value ... |
///
/// Ownership: *packed_values is yours; give it to kvs_buf_free. NULL is stored on failure.
/// Returns:   KVS_OK, also if keys are absent; KVS_ERR_INVALID: packed_keys is not count keys of
///            packed_len bytes in all, or the values together are longer than KVS_VALUE_LEN_MAX
///            bytes, so ask for fewer at a time; KVS_ERR_CORRUPT; KVS_ERR_IO; KVS_ERR_CLOSED;
///            KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads:   any.
/// Cost:      count lookups, and a copy of every value.
///
/// # Safety
///
/// Promises 1 to 4.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_get_many(
    store: *mut kvs_store,
    packed_keys: *const c_void,
    packed_len: usize,
    count: usize,
    packed_values: *mut *mut kvs_buf,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let packed_values = unsafe { out("packed_values", packed_values, ptr::null_mut()) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let packed_keys = unsafe { bytes("packed_keys", packed_keys, packed_len) }?;
        let keys = packed::keys(packed_keys, count).ok_or(Failure::Invalid {
            argument: "packed_keys",
            must: "count keys, each behind its length, and no more",
        })?;
        let found = store.read(|engine| {
            let mut values = packed::Values::new(KVS_VALUE_LEN_MAX);
            let mut add = |value: Option<&[u8]>| match value {
                Some(value) => values.add(value),
                None => values.add_absent(),
            };
            if engine.get_many_with(&keys, &mut add)? {
                return Ok(values.into_bytes());
            }
            Err(Failure::Invalid {
                argument: "count",
                must: "smaller: these values together are longer than KVS_VALUE_LEN_MAX",
            })
        })?;
        *packed_values = kvs_buf::give(Some(Value::from(found)));
        Ok(KVS_OK)
    })
}

/// A place for a value that the caller may not want: NULL where it does not.
struct OptionalBuf<'a>(Option<&'a mut *mut kvs_buf>);

impl OptionalBuf<'_> {
    /// The place, which holds NULL until a value is put there.
    ///
    /// # Safety
    ///
    /// Promise 3, unless `pointer` is NULL.
    unsafe fn new(pointer: *mut *mut kvs_buf) -> Self {
        // SAFETY: promise 3. NULL is the only refusal, and means that nobody asks.
        Self(unsafe { out("", pointer, ptr::null_mut()) }.ok())
    }

    fn give(self, value: Option<Value>) {
        if let Self(Some(place)) = self {
            *place = kvs_buf::give(value);
        }
    }
}
