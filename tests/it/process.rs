//! What tests share that look at time, threads, descriptors and memory, which are those of a whole
//! process on a machine that may be busy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Longest that anything may take that takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `body` in a process of its own, where threads, descriptors and CPU time are counted without
/// those of other tests. `test` is the full name of the calling test; `shell` runs before it.
#[track_caller]
pub(crate) fn in_own_process(test: &str, shell: &str, body: impl FnOnce()) {
    const MARK: &str = "KVS_TEST_IN_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{shell}\nexec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "{test} is no test: {stdout}");
}

pub(crate) fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

pub(crate) fn descriptor_count() -> usize {
    // The listing itself is one.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Tells how much CPU time this process takes. Needs no further descriptor once it is open.
pub(crate) struct CpuClock(File);

impl CpuClock {
    pub(crate) fn open() -> Self {
        Self(File::open("/proc/self/stat").unwrap())
    }

    /// CPU time taken so far, in clock ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let mut stat = [0; 1024];
        let len = self.0.read_at(&mut stat, 0).unwrap();
        let stat = std::str::from_utf8(&stat[..len]).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let fields: Vec<_> = after_name.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

/// A field of `/proc/self/status`, in KiB.
pub(crate) fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
