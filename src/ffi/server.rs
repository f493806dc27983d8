//! `kvs_server`: the bundled TCP server, inside the caller's process, on a store it has open.
//!
//! The server holds its own handle of the engine, so store and server may be freed in either order.

use std::ffi::{c_char, c_void};
use std::net::TcpListener;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::{io, mem, ptr, thread};

use super::boundary::{
    Failure, Outcome, Room, boundary, boundary_or, give, lend, out, take_back, text,
};
use super::fork::Generation;
use super::options::{
    KVS_NO_FD, KVS_OPT_SERVER_LISTEN_FD, KVS_OPT_SERVER_POOL, KVS_OPT_SERVER_THREADS, kvs_options,
};
use super::status::{KVS_OK, KVS_TIMEOUT, KVS_TOO_SMALL, kvs_status};
use super::store::kvs_store;
use crate::any_engine::AnyEngine;
use crate::engine::KvsEngine;
use crate::error::KvsError;
use crate::server::KvServer;
use crate::thread_pool::AnyThreadPool;

/// As a time to wait: without end.
pub const KVS_WAIT_FOREVER: u32 = 0xffff_ffff;

/// A server that was started. All calls on it may be made from any thread at once, kvs_server_free
/// excepted.
#[derive(Debug)]
pub struct kvs_server {
    server: AnyServer,
    born: Generation,
}

type AnyServer = KvServer<AnyEngine, AnyThreadPool>;

impl kvs_server {
    fn running(&self) -> Outcome<&AnyServer> {
        if self.born.is_past() { Err(Failure::Forked) } else { Ok(&self.server) }
    }
}

// Every call on it may come from any thread.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<kvs_server>();
};

/// Starts a server on an open store, in threads of its own. When this returns KVS_OK it is
/// listening. Other programs reach the store through it, for example with kvs-client; this one goes
/// on using the store as before.
///
/// address is "IP:PORT"; with port 0 the system chooses one, which kvs_server_port tells. There is
/// no authentication, so a loopback address is the safe choice. With KVS_OPT_SERVER_LISTEN_FD the
/// address may be anything but NULL. options may be NULL for the defaults; those that are for
/// stores are not looked at.
///
/// Example:
///
///   kvs_server *server = NULL;
///   uint16_t port = 0;
///   if (kvs_server_start(store, "127.0.0.1:0", NULL, &server) < 0)
///       fprintf(stderr, "%s\n", kvs_last_error());
///   else if (kvs_server_port(server, &port) == KVS_OK)
///       printf("kvs-client --addr 127.0.0.1:%u get no\n", (unsigned)port);
///   kvs_server_free(server);
///
/// Ownership: *server is yours; give it to kvs_server_free. It may outlive the store's handle. NULL
///            is stored on failure.
/// Returns:   KVS_OK; KVS_ERR_NET: the address is no address or cannot be listened on;
///            KVS_ERR_INVALID: an option cannot work; KVS_ERR_THREAD; KVS_ERR_CLOSED;
///            KVS_ERR_POISONED; KVS_ERR_FORKED; KVS_ERR_NOT_UTF8; KVS_ERR_NULL.
/// Threads:   any.
/// Cost:      its threads.
///
/// # Safety
///
/// Promises 1 to 5.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn kvs_server_start(
    store: *mut kvs_store,
    address: *const c_char,
    options: *const kvs_options,
    server: *mut *mut kvs_server,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let server = unsafe { out("server", server, ptr::null_mut()) }?;
        // SAFETY: promises 1 and 4.
        let store = unsafe { lend("store", store) }?;
        // SAFETY: promise 2.
        let address = unsafe { text("address", address) }?;
        // SAFETY: promises 1, 4 and 5.
        let options = unsafe { options.as_ref() }.cloned().unwrap_or_default();
        // A server on a closed store could only refuse: `len` says so now.
        let running = store.write(|engine| {
            engine.len()?;
            start(engine, address, &options)
        })?;
        *server = give(kvs_server { server: running, born: Generation::now() });
        Ok(KVS_OK)
    })
}

fn start(engine: &AnyEngine, address: &str, options: &kvs_options) -> Outcome<AnyServer> {
    let threads = match options.small(KVS_OPT_SERVER_THREADS)? {
        0 => thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        threads => threads,
    };
    let pool_name = options.text(KVS_OPT_SERVER_POOL).unwrap_or("shared-queue");
    let pool = AnyThreadPool::named(pool_name, threads)?;
    let server_options = options.server_options()?;
    let server = match options.small(KVS_OPT_SERVER_LISTEN_FD)? {
        KVS_NO_FD => KvServer::start(engine.clone(), pool, address, server_options),
        fd => KvServer::start_on(engine.clone(), pool, listener(fd)?, server_options),
    };
    Ok(server?)
}

/// A listener of our own on the socket behind `fd`.
fn listener(fd: u32) -> Outcome<TcpListener> {
    let refused =
        |source| KvsError::Net { op: "listen on", addr: format!("descriptor {fd}"), source };
    let raw = i32::try_from(fd).map_err(|_| refused(io::Error::from_raw_os_error(libc::EBADF)))?;
    // SAFETY: not -1, and open as the option's text asks of the caller; if it is not, duplicating
    // it is refused by the system.
    let theirs = unsafe { BorrowedFd::borrow_raw(raw) };
    Ok(TcpListener::from(theirs.try_clone_to_owned().map_err(refused)?))
}

/// Copies the address that a server listens on, as "IP:PORT" with the real port and a zero byte at
/// the end, into memory of yours: dst has room for capacity bytes. 64 are enough for any address.
///
/// *text_len is the length of the text without the zero byte with KVS_OK and with KVS_TOO_SMALL,
/// else 0.
///
/// Returns: KVS_OK; KVS_TOO_SMALL: nothing was copied, there must be room for *text_len + 1 bytes;
///          KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    none.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_server_address(
    server: *const kvs_server,
    dst: *mut c_char,
    capacity: usize,
    text_len: *mut usize,
) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let text_len = unsafe { out("text_len", text_len, 0) }?;
        // SAFETY: promise 3.
        let mut room = unsafe { Room::new("dst", dst.cast::<c_void>(), capacity) }?;
        // SAFETY: promises 1 and 4.
        let server = unsafe { lend("server", server) }?;
        let mut address = server.running()?.local_addr().to_string();
        *text_len = address.len();
        address.push('\0');
        Ok(if room.put([address.as_bytes()]) { KVS_OK } else { KVS_TOO_SMALL })
    })
}

/// Stores the port that a server listens on: the real one, also if it was started with port 0.
///
/// Returns: KVS_OK; KVS_ERR_FORKED; KVS_ERR_NULL. *port is 0 unless KVS_OK.
/// Threads: any.
/// Cost:    none.
///
/// # Safety
///
/// Promises 1, 3 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_server_port(server: *const kvs_server, port: *mut u16) -> kvs_status {
    boundary(|| {
        // SAFETY: promise 3.
        let port = unsafe { out("port", port, 0) }?;
        // SAFETY: promises 1 and 4.
        let server = unsafe { lend("server", server) }?;
        *port = server.running()?.local_addr().port();
        Ok(KVS_OK)
    })
}

/// Waits until a server has stopped, because another thread called kvs_server_stop or because it
/// failed; at most timeout_ms milliseconds, or without end with KVS_WAIT_FOREVER.
///
/// Returns: KVS_OK: it has stopped, and its threads are gone; KVS_TIMEOUT: it is running;
///          KVS_ERR_NET, KVS_ERR_IO: it failed, and this is why; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any.
/// Cost:    none; it sleeps.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_server_wait(server: *mut kvs_server, timeout_ms: u32) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let server = unsafe { lend("server", server) }?;
        let at_most = (timeout_ms != KVS_WAIT_FOREVER).then(|| milliseconds(timeout_ms));
        let stopped = server.running()?.wait(at_most)?;
        Ok(if stopped { KVS_OK } else { KVS_TIMEOUT })
    })
}

/// Stops a server: accepts no more, answers what was received, and after timeout_ms milliseconds
/// cuts off the clients that are left. Returns when its threads are gone and its port is free. The
/// store stays open. Stopping twice is no error.
///
/// Returns: KVS_OK; KVS_ERR_NET, KVS_ERR_IO: it had failed before; KVS_ERR_FORKED; KVS_ERR_NULL.
/// Threads: any, beside any other call but kvs_server_free.
/// Cost:    waits for the clients, timeout_ms at most, and for the requests under way.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_server_stop(server: *mut kvs_server, timeout_ms: u32) -> kvs_status {
    boundary(|| {
        // SAFETY: promises 1 and 4.
        let server = unsafe { lend("server", server) }?;
        server.running()?.stop(milliseconds(timeout_ms))?;
        Ok(KVS_OK)
    })
}

/// Frees a server, and stops it first if that has not been done, without waiting for its clients.
/// NULL is allowed. In a child made by fork it releases memory and touches nothing else.
///
/// Threads: promise 4.
///
/// # Safety
///
/// Promises 1 and 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_server_free(server: *mut kvs_server) {
    // SAFETY: promises 1 and 4.
    let Some(server) = (unsafe { take_back(server) }) else { return };
    boundary_or((), || {
        let kvs_server { server, born } = *server;
        if born.is_past() {
            // Its threads, connections and listener are the parent's.
            mem::forget(server);
            return;
        }
        // Why it failed, if it did, was to be asked for with `kvs_server_stop`.
        let _ = server.stop(Duration::ZERO);
    });
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}
