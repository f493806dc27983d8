//! Results as Markdown: first who is how many times faster, then each workload by itself.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::figures::{bytes, count, nanoseconds, ratio, speed};
use crate::outcome::Results;
use crate::summary::{Cell, Row, rows};
use crate::workload::Kind;

/// More of a core than this, used by something else, and a figure is marked.
const OTHER_CORES_NOTED: f64 = 0.2;

/// Everything in `results`, with ratios to `base`.
pub fn text(results: &Results, base: &str) -> String {
    let rows = rows(&results.outcomes, base);
    let mut parts = vec![machine(results), overview(&rows, base)];
    parts.extend(rows.iter().map(|row| section(row, base)));
    parts.join("\n\n")
}

fn machine(results: &Results) -> String {
    let m = &results.machine;
    #[expect(clippy::cast_precision_loss, reason = "told to three figures")]
    let memory = bytes(m.memory_bytes as f64);
    let head = format!(
        "{}, {} cores, {memory} of memory, Linux {}, {}",
        m.cpu, m.cores, m.kernel, m.file_system
    );
    let mut lines = vec![head, String::new()];
    for store in &results.stores {
        lines.push(format!("- {} {}: {}", store.name, store.version, store.settings));
    }
    lines.join("\n")
}

/// A Markdown table whose columns are flush right, but the first and the last `left`.
fn table(header: Vec<String>, left: usize) -> Table {
    let mut table = Table::new();
    let columns = header.len();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1).take(columns - 1 - left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn overview(rows: &[Row], base: &str) -> String {
    let mut stores: Vec<&str> = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.cells) {
        if cell.store != base && !stores.contains(&cell.store.as_str()) {
            stores.push(&cell.store);
        }
    }
    stores.sort_unstable();
    let heads = ["workload".to_owned(), base.to_owned()];
    let mut table =
        table(heads.into_iter().chain(stores.iter().map(|&name| name.to_owned())).collect(), 0);
    for row in rows {
        let find = |name: &str| row.cells.iter().find(|cell| cell.store == name);
        let own = find(base).map_or("-".to_owned(), |c| speed(row.workload.kind, c.ops_per_second));
        let told = stores.iter().map(|&name| match find(name).and_then(|cell| cell.ratio) {
            Some(times) => ratio(times),
            None => "-".to_owned(),
        });
        table.add_row([row.workload.name.to_owned(), own].into_iter().chain(told));
    }
    format!("How many times as fast {base} is:\n\n{table}")
}

fn section(row: &Row, base: &str) -> String {
    let heads = [
        "store",
        "speed",
        &format!("{base} is"),
        "p50",
        "p99",
        "p99.9",
        "worst stall",
        "disk",
        "peak RSS",
        "of it private",
        "range",
        "notes",
    ];
    let mut table = table(heads.map(str::to_owned).to_vec(), 1);
    for cell in &row.cells {
        table.add_row(line(row.workload.kind, cell));
    }
    #[expect(clippy::cast_precision_loss, reason = "told to three figures")]
    let keys = count(row.keys as f64);
    let title = format!("## {}: {}", row.workload.name, row.workload.title);
    format!("{title}\n\n{keys} keys, values of {} bytes\n\n{table}", row.value_bytes)
}

fn line(kind: Kind, cell: &Cell) -> Vec<String> {
    // What happens once, or all in one call, has no latencies.
    let is_sampled = cell.p50_ns > 0.0;
    let latency = |ns| if is_sampled { nanoseconds(ns) } else { "-".to_owned() };
    #[expect(clippy::cast_precision_loss, reason = "told to three figures")]
    let stall = cell.stall_ns_max as f64;
    vec![
        cell.store.clone(),
        speed(kind, cell.ops_per_second),
        cell.ratio.map_or("-".to_owned(), ratio),
        latency(cell.p50_ns),
        latency(cell.p99_ns),
        latency(cell.p999_ns),
        latency(stall),
        bytes(cell.disk_bytes),
        bytes(cell.resident_bytes_max),
        bytes(cell.anonymous_bytes),
        format!(
            "{} .. {}",
            speed(kind, cell.ops_per_second_min),
            speed(kind, cell.ops_per_second_max)
        ),
        notes(cell),
    ]
}

fn notes(cell: &Cell) -> String {
    let mut notes = vec![format!("{} run(s)", cell.runs)];
    if cell.cut_short {
        notes.push("cut short".to_owned());
    }
    if cell.other_cores_max > OTHER_CORES_NOTED {
        notes.push(format!("others used {:.1} cores", cell.other_cores_max));
    }
    if cell.wrong > 0 {
        notes.push(format!("{} WRONG ANSWERS", cell.wrong));
    }
    notes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn ratios_and_warnings_are_told() {
        let outcome = |store: &str, ops| Outcome {
            store: store.to_owned(),
            workload: "readrandom".to_owned(),
            ops,
            seconds: 1.0,
            ..Outcome::default()
        };
        let wrong = Outcome { wrong: 3, cut_short: true, other_cores: 0.5, ..outcome("b", 50) };
        let results = Results { outcomes: vec![outcome("a", 200), wrong], ..Results::default() };
        let text = text(&results, "a");
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed.contains("| readrandom | 200/s | 4.00x |"), "{text}");
        for said in ["cut short", "others used 0.5 cores", "3 WRONG ANSWERS"] {
            assert!(text.contains(said), "{said} is missing from:\n{text}");
        }
    }
}
