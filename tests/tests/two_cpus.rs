//! Limits that two CPUs run into at the same moment. One veth has one receive queue, which one CPU empties at a time;
//! so each CPU here sends on an interface of its own, and the programs on both really race for one bucket.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use weir_tests::{
    daemon::Daemon,
    link,
    metrics::Metrics,
    sender::{Plan, Sender, Sent},
    site::{Counts, Site, counts, datagram},
};

/// How long both CPUs send, each as fast as it can.
const TIME: Duration = Duration::from_secs(10);

fn site() -> Result<Site> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    Ok(site)
}

fn policy(limit: &str) -> String {
    format!("version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n{limit}\n")
}

/// Sends from CPU 0 on `eth0` and from CPU 1 on `eth1`, each a source of its own or both the same. Returns what was
/// sent and the time from the first frame on either to the last on either.
fn both_at_once(site: &Site, sources: [&str; 2]) -> Result<([Sent; 2], Duration)> {
    let plan = Plan {
        time: TIME,
        ..Plan::count(u64::MAX)
    };
    let senders = [
        Sender::open(&site.client, "eth0")?,
        Sender::open(&site.client, "eth1")?,
    ];
    let frames = sources.map(|source| [datagram(source, 60)]);
    let start = Instant::now();
    let sent = thread::scope(|scope| {
        [0, 1]
            .map(|cpu| {
                let (sender, frames) = (&senders[cpu], &frames[cpu]);
                scope.spawn(move || sender.send(frames, &plan.on_cpu(cpu), || false))
            })
            .map(|thread| thread.join().map_err(|_| anyhow!("a sender panicked"))?)
    });
    let took = start.elapsed();
    let [first, second] = sent;
    let sent = [first?, second?];
    thread::sleep(Duration::from_millis(50));
    let least = sent[0].took.max(sent[1].took);
    ensure!(
        took.saturating_sub(least) < Duration::from_millis(200),
        "the two did not overlap: {sent:?} within {took:?}"
    );
    Ok((sent, took))
}

/// Both interfaces must have been busy, or nothing raced; and every packet that was sent must have been judged, but for
/// those that the veth itself says it lost before Weir (its ring is short, and the machine may be busy with others).
fn per_interface(site: &Site, metrics: &Metrics, sent: &[Sent; 2]) -> Result<[Counts; 2]> {
    let devices = ["eth0", "eth1"];
    let both = devices.map(|name| counts(metrics, "web", &[("interface", name)]));
    for ((device, counted), sent) in devices.iter().zip(&both).zip(sent) {
        let lost = site.client.stats(device)?.tx_dropped;
        let judged = counted.pass + counted.drop;
        ensure!(
            (sent.frames.saturating_sub(lost)..=sent.frames).contains(&judged),
            "{device}: {counted:?} of {sent:?}, {lost} lost on the way: counted is not received"
        );
        ensure!(
            counted.pass > 0 && counted.drop > 0,
            "{both:?}: one CPU had all or nothing, so they did not share"
        );
    }
    Ok(both)
}

fn exact(what: &str, limit: &str, sources: [&str; 2], rate: f64, burst: f64) -> Result<()> {
    let site = site()?;
    let weir = Daemon::run(&site.node, &["eth0", "eth1"], &policy(limit))?;
    let (sent, took) = both_at_once(&site, sources)?;
    let metrics = weir.metrics()?;
    let both = per_interface(&site, &metrics, &sent)?;
    let passed = (both[0].pass + both[1].pass) as f64;
    let expected = rate * took.as_secs_f64() + burst;
    let offered = (sent[0].frames + sent[1].frames) as f64 / took.as_secs_f64();
    println!(
        "{what}: offered {offered:.0}/s on two CPUs, passed {passed:.0} of {expected:.0}, ratio {:.5}; {both:?}",
        passed / expected
    );
    ensure!(offered > rate * 3.0, "{what}: only {offered:.0}/s were offered");
    ensure!(
        (passed - expected).abs() <= expected * 0.005,
        "{what}: passed {passed}, expected {expected}"
    );
    Ok(())
}

#[test]
fn one_source_on_two_interfaces_has_one_bucket() -> Result<()> {
    exact(
        "one source",
        "[service.per_source]\npackets = { rate = \"20k\", burst = \"20k\" }",
        ["192.0.2.1", "192.0.2.1"],
        20_000.0,
        20_000.0,
    )
}

#[test]
fn two_sources_share_a_total() -> Result<()> {
    exact(
        "a total of two sources",
        "[service.total]\npackets = { rate = \"20k\", burst = \"20k\" }",
        ["192.0.2.1", "198.51.100.1"],
        20_000.0,
        20_000.0,
    )
}

#[test]
fn two_sources_share_a_network() -> Result<()> {
    exact(
        "a network of two sources",
        "[service.per_network]\nipv4_prefix = 24\npackets = { rate = \"20k\", burst = \"20k\" }",
        ["192.0.2.1", "192.0.2.200"],
        20_000.0,
        20_000.0,
    )
}

/// A burst that nothing refills is the sharpest count of all: a single lost update would show.
#[test]
fn a_burst_raced_for_is_admitted_exactly() -> Result<()> {
    let site = site()?;
    let limit = "[service.total]\npackets = { rate = 1, burst = 500_000 }";
    let weir = Daemon::run(&site.node, &["eth0", "eth1"], &policy(limit))?;
    let (sent, took) = both_at_once(&site, ["192.0.2.1", "198.51.100.1"])?;
    let both = per_interface(&site, &weir.metrics()?, &sent)?;
    let passed = both[0].pass + both[1].pass;
    let refilled = took.as_secs() + 1;
    println!("a burst of 500,000: passed {passed}, {both:?}");
    ensure!(
        (500_000..=500_000 + refilled).contains(&passed),
        "passed {passed}: {both:?}"
    );
    Ok(())
}
