//! A bounded memory of normal sources.
//!
//! It keeps the sources with the smallest keyed hashes (bottom-k sampling, Cohen and Kaplan 2007), so that it is a sample of
//! the *different* sources that were ever sampled and not of their packets: one that sends a thousand times as much is no
//! more likely to be in it. The key keeps whoever does not know it from choosing sources that push others out.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bounds::{ONE_IN_100, poisson_upper};

/// The most sources that are remembered.
pub(super) const MOST: usize = 512;
/// A source that was not seen for so many days is forgotten.
const DAYS: u32 = 7;
/// Bits of an IPv6 source that are remembered: the network of one customer.
const V6_BITS: u8 = 64;
/// Space is reserved in such portions, so that a full memory has little of it to spare.
const PORTION: usize = 64;

/// What is known of a remembered source: the day when it was last seen, modulo 16, and how often it was seen, 3 at most.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Mark(u8);

impl Mark {
    const OFTEN: u8 = 3;

    const fn new(day: u32, seen: u8) -> Self {
        Self((day as u8 & 15) << 2 | seen)
    }

    const fn seen(self) -> u8 {
        self.0 & 3
    }

    /// Days since it was seen, of the last 16.
    const fn age(self, today: u32) -> u32 {
        (today.wrapping_sub((self.0 >> 2) as u32)) & 15
    }
}

/// The sources of one family, sorted by address, with their marks.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Family {
    /// The prefix length of a source.
    length: u8,
    high: Vec<u32>,
    /// The lower half of 64 bits; empty for IPv4.
    low: Vec<u32>,
    marks: Vec<Mark>,
}

impl Family {
    fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether it is as it was made: what was read from a file may be anything.
    fn whole(&self, v6: bool) -> bool {
        let low = if v6 { self.marks.len() } else { 0 };
        self.high.len() == self.marks.len() && self.low.len() == low
    }

    fn address(&self, at: usize) -> u64 {
        let high = self.high.get(at).copied().unwrap_or(0);
        let low = self.low.get(at).copied().unwrap_or(0);
        u64::from(high) << 32 | u64::from(low)
    }

    /// The first place whose address is not below.
    fn place(&self, address: u64) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            if self.address(middle) < address {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    fn insert(&mut self, at: usize, v6: bool, address: u64, mark: Mark) {
        if self.marks.len() == self.marks.capacity() {
            self.high.reserve_exact(PORTION);
            self.marks.reserve_exact(PORTION);
            if v6 {
                self.low.reserve_exact(PORTION);
            }
        }
        self.high.insert(at, (address >> 32) as u32);
        if v6 {
            self.low.insert(at, address as u32);
        }
        self.marks.insert(at, mark);
    }

    fn remove(&mut self, at: usize) {
        self.high.remove(at);
        if at < self.low.len() {
            self.low.remove(at);
        }
        self.marks.remove(at);
    }

    fn clear(&mut self) {
        let length = self.length;
        *self = Self::default();
        self.length = length;
    }

    /// The places of the sources that share an address with a network (its upper 64 bits, and its length).
    fn within(&self, network: u64, length: u8) -> std::ops::Range<usize> {
        let length = length.min(self.length);
        let host = u64::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let (first, last) = (network & !host, network | host);
        let from = self.place(first);
        let to = last.checked_add(1).map_or(self.len(), |next| self.place(next));
        from..to
    }
}

/// The upper 64 bits of a prefix's address (an IPv4 address is the upper 32), and its length.
fn bits(prefix: &IpNet) -> (bool, u64, u8) {
    match prefix {
        IpNet::V4(net) => (false, u64::from(u32::from(net.network())) << 32, net.prefix_len()),
        IpNet::V6(net) => (
            true,
            (u128::from(net.network()) >> 64) as u64,
            net.prefix_len().min(V6_BITS),
        ),
    }
}

/// Mixes bits (the finalizer of `SplitMix64`, Steele, Lea and Flood 2014).
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The keyed hash of a prefix.
pub(super) fn hash(key: u64, prefix: &IpNet) -> u64 {
    let (v6, address, _) = bits(prefix);
    hash_of(key, v6, address)
}

const fn hash_of(key: u64, v6: bool, address: u64) -> u64 {
    mix(mix(address ^ key).wrapping_add(key.rotate_left(32) ^ v6 as u64))
}

/// How many are remembered, and how often they were seen.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: u32,
    once: u32,
    twice: u32,
}

impl Tally {
    fn add(&mut self, mark: Mark) {
        self.all += 1;
        self.once += u32::from(mark.seen() == 1);
        self.twice += u32::from(mark.seen() == 2);
    }

    /// How many of the same kind were never sampled (Chao 1984, the form without bias): where many were seen once and
    /// few twice, many more were not seen.
    fn unseen(self) -> f64 {
        let once = f64::from(self.once);
        once * (once - 1.0).max(0.0) / (2.0 * (f64::from(self.twice) + 1.0))
    }

    /// The same from above: of a few, one more might as well have been seen once.
    fn unseen_at_most(self) -> f64 {
        let once = f64::from(self.once);
        once * (once + 1.0) / (2.0 * (f64::from(self.twice) + 1.0))
    }
}

/// The memory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Sources {
    v4: Family,
    v6: Family,
    /// Hashes above this are not admitted; 0: all are.
    limit: u64,
    day: u32,
}

impl Sources {
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Takes in a source that was seen in a second of this day.
    pub(super) fn meet(&mut self, key: u64, day: u32, source: &IpNet) {
        self.turn(day);
        let (v6, address, length) = bits(source);
        let family = if v6 { &mut self.v6 } else { &mut self.v4 };
        if family.length != length || !family.whole(v6) {
            // What one source is has changed: the old ones are no sources any more.
            family.length = length;
            family.clear();
        }
        let at = family.place(address);
        if at < family.len() && family.address(at) == address {
            let seen = family.marks[at].seen().saturating_add(1).min(Mark::OFTEN);
            family.marks[at] = Mark::new(day, seen);
            return;
        }
        if self.limit != 0 && hash_of(key, v6, address) > self.limit {
            return;
        }
        family.insert(at, v6, address, Mark::new(day, 1));
        if self.len() > MOST {
            self.drop_largest(key);
        }
    }

    fn drop_largest(&mut self, key: u64) {
        let hashes = |v6: bool, family: &Family| {
            let hash = |at| (hash_of(key, v6, family.address(at)), v6, at);
            (0..family.len()).map(hash).max()
        };
        if let Some((largest, v6, at)) = hashes(false, &self.v4).max(hashes(true, &self.v6)) {
            let family = if v6 { &mut self.v6 } else { &mut self.v4 };
            family.remove(at);
            self.limit = largest.saturating_sub(1).max(1);
        }
    }

    /// Forgets who was not seen for a week.
    fn turn(&mut self, day: u32) {
        let passed = day.saturating_sub(self.day);
        if passed == 0 {
            return;
        }
        self.day = day;
        for (v6, family) in [(false, &mut self.v4), (true, &mut self.v6)] {
            if passed > DAYS || !family.whole(v6) {
                family.clear();
                continue;
            }
            for at in (0..family.len()).rev() {
                if family.marks[at].age(day) > DAYS {
                    family.remove(at);
                }
            }
        }
        // What there is room for is admitted again.
        let held = self.len();
        if self.limit != 0 && held < MOST * 3 / 4 {
            let room = MOST as f64 / held.max(1) as f64;
            let limit = self.limit as f64 * room;
            self.limit = if limit >= u64::MAX as f64 { 0 } else { limit as u64 };
        }
    }

    /// Whether this is no more than one source.
    pub(super) fn is_one(&self, prefix: &IpNet) -> bool {
        let (v6, _, length) = bits(prefix);
        let one = if v6 { self.v6.length } else { self.v4.length };
        one > 0 && length >= one
    }

    /// The share of sources that have an address in common with these prefixes, with the upper side of what is not sure.
    pub(super) fn share_within(&self, prefixes: &[IpNet]) -> f64 {
        let mut met = [vec![false; self.v4.len()], vec![false; self.v6.len()]];
        for prefix in prefixes {
            let (v6, address, length) = bits(prefix);
            let family = if v6 { &self.v6 } else { &self.v4 };
            if let Some(met) = met[usize::from(v6)].get_mut(family.within(address, length)) {
                met.fill(true);
            }
        }
        let (mut hit, mut all) = (Tally::default(), Tally::default());
        for (family, met) in [&self.v4, &self.v6].into_iter().zip(&met) {
            for (mark, met) in family.marks.iter().zip(met) {
                all.add(*mark);
                if *met {
                    hit.add(*mark);
                }
            }
        }
        self.share(hit, all)
    }

    /// The share that the largest network has, with the upper side of what is not sure.
    pub(super) fn share_of_largest(&self, v4_length: u8, v6_length: u8) -> f64 {
        let (mut largest, mut all) = (Tally::default(), Tally::default());
        for (family, length) in [(&self.v4, v4_length), (&self.v6, v6_length.min(V6_BITS))] {
            let host = u64::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            let (mut here, mut network) = (Tally::default(), None);
            for (at, mark) in family.marks.iter().enumerate() {
                let of = Some(family.address(at) & !host);
                if of != network {
                    (here, network) = (Tally::default(), of);
                }
                here.add(*mark);
                all.add(*mark);
                if here.all > largest.all {
                    largest = here;
                }
            }
        }
        self.share(largest, all)
    }

    fn share(&self, hit: Tally, all: Tally) -> f64 {
        if all.all == 0 {
            return 1.0;
        }
        let held = f64::from(all.all);
        // Sources that send little are remembered less often than others: for each that is, so many are not.
        let missing = if hit.all > 0 {
            hit.unseen_at_most() / f64::from(hit.all)
        } else {
            all.unseen() / held
        };
        let sampled = poisson_upper(f64::from(hit.all), ONE_IN_100) * (1.0 + missing) / held;
        let share = if self.limit == 0 {
            // Nobody was left out: it is no sample. Only who was never seen can be among them too, and who comes next.
            let known = f64::from(hit.all) + hit.unseen_at_most();
            let whole = (known + all.unseen() + 1.0) / (held + 1.0);
            sampled.min(whole)
        } else {
            sampled
        };
        share.min(1.0)
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        let family = |family: &Family| {
            (family.high.capacity() + family.low.capacity()) * size_of::<u32>() + family.marks.capacity()
        };
        family(&self.v4) + family(&self.v6)
    }
}
