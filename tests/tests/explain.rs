//! `weir explain`: what it says of a packet is what the kernel then does, and it changes nothing.

#![allow(clippy::unwrap_used, reason = "tests fail where they should")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use gateway_core::{
    frame::Slice,
    hash::{Domain, Key, hash},
    parse::parse,
    verdict::Verdict,
};
use weir::{
    kernel::{BanEntry, Counter, Dataplane, Lever, TestProgram},
    policy,
};
use weir_tests::{
    bpf,
    bpffs::BpffsDir,
    frame::{ACK, Frame, QUIC_V1, SYN, TPID_8021Q},
    skip::require_root,
};

const SECOND: u64 = 1_000_000_000;

/// One policy in the kernel, attached nowhere, on a clock that the test sets.
struct Lab {
    kernel: Dataplane,
    program: TestProgram,
    now: u64,
    counted: RefCell<Vec<Counter>>,
    set: PathBuf,
    _bpffs: BpffsDir,
}

impl Lab {
    /// The clock begins at the present, so that what a lever or a policy has as its end lies on both clocks alike.
    fn new(text: &str) -> Result<Self> {
        require_root();
        let policy = policy::parse(text, Path::new("test.toml"))?.policy;
        let bpffs = BpffsDir::create()?;
        let place = bpffs.path().join("weir");
        let (mut kernel, _) = Dataplane::open(&place, &policy.source)?;
        let lists = policy::lists::contents(&policy, Path::new("/"))?;
        kernel.apply(&policy, text, &lists, &[])?;
        let now = Dataplane::now_ns();
        kernel.set_test_clock(now)?;
        let program = kernel.test_program(true)?;
        Ok(Self {
            kernel,
            program,
            now,
            counted: RefCell::default(),
            set: place.join("set-1"),
            _bpffs: bpffs,
        })
    }

    fn pass(&mut self, ns: u64) -> Result<()> {
        self.now += ns;
        Ok(self.kernel.set_test_clock(self.now)?)
    }

    /// Explains a frame and then lets the kernel judge it; they must agree. The reason, or nothing if it cannot be parsed.
    fn judge(&self, frame: &[u8]) -> Result<Option<&'static str>> {
        let Ok(packet) = parse(&Slice::whole(frame)) else {
            self.program.run(frame, 1)?;
            self.counted.replace(self.kernel.counters()?);
            return Ok(None);
        };
        let said = self.kernel.explain(&packet, self.now)?;
        let (action, _) = self.program.run(frame, 1)?;
        let dropped = action == Verdict::Drop;
        let did = self.counted_last()?;
        let verdict = said.judgement.verdict.name();
        let reason = said.judgement.reason.name();
        ensure!(
            (verdict, reason) == (did.verdict, did.reason),
            "explained as {verdict} {reason}, judged {} {}: {packet:?}\n{:#?}",
            did.verdict,
            did.reason,
            said.seen
        );
        ensure!(
            (&said.service, &said.class) == (&did.service, &did.class),
            "{}/{} was said to count it, {}/{} did",
            said.service,
            said.class,
            did.service,
            did.class
        );
        ensure!(
            dropped == (verdict == "drop"),
            "{verdict}, and dropped: {dropped}"
        );
        Ok(Some(reason))
    }

    /// Where the last frame was counted.
    fn counted_last(&self) -> Result<Counter> {
        let now = self.kernel.counters()?;
        let before = self.counted.replace(now.clone());
        let changed = now.into_iter().find(|counter| !before.contains(counter));
        changed.context("the frame was not counted")
    }

    /// Explains frames twice: the same is said of each, and every map is byte for byte what it was.
    fn unchanged(&self, frames: &[Vec<u8>]) -> Result<()> {
        let before = bpf::dump(&self.set)?;
        ensure!(
            before.len() > 30 && before["SOURCES"].len() > 5_000,
            "{:?}",
            before.keys()
        );
        for frame in frames {
            let Ok(packet) = parse(&Slice::whole(frame)) else {
                continue;
            };
            let once = self.kernel.explain(&packet, self.now)?;
            let twice = self.kernel.explain(&packet, self.now)?;
            ensure!(
                once.judgement == twice.judgement && once.seen == twice.seen,
                "asked twice, said two things: {packet:?}"
            );
        }
        let after = bpf::dump(&self.set)?;
        for (name, held) in &before {
            ensure!(after.get(name) == Some(held), "explaining changed the map {name}");
        }
        ensure!(
            after.len() == before.len(),
            "explaining pinned or removed something"
        );
        Ok(())
    }
}

/// Random numbers of a fixed seed, from the hash that is there anyway.
struct Random(u32, Key);

impl Random {
    fn new(seed: u64) -> Self {
        Self(
            0,
            Key::new([
                seed,
                !seed,
                seed ^ 0x1234_5678_9abc_def1,
                seed.rotate_left(31) | 1,
            ]),
        )
    }

    fn next(&mut self, below: usize) -> usize {
        self.0 += 1;
        (hash(&self.1, Domain::Source, 4, &[self.0, 0, 0, 0]) >> 8) as usize % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next(of.len())]
    }
}

const POLICY: &str = r#"
version = 1
[controller]
on_loss = "open"
[source]
ipv4_prefix = 28
max_tracked = 1024
[[protect]]
sources = ["10.9.0.0/16", "2001:db8:9::/48"]
ports = ["20-25", 9100]
protocol = "tcp"
[[protect]]
sources = ["10.9.1.0/24"]
protocol = "icmp"
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24", "2001:db8:bad::/48"]
[lists.good]
action = "trust"
prefixes = ["198.51.100.64/26", "192.0.2.200/29"]
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
packets = { rate = 20, burst = 9 }
bytes = { rate = "50kB", burst = "2kB" }
connections = { rate = 2, burst = 3 }
block = { for = "20s", drops = 2, within = "30s" }
[service.per_network]
ipv4_prefix = 20
packets = { rate = 10, burst = 12 }
[service.total]
packets = { rate = 150, burst = 150 }
bytes = { rate = "20kB", burst = "60kB" }
connections = { rate = 10, burst = 20 }
reserve = "40%"
[[service.class]]
name = "mobile"
lists = ["mobile"]
[service.class.per_source]
connections = { rate = 50, burst = 60 }
[service.class.total]
packets = { rate = 5, burst = 4 }
[[service]]
name = "api"
protocol = "tcp"
ports = [443]
addresses = ["203.0.113.0/25", "2001:db8::/64"]
enforce_share = "50%"
only = ["mobile", "cdn", "good"]
[service.per_source]
packets = { rate = 10, burst = 5 }
[[service]]
name = "dns"
protocol = "udp"
source_ports = [53]
[service.total]
packets = { rate = 10, burst = 5 }
[[service]]
name = "watched"
protocol = "any"
addresses = ["203.0.113.200/32"]
mode = "monitor"
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;

const ZERO_TRUST: &str = r#"
version = 1
[source]
max_tracked = 1024
[scope]
vlans = [100, 200]
addresses = ["203.0.113.0/24", "2001:db8::/32"]
[default]
action = "drop"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.total]
packets = { rate = 100, burst = 100 }
"#;

/// A frame from one of a few sources to one of a few targets.
fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.next(4) == 0;
    let (source, target) = if v6 {
        let net = random.pick(&["2001:db8:1", "2001:db8:bad", "2001:db8:9", "2001:db8:2"]);
        let source = format!("{net}:{:x}::{:x}", random.next(3), random.next(9));
        (source, random.pick(&["2001:db8::10", "2001:db8:5::1"]))
    } else {
        let net = random.pick(&[
            "192.0.2",
            "198.51.100",
            "10.9.1",
            "10.200.1",
            "10.64.8",
            "172.16.5",
        ]);
        let source = match random.next(5) {
            0 => format!("172.16.{}.{}", random.next(256), random.next(256)),
            1 => format!("192.0.2.{}", random.next(256)),
            _ => format!("{net}.{}", random.next(30)),
        };
        (
            source,
            random.pick(&["203.0.113.10", "203.0.113.200", "203.0.114.1"]),
        )
    };
    let mut frame = Frame::new();
    for _ in 0..random.pick(&[0, 0, 1, 2]) {
        frame = frame.vlan(TPID_8021Q, random.pick(&[100, 200, 300]));
    }
    if random.next(30) == 0 {
        return frame
            .ethertype(random.pick(&[0x0806, 0x88cc, 0x1234]))
            .payload(&[0; 50])
            .build();
    }
    frame = frame.ip(&source, target);
    if random.next(10) == 0 {
        frame = frame.fragment(random.pick(&[0, 0, 8, 1480]), random.next(2) == 0);
    }
    let port = random.pick(&[80, 80, 443, 8050, 22, 9100, 5353]);
    let payload = vec![0u8; random.pick(&[0, 10, 200, 900])];
    let numbers = (random.next(3) as u32, random.next(4) as u32);
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
        4 | 5 => frame.tcp(1000, port, SYN).numbers(numbers.0, numbers.1).build(),
        _ => frame
            .tcp(random.pick(&[53, 1000]), port, ACK)
            .numbers(numbers.0, numbers.1)
            .payload(&payload)
            .build(),
    }
}

/// The answer of a server to one of the clients that [`frame`] makes.
fn offer(random: &mut Random) -> Vec<u8> {
    let client = format!(
        "{}.{}",
        random.pick(&["192.0.2", "172.16.5", "10.64.8"]),
        random.next(256)
    );
    Frame::new()
        .ip("203.0.113.10", &client)
        .tcp(80, 1000, SYN | ACK)
        .numbers(random.next(3) as u32, 0)
        .build()
}

/// Something that an operator does.
fn operate(lab: &mut Lab, random: &mut Random) -> Result<()> {
    let until_ns = lab.now + SECOND * (1 + random.next(5) as u64);
    match random.next(12) {
        0 => lab.kernel.set_levers(&[Lever::Bypass {
            service: None,
            all: random.next(2) == 0,
            until_ns,
        }])?,
        1 => lab.kernel.set_levers(&[Lever::Scale {
            service: "web".into(),
            percent: random.pick(&[30, 300]),
            until_ns,
        }])?,
        2 => lab.kernel.set_levers(&[Lever::Bypass {
            service: Some("api".into()),
            all: false,
            until_ns,
        }])?,
        3 => lab.kernel.set_levers(&[])?,
        4 => lab.kernel.set_open_at(random.pick(&[0, until_ns]))?,
        5 | 6 => {
            let prefix = random.pick(&["192.0.2.0/26", "2001:db8:1::/64", "172.16.5.128/25"]);
            let service = random.pick(&[None, Some("web")]);
            let ban = BanEntry {
                prefix: prefix.parse()?,
                service: service.map(str::to_owned),
                until_ns,
            };
            lab.kernel.change_bans(&[ban], &[])?;
        }
        7 => {
            // Another rate for a while: what is owed is converted.
            let text = POLICY.replace(
                "rate = 20, burst = 9",
                random.pick(&["rate = 5, burst = 30", "rate = 20, burst = 9"]),
            );
            let policy = policy::parse(&text, Path::new("test.toml"))?.policy;
            let lists = policy::lists::contents(&policy, Path::new("/"))?;
            lab.kernel.apply(&policy, &text, &lists, &[])?;
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn what_is_explained_is_what_the_kernel_does() -> Result<()> {
    let mut lab = Lab::new(POLICY)?;
    let mut random = Random::new(1);
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..200 {
        let ns = match random.next(60) {
            0 => 3_600 * SECOND,
            1..=3 => 3 * SECOND,
            _ => random.next(20_000_000) as u64,
        };
        lab.pass(ns)?;
        operate(&mut lab, &mut random)?;
        for _ in 0..random.next(4) {
            lab.program.leaves(&offer(&mut random), 1)?;
        }
        let frames: Vec<Vec<u8>> = (0..25).map(|_| frame(&mut random)).collect();
        if round % 30 == 0 {
            lab.unchanged(&frames)?;
        }
        for frame in &frames {
            if let Some(reason) = lab.judge(frame)? {
                *reasons.entry(reason).or_default() += 1;
            }
        }
    }
    for reason in [
        "pass",
        "protect",
        "trust",
        "bypass",
        "ban",
        "list",
        "block",
        "source_packets",
        "source_bytes",
        "source_connections",
        "network_packets",
        "class_packets",
        "total_packets",
        "reserve_packets",
        "reserve_connections",
    ] {
        ensure!(
            reasons.contains_key(reason),
            "no packet was judged {reason}: {reasons:?}"
        );
    }
    Ok(())
}

#[test]
fn scope_default_and_sockets() -> Result<()> {
    let mut lab = Lab::new(ZERO_TRUST)?;
    let mut random = Random::new(2);
    let mut reasons = BTreeSet::new();
    for _ in 0..40 {
        lab.pass(random.next(20_000_000) as u64)?;
        let frames: Vec<Vec<u8>> = (0..20).map(|_| frame(&mut random)).collect();
        for frame in &frames {
            reasons.extend(lab.judge(frame)?);
        }
    }
    // Test-run looks up sockets in this thread's network namespace.
    let everything = ZERO_TRUST.replace(
        "[scope]\nvlans = [100, 200]\naddresses = [\"203.0.113.0/24\", \"2001:db8::/32\"]\n",
        "",
    );
    let lab = Lab::new(&everything)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (near, far) = (stream.local_addr()?.port(), listener.local_addr()?.port());
    let segment = |from, to| {
        Frame::new()
            .ip("127.0.0.1", "127.0.0.1")
            .tcp(from, to, ACK)
            .build()
    };
    ensure!(
        lab.judge(&segment(far, near))? == Some("reply"),
        "it answers the socket"
    );
    ensure!(
        lab.judge(&segment(far, near ^ 1))? == Some("default_drop"),
        "it answers none"
    );
    ensure!(
        lab.judge(&segment(4, far))? == Some("default_drop"),
        "a listener is not answered"
    );
    lab.unchanged(&[segment(far, near)])?;
    for reason in ["out_of_scope", "essential", "default_drop", "pass"] {
        ensure!(
            reasons.contains(reason),
            "no packet was judged {reason}: {reasons:?}"
        );
    }
    Ok(())
}

#[test]
fn a_policy_that_waits_is_explained_until_its_time_is_over() -> Result<()> {
    let mut lab = Lab::new(POLICY)?;
    let strict = POLICY.replace("rate = 20, burst = 9", "rate = 1, burst = 1");
    let strict = strict.replace("name = \"web\"", "name = \"shop\"");
    let policy = policy::parse(&strict, Path::new("test.toml"))?.policy;
    let lists = policy::lists::contents(&policy, Path::new("/"))?;
    let until_ns = lab.now + 600 * SECOND;
    lab.kernel
        .apply_until(&policy, &strict, &lists, &[], Some(until_ns))?;
    let packet = Frame::new()
        .ip("172.16.5.9", "203.0.114.1")
        .tcp(1000, 80, ACK)
        .build();
    let parsed = parse(&Slice::whole(&packet)).unwrap();
    ensure!(lab.judge(&packet)? == Some("pass"), "one passes");
    ensure!(lab.judge(&packet)? == Some("source_packets"), "and no more");
    ensure!(
        // The kernel keeps a time down to 32 ns.
        lab.kernel.explain(&parsed, until_ns - 32)?.service == "shop",
        "the one that waits"
    );
    ensure!(
        lab.kernel.explain(&parsed, until_ns)?.service == "web",
        "the one before it"
    );
    lab.pass(601 * SECOND)?;
    for _ in 0..5 {
        ensure!(lab.judge(&packet)? == Some("pass"), "the kernel has gone back");
    }
    Ok(())
}

#[test]
fn what_is_left_is_what_the_kernel_admits() -> Result<()> {
    let text = r#"
version = 1
[source]
max_tracked = 1024
[lists.mobile]
prefixes = ["10.64.0.0/10"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 500 }
[service.per_network]
packets = { rate = 1, burst = 5000 }
bytes = { rate = "1kB", burst = "1MB" }
[service.total]
packets = { rate = 1, burst = 100000 }
[[service.class]]
name = "mobile"
lists = ["mobile"]
[service.class.total]
packets = { rate = 1, burst = 700 }
"#;
    let mut lab = Lab::new(text)?;
    let program = lab.kernel.test_program(false)?;
    let frame = Frame::new()
        .ip("192.0.2.1", "203.0.113.1")
        .udp(1, 80)
        .pad_to(100)
        .build();
    program.run(&frame, 120)?;
    let left = |source: &str| -> Result<BTreeMap<String, (u64, u64)>> {
        let found = lab.kernel.left(source.parse()?, "web")?;
        Ok(found
            .into_iter()
            .map(|bucket| {
                (
                    format!("{} {}", bucket.tier, bucket.kind),
                    (bucket.left, bucket.burst),
                )
            })
            .collect())
    };
    // A few seconds may pass, and each refills one packet.
    let near = |(left, burst): (u64, u64), expected: u64, of: u64| {
        (expected..expected + 20).contains(&left) && burst == of
    };
    let own = left("192.0.2.1")?;
    ensure!(own.len() == 4, "{own:?}");
    ensure!(near(own["per_source packets"], 380, 500), "{own:?}");
    ensure!(near(own["per_network packets"], 4880, 5000), "{own:?}");
    ensure!(
        (988_000..1_000_000).contains(&own["per_network bytes"].0),
        "{own:?}"
    );
    ensure!(near(own["total packets"], 99_880, 100_000), "{own:?}");
    let neighbour = left("192.0.2.2")?;
    ensure!(neighbour["per_source packets"] == (500, 500), "{neighbour:?}");
    ensure!(
        near(neighbour["per_network packets"], 4880, 5000),
        "{neighbour:?}"
    );
    let class = left("10.64.0.1")?;
    ensure!(
        class.len() == 2 && class["class_total packets"] == (700, 700),
        "{class:?}"
    );
    ensure!(
        lab.kernel.left("192.0.2.1".parse()?, "nobody").is_err(),
        "no such service"
    );
    // Exactly so many are admitted.
    let (mut admitted, most) = (0, own["per_source packets"].0);
    for _ in 0..600 {
        admitted += u64::from(program.run(&frame, 1)?.0 == Verdict::Pass);
    }
    ensure!((most..most + 20).contains(&admitted), "{admitted} of {most}");
    Ok(())
}
