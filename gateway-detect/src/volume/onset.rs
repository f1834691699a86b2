//! When something begins, for recorded series: a score from 0 to 1 for each row.

use super::{Scored, Volume};

/// How fast what was said is forgotten, in seconds.
const MEMORY: f64 = 12.0 * 3600.0;
/// The surprise that scores a half: a row in a thousand.
const HALF: f64 = 3.0;

/// Makes scores of exceedances: `s / (s + 3)` with `s = -log10(exceedance)`, so that a row in a thousand scores 0.5 and one in a
/// million 0.67; and 0 where the hours before were more surprising, for an anomaly that lasts is said once. What was said
/// fades away over half a day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Onset {
    said: f64,
    at: f64,
}

impl Default for Onset {
    fn default() -> Self {
        Self {
            said: 0.0,
            at: f64::NAN,
        }
    }
}

impl Onset {
    /// The score of a row.
    pub fn score(&mut self, at: f64, exceedance: f64) -> f64 {
        let surprise = 0.0 - exceedance.clamp(f64::MIN_POSITIVE, 1.0).log10();
        let passed = at - self.at;
        if passed.is_finite() {
            self.said *= (-passed.max(0.0) / MEMORY).exp();
        }
        self.at = at;
        if surprise.is_nan() || surprise < self.said {
            return 0.0;
        }
        self.said = surprise;
        surprise / (surprise + HALF)
    }
}

/// The volume axis over a recorded series: each value is scored by what came before it, and then learned, anomaly or not, for
/// nobody is there to say when one ends.
#[derive(Clone, Debug)]
pub struct Recorded {
    volume: Volume,
    onset: Onset,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            // A series may be anything: nothing is known to be too little to matter.
            volume: Volume::new(0.0),
            onset: Onset::default(),
        }
    }
}

impl Recorded {
    /// Looks at the next value: what the axis says of it, and its score from 0 to 1.
    pub fn look(&mut self, at: f64, value: f64) -> (Scored, f64) {
        let scored = self.volume.score(at, value);
        self.volume.learn(at, value);
        (scored, self.onset.score(at, scored.exceedance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarer_scores_higher_and_nothing_scores_one() {
        let score = |exceedance| Onset::default().score(0.0, exceedance);
        assert!((score(1e-3) - 0.5).abs() < 1e-12);
        assert!(score(1.0).abs() < 1e-12);
        assert!(score(1e-4) > score(1e-3) && score(0.0) < 1.0);
        assert!((0.0..1.0).contains(&score(f64::NAN)));
    }

    #[test]
    fn what_lasts_is_said_once() {
        let mut onset = Onset::default();
        assert!(onset.score(0.0, 1e-9) > 0.7);
        assert!(onset.score(300.0, 1e-8) <= 0.0);
        assert!(onset.score(600.0, 1e-10) > 0.7, "it has become worse");
        assert!(onset.score(86_400.0, 1e-4) > 0.5, "the day after");
    }
}
