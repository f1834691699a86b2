//! Slow ramps: no value stands out, and yet there is more and more.

use serde::{Deserialize, Serialize};

use super::season::SLOT;
use crate::{cusum::Cusum, tail::Tail};

/// What a slot may exceed the usual by without adding up, in standard deviations: half of what is to be found soon (Page 1954),
/// which is a shift of two. Days differ by one.
const ALLOWANCE: f64 = 1.0;
/// What a single slot counts for at most.
const MOST: f64 = 4.0;
/// Slots that end an excursion of the sum: an hour.
const RUN: u32 = 12;
const DAY: u32 = 288;
/// Slots before the week is known: until then every weekend looks like a ramp.
const YOUNG: u32 = 14 * DAY;
/// Ramps that normal traffic shows: one in four weeks, whatever the sensitivity, for they are a second opinion.
const RATE: f64 = 1.0 / (28.0 * DAY as f64);

/// Looks for slow ramps, once in a slot of the day.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Ramp {
    cusum: Cusum,
    tail: Tail,
    /// The mean distance from the usual.
    spread: f64,
    slots: u32,
    on: bool,
    /// The highest sum since it was last 0, and whether that was an alarm.
    peak: f64,
    alarmed: bool,
    /// The slot that runs: which, the sum of its departures, how many, and whether all of it was learned.
    slot: Option<(i64, f64, u32, bool)>,
}

impl Default for Ramp {
    fn default() -> Self {
        Self {
            cusum: Cusum::default(),
            tail: Tail::new(RUN, 14 * DAY),
            spread: 0.0,
            slots: 0,
            on: false,
            peak: 0.0,
            alarmed: false,
            slot: None,
        }
    }
}

impl Ramp {
    /// Looks at how far a value lies above the usual level of its time; whether there is a ramp.
    pub(super) fn look(&mut self, at: f64, departure: f64) -> bool {
        let now = (at / SLOT).floor() as i64;
        let (which, sum, count, normal) = self.slot.unwrap_or((now, 0.0, 0, true));
        if which == now {
            self.slot = Some((now, sum + departure, count.saturating_add(1), normal));
            return self.on;
        }
        if count > 0 {
            self.close(sum / f64::from(count), normal);
        }
        // Until `learned` says otherwise.
        self.slot = Some((now, departure, 1, false));
        self.on
    }

    /// The value that was looked at last is normal.
    pub(super) fn learned(&mut self) {
        if let Some((.., count, normal)) = &mut self.slot {
            *normal = *normal || *count == 1;
        }
    }

    /// What is now is normal.
    pub(super) fn accept(&mut self) {
        self.cusum.reset();
        (self.on, self.peak, self.alarmed) = (false, 0.0, false);
        self.slot = None;
    }

    pub(super) fn heap(&self) -> usize {
        self.tail.heap()
    }

    fn close(&mut self, departure: f64, normal: bool) {
        if normal {
            self.slots = self.slots.saturating_add(1);
            let gain = (1.0 / f64::from(self.slots)).max(1.0 / f64::from(2 * DAY));
            let most = if self.slots > DAY {
                4.0 * self.spread + 1e-3
            } else {
                f64::MAX
            };
            self.spread += gain * (departure.abs().min(most) - self.spread);
        }
        // The mean distance of a normal variable is 0.8 standard deviations.
        let deviation = departure / (1.25 * self.spread).max(0.01);
        let before = self.cusum.sum();
        self.cusum.add(deviation, ALLOWANCE, MOST);
        if !normal || self.on {
            // What is an anomaly already need not add up, or it would have to be climbed down from when it is over.
            self.cusum.hold(before);
        }
        let sum = self.cusum.sum();
        self.on = self.tail.ready() && self.tail.exceedance(sum) < RATE;
        self.peak = self.peak.max(sum);
        self.alarmed |= self.on;
        // Learned is what came to an end, and how far it had come: a ramp must not be its own excuse.
        if sum <= 0.0 {
            let (peak, alarmed) = (std::mem::take(&mut self.peak), std::mem::take(&mut self.alarmed));
            if self.slots <= YOUNG || !normal {
                return;
            }
            if alarmed {
                self.tail.concede(peak);
            } else {
                self.tail.learn(peak);
            }
        }
    }
}
