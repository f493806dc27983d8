//! Which segments are live, and how readers find them.
//!
//! Readers look a segment up by its slot on every `get`, so the table is replaced as a whole (a
//! few times per gigabyte written), never edited, and looking up takes no lock. A slot is given
//! away again only after the epochs of all readers that could have seen its previous holder.
//!
//! Invariants:
//! - A segment leaves the table only when no keydir entry points into it (invariant 4). A reader
//!   that loaded a location before that and finds the slot empty looks into the keydir again.
//! - A file is removed only after the manifest ceased to list it, and when nobody holds its
//!   segment any more: neither a table that a reader may still see, nor a lent value.
//! - Segment ids rise and are never given twice.

use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::error::{KvsError, Result};
use crate::logger::Logger;
use crate::options::{Durability, Options, ReadMode};
use crate::store::disk::Disk;
use crate::store::keydir::Keydir;
use crate::store::location::{Location, SegmentId, Seqno, Slot, len_of};
use crate::store::log_file::Ahead;
use crate::store::manifest::ListedSegment;
use crate::store::names;
use crate::store::record::{Salt, Unverified};
use crate::store::reserve::Reserve;
use crate::store::scratch::Scratch;
use crate::store::segment::{Origin, Place, Segment, SegmentHeader, SegmentWriter};
use crate::store::tail::{Tail, TailImage};
use crate::sync::{
    self, Arc, AtomicBool, AtomicU64, CachePadded, EpochCell, Guard, Mutex, Ordering, Signal, pin,
};

/// Keys whose records are fetched at a time, by whoever has many to look up.
pub(crate) const PREFETCH_KEYS: usize = 32;

/// The live segments of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    store_id: u64,
    /// What is in front of logs that are written.
    tail: Option<Arc<Tail>>,
    /// Room for when the disk is full.
    pub(crate) reserve: Arc<Reserve>,
    /// One clock for readers, the writer and compaction: what has expired for one of them has for
    /// all.
    pub(crate) clock: Clock,
    /// By slot. Replaced, never edited.
    table: EpochCell<Table>,
    /// Held while the table is being replaced. Readers never take it.
    books: Mutex<Books>,
    next_id: AtomicU64,
    /// Bytes that became dead since compaction was last woken.
    dead_bytes: CachePadded<AtomicU64>,
    /// Whether compaction is at work, or is to look whether there is something to do.
    pub(crate) compacting: AtomicBool,
    /// The last write that may have been in a hole; zero if there are no holes.
    doubt: AtomicU64,
    /// The last clear. What was written before counts for nothing, wherever it is.
    cleared: AtomicU64,
    holes: Mutex<Holes>,
    /// Raised when compaction should look whether there is something to do.
    pub(crate) compaction_wanted: Signal,
    /// Raised when compaction has given space back, or has nothing to do.
    pub(crate) space_returned: Signal,
}

type Table = Vec<Option<Arc<Segment>>>;

/// Where segments are damaged so that nobody knows whose records were there: path and offset.
#[derive(Debug, Default)]
struct Holes {
    first: Option<(PathBuf, u64)>,
    /// Those that the log has not been told of.
    unsaid: Vec<(PathBuf, u64)>,
}

#[derive(Debug, Default)]
struct Books {
    /// The same as the table, for those who change it.
    table: Table,
    /// Out of the table, on disk until their last reader has gone.
    retired: Vec<Arc<Segment>>,
    /// Largest seqno of any sealed segment, retired ones included.
    seqno: Seqno,
}

/// Segments that someone holds on to, by slot: their files stay.
#[derive(Debug, Default)]
pub(crate) struct Held(Table);

impl Held {
    /// The segment in `slot`, if one was held.
    pub(crate) fn get(&self, slot: Slot) -> Option<&Arc<Segment>> {
        self.0.get(slot.index())?.as_ref()
    }

    /// Lets all of them go.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The live segments of one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// In the order of their ids.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Every segment made later has this id or a higher one.
    pub(crate) next_id: SegmentId,
    /// No sealed segment, of this moment or before, holds a higher seqno.
    pub(crate) seqno: Seqno,
}

/// How much writers are to be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    None,
    /// Files are within half a segment of their bound.
    Some,
    /// They are beyond it.
    Full,
}

/// What lies at a location, for someone who looks for a key.
pub(crate) enum Look<'g, 's> {
    /// The segment was retired: the keydir knows a newer location.
    Gone,
    /// The record of another key whose hash has the same tag.
    Other,
    /// The key's record, not verified yet, and its segment.
    Found(&'g Arc<Segment>, Unverified<'s>),
}

impl Segments {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        reserve: Arc<Reserve>,
        store_id: u64,
        next_id: SegmentId,
        seqno: Seqno,
    ) -> Self {
        Self {
            reserve,
            tail: None,
            clock: Clock::new(options.time.clone()),
            disk,
            dir,
            options,
            store_id,
            table: EpochCell::new(Table::new()),
            books: Mutex::new(Books { seqno, ..Books::default() }),
            next_id: AtomicU64::new(next_id.get()),
            dead_bytes: CachePadded::default(),
            compacting: AtomicBool::new(false),
            doubt: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            holes: Mutex::default(),
            compaction_wanted: Signal::default(),
            space_returned: Signal::default(),
        }
    }

    /// The same; what is appended to logs passes through `tail`.
    pub(crate) fn with_tail(self, tail: Option<Tail>) -> Self {
        Self { tail: tail.map(Arc::new), ..self }
    }

    /// Where its files are.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The same, for another store on it.
    pub(crate) fn shared_disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where the store's messages go.
    pub(crate) fn log(&self) -> &Logger {
        &self.options.logger
    }

    /// Creates a segment file for `origin`. Readers find it after [`Segments::add`].
    pub(crate) fn create(
        &self,
        origin: Origin,
        seqno_before: Seqno,
        capacity: u64,
    ) -> Result<SegmentWriter> {
        let salt = Salt(self.disk.random());
        let mut books = self.books.lock();
        // Relaxed: under the lock. A snapshot sees the segment, or a `next_id` that is its id.
        let id = SegmentId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        let header = SegmentHeader { id, origin, salt, store_id: self.store_id, seqno_before };
        let slot = books.reserve()?;
        let path = names::segment(&self.dir, id);
        let ahead = match (origin, &self.tail) {
            (Origin::Log, Some(tail)) => Ahead::Tail(tail),
            (Origin::Log, None) if self.options.durability == Durability::Sync => Ahead::Room,
            _ => Ahead::Nothing,
        };
        let place = Place { slot, read_mode: self.options.read_mode, ahead };
        Segment::create(&*self.disk, &path, header, place, capacity)
            .inspect(|writer| books.hold(slot, writer.segment()))
    }

    /// Whether what is appended to logs passes through a tail.
    pub(crate) fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    /// Opens the sealed segment file of `id`. Readers find it after [`Segments::publish`].
    pub(crate) fn open(&self, id: SegmentId) -> Result<Arc<Segment>> {
        self.open_as(id, self.options.read_mode, None)
    }

    /// As [`Segments::open`], for one that is not sealed, and may be written by another process. It
    /// may go on in `tail`.
    pub(crate) fn open_unsealed(
        &self,
        id: SegmentId,
        tail: Option<&TailImage>,
    ) -> Result<Arc<Segment>> {
        // What grows beneath a reader, or may be cut, is not mapped: reading there must fail, not
        // kill.
        self.open_as(id, ReadMode::Positioned, tail)
    }

    fn open_as(
        &self,
        id: SegmentId,
        read_mode: ReadMode,
        tail: Option<&TailImage>,
    ) -> Result<Arc<Segment>> {
        let mut books = self.books.lock();
        let slot = books.reserve()?;
        let path = names::segment(&self.dir, id);
        let segment = Segment::open(&*self.disk, &path, slot, read_mode, tail)?;
        if segment.header.id != id || segment.header.store_id != self.store_id {
            return Err(KvsError::corrupt(&path, 16, "the segment belongs to another store"));
        }
        let segment = Arc::new(segment);
        books.hold(slot, &segment);
        Ok(segment)
    }

    /// As [`Segments::open`], for a segment that a manifest lists. None of its writes comes after
    /// `last`.
    pub(crate) fn open_listed(&self, listed: &ListedSegment, last: Seqno) -> Result<Arc<Segment>> {
        let segment = self.open(SegmentId::new(listed.id))?;
        if segment.len() != listed.bytes {
            let what = "the file does not end as the manifest says";
            let offset = segment.len().min(listed.bytes);
            return Err(KvsError::corrupt(segment.path(), offset, what));
        }
        if segment.footer().is_none() {
            let path = segment.path().display();
            self.log().error(format_args!("the footer of {path} is damaged; verify tells more"));
            segment.set_lost_footer(last);
        }
        Ok(segment)
    }

    /// Lets readers find every segment that was created or opened.
    pub(crate) fn publish(&self) {
        let books = self.books.lock();
        self.table.replace(books.table.clone());
    }

    /// Takes `segments` out of the table. No keydir entry may point into them any more.
    pub(crate) fn retire(&self, segments: &[Arc<Segment>]) {
        let mut books = self.books.lock();
        for segment in segments {
            if let Some(place) = books.table.get_mut(segment.slot.index()) {
                *place = None;
            }
            books.retired.push(Arc::clone(segment));
        }
        self.table.replace(books.table.clone());
    }

    /// Removes the files of retired segments that nobody can read any more; true if none is left.
    ///
    /// # Errors
    ///
    /// The last file that could not be removed; each of them is tried again by the next sweep.
    pub(crate) fn sweep(&self) -> Result<bool> {
        sync::collect_garbage();
        let mut unused = Vec::new();
        let none_left = {
            let mut books = self.books.lock();
            let all = std::mem::take(&mut books.retired);
            for segment in all {
                // Nobody can make a new holder out of nothing: it is in no table.
                if Arc::strong_count(&segment) == 1 {
                    unused.push(segment);
                } else {
                    books.retired.push(segment);
                }
            }
            books.retired.is_empty()
        };
        let mut removed = Ok(none_left);
        for segment in unused {
            if let Err(error) = self.remove(segment.path()) {
                // The next sweep tries again.
                self.books.lock().retired.push(segment);
                removed = Err(error);
            }
        }
        removed
    }

    /// Removes the file of a segment, and its hint.
    fn remove(&self, path: &Path) -> Result<()> {
        // The segment first: without it the hint is removed by the next open.
        for path in [path, &names::hint(path)] {
            if self.disk.exists(path)? {
                self.disk.remove(path)?;
            }
        }
        Ok(())
    }

    /// The segment in `slot`, unless it was retired.
    #[inline]
    pub(crate) fn get<'g>(&self, slot: Slot, guard: &'g Guard) -> Option<&'g Arc<Segment>> {
        self.table.load(guard).get(slot.index())?.as_ref()
    }

    /// Begins to fetch the records at `locations`.
    #[inline]
    pub(crate) fn prefetch(&self, locations: impl Iterator<Item = Location>, guard: &Guard) {
        for location in locations {
            if let Some(segment) = self.get(location.slot(), guard) {
                segment.prefetch(location.offset());
            }
        }
    }

    /// Begins to fetch what lookups of `keys` will read: first their slots of `keydir`, then their
    /// records. For several at once: one lookup by itself has nothing to do meanwhile.
    pub(crate) fn prefetch_all<'k>(
        &self,
        keydir: &Keydir,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
    ) {
        let guard = pin();
        keys.clone().for_each(|key| keydir.prefetch(keydir.hash(key), &guard));
        for key in keys {
            let candidates = keydir.candidates(keydir.hash(key), &guard);
            for location in candidates.into_iter().flatten() {
                if let Some(segment) = self.get(location.slot(), &guard) {
                    segment.prefetch_all(location.offset());
                }
            }
        }
    }

    /// What lies at `location`, for someone who looks for `key`.
    ///
    /// # Errors
    ///
    /// [`KvsError::Corrupt`] if the record there is not readable enough to tell: it may be the
    /// key's.
    #[inline]
    pub(crate) fn look<'g: 's, 's>(
        &self,
        location: Location,
        key: &[u8],
        guard: &'g Guard,
        scratch: &'s mut Scratch,
    ) -> Result<Look<'g, 's>> {
        let Some(segment) = self.get(location.slot(), guard) else { return Ok(Look::Gone) };
        let record = segment.record(location.offset(), scratch)?;
        if record.key() == key {
            return Ok(Look::Found(segment, record));
        }
        // Equal tags of different keys are rare (2^-16), damaged keys rarer; only a record that
        // proves intact is another key's.
        segment.verify(record, location.offset())?;
        Ok(Look::Other)
    }

    /// Takes down that `segment` has a hole at `offset`, and that the writes that were in it are
    /// not known, but that none of them came after `last`.
    ///
    /// Any key may have been changed by such a write. So what is known of a key counts only if its
    /// record is newer; [`Segments::check_certain`] tells. [`Segments::say_holes`] tells the log.
    pub(crate) fn note_hole(&self, segment: &Segment, offset: u64, last: Seqno) {
        segment.set_damaged();
        let mut holes = self.holes.lock();
        let hole = (segment.path().to_path_buf(), offset);
        holes.first.get_or_insert_with(|| hole.clone());
        holes.unsaid.push(hole);
        // Release: pairs with the Acquire in `check_certain`: who sees the doubt finds the hole.
        self.doubt.fetch_max(last.get(), Ordering::Release);
    }

    /// Tells the log of holes that it was not told of. No lock may be held that a read takes: who
    /// listens may read.
    pub(crate) fn say_holes(&self) {
        let unsaid = std::mem::take(&mut self.holes.lock().unsaid);
        for (path, offset) in unsaid {
            let path = path.display();
            self.log().error(format_args!("{path} is damaged at byte {offset}; verify tells more"));
        }
    }

    /// Takes down that every write before `seqno` was cleared.
    pub(crate) fn note_cleared(&self, seqno: Seqno) {
        // Relaxed: it only ends a doubt, and who waited for the clear has synchronised with it.
        self.cleared.fetch_max(seqno.get(), Ordering::Relaxed);
    }

    /// Takes down that the record at `location` is damaged.
    pub(crate) fn note_damaged(&self, location: Location, guard: &Guard) {
        self.get(location.slot(), guard).inspect(|segment| segment.set_damaged());
    }

    /// Whether some segment is known to be damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.books.lock().table.iter().flatten().any(|segment| segment.is_damaged())
    }

    /// Whether nothing that is damaged can be newer than `seqno`, that of the newest record known
    /// of some key, or `None` if none is known.
    #[inline]
    pub(crate) fn check_certain(&self, seqno: Option<Seqno>) -> Result<()> {
        // Acquire: pairs with the Release in `note_hole`.
        let doubt = self.doubt.load(Ordering::Acquire);
        if doubt == 0 || seqno.is_some_and(|seqno| seqno.get() > doubt) {
            return Ok(());
        }
        self.say_doubt(doubt)
    }

    #[cold]
    fn say_doubt(&self, doubt: u64) -> Result<()> {
        // Relaxed: as in `note_cleared`.
        if self.cleared.load(Ordering::Relaxed) > doubt {
            return Ok(());
        }
        let holes = self.holes.lock();
        let (path, offset) = holes.first.as_ref().expect("noted before the doubt");
        Err(KvsError::corrupt(path, *offset, "a damaged write may have been this key's last"))
    }

    /// Adds the live segments of this moment to those that are held. The slot of a held segment is
    /// given to no other one, so locations can be looked up in `held` for as long as it lasts.
    pub(crate) fn hold(&self, held: &mut Held) {
        let guard = pin();
        let table = self.table.load(&guard);
        held.0.resize(held.0.len().max(table.len()), None);
        for (held, live) in held.0.iter_mut().zip(table) {
            if held.is_none() {
                held.clone_from(live);
            }
        }
    }

    /// The live segments of this moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut books = self.books.lock();
        let mut segments: Vec<_> = books.table.iter().flatten().cloned().collect();
        segments.sort_by_key(|segment| segment.header.id);
        for footer in segments.iter().filter_map(|segment| segment.footer()) {
            books.seqno = books.seqno.max(footer.seqno_max);
        }
        // Relaxed: changed under the lock only.
        let next_id = SegmentId::new(self.next_id.load(Ordering::Relaxed));
        Snapshot { segments, next_id, seqno: books.seqno }
    }

    /// Takes down that nothing is live any more. Nothing is being compacted.
    pub(crate) fn clear_live(&self) {
        self.books.lock().table.iter().flatten().for_each(|segment| segment.clear_live());
    }

    /// How many files of retired segments are there still, and their bytes.
    pub(crate) fn retired_count_and_bytes(&self) -> (u64, u64) {
        let books = self.books.lock();
        books.retired.iter().fold((0, 0), |(n, bytes), file| (n + 1, bytes + file.len()))
    }

    /// Bytes of live records that have not expired, and bytes of files.
    pub(crate) fn live_and_total_bytes(&self) -> (u64, u64) {
        let now_ms = self.clock.now_ms();
        let books = self.books.lock();
        let live = books.table.iter().flatten().map(|segment| segment.lasting_bytes(now_ms)).sum();
        let total = books.table.iter().flatten().map(|segment| segment.len()).sum();
        (live, total)
    }

    /// Whether half of the log that is being written has expired, or more, and there is enough of
    /// it to be a segment. Compaction leaves logs alone that are not sealed; where nobody writes,
    /// this one would never be.
    pub(crate) fn log_has_mostly_expired(&self) -> bool {
        let now_ms = self.clock.now_ms();
        let books = self.books.lock();
        let mut unsealed = books.table.iter().flatten().filter(|log| log.footer().is_none());
        unsealed.any(|log| {
            let len = log.len();
            len >= self.options.segment_bytes_min && log.expired_bytes(now_ms) * 2 >= len
        })
    }

    /// Takes down that `len` bytes became dead, and wakes compaction now and then.
    pub(crate) fn note_dead(&self, len: usize) {
        let len = len_of(len);
        // Relaxed: it only decides when compaction looks.
        let dead = self.dead_bytes.fetch_add(len, Ordering::Relaxed) + len;
        if dead >= self.options.segment_bytes_min.max(1 << 10) / 2 {
            self.dead_bytes.store(0, Ordering::Relaxed);
            self.want_compaction();
        }
    }

    /// Has compaction look whether there is something to do. Until it has found nothing, waiting
    /// for it can help.
    pub(crate) fn want_compaction(&self) {
        // Relaxed: it only decides whether writers wait a little.
        self.compacting.store(true, Ordering::Relaxed);
        self.compaction_wanted.raise();
    }

    /// Takes down that compaction has given space back, or that it has nothing more to do.
    pub(crate) fn note_compacted(&self, is_done: bool) {
        if is_done {
            // Relaxed: as in `want_compaction`.
            self.compacting.store(false, Ordering::Relaxed);
        }
        self.space_returned.raise();
    }

    /// How much writers are to be held back, so that files take no more than twice the live bytes
    /// (or what the options make of it) and two segments.
    pub(crate) fn pressure(&self) -> Pressure {
        // Relaxed: as in `want_compaction`.
        if !self.compacting.load(Ordering::Relaxed) {
            return Pressure::None;
        }
        let (live, total) = self.live_and_total_bytes();
        match total.saturating_sub(self.bound_bytes(live)) {
            over if over > 0 => Pressure::Full,
            _ if total + self.seal_bytes() / 2 > self.bound_bytes(live) => Pressure::Some,
            _ => Pressure::None,
        }
    }

    /// What files may take beside `live` bytes of live records.
    fn bound_bytes(&self, live: u64) -> u64 {
        let live_percent = 100 - u64::from(self.options.compaction_dead_percent_min);
        live * 100 / live_percent + 2 * self.seal_bytes()
    }

    /// What files may grow by before their bound is reached.
    pub(crate) fn room_bytes(&self) -> u64 {
        let (live, total) = self.live_and_total_bytes();
        self.bound_bytes(live).saturating_sub(total)
    }

    /// The size at which a segment is to be sealed now: that of the live data, within the limits.
    pub(crate) fn seal_bytes(&self) -> u64 {
        let (live, _) = self.live_and_total_bytes();
        live.clamp(self.options.segment_bytes_min, self.options.segment_bytes_max)
    }
}

impl Books {
    /// A free slot, for a segment about to be made.
    fn reserve(&self) -> Result<Slot> {
        let retired = |index| self.retired.iter().any(|segment| segment.slot.index() == index);
        let free = (1..self.table.len())
            .find(|index| self.table.get(*index).is_none_or(Option::is_none) && !retired(*index))
            .unwrap_or(self.table.len().max(1));
        u32::try_from(free).ok().and_then(Slot::new).ok_or(KvsError::InvalidOption {
            name: "segment_bytes_max",
            must: "larger: the store has 16 million segments, the most there can be",
        })
    }

    fn hold(&mut self, slot: Slot, segment: &Arc<Segment>) {
        if self.table.len() <= slot.index() {
            self.table.resize(slot.index() + 1, None);
        }
        if let Some(place) = self.table.get_mut(slot.index()) {
            *place = Some(Arc::clone(segment));
        }
    }
}
