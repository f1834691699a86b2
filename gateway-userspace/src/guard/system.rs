//! The guarded as this machine shows them, without any capability beyond Weir's own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufReader,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Guarded, Neighbours, Session,
    sessions::{Row, rows},
};
use crate::doctor::netlink;

/// Where sshd listens when nobody can tell.
const SSH: u16 = 22;
/// For how long a look is good: a thousand bans a second must not read every socket of the host a thousand times.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Names that SSH servers have as processes (and their children for each session).
const SERVERS: [&str; 2] = ["sshd", "dropbear"];

/// This machine, in the network namespace of the process.
#[derive(Debug, Default)]
pub struct System {
    seen: Option<(Instant, Vec<Guarded>)>,
}

impl Neighbours for System {
    fn look(&mut self) -> Vec<Guarded> {
        if let Some((at, seen)) = &self.seen
            && at.elapsed() < GOOD_FOR
        {
            return seen.clone();
        }
        let mut all: Vec<Guarded> = sessions().into_iter().map(Guarded::Other).collect();
        all.extend(local_addresses().into_iter().map(Guarded::Local));
        match netlink::gateways() {
            Ok(gateways) => all.extend(gateways.into_iter().map(Guarded::Gateway)),
            Err(error) => {
                tracing::warn!(%error, "cannot read the routes; the default gateway is not guarded");
            }
        }
        self.seen = Some((Instant::now(), all.clone()));
        all
    }
}

/// The addresses of this host's interfaces, without loopback: those never arrive from outside.
fn local_addresses() -> BTreeSet<IpAddr> {
    let addresses = match nix::ifaddrs::getifaddrs() {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::warn!(%error, "cannot read this host's addresses; they are not guarded");
            return BTreeSet::new();
        }
    };
    let addresses = addresses.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// The SSH sessions that stand with this host.
fn sessions() -> Vec<Session> {
    let ports = ssh_ports();
    let all = tables(|row| {
        row.established() && ports.contains(&row.session.local.port()) && !row.session.peer.ip().is_loopback()
    });
    all.into_iter().map(|row| row.session).collect()
}

/// The ports of the sockets that an SSH server holds; reading another user's descriptors may not be permitted, and then
/// it is the usual one.
fn ssh_ports() -> BTreeSet<u16> {
    let inodes = server_sockets(Path::new("/proc"));
    let mut ports = BTreeSet::new();
    if !inodes.is_empty() {
        let held = tables(|row| inodes.contains(&row.inode));
        ports.extend(held.iter().map(|row| row.session.local.port()));
    }
    if ports.is_empty() {
        ports.insert(SSH);
    }
    ports
}

fn tables(mut wanted: impl FnMut(&Row) -> bool) -> Vec<Row> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    // A host without IPv6 has only the first.
    let files = files.into_iter().filter_map(|path| File::open(path).ok());
    files
        .flat_map(|file| rows(BufReader::new(file), &mut wanted))
        .collect()
}

fn server_sockets(proc: &Path) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        let folder = process.path();
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if !SERVERS.iter().any(|server| name.starts_with(server)) {
            continue;
        }
        for descriptor in fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
            inodes.extend(socket_inode(&descriptor.path()));
        }
    }
    inodes
}

/// The socket that a `/proc/PID/fd/N` is.
pub(crate) fn socket_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// The SSH sessions that stand with this host, and the ports that its SSH servers use.
pub fn ssh() -> (Vec<Session>, BTreeSet<u16>) {
    (sessions(), ssh_ports())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sockets_of_ssh_servers_are_found_by_their_processes() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, name, inode) in [
            (1, "init\n", 1),
            (2, "sshd\n", 2),
            (3, "sshd-session\n", 3),
            (4, "ssh\n", 4),
        ] {
            let fd = proc.path().join(format!("{pid}/fd"));
            fs::create_dir_all(&fd).unwrap();
            fs::write(proc.path().join(format!("{pid}/comm")), name).unwrap();
            symlink(format!("socket:[{inode}]"), fd.join("3")).unwrap();
            symlink("/dev/null", fd.join("0")).unwrap();
        }
        assert_eq!(server_sockets(proc.path()), BTreeSet::from([2, 3]));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let mut system = System::default();
        let seen = system.look();
        assert!(
            seen.iter().all(|guarded| !guarded.address().is_loopback()),
            "{seen:?}"
        );
        assert_eq!(system.look(), seen);
    }
}
