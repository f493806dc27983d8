//! The bytes of a disk, and what was done to them in which order.

use std::collections::HashMap;

const PAGE_LEN: usize = 4096;
/// File systems take for granted that a block of theirs is written wholly or not at all: ext4 does
/// not mount if half of a superblock is the old one. The tests of the store itself tear sectors.
const BLOCK_LEN: usize = 4096;

type Page = [u8; PAGE_LEN];

/// A sparse image: what was never written is zero.
#[derive(Clone, Default)]
pub(crate) struct Pages(HashMap<u64, Box<Page>>);

impl Pages {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.write_over(offset, bytes, &Self::default());
    }

    /// Writes into this layer; a page that it does not have yet is that of `below`.
    pub(crate) fn write_over(&mut self, offset: u64, bytes: &[u8], below: &Self) {
        for (page, start, piece) in pieces(offset, bytes.len()) {
            let under = || below.0.get(&page).cloned().unwrap_or_else(|| Box::new([0; PAGE_LEN]));
            let to = self.0.entry(page).or_insert_with(under);
            to[start..start + piece.len()].copy_from_slice(&bytes[piece]);
        }
    }

    /// Reads from this layer, and from `below` what this one does not have.
    pub(crate) fn read_over(&self, offset: u64, len: usize, below: &Self) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (page, start, piece) in pieces(offset, len) {
            if let Some(from) = self.0.get(&page).or_else(|| below.0.get(&page)) {
                let end = start + piece.len();
                bytes[piece].copy_from_slice(&from[start..end]);
            }
        }
        bytes
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The pages that `len` bytes from `offset` on lie in: page, where in it, and which of the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % PAGE_LEN as u64) as usize;
        let piece = done..len.min(done + PAGE_LEN - start);
        done = piece.end;
        (!piece.is_empty()).then_some((at / PAGE_LEN as u64, start, piece))
    })
}

/// Which states a store may be in, as far as its writer knew: those from the number `durable` to
/// the number `attempted`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Note {
    pub(crate) attempted: usize,
    pub(crate) durable: usize,
}

/// What the file system did to the disk, up to and without a flush.
#[derive(Default)]
pub(crate) struct Interval {
    pub(crate) writes: Vec<(u64, Vec<u8>)>,
    /// When the flush came.
    pub(crate) note: Note,
}

impl Interval {
    /// Writes the blocks that `keeps` says, in their order.
    pub(crate) fn apply(&self, pages: &mut Pages, below: &Pages, mut keeps: impl FnMut() -> bool) {
        for (offset, bytes) in &self.writes {
            for (number, block) in bytes.chunks(BLOCK_LEN).enumerate() {
                if keeps() {
                    pages.write_over(offset + (number * BLOCK_LEN) as u64, block, below);
                }
            }
        }
    }

    pub(crate) fn apply_all(&self, pages: &mut Pages) {
        self.writes.iter().for_each(|(offset, bytes)| pages.write(*offset, bytes));
    }
}
