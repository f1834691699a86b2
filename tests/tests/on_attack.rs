//! What a real controller does by itself about an attack on a service that it knows, and how that ends.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use gateway_core::{
    profile::{SIZE_COUNTS, TTL_COUNTS, TTL_STEP, size_at},
    sample::Sample as Head,
    verdict::{Reason, Verdict},
};
use gateway_detect::Settings;
use serde_json::Value;
use weir::{
    controller::backend::{Clock as _, Moment, SystemClock},
    detect::{Detection, Look, Roster, Watched},
    events::EventLog,
    kernel::{Sample, ServiceProfile},
    state::Store,
    traffic::{Batch, Named},
};
use weir_tests::{
    command::patience,
    daemon::Daemon,
    flood::Flood,
    frame::Frame,
    sender::Plan,
    site::{Site, counts},
};

/// Customers, each with a packet a second.
const CUSTOMERS: u32 = 400;
/// Bytes of a packet's frame.
const LENGTH: u32 = 200;
/// One packet in so many is sampled.
const ONE_IN: u32 = 10;
/// Seconds that the detector has seen before the controller starts: more than twice what it wants.
const BEFORE: u64 = 1_800;

fn policy(settings: &str) -> String {
    format!(
        "version = 1\n[sampling]\none_in = {ONE_IN}\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n\
         [service.per_source]\npackets = {{ rate = 200, burst = 400 }}\n[service.on_attack]\naction = \"tighten\"\n\
         max_impact = \"5%\"\n{settings}\n"
    )
}

/// The address of a customer, in one of eight networks.
fn customer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x1400_0001 + number % 8 * 256 + number / 8)
}

fn frame(source: Ipv4Addr, port: u16) -> Vec<u8> {
    let frame = Frame::new().ip(&source.to_string(), "10.77.0.2").udp(port, 80);
    frame.payload(&vec![0; LENGTH as usize - 42]).build()
}

/// What a controller would have learned of the customers in the last half an hour: its own code, fed faster.
fn teach(weir: &Daemon<'_>) -> Result<()> {
    let dir = weir.state_dir();
    let store = Arc::new(Store::open(&dir)?);
    let present = SystemClock.now();
    let back = |seconds: u64| -> Result<Moment> {
        Ok(Moment {
            ns: present.ns + (BEFORE - seconds) * 1_000_000_000,
            wall: present.wall.checked_sub(Duration::from_secs(seconds + 5))?,
        })
    };
    let scratch = tempfile::tempdir()?;
    let events = Arc::new(EventLog::open(scratch.path()));
    let detection = Detection::open(store, events, back(BEFORE)?);
    let mut roster = Some(Roster {
        key: "before".to_owned(),
        enabled: true,
        sensitivity: "1/week".to_owned(),
        sampled: true,
        source: (32, 64),
        services: vec![Watched {
            service: Arc::from("web"),
            settings: Settings::default(),
            network: (24, 48),
        }],
    });
    let mut profile = ServiceProfile {
        service: "web".to_owned(),
        sizes: vec![0; SIZE_COUNTS],
        ttls: vec![0; TTL_COUNTS],
        ..ServiceProfile::default()
    };
    let mut random = 0x9e37_79b9_u32;
    for second in (1..=BEFORE).rev() {
        let mut samples = Vec::new();
        let packets = CUSTOMERS + second as u32 % 7;
        for number in 0..packets {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            if random.is_multiple_of(ONE_IN) {
                let number = number % CUSTOMERS;
                samples.push(named(customer(number), 2_000 + number as u16));
            }
        }
        profile.sizes[size_at(LENGTH)] += u64::from(packets);
        profile.ttls[(64 / TTL_STEP) as usize] += u64::from(packets);
        profile.udp += u64::from(packets);
        detection.see(&Batch { samples });
        detection.tick(Look {
            now: back(second)?,
            roster: roster.take(),
            profiles: Arc::new(vec![Arc::new(profile.clone())]),
            minute: Some(Arc::new(BTreeMap::from([(
                "web".to_owned(),
                u64::from(CUSTOMERS),
            )]))),
        });
    }
    let known = detection.with("web", |detector| {
        (
            detector.finding().verdict.to_string(),
            detector.normal().hit_by_rate(160.0),
        )
    });
    println!("learned: {known:?}");
    ensure!(known.is_some_and(|(verdict, hit)| verdict == "quiet" && hit.is_some()));
    detection.save(back(1)?)?;
    Ok(())
}

fn named(source: Ipv4Addr, port: u16) -> Named {
    let bytes = frame(source, port);
    Named {
        sample: Sample {
            head: Head {
                one_in: ONE_IN,
                length: LENGTH,
                captured: bytes.len().min(128) as u8,
                ..Head::default()
            },
            bytes: bytes.into_iter().take(128).collect(),
        },
        at: SystemClock.now().wall,
        verdict: Verdict::Pass,
        reason: Reason::Pass,
        service: Arc::from("web"),
        class: Arc::from(""),
        interface: Arc::from("eth0"),
        ifindex: 2,
    }
}

/// So many customers, each with a packet a second.
fn customers(site: &Site, from: u32, count: u32) -> Result<Flood> {
    let frames = (from..from + count).map(|number| frame(customer(number), 2_000 + (number % 400) as u16));
    let plan = Plan::rate(u64::from(count), Duration::from_mins(5)).relaxed();
    Flood::start(&site.client, "eth0", frames.collect(), plan)
}

/// Three that send a thousand packets a second each.
fn attack(site: &Site) -> Result<Flood> {
    let frames = (1..=3_u8).map(|last| frame(Ipv4Addr::new(198, 51, 100, last), 4_000));
    let plan = Plan::rate(3_000, Duration::from_mins(5)).relaxed();
    Flood::start(&site.client, "eth0", frames.collect(), plan)
}

fn json(weir: &Daemon<'_>, args: &[&str]) -> Result<Value> {
    weir.cli(args)?.ok()?.json()
}

/// What is done at the service, if there is anything.
fn action(weir: &Daemon<'_>) -> Result<Option<Value>> {
    let status = weir.cli(&["status", "--json"])?.json()?;
    let actions = status["actions"].as_array().context("no actions")?;
    Ok(actions.iter().find(|action| action["service"] == "web").cloned())
}

fn events(weir: &Daemon<'_>, kind: &str) -> Result<Vec<Value>> {
    let answer = json(weir, &["events", "--limit", "1000", "--json"])?;
    let events = answer["events"].as_array().context("no events")?.iter();
    Ok(events.filter(|event| event["kind"] == kind).cloned().collect())
}

fn until(weir: &Daemon<'_>, seconds: u64, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > patience(Duration::from_secs(seconds)) {
            let anomalies = weir.cli(&["anomalies", "--all", "--json"])?.stdout;
            bail!("{what} is not so within {seconds} s\n{anomalies}\n{}", weir.log());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(begun.elapsed())
}

fn in_force(weir: &Daemon<'_>) -> Result<bool> {
    Ok(action(weir)?.is_some_and(|action| action["state"] == "in_force"))
}

fn tightened(weir: &Daemon<'_>) -> Result<bool> {
    let levers = json(weir, &["lever", "show", "--json"])?;
    Ok(levers["levers"]
        .as_array()
        .is_some_and(|levers| !levers.is_empty()))
}

#[test]
fn an_attack_is_tightened_stepped_back_and_undone_and_a_crowd_is_not() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], &policy("for = \"12s\""))?;
    teach(&weir)?;
    weir.start()?;
    let usual = customers(&site, 0, CUSTOMERS)?;
    until(&weir, 20, "quiet", || {
        let answer = json(&weir, &["anomalies", "--all", "--json"])?;
        let services = answer["services"].as_array().context("no services")?;
        Ok(services.iter().any(|told| {
            told["service"] == "web"
                && told["verdict"] == "quiet"
                && told["packets_per_second"].as_f64() > Some(300.0)
        }))
    })?;

    // Four times as many customers of the same kind from the same networks.
    let crowd = customers(&site, CUSTOMERS, 3 * CUSTOMERS)?;
    thread::sleep(Duration::from_secs(12));
    let said = json(&weir, &["anomalies", "--service", "web", "--json"])?;
    println!("a crowd: {}", said["services"][0]);
    ensure!(action(&weir)?.is_none() && !tightened(&weir)?, "{said}");
    ensure!(events(&weir, "action_taken")?.is_empty() && events(&weir, "action_withheld")?.is_empty());
    crowd.end()?;
    thread::sleep(Duration::from_secs(3));

    // An attack: a step under the budget, told, shown and explained.
    let flood = attack(&site)?;
    let took = until(&weir, 20, "a step", || in_force(&weir))?;
    let step = action(&weir)?.context("no step")?;
    println!("a step after {took:?}: {step}");
    let share = step["share"].as_f64().context("no share")?;
    ensure!(step["action"] == "tighten" && share <= 0.05, "{step}");
    let percent = step["percent"].as_u64().context("no percent")?;
    ensure!(percent < 100 && tightened(&weir)?, "{step}");
    let taken = events(&weir, "action_taken")?;
    let why = taken[0]["why"].as_str().context("no reason")?;
    ensure!(
        taken[0]["service"] == "web" && why.contains("of normal sources are hit"),
        "{taken:?}"
    );
    let explained = weir.cli(&[
        "explain",
        "--src",
        "198.51.100.1",
        "--dst",
        "10.77.0.2",
        "--proto",
        "udp",
        "--dport",
        "80",
    ])?;
    ensure!(
        explained
            .stdout
            .contains("weir did so by itself against an attack")
            && explained.stdout.contains("weir anomalies undo web"),
        "{}",
        explained.stdout
    );
    let status = weir.cli(&["status"])?.stdout;
    ensure!(status.contains(&format!("limits at {percent}%")), "{status}");
    // It holds the three to the scaled limit, and no customer: one packet a second each.
    let before = counts(&weir.metrics()?, "web", &[]);
    thread::sleep(Duration::from_secs(4));
    let held = counts(&weir.metrics()?, "web", &[]).since(before);
    let most = (3.0 * 200.0 * percent as f64 / 100.0 + f64::from(CUSTOMERS)) * 4.5 + 3.0 * 400.0;
    println!("in four seconds: {held:?}");
    ensure!(
        held.drop > 4_000 && (held.pass as f64) < most,
        "{held:?}, at most {most}"
    );

    // It steps back by itself once the attack is over, which a minute without one says.
    flood.end()?;
    let took = until(&weir, 150, "the step back", || {
        Ok(!tightened(&weir)? && !in_force(&weir)?)
    })?;
    println!("stepped back after {took:?}");
    let ended = events(&weir, "action_ended")?;
    ensure!(
        ended.iter().all(|event| event["why"] == "its time is over"),
        "{ended:?}"
    );

    // Undone, it is not taken again while the attack lasts; nor after a restart.
    let flood = attack(&site)?;
    until(&weir, 20, "another step", || in_force(&weir))?;
    let undone = weir.cli(&["anomalies", "undo", "web"])?.ok()?.stdout;
    ensure!(undone.contains("taken back; nothing more is done"), "{undone}");
    ensure!(!tightened(&weir)?);
    weir.cli(&["anomalies", "undo"])?
        .failed(1, "nothing was done by itself")?;
    let before = events(&weir, "action_taken")?.len();
    thread::sleep(Duration::from_secs(13));
    ensure!(!tightened(&weir)? && events(&weir, "action_taken")?.len() == before);
    let undone = action(&weir)?.context("nothing is known of it")?;
    ensure!(undone["state"] == "undone", "{undone}");
    flood.end()?;
    usual.end()?;
    Ok(())
}

#[test]
fn a_step_is_known_again_after_a_restart() -> Result<()> {
    let site = Site::new()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], &policy("for = \"10m\""))?;
    teach(&weir)?;
    weir.start()?;
    let usual = customers(&site, 0, CUSTOMERS)?;
    thread::sleep(Duration::from_secs(5));
    let flood = attack(&site)?;
    until(&weir, 20, "a step", || in_force(&weir))?;
    // It is on disk before anybody can ask for it again.
    thread::sleep(Duration::from_secs(1));
    weir.stop_with(nix::sys::signal::Signal::SIGKILL)?;
    flood.end()?;
    weir.start()?;
    let step = action(&weir)?.context("no step")?;
    ensure!(
        step["state"] == "in_force" && step["seconds_left"].as_u64() > Some(400),
        "{step}"
    );
    ensure!(tightened(&weir)?, "the kernel holds it meanwhile");
    weir.cli(&["anomalies", "undo"])?.ok()?;
    ensure!(!tightened(&weir)?);
    usual.end()?;
    Ok(())
}
