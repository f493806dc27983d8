//! The workloads: what is done, by how many threads, on which data.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// What a workload does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Makes the data for what follows, unmeasured.
    Load,
    /// New keys in random order, one write each.
    Fill,
    /// New keys in random order, in batches of [`BATCH_LEN`].
    FillBatch,
    /// New keys, each on stable storage when its write returns.
    FillSync,
    /// From a directory that was closed in good order to the value of one key.
    Reopen,
    /// Uniformly random keys that are there.
    Read,
    /// Keys that are not there.
    ReadMissing,
    /// Every pair, in order.
    Scan,
    /// Every pair, in any order.
    Iterate,
    /// Reads, and of a hundred operations so many overwrites, of keys drawn by Zipf's law.
    Mixed { writes_percent: u32 },
    /// Every key once, in random order.
    Overwrite,
    /// Every key once, in random order.
    Delete,
}

impl Kind {
    /// Whether it leaves behind the data that later workloads need.
    pub fn makes_data(self) -> bool {
        matches!(self, Self::Fill | Self::Load)
    }

    /// Whether it needs the data that a fill or a load leaves behind.
    pub fn needs_data(self) -> bool {
        !self.has_own_dir() && !self.makes_data()
    }

    /// Whether it begins with an empty directory of its own.
    pub fn has_own_dir(self) -> bool {
        matches!(self, Self::FillBatch | Self::FillSync)
    }

    /// Whether it changes the store.
    pub fn writes(self) -> bool {
        let reads = [Self::Reopen, Self::Read, Self::ReadMissing, Self::Scan, Self::Iterate]
            .contains(&self);
        !reads
    }
}

/// How many keys and how long values are, as multiples of what the run was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataSet {
    /// As many keys as were asked for, values of 100 bytes.
    Main,
    /// Half as many, values of 1 KiB.
    Kib,
    /// Ten times as many, values of 100 bytes. In the first round only: it takes longest and
    /// varies least.
    Tenfold,
}

impl DataSet {
    pub const ALL: [Self; 3] = [Self::Main, Self::Kib, Self::Tenfold];

    pub fn keys(self, asked: u64) -> u64 {
        match self {
            Self::Main => asked,
            Self::Kib => (asked / 2).max(1),
            Self::Tenfold => asked * 10,
        }
    }

    pub fn value_bytes(self) -> usize {
        if self == Self::Kib { 1024 } else { 100 }
    }

    pub fn rounds(self, asked: u32) -> u32 {
        if self == Self::Tenfold { asked.min(1) } else { asked }
    }

    /// How many times longer than others its fills may take before they are cut short.
    pub fn fill_cap_factor(self) -> f64 {
        if self == Self::Tenfold { 6.0 } else { 1.0 }
    }
}

/// Keys in a batch.
pub const BATCH_LEN: u64 = 100;

/// A row of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    /// What it does, for readers of a plot.
    pub title: &'static str,
    pub kind: Kind,
    pub threads: usize,
    pub data: DataSet,
}

const fn main(name: &'static str, title: &'static str, kind: Kind, threads: usize) -> Workload {
    Workload { name, title, kind, threads, data: DataSet::Main }
}

/// The unmeasured workload that makes data for a run without a fill.
pub const LOAD: Workload = main("load", "load", Kind::Load, 1);

/// All of them, in the order in which they run on one directory.
pub const ALL: &[Workload] = &[
    main("fillbatch", "new keys, batches of 100", Kind::FillBatch, 1),
    main("fillsync", "new keys, each synced", Kind::FillSync, 1),
    main("fillsync-16", "new keys, each synced, 16 threads", Kind::FillSync, 16),
    main("fillrandom", "new keys", Kind::Fill, 1),
    main("reopen", "open and read one key", Kind::Reopen, 1),
    main("readrandom", "random reads", Kind::Read, 1),
    main("readrandom-2", "random reads, 2 threads", Kind::Read, 2),
    main("readmissing", "reads of absent keys", Kind::ReadMissing, 1),
    main("scan", "all pairs, in order", Kind::Scan, 1),
    main("iterate", "all pairs, in any order", Kind::Iterate, 1),
    main("zipf-95-5", "95 % reads, Zipf, 2 threads", Kind::Mixed { writes_percent: 5 }, 2),
    main("zipf-50-50", "50 % reads, Zipf, 2 threads", Kind::Mixed { writes_percent: 50 }, 2),
    main("overwrite", "overwrites", Kind::Overwrite, 1),
    main("delete", "removes", Kind::Delete, 1),
    Workload {
        name: "fillrandom-1kib",
        title: "new keys, values of 1 KiB",
        kind: Kind::Fill,
        threads: 1,
        data: DataSet::Kib,
    },
    Workload {
        name: "readrandom-1kib",
        title: "random reads, values of 1 KiB",
        kind: Kind::Read,
        threads: 1,
        data: DataSet::Kib,
    },
    Workload {
        name: "fillrandom-10x",
        title: "new keys, ten times as many",
        kind: Kind::Fill,
        threads: 1,
        data: DataSet::Tenfold,
    },
    Workload {
        name: "readrandom-10x",
        title: "random reads, ten times as many keys",
        kind: Kind::Read,
        threads: 1,
        data: DataSet::Tenfold,
    },
];

/// The workload called `name`, the unmeasured one included.
pub fn named(name: &str) -> Result<Workload> {
    match ALL.iter().chain([&LOAD]).find(|workload| workload.name == name) {
        Some(workload) => Ok(*workload),
        None => {
            let known: Vec<_> = ALL.iter().map(|workload| workload.name).collect();
            bail!("no workload {name:?}; there are {}", known.join(", "))
        }
    }
}

/// The workloads called `names`, in the order of [`ALL`]; all of them if there are no names.
pub fn chosen(names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        named(name)?;
    }
    let is_chosen = |w: &&Workload| names.is_empty() || names.iter().any(|name| name == w.name);
    Ok(ALL.iter().filter(is_chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_choosing_keeps_the_order() {
        let names: std::collections::HashSet<_> = ALL.iter().map(|w| w.name).collect();
        assert_eq!(names.len(), ALL.len());
        let chosen = chosen(&["scan".to_owned(), "fillrandom".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|w| w.name).collect::<Vec<_>>(), ["fillrandom", "scan"]);
        assert!(super::chosen(&["flush".to_owned()]).is_err());
        assert_eq!(super::chosen(&[]).unwrap().len(), ALL.len());
    }

    #[test]
    fn deleting_comes_last_in_its_data_set() {
        let main: Vec<_> = ALL.iter().filter(|w| w.data == DataSet::Main).collect();
        assert_eq!(main.last().unwrap().kind, Kind::Delete);
    }
}
