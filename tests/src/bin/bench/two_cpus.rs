//! What two CPUs do at once over what one does: where they share nothing, and where both charge one total.

use std::collections::BTreeMap;

use anyhow::Result;
use weir_tests::{
    bpf::program::DROP,
    cpus::{Run, alone, beside},
    frame::{ACK, Frame},
};

use crate::{
    Turns, cases,
    packet::place,
    programs,
    table::{Cell, Figures, Table},
};

/// Each of two CPUs, and the other one.
const CPUS: [(usize, usize); 2] = [(0, 1), (1, 0)];

/// The turns of one subject, in nanoseconds a packet: by CPU, alone and beside the other.
#[derive(Default)]
struct Turn {
    alone: [Figures; 2],
    together: [Figures; 2],
    /// What both did at once over the mean of what each did alone, in one round.
    by_round: Figures,
}

/// Packets a second of two CPUs over those of one. Each CPU's time is the least of its rounds, alone and beside the other: both
/// are seldom left alone by whatever else a shared machine does at one moment, and what they cost each other they cost each other in every
/// round. The median of the rounds, in which each is compared with itself by the least of its calls, stands beside it.
pub(crate) fn measure(turns: &Turns) -> Result<(Table, BTreeMap<&'static str, f64>)> {
    let columns = [
        ("one", "one CPU, million packets/s"),
        ("two", "two CPUs, million packets/s"),
        ("times", "times"),
        ("times_by_round", "times, round by round"),
    ];
    let mut table = Table::new("two_cpus", "Two CPUs at once", &columns);
    let policy = format!(
        "version = 1\n[default]\nprofile = false\n[sampling]\none_in = 0\n{}{}",
        service(80),
        service(81)
    );
    let (mut dataplane, _bpffs) = place(&policy, 0)?;
    let weir = dataplane.test_program(false)?;
    let bare = programs::bare(DROP)?;
    let frames = [80, 81].map(|port| {
        Frame::new()
            .ip("192.0.2.1", "203.0.113.10")
            .tcp(40_000, port, ACK)
            .build()
    });
    let drop = |_, runs| Ok(bare.run(&frames[0], runs)?.1);
    let apart = |cpu: usize, runs| Ok(weir.run(&frames[cpu], runs)?.1);
    let one = |_, runs| Ok(weir.run(&frames[0], runs)?.1);
    let subjects: [(&'static str, &Run<'_>); 3] = [
        ("bare drop", &drop),
        ("two totals, one of each CPU, passed", &apart),
        ("one total, passed", &one),
    ];
    let mut measured: Vec<(u32, Turn)> = Vec::new();
    // Many short calls: that two CPUs are left alone at once is seldom, and not for long.
    let calls = turns.parts.div_ceil(2);
    for (_, run) in &subjects {
        let one = run(0, 10_000)?.as_nanos() as f64;
        measured.push((turns.runs(one), Turn::default()));
    }
    for _ in 0..turns.rounds {
        for ((_, run), (runs, turn)) in subjects.iter().zip(&mut measured) {
            let (mut one, mut two) = (0.0, 0.0);
            for (cpu, other) in CPUS {
                let apart = alone(cpu, *run, *runs, calls)?;
                let together = beside(cpu, other, *run, *runs, calls)?;
                one += 1.0 / least(&apart);
                two += 1.0 / least(&together);
                apart.iter().for_each(|time| turn.alone[cpu].push(*time));
                together.iter().for_each(|time| turn.together[cpu].push(*time));
            }
            turn.by_round.push(two / (one / 2.0));
        }
    }
    let mut ratios = BTreeMap::new();
    for ((name, _), (_, turn)) in subjects.iter().zip(&measured) {
        let rates = |figures: &[Figures; 2]| {
            figures
                .each_ref()
                .map(|figures| figures.spread().map_or(0.0, |spread| 1.0 / spread.least))
        };
        let one = rates(&turn.alone).into_iter().fold(0.0, f64::max);
        let two: f64 = rates(&turn.together).into_iter().sum();
        ratios.insert(*name, two / one);
        table.row(
            *name,
            vec![
                Cell::Number(one * 1e3, 1),
                Cell::Number(two * 1e3, 1),
                Cell::Number(two / one, 2),
                Cell::figures(&turn.by_round, 2),
            ],
        );
    }
    Ok((table, ratios))
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

/// A service of a port with a total that nobody reaches.
fn service(port: u16) -> String {
    let total = cases::TOTAL;
    format!("[[service]]\nname = \"s{port}\"\nprotocol = \"tcp\"\nports = [{port}]\nprofile = false\n{total}")
}
