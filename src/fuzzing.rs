//! What a fuzzer calls: functions of bytes that must neither panic, nor hang, nor contradict what
//! they know to be right. Not in the library: `fuzz/` builds the sources with `--cfg fuzzing`.
//!
//! Every test run calls them with the inputs of `fuzz/corpus`, among them those that once found
//! something.

use crate::server::fuzzing::requests as requests_of;
pub use crate::store::fuzzing::{checkpoint, hint, manifest, operations, record, segment};
use crate::store::fuzzing::{new_disk, open};

/// A conversation in JSON with a store in memory.
pub fn requests(data: &[u8]) {
    requests_of(&|| open(&new_disk()).expect("a new store"), data);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[track_caller]
    fn check_corpus(name: &str, target: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|at| at.unwrap()).collect();
        inputs.sort_by_key(std::fs::DirEntry::file_name);
        assert!(!inputs.is_empty(), "{} is empty", dir.display());
        for input in inputs {
            // The name of the last one printed is that of the culprit.
            println!("{}", input.path().display());
            target(&std::fs::read(input.path()).unwrap());
        }
    }

    macro_rules! replays {
        ($($target:ident),* $(,)?) => {
            $(
                #[test]
                fn $target() {
                    check_corpus(stringify!($target), super::$target);
                }
            )*
        };
    }

    replays!(checkpoint, hint, manifest, operations, record, requests, segment);
}
