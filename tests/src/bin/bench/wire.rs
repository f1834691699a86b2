//! End to end: frames of our own over a veth to a node with a filter, and what its CPU spends on them.
//!
//! The frames come from a program that the kernel runs on live frames, on one CPU; the node receives them in a thread of
//! its own (threaded NAPI) on the other, so that the thread's CPU time is what driver, filter and stack cost, and
//! nothing of what making the frames costs. What passes goes up to a UDP socket whose buffer is full.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::socket::{setsockopt, sockopt::RcvBuf},
    unistd::Pid,
};
use weir_tests::{
    bpf::program::Program,
    cpus::{keep_on, stay_on},
    frame::Frame,
    link,
    netns::Netns,
};

use crate::{
    filters::{Filter, Hold, Limit},
    programs,
    table::{Cell, Figures, Table},
};

/// Frames that are made at a time.
const BATCH: u32 = 64;
/// Frames of one call, which takes milliseconds before its first.
const CALL: u32 = 2_048 * BATCH;
/// So many frames at least, or a turn says nothing.
const FEWEST: f64 = 1_000.0;
/// How often a turn is taken that says nothing.
const TRIES: u32 = 4;
/// Where frames are made, and where they are received.
const MAKER: usize = 0;
const RECEIVER: usize = 1;
/// Sources: how they are called, the first, and the bits that are drawn.
const SOURCES: [(&str, u32, u32); 3] = [
    ("1", 0x1400_0001, 0),
    ("1,024", 0x1401_0000, 0x3ff),
    ("1,048,576", 0x1500_0000, 0xf_ffff),
];

/// Two namespaces and a veth between them, before a filter is there.
struct Place {
    filter: Filter,
    limit: Limit,
    maker: Netns,
    node: Netns,
    dev: String,
    frame: Vec<u8>,
    programs: Vec<Program>,
    _socket: UdpSocket,
}

/// What one turn came to.
struct Turn {
    /// Nanoseconds of CPU a frame.
    ns: f64,
    /// The share that came to the socket.
    passed: f64,
}

impl Place {
    fn new(filter: Filter, limit: Limit, number: usize) -> Result<Self> {
        let (maker, node) = (Netns::create("maker")?, Netns::create("wire")?);
        // The kernel's thread carries the interface's name, of which old kernels show the first ten letters, and must be
        // found among those of other runs.
        let dev = format!("{:x}w{number:02}", std::process::id());
        link::veth((&maker, "out"), (&node, &dev))?;
        for netns in [&maker, &node] {
            for key in ["all", "default"] {
                netns.sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), "0")?;
            }
        }
        node.sysctl(&format!("net.ipv4.conf.{dev}.rp_filter"), "0")?;
        node.address(&dev, "10.77.0.2/24")?;
        node.neighbour(&dev, "10.77.0.1".parse()?, [2, 0, 0, 0, 0, 1])?;
        node.route("default", "10.77.0.1".parse()?)?;
        // A veth takes redirected frames at an end that builds super-frames or has an XDP program.
        maker.gro("out", true)?;
        node.gro(&dev, true)?;
        let frame = frame(node.mac(&dev)?);
        let ifindex = maker.ifindex("out")?;
        let programs = SOURCES
            .iter()
            .map(|(_, base, mask)| programs::generator(ifindex, *base, *mask, &frame))
            .collect::<Result<_>>()?;
        let socket = node.run(|| UdpSocket::bind("10.77.0.2:80"))??;
        setsockopt(&socket, RcvBuf, &1)?;
        Ok(Self {
            filter,
            limit,
            maker,
            node,
            dev,
            frame,
            programs,
            _socket: socket,
        })
    }

    /// Makes the interface receive in a thread of its own, on its CPU; the thread.
    fn receiver(&self) -> Result<Pid> {
        self.node.threaded_napi(&self.dev, true)?;
        let name = format!("napi/{}-", self.dev);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            for entry in fs::read_dir("/proc")?.flatten() {
                let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                let pid = entry.file_name().to_str().and_then(|text| text.parse().ok());
                if let (true, Some(pid)) = (comm.starts_with(&name), pid) {
                    let pid = Pid::from_raw(pid);
                    keep_on(pid, RECEIVER)?;
                    return Ok(pid);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("no thread {name}… came to receive")
    }

    /// Sends for a while from so many sources, and says what that cost. A turn to which hardly a frame came says nothing, as when the
    /// receiving CPU of a virtual machine stood still meanwhile: it is taken again.
    fn turn(&self, receiver: Pid, sources: usize, time: Duration) -> Result<Turn> {
        for _ in 0..TRIES {
            if let Some(turn) = self.try_turn(receiver, sources, time)? {
                return Ok(turn);
            }
        }
        bail!(
            "hardly a frame came to {} in {TRIES} turns in a row",
            self.filter.name()
        )
    }

    /// Nothing where hardly a frame came.
    fn try_turn(&self, receiver: Pid, sources: usize, time: Duration) -> Result<Option<Turn>> {
        let before = (
            cpu_time(receiver)?,
            self.node.stats(&self.dev)?.rx_packets,
            self.delivered()?,
        );
        self.maker.run(|| -> Result<()> {
            stay_on(MAKER)?;
            let start = Instant::now();
            while start.elapsed() < time {
                self.programs[sources].run_live(&self.frame, CALL, BATCH)?;
            }
            Ok(())
        })??;
        // What still lies in the ring.
        thread::sleep(Duration::from_millis(10));
        let after = (
            cpu_time(receiver)?,
            self.node.stats(&self.dev)?.rx_packets,
            self.delivered()?,
        );
        let frames = (after.1 - before.1) as f64;
        Ok((frames >= FEWEST).then(|| Turn {
            ns: (after.0 - before.0) as f64 / frames,
            passed: (after.2 - before.2) as f64 / frames,
        }))
    }

    /// Datagrams that came to the socket, whether it had room for them or not.
    fn delivered(&self) -> Result<u64> {
        let text = self
            .node
            .run(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            bail!("the kernel counts no datagrams");
        };
        let found: BTreeMap<&str, u64> = names
            .split_whitespace()
            .zip(values.split_whitespace().filter_map(|value| value.parse().ok()))
            .collect();
        Ok(found.get("InDatagrams").copied().unwrap_or(0) + found.get("InErrors").copied().unwrap_or(0))
    }
}

/// A frame of 60 bytes to the node's port 80, without source and without checksums: the program fills them in.
fn frame(target: [u8; 6]) -> Vec<u8> {
    let mut frame = Frame::new()
        .ip("0.0.0.0", "10.77.0.2")
        .udp(4_000, 80)
        .payload(&[0; 18])
        .build();
    frame[..6].copy_from_slice(&target);
    for at in [24, 25, 40, 41] {
        frame[at] = 0;
    }
    frame
}

/// Nanoseconds that a thread has run.
fn cpu_time(pid: Pid) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

/// Every filter that is there, under one limit.
struct Case {
    place: usize,
    sources: usize,
    ns: Figures,
    passed: Figures,
}

/// What the last table asks for: the median of nanoseconds, by limit, filter and sources.
pub(crate) type Medians = BTreeMap<(&'static str, &'static str, &'static str), f64>;

fn word(limit: Limit) -> &'static str {
    match limit {
        Limit::Over => "dropped",
        Limit::Within => "passed",
    }
}

/// Measures every filter, in turns.
pub(crate) fn measure(rounds: usize, time: Duration) -> Result<(Vec<Table>, Medians)> {
    ensure!(
        thread::available_parallelism()?.get() > RECEIVER,
        "frames are made on one CPU and received on another: two are needed"
    );
    let mut left_out: Vec<String> = Filter::ALL
        .iter()
        .filter_map(|filter| filter.left_out())
        .collect();
    let mut places = Vec::new();
    for filter in Filter::ALL
        .into_iter()
        .filter(|filter| filter.left_out().is_none())
    {
        for limit in [Limit::Over, Limit::Within] {
            if (0..SOURCES.len()).any(|sources| asked(filter, limit, sources)) {
                places.push(Place::new(filter, limit, places.len())?);
            }
        }
    }
    let mut held: Vec<Option<(Hold<'_>, Pid)>> = Vec::new();
    for place in &places {
        let ready = place
            .filter
            .install(&place.node, &place.dev, place.limit, "20.0.0.1")
            .and_then(|hold| Ok((hold, place.receiver()?)));
        match ready {
            Ok(ready) => held.push(Some(ready)),
            // Weir must be there; of the others the kernel may not have every part.
            Err(error)
                if !matches!(
                    place.filter,
                    Filter::Weir | Filter::Blind | Filter::Nothing | Filter::Bare
                ) =>
            {
                left_out.push(format!("{}: {error:#}", place.filter.name()));
                held.push(None);
            }
            Err(error) => return Err(error),
        }
    }
    let mut cases = Vec::new();
    for sources in 0..SOURCES.len() {
        for (at, place) in places.iter().enumerate() {
            if held[at].is_some() && asked(place.filter, place.limit, sources) {
                cases.push(Case {
                    place: at,
                    sources,
                    ns: Figures::default(),
                    passed: Figures::default(),
                });
            }
        }
    }
    // The first round fills tables and caches, and is not counted.
    for round in 0..=rounds {
        for case in &mut cases {
            let Some((_, receiver)) = &held[case.place] else {
                continue;
            };
            let turn =
                places[case.place].turn(*receiver, case.sources, if round == 0 { time * 2 } else { time })?;
            if round > 0 {
                case.ns.push(turn.ns);
                case.passed.push(turn.passed * 100.0);
            }
        }
    }
    for place in &places {
        place.filter.remove(&place.node, &place.dev);
    }
    Ok(told(&places, &cases, &left_out))
}

/// Whether it is measured: from one source nothing passes that is within ten thousand a second.
fn asked(filter: Filter, limit: Limit, sources: usize) -> bool {
    let one = SOURCES[sources].2 == 0;
    filter.serves(limit, SOURCES[sources].2 + 1) && !(limit == Limit::Within && one)
}

fn told(places: &[Place], cases: &[Case], left_out: &[String]) -> (Vec<Table>, Medians) {
    let mut medians = Medians::new();
    let mut tables = Vec::new();
    let columns = [
        ("cpu_ns", "CPU ns a packet"),
        ("per_core", "packets a second of one core"),
        ("passed_percent", "passed, %"),
    ];
    for (limit, key, title) in [
        (
            Limit::Over,
            "wire_dropped",
            "End to end, over the limit: all dropped",
        ),
        (
            Limit::Within,
            "wire_passed",
            "End to end, within the limit: all passed, to a socket",
        ),
    ] {
        let mut table = Table::new(key, title, &columns);
        for case in cases {
            let place = &places[case.place];
            let sources = SOURCES[case.sources].0;
            let Some(spread) = case.ns.spread().filter(|_| place.limit == limit) else {
                continue;
            };
            medians.insert((word(limit), place.filter.name(), sources), spread.median);
            let noun = if sources == "1" { "source" } else { "sources" };
            table.row(
                format!("{sources} {noun}: {}", place.filter.name()),
                vec![
                    Cell::Spread(spread, 0),
                    Cell::Number(1e9 / spread.median, 0),
                    Cell::Number(case.passed.spread().map_or(0.0, |passed| passed.median), 2),
                ],
            );
        }
        if limit == Limit::Within {
            table
                .notes
                .extend(left_out.iter().map(|what| format!("Left out: {what}.")));
        }
        tables.push(table);
    }
    (tables, medians)
}
