//! A control group that bounds the memory of what is put into it.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::names;

/// A memory group; removed on drop, when its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    /// The files that hold the limit and the usage.
    limit: &'static str,
    usage: &'static str,
}

impl MemoryGroup {
    /// Makes a group without a limit; nothing where this machine has no memory controller to offer, of either version.
    pub fn create() -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let (Some(mount), mut kind) = (left.split(' ').nth(4), right.split(' ')) else {
                continue;
            };
            let (fstype, options) = (kind.next(), kind.nth(1).unwrap_or_default());
            let (limit, usage) = match fstype {
                Some("cgroup") if options.split(',').any(|option| option == "memory") => {
                    ("memory.limit_in_bytes", "memory.usage_in_bytes")
                }
                Some("cgroup2") if offers_memory(Path::new(mount)) => ("memory.max", "memory.current"),
                _ => continue,
            };
            let path = Path::new(mount).join(names::unique("memory"));
            fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
            return Ok(Some(Self { path, limit, usage }));
        }
        Ok(None)
    }

    /// The file whose readers and writers are the group's processes: write a process id to it.
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Bytes in use.
    pub fn usage(&self) -> Result<u64> {
        let text = fs::read_to_string(self.path.join(self.usage))?;
        Ok(text.trim().parse()?)
    }

    /// Bounds the memory, in bytes.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let path = self.path.join(self.limit);
        fs::write(&path, bytes.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Whether groups right below this one may bound memory, also if that must be asked for first.
fn offers_memory(mount: &Path) -> bool {
    let has = |name: &str| {
        fs::read_to_string(mount.join(name))
            .is_ok_and(|text| text.split_whitespace().any(|controller| controller == "memory"))
    };
    has("cgroup.controllers")
        && (has("cgroup.subtree_control")
            || fs::write(mount.join("cgroup.subtree_control"), "+memory").is_ok())
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended is still counted for a moment.
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => return,
            }
        }
        eprintln!("{} stays behind", self.path.display());
    }
}
