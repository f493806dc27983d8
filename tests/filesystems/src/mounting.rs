//! File systems made and mounted by the programs that everybody uses for it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system, and how it is mounted.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    mkfs: &'static [&'static str],
    options: &'static str,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "ext4, data=ordered",
        mkfs: &["mkfs.ext4", "-q", "-F", "-J", "size=4"],
        options: "data=ordered,commit=1",
    },
    Kind {
        name: "ext4, data=journal",
        mkfs: &["mkfs.ext4", "-q", "-F", "-J", "size=4"],
        options: "data=journal,commit=1",
    },
    Kind {
        name: "ext4, data=writeback",
        mkfs: &["mkfs.ext4", "-q", "-F", "-J", "size=4"],
        options: "data=writeback,commit=1",
    },
    Kind { name: "xfs", mkfs: &["mkfs.xfs", "-q", "-f", "-K"], options: "nouuid" },
];

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Kind {
    pub(crate) fn make(&self, disk: &Path) -> Result<(), String> {
        run(Command::new(self.mkfs[0]).args(&self.mkfs[1..]).arg(disk))
    }

    pub(crate) fn mount(&self, disk: &Path, dir: &Path) -> Result<MountPoint, String> {
        let options = format!("loop,{}", self.options);
        run(Command::new("mount").args(["-o", &options]).args([disk, dir]))?;
        Ok(MountPoint(dir.to_path_buf()))
    }
}

/// Unmounted when it is dropped.
pub(crate) struct MountPoint(PathBuf);

impl MountPoint {
    pub(crate) fn unmount(self) -> Result<(), String> {
        let dir = self.0.clone();
        std::mem::forget(self);
        // A closed store holds no file open: this does not fail.
        run(Command::new("umount").arg(&dir))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // After a failure: whatever still uses it.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
