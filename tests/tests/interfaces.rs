//! Several interfaces, odd names, modes, large frames, and interfaces that go away.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    link,
    sender::{Plan, Sender},
    site::{Site, counts, datagram},
    skip_unless_link_type,
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 20 }\n";

fn send(site: &Site, device: &str, frame: Vec<u8>, count: u64) -> Result<()> {
    Sender::open(&site.client, device)?.send(&[frame], &Plan::count(count).on_cpu(0), || false)?;
    std::thread::sleep(std::time::Duration::from_millis(30));
    Ok(())
}

#[test]
fn two_interfaces_share_buckets_and_count_apart() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth0.100"), (&site.node, "eth0.100"))?;
    let mut weir = Daemon::run(&site.node, &["eth0", "eth0.100"], POLICY)?;
    send(&site, "eth0", datagram("192.0.2.1", 60), 15)?;
    send(&site, "eth0.100", datagram("192.0.2.1", 60), 15)?;
    let metrics = weir.metrics()?;
    let on = |name: &str| counts(&metrics, "web", &[("interface", name)]);
    ensure!(on("eth0").pass == 15, "{:?}", on("eth0"));
    ensure!(
        (5..=7).contains(&on("eth0.100").pass),
        "one bucket for both: {:?}",
        on("eth0.100")
    );
    ensure!(
        on("eth0.100").drop >= 8,
        "counted where they came in: {:?}",
        on("eth0.100")
    );
    weir.cli(&["detach", "--interface", "eth0.100"])?.ok()?;
    ensure!(
        site.node.xdp("eth0.100")?.is_none() && site.node.xdp("eth0")?.is_some(),
        "one is off, the other on"
    );
    weir.stop_with(Signal::SIGTERM)?;
    weir.cli(&["detach", "--interface", "eth0"])?.ok()?;
    ensure!(!weir.bpffs_path().exists(), "the last one takes the maps along");
    Ok(())
}

#[test]
fn generic_mode_enforces_and_says_what_it_means() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?.with_args(&["--xdp-mode", "generic"]);
    weir.start()?;
    ensure!(
        site.node.xdp("eth0")?.is_some_and(|(_, native)| !native),
        "{:?}",
        site.node.xdp("eth0")?
    );
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let all = counts(&weir.metrics()?, "web", &[]);
    ensure!(
        (20..=22).contains(&all.pass) && all.pass + all.drop == 50,
        "{all:?}"
    );
    let status = weir.cli(&["status"])?;
    ensure!(status.stdout.contains("super-frame"), "{status:?}");
    ensure!(weir.log().contains("super-frame"), "{}", weir.log());
    ensure!(
        weir.metrics()?
            .get("weir_attached", &[("interface", "eth0"), ("xdp_mode", "generic")])
            == Some(1.0),
        "a label"
    );
    Ok(())
}

#[test]
fn auto_falls_back_where_a_driver_cannot() -> Result<()> {
    let site = Site::new()?;
    // A bridge has no XDP of its own.
    site.node.ip(&["link", "add", "br0", "type", "bridge"])?;
    site.node.up("br0")?;
    let mut native = Daemon::prepare(&site.node, &["br0"], POLICY)?.with_args(&["--xdp-mode", "native"]);
    let output = native.start_failing()?;
    ensure!(output.code == 1 && output.stderr.contains("br0"), "{output:?}");
    let auto = Daemon::run(&site.node, &["br0"], POLICY)?;
    ensure!(
        site.node.xdp("br0")?.is_some_and(|(_, native)| !native),
        "attached generic"
    );
    ensure!(
        auto.log().contains("WARN") && auto.log().contains("native"),
        "says why: {}",
        auto.log()
    );
    Ok(())
}

#[test]
fn jumbo_frames_are_judged_whole() -> Result<()> {
    let site = Site::new()?;
    for netns in [&site.client, &site.node] {
        netns.set_mtu("eth0", 9000)?;
    }
    let weir = site.weir(&POLICY.replace(
        "packets = { rate = 1, burst = 20 }",
        "bytes = { rate = 1000, burst = 80_000 }",
    ))?;
    ensure!(site.node.xdp("eth0")?.is_some(), "attached at an MTU of 9,000");
    site.send(&[datagram("192.0.2.1", 8_000)], 30)?;
    let metrics = weir.metrics()?;
    let all = counts(&metrics, "web", &[]);
    ensure!(
        all.pass == 10 && all.drop == 20,
        "ten frames of 8,000 bytes: {all:?}"
    );
    let bytes = metrics.sum("weir_bytes_total", &[("service", "web")]) as u64;
    ensure!(bytes == 240_000, "{bytes} bytes counted");
    Ok(())
}

#[test]
fn an_interface_that_vanishes_shows() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let weir = Daemon::run(&site.node, &["eth0", "eth1"], POLICY)?;
    site.client.delete_link("eth1")?;
    let status = weir.cli(&["status"])?;
    ensure!(status.code == 1 && status.stdout.contains("eth1"), "{status:?}");
    send(&site, "eth0", datagram("192.0.2.1", 60), 50)?;
    ensure!(
        counts(&weir.metrics()?, "web", &[]).drop >= 28,
        "the other goes on"
    );
    weir.cli(&["detach"])?.ok()?;
    Ok(())
}

#[test]
fn bond_members_are_held() -> Result<()> {
    skip_unless_link_type!("bond_members_are_held", "bond");
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    site.node.bond("bond0", "active-backup", &["eth0", "eth1"])?;
    let weir = Daemon::run(&site.node, &["eth0", "eth1"], POLICY)?;
    send(&site, "eth0", datagram("192.0.2.1", 60), 15)?;
    send(&site, "eth1", datagram("192.0.2.1", 60), 15)?;
    let all = counts(&weir.metrics()?, "web", &[]);
    ensure!(
        (20..=22).contains(&all.pass) && all.pass + all.drop == 30,
        "one bucket over both members: {all:?}"
    );
    Ok(())
}
