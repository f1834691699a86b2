//! The bans of one scope, with the effective end of each.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::BanRecord;

/// A ban and the end that its kernel entry carries.
#[derive(Clone, Debug)]
struct Held {
    record: BanRecord,
    effective_ns: u64,
}

/// The bans of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct ScopeBook {
    bans: BTreeMap<IpNet, Held>,
    /// How many bans there are of each length, so that a search for wider ones only tries lengths that occur.
    lengths: BTreeMap<(bool, u8), usize>,
}

fn length_key(prefix: &IpNet) -> (bool, u8) {
    (matches!(prefix, IpNet::V6(_)), prefix.prefix_len())
}

/// The prefix of `length` bits that `prefix` lies in.
fn widened(prefix: &IpNet, length: u8) -> Option<IpNet> {
    match prefix {
        IpNet::V4(net) => Ipv4Net::new(net.addr(), length)
            .ok()
            .map(|wide| IpNet::V4(wide.trunc())),
        IpNet::V6(net) => Ipv6Net::new(net.addr(), length)
            .ok()
            .map(|wide| IpNet::V6(wide.trunc())),
    }
}

/// The last of all prefixes inside `prefix`, in the order of [`IpNet`] (address, then length).
fn last_inside(prefix: &IpNet) -> IpNet {
    IpNet::from(prefix.broadcast())
}

impl ScopeBook {
    pub(super) fn len(&self) -> usize {
        self.bans.len()
    }

    pub(super) fn get(&self, prefix: &IpNet) -> Option<&BanRecord> {
        self.bans.get(prefix).map(|held| &held.record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&IpNet, &BanRecord)> {
        self.bans.iter().map(|(prefix, held)| (prefix, &held.record))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (IpNet, u64)> {
        self.bans
            .iter()
            .map(|(prefix, held)| (*prefix, held.effective_ns))
    }

    /// Inserts or replaces; the effective end is set by the [`Self::refresh`] that must follow.
    pub(super) fn insert(&mut self, prefix: IpNet, record: BanRecord) -> Option<BanRecord> {
        let old = self.bans.insert(
            prefix,
            Held {
                record,
                effective_ns: 0,
            },
        );
        if old.is_none() {
            *self.lengths.entry(length_key(&prefix)).or_default() += 1;
        }
        old.map(|held| held.record)
    }

    pub(super) fn remove(&mut self, prefix: &IpNet) -> Option<BanRecord> {
        let held = self.bans.remove(prefix)?;
        let key = length_key(prefix);
        if let Some(count) = self.lengths.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key);
            }
        }
        Some(held.record)
    }

    /// The bans that hold all of `prefix`, its own included, widest first.
    fn covers(&self, prefix: &IpNet) -> impl Iterator<Item = (IpNet, &BanRecord)> {
        let (v6, longest) = length_key(prefix);
        self.lengths
            .range((v6, 0)..=(v6, longest))
            .filter_map(move |((_, length), _)| {
                let wide = widened(prefix, *length)?;
                self.bans.get(&wide).map(|held| (wide, &held.record))
            })
    }

    /// Of the bans that hold all of `prefix`, the one that lasts longest (of equals the narrowest).
    pub(super) fn longest_cover(&self, prefix: &IpNet) -> Option<(IpNet, &BanRecord)> {
        self.covers(prefix).max_by_key(|(_, record)| record.until_ns)
    }

    /// Sets the effective ends of `roots` and of everything inside them, and returns those that changed.
    ///
    /// One walk for each outermost root: whatever covers an entry either covers its root or lies inside it.
    pub(super) fn refresh(&mut self, roots: &BTreeSet<IpNet>) -> Vec<(IpNet, u64)> {
        let mut changed = Vec::new();
        let mut done: Option<IpNet> = None;
        for root in roots {
            // Roots come in order, a wider one before all that it holds.
            if done.is_some_and(|outer| outer.contains(root)) {
                continue;
            }
            done = Some(*root);
            let above = self
                .covers(root)
                .filter(|(wide, _)| wide != root)
                .map(|(_, record)| record.until_ns)
                .max()
                .unwrap_or(0);
            // The chain of bans around the entry at hand, each with the latest end down to it.
            let mut chain: Vec<(IpNet, u64)> = Vec::new();
            for (prefix, held) in self.bans.range_mut(*root..=last_inside(root)) {
                while chain.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
                    chain.pop();
                }
                let effective = held
                    .record
                    .until_ns
                    .max(chain.last().map_or(above, |(_, end)| *end));
                chain.push((*prefix, effective));
                if held.effective_ns != effective {
                    held.effective_ns = effective;
                    changed.push((*prefix, effective));
                }
            }
        }
        changed
    }
}
