//! Plain frames are read in one go to exactly what following them step by step makes of them.

#[path = "common/frames.rs"]
mod frames;

use frames::*;
use gateway_core::{
    frame::Slice,
    packet::Packet,
    parse::{follow, parse},
    plain::{Observed, plain, plain_into},
};
use proptest::prelude::*;

const V4: u16 = 0x0800;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A plain frame with data behind its headers, and frames that look like one.
fn frame() -> BoxedStrategy<Vec<u8>> {
    let flags = any::<u8>();
    (
        flags,
        any::<(u16, u16)>(),
        0..8_usize,
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(flags, (source, destination), options, data)| {
            let mut segment = tcp(source, destination, flags);
            segment[12] = (5 + options as u8 % 4) << 4;
            segment.extend(vec![1; options % 4 * 4]);
            segment.extend(data);
            ethernet(V4, &ipv4(TCP, &segment))
        })
        .boxed()
}

/// A plain datagram, some of them what begins a QUIC connection.
fn datagram() -> BoxedStrategy<Vec<u8>> {
    let first = prop_oneof![Just(0xc3), any::<u8>()];
    let version = prop_oneof![Just(1_u32), Just(0x6b33_43cf), any::<u32>()];
    (any::<(u16, u16)>(), first, version, 12..40_usize)
        .prop_map(|((source, destination), first, version, length)| {
            let mut data = vec![first];
            data.extend(version.to_be_bytes());
            data.resize(length, 7);
            ethernet(V4, &ipv4(UDP, &udp(source, destination, &data)))
        })
        .boxed()
}

/// A byte that changes, by place and value; places before the addresses matter most.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec(
        (prop_oneof![3 => 12..54_usize, 1 => 0..120_usize], any::<u8>()),
        0..4,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_go_and_step_by_step_agree(frame in prop_oneof![frame(), datagram()], changes in changes(), cut in 0..160_usize) {
        let mut frame = frame;
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len().min(cut.max(14)));
        let frame = Slice::whole(&frame);
        let slow = follow(&frame);
        let read = plain(&frame);
        if let Some(packet) = read {
            prop_assert_eq!(Ok(packet), slow);
        }
        // The kernel half begins with zeros.
        let mut place = Packet { vlan: 0, ..Packet::EMPTY };
        prop_assert_eq!(plain_into(&frame, &mut place, Observed::ALL).then_some(place), read);
        // Without some of what is only observed it is the same packet but for that.
        for (ttl, payload, acknowledgement) in [(false, false, false), (true, false, true), (false, true, false), (false, false, true)] {
            let mut place = Packet::EMPTY;
            let observed = Observed { ttl, payload, acknowledgement };
            let judged = plain_into(&frame, &mut place, observed).then_some(place);
            let expected = read.map(|packet| Packet {
                ttl: if ttl { packet.ttl } else { 0 },
                payload: if payload { packet.payload } else { 0 },
                acknowledgement: if acknowledgement { packet.acknowledgement } else { 0 },
                ..packet
            });
            prop_assert_eq!(judged, expected);
        }
        prop_assert_eq!(parse(&frame), slow);
    }

    #[test]
    fn what_is_plain_is_read_in_one_go(frame in prop_oneof![frame(), datagram()]) {
        prop_assert!(plain(&Slice::whole(&frame)).is_some());
    }
}

#[test]
fn padding_is_no_data() {
    let mut frame = ethernet(V4, &ipv4(TCP, &tcp(1, 2, ACK)));
    frame.resize(60, 0);
    let packet = plain(&Slice::whole(&frame)).map(|packet| (packet.length, packet.payload));
    assert_eq!(packet, Some((60, 0)));
}
