//! What a store says of itself.
//!
//! ```text
//! Stats, SegmentStats   figures of one moment: as fields, as JSON, as a table
//! Spans                 what the rooms count with: how often something took how long
//! GroupSizes            how many writes shared an append
//! Progress              how far long work has come
//! ```
//! A figure is counted where it arises, by an atomic of its own; whoever asks pays for putting them
//! together. Names carry their units: `_bytes` of files unless said otherwise, `_us` microseconds,
//! `_count` items.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::sync::{AtomicU64, Ordering};

/// Sizes of groups that [`Stats::group_sizes`] tells apart: 1, 2-3, 4-7 and so on, and 128 or more.
pub(crate) const GROUP_SIZES: usize = 8;

/// Figures of one moment. Writes go on while they are gathered, so they may differ by a few
/// operations among each other.
///
/// `Display` prints a table, a line for each field, under the field's name; [`Stats::to_json`] one
/// object with the same names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Number of keys.
    pub key_count: u64,
    /// Bytes of all segment files: `live_bytes` and `dead_bytes`.
    pub total_bytes: u64,
    /// Bytes of the newest records of all keys, headers and padding included.
    pub live_bytes: u64,
    /// Of the live bytes, those of keys that have expired; at least so many. Compaction gives them
    /// back, and their keys are counted until then.
    pub expired_bytes: u64,
    /// Bytes of everything else: records that are overwritten or removed, tombstones, and about 100
    /// bytes of each file's own. Compaction gives them back, but for tombstones that are needed.
    pub dead_bytes: u64,
    /// Number of tombstones: records that say that a key was removed.
    pub tombstone_count: u64,
    /// Bytes of tombstones; part of `dead_bytes`. [`SegmentStats::blocking_tombstone_bytes`] says
    /// which files keep them from going.
    pub tombstone_bytes: u64,
    /// Number of segments.
    pub segment_count: u64,
    /// Number of files that compaction has replaced and that are still there, because a reader, a
    /// lent value, an iterator or a checkpoint holds them. They are not part of `total_bytes`.
    pub retired_file_count: u64,
    /// Bytes of those files.
    pub retired_bytes: u64,
    /// Memory of the index, in bytes; the order of keys, if a scan asked for it, is not counted.
    pub index_bytes: u64,

    /// Bytes of records that a loss of power would take at this moment.
    pub unsynced_bytes: u64,
    /// Age of the oldest of them, in microseconds; 0 if there are none. May be too high by the
    /// length of one sync, never too low.
    pub unsynced_us: u64,
    /// Whether the store takes no more writes, because an append or a sync failed
    /// ([`crate::KvsError::Poisoned`]). Reads go on; reopen the store.
    pub is_poisoned: bool,
    /// Whether the disk was found full and the reserve is given up: removes and compaction work,
    /// other writes once there is room again.
    pub is_reserve_lent: bool,
    /// Whether writes pass through a mapped tail ([`crate::WriteMode::Tail`]): it may have been
    /// asked for, and not be possible on this file system.
    pub has_tail: bool,
    /// What background compaction failed with last, until a `compact()` has returned it.
    pub background_error: Option<String>,
    /// Unfinished writes that the last open cut off and kept in `lost+found/`.
    pub crash_tails_cut: u64,

    /// How long opening the store took, in microseconds.
    pub open_us: u64,
    /// Groups of writes appended since the store was opened.
    pub group_count: u64,
    /// Records appended since the store was opened; divided by `group_count`, how many writes share
    /// one append.
    pub record_count: u64,
    /// Bytes of those records. `compaction_written_bytes` come on top of them: the two together,
    /// divided by this, are the write amplification.
    pub written_bytes: u64,
    /// How many groups were of 1 record, of 2 or 3, 4 to 7, 8 to 15, 16 to 31, 32 to 63, 64 to 127,
    /// and of 128 or more. Their sum is `group_count`.
    pub group_sizes: [u64; GROUP_SIZES],
    /// New log files begun since the store was opened, the first included.
    pub rotation_count: u64,
    /// Rounds of `fdatasync` since the store was opened.
    pub sync_count: u64,
    /// How long they took together, in microseconds.
    pub sync_us: u64,
    /// How long the longest of them took, in microseconds.
    pub sync_us_max: u64,
    /// How often a write was held back because files took more than their bound and compaction was
    /// behind.
    pub throttle_count: u64,
    /// How long writes were held back together, in microseconds.
    pub throttle_us: u64,
    /// How long a write was held back at most, in microseconds.
    pub throttle_us_max: u64,
    /// Compactions that happened since the store was opened.
    pub compaction_count: u64,
    /// Bytes of files that they read.
    pub compaction_read_bytes: u64,
    /// Bytes of files that they wrote.
    pub compaction_written_bytes: u64,
    /// How long they took together, those that were given up included, in microseconds.
    pub compaction_us: u64,
}

/// Figures about one segment, of one moment. `Display` is one line with a bar of what is live (`#`)
/// and dead (`-`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its number: ids rise and are never reused.
    pub id: u64,
    /// The name of its file.
    pub file: String,
    /// Bytes of the file: `live_bytes` and `dead_bytes`.
    pub total_bytes: u64,
    /// Bytes of the newest records of keys, headers and padding included.
    pub live_bytes: u64,
    /// Bytes of everything else.
    pub dead_bytes: u64,
    /// Number of tombstones: records that say that a key was removed.
    pub tombstone_count: u64,
    /// Bytes of tombstones; part of `dead_bytes`.
    pub tombstone_bytes: u64,
    /// Bytes of tombstones in other segments that must stay as long as this one does, because it
    /// may hold an older record of their keys. For logs this is exact; where compaction put records
    /// of different times together, it is the most it can be.
    pub blocking_tombstone_bytes: u64,
    /// Whether it is immutable; otherwise it is the log that is being written.
    pub is_sealed: bool,
    /// Whether it was written in the order of writes; otherwise by compaction.
    pub is_log: bool,
}

/// How far long work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done so far.
    pub done_bytes: u64,
    /// Bytes there are, as far as known.
    pub total_bytes: u64,
}

impl Stats {
    /// All fields as one line: a JSON object, each field under its name.
    ///
    /// ```
    /// # use kvs::{KvStore, KvsEngine};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = KvStore::open(dir.path())?;
    /// store.set_bytes(b"no", b"Oslo")?;
    /// assert!(store.stats().to_json().starts_with("{\"key_count\":1,"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Never: numbers and strings always have a JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings have a JSON form")
    }
}

impl SegmentStats {
    /// All fields as one line: a JSON object, each field under its name.
    ///
    /// # Panics
    ///
    /// Never: numbers and strings always have a JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings have a JSON form")
    }
}

/// Writes a line for each field, in sections. It takes the struct apart without a rest, so that a
/// field without a line does not compile.
macro_rules! table {
    ($f:expr, $stats:expr, $($section:literal: { $($field:ident $($show:ident)?),+ $(,)? })+) => {{
        let Stats { $($($field),+),+ } = $stats;
        $(
            writeln!($f, "{}", $section)?;
            $(
                $(let $field = $show($field);)?
                writeln!($f, "  {:<26}{}", stringify!($field), $field)?;
            )+
        )+
        Ok(())
    }};
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_total =
            |part: &u64| format!("{}  {}", in_bytes(part), LiveBar::of(*part, self.total_bytes));
        table! { f, self,
            "stored": {
                key_count,
                total_bytes in_bytes,
                live_bytes of_total,
                expired_bytes in_bytes,
                dead_bytes in_bytes,
                tombstone_count,
                tombstone_bytes in_bytes,
                segment_count,
                retired_file_count,
                retired_bytes in_bytes,
                index_bytes in_bytes,
            }
            "at stake": {
                unsynced_bytes in_bytes,
                unsynced_us,
                is_poisoned,
                is_reserve_lent,
                has_tail,
                background_error or_none,
                crash_tails_cut,
            }
            "since it was opened": {
                open_us,
                group_count,
                record_count,
                written_bytes in_bytes,
                group_sizes by_size,
                rotation_count,
                sync_count,
                sync_us,
                sync_us_max,
                throttle_count,
                throttle_us,
                throttle_us_max,
                compaction_count,
                compaction_read_bytes in_bytes,
                compaction_written_bytes in_bytes,
                compaction_us,
            }
        }
    }
}

impl fmt::Display for SegmentStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, total_bytes, live_bytes, .. } = self;
        let bar = LiveBar::of(*live_bytes, *total_bytes);
        write!(f, "{file}  {:>10}  {bar}", human(*total_bytes))?;
        if self.tombstone_bytes > 0 {
            write!(f, "  tombstones {}", human(self.tombstone_bytes))?;
        }
        if self.blocking_tombstone_bytes > 0 {
            write!(f, "  blocks {}", human(self.blocking_tombstone_bytes))?;
        }
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "fields are shown by reference")]
fn in_bytes(bytes: &u64) -> String {
    if *bytes < 1024 { bytes.to_string() } else { format!("{bytes} ({})", human(*bytes)) }
}

#[expect(clippy::ref_option, reason = "fields are shown by reference")]
fn or_none(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("none")
}

/// As `2 of 1, 7 of 4-7`.
fn by_size(sizes: &[u64; GROUP_SIZES]) -> String {
    let name = |power: usize| match power {
        0 => "1".to_owned(),
        last if last == GROUP_SIZES - 1 => format!("{} or more", 1_u64 << last),
        power => format!("{}-{}", 1_u64 << power, (1_u64 << (power + 1)) - 1),
    };
    let counted = sizes.iter().enumerate().filter(|(_, count)| **count > 0);
    let parts: Vec<_> =
        counted.map(|(power, count)| format!("{count} of {}", name(power))).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// As `12.3 MiB`, for people.
pub(crate) fn human(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = usize::try_from(power).ok().and_then(|power| units.get(power.checked_sub(1)?));
    let Some(unit) = unit else { return format!("{bytes} B") };
    // In tenths, cut off; in 128 bits, since ten times a length may be more than 64 hold.
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// As ` 67 % ################--------`: live, then dead.
struct LiveBar {
    live: u64,
    total: u64,
}

impl LiveBar {
    /// Columns of the bar.
    const LEN: u64 = 24;

    fn of(live: u64, total: u64) -> Self {
        Self { live: live.min(total), total: total.max(1) }
    }
}

impl fmt::Display for LiveBar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |of: u64| u128::from(self.live) * u128::from(of);
        let percent = share(100) / u128::from(self.total);
        let filled = share(Self::LEN).div_ceil(u128::from(self.total));
        write!(f, "{percent:>3} % live  ")?;
        (0..u128::from(Self::LEN))
            .try_for_each(|column| f.write_str(if column < filled { "#" } else { "-" }))
    }
}

/// How often something took place and how long it took. Any thread may add.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    count: AtomicU64,
    us: AtomicU64,
    us_max: AtomicU64,
}

impl Spans {
    /// Takes down one more.
    pub(crate) fn add(&self, took: Duration) {
        let us = micros(took);
        // Relaxed: statistics.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.us.fetch_add(us, Ordering::Relaxed);
        self.us_max.fetch_max(us, Ordering::Relaxed);
    }

    /// How often, and how long in microseconds: all together, and at most.
    pub(crate) fn count_us_and_max(&self) -> (u64, u64, u64) {
        // Relaxed: statistics.
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (read(&self.count), read(&self.us), read(&self.us_max))
    }
}

/// How many groups there were of each size. One thread at a time adds.
#[derive(Debug, Default)]
pub(crate) struct GroupSizes([AtomicU64; GROUP_SIZES]);

impl GroupSizes {
    /// Takes down a group of `count` records.
    pub(crate) fn add(&self, count: usize) {
        let power = usize::try_from(count.checked_ilog2().unwrap_or(0)).unwrap_or(GROUP_SIZES);
        if let Some(size) = self.0.get(power.min(GROUP_SIZES - 1)) {
            bump(size, 1);
        }
    }

    pub(crate) fn counts(&self) -> [u64; GROUP_SIZES] {
        // Relaxed: statistics.
        self.0.each_ref().map(|size| size.load(Ordering::Relaxed))
    }
}

/// Adds to a statistic that one thread at a time changes: cheaper than an addition that others may
/// come between.
pub(crate) fn bump(statistic: &AtomicU64, by: u64) {
    // Relaxed: a statistic.
    statistic.store(statistic.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Whole microseconds.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table has one line for each field of the JSON, under the same name, and none more.
    #[test]
    fn every_figure_is_in_the_json_and_in_the_table() {
        let stats = Stats { background_error: Some("no luck".to_owned()), ..Stats::default() };
        let json: serde_json::Value = serde_json::from_str(&stats.to_json()).unwrap();
        let table = stats.to_string();
        let rows = table.lines().filter_map(|line| line.strip_prefix("  "));
        let mut shown: Vec<_> = rows.filter_map(|row| row.split_whitespace().next()).collect();
        shown.sort_unstable();
        let fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(shown, fields);
        assert!(table.contains("no luck"), "{table}");
    }

    #[test]
    fn bars_are_full_empty_and_between() {
        for (live, total, bar) in [
            (100, 100, format!("100 % live  {}", "#".repeat(24))),
            (0, 100, format!("  0 % live  {}", "-".repeat(24))),
            (50, 100, format!(" 50 % live  {}{}", "#".repeat(12), "-".repeat(12))),
            (1, 1_000_000, format!("  0 % live  #{}", "-".repeat(23))),
            (0, 0, format!("  0 % live  {}", "-".repeat(24))),
            (u64::MAX, u64::MAX, format!("100 % live  {}", "#".repeat(24))),
            (7, 3, format!("100 % live  {}", "#".repeat(24))),
        ] {
            assert_eq!(LiveBar::of(live, total).to_string(), bar);
        }
    }

    #[test]
    fn bytes_are_cut_to_tenths_of_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1535, "1.4 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn groups_are_counted_by_powers_of_two() {
        let counted = GroupSizes::default();
        for count in [1, 1, 2, 3, 4, 7, 8, 127, 128, 100_000] {
            counted.add(count);
        }
        assert_eq!(counted.counts(), [2, 2, 2, 1, 0, 0, 1, 2]);
        let text = "2 of 1, 2 of 2-3, 2 of 4-7, 1 of 8-15, 1 of 64-127, 2 of 128 or more";
        assert_eq!(by_size(&counted.counts()), text);
        assert_eq!(by_size(&[0; GROUP_SIZES]), "none");
    }

    #[test]
    fn spans_keep_count_sum_and_longest() {
        let spans = Spans::default();
        for us in [3, 10, 2] {
            spans.add(Duration::from_micros(us));
        }
        assert_eq!(spans.count_us_and_max(), (3, 15, 10));
    }
}
