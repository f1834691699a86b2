//! Verdict tables: framings, extension headers, fragments, and what cannot be read. SPECIFICATION.md names these tests.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests fail where they should, and are tables"
)]

use weir_tests::{
    frame::{ACK, Frame, TPID_8021AD, TPID_8021Q},
    rows::{arp, check, cut, v4, v6, web, with},
};

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
