//! The clock that packets are judged by where it need not be exact.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_getres};
use weir::{kernel::Dataplane, policy};
use weir_tests::{bpffs::BpffsDir, skip::require_root};

/// More than the kernel takes for many ticks, whatever its ticks are.
const LOOKS: usize = 50_000;

#[test]
fn the_clock_of_ticks_stays_within_a_tick_of_the_exact_one() -> Result<()> {
    require_root();
    let parsed = policy::parse("version = 1\n", Path::new("clock.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    let (looks, by_ticks) = dataplane.clocks(LOOKS)?;
    let fine = clock_getres(ClockId::CLOCK_MONOTONIC)?.tv_nsec() == 1;
    ensure!(
        by_ticks == fine,
        "the clock goes by ticks where timers are of high resolution"
    );
    let tick_ns = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?
        .tv_nsec()
        .cast_unsigned();
    let mut behind = Vec::with_capacity(looks.len());
    for (coarse_ns, exact_ns) in looks {
        // Where the ticks of CPUs are skewed, one CPU's may come half a tick before the one that was looked at.
        let ahead_ns = coarse_ns.saturating_sub(exact_ns);
        ensure!(
            ahead_ns <= tick_ns / 2,
            "it is ahead by {ahead_ns} ns, of a tick of {tick_ns}"
        );
        behind.push(exact_ns.saturating_sub(coarse_ns));
    }
    behind.sort_unstable();
    // Looks are spread over ticks evenly, but for those in which somebody else had the CPU: they are few.
    let (least, middle) = (behind[0], behind[LOOKS / 2]);
    ensure!(
        least < tick_ns / 4,
        "at the best {least} ns behind, of a tick of {tick_ns}"
    );
    ensure!(
        middle < tick_ns,
        "mostly {middle} ns behind, of a tick of {tick_ns}"
    );
    Ok(())
}
