//! Loading: the index of a store that was just opened, shard by shard, out of hints.
//!
//! ```text
//! open      a hint for each live segment: the file beside it, or made by reading the segment
//! later     the first to ask for a shard:  its part of each hint -> the newest of each key
//! ```
//! A shard is loaded under its lock in the keydir, once, before anything in it can change. So what
//! is loaded is the state at the open, whenever that happens: compaction, which takes segments
//! away, loads every shard first.
//!
//! A hint that turns out to be damaged when its part is read is made again from its segment; the
//! answer is late, not wrong. What is damaged in a segment itself is a hole, and no key is named
//! there: see [`Segments::note_hole`]. With a whole hint beside it nothing needs to be guessed: the
//! key is known, and reading its value tells the damage.
//!
//! Any thread may load, several at once, each another shard.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::store::disk::Disk;
use crate::store::hint::{Hint, HintBuilder, HintEntry, HintOf, Tombstones};
use crate::store::key_hash::{KeyHash, KeyHasher};
use crate::store::keydir::{Keydir, ShardSource};
use crate::store::location::{Location, SegmentId, Seqno, len_of};
use crate::store::manifest::Manifest;
use crate::store::names;
use crate::store::record::{Footer, Record};
use crate::store::reserve::Reserve;
use crate::store::segment::{Origin, Segment, Step};
use crate::store::segments::Segments;
use crate::store::sift::{Met, Sift};
use crate::store::stats::Progress;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, thread};

/// Bytes of a segment after which the count of bytes read goes on (1 MiB).
const COUNT_BYTES: u64 = 1 << 20;

/// What an open found, for the store to be built on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) keydir: Arc<Keydir>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_number: u64,
    /// The last write.
    pub(crate) seqno: Seqno,
    /// Crash tails that were cut off.
    pub(crate) tails_cut: u64,
}

/// The hints of the segments that were live when the store was opened.
pub(crate) struct HintedIndex {
    hasher: KeyHasher,
    segments: Arc<Segments>,
    sources: Vec<Source>,
    /// The last clear: older records count for nothing.
    clear: Seqno,
    /// Segments whose hints were damaged, for the log.
    remade: Mutex<Vec<PathBuf>>,
}

struct Source {
    segment: Arc<Segment>,
    hint: Mutex<Hint>,
}

impl HintedIndex {
    /// The index of `hinted`, all of which are in `segments`.
    pub(crate) fn new(
        hasher: KeyHasher,
        segments: Arc<Segments>,
        hinted: Vec<(Arc<Segment>, Hint)>,
    ) -> Self {
        let clear = hinted.iter().map(|(_, hint)| hint.clear()).max().unwrap_or_default();
        for (segment, hint) in &hinted {
            let Tombstones { count, bytes } = hint.tombstones();
            segment.set_tombstones(count, bytes);
        }
        segments.note_cleared(clear);
        let source = |(segment, hint)| Source { segment, hint: Mutex::new(hint) };
        let sources = hinted.into_iter().map(source).collect();
        Self { hasher, segments, sources, clear, remade: Mutex::default() }
    }

    /// What the hint of `source` says of `shard`.
    fn read(&self, source: &Source, shard: usize, entries: &mut Vec<HintEntry>) -> Result<()> {
        let mut hint = source.hint.lock();
        if !hint.read_shard(shard, entries) {
            let segment = &source.segment;
            self.remade.lock().push(segment.path().to_path_buf());
            let note = |offset, last| self.segments.note_hole(segment, offset, last);
            *hint = make_hint(segment, self.hasher, &note, &mut |_| {})?;
            assert!(hint.read_shard(shard, entries), "a hint in memory is whole");
        }
        Ok(())
    }
}

impl ShardSource for HintedIndex {
    fn load(&self, shard: usize) -> Result<Vec<(KeyHash, Location)>> {
        let mut entries: Vec<(HintEntry, usize)> = Vec::new();
        let mut part = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            part.clear();
            self.read(source, shard, &mut part)?;
            entries.extend(part.iter().map(|entry| (*entry, index)));
        }
        // The stable sort, because it makes use of parts that are in order already.
        entries.sort_by_key(|(entry, _)| entry.order());
        entries.dedup_by(|(entry, _), (newer, _)| entry.same_key(newer));
        entries.retain(|(entry, _)| entry.is_put && entry.seqno > self.clear);
        let live = |(entry, index): &(HintEntry, usize)| {
            let segment = &self.sources.get(*index)?.segment;
            let len = usize::try_from(entry.len).unwrap_or(usize::MAX);
            segment.add_live(len, entry.expiry_ms);
            Some((entry.hash, segment.location(entry.offset)))
        };
        Ok(entries.iter().filter_map(live).collect())
    }

    fn tell(&self) {
        // Not in the loop's head: the lock would be held in its body, where who listens may load.
        let remade = std::mem::take(&mut *self.remade.lock());
        for path in remade {
            let path = path.display();
            let log = self.segments.log();
            log.warn(format_args!("the hint of {path} was damaged and is made again"));
        }
        self.segments.say_holes();
    }
}

/// The hints of `opened`: those that were just `made`, and others read, or made, several at once.
/// `progress` is called now and then, by this thread, about the bytes of segments that are read.
pub(crate) fn find_hints(
    opened: Vec<Arc<Segment>>,
    mut made: HashMap<SegmentId, Hint>,
    hasher: KeyHasher,
    segments: &Segments,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<(Arc<Segment>, Hint)>> {
    let find = |segment: Arc<Segment>| {
        let path = names::hint(segment.path());
        let open = || Hint::open(segments.disk(), &path, &HintOf::segment(&segment));
        let hint = made.remove(&segment.header.id).or_else(open);
        segment.set_has_hint();
        (segment, hint)
    };
    let mut found: Vec<_> = opened.into_iter().map(find).collect();
    let missing = found.iter_mut().filter(|(_, hint)| hint.is_none());
    let missing: Vec<_> = missing.map(|(segment, hint)| (Arc::clone(segment), hint)).collect();
    let total_bytes = missing.iter().map(|(segment, _)| segment.len()).sum();
    let helpers = thread::available_parallelism().map_or(1, usize::from).min(missing.len());
    let (done_bytes, next) = (AtomicU64::new(0), Mutex::new(missing.into_iter()));
    // Relaxed: a figure for people.
    let count = |bytes| done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
    let make_all = |count: &mut dyn FnMut(u64)| -> Result<()> {
        loop {
            // Not in the loop's condition: the lock would be held while the hint is made.
            let Some((segment, place)) = next.lock().next() else { return Ok(()) };
            let note = |offset, last| segments.note_hole(&segment, offset, last);
            let mut hint = make_hint(&segment, hasher, &note, count)?;
            keep_hint(&mut hint, segments.disk(), &segments.reserve, segment.path());
            *place = Some(hint);
        }
    };
    thread::scope(|scope| {
        let help = || {
            make_all(&mut |bytes| {
                count(bytes);
            })
        };
        let helpers: Vec<_> = (1..helpers).map(|_| scope.spawn(help)).collect();
        let mut told_bytes = 0;
        make_all(&mut |bytes| {
            told_bytes = count(bytes);
            progress(Progress { done_bytes: told_bytes, total_bytes });
        })?;
        helpers.into_iter().try_for_each(|helper| {
            helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // The last to be done may have been a helper, which tells nobody.
        if told_bytes < total_bytes {
            progress(Progress { done_bytes: total_bytes, total_bytes });
        }
        Ok(())
    })?;
    segments.say_holes();
    let found = found.into_iter().map(|(segment, hint)| Some((segment, hint?)));
    Ok(found.collect::<Option<_>>().expect("what was missing was made"))
}

/// Makes hints for those of `segments` that are sealed and have none, until `stop` says so.
///
/// # Errors
///
/// If a segment cannot be read. A hint that cannot be written is left for another time.
pub(crate) fn make_missing(
    segments: &Segments,
    hasher: KeyHasher,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    for segment in segments.snapshot().segments {
        if stop() {
            return Ok(());
        }
        if segment.footer().is_some() && !segment.has_hint() {
            // The index is complete, so a hole puts no key in doubt.
            let note = |_, _| segment.set_damaged();
            // Tried once: what failed is not worth another look before the next open, and is to
            // keep nobody from compacting.
            segment.set_has_hint();
            let mut hint = make_hint(&segment, hasher, &note, &mut |_| {})?;
            keep_hint(&mut hint, segments.disk(), &segments.reserve, segment.path());
        }
    }
    Ok(())
}

/// Writes `hint` beside its `segment`. It is a cache: if that fails, the next open makes it again.
pub(crate) fn keep_hint(hint: &mut Hint, disk: &dyn Disk, reserve: &Reserve, segment: &Path) {
    // Damage is to be met again by the next open, so it is not hidden behind a hint. And on a full
    // disk the room of the reserve is for others.
    if !hint.is_partial()
        && !reserve.is_lent()
        && let Err(error) = hint.write(disk, &names::hint(segment))
    {
        reserve.log().warn(format_args!("without a hint the next open takes longer: {error}"));
    }
}

/// The hint of a sealed segment, made by reading all of it. `count` is told of bytes that were
/// read; `note_hole` where something is damaged, and the last write that can have been there.
fn make_hint(
    segment: &Segment,
    hasher: KeyHasher,
    note_hole: &dyn Fn(u64, Seqno),
    count: &mut dyn FnMut(u64),
) -> Result<Hint> {
    let mut builder = HintBuilder::new(hasher);
    let mut scan = segment.scan();
    let mut counted = 0;
    loop {
        match scan.step()? {
            Step::Record { offset, record } => {
                builder.add(&record, offset);
                if offset > counted + COUNT_BYTES {
                    count(offset - counted);
                    counted = offset;
                }
            }
            Step::End => break,
            Step::Damaged { .. } => {
                builder = HintBuilder::new(hasher);
                sift(segment, note_hole, &mut builder);
                break;
            }
        }
    }
    count(segment.len() - counted);
    Ok(builder.finish(&HintOf::segment(segment)))
}

/// As `make_hint`, for a segment that is damaged.
fn sift(segment: &Segment, note_hole: &dyn Fn(u64, Seqno), builder: &mut HintBuilder) {
    builder.set_partial();
    let mut sift = Sift::new(segment.log(), segment.header.salt, segment.len());
    let is_log = segment.header.origin == Origin::Log;
    let footer_at = segment.len().saturating_sub(len_of(Footer::LEN));
    let mut open_hole: Option<u64> = None;
    // Whoever knows no better says that any write of the segment may have been there.
    let last = segment.footer().map_or(Seqno::MAX, |footer| footer.seqno_max);
    loop {
        match sift.step() {
            Met::Record { offset, record } => {
                if let Some(hole) = open_hole.take() {
                    note_hole(hole, if is_log { last_before(&record) } else { last });
                }
                builder.add(&record, offset);
            }
            Met::Hole(hole) => match hole.seqno {
                // The footer is nobody's write.
                _ if hole.offset == footer_at => {}
                Some(seqno) => note_hole(hole.offset, seqno),
                None => open_hole = open_hole.or(Some(hole.offset)),
            },
            Met::End => break,
        }
    }
    if let Some(hole) = open_hole {
        note_hole(hole, last);
    }
}

/// The last write before `record`, in a log.
fn last_before(record: &Record<'_>) -> Seqno {
    // Marks and footers carry the seqno of the write before them.
    if record.kind.is_write() { Seqno::new(record.seqno.get() - 1) } else { record.seqno }
}
