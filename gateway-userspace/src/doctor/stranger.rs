//! Whose XDP program is on an interface where Weir wants to be, and how to take it off.

use aya::programs::{loaded_links, loaded_programs};

use super::netlink::{self, AttachedMode, AttachedProgram};
use crate::kernel::is_own;

/// A program that is in the way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stranger {
    /// Its name as far as it may be read, id and mode.
    pub(crate) what: String,
    /// The command that takes it off, or what to do.
    pub(crate) remove: String,
}

/// How a program holds on to its interface, as far as this process may see: to read it takes `CAP_SYS_ADMIN`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hold {
    /// By this link.
    Link(u32),
    /// By one of several links, which are not told apart.
    SomeLink,
    /// By none: it was set by netlink, and stays until it is taken off.
    Netlink,
    /// This process may not see links.
    Hidden,
}

/// Looks at the program on an interface; nothing if there is none, or nothing can be seen.
pub(crate) fn on(interface: &str) -> Option<Stranger> {
    let program = netlink::links()
        .ok()?
        .into_iter()
        .find(|link| link.name == interface)?
        .xdp?;
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == program.id)
        .and_then(|info| Some(info.name_as_str()?.to_owned()));
    Some(describe(interface, program, name.as_deref(), hold(program.id)))
}

fn hold(program: u32) -> Hold {
    let (mut found, mut several) = (None, false);
    for link in loaded_links() {
        match link {
            Ok(link) if link.program_id() == program => {
                several = found.is_some();
                found = Some(link.id());
            }
            // A link that ended while we looked is nobody's hold.
            Err(error) if denied(&error) => return Hold::Hidden,
            _ => {}
        }
    }
    match found {
        Some(_) if several => Hold::SomeLink,
        Some(id) => Hold::Link(id),
        None => Hold::Netlink,
    }
}

fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<std::io::Error>() {
            return io.raw_os_error() == Some(libc::EPERM);
        }
        cause = at.source();
    }
    false
}

fn describe(interface: &str, program: AttachedProgram, name: Option<&str>, hold: Hold) -> Stranger {
    let (mode, flag) = match program.mode {
        AttachedMode::Native => ("native", "xdpdrv"),
        AttachedMode::Generic => ("generic", "xdpgeneric"),
        AttachedMode::Hardware => ("offloaded", "xdpoffload"),
        AttachedMode::Several => ("several modes", "xdp"),
    };
    let what = match name {
        Some(name) => format!("{name} (id {}, {mode})", program.id),
        None => format!("id {}, {mode}", program.id),
    };
    let off = format!("ip link set dev {interface} {flag} off");
    let remove = match hold {
        _ if name.is_some_and(is_own) => {
            "it looks like another weir's: weir detach, with the --bpffs that it was started with".to_owned()
        }
        Hold::Link(id) => format!("bpftool link detach id {id}, or end the process that holds this link"),
        Hold::SomeLink => {
            format!(
                "bpftool link list shows its links: bpftool link detach id LINK, of the one on {interface}"
            )
        }
        Hold::Netlink => off,
        Hold::Hidden => format!("{off}, or end the process that attached it"),
    };
    Stranger { what, remove }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hold_has_its_way_out() {
        let say = |mode, name, hold| describe("eth0", AttachedProgram { mode, id: 7 }, name, hold);
        let by_link = say(AttachedMode::Native, Some("acme"), Hold::Link(12));
        assert_eq!(by_link.what, "acme (id 7, native)");
        assert!(by_link.remove.starts_with("bpftool link detach id 12"));
        let by_netlink = say(AttachedMode::Generic, Some("acme"), Hold::Netlink);
        assert_eq!(by_netlink.remove, "ip link set dev eth0 xdpgeneric off");
        let hidden = say(AttachedMode::Several, None, Hold::Hidden);
        assert_eq!(hidden.what, "id 7, several modes");
        assert!(hidden.remove.contains("ip link set dev eth0 xdp off"));
        assert!(
            say(AttachedMode::Native, None, Hold::SomeLink)
                .remove
                .contains("link list")
        );
        for name in ["weir", "weir_frags", "weir_full", "weir_base", "weir_lean_frags"] {
            let own = say(AttachedMode::Native, Some(name), Hold::Link(1));
            assert!(own.remove.contains("--bpffs"), "{own:?}");
        }
    }
}
