//! One client's conversation, without its socket: bytes in, requests done, bytes out.
//!
//! ```text
//! feed -> input -> Scanner -> json::decode -> engine -> json::encode -> output
//!                                        \-> writes -> WriteRun -/
//! ```
//!
//! The first byte decides the protocol for the connection's life: `{` is JSON; a letter or `*`
//! will be RESP. Requests are answered strictly in order, and the replies do not depend on how the
//! bytes were cut into reads.
//!
//! # Newlines
//!
//! Each reply ends in a newline, except the reply to a lone request that nothing but the end of
//! the stream follows: the first clients send such, and get the very bytes they always got. So
//! after a first request that nothing follows *yet*, the newline is owed: the next byte or a short
//! time pays it, the end of the stream cancels it.
//!
//! A session is used by one thread at a time. It never waits and knows no clock.

use std::borrow::Cow;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use super::byte_queue::ByteQueue;
use super::framing::{Scan, Scanner};
use super::json::{self, Refusal, Reply, Request};
use super::limits::{ServerOptions, TURN_OUTPUT_BYTES_MAX, TURN_REQUESTS_MAX};
use super::write_run::{Outcome, Waker, WriteRun};
use crate::engine::KvsEngine;
use crate::error::{KvsError, Result};
use crate::sync::Arc;
use crate::write_batch::Write;

/// One client's conversation.
#[derive(Debug, Default)]
pub(super) struct Session {
    input: ByteQueue,
    scanner: Scanner,
    pub(super) output: ByteQueue,
    /// Decoded writes that the engine has not got yet.
    writes: Vec<Write>,
    /// Writes that the engine has, and that everything behind them waits for.
    run: Option<Arc<WriteRun>>,
    end: Option<InputEnd>,
    is_json: bool,
    newline_owed: bool,
    replies_count: u64,
    /// No further request will be answered.
    over: bool,
}

/// Why no more input comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputEnd {
    /// The client closed its side.
    ByClient,
    /// The server stops. What has arrived of an unfinished request is ignored.
    ByStop,
}

/// Why a session pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Every whole request is answered.
    NeedsInput,
    /// The client must take some replies first.
    OutputFull,
    /// Writes are under way; the waker tells when they are done.
    Writing,
    /// Others should get their turn.
    TurnOver,
    /// There is nothing more to answer. Send what is in the output and close.
    Over,
}

/// What a session works with.
pub(super) struct Host<'a, E> {
    pub(super) engine: &'a E,
    pub(super) options: &'a ServerOptions,
    pub(super) waker: &'a Waker,
}

/// What a connection may still do in this turn.
#[derive(Debug)]
pub(super) struct Budget {
    requests: usize,
    output_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { requests: TURN_REQUESTS_MAX, output_bytes: TURN_OUTPUT_BYTES_MAX }
    }
}

impl Budget {
    fn spend(&mut self, output_bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.output_bytes = self.output_bytes.saturating_sub(output_bytes);
    }

    fn is_spent(&self) -> bool {
        self.requests == 0 || self.output_bytes == 0
    }
}

/// What one look at the input came to.
enum Step {
    /// A request is answered, or waits among the writes.
    Taken,
    Pause(Pause),
}

impl Session {
    /// Takes bytes that have arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pay_newline();
            self.input.tail().extend_from_slice(bytes);
        }
    }

    /// No more bytes will come. The first word holds.
    pub(super) fn end_input(&mut self, end: InputEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            match end {
                InputEnd::ByClient => self.newline_owed = false,
                InputEnd::ByStop => self.pay_newline(),
            }
        }
    }

    pub(super) fn input_end(&self) -> Option<InputEnd> {
        self.end
    }

    /// Whether not even the protocol is known yet.
    pub(super) fn is_silent(&self) -> bool {
        !self.is_json && !self.over
    }

    /// The number of the request that has arrived in part, if one has.
    pub(super) fn partial_request(&self) -> Option<u64> {
        (!self.input.is_empty()).then_some(self.replies_count)
    }

    /// How much of it has arrived, in bytes.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.input.len()
    }

    pub(super) fn owes_newline(&self) -> bool {
        self.newline_owed
    }

    /// Ends the first reply, since the client goes on or seems to wait.
    pub(super) fn pay_newline(&mut self) {
        if mem::take(&mut self.newline_owed) {
            self.output.tail().push(b'\n');
        }
    }

    /// Says why and answers nothing more. The text always ends in a newline: what it answers was
    /// no request, so the first clients have no claim on its form.
    pub(super) fn refuse(&mut self, why: &str) {
        self.pay_newline();
        self.answer_error(why);
        self.output.tail().push(b'\n');
        self.end_here();
    }

    /// Does every whole request, as far as `budget` goes, and says why it stopped.
    pub(super) fn run<E: KvsEngine>(&mut self, host: &Host<'_, E>, budget: &mut Budget) -> Pause {
        loop {
            if let Some(run) = &self.run {
                let Some(outcomes) = run.outcomes() else { return Pause::Writing };
                self.run = None;
                self.answer_writes(outcomes);
            }
            let pause = loop {
                if let Step::Pause(pause) = self.step(host, budget) {
                    break pause;
                }
            };
            if self.writes.is_empty() {
                return pause;
            }
            let writes = mem::take(&mut self.writes);
            self.run = Some(WriteRun::hand_over(host.engine, writes, host.waker));
        }
    }

    /// Looks at the next request.
    fn step<E: KvsEngine>(&mut self, host: &Host<'_, E>, budget: &mut Budget) -> Step {
        if self.over {
            return Step::Pause(Pause::Over);
        }
        if self.output.len() >= host.options.output_bytes_max {
            return Step::Pause(Pause::OutputFull);
        }
        if budget.is_spent() {
            return Step::Pause(Pause::TurnOver);
        }
        self.skip_white_space();
        match self.input.pending().first() {
            None => self.at_end_of_input(),
            Some(b'{') => self.request(host, budget),
            Some(&byte) => {
                // A refusal is a reply, and must not overtake those of the writes before it.
                if self.writes.is_empty() {
                    self.refuse_first_byte(byte);
                }
                Step::Pause(Pause::Over)
            }
        }
    }

    fn skip_white_space(&mut self) {
        let input = self.input.pending();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let count = input.iter().position(|byte| !blank(byte)).unwrap_or(input.len());
        if count > 0 {
            self.input.consume(count);
        }
    }

    /// Between two requests, with nothing to read.
    fn at_end_of_input(&mut self) -> Step {
        if self.end.is_none() {
            return Step::Pause(Pause::NeedsInput);
        }
        if self.writes.is_empty() {
            self.end_here();
        }
        Step::Pause(Pause::Over)
    }

    /// The door to further protocols: what begins with a letter or `*` will be RESP.
    fn refuse_first_byte(&mut self, byte: u8) {
        if self.is_json {
            return self.refuse("malformed request: not a JSON object");
        }
        match byte {
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                let error = b"-ERR this server speaks JSON, one object per request\r\n";
                self.output.tail().extend_from_slice(error);
                self.end_here();
            }
            0x16 => {
                log::warn!("a client began with a TLS handshake; this port speaks plain JSON");
                self.refuse("this port speaks plain JSON, not TLS");
            }
            _ => self.refuse("malformed request: not a JSON object"),
        }
    }

    /// The input begins with `{`.
    fn request<E: KvsEngine>(&mut self, host: &Host<'_, E>, budget: &mut Budget) -> Step {
        self.is_json = true;
        let bytes_max = host.options.request_bytes_max;
        let (len, problem) = match self.scanner.scan(self.input.pending()) {
            Scan::Whole(len) if len <= bytes_max => (len, None),
            Scan::More if self.input.len() <= bytes_max => match self.end {
                None => return Step::Pause(Pause::NeedsInput),
                Some(InputEnd::ByStop) => (0, None),
                Some(InputEnd::ByClient) => (0, Some("it ends in the middle")),
            },
            Scan::Whole(_) | Scan::More => (0, Some("it is longer than this server takes")),
            Scan::Malformed(what) => (0, Some(what)),
        };
        if len > 0 {
            return self.whole_request(len, host, budget);
        }
        if self.writes.is_empty() {
            match problem {
                Some(what) => self.refuse(&format!("malformed request: {what}")),
                None => self.end_here(),
            }
        } else {
            // The refusal waits for the writes before it; the same bytes are looked at again then.
            self.scanner = Scanner::default();
        }
        Step::Pause(Pause::Over)
    }

    /// The first `len` bytes of the input are a request.
    fn whole_request<E: KvsEngine>(
        &mut self,
        len: usize,
        host: &Host<'_, E>,
        budget: &mut Budget,
    ) -> Step {
        let Self { input, output, writes, .. } = self;
        let waits_for_disk = host.engine.writes_wait_for_disk();
        let output_len = output.tail().len();
        let decoded = json::decode(input.pending().get(..len).unwrap_or_default());
        let mut refusal = None;
        match decoded {
            Ok(Request::Set { key, value }) if waits_for_disk => {
                writes.push(Write::Set { key: bytes(key), value: bytes(value) });
            }
            Ok(Request::Remove { key }) if waits_for_disk => {
                writes.push(Write::Remove { key: bytes(key) });
            }
            // Everything else is answered at once, so it first waits for the writes before it.
            _ if !writes.is_empty() => {
                return Step::Pause(Pause::Writing);
            }
            Ok(request) => {
                let call = || answer(host.engine, &request, output.tail());
                if panic::catch_unwind(AssertUnwindSafe(call)).is_err() {
                    log::error!("engine {} panicked", host.engine.name());
                    refusal = Some("internal error".to_owned());
                }
            }
            Err(Refusal::Unknown(error)) => {
                json::encode(&Reply::Err(error.to_string().into()), output.tail());
            }
            Err(Refusal::Malformed(error)) => {
                refusal = Some(format!("malformed request: {error}"));
            }
        }
        let is_write = !writes.is_empty();
        input.consume(len);
        budget.spend(output.tail().len().saturating_sub(output_len));
        if let Some(why) = refusal {
            // Whatever the engine had begun to say.
            self.output.tail().truncate(output_len);
            self.refuse(&why);
        } else if !is_write {
            self.end_reply(self.replies_count == 0);
        }
        Step::Taken
    }

    fn answer_writes(&mut self, outcomes: Vec<Outcome>) {
        let may_be_lone = self.replies_count == 0 && outcomes.len() == 1;
        for outcome in outcomes {
            match outcome {
                Some(outcome) => {
                    answer_write(outcome, self.output.tail());
                    self.end_reply(may_be_lone);
                }
                None => return self.refuse("internal error"),
            }
        }
    }

    fn answer_error(&mut self, why: &str) {
        json::encode(&Reply::Err(why.into()), self.output.tail());
        self.replies_count += 1;
    }

    /// Ends a reply, or leaves that open if it may be the only one. Input never ends before every
    /// whole request in it is answered, so the end of the stream is always still to come here.
    fn end_reply(&mut self, first: bool) {
        self.replies_count += 1;
        if first && self.input.is_empty() {
            self.newline_owed = true;
        } else {
            self.output.tail().push(b'\n');
        }
    }

    fn end_here(&mut self) {
        self.over = true;
        self.input.consume(self.input.len());
    }
}

fn bytes(text: Cow<'_, str>) -> Vec<u8> {
    text.into_owned().into_bytes()
}

/// Does `request` and adds its reply to `output`.
fn answer<E: KvsEngine>(engine: &E, request: &Request<'_>, output: &mut Vec<u8>) {
    match request {
        Request::Set { key, value } => {
            answer_write(engine.set_bytes(key.as_bytes(), value.as_bytes()), output);
        }
        Request::Remove { key } => answer_write(engine.remove_bytes(key.as_bytes()), output),
        Request::Get { key } => {
            match engine.get_with(key.as_bytes(), |value| answer_value(value, output)) {
                Ok(Some(())) => {}
                Ok(None) => json::encode(&Reply::DONE, output),
                Err(error) => json::encode(&error_reply(&error), output),
            }
        }
        Request::Ping {} => json::encode(&Reply::DONE, output),
    }
}

fn answer_value(value: &[u8], output: &mut Vec<u8>) {
    let reply = match std::str::from_utf8(value) {
        Ok(text) => Reply::Ok(Some(text.into())),
        Err(_) => Reply::Err("value is not UTF-8; ask with binary".into()),
    };
    json::encode(&reply, output);
}

fn answer_write(outcome: Result<()>, output: &mut Vec<u8>) {
    match outcome {
        Ok(()) => json::encode(&Reply::DONE, output),
        Err(error) => json::encode(&error_reply(&error), output),
    }
}

fn error_reply(error: &KvsError) -> Reply<'static> {
    Reply::Err(error.to_string().into())
}
