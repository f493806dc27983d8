//! Opening for reading only: a view of one moment, beside a process that may be writing.
//!
//! ```text
//! tail -> an image of it                              before anything that it may go on from
//! manifest -> listed segments, with their hints       sealed, so nothing in them changes
//! newer logs, in order -> their whole writes so far   read by positioned reads, then in the image
//! ```
//! No lock is taken and nothing is written. What is found is a prefix of the order of writes: logs
//! are followed from write to write and left where the next one is not whole, because it is just
//! being written or was cut off by a crash. If a mark says that what follows was durable it is
//! neither, but damage: then there is no view. Files that the view has open stay readable though
//! the writer removes them; one that goes, or is cut, while the view is being put together is
//! noticed by that, and all is begun anew.
//!
//! One thing is not noticed. A writer whose append fails half way, as on a full disk, cuts off what
//! it wrote. A view that was taken between the two may have followed some of those writes: it shows
//! what nobody was promised, and once others lie in their place, reads of these keys go wrong.
//! Refreshing mends it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{KvsError, Result};
use crate::options::{Options, ReadMode};
use crate::store::disk::Disk;
use crate::store::hint::HintOf;
use crate::store::key_hash::KeyHasher;
use crate::store::keydir::Keydir;
use crate::store::loading::{self, HintedIndex, Opened};
use crate::store::location::{SegmentId, Seqno};
use crate::store::log_end::{Reading, Unlisted, walk_to_end};
use crate::store::log_file::used_len;
use crate::store::manifest::Manifest;
use crate::store::names::{self, Name};
use crate::store::reserve::Reserve;
use crate::store::segment::{HEADER_LEN, Origin, SegmentHeader};
use crate::store::segments::Segments;
use crate::store::stats::Progress;
use crate::store::tail::TailImage;
use crate::sync::Arc;

/// How often it is begun at most, while the writer is at work.
const ATTEMPTS_MAX: u32 = 20;

/// What a view was made of: as long as this is the same, so is the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    manifest_number: u64,
    /// The logs that are not listed, with the lengths of what is used of their files.
    logs: Vec<(SegmentId, u64)>,
    /// Of all that is in the tail.
    tail_hash: Option<u64>,
}

impl Fingerprint {
    /// That of the store in `dir`, as it is now.
    pub(crate) fn take(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        undisturbed(disk, dir, |found| Ok(found.fingerprint.clone()))
    }
}

/// The manifest that counts, and the files it does not name.
struct Found {
    manifest: Manifest,
    fingerprint: Fingerprint,
    tail: Option<TailImage>,
}

impl Found {
    fn look(disk: &dyn Disk, dir: &Path, files: &[OsString]) -> Result<Self> {
        let no_store = || KvsError::NoStore { path: dir.to_path_buf() };
        let tail = TailImage::take(disk, &names::tail(dir))?;
        let tail_hash = tail.as_ref().map(|tail| xxh3_64(tail.bytes()));
        let found = Manifest::find(disk, dir, files)?;
        let (manifest_number, manifest) = found.ok_or_else(no_store)?;
        let mut logs = Vec::new();
        for name in files {
            let Name::Segment(id) = Name::parse(name) else { continue };
            if id.get() >= manifest.log_from && !manifest.lists(id) {
                let file = disk.open_to_read(&names::segment(dir, id))?;
                logs.push((id, used_len(&*file)?));
            }
        }
        logs.sort_unstable();
        let fingerprint = Fingerprint { manifest_number, logs, tail_hash };
        Ok(Self { manifest, fingerprint, tail })
    }
}

/// Opens the store in `dir` as it is now.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Opened, Fingerprint)> {
    undisturbed(&**disk, dir, |found| {
        Ok((view(disk, dir, options, found, progress)?, found.fingerprint.clone()))
    })
}

/// Calls `look` with what is in `dir`, and again if it fails because the writer was at work
/// meanwhile: a file was replaced, removed or cut; or what looks like damage is a write that was
/// half there at first, and durable when it was held against what follows.
fn undisturbed<R>(
    disk: &dyn Disk,
    dir: &Path,
    mut look: impl FnMut(&Found) -> Result<R>,
) -> Result<R> {
    let list = || {
        let mut files = disk.list(dir)?;
        files.sort_unstable();
        Ok(files)
    };
    let mut files: Vec<OsString> = list()?;
    let mut attempts_left = ATTEMPTS_MAX;
    loop {
        let mut before = None;
        let looked = Found::look(disk, dir, &files).and_then(|found| {
            let looked = look(&found);
            before = Some(found.fingerprint);
            looked
        });
        let error = match looked {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let now = list()?;
        let kind = match &error {
            KvsError::Io { source, .. } => Some(source.kind()),
            _ => None,
        };
        let has_gone_on = || {
            let found = Found::look(disk, dir, &files);
            found.is_ok_and(|found| before.is_some_and(|before| before != found.fingerprint))
        };
        let is_disturbed = now != files
            || kind == Some(io::ErrorKind::UnexpectedEof)
            || matches!(error, KvsError::Corrupt { .. }) && has_gone_on();
        attempts_left -= 1;
        if attempts_left > 0 && is_disturbed {
            files = now;
            continue;
        }
        return Err(match error {
            KvsError::Io { path, .. } if kind == Some(io::ErrorKind::NotFound) => {
                KvsError::corrupt(&path, 0, "the manifest lists it; it is missing")
            }
            error => error,
        });
    }
}

fn view(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    Found { manifest, fingerprint, tail }: &Found,
    progress: &mut dyn FnMut(Progress),
) -> Result<Opened> {
    let hasher = KeyHasher::new(manifest.hash_seed);
    let mut last = Seqno::new(manifest.log_after);
    let segments = Arc::new(Segments::new(
        Arc::clone(disk),
        dir.to_path_buf(),
        options.clone(),
        // Never held, so nothing is written where a writer would see to it that there is room.
        Arc::new(Reserve::new(Arc::clone(disk), dir, options)),
        manifest.store_id,
        SegmentId::new(manifest.log_from),
        last,
    ));
    let listed = manifest.segments.iter().map(|listed| segments.open_listed(listed, last));
    let listed = listed.collect::<Result<Vec<_>>>()?;
    let mut logs = Vec::new();
    let unlisted = Unlisted {
        disk: &**disk,
        dir,
        store_id: manifest.store_id,
        // The writer may cut what a crash left.
        read_mode: ReadMode::Positioned,
        tail: tail.as_ref(),
    };
    let ids: Vec<_> = fingerprint.logs.iter().map(|(id, _)| *id).collect();
    let mut reading = Reading::new(progress, fingerprint.logs.iter().map(|(_, len)| len).sum());
    for (index, id) in ids.iter().enumerate() {
        let this_and_later = ids.get(index..).unwrap_or_default();
        match SegmentHeader::read(&**disk, &names::segment(dir, *id))? {
            // Not begun yet, or an output of compaction.
            None => continue,
            Some(header) if header.origin == Origin::Copies => continue,
            Some(header) if header.seqno_before == last => {}
            // Behind a gap that a crash left.
            Some(_) => {
                unlisted.check_not_durable(this_and_later, HEADER_LEN, last.next())?;
                break;
            }
        }
        let log = segments.open_unsealed(*id, tail.as_ref())?;
        let (end, hint) = walk_to_end(&log, hasher, &mut |bytes| reading.add(bytes))?;
        last = end.footer.seqno_max;
        if end.torn {
            unlisted.check_not_durable(this_and_later, end.offset, last.next())?;
        }
        log.shorten_to(end.offset);
        logs.push((Arc::clone(&log), hint.finish(&HintOf::segment(&log))));
    }
    segments.publish();
    let (made, mut rest) = (HashMap::new(), reading.rest());
    let mut hints = loading::find_hints(listed, made, hasher, &segments, &mut rest)?;
    drop(rest);
    hints.append(&mut logs);
    let index = HintedIndex::new(hasher, Arc::clone(&segments), hints);
    let is_as_closed = last.get() == manifest.log_after;
    let key_count = manifest.key_count.filter(|_| is_as_closed);
    Ok(Opened {
        keydir: Arc::new(Keydir::pending(hasher, Arc::new(index), key_count)),
        segments,
        manifest: manifest.clone(),
        manifest_number: fingerprint.manifest_number,
        seqno: last,
        tails_cut: 0,
    })
}
