//! CRC-32C (Castagnoli): the checksum of records and of every file.
//!
//! The crate `crc32c` is the function. What is short, as most records are, is done here, with the
//! processor's instruction, which the crate cannot inline, and without its tables.
#![expect(unsafe_code, reason = "the processor's CRC-32C instruction, which crc32c cannot inline")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};

/// Above this length the crate's three interleaved streams beat one stream of instructions, whose
/// latency is 3 cycles per 8 bytes: from 768 bytes on if they and the crate's tables are in the
/// cache, from about 1,500 if not, which is when reads take longest.
#[cfg(target_arch = "x86_64")]
const ONE_STREAM_LEN_MAX: usize = 1280;

/// The checksum of `bytes`, going on from `crc`.
#[inline]
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= ONE_STREAM_LEN_MAX && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2, which is all the function needs.
        return unsafe { crc32c_sse42(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// The checksum of `first`, going on from `crc`, and that of `second`: in one call, which is half
/// of what a short piece takes.
#[expect(clippy::inline_always, reason = "a lookup compares a hundred bytes: a call counts")]
#[inline(always)]
pub(crate) fn crc32c_twice<const N: usize>(crc: u32, first: &[u8; N], second: &[u8]) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    if second.len() <= ONE_STREAM_LEN_MAX && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has SSE 4.2, which is all the function needs.
        return unsafe { crc32c_twice_sse42(crc, first, second) };
    }
    (crc32c(crc, first), crc32c::crc32c(second))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn crc32c_twice_sse42<const N: usize>(crc: u32, first: &[u8; N], second: &[u8]) -> (u32, u32) {
    (crc32c_sse42(crc, first), crc32c_sse42(0, second))
}

/// As few instructions as can be: see `Core::glance`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
fn crc32c_sse42(crc: u32, bytes: &[u8]) -> u32 {
    let (mut state, mut bytes) = (u64::from(!crc), bytes);
    while let Some((words, rest)) = bytes.split_first_chunk::<64>() {
        (state, bytes) = (words_sse42(state, words), rest);
    }
    if let Some((words, rest)) = bytes.split_first_chunk::<32>() {
        (state, bytes) = (words_sse42(state, words), rest);
    }
    if let Some((words, rest)) = bytes.split_first_chunk::<16>() {
        (state, bytes) = (words_sse42(state, words), rest);
    }
    if let Some((words, rest)) = bytes.split_first_chunk::<8>() {
        (state, bytes) = (words_sse42(state, words), rest);
    }
    let mut state = u32::try_from(state & 0xFFFF_FFFF).expect("32 bits");
    if let Some((half, rest)) = bytes.split_first_chunk::<4>() {
        (state, bytes) = (_mm_crc32_u32(state, u32::from_le_bytes(*half)), rest);
    }
    for byte in bytes {
        state = _mm_crc32_u8(state, *byte);
    }
    !state
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
#[inline]
fn words_sse42<const N: usize>(state: u64, words: &[u8; N]) -> u64 {
    let next = |state, word: &[u8; 8]| _mm_crc32_u64(state, u64::from_le_bytes(*word));
    words.as_chunks().0.iter().fold(state, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instruction and the library agree at every length around their meeting point.
    #[test]
    fn both_ways_to_a_checksum_agree() {
        let bytes: Vec<u8> = (0..2000_u32).map(|i| i.wrapping_mul(31).to_le_bytes()[0]).collect();
        for len in (0..200).chain([767, 1279, 1280, 1281, 1999]) {
            for seed in [0, 1, u32::MAX] {
                let expected = crc32c::crc32c_append(seed, &bytes[..len]);
                assert_eq!(crc32c(seed, &bytes[..len]), expected, "{len} bytes, seed {seed}");
                let twice = crc32c_twice(seed, b"123456789", &bytes[..len]);
                assert_eq!(twice.0, crc32c(seed, b"123456789"), "{len} bytes, seed {seed}");
                assert_eq!(twice.1, crc32c(0, &bytes[..len]), "{len} bytes");
            }
        }
        // The check value of the CRC-32C definition (RFC 3720, appendix B.4, and the Rocksoft
        // model's "check").
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
    }
}
