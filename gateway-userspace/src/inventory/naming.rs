//! Which service of a policy names a port.

use std::{collections::BTreeSet, net::IpAddr};

use super::sockets::Listening;
use crate::policy::model::{Policy, Protocol, Service};

/// The service that packets to this port are judged by, as far as the port and the addresses that listen there tell: the one
/// whose address prefix is longest, then one that names the port, then one that names the protocol. Services that ask for a
/// source port are not about this host's ports.
pub(super) fn service_of<'p>(
    policy: &'p Policy,
    protocol: Protocol,
    port: u16,
    listening: &[IpAddr],
) -> Option<&'p str> {
    let fits = policy.services.iter().filter_map(|service| {
        let named = service.protocols.contains(&protocol);
        let any = service.protocols.contains(&Protocol::Any);
        let numbered = service
            .ports
            .iter()
            .any(|range| (range.first..=range.last).contains(&port));
        let wanted =
            (named || any) && (numbered || service.ports.is_empty()) && service.source_ports.is_empty();
        let length = address_length(service, listening)?;
        wanted.then_some(((length, numbered, named), service))
    });
    // Of two that rank alike (neither can be told from the port alone) the first of the file.
    let best = fits.reduce(|best, other| if other.0 > best.0 { other } else { best });
    best.map(|(_, service)| service.name.as_str())
}

/// The longest prefix of the service that holds an address that listens; nothing if it has prefixes and none does. A socket
/// on every address may be asked for at any.
fn address_length(service: &Service, listening: &[IpAddr]) -> Option<u8> {
    if service.addresses.is_empty() {
        return Some(0);
    }
    if listening.iter().any(IpAddr::is_unspecified) || listening.is_empty() {
        // Some of its traffic belongs here, but a service for all addresses says more about the port.
        return Some(0);
    }
    let holding = service
        .addresses
        .iter()
        .filter(|prefix| listening.iter().any(|address| prefix.contains(address)));
    holding.map(ipnet::IpNet::prefix_len).max()
}

/// The ports that services name and no socket listens on; of a range the first, if nobody listens anywhere in it.
pub(super) fn unserved(policy: &Policy, sockets: &[Listening]) -> BTreeSet<(Protocol, u16)> {
    let mut found = BTreeSet::new();
    for service in policy
        .services
        .iter()
        .filter(|service| service.source_ports.is_empty())
    {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if !service.protocols.contains(&protocol) {
                continue;
            }
            for range in &service.ports {
                let served = sockets.iter().any(|socket| {
                    socket.protocol == protocol && (range.first..=range.last).contains(&socket.port)
                });
                if !served {
                    found.insert((protocol, range.first));
                }
            }
        }
    }
    found
}
