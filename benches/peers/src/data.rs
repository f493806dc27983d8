//! Keys, values and orders, all functions of a seed: every store is given the same ones.
//!
//! A **key** is 16 bytes that look random; different indices give different keys, because each step
//! from index to key can be undone. A **value** does not compress and names its key at both ends:
//!
//! ```text
//! offset   size   meaning
//!      0      8   first 8 bytes of the key
//!      8      8   version: which write of the key this is, little-endian
//!     16      ..  noise, from a place in a pool that key and version choose
//!  len-8      8   the first two words, exclusive-or
//! ```
//! Both ends can be checked in a few instructions. Nothing that happens between two reads is free:
//! a processor has room for some hundred instructions in flight, so that a fast store's next read
//! begins while the last one waits for memory, if not too much lies between them.

use rand::distr::Distribution;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
pub use rand_xoshiro::Xoshiro256PlusPlus as Random;

use crate::store::{KEY_LEN, Key};

/// Shortest value, in bytes: both ends, and some noise between.
pub const VALUE_BYTES_MIN: usize = 32;

/// A generator for `stream`, the same in every run.
pub fn random(stream: u64) -> Random {
    Random::seed_from_u64(stream)
}

/// Spreads the bits of `x` over all 64. Multiplying by an odd number and folding high bits onto
/// low ones can each be undone, so different numbers stay different.
#[inline]
fn spread(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// Indices at or above this one are of keys that no workload ever writes.
pub const ABSENT: u64 = 1 << 40;

/// From an index to its key.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    seed: u64,
}

impl Keys {
    pub fn new(seed: u64) -> Self {
        Self { seed: spread(seed ^ 0x6b76_735f_7065_6572) }
    }

    #[inline]
    pub fn key(&self, index: u64) -> Key {
        let first = spread(index ^ self.seed);
        let mut key = [0; KEY_LEN];
        key[..8].copy_from_slice(&first.to_be_bytes());
        key[8..].copy_from_slice(&spread(first ^ !self.seed).to_be_bytes());
        key
    }
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes were cut out"))
}

/// How many bytes of noise there are to begin at: small enough to stay in a processor's second
/// cache, so that making and checking values costs every store the same little.
const NOISE_STARTS: usize = 1 << 16;

/// Makes values of one length, and tells right ones from wrong ones.
pub struct Values {
    noise: Vec<u8>,
    value_bytes: usize,
}

impl Values {
    pub fn new(value_bytes: usize) -> Self {
        assert!(value_bytes >= VALUE_BYTES_MIN, "a value names its key in {VALUE_BYTES_MIN} bytes");
        let mut noise = vec![0; NOISE_STARTS + value_bytes];
        random(0x006e_6f69_7365).fill(&mut noise[..]);
        Self { noise, value_bytes }
    }

    #[inline]
    fn noise(&self, mixed: u64) -> &[u8] {
        let start = usize::try_from(mixed >> 48).expect("16 bits fit");
        &self.noise[start..start + self.value_bytes - 24]
    }

    #[inline]
    fn mixed(first: u64, version: u64) -> u64 {
        spread(first.wrapping_add(version.wrapping_mul(0x9fb2_1c65_1e98_df25)))
    }

    /// Writes the value of `key` in `version` into `value`, which has the length of values.
    #[inline]
    pub fn write(&self, key: &Key, version: u64, value: &mut [u8]) {
        let end = self.value_bytes - 8;
        value[..8].copy_from_slice(&key[..8]);
        value[8..16].copy_from_slice(&version.to_le_bytes());
        value[16..end].copy_from_slice(self.noise(Self::mixed(word(key), version)));
        value[end..].copy_from_slice(&(word(key) ^ version).to_le_bytes());
    }

    /// The check against the clock: the length, both ends, and a byte of every cache line between,
    /// so that a store that lends its bytes must have them at hand like one that copies them.
    #[inline]
    pub fn is_plausible(&self, key: &[u8], value: &[u8]) -> bool {
        if value.len() != self.value_bytes || key.len() != KEY_LEN {
            return false;
        }
        let between = value.iter().skip(16).step_by(64).fold(0, |sum, byte| sum ^ byte);
        std::hint::black_box(between);
        let (first, version) = (word(value), word(&value[8..]));
        first == word(key) && word(&value[self.value_bytes - 8..]) == first ^ version
    }

    /// The check outside the clock: every byte. Returns the version.
    pub fn version(&self, key: &[u8], value: &[u8]) -> Option<u64> {
        let noise = || self.noise(Self::mixed(word(key), word(&value[8..])));
        let is_right = self.is_plausible(key, value) && value[16..self.value_bytes - 8] == *noise();
        is_right.then(|| word(&value[8..]))
    }
}

/// Every number below `count` once, in an order that looks random and takes no memory.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    count: u64,
    mask: u64,
    seed: u64,
}

impl Order {
    pub fn new(count: u64, seed: u64) -> Self {
        assert!(count > 0, "an order of nothing");
        Self { count, mask: count.next_power_of_two() - 1, seed: spread(seed) }
    }

    /// What stands at `place`, which is below the count.
    #[inline]
    pub fn at(&self, place: u64) -> u64 {
        // The steps permute the numbers up to the next power of two. What lands beyond the count
        // is sent round again: that path leads back below it, and no two meet.
        let half = (64 - self.mask.leading_zeros()).div_ceil(2);
        let mut x = place;
        loop {
            for multiplier in [0xd6e8_feb8_6659_fd93, 0xff51_afd7_ed55_8ccd] {
                x = (x ^ self.seed).wrapping_mul(multiplier) & self.mask;
                x ^= x >> half;
            }
            if x < self.count {
                return x;
            }
        }
    }
}

/// Skew of the Zipf draws, as in YCSB.
pub const ZIPF_EXPONENT: f64 = 0.99;

/// `draws` indices below `keys`, few of them often: drawn beforehand, because drawing takes longer
/// than some stores take to answer. Which keys are the frequent ones has nothing to do with when
/// they were written.
pub fn zipf(keys: u64, draws: u64, stream: u64) -> Vec<u32> {
    #[expect(clippy::cast_precision_loss, reason = "the number of keys is far below 2^52")]
    let ranks = Zipf::new(keys as f64, ZIPF_EXPONENT).expect("the exponent is positive");
    let scattered = Order::new(keys, 0x7a69_7066);
    let mut random = random(stream);
    let mut draw = || {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
        let rank = ranks.sample(&mut random) as u64;
        u32::try_from(scattered.at(rank.clamp(1, keys) - 1)).expect("keys are counted in 32 bits")
    };
    (0..draws).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_differ_and_are_the_same_in_every_run() {
        let keys = Keys::new(7);
        let many: HashSet<Key> =
            (0..200_000).chain(ABSENT..ABSENT + 200_000).map(|i| keys.key(i)).collect();
        assert_eq!(many.len(), 400_000);
        assert_eq!(keys.key(12_345), Keys::new(7).key(12_345));
        assert_ne!(keys.key(12_345), Keys::new(8).key(12_345));
    }

    #[test]
    fn the_step_to_a_key_can_be_undone() {
        // 0xcfee_444d_8b59_a89b is the inverse of the multiplier modulo 2^64.
        let inverse = 0xcfee_444d_8b59_a89b_u64;
        assert_eq!(inverse.wrapping_mul(0xd6e8_feb8_6659_fd93), 1);
        let back = |x: u64| {
            let x = (x ^ (x >> 32)).wrapping_mul(inverse);
            let x = (x ^ (x >> 32)).wrapping_mul(inverse);
            x ^ (x >> 32)
        };
        for x in (0..1000).chain(u64::MAX - 1000..=u64::MAX).chain(ABSENT..ABSENT + 1000) {
            assert_eq!(back(spread(x)), x);
        }
    }

    #[test]
    fn an_order_meets_every_number_once_and_is_no_straight_line() {
        for count in [1, 2, 3, 5, 100, 1023, 1024, 1025, 50_000] {
            let order = Order::new(count, 3);
            let met: HashSet<u64> = (0..count).map(|place| order.at(place)).collect();
            assert_eq!(met.len() as u64, count);
            assert!(met.iter().all(|&number| number < count));
        }
        let order = Order::new(50_000, 3);
        let steps: HashSet<u64> =
            (1..50_000).map(|place| order.at(place).wrapping_sub(order.at(place - 1))).collect();
        assert!(steps.len() > 20_000, "only {} different steps", steps.len());
        assert_ne!(order.at(9), Order::new(50_000, 4).at(9));
    }

    #[test]
    fn values_name_their_key_and_version() {
        let keys = Keys::new(1);
        for value_bytes in [VALUE_BYTES_MIN, 100, 1024] {
            let values = Values::new(value_bytes);
            let mut value = vec![0; value_bytes];
            values.write(&keys.key(5), 9, &mut value);
            assert!(values.is_plausible(&keys.key(5), &value));
            assert_eq!(values.version(&keys.key(5), &value), Some(9));
            assert!(!values.is_plausible(&keys.key(6), &value), "the value of another key");
            assert!(!values.is_plausible(&keys.key(5), &value[..value_bytes - 1]), "cut short");
            for at in 0..value_bytes {
                value[at] ^= 1;
                assert_eq!(values.version(&keys.key(5), &value), None, "byte {at} is wrong");
                value[at] ^= 1;
            }
        }
    }

    #[test]
    fn values_hold_no_byte_more_often_than_noise_does() {
        let (keys, values) = (Keys::new(1), Values::new(1024));
        let mut counts = [0_u64; 256];
        let mut value = vec![0; 1024];
        for index in 0..1000 {
            values.write(&keys.key(index), 1, &mut value);
            value[16..].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        }
        let mean = 1000 * 1008 / 256;
        assert!(counts.iter().all(|&count| count > mean * 8 / 10 && count < mean * 12 / 10));
    }

    #[test]
    fn zipf_draws_follow_the_law() {
        let (keys, draws) = (1000, 200_000);
        let drawn = zipf(keys, draws, 1);
        assert_eq!(drawn, zipf(keys, draws, 1));
        assert_ne!(drawn, zipf(keys, draws, 2));
        let mut counts = vec![0_u64; 1000];
        drawn.iter().for_each(|&index| counts[index as usize] += 1);
        let hottest = counts[Order::new(keys, 0x7a69_7066).at(0) as usize] as f64;
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(hottest as u64, counts[0]);
        // The share of rank k is 1 / k^s over the sum of all of them.
        let sum: f64 = (1..=keys).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum();
        for rank in [1_u64, 2, 10] {
            let wanted = (rank as f64).powf(-ZIPF_EXPONENT) / sum * draws as f64;
            let found = counts[rank as usize - 1] as f64;
            assert!((found / wanted - 1.0).abs() < 0.1, "rank {rank}: {found}, not {wanted}");
        }
    }
}
