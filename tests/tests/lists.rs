//! Lists: in the policy, in files, and fed live.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram},
};

const POLICY: &str = r#"
version = 1
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24", "192.0.2.128/25"]
[lists.good]
action = "trust"
prefixes = ["198.51.100.64/26", "192.0.2.128/25"]
[lists.cdn]
proxy = true
prefixes = ["10.200.0.0/16"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 5 }
"#;

/// How many of ten packets from a source pass.
fn passed(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<u64> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], 10)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(after.pass + after.drop == 10, "{after:?}");
    Ok(after.pass)
}

#[test]
fn the_longest_prefix_decides_and_a_tie_drops() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    for (source, expected) in [
        ("198.51.100.1", 0..=0),
        ("198.51.100.65", 10..=10),
        ("192.0.2.200", 0..=0),
        ("192.0.2.1", 5..=6),
        ("10.200.1.1", 10..=10),
    ] {
        let got = passed(&site, &weir, source)?;
        ensure!(
            expected.contains(&got),
            "{source}: {got} of 10 passed, not {expected:?}"
        );
    }
    Ok(())
}

#[test]
fn a_list_is_fed_live_and_keeps_it() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["list", "add", "bad", "203.0.113.0/24"])?.ok()?;
    ensure!(passed(&site, &weir, "203.0.113.9")? == 0, "added");
    weir.cli(&["list", "remove", "bad", "198.51.100.0/24"])?.ok()?;
    ensure!(passed(&site, &weir, "198.51.100.1")? >= 5, "removed");
    weir.cli(&["list", "add", "bad", "203.0.114.0/24", "--for", "1s"])?
        .ok()?;
    ensure!(passed(&site, &weir, "203.0.114.9")? == 0, "added for a second");
    std::thread::sleep(Duration::from_millis(1_800));
    ensure!(passed(&site, &weir, "203.0.114.10")? >= 5, "gone after it");
    weir.stop_with(Signal::SIGTERM)?;
    weir.start()?;
    ensure!(
        passed(&site, &weir, "203.0.113.10")? == 0,
        "kept across a restart"
    );
    let shown = weir.cli(&["list", "show", "bad", "--json"])?.ok()?.json()?;
    ensure!(
        shown["schema"] == 1 && shown.to_string().contains("203.0.113.0/24"),
        "{shown}"
    );
    weir.cli(&["list", "add", "nobody", "203.0.113.0/24"])?
        .failed(1, "nobody")?;
    Ok(())
}

#[test]
fn an_empty_or_wildly_different_feed_is_refused() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let feed = |count: u32| {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "10.{}.{}.0/24", n / 256, n % 256);
            text
        })
    };
    weir.cli_with_input(&["list", "replace", "bad", "-", "--force"], &feed(10_000))?
        .ok()?;
    ensure!(
        passed(&site, &weir, "10.39.15.7")? == 0,
        "ten thousand prefixes are in force"
    );
    weir.cli_with_input(&["list", "replace", "bad", "-"], "")?
        .failed(1, "force")?;
    weir.cli_with_input(&["list", "replace", "bad", "-"], &feed(5_000))?
        .failed(1, "force")?;
    ensure!(passed(&site, &weir, "10.39.15.8")? == 0, "the old content stays");
    weir.cli_with_input(&["list", "replace", "bad", "-"], &feed(9_500))?
        .ok()?;
    weir.cli_with_input(
        &["list", "replace", "bad", "-", "--max-change", "60%"],
        &feed(5_000),
    )?
    .ok()?;
    ensure!(passed(&site, &weir, "10.39.15.9")? >= 5, "the new one holds");
    Ok(())
}

#[test]
fn only_locks_an_origin_to_its_lists() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&POLICY.replace("ports = [80]", "ports = [80]\nonly = [\"cdn\"]"))?;
    ensure!(passed(&site, &weir, "10.200.3.3")? == 10, "a member");
    ensure!(passed(&site, &weir, "192.0.2.1")? == 0, "a stranger");
    Ok(())
}

#[test]
fn ten_thousand_prefixes_from_a_file_load_in_seconds() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], "")?;
    let file = weir.dir().join("bad.txt");
    let text = (0..10_000u32).fold(String::from("# made by a test\n"), |mut text, n| {
        let _ = writeln!(text, "10.{}.{}.0/24", n / 256, n % 256);
        text
    });
    std::fs::write(&file, text)?;
    weir.write_policy(&format!(
        "{POLICY}\n[lists.filed]\naction = \"drop\"\nfiles = [\"{}\"]\n",
        file.display()
    ))?;
    weir.start()?;
    println!("ready after {:?}", weir.ready_after());
    ensure!(
        passed(&site, &weir, "10.39.15.7")? == 0,
        "the last of them is in force"
    );
    Ok(())
}
