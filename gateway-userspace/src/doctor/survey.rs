//! Which interfaces to look at, and what the kernel and their drivers say of them.

use std::collections::BTreeMap;

use super::{
    Finding, Options,
    ethtool::Ethtool,
    interface::{Facts, judge},
    netlink::{self, Link, XdpFeatures},
    system::Version,
};

/// Looks at the interfaces that are asked for, or at those that matter.
pub(super) fn findings(options: &Options, kernel: Option<Version>) -> Vec<Finding> {
    let links = match netlink::links() {
        Ok(links) => links,
        Err(error) => {
            return vec![Finding::fail(
                "interfaces",
                format!("cannot list the interfaces: {error}"),
                "weir doctor needs netlink; run it on the host",
            )];
        }
    };
    let chosen = choose(&links, options);
    if chosen.is_empty() {
        return vec![Finding::warn(
            "interfaces",
            "no interface is up besides the loopback",
            "name one: weir doctor --interface IF",
        )];
    }
    // What cannot be asked is left out of the judgement rather than failed: Weir works without knowing it.
    let features: Option<BTreeMap<u32, XdpFeatures>> = netlink::xdp_features()
        .ok()
        .flatten()
        .map(|features| features.into_iter().collect());
    let ethtool = Ethtool::open().ok();
    let programs = program_names(&links);
    let mut findings = Vec::new();
    for name in chosen {
        let Some(link) = links.iter().find(|link| link.name == name) else {
            findings.push(
                Finding::fail(
                    "interface",
                    "there is no such interface",
                    "ip link lists those that exist",
                )
                .on(&name),
            );
            continue;
        };
        let facts = Facts {
            driver: ethtool.as_ref().and_then(|ethtool| ethtool.driver(&name).ok()),
            offloads: ethtool
                .as_ref()
                .and_then(|ethtool| ethtool.features(&name).ok())
                .unwrap_or_default(),
            features: features
                .as_ref()
                .and_then(|features| features.get(&link.index).copied()),
            program: link.xdp.and_then(|program| programs.get(&program.id).cloned()),
            weir: options.weir_on.contains(&name),
            master: link
                .master
                .and_then(|index| links.iter().find(|link| link.index == index))
                .map(|master| (master.name.clone(), master.kind.clone())),
            members: members(&links, link.index),
            kernel,
            link: link.clone(),
        };
        findings.extend(judge(&facts).into_iter().map(|finding| finding.on(&name)));
    }
    findings
}

/// The interfaces to look at: those asked for; else those of hardware and bonds that are up, and those that have a
/// program; else (in a namespace of virtual links only) all that are up but the loopback.
fn choose(links: &[Link], options: &Options) -> Vec<String> {
    if !options.interfaces.is_empty() {
        return options.interfaces.clone();
    }
    let names = |wanted: &dyn Fn(&Link) -> bool| -> Vec<String> {
        links
            .iter()
            .filter(|link| wanted(link))
            .map(|link| link.name.clone())
            .collect()
    };
    let own = names(&|link: &Link| {
        let hardware = link.kind.is_none() && !link.loopback;
        link.xdp.is_some() || link.up && (hardware || link.kind.as_deref() == Some("bond"))
    });
    if own.is_empty() {
        names(&|link: &Link| link.up && !link.loopback)
    } else {
        own
    }
}

fn members(links: &[Link], index: u32) -> Vec<String> {
    links
        .iter()
        .filter(|link| link.master == Some(index))
        .map(|link| link.name.clone())
        .collect()
}

/// The names of the attached programs, by id, as far as this process may read them.
fn program_names(links: &[Link]) -> BTreeMap<u32, String> {
    if links.iter().all(|link| link.xdp.is_none()) {
        return BTreeMap::new();
    }
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::netlink::{AttachedMode, AttachedProgram};

    #[test]
    fn interfaces_are_chosen() {
        let link = |name: &str, kind: Option<&str>, up, loopback| Link {
            name: name.into(),
            kind: kind.map(Into::into),
            up,
            loopback,
            ..Link::default()
        };
        let options = |names: &[&str]| Options {
            interfaces: names.iter().map(|name| (*name).into()).collect(),
            bpffs: "/sys/fs/bpf/weir".into(),
            weir_on: Vec::new(),
        };
        let mut links = vec![
            link("lo", None, true, true),
            link("eth0", None, true, false),
            link("eth1", None, false, false),
            link("veth7", Some("veth"), true, false),
            link("bond0", Some("bond"), true, false),
        ];
        assert_eq!(
            choose(&links, &options(&["veth7", "nothing"])),
            ["veth7", "nothing"]
        );
        assert_eq!(choose(&links, &options(&[])), ["eth0", "bond0"]);
        links[3].xdp = Some(AttachedProgram {
            mode: AttachedMode::Native,
            id: 1,
        });
        assert_eq!(choose(&links, &options(&[])), ["eth0", "veth7", "bond0"]);
        let only_virtual = [
            link("lo", None, true, true),
            link("veth7", Some("veth"), true, false),
        ];
        assert_eq!(choose(&only_virtual, &options(&[])), ["veth7"]);
    }
}
