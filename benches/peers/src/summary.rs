//! Rounds put together: medians, worst cases, ratios.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::workload::{self, Workload};

/// What all rounds of one workload on one store say together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    pub store: String,
    pub runs: usize,
    /// Medians over the rounds, unless the name says otherwise.
    pub ops_per_second: f64,
    pub ops_per_second_min: f64,
    pub ops_per_second_max: f64,
    pub p50_ns: f64,
    pub p99_ns: f64,
    pub p999_ns: f64,
    /// The worst of all rounds.
    pub stall_ns_max: u64,
    pub disk_bytes: f64,
    pub resident_bytes_max: f64,
    pub anonymous_bytes: f64,
    /// Whether any round was cut short by the time limit.
    pub cut_short: bool,
    pub wrong: u64,
    /// How many cores something else was using, at worst.
    pub other_cores_max: f64,
    /// Operations per second of the store that ratios are taken of, over those of this one.
    pub ratio: Option<f64>,
}

/// One workload and the stores that ran it, fastest first.
#[derive(Debug, Clone)]
pub struct Row {
    pub workload: Workload,
    pub keys: u64,
    pub value_bytes: usize,
    pub cells: Vec<Cell>,
}

/// The middle of `values`; between the two middle ones if their number is even.
///
/// # Panics
///
/// If there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// Puts `outcomes` together, with ratios of `base`'s figures over everyone's. Only outcomes with
/// as many keys as the last ones of their workload count: others are of another run.
pub fn rows(outcomes: &[Outcome], base: &str) -> Vec<Row> {
    workload::ALL.iter().filter_map(|workload| row(outcomes, workload, base)).collect()
}

fn row(outcomes: &[Outcome], workload: &Workload, base: &str) -> Option<Row> {
    let mine = || outcomes.iter().filter(|outcome| outcome.workload == workload.name);
    let last = mine().next_back()?;
    let (keys, value_bytes) = (last.keys, last.value_bytes);
    let mut by_store: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in mine().filter(|o| (o.keys, o.value_bytes) == (keys, value_bytes)) {
        by_store.entry(&outcome.store).or_default().push(outcome);
    }
    let mut cells: Vec<_> = by_store.values().map(|outcomes| cell(outcomes)).collect();
    let base = cells.iter().find(|cell| cell.store == base).map(|cell| cell.ops_per_second);
    for cell in &mut cells {
        cell.ratio = base.filter(|_| cell.ops_per_second > 0.0).map(|b| b / cell.ops_per_second);
    }
    cells.sort_by(|a, b| b.ops_per_second.total_cmp(&a.ops_per_second));
    Some(Row { workload: *workload, keys, value_bytes, cells })
}

#[expect(clippy::cast_precision_loss, reason = "figures are told to three places")]
fn cell(outcomes: &[&Outcome]) -> Cell {
    let each = |of: fn(&Outcome) -> f64| outcomes.iter().map(move |outcome| of(outcome));
    let middle = |of| median(each(of).collect());
    let least = |of| each(of).fold(f64::INFINITY, f64::min);
    let most = |of| each(of).fold(0.0, f64::max);
    Cell {
        store: outcomes[0].store.clone(),
        runs: outcomes.len(),
        ops_per_second: middle(Outcome::ops_per_second),
        ops_per_second_min: least(Outcome::ops_per_second),
        ops_per_second_max: most(Outcome::ops_per_second),
        p50_ns: middle(|outcome| outcome.p50_ns as f64),
        p99_ns: middle(|outcome| outcome.p99_ns as f64),
        p999_ns: middle(|outcome| outcome.p999_ns as f64),
        stall_ns_max: outcomes.iter().map(|outcome| outcome.stall_ns).max().unwrap_or(0),
        disk_bytes: middle(|outcome| outcome.disk_bytes as f64),
        resident_bytes_max: middle(|outcome| outcome.resident_bytes_max as f64),
        anonymous_bytes: middle(|outcome| outcome.anonymous_bytes as f64),
        cut_short: outcomes.iter().any(|outcome| outcome.cut_short),
        wrong: outcomes.iter().map(|outcome| outcome.wrong).sum(),
        other_cores_max: most(|outcome| outcome.other_cores),
        ratio: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(store: &str, keys: u64, ops: u64, seconds: f64) -> Outcome {
        Outcome {
            store: store.to_owned(),
            workload: "readrandom".to_owned(),
            keys,
            ops,
            seconds,
            stall_ns: ops,
            ..Outcome::default()
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in [
            (vec![5.0], 5.0),
            (vec![3.0, 1.0], 2.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 9.0, 2.0], 3.0),
        ] {
            assert!((median(values.clone()) - middle).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn ratios_say_how_much_faster_the_base_is() {
        let outcomes = [
            outcome("kvs", 10, 300, 1.0),
            outcome("kvs", 10, 100, 1.0),
            outcome("kvs", 10, 400, 2.0),
            outcome("slow", 10, 50, 1.0),
            outcome("fast", 10, 800, 2.0),
        ];
        let rows = rows(&outcomes, "kvs");
        assert_eq!(rows.len(), 1);
        let told: Vec<_> = rows[0].cells.iter().map(|c| (c.store.as_str(), c.ratio)).collect();
        assert_eq!(told, [("fast", Some(0.5)), ("kvs", Some(1.0)), ("slow", Some(4.0))]);
        let kvs = &rows[0].cells[1];
        assert_eq!((kvs.runs, kvs.stall_ns_max), (3, 400));
        assert_eq!((kvs.ops_per_second_min, kvs.ops_per_second_max), (100.0, 300.0));
        assert_eq!(super::rows(&outcomes, "absent")[0].cells[0].ratio, None);
    }

    #[test]
    fn runs_of_other_sizes_are_kept_apart() {
        let outcomes = [outcome("kvs", 10, 1, 1.0), outcome("kvs", 20, 4, 1.0)];
        let rows = rows(&outcomes, "kvs");
        assert_eq!((rows[0].keys, rows[0].cells[0].runs), (20, 1));
    }
}
