//! Slow changes: what is a little too much for a long time.

use serde::{Deserialize, Serialize};

/// A cumulative sum of deviations (Page 1954): what lies above the allowance adds up, what lies below takes off, and it is
/// never less than 0. A change that no single value betrays does so after some time.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Cusum {
    sum: f64,
}

impl Cusum {
    /// Adds a deviation, in standard deviations, less the allowance. A single one counts for at most `most`, so that it takes
    /// several. What is no number is passed over.
    pub fn add(&mut self, deviation: f64, allowance: f64, most: f64) -> f64 {
        if deviation.is_finite() {
            let step = deviation.clamp(-most, most) - allowance;
            self.sum = (self.sum + step).max(0.0);
        }
        self.sum
    }

    /// What has added up.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// It is no more than this.
    pub fn hold(&mut self, most: f64) {
        self.sum = self.sum.min(most.max(0.0));
    }

    /// From the start.
    pub fn reset(&mut self) {
        self.sum = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_lasting_deviation_adds_up() {
        let mut cusum = Cusum::default();
        for _ in 0..100 {
            cusum.add(0.8, 0.5, 4.0);
        }
        assert!((cusum.sum() - 30.0).abs() < 1e-9);
    }

    #[test]
    fn what_stays_below_the_allowance_does_not() {
        let mut cusum = Cusum::default();
        for _ in 0..1000 {
            cusum.add(0.4, 0.5, 4.0);
        }
        assert_eq!(cusum, Cusum::default());
    }

    #[test]
    fn one_huge_value_counts_as_much_as_a_large_one() {
        let mut cusum = Cusum::default();
        assert!((cusum.add(1e12, 0.5, 4.0) - 3.5).abs() < 1e-9);
        cusum.add(f64::NAN, 0.5, 4.0);
        cusum.add(f64::INFINITY, 0.5, 4.0);
        assert!((cusum.sum() - 3.5).abs() < 1e-9);
    }
}
