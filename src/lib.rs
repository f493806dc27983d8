//! An embeddable key-value store.

pub mod error;
pub mod options;
mod sync;
mod value;

mod engine;
mod write_batch;

mod engine_dir;
mod store;

pub mod thread_pool;

mod server;

mod client;

pub use client::KvsClient;
mod ffi;

pub use engine::KvsEngine;
pub use error::{KvsError, Result};
pub use options::{Durability, Options, ReadMode, WriteOptions};
pub use store::{KvStore, Stats};
pub use server::{KvServer, REQUEST_BYTES_MAX, ServerOptions};
#[cfg(feature = "sled")]
mod sled_engine;

mod any_engine;

pub use any_engine::{AnyEngine, ENGINE_NAMES};
pub use engine::KvsEngine;
pub use error::{KvsError, Result};
pub use options::{Durability, Options, ReadMode, WriteOptions};
#[cfg(feature = "sled")]
pub use sled_engine::SledKvsEngine;
pub use store::KvStore;
pub use value::Value;
pub use write_batch::{BatchOp, Write, WriteBatch, WriteDone};
