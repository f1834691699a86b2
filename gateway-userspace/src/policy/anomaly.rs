//! Reading `[anomaly]`: whether departures from the usual are looked for, and how many false alarms are put up with.

use super::{
    bounds,
    model::{Anomaly, Period, Sensitivity, Webhook},
    walk::{Item, Section, Sink},
    webhook,
};

const KEYS: [&str; 3] = ["enabled", "sensitivity", "webhook"];

const PERIODS: [(&str, Period); 4] = [
    ("hour", Period::Hour),
    ("day", Period::Day),
    ("week", Period::Week),
    ("month", Period::Month),
];

/// Reads `[anomaly]`, or its defaults, and who is told.
pub(super) fn anomaly(root: &Section<'_>, sink: &mut Sink<'_>) -> (Anomaly, Option<Webhook>) {
    let mut anomaly = Anomaly::default();
    let Some(section) = root.section("anomaly", sink) else {
        return (anomaly, None);
    };
    section.check_keys(&KEYS, &[], sink);
    if let Some(item) = section.get("enabled") {
        anomaly.enabled = item.boolean(sink).unwrap_or(anomaly.enabled);
    }
    if let Some(item) = section.get("sensitivity") {
        anomaly.sensitivity = sensitivity(&item, sink).unwrap_or(anomaly.sensitivity);
        if !anomaly.enabled {
            sink.warn(&item, "has no effect with enabled = false");
        }
    }
    let webhook = webhook::webhook(&section, sink);
    (anomaly, webhook)
}

/// `"N/period"`.
fn sensitivity(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<Sensitivity> {
    let (least, most) = (bounds::FALSE_ALARMS.start(), bounds::FALSE_ALARMS.end());
    let expected = format!(
        "how many false alarms a service may give: {least} to {most} per hour, day, week or month, such as \"1/week\""
    );
    let text = item.string(sink, &expected)?;
    let read = text.split_once('/').and_then(|(count, period)| {
        let count = count.trim().parse().ok()?;
        let period = period.trim();
        let (_, period) = PERIODS.iter().find(|(word, _)| *word == period)?;
        bounds::FALSE_ALARMS.contains(&count).then_some(Sensitivity {
            count,
            period: *period,
        })
    });
    if read.is_none() {
        sink.bad(item, format!("expected {expected}"));
    }
    read
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::parse;

    fn read(section: &str) -> Result<Anomaly, String> {
        let text = format!("version = 1\n{section}\n");
        parse(&text, Path::new("p.toml"))
            .map(|parsed| parsed.policy.anomaly)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn keys_and_their_defaults() {
        let standard = read("").unwrap();
        assert!(standard.enabled);
        assert_eq!(standard.sensitivity.to_string(), "1/week");
        assert!((standard.sensitivity.per_second() * 604_800.0 - 1.0).abs() < 1e-12);
        assert_eq!(read("[anomaly]"), Ok(standard));
        assert!(!read("[anomaly]\nenabled = false").unwrap().enabled);
        for (text, a_day) in [
            ("2/hour", 48.0),
            ("1/day", 1.0),
            ("7/week", 1.0),
            ("30/month", 1.0),
        ] {
            let sensitivity = read(&format!("[anomaly]\nsensitivity = \"{text}\""))
                .unwrap()
                .sensitivity;
            assert_eq!(sensitivity.to_string(), text);
            assert!(
                (sensitivity.per_second() * 86_400.0 - a_day).abs() < 1e-9,
                "{text}: {sensitivity:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_an_error_at_its_place() {
        for (section, expected) in [
            ("sensitivity = 1", "p.toml:3:15: anomaly.sensitivity"),
            (
                "sensitivity = \"0/week\"",
                "1 to 1000 per hour, day, week or month",
            ),
            ("sensitivity = \"1001/week\"", "1 to 1000 per hour"),
            ("sensitivity = \"1/fortnight\"", "\"1/week\""),
            ("sensitivity = \"week\"", "\"1/week\""),
            ("sensitivity = \"0.5/week\"", "\"1/week\""),
            ("enabled = \"yes\"", "p.toml:3:11: anomaly.enabled"),
            ("sensitive = true", "did you mean sensitivity?"),
        ] {
            let error = read(&format!("[anomaly]\n{section}")).unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let warnings = |text: &str| -> Vec<String> {
            let parsed = parse(text, Path::new("p.toml")).unwrap();
            parsed.warnings.iter().map(ToString::to_string).collect()
        };
        let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\n";
        let off = warnings("version = 1\n[anomaly]\nenabled = false\nsensitivity = \"1/day\"\n");
        assert!(off[0].contains("anomaly.sensitivity"), "{off:?}");
        let blind = warnings(&format!(
            "version = 1\n{service}profile = false\nanomaly = true\n"
        ));
        assert!(blind[0].contains("profile = false"), "{blind:?}");
        assert!(warnings(&format!("version = 1\n{service}anomaly = false\n")).is_empty());
    }
}
