//! Lists and protect rules as one trie: for every prefix that any of them names, what holds for the sources whose
//! longest prefix it is.
//!
//! A trie answers with the longest prefix only, so each entry carries what its covering prefixes say as well: all
//! lists and rules that cover it, and the action of the longest list prefix that has one (on a tie, `drop`).

use std::collections::BTreeMap;

use gateway_core::image::{ListEntry, list_flags};
use ipnet::IpNet;

use super::{CompileError, prefix};
use crate::policy::model::{List, ListAction, Protect};

/// What one prefix itself says.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    lists: u64,
    rules: u64,
    drop: bool,
    trust: bool,
    proxy: bool,
}

/// Compiles lists (with their contents, in the order of `lists`) and protect rules (`rules[i]`: the bits of rule `i` after
/// flattening) into the entries of the tries.
pub fn compile(
    lists: &[List],
    contents: &BTreeMap<String, Vec<IpNet>>,
    protect: &[Protect],
    rules: &[u64],
) -> Result<Vec<(IpNet, ListEntry)>, CompileError> {
    let mut own: Vec<(IpNet, Own)> = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        for net in contents.get(&list.name).map_or(&[][..], Vec::as_slice) {
            let says = Own {
                lists: 1 << number,
                rules: 0,
                drop: list.action == Some(ListAction::Drop),
                trust: list.action == Some(ListAction::Trust),
                proxy: list.proxy,
            };
            own.push((*net, says));
        }
    }
    for (rule, bits) in protect.iter().zip(rules) {
        own.extend(rule.sources.iter().map(|net| {
            (
                *net,
                Own {
                    rules: *bits,
                    ..Own::default()
                },
            )
        }));
    }
    own.sort_by(|left, right| prefix::order(&left.0, &right.0));

    let mut entries: Vec<(IpNet, ListEntry)> = Vec::with_capacity(own.len());
    let mut around: Vec<(IpNet, ListEntry)> = Vec::new();
    let mut at = 0;
    while at < own.len() {
        let net = own[at].0;
        let mut says = Own::default();
        while let Some((same, more)) = own.get(at)
            && *same == net
        {
            says.lists |= more.lists;
            says.rules |= more.rules;
            says.drop |= more.drop;
            says.trust |= more.trust;
            says.proxy |= more.proxy;
            at += 1;
        }
        while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
            around.pop();
        }
        let outer = around.last().map(|(_, entry)| *entry).unwrap_or_default();
        let action = match (says.drop, says.trust) {
            (true, _) => list_flags::DROP,
            (false, true) => list_flags::TRUST,
            (false, false) => outer.flags & (list_flags::DROP | list_flags::TRUST),
        };
        let proxy = if says.proxy {
            list_flags::PROXY
        } else {
            outer.flags & list_flags::PROXY
        };
        let (all, all_rules) = (outer.mask() | says.lists, outer.rules() | says.rules);
        let entry = ListEntry {
            lists: [all as u32, (all >> 32) as u32],
            protect: [all_rules as u32, (all_rules >> 32) as u32],
            flags: action | proxy,
        };
        around.push((net, entry));
        entries.push((net, entry));
    }
    let (v4, v6) = entries.iter().fold((0usize, 0usize), |(v4, v6), (net, _)| {
        if net.addr().is_ipv4() {
            (v4 + 1, v6)
        } else {
            (v4, v6 + 1)
        }
    });
    if v4.max(v6) > super::MAX_TRIE {
        return Err(CompileError::TooMany {
            what: "list prefixes of one family",
            most: super::MAX_TRIE as u32,
        });
    }
    Ok(entries)
}
