//! A million spoofed sources, as fast as a CPU sends them, against a table of 65,536 slots: customers and newcomers do not
//! notice, a source over its limit gets no more than its limit, and memory stays what it was.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_tests::{
    daemon::Daemon,
    flood::Flood,
    frame::{Frame, SYN},
    link,
    sender::{Plan, Sender, Sent},
    site::{Site, counts, reason},
    tcp,
};

/// How many sources the flood pretends to be.
const SOURCES: u32 = 1_000_000;

/// The flood's address of a number: in 20.0.0.0/8, which nobody here has.
fn spoofed(number: u32) -> String {
    Ipv4Addr::from(0x1400_0000 + number).to_string()
}

/// The lab, with a second pair of interfaces for the flood: a pair is emptied by the CPU that sends on it.
fn lab() -> Result<Site> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    Ok(site)
}

fn start<'a>(site: &'a Site, policy: &str) -> Result<Daemon<'a>> {
    Daemon::run(&site.node, &["eth0", "eth1"], policy)
}

fn flood(site: &Site, frame: impl Fn(u32) -> Vec<u8>) -> Result<Flood> {
    let frames = (0..SOURCES).map(frame).collect();
    let plan = Plan {
        time: Duration::from_mins(2),
        ..Plan::count(u64::MAX)
    };
    Flood::start(&site.client, "eth1", frames, plan.on_cpu(1))
}

/// First SYNs without end, none of them twice: one that came again after a second would count as a newcomer's.
struct SynFlood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Sent>>,
}

impl SynFlood {
    fn start(site: &Site) -> Result<Self> {
        /// Frames of a round; between two of them the numbers are changed, which takes a fraction of their time.
        const ROUND: u32 = 50_000;
        let sender = Sender::open(&site.client, "eth1")?;
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let syn = Frame::new()
                .ip("20.0.0.0", "10.77.0.2")
                .tcp(4_000, 80, SYN)
                .build();
            let mut frames = vec![syn; ROUND as usize];
            let mut all = Sent {
                frames: 0,
                refused: 0,
                took: Duration::ZERO,
            };
            for number in (0..u32::MAX - ROUND).step_by(ROUND as usize) {
                for (frame, number) in frames.iter_mut().zip(number..) {
                    frame[27..30].copy_from_slice(&number.to_be_bytes()[1..]);
                    frame[38..42].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
                }
                if heard.load(Ordering::Relaxed) {
                    break;
                }
                let sent = sender.send(&frames, &Plan::count(u64::from(ROUND)).on_cpu(1), || {
                    heard.load(Ordering::Relaxed)
                })?;
                all.frames += sent.frames;
                all.took += sent.took;
            }
            Ok(all)
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

/// How long a newcomer needs to connect: a SYN at once, again after 1, 3 and 7 seconds.
fn newcomer(site: &Site, address: &str) -> Result<Duration> {
    site.client.address("eth0", &format!("{address}/24"))?;
    let source = SocketAddr::new(address.parse::<IpAddr>()?, 0);
    let target: SocketAddr = "10.77.0.2:80".parse()?;
    let begun = Instant::now();
    site.client
        .run(|| tcp::connect_from(source, target, Duration::from_secs(20)).map(drop))?
        .with_context(|| format!("{address} does not get through"))?;
    Ok(begun.elapsed())
}

/// Kilobytes that the controller's maps take, by the kernel's word, and that the controller itself has resident.
fn memory(weir: &Daemon<'_>) -> Result<(u64, u64)> {
    let number = |text: &str| {
        let digits = text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        digits.unwrap_or(0)
    };
    let process = format!("/proc/{}", weir.pid().context("the controller has no process")?);
    let mut maps = 0;
    for entry in fs::read_dir(format!("{process}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        maps += text
            .lines()
            .filter(|line| line.starts_with("memlock:"))
            .map(number)
            .sum::<u64>();
    }
    let status = fs::read_to_string(format!("{process}/status"))?;
    let resident = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .map_or(0, number);
    Ok((maps / 1024, resident))
}

#[test]
fn a_million_sources_disturb_nobody() -> Result<()> {
    const TIME: Duration = Duration::from_secs(30);
    // Deeper than this machine can stall a sender: a bucket that is full in the meantime would lose what refills.
    const BURST: u64 = 10_000;
    let site = lab()?;
    tcp::serve(&site.node)?;
    let service = |name: &str, port: u16| {
        format!(
            "[[service]]\nname = \"{name}\"\nprotocol = [\"tcp\", \"udp\"]\nports = [{port}]\n[service.per_source]\n\
             packets = {{ rate = 1000, burst = {BURST} }}\n"
        )
    };
    // Both services take part in the flood; the customer has one of them to himself on his interface, so that he is counted alone.
    let policy = format!(
        "version = 1\n[source]\nmax_tracked = 65536\n{}{}",
        service("web", 80),
        service("shop", 81)
    );
    let weir = start(&site, &policy)?;
    let to = |source: &str, port: u16| {
        Frame::new()
            .ip(source, "10.77.0.2")
            .udp(4_000, port)
            .payload(&[0; 18])
            .build()
    };
    let flood = flood(&site, |number| to(&spoofed(number), 80 + (number & 1) as u16))?;
    thread::sleep(Duration::from_secs(1));
    let before = memory(&weir)?;

    // Both known sources in one stream of frames: one frame of the customer to twenty of the greedy one.
    let mut frames = vec![to("10.77.0.20", 81)];
    frames.extend((0..20).map(|_| to("10.77.0.30", 80)));
    let sent =
        Sender::open(&site.client, "eth0")?.send(&frames, &Plan::rate(10_500, TIME).on_cpu(0), || false)?;
    thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let [customer, greedy] =
        ["shop", "web"].map(|service| counts(&metrics, service, &[("interface", "eth0")]));
    let allowed = 1_000.0 * sent.took.as_secs_f64() + BURST as f64;
    ensure!(
        (customer.pass, customer.drop) == (sent.frames.div_ceil(21), 0),
        "the customer: {customer:?} of {sent:?}"
    );
    ensure!(
        greedy.pass + greedy.drop == sent.frames - customer.pass
            && (greedy.pass as f64 / allowed - 1.0).abs() < 0.01,
        "the greedy source: {greedy:?} of {sent:?}, its limit is {allowed}"
    );

    let times = ["10.77.0.40", "10.77.0.41", "10.77.0.42"].map(|address| newcomer(&site, address));
    let after = memory(&weir)?;
    let overflow = weir.metrics()?.sum("weir_source_overflow_total", &[]);
    let flooded = flood.end()?;
    println!(
        "flood: {} frames, {:.0} a second; customer {customer:?}; greedy source {} of {allowed:.0}; overflow {overflow}; newcomers \
         {times:?}; memory (maps, controller) kB {before:?} -> {after:?}",
        flooded.frames,
        flooded.frames as f64 / flooded.took.as_secs_f64(),
        greedy.pass
    );
    for time in times {
        ensure!(
            time? < Duration::from_secs(8),
            "a newcomer needed more than three retries"
        );
    }
    ensure!(
        flooded.frames > u64::from(SOURCES),
        "the flood was not a million sources: {flooded:?}"
    );
    ensure!(after.0 == before.0, "the maps grew: {before:?} -> {after:?} kB");
    // The tables of what samples show fill up to their bounds (docs/memory.md).
    ensure!(
        after.1 < before.1 + 40_000,
        "the controller grew: {before:?} -> {after:?} kB"
    );
    Ok(())
}

/// A flood of first SYNs takes all that the total has for strangers. Those who ask again come before it.
#[test]
fn newcomers_get_through_a_flood_of_syns() -> Result<()> {
    const RATE: u64 = 500;
    let site = lab()?;
    tcp::serve(&site.node)?;
    let weir = start(
        &site,
        &format!(
            "version = 1\n[source]\nmax_tracked = 65536\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
             [service.total]\nconnections = {{ rate = {RATE}, burst = {RATE} }}\nreserve = \"20%\"\n"
        ),
    )?;
    let flood = SynFlood::start(&site)?;
    thread::sleep(Duration::from_secs(2));
    let newcomers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (50..70)
            .map(|last| {
                let site = &site;
                scope.spawn(move || newcomer(site, &format!("10.77.0.{last}")))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a newcomer panicked"))?)
            .collect()
    });
    let metrics = weir.metrics()?;
    let flooded = flood.end()?;
    let speed = flooded.frames as f64 / flooded.took.as_secs_f64();
    println!(
        "flood: {speed:.0} SYNs a second, {:.0} times the total; newcomers {newcomers:?}",
        speed / RATE as f64
    );
    let mut late = 0;
    for time in newcomers {
        late += usize::from(time? > Duration::from_secs(8));
    }
    ensure!(late == 0, "{late} of 20 needed more than three retries");
    ensure!(speed > 50.0 * RATE as f64, "no flood: {flooded:?}");
    ensure!(
        reason(&metrics, "web", "reserve_connections") > 0,
        "nobody met the reserve"
    );
    Ok(())
}
