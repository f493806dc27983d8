//! Gives the shared library its name inside: programs record that name when they link and look for
//! it when they start. It carries the ABI number, not the version of the crate, so a library with
//! the same ABI can take the place of the one a program was linked with. Nothing else is done at
//! build time; the header is committed and a test keeps it current.

use std::env;

/// `KVS_ABI_VERSION` of `include/kvs.h`; a check of the built library compares the two.
const ABI_VERSION: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => println!(
            "cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libkvs.{ABI_VERSION}.dylib"
        ),
        Ok("linux" | "freebsd" | "netbsd" | "openbsd" | "dragonfly" | "android") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkvs.so.{ABI_VERSION}");
        }
        // Elsewhere the linker's own default stands.
        _ => {}
    }
}
