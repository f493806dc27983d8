//! See `kvs::fuzzing::operations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvs::fuzzing::operations(data));
