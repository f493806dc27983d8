//! The promises of the crate, tested from outside: one binary, one module per area.
#![allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and helpers are not seen as tests by these lints"
)]

mod atomic;
mod cli;
mod contract;
mod damage;
mod dump;
mod expiry;
mod fuzz;
mod golden;
mod header;
mod hints;
mod model;
mod model_engine;
mod opening;
mod operating;
mod process;
mod read_only;
mod recovery;
mod scan;
mod server;
mod store;
mod tail;
mod thread_pool;
mod upkeep;
