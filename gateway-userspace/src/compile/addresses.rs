//! Services with addresses: groups by prefix, who is nested in whom, and the table from group and port classes to
//! services. The scope's prefixes lie in the same tries.

use std::collections::BTreeMap;

use gateway_core::{
    classify::class,
    image::{ADDRESS_GROUPS, AddressGroup, DestinationEntry, NESTING},
};
use ipnet::IpNet;

use super::{
    CompileError,
    ports::{Dimension, Ports},
    prefix,
};
use crate::policy::model::{Protocol, Service};

/// What [`compile`] makes.
#[derive(Debug, Default)]
pub struct Addresses {
    /// The groups; number 0 is none.
    pub groups: Vec<AddressGroup>,
    /// Services by group and classes: `group << 32 | class << 16 | source class`.
    pub table: Vec<(u64, u32)>,
    /// What the tries say of destinations.
    pub destinations: Vec<(IpNet, DestinationEntry)>,
}

/// Compiles addresses and scope.
pub fn compile(
    services: &[Service],
    numbers: &[u32],
    scope: &[IpNet],
    ports: &Ports,
) -> Result<Addresses, CompileError> {
    let mut by_prefix: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
    for (at, service) in services.iter().enumerate() {
        for address in &service.addresses {
            by_prefix.entry(*address).or_default().push(at);
        }
    }
    if by_prefix.len() + 1 > ADDRESS_GROUPS as usize {
        return Err(CompileError::TooMany {
            what: "address prefixes of services",
            most: ADDRESS_GROUPS - 1,
        });
    }
    let mut result = Addresses {
        groups: vec![AddressGroup::default()],
        ..Addresses::default()
    };
    let mut scoped: BTreeMap<IpNet, DestinationEntry> = scope
        .iter()
        .map(|net| (*net, DestinationEntry { group: 0, scope: 1 }))
        .collect();
    for net in by_prefix.keys() {
        scoped.entry(*net).or_default();
    }
    // Prefixes in order: a prefix comes before all that it covers, so a stack holds the chain of those around.
    let mut ordered: Vec<IpNet> = scoped.keys().copied().collect();
    ordered.sort_unstable_by(prefix::order);
    let mut around: Vec<(IpNet, DestinationEntry)> = Vec::new();
    for net in ordered {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
            around.pop();
        }
        let outer = around.last().map(|(_, entry)| *entry).unwrap_or_default();
        let mut entry = DestinationEntry {
            group: outer.group,
            scope: scoped[&net].scope | outer.scope,
        };
        if let Some(members) = by_prefix.get(&net) {
            let number = result.groups.len() as u32;
            let shapes = group(number, members, services, numbers, ports, &mut result.table);
            result.groups.push(AddressGroup {
                parent: outer.group,
                shapes,
            });
            entry.group = number;
        }
        if around.len() >= 2 * NESTING {
            return Err(CompileError::TooDeep {
                prefix: net,
                most: NESTING,
            });
        }
        around.push((net, entry));
        result.destinations.push((net, entry));
    }
    Ok(result)
}

/// Adds a group's services to the table; returns its shapes.
fn group(
    number: u32,
    members: &[usize],
    services: &[Service],
    numbers: &[u32],
    ports: &Ports,
    table: &mut Vec<(u64, u32)>,
) -> u32 {
    let mut cells: BTreeMap<(u16, u16), usize> = BTreeMap::new();
    let mut shapes = 0;
    // Those for any protocol first, so that those that name one overwrite them.
    let mut ordered: Vec<usize> = members.to_vec();
    ordered.sort_by_key(|at| !services[*at].protocols.contains(&Protocol::Any));
    for at in ordered {
        let service = &services[at];
        shapes |= match (service.ports.is_empty(), service.source_ports.is_empty()) {
            (false, false) => 1,
            (false, true) => 2,
            (true, false) => 4,
            (true, true) => 8,
        };
        let any = service.protocols.contains(&Protocol::Any);
        for (base, protocol) in [
            (class::TCP, Protocol::Tcp),
            (class::UDP, Protocol::Udp),
            (class::ICMP, Protocol::Icmp),
        ] {
            if !any && !service.protocols.contains(&protocol) {
                continue;
            }
            let udp = protocol == Protocol::Udp;
            let named = |dimension: &Dimension| -> Vec<u16> {
                dimension.classes_of[at]
                    .iter()
                    .filter(|(of_udp, _)| *of_udp == udp)
                    .map(|(_, row)| *row)
                    .collect()
            };
            let rows = if service.ports.is_empty() {
                vec![base]
            } else {
                named(&ports.destination)
            };
            let columns = if service.source_ports.is_empty() {
                vec![0]
            } else {
                named(&ports.source)
            };
            for row in rows {
                for column in &columns {
                    cells.insert((row, *column), at);
                }
            }
        }
        if any {
            cells.insert((class::OTHER, 0), at);
        }
    }
    table.extend(cells.into_iter().map(|((row, column), at)| {
        (
            u64::from(number) << 32 | u64::from(row) << 16 | u64::from(column),
            numbers[at],
        )
    }));
    shapes
}
