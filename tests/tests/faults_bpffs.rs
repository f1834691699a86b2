//! The bpf file system that everything is pinned in, unmounted under the controller.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    command::{Output, finish},
    daemon::Daemon,
    site::{Counts, Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 20 }\n";

/// A controller in a mount namespace of its own, with a bpf file system of its own that ends with it.
fn in_its_own_mounts<'n>(site: &'n Site, policy: &str) -> Result<Daemon<'n>> {
    let weir = Daemon::prepare(&site.node, &["eth0"], policy)?;
    let place = weir.bpffs_path();
    let place = place.parent().context("a folder")?.to_string_lossy().into_owned();
    // Below it no bpf file system: otherwise what is pinned would only move into that.
    let script = "mount -t tmpfs none \"$0\" && mount -t bpf bpf \"$0\" && exec \"$@\"";
    let mut weir = weir.wrapped(&["unshare", "--mount", "sh", "-c", script, &place]);
    weir.start()?;
    Ok(weir)
}

/// Runs a command in the controller's mount and network namespaces.
fn beside(weir: &Daemon<'_>, words: &[&str]) -> Result<Output> {
    let pid = weir.pid().context("it runs")?.to_string();
    let mut command = Command::new("nsenter");
    command
        .args(["--mount", "--net", "--target", &pid, "--"])
        .args(words);
    finish(&mut command, None, Duration::from_secs(10))
}

fn send(site: &Site, weir: &Daemon<'_>, count: u64) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("192.0.2.1", 60)], count)?;
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

/// Waits until status has, or has no more, this word.
fn wait_status(weir: &Daemon<'_>, word: &str, there: bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = weir.cli(&["status"])?;
        if status.stdout.contains(word) == there {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(10) {
            bail!("{word:?} should be there: {there}: {status:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Packets are judged, counted and changed policies come into force all the same; once it is mounted again everything is
/// pinned in it, and outlives the controller as before.
#[test]
fn an_unmounted_bpffs_is_survived_and_mended() -> Result<()> {
    let site = Site::new()?;
    let mut weir = in_its_own_mounts(&site, POLICY)?;
    let first = send(&site, &weir, 50)?;
    ensure!((20..=22).contains(&first.pass), "{first:?}");
    let place = weir.bpffs_path();
    let place = place.parent().context("a folder")?.to_string_lossy().into_owned();
    beside(&weir, &["umount", "-l", &place])?.ok()?;
    let unmounted = send(&site, &weir, 50)?;
    ensure!(
        unmounted.pass <= 6 && unmounted.pass + unmounted.drop == 50,
        "judged by the same bucket: {unmounted:?}"
    );
    wait_status(&weir, "mount it again", true)?;
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("attached"),
        "{status:?}"
    );
    ensure!(
        weir.log().contains("was unmounted") && weir.log().contains("do not stop it"),
        "{}",
        weir.log()
    );
    // Changes work meanwhile, through what the controller holds.
    weir.apply(&format!(
        "{POLICY}[[service]]\nname = \"more\"\nprotocol = \"tcp\"\n"
    ))?
    .ok()?;
    weir.cli(&["ban", "192.0.2.1"])?.ok()?;
    let banned = send(&site, &weir, 10)?;
    ensure!(banned.drop == 10, "{banned:?}");
    weir.cli(&["unban", "192.0.2.1"])?.ok()?;

    beside(&weir, &["mount", "-t", "bpf", "bpf", &place])?.ok()?;
    wait_status(&weir, "mount it again", false)?;
    weir.cli(&["status"])?.ok()?;
    let pinned = beside(&weir, &["find", &place, "-type", "f"])?.ok()?.stdout;
    for name in ["links/native-eth0", "CONTROL", "SOURCES", "state", "page-0-0"] {
        ensure!(pinned.contains(name), "{name} is not pinned again: {pinned}");
    }
    let mended = send(&site, &weir, 50)?;
    ensure!(
        mended.pass <= 8 && mended.pass + mended.drop == 50,
        "nothing was lost: {mended:?}"
    );
    weir.apply(POLICY)?.ok()?;
    // It outlives this controller again: somebody else must hold the mount, as the machine does elsewhere.
    let pid = weir.pid().context("it runs")?.to_string();
    let mut holder = Command::new("nsenter")
        .args(["--mount", "--net", "--target", &pid, "--"])
        .args(["sh", "-c", "echo here; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = holder.stdout.take().context("its output")?;
    out.read_exact(&mut [0; 4])?;
    weir.stop_with(Signal::SIGKILL)?;
    let stays = site.node.xdp("eth0")?.is_some();
    holder.kill()?;
    holder.wait()?;
    ensure!(stays, "still attached without a controller");
    Ok(())
}

#[test]
fn a_removed_folder_is_noticed() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    std::fs::remove_dir_all(weir.bpffs_path())?;
    wait_status(&weir, "was removed", true)?;
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("restart weir"),
        "{status:?}"
    );
    ensure!(weir.http("GET", "/readyz")?.0 == 503, "not ready any more");
    Ok(())
}
