//! `weir doctor` on real interfaces: what it flags, how it exits, what its JSON holds, and that it changes nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{command::Output, daemon::Daemon, site::Site};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 10 }\n";

/// Asks the doctor about interfaces of the node, with the bpffs directory that `weir` uses.
fn doctor(weir: &Daemon<'_>, bpffs: &str, interfaces: &[&str], json: bool) -> Result<Output> {
    let mut args = vec!["doctor", "--bpffs", bpffs];
    for interface in interfaces {
        args.extend(["--interface", interface]);
    }
    if json {
        args.push("--json");
    }
    weir.cli(&args)
}

/// The findings of one check on one interface, or on the machine.
fn of<'a>(answer: &'a Value, check: &str, interface: Option<&str>) -> Vec<&'a Value> {
    answer["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|finding| finding["check"] == check && finding["interface"].as_str() == interface)
        .collect()
}

/// The one finding of a check.
fn one<'a>(answer: &'a Value, check: &str, interface: Option<&str>) -> Result<&'a Value> {
    let found = of(answer, check, interface);
    ensure!(
        found.len() == 1,
        "{check} on {interface:?} is there {} times: {answer}",
        found.len()
    );
    Ok(found[0])
}

#[test]
fn a_node_that_is_ready_is_healthy_in_json_and_in_lines() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let bpffs = weir.bpffs_path().to_string_lossy().into_owned();
    let answer = doctor(&weir, &bpffs, &["eth0"], true)?.ok()?.json()?;
    ensure!(answer["schema"] == 1 && answer["ok"] == true, "{answer}");
    let findings = answer["findings"].as_array().context("no findings")?;
    for finding in findings {
        let keys: BTreeSet<&str> = finding
            .as_object()
            .context("a finding is an object")?
            .keys()
            .map(String::as_str)
            .collect();
        ensure!(
            ["check", "level", "what"].iter().all(|key| keys.contains(key))
                && keys.is_subset(&BTreeSet::from(["check", "interface", "level", "what", "mend"])),
            "{finding}"
        );
        let level = finding["level"].as_str().context("a level is a word")?;
        ensure!(["ok", "warn", "fail"].contains(&level), "{finding}");
        ensure!(
            level == "ok" || finding["mend"].is_string(),
            "what is not ok says how to mend it: {finding}"
        );
    }
    for check in ["kernel", "btf", "jit", "bpffs", "capabilities"] {
        one(&answer, check, None)?;
    }
    for check in ["interface", "driver", "mtu", "xdp"] {
        ensure!(one(&answer, check, Some("eth0"))?["level"] == "ok", "{answer}");
    }
    ensure!(!of(&answer, "features", None).is_empty(), "{answer}");
    // The same in lines: one each, the level first.
    let lines = doctor(&weir, &bpffs, &["eth0"], false)?.ok()?.stdout;
    ensure!(lines.lines().count() == findings.len(), "{lines}");
    ensure!(
        lines.lines().all(|line| ["ok ", "warn ", "fail "]
            .iter()
            .any(|level| line.starts_with(level))),
        "{lines}"
    );
    ensure!(site.node.xdp("eth0")?.is_none(), "it attaches nothing");
    ensure!(!weir.bpffs_path().exists(), "and pins nothing");
    Ok(())
}

#[test]
fn a_missing_interface_fails_and_the_others_are_still_judged() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let bpffs = weir.bpffs_path().to_string_lossy().into_owned();
    let output = doctor(&weir, &bpffs, &["eth9", "eth0"], true)?;
    ensure!(output.code == 1, "{output:?}");
    let answer = output.json()?;
    ensure!(answer["ok"] == false, "{answer}");
    ensure!(
        one(&answer, "interface", Some("eth9"))?["level"] == "fail",
        "{answer}"
    );
    ensure!(
        one(&answer, "interface", Some("eth0"))?["level"] == "ok",
        "{answer}"
    );
    site.node.down("eth0")?;
    let answer = doctor(&weir, &bpffs, &["eth0"], true)?.ok()?.json()?;
    let down = one(&answer, "interface", Some("eth0"))?;
    ensure!(
        down["level"] == "warn" && down["mend"] == "ip link set dev eth0 up",
        "{answer}"
    );
    Ok(())
}

#[test]
fn its_own_program_is_fine_and_that_of_another_is_in_the_way() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let own = weir.bpffs_path().to_string_lossy().into_owned();
    let answer = doctor(&weir, &own, &["eth0"], true)?.ok()?.json()?;
    let (id, _) = site.node.xdp("eth0")?.context("weir is attached")?;
    let what = &one(&answer, "xdp", Some("eth0"))?["what"];
    ensure!(
        what.as_str()
            .is_some_and(|what| what.contains("Weir's own") && what.contains(&format!("id {id}"))),
        "{answer}"
    );
    // Seen from another bpffs directory, the same program belongs to somebody else.
    let other = weir_tests::bpffs::BpffsDir::create()?;
    let elsewhere = other.path().join("weir").to_string_lossy().into_owned();
    let output = doctor(&weir, &elsewhere, &["eth0"], true)?;
    ensure!(output.code == 1, "{output:?}");
    let answer = output.json()?;
    let occupied = one(&answer, "xdp", Some("eth0"))?;
    ensure!(
        occupied["level"] == "fail"
            && occupied["what"]
                .as_str()
                .is_some_and(|what| what.contains(&format!("id {id}"))),
        "{answer}"
    );
    ensure!(
        site.node.xdp("eth0")?.map(|(id, _)| id) == Some(id),
        "and stays where it is"
    );
    Ok(())
}

#[test]
fn a_directory_outside_bpffs_fails() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let plain = weir.dir().join("weir").to_string_lossy().into_owned();
    let output = doctor(&weir, &plain, &["eth0"], true)?;
    ensure!(output.code == 1, "{output:?}");
    let answer = output.json()?;
    ensure!(one(&answer, "bpffs", None)?["level"] == "fail", "{answer}");
    ensure!(!weir.dir().join("weir").exists(), "it makes no directory");
    Ok(())
}
