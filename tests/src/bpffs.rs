//! A private directory on bpffs for each test.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Once,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::names;

/// Where bpffs is mounted.
pub const MOUNT: &str = "/sys/fs/bpf";

/// A directory on bpffs, removed with everything pinned in it on drop.
#[derive(Debug)]
pub struct BpffsDir {
    path: PathBuf,
}

impl BpffsDir {
    /// Makes `/sys/fs/bpf/weir-<pid>-<counter>-test`, mounting bpffs first where it is absent.
    pub fn create() -> Result<Self> {
        static SWEPT: Once = Once::new();
        ensure_mounted()?;
        SWEPT.call_once(sweep);
        let path = Path::new(MOUNT).join(names::unique("test"));
        fs::create_dir(&path).with_context(|| format!("cannot make {}; run this as root", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of everything pinned, relative to the directory, directories ending in `/`.
    pub fn pins(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        list(&self.path, "", &mut found)?;
        found.sort();
        Ok(found)
    }
}

impl Drop for BpffsDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Mounts bpffs at [`MOUNT`] if nothing has.
pub fn ensure_mounted() -> Result<()> {
    let kind =
        statfs(MOUNT).with_context(|| format!("{MOUNT} is not there: this kernel has no BPF file system"))?;
    if kind.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs at {MOUNT}; run `mount -t bpf bpf {MOUNT}` as root"))
}

/// Removes the directories whose makers are gone.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(MOUNT) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(names::is_leftover) {
            let _ = remove(&entry.path());
        }
    }
}

fn list(dir: &Path, above: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            let name = name + "/";
            list(&entry.path(), &name, found)?;
            found.push(name);
        } else {
            found.push(name);
        }
    }
    Ok(())
}

/// Removes a directory and all below it; one that is already gone is fine (`weir detach` may have
/// removed it).
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn a_directory_is_private_and_goes_with_what_is_in_it() -> Result<()> {
        skip::require_root();
        let (a, b) = (BpffsDir::create()?, BpffsDir::create()?);
        assert_ne!(a.path(), b.path());
        fs::create_dir_all(a.path().join("maps/inner"))?;
        assert_eq!(a.pins()?, ["maps/", "maps/inner/"]);
        let path = a.path().to_owned();
        drop(a);
        assert!(!path.exists());
        assert!(b.path().exists());
        Ok(())
    }
}
