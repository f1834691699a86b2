//! A captured packet as the decision function takes it: a frame from its Ethernet header on, of which the capture may hold only
//! the beginning.

use std::cell::Cell;

use gateway_core::{
    frame::{Frame, MAX_OFFSET, Slice, SliceWindow},
    packet::{Malformed, Network, Packet},
    parse::parse,
    wire::ethernet,
};

use crate::capture::{self, Direction, ETHERNET};

/// The longest frame that is believed, in bytes: what a bucket's arithmetic is made for. A capture that says more is judged by this.
const LONGEST: u32 = 1 << 24;
/// How much of a frame is copied behind a made-up Ethernet header: no header that is looked at begins later.
const COPIED: usize = MAX_OFFSET + 256;

/// Link types that are understood beside Ethernet (the numbers are those of capture files).
mod link {
    /// An IP header and nothing before it.
    pub(super) const RAW: u16 = 101;
    /// The same, as some systems number it within files.
    pub(super) const RAW_OLD: u16 = 12;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    /// What Linux makes of several links (`tcpdump -i any`).
    pub(super) const COOKED: u16 = 113;
    pub(super) const COOKED2: u16 = 276;
}

/// A captured frame with its Ethernet header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    /// The bytes that are there.
    pub(super) bytes: &'a [u8],
    /// Its length on the wire, from the Ethernet header on, at least `bytes.len()` unless bytes were made up.
    pub(super) length: u32,
    /// Which way it went, where the capture says so.
    pub(super) direction: Option<Direction>,
}

/// What a captured frame turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// A packet.
    Packet {
        /// What its headers say.
        packet: Packet,
        /// The capture was cut off before the bytes that tell a QUIC Initial from other UDP.
        quic_unknown: bool,
    },
    /// It cannot be parsed, and could not if all of it were there.
    Malformed(Malformed),
    /// The capture was cut off within its headers: nobody can say what it was.
    Cut,
}

/// The Ethernet frame of a captured packet; nothing where it is of a link that is not understood. What was captured without an
/// Ethernet header gets one, in `scratch`, and its length with it.
pub(super) fn ethernet_frame<'a>(
    packet: &capture::Packet<'a>,
    scratch: &'a mut Vec<u8>,
) -> Option<Captured<'a>> {
    let (data, wire_len) = (packet.data, packet.wire_len);
    if packet.link_type == ETHERNET {
        return Some(Captured {
            bytes: data,
            length: wire_len.max(data.len() as u32).min(LONGEST),
            direction: packet.direction,
        });
    }
    let be16 = |at: usize| data.get(at..at + 2).map(|of| u16::from_be_bytes([of[0], of[1]]));
    let (header, ethertype, way) = match packet.link_type {
        link::IPV4 => (0, Some(ethernet::IPV4), None),
        link::IPV6 => (0, Some(ethernet::IPV6), None),
        link::RAW | link::RAW_OLD => {
            let six = data.first().is_some_and(|first| first >> 4 == 6);
            let ethertype = if six { ethernet::IPV6 } else { ethernet::IPV4 };
            (0, Some(ethertype), None)
        }
        // The kind of packet, the kind of link, its address, the protocol.
        link::COOKED => (16, be16(14), be16(0)),
        // The protocol, two reserved bytes, the interface, the kind of link, the kind of packet, its address.
        link::COOKED2 => (20, be16(0), data.get(10).map(|kind| u16::from(*kind))),
        _ => return None,
    };
    scratch.clear();
    if let (Some(ethertype), Some(rest)) = (ethertype, data.get(header..)) {
        scratch.resize(ethernet::TYPE, 0);
        scratch.extend(ethertype.to_be_bytes());
        scratch.extend_from_slice(&rest[..rest.len().min(COPIED)]);
    }
    let direction = packet.direction.or(match way {
        // PACKET_OUTGOING (include/uapi/linux/if_packet.h).
        Some(4) => Some(Direction::Out),
        Some(_) => Some(Direction::In),
        None => None,
    });
    let behind = wire_len.max(data.len() as u32).saturating_sub(header as u32);
    Some(Captured {
        bytes: scratch,
        length: behind.saturating_add(ethernet::HEADER as u32).min(LONGEST),
        direction,
    })
}

impl Captured<'_> {
    /// Parses it.
    pub(super) fn see(&self) -> Seen {
        let frame = Watched {
            slice: Slice {
                bytes: self.bytes,
                wire_length: self.length,
            },
            missed: Cell::new(false),
        };
        let parsed = parse(&frame);
        let missed = frame.missed.get();
        match parsed {
            // An LLC header that is not there could have led on to IP.
            Err(_) if missed => Seen::Cut,
            Ok(packet) if missed && matches!(packet.network, Network::Other(_)) => Seen::Cut,
            Ok(packet) => Seen::Packet {
                packet,
                quic_unknown: missed,
            },
            Err(malformed) => Seen::Malformed(malformed),
        }
    }
}

/// A frame that remembers whether bytes were asked for that were on the wire and are not in the capture.
struct Watched<'a> {
    slice: Slice<'a>,
    missed: Cell<bool>,
}

impl<'a> Frame for Watched<'a> {
    type Window<const N: usize> = SliceWindow<'a, N>;

    fn length(&self) -> u32 {
        self.slice.wire_length
    }

    #[inline]
    fn window<const N: usize>(&self, offset: usize) -> Option<SliceWindow<'a, N>> {
        let window = self.slice.window(offset);
        if window.is_none() && offset <= MAX_OFFSET && offset + N <= self.slice.wire_length as usize {
            self.missed.set(true);
        }
        window
    }
}
