//! How exact limits are: offered ten times its limit, a source gets rate × time + burst.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::{
    flood::Flood,
    frame::Frame,
    sender::Plan,
    site::{Site, counts, datagram},
};

/// Half a percent, or two packets where that is less than one.
fn close(what: &str, got: f64, expected: f64, grain: f64) -> Result<()> {
    println!("{what}: {got:.0} of {expected:.0}, ratio {:.5}", got / expected);
    ensure!(
        (got - expected).abs() <= (expected * 0.005).max(2.0 * grain),
        "{what}: got {got}, expected {expected}"
    );
    Ok(())
}

fn policy(limits: &str) -> String {
    format!("version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n{limits}\n")
}

fn source(limit: &str, frame: usize, offered: u64, seconds: u64) -> Result<(f64, f64, f64)> {
    let site = Site::new()?;
    let weir = site.weir(&policy(&format!("[service.per_source]\n{limit}")))?;
    let sent = site.send_by(
        &[datagram("10.77.0.1", frame)],
        &Plan::rate(offered, Duration::from_secs(seconds)).on_cpu(0),
    )?;
    let metrics = weir.metrics()?;
    let all = counts(&metrics, "web", &[]);
    ensure!(
        all.pass + all.drop == sent.frames,
        "{all:?} of {} packets counted",
        sent.frames
    );
    let bytes = metrics.sum("weir_bytes_total", &[("service", "web"), ("verdict", "pass")]);
    Ok((all.pass as f64, bytes, sent.took.as_secs_f64()))
}

#[test]
fn packets_100_a_second() -> Result<()> {
    let (packets, _, time) = source("packets = { rate = 100, burst = 200 }", 60, 1_000, 10)?;
    close("100/s", packets, 100.0 * time + 200.0, 1.0)
}

#[test]
fn packets_1000_a_second() -> Result<()> {
    let (packets, _, time) = source("packets = { rate = 1000, burst = 2000 }", 60, 10_000, 10)?;
    close("1,000/s", packets, 1_000.0 * time + 2_000.0, 1.0)
}

#[test]
fn packets_50000_a_second() -> Result<()> {
    let (packets, _, time) = source("packets = { rate = \"50k\", burst = \"50k\" }", 60, 500_000, 10)?;
    close("50,000/s", packets, 50_000.0 * time + 50_000.0, 1.0)
}

#[test]
fn bytes_1_megabyte_a_second() -> Result<()> {
    let (_, bytes, time) = source("bytes = { rate = \"1MB\", burst = \"1MB\" }", 1_000, 10_000, 10)?;
    close("1 MB/s", bytes, 1e6 * time + 1e6, 1_000.0)
}

#[test]
fn a_total_shared_by_two_sources_from_two_cpus() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.total]\npackets = { rate = \"20k\", burst = \"20k\" }",
    ))?;
    let plan = Plan::rate(100_000, Duration::from_secs(10));
    let floods = [0, 1].map(|cpu| {
        let frame = datagram(&format!("10.77.0.{}", 10 + cpu), 60);
        Flood::start(&site.client, "eth0", vec![frame], plan.on_cpu(cpu))
    });
    let mut time: f64 = 0.0;
    let mut sent = 0;
    for flood in floods {
        let done = flood?.wait()?;
        time = time.max(done.took.as_secs_f64());
        sent += done.frames;
    }
    std::thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let all = counts(&metrics, "web", &[]);
    println!(
        "sent {sent}, counted {all:?}, lost races {}",
        metrics.sum("weir_lost_total", &[])
    );
    close(
        "a total on two CPUs",
        all.pass as f64,
        20_000.0 * time + 20_000.0,
        1.0,
    )
}

#[test]
fn a_burst_is_admitted_exactly() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\nconnections = { rate = 1, burst = 700 }",
    ))?;
    // QUIC Initials: connections over UDP.
    let initial = Frame::new()
        .ip("10.77.0.1", "10.77.0.2")
        .quic_initial(4000, 80, 1)
        .build();
    let sent = site.send(&[initial], 5_000)?;
    let all = counts(&weir.metrics()?, "web", &[]);
    let refilled = sent.took.as_secs_f64().ceil() as u64;
    ensure!(
        (700..=700 + refilled).contains(&all.pass),
        "{all:?} after {:?}",
        sent.took
    );
    ensure!(all.pass + all.drop == 5_000, "{all:?}");
    Ok(())
}
