//! The committed C header is the one that the sources print.
//!
//! `make header` (or `KVS_HEADER_WRITE=1 cargo test --test it header`) writes it.

use std::env;
use std::path::{Path, PathBuf};
use std::{fs, str};

use cbindgen::{Builder, Config};

/// The files that hold the C ABI, in the order in which the header tells its story.
const SOURCES: [&str; 13] = [
    "version", "status", "logger", "options", "store", "key", "expiry", "buffer", "batch", "scan",
    "upkeep", "stats", "server",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed_path() -> PathBuf {
    root().join("include/kvs.h")
}

fn printed() -> String {
    let config = Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml is valid");
    let sources = SOURCES.iter().map(|name| root().join(format!("src/ffi/{name}.rs")));
    let builder = sources.fold(Builder::new().with_config(config), Builder::with_src);
    let mut bytes = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut bytes);
    String::from_utf8(bytes).expect("a header is text")
}

#[test]
fn committed_header_is_what_the_sources_print() {
    let printed = printed();
    if env::var_os("KVS_HEADER_WRITE").is_some() {
        fs::write(committed_path(), &printed).expect("include/kvs.h can be written");
    }
    let committed = fs::read_to_string(committed_path()).unwrap_or_default();
    assert!(committed == printed, "include/kvs.h is not current; run `make header` and commit it");
}

/// Each `.rs` file of the C ABI that exports something is in [`SOURCES`].
#[test]
fn every_exported_function_is_in_the_header() {
    let header = printed();
    let mut exported = 0;
    for entry in fs::read_dir(root().join("src/ffi")).expect("src/ffi is there") {
        let source = fs::read_to_string(entry.expect("readable").path()).expect("readable");
        for line in source.lines().filter(|line| line.contains("extern \"C\" fn kvs_")) {
            let name = line.split(" fn ").nth(1).and_then(|rest| rest.split('(').next());
            let name = name.expect("a name follows `fn`");
            assert!(header.contains(&format!(" {name}(")) || header.contains(&format!("*{name}(")));
            exported += 1;
        }
    }
    assert_eq!(exported, header.matches("\nKVS_API").count(), "one prototype per function");
}

/// Names that a program meets without asking for them are all ours.
#[test]
fn header_defines_no_name_without_our_prefix() {
    for line in printed().lines() {
        if let Some(name) =
            line.strip_prefix("#define ").and_then(|rest| rest.split([' ', '(']).next())
        {
            assert!(name.starts_with("KVS_"), "{line}");
        }
        // The name of a structure stands behind its members.
        let is_end = line.starts_with("} ") && line.ends_with(';');
        if let Some(rest) = line.strip_prefix("typedef ").or(is_end.then_some(line)) {
            if rest == "struct {" {
                continue;
            }
            // The name stands last, or behind the star of a pointer to a function.
            let name = match rest.split_once("(*") {
                Some((_, name)) => Some(name),
                None => rest.trim_end_matches(';').split(' ').next_back(),
            };
            assert!(name.is_some_and(|name| name.starts_with("kvs_")), "{line}");
        }
    }
}

/// The comment in front of each function says from which thread it may be called, and, if it has a
/// status, which ones it returns and what the call costs.
#[test]
fn every_function_says_its_statuses_threads_and_cost() {
    let header = printed();
    let mut functions = 0;
    for (before, _) in header.match_indices("\nKVS_API").map(|(at, _)| header.split_at(at)) {
        let comment = before.rsplit("/**").next().expect("a split has a part");
        let function = header[before.len()..].split(';').next().unwrap_or_default();
        assert!(comment.trim_end().ends_with("*/"), "no comment before {function}");
        assert!(comment.contains("Threads:"), "{function}");
        if function.contains("kvs_status kvs_") {
            assert!(comment.contains("Returns:"), "{function}");
            assert!(comment.contains("Cost:"), "{function}");
        }
        functions += 1;
    }
    assert!(functions > 50, "{functions}");
}
