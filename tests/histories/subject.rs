//! What is examined: a store, honest or with a fault that the checker must find.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use kvs::{CompareAndSwap, KvStore, KvsEngine, KvsError, Update, WriteBatch};

use crate::operation::{Held, KEYS, Request};

/// What a store could do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A read answers with what it answered before.
    StaleRead,
    /// `update` reads and writes in two steps.
    LostUpdate,
    /// A removed key is back after the next start.
    ResurrectedKey,
    /// A write returns before it is in the log.
    EarlyAcknowledgement,
    /// A batch is written one key after the other.
    HalfBatch,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::StaleRead,
        Self::LostUpdate,
        Self::ResurrectedKey,
        Self::EarlyAcknowledgement,
        Self::HalfBatch,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether only a process that is killed shows it.
    pub(crate) fn needs_kill(self) -> bool {
        matches!(self, Self::ResurrectedKey | Self::EarlyAcknowledgement)
    }
}

/// A store with its fault, if it is to have one.
pub(crate) struct Subject {
    pub(crate) store: KvStore,
    fault: Option<Fault>,
    /// What reads answered, for `StaleRead`.
    answered: Mutex<HashMap<String, Held>>,
    /// Removed, and not really, for `ResurrectedKey`.
    hidden: Mutex<HashSet<String>>,
    /// Where `EarlyAcknowledgement` leaves what it has to do.
    later: mpsc::Sender<(String, Held)>,
}

impl Subject {
    pub(crate) fn new(store: KvStore, fault: Option<Fault>) -> Self {
        let (later, tasks) = mpsc::channel::<(String, Held)>();
        if fault == Some(Fault::EarlyAcknowledgement) {
            let store = store.clone();
            std::thread::spawn(move || {
                for (key, value) in tasks {
                    std::thread::sleep(Duration::from_millis(1));
                    let _ = store.set_bytes(key.as_bytes(), text(value).as_bytes());
                }
            });
        }
        let (answered, hidden) = (Mutex::default(), Mutex::default());
        Self { store, fault, answered, hidden, later }
    }

    /// Does what is asked of `object`, and returns what the store answered.
    pub(crate) fn ask(&self, object: usize, request: &Request) -> Held {
        let name = |key: usize| format!("{object}/{key}");
        match *request {
            Request::Get { key } => self.get(&name(key)),
            Request::Set { key, to } => self.set(&name(key), to),
            Request::Remove { key } => self.remove(&name(key)),
            Request::Swap { key, to } => {
                let text = (to != 0).then(|| text(to));
                let name = name(key);
                self.show(&name);
                number(
                    self.store.swap(name.as_bytes(), text.as_deref().map(str::as_bytes)).unwrap(),
                )
            }
            Request::CompareAndSwap { key, from, to } => {
                let [from, to] = [from, to].map(|held| (held != 0).then(|| text(held)));
                let [from, to] = [&from, &to].map(|text| text.as_deref().map(str::as_bytes));
                let name = name(key);
                self.show(&name);
                let done = self.store.compare_and_swap(name.as_bytes(), from, to).unwrap();
                Held::from(matches!(done, CompareAndSwap::Swapped))
            }
            Request::Update { key, to } => self.update(&name(key), to),
            Request::Batch { to } => self.batch(name, to),
        }
    }

    fn get(&self, name: &str) -> Held {
        if self.hidden.lock().unwrap().contains(name) {
            return 0;
        }
        let held = number(self.store.get_bytes(name.as_bytes()).unwrap());
        if self.fault != Some(Fault::StaleRead) {
            return held;
        }
        self.answered.lock().unwrap().insert(name.to_owned(), held).unwrap_or(held)
    }

    fn set(&self, name: &str, to: Held) -> Held {
        self.show(name);
        if self.fault == Some(Fault::EarlyAcknowledgement) {
            self.later.send((name.to_owned(), to)).unwrap();
        } else {
            self.store.set_bytes(name.as_bytes(), text(to).as_bytes()).unwrap();
        }
        0
    }

    fn remove(&self, name: &str) -> Held {
        if self.fault == Some(Fault::ResurrectedKey) {
            let held = self.get(name);
            self.hidden.lock().unwrap().insert(name.to_owned());
            return Held::from(held != 0);
        }
        match self.store.remove_bytes(name.as_bytes()) {
            Ok(()) => 1,
            Err(KvsError::KeyNotFound) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    fn update(&self, name: &str, to: Held) -> Held {
        self.show(name);
        if self.fault == Some(Fault::LostUpdate) {
            let held = self.get(name);
            std::thread::yield_now();
            self.set(name, to);
            return held;
        }
        let mut seen = 0;
        let mut change = |held: Option<&[u8]>| {
            seen = held.map_or(0, parse);
            Update::Set(text(to).into_bytes())
        };
        self.store.update(name.as_bytes(), &mut change).unwrap();
        seen
    }

    fn batch(&self, name: impl Fn(usize) -> String, to: [Option<Held>; KEYS]) -> Held {
        let mut batch = WriteBatch::new();
        for (key, held) in to.iter().enumerate() {
            let name = name(key);
            let Some(held) = held else { continue };
            self.show(&name);
            match held {
                0 => batch.remove(name.as_bytes()),
                held => batch.set(name.as_bytes(), text(*held).as_bytes()),
            };
            if self.fault == Some(Fault::HalfBatch) {
                self.store.apply(&batch).unwrap();
                batch.clear();
                std::thread::yield_now();
            }
        }
        self.store.apply(&batch).unwrap();
        0
    }

    /// Ends a pretended removal.
    fn show(&self, name: &str) {
        self.hidden.lock().unwrap().remove(name);
    }
}

/// A value as the store holds it: of many lengths, so that logs fill and records cross pages.
fn text(held: Held) -> String {
    let filler = if held.is_multiple_of(31) { 5_000 } else { held as usize % 200 };
    format!("{held} {}", "x".repeat(filler))
}

fn parse(bytes: &[u8]) -> Held {
    let text_held = std::str::from_utf8(bytes).unwrap();
    let held = text_held.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text_held, text(held), "a value that nobody wrote");
    held
}

fn number(found: Option<kvs::Value>) -> Held {
    found.map_or(0, |value| parse(&value))
}
