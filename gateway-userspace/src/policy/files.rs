//! The files that a policy names besides lists: whether they can be used, before the policy is in force.

use std::{io, path::Path};

use super::{
    error::{Finding, PolicyErrors},
    model::Policy,
};
use crate::{
    geo::{Database, GeoError},
    notify::webhook::{SecretError, read_secret},
};

/// Checks them; relative paths are relative to `folder`, the policy file's. `strict`: what this user may not read is an error, as
/// it is for the controller; for others it is a warning, for they may not be meant to.
///
/// # Errors
/// Where a file is not there, or is not what it should be.
pub fn check(policy: &Policy, folder: &Path, strict: bool) -> Result<Vec<Finding>, PolicyErrors> {
    let mut found = Found {
        strict,
        ..Found::default()
    };
    if let Some(file) = policy.webhook.as_ref().and_then(|of| of.secret_file.as_ref()) {
        let path = folder.join(file);
        if let Err(error) = read_secret(&path) {
            let denied = matches!(&error, SecretError::Io { source, .. } if is_denied(source));
            found.add(&path, "anomaly.webhook.secret_file", denied, error.to_string());
        }
    }
    if let Some(geo) = &policy.geo {
        let path = folder.join(&geo.database);
        if let Err(error) = Database::open(&path) {
            let denied = matches!(&error, GeoError::Io { source, .. } if is_denied(source));
            found.add(&path, "geo.database", denied, error.to_string());
        }
    }
    match PolicyErrors::some(found.errors, 0) {
        Some(errors) => Err(errors),
        None => Ok(found.warnings),
    }
}

#[derive(Default)]
struct Found {
    strict: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Found {
    fn add(&mut self, path: &Path, key: &str, denied: bool, message: String) {
        let finding = Finding {
            key: key.to_owned(),
            ..Finding::about(path, message)
        };
        if denied && !self.strict {
            self.warnings.push(finding);
        } else {
            self.errors.push(finding);
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{geo::tests::Writer, policy::parse};

    #[test]
    fn what_a_policy_names_must_be_there_and_fit() {
        let folder = tempfile::tempdir().unwrap();
        let text = "version = 1\n[anomaly.webhook]\nurl = \"https://h.example/\"\nsecret_file = \"secret\"\n\
                    [geo]\ndatabase = \"country.mmdb\"\n";
        let policy = parse(text, Path::new("p.toml")).unwrap().policy;
        let errors = check(&policy, folder.path(), false).unwrap_err();
        let keys: Vec<&str> = errors.errors().iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["anomaly.webhook.secret_file", "geo.database"]);
        let secret = folder.path().join("secret");
        fs::write(&secret, "0123456789abcdef").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(folder.path().join("country.mmdb"), "not a database").unwrap();
        let errors = check(&policy, folder.path(), true).unwrap_err().to_string();
        assert!(errors.contains("chmod o-rwx"), "{errors}");
        assert!(errors.contains("country.mmdb: geo.database: "), "{errors}");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let database = Writer::new(6).country("2001:db8::/32", "NL").bytes();
        fs::write(folder.path().join("country.mmdb"), database).unwrap();
        assert_eq!(check(&policy, folder.path(), true), Ok(Vec::new()));
    }
}
