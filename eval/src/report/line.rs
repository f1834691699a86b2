//! Trials that are alike, in one line.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{demands::rightly, run::injected::Trial};

/// Delays and shares of the trials that are alike.
pub(super) struct Line {
    pub(super) trials: usize,
    pub(super) any: usize,
    pub(super) right: usize,
    pub(super) last: usize,
    pub(super) median: Option<f64>,
    pub(super) most: Option<f64>,
    pub(super) over: Option<f64>,
}

impl Line {
    pub(super) fn of(trials: &[&Trial]) -> Self {
        let mut delays: Vec<f64> = trials.iter().filter_map(|trial| trial.right).collect();
        delays.sort_by(f64::total_cmp);
        let mut over: Vec<f64> = trials
            .iter()
            .filter(|trial| trial.any.is_some())
            .map(|trial| trial.over.unwrap_or(f64::INFINITY))
            .collect();
        over.sort_by(f64::total_cmp);
        Self {
            trials: trials.len(),
            any: trials.iter().filter(|trial| trial.any.is_some()).count(),
            right: delays.len(),
            last: trials.iter().filter(|trial| rightly(trial)).count(),
            median: delays.get(delays.len() / 2).copied(),
            most: delays.last().copied(),
            over: over.get(over.len() / 2).copied(),
        }
    }

    pub(super) fn cells(&self) -> String {
        let percent = |of: usize| 100.0 * of as f64 / self.trials.max(1) as f64;
        let seconds = |value: Option<f64>| match value {
            Some(value) if value.is_finite() => format!("{value:.1}"),
            Some(_) => "never".to_owned(),
            None => "-".to_owned(),
        };
        format!(
            "{:>6} {:>6.0}% {:>6.0}% {:>6.0}% {:>8} {:>8} {:>8}",
            self.trials,
            percent(self.any),
            percent(self.right),
            percent(self.last),
            seconds(self.median),
            seconds(self.most),
            seconds(self.over)
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "trials": self.trials,
            "attack": self.any,
            "right_kind": self.right,
            "right_kind_at_end": self.last,
            "delay_median_seconds": self.median,
            "delay_max_seconds": self.most,
            "over_median_seconds": self.over.filter(|over| over.is_finite()),
        })
    }
}

/// Trials in groups, by a key.
pub(super) fn groups<'a, K: Ord>(
    trials: impl Iterator<Item = &'a Trial>,
    key: impl Fn(&Trial) -> K,
) -> BTreeMap<K, Vec<&'a Trial>> {
    let mut groups: BTreeMap<K, Vec<&Trial>> = BTreeMap::new();
    for trial in trials {
        groups.entry(key(trial)).or_default().push(trial);
    }
    groups
}

/// Strengths as keys.
pub(super) fn strength(trial: &Trial) -> u64 {
    (trial.strength * 100.0).round() as u64
}
