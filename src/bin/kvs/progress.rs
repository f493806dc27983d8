//! A progress bar for work that can last: on a terminal only, and only once it does last.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvs::Progress;

/// Work that is done before shows no bar.
const SHOWN_AFTER: Duration = Duration::from_millis(700);

/// A bar on standard error. It goes when it is dropped.
pub(crate) struct Bar {
    line: ProgressBar,
    began: Instant,
    is_shown: bool,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        line.set_message(what);
        Self { line, began: Instant::now(), is_shown: false }
    }

    /// Shows how far the work has come.
    pub(crate) fn update(&mut self, progress: Progress) {
        self.line.set_length(progress.total_bytes);
        self.line.set_position(progress.done_bytes);
        self.show();
    }

    /// Counts bytes of work whose end is known by `total_bytes`, or not.
    fn add(&mut self, len: usize) {
        self.line.inc(u64::try_from(len).unwrap_or(0));
        self.show();
    }

    fn show(&mut self) {
        if !self.is_shown && self.began.elapsed() >= SHOWN_AFTER {
            self.is_shown = true;
            let template = match self.line.length() {
                Some(_) => "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
                None => "{msg} {bytes}, {bytes_per_sec}",
            };
            let style = ProgressStyle::with_template(template);
            self.line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            // Hidden by itself where standard error is no terminal.
            self.line.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

/// A stream whose bytes are counted on a bar.
pub(crate) struct Counted<S> {
    stream: S,
    bar: Bar,
}

impl<S> Counted<S> {
    /// `total_bytes` will come through `stream`, if that is known.
    pub(crate) fn new(stream: S, what: &'static str, total_bytes: Option<u64>) -> Self {
        let bar = Bar::new(what);
        if let Some(total_bytes) = total_bytes {
            bar.line.set_length(total_bytes);
        }
        Self { stream, bar }
    }
}

impl<S: Read> Read for Counted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).inspect(|len| self.bar.add(*len))
    }
}

impl<S: Write> Write for Counted<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).inspect(|len| self.bar.add(*len))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
