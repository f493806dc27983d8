//! The boundary from inside, where a panic can be made and numbers can be compared with their
//! sources. What a C program can see is tested in `ffi-tests/`.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::ptr;
use std::thread;

use super::batch::*;
use super::boundary::{Failure, boundary, boundary_or, give, keep_panics_quiet, lend};
use super::buffer::{kvs_buf, kvs_buf_data, kvs_buf_free, kvs_buf_len};
use super::expiry::*;
use super::key::*;
use super::options::{
    KVS_OPT_DURABILITY, KVS_OPT_ENGINE, KVS_OPT_SERVER_POOL, kvs_options, kvs_options_free,
    kvs_options_get_u64, kvs_options_new, kvs_options_set_str, kvs_options_set_u64,
};
use super::scan::*;
use super::stats::*;
use super::status::*;
use super::store::*;
use super::upkeep::*;
use super::version::*;
use crate::error::KvsError;

fn last_error() -> String {
    // SAFETY: never NULL, ends in a zero byte, and nothing fails on this thread before the copy.
    unsafe { CStr::from_ptr(kvs_last_error()) }.to_str().expect("UTF-8").to_owned()
}

fn text(pointer: *const std::ffi::c_char) -> &'static str {
    // SAFETY: the callers pass static texts.
    unsafe { CStr::from_ptr(pointer) }.to_str().expect("UTF-8")
}

/// A store in a fresh directory, held as C holds it.
struct Opened {
    store: *mut kvs_store,
    _dir: tempfile::TempDir,
}

impl Opened {
    fn new() -> Self {
        Self::with(ptr::null())
    }

    fn with(options: *const kvs_options) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = CString::new(dir.path().to_str().expect("UTF-8")).expect("no zero byte");
        let mut store = ptr::null_mut();
        // SAFETY: promises 1 to 5.
        assert_eq!(unsafe { kvs_open(path.as_ptr(), options, &raw mut store) }, KVS_OK);
        Self { store, _dir: dir }
    }

    fn set(&self, key: &[u8], value: &[u8]) -> kvs_status {
        let (key_at, value_at) = (key.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: promises 1, 2 and 4.
        unsafe { kvs_set(self.store, key_at, key.len(), value_at, value.len()) }
    }

    fn get(&self, key: &[u8]) -> Result<Vec<u8>, kvs_status> {
        let mut buf = ptr::null_mut();
        // SAFETY: promises 1 to 4.
        match unsafe { kvs_get(self.store, key.as_ptr().cast(), key.len(), &raw mut buf) } {
            KVS_OK => Ok(copy_and_free(buf)),
            status => Err(status),
        }
    }

    /// What a bug in the engine would do to a call on this store.
    fn panic_in_a_call(&self) -> kvs_status {
        boundary(|| {
            // SAFETY: promises 1 and 4.
            let store = unsafe { lend("store", self.store) }?;
            store.read(|_| panic!("made by a test"))
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: promises 1 and 4.
        unsafe { kvs_store_free(self.store) };
    }
}

fn copy_and_free(buf: *mut kvs_buf) -> Vec<u8> {
    // SAFETY: promises 1 and 4.
    let len = unsafe { kvs_buf_len(buf) };
    // SAFETY: promises 1 and 4.
    let data = unsafe { kvs_buf_data(buf) };
    // SAFETY: the buffer has `len` bytes there until it is freed below.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec();
    // SAFETY: promises 1 and 4.
    unsafe { kvs_buf_free(buf) };
    bytes
}

/// A number that programs were compiled with never gets another meaning.
#[test]
fn status_numbers_are_pinned() {
    let pinned: &[(kvs_status, &str)] = &[
        (0, "KVS_OK"),
        (1, "KVS_NOT_FOUND"),
        (2, "KVS_END"),
        (3, "KVS_MISMATCH"),
        (4, "KVS_TOO_SMALL"),
        (5, "KVS_TIMEOUT"),
        (-1, "KVS_ERR_NULL"),
        (-2, "KVS_ERR_INVALID"),
        (-3, "KVS_ERR_UNSUPPORTED"),
        (-4, "KVS_ERR_CLOSED"),
        (-5, "KVS_ERR_POISONED"),
        (-6, "KVS_ERR_PANIC"),
        (-7, "KVS_ERR_FORKED"),
        (-8, "KVS_ERR_IO"),
        (-9, "KVS_ERR_NO_SPACE"),
        (-10, "KVS_ERR_CORRUPT"),
        (-11, "KVS_ERR_KEY_TOO_LONG"),
        (-12, "KVS_ERR_VALUE_TOO_LONG"),
        (-13, "KVS_ERR_BATCH_TOO_LONG"),
        (-14, "KVS_ERR_LOCKED"),
        (-15, "KVS_ERR_NOT_A_DIRECTORY"),
        (-16, "KVS_ERR_NO_STORE"),
        (-17, "KVS_ERR_STORE_EXISTS"),
        (-18, "KVS_ERR_FORMAT"),
        (-19, "KVS_ERR_WRONG_ENGINE"),
        (-20, "KVS_ERR_READ_ONLY"),
        (-21, "KVS_ERR_NOT_UTF8"),
        (-22, "KVS_ERR_NET"),
        (-23, "KVS_ERR_THREAD"),
        (-24, "KVS_ERR_PROTOCOL"),
        (-25, "KVS_ERR_ENGINE"),
        (-26, "KVS_ERR_PERMISSION"),
    ];
    assert_eq!(STATUSES.len(), pinned.len());
    for &(number, name) in pinned {
        assert_eq!(text(kvs_status_name(number)), name);
        let sentence = text(kvs_status_text(number));
        assert!(sentence.ends_with('.'), "{name}: {sentence}");
    }
    for unknown in [6, -27, kvs_status::MIN, kvs_status::MAX] {
        assert_eq!(text(kvs_status_name(unknown)), "KVS_ERR_UNKNOWN");
        assert!(!text(kvs_status_text(unknown)).is_empty());
    }
}

#[test]
fn version_is_the_crates_in_all_its_forms() {
    assert_eq!(text(kvs_version()), env!("CARGO_PKG_VERSION"));
    let parts = [KVS_VERSION_MAJOR, KVS_VERSION_MINOR, KVS_VERSION_PATCH];
    assert_eq!(parts.map(|part| part.to_string()).join("."), env!("CARGO_PKG_VERSION"));
    let [major, minor, patch] = parts.map(|part| u8::try_from(part).expect("fits its byte"));
    assert_eq!(kvs_version_number(), u32::from_be_bytes([major, minor, patch, 0]));
}

#[test]
fn a_panic_becomes_a_status_and_its_text_names_the_place() {
    keep_panics_quiet();
    assert_eq!(boundary(|| panic!("number {}", 7)), KVS_ERR_PANIC);
    let text = last_error();
    assert!(text.contains("number 7") && text.contains("ffi/tests.rs"), "{text}");
    assert_eq!(boundary_or(3, || panic!("again")), 3);
    assert!(last_error().contains("again"), "{}", last_error());
}

#[test]
fn a_panic_poisons_the_handle_for_writes_and_leaves_reads() {
    let opened = Opened::new();
    assert_eq!(opened.set(b"no", b"Oslo"), KVS_OK);
    assert_eq!(opened.panic_in_a_call(), KVS_ERR_PANIC);

    assert_eq!(opened.get(b"no").as_deref(), Ok(&b"Oslo"[..]));
    assert_eq!(opened.set(b"no", b"Bergen"), KVS_ERR_POISONED);
    assert!(last_error().contains("reopen"), "{}", last_error());
    // SAFETY: promises 1, 2 and 4.
    assert_eq!(unsafe { kvs_remove(opened.store, b"no".as_ptr().cast(), 2) }, KVS_ERR_POISONED);
    // SAFETY: promises 1 and 4.
    assert_eq!(unsafe { kvs_sync(opened.store) }, KVS_ERR_POISONED);
    // SAFETY: promises 1 and 4.
    assert_eq!(unsafe { kvs_compact(opened.store) }, KVS_ERR_POISONED);
    assert_eq!(opened.get(b"no").as_deref(), Ok(&b"Oslo"[..]));
    // SAFETY: promises 1 and 4.
    assert_eq!(unsafe { kvs_close(opened.store) }, KVS_OK);
}

#[test]
fn last_error_belongs_to_its_thread_and_only_failures_change_it() {
    let opened = Opened::new();
    assert_eq!(opened.set(&vec![b'k'; 65_536], b""), KVS_ERR_KEY_TOO_LONG);
    let text = last_error();
    assert!(text.contains("65536") && text.contains("65535"), "{text}");
    assert_eq!(opened.set(b"a", b"b"), KVS_OK);
    assert_eq!(opened.get(b"absent"), Err(KVS_NOT_FOUND));
    // SAFETY: promises 1, 2 and 4.
    assert_eq!(unsafe { kvs_remove(opened.store, b"absent".as_ptr().cast(), 6) }, KVS_NOT_FOUND);
    assert_eq!(last_error(), text);
    assert_eq!(thread::spawn(last_error).join().expect("no panic"), "");
}

#[test]
fn os_error_is_filed_with_the_failure() {
    let io = |code| KvsError::io("open", "x".as_ref(), std::io::Error::from_raw_os_error(code));
    assert_eq!(boundary(|| Err(Failure::Kvs(io(libc::EIO)))), KVS_ERR_IO);
    assert_eq!(kvs_last_os_error(), libc::EIO);
    assert_eq!(boundary(|| Err(Failure::Kvs(io(libc::EACCES)))), KVS_ERR_PERMISSION);
    assert_eq!(kvs_last_os_error(), libc::EACCES);
    assert_eq!(boundary(|| Err(Failure::Kvs(io(libc::ENOSPC)))), KVS_ERR_NO_SPACE);
    assert_eq!(kvs_last_os_error(), libc::ENOSPC);
    assert_eq!(boundary(|| Err(Failure::Null { argument: "key" })), KVS_ERR_NULL);
    assert_eq!((kvs_last_os_error(), last_error().as_str()), (0, "argument key is NULL"));
}

#[test]
fn texts_with_zero_bytes_arrive_whole() {
    file_last_error("a\0b", None);
    assert_eq!(last_error(), "a?b");
}

/// Each number is the default that [`crate::Options`] has, so that the two cannot drift apart.
#[test]
fn fresh_options_mean_the_librarys_defaults() {
    let ours = kvs_options::default().store_options().expect("defaults work");
    assert_eq!(format!("{ours:?}"), format!("{:?}", crate::Options::new()));
    let ours = kvs_options::default().server_options().expect("defaults work");
    assert_eq!(format!("{ours:?}"), format!("{:?}", crate::ServerOptions::new()));
}

#[test]
fn options_refuse_what_cannot_work_by_name() {
    let options = kvs_options_new();
    for (id, value, status, text) in [
        (2, 3, KVS_ERR_INVALID, "KVS_OPT_DURABILITY must be a KVS_DURABILITY_*"),
        (5, 2, KVS_ERR_INVALID, "KVS_OPT_CREATE must be 0 or 1"),
        (KVS_OPT_ENGINE, 1, KVS_ERR_INVALID, "KVS_OPT_ENGINE must be set as text"),
        (1001, 1025, KVS_ERR_INVALID, "KVS_OPT_SERVER_THREADS must be at most 1024"),
        (999, 1, KVS_ERR_UNSUPPORTED, "this version has no option 999"),
        (-1, 1, KVS_ERR_UNSUPPORTED, "this version has no option -1"),
    ] {
        // SAFETY: promises 1, 4 and 5.
        assert_eq!(unsafe { kvs_options_set_u64(options, id, value) }, status, "{id}");
        assert_eq!(last_error(), text);
    }
    for (id, value, status) in [
        (KVS_OPT_ENGINE, &b"kvs"[..], KVS_OK),
        (KVS_OPT_SERVER_POOL, b"rayon", KVS_OK),
        (KVS_OPT_ENGINE, b"\xff", KVS_ERR_NOT_UTF8),
        (2, b"sync", KVS_ERR_INVALID),
        (999, b"", KVS_ERR_UNSUPPORTED),
    ] {
        let at = value.as_ptr().cast();
        // SAFETY: promises 1, 2, 4 and 5.
        assert_eq!(unsafe { kvs_options_set_str(options, id, at, value.len()) }, status, "{id}");
    }
    let mut value = 0;
    // SAFETY: promises 1, 3, 4 and 5.
    assert_eq!(unsafe { kvs_options_get_u64(options, 3, &raw mut value) }, KVS_OK);
    assert_eq!(value, 500);
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_options_free(options) };
}

/// A figure that the engine has and C does not know would be a figure forgotten, and one under
/// another name a lie. Text and lists are in the JSON only: these two, and each further one is to
/// be decided upon.
#[test]
fn every_figure_of_the_engine_is_a_member_of_kvs_stats() {
    const IN_JSON_ONLY: [&str; 2] = ["background_error", "group_sizes"];
    // Nothing syncs in the background, so that the figures stand still.
    let options = kvs_options_new();
    // SAFETY: promises 1, 4 and 5.
    let quiet = unsafe { kvs_options_set_u64(options, KVS_OPT_DURABILITY, 0) };
    assert_eq!(quiet, KVS_OK);
    let opened = Opened::with(options);
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_options_free(options) };
    assert_eq!(opened.set(b"no", b"Oslo"), KVS_OK);
    assert_eq!(opened.set(b"no", b"Bergen"), KVS_OK);
    // What is not synced grows older.
    // SAFETY: promises 1 and 4.
    assert_eq!(unsafe { kvs_sync(opened.store) }, KVS_OK);

    let mut buf = ptr::null_mut();
    // SAFETY: promises 1, 3 and 4.
    assert_eq!(unsafe { kvs_stats_json(opened.store, &raw mut buf) }, KVS_OK);
    let json: serde_json::Value =
        serde_json::from_slice(&copy_and_free(buf)).expect("an object as JSON");
    let mut stats = std::mem::MaybeUninit::<kvs_stats>::uninit();
    let (place, len) = (stats.as_mut_ptr(), size_of::<kvs_stats>());
    // SAFETY: promises 1, 3 and 4.
    assert_eq!(unsafe { kvs_get_stats(opened.store, place, len) }, KVS_OK);
    // SAFETY: every byte was written, and any bytes are numbers.
    let members = format!("{:?}", unsafe { stats.assume_init() });
    for (name, figure) in json.as_object().expect("an object") {
        if IN_JSON_ONLY.contains(&name.as_str()) {
            assert!(!figure.is_number() && !members.contains(name.as_str()), "{name}: {figure}");
            continue;
        }
        let figure = figure.as_bool().map(u64::from).or(figure.as_u64()).expect("a number");
        let shown = format!(" {name}: {figure},");
        let shown_last = format!(" {name}: {figure} }}");
        let is_member = members.contains(&shown) || members.contains(&shown_last);
        assert!(is_member, "kvs_stats has no{shown} give it a line in stats.rs");
    }
    assert_eq!(members.matches(": ").count() + IN_JSON_ONLY.len(), json.as_object().unwrap().len());
    assert_eq!(json["key_count"], 1);
}

/// The panic takes the scan with it: what is left of it cannot be trusted.
#[test]
fn a_panic_in_a_scan_ends_the_iterator_and_not_the_store() {
    let opened = Opened::new();
    assert_eq!(opened.set(b"no", b"Oslo"), KVS_OK);
    let entries = crate::scan::Entries::new(std::iter::from_fn(|| panic!("made by a test")));
    let iter = give(kvs_iter::new(entries, false));
    keep_panics_quiet();
    for status in [KVS_ERR_PANIC, KVS_ERR_POISONED, KVS_ERR_POISONED] {
        let (mut used, mut count, mut needed) = (7, 7, 7);
        let mut room = [0_u8; 64];
        let (dst, at) =
            (room.as_mut_ptr().cast(), [&raw mut used, &raw mut count, &raw mut needed]);
        // SAFETY: promises 1, 3, 4 and 5.
        assert_eq!(unsafe { kvs_iter_next_many(iter, dst, 64, at[0], at[1], at[2]) }, status);
        assert_eq!((used, count, needed), (0, 0, 0));
    }
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_iter_free(iter) };
    assert_eq!(opened.set(b"se", b"Stockholm"), KVS_OK);
}

/// An error in the middle: what lies before it is handed out first, what lies behind it afterwards,
/// by whichever of the two ways to read.
#[test]
fn an_error_within_a_scan_comes_in_its_place() {
    let entry = |key: &[u8]| Ok((key.to_vec(), crate::value::Value::from(b"v".to_vec())));
    let bad = || KvsError::corrupt("f".as_ref(), 8, "test");
    let items = vec![entry(b"a"), entry(b"b"), Err(bad()), entry(b"c"), Err(KvsError::Closed)];
    let iter = give(kvs_iter::new(crate::scan::Entries::new(items.into_iter()), false));
    let mut room = [0_u8; 64];
    let mut next_many = |len| {
        let (mut used, mut count, mut needed) = (7, 7, 7);
        let (dst, at) =
            (room.as_mut_ptr().cast(), [&raw mut used, &raw mut count, &raw mut needed]);
        // SAFETY: promises 1, 3, 4 and 5.
        let status = unsafe { kvs_iter_next_many(iter, dst, len, at[0], at[1], at[2]) };
        (status, used, count, needed)
    };
    assert_eq!(next_many(9), (KVS_TOO_SMALL, 0, 0, 10));
    assert_eq!(next_many(0), (KVS_TOO_SMALL, 0, 0, 10));
    assert_eq!(next_many(64), (KVS_OK, 20, 2, 0));
    assert_eq!(next_many(64), (KVS_ERR_CORRUPT, 0, 0, 0));
    assert_eq!(next_many(64), (KVS_OK, 10, 1, 0));
    for _ in 0..3 {
        assert_eq!(next_many(64), (KVS_ERR_CLOSED, 0, 0, 0));
    }
    assert_eq!(&room[..10], b"\x01\0\0\0\x01\0\0\0cv");
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_iter_free(iter) };
}

/// A record that does not fit is looked up once more, to be kept. If it has gone by then, the next
/// one may fit, and the caller must not be told that there was no room.
#[test]
fn a_record_that_goes_when_it_does_not_fit_leaves_no_trace() {
    struct Vanishing(bool);
    impl crate::scan::Source for Vanishing {
        fn next(&mut self) -> Option<crate::Result<crate::scan::Entry>> {
            None
        }
        fn offer(
            &mut self,
            take: &mut crate::scan::Take<'_>,
        ) -> Option<crate::Result<crate::scan::Entry>> {
            if !std::mem::replace(&mut self.0, true) {
                assert!(!take(b"too long", &[b'v'; 100]));
                assert!(take(b"k", b"v"));
            }
            None
        }
    }
    let iter = give(kvs_iter::new(crate::scan::Entries::of(Vanishing(false)), false));
    let mut room = [0_u8; 64];
    for expected in [(KVS_OK, 10, 1, 0), (KVS_END, 0, 0, 0)] {
        let (mut used, mut count, mut needed) = (7, 7, 7);
        let (dst, at) =
            (room.as_mut_ptr().cast(), [&raw mut used, &raw mut count, &raw mut needed]);
        // SAFETY: promises 1, 3, 4 and 5.
        let status = unsafe { kvs_iter_next_many(iter, dst, 64, at[0], at[1], at[2]) };
        assert_eq!((status, used, count, needed), expected);
    }
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_iter_free(iter) };
}

/// A handle that panicked takes no batch either.
#[test]
fn a_poisoned_handle_refuses_every_way_to_write() {
    let opened = Opened::new();
    assert_eq!(opened.panic_in_a_call(), KVS_ERR_PANIC);
    let batch = kvs_batch_new();
    let (key, none) = (b"k".as_ptr().cast(), ptr::null());
    // SAFETY: promises 1, 4 and 5.
    assert_eq!(unsafe { kvs_write(opened.store, batch, 0) }, KVS_ERR_POISONED);
    // SAFETY: promises 1 to 4.
    let swapped = unsafe { kvs_swap(opened.store, key, 1, none, 0, ptr::null_mut()) };
    assert_eq!(swapped, KVS_ERR_POISONED);
    // SAFETY: promises 1 to 4.
    let swapped =
        unsafe { kvs_compare_and_swap(opened.store, key, 1, none, 0, none, 0, ptr::null_mut()) };
    assert_eq!(swapped, KVS_ERR_POISONED);
    // SAFETY: promises 1, 2 and 4.
    let set = unsafe { kvs_set_with_expiry(opened.store, key, 1, key, 1, 7) };
    assert_eq!(set, KVS_ERR_POISONED);
    // SAFETY: promises 1 to 4.
    let set = unsafe { kvs_set_expiry(opened.store, key, 1, 7, ptr::null_mut()) };
    assert_eq!(set, KVS_ERR_POISONED);
    // SAFETY: promises 1 and 4.
    assert_eq!(unsafe { kvs_clear(opened.store) }, KVS_ERR_POISONED);
    // SAFETY: promises 1, 2 and 4.
    assert_eq!(unsafe { kvs_checkpoint(opened.store, c"copy".as_ptr()) }, KVS_ERR_POISONED);
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_batch_free(batch) };
}

/// What goes through the boundary by value is as wide as the header says.
#[test]
fn types_have_the_widths_of_the_header() {
    assert_eq!(size_of::<kvs_status>(), 4);
    assert_eq!(size_of::<usize>(), size_of::<*const u8>());
}

#[test]
fn a_handle_given_away_comes_back_whole() {
    let options = give(kvs_options::default());
    // SAFETY: promises 1, 4 and 5.
    let same = unsafe { lend("options", options) }.expect("not NULL");
    assert_eq!(same.text(KVS_OPT_ENGINE), None);
    // SAFETY: promises 1, 4 and 5.
    unsafe { kvs_options_free(options) };
    // SAFETY: NULL is allowed.
    unsafe { kvs_options_free(ptr::null_mut()) };
}
