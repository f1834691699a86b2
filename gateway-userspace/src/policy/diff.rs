//! What a policy changes against another one, by meaning: order, spelling and comments do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Display, Write as _},
};

use serde::{Deserialize, Serialize};

use super::{
    model::{
        AttackAction, Block, Class, DefaultAction, Essential, Limit, Limits, List, ListAction, Mode, OnLoss,
        PerNetwork, PerSource, Policy, PortRange, Protect, Protocol, Replies, Service,
    },
    on_attack, units,
};

/// What happens to a thing or a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It gets another value.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// What has it: `service.web`, `service.web.class.mobile`, `lists.cdn`, `protect`; empty: the policy itself.
    pub at: String,
    /// The policy's key; empty: the whole thing is added or removed.
    pub key: String,
    /// What happens to it.
    pub change: Change,
    /// Its value in the policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value in the other policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What one policy changes against another.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// Every difference, in the order of the policy file's sections.
    pub differences: Vec<Difference>,
    /// What an apply would lose or not do, one sentence each.
    pub warnings: Vec<String>,
}

/// Values by key.
type Keys = BTreeMap<String, String>;

/// What `after` changes against `before`.
pub fn diff(before: &Policy, after: &Policy) -> Diff {
    let mut diff = Diff::default();
    diff.keys("", &whole(before), &whole(after));
    diff.protect(&before.protect, &after.protect);
    diff.things("lists.", &lists(before), &lists(after));
    diff.things("", &services(before), &services(after));
    diff.losses(before, after);
    diff
}

impl Diff {
    fn push(&mut self, at: &str, key: &str, before: Option<&String>, after: Option<&String>) {
        let change = match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        self.differences.push(Difference {
            at: at.to_owned(),
            key: key.to_owned(),
            change,
            before: before.cloned(),
            after: after.cloned(),
        });
    }

    fn keys(&mut self, at: &str, before: &Keys, after: &Keys) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let (old, new) = (before.get(name), after.get(name));
            if old != new {
                self.push(at, name, old, new);
            }
        }
    }

    /// Things with names: one that is new or gone is one difference with all its keys as its value.
    fn things(&mut self, prefix: &str, before: &BTreeMap<String, Keys>, after: &BTreeMap<String, Keys>) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let at = format!("{prefix}{name}");
            match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => self.keys(&at, before, after),
                (before, after) => {
                    self.push(&at, "", before.map(summary).as_ref(), after.map(summary).as_ref());
                }
            }
        }
    }

    fn protect(&mut self, before: &[Protect], after: &[Protect]) {
        let rules = |rules: &[Protect]| -> BTreeSet<String> { rules.iter().map(protect).collect() };
        let (before, after) = (rules(before), rules(after));
        for rule in before.difference(&after) {
            self.push("protect", "", Some(rule), None);
        }
        for rule in after.difference(&before) {
            self.push("protect", "", None, Some(rule));
        }
    }

    fn losses(&mut self, before: &Policy, after: &Policy) {
        if before.source.max_tracked != after.source.max_tracked {
            self.warnings.push(
                "source.max_tracked: an apply is refused; a restart makes a new table, in which every bucket starts full"
                    .into(),
            );
        }
        let sources = |policy: &Policy| (policy.source.ipv4_prefix, policy.source.ipv6_prefix);
        if sources(before) != sources(after) {
            self.warnings.push(
                "source: what one source is changes, so the buckets and blocks of that family's sources start afresh".into(),
            );
        }
        if before.mode != after.mode {
            self.warnings.push(match after.mode {
                Mode::Monitor => "mode: nothing is dropped any more, only counted".into(),
                Mode::Enforce => "mode: what was only counted is dropped".into(),
            });
        }
        if before.default.action != after.default.action && after.default.action == DefaultAction::Drop {
            self.warnings.push(
                "default.action: what no service names is dropped; is management in [[protect]]?".into(),
            );
        }
        let (old, new) = (buckets(before), buckets(after));
        for (name, limit) in &old {
            match new.get(name) {
                Some(next) if next.burst < limit.burst => self.warnings.push(format!(
                    "{name}: a debt of more than the new burst of {} is forgiven down to it",
                    next.burst
                )),
                _ => {}
            }
        }
        for service in &before.services {
            let Some(next) = after.services.iter().find(|next| next.name == service.name) else {
                self.warnings.push(format!(
                    "service.{}: its counters and its levers go; its bans wait for a service of that name",
                    service.name
                ));
                continue;
            };
            let networks = |service: &Service| {
                service
                    .per_network
                    .map(|tier| (tier.ipv4_prefix, tier.ipv6_prefix))
            };
            if let (Some(old), Some(new)) = (networks(service), networks(next))
                && old != new
            {
                self.warnings.push(format!(
                    "service.{}.per_network: what one network is changes, so its buckets start full",
                    service.name
                ));
            }
        }
    }
}

/// Everything of a thing on one line.
fn summary(keys: &Keys) -> String {
    let parts: Vec<String> = keys
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    parts.join(", ")
}

fn joined<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

fn sorted<T: Display + Ord>(values: &[T]) -> String {
    joined(values.iter().collect::<BTreeSet<_>>())
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
    .into()
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Any => "any",
    }
}

fn ports(ranges: &[PortRange]) -> String {
    joined(ranges.iter().map(|range| {
        if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        }
    }))
}

/// Millionths as per cent.
fn share(ppm: u32) -> String {
    format!("{}%", f64::from(ppm) / 10_000.0)
}

fn protect(rule: &Protect) -> String {
    let mut text = format!(
        "sources = {}, protocol = {}",
        sorted(&rule.sources),
        protocol(rule.protocol)
    );
    if !rule.ports.is_empty() {
        let _ = write!(text, ", ports = {}", ports(&rule.ports));
    }
    text
}

/// Keys with the values that are there.
fn present<const N: usize>(values: [(&str, Option<String>); N]) -> Keys {
    let values = values.into_iter();
    values
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

fn filled(empty: bool, value: String) -> Option<String> {
    (!empty).then_some(value)
}

fn whole(policy: &Policy) -> Keys {
    let (scope, source, default) = (&policy.scope, &policy.source, &policy.default);
    let action = match default.action {
        DefaultAction::Pass => "pass",
        DefaultAction::Drop => "drop",
    };
    let replies = match default.replies {
        Replies::Socket => "socket",
        Replies::None => "none",
    };
    let essential = match default.essential {
        Essential::Pass => "pass",
        Essential::None => "none",
    };
    let controller = &policy.controller;
    let opens = controller.on_loss == OnLoss::Open;
    let webhook = policy.webhook.as_ref();
    present([
        ("interfaces", Some(sorted(&policy.interfaces))),
        ("mode", Some(mode(policy.mode))),
        (
            "scope.vlans",
            filled(scope.vlans.is_empty(), sorted(&scope.vlans)),
        ),
        (
            "scope.addresses",
            filled(scope.addresses.is_empty(), sorted(&scope.addresses)),
        ),
        ("source.ipv4_prefix", Some(source.ipv4_prefix.to_string())),
        ("source.ipv6_prefix", Some(source.ipv6_prefix.to_string())),
        ("source.max_tracked", Some(source.max_tracked.to_string())),
        ("default.action", Some(action.into())),
        ("default.replies", Some(replies.into())),
        ("default.essential", Some(essential.into())),
        ("default.profile", Some(default.profile.to_string())),
        (
            "controller.on_loss",
            Some(if opens { "open" } else { "hold" }.into()),
        ),
        (
            "controller.after",
            opens.then(|| units::format_seconds(controller.after_seconds)),
        ),
        ("controller.socket_group", controller.socket_group.clone()),
        ("sampling.one_in", Some(policy.sampling.one_in.to_string())),
        (
            "sampling.max_per_second",
            Some(policy.sampling.max_per_second.to_string()),
        ),
        ("anomaly.enabled", Some(policy.anomaly.enabled.to_string())),
        (
            "anomaly.sensitivity",
            Some(policy.anomaly.sensitivity.to_string()),
        ),
        // Not the address itself, which may carry a token; its sum tells that it is another.
        (
            "anomaly.webhook.url",
            webhook.map(|of| format!("{} ({})", of.url, of.url.fingerprint())),
        ),
        (
            "anomaly.webhook.secret_file",
            webhook.and_then(|of| Some(of.secret_file.as_ref()?.display().to_string())),
        ),
        (
            "anomaly.webhook.verdicts",
            webhook.map(|of| joined(of.verdicts.iter().map(|verdict| verdict.name()))),
        ),
        (
            "geo.database",
            policy.geo.as_ref().map(|geo| geo.database.display().to_string()),
        ),
        (
            "export.sflow.collector",
            policy.sflow.as_ref().map(|sflow| sflow.collector.to_string()),
        ),
        (
            "export.sflow.agent",
            policy
                .sflow
                .as_ref()
                .and_then(|sflow| Some(sflow.agent?.to_string())),
        ),
    ])
}

fn lists(policy: &Policy) -> BTreeMap<String, Keys> {
    let keys = |list: &List| {
        let action = list.action.map(|action| match action {
            ListAction::Drop => "drop".to_owned(),
            ListAction::Trust => "trust".to_owned(),
        });
        let files = list.files.iter().map(|file| file.display().to_string());
        present([
            ("action", action),
            (
                "prefixes",
                filled(list.prefixes.is_empty(), sorted(&list.prefixes)),
            ),
            (
                "files",
                filled(list.files.is_empty(), joined(files.collect::<BTreeSet<_>>())),
            ),
            ("max_prefixes", Some(list.max_prefixes.to_string())),
            ("proxy", list.proxy.then(|| "true".to_owned())),
        ])
    };
    let lists = policy.lists.iter();
    lists.map(|list| (list.name.clone(), keys(list))).collect()
}

/// Services and their classes, as they are called in a [`Difference`].
fn services(policy: &Policy) -> BTreeMap<String, Keys> {
    let mut found = BTreeMap::new();
    for service in &policy.services {
        let name = format!("service.{}", service.name);
        for class in &service.classes {
            found.insert(format!("{name}.class.{}", class.name), class_keys(class));
        }
        found.insert(name, service_keys(service));
    }
    found
}

fn service_keys(service: &Service) -> Keys {
    let names: Vec<&str> = service.classes.iter().map(|class| class.name.as_str()).collect();
    let react = service.on_attack;
    let acts = react.action != AttackAction::Alert;
    let mut keys = present([
        (
            "protocol",
            Some(joined(service.protocols.iter().map(|p| protocol(*p)))),
        ),
        ("ports", filled(service.ports.is_empty(), ports(&service.ports))),
        (
            "source_ports",
            filled(service.source_ports.is_empty(), ports(&service.source_ports)),
        ),
        (
            "addresses",
            filled(service.addresses.is_empty(), sorted(&service.addresses)),
        ),
        ("only", filled(service.only.is_empty(), sorted(&service.only))),
        ("mode", Some(mode(service.mode))),
        ("enforce_share", Some(share(service.enforce_share_ppm))),
        ("profile", Some(service.profile.to_string())),
        ("time", Some(service.time.to_string())),
        ("anomaly", Some(service.anomaly.to_string())),
        ("on_attack.action", Some(on_attack::name(react.action).into())),
        ("on_attack.max_impact", acts.then(|| share(react.max_impact_ppm))),
        (
            "on_attack.for",
            acts.then(|| units::format_seconds(react.for_seconds)),
        ),
        (
            "on_attack.max_bans",
            (react.action == AttackAction::Ban).then(|| react.max_bans.to_string()),
        ),
        (
            "on_attack.least",
            (react.action == AttackAction::Tighten).then(|| format!("{}%", react.least_percent)),
        ),
        // Their order decides which of them a source is in.
        ("class", filled(names.len() < 2, joined(names))),
    ]);
    per_source(&mut keys, service.per_source.as_ref());
    per_network(&mut keys, service.per_network.as_ref());
    if let Some(total) = &service.total {
        limits(&mut keys, "total", &total.limits);
        if let Some(reserve) = total.reserve_ppm {
            keys.insert("total.reserve".into(), share(reserve));
        }
    }
    keys
}

fn class_keys(class: &Class) -> Keys {
    let mut keys = present([
        ("lists", Some(sorted(&class.lists))),
        ("mode", Some(mode(class.mode))),
    ]);
    per_source(&mut keys, class.per_source.as_ref());
    per_network(&mut keys, class.per_network.as_ref());
    if let Some(total) = &class.total {
        limits(&mut keys, "total", total);
    }
    keys
}

fn per_source(keys: &mut Keys, tier: Option<&PerSource>) {
    let Some(tier) = tier else { return };
    limits(keys, "per_source", &tier.limits);
    if let Some(Block {
        for_seconds,
        drops,
        within_seconds,
    }) = tier.block
    {
        keys.insert("per_source.block.for".into(), format!("{for_seconds}s"));
        keys.insert("per_source.block.drops".into(), drops.to_string());
        keys.insert("per_source.block.within".into(), format!("{within_seconds}s"));
    }
}

fn per_network(keys: &mut Keys, tier: Option<&PerNetwork>) {
    let Some(tier) = tier else { return };
    limits(keys, "per_network", &tier.limits);
    keys.insert("per_network.ipv4_prefix".into(), tier.ipv4_prefix.to_string());
    keys.insert("per_network.ipv6_prefix".into(), tier.ipv6_prefix.to_string());
}

/// The kinds of bucket that a tier has.
fn kinds(limits: &Limits) -> impl Iterator<Item = (&'static str, Limit)> {
    let kinds = [
        ("packets", limits.packets),
        ("bytes", limits.bytes),
        ("connections", limits.connections),
    ];
    kinds.into_iter().filter_map(|(kind, limit)| Some((kind, limit?)))
}

fn limits(keys: &mut Keys, tier: &str, limits: &Limits) {
    for (kind, limit) in kinds(limits) {
        keys.insert(format!("{tier}.{kind}.rate"), limit.rate.to_string());
        keys.insert(format!("{tier}.{kind}.burst"), limit.burst.to_string());
    }
}

/// Every bucket by the name of its place.
fn buckets(policy: &Policy) -> BTreeMap<String, Limit> {
    let mut found = BTreeMap::new();
    let mut tier = |at: &str, tier: &str, limits: Option<&Limits>| {
        for (kind, limit) in limits.into_iter().flat_map(kinds) {
            found.insert(format!("{at}.{tier}.{kind}"), limit);
        }
    };
    for service in &policy.services {
        let at = format!("service.{}", service.name);
        tier(
            &at,
            "per_source",
            service.per_source.as_ref().map(|tier| &tier.limits),
        );
        tier(
            &at,
            "per_network",
            service.per_network.as_ref().map(|tier| &tier.limits),
        );
        tier(&at, "total", service.total.as_ref().map(|tier| &tier.limits));
        for class in &service.classes {
            let at = format!("{at}.class.{}", class.name);
            tier(
                &at,
                "per_source",
                class.per_source.as_ref().map(|tier| &tier.limits),
            );
            tier(
                &at,
                "per_network",
                class.per_network.as_ref().map(|tier| &tier.limits),
            );
            tier(&at, "total", class.total.as_ref());
        }
    }
    found
}
