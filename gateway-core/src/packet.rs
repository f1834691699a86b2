//! What a frame turned out to be.

/// The network protocol that a frame carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    /// Neither IPv4 nor IPv6; the number is the Ethernet type that says what it is (0 where none does).
    Other(u16),
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An address as it lies in the packet: IPv4 in the first word, IPv6 in all four; each word in memory order.
pub type Address = [u32; 4];

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragment {
    /// All of it (also an atomic fragment, RFC 6946).
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment, which has none.
    Later,
}

/// No VLAN tag.
pub const UNTAGGED: u16 = u16::MAX;

/// A packet that could be parsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The frame's length from the Ethernet header on.
    pub length: u32,
    /// The network protocol.
    pub network: Network,
    /// The outermost IP source.
    pub source: Address,
    /// The outermost IP destination.
    pub destination: Address,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Whether it asks for a new connection: TCP SYN without ACK, or a QUIC Initial.
    pub connection: bool,
    /// ICMP or `ICMPv6` type; 0 for other protocols.
    pub icmp_type: u8,
    /// Identifier of the outermost VLAN tag, or [`UNTAGGED`].
    pub vlan: u16,
    /// TCP or UDP source port; 0 where there is none.
    pub source_port: u16,
    /// TCP or UDP destination port; 0 where there is none.
    pub destination_port: u16,
    /// TCP flags; 0 for other protocols.
    pub tcp_flags: u8,
    /// TTL or hop limit; 0 for neither IPv4 nor IPv6.
    pub ttl: u8,
    /// TCP sequence number; 0 for other protocols.
    pub sequence: u32,
    /// TCP acknowledgement number; 0 for other protocols.
    pub acknowledgement: u32,
    /// Bytes of data behind the TCP header; 0 for other protocols.
    pub payload: u16,
}

impl Packet {
    /// Of a frame that says nothing.
    pub const EMPTY: Self = Self {
        length: 0,
        network: Network::Other(0),
        source: [0; 4],
        destination: [0; 4],
        protocol: 0,
        fragment: Fragment::Whole,
        connection: false,
        icmp_type: 0,
        vlan: UNTAGGED,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        ttl: 0,
        sequence: 0,
        acknowledgement: 0,
        payload: 0,
    };

    #[must_use]
    /// The packet that would answer this one, as far as it says where both belong: addresses and ports change sides.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

/// Why a frame could not be parsed. All of them have the reason `malformed`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// It ends inside a header that it announces.
    Truncated,
    /// More encapsulations or extension headers than Weir follows.
    TooDeep,
    /// A version, length or offset that cannot be.
    BadHeader,
}
