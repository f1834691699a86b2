//! From scores to false-alarm rates: the tail of what was seen.
//!
//! Peaks over threshold (Pickands 1975; for streams Siffer et al. 2017, "SPOT"): beyond a high quantile the excesses of almost
//! any quantity follow a generalised Pareto distribution, which therefore says how rare a value is that was never seen.
//!
//! Traffic does not come in independent seconds: one busy minute is sixty large values and one alarm. So what is counted is
//! excursions, not values: values above a threshold belong to the same excursion until as many observations as `run` have
//! stayed below it ("runs declustering", Coles 2001, §5.3), and only its peak is kept. An exceedance is then what an operator
//! means by `1/week`: how often an excursion beyond a value begins.
//!
//! What is kept is the highest peaks of two spans of time, the one that runs and the one before it; older ones are forgotten.

use serde::{Deserialize, Serialize};

use crate::exact;

/// Peaks that are kept of a span: with two spans, the fit rests on at most twice as many.
const PEAKS: usize = 36;
/// Values that are looked at before the first threshold is set.
const FIRST: usize = 120;
/// Peaks below which nothing is extrapolated.
const FEW: usize = 12;
/// Observations that end an excursion, unless said otherwise: a minute of seconds.
const RUN: u32 = 60;
/// Observations of a span, unless said otherwise: two weeks of seconds.
const SPAN: u32 = 14 * 86_400;
/// An excursion that lasts this many runs is counted again: it is a state, not an event.
const RUNS_AT_MOST: u32 = 60;
/// The shape that is assumed before the peaks say otherwise, and how many peaks that assumption is worth. Gaussian noise has
/// about -0.1 at the levels that matter, lognormal and exponential noise 0 to 0.2, Student's t with four degrees 0.25.
const SHAPE: f64 = 0.1;
const SHAPE_WORTH: f64 = 25.0;
/// Shapes are held within these: below, the tail would end, above, moment estimators have no mean.
const SHAPE_RANGE: (f64, f64) = (-0.15, 0.6);
/// How far the two quantiles are moved by one value, in units of their distance, once the start is over.
const GAIN: f64 = 0.001;
/// A peak that a value exceeds by no more than a twentieth (of its excess) is as good as reached. A tail of two kinds (noise, and a
/// daily job) is no Pareto tail: what has been met is therefore never called rarer than it was.
const CLOSE: f64 = 0.95;
/// Without an excursion for this part of a span (half a week of two) the threshold is too high, and falls quickly: by this part of
/// its height over the median with each value.
const PATIENCE: u32 = 4;
const QUICK: f64 = 0.001;
/// The least exceedance that is ever stated.
const LEAST: f64 = 1e-200;

/// The highest peaks of a span of observations.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Span {
    /// Observations.
    seen: u32,
    /// Excursions that began.
    opened: u32,
    /// The highest threshold that was in force: below it peaks may have been missed.
    floor: f32,
    /// The highest peaks, in ascending order.
    #[serde(deserialize_with = "exact::list")]
    peaks: Vec<f32>,
}

impl Span {
    fn insert(&mut self, peak: f32) {
        let place = self.peaks.partition_point(|&other| other < peak);
        if self.peaks.len() < PEAKS {
            // Not by doubling: the whole is to stay within its bound.
            self.peaks.reserve_exact(PEAKS - self.peaks.len());
            self.peaks.insert(place, peak);
        } else if place > 0 {
            self.peaks[..place].rotate_left(1);
            self.peaks[place - 1] = peak;
        }
    }

    fn remove(&mut self, peak: f32) {
        let place = self.peaks.partition_point(|&other| other < peak);
        if self.peaks.get(place).is_some_and(|&other| other <= peak) {
            self.peaks.remove(place);
        }
    }

    /// Every peak above this was kept.
    fn complete_above(&self) -> f32 {
        match self.peaks.first() {
            Some(&least) if self.peaks.len() == PEAKS => least.max(self.floor),
            _ => self.floor,
        }
    }
}

/// What the peaks amount to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Fit {
    threshold: f64,
    /// Peaks beyond the threshold.
    beyond: u32,
    /// Peaks beyond it or upon it.
    upon: u32,
    scale: f64,
    shape: f64,
}

/// The upper tail of a quantity of normal traffic. Takes at most about 600 bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Tail {
    run: u32,
    span: u32,
    grain: f32,
    seen: u64,
    /// The first values, until there are enough of them for a threshold.
    #[serde(deserialize_with = "exact::list")]
    first: Vec<f32>,
    median: f32,
    /// The quantile above which a value belongs to an excursion.
    level: f32,
    current: Span,
    previous: Span,
    /// The peak of the excursion that lasts, observations since it began, and since it was last above the level.
    open: Option<(f32, u32, u32)>,
    /// Observations since the last excursion began.
    quiet: u32,
    fit: Fit,
}

impl Default for Tail {
    fn default() -> Self {
        Self::new(RUN, SPAN)
    }
}

impl Tail {
    /// One that knows nothing yet. `run`: observations below the threshold that end an excursion; `span`: observations after
    /// which what was learned begins to be forgotten (gone after twice as many).
    pub fn new(run: u32, span: u32) -> Self {
        Self {
            run: run.max(1),
            span: span.max(1000),
            grain: 0.0,
            seen: 0,
            first: Vec::new(),
            median: 0.0,
            level: 0.0,
            current: Span::default(),
            previous: Span::default(),
            open: None,
            quiet: 0,
            fit: Fit::default(),
        }
    }

    /// Differences of less than this are no difference: the tail is never taken to fall off faster.
    #[must_use]
    pub fn with_grain(mut self, grain: f32) -> Self {
        self.grain = grain.max(0.0);
        self
    }

    /// Learns a value of normal traffic. What is no number is passed over.
    pub fn learn(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let value = value.clamp(-1e30, 1e30) as f32;
        if self.starting() {
            self.first.reserve_exact(FIRST - self.first.len());
            self.first.push(value);
            if self.first.len() == FIRST {
                self.begin();
            }
            return;
        }
        self.seen += 1;
        self.current.seen += 1;
        self.follow(value);
        if self.current.seen >= self.span {
            self.turn();
        }
    }

    /// Learns an excursion that was not learned while it lasted because it was taken for an anomaly, and that turned out to be
    /// short. Left out, the largest values of normal traffic would be missing from the tail, and alarms would breed alarms. Its
    /// peak counts for no more than one that was to be expected next, so that whoever sends bursts on purpose lifts the tail little.
    pub fn concede(&mut self, peak: f64) {
        if self.starting() || !peak.is_finite() || peak <= f64::from(self.level) {
            return;
        }
        let highest = [&self.current, &self.previous]
            .iter()
            .filter_map(|span| span.peaks.last())
            .fold(self.fit.threshold, |highest, &peak| highest.max(f64::from(peak)));
        self.current.opened += 1;
        self.current
            .insert(peak.min(highest + self.fit.scale).clamp(-1e30, 1e30) as f32);
        self.refit();
    }

    /// Whether enough was seen to extrapolate.
    pub fn ready(&self) -> bool {
        // Where excursions do not come, that is known too after a while.
        let quiet = FEW as f64 * 5.0 / self.above();
        self.seen >= 600 && (self.fit.beyond as usize >= FEW || self.seen as f64 >= quiet)
    }

    /// How often, per observation, normal traffic begins an excursion beyond this value; never 0, and never more for a larger
    /// value. Well below the threshold it is the probability that a value is larger.
    pub fn exceedance(&self, value: f64) -> f64 {
        if value.is_nan() {
            return 1.0;
        }
        if self.starting() {
            let larger = self
                .first
                .iter()
                .filter(|&&other| f64::from(other) >= value)
                .count();
            return (larger as f64 + 1.0) / (self.first.len() as f64 + 1.0);
        }
        let fit = &self.fit;
        let beyond = value - fit.threshold;
        let seen = f64::from(self.current.seen.max(1)) + f64::from(self.previous.seen);
        if beyond > 0.0 {
            let rate = f64::from(fit.beyond.max(1)) / seen;
            let close = fit.threshold + beyond * CLOSE;
            let met = [&self.current, &self.previous]
                .map(|span| span.peaks.len() - span.peaks.partition_point(|&peak| f64::from(peak) < close))
                .iter()
                .sum::<usize>();
            let fitted = rate * survival(beyond, fit.scale, fit.shape);
            return fitted.max(met as f64 / seen).max(LEAST);
        }
        // Below it: straight lines in the logarithm, from the threshold through the level to the median.
        let opened = f64::from(self.current.opened) + f64::from(self.previous.opened);
        let at_threshold = f64::from(fit.upon.max(1)) / seen;
        let at_level = (opened.max(1.0) / seen).clamp(at_threshold, 0.5);
        let level = f64::from(self.level).min(fit.threshold);
        let median = f64::from(self.median).min(level);
        if value > level {
            return between(level, at_level, fit.threshold, at_threshold, value);
        }
        if value > median {
            return between(median, 0.5, level, at_level, value);
        }
        let width = (level - median).max(f64::MIN_POSITIVE);
        1.0 - 0.5 * (-(median - value) / width).exp()
    }

    /// Observations learned.
    pub fn seen(&self) -> u64 {
        self.seen + self.first.len() as u64
    }

    /// The memory that it takes besides itself, in bytes.
    pub(crate) fn heap(&self) -> usize {
        let values = self.first.capacity() + self.current.peaks.capacity() + self.previous.peaks.capacity();
        values * size_of::<f32>()
    }

    fn starting(&self) -> bool {
        self.seen == 0
    }

    fn least_scale(&self, threshold: f64) -> f64 {
        f64::from(self.grain).max(threshold.abs() * 1e-6).max(1e-9)
    }

    /// The share of values that are to lie above the level: excursions must be rare enough to end.
    fn above(&self) -> f64 {
        1.0 / (4.0 * f64::from(self.run.clamp(5, 250)))
    }

    /// Sets the first threshold. The values above it count as an excursion each, which errs to the side of fewer alarms.
    fn begin(&mut self) {
        let mut sorted = self.first.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        self.median = sorted[FIRST / 2];
        let place = ((FIRST as f64 * (1.0 - self.above())) as usize).min(FIRST - 6);
        self.level = sorted[place];
        self.current.floor = self.level;
        for &value in &sorted[place + 1..] {
            self.current.insert(value);
        }
        self.current.seen = FIRST as u32;
        self.current.opened = self.current.peaks.len() as u32;
        self.seen = FIRST as u64;
        self.first = Vec::new();
        self.refit();
    }

    /// Follows an excursion, and the quantiles.
    fn follow(&mut self, value: f32) {
        match &mut self.open {
            Some((peak, age, quiet)) => {
                *age += 1;
                *quiet = if value > self.level { 0 } else { *quiet + 1 };
                let ended = *quiet >= self.run || *age >= self.run.saturating_mul(RUNS_AT_MOST);
                let risen = value > *peak;
                if risen {
                    let before = *peak;
                    *peak = value;
                    self.current.remove(before);
                    self.current.insert(value);
                }
                if ended {
                    self.open = None;
                }
                if risen {
                    self.refit();
                }
            }
            None if value > self.level => {
                self.open = Some((value, 0, 0));
                self.quiet = 0;
                self.current.opened += 1;
                self.current.insert(value);
                self.refit();
            }
            None => {}
        }
        let gain = GAIN.max(1.0 / self.seen as f64);
        let width = f64::from(self.level - self.median)
            .max(f64::from(self.level.abs()) * 1e-6)
            .max(1e-9);
        let above = self.above();
        // A long excursion lifts the level no more than a short one: it is to be rare that one begins.
        let up = match self.open {
            Some((_, age, _)) if age >= self.run => 0.0,
            _ if value > self.level => 1.0 - above,
            _ => -above,
        };
        self.level += (gain * width * up) as f32;
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet > self.span / PATIENCE {
            // Nothing comes near it any more: what was normal once is not now.
            self.level -= (QUICK * width) as f32;
        }
        let side = if value > self.median { 0.5 } else { -0.5 };
        self.median = (self.median + (gain * width * side) as f32).min(self.level);
        self.current.floor = self.current.floor.max(self.level);
    }

    /// Begins a span.
    fn turn(&mut self) {
        self.previous = std::mem::take(&mut self.current);
        self.current.floor = self.level;
        if let Some((peak, ..)) = self.open {
            // What lasts is counted in the span in which it peaks.
            self.current.insert(peak);
            self.previous.remove(peak);
        }
        self.refit();
    }

    /// Fits the generalised Pareto distribution by probability-weighted moments (Hosking and Wallis 1987), its shape drawn
    /// towards the usual one while peaks are few.
    fn refit(&mut self) {
        let mut threshold = self.current.complete_above();
        if self.previous.seen > 0 {
            threshold = threshold.max(self.previous.complete_above());
        }
        let above = |span: &Span| span.peaks.partition_point(|&peak| peak <= threshold);
        let (mut left, mut right) = (
            &self.current.peaks[above(&self.current)..],
            &self.previous.peaks[above(&self.previous)..],
        );
        let count = left.len() + right.len();
        let upon = [&self.current, &self.previous]
            .map(|span| span.peaks.len() - span.peaks.partition_point(|&peak| peak < threshold))
            .iter()
            .sum::<usize>() as u32;
        let threshold = f64::from(threshold);
        if count == 0 {
            // Nothing was ever higher: as if it had been once, by as much as the threshold lies above the middle.
            self.fit = Fit {
                threshold,
                beyond: 0,
                upon,
                scale: (threshold - f64::from(self.median)).max(self.least_scale(threshold)),
                shape: SHAPE,
            };
            return;
        }
        let n = count as f64;
        let (mut mean, mut weighted) = (0.0, 0.0);
        for rank in 0..count {
            // The two ascending lists, merged.
            let next = match (left.first(), right.first()) {
                (Some(a), Some(b)) if a <= b => &mut left,
                (Some(_), None) => &mut left,
                _ => &mut right,
            };
            let excess = next.first().map_or(0.0, |&peak| f64::from(peak) - threshold);
            *next = &next[1..];
            mean += excess / n;
            weighted += excess * (1.0 - (rank as f64 + 0.65) / n) / n;
        }
        let raw = 2.0 - mean / (mean - 2.0 * weighted).max(mean * 1e-3);
        let raw = if raw.is_finite() {
            raw.clamp(-0.5, 0.9)
        } else {
            SHAPE
        };
        let shape = ((raw * n + SHAPE * SHAPE_WORTH) / (n + SHAPE_WORTH)).clamp(SHAPE_RANGE.0, SHAPE_RANGE.1);
        // Few peaks say little of the scale either: by one standard error more.
        let scale = mean * (1.0 - shape) * (1.0 + 1.0 / n.sqrt());
        self.fit = Fit {
            threshold,
            beyond: count as u32,
            upon,
            scale: scale.max(self.least_scale(threshold)),
            shape,
        };
    }
}

/// The probability that an excess is larger: the generalised Pareto distribution's, and where that ends (negative shapes) at
/// least a sliver of the exponential one's.
fn survival(excess: f64, scale: f64, shape: f64) -> f64 {
    let x = excess / scale;
    let exponential = (-x).exp();
    if shape.abs() < 1e-6 {
        return exponential;
    }
    let base = 1.0 + shape * x;
    let pareto = if base > 0.0 { base.powf(-1.0 / shape) } else { 0.0 };
    pareto.max(1e-3 * exponential)
}

/// The value at `x` of the curve that is straight in the logarithm between two points.
fn between(x0: f64, y0: f64, x1: f64, y1: f64, x: f64) -> f64 {
    let part = if x1 > x0 {
        ((x - x0) / (x1 - x0)).clamp(0.0, 1.0)
    } else {
        1.0
    };
    y0 * (y1 / y0).powf(part)
}
