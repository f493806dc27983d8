//! The code checks its own rules.
//!
//! Each rule of the house that a compiler does not know is a test here: who may import whom, what
//! is absent from where, lengths, words, justifications, and what must be said in two places. A
//! failure names the line and what to do. `every_rule_catches_what_it_forbids` plants a violation
//! of each rule, so that none can go blind unseen.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics on purpose")]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::sync::OnceLock;

use rules::Hit;
use source::Tree;

type Rule = fn(&Tree) -> Vec<Hit>;

/// Makes a test of each rule, and the table that the planted violations are checked against.
macro_rules! rules {
    ($($rule:ident),* $(,)?) => {
        const RULES: &[(&str, Rule)] = &[$((stringify!($rule), rules::$rule)),*];

        $(
            #[test]
            fn $rule() {
                check_clean(rules::$rule);
            }
        )*
    };
}

rules! {
    rooms_import_only_from_below,
    the_contract_knows_no_engine,
    server_and_client_know_no_store,
    only_the_disk_room_touches_files,
    unsafe_stays_in_its_rooms,
    only_format_rooms_make_disk_bytes,
    only_names_knows_file_names,
    files_are_short,
    functions_are_short,
    lines_are_short,
    rust_is_ascii,
    every_source_file_says_what_it_is,
    no_debt_is_left_in_the_text,
    one_word_means_one_thing,
    no_path_of_one_machine,
    the_root_holds_only_what_it_should,
    every_unsafe_is_justified,
    every_atomic_ordering_has_its_reason,
    every_option_is_in_the_readme,
    every_soak_is_in_the_readme,
    the_map_shows_every_room,
    tests_that_are_named_are_there,
    every_c_function_is_tested_and_bound,
    c_functions_catch_panics,
    every_option_is_one_of_c,
    every_limit_has_a_test,
}

#[track_caller]
fn check_clean(rule: Rule) {
    // Read once, whichever rule comes first.
    static TREE: OnceLock<Tree> = OnceLock::new();
    let tree = TREE.get_or_init(Tree::of_repository);
    assert!(tree.get("src/lib.rs").is_some(), "the sources are not where this test looks");
    let hits = rule(tree);
    let lines: Vec<_> = hits.iter().map(|hit| format!("{}: {}", hit.place, hit.what)).collect();
    assert!(hits.is_empty(), "{} place(s):\n{}", hits.len(), lines.join("\n"));
}

/// A rule, files that break it once, and where.
type Planted = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const LIB: (&str, &str) = ("src/lib.rs", "pub use store::KvStore;\npub use error::Result;\n");

const PLANTED: &[Planted] = &[
    ("rooms_import_only_from_below", &[("src/error.rs", "use crate::store::X;")], "src/error.rs:1"),
    (
        "rooms_import_only_from_below",
        &[("src/store/record.rs", "\nuse super::{disk::D,\n writer::W};")],
        "src/store/record.rs:2",
    ),
    (
        "rooms_import_only_from_below",
        &[("src/store/writer.rs", "fn f() { super::recovery::run() }")],
        "src/store/writer.rs:1",
    ),
    (
        "rooms_import_only_from_below",
        &[LIB, ("src/server/json.rs", "use crate::{Result, KvStore};")],
        "src/server/json.rs:1",
    ),
    ("rooms_import_only_from_below", &[("src/attic.rs", "")], "src/attic.rs:1"),
    (
        "the_contract_knows_no_engine",
        &[("src/engine.rs", "/// `KvStore`.\nfn f(s: &KvStore) {}")],
        "src/engine.rs:2",
    ),
    (
        "server_and_client_know_no_store",
        &[("src/server/limits.rs", "fn f() {\n let store = 1;\n}")],
        "src/server/limits.rs:2",
    ),
    (
        "only_the_disk_room_touches_files",
        &[("src/store/hint.rs", "use std::{\n io, fs::File};")],
        "src/store/hint.rs:1",
    ),
    (
        "only_the_disk_room_touches_files",
        &[("src/dump.rs", "fn f(p: &Path) -> bool { p.exists() }")],
        "src/dump.rs:1",
    ),
    (
        "unsafe_stays_in_its_rooms",
        &[("src/store/keydir.rs", "// unsafe\nfn f() { unsafe { g() } }")],
        "src/store/keydir.rs:2",
    ),
    (
        "only_format_rooms_make_disk_bytes",
        &[("src/store/writer.rs", "let b = 7_u32.to_le_bytes();")],
        "src/store/writer.rs:1",
    ),
    (
        "only_names_knows_file_names",
        &[("src/store/recovery.rs", "let a = \"the LOCK is held\";\nlet b = \"LOCK\";")],
        "src/store/recovery.rs:2",
    ),
    (
        "only_names_knows_file_names",
        &[("src/store/hint.rs", "let b = format!(r#\"{id}.hint\"#);")],
        "src/store/hint.rs:1",
    ),
    ("rust_is_ascii", &[("benches/b.rs", "// a\n// \u{b5}s\n")], "benches/b.rs:2"),
    ("every_source_file_says_what_it_is", &[("src/a.rs", "use b;\n")], "src/a.rs:1"),
    ("no_debt_is_left_in_the_text", &[("README.md", "a\nTODO: b")], "README.md:2"),
    ("no_debt_is_left_in_the_text", &[("src/a.rs", "fn f() { dbg!(1); }")], "src/a.rs:1"),
    (
        "no_debt_is_left_in_the_text",
        &[("tests/it/a.rs", "#[ignore]\nfn f() {}")],
        "tests/it/a.rs:1",
    ),
    ("one_word_means_one_thing", &[("src/store/a.rs", "// they merge")], "src/store/a.rs:1"),
    ("one_word_means_one_thing", &[("ffi-tests/a.c", "// the WAL")], "ffi-tests/a.c:1"),
    ("no_path_of_one_machine", &[("Makefile", "X = /home/me/x")], "Makefile:1"),
    (
        "no_path_of_one_machine",
        &[("Cargo.lock", "source = \"git+https://example.org/other\"")],
        "Cargo.lock:1",
    ),
    ("the_root_holds_only_what_it_should", &[("notes.txt", "")], "notes.txt:1"),
    ("the_root_holds_only_what_it_should", &[("src/store/mod.rs", "")], "src/store/mod.rs:1"),
    (
        "every_unsafe_is_justified",
        &[("src/sync.rs", "fn f() {\n// SAFETY: so.\nunsafe { g() };\nunsafe { h() };\n}")],
        "src/sync.rs:4",
    ),
    (
        "every_unsafe_is_justified",
        &[("src/ffi.rs", "/// Opens.\n#[x]\npub unsafe extern \"C\" fn f() {}")],
        "src/ffi.rs:3",
    ),
    ("every_unsafe_is_justified", &[("src/sync.rs", "unsafe impl Send for A {}")], "src/sync.rs:1"),
    (
        "every_atomic_ordering_has_its_reason",
        &[("src/a.rs", "// Loads it.\na.load(Ordering::Acquire);")],
        "src/a.rs:2",
    ),
    (
        "every_atomic_ordering_has_its_reason",
        &[(
            "src/a.rs",
            "self.a.load(Relaxed); // Relaxed: a sum.\n\n\n\n\n\n\n\n\n\n\n\n\n\n\
            self.b.load(Relaxed);",
        )],
        "src/a.rs:15",
    ),
    (
        "every_option_is_in_the_readme",
        &[
            ("src/options.rs", "pub fn a(mut self) {}\npub fn b(mut self) {}"),
            ("README.md", "| `a(x)` | |\nb\n"),
        ],
        "src/options.rs:2",
    ),
    ("every_option_is_in_the_readme", &[("src/options.rs", "")], "src/options.rs:1"),
    (
        "every_soak_is_in_the_readme",
        &[
            ("Makefile", "soak-a: cc ## A\nsoak-b: ## B"),
            ("README.md", "| `soak-a` | 1 |\nsoak-b\n"),
        ],
        "Makefile:2",
    ),
    ("the_map_shows_every_room", &[("ARCHITECTURE.md", ""), ("src/a.rs", "")], "src/a.rs:1"),
    ("the_map_shows_every_room", &[("ARCHITECTURE.md", "a\n`b/c.rs`")], "ARCHITECTURE.md:2"),
    (
        "tests_that_are_named_are_there",
        &[
            ("ARCHITECTURE.md", "`a_b_c_d`, `a_b_c_e`,\n`a_b_c_f`, `make a_b` and `a_b_c_g`"),
            ("tests/it/a.rs", "fn a_b_c_d() {}\nfn a_b_c_g_h() {}"),
            ("ffi-tests/a.c", "static void a_b_c_f(const char *dir) {"),
            ("bindings/python/tests/a.py", "def a_b_c_e() -> None:"),
        ],
        "ARCHITECTURE.md:2",
    ),
    (
        "every_c_function_is_tested_and_bound",
        &[
            ("include/kvs.h", "/* kvs_no(). */\nint kvs_a(void);\nint kvs_b(void);"),
            ("ffi-tests/t.c", "kvs_a(); kvs_b();"),
            ("bindings/python/src/kvs/_abi.py", "'kvs_a'"),
        ],
        "include/kvs.h:3",
    ),
    ("every_c_function_is_tested_and_bound", &[("include/kvs.h", "")], "include/kvs.h:1"),
    ("every_c_function_is_tested_and_bound", &[], "include/kvs.h:1"),
    (
        "c_functions_catch_panics",
        &[(
            "src/ffi/a.rs",
            "pub extern \"C\" fn kvs_a() {\n    boundary(|| f());\n}\n\
             pub extern \"C\" fn kvs_b() {\n    boundary(|| f());\n    f();\n}\n",
        )],
        "src/ffi/a.rs:4",
    ),
    (
        "c_functions_catch_panics",
        &[(
            "src/ffi/a.rs",
            "unsafe fn help() -> S {\n    boundary(|| f())\n}\n\
             pub extern \"C\" fn kvs_a() -> S {\n    unsafe { help() }\n}\n\
             pub extern \"C\" fn kvs_b() -> S {\n    let a = g();\n    boundary_or(0, || f(a))\n\
             }\n",
        )],
        "src/ffi/a.rs:7",
    ),
    (
        "every_option_is_one_of_c",
        &[
            ("src/options.rs", "pub fn a(mut self) {}\npub fn wait(mut self) {}"),
            ("src/server/limits.rs", "pub fn a(mut self) {}\npub fn drain_timeout(mut self) {}"),
            ("include/kvs.h", "#define KVS_OPT_A 1\n#define KVS_OPT_WAIT_MS 2"),
        ],
        "src/server/limits.rs:1",
    ),
    (
        "every_limit_has_a_test",
        &[
            (
                "src/options.rs",
                "pub const A_MAX: u8 = 1;\npub const B_MAX: u8 = 2;\n#[cfg(test)]\nmod t {A_MAX}",
            ),
            ("tests/it/x.rs", "// B_MAX"),
        ],
        "src/options.rs:2",
    ),
];

/// Texts that look like violations and are none.
const INNOCENT: &[(&str, &str, &str)] = &[
    ("rooms_import_only_from_below", "src/store/writer.rs", "use crate::store::disk::Disk;"),
    (
        "rooms_import_only_from_below",
        "src/error.rs",
        "// use crate::store::X;\npub(crate) fn f() {}",
    ),
    (
        "rooms_import_only_from_below",
        "src/engine.rs",
        "#[cfg(test)]\nmod tests { use crate::store::KvStore; }",
    ),
    ("server_and_client_know_no_store", "src/server.rs", "flag.store(true, o); // the store\n"),
    ("only_the_disk_room_touches_files", "src/store/disk.rs", "use std::fs;"),
    ("only_the_disk_room_touches_files", "src/store.rs", "const A: &str = \"std::fs::File\";"),
    ("only_the_disk_room_touches_files", "src/ffi/tests.rs", "use std::fs;"),
    ("unsafe_stays_in_its_rooms", "src/a.rs", "#![forbid(unsafe_code)] // unsafe"),
    ("no_debt_is_left_in_the_text", "src/a.rs", "// XXH3 and \"dbg!(\" are fine.\n"),
    ("every_unsafe_is_justified", "src/ffi.rs", "type F = unsafe extern \"C\" fn(u8);"),
    ("every_unsafe_is_justified", "src/ffi.rs", "#[unsafe(no_mangle)]"),
    ("every_unsafe_is_justified", "src/ffi.rs", "/// # Safety\n///\n#[a]\nunsafe fn f() {}"),
    ("every_unsafe_is_justified", "src/sync.rs", "// SAFETY: so.\nlet a =\n    unsafe { g() };"),
    ("every_atomic_ordering_has_its_reason", "src/a.rs", "a.load(Relaxed); // Relaxed: a counter."),
    (
        "every_atomic_ordering_has_its_reason",
        "src/a.rs",
        "// Relaxed: a statistic.\nself.sum.load(Relaxed);\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\
         self\n.sum\n.fetch_add(n, Relaxed);",
    ),
    ("only_names_knows_file_names", "src/store/a.rs", "const M: &[u8] = b\"kvs.seg\\n\";"),
    ("every_limit_has_a_test", "src/ffi/a.rs", "pub const KVS_OPT_A_MAX: i32 = 1;"),
    ("rooms_import_only_from_below", "src/engine.rs", "use crate::error::{self, KvsError};"),
    ("every_source_file_says_what_it_is", "src/a.rs", "//! What it is.\n"),
];

#[track_caller]
fn rule_named(name: &str) -> Rule {
    RULES.iter().find(|(found, _)| *found == name).expect("a rule of the table").1
}

#[track_caller]
fn check_caught(name: &str, files: &[(&str, &str)], place: &str) {
    let hits = rule_named(name)(&Tree::of(files));
    let places: Vec<_> = hits.iter().map(|hit| hit.place.as_str()).collect();
    assert_eq!(places, [place], "{name} on {files:?}: {hits:?}");
}

#[test]
fn every_rule_catches_what_it_forbids() {
    for (name, files, place) in PLANTED {
        check_caught(name, files, place);
    }
    // Violations that are too long to spell.
    let long_line = format!("//! a\n//{}", "-".repeat(99));
    check_caught("lines_are_short", &[("src/a.rs", &long_line)], "src/a.rs:2");
    let long_function = format!("\nfn f() {{\n{}}}\n", "    g();\n".repeat(69));
    check_caught("functions_are_short", &[("src/a.rs", &long_function)], "src/a.rs:2");
    let long_file = "//! a\n".repeat(601);
    check_caught("files_are_short", &[("src/a.rs", &long_file)], "src/a.rs:1");

    for (name, _) in RULES {
        let long = ["lines_are_short", "functions_are_short", "files_are_short"].contains(name);
        let is_planted = PLANTED.iter().any(|(planted, ..)| planted == name);
        assert!(long || is_planted, "no violation of {name} is planted");
    }
}

#[test]
fn rules_leave_the_innocent_alone() {
    for (name, path, text) in INNOCENT {
        let hits = rule_named(name)(&Tree::of(&[(path, text)]));
        assert!(hits.is_empty(), "{name} on {text:?}: {hits:?}");
    }
    let function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(68));
    let file =
        format!("{}#[cfg(test)]\nmod tests {{\n{}}}", "//!\n".repeat(600), "f();\n".repeat(9));
    for (name, text) in [("functions_are_short", function), ("files_are_short", file)] {
        let hits = rule_named(name)(&Tree::of(&[("src/a.rs", &text)]));
        assert!(hits.is_empty(), "{name}: {hits:?}");
    }
}

/// The checker reads Rust without a parser. Each row is code, and what is left of it when comments
/// and the insides of literals are blanked.
#[test]
fn literals_and_comments_are_told_from_code() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"f("a // \" b") g"#, r#"f("         ") g"#),
        (r##"f(r#"a " b"#) g"##, r##"f(r#"     "#) g"##),
        (r#"f(b"x") br"y" cr_"#, r#"f(b" ") br" " cr_"#),
        (r#"'"' + '\'' + '\u{41}' "a""#, r#"' ' + '  ' + '      ' " ""#),
        ("fn f<'a>(x: &'a str) -> &'a str", "fn f<'a>(x: &'a str) -> &'a str"),
        ("r#type + number", "r#type + number"),
    ] {
        assert_eq!(source::Source::new("a.rs", text).code, code, "{text}");
    }
}
