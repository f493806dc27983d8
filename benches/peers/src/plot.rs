//! Results as a picture: a panel of bars for each workload, the fastest store on top.
//!
//! Bars are in proportion within their panel only. The one colour that matters is also said by
//! bold letters, and the background is part of the picture, so that it can be read in light and
//! dark, by everyone, and in print.

use svg::Document;
use svg::node::element::{Group, Rectangle, Style, Text};

use crate::figures::speed;
use crate::outcome::Results;
use crate::summary::{Cell, Row, rows};

const COLUMNS: usize = 3;
const MARGIN: f64 = 20.0;
const PANEL_WIDTH: f64 = 330.0;
const GAP: f64 = 26.0;
const HEAD: f64 = 60.0;
const FOOT: f64 = 34.0;
const TITLE: f64 = 24.0;
const LINE: f64 = 17.0;
const BAR: f64 = 11.0;
/// Room for the longest name of a store.
const NAME_WIDTH: f64 = 98.0;
/// Room for the longest figure, with its mark.
const FIGURE_WIDTH: f64 = 68.0;

const STYLE: &str = "
.paper { fill: #ffffff }
.bar { fill: #a8b0ba }
.own { fill: #0072b2 }
text { fill: #1f2328; font: 12px 'DejaVu Sans', Verdana, sans-serif }
.title { font-weight: bold }
.head { font-size: 17px; font-weight: bold }
.faint { fill: #59636e }
.bold { font-weight: bold }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 }
  .bar { fill: #5a636e }
  .own { fill: #56b4e9 }
  text { fill: #e6edf3 }
  .faint { fill: #9198a1 }
}
";

/// The picture of `results`, in which `base` stands out.
pub fn svg(results: &Results, base: &str) -> String {
    let rows = rows(&results.outcomes, base);
    let width = MARGIN * 2.0 + PANEL_WIDTH * COLUMNS as f64 + GAP * (COLUMNS - 1) as f64;
    let mut panels = Group::new();
    let mut top = HEAD;
    for line in rows.chunks(COLUMNS) {
        for (column, row) in line.iter().enumerate() {
            let left = MARGIN + (PANEL_WIDTH + GAP) * column as f64;
            let place = format!("translate({left} {top})");
            panels = panels.add(panel(row, base).set("transform", place));
        }
        let bars_max = line.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        top += TITLE + LINE * bars_max as f64 + GAP;
    }
    let height = top + FOOT - GAP / 2.0;
    let foot = "Longer is better. Medians. * cut short by the time limit. \
                Settings and fairness: benches/peers/README.md";
    Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "paper").set("width", width).set("height", height))
        .add(text(MARGIN, 30.0, "head", &format!("{base} and other embeddable stores")))
        .add(text(MARGIN, 48.0, "faint", &where_measured(results)))
        .add(panels)
        .add(text(MARGIN, height - 14.0, "faint", foot))
        .to_string()
}

fn where_measured(results: &Results) -> String {
    let m = &results.machine;
    format!(
        "{}, {} cores, Linux {}, {}; files in the page cache",
        m.cpu, m.cores, m.kernel, m.file_system
    )
}

fn text(x: f64, y: f64, class: &str, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("class", class)
}

fn panel(row: &Row, base: &str) -> Group {
    let fastest = row.cells.iter().map(|cell| cell.ops_per_second).fold(0.0, f64::max);
    let mut panel = Group::new().add(text(0.0, 12.0, "title", row.workload.title));
    for (index, cell) in row.cells.iter().enumerate() {
        let share = if fastest > 0.0 { cell.ops_per_second / fastest } else { 0.0 };
        // Other settings of the base have names like `base-fast`.
        let is_own = cell.store.split('-').next() == Some(base);
        let bar = bar(row, cell, share, is_own);
        let place = format!("translate(0 {})", TITLE + LINE * index as f64);
        panel = panel.add(bar.set("transform", place));
    }
    panel
}

fn bar(row: &Row, cell: &Cell, share: f64, is_own: bool) -> Group {
    // A bar that cannot be seen still shows where the line begins.
    let len = ((PANEL_WIDTH - NAME_WIDTH - FIGURE_WIDTH) * share).max(1.0);
    let (bar_class, text_class) = if is_own { ("own", "bold") } else { ("bar", "") };
    let mark = if cell.cut_short { "*" } else { "" };
    let figure = format!("{}{mark}", speed(row.workload.kind, cell.ops_per_second));
    let name = text(NAME_WIDTH - 6.0, BAR - 1.0, text_class, &cell.store);
    let bar = Rectangle::new()
        .set("class", bar_class)
        .set("x", NAME_WIDTH)
        .set("width", format!("{len:.1}"))
        .set("height", BAR);
    Group::new().add(name.set("text-anchor", "end")).add(bar).add(text(
        NAME_WIDTH + len.round() + 5.0,
        BAR - 1.0,
        text_class,
        &figure,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn every_store_has_a_bar_in_proportion() {
        let outcome = |store: &str, ops| Outcome {
            store: store.to_owned(),
            workload: "readrandom".to_owned(),
            ops,
            seconds: 1.0,
            ..Outcome::default()
        };
        let outcomes = vec![outcome("kvs", 400), outcome("<rival>", 100)];
        let svg = svg(&Results { outcomes, ..Results::default() }, "kvs");
        let len = PANEL_WIDTH - NAME_WIDTH - FIGURE_WIDTH;
        assert!(svg.contains(&format!("width=\"{len:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", len / 4.0)), "{svg}");
        assert_eq!(svg.matches("class=\"own\"").count(), 1);
        assert!(svg.contains("&lt;rival&gt;") && !svg.contains("<rival>"), "{svg}");
    }
}
