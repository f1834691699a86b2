//! What every kind of frame is parsed to, as rows of {what it shows, frame, outcome}.

#[path = "common/frames.rs"]
mod frames;

use frames::*;
use gateway_core::{
    frame::Slice,
    packet::{Fragment, Malformed, Network, Packet, UNTAGGED},
    parse::{MAX_ENCAPSULATIONS, MAX_EXTENSIONS, parse},
};

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const MPLS: u16 = 0x8847;
const PPPOE: u16 = 0x8864;
const BACKBONE: u16 = 0x88e7;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// What a row expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// Neither IPv4 nor IPv6, with that type.
    Other(u16),
    /// The test's IP source, that protocol and destination port.
    Ip(u8, u16),
    /// A first fragment.
    First(u8, u16),
    /// A later fragment of that protocol.
    Later(u8),
    /// One that asks for a new connection.
    Connection(u8, u16),
    /// Malformed.
    Bad(Malformed),
}

use Malformed::{BadHeader, TooDeep, Truncated};
use Outcome::{Bad, Connection, First, Ip, Later, Other};

fn source(packet: &Packet) -> Vec<u8> {
    let bytes: Vec<u8> = packet.source.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match packet.network {
        Network::V4 => bytes[..4].to_vec(),
        _ => bytes,
    }
}

fn outcome(what: &str, frame: &[u8]) -> Outcome {
    let packet = match parse(&Slice::whole(frame)) {
        Ok(packet) => packet,
        Err(malformed) => return Bad(malformed),
    };
    assert_eq!(packet.length as usize, frame.len(), "{what}: the length");
    match packet.network {
        Network::Other(ethertype) => return Other(ethertype),
        Network::V4 => assert_eq!(source(&packet), SOURCE4, "{what}: the source"),
        Network::V6 => assert_eq!(source(&packet), SOURCE6, "{what}: the source"),
    }
    match (packet.fragment, packet.connection) {
        (Fragment::Later, _) => Later(packet.protocol),
        (Fragment::First, _) => First(packet.protocol, packet.destination_port),
        (Fragment::Whole, true) => Connection(packet.protocol, packet.destination_port),
        (Fragment::Whole, false) => Ip(packet.protocol, packet.destination_port),
    }
}

/// Checks rows.
fn check(rows: &[(&str, Vec<u8>, Outcome)]) {
    for (what, frame, expected) in rows {
        assert_eq!(outcome(what, frame), *expected, "{what}");
    }
}

fn syn() -> Vec<u8> {
    tcp(40_000, 443, SYN)
}

fn web() -> Vec<u8> {
    ipv4(TCP, &tcp(40_000, 443, ACK))
}

/// A frame behind so many VLAN tags.
fn tagged(tags: usize) -> Vec<u8> {
    let mut payload = web();
    let mut next = V4;
    for vlan in 0..tags {
        payload = tag(vlan as u16 + 1, next, &payload);
        next = VLAN;
    }
    ethernet(next, &payload)
}

/// A frame behind so many MPLS labels.
fn labelled(labels: usize, inner: &[u8]) -> Vec<u8> {
    let payload = (0..labels).fold(inner.to_vec(), |payload, at| label(at == 0, &payload));
    ethernet(MPLS, &payload)
}

#[test]
fn every_framing_is_followed_to_the_outermost_ip_header() {
    let web = web();
    let web6 = ipv6(TCP, &tcp(40_000, 443, ACK));
    check(&[
        ("IPv4 on Ethernet", ethernet(V4, &web), Ip(TCP, 443)),
        ("IPv6 on Ethernet", ethernet(V6, &web6), Ip(TCP, 443)),
        ("802.1Q", ethernet(VLAN, &tag(5, V4, &web)), Ip(TCP, 443)),
        (
            "802.1ad",
            ethernet(0x88a8, &tag(5, VLAN, &tag(6, V6, &web6))),
            Ip(TCP, 443),
        ),
        ("0x9100", ethernet(0x9100, &tag(5, V4, &web)), Ip(TCP, 443)),
        ("0x9200", ethernet(0x9200, &tag(5, V4, &web)), Ip(TCP, 443)),
        ("0x9300", ethernet(0x9300, &tag(5, V4, &web)), Ip(TCP, 443)),
        (
            "a tag's priority bits",
            ethernet(VLAN, &tag(0xe005, V4, &web)),
            Ip(TCP, 443),
        ),
        (
            "PPPoE with IPv4",
            ethernet(PPPOE, &pppoe(&[0, 0x21], &web)),
            Ip(TCP, 443),
        ),
        (
            "PPPoE with IPv6",
            ethernet(PPPOE, &pppoe(&[0, 0x57], &web6)),
            Ip(TCP, 443),
        ),
        (
            "PPPoE, compressed protocol",
            ethernet(PPPOE, &pppoe(&[0x21], &web)),
            Ip(TCP, 443),
        ),
        (
            "PPPoE, compressed, IPv6",
            ethernet(PPPOE, &pppoe(&[0x57], &web6)),
            Ip(TCP, 443),
        ),
        (
            "PPPoE, LCP",
            ethernet(PPPOE, &pppoe(&[0xc0, 0x21], &[1; 8])),
            Other(PPPOE),
        ),
        (
            "PPPoE of version 2",
            ethernet(PPPOE, &[0x21, 0, 0, 5, 0, 2, 0, 0x21]),
            Bad(BadHeader),
        ),
        (
            "PPPoE in a VLAN",
            ethernet(VLAN, &tag(5, PPPOE, &pppoe(&[0, 0x21], &web))),
            Ip(TCP, 443),
        ),
        ("SNAP with IPv4", ethernet(100, &snap(V4, &web)), Ip(TCP, 443)),
        (
            "SNAP in a VLAN",
            ethernet(VLAN, &tag(5, 100, &snap(V6, &web6))),
            Ip(TCP, 443),
        ),
        (
            "SNAP, 802.1H prefix",
            ethernet(100, &[&[0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0], &web[..]].concat()),
            Ip(TCP, 443),
        ),
        (
            "SNAP of a vendor",
            ethernet(100, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0]),
            Other(0),
        ),
        (
            "SNAP that names a length",
            ethernet(100, &snap(100, &web)),
            Bad(BadHeader),
        ),
        ("LLC: spanning tree", ethernet(38, &[0x42; 38]), Other(0)),
        ("LLC, shorter than SNAP", ethernet(3, &[0x42, 0x42, 3]), Other(0)),
        ("802.1ah", ethernet(BACKBONE, &backbone(V4, &web)), Ip(TCP, 443)),
        (
            "802.1ah in 802.1ad",
            ethernet(0x88a8, &tag(5, BACKBONE, &backbone(V6, &web6))),
            Ip(TCP, 443),
        ),
        ("ARP", ethernet(0x0806, &[0; 28]), Other(0x0806)),
        (
            "ARP in a VLAN",
            ethernet(VLAN, &tag(5, 0x0806, &[0; 28])),
            Other(0x0806),
        ),
        ("an unknown type", ethernet(0x1234, &web), Other(0x1234)),
        ("shorter than Ethernet", vec![0; 13], Bad(Truncated)),
    ]);
}

#[test]
fn vlan_stacks_are_followed_to_eight_tags_and_no_deeper() {
    for tags in 1..=MAX_ENCAPSULATIONS {
        assert_eq!(outcome("tags", &tagged(tags)), Ip(TCP, 443), "{tags} tags");
        // The outermost tag counts, which is the last one put on.
        let packet = parse(&Slice::whole(&tagged(tags))).expect("it is whole");
        assert_eq!(packet.vlan as usize, tags);
    }
    assert_eq!(outcome("nine tags", &tagged(9)), Bad(TooDeep));
    assert_eq!(
        parse(&Slice::whole(&tagged(0))).expect("it is whole").vlan,
        UNTAGGED
    );
}

#[test]
fn mpls_stacks_are_followed_to_eight_labels_and_no_deeper() {
    let web6 = ipv6(TCP, &tcp(40_000, 443, ACK));
    for labels in 1..=MAX_ENCAPSULATIONS {
        assert_eq!(
            outcome("labels", &labelled(labels, &web())),
            Ip(TCP, 443),
            "{labels} labels"
        );
        assert_eq!(
            outcome("labels", &labelled(labels, &web6)),
            Ip(TCP, 443),
            "{labels} labels"
        );
    }
    check(&[
        ("nine labels", labelled(9, &web()), Bad(TooDeep)),
        (
            "MPLS with a pseudowire",
            labelled(2, &[0, 0, 0, 0, 1, 2]),
            Other(MPLS),
        ),
        (
            "MPLS with nothing behind the bottom",
            labelled(2, &[]),
            Bad(Truncated),
        ),
        (
            "MPLS without a bottom",
            ethernet(MPLS, &label(false, &[])),
            Bad(Truncated),
        ),
        (
            "upstream label",
            ethernet(0x8848, &label(true, &web())),
            Ip(TCP, 443),
        ),
        (
            "MPLS in a VLAN",
            ethernet(VLAN, &tag(5, MPLS, &label(true, &web()))),
            Ip(TCP, 443),
        ),
    ]);
}

#[test]
fn ipv4_headers_and_fragments() {
    let frame = |packet: &[u8]| ethernet(V4, packet);
    let with_options = ipv4_with(TCP, &[1; 40], 0, &syn());
    let broken = |at: usize, value: u8| {
        let mut packet = ipv4(TCP, &syn());
        packet[at] = value;
        frame(&packet)
    };
    let padded = |packet: &[u8]| [frame(packet), vec![0xff; 26]].concat();
    check(&[
        (
            "forty bytes of options",
            frame(&with_options),
            Connection(TCP, 443),
        ),
        ("a header of four words", broken(0, 0x44), Bad(BadHeader)),
        ("version 5", broken(0, 0x55), Bad(BadHeader)),
        ("options that are not there", broken(0, 0x4f), Bad(BadHeader)),
        ("a total length below the header", broken(3, 19), Bad(BadHeader)),
        ("a total length beyond the frame", broken(3, 200), Bad(Truncated)),
        (
            "a total length that ends in the TCP header",
            broken(3, 39),
            Bad(Truncated),
        ),
        (
            "padding behind a whole packet",
            padded(&ipv4(TCP, &syn())),
            Connection(TCP, 443),
        ),
        (
            "ports only in the padding",
            padded(&ipv4(UDP, &[])),
            Bad(Truncated),
        ),
        (
            "a first fragment",
            frame(&ipv4_with(TCP, &[], 0x2000, &syn())),
            First(TCP, 443),
        ),
        (
            "a later fragment",
            frame(&ipv4_with(TCP, &[], 0x2005, &[0xff; 64])),
            Later(TCP),
        ),
        (
            "the last fragment",
            frame(&ipv4_with(UDP, &[], 0x0005, &[0xff; 64])),
            Later(UDP),
        ),
        (
            "a later fragment of one byte",
            frame(&ipv4_with(UDP, &[], 0x0005, &[9])),
            Later(UDP),
        ),
        (
            "a first fragment without all of TCP",
            frame(&ipv4_with(TCP, &[], 0x2000, &syn()[..8])),
            Bad(Truncated),
        ),
        (
            "a fragment that rewrites TCP flags",
            frame(&ipv4_with(TCP, &[], 0x0001, &[0xff; 64])),
            Bad(BadHeader),
        ),
        (
            "offset one of UDP",
            frame(&ipv4_with(UDP, &[], 0x0001, &[0xff; 64])),
            Later(UDP),
        ),
        (
            "don't fragment",
            frame(&ipv4_with(TCP, &[], 0x4000, &syn())),
            Connection(TCP, 443),
        ),
    ]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "it is one table")]
fn ipv6_chains_of_extension_headers() {
    let frame = |next: u8, payload: &[u8]| ethernet(V6, &ipv6(next, payload));
    let chain = |headers: usize| {
        (0..headers).fold(syn(), |payload, at| {
            extension(if at == 0 { TCP } else { 60 }, 0, &payload)
        })
    };
    let mut rows = vec![
        ("no extension headers", frame(TCP, &syn()), Connection(TCP, 443)),
        (
            "hop-by-hop",
            frame(0, &extension(TCP, 0, &syn())),
            Connection(TCP, 443),
        ),
        (
            "routing",
            frame(43, &extension(TCP, 2, &syn())),
            Connection(TCP, 443),
        ),
        (
            "destination options",
            frame(60, &extension(TCP, 1, &syn())),
            Connection(TCP, 443),
        ),
        (
            "mobility",
            frame(135, &extension(TCP, 0, &syn())),
            Connection(TCP, 443),
        ),
        ("mobility alone", frame(135, &extension(59, 0, &[])), Ip(59, 0)),
        (
            "host identity",
            frame(139, &extension(TCP, 0, &syn())),
            Connection(TCP, 443),
        ),
        (
            "shim6",
            frame(140, &extension(TCP, 0, &syn())),
            Connection(TCP, 443),
        ),
        (
            "one of each",
            frame(
                0,
                &extension(
                    60,
                    0,
                    &extension(
                        43,
                        1,
                        &fragment6(51, 0, false, &authentication(60, 4, &extension(TCP, 0, &syn()))),
                    ),
                ),
            ),
            Connection(TCP, 443),
        ),
        (
            "an extension header that is not there",
            frame(0, &[6]),
            Bad(Truncated),
        ),
        (
            "an extension header longer than the frame",
            frame(0, &[6, 255, 0, 0, 0, 0, 0, 0]),
            Bad(Truncated),
        ),
        (
            "authentication",
            frame(51, &authentication(TCP, 4, &syn())),
            Connection(TCP, 443),
        ),
        (
            "the shortest authentication",
            frame(51, &authentication(TCP, 1, &syn())),
            Connection(TCP, 443),
        ),
        (
            "authentication too short to be",
            frame(51, &authentication(TCP, 0, &syn())),
            Bad(BadHeader),
        ),
        (
            "a first fragment",
            frame(44, &fragment6(TCP, 0, true, &syn())),
            First(TCP, 443),
        ),
        (
            "a later fragment",
            frame(44, &fragment6(TCP, 1, true, &[0xff; 8])),
            Later(TCP),
        ),
        (
            "the last fragment",
            frame(44, &fragment6(UDP, 9, false, &[0xff; 8])),
            Later(UDP),
        ),
        (
            "an atomic fragment",
            frame(44, &fragment6(TCP, 0, false, &syn())),
            Connection(TCP, 443),
        ),
        (
            "a fragment header that ends early",
            frame(44, &[6, 0, 0, 0]),
            Bad(Truncated),
        ),
        ("ESP", frame(50, &[0; 16]), Ip(50, 0)),
        ("no next header", frame(59, &[]), Ip(59, 0)),
        ("ICMPv6", frame(ICMP6, &icmp(135)), Ip(ICMP6, 0)),
        (
            "eight headers",
            frame(60, &chain(MAX_EXTENSIONS)),
            Connection(TCP, 443),
        ),
        (
            "nine headers",
            frame(60, &chain(MAX_EXTENSIONS + 1)),
            Bad(TooDeep),
        ),
    ];
    let mut jumbo = ipv6(0, &extension(TCP, 0, &syn()));
    jumbo[4..6].copy_from_slice(&[0, 0]);
    rows.push((
        "a jumbogram's length of zero",
        ethernet(V6, &jumbo),
        Connection(TCP, 443),
    ));
    let mut wrong = ipv6(TCP, &syn());
    wrong[0] = 0x40;
    rows.push(("version 4", ethernet(V6, &wrong), Bad(BadHeader)));
    let mut long = ipv6(TCP, &syn());
    long[5] += 1;
    rows.push(("a payload beyond the frame", ethernet(V6, &long), Bad(Truncated)));
    let mut short = ipv6(TCP, &syn());
    short[5] -= 1;
    rows.push((
        "a payload that ends in the TCP header",
        ethernet(V6, &short),
        Bad(Truncated),
    ));
    check(&rows);
}

#[test]
fn tunnels_show_their_outermost_source() {
    let inner4 = [&web()[..12], &[10, 9, 9, 9], &web()[16..]].concat();
    check(&[
        ("IP in IP", ethernet(V4, &ipv4(4, &inner4)), Ip(4, 0)),
        (
            "IPv6 in IPv4",
            ethernet(V4, &ipv4(41, &ipv6(TCP, &syn()))),
            Ip(41, 0),
        ),
        ("IPv4 in IPv6", ethernet(V6, &ipv6(4, &inner4)), Ip(4, 0)),
        (
            "GRE",
            ethernet(V4, &ipv4(47, &[&[0, 0, 8, 0], &inner4[..]].concat())),
            Ip(47, 0),
        ),
        ("SCTP", ethernet(V4, &ipv4(132, &[0; 12])), Ip(132, 0)),
    ]);
}

#[test]
fn tcp_udp_icmp_and_quic() {
    let on_tcp = |flags: u8| ethernet(V4, &ipv4(TCP, &tcp(40_000, 443, flags)));
    let on_udp = |payload: &[u8]| ethernet(V4, &ipv4(UDP, &udp(40_000, 443, payload)));
    let udp_length = |length: u8| {
        let mut datagram = udp(40_000, 443, &[]);
        datagram[5] = length;
        ethernet(V4, &ipv4(UDP, &datagram))
    };
    let mut short_offset = syn();
    short_offset[12] = 0x40;
    check(&[
        ("SYN", on_tcp(SYN), Connection(TCP, 443)),
        ("SYN with ECN bits", on_tcp(SYN | 0xc0), Connection(TCP, 443)),
        ("SYN and FIN", on_tcp(SYN | 1), Connection(TCP, 443)),
        ("SYN and ACK", on_tcp(SYN | ACK), Ip(TCP, 443)),
        ("ACK", on_tcp(ACK), Ip(TCP, 443)),
        ("RST", on_tcp(4), Ip(TCP, 443)),
        ("no flags", on_tcp(0), Ip(TCP, 443)),
        (
            "a data offset of four words",
            ethernet(V4, &ipv4(TCP, &short_offset)),
            Bad(BadHeader),
        ),
        ("UDP", on_udp(&[0; 20]), Ip(UDP, 443)),
        ("a UDP length of seven", udp_length(7), Bad(BadHeader)),
        ("a UDP length of zero", udp_length(0), Ip(UDP, 443)),
        ("QUIC 1 Initial", on_udp(&quic(0xc3, 1)), Connection(UDP, 443)),
        ("QUIC 1 Handshake", on_udp(&quic(0xe3, 1)), Ip(UDP, 443)),
        ("QUIC 1 short header", on_udp(&quic(0x43, 1)), Ip(UDP, 443)),
        (
            "QUIC 2 Initial",
            on_udp(&quic(0xd3, 0x6b33_43cf)),
            Connection(UDP, 443),
        ),
        ("QUIC 2 Retry", on_udp(&quic(0xc3, 0x6b33_43cf)), Ip(UDP, 443)),
        (
            "QUIC of an unknown version",
            on_udp(&quic(0xc3, 0xff00_001d)),
            Ip(UDP, 443),
        ),
        ("UDP of four bytes", on_udp(&quic(0xc3, 1)[..4]), Ip(UDP, 443)),
        ("ICMP", ethernet(V4, &ipv4(1, &icmp(8))), Ip(1, 0)),
        (
            "ICMP cut short",
            ethernet(V4, &ipv4(1, &icmp(8)[..3])),
            Bad(Truncated),
        ),
        (
            "ICMPv6 in IPv4 is still read",
            ethernet(V4, &ipv4(ICMP6, &icmp(8))),
            Ip(ICMP6, 0),
        ),
    ]);
}

/// Frames of every kind, for the properties below.
fn all() -> Vec<Vec<u8>> {
    let web6 = ipv6(
        0,
        &extension(51, 3, &authentication(44, 4, &fragment6(TCP, 0, true, &syn()))),
    );
    vec![
        tagged(3),
        tagged(8),
        labelled(4, &web()),
        labelled(2, &web6),
        ethernet(PPPOE, &pppoe(&[0x21], &web())),
        ethernet(PPPOE, &pppoe(&[0, 0x57], &web6)),
        ethernet(100, &snap(V4, &web())),
        ethernet(BACKBONE, &backbone(V6, &web6)),
        ethernet(V4, &ipv4_with(TCP, &[1; 40], 0, &syn())),
        ethernet(V4, &ipv4(UDP, &udp(1, 2, &quic(0xc3, 1)))),
        ethernet(V6, &ipv6(ICMP6, &icmp(128))),
        ethernet(0x0806, &[0; 28]),
    ]
}

#[test]
fn every_beginning_of_a_frame_is_malformed_or_has_the_same_source() {
    for (number, frame) in all().iter().enumerate() {
        let whole = parse(&Slice::whole(frame)).expect("it is whole");
        for length in 0..frame.len() {
            match parse(&Slice::whole(&frame[..length])) {
                Err(_) => {}
                // LLC without room for SNAP: nothing behind it that could be IP.
                Ok(cut) if cut.network == Network::Other(0) => {
                    assert!(length < 14 + 8, "frame {number} cut to {length}");
                }
                Ok(cut) => {
                    assert_eq!(cut.network, whole.network, "frame {number} cut to {length}");
                    assert_eq!(cut.source, whole.source, "frame {number} cut to {length}");
                }
            }
            // Where only the beginning is readable (a capture), nothing is read beyond it either.
            let captured = Slice {
                bytes: &frame[..length],
                wire_length: frame.len() as u32,
            };
            if let Ok(cut) = parse(&captured)
                && cut.network != Network::Other(0)
            {
                assert_eq!((cut.network, cut.source), (whole.network, whole.source));
            }
        }
    }
}

#[test]
fn no_bytes_panic() {
    // A small generator, so that the same bytes are tried everywhere: xorshift64.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let frames = all();
    let mut parsed = 0;
    for round in 0..200_000 {
        let mut frame = frames[round % frames.len()].clone();
        for _ in 0..=next() % 4 {
            let at = next() as usize % frame.len();
            frame[at] = next() as u8;
        }
        frame.truncate(next() as usize % (frame.len() * 4) + 1);
        parsed += usize::from(parse(&Slice::whole(&frame)).is_ok());
    }
    assert!(parsed > 20_000, "only {parsed} frames were still well formed");
}
