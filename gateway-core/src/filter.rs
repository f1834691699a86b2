//! A filter before the tries of lists and bans: who is in none of them is spared the walk, which takes three times as long.
//!
//! Each family has a bit for each of 65,536 parts of its addresses: of IPv4 the first 16 bits name it, of IPv6 the first 32, folded (who
//! has a network there has a /32, and what hosts there differ in comes after it). A bit is set where a prefix has addresses in that part. So a
//! filter never says no of an address that a prefix covers.

use crate::{
    image::{BANS_FILTER, SLOTS},
    packet::Address,
    proof::AWAITED,
};

/// Parts of a family.
const PARTS: usize = 1 << 16;
/// Words of a filter: those of IPv4, then those of IPv6.
pub const WORDS: usize = 2 * PARTS / 64;
/// Bits of a filter.
pub const BITS: usize = 2 * PARTS;

/// All that the packet path asks before it asks slower tables, in one place, so that it is found once.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Filters {
    /// The filters of lists, by slot, and that of bans ([`crate::image::BANS_FILTER`]).
    pub tries: [[u64; WORDS]; SLOTS as usize + 1],
    /// Who may answer an offer: cells, by the peer ([`crate::proof::awaited_at`]).
    pub awaited: [u16; AWAITED],
}

/// The packet path shows the verifier that a filter is one of the first eight of this size, of which there are five.
const _: () = assert!(BANS_FILTER < 8 && 8 * 8 * WORDS <= size_of::<Filters>());

/// The bit of an address, below [`BITS`].
#[inline(always)]
pub const fn bit(v6: bool, address: &Address) -> usize {
    let head = u32::from_be(address[0]);
    if v6 {
        PARTS + folded(head)
    } else {
        head as usize >> 16
    }
}

/// The bits of all addresses of a prefix: where they begin, and how many follow one another there. `network` is masked.
pub fn bits(v6: bool, network: &Address, length: u8) -> impl Iterator<Item = usize> + use<> {
    let head = u32::from_be(network[0]);
    // How many different heads the prefix has, as a power of two, and how far they lie apart.
    let (heads, step, all) = if v6 {
        (32_u32.saturating_sub(u32::from(length)), 0, length < 16)
    } else {
        (16_u32.saturating_sub(u32::from(length)), 16, false)
    };
    let count = if all { PARTS } else { 1 << heads };
    (0..count).map(move |at| match (v6, all) {
        (true, true) => PARTS + at,
        _ => bit(v6, &[(head | (at as u32) << step).to_be(), 0, 0, 0]),
    })
}

/// The part of an IPv6 address that begins so: of addresses that differ in the second half only, each its own.
#[inline(always)]
const fn folded(head: u32) -> usize {
    // An odd factor near 2¹⁶ divided by the golden ratio spreads the few values that the first half has (Knuth, volume 3, 6.4).
    ((head >> 16).wrapping_mul(0x9e37) ^ head) as usize & (PARTS - 1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn set(v6: bool, network: u128, length: u8) -> Vec<usize> {
        bits(v6, &words(network), length).collect()
    }

    fn words(address: u128) -> Address {
        core::array::from_fn(|at| ((address >> (96 - 32 * at)) as u32).to_be())
    }

    #[test]
    fn every_address_of_a_prefix_has_its_bit_set() {
        let mut state = 1_u128;
        let mut random = || {
            state = state
                .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
                .wrapping_add(0x5851_f42d);
            state ^ state >> 64
        };
        for (v6, most) in [(false, 32), (true, 128)] {
            for length in 0..=most {
                let rest = u128::MAX.checked_shr(length).unwrap_or(0);
                for _ in 0..8 {
                    let network = random() & !rest;
                    let set = set(v6, network, length as u8);
                    assert!(set.iter().all(|bit| *bit < BITS && (*bit >= PARTS) == v6));
                    for _ in 0..8 {
                        let address = network | random() & rest;
                        assert!(set.contains(&bit(v6, &words(address))), "{network:x}/{length}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_prefix_sets_no_more_bits_than_it_has_parts() {
        let v4 = 0xc633_6400_u128 << 96;
        let v6 = 0x2001_0db8_u128 << 96;
        for (v6, network, length, parts) in [
            (false, v4, 32, 1),
            (false, v4, 16, 1),
            (false, 0xc000_u128 << 112, 8, 256),
            (false, 0, 0, PARTS),
            (true, v6, 128, 1),
            (true, v6, 32, 1),
            (true, v6, 29, 8),
            (true, 0x2001_u128 << 112, 16, PARTS),
            (true, 0x2000_u128 << 112, 3, PARTS),
        ] {
            let mut set = set(v6, network, length);
            set.sort_unstable();
            set.dedup();
            assert_eq!(set.len(), parts, "{network:x}/{length}");
        }
    }
}
