//! Finding services that tie: two that match one packet with equal rank.
//!
//! The rank of a match is the length of the matching `addresses` prefix, then whether the service names ports, then
//! whether it names source ports, then whether it names the protocol. Two services can therefore tie only if both have
//! the same prefix (or both none), the same two flags, and a protocol in common (`any` only with `any`); and then they
//! do tie exactly if their ports and their source ports overlap. So services are grouped by all of the former, and
//! in each group the rectangles (ports × source ports) are swept in the order of the ports.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use ipnet::IpNet;

use super::model::{PortRange, Protocol, Service};

/// Most rectangles of a group that are kept beside the sweep because they tie with one in it. Beyond that a service
/// that ties only with these is not reported until they are mended.
const MAX_ASIDE: usize = 64;

/// Most ties that are described; a policy with more is mended step by step.
const MAX_TIES: usize = 1_000;

/// Two services that tie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tie {
    /// Index of the service that comes first in the file.
    pub(super) first: usize,
    /// Index of the other.
    pub(super) second: usize,
    /// A traffic that both match, in words.
    pub(super) what: String,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Group {
    prefix: Option<IpNet>,
    names_ports: bool,
    names_source_ports: bool,
    protocol: Protocol,
}

#[derive(Clone, Copy)]
struct Rectangle {
    ports: PortRange,
    source_ports: PortRange,
    service: usize,
}

const ALL: PortRange = PortRange {
    first: 0,
    last: u16::MAX,
};

/// The pairs of services that tie, each once, in the order of the file. Services that are `None` are left out.
pub(super) fn find(services: &[Option<Service>]) -> Vec<Tie> {
    let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        let Some(service) = service else { continue };
        let prefixes = service.addresses.iter().map(|&prefix| Some(prefix));
        let none = service.addresses.is_empty().then_some(None);
        for prefix in prefixes.chain(none) {
            for &protocol in &service.protocols {
                let names_ports = !service.ports.is_empty();
                let names_source_ports = !service.source_ports.is_empty();
                let group = Group {
                    prefix,
                    names_ports,
                    names_source_ports,
                    protocol,
                };
                groups.entry(group).or_default().push(index);
            }
        }
    }
    let mut ties: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for (group, members) in groups.iter().filter(|(_, members)| members.len() > 1) {
        let mut rectangles = Vec::new();
        for &index in members {
            let Some(Some(service)) = services.get(index) else {
                continue;
            };
            let or_all = |ranges: &[PortRange]| {
                if ranges.is_empty() {
                    vec![ALL]
                } else {
                    ranges.to_vec()
                }
            };
            for ports in or_all(&service.ports) {
                for source_ports in or_all(&service.source_ports) {
                    rectangles.push(Rectangle {
                        ports,
                        source_ports,
                        service: index,
                    });
                }
            }
        }
        sweep(rectangles, |one, other| {
            let pair = (one.service.min(other.service), one.service.max(other.service));
            if ties.len() < MAX_TIES {
                ties.entry(pair).or_insert_with(|| describe(group, one, other));
            }
        });
    }
    let mut ties: Vec<_> = ties
        .into_iter()
        .map(|((first, second), what)| Tie { first, second, what })
        .collect();
    ties.sort_by_key(|tie| (tie.second, tie.first));
    ties
}

/// Calls `overlap` for rectangles of different services that overlap; for every rectangle that overlaps another, at
/// least once (within [`MAX_ASIDE`]).
fn sweep(mut rectangles: Vec<Rectangle>, mut overlap: impl FnMut(&Rectangle, &Rectangle)) {
    rectangles.sort_by_key(|r| (r.ports.first, r.service));
    // The rectangles over the current port, by first source port. They are disjoint: what overlaps goes aside.
    let mut current: BTreeMap<u16, Rectangle> = BTreeMap::new();
    let mut ends: BinaryHeap<Reverse<(u16, u16)>> = BinaryHeap::new();
    let mut aside: Vec<Rectangle> = Vec::new();
    for rectangle in rectangles {
        while let Some(&Reverse((last, source))) = ends.peek()
            && last < rectangle.ports.first
        {
            ends.pop();
            current.remove(&source);
        }
        aside.retain(|other| other.ports.last >= rectangle.ports.first);
        let mut met = BTreeSet::new();
        for other in current
            .range(..=rectangle.source_ports.last)
            .rev()
            .map(|(_, other)| other)
        {
            if other.source_ports.last < rectangle.source_ports.first {
                break;
            }
            met.insert(other.service);
            overlap(other, &rectangle);
        }
        for other in &aside {
            let apart = other.source_ports.last < rectangle.source_ports.first
                || rectangle.source_ports.last < other.source_ports.first;
            if !apart && other.service != rectangle.service {
                overlap(other, &rectangle);
            }
        }
        if met.is_empty() {
            ends.push(Reverse((rectangle.ports.last, rectangle.source_ports.first)));
            current.insert(rectangle.source_ports.first, rectangle);
        } else if aside.len() < MAX_ASIDE {
            aside.push(rectangle);
        }
    }
}

fn describe(group: &Group, one: &Rectangle, other: &Rectangle) -> String {
    let protocol = match group.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Any => "any protocol",
    };
    let common = |named: bool, what: &str, a: PortRange, b: PortRange| {
        let (first, last) = (a.first.max(b.first), a.last.min(b.last));
        match (named, first == last) {
            (false, _) => String::new(),
            (true, true) => format!(" {what} {first}"),
            (true, false) => format!(" {what}s {first}-{last}"),
        }
    };
    let ports = common(group.names_ports, "port", one.ports, other.ports);
    let source_ports = common(
        group.names_source_ports,
        "from source port",
        one.source_ports,
        other.source_ports,
    );
    let place = group
        .prefix
        .map_or_else(|| "any address".to_owned(), |prefix| prefix.to_string());
    format!("{protocol}{ports}{source_ports} at {place}")
}
