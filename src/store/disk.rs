//! The only door to the operating system: files, directories, the lock, mappings.
//!
//! [`Disk`] and [`DiskFile`] are what the rest of the store sees, so that a disk that counts,
//! fails or loses power can stand in for the real one. Every error says what was tried and on
//! which path.
//!
//! A file can be mapped in two ways: for reading ([`Mapping`]), more than it has if need be, since
//! log files grow beneath their mapping; and for writing ([`Words`]), which only the tail is. A
//! foreign program that truncates our files while they are mapped is outside the contract;
//! `ReadMode::Positioned` and `WriteMode::Direct` do without mappings.
//!
//! This file interprets no bytes and knows no names.
#![expect(unsafe_code, reason = "mapped files; asking what file system it is")]

#[cfg(test)]
pub(super) mod counting;
#[cfg(test)]
pub(super) mod failing;
#[cfg(any(test, loom, shuttle, fuzzing))]
#[cfg_attr(not(test), allow(dead_code, reason = "models and fuzzers lose power in fewer ways"))]
pub(crate) mod modelled;

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io, mem, slice, thread};

use memmap2::{MmapOptions, MmapRaw};

use crate::error::{KvsError, Result, is_absence};
use crate::store::location::len_of;
#[cfg(any(test, loom, shuttle, fuzzing))]
use crate::sync::Arc;
use crate::sync::AtomicU64;

/// A file system, as far as the store needs one.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Creates `dir` and its parents, and makes the new entries durable.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// Names in `dir`.
    fn list(&self, dir: &Path) -> Result<Vec<std::ffi::OsString>>;
    /// Creates a file that must not exist yet.
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>>;
    /// Opens a file for reading only, so that one that may not be written can be read too.
    fn open_to_read(&self, path: &Path) -> Result<Box<dyn DiskFile>>;
    /// Gives the file `from` the second name `to`, which must not exist yet.
    fn link(&self, from: &Path, to: &Path) -> Result<()>;
    /// Whether something is there. What cannot be looked at is an error: taken for missing, it
    /// would be done without.
    fn exists(&self, path: &Path) -> Result<bool>;
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes `dir`, which is empty.
    fn remove_dir(&self, dir: &Path) -> Result<()>;
    /// Creates a file that takes up `bytes` of room and holds nothing.
    fn hold_space(&self, path: &Path, bytes: u64) -> Result<()>;
    /// Makes the entries of `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Takes the lock at `path`, or says who has it.
    fn lock(&self, path: &Path, timeout: Duration) -> Result<Box<dyn DirLock>>;
    /// Keeps writers out, beside others who do the same, without writing anything; `None` if there
    /// is no file at `path`, and so nobody who could write.
    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>>;
    /// Whether bytes of a file in `dir` that are written again take the place of the old ones: then
    /// writing to them, also through a mapping, needs no room and cannot meet a full disk.
    fn overwrites_in_place(&self, dir: &Path) -> bool;
    /// A number nobody can guess.
    fn random(&self) -> u64;
}

/// An open file. All methods may be called from any thread.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync {
    fn path(&self) -> &Path;
    fn len(&self) -> Result<u64>;
    /// Fills `buffer` from `offset`; a file that ends before is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    fn set_len(&self, len: u64) -> Result<()>;
    /// Makes the content and the length durable (`fdatasync`).
    fn sync(&self) -> Result<()>;
    /// Maps the first `capacity` bytes for reading, more than the file has if need be.
    fn map(&self, capacity: usize) -> Result<Mapping>;
    /// Maps the first `len` bytes, all of which the file has, for reading and writing. What is
    /// written there is in the file at once, for whoever reads it, also if this process is killed.
    fn map_shared(&self, len: usize) -> Result<Words>;
}

/// Lets go of the lock when dropped.
pub(crate) trait DirLock: fmt::Debug + Send + Sync {}

/// The disk of this machine.
#[derive(Debug)]
pub(crate) struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

/// The lock belongs to what was opened, so it is let go when that is closed everywhere, also by
/// death. A process that was forked off has it open too, if only until it starts another program.
#[derive(Debug)]
struct RealLock {
    file: File,
    /// Who took it.
    pid: u32,
}

impl RealLock {
    fn boxed(file: File) -> Box<dyn DirLock> {
        Box::new(Self { file, pid: std::process::id() })
    }
}

impl DirLock for RealLock {}

impl Drop for RealLock {
    /// Lets go of it for all who have it open, unless this is one who was forked off.
    fn drop(&mut self) {
        if self.pid == std::process::id()
            && let Err(error) = self.file.unlock()
        {
            log::warn!("a lock is let go by closing it: {error}");
        }
    }
}

/// File systems that overwrite in place, by the number that `statfs` gives: ext2, ext3 and ext4;
/// xfs; tmpfs. Those that write elsewhere instead (btrfs, ZFS, f2fs), or that keep files elsewhere
/// (NFS, FUSE), are not among them, nor is any that nobody has tried.
#[cfg(target_os = "linux")]
const IN_PLACE_FILE_SYSTEMS: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// How often a held lock is tried again while a timeout runs.
const LOCK_RETRY: Duration = Duration::from_millis(2);

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut missing = Vec::new();
        for parent in dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty()) {
            match parent.metadata() {
                Ok(found) if found.is_dir() => break,
                Ok(_) => return Err(KvsError::NotADirectory { path: dir.to_path_buf() }),
                Err(error) if is_absence(&error) => missing.push(parent),
                Err(source) => return Err(KvsError::io("look at", parent, source)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(dir).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                KvsError::NotADirectory { path: dir.to_path_buf() }
            }
            _ => KvsError::io("create", dir, source),
        })?;
        for created in missing {
            let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<std::ffi::OsString>> {
        let failed = |source| KvsError::io("list", dir, source);
        fs::read_dir(dir)
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
            .collect()
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        Ok(RealFile::boxed(file.map_err(|source| KvsError::io("create", path, source))?, path))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let file = File::options().read(true).write(true).open(path);
        Ok(RealFile::boxed(file.map_err(|source| KvsError::io("open", path, source))?, path))
    }

    fn open_to_read(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let file = File::open(path).map_err(|source| KvsError::io("open", path, source))?;
        Ok(RealFile::boxed(file, path))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to).map_err(|source| KvsError::io("link", to, source))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        match path.metadata() {
            Err(error) if is_absence(&error) => Ok(false),
            looked => looked.map(|_| true).map_err(|source| KvsError::io("look at", path, source)),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|source| KvsError::io("remove", path, source))
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        fs::remove_dir(dir).map_err(|source| KvsError::io("remove", dir, source))
    }

    fn hold_space(&self, path: &Path, bytes: u64) -> Result<()> {
        let file = self.create(path)?;
        let zeros = [0; 1 << 12];
        // Written, not only made longer: a hole takes up nothing.
        let filled = (0..bytes).step_by(zeros.len()).try_for_each(|offset| {
            let left = usize::try_from(bytes - offset).unwrap_or(zeros.len());
            file.write_at(zeros.get(..left).unwrap_or(&zeros), offset)
        });
        filled.inspect_err(|_| {
            if let Err(error) = self.remove(path) {
                log::warn!("an unfinished file stays: {error}");
            }
        })
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| KvsError::io("sync", dir, source))
    }

    fn lock(&self, path: &Path, timeout: Duration) -> Result<Box<dyn DirLock>> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|source| KvsError::io("open", path, source))?;
        let deadline = Instant::now() + timeout;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(LOCK_RETRY);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let dir = path.parent().unwrap_or(path).to_path_buf();
                    return Err(KvsError::Locked { path: dir, pid: holder(&file) });
                }
                Err(fs::TryLockError::Error(source)) => {
                    return Err(KvsError::io("lock", path, source));
                }
            }
        }
        // The content is for people and error messages; the lock itself is the kernel's.
        let pid = format!("{}\n", std::process::id());
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0)) {
            // A store on a full disk opens.
            log::warn!("{} does not say who holds it: {error}", path.display());
        }
        Ok(RealLock::boxed(file))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| KvsError::io("open", path, source))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(RealLock::boxed(file))),
            Err(fs::TryLockError::WouldBlock) => {
                let dir = path.parent().unwrap_or(path).to_path_buf();
                Err(KvsError::Locked { path: dir, pid: holder(&file) })
            }
            Err(fs::TryLockError::Error(source)) => Err(KvsError::io("lock", path, source)),
        }
    }

    #[cfg(target_os = "linux")]
    fn overwrites_in_place(&self, dir: &Path) -> bool {
        use std::os::unix::ffi::OsStrExt;

        let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return false };
        let mut about = mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: `path` ends with a zero byte, and `about` is room for what the call fills in.
        if unsafe { libc::statfs(path.as_ptr(), about.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: the call succeeded, so it filled `about`.
        let kind = unsafe { about.assume_init() }.f_type;
        IN_PLACE_FILE_SYSTEMS.iter().any(|known| u64::try_from(kind) == Ok(*known))
    }

    #[cfg(not(target_os = "linux"))]
    fn overwrites_in_place(&self, _: &Path) -> bool {
        false
    }

    fn random(&self) -> u64 {
        // Keyed from the operating system's random numbers, anew for each state.
        RandomState::new().build_hasher().finish()
    }
}

/// The pid a lock file names, if it does.
fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let len = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..len)?).ok()?.trim().parse().ok()
}

impl RealFile {
    fn boxed(file: File, path: &Path) -> Box<dyn DiskFile> {
        Box::new(Self { file, path: path.to_path_buf() })
    }

    fn failed(&self, op: &'static str) -> impl FnOnce(io::Error) -> KvsError {
        move |source| KvsError::io(op, &self.path, source)
    }
}

impl DiskFile for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(self.failed("look at"))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(self.failed("read"))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(self.failed("append to"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(self.failed("truncate"))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(self.failed("sync"))
    }

    fn map(&self, capacity: usize) -> Result<Mapping> {
        let map = MmapOptions::new().len(capacity).map_raw_read_only(&self.file);
        map.map(Mapping).map_err(self.failed("map"))
    }

    fn map_shared(&self, len: usize) -> Result<Words> {
        // Writing beyond the end of the file would kill the process.
        if self.len()? < len_of(len) {
            return Err(self.failed("map")(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        let map = MmapOptions::new().len(len).map_raw(&self.file);
        map.map(|map| Words(SharedMemory::Mapped(map))).map_err(self.failed("map"))
    }
}

/// A read-only view of a file. What of it may be looked at, whoever mapped it knows.
#[derive(Debug)]
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// The bytes from `from` to `to`.
    ///
    /// # Safety
    ///
    /// 1. `from <= to`, and `to` is within the mapping.
    /// 2. For as long as the slice lives, the file holds those bytes and nobody changes them.
    #[inline]
    pub(crate) unsafe fn slice(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: contract 1: the start is within the mapping.
        let start = unsafe { self.0.as_ptr().add(from) };
        // SAFETY: contract 1: the range is within the mapping, which lives as long as `self`;
        // contract 2: it is readable and does not change.
        unsafe { slice::from_raw_parts(start, to - from) }
    }
}

/// A part of a file as memory, in words of 8 bytes that any thread may read and write.
#[derive(Debug)]
pub(crate) struct Words(SharedMemory);

#[derive(Debug)]
enum SharedMemory {
    Mapped(MmapRaw),
    /// A disk that has no file behind it.
    #[cfg(any(test, loom, shuttle, fuzzing))]
    Modelled(Arc<[AtomicU64]>),
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        match &self.0 {
            SharedMemory::Mapped(map) => {
                #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
                let start = map.as_mut_ptr().cast::<AtomicU64>();
                // SAFETY: the words are aligned; so many whole ones fit into the mapping; it can be
                // read and written as long as `self` lives. Any 8 bytes are an `AtomicU64`, and
                // this process reaches them in no other way.
                unsafe { slice::from_raw_parts(start, map.len() / size_of::<AtomicU64>()) }
            }
            #[cfg(any(test, loom, shuttle, fuzzing))]
            SharedMemory::Modelled(words) => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder_and_the_first_can_be_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = RealDisk.lock(&path, Duration::ZERO).unwrap();
        match RealDisk.lock(&path, Duration::from_millis(5)) {
            Err(KvsError::Locked { path, pid }) => {
                assert_eq!(path, dir.path());
                assert_eq!(pid, Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        RealDisk.lock(&path, Duration::ZERO).unwrap();
    }

    /// While a program starts another one, the child has everything open that its parent has. It is
    /// as if the file had been duplicated.
    #[test]
    fn a_lock_is_let_go_though_a_child_has_it_open_and_not_by_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let taken = || {
            let file = File::options().write(true).create(true).truncate(false).open(&path);
            let file = file.unwrap();
            file.try_lock().unwrap();
            (file.try_clone().unwrap(), file)
        };
        let (copy, file) = taken();
        drop(RealLock::boxed(file));
        RealDisk.lock(&path, Duration::ZERO).unwrap();
        drop(copy);
        let (copy, file) = taken();
        drop(RealLock { file, pid: std::process::id() + 1 });
        let locked = RealDisk.lock(&path, Duration::ZERO);
        assert!(matches!(locked, Err(KvsError::Locked { .. })), "{locked:?}");
        drop(copy);
        RealDisk.lock(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"x").unwrap();
        for path in [path.clone(), path.join("below")] {
            let error = RealDisk.create_dir_all(&path).unwrap_err();
            assert!(matches!(error, KvsError::NotADirectory { .. }), "{error:?}");
        }
    }
}
