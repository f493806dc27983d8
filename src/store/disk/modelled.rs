//! A disk in memory that can lose power, or be asked what would be left if it had.
//!
//! ```text
//! now       what programs see
//! pending   what a power loss may take, each unit on its own: a piece of a 512-byte sector, a
//!           length, a name put into a directory or taken out of it
//! durable   what no power loss takes
//! ```
//! A sync of a file makes its sectors and its length durable, a sync of a directory its names;
//! neither does the work of the other. Whatever is pending may be there or not after a power loss,
//! in any combination. Directories themselves are durable at once. Nothing can be mapped for
//! reading, so everything is read by position. What is written through a mapping is pending, sector
//! by sector, as it was before the last change and as it is. Tests only.
//!
//! With [`ModelledDisk::record`] the disk keeps a [`Moment`] before each call that changes
//! something: all moments at which power can fail, from one run.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a model for tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DirLock, Disk, DiskFile, Mapping, SharedMemory, Words};
use crate::error::{KvsError, Result};
use crate::store::location::len_of;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// Disks write a sector wholly or not at all (512 bytes).
const SECTOR_LEN: usize = 512;

type Inode = u64;

/// Something that a power loss takes or leaves as a whole.
#[derive(Debug, Clone)]
enum Unit {
    /// Bytes within one sector.
    Bytes {
        inode: Inode,
        offset: usize,
        bytes: Vec<u8>,
    },
    /// The file became longer.
    Grown {
        inode: Inode,
        len: usize,
    },
    /// The file was cut, or filled up with zeros.
    Cut {
        inode: Inode,
        len: usize,
    },
    Linked {
        path: PathBuf,
        inode: Inode,
    },
    Unlinked {
        path: PathBuf,
    },
}

/// Content is there as far as it was written; the length decides how much of it counts.
#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone, Default)]
struct Image {
    names: BTreeMap<PathBuf, Inode>,
    contents: BTreeMap<Inode, Content>,
}

impl Image {
    fn apply(&mut self, unit: &Unit) {
        match unit {
            Unit::Bytes { inode, offset, bytes } => {
                let content = self.contents.entry(*inode).or_default();
                let end = offset + bytes.len();
                content.bytes.resize(content.bytes.len().max(end), 0);
                content.bytes[*offset..end].copy_from_slice(bytes);
            }
            Unit::Grown { inode, len } => self.contents.entry(*inode).or_default().len = *len,
            Unit::Cut { inode, len } => {
                let content = self.contents.entry(*inode).or_default();
                content.bytes.truncate(*len);
                content.len = *len;
            }
            Unit::Linked { path, inode } => {
                self.names.insert(path.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Unit::Unlinked { path } => {
                self.names.remove(path);
            }
        }
    }

    /// What programs read: no byte beyond the length, zeros where nothing was written.
    fn settle(&mut self) {
        for content in self.contents.values_mut() {
            content.bytes.resize(content.len, 0);
        }
    }
}

impl Unit {
    fn is_of(&self, file: Inode) -> bool {
        match self {
            Self::Bytes { inode, .. } | Self::Grown { inode, .. } | Self::Cut { inode, .. } => {
                *inode == file
            }
            Self::Linked { .. } | Self::Unlinked { .. } => false,
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Linked { path, .. } | Self::Unlinked { path } => path.parent() == Some(dir),
            _ => false,
        }
    }
}

/// What a failed sync does to what it was to make durable. It will not be written in either case:
/// the kernel takes it for clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Programs go on seeing it until power fails.
    Unseen,
    /// Programs see what was there before.
    Seen,
}

/// The disk as it was before one call, and the last number that the test had noted until then.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    durable: Image,
    now: Image,
    pending: Vec<Unit>,
    random: u64,
    pub(crate) note: usize,
}

#[derive(Debug, Default)]
struct State {
    durable: Image,
    now: Image,
    pending: Vec<Unit>,
    inodes: Inode,
    random: u64,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Files that are mapped for writing. What is written there is found out later.
    mapped: BTreeMap<Inode, Arc<[AtomicU64]>>,
    moments: Option<Vec<Moment>>,
    note: usize,
    /// The sync of a file that fails, after so many others.
    failing_sync: Option<(usize, Lost)>,
    /// Most bytes that files take up, if there is a limit.
    capacity: Option<usize>,
}

/// The disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelledDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct ModelledFile {
    disk: ModelledDisk,
    inode: Inode,
    path: PathBuf,
}

#[derive(Debug)]
struct ModelledLock {
    disk: ModelledDisk,
    path: PathBuf,
}

impl DirLock for ModelledLock {}

impl Drop for ModelledLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

impl Moment {
    /// How many units a power loss may take.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The disk after power failed at this moment and the pending units that `keeps` tells, by
    /// number, had made it.
    pub(crate) fn after_power_loss(&self, keeps: impl Fn(usize) -> bool) -> ModelledDisk {
        let mut image = self.durable.clone();
        let kept = self.pending.iter().enumerate().filter(|(number, _)| keeps(*number));
        kept.for_each(|(_, unit)| image.apply(unit));
        image.settle();
        ModelledDisk::holding(image.clone(), image, Vec::new(), self.random + 1)
    }

    /// The disk after the process was killed at this moment, and the power stayed on.
    pub(crate) fn after_kill(&self) -> ModelledDisk {
        let (durable, now) = (self.durable.clone(), self.now.clone());
        ModelledDisk::holding(durable, now, self.pending.clone(), self.random + 1)
    }
}

impl State {
    /// Everything that changes something passes here, before it does.
    fn before_change(&mut self) {
        self.look_at_mapped();
        if let Some(moments) = &mut self.moments {
            moments.push(Moment {
                durable: self.durable.clone(),
                now: self.now.clone(),
                pending: self.pending.clone(),
                random: self.random,
                note: self.note,
            });
        }
    }

    /// Takes in what was written through mappings.
    fn look_at_mapped(&mut self) {
        for (inode, words) in self.mapped.clone() {
            // Relaxed: tests let one thread write.
            let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
            let bytes: Vec<u8> = bytes.collect();
            for (number, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
                let offset = number * SECTOR_LEN;
                if self.content(inode).bytes.get(offset..offset + sector.len()) == Some(sector) {
                    continue;
                }
                // Of the older ones only the last: the disk may have any, but they are all alike.
                let is_same = |unit: &Unit| {
                    matches!(unit, Unit::Bytes { inode: of, offset: at, .. }
                        if (*of, *at) == (inode, offset))
                };
                let older: Vec<_> = (0..self.pending.len())
                    .filter(|index| is_same(&self.pending[*index]))
                    .collect();
                if let [first, _, ..] = older[..] {
                    self.pending.remove(first);
                }
                self.change(Unit::Bytes { inode, offset, bytes: sector.to_vec() });
            }
        }
    }

    fn change(&mut self, unit: Unit) {
        self.now.apply(&unit);
        self.pending.push(unit);
    }

    /// Makes the pending units that `chosen` tells durable.
    fn settle(&mut self, chosen: impl Fn(&Unit) -> bool) {
        let (settled, pending) = std::mem::take(&mut self.pending).into_iter().partition(chosen);
        self.pending = pending;
        let settled: Vec<Unit> = settled;
        for unit in &settled {
            self.durable.apply(unit);
        }
    }

    /// How long the file can become, if it is to become `len` bytes long.
    fn room_for(&mut self, inode: Inode, len: usize) -> usize {
        let Some(capacity) = self.capacity else { return len };
        let others = self.now.names.values().filter(|other| **other != inode);
        let taken: usize = others.map(|other| self.now.contents[other].len).sum();
        len.min(capacity.saturating_sub(taken).max(self.content(inode).len))
    }

    /// How long the file is to be on the disk when everything pending is there. Shorter than what
    /// programs see if a failed sync lost a length: then the next write at its end brings it back.
    fn len_to_be(&self, inode: Inode) -> usize {
        let durable = self.durable.contents.get(&inode).map_or(0, |content| content.len);
        self.pending.iter().filter(|unit| unit.is_of(inode)).fold(
            durable,
            |before, unit| match unit {
                Unit::Grown { len, .. } | Unit::Cut { len, .. } => *len,
                _ => before,
            },
        )
    }

    /// How the sync of this moment fails, if it does.
    fn failing_now(&mut self) -> Option<Lost> {
        let (left, lost) = self.failing_sync?;
        self.failing_sync = left.checked_sub(1).map(|left| (left, lost));
        (left == 0).then_some(lost)
    }

    fn content(&mut self, inode: Inode) -> &mut Content {
        self.now.contents.get_mut(&inode).expect("an open file has content")
    }
}

impl ModelledDisk {
    fn holding(durable: Image, now: Image, pending: Vec<Unit>, random: u64) -> Self {
        let inodes = now.contents.keys().chain(durable.contents.keys()).max().map_or(0, |n| n + 1);
        let dirs = now.names.keys().filter_map(|path| path.parent()).map(Path::to_path_buf);
        let dirs = dirs.collect();
        let state = State { durable, now, pending, inodes, random, dirs, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on keeps the moment before each change.
    pub(crate) fn record(&self) {
        self.state.lock().moments = Some(Vec::new());
    }

    /// What was recorded, and this very moment.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        let mut state = self.state.lock();
        state.before_change();
        state.moments.take().unwrap_or_default()
    }

    /// What later moments are to carry.
    pub(crate) fn note(&self, note: usize) {
        self.state.lock().note = note;
    }

    /// Files take up `bytes` at most from now on.
    pub(crate) fn limit(&self, bytes: usize) {
        self.state.lock().capacity = Some(bytes);
    }

    /// Fails the next sync of a file, with what it was to write lost.
    pub(crate) fn fail_next_sync(&self, lost: Lost) {
        self.state.lock().failing_sync = Some((0, lost));
    }

    /// As [`ModelledDisk::fail_next_sync`], for the one that comes after `count` others.
    pub(crate) fn fail_sync_after(&self, count: usize, lost: Lost) {
        self.state.lock().failing_sync = Some((count, lost));
    }

    /// Whether a sync that was to fail has not come yet.
    #[cfg(test)]
    pub(crate) fn is_to_fail(&self) -> bool {
        self.state.lock().failing_sync.is_some()
    }
}

fn not_found(op: &'static str, path: &Path) -> KvsError {
    KvsError::io(op, path, io::Error::from_raw_os_error(libc::ENOENT))
}

fn full(path: &Path) -> KvsError {
    KvsError::io("append to", path, io::Error::from_raw_os_error(libc::ENOSPC))
}

impl Disk for ModelledDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.state.lock().dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        let state = self.state.lock();
        let paths = state.now.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(paths.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.now.names.contains_key(path) {
            let source = io::Error::from_raw_os_error(libc::EEXIST);
            return Err(KvsError::io("create", path, source));
        }
        state.before_change();
        let inode = state.inodes;
        state.inodes += 1;
        state.change(Unit::Linked { path: path.to_path_buf(), inode });
        Ok(Box::new(ModelledFile { disk: self.clone(), inode, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let inode = self.state.lock().now.names.get(path).copied();
        let inode = inode.ok_or_else(|| not_found("open", path))?;
        Ok(Box::new(ModelledFile { disk: self.clone(), inode, path: path.to_path_buf() }))
    }

    fn open_to_read(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state.lock();
        let inode = state.now.names.get(from).copied().ok_or_else(|| not_found("link", from))?;
        state.before_change();
        state.change(Unit::Linked { path: to.to_path_buf(), inode });
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.state.lock().dirs.remove(dir);
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let state = self.state.lock();
        Ok(state.now.names.contains_key(path) || state.dirs.contains(path))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        if !state.now.names.contains_key(path) {
            return Err(not_found("remove", path));
        }
        state.before_change();
        state.change(Unit::Unlinked { path: path.to_path_buf() });
        Ok(())
    }

    /// Only the name and the length are modelled: nobody reads what such a file holds.
    fn hold_space(&self, path: &Path, bytes: u64) -> Result<()> {
        let file = self.create(path)?;
        file.set_len(bytes).inspect_err(|_| self.remove(path).expect("it was just made"))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.before_change();
        state.settle(|unit| unit.is_in(dir));
        Ok(())
    }

    fn lock(&self, path: &Path, _: Duration) -> Result<Box<dyn DirLock>> {
        if !self.state.lock().locks.insert(path.to_path_buf()) {
            return Err(KvsError::Locked { path: path.to_path_buf(), pid: None });
        }
        Ok(Box::new(ModelledLock { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>> {
        self.lock(path, Duration::ZERO).map(Some)
    }

    fn overwrites_in_place(&self, _: &Path) -> bool {
        true
    }

    fn random(&self) -> u64 {
        let mut state = self.state.lock();
        state.random += 1;
        // SplitMix64: the same in every run.
        let mut mixed = state.random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl DiskFile for ModelledFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        let len = self.disk.state.lock().content(self.inode).len;
        Ok(len_of(len))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut state = self.disk.state.lock();
        state.look_at_mapped();
        let content = state.content(self.inode);
        let start = usize::try_from(offset).expect("offsets of tests are small");
        let end = start + buffer.len();
        if end > content.len {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(KvsError::io("read", &self.path, source));
        }
        content.bytes.resize(content.len, 0);
        buffer.copy_from_slice(&content.bytes[start..end]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut state = self.disk.state.lock();
        state.before_change();
        let mut offset = usize::try_from(offset).expect("offsets of tests are small");
        let (inode, wanted) = (self.inode, offset + bytes.len());
        // As much as fits is written, then the disk is full.
        let end = state.room_for(inode, wanted).max(offset);
        let bytes = &bytes[..end - offset];
        let seen = state.content(inode).len;
        if end > state.len_to_be(inode) {
            state.change(Unit::Grown { inode, len: end });
            // Where a failed sync lost the length, programs see more than the disk will have.
            state.content(inode).len = end.max(seen);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = SECTOR_LEN - offset % SECTOR_LEN;
            let (piece, after) = rest.split_at(room.min(rest.len()));
            state.change(Unit::Bytes { inode, offset, bytes: piece.to_vec() });
            offset += piece.len();
            rest = after;
        }
        if end < wanted { Err(full(&self.path)) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state.lock();
        state.before_change();
        let len = usize::try_from(len).expect("lengths of tests are small");
        if state.room_for(self.inode, len) < len {
            return Err(full(&self.path));
        }
        state.change(Unit::Cut { inode: self.inode, len });
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.state.lock();
        state.before_change();
        let inode = self.inode;
        if let Some(lost) = state.failing_now() {
            state.pending.retain(|unit| !unit.is_of(inode));
            if lost == Lost::Seen {
                let before = state.durable.contents.get(&inode).cloned().unwrap_or_default();
                let len = state.content(inode).len;
                *state.content(inode) = Content { len, ..before };
                state.content(inode).bytes.resize(len, 0);
            }
            let source = io::Error::from_raw_os_error(libc::EIO);
            return Err(KvsError::io("sync", &self.path, source));
        }
        state.settle(|unit| unit.is_of(inode));
        Ok(())
    }

    fn map(&self, _: usize) -> Result<Mapping> {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        Err(KvsError::io("map", &self.path, source))
    }

    fn map_shared(&self, len: usize) -> Result<Words> {
        let mut state = self.disk.state.lock();
        state.look_at_mapped();
        let content = state.content(self.inode);
        content.bytes.resize(content.len, 0);
        let words = content.bytes[..len].chunks_exact(8);
        let words = words.map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().unwrap())));
        let words: Arc<[AtomicU64]> = words.collect();
        state.mapped.insert(self.inode, Arc::clone(&words));
        Ok(Words(SharedMemory::Modelled(words)))
    }
}
