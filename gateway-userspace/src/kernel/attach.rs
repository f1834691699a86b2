//! Attaching, by pinned links, and taking off.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use super::{
    Attachment, KernelError, XdpMode, XdpModeChoice,
    fit::{self, Size},
    handshakes,
    object::{self, Constants, not_permitted},
    pins, sys,
};
use crate::doctor::stranger;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (`include/uapi/linux/if_link.h`).
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

/// The index of an interface.
pub(super) fn ifindex(interface: &str) -> Result<u32, KernelError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| KernelError::NoInterface {
        name: interface.to_owned(),
    })
}

/// The name of an interface in this network namespace; none for an index that nothing has.
fn name_of(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok();
    // An interface that has just vanished may have no name left.
    name.filter(|name| ifindex != 0 && !name.is_empty())
}

/// Every pinned link.
pub(super) fn list(dir: &Path) -> Result<Vec<Attachment>, KernelError> {
    let mut found = Vec::new();
    for entry in pins::read_dir(&pins::links(dir))? {
        let Some((xdp_mode, interface)) = entry.file_name().to_str().and_then(pins::parse_link) else {
            continue;
        };
        let link = open(&entry.path())?;
        let ifindex = sys::link_ifindex(link.as_fd())
            .map_err(|source| pins::io_error(format!("cannot look at the link of {interface}"), source))?;
        let renamed = name_of(ifindex).filter(|now| *now != interface);
        found.push(Attachment {
            interface,
            ifindex,
            xdp_mode,
            fallback: None,
            reused: true,
            renamed,
        });
    }
    found.sort_by(|left, right| left.interface.cmp(&right.interface));
    Ok(found)
}

/// Gives the pins of interfaces that were renamed their new names, so that their links are taken over and not stood in the
/// way of. In two rounds, because two interfaces may have exchanged their names.
fn follow_renames(dir: &Path) -> Result<(), KernelError> {
    let moved = |from: &Path, to: &Path| {
        fs::rename(from, to)
            .map_err(|source| pins::io_error(format!("cannot rename {}", from.display()), source))
    };
    let mut renamed = Vec::new();
    for found in list(dir)? {
        if let Some(now) = found.renamed {
            // The program on the way out is attached anew under the new name.
            handshakes::detach_egress(dir, &found.interface)?;
            // A name that no interface's pin can have; found again like any other if this is cut off here.
            let between = pins::link_between(dir, found.xdp_mode, found.ifindex);
            moved(&pins::link(dir, found.xdp_mode, &found.interface), &between)?;
            renamed.push((between, pins::link(dir, found.xdp_mode, &now)));
        }
    }
    for (between, path) in renamed {
        moved(&between, &path)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd, KernelError> {
    sys::open_pin(path).map_err(|source| pins::io_error(format!("cannot open {}", path.display()), source))
}

/// Attaches to an interface, or replaces the program of the link that is there.
pub(super) fn attach(
    dir: &Path,
    set: &Path,
    constants: &Constants,
    interface: &str,
    choice: XdpModeChoice,
) -> Result<Attachment, KernelError> {
    let index = ifindex(interface)?;
    fs::create_dir_all(pins::links(dir))
        .map_err(|source| pins::io_error(format!("cannot create {}", pins::links(dir).display()), source))?;
    follow_renames(dir)?;
    let mut program = object::prepare(set, constants)?;
    let size = fit::fitting(constants.uses);

    for mode in [XdpMode::Native, XdpMode::Generic] {
        let path = pins::link(dir, mode, interface);
        if !path.exists() {
            continue;
        }
        let link = open(&path)?;
        let wanted = match choice {
            XdpModeChoice::Auto => true,
            XdpModeChoice::Native => mode == XdpMode::Native,
            XdpModeChoice::Generic => mode == XdpMode::Generic,
        };
        let alive = sys::link_ifindex(link.as_fd()).is_ok_and(|at| at == index);
        if alive && wanted && update(&link, &mut program, size)?.is_some() {
            return Ok(Attachment {
                interface: interface.to_owned(),
                ifindex: index,
                xdp_mode: mode,
                fallback: None,
                reused: true,
                renamed: None,
            });
        }
        // The interface was replaced by another of the same name, or another mode is wanted now: one interface cannot
        // have both modes at once, so there is a moment without enforcement here, and nowhere else.
        if alive {
            let _ = sys::link_detach(link.as_fd());
        }
        fs::remove_file(&path)
            .map_err(|source| pins::io_error(format!("cannot remove {}", path.display()), source))?;
    }
    create(dir, &mut program, size, (interface, index), choice)
}

/// Puts a freshly loaded program into a link: the one for single buffers, or where the link's interface has grown beyond
/// them the one for several. The program, or nothing if the link takes neither.
fn update(link: &OwnedFd, program: &mut aya::Ebpf, size: Size) -> Result<Option<OwnedFd>, KernelError> {
    for name in [size.single, size.several] {
        let fresh = object::load(program, name)?;
        match sys::link_update(link.as_fd(), fresh) {
            Ok(()) => {
                let kept = fresh.try_clone_to_owned();
                return kept
                    .map(Some)
                    .map_err(|source| pins::io_error("cannot keep the program".into(), source));
            }
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return Err(not_permitted("replace XDP programs"));
            }
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Puts another program into a link that is there: `known`, or one that is loaded for it, which is returned. One whose interface has vanished has
/// nothing to judge.
pub(super) fn replace(
    dir: &Path,
    set: &Path,
    constants: &Constants,
    found: &Attachment,
    known: Option<&OwnedFd>,
) -> Result<Option<OwnedFd>, KernelError> {
    let link = open(&pins::link(dir, found.xdp_mode, &found.interface))?;
    let alive = || sys::link_ifindex(link.as_fd()).is_ok_and(|index| index != 0);
    if !alive() || known.is_some_and(|known| sys::link_update(link.as_fd(), known.as_fd()).is_ok()) {
        return Ok(None);
    }
    let mut program = object::prepare(set, constants)?;
    let fresh = update(&link, &mut program, fit::fitting(constants.uses))?;
    if fresh.is_some() || !alive() {
        return Ok(fresh);
    }
    Err(KernelError::Other(format!(
        "the program on {} cannot be replaced by one that the policy needs; what was in force stays in force",
        found.interface
    )))
}

/// Makes a new link: natively for frames in one buffer, natively for frames in several, then generic.
fn create(
    dir: &Path,
    program: &mut aya::Ebpf,
    size: Size,
    (interface, index): (&str, u32),
    choice: XdpModeChoice,
) -> Result<Attachment, KernelError> {
    let native = [
        (XdpMode::Native, size.single, NATIVE),
        (XdpMode::Native, size.several, NATIVE),
    ];
    let generic = [(XdpMode::Generic, size.single, GENERIC)];
    let attempts: Vec<_> = match choice {
        XdpModeChoice::Auto => native.into_iter().chain(generic).collect(),
        XdpModeChoice::Native => native.to_vec(),
        XdpModeChoice::Generic => generic.to_vec(),
    };
    let mut refusal: Option<std::io::Error> = None;
    for (mode, name, flags) in attempts {
        let fresh = object::load(program, name)?;
        match sys::link_create(fresh, sys::Target::Xdp(index, flags)) {
            Ok(link) => {
                let path = pins::link(dir, mode, interface);
                sys::pin(link.as_fd(), &path)
                    .map_err(|source| pins::io_error(format!("cannot pin {}", path.display()), source))?;
                let fallback = match (choice, mode, &refusal) {
                    (XdpModeChoice::Auto, XdpMode::Generic, Some(error)) => Some(explain(interface, error)),
                    _ => None,
                };
                return Ok(Attachment {
                    interface: interface.to_owned(),
                    ifindex: index,
                    xdp_mode: mode,
                    fallback,
                    reused: false,
                    renamed: None,
                });
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EPERM) => return Err(not_permitted("attach XDP programs")),
                Some(libc::EBUSY | libc::EEXIST) => return Err(occupied(interface)),
                Some(libc::ENODEV) => {
                    return Err(KernelError::NoInterface {
                        name: interface.to_owned(),
                    });
                }
                // The first refusal is the telling one.
                _ => refusal = refusal.or(Some(error)),
            },
        }
    }
    let why = refusal.map_or_else(
        || "no way to attach was tried".to_owned(),
        |error| explain(interface, &error),
    );
    let mode = if choice == XdpModeChoice::Generic {
        "generic"
    } else {
        "native"
    };
    Err(KernelError::Attach {
        interface: interface.to_owned(),
        mode,
        why,
    })
}

fn occupied(interface: &str) -> KernelError {
    let found = stranger::on(interface);
    let (program, remove) = found.map_or_else(
        || {
            (
                "not Weir's".to_owned(),
                format!("`weir doctor --interface {interface}` says which it is"),
            )
        },
        |stranger| (stranger.what, stranger.remove),
    );
    KernelError::Occupied {
        interface: interface.to_owned(),
        program,
        remove,
    }
}

/// What a refusal of native mode means.
fn explain(interface: &str, error: &std::io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "its driver has no native XDP",
        Some(libc::EINVAL | libc::ERANGE) => "its driver refuses this MTU, queue or offload setting with XDP",
        Some(libc::ENOMEM | libc::ENOSPC) => "its driver lacks queues or memory for XDP",
        _ => "its driver refused",
    };
    format!("{hint} ({error}); see `weir doctor --interface {interface}`")
}

/// Takes Weir off an interface; whether it was on it.
pub(super) fn detach(dir: &Path, interface: &str) -> Result<bool, KernelError> {
    let mut found = false;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let path = pins::link(dir, mode, interface);
        if !path.exists() {
            continue;
        }
        let link = open(&path)?;
        if let Err(error) = sys::link_detach(link.as_fd())
            // An interface that has vanished took the attachment with it.
            && !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT))
        {
            return Err(pins::io_error(format!("cannot detach from {interface}"), error));
        }
        fs::remove_file(&path)
            .map_err(|source| pins::io_error(format!("cannot remove {}", path.display()), source))?;
        found = true;
    }
    handshakes::detach_egress(dir, interface)?;
    Ok(found)
}
