//! The detector over made traffic: customers, crowds of them, and attacks among them.

use std::net::Ipv4Addr;

use gateway_detect::{Change, Detector, Kind, Observation, Settings, Sighting, Verdict};
use ipnet::IpNet;

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Poisson's, by its normal limit where that is near.
    fn count(&mut self, mean: f64) -> f64 {
        if mean > 30.0 {
            let noise: f64 = (0..12).map(|_| self.next()).sum::<f64>() - 6.0;
            return (mean + mean.sqrt() * noise).round().max(0.0);
        }
        let (mut count, mut product) = (0.0, self.next());
        while product > (-mean).exp() {
            product *= self.next();
            count += 1.0;
        }
        count
    }

    fn below(&mut self, most: u32) -> u32 {
        (self.next() * f64::from(most)) as u32
    }
}

struct Service {
    random: Random,
    /// Packets a second.
    rate: f64,
    /// One sample for so many packets.
    one_in: f64,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn sighting(random: &mut Random, source: Ipv4Addr, protocol: u8, source_port: u16, length: u32) -> Sighting {
    let source = IpNet::new(source.into(), 32).expect("a prefix");
    Sighting {
        weight: 0.0,
        source,
        network: IpNet::new(source.addr(), 24).expect("a prefix").trunc(),
        protocol,
        source_port: if source_port == 0 {
            1_024 + random.below(60_000) as u16
        } else {
            source_port
        },
        destination_port: 443,
        length,
        tcp_flags: 0x10,
        connection: false,
        dropped: false,
        country: None,
    }
}

impl Service {
    /// A customer: of 300 networks, the first of which have the most.
    fn customer(&mut self) -> Ipv4Addr {
        let network = (300.0 * self.random.next().powi(2)) as u32;
        Ipv4Addr::from_bits(0x5000_0000 + (network << 8) + self.random.below(200))
    }

    /// A second of customers, `scale` times as many as usual.
    fn customers(&mut self, scale: f64) -> Observation {
        let packets = self.rate * scale;
        let mut seen = Observation {
            seconds: 1.0,
            ..Observation::default()
        };
        // SYN, ACK, request, two more ACKs, FIN, ACK; now and then a RST.
        let connections = self.random.count(packets / 8.0);
        let requests = self.random.count(packets / 8.0 * 1.5);
        let acks = self.random.count(packets / 8.0 * 4.4);
        seen.syn = connections;
        seen.syn_ack = connections;
        seen.first_ack = (connections * 0.99).round();
        seen.fin = self.random.count(packets / 8.0 * 0.95);
        seen.rst = self.random.count(packets / 8.0 * 0.1);
        seen.packets = connections + requests + acks + seen.fin + seen.rst;
        seen.bytes = 66.0 * (seen.packets - requests) + 420.0 * requests;
        seen.sizes[1] = seen.packets - requests;
        seen.sizes[3] = (requests * 0.8).round();
        seen.sizes[4] = requests - seen.sizes[3];
        seen.ttls[6] = (seen.packets * 0.7).round();
        seen.ttls[14] = seen.packets - seen.ttls[6];
        seen.first_byte_seconds = Some(0.050 + 0.002 * self.random.next());
        for _ in 0..self.random.count(seen.packets / self.one_in) as usize {
            let source = self.customer();
            let sighting = sighting(&mut self.random, source, TCP, 0, 66);
            seen.sightings.push(sighting);
        }
        seen
    }
}

fn attack(service: &mut Service, seen: &mut Observation, kind: Kind, packets: f64) {
    let packets = service.random.count(packets);
    seen.packets += packets;
    let (size, length, ttl) = match kind {
        Kind::SynFlood => (0, 60.0, 30),
        Kind::Reflection => (5, 1_400.0, 7),
        Kind::UdpFlood => (3, 500.0, 15),
        Kind::FewSources => (3, 420.0, 7),
        _ => (3, 300.0, 14),
    };
    seen.bytes += packets * length;
    seen.sizes[size] += packets;
    seen.ttls[ttl] += packets;
    match kind {
        Kind::SynFlood => {
            seen.syn += packets;
            seen.syn_ack += packets;
        }
        Kind::Reflection => {
            seen.udp += packets;
            seen.reflected += packets / 2.0;
            seen.fragments += packets / 2.0;
        }
        Kind::UdpFlood => seen.udp += packets,
        _ => {}
    }
    for _ in 0..service.random.count(packets / service.one_in) as usize {
        let anybody = Ipv4Addr::from_bits(0x0b00_0000 + service.random.below(0x3000_0000));
        let (source, protocol, port) = match kind {
            Kind::SynFlood => (anybody, TCP, 0),
            Kind::Reflection => (
                Ipv4Addr::from_bits(0x2000_0000 + 256 * service.random.below(500)),
                UDP,
                53,
            ),
            Kind::UdpFlood => (anybody, UDP, 0),
            Kind::FewSources => (Ipv4Addr::from_bits(0x2100_0000 + service.random.below(5)), TCP, 0),
            _ => (
                Ipv4Addr::from_bits(0x2200_0000 + 997 * service.random.below(10_000)),
                TCP,
                0,
            ),
        };
        let mut sighting = sighting(&mut service.random, source, protocol, port, length as u32);
        if kind == Kind::SynFlood {
            sighting.tcp_flags = 2;
        }
        seen.sightings.push(sighting);
    }
}

/// A detector that has watched customers for so many seconds, and the time.
fn taught(service: &mut Service, seconds: u32) -> (Detector, f64) {
    let mut detector = Detector::new(Settings::default());
    let mut at = 1_750_000_000.0;
    for _ in 0..seconds {
        at += 1.0;
        detector.tick(at, &service.customers(1.0));
    }
    (detector, at)
}

fn service(rate: f64) -> Service {
    Service {
        random: Random(11),
        rate,
        one_in: 100.0,
    }
}

#[test]
fn customers_are_quiet_and_a_crowd_of_them_is_a_crowd() {
    for rate in [200.0, 5_000.0] {
        let mut service = service(rate);
        let (mut detector, mut at) = taught(&mut service, 4_000);
        assert_eq!(
            detector.finding().verdict,
            Verdict::Quiet,
            "{rate}: {:?}",
            detector.finding()
        );
        let (mut crowd, mut others) = (0, 0);
        for second in 0..900 {
            at += 1.0;
            // Tenfold within three minutes.
            let scale = 1.0 + 9.0 * (f64::from(second) / 180.0).min(1.0);
            detector.tick(at, &service.customers(scale));
            match detector.finding().verdict {
                Verdict::Crowd => crowd += 1,
                Verdict::Quiet => {}
                _ => others += 1,
            }
        }
        assert!(others == 0, "{rate}: {:?}", detector.finding());
        assert!(crowd > 700, "{rate}: {crowd} {:?}", detector.finding());
    }
}

#[test]
fn attacks_are_called_by_their_kind_within_three_seconds() {
    for kind in [
        Kind::SynFlood,
        Kind::Reflection,
        Kind::UdpFlood,
        Kind::FewSources,
        Kind::ManySources,
    ] {
        for crowd in [1.0, 5.0] {
            let mut service = service(5_000.0);
            let (mut detector, mut at) = taught(&mut service, 4_000);
            for second in 0..300 {
                at += 1.0;
                let scale = 1.0 + (crowd - 1.0) * (f64::from(second) / 120.0).min(1.0);
                detector.tick(at, &service.customers(scale));
            }
            let mut delay = 0;
            for second in 1..=10 {
                at += 1.0;
                let mut seen = service.customers(crowd);
                // What is told by its sources alone must be as much as all the rest.
                let times = if matches!(kind, Kind::FewSources | Kind::ManySources) {
                    1.5
                } else {
                    1.0
                };
                attack(&mut service, &mut seen, kind, 5_000.0 * crowd * times);
                let change = detector.tick(at, &seen);
                if detector.finding().verdict == Verdict::Attack(kind) && delay == 0 {
                    assert_eq!(change, Some(Change::Began));
                    delay = second;
                }
            }
            let most = if matches!(kind, Kind::SynFlood | Kind::Reflection) {
                1
            } else {
                3
            };
            assert!(
                (1..=most).contains(&delay),
                "{kind:?} in {crowd}: {delay} {:#?} {:?}",
                detector.finding(),
                detector.distance()
            );
            assert_eq!(detector.finding().verdict, Verdict::Attack(kind));
            for _ in 0..75 {
                at += 1.0;
                detector.tick(at, &service.customers(crowd));
            }
            assert!(
                !matches!(detector.finding().verdict, Verdict::Attack(_) | Verdict::Stealth),
                "{kind:?}: it is over: {:?}",
                detector.finding()
            );
        }
    }
}

#[test]
fn floods_are_told_from_the_first_second() {
    for kind in [Kind::SynFlood, Kind::Reflection] {
        let mut service = service(1_000.0);
        let (mut detector, at) = taught(&mut service, 5);
        assert_eq!(detector.finding().verdict, Verdict::Learning);
        let mut seen = service.customers(1.0);
        attack(&mut service, &mut seen, kind, 2_000.0);
        assert_eq!(detector.tick(at + 1.0, &seen), Some(Change::Began));
        assert_eq!(detector.finding().verdict, Verdict::Attack(kind));
    }
}

#[test]
fn a_flood_is_seen_within_a_tenth_of_a_second() {
    let mut service = service(5_000.0);
    let (mut detector, at) = taught(&mut service, 2_000);
    let mut seen = service.customers(0.1);
    seen.seconds = 0.1;
    assert_eq!(detector.glance(at + 0.1, &seen), None);
    attack(&mut service, &mut seen, Kind::SynFlood, 500.0);
    assert_eq!(detector.glance(at + 0.2, &seen), Some(Change::Began));
    assert_eq!(detector.finding().verdict, Verdict::Attack(Kind::SynFlood));
}

#[test]
fn an_attack_that_ends_leaves_no_crowd() {
    for kind in [Kind::UdpFlood, Kind::FewSources, Kind::SynFlood] {
        let mut service = service(400.0);
        let (mut detector, mut at) = taught(&mut service, 3_600);
        let mut said = std::collections::BTreeMap::<&str, u32>::new();
        for second in 0..150 {
            at += 1.0;
            let mut seen = service.customers(1.0);
            if second < 15 {
                attack(&mut service, &mut seen, kind, 12_000.0);
            }
            detector.tick(at, &seen);
            *said.entry(detector.finding().verdict.name()).or_default() += 1;
        }
        assert!(!said.contains_key("crowd"), "{kind:?}: {said:?}");
        assert!(said["attack"] >= 15 && said["quiet"] >= 30, "{kind:?}: {said:?}");
    }
}

#[test]
fn what_an_operator_accepts_is_learned() {
    let mut service = service(2_000.0);
    let (mut detector, mut at) = taught(&mut service, 2_000);
    let step = |detector: &mut Detector, service: &mut Service, at: &mut f64| {
        *at += 1.0;
        let mut seen = service.customers(1.0);
        attack(service, &mut seen, Kind::UdpFlood, 3_000.0);
        detector.tick(*at, &seen);
    };
    for _ in 0..60 {
        step(&mut detector, &mut service, &mut at);
    }
    assert!(
        matches!(detector.finding().verdict, Verdict::Attack(_)),
        "{:?}",
        detector.finding()
    );
    assert_eq!(
        detector.accept(at),
        Some(Change::Ended(Verdict::Attack(Kind::UdpFlood)))
    );
    for _ in 0..2_000 {
        step(&mut detector, &mut service, &mut at);
        assert!(
            !matches!(detector.finding().verdict, Verdict::Attack(_)),
            "{:?}",
            detector.finding()
        );
    }
    assert!(!matches!(detector.finding().verdict, Verdict::Learning));
}

#[test]
fn memory_is_bounded_whoever_sends() {
    let mut service = service(5_000.0);
    service.one_in = 10.0;
    let (mut detector, mut at) = taught(&mut service, 100);
    let mut most = 0;
    for second in 0..4_000_u32 {
        at += 1.0;
        let mut seen = service.customers(1.0);
        for (number, one) in (0_u32..).zip(&mut seen.sightings) {
            // Networks that nobody has met before, of any size that a policy may have.
            let address = Ipv4Addr::from_bits((second * 2_000 + number).wrapping_mul(0x9e37_79b1));
            one.source = IpNet::new(address.into(), 32).unwrap();
            one.network = IpNet::new(address.into(), 24).unwrap().trunc();
        }
        detector.tick(at, &seen);
        most = most.max(detector.bytes());
    }
    println!("{most} bytes");
    assert!(most <= gateway_detect::detector::MOST_BYTES, "{most}");
}
