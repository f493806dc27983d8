//! What the benches share that print figures: keys, and a directory of their own.

use std::path::Path;

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
