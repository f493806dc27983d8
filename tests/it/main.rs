//! The promises of the crate, tested from outside: one binary, one module per area.
#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and helpers are not seen as tests by these lints"
)]
//! The integration tests, in one binary: one link, one run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[cfg(feature = "cli")]
mod cli;
mod contract;
mod header;
mod model;
mod model_engine;
mod opening;
mod recovery;
mod server;
mod store;
mod thread_pool;
