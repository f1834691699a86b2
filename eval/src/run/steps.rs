//! Steps against attacks: does one hit no more of the normal sources than is stated?
//!
//! What is stated comes from the product: what its detector remembers, from samples, and the plans of `[service.on_attack]`. What
//! is true comes from the model: the same service at the same moment without the attack, every packet of it, for as long as a
//! step lasts, through the buckets that the step leaves.

use std::collections::{BTreeMap, HashMap, HashSet};

use gateway_detect::normal::{Load, Per, Unit};
use ipnet::IpNet;
use weir::{
    action::{self, Bounded, Spared, Suspects, Withheld},
    policy::model::{Limit, OnAttack, Source},
};

use crate::{
    model::{
        attack::{Attack, Form},
        plan::Talk,
        random::mix,
        service::Hostile,
        tally::Sampling,
    },
    run::{
        injected::trial,
        normal::{Moment, Weeks},
    },
};

/// Limits per source, in packets a second; their bursts are twice that.
const RATES: [u64; 6] = [20, 50, 200, 1_000, 5_000, 20_000];
/// Limits on new connections per source.
const CONNECTIONS: [u64; 2] = [10, 50];
/// How strong the attacks are that steps are taken against, in times of the usual, and how long they last.
const STRENGTH: f64 = 5.0;
const LASTS: f64 = 12.0;
/// How long a step lasts, in seconds, and what it may hit: the defaults.
const STEP: u64 = 600;

/// A step that was thought of.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) service: &'static str,
    pub(crate) moment: &'static str,
    pub(crate) attack: &'static str,
    /// The limit that was scaled, or the bans, in words.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) came: Came,
}

/// What came of a step.
#[derive(Clone, Debug)]
pub(crate) enum Came {
    /// It was taken.
    Taken {
        /// The share of normal sources that was stated.
        stated: f64,
        /// The share of the sources of a minute that it hits in that minute.
        minute: f64,
        /// The share of the sources of the whole step that it ever hits.
        whole: f64,
    },
    /// It was not: a word for why.
    Withheld(&'static str),
}

/// Every packet of a while: seconds in which each source sent, how many packets, how many of them asked for connections.
struct Truth {
    sources: HashMap<IpNet, Vec<(u32, u32, u32)>>,
    source_minutes: f64,
}

impl Truth {
    fn of(moment: &Moment, seed: u64) -> Self {
        let mut service = moment.watch.branch(seed).service;
        service.sample(Sampling {
            one_in: 1.0,
            max_per_second: f64::INFINITY,
        });
        let mut sources: HashMap<IpNet, Vec<(u32, u32, u32)>> = HashMap::new();
        for second in 0..STEP as u32 {
            for one in &service.second().sightings {
                let times = sources.entry(one.source).or_default();
                let asks = u32::from(one.connection);
                match times.last_mut() {
                    Some((at, packets, connections)) if *at == second => {
                        *packets += 1;
                        *connections += asks;
                    }
                    _ => times.push((second, 1, asks)),
                }
            }
        }
        let minutes = |times: &Vec<(u32, u32, u32)>| {
            times
                .iter()
                .map(|(second, ..)| second / 60)
                .collect::<HashSet<u32>>()
                .len() as f64
        };
        Self {
            source_minutes: sources.values().map(minutes).sum(),
            sources,
        }
    }

    /// The shares of source-minutes and of sources that a bucket refuses something. What comes in a second comes at once.
    fn hit(&self, unit: Unit, rate: f64, burst: f64) -> (f64, f64) {
        let (mut minutes, mut sources) = (0.0, 0.0);
        for times in self.sources.values() {
            let (mut left, mut last) = (burst, 0);
            let mut hit: HashSet<u32> = HashSet::new();
            for &(second, packets, connections) in times {
                left = (left + rate * f64::from(second - last)).min(burst);
                last = second;
                let wanted = if unit == Unit::Connections {
                    connections
                } else {
                    packets
                };
                if f64::from(wanted) > left {
                    hit.insert(second / 60);
                }
                left = (left - f64::from(wanted)).max(0.0);
            }
            minutes += hit.len() as f64;
            sources += f64::from(u8::from(!hit.is_empty()));
        }
        (
            minutes / self.source_minutes.max(1.0),
            sources / (self.sources.len() as f64).max(1.0),
        )
    }

    /// The shares that lie within prefixes.
    fn within(&self, prefixes: &[IpNet]) -> (f64, f64) {
        let within = |source: &&IpNet| prefixes.iter().any(|prefix| prefix.contains(*source));
        let share = self.sources.keys().filter(within).count() as f64 / (self.sources.len() as f64).max(1.0);
        (share, share)
    }
}

fn word(withheld: &Withheld) -> &'static str {
    withheld.word()
}

/// Every attack at every moment, with every limit, and with bans.
pub(crate) fn run(weeks: &Weeks, seed: u64) -> Vec<Step> {
    let datagrams = !matches!(weeks.plan.talk, Talk::Web { .. });
    let settings = OnAttack::default();
    let mut steps = Vec::new();
    for moment in &weeks.moments {
        let truth = Truth::of(moment, mix(seed ^ mix(moment.name.len() as u64)));
        for form in Form::ALL.into_iter().filter(|form| form.suits(datagrams)) {
            let seed = mix(seed ^ mix(form as u64));
            let (watch, ..) = trial(moment, seed, LASTS, |begins, usual| {
                let rate = STRENGTH * usual;
                let attack = Attack::new(form, begins, LASTS, rate, datagrams, seed);
                (Hostile::Modelled(attack), rate)
            });
            let finding = watch.detector.finding();
            if finding.verdict.kind().is_none() {
                continue;
            }
            let normal = watch.detector.normal();
            let step = |what: String, came: Came| Step {
                service: weeks.plan.name,
                moment: moment.name,
                attack: form.name(),
                what,
                came,
            };
            let packets = RATES.map(|rate| (Unit::Packets, rate));
            let connections = CONNECTIONS.map(|rate| (Unit::Connections, rate));
            for (unit, rate) in packets.into_iter().chain(connections) {
                let limit = Bounded {
                    per: Some(Per::Source),
                    unit,
                    limit: Limit {
                        rate,
                        burst: 2 * rate,
                    },
                    members: None,
                };
                let load = Load::default();
                let came = match action::tighten(&settings, &[limit], finding, load, normal) {
                    Ok(plan) => {
                        let scale = f64::from(plan.percent) / 100.0;
                        let (minute, whole) = truth.hit(unit, rate as f64 * scale, 2.0 * rate as f64 * scale);
                        Came::Taken {
                            stated: plan.share,
                            minute,
                            whole,
                        }
                    }
                    Err(why) => Came::Withheld(word(&why)),
                };
                let name = if unit == Unit::Packets {
                    "packets"
                } else {
                    "connections"
                };
                steps.push(step(format!("tighten {rate} {name}"), came));
            }
            let source = Source {
                ipv4_prefix: 32,
                ipv6_prefix: 64,
                max_tracked: 1_000_000,
            };
            let suspects = Suspects {
                source: &source,
                spared: &Spared::default(),
                // The model's bots complete their handshakes.
                proven: &|_| true,
                banned: &|_| false,
                ours: &[],
            };
            let came = match action::ban(&settings, &suspects, finding, normal) {
                Ok(plan) => {
                    let (minute, whole) = truth.within(&plan.prefixes);
                    Came::Taken {
                        stated: plan.share,
                        minute,
                        whole,
                    }
                }
                Err(why) => Came::Withheld(word(&why)),
            };
            steps.push(step("ban".to_owned(), came));
        }
    }
    steps
}

/// Steps that are alike, for the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alike {
    pub(crate) thought_of: usize,
    pub(crate) taken: usize,
    /// More of the sources of a minute were hit than was stated.
    pub(crate) exceeded: usize,
    pub(crate) stated: f64,
    pub(crate) minute: f64,
    pub(crate) whole: f64,
    pub(crate) withheld: BTreeMap<&'static str, usize>,
}

/// By what was to be done.
pub(crate) fn alike<'a>(steps: impl Iterator<Item = &'a Step>) -> BTreeMap<String, Alike> {
    let mut groups: BTreeMap<String, Alike> = BTreeMap::new();
    for step in steps {
        let group = groups.entry(step.what.clone()).or_default();
        group.thought_of += 1;
        match &step.came {
            Came::Taken {
                stated,
                minute,
                whole,
            } => {
                group.taken += 1;
                group.exceeded += usize::from(minute > stated);
                group.stated = group.stated.max(*stated);
                group.minute = group.minute.max(*minute);
                group.whole = group.whole.max(*whole);
            }
            Came::Withheld(word) => *group.withheld.entry(word).or_insert(0) += 1,
        }
    }
    groups
}
