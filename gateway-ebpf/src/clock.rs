//! The clock of the packet path.

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::xdp,
    programs::XdpContext,
};
use gateway_core::image::Control;

use crate::{environment::control, maps};

/// The clock, or where it stands in a test.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    if maps::test_clock() != 0 {
        control(Control::TestClock)
    } else {
        // SAFETY: reads the clock (CLOCK_MONOTONIC).
        unsafe { bpf_ktime_get_ns() }
    }
}

/// As [`now_ns`], by a clock that stands still between the kernel's ticks: by their count, which the kernel's verifier makes a
/// load of one word (5.5; as fast as nothing), or where that is not known to be in step by the kernel's coarse clock (14 ns; the
/// exact one takes 30).
#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    if maps::test_clock() != 0 {
        control(Control::TestClock)
    } else if maps::tick_ns() != 0 {
        // SAFETY: reads the count of ticks.
        let ticks = unsafe { bpf_jiffies64() };
        ticks
            .wrapping_mul(maps::tick_ns())
            .wrapping_add(maps::tick_origin_ns())
    } else {
        // SAFETY: reads the clock (CLOCK_MONOTONIC_COARSE, of the same origin as the exact one).
        unsafe { bpf_ktime_get_coarse_ns() }
    }
}

/// Writes into the first 24 bytes of a frame the count of ticks, the clock that goes by it, and the exact one, which is read last: by
/// the first and the last userspace learns when the count began. For test-runs only.
#[xdp]
#[inline(always)]
fn weir_ticks(context: XdpContext) -> u32 {
    let data = context.data();
    if data + 24 <= context.data_end() {
        // SAFETY: the frame has so many bytes; neither call takes anything.
        unsafe {
            let words = data as *mut u64;
            words.write_unaligned(bpf_jiffies64());
            words.add(1).write_unaligned(coarse_ns());
            words.add(2).write_unaligned(bpf_ktime_get_ns());
        }
    }
    XDP_PASS
}
