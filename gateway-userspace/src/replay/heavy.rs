//! The heaviest of many, in bounded memory: who sends most, without a counter for everybody.
//!
//! Counters are kept for at most [`CAPACITY`] keys. When they are all taken, the median of their counts is taken off each, and
//! those that fall to nothing go: Misra and Gries' algorithm (1982), many decrements at once. What a key's count may lack is
//! at most the sum of what was taken off, which is at most the packets divided by half the capacity.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// How many keys have counters at most.
pub const CAPACITY: usize = 8192;

/// Counters of the heaviest keys, each with a value that its packets are added to.
#[derive(Clone, Debug)]
pub(super) struct Heaviest<K, V> {
    counters: HashMap<K, (u64, V)>,
    /// How many keys at most.
    capacity: usize,
    /// What was taken off every count so far.
    taken_off: u64,
}

impl<K: Copy + Eq + Hash, V: Default> Heaviest<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            counters: HashMap::with_capacity(capacity),
            capacity: capacity.max(2),
            taken_off: 0,
        }
    }

    /// Counts one packet of a key; the value is what was added since the key got its counter.
    pub(super) fn add(&mut self, key: K) -> &mut V {
        if self.counters.len() >= self.capacity && !self.counters.contains_key(&key) {
            self.make_room();
        }
        let taken_off = self.taken_off;
        let (count, value) = match self.counters.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Counted on from what it may have had before, so that comparisons with what is taken off need no subtraction.
            Entry::Vacant(entry) => entry.insert((taken_off, V::default())),
        };
        *count += 1;
        value
    }

    /// Takes the median off every count, so that about half of the counters are free.
    fn make_room(&mut self) {
        let mut counts: Vec<u64> = self.counters.values().map(|(count, _)| *count).collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        self.taken_off = self.taken_off.max(*median);
        let taken_off = self.taken_off;
        self.counters.retain(|_, (count, _)| *count > taken_off);
    }

    /// The most packets that any key's value may lack. A key without a counter had no more packets than this.
    pub(super) fn error(&self) -> u64 {
        self.taken_off
    }

    /// Every key that has a counter, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.counters.iter().map(|(key, (_, value))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts keys with both, and demands the promise for every key.
    fn check(keys: impl Iterator<Item = u32>, capacity: usize) -> Heaviest<u32, u64> {
        let mut heaviest = Heaviest::new(capacity);
        let (mut exact, mut all) = (HashMap::<u32, u64>::new(), 0);
        for key in keys {
            *heaviest.add(key) += 1;
            *exact.entry(key).or_default() += 1;
            all += 1;
        }
        assert!(heaviest.counters.len() <= capacity);
        assert!(
            heaviest.error() <= all / (capacity as u64 / 2),
            "{}",
            heaviest.error()
        );
        let counted: HashMap<u32, u64> = heaviest.iter().map(|(key, value)| (*key, *value)).collect();
        for (key, count) in exact {
            let counted = counted.get(&key).copied().unwrap_or(0);
            assert!(counted <= count && count <= counted + heaviest.error());
        }
        heaviest
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let heaviest = check((0..1000).map(|at| at % 8), 8);
        assert_eq!(heaviest.error(), 0);
        assert!(heaviest.iter().all(|(_, count)| *count == 125));
    }

    #[test]
    fn heavy_keys_are_found_among_many_that_come_once() {
        // Every third packet is of one of three keys.
        let keys = (0..300_000u32).map(|at| if at % 3 == 0 { at / 3 % 3 } else { 1000 + at });
        let heaviest = check(keys, 64);
        for key in 0..3 {
            let count = heaviest
                .iter()
                .find(|(of, _)| **of == key)
                .map(|(_, count)| *count);
            assert!(count.is_some_and(|count| count + heaviest.error() >= 33_333));
        }
    }

    #[test]
    fn equal_keys_in_turn_leave_room() {
        check((0..100_000).map(|at| at % 100), 32);
        check(0..100_000, 2);
    }
}
