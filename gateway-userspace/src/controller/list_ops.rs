//! Lists fed live.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    ban_ops::LONGEST_SECONDS,
    engine::{Engine, whole_second},
};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        prefix::parse_prefixes,
        types::{
            ListAddRequest, ListAnswer, ListChanged, ListOrigin, ListRemoveRequest, ListReplaceRequest,
            ListStatus, ListsAnswer, SCHEMA, TemporaryPrefix,
        },
    },
    events::{Entry, Kind},
    lists::{Edit, Edited, Overlay},
    policy::model::List,
};

/// The largest change that a replacement may bring without more ado, in per cent.
const MAX_CHANGE_PERCENT: f64 = 20.0;

impl Engine {
    /// `GET /v1/lists`.
    pub fn show_lists(&self) -> ListsAnswer {
        let lists = self
            .in_force
            .prepared
            .policy
            .lists
            .iter()
            .map(|list| self.list_status(list))
            .collect();
        ListsAnswer {
            schema: SCHEMA,
            lists,
        }
    }

    /// `GET /v1/lists/{name}`.
    pub fn show_list(&self, name: &str) -> Result<ListAnswer, Failure> {
        let (list, base) = self.need_list(name)?;
        let now = whole_second(self.clock.now().wall);
        let overlay = self.lists.overlay(name);
        let prefixes = overlay.map_or_else(|| base.to_vec(), |overlay| overlay.content(base));
        let ends = overlay.into_iter().flat_map(|overlay| &overlay.added);
        let temporary = ends.filter_map(|(prefix, until)| {
            let until = (*until)?;
            let left = until.duration_since(now).as_secs();
            Some(TemporaryPrefix {
                prefix: *prefix,
                until,
                seconds_left: u64::try_from(left).unwrap_or(0),
            })
        });
        Ok(ListAnswer {
            schema: SCHEMA,
            list: self.list_status(list),
            prefixes,
            temporary: temporary.collect(),
        })
    }

    pub(super) fn list_status(&self, list: &List) -> ListStatus {
        let overlay = self.lists.overlay(&list.name);
        let by_policy = self
            .in_force
            .lists_at
            .get(&list.name)
            .copied()
            .unwrap_or(self.in_force.applied_at);
        let replaced = overlay.is_some_and(|overlay| overlay.replaced.is_some());
        let changed_at = match overlay {
            // What the policy says about a list that was replaced live changes nothing.
            Some(overlay) if replaced => overlay.changed_at,
            Some(overlay) => overlay.changed_at.max(by_policy),
            None => by_policy,
        };
        ListStatus {
            list: list.name.clone(),
            action: list.action,
            proxy: list.proxy,
            prefixes: self.in_force.list_sizes.get(&list.name).copied().unwrap_or(0),
            max_prefixes: u64::from(list.max_prefixes),
            revision: overlay.map_or(0, |overlay| overlay.revision),
            changed_at,
            source: if replaced {
                ListOrigin::Live
            } else {
                ListOrigin::Policy
            },
            temporary: overlay.map_or(0, |overlay| overlay.added.values().flatten().count() as u64),
        }
    }

    fn need_list(&self, name: &str) -> Result<(&List, &[IpNet]), Failure> {
        let prepared = &self.in_force.prepared;
        let list = prepared.policy.lists.iter().find(|list| list.name == name);
        if let (Some(list), Some(base)) = (list, prepared.base.get(name)) {
            return Ok((list, base));
        }
        let names: Vec<&str> = prepared
            .policy
            .lists
            .iter()
            .map(|list| list.name.as_str())
            .collect();
        let hint = if names.is_empty() {
            format!("the policy in force declares no lists; add [lists.{name}] to it and apply it")
        } else {
            format!("the policy in force declares: {}", names.join(", "))
        };
        Err(Failure::not_found(format!("there is no list {name}")).hint(hint))
    }

    /// `POST /v1/lists/{name}/replace`.
    pub fn list_replace(
        &mut self,
        name: &str,
        request: &ListReplaceRequest,
        peer: Option<Peer>,
    ) -> Result<ListChanged, Failure> {
        let max_change_percent = request.max_change_percent.unwrap_or(MAX_CHANGE_PERCENT);
        if !(max_change_percent.is_finite() && max_change_percent >= 0.0) {
            return Err(Failure::invalid(
                "max_change_percent must be a number from 0 on, such as 20",
            ));
        }
        let prefixes = parse_prefixes(request.prefixes.iter().map(String::as_str))?;
        self.edit_list(
            name,
            Edit::Replace {
                prefixes,
                max_change_percent,
                force: request.force,
            },
            ("replaced", request.force),
            peer,
        )
    }

    /// `POST /v1/lists/{name}/add`.
    pub fn list_add(
        &mut self,
        name: &str,
        request: &ListAddRequest,
        peer: Option<Peer>,
    ) -> Result<ListChanged, Failure> {
        let prefixes = some(&request.prefixes)?;
        let until = match request.for_seconds {
            None => None,
            Some(seconds @ 1..=LONGEST_SECONDS) => Some(self.wall_after(seconds)?),
            Some(_) => {
                return Err(Failure::invalid(format!(
                    "for_seconds must be 1 to {LONGEST_SECONDS}; leave it out for a prefix that stays"
                )));
            }
        };
        self.edit_list(
            name,
            Edit::Add { prefixes, until },
            ("added to", request.force),
            peer,
        )
    }

    /// `POST /v1/lists/{name}/remove`.
    pub fn list_remove(
        &mut self,
        name: &str,
        request: &ListRemoveRequest,
        peer: Option<Peer>,
    ) -> Result<ListChanged, Failure> {
        let prefixes = some(&request.prefixes)?;
        self.edit_list(
            name,
            Edit::Remove { prefixes },
            ("removed from", request.force),
            peer,
        )
    }

    fn wall_after(&self, seconds: u64) -> Result<Timestamp, Failure> {
        let end = self.clock.now().wall.checked_add(Duration::from_secs(seconds));
        end.map(whole_second)
            .map_err(|_| Failure::invalid("for_seconds reaches beyond the calendar"))
    }

    fn edit_list(
        &mut self,
        name: &str,
        edit: Edit,
        (what, force): (&str, bool),
        peer: Option<Peer>,
    ) -> Result<ListChanged, Failure> {
        self.none_waits()?;
        self.expire_lists();
        let now = whole_second(self.clock.now().wall);
        let (list, base) = self.need_list(name)?;
        let list = list.clone();
        let none = Overlay::default();
        let Edited {
            overlay,
            content,
            added,
            removed,
        } = self
            .lists
            .overlay(name)
            .unwrap_or(&none)
            .edit(&list, base, edit, now)?;
        if added + removed > 0 {
            let mut contents = self.lists.contents(&self.in_force.prepared.base);
            contents.insert(name.to_owned(), content);
            self.guard_list(name, &contents, force, peer)?;
            self.apply_lists(&contents)?;
        }
        let mut entry = Entry::new(
            Kind::List,
            format!("list {name} {what}: {added} prefixes in, {removed} out"),
        )
        .by(peer);
        entry.list = Some(name.to_owned());
        self.tell(entry);
        tracing::info!(
            list = name, revision = overlay.revision, added, removed, by = %Peer::show(peer), "list {what}"
        );
        self.lists.put(name, overlay);
        self.lists_dirty.insert(name.to_owned());
        Ok(ListChanged {
            schema: SCHEMA,
            list: self.list_status(&list),
            added,
            removed,
        })
    }

    /// Lets go of list entries whose time is over.
    pub(super) fn expire_lists(&mut self) {
        if self.waiting.is_some() {
            // They leave as soon as the policy is confirmed or taken back.
            return;
        }
        let now = self.clock.now().wall;
        let changed = self.lists.expire(now);
        if !changed.is_empty() {
            tracing::info!(lists = changed.join(" "), "temporary prefixes ended");
            for name in &changed {
                let mut entry = Entry::new(Kind::List, format!("temporary prefixes of list {name} ended"));
                entry.list = Some(name.clone());
                self.tell(entry);
            }
            self.lists_dirty.extend(changed);
        } else if !self.lists_behind {
            return;
        }
        let contents = self.lists.contents(&self.in_force.prepared.base);
        if let Err(error) = self.apply_lists(&contents) {
            // The books say they are gone; the next round of upkeep tries again.
            tracing::error!(%error, "cannot put the shorter lists in force");
            self.lists_behind = true;
        }
    }
}

fn some(prefixes: &[String]) -> Result<Vec<IpNet>, Failure> {
    if prefixes.is_empty() {
        return Err(Failure::invalid("the request names no prefix"));
    }
    parse_prefixes(prefixes.iter().map(String::as_str))
}
