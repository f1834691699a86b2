//! What this host serves: the ports that its sockets listen on, the ports that are asked for, and which service of a policy
//! names each; and a first policy drawn from that.

mod draft;
mod naming;
mod routes;
mod sockets;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

pub use self::{
    draft::{Draft, draft},
    routes::default_interfaces,
    sockets::{Listening, Program, listening, programs},
};
use crate::{
    api::traffic::{Estimate, PortUse},
    policy::model::{Policy, Protocol},
};

/// The most ports that are told although nobody listens there and no service names them: one that scans asks for all.
const MOST_ASKED: usize = 100;

/// How much a port is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// How much.
    pub estimate: Estimate,
    /// The source that sends it most.
    pub top_source: Option<IpNet>,
}

/// A port's protocol, as the policy names it.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Any => "any",
    }
}

/// The ports that a socket listens on, that are asked for, or that a service of the policy names and nobody listens on; by
/// protocol and port. A range that a service names and where nobody listens is told as its first port.
pub fn ports(policy: &Policy, sockets: &[Listening], asked: &[Asked]) -> Vec<PortUse> {
    let mut found: BTreeMap<(Protocol, u16), PortUse> = BTreeMap::new();
    for socket in sockets {
        let port = at(&mut found, socket.protocol, socket.port);
        if !port.listening.contains(&socket.address) {
            port.listening.push(socket.address);
        }
        if port.program.is_none() {
            port.program.clone_from(&socket.program);
        }
    }
    for (protocol, port) in naming::unserved(policy, sockets) {
        at(&mut found, protocol, port);
    }
    let known: BTreeSet<(Protocol, u16)> = found.keys().copied().collect();
    let mut strange = 0;
    for one in heaviest_first(asked) {
        if !known.contains(&(one.protocol, one.port)) {
            strange += 1;
            if strange > MOST_ASKED {
                continue;
            }
        }
        let port = at(&mut found, one.protocol, one.port);
        port.estimate = one.estimate;
        port.top_source = one.top_source;
    }
    let mut ports: Vec<PortUse> = found
        .into_iter()
        .map(|((protocol, number), mut port)| {
            port.listening.sort_unstable();
            port.service = naming::service_of(policy, protocol, number, &port.listening).map(str::to_owned);
            port
        })
        .collect();
    ports.sort_by_key(|port| (port.port, port.protocol.clone()));
    ports
}

fn heaviest_first(asked: &[Asked]) -> Vec<&Asked> {
    let mut asked: Vec<&Asked> = asked.iter().collect();
    let rate = |asked: &Asked| asked.estimate.packets_per_second;
    asked.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
    asked
}

fn at(found: &mut BTreeMap<(Protocol, u16), PortUse>, protocol: Protocol, port: u16) -> &mut PortUse {
    found.entry((protocol, port)).or_insert_with(|| PortUse {
        protocol: protocol_name(protocol).to_owned(),
        port,
        service: None,
        listening: Vec::new(),
        program: None,
        estimate: Estimate::default(),
        top_source: None,
    })
}

/// Whether packets from outside can reach a socket there: one on the loopback hears only this host.
pub fn reachable(address: IpAddr) -> bool {
    !address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const POLICY: &str = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80, "8000-8010"]
[[service]]
name = "inner"
protocol = "tcp"
ports = [80]
addresses = ["10.0.0.0/8"]
[[service]]
name = "games"
protocol = "udp"
ports = ["27000-27100", 4000]
"#;

    fn policy() -> Policy {
        crate::policy::parse(POLICY, Path::new("p.toml")).unwrap().policy
    }

    fn socket(protocol: Protocol, address: &str, port: u16) -> Listening {
        Listening {
            protocol,
            address: address.parse().unwrap(),
            port,
            program: Some("one".into()),
            inode: 1,
        }
    }

    #[test]
    fn ports_that_listen_are_asked_for_or_named_are_told_once() {
        let sockets = [
            socket(Protocol::Tcp, "0.0.0.0", 80),
            socket(Protocol::Tcp, "::", 80),
            socket(Protocol::Udp, "0.0.0.0", 27_050),
            socket(Protocol::Tcp, "127.0.0.1", 5432),
        ];
        let asked = |protocol, port, packets_per_second| Asked {
            protocol,
            port,
            estimate: Estimate {
                packets_per_second,
                ..Estimate::default()
            },
            top_source: None,
        };
        let asked = [asked(Protocol::Tcp, 80, 7.0), asked(Protocol::Tcp, 23, 3.0)];
        let found = ports(&policy(), &sockets, &asked);
        let told: Vec<_> = found
            .iter()
            .map(|port| {
                (
                    port.port,
                    port.protocol.as_str(),
                    port.service.as_deref(),
                    port.listening.len(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (23, "tcp", None, 0),
                (80, "tcp", Some("web"), 2),
                (4000, "udp", Some("games"), 0),
                (5432, "tcp", None, 1),
                (8000, "tcp", Some("web"), 0),
                (27_050, "udp", Some("games"), 1),
            ]
        );
        assert!((found[1].estimate.packets_per_second - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_scan_does_not_fill_the_inventory() {
        let asked: Vec<_> = (1..=5000)
            .map(|port| Asked {
                protocol: Protocol::Tcp,
                port,
                estimate: Estimate {
                    packets_per_second: f64::from(port),
                    ..Estimate::default()
                },
                top_source: None,
            })
            .collect();
        let found = ports(&policy(), &[], &asked);
        assert!(found.len() <= MOST_ASKED + 4, "{}", found.len());
        assert!(
            found.iter().any(|port| port.port == 5000),
            "the heaviest are told"
        );
        assert!(
            found
                .iter()
                .any(|port| port.port == 80 && port.estimate.packets_per_second > 0.0),
            "and those that a service names"
        );
    }

    #[test]
    fn an_address_of_its_own_decides_before_all_addresses() {
        let sockets = [socket(Protocol::Tcp, "10.1.2.3", 80)];
        let found = ports(&policy(), &sockets, &[]);
        let web = found.iter().find(|port| port.port == 80).unwrap();
        assert_eq!(web.service.as_deref(), Some("inner"));
    }
}
