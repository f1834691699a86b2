//! Checks that look at more than one service: names, nesting and ties.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{
    bounds,
    document::PlacedScope,
    model::Service,
    service::Origin,
    ties::{self, Tie},
    walk::Sink,
};

/// Checks the services against each other. `services` and `origins` have the same order; a service with an error of
/// its own is `None`.
pub(super) fn check(
    scope: &PlacedScope,
    services: &[Option<Service>],
    origins: &[Origin],
    sink: &mut Sink<'_>,
) {
    duplicate_names(origins, sink);
    nesting(scope, origins, sink);
    for tie in ties::find(services) {
        report_tie(&tie, services, origins, sink);
    }
}

fn duplicate_names(origins: &[Origin], sink: &mut Sink<'_>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, origin) in origins.iter().enumerate() {
        let Some(name) = origin.name.as_deref() else {
            continue;
        };
        if let Some(&first) = seen.get(name) {
            let (line, _) = sink.place(origins.get(first).map_or(0, |first| first.name_start));
            let first = first + 1;
            let message = format!(
                "expected a name that no other service has, but service[{first}] (line {line}) is called {name:?} too"
            );
            sink.error(origin.name_start, format!("service[{}].name", index + 1), message);
        } else {
            seen.insert(name, index);
        }
    }
}

/// Reports every destination prefix that has more than [`bounds::MAX_NESTING`] prefixes around and including it.
fn nesting(scope: &PlacedScope, origins: &[Origin], sink: &mut Sink<'_>) {
    // The sort puts a prefix behind those that contain it; each is reported where it stands first.
    let mut places: BTreeMap<IpNet, (usize, Option<usize>)> = BTreeMap::new();
    for &(prefix, start) in &scope.addresses {
        places.entry(prefix).or_insert((start, None));
    }
    for (index, origin) in origins.iter().enumerate() {
        for &(prefix, start) in &origin.addresses {
            places.entry(prefix).or_insert((start, Some(index)));
        }
    }
    let mut around: Vec<IpNet> = Vec::new();
    for (prefix, (start, service)) in places {
        while around.last().is_some_and(|outer| !outer.contains(&prefix)) {
            around.pop();
        }
        around.push(prefix);
        if around.len() > bounds::MAX_NESTING {
            let chain: Vec<_> = around.iter().map(ToString::to_string).collect();
            let message = format!(
                "expected destination prefixes that nest at most {} deep, but {} nest {} deep",
                bounds::MAX_NESTING,
                chain.join(" > "),
                chain.len()
            );
            let key = match service {
                Some(index) => format!("service[{}].addresses", index + 1),
                None => "scope.addresses".to_owned(),
            };
            sink.service = service
                .and_then(|index| origins.get(index))
                .and_then(|origin| origin.name.clone());
            sink.error(start, key, message);
            sink.service = None;
        }
    }
}

fn report_tie(tie: &Tie, services: &[Option<Service>], origins: &[Origin], sink: &mut Sink<'_>) {
    let (Some(Some(first)), Some(Some(second))) = (services.get(tie.first), services.get(tie.second)) else {
        return;
    };
    let (Some(first_origin), Some(second_origin)) = (origins.get(tie.first), origins.get(tie.second)) else {
        return;
    };
    let (line, _) = sink.place(first_origin.start);
    let message = format!(
        "expected no packet to match two services equally well, but {:?} and {:?} (service[{}], line {line}) tie \
         for {}; tell them apart by addresses, protocol, ports or source_ports",
        second.name,
        first.name,
        tie.first + 1,
        tie.what
    );
    sink.service = Some(second.name.clone());
    sink.error(
        second_origin.start,
        format!("service[{}]", tie.second + 1),
        message,
    );
    sink.service = None;
}
