//! How much there usually is at this time: the shape of the day, and how the hours of the week depart from it.

use serde::{Deserialize, Serialize};

/// Seconds that a slot of the day takes.
pub(super) const SLOT: f64 = 300.0;
const SLOTS: usize = 288;
const HOURS: usize = 168;
const DAY: f64 = 86_400.0;
const HOUR: f64 = 3600.0;
/// 1 January 1970 was a Thursday; hours are counted from Monday on.
const THURSDAY: f64 = 3.0 * DAY;
/// How much a new day counts against those before, once there are some.
const DAY_GAIN: f32 = 0.2;
const WEEK_GAIN: f32 = 0.3;

/// A mean that forgets: the first values count alike, later ones push the first out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Slots {
    value: Vec<f32>,
    visits: Vec<u8>,
}

impl Slots {
    fn new(count: usize) -> Self {
        Self {
            value: vec![0.0; count],
            visits: vec![0; count],
        }
    }

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

    fn learn(&mut self, slot: usize, value: f64, gain: f32, most: f64) {
        let (Some(old), Some(visits)) = (self.value.get_mut(slot), self.visits.get_mut(slot)) else {
            return;
        };
        let gain = gain.max(1.0 / (f32::from(*visits) + 1.0));
        let step = value - f64::from(*old);
        let step = if *visits == 0 {
            step
        } else {
            step.clamp(-most, most)
        };
        *old += gain * step as f32;
        *visits = visits.saturating_add(1).min(200);
    }
}

/// The usual departure from the level, by time of day and week; all in the logarithm. Takes 2.3 kB.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Season {
    day: Slots,
    week: Slots,
    /// The hour of the week that is being learned: which, the sum of its departures, how many.
    hour: Option<(u16, f32, u16)>,
}

impl Default for Season {
    fn default() -> Self {
        Self {
            day: Slots::new(SLOTS),
            week: Slots::new(HOURS),
            hour: None,
        }
    }
}

/// Which slot of the day.
fn slot(at: f64) -> usize {
    ((at.rem_euclid(DAY) / SLOT) as usize).min(SLOTS - 1)
}

/// Which hour of the week.
fn hour(at: f64) -> usize {
    (((at + THURSDAY).rem_euclid(7.0 * DAY) / HOUR) as usize).min(HOURS - 1)
}

impl Season {
    /// What is usual at this time.
    pub(super) fn at(&self, at: f64) -> f64 {
        self.day.get(slot(at), 1.0) + self.of_week(at)
    }

    /// What is usual at this time, give or take a slot: of the three, that which `wanted` is closest to. Daily jobs and
    /// programmes do not start on the second.
    pub(super) fn near(&self, at: f64, wanted: f64) -> f64 {
        let slot = slot(at);
        let wanted = wanted - self.of_week(at);
        let mut best = self.day.get(slot, 1.0);
        for neighbour in [(slot + SLOTS - 1) % SLOTS, (slot + 1) % SLOTS] {
            let other = self.day.get(neighbour, 1.0);
            if (other - wanted).abs() < (best - wanted).abs() {
                best = other;
            }
        }
        best + self.of_week(at)
    }

    /// Whether this time of the day was seen before.
    pub(super) fn knows(&self, at: f64) -> bool {
        self.day.visits.get(slot(at)).is_some_and(|&visits| visits > 0)
    }

    /// Learns how far a slot of the day departed from the level; what it departs from what is known counts for at most `most`.
    pub(super) fn learn(&mut self, at: f64, departure: f64, most: f64) {
        let now = hour(at) as u16;
        let (which, sum, count) = self.hour.take().unwrap_or((now, 0.0, 0));
        let (mut sum, mut count) = (sum, count);
        if which != now {
            if count > 0 {
                self.week.learn(
                    usize::from(which),
                    f64::from(sum) / f64::from(count),
                    WEEK_GAIN,
                    most,
                );
            }
            (sum, count) = (0.0, 0);
        }
        sum += (departure - self.day.get(slot(at), 0.0)) as f32;
        self.hour = Some((now, sum, count.saturating_add(1)));
        let rest = departure - self.of_week(at);
        self.day.learn(slot(at), rest, DAY_GAIN, most);
    }

    /// The hour of the week's part, in a straight line between the middles of two hours.
    fn of_week(&self, at: f64) -> f64 {
        let from_middle = at - HOUR / 2.0;
        let part = from_middle.rem_euclid(HOUR) / HOUR;
        let (this, next) = (hour(from_middle), hour(from_middle + HOUR));
        self.week.get(this, 2.0) * (1.0 - part) + self.week.get(next, 2.0) * part
    }
}
