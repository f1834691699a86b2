use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks_exact(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

/// Behind the Ethernet addresses: the `EtherType` and all that follows.
fn tail(frame: &Frame) -> Vec<u8> {
    frame.build()[12..].to_vec()
}

#[test]
fn ipv4_header_has_the_textbook_checksum() {
    let frame = Frame::new()
        .ip("192.168.0.1", "192.168.0.199")
        .udp(1, 2)
        .payload(&[0; 87]);
    assert_eq!(
        tail(&frame)[2..22],
        hex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7")
    );
}

#[test]
fn udp_and_tcp_over_ipv4_byte_for_byte() {
    // Sums worked out by hand: UDP 1.0.0.1 -> 1.0.0.2, ports 1 and 2, payload "ab":
    // 0100+0001+0100+0002 + 0011+000a + 0001+0002+000a+0000+6162 = 638d, inverted 9c72.
    let udp = Frame::new().ip("1.0.0.1", "1.0.0.2").udp(1, 2).payload(b"ab");
    assert_eq!(tail(&udp)[22..], hex("0001 0002 000a 9c72 6162"));
    // 0203 + 0006+0014 + 0001+0002+0001+5002+ffff = 15222 -> 5223, inverted addc.
    let tcp = Frame::new().ip("1.0.0.1", "1.0.0.2").tcp(1, 2, SYN);
    assert_eq!(
        tail(&tcp)[22..],
        hex("0001 0002 00000001 00000000 5002 ffff addc 0000")
    );
}

#[test]
fn checksums_prove_themselves_over_ipv6_too() {
    let frames = [
        (
            6,
            Frame::new()
                .ip("2001:db8::1", "2001:db8::2")
                .tcp(1, 2, SYN | ACK)
                .payload(b"odd"),
        ),
        (
            17,
            Frame::new()
                .ip("2001:db8::1", "2001:db8::2")
                .udp(1, 2)
                .payload(b"odd"),
        ),
        (
            58,
            Frame::new()
                .ip("fe80::1", "ff02::1")
                .icmp(135, 0)
                .payload(&[7; 20]),
        ),
    ];
    for (protocol, frame) in frames {
        let bytes = frame.build();
        let (header, body) = bytes[14..].split_at(40);
        assert_eq!(header[6], protocol);
        let len = (body.len() as u32).to_be_bytes();
        assert_eq!(
            checksum(&[&header[8..40], &len, &[0, 0, 0, protocol], body]),
            0,
            "protocol {protocol}"
        );
    }
}

#[test]
fn icmp_echo_is_the_known_request() {
    let echo = Frame::new().ip("1.0.0.1", "1.0.0.2").icmp(8, 0);
    assert_eq!(tail(&echo)[22..], hex("0800 f7ff 0000 0000"));
}

#[test]
fn tags_labels_and_sessions_stack() {
    let frame = Frame::new()
        .vlan(TPID_8021AD, 200)
        .vlan(TPID_8021Q, 0x2064)
        .vlan(0x9100, 3)
        .payload(&[9]);
    assert_eq!(tail(&frame), hex("88a8 00c8 8100 2064 9100 0003 88b5 09"));
    let frame = Frame::new().mpls(16).mpls(17).ip("1.0.0.1", "1.0.0.2");
    assert_eq!(tail(&frame)[..11], hex("8847 0001 0040 0001 1140 45"));
    let frame = Frame::new().vlan(TPID_8021Q, 1).pppoe(0x1234).ip("::1", "::2");
    assert_eq!(tail(&frame)[..15], hex("8100 0001 8864 1100 1234 002a 0057 60"));
}

#[test]
fn llc_and_snap_carry_a_length() {
    let frame = Frame::new().llc(0x42, 0x42, 3).payload(&[0; 35]);
    assert_eq!(tail(&frame)[..5], hex("0026 4242 03"));
    let frame = Frame::new().snap().ip("1.0.0.1", "1.0.0.2");
    assert_eq!(tail(&frame)[..11], hex("001c aaaa 0300 0000 0800 45"));
}

#[test]
fn arp_request_and_answer() {
    let ask = Frame::new().arp(1, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(
        tail(&ask),
        hex("0806 0001 0800 0604 0001 020000000001 0a000001 000000000000 0a000002")
    );
    let answer = Frame::new().arp(2, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(tail(&answer)[8..10], hex("0002"));
}

#[test]
fn ipv4_options_and_fragments() {
    let frame = Frame::new()
        .ip("1.0.0.1", "1.0.0.2")
        .options(&[0x94, 4, 0, 0, 1])
        .udp(1, 2);
    let bytes = tail(&frame);
    assert_eq!(bytes[2], 0x47);
    assert_eq!(bytes[22..30], hex("94040000 01000000"));
    assert_eq!(checksum(&[&bytes[2..30]]), 0);
    let first = tail(
        &Frame::new()
            .ip("1.0.0.1", "1.0.0.2")
            .fragment(0, true)
            .udp(1, 2)
            .payload(&[0; 8]),
    );
    assert_eq!(first[6..10], hex("1234 2000"));
    let later = tail(
        &Frame::new()
            .ip("1.0.0.1", "1.0.0.2")
            .fragment(16, false)
            .protocol(17)
            .payload(&[0; 8]),
    );
    assert_eq!(later[6..12], hex("1234 0002 4011"));
}

#[test]
fn ipv6_extension_headers_chain() {
    let frame = Frame::new()
        .ip("::1", "::2")
        .hop_by_hop(1)
        .routing(2)
        .destination_options(1)
        .authentication(3)
        .mobility(1)
        .fragment(8, true)
        .tcp(1, 2, SYN);
    let bytes = tail(&frame);
    let mut at = 2 + 40;
    assert_eq!(bytes[8], 0);
    for (len, next) in [(8, 43), (16, 60), (8, 51), (24, 135), (8, 44), (8, 6)] {
        assert_eq!(bytes[at], next, "at {at}");
        at += len;
    }
    assert_eq!(bytes[at - 6..at - 4], hex("0009"));
    assert_eq!(bytes[at..at + 4], hex("0001 0002"));
    assert_eq!(
        usize::from(u16::from_be_bytes([bytes[6], bytes[7]])),
        bytes.len() - 42
    );
    // The authentication header's own length: (24 / 4) - 2.
    assert_eq!(bytes[42 + 32 + 1], 4);
}

#[test]
fn tunnels_name_what_they_carry() {
    let frame = Frame::new().ip("1.0.0.1", "1.0.0.2").ip("::1", "::2").udp(1, 2);
    assert_eq!(tail(&frame)[11], 41);
    let frame = Frame::new().ip("::1", "::2").ip("1.0.0.1", "1.0.0.2").udp(1, 2);
    assert_eq!(tail(&frame)[8], 4);
    let frame = tail(
        &Frame::new()
            .ip("1.0.0.1", "1.0.0.2")
            .gre(Some(7))
            .ip("1.0.0.3", "1.0.0.4"),
    );
    assert_eq!(frame[11], 47);
    assert_eq!(frame[22..31], hex("2000 0800 00000007 45"));
}

#[test]
fn quic_initials_say_their_version() {
    let v1 = quic_initial(QUIC_V1);
    assert_eq!(v1[..7], hex("c0 00000001 08 11"));
    let v2 = quic_initial(QUIC_V2);
    assert_eq!(v2[..7], hex("d0 6b3343cf 08 11"));
    assert_eq!((v1.len(), v2.len()), (1200, 1200));
    // The length field covers exactly what follows it.
    assert_eq!(u16::from_be_bytes([v1[24], v1[25]]), 0x4000 + 1174);
}

#[test]
fn padding_and_tcp_options() {
    let frame = Frame::new()
        .ip("1.0.0.1", "1.0.0.2")
        .tcp(1, 2, SYN)
        .options(&[2, 4, 5, 180])
        .pad_to(60)
        .build();
    assert_eq!(frame.len(), 60);
    assert_eq!(frame[14 + 20 + 12], 0x60);
    assert_eq!(frame[17], 44);
}

#[test]
fn scattered_sources_are_unicast_distinct_and_repeatable() {
    let sources = scattered_sources(1, 10_000);
    assert_eq!(sources, scattered_sources(1, 10_000));
    assert_ne!(sources[..10], scattered_sources(2, 10)[..]);
    assert!(
        sources
            .iter()
            .all(|a| !a.is_loopback() && !a.is_multicast() && a.octets()[0] != 0 && !a.is_broadcast())
    );
    let distinct: std::collections::HashSet<_> = sources.iter().collect();
    assert!(distinct.len() > 9_990);
    assert_eq!(ipv6_source(0x10002).to_string(), "2001:db8:1:2::1");
}
