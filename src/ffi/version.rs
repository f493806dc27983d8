//! Which library this is, and whether a caller's header fits it.

use std::ffi::{CStr, c_char};

use super::boundary::{Failure, boundary};
use super::status::{KVS_OK, kvs_status};

/// The ABI that this header describes. 0 until the first release, which promises nothing yet; then
/// 1, and another number only when a program compiled with an older header would break.
pub const KVS_ABI_VERSION: u32 = 0;

/// The version of this header. See kvs_version_number for the library's.
pub const KVS_VERSION_MAJOR: u32 = 0;
/// See KVS_VERSION_MAJOR.
pub const KVS_VERSION_MINOR: u32 = 1;
/// See KVS_VERSION_MAJOR.
pub const KVS_VERSION_PATCH: u32 = 0;

/// The three parts as one number that compares like the versions do.
pub const KVS_VERSION_NUMBER: u32 =
    (KVS_VERSION_MAJOR << 24) | (KVS_VERSION_MINOR << 16) | (KVS_VERSION_PATCH << 8);

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version holds no zero byte"),
    };

/// The version of the library, such as "0.1.0".
///
/// Ownership: static text; do not free it.
/// Threads:   any.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library as a number: major << 24 | minor << 16 | patch << 8. Equal to
/// KVS_VERSION_NUMBER if header and library are of one version.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kvs_version_number() -> u32 {
    KVS_VERSION_NUMBER
}

/// Tells whether the library understands programs compiled with this header. Call it once, before
/// anything else, with KVS_ABI_VERSION.
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED if header and library do not fit: kvs_last_error names
///          both numbers.
/// Threads: any.
/// Cost:    none.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn kvs_check_abi(abi_version: u32) -> kvs_status {
    boundary(|| {
        if abi_version == KVS_ABI_VERSION {
            Ok(KVS_OK)
        } else {
            Err(Failure::Abi { asked: abi_version })
        }
    })
}
