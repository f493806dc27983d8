//! The writer: group commit.
//!
//! Whoever holds the lane leads. A write that finds it free leads a group of one, without a queue,
//! an allocation or another thread; so does one that need not be synced and gets hold of it within
//! some microseconds. Whoever else comes queues. The first in the queue waits for the lane itself,
//! and then leads for all who have queued behind it: one append, at most one sync, one publication.
//!
//! ```text
//!  set, remove, apply --> queue --> lane (one leader) --> tail        a copy, or, if it is to be
//!                                        |           --> segment     synced, one pwrite
//!                                        |           --> sync lane   one fdatasync, if asked for
//!                                        '---------> --> keydir      published, in seqno order
//! ```
//!
//! The order of a leader's steps is the order of the promises: bytes are readable before they are
//! published, durable before they are published if anyone in the group asked, and published in
//! seqno order (invariant 3). The leader keeps the lane until all of that is done, so a group is
//! decided (is this key there?) on published state plus the earlier operations of its own group.
//!
//! The sync lane runs one `fdatasync` at a time, covers everything appended before it, and is taken
//! without the lane by `sync()` and by the interval thread: appends go on meanwhile.
//!
//! A failed append is undone and reported to its group. One that cannot be undone, or a failed
//! sync, **poisons** the writer for good (invariant 10): what is on disk is unknown, and a second
//! sync could report success for pages that the kernel has dropped. Reads go on.

mod appending;
mod figures;
mod lane;
mod publish;
mod queue;
mod sync_lane;

use std::hint;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::error::{KvsError, Result};
use crate::logger::Logger;
use crate::options::{Durability, Options};
use crate::store::disk::Disk;
use crate::store::keydir::Keydir;
use crate::store::location::Seqno;
use crate::store::record::{self, BatchPlace, Kind, MARK_LEN};
use crate::store::scratch::Scratch;
use crate::store::segment::{self, Origin};
use crate::store::segments::{Look, Pressure, Segments};
use crate::store::writer::figures::Counts;
use crate::store::writer::lane::Lane;
use crate::store::writer::queue::{Calls, Queue, QueuedOp, Reply, Request, Ticket, Waiter};
pub(crate) use crate::store::writer::queue::{Entry, Op, OpKind, Outcome};
use crate::store::writer::sync_lane::SyncLane;
use crate::sync::{
    Arc, AtomicU8, AtomicU64, CachePadded, Guard, Mutex, MutexGuard, Ordering, Signal, pin, thread,
};
use crate::write_batch::WriteDone;

/// While files come near their bound and compaction can help, this many appended bytes...
const THROTTLE_BYTES: u64 = 64 << 10;
/// ... wait this long, unless compaction gets done before: about 13 MB/s.
const THROTTLE_WAIT: Duration = Duration::from_millis(5);
/// Beyond the bound they wait this long: about 4 MB/s, and no stall of 20 ms.
const THROTTLE_WAIT_MAX: Duration = Duration::from_millis(15);

/// A group longer than this does not get the reserve: it would leave little for removes (64 KiB).
const RESERVE_USE_LEN_MAX: usize = 64 << 10;

const OPEN: u8 = 0;
/// What is queued is still done, and nothing more is taken.
const CLOSING: u8 = 1;
const POISONED: u8 = 2;
const CLOSED: u8 = 3;
/// Never takes anything.
const READ_ONLY: u8 = 4;

/// How often a writer tries the lane before it queues: for some 40 us, as long as a leader takes
/// who brings a piece of the tail into the log...
const LANE_TRIES: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 256 };
/// ... and how long it waits in between, in pauses of the processor.
const LANE_TRY_SPINS: u32 = 8;

/// How often `close` looks whether the queue has run dry.
const CLOSE_POLL: Duration = Duration::from_micros(100);

/// The one way into a store's log. All methods may be called from any thread.
pub(crate) struct Writer {
    dir: std::path::PathBuf,
    durability: Durability,
    auto_compaction: bool,
    log: Logger,
    keydir: Arc<Keydir>,
    segments: Arc<Segments>,
    state: AtomicU8,
    queue: CachePadded<Mutex<Queue>>,
    /// Boxed, so that who tries the lock does not slow who holds it.
    lane: CachePadded<Mutex<Box<Lane>>>,
    sync_lane: CachePadded<SyncLane>,
    /// Every write up to this one is published.
    published: CachePadded<AtomicU64>,
    /// Raised when the committer thread is to lead.
    commit_wanted: Signal,
    counts: CachePadded<Counts>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer that goes on after `last`, which is durable.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: std::path::PathBuf,
        options: &Options,
        keydir: Arc<Keydir>,
        segments: Arc<Segments>,
        last: Seqno,
    ) -> Self {
        Self {
            durability: options.durability,
            auto_compaction: options.auto_compaction,
            log: options.logger.clone(),
            keydir,
            segments,
            queue: CachePadded::default(),
            lane: CachePadded::new(Mutex::new(Box::new(Lane::new(last)))),
            sync_lane: CachePadded::new(SyncLane::new(disk, dir.clone(), last)),
            dir,
            state: AtomicU8::new(if options.read_only { READ_ONLY } else { OPEN }),
            published: AtomicU64::new(last.get()).into(),
            commit_wanted: Signal::default(),
            counts: CachePadded::default(),
        }
    }

    /// Does `op` and returns when it is published, and durable if `op` or the store asks for it.
    /// The caller is pinned: within that, pins cost next to nothing. Here it ends, before any wait.
    pub(crate) fn write(&self, op: &Op<'_>, guard: Guard) -> Result<Outcome> {
        self.check_open()?;
        op.entries.iter().for_each(|entry| self.prefetch_replaced(entry, &guard));
        if let Some(lane) = self.try_lane(op) {
            return self.lead_alone(lane, op, guard);
        }
        drop(guard);
        let ticket = Ticket::new();
        let reply = Reply::Waiter(Waiter(Arc::clone(&ticket)));
        let request = Request { op: QueuedOp::new(op), reply };
        if self.queue.lock().push(request) {
            self.lead_queue();
        }
        ticket.wait()
    }

    /// Hands `op` over, which is to be synced; `done` is called when it is done, by whichever
    /// thread leads then. Needs a thread in [`Writer::run_committer`].
    pub(crate) fn write_then(&self, op: &Op<'_>, done: WriteDone) {
        let op = QueuedOp::new(op);
        let mut queue = self.queue.lock();
        if let Err(error) = self.check_open() {
            drop(queue);
            return done(Err(error));
        }
        if queue.push(Request { op, reply: Reply::Call(done) }) {
            queue.committer_leads = true;
            drop(queue);
            self.commit_wanted.raise();
        }
    }

    /// The life of the committer thread: leads when only operations wait that no thread waits for.
    /// Returns when the writer is closed.
    pub(crate) fn run_committer(&self) {
        while self.state() != CLOSED {
            self.commit_wanted.wait(None);
            self.lead_for_committer();
        }
    }

    /// Leads if the committer thread was told to.
    fn lead_for_committer(&self) {
        if std::mem::take(&mut self.queue.lock().committer_leads) {
            self.lead_queue();
        }
    }

    /// The lane, if `op` need not queue for it.
    ///
    /// One that is synced queues if others do: whoever waits for the disk is to become one group,
    /// and what the same thread has handed over comes first. One that is not synced passes those
    /// who wait, since waking one of them takes longer than it does.
    fn try_lane(&self, op: &Op<'_>) -> Option<MutexGuard<'_, Box<Lane>>> {
        if op.sync || self.durability == Durability::Sync {
            let nobody_waits = !self.queue.lock().has_leader;
            return if nobody_waits { self.lane.try_lock() } else { None };
        }
        self.lane.try_lock().or_else(|| {
            (1..LANE_TRIES).find_map(|_| {
                (0..LANE_TRY_SPINS).for_each(|_| hint::spin_loop());
                self.lane.try_lock()
            })
        })
    }

    fn lead_alone(
        &self,
        mut lane: MutexGuard<'_, Box<Lane>>,
        op: &Op<'_>,
        guard: Guard,
    ) -> Result<Outcome> {
        let _poisons = PoisonsInPanic(self);
        let sync = op.sync || self.durability == Durability::Sync;
        let pinned = (!sync).then_some(guard);
        let outcome = self.stage(&mut lane, op.kind, op.entries, false);
        let committed = self.commit(&mut lane, sync);
        drop(pinned);
        self.throttle(&mut lane);
        committed.and(outcome)
    }

    /// Leads everyone who waits when the lane is free. By who was told to.
    fn lead_queue(&self) {
        let mut lane = self.lane.lock();
        let poisons = PoisonsInPanic(self);
        let requests = self.queue.lock().take();
        let grouped = requests.len() > 1;
        let mut calls = Calls::new();
        let mut replies = Vec::with_capacity(requests.len());
        let mut sync = self.durability == Durability::Sync;
        for Request { op, reply } in requests {
            let entries = op.entries();
            // A group lies in one segment; what does not fit begins the next one.
            if !lane.staged.is_empty() && (op.is_clear() || !lane.fits(&entries)) {
                self.finish(&mut lane, &mut replies, sync, &mut calls);
            }
            sync |= op.sync;
            replies.push((reply, self.stage(&mut lane, op.kind, &entries, grouped)));
            if op.is_clear() {
                self.finish(&mut lane, &mut replies, sync, &mut calls);
            }
        }
        self.finish(&mut lane, &mut replies, sync, &mut calls);
        drop(poisons);
        drop(lane);
        for (done, outcome) in calls {
            // Somebody else's code: its panic is not the writer's.
            if panic::catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                self.log.error(format_args!("a function given to write_then panicked"));
            }
        }
    }

    /// Commits what is staged and tells every waiting thread how it went.
    fn finish(
        &self,
        lane: &mut Lane,
        replies: &mut Vec<(Reply, Result<Outcome>)>,
        sync: bool,
        calls: &mut Calls,
    ) {
        let committed = self.commit(lane, sync);
        self.throttle(lane);
        for (reply, outcome) in replies.drain(..) {
            let outcome = match &committed {
                Ok(()) => outcome,
                Err(error) => Err(error.for_another()),
            };
            match reply {
                Reply::Waiter(waiter) => waiter.tell(outcome),
                Reply::Call(done) => {
                    calls.push((done, outcome.and_then(Outcome::or_key_not_found)));
                }
            }
        }
    }

    /// Adds the records of one operation to the buffer, unless its condition does not hold.
    fn stage(
        &self,
        lane: &mut Lane,
        kind: OpKind,
        entries: &[Entry<'_>],
        grouped: bool,
    ) -> Result<Outcome> {
        match self.state() {
            OPEN | CLOSING => {}
            POISONED => return Err(KvsError::Poisoned),
            _ => return Err(KvsError::Closed),
        }
        let reserve = &self.segments.reserve;
        if reserve.is_lent() && entries.iter().any(|entry| entry.draft.kind == Kind::Put) {
            reserve.hold()?;
        }
        // Publication cannot be undone, so nothing in it may wait for a file.
        let guard = pin();
        entries.iter().try_for_each(|entry| self.keydir.make_ready(entry.hash, &guard))?;
        let [entry] = entries else {
            return self.stage_batch(lane, entries, grouped, &guard);
        };
        let is_tombstone = entry.draft.kind == Kind::Tombstone;
        let holds = match kind {
            OpKind::Apply if !is_tombstone => true,
            OpKind::Apply | OpKind::IfPresent => self.newest(lane, entry, &guard)?.is_some(),
            OpKind::IfUnchanged(seqno) => self.newest(lane, entry, &guard)? == seqno,
        };
        if holds {
            self.begin(lane, entries)?;
            lane.stage(entry, BatchPlace::Alone, grouped);
            if grouped {
                self.prefetch_replaced(entry, &guard);
            }
        }
        let done = holds || kind == OpKind::Apply;
        Ok(if done { Outcome::Done } else { Outcome::Refused })
    }

    /// Begins to fetch the record that publication will look at, to tell whether it is of this key.
    /// Before the lane is taken: who waits for memory there makes all others wait.
    #[inline]
    fn prefetch_replaced(&self, entry: &Entry<'_>, guard: &Guard) {
        let candidates = self.keydir.candidates(entry.hash, guard);
        self.segments.prefetch(candidates.into_iter().flatten(), guard);
    }

    fn stage_batch(
        &self,
        lane: &mut Lane,
        entries: &[Entry<'_>],
        grouped: bool,
        guard: &Guard,
    ) -> Result<Outcome> {
        let mut effective = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.draft.kind == Kind::Put || self.newest(lane, entry, guard)?.is_some() {
                effective.push(entry);
            }
        }
        if let Some((last, front)) = effective.split_last() {
            self.begin(lane, entries)?;
            for entry in front {
                lane.stage(entry, BatchPlace::More, grouped);
            }
            let place = if front.is_empty() { BatchPlace::Alone } else { BatchPlace::Last };
            lane.stage(last, place, grouped);
        }
        Ok(Outcome::Done)
    }

    /// Makes room for `entries`, and begins a group with a mark if more became durable since the
    /// last one.
    fn begin(&self, lane: &mut Lane, entries: &[Entry<'_>]) -> Result<()> {
        if !lane.fits(entries) {
            self.rotate(lane, entries)?;
        }
        let durable = self.sync_lane.durable();
        if lane.staged.is_empty() && durable > lane.marked {
            let (base, salt) = lane.place();
            record::encode_mark(&mut lane.buffer, base, salt, lane.seqno, durable);
            lane.marked = durable;
        }
        Ok(())
    }

    /// The seqno of the newest put of the entry's key, after the operations staged before it;
    /// `None` if the key is absent, or has expired.
    fn newest(&self, lane: &Lane, entry: &Entry<'_>, guard: &Guard) -> Result<Option<Seqno>> {
        let clock = &self.segments.clock;
        if let Some(staged) = lane.latest_of(entry) {
            let is_there = staged.kind == Kind::Put && !clock.has_passed(staged.expiry_ms);
            return Ok(is_there.then_some(staged.seqno));
        }
        let mut scratch = Scratch::default();
        'lookup: loop {
            let mut damage = None;
            for location in self.keydir.candidates(entry.hash, guard)? {
                match self.segments.look(location, entry.draft.key, guard, &mut scratch) {
                    // As in a lookup: compaction moved the record meanwhile.
                    Ok(Look::Gone) => continue 'lookup,
                    Ok(Look::Other) => {}
                    Ok(Look::Found(segment, record)) => {
                        let record = segment.verify(record, location.offset())?;
                        self.segments.check_certain(Some(record.seqno))?;
                        return Ok((!clock.has_passed(record.expiry_ms)).then_some(record.seqno));
                    }
                    // As in a lookup: a readable record of the key is newer.
                    Err(error) => damage = Some(error),
                }
            }
            self.segments.check_certain(None)?;
            return damage.map_or(Ok(None), Err);
        }
    }

    /// Seals the active segment, if there is one, and begins another with room for `entries`.
    fn rotate(&self, lane: &mut Lane, entries: &[Entry<'_>]) -> Result<()> {
        match self.try_rotate(lane, entries) {
            Err(KvsError::NoSpace { .. }) if self.segments.reserve.lend() => {
                self.try_rotate(lane, entries)
            }
            done => done,
        }
    }

    fn try_rotate(&self, lane: &mut Lane, entries: &[Entry<'_>]) -> Result<()> {
        self.seal(lane)?;
        let len: usize = entries.iter().map(|entry| entry.draft.len()).sum();
        let capacity = self.segments.seal_bytes().max(segment::capacity_for(len + MARK_LEN));
        let active = self.segments.create(Origin::Log, lane.seqno, capacity)?;
        self.segments.publish();
        self.sync_lane.watch(active.segment());
        self.counts.add_rotation();
        let id = active.segment().header.id.get();
        self.log.debug(format_args!("log {id} begins, for up to {capacity} bytes"));
        lane.active = Some(active);
        self.segments.want_compaction();
        Ok(())
    }

    /// Appends, syncs if asked to, and publishes what is staged.
    fn commit(&self, lane: &mut Lane, sync: bool) -> Result<()> {
        let (Some(first), Some(last)) = (lane.staged.first(), lane.staged.last()) else {
            return Ok(());
        };
        let (before, last) = (Seqno::new(first.seqno.get() - 1), last.seqno);
        let appended = self.append(lane, before, last, sync).and_then(|base| {
            if sync {
                self.sync_to(last)?;
            }
            Ok(base)
        });
        let published = appended.and_then(|base| {
            self.publish(lane, base, last).inspect_err(|error| {
                // It is in the log and not in the keydir; only an open puts that right.
                self.poison(error);
            })
        });
        lane.clear();
        published
    }

    /// Slows down while the store is over its space bound and compaction is at work.
    fn throttle(&self, lane: &mut Lane) {
        if lane.unweighed_bytes < THROTTLE_BYTES || !self.auto_compaction {
            return;
        }
        lane.unweighed_bytes = 0;
        let wait = match self.segments.pressure() {
            Pressure::None => return,
            Pressure::Some => THROTTLE_WAIT,
            Pressure::Full => THROTTLE_WAIT_MAX,
        };
        let began = Instant::now();
        self.segments.space_returned.wait(Some(wait));
        self.counts.throttled.add(began.elapsed());
    }

    /// Takes no more writes, does what is queued, and makes everything durable. A second call does
    /// nothing.
    pub(crate) fn close(&self) -> Result<()> {
        let order = Ordering::AcqRel;
        let _ = self.state.compare_exchange(OPEN, CLOSING, order, Ordering::Acquire);
        while self.queue.lock().has_leader {
            // The committer may be the caller, or may have had no chance to run yet.
            self.lead_for_committer();
            thread::sleep(CLOSE_POLL);
        }
        let mut lane = self.lane.lock();
        let closed = match self.state() {
            CLOSED => return Ok(()),
            POISONED => Err(KvsError::Poisoned),
            // In a view there is nothing to seal and to sync.
            _ => {
                let sealed = self.seal(&mut lane).or_else(|error| {
                    self.log.warn(format_args!("the log is left without a footer: {error}"));
                    // What is only in the tail the next open finds there.
                    self.flush(&mut lane)
                });
                sealed.and_then(|()| self.sync_all())
            }
        };
        // Release: pairs with the Acquire in `state`.
        self.state.store(CLOSED, Ordering::Release);
        drop(lane);
        self.commit_wanted.raise();
        closed
    }

    fn poison(&self, why: &dyn std::fmt::Display) {
        // Release: pairs with the Acquire in `state`. Closed stays closed.
        let poisoned = |state| (state < POISONED).then_some(POISONED);
        if self.state.fetch_update(Ordering::Release, Ordering::Acquire, poisoned).is_ok() {
            self.log.error(format_args!("no more writes until the store is reopened: {why}"));
        }
    }

    fn state(&self) -> u8 {
        // Acquire: pairs with the Releases in `close` and in `poison`.
        self.state.load(Ordering::Acquire)
    }

    /// Whether writes are taken, and from this caller.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.state() {
            OPEN => self.log.check_caller(),
            READ_ONLY => Err(KvsError::ReadOnly),
            POISONED => Err(KvsError::Poisoned),
            _ => Err(KvsError::Closed),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state() == CLOSED
    }

    /// Every write up to this one is published.
    pub(crate) fn published(&self) -> Seqno {
        // Acquire: pairs with the Release in `publish`.
        Seqno::new(self.published.load(Ordering::Acquire))
    }

    /// Whether something is appended that may not be durable.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.sync_lane.appended() > self.sync_lane.durable()
    }
}

/// Held by who leads: a panic poisons, before the lane is free.
struct PoisonsInPanic<'a>(&'a Writer);

impl Drop for PoisonsInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(&"a panic");
        }
    }
}
