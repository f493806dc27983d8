//! `kvs-server`: serves the store of one directory over TCP.
//!
//! ```text
//! open the store -> listen -> say so on standard error (and in the port file)
//!   what goes wrong meanwhile is said there too
//!   SIGTERM, SIGINT: answer what is under way, close the store, exit 0
//!   a second one:    exit at once; the store recovers when it is opened again
//! ```
//!
//! A thin program over what any host can do itself: open an engine and start a `KvServer` on it.

#[path = "common/exit.rs"]
mod exit;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{fs, io, thread};

use clap::Parser;
use clap::builder::PossibleValuesParser;

use kvs::thread_pool::{AnyThreadPool, POOL_THREADS_MAX};
use kvs::{AnyEngine, Durability, KvServer, KvsEngine, KvsError, Options, ServerOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

type Server = KvServer<AnyEngine, AnyThreadPool>;

/// How long clients may take for their replies when the server is asked to stop (5 s): who stops
/// services, stops waiting after ten.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Serve a key-value store over TCP.
#[derive(Parser)]
#[command(name = "kvs-server", version, after_help = EXAMPLE)]
struct Arguments {
    /// Directory of the store, created if missing
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4000")]
    addr: SocketAddr,

    /// kvs or sled [default: what DIR holds, else kvs]
    #[arg(long, value_name = "NAME", hide_possible_values = true, verbatim_doc_comment,
          value_parser = PossibleValuesParser::new(kvs::ENGINE_NAMES))]
    engine: Option<String>,

    /// An answered write survives
    ///   os           the death of this process
    ///   interval:MS  power loss, but for the last MS ms
    ///   sync         power loss
    #[arg(long, value_name = "LEVEL", default_value = "interval:500", value_parser = durability,
          verbatim_doc_comment)]
    durability: Durability,

    /// Threads that run requests [default: CPUs]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(POOL_THREADS_MAX)))]
    threads: Option<u32>,

    /// shared-queue, rayon, naive
    #[arg(long, value_name = "NAME", default_value = "shared-queue", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(["shared-queue", "rayon", "naive"]))]
    pool: String,

    /// Further clients are refused
    #[arg(long, value_name = "N", default_value = "1024",
          value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: u32,

    /// Let other machines in, without passwords
    #[arg(long)]
    unprotected: bool,

    /// Write the port there; for --addr with port 0
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

const EXAMPLE: &str = "\
Example:
  kvs-server --addr 127.0.0.1:4000 --durability sync cities";

fn main() -> ExitCode {
    exit::code("kvs-server", run(Arguments::parse()))
}

/// What the store and the server have to say.
struct ToStandardError;

impl log::Log for ToStandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(&format!("kvs-server: {}", record.args()));
    }

    fn flush(&self) {}
}

fn run(arguments: Arguments) -> kvs::Result<()> {
    if log::set_logger(&ToStandardError).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    check_addr(arguments.addr, arguments.unprotected)?;
    // From here on a signal is either answered by a drain or, the second time, obeyed at once.
    let signals = listen_for_signals()?;

    let options = Options::new().durability(arguments.durability);
    let engine = AnyEngine::open(arguments.dir, arguments.engine.as_deref(), options)?;
    let pool = AnyThreadPool::named(&arguments.pool, arguments.threads.unwrap_or_else(cpu_count))?;
    let connections_max = usize::try_from(arguments.connections_max).unwrap_or(usize::MAX);
    let server = Arc::new(Server::start(
        engine.clone(),
        pool,
        arguments.addr,
        ServerOptions::new().connections_max(connections_max),
    )?);
    let addr = server.local_addr();
    announce(&engine, addr);
    if let Some(file) = arguments.port_file {
        write_port(&file, addr.port())?;
    }

    stop_on_signal(signals, Arc::clone(&server))?;
    let outcome = server.wait(None).map(drop);
    // Closed even if the server failed: what was answered must be durable.
    engine.close().and(outcome)
}

/// Refuses to let strangers in by mistake.
fn check_addr(addr: SocketAddr, is_unprotected: bool) -> kvs::Result<()> {
    if is_unprotected || addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(KvsError::InvalidOption {
        name: "addr",
        must: "127.0.0.1 or ::1, since there are no passwords: let others in by a tunnel (ssh -L), \
               by a proxy that asks them for one, or by --unprotected if only friends can reach it",
    })
}

fn durability(text: &str) -> Result<Durability, String> {
    let millis = |text: &str| text.parse().ok().filter(|millis| *millis > 0);
    match text.split_once(':') {
        None if text == "os" => Ok(Durability::Os),
        None if text == "sync" => Ok(Durability::Sync),
        Some(("interval", every)) => millis(every)
            .map(|every| Durability::Interval(Duration::from_millis(every)))
            .ok_or_else(|| "the interval is a number of milliseconds above 0".to_owned()),
        _ => Err("expected os, interval:MS or sync".to_owned()),
    }
}

fn cpu_count() -> u32 {
    let count = thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(POOL_THREADS_MAX));
    count.min(POOL_THREADS_MAX)
}

fn listen_for_signals() -> kvs::Result<Signals> {
    let listen = || {
        let signals = Signals::new([SIGTERM, SIGINT])?;
        let asked_before = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal passes the check and is noted after it.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked_before))?;
            flag::register(signal, Arc::clone(&asked_before))?;
        }
        Ok(signals)
    };
    listen().map_err(|source| KvsError::Thread { source })
}

fn stop_on_signal(mut signals: Signals, server: Arc<Server>) -> kvs::Result<()> {
    let wait = move || {
        if signals.forever().next().is_some()
            && let Err(error) = server.stop(DRAIN_MAX)
        {
            say(&format!("kvs-server: {error}"));
        }
    };
    let started = thread::Builder::new().name("kvs-signals".to_owned()).spawn(wait);
    started.map(drop).map_err(|source| KvsError::Thread { source })
}

fn announce(engine: &AnyEngine, addr: SocketAddr) {
    let version = env!("CARGO_PKG_VERSION");
    say(&format!("kvs-server {version}, engine {}, listening on {addr}", engine.name()));
}

/// A line on standard error; a server does not end because nobody listens there.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Puts the port into `file` in one step: who waits for the file never reads half a number.
fn write_port(file: &Path, port: u16) -> kvs::Result<()> {
    let mut half = file.as_os_str().to_owned();
    half.push(".new");
    fs::write(&half, format!("{port}\n"))
        .and_then(|()| fs::rename(&half, file))
        .map_err(|source| KvsError::Io { op: "write", path: file.to_path_buf(), source })
}
