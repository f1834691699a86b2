//! The decision of one bucket: GCRA, the generic cell rate algorithm (ITU-T I.371, annex A) in its virtual scheduling
//! form, on times that wrap.
//!
//! The state is the time at which the bucket will be full again. How far it lies ahead of now is the debt; a charge is
//! admitted if debt and charge together stay within the depth, and moves the time by the charge. A time outside
//! `(now, now + window]` means full.
//!
//! `window` is the depth and a slack: with several CPUs, a packet whose clock was read a moment earlier meets a time
//! that another CPU has set from a later clock, up to that moment beyond `now + depth`. Taking it for a stale time
//! would hand its source a full bucket; it is a debt, and too deep to admit anything.

/// Charges a bucket: the new time, or nothing if it refuses. `time` and the result are modulo `mask` + 1; `now` may have
/// more bits.
#[inline(always)]
pub const fn charge(time: u64, mask: u64, now: u64, charge: u64, depth: u64, window: u64) -> Option<u64> {
    let debt = debt(time, mask, now, window);
    admit(debt, mask, now, charge, depth)
}

/// How far a time lies ahead of now; 0 if the bucket is full.
#[inline(always)]
pub const fn debt(time: u64, mask: u64, now: u64, window: u64) -> u64 {
    let ahead = time.wrapping_sub(now) & mask;
    if ahead > window { 0 } else { ahead }
}

/// Charges a bucket with a known debt.
#[inline(always)]
pub const fn admit(debt: u64, mask: u64, now: u64, charge: u64, depth: u64) -> Option<u64> {
    let after = debt + charge;
    if after > depth {
        None
    } else {
        Some(now.wrapping_add(after) & mask)
    }
}
