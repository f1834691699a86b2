//! What the packet path counts, times and samples of services, packet by packet, by test-run on a clock of the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use gateway_core::{
    profile::{REGISTERS, SIZES, TTL_STEP, time_at},
    sample::SNAP,
    verdict::Reason,
};
use weir::kernel::{Sample, ServiceProfile};
use weir_tests::{
    both::Both,
    cpus::stay_on,
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    skip::require_root,
};

const SECOND: u64 = 1_000_000_000;

const POLICY: &str = r#"
version = 1
[sampling]
one_in = 0
[source]
max_tracked = 4096
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
time = true
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
[[service]]
name = "quiet"
protocol = "tcp"
ports = [81]
profile = false
"#;

fn client(port: u16) -> Frame {
    Frame::new().ip("192.0.2.1", "203.0.113.10").tcp(port, 80, 0)
}

fn segment(port: u16, flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    let frame = Frame::new().ip("192.0.2.1", "203.0.113.10").tcp(port, 80, flags);
    frame.numbers(numbers.0, numbers.1).payload(payload).build()
}

fn reply(port: u16, flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    let frame = Frame::new().ip("203.0.113.10", "192.0.2.1").tcp(80, port, flags);
    frame.numbers(numbers.0, numbers.1).payload(payload).build()
}

fn profile(both: &Both, service: &str) -> Result<Arc<ServiceProfile>> {
    let profiles = both.kernel.profiles()?;
    profiles
        .into_iter()
        .find(|profile| profile.service == service)
        .with_context(|| format!("{service} has no profile"))
}

#[test]
fn every_packet_counts_by_length_ttl_and_flags() -> Result<()> {
    require_root();
    let mut both = Both::new(POLICY, 100 * SECOND)?;
    let mut sizes = BTreeMap::<usize, u64>::new();
    for (at, length) in [60, 64, 65, 128, 129, 300, 600, 1_024, 1_025, 1_500]
        .into_iter()
        .enumerate()
    {
        both.judge(&client(2_000 + at as u16).pad_to(length).build())?;
        let count = SIZES.iter().filter(|bound| length > **bound as usize).count();
        *sizes.entry(count).or_default() += 1;
    }
    for flags in [SYN, SYN | ACK, FIN | ACK, RST, FIN] {
        both.judge(
            &Frame::new()
                .ip("192.0.2.1", "203.0.113.10")
                .tcp(9, 80, flags)
                .build(),
        )?;
        *sizes.entry(0).or_default() += 1;
    }
    let web = profile(&both, "web")?;
    let found: BTreeMap<usize, u64> = web
        .sizes
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, count)| *count != 0)
        .collect();
    ensure!(found == sizes, "{found:?}, expected {sizes:?}");
    ensure!(
        (web.syn, web.fin, web.rst, web.first_ack) == (1, 2, 1, 0),
        "{web:?}"
    );
    let ttl = usize::from(client(1).build()[22]) / TTL_STEP as usize;
    ensure!(web.ttls[ttl] == sizes.values().sum::<u64>(), "{:?}", web.ttls);

    // Others' packets are others', and who opted out has none.
    both.judge(
        &Frame::new()
            .ip("2001:db8::1", "2001:db8::2")
            .udp(4_000, 53)
            .build(),
    )?;
    both.judge(
        &Frame::new()
            .ip("192.0.2.1", "203.0.113.10")
            .tcp(5, 81, SYN)
            .build(),
    )?;
    ensure!(profile(&both, "dns")?.sizes.iter().sum::<u64>() == 1);
    ensure!(profile(&both, "quiet").is_err());
    ensure!(profile(&both, "web")? == web, "nothing more was sent to it");
    Ok(())
}

/// What each of the programs reads of a packet is enough for what it counts: lengths, TTLs, flags, answers to what was offered, sources.
#[test]
fn every_program_counts_the_same() -> Result<()> {
    require_root();
    let bucket = "[service.per_source]\npackets = { rate = 1000, burst = 1000 }\n";
    let web = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
    let list = "[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n";
    let head = "version = 1\n[sampling]\none_in = 0\n[source]\nmax_tracked = 4096\n";
    for (program, policy) in [
        ("weir_base", format!("{head}{web}{bucket}")),
        ("weir_full", format!("{head}{list}{web}{bucket}")),
        ("weir", format!("{head}{web}time = true\n{bucket}")),
    ] {
        let mut both = Both::new(&policy, 100 * SECOND)?;
        ensure!(both.program() == program, "{program}: {}", both.program());
        for port in 3_000..3_010 {
            both.judge(&segment(port, SYN, (7, 0), &[]))?;
            both.leaves(&reply(port, SYN | ACK, (50, 8), &[]))?;
            both.judge(&segment(port, ACK, (8, 51), &[]))?;
            both.judge(&segment(port, ACK | PSH, (8, 51), &[7; 400]))?;
        }
        for source in 0..1_000 {
            let source = format!("10.0.{}.{}", source >> 8, source & 0xff);
            both.judge(
                &Frame::new()
                    .ip(&source, "203.0.113.10")
                    .tcp(9, 80, FIN | ACK)
                    .build(),
            )?;
        }
        let web = profile(&both, "web")?;
        let counts = (web.syn, web.syn_ack, web.first_ack, web.fin, web.rst);
        ensure!(counts == (10, 10, 10, 1_000, 0), "{program}: {counts:?}");
        let long = SIZES.iter().filter(|bound| 454 > **bound as usize).count();
        ensure!(
            (web.sizes[0], web.sizes[long]) == (1_020, 10),
            "{program}: {:?}",
            web.sizes
        );
        let ttl = usize::from(client(1).build()[22]) / TTL_STEP as usize;
        ensure!(web.ttls[ttl] == 1_030, "{program}: {:?}", web.ttls);
        let distinct = both.kernel.take_distinct()?;
        let raised = distinct.iter().flat_map(|service| service.registers.iter());
        let raised = raised.filter(|register| **register != 0).count();
        // Of 1,001 sources in 4,096 registers some 110 share one.
        ensure!((800..1_001).contains(&raised), "{program}: {raised}");
    }
    Ok(())
}

/// Also of traffic to no service.
#[test]
fn udp_what_reflects_and_fragments_are_counted() -> Result<()> {
    require_root();
    let mut both = Both::new(POLICY, 100 * SECOND)?;
    let from = || Frame::new().ip("192.0.2.1", "203.0.113.10");
    for (source, destination) in [(4_000, 53), (53, 53), (11_211, 53), (123, 7_000), (4_000, 7_000)] {
        both.judge(&from().udp(source, destination).build())?;
    }
    both.judge(&from().fragment(1480, false).udp(53, 7_000).build())?;
    both.judge(&from().tcp(53, 7_000, ACK).build())?;
    let counts = |service: &str| -> Result<_> {
        let profile = profile(&both, service)?;
        let packets: u64 = profile.sizes.iter().sum();
        Ok((packets, profile.udp, profile.reflected, profile.fragments))
    };
    ensure!(counts("dns")? == (3, 3, 2, 0), "{:?}", counts("dns")?);
    ensure!(counts("default")? == (4, 3, 1, 1), "{:?}", counts("default")?);
    Ok(())
}

#[test]
fn handshakes_are_counted_and_timed_and_so_are_first_answers() -> Result<()> {
    require_root();
    let mut now = 100 * SECOND;
    let mut both = Both::new(POLICY, now)?;
    let (round_trip, thinking) = (23_000_000, 140_000_000);
    let mut step = |both: &mut Both, ns: u64| -> Result<()> {
        now += ns;
        both.set_clock(now)
    };
    for port in 3_000..3_010 {
        both.judge(&segment(port, SYN, (7, 0), &[]))?;
        both.leaves(&reply(port, SYN | ACK, (50, 8), &[]))?;
        step(&mut both, round_trip)?;
        both.judge(&segment(port, ACK, (8, 51), &[]))?;
        // Again: that is no second handshake.
        both.judge(&segment(port, ACK, (8, 51), &[]))?;
        step(&mut both, SECOND)?;
        both.judge(&segment(port, ACK | PSH, (8, 51), b"GET / HTTP/1.1\r\n\r\n"))?;
        both.leaves(&reply(port, ACK, (51, 26), &[]))?;
        step(&mut both, thinking)?;
        both.leaves(&reply(port, ACK | PSH, (51, 26), b"HTTP/1.1 200 OK"))?;
        both.leaves(&reply(port, ACK | PSH, (66, 26), b"more"))?;
    }
    // An ACK that answers nothing, and an answer that nobody asked for.
    both.judge(&segment(4_000, ACK, (8, 51), &[]))?;
    both.leaves(&reply(4_000, ACK | PSH, (51, 26), b"220 hello"))?;
    let web = profile(&both, "web")?;
    ensure!((web.syn, web.syn_ack, web.first_ack) == (10, 10, 10), "{web:?}");
    let one = |counts: &[u64], ns: u64| counts[time_at(ns)] == 10 && counts.iter().sum::<u64>() == 10;
    ensure!(one(&web.handshake, round_trip), "{:?}", web.handshake);
    ensure!(one(&web.first_byte, thinking), "{:?}", web.first_byte);
    let near = |sum: u64, ns: u64| sum.abs_diff(10 * ns) <= 10 * 2_048;
    ensure!(
        near(web.handshake_ns, round_trip) && near(web.first_byte_ns, thinking),
        "{web:?}"
    );
    Ok(())
}

#[test]
fn different_sources_are_counted_in_intervals() -> Result<()> {
    require_root();
    let mut both = Both::new(POLICY, 100 * SECOND)?;
    ensure!(
        both.kernel.take_distinct()?.is_empty(),
        "nobody has sent anything"
    );
    for round in 0..3 {
        for source in 0..1_000_u32 {
            let source = format!("10.{round}.{}.{}", source >> 8, source & 0xff);
            both.judge(&Frame::new().ip(&source, "203.0.113.10").tcp(9, 80, ACK).build())?;
        }
        let distinct = both.kernel.take_distinct()?;
        ensure!(
            distinct.len() == 1 && distinct[0].service == "web",
            "{distinct:?}"
        );
        let registers = &distinct[0].registers;
        // Linear counting: of m registers, those that stay empty say how many sources there were.
        let empty: f64 = registers
            .iter()
            .map(|register| f64::from(u8::from(*register == 0)))
            .sum();
        let m = REGISTERS as f64;
        let estimate = m * (m / empty).ln();
        ensure!((estimate - 1_000.0).abs() < 60.0, "round {round}: {estimate}");
    }
    ensure!(both.kernel.take_distinct()?.is_empty());
    Ok(())
}

#[test]
fn a_service_that_is_new_begins_at_zero_and_one_that_stays_goes_on() -> Result<()> {
    require_root();
    let mut both = Both::new(POLICY, 100 * SECOND)?;
    both.judge(&client(1).build())?;
    both.judge(&Frame::new().ip("192.0.2.1", "203.0.113.10").udp(9, 53).build())?;
    let apply = |both: &mut Both, text: &str| -> Result<()> {
        let policy = weir::policy::parse(text, std::path::Path::new("t.toml"))?.policy;
        Ok(both
            .kernel
            .apply(&policy, text, &BTreeMap::new(), &[])
            .map(drop)?)
    };
    // dns goes; its number is free one policy later, and then another's.
    apply(&mut both, &POLICY.replace("\"dns\"", "\"other\""))?;
    for name in ["third", "fourth", "fifth"] {
        apply(&mut both, &POLICY.replace("\"dns\"", &format!("{name:?}")))?;
        let sizes = both
            .kernel
            .profiles()?
            .into_iter()
            .find(|profile| profile.service == name);
        ensure!(
            sizes.is_none_or(|profile| profile.sizes.iter().sum::<u64>() == 0),
            "{name}"
        );
    }
    ensure!(profile(&both, "web")?.sizes.iter().sum::<u64>() == 1);
    Ok(())
}

/// Whole pages are read where many services changed, single ones where few did, and nothing of the others.
#[test]
fn ten_thousand_services_are_read_by_the_page_and_only_those_that_changed() -> Result<()> {
    const SERVICES: u16 = 10_000;
    require_root();
    let mut text = "version = 1\n[sampling]\none_in = 0\n[source]\nmax_tracked = 4096\n".to_owned();
    for port in 1..=SERVICES {
        let _ = write!(
            text,
            "[[service]]\nname = \"s{port}\"\nprotocol = \"tcp\"\nports = [{port}]\n"
        );
    }
    let both = Both::new(&text, 100 * SECOND)?;
    let frame = |port: u16| {
        Frame::new()
            .ip("192.0.2.1", "203.0.113.10")
            .tcp(9, port, SYN)
            .build()
    };
    let packets = |profile: &ServiceProfile| profile.sizes.iter().sum::<u64>();
    ensure!(
        both.kernel
            .profiles()?
            .iter()
            .all(|profile| packets(profile) == 0)
    );
    for round in 1..=2 {
        for port in 1..=SERVICES {
            both.judge_quietly(&frame(port))?;
        }
        let begun = Instant::now();
        let all = both.kernel.profiles()?;
        println!("{} services that all changed: {:?}", all.len(), begun.elapsed());
        ensure!(all.len() == usize::from(SERVICES) + 1, "{}", all.len());
        let wrong = all.iter().find(|profile| {
            profile.service != "default" && (packets(profile), profile.syn) != (round, round)
        });
        ensure!(wrong.is_none(), "{wrong:?}");
    }
    // What was read in the epoch of its mark is read once more: a packet may have come just after.
    both.kernel.profiles()?;
    let before = both.kernel.profiles()?;
    for port in [1, 2, 5_000] {
        both.judge_quietly(&frame(port))?;
    }
    let names: Vec<Arc<str>> = ["s2", "s3", "default", "nobody"].map(Arc::from).into();
    let between = both.kernel.profiles_of(&names)?;
    let counted: Vec<(&str, u64)> = between
        .iter()
        .map(|profile| (profile.service.as_str(), packets(profile)))
        .collect();
    ensure!(counted == [("s2", 3), ("s3", 2), ("default", 0)], "{counted:?}");
    let begun = Instant::now();
    let after = both.kernel.profiles()?;
    println!("three that changed: {:?}", begun.elapsed());
    let changed: BTreeSet<&str> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| !Arc::ptr_eq(before, after))
        .map(|(_, after)| after.service.as_str())
        .collect();
    ensure!(changed == BTreeSet::from(["s1", "s2", "s5000"]), "{changed:?}");
    Ok(())
}

/// Everything in the ring.
fn samples(both: &Both) -> Result<Vec<Sample>> {
    Ok(both.kernel.samples()?.take(1_000_000))
}

#[test]
fn a_sample_says_what_happened_to_its_packet() -> Result<()> {
    require_root();
    stay_on(0)?;
    let text = POLICY.replace("one_in = 0", "one_in = 1\nmax_per_second = 100000")
        + "[[service.class]]\nname = \"office\"\nlists = [\"office\"]\n[service.class.per_source]\npackets = { rate = 1, burst = 1 }\n"
        + "[lists.office]\nprefixes = [\"192.0.2.0/24\"]\n";
    let mut now = 100 * SECOND;
    let mut both = Both::new(&text, now)?;
    let frames = [
        Frame::new()
            .ip("198.51.100.1", "203.0.113.10")
            .tcp(9, 80, SYN)
            .pad_to(900)
            .build(),
        Frame::new()
            .ip("192.0.2.7", "203.0.113.10")
            .tcp(9, 81, ACK)
            .build(),
        Frame::new()
            .ip("192.0.2.7", "203.0.113.10")
            .tcp(9, 81, ACK)
            .build(),
        Frame::new()
            .ip("2001:db8::1", "2001:db8::2")
            .udp(4_000, 53)
            .build(),
        Frame::new().ip("192.0.2.1", "192.0.2.2").udp(1, 2).build(),
    ];
    // The first packet of a CPU begins its countdown.
    let mut said = Vec::new();
    for round in 0..21 {
        for frame in &frames {
            now += 20_000;
            both.set_clock(now)?;
            let judged = both.judge(frame)?;
            if round >= 1 {
                said.push((frame.clone(), judged, now));
            }
        }
        if round == 0 {
            samples(&both)?;
        }
    }
    let samples = samples(&both)?;
    ensure!(
        samples.len() == said.len(),
        "{} samples of {} packets",
        samples.len(),
        said.len()
    );
    let mut classes = BTreeSet::new();
    for (sample, (frame, judged, at_ns)) in samples.iter().zip(&said) {
        let head = &sample.head;
        ensure!(sample.bytes == frame[..frame.len().min(SNAP)], "other bytes");
        ensure!(
            head.length as usize == frame.len() && head.one_in == 1 && head.at_ns == *at_ns,
            "{head:?}"
        );
        let verdict = head.verdict().context("no verdict")?.name();
        let reason = head.reason().context("no reason")?.name();
        let service = both
            .kernel
            .service_name(head.service)
            .unwrap_or_else(|| "default".into());
        ensure!(
            (verdict, reason, service.as_str()) == (judged.verdict, judged.reason, judged.service.as_str()),
            "{head:?} for {judged:?}"
        );
        ensure!(
            (head.class == 1) == (judged.class == "office"),
            "{head:?} for {judged:?}"
        );
        classes.insert(head.class);
        ensure!(head.missed == 0, "{head:?}");
    }
    ensure!(classes.len() == 2, "{classes:?}");
    ensure!(
        samples
            .iter()
            .any(|sample| sample.head.reason().map(Reason::name) == Some("source_packets"))
    );
    Ok(())
}

#[test]
fn what_does_not_fit_the_ring_and_what_the_cap_suppresses_is_counted() -> Result<()> {
    require_root();
    let text = POLICY.replace("one_in = 0", "one_in = 1\nmax_per_second = 100000");
    let mut now = 100 * SECOND;
    let mut both = Both::new(&text, now)?;
    let frame = client(1).build();
    let mut sent = 0_u64;
    while both.kernel.losses()?.sample < 100 {
        for _ in 0..500 {
            now += 20_000;
            both.set_clock(now)?;
            both.judge_quietly(&frame)?;
            sent += 1;
        }
        ensure!(sent < 200_000, "the ring has no end");
    }
    let losses = both.kernel.losses()?;
    let waiting = samples(&both)?;
    // Each CPU's first packet begins its countdown.
    let all = waiting.len() as u64 + losses.sample + losses.sample_suppressed;
    ensure!(
        sent - all <= 64,
        "{sent} sent, {} waiting, {losses:?}",
        waiting.len()
    );

    // Now many at one moment: the cap holds 50 ms of samples.
    for _ in 0..20_000 {
        both.judge_quietly(&frame)?;
    }
    let taken = samples(&both)?;
    let suppressed = both.kernel.losses()?.sample_suppressed - losses.sample_suppressed;
    ensure!((4_900..=5_100).contains(&taken.len()), "{}", taken.len());
    let stood: u64 = taken.iter().map(|sample| u64::from(sample.head.one_in)).sum();
    ensure!(stood + suppressed >= 19_900, "{stood} and {suppressed} of 20,000");
    // What follows says what was missed.
    now += SECOND;
    both.set_clock(now)?;
    for _ in 0..64 {
        now += 1_000_000;
        both.set_clock(now)?;
        both.judge_quietly(&frame)?;
    }
    let last = samples(&both)?.pop().context("no sample")?;
    ensure!(last.head.missed >= suppressed + losses.sample, "{:?}", last.head);
    Ok(())
}
