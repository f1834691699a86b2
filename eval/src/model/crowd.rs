//! Crowds: many more customers than usual, all of them customers.

/// A crowd.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    pub(crate) begins: f64,
    /// How many times the usual, one value a step.
    pub(crate) curve: Curve,
    /// How many of its packets come from networks that were never met. Jung, Krishnamurthy and Rabinovich (Flash Crowds
    /// and Denial of Service Attacks, WWW 2002) found that most networks of a crowd had been seen before.
    pub(crate) fresh: f64,
}

/// How a crowd comes and goes.
#[derive(Clone, Debug)]
pub(crate) enum Curve {
    /// Rises within so many seconds to so many times the usual, holds, and falls by half each so many seconds.
    Rise {
        factor: f64,
        rise: f64,
        hold: f64,
        half: f64,
    },
    /// A recorded one: factors at steps of so many seconds.
    Recorded { step: f64, factors: Vec<f64> },
}

impl Crowd {
    /// How many times the usual; nothing when it is over.
    pub(crate) fn factor(&self, at: f64) -> Option<f64> {
        let since = at - self.begins;
        if since < 0.0 {
            return Some(1.0);
        }
        match &self.curve {
            Curve::Rise {
                factor,
                rise,
                hold,
                half,
            } => {
                let more = factor - 1.0;
                if since < *rise {
                    // Word gets round: slowly, then at once.
                    let share = since / rise;
                    return Some(1.0 + more * share * share * (3.0 - 2.0 * share));
                }
                let falling = (since - rise - hold).max(0.0);
                let left = more * (-falling / half * std::f64::consts::LN_2).exp();
                (left > 0.02).then_some(1.0 + left)
            }
            Curve::Recorded { step, factors } => {
                let (at, share) = ((since / step) as usize, (since / step).fract());
                let (here, next) = (factors.get(at)?, factors.get(at + 1)?);
                Some(here + (next - here) * share)
            }
        }
    }
}
