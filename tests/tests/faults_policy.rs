//! Policy files that are half written, and feeds as large as they come.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    flood::Flood,
    frame::Frame,
    sender::Plan,
    site::{Site, counts, datagram, reason},
};

const POLICY: &str = r#"version = 1
mode = "enforce"
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 20 }
"#;

/// Writes as an editor in distress would: in place, and not all of it. The time says that it rested since.
fn write_in_place(path: &Path, text: &[u8]) -> Result<()> {
    fs::write(path, text)?;
    let file = fs::File::options().write(true).open(path)?;
    Ok(file.set_modified(SystemTime::now() - Duration::from_secs(10))?)
}

/// Waits until the log has so many lines with these words.
fn wait_log(weir: &Daemon<'_>, words: &str, count: usize) -> Result<String> {
    let begun = Instant::now();
    loop {
        let log = weir.log();
        if log.matches(words).count() >= count {
            return Ok(log);
        }
        if begun.elapsed() > Duration::from_secs(5) {
            bail!("{words:?} is not {count} times in: {log}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// The file is cut at every byte and a SIGHUP sent. Where what is left is no policy the old one stays and the log names the
/// place; then the whole file is taken.
#[test]
fn a_file_cut_anywhere_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let fresh = POLICY.replace("name = \"web\"", "name = \"renamed\"");
    let flood = Flood::start(
        &site.client,
        "eth0",
        vec![datagram("192.0.2.1", 60), datagram("198.51.100.7", 60)],
        Plan::rate(10_000, Duration::from_mins(1)),
    )?;
    let (mut refused, mut valid) = (0, 0);
    for cut in 0..fresh.len() {
        let text = &fresh[..cut];
        if weir::policy::parse(text, &weir.policy_path()).is_ok() {
            // A half that is a whole policy by itself is taken when it has rested: see below, and SPECIFICATION.md.
            valid += 1;
            continue;
        }
        write_in_place(&weir.policy_path(), text.as_bytes())?;
        weir.signal(Signal::SIGHUP)?;
        refused += 1;
        let log = wait_log(&weir, "is not put in force", refused)?;
        let (_, last) = log.rsplit_once("SIGHUP").context("a line that says why")?;
        ensure!(
            last.contains("policy.toml:"),
            "cut at {cut}: the place is not named: {last}"
        );
    }
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let web = counts(&metrics, "web", &[]);
    println!("{refused} halves refused, {valid} are policies; {web:?}");
    ensure!(refused > 150 && valid > 0, "{refused} refused, {valid} valid");
    ensure!(web.pass + web.drop == sent.frames, "{web:?} of {}", sent.frames);
    let expected = 20.0 + sent.took.as_secs_f64();
    ensure!(
        (web.pass as f64 - expected).abs() <= 2.0,
        "{web:?}, not {expected:.1}: the old policy stays all along"
    );
    ensure!(
        reason(&metrics, "web", "list") == sent.frames / 2,
        "and its list: {}",
        reason(&metrics, "web", "list")
    );
    write_in_place(&weir.policy_path(), fresh.as_bytes())?;
    weir.signal(Signal::SIGHUP)?;
    wait_log(&weir, "policy in force", 1)?;
    ensure!(
        weir.cli(&["policy", "show"])?.ok()?.stdout.contains("renamed"),
        "the whole file is taken"
    );
    Ok(())
}

/// A file whose first half is a policy by itself is still being written when the SIGHUP comes: the controller waits for the
/// rest of it.
#[test]
fn a_file_that_is_being_written_is_waited_for() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let first = "version = 1\n";
    weir::policy::parse(first, &weir.policy_path()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    fs::write(weir.policy_path(), first)?;
    weir.signal(Signal::SIGHUP)?;
    let rest = POLICY.replace("name = \"web\"", "name = \"renamed\"");
    let mut written = first.to_owned();
    for line in rest.lines().skip(1) {
        thread::sleep(Duration::from_millis(60));
        let _ = writeln!(written, "{line}");
        fs::write(weir.policy_path(), &written)?;
    }
    let log = wait_log(&weir, "policy in force", 1)?;
    ensure!(
        log.matches("policy in force").count() == 1 && log.contains("services=1"),
        "the half was taken: {log}"
    );
    ensure!(
        weir.cli(&["policy", "show"])?.ok()?.stdout.contains("renamed"),
        "the whole file is in force"
    );
    Ok(())
}

/// The `n`-th address of a feed.
fn banned(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + n * 7)
}

fn from(source: Ipv4Addr) -> Vec<u8> {
    Frame::new()
        .ips(source.into(), [10, 77, 0, 2].into())
        .udp(4000, 80)
        .payload(&[0; 18])
        .build()
}

/// Ten thousand bans in one feed, with traffic from banned and from others all the while: each banned source is dropped from
/// the moment it is in force, and nobody else ever is.
#[test]
fn ten_thousand_bans_at_once_under_traffic() -> Result<()> {
    const BANS: u32 = 10_000;
    let site = Site::new()?;
    let roomy = POLICY.replace("rate = 1, burst = 20", "rate = \"1M\", burst = \"1M\"");
    let mut weir = site.weir(&roomy)?;
    // Every other frame is of a source that will be banned, and every other of a neighbour that will not.
    let frames: Vec<Vec<u8>> = (0..200)
        .flat_map(|n| {
            [
                from(banned(n * 50)),
                from(Ipv4Addr::from(u32::from(banned(n * 50)) + 1)),
            ]
        })
        .collect();
    let flood = Flood::start(
        &site.client,
        "eth0",
        frames,
        Plan::rate(20_000, Duration::from_mins(1)),
    )?;
    let feed = (0..BANS).fold(String::new(), |text, n| text + &format!("{}\n", banned(n)));
    let output = weir.cli_with_input(&["ban", "-", "--for", "1h"], &feed)?.ok()?;
    println!("{BANS} bans in {:?}", output.took);
    thread::sleep(Duration::from_millis(200));
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let web = counts(&metrics, "web", &[]);
    ensure!(web.pass + web.drop == sent.frames, "{web:?} of {}", sent.frames);
    ensure!(
        web.drop == reason(&metrics, "web", "ban") && web.drop <= sent.frames.div_ceil(2) && web.drop > 0,
        "only banned sources are dropped: {web:?}"
    );
    let each: Vec<Vec<u8>> = (0..BANS).map(|n| from(banned(n))).collect();
    for round in ["in force", "after a restart"] {
        let before = counts(&weir.metrics()?, "web", &[]);
        let sent = site.send(&each, u64::from(BANS))?;
        let after = counts(&weir.metrics()?, "web", &[]).since(before);
        ensure!(
            after.drop == sent.frames && after.pass == 0,
            "{round}: {after:?} of {}",
            sent.frames
        );
        weir.stop_with(Signal::SIGKILL)?;
        weir.start()?;
    }
    Ok(())
}

/// A hundred thousand prefixes come in at once from a file, then in an exchange for a hundred thousand others under traffic:
/// a source that is in both is dropped throughout, one that is in neither passes throughout, and every packet is counted.
#[test]
fn a_hundred_thousand_prefixes_under_traffic() -> Result<()> {
    const PREFIXES: u32 = 100_000;
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], "")?;
    // 203.0.113.0/24 stays in both; the rest is /32 and another half.
    let feed = |first: u8| {
        (0..PREFIXES - 1).fold(String::from("203.0.113.0/24\n"), |mut text, n| {
            let _ = writeln!(text, "{first}.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
            text
        })
    };
    let file = weir.dir().join("feed.txt");
    fs::write(&file, feed(11))?;
    let policy = format!(
        "version = 1\n[lists.feed]\naction = \"drop\"\nfiles = [\"{}\"]\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n",
        file.display()
    );
    weir.write_policy(&policy)?;
    weir.start()?;
    println!("ready after {:?}", weir.ready_after());
    let dropped = |source: &str| -> Result<bool> {
        let before = counts(&weir.metrics()?, "web", &[]);
        site.send(&[datagram(source, 60)], 10)?;
        let after = counts(&weir.metrics()?, "web", &[]).since(before);
        ensure!(after.drop == 10 || after.pass == 10, "{source}: {after:?}");
        Ok(after.drop == 10)
    };
    ensure!(dropped("11.1.134.158")?, "the last of the file is in force");
    ensure!(!dropped("12.0.0.1")?, "the other half is not");
    let start = counts(&weir.metrics()?, "web", &[]);
    let flood = Flood::start(
        &site.client,
        "eth0",
        ["203.0.113.7", "192.0.2.7", "11.0.0.1", "12.0.0.1"]
            .map(|source| datagram(source, 60))
            .to_vec(),
        Plan::rate(20_000, Duration::from_mins(1)),
    )?;
    let output = weir
        .cli_with_input(&["list", "replace", "feed", "-", "--force"], &feed(12))?
        .ok()?;
    println!("{PREFIXES} prefixes replaced in {:?}", output.took);
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let all = counts(&weir.metrics()?, "web", &[]).since(start);
    ensure!(all.pass + all.drop == sent.frames, "{all:?} of {}", sent.frames);
    // One of four is always dropped and one never; of the other two one is, before the switch and after it. The switch falls
    // between two packets.
    let half = sent.frames / 2;
    ensure!(
        all.drop.abs_diff(half) <= 2 + sent.refused,
        "{all:?} of {}: some packet saw neither list, or both",
        sent.frames
    );
    ensure!(
        dropped("12.1.134.158")? && !dropped("11.0.0.1")? && dropped("203.0.113.99")?,
        "the new one is in force"
    );
    Ok(())
}
