//! A client of the server, for one thread at a time.
//!
//! It keeps its connection. A connection that the server has closed meanwhile (it was restarted, or
//! closes silent connections) is noticed *before* a request is sent, and replaced by a new one.
//! Once a request has been sent nothing is tried again, since the server may have done it: the
//! caller gets the error and decides, and the next call connects anew.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::SockRef;

use crate::error::{KvsError, Result};
use crate::server::json::{self, Reply, Request};

/// Longest reply that is accepted, in bytes (8 GiB): more than the longest value takes when every
/// byte of it is escaped. Memory is taken as bytes arrive.
const REPLY_BYTES_MAX: u64 = 8 << 30;

/// How long to wait for the server, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a server.
///
/// ```no_run
/// let mut client = kvs::KvsClient::connect("127.0.0.1:4000")?;
/// client.set("no".to_owned(), "Oslo".to_owned())?;
/// assert_eq!(client.get("no".to_owned())?.as_deref(), Some("Oslo"));
/// # Ok::<(), kvs::KvsError>(())
/// ```
pub struct KvsClient {
    /// The address as it was given, for messages.
    addr: String,
    /// What it stands for, to connect again.
    addrs: Vec<SocketAddr>,
    timeout: Option<Duration>,
    /// `None` after an error, when it is not known what the connection would say next.
    connection: Option<BufReader<TcpStream>>,
    buffer: Vec<u8>,
}

impl KvsClient {
    /// Connects to the server at `addr`, and waits 30 s at most, now and for each reply.
    ///
    /// # Errors
    ///
    /// [`KvsError::Net`] if `addr` is no address or nobody answers there.
    pub fn connect(addr: impl ToSocketAddrs + fmt::Display) -> Result<Self> {
        Self::connect_timeout(addr, Some(TIMEOUT))
    }

    /// As [`KvsClient::connect`] with another timeout, or none.
    ///
    /// # Errors
    ///
    /// As [`KvsClient::connect`], and [`KvsError::InvalidOption`] if `timeout` is zero.
    pub fn connect_timeout(
        addr: impl ToSocketAddrs + fmt::Display,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(KvsError::InvalidOption { name: "timeout", must: "above zero, or none" });
        }
        let name = addr.to_string();
        let addrs = match addr.to_socket_addrs() {
            Ok(addrs) => addrs.collect(),
            Err(source) => return Err(KvsError::Net { op: "look up", addr: name, source }),
        };
        let mut client = Self { addr: name, addrs, timeout, connection: None, buffer: Vec::new() };
        client.connection = Some(client.open()?);
        Ok(client)
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// [`KvsError::Server`] with the server's own words; [`KvsError::Net`] if it cannot be
    /// reached, closes, or does not answer in time (then the key may have been set or not);
    /// [`KvsError::Protocol`] if what answers is no kvs server.
    pub fn set(&mut self, key: String, value: String) -> Result<()> {
        self.call(&Request::Set { key: key.into(), value: value.into() }).map(drop)
    }

    /// Returns the value of `key`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`KvsClient::set`].
    pub fn get(&mut self, key: String) -> Result<Option<String>> {
        self.call(&Request::Get { key: key.into() })
    }

    /// Removes `key`.
    ///
    /// # Errors
    ///
    /// [`KvsError::KeyNotFound`] if it is not there, otherwise as [`KvsClient::set`].
    pub fn remove(&mut self, key: String) -> Result<()> {
        self.call(&Request::Remove { key: key.into() }).map(drop)
    }

    /// Sends `request` and returns what the server says.
    fn call(&mut self, request: &Request<'_>) -> Result<Option<String>> {
        // Taken out, and put back only after a whole reply: after anything else the next bytes on
        // it could be the reply to this request.
        let mut connection = match self.connection.take() {
            Some(connection) if is_open(&connection) => connection,
            _ => self.open()?,
        };
        self.buffer.clear();
        json::encode(request, &mut self.buffer);
        self.buffer.push(b'\n');
        connection
            .get_mut()
            .write_all(&self.buffer)
            .map_err(|source| self.failed("send a request to", source))?;

        self.buffer.clear();
        connection
            .by_ref()
            .take(REPLY_BYTES_MAX)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| self.failed("read the reply of", source))?;
        if self.buffer.is_empty() {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            return Err(self.failed("read the reply of", source));
        }
        let reply = serde_json::from_slice(&self.buffer)
            .map_err(|_| KvsError::Protocol { what: "the reply is not one of a kvs server" })?;
        self.connection = Some(connection);
        match reply {
            Reply::Ok(value) => Ok(value.map(String::from)),
            Reply::Err(text) if text == KvsError::KeyNotFound.to_string() => {
                Err(KvsError::KeyNotFound)
            }
            Reply::Err(text) => Err(KvsError::Server { message: text.into_owned() }),
        }
    }

    /// A new connection to the first of the addresses that answers.
    fn open(&self) -> Result<BufReader<TcpStream>> {
        let mut outcome = Err(io::Error::new(io::ErrorKind::InvalidInput, "no address"));
        for addr in &self.addrs {
            outcome = match self.timeout {
                Some(timeout) => TcpStream::connect_timeout(addr, timeout),
                None => TcpStream::connect(addr),
            };
            if outcome.is_ok() {
                break;
            }
        }
        let prepare = |stream: TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(self.timeout)?;
            stream.set_write_timeout(self.timeout)?;
            Ok(BufReader::new(stream))
        };
        outcome.and_then(prepare).map_err(|source| self.failed("connect to", source))
    }

    fn failed(&self, op: &'static str, source: io::Error) -> KvsError {
        let source = match source.kind() {
            // What a timeout is called by the operating system.
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")
            }
            _ => source,
        };
        KvsError::Net { op, addr: self.addr.clone(), source }
    }
}

impl fmt::Debug for KvsClient {
    /// The address only: keys and values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvsClient({})", self.addr)
    }
}

/// Whether a request can be sent on an idle connection: the server has neither closed it nor sent
/// something that nobody asked for (as it does before it closes).
fn is_open(connection: &BufReader<TcpStream>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let look = SockRef::from(connection.get_ref())
        .recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    let is_quiet = look.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    is_quiet && connection.buffer().is_empty()
}
