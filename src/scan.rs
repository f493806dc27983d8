//! Scans: what a caller asks for ([`Scan`]), and what it gets ([`Entries`]).
//!
//! ```text
//! Scan::range("b".."d")        b <= key < d         any bounds come down to this half-open form
//! Scan::prefix("user/")        user/ <= key < user0
//! Scan::range("d".."b")        empty, like every range whose end does not lie behind its start
//! ```
//!
//! # What every scan promises
//!
//! A scan sees each key that is there for the whole of the scan exactly once, in order (an
//! unordered one, in no order). Keys that are set or removed, or expire, meanwhile may be seen or
//! not. A value is one that the key had at a moment during the scan, whole, never a mixture. A scan
//! is no snapshot: two of its values can belong to different moments.
//!
//! A scan owns a handle of its store, borrows nothing, may be sent to another thread, and uses
//! memory that does not depend on how much it passes. This file knows no engine.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, ControlFlow, RangeBounds};

use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::value::Value;

/// Which keys to scan, and how. The default is all of them, in ascending order of their bytes,
/// with their values.
///
/// ```
/// use kvs::Scan;
///
/// let scan = Scan::range("b".."d").reverse();
/// assert!(scan.contains(b"b") && scan.contains(b"cc") && !scan.contains(b"d"));
/// assert!(Scan::prefix("user/").contains(b"user/7"));
/// assert!(Scan::prefix("").contains(b"anything"));
/// assert!(Scan::range("d".."b").is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Scan {
    /// The smallest key that may be in.
    start: Vec<u8>,
    /// The smallest key behind the range that is not in; `None` if the range has no end.
    end: Option<Vec<u8>>,
    reverse: bool,
    keys_only: bool,
}

impl Scan {
    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys within `range`. A range that ends before it starts is empty, which is no error.
    pub fn range<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(key) => key.as_ref().to_vec(),
            Bound::Excluded(key) => successor(key.as_ref()),
            Bound::Unbounded => Vec::new(),
        };
        let end = match range.end_bound() {
            Bound::Included(key) => Some(successor(key.as_ref())),
            Bound::Excluded(key) => Some(key.as_ref().to_vec()),
            Bound::Unbounded => None,
        };
        Self { start, end, ..Self::default() }
    }

    /// The keys that begin with `prefix`: all of them, if it is empty.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let start = prefix.as_ref().to_vec();
        // The end is the prefix counted up by one. Bytes of 0xFF have no next one, so the byte
        // before them is counted up; a prefix of nothing else has no end.
        let mut end = start.clone();
        while end.pop_if(|last| *last == 0xFF).is_some() {}
        let end = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self { start, end, ..Self::default() }
    }

    /// From the last key to the first.
    pub fn reverse(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// Leaves the values out: every [`Value`] of the scan is empty.
    pub fn keys_only(self) -> Self {
        Self { keys_only: true, ..self }
    }

    /// The smallest key that may be in.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The end of the range, which is not in; `None` if it has none.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether to go from the last key to the first.
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// Whether the values are left out.
    pub fn is_keys_only(&self) -> bool {
        self.keys_only
    }

    /// Whether no key at all can be in.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    /// The bounds of a range that is not empty, for maps that take them.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.start), end)
    }

    /// Takes out of the range what a scan has passed when it has come to `key`.
    fn pass(&mut self, key: &[u8]) {
        if self.reverse {
            self.end = Some(key.to_vec());
        } else {
            self.start = successor(key);
        }
    }
}

/// The smallest key larger than `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The keys and values of a scan, one after the other. Made by [`crate::KvsEngine::scan`] and
/// [`crate::KvsEngine::iter`].
///
/// It sees each key that is there for the whole of the scan exactly once, in order if the scan is
/// ordered. Keys that are set or removed meanwhile may be seen or not. A value is one that the key
/// had at a moment during the scan, and never torn. It is no snapshot.
///
/// It owns a handle of the store, which stays open at least as long. If the store is closed
/// meanwhile, the next item is [`KvsError::Closed`], and the last. Any other error is about one key
/// or about all that follow: whoever goes on gets what can still be read, and then the end.
///
/// It may be sent to another thread. Dropping it ends the scan at no cost.
pub struct Entries {
    source: Box<dyn Source>,
    ended: bool,
}

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Value);

/// Where the entries of a scan come from.
pub(crate) trait Source: Send {
    /// The next entry; `None` at the end.
    fn next(&mut self) -> Option<Result<Entry>>;

    /// Shows entries to `take`, one after the other, until it says that it did not take one, which
    /// is returned; `None` at the end. For who copies what it takes, and need not make each key and
    /// value last.
    fn offer(&mut self, take: &mut Take<'_>) -> Option<Result<Entry>> {
        loop {
            match self.next()? {
                Ok((key, value)) if take(&key, &value) => {}
                left => return Some(left),
            }
        }
    }
}

/// Takes a key and its value, or says that it does not.
pub(crate) type Take<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

impl Entries {
    /// Entries that `inner` finds, for an engine to hand out. After [`KvsError::Closed`] or the
    /// end `inner` is not asked again.
    pub fn new(inner: impl Iterator<Item = Result<(Vec<u8>, Value)>> + Send + 'static) -> Self {
        Self::of(OneByOne(inner))
    }

    /// As [`Entries::new`].
    pub(crate) fn of(source: impl Source + 'static) -> Self {
        Self { source: Box::new(source), ended: false }
    }

    /// Entries of those of `keys` that are still in `store` when their turn comes.
    pub(crate) fn of_keys(
        store: impl KvsEngine,
        keys: impl Iterator<Item = Result<Vec<u8>>> + Send + 'static,
        keys_only: bool,
    ) -> Self {
        Self::of(ByKey { store, keys, keys_only })
    }

    /// Shows every entry that is left to `see`, in turn, until it breaks; returns what it broke
    /// with. The cheapest way through many entries: nothing is copied or allocated for an entry of
    /// a [`crate::KvStore`] in no order, and no value otherwise. Keep `see` short, as for
    /// [`KvsEngine::get_with`].
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use kvs::{KvStore, KvsEngine};
    ///
    /// let dir = tempfile::tempdir()?;
    /// let store = KvStore::open(dir.path())?;
    /// store.set_bytes(b"key", b"value")?;
    /// let mut bytes = 0;
    /// let seen = store.iter()?.try_for_each_with(|key, value| {
    ///     bytes += key.len() + value.len();
    ///     if bytes < 1000 { ControlFlow::Continue(()) } else { ControlFlow::Break(bytes) }
    /// })?;
    /// assert_eq!((seen, bytes), (ControlFlow::Continue(()), 8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first error that the iterator would yield, and nothing is shown after that: who wants to
    /// go on behind it iterates.
    pub fn try_for_each_with<B>(
        mut self,
        mut see: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut seen = ControlFlow::Continue(());
        let left = self.offer(&mut |key, value| {
            if seen.is_continue() {
                seen = see(key, value);
            }
            seen.is_continue()
        });
        left.transpose().map(|_| seen)
    }

    /// As `next`, of the first entry that `take` does not take: see [`Source::offer`].
    pub(crate) fn offer(&mut self, take: &mut Take<'_>) -> Option<Result<Entry>> {
        if self.ended {
            return None;
        }
        let left = self.source.offer(take);
        self.ended = matches!(left, None | Some(Err(KvsError::Closed)));
        left
    }
}

impl Iterator for Entries {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.source.next();
        self.ended = matches!(item, None | Some(Err(KvsError::Closed)));
        item
    }
}

struct OneByOne<I>(I);

impl<I: Iterator<Item = Result<Entry>> + Send> Source for OneByOne<I> {
    fn next(&mut self) -> Option<Result<Entry>> {
        self.0.next()
    }
}

struct ByKey<E, I> {
    store: E,
    keys: I,
    keys_only: bool,
}

impl<E: KvsEngine, I: Iterator<Item = Result<Vec<u8>>> + Send> ByKey<E, I> {
    fn value_of(&self, key: &[u8]) -> Result<Option<Value>> {
        if self.keys_only {
            return Ok(self.store.contains(key)?.then(Value::default));
        }
        self.store.get_bytes(key)
    }
}

impl<E: KvsEngine, I: Iterator<Item = Result<Vec<u8>>> + Send> Source for ByKey<E, I> {
    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            let entry = self.keys.next()?.and_then(|key| Ok((self.value_of(&key)?, key)));
            match entry {
                Ok((None, _)) => {}
                Ok((Some(value), key)) => return Some(Ok((key, value))),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn offer(&mut self, take: &mut Take<'_>) -> Option<Result<Entry>> {
        loop {
            let taken = self.keys.next()?.and_then(|key| {
                let taken = if self.keys_only {
                    self.store.contains(&key)?.then(|| take(&key, &[]))
                } else {
                    self.store.get_with(&key, |value| take(&key, value))?
                };
                Ok((taken, key))
            });
            let key = match taken {
                Ok((None | Some(true), _)) => continue,
                Ok((Some(false), key)) => key,
                Err(error) => return Some(Err(error)),
            };
            // Looked up once more, to make it last; it may be gone by now.
            match self.value_of(&key) {
                Ok(None) => {}
                Ok(Some(value)) => return Some(Ok((key, value))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Entries {}

impl fmt::Debug for Entries {
    /// Nothing of the keys or values: they do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Keys of an ordered scan, each with a `V`, fetched some at a time, so that nothing of the engine
/// is held between.
pub(crate) struct Batches<V, F> {
    /// What is left to fetch; `None` once there is nothing.
    left: Option<Scan>,
    fetched: Batch<V>,
    fetch: F,
    /// How many to fetch next.
    wanted: usize,
}

/// Keys fetched first: whoever looks for the next key only should not pay for many.
const FIRST_BATCH: usize = 4;
/// Most keys fetched at a time.
const BATCH_MAX: usize = 256;

/// Keys in the direction of the scan.
pub(crate) type Batch<V> = VecDeque<(Vec<u8>, V)>;

impl<V, F: FnMut(&Scan, usize) -> Result<Batch<V>>> Batches<V, F> {
    /// The keys of `scan`. `fetch` returns the first ones of the scan it is given, in its
    /// direction, as many as it is told or fewer, and none if there are none; it is never given an
    /// empty range.
    pub(crate) fn new(scan: Scan, fetch: F) -> Self {
        let left = Some(scan).filter(|scan| !scan.is_empty());
        Self { left, fetched: VecDeque::new(), fetch, wanted: FIRST_BATCH }
    }
}

impl<V, F: FnMut(&Scan, usize) -> Result<Batch<V>>> Iterator for Batches<V, F> {
    type Item = Result<(Vec<u8>, V)>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.fetched.is_empty() {
            let mut left = self.left.take()?;
            self.fetched = match (self.fetch)(&left, self.wanted) {
                Ok(fetched) => fetched,
                Err(error) => return Some(Err(error)),
            };
            let (last, _) = self.fetched.back()?;
            left.pass(last);
            self.wanted = (self.wanted * 4).min(BATCH_MAX);
            self.left = Some(left).filter(|left| !left.is_empty());
        }
        self.fetched.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_bound_comes_down_to_a_half_open_range() {
        use Bound::{Excluded, Included, Unbounded};
        let (b, d): (&[u8], &[u8]) = (b"b", b"d");
        for (bounds, start, end) in [
            ((Unbounded, Unbounded), &b""[..], None),
            ((Included(b), Excluded(d)), b"b", Some(&b"d"[..])),
            ((Excluded(b), Included(d)), b"b\0", Some(b"d\0")),
            ((Excluded(b), Unbounded), b"b\0", None),
            ((Unbounded, Included(d)), b"", Some(b"d\0")),
        ] {
            let scan = Scan::range::<&[u8]>(bounds);
            assert_eq!((scan.start(), scan.end()), (start, end), "{bounds:?}");
        }
    }

    #[test]
    fn a_prefix_ends_where_its_last_key_does() {
        for (prefix, end) in [
            (&b""[..], None),
            (b"a", Some(&b"b"[..])),
            (b"a\xFF", Some(b"b")),
            (b"a\xFF\xFF", Some(b"b")),
            (b"\xFE", Some(b"\xFF")),
            (b"\xFF", None),
            (b"\xFF\xFF", None),
            (b"\0", Some(b"\x01")),
        ] {
            let scan = Scan::prefix(prefix);
            assert_eq!((scan.start(), scan.end()), (prefix, end), "{prefix:?}");
        }
    }

    #[test]
    fn a_range_that_does_not_go_forward_is_empty() {
        for (start, end, empty) in [
            ("a", "b", false),
            ("a", "a", true),
            ("b", "a", true),
            ("", "", true),
            ("", "\0", false),
        ] {
            assert_eq!(Scan::range(start..end).is_empty(), empty, "{start:?}..{end:?}");
        }
        assert!(!Scan::range("a"..="a").is_empty());
        assert!(!Scan::all().is_empty());
    }
}
