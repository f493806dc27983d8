//! What can be chosen when a server is started, and every limit, each with its reason.
//!
//! A limit ending in `_MAX` is fixed; a field of [`ServerOptions`] can be chosen. Whatever clients
//! send or do not send, memory stays below `unfinished_bytes_max` for all of them together, and for
//! each [`SMALL_BYTES_MAX`], `output_bytes_max` and one reply; and no thread waits for a client.

use std::time::Duration;

use super::socket;
use crate::error::{KvsError, Result};

/// Deepest nesting of a JSON request. Ours are 2 deep; what is deeper is an attack on a recursive
/// parser.
pub(super) const REQUEST_DEPTH_MAX: u32 = 4;

/// Most that [`ServerOptions::request_bytes_max`] accepts (1 GiB): a request is parsed as a whole,
/// so it must fit in memory comfortably.
pub const REQUEST_BYTES_MAX: usize = 1 << 30;

/// Most requests that one connection runs before others get their turn. Large enough that a
/// pipeline is answered by one write, small enough that nobody waits milliseconds behind it.
pub(super) const TURN_REQUESTS_MAX: usize = 1024;

/// Most bytes of replies that one connection gathers before others get their turn (64 KiB): about
/// what one `write` hands to the kernel at once.
pub(super) const TURN_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Most bytes that one connection reads before others get their turn (1 MiB), so that an upload of
/// many megabytes does not hold a thread.
pub(super) const TURN_READ_BYTES_MAX: usize = 1 << 20;

/// Bytes per `read` (64 KiB): the buffer belongs to the thread, not to the connection.
pub(super) const READ_LEN: usize = 64 << 10;

/// Bytes of an unfinished request that a connection may have whatever the others have (64 KiB), so
/// that ordinary requests are served while large ones have to wait.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;

/// Buffers of an idle connection above this capacity are given back (2 KiB), so that ten thousand
/// idle connections cost what their sockets cost.
pub(super) const IDLE_BUFFER_LEN_MAX: usize = 2 << 10;

/// Connections waiting in the kernel to be accepted. A burst of clients beyond it waits a second
/// for its next try.
pub(super) const BACKLOG: i32 = 1024;

/// Most connections accepted in a row before the connections that are open get their turn.
pub(super) const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Most connections over the limit that are held open so that their error arrives. Further ones
/// are closed at once.
pub(super) const REFUSED_MAX: usize = 64;

/// Descriptors that a process with a server needs beside those of its clients (200): clients that
/// are refused, the files of a store, and its own.
const DESCRIPTORS_BESIDE: u64 = 200;

/// How long to leave the listener alone when the system has no descriptor to spare, ms.
pub(super) const ACCEPT_PAUSE_MS: u64 = 100;

/// How long the newline of the first reply is held back while it is not known whether the client
/// ends its request by closing its side, ms. Far above the microseconds between a client's `write`
/// and `shutdown`; paid once per connection, and only by clients that send no newline themselves.
pub(super) const NEWLINE_GRACE_MS: u64 = 40;

/// Most reads from one connection once the server is stopping (16, so at most 1 MiB): what had
/// arrived by then, as far as the kernel's buffers usually hold it.
pub(super) const STOP_READS_MAX: usize = 16;

/// How long a connection that has been answered is kept while the server stops, so that what its
/// client has under way meets an open socket instead of a reset, ms.
pub(super) const STOP_LINGER_MS: u64 = 200;

/// Least time between two looks at the deadlines, ms. Deadlines are late by at most this.
pub(super) const TIMER_TICK_MS: u64 = 10;

/// How a server treats its clients.
///
/// ```
/// use std::time::Duration;
///
/// let options = kvs::ServerOptions::new()
///     .connections_max(10_000)
///     .request_timeout(Duration::from_secs(120));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerOptions {
    pub(super) connections_max: usize,
    pub(super) request_bytes_max: usize,
    pub(super) unfinished_bytes_max: usize,
    pub(super) output_bytes_max: usize,
    pub(super) first_byte_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) linger_timeout: Duration,
    pub(super) keepalive_time: Duration,
    pub(super) drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            request_bytes_max: 64 << 20,
            unfinished_bytes_max: 256 << 20,
            output_bytes_max: 1 << 20,
            first_byte_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl ServerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Most clients at once; further ones get an error and are closed. Each takes a descriptor,
    /// so the process must be allowed some more than this. Default: 1024.
    pub fn connections_max(mut self, count: usize) -> Self {
        self.connections_max = count;
        self
    }

    /// Longest request, in bytes; a longer one gets an error, and its connection is closed.
    /// Memory is taken as bytes arrive, never ahead of them. Default: 64 MiB, at most
    /// [`REQUEST_BYTES_MAX`].
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = bytes;
        self
    }

    /// Bytes of requests that have arrived in part, of all clients together, without the first
    /// 64 KiB of each, which are always taken. Who makes them more gets an error, and its
    /// connection is closed. At least `request_bytes_max`, whatever is said here. Default: 256 MiB.
    pub fn unfinished_bytes_max(mut self, bytes: usize) -> Self {
        self.unfinished_bytes_max = bytes;
        self
    }

    /// Replies that a client has not taken yet, in bytes, above which no more is read from it.
    /// Default: 1 MiB.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// How long a new connection may stay silent. Default: 30 s. One that has sent a request may
    /// be idle for ever.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = timeout;
        self
    }

    /// How long a request may take from its first byte to its last. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a client may take none of its replies before it is cut off. Default: 60 s.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// How long a connection that ends with an error is kept, its input discarded, so that the
    /// client can read why. Default: 5 s.
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// Silence after which the kernel asks whether the peer's machine still exists; it is given up
    /// after three unanswered questions, 10 s apart. Default: 30 s, so at most a minute in all.
    pub fn keepalive_time(mut self, time: Duration) -> Self {
        self.keepalive_time = time;
        self
    }

    /// How long dropping the server waits for requests under way; `stop` takes its own. Default:
    /// 5 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Warns of a promise that the process cannot keep. Whom it has no descriptor for is told so.
    pub(super) fn check_descriptors(&self) {
        let connections_max = u64::try_from(self.connections_max).unwrap_or(u64::MAX);
        if let Some(max) = socket::descriptors_max()
            && connections_max > max
        {
            let needed = connections_max.saturating_add(DESCRIPTORS_BESIDE);
            log::warn!(
                "this process may open {max} files, too few for {connections_max} clients; raise \
                 that by `ulimit -n {needed}`"
            );
        }
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |name, must| Err(KvsError::InvalidOption { name, must });
        if self.connections_max == 0 {
            return invalid("connections_max", "at least 1");
        }
        if !(1..=REQUEST_BYTES_MAX).contains(&self.request_bytes_max) {
            return invalid("request_bytes_max", "between 1 byte and 1 GiB");
        }
        if self.output_bytes_max == 0 {
            return invalid("output_bytes_max", "at least 1");
        }
        for (name, timeout) in [
            ("first_byte_timeout", self.first_byte_timeout),
            ("request_timeout", self.request_timeout),
            ("stall_timeout", self.stall_timeout),
            ("linger_timeout", self.linger_timeout),
        ] {
            if timeout.is_zero() {
                return invalid(name, "above zero");
            }
        }
        if self.keepalive_time < Duration::from_secs(1) {
            return invalid("keepalive_time", "at least a second, the kernel's unit");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let none = Duration::ZERO;
        for (name, options) in [
            ("connections_max", ServerOptions::new().connections_max(0)),
            ("request_bytes_max", ServerOptions::new().request_bytes_max(0)),
            ("request_bytes_max", ServerOptions::new().request_bytes_max(REQUEST_BYTES_MAX + 1)),
            ("output_bytes_max", ServerOptions::new().output_bytes_max(0)),
            ("first_byte_timeout", ServerOptions::new().first_byte_timeout(none)),
            ("request_timeout", ServerOptions::new().request_timeout(none)),
            ("stall_timeout", ServerOptions::new().stall_timeout(none)),
            ("linger_timeout", ServerOptions::new().linger_timeout(none)),
            ("keepalive_time", ServerOptions::new().keepalive_time(none)),
        ] {
            match options.check() {
                Err(KvsError::InvalidOption { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let edge = ServerOptions::new().connections_max(1).request_bytes_max(REQUEST_BYTES_MAX);
        assert!(edge.check().is_ok());
    }
}
