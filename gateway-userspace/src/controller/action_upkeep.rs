//! Steps against attacks, once they are in force: how they end, are undone, shown and explained.

use ipnet::IpNet;

use super::{
    action_ops::reason,
    engine::{Engine, whole_second},
};
use crate::{
    action::{InForce, What, percent},
    api::{
        actions::{ActionState, ActionStatus, ActionsUndone, UndoRequest},
        error::Failure,
        peer::Peer,
        types::SCHEMA,
    },
    bans::{Change, Staged},
    events::{Entry, Kind},
    kernel::Lever,
    policy::model::AttackAction,
};

impl Engine {
    /// Takes off what is in force at a service before its time.
    pub(super) fn step_back(&mut self, name: &str, why: &str, peer: Option<Peer>) {
        if let Err(failure) = self.take_off(name) {
            tracing::warn!(service = name, %failure, "a step cannot be taken back; it ends by itself");
            return;
        }
        if let Some(step) = self.actions.ended(name) {
            self.tell_end(name, &step, why, peer);
        }
    }

    fn tell_end(&mut self, name: &str, step: &InForce, why: &str, peer: Option<Peer>) {
        self.actions_dirty = true;
        tracing::info!(service = name, step = step.title(), why, by = %Peer::show(peer), "a step is over");
        let what = format!("{} against an attack on {name}: over", step.title());
        let mut entry = Entry::new(Kind::ActionEnded, what)
            .why(Some(why.to_owned()))
            .by(peer);
        entry.service = Some(name.to_owned());
        self.tell(entry);
    }

    /// Takes a service's own lever or bans off; what somebody else has put there stays.
    fn take_off(&mut self, name: &str) -> Result<(), Failure> {
        let Some(step) = self.actions.step(name) else {
            return Ok(());
        };
        match &step.what {
            What::Tighten { .. } => {
                let levers = self.backend.levers()?;
                let kept: Vec<Lever> = levers
                    .iter()
                    .filter(|lever| !self.is_own(name, lever))
                    .cloned()
                    .collect();
                if kept.len() != levers.len() {
                    self.none_waits()?;
                    self.backend.set_levers(&kept)?;
                }
            }
            What::Ban { bans } => {
                let scope = Some(name.to_owned());
                let reason = self.actions.get(name).map(|standing| reason(name, standing));
                let ours = |prefix: &&IpNet| {
                    let record = self.bans.get(prefix, &scope);
                    record.is_some_and(|record| record.reason == reason)
                };
                let ours: Vec<IpNet> = bans.keys().filter(ours).copied().collect();
                let mut staged = Staged::default();
                for prefix in ours {
                    let change = Change {
                        prefix,
                        scope: scope.clone(),
                        record: None,
                    };
                    self.bans.stage(change, &mut staged);
                }
                self.commit_bans(staged)?;
            }
        }
        Ok(())
    }

    /// Steps that have ended by themselves are struck out, and those that somebody else has ended or that the policy no longer
    /// wants. Returns when the next one ends.
    pub(super) fn look_after_actions(&mut self) -> Option<u64> {
        let now = self.clock.now();
        for name in self.actions.over(now.ns) {
            if let Some(step) = self.actions.ended(&name) {
                self.tell_end(&name, &step, "its time is over", None);
            }
        }
        let standing: Vec<String> = self.actions.iter().map(|(name, _)| name.to_owned()).collect();
        for name in standing {
            let wanted = self.acts(&name).map(|settings| settings.action);
            let present = match self.actions.step(&name).map(|step| &step.what) {
                Some(What::Tighten { .. }) => Some(AttackAction::Tighten),
                Some(What::Ban { .. }) => Some(AttackAction::Ban),
                None => None,
            };
            if present.is_some() && present != wanted {
                self.step_back(&name, "the policy no longer says so", None);
            } else if present == Some(AttackAction::Tighten) && self.lever_is_gone(&name) {
                // Whoever took it off, or put another in its place, wants it so.
                if let Some(step) = self.actions.undo(&name) {
                    self.tell_end(&name, &step, "its lever was cleared or replaced", None);
                }
            }
            if wanted.is_none() && self.actions.step(&name).is_none() {
                self.actions.forget(&name);
                self.actions_dirty = true;
            }
        }
        self.actions.next_end()
    }

    fn lever_is_gone(&self, name: &str) -> bool {
        match self.backend.levers() {
            Ok(levers) => !levers.iter().any(|lever| self.is_own(name, lever)),
            Err(_) => false,
        }
    }

    /// `POST /v1/anomalies/undo`: takes back what was done about one service, or about all, and does no more until the
    /// attack has ended.
    pub fn undo_actions(
        &mut self,
        request: &UndoRequest,
        peer: Option<Peer>,
    ) -> Result<ActionsUndone, Failure> {
        let names: Vec<String> = match &request.service {
            Some(name) => {
                self.need_service(name)?;
                vec![name.clone()]
            }
            None => self.actions.iter().map(|(name, _)| name.to_owned()).collect(),
        };
        let mut undone = Vec::new();
        for name in &names {
            if self.actions.get(name).is_none_or(|one| one.undone) {
                continue;
            }
            let status = self.action_status(name);
            self.take_off(name)?;
            if let Some(step) = self.actions.undo(name) {
                self.tell_end(name, &step, "undone", peer);
            } else {
                self.actions_dirty = true;
            }
            undone.extend(status);
        }
        if undone.is_empty() {
            return Err(
                Failure::not_found("nothing was done by itself that could be undone").hint(
                    "`weir status` shows what is done about attacks, `weir lever show` and `weir bans` what else is in force",
                ),
            );
        }
        Ok(ActionsUndone {
            schema: SCHEMA,
            undone,
        })
    }

    /// What is done, or not done, about attacks.
    pub(super) fn action_statuses(&self) -> Vec<ActionStatus> {
        let names = self.actions.iter().map(|(name, _)| name);
        names.filter_map(|name| self.action_status(name)).collect()
    }

    fn action_status(&self, name: &str) -> Option<ActionStatus> {
        let standing = self.actions.get(name)?;
        let now = self.clock.now();
        let step = standing.step.as_ref();
        let state = match step {
            Some(_) => ActionState::InForce,
            None if standing.undone => ActionState::Undone,
            None => ActionState::Withheld,
        };
        let action = match step.map(|step| &step.what) {
            Some(What::Tighten { .. }) => AttackAction::Tighten,
            Some(What::Ban { .. }) => AttackAction::Ban,
            None => self
                .acts(name)
                .map_or(AttackAction::Alert, |settings| settings.action),
        };
        let why = match step {
            Some(step) => Some(step.why.clone()),
            None => standing.withheld.as_ref().map(|(_, why)| why.clone()),
        };
        Some(ActionStatus {
            service: name.to_owned(),
            kind: standing.kind.name().to_owned(),
            attack_since: standing.since,
            action,
            state,
            percent: step.and_then(|step| match step.what {
                What::Tighten { percent } => Some(percent),
                What::Ban { .. } => None,
            }),
            bans: step.and_then(|step| match &step.what {
                What::Ban { bans } => Some(bans.keys().copied().collect()),
                What::Tighten { .. } => None,
            }),
            share: step.map(|step| step.share),
            since: step.map(|step| step.since),
            until: step.map(|step| whole_second(step.until)),
            seconds_left: step.map(|step| now.seconds_to(step.until_ns)),
            why,
        })
    }

    /// What `weir explain` says of a scale that is a step's.
    pub(super) fn automatic(&self, name: &str) -> Option<String> {
        let standing = self.actions.get(name)?;
        let step = standing.step.as_ref()?;
        matches!(step.what, What::Tighten { .. }).then(|| {
            format!(
                "weir did so by itself against an attack ({}): at most {} of normal sources are hit; `weir anomalies undo {name}` takes it back",
                standing.kind.name(),
                percent(step.share)
            )
        })
    }
}
