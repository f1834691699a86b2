//! What a service's traffic looks like: counts that every packet adds to, and how many different sources there are.

/// Upper bounds of frame lengths, in bytes, from the Ethernet header on; a longer frame counts in one more.
pub const SIZES: [u32; 7] = [64, 128, 256, 512, 1024, 1518, 9018];
/// Counts of frame lengths.
pub const SIZE_COUNTS: usize = SIZES.len() + 1;
/// TTLs (hop limits) counted together: 0 to 7, 8 to 15, …
pub const TTL_STEP: u32 = 8;
/// Counts of TTLs.
pub const TTL_COUNTS: usize = 256 / TTL_STEP as usize;
/// Registers of `HyperLogLog` (Flajolet, Fusy, Gandouet, Meunier 2007): a standard error of 1.04 / √4096 = 1.6 %.
pub const REGISTERS: usize = 4096;
/// Counts of times: number `i` counts what took less than 2^`i` × [`TIME_UNIT_NS`] and not less than the one before, and the
/// last one what took longer.
pub const TIME_COUNTS: usize = 24;
/// The first count's bound: 2.048 µs. The last bound is 8.6 s.
pub const TIME_UNIT_NS: u64 = 2048;

/// The upper bound of a count of times, in nanoseconds; nothing for the last, which has none.
pub const fn time_bound_ns(at: usize) -> Option<u64> {
    if at + 1 < TIME_COUNTS {
        Some(TIME_UNIT_NS << at)
    } else {
        None
    }
}

/// The count that a frame length belongs to.
#[inline(always)]
pub const fn size_at(length: u32) -> usize {
    // The sum of comparisons has no branches to mispredict.
    (length > SIZES[0]) as usize
        + (length > SIZES[1]) as usize
        + (length > SIZES[2]) as usize
        + (length > SIZES[3]) as usize
        + (length > SIZES[4]) as usize
        + (length > SIZES[5]) as usize
        + (length > SIZES[6]) as usize
}

/// The count that a time belongs to.
#[inline(always)]
pub const fn time_at(ns: u64) -> usize {
    let mut at = 0;
    while at + 1 < TIME_COUNTS && ns >= TIME_UNIT_NS << at {
        at += 1;
    }
    at
}
