//! A real controller that tells a flood from its customers, and what of it outlives the controller.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use weir_tests::{
    command::patience,
    daemon::Daemon,
    flood::Flood,
    frame::{Frame, SYN, scattered_sources},
    http::{Size, Storefront},
    sender::Plan,
    shoppers::{Habits, Shoppers},
    site::Site,
};

const POLICY: &str = r#"
version = 1
[sampling]
one_in = 20
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[[service]]
name = "unseen"
protocol = "tcp"
ports = [81]
anomaly = false
"#;

/// A flood must be told within this, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(10);
/// And its end: after ten seconds without.
const OVER: Duration = Duration::from_secs(40);

fn anomalies(weir: &Daemon<'_>) -> Result<Value> {
    weir.cli(&["anomalies", "--all", "--json"])?.ok()?.json()
}

/// What is said of a service.
fn told(answer: &Value, service: &str) -> Result<Value> {
    let services = answer["services"].as_array().context("no services")?;
    let found = services.iter().find(|told| told["service"] == service);
    Ok(found
        .with_context(|| format!("nothing of {service}: {answer}"))?
        .clone())
}

/// Asks until it is so; how long that took.
fn until(
    weir: &Daemon<'_>,
    within: Duration,
    what: &str,
    is_so: impl Fn(&Value) -> Result<bool>,
) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let answer = anomalies(weir)?;
        if is_so(&answer)? {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience(within) {
            bail!("{what} is not so within {within:?}: {answer}\n{}", weir.log());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// SYNs that nobody will complete.
fn flood(site: &Site) -> Result<Flood> {
    let sources = scattered_sources(7, 20_000);
    let frames = sources.into_iter().zip(1_024_u16..).map(|(source, port)| {
        let frame = Frame::new().ip(&source.to_string(), "10.77.0.2");
        frame.tcp(port, 80, SYN).build()
    });
    let plan = Plan::rate(10_000, Duration::from_mins(2)).relaxed();
    Flood::start(&site.client, "eth0", frames.collect(), plan)
}

/// Ten customers, ten pages a second together.
fn customers(site: &Site) -> Result<Shoppers> {
    let sources: Vec<IpAddr> = (100..110)
        .map(|last| Ok(format!("10.77.0.{last}").parse()?))
        .collect::<Result<_>>()?;
    for source in &sources {
        site.client.address("eth0", &format!("{source}/24"))?;
    }
    let habits = Habits {
        sources,
        target: SocketAddr::from(([10, 77, 0, 2], 80)),
        every: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
    };
    Shoppers::start(&site.client, &habits)
}

fn events(weir: &Daemon<'_>, kind: &str) -> Result<Vec<Value>> {
    let answer = weir.cli(&["events", "--limit", "1000", "--json"])?.ok()?.json()?;
    let events = answer["events"].as_array().context("no events")?.iter();
    Ok(events.filter(|event| event["kind"] == kind).cloned().collect())
}

#[allow(
    clippy::too_many_lines,
    clippy::similar_names,
    reason = "one story, told from its beginning"
)]
#[test]
fn a_flood_is_told_while_it_lasts_and_remembered_after() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    let mut weir = site.weir(POLICY)?;
    let customers = customers(&site)?;

    until(&weir, SOON, "learning", |answer| {
        let web = told(answer, "web")?;
        ensure!(web["verdict"] == "learning", "{web}");
        Ok(web["learned"].as_f64() > Some(0.0) && web["packets_per_second"].as_f64() > Some(10.0))
    })?;
    let none = anomalies(&weir)?;
    ensure!(
        told(&none, "unseen").is_err() && told(&none, "default").is_ok(),
        "{none}"
    );
    ensure!(
        none["learning"].as_u64() >= Some(2) && none["attack"] == 0,
        "{none}"
    );
    weir.cli(&["anomalies", "--service", "unseen"])?
        .failed(1, "anomaly = true")?;
    weir.cli(&["anomalies", "--service", "nobody"])?
        .failed(1, "nobody")?;
    weir.cli(&["anomalies", "accept", "web"])?
        .failed(1, "no anomaly")?;

    let flood = flood(&site)?;
    let took = until(&weir, SOON, "an attack", |answer| {
        let web = told(answer, "web")?;
        Ok(web["verdict"] == "attack" && web["kind"] == "syn_flood")
    })?;
    println!("told after {took:?}");
    // At the next second what speaks is known too; twenty thousand sources carry it, none of them much.
    until(&weir, SOON, "why", |answer| {
        let web = told(answer, "web")?;
        let speaks = |name: &str| {
            let features = web["features"].as_array().into_iter().flatten();
            features.into_iter().any(|speaking| speaking["feature"] == name)
        };
        Ok(speaks("completion") && speaks("syn_share"))
    })?;
    let metrics = weir.metrics()?;
    let active = metrics.sum(
        "weir_anomaly_active",
        &[("service", "web"), ("kind", "syn_flood")],
    );
    ensure!((active - 1.0).abs() < 1e-9, "{active}");
    let score = metrics.sum(
        "weir_anomaly_score",
        &[("service", "web"), ("axis", "composition")],
    );
    ensure!(score >= 1.0, "{score}");
    let share = metrics.sum("weir_feature", &[("service", "web"), ("feature", "syn_share")]);
    ensure!(share > 0.5, "{share}");
    let began = events(&weir, "anomaly_began")?;
    let began = began.last().context("no event")?;
    ensure!(
        began["service"] == "web" && began["anomaly"]["kind"] == "syn_flood",
        "{began}"
    );
    let status = weir.cli(&["status"])?;
    ensure!(status.stdout.contains("1 service under attack"), "{status:?}");
    let status = weir.cli(&["status", "--json"])?.json()?;
    let web = &status["services"][0];
    ensure!(web["verdict"] == "attack" && web["kind"] == "syn_flood", "{web}");
    let text = weir.cli(&["anomalies"])?.ok()?.stdout;
    ensure!(
        text.contains("attack (syn_flood)") && !text.contains("default"),
        "{text}"
    );

    let sent = flood.end()?;
    println!("{} SYNs in {:?}", sent.frames, sent.took);
    let took = until(&weir, OVER, "the end", |answer| Ok(answer["attack"] == 0))?;
    println!("over after {took:?}");
    let answer = anomalies(&weir)?;
    let ended = &answer["ended"][0];
    ensure!(
        ended["service"] == "web" && ended["kind"] == "syn_flood",
        "{answer}"
    );
    let metrics = weir.metrics()?;
    let active = metrics.get(
        "weir_anomaly_active",
        &[("service", "web"), ("kind", "syn_flood")],
    );
    ensure!(active == Some(0.0), "{active:?}");
    ensure!(events(&weir, "anomaly_ended")?.len() == 1);

    // It is saved soon after something ended; what came later may be lost.
    let learned = told(&answer, "web")?["learned"].as_f64().context("no learned")?;
    let state = weir.state_dir().join("detectors");
    let saved_after = fs::metadata(&state).ok().and_then(|file| file.modified().ok());
    let begun = Instant::now();
    while fs::metadata(&state).ok().and_then(|file| file.modified().ok()) == saved_after {
        ensure!(begun.elapsed() < patience(OVER), "nothing is saved");
        thread::sleep(Duration::from_millis(100));
    }
    weir.stop_with(Signal::SIGKILL)?;
    weir.start()?;
    until(&weir, SOON, "what was learned", |answer| {
        let web = told(answer, "web")?;
        Ok(web["learned"].as_f64() >= Some(learned) && answer["ended"][0] == *ended)
    })?;
    drop(customers);

    // What cannot be read back is said, and learned anew.
    weir.stop_with(Signal::SIGTERM)?;
    let mut bytes = fs::read(&state)?;
    let last = bytes.last_mut().context("an empty file")?;
    *last ^= 1;
    fs::write(&state, bytes)?;
    weir.start()?;
    ensure!(
        weir.state_dir().join("detectors.corrupt-1").exists(),
        "{}",
        weir.log()
    );
    let faults = events(&weir, "fault")?;
    ensure!(
        faults.iter().any(|fault| fault["what"]
            .as_str()
            .is_some_and(|what| what.contains("learned anew"))),
        "{faults:?}"
    );
    ensure!(anomalies(&weir)?["ended"] == serde_json::json!([]));
    Ok(())
}
