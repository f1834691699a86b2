//! `weir explain` on a live node: what it prints, and what it refuses.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::site::{Site, datagram};

const SECOND: u64 = 1_000_000_000;

const LIVE: &str = r#"version = 1
[lists.partners]
action = "trust"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
  [service.per_source]
  packets = { rate = 1, burst = 100 }
  bytes = { rate = "1MB", burst = "2MB" }
"#;

fn explain(weir: &weir_tests::daemon::Daemon<'_>, args: &[&str]) -> Result<Value> {
    let all: Vec<&str> = ["explain", "--json"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    weir.cli(&all)?.ok()?.json()
}

fn bucket<'v>(answer: &'v Value, kind: &str) -> Result<&'v Value> {
    let steps = answer["steps"].as_array().context("steps")?;
    let found = steps
        .iter()
        .map(|step| &step["bucket"])
        .find(|bucket| bucket["kind"] == kind);
    found.with_context(|| format!("{answer:#}"))
}

#[test]
fn a_live_node_is_explained() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(LIVE)?;
    let path = weir.policy_path().to_string_lossy().into_owned();
    let asked = [
        "--src",
        "192.0.2.1",
        "--dst",
        "10.77.0.2",
        "--proto",
        "udp",
        "--dport",
        "80",
    ];
    let fresh = explain(&weir, &asked)?;
    ensure!(
        fresh["schema"] == 1 && fresh["verdict"] == "pass" && fresh["reason"] == "pass",
        "{fresh:#}"
    );
    ensure!(fresh["service"] == "web" && fresh["class"] == "", "{fresh:#}");
    ensure!(bucket(&fresh, "packets")?["left"] == 100, "{fresh:#}");
    ensure!(bucket(&fresh, "packets")?["left_after"] == 99, "{fresh:#}");
    ensure!(bucket(&fresh, "bytes")?["asked"] == 64, "{fresh:#}");

    site.send(&[datagram("192.0.2.1", 60)], 200)?;
    let counted = weir.metrics()?.sum("weir_packets_total", &[]);
    for _ in 0..3 {
        let answer = explain(&weir, &asked)?;
        ensure!(
            answer["verdict"] == "drop" && answer["reason"] == "source_packets",
            "{answer:#}"
        );
        let decided = &answer["decided_by"];
        ensure!(
            decided["path"] == path.as_str() && decided["line"] == 10 && decided["column"] == 3,
            "{answer:#}"
        );
        ensure!(
            decided["text"] == "[service.per_source] packets = { rate = 1, burst = 100 }",
            "{answer:#}"
        );
        let wait = bucket(&answer, "packets")?["enough_after_ns"]
            .as_u64()
            .context("a time")?;
        ensure!((1..=SECOND + SECOND / 100).contains(&wait), "{answer:#}");
    }
    ensure!(
        weir.metrics()?.sum("weir_packets_total", &[]) <= counted + 5.0,
        "explaining counts nothing"
    );
    // It had given nothing away: what is refilled in the meantime is there.
    std::thread::sleep(Duration::from_millis(1_100));
    let text = weir.cli(&[&["explain"], &asked[..]].concat())?.ok()?.stdout;
    ensure!(
        text.contains("udp 192.0.2.1:50000 -> 10.77.0.2:80, 64 bytes, untagged")
            && text.contains(
                "per source packets: 1 of 100 left, 1 more a second; 1 asked for and given: 0 left then"
            )
            && text.contains(&format!("{path}:10:3 [service.per_source] packets"))
            && text.contains("\npass at web: it passes (reason pass)\n"),
        "{text}"
    );

    weir.cli(&["ban", "192.0.2.0/24", "--reason", "login attempts"])?
        .ok()?;
    let text = weir.cli(&[&["explain"], &asked[..]].concat())?.ok()?.stdout;
    ensure!(
        text.contains("192.0.2.0/24 is banned everywhere until it is taken back: login attempts")
            && text.contains("it is dropped (reason ban)"),
        "{text}"
    );
    let listed = explain(
        &weir,
        &[
            "--src",
            "198.51.100.7",
            "--dst",
            "10.77.0.2",
            "--proto",
            "udp",
            "--dport",
            "80",
        ],
    )?;
    ensure!(
        listed["reason"] == "trust" && listed["decided_by"]["line"] == 3,
        "{listed:#}"
    );
    let other = explain(
        &weir,
        &["--src", "2001:db8::1", "--dst", "fd77::2", "--proto", "icmp"],
    )?;
    ensure!(
        other["service"] == "default" && other["packet"]["type"] == 128,
        "{other:#}"
    );

    Ok(())
}

#[test]
fn wrong_questions_are_told_so() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(LIVE)?;
    let asked = [
        "--src",
        "192.0.2.1",
        "--dst",
        "10.77.0.2",
        "--proto",
        "udp",
        "--dport",
        "80",
    ];
    let interface = ["--interface", "eth0"];
    ensure!(
        explain(&weir, &[&asked[..], &interface].concat())?["verdict"] == "pass",
        "it arrives there"
    );
    for (args, code, with) in [
        (
            &["--src", "192.0.2.1", "--dst", "fd77::2"][..],
            2,
            "different families",
        ),
        (
            &[
                "--src",
                "192.0.2.1",
                "--dst",
                "10.77.0.2",
                "--proto",
                "udp",
                "--flags",
                "syn",
            ],
            2,
            "flags is for TCP only",
        ),
        (
            &["--src", "192.0.2.1", "--dst", "10.77.0.2", "--flags", "fun"],
            2,
            "unknown flag",
        ),
        (
            &["--src", "192.0.2.1", "--dst", "10.77.0.2", "--proto", "sctp"],
            2,
            "proto \"sctp\" is unknown",
        ),
        (
            &[
                "--src",
                "192.0.2.1",
                "--dst",
                "10.77.0.2",
                "--proto",
                "icmp",
                "--dport",
                "80",
            ],
            2,
            "this packet is ICMP",
        ),
        (
            &["--src", "192.0.2.1", "--dst", "10.77.0.2", "--interface", "eth9"],
            1,
            "not attached to eth9",
        ),
        (&["--src", "nobody", "--dst", "10.77.0.2"], 2, "--src"),
    ] {
        let args: Vec<&str> = ["explain"].iter().chain(args).copied().collect();
        weir.cli(&args)?.failed(code, with)?;
    }
    Ok(())
}
