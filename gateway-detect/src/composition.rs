//! The composition axis: how far all features together are from the usual, and whose doing that is.
//!
//! Each deviation is put in units of what it usually is, chance included; how these vary together was learned; and the
//! distance is Mahalanobis's ("On the generalised distance in statistics", 1936), with the learned correlation drawn towards
//! none (Ledoit and Wolf 2004), because it is learned from seconds that resemble each other.

use serde::{Deserialize, Serialize};

use crate::features::{FADING_SECONDS, FEATURES, Feature, Features};

/// What is learned of how deviations vary fades to 1/e in so many seconds with traffic: two days.
const FADING: f64 = 8.0 * FADING_SECONDS;
/// A deviation of this (6 %) is never unusual, however steady a service has been.
const LEAST: f64 = 0.06;
/// What is added to it while little was learned: traffic changes with the hour, which a service that is watched for minutes has
/// not shown.
const YOUNG: f64 = 0.35;
/// After so many seconds half of that is left: four hours.
const YOUNG_SECONDS: f64 = 4.0 * 3_600.0;
/// How far the learned correlation is drawn towards none.
const SHRINK: f64 = 0.2;
/// No feature speaks louder than this.
const LOUDEST: f64 = 30.0;

/// How the features of a service vary.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Composition {
    seconds: f64,
    mean: [f32; FEATURES],
    variance: [f32; FEATURES],
    chance: [f32; FEATURES],
    /// The correlation's lower triangle, row by row.
    together: Vec<f32>,
}

impl Default for Composition {
    fn default() -> Self {
        Self {
            seconds: 0.0,
            mean: [0.0; FEATURES],
            variance: [0.0; FEATURES],
            chance: [0.0; FEATURES],
            together: vec![0.0; FEATURES * (FEATURES - 1) / 2],
        }
    }
}

/// How far a moment is from the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// Mahalanobis's distance.
    pub distance: f64,
    /// Each feature's deviation in units of what it usually is.
    pub units: [f64; FEATURES],
    /// Each feature's part in the squared distance; they add up to it.
    pub parts: [f64; FEATURES],
}

impl Distance {
    /// A feature's deviation in units of what it usually is.
    pub fn of(&self, feature: Feature) -> f64 {
        self.units.get(feature as usize).copied().unwrap_or(0.0)
    }
}

impl Composition {
    fn units(&self, features: &Features) -> [f64; FEATURES] {
        let young = YOUNG / (1.0 + self.seconds / YOUNG_SECONDS);
        let mut units = [0.0; FEATURES];
        for (at, (unit, measured)) in units.iter_mut().zip(features).enumerate() {
            let of = |values: &[f32; FEATURES]| f64::from(values.get(at).copied().unwrap_or(0.0));
            let system = (of(&self.variance) - of(&self.chance)).max(0.0) + (LEAST + young).powi(2);
            let deviation = measured.deviation - of(&self.mean);
            *unit = (deviation / (system + measured.variance).sqrt()).clamp(-LOUDEST, LOUDEST);
            if measured.deviation == 0.0 && measured.variance == 0.0 {
                *unit = 0.0;
            }
        }
        for (feature, worse) in ONE_SIDED {
            if let Some(unit) = units.get_mut(feature as usize)
                && *unit * worse < 0.0
            {
                *unit = 0.0;
            }
        }
        units
    }

    /// How far these are from the usual.
    pub fn distance(&self, features: &Features) -> Distance {
        let units = self.units(features);
        let solved = self.solve(&units);
        let mut parts = [0.0; FEATURES];
        for ((part, unit), solved) in parts.iter_mut().zip(units).zip(solved) {
            *part = unit * solved;
        }
        Distance {
            distance: parts.iter().sum::<f64>().max(0.0).sqrt(),
            units,
            parts,
        }
    }

    /// Learns a second of normal traffic.
    pub fn learn(&mut self, features: &Features, distance: &Distance) {
        self.seconds += 1.0;
        let rate = (1.0 / FADING).max(1.0 / self.seconds) as f32;
        for (at, measured) in features.iter().enumerate() {
            if measured.deviation == 0.0 && measured.variance == 0.0 {
                continue;
            }
            let (Some(mean), Some(variance), Some(chance)) = (
                self.mean.get_mut(at),
                self.variance.get_mut(at),
                self.chance.get_mut(at),
            ) else {
                continue;
            };
            let off = measured.deviation as f32 - *mean;
            *mean += rate * off;
            *variance += rate * (off * off - *variance);
            *chance += rate * (measured.variance as f32 - *chance);
        }
        let mut cell = self.together.iter_mut();
        for (row, one) in distance.units.iter().enumerate() {
            for other in distance.units.iter().take(row) {
                if let Some(together) = cell.next() {
                    // One loud second is not how they vary.
                    let product = (one.clamp(-3.0, 3.0) * other.clamp(-3.0, 3.0)) as f32;
                    *together += rate * (product - *together);
                }
            }
        }
    }

    #[allow(
        clippy::needless_range_loop,
        reason = "rows and columns of a matrix are read best by their numbers"
    )]
    /// The inverse of the correlation, times the units: by Cholesky's decomposition.
    fn solve(&self, units: &[f64; FEATURES]) -> [f64; FEATURES] {
        let mut lower = [[0.0f64; FEATURES]; FEATURES];
        let mut cell = self.together.iter();
        let mut solved = *units;
        for row in 0..FEATURES {
            for column in 0..row {
                let together = cell.next().map_or(0.0, |cell| f64::from(*cell));
                let mut sum = (together * (1.0 - SHRINK)).clamp(-0.95, 0.95);
                for k in 0..column {
                    sum -= lower[row][k] * lower[column][k];
                }
                lower[row][column] = sum / lower[column][column];
            }
            let mut sum = 1.0;
            for k in 0..row {
                sum -= lower[row][k] * lower[row][k];
            }
            // What others explain wholly says nothing more.
            lower[row][row] = sum.max(0.05).sqrt();
            for k in 0..row {
                solved[row] -= lower[row][k] * solved[k];
            }
            solved[row] /= lower[row][row];
        }
        for row in (0..FEATURES).rev() {
            for k in row + 1..FEATURES {
                solved[row] -= lower[k][row] * solved[k];
            }
            solved[row] /= lower[row][row];
        }
        solved
    }

    /// Seconds learned.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.together.capacity() * size_of::<f32>()
    }
}

/// Features that are worse on one side only: handshakes that are completed, answers that are fast, networks that are known and
/// UDP that does not reflect are no sign of an attack.
const ONE_SIDED: [(Feature, f64); 6] = [
    (Feature::Completion, -1.0),
    (Feature::ResponseTime, 1.0),
    (Feature::NewSources, 1.0),
    (Feature::ReflectedShare, 1.0),
    (Feature::SizeDivergence, 1.0),
    (Feature::TtlDivergence, 1.0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Measured;

    fn features(of: impl Fn(usize) -> f64) -> Features {
        std::array::from_fn(|at| Measured {
            value: Some(0.0),
            expected: Some(0.0),
            deviation: of(at),
            variance: 0.01,
        })
    }

    /// Numbers of a normal distribution, near enough (Irwin and Hall), the same each time.
    fn noise() -> impl FnMut() -> f64 {
        let mut state = 7u64;
        move || {
            let mut sum = -6.0;
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                sum += (state >> 11) as f64 / (1u64 << 53) as f64;
            }
            sum
        }
    }

    fn learned() -> Composition {
        let (mut composition, mut noise) = (Composition::default(), noise());
        for _ in 0..40_000 {
            let common = noise();
            let values: [f64; FEATURES] = std::array::from_fn(|at| match at {
                0..=2 => 0.3 * (common + 0.3 * noise()),
                _ => 0.3 * noise(),
            });
            let features = features(|at| values[at]);
            let distance = composition.distance(&features);
            composition.learn(&features, &distance);
        }
        composition
    }

    #[test]
    fn what_goes_together_is_nearer_than_what_goes_apart() {
        let composition = learned();
        // SynShare and Closing usually rise together.
        let together = composition.distance(&features(|at| if at == 1 || at == 2 { 1.0 } else { 0.0 }));
        let apart = composition.distance(&features(|at| match at {
            1 => 1.0,
            2 => -1.0,
            _ => 0.0,
        }));
        assert!(apart.distance > 1.5 * together.distance, "{apart:?} {together:?}");
        let usual = composition.distance(&features(|_| 0.0));
        assert!(usual.distance < 1.0, "{usual:?}");
    }

    #[test]
    fn the_parts_add_up_and_the_loudest_has_the_most() {
        let composition = learned();
        let found = composition.distance(&features(|at| if at == 5 { 3.0 } else { 0.1 }));
        let sum: f64 = found.parts.iter().sum();
        assert!((sum - found.distance.powi(2)).abs() < 1e-6 * sum);
        assert!(found.parts[5] > 0.8 * sum, "{found:?}");
    }

    #[test]
    fn good_news_is_no_news() {
        let composition = learned();
        let good = composition.distance(&features(|at| match at {
            0 => 5.0,
            13 | 3 | 10 => -5.0,
            _ => 0.0,
        }));
        assert!(good.distance < 1.0, "{good:?}");
    }
}
