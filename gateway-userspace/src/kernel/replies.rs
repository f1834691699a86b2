//! Whether a packet answers a socket of this host, by the tables that the kernel prints: what the packet path asks a helper for.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
};

use gateway_core::{
    packet::{Fragment, Network, Packet},
    wire::ipv4,
};

use crate::{compile::prefix, guard::socket_address};

/// States (`include/net/tcp_states.h`) that are no connection of a socket: a handshake that is not complete belongs to its
/// listener, and one that has ended to nobody.
const NOT_CONNECTED: [&str; 4] = ["03", "06", "0A", "0C"];

/// Looks in the tables of this network namespace for a TCP socket that is no listener, or a UDP socket that is connected to
/// the sender.
pub(super) fn answers_socket(packet: &Packet) -> io::Result<bool> {
    let tables = match packet.protocol {
        _ if matches!(packet.fragment, Fragment::Later) => return Ok(false),
        ipv4::TCP => ["tcp", "tcp6"],
        ipv4::UDP => ["udp", "udp6"],
        _ => return Ok(false),
    };
    let v6 = matches!(packet.network, Network::V6);
    let end = |address, port| SocketAddr::new(prefix::address(v6, address).to_canonical(), port);
    let local = end(&packet.destination, packet.destination_port);
    let remote = end(&packet.source, packet.source_port);
    let tcp = packet.protocol == ipv4::TCP;
    for table in tables {
        let file = match File::open(format!("/proc/thread-self/net/{table}")) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines() {
            if connects(&line?, tcp, local, remote) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether one line of a table (proc(5)) is a socket between two ends.
fn connects(line: &str, tcp: bool, local: SocketAddr, remote: SocketAddr) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let is = |word: Option<&str>, end| word.and_then(socket_address) == Some(end);
    is(words.next(), local)
        && is(words.next(), remote)
        && remote.port() != 0
        && words
            .next()
            .is_some_and(|state| !tcp || !NOT_CONNECTED.contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_connection_is_told_from_a_listener_and_from_another() {
        let (local, remote) = (
            "10.77.0.2:22".parse().unwrap(),
            "10.77.0.1:50122".parse().unwrap(),
        );
        let line = |state: &str| {
            format!(
                "   1: 02004D0A:0016 01004D0A:C3CA {state} 00000000:00000000 02:000A 00000000 0 0 4712 2 0"
            )
        };
        assert!(connects(&line("01"), true, local, remote), "established");
        assert!(connects(&line("02"), true, local, remote), "our own SYN is sent");
        assert!(!connects(&line("0A"), true, local, remote), "a listener");
        assert!(!connects(&line("06"), true, local, remote), "it has ended");
        assert!(connects(&line("07"), false, local, remote), "UDP");
        assert!(!connects(&line("01"), true, remote, local), "the other way round");
        let mapped = "1: 0000000000000000FFFF000002004D0A:0016 0000000000000000FFFF000001004D0A:C3CA 01 0:0 0:0 0 0 0 1";
        assert!(connects(mapped, true, local, remote), "a socket of both families");
        assert!(!connects(
            "  sl  local_address rem_address   st",
            true,
            local,
            remote
        ));
    }

    #[test]
    fn a_connection_of_this_host_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let mut packet = crate::explain::blank();
        packet.protocol = ipv4::TCP;
        packet.network = Network::V4;
        packet.source = prefix::words(remote.ip());
        packet.destination = prefix::words(local.ip());
        (packet.source_port, packet.destination_port) = (remote.port(), local.port());
        assert!(answers_socket(&packet).unwrap());
        packet.source_port ^= 1;
        assert!(!answers_socket(&packet).unwrap());
        // Nobody is connected yet who could be answered at the listener.
        packet.destination_port = remote.port();
        assert!(!answers_socket(&packet).unwrap());
    }
}
