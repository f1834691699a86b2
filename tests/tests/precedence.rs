//! What wins over what: scope, protect, bans and lists; and what stays in force when an apply fails or nobody controls.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    frame::{Frame, SYN, TPID_8021Q},
    site::{Site, counts, datagram, reason},
};

const POLICY: &str = r#"
version = 1
[[protect]]
sources = ["10.9.0.0/28"]
[lists.bad]
action = "drop"
prefixes = ["10.9.0.0/16"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 10 }
"#;

#[test]
fn protect_wins_over_a_list_a_ban_and_a_bucket() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    // Wider than what is protected, so it is taken; it must not reach the protected part.
    weir.cli(&["ban", "10.9.0.0/24"])?.ok()?;
    site.send(&[datagram("10.9.0.3", 60)], 30)?;
    site.send(&[datagram("10.9.0.99", 60)], 7)?;
    site.send(&[datagram("10.9.1.1", 60)], 5)?;
    let metrics = weir.metrics()?;
    let found =
        ["protect", "ban", "list"].map(|word| metrics.sum("weir_packets_total", &[("reason", word)]) as u64);
    ensure!(found == [30, 7, 5], "protect, ban, list: {found:?}");
    Ok(())
}

#[test]
fn what_is_out_of_scope_passes_whatever_the_rest_says() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(
        "version = 1\n[scope]\nvlans = [100]\naddresses = [\"10.77.0.2/32\"]\n[lists.bad]\naction = \"drop\"\nprefixes = [\"192.0.2.0/24\"]\n[default]\naction = \"drop\"\nreplies = \"none\"\n",
    )?;
    let tagged = |id: u16, target: &str| {
        Frame::new()
            .vlan(TPID_8021Q, id)
            .ip("192.0.2.1", target)
            .tcp(4000, 80, SYN)
            .build()
    };
    for (frame, expected) in [
        (tagged(100, "10.77.0.2"), "list"),
        (tagged(200, "10.77.0.2"), "out_of_scope"),
        (tagged(100, "10.77.0.3"), "out_of_scope"),
    ] {
        let before = weir.metrics()?.sum("weir_packets_total", &[("reason", expected)]);
        site.send(&[frame], 10)?;
        let metrics = weir.metrics()?;
        let after = metrics.sum("weir_packets_total", &[("reason", expected)]);
        ensure!(
            after - before >= 10.0,
            "{expected}: {:?}",
            metrics.by("weir_packets_total", "reason", &[])
        );
    }
    Ok(())
}

#[test]
fn dhcp_and_icmp_errors_are_essential_and_an_echo_is_not() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir("version = 1\n[default]\naction = \"drop\"\nreplies = \"none\"\n")?;
    let to = || Frame::new().ip("192.0.2.1", "10.77.0.2");
    let offer = to().udp(67, 68).payload(&[0; 240]).build();
    let unreachable = to().icmp(3, 1).payload(&[0; 28]).build();
    let echo = to().icmp(8, 0).payload(&[0; 8]).build();
    for (frame, expected) in [
        (offer, "essential"),
        (unreachable, "essential"),
        (echo, "default_drop"),
    ] {
        let before = reason(&weir.metrics()?, "default", expected);
        site.send(&[frame], 10)?;
        let metrics = weir.metrics()?;
        ensure!(
            reason(&metrics, "default", expected) >= before + 10,
            "{expected}: {:?}",
            metrics.by("weir_packets_total", "reason", &[])
        );
    }
    Ok(())
}

#[test]
fn a_policy_that_fails_leaves_the_old_one_in_force() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    for broken in [
        "",
        "version = 1\n[[service]]\nname = \"w",
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"icmp\"\nports = [80]\n",
    ] {
        weir.apply(broken)?.failed(2, "policy.toml")?;
        let before = counts(&weir.metrics()?, "web", &[]);
        site.send(&[datagram("192.0.2.1", 60)], 50)?;
        let after = counts(&weir.metrics()?, "web", &[]).since(before);
        ensure!(
            after.pass + after.drop == 50 && after.pass <= 3,
            "the bucket and its debt stay: {after:?}"
        );
    }
    weir.signal(Signal::SIGHUP)?;
    std::thread::sleep(Duration::from_millis(300));
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        after.drop >= 45,
        "also when the file is broken at a SIGHUP: {after:?}"
    );
    Ok(())
}

#[test]
fn a_debt_a_ban_and_a_list_outlive_a_controller_killed_at_once() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    // Killed as soon as both are acknowledged: what was acknowledged must be on disk.
    weir.cli(&["ban", "198.51.100.0/24"])?.ok()?;
    weir.cli(&["list", "add", "bad", "203.0.113.0/24", "--for", "1h"])?
        .ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    let all = ["192.0.2.1", "198.51.100.9", "203.0.113.9"].map(|source| datagram(source, 60));
    site.send(&all, 60)?;
    weir.start()?;
    site.send(&all, 60)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        after.pass + after.drop == 120 && after.pass <= 5,
        "without a controller and across its restart: {after:?}"
    );
    Ok(())
}
