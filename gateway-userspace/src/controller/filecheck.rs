//! What the policy file says now, without reading it again while it does not change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    policy::{bounds, sha256_hex},
    stamp::Stamp,
};

/// A watched file.
#[derive(Clone, Debug)]
pub(super) struct FileCheck {
    path: PathBuf,
    known: Option<(Stamp, String)>,
}

impl FileCheck {
    /// Watches `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: None }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file as it is now, in hexadecimal.
    pub(super) fn sha256(&mut self) -> io::Result<String> {
        let stamp = Stamp::of(&fs::metadata(&self.path)?);
        if let Some((known, sha256)) = &self.known
            && *known == stamp
        {
            return Ok(sha256.clone());
        }
        if stamp.size > bounds::MAX_FILE {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "larger than a policy may be",
            ));
        }
        let sha256 = sha256_hex(&fs::read(&self.path)?);
        self.known = Some((stamp, sha256.clone()));
        Ok(sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        let mut check = FileCheck::new(path.clone());
        assert!(check.sha256().is_err());
        fs::write(&path, "a").unwrap();
        let first = check.sha256().unwrap();
        assert_eq!(check.sha256().unwrap(), first);
        fs::write(&path, "ab").unwrap();
        assert_ne!(check.sha256().unwrap(), first);
    }
}
