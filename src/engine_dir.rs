//! Which engine wrote a directory, told from the names of the files in it, and whether it is one.
//!
//! ```text
//! a file MANIFEST-<n>      kvs
//! files db and conf        sled
//! neither                  no store
//! ```
//!
//! Every engine asks before it opens, so that none writes into a directory of another. Nothing is
//! opened, locked or read here, so the answer is that of one moment; any thread may ask. Whether
//! the store is sound is the engine's business.

use std::path::{self, Path, PathBuf};

use crate::error::{KvsError, Result, is_absence};

/// The name of our own engine.
pub(crate) const KVS: &str = "kvs";

/// The name of the engine on sled.
pub(crate) const SLED: &str = "sled";

/// The engine whose files are in `dir`; `None` if there are none, or no directory.
///
/// # Errors
///
/// [`KvsError::Io`] if it cannot be listed: nobody may take it for vacant then.
pub(crate) fn engine_in(dir: &Path) -> Result<Option<&'static str>> {
    let failed = |source| KvsError::io("list", dir, source);
    let entries = match dir.read_dir() {
        Err(error) if is_absence(&error) => return Ok(None),
        listed => listed.map_err(failed)?,
    };
    let mut of_sled = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.file_name().as_encoded_bytes() {
            name if name.starts_with(b"MANIFEST-") => return Ok(Some(KVS)),
            b"db" | b"conf" if entry.file_type().map_err(failed)?.is_file() => of_sled += 1,
            _ => {}
        }
    }
    Ok((of_sled == 2).then_some(SLED))
}

/// `dir` whatever the current directory of the process is later: a store goes on making files, and
/// a program may go elsewhere, as every daemon does.
pub(crate) fn for_good(dir: PathBuf) -> Result<PathBuf> {
    if dir.is_absolute() {
        return Ok(dir);
    }
    path::absolute(&dir).map_err(|error| KvsError::io("find", &dir, error))
}

/// Refuses a path that leads to anything but a directory. A missing one passes: an engine makes it.
#[cfg(any(test, feature = "sled"))]
pub(crate) fn check_is_dir(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(KvsError::NotADirectory { path: path.to_path_buf() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_from_the_files() {
        for (files, expected) in [
            (&[][..], None),
            (&["notes.txt"][..], None),
            (&["db"][..], None),
            (&["conf"][..], None),
            (&["MANIFEST"][..], None),
            (&["MANIFEST-7"][..], Some(KVS)),
            (&["db", "conf"][..], Some(SLED)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for name in files {
                std::fs::write(dir.path().join(name), b"").unwrap();
            }
            assert_eq!(engine_in(dir.path()).unwrap(), expected, "{files:?}");
        }
    }

    #[test]
    fn a_directory_is_meant_from_where_the_process_is_now() {
        let here = std::env::current_dir().unwrap();
        for (given, meant) in [("a/b", here.join("a/b")), (".", here), ("/a//b", "/a//b".into())] {
            assert_eq!(for_good(given.into()).unwrap(), meant, "{given}");
        }
        let refused = for_good(PathBuf::new());
        assert!(matches!(refused, Err(KvsError::Io { .. })), "{refused:?}");
    }

    #[test]
    fn only_what_is_there_and_no_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(check_is_dir(dir.path()).is_ok());
        assert!(check_is_dir(&dir.path().join("missing")).is_ok());
        match check_is_dir(&file) {
            Err(KvsError::NotADirectory { path }) => assert_eq!(path, file),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_that_share_sleds_names_are_no_store() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["db", "conf"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(engine_in(dir.path()).unwrap(), None);
        assert_eq!(engine_in(&dir.path().join("missing")).unwrap(), None);
    }
}
