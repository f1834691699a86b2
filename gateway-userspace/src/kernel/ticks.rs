//! The kernel's count of ticks as a clock: what a packet path that need not be exact reads in place of a call of the kernel.
//!
//! Where timers are of high resolution, the kernel adds to the count as many ticks as `CLOCK_MONOTONIC` has gone on by
//! (`tick_do_update_jiffies64`, kernel/time/tick-sched.c, Linux 6.1 to 6.18): count and clock stay in step for good, also when
//! no tick came for a while. Where they are not, a tick that is lost is lost, and the count is not used.

use aya::Ebpf;
use nix::time::{ClockId, clock_getres};

use super::{KernelError, object, pins::io_error, sys};

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

/// The clock when the count was 0. It is the same until the machine starts anew; the count is looked at over two ticks, because
/// only at the moment of a tick the two clocks say the same.
pub(super) fn origin_ns(object: &mut Ebpf) -> Result<u64, KernelError> {
    /// A frame that the kernel takes for a test-run, and more looks than two ticks of a hundredth of a second have room for.
    const FRAME: usize = 64;
    const LOOKS: u32 = 1_000_000;
    let Some(tick_ns) = resolution_ns(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return Ok(0);
    };
    let program = object::load(object, "weir_ticks")?;
    let mut first = None;
    let mut earliest = None;
    for _ in 0..LOOKS {
        let mut frame = [0_u8; FRAME];
        sys::test_run_once(program, &mut frame)
            .map_err(|source| io_error("cannot test-run the program weir_ticks".into(), source))?;
        let word = |at: usize| {
            frame[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let (count, clock_ns) = (word(0), word(8));
        // As far as the clock is beyond the last tick, it is beyond the count: the least of it is the tick's own moment.
        let origin_ns = clock_ns.wrapping_sub(count.wrapping_mul(tick_ns));
        let known = *earliest.get_or_insert(origin_ns);
        earliest = Some(earlier(known, origin_ns));
        if count >= *first.get_or_insert(count) + 3 {
            break;
        }
    }
    Ok(earliest.unwrap_or(0))
}

/// The earlier of two times that are near one another, modulo 2⁶⁴.
fn earlier(one: u64, other: u64) -> u64 {
    if other.wrapping_sub(one).cast_signed() < 0 {
        other
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_time_counts_also_around_the_wrap() {
        assert_eq!(earlier(7, 5), 5);
        assert_eq!(earlier(5, 7), 5);
        assert_eq!(earlier(3, u64::MAX - 3), u64::MAX - 3);
        assert_eq!(earlier(u64::MAX - 3, 3), u64::MAX - 3);
    }
}
