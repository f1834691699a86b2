//! What two CPUs do at once over what one does: where they share nothing, and where both charge one total.

use std::{collections::BTreeMap, sync::Barrier, thread, time::Duration};

use anyhow::{Result, anyhow};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use weir_tests::{
    bpf::program::DROP,
    frame::{ACK, Frame},
};

use crate::{
    Turns, cases,
    packet::place,
    programs,
    table::{Cell, Figures, Table},
};

/// A turn lasts so many parts of other rows: both CPUs begin within a fraction of a millisecond, and that must not matter.
const LONGER: u32 = 5;
const CPUS: [usize; 2] = [0, 1];

/// What a CPU runs: how long one run of so many takes.
type Run<'a> = dyn Fn(usize, u32) -> Result<Duration> + Sync + 'a;

/// The turns of one subject, in nanoseconds a packet: by CPU, alone and while the other runs as well.
#[derive(Default)]
struct Turn {
    alone: [Figures; 2],
    together: [Figures; 2],
    /// What both did at once over the mean of what each did alone, in one round.
    by_round: Figures,
}

/// Packets a second of two CPUs over those of one. Each CPU's time is the least of its rounds, alone and together: what
/// disturbs one CPU of a shared machine seldom leaves the other alone for that, and what the two cost each other they cost each other in every
/// round. The median of the rounds, in which each is compared with itself, stands beside it.
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
    for (_, run) in &subjects {
        measured.push((turns.runs(run(0, 10_000)?) * LONGER, Turn::default()));
    }
    for _ in 0..turns.rounds * turns.parts {
        for ((_, run), (runs, turn)) in subjects.iter().zip(&mut measured) {
            let mut alone = 0.0;
            for (cpu, figures) in CPUS.into_iter().zip(&mut turn.alone) {
                let [time] = at_once(*run, *runs, [cpu])?;
                figures.push(time);
                alone += 1.0 / time;
            }
            let times = at_once(*run, *runs, CPUS)?;
            for (time, figures) in times.into_iter().zip(&mut turn.together) {
                figures.push(time);
            }
            turn.by_round
                .push(times.map(|time| 1.0 / time).iter().sum::<f64>() / (alone / 2.0));
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

/// A service of a port with a total that nobody reaches.
fn service(port: u16) -> String {
    let total = cases::TOTAL;
    format!("[[service]]\nname = \"s{port}\"\nprotocol = \"tcp\"\nports = [{port}]\nprofile = false\n{total}")
}

/// Nanoseconds a packet on each of some CPUs while all of them run.
fn at_once<const COUNT: usize>(run: &Run<'_>, runs: u32, cpus: [usize; COUNT]) -> Result<[f64; COUNT]> {
    // Together, or one would be done before the other has begun.
    let together = Barrier::new(COUNT);
    thread::scope(|scope| {
        let threads = cpus.map(|cpu| {
            let together = &together;
            scope.spawn(move || -> Result<f64> {
                let mut only = CpuSet::new();
                let pinned = only
                    .set(cpu)
                    .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
                together.wait();
                pinned?;
                Ok(run(cpu, runs)?.as_nanos().max(1) as f64)
            })
        });
        let mut times = [0.0; COUNT];
        for (time, thread) in times.iter_mut().zip(threads) {
            *time = thread
                .join()
                .map_err(|_| anyhow!("a measuring thread panicked"))??;
        }
        Ok(times)
    })
}
