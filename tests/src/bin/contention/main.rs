//! What remains of the contention for a total: measured on two CPUs with leases and without, and reckoned for up to 64 by a model
//! whose costs are measured here and which is compared with the two. `docs/scaling.md` says what came of it.

mod model;

use std::{
    hint,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use weir::{
    kernel::{Dataplane, ListContents},
    policy,
};
use weir_tests::{
    bpffs::BpffsDir,
    cpus::{alone, beside, stay_on},
    frame::Frame,
};

use crate::model::Costs;

/// More than two CPUs send; the most that a policy can state.
const FAR: u64 = 100_000_000;

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contention: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut rounds, mut repeat) = (11, 1_000_000);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => (rounds, repeat) = (3, 500_000),
            other => bail!("no option {other}; there is --quick"),
        }
    }
    weir_tests::skip::require_root();
    let transfer_ns = (0..rounds).map(|_| transfer_ns()).collect::<Result<Vec<f64>>>()?;
    // Whatever else runs here can only make it longer.
    let transfer_ns = transfer_ns.into_iter().fold(f64::INFINITY, f64::min);
    let far = measure(FAR, rounds, repeat)?;
    // A total that this traffic nearly takes up, without ever emptying it.
    let near = measure((far.leased.1 * 1.25e3) as u64 * 1_000_000, rounds, repeat)?;

    println!(
        "{rounds} rounds of {repeat} runs, medians; a policy with one total of packets that passes all\n"
    );
    println!(
        "{:<44} {:>10} {:>10} {:>6}",
        "million packets a second", "one CPU", "two CPUs", "times"
    );
    for (name, (one, two)) in [
        ("without leases", far.bare),
        ("with leases", far.leased),
        ("without, four fifths of the total taken up", near.bare),
        ("with, four fifths of the total taken up", near.leased),
    ] {
        println!(
            "{name:<44} {:>10.2} {:>10.2} {:>6.2}",
            one * 1e3,
            two * 1e3,
            two / one
        );
    }
    println!("\na cache line from CPU to CPU and a compare-and-swap there: {transfer_ns:.0} ns");

    let costs = |packet_ns| Costs {
        packet_ns,
        transfer_ns,
        per_transfer: 1.0,
    };
    let bare = costs(1.0 / far.bare.0);
    let leased = |cpus| Costs {
        per_transfer: model::packets_of_a_lease(cpus, 1.0 / far.leased.0),
        ..costs(1.0 / far.leased.0)
    };
    println!("\nthe model on two CPUs, million packets a second");
    for (name, said, measured) in [
        ("without leases", model::rate(2, bare), far.bare.1),
        ("with leases", model::rate(2, leased(2)), far.leased.1),
    ] {
        println!(
            "{name:<20} {:>8.2}, measured {:>8.2}: {:+.0} %",
            said / 1e6,
            measured * 1e3,
            (said / 1e9 / measured - 1.0) * 100.0
        );
    }
    println!("\nthe model on more (arithmetic), million packets a second");
    println!("{:>6} {:>16} {:>14}", "CPUs", "without leases", "with leases");
    for cpus in [1, 2, 4, 8, 16, 32, 64] {
        let with = if cpus == 1 {
            model::rate(1, bare)
        } else {
            model::rate(cpus, leased(cpus))
        };
        println!(
            "{cpus:>6} {:>16.1} {:>14.1}",
            model::rate(cpus, bare) / 1e6,
            with / 1e6
        );
    }
    Ok(())
}

/// Packets a nanosecond of one CPU and of two.
struct Measured {
    bare: (f64, f64),
    leased: (f64, f64),
}

/// With leases and without, in turns in each round.
fn measure(rate: u64, rounds: usize, repeat: u32) -> Result<Measured> {
    let text = format!(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n\
         [service.total]\npackets = {{ rate = {rate}, burst = 1_000_000_000 }}\n"
    );
    let parsed = policy::parse(&text, Path::new("contention.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    dataplane.apply(&parsed, &text, &ListContents::new(), &[])?;
    let programs = [
        dataplane.test_program_of(1, false)?,
        dataplane.test_program_of(2, false)?,
    ];
    let mut rates = [const { (Vec::new(), Vec::new()) }; 2];
    let frame = frame();
    for _ in 0..rounds {
        for (program, (one, two)) in programs.iter().zip(&mut rates) {
            let run = |_, runs| Ok(program.run(&frame, runs)?.1);
            one.extend(alone(0, &run, repeat, 1)?.iter().map(|time| 1.0 / time));
            two.extend(beside(0, 1, &run, repeat, 1)?.iter().map(|time| 2.0 / time));
        }
    }
    let [bare, leased] = rates.map(|(one, two)| (median(one), median(two)));
    Ok(Measured { bare, leased })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn frame() -> Vec<u8> {
    Frame::new()
        .ip("192.0.2.1", "203.0.113.10")
        .udp(40_000, 80)
        .build()
}

/// Two CPUs change a word in turns; the time of a turn.
fn transfer_ns() -> Result<f64> {
    const TURNS: u64 = 400_000;
    let (word, start) = (AtomicU64::new(0), Barrier::new(2));
    let spent = thread::scope(|scope| {
        [0u64, 1]
            .map(|cpu| {
                let (word, start) = (&word, &start);
                scope.spawn(move || -> Result<Duration> {
                    let pinned = stay_on(cpu as usize);
                    start.wait();
                    let from = Instant::now();
                    for turn in (cpu..TURNS).step_by(2) {
                        while word.load(Ordering::SeqCst) != turn {
                            hint::spin_loop();
                        }
                        let changed =
                            word.compare_exchange(turn, turn + 1, Ordering::SeqCst, Ordering::SeqCst);
                        debug_assert!(changed.is_ok());
                    }
                    pinned?;
                    Ok(from.elapsed())
                })
            })
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("a measuring thread panicked"))?
            })
    });
    let [one, other] = spent;
    Ok(one?.max(other?).as_nanos() as f64 / TURNS as f64)
}
