//! Frames, built layer by layer from the inside out.

#![allow(dead_code, reason = "each test program uses some of the frames")]

/// The IPv4 source of test frames.
pub(crate) const SOURCE4: [u8; 4] = [192, 0, 2, 1];
/// Their IPv4 destination.
pub(crate) const DESTINATION4: [u8; 4] = [203, 0, 113, 9];
/// The IPv6 source of test frames.
pub(crate) const SOURCE6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
/// Their IPv6 destination.
pub(crate) const DESTINATION6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// TCP's SYN and ACK.
pub(crate) const SYN: u8 = 0x02;
/// TCP's ACK.
pub(crate) const ACK: u8 = 0x10;

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// An Ethernet frame.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&[2; 6], &[4; 6], &ethertype.to_be_bytes(), payload])
}

/// Behind a VLAN tag: its identifier, the type of what follows, and that.
pub(crate) fn tag(vlan: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&vlan.to_be_bytes(), &ethertype.to_be_bytes(), payload])
}

/// An MPLS label stack entry.
pub(crate) fn label(bottom: bool, payload: &[u8]) -> Vec<u8> {
    joined(&[&[0, 1, u8::from(bottom), 64], payload])
}

/// A `PPPoE` session header and a PPP protocol field of one or two bytes.
pub(crate) fn pppoe(protocol: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = (protocol.len() + payload.len()) as u16;
    joined(&[&[0x11, 0, 0, 5], &length.to_be_bytes(), protocol, payload])
}

/// LLC and SNAP with RFC 1042's prefix.
pub(crate) fn snap(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&[0xaa, 0xaa, 3, 0, 0, 0], &ethertype.to_be_bytes(), payload])
}

/// A backbone service tag and an inner Ethernet header.
pub(crate) fn backbone(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    joined(&[&[0, 0, 0, 1], &ethernet(ethertype, payload)])
}

/// An IPv4 packet with options and a fragment field.
pub(crate) fn ipv4_with(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = (20 + options.len() + payload.len()) as u16;
    let ihl = 5 + options.len() as u8 / 4;
    joined(&[
        &[0x40 | ihl, 0],
        &total.to_be_bytes(),
        &[0, 1],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &SOURCE4,
        &DESTINATION4,
        options,
        payload,
    ])
}

/// An IPv4 packet.
pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(protocol, &[], 0, payload)
}

/// An IPv6 packet.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    joined(&[
        &[0x60, 0, 0, 0],
        &length.to_be_bytes(),
        &[next, 64],
        &SOURCE6,
        &DESTINATION6,
        payload,
    ])
}

/// An extension header of the common form, of 8 × (`blocks` + 1) bytes.
pub(crate) fn extension(next: u8, blocks: u8, payload: &[u8]) -> Vec<u8> {
    joined(&[&[next, blocks], &vec![0; 6 + usize::from(blocks) * 8], payload])
}

/// An IPv6 fragment header.
pub(crate) fn fragment6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let field = offset << 3 | u16::from(more);
    joined(&[&[next, 0], &field.to_be_bytes(), &[0, 0, 0, 1], payload])
}

/// An authentication header whose length field is `words`.
pub(crate) fn authentication(next: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    joined(&[
        &[next, words],
        &vec![0; (usize::from(words) + 2) * 4 - 2],
        payload,
    ])
}

/// A TCP header.
pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    joined(&[
        &source.to_be_bytes(),
        &destination.to_be_bytes(),
        &[0; 8],
        &[0x50, flags],
        &[0; 6],
    ])
}

/// A UDP datagram.
pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    joined(&[
        &source.to_be_bytes(),
        &destination.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        payload,
    ])
}

/// An ICMP or `ICMPv6` message.
pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1]
}

/// A QUIC packet's first bytes.
pub(crate) fn quic(first: u8, version: u32) -> Vec<u8> {
    joined(&[&[first], &version.to_be_bytes(), &[8; 16]])
}
