//! The reserve: a file that is given up when the disk is full.
//!
//! ```text
//! held   RESERVE takes up 256 KiB                    everything works
//!   |    an append, a rotation, a compaction or an open meets a full disk
//!   v
//! lent   no RESERVE; the room is for removes, compaction, closing and opening
//!   |    before the next `set`, and after a compaction, it is made again
//!   v
//! held
//! ```
//! While it is lent, nothing that adds data is taken before the reserve could be made again: so the
//! room it gave cannot be used up by what would fill the disk anew.
//!
//! The file holds zeros and is never synced: nothing but its size counts, and a short one is made
//! anew. Any thread may call; `hold` and `lend` take a lock, `is_lent` does not.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::logger::Logger;
use crate::options::Options;
use crate::store::disk::Disk;
use crate::store::names;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// Most that the reserve takes up (256 KiB): room for some thousand removes, or for the copies of
/// segments of which little is live.
const RESERVE_BYTES_MAX: u64 = 256 << 10;

/// It takes no more than so many of the largest segments: a store of small ones needs less.
const RESERVE_SEGMENTS: u64 = 4;

#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
    log: Logger,
    lent: AtomicBool,
    /// Held while the file is made or removed.
    change: Mutex<()>,
}

impl Reserve {
    /// A reserve in `dir` that counts as lent until [`Reserve::hold`].
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Self {
        let (path, log) = (names::reserve(dir), options.logger.clone());
        let bytes = RESERVE_BYTES_MAX.min(RESERVE_SEGMENTS * options.segment_bytes_max);
        Self { disk, path, bytes, log, lent: AtomicBool::new(true), change: Mutex::new(()) }
    }

    /// What it takes up, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the store's messages go.
    pub(crate) fn log(&self) -> &Logger {
        &self.log
    }

    /// Whether data may be added only after [`Reserve::hold`].
    pub(crate) fn is_lent(&self) -> bool {
        // Relaxed: who sees it late meets the full disk once more.
        self.lent.load(Ordering::Relaxed)
    }

    /// Makes the reserve, unless it is there.
    pub(crate) fn hold(&self) -> Result<()> {
        if !self.is_lent() {
            return Ok(());
        }
        let _change = self.change.lock();
        if self.disk.exists(&self.path)? {
            if self.disk.open(&self.path)?.len()? == self.bytes {
                // Relaxed: as in `is_lent`.
                self.lent.store(false, Ordering::Relaxed);
                return Ok(());
            }
            self.disk.remove(&self.path)?;
        }
        self.disk.hold_space(&self.path, self.bytes)?;
        // Relaxed: as in `is_lent`.
        self.lent.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the room back; false if there was none to give.
    pub(crate) fn lend(&self) -> bool {
        let change = self.change.lock();
        // Relaxed: as in `is_lent`.
        self.lent.store(true, Ordering::Relaxed);
        let given = self.disk.remove(&self.path).is_ok();
        drop(change);
        if given {
            self.log.warn(format_args!("the disk is full: {} is given up", self.path.display()));
        }
        given
    }
}
