//! An embeddable key-value store.

pub mod error;
pub mod options;
mod sync;
mod value;

mod engine;
mod write_batch;

mod store;

pub mod thread_pool;

mod server;

mod client;

pub use client::KvsClient;
pub use engine::KvsEngine;
pub use error::{KvsError, Result};
pub use options::{Durability, Options, ReadMode, WriteOptions};
pub use store::{KvStore, Stats};
pub use server::{KvServer, REQUEST_BYTES_MAX, ServerOptions};
pub use store::KvStore;
pub use value::Value;
pub use write_batch::{BatchOp, Write, WriteBatch, WriteDone};
