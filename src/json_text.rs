//! Bytes as JSON: as they are where they are UTF-8, in base64 where they are not.
//!
//! ```text
//! {"key":"no","value":"Oslo"}
//! {"key_b64":"AP8=","value":"Oslo"}
//! ```
//! The name of the field says which. Both ways back give the same bytes. Pure functions.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// `bytes` for a field of text and a field of base64: exactly one of the two is there.
pub(crate) fn split(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// The bytes of a field of text and a field of base64; `None` unless exactly one of the two is
/// there and right.
pub(crate) fn join(text: Option<String>, base64: Option<String>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(text), None) => Some(text.into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b""[..], b"text", b"\0", b"\xff", b"\xc3\x28 half", "\u{e9}".as_bytes()] {
            let (text, base64) = split(bytes);
            assert_eq!(text.is_some(), std::str::from_utf8(bytes).is_ok());
            assert_eq!(join(text.map(str::to_owned), base64).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn a_field_is_given_once_and_rightly() {
        let some = |text: &str| Some(text.to_owned());
        for (text, base64) in
            [(None, None), (some("a"), some("YQ==")), (None, some("Y")), (None, some("\u{e9}"))]
        {
            assert_eq!(join(text.clone(), base64.clone()), None, "{text:?} {base64:?}");
        }
    }
}
