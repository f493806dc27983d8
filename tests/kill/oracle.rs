//! What a store must hold, by what its writer said before it was gone.

use std::collections::BTreeMap;

use kvs::{KvStore, KvsEngine};

use crate::steps::{KEYS, Step, THREADS, name, value};
use crate::victims::Heard;

/// Applies what was acknowledged to `model`; returns, for each thread, the step under way.
pub(crate) fn acknowledged(heard: Vec<Heard>, model: &mut BTreeMap<u32, u64>) -> Vec<Option<Step>> {
    let mut under_way = vec![None; THREADS as usize];
    for said in heard {
        match said {
            Heard::Begun(thread, step) => under_way[thread as usize] = Some(step),
            Heard::Done(thread) => {
                let step: Step = under_way[thread as usize].take().expect("it was begun");
                model.extend(step.0);
            }
        }
    }
    under_way
}

fn found(store: &KvStore, key: u32) -> u64 {
    let Some(text) = store.get(name(key)).unwrap() else { return 0 };
    let mut words = text.split(' ').map(str::to_owned);
    assert_eq!(words.next().unwrap(), key.to_string(), "a value of another key");
    let version = words.next().unwrap().parse().unwrap();
    assert_eq!(text, value(key, version), "a mixed value");
    version
}

/// What was acknowledged is there, the steps under way have happened wholly or not at all, and the
/// model goes on from what is there.
pub(crate) fn check(store: &KvStore, model: &mut BTreeMap<u32, u64>, steps: Vec<Option<Step>>) {
    for step in steps.into_iter().flatten() {
        let happened = step.0.iter().filter(|(key, version)| found(store, *key) == *version);
        // A key may have had that state before: all, or as many as had it before.
        let already =
            step.0.iter().filter(|(key, version)| model.get(key).unwrap_or(&0) == version);
        let (happened, already) = (happened.count(), already.count());
        assert!(happened == step.0.len() || happened == already, "half of {step:?} happened");
        if happened == step.0.len() {
            model.extend(step.0);
        }
    }
    let mut present = 0;
    for key in 0..KEYS {
        let expected = model.get(&key).copied().unwrap_or(0);
        assert_eq!(found(store, key), expected, "key {key}");
        present += u64::from(expected != 0);
    }
    assert_eq!(store.len().unwrap(), present);
}
