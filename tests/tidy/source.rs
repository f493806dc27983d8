//! Source text taken apart just far enough to be judged: comments, literals and test items are told
//! from code, without a parser. Lines and columns never move, so a hit can name its line.

use std::ops::Range;
use std::path::Path;
use std::{env, fs};

/// One file of the repository.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` without comments and without the insides of literals (blanks stand in their place).
    pub(crate) code: String,
    /// `code` without the items under `#[cfg(test)]`.
    pub(crate) live: String,
    /// String literals outside tests, each with its line.
    pub(crate) strings: Vec<(usize, String)>,
}

/// All files that are text.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<Source>,
}

impl Tree {
    /// The repository this test was built from.
    pub(crate) fn of_repository() -> Self {
        let mut tree = Self::default();
        // Asked at run time: a build cache may have moved with the sources.
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        tree.walk(Path::new(&root), "");
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| Source::new(path, text)).collect() }
    }

    fn walk(&mut self, dir: &Path, prefix: &str) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{prefix}{name}");
            if is_made_by_tools(&name) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                self.walk(&entry.path(), &format!("{path}/"));
            } else {
                // What is not UTF-8 (a store kept as a fixture) is judged by its name alone.
                let text = String::from_utf8(fs::read(entry.path()).unwrap()).unwrap_or_default();
                self.files.push(Source::new(&path, &text));
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// Rust files of the library and its programs.
    pub(crate) fn src(&self) -> impl Iterator<Item = &Source> {
        self.rust().filter(|file| file.path.starts_with("src/"))
    }
}

/// What `.gitignore` leaves out, and `.git` itself.
fn is_made_by_tools(name: &str) -> bool {
    matches!(
        name,
        ".git" | "target" | "__pycache__" | ".mypy_cache" | ".pytest_cache" | ".ruff_cache"
    ) || name.ends_with(".egg-info")
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut source = Self { path: path.into(), text: text.into(), ..Self::default() };
        if source.is_rust() || has_extension(path, "h") {
            let (code, strings) = without_comments_and_literals(text);
            source.live = without_test_items(&code);
            if path.ends_with("/tests.rs") || path.starts_with("src/") && path.contains("/tests/") {
                // A module of tests in files of its own.
                source.live = code.chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
            }
            let live = source.live.clone();
            let is_live = |at: &usize| live.as_bytes()[*at] == b'"';
            source.strings = strings
                .into_iter()
                .filter(|(range, _)| is_live(&(range.end - 1)) || is_live(&range.start))
                .map(|(range, string)| (line_at(text, range.start), string))
                .collect();
            source.code = code;
        }
        source
    }

    pub(crate) fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// The code that only tests run: `code` without `live`.
    pub(crate) fn test_code(&self) -> String {
        let chars = self.code.chars().zip(self.live.chars());
        chars.map(|(code, live)| if code == live && code != '\n' { ' ' } else { code }).collect()
    }
}

pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The line that holds byte `at`, counted from 1.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Identifiers, keywords and numbers, each with the byte it begins at.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = code.as_bytes();
        at += bytes[at..].iter().position(|&byte| is_word_byte(byte))?;
        let start = at;
        at += bytes[at..].iter().take_while(|&&byte| is_word_byte(byte)).count();
        Some((start, &code[start..at]))
    })
}

/// Blanks comments and the insides of literals; returns the strings it met.
fn without_comments_and_literals(text: &str) -> (String, Vec<(Range<usize>, String)>) {
    let mut code = text.as_bytes().to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let after_word = at > 0 && is_word_byte(text.as_bytes()[at - 1]);
        if let Some(len) = comment_len(rest) {
            blank(&mut code[at..at + len]);
            at += len;
        } else if let Some((open, len)) =
            string_len(rest).filter(|_| !after_word || rest[0] == b'"')
        {
            let inside = at + open..at + len - 1;
            strings.push((at + open - 1..at + len, text[inside.clone()].to_owned()));
            blank(&mut code[inside]);
            at += len;
        } else if let Some(len) = char_len(rest) {
            blank(&mut code[at + 1..at + len - 1]);
            at += len;
        } else {
            at += 1;
        }
    }
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn comment_len(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        return Some(rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while rest.starts_with(b"/*") && at < rest.len() {
        match rest.get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") if depth == 1 => return Some(at + 2),
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    (at > 0).then_some(rest.len())
}

/// Where a string literal's inside begins, and its whole length, prefix and quotes included.
fn string_len(rest: &[u8]) -> Option<(usize, usize)> {
    let prefix = rest.iter().take_while(|byte| b"bcr".contains(byte)).count();
    let raw = prefix > 0 && rest[prefix - 1] == b'r';
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix + hashes + 1;
    if prefix > 2 || rest.get(open - 1) != Some(&b'"') || (hashes > 0 && !raw) {
        return None;
    }
    let mut at = open;
    while at < rest.len() {
        match rest[at] {
            b'\\' if !raw => at += 1,
            b'"' if rest[at + 1..].iter().take_while(|&&b| b == b'#').count() >= hashes => {
                // The inside ends at the quote; trailing hashes hold nothing to blank.
                return Some((open, at + 1));
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Length of a character literal; a lifetime is none.
fn char_len(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        return Some(3 + rest.get(3..)?.iter().position(|&byte| byte == b'\'')? + 1);
    }
    // One byte is enough: sources are ASCII, by a rule of their own.
    (rest.get(2) == Some(&b'\'')).then_some(3)
}

/// Blanks every item that carries `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn without_test_items(code: &str) -> String {
    let mut live = code.as_bytes().to_vec();
    for (start, _) in code.match_indices("#[cfg(") {
        let condition = &code[start + "#[cfg(".len()..];
        if condition.starts_with("test)") || condition.starts_with("all(test") {
            let end = item_end(code, start + condition.find(']').unwrap_or(0));
            blank(&mut live[start..end]);
        }
    }
    String::from_utf8(live).expect("only whole ASCII bytes and blanked items change")
}

/// Where the item that begins at or after `start` ends: after its body, or its semicolon.
pub(crate) fn item_end(code: &str, start: usize) -> usize {
    item_body(code, start).map_or(code.len(), |body| body.end)
}

/// The braces of the item at `start`, or the empty range behind its semicolon.
pub(crate) fn item_body(code: &str, start: usize) -> Option<Range<usize>> {
    let mut nesting = 0_usize;
    let mut open = None;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' if open.is_none() => nesting += 1,
            b')' | b']' if open.is_none() => nesting = nesting.saturating_sub(1),
            b';' if open.is_none() && nesting == 0 => return Some(at + 1..at + 1),
            b'{' if open.is_none() => {
                open = Some(at);
                nesting = 1;
            }
            b'{' => nesting += 1,
            b'}' if open.is_some() => {
                nesting -= 1;
                if nesting == 0 {
                    return Some(open?..at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Every path that starts at one of `roots`, groups taken apart: `crate::a::{b, c::d}` is
/// `crate a b` and `crate a c d`. Each comes with its line.
pub(crate) fn paths(code: &str, roots: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (start, word) in words(code) {
        let before = code[..start].trim_end();
        if roots.contains(&word) && !before.ends_with("::") {
            let mut all = Vec::new();
            path_tree(code, start, &mut Vec::new(), &mut all);
            found.extend(all.into_iter().map(|path| (line_at(code, start), path)));
        }
    }
    found
}

/// Reads one path at `at`, with its groups, and returns where it ends.
pub(crate) fn path_tree(
    code: &str,
    mut at: usize,
    prefix: &mut Vec<String>,
    out: &mut Vec<Vec<String>>,
) -> usize {
    let skip = |at: usize| at + code[at..].len() - code[at..].trim_start().len();
    let depth = prefix.len();
    loop {
        at = skip(at);
        if code[at..].starts_with('{') {
            loop {
                at = path_tree(code, at + 1, prefix, out);
                at += code[at..].find([',', '}']).unwrap_or(code.len() - at);
                if !code[at..].starts_with(',') {
                    break;
                }
            }
            prefix.truncate(depth);
            return (at + 1).min(code.len());
        }
        let len = code[at..].bytes().take_while(|&b| is_word_byte(b) || b == b'*').count();
        if len == 0 {
            break;
        }
        prefix.push(code[at..at + len].to_owned());
        at += len;
        let next = skip(at);
        if !code[next..].starts_with("::") {
            break;
        }
        at = next + 2;
    }
    if prefix.len() > depth {
        out.push(prefix.clone());
    }
    prefix.truncate(depth);
    at
}
