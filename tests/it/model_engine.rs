//! The contract in its plainest form: a `BTreeMap` behind a lock. What the suite asks of the
//! engines it must ask of this one too, so a promise that nobody could keep shows here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kvs::options::{BATCH_BYTES_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use kvs::{
    BatchOp, Entries, KvsEngine, KvsError, Result, Scan, Update, Value, WriteBatch, WriteOptions,
};
use parking_lot::{Mutex, RwLock};

pub(crate) type Map = BTreeMap<Vec<u8>, Held>;

/// What a key holds. One that has expired may stay in the map; nobody is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) value: Vec<u8>,
    pub(crate) expiry_ms: Option<u64>,
}

impl Held {
    pub(crate) fn is_there(&self) -> bool {
        self.expiry_ms.is_none_or(|expiry_ms| now_ms() < expiry_ms)
    }
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// What `key` holds, if it is there.
pub(crate) fn held<'a>(map: &'a Map, key: &[u8]) -> Option<&'a Held> {
    map.get(key).filter(|held| held.is_there())
}

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

    fn put(&self, key: &[u8], value: &[u8], expiry_ms: Option<u64>) -> Result<()> {
        check_lengths(key, value)?;
        let held = Held { value: value.to_vec(), expiry_ms };
        self.write(|map| drop(map.insert(key.to_vec(), held)))
    }

    fn write<R>(&self, write: impl FnOnce(&mut Map) -> R) -> Result<R> {
        self.shared.map.write().as_mut().map(write).ok_or(KvsError::Closed)
    }
}

impl KvsEngine for ModelEngine {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, value, None)
    }

    fn set_with_expiry(&self, key: &[u8], value: &[u8], expiry_ms: u64) -> Result<()> {
        self.put(key, value, Some(expiry_ms))
    }

    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.read(|map| held(map, key).map(|held| read(&held.value)))
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.get_with_expiry(key)?.map(|(value, _)| value))
    }

    fn get_with_expiry(&self, key: &[u8]) -> Result<Option<(Value, Option<u64>)>> {
        let found = |held: &Held| (held.value.clone().into(), held.expiry_ms);
        self.read(|map| held(map, key).map(found))
    }

    fn set_expiry(&self, key: &[u8], expiry_ms: Option<u64>) -> Result<Option<u64>> {
        self.write(|map| {
            let held = map.get_mut(key).filter(|held| held.is_there());
            let held = held.ok_or(KvsError::KeyNotFound)?;
            Ok(std::mem::replace(&mut held.expiry_ms, expiry_ms))
        })?
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        let remove = |map: &mut Map| map.remove(key).filter(Held::is_there);
        self.write(remove)?.map(drop).ok_or(KvsError::KeyNotFound)
    }

    fn clear(&self) -> Result<()> {
        self.write(Map::clear)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        check_lengths(key, b"")?;
        loop {
            let old = self.read(|map| held(map, key).cloned())?;
            let new = match change(old.as_ref().map(|old| &*old.value)) {
                Update::Keep => return Ok(()),
                Update::Remove => None,
                Update::Set(value) => {
                    Some(Held { value, expiry_ms: old.as_ref().and_then(|old| old.expiry_ms) })
                }
                Update::SetWithExpiry { value, expiry_ms } => Some(Held { value, expiry_ms }),
            };
            check_lengths(key, new.as_ref().map_or(&[][..], |new| &new.value))?;
            let done = self.write(|map| {
                let same = held(map, key) == old.as_ref();
                if same {
                    match new {
                        Some(new) => drop(map.insert(key.to_vec(), new)),
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
                BatchOp::Set { key, value, .. } => {
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
        let entry = |(key, held): (&Vec<u8>, &Held)| {
            let value =
                || if scan.is_keys_only() { Value::default() } else { held.value.clone().into() };
            held.is_there().then(|| (key.clone(), value()))
        };
        let in_range = |map: &Map| {
            if scan.is_empty() {
                return Vec::new();
            }
            map.range::<[u8], _>(scan.bounds()).filter_map(entry).collect()
        };
        let mut found: Vec<_> = self.read(in_range)?;
        if scan.is_reverse() {
            found.reverse();
        }
        let store = self.clone();
        Ok(Entries::new(found.into_iter().map(move |entry| store.read(|_| entry))))
    }

    fn len(&self) -> Result<u64> {
        let count = |map: &Map| map.values().filter(|held| held.is_there()).count();
        self.read(|map| count(map).try_into().unwrap())
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

/// What a batch does to a map; the model test uses it too. The last operation on a key counts; one
/// that removes what has expired has no effect.
pub(crate) fn apply(map: &mut Map, batch: &WriteBatch) {
    let mut seen = BTreeSet::new();
    for op in batch.ops().rev() {
        match op {
            BatchOp::Set { key, value, expiry_ms } => {
                if seen.insert(key) {
                    map.insert(key.to_vec(), Held { value: value.to_vec(), expiry_ms });
                }
            }
            BatchOp::Remove { key } => {
                if seen.insert(key) && held(map, key).is_some() {
                    map.remove(key);
                }
            }
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
