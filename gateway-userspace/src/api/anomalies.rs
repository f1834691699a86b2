//! What the controller says of departures from the usual.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The query of `GET /v1/anomalies`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnomaliesQuery {
    /// Only of this service (`default` for none).
    pub service: Option<String>,
    /// Also services where nothing is unusual, or too little is known; absent: no.
    pub all: Option<bool>,
    /// At most so many that are over, 0 to 1000; absent: 100.
    pub limit: Option<usize>,
}

/// `GET /v1/anomalies`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnomaliesAnswer {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// What is said of how many services.
    #[serde(flatten)]
    pub summary: AnomalySummary,
    /// What is said of each service: the anomalous ones, the highest score first, then, if asked for, the others by name.
    pub services: Vec<ServiceAnomaly>,
    /// What is over, the last first.
    pub ended: Vec<EndedAnomaly>,
}

/// How many services there is what to say of.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct AnomalySummary {
    /// Whether the policy wants departures looked for.
    pub enabled: bool,
    /// How many false alarms a service may give, as in the policy.
    pub sensitivity: String,
    /// Services under attack.
    pub attack: u64,
    /// Services with something unusual and little.
    pub stealth: u64,
    /// Services with much of the usual.
    pub crowd: u64,
    /// Services of which too little is known.
    pub learning: u64,
    /// Services where nothing is unusual.
    pub quiet: u64,
}

/// What is said of a service now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnomaly {
    /// The service; `default` for none.
    pub service: String,
    /// What is said.
    #[serde(flatten)]
    pub anomaly: Anomaly,
    /// How much of what is needed was learned, 0 to 1.
    pub learned: f64,
}

/// An anomaly that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedAnomaly {
    /// The service; `default` for none.
    pub service: String,
    /// What it was when its score was highest.
    #[serde(flatten)]
    pub anomaly: Anomaly,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why, where it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What is said of a service's traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// `quiet`, `crowd`, `attack`, `stealth` or `learning`.
    pub verdict: String,
    /// The kind of an attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The higher of the two scores.
    pub score: f64,
    /// How unusual the volume is: 1 is what happens as often as `sensitivity` says, more is rarer.
    pub volume_score: f64,
    /// How unusual the composition is, on the same scale.
    pub composition_score: f64,
    /// Since when it is said.
    pub since: Timestamp,
    /// For how long.
    pub duration_seconds: u64,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Packets a second that are usual at this time.
    pub expected_packets_per_second: f64,
    /// Packets a second that are not of the usual kind.
    pub foreign_packets_per_second: f64,
    /// The features that speak, the loudest first.
    pub features: Vec<FeatureSpeaking>,
    /// Who carries it, the heaviest first.
    pub carriers: Vec<AnomalyCarrier>,
}

/// A feature that speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpeaking {
    /// Its name.
    pub feature: String,
    /// What it is.
    pub value: f64,
    /// What it usually is.
    pub expected: f64,
    /// How much of the composition's score is its doing, 0 to 1.
    pub share: f64,
}

/// A source or a network that carries an anomaly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyCarrier {
    /// Who.
    pub prefix: IpNet,
    /// Packets a second, estimated.
    pub packets_per_second: f64,
    /// Of the packets beyond the usual, 0 to 1.
    pub share: f64,
}

/// `POST /v1/anomalies/accept`: what is now is normal; the anomaly ends and is learned.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnomalyAcceptRequest {
    /// The service; `default` for none.
    pub service: String,
}

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyAccepted {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// What ended by it.
    pub ended: EndedAnomaly,
}

impl Anomaly {
    /// The verdict as people read it: `attack (syn_flood)`.
    pub fn title(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{} ({kind})", self.verdict),
            None => self.verdict.clone(),
        }
    }
}
