//! The detector of one service.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{
    features::Feature,
    normal::Normal,
    observe::Observation,
    verdict::{Change, Finding},
};

/// What the operator says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// False alarms a second that are put up with: `"1/week"` is 1 / 604,800.
    pub sensitivity: f64,
    /// Source ports that the service names, which are therefore no sign of reflection.
    pub source_ports: Vec<RangeInclusive<u16>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sensitivity: 1.0 / (7.0 * 86_400.0),
            source_ports: Vec::new(),
        }
    }
}

/// The detector of one service. What is saved of it (serde) is what it has learned and what it finds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Detector {
    #[serde(skip)]
    settings: Settings,
    #[serde(skip)]
    finding: Finding,
    normal: Normal,
}

impl Detector {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// From now on these settings hold; what was learned is kept.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Looks at a second. `at`: its end, in seconds since 1970. To be called every second, also when nothing came.
    pub fn tick(&mut self, at: f64, _observation: &Observation) -> Option<Change> {
        self.finding.at = at;
        None
    }

    /// Looks at a tenth of a second, for floods that need no baseline. Learns nothing.
    pub fn glance(&mut self, _at: f64, _observation: &Observation) -> Option<Change> {
        None
    }

    /// What is found.
    pub fn finding(&self) -> &Finding {
        &self.finding
    }

    /// Every feature: what it is, and what it usually is; nothing where it cannot be told.
    pub fn features(&self) -> impl Iterator<Item = (Feature, Option<f64>, Option<f64>)> {
        Feature::ALL.into_iter().map(|feature| (feature, None, None))
    }

    /// What is remembered of normal sources.
    pub fn normal(&self) -> &Normal {
        &self.normal
    }

    /// The operator says that what is now is normal: the anomaly ends and is learned.
    pub fn accept(&mut self, _at: f64) -> Option<Change> {
        None
    }
}
