//! The programs that see handshakes: one on the way out of each attached interface, one in the host's own TCP.
//!
//! They decide nothing and stand in nobody's way. Where one cannot be attached, Weir goes on without it and says what that
//! means ([`Dataplane::handshake_faults`]).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};
use gateway_core::image::{Control, Generation, flags};

use super::{
    Dataplane, KernelError, attach,
    object::{self, chain},
    pins::{self, io_error},
    sys::{self, Target},
};

/// The program on the way out.
pub(super) const EGRESS: &str = "weir_egress";
/// The program in the host's TCP.
const CONNECTIONS: &str = "weir_connections";

impl Dataplane {
    /// Attaches the programs that the policy in force needs, and takes off those that it does not. `fresh`: those that are
    /// attached may be of another version, and are replaced. While a policy waits for confirmation, what the one before it needs
    /// stays too: the kernel may go back to it by itself.
    pub(super) fn watch_handshakes(&mut self, fresh: bool) -> Result<(), KernelError> {
        let active = self.active()?;
        let read = |generation: u32| -> Result<Generation, KernelError> {
            let read = self.map("GENERATIONS").get(&generation);
            Ok(read
                .map_err(|source| io_error("cannot read the generations".into(), source))?
                .unwrap_or_default())
        };
        let generation = read(active.in_force(Self::now_ns()))?;
        let mut uses = generation.flags;
        if active.until_ns().is_some() {
            uses = read(0)?.flags | read(1)?.flags;
        }
        let interfaces = attach::list(&self.dir)?;
        let mut object = None;
        self.handshake_faults.clear();

        let path = connections_pin(&self.dir);
        if uses & flags::PROOFS == 0 || interfaces.is_empty() {
            remove(&path)?;
        } else if fresh || !path.exists() {
            self.set_control(Control::Namespace, namespace_cookie())?;
            match self.attach_connections(&mut object, &path) {
                Ok(()) => self.prove_established(&generation)?,
                Err(why) => self.handshake_faults.push(format!(
                    "connections of this host cannot be seen ({why}): a source is proven only by handshakes that pass through"
                )),
            }
        }
        for interface in interfaces {
            let path = egress_pin(&self.dir, &interface.interface);
            if uses & (flags::OFFERS | flags::TIMES) == 0 {
                detach_egress(&self.dir, &interface.interface)?;
            } else if (fresh || !path.exists())
                && let Err(why) =
                    self.attach_egress(&mut object, &path, &interface.interface, interface.ifindex)
            {
                self.handshake_faults.push(format!(
                    "what leaves through {} cannot be seen ({why}): a handshake that passes through proves nobody, and its last \
                     packet is judged as a stranger's",
                    interface.interface
                ));
            }
        }
        Ok(())
    }

    /// What could not be attached, and what that means.
    pub fn handshake_faults(&self) -> &[String] {
        &self.handshake_faults
    }

    /// The object, read once however many programs are needed of it.
    fn programs<'a>(&self, object: &'a mut Option<Ebpf>) -> Result<&'a mut Ebpf, KernelError> {
        Ok(match object {
            Some(object) => object,
            None => object.insert(object::prepare(&self.set, &self.constants)?),
        })
    }

    fn attach_connections(&self, object: &mut Option<Ebpf>, path: &Path) -> Result<(), String> {
        let object = self.programs(object).map_err(|error| error.to_string())?;
        let program = object::load(object, CONNECTIONS).map_err(|error| error.to_string())?;
        if replaced(path, program)? {
            return Ok(());
        }
        let cgroup = root_cgroup().ok_or("no cgroup2 is mounted")?;
        let root =
            File::open(&cgroup).map_err(|error| format!("cannot open {}: {error}", cgroup.display()))?;
        let link = sys::link_create(program, Target::Connections(root.as_fd()))
            .map_err(|error| error.to_string())?;
        sys::pin(link.as_fd(), path).map_err(|error| error.to_string())
    }

    fn attach_egress(
        &self,
        object: &mut Option<Ebpf>,
        path: &Path,
        interface: &str,
        ifindex: u32,
    ) -> Result<(), String> {
        let object = self.programs(object).map_err(|error| error.to_string())?;
        let program = object::load(object, EGRESS).map_err(|error| error.to_string())?;
        if replaced(path, program)? {
            return Ok(());
        }
        match sys::link_create(program, Target::Egress(ifindex)) {
            Ok(link) => sys::pin(link.as_fd(), path).map_err(|error| error.to_string()),
            // Before kernel 6.6 there is no such link, only a filter of the classic queueing discipline, which stays by itself.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => classic(object, interface),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Puts a program into a pinned link; false if there is none, or one whose interface is gone (which is then removed).
fn replaced(path: &Path, program: BorrowedFd<'_>) -> Result<bool, String> {
    if !path.exists() {
        return Ok(false);
    }
    let link = sys::open_pin(path).map_err(|error| error.to_string())?;
    if sys::link_update(link.as_fd(), program).is_ok() {
        return Ok(true);
    }
    remove(path).map_err(|error| error.to_string())?;
    Ok(false)
}

/// Attaches the program on the way out as a classic filter, in place of one of ours that is there.
fn classic(object: &mut Ebpf, interface: &str) -> Result<(), String> {
    let program: &mut SchedClassifier = object
        .program_mut(EGRESS)
        .and_then(|program| program.try_into().ok())
        .ok_or("the object has no such program")?;
    // It is there already where somebody else uses it, too.
    let _ = tc::qdisc_add_clsact(interface);
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, EGRESS);
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let link = program
        .attach_with_options(interface, TcAttachType::Egress, options)
        .and_then(|id| program.take_link(id))
        .map_err(|error| chain(&error))?;
    // aya takes the filter off when its value goes; it must outlive this process.
    std::mem::forget(link);
    Ok(())
}

fn connections_pin(dir: &Path) -> PathBuf {
    pins::links(dir).join("connections")
}

fn egress_pin(dir: &Path, interface: &str) -> PathBuf {
    pins::links(dir).join(format!("egress-{}", pins::escape(interface)))
}

/// Takes the program on the way out off an interface.
pub(super) fn detach_egress(dir: &Path, interface: &str) -> Result<(), KernelError> {
    let path = egress_pin(dir, interface);
    if path.exists() {
        return remove(&path);
    }
    // None of ours, or no such interface any more: nothing to take off.
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, EGRESS);
    Ok(())
}

/// Takes the program in the host's TCP off.
pub(super) fn detach_connections(dir: &Path) -> Result<(), KernelError> {
    remove(&connections_pin(dir))
}

/// Detaches a pinned link, whoever else has it open, and removes the pin.
fn remove(path: &Path) -> Result<(), KernelError> {
    let link: OwnedFd = match sys::open_pin(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(format!("cannot open {}", path.display()), source)),
    };
    // An interface that has vanished took the attachment with it.
    let _ = sys::link_detach(link.as_fd());
    fs::remove_file(path).map_err(|source| io_error(format!("cannot remove {}", path.display()), source))
}

/// Where the hierarchy of cgroups is mounted, which depends on the distribution.
fn root_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_of_cgroup2(&mounts)
}

/// The mount point of the root of cgroup2, from the text of `mountinfo` (proc(5)): fields 4 and 5 are the root and the mount
/// point, and after a lone `-` comes the file system's type.
fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2" && root == "/").then(|| PathBuf::from(place))
    })
}

/// The cookie of this process's network namespace; 0, which stands for any, where the kernel does not say (before 5.14).
fn namespace_cookie() -> u64 {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .ok()
    .and_then(|socket| sys::namespace_cookie(socket.as_fd()).ok())
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_cgroup2_is_found_wherever_it_is_mounted() {
        let line = |root: &str, place: &str, kind: &str| {
            format!("30 23 0:26 {root} {place} rw,nosuid shared:4 - {kind} {kind} rw,nsdelegate\n")
        };
        let mounts = [
            line("/", "/sys/fs/cgroup", "tmpfs"),
            line("/user.slice", "/some/where", "cgroup2"),
            line("/", "/sys/fs/cgroup/unified", "cgroup2"),
        ]
        .concat();
        assert_eq!(
            mount_of_cgroup2(&mounts),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(mount_of_cgroup2(&line("/", "/sys/fs/cgroup", "cgroup")), None);
        assert_eq!(mount_of_cgroup2("cut off"), None);
    }
}
