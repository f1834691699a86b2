//! What happens by itself: bans and list entries end, counters are read for the rates, changes are saved.

use std::sync::Arc;

use super::engine::Engine;
use crate::{
    action::SavedActions,
    bans::SavedBans,
    lists::{Overlay, state_file},
    state::{StateError, Store},
};

/// How long a change may wait to be saved with the next ones, in nanoseconds.
const SAVE_WITHIN_NS: u64 = 500_000_000;

/// How long to wait after a failed save, in nanoseconds.
const RETRY_NS: u64 = 10_000_000_000;

/// What is to be written to the state directory. Writing waits for the disk, so it happens outside the engine.
#[derive(Debug)]
pub struct PendingSave {
    store: Arc<Store>,
    bans: Option<SavedBans>,
    actions: Option<SavedActions>,
    lists: Vec<(String, Overlay)>,
}

impl PendingSave {
    /// Writes everything; the first failure is told when all was tried.
    pub fn write(&self) -> Result<(), StateError> {
        let mut result = Ok(());
        if let Some(bans) = &self.bans {
            result = self.store.save(SavedBans::FILE, bans);
        }
        if let Some(actions) = &self.actions {
            let saved = self.store.save(SavedActions::FILE, actions);
            result = result.and(saved);
        }
        for (name, overlay) in &self.lists {
            let saved = self.store.save(&state_file(name), overlay);
            result = result.and(saved);
        }
        result
    }
}

impl Engine {
    /// Does what is due; returns when something is due next, on the kernel's clock.
    pub fn upkeep(&mut self) -> u64 {
        self.settle_policy();
        self.prune_bans();
        self.expire_lists();
        let step_ends = self.look_after_actions();
        if self.policy_unsaved.is_some() {
            self.write_down();
        }
        self.look_after_links();
        self.watch_faults();
        self.events.tick(self.clock.now());
        let now = self.clock.now();
        if now.ns >= self.rates.due_ns() {
            self.sample();
        }
        self.look_at_services();
        let mut next = self.rates.due_ns().min(self.seen.due_ns());
        if let Some(due) = self.events.due_ns() {
            next = next.min(due);
        }
        if let Some(end) = step_ends {
            next = next.min(end);
        }
        if let Some(end) = self.bans.next_end() {
            next = next.min(end);
        }
        if let Some(waiting) = &self.waiting {
            next = next.min(waiting.until_ns);
        } else if let Some(end) = self.lists.next_end() {
            let left = u64::try_from(end.duration_since(now.wall).as_nanos()).unwrap_or(0);
            next = next.min(now.ns.saturating_add(left));
        }
        if self.save_fault.is_some() || self.policy_unsaved.is_some() {
            next = next.min(now.ns + RETRY_NS);
        } else if self.unsaved() {
            next = next.min(now.ns + SAVE_WITHIN_NS);
        }
        next
    }

    /// Nanoseconds of the kernel's clock until `ns`.
    pub fn nanoseconds_to(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.clock.now().ns)
    }

    fn unsaved(&self) -> bool {
        self.bans_dirty || self.actions_dirty || !self.lists_dirty.is_empty()
    }

    /// Takes what is not saved yet; [`Self::saved`] must follow the write.
    pub fn take_unsaved(&mut self) -> Option<PendingSave> {
        if !self.unsaved() {
            return None;
        }
        let bans =
            std::mem::take(&mut self.bans_dirty).then(|| SavedBans::of(&self.bans, &self.clock.boot_id()));
        let actions = std::mem::take(&mut self.actions_dirty)
            .then(|| SavedActions::of(&self.actions, &self.clock.boot_id()));
        let names = std::mem::take(&mut self.lists_dirty);
        let lists = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.lists.overlay(&name)?.clone())));
        Some(PendingSave {
            lists: lists.collect(),
            bans,
            actions,
            store: Arc::clone(&self.store),
        })
    }

    /// What became of a write. A failed one is tried again with the next.
    pub fn saved(&mut self, save: PendingSave, result: Result<(), StateError>) {
        match result {
            Ok(()) => self.save_fault = None,
            Err(error) => {
                if self.save_fault.is_none() {
                    tracing::error!(%error, "what was changed is in force but cannot be saved; weir goes on trying");
                }
                self.save_fault = Some(error.to_string());
                self.bans_dirty |= save.bans.is_some();
                self.actions_dirty |= save.actions.is_some();
                self.lists_dirty
                    .extend(save.lists.into_iter().map(|(name, _)| name));
            }
        }
    }
}
