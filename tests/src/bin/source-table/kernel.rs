//! The two tables under the kernel's test-run: nanoseconds a packet, and what a source that is limited gets while a million
//! others come.

use std::{path::Path, time::Duration};

use anyhow::Result;
use gateway_core::verdict::Verdict;
use weir::{
    kernel::{Dataplane, ListContents, TestProgram},
    policy,
};
use weir_tests::{
    bpffs::BpffsDir,
    frame::{Frame, seeded},
};

const ONE: &str = "packets = { rate = 100_000, burst = 100_000 }";
const THREE: &str = "packets = { rate = 100_000, burst = 100_000 }\nbytes = { rate = \"100MB\", burst = \"100MB\" }\nconnections = { rate = 100_000, burst = 100_000 }";

fn policy(limits: &str, tracked: u32) -> String {
    format!(
        "version = 1\n[source]\nmax_tracked = {tracked}\n[[service]]\nname = \"web\"\nprotocol = [\"tcp\", \"udp\"]\nports = [443]\n\
         [service.per_source]\n{limits}\n"
    )
}

/// A policy in force in maps of its own.
struct Place {
    dataplane: Dataplane,
    _bpffs: BpffsDir,
}

fn place(text: &str) -> Result<Place> {
    let parsed = policy::parse(text, Path::new("table.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    dataplane.apply(&parsed, text, &ListContents::new(), &[])?;
    Ok(Place {
        dataplane,
        _bpffs: bpffs,
    })
}

/// The frame that most of the path is for: a SYN, so that all three buckets are charged.
fn frame(v6: bool) -> Vec<u8> {
    let (source, target) = if v6 {
        ("2001:db8::1", "2001:db8:ffff::1")
    } else {
        ("20.0.0.1", "10.77.0.2")
    };
    Frame::new().ip(source, target).tcp(4_000, 443, 2).build()
}

/// One line of the table that is printed, with both variants.
struct Row {
    name: String,
    programs: [TestProgram; 2],
    frame: Vec<u8>,
    times: [Vec<Duration>; 2],
    _place: Place,
}

/// Nanoseconds a packet of both tables, in turns in each round.
pub(crate) fn compare(quick: bool) -> Result<()> {
    let (rounds, runs) = if quick { (5, 100_000) } else { (15, 500_000) };
    let mut rows = Vec::new();
    for v6 in [false, true] {
        for (kinds, limits) in [("packets", ONE), ("three buckets", THREE)] {
            for (sources, bits) in [("1", 0), ("1,024", 10), ("131,072", 17), ("1,048,576", 20)] {
                let mut place = place(&policy(limits, 4_000_000))?;
                let spread = ((1u32 << bits) - 1).to_be();
                let programs = [
                    place.dataplane.spread_program(spread, false)?,
                    place.dataplane.spread_program(spread, true)?,
                ];
                let family = if v6 { "IPv6" } else { "IPv4" };
                rows.push(Row {
                    name: format!("{family}, {kinds}, {sources} sources"),
                    programs,
                    frame: frame(v6),
                    times: [Vec::new(), Vec::new()],
                    _place: place,
                });
            }
        }
    }
    for _ in 0..rounds {
        for row in &mut rows {
            for (program, times) in row.programs.iter().zip(&mut row.times) {
                times.push(program.run(&seeded(&row.frame), runs)?.1);
            }
        }
    }
    println!(
        "{rounds} rounds of {runs} runs, both tables in each round; a table of 4,000,000 slots; ns a packet, least (median)\n"
    );
    println!("{:<44} {:>14} {:>14} {:>6}", "", "array", "LRU_HASH", "ratio");
    for row in &mut rows {
        let ns = row.times.each_mut().map(|times| {
            times.sort_unstable();
            (times[0].as_nanos(), times[times.len() / 2].as_nanos())
        });
        println!(
            "{:<44} {:>6} ({:>5}) {:>6} ({:>5}) {:>6.2}",
            row.name,
            ns[0].0,
            ns[0].1,
            ns[1].0,
            ns[1].1,
            ns[1].0 as f64 / ns[0].0 as f64
        );
    }
    println!(
        "\nmemory: the array 9.1 bytes a slot, the LRU_HASH about 80 bytes an entry (a bucket), by bytes_memlock and the lab's figures"
    );
    Ok(())
}

/// A source far over its limit, in turns with a million others, in tables of 65,536: how much of its limit it gets.
pub(crate) fn overload() -> Result<()> {
    const LIMIT: u64 = 10;
    // The kernel patches itself for each test-run of another XDP program, which takes milliseconds.
    const TURNS: u64 = 60;
    const OTHERS: u32 = 200_000;
    let text = policy(&format!("packets = {{ rate = 1, burst = {LIMIT} }}"), 65_536);
    let greedy = Frame::new()
        .ip("21.0.0.1", "10.77.0.2")
        .tcp(4_000, 443, 2)
        .build();
    let spoofed = frame(false);
    println!(
        "\na source that sends {TURNS} packets in turns with {OTHERS} of a million spoofed ones each, in tables of 65,536; burst {LIMIT}, rate 1/s\n"
    );
    for (name, lru) in [("array", false), ("LRU_HASH", true)] {
        let mut place = place(&text)?;
        let alone = place.dataplane.spread_program(0, lru)?;
        let flood = place.dataplane.spread_program(0x000f_ffff_u32.to_be(), lru)?;
        let started = std::time::Instant::now();
        let mut passed = 0u64;
        for _ in 0..TURNS {
            passed += u64::from(alone.run(&greedy, 1)?.0 == Verdict::Pass);
            flood.run(&seeded(&spoofed), OTHERS)?;
        }
        let limit = LIMIT + started.elapsed().as_secs();
        println!("{name:<10} {passed:>6} passed, {limit} are its limit");
    }
    Ok(())
}
