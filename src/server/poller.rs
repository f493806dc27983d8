//! The readiness thread: it alone owns the listener, the table of connections and the pool.
//!
//! ```text
//! listener ready ----> accept, register --------\
//! connection ready --> wake ----------------------> a job on the pool
//! message ----------> wake, or forget ----------/
//! deadline passed --> wake ---------------------/
//! stop -------------> close the listener, wake all, wait for them, cut off the rest
//! ```
//!
//! It waits in one place, reads and writes no client's bytes (but the refusal of one it has no
//! descriptor for), and with nothing to do it sleeps without a timeout. When it ends, every
//! connection is closed and every thread of the pool is joined.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use polling::Events;

use super::connection::{Connection, Shared};
use super::control::{Control, Message, NEVER};
use super::limits::{ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN_MAX, REFUSED_MAX, TIMER_TICK_MS};
use super::socket::{self, Registered};
use crate::engine::KvsEngine;
use crate::sync::Arc;
use crate::thread_pool::ThreadPool;

/// The key of the listener. Connections count up from 1 and never use a key again, so a late event
/// or message cannot meet the wrong one.
const LISTENER_KEY: usize = 0;

/// What the readiness thread owns.
pub(super) struct EventLoop<E, P> {
    shared: Arc<Shared<E>>,
    pool: P,
    /// `None` once the server is stopping.
    listener: Option<Registered<TcpListener>>,
    /// A descriptor to give up when there are no others, so that a client can be accepted and told.
    reserve: Option<TcpListener>,
    /// When to listen again after a pause; `NEVER` while listening.
    listen_at_ms: u64,
    connections: HashMap<usize, Arc<Connection<E>>>,
    /// How many of `connections` are only there to be told that they are too many.
    refused_count: usize,
    last_key: usize,
    looked_at_deadlines_ms: u64,
}

impl<E: KvsEngine, P: ThreadPool> EventLoop<E, P> {
    pub(super) fn new(shared: Arc<Shared<E>>, pool: P, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let reserve = Some(listener.try_clone()?);
        let listener = Registered::new(listener, LISTENER_KEY, shared.control.poller())?;
        listener.arm(true, false)?;
        Ok(Self {
            shared,
            pool,
            listener: Some(listener),
            reserve,
            listen_at_ms: NEVER,
            connections: HashMap::new(),
            refused_count: 0,
            last_key: LISTENER_KEY,
            looked_at_deadlines_ms: 0,
        })
    }

    /// Serves until the server is told to stop and has done so, or waiting fails.
    pub(super) fn run(mut self) -> io::Result<()> {
        let outcome = self.serve();
        for connection in self.connections.values() {
            connection.cut();
        }
        outcome
    }

    fn serve(&mut self) -> io::Result<()> {
        let control = Arc::clone(&self.shared.control);
        let mut events = Events::new();
        let mut messages = Vec::new();
        loop {
            events.clear();
            control.poller().wait(&mut events, self.timeout(&control))?;
            for event in events.iter() {
                match event.key {
                    LISTENER_KEY => self.accept(),
                    key => self.wake(key),
                }
            }
            control.take_messages(&mut messages);
            for message in messages.drain(..) {
                match message {
                    Message::Wake(key) => self.wake(key),
                    Message::Gone(key) => self.forget(key),
                }
            }
            self.look_at_deadlines(&control);
            if control.is_stopping() {
                self.begin_stop();
                if self.connections.is_empty() || control.now_ms() >= control.stop_by_ms() {
                    return Ok(());
                }
            }
        }
    }

    /// How long nothing has to be done; `None` for ever.
    fn timeout(&self, control: &Control) -> Option<Duration> {
        // Deadlines may be late by a tick, so that many of them cost one look.
        let timer_at_ms =
            control.timer_at_ms().max(self.looked_at_deadlines_ms.saturating_add(TIMER_TICK_MS));
        let at_ms = timer_at_ms.min(self.listen_at_ms).min(control.stop_by_ms());
        let wait_ms = at_ms.saturating_sub(control.now_ms());
        (at_ms != NEVER).then(|| Duration::from_millis(wait_ms))
    }

    /// Starts a job for the connection, unless it has one.
    fn wake(&self, key: usize) {
        if let Some(connection) = self.connections.get(&key)
            && connection.wake()
        {
            let connection = Arc::clone(connection);
            self.pool.spawn(move || connection.job());
        }
    }

    fn forget(&mut self, key: usize) {
        if let Some(connection) = self.connections.remove(&key)
            && connection.is_refused()
        {
            self.refused_count -= 1;
        }
    }

    fn look_at_deadlines(&mut self, control: &Control) {
        let now_ms = control.now_ms();
        if self.listen_at_ms <= now_ms {
            self.listen_at_ms = NEVER;
            self.accept();
        }
        let tick_over = self.looked_at_deadlines_ms.saturating_add(TIMER_TICK_MS) <= now_ms;
        if control.timer_at_ms() > now_ms || !tick_over {
            return;
        }
        self.looked_at_deadlines_ms = now_ms;
        control.take_timer();
        let mut next_ms = NEVER;
        let mut due = Vec::new();
        for (key, connection) in &self.connections {
            match connection.deadline_ms() {
                deadline_ms if deadline_ms <= now_ms => due.push(*key),
                deadline_ms => next_ms = next_ms.min(deadline_ms),
            }
        }
        for key in due {
            self.wake(key);
        }
        control.timer_by(next_ms);
    }

    /// Accepts who waits, and has the listener tell when there are more.
    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.accept_one() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The client has gone again, or a signal came between.
                Err(error) if is_passing(&error) => {}
                Err(error) => return self.pause_listening(&error),
            }
        }
        if let Some(listener) = &self.listener
            && let Err(error) = listener.arm(true, false)
        {
            self.pause_listening(&error);
        }
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Err(io::ErrorKind::WouldBlock.into()) };
        match listener.get().accept() {
            Ok((stream, _)) => self.admit(stream),
            Err(error) if is_want_of_descriptors(&error) => {
                let Some(reserve) = self.reserve.take() else { return Err(error) };
                drop(reserve);
                let refused = listener.get().accept().map(|(stream, _)| refuse(stream));
                self.reserve = listener.get().try_clone().ok();
                return refused;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Leaves the listener alone for a moment: it would be ready, and fail, again at once.
    fn pause_listening(&mut self, error: &io::Error) {
        log::warn!("cannot accept connections for a moment: {error}");
        self.listen_at_ms = self.shared.control.now_ms() + ACCEPT_PAUSE_MS;
        if let Some(listener) = &self.listener
            && self.reserve.is_none()
        {
            self.reserve = listener.get().try_clone().ok();
        }
    }

    /// Takes a new connection in, or only to tell it that it is one too many.
    fn admit(&mut self, stream: TcpStream) {
        let options = &self.shared.options;
        let served_count = self.connections.len() - self.refused_count;
        let is_refused = served_count >= options.connections_max;
        if is_refused && self.refused_count >= REFUSED_MAX {
            return;
        }
        self.last_key += 1;
        let key = self.last_key;
        let registered = socket::prepare(&stream, options.keepalive_time)
            .and_then(|()| Registered::new(stream, key, self.shared.control.poller()));
        let connection = match registered {
            Ok(socket) => Arc::new(Connection::new(&self.shared, socket, key, is_refused)),
            // The client has gone already, or the system is short of something: it is closed.
            Err(error) => return log::warn!("cannot take a connection: {error}"),
        };
        if !is_refused && let Err(error) = connection.start() {
            return log::warn!("cannot take a connection: {error}");
        }
        self.connections.insert(key, connection);
        if is_refused {
            self.refused_count += 1;
            self.wake(key);
        }
    }

    /// Takes in who waits to be accepted, closes the listener and has every connection answer what
    /// has arrived. Does nothing the second time.
    fn begin_stop(&mut self) {
        if self.listener.is_none() {
            return;
        }
        self.accept();
        self.listener = None;
        self.reserve = None;
        self.listen_at_ms = NEVER;
        for key in self.connections.keys() {
            self.wake(*key);
        }
    }
}

/// Tells a client that was accepted with the reserve descriptor why it is closed, as far as that
/// can be done without waiting. It would otherwise wait for ever, and the listener be ready for
/// ever.
fn refuse(mut stream: TcpStream) {
    let error = b"{\"Err\":\"the server has no descriptor to spare; try again later\"}\n";
    let mut unread = [0; 1024];
    // Each step is worth trying whatever became of the one before; the end at least arrives.
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(error);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut unread);
}

/// Whether the next `accept` may well succeed.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
