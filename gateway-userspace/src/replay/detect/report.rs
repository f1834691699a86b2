//! What the detectors said of a capture, as it is shown and as JSON.

use std::collections::BTreeMap;

use gateway_detect::{Carrier, Finding, Speaking, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use super::moment;

/// Changes of verdicts that are kept one by one.
pub(super) const MOST_CHANGES: usize = 10_000;

/// Another verdict is said of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// When.
    pub at: Timestamp,
    /// The same in seconds after the capture's first packet.
    pub offset_seconds: f64,
    /// The service; `default` for none.
    pub service: String,
    /// What was said before.
    pub before: &'static str,
    /// The kind of attack that was said before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind_before: Option<&'static str>,
    /// How long that was said.
    pub lasted_seconds: f64,
    /// What is said now.
    pub verdict: &'static str,
    /// The kind of attack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Since when it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Seconds after the service's first packet; nothing before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_first_seconds: Option<f64>,
    /// How unusual the volume is; from 1 on it is rarer than `sensitivity`.
    pub volume_score: f64,
    /// How unusual the composition is, on the same scale.
    pub composition_score: f64,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Packets a second that are usual at this time.
    pub expected_packets_per_second: f64,
    /// Packets a second that are not of the usual kind.
    pub foreign_packets_per_second: f64,
    /// How much of what is needed was learned, 0 to 1.
    pub learned: f64,
    /// The features that speak, the loudest first.
    pub features: Vec<Speaking>,
    /// Who carries it, the heaviest first.
    pub carriers: Vec<Carrier>,
}

/// A feature at the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FeatureValue {
    /// What it is; nothing where it cannot be told.
    pub value: Option<f64>,
    /// What it usually is.
    pub expected: Option<f64>,
}

/// What was said of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceDetected {
    /// The service; `default` for none.
    pub service: String,
    /// The verdict at the end.
    pub verdict: &'static str,
    /// The kind of attack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Seconds by verdict.
    pub seconds: BTreeMap<&'static str, f64>,
    /// Seconds of `attack` by kind.
    pub attack_seconds: BTreeMap<&'static str, f64>,
    /// The highest score of the volume.
    pub highest_volume_score: f64,
    /// The highest score of the composition.
    pub highest_composition_score: f64,
    /// How much of what is needed was learned at the end, 0 to 1.
    pub learned: f64,
    /// The features at the end.
    pub features: BTreeMap<&'static str, FeatureValue>,
}

/// What was learned before, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LearnedFrom {
    /// The captures, in the order in which they were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<String>,
    /// The saved state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// By service.
    pub services: BTreeMap<String, LearnedService>,
}

/// What was learned of a service before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LearnedService {
    /// Of what is needed, 0 to 1.
    pub learned: f64,
    /// The seconds that were looked at, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Seconds that were held for an anomaly, from which nothing is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anomalous_seconds: Option<f64>,
}

impl LearnedFrom {
    pub(super) fn add(&mut self, service: &str, learned: f64, outcome: &Outcome) {
        let seconds = |anomalous: bool| -> f64 {
            let of = outcome.seconds.iter();
            of.filter(|(verdict, _)| !anomalous || verdict.anomalous())
                .map(|(_, seconds)| seconds)
                .sum()
        };
        let service = service.to_owned();
        self.services.insert(
            service,
            LearnedService {
                learned,
                seconds: Some(seconds(false)),
                anomalous_seconds: Some(seconds(true)),
            },
        );
    }
}

/// What the detectors said of a capture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detected {
    /// They were shown every packet, not samples.
    pub every_packet: bool,
    /// Packets that they were shown one by one.
    pub sampled: u64,
    /// What they knew before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedFrom>,
    /// How often the capture paused for so long that they were not told of it.
    pub pauses: u64,
    /// The changes, in their order.
    pub changes: Vec<Changed>,
    /// Changes beyond those.
    pub other_changes: u64,
    /// By service.
    pub services: Vec<ServiceDetected>,
}

/// Moments of a capture, in nanoseconds since 1970.
#[allow(
    clippy::struct_field_names,
    reason = "a time's name ends in its unit, as everywhere"
)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When it began.
    pub(super) began_ns: u64,
    /// When the service's first packet came.
    pub(super) first_ns: Option<u64>,
    /// Now.
    pub(super) at_ns: u64,
}

/// What was said of a service so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    seconds: Vec<(Verdict, f64)>,
    verdict: Verdict,
    /// Since when this is said, in nanoseconds of the capture; nothing: since its beginning.
    said_ns: Option<u64>,
    volume: f64,
    composition: f64,
}

impl Outcome {
    /// Counts a second, or what there was of it.
    pub(super) fn count(&mut self, finding: &Finding, seconds: f64) {
        match self.seconds.iter_mut().find(|(of, _)| *of == finding.verdict) {
            Some((_, sum)) => *sum += seconds,
            None => self.seconds.push((finding.verdict, seconds)),
        }
    }

    /// What has changed, if anything has.
    pub(super) fn change(
        &mut self,
        service: &str,
        finding: &Finding,
        times: Times,
        shift: f64,
    ) -> Option<Changed> {
        let Times {
            began_ns,
            first_ns,
            at_ns,
        } = times;
        self.volume = self.volume.max(finding.volume_score);
        self.composition = self.composition.max(finding.composition_score);
        if finding.verdict == self.verdict {
            return None;
        }
        let before = std::mem::replace(&mut self.verdict, finding.verdict);
        let said_ns = self.said_ns.replace(at_ns).unwrap_or(began_ns);
        let seconds = |ns: u64| ns as f64 / 1e9;
        Some(Changed {
            at: Timestamp::from_nanosecond(i128::from(at_ns)).unwrap_or(Timestamp::UNIX_EPOCH),
            offset_seconds: seconds(at_ns.saturating_sub(began_ns)),
            service: service.to_owned(),
            before: before.name(),
            kind_before: before.kind().map(gateway_detect::Kind::name),
            lasted_seconds: seconds(at_ns.saturating_sub(said_ns)),
            verdict: finding.verdict.name(),
            kind: finding.verdict.kind().map(gateway_detect::Kind::name),
            since: moment(finding.since, shift),
            after_first_seconds: first_ns.map(|first_ns| seconds(at_ns.saturating_sub(first_ns))),
            volume_score: finding.volume_score,
            composition_score: finding.composition_score,
            packets_per_second: finding.packets_per_second,
            expected_packets_per_second: finding.expected_packets_per_second,
            foreign_packets_per_second: finding.foreign_packets_per_second,
            learned: finding.learned,
            features: finding.features.clone(),
            carriers: finding.carriers.clone(),
        })
    }

    /// The whole of it.
    pub(super) fn service(
        &self,
        service: &str,
        finding: &Finding,
        features: Vec<(&'static str, Option<f64>, Option<f64>)>,
    ) -> ServiceDetected {
        let (mut seconds, mut attack_seconds) = (BTreeMap::new(), BTreeMap::new());
        for (verdict, sum) in &self.seconds {
            *seconds.entry(verdict.name()).or_default() += sum;
            if let Some(kind) = verdict.kind() {
                *attack_seconds.entry(kind.name()).or_default() += sum;
            }
        }
        ServiceDetected {
            service: service.to_owned(),
            verdict: finding.verdict.name(),
            kind: finding.verdict.kind().map(gateway_detect::Kind::name),
            seconds,
            attack_seconds,
            highest_volume_score: self.volume,
            highest_composition_score: self.composition,
            learned: finding.learned,
            features: features
                .into_iter()
                .map(|(name, value, expected)| (name, FeatureValue { value, expected }))
                .collect(),
        }
    }
}
