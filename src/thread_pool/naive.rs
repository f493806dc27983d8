//! The simplest pool: one new thread per job.
//!
//! Right for few long jobs and for comparison; a thread costs some 20 microseconds to start.
//! `threads` is only the promise of the trait here: the number of threads is the number of jobs.

use super::{ThreadPool, check_threads};
use crate::error::Result;
use crate::sync::thread::JoinHandle;
use crate::sync::{self, Arc, Mutex};

/// A new thread for every job. See [the module](crate::thread_pool) for what holds for all pools.
#[derive(Debug)]
pub struct NaiveThreadPool {
    /// Threads that may still run. Ended ones are let go whenever a job is spawned.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ThreadPool for NaiveThreadPool {
    /// Starts nothing yet. `threads` is checked and otherwise ignored.
    fn new(threads: u32) -> Result<Self> {
        check_threads(threads)?;
        Ok(Self { threads: Mutex::new(Vec::new()) })
    }

    /// Runs `job` on a new thread. If the operating system refuses one, runs it on this thread: a
    /// job is late, but never lost.
    fn spawn<F: FnOnce() + Send + 'static>(&self, job: F) {
        let job = Arc::new(Mutex::new(Some(job)));
        let run_once = {
            let job = Arc::clone(&job);
            move || {
                let job = job.lock().take();
                if let Some(job) = job {
                    super::run(job);
                }
            }
        };
        match sync::spawn("kvs-job", run_once.clone()) {
            Ok(thread) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => {
                log::warn!("{error}; running the job on the thread that spawned it");
                run_once();
            }
        }
    }
}

impl Drop for NaiveThreadPool {
    fn drop(&mut self) {
        super::join(std::mem::take(self.threads.get_mut()));
    }
}
