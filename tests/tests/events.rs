//! `weir events`: what happened, who asked, and why.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::{
    daemon::Daemon,
    site::{Site, datagram},
};

const POLICY: &str = r#"version = 1
[lists.bad]
action = "drop"
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 5 }
block = { for = "30s", drops = 10, within = "10s" }
"#;

/// `weir events --follow --json`, read line by line.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(site: &Site, weir: &Daemon<'_>) -> Result<Self> {
        let mut command = site.node.command(weir.binary());
        command
            .args(["events", "--follow", "--json", "--socket"])
            .arg(weir.socket_path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next event of a kind.
    fn next(&self, kind: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .with_context(|| format!("no event {kind}"))?;
            let event: Value = serde_json::from_str(&line)?;
            if event["kind"] == kind {
                return Ok(event);
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_follower_sees_changes_and_blocks_until_the_controller_stops() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let mut follower = Follower::start(&site, &weir)?;
    follower.next("started")?;

    weir.cli(&["ban", "192.0.2.9", "--for", "1s", "--reason", "ticket 7"])?
        .ok()?;
    let ban = follower.next("ban")?;
    ensure!(
        ban["why"] == "ticket 7" && ban["prefix"] == "192.0.2.9/32",
        "{ban}"
    );
    ensure!(
        ban["by"]["who"] == "user" && ban["by"]["uid"] == 0 && ban["by"]["command"] == "weir",
        "{ban}"
    );
    ensure!(ban["by"]["pid"].as_i64().is_some_and(|pid| pid > 1), "{ban}");
    ensure!(ban["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{ban}");
    let ended = follower.next("ban_ended")?;
    ensure!(ended["by"]["who"] == "controller", "{ended}");
    weir.cli(&["list", "add", "bad", "203.0.113.0/24"])?.ok()?;
    ensure!(follower.next("list")?["list"] == "bad", "which list");
    weir.cli(&["bypass", "--for", "1m"])?.ok()?;
    follower.next("lever")?;
    weir.cli(&["lever", "clear"])?.ok()?;
    weir.apply(&format!("{POLICY}# again\n"))?.ok()?;
    ensure!(follower.next("policy")?["revision"] == 2, "the revision");

    site.send(&[datagram("192.0.2.77", 60)], 200)?;
    let block = follower.next("block")?;
    ensure!(
        block["service"] == "web" && block["interface"] == "eth0",
        "{block}"
    );
    ensure!(
        block["prefix"] == "192.0.2.77/32" && block["by"]["who"] == "kernel",
        "{block}"
    );
    ensure!(
        block["why"]
            .as_str()
            .is_some_and(|why| why.starts_with("10 packets over")),
        "{block}"
    );

    weir.stop_with(Signal::SIGTERM)?;
    follower.next("stopped")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while follower.child.try_wait()?.is_none() {
        ensure!(
            Instant::now() < deadline,
            "the follower goes on without a controller"
        );
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(
        follower.child.wait()?.success(),
        "a stop is no failure of the follower's"
    );
    Ok(())
}

#[test]
fn events_outlive_a_restart_and_a_cut_line() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.9", "--reason", "before"])?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    let file = weir.state_dir().join("events.jsonl");
    let mut text = std::fs::read_to_string(&file)?;
    ensure!(text.lines().any(|line| line.contains("before")), "{text}");
    text.push_str("{\"number\":99,\"at\":\"2026-");
    std::fs::write(&file, text)?;
    weir.start()?;
    ensure!(weir.log().contains("damaged"), "{}", weir.log());
    let output = weir.cli(&["events"])?.ok()?;
    ensure!(
        output.stdout.contains("before") && output.stdout.contains("uid 0, pid "),
        "{output:?}"
    );
    let recent = weir.cli(&["events", "--limit", "1", "--json"])?.ok()?.json()?;
    ensure!(
        recent["events"]
            .as_array()
            .is_some_and(|events| events.len() == 1),
        "{recent}"
    );
    weir.cli(&["events", "--since", "yesterday"])?.failed(2, "10m")?;
    Ok(())
}
