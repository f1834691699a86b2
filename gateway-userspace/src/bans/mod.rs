//! The book of bans, and the kernel entries that it calls for.
//!
//! Pure: no clock, no disk, no kernel. Times are nanoseconds of the kernel's monotonic clock, [`NEVER`] for a ban
//! without end.
//!
//! The kernel looks up the longest banned prefix of a source. So that a lapsed `/32` never hides a living `/24`, every
//! prefix with a ban has one kernel entry that carries the latest end of its own ban and of every ban that covers it,
//! within the same scope (one service, or all of them). Making or taking back a ban therefore also changes the entries
//! that it covers. A ban that lapses changes none of them: whatever it had raised has ended with it.

mod check;
mod entries;
mod saved;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;

pub use self::check::{Protected, Protection};
use self::entries::ScopeBook;
pub use self::saved::{SavedBan, SavedBans};
use crate::kernel::BanEntry;

/// The end of a ban that does not end.
pub const NEVER: u64 = u64::MAX;

/// What a ban is for: one service, or (`None`) all of them.
pub type Scope = Option<String>;

/// One ban.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BanRecord {
    /// When it ends, on the kernel's monotonic clock in nanoseconds; [`NEVER`]: when it is taken back.
    pub until_ns: u64,
    /// The same on the wall clock, for people and for a reboot; `None`: never.
    pub until: Option<Timestamp>,
    /// When it was made or last renewed.
    pub created_at: Timestamp,
    /// Why, as whoever made it said.
    pub reason: Option<String>,
}

/// What must be written to the kernel after a change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KernelChanges {
    /// Entries to write.
    pub set: Vec<BanEntry>,
    /// Entries to delete.
    pub delete: Vec<(IpNet, Scope)>,
}

impl KernelChanges {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.delete.is_empty()
    }
}

/// One change to the book: `None` takes the ban back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The banned sources.
    pub prefix: IpNet,
    /// For which service.
    pub scope: Scope,
    /// The new ban, in the place of whatever was there.
    pub record: Option<BanRecord>,
}

/// Changes made to the book and not yet worked out for the kernel.
#[derive(Debug, Default)]
pub struct Staged {
    touched: BTreeMap<Scope, BTreeSet<IpNet>>,
    deleted: BTreeSet<(IpNet, Scope)>,
    undo: Vec<Change>,
}

/// What [`BanBook::commit`] worked out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Committed {
    /// What the kernel needs.
    pub kernel: KernelChanges,
    /// The changes that would restore the book.
    pub undo: Vec<Change>,
}

/// Every ban.
#[derive(Clone, Debug, Default)]
pub struct BanBook {
    scopes: BTreeMap<Scope, ScopeBook>,
    /// Ends to come, earliest first; bans without end are not in it.
    ends: BTreeSet<(u64, Scope, IpNet)>,
}

impl BanBook {
    /// The number of bans.
    pub fn len(&self) -> usize {
        self.scopes.values().map(ScopeBook::len).sum()
    }

    /// True when there is no ban.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// The ban of exactly this prefix.
    pub fn get(&self, prefix: &IpNet, scope: &Scope) -> Option<&BanRecord> {
        self.scopes.get(scope)?.get(prefix)
    }

    /// Every ban: those for all services first, then by service; within each by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Scope, &BanRecord)> {
        self.scopes
            .iter()
            .flat_map(|(scope, book)| book.iter().map(move |(prefix, record)| (prefix, scope, record)))
    }

    /// The ban that holds all of `prefix` for longest: its own or a wider one, for this scope or for all services.
    pub fn covering(&self, prefix: &IpNet, scope: &Scope) -> Option<(IpNet, Scope, &BanRecord)> {
        let own = self
            .scopes
            .get(scope)
            .and_then(|book| book.longest_cover(prefix))
            .map(|(p, r)| (p, scope.clone(), r));
        let all = (scope.is_some())
            .then(|| self.scopes.get(&None).and_then(|book| book.longest_cover(prefix)))
            .flatten()
            .map(|(p, r)| (p, None, r));
        // `max_by_key` keeps the last of equals: prefer the narrower scope by naming it last.
        [all, own]
            .into_iter()
            .flatten()
            .max_by_key(|(_, _, record)| record.until_ns)
    }

    /// Makes and takes back bans in one go.
    pub fn change(&mut self, changes: impl IntoIterator<Item = Change>) -> Committed {
        let mut staged = Staged::default();
        for change in changes {
            self.stage(change, &mut staged);
        }
        self.commit(staged)
    }

    /// Makes or takes back one ban of several. [`Self::get`] and [`Self::covering`] see it at once; the kernel's side
    /// is worked out by the [`Self::commit`] that must follow.
    pub fn stage(&mut self, change: Change, staged: &mut Staged) {
        let Change {
            prefix,
            scope,
            record,
        } = change;
        let old = if let Some(record) = record {
            let end = record.until_ns;
            let old = self
                .scopes
                .entry(scope.clone())
                .or_default()
                .insert(prefix, record);
            if let Some(old) = &old {
                self.ends.remove(&(old.until_ns, scope.clone(), prefix));
            }
            if end != NEVER {
                self.ends.insert((end, scope.clone(), prefix));
            }
            staged.deleted.remove(&(prefix, scope.clone()));
            old
        } else {
            let Some(old) = self.take(&prefix, &scope) else {
                return;
            };
            staged.deleted.insert((prefix, scope.clone()));
            Some(old)
        };
        staged.undo.push(Change {
            prefix,
            scope: scope.clone(),
            record: old,
        });
        staged.touched.entry(scope).or_default().insert(prefix);
    }

    /// Works out what the kernel needs after the staged changes.
    pub fn commit(&mut self, staged: Staged) -> Committed {
        let Staged {
            touched,
            deleted,
            mut undo,
        } = staged;
        // Restoring runs backwards, or a prefix changed twice would end with its middle value.
        undo.reverse();
        let mut kernel = KernelChanges {
            set: Vec::new(),
            delete: deleted.into_iter().collect(),
        };
        for (scope, roots) in touched {
            if let Some(book) = self.scopes.get_mut(&scope) {
                for (prefix, until_ns) in book.refresh(&roots) {
                    kernel.set.push(BanEntry {
                        prefix,
                        service: scope.clone(),
                        until_ns,
                    });
                }
            }
        }
        Committed { kernel, undo }
    }

    fn take(&mut self, prefix: &IpNet, scope: &Scope) -> Option<BanRecord> {
        let book = self.scopes.get_mut(scope)?;
        let record = book.remove(prefix)?;
        if book.len() == 0 {
            self.scopes.remove(scope);
        }
        self.ends.remove(&(record.until_ns, scope.clone(), *prefix));
        Some(record)
    }

    /// When the next ban ends.
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, _, _)| *end)
    }

    /// Strikes out the bans that have ended, and says which entries the kernel can drop (it ignores them already).
    pub fn prune(&mut self, now_ns: u64) -> Vec<(IpNet, Scope)> {
        let mut lapsed = Vec::new();
        while let Some((end, scope, prefix)) = self.ends.first().cloned()
            && end <= now_ns
        {
            self.ends.pop_first();
            self.take(&prefix, &scope);
            lapsed.push((prefix, scope));
        }
        lapsed
    }

    /// Every kernel entry that the bans call for.
    pub fn entries(&self) -> impl Iterator<Item = BanEntry> {
        self.scopes.iter().flat_map(|(scope, book)| {
            book.entries().map(|(prefix, until_ns)| BanEntry {
                prefix,
                service: scope.clone(),
                until_ns,
            })
        })
    }
}

#[cfg(test)]
mod tests;
