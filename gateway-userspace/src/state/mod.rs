//! What survives a restart: files in the state directory (JSON, but for `detectors`), each written whole or not at all.
//!
//! A file is written beside its target, flushed to disk, renamed over it, and the directory flushed; so a crash or a
//! full disk leaves the old file. A file that cannot be read back is set aside as `NAME.corrupt-N` and the controller
//! goes on without it: enforcement must not wait for somebody to mend a file.

mod history;
mod policy;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    history::{By, History, Outcome, Revision},
    policy::PolicyState,
};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be created, read or written.
    #[error(
        "cannot {what} {path}: {source}; make the directory writable for weir, or name another with --state-dir"
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another controller uses it.
    #[error(
        "another weir controller uses the state directory {path}; stop it first, or name another with --state-dir"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

/// The state directory, held by a lock for as long as this value lives.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Opens (and creates, with mode 0750) the directory and makes sure that it can be written.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(fail("create", dir))?;
        let lock_path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o640)
            .open(&lock_path)
            .map_err(fail("write", &lock_path))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(StateError::Locked { path: dir.to_owned() });
            }
            Err((_, errno)) => return Err(fail("lock", &lock_path)(errno.into())),
        };
        let store = Self {
            dir: dir.to_owned(),
            _lock: lock,
        };
        // A directory that is read-only for new files should fail the start, not the first ban in the night.
        let probe = dir.join(".probe");
        fs::write(&probe, b"")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(fail("write to", dir))?;
        Ok(store)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads `name`; `None` when it is not there, or was unreadable and is now set aside.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.damaged(name, &error)?;
                Ok(None)
            }
        }
    }

    /// The bytes of `name`; `None` when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }

    /// Sets `name` aside, which cannot be read back.
    pub fn damaged(&self, name: &str, error: &dyn std::error::Error) -> Result<(), StateError> {
        let path = self.dir.join(name);
        let aside = self.set_aside(&path)?;
        tracing::warn!(
            file = %path.display(), kept_as = %aside.display(), %error,
            "a state file is damaged; it is set aside and weir goes on without it"
        );
        Ok(())
    }

    fn set_aside(&self, path: &Path) -> Result<PathBuf, StateError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut numbered = (1_u32..=10_000).map(|n| self.dir.join(format!("{name}.corrupt-{n}")));
        let aside = numbered.find(|candidate| !candidate.exists());
        let aside = aside.unwrap_or_else(|| self.dir.join(format!("{name}.corrupt")));
        fs::rename(path, &aside).map_err(|source| StateError::Io {
            what: "rename",
            path: path.to_owned(),
            source,
        })?;
        Ok(aside)
    }

    /// Writes `name`, whole or not at all.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        self.write(name, |out| {
            serde_json::to_writer(&mut *out, value)?;
            out.write_all(b"\n")
        })
    }

    /// Writes what `content` writes to `name`, whole or not at all.
    pub fn write(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), StateError> {
        let path = self.dir.join(name);
        let fail = |source| StateError::Io {
            what: "write",
            path: path.clone(),
            source,
        };
        let temporary = self.dir.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o640)
                .open(&temporary)?;
            let mut out = io::BufWriter::new(file);
            content(&mut out)?;
            out.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(fail)
    }

    /// The names of the state files that begin with `prefix` and end with `.json`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, StateError> {
        let fail = |source| StateError::Io {
            what: "read",
            path: self.dir.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            if let Some(name) = name.to_str()
                && name.starts_with(prefix)
                && Path::new(name)
                    .extension()
                    .is_some_and(|extension| extension == "json")
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(store.load::<Vec<u32>>("x.json").unwrap(), None);
        store.save("x.json", &vec![1, 2]).unwrap();
        store.save("x.json", &vec![3]).unwrap();
        assert_eq!(store.load::<Vec<u32>>("x.json").unwrap(), Some(vec![3]));
        assert_eq!(store.names("").unwrap(), ["x.json"]);
        let mode = fs::metadata(store.dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
    }

    #[test]
    fn a_damaged_file_is_set_aside_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 1..=2 {
            fs::write(dir.path().join("x.json"), b"{\"half").unwrap();
            assert_eq!(store.load::<Vec<u32>>("x.json").unwrap(), None);
            assert!(dir.path().join(format!("x.json.corrupt-{n}")).exists());
        }
        assert!(!dir.path().join("x.json").exists());
    }

    #[test]
    fn a_second_controller_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StateError::Locked { .. })));
        drop(store);
        assert!(Store::open(dir.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_way_of_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"").unwrap();
        let error = Store::open(&path.join("state")).unwrap_err().to_string();
        assert!(
            error.contains("--state-dir") && error.contains("file/state"),
            "{error}"
        );
    }
}
