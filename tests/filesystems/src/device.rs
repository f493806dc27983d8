//! A file system of two kinds of files, for loop devices to stand on.
//!
//! ```text
//! disk          what is written to it is recorded, with every flush
//! replay-N      the disk as a loss of power left it; what is written to it is forgotten
//! ```

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::image::{Interval, Note, Pages};

/// The least that mkfs.xfs makes (300 MiB), and some. Only what is written takes memory.
const DISK_BYTES: u64 = 320 << 20;

const DISK: INodeNo = INodeNo(2);
const REPLAY: INodeNo = INodeNo(3);
/// Nothing is kept by the kernel: each replay is another disk.
const TTL: Duration = Duration::ZERO;

#[derive(Default)]
struct State {
    /// The disk as it is, or, while losses of power are tried, as it was at some flush.
    disk: Pages,
    /// What a replay has beyond `disk`.
    replay: Pages,
    is_recording: bool,
    intervals: Vec<Interval>,
    /// Since the last flush.
    open: Interval,
    note: Note,
}

/// What the kernel does to the files, and what the test asks about it.
#[derive(Clone, Default)]
pub(crate) struct Device {
    state: Arc<Mutex<State>>,
}

/// The mounted device; unmounted when it is dropped.
pub(crate) struct Mounted {
    pub(crate) device: Device,
    dir: PathBuf,
    _session: BackgroundSession,
}

impl Mounted {
    pub(crate) fn on(dir: &Path) -> std::io::Result<Self> {
        let device = Device::default();
        let session = fuser::spawn_mount(device.clone(), dir, &Config::default())?;
        Ok(Self { device, dir: dir.to_path_buf(), _session: session })
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    pub(crate) fn replay(&self, number: usize) -> PathBuf {
        self.dir.join(format!("replay-{number}"))
    }
}

impl Device {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// An empty disk.
    pub(crate) fn clear(&self) {
        self.with(|state| *state = State::default());
    }

    /// From now on keeps what is written. Returns a copy of the disk, which is taken for durable.
    pub(crate) fn record(&self) -> Pages {
        self.with(|state| {
            state.is_recording = true;
            state.disk.clone()
        })
    }

    /// What the writer knows from now on.
    pub(crate) fn note(&self, note: Note) {
        self.with(|state| state.note = note);
    }

    pub(crate) fn flush_count(&self) -> usize {
        self.with(|state| state.intervals.len())
    }

    /// What was recorded, flush by flush.
    pub(crate) fn take(&self) -> Vec<Interval> {
        self.with(|state| {
            state.is_recording = false;
            std::mem::take(&mut state.intervals)
        })
    }

    /// Makes the disk another one: the image that losses of power are tried on.
    pub(crate) fn put(&self, disk: Pages) {
        self.with(|state| state.disk = disk);
    }

    /// The disk moves on by all of `interval`.
    pub(crate) fn advance(&self, interval: &Interval) {
        self.with(|state| interval.apply_all(&mut state.disk));
    }

    /// The next replay is of the disk and those sectors of `interval` that `keeps` says.
    pub(crate) fn lose_power(&self, interval: &Interval, keeps: impl FnMut() -> bool) {
        self.with(|state| {
            state.replay.clear();
            interval.apply(&mut state.replay, &state.disk, keeps);
        });
    }
}

fn attributes(ino: INodeNo) -> FileAttr {
    let is_root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if is_root { 0 } else { DISK_BYTES },
        blocks: DISK_BYTES / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_root { FileType::Directory } else { FileType::RegularFile },
        perm: if is_root { 0o700 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Device {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_str().unwrap_or_default();
        let number = name.strip_prefix("replay-").and_then(|number| number.parse::<u64>().ok());
        match (name, number) {
            ("disk", _) => reply.entry(&TTL, &attributes(DISK), Generation(0)),
            // Another inode each: the kernel must not mistake one for the one before.
            (_, Some(number)) => {
                reply.entry(&TTL, &attributes(INodeNo(REPLAY.0 + number)), Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Every write comes here at once, and in its order.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = DISK_BYTES.saturating_sub(offset).min(u64::from(size)) as usize;
        let nothing = Pages::default();
        let bytes = self.with(|state| match ino {
            DISK => state.disk.read_over(offset, len, &nothing),
            _ => state.replay.read_over(offset, len, &state.disk),
        });
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.with(|state| match ino {
            DISK => {
                state.disk.write(offset, bytes);
                if state.is_recording {
                    state.open.writes.push((offset, bytes.to_vec()));
                }
            }
            _ => state.replay.write_over(offset, bytes, &state.disk),
        });
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.with(|state| {
            if ino == DISK && state.is_recording {
                let note = state.note;
                let closed = std::mem::take(&mut state.open);
                state.intervals.push(Interval { note, ..closed });
            }
        });
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
