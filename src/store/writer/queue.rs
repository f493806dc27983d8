//! Operations, and the queue of those that wait for a leader.
//!
//! An [`Op`] borrows its keys and values from the caller. One that has to wait is copied into a
//! [`QueuedOp`], which owns them, and its [`Reply`] says who is told how it went: a thread that
//! waits on a [`Ticket`], or a function to be called.
//!
//! Any thread may queue; only the leader takes requests out. Nothing here knows files.

use crate::error::{KvsError, Result};
use crate::store::key_hash::KeyHash;
use crate::store::location::Seqno;
use crate::store::record::{Draft, Kind};
use crate::sync::{Arc, Condvar, Mutex};
use crate::write_batch::WriteDone;

/// One key's part of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) hash: KeyHash,
    pub(crate) draft: Draft<'a>,
}

/// When an operation is done. Otherwise it is refused, and nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpKind {
    /// Always. Puts and tombstones, all or nothing; a tombstone of an absent key has no effect.
    Apply,
    /// If its one key is there.
    IfPresent,
    /// If the newest record of its one key is still the one with this seqno, or if it is still
    /// absent. Compaction moves records but keeps seqnos, so it changes nothing.
    IfUnchanged(Option<Seqno>),
}

/// How a decided operation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    Done,
    /// Its condition did not hold.
    Refused,
}

/// An operation whose keys and values the caller holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op<'a> {
    pub(crate) kind: OpKind,
    /// Each key once.
    pub(crate) entries: &'a [Entry<'a>],
    pub(crate) sync: bool,
}

/// An operation that waits in the queue and owns its bytes.
#[derive(Debug)]
pub(super) struct QueuedOp {
    pub(super) kind: OpKind,
    /// For each entry: hash, draft without its bytes, length of key, length of value.
    pub(super) parts: Vec<(KeyHash, Draft<'static>, usize, usize)>,
    /// Keys and values, one after the other.
    pub(super) bytes: Vec<u8>,
    pub(super) sync: bool,
}

impl QueuedOp {
    pub(super) fn new(op: &Op<'_>) -> Self {
        let len = |entry: &Entry<'_>| entry.draft.key.len() + entry.draft.value.len();
        let mut bytes = Vec::with_capacity(op.entries.iter().map(len).sum());
        let mut part = |entry: &Entry<'_>| {
            let draft = &entry.draft;
            bytes.extend_from_slice(draft.key);
            bytes.extend_from_slice(draft.value);
            (entry.hash, draft.moved_to(b"", b""), draft.key.len(), draft.value.len())
        };
        let parts = op.entries.iter().map(&mut part).collect();
        Self { kind: op.kind, parts, bytes, sync: op.sync }
    }

    /// Whether it clears the store. Then it is a group of its own: what comes after it in the queue
    /// is decided on a store that is empty.
    pub(super) fn is_clear(&self) -> bool {
        self.parts.iter().any(|(_, draft, ..)| draft.kind == Kind::Clear)
    }

    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        let mut rest = &*self.bytes;
        let entry =
            |(hash, draft, key_len, value_len): &(KeyHash, Draft<'static>, usize, usize)| {
                let (key, after) = rest.split_at(*key_len);
                let (value, after) = after.split_at(*value_len);
                rest = after;
                Entry { hash: *hash, draft: draft.moved_to(key, value) }
            };
        self.parts.iter().map(entry).collect()
    }
}

/// Who is told how a queued operation went.
pub(super) enum Reply {
    /// A thread that waits.
    Waiter(Waiter),
    /// Nobody waits; this is called.
    Call(WriteDone),
}

impl Outcome {
    /// For those who can only be told of an error: the one condition they can set is that a key to
    /// be removed is there.
    pub(crate) fn or_key_not_found(self) -> Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Refused => Err(KvsError::KeyNotFound),
        }
    }
}

/// Calls to make when neither lane nor lead is held any more: they may write, or close the store.
pub(super) type Calls = Vec<(WriteDone, Result<()>)>;

/// What a thread waits on that has queued an operation.
pub(super) struct Ticket {
    outcome: Mutex<Option<Result<Outcome>>>,
    told: Condvar,
}

impl Ticket {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { outcome: Mutex::default(), told: Condvar::new() })
    }

    fn tell(&self, outcome: Result<Outcome>) {
        *self.outcome.lock() = Some(outcome);
        self.told.notify_one();
    }

    pub(super) fn wait(&self) -> Result<Outcome> {
        let mut outcome = self.outcome.lock();
        loop {
            match outcome.take() {
                Some(outcome) => return outcome,
                None => self.told.wait(&mut outcome),
            }
        }
    }
}

/// The duty to tell a waiting thread how its operation went. Who drops it, which only a leader does
/// that panics, tells that the writer is poisoned.
pub(super) struct Waiter(pub(super) Arc<Ticket>);

impl Waiter {
    pub(super) fn tell(self, outcome: Result<Outcome>) {
        self.0.tell(outcome);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell(Err(KvsError::Poisoned));
        }
    }
}

pub(super) struct Request {
    pub(super) op: QueuedOp,
    pub(super) reply: Reply,
}

#[derive(Default)]
pub(super) struct Queue {
    /// Whether someone is to lead those who wait: the first of them, who waits for the lane, or the
    /// committer thread.
    pub(super) has_leader: bool,
    /// Whether it is the committer thread, and it does not know yet.
    pub(super) committer_leads: bool,
    waiting: Vec<Request>,
}

impl Queue {
    /// Queues `request`; true if nobody leads the queue, so that the caller must see to it.
    pub(super) fn push(&mut self, request: Request) -> bool {
        self.waiting.push(request);
        !std::mem::replace(&mut self.has_leader, true)
    }

    /// Everyone who waits. By the leader, in the lane; who queues after that has another leader.
    pub(super) fn take(&mut self) -> Vec<Request> {
        self.has_leader = false;
        std::mem::take(&mut self.waiting)
    }
}
