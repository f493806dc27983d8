//! Recovery: from a directory to a keydir and the place where the writer goes on.
//!
//! ```text
//! manifest -> which segments are live
//! newest logs -> go on in the tail, cut what a crash left, seal the rest
//!                                                            nothing after this is unsealed
//! every segment -> its hint, read or made                    the keydir loads from them, later
//! new manifest, if it has something new to say
//! ```
//!
//! What the manifest lists was durable when it was listed, so its records are not looked at. Logs
//! that it does not list are read and verified to their end; and what no mark in them says was
//! durable is written once more before it is synced and listed, see [`write_again`].
//!
//! Damage in a listed segment does not keep a store from opening: what it makes doubtful is told by
//! the reads, see [`Segments::note_hole`]. A listed file that is missing, cut short or of another
//! store does: then nothing is changed.
//!
//! # The crash tail
//!
//! Only the newest log may end in bytes that are no records, and only above what was durable. The
//! log says what was: after each sync the next group begins with a mark. So a hole followed by a
//! mark that covers it is corruption, reported and left alone; a hole that nothing vouches for is a
//! crash tail: copied to `lost+found/`, cut off, counted. A batch whose last record is missing
//! goes with the tail. Zeros up to the end of a file are neither: room for what was to come. Logs
//! are accepted in order, each going on at the very write where the one before ended; logs behind a
//! gap belong to the tail too.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::engine_dir;
use crate::error::{KvsError, Result};
use crate::options::{Durability, Options, ReadMode, WriteMode};
use crate::store::disk::{Disk, DiskFile};
use crate::store::hint::{Hint, HintOf};
use crate::store::key_hash::KeyHasher;
use crate::store::keydir::Keydir;
use crate::store::loading::{self, HintedIndex, Opened};
use crate::store::location::{SegmentId, Seqno, len_of};
use crate::store::log_end::{LogEnd, Reading, Unlisted, walk_to_end};
use crate::store::log_file::used_len;
use crate::store::manifest::{ListedSegment, Manifest};
use crate::store::names::{self, Name};
use crate::store::record::{self, Damage, Record};
use crate::store::reserve::Reserve;
use crate::store::segment::{FORMAT, HEADER_LEN, Origin, Segment, SegmentHeader};
use crate::store::segments::Segments;
use crate::store::stats::Progress;
use crate::store::tail::{Tail, TailImage};
use crate::sync::Arc;

/// Opens the store in `dir`, which is locked and was checked by [`check_dir`], or makes one.
///
/// `progress` is told of the segments that have to be read.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
    reserve: &Arc<Reserve>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Opened> {
    let files = disk.list(dir)?;
    let (number, manifest) = match Manifest::find(&**disk, dir, &files) {
        Ok(Some(_)) if options.exclusive => {
            return Err(KvsError::StoreExists { path: dir.to_path_buf() });
        }
        Ok(Some((number, manifest))) => {
            (make_durable(&**disk, dir, &files, number, &manifest)?, manifest)
        }
        Ok(None) => new_store(&**disk, dir, &files, options)?,
        Err(KvsError::Corrupt { .. })
            if is_unborn(&files) && list_nothing(&**disk, dir, &files)? =>
        {
            new_store(&**disk, dir, &files, options)?
        }
        Err(error) => return Err(error),
    };
    let hasher = KeyHasher::new(manifest.hash_seed);
    let tail = TailImage::take(&**disk, &names::tail(dir))?;
    let (disk, dir, reserve) = (Arc::clone(disk), dir.to_path_buf(), Arc::clone(reserve));
    let mut recovery = Recovery {
        disk,
        dir,
        reserve,
        manifest,
        number,
        hasher,
        tail,
        made: HashMap::new(),
        tails_cut: 0,
    };
    let logs = recovery.remove_leftovers(&files)?;
    let mut reading = recovery.reading(&logs, progress)?;
    let last_of_logs = recovery.settle_logs(&logs, &mut reading)?;
    recovery.load(options, last_of_logs, &files, &mut reading.rest())
}

/// Refuses a directory in which there is no store and none is to be made: it is another engine's,
/// of the first implementation, or the options say so. Changes nothing.
pub(crate) fn check_dir(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<()> {
    let files = disk.list(dir)?;
    if !Manifest::numbers(&files).is_empty() {
        return Ok(());
    }
    let path = dir.to_path_buf();
    if let Some(found @ engine_dir::SLED) = engine_dir::engine_in(dir)? {
        return Err(KvsError::WrongEngine { path, found, asked: engine_dir::KVS });
    }
    if files.iter().any(|name| matches!(Name::parse(name), Name::OldLog(_))) {
        return Err(KvsError::UnsupportedFormat { path, found: 0, supported: FORMAT });
    }
    if let Some(id) = files.iter().find_map(segment_id) {
        let path = names::segment(dir, id);
        return Err(KvsError::corrupt(&path, 0, "there is a segment, but no manifest beside it"));
    }
    if options.create { Ok(()) } else { Err(KvsError::NoStore { path }) }
}

/// Makes what was found durable before anything is done on the strength of it: the names of files,
/// and the manifest that was read. One that stands alone is durable, unless it is the first: the
/// one before was removed only then. Beside others, or where nothing was written yet, a killed
/// process may have left it in the page cache only, or its sync may have failed, so that it would
/// be taken for clean: it is written anew. Returns its number.
fn make_durable(
    disk: &dyn Disk,
    dir: &Path,
    files: &[OsString],
    number: u64,
    manifest: &Manifest,
) -> Result<u64> {
    disk.sync_dir(dir)?;
    if Manifest::numbers(files).len() == 1 && !is_unborn(files) {
        return Ok(number);
    }
    write_beside(disk, dir, files, manifest)
}

/// Writes `manifest` as the next after those among `files`, whose names are durable: what a power
/// loss leaves of it is not found alone. Returns its number.
fn write_beside(
    disk: &dyn Disk,
    dir: &Path,
    files: &[OsString],
    manifest: &Manifest,
) -> Result<u64> {
    let number = Manifest::numbers(files).first().map_or(1, |highest| highest + 1);
    manifest.write(disk, dir, number)?;
    Ok(number)
}

/// Whether a crash may have come while the store was being made: its first manifest is still there,
/// and nothing it could list.
fn is_unborn(files: &[OsString]) -> bool {
    let has_first = Manifest::numbers(files).last() == Some(&1);
    has_first && !files.iter().any(|name| segment_id(name).is_some())
}

/// Whether no manifest is longer than one that lists nothing. A longer one was whole once, and what
/// it listed is missing.
fn list_nothing(disk: &dyn Disk, dir: &Path, files: &[OsString]) -> Result<bool> {
    let len_max = len_of(Manifest::new(u64::MAX, u64::MAX).encode().len());
    for n in Manifest::numbers(files) {
        if disk.open_to_read(&names::manifest(dir, n))?.len()? > len_max {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the first manifest of a store, beside those that are not whole.
fn new_store(
    disk: &dyn Disk,
    dir: &Path,
    files: &[OsString],
    options: &Options,
) -> Result<(u64, Manifest)> {
    if !options.create {
        return Err(KvsError::NoStore { path: dir.to_path_buf() });
    }
    if !Manifest::numbers(files).is_empty() {
        disk.sync_dir(dir)?;
    }
    let manifest = Manifest::new(disk.random(), disk.random());
    let number = write_beside(disk, dir, files, &manifest)?;
    Ok((number, manifest))
}

fn segment_id(name: &OsString) -> Option<SegmentId> {
    match Name::parse(name) {
        Name::Segment(id) => Some(id),
        _ => None,
    }
}

/// Bytes that are written again at once (1 MiB). Small in tests, so that they see records that are
/// longer.
const PIECE_LEN: usize = if cfg!(test) { 512 } else { 1 << 20 };

struct Recovery {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve: Arc<Reserve>,
    manifest: Manifest,
    number: u64,
    hasher: KeyHasher,
    tail: Option<TailImage>,
    /// The hints of logs that were sealed.
    made: HashMap<SegmentId, Hint>,
    tails_cut: u64,
}

impl Recovery {
    /// Removes what a crash left behind: outputs of a compaction that did not happen, inputs of
    /// one that did, manifests that no longer count. Returns the unlisted logs, oldest first.
    ///
    /// Nothing is removed if something that is listed is missing: what looks like a leftover may
    /// then be all there is.
    fn remove_leftovers(&self, files: &[OsString]) -> Result<Vec<SegmentId>> {
        for listed in &self.manifest.segments {
            let path = self.path(SegmentId::new(listed.id));
            if !self.disk.exists(&path)? {
                return Err(KvsError::corrupt(&path, 0, "the manifest lists it; it is missing"));
            }
        }
        for n in Manifest::numbers(files).into_iter().filter(|n| *n != self.number) {
            self.disk.remove(&names::manifest(&self.dir, n))?;
        }
        // The hint of a log that is not listed may say more than the log has.
        let hints = files.iter().filter_map(|name| match Name::parse(name) {
            Name::Hint(id) => Some(id),
            _ => None,
        });
        for id in hints.filter(|id| !self.manifest.lists(*id)) {
            self.disk.remove(&names::hint(&self.path(id)))?;
        }
        let mut logs = Vec::new();
        for id in files.iter().filter_map(segment_id) {
            if self.manifest.lists(id) {
                continue;
            }
            if self.is_newer_log(id) {
                logs.push(id);
            } else {
                self.disk.remove(&self.path(id))?;
            }
        }
        logs.sort_unstable();
        Ok(logs)
    }

    /// Whether the unlisted segment `id` is a log that the manifest need not list. One without a
    /// header counts as one: it may be the newest log.
    fn is_newer_log(&self, id: SegmentId) -> bool {
        let header = || SegmentHeader::read(&*self.disk, &self.path(id));
        let is_copies = || matches!(header(), Ok(Some(header)) if header.origin == Origin::Copies);
        id.get() >= self.manifest.log_from && !is_copies()
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        names::segment(&self.dir, id)
    }

    fn reading<'a>(
        &self,
        logs: &[SegmentId],
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Reading<'a>> {
        let len = |id: &SegmentId| self.disk.open_to_read(&self.path(*id))?.len();
        Ok(Reading::new(progress, logs.iter().map(len).sum::<Result<u64>>()?))
    }

    /// Cuts crash tails, seals every unlisted log, and lists them. Returns the last seqno.
    fn settle_logs(&mut self, ids: &[SegmentId], reading: &mut Reading<'_>) -> Result<Seqno> {
        let mut last = Seqno::new(self.manifest.log_after);
        for (index, id) in ids.iter().enumerate() {
            let this_and_later = ids.get(index..).unwrap_or_default();
            let Some(log) = self.unlisted().open(*id)? else {
                self.give_up(&[*id])?;
                continue;
            };
            let before = log.header.seqno_before;
            if before < last {
                return Err(KvsError::corrupt(log.path(), 40, "two logs claim the same writes"));
            }
            if before > last {
                // Writes between are missing, so these logs are part of the crash tail.
                self.unlisted().check_not_durable(this_and_later, HEADER_LEN, last.next())?;
                self.give_up(this_and_later)?;
                break;
            }
            let read = &mut |bytes| reading.add(bytes);
            let (end, hint) = walk_to_end(&log, self.hasher, read)?;
            if end.torn {
                let first_lost = end.footer.seqno_max.next();
                self.unlisted().check_not_durable(this_and_later, end.offset, first_lost)?;
            }
            let file = self.disk.open(log.path())?;
            if let Some(bytes) = self.seal(&log, &*file, &end, hint.end_of(end.durable))? {
                let mut hint =
                    hint.finish(&HintOf { id: id.get(), salt: log.header.salt.0, bytes });
                let path = self.path(*id);
                loading::keep_hint(&mut hint, &*self.disk, &self.reserve, &path);
                self.made.insert(*id, hint);
            }
            last = end.footer.seqno_max;
        }
        Ok(last)
    }

    fn unlisted(&self) -> Unlisted<'_> {
        let (disk, dir, store_id) = (&*self.disk, &*self.dir, self.manifest.store_id);
        let tail = self.tail.as_ref();
        Unlisted { disk, dir, store_id, read_mode: ReadMode::Mapped, tail }
    }

    /// Cuts the log at its end, appends a footer if it has none, syncs and lists it. Returns the
    /// length of its file; `None` if there is nothing in it, so that it was removed. The bytes
    /// below `durable` are known to be durable.
    fn seal(
        &mut self,
        log: &Segment,
        file: &dyn DiskFile,
        end: &LogEnd,
        durable: u64,
    ) -> Result<Option<u64>> {
        let id = log.header.id;
        // What is torn may lie in the tail alone.
        if end.torn && file.len()? > end.offset {
            self.keep_tail(id, end.offset)?;
        }
        if end.footer.record_count == 0 {
            self.disk.remove(file.path())?;
            return Ok(None);
        }
        write_again(log, file, durable, end.offset)?;
        // Also if it seems to end there: a cut can be lost by a sync that failed, as bytes can.
        file.set_len(end.offset)?;
        if !end.sealed {
            file.write_at(&end.footer.encode(end.offset, log.header.salt), end.offset)?;
        }
        // The page cache is trusted only after a sync: a killed process may have left bytes there
        // that the disk does not have.
        file.sync()?;
        let bytes = file.len()?;
        self.manifest.segments.push(ListedSegment { id: id.get(), bytes });
        Ok(Some(bytes))
    }

    /// Copies the bytes from `offset` on to `lost+found/`; zeros at the end take no room there.
    fn keep_tail(&mut self, id: SegmentId, offset: u64) -> Result<()> {
        self.tails_cut += 1;
        let file = self.disk.open(&self.path(id))?;
        let whole_len = file.len()?.saturating_sub(offset);
        let len = used_len(&*file)?.saturating_sub(offset);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut tail = vec![0; len];
        file.read_at(&mut tail, offset)?;
        self.disk.create_dir_all(&names::lost_and_found(&self.dir))?;
        let mut attempt = 0;
        let mut path = names::crash_tail(&self.dir, id, offset, attempt);
        while self.disk.exists(&path)? {
            attempt += 1;
            path = names::crash_tail(&self.dir, id, offset, attempt);
        }
        let log = self.reserve.log();
        log.warn(format_args!("{len} bytes of an unfinished write are kept in {}", path.display()));
        let kept = self.disk.create(&path)?;
        kept.write_at(&tail, 0)?;
        kept.set_len(whole_len)?;
        kept.sync()?;
        self.disk.sync_dir(&names::lost_and_found(&self.dir))
    }

    /// Keeps the bytes of `ids` in `lost+found/` and removes them.
    fn give_up(&mut self, ids: &[SegmentId]) -> Result<()> {
        for id in ids {
            if used_len(&*self.disk.open(&self.path(*id))?)? > HEADER_LEN {
                self.keep_tail(*id, 0)?;
            }
            self.disk.remove(&self.path(*id))?;
        }
        Ok(())
    }

    /// Opens the segments, all of them sealed and listed, and finds what the keydir is to be
    /// loaded from.
    fn load(
        mut self,
        options: &Options,
        last_of_logs: Seqno,
        files: &[OsString],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Opened> {
        let highest = files.iter().filter_map(segment_id).map(SegmentId::get).max().unwrap_or(0);
        let next_id = SegmentId::new((highest + 1).max(self.manifest.log_from));
        let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
        let segments = Segments::new(
            disk,
            dir,
            options.clone(),
            Arc::clone(&self.reserve),
            self.manifest.store_id,
            next_id,
            last_of_logs,
        );
        let segments = Arc::new(segments.with_tail(self.open_tail(options)));
        let listed = self.manifest.segments.iter();
        let opened = listed.map(|listed| segments.open_listed(listed, last_of_logs));
        let opened = opened.collect::<Result<Vec<_>>>()?;
        segments.publish();
        let footers = opened.iter().filter_map(|segment| segment.footer());
        let seqno = footers.map(|footer| footer.seqno_max).max().unwrap_or(Seqno::ZERO);
        let seqno = seqno.max(last_of_logs);
        let made = std::mem::take(&mut self.made);
        let hints = loading::find_hints(opened, made, self.hasher, &segments, progress)?;
        let index = HintedIndex::new(self.hasher, Arc::clone(&segments), hints);
        let is_as_closed = seqno.get() == self.manifest.log_after;
        let key_count = self.manifest.key_count.filter(|_| is_as_closed);
        let keydir = Keydir::pending(self.hasher, Arc::new(index), key_count);
        self.list(next_id, seqno)?;
        Ok(Opened {
            keydir: Arc::new(keydir),
            segments,
            manifest: self.manifest,
            manifest_number: self.number,
            seqno,
            tails_cut: self.tails_cut,
        })
    }

    /// The tail that the writer is to use, if it is to use one. What was in it is in the logs now.
    fn open_tail(&self, options: &Options) -> Option<Tail> {
        let (disk, path) = (&*self.disk, names::tail(&self.dir));
        // Where every write waits for the disk, a tail would be one stop more on the way.
        let is_wanted = options.write_mode == WriteMode::Tail
            && options.durability != Durability::Sync
            && disk.overwrites_in_place(&self.dir);
        let tail = if is_wanted { Tail::open(disk, &path).map(Some) } else { Ok(None) };
        let tail = tail.and_then(|tail| {
            if tail.is_none() && disk.exists(&path)? {
                disk.remove(&path)?;
            }
            Ok(tail)
        });
        tail.unwrap_or_else(|error| {
            self.reserve.log().warn(format_args!("writing without a tail is slower: {error}"));
            None
        })
    }

    /// Writes a new manifest if logs were sealed since the last one.
    fn list(&mut self, next_id: SegmentId, last: Seqno) -> Result<()> {
        let log_from = self.manifest.log_from;
        if self.manifest.segments.iter().any(|listed| listed.id >= log_from) {
            self.manifest.log_from = next_id.get();
            self.manifest.log_after = last.get();
            self.manifest.key_count = None;
            self.manifest.write(&*self.disk, &self.dir, self.number + 1)?;
            self.disk.remove(&names::manifest(&self.dir, self.number))?;
            self.number += 1;
        }
        Ok(())
    }
}

/// Writes what `log` holds from `durable` to `end` into its `file`: what only the tail has, and
/// everything else once more, over itself.
///
/// Of those bytes nobody knows that they are durable. A sync alone would not make them so: if one
/// has failed before, the kernel takes for clean what it could not write, and reports success.
/// Where that is not known, only writing makes the pages dirty again. What is written is what was
/// just verified, since a clean page may go, and be read from the disk, at any time.
fn write_again(log: &Segment, file: &dyn DiskFile, durable: u64, end: u64) -> Result<()> {
    let in_tail = log.log().missing_below(end).map_or(end, |(from, _)| from);
    let mut at = durable.min(in_tail);
    if at < HEADER_LEN {
        file.write_at(&log.header.encode(), 0)?;
        at = HEADER_LEN;
    }
    let (mut piece, mut wanted) = (Vec::new(), PIECE_LEN);
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        log.log().read_into(&mut piece, at, wanted.min(left))?;
        let salt = log.header.salt;
        let mut whole = 0;
        while let Some(rest) = piece.get(whole..)
            && let Ok(record) = Record::decode(rest, salt, at + len_of(whole))
        {
            whole += record.len();
        }
        file.write_at(piece.get(..whole).unwrap_or_default(), at)?;
        at += len_of(whole);
        wanted = match record::valid_header_len(&piece, salt, at) {
            // One record that is longer than a piece.
            Some(len) if whole == 0 && len > piece.len() => len,
            _ if whole == 0 => return Err(log.corrupt(at, Damage::Body)),
            _ => PIECE_LEN,
        };
    }
    Ok(())
}
