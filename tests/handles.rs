//! What a store takes of the process, it gives back.
//!
//! A binary of its own: it counts the file descriptors and the mappings of the whole process.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::time::Duration;

use kvs::{Durability, KvStore, KvsEngine, Options, ReadMode};

fn options(cycle: u32) -> Options {
    let durability = match cycle % 3 {
        0 => Durability::Os,
        1 => Durability::Interval(Duration::from_millis(1)),
        _ => Durability::Sync,
    };
    let read_mode = if cycle % 4 == 3 { ReadMode::Positioned } else { ReadMode::Mapped };
    let options = Options::new().durability(durability).read_mode(read_mode);
    options.segment_bytes_min(0).segment_bytes_max(8 << 10)
}

/// Opens the store, does a little of everything, and closes it, or just lets it go.
fn use_once(dir: &Path, cycle: u32) {
    let store = KvStore::open_with(dir, options(cycle)).unwrap();
    for key in 0..20_u32 {
        store.set_bytes(&key.to_be_bytes(), &[7; 100]).unwrap();
    }
    let kept = store.get_bytes(&3_u32.to_be_bytes()).unwrap();
    assert_eq!(store.iter().unwrap().count(), 20);
    if cycle.is_multiple_of(5) {
        store.compact().unwrap();
    }
    if cycle.is_multiple_of(7) {
        let view = KvStore::open_with(dir, options(cycle).read_only(true)).unwrap();
        assert_eq!(view.len().unwrap(), 20);
    }
    if cycle.is_multiple_of(2) {
        store.close().unwrap();
    }
    drop(store);
    // A value outlives its store, and holds its file until it goes.
    assert_eq!(kept.unwrap(), [7; 100]);
}

/// Descriptors and mappings that lead into `dir`, and how many there are in all.
fn held(dir: &Path) -> (Vec<String>, usize, usize) {
    let dir = dir.to_str().unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let fds: Vec<_> = fds
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|path| path.display().to_string())
        .collect();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inside = fds.iter().map(String::as_str).chain(maps.lines());
    let inside = inside.filter(|line| line.contains(dir)).map(str::to_owned).collect();
    (inside, fds.len(), maps.lines().count())
}

/// A store that was closed kept files open until some other store of the process replaced a list of
/// segments: nobody could unmount what it lay on.
#[test]
#[cfg(target_os = "linux")]
fn a_thousand_stores_leave_no_descriptor_and_no_mapping() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    // What the first ones make stays: the allocator's arenas, a thread's stack that is kept.
    (0..50).for_each(|cycle| use_once(dir.path(), cycle));
    let (inside, fds, maps) = held(dir.path());
    assert_eq!(inside, [""; 0], "after 50");
    for cycle in 50..1050 {
        use_once(dir.path(), cycle);
        let (inside, ..) = held(dir.path());
        assert_eq!(inside, [""; 0], "after {cycle}");
    }
    let (_, fds_after, maps_after) = held(dir.path());
    assert_eq!(fds_after, fds, "descriptors");
    // Allocators map memory as they like, that of a sanitizer most: some for a thousand stores.
    assert!(maps_after <= maps + 64, "{maps} mappings have become {maps_after}");
}
