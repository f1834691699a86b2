//! Where a policy's keys stand in its text, for whoever must say which line decides.

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

/// The most characters of a line that are shown.
const SHOWN: usize = 120;

/// A key's place.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The file that the policy came from.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The column of the key in characters, from 1.
    pub column: u32,
    /// The table that it is in, in brackets, and its line.
    pub text: String,
}

/// A policy's text, parsed for its places.
#[derive(Debug)]
pub struct Places<'t> {
    text: &'t str,
    path: &'t str,
    document: toml::Spanned<DeTable<'t>>,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

/// What is found on the way to a key.
#[derive(Clone, Copy)]
enum Node<'a> {
    Table(&'a DeTable<'a>),
    Array(&'a [toml::Spanned<DeValue<'a>>]),
    Leaf,
}

fn node<'a>(value: &'a DeValue<'a>) -> Node<'a> {
    match value {
        DeValue::Table(table) => Node::Table(table),
        DeValue::Array(array) => Node::Array(array),
        _ => Node::Leaf,
    }
}

impl<'t> Places<'t> {
    /// Of the text of a policy that is valid.
    pub fn of(text: &'t str, path: &'t str) -> Self {
        let (document, _) = DeTable::parse_recoverable(text);
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            path,
            document,
            lines,
        }
    }

    /// The place of a key, by the names on the way to it. An element of an array of tables is named by its `name`, or by
    /// its number from 1 where it has none: `["service", "web", "per_source", "packets"]`, `["protect", "2", "sources"]`.
    /// `None` where the text has no such key, and a default holds.
    pub fn of_key(&self, names: &[&str]) -> Option<Place> {
        let mut here = Node::Table(self.document.get_ref());
        let mut at = 0;
        // Without the names of elements, as headers have it.
        let mut tables: Vec<&str> = Vec::new();
        let mut is_element = false;
        for (depth, name) in names.iter().enumerate() {
            match here {
                Node::Table(table) => {
                    is_element = false;
                    let (key, value) = table.get_key_value(*name)?;
                    at = key.span().start;
                    if depth + 1 < names.len() {
                        tables.push(name);
                    }
                    here = node(value.get_ref());
                }
                Node::Array(elements) => {
                    is_element = true;
                    let element = element(elements, name)?;
                    at = match element.get_ref() {
                        // A header is the place of what it begins, and in it the name.
                        DeValue::Table(table) => {
                            let its_own = table.get_key_value("name").map(|(key, _)| key.span().start);
                            its_own.unwrap_or(element.span().start)
                        }
                        _ => element.span().start,
                    };
                    here = node(element.get_ref());
                }
                Node::Leaf => return None,
            }
        }
        let table = match (tables.join("."), is_element) {
            (table, _) if table.is_empty() => table,
            (table, true) => format!("[[{table}]] "),
            (table, false) => format!("[{table}] "),
        };
        Some(self.place(at, &table))
    }

    fn place(&self, at: usize, table: &str) -> Place {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        let written = self.text.get(start..).unwrap_or_default();
        let written = written.lines().next().unwrap_or_default().trim();
        // A header says itself where it is.
        let mut text = if written.starts_with('[') {
            String::new()
        } else {
            table.to_owned()
        };
        for (index, character) in written.chars().enumerate() {
            match character {
                _ if index == SHOWN => {
                    text.push('…');
                    break;
                }
                // What is a control character must not reach a terminal.
                control if control.is_control() => text.extend(control.escape_default()),
                other => text.push(other),
            }
        }
        Place {
            path: self.path.to_owned(),
            line: line as u32,
            column: before.chars().count() as u32 + 1,
            text,
        }
    }
}

fn element<'a>(
    elements: &'a [toml::Spanned<DeValue<'a>>],
    name: &str,
) -> Option<&'a toml::Spanned<DeValue<'a>>> {
    let named = elements.iter().find(|element| {
        element
            .get_ref()
            .as_table()
            .and_then(|table| table.get("name"))
            .and_then(|value| value.get_ref().as_str())
            == Some(name)
    });
    named.or_else(|| elements.get(name.parse::<usize>().ok()?.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"version = 1
mode = "monitor"
default.action = "drop"
[[protect]]
sources = ["10.0.0.0/8"]
[[protect]]
  sources = ["10.9.0.0/28"]
[lists."a b"]
action = "drop" # why not
[lists]
c = { action = "trust", proxy = true }
[[service]]
name = "1"
protocol = "tcp"
per_source = { packets = { rate = 1, burst = 2 } }
[[service]]
protocol = ["tcp"]
ports = [
  80,
]
name = "web"
  [service.per_source]
  packets = { rate = 5 }
  bytes.rate = "1kB"
  bytes.burst = "2kB"
  [service.per_source.connections]
  rate = 3
  [[service.class]]
  name = "mobile"
  lists = ["a b"]
    [service.class.total]
    # größer
    packets = { rate = 7 }
"#;

    #[test]
    fn every_way_of_writing_a_key_is_found() {
        let places = Places::of(TEXT, "/etc/weir/policy.toml");
        let rows: &[(&[&str], u32, u32, &str)] = &[
            (&["mode"], 2, 1, "mode = \"monitor\""),
            (
                &["default", "action"],
                3,
                9,
                "[default] default.action = \"drop\"",
            ),
            (&["protect", "1"], 4, 1, "[[protect]]"),
            (
                &["protect", "2", "sources"],
                7,
                3,
                "[protect] sources = [\"10.9.0.0/28\"]",
            ),
            (
                &["lists", "a b", "action"],
                9,
                1,
                "[lists.a b] action = \"drop\" # why not",
            ),
            (
                &["lists", "c", "action"],
                11,
                7,
                "[lists.c] c = { action = \"trust\", proxy = true }",
            ),
            (
                &["service", "1", "per_source", "packets"],
                15,
                16,
                "[service.per_source] per_source = { packets = { rate = 1, burst = 2 } }",
            ),
            (&["service", "web"], 21, 1, "[[service]] name = \"web\""),
            (&["service", "web", "ports"], 18, 1, "[service] ports = ["),
            (
                &["service", "web", "per_source", "packets"],
                23,
                3,
                "[service.per_source] packets = { rate = 5 }",
            ),
            (
                &["service", "web", "per_source", "bytes"],
                24,
                3,
                "[service.per_source] bytes.rate = \"1kB\"",
            ),
            (
                &["service", "web", "per_source", "connections"],
                26,
                23,
                "[service.per_source.connections]",
            ),
            (
                &["service", "web", "class", "mobile", "total", "packets"],
                33,
                5,
                "[service.class.total] packets = { rate = 7 }",
            ),
        ];
        for (key, line, column, text) in rows {
            let place = places
                .of_key(key)
                .unwrap_or_else(|| panic!("{key:?} is not found"));
            assert_eq!(
                (place.line, place.column, place.text.as_str()),
                (*line, *column, *text),
                "{key:?}"
            );
            assert_eq!(place.path, "/etc/weir/policy.toml");
        }
        for absent in [
            &["scope", "vlans"][..],
            &["service", "api"],
            &["service", "web", "total"],
            &["mode", "x"],
            &["protect", "3"],
            &["protect", "0"],
        ] {
            assert_eq!(places.of_key(absent), None, "{absent:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_and_control_characters_shown() {
        let text = format!("a = \"{}\"\r\nb = \"\\u0007\t\"\n", "é".repeat(200));
        let places = Places::of(&text, "p");
        let long = places.of_key(&["a"]).unwrap().text;
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert!(long.ends_with('…'));
        let tab = places.of_key(&["b"]).unwrap().text;
        assert!(!tab.contains(char::is_control), "{tab}");
    }
}
