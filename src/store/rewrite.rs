//! Read, decide, write: operations whose write depends on what the key is.
//!
//! ```text
//! find the record -> decide, out of every lock -> write if the record is still the same
//!        '------------------ somebody was faster ------------------'
//! ```
//! The writer decides under its lane whether the newest record of the key is still the one that was
//! read (`OpKind::IfUnchanged`), so nobody's write falls between, and nobody waits for the
//! decision. An expired record is an absent one in both places, by the same clock, which never
//! goes back.

use crate::engine::Update;
use crate::error::{KvsError, Result};
use crate::options::{check_key, check_value};
use crate::store::Core;
use crate::store::location::Seqno;
use crate::store::lookup::lend;
use crate::store::record::Draft;
use crate::store::writer::{OpKind, Outcome};
use crate::value::Value;

/// What a key is, when it was looked at.
struct Found {
    seqno: Seqno,
    value: Value,
    expiry_ms: Option<u64>,
}

/// What is to be written in its place.
enum Change {
    Nothing,
    Remove,
    Set(Value, Option<u64>),
}

impl Core {
    /// See [`crate::KvsEngine::update`].
    pub(super) fn update(
        &self,
        key: &[u8],
        change: &mut dyn FnMut(Option<&[u8]>) -> Update,
    ) -> Result<()> {
        check_key(key)?;
        self.rewrite(key, |found| {
            let (value, expiry_ms) = match change(found.as_ref().map(|found| &*found.value)) {
                Update::Keep => return Ok(Change::Nothing),
                Update::Remove if found.is_none() => return Ok(Change::Nothing),
                Update::Remove => return Ok(Change::Remove),
                Update::Set(value) => (value, found.and_then(|found| found.expiry_ms)),
                Update::SetWithExpiry { value, expiry_ms } => (value, expiry_ms),
            };
            check_value(&value)?;
            Ok(Change::Set(Value::from(value), expiry_ms))
        })
    }

    /// See [`crate::KvsEngine::set_expiry`].
    pub(super) fn set_expiry(&self, key: &[u8], expiry_ms: Option<u64>) -> Result<Option<u64>> {
        let mut previous_ms = None;
        self.rewrite(key, |found| {
            let found = found.ok_or(KvsError::KeyNotFound)?;
            previous_ms = found.expiry_ms;
            if previous_ms == expiry_ms {
                return Ok(Change::Nothing);
            }
            Ok(Change::Set(found.value, expiry_ms))
        })?;
        Ok(previous_ms)
    }

    /// Lets `decide` say what is to become of `key`, and does it, unless somebody wrote the key
    /// meanwhile: then once more.
    fn rewrite(
        &self,
        key: &[u8],
        mut decide: impl FnMut(Option<Found>) -> Result<Change>,
    ) -> Result<()> {
        loop {
            let found = self.find(key, |segment, offset, record| Found {
                seqno: record.seqno,
                value: lend(segment, offset, record),
                expiry_ms: record.expiry_ms,
            })?;
            self.writer.check_open()?;
            // Out of every lock and pin: it may take its time, and come again.
            let unchanged = OpKind::IfUnchanged(found.as_ref().map(|found| found.seqno));
            let change = decide(found)?;
            if let Change::Nothing = change {
                return Ok(());
            }
            let draft = || match &change {
                Change::Set(value, expiry_ms) => Draft::put_with(key, value, *expiry_ms),
                Change::Remove | Change::Nothing => Draft::tombstone(key),
            };
            if self.write_one(unchanged, key, draft)? == Outcome::Done {
                return Ok(());
            }
        }
    }
}
