//! Real file systems lose power under a store that is written to.
//!
//! ```text
//! store -> ext4 or xfs -> loop device -> a file of this program's own file system (FUSE)
//! ```
//! So every write and every flush that the file system makes is seen, in order. Then, for each
//! flush: the disk as it was, with all that was written until then, and with any blocks of what
//! was written since the flush before, is mounted, and the store opened on it. It must hold the
//! state after some write: not before the last one that was durable, not after the last one begun.
//!
//! `KVS_SOAK_IMAGES` is how many images of each file system are tried (2,000); `KVS_SOAK_SEED`
//! makes other choices; arguments choose file systems by a part of their name. Needs the right to
//! mount, `/dev/fuse` and loop devices. Where something of that is missing, it says so and does
//! nothing.

mod device;
mod image;
mod mounting;
mod workload;

use std::path::Path;
use std::time::Instant;

use kvs::Durability;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use device::Mounted;
use image::Interval;
use mounting::{KINDS, Kind};
use workload::{Content, Workload};

/// Of each interval between two flushes: one image with all of it, and so many with parts.
const PARTS: usize = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Where the images of a run are mounted, and what has come out.
struct Trial<'a> {
    mounted: &'a Mounted,
    kind: &'a Kind,
    dir: &'a Path,
    states: &'a [Content],
    images: usize,
    failures: Vec<String>,
}

impl Trial<'_> {
    /// Mounts the next replay, and compares.
    fn judge(&mut self, interval: &Interval, what: &str) {
        self.images += 1;
        let wrong = match self.look() {
            Ok(content) => {
                let (from, to) = (interval.note.durable, interval.note.attempted);
                let is_allowed = self.states[from..=to].contains(&content);
                (!is_allowed).then(|| {
                    let allowed = &self.states[from..=to];
                    format!("holds {content:?}, none of the states {from} to {to}: {allowed:?}")
                })
            }
            Err(wrong) => Some(wrong),
        };
        self.failures.extend(wrong.map(|wrong| format!("{}, {what}: {wrong}", self.kind.name)));
    }

    fn look(&self) -> Result<Content, String> {
        let replay = self.mounted.replay(self.images);
        let mount = self.kind.mount(&replay, self.dir)?;
        let found = workload::found(self.dir);
        mount.unmount()?;
        found
    }

    /// Loses power at and before each flush.
    fn run(&mut self, intervals: &[Interval], random: &mut SmallRng) {
        for (number, interval) in intervals.iter().enumerate() {
            for part in 0..PARTS {
                // Half of them lose few sectors, so that much is there that depends on what is not.
                let one_in = if part % 2 == 0 { 2 } else { 12 };
                self.mounted.device.lose_power(interval, || !random.random_ratio(1, one_in));
                self.judge(interval, &format!("before flush {number}, part {part}"));
            }
            self.mounted.device.lose_power(interval, || true);
            self.judge(interval, &format!("at flush {number}"));
            self.mounted.device.advance(interval);
        }
    }
}

/// Runs a store on `kind` and tries `images` losses of power. How many were tried, and what failed.
fn try_kind(
    mounted: &Mounted,
    kind: &Kind,
    dir: &Path,
    images: usize,
    durability: Durability,
) -> Result<(usize, Vec<String>), String> {
    let device = &mounted.device;
    let mut random = SmallRng::seed_from_u64(number("KVS_SOAK_SEED", 1));
    device.clear();
    kind.make(&mounted.disk())?;
    let mount = kind.mount(&mounted.disk(), dir)?;
    let before = device.record();
    let mut workload = Workload::new(device, dir, durability, random.next_u64());
    workload.run(images / (PARTS + 1));
    mount.unmount()?;
    let intervals = device.take();
    device.put(before);
    let states = &workload.states;
    let mut trial = Trial { mounted, kind, dir, states, images: 0, failures: Vec::new() };
    trial.run(&intervals, &mut random);
    Ok((trial.images, trial.failures))
}

fn run(mounted: &Mounted, dir: &Path) -> Result<String, String> {
    let wanted = usize::try_from(number("KVS_SOAK_IMAGES", 2000)).expect("a small number");
    let (mut all, mut failed, mut names) = (0, 0, Vec::new());
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |kind: &Kind| asked.is_empty() || asked.iter().any(|a| kind.name.contains(a));
    for kind in KINDS.iter().filter(|kind| is_asked(kind)) {
        let started = Instant::now();
        let (mut images, mut failures) = (0, Vec::new());
        for durability in [Durability::Os, Durability::Sync] {
            let (tried, wrong) = try_kind(mounted, kind, dir, wanted / 2, durability)?;
            images += tried;
            println!("{}: {images} of {wanted} images", kind.name);
            failures.extend(wrong);
        }
        failures.iter().take(5).for_each(|failure| eprintln!("FAILED: {failure}"));
        let (count, seconds) = (failures.len(), started.elapsed().as_secs());
        println!("{}: {images} images, {count} failures, {seconds} s", kind.name);
        all += images;
        failed += count;
        names.push(kind.name);
    }
    let names = names.join("; ");
    Ok(format!("{all} images after a loss of power ({names}); failures: {failed}"))
}

fn main() {
    let dirs = tempfile::tempdir().expect("a directory for temporary files");
    let (fuse, target) = (dirs.path().join("fuse"), dirs.path().join("mount"));
    std::fs::create_dir(&fuse).expect("a directory");
    std::fs::create_dir(&target).expect("a directory");
    let outcome = match Mounted::on(&fuse) {
        Ok(mounted) => run(&mounted, &target),
        Err(error) => Err(format!("no FUSE: {error}")),
    };
    match outcome {
        Ok(line) => {
            println!("soak-filesystems: {line}");
            std::process::exit(i32::from(!line.ends_with("failures: 0")));
        }
        Err(why) => {
            eprintln!("SKIPPED: this machine cannot mount what the test needs: {why}");
            println!("soak-filesystems: SKIPPED, 0 images: {why}; failures: 0");
        }
    }
}
