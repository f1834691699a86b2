//! What is wrong with a policy file, and where.

use std::{fmt, path::Path};

use serde::Serialize;

/// Most findings that [`PolicyErrors`] keeps; the rest is counted.
const MAX_KEPT: usize = 1_000;
/// Most characters of a value that a finding repeats.
const MAX_SHOWN: usize = 60;

/// One error of, or one warning about, a policy file or a list file.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The file, as the operator named it.
    pub file: String,
    /// Line, counted from 1; 0 when the finding is about the whole file.
    pub line: u32,
    /// Column in characters, counted from 1; 0 when the finding is about the whole line or file.
    pub column: u32,
    /// The key, dotted, elements of arrays counted from 1 (`service[2].per_source.packets.rate`); empty for none.
    pub key: String,
    /// The service it is in, by name, where that is known.
    pub service: Option<String>,
    /// The offending value as it is written in the file, shortened.
    pub value: Option<String>,
    /// What was expected, or what is odd.
    pub message: String,
}

impl Finding {
    /// A finding about a file as a whole.
    pub fn about(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            message: message.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().filter(|&n| n != 0) {
            write!(f, ":{number}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(service) = &self.service {
                write!(f, " (service {service:?})")?;
            }
            f.write_str(": ")?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Every error of a policy file (or of the list files it names), in the order of their places; never empty.
///
/// `Display` prints one error a line: `FILE:LINE:COLUMN: KEY: VALUE: expected …`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PolicyErrors {
    errors: Vec<Finding>,
    more: usize,
}

impl PolicyErrors {
    /// A single error.
    pub fn one(error: Finding) -> Self {
        Self {
            errors: vec![error],
            more: 0,
        }
    }

    /// The errors, `more` of which were counted and not kept; nothing when there are none.
    pub(super) fn some(mut errors: Vec<Finding>, more: usize) -> Option<Self> {
        let cut = errors.len().saturating_sub(MAX_KEPT);
        errors.truncate(MAX_KEPT);
        (!errors.is_empty()).then_some(Self {
            errors,
            more: more + cut,
        })
    }

    /// The errors, at most a thousand.
    pub fn errors(&self) -> &[Finding] {
        &self.errors
    }

    /// How many errors there are beyond those that [`Self::errors`] gives.
    pub fn more(&self) -> usize {
        self.more
    }

    /// How many errors there are.
    pub fn count(&self) -> usize {
        self.errors.len() + self.more
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more errors", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// Text from a file, fit for one line of a terminal: first line only, control characters escaped, shortened.
pub(super) fn shown(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut shown = String::new();
    for (index, character) in line.chars().enumerate() {
        if index == MAX_SHOWN {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_prints_what_it_knows() {
        let mut finding = Finding::about(Path::new("p.toml"), "expected a policy");
        assert_eq!(finding.to_string(), "p.toml: expected a policy");
        finding.line = 3;
        assert_eq!(finding.to_string(), "p.toml:3: expected a policy");
        finding.column = 7;
        finding.key = "service[1].ports".into();
        finding.value = Some("\"x\"".into());
        assert_eq!(
            finding.to_string(),
            "p.toml:3:7: service[1].ports: \"x\": expected a policy"
        );
        finding.service = Some("web".into());
        assert_eq!(
            finding.to_string(),
            "p.toml:3:7: service[1].ports (service \"web\"): \"x\": expected a policy"
        );
    }

    #[test]
    fn errors_print_one_a_line_and_count_the_rest() {
        let errors = (0..1_002).map(|_| Finding::about(Path::new("p"), "m")).collect();
        let errors = PolicyErrors::some(errors, 3).unwrap();
        assert_eq!(
            (errors.errors().len(), errors.more(), errors.count()),
            (1_000, 5, 1_005)
        );
        assert!(errors.to_string().starts_with("p: m\np: m\n"));
        assert!(errors.to_string().ends_with("\nand 5 more errors"));
        assert!(PolicyErrors::some(Vec::new(), 0).is_none());
    }

    #[test]
    fn values_are_made_fit_for_a_terminal() {
        assert_eq!(shown("  a\u{1b}[31m\nb"), "a\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), 61);
    }
}
