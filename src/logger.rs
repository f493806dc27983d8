//! Who hears what a store has to say: the `log` facade, or a callback of the host.
//!
//! ```text
//! rooms of a store -> Logger (in the options, cloned) -> log::log!         by default
//!                                                     -> Options::log_to   one callback per store
//! ```
//! A message is one line: the directory of the store, what happened, paths and numbers; never the
//! bytes of a key or a value. It is said by the thread that it happens to, at that moment, so that
//! nothing is missing when the process dies right after; that thread may hold locks of the store.
//! Hence a callback must not write to the store; [`Logger::check_caller`] refuses that rather than
//! wait for ever. A panic of the callback ends there.

use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::error::{KvsError, Result};
use crate::sync::Arc;

/// How much a message matters; see [`crate::Options::log_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something is broken, and stays so until someone acts: the store takes no more writes,
    /// closing failed, background compaction fails.
    Error,
    /// Something is not as it should be, and the store does without: the disk is full and the
    /// reserve is given up, a file could not be removed.
    Warn,
    /// What an operator wants to see in a log: opened, compacted, closed.
    Info,
    /// What helps to find out why something is slow: a new log file, a compaction begins.
    Debug,
}

impl From<LogLevel> for log::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

type Callback = dyn Fn(LogLevel, &str) + Send + Sync;

thread_local! {
    /// Whether this thread is inside of a callback.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Where the messages of one store go.
#[derive(Clone, Default)]
pub(crate) struct Logger {
    /// `None` for the facade.
    callback: Option<Arc<Callback>>,
    /// What every message begins with.
    dir: Option<Arc<Path>>,
}

impl Logger {
    pub(crate) fn to(callback: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        Self { callback: Some(Arc::new(callback)), dir: None }
    }

    /// The same, for the store in `dir`.
    pub(crate) fn for_store(&self, dir: &Path) -> Self {
        Self { callback: self.callback.clone(), dir: Some(Arc::from(dir)) }
    }

    pub(crate) fn error(&self, message: fmt::Arguments<'_>) {
        self.say(LogLevel::Error, message);
    }

    pub(crate) fn warn(&self, message: fmt::Arguments<'_>) {
        self.say(LogLevel::Warn, message);
    }

    pub(crate) fn info(&self, message: fmt::Arguments<'_>) {
        self.say(LogLevel::Info, message);
    }

    pub(crate) fn debug(&self, message: fmt::Arguments<'_>) {
        self.say(LogLevel::Debug, message);
    }

    /// Refuses a caller that is inside of a callback: the locks it needs may be its own. Costs
    /// nothing where there is no callback.
    ///
    /// # Errors
    ///
    /// [`KvsError::Unsupported`].
    pub(crate) fn check_caller(&self) -> Result<()> {
        if self.callback.is_some() && INSIDE.get() {
            return Err(KvsError::Unsupported { engine: "kvs", what: "writes from within log_to" });
        }
        Ok(())
    }

    #[cold]
    fn say(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        match self.dir.as_deref().map(Path::display) {
            Some(dir) => self.pass_on(level, format_args!("{dir}: {message}")),
            None => self.pass_on(level, message),
        }
    }

    fn pass_on(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        let callback = match &self.callback {
            // What happens because of what a callback does is not for a callback to hear.
            Some(callback) if !INSIDE.replace(true) => callback,
            _ => return log::log!(target: "kvs", level.into(), "{message}"),
        };
        // A path may hold anything.
        let line = message.to_string().replace(['\n', '\r'], "?");
        let said = panic::catch_unwind(AssertUnwindSafe(|| callback(level, &line)));
        INSIDE.set(false);
        if said.is_err() {
            log::error!(target: "kvs", "a callback given to log_to panicked at: {line}");
        }
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.callback.is_some() { "a callback" } else { "the log facade" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    #[test]
    fn a_message_is_one_line_that_begins_with_the_directory() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let logger = Logger::to({
            let heard = Arc::clone(&heard);
            move |level, line| heard.lock().push((level, line.to_owned()))
        });
        logger.for_store(Path::new("a\nb")).warn(format_args!("{} bytes", 7));
        logger.info(format_args!("no store"));
        let lines = [(LogLevel::Warn, "a?b: 7 bytes"), (LogLevel::Info, "no store")];
        assert_eq!(*heard.lock(), lines.map(|(level, line)| (level, line.to_owned())));
    }

    /// Also if the message is about a panic, which is on its way through the thread then.
    #[test]
    fn a_panic_of_the_callback_ends_there() {
        struct Speaks(Logger);
        impl Drop for Speaks {
            fn drop(&mut self) {
                self.0.error(format_args!("said while unwinding"));
            }
        }
        let logger = Logger::to(|_, line| panic!("{line}"));
        logger.error(format_args!("said in peace"));
        let speaks = Speaks(logger.clone());
        let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
            let _speaks = speaks;
            panic!("the first one");
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"the first one"));
        logger.check_caller().unwrap();
    }

    #[test]
    fn only_a_caller_within_a_callback_is_refused() {
        let refused = Arc::new(Mutex::new(Vec::new()));
        let logger = Logger::to({
            let refused = Arc::clone(&refused);
            move |_, _| {
                refused.lock().push(Logger::to(|_, _| {}).check_caller().is_err());
                refused.lock().push(Logger::default().check_caller().is_err());
                Logger::to(|_, _| panic!("heard from within")).error(format_args!("not heard"));
            }
        });
        logger.check_caller().unwrap();
        logger.error(format_args!("said"));
        assert_eq!(*refused.lock(), [true, false]);
        logger.check_caller().unwrap();
    }
}
