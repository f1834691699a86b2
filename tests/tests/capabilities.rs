//! The controller as an unprivileged user with `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON` and nothing else.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram, reason},
};

/// A user that no machine has.
const USER: u32 = 64_999;

/// Everything that makes the controller ask the kernel for something: lists, services of every tier, levers, and a reserve,
/// for which it watches handshakes in the host's TCP and on the way out.
const POLICY: &str = r#"
version = 1
[lists.blocklist]
action = "drop"
prefixes = ["198.51.100.0/24"]
[controller]
on_loss = "open"
after = "1h"
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 10 }
[service.per_network]
packets = { rate = 1000, burst = 1000 }
[service.total]
packets = { rate = 10000, burst = 10000 }
reserve = "20%"
[[service]]
name = "shop"
protocol = "tcp"
ports = [443]
[service.per_source]
connections = { rate = 10, burst = 10 }
[service.total]
connections = { rate = 100, burst = 100 }
reserve = "20%"
"#;

fn start(site: &Site) -> Result<Daemon<'_>> {
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?.as_user(USER)?;
    weir.start()?;
    Ok(weir)
}

/// Fifty packets of a source that may send ten: most are dropped, for real.
fn is_limited(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<()> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], 50)?;
    let all = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(all.drop >= 38 && all.pass >= 10, "{source}: {all:?}");
    Ok(())
}

#[test]
fn it_has_three_capabilities_and_no_way_to_more() -> Result<()> {
    let site = Site::new()?;
    let weir = start(&site)?;
    let pid = weir.pid().context("it runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    ensure!(
        field("Uid:") == [USER.to_string().as_str(); 4].join(" "),
        "{status}"
    );
    let three = (1u64 << 39) | (1 << 38) | (1 << 12);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(u64::from_str_radix(&field(set), 16)? == three, "{set} {status}");
    }
    ensure!(field("NoNewPrivs:") == "1", "{status}");
    Ok(())
}

#[test]
fn it_does_all_its_work() -> Result<()> {
    let site = Site::new()?;
    let mut weir = start(&site)?;
    ensure!(site.node.xdp("eth0")?.is_some(), "attached");
    is_limited(&site, &weir, "192.0.2.1")?;

    // Nothing is amiss: neither handshakes nor the heartbeat nor the state directory.
    let status = weir.cli(&["status", "--json"])?.ok()?.json()?;
    ensure!(status["ok"] == true, "{status}");
    for line in weir.log().lines() {
        ensure!(!line.contains("WARN") && !line.contains("ERROR"), "{line}");
    }

    weir.cli(&["ban", "192.0.2.7", "--for", "10m"])?.ok()?;
    site.send(&[datagram("192.0.2.7", 60)], 5)?;
    ensure!(reason(&weir.metrics()?, "web", "ban") == 5, "banned");

    weir.cli(&["list", "add", "blocklist", "203.0.113.0/24"])?.ok()?;
    for source in ["198.51.100.1", "203.0.113.1"] {
        site.send(&[datagram(source, 60)], 5)?;
    }
    ensure!(reason(&weir.metrics()?, "web", "list") == 10, "listed");
    // Lists lie in maps in maps, which it may open by path and not by number.
    let asked = [
        "--src",
        "203.0.113.1",
        "--dst",
        "10.77.0.2",
        "--proto",
        "udp",
        "--dport",
        "80",
    ];
    let explained = weir.cli(&[&["explain"], &asked[..]].concat())?.ok()?.stdout;
    ensure!(explained.contains("blocklist drops it"), "{explained}");

    weir.cli(&["scale", "web", "10000%", "--for", "10m"])?.ok()?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("192.0.2.8", 60)], 50)?;
    let all = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(all.pass == 50, "a loosened service passes them: {all:?}");
    weir.cli(&["lever", "clear"])?.ok()?;

    weir.apply(&POLICY.replace("burst = 10 }", "burst = 11 }"))?
        .ok()?;
    is_limited(&site, &weir, "192.0.2.9")?;

    // A restart takes over what is pinned, and so does one after a kill.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        weir.stop_with(signal)?;
        let before = reason(
            &{
                weir.start()?;
                weir.metrics()?
            },
            "web",
            "ban",
        );
        site.send(&[datagram("192.0.2.7", 60)], 5)?;
        let now = reason(&weir.metrics()?, "web", "ban");
        ensure!(
            before >= 5 && now == before + 5,
            "the ban outlives {signal}: {before}, {now}"
        );
    }

    weir.cli(&["detach"])?.ok()?;
    ensure!(site.node.xdp("eth0")?.is_none(), "taken off");
    Ok(())
}

#[test]
fn doctor_names_what_is_missing() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?.as_user(USER)?;
    let doctor = weir.doctor_as(USER, &["net_admin"])?;
    ensure!(
        doctor.code == 1 && doctor.stdout.contains("lacks CAP_BPF, CAP_PERFMON"),
        "{doctor:?}"
    );
    Ok(())
}
