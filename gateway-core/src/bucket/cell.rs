//! How buckets and blocks lie in 64-bit cells.
//!
//! A *tagged* cell of the source table, changed in one compare-and-swap:
//!
//! ```text
//! 63        43 42      38 37   36 35                       0
//! | tag (21)  | unit (5) | v (2) | time (36)               |   a bucket
//! | tag (21)  | 31       | 0     | until (36), in 2²⁰ ns   |   a block of all that a source sends
//! | tag (21)  | 31       | 2     | until (36), in 2²⁰ ns   |   a block of its new connections
//! | tag (21)  | 31       | 1     | since (18), drops (18)  |   drops counted towards a block, since in 2²⁶ ns
//! ```
//!
//! The tag is 21 bits of the source's hash, xor the bucket's number: the buckets of one source never share a tag, and
//! two sources of one line do with a chance of 2⁻²¹. A cell of zeros is free.
//!
//! # When a time wraps
//!
//! A bucket's time wraps after 2³⁶ of its units; its depth is at most a quarter of that ([`super::spec`]). A bucket
//! that is full again is a free cell ([`drained`]) and would look indebted again only when half a range has passed since.
//! Every line carries the time of its last touch ([`crate::line`]), and the first packet to touch a line in a tick of
//! 4.2 ms empties the cells that are drained, or that must be since the line rested longer than their
//! deepest debt takes. So no controller and no timer is needed: a stale time is gone before anyone looks at it.
//!
//! A *shared* cell (a total, or an overflow bucket) is `v (2), time (62)`, in units as fine as 2⁻¹⁶ ns. Its time wraps
//! after 19 hours at the least (bytes at 50 GB/s; 3 days at 1 GB/s, 26 days at 100 million packets a second, years
//! below), and a total that nothing reached for exactly that long could be taken for indebted for its depth and slack.

use crate::line::{MOST_PATIENCE, TICK_SHIFT};

/// Bits of a time in a tagged cell.
pub const TIME_BITS: u32 = 36;
/// Mask of a time in a tagged cell.
pub const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Bits of a tag.
pub const TAG_BITS: u32 = 21;
/// Mask of a tag.
pub const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
/// Mask of a time in a shared cell.
pub const SHARED_MASK: u64 = (1 << 62) - 1;
/// The unit number that marks blocks and drop counts.
const SPECIAL: u64 = 31;
/// The version number of a block of new connections.
const CONNECTIONS: u64 = 2;
/// Blocks count time in units of 2²⁰ ns.
pub const BLOCK_SHIFT: u32 = 20;
/// Drop counts begin at a time in units of 2²⁶ ns.
pub const STRIKE_SHIFT: u32 = 26;
/// Mask of the beginning of a drop count.
const SINCE_MASK: u64 = (1 << 18) - 1;
/// The most drops that can be counted.
pub const MAX_DROPS: u64 = (1 << 18) - 1;
/// The longest time within which drops can be counted, in units of 2²⁶ ns: a bit above one hour.
pub const MAX_WITHIN: u64 = 53_700;

/// What a tagged cell is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Nothing, or nothing any more.
    Free,
    /// Drops counted towards a block.
    Strikes,
    /// A block.
    Block,
    /// A bucket in debt.
    Debt,
}

/// The tag of a bucket (or block) of a source.
#[inline(always)]
pub const fn tag(hash: u64, id: u32) -> u64 {
    (hash ^ id as u64) & TAG_MASK
}

/// What is the same above the time in all cells of a spec, whosever they are: the bucket's number, unit and version.
pub const fn spec_label(id: u32, exponent: u8, version: u8) -> u32 {
    id << UNIT_BITS | (exponent as u32 & 31) << 2 | version as u32 & 3
}

/// The unit number in a spec's label.
#[inline(always)]
pub const fn unit_of(label: u32) -> u32 {
    label >> 2 & 31
}

/// What the cell of a source's bucket holds above its time: tag, unit and version. Of the two halves of the tag, the hash and the bucket's number,
/// one is ready for each packet and the other for each spec.
#[inline(always)]
pub const fn label(hash: u64, spec: u32) -> u64 {
    (hash << UNIT_BITS ^ spec as u64) & LABEL_MASK
}

/// Bits of unit and version.
const UNIT_BITS: u32 = 7;
/// Mask of a label.
const LABEL_MASK: u64 = (1 << (64 - TIME_BITS)) - 1;

/// That of a cell.
#[inline(always)]
pub const fn label_of(cell: u64) -> u64 {
    cell >> TIME_BITS
}

/// The tag in a cell.
#[inline(always)]
pub const fn tag_of(cell: u64) -> u64 {
    cell >> (64 - TAG_BITS)
}

/// A bucket's cell.
#[inline(always)]
pub const fn bucket(label: u64, time: u64) -> u64 {
    label << TIME_BITS | time & TIME_MASK
}

/// The unit number in a cell.
#[inline(always)]
pub const fn exponent_of(cell: u64) -> u64 {
    cell >> 38 & 31
}

/// The spec version in a cell.
#[inline(always)]
pub const fn version_of(cell: u64) -> u8 {
    (cell >> 36 & 3) as u8
}

/// A block's cell, until a time in nanoseconds: of all that the source sends, or of its new connections.
#[inline(always)]
pub const fn block(tag: u64, until_ns: u64, whole: bool) -> u64 {
    let version = if whole { 0 } else { CONNECTIONS };
    tag << 43 | SPECIAL << 38 | version << 36 | until_ns >> BLOCK_SHIFT & TIME_MASK
}

/// A drop count's cell.
#[inline(always)]
pub const fn strikes(tag: u64, since: u64, drops: u64) -> u64 {
    tag << 43 | SPECIAL << 38 | 1 << 36 | (since & SINCE_MASK) << 18 | drops & MAX_DROPS
}

/// Whether a cell is a block that is still in force, of either sort.
#[inline(always)]
pub const fn blocks(cell: u64, now_ns: u64) -> bool {
    let left = (cell & TIME_MASK).wrapping_sub(now_ns >> BLOCK_SHIFT) & TIME_MASK;
    exponent_of(cell) == SPECIAL && version_of(cell) != 1 && left != 0 && left <= TIME_MASK / 2
}

/// When a block that is in force ends, in nanoseconds; 0 for every other cell.
pub const fn block_end_ns(cell: u64, now_ns: u64) -> u64 {
    if !blocks(cell, now_ns) {
        return 0;
    }
    let now = now_ns >> BLOCK_SHIFT;
    let left = (cell & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    (now + left) << BLOCK_SHIFT
}

/// Whether a cell is of the sorts that make room for a debt: blocks, and drops counted towards one.
#[inline(always)]
pub const fn yields(cell: u64) -> bool {
    exponent_of(cell) == SPECIAL
}

/// Whether a block is one of all that the source sends.
#[inline(always)]
pub const fn is_whole(block: u64) -> bool {
    version_of(block) == 0
}

/// The drops counted in a cell and the age of the count, if it is a drop count.
#[inline(always)]
pub const fn struck(cell: u64, now_ns: u64) -> Option<(u64, u64)> {
    if exponent_of(cell) != SPECIAL || version_of(cell) != 1 {
        return None;
    }
    let age = (now_ns >> STRIKE_SHIFT).wrapping_sub(cell >> 18) & SINCE_MASK;
    Some((cell & MAX_DROPS, age))
}

/// How long the deepest debt takes in a unit, by its number: a quarter of a cell's range.
#[inline(always)]
const fn deepest_ns(exponent: u32) -> u64 {
    let (left, right) = shifts(exponent);
    (super::spec::TAGGED_DEPTH >> left) << right
}

/// By how much of the kernel's clock a unit is shifted: left, right.
#[inline(always)]
const fn shifts(exponent: u32) -> (u32, u32) {
    if exponent < super::spec::FINEST {
        (super::spec::FINEST - exponent, 0)
    } else {
        (0, exponent - super::spec::FINEST)
    }
}

/// For how long the cells of a unit may go untidied after the stamp of their line, in nanoseconds, so that no time is ever
/// ambiguous: at most half of the deepest debt, which with that debt and two ticks of rounding is less than half of the range;
/// and nothing where ticks are coarse beside it.
#[inline(always)]
pub const fn patience_ns(exponent: u32) -> u64 {
    let deepest = deepest_ns(exponent);
    let most = (MOST_PATIENCE as u64) << TICK_SHIFT;
    if deepest < 8 << TICK_SHIFT {
        0
    } else if deepest / 2 < most {
        deepest / 2
    } else {
        most
    }
}

/// What a cell is, whoever's it is. `rested_ns`: for how long its line has not been tidied; it may have been touched for
/// [`patience_ns`] of that.
#[inline(always)]
pub const fn used(cell: u64, now_ns: u64, rested_ns: u64) -> Use {
    if cell == 0 {
        return Use::Free;
    }
    let exponent = exponent_of(cell);
    if exponent == SPECIAL {
        return match struck(cell, now_ns) {
            // A count that rested for three hours is over, whatever its wrapped age says.
            Some((_, age)) if age > MAX_WITHIN || rested_ns >> 43 != 0 => Use::Free,
            Some(_) => Use::Strikes,
            // No block lasts for 39 hours: one that rested so long is over, and its time may have wrapped.
            None if rested_ns >> 47 == 0 && blocks(cell, now_ns) => Use::Block,
            None => Use::Free,
        };
    }
    if drained(cell, exponent as u32, now_ns, rested_ns) {
        Use::Free
    } else {
        Use::Debt
    }
}

/// Whether a bucket's cell is full again.
#[inline(always)]
const fn drained(cell: u64, exponent: u32, now_ns: u64, rested_ns: u64) -> bool {
    let (left, right) = shifts(exponent);
    let now = (now_ns << left) >> right;
    let ahead = (cell & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    rested_ns > deepest_ns(exponent) + patience_ns(exponent) || ahead == 0 || ahead > TIME_MASK / 2
}
