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
