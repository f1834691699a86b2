//! The same frames through the kernel and its twin: captures, mutated frames and noise, under a policy that uses every
//! stage. Verdict by verdict and count by count they must agree.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests fail where they should, and are tables"
)]

use std::collections::BTreeSet;

use gateway_core::{
    hash::{Domain, Key, hash},
    judge::Event,
};
use weir_tests::{
    both::Both,
    frame::{ACK, Frame, QUIC_V1, SYN, TPID_8021Q},
    pcap,
    skip::require_root,
};

const SECOND: u64 = 1_000_000_000;

const POLICY: &str = r#"
version = 1
[source]
ipv4_prefix = 28
ipv6_prefix = 64
max_tracked = 2048
[[protect]]
sources = ["10.9.0.0/16", "2001:db8:9::/48"]
ports = ["20-25", 9100]
protocol = "tcp"
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24", "2001:db8:bad::/48"]
[lists.good]
action = "trust"
prefixes = ["198.51.100.64/26"]
[lists.cdn]
proxy = true
prefixes = ["10.200.0.0/16"]
[lists.mobile]
prefixes = ["10.64.0.0/10"]
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80, 443, "8000-8080"]
[service.per_source]
packets = { rate = 100, burst = 20 }
bytes = { rate = "50kB", burst = "20kB" }
connections = { rate = 5, burst = 3 }
block = { for = "2s", drops = 4, within = "5s" }
[service.per_network]
ipv4_prefix = 20
ipv6_prefix = 48
packets = { rate = 1000, burst = 200 }
[service.total]
packets = { rate = 20000, burst = 300 }
bytes = { rate = "20MB", burst = "3MB" }
[[service.class]]
name = "mobile"
lists = ["mobile"]
[service.class.per_source]
connections = { rate = 50, burst = 60 }
[service.class.total]
packets = { rate = 500, burst = 30 }
[[service]]
name = "api"
protocol = "tcp"
ports = [443]
addresses = ["203.0.113.0/25", "2001:db8::/64"]
enforce_share = "50%"
[service.per_source]
packets = { rate = 10, burst = 5 }
[[service]]
name = "dns"
protocol = "udp"
source_ports = [53]
[service.total]
packets = { rate = 100, burst = 50 }
[[service]]
name = "everything"
protocol = "any"
addresses = ["203.0.113.200/32"]
mode = "monitor"
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;

/// Random numbers of a fixed seed, from the hash that is there anyway.
struct Random(u32, Key);

impl Random {
    fn new(seed: u64) -> Self {
        let words = [
            seed,
            !seed,
            seed.rotate_left(17) ^ 0x1234_5678_9abc_def1,
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ];
        Self(0, Key::new(words))
    }

    fn next(&mut self, below: usize) -> usize {
        self.0 += 1;
        (hash(&self.1, Domain::Source, 4, &[self.0, 0, 0, 0]) >> 8) as usize % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next(of.len())]
    }
}

/// A plausible frame.
fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.next(4) == 0;
    let (source, target) = if v6 {
        let net = random.pick(&["2001:db8:1", "2001:db8:bad", "2001:db8:9", "2001:db8:2"]);
        let source = format!("{net}:{:x}::{:x}", random.next(6), random.next(200));
        (source, random.pick(&["2001:db8::10", "2001:db8:5::1"]))
    } else {
        let net = random.pick(&[
            "192.0.2",
            "198.51.100",
            "10.9.3",
            "10.200.1",
            "10.64.8",
            "172.16.5",
        ]);
        let source = format!("{net}.{}", random.next(256));
        (
            source,
            random.pick(&["203.0.113.10", "203.0.113.200", "203.0.114.1"]),
        )
    };
    let mut frame = Frame::new();
    for _ in 0..random.pick(&[0, 0, 0, 1, 2]) {
        frame = frame.vlan(TPID_8021Q, random.next(4095) as u16);
    }
    frame = frame.ip(&source, target);
    if v6 && random.next(4) == 0 {
        frame = frame.hop_by_hop(1 + random.next(3) as u8);
    }
    if random.next(10) == 0 {
        frame = frame.fragment(random.pick(&[0, 0, 8, 1480]), random.next(2) == 0);
    }
    let port = random.pick(&[80, 443, 8050, 22, 9100, 5353]);
    let payload = vec![0u8; random.next(900)];
    match random.next(8) {
        0 => frame
            .icmp(random.pick(&[0, 3, 8, 11, 128, 134, 135]), 0)
            .payload(&payload)
            .build(),
        1 | 2 => frame
            .udp(random.pick(&[53, 1000, 67]), port)
            .payload(&payload)
            .build(),
        3 => frame.quic_initial(1000, port, QUIC_V1).build(),
        4 | 5 => frame.tcp(1000, port, SYN).build(),
        _ => frame
            .tcp(random.pick(&[53, 1000]), port, ACK)
            .payload(&payload)
            .build(),
    }
}

/// Steps of a clock: mostly a little, at times seconds, minutes, days.
fn step(random: &mut Random) -> u64 {
    match random.next(100) {
        0 => 86_400 * SECOND * (1 + random.next(400) as u64),
        1..=3 => 60 * SECOND * (1 + random.next(90) as u64),
        4..=9 => SECOND * random.next(7) as u64,
        10..=40 => 0,
        _ => random.next(3_000_000) as u64,
    }
}

#[test]
fn plausible_frames() {
    plausible(POLICY, "weir", "source_packets");
}

/// Without the services that more than a port tells apart. A source is blocked by its first drop: whether one is dropped four times in time
/// depends on the key of the hash, which is another in every run.
#[test]
fn plausible_frames_for_services_by_port() {
    let (by_port, _) = POLICY.split_once("[[service]]\nname = \"api\"").unwrap();
    let by_port = by_port.replace("drops = 4", "drops = 1");
    plausible(&by_port, "weir_full", "block");
}

/// `own`: a reason that some frame has under this policy, besides those that some have under both.
fn plausible(policy: &str, program: &str, own: &str) {
    require_root();
    let mut random = Random::new(1);
    let mut now = 1_000 * SECOND;
    let mut both = Both::new(policy, now).unwrap();
    assert_eq!(both.program(), program);
    both.ban("192.0.2.0/29", None, now + 5 * SECOND).unwrap();
    both.ban("172.16.5.128/25", Some("web"), u64::MAX).unwrap();
    let mut reasons = BTreeSet::new();
    for _ in 0..1500 {
        now += step(&mut random);
        both.set_clock(now).unwrap();
        let frames: Vec<Vec<u8>> = (0..40).map(|_| frame(&mut random)).collect();
        let tally = both.judge_all(frames.iter().map(Vec::as_slice)).unwrap();
        reasons.extend(tally.into_keys().map(|(_, _, _, reason)| reason));
    }
    let expected = [
        "pass",
        "protect",
        "trust",
        "ban",
        "list",
        own,
        "source_connections",
        "class_packets",
        "essential",
        "malformed",
    ];
    for reason in expected {
        assert!(
            reasons.contains(reason),
            "no frame was judged {reason}: {reasons:?}"
        );
    }
}

const HOSTILE: &str = r#"
version = 1
[source]
max_tracked = 1024
[lists.good]
action = "trust"
prefixes = ["192.0.2.200/29"]
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80]
[service.per_source]
packets = { rate = 20, burst = 8 }
connections = { rate = 2, burst = 3 }
block = { for = "2s", drops = 5, within = "5s" }
[service.total]
packets = { rate = 60, burst = 60 }
bytes = { rate = "6kB", burst = "6kB" }
connections = { rate = 10, burst = 12 }
reserve = "40%"
[[service]]
name = "shop"
protocol = "tcp"
ports = [81]
[service.total]
connections = { rate = 5, burst = 5 }
reserve = "20%"
"#;

/// A segment between one of a few clients and the services, with one of a few numbers, so that many come again and some
/// answer others; or the other direction of it.
fn segment(random: &mut Random, leaves: bool) -> Vec<u8> {
    let v6 = random.next(4) == 0;
    let client = if v6 {
        format!("2001:db8:{:x}::1", random.next(8))
    } else {
        // Some come often enough to be limited and proven; the others fill lines.
        match random.next(3) {
            0 => format!("172.16.{}.{}", random.next(256), random.next(256)),
            _ => format!("192.0.2.{}", random.next(208)),
        }
    };
    let server = if v6 { "2001:db8:ffff::1" } else { "203.0.113.1" };
    let (near, far) = (1000 + random.next(2) as u16, 80 + random.next(2) as u16);
    let numbers = (random.next(4) as u32, random.next(5) as u32);
    if leaves {
        let flags = random.pick(&[SYN | ACK, SYN | ACK, SYN | ACK, ACK, SYN]);
        return Frame::new()
            .ip(server, &client)
            .tcp(far, near, flags)
            .numbers(numbers.0, numbers.1)
            .build();
    }
    let frame = Frame::new().ip(&client, server);
    match random.next(10) {
        0 => frame.udp(near, far).payload(&[0; 100]).build(),
        1 => frame.tcp(near, far, ACK).payload(&[0; 300]).build(),
        2..=5 => frame.tcp(near, far, SYN).numbers(numbers.0, numbers.1).build(),
        _ => frame.tcp(near, far, ACK).numbers(numbers.0, numbers.1).build(),
    }
}

#[test]
fn handshakes_reserves_and_kept_ways() {
    require_root();
    let mut random = Random::new(3);
    let mut now = 1_000 * SECOND;
    let mut both = Both::new(HOSTILE, now).unwrap();
    assert_eq!(both.program(), "weir_full");
    let mut reasons = BTreeSet::new();
    for _ in 0..1500 {
        now += match random.next(60) {
            0 => 3_600 * SECOND,
            1 | 2 => 20 * SECOND,
            3..=9 => SECOND,
            _ => random.next(20_000_000) as u64,
        };
        both.set_clock(now).unwrap();
        for _ in 0..random.next(6) {
            let frame = segment(&mut random, true);
            both.leaves(&frame).unwrap();
        }
        let frames: Vec<Vec<u8>> = (0..30).map(|_| segment(&mut random, false)).collect();
        let tally = both.judge_all(frames.iter().map(Vec::as_slice)).unwrap();
        reasons.extend(tally.into_keys().map(|(_, _, _, reason)| reason));
    }
    let overflows = both.twin().events(Event::Overflow);
    assert!(overflows > 50, "the table was not filled: {overflows}");
    for reason in [
        "pass",
        "trust",
        "block",
        "source_packets",
        "source_connections",
        "total_packets",
        "total_connections",
        "reserve_packets",
        "reserve_bytes",
        "reserve_connections",
    ] {
        assert!(
            reasons.contains(reason),
            "no frame was judged {reason}: {reasons:?}"
        );
    }
}

/// What the two smallest programs serve, of all that they serve; `%` stands for what tells them apart.
const SMALLER: &str = r#"
version = 1
[source]
ipv4_prefix = 30
ipv6_prefix = 64
max_tracked = 1024
[default]
action = "drop"
%
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80, 443, "8000-8080"]
%
[service.per_source]
packets = { rate = 20, burst = 8 }
bytes = { rate = "50kB", burst = "20kB" }
connections = { rate = 2, burst = 3 }
[service.total]
packets = { rate = 600, burst = 200 }
bytes = { rate = "600kB", burst = "300kB" }
connections = { rate = 30, burst = 40 }
[[service]]
name = "watched"
protocol = "tcp"
ports = [22]
mode = "monitor"
%
[service.per_source]
packets = { rate = 1, burst = 1 }
[[service]]
name = "pings"
protocol = "icmp"
%
[service.per_source]
packets = { rate = 1, burst = 2 }
[service.total]
packets = { rate = 10, burst = 20 }
"#;

#[test]
fn the_smallest_programs_judge_as_the_large_one() {
    require_root();
    let lean = SMALLER.replace('%', "profile = false") + "[sampling]\none_in = 0\n";
    let base = SMALLER.replace('%', "") + "[sampling]\none_in = 2\n";
    for (program, policy) in [("weir_lean", lean), ("weir_base", base)] {
        let mut random = Random::new(4);
        let mut now = 1_000 * SECOND;
        let mut both = Both::new(&policy, now).unwrap();
        assert_eq!(both.program(), program);
        let mut reasons = BTreeSet::new();
        for round in 0..900 {
            if round == 300 {
                both.ban("192.0.2.0/29", None, now + 5 * SECOND).unwrap();
                both.ban("172.16.5.128/25", Some("web"), u64::MAX).unwrap();
                both.ban("2001:db8:2::/48", Some("web"), u64::MAX).unwrap();
            }
            now += step(&mut random);
            both.set_clock(now).unwrap();
            let frames: Vec<Vec<u8>> = (0..40)
                .map(|at| match at % 4 {
                    0 => mutated(&mut random),
                    1 => frame(&mut random),
                    _ => segment(&mut random, false),
                })
                .collect();
            let tally = both.judge_all(frames.iter().map(Vec::as_slice)).unwrap();
            reasons.extend(tally.into_keys().map(|(_, _, _, reason)| reason));
            both.leaves(&segment(&mut random, true)).unwrap();
        }
        let expected = [
            "pass",
            "ban",
            "source_packets",
            "source_connections",
            "total_packets",
            "essential",
            "default_drop",
            "malformed",
        ];
        for reason in expected {
            assert!(
                reasons.contains(reason),
                "no frame was judged {reason} by {program}: {reasons:?}"
            );
        }
    }
}

#[test]
fn mutated_frames_and_noise() {
    require_root();
    let mut random = Random::new(2);
    let mut now = 77 * SECOND;
    let mut both = Both::new(POLICY, now).unwrap();
    for _ in 0..300 {
        now += step(&mut random);
        both.set_clock(now).unwrap();
        let frames: Vec<Vec<u8>> = (0..60).map(|_| mutated(&mut random)).collect();
        both.judge_all(frames.iter().map(Vec::as_slice)).unwrap();
    }
}

fn mutated(random: &mut Random) -> Vec<u8> {
    if random.next(20) == 0 {
        return (0..14 + random.next(120))
            .map(|_| random.next(256) as u8)
            .collect();
    }
    let mut bytes = frame(random);
    for _ in 0..random.next(4) {
        let at = random.next(bytes.len().min(90));
        bytes[at] = random.next(256) as u8;
    }
    if random.next(4) == 0 {
        bytes.truncate(14 + random.next(bytes.len() - 13));
    }
    bytes
}

#[test]
fn captured_frames() {
    require_root();
    let Some(folder) = pcap::shared_captures() else {
        // They stand beside the project where it is developed; elsewhere the other tests of this file carry the load.
        println!("captures: not beside the project, nothing compared");
        return;
    };
    let mut both = Both::new(POLICY, 5 * SECOND).unwrap();
    let mut files: Vec<_> = ["frames", "attacks"]
        .iter()
        .flat_map(|part| std::fs::read_dir(folder.join(part)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|of| of.to_string_lossy().starts_with("pcap"))
        })
        .collect();
    files.sort();
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let capture = pcap::read(&file).unwrap();
        // Longer ones are super-frames of the capturing host; one buffer, as test-run gives it, does not hold them.
        let frames = capture
            .records
            .iter()
            .map(|record| record.data.as_slice())
            .filter(|frame| (14..3400).contains(&frame.len()));
        let tally = both
            .judge_all(frames.take(3000))
            .unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        println!(
            "{}: {} kinds of verdict",
            file.file_name().unwrap().to_string_lossy(),
            tally.len()
        );
    }
}

/// The fuzz target's policies.
const FUZZED: [&str; 3] = [
    include_str!("../../fuzz/policies/everything.toml"),
    include_str!("../../fuzz/policies/zero_trust.toml"),
    include_str!("../../fuzz/policies/hostile.toml"),
];
/// What goes before a frame in the fuzz target's inputs: the second byte is the time that has passed, as a power of two.
const CONTROL: usize = 4;

/// What the fuzzer found worth keeping, and mutations of it: under each policy, as it is, spliced and with bytes changed.
/// `WEIR_DIFFERENTIAL_FRAMES` says how many mutations (`cargo xtask fuzz differential`).
#[test]
fn corpus_frames() {
    require_root();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    // Under 14 bytes and above one buffer, test-run takes no frame.
    let inputs: Vec<Vec<u8>> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .filter(|input| (CONTROL + 14..3400).contains(&input.len()))
        .collect();
    assert!(
        inputs.len() > 200,
        "{} inputs in {}",
        inputs.len(),
        folder.display()
    );
    let mutations: usize =
        std::env::var("WEIR_DIFFERENTIAL_FRAMES").map_or(12_000, |frames| frames.parse().unwrap());
    for (at, policy) in FUZZED.iter().enumerate() {
        let mut now = 77 * SECOND;
        let mut both = Both::new(policy, now).unwrap();
        for input in &inputs {
            now += 1u64 << (input[1] % 36);
            both.set_clock(now).unwrap();
            both.judge_all([&input[CONTROL..]])
                .unwrap_or_else(|error| panic!("{input:02x?}: {error:#}"));
        }
        let mut random = Random::new(10 + at as u64);
        for _ in 0..mutations.div_ceil(FUZZED.len() * 100) {
            now += step(&mut random);
            both.set_clock(now).unwrap();
            let frames: Vec<Vec<u8>> = (0..100).map(|_| offspring(&inputs, &mut random)).collect();
            // What leaves is test-run only with a whole IP header.
            if frames[0].len() >= 54 {
                both.leaves(&frames[0]).unwrap();
            }
            both.judge_all(frames.iter().map(Vec::as_slice)).unwrap();
        }
    }
}

/// A frame made of one or two inputs, with a few bytes changed, cut off or not.
fn offspring(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.next(inputs.len())][CONTROL..].to_vec();
    if random.next(3) == 0 {
        let other = &inputs[random.next(inputs.len())][CONTROL..];
        bytes.truncate(12 + random.next(bytes.len() - 12));
        bytes.extend(&other[random.next(other.len())..]);
        bytes.resize(bytes.len().max(14), 0);
    }
    for _ in 0..random.next(4) {
        let at = random.next(bytes.len().min(120));
        bytes[at] = random.next(256) as u8;
    }
    if random.next(4) == 0 {
        bytes.truncate(14 + random.next(bytes.len() - 13));
    }
    bytes
}
