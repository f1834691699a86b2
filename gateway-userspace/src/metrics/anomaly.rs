//! What departs from the usual, as series.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::proto::{family, real};

/// A service's scores, or those of all services without series of their own together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// The service, or [`super::OTHER`].
    pub service: String,
    /// How unusual the volume is; of several services, of the most unusual.
    pub volume: f64,
    /// How unusual the composition is; of several services, of the most unusual.
    pub composition: f64,
    /// Packets a second that are usual; of several services, the sum. Nothing while nobody can tell.
    pub baseline: Option<f64>,
    /// What each feature is, where it can be told; of several services, nothing.
    pub features: Vec<(&'static str, f64)>,
}

/// A kind of anomaly that lasts, or that did until lately.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Active {
    /// The service, or [`super::OTHER`].
    pub service: String,
    /// `crowd`, `stealth`, or the kind of attack.
    pub kind: &'static str,
    /// Whether it lasts.
    pub lasts: bool,
}

/// What departs from the usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Anomalies {
    /// The scores.
    pub scored: Vec<Scored>,
    /// The anomalies.
    pub active: Vec<Active>,
}

/// The families.
pub(super) fn families(anomalies: &Anomalies) -> Vec<MetricFamily> {
    let each = |metrics: &dyn Fn(&Scored) -> Vec<Metric>| anomalies.scored.iter().flat_map(metrics).collect();
    let active = anomalies.active.iter().map(|active| {
        let labels = [("service", active.service.as_str()), ("kind", active.kind)];
        real(f64::from(u8::from(active.lasts)), &labels)
    });
    vec![
        family(
            "weir_anomaly_score",
            "How unusual a service's traffic is: 1 is what happens as often as [anomaly] sensitivity says, more is rarer.",
            MetricType::GAUGE,
            each(&|scored| {
                let axes = [("volume", scored.volume), ("composition", scored.composition)];
                axes.map(|(axis, score)| real(score, &[("service", &scored.service), ("axis", axis)]))
                    .into()
            }),
        ),
        family(
            "weir_anomaly_active",
            "1 while an anomaly of this kind lasts, 0 for ten minutes after.",
            MetricType::GAUGE,
            active.collect(),
        ),
        family(
            "weir_feature",
            "What a service's traffic is made of, in the last second.",
            MetricType::GAUGE,
            each(&|scored| {
                let features = scored.features.iter();
                features
                    .map(|(feature, value)| {
                        real(*value, &[("service", &scored.service), ("feature", feature)])
                    })
                    .collect()
            }),
        ),
        family(
            "weir_baseline_packets",
            "Packets a second that are usual at this time.",
            MetricType::GAUGE,
            each(&|scored| {
                let baseline = scored.baseline.iter();
                baseline
                    .map(|packets| real(*packets, &[("service", &scored.service)]))
                    .collect()
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Observed, render};
    use super::*;

    #[test]
    fn names_and_labels_are_the_designs() {
        let anomalies = Anomalies {
            scored: vec![
                Scored {
                    service: "shop".into(),
                    volume: 0.5,
                    composition: 12.0,
                    baseline: Some(3_000.0),
                    features: vec![("syn_share", 0.25)],
                },
                Scored {
                    service: "other".into(),
                    ..Scored::default()
                },
            ],
            active: vec![
                Active {
                    service: "shop".into(),
                    kind: "syn_flood",
                    lasts: true,
                },
                Active {
                    service: "shop".into(),
                    kind: "crowd",
                    lasts: false,
                },
            ],
        };
        let text = render(&Observed {
            anomalies,
            ..Observed::default()
        })
        .unwrap();
        for line in [
            r#"weir_anomaly_score{service="shop",axis="volume"} 0.5"#,
            r#"weir_anomaly_score{service="shop",axis="composition"} 12"#,
            r#"weir_anomaly_score{service="other",axis="volume"} 0"#,
            r#"weir_anomaly_active{service="shop",kind="syn_flood"} 1"#,
            r#"weir_anomaly_active{service="shop",kind="crowd"} 0"#,
            r#"weir_feature{service="shop",feature="syn_share"} 0.25"#,
            r#"weir_baseline_packets{service="shop"} 3000"#,
            "# TYPE weir_anomaly_score gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(
            !text.contains(r#"weir_baseline_packets{service="other"}"#),
            "{text}"
        );
    }
}
