//! A builder of frames for tests and benches, layer by layer from the outside in.
//!
//! ```
//! use weir_tests::frame::{Frame, SYN};
//! let syn = Frame::new().vlan(0x8100, 100).ip("192.0.2.1", "198.51.100.1").tcp(40_000, 443, SYN).build();
//! assert_eq!(syn.len(), 14 + 4 + 20 + 20);
//! ```
//!
//! Lengths, next-protocol fields and checksums follow from the layers. What a test wants wrong, it
//! breaks in the bytes that [`Frame::build`] returns.

mod layer;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use layer::{Ip, Layer};

/// TCP flag: the sender is done.
pub const FIN: u8 = 0x01;
/// TCP flag: a new connection.
pub const SYN: u8 = 0x02;
/// TCP flag: the connection is aborted.
pub const RST: u8 = 0x04;
/// TCP flag: deliver at once.
pub const PSH: u8 = 0x08;
/// TCP flag: the acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// QUIC version 1, as in the long header.
pub const QUIC_V1: u32 = 1;
/// QUIC version 2, as in the long header.
pub const QUIC_V2: u32 = 0x6b33_43cf;

/// `EtherType` of a customer VLAN tag.
pub const TPID_8021Q: u16 = 0x8100;
/// `EtherType` of a service VLAN tag.
pub const TPID_8021AD: u16 = 0x88a8;

/// The MAC address that frames come from unless a test says otherwise.
pub const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The MAC address that frames go to unless a test says otherwise.
pub const TARGET_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// A frame under construction.
#[derive(Debug, Clone)]
pub struct Frame {
    source: [u8; 6],
    target: [u8; 6],
    layers: Vec<Layer>,
    payload: Vec<u8>,
    /// What the payload is called by the Ethernet-like layer before it.
    ethertype: u16,
    /// What the payload is called by the IP-like layer before it.
    protocol: u8,
    min_len: usize,
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// An Ethernet header with nothing behind it.
    pub fn new() -> Self {
        Self {
            source: SOURCE_MAC,
            target: TARGET_MAC,
            layers: Vec::new(),
            payload: Vec::new(),
            // Set aside for local experiments, as is protocol 253.
            ethertype: 0x88b5,
            protocol: 253,
            min_len: 0,
        }
    }

    /// Sets the MAC addresses.
    #[must_use]
    pub fn macs(mut self, source: [u8; 6], target: [u8; 6]) -> Self {
        (self.source, self.target) = (source, target);
        self
    }

    /// Adds a VLAN tag with any tag protocol; `tci` is the tag's 16 bits (priority and VLAN id).
    #[must_use]
    pub fn vlan(self, tpid: u16, tci: u16) -> Self {
        self.push(Layer::Vlan { tpid, tci })
    }

    /// Adds an MPLS label; the last of a stack is marked so.
    #[must_use]
    pub fn mpls(self, label: u32) -> Self {
        self.push(Layer::Mpls { label })
    }

    /// Adds a `PPPoE` session header and the PPP protocol field.
    #[must_use]
    pub fn pppoe(self, session: u16) -> Self {
        self.push(Layer::Pppoe { session })
    }

    /// Adds an 802.2 header (802.3 framing: the length stands where the `EtherType` would).
    #[must_use]
    pub fn llc(self, dsap: u8, ssap: u8, control: u8) -> Self {
        self.push(Layer::Llc { dsap, ssap, control })
    }

    /// Adds an 802.2 SNAP header, which names an `EtherType` again.
    #[must_use]
    pub fn snap(self) -> Self {
        self.push(Layer::Snap)
    }

    /// Adds an ARP message: `operation` is 1 for a request, 2 for an answer.
    #[must_use]
    pub fn arp(self, operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        let mac = self.source;
        self.push(Layer::Arp {
            operation,
            mac,
            sender,
            target,
        })
    }

    /// Adds an IPv4 or IPv6 header between two addresses written as text.
    ///
    /// # Panics
    /// When an address does not parse or the families differ: the test itself is wrong.
    #[must_use]
    pub fn ip(self, source: &str, target: &str) -> Self {
        let parse = |text: &str| -> IpAddr {
            text.parse()
                .unwrap_or_else(|error| panic!("the test's address {text:?} is wrong: {error}"))
        };
        self.ips(parse(source), parse(target))
    }

    /// Adds an IPv4 or IPv6 header.
    ///
    /// # Panics
    /// When the families differ: the test itself is wrong.
    #[must_use]
    pub fn ips(self, source: IpAddr, target: IpAddr) -> Self {
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => self.push(Layer::Ip(Ip::v4(source, target))),
            (IpAddr::V6(source), IpAddr::V6(target)) => self.push(Layer::Ip(Ip::V6 {
                source,
                target,
                hops: 64,
            })),
            _ => panic!("the test's addresses {source} and {target} are of different families"),
        }
    }

    /// Adds options to the IPv4 or TCP header just added, padded to whole words with zeros.
    ///
    /// # Panics
    /// When the last layer has no options or they exceed 40 bytes: the test itself is wrong.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        assert!(padded.len() <= 40, "options of {} bytes do not fit", padded.len());
        match self.layers.last_mut() {
            Some(Layer::Ip(Ip::V4 { options, .. }) | Layer::Tcp { options, .. }) => *options = padded,
            other => panic!("options belong to an IPv4 or TCP header, not to {other:?}"),
        }
        self
    }

    /// Makes this a fragment, `offset` bytes (a multiple of eight) into the packet: in the IPv4 header
    /// just added, or as an IPv6 fragment header.
    ///
    /// # Panics
    /// When the offset cannot be written: the test itself is wrong.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        assert!(
            offset.is_multiple_of(8),
            "a fragment's offset is a multiple of eight, not {offset}"
        );
        if let Some(Layer::Ip(Ip::V4 { fragment, .. })) = self.layers.last_mut() {
            *fragment = (offset / 8) | (u16::from(more) << 13);
            return self;
        }
        self.push(Layer::Ipv6Fragment { offset, more })
    }

    /// Adds an IPv6 hop-by-hop options header of `8 * units` bytes.
    #[must_use]
    pub fn hop_by_hop(self, units: u8) -> Self {
        self.extension(0, units)
    }

    /// Adds an IPv6 routing header of `8 * units` bytes.
    #[must_use]
    pub fn routing(self, units: u8) -> Self {
        self.extension(43, units)
    }

    /// Adds an IPv6 destination options header of `8 * units` bytes.
    #[must_use]
    pub fn destination_options(self, units: u8) -> Self {
        self.extension(60, units)
    }

    /// Adds an IPv6 mobility header of `8 * units` bytes.
    #[must_use]
    pub fn mobility(self, units: u8) -> Self {
        self.extension(135, units)
    }

    /// Adds an IPv6 extension header of any number, in the common form: next header, length, padding.
    ///
    /// # Panics
    /// When `units` is zero, which that form cannot say.
    #[must_use]
    pub fn extension(self, number: u8, units: u8) -> Self {
        assert!(
            units > 0,
            "an extension header has at least one unit of eight bytes"
        );
        self.push(Layer::Extension { number, units })
    }

    /// Adds an authentication header with `words` 32-bit words of check value.
    #[must_use]
    pub fn authentication(self, words: u8) -> Self {
        self.push(Layer::Authentication { words })
    }

    /// Adds a GRE header, with a key if one is given.
    #[must_use]
    pub fn gre(self, key: Option<u32>) -> Self {
        self.push(Layer::Gre { key })
    }

    /// Adds a TCP header.
    #[must_use]
    pub fn tcp(self, source: u16, target: u16, flags: u8) -> Self {
        self.push(Layer::Tcp {
            source,
            target,
            flags,
            options: Vec::new(),
            sequence: 1,
            acknowledgement: 0,
        })
    }

    /// The sequence and the acknowledgement number of the TCP header just added, in place of 1 and 0.
    ///
    /// # Panics
    /// Where the last header is not TCP's.
    #[must_use]
    pub fn numbers(mut self, number: u32, answered: u32) -> Self {
        match self.layers.last_mut() {
            Some(Layer::Tcp {
                sequence,
                acknowledgement,
                ..
            }) => (*sequence, *acknowledgement) = (number, answered),
            other => panic!("sequence numbers belong to a TCP header, not to {other:?}"),
        }
        self
    }

    /// Adds a UDP header.
    #[must_use]
    pub fn udp(self, source: u16, target: u16) -> Self {
        self.push(Layer::Udp { source, target })
    }

    /// Adds a UDP header and a QUIC Initial packet of 1,200 bytes of the given version.
    #[must_use]
    pub fn quic_initial(self, source: u16, target: u16, version: u32) -> Self {
        self.udp(source, target).payload(&quic_initial(version))
    }

    /// Adds an ICMP header, or an `ICMPv6` one behind IPv6, with four zero bytes after the checksum.
    #[must_use]
    pub fn icmp(self, kind: u8, code: u8) -> Self {
        let v6 = matches!(self.innermost_ip(self.layers.len()), Some(Ip::V6 { .. }));
        self.push(Layer::Icmp { kind, code, v6 })
    }

    /// Sets what follows the last header.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Names the payload for the Ethernet-like header before it (default: 0x88b5, for experiments).
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = ethertype;
        self
    }

    /// Names the payload for the IP header before it (default: 253, for experiments).
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// Pads the whole frame with zeros to at least `len` bytes, as a card pads short frames to 60.
    #[must_use]
    pub fn pad_to(mut self, len: usize) -> Self {
        self.min_len = len;
        self
    }

    /// The frame's bytes, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let mut tail = self.payload.clone();
        for index in (0..self.layers.len()).rev() {
            let next = layer::Next {
                layer: self.layers.get(index + 1),
                ethertype: self.ethertype,
                protocol: self.protocol,
            };
            tail = self.layers[index].wrap(&tail, &next, self.innermost_ip(index));
        }
        let outer = layer::Next {
            layer: self.layers.first(),
            ethertype: self.ethertype,
            protocol: self.protocol,
        };
        let mut frame = [self.target, self.source].concat();
        frame.extend(outer.ethertype(tail.len()).to_be_bytes());
        frame.extend(tail);
        if frame.len() < self.min_len {
            frame.resize(self.min_len, 0);
        }
        frame
    }

    fn push(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The last IP header before the layer at `index`.
    fn innermost_ip(&self, index: usize) -> Option<&Ip> {
        self.layers[..index].iter().rev().find_map(|layer| match layer {
            Layer::Ip(ip) => Some(ip),
            _ => None,
        })
    }
}

/// The start of a QUIC connection: a long header of type Initial, two connection ids of eight bytes,
/// no token, and filling up to the 1,200 bytes that a client must send.
pub fn quic_initial(version: u32) -> Vec<u8> {
    // Version 2 numbers the packet types differently: Initial is 1 there, 0 in version 1.
    let first = if version == QUIC_V2 { 0xd0 } else { 0xc0 };
    let mut packet = vec![first];
    packet.extend(version.to_be_bytes());
    for id in [0x11, 0x22] {
        packet.push(8);
        packet.extend([id; 8]);
    }
    packet.push(0);
    let rest = 1200 - packet.len() - 2;
    // A two-byte variable-length integer is marked by 01 in its top bits.
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    packet.resize(1200, 0);
    packet
}

/// The Internet checksum over several pieces, each but the last of even length.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// `count` IPv4 addresses spread over all of unicast space except loopback, the same for the same
/// seed: the sources of a spoofed flood.
pub fn scattered_sources(seed: u64, count: usize) -> Vec<Ipv4Addr> {
    let mut state = seed;
    let mut next = || {
        // The splitmix64 sequence: every seed gives a full-period, well mixed stream.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut sources = Vec::with_capacity(count);
    while sources.len() < count {
        let address = Ipv4Addr::from(next() as u32);
        let first = address.octets()[0];
        if (1..224).contains(&first) && first != 127 {
            sources.push(address);
        }
    }
    sources
}

/// A frame whose Ethernet source is another in every call and never zeros: what the programs of benchmarks draw their random sources from,
/// beginning where a call's frame says.
pub fn seeded(frame: &[u8]) -> Vec<u8> {
    static CALLS: AtomicU32 = AtomicU32::new(1);
    // Odd factors (here that of Fibonacci hashing) give each of 2³² calls another number, and only 0 gives 0.
    let seed = CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b1);
    let mut frame = frame.to_vec();
    frame[6..10].copy_from_slice(&seed.max(1).to_ne_bytes());
    frame
}

/// The `index`-th /64 of `2001:db8::/32`, as an address in it.
pub fn ipv6_source(index: u32) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(index) << 64) | 1)
}

#[cfg(test)]
mod tests;
