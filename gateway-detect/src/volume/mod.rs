//! The volume axis: how much there is, against how much there usually is.
//!
//! Values are compared in a logarithm that is soft around zero, `asinh(v / 2u)`: linear below the unit `u`, which is what the
//! service typically has, and logarithmic above. That evens out the noise of counts (small at night, large by day) as
//! well as the burstiness of busy hours, and a zero is nothing special.
//!
//! What is expected is what there was in the last half hour, moved along by the shape of the day and of the week, as far
//! as these have proved to predict better than the last half hour alone. The distance from that goes through the [tail](Tail)
//! of all such distances, upwards and downwards, which makes it a false-alarm rate.
//!
//! A `Volume` takes 4 kB ([`Volume::bytes`]), and a look with a lesson well under a microsecond.
//!
//! # Where the constants come from
//!
//! Times of a day, half an hour and a week are what people mean by these words; the clip, the proof's factor and the gains are
//! round numbers near the middle of what works. On the Numenta benchmark (28 series) the score is 67.0; no constant that is
//! halved or doubled by itself brings it below 61, but for the recent past: 15 minutes give 60.5, 20 to 40 give 60.4 to 67.0,
//! 50 give 57.5. Against overfitting: with the threshold of each series chosen on the other series it is 64.5; with both the
//! recent past and the threshold of each group of files (artificial, processors, disks and networks, databases, the rest)
//! chosen on the other groups, 62.0.

mod onset;
mod ramp;
mod season;

use serde::{Deserialize, Serialize};

pub use self::onset::{Onset, Recorded};
use self::{
    ramp::Ramp,
    season::{Moment, Proof, SLOT, Season},
};
use crate::{exact, tail::Tail};

/// Observations by which unit and interval are settled; nothing is said before.
const FIRST: usize = 100;
/// How long the recent past is, and how many observations at least.
const RECENT: f64 = 1800.0;
const RECENT_OBSERVATIONS: f64 = 6.0;
const DAY: f64 = 86_400.0;
const WEEK: f64 = 7.0 * DAY;
/// How long spreads reach back.
const SPREAD: f64 = 2.0 * DAY;
/// What is further from the level than so many mean distances counts for no more (Huber 1964).
const CLIP: f64 = 5.0;
/// How fast the recent departure fades once it is no longer recent.
const FADE: f64 = 6.0 * 3600.0;
/// After so long without a look the recent past is no longer recent, and so many observations are looked at first.
const GAP: f64 = 3600.0;
const SETTLE: u32 = 10;
/// The least amount that matters, in packets a second, unless said otherwise.
const FLOOR: f64 = 10.0;
/// What was not learned for no longer than this was no anomaly but a large value of normal traffic.
const SHORT: f64 = 600.0;
/// Values beyond this are taken for this.
const MOST: f64 = 1e30;
/// Differences of less than this (of the logarithm) are none.
const GRAIN: f32 = 0.001;
/// Tails reach back between one and two of these.
const SPAN: f64 = 14.0 * DAY;

/// What the axis says of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    /// How often, per observation, normal traffic begins an excursion that is further from the expected, on that side; never 0.
    pub exceedance: f64,
    /// What was expected.
    pub expected: f64,
    /// What is usual at this hour of the week, or of the day, whatever the last half hour was like.
    pub seasonal: f64,
    /// Above (positive) or below the expected, in standard deviations of the logarithm.
    pub deviation: f64,
    /// A slow ramp: the accumulated deviation is beyond its bound.
    pub ramp: bool,
    /// How much of what is needed was learned, 0 to 1: a day, and enough excursions to tell their frequency.
    pub learned: f64,
}

/// A slot of the day that is being learned.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Slot {
    which: i64,
    sum: f64,
    count: u32,
    /// The recent past when it began.
    recent: f64,
    departure: f64,
}

/// What was looked at and not learned.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
struct Missed {
    since: f64,
    highest: f64,
    lowest: f64,
}

/// What was looked at last: it is learned without being worked out again.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    at: f64,
    value: f64,
    y: f64,
    moment: Moment,
    /// What the season says, and what it says give or take a slot.
    season: f64,
    near: f64,
    /// From the expected.
    distance: f64,
}

/// How much there usually is: by the hour of the week, and lately.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Volume {
    floor: f64,
    /// The first observations, until there are enough of them.
    #[serde(deserialize_with = "exact::list")]
    first: Vec<(f64, f32)>,
    unit: f64,
    interval: f64,
    /// When a value was last looked at, and how many more are only looked at.
    clock: Option<f64>,
    settle: u32,
    /// When a value was last learned.
    learned_at: f64,
    /// Observations that were learned.
    seen: u64,
    /// The mean of a week, in the logarithm, as everything below.
    level: f64,
    /// The recent past, and the recent departure from level and season.
    recent: f64,
    departure: f64,
    /// What there is now, normal or not.
    current: f64,
    /// The mean distance from the expected.
    spread: f64,
    season: Season,
    proof: Proof,
    slot: Option<Slot>,
    rise: Tail,
    fall: Tail,
    ramp: Ramp,
    missed: Option<Missed>,
    #[serde(skip)]
    looked: Option<Look>,
}

impl Default for Volume {
    fn default() -> Self {
        Self::new(FLOOR)
    }
}

impl Volume {
    /// One that knows nothing yet. `floor`: the least amount that matters; a smaller difference from the expected is never unusual.
    pub fn new(floor: f64) -> Self {
        Self {
            floor: if floor.is_finite() { floor.max(0.0) } else { 0.0 },
            first: Vec::new(),
            unit: 0.0,
            interval: 0.0,
            clock: None,
            settle: 0,
            learned_at: 0.0,
            seen: 0,
            level: 0.0,
            recent: 0.0,
            departure: 0.0,
            current: 0.0,
            spread: 0.0,
            season: Season::default(),
            proof: Proof::default(),
            slot: None,
            rise: Tail::default(),
            fall: Tail::default(),
            ramp: Ramp::default(),
            missed: None,
            looked: None,
        }
    }

    /// Looks at a value: `at` in seconds since 1970, `value` a rate. At any pace, but at an even one. After an hour without a
    /// look, or a clock that was set back by as much, ten values are only looked at. What is no number says nothing.
    pub fn score(&mut self, at: f64, value: f64) -> Scored {
        if !at.is_finite() || !value.is_finite() || !self.started() {
            return Scored {
                exceedance: 1.0,
                expected: self.expected(at),
                seasonal: self.expected(at),
                deviation: 0.0,
                ramp: false,
                learned: self.learned(),
            };
        }
        self.pass(at);
        let look = self.look(at, value);
        self.looked = Some(look);
        let distance = look.distance;
        self.current += self.gain(RECENT / 6.0) * (look.y - self.current);
        let missed = self.missed.get_or_insert(Missed {
            since: at,
            highest: distance,
            lowest: distance,
        });
        missed.highest = missed.highest.max(distance);
        missed.lowest = missed.lowest.min(distance);
        let trust = self.proof.trust();
        let ramp = self.ramp.look(at, look.y - self.level - trust * look.season);
        let expected = self.amount(at, look.season);
        let exceedance = match self.settle {
            0 if (value - expected).abs() < self.floor => 1.0,
            0 if distance > 0.0 => self.rise.exceedance(distance),
            0 => self.fall.exceedance(-distance),
            _ => 1.0,
        };
        Scored {
            exceedance,
            expected,
            seasonal: self.size(self.level + look.season),
            // The mean distance of a normal variable is 0.8 standard deviations.
            deviation: distance / (1.25 * self.spread).max(f64::from(GRAIN)),
            ramp,
            learned: self.learned(),
        }
    }

    /// Learns the value that was looked at last; not called while an anomaly lasts.
    pub fn learn(&mut self, at: f64, value: f64) {
        if !at.is_finite() || !value.is_finite() {
            return;
        }
        if self.started() {
            let same =
                |look: &Look| look.at.to_bits() == at.to_bits() && look.value.to_bits() == value.to_bits();
            let look = self.looked.take().filter(same);
            self.take(look.unwrap_or_else(|| self.look(at, value)));
        } else {
            self.first.reserve_exact(FIRST - self.first.len());
            self.first.push((at, value.clamp(-MOST, MOST) as f32));
            if self.first.len() >= FIRST {
                self.start();
            }
        }
    }

    /// What is now is normal: the level moves there at once, and what lies beyond is looked at from there. For a lasting change,
    /// when the operator says so or when it has lasted long enough.
    pub fn accept(&mut self, at: f64) {
        if !self.started() || !at.is_finite() {
            return;
        }
        self.looked = None;
        self.level = self.current - self.proof.trust() * self.season.at(Moment::new(at));
        self.recent = self.current;
        self.departure = 0.0;
        self.slot = None;
        self.ramp.accept();
    }

    /// What is expected at this time.
    pub fn expected(&self, at: f64) -> f64 {
        if !self.started() {
            let sum = self
                .first
                .iter()
                .fold(0.0, |sum, &(_, value)| sum + f64::from(value));
            return sum / (self.first.len().max(1) as f64);
        }
        let season = if at.is_finite() {
            self.season.at(Moment::new(at))
        } else {
            0.0
        };
        self.amount(at, season)
    }

    /// What is expected at a time of which the season says so much.
    fn amount(&self, at: f64, season: f64) -> f64 {
        let trust = self.proof.trust();
        self.size((1.0 - trust) * self.recent + trust * (self.level + season + self.departure_at(at)))
    }

    /// The amount that has this logarithm.
    fn size(&self, y: f64) -> f64 {
        2.0 * self.unit * y.clamp(-300.0, 300.0).sinh()
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.first.capacity() * size_of::<(f64, f32)>()
            + self.season.heap()
            + self.rise.heap()
            + self.fall.heap()
            + self.ramp.heap()
    }

    fn started(&self) -> bool {
        self.unit > 0.0
    }

    fn log(&self, value: f64) -> f64 {
        (value.clamp(-MOST, MOST) / (2.0 * self.unit)).asinh()
    }

    fn learned(&self) -> f64 {
        let day = (self.seen as f64 * self.interval / DAY).min(1.0);
        if self.rise.ready() && self.fall.ready() {
            day
        } else {
            day.min(0.99)
        }
    }

    /// How much of a mean that reaches back so many seconds a value is; at first all values count alike.
    fn gain(&self, seconds: f64) -> f64 {
        (self.interval / seconds)
            .max(1.0 / (self.seen as f64 + 1.0))
            .min(1.0)
    }

    /// The recent departure from level and season, which fades while learning pauses.
    fn departure_at(&self, at: f64) -> f64 {
        let pause = at - self.learned_at;
        if pause > RECENT {
            self.departure * (-(pause - RECENT) / FADE).exp()
        } else {
            self.departure
        }
    }

    /// Compares a value with what is expected.
    fn look(&self, at: f64, value: f64) -> Look {
        let (y, moment) = (self.log(value), Moment::new(at));
        let trust = self.proof.trust();
        let seasonal = self.level + self.departure_at(at);
        let near = self.season.near(moment, y - seasonal);
        Look {
            at,
            value,
            y,
            moment,
            season: self.season.at(moment),
            near,
            distance: y - (1.0 - trust) * self.recent - trust * (seasonal + near),
        }
    }

    /// Settles unit and interval by the first observations, and learns them.
    fn start(&mut self) {
        let first = std::mem::take(&mut self.first);
        let mut sizes: Vec<f64> = first.iter().map(|&(_, value)| f64::from(value).abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let mut steps: Vec<f64> = first.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.retain(|&step| step > 0.0);
        steps.sort_unstable_by(f64::total_cmp);
        let typical = sizes.get(FIRST / 2).copied().unwrap_or(0.0);
        let high = sizes.get(FIRST * 9 / 10).copied().unwrap_or(0.0);
        self.unit = typical.max(high / 100.0).max(self.floor).max(1e-3);
        self.interval = steps
            .get(steps.len() / 2)
            .copied()
            .unwrap_or(1.0)
            .clamp(1e-3, DAY);
        let run = (3600.0 / self.interval).clamp(12.0, 60.0) as u32;
        let span = (SPAN / self.interval).clamp(1000.0, 1e8) as u32;
        self.rise = Tail::new(run, span).with_grain(GRAIN);
        self.fall = self.rise.clone();
        for (at, value) in first {
            let value = f64::from(value);
            if self.seen == 0 {
                let y = self.log(value);
                (self.level, self.recent, self.current) = (y, y, y);
            }
            self.pass(at);
            self.settle = 0;
            self.take(self.look(at, value));
        }
    }

    /// Time passes.
    fn pass(&mut self, at: f64) {
        let gap = GAP.max(12.0 * self.interval);
        if self.clock.is_some_and(|before| (at - before).abs() > gap) {
            self.settle = SETTLE;
            self.slot = None;
        }
        self.clock = Some(at);
    }

    /// Learns an observation.
    fn take(&mut self, look: Look) {
        let Look { at, y, distance, .. } = look;
        if let Some(missed) = self.missed.take()
            && (0.0..SHORT).contains(&(at - missed.since))
            && at > missed.since
        {
            self.rise.concede(missed.highest);
            self.fall.concede(-missed.lowest);
        }
        let settling = if self.settle > 0 {
            self.settle -= 1;
            1.0 / f64::from(SETTLE - self.settle)
        } else {
            self.rise.learn(distance);
            self.fall.learn(-distance);
            self.ramp.learned();
            0.0
        };
        self.slot(at, y);
        let clip = self.clip();
        let recent = self
            .gain(RECENT.max(RECENT_OBSERVATIONS * self.interval))
            .max(settling);
        self.recent += recent * (y - self.recent);
        self.departure = self.departure_at(at);
        self.departure += recent * (y - self.level - look.near - self.departure);
        self.learned_at = at;
        let off_level = y - self.level - look.season;
        self.level += self.gain(WEEK) * off_level.clamp(-clip, clip);
        let most = if self.seen > 50 {
            4.0 * self.spread + 1e-3
        } else {
            f64::MAX
        };
        self.spread += self.gain(SPREAD) * (distance.abs().min(most) - self.spread);
        self.seen += 1;
    }

    /// What is further off is clipped to this.
    fn clip(&self) -> f64 {
        if self.seen > 50 {
            CLIP * self.spread + 1e-3
        } else {
            f64::MAX
        }
    }

    /// Gathers a slot of the day, and learns it when it is over.
    fn slot(&mut self, at: f64, y: f64) {
        let which = (at / SLOT).floor() as i64;
        if let Some(slot) = &mut self.slot
            && slot.which == which
        {
            slot.sum += y;
            slot.count = slot.count.saturating_add(1);
            return;
        }
        let before = self.slot.replace(Slot {
            which,
            sum: y,
            count: 1,
            recent: self.recent,
            departure: self.departure,
        });
        let Some(slot) = before else { return };
        let mean = slot.sum / f64::from(slot.count);
        let middle = Moment::new((slot.which as f64 + 0.5) * SLOT);
        self.proof.slot();
        if self.season.knows(middle) {
            let clip = self.clip();
            let seasonal = self.level + slot.departure;
            let with = mean - seasonal - self.season.near(middle, mean - seasonal);
            self.proof
                .weigh((mean - slot.recent).abs().min(clip), with.abs().min(clip));
        }
        self.season.learn(middle, mean - self.level);
    }
}
