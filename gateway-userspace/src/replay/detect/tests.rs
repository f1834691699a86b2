//! What the detectors are shown of a capture, and when; and that what they say comes out as it was said.

#![allow(
    clippy::float_cmp,
    reason = "whole numbers of packets and of seconds are exact"
)]

use std::{cell::RefCell, path::Path, rc::Rc};

use gateway_core::{frame::Slice, parse::parse};
use gateway_detect::{Carrier, Kind, Speaking, Verdict};

use super::{super::tests as frames, *};
use crate::{geo::tests::Writer, kernel::ListContents, policy, replay};

const POLICY: &str = r#"
version = 1
[source]
max_tracked = 1024
ipv6_prefix = 56
[sampling]
one_in = 1
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80]
time = true
[service.per_source]
packets = { rate = 1, burst = 5 }
[[service]]
name = "blind"
protocol = "udp"
ports = [53]
profile = false
[[service]]
name = "shop"
protocol = "tcp"
ports = [443]
[service.per_network]
ipv4_prefix = 20
packets = { rate = 1000, burst = 5000 }
"#;

const S: u64 = 1_000_000_000;
/// A Friday.
const START: u64 = 1_795_769_940 * S;
const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [203, 0, 113, 1];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a probe was shown: whether it was a second, when, and what.
type Shown = Rc<RefCell<Vec<(bool, f64, Observation)>>>;

/// Remembers what it is shown, and says `attack` while it is shown a hundred packets a second or more.
#[derive(Debug)]
struct Probe {
    shown: Shown,
    finding: Finding,
}

impl Probe {
    fn see(&mut self, second: bool, at: f64, observation: &Observation) {
        self.shown.borrow_mut().push((second, at, observation.clone()));
        let verdict = if observation.rate() >= 100.0 {
            Verdict::Attack(Kind::SynFlood)
        } else {
            Verdict::Quiet
        };
        if verdict != self.finding.verdict {
            self.finding.since = at - observation.seconds;
        }
        self.finding.verdict = verdict;
        self.finding.volume_score = observation.rate() / 100.0;
        self.finding.features = vec![Speaking {
            feature: "syn_share",
            value: 1.0,
            expected: 0.1,
            share: 0.9,
        }];
        self.finding.carriers = vec![Carrier {
            prefix: "192.0.2.0/24".parse().unwrap(),
            packets_per_second: observation.rate(),
            share: 1.0,
        }];
    }
}

impl Look for Probe {
    fn second(&mut self, at: f64, observation: &Observation) -> Option<Change> {
        self.see(true, at, observation);
        None
    }

    fn tenth(&mut self, at: f64, observation: &Observation) -> Option<Change> {
        self.see(false, at, observation);
        None
    }

    fn found(&self) -> &Finding {
        &self.finding
    }

    fn all_features(&self) -> Vec<(&'static str, Option<f64>, Option<f64>)> {
        vec![("syn_share", Some(1.0), None)]
    }
}

struct Run {
    twin: Twin,
    detection: Detection<Probe>,
    shown: BTreeMap<String, Shown>,
    now_ns: u64,
}

impl Run {
    fn new(policy: &str, every: bool) -> Self {
        let policy = policy::parse(policy, Path::new("test.toml")).unwrap().policy;
        let twin = Twin::new(&policy, &ListContents::default(), replay::KEY, 1024).unwrap();
        let mut shown = BTreeMap::new();
        let detection = Detection::of(&policy, &twin, every, |watched| {
            let of = Shown::default();
            shown.insert(watched.service.to_string(), Rc::clone(&of));
            Probe {
                shown: of,
                finding: Finding::default(),
            }
        });
        Self {
            twin,
            detection,
            shown,
            now_ns: 0,
        }
    }

    fn at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.twin.set_clock(now_ns);
        self.detection.advance(now_ns);
    }

    fn arrives(&mut self, frame: &[u8]) {
        let length = frame.len() as u32;
        let packet = parse(&Slice::whole(frame));
        let judgement = self.twin.judge(frame);
        self.detection.arrives(
            &self.twin,
            self.now_ns,
            packet.as_ref().map_err(|of| *of),
            length,
            judgement,
        );
    }

    fn leaves(&mut self, frame: &[u8]) {
        self.twin.leaves(frame);
        let packet = parse(&Slice::whole(frame)).unwrap();
        self.detection.leaves(&self.twin, self.now_ns, &packet);
    }

    /// What a service was shown: seconds, or tenths.
    fn shown(&self, service: &str, seconds: bool) -> Vec<(f64, Observation)> {
        let shown = self.shown[service].borrow();
        shown
            .iter()
            .filter(|(second, ..)| *second == seconds)
            .map(|(_, at, observation)| (*at, observation.clone()))
            .collect()
    }
}

fn syn_of(source: [u8; 4], port: u16) -> Vec<u8> {
    frames::ethernet(&frames::ipv4(
        source,
        SERVER,
        6,
        &frames::tcp(1000, port, SYN, (0, 0)),
    ))
}

fn syn() -> Vec<u8> {
    syn_of(CLIENT, 80)
}

fn from_start(at: f64) -> f64 {
    at - START as f64 / 1e9
}

#[test]
fn every_second_everybody_is_looked_at() {
    let mut run = Run::new(POLICY, false);
    let names: Vec<&str> = run.shown.keys().map(String::as_str).collect();
    assert_eq!(names, ["default", "shop", "web"], "there is no profile of blind");
    for second in 0..5 {
        run.at(START + second * S);
        if second != 2 {
            run.arrives(&syn());
        }
    }
    run.detection.finish(START + 9 * S / 2);
    for service in ["web", "shop", "default"] {
        let seconds = run.shown(service, true);
        let ends: Vec<f64> = seconds.iter().map(|(at, _)| from_start(*at)).collect();
        assert_eq!(ends, [1.0, 2.0, 3.0, 4.0, 4.5], "{service}");
        assert!((seconds[3].1.seconds - 1.0).abs() < 1e-9);
        assert!((seconds[4].1.seconds - 0.5).abs() < 1e-9, "half of one is left");
        let packets: Vec<f64> = seconds.iter().map(|(_, of)| of.packets).collect();
        let expected = if service == "web" {
            [1.0, 1.0, 0.0, 1.0, 1.0]
        } else {
            [0.0; 5]
        };
        assert_eq!(packets, expected, "{service}");
    }
}

#[test]
fn what_is_left_of_a_second_counts_only_where_it_says_something() {
    // A tenth that is left would be a rate ten times too high, or none.
    let mut run = Run::new(POLICY, false);
    run.at(START);
    run.arrives(&syn());
    run.at(START + S);
    run.arrives(&syn());
    run.detection.finish(START + S);
    assert_eq!(run.shown("web", true).len(), 1);
    // But where it is all that there is, it is shown.
    let mut run = Run::new(POLICY, false);
    run.at(START);
    run.arrives(&syn());
    run.detection.finish(START);
    let only = run.shown("web", true);
    assert_eq!((only.len(), only[0].1.packets), (1, 1.0));
    assert!((only[0].1.seconds - 0.1).abs() < 1e-9);
    // Of nothing there is nothing to show.
    let mut run = Run::new(POLICY, false);
    run.detection.finish(0);
    assert!(run.shown("web", true).is_empty());
}

#[test]
fn counts_are_those_of_the_kernel() {
    let mut run = Run::new(POLICY, true);
    run.at(START);
    let udp = |source: u16, target: u16| {
        let ports = [source.to_be_bytes(), target.to_be_bytes(), [0, 58], [0; 2]].concat();
        frames::ethernet(&frames::ipv4(CLIENT, SERVER, 17, &[ports, vec![0; 50]].concat()))
    };
    let tcp = |flags| {
        frames::ethernet(&frames::ipv4(
            CLIENT,
            SERVER,
            6,
            &frames::tcp(1000, 80, flags, (0, 0)),
        ))
    };
    for frame in [
        syn(),
        tcp(0x11),
        tcp(0x04),
        udp(123, 80),
        udp(9999, 80),
        // The fifth packet of the source was its last.
        tcp(ACK),
        tcp(ACK),
    ] {
        run.arrives(&frame);
    }
    let mut later = udp(123, 80);
    // A fragment behind the first, which belongs to no service that names ports.
    later[20..22].copy_from_slice(&[0, 8]);
    run.arrives(&later);
    run.arrives(&later[..20]);
    run.detection.finish(START + S / 2);
    let (_, web) = &run.shown("web", true)[0];
    assert_eq!((web.packets, web.dropped), (7.0, 2.0));
    assert!(
        (web.bytes - (5.0 * 54.0 + 2.0 * 92.0)).abs() < 1e-9,
        "{}",
        web.bytes
    );
    assert_eq!(
        (web.syn, web.fin, web.rst, web.udp, web.reflected),
        (1.0, 1.0, 1.0, 2.0, 1.0)
    );
    assert_eq!(web.sizes[..2], [5.0, 2.0]);
    assert_eq!(web.ttls[64 / 8], 7.0);
    assert_eq!(web.sightings.len(), 7);
    let first = web.sightings[0];
    assert!(first.connection && !first.dropped && first.tcp_flags == SYN);
    assert_eq!((first.source_port, first.destination_port), (1000, 80));
    assert_eq!(first.source.to_string(), "192.0.2.1/32");
    assert_eq!(first.network.to_string(), "192.0.2.0/24");
    assert!(web.sightings[6].dropped);
    let (_, rest) = &run.shown("default", true)[0];
    // What cannot be parsed has no profile.
    assert_eq!((rest.packets, rest.fragments), (1.0, 1.0));
    assert_eq!((rest.sizes.iter().sum::<f64>(), rest.sightings.len()), (1.0, 1));
}

#[test]
fn sources_and_networks_are_cut_as_the_policy_says() {
    let mut run = Run::new(POLICY, true);
    run.at(START);
    run.arrives(&syn_of([198, 51, 100, 7], 443));
    run.detection.finish(START);
    let (_, shop) = &run.shown("shop", true)[0];
    assert_eq!(shop.sightings[0].network.to_string(), "198.51.96.0/20");
    assert_eq!(shop.sightings[0].weight, 1.0);
}

#[test]
fn handshakes_in_both_directions_are_counted_and_timed() {
    let mut run = Run::new(POLICY, false);
    let to = |flags, numbers, data: &[u8]| {
        let tcp = [frames::tcp(1000, 80, flags, numbers), data.to_vec()].concat();
        frames::ethernet(&frames::ipv4(CLIENT, SERVER, 6, &tcp))
    };
    let from = |flags, numbers, data: &[u8]| {
        let tcp = [frames::tcp(80, 1000, flags, numbers), data.to_vec()].concat();
        frames::ethernet(&frames::ipv4(SERVER, CLIENT, 6, &tcp))
    };
    run.at(START);
    run.arrives(&to(SYN, (5, 0), &[]));
    run.leaves(&from(SYN | ACK, (77, 6), &[]));
    run.at(START + S / 20);
    run.arrives(&to(ACK, (6, 78), &[]));
    run.arrives(&to(ACK, (6, 78), b"GET"));
    run.at(START + S / 20 + S / 4);
    run.leaves(&from(ACK, (78, 9), b"OK"));
    run.detection.finish(START + S / 2);
    let (_, web) = &run.shown("web", true)[0];
    assert_eq!((web.syn, web.syn_ack, web.first_ack), (1.0, 1.0, 1.0));
    let close = |seconds: Option<f64>, expected: f64| (seconds.unwrap() - expected).abs() < 1e-4;
    assert!(close(web.handshake_seconds, 0.05), "{:?}", web.handshake_seconds);
    assert!(
        close(web.first_byte_seconds, 0.25),
        "{:?}",
        web.first_byte_seconds
    );
    // Nobody asked for the times of this one.
    let (_, shop) = &run.shown("shop", true)[0];
    assert_eq!((shop.handshake_seconds, shop.syn_ack), (None, 0.0));
}

#[test]
fn a_tenth_that_stands_out_is_looked_at_at_once() {
    let mut run = Run::new(POLICY, false);
    // Ten a tenth for five seconds; then, within a second, two tenths with 29 and 33.
    for tenth in 0..53 {
        let packets = match tenth {
            51 => 29,
            52 => 33,
            _ => 10,
        };
        run.at(START + tenth * TENTH_NS);
        for _ in 0..packets {
            run.arrives(&syn());
        }
    }
    run.at(START + 6 * S);
    let tenths = run.shown("web", false);
    let ends: Vec<f64> = tenths
        .iter()
        .map(|(at, _)| (from_start(*at) * 10.0).round())
        .collect();
    // Of the first nobody knew what is usual.
    assert_eq!(ends, [1.0, 53.0]);
    assert_eq!((tenths[1].1.packets, tenths[1].1.seconds), (33.0, 0.1));
    assert_eq!(tenths[1].1.sightings.len(), 33);
    // The second has all of them again.
    assert_eq!(run.shown("web", true)[5].1.packets, 72.0);
    assert!(run.shown("shop", false).is_empty());
}

#[test]
fn a_pause_is_not_told_second_by_second() {
    let mut run = Run::new(POLICY, false);
    run.at(START);
    run.arrives(&syn());
    run.at(START + PAUSE_NS);
    assert_eq!(run.shown("web", true).len(), 600);
    assert_eq!(run.detection.pauses, 0);
    run.arrives(&syn());
    // A year later, and a bit: no year's seconds.
    let later = START + PAUSE_NS + 365 * 86_400 * S + S / 4;
    run.at(later);
    run.arrives(&syn());
    run.detection.finish(later + S);
    assert_eq!(run.detection.pauses, 1);
    let seconds = run.shown("web", true);
    assert_eq!(seconds.len(), 602);
    assert_eq!(seconds[600].1.packets, 1.0);
    assert_eq!(seconds[601].1.packets, 1.0);
    let ends: Vec<f64> = seconds[600..].iter().map(|(at, _)| from_start(*at)).collect();
    assert_eq!(ends, [601.0, 600.0 + 365.0 * 86_400.0 + 1.0]);
}

#[test]
fn different_sources_are_those_of_the_last_whole_minute() {
    let mut run = Run::new(POLICY, false);
    for source in 0..200_u8 {
        run.at(START + u64::from(source) * S / 4);
        run.arrives(&syn_of([192, 0, 2, source], 80));
    }
    run.at(START + 61 * S);
    let seconds = run.shown("web", true);
    assert_eq!(seconds[59].1.sources_per_minute, None);
    let sources = seconds[60].1.sources_per_minute.unwrap();
    assert!((190.0..210.0).contains(&sources), "{sources}");
    run.at(START + 121 * S);
    assert_eq!(run.shown("web", true)[120].1.sources_per_minute, Some(0.0));
    // A minute of which a pause took a part is none.
    run.at(START + 130 * S);
    run.at(START + 130 * S + 2 * PAUSE_NS);
    run.at(START + 130 * S + 2 * PAUSE_NS + 61 * S);
    assert_eq!(run.shown("web", true).last().unwrap().1.sources_per_minute, None);
}

#[test]
fn what_is_said_comes_out_with_times() {
    let mut run = Run::new(POLICY, false);
    for second in 0..3_u64 {
        run.at(START + second * S);
        run.arrives(&syn());
    }
    for packet in 0..300 {
        run.at(START + 3 * S + packet * S / 100);
        run.arrives(&syn());
    }
    run.at(START + 6 * S);
    run.detection.finish(START + 8 * S);
    let web: Vec<&Changed> = run
        .detection
        .changes()
        .iter()
        .filter(|of| of.service == "web")
        .collect();
    let said: Vec<(&str, &str, f64)> = web
        .iter()
        .map(|of| (of.before, of.verdict, (of.offset_seconds * 10.0).round() / 10.0))
        .collect();
    assert_eq!(
        said,
        [
            ("learning", "quiet", 0.1),
            ("quiet", "attack", 3.1),
            ("attack", "quiet", 7.0)
        ]
    );
    assert_eq!(
        (web[1].kind, web[2].kind_before),
        (Some("syn_flood"), Some("syn_flood"))
    );
    let after: Vec<Option<f64>> = web.iter().map(|of| of.after_first_seconds).collect();
    assert_eq!(after, [Some(0.1), Some(3.1), Some(7.0)]);
    assert!(
        (web[2].lasted_seconds - 3.9).abs() < 1e-6,
        "{}",
        web[2].lasted_seconds
    );
    assert_eq!(web[1].features[0].feature, "syn_share");
    let detected = run.detection.detected();
    let names: Vec<&str> = detected.services.iter().map(|of| of.service.as_str()).collect();
    assert_eq!(names, ["web", "shop", "default"]);
    let web = &detected.services[0];
    assert_eq!((web.seconds["quiet"], web.seconds["attack"]), (5.0, 3.0));
    assert_eq!(web.attack_seconds["syn_flood"], 3.0);
    assert!(
        (web.highest_volume_score - 1.0).abs() < 0.2,
        "{}",
        web.highest_volume_score
    );
}

#[test]
fn the_clock_goes_on_after_what_is_known_at_the_same_hour_of_the_week() {
    for (until, capture, expected) in [
        // The next day: as it is.
        (0.0, 86_400.0, 86_400.0),
        (0.0, 0.0, 0.0),
        // Three weeks and a day later: a day.
        (0.0, 22.0 * 86_400.0, 86_400.0),
        // A day before: six days later.
        (0.0, -86_400.0, 6.0 * 86_400.0),
    ] {
        let mut run = Run::new(POLICY, false);
        let start = START as f64 / 1e9;
        run.detection.known_until = Some(start + until);
        let capture_ns = (start + capture) as u64 * S;
        run.at(capture_ns);
        for packet in 0..150 {
            run.at(capture_ns + packet * S / 150);
            run.arrives(&syn());
        }
        run.detection.finish(capture_ns + S);
        let (at, _) = run.shown("web", true)[0];
        assert_eq!(at, start + expected + 1.0, "{until} {capture}");
        // What is told of it is the capture's time.
        let change = &run.detection.changes()[0];
        assert_eq!(change.at.as_second() as f64, start + capture);
        let since = change.since.unwrap().as_millisecond() as f64 / 1e3;
        assert!((since - start - capture).abs() < 1e-3, "{since}");
    }
}

#[test]
fn countries_are_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("country.mmdb");
    std::fs::write(&path, Writer::new(6).country("192.0.2.0/24", "NL").bytes()).unwrap();
    let mut run = Run::new(POLICY, true);
    run.detection.countries = Some(Arc::new(Database::open(&path).unwrap()));
    run.at(START);
    run.arrives(&syn());
    run.arrives(&syn_of([198, 51, 100, 1], 80));
    run.detection.finish(START + S);
    let (_, web) = &run.shown("web", true)[0];
    let countries: Vec<_> = web.sightings.iter().map(|of| of.country).collect();
    assert_eq!(countries, [Some(*b"NL"), None]);
}

#[test]
fn what_a_controller_saved_is_what_is_known() {
    let policy = policy::parse(POLICY, Path::new("test.toml")).unwrap().policy;
    let (_folder, bytes) = detect::tests::saved(&["web", "gone"], 300);
    let learned = Learned::saved(&bytes, "detectors".to_owned()).unwrap();
    assert_eq!(learned.from.file.as_deref(), Some("detectors"));
    let web = learned.from.services["web"].learned;
    assert!(web > 0.0 && web < 1.0, "{web}");
    assert_eq!(learned.from.services["gone"].learned, 0.0);
    let options = Options {
        learned: Some(learned),
        ..Options::default()
    };
    let twin = Twin::new(&policy, &ListContents::default(), replay::KEY, 1024).unwrap();
    let detection = Detection::new(&policy, &twin, &options);
    let known: BTreeMap<&str, f64> = detection
        .watched
        .iter()
        .map(|watched| (watched.name.as_str(), watched.look.learned()))
        .collect();
    assert_eq!(
        known,
        BTreeMap::from([("default", 0.0), ("shop", 0.0), ("web", web)])
    );
    // The clock goes on after it.
    assert!(detection.known_until.is_some());

    for at in [0, 9, bytes.len() / 2, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(Learned::saved(&bytes, String::new()).is_err(), "{at}");
        assert!(Learned::saved(&bytes[..at], String::new()).is_err(), "{at}");
    }
}

#[test]
fn what_a_capture_taught_is_said() {
    let policy = policy::parse(POLICY, Path::new("test.toml")).unwrap().policy;
    let options = |learned| replay::Options {
        detect: Some(Options {
            every_packet: true,
            learned,
            countries: None,
        }),
        ..replay::Options::default()
    };
    let lists = ListContents::default();
    let packet = |time_ns, data| crate::capture::Packet {
        time_ns: Some(time_ns),
        link_type: crate::capture::ETHERNET,
        direction: None,
        wire_len: 54,
        data,
    };
    let frame = syn();
    let mut first = replay::Replay::new((&policy, &lists), None, &options(None)).unwrap();
    for second in 0..90 {
        first.packet(&packet(START + second * S, &frame)).unwrap();
    }
    first.finish();
    let learned = first.into_learned(vec!["calm.pcap".to_owned()]).unwrap();
    assert_eq!(learned.from.captures, ["calm.pcap"]);
    assert_eq!(learned.from.services["web"].seconds, Some(89.0));
    assert_eq!(learned.detectors.len(), 3);
    assert_eq!(learned.until, Some((START / S) as f64 + 90.0));
    let mut second = replay::Replay::new((&policy, &lists), None, &options(Some(learned))).unwrap();
    second.packet(&packet(START + 200 * S, &frame)).unwrap();
    second.finish();
    let detected = second.detection.as_ref().unwrap().detected();
    assert_eq!(detected.learned.unwrap().services.len(), 3);
}
