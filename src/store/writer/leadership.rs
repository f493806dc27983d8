//! Being the leader of the writer, as a value that cannot be forgotten.

use crate::store::writer::Writer;
use crate::store::writer::queue::{Reply, Turn};
use crate::sync::Arc;

/// Being the leader. Dropping it passes the lead on, or ends it; dropped by a panic it poisons.
pub(super) struct Leadership<'a>(pub(super) &'a Writer);

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
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
