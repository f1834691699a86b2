//! Starting, stopping, restarting and taking off; what the controller costs.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 10 }\n";

#[test]
fn enforcing_within_a_second() -> Result<()> {
    let site = Site::new()?;
    let mut figures = Vec::new();
    // The machine may be busy with others: the best of three is what Weir needs.
    for _ in 0..3 {
        let mut weir = site.weir(POLICY)?;
        figures.push(weir.ready_after());
        site.send(&[datagram("192.0.2.1", 60)], 50)?;
        let all = counts(&weir.metrics()?, "web", &[]);
        ensure!(all.drop >= 38, "ready means enforcing: {all:?}");
        weir.stop_with(Signal::SIGTERM)?;
    }
    println!("ready after {figures:?}");
    ensure!(
        figures.iter().any(|took| *took < Duration::from_secs(1)),
        "{figures:?}"
    );
    Ok(())
}

#[test]
fn the_controller_is_small_and_idle() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["status"])?.ok()?;
    weir.metrics()?;
    let pid = weir.pid().context("it runs")?;
    let ticks = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let before = ticks()?;
    std::thread::sleep(Duration::from_secs(5));
    let used = ticks()? - before;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |what: &str| -> Result<u64> {
        let found = status.lines().find_map(|line| line.strip_prefix(what));
        let found = found.with_context(|| format!("no {what}"))?;
        Ok(found.trim().trim_end_matches(" kB").parse()?)
    };
    // How much of the program's file is mapped beside what is its own, is the kernel's choice: it reads around, and takes back.
    let (own, file) = (kilobytes("RssAnon:")?, kilobytes("RssFile:")?);
    println!("a table for a million sources: {own} kB its own, {file} kB of files, {used} ticks of 500 used");
    ensure!(own < 10_000, "{own} kB of its own");
    ensure!(file < 25_000, "{file} kB of files");
    ensure!(used <= 5, "{used} ticks in five seconds");
    Ok(())
}

#[test]
fn stopping_leaves_enforcement_on_and_says_so() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.stop_with(Signal::SIGTERM)?;
    ensure!(weir.log().contains("enforcement stays on"), "{}", weir.log());
    ensure!(site.node.xdp("eth0")?.is_some(), "still attached");
    weir.cli(&["detach"])?.ok()?;
    ensure!(site.node.xdp("eth0")?.is_none(), "taken off");
    ensure!(!weir.bpffs_path().exists(), "and everything pinned with it");
    weir.cli(&["detach"])?.failed(1, "")?;
    Ok(())
}

#[test]
fn detach_on_exit_takes_it_off() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?.with_args(&["--detach-on-exit"]);
    weir.start()?;
    ensure!(site.node.xdp("eth0")?.is_some(), "attached");
    weir.stop_with(Signal::SIGINT)?;
    ensure!(site.node.xdp("eth0")?.is_none(), "taken off");
    Ok(())
}

#[test]
fn a_running_controller_does_not_attach_again() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["detach"])?.ok()?;
    ensure!(
        site.node.xdp("eth0")?.is_none(),
        "taken off through the controller"
    );
    weir.signal(Signal::SIGHUP)?;
    std::thread::sleep(Duration::from_millis(800));
    ensure!(site.node.xdp("eth0")?.is_none(), "and it stays off");
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1,
        "status says that something is wrong: {status:?}"
    );
    ensure!(weir.http("GET", "/readyz")?.0 == 503, "not ready any more");
    Ok(())
}

#[test]
fn the_applied_policy_stays_until_the_file_changes() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let other = weir.dir().join("other.toml");
    fs::write(
        &other,
        format!("{POLICY}[[service]]\nname = \"applied\"\nprotocol = \"tcp\"\n"),
    )?;
    weir.cli(&["policy", "apply", &other.to_string_lossy()])?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    weir.start()?;
    ensure!(
        weir.cli(&["policy", "show"])?.ok()?.stdout.contains("applied"),
        "it survives a restart"
    );
    let status = weir.cli(&["status", "--json"])?.json()?;
    ensure!(
        status.to_string().contains("differ"),
        "status says that they differ: {status}"
    );
    weir.stop_with(Signal::SIGTERM)?;
    weir.write_policy(&format!(
        "{POLICY}[[service]]\nname = \"fresh\"\nprotocol = \"tcp\"\n"
    ))?;
    weir.start()?;
    let shown = weir.cli(&["policy", "show"])?.ok()?.stdout;
    ensure!(
        shown.contains("fresh") && !shown.contains("applied"),
        "a changed file wins: {shown}"
    );
    Ok(())
}

#[test]
fn another_table_replaces_the_old_one_and_says_what_is_lost() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.stop_with(Signal::SIGTERM)?;
    weir.write_policy(&format!("{POLICY}[source]\nmax_tracked = 50000\n"))?;
    weir.start()?;
    ensure!(weir.log().contains("max_tracked"), "{}", weir.log());
    ensure!(
        weir.metrics()?.sum("weir_source_slots", &[]) < 60_000.0,
        "the new table"
    );
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    ensure!(counts(&weir.metrics()?, "web", &[]).drop >= 38, "enforces");
    ensure!(
        fs::read_dir(weir.bpffs_path())?.count() == 2,
        "one set of maps, and the links"
    );
    Ok(())
}

#[test]
fn the_doctor_looks_and_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let bpffs = weir.bpffs_path();
    let fine = weir
        .cli(&[
            "doctor",
            "--interface",
            "eth0",
            "--json",
            "--bpffs",
            &bpffs.to_string_lossy(),
        ])?
        .ok()?
        .json()?;
    ensure!(fine["schema"] == 1 && fine["ok"] == true, "{fine}");
    weir.cli(&["doctor", "--interface", "eth9"]).and_then(|output| {
        ensure!(output.code == 1 && output.stdout.contains("eth9"), "{output:?}");
        Ok(())
    })?;
    Ok(())
}
