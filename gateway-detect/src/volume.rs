//! The volume axis.

use serde::{Deserialize, Serialize};

/// What the axis says of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scored {
    /// The probability that normal traffic is further from the expected, on that side; never 0.
    pub exceedance: f64,
    /// What was expected.
    pub expected: f64,
    /// Above (positive) or below the expected, in standard deviations of the logarithm.
    pub deviation: f64,
    /// A slow ramp: the accumulated deviation is beyond its bound.
    pub ramp: bool,
    /// How much of what is needed was learned, 0 to 1.
    pub learned: f64,
}

/// How much there usually is: by the hour of the week, and lately.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Volume {}

impl Volume {
    /// Looks at a value: `at` in seconds since 1970, `value` a rate (not negative).
    pub fn score(&mut self, _at: f64, _value: f64) -> Scored {
        Scored {
            exceedance: 1.0,
            ..Scored::default()
        }
    }

    /// Learns the value that was looked at last; not called while an anomaly lasts.
    pub fn learn(&mut self, _at: f64, _value: f64) {}
}
