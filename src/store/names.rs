//! File names in a store directory, both ways. No other file builds or parses one.
//!
//! ```text
//! LOCK                  held by the process that has the store open; says its pid
//! MANIFEST-7            which segments are live; the highest valid number wins
//! seg-0000000012.log    one segment
//! seg-0000000012.hint   what the index needs to know of it; may be deleted
//! TAIL                  the newest writes, until they are in a segment
//! RESERVE               room that is given up when the disk is full
//! lost+found/           crash tails that recovery cut off, kept for a person to look at
//! ```
//! Anything else is not ours: it is never read, and never removed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::store::location::SegmentId;

/// What a file in a store directory is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(SegmentId),
    Hint(SegmentId),
    Manifest(u64),
    /// A log of the first implementation: digits and `.log`.
    OldLog(u64),
    /// Not ours.
    Other,
}

impl Name {
    pub(crate) fn parse(name: &OsStr) -> Self {
        let Some(name) = name.to_str() else { return Self::Other };
        if let Some(n) = name.strip_prefix("MANIFEST-").and_then(number) {
            return Self::Manifest(n);
        }
        if let Some(stem) = name.strip_suffix(".hint") {
            let id = stem.strip_prefix("seg-").and_then(number);
            return id.map_or(Self::Other, |n| Self::Hint(SegmentId::new(n)));
        }
        let Some(stem) = name.strip_suffix(".log") else { return Self::Other };
        match stem.strip_prefix("seg-") {
            Some(digits) => {
                number(digits).map_or(Self::Other, |n| Self::Segment(SegmentId::new(n)))
            }
            None => number(stem).map_or(Self::Other, Self::OldLog),
        }
    }
}

/// Digits only: no sign, no space.
fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

pub(crate) fn segment(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("seg-{:010}.log", id.get()))
}

/// The hint of the segment at `segment`.
pub(crate) fn hint(segment: &Path) -> PathBuf {
    segment.with_extension("hint")
}

pub(crate) fn old_log(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("{n}.log"))
}

pub(crate) fn manifest(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("MANIFEST-{n}"))
}

pub(crate) fn lock(dir: &Path) -> PathBuf {
    dir.join("LOCK")
}

pub(crate) fn tail(dir: &Path) -> PathBuf {
    dir.join("TAIL")
}

pub(crate) fn reserve(dir: &Path) -> PathBuf {
    dir.join("RESERVE")
}

pub(crate) fn lost_and_found(dir: &Path) -> PathBuf {
    dir.join("lost+found")
}

/// Where the part of `segment` from `offset` on is kept after it was cut; `attempt` tells apart
/// cuts at the same place.
pub(crate) fn crash_tail(dir: &Path, id: SegmentId, offset: u64, attempt: u32) -> PathBuf {
    let dot = if attempt == 0 { String::new() } else { format!(".{attempt}") };
    lost_and_found(dir).join(format!("seg-{:010}-from-{offset}.tail{dot}", id.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_built() {
        let dir = Path::new("d");
        for n in [0, 1, 42, 9_999_999_999, 12_345_678_901] {
            let path = segment(dir, SegmentId::new(n));
            assert_eq!(Name::parse(path.file_name().unwrap()), Name::Segment(SegmentId::new(n)));
            let name = Name::parse(hint(&path).file_name().unwrap());
            assert_eq!(name, Name::Hint(SegmentId::new(n)));
            let path = manifest(dir, n);
            assert_eq!(Name::parse(path.file_name().unwrap()), Name::Manifest(n));
        }
    }

    #[test]
    fn other_peoples_files_are_left_alone() {
        for name in [
            "",
            "LOCK",
            "seg-.log",
            "seg-1.txt",
            "seg-+1.log",
            "seg-.hint",
            "1.hint",
            "MANIFEST-",
            "MANIFEST-x",
            "notes.log",
            "MANIFEST-99999999999999999999999",
            "readme.md",
        ] {
            assert_eq!(Name::parse(OsStr::new(name)), Name::Other, "{name}");
        }
        assert_eq!(Name::parse(OsStr::new("17.log")), Name::OldLog(17));
    }
}
