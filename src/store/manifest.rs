//! The manifest: which segments are live, and what the store is.
//!
//! A manifest is written whole into a new file, synced, its directory synced, and only then is the
//! previous one removed; the highest valid number wins. Replacing it is the one instant at which a
//! compaction happens (invariant 8). It is text, so that a person can read it:
//!
//! ```text
//! kvs manifest, crc32c 1a2b3c4d
//! {"format":1,"engine":"kvs","store_id":..,"hash_seed":..,"needs":[],"log_from":9,
//!   "log_after":4711,"segments":[{"id":3,"bytes":4096}]}
//! ```
//!
//! The checksum covers everything after the first line. `segments` lists sealed segments. Logs with
//! ids from `log_from` on are live without being listed: rotation needs no new manifest.
//! `key_count` is there after a clean close. `needs` names features without which the store must
//! not be touched; this version knows none.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{KvsError, Result};
use crate::store::checksum::crc32c;
use crate::store::disk::Disk;
use crate::store::location::SegmentId;
use crate::store::names::{self, Name};
use crate::store::segment::FORMAT;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    engine: String,
    /// In the header of every segment, so that a foreign file is told apart.
    pub(crate) store_id: u64,
    /// Seed of the keydir's hash.
    pub(crate) hash_seed: u64,
    needs: Vec<String>,
    /// Logs with this id and above are live, listed or not.
    pub(crate) log_from: u64,
    /// Seqno of the last write before those logs: they go on there, and no seqno is given twice
    /// even if every record up to it was compacted away.
    pub(crate) log_after: u64,
    pub(crate) segments: Vec<ListedSegment>,
    /// Number of keys, if that was known when this was written and nothing was written since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_count: Option<u64>,
}

/// A sealed segment that is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedSegment {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
}

const HEAD: &str = "kvs manifest, crc32c ";

/// Longest manifest that is read (64 MiB): a million segments, each of which is said in 40 bytes.
const LEN_MAX: usize = 64 << 20;

/// The part of a manifest that is read before anything else is believed.
#[derive(Deserialize)]
struct Preamble {
    format: u32,
    engine: String,
    #[serde(default)]
    needs: Vec<String>,
}

impl Manifest {
    /// The manifest of a new store, without segments.
    pub(crate) fn new(store_id: u64, hash_seed: u64) -> Self {
        Self {
            format: FORMAT,
            engine: "kvs".to_owned(),
            store_id,
            hash_seed,
            needs: Vec::new(),
            log_from: 1,
            log_after: 0,
            segments: Vec::new(),
            key_count: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(self).expect("numbers and strings have a JSON form");
        body.push(b'\n');
        let mut bytes = format!("{HEAD}{:08x}\n", crc32c(0, &body)).into_bytes();
        bytes.append(&mut body);
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |what| KvsError::corrupt(path, 0, what);
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (head, body) = end
            .and_then(|end| bytes.split_at_checked(end + 1))
            .ok_or_else(|| corrupt("the manifest ends in its first line"))?;
        let crc = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(HEAD));
        let crc = crc.and_then(|crc| u32::from_str_radix(crc.trim_end(), 16).ok());
        if crc.ok_or_else(|| corrupt("the file does not begin like a manifest"))? != crc32c(0, body)
        {
            return Err(corrupt("the checksum of the manifest does not match"));
        }
        let preamble: Preamble = serde_json::from_slice(body)
            .map_err(|_| corrupt("the manifest does not say its format"))?;
        if preamble.format != FORMAT || !preamble.needs.is_empty() || preamble.engine != "kvs" {
            return Err(KvsError::UnsupportedFormat {
                path: path.to_path_buf(),
                found: preamble.format.max(FORMAT + u32::from(!preamble.needs.is_empty())),
                supported: FORMAT,
            });
        }
        serde_json::from_slice(body).map_err(|_| corrupt("the manifest lacks what it must say"))
    }

    /// Writes this manifest as number `n` of `dir`. When this returns `Ok`, it is the one that
    /// counts, whatever happens; when it fails, either may count.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path, n: u64) -> Result<()> {
        let file = disk.create(&names::manifest(dir, n))?;
        file.write_at(&self.encode(), 0)?;
        file.sync()?;
        disk.sync_dir(dir)
    }

    fn read(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open_to_read(path)?;
        let len = usize::try_from(file.len()?).ok().filter(|len| *len <= LEN_MAX);
        let len = len.ok_or_else(|| KvsError::corrupt(path, 0, "the manifest is too long"))?;
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, 0)?;
        Self::decode(&bytes, path)
    }

    /// The manifest that counts among the files `names` of `dir`, with its number; `None` if there
    /// is none at all.
    ///
    /// # Errors
    ///
    /// What is wrong with the newest one, if no valid one is there; [`KvsError::UnsupportedFormat`]
    /// and [`KvsError::Io`] even if an older one could be read.
    pub(crate) fn find(
        disk: &dyn Disk,
        dir: &Path,
        names: &[std::ffi::OsString],
    ) -> Result<Option<(u64, Self)>> {
        let mut first_error = None;
        for n in Self::numbers(names) {
            match Self::read(disk, &names::manifest(dir, n)) {
                Ok(manifest) => return Ok(Some((n, manifest))),
                // What cannot be read now may be right.
                Err(error @ (KvsError::UnsupportedFormat { .. } | KvsError::Io { .. })) => {
                    return Err(error);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    /// The numbers of the manifests among `names`, the highest first.
    pub(crate) fn numbers(names: &[std::ffi::OsString]) -> Vec<u64> {
        let number = |name: &std::ffi::OsString| match Name::parse(name) {
            Name::Manifest(n) => Some(n),
            _ => None,
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers
    }

    pub(crate) fn lists(&self, id: SegmentId) -> bool {
        self.segments.iter().any(|segment| segment.id == id.get())
    }
}

/// A manifest of `body`, whatever that is, with the checksum that it should have: what a fuzzer
/// makes up gets no further without.
#[cfg(any(test, fuzzing))]
pub(crate) fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{HEAD}{:08x}\n", crc32c(0, body)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::disk::failing::{Call, FailingDisk, Fault};
    use crate::store::disk::modelled::ModelledDisk;
    use crate::sync::Arc;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new(u64::MAX, 12345);
        manifest.log_from = 9;
        manifest.segments = vec![ListedSegment { id: 3, bytes: 4096 }];
        manifest
    }

    #[test]
    fn what_is_written_is_read() {
        let path = Path::new("MANIFEST-1");
        let bytes = manifest().encode();
        assert_eq!(Manifest::decode(&bytes, path).unwrap(), manifest());
        let body = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap();
        assert_eq!(with_checksum(body), bytes);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let path = Path::new("MANIFEST-1");
        let bytes = manifest().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            // Upper and lower case of a hexadecimal digit mean the same checksum.
            if let Ok(read) = Manifest::decode(&bent, path) {
                assert_eq!(read, manifest(), "bit {bit}");
            }
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len], path).is_err(), "{len} bytes");
        }
    }

    /// An older one would count, and what only the newest lists be removed as a leftover.
    #[test]
    fn one_that_cannot_be_read_is_not_passed_over() {
        let disk = FailingDisk::new(Arc::new(ModelledDisk::default()));
        let dir = Path::new("/store");
        disk.create_dir_all(dir).unwrap();
        manifest().write(&disk, dir, 1).unwrap();
        manifest().write(&disk, dir, 2).unwrap();
        let files = disk.list(dir).unwrap();
        for call in [Call::Open, Call::Len, Call::Read] {
            let chosen = match call {
                Call::Open => |call| call == Call::Open,
                Call::Len => |call| call == Call::Len,
                _ => |call| call == Call::Read,
            };
            disk.fail_after(0, Fault { code: libc::EIO, half: false, sticky: false, chosen });
            let error = Manifest::find(&disk, dir, &files).unwrap_err();
            assert_eq!(error.os_error(), Some(libc::EIO), "{call:?}");
        }
        assert_eq!(Manifest::find(&disk, dir, &files).unwrap().unwrap().0, 2);
    }

    #[test]
    fn a_newer_format_and_an_unknown_need_are_refused() {
        let path = Path::new("MANIFEST-1");
        let mut newer = manifest();
        newer.format = 2;
        let mut needy = manifest();
        needy.needs.push("compression".to_owned());
        let mut foreign = manifest();
        foreign.engine = "sled".to_owned();
        for (other, says) in [(newer, 2), (needy, 2), (foreign, 1)] {
            let error = Manifest::decode(&other.encode(), path).unwrap_err();
            assert!(
                matches!(error, KvsError::UnsupportedFormat { found, supported: 1, .. }
                    if found == says),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_manifest_lists_its_segments_and_no_others() {
        let listed = [2, 3, 4].map(|id| manifest().lists(SegmentId::new(id)));
        assert_eq!(listed, [false, true, false]);
    }

    /// A crash while a manifest is written leaves a torn one beside the previous: that one counts.
    #[test]
    fn the_highest_valid_manifest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(Manifest::find(&RealDisk, dir, &[]).unwrap(), None);
        manifest().write(&RealDisk, dir, 1).unwrap();
        Manifest::new(1, 1).write(&RealDisk, dir, 10).unwrap();
        let torn = &Manifest::new(2, 2).encode()[..40];
        std::fs::write(names::manifest(dir, 11), torn).unwrap();
        let names = RealDisk.list(dir).unwrap();
        let (n, found) = Manifest::find(&RealDisk, dir, &names).unwrap().unwrap();
        assert_eq!((n, found.store_id), (10, 1));
        std::fs::remove_file(names::manifest(dir, 1)).unwrap();
        std::fs::remove_file(names::manifest(dir, 10)).unwrap();
        let names = RealDisk.list(dir).unwrap();
        assert!(matches!(Manifest::find(&RealDisk, dir, &names), Err(KvsError::Corrupt { .. })));
    }

    /// However long a file says that it is, no memory is taken for it.
    #[test]
    fn a_manifest_of_a_tebibyte_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = names::manifest(dir.path(), 1);
        RealDisk.create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = Manifest::find(&RealDisk, dir.path(), &[path.file_name().unwrap().into()]);
        let error = error.unwrap_err();
        assert!(matches!(error, KvsError::Corrupt { what: "the manifest is too long", .. }));
    }
}
