//! Says which model checker stands in, for this package alone: `--cfg` for all of them would have
//! other crates build their own models.

use std::env;

fn main() {
    for checker in ["loom", "shuttle"] {
        if env::var_os(format!("CARGO_FEATURE_{}", checker.to_uppercase())).is_some() {
            println!("cargo::rustc-cfg={checker}");
        }
    }
}
