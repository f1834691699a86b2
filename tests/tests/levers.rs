//! The emergency levers, with a controller and without one.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Counts, Site, counts, datagram, reason},
};

const POLICY: &str = r#"
version = 1
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 100 }
[[service]]
name = "other"
protocol = "udp"
ports = [81]
[service.per_source]
packets = { rate = 1, burst = 10 }
"#;

fn send(site: &Site, weir: &Daemon<'_>, source: &str, count: u64) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], count)?;
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

#[test]
fn bypass_passes_everything_but_bans_and_lists() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    send(&site, &weir, "192.0.2.1", 200)?;
    weir.cli(&["bypass", "--for", "1h"])?.ok()?;
    ensure!(send(&site, &weir, "192.0.2.1", 50)?.pass == 50, "passes");
    ensure!(send(&site, &weir, "198.51.100.1", 5)?.drop == 5, "lists stay");
    ensure!(
        weir.metrics()?.sum("weir_lever_active", &[]) >= 1.0,
        "a metric says so"
    );
    ensure!(weir.cli(&["status"])?.stdout.contains("bypass"), "so does status");
    weir.cli(&["bypass", "--for", "1h", "--all"])?.ok()?;
    ensure!(
        send(&site, &weir, "198.51.100.1", 5)?.pass == 5,
        "lists too, with --all"
    );
    weir.cli(&["lever", "clear"])?.ok()?;
    ensure!(
        send(&site, &weir, "192.0.2.1", 50)?.drop >= 45,
        "the debt is still there"
    );
    weir.cli(&["bypass", "--service", "other", "--for", "1h"])?.ok()?;
    ensure!(
        send(&site, &weir, "192.0.2.1", 50)?.drop >= 45,
        "only that service is bypassed"
    );
    ensure!(
        reason(&weir.metrics()?, "web", "bypass") == 55,
        "{}",
        reason(&weir.metrics()?, "web", "bypass")
    );
    weir.cli(&["bypass", "--service", "nobody", "--for", "1h"])?
        .failed(1, "nobody")?;
    Ok(())
}

#[test]
fn scale_tightens_and_loosens_and_ends_by_itself() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["scale", "web", "50%", "--for", "3s"])?.ok()?;
    let tight = send(&site, &weir, "192.0.2.1", 200)?;
    ensure!((50..=52).contains(&tight.pass), "half of the burst: {tight:?}");
    std::thread::sleep(Duration::from_millis(3_100));
    let normal = send(&site, &weir, "192.0.2.2", 200)?;
    ensure!((100..=102).contains(&normal.pass), "all of it again: {normal:?}");
    weir.cli(&["scale", "web", "300%", "--for", "1h"])?.ok()?;
    let loose = send(&site, &weir, "192.0.2.3", 400)?;
    ensure!((300..=304).contains(&loose.pass), "three times: {loose:?}");
    weir.apply(&format!(
        "{POLICY}\n[[service]]\nname = \"more\"\nprotocol = \"tcp\"\n"
    ))?
    .ok()?;
    let kept = send(&site, &weir, "192.0.2.4", 400)?;
    ensure!(
        (300..=304).contains(&kept.pass),
        "an apply keeps the lever: {kept:?}"
    );
    weir.cli(&["scale", "web", "0%", "--for", "1h"])?.failed(2, "")?;
    Ok(())
}

#[test]
fn levers_work_without_a_controller() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    site.send(&[datagram("192.0.2.1", 60)], 200)?;
    let start = counts(&weir.metrics()?, "web", &[]);
    weir.stop_with(Signal::SIGKILL)?;
    weir.cli(&["bypass", "--for", "1h"])?.ok()?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    weir.cli(&["lever", "clear"])?.ok()?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    weir.cli(&["scale", "web", "20%", "--for", "1h"])?.ok()?;
    site.send(&[datagram("192.0.2.9", 60)], 100)?;
    weir.cli(&["bypass", "--for", "1s"])?.ok()?;
    std::thread::sleep(Duration::from_millis(1_200));
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    weir.start()?;
    let all = counts(&weir.metrics()?, "web", &[]).since(start);
    // 50 bypassed; of 100 more at most what refilled; 20 to 22 scaled; then nothing once the short bypass has ended.
    ensure!(
        (70..=82).contains(&all.pass) && all.pass + all.drop == 250,
        "{all:?}"
    );
    ensure!(
        reason(&weir.metrics()?, "web", "bypass") == 50,
        "the kernel ended the short one by itself"
    );
    Ok(())
}
