//! Steps against attacks: carried out with the levers and bans that there are, told, shown and undone.

use std::collections::BTreeMap;

use gateway_detect::{Kind as Attack, Verdict};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    backend::Moment,
    engine::{Engine, whole_second},
};
use crate::{
    action::{
        self, Attention, Bounded, Case, InForce, Spared, Standing, Suspects, TightenPlan, What, Withheld,
    },
    api::types::{BanRequest, BansRequest, code},
    events::{Entry, Kind},
    kernel::Lever,
    policy::model::{AttackAction, OnAttack, Service},
};

impl Engine {
    /// The services for which something may be done, and whether something is or was.
    pub(super) fn acting_for(&self) -> Vec<(String, bool)> {
        let services = self.in_force.prepared.policy.services.iter();
        let acting = services.filter(|service| service.on_attack.action != AttackAction::Alert);
        acting
            .map(|service| (service.name.clone(), self.actions.get(&service.name).is_some()))
            .collect()
    }

    /// Does what is to be done about a service, as it is now. To be called every second for those that
    /// [`Self::acting_for`] names and that are, or were, under attack; a look that is not due costs nothing.
    pub(super) fn react(&mut self, case: &Case) {
        let now = self.clock.now();
        let name = case.service.as_str();
        let Some(settings) = self.acts(name) else {
            return;
        };
        let Verdict::Attack(kind) = case.finding.verdict else {
            if case.finding.verdict == Verdict::Crowd && self.is_tightened(name) {
                self.step_back(
                    name,
                    "the traffic is that of a crowd now, which is never tightened",
                    None,
                );
            }
            self.actions_dirty |= self.actions.calm(name, now.ns);
            return;
        };
        let new = self.actions.get(name).is_none();
        let since = second(case.finding.since).unwrap_or(now.wall);
        let attention = self.actions.attacked(name, kind, whole_second(since), now.ns);
        self.actions_dirty |= new;
        if attention == Attention::None {
            return;
        }
        let done = match settings.action {
            AttackAction::Tighten => self.tighten(case, &settings, attention, now),
            AttackAction::Ban => self.ban_carriers(case, &settings, now),
            AttackAction::Alert => return,
        };
        if let Err(why) = done {
            self.withhold(name, kind, &settings, &why);
        }
    }

    pub(super) fn acts(&self, name: &str) -> Option<OnAttack> {
        let settings = self.service(name)?.on_attack;
        (settings.action != AttackAction::Alert).then_some(settings)
    }

    fn service(&self, name: &str) -> Option<&Service> {
        let services = &self.in_force.prepared.policy.services;
        services.iter().find(|service| service.name == name)
    }

    fn is_tightened(&self, name: &str) -> bool {
        let step = self.actions.step(name);
        step.is_some_and(|step| matches!(step.what, What::Tighten { .. }))
    }

    fn withhold(&mut self, name: &str, kind: Attack, settings: &OnAttack, why: &Withheld) {
        if !self.actions.withheld(name, why) {
            return;
        }
        self.actions_dirty = true;
        let wanted = match settings.action {
            AttackAction::Tighten => "its limits stay as they are",
            _ => "nobody more is banned",
        };
        let what = format!("attack ({}) on {name}: {wanted}", kind.name());
        tracing::warn!(service = name, kind = kind.name(), %why, "no step is taken");
        let mut entry = Entry::new(Kind::ActionWithheld, what).why(Some(why.to_string()));
        entry.service = Some(name.to_owned());
        self.tell(entry);
    }

    fn tighten(
        &mut self,
        case: &Case,
        settings: &OnAttack,
        attention: Attention,
        now: Moment,
    ) -> Result<(), Withheld> {
        let name = case.service.as_str();
        let contents = self.lists.contents(&self.in_force.prepared.base);
        let Some(service) = self.service(name) else {
            return Ok(());
        };
        let limits = Bounded::of(service, |list| contents.get(list).cloned().unwrap_or_default());
        let plan = action::tighten(settings, &limits, &case.finding, case.load, &case.normal)?;
        let present = match self.actions.step(name).map(|step| &step.what) {
            Some(What::Tighten { percent }) => Some(*percent),
            _ => None,
        };
        if attention == Attention::Stronger && present.is_some_and(|present| present <= plan.percent) {
            return Ok(());
        }
        self.none_waits().map_err(|_| Withheld::Pending)?;
        let failed = |error: crate::kernel::KernelError| Withheld::Failed(error.to_string());
        let mut levers = self.backend.levers().map_err(failed)?;
        levers.retain(|lever| !self.is_own(name, lever));
        for lever in &levers {
            match lever {
                Lever::Scale { service, .. } if service == name => return Err(Withheld::Lever("a scale")),
                Lever::Bypass { service, .. } if service.as_deref().is_none_or(|of| of == name) => {
                    return Err(Withheld::Lever("a bypass"));
                }
                _ => {}
            }
        }
        let until_ns = now.ns_after(settings.for_seconds);
        levers.push(Lever::Scale {
            service: name.to_owned(),
            percent: plan.percent,
            until_ns,
        });
        self.backend.set_levers(&levers).map_err(failed)?;
        self.tightened(case, settings, &plan, until_ns, now);
        Ok(())
    }

    fn tightened(
        &mut self,
        case: &Case,
        settings: &OnAttack,
        plan: &TightenPlan,
        until_ns: u64,
        now: Moment,
    ) {
        let step = InForce {
            what: What::Tighten {
                percent: plan.percent,
            },
            share: plan.share,
            why: plan.why(budget(settings)),
            since: whole_second(now.wall),
            until_ns,
            until: now.wall_at(until_ns),
        };
        self.took(case, step);
    }

    /// Whether a lever is the step of a service and nobody else's.
    pub(super) fn is_own(&self, name: &str, lever: &Lever) -> bool {
        let Some(step) = self.actions.step(name) else {
            return false;
        };
        matches!((&step.what, lever), (What::Tighten { percent: own }, Lever::Scale { service, percent, until_ns })
            if service == name && percent == own && *until_ns == step.until_ns)
    }

    fn ban_carriers(&mut self, case: &Case, settings: &OnAttack, now: Moment) -> Result<(), Withheld> {
        let name = case.service.as_str();
        let contents = self.lists.contents(&self.in_force.prepared.base);
        let policy = &self.in_force.prepared.policy;
        let spared = Spared::of(policy, &contents);
        let mut held = match self.actions.step(name).map(|step| &step.what) {
            Some(What::Ban { bans }) => bans.clone(),
            _ => BTreeMap::new(),
        };
        let ours: Vec<IpNet> = held.keys().copied().collect();
        let scope = Some(name.to_owned());
        let suspects = Suspects {
            source: &policy.source,
            spared: &spared,
            // Who cannot be looked up has shown nothing.
            proven: &|prefix| self.backend.proven(prefix.addr()).unwrap_or(false),
            banned: &|prefix| {
                let cover = self.bans.covering(prefix, &scope);
                let exact = self.bans.get(prefix, &scope);
                exact.is_some() || cover.is_some_and(|(_, _, record)| record.until_ns > now.ns)
            },
            ours: &ours,
        };
        let mut plan = action::ban(settings, &suspects, &case.finding, &case.normal)?;
        if plan.prefixes.is_empty() {
            return Ok(());
        }
        let until_ns = now.ns_after(settings.for_seconds);
        let made = self.make_bans(case, settings, &plan.prefixes)?;
        plan.left_out.refused += (plan.prefixes.len() - made.len()) as u32;
        if made.is_empty() && held.is_empty() {
            return Err(Withheld::Failed(
                "every ban would cut off somebody who is guarded, or do nothing".to_owned(),
            ));
        }
        if made.is_empty() {
            return Ok(());
        }
        held.extend(made.into_iter().map(|prefix| (prefix, until_ns)));
        let step = InForce {
            what: What::Ban { bans: held },
            share: plan.share,
            why: plan.why(budget(settings)),
            since: whole_second(now.wall),
            until_ns,
            until: now.wall_at(until_ns),
        };
        self.took(case, step);
        Ok(())
    }

    /// Bans those whom a ban may hit; one who is guarded does not save the others.
    fn make_bans(
        &mut self,
        case: &Case,
        settings: &OnAttack,
        prefixes: &[IpNet],
    ) -> Result<Vec<IpNet>, Withheld> {
        let name = &case.service;
        let reason = self.actions.get(name).map(|standing| reason(name, standing));
        let request = |prefixes: &[IpNet]| BansRequest {
            bans: prefixes
                .iter()
                .map(|prefix| BanRequest {
                    prefix: prefix.to_string(),
                    service: Some(name.clone()),
                    for_seconds: Some(settings.for_seconds),
                    reason: reason.clone(),
                })
                .collect(),
            force: false,
        };
        match self.ban(&request(prefixes), None) {
            Ok(answer) => {
                let idle: Vec<IpNet> = answer.ineffective.iter().map(|ban| ban.prefix).collect();
                Ok(prefixes
                    .iter()
                    .copied()
                    .filter(|prefix| !idle.contains(prefix))
                    .collect())
            }
            Err(failure) if failure.code == code::NO_EFFECT => Ok(Vec::new()),
            Err(failure) if failure.code == code::REFUSED && prefixes.len() > 1 => {
                let each = prefixes.iter().copied();
                Ok(each
                    .filter(|prefix| self.ban(&request(&[*prefix]), None).is_ok())
                    .collect())
            }
            Err(failure) if failure.code == code::REFUSED => Ok(Vec::new()),
            Err(failure) => Err(Withheld::Failed(failure.message)),
        }
    }

    fn took(&mut self, case: &Case, step: InForce) {
        let name = case.service.as_str();
        let kind = self.actions.get(name).map_or("", |standing| standing.kind.name());
        let title = step.title();
        let what = format!(
            "attack ({kind}) on {name}: {title} until {:.0}",
            whole_second(step.until)
        );
        tracing::warn!(
            service = name,
            kind,
            step = title,
            share = step.share,
            why = step.why,
            "a step is taken"
        );
        let mut entry = Entry::new(Kind::ActionTaken, what).why(Some(step.why.clone()));
        entry.service = Some(name.to_owned());
        entry.until = Some(whole_second(step.until));
        if let What::Ban { bans } = &step.what {
            entry.count = Some(bans.len() as u64);
        }
        self.tell(entry);
        self.actions.took(name, step);
        self.actions_dirty = true;
    }
}

fn budget(settings: &OnAttack) -> f64 {
    f64::from(settings.max_impact_ppm) / 1e6
}

/// The reason of a ban, which is also what tells it from the operator's.
pub(super) fn reason(name: &str, standing: &Standing) -> String {
    format!(
        "attack on {name} since {:.0}, banned by weir itself",
        standing.since
    )
}

/// A time in seconds since 1970.
fn second(at: f64) -> Option<Timestamp> {
    (at > 0.0)
        .then(|| Timestamp::from_second(at as i64).ok())
        .flatten()
}
