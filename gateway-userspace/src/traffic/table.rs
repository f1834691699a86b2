//! A table that never grows beyond a bound: when it is full, the lighter half goes.

use std::{collections::HashMap, hash::Hash};

use super::weights::Weights;

/// Something with weights.
pub(super) trait Weighed {
    /// Its weights.
    fn weights(&self) -> &Weights;
}

/// A bounded table.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    entries: HashMap<K, V>,
    most: usize,
    evicted: u64,
}

impl<K: Hash + Eq + Clone, V: Weighed> Table<K, V> {
    /// A table of at most so many entries.
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            most,
            evicted: 0,
        }
    }

    /// The entry of a key, made if there is none.
    pub(super) fn entry(&mut self, key: K, now: f64, make: impl FnOnce() -> V) -> &mut V {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.halve(now);
        }
        self.entries.entry(key).or_insert_with(make)
    }

    /// Lets the lighter half go: what is heavy stays however many light ones come, and a flood of sources that send one packet
    /// each only drives out others like it.
    fn halve(&mut self, now: f64) {
        let mut hefts: Vec<f64> = self
            .entries
            .values()
            .map(|entry| entry.weights().heft(now))
            .collect();
        let keep = self.most / 2;
        let place = hefts.len().saturating_sub(keep).min(hefts.len() - 1);
        let bound = *hefts.select_nth_unstable_by(place, f64::total_cmp).1;
        let before = self.entries.len();
        // What weighs more stays; of those that weigh just as much, as many as there is room for.
        let heavier = hefts.iter().filter(|heft| **heft > bound).count();
        let mut room = keep.saturating_sub(heavier);
        self.entries.retain(|_, entry| {
            let heft = entry.weights().heft(now);
            if heft > bound {
                return true;
            }
            let stays = room > 0 && heft >= bound;
            room -= usize::from(stays);
            stays
        });
        self.evicted += (before - self.entries.len()) as u64;
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many had to go.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::{super::weights::Addend, *};

    impl Weighed for Weights {
        fn weights(&self) -> &Weights {
            self
        }
    }

    /// A flood's entries weigh all the same; those must not fill the room before what is heavier is looked at.
    #[test]
    fn equals_leave_room_for_what_is_heavier() {
        for round in 0..50 {
            let mut table: Table<u64, Weights> = Table::new(100);
            let packet = |packets| Addend {
                packets,
                length: 60.0,
                dropped: false,
                connection: false,
            };
            for key in 0..99 {
                table
                    .entry(round * 1_000 + key, 0.0, Weights::default)
                    .add(packet(1.0), 0.0);
            }
            table.entry(u64::MAX, 0.0, Weights::default).add(packet(9.0), 0.0);
            table
                .entry(u64::MAX - 1, 0.0, Weights::default)
                .add(packet(1.0), 0.0);
            assert!(table.iter().any(|(key, _)| *key == u64::MAX), "round {round}");
            assert_eq!(table.len(), 51);
        }
    }

    #[test]
    fn what_is_heavy_outlives_a_flood_of_light_ones() {
        let mut table: Table<u64, Weights> = Table::new(1_000);
        let packet = |packets| Addend {
            packets,
            length: 60.0,
            dropped: false,
            connection: false,
        };
        for at in 0..200_000_u64 {
            let now = at as f64 / 10_000.0;
            table
                .entry(1_000_000 + at, now, Weights::default)
                .add(packet(10.0), now);
            if at % 50 == 0 {
                table
                    .entry(at / 50 % 10, now, Weights::default)
                    .add(packet(10.0), now);
            }
            assert!(table.len() <= 1_000);
        }
        for heavy in 0..10 {
            let found = table.iter().find(|(key, _)| **key == heavy).unwrap();
            // 40 packets a second each… of samples that stand for 10: 200 samples a second in all, by ten sources.
            let rate = found.1.estimate(20.0, 20.0).packets_per_second;
            assert!((150.0..250.0).contains(&rate), "{heavy}: {rate}");
        }
        assert!(table.evicted() > 190_000);
    }
}
