//! What the distribution's package lists offer.

use std::{cell::RefCell, collections::HashMap};

use crate::call::Call;

/// Package lists that can be asked.
pub(crate) trait Packages {
    /// The version that would be installed.
    fn candidate(&self, package: &str) -> Option<String>;
    /// The names of the packages that one depends on.
    fn depends(&self, package: &str) -> Vec<String>;
}

/// The lists of APT, asked no more than once for each package.
#[derive(Debug, Default)]
pub(crate) struct Apt {
    candidates: RefCell<HashMap<String, Option<String>>>,
}

impl Packages for Apt {
    fn candidate(&self, package: &str) -> Option<String> {
        let mut known = self.candidates.borrow_mut();
        let ask = || {
            candidate_in(
                &Call::new("apt-cache", ["policy", package])
                    .env("LC_ALL", "C")
                    .probe()?,
            )
        };
        known.entry(package.to_owned()).or_insert_with(ask).clone()
    }

    fn depends(&self, package: &str) -> Vec<String> {
        let text = Call::new("apt-cache", ["depends", package])
            .env("LC_ALL", "C")
            .probe()
            .unwrap_or_default();
        depends_in(&text)
    }
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn depends_in(depends: &str) -> Vec<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_version_is_not_offered() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(candidate_in("x:\n  Installed: 1\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn only_dependencies_are_listed() {
        let text = "libstd\n  Depends: libc6\n  Depends: libllvm22\n  Conflicts: <rustup>\n    other\n";
        assert_eq!(depends_in(text), ["libc6", "libllvm22"]);
    }
}
