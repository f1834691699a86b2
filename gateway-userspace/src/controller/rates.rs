//! Rates over the last few seconds, from earlier readings of the counters.

use std::collections::BTreeMap;

use crate::kernel::{Counter, Losses};

/// The least span that a rate is worked out over, in nanoseconds.
const LEAST_SPAN_NS: u64 = 2_000_000_000;
/// How often a reading is kept, in nanoseconds.
const EVERY_NS: u64 = 5_000_000_000;
/// Readings may take this share of the time: one part in so many.
const SHARE: u64 = 500;

/// What one service has counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Totals {
    /// Packets received.
    pub packets: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets that would have been dropped.
    pub would_drops: u64,
}

/// Sums the counters of each service.
pub(super) fn totals(counters: &[Counter]) -> BTreeMap<String, Totals> {
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    for counter in counters {
        if !totals.contains_key(&counter.service) {
            totals.insert(counter.service.clone(), Totals::default());
        }
        let Some(sum) = totals.get_mut(&counter.service) else {
            continue;
        };
        sum.packets += counter.packets;
        sum.bytes += counter.bytes;
        match counter.verdict {
            "drop" => sum.drops += counter.packets,
            "would_drop" => sum.would_drops += counter.packets,
            _ => {}
        }
    }
    totals
}

/// One reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// When, on the kernel's clock.
    pub ns: u64,
    /// What the services had counted.
    pub totals: BTreeMap<String, Totals>,
    /// What had been lost.
    pub losses: Losses,
}

/// The last readings.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    older: Option<Reading>,
    newer: Option<Reading>,
    due_ns: u64,
}

impl Rates {
    /// When the next reading is due, on the kernel's clock.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Keeps a reading that took `cost_ns` to make: the dearer it was, the longer until the next.
    pub(super) fn keep(&mut self, reading: Reading, cost_ns: u64) {
        self.due_ns = reading.ns + EVERY_NS.max(cost_ns.saturating_mul(SHARE));
        self.older = self.newer.replace(reading);
    }

    /// Puts off the next reading (this one failed).
    pub(super) fn put_off(&mut self, now_ns: u64) {
        self.due_ns = now_ns + EVERY_NS;
    }

    /// The reading to compare the present with: the newest that is old enough.
    pub(super) fn since(&self, now_ns: u64) -> Option<&Reading> {
        let old_enough = |reading: &&Reading| now_ns.saturating_sub(reading.ns) >= LEAST_SPAN_NS;
        self.newer
            .as_ref()
            .filter(old_enough)
            .or(self.older.as_ref().filter(old_enough))
    }
}

/// Events a second between two counts; a count that went backwards (maps made anew) is 0.
pub(super) fn per_second(before: u64, now: u64, span_ns: u64) -> f64 {
    if span_ns == 0 {
        return 0.0;
    }
    let rate = now.saturating_sub(before) as f64 * 1e9 / span_ns as f64;
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(second: u64) -> Reading {
        Reading {
            ns: second * 1_000_000_000,
            ..Reading::default()
        }
    }

    #[test]
    fn the_newest_reading_that_is_old_enough_counts() {
        let mut rates = Rates::default();
        assert!(rates.since(9_000_000_000).is_none());
        rates.keep(reading(1), 0);
        rates.keep(reading(6), 0);
        assert_eq!(rates.since(7_000_000_000).unwrap().ns, 1_000_000_000);
        assert_eq!(rates.since(8_000_000_000).unwrap().ns, 6_000_000_000);
        assert_eq!(rates.due_ns(), 11_000_000_000);
    }

    #[test]
    fn dear_readings_are_rare() {
        let mut rates = Rates::default();
        rates.keep(reading(1), 100_000_000);
        assert_eq!(rates.due_ns(), 51_000_000_000);
    }

    #[test]
    fn a_rate_is_a_difference_over_a_time() {
        assert!((per_second(100, 350, 2_500_000_000) - 100.0).abs() < f64::EPSILON);
        assert!(per_second(350, 100, 1).abs() < f64::EPSILON);
        assert!(per_second(0, 1, 0).abs() < f64::EPSILON);
    }
}
