//! What a replay makes of a capture's odd sides: which way packets went, frames that are cut off, other links, times.

use std::path::Path;

use super::{
    Options, Replay,
    report::{By, Heading, PolicyUsed, Report},
};
use crate::{
    capture::{Direction, ETHERNET, Packet},
    kernel::ListContents,
    policy::{self, model::Mode},
};

const SECOND: u64 = 1_000_000_000;
const POLICY: &str = r#"
version = 1
[source]
max_tracked = 1024
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 5 }
bytes = { rate = "1kB", burst = "4kB" }
"#;

struct Run(Replay);

impl Run {
    fn new(policy: &str, options: &Options) -> Self {
        let policy = policy::parse(policy, Path::new("test.toml")).unwrap().policy;
        Self(Replay::new((&policy, &ListContents::default()), None, options).unwrap())
    }

    fn feed(&mut self, packet: Packet<'_>) {
        self.0.packet(&packet).unwrap();
    }

    fn report(&self) -> Report {
        self.0.report(Heading {
            policy: PolicyUsed {
                path: "test.toml".to_owned(),
                sha256: String::new(),
                mode: Mode::Enforce,
            },
            against: None,
            captures: Vec::new(),
            error: None,
            by: By::Packets,
            limit: 10,
        })
    }
}

fn run(policy: &str, packets: &[Packet<'_>]) -> Report {
    let mut run = Run::new(policy, &Options::default());
    for packet in packets {
        run.feed(*packet);
    }
    run.report()
}

fn packet(data: &[u8]) -> Packet<'_> {
    Packet {
        time_ns: Some(SECOND),
        link_type: ETHERNET,
        direction: None,
        wire_len: data.len() as u32,
        data,
    }
}

/// An IPv4 packet of a protocol, with what it carries.
pub(super) fn ipv4(source: [u8; 4], target: [u8; 4], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = (20 + transport.len()) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(target);
    bytes.extend(transport);
    bytes
}

pub(super) fn ethernet(ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    frame.extend(ip);
    frame
}

pub(super) fn tcp(source: u16, target: u16, flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), target.to_be_bytes()].concat();
    bytes.extend(numbers.0.to_be_bytes());
    bytes.extend(numbers.1.to_be_bytes());
    bytes.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    bytes
}

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [203, 0, 113, 1];
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

fn to_web(flags: u8) -> Vec<u8> {
    ethernet(&ipv4(CLIENT, SERVER, 6, &tcp(1000, 80, flags, (0, 0))))
}

fn from_web(flags: u8) -> Vec<u8> {
    ethernet(&ipv4(SERVER, CLIENT, 6, &tcp(80, 1000, flags, (0, 0))))
}

#[test]
fn bytes_are_those_on_the_wire_however_little_was_captured() {
    let frame = to_web(ACK);
    let mut long = packet(&frame);
    long.wire_len = 1500;
    let report = run(POLICY, &[long; 4]);
    // The second is refused: two are 3,000 bytes of 4,000, three would be 4,500.
    assert_eq!(
        (report.verdicts.pass.packets, report.verdicts.pass.bytes),
        (2, 3000)
    );
    assert_eq!(report.services[0].reasons[1].reason, "source_bytes");
    // A length on the wire that is below what was captured is none.
    let mut short = packet(&frame);
    short.wire_len = 1;
    assert_eq!(run(POLICY, &[short]).verdicts.pass.bytes, frame.len() as u64);
    // And one that no link has charges what arithmetic can bear.
    let mut huge = packet(&frame);
    huge.wire_len = u32::MAX;
    let report = run(POLICY, &[huge]);
    assert_eq!(report.verdicts.drop.bytes, 1 << 24);
    assert_eq!(report.joined, 1);
}

#[test]
fn frames_cut_within_their_headers_are_counted_apart() {
    let frame = to_web(ACK);
    for len in 0..frame.len() {
        let mut cut = packet(&frame[..len]);
        cut.wire_len = frame.len() as u32;
        let report = run(POLICY, &[cut]);
        assert_eq!(report.headers_cut.packets, 1, "{len}");
        assert_eq!(report.verdicts.packets(), 0);
        assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
        // On the wire as short as in the capture, it is malformed.
        let report = run(POLICY, &[packet(&frame[..len])]);
        assert_eq!(
            (report.headers_cut.packets, report.verdicts.drop.packets),
            (0, 1),
            "{len}"
        );
    }
    // All of the headers are enough.
    let mut long = packet(&frame);
    long.wire_len = 1500;
    assert_eq!(run(POLICY, &[long]).headers_cut.packets, 0);
}

#[test]
fn udp_that_may_be_quic_is_judged_and_counted() {
    let udp = [
        1000u16.to_be_bytes(),
        80u16.to_be_bytes(),
        58u16.to_be_bytes(),
        [0; 2],
    ]
    .concat();
    let frame = ethernet(&ipv4(CLIENT, SERVER, 17, &[&udp[..], &[0; 50]].concat()));
    let mut cut = packet(&frame[..42]);
    cut.wire_len = frame.len() as u32;
    let report = run(POLICY, &[cut, packet(&frame)]);
    assert_eq!((report.quic_unknown, report.verdicts.pass.packets), (1, 2));
}

#[test]
fn what_left_is_not_judged() {
    let (arrives, leaves) = (to_web(ACK), from_web(ACK));
    let with = |direction, data| Packet {
        direction,
        ..packet(data)
    };
    // The capture says so.
    let report = run(
        POLICY,
        &[
            with(Some(Direction::Out), &leaves),
            with(Some(Direction::In), &arrives),
            with(Some(Direction::In), &leaves),
        ],
    );
    assert_eq!((report.left.packets, report.verdicts.packets()), (1, 2));
    // Nobody says so.
    assert_eq!(run(POLICY, &[packet(&leaves), packet(&arrives)]).left.packets, 0);
    // The operator does.
    let local = Options {
        local: vec!["203.0.113.0/24".parse().unwrap()],
        ..Options::default()
    };
    let mut told = Run::new(POLICY, &local);
    for frame in [&leaves, &arrives] {
        told.feed(packet(frame));
    }
    let between = ethernet(&ipv4([203, 0, 113, 9], SERVER, 6, &tcp(1, 80, ACK, (0, 0))));
    told.feed(packet(&between));
    assert_eq!(
        (told.report().left.packets, told.report().verdicts.packets()),
        (1, 2)
    );
    // The policy names the host's addresses.
    let named = format!("{POLICY}[scope]\naddresses = [\"203.0.113.0/24\"]\n");
    let report = run(&named, &[packet(&leaves), packet(&arrives), packet(&between)]);
    assert_eq!((report.left.packets, report.verdicts.packets()), (1, 2));
}

#[test]
fn answers_of_services_that_seem_to_arrive_are_pointed_out() {
    let answers = from_web(SYN | ACK);
    let report = run(POLICY, &[packet(&answers)]);
    assert!(report.notes[0].contains("--local"), "{:?}", report.notes);
    // An answer to a connection of the host's own is none of a service's.
    let other = ethernet(&ipv4(CLIENT, SERVER, 6, &tcp(81, 1000, SYN | ACK, (0, 0))));
    assert!(run(POLICY, &[packet(&other)]).notes.is_empty());
}

const RESERVE: &str = r#"
version = 1
[source]
max_tracked = 1024
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.total]
packets = { rate = 1, burst = 10 }
reserve = "50%"
"#;

#[test]
fn handshakes_in_the_capture_prove_their_sources() {
    let numbered = |flags, numbers| ethernet(&ipv4(CLIENT, SERVER, 6, &tcp(1000, 80, flags, numbers)));
    let offer = ethernet(&ipv4(SERVER, CLIENT, 6, &tcp(80, 1000, SYN | ACK, (77, 6))));
    let out = Packet {
        direction: Some(Direction::Out),
        ..packet(&offer)
    };
    let (ack, wrong) = (numbered(ACK, (6, 78)), numbered(ACK, (6, 79)));
    let passed = |packets: &[Packet<'_>]| run(RESERVE, packets).verdicts.pass.packets;
    // A stranger stops above the reserve, a proven source at the bottom.
    let strangers = vec![packet(&wrong); 12];
    assert_eq!(passed(&strangers), 4);
    let proven = [vec![out], vec![packet(&ack); 12]].concat();
    assert_eq!(passed(&proven), 10);
    // Too long for the program on the way out.
    let mut long = out;
    long.wire_len = 257;
    assert_eq!(passed(&[vec![long], vec![packet(&ack); 12]].concat()), 4);
}

#[test]
fn replies_to_what_left_are_known() {
    let policy = "version = 1\n[default]\naction = \"drop\"\n";
    let (asks, replies) = (from_web(SYN), to_web(SYN | ACK));
    let out = Packet {
        direction: Some(Direction::Out),
        ..packet(&asks)
    };
    let report = run(policy, &[packet(&replies), out, packet(&replies)]);
    let reasons: Vec<_> = report.services[0]
        .reasons
        .iter()
        .map(|of| (of.reason, of.volume.packets))
        .collect();
    assert_eq!(reasons, [("reply", 1), ("default_drop", 1)]);
}

#[test]
fn ip_without_ethernet_and_cooked_captures_are_judged() {
    let ip = ipv4(CLIENT, SERVER, 6, &tcp(1000, 80, ACK, (0, 0)));
    let mut ip6 = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    ip6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(2));
    ip6.extend(tcp(1000, 80, ACK, (0, 0)));
    let cooked = |kind: u8, behind: &[u8]| {
        let mut bytes = vec![0, kind, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0];
        bytes.extend(behind);
        bytes
    };
    let cooked2 = |kind: u8, behind: &[u8]| {
        let mut bytes = vec![0x08, 0, 0, 0, 0, 0, 0, 3, 0, 1, kind, 6, 1, 2, 3, 4, 5, 6, 0, 0];
        bytes.extend(behind);
        bytes
    };
    for (link_type, data) in [
        (101, ip.clone()),
        (12, ip.clone()),
        (228, ip.clone()),
        (113, cooked(0, &ip)),
        (276, cooked2(0, &ip)),
        (101, ip6.clone()),
        (229, ip6.clone()),
    ] {
        let report = run(
            POLICY,
            &[Packet {
                link_type,
                ..packet(&data)
            }],
        );
        assert_eq!(report.services[0].service, "web", "{link_type}");
        let ip = if report.sources[0].source.addr().is_ipv6() {
            ip6.len()
        } else {
            ip.len()
        };
        assert_eq!(report.verdicts.pass.bytes, 14 + ip as u64, "{link_type}");
        // Cut off anywhere, it is cut off.
        for len in 0..data.len() {
            let cut = Packet {
                link_type,
                wire_len: data.len() as u32,
                ..packet(&data[..len])
            };
            assert_eq!(run(POLICY, &[cut]).headers_cut.packets, 1, "{link_type} {len}");
        }
    }
    for (link_type, data) in [(113, cooked(4, &ip)), (276, cooked2(4, &ip))] {
        let left = Packet {
            link_type,
            ..packet(&data)
        };
        assert_eq!(run(POLICY, &[left]).left.packets, 1);
    }
    let mut foreign = Run::new(POLICY, &Options::default());
    let error = foreign
        .0
        .packet(&Packet {
            link_type: 105,
            ..packet(&ip)
        })
        .unwrap_err();
    assert!(
        error.to_string().contains("type 105 (802.11 wireless)"),
        "{error}"
    );
}

#[test]
fn times_that_run_backwards_give_no_tokens() {
    let frame = to_web(ACK);
    let at = |time_ns| Packet {
        time_ns,
        ..packet(&frame)
    };
    // Five pass; half a second back and forth is not a second each time.
    let times = [100, 99, 100, 99, 100, 99, 100, 99].map(|time| at(Some(time * SECOND)));
    let report = run(POLICY, &times);
    assert_eq!((report.verdicts.pass.packets, report.clock.backwards), (5, 4));
    assert!(report.notes[0].contains("up to 1.000000 s"), "{:?}", report.notes);
    // A clock that was set back by a day goes on: a second and a half more, one more packet.
    let day = 86_400 * SECOND;
    let mut times = vec![at(Some(2 * day)); 6];
    times.extend([at(Some(day)), at(Some(day + SECOND * 3 / 2)), at(None)]);
    let report = run(POLICY, &times);
    assert_eq!(
        (
            report.verdicts.pass.packets,
            report.clock.steps,
            report.clock.untimed
        ),
        (6, 1, 1)
    );
    assert_eq!(report.notes.len(), 2);
}

#[test]
fn no_bytes_panic() {
    let mut random = 1u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u32
    };
    let mut replay = Run::new(RESERVE, &Options::default());
    for _ in 0..20_000 {
        let mut data = to_web(ACK);
        for _ in 0..next() % 4 {
            let at = next() as usize % data.len();
            data[at] = next() as u8;
        }
        data.truncate(next() as usize % (data.len() + 1));
        let link_type = [1, 12, 101, 113, 228, 229, 276][next() as usize % 7];
        let direction = [None, Some(Direction::In), Some(Direction::Out)][next() as usize % 3];
        replay.feed(Packet {
            time_ns: Some(u64::from(next()) << (next() % 40)),
            link_type,
            direction,
            wire_len: next() >> (next() % 32),
            data: &data,
        });
    }
    let report = replay.report();
    let all = report.verdicts.packets() + report.left.packets + report.headers_cut.packets;
    assert_eq!((all, report.packets), (20_000, 20_000));
}
