//! kvs: an embeddable key-value store.
//!
//! A store is a directory. Open it with [`KvStore`] (our own log-structured engine), with
//! `SledKvsEngine`, or with [`AnyEngine`], which chooses by name or by what the directory holds.
//! All of them keep one contract, [`KvsEngine`], and everything above is written against it: the
//! server, which a program starts inside its own process on the store it has open, the C library
//! and the Python package.
//!
//! ```
//! use kvs::{KvStore, KvsEngine};
//!
//! let dir = tempfile::tempdir()?;
//! let store = KvStore::open(dir.path())?;
//! store.set("no".to_owned(), "Oslo".to_owned())?;
//! assert_eq!(store.get("no".to_owned())?, Some("Oslo".to_owned()));
//! store.remove("no".to_owned())?;
//! assert_eq!(store.get("no".to_owned())?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a returned write survives
//!
//! | [`Durability`] | survives | costs |
//! |---|---|---|
//! | `Os` | the death of the process (`kill -9`) | a copy within memory |
//! | `Interval(d)`, default, 500 ms | as `Os`; power loss costs at most the last `d` | the same |
//! | `Sync` | power loss | one shared `fdatasync` |
//!
//! After any crash the state is a prefix of the order of writes that holds at least everything that
//! was durable.
//!
//! # Serving the open store
//!
//! ```
//! use kvs::thread_pool::{SharedQueueThreadPool, ThreadPool};
//! use kvs::{KvStore, KvsClient, KvsEngine, KvServer, ServerOptions};
//!
//! let dir = tempfile::tempdir()?;
//! let store = KvStore::open(dir.path())?;
//! let pool = SharedQueueThreadPool::new(2)?;
//! let server = KvServer::start(store.clone(), pool, "127.0.0.1:0", ServerOptions::new())?;
//!
//! let mut client = KvsClient::connect(server.local_addr())?;
//! client.set("from".to_owned(), "afar".to_owned())?;
//! assert_eq!(store.get("from".to_owned())?, Some("afar".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// In reading order: what everyone says, the contract, the engines, and what is built on them.
mod clock;
pub mod error;
mod logger;
pub mod options;
mod sync;
mod value;

mod json_text;
mod scan;

mod engine;
mod write_batch;

mod store;

mod engine_dir;
#[cfg(feature = "sled")]
mod sled_engine;

mod any_engine;

pub mod dump;

pub mod thread_pool;

mod server;

mod client;

mod ffi;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use any_engine::{AnyEngine, ENGINE_NAMES};
pub use client::KvsClient;
pub use engine::{CompareAndSwap, Expiry, KvsEngine, Update};
pub use error::{KvsError, Result};
pub use logger::LogLevel;
pub use options::{Durability, Options, ReadMode, WriteMode, WriteOptions};
pub use scan::{Entries, Scan};
pub use server::{KvServer, REQUEST_BYTES_MAX, ServerOptions};
#[cfg(feature = "sled")]
pub use sled_engine::SledKvsEngine;
#[cfg(feature = "layers")]
#[doc(hidden)]
pub use store::layers;
#[cfg(any(loom, shuttle))]
#[doc(hidden)]
pub use store::models;
pub use store::{
    Damage, KvStore, LogRecord, Progress, RepairReport, SegmentStats, Stats, VerifyReport,
};
pub use value::Value;
pub use write_batch::{BatchOp, Write, WriteBatch, WriteDone};

/// The code of the README, compiled and run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
