//! The inputs of `fuzz/corpus/c_calls`, as the fuzzer calls them.

#[path = "../../fuzz/src/c_calls.rs"]
mod c_calls;

use std::path::Path;

#[test]
fn calls_that_a_fuzzer_made_up() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/c_calls");
    let inputs: Vec<_> = std::fs::read_dir(dir).unwrap().map(|input| input.unwrap()).collect();
    assert!(!inputs.is_empty(), "the corpus is gone");
    for input in inputs {
        println!("{}", input.path().display());
        c_calls::c_calls(&std::fs::read(input.path()).unwrap());
    }
}
