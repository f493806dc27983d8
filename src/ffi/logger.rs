//! `kvs_set_logger`: what the library has to say of itself, handed to a function of the program.
//!
//! ```text
//! any thread, under whatever locks -> log::warn! -> Bridge -> queue -> thread kvs-log -> fn
//! ```
//! Lines are written in the middle of operations, under locks of the engine. So the function is not
//! called there: a thread of its own calls it, which holds nothing. Whatever the function does, it
//! can neither deadlock the store nor make a writer wait. If it is too slow for the queue, lines
//! are left out and counted.
//!
//! There is one logger for the process, since the `log` facade has one.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use parking_lot::Mutex;

use super::boundary::{Failure, Outcome, boundary, keep_panics_quiet};
use super::fork::{self, Generation};
use super::status::{KVS_OK, kvs_status};
use crate::error::KvsError;
use crate::sync::{self, thread::JoinHandle};

/// Nothing is logged.
pub const KVS_LOG_OFF: i32 = 0;
/// Something failed, and nobody's call could say so.
pub const KVS_LOG_ERROR: i32 = 1;
/// Something is not as it should be, and the library copes.
pub const KVS_LOG_WARN: i32 = 2;
/// Something an operator may want to know.
pub const KVS_LOG_INFO: i32 = 3;
/// Something only a developer of the library wants to know.
pub const KVS_LOG_DEBUG: i32 = 4;
/// As KVS_LOG_DEBUG, and more of it.
pub const KVS_LOG_TRACE: i32 = 5;

/// What kvs_set_logger takes: a function that is called with the userdata that was given there, the
/// level of a line (KVS_LOG_ERROR to KVS_LOG_TRACE), and the line: UTF-8 without a line break, with
/// paths, lengths and offsets, never the bytes of a key or a value. The text is the library's and
/// valid during the call. The function must return: no longjmp, no exception.
pub type kvs_log_fn =
    Option<unsafe extern "C" fn(userdata: *mut c_void, level: i32, text: *const c_char)>;

/// Lines that wait for the function; a burst, and not what a function that hangs would collect.
const LINES_WAITING_MAX: usize = 1024;

struct Line {
    level: i32,
    text: CString,
}

/// The function, and what it is to be given.
struct Callback {
    call: unsafe extern "C" fn(*mut c_void, i32, *const c_char),
    userdata: *mut c_void,
}

// SAFETY: promise 6: the function may be called on another thread with this pointer. The library
// itself never looks behind it.
unsafe impl Send for Callback {}

/// The way to the thread that calls a function. The thread ends when `lines` is dropped, after it
/// has handed over what is waiting.
struct Listener {
    lines: SyncSender<Line>,
    thread: JoinHandle<()>,
}

static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);
/// Held while the logger is changed, so that changes come one after the other.
static CHANGING: Mutex<()> = Mutex::new(());
/// Lines that were left out since the last one that was not.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
/// The process that set a logger first. In its children the thread is missing, and a lock may be
/// held by nobody: there, nothing above is touched.
static BORN: OnceLock<Generation> = OnceLock::new();

thread_local! {
    /// Whether this is the thread that calls the function.
    static IS_CALLER: Cell<bool> = const { Cell::new(false) };
}

/// What the `log` facade is given.
struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if BORN.get().is_none_or(|born| born.is_past()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => KVS_LOG_ERROR,
            log::Level::Warn => KVS_LOG_WARN,
            log::Level::Info => KVS_LOG_INFO,
            log::Level::Debug => KVS_LOG_DEBUG,
            log::Level::Trace => KVS_LOG_TRACE,
        };
        // Crates below speak of themselves under their own names.
        let of_ours = record.target().split("::").next() == Some(env!("CARGO_PKG_NAME"));
        let text = if of_ours {
            record.args().to_string()
        } else {
            format!("{}: {}", record.target(), record.args())
        };
        let line = Line { level, text: one_line(&text) };
        let sent = LISTENER.lock().as_ref().map(|listener| listener.lines.try_send(line));
        if let Some(Err(TrySendError::Full(_))) = sent {
            // Relaxed: a figure that stands for itself.
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// `text` for C, without what would end it early or break the line.
fn one_line(text: &str) -> CString {
    CString::new(text.replace(['\0', '\n', '\r'], " ")).unwrap_or_default()
}

impl Callback {
    /// Hands every line to the function until nobody can send more.
    fn run(&self, lines: &Receiver<Line>) {
        IS_CALLER.set(true);
        while let Ok(line) = lines.recv() {
            // Relaxed: a figure that stands for itself.
            let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                let text = format!("{left_out} lines were left out: the logger is too slow");
                self.call(&Line { level: KVS_LOG_WARN, text: one_line(&text) });
            }
            self.call(&line);
        }
    }

    fn call(&self, line: &Line) {
        // SAFETY: promise 6: the function can be called from any thread until `kvs_set_logger` has
        // returned for the next one, which waits for this thread to end. The text lives meanwhile.
        unsafe { (self.call)(self.userdata, line.level, line.text.as_ptr()) };
    }
}

/// Sets the function that is given what the library has to say: failures in the background, tails
/// that a crash left, a disk that is full. At first there is none, and the library is silent. There
/// is one for the process; a new one takes the place of the old one.
///
/// Lines of max_level and below are handed over, one after the other, by a thread called kvs-log
/// that does nothing else and holds no lock: the function may take its time and may call this
/// library, kvs_set_logger excepted. Nobody waits for it: when 1024 lines are waiting, further ones
/// are left out, and a line says how many. With fn NULL there is none any more, and max_level and
/// userdata are not looked at.
///
/// When this returns, the previous function has been given every line from before this call, is not
/// being called, and never will be again; so its userdata may be freed.
///
/// Returns: KVS_OK; KVS_ERR_INVALID: max_level is no KVS_LOG_*, or this was called by the function
///          itself; KVS_ERR_UNSUPPORTED: the program is written in Rust and has set a logger of its
///          own, which stays; KVS_ERR_THREAD; KVS_ERR_IO: forks cannot be watched for;
///          KVS_ERR_FORKED: the parent process set a logger before. On failure the previous
///          function is no longer called either, unless it is KVS_ERR_INVALID or KVS_ERR_FORKED.
/// Threads: any; promise 6.
/// Cost:    a thread while there is a function; without one, a line costs one comparison.
///
/// # Safety
///
/// Promise 6.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvs_set_logger(
    max_level: i32,
    r#fn: kvs_log_fn,
    userdata: *mut c_void,
) -> kvs_status {
    boundary(|| {
        let listening = match r#fn {
            Some(call) => Some((level_filter(max_level)?, Callback { call, userdata })),
            None => None,
        };
        if IS_CALLER.get() {
            return Err(Failure::Invalid {
                argument: "kvs_set_logger",
                must: "called by another function than the one it has set",
            });
        }
        if BORN.get().is_some_and(|born| born.is_past()) {
            return Err(Failure::Forked);
        }
        let _changing = CHANGING.lock();
        end();
        if let Some((level, callback)) = listening {
            begin(level, callback)?;
        }
        Ok(KVS_OK)
    })
}

/// Ends the calls of the current function, if there is one.
fn end() {
    log::set_max_level(log::LevelFilter::Off);
    let ended = LISTENER.lock().take();
    if let Some(Listener { lines, thread }) = ended {
        // The thread ends when it has handed over what is waiting.
        drop(lines);
        // It cannot panic: it calls nothing of Rust but the queue.
        let _ = thread.join();
    }
}

/// Begins to call `callback`.
fn begin(level: log::LevelFilter, callback: Callback) -> Outcome<()> {
    static IS_OURS: OnceLock<bool> = OnceLock::new();
    keep_panics_quiet();
    fork::watch()
        .map_err(|error| KvsError::io("watch for forks of", "the logger".as_ref(), error))?;
    if !IS_OURS.get_or_init(|| log::set_logger(&Bridge).is_ok()) {
        return Err(Failure::LoggerTaken);
    }
    BORN.get_or_init(Generation::now);
    let (lines, waiting) = mpsc::sync_channel(LINES_WAITING_MAX);
    let thread = sync::spawn("kvs-log", move || callback.run(&waiting))?;
    *LISTENER.lock() = Some(Listener { lines, thread });
    log::set_max_level(level);
    Ok(())
}

fn level_filter(level: i32) -> Outcome<log::LevelFilter> {
    Ok(match level {
        KVS_LOG_OFF => log::LevelFilter::Off,
        KVS_LOG_ERROR => log::LevelFilter::Error,
        KVS_LOG_WARN => log::LevelFilter::Warn,
        KVS_LOG_INFO => log::LevelFilter::Info,
        KVS_LOG_DEBUG => log::LevelFilter::Debug,
        KVS_LOG_TRACE => log::LevelFilter::Trace,
        _ => return Err(Failure::Invalid { argument: "max_level", must: "a KVS_LOG_*" }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first function is slow; the second sees what came after it, and the first nothing more.
    #[test]
    fn each_line_goes_to_one_function_whole_and_in_order() {
        static SEEN: Mutex<Vec<(usize, i32, String)>> = Mutex::new(Vec::new());

        /// # Safety
        ///
        /// The text is one.
        unsafe extern "C" fn keep(userdata: *mut c_void, level: i32, text: *const c_char) {
            // SAFETY: the text is one, and lives during the call.
            let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_str().expect("UTF-8");
            std::thread::sleep(std::time::Duration::from_millis(1));
            // Other tests of this process may make the library speak too.
            if text.contains("test line") {
                SEEN.lock().push((userdata.addr(), level, text.to_owned()));
            }
            // SAFETY: no pointer is looked at.
            let status = unsafe { kvs_set_logger(KVS_LOG_INFO, Some(keep), userdata) };
            assert_eq!(status, super::super::status::KVS_ERR_INVALID);
        }
        let set = |level, name: usize| {
            // SAFETY: promise 6: `keep` may be called from anywhere.
            unsafe { kvs_set_logger(level, Some(keep), std::ptr::without_provenance_mut(name)) }
        };

        log::error!("test line for nobody");
        assert_eq!(set(KVS_LOG_WARN, 1), KVS_OK);
        log::warn!("test line\nin {} parts\0", 2);
        log::info!("test line above the level");
        for _ in 0..10 {
            log::error!(target: "other::crate", "test line");
        }
        assert_eq!(set(KVS_LOG_TRACE, 2), KVS_OK);
        assert_eq!(SEEN.lock().len(), 11);
        log::trace!("test line");
        assert_eq!(set(99, 3), super::super::status::KVS_ERR_INVALID);
        // SAFETY: no function, no promise.
        assert_eq!(unsafe { kvs_set_logger(0, None, std::ptr::null_mut()) }, KVS_OK);
        log::error!("test line for nobody");

        let seen = SEEN.lock();
        assert_eq!(seen[0], (1, KVS_LOG_WARN, "test line in 2 parts ".to_owned()));
        assert_eq!(seen[1], (1, KVS_LOG_ERROR, "other::crate: test line".to_owned()));
        assert_eq!(seen[11..], [(2, KVS_LOG_TRACE, "test line".to_owned())]);
    }
}
