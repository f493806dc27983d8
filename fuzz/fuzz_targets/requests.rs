//! See `kvs::fuzzing::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvs::fuzzing::requests(data));
