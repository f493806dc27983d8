//! Being the leader of the writer: one at a time, passed on, never lost.
//!
//! Whoever holds a [`Leadership`] may stage, append and publish. Letting go of it, in whatever way,
//! passes the lead to a thread that waits, or to the committer thread when only operations wait
//! that no thread waits for, or ends it when nobody waits.

use crate::store::writer::Writer;
use crate::store::writer::queue::{Reply, Turn};
use crate::sync::Arc;

/// Being the leader. Dropping it passes the lead on, or ends it; dropped by a panic it poisons.
pub(super) struct Leadership<'a>(pub(super) &'a Writer);

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison(&"a panic");
        }
        let mut queue = self.0.queue.lock();
        let ticket = queue.waiting.iter().find_map(|request| match &request.reply {
            Reply::Ticket(ticket) => Some(Arc::clone(ticket)),
            Reply::Call(_) => None,
        });
        queue.leading = !queue.waiting.is_empty();
        match ticket {
            Some(ticket) => ticket.tell(Turn::Lead),
            None if queue.leading => {
                queue.committer_leads = true;
                self.0.commit_wanted.raise();
            }
            None => {}
        }
    }
}
