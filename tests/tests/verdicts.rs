//! Verdict tables: what each kind of frame gets. Every row goes through the kernel's program by test-run and through the
//! host's twin, which must agree; SPECIFICATION.md names these tests.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests fail where they should, and are tables"
)]

use weir_tests::{
    both::Both,
    frame::{ACK, FIN, Frame, QUIC_V1, QUIC_V2, RST, SYN, TPID_8021AD, TPID_8021Q},
    skip::require_root,
};

/// A second, in nanoseconds; tests begin at a time that is nothing special.
const SECOND: u64 = 1_000_000_000;
const START: u64 = 123_456 * SECOND;

/// {what it shows, frame, verdict, reason, service}
type Row = (&'static str, Vec<u8>, &'static str, &'static str, &'static str);

fn check(policy: &str, rows: Vec<Row>) {
    require_root();
    let mut both = Both::new(policy, START).unwrap();
    check_on(&mut both, rows);
}

fn check_on(both: &mut Both, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for (what, frame, verdict, reason, service) in rows {
        match both.judge(&frame) {
            Ok(said) if (said.verdict, said.reason, said.service.as_str()) == (verdict, reason, service) => {}
            Ok(said) => wrong.push(format!("{what}: {said:?}, not {verdict} {reason} {service}")),
            Err(error) => wrong.push(format!("{what}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn v4() -> Frame {
    Frame::new().ip("192.0.2.1", "203.0.113.10")
}

fn v6() -> Frame {
    Frame::new().ip("2001:db8:aaaa::1", "2001:db8::10")
}

fn web(frame: Frame) -> Vec<u8> {
    frame.tcp(40_000, 80, ACK).build()
}

fn arp() -> Vec<u8> {
    Frame::new()
        .arp(1, "192.0.2.1".parse().unwrap(), "203.0.113.10".parse().unwrap())
        .build()
}

/// A frame with one byte changed.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

const WEB: &str = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "quic"
protocol = "udp"
ports = [443]
[service.per_source]
connections = { rate = 1, burst = 1 }
[[service]]
name = "ping"
protocol = "icmp"
"#;

#[test]
fn framings_are_followed_to_the_service() {
    let snap = Frame::new().snap().ip("192.0.2.1", "203.0.113.10");
    let tags =
        |count: usize| (0..count).fold(Frame::new(), |frame, at| frame.vlan(TPID_8021Q, 100 + at as u16));
    let labels = |count: u32| (0..count).fold(Frame::new(), Frame::mpls);
    let on = |frame: Frame| web(frame.ip("192.0.2.1", "203.0.113.10"));
    let mpls6 = Frame::new()
        .vlan(TPID_8021Q, 7)
        .mpls(16)
        .ip("2001:db8::1", "2001:db8::2");
    check(
        WEB,
        vec![
            ("IPv4 over Ethernet", web(v4()), "pass", "pass", "web"),
            ("IPv6 over Ethernet", web(v6()), "pass", "pass", "web"),
            ("one 802.1Q tag", on(tags(1)), "pass", "pass", "web"),
            (
                "QinQ",
                on(Frame::new().vlan(TPID_8021AD, 5).vlan(TPID_8021Q, 6)),
                "pass",
                "pass",
                "web",
            ),
            ("three tags", on(tags(3)), "pass", "pass", "web"),
            ("eight tags", on(tags(8)), "pass", "pass", "web"),
            (
                "nine tags are too deep",
                on(tags(9)),
                "drop",
                "malformed",
                "default",
            ),
            (
                "the old tag numbers",
                on(Frame::new().vlan(0x9100, 5).vlan(0x9200, 6)),
                "pass",
                "pass",
                "web",
            ),
            ("one MPLS label", on(labels(1)), "pass", "pass", "web"),
            ("four MPLS labels", on(labels(4)), "pass", "pass", "web"),
            (
                "nine MPLS labels are too deep",
                on(labels(9)),
                "drop",
                "malformed",
                "default",
            ),
            ("MPLS in a VLAN, IPv6", web(mpls6), "pass", "pass", "web"),
            ("PPPoE", on(Frame::new().pppoe(1)), "pass", "pass", "web"),
            (
                "PPPoE over QinQ",
                on(Frame::new().vlan(TPID_8021AD, 5).vlan(TPID_8021Q, 6).pppoe(1)),
                "pass",
                "pass",
                "web",
            ),
            ("SNAP", web(snap), "pass", "pass", "web"),
            (
                "IPv4 options",
                web(v4().options(&[1, 1, 1, 1])),
                "pass",
                "pass",
                "web",
            ),
            (
                "every word of options",
                web(v4().options(&[1; 40])),
                "pass",
                "pass",
                "web",
            ),
            (
                "padding behind the datagram",
                v4().tcp(1, 80, ACK).pad_to(64).build(),
                "pass",
                "pass",
                "web",
            ),
        ],
    );
}

#[test]
fn extension_headers_are_followed() {
    let chain = (0..8).fold(v6(), |frame, _| frame.destination_options(1));
    let long = (0..9).fold(v6(), |frame, _| frame.destination_options(1));
    let all = v6()
        .hop_by_hop(1)
        .routing(1)
        .fragment(0, false)
        .authentication(4)
        .destination_options(1);
    check(
        WEB,
        vec![
            ("hop-by-hop", web(v6().hop_by_hop(1)), "pass", "pass", "web"),
            ("routing", web(v6().routing(2)), "pass", "pass", "web"),
            (
                "destination options",
                web(v6().destination_options(3)),
                "pass",
                "pass",
                "web",
            ),
            (
                "mobility before TCP",
                web(v6().mobility(1)),
                "pass",
                "pass",
                "web",
            ),
            (
                "host identity",
                web(v6().extension(139, 1)),
                "pass",
                "pass",
                "web",
            ),
            ("shim6", web(v6().extension(140, 1)), "pass", "pass", "web"),
            (
                "authentication",
                web(v6().authentication(6)),
                "pass",
                "pass",
                "web",
            ),
            ("all in a row", web(all), "pass", "pass", "web"),
            ("eight headers", web(chain), "pass", "pass", "web"),
            (
                "nine headers are too deep",
                web(long),
                "drop",
                "malformed",
                "default",
            ),
            (
                "an atomic fragment is whole",
                web(v6().fragment(0, false)),
                "pass",
                "pass",
                "web",
            ),
            (
                "no next header",
                v6().protocol(59).build(),
                "pass",
                "pass",
                "default",
            ),
            (
                "ESP is opaque",
                v6().protocol(50).payload(&[0; 16]).build(),
                "pass",
                "pass",
                "default",
            ),
            (
                "ICMPv6 is ICMP",
                v6().icmp(128, 0).build(),
                "pass",
                "pass",
                "ping",
            ),
        ],
    );
}

#[test]
fn fragments_are_judged_by_what_they_have() {
    let policy = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "tcp"
protocol = "tcp"
[[service]]
name = "dns"
protocol = "udp"
source_ports = [53]
"#;
    let later4 = |protocol: u8| {
        v4().fragment(1480, true)
            .protocol(protocol)
            .payload(&[0; 32])
            .build()
    };
    let later6 = |protocol: u8| {
        v6().fragment(1480, false)
            .protocol(protocol)
            .payload(&[0; 32])
            .build()
    };
    let at8 = |protocol: u8| {
        v4().fragment(8, false)
            .protocol(protocol)
            .payload(&[0; 32])
            .build()
    };
    let tiny = v4().fragment(0, true).protocol(6).payload(&[0; 8]).build();
    check(
        policy,
        vec![
            (
                "a first fragment has ports",
                web(v4().fragment(0, true)),
                "pass",
                "pass",
                "web",
            ),
            (
                "a first fragment has ports, IPv6",
                web(v6().fragment(0, true)),
                "pass",
                "pass",
                "web",
            ),
            (
                "a later one goes to a service without ports",
                later4(6),
                "pass",
                "pass",
                "tcp",
            ),
            ("a later one, IPv6", later6(6), "pass", "pass", "tcp"),
            (
                "a later one of UDP has no source port",
                later4(17),
                "pass",
                "pass",
                "default",
            ),
            (
                "a TCP fragment at offset 8 would rewrite flags",
                at8(6),
                "drop",
                "malformed",
                "default",
            ),
            (
                "a first fragment too short for its ports",
                tiny,
                "drop",
                "malformed",
                "default",
            ),
            (
                "the last of UDP at offset 8 is fine",
                at8(17),
                "pass",
                "pass",
                "default",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_read_is_malformed() {
    let tcp = web(v4());
    let six = web(v6());
    let tagged = web(Frame::new().vlan(TPID_8021Q, 1).ip("192.0.2.1", "203.0.113.10"));
    let pppoe = web(Frame::new().pppoe(1).ip("192.0.2.1", "203.0.113.10"));
    let frames = vec![
        ("IPv4 of version 5", with(tcp.clone(), 14, 0x55)),
        ("a header of four words", with(tcp.clone(), 14, 0x44)),
        ("a header longer than the datagram", with(tcp.clone(), 14, 0x4f)),
        ("a total length below the header", with(tcp.clone(), 17, 19)),
        ("a total length beyond the frame", with(tcp.clone(), 17, 200)),
        ("cut in the IPv4 header", cut(tcp.clone(), 30)),
        ("cut in the TCP header", cut(tcp.clone(), 50)),
        ("ports behind the datagram's end", with(tcp.clone(), 17, 20)),
        ("a TCP data offset of four words", with(tcp, 46, 0x40)),
        ("a UDP length of seven", with(v4().udp(9, 443).build(), 39, 7)),
        ("IPv6 of version 4", with(six.clone(), 14, 0x40)),
        ("an IPv6 payload beyond the frame", with(six.clone(), 19, 200)),
        ("cut in the IPv6 header", cut(six, 50)),
        (
            "an authentication header of two words",
            with(web(v6().authentication(3)), 55, 0),
        ),
        ("cut in a VLAN tag", cut(tagged, 16)),
        ("PPPoE of version 2", with(pppoe, 14, 0x21)),
    ];
    check(
        WEB,
        frames
            .into_iter()
            .map(|(what, frame)| (what, frame, "drop", "malformed", "default"))
            .collect(),
    );
}

#[test]
fn what_is_not_ip_passes_as_essential() {
    let gre = v4().gre(None).ip("10.0.0.1", "10.0.0.2").tcp(1, 80, ACK).build();
    check(
        WEB,
        vec![
            ("ARP", arp(), "pass", "essential", "default"),
            (
                "LLDP",
                Frame::new().ethertype(0x88cc).payload(&[0; 46]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an unknown type",
                Frame::new().ethertype(0x1234).payload(&[0; 46]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "PPPoE discovery",
                Frame::new().ethertype(0x8863).payload(&[0; 46]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "spanning tree",
                Frame::new().llc(0x42, 0x42, 3).payload(&[0; 43]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "DHCP is what a network needs",
                v4().udp(68, 67).payload(&[0; 20]).build(),
                "pass",
                "essential",
                "default",
            ),
            (
                "an IP packet to no service",
                v4().tcp(1, 81, ACK).build(),
                "pass",
                "pass",
                "default",
            ),
            ("GRE is no TCP", gre, "pass", "pass", "default"),
        ],
    );
}

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
