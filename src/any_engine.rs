//! An engine chosen by name when the program runs: what the programs, the C ABI and Python open.
//!
//! ```text
//! AnyEngine::open(dir, None)          what dir holds, else kvs
//! AnyEngine::open(dir, Some(name))    that engine; WrongEngine if dir holds another's store
//! ```
//!
//! There is no logic here beyond that choice: every operation goes to the engine as it came.
//! Usable from any thread, like the engines themselves.

use std::path::{Path, PathBuf};

use crate::engine::{Expiry, KvsEngine, Update};
use crate::engine_dir;
use crate::error::{KvsError, Result};
use crate::options::{Options, WriteOptions};
use crate::scan::{Entries, Scan};
#[cfg(feature = "sled")]
use crate::sled_engine::SledKvsEngine;
pub(crate) use crate::store::Stats;
use crate::store::{KvStore, Progress, VerifyReport};
use crate::value::Value;
use crate::write_batch::{Write, WriteBatch, WriteDone};

/// The engines of this build, by the names that [`AnyEngine::open`] takes; the default comes first.
pub const ENGINE_NAMES: &[&str] = &[
    engine_dir::KVS,
    #[cfg(feature = "sled")]
    engine_dir::SLED,
];

/// A store whose engine was chosen by name.
///
/// ```
/// use kvs::{AnyEngine, KvsEngine, Options};
///
/// let dir = tempfile::tempdir()?;
/// let store = AnyEngine::open(dir.path(), None, Options::new())?;
/// assert_eq!(store.name(), "kvs");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AnyEngine {
    /// Our own engine.
    Kvs(KvStore),
    /// The engine on sled.
    #[cfg(feature = "sled")]
    Sled(SledKvsEngine),
}

impl AnyEngine {
    /// Opens the store in `dir` with the engine of that name, or, given no name, with the engine
    /// that wrote `dir`, and kvs if there is no store yet.
    ///
    /// # Errors
    ///
    /// [`KvsError::UnknownEngine`] for a name that is not in [`ENGINE_NAMES`];
    /// [`KvsError::WrongEngine`] if another engine wrote `dir`, which is left as it is; otherwise
    /// as the engine's own `open_with`.
    pub fn open(dir: impl Into<PathBuf>, engine: Option<&str>, options: Options) -> Result<Self> {
        Self::open_with_progress(dir, engine, options, &mut |_| {})
    }

    /// As [`AnyEngine::open`]; `progress` is called as by [`KvStore::open_with_progress`], and by
    /// the `sled` engine not at all.
    ///
    /// # Errors
    ///
    /// As [`AnyEngine::open`].
    pub fn open_with_progress(
        dir: impl Into<PathBuf>,
        engine: Option<&str>,
        options: Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let dir = dir.into();
        let found = engine_dir::engine_in(&dir)?;
        let wanted = engine.or(found).unwrap_or(engine_dir::KVS);
        let Some(&asked) = ENGINE_NAMES.iter().find(|name| **name == wanted) else {
            return Err(KvsError::UnknownEngine { name: wanted.to_owned() });
        };
        match found {
            Some(found) if found != asked => Err(KvsError::WrongEngine { path: dir, found, asked }),
            #[cfg(feature = "sled")]
            _ if asked == engine_dir::SLED => {
                SledKvsEngine::open_with(dir, options).map(Self::Sled)
            }
            _ => KvStore::open_with_progress(dir, options, progress).map(Self::Kvs),
        }
    }

    /// The name of the engine that wrote the store in `dir`, told from the names of its files;
    /// `None` if there is no store. A name that is not in [`ENGINE_NAMES`] is an engine that this
    /// build leaves out. Nothing is opened or locked.
    ///
    /// # Errors
    ///
    /// [`KvsError::Io`] if a directory is there and cannot be listed.
    pub fn engine_in(dir: impl AsRef<Path>) -> Result<Option<&'static str>> {
        engine_dir::engine_in(dir.as_ref())
    }

    /// Figures about the store; see [`KvStore::stats`].
    ///
    /// # Errors
    ///
    /// [`KvsError::Closed`]; [`KvsError::Unsupported`] if the engine has none.
    pub fn stats(&self) -> Result<Stats> {
        // Says so if the store is closed, which figures alone would not.
        self.len()?;
        match self {
            Self::Kvs(store) => Ok(store.stats()),
            #[cfg(feature = "sled")]
            Self::Sled(_) => self.unsupported("statistics"),
        }
    }

    /// Reads every record and says what is damaged; see [`KvStore::verify`].
    ///
    /// # Errors
    ///
    /// As there; [`KvsError::Unsupported`] if the engine cannot.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.len()?;
        match self {
            Self::Kvs(store) => store.verify(),
            #[cfg(feature = "sled")]
            Self::Sled(_) => self.unsupported("verification"),
        }
    }

    #[cfg(feature = "sled")]
    fn unsupported<T>(&self, what: &'static str) -> Result<T> {
        Err(KvsError::Unsupported { engine: self.name(), what })
    }
}

/// The same expression on whichever engine it is.
macro_rules! on_engine {
    ($any:expr, $engine:ident => $call:expr) => {
        match $any {
            AnyEngine::Kvs($engine) => $call,
            #[cfg(feature = "sled")]
            AnyEngine::Sled($engine) => $call,
        }
    };
}

// What is missing here has a default that comes down to these.
impl KvsEngine for AnyEngine {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        on_engine!(self, engine => engine.set_bytes(key, value))
    }

    fn set_with_expiry(&self, key: &[u8], value: &[u8], expiry_ms: u64) -> Result<()> {
        on_engine!(self, engine => engine.set_with_expiry(key, value, expiry_ms))
    }

    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        on_engine!(self, engine => engine.get_with(key, read))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        on_engine!(self, engine => engine.get_bytes(key))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        on_engine!(self, engine => engine.get_many(keys))
    }

    fn get_many_with(
        &self,
        keys: &[&[u8]],
        read: &mut dyn FnMut(Option<&[u8]>) -> bool,
    ) -> Result<bool> {
        on_engine!(self, engine => engine.get_many_with(keys, read))
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        on_engine!(self, engine => engine.remove_bytes(key))
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        on_engine!(self, engine => engine.update(key, change))
    }

    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()> {
        on_engine!(self, engine => engine.apply_with(batch, options))
    }

    fn scan(&self, scan: Scan) -> Result<Entries> {
        on_engine!(self, engine => engine.scan(scan))
    }

    fn iter(&self) -> Result<Entries> {
        on_engine!(self, engine => engine.iter())
    }

    fn clear(&self) -> Result<()> {
        on_engine!(self, engine => engine.clear())
    }

    fn len(&self) -> Result<u64> {
        on_engine!(self, engine => engine.len())
    }

    fn sync(&self) -> Result<()> {
        on_engine!(self, engine => engine.sync())
    }

    fn compact(&self) -> Result<()> {
        on_engine!(self, engine => engine.compact())
    }

    fn checkpoint(&self, dir: &Path) -> Result<()> {
        on_engine!(self, engine => engine.checkpoint(dir))
    }

    fn refresh(&self) -> Result<Self> {
        match self {
            Self::Kvs(engine) => engine.refresh().map(Self::Kvs),
            #[cfg(feature = "sled")]
            Self::Sled(engine) => engine.refresh().map(Self::Sled),
        }
    }

    fn close(&self) -> Result<()> {
        on_engine!(self, engine => engine.close())
    }

    fn name(&self) -> &'static str {
        on_engine!(self, engine => engine.name())
    }

    fn writes_wait_for_disk(&self) -> bool {
        on_engine!(self, engine => engine.writes_wait_for_disk())
    }

    fn write_then(&self, write: Write, done: WriteDone) {
        on_engine!(self, engine => engine.write_then(write, done));
    }

    fn expiry(&self, key: &[u8]) -> Result<Expiry> {
        on_engine!(self, engine => engine.expiry(key))
    }

    fn get_with_expiry(&self, key: &[u8]) -> Result<Option<(Value, Option<u64>)>> {
        on_engine!(self, engine => engine.get_with_expiry(key))
    }

    fn set_expiry(&self, key: &[u8], expiry_ms: Option<u64>) -> Result<Option<u64>> {
        on_engine!(self, engine => engine.set_expiry(key, expiry_ms))
    }

    fn contains(&self, key: &[u8]) -> Result<bool> {
        on_engine!(self, engine => engine.contains(key))
    }

    fn get_into(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool> {
        on_engine!(self, engine => engine.get_into(key, buffer))
    }
}
