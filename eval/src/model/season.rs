//! How much there is: hours, days, weeks, and what nobody knows in advance.

use super::random::{Random, Wander};

/// Seconds of a day.
pub(crate) const DAY: f64 = 86_400.0;
/// Seconds of a week.
pub(crate) const WEEK: f64 = 7.0 * DAY;
/// When every run begins: Monday, 5 January 2026, 00:00 UTC, in seconds since 1970.
pub(crate) const BEGIN: f64 = 1_767_571_200.0;

/// The season and the noise of one service.
#[derive(Clone, Debug)]
pub(crate) struct Season {
    daily: f64,
    weekend: f64,
    /// Growth a week, in the logarithm.
    growth: f64,
    /// What this day has that others have not.
    day: f64,
    day_number: i64,
    noise: f64,
    slow: Wander,
    middle: Wander,
    quick: Wander,
    /// The mean of the curve, so that the plan's rate is the mean.
    scale: f64,
}

impl Season {
    pub(crate) fn new(random: &mut Random, daily: f64, weekend: f64, noise: f64) -> Self {
        let mut season = Self {
            daily,
            weekend,
            growth: random.between(-0.02, 0.05),
            day: 0.0,
            day_number: -1,
            noise,
            slow: Wander::new(random, 0.07 * noise, 3.0 * 3600.0),
            middle: Wander::new(random, 0.05 * noise, 90.0),
            quick: Wander::new(random, 0.05 * noise, 2.0),
            scale: 1.0,
        };
        let hours = (0..168).map(|hour| season.curve(BEGIN + f64::from(hour) * 3600.0));
        season.scale = 168.0 / hours.sum::<f64>();
        season
    }

    /// The shape of the week. Two waves a day: low at four at night, up by noon, highest in the evening.
    fn curve(&self, at: f64) -> f64 {
        let hour = (at / 3600.0).rem_euclid(24.0);
        let weekday = ((at - BEGIN) / DAY).floor().rem_euclid(7.0);
        let wave = -((hour - 4.0) / 24.0 * std::f64::consts::TAU).cos()
            + 0.25 * ((hour - 20.5) / 12.0 * std::f64::consts::TAU).cos();
        let week = if weekday >= 5.0 { self.weekend } else { 1.0 };
        (self.daily * wave).exp() * week
    }

    /// What is expected at this time, relative to the mean of the week, without any noise.
    pub(crate) fn expected(&self, at: f64) -> f64 {
        self.scale * self.curve(at) * (self.growth * (at - BEGIN) / WEEK).exp()
    }

    /// Goes on to this time, `seconds` after the last; what there is, relative to the mean.
    pub(crate) fn step(&mut self, random: &mut Random, at: f64, seconds: f64) -> f64 {
        let number = ((at - BEGIN) / DAY).floor() as i64;
        if number != self.day_number {
            self.day_number = number;
            // One day in forty is a holiday or a day of something special.
            self.day = if random.chance(0.025) {
                random.between(-0.7, 0.35)
            } else {
                0.06 * self.noise * random.normal()
            };
        }
        let noise = self.slow.step(random, seconds)
            + self.middle.step(random, seconds)
            + self.quick.step(random, seconds);
        self.expected(at) * (self.day + noise).exp()
    }
}
