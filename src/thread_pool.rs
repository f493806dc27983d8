//! Thread pools: who runs a job.
//!
//! ```text
//! NaiveThreadPool         one new thread per job
//! SharedQueueThreadPool   a fixed number of threads, one queue
//! RayonThreadPool         a fixed number of threads that steal work from each other
//! ```
//!
//! What holds for all three:
//! - a job that panics costs no thread and no later job; the panic is logged;
//! - dropping a pool lets queued and running jobs finish and joins its threads; should one of its
//!   own jobs drop it, the jobs finish all the same, but nobody waits for them;
//! - threads are named `kvs-...` and take no signals, which belong to the host program.
//!
//! A pool may be used from one thread or, if shared by reference, from many. It knows no engine
//! and no server, and puts no bound on its queue: whoever spawns jobs bounds them.

mod naive;
mod rayon;
mod shared_queue;

use std::panic::{self, AssertUnwindSafe};

use crate::error::{KvsError, Result};
use crate::sync::thread::{self, JoinHandle};

pub use self::naive::NaiveThreadPool;
pub use self::rayon::RayonThreadPool;
pub use self::shared_queue::SharedQueueThreadPool;

/// Most threads one pool may have. More of them than this only cost memory and switching; a larger
/// number is nearly always a mistake in a configuration.
pub const POOL_THREADS_MAX: u32 = 1024;

/// Runs jobs on threads.
///
/// ```
/// use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let pool = SharedQueueThreadPool::new(2)?;
/// pool.spawn(move || sender.send(6 * 7).unwrap());
/// assert_eq!(receiver.recv()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ThreadPool: Send + Sync + 'static {
    /// Starts a pool of `threads` threads.
    ///
    /// # Errors
    ///
    /// [`KvsError::InvalidOption`] if `threads` is 0 or above [`POOL_THREADS_MAX`];
    /// [`KvsError::Thread`] if the operating system refuses a thread.
    fn new(threads: u32) -> Result<Self>
    where
        Self: Sized;

    /// Queues `job` and returns at once. It runs on one of the pool's threads, after the jobs that
    /// were queued before it have at least been started (except with [`RayonThreadPool`], which
    /// promises no order).
    fn spawn<F: FnOnce() + Send + 'static>(&self, job: F);
}

/// A pool that is chosen by name when the program runs.
#[derive(Debug)]
pub enum AnyThreadPool {
    /// "naive".
    Naive(NaiveThreadPool),
    /// "shared-queue".
    SharedQueue(SharedQueueThreadPool),
    /// "rayon".
    Rayon(RayonThreadPool),
}

impl AnyThreadPool {
    /// Starts the pool called `name`: "shared-queue", "rayon" or "naive".
    ///
    /// # Errors
    ///
    /// [`KvsError::InvalidOption`] if no pool has this name, otherwise as [`ThreadPool::new`].
    pub fn named(name: &str, threads: u32) -> Result<Self> {
        match name {
            "naive" => Ok(Self::Naive(ThreadPool::new(threads)?)),
            "shared-queue" => Ok(Self::SharedQueue(ThreadPool::new(threads)?)),
            "rayon" => Ok(Self::Rayon(ThreadPool::new(threads)?)),
            _ => {
                Err(KvsError::InvalidOption { name: "pool", must: "shared-queue, rayon or naive" })
            }
        }
    }
}

impl ThreadPool for AnyThreadPool {
    /// The pool to take when nothing speaks for another: a shared queue.
    fn new(threads: u32) -> Result<Self> {
        SharedQueueThreadPool::new(threads).map(Self::SharedQueue)
    }

    fn spawn<F: FnOnce() + Send + 'static>(&self, job: F) {
        match self {
            Self::Naive(pool) => pool.spawn(job),
            Self::SharedQueue(pool) => pool.spawn(job),
            Self::Rayon(pool) => pool.spawn(job),
        }
    }
}

/// Refuses thread counts that cannot work.
fn check_threads(threads: u32) -> Result<()> {
    if (1..=POOL_THREADS_MAX).contains(&threads) {
        return Ok(());
    }
    Err(KvsError::InvalidOption { name: "threads", must: "between 1 and 1024" })
}

/// Runs `job` and survives its panic. Nothing of the pool is borrowed by a job, so there is no
/// state that a panic could leave half changed.
fn run(job: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
        log::error!("a job on {} panicked", thread::current().name().unwrap_or("a pool thread"));
    }
}

/// Joins `threads`, unless the current thread is one of them: it cannot wait for itself, nor for
/// others that may wait for its job to end.
fn join(threads: Vec<JoinHandle<()>>) {
    let current = thread::current().id();
    if threads.iter().any(|thread| thread.thread().id() == current) {
        return;
    }
    for thread in threads {
        // Panics do not leave `run`; if one did, there is nobody left to tell but the log.
        if thread.join().is_err() {
            log::error!("a pool thread panicked");
        }
    }
}
