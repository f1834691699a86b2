//! The sockets that listen on this host, and the programs that hold them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader},
    net::IpAddr,
    path::Path,
};

use crate::{
    guard::{rows, socket_inode},
    policy::model::Protocol,
};

/// A TCP socket that listens, in `/proc/net/tcp`.
const LISTENS: u8 = 10;
/// A UDP socket without a peer, in `/proc/net/udp`.
const UNCONNECTED: u8 = 7;
/// The most descriptors that are looked at for the programs' names.
const MOST_DESCRIPTORS: usize = 1_000_000;

/// A program's name, as the kernel has it: at most 15 bytes.
pub type Program = String;

/// A socket that listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listening {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address; unspecified: all.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The program that holds it, where that can be seen.
    pub program: Option<Program>,
    /// The kernel's number of the socket.
    pub inode: u64,
}

/// The sockets that listen in the network namespace of this process, with their programs where this process may look: UDP
/// sockets without a peer count, except those that the kernel chose a port for (they ask, and do not serve).
pub fn listening() -> io::Result<Vec<Listening>> {
    let mut found = read(Path::new("/proc/net"), ephemeral())?;
    let programs = programs(
        Path::new("/proc"),
        &found.iter().map(|socket| socket.inode).collect(),
    );
    for socket in &mut found {
        socket.program = programs.get(&socket.inode).cloned();
    }
    Ok(found)
}

/// The ports that the kernel chooses by itself.
fn ephemeral() -> std::ops::RangeInclusive<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = range.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32_768..=60_999,
    }
}

fn read(net: &Path, ephemeral: std::ops::RangeInclusive<u16>) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for (protocol, state, files) in [
        (Protocol::Tcp, LISTENS, ["tcp", "tcp6"]),
        (Protocol::Udp, UNCONNECTED, ["udp", "udp6"]),
    ] {
        for name in files {
            let file = match File::open(net.join(name)) {
                Ok(file) => file,
                // A host without IPv6 has only the first.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => continue,
                Err(error) => return Err(error),
            };
            let rows = rows(BufReader::new(file), |row| {
                let port = row.session.local.port();
                row.state == state && (protocol == Protocol::Tcp || !ephemeral.contains(&port))
            });
            found.extend(rows.into_iter().map(|row| Listening {
                protocol,
                address: row.session.local.ip(),
                port: row.session.local.port(),
                program: None,
                inode: row.inode,
            }));
        }
    }
    Ok(found)
}

/// The names of the programs that hold these sockets, by socket. Other users' descriptors can only be read with rights.
pub fn programs(proc: &Path, wanted: &BTreeSet<u64>) -> BTreeMap<u64, Program> {
    let mut found = BTreeMap::new();
    let mut left = MOST_DESCRIPTORS;
    for process in fs::read_dir(proc).into_iter().flatten().flatten() {
        if found.len() == wanted.len() || left == 0 {
            break;
        }
        let is_process = process
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let folder = process.path();
        for descriptor in fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            let Some(inode) = socket_inode(&descriptor.path()).filter(|inode| wanted.contains(inode)) else {
                continue;
            };
            // Several processes may hold one socket; the first that is found names it.
            found.entry(inode).or_insert_with(|| {
                let name = fs::read(folder.join("comm")).unwrap_or_default();
                // A program may call itself anything, and this goes to terminals.
                let name = String::from_utf8_lossy(&name);
                name.chars().filter(|c| !c.is_control()).collect()
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read_with_their_programs() {
        let proc = tempfile::tempdir().unwrap();
        let net = proc.path().join("net");
        fs::create_dir(&net).unwrap();
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let row = |local: &str, peer: &str, state: &str, inode: u64| {
            format!("   0: {local} {peer} {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n")
        };
        let none = "00000000:0000";
        let tcp = row("00000000:0050", none, "0A", 11)
            + &row("0100007F:1538", none, "0A", 12)
            + &row("0100007F:0050", "0200007F:9999", "01", 13);
        fs::write(net.join("tcp"), head.to_owned() + &tcp).unwrap();
        let udp = row("00000000:0035", none, "07", 14)
            + &row("00000000:9C40", none, "07", 15)
            + &row("0100007F:0043", "0200007F:0044", "01", 16);
        fs::write(net.join("udp"), head.to_owned() + &udp).unwrap();
        let found = read(&net, 32_768..=60_999).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|socket| {
                (
                    socket.protocol,
                    socket.address.to_string(),
                    socket.port,
                    socket.inode,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Protocol::Tcp, "0.0.0.0".to_owned(), 80, 11),
                (Protocol::Tcp, "127.0.0.1".to_owned(), 5432, 12),
                (Protocol::Udp, "0.0.0.0".to_owned(), 53, 14),
            ]
        );

        let fd = proc.path().join("7/fd");
        fs::create_dir_all(&fd).unwrap();
        fs::write(proc.path().join("7/comm"), "ngi\u{1b}[31mnx\n").unwrap();
        symlink("socket:[11]", fd.join("3")).unwrap();
        symlink("/dev/null", fd.join("4")).unwrap();
        let found = programs(proc.path(), &BTreeSet::from([11, 14]));
        assert_eq!(found, BTreeMap::from([(11, "ngi[31mnx".to_owned())]));
        assert!(read(&proc.path().join("nowhere"), 1..=2).is_err());
    }

    #[test]
    fn this_hosts_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listening().unwrap();
        let ours = found.iter().find(|socket| socket.port == port).unwrap();
        assert_eq!(ours.protocol, Protocol::Tcp);
        assert!(ours.program.is_some(), "its own descriptors can be read");
    }
}
