//! The kernel's count of ticks as a clock: what a packet path that need not be exact reads in place of a call of the kernel.
//!
//! Where timers are of high resolution, the kernel adds to the count as many ticks as `CLOCK_MONOTONIC` has gone on by
//! (`tick_do_update_jiffies64`, kernel/time/tick-sched.c, Linux 6.1 to 6.18): count and clock stay in step for good, also when
//! no tick came for a while. Where they are not, a tick that is lost is lost, and the count is not used.

use std::os::fd::BorrowedFd;

use aya::Ebpf;
use nix::time::{ClockId, clock_getres};

use super::{Dataplane, KernelError, object, pins::io_error, sys};

/// The program that looks at the clocks.
const PROGRAM: &str = "weir_ticks";

/// How the count becomes a clock: `count × tick_ns + origin_ns`, modulo 2⁶⁴. All 0: it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticks {
    pub(super) tick_ns: u64,
    pub(super) origin_ns: u64,
}

impl Ticks {
    /// With the origin of [`origin_ns`], if this kernel keeps the count in step.
    pub(super) fn new(origin_ns: u64) -> Self {
        if origin_ns == 0 || resolution_ns(ClockId::CLOCK_MONOTONIC) != Some(1) {
            return Self::default();
        }
        // The coarse clock goes by the tick.
        resolution_ns(ClockId::CLOCK_MONOTONIC_COARSE)
            .map(|tick_ns| Self { tick_ns, origin_ns })
            .unwrap_or_default()
    }
}

/// What a clock goes on by: 1 ns where timers are of high resolution.
pub(super) fn resolution_ns(clock: ClockId) -> Option<u64> {
    let resolution = clock_getres(clock).ok()?;
    (resolution.tv_sec() == 0).then_some(resolution.tv_nsec() as u64)
}

/// What the program `weir_ticks` says: the count of ticks, the clock that goes by it, and the exact clock.
fn look(program: BorrowedFd<'_>) -> Result<[u64; 3], KernelError> {
    // As long as the kernel wants a frame to be.
    let mut frame = [0_u8; 64];
    sys::test_run_once(program, &mut frame)
        .map_err(|source| io_error("cannot test-run the program weir_ticks".into(), source))?;
    let (words, _) = frame.as_chunks::<8>();
    Ok([words[0], words[1], words[2]].map(u64::from_ne_bytes))
}

/// The clock when the count was 0; 0 where that cannot be seen. It is the same until the machine starts anew. The count is looked at
/// over some ticks, because only at the moment of a tick the two clocks say the same. It is told too early rather than too late, by a
/// 64th of a tick or as long as it was since the look before, for none comes at that very moment: the clock that goes by it should not be ahead.
pub(super) fn origin_ns(object: &mut Ebpf) -> Result<u64, KernelError> {
    /// Ticks to be seen: in one that came late the clock is further on.
    const TICKS: u32 = 5;
    /// More looks than so many ticks of a hundredth of a second have room for.
    const LOOKS: u32 = 1_000_000;
    let Some(tick_ns) = resolution_ns(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return Ok(0);
    };
    let program = object::load(object, PROGRAM)?;
    let [mut count, _, mut clock_ns] = look(program)?;
    let mut seen = 0;
    let mut best: Option<(u64, u64)> = None;
    for _ in 0..LOOKS {
        let (count_before, before_ns) = (count, clock_ns);
        [count, _, clock_ns] = look(program)?;
        // After a pause of more than a tick nobody knows when the last one was.
        if count.wrapping_sub(count_before) != 1 {
            continue;
        }
        let origin_ns = clock_ns.wrapping_sub(count.wrapping_mul(tick_ns));
        if best.is_none_or(|(known_ns, _)| is_earlier(origin_ns, known_ns)) {
            best = Some((origin_ns, clock_ns.wrapping_sub(before_ns)));
        }
        seen += 1;
        if seen == TICKS {
            break;
        }
    }
    Ok(best.map_or(0, |(origin_ns, since_ns)| {
        origin_ns.wrapping_sub(since_ns.clamp(tick_ns / 64, tick_ns))
    }))
}

impl Dataplane {
    /// For tests: so many looks at the clock that packets are judged by where it need not be exact, and each time at the exact one right after
    /// it, in nanoseconds; and whether the former goes by the kernel's count of ticks.
    ///
    /// # Errors
    /// Where the kernel does not run the program that looks.
    pub fn clocks(&self, looks: usize) -> Result<(Vec<(u64, u64)>, bool), KernelError> {
        let mut object = object::prepare(&self.set, &self.constants)?;
        let program = object::load(&mut object, PROGRAM)?;
        let seen: Result<Vec<_>, _> = (0..looks)
            .map(|_| look(program).map(|[_, coarse_ns, exact_ns]| (coarse_ns, exact_ns)))
            .collect();
        Ok((seen?, self.constants.ticks.tick_ns != 0))
    }
}

/// Whether a time is before another that is near it, modulo 2⁶⁴.
const fn is_earlier(one: u64, other: u64) -> bool {
    one.wrapping_sub(other).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_time_counts_also_around_the_wrap() {
        assert!(is_earlier(5, 7) && !is_earlier(7, 5) && !is_earlier(5, 5));
        assert!(is_earlier(u64::MAX - 3, 3) && !is_earlier(3, u64::MAX - 3));
    }
}
