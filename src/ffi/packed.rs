//! Many records in one piece of memory, for callers to whom a call is dear.
//!
//! ```text
//! a record   | key_len u32 | value_len u32 | key ... | value ... |
//! a key      | key_len u32 | key ... |
//! a value    | value_len u32 | value ... |     or     | ff ff ff ff |     for an absent key
//! ```
//! One after the other, without padding; lengths have their least significant byte first on every
//! machine. The header prints these pictures, so they never change. Pure functions.

use super::boundary::Room;

/// In the place of a value's length: there is no value.
const ABSENT: u32 = u32::MAX;
/// The two lengths in front of a record.
const RECORD_HEADER_LEN: usize = 8;

/// The bytes that a record takes.
pub(super) fn record_len(key: &[u8], value: &[u8]) -> usize {
    RECORD_HEADER_LEN + key.len() + value.len()
}

/// Puts a record into `room`, and returns true; or leaves it as it is and returns false if there is
/// no room for the whole of it.
pub(super) fn put_record(room: &mut Room, key: &[u8], value: &[u8]) -> bool {
    let mut header = [0; RECORD_HEADER_LEN];
    let (key_len, value_len) = header.split_at_mut(4);
    key_len.copy_from_slice(&length(key));
    value_len.copy_from_slice(&length(value));
    room.put([&header, key, value])
}

/// The `count` keys that are packed in `bytes`; `None` if it is not that.
pub(super) fn keys(mut bytes: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    // A key takes 4 bytes at least, so this allocates in proportion to what the caller has.
    let mut keys = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (key, rest) = rest.split_at_checked(len)?;
        keys.push(key);
        bytes = rest;
    }
    bytes.is_empty().then_some(keys)
}

/// Values that are being packed.
pub(super) struct Values {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Values {
    /// Not longer than `bytes_max`, all together: the same long value may be asked for many times.
    pub(super) fn new(bytes_max: u32) -> Self {
        Self { bytes: Vec::new(), bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) }
    }

    /// Adds `value` and returns true; or false, if that would be too long.
    pub(super) fn add(&mut self, value: &[u8]) -> bool {
        self.extend(&[&length(value), value])
    }

    /// Adds that a key is absent, as [`Values::add`] does.
    pub(super) fn add_absent(&mut self) -> bool {
        self.extend(&[&ABSENT.to_le_bytes()])
    }

    fn extend(&mut self, parts: &[&[u8]]) -> bool {
        let len = parts.iter().fold(self.bytes.len(), |sum, part| sum.saturating_add(part.len()));
        let fits = len <= self.bytes_max;
        if fits {
            for part in parts {
                self.bytes.extend_from_slice(part);
            }
        }
        fits
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The length of a key or a value, which the limits keep far below [`ABSENT`].
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(ABSENT).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_only_if_they_are_what_was_promised() {
        let two = b"\x02\0\0\0no\0\0\0\0";
        assert_eq!(keys(two, 2), Some(vec![&b"no"[..], b""]));
        assert_eq!(keys(b"", 0), Some(vec![]));
        for (bytes, count) in [
            (&two[..], 1),
            (two, 3),
            (two, usize::MAX),
            (&two[..9], 2),
            (&two[..3], 1),
            (b"\xff\xff\xff\xffno", 1),
            (b"\x03\0\0\0no", 1),
            (b"", 1),
        ] {
            assert_eq!(keys(bytes, count), None, "{count} in {bytes:?}");
        }
    }

    #[test]
    fn values_tell_empty_from_absent() {
        let mut values = Values::new(100);
        assert!(values.add(b"Oslo") && values.add_absent() && values.add(b""));
        assert_eq!(values.into_bytes(), b"\x04\0\0\0Oslo\xff\xff\xff\xff\0\0\0\0");
    }

    #[test]
    fn values_reach_the_limit_together_and_do_not_go_beyond() {
        let mut values = Values::new(20);
        assert!(values.add(b"12 bytes etc") && !values.add(b"x") && values.add(b""));
        assert!(!values.add_absent() && !values.add(b""));
        assert_eq!(values.into_bytes().len(), 20);
    }
}
