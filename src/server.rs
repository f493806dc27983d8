//! The TCP server that a program starts inside its own process, on a store it has open.
//!
//! ```text
//! sockets --> poller (one thread) --> ThreadPool --> connection --> session --> KvsEngine
//!               ^                                        |  read, answer all, write, re-arm
//!               \------------- Control <-----------------/
//! ```
//!
//! A connection that has something to read becomes *one job*: it reads what is there, does every
//! whole request, sends all replies by one write and lets go of the thread. So a pool of two
//! threads serves any number of clients that stay connected, and a slow one costs its socket only.
//! Where a write waits for the disk, not even a thread waits with it: the engine calls back.
//!
//! Embedded manners: no signal handlers, nothing printed (messages go to the `log` facade), no
//! process exit, no global state. All threads are named `kvs-...` and are joined when
//! [`KvServer::stop`] returns. The store is only used, never closed.
//!
//! Invariant: a server knows engines and pools by their traits only.

mod byte_queue;
mod connection;
mod control;
mod framing;
pub(crate) mod json;
mod limits;
mod poller;
mod session;
mod socket;
mod write_run;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::time::Duration;

use polling::Poller;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use self::connection::Shared;
use self::control::{Control, End};
use self::poller::EventLoop;
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::sync::thread::JoinHandle;
use crate::sync::{self, Arc, Mutex};
use crate::thread_pool::ThreadPool;

pub use self::limits::{REQUEST_BYTES_MAX, ServerOptions};

/// A running server. All methods may be called from any thread; dropping it stops it.
///
/// ```
/// use std::time::Duration;
///
/// use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
/// use kvs::{KvServer, KvStore, KvsClient, ServerOptions};
///
/// let dir = tempfile::tempdir()?;
/// let store = KvStore::open(dir.path())?;
/// let pool = SharedQueueThreadPool::new(2)?;
/// let server = KvServer::start(store.clone(), pool, "127.0.0.1:0", ServerOptions::new())?;
///
/// let mut client = KvsClient::connect(server.local_addr())?;
/// client.set("no".to_owned(), "Oslo".to_owned())?;
/// assert_eq!(client.get("no".to_owned())?, Some("Oslo".to_owned()));
///
/// server.stop(Duration::from_secs(1))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KvServer<E: KvsEngine, P: ThreadPool> {
    control: Arc<Control>,
    local_addr: SocketAddr,
    drain_timeout: Duration,
    /// The readiness thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that the threads live in: a fork has none of them.
    process_id: u32,
    /// Engine and pool belong to the threads.
    serves: PhantomData<fn() -> (E, P)>,
}

impl<E: KvsEngine, P: ThreadPool> KvServer<E, P> {
    /// Listens on `addr` and serves `engine` by jobs on `pool`, which becomes the server's own.
    /// When this returns, clients can connect. Port 0 asks for any free port, see
    /// [`KvServer::local_addr`]. An address that an earlier server has just left can be taken
    /// again.
    ///
    /// # Errors
    ///
    /// [`KvsError::Net`] if the address is none or cannot be listened on;
    /// [`KvsError::InvalidOption`]; [`KvsError::Thread`].
    pub fn start(
        engine: E,
        pool: P,
        addr: impl ToSocketAddrs + fmt::Display,
        options: ServerOptions,
    ) -> Result<Self> {
        let listener = listen(&addr).map_err(|source| net("listen on", &addr, source))?;
        Self::start_on(engine, pool, listener, options)
    }

    /// As [`KvServer::start`] with a socket that listens already: one that was passed by a service
    /// manager, or that was bound before privileges were given up. It is made non-blocking.
    ///
    /// # Errors
    ///
    /// [`KvsError::InvalidOption`] if `listener` does not listen, otherwise as
    /// [`KvServer::start`].
    pub fn start_on(
        engine: E,
        pool: P,
        listener: TcpListener,
        options: ServerOptions,
    ) -> Result<Self> {
        options.check()?;
        let failed = |source| net("serve", &"a listening socket", source);
        if !socket::is_listening(&listener).map_err(failed)? {
            return Err(KvsError::InvalidOption { name: "listener", must: "a listening socket" });
        }
        let local_addr = listener.local_addr().map_err(failed)?;
        let failed = |source| net("serve", &local_addr, source);
        options.check_descriptors();
        let drain_timeout = options.drain_timeout;
        let control = Arc::new(Control::new(Arc::new(Poller::new().map_err(failed)?)));
        let shared = Arc::new(Shared {
            engine,
            options,
            control: Arc::clone(&control),
            unfinished_bytes: Arc::default(),
        });
        let event_loop = EventLoop::new(shared, pool, listener).map_err(failed)?;
        let thread = {
            let control = Arc::clone(&control);
            sync::spawn("kvs-poller", move || serve(event_loop, &control))?
        };
        Ok(Self {
            control,
            local_addr,
            drain_timeout,
            thread: Mutex::new(Some(thread)),
            process_id: process::id(),
            serves: PhantomData,
        })
    }

    /// The address that clients connect to, with the port that was chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the server: closes the listener, answers every request that has arrived, tells
    /// clients by closing our side, and cuts off what is left after `drain`. Returns when the last
    /// thread has ended and the port is free. The store stays open.
    ///
    /// May be called again, also while another call is under way: the shorter `drain` holds, and
    /// both return when all has ended. Must not be called by an engine or a job of the server,
    /// which would wait for itself.
    ///
    /// # Errors
    ///
    /// [`KvsError::Net`] if the server had failed by itself before, or was started by the parent
    /// of this process. All its threads have ended in the first case.
    pub fn stop(&self, drain: Duration) -> Result<()> {
        self.check_process()?;
        self.control.stop(drain);
        self.wait(None).map(drop)
    }

    /// Waits until the server has ended, at most for `timeout`; whether it has. Ends by
    /// [`KvServer::stop`] from another thread, or by a failure of the operating system.
    ///
    /// # Errors
    ///
    /// As [`KvServer::stop`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        self.check_process()?;
        if !self.control.wait_for_end(timeout) {
            return Ok(false);
        }
        // Held while joining, so that whoever comes second returns after the thread is gone too.
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            // Its panics are caught and reported as a failure.
            let _ = thread.join();
        }
        match self.control.failure() {
            Some(source) => Err(net("serve", &self.local_addr, source)),
            None => Ok(true),
        }
    }

    /// Threads do not survive a fork: waiting for them in the child would last for ever.
    fn check_process(&self) -> Result<()> {
        if self.process_id == process::id() {
            return Ok(());
        }
        let source = io::Error::other("the server runs in the parent of this process");
        Err(net("reach the server on", &self.local_addr, source))
    }
}

impl<E: KvsEngine, P: ThreadPool> Drop for KvServer<E, P> {
    /// Stops the server, with the drain timeout of its options.
    fn drop(&mut self) {
        if let Err(error) = self.stop(self.drain_timeout) {
            log::warn!("{error}");
        }
    }
}

impl<E: KvsEngine, P: ThreadPool> fmt::Debug for KvServer<E, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvServer({})", self.local_addr)
    }
}

/// The body of the readiness thread. The end is told after the pool has been joined and every
/// descriptor closed.
fn serve<E: KvsEngine, P: ThreadPool>(event_loop: EventLoop<E, P>, control: &Control) {
    let end = match panic::catch_unwind(AssertUnwindSafe(|| event_loop.run())) {
        Ok(Ok(())) => End::Stopped,
        Ok(Err(error)) => End::Failed(error),
        Err(_) => End::Failed(io::Error::other("the readiness thread panicked")),
    };
    control.set_end(end);
}

/// Listens on the first address that `addr` stands for and that lets us.
fn listen(addr: &impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::InvalidInput, "no address"));
    for addr in addr.to_socket_addrs()? {
        outcome = socket::listen(addr);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn net(op: &'static str, addr: &impl fmt::Display, source: io::Error) -> KvsError {
    KvsError::Net { op, addr: addr.to_string(), source }
}
