//! What goes on without a controller: a hundred kills under traffic, and an upgrade that cannot use what is pinned.

use std::{
    collections::BTreeMap,
    io,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use gateway_core::image::{CONTROLS, Control};
use nix::sys::signal::Signal;
use weir_tests::{
    bpf::{
        self,
        program::{Kind, Map},
    },
    flood::Flood,
    frame::{Frame, SYN},
    metrics::{Labels, Metrics},
    sender::{Plan, Sent},
    site::{Site, counts, reason},
};

/// Each service has one kind of verdict, so that what a packet must get is known.
const POLICY: &str = r#"
version = 1
[[protect]]
sources = ["10.9.0.0/28"]
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "banned"
protocol = "udp"
ports = [80]
[[service]]
name = "listed"
protocol = "udp"
ports = [81]
[[service]]
name = "roomy"
protocol = "udp"
ports = [82]
[service.per_source]
packets = { rate = "1M", burst = "1M" }
[[service]]
name = "over"
protocol = "udp"
ports = [83]
[service.per_source]
packets = { rate = 1000, burst = 10000 }
[[service]]
name = "blocked"
protocol = "tcp"
ports = [84]
[service.per_source]
connections = { rate = 1, burst = 1 }
block = { for = "1h", drops = 5, within = "1m" }
[[service]]
name = "managed"
protocol = "udp"
ports = [85]
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;

/// One frame a service, in the order of [`SERVICES`].
fn frames() -> Vec<Vec<u8>> {
    [
        ("192.0.2.66", 80),
        ("198.51.100.7", 81),
        ("192.0.2.2", 82),
        ("192.0.2.3", 83),
        ("192.0.2.4", 84),
        ("10.9.0.1", 85),
    ]
    .map(|(source, port)| {
        let frame = Frame::new().ip(source, "10.77.0.2");
        if port == 84 {
            frame.tcp(4000, port, SYN).build()
        } else {
            frame.udp(4000, port).payload(&[0; 18]).build()
        }
    })
    .to_vec()
}

const SERVICES: [&str; 6] = ["banned", "listed", "roomy", "over", "blocked", "managed"];

/// Every counter of packets, bytes and losses.
fn counters(metrics: &Metrics) -> BTreeMap<(String, Labels), u64> {
    let names: Vec<&str> = metrics.names().filter(|name| name.ends_with("_total")).collect();
    names
        .into_iter()
        .flat_map(|name| {
            metrics
                .matching(name, &[])
                .map(move |(labels, value)| ((name.to_owned(), labels.clone()), value as u64))
        })
        .collect()
}

/// No counter is smaller than before, and none is missing.
fn only_risen(before: &BTreeMap<(String, Labels), u64>, now: &BTreeMap<(String, Labels), u64>) -> Result<()> {
    for (series, old) in before {
        let new = now.get(series).with_context(|| format!("{series:?} is gone"))?;
        ensure!(new >= old, "{series:?} went back from {old} to {new}");
    }
    Ok(())
}

/// Every packet that was sent got what an undisturbed Weir gives it.
fn all_explained(metrics: &Metrics, sent: &Sent) -> Result<()> {
    let offered = sent.frames + sent.refused;
    let mut total = 0;
    for (at, service) in (0u64..).zip(SERVICES) {
        let all = counts(metrics, service, &[]);
        let turns = (offered + 5 - at) / 6;
        total += all.pass + all.drop;
        // A frame that the interface refused was one of any service.
        ensure!(
            (turns - sent.refused.min(turns)..=turns).contains(&(all.pass + all.drop)),
            "{service}: {all:?}, not {turns}"
        );
        let exactly = |passes: u64| {
            ensure!(all.pass == passes, "{service}: {all:?}");
            Ok(())
        };
        match service {
            "banned" | "listed" => exactly(0)?,
            "roomy" | "managed" => exactly(all.pass + all.drop)?,
            // One of the burst, and what a second refilled before the fifth refusal.
            "blocked" => ensure!((1..=2).contains(&all.pass), "{service}: {all:?}"),
            _ => {
                let expected = 1000.0 * sent.took.as_secs_f64() + 10_000.0;
                ensure!(
                    (all.pass as f64 - expected).abs() <= expected * 0.005 + 2.0,
                    "{service}: passed {} of {expected:.0}",
                    all.pass
                );
            }
        }
    }
    ensure!(
        total == sent.frames,
        "{total} counted, {} sent: {:?}",
        sent.frames,
        SERVICES.map(|service| counts(metrics, service, &[]))
    );
    ensure!(
        reason(metrics, "banned", "ban") > 0 && reason(metrics, "banned", "pass") == 0,
        "banned all along"
    );
    ensure!(reason(metrics, "blocked", "block") > 0, "the block started");
    Ok(())
}

/// Half of the kills hit a controller that runs, half one that is still starting, at moments spread over a start.
#[test]
fn a_hundred_kills_under_traffic_change_no_verdict() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.66"])?.ok()?;
    let begun = Instant::now();
    let flood = Flood::start(
        &site.client,
        "eth0",
        frames(),
        Plan::rate(18_000, Duration::from_mins(5)).relaxed(),
    )?;
    let (mut before, mut early) = (counters(&weir.metrics()?), 0);
    let span = weir.ready_after();
    for round in 0..50 {
        weir.stop_with(Signal::SIGKILL)?;
        weir.launch()?;
        thread::sleep(span * round / 50);
        if weir.poll_exit()?.is_none() {
            weir.stop_with(Signal::SIGKILL)?;
            early += 1;
        }
        ensure!(site.node.xdp("eth0")?.is_some(), "round {round}: not attached");
        weir.start().with_context(|| format!("round {round}"))?;
        let now = counters(&weir.metrics()?);
        only_risen(&before, &now).with_context(|| format!("round {round}"))?;
        before = now;
    }
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    println!(
        "50 kills of a running controller, {early} of a starting one (a start takes {span:?}), {} packets in {:?}",
        sent.frames,
        begun.elapsed()
    );
    ensure!(early == 50, "{} ended by themselves", 50 - early);
    let metrics = weir.metrics()?;
    all_explained(&metrics, &sent)?;
    only_risen(&before, &counters(&metrics))?;
    let bans = weir.cli(&["bans"])?.ok()?.stdout;
    ensure!(bans.contains("192.0.2.66"), "{bans}");
    Ok(())
}

/// The pinned maps are of another version: they are replaced, with the programs, in one step for each interface. Bans and
/// lists go on, buckets and counters begin anew, and both the log and the status say so.
#[test]
fn state_of_another_version_is_replaced_without_a_gap() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.66"])?.ok()?;
    weir.cli(&["list", "add", "bad", "203.0.113.0/24"])?.ok()?;
    site.send(&frames(), 600)?;
    let before = weir.metrics()?;
    ensure!(
        counts(&before, "banned", &[]).drop == 100 && counts(&before, "listed", &[]).drop == 100,
        "enforced before"
    );
    // Whatever of this passes was not judged: a ban and a list drop all of it, before, during and after.
    let heard = Listener::open(&site)?;
    let dropped = ["192.0.2.66", "198.51.100.7", "203.0.113.9"].map(|source| heard.frame(source));
    let flood = Flood::start(
        &site.client,
        "eth0",
        dropped.to_vec(),
        Plan::rate(20_000, Duration::from_mins(1)),
    )?;
    thread::sleep(Duration::from_millis(100));
    weir.stop_with(Signal::SIGKILL)?;
    let control = weir.bpffs_path().join("set-1/CONTROL");
    bpf::set_word::<{ CONTROLS as usize }>(&control, Control::Abi as usize, 999_999)?;
    weir.start()?;
    thread::sleep(Duration::from_millis(200));
    let sent = flood.end()?;
    ensure!(sent.frames > 2_000, "{sent:?}");
    ensure!(!heard.any()?, "a packet that is banned or listed came through");
    ensure!(
        std::fs::read_dir(weir.bpffs_path())?.count() == 2,
        "one set of maps, and the links"
    );
    for text in [weir.log(), weir.cli(&["status"])?.stdout] {
        for word in ["another version", "buckets", "counters", "levers"] {
            ensure!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
    // The replaced state is no fault: the node is held to its policy.
    weir.cli(&["status"])?.ok()?;
    let metrics = weir.metrics()?;
    let default = counts(&metrics, "default", &[]);
    // Nothing of the flood was heard; what hosts ask each other (ARP, neighbour discovery) passes, now and then.
    ensure!(default.pass < 10 && default.drop > 0, "{default:?}");
    // Its next start finds its own maps, and says nothing.
    weir.stop_with(Signal::SIGTERM)?;
    weir.start()?;
    let status = weir.cli(&["status"])?.ok()?;
    ensure!(!status.stdout.contains("another version"), "{status:?}");
    Ok(())
}

/// Versions until ABI 9 had a control table of another shape, an element a word.
#[test]
fn a_control_table_of_another_shape_is_another_version() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.66"])?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    let control = weir.bpffs_path().join("set-1/CONTROL");
    std::fs::remove_file(&control)?;
    Map::create(Kind::Array, 4, 8, CONTROLS)?.pin(&control)?;
    bpf::set_word::<1>(&control, Control::Abi as usize, 9)?;
    weir.start()?;
    let log = weir.log();
    ensure!(log.contains("another version of weir (ABI 9, not "), "{log}");
    let bans = weir.cli(&["bans"])?.ok()?.stdout;
    ensure!(bans.contains("192.0.2.66"), "{bans}");
    weir.cli(&["status"])?.ok()?;
    Ok(())
}

/// A socket of the node that hears what passes to port 4000.
struct Listener {
    socket: UdpSocket,
    mac: [u8; 6],
}

impl Listener {
    fn open(site: &Site) -> Result<Self> {
        // Sources that no route leads back to would be dropped by the node itself, and then nothing would prove anything.
        for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"] {
            site.node.sysctl(key, "0")?;
        }
        site.node.route("default", "10.77.0.1".parse()?)?;
        let socket = site.node.run(|| UdpSocket::bind("10.77.0.2:4000"))??;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            mac: site.node.mac("eth0")?,
        })
    }

    fn frame(&self, source: &str) -> Vec<u8> {
        Frame::new()
            .ip(source, "10.77.0.2")
            .macs([2, 0, 0, 0, 0, 1], self.mac)
            .udp(4000, 4000)
            .payload(&[0; 18])
            .build()
    }

    /// Whether anything came.
    fn any(&self) -> Result<bool> {
        match self.socket.recv(&mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// The listener hears what passes: else the test above could not fail.
#[test]
fn the_listener_hears_what_is_not_dropped() -> Result<()> {
    let site = Site::new()?;
    let heard = Listener::open(&site)?;
    site.send(&[heard.frame("203.0.113.9")], 3)?;
    ensure!(heard.any()?, "it hears nothing");
    Ok(())
}
