//! What can be chosen when a store is opened, and every limit, each with its reason.

use std::time::Duration;

use crate::clock::TimeSource;
use crate::error::{KvsError, Result};
use crate::logger::{LogLevel, Logger};

/// Longest key, in bytes. Fixed by the 2-byte field of a record; longer keys are nearly always a
/// mistake, and every lookup reads the whole key.
pub const KEY_LEN_MAX: usize = 65_535;

/// Longest value, in bytes (1 GiB). A value is checked and copied as a whole, so it must fit in
/// memory comfortably; the 4-byte field of a record would allow more.
pub const VALUE_LEN_MAX: usize = 1 << 30;

/// Most bytes that the records of one batch may take, the largest of them not counted (96 MiB). A
/// batch lies in one segment, and each of its records must begin within [`SEGMENT_BYTES_MAX`].
pub const BATCH_BYTES_MAX: usize = 96 << 20;

/// Smallest segment, in bytes (4 MiB): below it, the cost of a file (two syncs, a mapping) is felt.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// Largest segment, in bytes (128 MiB): a location says an offset in 24 bits of 8-byte units, and
/// larger segments would only make compaction coarser.
pub const SEGMENT_BYTES_MAX: u64 = 128 << 20;

/// Smallest value that `segment_bytes_max` accepts (4 KiB). Tests use it to see many segments.
pub const SEGMENT_BYTES_FLOOR: u64 = 4 << 10;

/// From how much of it being dead on a segment is compacted in the background, in percent, unless
/// `compaction_dead_percent_min` says otherwise: half of what is read is given back, and files take
/// at most twice the live bytes.
pub const COMPACTION_DEAD_PERCENT: u8 = 50;

/// Lowest value that `compaction_dead_percent_min` accepts, in percent: below it, ten bytes are
/// copied for each that is given back.
pub const COMPACTION_DEAD_PERCENT_MIN: u8 = 10;

/// Highest value that `compaction_dead_percent_min` accepts, in percent: files take up to ten times
/// the live bytes then.
pub const COMPACTION_DEAD_PERCENT_MAX: u8 = 90;

/// Refuses a key over [`KEY_LEN_MAX`].
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    let (len, max) = (key.len(), KEY_LEN_MAX);
    if len > max { Err(KvsError::KeyTooLong { len, max }) } else { Ok(()) }
}

/// Refuses a value over [`VALUE_LEN_MAX`].
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    let (len, max) = (value.len(), VALUE_LEN_MAX);
    if len > max { Err(KvsError::ValueTooLong { len, max }) } else { Ok(()) }
}

/// When a write that has returned survives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A returned write survives the death of the process (`kill -9`). When power fails, what the
    /// operating system had not written yet is lost.
    Os,
    /// As `Os`, and power loss costs at most the last of these intervals: a background thread
    /// syncs that often.
    Interval(Duration),
    /// A returned write survives power loss. Writers that wait at the same time share one sync. The
    /// file that is written to is up to 1 MiB longer than what is in it; that part takes no room.
    Sync,
}

impl Default for Durability {
    /// `Interval` of 500 ms.
    fn default() -> Self {
        Self::Interval(Duration::from_millis(500))
    }
}

/// How records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// Through a read-only mapping: fastest, no system call. A disk that fails under a mapped page
    /// kills the process with `SIGBUS`.
    #[default]
    Mapped,
    /// By positioned reads: a failing disk is an error. Several times slower.
    Positioned,
}

/// What stands between a write and the file that it ends up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// A small mapped file, `TAIL`, into which a write is copied without a system call; pieces of
    /// 128 KiB go on from there. What was copied survives `kill -9` like what was written. Used on
    /// ext2, ext3, ext4, xfs and tmpfs; elsewhere, and where every write waits for the disk
    /// ([`Durability::Sync`]), a store writes as in `Direct`.
    #[default]
    Tail,
    /// One system call for each group of writes: slower. For hosts that prefer an error to
    /// `SIGBUS`, should the disk fail under the tail.
    Direct,
}

/// What one write can ask for beyond the store's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Return only when the write survives power loss, whatever the store's [`Durability`].
    pub sync: bool,
}

/// How to open a store.
///
/// ```
/// use kvs::{Durability, KvStore, Options};
///
/// let dir = tempfile::tempdir()?;
/// let options = Options::new().durability(Durability::Sync);
/// let store = KvStore::open_with(dir.path(), options)?;
/// store.set_bytes(b"no", b"Oslo")?;
/// # use kvs::KvsEngine;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) read_mode: ReadMode,
    pub(crate) write_mode: WriteMode,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) lock_timeout: Duration,
    pub(crate) segment_bytes_min: u64,
    pub(crate) segment_bytes_max: u64,
    pub(crate) ordered: bool,
    pub(crate) auto_compaction: bool,
    pub(crate) compaction_bytes_per_second_max: Option<u64>,
    pub(crate) compaction_dead_percent_min: u8,
    pub(crate) logger: Logger,
    /// What expiry is compared with; tests set another one.
    pub(crate) time: TimeSource,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            read_mode: ReadMode::default(),
            write_mode: WriteMode::default(),
            read_only: false,
            create: true,
            exclusive: false,
            lock_timeout: Duration::ZERO,
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            ordered: false,
            auto_compaction: true,
            compaction_bytes_per_second_max: None,
            compaction_dead_percent_min: COMPACTION_DEAD_PERCENT,
            logger: Logger::default(),
            time: TimeSource::default(),
        }
    }
}

impl Options {
    /// The defaults: `Interval` of 500 ms, mapped reads, create if missing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a returned write survives. Default: [`Durability::Interval`] of 500 ms.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How records are read. Default: [`ReadMode::Mapped`].
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.read_mode = read_mode;
        self
    }

    /// What stands between a write and its file. Default: [`WriteMode::Tail`].
    pub fn write_mode(mut self, write_mode: WriteMode) -> Self {
        self.write_mode = write_mode;
        self
    }

    /// Whether to open for reading only: a view of the moment of the open, of a store that another
    /// process may have open for writing; see [`crate::KvsEngine::refresh`]. Nothing is written and
    /// no lock is taken, so it works on a directory that may not be written. Writes are answered
    /// with [`KvsError::ReadOnly`]. Default: no.
    ///
    /// The view holds every write that had reached the operating system, durable or not. It keeps
    /// the files it was made of, so space that compaction gives back meanwhile is free only when
    /// the view is dropped. The `sled` engine cannot be opened so.
    pub fn read_only(mut self, on: bool) -> Self {
        self.read_only = on;
        self
    }

    /// Whether to create a store where there is none; otherwise opening says
    /// [`KvsError::NoStore`]. Default: yes.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to refuse a directory that holds a store already, with
    /// [`KvsError::StoreExists`]. Default: no.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// How long to wait for another opener to let go before saying [`KvsError::Locked`]: the lock
    /// of a killed process can linger for some milliseconds. Default: not at all.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Smallest size at which the active segment is sealed, in bytes. Default:
    /// [`SEGMENT_BYTES_MIN`]. Segments are sealed at the size of the live data, clamped between
    /// this and [`Options::segment_bytes_max`].
    pub fn segment_bytes_min(mut self, bytes: u64) -> Self {
        self.segment_bytes_min = bytes;
        self
    }

    /// Largest size of a segment, in bytes; a single record may be larger and then has a segment
    /// of its own. Default, and most: [`SEGMENT_BYTES_MAX`].
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// Whether to put the keys in order when the store is opened, rather than when the first scan
    /// in order asks for it ([`crate::KvsEngine::scan`]). Default: no.
    ///
    /// Either reads every key once, beside other reads and writes, and from then on costs memory,
    /// each key and about 75 bytes with it, and time for each new and each removed key; overwriting
    /// costs nothing more. A store that nobody scans in order pays nothing.
    /// [`crate::KvsEngine::iter`] needs no order. The `sled` engine is always in order.
    ///
    /// Where very many keys are removed by another thread than added them, glibc's allocator may
    /// join the memory of all of them at once: one write of 200 ms after 700,000 removals. jemalloc
    /// does not, nor does glibc's with `GLIBC_TUNABLES=glibc.malloc.mxfast=0`.
    pub fn ordered(mut self, on: bool) -> Self {
        self.ordered = on;
        self
    }

    /// Whether a background thread gives dead space back. Default: yes. Without it, only
    /// `compact()` does.
    pub fn auto_compaction(mut self, on: bool) -> Self {
        self.auto_compaction = on;
        self
    }

    /// Most bytes that compaction copies per second, on average over each compaction, also over one
    /// that `compact()` asks for: what is left of the disk is for others. Where that is less than
    /// is overwritten, writers come to wait for it. Default: no limit.
    pub fn compaction_bytes_per_second_max(mut self, bytes: Option<u64>) -> Self {
        self.compaction_bytes_per_second_max = bytes;
        self
    }

    /// From how much of it being dead on a segment is compacted in the background, in percent: 10
    /// to 90. Default: [`COMPACTION_DEAD_PERCENT`].
    ///
    /// A trade of space for writing. A segment of which `p` percent are dead costs `100 - p` bytes
    /// of copying for `p` bytes that come back; and files take up to `100 / (100 - p)` times the
    /// live bytes and two segments, which is the bound that writers wait for: at 25 percent 1.3
    /// times, at 50 twice, at 75 four times.
    pub fn compaction_dead_percent_min(mut self, percent: u8) -> Self {
        self.compaction_dead_percent_min = percent;
        self
    }

    /// Gives what the store has to say to `callback` instead of the `log` facade: each message with
    /// its level, one line without its end, that begins with the directory of the store and holds
    /// paths and numbers, never the bytes of a key or a value. What each level is for,
    /// [`LogLevel`] says; the texts may change.
    ///
    /// The store that is opened with these options uses it, and nothing else does: two stores of
    /// one process can be told apart. A program without a `log` implementation hears its store.
    /// What the server, the thread pools and the engine `sled` say goes to the facade all the same,
    /// as do the few words of the operating system's room about files it cannot tidy up.
    ///
    /// The callback is called by whichever thread it happens to, several at once, while that thread
    /// may hold locks of the store: be brief, and wait for nobody who writes. It may read the
    /// store. Writing to it, syncing, compacting and closing it from within are refused with
    /// [`KvsError::Unsupported`], as for every store that has a callback. A panic ends there. A
    /// callback that owns a handle of its own store keeps it open for ever.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use kvs::{KvStore, LogLevel, Options};
    ///
    /// let heard = Arc::new(Mutex::new(Vec::new()));
    /// let log = heard.clone();
    /// let options = Options::new().log_to(move |level, line| {
    ///     if level <= LogLevel::Info {
    ///         log.lock().unwrap().push(line.to_owned());
    ///     }
    /// });
    /// let dir = tempfile::tempdir()?;
    /// drop(KvStore::open_with(dir.path(), options)?);
    /// assert!(heard.lock().unwrap()[0].contains(": opened: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn log_to(mut self, callback: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        self.logger = Logger::to(callback);
        self
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |name, must| Err(KvsError::InvalidOption { name, must });
        if !(SEGMENT_BYTES_FLOOR..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes_max) {
            return invalid("segment_bytes_max", "between 4 KiB and 128 MiB");
        }
        if self.segment_bytes_min > self.segment_bytes_max {
            return invalid("segment_bytes_min", "at most segment_bytes_max");
        }
        if matches!(self.durability, Durability::Interval(every) if every.is_zero()) {
            return invalid("durability", "an interval above zero, or Sync");
        }
        if self.read_only && self.exclusive {
            return invalid("exclusive", "off to open a store for reading only");
        }
        if self.compaction_bytes_per_second_max == Some(0) {
            return invalid("compaction_bytes_per_second_max", "above zero, or none");
        }
        let percents = COMPACTION_DEAD_PERCENT_MIN..=COMPACTION_DEAD_PERCENT_MAX;
        if !percents.contains(&self.compaction_dead_percent_min) {
            return invalid("compaction_dead_percent_min", "between 10 and 90");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        for (name, options) in [
            ("segment_bytes_max", Options::new().segment_bytes_max(SEGMENT_BYTES_FLOOR - 1)),
            ("segment_bytes_max", Options::new().segment_bytes_max(SEGMENT_BYTES_MAX + 1)),
            ("segment_bytes_min", Options::new().segment_bytes_min(SEGMENT_BYTES_MAX + 1)),
            ("durability", Options::new().durability(Durability::Interval(Duration::ZERO))),
            ("exclusive", Options::new().read_only(true).exclusive(true)),
            (
                "compaction_bytes_per_second_max",
                Options::new().compaction_bytes_per_second_max(Some(0)),
            ),
            (
                "compaction_dead_percent_min",
                Options::new().compaction_dead_percent_min(COMPACTION_DEAD_PERCENT_MIN - 1),
            ),
            (
                "compaction_dead_percent_min",
                Options::new().compaction_dead_percent_min(COMPACTION_DEAD_PERCENT_MAX + 1),
            ),
        ] {
            match options.check() {
                Err(KvsError::InvalidOption { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        for percent in [COMPACTION_DEAD_PERCENT_MIN, COMPACTION_DEAD_PERCENT_MAX] {
            Options::new().compaction_dead_percent_min(percent).check().unwrap();
        }
        assert!(
            Options::new()
                .segment_bytes_max(SEGMENT_BYTES_FLOOR)
                .segment_bytes_min(0)
                .check()
                .is_ok()
        );
    }
}
