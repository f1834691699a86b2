//! What of the traffic does not belong: how much, of what kind, and who sends it.

use std::collections::HashMap;

use gateway_core::{
    profile::reflects,
    wire::{ipv4, tcp},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    composition::Distance,
    features::{Feature, KINDS, Learned, kind_of, kinds},
    histogram::Histogram,
    invariants::scans,
    observe::{Observation, Sighting},
    pool::Pool,
    verdict::{Carrier, Kind, Verdict},
};

/// Carriers that are named.
const CARRIERS: usize = 10;
/// Sources that are few.
const FEW: usize = 50;
/// Samples of a source without which it is none of the few.
const SAMPLES: f64 = 3.0;
/// What a feature must have in units of what it usually is, to speak for a kind.
const LOUD: f64 = 4.0;

/// The families of counts that are compared.
const FAMILIES: usize = 3;

/// How large the foreign share of each family usually is: composition drifts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Usual {
    seen: f64,
    mean: [f32; FAMILIES],
    variance: [f32; FAMILIES],
}

impl Usual {
    /// Learns a second of normal traffic.
    pub fn learn(&mut self, seen: &Observation, _pool: &Pool, learned: &Learned) {
        if seen.packets < 1.0 {
            return;
        }
        self.seen += 1.0;
        let rate = (1.0 / crate::features::FADING_SECONDS).max(1.0 / self.seen) as f32;
        let found = families(seen, learned).map(|family| (family.0 / seen.packets) as f32);
        for ((mean, variance), found) in self.mean.iter_mut().zip(&mut self.variance).zip(found) {
            let off = found - *mean;
            *mean += rate * off;
            *variance += rate * (off * off - *variance);
        }
    }

    fn most(&self, family: usize) -> f64 {
        let of = |values: &[f32; FAMILIES]| f64::from(values.get(family).copied().unwrap_or(0.0));
        of(&self.mean) + 3.0 * of(&self.variance).sqrt()
    }
}

/// What of the traffic does not belong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Foreign {
    /// Packets of the interval.
    pub packets: f64,
    /// What kind of attack they make, if they are one.
    pub kind: Kind,
}

fn families(seen: &Observation, learned: &Learned) -> [(f64, [f64; KINDS]); FAMILIES] {
    let mut none = [0.0; KINDS];
    let mut of = [0.0; KINDS];
    let foreign = |histogram: &Histogram, counts: &[f64]| {
        let mut surplus = [0.0; 64];
        surplus
            .get_mut(..counts.len())
            .map_or(0.0, |surplus| histogram.foreign(counts, surplus))
    };
    let kinds = learned.kinds.foreign(&kinds(seen), &mut of);
    none.fill(0.0);
    [
        (kinds, of),
        (foreign(&learned.sizes, &seen.sizes), none),
        (foreign(&learned.ttls, &seen.ttls), none),
    ]
}

impl Foreign {
    /// Looks at a second whose composition is unusual.
    pub fn of(
        seen: &Observation,
        pool: &Pool,
        learned: &Learned,
        usual: &Usual,
        distance: &Distance,
        at: f64,
    ) -> Self {
        let families = families(seen, learned);
        let beyond = |at: usize| {
            families
                .get(at)
                .map_or(0.0, |family| (family.0 - usual.most(at) * seen.packets).max(0.0))
        };
        let by_kind = beyond(0);
        let heavy = heavy(pool, learned);
        let by_sources = if distance.of(Feature::Concentration) > LOUD {
            heavy.share * seen.packets
        } else {
            0.0
        };
        let by_newcomers = newcomers(pool, learned, at) * seen.packets;
        // That many are new is what a crowd has too; it counts where something else is odd as well.
        let odd = [
            Feature::SizeDivergence,
            Feature::TtlDivergence,
            Feature::Similarity,
            Feature::PortConcentration,
            Feature::BytesPerPacket,
            Feature::Closing,
            Feature::SynShare,
            Feature::UdpShare,
        ]
        .into_iter()
        .any(|feature| distance.of(feature).abs() > LOUD);
        let by_newcomers = if odd && distance.of(Feature::NewSources) > LOUD {
            by_newcomers
        } else {
            0.0
        };
        let packets = [by_kind, beyond(1), beyond(2), by_sources, by_newcomers]
            .into_iter()
            .fold(0.0, f64::max);
        let surplus = families.first().map_or([0.0; KINDS], |family| family.1);
        Self {
            packets,
            kind: kind(seen, pool, learned, distance, &surplus, by_kind, packets, &heavy),
        }
    }
}

/// The kind of attack that this would be.
#[allow(clippy::too_many_arguments, reason = "each is a piece of evidence of its own")]
fn kind(
    seen: &Observation,
    pool: &Pool,
    learned: &Learned,
    distance: &Distance,
    surplus: &[f64; KINDS],
    by_kind: f64,
    packets: f64,
    heavy: &Heavy,
) -> Kind {
    let all: f64 = surplus.iter().sum::<f64>().max(1e-9);
    let part = |kinds: &[usize]| {
        kinds
            .iter()
            .map(|kind| surplus.get(*kind).copied().unwrap_or(0.0))
            .sum::<f64>()
            / all
    };
    let few = heavy.sources > 0
        && heavy.sources <= FEW
        && heavy.share >= 0.5 * (packets / seen.packets.max(1.0)).min(0.9);
    let told = by_kind >= 0.4 * packets && by_kind > 0.0;
    if told && part(&[kind_of::REFLECTED, kind_of::FRAGMENT]) >= 0.5 {
        return Kind::Reflection;
    }
    if told && part(&[kind_of::UDP]) >= 0.5 {
        return if scans(seen) { Kind::Scan } else { Kind::UdpFlood };
    }
    let completes = !learned.sees_answers(seen) || distance.of(Feature::Completion) > -LOUD;
    if told && part(&[kind_of::SYN]) >= 0.5 && !completes {
        return if scans(seen) { Kind::Scan } else { Kind::SynFlood };
    }
    // Connections that are begun and not closed, with little in them.
    let opened = distance.of(Feature::SynShare) > LOUD || distance.of(Feature::BytesPerPacket) < -LOUD;
    if completes && distance.of(Feature::Closing) < -LOUD && opened {
        return Kind::Slow;
    }
    if few {
        return Kind::FewSources;
    }
    let udp = learned.udp_share().unwrap_or(0.0) > 0.8 && seen.udp > 0.8 * seen.packets;
    if udp && pool.recent().all(|one| one.protocol == ipv4::UDP) {
        return Kind::UdpFlood;
    }
    Kind::ManySources
}

/// The sources that have far more than one usually has.
struct Heavy {
    sources: usize,
    share: f64,
}

fn counts<T: Eq + std::hash::Hash>(pool: &Pool, of: impl Fn(&Sighting) -> T) -> (HashMap<T, f64>, f64) {
    let (mut counts, mut all) = (HashMap::new(), 0.0);
    for one in pool.recent() {
        *counts.entry(of(one)).or_default() += 1.0;
        all += 1.0;
    }
    (counts, all)
}

/// No source usually has more than the root of the concentration.
fn bound(learned: &Learned) -> f64 {
    let usual = learned.concentration().unwrap_or(0.0).max(0.0).sqrt();
    (1.5 * usual).max(0.01)
}

fn heavy(pool: &Pool, learned: &Learned) -> Heavy {
    let (counts, all) = counts(pool, |one| one.source);
    let bound = bound(learned);
    let heavy: Vec<f64> = counts
        .into_values()
        .filter(|count| *count >= SAMPLES && *count > bound * all)
        .collect();
    Heavy {
        sources: heavy.len(),
        share: heavy.iter().sum::<f64>() / all.max(1.0),
    }
}

/// The share of packets from networks that were not met, beyond the usual.
fn newcomers(pool: &Pool, learned: &Learned, at: f64) -> f64 {
    let (mut new, mut all) = (0.0, 0.0f64);
    for one in pool.recent() {
        all += 1.0;
        new += f64::from(u8::from(!learned.memory.knows(one.network, at)));
    }
    let usual = learned.new_sources().unwrap_or(0.0);
    ((new / all.max(1.0) - usual) / (1.0 - usual)).max(0.0)
}

/// Who carries it: sources where each has much, networks else.
pub fn carriers(
    seen: &Observation,
    pool: &Pool,
    learned: &Learned,
    verdict: Verdict,
    at: f64,
) -> Vec<Carrier> {
    let foreign = |one: &Sighting| match verdict.kind() {
        Some(Kind::SynFlood) => {
            one.protocol == ipv4::TCP && one.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        }
        Some(Kind::Reflection) => {
            one.protocol == ipv4::UDP && (reflects(one.source_port) || one.source_port == 0)
        }
        Some(Kind::UdpFlood) => one.protocol == ipv4::UDP,
        Some(Kind::ManySources) => !learned.memory.knows(one.network, at),
        _ => true,
    };
    let (mut sources, mut networks): (HashMap<IpNet, f64>, HashMap<IpNet, f64>) = Default::default();
    let (mut all, mut whole) = (0.0, 0.0);
    for one in pool.recent() {
        whole += 1.0;
        if foreign(one) {
            *sources.entry(one.source).or_default() += 1.0;
            *networks.entry(one.network).or_default() += 1.0;
            all += 1.0;
        }
    }
    let usual = bound(learned);
    let heaviest = |counts: HashMap<IpNet, f64>| {
        let mut carriers: Vec<(IpNet, f64)> = counts
            .into_iter()
            .filter(|(_, count)| *count >= SAMPLES && *count > usual * whole)
            .collect();
        carriers.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        carriers.truncate(CARRIERS);
        carriers
    };
    let (by_source, by_network) = (heaviest(sources), heaviest(networks));
    let share = |carriers: &[(IpNet, f64)]| carriers.iter().map(|(_, count)| count).sum::<f64>();
    let chosen = if share(&by_network) > 2.0 * share(&by_source) {
        by_network
    } else {
        by_source
    };
    chosen
        .into_iter()
        .map(|(prefix, count)| Carrier {
            prefix,
            packets_per_second: seen.rate() * count / f64::max(whole, 1.0),
            share: count / f64::max(all, 1.0),
        })
        .collect()
}
