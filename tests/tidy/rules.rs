//! The rules, each a function from the files of the repository to the places that break it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, Tree, has_extension, item_body, line_at, path_tree, paths, words};

/// One broken rule: where, what, and what to do.
#[derive(Debug)]
pub(crate) struct Hit {
    /// `path:line`.
    pub(crate) place: String,
    pub(crate) what: String,
}

fn hit(file: &Source, line: usize, what: impl Into<String>) -> Hit {
    Hit { place: format!("{}:{line}", file.path), what: what.into() }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Lines of `code` that say one of `banned` as a whole word.
fn lines_saying<'a>(
    code: &'a str,
    banned: &'a [&'a str],
) -> impl Iterator<Item = (usize, &'a str)> {
    words(code)
        .filter(|(_, word)| banned.contains(word))
        .map(|(at, word)| (line_at(code, at), word))
}

// Who may import whom.

/// The rooms, lowest first. A room imports from lines above its own, and from its own line unless
/// that is one of `APART`.
const LAYERS: &[&[&str]] = &[
    &["error", "logger", "options", "value", "sync", "clock", "json_text"],
    &["engine", "write_batch", "scan"],
    &["store/location", "store/checksum", "store/disk", "store/record", "store/stats"],
    &[
        "store/names",
        "store/expiring",
        "store/key_hash",
        "store/prefetch",
        "store/scratch",
        "store/tail",
        "engine_dir",
    ],
    &["store/old_logs", "store/log_file"],
    &["store/segment", "store/keydir", "store/key_order", "store/reserve"],
    &["store/sift"],
    &["store/segments", "store/hint", "store/manifest"],
    &["store/survey", "store/loading", "store/log_end"],
    &["store/verify", "store/listing"],
    &[
        "store/writer",
        "store/recovery",
        "store/read_only",
        "store/compaction",
        "store/checkpoint",
        "store/repair",
        "store/walk",
    ],
    &["store", "sled_engine"],
    &["any_engine", "dump", "store/upkeep"],
    &["thread_pool"],
    &["server", "client", "ffi"],
    &["fuzzing"],
];

/// Lines whose rooms never import each other.
const APART: &[&str] = &["store/writer", "store"];

/// Rooms that may use less than everything below them.
const NARROW: &[(&str, &[&str])] = &[
    ("thread_pool", &["error", "options", "sync"]),
    ("server", &["error", "options", "sync", "value", "engine", "write_batch", "thread_pool"]),
    ("client", &["error", "options", "sync", "value", "server"]),
    (
        "ffi",
        &[
            "error",
            "options",
            "sync",
            "value",
            "engine",
            "write_batch",
            "scan",
            "any_engine",
            "thread_pool",
            "server",
        ],
    ),
];

fn level(room: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&room))
}

fn may_import(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if let Some((_, allowed)) = NARROW.iter().find(|(room, _)| *room == from) {
        return allowed.contains(&to);
    }
    match (level(from), level(to)) {
        (Some(from_level), Some(to_level)) => {
            let apart = APART.iter().any(|room| LAYERS[from_level].contains(room));
            to_level < from_level || (to_level == from_level && !apart)
        }
        _ => false,
    }
}

/// The module that a file of `src` is: `src/store/disk.rs` is `store disk`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// The room that a module path leads to, if its names are those of modules.
fn room_of(module: &[String]) -> Option<String> {
    let deep = module.get(..2).map(|two| two.join("/"));
    let deep = deep.filter(|room| level(room).is_some());
    deep.or_else(|| module.first().filter(|room| level(room).is_some()).cloned())
}

/// What `lib.rs` re-exports: name to room.
fn reexports(tree: &Tree) -> BTreeMap<String, String> {
    let Some(lib) = tree.get("src/lib.rs") else { return BTreeMap::new() };
    let mut found = Vec::new();
    for (at, _) in words(&lib.live).filter(|(_, word)| *word == "use") {
        path_tree(&lib.live, at + "use".len(), &mut Vec::new(), &mut found);
    }
    let rooms = found.iter().filter_map(|path| Some((path.last()?.clone(), room_of(path)?)));
    rooms.collect()
}

pub(crate) fn rooms_import_only_from_below(tree: &Tree) -> Vec<Hit> {
    let reexports = reexports(tree);
    let mut hits = Vec::new();
    for file in tree.src().filter(|file| file.path != "src/lib.rs") {
        let module = module_of(&file.path);
        if module.first().is_some_and(|first| first == "bin") {
            continue;
        }
        let Some(from) = room_of(&module) else {
            hits.push(hit(file, 1, "has no line in the layer table; give it one (ARCHITECTURE)"));
            continue;
        };
        for (line, path) in paths(&file.live, &["crate", "super"]) {
            let up = path.iter().take_while(|part| *part == "super").count();
            let kept = if up == 0 { 0 } else { module.len().saturating_sub(up) };
            let names = path.iter().skip(up.max(1)).filter(|name| *name != "self").cloned();
            let target: Vec<String> = module[..kept].iter().cloned().chain(names).collect();
            if target.is_empty() {
                continue;
            }
            let to = room_of(&target).or_else(|| reexports.get(&target[0]).cloned());
            let what = match to {
                Some(to) if may_import(&from, &to) => continue,
                Some(to) => format!("{from} imports {to}; it may use only what lies below it"),
                None => format!("{} is of no known room; name its module", path.join("::")),
            };
            hits.push(hit(file, line, what));
        }
    }
    hits
}

// What is absent.

pub(crate) fn the_contract_knows_no_engine(tree: &Tree) -> Vec<Hit> {
    let engines = ["KvStore", "SledKvsEngine", "AnyEngine", "sled", "Segment", "Keydir"];
    tree.get("src/engine.rs").map_or(Vec::new(), |file| {
        let said = lines_saying(&file.live, &engines);
        said.map(|(line, word)| hit(file, line, format!("says {word}; say it by trait"))).collect()
    })
}

pub(crate) fn server_and_client_know_no_store(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.src() {
        if !matches!(room_of(&module_of(&file.path)).as_deref(), Some("server" | "client")) {
            continue;
        }
        for (at, word) in words(&file.live) {
            let is_atomic_store = word == "store" && file.live[..at].ends_with('.');
            let known = ["store", "sled", "Segment", "KvStore", "SledKvsEngine"].contains(&word);
            if known && !is_atomic_store {
                let what = format!("says {word}; a server knows only `KvsEngine`");
                hits.push(hit(file, line_at(&file.live, at), what));
            }
        }
    }
    hits
}

pub(crate) fn only_the_disk_room_touches_files(tree: &Tree) -> Vec<Hit> {
    let asking = [
        ".exists()",
        ".is_dir()",
        ".is_file()",
        ".read_dir()",
        ".metadata()",
        ".canonicalize()",
        ".try_exists()",
        ".symlink_metadata()",
    ];
    let mut hits = Vec::new();
    for file in tree.src() {
        // `engine_dir` looks at names before any engine, and so any disk, is chosen.
        if file.path == "src/store/disk.rs"
            || file.path == "src/engine_dir.rs"
            || file.path.starts_with("src/store/disk/")
            || file.path.starts_with("src/bin/")
        {
            continue;
        }
        let todo = "ask `store/disk.rs`, the one door to the file system";
        for (line, path) in paths(&file.live, &["std"]) {
            if path.iter().any(|part| part == "fs") {
                hits.push(hit(file, line, format!("uses {}; {todo}", path.join("::"))));
            }
        }
        for (line, text) in numbered(&file.live) {
            if let Some(call) = asking.iter().find(|call| text.contains(**call)) {
                hits.push(hit(file, line, format!("calls `{call}`; {todo}")));
            }
        }
    }
    hits
}

const UNSAFE_ROOMS: &[&str] = &[
    "src/store/disk.rs",
    "src/store/log_file.rs",
    "src/store/prefetch.rs",
    "src/store/checksum.rs",
    "src/sync.rs",
    "src/sync/checked_epoch.rs",
    "src/value.rs",
    "src/ffi.rs",
    "src/server/socket.rs",
];

pub(crate) fn unsafe_stays_in_its_rooms(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.src() {
        if UNSAFE_ROOMS.contains(&&*file.path) || file.path.starts_with("src/ffi/") {
            continue;
        }
        for (line, _) in lines_saying(&file.code, &["unsafe"]) {
            hits.push(hit(file, line, "unsafe outside its rooms; use what disk or sync offers"));
        }
    }
    hits
}

pub(crate) fn only_format_rooms_make_disk_bytes(tree: &Tree) -> Vec<Hit> {
    let makers = ["record", "checksum", "hint", "manifest", "segment"];
    // Memory's own order belongs to no format; these move bytes by words.
    let movers = ["tail", "disk"];
    let calls = [
        "to_le_bytes",
        "from_le_bytes",
        "to_be_bytes",
        "from_be_bytes",
        "to_ne_bytes",
        "from_ne_bytes",
    ];
    let mut hits = Vec::new();
    for file in tree.src() {
        let module = module_of(&file.path);
        let is_maker = module.get(1).is_some_and(|room| makers.contains(&room.as_str()));
        if module.first().is_none_or(|first| first != "store") || is_maker {
            continue;
        }
        let is_mover = module.get(1).is_some_and(|room| movers.contains(&room.as_str()));
        for (line, word) in lines_saying(&file.live, &calls) {
            if is_mover && word.ends_with("ne_bytes") {
                continue;
            }
            let what = format!("calls {word}; bytes of a format belong to {}", makers.join(", "));
            hits.push(hit(file, line, what));
        }
    }
    hits
}

pub(crate) fn only_names_knows_file_names(tree: &Tree) -> Vec<Hit> {
    let marks = ["MANIFEST", "LOCK", "RESERVE", "SNAPSHOT", "lost+found", ".log", ".hint", ".seg"];
    let mut hits = Vec::new();
    for file in tree.src() {
        let room = room_of(&module_of(&file.path)).unwrap_or_default();
        if !room.starts_with("store") || room == "store/names" {
            continue;
        }
        for (line, string) in &file.strings {
            // A name has no blank and no escape: that is a message or a magic number.
            let is_plain = !string.contains([' ', '\\']);
            let is_name = is_plain && marks.iter().any(|mark| string.contains(mark));
            if is_name {
                let what = format!("spells the file name {string:?}; take it from store/names.rs");
                hits.push(hit(file, *line, what));
            }
        }
    }
    hits
}

// Shape.

pub(crate) fn files_are_short(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.src() {
        let blank_in_live = |line: &str| line.trim().is_empty();
        let lines = file.code.lines().zip(file.live.lines());
        // Comments count; lines of tests do not.
        let tests = lines.filter(|(code, live)| !blank_in_live(code) && blank_in_live(live));
        let count = file.text.lines().count() - tests.count();
        if count > 600 {
            hits.push(hit(file, 1, format!("{count} lines without tests, over 600; split it")));
        }
    }
    hits
}

pub(crate) fn functions_are_short(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.rust() {
        for (at, _) in words(&file.code).filter(|(_, word)| *word == "fn") {
            let named = file.code[at + 2..].starts_with(' ');
            let Some(body) = item_body(&file.code, at).filter(|_| named) else { continue };
            let count = file.code[at..body.end].lines().count();
            if count > 70 {
                let what = format!("function of {count} lines, over 70; split it by what it does");
                hits.push(hit(file, line_at(&file.code, at), what));
            }
        }
    }
    hits
}

pub(crate) fn lines_are_short(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.rust() {
        let long = numbered(&file.text).filter(|(_, line)| line.chars().count() > 100);
        hits.extend(long.map(|(line, _)| hit(file, line, "over 100 columns; wrap it")));
    }
    hits
}

pub(crate) fn rust_is_ascii(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.rust() {
        let other = numbered(&file.text).filter(|(_, line)| !line.is_ascii());
        hits.extend(other.map(|(line, _)| hit(file, line, "not ASCII; write it as an escape")));
    }
    hits
}

pub(crate) fn every_source_file_says_what_it_is(tree: &Tree) -> Vec<Hit> {
    let headless = tree.src().filter(|file| !file.text.starts_with("//! "));
    headless.map(|file| hit(file, 1, "no module head; begin with `//!`: what it is")).collect()
}

// Words.

/// Text that people write, this checker excepted: it has to say the words it bans.
fn prose_and_code(tree: &Tree) -> impl Iterator<Item = &Source> {
    tree.files.iter().filter(|file| {
        let is_text = ["rs", "md", "py", "c", "h", "cpp", "toml", "sh"];
        let has_known = is_text.iter().any(|extension| has_extension(&file.path, extension));
        (has_known || file.path == "Makefile" || file.path.starts_with(".ci/"))
            && !file.path.starts_with("tests/tidy")
    })
}

pub(crate) fn no_debt_is_left_in_the_text(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in prose_and_code(tree) {
        for (line, word) in lines_saying(&file.text, &["TODO", "FIXME", "XXX", "HACK"]) {
            hits.push(hit(file, line, format!("says {word}; do it, or file an issue")));
        }
        for (line, text) in numbered(&file.code) {
            let left = ["dbg!(", "todo!(", "unimplemented!(", "#[ignore"];
            if let Some(left) = left.iter().find(|left| text.contains(**left)) {
                hits.push(hit(file, line, format!("`{left}` left behind; finish it")));
            }
        }
    }
    hits
}

/// Words of other designs, and ours for the same thing.
const SYNONYMS: &[(&str, &str)] = &[
    ("memtable", "keydir"),
    ("sstable", "segment"),
    ("datafile", "segment"),
    ("vacuum", "compaction"),
    ("wal", "segment"),
    ("hintfile", "hint"),
];

/// The same, in the storage rooms only; elsewhere they are plain English.
const STORE_SYNONYMS: &[(&str, &str)] =
    &[("merge", "compaction"), ("merged", "compacted"), ("merging", "compaction")];

pub(crate) fn one_word_means_one_thing(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    // What drives another store says that store's words.
    let is_ours = |file: &&Source| {
        !has_extension(&file.path, "md") && !file.path.starts_with("benches/peers/src/stores/")
    };
    for file in prose_and_code(tree).filter(is_ours) {
        let in_store = file.path.starts_with("src/store");
        let own: &[_] = if in_store { STORE_SYNONYMS } else { &[] };
        for (at, word) in words(&file.text) {
            let lower = word.to_ascii_lowercase();
            if let Some((_, ours)) = SYNONYMS.iter().chain(own).find(|(word, _)| *word == lower) {
                let what = format!("says {word}; our word is {ours} (ARCHITECTURE, vocabulary)");
                hits.push(hit(file, line_at(&file.text, at), what));
            }
        }
    }
    hits
}

pub(crate) fn no_path_of_one_machine(tree: &Tree) -> Vec<Hit> {
    let homes = ["/root/", "/home/", "/Users/"];
    let mut hits = Vec::new();
    for file in tree.files.iter().filter(|file| !file.path.starts_with("tests/tidy")) {
        for (line, text) in numbered(&file.text) {
            if let Some(home) = homes.iter().find(|home| text.contains(**home)) {
                hits.push(hit(file, line, format!("names {home}; only one machine has it")));
            }
            let foreign = text.starts_with("source = ") && !text.contains("\"registry+");
            if foreign && file.path == "Cargo.lock" {
                hits.push(hit(file, line, "a crate from no registry; replace it"));
            }
        }
    }
    hits
}

/// What may stand in the root of the repository.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "bindings",
    "build.rs",
    "examples",
    "ffi-tests",
    "fuzz",
    "include",
    "packaging",
    "src",
    "tests",
];

pub(crate) fn the_root_holds_only_what_it_should(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in &tree.files {
        let top = file.path.split('/').next().unwrap_or_default();
        let is_settings = top == file.path && has_extension(top, "toml");
        if !TOP_LEVEL.contains(&top) && !is_settings {
            hits.push(hit(file, 1, "belongs in one of the folders, not in the root"));
        }
        if file.path.ends_with("/mod.rs") {
            hits.push(hit(file, 1, "module files are `foo.rs` beside `foo/`; rename it"));
        }
    }
    hits
}

// Justifications.

/// Whether `word` may be the beginning of something that needs a justification, and which.
fn unsafe_needs(code: &str, at: usize) -> Option<&'static str> {
    let rest = code[at + "unsafe".len()..].trim_start();
    let after_extern = rest
        .strip_prefix("extern")
        .map_or(rest, |rest| rest.trim_start().trim_start_matches(['"', ' ', 'C']));
    match after_extern {
        // `#[unsafe(no_mangle)]`: the symbol names are a test of their own.
        _ if rest.starts_with('(') => None,
        rest if rest.starts_with("fn ") || rest.starts_with("trait ") => Some("# Safety"),
        // A type, not a promise.
        rest if rest.starts_with("fn") => None,
        _ => Some("SAFETY:"),
    }
}

/// Whether the lines above `line` justify it: one justification serves one `unsafe`.
fn is_justified(file: &Source, line: usize, needs: &str) -> bool {
    let text: Vec<&str> = file.text.lines().take(line).collect();
    let code: Vec<&str> = file.code.lines().take(line).collect();
    let mut above = (0..line).rev();
    if needs == "# Safety" {
        let is_head = |at: &usize| {
            let text = text[*at].trim_start();
            text.starts_with("//") || text.starts_with('#') || code[*at].trim().is_empty()
        };
        let _ = above.next();
        return above
            .take_while(is_head)
            .any(|at| text[at].contains("# Safety") || text[at].contains("SAFETY:"));
    }
    let says_unsafe = |at: usize| lines_saying(code[at], &["unsafe"]).next().is_some();
    above
        .take_while(|&at| at + 12 >= line && (at + 1 == line || !says_unsafe(at)))
        .any(|at| text[at].contains("SAFETY:"))
}

pub(crate) fn every_unsafe_is_justified(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.rust() {
        for (at, _) in words(&file.code).filter(|(_, word)| *word == "unsafe") {
            let line = line_at(&file.code, at);
            match unsafe_needs(&file.code, at) {
                Some(needs) if !is_justified(file, line, needs) => {
                    let what = format!("no `{needs}` above this unsafe; say why it is sound");
                    hits.push(hit(file, line, what));
                }
                _ => {}
            }
        }
    }
    hits
}

const ORDERINGS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

pub(crate) fn every_atomic_ordering_has_its_reason(tree: &Tree) -> Vec<Hit> {
    let mut hits = Vec::new();
    for file in tree.src() {
        let all: Vec<_> = words(&file.live).collect();
        for (index, &(at, ordering)) in all.iter().enumerate() {
            let line = line_at(&file.live, at);
            let is_import = file.live.lines().nth(line - 1).is_some_and(|code| {
                let code = code.trim_start();
                code.starts_with("use ") || code.starts_with("pub(crate) use ")
            });
            if !ORDERINGS.contains(&ordering) || is_import {
                continue;
            }
            // The reason may stand with any use of the same atomic, and name the other side of
            // the pair: it is one for all of them.
            let atomic = atomic_before(&all[..index]);
            let uses = all.iter().filter(|(_, word)| Some(*word) == atomic);
            let mut lines = uses.map(|&(at, _)| line_at(&file.live, at)).chain([line]);
            if !lines.any(|line| is_reasoned_above(file, line)) {
                let what = format!("{ordering} without its reason; name the pairing in a comment");
                hits.push(hit(file, line, what));
            }
        }
    }
    hits
}

/// The name of the atomic that the last call in `before` is made on.
fn atomic_before<'a>(before: &[(usize, &'a str)]) -> Option<&'a str> {
    let is_call = |word: &str| {
        ["load", "store", "swap"].contains(&word)
            || word.starts_with("fetch_")
            || word.starts_with("compare_exchange")
    };
    let call = before.iter().rposition(|(_, word)| is_call(word))?;
    before.get(call.checked_sub(1)?).map(|(_, word)| *word).filter(|word| word.len() > 1)
}

/// Whether a comment on `line` or on the twelve above it names an ordering.
fn is_reasoned_above(file: &Source, line: usize) -> bool {
    let lines = file.text.lines().zip(file.code.lines()).take(line);
    // A comment is what the text has beyond the code.
    lines.skip(line.saturating_sub(13)).any(|(text, code)| {
        let comment = &text[code.trim_end().len()..];
        words(comment).any(|(_, said)| ORDERINGS.contains(&said))
    })
}

// What must be said elsewhere too.

pub(crate) fn every_option_is_in_the_readme(tree: &Tree) -> Vec<Hit> {
    let Some(options) = tree.get("src/options.rs") else { return Vec::new() };
    let readme = tree.get("README.md").map_or("", |file| &file.text);
    let mut hits = Vec::new();
    let mut seen = 0;
    for (line, text) in numbered(&options.live) {
        let Some(rest) = text.trim_start().strip_prefix("pub fn ") else { continue };
        let Some((name, _)) = rest.split_once("(mut self") else { continue };
        seen += 1;
        if !readme.lines().any(|row| row.starts_with(&format!("| `{name}"))) {
            hits.push(hit(options, line, format!("`{name}` has no row in README's option table")));
        }
    }
    if seen == 0 {
        hits.push(hit(options, 1, "no builder method found; this rule has gone blind"));
    }
    hits
}

/// Of each long test README says how often it was done.
pub(crate) fn every_soak_is_in_the_readme(tree: &Tree) -> Vec<Hit> {
    let Some(makefile) = tree.get("Makefile") else { return Vec::new() };
    let readme = tree.get("README.md").map_or("", |file| &file.text);
    let targets = numbered(&makefile.text).filter_map(|(line, text)| {
        let (name, _) = text.split_once(':').filter(|(name, _)| name.starts_with("soak-"))?;
        Some((line, name))
    });
    let has_row = |name: &str| readme.lines().any(|row| row.starts_with(&format!("| `{name}` |")));
    let missing = targets.filter(|(_, name)| !has_row(name));
    missing
        .map(|(line, name)| hit(makefile, line, format!("README has no row of {name}")))
        .collect()
}

pub(crate) fn the_map_shows_every_room(tree: &Tree) -> Vec<Hit> {
    let Some(map) = tree.get("ARCHITECTURE.md") else { return Vec::new() };
    let mut hits = Vec::new();
    for file in tree.src() {
        let name = file.path.trim_start_matches("src/");
        if !map.text.contains(&format!("`{name}`")) {
            hits.push(hit(file, 1, "not in the code map; give it its lines in ARCHITECTURE.md"));
        }
    }
    for (line, text) in numbered(&map.text) {
        // What stands between backticks and ends like a file name, is one.
        for name in text.split('`').skip(1).step_by(2).filter(|name| has_extension(name, "rs")) {
            let is_there = [format!("src/{name}"), name.to_owned()];
            if !is_there.iter().any(|path| tree.get(path).is_some()) {
                hits.push(hit(map, line, format!("{name} is no file; mend the map")));
            }
        }
    }
    hits
}

/// ARCHITECTURE names tests as proof. What has three underscores between backticks is such a name,
/// or that of another function.
pub(crate) fn tests_that_are_named_are_there(tree: &Tree) -> Vec<Hit> {
    let Some(map) = tree.get("ARCHITECTURE.md") else { return Vec::new() };
    let is_defined = |name: &str| {
        let defines = |text: &str, keyword: &str| {
            let head = format!("{keyword} {name}");
            let mut ends = text.match_indices(&head).map(|(at, head)| &text[at + head.len()..]);
            ends.any(|rest| rest.starts_with(['(', '<']))
        };
        let all = tree.files.iter().filter(|file| !has_extension(&file.path, "md"));
        let keywords = ["fn", "def", "void"];
        all.into_iter().any(|file| keywords.iter().any(|keyword| defines(&file.text, keyword)))
    };
    let is_name = |name: &&str| {
        let is_part = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
        name.chars().all(is_part) && name.matches('_').count() >= 3
    };
    let mut hits = Vec::new();
    for (line, text) in numbered(&map.text) {
        for name in text.split('`').skip(1).step_by(2).filter(is_name) {
            if !is_defined(name) {
                hits.push(hit(map, line, format!("`{name}` is no function; mend the text")));
            }
        }
    }
    hits
}

/// The functions that a C header declares.
fn declared(header: &Source) -> BTreeSet<String> {
    words(&header.code)
        .filter(|(at, word)| {
            word.starts_with("kvs_") && header.code[at + word.len()..].trim_start().starts_with('(')
        })
        .map(|(_, word)| word.to_owned())
        .collect()
}

pub(crate) fn every_c_function_is_tested_and_bound(tree: &Tree) -> Vec<Hit> {
    let Some(header) = tree.get("include/kvs.h") else {
        let what = "missing; generate it with cbindgen".to_owned();
        return vec![Hit { place: "include/kvs.h:1".to_owned(), what }];
    };
    let said_in = |is_there: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        let files = tree.files.iter().filter(|file| is_there(&file.path));
        files.flat_map(|file| words(&file.text).map(|(_, word)| word.to_owned())).collect()
    };
    let c_tests = said_in(&|path| path.starts_with("ffi-tests/"));
    let python = said_in(&|path| path.starts_with("bindings/python/") && path.ends_with("_abi.py"));
    let functions = declared(header);
    let mut hits = Vec::new();
    for name in &functions {
        for (said, place) in [(&c_tests, "a C test"), (&python, "bindings/python's _abi.py")] {
            if !said.contains(name) {
                let at = header.code.find(name.as_str()).unwrap_or(0);
                let line = line_at(&header.code, at);
                hits.push(hit(header, line, format!("`{name}` is not in {place}; add it")));
            }
        }
    }
    if functions.is_empty() {
        hits.push(hit(header, 1, "declares nothing; this rule has gone blind"));
    }
    hits
}

/// Exported functions in which there is nothing that could panic: static texts and numbers, and
/// what tells of the last failure, which must not become one itself.
const NOTHING_TO_CATCH: [&str; 6] = [
    "kvs_version",
    "kvs_version_number",
    "kvs_status_name",
    "kvs_status_text",
    "kvs_last_error",
    "kvs_last_os_error",
];

/// Where the call of one of `names` is that ends `body`, up to its closing brace.
fn last_call(body: &str, names: &BTreeSet<&str>) -> Option<usize> {
    words(body)
        .filter(|(at, word)| names.contains(word) && body[at + word.len()..].starts_with('('))
        .find(|(at, word)| {
            let open = at + word.len();
            let mut depth = 0_usize;
            let close = body[open..].bytes().position(|byte| {
                depth = match byte {
                    b'(' => depth + 1,
                    b')' => depth - 1,
                    _ => depth,
                };
                depth == 0
            });
            let rest = close.map(|close| &body[open + close + 1..]);
            rest.is_some_and(|rest| rest.trim_matches([' ', '\n', ';', '}']).is_empty())
        })
        .map(|(at, _)| at)
}

/// The body of an exported function is one call that catches panics, of `boundary` or of a helper
/// whose own body is one; what stands before it takes pointers apart and calls nothing else.
pub(crate) fn c_functions_catch_panics(tree: &Tree) -> Vec<Hit> {
    let files: Vec<_> = tree.src().filter(|file| file.path.starts_with("src/ffi/")).collect();
    let functions = |file: &'_ Source| -> Vec<(usize, String, String)> {
        let named = words(&file.live).filter(|(_, word)| *word == "fn");
        let named = named.filter_map(|(at, _)| {
            let (_, name) = words(&file.live[at + 2..]).next()?;
            let body = item_body(&file.live, at)?;
            Some((at, name.to_owned(), file.live[body].to_owned()))
        });
        named.collect()
    };
    let of_boundary = BTreeSet::from(["boundary", "boundary_or"]);
    let all: Vec<_> = files.iter().map(|file| (*file, functions(file))).collect();
    let helpers = all.iter().flat_map(|(_, functions)| functions);
    let helpers = helpers.filter(|(_, name, body)| {
        !name.starts_with("kvs_") && last_call(body, &of_boundary).is_some()
    });
    let mut catching = of_boundary.clone();
    catching.extend(helpers.map(|(_, name, _)| name.as_str()));
    let mut hits = Vec::new();
    for (file, functions) in &all {
        for (at, name, body) in functions {
            // A literal's inside is blank.
            let is_exported = file.live[..*at].ends_with("extern \" \" ");
            if !is_exported
                || !name.starts_with("kvs_")
                || NOTHING_TO_CATCH.contains(&name.as_str())
            {
                continue;
            }
            let line = line_at(&file.live, *at);
            let Some(call) = last_call(body, &catching) else {
                hits.push(hit(file, line, format!("`{name}` does not end in `boundary(...)`")));
                continue;
            };
            // Up to a closure, which is called within.
            let before = body[..call].split('|').next().unwrap_or_default();
            let called = words(before).find(|(at, word)| {
                before[at + word.len()..].starts_with('(')
                    && !["take_back", "as_ref", "as_mut", "Some"].contains(word)
            });
            if let Some((_, called)) = called {
                let what = format!("`{name}` calls `{called}` where a panic would unwind into C");
                hits.push(hit(file, line, what));
            }
        }
    }
    hits
}

/// Options of Rust that C has in another form: the logger of all stores, the argument of
/// `kvs_server_stop`, and what would call back into the program.
const NOT_FOR_C: [&str; 3] = ["log_to", "drain_timeout", "on_progress"];

pub(crate) fn every_option_is_one_of_c(tree: &Tree) -> Vec<Hit> {
    let header = tree.get("include/kvs.h").map_or("", |file| &file.code);
    let mut hits = Vec::new();
    for (path, prefix) in
        [("src/options.rs", "KVS_OPT_"), ("src/server/limits.rs", "KVS_OPT_SERVER_")]
    {
        let Some(file) = tree.get(path) else { continue };
        for (line, text) in numbered(&file.live) {
            let Some(rest) = text.trim_start().strip_prefix("pub fn ") else { continue };
            let Some((name, _)) = rest.split_once("(mut self") else { continue };
            let number = format!("{prefix}{}", name.to_uppercase());
            let is_there = words(header).any(|(_, word)| {
                word.strip_prefix(number.as_str()).is_some_and(|end| end.is_empty() || end == "_MS")
            });
            if !is_there && !NOT_FOR_C.contains(&name) {
                hits.push(hit(file, line, format!("`{name}` has no {number} in kvs.h; add one")));
            }
        }
    }
    hits
}

pub(crate) fn every_limit_has_a_test(tree: &Tree) -> Vec<Hit> {
    let tests: String = tree
        .files
        .iter()
        .filter_map(|file| match file.path.split('/').next() {
            Some("src") => Some(file.test_code()),
            Some("tests") if file.path.starts_with("tests/it/") => Some(file.code.clone()),
            // The limits that the C ABI repeats.
            Some("ffi-tests") => Some(file.text.clone()),
            _ => None,
        })
        .collect();
    let tested: BTreeSet<&str> = words(&tests).map(|(_, word)| word).collect();
    let mut hits = Vec::new();
    for file in tree.src() {
        for (line, text) in numbered(&file.live) {
            let Some(rest) = text.trim_start().strip_prefix("pub const ") else { continue };
            let name = rest.split(':').next().unwrap_or_default().trim();
            let is_limit = name.ends_with("_MAX") && !name.starts_with("KVS_OPT_");
            if is_limit && !tested.contains(name) {
                let what = format!("{name} is in no test; test at the limit and one above");
                hits.push(hit(file, line, what));
            }
        }
    }
    hits
}
