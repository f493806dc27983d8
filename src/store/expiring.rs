//! How many live bytes of a segment expire when, so that compaction knows without a look at the
//! file how much of it is dead by now.
//!
//! ```text
//! expiry_ms >> shift   ->   bytes        a bucket is 2^shift milliseconds of expiry
//! ```
//! A bucket counts as expired when all of it lies in the past: what is told is never too much, and
//! too little by the bucket that time is in. Buckets begin at a second. When there are more than
//! [`BUCKETS_MAX`], neighbours become one and the width doubles, so a segment whose keys expire
//! evenly over a span of time is told late by a thirty-second of that span at most, and takes at
//! most about 2 KiB. A segment without expiry takes nothing.
//!
//! A statistic: it decides when to compact, never what is dropped. Records whose expiry was damaged
//! may be counted out of another bucket than they were counted in, so nothing here goes below zero.

use std::collections::BTreeMap;

/// Most buckets of one segment.
const BUCKETS_MAX: usize = 64;

/// A bucket is 1,024 ms wide at first: compaction looks twice a second.
const FIRST_SHIFT: u32 = 10;

/// Live bytes by the time at which they expire.
#[derive(Debug)]
pub(crate) struct Expiring {
    shift: u32,
    bytes: BTreeMap<u64, u64>,
}

impl Default for Expiring {
    fn default() -> Self {
        Self { shift: FIRST_SHIFT, bytes: BTreeMap::new() }
    }
}

impl Expiring {
    /// Counts `len` bytes that expire at `expiry_ms`.
    pub(crate) fn add(&mut self, expiry_ms: u64, len: u64) {
        *self.bytes.entry(expiry_ms >> self.shift).or_default() += len;
        while self.bytes.len() > BUCKETS_MAX {
            self.shift += 1;
            let mut coarser = BTreeMap::new();
            for (bucket, len) in &self.bytes {
                *coarser.entry(bucket >> 1).or_default() += len;
            }
            self.bytes = coarser;
        }
    }

    /// Counts `len` bytes that expire at `expiry_ms` out: they are not live any more.
    pub(crate) fn sub(&mut self, expiry_ms: u64, len: u64) {
        let bucket = expiry_ms >> self.shift;
        let left = self.bytes.get(&bucket).map_or(0, |bytes| bytes.saturating_sub(len));
        if left == 0 {
            self.bytes.remove(&bucket);
        } else {
            self.bytes.insert(bucket, left);
        }
    }

    /// At least so many bytes have expired at `now_ms`.
    pub(crate) fn expired_bytes(&self, now_ms: u64) -> u64 {
        self.bytes.range(..now_ms >> self.shift).map(|(_, bytes)| bytes).sum()
    }

    /// Whether anything may have expired at `now_ms`.
    pub(crate) fn may_have_expired(&self, now_ms: u64) -> bool {
        self.bytes.first_key_value().is_some_and(|(first, _)| *first <= now_ms >> self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_expired_when_their_bucket_lies_in_the_past() {
        let mut expiring = Expiring::default();
        assert_eq!(
            (expiring.expired_bytes(u64::MAX), expiring.may_have_expired(u64::MAX)),
            (0, false)
        );
        expiring.add(0, 1);
        expiring.add(5_000, 10);
        expiring.add(u64::MAX, 100);
        for (now_ms, expected) in [(0, 0), (1_023, 0), (1_024, 1), (5_000, 1), (7_000, 11)] {
            assert_eq!(expiring.expired_bytes(now_ms), expected, "at {now_ms}");
        }
        assert_eq!(expiring.expired_bytes(u64::MAX), 11);
        expiring.sub(0, 1);
        assert!(!expiring.may_have_expired(4_000) && expiring.may_have_expired(5_000));
        expiring.sub(5_000, 4);
        expiring.sub(u64::MAX, 100);
        assert_eq!(expiring.expired_bytes(u64::MAX), 6);
        expiring.sub(5_000, 7);
        expiring.sub(1, 7);
        assert_eq!(expiring.expired_bytes(u64::MAX), 0);
    }

    /// Random expiries, near and far, against a list: never too much, late by a bucket at most, and
    /// bounded.
    #[test]
    fn it_stays_small_and_never_tells_too_much() {
        for span_bits in [12, 24, 40, 63] {
            let (mut expiring, mut all, mut state) = (Expiring::default(), Vec::new(), 1_u64);
            for len in 1..2_000_u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let expiry_ms = state >> (64 - span_bits);
                expiring.add(expiry_ms, len);
                all.push((expiry_ms, len));
                assert!(expiring.bytes.len() <= BUCKETS_MAX);
                if state & 0x300 == 0 {
                    let (expiry_ms, len) = all.swap_remove(all.len() / 2);
                    expiring.sub(expiry_ms, len);
                }
            }
            let width_ms = 1_u64 << expiring.shift;
            assert!(width_ms == 1 << FIRST_SHIFT || width_ms <= (1 << span_bits) / 32);
            for step in 0..100 {
                let now_ms = ((1 << span_bits) / 100) * step;
                let sum = |at: u64| -> u64 {
                    all.iter().filter(|(expiry, _)| *expiry <= at).map(|(_, len)| len).sum()
                };
                let told = expiring.expired_bytes(now_ms);
                assert!(told <= sum(now_ms), "too much at {now_ms}");
                assert!(told >= now_ms.checked_sub(width_ms).map_or(0, sum), "late at {now_ms}");
            }
        }
    }
}
