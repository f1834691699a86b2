//! Walking a parsed TOML document so that every error in it is found, each with its place.

use std::{ops::RangeInclusive, path::Path};

use toml::de::{DeTable, DeValue};

use super::{
    error::{Finding, shown},
    units::UnitError,
};

/// Collects what is wrong and what is odd.
pub(super) struct Sink<'t> {
    file: String,
    text: &'t str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    /// The service that is being read, by name.
    pub(super) service: Option<String>,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

impl<'t> Sink<'t> {
    pub(super) fn new(file: &Path, text: &'t str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let file = file.display().to_string();
        Self {
            file,
            text,
            lines,
            service: None,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The file, as the operator named it.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The whole text.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Line and column of a byte offset, both from 1.
    pub(super) fn place(&self, at: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        (line as u32, before.chars().count() as u32 + 1)
    }

    fn finding(&self, at: usize, key: String, value: Option<String>, message: String) -> Finding {
        let (line, column) = self.place(at);
        Finding {
            file: self.file.clone(),
            line,
            column,
            key,
            service: self.service.clone(),
            value,
            message,
        }
    }

    /// An error at a place, about a key.
    pub(super) fn error(&mut self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        let finding = self.finding(at, key.into(), None, message.into());
        self.errors.push(finding);
    }

    /// An error about a value.
    pub(super) fn bad(&mut self, item: &Item<'_>, message: impl Into<String>) {
        let finding = self.finding(item.start, item.path.clone(), self.written(item), message.into());
        self.errors.push(finding);
    }

    /// A warning about a value.
    pub(super) fn warn(&mut self, item: &Item<'_>, message: impl Into<String>) {
        let finding = self.finding(item.start, item.path.clone(), self.written(item), message.into());
        self.warnings.push(finding);
    }

    /// A warning about a table.
    pub(super) fn warn_section(&mut self, section: &Section<'_>, message: impl Into<String>) {
        let finding = self.finding(section.start, section.path.clone(), None, message.into());
        self.warnings.push(finding);
    }

    fn written(&self, item: &Item<'_>) -> Option<String> {
        self.text
            .get(item.start..item.end)
            .map(shown)
            .filter(|value| !value.is_empty())
    }
}

/// One value of the document.
pub(super) struct Item<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) start: usize,
    end: usize,
    pub(super) path: String,
}

impl<'a> Item<'a> {
    /// The value as a table.
    pub(super) fn table(&self, sink: &mut Sink<'_>, expected: &str) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.value else {
            sink.bad(self, format!("expected {expected}"));
            return None;
        };
        Some(Section {
            table,
            start: self.start,
            path: self.path.clone(),
        })
    }

    /// The elements of an array.
    pub(super) fn array(&self, sink: &mut Sink<'_>, expected: &str) -> Option<Vec<Item<'a>>> {
        let DeValue::Array(array) = self.value else {
            sink.bad(self, format!("expected {expected}"));
            return None;
        };
        let element = |(index, value): (usize, &'a toml::Spanned<DeValue<'a>>)| {
            let span = value.span();
            let path = format!("{}[{}]", self.path, index + 1);
            Item {
                value: value.get_ref(),
                start: span.start,
                end: span.end,
                path,
            }
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The value as a string.
    pub(super) fn string(&self, sink: &mut Sink<'_>, expected: &str) -> Option<&'a str> {
        let string = self.value.as_str();
        if string.is_none() {
            sink.bad(self, format!("expected {expected}"));
        }
        string
    }

    /// The value as a boolean.
    pub(super) fn boolean(&self, sink: &mut Sink<'_>) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            sink.bad(self, "expected true or false");
        }
        boolean
    }

    /// The value as an integer, without bounds but those of `i128`.
    pub(super) fn any_integer(&self) -> Option<i128> {
        let integer = self.value.as_integer()?;
        i128::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The value as an integer within bounds.
    pub(super) fn integer(&self, sink: &mut Sink<'_>, bounds: &RangeInclusive<u64>) -> Option<u64> {
        let integer = self
            .any_integer()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| bounds.contains(n));
        if integer.is_none() {
            sink.bad(
                self,
                format!("expected an integer from {} to {}", bounds.start(), bounds.end()),
            );
        }
        integer
    }

    /// The value as one of a few words.
    pub(super) fn choice<T: Copy>(&self, sink: &mut Sink<'_>, words: &[(&str, T)]) -> Option<T> {
        let found = self
            .value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            sink.bad(self, format!("expected {}", words.join(" or ")));
        }
        found.map(|&(_, value)| value)
    }

    /// The value as a string in a unit, within bounds.
    pub(super) fn quantity(
        &self,
        sink: &mut Sink<'_>,
        parse: impl Fn(&str) -> Result<u64, UnitError>,
        example: &str,
        bounds: &RangeInclusive<u64>,
        range: &str,
    ) -> Option<u64> {
        let text = self.string(sink, example)?;
        match parse(text) {
            Ok(value) if bounds.contains(&value) => return Some(value),
            Ok(_) => sink.bad(self, format!("expected {range}")),
            Err(error) => sink.bad(self, error.to_string()),
        }
        None
    }
}

/// One table of the document.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    pub(super) start: usize,
    path: String,
}

/// Keys of the schema that this version does not have yet, with the subject they come with.
pub(super) type Later = [(&'static str, &'static str)];

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(table: &'a DeTable<'a>) -> Self {
        Self {
            table,
            start: 0,
            path: String::new(),
        }
    }

    /// The dotted path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        let plain = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain {
            key.to_owned()
        } else {
            shown(&format!("{key:?}"))
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<Item<'a>> {
        self.table
            .get_key_value(key)
            .map(|(key, value)| self.item(key, value))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, sink: &mut Sink<'_>, expected: &str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() {
            sink.error(
                self.start,
                self.path_of(key),
                format!("expected {expected}: the key is missing"),
            );
        }
        item
    }

    /// The table under a key.
    pub(super) fn section(&self, key: &str, sink: &mut Sink<'_>) -> Option<Section<'a>> {
        let expected = format!("a table [{}]", self.path_of(key));
        self.get(key)?.table(sink, &expected)
    }

    /// The elements of the array under a key; none when it is absent.
    pub(super) fn array(&self, key: &str, sink: &mut Sink<'_>, expected: &str) -> Vec<Item<'a>> {
        self.get(key)
            .and_then(|item| item.array(sink, expected))
            .unwrap_or_default()
    }

    /// The tables of the array of tables under a key.
    pub(super) fn sections(&self, key: &str, sink: &mut Sink<'_>) -> Vec<Section<'a>> {
        let expected = format!("tables that begin with [[{}]]", strip_indices(&self.path_of(key)));
        let items = self.array(key, sink, &expected);
        items
            .iter()
            .filter_map(|item| item.table(sink, &expected))
            .collect()
    }

    /// Every key with its value, in the order of the file.
    pub(super) fn items(&self) -> Vec<(&'a str, Item<'a>)> {
        let mut items: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (key.span().start, key.get_ref().as_ref(), self.item(key, value)))
            .collect();
        items.sort_by_key(|&(at, ..)| at);
        items.into_iter().map(|(_, key, item)| (key, item)).collect()
    }

    /// Reports every key that is not in `known`.
    pub(super) fn check_keys(&self, known: &[&str], later: &Later, sink: &mut Sink<'_>) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let message = match (
                later.iter().find(|(later, _)| *later == name),
                nearest(name, known),
            ) {
                (Some((_, subject)), _) => {
                    format!("expected no such key: {subject} is not in this version of weir yet")
                }
                (None, Some(near)) => format!("expected a key of the schema: did you mean {near}?"),
                (None, None) => format!("expected one of {}", known.join(", ")),
            };
            sink.error(key.span().start, self.path_of(name), message);
        }
    }

    fn item(
        &self,
        key: &toml::Spanned<std::borrow::Cow<'a, str>>,
        value: &'a toml::Spanned<DeValue<'a>>,
    ) -> Item<'a> {
        // A table that only its children imply has no place of its own.
        let span = if value.span().is_empty() {
            key.span()
        } else {
            value.span()
        };
        Item {
            value: value.get_ref(),
            start: span.start,
            end: span.end,
            path: self.path_of(key.get_ref()),
        }
    }
}

/// `service[2].class` as it stands in a header: `service.class`.
fn strip_indices(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|&c| {
            let keep = !inside && c != '[';
            inside = (inside || c == '[') && c != ']';
            keep
        })
        .collect()
}

/// The known word that is nearest to a misspelt one, if any is near.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|&known| (distance(word, known), known)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// Levenshtein distance; words too long to be misspelt keys are far from everything.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > 64 {
        return usize::MAX;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let sink = Sink::new(Path::new("p"), "ab\nüx\n");
        assert_eq!(sink.place(0), (1, 1));
        assert_eq!(sink.place(2), (1, 3));
        assert_eq!(sink.place(3), (2, 1));
        assert_eq!(sink.place(5), (2, 2));
        assert_eq!(sink.place(7), (3, 1));
        assert_eq!(sink.place(99).0, 3);
    }

    #[test]
    fn near_words_are_suggested() {
        assert_eq!(nearest("pakets", &["packets", "bytes"]), Some("packets"));
        assert_eq!(
            nearest("source_port", &["source_ports", "ports"]),
            Some("source_ports")
        );
        assert_eq!(nearest("banana", &["packets", "bytes"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), &["packets"]), None);
    }

    #[test]
    fn headers_have_no_indices() {
        assert_eq!(strip_indices("service[12].class"), "service.class");
    }
}
