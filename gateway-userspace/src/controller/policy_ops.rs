//! Changing the policy: apply, confirm, take back, and the start's part of it.
//!
//! What the state directory says is written in an order in which a crash at any point can be read: what a pending policy
//! goes back to before it is in force, and what came to stay in `policy.json` before `history.json`.

use jiff::Timestamp;
use std::collections::BTreeMap;

use super::{
    engine::{Engine, InForce, sizes, whole_second},
    prepare::Prepared,
};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        types::{
            HistoryAnswer, PolicyApplied, PolicyConfirmed, PolicyPending, PolicyRolledBack, RevisionStatus,
            SCHEMA, code,
        },
    },
    bans::Protection,
    events::{Entry, Kind},
    kernel::{Applied, KernelError, Lever},
    state::{History, Outcome, PolicyState, Revision, StateError},
};

/// The longest that a policy may wait for confirmation, in seconds.
const LONGEST_SECONDS: u64 = 3_600;

/// A policy in force that waits for confirmation.
pub(super) struct Waiting {
    /// When the kernel goes back, on its own clock.
    pub(super) until_ns: u64,
    /// To what.
    pub(super) before: InForce,
}

/// What a rollback would bring back.
#[derive(Clone, Debug)]
pub enum Target {
    /// What was in force before the policy that waits.
    Before,
    /// An earlier revision, put in force as a new one.
    Revision(Box<Revision>),
}

/// How a policy is to be put in force.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// Seconds within which it is to be confirmed.
    within: Option<u64>,
    /// The revision that it brings back.
    restores: Option<u64>,
}

impl Engine {
    /// The policy file, read anew (SIGHUP), is put in force.
    pub fn reload(&mut self, file: Prepared) -> Result<PolicyApplied, Failure> {
        // The file counts as read only when it is in force: one that needs a restart is taken by the restart.
        self.apply_guarded(file, None, true, None)
    }

    /// Puts a policy in force for good. On any failure the old one stays.
    pub fn apply(&mut self, prepared: Prepared, peer: Option<Peer>) -> Result<PolicyApplied, Failure> {
        self.change_policy(prepared, How::default(), peer)
    }

    /// Puts a policy in force; unless it is confirmed within so many seconds, the kernel goes back to the one before.
    pub fn apply_within(
        &mut self,
        prepared: Prepared,
        seconds: u64,
        peer: Option<Peer>,
    ) -> Result<PolicyApplied, Failure> {
        if !(1..=LONGEST_SECONDS).contains(&seconds) {
            return Err(Failure::invalid(format!(
                "confirm_within_seconds must be 1 to {LONGEST_SECONDS}"
            )));
        }
        let how = How {
            within: Some(seconds),
            ..How::default()
        };
        self.change_policy(prepared, how, peer)
    }

    fn change_policy(
        &mut self,
        prepared: Prepared,
        how: How,
        peer: Option<Peer>,
    ) -> Result<PolicyApplied, Failure> {
        self.none_waits()?;
        let mut warnings = self.admissible(&prepared)?;
        let now = self.clock.now();
        let applied_at = whole_second(now.wall);
        let until_ns = how.within.map(|seconds| now.ns_after(seconds));
        let revision = self.in_force.revision.max(self.history.newest()) + 1;
        let record = Revision {
            revision,
            sha256: prepared.sha256.clone(),
            path: prepared.path.clone(),
            applied_at,
            by: peer.map(Peer::describe),
            outcome: Outcome::InForce,
            restores: how.restores,
            confirmed_at: Some(applied_at),
            ended_at: None,
            why: None,
            text: Some(prepared.text.clone()),
        };
        let read_before = self.file_sha256.clone();
        if self.file.sha256().is_ok_and(|sha256| sha256 == prepared.sha256) {
            self.file_sha256.clone_from(&prepared.sha256);
        }
        if until_ns.is_some() {
            // A start must know of it before the kernel does: else it would take the file's policy, unconfirmed, for good.
            let mut pending = record.clone();
            pending.outcome = Outcome::Pending;
            pending.confirmed_at = None;
            let history = self.history.clone();
            self.history.add(pending, Outcome::Replaced);
            if let Err(error) = self.save_policy() {
                self.history = history;
                self.file_sha256 = read_before;
                return Err(Failure::internal(format!(
                    "the policy is not applied: what it would go back to cannot be written down: {error}"
                )));
            }
        }
        let applied = match self.put_in_force(prepared, revision, applied_at, until_ns) {
            Ok(applied) => applied,
            Err(failure) => {
                self.file_sha256 = read_before;
                let failed = Revision {
                    outcome: Outcome::Failed,
                    confirmed_at: None,
                    ended_at: Some(applied_at),
                    why: Some(failure.message.clone()),
                    ..record
                };
                self.history.add(failed, Outcome::Replaced);
                self.write_down();
                return Err(failure);
            }
        };
        if until_ns.is_none() {
            let ended = if how.restores.is_some() {
                Outcome::RolledBack
            } else {
                Outcome::Replaced
            };
            self.history.add(record, ended);
            warnings.extend(self.write_down());
        }
        if let Err(failure) = self.reconcile_bans() {
            warnings.push(format!("the policy is in force, but not every ban is: {failure}"));
        }
        warnings.extend(self.set_door());
        let answer = PolicyApplied {
            schema: SCHEMA,
            revision,
            sha256: self.in_force.prepared.sha256.clone(),
            services: applied.services as u64,
            prefixes: applied.prefixes as u64,
            took_seconds: applied.took.as_secs_f64(),
            pending: self.pending_status(),
            warnings,
        };
        tracing::info!(
            revision, sha256 = answer.sha256, path = self.in_force.prepared.path, services = answer.services,
            prefixes = answer.prefixes, took_ms = applied.took.as_millis(), confirm_within_seconds = how.within,
            by = %Peer::show(peer), "policy in force"
        );
        for warning in &answer.warnings {
            tracing::warn!("{warning}");
        }
        let path = &self.in_force.prepared.path;
        let what = match how.within {
            None => format!("policy revision {revision} of {path} is in force"),
            Some(seconds) => {
                format!(
                    "policy revision {revision} of {path} is in force, to be confirmed within {seconds} s"
                )
            }
        };
        self.tell_policy(revision, what, peer);
        Ok(answer)
    }

    /// Whether this controller can put a policy in force, and what to know about it then.
    fn admissible(&self, prepared: &Prepared) -> Result<Vec<String>, Failure> {
        let tracked = prepared.policy.source.max_tracked;
        if tracked != self.tracked {
            return Err(Failure::new(
                code::CONFLICT,
                format!(
                    "[source] max_tracked is {tracked}, and the source table was made with {}; it is made once",
                    self.tracked
                ),
            )
            .hint("keep the number, or write the policy to the controller's file and restart it (buckets start full then)"));
        }
        let mut warnings = prepared.warnings.clone();
        let named = prepared.policy.interfaces.iter().map(String::as_str);
        let unattached: Vec<&str> = named.filter(|name| !self.wanted.contains(*name)).collect();
        if !unattached.is_empty() {
            warnings.push(format!(
                "the policy names interfaces that this controller was not started for: {}; restart it to attach to them",
                unattached.join(", ")
            ));
        }
        Ok(warnings)
    }

    /// Puts a policy in force in the kernel and takes it into the books; the bans are the caller's to reconcile.
    pub(super) fn put_in_force(
        &mut self,
        prepared: Prepared,
        revision: u64,
        applied_at: Timestamp,
        until_ns: Option<u64>,
    ) -> Result<Applied, Failure> {
        let contents = self.lists.contents(&prepared.base);
        for list in &prepared.policy.lists {
            let held = contents.get(&list.name).map_or(0, Vec::len);
            if held as u64 > u64::from(list.max_prefixes) {
                return Err(Failure::new(
                    code::CONFLICT,
                    format!(
                        "list {} holds {held} prefixes with its live changes, more than the policy's max_prefixes of {}",
                        list.name, list.max_prefixes
                    ),
                )
                .hint("raise max_prefixes, or feed the list less with `weir list replace`"));
            }
        }
        self.look_after_pins();
        let levers = self.levers_for(&prepared)?;
        let applied =
            self.backend
                .apply_until(&prepared.policy, &prepared.text, &contents, &levers, until_ns)?;

        let now = whole_second(self.clock.now().wall);
        let lists_at = prepared.base.iter().map(|(name, content)| {
            let unchanged = self.in_force.prepared.base.get(name) == Some(content);
            let before = self.in_force.lists_at.get(name).filter(|_| unchanged);
            (name.clone(), before.copied().unwrap_or(now))
        });
        let lists_at: BTreeMap<String, Timestamp> = lists_at.collect();
        let fresh = InForce {
            protection: Protection::of(&prepared.policy),
            list_sizes: sizes(&contents),
            lists_at,
            prepared,
            revision,
            applied_at,
        };
        let before = std::mem::replace(&mut self.in_force, fresh);
        self.waiting = until_ns.map(|until_ns| Waiting { until_ns, before });
        self.beat();
        Ok(applied)
    }

    /// The running levers that still have their service in `prepared`.
    fn levers_for(&self, prepared: &Prepared) -> Result<Vec<Lever>, Failure> {
        let mut levers = self.backend.levers()?;
        levers.retain(|lever| match lever {
            Lever::Bypass { service: None, .. } => true,
            Lever::Bypass {
                service: Some(service),
                ..
            }
            | Lever::Scale { service, .. } => {
                let kept = prepared.has_service(service);
                if !kept {
                    tracing::warn!(service, "a lever ends: the new policy has no such service");
                }
                kept
            }
        });
        Ok(levers)
    }

    /// Keeps the policy that waits.
    pub fn confirm(&mut self, peer: Option<Peer>) -> Result<PolicyConfirmed, Failure> {
        self.settle_policy();
        if self.waiting.is_none() {
            return Err(Failure::from(KernelError::NotPending)
                .hint("`weir policy history` says what became of the last one"));
        }
        self.backend.confirm()?;
        self.waiting = None;
        let revision = self.in_force.revision;
        self.history
            .confirm(revision, whole_second(self.clock.now().wall));
        let warnings: Vec<String> = self.write_down().into_iter().collect();
        tracing::info!(revision, by = %Peer::show(peer), "policy confirmed");
        self.tell_policy(revision, format!("policy revision {revision} is confirmed"), peer);
        Ok(PolicyConfirmed {
            schema: SCHEMA,
            revision,
            sha256: self.in_force.prepared.sha256.clone(),
            warnings,
        })
    }

    /// What a rollback would bring back.
    pub fn rollback_target(&mut self, to: Option<u64>) -> Result<Target, Failure> {
        self.settle_policy();
        if let Some(waiting) = &self.waiting {
            return match to {
                Some(to) if to != waiting.before.revision => Err(Failure::from(KernelError::Pending)
                    .hint("`weir policy rollback` without --to takes back the one that waits")),
                _ => Ok(Target::Before),
            };
        }
        let current = &self.in_force;
        let hint = "`weir policy history` lists the revisions";
        let target = match to {
            None => self
                .history
                .before(current.revision, &current.prepared.sha256)
                .ok_or_else(|| {
                    Failure::not_found("the history has no earlier policy to go back to").hint(hint)
                })?,
            Some(to) => self
                .history
                .get(to)
                .ok_or_else(|| Failure::not_found(format!("the history has no revision {to}")).hint(hint))?,
        };
        if target.sha256 == current.prepared.sha256 {
            return Err(Failure::new(
                code::NO_EFFECT,
                format!(
                    "revision {} says what is in force as revision {}",
                    target.revision, current.revision
                ),
            )
            .hint(hint));
        }
        if target.text.is_none() {
            return Err(Failure::not_found(format!(
                "the text of revision {} is no longer kept: there was no room for it",
                target.revision
            ))
            .hint("apply the file that it came from"));
        }
        Ok(Target::Revision(Box::new(target.clone())))
    }

    /// Takes back the policy that waits: what was in force before it is in force again.
    pub fn take_back(&mut self, peer: Option<Peer>) -> Result<PolicyRolledBack, Failure> {
        self.settle_policy();
        if self.waiting.is_none() {
            return Err(KernelError::NotPending.into());
        }
        self.backend.revert()?;
        let taken_back = self.in_force.revision;
        let warnings = self.went_back(Outcome::RolledBack);
        tracing::warn!(
            revision = taken_back, in_force = self.in_force.revision, by = %Peer::show(peer),
            "policy taken back before it was confirmed"
        );
        let back = self.in_force.revision;
        let what = format!("policy revision {taken_back} is taken back; revision {back} is in force");
        self.tell_policy(back, what, peer);
        Ok(self.rolled_back(taken_back, None, warnings))
    }

    /// Puts an earlier revision in force again, as a new one.
    pub fn roll_back_to(
        &mut self,
        prepared: Prepared,
        revision: u64,
        peer: Option<Peer>,
    ) -> Result<PolicyRolledBack, Failure> {
        let taken_back = self.in_force.revision;
        let how = How {
            within: None,
            restores: Some(revision),
        };
        let applied = self.change_policy(prepared, how, peer)?;
        Ok(self.rolled_back(taken_back, Some(revision), applied.warnings))
    }

    fn rolled_back(&self, taken_back: u64, restores: Option<u64>, warnings: Vec<String>) -> PolicyRolledBack {
        PolicyRolledBack {
            schema: SCHEMA,
            revision: self.in_force.revision,
            sha256: self.in_force.prepared.sha256.clone(),
            taken_back,
            restores,
            warnings,
        }
    }

    /// Notices that the time of a policy is over: the kernel has gone back by itself, and the books follow.
    pub fn settle_policy(&mut self) {
        let now_ns = self.clock.now().ns;
        if self
            .waiting
            .as_ref()
            .is_none_or(|waiting| now_ns < waiting.until_ns)
        {
            return;
        }
        if let Err(error) = self.backend.settle() {
            tracing::warn!(%error, "the kernel went back to the policy before, but its books are not up to date yet");
        }
        let reverted = self.in_force.revision;
        self.went_back(Outcome::Reverted);
        tracing::warn!(
            revision = reverted,
            in_force = self.in_force.revision,
            "policy reverted: nobody confirmed it in time"
        );
        let back = self.in_force.revision;
        let what =
            format!("policy revision {reverted} was not confirmed in time; revision {back} is in force");
        self.tell_policy(back, what, None);
    }

    /// The books follow the kernel back to the policy before; returns what did not go well.
    fn went_back(&mut self, outcome: Outcome) -> Vec<String> {
        let Some(waiting) = self.waiting.take() else {
            return Vec::new();
        };
        let gone = std::mem::replace(&mut self.in_force, waiting.before);
        let now = whole_second(self.clock.now().wall);
        self.history.end(gone.revision, outcome, now, None);
        self.beat();
        let mut warnings: Vec<String> = self.write_down().into_iter().collect();
        warnings.extend(self.set_door());
        if let Err(failure) = self.reconcile_bans() {
            let warning = format!("the policy before is in force again, but not every ban is: {failure}");
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
        warnings
    }

    fn tell_policy(&self, revision: u64, what: String, peer: Option<Peer>) {
        let mut entry = Entry::new(Kind::Policy, what).by(peer);
        entry.revision = Some(revision);
        self.tell(entry);
    }

    /// A failure while a policy waits: a change now would overwrite the one to go back to.
    pub(super) fn none_waits(&mut self) -> Result<(), Failure> {
        self.settle_policy();
        match self.waiting {
            None => Ok(()),
            Some(_) => Err(KernelError::Pending.into()),
        }
    }

    /// Until when the policy in force waits, if it does.
    pub(super) fn pending_status(&self) -> Option<PolicyPending> {
        let now = self.clock.now();
        self.waiting.as_ref().map(|waiting| PolicyPending {
            until: whole_second(now.wall_at(waiting.until_ns)),
            seconds_left: now.seconds_to(waiting.until_ns),
            before: waiting.before.revision,
        })
    }

    /// True for a service of the policy in force, or of the one that it may go back to.
    pub(super) fn knows_service(&self, name: &str) -> bool {
        let before = self.waiting.as_ref().map(|waiting| &waiting.before.prepared);
        self.in_force.prepared.has_service(name) || before.is_some_and(|before| before.has_service(name))
    }

    /// `GET /v1/policy/history`.
    pub fn show_history(&self) -> HistoryAnswer {
        HistoryAnswer {
            schema: SCHEMA,
            revisions: self
                .history
                .revisions()
                .iter()
                .rev()
                .map(RevisionStatus::of)
                .collect(),
        }
    }

    /// Writes down what stays in force and the history, for the next start.
    pub fn save_policy(&self) -> Result<(), StateError> {
        let stays = self
            .waiting
            .as_ref()
            .map_or(&self.in_force, |waiting| &waiting.before);
        self.store.save(
            PolicyState::FILE,
            &PolicyState {
                revision: stays.revision,
                file_sha256: self.file_sha256.clone(),
                sha256: stays.prepared.sha256.clone(),
                path: stays.prepared.path.clone(),
                applied_at: stays.applied_at,
                text: stays.prepared.text.clone(),
            },
        )?;
        self.store.save(History::FILE, &self.history)
    }

    /// As [`Self::save_policy`]; a failure is a warning, and the upkeep tries again.
    pub fn write_down(&mut self) -> Option<String> {
        match self.save_policy() {
            Ok(()) => {
                self.policy_unsaved = None;
                None
            }
            Err(error) => {
                self.policy_unsaved = Some(error.to_string());
                Some(format!(
                    "the policy is in force but not saved, and would be lost with the next restart: {error}"
                ))
            }
        }
    }
}
