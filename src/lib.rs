//! An embeddable key-value store.

pub mod error;
pub mod options;
mod sync;
mod value;

mod engine;
mod write_batch;

mod store;

pub use engine::KvsEngine;
pub use error::{KvsError, Result};
pub use options::{Durability, Options, ReadMode, WriteOptions};
pub use store::{KvStore, Stats};
pub use value::Value;
pub use write_batch::{BatchOp, Write, WriteBatch, WriteDone};
