//! The C ABI: what `include/kvs.h` declares.
//!
//! The header is printed from these files by cbindgen (settings in `cbindgen.toml`, which also
//! holds the conventions printed at its top); `tests/it/header.rs` keeps the committed copy
//! current. The comments of exported items are the manual for C, so they speak C.
//!
//! ```text
//! C -> kvs_get -> boundary: catch panics -> handle: NULL? forked? poisoned? -> one engine call
//!   <- kvs_status <- file the text of a failure for this thread <- Result
//! ```
//!
//! Every function checks, converts, makes one call, and converts back. No storage logic, no
//! printing, no policy.
//!
//! # What the caller promises
//!
//! The numbered promises of the header. A function's `# Safety` names those it needs, and each
//! `unsafe` block here says which one it stands on.
//!
//! 1. A handle came from the function that makes it and has not been given to its `_free`.
//! 2. A pointer to an input points at as many readable bytes as its length says, or at a string
//!    that ends in a zero byte; they do not change during the call.
//! 3. A pointer to an output is aligned, writable, and used by nothing else during the call.
//! 4. The call that frees a handle is the last one to use it, on any thread.
//! 5. A `kvs_options`, `kvs_batch` or `kvs_iter` is used by one thread at a time.
//! 6. A function given to `kvs_set_logger` may be called from another thread, with its userdata,
//!    until `kvs_set_logger` has returned for the next one; it returns.
//!
//! # Threads, fork, panics
//!
//! `kvs_store` and `kvs_server` are shared; `kvs_buf` is read-only. After `fork` the child's calls
//! on the parent's handles are refused (`fork.rs`), and freeing there releases memory only. A panic
//! never unwinds into C; the handle it happened on refuses writes from then on.
#![expect(unsafe_code, reason = "a C ABI: pointers come in and go out")]
#![expect(non_camel_case_types, reason = "the names of the header")]
#![expect(unreachable_pub, reason = "exported to C by symbol, not to Rust by path")]
#![expect(clippy::doc_markdown, reason = "these comments are the text of the C header")]

mod boundary;
mod fork;
mod packed;
mod status;

mod batch;
mod buffer;
mod expiry;
mod key;
mod logger;
mod options;
mod scan;
mod server;
mod stats;
mod store;
mod upkeep;
mod version;

#[cfg(test)]
mod tests;
