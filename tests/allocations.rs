//! Reading allocates nothing, and what is removed is let go.
//!
//! A host that reads in its innermost loop must not find the allocator there. The allocator of this
//! binary counts what the reading thread asks of it; the count is kept for each thread, because the
//! store's own threads may allocate whenever they like.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvs::{Durability, KvStore, KvsEngine, Options, Scan};

struct Counting;

thread_local! {
    /// Calls of this thread that took memory. `const`, so that counting allocates nothing itself.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that all threads have taken and not given back.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

fn count() {
    // A thread that is ending has no counter any more, and reads nothing.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: everything is handed to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator is unsafe to write; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        HELD_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the trait asks.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        HELD_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: as the trait asks.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        count();
        HELD_BYTES.fetch_add(new_len, Ordering::Relaxed);
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, new_len) }
    }

    // SAFETY: as the trait asks.
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread asks for memory while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

const KEY_COUNT: u32 = 20_000;
const VALUE_BYTES: usize = 100;

/// The key of `index`; from `KEY_COUNT` on, keys that are absent. Made without allocating.
fn key(index: u32) -> [u8; 4] {
    index.wrapping_mul(0x9E37_79B1).to_be_bytes()
}

/// A store of several segments, closed and opened again, with some keys still in its newest log.
fn loaded(dir: &Path) -> KvStore {
    let options = Options::new().durability(Durability::Os).segment_bytes_min(1 << 16);
    let options = options.segment_bytes_max(1 << 20);
    let value = [b'v'; VALUE_BYTES];
    let store = KvStore::open_with(dir, options.clone()).unwrap();
    for index in 0..KEY_COUNT / 2 {
        store.set_bytes(&key(index), &value).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(dir, options).unwrap();
    for index in KEY_COUNT / 2..KEY_COUNT {
        store.set_bytes(&key(index), &value).unwrap();
    }
    store
}

/// Reads every present and as many absent keys, in each of the ways that promise to copy at most
/// into memory of the caller.
fn read_all(store: &KvStore, buffer: &mut Vec<u8>) {
    for index in 0..KEY_COUNT * 2 {
        let (key, is_there) = (key(index), index < KEY_COUNT);
        assert_eq!(store.get_into(&key, buffer).unwrap(), is_there);
        assert_eq!(buffer.len(), if is_there { VALUE_BYTES } else { 0 });
        let seen = store.get_with(&key, <[u8]>::len).unwrap();
        assert_eq!(seen, is_there.then_some(VALUE_BYTES));
        assert_eq!(store.contains(&key).unwrap(), is_there);
    }
}

/// One test at a time: memory that one has given up is freed by whichever thread comes by.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_allocator_of_this_test_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0_u8; 10]))), 1);
    let mut buffer = Vec::<u8>::with_capacity(1);
    assert_eq!(allocations(|| buffer.reserve_exact(100)), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn reads_into_a_reused_buffer_allocate_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let store = loaded(dir.path());
    let mut buffer = Vec::new();
    // The buffer grows, and the thread is made known to the reclaiming of memory, once.
    read_all(&store, &mut buffer);
    assert_eq!(allocations(|| read_all(&store, &mut buffer)), 0);
}

/// A scan that ran to its end never let go of the last key it had met (a range of
/// crossbeam-skiplist 0.1.3 does not), so the memory of that key was lost when it was removed. A
/// fuzzer found it.
#[test]
fn keys_that_were_scanned_and_removed_are_let_go() {
    const KEY_LEN: usize = 60_000;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os);
    let store = KvStore::open_with(dir.path(), options).unwrap();
    let turn = |turn: u8| {
        let key = vec![turn; KEY_LEN];
        store.set_bytes(&key, b"").unwrap();
        for scan in [Scan::all(), Scan::all().reverse()] {
            assert_eq!(store.scan(scan.keys_only()).unwrap().count(), 1);
        }
        store.remove_bytes(&key).unwrap();
    };
    (0..50).for_each(turn);
    let before = HELD_BYTES.load(Ordering::Relaxed);
    // What a thread that stands still might yet read is let go later; what is lost never is.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        (50..250).for_each(turn);
        let grown = HELD_BYTES.load(Ordering::Relaxed).saturating_sub(before);
        if grown < 100 * KEY_LEN {
            break;
        }
        assert!(Instant::now() < deadline, "{grown} bytes more are held after keys came and went");
    }
}
