//! Links the system's shared libraries of the rivals that have no crate of their own here.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for (feature, library) in [("ROCKSDB", "rocksdb"), ("LEVELDB", "leveldb"), ("TKRZW", "tkrzw")] {
        if env::var_os(format!("CARGO_FEATURE_{feature}")).is_some() {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
    // The C interface of RocksDB does not tell its version; its pkg-config file does.
    let asked = Command::new("pkg-config").args(["--modversion", "rocksdb"]).output();
    let version = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let version = version.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    println!("cargo:rustc-env=PEERS_ROCKSDB_VERSION={}", version.trim());
}
