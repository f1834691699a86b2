//! Ports to classes, and the table from classes to services.
//!
//! Ports that no service tells apart share a class: the distinct sets of services that name a port, numbered in the order of
//! first appearance. The table then holds, for each pair of classes, the service that wins.

use std::collections::HashMap;

use gateway_core::{classify::class, image::PORT_CELLS};

use super::CompileError;
use crate::policy::model::{PortRange, Protocol, Service};

/// Words of one half of a class table: TCP, then UDP, four ports a word.
pub const CLASS_WORDS: usize = 32_768;

/// One dimension: the class of every port, and for each class the services (by position) that name it.
#[derive(Debug)]
pub struct Dimension {
    /// Classes, four in a word.
    pub words: Vec<u64>,
    /// By class: which services name its ports, and whether it is of UDP. The first entries are the fixed classes.
    pub members: Vec<(bool, Vec<usize>)>,
    /// By service: the classes whose ports it names, with whether they are of UDP.
    pub classes_of: Vec<Vec<(bool, u16)>>,
}

/// Puts the service of each class in its place: with one column in the table a port needs no more than that.
pub fn resolve(classes: &mut [u64], table: &[u64]) {
    let lane = |word: u64, at: usize| word >> (at % 4 * 16) & 0xffff;
    for word in classes {
        *word = (0..4).fold(0, |services, at| {
            let class = lane(*word, at) as usize;
            let service = table.get(class / 4).map_or(0, |cells| lane(*cells, class));
            services | service << (at * 16)
        });
    }
}

/// Whether a service takes a protocol by name.
fn names(service: &Service, protocol: Protocol) -> bool {
    service.protocols.contains(&protocol)
}

/// Computes the classes of a dimension. `ranges` picks the ports that a service names; `fixed` are classes with no named port,
/// of which `unnamed` (TCP, UDP) are those of unnamed ports.
pub fn dimension(
    services: &[Service],
    ranges: impl Fn(&Service) -> &[PortRange],
    fixed: usize,
    unnamed: [u16; 2],
) -> Result<Dimension, CompileError> {
    let mut members: Vec<(bool, Vec<usize>)> = vec![(false, Vec::new()); fixed];
    let mut words = vec![0u64; CLASS_WORDS];
    for (half, protocol) in [Protocol::Tcp, Protocol::Udp].into_iter().enumerate() {
        let mut starts: Vec<(u32, usize)> = Vec::new();
        let mut ends: Vec<(u32, usize)> = Vec::new();
        for (at, service) in services
            .iter()
            .enumerate()
            .filter(|(_, service)| names(service, protocol))
        {
            for range in ranges(service) {
                starts.push((u32::from(range.first), at));
                ends.push((u32::from(range.last) + 1, at));
            }
        }
        starts.sort_unstable();
        ends.sort_unstable();
        let mut numbers: HashMap<Vec<usize>, u16> = HashMap::new();
        let (mut active, mut current): (Vec<usize>, u16) = (Vec::new(), unnamed[half]);
        let (mut next_start, mut next_end) = (0, 0);
        for port in 0..65_536u32 {
            let before = (next_start, next_end);
            while ends.get(next_end).is_some_and(|(at, _)| *at == port) {
                let gone = ends[next_end].1;
                if let Ok(place) = active.binary_search(&gone) {
                    active.remove(place);
                }
                next_end += 1;
            }
            while starts.get(next_start).is_some_and(|(at, _)| *at == port) {
                let new = starts[next_start].1;
                if let Err(place) = active.binary_search(&new) {
                    active.insert(place, new);
                }
                next_start += 1;
            }
            if (next_start, next_end) != before {
                current = if active.is_empty() {
                    unnamed[half]
                } else if let Some(number) = numbers.get(&active) {
                    *number
                } else {
                    let number = u16::try_from(members.len()).map_err(|_| CompileError::TooMany {
                        what: "classes of ports",
                        most: 65_535,
                    })?;
                    members.push((half == 1, active.clone()));
                    numbers.insert(active.clone(), number);
                    number
                };
            }
            words[half * 16_384 + (port >> 2) as usize] |= u64::from(current) << ((port & 3) * 16);
        }
    }
    let mut classes_of = vec![Vec::new(); services.len()];
    for (number, (udp, services)) in members.iter().enumerate() {
        for at in services {
            classes_of[*at].push((*udp, number as u16));
        }
    }
    Ok(Dimension {
        words,
        members,
        classes_of,
    })
}

/// Both dimensions of a policy.
#[derive(Debug)]
pub struct Ports {
    /// Destination ports.
    pub destination: Dimension,
    /// Source ports.
    pub source: Dimension,
}

impl Ports {
    /// Computes them.
    pub fn new(services: &[Service]) -> Result<Self, CompileError> {
        let fixed = usize::from(class::NAMED);
        let destination = dimension(
            services,
            |service| &service.ports,
            fixed,
            [class::TCP, class::UDP],
        )?;
        let source = dimension(services, |service| &service.source_ports, 1, [0, 0])?;
        if destination.members.len() * source.members.len() > PORT_CELLS as usize {
            return Err(CompileError::TooMany {
                what: "pairs of destination and source port classes",
                most: PORT_CELLS,
            });
        }
        Ok(Self { destination, source })
    }

    /// Columns of the table.
    pub fn columns(&self) -> usize {
        self.source.members.len()
    }

    /// The table of the services without addresses: for each pair of classes the position of the winner.
    pub fn table(&self, services: &[Service], numbers: &[u32]) -> Vec<u64> {
        let columns = self.columns();
        let general: Vec<usize> = (0..services.len())
            .filter(|at| services[*at].addresses.is_empty())
            .collect();
        let open: Vec<usize> = general
            .iter()
            .copied()
            .filter(|at| services[*at].ports.is_empty())
            .collect();
        let mut words = vec![0u64; (self.destination.members.len() * columns).div_ceil(4)];
        for row in 0..self.destination.members.len() {
            for column in 0..columns {
                let Some(winner) = self.winner(services, &open, row, column) else {
                    continue;
                };
                let cell = row * columns + column;
                words[cell / 4] |= u64::from(numbers[winner]) << ((cell % 4) * 16);
            }
        }
        words
    }

    fn winner(&self, services: &[Service], open: &[usize], row: usize, column: usize) -> Option<usize> {
        let (protocol, later) = match row as u16 {
            class::TCP => (Some(Protocol::Tcp), false),
            class::UDP => (Some(Protocol::Udp), false),
            class::ICMP => (Some(Protocol::Icmp), false),
            class::OTHER => (None, false),
            class::TCP_FRAGMENT => (Some(Protocol::Tcp), true),
            class::UDP_FRAGMENT => (Some(Protocol::Udp), true),
            _ if self.destination.members[row].0 => (Some(Protocol::Udp), false),
            _ => (Some(Protocol::Tcp), false),
        };
        let (udp_column, in_column) = &self.source.members[column];
        if column != 0 && (later || protocol != Some(if *udp_column { Protocol::Udp } else { Protocol::Tcp }))
        {
            return None;
        }
        let fits = |at: usize| {
            let service = &services[at];
            let protocol_fits =
                names(service, Protocol::Any) || protocol.is_some_and(|protocol| names(service, protocol));
            let source_fits = service.source_ports.is_empty() || (!later && in_column.contains(&at));
            service.addresses.is_empty() && protocol_fits && source_fits
        };
        let named = self.destination.members[row]
            .1
            .iter()
            .copied()
            .filter(|at| fits(*at));
        let unnamed = open.iter().copied().filter(|at| fits(*at));
        named.chain(unnamed).max_by_key(|at| {
            let service = &services[*at];
            (
                !service.ports.is_empty(),
                !service.source_ports.is_empty(),
                !names(service, Protocol::Any),
            )
        })
    }
}
