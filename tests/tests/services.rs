//! What the services of a running node see: exact counts, different sources, times, the inventory, and a policy drawn from it.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    command::{finish, patience},
    daemon::Daemon,
    frame::{Frame, SYN},
    sender::Plan,
    site::{Site, datagram},
    tcp,
};

const POLICY: &str = r#"
version = 1
[sampling]
one_in = 1
max_per_second = 100_000
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
time = true
[[service]]
name = "udp80"
protocol = "udp"
ports = [80]
[[service]]
name = "games"
protocol = "udp"
ports = ["27000-27100"]
"#;

fn services(weir: &Daemon) -> Result<Value> {
    weir.cli(&["services", "--json"])?.ok()?.json()
}

fn service<'v>(answer: &'v Value, name: &str) -> Result<&'v Value> {
    let services = answer["services"].as_array().context("no services")?;
    let found = services.iter().find(|service| service["service"] == name);
    found.with_context(|| format!("no service {name} in {answer}"))
}

/// Asks until `good` is content with the answer, for at most half a minute.
fn until(weir: &Daemon, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + patience(Duration::from_secs(30));
    loop {
        let answer = services(weir)?;
        if good(&answer) {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "{what}: {answer}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_service_shows_its_rates_sources_and_times() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    tcp::serve(&site.node)?;
    // The first reading is the controller's own; rates are over what came since.
    thread::sleep(patience(Duration::from_millis(300)));
    for _ in 0..40 {
        site.client.run(|| {
            tcp::connect_from(
                "10.77.0.1:0".parse()?,
                "10.77.0.2:80".parse()?,
                Duration::from_secs(5),
            )
            .map_err(anyhow::Error::from)
        })??;
    }
    let sources: Vec<_> = (0..5_000)
        .map(|n: u32| datagram(&format!("198.18.{}.{}", n / 250, n % 250), 100))
        .collect();
    // Slowly enough that the queue takes all of them also where somebody else has the CPU for a while.
    let sent = site.send_by(&sources, &Plan::count(5_000).at(20_000).on_cpu(0))?;
    ensure!(sent.refused == 0, "{sent:?}");

    let answer = until(&weir, "rates and sources come", |answer| {
        let seen = |name: &str, key: &str| {
            service(answer, name).is_ok_and(|service| service[key].as_f64().is_some_and(|value| value > 0.0))
        };
        seen("udp80", "distinct_sources")
            && seen("web", "first_ack_per_second")
            && seen("web", "handshake_seconds_p99")
    })?;
    let distinct = service(&answer, "udp80")?["distinct_sources"]
        .as_u64()
        .context("no number")?;
    ensure!(
        (4_750..=5_250).contains(&distinct),
        "5,000 different sources, not {distinct}"
    );
    let web = service(&answer, "web")?;
    ensure!(web["distinct_sources"] == 1, "{web}");
    let p99 = web["handshake_seconds_p99"].as_f64().context("no time")?;
    ensure!(
        p99 < 1.0
            && web["handshake_seconds_p50"]
                .as_f64()
                .is_some_and(|p50| p50 <= p99),
        "{web}"
    );
    ensure!(
        service(&answer, "games")?["packets_per_second"] == 0.0,
        "{answer}"
    );

    let metrics = weir.metrics()?;
    let tcp = |what| metrics.get("weir_tcp_packets_total", &[("service", "web"), ("what", what)]);
    ensure!(
        tcp("syn") == Some(40.0) && tcp("first_ack") == Some(40.0),
        "{:?} {:?}",
        tcp("syn"),
        tcp("first_ack")
    );
    ensure!(tcp("syn_ack") == Some(40.0), "{:?}", tcp("syn_ack"));
    ensure!(metrics.get("weir_frame_bytes_count", &[("service", "udp80")]) == Some(5_000.0));
    ensure!(metrics.get("weir_frame_bytes_sum", &[("service", "udp80")]) == Some(500_000.0));
    ensure!(metrics.get("weir_frame_bytes_bucket", &[("service", "udp80"), ("le", "64")]) == Some(0.0));
    ensure!(metrics.get("weir_frame_bytes_bucket", &[("service", "udp80"), ("le", "128")]) == Some(5_000.0));
    ensure!(metrics.get("weir_ttl_count", &[("service", "udp80")]) == Some(5_000.0));
    ensure!(metrics.get("weir_handshake_seconds_count", &[("service", "web")]) == Some(40.0));
    ensure!(
        metrics
            .matching("weir_frame_bytes_count", &[("service", "games")])
            .next()
            .is_none()
    );
    Ok(())
}

#[test]
fn the_inventory_names_ports_and_what_is_amiss() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let _web = site.node.run(|| TcpListener::bind("0.0.0.0:80"))??;
    let _forgotten = site.node.run(|| TcpListener::bind("10.77.0.2:2525"))??;
    let _inner = site.node.run(|| TcpListener::bind("127.0.0.1:5432"))??;
    let _udp = site.node.run(|| UdpSocket::bind("10.77.0.2:80"))??;
    // Asked for, though nobody listens.
    let frame = Frame::new()
        .ip("192.0.2.7", "10.77.0.2")
        .tcp(9, 3306, SYN)
        .build();
    site.send_by(&[frame], &Plan::count(500))?;
    let answer = until(&weir, "the port that is asked for comes", |answer| {
        let ports = answer["ports"].as_array().map_or(&[][..], Vec::as_slice);
        ports
            .iter()
            .any(|port| port["port"] == 3306 && port["packets_per_second"].as_f64() > Some(0.0))
    })?;
    let port = |protocol: &str, number: u16| {
        let ports = answer["ports"].as_array().into_iter().flatten();
        let mut found = ports.filter(|port| port["port"] == number && port["protocol"] == protocol);
        found
            .next()
            .cloned()
            .with_context(|| format!("no {protocol} {number}: {answer}"))
    };
    ensure!(port("tcp", 80)?["service"] == "web" && port("udp", 80)?["service"] == "udp80");
    ensure!(port("tcp", 80)?["program"].is_string(), "{answer}");
    let asked = port("tcp", 3306)?;
    ensure!(
        asked["listening"] == Value::Array(Vec::new()) && asked["top_source"] == "192.0.2.7/32",
        "{asked}"
    );
    ensure!(port("udp", 27_000)?["service"] == "games");

    let text = weir.cli(&["services"])?.ok()?.stdout;
    for expected in [
        "tcp port 2525 (",
        "no service of the policy names it",
        "service games: no socket",
        "192.0.2.7/32",
    ] {
        ensure!(text.contains(expected), "{expected} is not in:\n{text}");
    }
    ensure!(
        !text.contains("tcp port 5432"),
        "only this host can reach it:\n{text}"
    );
    Ok(())
}

#[test]
fn a_drafted_policy_is_valid_and_covers_what_listens() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let _web = site.node.run(|| TcpListener::bind("0.0.0.0:443"))??;
    let _odd = site.node.run(|| TcpListener::bind("10.77.0.2:2525"))??;
    let draft = weir.dir().join("draft.toml");
    let path = draft.to_string_lossy().into_owned();
    let init = ["policy", "init", "--interface", "eth0", "--output", &path];
    let told = weir.cli(&init)?.ok()?;
    ensure!(told.stdout.contains(&path) && told.stderr.is_empty(), "{told:?}");
    weir.cli(&["policy", "check", &path])?.ok()?;
    let text = fs::read_to_string(&draft)?;
    for expected in [
        "mode = \"monitor\"",
        "interfaces = [\"eth0\"]",
        "[443]",
        "2525",
        "measured",
    ] {
        ensure!(text.contains(expected), "{expected} is not in:\n{text}");
    }
    weir.cli(&init)?.failed(1, "a draft never replaces a policy")?;
    ensure!(fs::read_to_string(&draft)? == text, "it was written over");
    // It can be put in force as it is.
    weir.cli(&["policy", "apply", &path])?.ok()?;

    // Without a controller, from the sockets alone.
    weir.stop_with(nix::sys::signal::Signal::SIGTERM)?;
    let mut command = site.node.command(weir.binary());
    command.args(["policy", "init", "--json", "--socket", "/nowhere.sock"]);
    let alone = finish(&mut command, None, Duration::from_secs(20))?
        .ok()?
        .json()?;
    ensure!(alone["measured"] == false, "{alone}");
    let text = alone["text"].as_str().context("no text")?;
    ensure!(
        text.contains("No controller was running") && text.contains("2525"),
        "{text}"
    );
    fs::remove_file(&draft)?;
    fs::write(&draft, text)?;
    weir.cli(&["policy", "check", &path])?.ok()?;
    Ok(())
}
