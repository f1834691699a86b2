//! Where things are pinned, and the lock on it.
//!
//! ```text
//! <bpffs>/set-<n>/<MAP>            the maps of one set; a higher number has replaced a lower one
//! <bpffs>/set-<n>/page-<i>-<p>     counter page p of interface i
//! <bpffs>/set-<n>/profiles-<p>     page p of profiles, likewise times-<p> and distinct-<p>
//! <bpffs>/set-<n>/<MAP>-<s>        what lies in slot s of a map of tries or tables
//! <bpffs>/set-<n>/state            registry, policy text and levers, as text in an array
//! <bpffs>/links/<mode>-<interface> the links; egress-<interface> and connections: of the programs that see handshakes
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::{KernelError, XdpMode, object::not_permitted};

/// The magic number of bpffs (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The path of a map.
pub(super) fn map(set: &Path, name: &str) -> PathBuf {
    set.join(name)
}

/// The path of a counter page.
pub(super) fn page(set: &Path, interface: u32, page: u32) -> PathBuf {
    set.join(format!("page-{interface}-{page}"))
}

/// The path of a page of profiles, times or registers.
pub(super) fn pages(set: &Path, kind: &str, page: u32) -> PathBuf {
    set.join(format!("{kind}-{page}"))
}

/// The path of what lies in a slot of a map in maps.
pub(super) fn inner(set: &Path, outer: &str, slot: u32) -> PathBuf {
    set.join(format!("{outer}-{slot}"))
}

/// The folder of the links.
pub(super) fn links(dir: &Path) -> PathBuf {
    dir.join("links")
}

/// The path of a link. bpffs refuses dots in names, and interface names may have them.
pub(super) fn link(dir: &Path, mode: XdpMode, interface: &str) -> PathBuf {
    links(dir).join(format!("{}-{}", word(mode), escape(interface)))
}

/// The path of a link that is on its way from one interface's name to another's: no interface's own, since a tilde of a
/// name is escaped.
pub(super) fn link_between(dir: &Path, mode: XdpMode, ifindex: u32) -> PathBuf {
    links(dir).join(format!("{}-~m{ifindex}", word(mode)))
}

fn word(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

/// An interface's name as bpffs takes it.
pub(super) fn escape(interface: &str) -> String {
    interface.replace('~', "~7e").replace('.', "~2e")
}

/// The mode and interface of a link's file name.
pub(super) fn parse_link(name: &str) -> Option<(XdpMode, String)> {
    let (mode, escaped) = name.split_once('-')?;
    let mode = match mode {
        "native" => XdpMode::Native,
        "generic" => XdpMode::Generic,
        _ => return None,
    };
    Some((mode, escaped.replace("~2e", ".").replace("~7e", "~")))
}

/// The sets, by number, ascending.
pub(super) fn sets(dir: &Path) -> Result<Vec<(u32, PathBuf)>, KernelError> {
    let mut sets = Vec::new();
    for entry in read_dir(dir)? {
        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("set-")?.parse().ok())
        {
            sets.push((number, entry.path()));
        }
    }
    sets.sort_unstable();
    Ok(sets)
}

/// A folder's entries; none if it is not there.
pub(super) fn read_dir(dir: &Path) -> Result<Vec<fs::DirEntry>, KernelError> {
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .collect::<Result<_, _>>()
            .map_err(|source| io_error(format!("cannot read {}", dir.display()), source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(io_error(format!("cannot read {}", dir.display()), source)),
    }
}

/// An I/O error with what was being done.
pub(super) fn io_error(what: String, source: io::Error) -> KernelError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => not_permitted(&what.replacen("cannot ", "", 1)),
        _ => KernelError::Io { what, source },
    }
}

/// Makes sure that a folder is on bpffs, creating it; or, not creating, says that nothing is pinned.
pub(super) fn ensure(dir: &Path, create: bool) -> Result<(), KernelError> {
    if !dir.exists() {
        if !create {
            return Err(KernelError::NotPinned { dir: dir.to_owned() });
        }
        // Not below something that is not bpffs: an empty folder there would only mislead.
        let parent = dir
            .ancestors()
            .skip(1)
            .find(|parent| parent.exists())
            .unwrap_or(dir);
        on_bpffs(parent, dir)?;
        fs::create_dir_all(dir)
            .map_err(|source| io_error(format!("cannot create {}", dir.display()), source))?;
    }
    on_bpffs(dir, dir)
}

fn on_bpffs(path: &Path, named: &Path) -> Result<(), KernelError> {
    let status = nix::sys::statfs::statfs(path)
        .map_err(|errno| io_error(format!("cannot look at {}", path.display()), errno.into()))?;
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        reason = "its type differs between architectures"
    )]
    if status.filesystem_type().0 as i64 == BPF_FS_MAGIC {
        Ok(())
    } else {
        Err(KernelError::NoBpffs {
            dir: named.to_owned(),
        })
    }
}

/// The lock of whoever changes what is pinned here. The kernel drops it with its holder.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>, KernelError> {
    let file =
        File::open(dir).map_err(|source| io_error(format!("cannot open {}", dir.display()), source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => KernelError::Locked { dir: dir.to_owned() },
        other => io_error(format!("cannot lock {}", dir.display()), other.into()),
    })
}

/// Removes a folder and what is pinned in it.
pub(super) fn remove(dir: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error(format!("cannot remove {}", dir.display()), source)),
    }
}
