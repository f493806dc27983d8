//! The only door to the operating system: files, directories, the lock, mappings.
//!
//! [`Disk`] and [`DiskFile`] are what the rest of the store sees, so that a disk that counts,
//! fails or loses power can stand in for the real one. Every error says what was tried and on
//! which path.
//!
//! [`LogFile`] is built on them: a file that only grows, read by anyone, appended by the one holder
//! of its [`LogWriter`].
//!
//! ```text
//!  0                         written            capacity
//!  |  never changes again    |  not there yet   |
//!  +-------------------------+------------------+
//!  mapped read-only, once, when the file is created; the file grows beneath the mapping
//! ```
//!
//! Invariants: bytes below `written` are in the file and never change (invariant 1); readers see
//! only those. Nobody writes through a mapping. A foreign program that truncates our files while
//! they are mapped is outside the contract; `ReadMode::Positioned` turns even that into an error.
//!
//! This file interprets no bytes and knows no names.
#![expect(unsafe_code, reason = "slices of mapped files")]

#[cfg(test)]
pub(super) mod counting;
#[cfg(test)]
pub(super) mod failing;
#[cfg(test)]
pub(super) mod modelled;

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io, slice, thread};

use memmap2::{MmapOptions, MmapRaw};

use crate::error::{KvsError, Result};
use crate::options::ReadMode;
use crate::sync::{Arc, AtomicU64, Ordering};

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
    fn exists(&self, path: &Path) -> bool;
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

#[derive(Debug)]
struct RealLock {
    /// Closing it lets go of the lock, also when the process dies.
    _file: File,
}

impl DirLock for RealLock {}

/// How often a held lock is tried again while a timeout runs.
const LOCK_RETRY: Duration = Duration::from_millis(2);

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let missing: Vec<&Path> = dir
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
            .collect();
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

    fn exists(&self, path: &Path) -> bool {
        path.exists()
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
        Ok(Box::new(RealLock { _file: file }))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| KvsError::io("open", path, source))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(fs::TryLockError::WouldBlock) => {
                let dir = path.parent().unwrap_or(path).to_path_buf();
                Err(KvsError::Locked { path: dir, pid: holder(&file) })
            }
            Err(fs::TryLockError::Error(source)) => Err(KvsError::io("lock", path, source)),
        }
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
}

/// A read-only view of a file. What of it may be looked at, [`LogFile`] knows.
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
    unsafe fn slice(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: contract 1: the start is within the mapping.
        let start = unsafe { self.0.as_ptr().add(from) };
        // SAFETY: contract 1: the range is within the mapping, which lives as long as `self`;
        // contract 2: it is readable and does not change.
        unsafe { slice::from_raw_parts(start, to - from) }
    }
}

/// A file that only grows. Reading takes no lock and, mapped, no system call.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Box<dyn DiskFile>,
    /// `None` for positioned reads.
    mapping: Option<Mapping>,
    /// Bytes below this are in the file and never change.
    written: AtomicU64,
}

/// The right to append to one [`LogFile`]. There is one per file, so bytes that readers see are
/// never written again.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<LogFile>,
}

impl LogFile {
    /// An empty file that will grow to `capacity` bytes at most.
    pub(crate) fn create(
        file: Box<dyn DiskFile>,
        capacity: u64,
        read_mode: ReadMode,
    ) -> (Arc<Self>, LogWriter) {
        let log = Arc::new(Self::new(file, 0, capacity, read_mode));
        (Arc::clone(&log), LogWriter { log })
    }

    /// A file that will not grow any more, up to `len` bytes.
    pub(crate) fn sealed(file: Box<dyn DiskFile>, len: u64, read_mode: ReadMode) -> Self {
        Self::new(file, len, len, read_mode)
    }

    fn new(file: Box<dyn DiskFile>, written: u64, capacity: u64, read_mode: ReadMode) -> Self {
        let mapping = match (read_mode, usize::try_from(capacity)) {
            (ReadMode::Mapped, Ok(capacity)) if capacity > 0 => match file.map(capacity) {
                Ok(mapping) => Some(mapping),
                // Address space or the number of mappings is used up: slower beats refused.
                Err(error) => {
                    log::warn!("reading without a mapping: {error}");
                    None
                }
            },
            _ => None,
        };
        Self { file, mapping, written: AtomicU64::new(written) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// How many bytes readers may look at.
    pub(crate) fn len(&self) -> u64 {
        // Acquire: pairs with the Release in `LogWriter::append`.
        self.written.load(Ordering::Acquire)
    }

    /// Lets readers look at no more than `len` bytes. For a file that another process appends to.
    pub(crate) fn shorten_to(&self, len: u64) {
        // Release: pairs with the Acquire in `len`.
        self.written.fetch_min(len, Ordering::Release);
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// Everything from `offset` on, if the file is mapped and has `offset`.
    #[inline]
    pub(crate) fn mapped_from(&self, offset: u64) -> Option<&[u8]> {
        let mapping = self.mapping.as_ref()?;
        let to = usize::try_from(self.len()).ok()?;
        let from = usize::try_from(offset).ok()?;
        if from > to {
            return None;
        }
        // SAFETY:
        // 1. `from <= to` was checked; `to` is at most what was written, which `append` keeps
        //    within the capacity that was mapped.
        // 2. Bytes below `written` are in the file, which is never truncated below it, and only
        //    the one `LogWriter` writes, never below `written`.
        Some(unsafe { mapping.slice(from, to) })
    }

    /// Whether records are read through the mapping.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    /// Reads up to `len` bytes from `offset` into `buffer`, fewer if the file ends before.
    pub(crate) fn read_into(&self, buffer: &mut Vec<u8>, offset: u64, len: usize) -> Result<()> {
        let left = self.len().saturating_sub(offset);
        let len = usize::try_from(left).map_or(len, |left| left.min(len));
        buffer.resize(len, 0);
        self.file.read_at(buffer, offset)
    }
}

/// How an append failed.
#[derive(Debug)]
pub(crate) struct AppendError {
    pub(crate) error: KvsError,
    /// Whether the file is as it was before. If not, nothing more may be appended to it.
    pub(crate) undone: bool,
}

impl LogWriter {
    /// Appends `bytes` with one write and lets readers see them. On failure the file is cut back
    /// to what it was; nothing was ever visible.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let log = &*self.log;
        // Relaxed: only this writer changes it.
        let start = log.written.load(Ordering::Relaxed);
        let len = u64::try_from(bytes.len()).expect("a buffer length fits 64 bits");
        let end = start + len;
        if let Some(mapping) = &log.mapping {
            let capacity = u64::try_from(mapping.0.len()).expect("a mapping length fits 64 bits");
            assert!(end <= capacity, "the caller keeps within the capacity it asked for");
        }
        if let Err(error) = log.file.write_at(bytes, start) {
            // The cut is made durable: after a power loss, sectors of the failed bytes must not
            // turn up among those that are written over them.
            let undone = log.file.set_len(start).and_then(|()| log.file.sync()).is_ok();
            return Err(AppendError { error, undone });
        }
        // Release: pairs with the Acquire in `LogFile::len`: who sees the length sees the bytes,
        // which the kernel's page cache had before.
        log.written.store(end, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_file(dir: &Path, read_mode: ReadMode) -> (Arc<LogFile>, LogWriter) {
        let file = RealDisk.create(&dir.join("log")).unwrap();
        LogFile::create(file, 1 << 20, read_mode)
    }

    #[test]
    fn readers_see_what_was_appended_and_nothing_beyond() {
        for read_mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let dir = tempfile::tempdir().unwrap();
            let (log, mut writer) = log_file(dir.path(), read_mode);
            writer.append(b"hello ").unwrap();
            writer.append(b"world").unwrap();
            let mut buffer = Vec::new();
            log.read_into(&mut buffer, 6, 100).unwrap();
            assert_eq!(buffer, b"world");
            match read_mode {
                ReadMode::Mapped => {
                    assert_eq!(log.mapped_from(0), Some(&b"hello world"[..]));
                    assert_eq!(log.mapped_from(11), Some(&b""[..]));
                    assert_eq!(log.mapped_from(12), None);
                }
                ReadMode::Positioned => assert_eq!(log.mapped_from(0), None),
            }
        }
    }

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
