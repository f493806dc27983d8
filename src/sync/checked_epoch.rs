//! Epochs for a model checker: what `crossbeam-epoch` promises, and nothing that it does not.
//!
//! The crate itself would bring its own atomics into every model, each use of which doubles what is
//! to be explored, and its own authors check it in that way. What this crate builds on it is one
//! promise: what is retired is freed when every guard is gone that was there at that moment. So the
//! stand-in frees *at that very moment*, sooner than the real one ever does, and whoever counts on
//! more than the promise reads freed memory.
//!
//! The books are kept beside the model: no thread learns through them what another has written, as
//! that would hide a missing ordering. What is part of the promise is there: who pins after a
//! retirement cannot load what was retired. `crossbeam-epoch` has sequentially consistent fences
//! for that; here it is one atomic that everybody adds to, since loom looks for no other orders of
//! fences. All threads of a model run on one thread of the system, so the books are its own.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ptr;

use super::checked::{AtomicPtr, AtomicUsize, Ordering, lazy_static};

#[derive(Default)]
struct Books {
    guards: u64,
    pinned: BTreeSet<u64>,
    /// What was retired, and whom it waits for.
    retired: Vec<(BTreeSet<u64>, Box<dyn FnOnce()>)>,
}

lazy_static! {
    static ref ORDER: AtomicUsize = AtomicUsize::new(0);
}

/// What comes before this in one thread is seen by whoever comes after it in another.
fn fence() {
    // AcqRel: pairs with itself.
    ORDER.fetch_add(1, Ordering::AcqRel);
}

thread_local! {
    static BOOKS: RefCell<Books> = RefCell::default();
}

/// Forgets what an execution that ended early has left.
pub(crate) fn begin_execution() {
    let left = BOOKS.take();
    // It belongs to a checker's state that is gone.
    std::mem::forget(left);
}

pub(crate) struct Guard(u64);

pub(crate) fn pin() -> Guard {
    let number = BOOKS.with_borrow_mut(|books| {
        books.guards += 1;
        books.pinned.insert(books.guards);
        books.guards
    });
    // Pairs with the one in `defer_destroy`.
    fence();
    Guard(number)
}

impl Guard {
    /// # Safety
    ///
    /// `shared` was unlinked by the caller, so that nobody who pins from now on can load it.
    pub(crate) unsafe fn defer_destroy<T: 'static>(&self, shared: Shared<'_, T>) {
        let raw = shared.raw;
        // SAFETY: it came from a `Box` in `Owned::new`, and is run once, when nobody can hold a
        // reference any more: by the contract for later guards, by the books for earlier ones.
        self.defer(move || drop(unsafe { Box::from_raw(raw) }));
    }

    /// Calls `done` when every guard is gone that is there now.
    pub(crate) fn defer<R>(&self, done: impl FnOnce() -> R + 'static) {
        // Pairs with the one in `pin`.
        fence();
        BOOKS.with_borrow_mut(|books| {
            books.retired.push((books.pinned.clone(), Box::new(move || drop(done()))));
        });
    }

    #[expect(clippy::unused_self, reason = "the shape of what it stands in for")]
    pub(crate) fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        let free: Vec<_> = BOOKS.with_borrow_mut(|books| {
            books.pinned.remove(&self.0);
            books.retired.iter_mut().for_each(|(waits_for, _)| {
                waits_for.remove(&self.0);
            });
            books.retired.extract_if(.., |(waits_for, _)| waits_for.is_empty()).collect()
        });
        // Not within the books: what is freed may retire something itself.
        free.into_iter().for_each(|(_, free)| free());
    }
}

pub(crate) struct Atomic<T>(AtomicPtr<T>);

pub(crate) struct Owned<T>(Box<T>);

pub(crate) struct Shared<'g, T> {
    raw: *mut T,
    guard: PhantomData<&'g T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(value))
    }
}

impl<T> Atomic<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(AtomicPtr::new(Box::into_raw(Box::new(value))))
    }

    pub(crate) fn null() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn load<'g>(&self, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
        Shared { raw: self.0.load(order), guard: PhantomData }
    }

    pub(crate) fn swap<'g>(&self, new: Owned<T>, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
        Shared { raw: self.0.swap(Box::into_raw(new.0), order), guard: PhantomData }
    }

    /// # Safety
    ///
    /// Nobody else can load it any more, and it is not null.
    pub(crate) unsafe fn into_owned(self) -> Owned<T> {
        // Relaxed: the caller is alone with it.
        let raw = self.0.load(Ordering::Relaxed);
        // SAFETY: it came from a `Box`, in `new` or in `Owned::new`; nobody else has it.
        Owned(unsafe { Box::from_raw(raw) })
    }
}

impl<'g, T> Shared<'g, T> {
    /// # Safety
    ///
    /// It is not null, and what it points at is freed only by [`Guard::defer_destroy`].
    pub(crate) unsafe fn deref(&self) -> &'g T {
        // SAFETY: by the contract, and because the guard of `'g` was there when it was loaded.
        unsafe { &*self.raw }
    }
}
