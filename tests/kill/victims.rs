//! The processes that are killed while they write, and what they had been told was done.
//!
//! ```text
//! this program   a host in Rust that writes; a child of the test
//! a server       a host in Rust that serves its store; the test writes, over four connections
//! PROGRAM        a host in another language that writes
//! ```
//! A host that writes gets `DIR DURABILITY SEGMENT_BYTES_MAX VERSION SEED` as its arguments (0
//! bytes are the default; its versions are above VERSION). It says on a pipe what thread 2 is
//! about to do (`? 2 81:7 90:0`: key 81 becomes version 7, key 90 is removed) and that it was
//! acknowledged (`! 2`), each line by one write.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
use kvs::{
    Durability, KvServer, KvStore, KvsClient, KvsEngine, KvsError, Options, ServerOptions,
    WriteMode,
};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::steps::{Step, THREADS, name, value};

/// Versions of one cycle are below those of the next.
pub(crate) const VERSIONS_PER_CYCLE: u64 = 1_000_000;

/// How a writing process comes to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    This,
    Server,
    Program(Vec<String>),
}

/// How a store is opened, as it can be said in every language.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// 0 survives the process, 1 a loss of power within 3 ms, 2 a loss of power.
    pub(crate) durability: u64,
    /// 0 for the default.
    pub(crate) segment_bytes_max: u64,
}

impl Setting {
    pub(crate) fn of(cycle: u64) -> Self {
        let segment_bytes_max = if cycle.is_multiple_of(2) { 16 << 10 } else { 0 };
        Self { durability: cycle % 3, segment_bytes_max }
    }

    pub(crate) fn options(self) -> Options {
        let durability = match self.durability {
            0 => Durability::Os,
            1 => Durability::Interval(Duration::from_millis(3)),
            _ => Durability::Sync,
        };
        let options = Options::new().durability(durability).lock_timeout(Duration::from_secs(5));
        match self.segment_bytes_max {
            0 => options,
            bytes => options.segment_bytes_min(0).segment_bytes_max(bytes),
        }
    }
}

/// What the arguments `KIND=COUNT` of a test ask for; if there are none, `default` does.
pub(crate) fn asked(args: &[String], default: &[&str]) -> Vec<(Kind, u64)> {
    let asked: Vec<&str> = args.iter().map(String::as_str).filter(|a| a.contains('=')).collect();
    let asked = if asked.is_empty() { default } else { &asked };
    let parse = |text: &&str| {
        let (kind, count) = text.rsplit_once('=').unwrap();
        (Kind::parse(kind), count.parse().unwrap())
    };
    asked.iter().map(parse).collect()
}

/// The seed that the environment gives as `name`, or one of this process.
pub(crate) fn seed(name: &str) -> u64 {
    let seed = std::env::var(name).map(|text| text.parse().unwrap());
    seed.unwrap_or_else(|_| u64::from(std::process::id()))
}

impl Kind {
    fn parse(text: &str) -> Self {
        match text {
            "this" => Self::This,
            "server" => Self::Server,
            program => Self::Program(program.split(' ').map(str::to_owned).collect()),
        }
    }

    /// The program, started by the program that the words `under` are of, if there are any.
    pub(crate) fn command(&self, under: &[String]) -> Command {
        let this = || std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let words = match self {
            Self::This => vec![this(), "--write".to_owned()],
            Self::Server => vec![this(), "--serve".to_owned()],
            Self::Program(words) => words.clone(),
        };
        let words = [under, &words].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Starts `command` on the store in `dir`; it writes from `version` on.
    pub(crate) fn start(
        &self,
        mut command: Command,
        dir: &Path,
        setting: Setting,
        version: u64,
        seed: u64,
    ) -> Victim {
        let numbers = [setting.durability, setting.segment_bytes_max, version, seed];
        command.arg(dir).args(numbers.map(|number| number.to_string()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, says) = channel();
        let serves = *self == Self::Server;
        let heard = std::thread::spawn(move || {
            if serves {
                write_over_connections(output, version, seed, &said)
            } else {
                listen(output, &said)
            }
        });
        Victim { child, says, heard }
    }
}

/// A process that writes until it is killed.
pub(crate) struct Victim {
    pub(crate) child: Child,
    /// Something for each line.
    says: Receiver<()>,
    heard: JoinHandle<Vec<Heard>>,
}

/// What a thread of the victim said.
pub(crate) enum Heard {
    Begun(u32, Step),
    Done(u32),
}

impl Victim {
    /// Waits for a line that it has not said yet; whether it was there to say it.
    ///
    /// # Panics
    ///
    /// If it lives for a minute and says nothing.
    pub(crate) fn says_more(&self) -> bool {
        while self.says.try_recv().is_ok() {}
        let outcome = self.says.recv_timeout(Duration::from_secs(60));
        if outcome == Err(RecvTimeoutError::Timeout) {
            self.kill_group();
            panic!("it hangs");
        }
        outcome.is_ok()
    }

    /// Kills it, and the group if it leads one: what a tracer has started goes on without it.
    pub(crate) fn kill_group(&self) {
        let pid = self.child.id();
        // They may have ended meanwhile, or lead none.
        let mut kill = Command::new("kill");
        kill.args(["-9", "--", &pid.to_string(), &format!("-{pid}")]);
        kill.stderr(Stdio::null()).status().unwrap();
    }

    /// Waits for its end; what it said, in an order that is right for each of its threads.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<Heard>) {
        (self.child.wait().unwrap(), self.heard.join().unwrap())
    }
}

fn listen(output: BufReader<impl Read>, said: &Sender<()>) -> Vec<Heard> {
    let mut heard = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        let _ = said.send(());
        let (what, rest) = line.split_at(2);
        let (thread, step) = rest.split_once(' ').unwrap_or((rest, ""));
        let thread = thread.parse().unwrap();
        heard.push(match what {
            "? " => Heard::Begun(thread, Step::parse(step)),
            _ => Heard::Done(thread),
        });
    }
    heard
}

/// Writes over four connections until the server is gone. Its first line says its port.
fn write_over_connections(
    mut output: BufReader<impl Read>,
    version: u64,
    seed: u64,
    said: &Sender<()>,
) -> Vec<Heard> {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    // One that was killed while it opened its store says nothing.
    let Ok(port) = line.trim().parse() else { return Vec::new() };
    std::thread::scope(|scope| {
        let writers = (0..THREADS)
            .map(|thread| scope.spawn(move || write_over(port, thread, version, seed, said)));
        let writers: Vec<_> = writers.collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

fn write_over(port: u16, thread: u32, version: u64, seed: u64, said: &Sender<()>) -> Vec<Heard> {
    let mut heard = Vec::new();
    let Ok(mut client) = KvsClient::connect(format!("127.0.0.1:{port}")) else { return heard };
    let mut random = SmallRng::seed_from_u64(seed ^ u64::from(thread) << 32);
    for n in 1.. {
        let step = Step::of_one_key(&mut random, thread, version + n);
        let (key, version) = step.0[0];
        heard.push(Heard::Begun(thread, step));
        let outcome = match version {
            0 => client.remove(name(key)),
            _ => client.set(name(key), value(key, version)),
        };
        match outcome {
            Ok(()) | Err(KvsError::KeyNotFound) => heard.push(Heard::Done(thread)),
            Err(KvsError::Net { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        let _ = said.send(());
    }
    heard
}

/// The victim's side: its arguments after the flag.
pub(crate) struct Orders {
    store: KvStore,
    version: u64,
    seed: u64,
}

/// How a program says that a store refused: no panic, and exit code 1.
fn or_exit<T>(outcome: kvs::Result<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    })
}

impl Orders {
    /// Does what a child of a test is told to do; whether this is one.
    pub(crate) fn are_carried_out(args: &[String]) -> bool {
        match args.first().map(String::as_str) {
            Some("--write") => Self::parse(&args[1..]).write(),
            Some("--serve") => Self::parse(&args[1..]).serve(),
            _ => return false,
        }
        true
    }

    fn parse(args: &[String]) -> Self {
        let [dir, numbers @ ..] = args else { panic!("no directory") };
        let numbers: Vec<u64> = numbers.iter().map(|text| text.parse().unwrap()).collect();
        let [durability, segment_bytes_max, version, seed] = numbers[..] else {
            panic!("{numbers:?}")
        };
        let options = Setting { durability, segment_bytes_max }.options();
        let is_direct = version / VERSIONS_PER_CYCLE % 5 == 4;
        let write_mode = if is_direct { WriteMode::Direct } else { WriteMode::Tail };
        let options = options.write_mode(write_mode);
        Self { store: or_exit(KvStore::open_with(dir, options)), version, seed }
    }

    /// Writes until it is killed.
    fn write(&self) {
        let say = |line: String| {
            // One write of less than a page to a pipe arrives whole, whoever else writes.
            if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
                std::process::exit(0);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = SmallRng::seed_from_u64(self.seed ^ u64::from(thread) << 32);
                    for n in 1.. {
                        let step = Step::random(&mut random, thread, self.version + n);
                        say(format!("? {thread}{}\n", step.line()));
                        self.run(&step);
                        say(format!("! {thread}\n"));
                    }
                });
            }
            scope.spawn(|| self.compact_again_and_again());
        });
    }

    fn run(&self, step: &Step) {
        match &step.0[..] {
            [(key, 0)] => match self.store.remove(name(*key)) {
                Err(KvsError::KeyNotFound) => {}
                outcome => or_exit(outcome),
            },
            [(key, version)] => or_exit(self.store.set(name(*key), value(*key, *version))),
            _ => or_exit(self.store.apply(&step.batch())),
        }
    }

    fn compact_again_and_again(&self) {
        loop {
            or_exit(self.store.compact());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Serves until it is killed.
    fn serve(&self) {
        let pool = SharedQueueThreadPool::new(2).unwrap();
        let options = ServerOptions::new();
        let server = KvServer::start(self.store.clone(), pool, "127.0.0.1:0", options).unwrap();
        let port = format!("{}\n", server.local_addr().port());
        std::io::stdout().lock().write_all(port.as_bytes()).unwrap();
        self.compact_again_and_again();
    }
}
