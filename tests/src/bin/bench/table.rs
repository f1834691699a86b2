//! What is printed: tables for people, for documents and for machines, from the same figures.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// The figures of one row over the rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    /// Adds a round's.
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The least, the median and the most; nothing where there was no round.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            least: *sorted.first()?,
            median: sorted[sorted.len() / 2],
            most: *sorted.last()?,
        })
    }
}

/// What rounds came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Nothing,
    Text(String),
    /// A number, shown with so many digits behind the point.
    Number(f64, usize),
    /// Median (least to most), shown with so many digits behind the point.
    Spread(Spread, usize),
}

impl Cell {
    /// A whole number.
    pub(crate) fn count(number: impl TryInto<u64>) -> Self {
        number
            .try_into()
            .map_or(Self::Nothing, |number| Self::Number(number as f64, 0))
    }

    /// The spread of figures.
    pub(crate) fn figures(figures: &Figures, digits: usize) -> Self {
        figures
            .spread()
            .map_or(Self::Nothing, |spread| Self::Spread(spread, digits))
    }

    fn text(&self) -> String {
        match self {
            Self::Nothing => "-".into(),
            Self::Text(text) => text.clone(),
            Self::Number(number, digits) => grouped(*number, *digits),
            Self::Spread(spread, digits) => format!(
                "{} ({} to {})",
                grouped(spread.median, *digits),
                grouped(spread.least, *digits),
                grouped(spread.most, *digits)
            ),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Text(text) => json!(text),
            Self::Number(number, _) => json!(number),
            Self::Spread(spread, _) => {
                json!({ "least": spread.least, "median": spread.median, "most": spread.most })
            }
        }
    }
}

/// A number with its thousands apart.
fn grouped(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

/// A table: its columns beside the name of the row, each with the key that machines read and the head that people read.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// What one must know to read it.
    pub(crate) notes: Vec<String>,
    pub(crate) columns: Vec<(&'static str, &'static str)>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// One without rows.
    pub(crate) fn new(
        key: &'static str,
        title: &'static str,
        columns: &[(&'static str, &'static str)],
    ) -> Self {
        Self {
            key,
            title,
            notes: Vec::new(),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push((name.into(), cells));
    }

    /// For a terminal.
    pub(crate) fn plain(&self) -> String {
        let mut lines = vec![vec![String::new()]];
        lines[0].extend(self.columns.iter().map(|(_, head)| head.to_uppercase()));
        for (name, cells) in &self.rows {
            let mut line = vec![name.clone()];
            line.extend(cells.iter().map(Cell::text));
            lines.push(line);
        }
        let widths: Vec<usize> = (0..=self.columns.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = format!("{}\n", self.title);
        for line in lines {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let _ = if column == 0 {
                    write!(text, "  {cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }

    /// For a document.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n| |", self.title);
        for (_, head) in &self.columns {
            let _ = write!(text, " {head} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        text.push('\n');
        for (name, cells) in &self.rows {
            let _ = write!(text, "| {name} |");
            for cell in cells {
                let _ = write!(text, " {} |", cell.text());
            }
            text.push('\n');
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, cells)| {
                let mut row = Map::from_iter([("name".to_owned(), json!(name))]);
                for ((key, _), cell) in self.columns.iter().zip(cells) {
                    row.insert((*key).to_owned(), cell.json());
                }
                Value::Object(row)
            })
            .collect();
        json!({ "name": self.key, "title": self.title, "notes": self.notes, "rows": rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_the_same_in_every_form() {
        let mut figures = Figures::default();
        for figure in [3.0, 1.0, 12_345.6] {
            figures.push(figure);
        }
        let mut table = Table::new("t", "A table", &[("ns", "ns"), ("what", "what")]);
        table.row("one", vec![Cell::figures(&figures, 0), Cell::Text("w".into())]);
        table.row("two", vec![Cell::Number(-1_234.5, 1), Cell::Nothing]);
        assert_eq!(
            table.plain(),
            "A table\n                      NS  WHAT\n  one  3 (1 to 12,346)     w\n  two         -1,234.5     -\n"
        );
        assert!(table.markdown().contains("| one | 3 (1 to 12,346) | w |"));
        assert_eq!(table.json()["rows"][0]["ns"]["most"], 12_345.6);
        assert_eq!(table.json()["rows"][1]["what"], Value::Null);
    }
}
