//! Every packet has one verdict and one reason, counted once; metrics say so to the packet.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    flood::Flood,
    frame::{ACK, Frame, TPID_8021Q},
    sender::Plan,
    site::{Site, datagram},
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
packets = { rate = 100, burst = 100 }
[[service]]
name = "watched"
protocol = "tcp"
mode = "monitor"
[service.per_source]
packets = { rate = 10, burst = 10 }
"#;

fn mixture() -> Vec<Vec<u8>> {
    let tcp = |frame: Frame| frame.ip("192.0.2.5", "10.77.0.2").tcp(9, 443, ACK).build();
    let mut cut = datagram("192.0.2.9", 100);
    cut.truncate(38);
    vec![
        datagram("192.0.2.1", 60),
        datagram("2001:db8::1", 100),
        datagram("198.51.100.1", 200),
        tcp(Frame::new()),
        tcp(Frame::new().vlan(TPID_8021Q, 7)),
        Frame::new()
            .ip("192.0.2.7", "10.77.0.2")
            .fragment(1480, false)
            .protocol(17)
            .payload(&[0; 64])
            .build(),
        Frame::new().ethertype(0x1234).payload(&[0; 50]).build(),
        Frame::new()
            .ip("192.0.2.8", "10.77.0.2")
            .icmp(8, 0)
            .payload(&[0; 8])
            .build(),
        cut,
    ]
}

#[test]
fn pass_drop_and_would_drop_are_what_was_received() -> Result<()> {
    let site = Site::new()?;
    // The namespaces' own neighbour discovery must not add to what the test sends.
    for netns in [&site.client, &site.node] {
        netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    }
    let weir = site.weir(POLICY)?;
    let before = weir.metrics()?;
    let stats = site.node.stats("eth0")?;
    let frames = mixture();
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let flood = Flood::start(&site.client, "eth0", frames.clone(), Plan::count(90_000))?;
    for at in 0..10 {
        let more = if at % 2 == 0 {
            "[[service]]\nname = \"more\"\nprotocol = \"udp\"\nports = [81]\n"
        } else {
            ""
        };
        weir.apply(&format!("{POLICY}{more}"))?.ok()?;
    }
    let sent = flood.wait()?;
    std::thread::sleep(std::time::Duration::from_millis(100));
    let after = weir.metrics()?;
    let grown = |name: &str| (after.sum(name, &[]) - before.sum(name, &[])) as u64;
    let received = site.node.stats("eth0")?.rx_packets - stats.rx_packets;
    println!(
        "sent {}, received {received}, counted {}",
        sent.frames,
        grown("weir_packets_total")
    );
    ensure!(sent.frames == 90_000, "{sent:?}");
    ensure!(
        grown("weir_packets_total") == 90_000,
        "{} packets counted",
        grown("weir_packets_total")
    );
    ensure!(
        grown("weir_bytes_total") == bytes as u64 * 10_000,
        "{} bytes counted",
        grown("weir_bytes_total")
    );
    for reason in ["pass", "source_packets", "list", "malformed", "essential"] {
        ensure!(
            after.sum("weir_packets_total", &[("reason", reason)]) > 0.0,
            "no packet was {reason}"
        );
    }
    ensure!(after.sum("weir_lost_total", &[]) == 0.0, "nothing was lost");
    Ok(())
}

#[test]
fn series_have_exactly_the_labels_and_never_go_back() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    site.send(&mixture(), 900)?;
    let first = weir.metrics()?;
    let (code, text) = weir.http("GET", "/metrics")?;
    ensure!(code == 200, "{code}");
    for line in text
        .lines()
        .filter(|line| line.starts_with("weir_packets_total{"))
    {
        let labels: Vec<&str> = line[19..line.find('}').unwrap_or(19)]
            .split(',')
            .filter_map(|label| label.split('=').next())
            .collect();
        ensure!(
            labels == ["interface", "service", "class", "verdict", "reason"],
            "{line}"
        );
        ensure!(!line.ends_with(" 0"), "a series of nothing: {line}");
    }
    weir.stop_with(Signal::SIGKILL)?;
    site.send(&mixture(), 900)?;
    weir.start()?;
    let second = weir.metrics()?;
    for service in ["web", "watched", "default"] {
        let of = |metrics: &weir_tests::metrics::Metrics| {
            metrics.by("weir_packets_total", "reason", &[("service", service)])
        };
        for (reason, count) in of(&first) {
            ensure!(
                of(&second).get(&reason).is_some_and(|now| *now >= count),
                "{service} {reason} went back"
            );
        }
    }
    ensure!(
        second.sum("weir_packets_total", &[]) >= first.sum("weir_packets_total", &[]) + 900.0,
        "and went on"
    );
    Ok(())
}

#[test]
fn the_listener_only_reads() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    ensure!(weir.http("GET", "/healthz")?.0 == 200, "alive");
    ensure!(weir.http("GET", "/readyz")?.0 == 200, "ready");
    ensure!(weir.http("POST", "/metrics")?.0 == 405, "reading only");
    ensure!(
        weir.http("GET", "/v1/status")?.0 == 404,
        "the control plane is not there"
    );
    Ok(())
}
