//! Live changes to the policy's lists.
//!
//! Pure: no clock, no disk, no kernel. A list's content in force is `(base − removed) ∪ added`. The base is what the
//! policy and its files say until a `replace` puts a content of its own in their place. `added` and `removed` are kept
//! apart from the base, so that a new policy (or a changed file) and the changes made live do not erase each other.
//! Every live change counts up the list's own revision.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::{error::Failure, types::code},
    kernel::ListContents,
    policy::model::List,
};

/// The live changes of one list, as they stand in its state file.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Counts the live changes.
    pub revision: u64,
    /// When the last one was made.
    pub changed_at: Timestamp,
    /// The content that took the policy's place, sorted; `None`: the policy's holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Vec<IpNet>>,
    /// What was added, with the time that it leaves again; `None`: it stays.
    #[serde(default, with = "pairs")]
    pub added: BTreeMap<IpNet, Option<Timestamp>>,
    /// What was taken out.
    #[serde(default)]
    pub removed: BTreeSet<IpNet>,
}

/// A map with prefixes as keys is a list of pairs in JSON: one form for reading and writing, whatever the key type.
mod pairs {
    use std::collections::BTreeMap;

    use ipnet::IpNet;
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    type Added = BTreeMap<IpNet, Option<Timestamp>>;

    pub(super) fn serialize<S: Serializer>(added: &Added, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(added)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Added, D::Error> {
        let pairs: Vec<(IpNet, Option<Timestamp>)> = Vec::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect())
    }
}

/// A change of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Put this content in the place of the list's.
    Replace {
        /// The new content.
        prefixes: Vec<IpNet>,
        /// The largest change allowed, in per cent of the size before.
        max_change_percent: f64,
        /// Take it even when it is empty or changes more than that.
        force: bool,
    },
    /// Add prefixes.
    Add {
        /// The prefixes.
        prefixes: Vec<IpNet>,
        /// When they leave again; `None`: they stay.
        until: Option<Timestamp>,
    },
    /// Take prefixes out.
    Remove {
        /// The prefixes.
        prefixes: Vec<IpNet>,
    },
}

/// What an edit would do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edited {
    /// The list's live changes afterwards.
    pub overlay: Overlay,
    /// Its content afterwards, sorted.
    pub content: Vec<IpNet>,
    /// Prefixes that were not in it before.
    pub added: u64,
    /// Prefixes that are no longer in it.
    pub removed: u64,
}

impl Overlay {
    /// The content in force over the policy's `base` (sorted).
    pub fn content(&self, base: &[IpNet]) -> Vec<IpNet> {
        let base = self.replaced.as_deref().unwrap_or(base);
        let kept = base.iter().filter(|prefix| !self.removed.contains(prefix));
        let mut content: Vec<IpNet> = kept.chain(self.added.keys()).copied().collect();
        content.sort_unstable();
        content.dedup();
        content
    }

    /// When the next prefix leaves.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.added.values().flatten().min().copied()
    }

    /// Lets go of the prefixes whose time is over; true when there was one.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let ended = self
            .added
            .values()
            .flatten()
            .filter(|until| **until <= now)
            .max()
            .copied();
        let Some(ended) = ended else { return false };
        self.added
            .retain(|_, until| until.is_none_or(|until| until > now));
        self.changed_at = self.changed_at.max(ended);
        true
    }

    /// Works out an edit without making it.
    pub fn edit(&self, list: &List, base: &[IpNet], edit: Edit, now: Timestamp) -> Result<Edited, Failure> {
        let before = self.content(base);
        let mut overlay = self.clone();
        match edit {
            Edit::Replace {
                mut prefixes,
                max_change_percent,
                force,
            } => {
                prefixes.sort_unstable();
                prefixes.dedup();
                if !force {
                    check_feed(&list.name, &before, &prefixes, max_change_percent)?;
                }
                overlay.added.clear();
                overlay.removed.clear();
                overlay.replaced = Some(prefixes);
            }
            Edit::Add { prefixes, until } => overlay.add(base, &prefixes, until),
            Edit::Remove { prefixes } => overlay.remove(&list.name, base, &before, &prefixes)?,
        }
        overlay.revision += 1;
        overlay.changed_at = now;
        let content = overlay.content(base);
        if content.len() as u64 > u64::from(list.max_prefixes) {
            return Err(Failure::new(
                code::TOO_LARGE,
                format!(
                    "list {} would hold {} prefixes, more than its max_prefixes of {}",
                    list.name,
                    content.len(),
                    list.max_prefixes
                ),
            )
            .hint("raise max_prefixes in the policy, or merge neighbouring prefixes in the feed"));
        }
        let (added, removed) = difference(&before, &content);
        Ok(Edited {
            overlay,
            content,
            added,
            removed,
        })
    }

    fn add(&mut self, base: &[IpNet], prefixes: &[IpNet], until: Option<Timestamp>) {
        for prefix in prefixes {
            let base = self.replaced.as_deref().unwrap_or(base);
            let in_base = base.binary_search(prefix).is_ok();
            match until {
                // It stands in the list for good already: an end must not shorten that.
                Some(_) if in_base && !self.removed.contains(prefix) => {}
                Some(until) => {
                    let end = self.added.entry(*prefix).or_insert(Some(until));
                    *end = end.map(|old| old.max(until));
                }
                None if in_base => {
                    self.removed.remove(prefix);
                    self.added.remove(prefix);
                }
                None => {
                    self.added.insert(*prefix, None);
                }
            }
        }
    }

    fn remove(
        &mut self,
        name: &str,
        base: &[IpNet],
        before: &[IpNet],
        prefixes: &[IpNet],
    ) -> Result<(), Failure> {
        let absent: Vec<&IpNet> = prefixes
            .iter()
            .filter(|prefix| before.binary_search(prefix).is_err())
            .collect();
        if let Some(first) = absent.first() {
            let wider = before.iter().find(|held| held.contains(*first));
            let hint = match wider {
                Some(wider) => format!("{wider} is in it and holds {first}; remove that, or keep it"),
                None => format!("`weir list show {name}` prints what is in it"),
            };
            let more = match absent.len() {
                1 => String::new(),
                several => format!(" (nor are {} others)", several - 1),
            };
            return Err(Failure::not_found(format!(
                "{first} is not in list {name}{more}; nothing was removed"
            ))
            .hint(hint));
        }
        let base = self.replaced.as_deref().unwrap_or(base);
        for prefix in prefixes {
            self.added.remove(prefix);
            // Only what the base holds: an addition taken back must not hide what a later policy names.
            if base.binary_search(prefix).is_ok() {
                self.removed.insert(*prefix);
            }
        }
        Ok(())
    }
}

/// A feed that came back empty or wildly different is more often a broken feed than a changed world.
fn check_feed(name: &str, before: &[IpNet], after: &[IpNet], max_change_percent: f64) -> Result<(), Failure> {
    if after.is_empty() {
        return Err(
            Failure::new(code::REFUSED, format!("the feed for list {name} is empty"))
                .hint("check the feed; to empty the list all the same, use --force"),
        );
    }
    if before.is_empty() {
        return Ok(());
    }
    let (added, removed) = difference(before, after);
    let percent = (added + removed) as f64 * 100.0 / before.len() as f64;
    if percent > max_change_percent {
        return Err(Failure::new(
            code::REFUSED,
            format!(
                "the feed would change list {name} by {percent:.1} % ({added} prefixes more, {removed} fewer, of {}), over the {max_change_percent} % allowed",
                before.len()
            ),
        )
        .hint("check the feed; to take it all the same, use --force or a larger --max-change"));
    }
    Ok(())
}

/// How many prefixes of sorted `after` are not in sorted `before`, and the other way round.
fn difference(before: &[IpNet], after: &[IpNet]) -> (u64, u64) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let (mut added, mut removed) = (0, 0);
    while let (Some(o), Some(n)) = (old.peek(), new.peek()) {
        let order = o.cmp(n);
        if order.is_lt() {
            removed += 1;
        } else if order.is_gt() {
            added += 1;
        }
        if order.is_le() {
            old.next();
        }
        if order.is_ge() {
            new.next();
        }
    }
    (added + new.count() as u64, removed + old.count() as u64)
}

/// The name of a list's state file. Names are letters, digits, `_`, `-` and `.`, so this is never a path.
pub fn state_file(list: &str) -> String {
    format!("{STATE_PREFIX}{list}.json")
}

/// The list whose state file this is.
pub fn list_of(state_file: &str) -> Option<&str> {
    state_file.strip_prefix(STATE_PREFIX)?.strip_suffix(".json")
}

/// What the names of all lists' state files begin with.
pub const STATE_PREFIX: &str = "list-";

/// The live changes of every list, also of those that the policy in force does not declare (they are kept for later).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListBook {
    overlays: BTreeMap<String, Overlay>,
}

impl ListBook {
    /// The live changes of a list; none if it was never changed.
    pub fn overlay(&self, list: &str) -> Option<&Overlay> {
        self.overlays.get(list)
    }

    /// Takes over a list's live changes (from an edit or a state file).
    pub fn put(&mut self, list: &str, overlay: Overlay) {
        self.overlays.insert(list.to_owned(), overlay);
    }

    /// The content in force of every list that the policy declares, over what the policy says they are.
    pub fn contents(&self, base: &ListContents) -> ListContents {
        base.iter()
            .map(|(name, base)| {
                let content = self
                    .overlays
                    .get(name)
                    .map_or_else(|| base.clone(), |overlay| overlay.content(base));
                (name.clone(), content)
            })
            .collect()
    }

    /// When the next prefix leaves any list.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.overlays.values().filter_map(Overlay::next_end).min()
    }

    /// Lets go of what has ended, and names the lists that changed.
    pub fn expire(&mut self, now: Timestamp) -> Vec<String> {
        let changed = self
            .overlays
            .iter_mut()
            .filter_map(|(name, overlay)| overlay.expire(now).then(|| name.clone()));
        changed.collect()
    }
}

#[cfg(test)]
mod tests;
