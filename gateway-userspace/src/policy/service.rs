//! Reading `[[service]]` and `[[service.class]]`.

use ipnet::IpNet;

use super::{
    bounds,
    document::{PROTOCOLS, check_name, mode, prefixes},
    limits::{class_total, is_empty, per_network, per_source, share, total},
    list_section::KnownLists,
    model::{Class, ListAction, Protocol, Service, Source},
    on_attack::{Around, on_attack},
    ports::ports,
    walk::{Section, Sink, nearest},
};

const KEYS: [&str; 16] = [
    "name",
    "protocol",
    "ports",
    "source_ports",
    "addresses",
    "only",
    "mode",
    "enforce_share",
    "profile",
    "time",
    "anomaly",
    "on_attack",
    "per_source",
    "per_network",
    "total",
    "class",
];
const CLASS_KEYS: [&str; 6] = ["name", "lists", "mode", "per_source", "per_network", "total"];

/// Where a service stands in the file, and which key path it has.
pub(super) struct Origin {
    /// Its name, if it has a usable one.
    pub(super) name: Option<String>,
    /// Offset of its header.
    pub(super) start: usize,
    /// Offset of its name.
    pub(super) name_start: usize,
    /// Its destination prefixes with their offsets.
    pub(super) addresses: Vec<(IpNet, usize)>,
}

/// Reads one service; `None` without a usable name.
pub(super) fn service(
    section: &Section<'_>,
    source: &Source,
    known: &KnownLists<'_>,
    sink: &mut Sink<'_>,
) -> (Option<Service>, Origin) {
    // The name first, so that every error below can say whose it is.
    let name_item = section.get("name");
    let name = name(section, sink);
    sink.service.clone_from(&name);
    section.check_keys(&KEYS, &[], sink);
    let protocols = protocols(section, sink);
    let addresses = prefixes(section, "addresses", sink);
    let ports_read = ports(section, "ports", sink);
    let source_ports = ports(section, "source_ports", sink);
    if ports_read.len() * source_ports.len() > bounds::MAX_PORT_PAIRS {
        let most = bounds::MAX_PORT_PAIRS;
        let message = format!("expected at most {most} pairs of a range of ports and one of source_ports");
        sink.error(section.start, section.path_of("source_ports"), message);
    }
    if let Some(portless) = protocols
        .iter()
        .find(|p| matches!(p, Protocol::Icmp | Protocol::Any))
    {
        for key in ["ports", "source_ports"] {
            if let Some(item) = section.get(key)
                && item.value.as_array().is_none_or(|array| !array.is_empty())
            {
                let word = word(*portless);
                sink.bad(
                    &item,
                    format!("expected no {key} where the protocol is or includes {word:?}"),
                );
            }
        }
    }
    let only = list_names(section, "only", known, sink);
    for name in &only {
        if known
            .get(name.as_str())
            .is_some_and(|list| list.action == Some(ListAction::Drop))
            && let Some(item) = section.get("only")
        {
            sink.warn(
                &item,
                format!("list {name:?} has action = \"drop\": its members never reach the service"),
            );
        }
    }
    let mode = mode(section, sink);
    let enforce_share_ppm = section
        .get("enforce_share")
        .and_then(|item| share(&item, sink))
        .unwrap_or(1_000_000);
    let (profile, time, anomaly) = looked_at(section, sink);
    let per_source = section
        .section("per_source", sink)
        .map(|section| per_source(&section, sink));
    let per_network = section
        .section("per_network", sink)
        .map(|section| per_network(&section, source, sink));
    let total = section
        .section("total", sink)
        .map(|section| total(&section, sink));
    let classes = classes(section, source, known, sink);
    let around = Around {
        per_source: per_source.as_ref(),
        per_network: per_network.as_ref(),
        total: total.as_ref(),
        classes: &classes,
        profile,
        anomaly,
    };
    let on_attack = on_attack(section, &around, sink);
    sink.service = None;

    let origin = Origin {
        name: name.clone(),
        start: section.start,
        name_start: name_item.map_or(section.start, |item| item.start),
        addresses: addresses.clone(),
    };
    let service = name.map(|name| Service {
        name,
        protocols,
        ports: ports_read,
        source_ports,
        addresses: addresses.into_iter().map(|(prefix, _)| prefix).collect(),
        only,
        mode,
        enforce_share_ppm,
        profile,
        time,
        anomaly,
        on_attack,
        per_source,
        per_network,
        total,
        classes,
    });
    (service, origin)
}

/// What is looked at in its traffic: whether it has a profile, is timed, and is watched for anomalies.
fn looked_at(section: &Section<'_>, sink: &mut Sink<'_>) -> (bool, bool, bool) {
    let profile = section.get("profile").and_then(|item| item.boolean(sink));
    let time = section.get("time").and_then(|item| {
        let time = item.boolean(sink)?;
        if time && profile == Some(false) {
            sink.warn(
                &item,
                "has no effect with profile = false: times belong to the profile",
            );
        }
        Some(time)
    });
    let anomaly = section.get("anomaly").and_then(|item| {
        let anomaly = item.boolean(sink)?;
        if anomaly && profile == Some(false) {
            sink.warn(
                &item,
                "has no effect with profile = false: anomalies are found in the profile",
            );
        }
        Some(anomaly)
    });
    (
        profile.unwrap_or(true),
        time.unwrap_or(false),
        anomaly.unwrap_or(true),
    )
}

fn name(section: &Section<'_>, sink: &mut Sink<'_>) -> Option<String> {
    let item = section.require("name", sink, "a name")?;
    let name = item.string(sink, "a name")?;
    if !check_name(&item, name, sink) {
        return None;
    }
    if name == "default" {
        sink.bad(
            &item,
            "expected another name: \"default\" is what traffic to no service is called",
        );
        return None;
    }
    Some(name.to_owned())
}

fn word(protocol: Protocol) -> &'static str {
    PROTOCOLS
        .iter()
        .find(|(_, p)| *p == protocol)
        .map_or("", |(word, _)| word)
}

fn protocols(section: &Section<'_>, sink: &mut Sink<'_>) -> Vec<Protocol> {
    let expected = "\"tcp\", \"udp\", \"icmp\", a list of these, or \"any\"";
    let Some(item) = section.require("protocol", sink, expected) else {
        return Vec::new();
    };
    if item.value.is_str() {
        return item.choice(sink, &PROTOCOLS).into_iter().collect();
    }
    let items = item.array(sink, expected).unwrap_or_default();
    if item.value.as_array().is_some_and(|array| array.is_empty()) {
        sink.bad(&item, format!("expected {expected}"));
    }
    let mut protocols: Vec<_> = items
        .iter()
        .filter_map(|item| item.choice(sink, &PROTOCOLS))
        .collect();
    protocols.sort_unstable();
    protocols.dedup();
    if protocols.contains(&Protocol::Any) && protocols.len() > 1 {
        sink.bad(&item, "expected \"any\" alone: it includes the others");
    }
    protocols
}

/// Reads an array of names of lists, each of which must exist; without repetition.
fn list_names(section: &Section<'_>, key: &str, known: &KnownLists<'_>, sink: &mut Sink<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for item in section.array(key, sink, "an array of names of lists") {
        let Some(name) = item.string(sink, "the name of a list") else {
            continue;
        };
        if names.iter().any(|other| other == name) {
            sink.warn(&item, "is named twice here");
        } else if known.contains_key(name) {
            names.push(name.to_owned());
        } else {
            let lists: Vec<_> = known.keys().copied().collect();
            let hint = match nearest(name, &lists) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there is no [lists.{name}]"),
            };
            sink.bad(&item, format!("expected the name of a list: {hint}"));
        }
    }
    names
}

fn classes(
    section: &Section<'_>,
    source: &Source,
    known: &KnownLists<'_>,
    sink: &mut Sink<'_>,
) -> Vec<Class> {
    let sections = section.sections("class", sink);
    if sections.len() > bounds::MAX_CLASSES {
        let (found, most) = (sections.len(), bounds::MAX_CLASSES);
        sink.error(
            section.start,
            section.path_of("class"),
            format!("expected at most {most} classes, not {found}"),
        );
    }
    let mut classes: Vec<Class> = Vec::new();
    for section in &sections {
        let Some(class) = class(section, source, known, sink) else {
            continue;
        };
        if classes.iter().any(|other| other.name == class.name)
            && let Some(item) = section.get("name")
        {
            sink.bad(&item, "expected a name that no other class of the service has");
        }
        let earlier = |list: &String| classes.iter().any(|other| other.lists.contains(list));
        if !class.lists.is_empty() && class.lists.iter().all(earlier) {
            sink.warn_section(
                section,
                "is never reached: earlier classes of the service have all its lists",
            );
        }
        classes.push(class);
    }
    classes
}

fn class(
    section: &Section<'_>,
    source: &Source,
    known: &KnownLists<'_>,
    sink: &mut Sink<'_>,
) -> Option<Class> {
    section.check_keys(&CLASS_KEYS, &[], sink);
    let name = section.require("name", sink, "a name").and_then(|item| {
        let name = item.string(sink, "a name")?;
        check_name(&item, name, sink).then(|| name.to_owned())
    });
    let lists_item = section.require("lists", sink, "an array of names of lists");
    let lists = list_names(section, "lists", known, sink);
    let mode = mode(section, sink);
    let per_source = section
        .section("per_source", sink)
        .map(|section| per_source(&section, sink));
    let per_network = section
        .section("per_network", sink)
        .map(|section| per_network(&section, source, sink));
    let total = section
        .section("total", sink)
        .map(|section| class_total(&section, sink));
    if let Some(item) = lists_item {
        if item.value.as_array().is_some_and(|array| array.is_empty()) {
            sink.bad(&item, "expected at least one list");
        }
        for name in &lists {
            let Some(list) = known.get(name.as_str()) else {
                continue;
            };
            if list.proxy && per_source.is_some() {
                let message = format!(
                    "expected no per_source in a class of list {name:?}, which says proxy = true: \
                     many clients share each of its addresses; limit the class's total instead"
                );
                sink.bad(&item, message);
            }
            match list.action {
                Some(ListAction::Drop) => {
                    let why = "its members are dropped before any class";
                    sink.warn(&item, format!("list {name:?} has action = \"drop\": {why}"));
                }
                Some(ListAction::Trust)
                    if per_source.as_ref().is_some_and(|tier| !is_empty(&tier.limits))
                        || per_network.is_some() =>
                {
                    let why = "per_source and per_network never apply to its members";
                    sink.warn(&item, format!("list {name:?} has action = \"trust\": {why}"));
                }
                _ => {}
            }
        }
    }
    Some(Class {
        name: name?,
        lists,
        mode,
        per_source,
        per_network,
        total,
    })
}
