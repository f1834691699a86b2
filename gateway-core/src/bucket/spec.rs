//! What a bucket charges and how deep it is, in units of time chosen for it.
//!
//! A bucket's state is the time at which it will be full again. Its unit is a power of two of a nanosecond, so that the
//! kernel's clock becomes the bucket's by a shift, and as fine as the bucket's depth allows, so that charges are whole
//! numbers of units:
//!
//! * packets and connections: one charge is at least [`MIN_CHARGE`] units, so rounding it moves the rate by at most
//!   1/2048 (0.05 %). A depth is `burst` charges exactly: a full bucket admits exactly `burst` back to back.
//! * bytes: one byte is a whole number of units (at least [`MIN_CHARGE`]) where the depth allows it, and then `burst` is
//!   exact as well. A cell of the source table has [`cell::TIME_BITS`] bits, so bursts above some 8 MB charge fractions
//!   of units a byte, cut off a packet: at most one unit in the at least [`MIN_CHARGE`] of the smallest packet (34
//!   bytes), 0.1 % in the worst case and 0.002 % at 1,500 bytes. Shared cells are wider and always exact.
//!
//! # Why nothing overflows
//!
//! `cost` fits 32 bits and an amount is at most 2²⁴ bytes (the kernel's frames end far below), so a charge before its
//! shift is below 2⁵⁶. A depth is at most [`TAGGED_DEPTH`] = 2³⁴ in a tagged cell of 36 bits and [`SHARED_DEPTH`] = 2⁵⁷
//! in a shared cell of 62 bits. An admitted charge ends within the depth, and depth and slack together stay within half of
//! the cell's range, so "ahead of now" is never ambiguous. Times themselves wrap by
//! design: all arithmetic on them is modulo the cell's range ([`super::cell`] says how stale times are told apart).

use super::cell;
use crate::line::TICK_SHIFT;

/// Finest unit of the source table: 2⁻¹¹ nanoseconds.
pub const FINEST: u32 = 11;
/// Finest unit of a shared cell: 2⁻¹⁶ nanoseconds.
pub const SHARED_FINEST: u32 = 16;
/// Coarsest unit: 2¹⁹ nanoseconds, half a millisecond (one a second charges 1,907 of them).
pub const COARSEST: u32 = 19;
/// The least charge for the smallest thing that a bucket can charge for.
pub const MIN_CHARGE: u64 = 1024;
/// No finer than this: 30 ppm is enough, and coarser units leave more of a cell's range to clocks that lag.
const FINE_CHARGE: u64 = 1 << 14;
/// The smallest IP packet in bytes: Ethernet and IPv4 headers.
pub const SMALLEST: u64 = 34;
/// Fractional bits of a cost a byte, where it has any.
pub const FRACTION: u32 = 20;
/// Deepest bucket in the source table, in units.
pub const TAGGED_DEPTH: u64 = 1 << 34;
/// Deepest shared bucket, in units.
pub const SHARED_DEPTH: u64 = 1 << 57;
/// How far a clock may run behind another one's (a preempted virtual CPU): one second, less where units are so fine that
/// a cell's range is short.
pub const SLACK_NS: u64 = 1 << 30;

/// The longest tick of a coarse clock that [`Spec::needs_exact_clock`] reckons with: of a kernel with 250 ticks a second.
pub const COARSE_TICK_NS: u64 = 4_000_000;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What a bucket counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Packets.
    Packets = 0,
    /// Bytes.
    Bytes = 1,
    /// New connections.
    Connections = 2,
}

/// Which table a bucket lives in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Home {
    /// The source table: tagged cells, one a source.
    Tagged,
    /// One shared cell.
    Shared,
}

/// A bucket as the packet path uses it. All zero: no bucket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Spec {
    id: u32,
    /// Units charged for one packet, byte or connection, shifted left by `fraction`.
    pub cost: u32,
    /// The clock is shifted left by this…
    pub left: u8,
    /// …and right by this to become the bucket's.
    pub right: u8,
    /// Fractional bits of `cost`.
    pub fraction: u8,
    /// Not 0 for a total, of which CPUs may take leases ([`crate::lease`]): they leave at most `depth` >> `leased` owed. 1, unless a part of the
    /// depth is kept for proven sources ([`crate::lease::shift`]).
    pub leased: u8,
    /// What cells say of the spec that charged them, so that a packet compares all of it at once: the bucket's number (which [`Self::of_bucket`] sets here
    /// and in `id`), unit and version ([`cell::label`]).
    label: u32,
    /// Units that a full bucket holds.
    pub depth: u64,
    /// A time up to this far ahead of now is a debt: depth and slack.
    pub window: u64,
}

/// A rate or a burst that no unit fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unfit;

impl core::fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("no unit of time fits this rate and burst")
    }
}

impl Spec {
    /// Chooses a unit, of a bucket that has no number yet ([`Self::of_bucket`]).
    ///
    /// # Errors
    /// [`Unfit`] outside the bounds of `docs/policy.md`, or where the burst is too deep for a cell.
    pub fn new(kind: Kind, home: Home, rate: u64, burst: u64) -> Result<Self, Unfit> {
        if rate == 0 || burst == 0 {
            return Err(Unfit);
        }
        let (finest, deepest) = match home {
            Home::Tagged => (FINEST, TAGGED_DEPTH),
            Home::Shared => (SHARED_FINEST, SHARED_DEPTH),
        };
        // From the finest unit on: the first in which the depth fits. `scale` = units in a second.
        let mut coarse = None;
        for shift in -(finest.cast_signed())..=COARSEST.cast_signed() {
            let scale = if shift < 0 {
                u128::from(SECOND) << -shift
            } else {
                u128::from(SECOND)
            };
            let divisor = if shift < 0 {
                u128::from(rate)
            } else {
                u128::from(rate) << shift
            };
            let whole = (scale + divisor / 2) / divisor;
            let fits = whole * u128::from(burst) <= u128::from(deepest);
            if fits && whole >= u128::from(MIN_CHARGE) {
                if whole < 2 * u128::from(FINE_CHARGE) {
                    return Ok(Self::of(
                        shift,
                        finest,
                        whole as u64,
                        0,
                        whole as u64 * burst,
                        home,
                    ));
                }
                continue;
            }
            // No whole number of units a byte is fine enough and fits: fractions of units.
            if matches!(kind, Kind::Bytes) && coarse.is_none() {
                let fine = ((scale << FRACTION) + divisor / 2) / divisor;
                let depth = (fine * u128::from(burst)).div_ceil(1 << FRACTION);
                if depth <= u128::from(deepest)
                    && fine <= u128::from(u32::MAX)
                    && (fine * u128::from(SMALLEST)) >> FRACTION >= u128::from(MIN_CHARGE)
                {
                    coarse = Some(Self::of(shift, finest, fine as u64, FRACTION, depth as u64, home));
                }
            }
        }
        coarse.ok_or(Unfit)
    }

    fn of(shift: i32, finest: u32, cost: u64, fraction: u32, depth: u64, home: Home) -> Self {
        let (left, right) = if shift < 0 {
            (-shift as u8, 0)
        } else {
            (0, shift as u8)
        };
        let slack = (SLACK_NS << left) >> right;
        let range = match home {
            Home::Tagged => cell::TIME_MASK,
            Home::Shared => cell::SHARED_MASK,
        };
        Self {
            id: 0,
            cost: cost as u32,
            left,
            right,
            fraction: fraction as u8,
            leased: u8::from(matches!(home, Home::Shared)),
            label: match home {
                Home::Tagged => cell::spec_label(0, (finest.cast_signed() + shift) as u8, 0),
                // Nobody compares the unit of a shared cell.
                Home::Shared => 0,
            },
            depth,
            window: depth + slack.min(range / 2 - depth),
        }
    }

    /// The same, of the bucket of this number, and which of its recent specs it is (0 to 3): cells carry that, so that a changed rate can
    /// convert debts.
    #[must_use]
    pub const fn of_bucket(self, id: u32, version: u8) -> Self {
        Self {
            id,
            label: cell::spec_label(id, self.exponent(), version),
            ..self
        }
    }

    /// The bucket's number, part of its cells' tags and the index of its shared cell; 0: there is no bucket.
    #[inline(always)]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// What cells say of it besides whose they are.
    #[inline(always)]
    pub const fn label(&self) -> u32 {
        self.label
    }

    /// [`FINEST`] − `left` + `right`: names the unit in tagged cells, 0 to 30.
    #[inline(always)]
    pub const fn exponent(&self) -> u8 {
        cell::unit_of(self.label) as u8
    }

    /// Which of the bucket's recent specs this is.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.label & 3) as u8
    }

    /// Whether there is a bucket.
    #[inline(always)]
    pub const fn exists(&self) -> bool {
        // For every bucket with a number has a label, which a packet compares next.
        self.label != 0
    }

    /// For how many ticks a line with a cell of this bucket may wait to be tidied.
    pub const fn patience(&self) -> u32 {
        (cell::patience_ns(self.exponent() as u32) >> TICK_SHIFT) as u32
    }

    /// Whether a clock that stands still for up to [`COARSE_TICK_NS`] is too coarse for this bucket: between its ticks a bucket
    /// looks as full as it was, which is never fuller than it is, and emptier by a tick's refill at most. That may be 1 % of the depth.
    pub const fn needs_exact_clock(&self) -> bool {
        self.exists() && (self.depth >> self.left) << self.right < 100 * COARSE_TICK_NS
    }

    /// The kernel's clock in the bucket's units.
    #[inline(always)]
    pub const fn clock(&self, now_ns: u64) -> u64 {
        (now_ns << self.left) >> self.right
    }

    /// How long so many of the bucket's units last, in nanoseconds, cut off: [`Self::clock`]'s inverse.
    #[inline(always)]
    pub const fn nanoseconds(&self, units: u64) -> u64 {
        (units >> self.left) << self.right
    }

    /// What `amount` packets, bytes or connections cost.
    #[inline(always)]
    pub const fn charge(&self, amount: u32) -> u64 {
        (self.cost as u64 * amount as u64) >> self.fraction
    }

    /// How many packets, bytes or connections it would admit at once to a debt, if it may be charged down to `open`.
    pub fn left(&self, debt: u64, open: u64) -> u64 {
        if self.cost == 0 || debt > open {
            return 0;
        }
        // The most whose charge, cut off below the fraction, stays within the room.
        let room = (u128::from(open - debt) + 1) << self.fraction;
        ((room - 1) / u128::from(self.cost)).min(u128::from(u64::MAX)) as u64
    }

    /// A debt of an older spec of the same bucket, in this spec's units: the same debt in tokens, at most the depth.
    ///
    /// Debt and costs are cut to their leading 31 and 32 bits, so that products stay in 64; the debt that results is at most one
    /// part in 2²⁹, and one unit, below the exact one.
    #[inline(always)]
    pub fn convert(&self, debt: u64, from: &Self) -> u64 {
        if debt == 0 || self.cost == 0 || from.cost == 0 {
            return 0;
        }
        let (new, old) = (u64::from(self.cost), u64::from(from.cost));
        let (new_zeros, old_zeros, debt_zeros) =
            (new.leading_zeros(), old.leading_zeros(), debt.leading_zeros());
        // 63 bits by 32 bits: 2³⁰ < ratio < 2³², and the product with 31 bits lies between 2⁶⁰ and 2⁶³.
        // (The divisor's highest bit is set; `max` lets the compiler see that it is not zero.)
        let ratio = (new << new_zeros >> 1) / (old << old_zeros >> 32).max(1);
        let product = (debt << debt_zeros >> 33) * ratio;
        // By how many bits the product is too large, for all the shifts above and the fractions of both costs.
        let right = (debt_zeros + new_zeros + u32::from(self.fraction)).cast_signed()
            - (old_zeros + u32::from(from.fraction) + 2).cast_signed();
        let converted = match right {
            ..=0 => u64::MAX,
            64.. => 0,
            _ => product >> (right & 63),
        };
        if converted > self.depth {
            self.depth
        } else {
            converted
        }
    }
}
