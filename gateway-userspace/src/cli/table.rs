//! Plain text tables and readable numbers.

use std::fmt::{self, Write as _};

/// Which side of its column a cell leans to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings, in columns two spaces apart. No trailing spaces.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; cells that are missing stay empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The same table without a column if all its cells are `nothing`.
    pub(crate) fn without(mut self, heading: &str, nothing: &str) -> Self {
        let at = self.columns.iter().position(|(of, _)| *of == heading);
        if let Some(at) = at
            && self
                .rows
                .iter()
                .all(|row| row.get(at).is_none_or(|cell| cell == nothing))
        {
            self.columns.remove(at);
            for row in self.rows.iter_mut().filter(|row| row.len() > at) {
                row.remove(at);
            }
        }
        self
    }

    /// True when it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize, heading: &str| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([heading.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(column, (heading, _))| width(column, heading))
            .collect();
        let headings: Vec<String> = self
            .columns
            .iter()
            .map(|(heading, _)| (*heading).to_owned())
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (((_, align), width), cell) in self.columns.iter().zip(&widths).zip(row) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => write!(line, "{cell:<width$}")?,
                    Align::Right => write!(line, "{cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 prefix`, `1,204 prefixes`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", grouped(number))
    }
}

/// A rate, rounded to whole ones: `12,345`; below ten with one decimal, so that a trickle is not nothing.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        // Negative and not-a-number both become 0.
        grouped(per_second.round() as u64)
    }
}

/// Bytes a second as bits a second, in the unit that network people use: `1.2 Gb/s`.
pub(crate) fn bit_rate(bytes_per_second: f64) -> String {
    scaled(
        bytes_per_second.max(0.0) * 8.0,
        &["b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s"],
    )
}

/// A number of bytes: `1.2 GB` (powers of a thousand).
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn scaled(mut number: f64, units: &[&str]) -> String {
    let mut units = units.iter().peekable();
    while let Some(unit) = units.next() {
        // What would be printed as 1000.0 belongs to the next unit.
        if number < 999.95 || units.peek().is_none() {
            let decimals = usize::from(number.fract() != 0.0 && number < 100.0);
            return format!("{number:.decimals$} {unit}");
        }
        number /= 1000.0;
    }
    String::new()
}

/// A span in its two largest units: `2 h 3 min`, `45 s`.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (unit, name) in UNITS {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        } else if !parts.is_empty() {
            // `1 d 5 s` would look more exact than `1 d 0 h`, and is not.
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&[
            ("SERVICE", Align::Left),
            ("PACKETS", Align::Right),
            ("WHY", Align::Left),
        ]);
        table.row(["web".into(), grouped(1_234_567), "block".into()]);
        table.row(["a-longer-name".into(), grouped(5), String::new()]);
        let expected = "\
SERVICE          PACKETS  WHY
web            1,234,567  block
a-longer-name          5
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn an_empty_table_has_its_headings_and_wide_letters_count_once() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        assert!(table.is_empty());
        assert_eq!(table.to_string(), "NAME  N\n");
        table.row(["größe".into(), "1".into()]);
        assert_eq!(table.to_string(), "NAME   N\ngröße  1\n");
    }

    #[test]
    fn a_column_that_says_nothing_can_go() {
        let mut table = Table::new(&[("NAME", Align::Left), ("A", Align::Right), ("B", Align::Right)]);
        table.row(["x".into(), "0".into(), "1".into()]);
        table.row(["y".into(), "0".into(), "0".into()]);
        let table = table.without("A", "0").without("B", "0").without("C", "0");
        assert_eq!(table.to_string(), "NAME  B\nx     1\ny     0\n");
    }

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(0, "ban", "bans"), "0 bans");
        assert_eq!(counted(1, "ban", "bans"), "1 ban");
        assert_eq!(counted(1204, "prefix", "prefixes"), "1,204 prefixes");
    }

    #[test]
    fn rates_are_readable() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (9.94, "9.9"),
            (12345.4, "12,345"),
            (f64::NAN, "0"),
            (-3.0, "0"),
        ] {
            assert_eq!(rate(number), text);
        }
        for (bytes, text) in [
            (0.0, "0 b/s"),
            (1.0, "8 b/s"),
            (125_000.0, "1 Mb/s"),
            (187_500_000.0, "1.5 Gb/s"),
            (124_999.9, "1.0 Mb/s"),
            (f64::NAN, "0 b/s"),
        ] {
            assert_eq!(bit_rate(bytes), text);
        }
    }

    #[test]
    fn sizes_are_readable() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (123_456_789, "123 MB"),
            (999_960, "1.0 MB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (605, "10 min 5 s"),
            (7380, "2 h 3 min"),
            (90_000, "1 d 1 h"),
            (86_405, "1 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
