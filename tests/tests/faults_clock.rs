//! Clocks that jump, and reboots: bans end when they should.
//!
//! The machine's clocks are left alone: a reboot is what the state directory sees of it (the kernel's half is gone, and the
//! boot has another name), and a step of the wall clock is a time in it that has moved against the present.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n";

/// Whether all of ten packets are dropped; none must be otherwise.
fn dropped(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<bool> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], 10)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(after.drop == 10 || after.pass == 10, "{source}: {after:?}");
    Ok(after.drop == 10)
}

/// Changes what the state directory says of each ban.
fn edit(weir: &Daemon<'_>, boot_id: Option<&str>, change: impl Fn(&str, &mut Value)) -> Result<()> {
    let path = weir.state_dir().join("bans.json");
    let mut saved: Value = serde_json::from_slice(&fs::read(&path)?)?;
    if let Some(boot_id) = boot_id {
        saved["boot_id"] = boot_id.into();
    }
    for ban in saved["bans"].as_array_mut().context("bans")? {
        let prefix = ban["prefix"].as_str().context("a prefix")?.to_owned();
        change(&prefix, ban);
    }
    Ok(fs::write(path, serde_json::to_vec(&saved)?)?)
}

/// Seconds that a ban has left; nothing for one without end.
fn left(weir: &Daemon<'_>, prefix: &str) -> Result<Option<u64>> {
    let answer = weir.cli(&["bans", "--json"])?.ok()?.json()?;
    let bans = answer["bans"].as_array().context("bans")?;
    let ban = bans
        .iter()
        .find(|ban| ban["prefix"] == prefix)
        .with_context(|| format!("{prefix} is not in {answer}"))?;
    Ok(ban["seconds_left"].as_u64())
}

#[test]
fn bans_end_on_time_across_a_reboot() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    for (source, time) in [("192.0.2.1", "1h"), ("192.0.2.2", "1h"), ("192.0.2.3", "1h")] {
        weir.cli(&["ban", source, "--for", time])?.ok()?;
    }
    weir.cli(&["ban", "192.0.2.4"])?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    // What a reboot leaves: no maps, no programs, another boot, and ends on a clock that began anew.
    weir.cli(&["detach"])?.ok()?;
    edit(&weir, Some("another boot"), |prefix, ban| {
        if ban["until_ns"].is_u64() {
            ban["until_ns"] = u64::MAX.into();
        }
        match prefix {
            // Its hour went by while the machine was down.
            "192.0.2.2/32" => ban["until"] = "2001-01-01T00:00:00Z".into(),
            // The clock was wrong by decades when it was made, or is now.
            "192.0.2.3/32" => {
                ban["created_at"] = "2090-01-01T00:00:00Z".into();
                ban["until"] = "2090-01-01T01:00:00Z".into();
            }
            _ => {}
        }
    })?;
    weir.start()?;
    ensure!(
        dropped(&site, &weir, "192.0.2.1")?,
        "what was left of its hour is in force"
    );
    ensure!(!dropped(&site, &weir, "192.0.2.2")?, "it has ended");
    ensure!(
        dropped(&site, &weir, "192.0.2.3")?,
        "in force, whatever the clock says"
    );
    ensure!(dropped(&site, &weir, "192.0.2.4")?, "without end");
    for prefix in ["192.0.2.1/32", "192.0.2.3/32"] {
        let seconds = left(&weir, prefix)?.context("an end")?;
        ensure!((3_500..=3_600).contains(&seconds), "{prefix}: {seconds} s left");
    }
    ensure!(left(&weir, "192.0.2.4/32")?.is_none(), "none");
    Ok(())
}

#[test]
fn a_step_of_the_wall_clock_moves_no_ban_within_a_boot() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    for source in ["192.0.2.1", "192.0.2.2"] {
        weir.cli(&["ban", source, "--for", "1h"])?.ok()?;
    }
    weir.stop_with(Signal::SIGKILL)?;
    edit(&weir, None, |prefix, ban| {
        ban["until"] = if prefix == "192.0.2.1/32" {
            "2001-01-01T00:00:00Z".into()
        } else {
            "2090-01-01T00:00:00Z".into()
        };
    })?;
    weir.start()?;
    for source in ["192.0.2.1", "192.0.2.2"] {
        ensure!(dropped(&site, &weir, source)?, "{source} is in force");
        let seconds = left(&weir, &format!("{source}/32"))?.context("an end")?;
        ensure!((3_500..=3_600).contains(&seconds), "{source}: {seconds} s left");
    }
    Ok(())
}
