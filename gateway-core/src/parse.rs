//! From a frame to a [`Packet`]: through every framing down to the outermost IP header, and on to the ports.
//!
//! Anything that announces a header and does not have it, or nests deeper than Weir follows, is malformed: a frame
//! that cannot be read to the end could hide a source from the lists and bans.

use crate::{
    frame::{Frame, Window},
    packet::{Fragment, Malformed, Network, Packet, UNTAGGED},
    plain::plain,
    wire::{ethernet, icmp, ipv4, ipv6, mpls, pppoe, tcp, udp},
};

/// The most encapsulations (VLAN tags, MPLS labels, `PPPoE`, SNAP, backbone tags) before the network header.
pub const MAX_ENCAPSULATIONS: usize = 8;
/// The most IPv6 extension headers before the transport header.
pub const MAX_EXTENSIONS: usize = 8;

/// Parses a frame.
///
/// # Errors
/// [`Malformed`] where the frame cannot be read down to the transport header.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Packet, Malformed> {
    match plain(frame) {
        Some(packet) => Ok(packet),
        None => follow(frame),
    }
}

/// Parses a frame step by step, whatever it is.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn follow<F: Frame>(frame: &F) -> Result<Packet, Malformed> {
    let mut packet = Packet::EMPTY;
    follow_into(frame, &mut packet)?;
    Ok(packet)
}

/// As [`follow`], into a packet that is [`Packet::EMPTY`]: the kernel half has little stack, and none for a second copy.
///
/// # Errors
/// As [`parse`]; the packet is then of no use.
#[inline(always)]
pub fn follow_into<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Malformed> {
    packet.length = frame.length();
    let (network, offset) = link(frame, &mut packet.vlan)?;
    packet.network = network;
    let (transport, end) = match network {
        Network::Other(_) => return Ok(()),
        Network::V4 => internet4(frame, offset, packet)?,
        Network::V6 => internet6(frame, offset, packet)?,
    };
    if !matches!(packet.fragment, Fragment::Later) {
        ports(frame, transport, end, packet)?;
    }
    Ok(())
}

/// Follows the encapsulations; returns what the frame carries and where that begins.
#[inline(always)]
fn link<F: Frame>(frame: &F, vlan: &mut u16) -> Result<(Network, usize), Malformed> {
    let header = frame
        .window::<{ ethernet::HEADER }>(0)
        .ok_or(Malformed::Truncated)?;
    let mut ethertype = header.be16::<{ ethernet::TYPE }>();
    let mut offset = ethernet::HEADER;
    for _ in 0..MAX_ENCAPSULATIONS {
        match ethertype {
            ethernet::IPV4 => return Ok((Network::V4, offset)),
            ethernet::IPV6 => return Ok((Network::V6, offset)),
            _ => {}
        }
        if ethernet::is_vlan(ethertype) {
            let tag = frame
                .window::<{ ethernet::TAG }>(offset)
                .ok_or(Malformed::Truncated)?;
            if *vlan == UNTAGGED {
                *vlan = tag.be16::<0>() & ethernet::VLAN_ID;
            }
            ethertype = tag.be16::<2>();
            offset = frame.forget(offset + ethernet::TAG);
        } else if ethernet::is_mpls(ethertype) {
            let entry = frame
                .window::<{ mpls::ENTRY }>(offset)
                .ok_or(Malformed::Truncated)?;
            offset = frame.forget(offset + mpls::ENTRY);
            if entry.byte::<{ mpls::BOTTOM }>() & mpls::BOTTOM_BIT != 0 {
                // Nothing names what follows the bottom; a router tells by the first nibble (RFC 4928, section 3).
                let first = frame.window::<1>(offset).ok_or(Malformed::Truncated)?;
                ethertype = match first.byte::<0>() >> 4 {
                    4 => ethernet::IPV4,
                    6 => ethernet::IPV6,
                    _ => return Ok((Network::Other(ethertype), offset)),
                };
            }
        } else if ethertype == ethernet::PPPOE_SESSION {
            let session = frame
                .window::<{ pppoe::HEADER + 2 }>(offset)
                .ok_or(Malformed::Truncated)?;
            if session.byte::<{ pppoe::VERSION_TYPE }>() != 0x11 {
                return Err(Malformed::BadHeader);
            }
            let protocol = session.be16::<{ pppoe::HEADER }>();
            // An odd first byte is a compressed protocol field, one byte long.
            let (protocol, length) = match protocol >> 8 {
                first if first & 1 == 1 => (first, 1),
                _ => (protocol, 2),
            };
            offset = frame.forget(offset + pppoe::HEADER + length);
            ethertype = match protocol {
                pppoe::PPP_IPV4 => ethernet::IPV4,
                pppoe::PPP_IPV6 => ethernet::IPV6,
                _ => return Ok((Network::Other(ethertype), offset)),
            };
        } else if ethertype == ethernet::BACKBONE {
            let inner = frame
                .window::<{ ethernet::BACKBONE_TAG }>(offset)
                .ok_or(Malformed::Truncated)?;
            ethertype = inner.be16::<{ ethernet::BACKBONE_TAG - 2 }>();
            offset = frame.forget(offset + ethernet::BACKBONE_TAG);
        } else if ethertype < ethernet::MIN_TYPE {
            // An 802.3 length. Only SNAP with an RFC 1042 (or 802.1H) prefix names an Ethernet type.
            let Some(snap) = frame.window::<{ ethernet::LLC_SNAP }>(offset) else {
                return Ok((Network::Other(0), offset));
            };
            let encapsulated = snap.be16::<0>() == 0xaaaa
                && snap.byte::<2>() == 0x03
                && snap.byte::<3>() == 0
                && matches!(snap.be16::<4>(), 0x0000 | 0x00f8);
            if !encapsulated {
                return Ok((Network::Other(0), offset));
            }
            ethertype = snap.be16::<6>();
            if ethertype < ethernet::MIN_TYPE {
                return Err(Malformed::BadHeader);
            }
            offset = frame.forget(offset + ethernet::LLC_SNAP);
        } else {
            return Ok((Network::Other(ethertype), offset));
        }
    }
    match ethertype {
        ethernet::IPV4 => Ok((Network::V4, offset)),
        ethernet::IPV6 => Ok((Network::V6, offset)),
        _ => Err(Malformed::TooDeep),
    }
}

/// Reads an IPv4 header; returns where the transport header begins and where the datagram ends.
#[inline(always)]
fn internet4<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<(usize, usize), Malformed> {
    let header = frame
        .window::<{ ipv4::HEADER }>(offset)
        .ok_or(Malformed::Truncated)?;
    packet.source[0] = header.word::<{ ipv4::SOURCE }>();
    packet.destination[0] = header.word::<{ ipv4::DESTINATION }>();
    packet.protocol = header.byte::<{ ipv4::PROTOCOL }>();
    packet.ttl = header.byte::<{ ipv4::TTL }>();
    let version_ihl = header.byte::<{ ipv4::VERSION_IHL }>();
    let length = usize::from(version_ihl & 0x0f) * 4;
    let total = usize::from(header.be16::<{ ipv4::TOTAL_LENGTH }>());
    if version_ihl >> 4 != 4 || length < ipv4::HEADER || total < length {
        return Err(Malformed::BadHeader);
    }
    if offset + total > packet.length as usize {
        return Err(Malformed::Truncated);
    }
    let field = header.be16::<{ ipv4::FRAGMENT }>();
    let (place, more) = (field & ipv4::OFFSET, field & ipv4::MORE_FRAGMENTS != 0);
    packet.fragment = fragment(place, more);
    // A second fragment that begins eight bytes into a TCP header would rewrite its flags (RFC 1858, section 4).
    if place == 1 && packet.protocol == ipv4::TCP {
        return Err(Malformed::BadHeader);
    }
    Ok((offset + length, offset + total))
}

/// Reads an IPv6 header and its chain of extension headers; returns where the transport header begins and where the
/// datagram ends.
#[inline(always)]
fn internet6<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<(usize, usize), Malformed> {
    let header = frame
        .window::<{ ipv6::HEADER }>(offset)
        .ok_or(Malformed::Truncated)?;
    packet.source = [
        header.word::<{ ipv6::SOURCE }>(),
        header.word::<{ ipv6::SOURCE + 4 }>(),
        header.word::<{ ipv6::SOURCE + 8 }>(),
        header.word::<{ ipv6::SOURCE + 12 }>(),
    ];
    packet.destination = [
        header.word::<{ ipv6::DESTINATION }>(),
        header.word::<{ ipv6::DESTINATION + 4 }>(),
        header.word::<{ ipv6::DESTINATION + 8 }>(),
        header.word::<{ ipv6::DESTINATION + 12 }>(),
    ];
    packet.ttl = header.byte::<{ ipv6::HOP_LIMIT }>();
    if header.byte::<{ ipv6::VERSION }>() >> 4 != 6 {
        return Err(Malformed::BadHeader);
    }
    let end = match usize::from(header.be16::<{ ipv6::PAYLOAD_LENGTH }>()) {
        // A jumbogram (RFC 2675) states its length in an option; the frame bounds it all the same.
        0 => packet.length as usize,
        payload => offset + ipv6::HEADER + payload,
    };
    if end > packet.length as usize {
        return Err(Malformed::Truncated);
    }
    let next = header.byte::<{ ipv6::NEXT_HEADER }>();
    let (offset, next, part) = extensions(frame, offset + ipv6::HEADER, next)?;
    packet.protocol = next;
    packet.fragment = part;
    Ok((offset, end))
}

/// Whether another header follows before the transport header.
#[inline(always)]
const fn is_chained(next: u8) -> bool {
    ipv6::is_extension(next) || next == ipv6::FRAGMENT || next == ipv6::AUTHENTICATION
}

/// Follows a chain of extension headers; returns the transport header's place and protocol.
#[inline(always)]
fn extensions<F: Frame>(
    frame: &F,
    mut offset: usize,
    mut next: u8,
) -> Result<(usize, u8, Fragment), Malformed> {
    let mut part = Fragment::Whole;
    for _ in 0..MAX_EXTENSIONS {
        if ipv6::is_extension(next) {
            let extension = frame.window::<2>(offset).ok_or(Malformed::Truncated)?;
            next = extension.byte::<0>();
            offset = frame.forget(offset + (usize::from(extension.byte::<1>()) + 1) * 8);
        } else if next == ipv6::FRAGMENT {
            let extension = frame
                .window::<{ ipv6::FRAGMENT_HEADER }>(offset)
                .ok_or(Malformed::Truncated)?;
            next = extension.byte::<0>();
            offset = frame.forget(offset + ipv6::FRAGMENT_HEADER);
            let field = extension.be16::<{ ipv6::FRAGMENT_OFFSET }>();
            part = fragment(field & ipv6::OFFSET, field & ipv6::MORE_FRAGMENTS != 0);
            if matches!(part, Fragment::Later) {
                return Ok((offset, next, part));
            }
        } else if next == ipv6::AUTHENTICATION {
            let extension = frame.window::<2>(offset).ok_or(Malformed::Truncated)?;
            let length = (usize::from(extension.byte::<1>()) + 2) * 4;
            if length < ipv6::MIN_AUTHENTICATION {
                return Err(Malformed::BadHeader);
            }
            next = extension.byte::<0>();
            offset = frame.forget(offset + length);
        } else {
            return Ok((offset, next, part));
        }
    }
    if is_chained(next) {
        Err(Malformed::TooDeep)
    } else {
        Ok((offset, next, part))
    }
}

/// What an offset and "more fragments" say.
#[inline(always)]
fn fragment(place: u16, more: bool) -> Fragment {
    match (place, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Reads what the judgement needs of the transport header. It must lie before the datagram's end: what a frame has
/// behind that is padding, and reading ports from it would let a sender choose them.
#[inline(always)]
fn ports<F: Frame>(frame: &F, offset: usize, end: usize, packet: &mut Packet) -> Result<(), Malformed> {
    match packet.protocol {
        ipv4::TCP => {
            let header = within::<_, { tcp::HEADER }>(frame, offset, end).ok_or(Malformed::Truncated)?;
            packet.source_port = header.be16::<{ tcp::SOURCE_PORT }>();
            packet.destination_port = header.be16::<{ tcp::DESTINATION_PORT }>();
            let length = usize::from(header.byte::<{ tcp::DATA_OFFSET }>() >> 4) * 4;
            if length < tcp::HEADER {
                return Err(Malformed::BadHeader);
            }
            packet.payload = end.saturating_sub(offset + length).min(usize::from(u16::MAX)) as u16;
            packet.tcp_flags = header.byte::<{ tcp::FLAGS }>();
            packet.sequence = header.be32::<{ tcp::SEQUENCE }>();
            packet.acknowledgement = header.be32::<{ tcp::ACKNOWLEDGEMENT }>();
            packet.connection = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        }
        ipv4::UDP => {
            let header = within::<_, { udp::HEADER }>(frame, offset, end).ok_or(Malformed::Truncated)?;
            packet.source_port = header.be16::<{ udp::SOURCE_PORT }>();
            packet.destination_port = header.be16::<{ udp::DESTINATION_PORT }>();
            let length = usize::from(header.be16::<{ udp::LENGTH }>());
            // Zero is a jumbogram's (RFC 2675, section 4).
            if length < udp::HEADER && length != 0 {
                return Err(Malformed::BadHeader);
            }
            if let Some(data) = within::<_, { udp::QUIC_LONG }>(frame, offset + udp::HEADER, end) {
                packet.connection = udp::is_quic_initial(data.byte::<0>(), data.be32::<1>());
            }
        }
        ipv4::ICMP | ipv6::ICMPV6 => {
            let header = within::<_, { icmp::HEADER }>(frame, offset, end).ok_or(Malformed::Truncated)?;
            packet.icmp_type = header.byte::<{ icmp::TYPE }>();
        }
        _ => {}
    }
    Ok(())
}

/// A window that ends before the datagram does.
#[inline(always)]
fn within<F: Frame, const N: usize>(frame: &F, offset: usize, end: usize) -> Option<F::Window<N>> {
    if offset + N > end {
        None
    } else {
        frame.window::<N>(offset)
    }
}
