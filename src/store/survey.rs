//! Survey: what a directory holds as it lies there, sound or not, without opening it as a store.
//!
//! ```text
//! manifest valid    what it lists, and the logs it need not list
//! manifest lost     every segment file there is
//! ```
//! Made for whoever looks at a store that will not open, or must not be touched: files are opened
//! for reading only, and nothing is created, cut or removed. Files stay open as long as the survey
//! lives, so a compaction by another process cannot take them away; one that comes in between is
//! noticed, and the survey taken again.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine_dir;
use crate::error::{KvsError, Result};
use crate::options::ReadMode;
use crate::store::disk::Disk;
use crate::store::location::{SegmentId, Seqno};
use crate::store::log_file::{LogFile, used_len};
use crate::store::manifest::Manifest;
use crate::store::names::{self, Name};
use crate::store::record::Salt;
use crate::store::segment::{FORMAT, HEADER_LEN, Origin, SegmentHeader};
use crate::store::sift::Sift;
use crate::store::tail::TailImage;

/// How often a survey begins again because the manifest was replaced meanwhile.
const ATTEMPTS_MAX: u32 = 10;

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Last write before the unlisted logs; `None` if the manifest is lost.
    pub(crate) log_after: Option<Seqno>,
    /// What is wrong with the manifest.
    pub(crate) manifest_error: Option<KvsError>,
    /// Why the tail could not be read: the newest writes may be missing then.
    pub(crate) tail_error: Option<KvsError>,
    /// In the order of their ids.
    pub(crate) segments: Vec<Surveyed>,
}

/// One segment file, or the lack of it.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) path: PathBuf,
    /// Whether the manifest lists it; `None` if the manifest is lost.
    pub(crate) listed: Option<bool>,
    /// Its header, if that is sound.
    pub(crate) header: Option<SegmentHeader>,
    /// What is wrong with the file as a whole, and where.
    pub(crate) wrong: Option<(u64, &'static str)>,
    /// Length of what is used of the file, and of what goes on behind it in the tail.
    pub(crate) len: u64,
    /// What its records can be read with, if at all.
    content: Option<(LogFile, Salt)>,
}

impl Survey {
    /// Looks at `dir`.
    ///
    /// # Errors
    ///
    /// [`KvsError::NoStore`], [`KvsError::WrongEngine`], [`KvsError::UnsupportedFormat`] if there
    /// is nothing of ours to look at; [`KvsError::Io`] if the directory cannot be listed.
    pub(crate) fn take(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        if !disk.exists(dir)? {
            return Err(KvsError::NoStore { path: dir.to_path_buf() });
        }
        let mut attempt = 0;
        loop {
            let files = disk.list(dir)?;
            let numbers = Manifest::numbers(&files);
            let survey = Self::of_files(disk, dir, &files);
            attempt += 1;
            let same = numbers == Manifest::numbers(&disk.list(dir)?);
            if same || attempt == ATTEMPTS_MAX {
                return survey;
            }
        }
    }

    fn of_files(disk: &dyn Disk, dir: &Path, files: &[std::ffi::OsString]) -> Result<Self> {
        // Before the logs that it goes on from: one may be written meanwhile.
        let (tail, tail_error) = match TailImage::take(disk, &names::tail(dir)) {
            Ok(tail) => (tail, None),
            Err(error) => (None, Some(error)),
        };
        let mut ids: Vec<_> = files.iter().filter_map(|name| id_of(name)).collect();
        let (manifest, manifest_error) = match Manifest::find(disk, dir, files) {
            Ok(Some((_, manifest))) => (Some(manifest), None),
            Ok(None) if ids.is_empty() => return Err(no_store(dir, files)),
            Ok(None) => {
                let path = names::manifest(dir, 0);
                (None, Some(KvsError::corrupt(&path, 0, "there is no manifest")))
            }
            Err(error @ KvsError::UnsupportedFormat { .. }) => return Err(error),
            Err(error) => (None, Some(error)),
        };
        if let Some(manifest) = &manifest {
            ids.retain(|id| manifest.lists(*id) || id.get() >= manifest.log_from);
            ids.extend(manifest.segments.iter().map(|listed| SegmentId::new(listed.id)));
        }
        ids.sort_unstable();
        ids.dedup();
        let open = |id| Surveyed::open(disk, dir, id, manifest.as_ref(), tail.as_ref());
        let mut segments: Vec<_> = ids.into_iter().map(open).collect();
        // Compaction's outputs are live only if they are listed.
        segments.retain(|segment| {
            let is_copies = segment.header.is_some_and(|header| header.origin == Origin::Copies);
            segment.listed != Some(false) || !is_copies
        });
        let log_after = manifest.map(|manifest| Seqno::new(manifest.log_after));
        Ok(Self { log_after, manifest_error, tail_error, segments })
    }

    /// Bytes of all files.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }
}

impl Surveyed {
    fn open(
        disk: &dyn Disk,
        dir: &Path,
        id: SegmentId,
        manifest: Option<&Manifest>,
        tail: Option<&TailImage>,
    ) -> Self {
        let path = names::segment(dir, id);
        let listed = manifest.map(|manifest| manifest.lists(id));
        let mut found = Self { path, listed, header: None, wrong: None, len: 0, content: None };
        let Ok(file) = disk.open_to_read(&found.path) else {
            found.wrong = Some((0, "the file is missing or cannot be opened"));
            return found;
        };
        let file_len = file.len().unwrap_or(0);
        let is_sealed = listed == Some(true);
        // What was not sealed may end with room for what was to come.
        let used_len = if is_sealed { Ok(file_len) } else { used_len(&*file) };
        found.len = used_len.unwrap_or(file_len);
        let salt = match SegmentHeader::read(disk, &found.path) {
            Ok(Some(header)) => {
                found.header = Some(header);
                let is_foreign = header.id != id
                    || manifest.is_some_and(|manifest| manifest.store_id != header.store_id);
                if is_foreign {
                    found.wrong = Some((16, "the segment belongs to another store"));
                    return found;
                }
                Some(header.salt)
            }
            Ok(None) => {
                // The newest log has none if the process died right after creating it.
                let may_be = listed == Some(false) && found.len <= HEADER_LEN;
                found.wrong = (!may_be).then_some((0, "the segment has no header"));
                None
            }
            Err(error) => {
                found.wrong = Some((0, what_of(&error)));
                SegmentHeader::salt_unverified(disk, &found.path).ok()
            }
        };
        let mut entries = manifest.iter().flat_map(|manifest| &manifest.segments);
        if let Some(listed) = entries.find(|listed| listed.id == id.get())
            && listed.bytes != found.len
        {
            let at = found.len.min(listed.bytes);
            found.wrong = found.wrong.or(Some((at, "the file does not end as the manifest says")));
        }
        let tail = tail.filter(|_| !is_sealed);
        if let Some(salt) = salt {
            let rest = tail.and_then(|tail| tail.rest_of(salt, HEADER_LEN, file_len));
            let goes_on = rest.is_some();
            let log = LogFile::grown(file, file_len, ReadMode::Positioned, rest);
            found.len = if goes_on { log.len() } else { found.len };
            found.content = Some((log, salt));
        }
        found
    }

    /// Whether its records are in the order of writes, as far as its header says.
    pub(crate) fn is_log(&self) -> bool {
        self.header.is_some_and(|header| header.origin == Origin::Log)
    }

    /// Its records, if they can be read at all.
    pub(crate) fn sift(&self) -> Option<Sift<'_>> {
        self.content.as_ref().map(|(log, salt)| Sift::new(log, *salt, log.len()).until(self.len))
    }
}

/// Refuses to fill `dir` if anything is in it. A missing one is fine.
pub(crate) fn check_vacant(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let path = || dir.to_path_buf();
    let files = match disk.exists(dir)?.then(|| disk.list(dir)).transpose() {
        Err(KvsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(KvsError::NotADirectory { path: path() });
        }
        listed => listed?.unwrap_or_default(),
    };
    if files.is_empty() {
        Ok(())
    } else if engine_dir::engine_in(dir)?.is_some() {
        Err(KvsError::StoreExists { path: path() })
    } else {
        Err(KvsError::NotEmpty { path: path() })
    }
}

fn id_of(name: &std::ffi::OsStr) -> Option<SegmentId> {
    match Name::parse(name) {
        Name::Segment(id) => Some(id),
        _ => None,
    }
}

/// What a directory without a trace of ours is.
fn no_store(dir: &Path, files: &[std::ffi::OsString]) -> KvsError {
    let path = dir.to_path_buf();
    if matches!(engine_dir::engine_in(dir), Ok(Some(engine_dir::SLED))) {
        let (found, asked) = (engine_dir::SLED, engine_dir::KVS);
        return KvsError::WrongEngine { path, found, asked };
    }
    if files.iter().any(|name| matches!(Name::parse(name), Name::OldLog(_))) {
        return KvsError::UnsupportedFormat { path, found: 0, supported: FORMAT };
    }
    KvsError::NoStore { path }
}

/// The words of an error for a list of damages.
pub(crate) fn what_of(error: &KvsError) -> &'static str {
    match error {
        KvsError::Corrupt { what, .. } => what,
        KvsError::UnsupportedFormat { .. } => "the format is newer than this version",
        _ => "the disk cannot read it",
    }
}
