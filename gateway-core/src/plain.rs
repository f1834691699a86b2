//! The plainest frames, read in one go: TCP in IPv4 without options, in Ethernet without tags. Most of what a node receives is that, and
//! a frame that is anything else costs one comparison here before [`crate::parse`] follows it step by step.

use crate::{
    frame::{Frame, Window},
    packet::{Fragment, Network, Packet, UNTAGGED},
    wire::{ethernet, ipv4, tcp},
};

/// Where the IPv4 header begins.
const IP: usize = ethernet::HEADER;
/// Where the TCP header begins.
const TRANSPORT: usize = IP + ipv4::HEADER;
/// Where it ends, without options.
const END: usize = TRANSPORT + tcp::HEADER;
/// Version 4, five words.
const FIRST: u8 = 0x45;

/// The packet in a frame, if it is plain and nothing is wrong with it: what [`crate::parse::follow`] makes of it.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F) -> Option<Packet> {
    let header = frame.window::<END>(0)?;
    let fragment = header.be16::<{ IP + ipv4::FRAGMENT }>() & (ipv4::OFFSET | ipv4::MORE_FRAGMENTS);
    if header.be16::<{ ethernet::TYPE }>() != ethernet::IPV4
        || header.byte::<{ IP + ipv4::VERSION_IHL }>() != FIRST
        || header.byte::<{ IP + ipv4::PROTOCOL }>() != ipv4::TCP
        || fragment != 0
    {
        return None;
    }
    let length = frame.length();
    let end = IP as u32 + u32::from(header.be16::<{ IP + ipv4::TOTAL_LENGTH }>());
    let data = TRANSPORT as u32 + u32::from(header.byte::<{ TRANSPORT + tcp::DATA_OFFSET }>() >> 4) * 4;
    if end < END as u32 || end > length || data < END as u32 {
        return None;
    }
    let tcp_flags = header.byte::<{ TRANSPORT + tcp::FLAGS }>();
    Some(Packet {
        length,
        network: Network::V4,
        source: [header.word::<{ IP + ipv4::SOURCE }>(), 0, 0, 0],
        destination: [header.word::<{ IP + ipv4::DESTINATION }>(), 0, 0, 0],
        protocol: ipv4::TCP,
        fragment: Fragment::Whole,
        connection: tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN,
        icmp_type: 0,
        vlan: UNTAGGED,
        source_port: header.be16::<{ TRANSPORT + tcp::SOURCE_PORT }>(),
        destination_port: header.be16::<{ TRANSPORT + tcp::DESTINATION_PORT }>(),
        tcp_flags,
        ttl: header.byte::<{ IP + ipv4::TTL }>(),
        sequence: header.be32::<{ TRANSPORT + tcp::SEQUENCE }>(),
        acknowledgement: header.be32::<{ TRANSPORT + tcp::ACKNOWLEDGEMENT }>(),
        payload: end.saturating_sub(data) as u16,
    })
}
