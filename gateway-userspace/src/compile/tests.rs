//! Compiled tables against naive oracles that take the design's words literally.

mod registry;

use std::net::IpAddr;

use gateway_core::{
    image::{ListEntry, list_flags},
    judge::{Judgement, judge_packet},
    packet::{Fragment, Network, Packet, UNTAGGED},
};
use proptest::prelude::*;

use super::*;
use crate::{
    policy::model::{Controller, DefaultRule, OnAttack, PortRange, Protect, Scope, Source},
    twin::Twin,
};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn policy(services: Vec<Service>) -> Policy {
    Policy {
        interfaces: Vec::new(),
        mode: Mode::Enforce,
        scope: Scope::default(),
        source: Source {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            max_tracked: 1_024,
        },
        protect: Vec::new(),
        sflow: None,
        webhook: None,
        geo: None,
        anomaly: crate::policy::model::Anomaly::default(),
        sampling: crate::policy::model::Sampling {
            one_in: 0,
            max_per_second: 1,
        },
        lists: Vec::new(),
        default: DefaultRule {
            action: DefaultAction::Pass,
            replies: Replies::None,
            essential: Essential::Pass,
            profile: true,
        },
        controller: Controller::default(),
        services,
    }
}

fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        protocols: vec![Protocol::Tcp],
        ports: Vec::new(),
        source_ports: Vec::new(),
        addresses: Vec::new(),
        only: Vec::new(),
        mode: Mode::Enforce,
        enforce_share_ppm: 1_000_000,
        profile: false,
        time: false,
        anomaly: true,
        on_attack: OnAttack::default(),
        per_source: None,
        per_network: None,
        total: None,
        classes: Vec::new(),
    }
}

/// Prefixes nested eight deep, their neighbours, and the other family's.
const PREFIXES: [&str; 14] = [
    "10.0.0.0/8",
    "10.0.0.0/12",
    "10.1.0.0/16",
    "10.1.0.0/20",
    "10.1.2.0/24",
    "10.1.2.0/28",
    "10.1.2.3/32",
    "10.1.3.0/24",
    "192.0.2.0/24",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::7/128",
];

/// Addresses inside, at the edges and outside of [`PREFIXES`].
const ADDRESSES: [&str; 15] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.2.15",
    "10.1.2.16",
    "10.1.3.1",
    "10.1.15.255",
    "10.1.16.0",
    "10.15.0.1",
    "10.16.0.1",
    "11.0.0.0",
    "192.0.2.255",
    "2001:db8:1::7",
    "2001:db8:1::8",
    "2001:db8:2::1",
    "2001:db9::1",
];

/// Ports that random services begin and end at, and ports that none names.
const PORTS: [u16; 9] = [1, 22, 53, 79, 80, 443, 444, 8_000, 65_535];

fn prefixes(most: usize) -> impl Strategy<Value = Vec<IpNet>> {
    prop::sample::subsequence(&PREFIXES[..], 0..=most).prop_map(|some| some.into_iter().map(net).collect())
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let ends = prop::sample::subsequence(&PORTS[..], 2..=4);
    prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::sample::select(&PORTS[..]).prop_map(|port| vec![PortRange { first: port, last: port }]),
        2 => ends.prop_map(|ends| ends
            .chunks_exact(2)
            .map(|pair| PortRange { first: pair[0], last: pair[1] })
            .collect()),
    ]
}

/// Services as a valid policy may have them, though they may tie.
fn services() -> impl Strategy<Value = Vec<Service>> {
    let ported = prop::sample::select(vec![
        vec![Protocol::Tcp],
        vec![Protocol::Udp],
        vec![Protocol::Tcp, Protocol::Udp],
    ]);
    let portless = prop::sample::select(vec![
        vec![Protocol::Icmp],
        vec![Protocol::Any],
        vec![Protocol::Tcp, Protocol::Icmp],
    ]);
    let shape = prop_oneof![
        3 => (ported, ranges(), ranges()),
        1 => (portless, Just(Vec::new()), Just(Vec::new())),
    ];
    prop::collection::vec((shape, prefixes(3)), 1..14).prop_map(|shapes| {
        let mut kept: Vec<Service> = Vec::new();
        for ((protocols, ports, source_ports), addresses) in shapes {
            let new = Service {
                protocols,
                ports,
                source_ports,
                addresses,
                ..service(&format!("s{}", kept.len()))
            };
            if !kept.iter().any(|old| tie(old, &new)) {
                kept.push(new);
            }
        }
        kept
    })
}

/// Whether two services can match one packet with equal rank.
fn tie(left: &Service, right: &Service) -> bool {
    let overlap = |left: &[PortRange], right: &[PortRange]| {
        left.is_empty()
            || left
                .iter()
                .any(|a| right.iter().any(|b| a.first <= b.last && b.first <= a.last))
    };
    let prefix = (left.addresses.is_empty() && right.addresses.is_empty())
        || left.addresses.iter().any(|net| right.addresses.contains(net));
    prefix
        && left.ports.is_empty() == right.ports.is_empty()
        && left.source_ports.is_empty() == right.source_ports.is_empty()
        && left.protocols.iter().any(|one| right.protocols.contains(one))
        && overlap(&left.ports, &right.ports)
        && overlap(&left.source_ports, &right.source_ports)
}

/// The rank with which a service matches a packet, in the design's words: among those that match in full, the one
/// whose matching prefix is longest; then one that names the port; then source ports; then a named protocol.
fn rank(service: &Service, packet: &Packet, destination: IpAddr) -> Option<(Option<u8>, bool, bool, bool)> {
    let protocol = match packet.protocol {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        1 | 58 => Some(Protocol::Icmp),
        _ => None,
    };
    let named = protocol.is_some_and(|protocol| service.protocols.contains(&protocol));
    if !named && !service.protocols.contains(&Protocol::Any) {
        return None;
    }
    let has_ports = packet.fragment != Fragment::Later && matches!(packet.protocol, 6 | 17);
    let inside = |ranges: &[PortRange], port: u16| {
        ranges.is_empty()
            || (has_ports
                && ranges
                    .iter()
                    .any(|range| range.first <= port && port <= range.last))
    };
    if !inside(&service.ports, packet.destination_port) || !inside(&service.source_ports, packet.source_port)
    {
        return None;
    }
    let longest = service
        .addresses
        .iter()
        .filter(|net| net.contains(&destination))
        .map(IpNet::prefix_len)
        .max();
    if !service.addresses.is_empty() && longest.is_none() {
        return None;
    }
    Some((
        longest,
        !service.ports.is_empty(),
        !service.source_ports.is_empty(),
        named,
    ))
}

fn packets() -> impl Strategy<Value = (Packet, IpAddr)> {
    (
        prop::sample::select(&ADDRESSES[..]),
        prop::sample::select(vec![6u8, 6, 6, 17, 17, 1, 58, 47, 132]),
        prop::sample::select(&PORTS[..]),
        prop::sample::select(&PORTS[..]),
        prop::sample::select(vec![
            Fragment::Whole,
            Fragment::Whole,
            Fragment::First,
            Fragment::Later,
        ]),
        0u16..2,
    )
        .prop_map(|(address, protocol, destination, source, fragment, beside)| {
            let address: IpAddr = address.parse().expect("an address");
            let ported = matches!(protocol, 6 | 17) && fragment != Fragment::Later;
            let packet = Packet {
                length: 64,
                network: if address.is_ipv6() {
                    Network::V6
                } else {
                    Network::V4
                },
                source: [7, 0, 0, 0],
                destination: prefix::words(address),
                protocol,
                fragment,
                connection: false,
                icmp_type: 8,
                vlan: UNTAGGED,
                source_port: if ported { source } else { 0 },
                destination_port: if ported {
                    destination.saturating_add(beside)
                } else {
                    0
                },
                tcp_flags: 0,
                sequence: 0,
                acknowledgement: 0,
                ttl: 64,
                payload: 0,
            };
            (packet, address)
        })
}

proptest! {
    #![proptest_config(cases(60))]

    /// Ports, ranges, source ports, nested addresses of both families, `any`, `icmp`, later fragments, and the scope.
    #[test]
    fn every_packet_goes_to_the_service_that_the_design_names(
        services in services(),
        scope in prefixes(3),
        packets in prop::collection::vec(packets(), 250),
    ) {
        let policy = Policy {
            scope: Scope { vlans: Vec::new(), addresses: scope },
            ..policy(services)
        };
        let twin = Twin::new(&policy, &ListContents::new(), [1, 2, 3, 4], 1).expect("it fits");
        for (packet, destination) in packets {
            let judgement = judge_packet(&&twin, &packet);
            let in_scope = policy.scope.addresses.is_empty()
                || policy.scope.addresses.iter().any(|net| net.contains(&destination));
            prop_assert_eq!(judgement.reason == Reason::OutOfScope, !in_scope, "{:?}", packet);
            if !in_scope {
                continue;
            }
            let best = policy
                .services
                .iter()
                .filter_map(|service| Some((rank(service, &packet, destination)?, service)))
                .max_by_key(|(rank, _)| *rank);
            let expected = best.map_or(DEFAULT, |(_, service)| service.name.as_str());
            let (found, _) = twin.owner(judgement);
            prop_assert_eq!(found, expected, "{:?} to {} with {:?}", packet, destination, policy.services);
        }
    }

    /// Membership by any covering prefix, the action of the longest prefix that has one, `drop` on a tie, and protect rules
    /// beside them.
    #[test]
    fn every_source_gets_what_the_lists_say(
        shapes in prop::collection::vec(
            (
                prop::sample::select(vec![None, Some(ListAction::Drop), Some(ListAction::Trust)]),
                any::<bool>(),
                prefixes(6),
            ),
            0..8,
        ),
        rules in prop::collection::vec(prefixes(4), 0..4),
    ) {
        let lists: Vec<List> = shapes
            .iter()
            .enumerate()
            .map(|(at, (action, proxy, _))| List {
                name: format!("l{at}"),
                action: *action,
                prefixes: Vec::new(),
                files: Vec::new(),
                max_prefixes: 100,
                proxy: *proxy,
            })
            .collect();
        let contents: ListContents = lists
            .iter()
            .zip(&shapes)
            .map(|(list, (_, _, prefixes))| (list.name.clone(), prefixes.clone()))
            .collect();
        let protect: Vec<Protect> = rules
            .iter()
            .map(|sources| Protect { sources: sources.clone(), protocol: Protocol::Any, ports: Vec::new() })
            .collect();
        let bits: Vec<u64> = (0..rules.len()).map(|at| 1 << at).collect();
        let entries = lists::compile(&lists, &contents, &protect, &bits).expect("they fit");
        for address in ADDRESSES {
            let address: IpAddr = address.parse().expect("an address");
            let covers = |net: &&IpNet| net.contains(&address);
            let found = entries
                .iter()
                .filter(|(net, _)| net.contains(&address))
                .max_by_key(|(net, _)| net.prefix_len())
                .map_or_else(ListEntry::default, |(_, entry)| *entry);

            let (mut mask, mut proxy, mut longest) = (0u64, false, None);
            for (at, list) in lists.iter().enumerate() {
                let Some(length) = contents[&list.name].iter().filter(covers).map(IpNet::prefix_len).max() else {
                    continue;
                };
                mask |= 1 << at;
                proxy |= list.proxy;
                if let Some(action) = list.action {
                    // Of equal lengths, `drop` is the greater.
                    longest = longest.max(Some((length, action == ListAction::Drop)));
                }
            }
            let action = match longest {
                None => 0,
                Some((_, true)) => list_flags::DROP,
                Some((_, false)) => list_flags::TRUST,
            };
            let protected = rules.iter().enumerate().fold(0, |all, (at, sources)| {
                all | u64::from(sources.iter().any(|net| net.contains(&address))) << at
            });
            prop_assert_eq!(found.mask(), mask, "lists of {}", address);
            prop_assert_eq!(found.rules(), protected, "protect rules of {}", address);
            prop_assert_eq!(found.flags & list_flags::PROXY != 0, proxy, "proxy of {}", address);
            prop_assert_eq!(found.flags & !list_flags::PROXY, action, "action of {}: {:?}", address, contents);
        }
    }
}

/// A judgement of the default counts under the default's name.
#[test]
fn traffic_to_no_service_counts_as_default() {
    let twin = Twin::new(&policy(Vec::new()), &ListContents::new(), [1, 2, 3, 4], 1).expect("it fits");
    let judgement: Judgement = twin.judge(&[0xff; 64]);
    assert_eq!(twin.owner(judgement), (DEFAULT.to_owned(), String::new()));
}

proptest! {
    #![proptest_config(cases(60))]

    /// As above where nothing but destination ports tells services apart, so that the table of ports holds services.
    #[test]
    fn ports_alone_name_the_service(
        services in services(),
        packets in prop::collection::vec(packets(), 250),
    ) {
        let services = services
            .into_iter()
            .map(|service| Service { addresses: Vec::new(), source_ports: Vec::new(), ..service })
            .collect();
        let policy = policy(services);
        let twin = Twin::new(&policy, &ListContents::new(), [1, 2, 3, 4], 1).expect("it fits");
        prop_assert_ne!(twin.image().generation.flags & flags::DIRECT_PORTS, 0);
        for (packet, destination) in packets {
            let best = policy
                .services
                .iter()
                .filter_map(|service| Some((rank(service, &packet, destination)?, service)))
                .max_by_key(|(rank, _)| *rank);
            let expected = best.map_or(DEFAULT, |(_, service)| service.name.as_str());
            let (found, _) = twin.owner(judge_packet(&&twin, &packet));
            prop_assert_eq!(found, expected, "{:?} with {:?}", packet, policy.services);
        }
    }
}

fn compiled(text: &str, levers: &[Lever]) -> Image {
    let parsed = crate::policy::parse(text, std::path::Path::new("test.toml"))
        .expect("a policy")
        .policy;
    let mut registry = Registry::default();
    registry.reindex();
    compile(&parsed, &ListContents::new(), levers, &mut registry, 1).expect("it fits")
}

const PLAIN: &str = "version = 1\n[sampling]\none_in = 0\n[default]\nprofile = false\n[[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [80]\nprofile = false\n";

/// A program lacks nothing that a policy, its lists and its levers can ask for.
#[test]
fn what_a_policy_uses_covers_whatever_is_done_under_it() {
    let plain = compiled(PLAIN, &[]).generation;
    assert_eq!(
        uses::flags(plain.uses) & (flags::LISTS | flags::PROFILES | flags::SAMPLES | flags::OPENS),
        0
    );
    assert_ne!(
        uses::flags(plain.uses) & flags::BYPASS_ALL,
        0,
        "a lever may be pulled"
    );
    let listed = compiled(&format!("{PLAIN}[lists.bad]\naction = \"drop\"\n"), &[]).generation;
    assert_eq!(listed.flags & flags::LISTS, 0, "it is empty");
    assert_ne!(uses::flags(listed.uses) & flags::LISTS, 0, "it may be filled");
    let limits = "[service.per_source]\nbytes = { rate = 1000, burst = 100000 }\n[service.total]\npackets = { rate = 10, burst = 100 }\n";
    let limited = compiled(&format!("{PLAIN}{limits}"), &[]).generation;
    let buckets = |uses: u64| -> Vec<(usize, usize)> {
        let all = (0..TIERS).flat_map(|tier| (0..KINDS).map(move |kind| (tier, kind)));
        all.filter(|(tier, kind)| uses & uses::bucket(*tier, *kind) != 0)
            .collect()
    };
    assert_eq!(buckets(plain.uses), []);
    assert_eq!(buckets(limited.uses), [(0, 1), (3, 0)]);
    // What a lever brings about is in it already.
    let service = "a".to_owned();
    let levers = [
        Lever::Scale {
            service: service.clone(),
            percent: 10,
            until_ns: u64::MAX,
        },
        Lever::Bypass {
            service: Some(service),
            all: true,
            until_ns: u64::MAX,
        },
    ];
    let pulled = compiled(&format!("{PLAIN}{limits}"), &levers).generation;
    assert_eq!(pulled.uses & !limited.uses, 0);
    assert_eq!(u64::from(pulled.flags) & !limited.uses, 0);
}

/// The clock may be coarse only where that takes no more than 1 % of any bucket, and nothing is timed.
#[test]
fn the_clock_is_exact_where_it_must_be() {
    let exact =
        |more: &str| compiled(&format!("{PLAIN}{more}"), &[]).generation.flags & flags::EXACT_CLOCK != 0;
    let packets = |rate: u64, burst: u64| {
        format!("[service.per_source]\npackets = {{ rate = {rate}, burst = {burst} }}\n")
    };
    assert!(!exact(""));
    assert!(!exact(&packets(100, 200)) && !exact(&packets(1, 1)));
    assert!(!exact(&packets(1_000, 401)) && exact(&packets(1_000, 399)));
    assert!(exact(&packets(100, 1)), "a bucket of 10 ms");
    let timed = PLAIN.replace("ports = [80]\nprofile = false", "ports = [80]\ntime = true");
    assert_ne!(
        compiled(&timed, &[]).generation.flags & flags::EXACT_CLOCK,
        0,
        "times are exact"
    );
    assert!(exact(
        "[service.total]\nbytes = { rate = \"1GB\", burst = \"1MB\" }\n"
    ));
}

/// Whoever takes a lease of a total, what is owed then stays within half of what strangers may charge.
#[test]
fn leases_leave_a_reserve_alone() {
    let total = |more: &str| {
        let limit = "[service.total]\npackets = { rate = 1_000_000, burst = 1_000_000 }\n";
        let image = compiled(&format!("{PLAIN}{limit}{more}"), &[]);
        image
            .subjects
            .into_iter()
            .find(|subject| subject.buckets[3][0].exists())
            .expect("the service's")
    };
    assert_eq!(total("").buckets[3][0].leased, 1);
    for percent in [1, 20, 40, 90] {
        let subject = total(&format!("reserve = \"{percent}%\"\n"));
        let (spec, stranger) = (subject.buckets[3][0], subject.open[0].stranger);
        assert!(
            spec.leased > 1 && spec.depth >> spec.leased <= stranger / 2,
            "{percent} %: {}",
            spec.leased
        );
    }
}

/// Lines wait to be tidied for no longer than the finest bucket allows, in force or still remembered.
#[test]
fn lines_wait_as_long_as_the_finest_bucket_allows() {
    let packets = |rate: u64, burst: u64| {
        format!("{PLAIN}[service.per_source]\npackets = {{ rate = {rate}, burst = {burst} }}\n")
    };
    let patience = |text: &str| compiled(text, &[]).generation.patience;
    assert_eq!(patience(PLAIN), gateway_core::line::MOST_PATIENCE);
    assert_eq!(patience(&packets(100, 200)), gateway_core::line::MOST_PATIENCE);
    assert_eq!(patience(&packets(50_000_000, 10)), 0);
    let parse = |text: &str| {
        crate::policy::parse(text, std::path::Path::new("test.toml"))
            .expect("a policy")
            .policy
    };
    let mut registry = Registry::default();
    registry.reindex();
    let mut apply = |text: &str, now_ns| {
        compile(&parse(text), &ListContents::new(), &[], &mut registry, now_ns)
            .expect("it fits")
            .generation
            .patience
    };
    assert_eq!(apply(&packets(50_000_000, 10), 1), 0);
    assert_eq!(
        apply(&packets(100, 200), 2),
        0,
        "cells of the old rate are still there"
    );
}
