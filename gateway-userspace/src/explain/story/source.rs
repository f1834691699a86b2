//! What the policy and the operators say of a packet's source: lists, protect rules and bans.

use gateway_core::{image::list_flags, verdict::Reason};
use ipnet::IpNet;

use super::Teller;
use crate::{
    explain::Seen,
    policy::model::{List, ListAction, Protect},
};

impl Teller<'_> {
    /// Which lists the source is in.
    pub(super) fn lists(&mut self) {
        let source = self.source();
        let found = self.explained.seen.iter().find_map(|seen| match seen {
            Seen::Lists(entry) => Some(*entry),
            _ => None,
        });
        let Some(entry) = found else { return };
        let bits = entry.mask();
        let names: Vec<(String, Option<IpNet>)> = self
            .known
            .policy
            .lists
            .iter()
            .enumerate()
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, list)| {
                let net = self.known.listed.iter().find(|(name, _)| *name == list.name);
                (list.name.clone(), net.map(|(_, net)| *net))
            })
            .collect();
        if names.is_empty() {
            return self.step("lists", format!("{source} is in none"), &[]);
        }
        for (name, net) in names {
            let by = net.map_or_else(String::new, |net| format!(" by {net}"));
            let does = self
                .list(&name)
                .map_or("", |list| match (list.action, list.proxy) {
                    (Some(ListAction::Drop), _) => ", whose action is drop",
                    (Some(ListAction::Trust), false) => ", whose action is trust",
                    (Some(ListAction::Trust), true) => ", whose action is trust and which is a proxy's",
                    (None, true) => ", which is a proxy's: per-source limits and blocks skip it",
                    (None, false) => "",
                });
            self.step(
                "lists",
                format!("{source} is in {name}{by}{does}"),
                &["lists", &name],
            );
        }
    }

    fn list(&self, name: &str) -> Option<&List> {
        self.known.policy.lists.iter().find(|list| list.name == name)
    }

    /// The list whose action counts: of the longest prefix that has that action.
    fn acting(&self, action: ListAction) -> Option<String> {
        let acts = |name: &String| self.list(name).is_some_and(|list| list.action == Some(action));
        let listed = self.known.listed.iter().filter(|(name, _)| acts(name));
        listed
            .max_by_key(|(_, net)| net.prefix_len())
            .map(|(name, _)| name.clone())
    }

    /// Whether a protect rule holds.
    pub(super) fn protect(&mut self) -> bool {
        let seen = &self.explained.seen;
        let Some(found) = seen.iter().find_map(|seen| match seen {
            Seen::Protect(found) => Some(*found),
            _ => None,
        }) else {
            return false;
        };
        let source = self.source();
        let Some(flat) = found else {
            let what = format!("{source} is named, but not for this protocol and port");
            self.step("protect", what, &[]);
            return false;
        };
        let at = rule_of(&self.known.policy.protect, flat as usize);
        let number = (at + 1).to_string();
        let what = format!("rule {number} lets it pass before everything");
        self.step("protect", what, &["protect", &number, "sources"]);
        self.decides();
        true
    }

    /// Whether a ban decides.
    pub(super) fn ban(&mut self) -> bool {
        let mut ends = self.explained.seen.iter().filter_map(|seen| match seen {
            Seen::Ban { until_ns, service } => Some((*until_ns, *service)),
            _ => None,
        });
        let Some(first) = ends.next() else { return false };
        let (until_ns, service) = ends.fold(first, |one, other| if other.0 > one.0 { other } else { one });
        if self.reason() != Reason::Ban {
            self.step("ban", "not banned".to_owned(), &[]);
            return false;
        }
        let ban = self.known.ban.as_ref();
        let who = ban.map_or_else(|| self.source().to_string(), |ban| ban.prefix.to_string());
        let from = if service == 0 {
            "everywhere".to_owned()
        } else {
            format!("from {}", self.explained.service)
        };
        let until = if until_ns == u64::MAX {
            "until it is taken back".to_owned()
        } else {
            format!("until {}", self.wall(until_ns))
        };
        let why = ban.and_then(|ban| ban.reason.as_deref());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        self.step("ban", format!("{who} is banned {from} {until}{why}"), &[]);
        self.decides();
        true
    }

    /// Whether a list decides.
    pub(super) fn shut_out(&mut self) -> bool {
        if self.reason() != Reason::List {
            return false;
        }
        let drops = self.explained.seen.iter().any(|seen| match seen {
            Seen::Lists(entry) => entry.flags & list_flags::DROP != 0,
            _ => false,
        });
        if drops {
            let name = self.acting(ListAction::Drop).unwrap_or_default();
            self.step("list", format!("{name} drops it"), &["lists", &name, "action"]);
        } else if let Some(service) = self.service {
            let only = service.only.join(", ");
            let what = format!(
                "{} is only for {only}, and the source is in none of them",
                service.name
            );
            self.step("list", what, &["service", &service.name, "only"]);
        }
        self.decides();
        true
    }

    pub(super) fn trusted(&mut self) {
        if self.reason() != Reason::Trust && !self.seen_flag(list_flags::TRUST) {
            return;
        }
        let name = self.acting(ListAction::Trust).unwrap_or_default();
        let what = format!("{name} is trusted: neither per-source nor per-network limits nor blocks hold");
        self.step("list", what, &["lists", &name, "action"]);
        if self.reason() == Reason::Trust {
            self.decides();
        }
    }

    fn seen_flag(&self, flag: u32) -> bool {
        self.explained.seen.iter().any(|seen| match seen {
            Seen::Lists(entry) => entry.flags & flag != 0,
            _ => false,
        })
    }
}

/// Which rule of the policy a flattened one belongs to: each has one for every range of ports.
fn rule_of(rules: &[Protect], flat: usize) -> usize {
    let mut before = 0;
    let found = rules.iter().position(|rule| {
        before += rule.ports.len().max(1);
        flat < before
    });
    found.unwrap_or(0)
}
