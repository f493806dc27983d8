//! The keydir: from the hash of a key to the places where its newest record may be.
//!
//! For every key it holds one 8-byte word: 16 bits of the key's hash (the tag) and a location. Not
//! the key, not the value: whoever looks up compares the key in the record, so memory does not
//! depend on the length of keys. It never reads a file.
//!
//! ```text
//! hash, 64 bits:   | shard 8 | home 16 .. | tag 16 | unused 24 |
//!                            '---- 32 bits kept for ever ----'
//!
//! shard -> table -> [ word | word | 0 | word | 1 | word | ... ]      0 empty, 1 deleted
//!                   word = tag 16 | location 48
//! ```
//!
//! A shard is an open-addressing table with linear probing from the key's home slot. The home is
//! `hash32 * capacity / 2^32`, so capacities need not be powers of two. The 16 bits of the hash
//! that are not in the word are kept beside the table, in memory that lookups do not touch: growth
//! needs them and would otherwise have to read every record back.
//!
//! # Concurrency
//!
//! Lookups take no lock: they pin an epoch, load the table and probe it. Changes to one shard are
//! made under that shard's mutex, by the group leader (publish) or by compaction (relocate), and a
//! change is one store to one word. A table that grew is replaced as a whole and freed after its
//! last reader.
//!
//! Invariants:
//! - Between a key's home and its word there is no empty slot, so a probe that meets one may stop.
//! - A word is stored after the record it points at can be read (Release, Acquire).
//! - A lookup that runs beside changes sees each word as it was at some moment during the lookup.
//!   It can miss a key only if the key was absent, or just being removed or set anew, meanwhile.

use std::{fmt, mem, slice};

use crate::error::{KvsError, Result};
use crate::store::key_hash::{KeyHash, KeyHasher, SHARD_COUNT};
use crate::store::key_order::KeyOrder;
use crate::store::location::{Location, len_of};
use crate::store::prefetch::prefetch;
use crate::sync::{
    Arc, AtomicU16, AtomicU64, AtomicUsize, CachePadded, EpochCell, Guard, Mutex, MutexGuard,
    Ordering, pin,
};

const EMPTY: u64 = 0;
/// Held a word that was removed; probes go on past it. No location has slot 0, so no word is 1.
const DELETED: u64 = 1;

/// Slots of a shard that holds nothing: small, because there are 256 of them.
const CAPACITY_MIN: usize = if cfg!(any(loom, shuttle)) { 4 } else { 16 };

/// Where the entries of a shard come from when it is asked for the first time.
pub(crate) trait ShardSource: Send + Sync {
    /// The entries of `shard`: each key once. Called once for a shard, or again if it failed.
    fn load(&self, shard: usize) -> Result<Vec<(KeyHash, Location)>>;

    /// Says what loading met. Called after it, when no lock is held: who listens may look up a key
    /// of the very same shard.
    fn tell(&self) {}
}

/// From the hash of a key to locations. See the head of this file.
pub(crate) struct Keydir {
    /// By shard. All that lookups need of one, so close together that they stay in the processor's
    /// nearest memory.
    tables: Box<[EpochCell<Table>]>,
    books: Box<[Mutex<Books>]>,
    hasher: KeyHasher,
    order: KeyOrder,
    /// Present as long as a shard is pending.
    source: Mutex<Option<Arc<dyn ShardSource>>>,
    pending_count: AtomicUsize,
    /// Without those of pending shards, unless `is_counted`.
    key_count: CachePadded<AtomicU64>,
    is_counted: bool,
}

/// Without words: pending.
struct Table {
    words: Box<[AtomicU64]>,
    /// For each slot, the 16 bits of the hash that its word does not hold. Only those who hold the
    /// lock of the books look at it; it is here so that it can be prefetched without.
    beside: Box<[AtomicU16]>,
}

/// What only those who change a shard need. Aligned, so that they do not slow those who change its
/// neighbours.
#[repr(align(64))]
#[derive(Default)]
struct Books {
    /// Slots that hold a word.
    live: usize,
    /// Slots that are not empty.
    used: usize,
}

impl Table {
    fn new(capacity: usize) -> Self {
        let words = (0..capacity).map(|_| AtomicU64::new(EMPTY)).collect();
        Self { words, beside: (0..capacity).map(|_| AtomicU16::new(0)).collect() }
    }

    /// A table for `count` entries, given by the kept bits of their hashes and their words, and
    /// its books. There is room for half as many more before it is full enough to grow.
    fn of(count: usize, entries: impl Iterator<Item = (u32, u64)>) -> (Self, Books) {
        let table = Self::new((count * 2).max(CAPACITY_MIN));
        for (kept, word) in entries {
            let free = table.probe(kept).find(|(_, word)| *word == EMPTY);
            let (index, _) = free.expect("half of the slots is empty");
            // Relaxed, both: the new table is published by `EpochCell::replace`, with Release.
            table.words.get(index).expect("probed").store(word, Ordering::Relaxed);
            let beside = u16::try_from(kept >> 16).expect("16 bits");
            table.beside.get(index).expect("as many").store(beside, Ordering::Relaxed);
        }
        (table, Books { live: count, used: count })
    }

    /// Whether its entries are still to be loaded.
    #[inline]
    fn is_pending(&self) -> bool {
        self.words.is_empty()
    }

    #[inline]
    fn home(&self, kept: u32) -> usize {
        let capacity = len_of(self.words.len());
        usize::try_from((u64::from(kept) * capacity) >> 32).expect("less than the capacity")
    }

    /// Slots from the home of `kept` on, each once, round the end, with their words.
    #[inline]
    fn probe(&self, kept: u32) -> Probe<'_> {
        let (front, rest) = self.words.split_at(self.home(kept));
        Probe { rest: rest.iter(), end: self.words.len(), front }
    }

    #[inline]
    fn matches(&self, hash: KeyHash) -> impl Iterator<Item = (usize, Location)> {
        self.probe(hash.kept())
            .take_while(|(_, word)| *word != EMPTY)
            .filter(move |(_, word)| word >> Location::BITS == hash.tag() && *word != DELETED)
            .map(|(index, word)| (index, Location::from_bits(word)))
    }
}

/// As few instructions as can be for each slot: see `Core::glance`.
struct Probe<'t> {
    rest: slice::Iter<'t, AtomicU64>,
    /// Where `rest` ends...
    end: usize,
    /// ... and what comes after that: slots from the first on.
    front: &'t [AtomicU64],
}

impl Probe<'_> {
    /// Goes on at the first slot of the table.
    #[cold]
    fn turn(&mut self) -> Option<(usize, u64)> {
        self.end = self.front.len();
        self.rest = mem::take(&mut self.front).iter();
        if self.end == 0 { None } else { self.next() }
    }
}

impl Iterator for Probe<'_> {
    type Item = (usize, u64);

    #[inline]
    fn next(&mut self) -> Option<(usize, u64)> {
        let index = self.end - self.rest.len();
        let Some(word) = self.rest.next() else { return self.turn() };
        // Acquire: pairs with the Release in `Change::store`, so that the record a word points at
        // can be read.
        Some((index, word.load(Ordering::Acquire)))
    }
}

impl Keydir {
    /// A keydir all of whose shards are pending: `source` knows what is in them. `key_count` is how
    /// many keys there are, if that is known.
    pub(crate) fn pending(
        hasher: KeyHasher,
        source: Arc<dyn ShardSource>,
        key_count: Option<u64>,
    ) -> Self {
        Self {
            tables: (0..SHARD_COUNT).map(|_| EpochCell::new(Table::new(0))).collect(),
            books: (0..SHARD_COUNT).map(|_| Mutex::default()).collect(),
            hasher,
            order: KeyOrder::default(),
            source: Mutex::new(Some(source)),
            pending_count: AtomicUsize::new(SHARD_COUNT),
            key_count: AtomicU64::new(key_count.unwrap_or(0)).into(),
            is_counted: key_count.is_some(),
        }
    }

    /// A keydir without entries, whose hashes depend on `seed`.
    #[cfg(any(test, feature = "layers"))]
    pub(crate) fn empty(seed: u64) -> Self {
        struct Nothing;
        impl ShardSource for Nothing {
            fn load(&self, _: usize) -> Result<Vec<(KeyHash, Location)>> {
                Ok(Vec::new())
            }
        }
        Self::pending(KeyHasher::new(seed), Arc::new(Nothing), None)
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    pub(crate) fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    /// Begins to fetch the home slot of `hash`, for whoever will ask for it soon.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash, guard: &Guard) {
        let table = self.table(hash.shard()).load(guard);
        table.words.get(table.home(hash.kept())).map(prefetch);
    }

    /// Begins to fetch the home slot of `hash` and what is beside it, for whoever will change them
    /// soon: what it has written must have arrived before it can let go of the lock.
    #[inline]
    pub(crate) fn prefetch_change(&self, hash: KeyHash, guard: &Guard) {
        let table = self.table(hash.shard()).load(guard);
        let home = table.home(hash.kept());
        table.words.get(home).map(prefetch);
        table.beside.get(home).map(prefetch);
    }

    /// Loads what is pending, shard by shard, until `stop` says so.
    pub(crate) fn load_all(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        // Acquire: pairs with the Release in `load`; zero means that everything is loaded.
        if self.pending_count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        (0..SHARD_COUNT).try_for_each(|shard| if stop() { Ok(()) } else { self.load(shard) })
    }

    /// Sees to it that lookups and changes of `hash` read no file.
    #[inline]
    pub(crate) fn make_ready(&self, hash: KeyHash, guard: &Guard) -> Result<()> {
        self.loaded(hash.shard(), guard).map(drop)
    }

    /// Whether every shard is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        // Acquire: as in `load_all`.
        self.pending_count.load(Ordering::Acquire) == 0
    }

    /// Loads one shard, unless somebody else was faster.
    #[cold]
    fn load(&self, shard: usize) -> Result<()> {
        let mut books = self.books(shard).lock();
        if !self.table(shard).load(&pin()).is_pending() {
            return Ok(());
        }
        let source = self.source.lock().clone().expect("present while a shard is pending");
        let loaded = source.load(shard).map(|entries| self.fill(shard, &mut books, &entries));
        drop(books);
        source.tell();
        loaded
    }

    /// Gives a pending shard its entries.
    fn fill(&self, shard: usize, books: &mut Books, entries: &[(KeyHash, Location)]) {
        if !self.is_counted {
            let count = len_of(entries.len());
            // Relaxed: a statistic; `len` waits for every shard.
            self.key_count.fetch_add(count, Ordering::Relaxed);
        }
        let (table, fresh) = Table::of(
            entries.len(),
            entries.iter().map(|(hash, location)| (hash.kept(), word(*hash, *location))),
        );
        *books = fresh;
        self.table(shard).replace(table);
        self.note_loaded();
    }

    /// Takes down that a shard is not pending any more.
    fn note_loaded(&self) {
        // AcqRel: pairs with the Acquire in `load_all` and `is_loaded`.
        if self.pending_count.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.source.lock() = None;
        }
    }

    /// Number of keys, those included that have expired and that compaction has not dropped yet.
    /// Waits for every shard, if the keys were not counted when the store was
    /// closed.
    pub(crate) fn len(&self) -> Result<u64> {
        if !self.is_counted {
            self.load_all(&|| false)?;
        }
        // Relaxed: a statistic; who has seen a write return has synchronised with its leader.
        Ok(self.key_count.load(Ordering::Relaxed))
    }

    /// Number of keys, if it is known already.
    pub(crate) fn known_len(&self) -> Option<u64> {
        let is_known = self.is_counted || self.is_loaded();
        // Relaxed: as in `len`.
        is_known.then(|| self.key_count.load(Ordering::Relaxed))
    }

    /// Takes down that a key came or went, under the lock of its shard.
    pub(crate) fn note_presence(&self, key: &[u8], before: bool, after: bool) {
        // Relaxed: as in `len`.
        match (before, after) {
            (false, true) => {
                self.key_count.fetch_add(1, Ordering::Relaxed);
                self.order.add(key);
            }
            (true, false) => {
                self.key_count.fetch_sub(1, Ordering::Relaxed);
                self.order.remove(key);
            }
            _ => {}
        }
    }

    /// The keys in order, for those who scan in order. Changed under the locks of the shards.
    pub(crate) fn order(&self) -> &KeyOrder {
        &self.order
    }

    /// Counts a key out whose record cannot be read any more. The order of keys keeps it, which
    /// scans pass over.
    pub(crate) fn note_unreadable_gone(&self, error: &KvsError) {
        log::warn!("a key that has expired stays in the order of keys: {error}");
        // Relaxed: as in `len`.
        self.key_count.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn table(&self, shard: usize) -> &EpochCell<Table> {
        self.tables.get(shard).expect("256 shards, named by 8 bits")
    }

    #[inline]
    fn books(&self, shard: usize) -> &Mutex<Books> {
        self.books.get(shard).expect("256 shards, named by 8 bits")
    }

    /// The table of `shard`, which is not pending.
    #[inline]
    fn loaded<'a>(&'a self, shard: usize, guard: &'a Guard) -> Result<&'a Table> {
        let table = self.table(shard).load(guard);
        if !table.is_pending() {
            return Ok(table);
        }
        self.load(shard)?;
        Ok(self.table(shard).load(guard))
    }

    /// The locations where the record of a key with `hash` may be, most often none or one. If the
    /// key is there, one of them is its newest published record.
    ///
    /// # Errors
    ///
    /// If the shard is pending and its source cannot be read.
    #[inline]
    pub(crate) fn candidates<'g>(
        &'g self,
        hash: KeyHash,
        guard: &'g Guard,
    ) -> Result<impl Iterator<Item = Location> + 'g> {
        let table = self.loaded(hash.shard(), guard)?;
        Ok(table.matches(hash).map(|(_, location)| location))
    }

    /// Whether the entry of some key with `hash` is exactly `location`.
    pub(crate) fn points_at(
        &self,
        hash: KeyHash,
        location: Location,
        guard: &Guard,
    ) -> Result<bool> {
        Ok(self.candidates(hash, guard)?.any(|candidate| candidate == location))
    }

    /// Begins a change to the entry of one key: takes the lock of its shard.
    #[inline]
    pub(crate) fn change<'a>(&'a self, hash: KeyHash, guard: &'a Guard) -> Result<Change<'a>> {
        self.loaded(hash.shard(), guard)?;
        let books = self.books(hash.shard()).lock();
        let cell = self.table(hash.shard());
        Ok(Change { table: cell.load(guard), cell, books, hash })
    }

    /// Appends the locations of all entries of one shard, as they are at one moment, and calls
    /// `meanwhile` before any of them can change.
    pub(crate) fn copy_shard(
        &self,
        shard: usize,
        locations: &mut Vec<Location>,
        meanwhile: impl FnOnce(),
    ) -> Result<()> {
        let guard = pin();
        self.loaded(shard, &guard)?;
        let _books = self.books(shard).lock();
        let words = &self.table(shard).load(&guard).words;
        // Every word is put down, the next one over it if it was none, so that nothing depends on
        // which of them are empty, which no processor can foresee.
        let mut next = locations.len();
        locations.resize(next + words.len(), Location::from_bits(0));
        for word in words {
            // Relaxed: words change only under the lock.
            let word = word.load(Ordering::Relaxed);
            if let Some(place) = locations.get_mut(next) {
                *place = Location::from_bits(word);
            }
            next += usize::from(word > DELETED);
        }
        locations.truncate(next);
        meanwhile();
        Ok(())
    }

    /// Removes every entry, shard by shard. Only the group leader calls it, so nothing is added
    /// meanwhile.
    pub(crate) fn clear(&self) {
        for (cell, books) in self.tables.iter().zip(&self.books) {
            let mut books = books.lock();
            let was_pending = cell.load(&pin()).is_pending();
            let (table, none) = Table::of(0, std::iter::empty());
            *books = none;
            cell.replace(table);
            if was_pending {
                self.note_loaded();
            }
        }
        // Relaxed: as in `len`.
        self.key_count.store(0, Ordering::Relaxed);
        self.order.clear();
    }

    /// Memory that the entries take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let per_slot = size_of::<u64>() + size_of::<u16>();
        let guard = pin();
        let slots: usize = self.tables.iter().map(|table| table.load(&guard).words.len()).sum();
        let shard = size_of::<EpochCell<Table>>() + size_of::<Table>() + size_of::<Mutex<Books>>();
        let fixed = size_of::<Self>() + SHARD_COUNT * shard;
        len_of(slots * per_slot + fixed)
    }
}

impl fmt::Debug for Keydir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keydir({} bytes)", self.bytes())
    }
}

/// A change to the entry of one key, under the lock of its shard.
pub(crate) struct Change<'a> {
    table: &'a Table,
    cell: &'a EpochCell<Table>,
    books: MutexGuard<'a, Books>,
    hash: KeyHash,
}

/// An entry that a [`Change`] found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    index: usize,
    pub(crate) location: Location,
}

impl Change<'_> {
    /// The entries that may be the key's, most often none or one.
    #[inline]
    pub(crate) fn candidates(&self) -> impl Iterator<Item = Entry> {
        self.table.matches(self.hash).map(|(index, location)| Entry { index, location })
    }

    /// Points `entry` at `location`.
    #[inline]
    pub(crate) fn replace(self, entry: Entry, location: Location) {
        self.store(entry.index, word(self.hash, location));
    }

    /// Adds an entry for a key that has none.
    pub(crate) fn insert(mut self, location: Location) {
        if (self.books.used + 1) * 4 > self.table.words.len() * 3 {
            self.rebuild(Some(location));
            return;
        }
        let (index, previous) = self
            .table
            .probe(self.hash.kept())
            .find(|(_, word)| *word <= DELETED)
            .expect("a quarter of the slots is empty");
        self.books.live += 1;
        self.books.used += usize::from(previous == EMPTY);
        if let Some(beside) = self.table.beside.get(index) {
            // Relaxed: under the lock that `self` holds.
            beside.store(self.hash.beside(), Ordering::Relaxed);
        }
        self.store(index, word(self.hash, location));
    }

    /// Removes `entry`.
    pub(crate) fn remove(mut self, entry: Entry) {
        self.books.live -= 1;
        self.store(entry.index, DELETED);
        if self.books.live * 8 < self.table.words.len() && self.table.words.len() > CAPACITY_MIN {
            self.rebuild(None);
            return;
        }
        // Where no probe can need to pass, deleted slots become empty ones, so that probes stay
        // short however many keys come and go.
        let capacity = self.table.words.len();
        let mut index = entry.index;
        while self.load((index + 1) % capacity) == EMPTY && self.load(index) == DELETED {
            self.books.used -= 1;
            self.store(index, EMPTY);
            index = (index + capacity - 1) % capacity;
        }
    }

    /// The entry that is exactly `location`, if there still is one.
    pub(crate) fn entry_at(&self, location: Location) -> Option<Entry> {
        self.candidates().find(|entry| entry.location == location)
    }

    /// Points the entry that is exactly `from` at `to`; false if there is none any more.
    pub(crate) fn relocate(self, from: Location, to: Location) -> bool {
        self.entry_at(from).map(|entry| self.replace(entry, to)).is_some()
    }

    fn load(&self, index: usize) -> u64 {
        // Relaxed: words change only under the lock that `self` holds.
        self.table.words.get(index).expect("within the capacity").load(Ordering::Relaxed)
    }

    #[inline]
    fn store(&self, index: usize, word: u64) {
        // Release: pairs with the Acquire in `Probe::next`.
        let slot = self.table.words.get(index).expect("within the capacity");
        slot.store(word, Ordering::Release);
    }

    /// Replaces the table by one in which every other slot is in use, without deleted slots, and
    /// with an entry for `added`.
    fn rebuild(&mut self, added: Option<Location>) {
        let kept = |(word, beside): (&AtomicU64, &AtomicU16)| {
            // Relaxed, both: they change only under the lock that `self` holds.
            let (word, high) = (word.load(Ordering::Relaxed), beside.load(Ordering::Relaxed));
            let tag = u32::try_from(word >> Location::BITS).expect("16 bits");
            (word > DELETED).then(|| (u32::from(high) << 16 | tag, word))
        };
        let live = self.table.words.iter().zip(&self.table.beside).filter_map(kept);
        let added_word = added.map(|location| (self.hash.kept(), word(self.hash, location)));
        let count = self.books.live + usize::from(added.is_some());
        let (table, books) = Table::of(count, live.chain(added_word));
        *self.books = books;
        self.cell.replace(table);
    }
}

/// What a slot holds for a key with `hash` whose record is at `location`.
#[inline]
fn word(hash: KeyHash, location: Location) -> u64 {
    hash.tag() << Location::BITS | location.bits()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::location::Slot;

    fn location(n: u64) -> Location {
        Location::new(Slot::new(1 + u32::try_from(n >> 20).unwrap()).unwrap(), (n & 0xF_FFFF) * 8)
    }

    fn found(keydir: &Keydir, key: u64) -> Vec<Location> {
        let guard = pin();
        keydir.candidates(keydir.hash(&key.to_le_bytes()), &guard).unwrap().collect()
    }

    fn insert(keydir: &Keydir, key: u64, place: u64) {
        let guard = pin();
        keydir.change(keydir.hash(&key.to_le_bytes()), &guard).unwrap().insert(location(place));
    }

    fn remove(keydir: &Keydir, key: u64, place: u64) {
        let guard = pin();
        let change = keydir.change(keydir.hash(&key.to_le_bytes()), &guard).unwrap();
        let entry = change.candidates().find(|entry| entry.location == location(place)).unwrap();
        change.remove(entry);
    }

    /// Random inserts, replacements and removals against a map, through many growths and shrinks.
    #[test]
    fn it_agrees_with_a_map_through_growth_and_shrinking() {
        let keydir = Keydir::empty(7);
        let mut model = HashMap::new();
        let mut state = 1_u64;
        for step in 0..200_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly inserts for the first half, mostly removals for the second.
            let key = (state >> 33) % 20_000;
            let grow = (step < 100_000) == ((state >> 20) % 10 < 8);
            match (grow, model.contains_key(&key)) {
                (true, false) => {
                    insert(&keydir, key, step);
                    model.insert(key, step);
                }
                (true, true) => {
                    let guard = pin();
                    let change = keydir.change(keydir.hash(&key.to_le_bytes()), &guard).unwrap();
                    assert!(change.relocate(location(model[&key]), location(step)));
                    model.insert(key, step);
                }
                (false, true) => remove(&keydir, key, model.remove(&key).unwrap()),
                (false, false) => {}
            }
        }
        for key in 0..20_000 {
            let expected = model.get(&key).map(|place| location(*place));
            let found = found(&keydir, key);
            match expected {
                Some(expected) => assert!(found.contains(&expected), "{key}"),
                // Another key with the same tag may be found; its location is another one.
                None => assert!(found.iter().all(|at| model.values().any(|p| location(*p) == *at))),
            }
        }
    }

    /// Four keys for each shard, and the first attempt at each shard fails.
    struct Flaky {
        hasher: KeyHasher,
        tried: Mutex<std::collections::HashSet<usize>>,
    }

    impl ShardSource for Flaky {
        fn load(&self, shard: usize) -> Result<Vec<(KeyHash, Location)>> {
            if self.tried.lock().insert(shard) {
                return Err(crate::KvsError::Closed);
            }
            let keys =
                (0..1024).map(|key| (self.hasher.hash(&u64::to_le_bytes(key)), location(key)));
            Ok(keys.filter(|(hash, _)| hash.shard() == shard).collect())
        }
    }

    /// Looked up, changed or counted: whoever comes first loads the shard, and only that one; a
    /// failure is told and tried again.
    #[test]
    fn pending_shards_are_loaded_by_the_first_to_ask() {
        let hasher = KeyHasher::new(9);
        let source = Arc::new(Flaky { hasher, tried: Mutex::default() });
        let shared: Arc<dyn ShardSource> = Arc::<Flaky>::clone(&source);
        let keydir = Keydir::pending(hasher, shared, None);
        let hash = hasher.hash(&5_u64.to_le_bytes());
        let guard = pin();
        assert!(keydir.make_ready(hash, &pin()).is_err());
        assert!(keydir.points_at(hash, location(5), &guard).unwrap());
        assert_eq!(source.tried.lock().len(), 1, "other shards are left alone");
        assert!(keydir.change(hash, &guard).unwrap().relocate(location(5), location(2000)));
        assert_eq!(keydir.known_len(), None);
        for _ in 0..SHARD_COUNT {
            if keydir.len().is_ok() {
                break;
            }
        }
        assert_eq!((keydir.len().unwrap(), keydir.known_len()), (1024, Some(1024)));
        assert!(keydir.is_loaded() && keydir.source.lock().is_none());
        assert!(keydir.points_at(hash, location(2000), &guard).unwrap());
        let all: usize = (0..1024).map(|key| usize::from(!found(&keydir, key).is_empty())).sum();
        assert_eq!(all, 1024);
    }

    #[test]
    fn relocation_moves_only_what_is_still_where_it_was() {
        let keydir = Keydir::empty(1);
        insert(&keydir, 5, 50);
        let guard = pin();
        let hash = keydir.hash(&5_u64.to_le_bytes());
        assert!(!keydir.change(hash, &guard).unwrap().relocate(location(49), location(60)));
        assert!(keydir.points_at(hash, location(50), &guard).unwrap());
        assert!(keydir.change(hash, &guard).unwrap().relocate(location(50), location(60)));
        assert!(!keydir.points_at(hash, location(50), &guard).unwrap());
        assert!(keydir.points_at(hash, location(60), &guard).unwrap());
    }

    /// A queue-like load that never holds more than a few keys must not fill the table with
    /// deleted slots: memory stays small and absent keys are recognised at once.
    #[test]
    fn keys_that_come_and_go_leave_nothing_behind() {
        let keydir = Keydir::empty(3);
        keydir.load_all(&|| false).unwrap();
        let before = keydir.bytes();
        for n in 0..300_000 {
            insert(&keydir, n, n);
            if n >= 100 {
                remove(&keydir, n - 100, n - 100);
            }
        }
        assert!(keydir.bytes() <= before * 2, "{} bytes", keydir.bytes());
        for (table, books) in keydir.tables.iter().zip(&keydir.books) {
            assert!(books.lock().used * 4 <= table.load(&pin()).words.len() * 3);
        }
    }

    #[test]
    fn memory_per_key_stays_under_the_bar() {
        let keydir = Keydir::empty(11);
        for (n, max) in [(10_000_u64, 24), (60_000, 24), (200_000, 22)] {
            for key in 0..n {
                if found(&keydir, key).is_empty() {
                    insert(&keydir, key, key);
                }
            }
            let per_key = keydir.bytes() / n;
            assert!(per_key <= max, "{per_key} bytes a key at {n} keys");
        }
    }

    /// Readers beside growth, replacement and removal never miss a key that stays.
    #[test]
    fn readers_never_miss_a_key_that_stays() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let keydir = Keydir::empty(5);
        for key in 0..64 {
            insert(&keydir, key, key);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for key in 0..64 {
                            assert!(found(&keydir, key).contains(&location(key)), "{key}");
                        }
                    }
                });
            }
            for round in 0..20 {
                for key in 1000..3000 {
                    insert(&keydir, key, key + round * 10_000);
                }
                for key in 1000..3000 {
                    remove(&keydir, key, key + round * 10_000);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
