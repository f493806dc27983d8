//! See `kvs::fuzzing::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kvs::fuzzing::manifest(data));
