//! Which networks were met in the last seven days.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Days that a network is remembered.
pub const DAYS: u32 = 7;
/// Networks of a service that are remembered at most: 16 kB.
pub const NETWORKS: usize = 4_096;

const WAYS: usize = 8;
const SMALLEST: usize = 64;
const DAY_BITS: u32 = 8;

/// A table of tags and days, eight ways each line; it grows to [`NETWORKS`], then the oldest of a line makes room.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Memory {
    /// The highest 24 bits are a network's tag, the lowest the day it was last met, from 1; 0 is nobody.
    cells: Vec<u32>,
}

impl Memory {
    /// Whether a network was met in the last seven days. `at`: seconds since 1970.
    pub fn knows(&self, network: IpNet, at: f64) -> bool {
        let hash = hash(network);
        self.line(hash).is_some_and(|line| {
            line.iter()
                .any(|cell| holds(*cell, hash) && age(*cell, at) <= DAYS)
        })
    }

    /// Remembers a network.
    pub fn meet(&mut self, network: IpNet, at: f64) {
        let hash = hash(network);
        if self.cells.is_empty() {
            self.cells = vec![0; SMALLEST];
        }
        let new = tag(hash) | day(at);
        for _ in 0..8 {
            let start = self.start(hash);
            let Some(line) = self.cells.get_mut(start..start + WAYS) else {
                return;
            };
            let free = |cell: &u32| *cell == 0 || age(*cell, at) > DAYS;
            if let Some(cell) = line.iter_mut().find(|cell| holds(**cell, hash)) {
                *cell = new;
                return;
            }
            if let Some(cell) = line.iter_mut().find(|cell| free(cell)) {
                *cell = new;
                return;
            }
            if self.cells.len() >= NETWORKS {
                break;
            }
            self.grow();
        }
        let start = self.start(hash);
        let line = self.cells.get_mut(start..start + WAYS);
        if let Some(oldest) = line.and_then(|line| line.iter_mut().max_by_key(|cell| age(**cell, at))) {
            *oldest = new;
        }
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u32>()
    }

    /// A tag tells the line of a table twice as large, for its lowest bits are those of the line's number.
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.cells);
        self.cells = vec![0; old.len() * 2];
        for cell in old.into_iter().filter(|cell| *cell != 0) {
            let start = self.start(cell >> DAY_BITS);
            let line = self.cells.get_mut(start..start + WAYS);
            if let Some(free) = line.and_then(|line| line.iter_mut().find(|cell| **cell == 0)) {
                *free = cell;
            }
        }
    }

    fn start(&self, hash: u32) -> usize {
        let lines = (self.cells.len() / WAYS).max(1);
        hash as usize % lines * WAYS
    }

    fn line(&self, hash: u32) -> Option<&[u32]> {
        let start = self.start(hash);
        self.cells.get(start..start + WAYS)
    }
}

/// 24 bits of hash, by Steele, Lea and Flood's finaliser ("Fast splittable pseudorandom number generators", 2014).
fn hash(network: IpNet) -> u32 {
    let bits = match network.network() {
        std::net::IpAddr::V4(address) => u64::from(address.to_bits()),
        // Networks are at most 64 bits long.
        std::net::IpAddr::V6(address) => (address.to_bits() >> 64) as u64 ^ 0x6a09_e667_f3bc_c908,
    };
    let mut mixed = bits.wrapping_add(u64::from(network.prefix_len()) << 56);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) & 0x00ff_ffff) as u32
}

const fn tag(hash: u32) -> u32 {
    hash << DAY_BITS
}

const fn holds(cell: u32, hash: u32) -> bool {
    cell & 0xff != 0 && cell >> DAY_BITS == hash
}

/// The number of a day, 1 to 255, over and over.
fn day(at: f64) -> u32 {
    (at / 86_400.0).max(0.0) as u64 as u32 % 255 + 1
}

fn age(cell: u32, at: f64) -> u32 {
    (day(at) + 255 - (cell & 0xff)) % 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> IpNet {
        IpNet::new(std::net::Ipv4Addr::from_bits(number << 8).into(), 24).unwrap()
    }

    #[test]
    fn networks_are_known_for_seven_days() {
        let (mut memory, day) = (Memory::default(), 86_400.0);
        let at = 20_000.5 * day;
        assert!(!memory.knows(network(1), at));
        memory.meet(network(1), at);
        assert!(memory.knows(network(1), at));
        assert!(!memory.knows(network(2), at));
        assert!(memory.knows(network(1), at + 7.0 * day));
        assert!(!memory.knows(network(1), at + 8.0 * day));
        memory.meet(network(1), at + 7.0 * day);
        assert!(memory.knows(network(1), at + 14.0 * day));
    }

    #[test]
    fn it_grows_to_its_bound_and_keeps_what_is_met_often() {
        let mut memory = Memory::default();
        for number in 0..3_000 {
            memory.meet(network(number), 1e9);
        }
        let known = (0..3_000)
            .filter(|number| memory.knows(network(*number), 1e9))
            .count();
        assert!(known > 2_700, "{known}");
        let day = 86_400.0;
        for number in 100_000..200_000 {
            memory.meet(network(number), 1e9);
        }
        assert!(memory.bytes() <= 4 * NETWORKS);
        // Others have pushed out most; who is met tomorrow pushes out those of yesterday first.
        for number in 0..1_000 {
            memory.meet(network(number), 1e9 + day);
        }
        let known = (0..1_000)
            .filter(|number| memory.knows(network(*number), 1e9 + day))
            .count();
        assert!(known > 990, "{known}");
        let strangers = (300_000..400_000).filter(|number| memory.knows(network(*number), 1e9));
        assert!(strangers.count() < 100);
    }
}
