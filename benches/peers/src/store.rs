//! What an adapter implements: one open store, and a session for each thread that uses it.
//!
//! The trait asks for what every rival can do in its own best way and for nothing more. Values are
//! lent to a closure, so that a store that can show its bytes in place need not copy them.

use std::path::Path;

pub use anyhow::Result;

/// Length of every key, in bytes.
pub const KEY_LEN: usize = 16;

/// A key of the benchmark.
pub type Key = [u8; KEY_LEN];

/// A key and its value, as batches take them.
#[derive(Debug, Clone, Default)]
pub struct Pair {
    pub key: Key,
    pub value: Vec<u8>,
}

/// What a write that has returned survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process, where the store can promise that without syncing.
    Os,
    /// The loss of power: synced before it returns.
    Sync,
}

/// How an adapter is to open its store.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions<'a> {
    /// An existing directory, empty or left behind by the same adapter.
    pub dir: &'a Path,
    pub durability: Durability,
    /// How many keys the store will hold, for those that size their table when they create it.
    #[cfg_attr(
        not(feature = "tkrzw"),
        expect(dead_code, reason = "the only such store is absent")
    )]
    pub keys: u64,
}

/// An open store, shared by all threads.
pub trait Store: Send + Sync {
    /// A session for the calling thread. Made before the clock starts.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Makes everything written so far survive the loss of power.
    fn sync(&self) -> Result<()>;

    /// Closes in good order, so that the next opening has nothing to repair.
    fn close(self: Box<Self>) -> Result<()>;
}

/// One thread's way into a [`Store`].
pub trait Session {
    /// Sets `key`, as durably as the store was opened for.
    fn set(&mut self, key: &Key, value: &[u8]) -> Result<()>;

    /// Sets all of `pairs` in one transaction, or the store's nearest to it.
    fn set_many(&mut self, pairs: &[Pair]) -> Result<()>;

    /// Calls `see` with the value and returns true, or returns false if the key is absent.
    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Removes `key`, which is there.
    fn remove(&mut self, key: &Key) -> Result<()>;

    /// Calls `see` with every key and value: in the order of the keys if the store's
    /// [`crate::stores::Entry`] says that it has one.
    fn scan(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;

    /// As `scan`, in whatever order costs least.
    fn iterate(&mut self, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.scan(see)
    }
}
