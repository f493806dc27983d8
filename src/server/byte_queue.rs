//! Bytes that arrive at one end and leave at the other.
//!
//! ```text
//! bytes:  [ consumed | pending ]
//!                    ^ start
//! ```
//!
//! Consuming moves `start`; the consumed part is given up when the queue runs empty or the part is
//! at least as long as what remains, so each byte is moved at most a constant number of times. An
//! empty queue keeps at most [`IDLE_BUFFER_LEN_MAX`] bytes of memory.

use super::limits::IDLE_BUFFER_LEN_MAX;

#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteQueue {
    /// What has not been consumed.
    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// How much has not been consumed.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end at which bytes arrive. Only to be added to, or cut back to a length it had.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Lets go of the first `count` pending bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.bytes.len().min(self.start + count);
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
            self.bytes.shrink_to(IDLE_BUFFER_LEN_MAX);
        } else if self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_steps() {
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for step in [1, 7, 64, 999, 5000] {
            let (mut queue, mut out) = (ByteQueue::default(), Vec::new());
            for chunk in all.chunks(step) {
                queue.tail().extend_from_slice(chunk);
                let take = queue.len().div_ceil(2);
                out.extend_from_slice(&queue.pending()[..take]);
                queue.consume(take);
            }
            out.extend_from_slice(queue.pending());
            assert!(out == all, "step {step}");
        }
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = ByteQueue::default();
        queue.tail().resize(1 << 20, 0);
        queue.consume(1 << 20);
        assert!(queue.bytes.capacity() <= IDLE_BUFFER_LEN_MAX, "{}", queue.bytes.capacity());
    }
}
