//! Rayon's work-stealing pool behind our trait.
//!
//! Rayon would abort the process when a job panics, start threads that take signals, and not wait
//! for them when it is dropped; so jobs are wrapped and the threads are ours to start and join.

use super::{ThreadPool, check_threads};
use crate::error::{KvsError, Result};
use crate::sync;
use crate::sync::thread::JoinHandle;

/// Threads that steal jobs from each other. See [the module](crate::thread_pool) for what holds
/// for all pools.
#[derive(Debug)]
pub struct RayonThreadPool {
    /// `None` only while the pool is being dropped.
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl ThreadPool for RayonThreadPool {
    fn new(threads: u32) -> Result<Self> {
        check_threads(threads)?;
        let count = usize::try_from(threads).expect("at most POOL_THREADS_MAX");
        let mut started = Vec::with_capacity(count);
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .spawn_handler(|worker| {
                let name = format!("kvs-rayon-{}", worker.index());
                match sync::spawn(&name, || worker.run()) {
                    Ok(thread) => started.push(thread),
                    Err(KvsError::Thread { source }) => return Err(source),
                    Err(other) => return Err(std::io::Error::other(other)),
                }
                Ok(())
            })
            .build();
        match built {
            Ok(pool) => Ok(Self { pool: Some(pool), threads: started }),
            Err(error) => {
                // Rayon has told the threads that did start to end.
                super::join(started);
                Err(KvsError::Thread { source: std::io::Error::other(error) })
            }
        }
    }

    fn spawn<F: FnOnce() + Send + 'static>(&self, job: F) {
        if let Some(pool) = &self.pool {
            pool.spawn(|| super::run(job));
        }
    }
}

impl Drop for RayonThreadPool {
    fn drop(&mut self) {
        // Tells the threads to end once nothing is queued.
        drop(self.pool.take());
        super::join(std::mem::take(&mut self.threads));
    }
}
