//! The bytes of each layer.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{TARGET_MAC, checksum};

/// An IP header.
#[derive(Debug, Clone)]
pub(super) enum Ip {
    V4 {
        source: Ipv4Addr,
        target: Ipv4Addr,
        ttl: u8,
        /// The fragment field: flags and offset in units of eight bytes.
        fragment: u16,
        options: Vec<u8>,
    },
    V6 {
        source: Ipv6Addr,
        target: Ipv6Addr,
        hops: u8,
    },
}

impl Ip {
    /// A header that must not be fragmented, as Linux sends them.
    pub(super) fn v4(source: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self::V4 {
            source,
            target,
            ttl: 64,
            fragment: 0x4000,
            options: Vec::new(),
        }
    }

    /// The checksum of a transport header and its payload, with the addresses that it covers.
    fn transport_checksum(&self, protocol: u8, bytes: &[u8]) -> u16 {
        let len = bytes.len() as u32;
        match self {
            Self::V4 { source, target, .. } => {
                let [_, _, high, low] = len.to_be_bytes();
                checksum(&[
                    &source.octets(),
                    &target.octets(),
                    &[0, protocol, high, low],
                    bytes,
                ])
            }
            Self::V6 { source, target, .. } => checksum(&[
                &source.octets(),
                &target.octets(),
                &len.to_be_bytes(),
                &[0, 0, 0, protocol],
                bytes,
            ]),
        }
    }
}

/// One layer of a frame behind the Ethernet header.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    Vlan {
        tpid: u16,
        tci: u16,
    },
    Mpls {
        label: u32,
    },
    Pppoe {
        session: u16,
    },
    Llc {
        dsap: u8,
        ssap: u8,
        control: u8,
    },
    Snap,
    Arp {
        operation: u16,
        mac: [u8; 6],
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Ip(Ip),
    Extension {
        number: u8,
        units: u8,
    },
    Authentication {
        words: u8,
    },
    Ipv6Fragment {
        offset: u16,
        more: bool,
    },
    Gre {
        key: Option<u32>,
    },
    Tcp {
        source: u16,
        target: u16,
        flags: u8,
        options: Vec<u8>,
        sequence: u32,
        acknowledgement: u32,
    },
    Udp {
        source: u16,
        target: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
        v6: bool,
    },
}

/// What follows a layer: another one, or the payload under the names that the test gave it.
pub(super) struct Next<'a> {
    pub(super) layer: Option<&'a Layer>,
    pub(super) ethertype: u16,
    pub(super) protocol: u8,
}

impl Next<'_> {
    /// The `EtherType` of what follows, or its length where 802.3 framing begins.
    pub(super) fn ethertype(&self, len: usize) -> u16 {
        match self.layer {
            Some(Layer::Vlan { tpid, .. }) => *tpid,
            Some(Layer::Mpls { .. }) => 0x8847,
            Some(Layer::Pppoe { .. }) => 0x8864,
            Some(Layer::Llc { .. } | Layer::Snap) => len as u16,
            Some(Layer::Arp { .. }) => 0x0806,
            Some(Layer::Ip(Ip::V4 { .. })) => 0x0800,
            Some(Layer::Ip(Ip::V6 { .. })) => 0x86dd,
            _ => self.ethertype,
        }
    }

    /// The IP protocol number of what follows.
    fn protocol(&self) -> u8 {
        match self.layer {
            Some(Layer::Ip(Ip::V4 { .. })) => 4,
            Some(Layer::Ip(Ip::V6 { .. })) => 41,
            Some(Layer::Extension { number, .. }) => *number,
            Some(Layer::Ipv6Fragment { .. }) => 44,
            Some(Layer::Authentication { .. }) => 51,
            Some(Layer::Gre { .. }) => 47,
            Some(Layer::Tcp { .. }) => 6,
            Some(Layer::Udp { .. }) => 17,
            Some(Layer::Icmp { v6: false, .. }) => 1,
            Some(Layer::Icmp { v6: true, .. }) => 58,
            _ => self.protocol,
        }
    }

    /// The PPP protocol number of what follows.
    fn ppp(&self) -> u16 {
        match self.layer {
            Some(Layer::Ip(Ip::V4 { .. })) => 0x0021,
            Some(Layer::Ip(Ip::V6 { .. })) => 0x0057,
            Some(Layer::Mpls { .. }) => 0x0281,
            _ => self.ethertype,
        }
    }
}

impl Layer {
    /// This layer's header and `tail` behind it. `ip` is the IP header that this layer stands behind,
    /// whose addresses transport checksums cover.
    pub(super) fn wrap(&self, tail: &[u8], next: &Next<'_>, ip: Option<&Ip>) -> Vec<u8> {
        let len = tail.len();
        let mut bytes = match self {
            Self::Vlan { tci, .. } => [tci.to_be_bytes(), next.ethertype(len).to_be_bytes()].concat(),
            Self::Mpls { label } => {
                let bottom = u32::from(!matches!(next.layer, Some(Self::Mpls { .. })));
                ((label << 12) | (bottom << 8) | 64).to_be_bytes().to_vec()
            }
            Self::Pppoe { session } => {
                let mut bytes = vec![0x11, 0];
                // The length covers the PPP protocol field too.
                for word in [*session, len as u16 + 2, next.ppp()] {
                    bytes.extend(word.to_be_bytes());
                }
                bytes
            }
            Self::Llc { dsap, ssap, control } => vec![*dsap, *ssap, *control],
            Self::Snap => {
                let mut bytes = vec![0xaa, 0xaa, 0x03, 0, 0, 0];
                bytes.extend(next.ethertype(len).to_be_bytes());
                bytes
            }
            Self::Arp {
                operation,
                mac,
                sender,
                target,
            } => {
                let mut bytes = vec![0, 1, 8, 0, 6, 4];
                bytes.extend(operation.to_be_bytes());
                bytes.extend(mac);
                bytes.extend(sender.octets());
                bytes.extend(if *operation == 1 { [0; 6] } else { TARGET_MAC });
                bytes.extend(target.octets());
                bytes
            }
            Self::Ip(ip) => ip_header(ip, len, next.protocol()),
            Self::Extension { units, .. } => extension_header(next.protocol(), *units),
            Self::Authentication { words } => {
                // The length is counted in words, less two.
                let mut bytes = vec![next.protocol(), words + 1, 0, 0];
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 1]);
                bytes.resize(bytes.len() + usize::from(*words) * 4, 0);
                bytes
            }
            Self::Ipv6Fragment { offset, more } => {
                let mut bytes = vec![next.protocol(), 0];
                bytes.extend((offset | u16::from(*more)).to_be_bytes());
                bytes.extend(0x1234_5678_u32.to_be_bytes());
                bytes
            }
            Self::Gre { key } => {
                let mut bytes = vec![if key.is_some() { 0x20 } else { 0 }, 0];
                bytes.extend(next.ethertype(len).to_be_bytes());
                bytes.extend(key.map(u32::to_be_bytes).into_iter().flatten());
                bytes
            }
            Self::Tcp {
                source,
                target,
                flags,
                options,
                sequence,
                acknowledgement,
            } => {
                let mut bytes = [source.to_be_bytes(), target.to_be_bytes()].concat();
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([
                    ((5 + options.len() / 4) << 4) as u8,
                    *flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ]);
                bytes.extend(options);
                bytes
            }
            Self::Udp { source, target } => {
                let mut bytes = [source.to_be_bytes(), target.to_be_bytes()].concat();
                bytes.extend((len as u16 + 8).to_be_bytes());
                bytes.extend([0, 0]);
                bytes
            }
            Self::Icmp { kind, code, .. } => vec![*kind, *code, 0, 0, 0, 0, 0, 0],
        };
        bytes.extend(tail);
        self.fill_checksum(&mut bytes, ip);
        bytes
    }

    /// Writes the transport checksum, where this layer has one.
    fn fill_checksum(&self, bytes: &mut [u8], ip: Option<&Ip>) {
        let (at, sum) = match (self, ip) {
            (Self::Tcp { .. }, Some(ip)) => (16, ip.transport_checksum(6, bytes)),
            // A sum of zero would say that there is none.
            (Self::Udp { .. }, Some(ip)) => (
                6,
                match ip.transport_checksum(17, bytes) {
                    0 => 0xffff,
                    sum => sum,
                },
            ),
            (Self::Icmp { v6: true, .. }, Some(ip)) => (2, ip.transport_checksum(58, bytes)),
            (Self::Icmp { .. }, _) => (2, checksum(&[bytes])),
            _ => return,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn ip_header(ip: &Ip, len: usize, protocol: u8) -> Vec<u8> {
    match ip {
        Ip::V4 {
            source,
            target,
            ttl,
            fragment,
            options,
        } => {
            let header = 20 + options.len();
            let mut bytes = vec![0x40 | (header / 4) as u8, 0];
            bytes.extend(((header + len) as u16).to_be_bytes());
            // Fragments of one packet share an identification; whole packets need none.
            bytes.extend(
                (if fragment.trailing_zeros() >= 14 {
                    0_u16
                } else {
                    0x1234
                })
                .to_be_bytes(),
            );
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([*ttl, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(target.octets());
            bytes.extend(options);
            let sum = checksum(&[&bytes]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes
        }
        Ip::V6 { source, target, hops } => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([protocol, *hops]);
            bytes.extend(source.octets());
            bytes.extend(target.octets());
            bytes
        }
    }
}

/// An IPv6 extension header of `8 * units` bytes, filled with options.
fn extension_header(next: u8, units: u8) -> Vec<u8> {
    let mut bytes = vec![next, units - 1];
    let mut left = usize::from(units) * 8 - 2;
    // Options to skip if unknown, of the type for experiments, as long as their one-byte length allows:
    // Linux refuses more than seven bytes of proper padding.
    while left > 0 {
        // Two bytes stay for the next option's own header.
        let size = if left <= 257 {
            left
        } else {
            left.min(257).min(left - 2)
        };
        bytes.extend([0x1e, (size - 2) as u8]);
        bytes.resize(bytes.len() + size - 2, 0);
        left -= size;
    }
    bytes
}
