//! A thousand changes between two policies under traffic: every packet is explained by one of the two.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir::{
    api::types::{PolicyApplied, PolicyApplyRequest},
    client::Client,
};
use weir_tests::{
    flood::Flood,
    frame::Frame,
    sender::Plan,
    site::{Site, counts},
};

/// One of the two. Who is listed, which service has which port, and whether services name addresses changes together, so that
/// a packet that saw half of each would get a verdict that neither gives: a service in which it passes where it must be
/// dropped, or is dropped where it must pass.
fn policy(left: bool) -> String {
    let (listed, addresses) = if left {
        ("192.0.2.1/32", "")
    } else {
        ("192.0.2.2/32", "addresses = [\"10.77.0.0/24\"]")
    };
    let port = |mine: bool, port: u16, parked: u16| if mine { port } else { parked };
    let services = [
        ("left-one", port(left, 80, 1000)),
        ("right-one", port(!left, 80, 1001)),
        ("left-two", port(left, 81, 1002)),
        ("right-two", port(!left, 81, 1003)),
    ];
    services.iter().fold(
        format!("version = 1\n[lists.bad]\naction = \"drop\"\nprefixes = [\"{listed}\"]\n"),
        |text, (name, port)| {
            text + &format!(
                "[[service]]\nname = \"{name}\"\nprotocol = \"udp\"\nports = [{port}]\n{addresses}\n[service.per_source]\npackets = {{ rate = \"1M\", burst = \"1M\" }}\n"
            )
        },
    )
}

fn frame(source: &str, port: u16) -> Vec<u8> {
    Frame::new()
        .ip(source, "10.77.0.2")
        .udp(4000, port)
        .payload(&[0; 18])
        .build()
}

#[test]
fn a_thousand_applies_explain_every_packet() -> Result<()> {
    const APPLIES: u32 = 1_000;
    let site = Site::new()?;
    let policies = [policy(true), policy(false)];
    let weir = site.weir(&policies[0])?;
    let client = Client::new(weir.socket_path());
    let path = weir.policy_path().to_string_lossy().into_owned();
    let flood = Flood::start(
        &site.client,
        "eth0",
        vec![frame("192.0.2.1", 80), frame("192.0.2.2", 81)],
        Plan::rate(20_000, Duration::from_mins(3)).relaxed(),
    )?;
    let begun = Instant::now();
    let (mut slowest, mut switching) = (Duration::ZERO, 0.0);
    for at in 1..=APPLIES {
        let started = Instant::now();
        let request = PolicyApplyRequest {
            text: policies[at as usize % 2].clone(),
            path: path.clone(),
            confirm_within_seconds: None,
            force: false,
        };
        let applied: PolicyApplied = client
            .post("/v1/policy/apply", &request)
            .with_context(|| format!("apply {at}"))?;
        ensure!(applied.revision == u64::from(at) + 1, "{applied:?}");
        switching += applied.took_seconds;
        slowest = slowest.max(started.elapsed());
    }
    let took = begun.elapsed();
    let sent = flood.end()?;
    std::thread::sleep(Duration::from_millis(50));
    let metrics = weir.metrics()?;
    let [left_one, right_one, left_two, right_two, default] =
        ["left-one", "right-one", "left-two", "right-two", "default"]
            .map(|service| counts(&metrics, service, &[]));
    println!(
        "{APPLIES} applies in {took:?} ({switching:.1} s of it in the kernel), the slowest {slowest:?}; {} packets: {left_one:?} {right_one:?} {left_two:?} {right_two:?}",
        sent.frames
    );
    // Under the left policy the first source is listed and the second passes, under the right one the other way round.
    ensure!(
        left_one.pass == 0 && left_two.drop == 0 && right_one.drop == 0 && right_two.pass == 0,
        "a packet saw half of each policy: {left_one:?} {left_two:?} {right_one:?} {right_two:?}"
    );
    // The kernel's own chatter (multicast listener reports) belongs to no service.
    ensure!(
        default.drop == 0 && default.pass < 20,
        "a packet saw neither: {default:?}"
    );
    let all = [left_one, right_one, left_two, right_two];
    ensure!(
        all.iter().all(|each| each.pass + each.drop > 0),
        "one of the policies was never in force"
    );
    let counted: u64 = all.iter().map(|each| each.pass + each.drop).sum();
    ensure!(counted == sent.frames, "{counted} of {}", sent.frames);
    Ok(())
}
