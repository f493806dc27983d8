//! Numbers as people read them: three figures and a unit.

use crate::workload::Kind;

/// `value` with three figures; fewer below 1, where the first two decide.
fn three(value: f64) -> String {
    let places = match value {
        _ if value > 0.0 && value < 0.0995 => 4,
        _ if value < 9.995 => 2,
        _ => usize::from(value < 99.95),
    };
    format!("{value:.places$}")
}

/// `value` in the largest of `units` in which it is at least 1. Each is a thousand of the one
/// before.
fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit.is_empty() { three(value) } else { format!("{} {unit}", three(value)) }
}

pub fn count(value: f64) -> String {
    scaled(value, &["", "k", "M", "G"])
}

pub fn nanoseconds(value: f64) -> String {
    scaled(value, &["ns", "us", "ms", "s"])
}

pub fn bytes(value: f64) -> String {
    scaled(value, &["B", "kB", "MB", "GB"])
}

/// How many times one figure is another.
pub fn ratio(value: f64) -> String {
    format!("{}x", three(value))
}

/// How fast a workload went: a time for what is done once, else keys per second.
pub fn speed(kind: Kind, ops_per_second: f64) -> String {
    match kind {
        Kind::Reopen => nanoseconds(1e9 / ops_per_second),
        _ => format!("{}/s", count(ops_per_second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_figures_and_a_unit() {
        for (said, wanted) in [
            (count(0.0), "0.00"),
            (count(9.996), "10.0"),
            (count(999.4), "999"),
            (count(999.9), "1.00 k"),
            (count(12_345.0), "12.3 k"),
            (count(3_800_000.0), "3.80 M"),
            (nanoseconds(265.0), "265 ns"),
            (nanoseconds(2.5e9), "2.50 s"),
            (nanoseconds(2.5e12), "2500 s"),
            (bytes(144e6), "144 MB"),
            (ratio(0.5), "0.50x"),
            (ratio(0.0048), "0.0048x"),
            (ratio(123.4), "123x"),
            (speed(Kind::Reopen, 2000.0), "500 us"),
            (speed(Kind::Read, 2000.0), "2.00 k/s"),
        ] {
            assert_eq!(said, wanted);
        }
    }
}
