//! What the benches share: keys, and what they do to directories.
#![allow(dead_code, reason = "none of them uses everything")]

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The key of a number: 16 bytes, in no order that an engine could use, the same in every run.
pub(crate) fn key(number: u64) -> [u8; 16] {
    // SplitMix64: a full-period counter, mixed.
    let mix = |seed: u64| {
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let first = mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_le_bytes());
    key[8..].copy_from_slice(&mix(first).to_le_bytes());
    key
}

/// A directory that goes at the end: in `parent`, or where the system keeps such things.
pub(crate) fn scratch(parent: Option<&Path>) -> tempfile::TempDir {
    parent.map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a scratch directory")
}

/// The files of a directory.
pub(crate) fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file())
}

/// Copies the files of a store into a new directory. If it is open, this is what `kill -9` leaves:
/// begun again if files came or went meanwhile.
pub(crate) fn copy(from: &Path, to: &Path) {
    let names = || files(from).collect::<BTreeSet<_>>();
    loop {
        let before = names();
        fs::create_dir(to).expect("a new directory");
        copy_files(&before, to);
        if names() == before {
            return;
        }
        fs::remove_dir_all(to).expect("a directory of ours");
    }
}

fn copy_files(paths: &BTreeSet<PathBuf>, to: &Path) {
    for path in paths {
        let copy = to.join(path.file_name().expect("a file has a name"));
        match fs::copy(path, &copy) {
            // Who compares the names notices.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            copied => copied.expect("room for a copy"),
        };
        // Writing it back is the disk's time, not the store's.
        fs::File::open(&copy).and_then(|file| file.sync_all()).expect("a disk that works");
    }
}

/// Removes every file without which a store is not lost: caches, and room.
pub(crate) fn lose_caches(dir: &Path) {
    for path in files(dir) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name of ours");
        let is_segment =
            name.starts_with("seg-") && path.extension().is_some_and(|end| end == "log");
        if name != "LOCK" && !name.starts_with("MANIFEST-") && !is_segment {
            fs::remove_file(&path).expect("a file of ours");
        }
    }
}
