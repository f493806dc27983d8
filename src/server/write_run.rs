//! A run of writes that one connection waits for without holding a thread.
//!
//! ```text
//! session, on a pool thread         engine, on any thread
//! hand_over(writes) -- write_then --> done(outcome) ... done(outcome)
//! returns, the thread is free                             the last one wakes the connection
//! ```
//!
//! Consecutive writes of a connection are handed over together, in order, so that they share a
//! sync. Nothing behind them on the same connection runs before all have their outcome: replies
//! keep their order, and a read sees the writes before it.

use std::panic::{self, AssertUnwindSafe};

use super::control::{Control, Message};
use crate::engine::KvsEngine;
use crate::error::Result;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::write_batch::Write;

/// What became of one write; `None` if the engine never said.
pub(super) type Outcome = Option<Result<()>>;

/// Writes on their way.
#[derive(Debug)]
pub(super) struct WriteRun {
    outcomes: Mutex<Vec<Outcome>>,
    /// Writes without an outcome, and one more until all are handed over: whoever brings it to
    /// zero is the last.
    left: AtomicU64,
    waker: Waker,
}

/// Wakes one connection.
#[derive(Debug, Clone)]
pub(super) struct Waker {
    pub(super) control: Arc<Control>,
    pub(super) key: usize,
}

impl WriteRun {
    /// Hands `writes` to `engine`. If all are done when this returns, nobody is woken.
    pub(super) fn hand_over<E: KvsEngine>(
        engine: &E,
        writes: Vec<Write>,
        waker: &Waker,
    ) -> Arc<Self> {
        let count = writes.len();
        let run = Arc::new(Self {
            outcomes: Mutex::new((0..count).map(|_| None).collect()),
            left: AtomicU64::new(u64::try_from(count).expect("a run is bounded by a turn") + 1),
            waker: waker.clone(),
        });
        for (index, write) in writes.into_iter().enumerate() {
            let ticket = Ticket { run: Arc::clone(&run), index, outcome: None };
            let done = Box::new(move |outcome| ticket.settle(outcome));
            // A panicking engine drops the ticket, which then says so.
            let handed = panic::catch_unwind(AssertUnwindSafe(|| engine.write_then(write, done)));
            if handed.is_err() {
                log::error!("engine {} panicked in a write", engine.name());
            }
        }
        run.left.fetch_sub(1, Ordering::AcqRel);
        run
    }

    /// The outcomes in the order of the writes, once all are there.
    pub(super) fn outcomes(&self) -> Option<Vec<Outcome>> {
        // Acquire: pairs with the AcqRel in `Ticket::drop`.
        let all_there = self.left.load(Ordering::Acquire) == 0;
        all_there.then(|| std::mem::take(&mut *self.outcomes.lock()))
    }
}

/// The duty to say what became of one write. Discharged when dropped, whether the engine called
/// back, lost the callback or panicked.
struct Ticket {
    run: Arc<WriteRun>,
    index: usize,
    outcome: Outcome,
}

impl Ticket {
    fn settle(mut self, outcome: Result<()>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(place) = self.run.outcomes.lock().get_mut(self.index) {
            *place = self.outcome.take();
        }
        // AcqRel: the outcome above is seen by whoever finds nothing left.
        if self.run.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Waker { control, key } = &self.run.waker;
            control.post(Message::Wake(*key));
        }
    }
}
