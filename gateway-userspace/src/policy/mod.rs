//! The policy file: from TOML text to a live [`model::Policy`], with every error of a file at once.
//!
//! `docs/policy.md` is the reference for operators. [`parse`] reads a text, [`load`] a file; [`lists::contents`] reads the
//! files that lists name, [`files::check`] looks at all others; [`sizing`] says how large the source table must be; [`units`] and [`prefix`] read what the
//! command line shares with the file.

mod anomaly;
pub mod bounds;
mod controller;
mod cross;
pub mod diff;
mod document;
mod error;
mod export;
pub mod files;
mod geo;
mod limits;
mod list_section;
pub mod lists;
pub mod model;
mod on_attack;
pub mod places;
mod ports;
pub mod prefix;
mod sampling;
mod service;
pub mod sizing;
mod ties;
pub mod units;
mod walk;
pub mod webhook;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

pub use self::error::{Finding, PolicyErrors};
use self::{error::shown, model::Policy, walk::Sink};

/// Most errors of TOML itself that are shown: behind the first few, a broken file has little more to say.
const MAX_SYNTAX_ERRORS: usize = 20;

/// A policy read from a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// What it means.
    pub policy: Policy,
    /// What is allowed but odd, in the order of the file.
    pub warnings: Vec<Finding>,
    /// The text.
    pub text: String,
}

/// A policy read from a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// What it means.
    pub policy: Policy,
    /// What is allowed but odd, in the order of the file.
    pub warnings: Vec<Finding>,
    /// The file's text.
    pub text: String,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// The file, as the caller named it.
    pub path: PathBuf,
}

/// Reads a policy from a text; `path` only names it in errors.
pub fn parse(text: &str, path: &Path) -> Result<Parsed, PolicyErrors> {
    check_text(text).map_err(|message| PolicyErrors::one(Finding::about(path, message)))?;
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut sink = Sink::new(path, text);
    if !syntax.is_empty() {
        return Err(broken(&syntax, document.get_ref(), sink));
    }
    let policy = document::read(document.get_ref(), &mut sink);
    let Sink {
        mut errors,
        mut warnings,
        ..
    } = sink;
    errors.sort_by_key(|finding| (finding.line, finding.column));
    warnings.sort_by_key(|finding| (finding.line, finding.column));
    match PolicyErrors::some(errors, 0) {
        Some(errors) => Err(errors),
        None => Ok(Parsed {
            policy,
            warnings,
            text: text.to_owned(),
        }),
    }
}

/// Reads a policy file of at most [`bounds::MAX_FILE`] bytes.
pub fn load(path: &Path) -> Result<Loaded, PolicyErrors> {
    let text = read_text(path).map_err(|message| PolicyErrors::one(Finding::about(path, message)))?;
    let Parsed {
        policy,
        warnings,
        text,
    } = parse(&text, path)?;
    let sha256 = sha256_hex(text.as_bytes());
    Ok(Loaded {
        policy,
        warnings,
        text,
        sha256,
        path: path.to_owned(),
    })
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

fn read_text(path: &Path) -> Result<String, String> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "expected a policy file, but there is none of that name".to_owned(),
        io::ErrorKind::PermissionDenied => "expected a file that may be read; run weir as root".to_owned(),
        io::ErrorKind::IsADirectory => "expected a policy file, but this is a directory".to_owned(),
        _ => format!("expected a file that can be read: {error}"),
    };
    let metadata = std::fs::metadata(path).map_err(explain)?;
    if metadata.is_dir() {
        return Err("expected a policy file, but this is a directory".to_owned());
    }
    let most = bounds::MAX_FILE;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, also where its size is not known beforehand.
    File::open(path)
        .map_err(explain)?
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(explain)?;
    if bytes.len() as u64 > most {
        return Err(format!(
            "expected a policy of at most {} MiB; put long lists into files of their own",
            most >> 20
        ));
    }
    if bytes.contains(&0) {
        return Err("expected a text file, but this one is binary (it has NUL bytes)".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|&&b| b == b'\n')
            .count()
            + 1;
        format!("expected a text file in UTF-8, but line {line} is not")
    })
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() as u64 > bounds::MAX_FILE {
        return Err(format!(
            "expected a policy of at most {} MiB",
            bounds::MAX_FILE >> 20
        ));
    }
    if text.trim().is_empty() {
        return Err("expected a policy, but the file is empty".to_owned());
    }
    Ok(())
}

/// The errors of a text that is not TOML.
fn broken(syntax: &[toml::de::Error], document: &DeTable<'_>, mut sink: Sink<'_>) -> PolicyErrors {
    // One slip often makes the parser stumble more than once on its line.
    let mut lines: BTreeMap<u32, Finding> = BTreeMap::new();
    let mut confined = true;
    for error in syntax {
        let span = error.span().unwrap_or_default();
        let written = sink.text().get(span.clone()).unwrap_or_default();
        confined &= !written.is_empty() && !written.contains('\n');
        let (line, column) = sink.place(span.start);
        let value = Some(shown(written)).filter(|value| !value.is_empty());
        lines.entry(line).or_insert_with(|| {
            let message = format!("expected TOML: {}", error.message());
            Finding {
                file: sink.file().to_owned(),
                line,
                column,
                value,
                message,
                ..Finding::default()
            }
        });
    }
    let more = lines.len().saturating_sub(MAX_SYNTAX_ERRORS);
    let mut errors: Vec<Finding> = lines.values().take(MAX_SYNTAX_ERRORS).cloned().collect();
    if confined {
        // The slips are single words, such as a rate without quotes: the other values are what was meant. Where
        // something is missing instead, all behind it is guesswork, and errors found in that would mislead.
        document::read(document, &mut sink);
        let elsewhere = |finding: &Finding| finding.value.is_some() && !lines.contains_key(&finding.line);
        errors.extend(sink.errors.into_iter().filter(elsewhere));
    }
    errors.sort_by_key(|finding| (finding.line, finding.column));
    PolicyErrors::some(errors, more).unwrap_or_else(|| {
        PolicyErrors::one(Finding {
            message: "expected TOML".to_owned(),
            ..Finding::default()
        })
    })
}
