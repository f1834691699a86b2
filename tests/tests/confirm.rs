//! Policies that wait for confirmation: the kernel goes back by itself, whoever lives to see it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::{
    command::Output,
    daemon::Daemon,
    flood::Flood,
    sender::Plan,
    site::{Counts, Site, counts, datagram, reason},
};

/// Port 80 limited to so many packets back to back, with next to no refill.
fn policy(burst: u32, more: &str) -> String {
    format!(
        "version = 1\n[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = {{ rate = 1, burst = {burst} }}\n{more}"
    )
}

/// Everything to port 80 is another service, without limits: nothing of the old policy's is left.
const OTHER: &str = "version = 1\n[[service]]\nname = \"open\"\nprotocol = \"udp\"\nports = [80]\n[service.total]\npackets = { rate = 1000000, burst = 1000000 }\n";

fn apply_within(weir: &Daemon<'_>, policy: &str, time: &str) -> Result<Output> {
    let file = weir.dir().join("candidate.toml");
    fs::write(&file, policy)?;
    weir.cli(&[
        "policy",
        "apply",
        &file.to_string_lossy(),
        "--confirm-within",
        time,
        "--json",
    ])
}

fn send(site: &Site, weir: &Daemon<'_>, source: &str, count: u64) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], count)?;
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

fn shown(weir: &Daemon<'_>) -> Result<Value> {
    weir.cli(&["policy", "show", "--json"])?.ok()?.json()
}

/// How each revision ended, the oldest first.
fn outcomes(weir: &Daemon<'_>) -> Result<Vec<String>> {
    let history = weir.cli(&["policy", "history", "--json"])?.ok()?.json()?;
    let revisions = history["revisions"].as_array().context("no revisions")?;
    Ok(revisions
        .iter()
        .rev()
        .map(|held| held["outcome"].as_str().unwrap_or_default().to_owned())
        .collect())
}

#[test]
fn it_reverts_by_itself_and_stays_when_confirmed() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(10, ""))?;
    weir.cli(&["policy", "confirm"])?
        .failed(1, "no policy waits for confirmation")?;
    let applied = apply_within(&weir, &policy(50, ""), "3s")?.ok()?.json()?;
    ensure!(
        applied["pending"]["before"] == 1 && applied["pending"]["seconds_left"] == 3,
        "{applied}"
    );
    ensure!(
        weir.metrics()?.sum("weir_policy_pending", &[]) >= 1.0,
        "the metric says so"
    );
    ensure!(
        weir.cli(&["status"])?.stdout.contains("waits for confirmation"),
        "so does status"
    );
    let during = send(&site, &weir, "192.0.2.1", 100)?;
    ensure!((50..=53).contains(&during.pass), "the new one: {during:?}");
    thread::sleep(Duration::from_millis(3_100));
    let after = send(&site, &weir, "192.0.2.2", 100)?;
    ensure!((10..=12).contains(&after.pass), "the old one again: {after:?}");
    let show = shown(&weir)?;
    ensure!(
        show["revision"] == 1 && show["pending"].is_null(),
        "the books follow: {show}"
    );
    weir.cli(&["policy", "confirm"])?.failed(1, "its time is over")?;

    apply_within(&weir, &policy(50, ""), "2s")?.ok()?;
    weir.cli(&["policy", "confirm"])?.ok()?;
    thread::sleep(Duration::from_millis(2_100));
    let kept = send(&site, &weir, "192.0.2.3", 100)?;
    ensure!((50..=52).contains(&kept.pass), "confirmed: {kept:?}");
    ensure!(
        outcomes(&weir)? == ["replaced", "reverted", "in_force"],
        "{:?}",
        outcomes(&weir)?
    );
    Ok(())
}

/// The controller is killed right after the apply and nobody starts it again: the kernel alone goes back.
#[test]
fn it_reverts_when_the_controller_is_dead() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(&policy(10, ""))?;
    let before = counts(&weir.metrics()?, "web", &[]);
    let applied = Instant::now();
    apply_within(&weir, &policy(50, ""), "3s")?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    ensure!(
        applied.elapsed() < Duration::from_millis(2_500),
        "too slow to tell: {:?}",
        applied.elapsed()
    );
    site.send(&[datagram("192.0.2.1", 60)], 100)?;
    thread::sleep(Duration::from_millis(3_200).saturating_sub(applied.elapsed()));
    site.send(&[datagram("192.0.2.2", 60)], 100)?;
    // Only now does a controller come to read what was counted meanwhile.
    weir.start()?;
    let all = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        (60..=64).contains(&all.pass) && all.pass + all.drop == 200,
        "50 by the new one, then 10 by the old one: {all:?}"
    );
    let show = shown(&weir)?;
    ensure!(
        show["revision"] == 1 && show["pending"].is_null(),
        "after its time, a start finds the old one: {show}"
    );
    ensure!(
        outcomes(&weir)? == ["in_force", "reverted"],
        "{:?}",
        outcomes(&weir)?
    );
    weir.apply(&policy(20, ""))?.ok()?;
    let next = send(&site, &weir, "192.0.2.3", 100)?;
    ensure!((20..=22).contains(&next.pass), "and goes on as ever: {next:?}");
    Ok(())
}

#[test]
fn a_controller_started_before_the_deadline_adopts_it() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(&policy(10, ""))?;
    for (confirm, burst, ended) in [
        (false, 10, ["in_force", "reverted"].as_slice()),
        (true, 50, &["replaced", "reverted", "in_force"]),
    ] {
        let applied = Instant::now();
        apply_within(&weir, &policy(50, ""), "8s")?.ok()?;
        weir.stop_with(Signal::SIGKILL)?;
        weir.start()?;
        let show = shown(&weir)?;
        let left = show["pending"]["seconds_left"].as_u64().unwrap_or_default();
        ensure!((1..=8).contains(&left), "it still waits: {show}");
        let source = format!("192.0.2.{burst}");
        let during = send(&site, &weir, &source, 100)?;
        ensure!((50..=53).contains(&during.pass), "as it was: {during:?}");
        if confirm {
            weir.cli(&["policy", "confirm"])?.ok()?;
        }
        thread::sleep(Duration::from_millis(8_200).saturating_sub(applied.elapsed()));
        let source = format!("203.0.113.{burst}");
        let after = send(&site, &weir, &source, 100)?;
        ensure!((burst..=burst + 2).contains(&after.pass), "{after:?}");
        ensure!(outcomes(&weir)? == ended, "{:?}", outcomes(&weir)?);
    }
    Ok(())
}

#[test]
fn a_rollback_is_at_once_and_can_be_rolled_back() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(10, ""))?;
    weir.cli(&["policy", "rollback"])?
        .failed(1, "no earlier policy")?;
    apply_within(&weir, &policy(50, ""), "10m")?.ok()?;
    weir.cli(&["policy", "rollback"])?.ok()?;
    let pass = |source: &str| -> Result<u64> { Ok(send(&site, &weir, source, 100)?.pass) };
    ensure!((10..=12).contains(&pass("192.0.2.1")?), "taken back");
    weir.apply(&policy(50, ""))?.ok()?;
    let back = weir.cli(&["policy", "rollback", "--json"])?.ok()?.json()?;
    ensure!(
        back["revision"] == 4 && back["taken_back"] == 3 && back["restores"] == 1,
        "{back}"
    );
    ensure!((10..=12).contains(&pass("192.0.2.2")?), "the one before");
    weir.cli(&["policy", "rollback"])?.ok()?;
    ensure!((50..=52).contains(&pass("192.0.2.3")?), "and back again");
    weir.cli(&["policy", "rollback", "--to", "1"])?.ok()?;
    ensure!((10..=12).contains(&pass("192.0.2.4")?), "and by its number");
    weir.cli(&["policy", "rollback", "--to", "77"])?
        .failed(1, "revision 77")?;
    let history = weir.cli(&["policy", "history"])?.ok()?.stdout;
    ensure!(
        history.contains("rolled back") && history.contains("uid 0") && history.contains("policy rollback"),
        "{history}"
    );
    Ok(())
}

/// An apply that is taken back leaves every bucket as full as it would have been: also those of a service that the other policy
/// does not have, whose bans and counters stay too.
#[test]
fn buckets_bans_and_counters_outlive_a_policy_that_does_not_stay() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(&policy(100, ""))?;
    for (round, candidate, ends) in [
        (
            1,
            policy(100, "[[service]]\nname = \"more\"\nprotocol = \"tcp\"\n"),
            "rollback",
        ),
        (2, OTHER.to_owned(), "rollback"),
        (3, OTHER.to_owned(), "time"),
        (4, OTHER.to_owned(), "time, without a controller"),
    ] {
        let source = format!("192.0.2.{round}");
        let banned = format!("203.0.113.{round}");
        weir.cli(&["ban", &banned, "--service", "web"])?.ok()?;
        let first = send(&site, &weir, &source, 80)?;
        ensure!(first.pass == 80, "round {round}: {first:?}");
        let before = counts(&weir.metrics()?, "web", &[]);
        let applied = Instant::now();
        apply_within(&weir, &candidate, "2s")?.ok()?;
        match ends {
            "rollback" => drop(weir.cli(&["policy", "rollback"])?.ok()?),
            "time" => thread::sleep(Duration::from_millis(2_200)),
            _ => {
                weir.stop_with(Signal::SIGKILL)?;
                thread::sleep(Duration::from_millis(2_200).saturating_sub(applied.elapsed()));
                site.send(&[datagram(&source, 60)], 50)?;
                weir.start()?;
            }
        }
        if ends != "time, without a controller" {
            site.send(&[datagram(&source, 60)], 50)?;
        }
        let after = counts(&weir.metrics()?, "web", &[]).since(before);
        ensure!(
            (20..=26).contains(&after.pass) && after.pass + after.drop == 50,
            "round {round} ({ends}): 20 were left, and a few refilled: {after:?}"
        );
        let bans = reason(&weir.metrics()?, "web", "ban");
        site.send(&[datagram(&banned, 60)], 5)?;
        ensure!(
            reason(&weir.metrics()?, "web", "ban") == bans + 5,
            "round {round} ({ends}): the ban is still there"
        );
    }
    Ok(())
}

#[test]
fn lists_and_levers_wait_and_bans_do_not() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(10, ""))?;
    apply_within(&weir, &policy(50, ""), "10m")?.ok()?;
    let way_out = "weir policy rollback";
    weir.apply(&policy(20, ""))?.failed(1, way_out)?;
    weir.cli(&["list", "add", "bad", "192.0.2.9"])?
        .failed(1, way_out)?;
    weir.cli(&["scale", "web", "50%", "--for", "1m"])?
        .failed(1, way_out)?;
    weir.cli(&["lever", "clear"])?.failed(1, way_out)?;
    weir.signal(Signal::SIGHUP)?;
    weir.cli(&["ban", "192.0.2.9"])?.ok()?;
    ensure!(send(&site, &weir, "192.0.2.9", 5)?.drop == 5, "banned");
    weir.cli(&["unban", "192.0.2.9"])?.ok()?;
    ensure!(shown(&weir)?["revision"] == 2, "what was refused changed nothing");
    let bypass = weir.cli(&["bypass", "--for", "1h"])?.ok()?;
    ensure!(
        bypass.stderr.contains("taken back"),
        "it says what it did: {}",
        bypass.stderr
    );
    let show = shown(&weir)?;
    ensure!(show["revision"] == 1 && show["pending"].is_null(), "{show}");
    ensure!(send(&site, &weir, "192.0.2.1", 100)?.pass == 100, "and passes");
    Ok(())
}

#[test]
fn the_bypass_lever_works_without_a_controller_too() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(&policy(10, ""))?;
    apply_within(&weir, &policy(50, ""), "10m")?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    weir.cli(&["scale", "web", "50%", "--for", "1m"])?
        .failed(1, "weir policy rollback")?;
    weir.cli(&["bypass", "--for", "1h"])?.ok()?;
    site.send(&[datagram("192.0.2.1", 60)], 100)?;
    weir.cli(&["lever", "clear"])?.ok()?;
    weir.start()?;
    let all = counts(&weir.metrics()?, "web", &[]);
    ensure!(all.pass == 100, "{all:?}");
    ensure!(
        outcomes(&weir)? == ["in_force", "reverted"],
        "{:?}",
        outcomes(&weir)?
    );
    Ok(())
}

/// Policies come, wait, revert, are taken back and are confirmed under a flood. Both hold the source to the same rate, and
/// each counts it under another service: every packet is counted by one of the two.
#[test]
fn every_packet_is_explained_by_one_of_the_two() -> Result<()> {
    let site = Site::new()?;
    let service = |name: &str| {
        format!(
            "version = 1\n[[service]]\nname = \"{name}\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = {{ rate = 1000, burst = 1000 }}\n"
        )
    };
    let kept = "[[service]]\nname = \"NAME\"\nprotocol = \"udp\"\nports = [81]\n";
    let policies = [
        service("one") + &kept.replace("NAME", "two"),
        service("two") + &kept.replace("NAME", "one"),
    ];
    let mut weir = site.weir(&policies[0])?;
    let flood = Flood::start(
        &site.client,
        "eth0",
        vec![datagram("192.0.2.1", 60)],
        Plan::rate(20_000, Duration::from_mins(2)),
    )?;
    let mut in_force = 0;
    for round in 0..12 {
        let time = if round % 4 < 2 { "1s" } else { "1m" };
        apply_within(&weir, &policies[1 - in_force], time)?.ok()?;
        match round % 4 {
            0 => thread::sleep(Duration::from_millis(1_100)),
            1 => {
                weir.stop_with(Signal::SIGKILL)?;
                thread::sleep(Duration::from_millis(1_100));
                weir.start()?;
            }
            2 => drop(weir.cli(&["policy", "rollback"])?.ok()?),
            _ => {
                weir.cli(&["policy", "confirm"])?.ok()?;
                in_force = 1 - in_force;
            }
        }
    }
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let [one, two] = ["one", "two"].map(|name| counts(&metrics, name, &[]));
    let all = one.pass + one.drop + two.pass + two.drop;
    println!(
        "12 changes in {:?}: {one:?} {two:?} of {}",
        sent.took, sent.frames
    );
    ensure!(all == sent.frames, "{one:?} {two:?} of {}", sent.frames);
    ensure!(one.pass > 0 && two.pass > 0, "both judged some: {one:?} {two:?}");
    for (name, count) in [("one", one), ("two", two)] {
        // Each has its own bucket of 1,000 and 1,000 a second: neither may pass more than that over the whole time.
        let most = 1_000.0 * sent.took.as_secs_f64() + 1_000.0;
        ensure!(
            count.pass as f64 <= most * 1.005,
            "{name}: {count:?}, at most {most:.0}"
        );
    }
    Ok(())
}

#[test]
fn the_history_survives_a_restart_and_damage_is_set_aside() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(&policy(10, ""))?;
    weir.apply(&policy(20, ""))?.ok()?;
    weir.cli(&["ban", "192.0.2.9"])?.ok()?;
    weir.cli(&["list", "add", "bad", "192.0.2.10"])?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    weir.start()?;
    ensure!(
        outcomes(&weir)? == ["replaced", "in_force"],
        "{:?}",
        outcomes(&weir)?
    );

    weir.stop_with(Signal::SIGTERM)?;
    let files = ["policy.json", "history.json", "bans.json", "list-bad.json"];
    for (at, file) in files.iter().enumerate() {
        let path = weir.state_dir().join(file);
        let whole = fs::read(&path).with_context(|| (*file).to_owned())?;
        // Empty, cut off, and not JSON at all.
        let damaged = match at % 3 {
            0 => whole[..whole.len() / 2].to_vec(),
            1 => Vec::new(),
            _ => b"\0\xff nonsense".to_vec(),
        };
        fs::write(&path, damaged)?;
    }
    weir.start()?;
    for file in files {
        let prefix = format!("{file}.corrupt-");
        let aside = fs::read_dir(weir.state_dir())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .count();
        ensure!(aside == 1, "{file} is set aside");
        ensure!(weir.log().contains(file), "the log names {file}:\n{}", weir.log());
    }
    let judged = send(&site, &weir, "192.0.2.1", 100)?;
    ensure!((20..=22).contains(&judged.pass), "the file's policy: {judged:?}");
    ensure!(outcomes(&weir)? == ["in_force"], "{:?}", outcomes(&weir)?);
    Ok(())
}

#[test]
fn a_diff_says_what_would_change_and_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(100, ""))?;
    let file = weir.dir().join("candidate.toml");
    let path = file.to_string_lossy().into_owned();
    fs::write(&file, format!("# the same\n{}", policy(100, "")))?;
    let same = weir.cli(&["policy", "diff", &path])?.ok()?.stdout;
    ensure!(same.starts_with("no differences"), "{same}");
    fs::write(
        &file,
        policy(50, "[[service]]\nname = \"more\"\nprotocol = \"tcp\"\n")
            .replace("198.51.100.0/24", "198.51.100.0/25"),
    )?;
    let text = weir.cli(&["policy", "diff", &path])?.ok()?.stdout;
    for expected in [
        "~ service.web.per_source.packets.burst: 100 -> 50",
        "+ service.more: ",
        "~ lists.bad.prefixes: [198.51.100.0/24] -> [198.51.100.0/25]",
        "~ lists.bad.content: 1 prefixes -> 1 prefixes (1 added, 1 removed)",
        "warning: service.web.per_source.packets: a debt",
    ] {
        ensure!(text.contains(expected), "{expected}: {text}");
    }
    let json = weir.cli(&["policy", "diff", &path, "--json"])?.ok()?.json()?;
    ensure!(json["schema"] == 1 && json["same"] == false, "{json}");
    ensure!(
        json["differences"].as_array().is_some_and(|all| all.len() == 4),
        "{json}"
    );
    fs::write(&file, "version = 1\nnonsense = true\n")?;
    weir.cli(&["policy", "diff", &path])?.failed(2, "nonsense")?;
    ensure!(shown(&weir)?["revision"] == 1, "nothing was changed");
    Ok(())
}
