//! Scratch space: where a record is put together that does not lie in memory in one piece.
//!
//! Each thread keeps what it used last, so that reading allocates nothing once it has begun. Making
//! a [`Scratch`] costs nothing as long as nobody asks for its bytes: records that are mapped need
//! none.

use std::cell::Cell;

/// Space above this is given back after use (1 MiB).
const KEPT_LEN_MAX: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer that comes from its thread when it is needed, and goes back there.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Option<Vec<u8>>);

impl Scratch {
    /// The buffer, with whatever is in it.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        self.0.get_or_insert_with(|| KEPT.take())
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Some(bytes) = self.0.take() {
            give_back(bytes);
        }
    }
}

#[cold]
fn give_back(mut bytes: Vec<u8>) {
    bytes.clear();
    bytes.shrink_to(KEPT_LEN_MAX);
    // A thread that is ending keeps nothing.
    let _ = KEPT.try_with(|kept| kept.set(bytes));
}
