//! SSH sessions: the caller's own, by the variables that sshd sets, and those that stand on this host.

use std::{
    fmt, fs,
    io::BufRead,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
};

/// How many ancestors are asked for their variables; a process has no more in practice.
const ANCESTORS: usize = 64;
/// An established connection in `/proc/net/tcp`.
const ESTABLISHED: u8 = 1;

/// One SSH connection. Its text form is that of `SSH_CONNECTION`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    /// The other end.
    pub peer: SocketAddr,
    /// This host's end; its address is unspecified where only the port is known.
    pub local: SocketAddr,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, local } = self;
        write!(f, "{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port())
    }
}

/// The text is none of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an address, its port, an address and its port")]
pub struct NoSession;

impl FromStr for Session {
    type Err = NoSession;

    fn from_str(text: &str) -> Result<Self, NoSession> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let session = match words[..] {
            [peer, peer_port, local, local_port] => socket(peer, peer_port).zip(socket(local, local_port)),
            // SSH_CLIENT does not say at which of the host's addresses.
            [peer, peer_port, local_port] => socket(peer, peer_port).and_then(|peer| {
                let any: IpAddr = if peer.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                Some((peer, SocketAddr::new(any, local_port.parse().ok()?)))
            }),
            _ => None,
        };
        match session {
            Some((peer, local)) if peer.is_ipv4() == local.is_ipv4() => Ok(Self { peer, local }),
            _ => Err(NoSession),
        }
    }
}

fn socket(address: &str, port: &str) -> Option<SocketAddr> {
    // A link-local address comes with its interface, which no packet carries.
    let address = address.split('%').next()?;
    let address: IpAddr = address.parse().ok()?;
    Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
}

/// The SSH session that this process runs in: by its own variables, else by those of its ancestors (sudo takes them
/// away).
pub fn own_session() -> Option<Session> {
    let variable = |name: &str| std::env::var(name).ok()?.parse().ok();
    variable("SSH_CONNECTION")
        .or_else(|| variable("SSH_CLIENT"))
        .or_else(|| of_ancestors(Path::new("/proc"), std::process::id()))
}

fn of_ancestors(proc: &Path, mut pid: u32) -> Option<Session> {
    for _ in 0..ANCESTORS {
        pid = parent(&fs::read_to_string(proc.join(format!("{pid}/stat"))).ok()?)?;
        // Another user's variables cannot be read; those of its own ancestors perhaps can.
        let environment = fs::read(proc.join(format!("{pid}/environ"))).unwrap_or_default();
        if let Some(session) = of_environment(&environment) {
            return Some(session);
        }
        if pid <= 1 {
            break;
        }
    }
    None
}

/// The parent in a `/proc/PID/stat`; the command's name in it may hold anything, parentheses too.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn of_environment(environment: &[u8]) -> Option<Session> {
    let find = |name: &str| {
        environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes()))
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|value| value.parse().ok())
    };
    find("SSH_CONNECTION=").or_else(|| find("SSH_CLIENT="))
}

/// One line of `/proc/net/tcp`, `tcp6`, `udp` or `udp6`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) session: Session,
    /// As the kernel numbers them: 1 established, 7 closed (a UDP socket without a peer), 10 listening.
    pub(crate) state: u8,
    pub(crate) inode: u64,
}

impl Row {
    /// A connection that stands.
    pub(crate) fn established(&self) -> bool {
        self.state == ESTABLISHED
    }
}

/// The rows of a table of sockets that `wanted` wants; lines that make no sense (the heading) are passed over.
pub(crate) fn rows(table: impl BufRead, mut wanted: impl FnMut(&Row) -> bool) -> Vec<Row> {
    let lines = table.lines().map_while(Result::ok);
    lines
        .filter_map(|line| row(&line))
        .filter(|row| wanted(row))
        .collect()
}

fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1).and_then(end)?;
    let peer = words.next().and_then(end)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    Some(Row {
        session: Session { peer, local },
        state,
        inode,
    })
}

/// An address as the kernel prints it: words of 32 bits in the machine's order, in hexadecimal.
pub(crate) fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = [0_u8; 16];
    let words = address.len() / 8;
    if !address.is_ascii() || address.len() % 8 != 0 {
        return None;
    }
    for at in 0..words {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        bytes
            .get_mut(at * 4..at * 4 + 4)?
            .copy_from_slice(&word.to_ne_bytes());
    }
    let address = match words {
        1 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        4 => IpAddr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read() {
        let of = |text: &str| text.parse::<Session>().map(|session| session.to_string());
        assert_eq!(
            of("192.0.2.7 50122 198.51.100.1 22").unwrap(),
            "192.0.2.7 50122 198.51.100.1 22"
        );
        assert_eq!(of("192.0.2.7 50122 22").unwrap(), "192.0.2.7 50122 0.0.0.0 22");
        assert_eq!(
            of("fe80::1%eth0 1 fe80::2%eth0 22").unwrap(),
            "fe80::1 1 fe80::2 22"
        );
        assert_eq!(
            of("::ffff:192.0.2.7 5 ::ffff:198.51.100.1 22").unwrap(),
            "192.0.2.7 5 198.51.100.1 22",
            "mapped addresses are those of IPv4 packets"
        );
        for wrong in [
            "",
            "192.0.2.7",
            "192.0.2.7 99999 1.1.1.1 22",
            "a b c d",
            "::1 1 1.1.1.1 22",
            "1 2 3 4 5",
        ] {
            assert_eq!(of(wrong), Err(NoSession), "{wrong}");
        }
    }

    #[test]
    fn an_ancestor_has_what_sudo_took_away() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, parent, environment) in [
            (40, 30, "HOME=/root\0"),
            (30, 20, "USER=root\0"),
            (20, 1, "A=b\0SSH_CONNECTION=192.0.2.7 5 198.51.100.1 22\0"),
            (1, 0, ""),
        ] {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (we) ird)) S {parent} 1 1")).unwrap();
            fs::write(folder.join("environ"), environment).unwrap();
        }
        let found = of_ancestors(proc.path(), 40).unwrap();
        assert_eq!(found.to_string(), "192.0.2.7 5 198.51.100.1 22");
        assert_eq!(
            of_ancestors(proc.path(), 20),
            None,
            "its own variables are not its ancestors'"
        );
        assert_eq!(of_ancestors(proc.path(), 99), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_of_sockets_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 02004D0A:0016 01004D0A:C3CA 01 00000000:00000000 02:000A 00000000     0        0 4712 2 0 20 4 30 10 -1
   2: 0000000000000000FFFF000002004D0A:0016 0000000000000000FFFF000001004D0A:0005 01 0:0 0:0 0 0 0 4713 1
   3: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:0006 01 0:0 0:0 0 0 0 4714 1
   4: broken
";
        let found = rows(table.as_bytes(), Row::established);
        let texts: Vec<String> = found.iter().map(|row| row.session.to_string()).collect();
        assert_eq!(
            texts,
            [
                "10.77.0.1 50122 10.77.0.2 22",
                "10.77.0.1 5 10.77.0.2 22",
                "2001:db8::2 6 2001:db8::1 22"
            ]
        );
        assert_eq!(found[0].inode, 4712);
        assert_eq!(rows(table.as_bytes(), |_| true).len(), 4);
    }
}
