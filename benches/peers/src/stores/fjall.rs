//! fjall.

use anyhow::Result;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{CACHE_BYTES, Entry, crate_version};
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "fjall",
        settings: "cache 1 GiB, no compression, otherwise defaults; persist(SyncData) after each \
                   write if synced",
        ordered: true,
        only: None,
        tenfold: false,
        version: || crate_version("fjall"),
        open,
    }]
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let db = Database::builder(options.dir)
        .cache_size(CACHE_BYTES.try_into()?)
        .journal_compression(CompressionType::None)
        .open()?;
    let keyspace = db.keyspace("peers", || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::disabled())
            .index_block_compression_policy(CompressionPolicy::disabled())
    })?;
    Ok(Box::new(Fjall { db, keyspace, synced: options.durability == Durability::Sync }))
}

struct Fjall {
    db: Database,
    keyspace: Keyspace,
    synced: bool,
}

impl Fjall {
    fn sync_if_asked(&self) -> Result<()> {
        if self.synced {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Store for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(FjallSession(self)))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

struct FjallSession<'a>(&'a Fjall);

impl Session for FjallSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.keyspace.insert(key, value)?;
        self.0.sync_if_asked()
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut batch = self.0.db.batch();
        for pair in pairs {
            batch.insert(&self.0.keyspace, pair.key, pair.value.as_slice());
        }
        batch.commit()?;
        self.0.sync_if_asked()
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.keyspace.get(key)?.map(|value| see(&value)).is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        self.0.keyspace.remove(key.as_slice())?;
        self.0.sync_if_asked()
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for entry in self.0.keyspace.iter() {
            let (key, value) = entry.into_inner()?;
            see(&key, &value);
        }
        Ok(())
    }
}
