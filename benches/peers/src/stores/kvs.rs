//! `kvs` through its public API.

use std::ops::ControlFlow;

use anyhow::Result;
use kvs::{
    Durability as KvsDurability, Entries, KvStore, KvsEngine, KvsError, Options, Scan, WriteBatch,
};

use super::{Entry, crate_version};
use crate::store::{Durability, Key, OpenOptions, Pair, Session, Store};
use crate::workload::Kind;

pub fn entries() -> Vec<Entry> {
    let plain = Entry {
        name: "kvs",
        settings: "defaults, but Durability::Os or Sync; every read verifies its checksum; the \
                   first scan puts the keys in order",
        ordered: true,
        only: None,
        tenfold: true,
        version: || crate_version("kvs"),
        open: |options| open(options, false),
    };
    let ordered = Entry {
        name: "kvs-ordered",
        settings: "as kvs, with Options::ordered(true): the order is kept from the start",
        only: Some(&[Kind::Fill, Kind::Reopen, Kind::Scan, Kind::Delete]),
        open: |options| open(options, true),
        ..plain.clone()
    };
    vec![plain, ordered]
}

fn open(options: &OpenOptions, ordered: bool) -> Result<Box<dyn Store>> {
    let durability = match options.durability {
        Durability::Os => KvsDurability::Os,
        Durability::Sync => KvsDurability::Sync,
    };
    let settings = Options::new().durability(durability).ordered(ordered);
    Ok(Box::new(Kvs(KvStore::open_with(options.dir, settings)?)))
}

struct Kvs(KvStore);

impl Store for Kvs {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(KvsSession { store: &self.0, batch: WriteBatch::new() }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.0.sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

struct KvsSession<'a> {
    store: &'a KvStore,
    batch: WriteBatch,
}

impl Session for KvsSession<'_> {
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        Ok(self.store.set_bytes(key, value)?)
    }

    fn set_many(&mut self, pairs: &[Pair]) -> Result<()> {
        self.batch.clear();
        for pair in pairs {
            self.batch.set(&pair.key, &pair.value);
        }
        Ok(self.store.apply(&self.batch)?)
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.store.get_with(key, |value| see(value))?.is_some())
    }

    fn remove(&mut self, key: &Key) -> Result<()> {
        match self.store.remove_bytes(key) {
            Ok(()) | Err(KvsError::KeyNotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        show_all(self.store.scan(Scan::all())?, see)
    }

    fn iterate(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        show_all(self.store.iter()?, see)
    }
}

/// Lent, as the cursors of others lend.
fn show_all(entries: Entries, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
    let all = entries.try_for_each_with(|key, value| {
        see(key, value);
        ControlFlow::<()>::Continue(())
    });
    Ok(all.map(drop)?)
}
