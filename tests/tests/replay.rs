//! `weir replay`: the kernel's verdicts for the same packets at the same times, and what it says of captures that are odd,
//! damaged or foreign.

#![allow(clippy::unwrap_used, reason = "tests fail where they should")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use gateway_core::hash::{Domain, Key, hash};
use serde_json::Value;
use weir::capture::{Direction, ETHERNET};
use weir_tests::{
    both::Both,
    command::{Output, finish},
    daemon::binary,
    frame::{ACK, Frame, QUIC_V1, SYN, TPID_8021Q},
    pcap::{self, Sent},
    skip::require_root,
};

const SECOND: u64 = 1_000_000_000;
/// A Friday, 08:59 UTC.
const START: u64 = 1_795_769_940 * SECOND;
const PATIENCE: Duration = Duration::from_mins(2);

const POLICY: &str = r#"
version = 1
[source]
ipv4_prefix = 32
ipv6_prefix = 64
max_tracked = 1024
[[protect]]
sources = ["10.9.0.0/28"]
protocol = "tcp"
ports = [22]
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[lists.good]
action = "trust"
prefixes = ["192.0.2.128/25"]
[lists.mobile]
prefixes = ["10.64.0.0/10"]
[default]
action = "drop"
replies = "none"
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80, 443]
[service.per_source]
packets = { rate = 50, burst = 20 }
bytes = { rate = "20kB", burst = "10kB" }
connections = { rate = 2, burst = 3 }
block = { for = "2s", drops = 10, within = "10s" }
[service.per_network]
packets = { rate = 40, burst = 30 }
[service.total]
packets = { rate = 200, burst = 100 }
connections = { rate = 20, burst = 20 }
reserve = "20%"
[[service.class]]
name = "mobile"
lists = ["mobile"]
[service.class.per_source]
connections = { rate = 20, burst = 20 }
[service.class.total]
packets = { rate = 20, burst = 10 }
[[service]]
name = "api"
protocol = "tcp"
ports = [443]
addresses = ["203.0.113.200/32", "2001:db8::/64"]
enforce_share = "50%"
[service.per_source]
packets = { rate = 10, burst = 5 }
[[service]]
name = "watched"
protocol = "tcp"
ports = [8080]
mode = "monitor"
[service.per_source]
packets = { rate = 1, burst = 1 }
[[service]]
name = "dns"
protocol = "udp"
source_ports = [53]
[service.total]
bytes = { rate = "40kB", burst = "20kB" }
"#;

/// Random numbers of a fixed seed.
struct Random(u32, Key);

impl Random {
    fn new(seed: u64) -> Self {
        Self(0, Key::new([seed, !seed, seed ^ 0x1234_5678_9abc_def1, seed | 1]))
    }

    fn next(&mut self, below: usize) -> usize {
        self.0 += 1;
        (hash(&self.1, Domain::Source, 4, &[self.0, 0, 0, 0]) >> 8) as usize % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next(of.len())]
    }
}

/// A frame of the mixture: services of both families, tags, new connections, fragments, and what cannot be parsed.
fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.next(4) == 0;
    let (source, target) = if v6 {
        let source = format!("2001:db8:{:x}::{:x}", random.next(40), random.next(3));
        (source, random.pick(&["2001:db8::10", "2001:db8:5::1"]))
    } else {
        let net = random.pick(&[
            "192.0.2",
            "192.0.2",
            "198.51.100",
            "10.9.0",
            "10.64.8",
            "172.16.5",
        ]);
        let source = match random.next(4) {
            0 => format!(
                "172.{}.{}.{}",
                random.next(256),
                random.next(256),
                random.next(256)
            ),
            // One that sends enough to be blocked.
            1 => "192.0.2.7".to_owned(),
            _ => format!("{net}.{}", random.next(256)),
        };
        (source, random.pick(&["203.0.113.10", "203.0.113.200"]))
    };
    let mut frame = Frame::new();
    for _ in 0..random.pick(&[0, 0, 0, 0, 1, 2]) {
        frame = frame.vlan(TPID_8021Q, random.next(4095) as u16);
    }
    frame = frame.ip(&source, target);
    if random.next(12) == 0 {
        frame = frame.fragment(random.pick(&[0, 8, 1480]), random.next(2) == 0);
    }
    let port = random.pick(&[80, 443, 443, 8080, 22, 9999]);
    let numbers = (random.next(3) as u32, random.next(3) as u32);
    let payload = vec![0u8; random.next(900)];
    let mut bytes = match random.next(9) {
        0 => frame
            .icmp(random.pick(&[0, 3, 8, 134]), 0)
            .payload(&payload)
            .build(),
        1 | 2 => frame
            .udp(random.pick(&[53, 1000]), port)
            .payload(&payload)
            .build(),
        3 => frame.quic_initial(1000, port, QUIC_V1).build(),
        4..=6 => frame.tcp(1000, port, SYN).numbers(numbers.0, 0).build(),
        _ => frame
            .tcp(1000, port, ACK)
            .numbers(numbers.0, numbers.1)
            .payload(&payload)
            .build(),
    };
    match random.next(25) {
        0 => bytes.truncate(14 + random.next(bytes.len() - 13)),
        1 => {
            let at = random.next(bytes.len().min(60));
            bytes[at] = random.next(256) as u8;
        }
        _ => {}
    }
    bytes
}

/// What the host answers to a connection.
fn answer(random: &mut Random) -> Vec<u8> {
    let client = format!("192.0.2.{}", random.next(256));
    Frame::new()
        .ip("203.0.113.10", &client)
        .tcp(random.pick(&[80, 443]), 1000, SYN | ACK)
        .numbers(random.next(2) as u32, 1)
        .build()
}

fn mixture(packets: usize) -> Vec<Sent> {
    let mut random = Random::new(6);
    let mut now = START;
    (0..packets)
        .map(|_| {
            now += match random.next(1000) {
                0 => 3 * SECOND,
                1..=500 => 0,
                _ => random.next(600_000) as u64,
            };
            let out = random.next(12) == 0;
            let data = if out {
                answer(&mut random)
            } else {
                frame(&mut random)
            };
            Sent {
                direction: Some(if out { Direction::Out } else { Direction::In }),
                ..Sent::arrived(now, data)
            }
        })
        .collect()
}

/// Packets and bytes by service, class, verdict and reason.
type Counted = BTreeMap<(String, String, String, String), (u64, u64)>;

/// The counters of a report.
fn counted(services: &Value) -> Counted {
    let mut counted = Counted::new();
    for service in services.as_array().unwrap() {
        for of in service["reasons"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let key = (
                text(&service["service"]),
                text(&service["class"]),
                text(&of["verdict"]),
                text(&of["reason"]),
            );
            let numbers = (of["packets"].as_u64().unwrap(), of["bytes"].as_u64().unwrap());
            assert!(counted.insert(key, numbers).is_none(), "counted twice: {service}");
        }
    }
    counted
}

/// Sends packets through the kernel's program at their times.
fn through_the_kernel(both: &mut Both, packets: &[Sent]) -> Counted {
    let mut now = 0;
    for packet in packets {
        // As the replay does: a clock that stands while times run backwards.
        now = packet.time_ns.max(now);
        both.set_clock(now).unwrap();
        if packet.direction == Some(Direction::Out) {
            both.leaves(&packet.data).unwrap();
        } else {
            both.judge_quietly(&packet.data).unwrap();
        }
    }
    let counters = both.kernel.counters().unwrap();
    let key = |of: &weir::kernel::Counter| {
        (
            of.service.clone(),
            of.class.clone(),
            of.verdict.to_owned(),
            of.reason.to_owned(),
        )
    };
    counters
        .iter()
        .map(|of| (key(of), (of.packets, of.bytes)))
        .collect()
}

/// A folder with the files of one test.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(policy: &str) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write("policy.toml", policy.as_bytes());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary().unwrap());
        command.current_dir(self.folder.path());
        command.args(["replay", "--policy", "policy.toml"]).args(args);
        command
    }

    fn replay(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args), None, PATIENCE).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [&["--json"], args].concat();
        self.replay(&args).ok().unwrap().json().unwrap()
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hex(key: [u64; 4]) -> String {
    let [a, b, c, d] = key;
    format!("{a:016x}{b:016x}{c:016x}{d:016x}")
}

#[test]
fn the_kernels_verdicts() {
    require_root();
    let packets = mixture(30_000);
    let mut both = Both::new(POLICY, START).unwrap();
    let kernel = through_the_kernel(&mut both, &packets);
    let (key, _) = both.kernel.placement();
    let files = Files::new(POLICY);
    files.write("all.pcapng.gz", &gzipped(&pcap::pcapng(ETHERNET, &packets)));
    let report = files.json(&["--hash-key", &hex(key), "all.pcapng.gz"]);
    assert_eq!(counted(&report["services"]), kernel);
    assert_eq!(report["packets"], 30_000);
    let left: u64 = packets
        .iter()
        .filter(|of| of.direction == Some(Direction::Out))
        .map(|_| 1)
        .sum();
    assert_eq!(report["left"]["packets"], left);
    // Every stage was reached, or the agreement says little.
    for reason in [
        "pass",
        "protect",
        "trust",
        "malformed",
        "list",
        "block",
        "source_packets",
        "source_bytes",
        "source_connections",
        "network_packets",
        "class_packets",
        "reserve_packets",
        "total_connections",
        "total_bytes",
        "reserve_connections",
        "essential",
        "default_drop",
    ] {
        let of = kernel
            .iter()
            .filter(|(key, _)| key.3 == reason)
            .map(|(_, count)| count.0);
        assert!(of.sum::<u64>() > 0, "no packet was judged {reason}: {kernel:#?}");
    }
    assert!(kernel.keys().any(|key| key.2 == "would_drop"));
    assert!(
        report["overflow"].as_u64().unwrap() > 0,
        "the source table was never full"
    );
    // The intervals and the whole say the same.
    for verdict in ["pass", "drop", "would_drop"] {
        let sum: u64 = report["intervals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|of| of[verdict]["packets"].as_u64().unwrap())
            .sum();
        assert_eq!(report[verdict]["packets"], sum, "{verdict}");
    }
}

#[test]
fn the_kernels_verdicts_of_captured_traffic() {
    require_root();
    let Some(folder) = pcap::shared_captures() else {
        // They stand beside the project where it is developed; elsewhere the test above carries the load.
        println!("captures: not beside the project, nothing compared");
        return;
    };
    let mut compared = 0;
    for part in ["frames", "attacks"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if !path
                .extension()
                .is_some_and(|of| of.to_string_lossy().starts_with("pcap"))
            {
                continue;
            }
            // What test-run takes: whole frames, in one buffer.
            let packets: Vec<Sent> = pcap::read(&path)
                .unwrap()
                .records
                .into_iter()
                .filter(|of| (14..3400).contains(&of.data.len()) && of.data.len() == of.wire_len as usize)
                .map(|of| Sent {
                    direction: Some(Direction::In),
                    ..Sent::arrived(of.time_ns.unwrap(), of.data)
                })
                .collect();
            let mut both = Both::new(POLICY, START).unwrap();
            let kernel = through_the_kernel(&mut both, &packets);
            let (key, _) = both.kernel.placement();
            let files = Files::new(POLICY);
            files.write("all.pcapng", &pcap::pcapng(ETHERNET, &packets));
            let report = files.json(&["--hash-key", &hex(key), "all.pcapng"]);
            assert_eq!(counted(&report["services"]), kernel, "{}", path.display());
            compared += packets.len();
        }
    }
    assert!(compared > 40_000, "{compared}");
}

const SMALL: &str = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 10 }
"#;

/// A source that sends so many packets, one a millisecond, and where each goes.
fn burst(source: &str, port: u16, packets: u64) -> Vec<Sent> {
    let data = Frame::new()
        .ip(source, "203.0.113.1")
        .tcp(1000, port, ACK)
        .build();
    (0..packets)
        .map(|at| Sent::arrived(START + at * 1_000_000, data.clone()))
        .collect()
}

#[test]
fn a_file_says_the_same_however_it_is_given() {
    let files = Files::new(SMALL);
    let packets = burst("192.0.2.1", 80, 1000);
    let whole = pcap::pcap(&packets);
    files.write("a.pcap", &whole);
    files.write("b.pcap.gz", &gzipped(&whole));
    files.write("c.pcapng", &pcap::pcapng(ETHERNET, &packets));
    files.write("first.pcap", &pcap::pcap(&packets[..400]));
    files.write("second.pcap", &pcap::pcap(&packets[400..]));
    let plain = |mut report: Value| {
        report.as_object_mut().unwrap().remove("captures");
        report
    };
    let report = plain(files.json(&["a.pcap"]));
    assert_eq!(
        (&report["pass"]["packets"], &report["drop"]["packets"]),
        (&Value::from(10), &Value::from(990))
    );
    assert_eq!(report["from"], "2026-11-27T08:59:00Z");
    assert_eq!(plain(files.json(&["b.pcap.gz"])), report);
    assert_eq!(plain(files.json(&["c.pcapng"])), report);
    assert_eq!(plain(files.json(&["first.pcap", "second.pcap"])), report);
    for input in ["a.pcap", "b.pcap.gz"] {
        let mut command = files.command(&["--json", "-"]);
        command.stdin(fs::File::open(files.path(input)).unwrap());
        let output = command.output().unwrap();
        assert_eq!(plain(serde_json::from_slice(&output.stdout).unwrap()), report);
    }
    let text = files.replay(&["a.pcap"]).ok().unwrap().stdout;
    assert!(text.contains("source_packets"), "{text}");
    let failed = files.replay(&["-", "-"]);
    failed.failed(2, "- stands twice").unwrap();
}

#[test]
fn two_policies_are_compared() {
    let files = Files::new(SMALL);
    files.write("other.toml", SMALL.replace("burst = 10", "burst = 30").as_bytes());
    let mut packets = burst("192.0.2.1", 80, 100);
    packets.extend(burst("192.0.2.2", 81, 100));
    packets.sort_by_key(|of| of.time_ns);
    files.write("a.pcap", &pcap::pcap(&packets));
    let report = files.json(&["--against", "other.toml", "a.pcap"]);
    let against = &report["against"];
    assert_eq!(
        (&report["drop"]["packets"], &against["drop"]["packets"]),
        (&90.into(), &70.into())
    );
    assert_eq!(against["same"]["packets"], 180);
    let differences = against["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0]["packets"], 20);
    assert_eq!(differences[0]["policy"]["reason"], "source_packets");
    assert_eq!(differences[0]["against"]["verdict"], "pass");
    assert_eq!(against["sources"][0]["source"], "192.0.2.1/32");
    assert_eq!(against["sources"][0]["changes"]["drop instead of pass"], 20);
    assert_eq!(against["sources"].as_array().unwrap().len(), 1);
    let text = files
        .replay(&["--against", "other.toml", "a.pcap"])
        .ok()
        .unwrap()
        .stdout;
    assert!(
        text.contains("20 of 200 packets judged differently (10.0 %)"),
        "{text}"
    );
    assert!(text.contains("drop source_packets"), "{text}");
}

#[test]
fn monitor_shows_what_would_be_dropped_and_enforce_overrides_it() {
    let files = Files::new(&SMALL.replace("version = 1", "version = 1\nmode = \"monitor\""));
    files.write("a.pcap", &pcap::pcap(&burst("192.0.2.1", 80, 100)));
    let report = files.json(&["a.pcap"]);
    assert_eq!(
        (&report["would_drop"]["packets"], &report["drop"]["packets"]),
        (&90.into(), &0.into())
    );
    assert!(
        report["notes"][0].as_str().unwrap().contains("--enforce"),
        "{report}"
    );
    let report = files.json(&["--enforce", "a.pcap"]);
    assert_eq!(
        (&report["would_drop"]["packets"], &report["drop"]["packets"]),
        (&0.into(), &90.into())
    );
    assert_eq!(report["policy"]["mode"], "enforce");
}

#[test]
fn intervals_and_the_drawing() {
    let files = Files::new(SMALL);
    let mut packets = burst("192.0.2.1", 80, 30);
    packets.push(Sent::arrived(START + 25 * SECOND, packets[0].data.clone()));
    files.write("a.pcap", &pcap::pcap(&packets));
    let report = files.json(&["--interval", "10s", "--plot", "a.svg", "a.pcap"]);
    let passed: Vec<(&str, u64)> = report["intervals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            (
                of["from"].as_str().unwrap(),
                of["pass"]["packets"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        passed,
        [
            ("2026-11-27T08:59:00Z", 10),
            ("2026-11-27T08:59:10Z", 0),
            ("2026-11-27T08:59:20Z", 1)
        ]
    );
    let svg = fs::read_to_string(files.path("a.svg")).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"),
        "{svg}"
    );
    for part in [
        "packets/s",
        "time (UTC) from 2026-11-27 on; intervals of 10 s",
        ">web<",
        "class=\"drop\" d=",
        "dropped<",
    ] {
        assert!(svg.contains(part), "no {part} in {svg}");
    }
    assert!(
        !svg.contains("<script") && !svg.contains("class=\"would\" d="),
        "{svg}"
    );
}

#[test]
fn what_is_wrong_is_said_before_the_long_run() {
    let files = Files::new(SMALL);
    files.write("a.pcap", &pcap::pcap(&burst("192.0.2.1", 80, 10)));
    files.write("bad.toml", b"version = 1\n[[service]]\nname = 5\n");
    // The names are wrong, and nothing is read: there is no standard output.
    for (args, code, said) in [
        (&["--against", "bad.toml", "a.pcap"][..], 2, "bad.toml:3:8"),
        (&["--against", "absent.toml", "a.pcap"], 2, "absent.toml"),
        (&["a.pcap", "absent.pcap"], 1, "cannot read absent.pcap"),
        (
            &["--plot", "absent/a.svg", "a.pcap"],
            1,
            "cannot write absent/a.svg",
        ),
        (&["--interval", "0s", "a.pcap"], 2, "1ms to 30d"),
        (&["--local", "10.0.0.1/8", "a.pcap"], 2, "did you mean 10.0.0.0/8"),
        (&[], 2, "CAPTURE"),
        (
            &["policy.toml"],
            1,
            "policy.toml: is neither a pcap nor a pcapng file",
        ),
        (&["."], 1, "directory"),
        (&["/dev/null"], 1, "/dev/null: is empty"),
    ] {
        let output = files.replay(args);
        assert_eq!(output.stdout, "", "{args:?}");
        output.failed(code, said).unwrap();
    }
}

#[test]
fn a_damaged_capture_is_judged_as_far_as_it_goes() {
    let files = Files::new(SMALL);
    let whole = pcap::pcap(&burst("192.0.2.1", 80, 100));
    files.write("cut.pcap", &whole[..whole.len() - 5]);
    let compressed = gzipped(&pcap::pcap(&mixture(3000)));
    files.write("cut.pcap.gz", &compressed[..compressed.len() - 100]);
    let mut damaged = whole.clone();
    // The captured length of the third packet: each has 16 bytes before its 54.
    damaged[24 + 2 * 70 + 8..][..4].fill(0xff);
    files.write("damaged.pcap", &damaged);
    for (name, judged, said) in [
        (
            "cut.pcap",
            Some(99),
            "cut.pcap: ends at byte 7019, within a packet that begins at byte 6954",
        ),
        (
            "damaged.pcap",
            Some(2),
            "damaged.pcap: is damaged at byte 172: a packet of 4294967295 bytes",
        ),
        ("cut.pcap.gz", None, "cut.pcap.gz: is damaged in its compression"),
    ] {
        let output = files.replay(&["--json", name]);
        let report = output.json().unwrap();
        assert_eq!(report["complete"], false);
        assert!(report["error"].as_str().unwrap().starts_with(said), "{report}");
        match judged {
            Some(packets) => assert_eq!(report["packets"], packets),
            None => assert!(report["packets"].as_u64().unwrap() > 100),
        }
        output.failed(1, "what is before that was read").unwrap();
        let output = files.replay(&[name]);
        assert!(output.stdout.contains("VERDICT"), "{output:?}");
        output.failed(1, said).unwrap();
    }
}

#[test]
fn a_foreign_link_is_named_with_its_packet() {
    let files = Files::new(SMALL);
    let packets = burst("192.0.2.1", 80, 3);
    let wireless = pcap::pcapng(127, &packets);
    files.write("wireless.pcapng", &wireless);
    let output = files.replay(&["wireless.pcapng"]);
    assert_eq!(output.stdout, "");
    output
        .failed(
            1,
            "wireless.pcapng: packet 1 was captured on a link of type 127 (802.11 wireless with radiotap)",
        )
        .unwrap();
    // A section of its own behind three good packets.
    files.write(
        "both.pcapng",
        &[pcap::pcapng(ETHERNET, &packets), wireless].concat(),
    );
    let output = files.replay(&["--json", "both.pcapng"]);
    assert_eq!(output.json().unwrap()["pass"]["packets"], 3);
    output
        .failed(1, "packet 4 was captured on a link of type 127")
        .unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let files = Files::new(SMALL);
    files.write("a.pcap", &pcap::pcap(&mixture(2000)));
    let mut child = files
        .command(&["--limit", "2000", "a.pcap"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
}

#[test]
fn lists_are_read_from_beside_the_policy() {
    let policy = format!("{SMALL}[lists.bad]\naction = \"drop\"\nfiles = [\"bad.txt\"]\n");
    let files = Files::new("version = 1\n");
    fs::create_dir(files.path("policies")).unwrap();
    files.write("policies/policy.toml", policy.as_bytes());
    files.write("policies/bad.txt", b"192.0.2.0/24\n");
    files.write("a.pcap", &pcap::pcap(&burst("192.0.2.1", 80, 5)));
    let mut command = Command::new(binary().unwrap());
    command.args(["replay", "--json", "--policy"]);
    command
        .arg(files.path("policies/policy.toml"))
        .arg(files.path("a.pcap"));
    let report = finish(&mut command, None, PATIENCE)
        .unwrap()
        .ok()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(report["services"][0]["reasons"][0]["reason"], "list");
    assert!(Path::new(report["policy"]["path"].as_str().unwrap()).is_absolute());
}
