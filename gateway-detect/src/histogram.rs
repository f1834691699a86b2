//! A learned distribution over a few bins: how far counts are from it, and how many of them it cannot explain.

use serde::{Deserialize, Serialize};

/// How many counts the learned distribution weighs as, against those of an interval: few packets say little.
const PRIOR: f64 = 20.0;
/// Bins of which less is known are not asked what they explain.
const RARE: f64 = 0.02;

/// A distribution, learned.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Histogram {
    shares: Vec<f32>,
}

impl Histogram {
    /// Learns counts: `rate` is how much of what was known they replace, 0 to 1.
    pub fn learn(&mut self, counts: &[f64], rate: f64) {
        let sum: f64 = counts.iter().sum();
        if sum <= 0.0 {
            return;
        }
        if self.shares.len() != counts.len() {
            self.shares = counts.iter().map(|count| (count / sum) as f32).collect();
            return;
        }
        for (share, count) in self.shares.iter_mut().zip(counts) {
            *share += (rate * (count / sum - f64::from(*share))) as f32;
        }
    }

    /// Whether it has learned anything.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// The learned shares.
    pub fn shares(&self) -> impl Iterator<Item = f64> + '_ {
        self.shares.iter().map(|share| f64::from(*share))
    }

    /// The divergence of counts from what was learned: the root of twice Kullback and Leibler's, less what chance brings to so
    /// few counts (half a degree of freedom each, Wilks 1938).
    pub fn divergence(&self, counts: &[f64]) -> f64 {
        let sum: f64 = counts.iter().sum();
        if sum <= 0.0 || self.shares.len() != counts.len() {
            return 0.0;
        }
        let (mut divergence, mut bins) = (0.0, 0.0);
        for (count, learned) in counts.iter().zip(self.shares()) {
            // A bin that was never met is not impossible.
            let learned = learned.max(1e-4);
            let share = (count + PRIOR * learned) / (sum + PRIOR);
            divergence += share * (share / learned).ln();
            bins += 1.0 - (1.0 - learned).powf(sum.min(1e6));
        }
        (2.0 * divergence - bins / (sum + PRIOR)).max(0.0).sqrt()
    }

    /// How many of the counts are more than the learned distribution explains: with the largest multiple of it that fits
    /// below the counts, chance allowed for, what is above. The surplus of each bin is written to `surplus`.
    pub fn foreign(&self, counts: &[f64], surplus: &mut [f64]) -> f64 {
        let sum: f64 = counts.iter().sum();
        surplus.fill(0.0);
        if sum <= 0.0 || self.shares.len() != counts.len() {
            return 0.0;
        }
        let mut level = f64::INFINITY;
        for (count, learned) in counts.iter().zip(self.shares()) {
            if learned >= RARE {
                level = level.min((count + 2.0 * count.sqrt() + 2.0) / learned);
            }
        }
        let level = if level.is_finite() { level.min(sum) } else { sum };
        for ((surplus, count), learned) in surplus.iter_mut().zip(counts).zip(self.shares()) {
            *surplus = (count - level * learned).max(0.0);
        }
        (sum - level).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> Histogram {
        let mut histogram = Histogram::default();
        histogram.learn(&[10.0, 60.0, 25.0, 5.0, 0.0], 1.0);
        histogram
    }

    #[test]
    fn the_usual_does_not_diverge_and_the_unusual_does() {
        let histogram = learned();
        for scale in [0.2, 1.0, 10.0, 1_000.0] {
            let counts = [10.0, 60.0, 25.0, 5.0, 0.0].map(|count| count * scale);
            assert!(histogram.divergence(&counts) < 0.01, "{scale}");
        }
        let other = histogram.divergence(&[500.0, 300.0, 125.0, 25.0, 0.0]);
        assert!(other > 0.8, "{other}");
        assert!(histogram.divergence(&[0.0, 600.0, 250.0, 50.0, 900.0]) > 1.5);
        assert!(
            histogram.divergence(&[0.0, 1.0, 0.0, 0.0, 0.0]) < 0.3,
            "one packet says nothing"
        );
    }

    #[test]
    fn what_is_added_is_foreign() {
        let histogram = learned();
        let mut surplus = [0.0; 5];
        let usual = [1_000.0, 6_000.0, 2_500.0, 500.0, 0.0];
        assert!(histogram.foreign(&usual, &mut surplus) < 1.0);
        let mut mixed = usual;
        mixed[0] += 5_000.0;
        mixed[4] += 2_000.0;
        let foreign = histogram.foreign(&mixed, &mut surplus);
        assert!((foreign - 7_000.0).abs() < 700.0, "{foreign}");
        assert!(
            (surplus[0] - 5_000.0).abs() < 200.0 && surplus[4] > 1_999.0,
            "{surplus:?}"
        );
        assert!(surplus[1] < 1.0 || surplus[1] < 0.1 * foreign, "{surplus:?}");
    }
}
