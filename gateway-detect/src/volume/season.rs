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
