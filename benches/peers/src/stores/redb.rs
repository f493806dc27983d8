//! redb.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use redb::{
    Database, Durability as Commit, ReadOnlyTable, ReadableDatabase, ReadableTable, Table,
    TableDefinition,
};

use super::{CACHE_BYTES, Entry, crate_version};
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("peers");

/// Unsynced commits between two synced ones: only a synced commit lets redb reuse the pages that
/// earlier ones replaced.
const COMMITS_PER_SYNC: u64 = 10_000;

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "redb",
        settings: "cache 1 GiB; Durability::None, each 10,000th commit Immediate; Immediate if \
                   synced; a thread keeps its read transaction until it writes",
        ordered: true,
        only: None,
        tenfold: false,
        version: || crate_version("redb"),
        open,
    }]
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let db = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(options.dir.join("peers.redb"))?;
    let synced = options.durability == Durability::Sync;
    let redb = Redb { db, synced, commits: AtomicU64::new(0) };
    redb.write(|_| Ok(()))?;
    Ok(Box::new(redb))
}

struct Redb {
    db: Database,
    synced: bool,
    commits: AtomicU64,
}

impl Redb {
    fn write(&self, change: impl FnOnce(&mut Table<&[u8], &[u8]>) -> Result<()>) -> Result<()> {
        // Relaxed: only how many there were counts.
        let before = self.commits.fetch_add(1, Ordering::Relaxed);
        let is_due = before.is_multiple_of(COMMITS_PER_SYNC);
        let mut writing = self.db.begin_write()?;
        if !self.synced && !is_due {
            writing.set_durability(Commit::None)?;
        }
        change(&mut writing.open_table(TABLE)?)?;
        Ok(writing.commit()?)
    }
}

impl Store for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(RedbSession { store: self, reading: None }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.begin_write()?.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct RedbSession<'a> {
    store: &'a Redb,
    reading: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl RedbSession<'_> {
    fn reading(&mut self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>> {
        if self.reading.is_none() {
            self.reading = Some(self.store.db.begin_read()?.open_table(TABLE)?);
        }
        Ok(self.reading.as_ref().expect("it was just opened"))
    }

    fn write(&mut self, change: impl FnOnce(&mut Table<&[u8], &[u8]>) -> Result<()>) -> Result<()> {
        self.reading = None;
        self.store.write(change)
    }
}

impl Session for RedbSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.write(|table| {
            table.insert(key.as_slice(), value)?;
            Ok(())
        })
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        self.write(|table| {
            for pair in pairs {
                table.insert(pair.key.as_slice(), pair.value.as_slice())?;
            }
            Ok(())
        })
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.reading()?.get(key.as_slice())?;
        Ok(value.map(|value| see(value.value())).is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        self.write(|table| {
            table.remove(key.as_slice())?;
            Ok(())
        })
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for entry in self.reading()?.iter()? {
            let (key, value) = entry?;
            see(key.value(), value.value());
        }
        Ok(())
    }
}
