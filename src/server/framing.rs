//! Finds where a JSON value ends, one byte at a time.
//!
//! ```text
//! {"Set":{"key":"a\"b","value":"}"}}{"Get"...
//! ^ depth 1    ^ depth 2  ^ in a string  ^ depth 0: the value ends here
//! ```
//!
//! The state is kept between reads, so a value that arrives byte by byte is looked at once, not
//! once per byte. Only the *extent* of a value is decided here: brackets are counted, not matched,
//! and words and numbers are not looked into; `serde_json` does all that with the finished slice.
//! Bytes that no JSON value can contain are refused at once, so that a wrong client learns it
//! before it has sent everything.

use super::limits::REQUEST_DEPTH_MAX;

/// Where in a value the scan is.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Bytes of the value looked at so far.
    scanned: usize,
    /// Open braces and brackets.
    depth: u32,
    place: Place,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InString,
    /// After a backslash in a string.
    Escaped,
}

/// What a scan found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The value ends after this many bytes.
    Whole(usize),
    /// The value goes on beyond these bytes.
    More,
    /// This is no JSON value of ours, and where the next one begins cannot be known.
    Malformed(&'static str),
}

impl Scanner {
    /// Goes on with a value whose bytes so far are `value`: the bytes of the last call, and any
    /// that have arrived since. The first must be `{`. After [`Scan::Whole`] a new value begins.
    pub(super) fn scan(&mut self, value: &[u8]) -> Scan {
        let unseen = value.get(self.scanned..).unwrap_or_default();
        for (index, &byte) in unseen.iter().enumerate() {
            match self.step(byte) {
                Ok(false) => {}
                Ok(true) => {
                    let len = self.scanned + index + 1;
                    *self = Self::default();
                    return Scan::Whole(len);
                }
                Err(what) => return Scan::Malformed(what),
            }
        }
        self.scanned = value.len();
        Scan::More
    }

    /// Takes one byte; whether it ends the value.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        match (self.place, byte) {
            (Place::InString | Place::Escaped, 0..=0x1f) => {
                return Err("control character in a string; escape it");
            }
            (Place::InString, b'\\') => self.place = Place::Escaped,
            (Place::InString, b'"') => self.place = Place::Outside,
            (Place::Outside, b'"') | (Place::Escaped, _) => self.place = Place::InString,
            (Place::Outside, b'{' | b'[') => {
                self.depth += 1;
                if self.depth > REQUEST_DEPTH_MAX {
                    return Err("nested deeper than 4");
                }
            }
            (Place::Outside, b'}' | b']') => {
                // The first byte opened a brace, so the depth here is at least 1.
                self.depth = self.depth.saturating_sub(1);
                return Ok(self.depth == 0);
            }
            (Place::Outside, byte) if !is_filling(byte) => return Err("not JSON"),
            (Place::InString | Place::Outside, _) => {}
        }
        Ok(false)
    }
}

/// Whether `byte` can be part of a JSON value outside strings, brackets aside: white space,
/// separators, numbers and words.
fn is_filling(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b':' | b',' | b'+' | b'-' | b'.')
        || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 7] = [
        "{}",
        r#"{"Get":{"key":"k"}}"#,
        r#"{"Get":{"key":"}{][\"\\"}}"#,
        "{\n\t\"Set\": {\"key\": \"\\u0041\", \"value\": -1.5e+3}\r}",
        r#"{"a":[[[null,true]]]}"#,
        "{\"Get\":{\"key\":\"\u{e9}\u{1f980}\"}}",
        r#"{"Get":{"key":"\\"}}"#,
    ];

    #[test]
    fn every_value_ends_where_it_ends_whatever_follows() {
        for value in VALUES {
            for rest in ["", " ", "{", "}", "\"", "\\", "\0"] {
                let bytes = [value, rest].concat();
                assert_eq!(
                    Scanner::default().scan(bytes.as_bytes()),
                    Scan::Whole(value.len()),
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn every_split_of_a_value_gives_the_same_end() {
        for value in VALUES {
            for split in 1..value.len() {
                let mut scanner = Scanner::default();
                assert_eq!(scanner.scan(&value.as_bytes()[..split]), Scan::More, "{value} {split}");
                assert_eq!(scanner.scan(value.as_bytes()), Scan::Whole(value.len()));
            }
            let mut scanner = Scanner::default();
            for len in 1..value.len() {
                assert_eq!(scanner.scan(&value.as_bytes()[..len]), Scan::More, "{value} {len}");
            }
            assert_eq!(scanner.scan(value.as_bytes()), Scan::Whole(value.len()));
        }
    }

    #[test]
    fn bytes_that_no_value_contains_are_refused_at_once() {
        for bytes in ["{\0", "{\"a\0", "{\"a\n", "{\"\\\n", "{'", "{<", "{#", "{\u{e9}", "{\"a\":$"]
        {
            match Scanner::default().scan(bytes.as_bytes()) {
                Scan::Malformed(_) => {}
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn depth_is_bounded_at_the_limit_and_one_above() {
        let nested = |depth: usize| {
            let arrays = depth - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(arrays), "]".repeat(arrays))
        };
        let max = usize::try_from(REQUEST_DEPTH_MAX).unwrap();
        let at_limit = nested(max);
        assert_eq!(Scanner::default().scan(at_limit.as_bytes()), Scan::Whole(at_limit.len()));
        let above = nested(max + 1);
        assert!(matches!(Scanner::default().scan(above.as_bytes()), Scan::Malformed(_)));
    }
}
