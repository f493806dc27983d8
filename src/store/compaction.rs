//! Compaction: gives back the space of dead records.
//!
//! ```text
//! pick inputs -> copy live records to outputs -> sync outputs, directory, active log
//!             -> manifest                 the instant it happens (invariant 8)
//!             -> keydir, entry by entry   each only if it still points at the old place
//!             -> retire inputs            files go after the last reader
//! ```
//!
//! Copies keep seqno, key, value and body checksum, which is verified on the way; only the header
//! is finished anew for its new place. Reads and writes go on throughout: the writer's lane is
//! never taken.
//!
//! # Rules that others learned the hard way
//!
//! 1. A tombstone may be forgotten only if no segment that stays can hold an older record of its
//!    key; see [`may_forget_tombstone`]. The same goes for a live record that has expired: it is
//!    left out, and where its tombstone could not be forgotten, a tombstone of the same seqno takes
//!    its place.
//! 2. All inputs leave in the same manifest edit.
//! 3. The write that made a record dead is made durable before the edit that drops the record:
//!    outputs, their directory entries *and the active log* are synced first. Otherwise a power
//!    loss could take the new value after the old one was already gone (invariant 13).
//! 4. Readers are protected by epochs; a file is removed when nobody can read it any more.
//! 5. Space stays within twice the live bytes and two segments: the writer slows down while
//!    compaction is behind.
//!
//! # Expired records
//!
//! Until the manifest edit the keydir points at them, as at all others, and readers compare with
//! the clock; a crash leaves them as they were. After it their entries go, unless their keys were
//! set anew meanwhile; reads meet no record then and say what they said before. At no time are both
//! the record and the tombstone of its seqno needed: whichever is there, its key is absent, and
//! both outrank the same older records.
//!
//! One compaction runs at a time; any thread may run it.

mod copying;
mod figures;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use figures::blocking_tombstone_bytes;

use crate::error::{KvsError, Result};
use crate::options::Options;
use crate::store::compaction::copying::{Copying, Move};
use crate::store::compaction::figures::{Counts, bytes_of};
use crate::store::disk::Disk;
use crate::store::keydir::Keydir;
use crate::store::location::{Location, Seqno};
use crate::store::manifest::{ListedSegment, Manifest};
use crate::store::names;
use crate::store::scratch::Scratch;
use crate::store::segment::{self, Segment};
use crate::store::segments::{Segments, Snapshot};
use crate::store::stats::Progress;
use crate::store::verify::Meter;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, pin, thread};

/// When tombstones take more than this of all bytes, in percent, the segments that keep them alive
/// are compacted too.
const TOMBSTONE_PERCENT_MAX: u64 = 10;

/// So many segments that are smaller than a quarter of a full one are compacted into one. A
/// program that opens the store for one write leaves a small segment each time.
const SMALL_SEGMENTS_MAX: usize = 8;

/// Most live bytes that one background compaction copies or finds expired (256 MiB), so that space
/// comes back in steps and the files of one edit stay few.
const MOVED_BYTES_MAX: u64 = 256 << 20;

/// How long a finished compaction waits for readers before it leaves files to a later sweep.
const SWEEP_WAIT: Duration = Duration::from_millis(100);

/// Everything a compaction works on.
#[derive(Debug)]
pub(crate) struct Compactor {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    keydir: Arc<Keydir>,
    segments: Arc<Segments>,
    /// The manifest on disk and its number. Holding it is the right to compact.
    manifest: Mutex<(u64, Manifest)>,
    /// Whether a manifest could not be written that was to replace inputs by outputs. Both stay
    /// then, and an open that meets both may find fewer expired keys than are counted here.
    has_both: AtomicBool,
    counts: Counts,
}

/// How much a compaction takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Segments that are worth it.
    Worthwhile,
    /// Every segment with anything dead in it.
    All,
}

impl Compactor {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: Options,
        keydir: Arc<Keydir>,
        segments: Arc<Segments>,
        number: u64,
        manifest: Manifest,
    ) -> Self {
        let manifest = Mutex::new((number, manifest));
        let (has_both, counts) = (AtomicBool::new(false), Counts::default());
        Self { disk, dir, options, keydir, segments, manifest, has_both, counts }
    }

    /// Gives back the space of everything that is dead in sealed segments. `sync_log` makes all
    /// writes so far durable, and the logs that are sealed. `progress` is called about once per
    /// MiB. Gives up, without an effect, when `stop` says so.
    pub(crate) fn compact_all(
        &self,
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        self.run(Scope::All, sync_log, stop, progress)?;
        if stop() { Err(KvsError::Closed) } else { Ok(()) }
    }

    /// Waits for the compaction that runs now. Those who come later find `stop` to say so.
    pub(crate) fn finish(&self) {
        drop(self.manifest.lock());
    }

    /// Compacts what is worth it; false if there was nothing. Stops early, without an effect, when
    /// `stop` says so.
    pub(crate) fn compact_some(
        &self,
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        self.run(Scope::Worthwhile, sync_log, stop, &mut |_| {})
    }

    /// Calls `look` with the manifest that counts, while nothing is being compacted.
    pub(crate) fn at_rest<R>(&self, look: impl FnOnce(&Manifest) -> R) -> R {
        look(&self.manifest.lock().1)
    }

    /// Whether a log was sealed since the last manifest.
    pub(crate) fn has_unlisted(&self) -> bool {
        let manifest = self.manifest.lock();
        let now = self.segments.snapshot().segments;
        now.iter().any(|held| held.footer().is_some() && !manifest.1.lists(held.header.id))
    }

    /// Lists the logs that were sealed since the last manifest: from then on a hole in one of them
    /// is damage, not the tail of a crash, and an open need not look. `sync_log` makes the logs
    /// durable that are sealed. `key_count` is given, if it is known, when the store is being
    /// closed.
    pub(crate) fn list_sealed(
        &self,
        key_count: Option<u64>,
        sync_log: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let mut manifest = self.manifest.lock();
        // As in `replace`: a log that is sealed after this moment is not listed, since its end may
        // not be durable yet.
        let now = self.segments.snapshot();
        let mut next = Self::manifest_without(&now, &[], &manifest.1);
        // Relaxed: the lock above orders it.
        next.key_count = key_count.filter(|_| !self.has_both.load(Ordering::Relaxed));
        if next.segments == manifest.1.segments && next.key_count == manifest.1.key_count {
            return Ok(());
        }
        sync_log()?;
        self.edit(&mut manifest, next)
    }

    fn run(
        &self,
        scope: Scope,
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool> {
        let mut manifest = self.manifest.lock();
        // What is dead is known only when everything is loaded; and see `loading`.
        self.keydir.load_all(stop)?;
        if stop() {
            return Ok(false);
        }
        let ran = loop {
            let before = self.segments.snapshot();
            let inputs = self.pick(scope, &before);
            if inputs.is_empty() {
                break Ok(false);
            }
            let count = inputs.len();
            let (_, bytes_before) = self.segments.live_and_total_bytes();
            let began = Instant::now();
            let ran =
                self.replace_in_room(&mut manifest, &before, inputs, sync_log, stop, progress);
            self.counts.add_time(began.elapsed());
            let (_, bytes_after) = self.segments.live_and_total_bytes();
            match ran {
                // Only a part fitted; what it gave back is room for more.
                Ok(done) if done < count && bytes_after < bytes_before => {
                    drop(before);
                    self.sweep()?;
                }
                ran => break ran.map(|done| done > 0),
            }
        };
        // Where there was something to do, there may be more.
        let is_done = scope == Scope::All || !matches!(ran, Ok(true));
        self.segments.note_compacted(is_done);
        // Only now does this thread let go of what it retired.
        self.sweep()?;
        if let Err(error) = self.segments.reserve.hold() {
            self.options.logger.debug(format_args!("no room for the reserve yet: {error}"));
        }
        ran
    }

    /// The segments that are to be replaced.
    fn pick(&self, scope: Scope, now: &Snapshot) -> Vec<Arc<Segment>> {
        let is_sealed =
            |segment: &&Arc<Segment>| segment.footer().is_some() && !segment.is_damaged();
        let mut sealed: Vec<_> = now.segments.iter().filter(is_sealed).cloned().collect();
        let now_ms = self.segments.clock.now_ms();
        let records = |segment: &Segment| segment.len().saturating_sub(segment::capacity_for(0));
        let lasting = |segment: &Segment| segment.lasting_bytes(now_ms);
        // What compacting gives back for certain. Tombstones may have to be copied: a segment that
        // is picked for them alone would be picked for ever.
        let dead = |segment: &Segment| {
            records(segment).saturating_sub(lasting(segment) + segment.tombstone_bytes())
        };
        let small_bytes = self.segments.seal_bytes() / 4;
        let is_small = |segment: &Segment| segment.len() < small_bytes;
        let tombstones: u64 = sealed.iter().map(|segment| segment.tombstone_bytes()).sum();
        if scope == Scope::All {
            // Tombstones and what they outrank go together: take all. What has expired may need
            // tombstones.
            let may_expire = sealed.iter().any(|segment| segment.may_hold_expired(now_ms));
            if tombstones == 0 && !may_expire {
                let many = sealed.iter().filter(|segment| is_small(segment)).count() > 1;
                sealed.retain(|segment| dead(segment) > 0 || many && is_small(segment));
            }
            return sealed;
        }
        let total: u64 = sealed.iter().map(|segment| records(segment)).sum();
        let live: u64 = sealed.iter().map(|segment| lasting(segment)).sum();
        let is_over_bound = total > 2 * live + 2 * self.segments.seal_bytes();
        if tombstones * 100 > total * TOMBSTONE_PERCENT_MAX || is_over_bound && tombstones > 0 {
            return sealed;
        }
        let percent = u64::from(self.options.compaction_dead_percent_min);
        let mut picked: Vec<_> = sealed
            .iter()
            .filter(|segment| dead(segment) * 100 >= records(segment) * percent)
            .cloned()
            .collect();
        picked.sort_by_key(|segment| lasting(segment));
        // Expired records count: for each there is an entry of the keydir to take out. Copies and
        // what they are copied from are there at once, so near the bound steps are small. The first
        // segment goes whatever it holds.
        let moved_bytes_max = self.segments.room_bytes().min(MOVED_BYTES_MAX);
        let mut moved = 0;
        picked.retain(|segment| {
            let is_first = moved == 0;
            moved += segment.live_bytes();
            is_first || moved <= moved_bytes_max
        });
        let mut small = sealed;
        small.retain(|segment| is_small(segment));
        if small.len() > SMALL_SEGMENTS_MAX {
            small.retain(|segment| !picked.iter().any(|held| Arc::ptr_eq(held, segment)));
            picked.append(&mut small);
        }
        picked
    }

    /// As `replace`, and returns how many inputs were replaced. On a full disk it makes do with the
    /// reserve, for those inputs of which the least is to be copied.
    fn replace_in_room(
        &self,
        manifest: &mut (u64, Manifest),
        before: &Snapshot,
        mut inputs: Vec<Arc<Segment>>,
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<usize> {
        let now_ms = self.segments.clock.now_ms();
        let copied = |input: &Segment| input.lasting_bytes(now_ms) + input.tombstone_bytes();
        let mut room = self.segments.reserve.bytes();
        loop {
            let ran = self.replace(manifest, before, &inputs, sync_log, stop, progress);
            if !matches!(ran, Err(KvsError::NoSpace { .. })) {
                return ran.map(|ran| if ran { inputs.len() } else { 0 });
            }
            // Outputs that were given up take room until they are removed.
            self.sweep()?;
            self.segments.reserve.lend();
            room /= 2;
            inputs.sort_by_key(|input| copied(input));
            let mut bytes = 0;
            inputs.retain(|input| {
                bytes += copied(input);
                bytes <= room
            });
            // Without any copies a manifest still needs room.
            if inputs.is_empty() || room == 0 {
                return ran.map(|_| 0);
            }
        }
    }

    /// Replaces `inputs` by copies of what is live in them; false if it was stopped.
    fn replace(
        &self,
        manifest: &mut (u64, Manifest),
        before: &Snapshot,
        inputs: &[Arc<Segment>],
        sync_log: &dyn Fn() -> Result<()>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool> {
        self.say_begun(inputs);
        let mut copying = Copying::new(self, &before.segments, inputs);
        let mut meter = Meter::new(progress, bytes_of(inputs));
        let copied = copying.copy_all(stop, &mut meter);
        let copied = copied.and(copying.finish());
        let outputs = copying.outputs.clone();
        // The manifest is to list what the syncs below cover: a log that is sealed after this
        // moment stays unlisted, since its end may not be durable yet.
        let next = Self::manifest_without(&self.segments.snapshot(), inputs, &manifest.1);
        let prepared = copied.and_then(|()| {
            outputs.iter().try_for_each(|output| output.sync())?;
            // Rule 3. The log's own new directory entries are synced with it.
            self.disk.sync_dir(&self.dir)?;
            sync_log()
        });
        if prepared.is_err() || stop() {
            // Nothing has happened yet, and the outputs are listed nowhere.
            self.segments.retire(&outputs);
            prepared?;
            return Ok(false);
        }
        // Relaxed: as in `list_sealed`.
        let edited = self.edit(manifest, next);
        edited.inspect_err(|_| self.has_both.store(true, Ordering::Relaxed))?;
        self.segments.publish();
        for moved in &copying.moves {
            match moved.to {
                Some(to) => self.relocate(moved, to)?,
                None => self.forget(moved)?,
            }
        }
        self.segments.retire(inputs);
        self.note_done(inputs, &outputs, copying.began);
        Ok(true)
    }

    /// The manifest of the moment `now`, without `inputs`. A log that was sealed since is listed.
    pub(crate) fn manifest_without(
        now: &Snapshot,
        inputs: &[Arc<Segment>],
        current: &Manifest,
    ) -> Manifest {
        let is_input = |id| inputs.iter().any(|input| input.header.id == id);
        let mut next = current.clone();
        next.segments.clear();
        next.key_count = None;
        next.log_from = now.next_id.get();
        next.log_after = now.seqno.get();
        for segment in &now.segments {
            let id = segment.header.id;
            let Some(footer) = segment.footer() else {
                // The active log: the only segment without a footer, and the last log.
                next.log_from = id.get();
                next.log_after = segment.header.seqno_before.get();
                continue;
            };
            // It had none perhaps when `now.seqno` was determined.
            next.log_after = next.log_after.max(footer.seqno_max.get());
            if !is_input(id) {
                next.segments.push(ListedSegment { id: id.get(), bytes: segment.len() });
            }
        }
        next
    }

    /// Writes the manifest `next`: the instant at which the compaction happens.
    fn edit(&self, manifest: &mut (u64, Manifest), next: Manifest) -> Result<()> {
        let previous = names::manifest(&self.dir, manifest.0);
        // If this fails, either manifest may count at the next open; both are right as long as
        // neither inputs nor outputs go, and the next edit lists them all.
        manifest.0 += 1;
        next.write(&*self.disk, &self.dir, manifest.0)?;
        manifest.1 = next;
        if let Err(error) = self.disk.remove(&previous) {
            // It has happened all the same; the next open removes the file.
            let log = &self.options.logger;
            log.warn(format_args!("a manifest that no longer counts stays: {error}"));
        }
        Ok(())
    }

    fn relocate(&self, moved: &Move, to: Location) -> Result<()> {
        let guard = pin();
        let output = self.segments.get(to.slot(), &guard);
        // Counted first: a reader of statistics may see a record twice, never minus one.
        output.inspect(|output| output.add_live(moved.len, moved.expiry_ms));
        if self.keydir.change(moved.hash, &guard)?.relocate(moved.from, to) {
            let input = self.segments.get(moved.from.slot(), &guard);
            input.inspect(|input| input.sub_live(moved.len, moved.expiry_ms));
        } else {
            // Overwritten or removed while it was copied: the copy is dead on arrival.
            output.inspect(|output| output.sub_live(moved.len, moved.expiry_ms));
        }
        Ok(())
    }

    /// Takes out the entry of an expired record, unless its key was set anew meanwhile, and the key
    /// with it.
    fn forget(&self, moved: &Move) -> Result<()> {
        let guard = pin();
        let input = self.segments.get(moved.from.slot(), &guard);
        let input = input.expect("inputs are retired when nothing points into them any more");
        let change = self.keydir.change(moved.hash, &guard)?;
        let Some(entry) = change.entry_at(moved.from) else { return Ok(()) };
        // Read once more: the keys of all that has expired would not fit into memory.
        let mut scratch = Scratch::default();
        match input.record(moved.from.offset(), &mut scratch) {
            Ok(record) => self.keydir.note_presence(record.key(), true, false),
            // It could be read a moment ago.
            Err(error) => self.keydir.note_unreadable_gone(&error),
        }
        change.remove(entry);
        input.sub_live(moved.len, moved.expiry_ms);
        Ok(())
    }

    /// Removes files that nobody can read any more, waiting a little for those who can.
    fn sweep(&self) -> Result<()> {
        let deadline = Instant::now() + SWEEP_WAIT;
        while !self.segments.sweep()? && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Whether a tombstone with `seqno` can be forgotten when `inputs` are replaced.
///
/// A tombstone exists to outrank older puts of its key during recovery. Such a put can only be in
/// a live segment that holds some seqno smaller than the tombstone's. If every such segment is an
/// input, the puts vanish in the same instant as the tombstone (invariant 8), and there is nothing
/// left to outrank. If even one is not, forgetting the tombstone brings a removed key back to life
/// at the next open. Segments that come to life during the compaction hold newer writes only.
///
/// Checklist: if the manifest ever stops switching all inputs at once, this rule is wrong. If the
/// rule changes, `figures::blocking_tombstone_bytes` does too.
fn may_forget_tombstone(seqno: Seqno, live: &[Arc<Segment>], inputs: &[Arc<Segment>]) -> bool {
    let stays = |segment: &&Arc<Segment>| !inputs.iter().any(|input| Arc::ptr_eq(input, segment));
    live.iter().filter(stays).all(|segment| seqno <= segment.all_after())
}
