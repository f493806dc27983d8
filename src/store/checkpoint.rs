//! Checkpoint: a copy of the store that opens as it is, made while writing goes on.
//!
//! ```text
//! between two compactions:  seal the active log, take the list, sync it    the instant
//! then, for each segment:   link it, or copy it where the disk refuses     writes go on
//! last:                     MANIFEST-1                                     now it is a store
//! ```
//! The copy holds exactly the writes up to the moment at which the log was sealed: a prefix of the
//! order of writes, all of it durable.
//!
//! Invariants: only sealed segments are linked, and those are immutable (invariant 5), so the two
//! stores share no file that either may append to; each removes only its own name of it. A segment
//! is held while it is linked, so its file cannot go meanwhile. Segments without a manifest do not
//! open: so it is with a checkpoint that died half way. One that failed removes what it made.
//!
//! The copy keeps the store's id and seed, which its segments carry. It is a store of its own all
//! the same: do not mix files of the two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{KvsError, Result};
use crate::logger::Logger;
use crate::store::disk::{DirLock, Disk, DiskFile};
use crate::store::location::len_of;
use crate::store::manifest::{ListedSegment, Manifest};
use crate::store::names;
use crate::store::segment::Segment;
use crate::store::segments::Snapshot;
use crate::store::stats::Progress;
use crate::store::survey;
use crate::store::verify::Meter;
use crate::sync::Arc;

/// Bytes that are copied at once (1 MiB).
const PIECE_LEN: usize = 1 << 20;

/// What a checkpoint is made of.
pub(crate) struct Source {
    manifest: Manifest,
    /// Sealed and durable. Held, so that their files stay.
    segments: Vec<Arc<Segment>>,
}

impl Source {
    /// What is sealed in `now`, right after the active log was, with nothing being compacted. All
    /// of it is durable.
    pub(crate) fn new(mut manifest: Manifest, now: Snapshot) -> Self {
        let mut segments = now.segments;
        segments.retain(|segment| segment.footer().is_some());
        let listed = |segment: &Arc<Segment>| ListedSegment {
            id: segment.header.id.get(),
            bytes: segment.len(),
        };
        manifest.segments = segments.iter().map(listed).collect();
        manifest.key_count = None;
        manifest.log_from = now.next_id.get();
        manifest.log_after = now.seqno.get();
        Self { manifest, segments }
    }

    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    /// Makes a store of it in `dir`, which is made too, or empty. `progress` is called after each
    /// file, and about once per MiB that is copied.
    pub(crate) fn write(
        self,
        disk: &dyn Disk,
        dir: &Path,
        log: &Logger,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let mut meter = Meter::new(progress, self.bytes());
        let had_dir = disk.exists(dir)?;
        survey::check_vacant(disk, dir)?;
        disk.create_dir_all(dir)?;
        let lock = disk.lock(&names::lock(dir), Duration::ZERO)?;
        let mut made = Made { disk, dir, log, had_dir, files: Vec::new(), _lock: lock };
        // Somebody may have been faster, up to now.
        let lock_path = names::lock(dir);
        if disk.list(dir)?.iter().any(|name| lock_path.file_name() != Some(name)) {
            return Err(KvsError::NotEmpty { path: dir.to_path_buf() });
        }
        made.files.push(lock_path);
        for segment in &self.segments {
            let path = names::segment(dir, segment.header.id);
            made.files.push(path.clone());
            link_or_copy(disk, segment.path(), &path, segment.len(), &mut meter)?;
            meter.end_of_file(segment.len());
            let (hint, copy) = (names::hint(segment.path()), names::hint(&path));
            // A cache: without it the first open of the copy takes longer.
            if disk.link(&hint, &copy).is_ok() {
                made.files.push(copy);
            }
        }
        made.files.push(names::manifest(dir, 1));
        // Makes the names of all the files durable, its own among them.
        self.manifest.write(disk, dir, 1)?;
        made.files.clear();
        Ok(())
    }
}

/// What an unfinished checkpoint has made so far; dropped, it is removed.
struct Made<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    log: &'a Logger,
    had_dir: bool,
    files: Vec<PathBuf>,
    /// Let go when they are removed.
    _lock: Box<dyn DirLock>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        // The manifest first: without it the rest is no store.
        let is_made = |path: &&PathBuf| self.disk.exists(path).unwrap_or(true);
        for path in self.files.iter().rev().filter(is_made) {
            if let Err(error) = self.disk.remove(path) {
                self.log.warn(format_args!("a part of a failed checkpoint stays: {error}"));
            }
        }
        if !self.had_dir
            && let Err(error) = self.disk.remove_dir(self.dir)
        {
            self.log.warn(format_args!("the directory of a failed checkpoint stays: {error}"));
        }
    }
}

/// Gives `to` the bytes of `from`, which has `len` of them and never changes.
fn link_or_copy(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    len: u64,
    meter: &mut Meter<'_>,
) -> Result<()> {
    // Another file system, or one without links: whatever is wrong beyond that, copying meets too.
    if disk.link(from, to).is_ok() {
        return Ok(());
    }
    let (source, copy) = (disk.open_to_read(from)?, disk.create(to)?);
    copy_bytes(&*source, &*copy, len, meter)?;
    copy.sync()
}

fn copy_bytes(
    source: &dyn DiskFile,
    copy: &dyn DiskFile,
    len: u64,
    meter: &mut Meter<'_>,
) -> Result<()> {
    let mut piece = vec![0; PIECE_LEN];
    let mut offset = 0;
    while offset < len {
        let left = usize::try_from(len - offset).unwrap_or(usize::MAX);
        piece.truncate(left);
        source.read_at(&mut piece, offset)?;
        copy.write_at(&piece, offset)?;
        offset += len_of(piece.len());
        meter.at(offset);
    }
    Ok(())
}
