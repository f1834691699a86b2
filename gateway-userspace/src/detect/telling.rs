//! What detectors find, in the words of the API, of events and of labels.

use gateway_detect::{Finding, Verdict};
use jiff::Timestamp;

use crate::{
    api::anomalies::{Anomaly, AnomalyCarrier, FeatureSpeaking},
    events::{Entry, Kind},
};

/// Features that are told of one anomaly.
const FEATURES: usize = 8;
/// Carriers that are told of one anomaly.
const CARRIERS: usize = 20;
/// Of these, how many an event's sentence has.
const IN_SENTENCE: usize = 3;

/// A time in seconds since 1970; the first moment there is for what is before all times.
pub fn time(seconds: f64) -> Timestamp {
    Timestamp::from_millisecond((seconds * 1e3).round() as i64).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A moment in seconds since 1970.
pub(super) fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

/// The label of what an operator is told of: `crowd`, `stealth`, or the kind of attack.
pub const fn label(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Crowd => Some("crowd"),
        Verdict::Stealth => Some("stealth"),
        Verdict::Attack(kind) => Some(kind.name()),
        Verdict::Quiet | Verdict::Learning => None,
    }
}

/// A finding as it is at a time; what was never said otherwise is said since `first`.
pub(super) fn anomaly(finding: &Finding, at: f64, first: f64) -> Anomaly {
    let since = if finding.since > 0.0 { finding.since } else { first };
    let features = finding.features.iter().take(FEATURES);
    let carriers = finding.carriers.iter().take(CARRIERS);
    let (volume, composition) = (finite(finding.volume_score), finite(finding.composition_score));
    Anomaly {
        verdict: finding.verdict.name().to_owned(),
        kind: finding.verdict.kind().map(|kind| kind.name().to_owned()),
        score: volume.max(composition),
        volume_score: volume,
        composition_score: composition,
        since: time(since),
        duration_seconds: duration(since, at),
        packets_per_second: finite(finding.packets_per_second),
        expected_packets_per_second: finite(finding.expected_packets_per_second),
        foreign_packets_per_second: finite(finding.foreign_packets_per_second),
        features: features
            .map(|speaking| FeatureSpeaking {
                feature: speaking.feature.to_owned(),
                value: finite(speaking.value),
                expected: finite(speaking.expected),
                share: finite(speaking.share),
            })
            .collect(),
        carriers: carriers
            .map(|carrier| AnomalyCarrier {
                prefix: carrier.prefix,
                packets_per_second: finite(carrier.packets_per_second),
                share: finite(carrier.share),
            })
            .collect(),
    }
}

/// Whole seconds from one time to another.
pub(super) fn duration(since: f64, at: f64) -> u64 {
    // A clock that was set back, and what has never begun, lasted no time.
    (at - since).round().max(0.0) as u64
}

/// JSON has no word for what is not a number.
pub(super) fn finite(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        // And none for less than nothing by nothing.
        value.clamp(-1e18, 1e18) + 0.0
    }
}

/// An anomaly began, or is of another kind now.
pub(super) fn began(service: &str, anomaly: &Anomaly, before: Option<&Anomaly>) -> Entry {
    let volume = format!(
        "{:.0} packets/s, {:.0} are usual",
        anomaly.packets_per_second, anomaly.expected_packets_per_second
    );
    let turned = before.map_or_else(String::new, |before| format!(" (before: {})", before.title()));
    let what = format!("{service}: {}{turned}, {volume}", anomaly.title());
    entry(Kind::AnomalyBegan, what, service, anomaly)
}

/// It is over.
pub(super) fn ended(service: &str, anomaly: &Anomaly, why: Option<String>) -> Entry {
    let lasted = anomaly.duration_seconds;
    let what = format!("{service}: {} is over after {lasted} s", anomaly.title());
    let mut entry = entry(Kind::AnomalyEnded, what, service, anomaly);
    if why.is_some() {
        entry.why = why;
    }
    entry
}

fn entry(kind: Kind, what: String, service: &str, anomaly: &Anomaly) -> Entry {
    let mut entry = Entry::new(kind, what);
    let spoken = anomaly.features.iter().take(IN_SENTENCE).map(|speaking| {
        let FeatureSpeaking {
            feature,
            value,
            expected,
            ..
        } = speaking;
        format!("{feature} {} (usually {})", figure(*value), figure(*expected))
    });
    let spoken: Vec<String> = spoken.collect();
    entry.why = (!spoken.is_empty()).then(|| spoken.join(", "));
    entry.prefix = anomaly.carriers.first().map(|carrier| carrier.prefix);
    entry.service = Some(service.to_owned());
    entry.anomaly = Some(Box::new(anomaly.clone()));
    entry
}

/// A number in three significant digits, whatever its size.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 0.0005 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use gateway_detect::{Carrier, Kind as Attack, Speaking};

    use super::*;

    fn flood() -> Finding {
        Finding {
            verdict: Verdict::Attack(Attack::SynFlood),
            since: 1_800_000_000.25,
            at: 1_800_000_007.25,
            volume_score: f64::INFINITY,
            composition_score: 12.5,
            packets_per_second: 120_000.4,
            expected_packets_per_second: 3_000.0,
            foreign_packets_per_second: f64::NAN,
            features: vec![Speaking {
                feature: "completion",
                value: 0.0213,
                expected: 0.97,
                share: 0.8,
            }],
            carriers: vec![Carrier {
                prefix: "198.51.100.0/24".parse().unwrap(),
                packets_per_second: 1_000.0,
                share: 0.01,
            }],
            ..Finding::default()
        }
    }

    #[test]
    fn a_finding_is_told_in_numbers_that_json_has() {
        let told = anomaly(&flood(), 1_800_000_010.0, 0.0);
        assert_eq!(
            (told.verdict.as_str(), told.kind.as_deref()),
            ("attack", Some("syn_flood"))
        );
        assert_eq!(told.title(), "attack (syn_flood)");
        assert_eq!(told.duration_seconds, 10);
        assert_eq!(told.since.as_millisecond(), 1_800_000_000_250);
        assert!(told.score >= told.composition_score && told.score.is_finite());
        assert!(told.foreign_packets_per_second.abs() < f64::EPSILON);
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Anomaly>(&text).unwrap(), told);
    }

    #[test]
    fn an_event_says_what_how_much_and_why() {
        let told = anomaly(&flood(), 1_800_000_010.0, 0.0);
        let began = began("shop", &told, None);
        assert_eq!(
            began.what,
            "shop: attack (syn_flood), 120000 packets/s, 3000 are usual"
        );
        assert_eq!(began.why.as_deref(), Some("completion 0.021 (usually 0.970)"));
        assert_eq!(began.prefix.unwrap().to_string(), "198.51.100.0/24");
        let over = ended("shop", &told, Some("accepted".into()));
        assert_eq!(over.what, "shop: attack (syn_flood) is over after 10 s");
        assert_eq!(over.why.as_deref(), Some("accepted"));
        let crowd = anomaly(
            &Finding {
                verdict: Verdict::Crowd,
                ..Finding::default()
            },
            7.0,
            5.0,
        );
        assert_eq!(crowd.duration_seconds, 2);
        let turned = super::began("shop", &told, Some(&crowd));
        assert!(turned.what.contains("(before: crowd)"), "{}", turned.what);
    }

    #[test]
    fn figures_are_short_and_times_go_there_and_back() {
        for (value, text) in [
            (0.0, "0"),
            (1_234.5, "1234"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (-0.5, "-0.500"),
            (0.000_012, "1.2e-5"),
        ] {
            assert_eq!(figure(value), text);
        }
        assert!((seconds(time(1_800_000_000.125)) - 1_800_000_000.125).abs() < 1e-6);
        assert_eq!(time(f64::NAN), Timestamp::UNIX_EPOCH);
        assert_eq!(duration(10.0, 5.0), 0);
    }
}
