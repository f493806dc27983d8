//! Scanning: the records of one segment, one after the other, each verified.
//!
//! Any thread may. What is not mapped is read by position.

use crate::error::Result;
use crate::store::location::len_of;
use crate::store::record::{Damage, Record};
use crate::store::scratch::Scratch;
use crate::store::segment::{HEADER_LEN, Segment};

/// A walk over the records of a segment. Not an iterator: a record is lent until the next step.
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    offset: u64,
    end: u64,
    scratch: Scratch,
}

/// What a [`Scan`] meets.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Record {
        offset: u64,
        record: Record<'a>,
    },
    /// The end of the file.
    End,
    /// No record begins at `offset`, though the file goes on.
    Damaged {
        offset: u64,
        damage: Damage,
    },
}

impl<'a> Scan<'a> {
    pub(super) fn new(segment: &'a Segment, end: u64) -> Self {
        Self { segment, offset: HEADER_LEN, end, scratch: Scratch::default() }
    }

    /// The next record. After damage the scan stays where it is.
    ///
    /// # Errors
    ///
    /// Only if the file cannot be read.
    pub(crate) fn step(&mut self) -> Result<Step<'_>> {
        let (segment, offset) = (self.segment, self.offset);
        if offset >= segment.len().min(self.end) {
            return Ok(Step::End);
        }
        let bytes = match segment.log.mapped_from(offset) {
            Some(bytes) => bytes,
            None => segment.read_record(offset, &mut self.scratch)?,
        };
        match Record::decode(bytes, segment.header.salt, offset) {
            Ok(record) => {
                self.offset += len_of(record.len());
                Ok(Step::Record { offset, record })
            }
            Err(damage) => Ok(Step::Damaged { offset, damage }),
        }
    }
}
