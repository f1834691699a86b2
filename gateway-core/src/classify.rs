//! Which service a packet belongs to.
//!
//! Ports are first turned into *classes*: ports that no policy line tells apart have the same class. Services without
//! addresses are then one table, classes of destination ports by classes of source ports, resolved when the policy was
//! compiled. Services with addresses lie in groups by prefix, from the longest that covers the destination to the
//! shortest; a group is asked for the most specific shape first. The order is the design's: longest
//! address prefix, then one that names the port, then source ports, then a named protocol.

use crate::{
    image::{AddressGroup, DestinationEntry, NESTING},
    packet::{Fragment, Network, Packet},
    wire::{ipv4, ipv6},
};

/// Classes of destination ports that every policy has; those of named ports follow.
pub mod class {
    /// TCP to a port that no service names.
    pub const TCP: u16 = 0;
    /// UDP to a port that no service names.
    pub const UDP: u16 = 1;
    /// ICMP and `ICMPv6`.
    pub const ICMP: u16 = 2;
    /// Every other protocol.
    pub const OTHER: u16 = 3;
    /// A later fragment of TCP: no ports, so only services that name none.
    pub const TCP_FRAGMENT: u16 = 4;
    /// A later fragment of UDP.
    pub const UDP_FRAGMENT: u16 = 5;
    /// The first class of named ports.
    pub const NAMED: u16 = 6;
}

/// The tables of services with addresses.
pub trait Groups {
    /// An address group.
    fn group(&self, number: u32) -> Option<AddressGroup>;
    /// The service of a group for two classes; 0: none.
    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32;
}

/// The tables that classification needs.
pub trait Tables: Groups {
    /// The class of a destination port; `udp` or TCP. [`class::TCP`] or [`class::UDP`] where no service names it. Where
    /// [`Uses::direct`] holds, the number of its service.
    fn port_class(&self, udp: bool, port: u16) -> u16;
    /// The class of a source port; 0 where no service names it.
    fn source_port_class(&self, udp: bool, port: u16) -> u16;
    /// The service without addresses for two classes; 0: none.
    fn by_ports(&self, class: u16, source_class: u16) -> u32;

    /// [`in_groups`]; the kernel half puts it behind a function that its verifier checks by itself.
    #[inline(always)]
    fn in_groups(&self, group: u32, base: u16, class: u16, source_class: u16) -> u32
    where
        Self: Sized,
    {
        in_groups(self, group, base, class, source_class)
    }
}

/// What of a policy classification has to look at.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// Some service names addresses.
    pub groups: bool,
    /// Some service names source ports.
    pub source_ports: bool,
    /// Neither, and the table of destination ports holds services in place of classes.
    pub direct: bool,
}

/// The number of the service, or 0.
#[inline(always)]
pub fn classify<T: Tables>(tables: &T, uses: Uses, packet: &Packet, destination: DestinationEntry) -> u32 {
    if matches!(packet.network, Network::Other(_)) {
        return 0;
    }
    let later = matches!(packet.fragment, Fragment::Later);
    let (base, class, udp) = match packet.protocol {
        ipv4::TCP if later => (class::TCP, class::TCP_FRAGMENT, false),
        ipv4::TCP => (
            class::TCP,
            tables.port_class(false, packet.destination_port),
            false,
        ),
        ipv4::UDP if later => (class::UDP, class::UDP_FRAGMENT, true),
        ipv4::UDP => (class::UDP, tables.port_class(true, packet.destination_port), true),
        ipv4::ICMP | ipv6::ICMPV6 => (class::ICMP, class::ICMP, false),
        _ => (class::OTHER, class::OTHER, false),
    };
    let has_ports = !later && (base == class::TCP || base == class::UDP);
    if uses.direct && has_ports {
        return u32::from(class);
    }
    let source_class = if uses.source_ports && has_ports {
        tables.source_port_class(udp, packet.source_port)
    } else {
        0
    };
    if uses.groups {
        let service = tables.in_groups(destination.group, base, class, source_class);
        if service != 0 {
            return service;
        }
    }
    tables.by_ports(class, source_class)
}

/// The service of the group with the longest prefix that has one for these classes; 0: none. `base` is the class of
/// unnamed ports of the packet's protocol.
#[inline(always)]
pub fn in_groups<T: Groups>(tables: &T, group: u32, base: u16, class: u16, source_class: u16) -> u32 {
    let mut number = group;
    for _ in 0..=NESTING {
        if number == 0 {
            break;
        }
        let Some(group) = tables.group(number) else { break };
        let service = in_group(tables, number, group.shapes, base, class, source_class);
        if service != 0 {
            return service;
        }
        number = group.parent;
    }
    0
}

/// The most specific service of one group. A later fragment's class is nobody's named class, so it falls through to
/// the services that name no ports.
#[inline(always)]
fn in_group<T: Groups>(
    tables: &T,
    number: u32,
    shapes: u32,
    base: u16,
    class: u16,
    source_class: u16,
) -> u32 {
    let named = class >= class::NAMED;
    if shapes & 1 != 0 && named && source_class != 0 {
        let service = tables.by_group(number, class, source_class);
        if service != 0 {
            return service;
        }
    }
    if shapes & 2 != 0 && named {
        let service = tables.by_group(number, class, 0);
        if service != 0 {
            return service;
        }
    }
    if shapes & 4 != 0 && source_class != 0 {
        let service = tables.by_group(number, base, source_class);
        if service != 0 {
            return service;
        }
    }
    if shapes & 8 != 0 {
        tables.by_group(number, base, 0)
    } else {
        0
    }
}
