//! Reading `[service.on_attack]`: what Weir may do by itself about an attack on a service.

use super::{
    bounds,
    limits::{is_empty, share},
    model::{AttackAction, Class, Limits, OnAttack, PerNetwork, PerSource, Total},
    units,
    walk::{Item, Section, Sink},
};

const KEYS: [&str; 5] = ["action", "max_impact", "max_bans", "for", "least"];
const ACTIONS: [(&str, AttackAction); 3] = [
    ("alert", AttackAction::Alert),
    ("tighten", AttackAction::Tighten),
    ("ban", AttackAction::Ban),
];

/// What the rest of the service's table says that matters here.
pub(super) struct Around<'a> {
    pub(super) per_source: Option<&'a PerSource>,
    pub(super) per_network: Option<&'a PerNetwork>,
    pub(super) total: Option<&'a Total>,
    pub(super) classes: &'a [Class],
    pub(super) profile: bool,
    pub(super) anomaly: bool,
}

impl Around<'_> {
    /// Whether there is a limit that could be tightened.
    fn limited(&self) -> bool {
        let some = |limits: Option<&Limits>| limits.is_some_and(|limits| !is_empty(limits));
        some(self.per_source.map(|tier| &tier.limits))
            || some(self.per_network.map(|tier| &tier.limits))
            || some(self.total.map(|tier| &tier.limits))
            || self.classes.iter().any(|class| {
                some(class.per_source.as_ref().map(|tier| &tier.limits))
                    || some(class.per_network.as_ref().map(|tier| &tier.limits))
                    || some(class.total.as_ref())
            })
    }
}

/// Reads `[service.on_attack]`, or its defaults.
pub(super) fn on_attack(service: &Section<'_>, around: &Around<'_>, sink: &mut Sink<'_>) -> OnAttack {
    let mut read = OnAttack::default();
    let Some(section) = service.section("on_attack", sink) else {
        return read;
    };
    section.check_keys(&KEYS, &[], sink);
    let action = section.get("action");
    if let Some(item) = &action {
        let chosen = item.choice(sink, &ACTIONS);
        if chosen == Some(AttackAction::Tighten) && !around.limited() {
            sink.bad(
                item,
                "expected a limit to tighten: the service has none in per_source, per_network, total or a class",
            );
        }
        let blind = [("profile", around.profile), ("anomaly", around.anomaly)];
        let blind = blind.into_iter().find(|(_, sees)| !sees);
        if let Some((key, _)) = blind.filter(|_| chosen.is_some_and(|action| action != AttackAction::Alert)) {
            sink.warn(
                item,
                format!("has no effect with {key} = false: nobody looks for attacks then"),
            );
        }
        read.action = chosen.unwrap_or_default();
    }
    if let Some(item) = section.get("max_impact") {
        read.max_impact_ppm = impact(&item, sink).unwrap_or(read.max_impact_ppm);
    }
    if let Some(item) = section.get("max_bans") {
        let most = item.integer(sink, &bounds::MAX_BANS);
        read.max_bans = most.map_or(read.max_bans, |most| most as u32);
    }
    if let Some(item) = section.get("for") {
        read.for_seconds = lasting(&item, sink).unwrap_or(read.for_seconds);
    }
    if let Some(item) = section.get("least") {
        read.least_percent = least(&item, sink).unwrap_or(read.least_percent);
    }
    let idle: &[&str] = match read.action {
        AttackAction::Alert => &["max_impact", "max_bans", "for", "least"],
        AttackAction::Tighten => &["max_bans"],
        AttackAction::Ban => &["least"],
    };
    // What a wrong action would need is not known.
    if action.is_none_or(|item| item.value.as_str().is_some_and(known)) {
        for item in idle.iter().filter_map(|key| section.get(key)) {
            sink.warn(
                &item,
                format!("has no effect with action = {:?}", name(read.action)),
            );
        }
    }
    read
}

fn known(word: &str) -> bool {
    ACTIONS.iter().any(|(name, _)| *name == word)
}

/// An action's name in the policy.
pub(super) fn name(action: AttackAction) -> &'static str {
    ACTIONS
        .iter()
        .find(|(_, other)| *other == action)
        .map_or("", |(name, _)| name)
}

fn impact(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<u32> {
    let share = share(item, sink)?;
    if share == 0 {
        sink.bad(
            item,
            "expected more than \"0%\", under which nothing is ever done: say action = \"alert\" for that",
        );
        return None;
    }
    Some(share)
}

fn lasting(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<u64> {
    let bounds = bounds::ATTACK_FOR;
    let (least, most) = (
        units::format_seconds(*bounds.start()),
        units::format_seconds(*bounds.end()),
    );
    let range = format!("a duration from {least:?} to {most:?}");
    let example = "a duration such as \"10m\"";
    item.quantity(sink, units::parse_seconds, example, &bounds, &range)
}

fn least(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<u32> {
    let expected = "a whole percentage from \"1%\" to \"99%\"";
    let text = item.string(sink, expected)?;
    match units::parse_percent(text) {
        Ok(percent) if bounds::LEAST_PERCENT.contains(&percent) => return Some(percent),
        Ok(_) => sink.bad(item, format!("expected {expected}")),
        Err(error) => sink.bad(item, error.to_string()),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::parse;

    const LIMITED: &str = "[service.per_source]\npackets = { rate = 100 }\n";

    fn read(limits: &str, section: &str) -> (Result<OnAttack, String>, Vec<String>) {
        let text = format!(
            "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n{limits}[service.on_attack]\n{section}\n"
        );
        match parse(&text, Path::new("p.toml")) {
            Ok(parsed) => {
                let warnings = parsed.warnings.iter().map(ToString::to_string).collect();
                (Ok(parsed.policy.services[0].on_attack), warnings)
            }
            Err(errors) => (Err(errors.to_string()), Vec::new()),
        }
    }

    #[test]
    fn keys_and_their_defaults() {
        assert_eq!(read("", ""), (Ok(OnAttack::default()), Vec::new()));
        let default = OnAttack::default();
        assert_eq!(
            (default.action, default.max_impact_ppm, default.max_bans),
            (AttackAction::Alert, 10_000, 100)
        );
        assert_eq!((default.for_seconds, default.least_percent), (600, 20));
        let (all, warnings) = read(
            LIMITED,
            "action = \"tighten\"\nmax_impact = \"0.5%\"\nfor = \"2m\"\nleast = \"35%\"",
        );
        let expected = OnAttack {
            action: AttackAction::Tighten,
            max_impact_ppm: 5_000,
            for_seconds: 120,
            least_percent: 35,
            ..default
        };
        assert_eq!((all, warnings), (Ok(expected), Vec::new()));
        let (ban, warnings) = read("", "action = \"ban\"\nmax_bans = 7");
        assert_eq!(
            ban.map(|read| (read.action, read.max_bans)),
            Ok((AttackAction::Ban, 7))
        );
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_is_an_error_at_its_place() {
        for (section, expected) in [
            (
                "action = \"block\"",
                "p.toml:7:10: service[1].on_attack.action (service \"web\"): \"block\": expected \"alert\" or \"tighten\" or \"ban\"",
            ),
            (
                "action = \"tighten\"",
                "p.toml:7:10: service[1].on_attack.action (service \"web\"): \"tighten\": expected a limit to tighten",
            ),
            ("max_impact = \"0%\"", "expected more than \"0%\""),
            ("max_impact = \"101%\"", "p.toml:7:14"),
            ("max_impact = 1", "expected a share"),
            ("max_bans = 0", "expected an integer from 1 to 10000"),
            ("for = \"5s\"", "expected a duration from \"10s\" to \"1d\""),
            ("for = \"soon\"", "expected a duration"),
            (
                "least = \"0%\"",
                "expected a whole percentage from \"1%\" to \"99%\"",
            ),
            (
                "least = \"100%\"",
                "expected a whole percentage from \"1%\" to \"99%\"",
            ),
            ("least = \"half\"", "expected a percentage"),
            ("impact = \"1%\"", "service[1].on_attack.impact"),
        ] {
            let (read, _) = read("", section);
            let error = read.unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
        // A limit of a class is one, too; an empty tier is none.
        let class = "[lists.x]\nprefixes = [\"192.0.2.0/24\"]\n";
        let text = format!(
            "version = 1\n{class}[[service]]\nname = \"web\"\nprotocol = \"tcp\"\n[service.on_attack]\naction = \"tighten\"\n\
             [[service.class]]\nname = \"c\"\nlists = [\"x\"]\n[service.class.total]\npackets = {{ rate = 5 }}\n"
        );
        assert!(parse(&text, Path::new("p.toml")).is_ok());
        let (read, _) = read("[service.per_source]\n", "action = \"tighten\"");
        assert!(read.is_err());
    }

    #[test]
    fn what_has_no_effect_is_warned_of() {
        for (limits, section, expected) in [
            ("", "max_bans = 5", "has no effect with action = \"alert\""),
            (
                LIMITED,
                "action = \"tighten\"\nmax_bans = 5",
                "has no effect with action = \"tighten\"",
            ),
            (
                "",
                "action = \"ban\"\nleast = \"10%\"",
                "has no effect with action = \"ban\"",
            ),
            (
                "profile = false\n",
                "action = \"ban\"",
                "has no effect with profile = false",
            ),
            (
                "anomaly = false\n",
                "action = \"ban\"",
                "has no effect with anomaly = false",
            ),
        ] {
            let (read, warnings) = read(limits, section);
            assert!(read.is_ok(), "{read:?}");
            assert!(
                warnings.len() == 1 && warnings[0].contains(expected),
                "{section}: {warnings:?}"
            );
        }
    }
}
