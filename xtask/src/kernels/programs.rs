//! What runs on a guest: test programs of this workspace as cargo builds them, and `weir` as users run it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::guest::TESTS;
use crate::workspace::{build_weir, cargo};

/// Programs with the names they have on the guest.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) weir: PathBuf,
    pub(crate) tests: Vec<(&'static str, PathBuf)>,
}

/// Builds them.
pub(crate) fn build() -> Result<Programs> {
    let weir = build_weir()?;
    let mut call = cargo(["test", "--no-run", "--locked", "--package", "weir-tests"])
        .args(["--message-format", "json-render-diagnostics"]);
    for test in TESTS {
        call = call.args(["--test", test.program]);
    }
    let messages = call.output()?;
    let mut tests = Vec::new();
    for test in TESTS {
        let path = messages
            .lines()
            .filter_map(executable)
            .find(|path| stem(path) == Some(test.program))
            .with_context(|| format!("cargo did not say where it built the test {}", test.program))?;
        if !path.is_file() {
            bail!(
                "cargo built the test {}, but not as {}",
                test.program,
                path.display()
            );
        }
        tests.push((test.program, path));
    }
    Ok(Programs { weir, tests })
}

/// The program that one of cargo's messages tells of.
fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    Some(rest.split('"').next()?.into())
}

/// A built test's name without the hash that cargo adds.
fn stem(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.rsplit_once('-').map(|(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","executable":"/t/debug/deps/two_cpus-0a1b","fresh":true}"#;
        let path = executable(message).expect("it is there");
        assert_eq!(path, Path::new("/t/debug/deps/two_cpus-0a1b"));
        assert_eq!(stem(&path), Some("two_cpus"));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","executable":null}"#),
            None
        );
    }
}
