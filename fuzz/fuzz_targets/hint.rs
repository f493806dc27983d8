//! See `kvs::fuzzing::hint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvs::fuzzing::hint(data));
