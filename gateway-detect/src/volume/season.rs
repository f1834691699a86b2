//! How much there usually is at this time: the shape of the day, and how the hours of the week depart from it.

use serde::{Deserialize, Serialize};

use crate::exact;

/// Seconds that a slot of the day takes.
pub(super) const SLOT: f64 = 300.0;
const SLOTS: usize = 288;
const HOURS: usize = 168;
const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
/// 1 January 1970 was a Thursday; hours are counted from Monday on.
const THURSDAY: i64 = 3 * DAY;
/// How much a new day counts against those before, once there are some.
const DAY_GAIN: f32 = 0.1;
const WEEK_GAIN: f32 = 0.3;

/// A mean that forgets: the first values count alike, later ones push the first out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Slots {
    #[serde(deserialize_with = "exact::list")]
    value: Vec<f32>,
    #[serde(deserialize_with = "exact::list")]
    visits: Vec<u8>,
}

impl Slots {
    /// The value, drawn towards nothing while it was seen only a few times (`doubt` visits draw by half).
    fn get(&self, slot: usize, doubt: f64) -> f64 {
        let (Some(&value), Some(&visits)) = (self.value.get(slot), self.visits.get(slot)) else {
            return 0.0;
        };
        if visits == 0 {
            return 0.0;
        }
        let visits = f64::from(visits);
        f64::from(value) * visits / (visits + doubt)
    }

    fn learn(&mut self, slot: usize, value: f64, gain: f32, count: usize) {
        if self.value.len() != count || self.visits.len() != count {
            // The first time, or a state that is not one of ours.
            (self.value, self.visits) = (vec![0.0; count], vec![0; count]);
        }
        let (Some(old), Some(visits)) = (self.value.get_mut(slot), self.visits.get_mut(slot)) else {
            return;
        };
        let gain = gain.max(1.0 / (f32::from(*visits) + 1.0));
        *old += gain * (value - f64::from(*old)) as f32;
        *visits = visits.saturating_add(1).min(200);
    }
}

/// The usual departure from the level, by time of day and week; all in the logarithm. Takes 2.3 kB.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Season {
    day: Slots,
    week: Slots,
    /// The hour of the week that is being learned: which, the sum of its departures, how many.
    hour: Option<(u16, f32, u16)>,
}

/// Where in the day and in the week a time lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    slot: usize,
    /// The hours of the week between whose middles it lies, and how far it is from the first to the second.
    hours: (usize, usize),
    part: f64,
}

impl Moment {
    pub(super) fn new(at: f64) -> Self {
        let second = at.floor() as i64;
        let week = second.wrapping_add(THURSDAY).rem_euclid(7 * DAY);
        let half = (week + HOURS as i64 * HOUR - HOUR / 2) % (7 * DAY);
        let first = (half / HOUR) as usize;
        Self {
            slot: (week % DAY / SLOT as i64) as usize,
            hours: (first, (first + 1) % HOURS),
            part: (half % HOUR) as f64 / HOUR as f64,
        }
    }

    /// The hour of the week.
    fn hour(self) -> usize {
        if self.part < 0.5 {
            self.hours.0
        } else {
            self.hours.1
        }
    }
}

impl Season {
    /// What is usual at this time.
    pub(super) fn at(&self, moment: Moment) -> f64 {
        self.day.get(moment.slot, 1.0) + self.of_week(moment)
    }

    /// What is usual at this time, give or take a slot: of the three, that which `wanted` is closest to. Daily jobs and
    /// programmes do not start on the second.
    pub(super) fn near(&self, moment: Moment, wanted: f64) -> f64 {
        let slot = moment.slot;
        let of_week = self.of_week(moment);
        let wanted = wanted - of_week;
        let mut best = self.day.get(slot, 1.0);
        for neighbour in [(slot + SLOTS - 1) % SLOTS, (slot + 1) % SLOTS] {
            let other = self.day.get(neighbour, 1.0);
            if (other - wanted).abs() < (best - wanted).abs() {
                best = other;
            }
        }
        best + of_week
    }

    /// Whether this time of the day was seen before.
    pub(super) fn knows(&self, moment: Moment) -> bool {
        self.day.visits.get(moment.slot).is_some_and(|&visits| visits > 0)
    }

    /// Learns how far a slot of the day departed from the level.
    pub(super) fn learn(&mut self, moment: Moment, departure: f64) {
        let now = moment.hour() as u16;
        let (which, mut sum, mut count) = self.hour.take().unwrap_or((now, 0.0, 0));
        if which != now {
            if count > 0 {
                self.week.learn(
                    usize::from(which),
                    f64::from(sum) / f64::from(count),
                    WEEK_GAIN,
                    HOURS,
                );
            }
            (sum, count) = (0.0, 0);
        }
        sum += (departure - self.day.get(moment.slot, 0.0)) as f32;
        self.hour = Some((now, sum, count.saturating_add(1)));
        let rest = departure - self.of_week(moment);
        self.day.learn(moment.slot, rest, DAY_GAIN, SLOTS);
    }

    pub(super) fn heap(&self) -> usize {
        [&self.day, &self.week]
            .iter()
            .map(|slots| slots.value.capacity() * size_of::<f32>() + slots.visits.capacity())
            .sum()
    }

    /// The hour of the week's part, in a straight line between the middles of two hours.
    fn of_week(&self, moment: Moment) -> f64 {
        let (first, second) = moment.hours;
        self.week.get(first, 1.0) * (1.0 - moment.part) + self.week.get(second, 1.0) * moment.part
    }
}

/// Slots that the proof of the season reaches back: two days.
const PROOF: f64 = 576.0;
/// The season counts fully when it takes away a quarter of the recent past's error.
const PROOF_GAIN: f64 = 4.0;

/// Whether the season predicts better than the recent past alone.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Proof {
    slots: u32,
    /// The mean error without and with the season.
    without: f64,
    with: f64,
}

impl Proof {
    /// A slot of the day has passed.
    pub(super) fn slot(&mut self) {
        self.slots = self.slots.saturating_add(1);
    }

    /// What was off in a slot that the season knew.
    pub(super) fn weigh(&mut self, without: f64, with: f64) {
        let gain = (1.0 / f64::from(self.slots.max(1))).max(1.0 / PROOF);
        self.without += gain * (without - self.without);
        self.with += gain * (with - self.with);
    }

    /// How far the season is trusted, 0 to 1.
    pub(super) fn trust(self) -> f64 {
        if self.without > 0.0 {
            (PROOF_GAIN * (self.without - self.with) / self.without).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 6 January 2025, 00:00 UTC.
    const MONDAY: f64 = 1_736_121_600.0;

    #[test]
    fn moments_are_where_the_calendar_says() {
        let at = |hours: f64| Moment::new(MONDAY + hours * 3600.0);
        for (hours, slot, hour) in [
            (0.0, 0, 0),
            (0.49, 5, 0),
            (0.51, 6, 0),
            (23.99, 287, 23),
            (167.9, 286, 167),
            (168.0, 0, 0),
        ] {
            let moment = at(hours);
            assert_eq!((moment.slot, moment.hour()), (slot, hour), "{hours}");
        }
        // Between the middles of two hours, across the end of the week too.
        assert_eq!((at(10.5).hours, at(0.0).hours), ((10, 11), (167, 0)));
        assert!((at(11.0).part - 0.5).abs() < 1e-9 && at(10.5).part.abs() < 1e-9);
        // Before 1970, and beyond what a calendar knows.
        for at in [-1.0, 0.0, -1e30, 1e30] {
            assert!(Moment::new(at).slot < SLOTS);
        }
        assert_eq!(Moment::new(-1.0).slot, 287);
    }

    #[test]
    fn a_slot_off_is_near() {
        let mut season = Season::default();
        assert!(!season.knows(Moment::new(MONDAY)));
        for day in 0..10 {
            let start = MONDAY + f64::from(day) * 86_400.0;
            for slot in 0..SLOTS {
                let high = if slot == 100 { 2.0 } else { 0.0 };
                season.learn(Moment::new(start + (slot as f64 + 0.5) * SLOT), high);
            }
        }
        let at = |slot: f64| Moment::new(MONDAY + (slot + 0.5) * SLOT);
        assert!(season.knows(at(3.0)));
        assert!(season.at(at(100.0)) > 1.5 && season.at(at(101.0)) < 0.3);
        assert!(season.near(at(101.0), 2.0) > 1.5, "five minutes late");
        assert!(season.near(at(101.0), 0.0) < 0.3, "or not at all");
        assert!(season.near(at(103.0), 2.0) < 0.3, "but not a quarter of an hour");
    }

    #[test]
    fn the_season_is_trusted_when_it_has_proved_better() {
        let mut proof = Proof::default();
        assert!(proof.trust() <= 0.0);
        for (without, with, trust) in [(1.0, 1.2, 0.0), (1.0, 0.9, 0.4), (1.0, 0.5, 1.0)] {
            for _ in 0..10_000 {
                proof.slot();
                proof.weigh(without, with);
            }
            assert!(
                (proof.trust() - trust).abs() < 1e-3,
                "{without} {with}: {}",
                proof.trust()
            );
        }
    }
}
