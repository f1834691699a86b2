//! Programs that carry what the policy needs and no more, replaced before and after a policy that needs more or less.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    bpf::program::{by_number, name_by_number},
    daemon::Daemon,
    site::{Site, counts, datagram, reason},
};

/// A service that counts.
const SMALL: &str = "version = 1\n[default]\nprofile = false\n[sampling]\none_in = 0\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\nprofile = false\n";

/// Every stage.
const LARGE: &str = r#"
version = 1
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 20 }
bytes = { rate = "1kB", burst = "1MB" }
connections = { rate = 1, burst = 20 }
block = { for = "30s", drops = 1000, within = "10s" }
[service.per_network]
packets = { rate = 100, burst = 10000 }
[service.total]
packets = { rate = 1000, burst = 100000 }
"#;

/// The program on the node's interface: its number, and how many instructions it has.
fn loaded(site: &Site) -> Result<(u32, u32)> {
    let shown: Value = serde_json::from_str(&site.node.ip(&["-json", "link", "show", "dev", "eth0"])?)?;
    let id = shown[0]["xdp"]["prog"]["id"].as_u64().context("no program")? as u32;
    Ok((id, by_number(id)?.instructions))
}

/// The program, as soon as it has at most so many instructions.
fn slimmed(site: &Site, most: u32) -> Result<(u32, u32)> {
    let begun = Instant::now();
    loop {
        let now = loaded(site)?;
        if now.1 <= most {
            return Ok(now);
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "still {} instructions",
            now.1
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// What the large policy does, it does from the first packet on.
fn enforces(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<()> {
    let before = counts(&weir.metrics()?, "web", &[]);
    let listed = reason(&weir.metrics()?, "web", "list");
    site.send(&[datagram("198.51.100.7", 60)], 50)?;
    site.send(&[datagram(source, 60)], 100)?;
    let metrics = weir.metrics()?;
    let now = counts(&metrics, "web", &[]).since(before);
    ensure!(reason(&metrics, "web", "list") == listed + 50, "{now:?}");
    ensure!(
        (20..=23).contains(&now.pass) && now.drop == 150 - now.pass,
        "{now:?}"
    );
    Ok(())
}

#[test]
fn a_program_has_what_its_policy_needs() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(SMALL)?;
    let (_, small) = loaded(&site)?;

    weir.apply(LARGE)?.ok()?;
    let (grown, large) = loaded(&site)?;
    println!("{small} instructions, and {large}");
    ensure!(large > 2 * small, "{small}, {large}");
    enforces(&site, &weir, "192.0.2.1")?;

    // The same needs: the same program.
    weir.apply(&LARGE.replace("burst = 10000", "burst = 9000"))?
        .ok()?;
    ensure!(loaded(&site)?.0 == grown, "it was replaced for nothing");
    // Nor is it for what is done while a policy is in force.
    weir.cli(&["list", "add", "bad", "203.0.113.0/24"])?.ok()?;
    weir.cli(&["scale", "web", "50%", "--for", "1m"])?.ok()?;
    weir.cli(&["bypass", "--for", "1m", "--all"])?.ok()?;
    weir.cli(&["ban", "192.0.2.77", "--for", "1m"])?.ok()?;
    ensure!(
        loaded(&site)?.0 == grown,
        "it was replaced for a lever, a list or a ban"
    );
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("198.51.100.7", 60), datagram("192.0.2.77", 60)], 60)?;
    let passed = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(passed.pass == 60, "the bypass passes everything: {passed:?}");
    weir.cli(&["lever", "clear"])?.ok()?;

    weir.apply(SMALL)?.ok()?;
    slimmed(&site, small)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("198.51.100.7", 60), datagram("192.0.2.77", 60)], 60)?;
    let now = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        now.pass == 30 && now.drop == 30,
        "a ban needs no policy to speak of it: {now:?}"
    );
    Ok(())
}

/// The name of the program on the node's interface, as soon as it is `wanted` (a smaller one comes after its policy).
fn named(site: &Site, wanted: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let name = name_by_number(loaded(site)?.0)?;
        if name == wanted {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "{name} instead of {wanted}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Each of the sizes judges alike what is limited under all of them, and none is there for longer than it must.
#[test]
fn the_smallest_program_that_serves_the_policy_judges() -> Result<()> {
    let limits = "[service.per_source]\npackets = { rate = 1, burst = 20 }\n[service.total]\npackets = { rate = 1000, burst = 100000 }\n";
    let lean = format!("{SMALL}{limits}");
    let base = lean
        .replace("profile = false\n", "")
        .replace("[sampling]\none_in = 0\n", "");
    let full = format!("{base}[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n");
    let all = full.replace("ports = [80]\n", "ports = [80]\naddresses = [\"0.0.0.0/0\"]\n");
    let ports = lean.replace(
        "ports = [80]\n",
        "ports = [80]\nsource_ports = [\"1024-65535\"]\n",
    );
    let site = Site::new()?;
    let weir = site.weir(&lean)?;
    let mut sources = (1..).map(|at| format!("192.0.2.{at}"));
    for (policy, program) in [
        (&lean, "weir_lean"),
        (&base, "weir_base"),
        (&full, "weir_full"),
        (&all, "weir"),
        (&lean, "weir_lean"),
        // It has no buckets of sources.
        (&SMALL.to_owned(), "weir"),
        // Nor does a table of services by port tell these apart.
        (&ports, "weir"),
        (&base, "weir_base"),
    ] {
        weir.apply(policy)?.ok()?;
        named(&site, program)?;
        let before = counts(&weir.metrics()?, "web", &[]);
        let source = sources.next().context("a source")?;
        site.send(&[datagram(&source, 60)], 100)?;
        let now = counts(&weir.metrics()?, "web", &[]).since(before);
        let limited = policy != SMALL;
        ensure!(
            now.pass + now.drop == 100 && (20..=23).contains(&now.pass) == limited,
            "{program}: {now:?}"
        );
    }
    Ok(())
}

#[test]
fn a_list_that_was_empty_needs_no_other_program() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&format!("{SMALL}[lists.bad]\naction = \"drop\"\n"))?;
    let (before, _) = loaded(&site)?;
    weir.cli(&["list", "add", "bad", "198.51.100.0/24"])?.ok()?;
    ensure!(loaded(&site)?.0 == before);
    site.send(&[datagram("198.51.100.7", 60)], 50)?;
    ensure!(reason(&weir.metrics()?, "web", "list") == 50);
    Ok(())
}

#[test]
fn while_a_policy_waits_both_are_served() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(LARGE)?;
    enforces(&site, &weir, "192.0.2.1")?;
    let (_, large) = loaded(&site)?;
    let file = weir.dir().join("small.toml");
    fs::write(&file, SMALL)?;
    weir.cli(&[
        "policy",
        "apply",
        &file.to_string_lossy(),
        "--confirm-within",
        "3s",
    ])?
    .ok()?;
    // The kernel may go back by itself at any time: nothing may be missing then.
    ensure!(loaded(&site)?.1 >= large);
    thread::sleep(Duration::from_millis(3_500));
    enforces(&site, &weir, "192.0.2.2")?;
    weir.cli(&[
        "policy",
        "apply",
        &file.to_string_lossy(),
        "--confirm-within",
        "30s",
    ])?
    .ok()?;
    weir.cli(&["policy", "confirm"])?.ok()?;
    slimmed(&site, large / 2)?;
    Ok(())
}
