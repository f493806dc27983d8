//! LMDB through heed, which builds it from its own copy of the source.

use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use super::Entry;
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};
use crate::workload::Kind;

/// Room in the address space; the file grows as it is written.
const MAP_BYTES: usize = 64 << 30;

pub fn entries() -> Vec<Entry> {
    let plain = Entry {
        name: "lmdb",
        settings: "NOSYNC unless synced; a thread keeps its read transaction until it writes",
        ordered: true,
        only: None,
        tenfold: true,
        version: || {
            let version = heed::lmdb_version();
            format!("{}.{}.{}", version.major, version.minor, version.patch)
        },
        open: |options| open(options, EnvFlags::empty()),
    };
    let mapped = Entry {
        name: "lmdb-writemap",
        settings: "as lmdb, with WRITEMAP, and MAPASYNC unless synced",
        only: Some(&[
            Kind::Fill,
            Kind::FillBatch,
            Kind::FillSync,
            Kind::Mixed { writes_percent: 50 },
            Kind::Overwrite,
            Kind::Delete,
        ]),
        open: |options| {
            let is_lazy = options.durability == Durability::Os;
            let lazily = if is_lazy { EnvFlags::MAP_ASYNC } else { EnvFlags::empty() };
            open(options, EnvFlags::WRITE_MAP | lazily)
        },
        ..plain.clone()
    };
    vec![plain, mapped]
}

fn open(options: &OpenOptions, mut flags: EnvFlags) -> Result<Box<dyn Store>> {
    if options.durability == Durability::Os {
        flags |= EnvFlags::NO_SYNC;
    }
    let mut settings = EnvOpenOptions::new();
    settings.map_size(MAP_BYTES);
    // SAFETY: the flags give up durability at power loss and protection from stray writes, which
    // is what this entry says; none of them gives up locking.
    unsafe { settings.flags(flags) };
    // SAFETY: nobody but this process touches the directory while the benchmark runs.
    let env = unsafe { settings.open(options.dir) }?;
    let lmdb = Lmdb { env };
    lmdb.table().context("cannot create the table")?;
    Ok(Box::new(lmdb))
}

struct Lmdb {
    env: Env,
}

impl Lmdb {
    fn table(&self) -> Result<Database<'_, Bytes, Bytes>> {
        let writing = self.env.write_txn()?;
        let made = self.env.create_databases_and_commit(writing, |opener, writing| {
            opener.create_database(writing, None).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        Ok(made.unwrap_commit())
    }
}

impl Store for Lmdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(LmdbSession { env: &self.env, table: self.table()?, reading: None }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

struct LmdbSession<'a> {
    env: &'a Env,
    table: Database<'a, Bytes, Bytes>,
    /// Kept from one read to the next: the advice of LMDB's manual. It ends when this thread
    /// writes, because it would not see the write and would keep replaced pages from reuse.
    reading: Option<RoTxn<'a, WithTls>>,
}

impl<'a> LmdbSession<'a> {
    fn reading(&mut self) -> Result<&RoTxn<'a, WithTls>> {
        if self.reading.is_none() {
            self.reading = Some(self.env.read_txn()?);
        }
        Ok(self.reading.as_ref().expect("it was just begun"))
    }
}

impl Session for LmdbSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.reading = None;
        let mut writing = self.env.write_txn()?;
        self.table.put(&mut writing, key, value)?;
        Ok(writing.commit()?)
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        self.reading = None;
        let mut writing = self.env.write_txn()?;
        for pair in pairs {
            self.table.put(&mut writing, &pair.key, &pair.value)?;
        }
        Ok(writing.commit()?)
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = self.table;
        Ok(table.get(self.reading()?, key)?.map(see).is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        self.reading = None;
        let mut writing = self.env.write_txn()?;
        self.table.delete(&mut writing, key)?;
        Ok(writing.commit()?)
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let table = self.table;
        for entry in table.iter(self.reading()?)? {
            let (key, value) = entry?;
            see(key, value);
        }
        Ok(())
    }
}
