//! `policy.json`: the policy in force and what the policy file said when it was last read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The last policy put in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyState {
    /// Counts the applies, from 1.
    pub revision: u64,
    /// SHA-256 of the controller's policy file when it was last read, in hexadecimal.
    pub file_sha256: String,
    /// SHA-256 of [`Self::text`], in hexadecimal.
    pub sha256: String,
    /// Where the text came from; its list files are relative to this file's folder.
    pub path: String,
    /// When it was put in force.
    pub applied_at: Timestamp,
    /// The text in force.
    pub text: String,
}

impl PolicyState {
    /// The name of its state file.
    pub const FILE: &str = "policy.json";

    /// Whether a start should put this text in force rather than the policy file's: the file has not changed since it
    /// was last read, and something else was applied after that.
    pub fn outlives(&self, file_sha256: &str) -> bool {
        self.file_sha256 == file_sha256 && self.sha256 != file_sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applied_policy_outlives_only_an_unchanged_file() {
        let state = PolicyState {
            revision: 3,
            file_sha256: "file".into(),
            sha256: "applied".into(),
            path: "/tmp/x.toml".into(),
            applied_at: Timestamp::UNIX_EPOCH,
            text: String::new(),
        };
        assert!(state.outlives("file"));
        assert!(!state.outlives("changed"));
        let same = PolicyState {
            sha256: "file".into(),
            ..state
        };
        assert!(!same.outlives("file"), "the file itself is in force: read it");
    }
}
