//! What every thread pool promises, over real threads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use kvs::KvsError;
use kvs::thread_pool::{
    AnyThreadPool, NaiveThreadPool, POOL_THREADS_MAX, RayonThreadPool, SharedQueueThreadPool,
    ThreadPool,
};

const POOLS: [&str; 3] = ["naive", "shared-queue", "rayon"];

fn pool(name: &str, threads: u32) -> AnyThreadPool {
    AnyThreadPool::named(name, threads).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn dropping_a_pool_finishes_every_queued_job() {
    for name in POOLS {
        let done = Arc::new(AtomicU32::new(0));
        let pool = pool(name, 2);
        for _ in 0..200 {
            let done = Arc::clone(&done);
            pool.spawn(move || {
                thread::sleep(Duration::from_micros(100));
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        drop(pool);
        assert_eq!(done.load(Ordering::SeqCst), 200, "{name}");
    }
}

#[test]
fn panicking_jobs_cost_no_worker() {
    for name in POOLS {
        let pool = pool(name, 2);
        for _ in 0..20 {
            pool.spawn(|| panic!("on purpose"));
        }
        // Two jobs that wait for each other need both workers alive.
        let meeting = Arc::new(Barrier::new(2));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..2 {
            let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
            pool.spawn(move || {
                meeting.wait();
                sender.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            receiver
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|error| panic!("{name}: a worker is gone: {error}"));
        }
    }
}

#[test]
fn fixed_pools_run_jobs_on_as_many_threads_as_asked_for() {
    for (name, threads) in [("shared-queue", 3), ("rayon", 3)] {
        let pool = pool(name, threads);
        let meeting = Arc::new(Barrier::new(3));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..30 {
            let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
            pool.spawn(move || {
                meeting.wait();
                sender.send(thread::current().id()).unwrap();
            });
        }
        drop(sender);
        let ids: Vec<_> = receiver.iter().collect();
        assert_eq!(ids.len(), 30, "{name}");
        let distinct: std::collections::HashSet<_> = ids.into_iter().collect();
        assert_eq!(distinct.len(), 3, "{name}");
    }
}

#[test]
fn counts_that_cannot_work_are_refused_at_the_limit_and_one_above() {
    fn check_refused<P: ThreadPool>(name: &str, threads: u32) {
        match P::new(threads).map(drop) {
            Err(KvsError::InvalidOption { name: "threads", .. }) => {}
            other => panic!("{name} with {threads} threads: {other:?}"),
        }
    }
    for threads in [0, POOL_THREADS_MAX + 1] {
        check_refused::<NaiveThreadPool>("naive", threads);
        check_refused::<SharedQueueThreadPool>("shared-queue", threads);
        check_refused::<RayonThreadPool>("rayon", threads);
        check_refused::<AnyThreadPool>("any", threads);
    }
    drop(NaiveThreadPool::new(POOL_THREADS_MAX).unwrap());
    drop(SharedQueueThreadPool::new(POOL_THREADS_MAX).unwrap());
}

#[test]
fn unknown_pool_names_are_refused() {
    for name in ["", "Rayon", "tokio"] {
        match AnyThreadPool::named(name, 1) {
            Err(KvsError::InvalidOption { name: "pool", .. }) => {}
            other => panic!("{name:?}: {other:?}"),
        }
    }
}

/// Signals belong to the host program: a pool thread that took one would run its handler.
#[test]
fn threads_are_named_kvs_and_block_every_signal_that_can_be_blocked() {
    for name in POOLS {
        let pool = pool(name, 1);
        let (sender, receiver) = mpsc::channel();
        pool.spawn(move || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let thread_name = thread::current().name().unwrap_or_default().to_owned();
            sender.send((thread_name, status)).unwrap();
        });
        let (thread_name, status) = receiver.recv().unwrap();
        assert!(thread_name.starts_with("kvs-"), "{name}: {thread_name}");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE] {
            assert_ne!(blocked & (1 << (signal - 1)), 0, "{name}: signal {signal} comes through");
        }
    }
}

#[test]
fn a_pool_dropped_by_its_own_job_does_not_wait_for_itself() {
    for name in POOLS {
        let pool = Arc::new(pool(name, 2));
        let (sender, receiver) = mpsc::channel();
        let (let_go, wait) = mpsc::channel::<()>();
        pool.spawn({
            let pool = Arc::clone(&pool);
            move || {
                wait.recv().unwrap();
                drop(pool);
                sender.send(()).unwrap();
            }
        });
        drop(pool);
        let_go.send(()).unwrap();
        receiver
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn naive_jobs_each_have_a_thread_of_their_own() {
    let pool = pool("naive", 1);
    let meeting = Arc::new(Barrier::new(8));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..8 {
        let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
        pool.spawn(move || {
            meeting.wait();
            sender.send(format!("{:?}", thread::current().id())).unwrap();
        });
    }
    drop(sender);
    assert_eq!(receiver.iter().collect::<BTreeSet<_>>().len(), 8);
}
