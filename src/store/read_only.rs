//! Opening for reading only: a view of one moment, beside a process that may be writing.
//!
//! ```text
//! manifest -> listed segments, with their hints       sealed, so nothing in them changes
//! newer logs, in order -> their whole writes so far   read by positioned reads
//! ```
//! No lock is taken and nothing is written. What is found is a prefix of the order of writes: logs
//! are followed from write to write and left where the next one is not whole, because it is just
//! being written or was cut off by a crash. Files that the view has open stay readable though the
//! writer removes them; one that goes while the view is being put together is noticed by the
//! manifest that went with it, and all is begun anew.

use std::io;
use std::path::Path;

use crate::error::{KvsError, Result};
use crate::options::Options;
use crate::store::disk::Disk;
use crate::store::hint::HintOf;
use crate::store::keydir::{KeyHasher, Keydir};
use crate::store::loading::{self, HintedIndex, Opened};
use crate::store::location::{SegmentId, Seqno};
use crate::store::log_end::walk_to_end;
use crate::store::manifest::Manifest;
use crate::store::names::{self, Name};
use crate::store::reserve::Reserve;
use crate::store::segment::{Origin, SegmentHeader};
use crate::store::segments::Segments;
use crate::store::stats::Progress;
use crate::sync::Arc;

/// How often it is begun anew because the writer replaced the manifest meanwhile.
const ATTEMPTS_MAX: u32 = 20;

/// What a view was made of: as long as this is the same, so is the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    manifest_number: u64,
    /// The logs that are not listed, with the lengths of their files.
    logs: Vec<(SegmentId, u64)>,
}

impl Fingerprint {
    /// That of the store in `dir`, as it is now.
    pub(crate) fn take(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let found = Found::look(disk, dir)?;
        Ok(found.fingerprint)
    }
}

/// The manifest that counts, and the files it does not name.
struct Found {
    manifest: Manifest,
    fingerprint: Fingerprint,
}

impl Found {
    fn look(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let files = disk.list(dir)?;
        let no_store = || KvsError::NoStore { path: dir.to_path_buf() };
        let found = Manifest::find(disk, dir, &files)?;
        let (manifest_number, manifest) = found.ok_or_else(no_store)?;
        let mut logs = Vec::new();
        for name in &files {
            let Name::Segment(id) = Name::parse(name) else { continue };
            if id.get() >= manifest.log_from && !manifest.lists(id) {
                logs.push((id, disk.open_to_read(&names::segment(dir, id))?.len()?));
            }
        }
        logs.sort_unstable();
        Ok(Self { manifest, fingerprint: Fingerprint { manifest_number, logs } })
    }
}

/// Opens the store in `dir` as it is now.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Opened, Fingerprint)> {
    let mut seen = None;
    for _ in 0..ATTEMPTS_MAX {
        let found = Found::look(&**disk, dir)?;
        match view(disk, dir, options, &found, progress) {
            Err(KvsError::Io { source, path, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if seen.as_ref() == Some(&found.fingerprint) {
                    return Err(KvsError::corrupt(
                        &path,
                        0,
                        "the manifest lists it; it is missing",
                    ));
                }
                seen = Some(found.fingerprint);
            }
            viewed => return viewed.map(|view| (view, found.fingerprint)),
        }
    }
    let what = "its writer replaced it each time it was read; open it again";
    Err(KvsError::corrupt(&names::manifest(dir, 0), 0, what))
}

fn view(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    Found { manifest, fingerprint }: &Found,
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
    for (id, _) in &fingerprint.logs {
        let header = SegmentHeader::read(&**disk, &names::segment(dir, *id))?;
        match header {
            Some(header) if header.origin == Origin::Copies => continue,
            Some(header) if header.seqno_before == last => {}
            // Not begun yet, or behind a gap that a crash left.
            _ => break,
        }
        let log = segments.open(*id, false)?;
        let (end, hint) = walk_to_end(&log, hasher)?;
        log.shorten_to(end.offset);
        last = end.footer.seqno_max;
        logs.push((Arc::clone(&log), hint.finish(&HintOf::segment(&log))));
    }
    segments.publish();
    let mut hints = loading::find_hints(listed, hasher, &segments, progress)?;
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
