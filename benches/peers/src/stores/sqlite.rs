//! SQLite through rusqlite, which builds it from its own copy of the source.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension};

use super::Entry;
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "sqlite",
        settings: "WAL, synchronous OFF (FULL if synced), WITHOUT ROWID, prepared statements, \
                   mmap 16 GiB, page cache 16 MB, one connection that writes and one a reader",
        ordered: true,
        only: None,
        tenfold: false,
        version: || rusqlite::version().to_owned(),
        open,
    }]
}

const SET: &str = "INSERT OR REPLACE INTO pairs VALUES (?1, ?2)";

fn connect(path: &Path, durability: Durability) -> Result<Connection> {
    let synchronous = if durability == Durability::Sync { "FULL" } else { "OFF" };
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA cache_size = -16000;
         PRAGMA mmap_size = 17179869184;
         PRAGMA temp_store = MEMORY;
         PRAGMA busy_timeout = 60000;"
    ))?;
    Ok(connection)
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let path = options.dir.join("peers.sqlite");
    let writer = connect(&path, options.durability)?;
    writer.execute_batch(
        "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
    )?;
    Ok(Box::new(Sqlite { path, durability: options.durability, writer: Mutex::new(writer) }))
}

struct Sqlite {
    path: PathBuf,
    durability: Durability,
    /// Writers take turns here, where that costs less than SQLite's own busy waiting.
    writer: Mutex<Connection>,
}

impl Sqlite {
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().expect("no thread panics while it writes")
    }
}

impl Store for Sqlite {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let reader = connect(&self.path, self.durability)?;
        Ok(Box::new(SqliteSession { store: self, reader }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let writer = self.writer.into_inner().expect("no thread panics while it writes");
        writer.close().map_err(|(_, error)| error.into())
    }
}

struct SqliteSession<'a> {
    store: &'a Sqlite,
    reader: Connection,
}

impl Session for SqliteSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.store.writer().prepare_cached(SET)?.execute((key, value))?;
        Ok(())
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut writer = self.store.writer();
        let writing = writer.transaction()?;
        {
            let mut set = writing.prepare_cached(SET)?;
            for pair in pairs {
                set.execute((pair.key, &pair.value))?;
            }
        }
        Ok(writing.commit()?)
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut select = self.reader.prepare_cached("SELECT value FROM pairs WHERE key = ?1")?;
        let seen = select.query_row((key,), |row| {
            see(row.get_ref(0)?.as_blob()?);
            Ok(())
        });
        Ok(seen.optional()?.is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        self.store.writer().prepare_cached("DELETE FROM pairs WHERE key = ?1")?.execute((key,))?;
        Ok(())
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut select = self.reader.prepare_cached("SELECT key, value FROM pairs ORDER BY key")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            see(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        }
        Ok(())
    }
}
