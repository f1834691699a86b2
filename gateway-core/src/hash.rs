//! The keyed hash that places a source.
//!
//! Three rounds of xor, multiplication by a secret odd number and a shift that folds the high half down. Whoever does
//! not know the key cannot aim sources at one cache line or at one tag: he learns of a collision only by being limited
//! with somebody else. It is not a cryptographic hash, and nothing here needs one: what an attacker would win by
//! breaking it is a line of seven slots, whose newcomers are then judged by the overflow bucket.

use crate::packet::Address;

/// The key: two words that are mixed in and two odd multipliers. Drawn when the table is created, pinned with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Key {
    /// Mixed into the words of the address.
    pub mix: [u64; 2],
    /// Multipliers; [`Key::new`] makes them odd.
    pub multiply: [u64; 2],
}

impl Key {
    /// A key from random words.
    pub const fn new(random: [u64; 4]) -> Self {
        Self {
            mix: [random[0], random[1]],
            multiply: [random[2] | 1, random[3] | 1],
        }
    }
}

/// Distinguishes what is hashed, so that a source and a network of the same bits lie in different lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub enum Domain {
    /// A source.
    Source = 0x736f_7572_6365_0000,
    /// A network of sources.
    Network = 0x6e65_7477_6f72_0000,
    /// A TCP connection.
    Connection = 0x636f_6e6e_6563_0000,
}

/// Hashes a masked address. `family` is 4 or 6 (or, where a hash is made of several, the one before).
#[inline(always)]
pub fn hash(key: &Key, domain: Domain, family: u64, address: &Address) -> u64 {
    let high = u64::from(address[0]) | u64::from(address[1]) << 32;
    let low = u64::from(address[2]) | u64::from(address[3]) << 32;
    let mut state = (high ^ key.mix[0]).wrapping_mul(key.multiply[0]);
    state ^= state >> 32;
    state ^= low ^ key.mix[1] ^ domain as u64 ^ family;
    state = state.wrapping_mul(key.multiply[1]);
    state ^= state >> 29;
    state = state.wrapping_mul(key.multiply[0]);
    state ^ (state >> 32)
}

/// Hashes a TCP connection as its client names it, and a number of its own.
#[inline(always)]
pub fn connection(key: &Key, client: (&Address, u16), server: (&Address, u16), number: u32) -> u64 {
    let ports = u32::from(client.1) << 16 | u32::from(server.1);
    let first = hash(
        key,
        Domain::Connection,
        0,
        &[client.0[0], server.0[0], ports, number],
    );
    let rest = |address: &Address| address[1] | address[2] | address[3];
    if rest(client.0) | rest(server.0) == 0 {
        // That was all of two IPv4 addresses.
        return first;
    }
    let (client, server) = (client.0, server.0);
    let second = [client[1], client[2], client[3], server[1]];
    let second = hash(key, Domain::Connection, first, &second);
    hash(key, Domain::Connection, second, &[server[2], server[3], 0, 0])
}

/// The line that a hash falls into: its high half, scaled to the number of lines without a division.
#[inline(always)]
pub const fn line(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * lines as u64) >> 32) as u32
}

/// A number from 0 to 2³²−1 that says whether a source is in `enforce_share`; independent of its line and tag.
#[inline(always)]
pub const fn share(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::new([
        0x0123_4567_89ab_cdef,
        0xfedc_ba98_7654_3210,
        0x9ddf_ea08_eb38_2d69,
        0xc2b2_ae3d_27d4_eb4f,
    ]);

    #[test]
    fn sequential_sources_spread_evenly_over_lines() {
        const LINES: u32 = 1024;
        let mut counts = [0u32; LINES as usize];
        for source in 0..LINES * 64 {
            let address = [source.to_be(), 0, 0, 0];
            counts[line(hash(&KEY, Domain::Source, 4, &address), LINES) as usize] += 1;
        }
        // 64 a line on average, standard deviation 8: seven deviations either way.
        assert!(
            counts.iter().all(|count| (8..=120).contains(count)),
            "{:?}",
            counts.iter().max()
        );
    }

    #[test]
    fn every_word_family_and_domain_matters() {
        let base = hash(&KEY, Domain::Source, 6, &[1, 2, 3, 4]);
        for other in [[2, 2, 3, 4], [1, 3, 3, 4], [1, 2, 4, 4], [1, 2, 3, 5]] {
            assert_ne!(base, hash(&KEY, Domain::Source, 6, &other));
        }
        assert_ne!(base, hash(&KEY, Domain::Network, 6, &[1, 2, 3, 4]));
        assert_ne!(
            hash(&KEY, Domain::Source, 4, &[1, 0, 0, 0]),
            hash(&KEY, Domain::Source, 6, &[1, 0, 0, 0])
        );
    }

    #[test]
    fn another_key_is_another_placement() {
        let other = Key::new([1, 2, 3, 4]);
        let same = (0..4096u32)
            .filter(|n| {
                let address = [n.to_be(), 0, 0, 0];
                line(hash(&KEY, Domain::Source, 4, &address), 4096)
                    == line(hash(&other, Domain::Source, 4, &address), 4096)
            })
            .count();
        assert!(same < 20, "{same} of 4096 sources kept their line");
    }

    #[test]
    fn shares_are_proportional() {
        let fifth = (0..100_000u32)
            .filter(|n| share(hash(&KEY, Domain::Source, 4, &[n.to_be(), 0, 0, 0])) < u32::MAX / 5)
            .count();
        assert!((19_000..21_000).contains(&fifth), "{fifth}");
    }
}
