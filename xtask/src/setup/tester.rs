//! The property-based API tester: a Python program, in a virtual environment of its own in the target directory.

use std::{fs, path::PathBuf};

use crate::{
    call::Call,
    workspace::{root, target_dir},
};

/// The environment's folder in the target directory; `tests/tests/api_properties.rs` looks for it there.
const FOLDER: &str = "schemathesis";
/// In that folder, a copy of the requirements that are installed.
const PINNED: &str = "installed.txt";

/// What there is of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tester {
    /// Whether Python can make virtual environments.
    pub(crate) python: bool,
    /// Whether what `requirements` pins is installed.
    pub(crate) installed: bool,
    /// Where the environment is or will be.
    pub(crate) folder: PathBuf,
    /// What is to be in it.
    pub(crate) requirements: PathBuf,
}

impl Tester {
    /// Looks for it.
    pub(crate) fn find() -> Self {
        let folder = target_dir()
            .unwrap_or_else(|_| root().join("target"))
            .join(FOLDER);
        let requirements = root().join("tests/api-tester.txt");
        let read = |path: PathBuf| fs::read(path).ok();
        let installed = folder.join("bin/schemathesis").is_file()
            && read(requirements.clone()).is_some_and(|pinned| read(folder.join(PINNED)) == Some(pinned));
        Self {
            python: installed
                || Call::new("python3", ["-c", "import ensurepip, venv"])
                    .probe()
                    .is_some(),
            installed,
            folder,
            requirements,
        }
    }

    /// What installs it, in order.
    pub(crate) fn steps(&self) -> [(&'static str, Call); 3] {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let requirements = path(self.requirements.clone());
        let folder = path(self.folder.clone());
        let pip = path(self.folder.join("bin/pip"));
        [
            (
                "make a Python environment for the API tester",
                Call::new("python3", ["-m", "venv", "--clear", folder.as_str()]),
            ),
            (
                "install the API tester",
                Call::new(
                    pip,
                    [
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                        "-r",
                        requirements.as_str(),
                    ],
                ),
            ),
            (
                "note what is installed",
                Call::new("cp", [requirements, path(self.folder.join(PINNED))]),
            ),
        ]
    }
}
