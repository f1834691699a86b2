//! What the controller says about itself: status, the policy in force, readiness, and what `/metrics` shows.

use std::collections::BTreeMap;

use super::{
    engine::{Engine, whole_second},
    rates::{Reading, per_second, totals},
};
use crate::{
    api::{
        error::Failure,
        types::{AttachmentStatus, PolicyAnswer, PolicyStatus, SCHEMA, ServiceStatus, StatusAnswer, Volume},
    },
    kernel::{Attachment, Counter, Losses, SourceSlots, XdpMode},
    metrics::{ListGauge, Observed},
    policy::model::Mode,
};

/// How long a reading of the source table is good for, in nanoseconds: it reads all of the table.
const SLOTS_FOR_NS: u64 = 10_000_000_000;
/// What generic mode means for a policy.
const GENERIC: &str = "generic mode sees super-frames (many packets merged into one): packet limits count those, and \
                       are exact in native mode only; byte limits hold in both";

impl Engine {
    /// `GET /v1/status`.
    pub fn status(&mut self) -> Result<StatusAnswer, Failure> {
        self.look_after_pins();
        let now = self.clock.now();
        let counters = self.backend.counters()?;
        let losses = self.backend.losses()?;
        let attachments = self.backend.attachments()?;
        let policy = self.policy_status();
        let levers = self.lever_statuses()?;
        let source_slots = self.cached_slots()?;
        let problems = self.problems(&attachments, &policy, losses, now.ns);
        let since = self.rates.since(now.ns);
        let span_ns = since.map_or(0, |reading| now.ns - reading.ns);
        Ok(StatusAnswer {
            schema: SCHEMA,
            ok: problems.is_empty(),
            problems,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: whole_second(self.started.wall),
            uptime_seconds: now.ns.saturating_sub(self.started.ns) / 1_000_000_000,
            attachments: attachments.into_iter().map(show_attachment).collect(),
            policy,
            rates_over_seconds: (span_ns as f64 / 1e8).round() / 10.0,
            services: self.services(&counters, since, span_ns),
            levers,
            anomalies: self.detection.summary(),
            actions: self.action_statuses(),
            bans: self.bans.len() as u64,
            lists: self.in_force.prepared.policy.lists.len() as u64,
            losses,
            source_slots,
            replaced: self.replaced.clone(),
            controller: self.controller_status(),
        })
    }

    /// `GET /v1/policy`.
    pub fn policy(&mut self) -> PolicyAnswer {
        PolicyAnswer {
            schema: SCHEMA,
            policy: self.policy_status(),
            text: self.in_force.prepared.text.clone(),
        }
    }

    fn policy_status(&mut self) -> PolicyStatus {
        let sha256 = self.in_force.prepared.sha256.clone();
        let path = self.file.path().display().to_string();
        let difference = match self.file.sha256() {
            Ok(file) if file == sha256 => None,
            Ok(_) if self.in_force.prepared.path == path => Some(format!(
                "{path} has changed since it was applied; `weir policy apply {path}` puts it in force"
            )),
            Ok(_) => Some(format!(
                "{} is in force, and the policy file {path} says something else; apply the one you want",
                self.in_force.prepared.path
            )),
            Err(error) => Some(format!("the policy file {path} cannot be read: {error}")),
        };
        PolicyStatus {
            revision: self.in_force.revision,
            sha256,
            path: self.in_force.prepared.path.clone(),
            applied_at: self.in_force.applied_at,
            pending: self.pending_status(),
            mode: self.in_force.prepared.policy.mode,
            differs_from_file: difference.is_some(),
            difference,
        }
    }

    fn problems(
        &self,
        attachments: &[Attachment],
        policy: &PolicyStatus,
        losses: Losses,
        now_ns: u64,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if attachments.is_empty() {
            problems.push(
                "not attached to any interface: nothing is enforced; restart weir to attach again".into(),
            );
        }
        problems.extend(self.links.problems(attachments));
        for wanted in &self.wanted {
            if !attachments
                .iter()
                .any(|attachment| attachment.interface == *wanted)
            {
                problems.push(format!(
                    "{wanted} is not attached any more: something else took weir's program off"
                ));
            }
        }
        problems.extend(policy.difference.clone());
        problems.extend(self.backend.handshake_faults());
        problems.extend(self.export.fault());
        problems.extend(self.webhook.fault());
        problems.extend(self.detection.geo().fault());
        if losses.uncounted > 0 {
            problems.push(format!(
                "{} packets were judged and not counted; please report this fault",
                losses.uncounted
            ));
        }
        if let Some(before) = self.rates.since(now_ns) {
            let grown = |then: u64, now: u64| now.saturating_sub(then);
            let overflow = grown(before.losses.overflow, losses.overflow);
            if overflow > 0 {
                problems.push(format!(
                    "{overflow} packets lately were judged by a shared overflow bucket: the source table is full where they \
                     belong; raise [source] max_tracked"
                ));
            }
            let lost = grown(before.losses.lost_race, losses.lost_race);
            if lost > 0 {
                problems.push(format!(
                    "{lost} packets lately were refused because CPUs competed for one bucket"
                ));
            }
        }
        if let Some(fault) = &self.policy_unsaved {
            problems.push(format!(
                "the policy is in force but not saved, and would be lost with the next restart: {fault}"
            ));
        }
        problems.extend(self.heartbeat_problem());
        problems.extend(self.door_fault.clone());
        if let Some(fault) = self.detection.fault() {
            problems.push(format!(
                "what was learned of the services' traffic is not saved, and would be lost with the next restart: {fault}"
            ));
        }
        if let Some(fault) = &self.save_fault {
            problems.push(format!("what was changed last is in force but not saved, and would be lost with the next restart: {fault}"));
        }
        if self.lists_behind {
            problems.push(
                "list entries that have ended are still in force: the kernel refused the shorter lists"
                    .into(),
            );
        }
        problems
    }

    fn services(&self, counters: &[Counter], since: Option<&Reading>, span_ns: u64) -> Vec<ServiceStatus> {
        let policy = &self.in_force.prepared.policy;
        let names = policy
            .services
            .iter()
            .map(|service| (service.name.as_str(), service.mode.max(policy.mode)));
        let names = names.chain([("default", policy.mode)]);
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        let mut services: Vec<ServiceStatus> = Vec::new();
        for (name, mode) in names {
            at.insert(name, services.len());
            services.push(empty_service(name, mode));
        }
        for counter in counters {
            // A service that went with an earlier policy has counters, and no place in this one's status.
            let Some(status) = at
                .get(counter.service.as_str())
                .and_then(|index| services.get_mut(*index))
            else {
                continue;
            };
            let volume = Volume {
                packets: counter.packets,
                bytes: counter.bytes,
            };
            let reason = || counter.reason.to_owned();
            match counter.verdict {
                "drop" => {
                    add(&mut status.drop, volume);
                    add(status.drops.entry(reason()).or_default(), volume);
                }
                "would_drop" => {
                    add(&mut status.would_drop, volume);
                    add(status.would_drops.entry(reason()).or_default(), volume);
                }
                _ => add(&mut status.pass, volume),
            }
        }
        let verdicts = self.detection.verdicts();
        for status in &mut services {
            if let Some(verdict) = verdicts.get(&status.service) {
                status.verdict = Some(verdict.name().to_owned());
                status.kind = verdict.kind().map(|kind| kind.name().to_owned());
            }
        }
        if let Some(since) = since {
            let present = totals(counters);
            for status in &mut services {
                let (Some(now), before) = (present.get(&status.service), since.totals.get(&status.service))
                else {
                    continue;
                };
                let before = before.copied().unwrap_or_default();
                status.packets_per_second = per_second(before.packets, now.packets, span_ns);
                status.bytes_per_second = per_second(before.bytes, now.bytes, span_ns);
                status.drops_per_second = per_second(before.drops, now.drops, span_ns);
                status.would_drops_per_second = per_second(before.would_drops, now.would_drops, span_ns);
            }
        }
        services
    }

    fn cached_slots(&mut self) -> Result<SourceSlots, Failure> {
        let now = self.clock.now().ns;
        if let Some((at, slots)) = self.slots
            && now.saturating_sub(at) < SLOTS_FOR_NS
        {
            return Ok(slots);
        }
        let slots = self.backend.source_slots()?;
        self.slots = Some((now, slots));
        Ok(slots)
    }

    /// Keeps a reading of the counters for the rates.
    pub(super) fn sample(&mut self) {
        let before = self.clock.now().ns;
        match self
            .backend
            .counters()
            .and_then(|counters| Ok((counters, self.backend.losses()?)))
        {
            Ok((counters, losses)) => {
                let cost = self.clock.now().ns.saturating_sub(before);
                self.rates.keep(
                    Reading {
                        ns: before,
                        totals: totals(&counters),
                        losses,
                    },
                    cost,
                );
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the counters");
                self.rates.put_off(before);
            }
        }
    }

    /// Everything that `/metrics` shows.
    pub fn observe(&mut self) -> Result<Observed, Failure> {
        self.look_after_pins();
        let now = self.clock.now().wall;
        let lists = &self.in_force.prepared.policy.lists;
        let lists = lists.iter().map(|list| {
            let status = self.list_status(list);
            let age = now.duration_since(status.changed_at).as_secs();
            ListGauge {
                list: status.list,
                prefixes: status.prefixes,
                age_seconds: u64::try_from(age).unwrap_or(0),
            }
        });
        let lists = lists.collect();
        let counters = self.backend.counters()?;
        Ok(Observed {
            profiles: self.profiled(&counters)?,
            anomalies: self.detection.observe(&self.seen.series, self.clock.now()),
            lost_exports: self.export.lost(),
            lost_webhooks: self.webhook.lost(),
            counters,
            attachments: self.backend.attachments()?,
            pending: u64::from(self.waiting.is_some()),
            levers: self.lever_statuses()?.len() as u64,
            lists,
            slots: self.cached_slots()?,
            losses: self.backend.losses()?,
            lost_events: self.events.lost(),
            bans: self.bans.len() as u64,
            revision: self.in_force.revision,
            sha256: self.in_force.prepared.sha256.clone(),
        })
    }

    /// Why the node is not held to its policy, if it is not.
    pub fn not_ready(&self) -> Option<String> {
        match self.backend.attachments() {
            Err(error) => Some(error.to_string()),
            Ok(attachments) => {
                let missing = |wanted: &&String| {
                    !attachments
                        .iter()
                        .any(|attached| attached.interface == **wanted && attached.ifindex != 0)
                };
                if let Some(missing) = self.wanted.iter().find(missing) {
                    return Some(format!("not attached to {missing}"));
                }
                attachments
                    .iter()
                    .all(|attached| attached.ifindex == 0)
                    .then(|| "not attached to any interface".into())
            }
        }
    }
}

fn show_attachment(attachment: Attachment) -> AttachmentStatus {
    AttachmentStatus {
        present: attachment.ifindex != 0,
        note: (attachment.xdp_mode == XdpMode::Generic).then(|| GENERIC.to_owned()),
        interface: attachment.interface,
        ifindex: attachment.ifindex,
        xdp_mode: attachment.xdp_mode,
        fallback: attachment.fallback,
    }
}

fn empty_service(name: &str, mode: Mode) -> ServiceStatus {
    ServiceStatus {
        service: name.to_owned(),
        mode,
        pass: Volume::default(),
        drop: Volume::default(),
        would_drop: Volume::default(),
        packets_per_second: 0.0,
        bytes_per_second: 0.0,
        drops_per_second: 0.0,
        would_drops_per_second: 0.0,
        drops: BTreeMap::new(),
        would_drops: BTreeMap::new(),
        verdict: None,
        kind: None,
    }
}

fn add(sum: &mut Volume, more: Volume) {
    sum.packets += more.packets;
    sum.bytes += more.bytes;
}
