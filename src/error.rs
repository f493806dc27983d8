//! What can go wrong, as one type.
//!
//! Variants follow what the caller can do about them: fix the call (`KeyTooLong`), take another
//! path (`KeyNotFound`, `Locked`), make room (`NoSpace`), restore a copy (`Corrupt`), reopen
//! (`Poisoned`). Texts carry paths, lengths and offsets, never the bytes of a key or a value, so
//! they can be logged anywhere.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The result of nearly every function of this crate.
pub type Result<T, E = KvsError> = std::result::Result<T, E>;

/// Whether the system says that nothing is there. Below a file there is nothing.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What can go wrong.
///
/// `Display` is one line without a full stop; `source()` leads to the error of the operating
/// system where there is one. The type is `Send + Sync`.
#[derive(Debug)]
#[non_exhaustive]
pub enum KvsError {
    /// The operating system refused `op` on `path`.
    Io {
        /// What was tried: "open", "append to", "sync"...
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk (or a quota) is full. Nothing acknowledged is lost, reads go on, and writes work
    /// again once there is room.
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A network operation failed.
    Net {
        /// What was tried: "connect to", "listen on", "read from"...
        op: &'static str,
        /// The address, as it was given.
        addr: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Bytes in `path` at `offset` contradict themselves. Never reported for the torn tail that a
    /// crash may leave: that one is cut off, kept in `lost+found/`, and counted.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What contradicts what.
        what: &'static str,
    },
    /// The key has `len` bytes and the limit is `max`.
    KeyTooLong {
        /// Length of the key, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The value has `len` bytes and the limit is `max`.
    ValueTooLong {
        /// Length of the value, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The batch takes `len` bytes as records and the limit is `max`.
    BatchTooLong {
        /// Length of the encoded batch, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// `remove` was asked for a key that is not there.
    KeyNotFound,
    /// The key or value is not UTF-8, so the text API cannot return it. The bytes API can.
    NotUtf8 {
        /// "key" or "value".
        what: &'static str,
        /// How many leading bytes are valid UTF-8.
        valid_up_to: usize,
    },
    /// The directory is open already, in this process or another one.
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, if its lock file says so.
        pid: Option<u32>,
    },
    /// The path exists and is not a directory.
    NotADirectory {
        /// The path that was to be opened.
        path: PathBuf,
    },
    /// There is no store in the directory and the options say not to create one.
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is a store in the directory already and the options ask for a new one.
    StoreExists {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is to be filled, and holds something already.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A line of text input cannot be taken. Everything before the batch it would have been in is
    /// in the store.
    BadLine {
        /// The file, if the input is one.
        path: Option<PathBuf>,
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file or directory was written in a format this version does not read.
    UnsupportedFormat {
        /// What holds the format.
        path: PathBuf,
        /// The version or feature bits found; 0 for the logs of the first implementation, which
        /// `import` reads.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// The directory holds a store of another engine.
    WrongEngine {
        /// The directory.
        path: PathBuf,
        /// The engine that wrote it.
        found: &'static str,
        /// The engine that was asked to open it.
        asked: &'static str,
    },
    /// No engine has this name, or this build leaves it out.
    UnknownEngine {
        /// The name that was asked for.
        name: String,
    },
    /// An option has a value that cannot work.
    InvalidOption {
        /// The option.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// The engine cannot do this.
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// The operation.
        what: &'static str,
    },
    /// The store was opened for reading only.
    ReadOnly,
    /// An earlier sync or append failed in a way that leaves unknown which writes are on disk, so
    /// the store takes no more of them. Reads go on. Reopen it: recovery decides what survived.
    Poisoned,
    /// The store has been closed.
    Closed,
    /// The other side broke the protocol.
    Protocol {
        /// What was wrong.
        what: &'static str,
    },
    /// The server answered with an error.
    Server {
        /// The server's own words.
        message: String,
    },
    /// A thread pool or the operating system refused a thread.
    Thread {
        /// What the operating system said.
        source: io::Error,
    },
    /// An engine that is not ours failed in a way it does not explain further.
    Engine {
        /// The engine.
        engine: &'static str,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl KvsError {
    /// Files `source` under what was tried and where; a full disk becomes [`KvsError::NoSpace`].
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, source }
            }
            _ => Self::Io { op, path, source },
        }
    }

    /// A contradiction in `path` at `offset`.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt { path: path.to_path_buf(), offset, what }
    }

    /// The same error for another one who fails for the same reason. Only what an append, a sync or
    /// a damaged record can be is told apart.
    pub(crate) fn for_another(&self) -> Self {
        let copy = |source: &io::Error| match source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(source.kind(), source.to_string()),
        };
        match self {
            Self::Io { op, path, source } => {
                Self::Io { op, path: path.clone(), source: copy(source) }
            }
            Self::NoSpace { path, source } => {
                Self::NoSpace { path: path.clone(), source: copy(source) }
            }
            Self::Corrupt { path, offset, what } => Self::corrupt(path, *offset, what),
            Self::Closed => Self::Closed,
            _ => Self::Poisoned,
        }
    }

    /// The error number of the operating system behind this error, if there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. }
            | Self::NoSpace { source, .. }
            | Self::Net { source, .. }
            | Self::Thread { source } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for KvsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { op, path, source } => {
                write!(f, "cannot {op} {}: {source}", path.display())
            }
            Self::NoSpace { path, source } => {
                write!(f, "no space left to write {}: {source}", path.display())
            }
            Self::Net { op, addr, source } => write!(f, "cannot {op} {addr}: {source}"),
            Self::Corrupt { path, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Self::KeyTooLong { len, max } => {
                write!(f, "key of {len} bytes is over the limit of {max}")
            }
            Self::ValueTooLong { len, max } => {
                write!(f, "value of {len} bytes is over the limit of {max}")
            }
            Self::BatchTooLong { len, max } => {
                write!(f, "batch of {len} bytes is over the limit of {max}; split it")
            }
            // The first implementation's words, which its clients compare.
            Self::KeyNotFound => f.write_str("Key not found"),
            Self::NotUtf8 { what, valid_up_to } => {
                write!(f, "{what} is not UTF-8 after byte {valid_up_to}; use the bytes API")
            }
            Self::Locked { path, pid } => {
                write!(f, "{} is open already", path.display())?;
                pid.map_or(Ok(()), |pid| write!(f, " in process {pid}"))
            }
            Self::NotADirectory { path } => {
                write!(f, "{} is not a directory; a store is one", path.display())
            }
            Self::NoStore { path } => write!(f, "there is no store in {}", path.display()),
            Self::StoreExists { path } => {
                write!(f, "there is a store in {} already", path.display())
            }
            Self::NotEmpty { path } => write!(f, "{} is not empty; name a new one", path.display()),
            Self::BadLine { path, line, what } => fmt_line(f, path.as_deref(), *line, what),
            Self::UnsupportedFormat { path, found: 0, .. } => write!(
                f,
                "{} holds logs of the first implementation; import them into a new store",
                path.display()
            ),
            Self::UnsupportedFormat { path, found, supported } => write!(
                f,
                "{} has format {found} and this version reads up to {supported}; use a newer kvs",
                path.display()
            ),
            Self::WrongEngine { path, found, asked } => write!(
                f,
                "{} was written by engine {found}, not {asked}; open it with {found}",
                path.display()
            ),
            Self::UnknownEngine { name } => {
                write!(f, "no engine is called {name:?}; there are kvs and sled")
            }
            Self::InvalidOption { name, must } => write!(f, "option {name} must be {must}"),
            Self::Unsupported { engine, what } => write!(f, "engine {engine} has no {what}"),
            Self::ReadOnly => f.write_str("the store is open for reading only"),
            Self::Poisoned => {
                f.write_str("the store takes no writes after a failed sync; reopen it")
            }
            Self::Closed => f.write_str("the store is closed"),
            Self::Protocol { what } => write!(f, "protocol error: {what}"),
            Self::Server { message } => f.write_str(message),
            Self::Thread { source } => write!(f, "cannot start a thread: {source}"),
            Self::Engine { engine, source } => write!(f, "engine {engine} failed: {source}"),
        }
    }
}

fn fmt_line(f: &mut fmt::Formatter<'_>, path: Option<&Path>, line: u64, what: &str) -> fmt::Result {
    path.map_or(Ok(()), |path| write!(f, "{}, ", path.display()))?;
    write!(f, "line {line}: {what}")
}

impl std::error::Error for KvsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. }
            | Self::NoSpace { source, .. }
            | Self::Net { source, .. }
            | Self::Thread { source } => Some(source),
            Self::Engine { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that the first clients compare.
    #[test]
    fn key_not_found_keeps_its_words() {
        assert_eq!(KvsError::KeyNotFound.to_string(), "Key not found");
    }

    #[test]
    fn full_disk_has_its_own_variant_and_keeps_the_error_number() {
        let error =
            KvsError::io("append to", Path::new("d/x"), io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(error, KvsError::NoSpace { .. }), "{error:?}");
        assert_eq!(error.os_error(), Some(libc::ENOSPC));
        assert!(error.to_string().contains("d/x"), "{error}");
    }

    #[test]
    fn texts_are_one_line_without_a_full_stop() {
        for error in [
            KvsError::Poisoned,
            KvsError::Closed,
            KvsError::KeyTooLong { len: 70_000, max: 65_535 },
            KvsError::corrupt(Path::new("f"), 8, "header checksum"),
            KvsError::Locked { path: "d".into(), pid: Some(7) },
        ] {
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
        }
    }
}
