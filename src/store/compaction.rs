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
//!    key; see [`may_forget_tombstone`].
//! 2. All inputs leave in the same manifest edit.
//! 3. The write that made a record dead is made durable before the edit that drops the record:
//!    outputs, their directory entries *and the active log* are synced first. Otherwise a power
//!    loss could take the new value after the old one was already gone (invariant 13).
//! 4. Readers are protected by epochs; a file is removed when nobody can read it any more.
//! 5. Space stays within twice the live bytes and two segments: the writer slows down while
//!    compaction is behind.
//!
//! One compaction runs at a time; any thread may run it.

mod figures;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use figures::blocking_tombstone_bytes;

use crate::error::{KvsError, Result};
use crate::options::Options;
use crate::store::compaction::figures::{Counts, bytes_of};
use crate::store::disk::Disk;
use crate::store::keydir::{KeyHash, Keydir};
use crate::store::location::{Location, Seqno};
use crate::store::manifest::{ListedSegment, Manifest};
use crate::store::names;
use crate::store::record::{BatchPlace, Draft, Kind, Record};
use crate::store::reserve::RESERVE_BYTES;
use crate::store::segment::{self, Origin, Segment, SegmentWriter, Step};
use crate::store::segments::{Segments, Snapshot};
use crate::store::stats::Progress;
use crate::store::verify::Meter;
use crate::sync::{Arc, Mutex, pin};

/// When tombstones take more than this share of all bytes, the segments that keep them alive are
/// compacted too.
const TOMBSTONE_RATIO_MAX: (u64, u64) = (1, 10);

/// So many segments that are smaller than a quarter of a full one are compacted into one. A
/// program that opens the store for one write leaves a small segment each time.
const SMALL_SEGMENTS_MAX: usize = 8;

/// Most live bytes that one background compaction copies (256 MiB), so that space comes back in
/// steps and the files of one edit stay few.
const COPIED_BYTES_MAX: u64 = 256 << 20;

/// Copies are appended in pieces of this length (1 MiB).
const PIECE_LEN: usize = 1 << 20;

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

/// A record that was copied.
struct Move {
    hash: KeyHash,
    from: Location,
    to: Location,
    len: usize,
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
        let counts = Counts::default();
        Self { disk, dir, options, keydir, segments, manifest, counts }
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

    /// Lists the logs that were sealed since the last manifest, all of which are durable: from then
    /// on a hole in one of them is damage, not the tail of a crash, and an open need not look.
    pub(crate) fn list_sealed(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let next = self.manifest_without(&[], &manifest.1);
        if next.segments == manifest.1.segments {
            return Ok(());
        }
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
            self.segments.set_compacting(true);
            let ran =
                self.replace_in_room(&mut manifest, &before, inputs, sync_log, stop, progress);
            self.segments.set_compacting(false);
            self.counts.add_time(began.elapsed());
            let (_, bytes_after) = self.segments.live_and_total_bytes();
            match ran {
                // Only a part fitted; what it gave back is room for more.
                Ok(done) if 0 < done && done < count && bytes_after < bytes_before => {
                    drop(before);
                    self.sweep()?;
                }
                ran => break ran.map(|done| done > 0),
            }
        };
        // Only now does this thread let go of what it retired.
        self.sweep()?;
        if let Err(error) = self.segments.reserve.hold() {
            self.options.logger.debug(format_args!("no room for the reserve yet: {error}"));
        }
        ran
    }

    /// The segments that are to be replaced.
    fn pick(&self, scope: Scope, now: &Snapshot) -> Vec<Arc<Segment>> {
        let is_sealed = |segment: &&Arc<Segment>| segment.footer().is_some();
        let mut sealed: Vec<_> = now.segments.iter().filter(is_sealed).cloned().collect();
        let dead = |segment: &Segment| segment.len().saturating_sub(segment.live_bytes());
        let small_bytes = self.segments.seal_bytes() / 4;
        let is_small = |segment: &Segment| segment.len() < small_bytes;
        let tombstones: u64 = sealed.iter().map(|segment| segment.tombstone_bytes()).sum();
        if scope == Scope::All {
            // Tombstones and what they outrank go together: take all.
            if tombstones == 0 {
                let many = sealed.iter().filter(|segment| is_small(segment)).count() > 1;
                sealed.retain(|segment| {
                    dead(segment) > segment::capacity_for(0) || many && is_small(segment)
                });
            }
            return sealed;
        }
        let total: u64 = sealed.iter().map(|segment| segment.len()).sum();
        if tombstones * TOMBSTONE_RATIO_MAX.1 > total * TOMBSTONE_RATIO_MAX.0 {
            return sealed;
        }
        let percent = u64::from(self.options.compaction_dead_percent_min);
        let mut picked: Vec<_> = sealed
            .iter()
            .filter(|segment| dead(segment) * 100 >= segment.len() * percent)
            .cloned()
            .collect();
        picked.sort_by_key(|segment| segment.live_bytes());
        let mut copied = 0;
        picked.retain(|segment| {
            copied += segment.live_bytes();
            copied <= COPIED_BYTES_MAX
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
        let copied = |input: &Segment| input.live_bytes() + input.tombstone_bytes();
        let mut room = RESERVE_BYTES;
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
        let mut copying = Copying::new(self);
        let mut meter = Meter::new(progress, bytes_of(inputs));
        let copied = copying.copy_all(before, inputs, stop, &mut meter);
        let copied = copied.and(copying.finish());
        let outputs = copying.outputs.clone();
        // The manifest is to list what the syncs below cover: a log that is sealed after this
        // moment stays unlisted, since its end may not be durable yet.
        let next = self.manifest_without(inputs, &manifest.1);
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
        self.edit(manifest, next)?;
        self.segments.publish();
        for moved in &copying.moves {
            self.relocate(moved);
        }
        self.segments.retire(inputs);
        self.note_done(inputs, &outputs, copying.began);
        Ok(true)
    }

    /// The manifest of this moment, without `inputs`.
    fn manifest_without(&self, inputs: &[Arc<Segment>], current: &Manifest) -> Manifest {
        let now = self.segments.snapshot();
        let is_input = |id| inputs.iter().any(|input| input.header.id == id);
        let mut next = current.clone();
        next.segments.clear();
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
            if segment.header.origin == Origin::Log {
                next.log_after = next.log_after.max(footer.seqno_max.get());
            }
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

    fn relocate(&self, moved: &Move) {
        let guard = pin();
        let output = self.segments.get(moved.to.slot(), &guard);
        // Counted first: a reader of statistics may see a record twice, never minus one.
        output.inspect(|output| output.add_live(moved.len));
        if self.keydir.change(moved.hash, &guard).relocate(moved.from, moved.to) {
            let input = self.segments.get(moved.from.slot(), &guard);
            input.inspect(|input| input.sub_live(moved.len));
        } else {
            // Overwritten or removed while it was copied: the copy is dead on arrival.
            output.inspect(|output| output.sub_live(moved.len));
        }
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

/// The copying half of a compaction.
struct Copying<'a> {
    compactor: &'a Compactor,
    writer: Option<SegmentWriter>,
    buffer: Vec<u8>,
    outputs: Vec<Arc<Segment>>,
    moves: Vec<Move>,
    began: Instant,
    bytes: u64,
}

impl<'a> Copying<'a> {
    fn new(compactor: &'a Compactor) -> Self {
        Self {
            compactor,
            writer: None,
            buffer: Vec::new(),
            outputs: Vec::new(),
            moves: Vec::new(),
            began: Instant::now(),
            bytes: 0,
        }
    }

    fn copy_all(
        &mut self,
        before: &Snapshot,
        inputs: &[Arc<Segment>],
        stop: &dyn Fn() -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        for input in inputs {
            let mut scan = input.scan();
            loop {
                match scan.step()? {
                    Step::Record { offset, record } => {
                        meter.at(offset);
                        if self.is_needed(input, offset, &record, &before.segments, inputs) {
                            self.copy(input, offset, &record)?;
                        }
                    }
                    Step::End => break,
                    Step::Damaged { offset, damage } => return Err(input.corrupt(offset, damage)),
                }
                if self.buffer.len() >= PIECE_LEN {
                    self.flush()?;
                    self.pace();
                    if stop() {
                        return Ok(());
                    }
                }
            }
            meter.end_of_file(input.len());
        }
        Ok(())
    }

    fn is_needed(
        &self,
        input: &Segment,
        offset: u64,
        record: &Record<'_>,
        live: &[Arc<Segment>],
        inputs: &[Arc<Segment>],
    ) -> bool {
        match record.kind {
            Kind::Put => {
                let keydir = &self.compactor.keydir;
                keydir.points_at(keydir.hash(record.key), input.location(offset), &pin())
            }
            Kind::Tombstone => !may_forget_tombstone(record.seqno, live, inputs),
            Kind::Mark | Kind::Footer => false,
        }
    }

    fn copy(&mut self, input: &Segment, offset: u64, record: &Record<'_>) -> Result<()> {
        let draft = Draft::copy_of(record);
        let fits = |writer: &SegmentWriter| writer.fits(self.buffer.len() + draft.len());
        if !self.writer.as_ref().is_some_and(fits) {
            self.finish()?;
            let segments = &self.compactor.segments;
            let capacity = segments.seal_bytes().max(segment::capacity_for(draft.len()));
            self.writer = Some(segments.create(Origin::Copies, Seqno::ZERO, capacity)?);
        }
        let writer = self.writer.as_mut().expect("made above");
        let output = writer.segment();
        let (base, salt) = (output.len(), output.header.salt);
        let start = u64::try_from(self.buffer.len()).expect("a length fits 64 bits");
        let to = output.location(base + start);
        draft.encode(&mut self.buffer, base, salt, record.seqno, BatchPlace::Alone);
        if record.kind == Kind::Tombstone {
            output.add_tombstone(draft.len());
        } else {
            let hash = self.compactor.keydir.hash(record.key);
            self.moves.push(Move { hash, from: input.location(offset), to, len: draft.len() });
        }
        writer.note(record.seqno);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.append(&self.buffer).map_err(|failed| failed.error)?;
            self.bytes += u64::try_from(self.buffer.len()).expect("a length fits 64 bits");
            self.buffer.clear();
        }
        Ok(())
    }

    /// Seals the current output, if there is one. After a failure too, so that it can be removed.
    fn finish(&mut self) -> Result<()> {
        let flushed = self.flush();
        if let Some(mut writer) = self.writer.take() {
            self.outputs.push(Arc::clone(writer.segment()));
            flushed?;
            writer.seal().map_err(|failed| failed.error)?;
        }
        Ok(())
    }

    /// Waits until the copied bytes are within the rate that the options allow.
    fn pace(&self) {
        if let Some(rate) = self.compactor.options.compaction_bytes_per_second_max {
            let due = Duration::from_millis(self.bytes.saturating_mul(1000) / rate);
            thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
    }
}

impl Drop for Compactor {
    /// Removes what the last readers have let go of. What stays is removed by the next open.
    fn drop(&mut self) {
        if let Err(error) = self.segments.sweep() {
            let log = &self.options.logger;
            log.warn(format_args!("a compacted file stays until the next open: {error}"));
        }
    }
}
