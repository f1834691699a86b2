//! What of the packet path a policy may need, in one number that a program carries as a constant, so that the verifier takes
//! out of it what no policy that it serves needs: bits of [`flags`], then 16 bits of [`subject_flags`] of any subject, then a bit
//! for each bucket that any subject has, by tier and kind.
//!
//! A program may carry more than a policy needs, never less. There are several, compiled for less and less ([`FULL`],
//! [`BASE`], [`LEAN`]): what the verifier takes out still costs the question, and the registers that the compiler kept for it.

use super::{KINDS, TIERS, flags, subject_flags};
use crate::plain::Observed;

/// Everything.
pub const ALL: u64 = u64::MAX;
/// Where the subjects' flags begin.
const SUBJECTS: u32 = 32;
/// Where the buckets begin.
const BUCKETS: u32 = 48;

/// What policies need that tell services apart by port, and hold sources to buckets of their own and services to totals.
pub const LEAN: u64 = of(
    flags::MONITOR
        | flags::DEFAULT_DROP
        | flags::REPLIES
        | flags::ESSENTIAL
        | flags::BYPASS_ALL
        | flags::LIMITS
        | flags::PROOFS
        | flags::READY
        | flags::OPENS
        | flags::EXACT_CLOCK
        | flags::DIRECT_PORTS,
    subject_flags::MONITOR | subject_flags::TIER | subject_flags::TIER << 3 | subject_flags::DEFAULT,
) | tier(0)
    | tier(3);

/// The same with what a policy has that says nothing of profiles and samples.
pub const BASE: u64 = LEAN
    | of(
        flags::OFFERS | flags::PROFILES | flags::SAMPLES,
        subject_flags::PROFILE,
    );

/// And with lists, classes, blocks, reserves and limits for networks: all that policies usually have whose services are told apart by
/// port alone.
pub const FULL: u64 =
    BASE | of(
        flags::LISTS,
        subject_flags::TIER << 1
            | subject_flags::TIER << 2
            | subject_flags::BLOCK
            | subject_flags::CLASSES
            | subject_flags::RESERVE,
    ) | tier(1)
        | tier(2);

/// Of these flags, of these flags of subjects, and no buckets.
#[inline(always)]
pub const fn of(flags: u32, subject_flags: u32) -> u64 {
    flags as u64 | (subject_flags as u64 & 0xffff) << SUBJECTS
}

/// The flags.
#[inline(always)]
pub const fn flags(uses: u64) -> u32 {
    uses as u32
}

/// The flags of subjects.
#[inline(always)]
pub const fn subject_flags(uses: u64) -> u32 {
    (uses >> SUBJECTS) as u32 & 0xffff
}

/// The bit of a bucket.
#[inline(always)]
pub const fn bucket(tier: usize, kind: usize) -> u64 {
    (bucket_of(tier, kind) as u64) << BUCKETS
}

/// The buckets, in a number of their own: what a program asks again and again takes one instruction less of 32 bits.
#[inline(always)]
pub const fn buckets(uses: u64) -> u32 {
    (uses >> BUCKETS) as u32
}

/// The bit of a bucket there.
#[inline(always)]
pub const fn bucket_of(tier: usize, kind: usize) -> u32 {
    1 << (tier * KINDS + kind)
}

/// The bits of a tier's buckets.
const fn tier(tier: usize) -> u64 {
    ((1 << KINDS) - 1) * bucket(tier, 0)
}

/// Whether any subject keeps something of sources: buckets or blocks.
#[inline(always)]
pub const fn sources(uses: u64) -> bool {
    uses & tier(0) != 0 || subject_flags(uses) & subject_flags::BLOCK != 0
}

/// What is taken for granted by a program that was compiled for less than everything: that sources are kept, and that the
/// table of destination ports holds services. (Of two policies that a program serves, one of which has classes of ports, the
/// other's need is beside the point: that one's is not in [`FULL`].)
#[inline(always)]
pub const fn granted(made_for: u64) -> bool {
    made_for != ALL
}

/// What such a program looks at of a packet besides its verdict.
#[inline(always)]
pub const fn observed(made_for: u64) -> Observed {
    let made_for = flags(made_for);
    Observed {
        ttl: made_for & flags::PROFILES != 0,
        payload: made_for & flags::TIMES != 0,
        acknowledgement: made_for & flags::OFFERS != 0,
    }
}

/// Whether a program compiled for `made_for` serves policies that need `uses`.
pub const fn fits(uses: u64, made_for: u64) -> bool {
    let takes = sources(uses) && flags(uses) & flags::DIRECT_PORTS != 0;
    uses & !made_for == 0 && (takes || !granted(made_for))
}

const _: () = assert!(BUCKETS as usize + TIERS * KINDS <= 64);
const _: () =
    assert!(fits(LEAN, LEAN) && fits(LEAN, BASE) && fits(BASE, BASE) && !fits(BASE, LEAN) && fits(ALL, ALL));
const _: () = assert!(fits(BASE, FULL) && fits(FULL, FULL) && !fits(FULL, BASE));
const _: () = assert!(asks(LEAN) && asks(BASE) && asks(FULL) && asks(ALL));

/// Whether a program asks of a packet what its subjects may want: the path goes by the flags of subjects alone.
const fn asks(made_for: u64) -> bool {
    const ANSWERS: u32 = subject_flags::RESERVE | subject_flags::BLOCK | subject_flags::PROFILE;
    let (all, own, observed) = (flags(made_for), subject_flags(made_for), observed(made_for));
    (own & ANSWERS == 0 || all & flags::OFFERS != 0 && observed.acknowledgement)
        && (own & subject_flags::PROFILE == 0 || all & flags::PROFILES != 0 && observed.ttl)
        && (own & subject_flags::TIME == 0 || all & flags::TIMES != 0 && observed.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever two policies need together, a program that fits grants nothing that one of them lacks.
    #[test]
    fn what_is_granted_is_there() {
        let direct = of(flags::READY | flags::DIRECT_PORTS, 0);
        let classes = of(flags::READY | flags::SOURCE_PORTS, 0);
        let addresses = of(flags::READY | flags::ADDRESS_GROUPS, 0);
        for (uses, base, full) in [
            (direct, false, false),
            (direct | bucket(0, 1), true, true),
            (direct | bucket(3, 0), false, false),
            (direct | bucket(1, 0) | bucket(0, 0), false, true),
            (direct | bucket(1, 0), false, false),
            (direct | of(0, subject_flags::BLOCK), false, true),
            (direct | bucket(0, 0) | classes, false, false),
            (direct | bucket(0, 0) | addresses, false, false),
            (classes | bucket(0, 0), false, false),
            (ALL, false, false),
        ] {
            assert_eq!(fits(uses, BASE), base, "{uses:#x}");
            assert_eq!(fits(uses, FULL), full, "{uses:#x}");
            assert!(fits(uses, ALL), "{uses:#x}");
        }
        assert!(fits(direct | bucket(0, 2) | bucket(3, 1), LEAN));
        assert!(!fits(direct | bucket(0, 2) | of(flags::SAMPLES, 0), LEAN));
    }
}
