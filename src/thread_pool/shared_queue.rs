//! A fixed number of threads that take jobs from one queue.
//!
//! ```text
//! spawn -> jobs (first in, first out) -> kvs-worker-0
//!                                     -> kvs-worker-1 ...
//! ```
//!
//! Invariant: a worker ends only when the queue is closed *and* empty, so no queued job is lost.

use std::collections::VecDeque;
use std::fmt;

use super::{ThreadPool, check_threads};
use crate::error::Result;
use crate::sync::thread::JoinHandle;
use crate::sync::{self, Arc, Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Some threads and one queue. See [the module](crate::thread_pool) for what holds for all pools.
pub struct SharedQueueThreadPool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Signalled once per job, and to all when the queue is closed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl ThreadPool for SharedQueueThreadPool {
    fn new(threads: u32) -> Result<Self> {
        check_threads(threads)?;
        // Made first, so that workers already started are joined if a later one is refused.
        let mut pool = Self { queue: Arc::default(), threads: Vec::new() };
        for number in 0..threads {
            let queue = Arc::clone(&pool.queue);
            let work = move || {
                while let Some(job) = queue.next() {
                    super::run(job);
                }
            };
            pool.threads.push(sync::spawn(&format!("kvs-worker-{number}"), work)?);
        }
        Ok(pool)
    }

    fn spawn<F: FnOnce() + Send + 'static>(&self, job: F) {
        self.queue.state.lock().jobs.push_back(Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Queue {
    /// Waits for the next job; `None` when the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }
}

impl Drop for SharedQueueThreadPool {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_all();
        super::join(std::mem::take(&mut self.threads));
    }
}

impl fmt::Debug for SharedQueueThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedQueueThreadPool({} threads)", self.threads.len())
    }
}
