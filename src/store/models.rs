//! Models: small programs that a checker runs once for every order, or for very many orders, in
//! which their threads can go on. `make soak-models` runs them; none of this is in the library.
//!
//! What runs is the code of this crate, with other primitives below it (`sync/checked.rs`) and a
//! disk in memory. `models/index.rs` is the keydir, `models/tail.rs` the tail and
//! `models/small_store.rs` a store that two threads use for a moment, for loom, which tries all
//! orders and what weak memory orderings allow, and for shuttle; `models/whole_store.rs` is a store
//! with more at work than loom could come to the end of, for shuttle.
//!
//! `tests/models/planted.toml` has bugs that they must find.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "programs of tests, built by a package with lints of its own"
)]

mod index;
mod small_store;
mod tail;
#[cfg(shuttle)]
mod whole_store;

/// A model and its name.
pub type Model = (&'static str, fn());

/// All that the checker can run.
pub fn all() -> Vec<Model> {
    let both = [index::ALL, tail::ALL, small_store::ALL].concat();
    #[cfg(shuttle)]
    return [&both, whole_store::ALL].concat();
    #[cfg(loom)]
    return both;
}

/// To be called at the beginning of each execution.
pub fn begin_execution() {
    crate::sync::begin_execution();
}
