//! Files and histories that a fuzzer makes up; see `crate::fuzzing`.
//!
//! Bytes that are made up would fail at the first checksum. So each format has a `mend`, which puts
//! the checksums right, and one bit of an input says whether to do so. Without it the oracle is
//! strict: what was written, a prefix of it where the log ends, or an error. With it the file lies
//! well: nothing may panic, hang, or be a value that was never written.
#![allow(
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a panic is how it fails"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::engine::KvsEngine;
use crate::error::Result;
use crate::options::{Durability, Options};
use crate::scan::Scan;
use crate::store::disk::Disk;
use crate::store::disk::modelled::{ModelledDisk, Moment};
use crate::store::manifest::{self, Manifest};
use crate::store::record::{self, Draft, Record, Salt};
use crate::store::segment::SegmentHeader;
use crate::store::{KvStore, hint as hints, names};
use crate::sync::Arc;
use crate::write_batch::WriteBatch;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

const DIR: &str = "/store";
const COPY_DIR: &str = "/copy";
const KEYS: [&str; 6] = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"];

/// Steps of a history that count; what comes after them is ignored.
const STEPS_MAX: usize = 200;

pub(crate) fn new_disk() -> ModelledDisk {
    let disk = ModelledDisk::default();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk
}

pub(crate) fn open(disk: &ModelledDisk) -> Result<KvStore> {
    open_in(disk, DIR, Durability::Os)
}

fn open_in(disk: &ModelledDisk, dir: &str, durability: Durability) -> Result<KvStore> {
    let options = Options::new().durability(durability).auto_compaction(false);
    let options = options.segment_bytes_min(1 << 10).segment_bytes_max(4 << 10);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    KvStore::open_on(&disk, dir.into(), options, &mut |_| {})
}

fn moment(disk: &ModelledDisk) -> Moment {
    disk.record();
    disk.moments().pop().unwrap()
}

/// What the store holds of `KEYS`, and an error where a key says one.
fn content(store: &KvStore) -> Result<Content> {
    let read = |key: &str| Ok((key.as_bytes().to_vec(), store.get_bytes(key.as_bytes())?));
    let read: Result<Vec<_>> = KEYS.into_iter().map(read).collect();
    let present = read?.into_iter().filter_map(|(key, value)| Some((key, value?.to_vec())));
    Ok(present.collect())
}

/// A store as three kinds of files, and what it held after each write.
struct Examples {
    /// The process was killed.
    killed: Moment,
    /// It was closed, and `COPY_DIR` holds a checkpoint.
    closed: Moment,
    states: Vec<Content>,
}

fn examples() -> &'static Examples {
    static EXAMPLES: OnceLock<Examples> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let disk = new_disk();
        let store = open(&disk).unwrap();
        let mut states = vec![Content::new()];
        for n in 0..24_u8 {
            let key = KEYS[usize::from(n * 5 % 7 % 6)].as_bytes();
            let mut state = states[states.len() - 1].clone();
            if n % 6 == 5 && state.remove(key).is_some() {
                store.remove_bytes(key).unwrap();
            } else {
                let value = vec![n; usize::from(n) * 20];
                store.set_bytes(key, &value).unwrap();
                state.insert(key.to_vec(), value);
            }
            states.push(state);
        }
        let killed = moment(&disk);
        disk.create_dir_all(Path::new(COPY_DIR)).unwrap();
        store.checkpoint(Path::new(COPY_DIR)).unwrap();
        store.close().unwrap();
        Examples { killed, closed: moment(&disk), states }
    })
}

fn files(disk: &ModelledDisk, dir: &str) -> Vec<PathBuf> {
    let mut names = disk.list(Path::new(dir)).unwrap();
    names.sort();
    names.into_iter().map(|name| Path::new(dir).join(name)).collect()
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn read(disk: &ModelledDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(disk: &ModelledDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(bytes, 0).unwrap();
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A place in something of `len` bytes.
fn place(bytes: &[u8], len: usize) -> usize {
    usize::try_from(number(bytes)).unwrap() % (len + 1)
}

/// Checks that no value is found that was never its key's.
fn check_nothing_made_up(store: &KvStore, states: &[Content]) {
    for key in KEYS {
        if let Ok(Some(value)) = store.get_bytes(key.as_bytes()) {
            let was =
                |state: &Content| state.get(key.as_bytes()).is_some_and(|was| **was == *value);
            assert!(states.iter().any(was), "{key} = {value:?} was never written");
        }
    }
}

/// A record: 8 bytes of salt, 8 of offset, and its bytes.
pub fn record(data: &[u8]) {
    let Some((head, bytes)) = data.split_at_checked(16) else { return };
    let (salt, offset) = (Salt(number(&head[..8])), number(&head[8..]) >> 16 << 3);
    check_record(bytes, salt, offset);
    let mut mended = bytes.to_vec();
    record::mend(&mut mended, salt, offset);
    check_record(&mended, salt, offset);
}

/// What can be decoded is within its bytes, and encoded again it decodes to the same.
fn check_record(bytes: &[u8], salt: Salt, offset: u64) {
    let Ok(decoded) = Record::decode(bytes, salt, offset) else { return };
    assert!(decoded.len() <= bytes.len() && decoded.len() % 8 == 0);
    let mut again = Vec::new();
    Draft::copy_of(&decoded).encode(&mut again, offset, salt, decoded.seqno, decoded.place);
    let again = Record::decode(&again, salt, offset).unwrap();
    let parts = |record: &Record<'_>| {
        let (key, value) = (record.key.to_vec(), record.value.to_vec());
        (record.kind, record.seqno, record.place, record.expiry_ms, key, value)
    };
    assert_eq!(parts(&decoded), parts(&again));
}

/// The end of the newest log of a store whose process was killed: a mode, 2 bytes that say from
/// where on, and what is there instead.
pub fn segment(data: &[u8]) {
    let Some((&[mode, at @ ..], tail)) = data.split_first_chunk::<3>() else { return };
    let disk = examples().killed.after_kill();
    let path = files(&disk, DIR).iter().rfind(|path| is_log(path)).unwrap().clone();
    let mut bytes = read(&disk, &path);
    let mut at = place(&at, bytes.len()) / 8 * 8;
    let salt = SegmentHeader::read(&disk, &path).unwrap().unwrap().salt;
    bytes.truncate(at);
    bytes.extend_from_slice(tail);
    if mode % 2 == 0 {
        write(&disk, &path, &bytes);
        let Ok(store) = open(&disk) else { return };
        let found = content(&store).unwrap();
        assert!(examples().states.contains(&found), "no prefix of the writes: {found:?}");
        return;
    }
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let offset = u64::try_from(at).unwrap();
        let Some(len) = record::mend(rest, salt, offset) else { break };
        at += len;
    }
    write(&disk, &path, &bytes);
    // What is made up may be believed; then it is the same at the next open.
    let Ok(store) = open(&disk) else { return };
    let found = content(&store).ok();
    store.close().ok();
    drop(store);
    if let (Some(found), Ok(store)) = (found, open(&disk)) {
        assert_eq!(content(&store).ok(), Some(found), "another open finds something else");
    }
}

/// Bytes over those of a hint: a mode, which hint, 2 bytes that say where, and the bytes.
pub fn hint(data: &[u8]) {
    let Some((&[mode, which, at @ ..], patch)) = data.split_first_chunk::<4>() else { return };
    let disk = examples().closed.after_kill();
    let mut paths = files(&disk, DIR);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hint"));
    let target = &paths[usize::from(which) % paths.len()];
    let mut bytes = read(&disk, target);
    let at = place(&at, bytes.len());
    bytes.truncate(bytes.len().max(at + patch.len()));
    bytes.resize(bytes.len().max(at + patch.len()), 0);
    bytes[at..at + patch.len()].copy_from_slice(patch);
    if mode & 2 != 0 {
        bytes.truncate(at + patch.len());
    }
    if mode % 2 == 1 {
        hints::mend(&mut bytes);
    }
    write(&disk, target, &bytes);
    let store = open(&disk).unwrap();
    if mode % 2 == 1 {
        return check_nothing_made_up(&store, &examples().states);
    }
    assert_eq!(content(&store).unwrap(), examples().states[24], "a damaged hint was believed");
}

/// A manifest: a mode, and what it says.
pub fn manifest(data: &[u8]) {
    let Some((&mode, text)) = data.split_first() else { return };
    let disk = examples().closed.after_kill();
    let names = disk.list(Path::new(DIR)).unwrap();
    let path = names::manifest(Path::new(DIR), Manifest::numbers(&names)[0]);
    let before = read(&disk, &path);
    let is_mended = mode % 2 == 1;
    let bytes = if is_mended { manifest::with_checksum(text) } else { text.to_vec() };
    write(&disk, &path, &bytes);
    let Ok(store) = open(&disk) else { return };
    assert!(is_mended || bytes == before, "a damaged manifest was believed");
    check_nothing_made_up(&store, &examples().states);
}

/// Edits of the files of a checkpoint: for each a file, 2 bytes that say where, what to do, a byte
/// and a length.
pub fn checkpoint(data: &[u8]) {
    let disk = examples().closed.after_kill();
    for edit in data.chunks_exact(6).take(STEPS_MAX) {
        let paths = files(&disk, COPY_DIR);
        let Some(path) = paths.get(usize::from(edit[0]) % paths.len().max(1)) else { return };
        let mut bytes = read(&disk, path);
        let (at, value, len) = (place(&edit[1..3], bytes.len()), edit[4], usize::from(edit[5]));
        let end = (at + len).min(bytes.len());
        match edit[3] % 6 {
            0 => bytes.truncate(at),
            1 => bytes[at..end].fill(value),
            2 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= value),
            3 => bytes.extend(vec![value; len]),
            4 => drop(bytes.drain(at..end)),
            _ => {
                disk.remove(path).unwrap();
                continue;
            }
        }
        write(&disk, path, &bytes);
    }
    let has_segments = files(&disk, COPY_DIR).iter().any(|path| is_log(path));
    let Ok(store) = open_in(&disk, COPY_DIR, Durability::Os) else { return };
    if !has_segments {
        // A manifest that was cut short may be what is left of a store that was just being made.
        return assert!(store.is_empty().unwrap());
    }
    for key in KEYS {
        if let Ok(value) = store.get_bytes(key.as_bytes()) {
            let expected = examples().states[24].get(key.as_bytes());
            assert_eq!(value.as_deref(), expected.map(Vec::as_slice), "{key}");
        }
    }
}

/// A history of a store beside a map that does the same: writes, syncs, compactions, reopenings,
/// kills and losses of power; every second reopening is of one that syncs its writes.
pub fn operations(data: &[u8]) {
    let disk = new_disk();
    let store = open(&disk).unwrap();
    let durability = Durability::Os;
    let mut history = History { disk, store, durability, states: vec![Content::new()], durable: 0 };
    let mut bytes = data.iter().copied();
    for step in 0..STEPS_MAX {
        let Some(op) = bytes.next() else { break };
        let mut next = || bytes.next().unwrap_or(0);
        match op % 12 {
            0..7 => history.write(op % 12, step, &mut next),
            7 => history.store.sync().unwrap(),
            8 => history.store.compact().unwrap(),
            9 => history.store.close().unwrap(),
            10 => history.kill(),
            _ => history.lose_power([next(), next(), next(), next()]),
        }
        if let 7..10 = op % 12 {
            history.durable = history.states.len() - 1;
        }
        if op % 12 == 9 {
            history.durability = match history.durability {
                Durability::Sync => Durability::Os,
                _ => Durability::Sync,
            };
            history.reopen();
        }
    }
    history.check();
}

struct History {
    disk: ModelledDisk,
    store: KvStore,
    /// Another one after each close.
    durability: Durability,
    /// What it held after each write.
    states: Vec<Content>,
    /// Which of these is durable.
    durable: usize,
}

impl History {
    fn now(&self) -> &Content {
        &self.states[self.states.len() - 1]
    }

    fn write(&mut self, op: u8, step: usize, next: &mut dyn FnMut() -> u8) {
        let mut after = self.now().clone();
        match op {
            0..4 => {
                let (key, value) = (key(next()), value(step, next()));
                self.store.set_bytes(key, &value).unwrap();
                after.insert(key.to_vec(), value);
            }
            4 => {
                let key = key(next());
                assert_eq!(self.store.remove_bytes(key).is_ok(), after.remove(key).is_some());
            }
            5 => {
                let mut batch = WriteBatch::new();
                for _ in 0..next() % 5 {
                    let (key, len) = (key(next()), next());
                    if len % 4 == 0 {
                        batch.remove(key);
                        after.remove(key);
                    } else {
                        batch.set(key, &value(step, len));
                        after.insert(key.to_vec(), value(step, len));
                    }
                }
                self.store.apply(&batch).unwrap();
            }
            _ => {
                self.store.clear().unwrap();
                after.clear();
            }
        }
        self.states.push(after);
        if self.durability == Durability::Sync {
            self.durable = self.states.len() - 1;
        }
    }

    fn reopen(&mut self) {
        self.store = open_in(&self.disk, DIR, self.durability).unwrap();
    }

    /// Goes on as a process that finds what another, which was killed, has left.
    fn kill(&mut self) {
        self.disk = moment(&self.disk).after_kill();
        self.reopen();
        assert_eq!(content(&self.store).unwrap(), *self.now(), "a killed process lost something");
    }

    /// The same after a loss of power that took what `masks` does not keep of what was pending.
    fn lose_power(&mut self, masks: [u8; 4]) {
        let keeps = |unit: usize| masks[unit / 8 % 4] >> (unit % 8) & 1 == 1;
        self.disk = moment(&self.disk).after_power_loss(keeps);
        self.reopen();
        let found = content(&self.store).unwrap();
        let kept = self.states[self.durable..].iter().rposition(|state| *state == found);
        let kept = kept.unwrap_or_else(|| panic!("no prefix that was durable: {found:?}"));
        self.states.truncate(self.durable + kept + 1);
    }

    fn check(&self) {
        assert_eq!(content(&self.store).unwrap(), *self.now());
        let len = u64::try_from(self.now().len()).unwrap();
        assert_eq!(self.store.len().unwrap(), len);
        let entries = self.store.scan(Scan::all()).unwrap();
        let entries = entries.map(|entry| entry.map(|(key, value)| (key, value.to_vec())));
        assert_eq!(entries.collect::<Result<Content>>().unwrap(), *self.now());
    }
}

fn key(byte: u8) -> &'static [u8] {
    KEYS[usize::from(byte) % KEYS.len()].as_bytes()
}

/// A value that no other step writes.
fn value(step: usize, len: u8) -> Vec<u8> {
    let mut value = step.to_string().into_bytes();
    value.resize(value.len() + usize::from(len) * 5, b'.');
    value
}
