//! Memory that is not needed any more is given back.
//!
//! In a process of its own, so that nothing else takes memory meanwhile.

use kvs::{Durability, KvStore, KvsEngine, Options, Scan};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const KEY_COUNT: u32 = 20_000;
const ROUNDS: usize = 4;

/// A range of the skip list holds on to every entry that it has passed but the last. So each key
/// that a scan in order had come by stayed in memory when it was removed, node and all, until the
/// process ended. The leak checks of the C tests found it.
#[test]
fn keys_that_scans_came_by_are_given_back_when_they_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).ordered(true);
    let store = KvStore::open_with(dir.path(), options).unwrap();
    let round = || {
        (0..KEY_COUNT).for_each(|key| store.set_bytes(&key.to_be_bytes(), b"").unwrap());
        for scan in [Scan::all(), Scan::all().reverse()] {
            let count = store.scan(scan.keys_only()).unwrap().count();
            assert_eq!(u32::try_from(count), Ok(KEY_COUNT));
        }
        (0..KEY_COUNT).for_each(|key| store.remove_bytes(&key.to_be_bytes()).unwrap());
    };
    round();
    let before = ALLOCATED.current_usage();
    (0..ROUNDS).for_each(|_| round());
    let grown = ALLOCATED.current_usage().saturating_sub(before);
    // A node takes about 75 bytes.
    let all_keys = ROUNDS * usize::try_from(KEY_COUNT).unwrap() * 75;
    assert!(grown < all_keys / 4, "{grown} bytes more");
}
