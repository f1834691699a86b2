//! Which CPU a thread runs on, and what a CPU does alone and while another one does the same.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// By then a test-run has begun: the kernel takes some ten milliseconds for it.
const BEGINS: Duration = Duration::from_millis(100);

/// So long a test-run takes at most to begin and to end, beside what it does, on a busy machine.
const CALL: Duration = Duration::from_millis(60);

/// How often a measurement is tried again in which the two did not run at once.
const TRIES: u32 = 3;

/// What a CPU runs so often under the kernel's test-run, and how long one run took.
pub type Run<'a> = dyn Fn(usize, u32) -> Result<Duration> + Sync + 'a;

/// Keeps the calling thread on one CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    keep_on(Pid::from_raw(0), cpu)
}

/// Keeps a thread on one CPU; number 0 is the calling one.
pub fn keep_on(thread: Pid, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(thread, &only).with_context(|| format!("cannot keep thread {thread} on CPU {cpu}"))
}

/// Nanoseconds of a run on a CPU, by each of so many calls of `runs`. In a thread of its own: the caller's would stay there, with all that it starts.
pub fn alone(cpu: usize, run: &Run<'_>, runs: u32, calls: usize) -> Result<Vec<f64>> {
    thread::scope(|scope| {
        let only = scope.spawn(|| -> Result<Vec<f64>> {
            stay_on(cpu)?;
            (0..calls)
                .map(|_| Ok(run(cpu, runs)?.as_nanos().max(1) as f64))
                .collect()
        });
        only.join().map_err(|_| anyhow!("a measuring thread panicked"))?
    })
}

/// The same while another CPU runs as well, measured within the other's time. Two that begin at once do not overlap well enough: each takes as
/// long to begin as a good part of the measurement.
pub fn beside(cpu: usize, other: usize, run: &Run<'_>, runs: u32, calls: usize) -> Result<Vec<f64>> {
    // As long as it takes to begin, to measure, and to be late.
    let one = alone(other, run, runs.min(100_000), 1)?;
    let turn = Duration::from_nanos(one.iter().sum::<f64>() as u64) * runs;
    let all = 2 * BEGINS + (2 * turn + CALL) * calls as u32;
    let longer = 1 + all.as_nanos().div_ceil(turn.as_nanos().max(1)) as u32;
    for _ in 0..TRIES {
        let (times, overlapped) = thread::scope(|scope| -> Result<(Vec<f64>, bool)> {
            let beside = scope.spawn(|| -> Result<Instant> {
                alone(other, run, runs.saturating_mul(longer), 1)?;
                Ok(Instant::now())
            });
            thread::sleep(BEGINS);
            let times = alone(cpu, run, runs, calls);
            let end = Instant::now();
            let beside = beside
                .join()
                .map_err(|_| anyhow!("a measuring thread panicked"))??;
            Ok((times?, beside > end))
        })?;
        if overlapped {
            return Ok(times);
        }
    }
    bail!("CPU {other} was never busy for as long as CPU {cpu} was measured")
}
