//! A conversation that a fuzzer makes up; see `crate::fuzzing`.

use super::byte_queue::ByteQueue;
use super::control::Control;
use super::limits::ServerOptions;
use super::session::{Budget, Host, InputEnd, Pause, Session};
use super::write_run::Waker;
use crate::engine::KvsEngine;
use crate::sync::Arc;

/// The replies do not depend on how the bytes are cut, and each is one line of JSON. `data` is the
/// length of the pieces, and the conversation.
pub(crate) fn requests<E: KvsEngine>(engine: &dyn Fn() -> E, data: &[u8]) {
    let Some((&len, bytes)) = data.split_first() else { return };
    let whole = converse(&engine(), bytes, bytes.len().max(1));
    let in_pieces = converse(&engine(), bytes, usize::from(len) + 1);
    assert_eq!(whole, in_pieces, "replies depend on how requests were cut");
    // What is no JSON is refused in a way that speakers of other protocols understand, at the end.
    let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for line in lines.take_while(|line| !line.starts_with(b"-")) {
        let reply: serde_json::Value = serde_json::from_slice(line).expect("replies are JSON");
        assert!(reply.as_object().is_some_and(|reply| reply.len() == 1), "{reply}");
    }
}

/// Feeds `bytes` in pieces of `len`; returns everything that is answered.
fn converse<E: KvsEngine>(engine: &E, bytes: &[u8], len: usize) -> Vec<u8> {
    let control = Arc::new(Control::new(Arc::new(polling::Poller::new().expect("a poller"))));
    let host = Host { engine, options: &ServerOptions::new(), waker: &Waker { control, key: 1 } };
    let (mut session, mut replies) = (Session::default(), Vec::new());
    for piece in bytes.chunks(len) {
        session.feed(piece);
        run(&mut session, &host, &mut replies);
    }
    session.end_input(InputEnd::ByClient);
    run(&mut session, &host, &mut replies);
    replies
}

fn run<E: KvsEngine>(session: &mut Session, host: &Host<'_, E>, replies: &mut Vec<u8>) {
    loop {
        let pause = session.run(host, &mut Budget::default());
        take(&mut session.output, replies);
        match pause {
            Pause::NeedsInput | Pause::Over => return,
            // Nothing else writes here, so a write is done when it was handed over.
            Pause::OutputFull | Pause::TurnOver | Pause::Writing => {}
        }
    }
}

fn take(output: &mut ByteQueue, replies: &mut Vec<u8>) {
    replies.extend_from_slice(output.pending());
    let len = output.len();
    output.consume(len);
}
