//! The entries of a store in no order: what a walk meets, and at its end what is in doubt.

use crate::error::Result;
use crate::scan::{Entry, Source, Take};
use crate::store::KvStore;
use crate::store::lookup::lend;
use crate::store::walk::Walk;
use crate::sync::Arc;

pub(super) struct Unordered {
    /// The handle as a whole: it keeps the store open, which its core does not.
    store: KvStore,
    walk: Walk,
    /// Whether it was told that a damaged write may have been a key's last.
    doubt_is_told: bool,
}

impl Unordered {
    pub(super) fn new(store: KvStore) -> Self {
        let walk = Walk::new(Arc::clone(&store.core.keydir), Arc::clone(&store.core.segments));
        Self { store, walk, doubt_is_told: false }
    }

    /// Told at the end only: what is damaged may be met as late as that.
    fn doubt<T>(&mut self) -> Option<Result<T>> {
        if self.doubt_is_told {
            return None;
        }
        self.doubt_is_told = true;
        self.store.core.segments.check_certain(None).err().map(Err)
    }
}

impl Source for Unordered {
    fn next(&mut self) -> Option<Result<Entry>> {
        let core = &self.store.core;
        let entry = self.walk.next_with(|segment, offset, record| {
            Ok(core.shows(record)?.then(|| (record.key.to_vec(), lend(segment, offset, record))))
        });
        entry.or_else(|| self.doubt())
    }

    fn offer(&mut self, take: &mut Take<'_>) -> Option<Result<Entry>> {
        let core = &self.store.core;
        let left = self.walk.next_with(|segment, offset, record| {
            let is_left = core.shows(record)? && !take(record.key, record.value);
            Ok(is_left.then(|| (record.key.to_vec(), lend(segment, offset, record))))
        });
        left.or_else(|| self.doubt())
    }
}
