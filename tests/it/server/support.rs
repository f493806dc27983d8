//! What the server tests share: servers, raw sockets, an engine with hooks.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvs::thread_pool::AnyThreadPool;
use kvs::{
    Durability, Entries, KvServer, KvStore, KvsEngine, Options, Result, Scan, ServerOptions,
    Update, Value, Write, WriteBatch, WriteDone, WriteOptions,
};
use socket2::SockRef;

use crate::process::PATIENCE;

pub(super) type Server<E> = KvServer<E, AnyThreadPool>;

/// A store in a directory of its own, and a server on it.
pub(super) struct Fixture<E: KvsEngine> {
    pub(super) server: Server<E>,
    pub(super) engine: E,
    _dir: tempfile::TempDir,
}

impl Fixture<KvStore> {
    pub(super) fn new() -> Self {
        Self::with("shared-queue", 2, ServerOptions::new())
    }

    pub(super) fn with(pool: &str, threads: u32, options: ServerOptions) -> Self {
        Self::of(pool, threads, options, |store| store)
    }
}

impl<E: KvsEngine> Fixture<E> {
    pub(super) fn of(
        pool: &str,
        threads: u32,
        options: ServerOptions,
        engine: impl FnOnce(KvStore) -> E,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(open(dir.path()));
        let pool = AnyThreadPool::named(pool, threads).unwrap();
        let server = KvServer::start(engine.clone(), pool, address_apart(), options).unwrap();
        Self { server, engine, _dir: dir }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(super) fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    /// Sends `bytes`, half-closes, and returns everything that comes back, as the first clients do.
    #[track_caller]
    pub(super) fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.send_last(bytes);
        client.read_to_end()
    }
}

/// An address of this machine that no other server here listens on: a port of it that becomes free
/// stays free.
pub(super) fn address_apart() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    format!("127.1.{high}.{low}:0")
}

pub(super) fn open(dir: &Path) -> KvStore {
    KvStore::open_with(dir, Options::new().durability(Durability::Os)).unwrap()
}

/// A socket and nothing more.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends `bytes` and half-closes. Both leave together, however long this thread is kept from
    /// running in between: the server waits only a moment to see whether it should say a newline.
    pub(super) fn send_last(&mut self, bytes: &[u8]) {
        SockRef::from(&self.stream).set_tcp_cork(true).unwrap();
        // After an error the server has closed its side, and may close the other at any time.
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(super) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// One reply, with its newline. Empty at the end of the stream.
    #[track_caller]
    pub(super) fn read_line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.drain(..=end).collect();
                return String::from_utf8(line).unwrap();
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return String::from_utf8(std::mem::take(&mut self.unread)).unwrap(),
                len => self.unread.extend_from_slice(&chunk[..len]),
            }
        }
    }

    /// Everything up to the end of the stream. A reset fails the test.
    #[track_caller]
    pub(super) fn read_to_end(&mut self) -> String {
        let mut all = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut all).unwrap();
        String::from_utf8(all).unwrap()
    }

    #[track_caller]
    pub(super) fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.read_line()
    }

    /// Whether the server sends nothing for a while.
    pub(super) fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let quiet = match self.stream.read(&mut byte) {
            Ok(0) => panic!("the server closed"),
            Ok(_) => {
                self.unread.push(byte[0]);
                false
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        quiet
    }
}

pub(super) fn set(key: &str, value: &str) -> String {
    format!(r#"{{"Set":{{"key":"{key}","value":"{value}"}}}}"#)
}

pub(super) fn get(key: &str) -> String {
    format!(r#"{{"Get":{{"key":"{key}"}}}}"#)
}

pub(super) fn remove(key: &str) -> String {
    format!(r#"{{"Remove":{{"key":"{key}"}}}}"#)
}

/// A real store with a hook before each operation, and writes that can be held back as if they
/// waited for the disk.
#[derive(Clone)]
pub(super) struct Hooked {
    pub(super) inner: KvStore,
    /// Called with every key before anything is done with it.
    pub(super) before: fn(&[u8]),
    /// Where `write_then` leaves writes, if this engine's writes wait for the disk.
    pub(super) held: Option<Arc<Mutex<Held>>>,
}

pub(super) type Held = Vec<(Write, WriteDone)>;

impl Hooked {
    /// Writes wait until [`Hooked::release`].
    pub(super) fn holding(inner: KvStore) -> Self {
        Self { inner, before: |_| (), held: Some(Arc::default()) }
    }

    pub(super) fn held_count(&self) -> usize {
        self.held.as_ref().unwrap().lock().unwrap().len()
    }

    pub(super) fn take_held(&self) -> Held {
        std::mem::take(&mut *self.held.as_ref().unwrap().lock().unwrap())
    }

    /// Does the writes held so far, on this thread.
    pub(super) fn release(&self) {
        for (write, done) in self.take_held() {
            self.inner.write_then(write, done);
        }
    }
}

impl KvsEngine for Hooked {
    fn set_bytes(&self, key: &[u8], value: &[u8]) -> Result<()> {
        (self.before)(key);
        self.inner.set_bytes(key, value)
    }

    fn get_with<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        (self.before)(key);
        self.inner.get_with(key, read)
    }

    fn get_bytes(&self, key: &[u8]) -> Result<Option<Value>> {
        (self.before)(key);
        self.inner.get_bytes(key)
    }

    fn remove_bytes(&self, key: &[u8]) -> Result<()> {
        (self.before)(key);
        self.inner.remove_bytes(key)
    }

    fn update(&self, key: &[u8], change: &mut dyn FnMut(Option<&[u8]>) -> Update) -> Result<()> {
        (self.before)(key);
        self.inner.update(key, change)
    }

    fn apply_with(&self, batch: &WriteBatch, options: WriteOptions) -> Result<()> {
        self.inner.apply_with(batch, options)
    }

    fn scan(&self, scan: Scan) -> Result<Entries> {
        self.inner.scan(scan)
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn clear(&self) -> Result<()> {
        self.inner.clear()
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn compact(&self) -> Result<()> {
        self.inner.compact()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }

    fn name(&self) -> &'static str {
        "hooked"
    }

    fn writes_wait_for_disk(&self) -> bool {
        self.held.is_some()
    }

    fn write_then(&self, write: Write, done: WriteDone) {
        if let Write::Set { key, .. } | Write::Remove { key } = &write {
            (self.before)(key);
        }
        self.held.as_ref().unwrap().lock().unwrap().push((write, done));
    }
}
