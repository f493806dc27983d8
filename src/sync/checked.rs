//! The primitives of a model checker, in the shape of those that they stand in for.
//!
//! Every use of one is a point at which another thread may go on; loom also tries what weak memory
//! orderings allow. No time passes in a model: a wait with a timeout lets the others go on for a
//! while and then ends, as a timeout may at any moment. Constants shrink where a checker would have
//! more to look at and find no more: shards and slots of the keydir.

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub(crate) use checker::lazy_static;
pub(crate) use checker::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence,
};

pub(crate) mod thread {
    //! Threads that the checker schedules.

    use super::checker;

    #[cfg(shuttle)]
    pub(crate) use checker::thread::scope;
    pub(crate) use checker::thread::{current, yield_now};
    /// loom has none: whoever asks for one has no helpers, since there is one processor.
    #[cfg(loom)]
    pub(crate) use std::thread::scope;

    /// Lets all others go on: the checker's own would be a point like any other, at which a thread
    /// that polls may keep the processor for ever.
    pub(crate) fn sleep(_: std::time::Duration) {
        yield_now();
    }

    pub(crate) struct JoinHandle<T>(checker::thread::JoinHandle<T>);

    impl<T> std::fmt::Debug for JoinHandle<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JoinHandle")
        }
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn thread(&self) -> &checker::thread::Thread {
            self.0.thread()
        }

        /// Not as far as anybody knows.
        pub(crate) fn is_finished(&self) -> bool {
            false
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.0.join()
        }
    }

    pub(crate) struct Builder(checker::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(checker::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            self.0.spawn(body).map(JoinHandle)
        }
    }

    /// One: helpers are not what is modelled.
    pub(crate) fn available_parallelism() -> std::io::Result<std::num::NonZero<usize>> {
        Ok(std::num::NonZero::<usize>::MIN)
    }
}

/// As that of `parking_lot`: whoever panics lets go of it.
#[derive(Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Always there between two calls.
    held: Option<checker::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.hold()) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, held: Some(held) })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) -> checker::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("held between two calls")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("held between two calls")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(checker::sync::Condvar);

/// Whether the condition still held when the time was over.
pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(checker::sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("held between two calls");
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_while<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) {
        while condition(guard) {
            self.wait(guard);
        }
    }

    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        _: Duration,
    ) -> TimedOut {
        if condition(guard) {
            guard.held = None;
            checker::thread::yield_now();
            guard.held = Some(guard.mutex.hold());
        }
        TimedOut(condition(guard))
    }

    pub(crate) fn wait_while_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        _: Instant,
    ) -> TimedOut {
        self.wait_while_for(guard, condition, Duration::ZERO)
    }
}
