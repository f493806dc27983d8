//! Sequences of calls of the C library; see `src/c_calls.rs`.
#![no_main]

#[path = "../src/c_calls.rs"]
mod c_calls;

// The library is linked for its symbols.
use kvs as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| c_calls::c_calls(data));
