//! Attackers who fill lines, simulated with the code that the kernel runs ([`weir::twin`]) on a virtual clock: what the overflow
//! bucket is asked, and what becomes of newcomers who keep within their limit.

use std::{net::Ipv4Addr, path::Path};

use anyhow::Result;
use gateway_core::{judge::Event, line::KEPT, verdict::Verdict};
use weir::{kernel::ListContents, policy, twin::Twin};
use weir_tests::frame::{ACK, Frame};

const SECOND: u64 = 1_000_000_000;
/// One packet in so many is a newcomer's.
const NEWCOMERS: u64 = 997;

/// What the attackers do.
struct Attack {
    name: &'static str,
    /// Slots of the table.
    tracked: u32,
    /// Packets a second.
    speed: u64,
    /// Of how many sources; 0: each packet has one of its own.
    sources: u32,
    /// The limit of a source, as the policy says it.
    limits: &'static str,
    /// Seconds that the debt of one packet takes to drain, and cells that a source in debt takes.
    drains_in: f64,
    cells: f64,
}

const ATTACKS: [Attack; 9] = [
    of(
        "1M/s, each a new source; 1,000/s a source",
        65_536,
        1_000_000,
        0,
        "packets = { rate = 1000, burst = 1000 }",
        0.001,
        1.0,
    ),
    of(
        "8M/s, the same",
        65_536,
        8_000_000,
        0,
        "packets = { rate = 1000, burst = 1000 }",
        0.001,
        1.0,
    ),
    of(
        "1M/s; packets, bytes and connections",
        65_536,
        1_000_000,
        0,
        "packets = { rate = 1000, burst = 1000 }\nbytes = { rate = \"1MB\", burst = \"1MB\" }\nconnections = { rate = 1000, burst = 1000 }",
        0.001,
        2.0,
    ),
    of(
        "1M/s; 100/s a source",
        65_536,
        1_000_000,
        0,
        "packets = { rate = 100, burst = 100 }",
        0.01,
        1.0,
    ),
    of(
        "1M/s; 20/s a source",
        65_536,
        1_000_000,
        0,
        "packets = { rate = 20, burst = 40 }",
        0.05,
        1.0,
    ),
    of(
        "1M/s; 20/s a source, a million slots",
        1_000_000,
        1_000_000,
        0,
        "packets = { rate = 20, burst = 40 }",
        0.05,
        1.0,
    ),
    of(
        "1M/s; 1/s a source, a million slots",
        1_000_000,
        1_000_000,
        0,
        "packets = { rate = 1, burst = 10 }",
        1.0,
        1.0,
    ),
    of(
        "a botnet of 50,000 that buys blocks",
        65_536,
        1_000_000,
        50_000,
        "packets = { rate = 10, burst = 1 }\nblock = { for = \"1m\", drops = 5, within = \"10s\" }",
        0.1,
        1.0,
    ),
    of(
        "the same, a million slots",
        1_000_000,
        1_000_000,
        50_000,
        "packets = { rate = 10, burst = 1 }\nblock = { for = \"1m\", drops = 5, within = \"10s\" }",
        0.1,
        1.0,
    ),
];

const fn of(
    name: &'static str,
    tracked: u32,
    speed: u64,
    sources: u32,
    limits: &'static str,
    drains_in: f64,
    cells: f64,
) -> Attack {
    Attack {
        name,
        tracked,
        speed,
        sources,
        limits,
        drains_in,
        cells,
    }
}

/// Simulates each attack and prints what came of it.
pub(crate) fn attackers(quick: bool) -> Result<()> {
    println!(
        "\nattackers, simulated; a line has {} cells for everybody and 2 for proven sources\n",
        KEPT - 1
    );
    println!(
        "{:<48} {:>8} {:>10} {:>10} {:>12} {:>12}",
        "", "debtors", "no cell", "by Poisson", "newcomers in", "proven ones"
    );
    for attack in &ATTACKS {
        let (full, strangers, proven) = simulate(attack, quick)?;
        let lines = f64::from(attack.tracked.div_ceil(7));
        let sources = if attack.sources == 0 {
            f64::MAX
        } else {
            f64::from(attack.sources)
        };
        let debtors = (attack.speed as f64 * attack.drains_in).min(sources);
        println!(
            "{:<48} {:>8.0} {:>9.4}% {:>9.4}% {:>11.2}% {:>11.2}%",
            attack.name,
            debtors,
            full * 100.0,
            at_least((KEPT - 1) as f64 / attack.cells, debtors / lines) * 100.0,
            strangers * 100.0,
            proven * 100.0
        );
    }
    println!(
        "\n'no cell': of the attackers' packets, those that the overflow bucket judged; 'by Poisson': lines that have no room for one more, if \
         each line has its share of the debtors by chance; 'newcomers in': of packets of sources that send one packet, those that passed"
    );
    Ok(())
}

/// The chance of so many or more, where the mean is `mean`.
fn at_least(many: f64, mean: f64) -> f64 {
    let (mut term, mut below) = ((-mean).exp(), 0.0);
    let mut at = 0.0;
    while at < many {
        below += term;
        at += 1.0;
        term *= mean / at;
    }
    (1.0 - below).max(0.0)
}

/// The shares of attackers' packets without a cell, and of newcomers' packets that pass, without a proof and with one.
fn simulate(attack: &Attack, quick: bool) -> Result<(f64, f64, f64)> {
    let text = format!(
        "version = 1\n[source]\nmax_tracked = {}\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [443]\n[service.per_source]\n{}\n",
        attack.tracked, attack.limits
    );
    let parsed = policy::parse(&text, Path::new("model.toml"))?.policy;
    let key = [
        0x0123_4567_89ab_cdef,
        0xfedc_ba98_7654_3210,
        0x9ddf_ea08_eb38_2d69,
        0xc2b2_ae3d_27d4_eb4f,
    ];
    let mut twin = Twin::new(&parsed, &ListContents::new(), key, attack.tracked.div_ceil(7))?;
    let mut frame = Frame::new()
        .ip("20.0.0.1", "10.77.0.2")
        .tcp(4_000, 443, ACK)
        .build();
    let mut send = |twin: &mut Twin, now_ns: u64, source: u32| {
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        twin.set_clock(now_ns);
        twin.judge(&frame).verdict == Verdict::Pass
    };
    let seconds = if quick { 0.2 } else { 1.0 };
    let warm = (attack.speed as f64 * (attack.drains_in * 1.5).max(0.05)) as u64;
    let packets = warm + (attack.speed as f64 * seconds) as u64;
    let (mut overflowed, mut strangers, mut proven, mut asked) = (0, 0, 0, 0u64);
    for number in 0..packets {
        let now_ns = 1_000 * SECOND + number * SECOND / attack.speed;
        // A large odd step, so that sources do not come in the order of their addresses.
        let mixed = (number as u32).wrapping_mul(2_654_435_761);
        let source = if attack.sources == 0 {
            mixed
        } else {
            mixed % attack.sources
        };
        let before = twin.events(Event::Overflow);
        send(&mut twin, now_ns, source & 0x3fff_ffff);
        if number < warm {
            continue;
        }
        overflowed += twin.events(Event::Overflow) - before;
        if number % NEWCOMERS == 0 {
            asked += 1;
            let newcomer = 0x8000_0000 | asked as u32;
            strangers += u64::from(send(&mut twin, now_ns, newcomer));
            let known = 0xc000_0000 | asked as u32;
            twin.prove(Ipv4Addr::from(known).into());
            proven += u64::from(send(&mut twin, now_ns, known));
        }
    }
    let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    Ok((
        share(overflowed, packets - warm),
        share(strangers, asked),
        share(proven, asked),
    ))
}
