//! Changes of policy that are cut off, overlap, or move what stays to another place.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    flood::Flood,
    frame::{ACK, Frame, SYN},
    sender::Plan,
    site::{Site, counts, datagram, reason},
};

fn web(rate: u32, burst: u32) -> String {
    format!(
        "[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = {{ rate = {rate}, burst = {burst} }}\n"
    )
}

fn others(count: u32) -> String {
    (0..count).fold(String::new(), |text, n| {
        text + &format!(
            "[[service]]\nname = \"other-{n}\"\nprotocol = \"tcp\"\nports = [{}]\n[service.total]\npackets = {{ rate = 5, burst = 5 }}\n",
            2000 + n
        )
    })
}

fn whole(services: &[&str]) -> String {
    format!("version = 1\n{}", services.concat())
}

/// The controller is killed at moments spread over an apply, again and again, with a flood going on. Whichever policy is
/// in force then, the source's limit is the same in both: it must get exactly that, and every packet must be counted.
#[test]
fn a_controller_killed_while_it_applies_loses_and_admits_nothing() -> Result<()> {
    let site = Site::new()?;
    let policies = [
        whole(&[&web(10_000, 10_000)]),
        whole(&[&others(60), &web(10_000, 10_000)]),
    ];
    let mut weir = site.weir(&policies[0])?;
    let flood = Flood::start(
        &site.client,
        "eth0",
        vec![datagram("192.0.2.1", 60)],
        Plan::rate(50_000, Duration::from_mins(1)),
    )?;
    // The kills reach from the start of an apply to just past its end, whatever this machine needs for one.
    let span = weir.apply(&policies[1])?.ok()?.took;
    let mut cut = 0;
    for round in 0..12_u32 {
        weir.write_policy(&policies[round as usize % 2])?;
        let path = weir.policy_path();
        let outcome = thread::scope(|scope| -> Result<_> {
            let weir = &weir;
            let apply = scope.spawn(move || weir.cli(&["policy", "apply", &path.to_string_lossy()]));
            thread::sleep(span * round / 10);
            weir.signal(Signal::SIGKILL)?;
            apply.join().ok().context("the apply panicked")?
        })?;
        cut += u32::from(outcome.code != 0);
        weir.stop_with(Signal::SIGKILL)?;
        ensure!(
            site.node.xdp("eth0")?.is_some(),
            "round {round}: nothing is attached"
        );
        weir.start()
            .with_context(|| format!("round {round}: it does not start again"))?;
    }
    // What is left works as ever.
    weir.apply(&policies[0])?.ok()?;
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let all = counts(&weir.metrics()?, "web", &[]);
    let expected = 10_000.0 * sent.took.as_secs_f64() + 10_000.0;
    println!(
        "12 kills over applies of {span:?}, {cut} cut off, {:?}: passed {} of {expected:.0}",
        sent.took, all.pass
    );
    ensure!(cut > 0, "no apply was cut off: the kills came too late");
    ensure!(all.pass + all.drop == sent.frames, "{all:?} of {}", sent.frames);
    ensure!(
        (all.pass as f64 - expected).abs() <= expected * 0.005,
        "passed {} of {expected:.0}",
        all.pass
    );
    Ok(())
}

/// Between a strict and a loose rate, what passes lies between what each alone would pass, however often they change. The
/// burst is the same: a smaller one forgives what it cannot hold, as the design says, so a change to and fro would not be
/// bounded by either.
#[test]
fn a_limit_that_changes_under_load_stays_between_the_two() -> Result<()> {
    let site = Site::new()?;
    let policies = [whole(&[&web(5_000, 10_000)]), whole(&[&web(10_000, 10_000)])];
    let weir = site.weir(&policies[0])?;
    let flood = Flood::start(
        &site.client,
        "eth0",
        vec![datagram("192.0.2.1", 60)],
        Plan::rate(50_000, Duration::from_mins(1)),
    )?;
    for at in 1..=60 {
        weir.apply(&policies[at % 2])?.ok()?;
    }
    let sent = flood.end()?;
    thread::sleep(Duration::from_millis(50));
    let all = counts(&weir.metrics()?, "web", &[]);
    let time = sent.took.as_secs_f64();
    let (strict, loose) = (5_000.0 * time + 10_000.0, 10_000.0 * time + 10_000.0);
    println!(
        "60 changes in {time:.2} s: {strict:.0} <= {} <= {loose:.0}",
        all.pass
    );
    ensure!(all.pass + all.drop == sent.frames, "{all:?} of {}", sent.frames);
    ensure!(
        all.pass as f64 >= strict * 0.995 && all.pass as f64 <= loose * 1.005,
        "passed {}, not between {strict:.0} and {loose:.0}",
        all.pass
    );
    Ok(())
}

/// Two that apply at once are taken one after the other; one of the two policies is in force whole, and it is the one
/// that `policy show` prints.
#[test]
fn two_applies_at_once_end_in_one_of_them() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&whole(&[&web(1, 10)]))?;
    let files = ["left", "right"].map(|name| weir.dir().join(format!("{name}.toml")));
    for round in 0..10_u32 {
        for (file, burst) in files.iter().zip([20, 30]) {
            std::fs::write(file, whole(&[&web(1, burst + round), &others(20 + burst)]))?;
        }
        let outcomes = thread::scope(|scope| {
            let weir = &weir;
            files
                .each_ref()
                .map(|file| scope.spawn(move || weir.cli(&["policy", "apply", &file.to_string_lossy()])))
                .map(thread::ScopedJoinHandle::join)
        });
        for outcome in outcomes {
            outcome.ok().context("an apply panicked")??.ok()?;
        }
        let shown = weir.cli(&["policy", "show"])?.ok()?.stdout;
        let texts = [
            std::fs::read_to_string(&files[0])?,
            std::fs::read_to_string(&files[1])?,
        ];
        let winners = [&texts[0], &texts[1]].map(|text| shown.contains(text.trim()));
        ensure!(
            winners == [true, false] || winners == [false, true],
            "round {round}: neither whole: {winners:?} {shown}"
        );
        // A source that is new each round has the burst of the winner.
        let burst = u64::from(if winners[0] { 20 + round } else { 30 + round });
        let before = counts(&weir.metrics()?, "web", &[]);
        site.send(&[datagram(&format!("192.0.2.{}", 1 + round), 60)], 60)?;
        let after = counts(&weir.metrics()?, "web", &[]).since(before);
        ensure!(
            (burst..=burst + 2).contains(&after.pass),
            "round {round}: a burst of {burst} is shown, {after:?}"
        );
    }
    Ok(())
}

/// A bucket belongs to its service's name: not to its place in the file, its ports or what stands beside it. Every tier's
/// debt stays, and so does a block.
#[test]
fn every_debt_and_a_block_stay_with_the_name() -> Result<()> {
    let site = Site::new()?;
    let limit = |burst: u32| format!("packets = {{ rate = 1, burst = {burst} }}\n");
    let policy = |before: &str, port: u16, after: &str| {
        whole(&[
            "[lists.mobile]\nprefixes = [\"10.64.0.0/10\"]\n",
            before,
            &format!(
                "[[service]]\nname = \"source\"\nprotocol = \"tcp\"\nports = [{port}]\n[service.per_source]\n{}",
                limit(10)
            ),
            &format!(
                "[[service]]\nname = \"network\"\nprotocol = \"tcp\"\nports = [{}]\n[service.per_network]\nipv4_prefix = 24\n{}",
                port + 1,
                limit(10)
            ),
            &format!(
                "[[service]]\nname = \"class\"\nprotocol = \"tcp\"\nports = [{}]\n[[service.class]]\nname = \"mobile\"\nlists = [\"mobile\"]\n[service.class.total]\n{}",
                port + 2,
                limit(10)
            ),
            &format!(
                "[[service]]\nname = \"total\"\nprotocol = \"tcp\"\nports = [{}]\n[service.total]\n{}",
                port + 3,
                limit(10)
            ),
            &format!(
                "[[service]]\nname = \"block\"\nprotocol = \"tcp\"\nports = [{}]\n[service.per_source]\nconnections = {{ rate = 1, burst = 1 }}\nblock = {{ for = \"10m\", drops = 5, within = \"10s\" }}\n",
                port + 4
            ),
            after,
        ])
    };
    let frame = |port: u16, flags| {
        Frame::new()
            .ip("10.64.0.1", "10.77.0.2")
            .tcp(4000, port, flags)
            .build()
    };
    let weir = site.weir(&policy("", 80, ""))?;
    for offset in 0..4 {
        site.send(&[frame(80 + offset, ACK)], 30)?;
    }
    site.send(&[frame(84, SYN)], 25)?;
    let metrics = weir.metrics()?;
    for service in ["source", "network", "class", "total"] {
        let all = counts(&metrics, service, &[]);
        ensure!((10..=12).contains(&all.pass), "{service}: {all:?}");
    }
    ensure!(reason(&metrics, "block", "block") >= 5, "the block started");
    for (text, port) in [
        (policy(&others(7), 80, ""), 80),
        (policy("", 800, &others(3)), 800),
        (policy(&others(2).replace("other-", "renamed-"), 800, ""), 800),
    ] {
        weir.apply(&text)?.ok()?;
        let before = weir.metrics()?;
        for offset in 0..5 {
            // Nobody has proven anything here, so what is blocked are new connections.
            let flags = if offset == 4 { SYN } else { ACK };
            site.send(&[frame(port + offset, flags)], 20)?;
        }
        let metrics = weir.metrics()?;
        for service in ["source", "network", "class", "total", "block"] {
            let here = counts(&metrics, service, &[]).since(counts(&before, service, &[]));
            ensure!(
                here.pass <= 6 && here.pass + here.drop == 20,
                "{service} on port {port} lost its state: {here:?}"
            );
        }
        ensure!(
            counts(&metrics, "block", &[])
                .since(counts(&before, "block", &[]))
                .pass
                == 0,
            "the block ended"
        );
    }
    // Another name is another bucket.
    weir.apply(&policy("", 800, "").replace("name = \"source\"", "name = \"fresh\""))?
        .ok()?;
    site.send(&[frame(800, ACK)], 20)?;
    let fresh = counts(&weir.metrics()?, "fresh", &[]);
    ensure!(
        (10..=12).contains(&fresh.pass),
        "a new service starts full: {fresh:?}"
    );
    Ok(())
}
