//! What is being done about which service, and what the operator has undone.

use std::collections::BTreeMap;

use gateway_detect::Kind;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Withheld;

/// So long after a look at an attack the next one is due: an attack that goes on may need a stronger step, or more bans.
pub const LOOK_NS: u64 = 10_000_000_000;
/// An attack has ended when there was none for so long. One that begins again sooner is the same.
const CALM_NS: u64 = 60_000_000_000;
/// A step that ends so soon while the attack goes on is taken again now, without a gap.
const RENEW_NS: u64 = 2_000_000_000;

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum What {
    /// The service's limits are scaled.
    Tighten {
        /// To so many per cent.
        percent: u32,
    },
    /// Carriers are banned from the service.
    Ban {
        /// Whom, and until when, on the kernel's clock.
        bans: BTreeMap<IpNet, u64>,
    },
}

/// A step in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    /// What it does.
    #[serde(flatten)]
    pub what: What,
    /// The share of normal sources that it hits at most, 0 to 1.
    pub share: f64,
    /// Why this and no other.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself, on the kernel's clock; of bans, the last.
    pub until_ns: u64,
    /// The same on the wall clock.
    pub until: Timestamp,
}

/// An attack on a service, and what is done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The kind of attack, as it is now or was last.
    pub kind: Kind,
    /// Since when it goes on.
    pub since: Timestamp,
    /// The step in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<InForce>,
    /// Why there is none, or no stronger one: a word, and a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<(String, String)>,
    /// The operator has undone what was done: nothing more is, until the attack has ended.
    #[serde(default)]
    pub undone: bool,
    /// When the attack was last seen, on the kernel's clock.
    #[serde(skip)]
    seen_ns: u64,
    #[serde(skip)]
    looked_ns: Option<u64>,
}

/// What is to be done about an attack now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attention {
    /// Nothing: it was looked at a moment ago, or the operator wants nothing done.
    None,
    /// A step is to be looked for that is stronger than the one in force, if there is one.
    Stronger,
    /// A step is to be looked for in the place of the one that is about to end, or a first one.
    Fresh,
}

/// Every attack that something is, was or might be done about.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) standings: BTreeMap<String, Standing>,
}

impl Book {
    /// What is done about each service.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.standings
            .iter()
            .map(|(service, standing)| (service.as_str(), standing))
    }

    /// What is done about a service.
    pub fn get(&self, service: &str) -> Option<&Standing> {
        self.standings.get(service)
    }

    /// The step in force at a service.
    pub fn step(&self, service: &str) -> Option<&InForce> {
        self.standings.get(service)?.step.as_ref()
    }

    /// An attack goes on; what is to be done about it?
    pub fn attacked(&mut self, service: &str, kind: Kind, since: Timestamp, now_ns: u64) -> Attention {
        let standing = self.standings.entry(service.to_owned()).or_insert(Standing {
            kind,
            since,
            step: None,
            withheld: None,
            undone: false,
            seen_ns: now_ns,
            looked_ns: None,
        });
        let other = standing.kind != kind;
        standing.kind = kind;
        standing.seen_ns = now_ns;
        if standing.undone {
            return Attention::None;
        }
        let fresh = match &standing.step {
            None => true,
            Some(step) => step.until_ns <= now_ns.saturating_add(RENEW_NS),
        };
        // A step that is about to end does not wait for the next look, but a refusal is not asked for again and again.
        let urgent = other || fresh && standing.step.is_some();
        let due = standing
            .looked_ns
            .is_none_or(|looked| now_ns >= looked.saturating_add(LOOK_NS));
        if !due && !urgent {
            return Attention::None;
        }
        standing.looked_ns = Some(now_ns);
        if fresh {
            Attention::Fresh
        } else {
            Attention::Stronger
        }
    }

    /// There is no attack (any more) at a service. Whether the book has changed: what is over is struck out once no step
    /// is left.
    pub fn calm(&mut self, service: &str, now_ns: u64) -> bool {
        let over = |standing: &Standing| {
            standing.step.is_none() && now_ns >= standing.seen_ns.saturating_add(CALM_NS)
        };
        let over = self.standings.get(service).is_some_and(over);
        over && self.standings.remove(service).is_some()
    }

    /// A step was taken, in the place of the one before.
    pub fn took(&mut self, service: &str, step: InForce) {
        if let Some(standing) = self.standings.get_mut(service) {
            standing.step = Some(step);
            standing.withheld = None;
        }
    }

    /// No step was taken. Whether that is to be told: it was not told before, or for another reason.
    pub fn withheld(&mut self, service: &str, why: &Withheld) -> bool {
        let Some(standing) = self.standings.get_mut(service) else {
            return false;
        };
        let new = standing
            .withheld
            .as_ref()
            .is_none_or(|(word, _)| word != why.word());
        standing.withheld = Some((why.word().to_owned(), why.to_string()));
        new
    }

    /// The step at a service is over; which it was.
    pub fn ended(&mut self, service: &str) -> Option<InForce> {
        self.standings.get_mut(service)?.step.take()
    }

    /// Nothing more is to be done at a service until the attack has ended; what was in force.
    pub fn undo(&mut self, service: &str) -> Option<InForce> {
        let standing = self.standings.get_mut(service)?;
        standing.undone = true;
        standing.withheld = None;
        standing.step.take()
    }

    /// Forgets a service.
    pub fn forget(&mut self, service: &str) {
        self.standings.remove(service);
    }

    /// The services whose step has ended by itself.
    pub fn over(&self, now_ns: u64) -> Vec<String> {
        let over = |step: &InForce| step.until_ns <= now_ns;
        let over = self
            .iter()
            .filter(|(_, standing)| standing.step.as_ref().is_some_and(over));
        over.map(|(service, _)| service.to_owned()).collect()
    }

    /// When the next step ends, on the kernel's clock.
    pub fn next_end(&self) -> Option<u64> {
        let steps = self
            .standings
            .values()
            .filter_map(|standing| standing.step.as_ref());
        steps.map(|step| step.until_ns).min()
    }
}

impl Standing {
    /// It was seen at this moment.
    pub(super) fn set_seen(&mut self, now_ns: u64) {
        self.seen_ns = now_ns;
    }
}

impl InForce {
    /// What it is, in words.
    pub fn title(&self) -> String {
        match &self.what {
            What::Tighten { percent } => format!("limits at {percent} %"),
            What::Ban { bans } if bans.len() == 1 => "1 ban".to_owned(),
            What::Ban { bans } => format!("{} bans", bans.len()),
        }
    }
}
