//! The last sampled packets, and what pairs of them have in common.
//!
//! The chance that two packets have the same source is Simpson's index ("Measurement of diversity", 1949): it does not depend on
//! how many packets there are, nor on which of them were sampled.

use std::collections::VecDeque;

use crate::observe::Sighting;

/// Samples of one second that are enough by themselves.
const ENOUGH: usize = 48;
/// Samples that are kept.
const MOST: usize = 1_024;
/// Seconds that samples are kept to help out where there are few.
const SECONDS: f64 = 10.0;

/// The last samples.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    sightings: VecDeque<(f64, Sighting)>,
}

/// Pairs of samples that have something in common.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Pairs that agree.
    pub alike: f64,
    /// All pairs.
    pub all: f64,
}

impl Pool {
    /// Takes in the samples of a second (or of a part of one).
    pub fn add(&mut self, at: f64, sightings: &[Sighting]) {
        while self
            .sightings
            .front()
            .is_some_and(|(then, _)| at - then > SECONDS || at < *then)
        {
            self.sightings.pop_front();
        }
        // Of more than fit, each as likely as the other: they come in the order of time.
        let step = sightings.len().div_ceil(MOST).max(1);
        self.sightings
            .extend(sightings.iter().step_by(step).map(|sighting| (at, *sighting)));
        while self.sightings.len() > MOST {
            self.sightings.pop_front();
        }
    }

    /// Samples to judge the present by: those of the last second, or, where these are few, of up to ten.
    pub fn recent(&self) -> impl Iterator<Item = &Sighting> + Clone {
        let last = self.sightings.back().map_or(0.0, |(at, _)| *at);
        let now = self
            .sightings
            .iter()
            .rev()
            .take_while(|(at, _)| last - at < 0.95)
            .count();
        self.sightings
            .iter()
            .rev()
            .take(now.max(ENOUGH))
            .map(|(_, sighting)| sighting)
    }

    /// Nothing was seen from now on.
    pub fn clear(&mut self) {
        self.sightings.clear();
    }
}

/// The pairs among samples that agree in what `of` takes of them; those of which it takes nothing are left out.
pub fn pairs<'a, T: Ord>(
    sightings: impl Iterator<Item = &'a Sighting>,
    of: impl Fn(&Sighting) -> Option<T>,
) -> Pairs {
    let mut seen: Vec<T> = sightings.filter_map(of).collect();
    seen.sort_unstable();
    let alike = seen
        .chunk_by(|one, other| one == other)
        .map(|same| same.len() as f64 * (same.len() as f64 - 1.0) / 2.0)
        .sum();
    let all = seen.len() as f64;
    Pairs {
        alike,
        all: (all * (all - 1.0) / 2.0).max(0.0),
    }
}
