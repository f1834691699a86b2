//! What a phase came to, and the table of all phases.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use weir_tests::shoppers::Experience;

/// One phase's figures.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) phase: &'static str,
    /// What the shoppers went through.
    pub(crate) shoppers: Experience,
    /// Packets that the bots put on their wire.
    pub(crate) bot_packets: u64,
    /// Packets that Weir dropped, by reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Packets that Weir would have dropped, by reason.
    pub(crate) would_drop: BTreeMap<String, u64>,
}

/// The table over all phases.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "phase",
            "pages",
            "served",
            "p50",
            "p99",
            "bot packets",
            "dropped",
            "why",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in rows {
        let (verdict, reasons) = if row.dropped.is_empty() && !row.would_drop.is_empty() {
            ("0 (would: ", &row.would_drop)
        } else {
            ("", &row.dropped)
        };
        let total = group(reasons.values().sum());
        let dropped = if verdict.is_empty() {
            total
        } else {
            format!("{verdict}{total})")
        };
        lines.push(vec![
            row.phase.to_owned(),
            row.shoppers.visits.to_string(),
            format!("{:.1} %", row.shoppers.success_percent()),
            latency(row.shoppers.percentile(50)),
            latency(row.shoppers.percentile(99)),
            group(row.bot_packets),
            dropped,
            reasons_of(reasons),
        ]);
    }
    align(&lines)
}

/// The reasons with the most packets first.
fn reasons_of(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = reasons.iter().filter(|(_, packets)| **packets > 0).collect();
    sorted.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    if sorted.is_empty() {
        return "-".to_owned();
    }
    let each: Vec<_> = sorted
        .iter()
        .map(|(reason, packets)| format!("{reason} {}", group(**packets)))
        .collect();
    each.join(", ")
}

/// Columns two spaces apart; numbers to the right, the first and the last column to the left.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            // Writing to a string cannot fail.
            let _ = if column == 0 {
                write!(text, "  {cell:<width$}")
            } else if column + 1 == columns {
                write!(text, "  {cell}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.push('\n');
    }
    text
}

fn latency(time: Option<Duration>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| format!("{:.0} ms", time.as_secs_f64() * 1000.0),
    )
}

/// A number with its thousands set apart.
pub(crate) fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(group(number), text);
        }
    }

    #[test]
    fn reasons_come_largest_first_and_columns_line_up() {
        let reasons = [
            ("block".to_owned(), 1000),
            ("ban".to_owned(), 2000),
            ("list".to_owned(), 0),
        ]
        .into();
        assert_eq!(reasons_of(&reasons), "ban 2,000, block 1,000");
        let cells = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        assert_eq!(
            align(&[cells("x", "n", "why"), cells("long", "10", "y")]),
            "  x      n  why\n  long  10  y\n"
        );
    }
}
