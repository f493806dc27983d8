//! A disk that fails when it is told to: the n-th call of some kinds, once or from then on.
//!
//! It stands in front of another disk and answers the chosen calls with an error. A failing write
//! or read may do half of its work before: part of the bytes land, the rest does not. Instead, it
//! can let somebody else do something between two calls. Tests only.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{DirLock, Disk, DiskFile, Mapping, Words};
use crate::error::{KvsError, Result};
use crate::sync::{Arc, Mutex};

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    CreateDir,
    List,
    Create,
    Open,
    Remove,
    SyncDir,
    Lock,
    HoldSpace,
    Exists,
    Len,
    Read,
    Write,
    SetLen,
    Sync,
    Map,
}

/// How chosen calls fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// The error number of the operating system.
    pub(crate) code: i32,
    /// Whether a write or a read does half of its work first.
    pub(crate) half: bool,
    /// Whether every later chosen call fails too.
    pub(crate) sticky: bool,
    pub(crate) chosen: fn(Call) -> bool,
}

#[derive(Debug, Default)]
struct Plan {
    /// How many chosen calls are still to pass, and what happens then.
    fault: Option<(u64, Fault)>,
    /// Calls that failed because they were told to.
    struck: u64,
}

/// What somebody else does between two calls.
struct Act(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an act")
    }
}

/// The disk; clones share the plan.
#[derive(Debug, Clone)]
pub(crate) struct FailingDisk {
    below: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
    /// How many calls are still to pass before it is done.
    act: Arc<Mutex<Option<(u64, Act)>>>,
}

#[derive(Debug)]
struct FailingFile {
    below: Box<dyn DiskFile>,
    disk: FailingDisk,
}

impl FailingDisk {
    pub(crate) fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, plan: Arc::default(), act: Arc::default() }
    }

    /// Lets `pass` chosen calls through and fails the next.
    pub(crate) fn fail_after(&self, pass: u64, fault: Fault) {
        self.plan.lock().fault = Some((pass, fault));
    }

    /// Fails no more calls.
    pub(crate) fn heal(&self) {
        self.plan.lock().fault = None;
    }

    /// Lets `pass` calls through and does `act` before the next.
    pub(crate) fn act_after(&self, pass: u64, act: impl FnOnce() + Send + 'static) {
        *self.act.lock() = Some((pass, Act(Box::new(act))));
    }

    /// Whether there is an act that was not done yet.
    pub(crate) fn has_act(&self) -> bool {
        self.act.lock().is_some()
    }

    fn act(&self) {
        let act = {
            let mut act = self.act.lock();
            match act.as_mut() {
                Some((0, _)) => act.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, act)) = act {
            (act.0)();
        }
    }

    /// Calls that failed because they were told to.
    pub(crate) fn struck(&self) -> u64 {
        self.plan.lock().struck
    }

    /// The fault that is to happen to this call, if one is.
    fn strikes(&self, call: Call) -> Option<Fault> {
        self.act();
        let mut plan = self.plan.lock();
        let (pass, fault) = plan.fault.as_mut().filter(|(_, fault)| (fault.chosen)(call))?;
        if let Some(left) = pass.checked_sub(1) {
            *pass = left;
            return None;
        }
        let fault = *fault;
        if !fault.sticky {
            plan.fault = None;
        }
        plan.struck += 1;
        Some(fault)
    }

    fn check(&self, call: Call, op: &'static str, path: &Path) -> Result<()> {
        self.strikes(call).map_or(Ok(()), |fault| Err(fault.error(op, path)))
    }

    fn wrap(&self, below: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FailingFile { below, disk: self.clone() })
    }
}

impl Fault {
    fn error(&self, op: &'static str, path: &Path) -> KvsError {
        KvsError::io(op, path, io::Error::from_raw_os_error(self.code))
    }
}

impl Disk for FailingDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.check(Call::CreateDir, "create", dir)?;
        self.below.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        self.check(Call::List, "list", dir)?;
        self.below.list(dir)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.check(Call::Create, "create", path)?;
        self.below.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.check(Call::Open, "open", path)?;
        self.below.open(path).map(|file| self.wrap(file))
    }

    fn open_to_read(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.check(Call::Open, "open", path)?;
        self.below.open_to_read(path).map(|file| self.wrap(file))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.check(Call::Create, "link", to)?;
        self.below.link(from, to)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.check(Call::Exists, "look at", path)?;
        self.below.exists(path)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.check(Call::Remove, "remove", dir)?;
        self.below.remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.check(Call::Remove, "remove", path)?;
        self.below.remove(path)
    }

    fn hold_space(&self, path: &Path, bytes: u64) -> Result<()> {
        self.check(Call::HoldSpace, "append to", path)?;
        self.below.hold_space(path, bytes)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.check(Call::SyncDir, "sync", dir)?;
        self.below.sync_dir(dir)
    }

    fn lock(&self, path: &Path, timeout: Duration) -> Result<Box<dyn DirLock>> {
        self.check(Call::Lock, "lock", path)?;
        self.below.lock(path, timeout)
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>> {
        self.check(Call::Lock, "lock", path)?;
        self.below.lock_to_read(path)
    }

    fn overwrites_in_place(&self, dir: &Path) -> bool {
        self.below.overwrites_in_place(dir)
    }

    fn random(&self) -> u64 {
        self.below.random()
    }
}

impl DiskFile for FailingFile {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn len(&self) -> Result<u64> {
        self.disk.check(Call::Len, "look at", self.path())?;
        self.below.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let Some(fault) = self.disk.strikes(Call::Read) else {
            return self.below.read_at(buffer, offset);
        };
        if fault.half {
            let (first, _) = buffer.split_at_mut(buffer.len() / 2);
            self.below.read_at(first, offset)?;
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(KvsError::io("read", self.path(), source));
        }
        Err(fault.error("read", self.path()))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let Some(fault) = self.disk.strikes(Call::Write) else {
            return self.below.write_at(bytes, offset);
        };
        if fault.half {
            let (first, _) = bytes.split_at(bytes.len() / 2);
            self.below.write_at(first, offset)?;
        }
        Err(fault.error("append to", self.path()))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.check(Call::SetLen, "truncate", self.path())?;
        self.below.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.disk.check(Call::Sync, "sync", self.path())?;
        self.below.sync()
    }

    fn map(&self, capacity: usize) -> Result<Mapping> {
        self.disk.check(Call::Map, "map", self.path())?;
        self.below.map(capacity)
    }

    fn map_shared(&self, len: usize) -> Result<Words> {
        self.disk.check(Call::Map, "map", self.path())?;
        self.below.map_shared(len)
    }
}
