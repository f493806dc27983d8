//! Histories of concurrent operations, checked: is there an order, one operation after the other,
//! that explains every answer and that no operation overtakes one that had returned before it?
//!
//! Several threads ask a store for everything that has an answer (get, set, remove, swap,
//! compare-and-swap, update, batch) while another compacts it. When each request was made and when
//! it was answered is recorded; the algorithm of Wing, Gong and Lowe (crate `todc-utils`) looks for
//! an order. One history of ten runs in a child process that is killed (SIGKILL), more than once; a
//! request that was not answered has then happened before the kill or never.
//!
//! Before that, stores with a fault of each kind that this is to find are examined in the same way,
//! and must be found out.
//!
//! `cargo test --test histories` checks 500 histories; `KVS_HISTORIES=10000` more. A failure prints
//! its seed; `KVS_HISTORIES_SEED` begins with the same choices.
#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test program: a panic is how it fails"
)]

#[path = "histories/operation.rs"]
mod operation;
#[path = "histories/subject.rs"]
mod subject;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvs::{Durability, KvStore, KvsEngine, Options, ReadMode};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use todc_utils::{Action, History, WGLChecker};

use operation::{KEYS, Object, Operation, Request};
use subject::{Fault, Subject};

const OBJECTS: usize = 4;
const REQUESTS_PER_THREAD: u32 = 200;
/// Of so many histories one is killed.
const KILLED_EACH: u64 = 10;
const KILLS: u32 = 2;

/// A request that writes `to`, if it writes. `known` is what was last seen of each key.
fn random_request(random: &mut SmallRng, to: u32, known: &[u32; KEYS]) -> Request {
    let key = random.random_range(..KEYS);
    match random.random_range(0..10) {
        0..4 => Request::Get { key },
        4 => Request::Set { key, to },
        5 => Request::Remove { key },
        6 => Request::Swap { key, to: if random.random_ratio(1, 4) { 0 } else { to } },
        7 => Request::CompareAndSwap { key, from: known[key], to },
        8 => Request::Update { key, to },
        _ => Request::Batch {
            to: [(); KEYS]
                .map(|()| [Some(to), Some(to), Some(0), None][random.random_range(..4_usize)]),
        },
    }
}

/// Something that happened to an object, in the order in which it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Called { thread: usize, object: usize, request: Request },
    Answered { thread: usize, object: usize, operation: Operation },
    Killed,
}

fn options(seed: u64) -> Options {
    let durability = match seed % 4 {
        0 => Durability::Sync,
        1 => Durability::Interval(Duration::from_millis(3)),
        _ => Durability::Os,
    };
    let read_mode = if seed % 8 < 2 { ReadMode::Positioned } else { ReadMode::Mapped };
    let options = Options::new().durability(durability).read_mode(read_mode);
    options.segment_bytes_min(0).segment_bytes_max(16 << 10).lock_timeout(Duration::from_secs(5))
}

/// Where the store of a history is: one of eight on a disk, the others in memory, where syncs take
/// no time. The death of a process takes nothing from either.
fn home(seed: u64) -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir() && !seed.is_multiple_of(8);
    if in_memory { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

fn thread_count(seed: u64) -> usize {
    4 + (seed % 5) as usize
}

/// Asks `subject` from several threads, with `say` told of everything, while another compacts.
/// Values begin at `first`.
fn ask_from_threads(subject: &Subject, seed: u64, first: u32, say: &(impl Fn(Event) + Sync)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..thread_count(seed))
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = SmallRng::seed_from_u64(seed ^ (thread as u64) << 32);
                    let mut known = [[0; KEYS]; OBJECTS];
                    for n in 0..REQUESTS_PER_THREAD {
                        let object = random.random_range(..OBJECTS);
                        let to = first + thread as u32 * REQUESTS_PER_THREAD + n;
                        let request = random_request(&mut random, to, &known[object]);
                        say(Event::Called { thread, object, request });
                        let answer = subject.ask(object, &request);
                        let operation = Operation { request, answer: Some(answer) };
                        say(Event::Answered { thread, object, operation });
                        if let Request::Get { key } = request {
                            known[object][key] = answer;
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            // Relaxed: it only ends the loop.
            while !done.load(Ordering::Relaxed) {
                subject.store.compact().unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let results: Vec<_> = askers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(Result::unwrap);
    });
}

/// Asks for every key, by one thread.
fn ask_for_all(subject: &Subject, say: impl Fn(Event)) {
    for object in 0..OBJECTS {
        for key in 0..KEYS {
            let (thread, request) = (0, Request::Get { key });
            say(Event::Called { thread, object, request });
            let operation = Operation { request, answer: Some(subject.ask(object, &request)) };
            say(Event::Answered { thread, object, operation });
        }
    }
}

/// A history of threads of this process, and what the store holds when it was opened again.
fn record(dir: &Path, seed: u64, fault: Option<Fault>) -> Vec<Event> {
    let events = Mutex::new(Vec::new());
    let say = |event| events.lock().unwrap().push(event);
    let store = KvStore::open_with(dir, options(seed)).unwrap();
    let subject = Subject::new(store, fault);
    ask_from_threads(&subject, seed, 1, &say);
    subject.store.close().unwrap();
    drop(subject);
    let store = KvStore::open_with(dir, options(seed)).unwrap();
    ask_for_all(&Subject::new(store, None), say);
    events.into_inner().unwrap()
}

/// A history of processes, each but the last of which was killed.
fn record_killed(dir: &Path, seed: u64, fault: Option<Fault>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut random = SmallRng::seed_from_u64(seed);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--child")
            .arg(dir)
            .args([seed, u64::from(kill)].map(|number| number.to_string()))
            .arg(fault.map_or_else(String::new, Fault::name))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (began, beginning) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let lines = lines.lines().map_while(Result::ok).inspect(|_| {
                let _ = began.send(());
            });
            lines.collect::<Vec<_>>()
        });
        beginning.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::sleep(Duration::from_micros(random.random_range(0..10_000)));
        // `kill` sends SIGKILL. A child that was done by then waits for it.
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "the child died before it was killed");
        // The last line may be torn.
        let said = reader.join().unwrap();
        events.extend(said.iter().map_while(|line| serde_json::from_str::<Event>(line).ok()));
        events.push(Event::Killed);
    }
    let store = KvStore::open_with(dir, options(seed)).unwrap();
    let rest = Mutex::new(events);
    ask_for_all(&Subject::new(store, None), |event| rest.lock().unwrap().push(event));
    rest.into_inner().unwrap()
}

/// Asks until it is killed.
fn child(dir: &Path, seed: u64, kill: u32, fault: Option<Fault>) {
    let store = KvStore::open_with(dir, options(seed)).unwrap();
    let say = |event: Event| {
        let line = format!("{}\n", serde_json::to_string(&event).unwrap());
        // One write of less than a page to a pipe arrives whole, whoever else writes.
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            std::process::exit(0);
        }
    };
    let subject = Subject::new(store, fault);
    ask_from_threads(&subject, seed + u64::from(kill), 1 + kill * 10_000, &say);
    loop {
        std::thread::park();
    }
}

/// A part of a history that one object saw: actions, and which of them, by number, are answers that
/// nobody heard.
#[derive(Default)]
struct Seen {
    actions: Vec<(usize, Action<Operation>)>,
    unheard: Vec<usize>,
}

/// What `object` saw. A request that was under way when the process was killed gets an answer that
/// says nothing, at that time.
fn seen_by(object: usize, events: &[Event]) -> Seen {
    let mut seen = Seen::default();
    let mut under_way: Vec<(usize, Request)> = Vec::new();
    for event in events {
        match event {
            Event::Called { thread, object: at, request } if *at == object => {
                under_way.push((*thread, *request));
                let operation = Operation { request: *request, answer: None };
                seen.actions.push((*thread, Action::Call(operation)));
            }
            Event::Answered { thread, object: at, operation } if *at == object => {
                under_way.retain(|(other, _)| other != thread);
                seen.actions.push((*thread, Action::Response(*operation)));
            }
            Event::Killed => {
                for (thread, request) in under_way.drain(..) {
                    seen.unheard.push(seen.actions.len());
                    let operation = Operation { request, answer: None };
                    seen.actions.push((thread, Action::Response(operation)));
                }
            }
            _ => {}
        }
    }
    seen
}

/// Whether some order explains what was seen: with every choice of unheard requests that happened.
fn is_explained(seen: &Seen) -> bool {
    (0..1_u64 << seen.unheard.len()).any(|chosen| {
        let dropped = seen.unheard.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
        let mut is_dropped = vec![false; seen.actions.len()];
        for (_, &answer) in dropped {
            is_dropped[answer] = true;
            let thread = seen.actions[answer].0;
            let call = seen.actions[..answer].iter().rposition(|(other, _)| *other == thread);
            is_dropped[call.unwrap()] = true;
        }
        let kept = seen.actions.iter().zip(is_dropped).filter(|(_, dropped)| !dropped);
        let actions: Vec<_> = kept.map(|(action, _)| action.clone()).collect();
        actions.is_empty() || WGLChecker::<Object>::is_linearizable(History::from_actions(actions))
    })
}

/// Records a history and looks for an order; returns whether there is one, and its length.
fn examine(seed: u64, killed: bool, fault: Option<Fault>) -> (bool, usize) {
    let dir = home(seed).unwrap();
    let record = if killed { record_killed } else { record };
    let events = record(dir.path(), seed, fault);
    let explained = (0..OBJECTS).all(|object| is_explained(&seen_by(object, &events)));
    (explained, events.len() / 2)
}

/// Every fault is found, within a few histories.
fn find_faults(random: &mut SmallRng) {
    for fault in Fault::ALL {
        let found =
            (1..=50).find(|_| !examine(random.next_u64(), fault.needs_kill(), Some(fault)).0);
        let tries = found.unwrap_or_else(|| panic!("50 histories do not show {fault:?}"));
        eprintln!("planted {fault:?}: found in history {tries}");
    }
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let [_, flag, dir, seed, kill, fault] = &args[..]
        && flag == "--child"
    {
        let (seed, kill) = (seed.parse().unwrap(), kill.parse().unwrap());
        return child(Path::new(dir), seed, kill, Fault::named(fault));
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let soak = number("KVS_HISTORIES");
    let histories = soak.unwrap_or(500);
    let seed = number("KVS_HISTORIES_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{histories} histories, seed {seed}");
    let began = Instant::now();
    find_faults(&mut SmallRng::seed_from_u64(seed));
    let (mut operations, mut kills, mut failures) = (0, 0, 0);
    for n in 0..histories {
        let seed = seed + n;
        let killed = seed % KILLED_EACH == 0;
        let (explained, len) = examine(seed, killed, None);
        operations += len;
        kills += u64::from(killed) * u64::from(KILLS);
        if !explained {
            failures += 1;
            eprintln!(
                "KVS_HISTORIES_SEED={seed}: no order explains the answers (killed: {killed})"
            );
        }
        if n % 100 == 99 {
            let seconds = began.elapsed().as_secs();
            eprintln!("{} of {histories} histories, {failures} failures, {seconds} s", n + 1);
        }
    }
    println!("{} passed, {failures} failed", histories + Fault::ALL.len() as u64 - failures);
    let name = if soak.is_some() { "soak-histories" } else { "histories" };
    println!(
        "{name}: {histories} histories, {operations} operations, {kills} kills, {} planted faults \
         found; failures: {failures}",
        Fault::ALL.len()
    );
    assert_eq!(failures, 0);
}
