//! One integration binary: each area is a module.
#![expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail loudly; a panic is how they do it"
)]

mod recovery;
mod store;
//! The integration tests, in one binary: one link, one run.

mod server;
mod thread_pool;
//! The promises of the crate, tested from outside: one binary, one module per area.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and helpers are not seen as tests by these lints"
)]

mod cli;
mod contract;
mod model;
mod model_engine;
mod opening;
//! The integration tests, one module per area, one binary.

mod header;
