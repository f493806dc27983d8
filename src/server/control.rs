//! What the threads of one server tell each other.
//!
//! ```text
//! pool threads, commit threads -- Wake, Gone --> \
//! connections ------------------- timer_at_ms --> > the readiness thread
//! stop(), from any thread ------- stop_by_ms ---> /
//! the readiness thread ---------- ended ---------> stop(), wait()
//! ```
//!
//! Everything may be called from any thread. Nothing here waits but [`Control::wait_for_end`].

use std::io;
use std::time::{Duration, Instant};

use polling::Poller;

use crate::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering};

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Control {
    poller: Arc<Poller>,
    started: Instant,
    messages: Mutex<Vec<Message>>,
    /// When the readiness thread must look at the connections' deadlines.
    timer_at_ms: AtomicU64,
    /// When connections are cut off; `NEVER` while the server is not asked to stop.
    stop_by_ms: AtomicU64,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

/// What happened to the connection of this key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    /// There is something to do for it.
    Wake(usize),
    /// It is done with.
    Gone(usize),
}

/// How the readiness thread ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to.
    Stopped,
    /// It could not go on.
    Failed(io::Error),
}

impl Control {
    pub(super) fn new(poller: Arc<Poller>) -> Self {
        Self {
            poller,
            started: Instant::now(),
            messages: Mutex::default(),
            timer_at_ms: AtomicU64::new(NEVER),
            stop_by_ms: AtomicU64::new(NEVER),
            end: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    pub(super) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// Milliseconds since the server started.
    pub(super) fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Tells the readiness thread.
    pub(super) fn post(&self, message: Message) {
        let mut messages = self.messages.lock();
        messages.push(message);
        if messages.len() == 1 {
            drop(messages);
            self.interrupt();
        }
    }

    /// Takes what was posted, into `into`, which is empty.
    pub(super) fn take_messages(&self, into: &mut Vec<Message>) {
        std::mem::swap(&mut *self.messages.lock(), into);
    }

    /// Makes sure that deadlines are looked at by `at_ms`.
    pub(super) fn timer_by(&self, at_ms: u64) {
        // AcqRel: pairs with the swap in `take_timer`. A deadline is stored before it is announced
        // here, so whoever takes the announcement sees the deadline.
        if self.timer_at_ms.fetch_min(at_ms, Ordering::AcqRel) > at_ms {
            self.interrupt();
        }
    }

    /// When deadlines must be looked at.
    pub(super) fn timer_at_ms(&self) -> u64 {
        self.timer_at_ms.load(Ordering::Acquire)
    }

    /// Forgets the time set so far; the caller looks at all deadlines now.
    pub(super) fn take_timer(&self) {
        self.timer_at_ms.swap(NEVER, Ordering::AcqRel);
    }

    /// Asks the server to stop, and to cut off what is left after `drain`. Asked again, the
    /// earlier time holds.
    pub(super) fn stop(&self, drain: Duration) {
        let by = self.now_ms().saturating_add(millis(drain)).min(NEVER - 1);
        // Release: pairs with the Acquire in `stop_by_ms`.
        self.stop_by_ms.fetch_min(by, Ordering::AcqRel);
        self.interrupt();
    }

    /// When connections are cut off, `NEVER` if the server is not stopping.
    pub(super) fn stop_by_ms(&self) -> u64 {
        self.stop_by_ms.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_by_ms() != NEVER
    }

    /// Says that the readiness thread and the pool have ended. The first word holds.
    pub(super) fn set_end(&self, end: End) {
        self.end.lock().get_or_insert(end);
        self.ended.notify_all();
    }

    /// Waits for the end, for ever or until `timeout`; whether it has come.
    pub(super) fn wait_for_end(&self, timeout: Option<Duration>) -> bool {
        let mut end = self.end.lock();
        // A timeout that the clock cannot express is for ever.
        match timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
            None => self.ended.wait_while(&mut end, |end| end.is_none()),
            Some(deadline) => {
                self.ended.wait_while_until(&mut end, |end| end.is_none(), deadline);
            }
        }
        end.is_some()
    }

    /// Why the server ended by itself, if it did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        match &*self.end.lock() {
            Some(End::Failed(error)) => Some(match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            Some(End::Stopped) | None => None,
        }
    }

    /// Makes the readiness thread look around.
    fn interrupt(&self) {
        if let Err(error) = self.poller.notify() {
            log::error!("cannot wake the readiness thread: {error}");
        }
    }
}

/// A duration in milliseconds, rounded up so that a deadline is never early.
pub(super) fn millis(duration: Duration) -> u64 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(NEVER)
}
