//! Requests and replies as JSON: the first implementation's wire protocol, and what was added.
//!
//! ```text
//! {"Set":{"key":"k","value":"v"}}      {"Ok":null}
//! {"Get":{"key":"k"}}                  {"Ok":"v"}, or {"Ok":null} if there is no such key
//! {"Remove":{"key":"k"}}               {"Ok":null} or {"Err":"Key not found"}
//! {"Ping":{}}                          {"Ok":null}
//! ```
//!
//! Externally tagged, as `serde` derives it. Fields that are not known are refused rather than
//! ignored: a client that asks for more than this version gives should hear of it. Used by the
//! server on the pool's threads and by the client on its caller's; neither reads nor writes
//! sockets here.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// What a client asks for. Strings are borrowed from the request where it has no escapes.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) enum Request<'a> {
    Set {
        #[serde(borrow)]
        key: Cow<'a, str>,
        #[serde(borrow)]
        value: Cow<'a, str>,
    },
    Get {
        #[serde(borrow)]
        key: Cow<'a, str>,
    },
    Remove {
        #[serde(borrow)]
        key: Cow<'a, str>,
    },
    Ping {},
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Ok(#[serde(borrow)] Option<Cow<'a, str>>),
    Err(#[serde(borrow)] Cow<'a, str>),
}

impl Reply<'static> {
    /// Done, and there is nothing to say.
    pub(crate) const DONE: Self = Self::Ok(None);
}

/// Why a request was not understood.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is JSON, but no request of ours. The next one can be read.
    Unknown(serde_json::Error),
    /// It is not JSON, so where the next one begins is a guess.
    Malformed(serde_json::Error),
}

/// Understands the bytes of one value.
pub(super) fn decode(value: &[u8]) -> Result<Request<'_>, Refusal> {
    serde_json::from_slice(value).map_err(|error| {
        let is_json = std::str::from_utf8(value).is_ok()
            && serde_json::from_slice::<IgnoredAny>(value).is_ok();
        if is_json { Refusal::Unknown(error) } else { Refusal::Malformed(error) }
    })
}

/// Adds `message` to `buffer` as one JSON value.
pub(crate) fn encode(message: &impl Serialize, buffer: &mut Vec<u8>) {
    serde_json::to_writer(buffer, message).expect("strings into memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_encoded(message: &impl Serialize, expected: &str) {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    /// Byte for byte what the first implementation sends and expects.
    #[test]
    fn messages_keep_their_bytes() {
        let (key, value) = (Cow::from("k"), Cow::from("v"));
        check_encoded(
            &Request::Set { key: key.clone(), value: value.clone() },
            r#"{"Set":{"key":"k","value":"v"}}"#,
        );
        check_encoded(&Request::Get { key: key.clone() }, r#"{"Get":{"key":"k"}}"#);
        check_encoded(&Request::Remove { key }, r#"{"Remove":{"key":"k"}}"#);
        check_encoded(&Reply::DONE, r#"{"Ok":null}"#);
        check_encoded(&Reply::Ok(Some(value)), r#"{"Ok":"v"}"#);
        check_encoded(&Reply::Err("Key not found".into()), r#"{"Err":"Key not found"}"#);
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        match decode(br#"{"Set":{"key":"k","value":"\n"}}"#).unwrap() {
            Request::Set { key: Cow::Borrowed("k"), value: Cow::Owned(value) } => {
                assert_eq!(value, "\n");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_that_is_no_request_is_told_from_what_is_not_json() {
        for unknown in [
            "{}",
            r#"{"Fly":{}}"#,
            r#"{"Get":{}}"#,
            r#"{"Get":{"key":1}}"#,
            r#"{"Get":{"key":"k","binary":true}}"#,
            r#"{"Get":{"key":"k"},"Get":{"key":"k"}}"#,
            r#"{"Get":{"key":"\ud800"}}"#,
        ] {
            assert!(matches!(decode(unknown.as_bytes()), Err(Refusal::Unknown(_))), "{unknown}");
        }
        for malformed in
            [&b"{]"[..], b"{\"Get\"}", b"{\"Fly\":{,}}", b"{\"Get\":{\"key\":\"\xff\"}}", b"{nul}"]
        {
            assert!(matches!(decode(malformed), Err(Refusal::Malformed(_))), "{malformed:?}");
        }
    }
}
