//! What a running controller estimates from samples of real packets, and that the ring keeps up.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{command::patience, daemon::Daemon, flood::Flood, frame::Frame, sender::Plan, site::Site};

const POLICY: &str = r#"
version = 1
[sampling]
one_in = 20
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[[service]]
name = "tight"
protocol = "udp"
ports = [81]
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;

fn datagram(source: &str, port: u16, target: u16) -> Vec<u8> {
    let frame = Frame::new().ip(source, "10.77.0.2").udp(port, target);
    frame.payload(&[0; 58]).build()
}

fn json(weir: &Daemon<'_>, args: &[&str]) -> Result<Value> {
    let output = weir.cli(args)?;
    ensure!(output.code == 0, "{args:?}: {}", output.stderr);
    Ok(serde_json::from_str(&output.stdout)?)
}

/// The reader looks ten times a second; this is three looks.
fn settle() {
    thread::sleep(patience(Duration::from_millis(300)));
}

#[test]
fn flows_and_sources_are_estimated_within_their_errors() -> Result<()> {
    const FLOWS: u16 = 200;
    const PACKETS: u64 = 4_000;
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let frames: Vec<Vec<u8>> = (0..FLOWS)
        .map(|flow| datagram("10.77.0.1", 2_000 + flow, 80))
        .collect();
    let sent = site.send(&frames, u64::from(FLOWS) * PACKETS)?;
    settle();
    let answer = json(&weir, &["flows", "--service", "web", "--limit", "1000", "--json"])?;
    let flows = answer["flows"].as_array().context("no flows")?;
    ensure!(flows.len() == usize::from(FLOWS), "{} flows", flows.len());
    let each = sent.frames as f64 / f64::from(FLOWS);
    let (mut all, mut outside) = (0.0, 0);
    for flow in flows {
        let packets = flow["packets"].as_f64().context("no packets")?;
        let samples = flow["samples"].as_f64().context("no samples")?;
        // n samples of one in N: N × √n, for an N that is large.
        let error = packets / samples.sqrt();
        outside += u32::from((packets - each).abs() > 3.0 * error);
        all += packets;
        ensure!(
            flow["source"] == "10.77.0.1" && flow["destination_port"] == 80,
            "{flow}"
        );
        let bytes = flow["bytes"].as_f64().context("no bytes")?;
        ensure!((bytes / packets - 100.0).abs() < 1.0, "{flow}");
    }
    // One in 370 lies outside; five of two hundred would be one chance in 4,000.
    ensure!(
        outside < 5,
        "{outside} of {FLOWS} flows are more than three standard errors off"
    );
    let off = all / sent.frames as f64 - 1.0;
    ensure!(
        off.abs() < 0.05,
        "all flows together are {all}, sent were {}",
        sent.frames
    );
    println!(
        "{} packets, {all:.0} estimated; {outside} of {FLOWS} flows beyond three standard errors",
        sent.frames
    );

    let answer = json(&weir, &["sources", "--json"])?;
    ensure!(answer["sources"][0]["source"] == "10.77.0.1/32", "{answer}");
    ensure!(
        answer["sources"][0]["services"]["web"].as_f64() > Some(0.0),
        "{answer}"
    );
    Ok(())
}

#[test]
fn who_is_dropped_is_shown_with_the_reason_and_what_is_left() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let frames = [
        datagram("10.77.0.1", 2_000, 80),
        datagram("10.77.0.66", 2_000, 81),
    ];
    site.send(&frames, 20_000)?;
    settle();
    let answer = json(&weir, &["sources", "--by", "dropped", "--json"])?;
    let sources = answer["sources"].as_array().context("no sources")?;
    ensure!(sources.len() == 1, "{answer}");
    let worst = &sources[0];
    ensure!(
        worst["source"] == "10.77.0.66/32" && worst["banned"] == false,
        "{worst}"
    );
    ensure!(worst["reasons"]["source_packets"].as_f64() > Some(0.0), "{worst}");
    ensure!(worst["buckets"][0]["burst"] == 1, "{worst}");
    weir.cli(&["ban", "10.77.0.66"])?;
    let text = weir.cli(&["sources", "--service", "tight"])?;
    let text = text.stdout;
    ensure!(
        text.contains("10.77.0.66/32") && text.contains("banned"),
        "{text}"
    );
    let networks = weir.cli(&["sources", "--networks"])?;
    let networks = networks.stdout;
    ensure!(networks.contains("10.77.0.0/24"), "{networks}");
    let unknown = weir.cli(&["sources", "--service", "nobody"])?;
    ensure!(unknown.code == 1, "{unknown:?}");
    Ok(())
}

/// Kilobytes of a process, and its ticks of CPU time so far (proc(5): fields 14 and 15 of `stat`).
fn used(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident
        .and_then(|text| text.trim().split(' ').next())
        .context("no VmRSS")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("no name")?;
    let field = |at: usize| {
        after
            .split_whitespace()
            .nth(at - 3)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let ticks = field(14).zip(field(15)).context("no times")?;
    Ok((resident.parse()?, ticks.0 + ticks.1))
}

/// From a million sources, as fast as a CPU sends.
#[test]
fn the_ring_loses_nothing_at_the_highest_rate_and_the_controller_stays_small() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&POLICY.replace("one_in = 20", "one_in = 50"))?;
    let pid = weir.pid().context("it does not run")?;
    let frames: Vec<Vec<u8>> = (0..1_000_000_u32)
        .map(|number| datagram(&std::net::Ipv4Addr::from(0x1400_0000 + number).to_string(), 9, 80))
        .collect();
    let plan = Plan {
        time: Duration::from_secs(8),
        ..Plan::count(u64::MAX)
    };
    let (_, before) = used(pid)?;
    let sent = Flood::start(&site.client, "eth0", frames, plan.on_cpu(1))?.wait()?;
    let (resident, after) = used(pid)?;
    settle();
    let metrics = weir.metrics()?;
    let lost = metrics.sum("weir_lost_total", &[("what", "sample")]);
    let samples = metrics.sum("weir_samples_total", &[]);
    println!(
        "{} packets in {:?}, {samples} samples, {lost} lost; the controller: {resident} kB, {} ticks of CPU time",
        sent.frames,
        sent.took,
        after - before
    );
    ensure!(lost < 0.5, "{lost} samples did not fit the ring");
    ensure!(
        samples > sent.frames as f64 / 500.0,
        "{samples} samples of {} packets",
        sent.frames
    );
    ensure!(resident < 100_000, "{resident} kB");
    Ok(())
}

#[test]
fn sampling_can_be_turned_off_and_on_by_a_policy() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&POLICY.replace("one_in = 20", "one_in = 0"))?;
    let frames = [datagram("10.77.0.1", 2_000, 80)];
    site.send(&frames, 5_000)?;
    settle();
    let off = weir.cli(&["sources"])?;
    let off = off.stdout;
    ensure!(off.contains("one_in = 0"), "{off}");
    ensure!(weir.metrics()?.sum("weir_samples_total", &[]) < 0.5);
    let applied = weir.apply(POLICY)?;
    ensure!(applied.code == 0, "{applied:?}");
    site.send(&frames, 5_000)?;
    settle();
    let on = weir.cli(&["sources"])?;
    let on = on.stdout;
    ensure!(on.contains("10.77.0.1/32"), "{on}");
    Ok(())
}
