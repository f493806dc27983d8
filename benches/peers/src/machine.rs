//! What the operating system says of this machine and this process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The machine that figures were measured on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of the directory that the stores were in.
    pub file_system: String,
}

impl Machine {
    pub fn of(dir: &Path) -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal"),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(dir),
        }
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What stands behind the colon of the first line of `path` that begins with `name`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = text(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kilobytes(path: &str, name: &str) -> u64 {
    let said = field(path, name).unwrap_or_default();
    said.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The type of the file system that `dir` is in: that of the longest mount point above it.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = text("/proc/self/mounts");
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), kind.to_owned()))
    });
    above.max_by_key(|(len, _)| *len).map(|(_, kind)| kind).unwrap_or_default()
}

/// The most memory that was ever resident, in bytes; pages of mapped files count.
pub fn resident_bytes_max() -> u64 {
    kilobytes("/proc/self/status", "VmHWM")
}

/// Memory that no file backs, in bytes.
pub fn anonymous_bytes() -> u64 {
    kilobytes("/proc/self/status", "RssAnon")
}

/// Linux counts in ticks of 10 ms for everyone who asks.
const TICK: Duration = Duration::from_millis(10);

fn ticks<'a>(words: impl Iterator<Item = &'a str>) -> Duration {
    let sum: u32 = words.filter_map(|word| word.parse::<u32>().ok()).sum();
    TICK * sum
}

/// Processor time that this process has used, all of its threads together.
pub fn process_time() -> Duration {
    // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th word
    // behind it.
    let stat = text("/proc/self/stat");
    stat.rsplit_once(')')
        .map_or(Duration::ZERO, |(_, rest)| ticks(rest.split_whitespace().skip(11).take(2)))
}

/// Processor time that everything on this machine has used.
pub fn machine_time() -> Duration {
    // cpu user nice system idle iowait irq softirq steal
    let stat = text("/proc/stat");
    let words: Vec<_> = stat.lines().next().unwrap_or_default().split_whitespace().collect();
    let is_busy = |(at, _): &(usize, &&str)| [1, 2, 3, 6, 7, 8].contains(at);
    ticks(words.iter().enumerate().filter(is_busy).map(|(_, word)| *word))
}

/// How long to wait, at most, for a store's background work to end.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Waits until this process has used hardly any processor time for a fifth of a second. Returns
/// how long that took.
pub fn settle() -> Duration {
    let started = Instant::now();
    loop {
        let before = process_time();
        thread::sleep(Duration::from_millis(200));
        if process_time() - before <= TICK || started.elapsed() > SETTLE_MAX {
            return started.elapsed();
        }
    }
}

/// Bytes that the files below `dir` take on the disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
            // Blocks are counted in 512 bytes, whatever the file system's own are.
            Ok(found) => found.blocks() * 512,
            // A file that has just gone takes nothing.
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_the_process_are_known() {
        let machine = Machine::of(Path::new("."));
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(!machine.kernel.is_empty() && !machine.file_system.is_empty(), "{machine:?}");
        assert!(resident_bytes_max() >= anonymous_bytes() && anonymous_bytes() > 0);
    }

    #[test]
    fn work_shows_in_the_times() {
        let (process, machine) = (process_time(), machine_time());
        let started = Instant::now();
        // A busy machine takes its time to let this work for 30 ms.
        while process_time() - process < TICK * 3 || machine_time() - machine < TICK * 3 {
            std::hint::black_box(std::iter::repeat_n(1_u64, 1000).sum::<u64>());
            assert!(started.elapsed() < Duration::from_secs(20), "it does not show");
        }
    }

    #[test]
    fn files_take_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/file"), vec![7; 100_000]).unwrap();
        fs::File::open(dir.path().join("inner/file")).unwrap().sync_all().unwrap();
        let bytes = disk_bytes(dir.path());
        assert!((100_000..150_000).contains(&bytes), "{bytes}");
    }
}
