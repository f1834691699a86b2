//! The plainest frames, read in one go: TCP or UDP in IPv4 without options, in Ethernet without tags. Most of what a node receives is that, and
//! a frame that is anything else costs one comparison here before [`crate::parse`] follows it step by step.

use crate::{
    frame::{Frame, Window},
    packet::{Network, Packet, UNTAGGED},
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

/// What of a packet somebody looks at besides its verdict.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Profiles count TTLs.
    pub ttl: bool,
    /// Times begin with the first data of a conversation.
    pub payload: bool,
    /// Answers to offers carry the number that was offered.
    pub acknowledgement: bool,
}

impl Observed {
    /// All of it.
    pub const ALL: Self = Self {
        ttl: true,
        payload: true,
        acknowledgement: true,
    };
}

/// The packet in a frame, if it is plain and nothing is wrong with it: what [`crate::parse::follow`] makes of it.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F) -> Option<Packet> {
    let mut packet = Packet::EMPTY;
    plain_into(frame, &mut packet, Observed::ALL).then_some(packet)
}

/// As [`plain`], into a packet that must be [`Packet::EMPTY`] (but for its VLAN, which may be anything). Where the frame is not plain it leaves
/// there what is of no use. Field by field, as they are read: a packet as a value would be kept in registers that BPF does not
/// have, and be written twice. What no verdict asks for is read only if it is `observed`: what is written there, no compiler can take out.
#[inline(always)]
pub fn plain_into<F: Frame>(frame: &F, packet: &mut Packet, observed: Observed) -> bool {
    let Some(header) = frame.head::<END>() else {
        return false;
    };
    let fragment = header.be16::<{ IP + ipv4::FRAGMENT }>() & (ipv4::OFFSET | ipv4::MORE_FRAGMENTS);
    if header.be16::<{ ethernet::TYPE }>() != ethernet::IPV4
        || header.byte::<{ IP + ipv4::VERSION_IHL }>() != FIRST
        || fragment != 0
    {
        return false;
    }
    let length = frame.length();
    let end = IP as u32 + u32::from(header.be16::<{ IP + ipv4::TOTAL_LENGTH }>());
    if end > length {
        return false;
    }
    packet.length = length;
    packet.network = Network::V4;
    packet.source[0] = header.word::<{ IP + ipv4::SOURCE }>();
    packet.destination[0] = header.word::<{ IP + ipv4::DESTINATION }>();
    packet.vlan = UNTAGGED;
    // At the same place in both.
    packet.source_port = header.be16::<{ TRANSPORT + tcp::SOURCE_PORT }>();
    packet.destination_port = header.be16::<{ TRANSPORT + tcp::DESTINATION_PORT }>();
    if observed.ttl {
        packet.ttl = header.byte::<{ IP + ipv4::TTL }>();
    }
    let protocol = header.byte::<{ IP + ipv4::PROTOCOL }>();
    packet.protocol = protocol;
    if protocol == ipv4::TCP {
        let data = TRANSPORT as u32 + u32::from(header.byte::<{ TRANSPORT + tcp::DATA_OFFSET }>() >> 4) * 4;
        if end < END as u32 || data < END as u32 {
            return false;
        }
        let flags = header.byte::<{ TRANSPORT + tcp::FLAGS }>();
        packet.tcp_flags = flags;
        packet.connection = flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        packet.sequence = header.be32::<{ TRANSPORT + tcp::SEQUENCE }>();
        if observed.payload {
            // In signed numbers, of which the compiler makes three instructions instead of ten. Both are far below 2³¹.
            packet.payload = (end as i32 - data as i32).max(0) as u16;
        }
        if observed.acknowledgement {
            packet.acknowledgement = header.be32::<{ TRANSPORT + tcp::ACKNOWLEDGEMENT }>();
        }
        true
    } else if protocol == ipv4::UDP {
        let stated = usize::from(header.be16::<{ TRANSPORT + udp::LENGTH }>());
        if end < DATAGRAM as u32 || stated < udp::HEADER {
            return false;
        }
        packet.connection = end >= (DATAGRAM + udp::QUIC_LONG) as u32
            && udp::is_quic_initial(header.byte::<DATAGRAM>(), header.be32::<{ DATAGRAM + 1 }>());
        true
    } else {
        false
    }
}
