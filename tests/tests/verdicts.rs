//! Verdict tables: the order of judgement, buckets, scope, zero trust and modes. SPECIFICATION.md names these tests.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests fail where they should, and are tables"
)]

use weir_tests::{
    both::Both,
    frame::{ACK, FIN, Frame, QUIC_V1, QUIC_V2, RST, SYN, TPID_8021Q},
    rows::{SECOND, START, arp, check, check_on, cut, v4, v6, web},
    skip::require_root,
};

#[test]
fn connections_are_syns_and_initials() {
    let policy = r#"
version = 1
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [443]
[service.per_source]
connections = { rate = 1, burst = 1 }
"#;
    let from = |last: u8| Frame::new().ip(&format!("192.0.2.{last}"), "203.0.113.10");
    let tcp = |last: u8, flags: u8| from(last).tcp(1, 443, flags).build();
    let quic = |last: u8, version| from(last).quic_initial(1, 443, version).build();
    check(
        policy,
        vec![
            ("a SYN", tcp(1, SYN), "pass", "pass", "web"),
            ("the next SYN", tcp(1, SYN), "drop", "source_connections", "web"),
            (
                "a SYN with other flags is one too",
                tcp(1, SYN | FIN | RST),
                "drop",
                "source_connections",
                "web",
            ),
            ("a SYN-ACK is none", tcp(1, SYN | ACK), "pass", "pass", "web"),
            ("an ACK is none", tcp(1, ACK), "pass", "pass", "web"),
            ("a QUIC Initial", quic(2, QUIC_V1), "pass", "pass", "web"),
            (
                "another, of version 2",
                quic(2, QUIC_V2),
                "drop",
                "source_connections",
                "web",
            ),
            (
                "other datagrams are none",
                from(2).udp(1, 443).payload(&[0x40; 50]).build(),
                "pass",
                "pass",
                "web",
            ),
        ],
    );
}

#[test]
fn the_order_of_judgement() {
    require_root();
    let policy = r#"
version = 1
[[protect]]
sources = ["10.9.0.0/28", "198.51.100.7/32"]
protocol = "tcp"
ports = [22]
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[lists.good]
action = "trust"
prefixes = ["198.51.100.128/25", "192.0.2.77/32"]
[lists.cdn]
prefixes = ["10.1.0.0/16"]
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 1 }
[service.total]
packets = { rate = 10, burst = 3 }
[[service]]
name = "origin"
protocol = "tcp"
ports = [8443]
only = ["cdn"]
"#;
    let to = |source: &str, port: u16| Frame::new().ip(source, "203.0.113.10").tcp(1, port, ACK).build();
    let tunnel = Frame::new()
        .ip("198.51.100.9", "203.0.113.10")
        .gre(None)
        .ip("10.0.0.1", "10.0.0.2")
        .tcp(1, 80, ACK);
    let hidden = Frame::new()
        .vlan(TPID_8021Q, 3)
        .mpls(17)
        .ip("198.51.100.9", "203.0.113.10")
        .tcp(1, 80, ACK);
    let mut both = Both::new(policy, START).unwrap();
    both.ban("192.0.2.200/32", None, u64::MAX).unwrap();
    both.ban("192.0.2.201/32", Some("web"), START + SECOND).unwrap();
    both.ban("198.51.100.7/32", None, u64::MAX).unwrap();
    check_on(
        &mut both,
        vec![
            (
                "protect before ban and list",
                to("198.51.100.7", 22),
                "pass",
                "protect",
                "default",
            ),
            ("only on its ports", to("198.51.100.7", 80), "drop", "ban", "web"),
            (
                "ban before list",
                to("198.51.100.7", 81),
                "drop",
                "ban",
                "default",
            ),
            ("a drop list", to("198.51.100.9", 80), "drop", "list", "web"),
            (
                "its longer trusted prefix passes",
                to("198.51.100.129", 80),
                "pass",
                "trust",
                "web",
            ),
            (
                "trust skips per source",
                to("198.51.100.129", 80),
                "pass",
                "trust",
                "web",
            ),
            ("not totals", to("198.51.100.129", 80), "pass", "trust", "web"),
            (
                "which end",
                to("198.51.100.129", 80),
                "drop",
                "total_packets",
                "web",
            ),
            (
                "ban for all services",
                to("192.0.2.200", 8443),
                "drop",
                "ban",
                "origin",
            ),
            ("ban for one service", to("192.0.2.201", 80), "drop", "ban", "web"),
            (
                "not for another",
                to("192.0.2.201", 81),
                "pass",
                "pass",
                "default",
            ),
            (
                "only: a stranger",
                to("192.0.2.1", 8443),
                "drop",
                "list",
                "origin",
            ),
            ("only: a member", to("10.1.2.3", 8443), "pass", "pass", "origin"),
            (
                "a tunnel is judged by its outermost source",
                tunnel.build(),
                "drop",
                "list",
                "default",
            ),
            ("no framing hides a source", hidden.build(), "drop", "list", "web"),
        ],
    );
    both.set_clock(START + SECOND).unwrap();
    check_on(
        &mut both,
        vec![(
            "a ban ends by itself",
            to("192.0.2.201", 80),
            "pass",
            "pass",
            "web",
        )],
    );
}

#[test]
fn a_bucket_admits_its_burst_and_refills() {
    require_root();
    let policy = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.per_source]
packets = { rate = 1000, burst = 50 }
"#;
    let mut both = Both::new(policy, START).unwrap();
    let frame = web(v4());
    let admitted = |both: &mut Both, offered: usize| {
        let tally = both
            .judge_all(std::iter::repeat_n(frame.as_slice(), offered))
            .unwrap();
        tally
            .iter()
            .filter(|((_, _, verdict, _), _)| *verdict == "pass")
            .map(|(_, count)| *count)
            .sum::<u64>()
    };
    assert_eq!(
        admitted(&mut both, 200),
        50,
        "a full bucket admits exactly its burst"
    );
    both.set_clock(START + 10_000_100).unwrap();
    assert_eq!(admitted(&mut both, 200), 10, "10 ms refill ten");
    both.set_clock(START + 10_999_000).unwrap();
    assert_eq!(
        admitted(&mut both, 200),
        0,
        "a token short of a microsecond is none"
    );
    both.set_clock(START + 3600 * SECOND).unwrap();
    assert_eq!(admitted(&mut both, 200), 50, "an hour later it is full, no more");
}

#[test]
fn scope_leaves_the_rest_alone() {
    let policy = r#"
version = 1
[scope]
vlans = [100]
addresses = ["203.0.113.0/24"]
[lists.bad]
action = "drop"
prefixes = ["192.0.2.0/24"]
"#;
    let tagged = |vlan, target| {
        Frame::new()
            .vlan(TPID_8021Q, vlan)
            .ip("192.0.2.1", target)
            .tcp(1, 80, ACK)
            .build()
    };
    check(
        policy,
        vec![
            ("in scope", tagged(100, "203.0.113.10"), "drop", "list", "default"),
            (
                "another VLAN",
                tagged(101, "203.0.113.10"),
                "pass",
                "out_of_scope",
                "default",
            ),
            (
                "another address",
                tagged(100, "203.0.114.10"),
                "pass",
                "out_of_scope",
                "default",
            ),
            ("untagged", web(v4()), "pass", "out_of_scope", "default"),
            (
                "malformed comes before",
                cut(web(v4()), 30),
                "drop",
                "malformed",
                "default",
            ),
        ],
    );
}

#[test]
fn zero_trust_drops_what_nobody_names() {
    let policy = r#"
version = 1
[default]
action = "drop"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
"#;
    check(
        policy,
        vec![
            ("a service", web(v4()), "pass", "pass", "web"),
            (
                "another port",
                v4().tcp(1, 81, ACK).build(),
                "drop",
                "default_drop",
                "default",
            ),
            ("ARP", arp(), "pass", "essential", "default"),
            (
                "LACP",
                Frame::new().ethertype(0x8809).payload(&[1; 46]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an unknown type",
                Frame::new().ethertype(0x1234).payload(&[0; 46]).build(),
                "drop",
                "default_drop",
                "default",
            ),
            (
                "neighbour solicitation",
                v6().icmp(135, 0).payload(&[0; 20]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "router advertisement",
                v6().icmp(134, 0).payload(&[0; 12]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an ICMP error",
                v4().icmp(3, 4).payload(&[0; 28]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an ICMPv6 error",
                v6().icmp(2, 0).payload(&[0; 48]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an echo request",
                v4().icmp(8, 0).payload(&[0; 8]).build(),
                "drop",
                "default_drop",
                "default",
            ),
            (
                "DHCP to a client",
                v4().udp(67, 68).payload(&[0; 20]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "DHCPv6 to a client",
                v6().udp(547, 546).payload(&[0; 20]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "a SYN to nobody",
                v4().tcp(1, 22, SYN).build(),
                "drop",
                "default_drop",
                "default",
            ),
        ],
    );
}

#[test]
fn monitor_counts_and_drops_nothing() {
    let policy = r#"
version = 1
mode = "monitor"
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;
    check(
        policy,
        vec![
            ("the first", web(v4()), "pass", "pass", "web"),
            ("one too many", web(v4()), "would_drop", "source_packets", "web"),
            (
                "a drop list",
                web(Frame::new().ip("198.51.100.1", "203.0.113.10")),
                "would_drop",
                "list",
                "web",
            ),
            (
                "malformed",
                cut(web(v4()), 30),
                "would_drop",
                "malformed",
                "default",
            ),
        ],
    );
}
