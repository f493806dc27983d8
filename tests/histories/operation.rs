//! What can be asked of an object, and what it answers when requests come one after the other.
//!
//! An object is a few keys that batches write together: one key would be enough for most of the
//! promises, but half a batch is seen only across keys.

use serde::{Deserialize, Serialize};
use todc_utils::Specification;

/// Keys of one object.
pub(crate) const KEYS: usize = 3;

/// What a key holds; zero if it is absent. Every write of a history has a value of its own.
pub(crate) type Held = u32;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    Get {
        key: usize,
    },
    Set {
        key: usize,
        to: Held,
    },
    Remove {
        key: usize,
    },
    Swap {
        key: usize,
        to: Held,
    },
    CompareAndSwap {
        key: usize,
        from: Held,
        to: Held,
    },
    Update {
        key: usize,
        to: Held,
    },
    /// A key without a value stays as it is.
    Batch {
        to: [Option<Held>; KEYS],
    },
}

/// A request, and what was answered; nothing if the process was killed before it could say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) request: Request,
    pub(crate) answer: Option<Held>,
}

impl Request {
    /// The object afterwards, and the answer: what the key held, or whether anything was done.
    fn run(&self, object: &[Held; KEYS]) -> ([Held; KEYS], Held) {
        let mut after = *object;
        let answer = match *self {
            Self::Get { key } => object[key],
            Self::Set { key, to } => {
                after[key] = to;
                0
            }
            Self::Remove { key } => {
                after[key] = 0;
                Held::from(object[key] != 0)
            }
            Self::Swap { key, to } | Self::Update { key, to } => {
                after[key] = to;
                object[key]
            }
            Self::CompareAndSwap { key, from, to } => {
                let swaps = object[key] == from;
                after[key] = if swaps { to } else { object[key] };
                Held::from(swaps)
            }
            Self::Batch { to } => {
                let both = after.iter_mut().zip(to);
                both.for_each(|(held, to)| *held = to.unwrap_or(*held));
                0
            }
        };
        (after, answer)
    }
}

/// Keys that are used by one thread at a time.
pub(crate) struct Object;

impl Specification for Object {
    type State = [Held; KEYS];
    type Operation = Operation;

    fn init() -> Self::State {
        [0; KEYS]
    }

    fn apply(operation: &Operation, object: &Self::State) -> (bool, Self::State) {
        let (after, answer) = operation.request.run(object);
        let is_right = operation.answer.is_none_or(|heard| heard == answer);
        (is_right, if is_right { after } else { *object })
    }
}
