//! Bans: from a request to the book and the kernel.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    backend::Moment,
    engine::{Engine, whole_second},
    event_ops::BanTold,
};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        prefix::{parse_prefix, parse_prefixes},
        types::{
            Ban, BanRequest, BansAdded, BansAnswer, BansRequest, IneffectiveBan, SCHEMA, UnbanRequest,
            Unbanned, code,
        },
    },
    bans::{BanRecord, Change, KernelChanges, NEVER, Protected, Scope, Staged},
    events::Kind,
    kernel::{BanEntry, KernelError},
    policy::model::Mode,
};

/// The longest ban with an end, and the longest stay of a temporary list entry: ten years, in seconds.
pub(super) const LONGEST_SECONDS: u64 = 315_360_000;
/// The longest reason, in characters.
const LONGEST_REASON: usize = 256;
/// The most warnings that one answer spells out.
const WARNINGS: usize = 20;

impl Engine {
    /// `GET /v1/bans`.
    pub fn list_bans(&self) -> BansAnswer {
        let now = self.clock.now();
        let bans = self.bans.iter().filter(|(_, _, record)| record.until_ns > now.ns);
        let bans = bans
            .map(|(prefix, scope, record)| show(now, *prefix, scope, record))
            .collect();
        BansAnswer { schema: SCHEMA, bans }
    }

    /// Makes bans: all that would do something, or none when one of them is wrong.
    pub fn ban(&mut self, request: &BansRequest, peer: Option<Peer>) -> Result<BansAdded, Failure> {
        if request.bans.is_empty() {
            return Err(Failure::invalid("the request names no prefix to ban"));
        }
        let prefixes = parse_prefixes(request.bans.iter().map(|ban| ban.prefix.as_str()))?;
        let mut services: BTreeSet<&str> = BTreeSet::new();
        for ban in &request.bans {
            check_values(ban)?;
            if let Some(service) = ban.service.as_deref()
                && services.insert(service)
            {
                self.need_service(service)?;
            }
        }
        self.prune_bans();
        // One that would do nothing cuts nobody off who is not cut off already.
        let asked: Vec<(IpNet, Scope)> = request
            .bans
            .iter()
            .zip(&prefixes)
            .map(|(ban, prefix)| (*prefix, ban.service.clone()))
            .collect();
        let lock_outs = self.guard_bans(&asked, request.force, peer)?;

        let now = self.clock.now();
        let mut staged = Staged::default();
        let mut answer = BansAdded {
            schema: SCHEMA,
            added: 0,
            renewed: 0,
            ineffective: Vec::new(),
            warnings: Vec::new(),
        };
        let mut unsaid = 0;
        let mut told: Vec<BanTold> = Vec::new();
        for warning in lock_outs {
            warn(&mut answer.warnings, &mut unsaid, warning);
        }
        for (ban, prefix) in request.bans.iter().zip(prefixes) {
            let until_ns = ban.for_seconds.map_or(NEVER, |seconds| now.ns_after(seconds));
            let (obstacle, warning) = self.obstacle(&prefix, &ban.service, until_ns, now);
            if let Some(why) = obstacle {
                if !request.force {
                    answer.ineffective.push(IneffectiveBan {
                        prefix,
                        service: ban.service.clone(),
                        why,
                    });
                    continue;
                }
                warn(&mut answer.warnings, &mut unsaid, why);
            } else if let Some(warning) = warning {
                warn(&mut answer.warnings, &mut unsaid, warning);
            }
            match self.bans.get(&prefix, &ban.service) {
                Some(_) => answer.renewed += 1,
                None => answer.added += 1,
            }
            let record = BanRecord {
                until_ns,
                until: ban.for_seconds.map(|_| now.wall_at(until_ns)),
                created_at: whole_second(now.wall),
                reason: ban.reason.clone(),
            };
            told.push(BanTold {
                prefix,
                service: ban.service.clone(),
                reason: record.reason.clone(),
                until: record.until.map(whole_second),
            });
            self.bans.stage(
                Change {
                    prefix,
                    scope: ban.service.clone(),
                    record: Some(record),
                },
                &mut staged,
            );
        }
        if answer.added + answer.renewed == 0 {
            return Err(no_effect(answer.ineffective));
        }
        self.commit_bans(staged)?;
        self.tell_bans(Kind::Ban, told, peer);

        if self.in_force.prepared.policy.mode == Mode::Monitor {
            answer.warnings.push(
                "the policy's mode is monitor: what these bans name is only counted as would_drop, and passes".into(),
            );
        }
        if unsaid > 0 {
            answer.warnings.push(format!("and {unsaid} more warnings"));
        }
        let first = &request.bans[0];
        tracing::info!(
            added = answer.added, renewed = answer.renewed, ineffective = answer.ineffective.len(),
            prefix = first.prefix, service = first.service.as_deref().unwrap_or(""), for_seconds = first.for_seconds,
            reason = first.reason.as_deref().unwrap_or(""), by = %Peer::show(peer), "banned"
        );
        Ok(answer)
    }

    /// Why a ban would do nothing, or what to know about one that would do something.
    fn obstacle(
        &self,
        prefix: &IpNet,
        scope: &Scope,
        until_ns: u64,
        now: Moment,
    ) -> (Option<String>, Option<String>) {
        let warning = match self.in_force.protection.of_prefix(prefix) {
            Protected::Whole(rule) => {
                let why = format!("{prefix} lies in {rule}, which [[protect]] lets pass before every ban");
                return (Some(why), None);
            }
            Protected::Partly(rule) => Some(format!(
                "{prefix} is partly protected: what [[protect]] names of {rule} passes all the same"
            )),
            Protected::No => None,
        };
        let Some((cover, of, record)) = self.bans.covering(prefix, scope) else {
            return (None, warning);
        };
        if record.until_ns < until_ns || record.until_ns <= now.ns {
            return (None, warning);
        }
        let whom = of.map_or_else(String::new, |service| format!(" for service {service}"));
        let end = match record.until_ns {
            NEVER => "without end".to_owned(),
            until => format!("for another {} s", now.seconds_to(until)),
        };
        let why = if cover == *prefix {
            format!("{prefix} is banned{whom} {end} already, which is no shorter")
        } else {
            format!("{prefix} lies in {cover}, which is banned{whom} {end} already")
        };
        (Some(why), None)
    }

    /// Takes back the ban of exactly this prefix.
    pub fn unban(&mut self, request: &UnbanRequest, peer: Option<Peer>) -> Result<Unbanned, Failure> {
        let prefix = parse_prefix(&request.prefix).map_err(Failure::invalid)?;
        let scope = &request.service;
        self.prune_bans();
        let now = self.clock.now();
        let Some(record) = self.bans.get(&prefix, scope).cloned() else {
            let whom = scope
                .as_ref()
                .map_or_else(String::new, |service| format!(" for service {service}"));
            let hint = match self.bans.covering(&prefix, scope) {
                Some((cover, None, _)) => {
                    format!("it is held by the ban of {cover}; `weir unban {cover}` takes that back")
                }
                Some((cover, Some(service), _)) => {
                    format!(
                        "it is held by the ban of {cover}; `weir unban {cover} --service {service}` takes that back"
                    )
                }
                None => match self.bans.iter().find(|(held, _, _)| **held == prefix) {
                    Some((_, Some(service), _)) => {
                        format!("there is one for service {service}: add --service {service}")
                    }
                    Some((_, None, _)) => "there is one for all services: leave --service out".to_owned(),
                    None => "`weir bans` prints those that there are".to_owned(),
                },
            };
            return Err(Failure::not_found(format!("there is no ban of {prefix}{whom}")).hint(hint));
        };
        let mut staged = Staged::default();
        self.bans.stage(
            Change {
                prefix,
                scope: scope.clone(),
                record: None,
            },
            &mut staged,
        );
        self.commit_bans(staged)?;
        tracing::info!(
            %prefix, service = scope.as_deref().unwrap_or(""), by = %Peer::show(peer), "ban taken back"
        );
        let told = BanTold {
            prefix,
            service: scope.clone(),
            reason: None,
            until: None,
        };
        self.tell_bans(Kind::Unban, vec![told], peer);
        let cover = self.bans.covering(&prefix, scope);
        Ok(Unbanned {
            schema: SCHEMA,
            ban: show(now, prefix, scope, &record),
            still_covered_by: cover.map(|(cover, of, record)| show(now, cover, &of, record)),
        })
    }

    /// Works out the staged changes and writes them to the kernel; when it refuses, the book is as before.
    pub(super) fn commit_bans(&mut self, staged: Staged) -> Result<(), Failure> {
        let committed = self.bans.commit(staged);
        if let Err(error) = self.push_bans(committed.kernel) {
            let back = self.bans.change(committed.undo);
            if let Err(again) = self.push_bans(back.kernel) {
                tracing::error!(error = %again, "the kernel's bans may differ from weir's; the next apply mends that");
            }
            return Err(error.into());
        }
        self.bans_dirty = true;
        Ok(())
    }

    /// Writes to the kernel what concerns services in force; bans of others wait in the book until there is such a service.
    fn push_bans(&mut self, mut changes: KernelChanges) -> Result<(), KernelError> {
        let known =
            |service: &Option<String>| service.as_ref().is_none_or(|service| self.knows_service(service));
        changes.set.retain(|entry| known(&entry.service));
        changes.delete.retain(|(_, service)| known(service));
        if changes.is_empty() {
            return Ok(());
        }
        self.backend.change_bans(&changes.set, &changes.delete)
    }

    /// Makes the kernel's entries what the book calls for, after a start or a new policy.
    pub(super) fn reconcile_bans(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        self.bans.prune(now.ns);
        let mut present: BTreeMap<(IpNet, Scope), u64> = self
            .backend
            .bans()?
            .into_iter()
            .map(|entry| ((entry.prefix, entry.service), entry.until_ns))
            .collect();
        let before = self.waiting.as_ref().map(|waiting| &waiting.before);
        let known: BTreeSet<&str> = std::iter::once(&self.in_force)
            .chain(before)
            .flat_map(|policy| &policy.prepared.policy.services)
            .map(|s| s.name.as_str())
            .collect();
        let is_known = |service: &Scope| service.as_deref().is_none_or(|service| known.contains(service));
        let mut set: Vec<BanEntry> = Vec::new();
        for entry in self.bans.entries().filter(|entry| is_known(&entry.service)) {
            if present.remove(&(entry.prefix, entry.service.clone())) != Some(entry.until_ns) {
                set.push(entry);
            }
        }
        let (mut delete, gone): (Vec<_>, Vec<_>) =
            present.into_keys().partition(|(_, service)| is_known(service));
        if !gone.is_empty() && self.backend.change_bans(&[], &gone).is_err() {
            // Their service is not in force, so nothing looks them up; they go with their ends.
            tracing::debug!(entries = gone.len(), "left bans of services that are gone");
        }
        delete.sort();
        if set.is_empty() && delete.is_empty() {
            return Ok(());
        }
        tracing::debug!(
            set = set.len(),
            delete = delete.len(),
            "bringing the kernel's bans up to date"
        );
        Ok(self.backend.change_bans(&set, &delete)?)
    }

    /// Strikes out the bans that have ended.
    pub(super) fn prune_bans(&mut self) {
        let now = self.clock.now();
        let lapsed = self.bans.prune(now.ns);
        if lapsed.is_empty() {
            return;
        }
        self.bans_dirty = true;
        tracing::debug!(bans = lapsed.len(), "bans ended");
        let ended = lapsed.iter().map(|(prefix, service)| BanTold {
            prefix: *prefix,
            service: service.clone(),
            reason: None,
            until: None,
        });
        self.tell_bans(Kind::BanEnded, ended.collect(), None);
        // The kernel ignores them already; deleting only frees their room.
        if let Err(error) = self.push_bans(KernelChanges {
            set: Vec::new(),
            delete: lapsed,
        }) {
            tracing::warn!(%error, "cannot delete bans that have ended; they do nothing any more");
        }
    }

    pub(super) fn need_service(&self, service: &str) -> Result<(), Failure> {
        if self.knows_service(service) {
            return Ok(());
        }
        let mut names: Vec<&str> = self
            .in_force
            .prepared
            .policy
            .services
            .iter()
            .map(|s| s.name.as_str())
            .collect();
        names.truncate(WARNINGS);
        let hint = if names.is_empty() {
            "the policy in force has no services".to_owned()
        } else {
            format!("the policy in force has: {}", names.join(", "))
        };
        Err(Failure::not_found(format!("there is no service {service}")).hint(hint))
    }
}

fn warn(warnings: &mut Vec<String>, unsaid: &mut usize, warning: String) {
    if warnings.len() < WARNINGS {
        warnings.push(warning);
    } else {
        *unsaid += 1;
    }
}

fn check_values(ban: &BanRequest) -> Result<(), Failure> {
    if ban
        .for_seconds
        .is_some_and(|seconds| !(1..=LONGEST_SECONDS).contains(&seconds))
    {
        return Err(Failure::invalid(format!(
            "{}: for_seconds must be 1 to {LONGEST_SECONDS}; leave it out for a ban without end",
            ban.prefix
        )));
    }
    match &ban.reason {
        Some(reason) if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) => {
            Err(Failure::invalid(format!(
                "{}: a reason is one line of at most {LONGEST_REASON} characters",
                ban.prefix
            )))
        }
        _ => Ok(()),
    }
}

fn no_effect(ineffective: Vec<IneffectiveBan>) -> Failure {
    let details: Vec<String> = ineffective.into_iter().map(|ban| ban.why).collect();
    let message = match details.as_slice() {
        [only] => format!("this ban would do nothing: {only}"),
        several => format!("none of these {} bans would do anything", several.len()),
    };
    Failure::new(code::NO_EFFECT, message)
        .hint("`weir bans` prints the bans, `weir policy show` the [[protect]] rules")
        .details(details)
}

fn show(now: Moment, prefix: IpNet, scope: &Scope, record: &BanRecord) -> Ban {
    Ban {
        prefix,
        service: scope.clone(),
        created_at: record.created_at,
        until: (record.until_ns != NEVER).then(|| whole_second(now.wall_at(record.until_ns))),
        seconds_left: (record.until_ns != NEVER).then(|| now.seconds_to(record.until_ns)),
        reason: record.reason.clone(),
    }
}
