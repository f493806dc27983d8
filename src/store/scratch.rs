//! Scratch space: where a record is put together that does not lie in memory in one piece.
//!
//! Each thread keeps what it used last, so that reading allocates nothing once it has begun. Making
//! a [`Scratch`] costs nothing as long as nobody asks for its bytes: records that are mapped need
//! none.

use std::cell::Cell;
use std::mem;

/// Space above this is given back after use (1 MiB).
const KEPT_LEN_MAX: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that comes from its thread when it is needed, and goes back there.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// The buffer, with whatever is in it.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            self.0 = KEPT.take();
        }
        &mut self.0
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if self.0.capacity() > 0 {
            let mut bytes = mem::take(&mut self.0);
            bytes.clear();
            bytes.shrink_to(KEPT_LEN_MAX);
            // A thread that is ending keeps nothing.
            let _ = KEPT.try_with(|kept| kept.set(bytes));
        }
    }
}
