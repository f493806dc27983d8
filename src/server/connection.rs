//! One connection: its socket, its session, and whose turn it is.
//!
//! ```text
//!            wake                    job starts
//!  IDLE ------------> QUEUED or RUNNING ----> IDLE      armed, or waiting for writes
//!                        |  ^   wake          GONE      closed; told to the readiness thread
//!                        v  |
//!                     WOKEN AGAIN ----------> IDLE, and a wake is posted
//! ```
//!
//! Invariants:
//! - At most one job per connection exists, so a session is never used by two threads and replies
//!   keep their order. The readiness thread starts jobs; a job ends its own turn.
//! - A job never waits: not for the socket, not for the disk, not for another connection.
//! - A socket is armed as the last act of a turn, after everything that could be done was done.
//!
//! # Closing
//!
//! A socket closed with unread input makes the kernel send a reset, and a reset can destroy replies
//! that the client has not read yet. So after the last reply our side is shut, and what the client
//! still sends is read and thrown away until it closes too, or a deadline passes.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};

use super::control::{Control, Message, NEVER, millis};
use super::limits::{
    NEWLINE_GRACE_MS, READ_LEN, SMALL_BYTES_MAX, STOP_LINGER_MS, STOP_READS_MAX, ServerOptions,
    TURN_READ_BYTES_MAX,
};
use super::session::{Budget, Host, InputEnd, Pause, Session};
use super::socket::{self, Registered};
use super::write_run::Waker;
use crate::engine::KvsEngine;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Shared<E> {
    pub(super) engine: E,
    pub(super) options: ServerOptions,
    pub(super) control: Arc<Control>,
    /// Bytes of requests that have arrived in part, of all connections.
    pub(super) unfinished_bytes: Arc<AtomicUsize>,
}

/// What one connection has in a sum over all; taken out when it goes.
#[derive(Debug)]
struct Share {
    sum: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    /// Puts `bytes` in the place of what it had, and returns the sum.
    fn set(&mut self, bytes: usize) -> usize {
        let before = mem::replace(&mut self.bytes, bytes);
        // Relaxed: nothing is read on the strength of the sum.
        if bytes >= before {
            self.sum.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before)
        } else {
            self.sum.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes)
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

pub(super) struct Connection<E> {
    shared: Arc<Shared<E>>,
    socket: Registered<TcpStream>,
    waker: Waker,
    /// Whether it was one too many and is only kept to be told so.
    is_refused: bool,
    /// `IDLE`, `BUSY` (queued or running) or `AGAIN` (and woken meanwhile).
    turn: AtomicU64,
    /// When to wake it even if nothing happens.
    deadline_ms: AtomicU64,
    /// Locked by the one job that there is.
    state: Mutex<State>,
}

const IDLE: u64 = 0;
const BUSY: u64 = 1;
const AGAIN: u64 = 2;

/// What a job works on.
#[derive(Debug)]
struct State {
    session: Session,
    unfinished: Share,
    opened_ms: u64,
    /// Number of the request that arrived in part last.
    partial_number: u64,
    /// Since when it is incomplete, if it is.
    partial_since_ms: Option<u64>,
    /// When the client last took a byte while there were more for it.
    stalled_ms: Option<u64>,
    /// Since when the newline of the first reply is owed.
    newline_owed_ms: Option<u64>,
    /// Reads that are left before input counts as ended, once the server is stopping.
    last_reads: usize,
    /// When to stop throwing input away; our side is shut.
    linger_until_ms: Option<u64>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Something will wake the connection: its socket, its writes, or its deadline.
    Rest,
    /// It could go on, but others are due.
    Yield,
    /// It is done with.
    Gone,
}

/// What one read brought.
enum Input {
    Bytes,
    Nothing,
    End,
}

impl<E: KvsEngine> Connection<E> {
    pub(super) fn new(
        shared: &Arc<Shared<E>>,
        socket: Registered<TcpStream>,
        key: usize,
        is_refused: bool,
    ) -> Self {
        let control = Arc::clone(&shared.control);
        let mut session = Session::default();
        if is_refused {
            session.refuse("the server has all the connections it takes; try again later");
        }
        let state = State {
            session,
            unfinished: Share { sum: Arc::clone(&shared.unfinished_bytes), bytes: 0 },
            opened_ms: control.now_ms(),
            partial_number: 0,
            partial_since_ms: None,
            stalled_ms: None,
            newline_owed_ms: None,
            last_reads: STOP_READS_MAX,
            linger_until_ms: None,
        };
        Self {
            shared: Arc::clone(shared),
            socket,
            waker: Waker { control, key },
            is_refused,
            turn: AtomicU64::new(IDLE),
            deadline_ms: AtomicU64::new(NEVER),
            state: Mutex::new(state),
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        // Acquire: pairs with the Release in `wake_by`.
        self.deadline_ms.load(Ordering::Acquire)
    }

    /// Begins with nothing read: asks for the first event.
    pub(super) fn start(&self) -> io::Result<()> {
        self.wake_by(self.shared.control.now_ms() + millis(self.shared.options.first_byte_timeout));
        self.socket.arm(true, false)
    }

    /// Notes that there is something to do; whether the caller must start a job for it.
    pub(super) fn wake(&self) -> bool {
        let swap = |from, to| {
            // AcqRel: the job sees what was done before its connection was woken.
            self.turn.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        };
        loop {
            if swap(IDLE, BUSY).is_ok() {
                return true;
            }
            // If its job has ended between the two looks, this is the wake that starts one.
            if swap(BUSY, AGAIN) != Err(IDLE) {
                return false;
            }
        }
    }

    /// Cuts the connection off. A job that is running finds its socket closed.
    pub(super) fn cut(&self) {
        // It may be closed by the client already, and then there is nothing to cut.
        let _ = self.socket.get().shutdown(Shutdown::Both);
    }

    /// One job: one turn, and word of how it ended.
    pub(super) fn job(&self) {
        let turn = panic::catch_unwind(AssertUnwindSafe(|| self.turn())).unwrap_or_else(|_| {
            // Engine calls are guarded one by one, so this is a defect of ours; it costs one
            // connection.
            log::error!("a turn of a connection panicked");
            self.cut();
            Turn::Gone
        });
        let control = &self.waker.control;
        if turn == Turn::Gone {
            // The turn stays taken, so that no further job is started.
            control.post(Message::Gone(self.waker.key));
            return;
        }
        let woken = self.turn.swap(IDLE, Ordering::AcqRel) == AGAIN;
        if woken || turn == Turn::Yield {
            control.post(Message::Wake(self.waker.key));
        }
    }

    fn turn(&self) -> Turn {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.wake_by(NEVER);
        let mut readable_max = TURN_READ_BYTES_MAX;
        let turn = match state.linger_until_ms {
            None => self.serve(state, &mut readable_max),
            Some(_) => self.linger(state, &mut readable_max),
        };
        // An error of the socket means that nobody is left to talk to.
        turn.unwrap_or(Turn::Gone)
    }

    /// Does what can be done now, then rests, yields or closes.
    fn serve(&self, state: &mut State, readable_max: &mut usize) -> io::Result<Turn> {
        let Shared { engine, options, control, .. } = &*self.shared;
        let host = Host { engine, options, waker: &self.waker };
        let mut budget = Budget::default();
        loop {
            let pause = state.session.run(&host, &mut budget);
            // Before its reply is sent: who has read that may send the next one, also elsewhere.
            let is_too_much = self.hold_unfinished(state);
            self.flush(state)?;
            match pause {
                Pause::Writing => return Ok(Turn::Rest),
                Pause::TurnOver => return Ok(Turn::Yield),
                Pause::Over => return self.finish(state, readable_max),
                Pause::OutputFull if state.session.output.len() < options.output_bytes_max => {}
                Pause::OutputFull => {
                    if let Some(turn) = self.rest(state, false)? {
                        return Ok(turn);
                    }
                }
                Pause::NeedsInput if is_too_much => {
                    state.session.refuse("too many requests arrive at once; try again later");
                }
                Pause::NeedsInput => match self.read_some(state, readable_max)? {
                    Input::Bytes => {}
                    Input::End => state.session.end_input(InputEnd::ByClient),
                    Input::Nothing if control.is_stopping() => {
                        state.session.end_input(InputEnd::ByStop);
                    }
                    Input::Nothing if *readable_max == 0 => return Ok(Turn::Yield),
                    Input::Nothing => {
                        if let Some(turn) = self.rest(state, true)? {
                            return Ok(turn);
                        }
                    }
                },
            }
        }
    }

    /// Adds up what has arrived of unfinished requests, beyond what each may have in any case;
    /// whether this one makes it too much.
    fn hold_unfinished(&self, state: &mut State) -> bool {
        let options = &self.shared.options;
        let before = state.unfinished.bytes;
        let now = state.session.unfinished_bytes().saturating_sub(SMALL_BYTES_MAX);
        let sum = state.unfinished.set(now);
        now > before && sum > options.unfinished_bytes_max.max(options.request_bytes_max)
    }

    /// Reads once, into the session; nothing if the turn has no bytes left, or the server is
    /// stopping and has read what had arrived by then: a client that never pauses is not followed
    /// for ever.
    fn read_some(&self, state: &mut State, readable_max: &mut usize) -> io::Result<Input> {
        if self.shared.control.is_stopping() {
            if state.last_reads == 0 {
                return Ok(Input::Nothing);
            }
            state.last_reads -= 1;
        }
        self.read_with(readable_max, |bytes| state.session.feed(bytes))
    }

    fn read_with(&self, readable_max: &mut usize, take: impl FnOnce(&[u8])) -> io::Result<Input> {
        if *readable_max == 0 {
            return Ok(Input::Nothing);
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(READ_LEN, 0);
            loop {
                return match self.socket.get().read(buffer) {
                    Ok(0) => Ok(Input::End),
                    Ok(len) => {
                        *readable_max = readable_max.saturating_sub(len);
                        take(buffer.get(..len).unwrap_or_default());
                        Ok(Input::Bytes)
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Input::Nothing),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
            }
        })
    }

    /// Sends what the client takes now.
    fn flush(&self, state: &mut State) -> io::Result<()> {
        let output = &mut state.session.output;
        while !output.is_empty() {
            match self.socket.get().write(output.pending()) {
                Ok(len) => {
                    output.consume(len);
                    state.stalled_ms = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now_ms = self.shared.control.now_ms();
                    state.stalled_ms.get_or_insert(now_ms);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        state.stalled_ms = None;
        Ok(())
    }

    /// Nothing can be done now: waits for the socket or a deadline. `None` if a deadline has
    /// passed and there is something to do after all.
    fn rest(&self, state: &mut State, wants_input: bool) -> io::Result<Option<Turn>> {
        let now_ms = self.shared.control.now_ms();
        let options = &self.shared.options;
        let session = &mut state.session;

        let stall_ms = due(state.stalled_ms, millis(options.stall_timeout));
        if stall_ms <= now_ms {
            log::info!("a client took no reply for {:?}; cut off", options.stall_timeout);
            socket::reset_on_close(self.socket.get())?;
            return Ok(Some(Turn::Gone));
        }
        let silent_since = session.is_silent().then_some(state.opened_ms);
        let silence_ms = due(silent_since, millis(options.first_byte_timeout));
        if silence_ms <= now_ms {
            return Ok(Some(Turn::Gone));
        }
        // While replies are not taken we do not read, so a request cannot be the client's fault.
        let partial = session.partial_request().filter(|_| wants_input);
        state.partial_since_ms = partial.map(|number| {
            let before = mem::replace(&mut state.partial_number, number);
            let since_ms = state.partial_since_ms.unwrap_or(now_ms);
            if before == number { since_ms } else { now_ms }
        });
        let request_ms = due(state.partial_since_ms, millis(options.request_timeout));
        if request_ms <= now_ms {
            session.refuse("the request did not arrive in time");
            return Ok(None);
        }
        state.newline_owed_ms =
            session.owes_newline().then(|| state.newline_owed_ms.unwrap_or(now_ms));
        let newline_ms = due(state.newline_owed_ms, NEWLINE_GRACE_MS);
        if newline_ms <= now_ms {
            session.pay_newline();
            return Ok(None);
        }
        self.wake_by(stall_ms.min(silence_ms).min(request_ms).min(newline_ms));
        self.socket.arm(wants_input, !session.output.is_empty())?;
        Ok(Some(Turn::Rest))
    }

    /// Every reply is made: sends the rest of them, then shuts our side.
    fn finish(&self, state: &mut State, readable_max: &mut usize) -> io::Result<Turn> {
        if !state.session.output.is_empty() {
            // Not wanting input, a rest has no deadline but the stall.
            return Ok(self.rest(state, false)?.unwrap_or(Turn::Yield));
        }
        self.socket.get().shutdown(Shutdown::Write)?;
        if state.session.input_end() == Some(InputEnd::ByClient) {
            return Ok(Turn::Gone);
        }
        let until_ms = self.shared.control.now_ms() + millis(self.shared.options.linger_timeout);
        state.linger_until_ms = Some(until_ms);
        self.linger(state, readable_max)
    }

    /// Throws input away until the client closes or the time is up.
    fn linger(&self, state: &mut State, readable_max: &mut usize) -> io::Result<Turn> {
        let control = &self.shared.control;
        let now_ms = control.now_ms();
        let mut until_ms = state.linger_until_ms.unwrap_or(now_ms);
        if control.is_stopping() {
            until_ms = until_ms.min(now_ms + STOP_LINGER_MS);
        }
        state.linger_until_ms = Some(until_ms);
        if until_ms <= now_ms {
            return Ok(Turn::Gone);
        }
        loop {
            match self.read_with(readable_max, |_| ())? {
                Input::Bytes => {}
                Input::End => return Ok(Turn::Gone),
                Input::Nothing if *readable_max == 0 => return Ok(Turn::Yield),
                Input::Nothing => {
                    self.wake_by(until_ms);
                    self.socket.arm(true, false)?;
                    return Ok(Turn::Rest);
                }
            }
        }
    }

    /// Asks to be woken at `at_ms` at the latest.
    fn wake_by(&self, at_ms: u64) {
        // Release: pairs with the Acquire in `deadline_ms`.
        self.deadline_ms.store(at_ms, Ordering::Release);
        if at_ms != NEVER {
            self.shared.control.timer_by(at_ms);
        }
    }
}

thread_local! {
    /// Where bytes are read to. One per thread rather than one per connection, so that an idle
    /// connection holds none.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// When something that began at `since_ms` has lasted too long; never, if it did not begin.
fn due(since_ms: Option<u64>, after_ms: u64) -> u64 {
    since_ms.map_or(NEVER, |since_ms| since_ms.saturating_add(after_ms))
}
