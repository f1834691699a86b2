//! The plainest frames, read in one go: TCP or UDP in IPv4 without options, in Ethernet without tags. Most of what a node receives is that, and
//! a frame that is anything else costs one comparison here before [`crate::parse`] follows it step by step.

use crate::{
    frame::{Frame, Window},
    packet::{Fragment, Network, Packet, UNTAGGED},
    wire::{ethernet, ipv4, tcp, udp},
};

/// Where the IPv4 header begins.
const IP: usize = ethernet::HEADER;
/// Where the TCP or UDP header begins.
const TRANSPORT: usize = IP + ipv4::HEADER;
/// Where the data of a datagram begins.
const DATAGRAM: usize = TRANSPORT + udp::HEADER;
/// Where a TCP header ends, without options. A shorter frame is followed step by step, whatever it carries.
const END: usize = TRANSPORT + tcp::HEADER;
/// Version 4, five words.
const FIRST: u8 = 0x45;

/// The packet in a frame, if it is plain and nothing is wrong with it: what [`crate::parse::follow`] makes of it.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F) -> Option<Packet> {
    let header = frame.window::<END>(0)?;
    let fragment = header.be16::<{ IP + ipv4::FRAGMENT }>() & (ipv4::OFFSET | ipv4::MORE_FRAGMENTS);
    let protocol = header.byte::<{ IP + ipv4::PROTOCOL }>();
    if header.be16::<{ ethernet::TYPE }>() != ethernet::IPV4
        || header.byte::<{ IP + ipv4::VERSION_IHL }>() != FIRST
        || fragment != 0
    {
        return None;
    }
    let length = frame.length();
    let end = IP as u32 + u32::from(header.be16::<{ IP + ipv4::TOTAL_LENGTH }>());
    if end > length {
        return None;
    }
    let mut packet = Packet {
        length,
        network: Network::V4,
        source: [header.word::<{ IP + ipv4::SOURCE }>(), 0, 0, 0],
        destination: [header.word::<{ IP + ipv4::DESTINATION }>(), 0, 0, 0],
        protocol,
        fragment: Fragment::Whole,
        connection: false,
        icmp_type: 0,
        vlan: UNTAGGED,
        // At the same place in both.
        source_port: header.be16::<{ TRANSPORT + tcp::SOURCE_PORT }>(),
        destination_port: header.be16::<{ TRANSPORT + tcp::DESTINATION_PORT }>(),
        tcp_flags: 0,
        ttl: header.byte::<{ IP + ipv4::TTL }>(),
        sequence: 0,
        acknowledgement: 0,
        payload: 0,
    };
    if protocol == ipv4::TCP {
        let data = TRANSPORT as u32 + u32::from(header.byte::<{ TRANSPORT + tcp::DATA_OFFSET }>() >> 4) * 4;
        if end < END as u32 || data < END as u32 {
            return None;
        }
        packet.tcp_flags = header.byte::<{ TRANSPORT + tcp::FLAGS }>();
        packet.connection = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        packet.sequence = header.be32::<{ TRANSPORT + tcp::SEQUENCE }>();
        packet.acknowledgement = header.be32::<{ TRANSPORT + tcp::ACKNOWLEDGEMENT }>();
        packet.payload = end.saturating_sub(data) as u16;
    } else if protocol == ipv4::UDP {
        let stated = usize::from(header.be16::<{ TRANSPORT + udp::LENGTH }>());
        if end < DATAGRAM as u32 || stated < udp::HEADER {
            return None;
        }
        packet.connection = end >= (DATAGRAM + udp::QUIC_LONG) as u32
            && udp::is_quic_initial(header.byte::<DATAGRAM>(), header.be32::<{ DATAGRAM + 1 }>());
    } else {
        return None;
    }
    Some(packet)
}
