//! sled, the version that is published as stable.

use anyhow::Result;
use sled::{Batch, Config, Db, Mode};

use super::{CACHE_BYTES, Entry, crate_version};
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};

pub fn entries() -> Vec<Entry> {
    vec![Entry {
        name: "sled",
        settings: "cache 1 GiB, HighThroughput, no timed flush; flush() after each write if synced",
        ordered: true,
        only: None,
        tenfold: true,
        version: || crate_version("sled"),
        open,
    }]
}

fn open(options: &OpenOptions) -> Result<Box<dyn Store>> {
    let db = Config::new()
        .path(options.dir)
        .cache_capacity(CACHE_BYTES.try_into()?)
        .mode(Mode::HighThroughput)
        .flush_every_ms(None)
        .open()?;
    Ok(Box::new(Sled { db, synced: options.durability == Durability::Sync }))
}

struct Sled {
    db: Db,
    synced: bool,
}

impl Store for Sled {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(SledSession { db: &self.db, synced: self.synced }))
    }

    fn sync(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

struct SledSession<'a> {
    db: &'a Db,
    synced: bool,
}

impl SledSession<'_> {
    fn sync_if_asked(&self) -> Result<()> {
        if self.synced {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Session for SledSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        self.sync_if_asked()
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        let mut batch = Batch::default();
        for pair in pairs {
            batch.insert(&pair.key, pair.value.as_slice());
        }
        self.db.apply_batch(batch)?;
        self.sync_if_asked()
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.db.get(key)?.map(|value| see(&value)).is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        self.db.remove(key)?;
        self.sync_if_asked()
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for entry in self.db.iter() {
            let (key, value) = entry?;
            see(&key, &value);
        }
        Ok(())
    }
}
