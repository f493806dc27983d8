//! Lookup: from a key to its newest published record.
//!
//! Takes no lock and never waits for writers or compaction: an epoch is pinned, the keydir says
//! where the record may be, and the record there is compared and verified. The one exception is a
//! record of a batch that is being published at that very instant, for which it waits,
//! microseconds.

use crate::error::Result;
use crate::store::Core;
use crate::store::key_hash::KeyHash;
use crate::store::location::Location;
use crate::store::record::{BatchPlace, Kind, Record};
use crate::store::scratch::Scratch;
use crate::store::segment::Segment;
use crate::store::segments::{Look, PREFETCH_KEYS};
use crate::sync::{Arc, Guard, pin, thread};
use crate::value::Value;

/// How often it looks before it lets other threads go on: some microseconds.
const SPINS: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 100 };

impl Core {
    /// Calls `read` with the verified record of `key` and where it is, or returns `None`.
    #[inline]
    pub(super) fn find<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&Arc<Segment>, u64, &Record<'_>) -> R,
    ) -> Result<Option<R>> {
        self.check_not_closed()?;
        let hash = self.keydir.hash(key);
        let guard = pin();
        let Some(first) = self.keydir.candidates(hash, &guard)?.next() else {
            self.segments.check_certain(None)?;
            return Ok(None);
        };
        match self.glance(key, first, &guard) {
            Some((segment, record)) => Ok(Some(read(segment, first.offset(), &record))),
            None => self.find_thoroughly(key, hash, &guard, read),
        }
    }

    /// What most lookups find at `location`, in as few instructions as can be: the record of
    /// `key`, in mapped memory, nothing special, in a store without holes. `None` says nothing.
    ///
    /// What it is for: while the processor waits for the memory of one lookup, it goes ahead to the
    /// next one, as long as it has room for the instructions between.
    #[expect(clippy::inline_always, reason = "a call is instructions")]
    #[inline(always)]
    fn glance<'g>(
        &self,
        key: &[u8],
        location: Location,
        guard: &'g Guard,
    ) -> Option<(&'g Arc<Segment>, Record<'g>)> {
        let segment = self.segments.get(location.slot(), guard)?;
        let offset = location.offset();
        let record = segment.mapped_record(offset)?;
        if record.key() != key {
            return None;
        }
        let published = || self.writer.published();
        let record = record.verify_plain(segment.header.salt, offset, published)?;
        match self.segments.check_certain(Some(record.seqno)) {
            Ok(()) => Some((segment, record)),
            Err(_) => None,
        }
    }

    /// As [`Core::find`], for every case there is.
    #[cold]
    fn find_thoroughly<R>(
        &self,
        key: &[u8],
        hash: KeyHash,
        guard: &Guard,
        read: impl FnOnce(&Arc<Segment>, u64, &Record<'_>) -> R,
    ) -> Result<Option<R>> {
        let mut scratch = Scratch::default();
        'lookup: loop {
            let mut damage = None;
            for location in self.keydir.candidates(hash, guard)? {
                match self.segments.look(location, key, guard, &mut scratch) {
                    // Compaction moved the record meanwhile: the keydir knows where to.
                    Ok(Look::Gone) => continue 'lookup,
                    Ok(Look::Other) => {}
                    Ok(Look::Found(segment, record)) => {
                        let record = segment.verify(record, location.offset())?;
                        let is_there = self.is_there(&record)?;
                        return Ok(is_there.then(|| read(segment, location.offset(), &record)));
                    }
                    // Perhaps the key's, perhaps not: a readable record of the key is newer.
                    Err(error) => damage = Some(error),
                }
            }
            self.segments.check_certain(None)?;
            return damage.map_or(Ok(None), Err);
        }
    }

    /// Calls `visit` with each of `keys` until it returns false; waits for the memory of many at
    /// once. Returns what `visit` returned last; true if there are no keys.
    pub(super) fn each(
        &self,
        keys: &[&[u8]],
        mut visit: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<bool> {
        for some in keys.chunks(PREFETCH_KEYS) {
            self.segments.prefetch_all(&self.keydir, some.iter().copied());
            for key in some {
                if !visit(key)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether a record that the keydir pointed at stands for a key that is there, in a store that
    /// is open.
    #[inline]
    pub(super) fn shows(&self, record: &Record<'_>) -> Result<bool> {
        self.check_not_closed()?;
        self.is_there(record)
    }

    /// Whether a record that the keydir points at stands for a key that is there.
    #[inline]
    fn is_there(&self, record: &Record<'_>) -> Result<bool> {
        self.wait_until_published(record)?;
        self.segments.check_certain(Some(record.seqno))?;
        Ok(record.kind == Kind::Put && !self.segments.clock.has_passed(record.expiry_ms))
    }

    /// Waits until the batch that `record` belongs to is published as a whole: microseconds, and
    /// only for a record that is being published at this instant.
    #[inline]
    fn wait_until_published(&self, record: &Record<'_>) -> Result<()> {
        if record.place == BatchPlace::Alone {
            return Ok(());
        }
        let mut spins = 0_u32;
        while record.seqno > self.writer.published() {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // A writer that died half way through never publishes the rest.
            self.writer.check_open()?;
            thread::yield_now();
        }
        Ok(())
    }
}

/// The value of `record`, which lies at `offset` of `segment`: lent if it is mapped.
pub(super) fn lend(segment: &Arc<Segment>, offset: u64, record: &Record<'_>) -> Value {
    if !segment.lends(offset) {
        return Value::from(record.value.to_vec());
    }
    let offset = usize::try_from(offset).expect("a mapped offset fits a usize");
    let start = offset + record.value_start();
    let lender: Arc<Segment> = Arc::clone(segment);
    Value::lent(lender, start..start + record.value.len())
}
