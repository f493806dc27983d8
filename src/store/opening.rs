//! Opening: how a store comes to be, from a directory to its threads.
//!
//! ```text
//! for writing        lock -> reserve -> recovery -> threads
//! for reading only   view of this moment; no lock, no threads
//! ```

use std::path::PathBuf;
use std::time::Instant;

use crate::error::{KvsError, Result};
use crate::options::{Durability, Options};
use crate::store::compaction::Compactor;
use crate::store::disk::Disk;
use crate::store::loading::Opened;
use crate::store::reserve::Reserve;
use crate::store::stats::{self, Progress};
use crate::store::writer::Writer;
use crate::store::{Core, Handle, Held, KvStore, names, read_only, recovery};
use crate::sync::{self, Arc, AtomicBool, Mutex, Signal};

impl KvStore {
    pub(super) fn open_on(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        mut options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let began = Instant::now();
        options.check()?;
        options.logger = options.logger.for_store(&dir);
        let log = options.logger.clone();
        if options.read_only {
            return Self::view_on(disk, dir, options, began, progress);
        }
        if !options.create && !disk.exists(&dir)? {
            return Err(KvsError::NoStore { path: dir });
        }
        disk.create_dir_all(&dir)?;
        recovery::check_dir(&**disk, &dir, &options)?;
        let lock = disk.lock(&names::lock(&dir), options.lock_timeout)?;
        let reserve = Arc::new(Reserve::new(Arc::clone(disk), &dir, &options));
        if let Err(error) = reserve.hold() {
            log.warn(format_args!("no room for the reserve: {error}"));
        }
        let recovered = match recovery::recover(disk, &dir, &options, &reserve, progress) {
            Err(KvsError::NoSpace { .. }) if reserve.lend() => {
                recovery::recover(disk, &dir, &options, &reserve, progress)
            }
            recovered => recovered,
        }?;
        let held = Held::Lock { _lock: lock };
        Self::start(Core::new(disk, dir, options, recovered, held, began))
    }

    /// A view of the store as it is now; see `read_only`.
    pub(super) fn view_on(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        began: Instant,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        if !disk.exists(&dir)? {
            return Err(KvsError::NoStore { path: dir });
        }
        recovery::check_dir(&**disk, &dir, &options.clone().create(false))?;
        let (view, fingerprint) = read_only::open(disk, &dir, &options, progress)?;
        Self::start(Core::new(disk, dir, options, view, Held::View(fingerprint), began))
    }

    fn start(core: Core) -> Result<Self> {
        let core = Arc::new(core);
        let store = Self { _handle: Arc::new(Handle(Arc::clone(&core))), core };
        store.core.start_threads()?;
        if store.core.options.ordered {
            store.core.put_in_order()?;
        }
        store.core.options.logger.info(format_args!("opened: {}", store.core.what_it_holds()));
        Ok(store)
    }
}

impl Core {
    fn new(
        disk: &Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        opened: Opened,
        held: Held,
        began: Instant,
    ) -> Self {
        let Opened { keydir, segments, manifest, manifest_number, .. } = opened;
        let writer = Writer::new(
            Arc::clone(disk),
            dir.clone(),
            &options,
            Arc::clone(&keydir),
            Arc::clone(&segments),
            opened.seqno,
        );
        let compactor = Compactor::new(
            Arc::clone(disk),
            dir.clone(),
            options.clone(),
            Arc::clone(&keydir),
            Arc::clone(&segments),
            manifest_number,
            manifest,
        );
        Self {
            dir,
            options,
            keydir,
            segments,
            writer,
            compactor,
            tails_cut: opened.tails_cut,
            open_us: stats::micros(began.elapsed()),
            stop: AtomicBool::new(false),
            sync_wanted: Signal::default(),
            background_error: Mutex::new(None),
            threads: Mutex::default(),
            held: Mutex::new(held),
        }
    }

    fn start_threads(self: &Arc<Self>) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        let mut start = |name: &str, body: fn(&Self)| -> Result<()> {
            let core = Arc::clone(self);
            threads.push(sync::spawn(name, move || body(&core))?);
            Ok(())
        };
        match self.options.durability {
            Durability::Interval(_) => start("kvs-sync", Self::sync_at_intervals)?,
            Durability::Sync => start("kvs-commit", |core| core.writer.run_committer())?,
            Durability::Os => {}
        }
        if self.options.auto_compaction {
            start("kvs-compact", Self::compact_in_background)?;
            self.segments.compaction_wanted.raise();
        }
        Ok(())
    }
}
