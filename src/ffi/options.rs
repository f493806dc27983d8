//! `kvs_options`: choices by number, for the store and (from 1000) for its server.
//!
//! An option is a row of [`NUMBERS`] or [`TEXTS`]. A new one costs a constant and a row, no symbol,
//! and an old library refuses it by number instead of misreading it.

use std::ffi::c_char;
use std::time::Duration;

use super::boundary::{
    Failure, Outcome, boundary, boundary_or, bytes, give, lend, lend_mut, out, take_back, utf8,
};
use super::status::{KVS_OK, kvs_status};
use crate::options::{
    Durability, KEY_LEN_MAX, Options, ReadMode, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    VALUE_LEN_MAX, WriteMode,
};
use crate::server::ServerOptions;

/// Longest key, in bytes.
pub const KVS_KEY_LEN_MAX: u32 = 65_535;
/// Longest value, in bytes (1 GiB).
pub const KVS_VALUE_LEN_MAX: u32 = 1_073_741_824;

/// Text: the engine, "kvs" or "sled". Default: what the directory holds, else "kvs".
pub const KVS_OPT_ENGINE: i32 = 1;
/// Number: what a returned write survives, one of KVS_DURABILITY_*. Default:
/// KVS_DURABILITY_INTERVAL.
pub const KVS_OPT_DURABILITY: i32 = 2;
/// Number: milliseconds between syncs with KVS_DURABILITY_INTERVAL: 1 to 4294967295.
/// Default: 500.
pub const KVS_OPT_SYNC_INTERVAL_MS: i32 = 3;
/// Number: how records are read, one of KVS_READ_*. Default: KVS_READ_MAPPED.
pub const KVS_OPT_READ_MODE: i32 = 4;
/// Switch: 1 creates a store where there is none, 0 says KVS_ERR_NO_STORE then. Default: 1.
pub const KVS_OPT_CREATE: i32 = 5;
/// Switch: 1 says KVS_ERR_STORE_EXISTS where there is a store already, 0 opens it. Default: 0.
pub const KVS_OPT_EXCLUSIVE: i32 = 6;
/// Number: milliseconds to wait for another opener to let go before KVS_ERR_LOCKED:
/// 0 to 4294967295. Default: 0.
pub const KVS_OPT_LOCK_TIMEOUT_MS: i32 = 7;
/// Number: smallest size at which a segment file is sealed, in bytes: 0 to 134217728, and not
/// above KVS_OPT_SEGMENT_BYTES_MAX. Default: 4194304.
pub const KVS_OPT_SEGMENT_BYTES_MIN: i32 = 8;
/// Number: largest size of a segment file, in bytes: 4096 to 134217728, and not below
/// KVS_OPT_SEGMENT_BYTES_MIN. A larger record has a segment of its own. Default: 134217728.
pub const KVS_OPT_SEGMENT_BYTES_MAX: i32 = 9;
/// Switch: 1 gives dead space back in the background, 0 only in kvs_compact. Default: 1.
pub const KVS_OPT_AUTO_COMPACTION: i32 = 10;
/// Number: most bytes that compaction copies per second, that of kvs_compact too: 0 to
/// 18446744073709551615, where 0 sets no limit. Default: 0.
pub const KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX: i32 = 11;
/// Switch: 1 puts the keys in order when the store is opened, 0 when the first scan in order asks
/// for it. Default: 0.
pub const KVS_OPT_ORDERED: i32 = 12;
/// Switch: 1 opens for reading only, a view of the moment of the open, beside a process that may
/// have the store open for writing: nothing is locked or written, writes say KVS_ERR_READ_ONLY, and
/// kvs_refresh shows what has been written since. 0 opens for reading and writing. Default: 0.
pub const KVS_OPT_READ_ONLY: i32 = 13;
/// Number: from how much of it being dead on a segment file is compacted in the background, in
/// percent: 10 to 90. Less saves space and copies more: files take up to 100 / (100 - this) times
/// the live bytes. Default: 50.
pub const KVS_OPT_COMPACTION_DEAD_PERCENT_MIN: i32 = 14;
/// Number: what stands between a write and its file, one of KVS_WRITE_MODE_*. Default:
/// KVS_WRITE_MODE_TAIL.
pub const KVS_OPT_WRITE_MODE: i32 = 15;

/// Text: the server's thread pool, "shared-queue", "rayon" or "naive" (a thread per job).
/// Default: "shared-queue".
pub const KVS_OPT_SERVER_POOL: i32 = 1000;
/// Number: threads of the server's pool: 0 to 1024, where 0 takes one per processor. Default: 0.
pub const KVS_OPT_SERVER_THREADS: i32 = 1001;
/// Number: most connections at a time: 1 to 4294967295; further clients get an error and are cut
/// off. Default: 1024.
pub const KVS_OPT_SERVER_CONNECTIONS_MAX: i32 = 1002;
/// Number: a descriptor that listens already, such as one from a service manager, to be used
/// instead of the address. It must be open when kvs_server_start is called, which duplicates it
/// and makes it non-blocking; yours stays yours. Default: KVS_NO_FD, which uses the address.
pub const KVS_OPT_SERVER_LISTEN_FD: i32 = 1003;
/// Number: longest request of a client, in bytes: 1 to 1073741824. Default: 67108864.
pub const KVS_OPT_SERVER_REQUEST_BYTES_MAX: i32 = 1004;
/// Number: bytes of replies that wait for a client before its requests do: 1 to 4294967295.
/// Default: 1048576.
pub const KVS_OPT_SERVER_OUTPUT_BYTES_MAX: i32 = 1005;
/// Number: milliseconds that a new client has to say something: 1 to 4294967295. Default: 30000.
pub const KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS: i32 = 1006;
/// Number: milliseconds that a request may take from its first byte to its last:
/// 1 to 4294967295. Default: 30000.
pub const KVS_OPT_SERVER_REQUEST_TIMEOUT_MS: i32 = 1007;
/// Number: milliseconds that a client may leave its replies unread: 1 to 4294967295.
/// Default: 60000.
pub const KVS_OPT_SERVER_STALL_TIMEOUT_MS: i32 = 1008;
/// Number: milliseconds that a client has to take its last replies when it is cut off:
/// 1 to 4294967295. Default: 5000.
pub const KVS_OPT_SERVER_LINGER_TIMEOUT_MS: i32 = 1009;
/// Number: milliseconds of silence after which the system asks whether a client is still there:
/// 1000 to 4294967295. Default: 30000.
pub const KVS_OPT_SERVER_KEEPALIVE_TIME_MS: i32 = 1010;
/// Number: bytes of requests that have arrived in part, of all clients together, without the
/// first 65536 of each, which are taken in any case. Above it, whoever adds to them gets an error
/// and is cut off: 0 to 4294967295. It counts as KVS_OPT_SERVER_REQUEST_BYTES_MAX at least.
/// Default: 268435456.
pub const KVS_OPT_SERVER_UNFINISHED_BYTES_MAX: i32 = 1011;

/// A returned write survives the death of the process (kill -9). When power fails, what the
/// operating system had not written yet is lost.
pub const KVS_DURABILITY_OS: u32 = 0;
/// As KVS_DURABILITY_OS, and power loss costs at most the last KVS_OPT_SYNC_INTERVAL_MS. The
/// default.
pub const KVS_DURABILITY_INTERVAL: u32 = 1;
/// A returned write survives power loss. Writers that wait at the same time share one sync.
pub const KVS_DURABILITY_SYNC: u32 = 2;

/// Read through a mapping of the files: fastest. A disk that fails under a mapped page kills the
/// process with SIGBUS. The default.
pub const KVS_READ_MAPPED: u32 = 0;
/// Read by system calls: a failing disk is a KVS_ERR_IO. Several times slower.
pub const KVS_READ_POSITIONED: u32 = 1;

/// Write through a small mapped file: fastest, and as safe from the death of the process. Where
/// the file system does not allow it, and with KVS_DURABILITY_SYNC, this is KVS_WRITE_MODE_DIRECT;
/// has_tail of kvs_stats says which it is. A disk that fails under the mapped file kills the
/// process with SIGBUS. The default.
pub const KVS_WRITE_MODE_TAIL: u32 = 0;
/// Write by system calls: a failing disk is a KVS_ERR_IO. Slower.
pub const KVS_WRITE_MODE_DIRECT: u32 = 1;

/// In KVS_OPT_SERVER_LISTEN_FD: none.
pub const KVS_NO_FD: u32 = 0xffff_ffff;

/// An option whose value is a number.
struct Number {
    id: i32,
    name: &'static str,
    default: u64,
    max: u64,
    /// What a value must be to be at most `max`, in words.
    must: &'static str,
}

const DURABILITY: &str = "a KVS_DURABILITY_*";
const READ_MODE: &str = "a KVS_READ_*";
const WRITE_MODE: &str = "a KVS_WRITE_MODE_*";
const SWITCH: &str = "0 or 1";
const COUNT: &str = "at most 4294967295";

const NUMBERS: [Number; 25] = [
    number(KVS_OPT_DURABILITY, "KVS_OPT_DURABILITY", 1, 2, DURABILITY),
    number(KVS_OPT_SYNC_INTERVAL_MS, "KVS_OPT_SYNC_INTERVAL_MS", 500, U32_MAX, COUNT),
    number(KVS_OPT_READ_MODE, "KVS_OPT_READ_MODE", 0, 1, READ_MODE),
    number(KVS_OPT_CREATE, "KVS_OPT_CREATE", 1, 1, SWITCH),
    number(KVS_OPT_EXCLUSIVE, "KVS_OPT_EXCLUSIVE", 0, 1, SWITCH),
    number(KVS_OPT_LOCK_TIMEOUT_MS, "KVS_OPT_LOCK_TIMEOUT_MS", 0, U32_MAX, COUNT),
    number(KVS_OPT_SEGMENT_BYTES_MIN, "KVS_OPT_SEGMENT_BYTES_MIN", SEGMENT_BYTES_MIN, ANY, ""),
    number(KVS_OPT_SEGMENT_BYTES_MAX, "KVS_OPT_SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX, ANY, ""),
    number(KVS_OPT_AUTO_COMPACTION, "KVS_OPT_AUTO_COMPACTION", 1, 1, SWITCH),
    number(
        KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX,
        "KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX",
        0,
        ANY,
        "",
    ),
    number(KVS_OPT_ORDERED, "KVS_OPT_ORDERED", 0, 1, SWITCH),
    number(KVS_OPT_READ_ONLY, "KVS_OPT_READ_ONLY", 0, 1, SWITCH),
    number(
        KVS_OPT_COMPACTION_DEAD_PERCENT_MIN,
        "KVS_OPT_COMPACTION_DEAD_PERCENT_MIN",
        50,
        90,
        "between 10 and 90",
    ),
    number(KVS_OPT_WRITE_MODE, "KVS_OPT_WRITE_MODE", 0, 1, WRITE_MODE),
    number(KVS_OPT_SERVER_THREADS, "KVS_OPT_SERVER_THREADS", 0, THREADS_MAX, "at most 1024"),
    number(KVS_OPT_SERVER_CONNECTIONS_MAX, "KVS_OPT_SERVER_CONNECTIONS_MAX", 1024, U32_MAX, COUNT),
    number(KVS_OPT_SERVER_LISTEN_FD, "KVS_OPT_SERVER_LISTEN_FD", U32_MAX, U32_MAX, COUNT),
    number(
        KVS_OPT_SERVER_REQUEST_BYTES_MAX,
        "KVS_OPT_SERVER_REQUEST_BYTES_MAX",
        64 << 20,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_OUTPUT_BYTES_MAX,
        "KVS_OPT_SERVER_OUTPUT_BYTES_MAX",
        1 << 20,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS,
        "KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS",
        30_000,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_REQUEST_TIMEOUT_MS,
        "KVS_OPT_SERVER_REQUEST_TIMEOUT_MS",
        30_000,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_STALL_TIMEOUT_MS,
        "KVS_OPT_SERVER_STALL_TIMEOUT_MS",
        60_000,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_LINGER_TIMEOUT_MS,
        "KVS_OPT_SERVER_LINGER_TIMEOUT_MS",
        5_000,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_KEEPALIVE_TIME_MS,
        "KVS_OPT_SERVER_KEEPALIVE_TIME_MS",
        30_000,
        U32_MAX,
        COUNT,
    ),
    number(
        KVS_OPT_SERVER_UNFINISHED_BYTES_MAX,
        "KVS_OPT_SERVER_UNFINISHED_BYTES_MAX",
        256 << 20,
        U32_MAX,
        COUNT,
    ),
];

/// Options whose value is text.
const TEXTS: [(i32, &str); 2] =
    [(KVS_OPT_ENGINE, "KVS_OPT_ENGINE"), (KVS_OPT_SERVER_POOL, "KVS_OPT_SERVER_POOL")];

const U32_MAX: u64 = 0xffff_ffff;
/// Any number fits; the library proper says whether it can work.
const ANY: u64 = u64::MAX;
/// Far above what helps a server, and far below what a system can start.
const THREADS_MAX: u64 = 1024;

const fn number(id: i32, name: &'static str, default: u64, max: u64, must: &'static str) -> Number {
    Number { id, name, default, max, must }
}

/// Choices for kvs_open and kvs_server_start, by number. Used by one thread at a time; neither
/// function keeps or changes it, so one may serve many calls.
#[derive(Debug, Clone)]
pub struct kvs_options {
    numbers: [u64; NUMBERS.len()],
    texts: [Option<String>; TEXTS.len()],
}

impl Default for kvs_options {
    fn default() -> Self {
        Self { numbers: NUMBERS.map(|option| option.default), texts: [const { None }; TEXTS.len()] }
    }
}

impl kvs_options {
    fn set_number(&mut self, id: i32, value: u64) -> Outcome<()> {
        let (option, place) = NUMBERS
            .iter()
            .zip(&mut self.numbers)
            .find(|(option, _)| option.id == id)
            .ok_or_else(|| not_a_number(id))?;
        if value > option.max {
            return Err(Failure::Invalid { argument: option.name, must: option.must });
        }
        *place = value;
        Ok(())
    }

    fn number(&self, id: i32) -> Outcome<u64> {
        let mut all = NUMBERS.iter().zip(&self.numbers);
        let found = all.find(|(option, _)| option.id == id);
        found.map(|(_, &value)| value).ok_or_else(|| not_a_number(id))
    }

    fn set_text(&mut self, id: i32, value: &[u8]) -> Outcome<()> {
        let ((_, name), place) = TEXTS
            .iter()
            .zip(&mut self.texts)
            .find(|((known, _), _)| *known == id)
            .ok_or_else(|| not_a_text(id))?;
        *place = Some(utf8(name, value)?.to_owned());
        Ok(())
    }

    pub(super) fn text(&self, id: i32) -> Option<&str> {
        let mut all = TEXTS.iter().zip(&self.texts);
        let (_, text) = all.find(|((known, _), _)| *known == id)?;
        text.as_deref()
    }

    /// The part of the choices that concerns the store.
    pub(super) fn store_options(&self) -> Outcome<Options> {
        let durability = match self.small(KVS_OPT_DURABILITY)? {
            KVS_DURABILITY_OS => Durability::Os,
            KVS_DURABILITY_INTERVAL => {
                Durability::Interval(self.milliseconds(KVS_OPT_SYNC_INTERVAL_MS)?)
            }
            KVS_DURABILITY_SYNC => Durability::Sync,
            _ => return Err(Failure::Invalid { argument: "KVS_OPT_DURABILITY", must: DURABILITY }),
        };
        let read_mode = match self.small(KVS_OPT_READ_MODE)? {
            KVS_READ_MAPPED => ReadMode::Mapped,
            KVS_READ_POSITIONED => ReadMode::Positioned,
            _ => return Err(Failure::Invalid { argument: "KVS_OPT_READ_MODE", must: READ_MODE }),
        };
        let write_mode = match self.small(KVS_OPT_WRITE_MODE)? {
            KVS_WRITE_MODE_TAIL => WriteMode::Tail,
            KVS_WRITE_MODE_DIRECT => WriteMode::Direct,
            _ => return Err(Failure::Invalid { argument: "KVS_OPT_WRITE_MODE", must: WRITE_MODE }),
        };
        let bytes_per_second = self.number(KVS_OPT_COMPACTION_BYTES_PER_SECOND_MAX)?;
        let dead_percent = self.number(KVS_OPT_COMPACTION_DEAD_PERCENT_MIN)?;
        Ok(Options::new()
            .durability(durability)
            .read_mode(read_mode)
            .write_mode(write_mode)
            .read_only(self.is_read_only()?)
            .create(self.number(KVS_OPT_CREATE)? == 1)
            .exclusive(self.number(KVS_OPT_EXCLUSIVE)? == 1)
            .lock_timeout(self.milliseconds(KVS_OPT_LOCK_TIMEOUT_MS)?)
            .segment_bytes_min(self.number(KVS_OPT_SEGMENT_BYTES_MIN)?)
            .segment_bytes_max(self.number(KVS_OPT_SEGMENT_BYTES_MAX)?)
            .ordered(self.number(KVS_OPT_ORDERED)? == 1)
            .auto_compaction(self.number(KVS_OPT_AUTO_COMPACTION)? == 1)
            .compaction_bytes_per_second_max((bytes_per_second > 0).then_some(bytes_per_second))
            .compaction_dead_percent_min(u8::try_from(dead_percent).unwrap_or(u8::MAX)))
    }

    pub(super) fn is_read_only(&self) -> Outcome<bool> {
        Ok(self.number(KVS_OPT_READ_ONLY)? == 1)
    }

    /// The part of the choices that concerns how a server treats its clients.
    pub(super) fn server_options(&self) -> Outcome<ServerOptions> {
        Ok(ServerOptions::new()
            .connections_max(self.size(KVS_OPT_SERVER_CONNECTIONS_MAX)?)
            .request_bytes_max(self.size(KVS_OPT_SERVER_REQUEST_BYTES_MAX)?)
            .unfinished_bytes_max(self.size(KVS_OPT_SERVER_UNFINISHED_BYTES_MAX)?)
            .output_bytes_max(self.size(KVS_OPT_SERVER_OUTPUT_BYTES_MAX)?)
            .first_byte_timeout(self.milliseconds(KVS_OPT_SERVER_FIRST_BYTE_TIMEOUT_MS)?)
            .request_timeout(self.milliseconds(KVS_OPT_SERVER_REQUEST_TIMEOUT_MS)?)
            .stall_timeout(self.milliseconds(KVS_OPT_SERVER_STALL_TIMEOUT_MS)?)
            .linger_timeout(self.milliseconds(KVS_OPT_SERVER_LINGER_TIMEOUT_MS)?)
            .keepalive_time(self.milliseconds(KVS_OPT_SERVER_KEEPALIVE_TIME_MS)?))
    }

    /// The value of an option that `set_number` keeps within 32 bits.
    pub(super) fn small(&self, id: i32) -> Outcome<u32> {
        Ok(u32::try_from(self.number(id)?).unwrap_or(u32::MAX))
    }

    fn size(&self, id: i32) -> Outcome<usize> {
        Ok(usize::try_from(self.number(id)?).unwrap_or(usize::MAX))
    }

    fn milliseconds(&self, id: i32) -> Outcome<Duration> {
        Ok(Duration::from_millis(self.number(id)?))
    }
}

/// Why `id` does not take or give a number.
fn not_a_number(id: i32) -> Failure {
    match TEXTS.iter().find(|(known, _)| *known == id) {
        Some((_, name)) => Failure::Invalid { argument: name, must: "set as text" },
        None => Failure::UnknownOption { id },
    }
}

/// Why `id` does not take a text.
fn not_a_text(id: i32) -> Failure {
    match NUMBERS.iter().find(|option| option.id == id) {
        Some(option) => Failure::Invalid { argument: option.name, must: "set as a number" },
        None => Failure::UnknownOption { id },
    }
}

/// Makes a set of options that holds the defaults.
///
/// Example:
///
///   kvs_store *durable = NULL;
///   kvs_options *options = kvs_options_new();
///   if (kvs_options_set_u64(options, KVS_OPT_DURABILITY, KVS_DURABILITY_SYNC) < 0 ||
///       kvs_open("accounts", options, &durable) < 0)
///       fprintf(stderr, "%s\n", kvs_last_error());
///   kvs_options_free(options);
///   kvs_store_free(durable);
///
/// Ownership: yours; give it to kvs_options_free.
/// Returns:   NULL only if a bug was caught; kvs_last_error names it.
/// Threads:   any; the result is for one thread at a time.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn kvs_options_new() -> *mut kvs_options {
    boundary_or(std::ptr::null_mut(), || give(kvs_options::default()))
}

/// Frees a set of options. NULL is allowed.
///
/// Threads: promises 4 and 5.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_options_free(options: *mut kvs_options) {
    // SAFETY: promises 1 and 4.
    let options = unsafe { take_back(options) };
    boundary_or((), || drop(options));
}

/// Sets an option that takes a number.
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
///          option takes text, or the value cannot work (what only makes sense together with other
///          options is checked by kvs_open); KVS_ERR_NULL.
/// Threads: promise 5.
/// Cost:    none.
///
/// # Safety
///
/// Promises 1, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_options_set_u64(
    options: *mut kvs_options,
    id: i32,
    value: u64,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { lend_mut("options", options) }?;
        options.set_number(id, value)?;
        Ok(KVS_OK)
    })
}

/// Sets an option that takes text: value_len bytes of UTF-8 at value, which are copied.
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
///          option takes a number (a name that nothing has is found by kvs_open or
///          kvs_server_start); KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
/// Threads: promise 5.
/// Cost:    a copy of the text.
///
/// # Safety
///
/// Promises 1, 2, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_options_set_str(
    options: *mut kvs_options,
    id: i32,
    value: *const c_char,
    value_len: usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { lend_mut("options", options) }?;
        // SAFETY: promise 2.
        let value = unsafe { bytes("value", value.cast(), value_len) }?;
        options.set_text(id, value)?;
        Ok(KVS_OK)
    })
}

/// Stores the value of an option that takes a number; in a fresh set, its default.
///
/// Returns: KVS_OK; KVS_ERR_UNSUPPORTED: this library has no such option; KVS_ERR_INVALID: the
///          option takes text; KVS_ERR_NULL.
/// Threads: promise 5.
/// Cost:    none.
///
/// # Safety
///
/// Promises 1, 3, 4 and 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_options_get_u64(
    options: *const kvs_options,
    id: i32,
    value: *mut u64,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let value = unsafe { out("value", value, 0) }?;
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { lend("options", options) }?;
        *value = options.number(id)?;
        Ok(KVS_OK)
    })
}

// The header says these in its own numbers.
const _: () = {
    assert!(KEY_LEN_MAX == 65_535 && KVS_KEY_LEN_MAX == 65_535);
    assert!(VALUE_LEN_MAX == 1 << 30 && KVS_VALUE_LEN_MAX == 1 << 30);
    assert!(SEGMENT_BYTES_MAX == 134_217_728);
};
