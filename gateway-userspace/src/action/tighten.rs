//! How far a service's limits may be scaled down.
//!
//! **Whom a scale hits.** A bucket of rate *R* and burst *B* never refuses a source of which no second of the clock holds more than
//! the smaller of *R* and *B*/2: a span of *t* seconds touches at most *t* + 2 such seconds, and (*t* + 2) × min(*R*, *B*/2) ≤ *B* + *R* × *t*. So
//! the sources that a scale may hit are those that have had a second with more than the scale's share of that. The limits of a
//! class count for all normal sources, or for those in its lists where these are fewer. What several limits hit adds up. All of it is
//! from above.
//!
//! **Totals** are shared, so one that is exhausted may hit anybody: a scale under which a total would no longer hold what
//! arrives (less what the limits per source then take from the carriers), or what usually arrives at most, hits everybody.

use gateway_detect::{
    Finding,
    normal::{Load, Per, Unit},
};
use ipnet::IpNet;

use super::{Remembered, Withheld, percent};
use crate::policy::model::{Limit, Limits, OnAttack, Service};

/// The steps, in per cent; below the last they halve.
const STEPS: [u32; 4] = [80, 60, 40, 20];

/// A limit that a scale changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    /// Whose packets it counts together; nothing: everybody's.
    pub per: Option<Per>,
    /// What it counts.
    pub unit: Unit,
    /// The limit.
    pub limit: Limit,
    /// The prefixes of the class whose it is; nothing: the service's own.
    pub members: Option<Vec<IpNet>>,
}

impl Bounded {
    /// Every limit of a service; `members` knows the content of a list.
    pub fn of(service: &Service, members: impl Fn(&str) -> Vec<IpNet>) -> Vec<Self> {
        let mut found = Vec::new();
        let mut tier = |per, limits: Option<&Limits>, members: Option<&Vec<IpNet>>| {
            let Some(limits) = limits else { return };
            for (unit, limit) in [
                (Unit::Packets, limits.packets),
                (Unit::Bytes, limits.bytes),
                (Unit::Connections, limits.connections),
            ] {
                found.extend(limit.map(|limit| Self {
                    per,
                    unit,
                    limit,
                    members: members.cloned(),
                }));
            }
        };
        let source = service.per_source.as_ref().map(|tier| &tier.limits);
        tier(Some(Per::Source), source, None);
        let network = service.per_network.as_ref().map(|tier| &tier.limits);
        tier(Some(Per::Network), network, None);
        tier(None, service.total.as_ref().map(|tier| &tier.limits), None);
        for class in &service.classes {
            let members: Vec<IpNet> = class.lists.iter().flat_map(|list| members(list)).collect();
            let source = class.per_source.as_ref().map(|tier| &tier.limits);
            tier(Some(Per::Source), source, Some(&members));
            let network = class.per_network.as_ref().map(|tier| &tier.limits);
            tier(Some(Per::Network), network, Some(&members));
            tier(None, class.total.as_ref(), Some(&members));
        }
        found
    }

    fn rate(&self, scale: u32) -> f64 {
        self.limit.rate as f64 * f64::from(scale) / 100.0
    }

    /// What a second of a source may hold without ever being refused.
    fn harmless(&self, scale: u32) -> f64 {
        let burst = self.limit.burst as f64 / 2.0 * f64::from(scale) / 100.0;
        self.rate(scale).min(burst)
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub struct TightenPlan {
    /// The scale of the limits, in per cent.
    pub percent: u32,
    /// The share of normal sources that it hits at most, 0 to 1.
    pub share: f64,
    /// The next stronger step and its share, where there is one that is not taken.
    pub refused: Option<(u32, f64)>,
}

impl TightenPlan {
    /// Why it is this step and no other.
    pub fn why(&self, budget: f64) -> String {
        let taken = format!(
            "at most {} of normal sources are hit, max_impact is {}",
            percent(self.share),
            percent(budget)
        );
        match self.refused {
            Some((step, share)) => format!("{taken}; limits at {step} % might hit {}", percent(share)),
            None => taken,
        }
    }
}

/// The strongest step that hits no more normal sources than the policy allows.
pub fn tighten<R: Remembered>(
    settings: &OnAttack,
    limits: &[Bounded],
    finding: &Finding,
    load: Load,
    normal: &R,
) -> Result<TightenPlan, Withheld> {
    if limits.is_empty() {
        return Err(Withheld::NoLimit);
    }
    let budget = f64::from(settings.max_impact_ppm) / 1e6;
    let replay = Replay::new(limits, finding, load, normal)?;
    let mut plan: Option<TightenPlan> = None;
    let mut refused = None;
    for step in steps(settings.least_percent) {
        let share = replay.hit(step).ok_or(Withheld::Unknown)?;
        if share > budget {
            refused = Some((step, share));
            break;
        }
        plan = Some(TightenPlan {
            percent: step,
            share,
            refused: None,
        });
    }
    match (plan, refused) {
        (Some(plan), _) if replay.touches_nobody(plan.percent) => Err(Withheld::Untouched {
            percent: plan.percent,
            heaviest: replay.heaviest(),
        }),
        (Some(plan), refused) => Ok(TightenPlan { refused, ..plan }),
        (None, Some((step, share))) => Err(Withheld::Impact {
            step: format!("limits at {step} %"),
            share,
            budget,
        }),
        (None, None) => Err(Withheld::NoLimit),
    }
}

/// The scales down to the least, which is one of them.
fn steps(least: u32) -> impl Iterator<Item = u32> {
    let below = std::iter::successors(Some(STEPS[3] / 2), |step| Some(step / 2));
    let steps = STEPS
        .into_iter()
        .chain(below)
        .take_while(move |step| *step > least);
    steps.chain([least])
}

/// What is known of normal traffic and of the attack, against a service's limits.
struct Replay<'a, R> {
    limits: &'a [Bounded],
    /// The share of normal sources in each limit's class.
    members: Vec<f64>,
    finding: &'a Finding,
    load: Load,
    normal: &'a R,
}

impl<'a, R: Remembered> Replay<'a, R> {
    fn new(limits: &'a [Bounded], finding: &'a Finding, load: Load, normal: &'a R) -> Result<Self, Withheld> {
        let members = limits.iter().map(|limit| match &limit.members {
            Some(members) => normal.within(members),
            None => Some(1.0),
        });
        let members: Option<Vec<f64>> = members.collect();
        Ok(Self {
            limits,
            members: members.ok_or(Withheld::Unknown)?,
            finding,
            load,
            normal,
        })
    }

    /// The share of normal sources that a scale hits, at most.
    fn hit(&self, scale: u32) -> Option<f64> {
        let demand = self.demand(scale);
        let mut share = 0.0;
        for (limit, members) in self.limits.iter().zip(&self.members) {
            share += match limit.per {
                Some(per) => self
                    .normal
                    .hit(per, limit.unit, limit.harmless(scale))?
                    .min(*members),
                None if of(demand, limit.unit) > limit.rate(scale) => *members,
                None => 0.0,
            };
        }
        Some(f64::min(share, 1.0))
    }

    /// What totals must hold.
    fn demand(&self, scale: u32) -> Load {
        let mut left = self.load;
        let own = |limit: &&Bounded| {
            limit.per == Some(Per::Source) && limit.unit == Unit::Packets && limit.members.is_none()
        };
        if let Some(limit) = self.limits.iter().find(own) {
            let rate = limit.rate(scale);
            let cut = self
                .finding
                .carriers
                .iter()
                .filter(|carrier| single(&carrier.prefix));
            let cut: f64 = cut
                .map(|carrier| (carrier.packets_per_second - rate).max(0.0))
                .sum();
            // A carrier may be in a class of its own: then this limit is not its limit.
            if self.limits.iter().all(|limit| limit.members.is_none()) {
                left.packets = (left.packets - cut).max(0.0);
            }
        }
        left.max(self.normal.peak())
    }

    fn heaviest(&self) -> f64 {
        let carriers = self
            .finding
            .carriers
            .iter()
            .map(|carrier| carrier.packets_per_second);
        carriers.fold(0.0, f64::max)
    }

    /// Whether it is certain that a scale takes nothing from the carriers: packets of single sources are the only thing
    /// that is limited, and none sends as much.
    fn touches_nobody(&self, scale: u32) -> bool {
        let only_packets = self
            .limits
            .iter()
            .all(|limit| limit.per == Some(Per::Source) && limit.unit == Unit::Packets);
        let least = self.limits.iter().map(|limit| limit.rate(scale));
        let least = least.fold(f64::INFINITY, f64::min);
        let carriers = &self.finding.carriers;
        only_packets
            && !carriers.is_empty()
            && carriers.iter().all(|carrier| single(&carrier.prefix))
            && self.heaviest() <= least
    }
}

/// Whether a prefix is a single source, or as good as one, wherever the policy draws the line.
fn single(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => net.prefix_len() == 32,
        IpNet::V6(net) => net.prefix_len() >= 64,
    }
}

fn of(load: Load, unit: Unit) -> f64 {
    match unit {
        Unit::Packets => load.packets,
        Unit::Bytes => load.bytes,
        Unit::Connections => load.connections,
    }
}
