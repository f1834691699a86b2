//! How many different sources there are: the update of a `HyperLogLog` register (Flajolet, Fusy, Gandouet, Meunier 2007).
//!
//! A register keeps the highest rank that it has met. What the registers say together is userspace's business: it takes
//! logarithms, and the packet path has none.

use crate::profile::REGISTERS;

/// Bits of the hash that choose the register.
const INDEX_BITS: u32 = REGISTERS.trailing_zeros();
/// The highest rank: all bits that do not choose the register are 0.
pub const MOST_RANK: u8 = (64 - INDEX_BITS + 1) as u8;

/// The register that a source's hash belongs to, below [`REGISTERS`], and its rank there, from 1 to [`MOST_RANK`]: the leading
/// zeros of the bits that did not choose the register, and one.
///
/// The hash must be uniform over 64 bits and keyed, or a sender can choose sources that all count as one.
#[inline(always)]
pub const fn register(hash: u64) -> (usize, u8) {
    let index = (hash >> (64 - INDEX_BITS)) as usize;
    // The bit set below the rest ends the count of zeros where the rest is all zeros.
    let rest = hash << INDEX_BITS | 1 << (INDEX_BITS - 1);
    (index, rest.leading_zeros() as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_bits_choose_and_the_rest_rank() {
        assert_eq!(register(0), (0, MOST_RANK));
        assert_eq!(register(u64::MAX), (REGISTERS - 1, 1));
        assert_eq!(register(1), (0, 52));
        assert_eq!(register(1 << 51), (0, 1));
        assert_eq!(register(1 << 52), (1, MOST_RANK));
        assert_eq!(register(5 << 52 | 1 << 40), (5, 12));
    }
}
