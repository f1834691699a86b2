//! A full disk under the state directory: what is in force is in force, and is saved when there is room again.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[lists.bad]\naction = \"drop\"\nprefixes = []\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n";

/// Mounts a small file system in a folder; it goes with this value.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=256k"),
        )
        .with_context(|| format!("cannot mount a tmpfs at {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Fills it to the last block; removing the file makes room again.
    fn fill(&self) -> Result<PathBuf> {
        let ballast = self.path.join("ballast");
        let full = fs::write(&ballast, vec![1; 1 << 20]);
        ensure!(full.is_err(), "a megabyte fits into a quarter of one");
        Ok(ballast)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

fn drops(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<u64> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], 10)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(after.pass + after.drop == 10, "{after:?}");
    Ok(after.drop)
}

fn wait_saved(weir: &Daemon<'_>) -> Result<()> {
    let begun = Instant::now();
    while weir.cli(&["status"])?.stdout.contains("not saved") {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("still not saved: {}", weir.log());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn changes_on_a_full_disk_hold_and_are_saved_later() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let disk = SmallDisk::mount(&weir.state_dir())?;
    weir.start()?;
    weir.cli(&["ban", "192.0.2.1"])?.ok()?;
    weir.cli(&["status"])?.ok()?;
    let ballast = disk.fill()?;
    weir.cli(&["ban", "192.0.2.2"])?.ok()?;
    weir.cli(&["list", "add", "bad", "203.0.113.0/24"])?.ok()?;
    let other = format!("{POLICY}[[service]]\nname = \"applied\"\nprotocol = \"tcp\"\n");
    let applied = weir.apply(&other)?.ok()?;
    ensure!(
        format!("{}{}", applied.stdout, applied.stderr).contains("would be lost with the next restart"),
        "{applied:?}"
    );
    for source in ["192.0.2.1", "192.0.2.2", "203.0.113.9"] {
        ensure!(drops(&site, &weir, source)? == 10, "{source} is in force");
    }
    let status = weir.cli(&["status"])?;
    for word in ["not saved", "No space left on device", "--state-dir"] {
        ensure!(
            status.code == 1 && status.stdout.contains(word),
            "{word:?} is not in: {status:?}"
        );
    }
    ensure!(
        weir.log().matches("cannot be saved").count() == 1,
        "said once: {}",
        weir.log()
    );
    fs::remove_file(ballast)?;
    wait_saved(&weir)?;
    weir.cli(&["status"])?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    weir.start()?;
    for source in ["192.0.2.1", "192.0.2.2", "203.0.113.9"] {
        ensure!(
            drops(&site, &weir, source)? == 10,
            "{source} outlived the restart"
        );
    }
    ensure!(
        weir.cli(&["policy", "show"])?.ok()?.stdout.contains("applied"),
        "so did the policy"
    );
    weir.stop_with(Signal::SIGTERM)?;
    weir.cli(&["detach"])?.ok()?;
    Ok(())
}

/// A controller that was killed on a full disk starts there again, with what was saved before.
#[test]
fn a_start_on_a_full_disk() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let disk = SmallDisk::mount(&weir.state_dir())?;
    weir.start()?;
    weir.cli(&["ban", "192.0.2.1"])?.ok()?;
    let ballast = disk.fill()?;
    weir.stop_with(Signal::SIGKILL)?;
    weir.start()?;
    ensure!(drops(&site, &weir, "192.0.2.1")? == 10, "the ban that was saved");
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("not saved"),
        "{status:?}"
    );
    fs::remove_file(ballast)?;
    wait_saved(&weir)?;
    weir.cli(&["status"])?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    weir.cli(&["detach"])?.ok()?;
    Ok(())
}
