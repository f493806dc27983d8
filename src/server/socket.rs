//! Sockets as the server uses them: non-blocking, and known to the poller for as long as they live.

#![expect(unsafe_code, reason = "registering a descriptor with the poller; asking for a limit")]

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use polling::{Event, Poller};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::limits::BACKLOG;
use crate::sync::Arc;

/// A socket that the poller knows. Invariant: it is registered from construction until it is
/// dropped, so no event can carry the key of a socket that is gone for good.
#[derive(Debug)]
pub(super) struct Registered<S: AsFd + AsRawFd> {
    socket: S,
    key: usize,
    poller: Arc<Poller>,
}

impl<S: AsFd + AsRawFd> Registered<S> {
    /// Makes `socket` known to `poller` under `key`, with no interest yet.
    pub(super) fn new(socket: S, key: usize, poller: &Arc<Poller>) -> io::Result<Self> {
        // SAFETY: the poller must forget the socket before it is closed. `self` owns it, gives it
        // to nobody, and its `drop` does that first.
        unsafe { poller.add(&socket, Event::none(key)) }?;
        Ok(Self { socket, key, poller: Arc::clone(poller) })
    }

    pub(super) fn get(&self) -> &S {
        &self.socket
    }

    /// Asks for one event, when the socket is readable or writable, as wanted.
    pub(super) fn arm(&self, readable: bool, writable: bool) -> io::Result<()> {
        self.poller.modify(&self.socket, Event::new(self.key, readable, writable))
    }
}

impl<S: AsFd + AsRawFd> Drop for Registered<S> {
    fn drop(&mut self) {
        // Closing the descriptor makes the kernel forget it in any case.
        let _ = self.poller.delete(&self.socket);
    }
}

/// Listens on `addr`. The address can be taken again at once after an earlier server on it has
/// stopped.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How many descriptors this process may have, if the system says.
pub(super) fn descriptors_max() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call needs memory for one `rlimit`, which is lent to it for as long as it lasts.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (status == 0).then_some(limit.rlim_cur)
}

/// Whether `listener`, which may come from anywhere, listens.
pub(super) fn is_listening(listener: &TcpListener) -> io::Result<bool> {
    SockRef::from(listener).is_listener()
}

/// Prepares a fresh connection: never blocks, sends replies at once, notices a vanished peer.
pub(super) fn prepare(stream: &TcpStream, keepalive_time: Duration) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(keepalive_time)
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Has the kernel forget what it still holds for the peer when the socket is closed, instead of
/// keeping megabytes for somebody who takes nothing.
pub(super) fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}
