//! The contract in its plainest form: a `BTreeMap` behind a lock. What the suite asks of the
//! engines it must ask of this one too, so a promise that nobody could keep shows here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvs::options::{BATCH_BYTES_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use kvs::{
    BatchOp, Entries, KvsEngine, KvsError, Result, Scan, Update, Value, WriteBatch, WriteOptions,
};
use parking_lot::{Mutex, RwLock};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the closed stores hold, by directory; `None` while a store is open. Stands for the disk.
static DISK: Mutex<BTreeMap<PathBuf, Option<Map>>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
pub(crate) struct ModelEngine {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    map: RwLock<Option<Map>>,
}

impl ModelEngine {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let dir = dir.to_path_buf();
        let Some(map) = DISK.lock().entry(dir.clone()).or_insert(Some(Map::new())).take() else {
            return Err(KvsError::Locked { path: dir, pid: None });
        };
        Ok(Self { shared: Arc::new(Shared { dir, map: RwLock::new(Some(map)) }) })
    }

    fn read<R>(&self, read: impl FnOnce(&Map) -> R) -> Result<R> {
        self.shared.map.read().as_ref().map(read).ok_or(KvsError::Closed)
    }

    fn write<R>(&self, write: impl FnOnce(&mut Map) -> R) -> Result<R> {
        self.shared.map.write().as_mut().map(write).ok_or(KvsError::Closed)
    }
}

impl KvsEngine for ModelEngine {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        check_lengths(key, value)?;
        self.write(|map| drop(map.insert(key.to_vec(), value.to_vec())))
    }

    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.read(|map| map.get(key).map(|value| read(value)))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        self.read(|map| map.get(key).cloned().map(Value::from))
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        self.write(|map| map.remove(key).map(drop).ok_or(KvsError::KeyNotFound))?
    }

    fn clear(&self) -> Result<()> {
        self.write(Map::clear)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        check_lengths(key, b"")?;
        loop {
            let old = self.read(|map| map.get(key).cloned())?;
            let new = match change(old.as_deref()) {
                Update::Keep => return Ok(()),
                Update::Remove => None,
                Update::Set(value) => Some(value),
            };
            check_lengths(key, new.as_deref().unwrap_or_default())?;
            let done = self.write(|map| {
                let same = map.get(key) == old.as_ref();
                if same {
                    match new {
                        Some(value) => drop(map.insert(key.to_vec(), value)),
                        None => drop(map.remove(key)),
                    }
                }
                same
            })?;
            if done {
                return Ok(());
            }
        }
    }

    fn apply_with(&self, batch: &WriteBatch, _: WriteOptions) -> Result<()> {
        let mut lens = BTreeMap::new();
        for op in batch.ops() {
            match op {
                BatchOp::Set { key, value } => {
                    check_lengths(key, value)?;
                    lens.insert(key, key.len() + value.len());
                }
                BatchOp::Remove { key } => drop(lens.insert(key, key.len())),
                other => panic!("the model does not know {other:?}"),
            }
        }
        let len = lens.values().sum::<usize>() - lens.values().max().unwrap_or(&0);
        if len > BATCH_BYTES_MAX {
            return Err(KvsError::BatchTooLong { len, max: BATCH_BYTES_MAX });
        }
        self.write(|map| apply(map, batch))
    }

    /// All of one moment, which is more than the contract promises.
    fn scan(&self, scan: Scan) -> Result<Entries> {
        let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            let value = if scan.is_keys_only() { Value::default() } else { value.clone().into() };
            (key.clone(), value)
        };
        let in_range = |map: &Map| {
            if scan.is_empty() {
                return Vec::new();
            }
            map.range::<[u8], _>(scan.bounds()).map(entry).collect()
        };
        let mut found: Vec<_> = self.read(in_range)?;
        if scan.is_reverse() {
            found.reverse();
        }
        let store = self.clone();
        Ok(Entries::new(found.into_iter().map(move |entry| store.read(|_| entry))))
    }

    fn len(&self) -> Result<u64> {
        self.read(|map| map.len().try_into().unwrap())
    }

    fn sync(&self) -> Result<()> {
        self.read(|_| ())
    }

    fn compact(&self) -> Result<()> {
        self.read(|_| ())
    }

    fn close(&self) -> Result<()> {
        self.shared.close();
        Ok(())
    }

    fn name(&self) -> &'static str {
        "model"
    }
}

impl Shared {
    fn close(&self) {
        if let Some(map) = self.map.write().take() {
            DISK.lock().insert(self.dir.clone(), Some(map));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a batch does to a map; the model test uses it too.
pub(crate) fn apply(map: &mut Map, batch: &WriteBatch) {
    for op in batch.ops() {
        match op {
            BatchOp::Set { key, value } => drop(map.insert(key.clone(), value.clone())),
            BatchOp::Remove { key } => drop(map.remove(key)),
            other => panic!("the model does not know {other:?}"),
        }
    }
}

fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > KEY_LEN_MAX {
        return Err(KvsError::KeyTooLong { len: key.len(), max: KEY_LEN_MAX });
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(KvsError::ValueTooLong { len: value.len(), max: VALUE_LEN_MAX });
    }
    Ok(())
}
