//! Publication: the keydir learns where the records of an appended group are.
//!
//! Records are published in seqno order (invariant 3). Those of a batch are in the keydir one by
//! one before the watermark passes them; a reader that meets one meanwhile waits for the watermark.
//! So removed keys of a batch keep an entry, at their tombstone, until then.
//!
//! Runs in the lane, by the leader; changes each shard of the keydir under its lock.

use crate::error::{KvsError, Result};
use crate::store::location::{Seqno, len_of};
use crate::store::record::Kind;
use crate::store::scratch::Scratch;
use crate::store::segment::Segment;
use crate::store::segments::Look;
use crate::store::writer::Writer;
use crate::store::writer::lane::{Lane, Staged};
use crate::sync::{Arc, Guard, Ordering, pin};

impl Writer {
    /// Fails only if the disk does not say what a record is that may be replaced.
    pub(super) fn publish(&self, lane: &Lane, base: u64, last: Seqno) -> Result<()> {
        let segment = lane.active.as_ref().expect("just appended to").segment();
        let guard = pin();
        let mut pending = Vec::new();
        for staged in &lane.staged {
            let removed_later = self.point(lane, staged, segment, base, &guard)?;
            if removed_later {
                pending.push(staged);
            }
        }
        // Release: pairs with the Acquire in `published`: a reader that waits for this seqno then
        // finds every record of the batch in the keydir.
        self.published.store(last.get(), Ordering::Release);
        for staged in pending {
            let location = segment.location(base + len_of(staged.start));
            let change = self.keydir.change(staged.hash, &guard)?;
            let entry = change.candidates().find(|entry| entry.location == location);
            if let Some(entry) = entry {
                change.remove(entry);
            }
        }
        Ok(())
    }

    /// Points the keydir at one record. True if it is a tombstone whose entry is to be removed
    /// only when its whole batch is published.
    fn point(
        &self,
        lane: &Lane,
        staged: &Staged,
        segment: &Arc<Segment>,
        base: u64,
        guard: &Guard,
    ) -> Result<bool> {
        let key = lane.key(staged);
        let location = segment.location(base + len_of(staged.start));
        if staged.kind == Kind::Clear {
            self.keydir.clear();
            self.segments.clear_live();
            self.segments.note_cleared(staged.seqno);
            segment.add_tombstone(staged.len);
            return Ok(false);
        }
        let change = self.keydir.change(staged.hash, guard)?;
        let mut scratch = Scratch::default();
        let mut found = None;
        for entry in change.candidates() {
            match self.segments.look(entry.location, key, guard, &mut scratch) {
                Ok(Look::Found(holder, record)) => {
                    // A length is believed only if its checksum holds.
                    let len = record.trusted_len(holder.header.salt, entry.location.offset());
                    let put = record.is_put().then(|| (len.unwrap_or(0), record.expiry_ms()));
                    found = Some((entry, holder, put));
                    break;
                }
                Ok(Look::Gone | Look::Other) => {}
                // A damaged record cannot be told to be this key's; it stays, and reads of it say
                // so. If it was, the key is counted twice from now on.
                Err(KvsError::Corrupt { .. }) => self.segments.note_damaged(entry.location, guard),
                // One that is only unreadable now could be the key's, and be read again later.
                Err(error) => return Err(error),
            }
        }
        match staged.kind {
            Kind::Put => segment.add_live(staged.len, staged.expiry_ms),
            _ => segment.add_tombstone(staged.len),
        }
        // What is found may be the tombstone of a batch of this very group.
        let was_there = matches!(found, Some((_, _, Some(_))));
        if let Some((_, holder, Some((len, expiry_ms)))) = found {
            holder.sub_live(len, expiry_ms);
            self.segments.note_dead(len);
        }
        self.keydir.note_presence(key, was_there, staged.kind == Kind::Put);
        match (staged.kind, found) {
            (Kind::Put, Some((entry, ..))) => change.replace(entry, location),
            (Kind::Put, None) => change.insert(location),
            (_, Some((entry, ..))) if staged.in_batch => {
                change.replace(entry, location);
                return Ok(true);
            }
            (_, Some((entry, ..))) => change.remove(entry),
            (_, None) => {}
        }
        Ok(false)
    }
}
