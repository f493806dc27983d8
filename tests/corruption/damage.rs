//! What can be done to the files of a store, numbered, so that some of it can be tried as well as
//! all.

use std::path::{Path, PathBuf};

/// One thing done to a copy of a store.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    FlipBit {
        file: PathBuf,
        bit: usize,
    },
    Cut {
        file: PathBuf,
        len: usize,
    },
    /// A page of zeros, as a disk may return it.
    Zeros {
        file: PathBuf,
        offset: usize,
    },
    Append {
        file: PathBuf,
        what: &'static str,
    },
    Remove {
        files: Vec<PathBuf>,
    },
    /// Each has the content of the other.
    Swap {
        one: PathBuf,
        other: PathBuf,
    },
    /// A file, or a name that was free, has the content of another.
    Double {
        from: PathBuf,
        to: PathBuf,
    },
    /// The same file of another store.
    Foreign {
        file: PathBuf,
    },
}

/// What a disk may return for a page it has lost.
const PAGE_LEN: usize = 4096;
/// Of room that holds nothing, one bit in so many, and one byte.
const ROOM_STRIDE: usize = 4099;

/// The files of a store, with their content.
pub(crate) struct Files(pub(crate) Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// What lies in `dir`, at any depth, sorted by name.
    pub(crate) fn of(dir: &Path) -> Self {
        let mut files = Vec::new();
        let mut dirs = vec![dir.to_path_buf()];
        while let Some(next) = dirs.pop() {
            for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    dirs.push(entry);
                } else {
                    let name = entry.strip_prefix(dir).unwrap().to_path_buf();
                    files.push((name, std::fs::read(&entry).unwrap()));
                }
            }
        }
        files.sort();
        Self(files)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub(crate) fn write_to(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// The content of the file of that name, or else of another of its kind.
    fn nearest(&self, name: &Path) -> Vec<u8> {
        let kind = |name: &Path| name.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "");
        let other = || self.0.iter().find(|(found, _)| kind(found) == kind(name));
        let bytes = self.get(name).or_else(|| other().map(|(_, bytes)| &bytes[..]));
        bytes.map_or_else(Vec::new, <[u8]>::to_vec)
    }

    fn get(&self, name: &Path) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, bytes)| &bytes[..])
    }
}

/// Whether the byte at `at` cannot matter: in the files that are made long at once, whatever lies
/// in a page of zeros.
fn is_room(name: &Path, bytes: &[u8], at: usize) -> bool {
    let start = at - at % PAGE_LEN;
    let page = &bytes[start..bytes.len().min(start + PAGE_LEN)];
    let is_made_long = ["RESERVE", "TAIL"].contains(&&*name.to_string_lossy());
    is_made_long && page.iter().all(|byte| *byte == 0)
}

/// Everything there is to do to `files`.
pub(crate) fn all(files: &Files) -> Vec<Damage> {
    let mut all = Vec::new();
    for (name, bytes) in &files.0 {
        let file = || name.clone();
        let of_room = |at: &usize| at.is_multiple_of(ROOM_STRIDE) || !is_room(name, bytes, *at);
        let at = (0..bytes.len()).filter(of_room);
        let bits = at.clone().flat_map(|at| 8 * at..8 * at + 8);
        all.extend(bits.map(|bit| Damage::FlipBit { file: file(), bit }));
        all.extend(at.map(|len| Damage::Cut { file: file(), len }));
        let pages = (0..bytes.len()).step_by(PAGE_LEN);
        all.extend(pages.map(|offset| Damage::Zeros { file: file(), offset }));
        let tails = ["zero", "zeros", "ones", "itself"];
        all.extend(tails.map(|what| Damage::Append { file: file(), what }));
        all.push(Damage::Foreign { file: file() });
    }
    // Which files are there: any subset of the first twelve, and each of the others.
    let names: Vec<_> = files.0.iter().map(|(name, _)| name.clone()).collect();
    let (few, many) = names.split_at(names.len().min(12));
    all.extend((1..1_u32 << few.len()).map(|subset| {
        let chosen = few.iter().enumerate().filter(|(number, _)| subset >> number & 1 == 1);
        Damage::Remove { files: chosen.map(|(_, name)| name.clone()).collect() }
    }));
    all.extend(many.iter().map(|name| Damage::Remove { files: vec![name.clone()] }));
    for one in &names {
        for other in names.iter().filter(|other| *other > one) {
            all.push(Damage::Swap { one: one.clone(), other: other.clone() });
        }
        let others = names.iter().filter(|other| *other != one).cloned();
        for to in others.chain(free_names(one)) {
            all.push(Damage::Double { from: one.clone(), to });
        }
    }
    all
}

/// Names that the store might take for its own: those with a number nearby.
fn free_names(name: &Path) -> Vec<PathBuf> {
    let name = name.to_string_lossy();
    let digits = |c: char| c.is_ascii_digit();
    let Some(start) = name.find(digits) else { return Vec::new() };
    let end = name[start..].find(|c| !digits(c)).map_or(name.len(), |len| start + len);
    let number: u64 = name[start..end].parse().unwrap();
    let width = end - start;
    let (head, tail) = (&name[..start], &name[end..]);
    let near = [number.saturating_sub(1), number + 1, number + 2, number + 100];
    near.map(|near| format!("{head}{near:0width$}{tail}").into()).to_vec()
}

impl Damage {
    /// Does it to the copy of `files` in `dir`. `foreign` is another store.
    pub(crate) fn apply(&self, files: &Files, foreign: &Files, dir: &Path) {
        let content = |name: &Path| files.get(name).unwrap().to_vec();
        let write = |name: &Path, bytes: Vec<u8>| std::fs::write(dir.join(name), bytes).unwrap();
        match self {
            Self::FlipBit { file, bit } => {
                let mut bytes = content(file);
                bytes[bit / 8] ^= 1 << (bit % 8);
                write(file, bytes);
            }
            Self::Cut { file, len } => write(file, content(file)[..*len].to_vec()),
            Self::Zeros { file, offset } => {
                let mut bytes = content(file);
                let end = bytes.len().min(offset + PAGE_LEN);
                bytes[*offset..end].fill(0);
                write(file, bytes);
            }
            Self::Append { file, what } => {
                let mut bytes = content(file);
                match *what {
                    "zero" => bytes.push(0),
                    "zeros" => bytes.resize(bytes.len() + PAGE_LEN, 0),
                    "ones" => bytes.resize(bytes.len() + 333, 0xFF),
                    _ => bytes.extend(content(file)),
                }
                write(file, bytes);
            }
            Self::Remove { files } => {
                for file in files {
                    std::fs::remove_file(dir.join(file)).unwrap();
                }
            }
            Self::Swap { one, other } => {
                write(one, content(other));
                write(other, content(one));
            }
            Self::Double { from, to } => write(to, content(from)),
            Self::Foreign { file } => write(file, foreign.nearest(file)),
        }
    }
}
