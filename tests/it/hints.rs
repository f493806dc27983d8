//! Random histories whose hints are deleted, cut and bent between any two opens, and that end by
//! closing or as a crash leaves them: the store is what a map is, every key of it counted and
//! scanned. Views taken in between stay what the map was when they were taken.

use std::path::Path;

use kvs::{KvStore, KvsEngine, Options, Scan};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Step, any_options, any_step, check_len, check_step, config};
use crate::model_engine::{Held, Map};
use crate::recovery::{copy, fast_dir, files};

/// So many views are held at once: the oldest goes first.
const VIEWS_MAX: usize = 3;

/// A step of the model, or one that a single engine knows.
#[derive(Debug, Clone)]
enum Act {
    Step(Step),
    /// Goes on with what is left behind, once something was done to the hints.
    Reopen {
        end: End,
        hints: Vec<Bend>,
    },
    View,
    /// A newer view in the place of the newest.
    Refresh,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    /// What a crash leaves: a copy of the files of the open store.
    Crash,
}

/// What is done to a hint.
#[derive(Debug, Clone, Copy)]
enum Bend {
    Keep,
    Delete,
    /// To this many of 256 parts.
    Cut(u8),
    /// A bit, at this many of 256 parts.
    Flip(u8),
}

fn any_act() -> impl Strategy<Value = Act> {
    let bend = prop_oneof![
        3 => Just(Bend::Keep),
        2 => Just(Bend::Delete),
        1 => any::<u8>().prop_map(Bend::Cut),
        2 => any::<u8>().prop_map(Bend::Flip),
    ];
    let end = prop_oneof![Just(End::Close), Just(End::Crash)];
    prop_oneof![
        40 => any_step(true).prop_map(Act::Step),
        1 => Just(Act::Step(Step::Clear)),
        4 => (end, vec(bend, 0..9)).prop_map(|(end, hints)| Act::Reopen { end, hints }),
        3 => Just(Act::View),
        3 => Just(Act::Refresh),
    ]
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn hints_and_crashes_change_nothing(
        options in any_options(),
        history in vec(any_act(), 1..120),
    ) {
        check_history(&options, &history);
    }
}

fn check_history(options: &Options, history: &[Act]) {
    let dir = fast_dir();
    let mut home = dir.path().join("0");
    let mut store = KvStore::open_with(&home, options.clone()).unwrap();
    let (mut map, mut views) = (Map::new(), Vec::<(KvStore, Map)>::new());
    for (number, act) in history.iter().enumerate() {
        match act {
            Act::Step(Step::Reopen { .. }) => {}
            Act::Step(step) => check_step(&store, &mut map, step),
            Act::Reopen { end, hints } => {
                let next = dir.path().join((number + 1).to_string());
                match end {
                    End::Close => {
                        store.close().unwrap();
                        copy(&home, &next);
                    }
                    End::Crash => copy_beside_writers(&home, &next),
                }
                bend(&next, hints);
                store = KvStore::open_with(&next, options.clone()).unwrap();
                home = next;
                // Half of the histories go on before anything is loaded.
                if hints.len() % 2 == 0 {
                    check_all(&store, &map);
                }
            }
            Act::View => {
                let view = KvStore::open_with(&home, options.clone().read_only(true)).unwrap();
                views.push((view, map.clone()));
                if views.len() > VIEWS_MAX {
                    let (view, map) = views.remove(0);
                    check_all(&view, &map);
                }
            }
            Act::Refresh => {
                if let Some((view, held)) = views.last_mut().filter(|(view, _)| view.path() == home)
                {
                    *view = view.refresh().unwrap();
                    held.clone_from(&map);
                }
            }
        }
    }
    for (view, map) in &views {
        check_all(view, map);
    }
    check_all(&store, &map);
    // Background compaction may drop an expired key between the two.
    assert!((0..1000).any(|_| store.len().unwrap() == store.stats().key_count));
    store.close().unwrap();
    drop(store);
    let store = KvStore::open_with(&home, options.clone()).unwrap();
    check_all(&store, &map);
}

/// As `copy`, again if background compaction replaced the manifest meanwhile: a crash takes every
/// file at one moment.
fn copy_beside_writers(from: &Path, to: &Path) {
    let list = || files(from, "");
    loop {
        let before = list();
        let copied = std::panic::catch_unwind(|| copy(from, to));
        if copied.is_ok() && list() == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn bend(dir: &Path, bends: &[Bend]) {
    let hints = files(dir, "seg-").into_iter();
    let hints = hints.filter(|path| path.extension().is_some_and(|end| end == "hint"));
    for (path, bend) in hints.zip(bends.iter().cycle()) {
        let mut bytes = std::fs::read(&path).unwrap();
        let part = |of: u8| bytes.len() * usize::from(of) / 256;
        match bend {
            Bend::Keep => continue,
            Bend::Delete => {
                std::fs::remove_file(path).unwrap();
                continue;
            }
            Bend::Cut(of) => bytes.truncate(part(*of)),
            Bend::Flip(of) => {
                // Of one that was just made there may be nothing yet.
                let at = part(*of);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (of % 8));
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// Everything there is to read says what the map says.
#[track_caller]
fn check_all(store: &KvStore, map: &Map) {
    check_len(store, map);
    let there = || map.iter().filter(|(_, held)| held.is_there());
    let expected: Vec<_> = there().map(|(key, held)| (key.clone(), held.value.clone())).collect();
    let found = |entries: kvs::Entries| -> Vec<_> {
        entries.map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
    };
    assert_eq!(found(store.scan(Scan::all()).unwrap()), expected);
    let mut unordered = found(store.iter().unwrap());
    unordered.sort();
    assert_eq!(unordered, expected);
    for (key, Held { value, expiry_ms }) in there() {
        let (found, found_ms) = store.get_with_expiry(key).unwrap().unwrap();
        assert!(found == value[..] && found_ms == *expiry_ms);
    }
    assert_eq!(store.get_bytes(b"never set").unwrap(), None);
}
