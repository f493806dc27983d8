//! See `kvs::fuzzing::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvs::fuzzing::record(data));
