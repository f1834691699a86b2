//! A policy on its way in: read, validated, its lists gathered. Nothing here touches what is in force.

use std::path::Path;

use crate::{
    kernel::ListContents,
    policy::{self, PolicyErrors, model::Policy, sha256_hex},
};

/// A valid policy with everything that an apply needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What it means.
    pub policy: Policy,
    /// Its text.
    pub text: String,
    /// SHA-256 of the text, in hexadecimal.
    pub sha256: String,
    /// The file that it came from.
    pub path: String,
    /// What its lists hold by the policy and its files, before live changes.
    pub base: ListContents,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

impl Prepared {
    /// From a text that came from `path`.
    pub fn from_text(text: &str, path: &str) -> Result<Self, PolicyErrors> {
        let parsed = policy::parse(text, Path::new(path))?;
        let warnings = parsed.warnings.iter().map(ToString::to_string).collect();
        Self::gather(parsed.policy, text.to_owned(), path, warnings)
    }

    /// From a file.
    pub fn from_file(path: &Path) -> Result<Self, PolicyErrors> {
        let loaded = policy::load(path)?;
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        Self::gather(loaded.policy, loaded.text, &path.to_string_lossy(), warnings)
    }

    /// The same, if the files that it names besides lists can be used. A start does without this: it does not wait for a database
    /// of countries.
    pub fn usable(self) -> Result<Self, PolicyErrors> {
        policy::files::check(&self.policy, folder(&self.path), true)?;
        Ok(self)
    }

    fn gather(policy: Policy, text: String, path: &str, warnings: Vec<String>) -> Result<Self, PolicyErrors> {
        let base = policy::lists::contents(&policy, folder(path))?;
        Ok(Self {
            sha256: sha256_hex(text.as_bytes()),
            policy,
            text,
            path: path.to_owned(),
            base,
            warnings,
        })
    }

    /// Whether the policy has a service of this name.
    pub fn has_service(&self, name: &str) -> bool {
        self.policy.services.iter().any(|service| service.name == name)
    }
}

/// The folder that a policy's file lies in.
pub(super) fn folder(path: &str) -> &Path {
    Path::new(path).parent().unwrap_or(Path::new("/"))
}
