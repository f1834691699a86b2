//! Reading the document: everything outside `lists` and `service`.

use std::collections::BTreeSet;

use ipnet::IpNet;
use toml::de::DeTable;

use super::{
    anomaly, bounds, controller, cross, export, geo,
    list_section::{self, KnownLists},
    model::{DefaultAction, DefaultRule, Essential, Mode, Policy, Protect, Protocol, Replies, Scope, Source},
    ports,
    prefix::parse_prefix,
    sampling,
    service::{self, Origin},
    walk::{Item, Section, Sink},
};

const KEYS: [&str; 14] = [
    "version",
    "interfaces",
    "mode",
    "scope",
    "source",
    "protect",
    "lists",
    "default",
    "controller",
    "sampling",
    "export",
    "geo",
    "anomaly",
    "service",
];

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];
/// The names of protocols.
pub(super) const PROTOCOLS: [(&str, Protocol); 4] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
    ("any", Protocol::Any),
];

/// Reads a whole document. The result counts only when the sink has no errors.
pub(super) fn read(table: &DeTable<'_>, sink: &mut Sink<'_>) -> Policy {
    let root = Section::root(table);
    root.check_keys(&KEYS, &[], sink);
    version(&root, sink);
    let interfaces = interfaces(&root, sink);
    let mode = mode(&root, sink);
    let scope = root
        .section("scope", sink)
        .map(|section| scope(&section, sink))
        .unwrap_or_default();
    let source = source(&root, sink);
    let protect = protect(&root, sink);
    let (lists, known) = list_section::lists(&root, sink);
    let default = default_rule(&root, sink);
    let controller = controller::controller(&root, sink);
    let sampling = sampling::sampling(&root, sink);
    let sflow = export::sflow(&root, sampling.one_in != 0, sink);
    let (anomaly, webhook) = anomaly::anomaly(&root, sink);
    let geo = geo::geo(&root, sink);
    let (services, origins) = services(&root, &source, &known, sink);
    cross::check(&scope, &services, &origins, sink);
    Policy {
        interfaces,
        mode,
        scope: scope.scope,
        source,
        protect,
        lists,
        default,
        controller,
        sampling,
        sflow,
        anomaly,
        webhook,
        geo,
        services: services.into_iter().flatten().collect(),
    }
}

/// Reads `mode`.
pub(super) fn mode(section: &Section<'_>, sink: &mut Sink<'_>) -> Mode {
    section
        .get("mode")
        .and_then(|item| item.choice(sink, &MODES))
        .unwrap_or_default()
}

/// Reads an array of prefixes with their places, without repetition.
pub(super) fn prefixes(section: &Section<'_>, key: &str, sink: &mut Sink<'_>) -> Vec<(IpNet, usize)> {
    let expected = "an array of prefixes, such as [\"192.0.2.0/24\", \"2001:db8::/48\"]";
    let mut seen = BTreeSet::new();
    let mut prefixes = Vec::new();
    for item in section.array(key, sink, expected) {
        let Some(text) = item.string(sink, "a string with a prefix, such as \"192.0.2.0/24\"") else {
            continue;
        };
        match parse_prefix(text) {
            Ok(prefix) if seen.insert(prefix) => prefixes.push((prefix, item.start)),
            Ok(_) => {}
            Err(error) => sink.bad(&item, error.to_string()),
        }
    }
    prefixes
}

/// Reads a name: of a service, a class or a list.
pub(super) fn check_name(item: &Item<'_>, name: &str, sink: &mut Sink<'_>) -> bool {
    let fits = (1..=bounds::MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !fits {
        let most = bounds::MAX_NAME;
        sink.bad(
            item,
            format!("expected a name of 1 to {most} letters, digits, dots, hyphens or underscores"),
        );
    }
    fits
}

fn version(root: &Section<'_>, sink: &mut Sink<'_>) {
    if let Some(item) = root.require("version", sink, "version = 1")
        && item.any_integer() != Some(1)
    {
        sink.bad(&item, "expected 1, the only version of the policy file so far");
    }
}

fn interfaces(root: &Section<'_>, sink: &mut Sink<'_>) -> Vec<String> {
    let mut interfaces: Vec<String> = Vec::new();
    let items = root.array(
        "interfaces",
        sink,
        "an array of interface names, such as [\"eth0\"]",
    );
    if let (Some(item), true) = (root.get("interfaces"), items.len() > bounds::MAX_INTERFACES) {
        sink.bad(
            &item,
            format!(
                "expected at most {} interfaces, not {}",
                bounds::MAX_INTERFACES,
                items.len()
            ),
        );
    }
    for item in items {
        let Some(name) = item.string(sink, "an interface name such as \"eth0\"") else {
            continue;
        };
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let fits = (1..=bounds::MAX_INTERFACE_NAME).contains(&name.len());
        if !fits || name == "." || name == ".." || name.contains(odd) {
            let most = bounds::MAX_INTERFACE_NAME;
            sink.bad(
                &item,
                format!("expected an interface name of 1 to {most} bytes without '/', ':' and spaces"),
            );
        } else if interfaces.iter().any(|other| other == name) {
            sink.bad(&item, "expected each interface once");
        } else {
            interfaces.push(name.to_owned());
        }
    }
    interfaces
}

/// The scope with the places of its prefixes.
#[derive(Default)]
pub(super) struct PlacedScope {
    pub(super) scope: Scope,
    pub(super) addresses: Vec<(IpNet, usize)>,
}

fn scope(section: &Section<'_>, sink: &mut Sink<'_>) -> PlacedScope {
    section.check_keys(&["vlans", "addresses"], &[], sink);
    let items = section.array("vlans", sink, "an array of VLAN identifiers, such as [100, 200]");
    let vlans: BTreeSet<u16> = items
        .iter()
        .filter_map(|item| item.integer(sink, &bounds::VLANS))
        .map(|vlan| vlan as u16)
        .collect();
    let addresses = prefixes(section, "addresses", sink);
    let plain = addresses.iter().map(|&(prefix, _)| prefix).collect();
    PlacedScope {
        scope: Scope {
            vlans: vlans.into_iter().collect(),
            addresses: plain,
        },
        addresses,
    }
}

fn source(root: &Section<'_>, sink: &mut Sink<'_>) -> Source {
    let mut source = Source {
        ipv4_prefix: bounds::DEFAULT_SOURCE_IPV4,
        ipv6_prefix: bounds::DEFAULT_SOURCE_IPV6,
        max_tracked: bounds::DEFAULT_MAX_TRACKED,
    };
    let Some(section) = root.section("source", sink) else {
        return source;
    };
    section.check_keys(&["ipv4_prefix", "ipv6_prefix", "max_tracked"], &[], sink);
    let mut read = |key, bounds| section.get(key).and_then(|item| item.integer(sink, &bounds));
    if let Some(length) = read("ipv4_prefix", bounds::IPV4_PREFIX) {
        source.ipv4_prefix = length as u8;
    }
    if let Some(length) = read("ipv6_prefix", bounds::IPV6_PREFIX) {
        source.ipv6_prefix = length as u8;
    }
    if let Some(slots) = read("max_tracked", bounds::MAX_TRACKED) {
        source.max_tracked = slots as u32;
    }
    source
}

fn protect(root: &Section<'_>, sink: &mut Sink<'_>) -> Vec<Protect> {
    let mut rules = Vec::new();
    let mut flattened = 0;
    for section in root.sections("protect", sink) {
        section.check_keys(&["sources", "protocol", "ports"], &[], sink);
        let sources = section.require("sources", sink, "an array of source prefixes");
        if sources.is_some_and(|item| item.value.as_array().is_some_and(|array| array.is_empty())) {
            let message = "expected at least one source prefix (\"0.0.0.0/0\" and \"::/0\" for everybody)";
            sink.error(section.start, section.path_of("sources"), message);
        }
        let protocol = section
            .get("protocol")
            .and_then(|item| item.choice(sink, &PROTOCOLS));
        let ports = ports::ports(&section, "ports", sink);
        let has_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
        if !ports.is_empty()
            && !has_ports
            && let Some(item) = section.get("ports")
        {
            sink.bad(
                &item,
                "expected no ports without protocol = \"tcp\" or \"udp\" beside them",
            );
        }
        let fitted = flattened <= bounds::MAX_PROTECT;
        flattened += ports.len().max(1);
        if fitted && flattened > bounds::MAX_PROTECT {
            let most = bounds::MAX_PROTECT;
            let message =
                format!("expected at most {most} rules, where each port range of a rule counts as one");
            sink.error(section.start, section.path_of("ports"), message);
        }
        let sources = prefixes(&section, "sources", sink)
            .into_iter()
            .map(|(prefix, _)| prefix)
            .collect();
        rules.push(Protect {
            sources,
            protocol: protocol.unwrap_or(Protocol::Any),
            ports,
        });
    }
    rules
}

fn default_rule(root: &Section<'_>, sink: &mut Sink<'_>) -> DefaultRule {
    let empty = DefaultRule {
        action: DefaultAction::default(),
        replies: Replies::default(),
        essential: Essential::default(),
        profile: true,
    };
    let Some(section) = root.section("default", sink) else {
        return empty;
    };
    section.check_keys(&["action", "replies", "essential", "profile"], &[], sink);
    let mut read = DefaultRule { ..empty };
    if let Some(item) = section.get("action") {
        let words = [("pass", DefaultAction::Pass), ("drop", DefaultAction::Drop)];
        read.action = item.choice(sink, &words).unwrap_or_default();
    }
    let replies = section.get("replies");
    if let Some(item) = &replies {
        read.replies = item
            .choice(sink, &[("socket", Replies::Socket), ("none", Replies::None)])
            .unwrap_or_default();
    }
    let essential = section.get("essential");
    if let Some(item) = &essential {
        let words = [("pass", Essential::Pass), ("none", Essential::None)];
        read.essential = item.choice(sink, &words).unwrap_or_default();
    }
    let profile = section.get("profile");
    read.profile = profile.and_then(|item| item.boolean(sink)).unwrap_or(true);
    if read.action == DefaultAction::Pass {
        for item in replies.iter().chain(&essential) {
            sink.warn(item, "has no effect without action = \"drop\"");
        }
    }
    read
}

/// Reads the services; those with an error of their own are `None`, so that nothing is concluded from them.
fn services(
    root: &Section<'_>,
    source: &Source,
    known: &KnownLists<'_>,
    sink: &mut Sink<'_>,
) -> (Vec<Option<super::model::Service>>, Vec<Origin>) {
    let sections = root.sections("service", sink);
    if sections.len() > bounds::MAX_SERVICES {
        let (found, most) = (sections.len(), bounds::MAX_SERVICES);
        let start = sections.first().map_or(0, |section| section.start);
        sink.error(
            start,
            "service",
            format!("expected at most {most} services, not {found}"),
        );
    }
    sections
        .iter()
        .map(|section| {
            let before = sink.errors.len();
            let (service, origin) = service::service(section, source, known, sink);
            (service.filter(|_| sink.errors.len() == before), origin)
        })
        .unzip()
}
