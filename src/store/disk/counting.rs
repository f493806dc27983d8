//! A disk that counts the syncs that pass, can say which code asked for each, and leave some out.
//!
//! It stands in front of another disk. The same history makes the same syncs in the same order, so
//! what one run has seen is left out of another by number. Tests only.

use std::backtrace::Backtrace;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{DirLock, Disk, DiskFile, Mapping, Words};
use crate::error::{KvsError, Result};
use crate::sync::{Arc, Mutex};

/// A sync that passed: during what, as the test says, and the line that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) during: &'static str,
    /// `store/manifest.rs:122`; empty if nobody looks.
    pub(crate) by: String,
}

#[derive(Debug, Default)]
struct Syncs {
    asked: Vec<Asked>,
    during: &'static str,
    /// Finding out who asks takes some milliseconds each time.
    looks: bool,
    left_out: BTreeSet<usize>,
    /// Whether files have one name only, as on a file system without links.
    has_no_links: bool,
}

/// The disk; clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct CountingDisk {
    below: Arc<dyn Disk>,
    syncs: Arc<Mutex<Syncs>>,
}

#[derive(Debug)]
struct CountingFile {
    below: Box<dyn DiskFile>,
    disk: CountingDisk,
}

impl CountingDisk {
    pub(crate) fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, syncs: Arc::default() }
    }

    /// Finds out who asks, from now on.
    pub(crate) fn look(&self) {
        self.syncs.lock().looks = true;
    }

    /// The syncs of these numbers will not be done.
    pub(crate) fn leave_out(&self, numbers: BTreeSet<usize>) {
        self.syncs.lock().left_out = numbers;
    }

    pub(crate) fn refuse_links(&self) {
        self.syncs.lock().has_no_links = true;
    }

    /// What later syncs are asked for during.
    pub(crate) fn during(&self, what: &'static str) {
        self.syncs.lock().during = what;
    }

    /// All that have passed, in their order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.syncs.lock().asked.clone()
    }

    /// Counts a sync; whether it is to be done.
    fn passes(&self) -> bool {
        let mut syncs = self.syncs.lock();
        let by = if syncs.looks { who_asks() } else { String::new() };
        let during = syncs.during;
        syncs.asked.push(Asked { during, by });
        let number = syncs.asked.len() - 1;
        !syncs.left_out.contains(&number)
    }

    fn wrap(&self, below: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(CountingFile { below, disk: self.clone() })
    }
}

/// The innermost line of the store that is on the way to this call, other than in functions that
/// are called `sync` themselves and only hand it on.
fn who_asks() -> String {
    let trace = Backtrace::force_capture().to_string();
    let mut name = "";
    for line in trace.lines().map(str::trim) {
        let Some(place) = line.strip_prefix("at ") else {
            name = line;
            continue;
        };
        // Newer compilers give what they have inlined its bare name.
        let hands_on = [":sync", ":sync_dir", ": sync", ": sync_dir"];
        let hands_on = hands_on.iter().any(|end| name.ends_with(end));
        let Some((_, place)) = place.split_once("src/store/") else { continue };
        if !hands_on && !place.starts_with("disk/") && !place.starts_with("tests") {
            let (place, _column) = place.rsplit_once(':').unwrap_or((place, ""));
            return format!("store/{place}");
        }
    }
    panic!("no line of the store asks for this sync; were line numbers left out?\n{trace}");
}

impl Disk for CountingDisk {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.below.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        self.below.list(dir)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.below.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.below.open(path).map(|file| self.wrap(file))
    }

    fn open_to_read(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.below.open_to_read(path).map(|file| self.wrap(file))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        if self.syncs.lock().has_no_links {
            let source = io::Error::from_raw_os_error(libc::EXDEV);
            return Err(KvsError::io("link", to, source));
        }
        self.below.link(from, to)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.below.exists(path)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.below.remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.below.remove(path)
    }

    fn hold_space(&self, path: &Path, bytes: u64) -> Result<()> {
        self.below.hold_space(path, bytes)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if self.passes() { self.below.sync_dir(dir) } else { Ok(()) }
    }

    fn lock(&self, path: &Path, timeout: Duration) -> Result<Box<dyn DirLock>> {
        self.below.lock(path, timeout)
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<Box<dyn DirLock>>> {
        self.below.lock_to_read(path)
    }

    fn overwrites_in_place(&self, dir: &Path) -> bool {
        self.below.overwrites_in_place(dir)
    }

    fn random(&self) -> u64 {
        self.below.random()
    }
}

impl DiskFile for CountingFile {
    fn path(&self) -> &Path {
        self.below.path()
    }

    fn len(&self) -> Result<u64> {
        self.below.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.below.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.below.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.below.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        if self.disk.passes() { self.below.sync() } else { Ok(()) }
    }

    fn map(&self, capacity: usize) -> Result<Mapping> {
        self.below.map(capacity)
    }

    fn map_shared(&self, len: usize) -> Result<Words> {
        self.below.map_shared(len)
    }
}
