//! What of the traffic does not belong: how much, of what kind, and who sends it.

use std::collections::HashMap;

use gateway_core::{
    profile::{SIZE_COUNTS, reflects},
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
    pool::{Pool, pairs},
    verdict::{Carrier, Kind, Verdict},
};

/// Carriers that are kept: as many as are banned at once, unless the policy says otherwise.
const CARRIERS: usize = 100;
/// Sources that are few.
const FEW: f64 = 50.0;
/// Samples of a source without which it is none of the few.
const SAMPLES: f64 = 3.0;
/// What a feature must have in units of what it usually is, to speak for a kind.
const LOUD: f64 = 4.0;

/// Sources that a transfer of much data may have: a speed test, a backup, a large download.
const TRANSFERS: usize = 2;
/// Frames of a transfer: what only acknowledges, and what is full.
const BULK: (u32, u32) = (128, 1_000);
/// The share of frames that must be such, and of what is foreign that the sources of a transfer must send.
const MOSTLY: f64 = 0.75;
/// Samples below which nobody can say how many sources something has.
const TOO_FEW: f64 = 8.0;

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
    /// They are like all others but for their sources: a partner's batch is so, too.
    pub alike: bool,
    /// Its kind is told by what the packets are, not by who sends them.
    pub told: bool,
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
    /// Looks at a second whose composition is unusual. `crowd`: there is one, or it begins.
    pub fn of(
        seen: &Observation,
        pool: &Pool,
        learned: &Learned,
        usual: &Usual,
        distance: &Distance,
        at: f64,
        crowd: bool,
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
        // That many are new is what a crowd has too; it counts where something else is odd as well. Of a crowd, that must be what
        // the newcomers do: from further away they come in any case, and each for a little.
        let loud = |features: &[Feature]| features.iter().any(|feature| distance.of(*feature).abs() > LOUD);
        // A crowd that goes closes more than it begins: that is no sign.
        let sided = distance.of(Feature::SynShare) > LOUD || distance.of(Feature::Closing) < -LOUD;
        let behaves = sided
            || !crowd && loud(&[Feature::SynShare, Feature::Closing])
            || loud(&[
                Feature::SizeDivergence,
                Feature::PortConcentration,
                Feature::BytesPerPacket,
                Feature::UdpShare,
            ]);
        let odd = behaves || loud(&[Feature::TtlDivergence, Feature::Similarity]);
        let alike = !odd && by_sources > 0.0;
        let by_newcomers = if (behaves || odd && !crowd) && distance.of(Feature::NewSources) > LOUD {
            by_newcomers
        } else {
            0.0
        };
        let by_ttl = if crowd && !behaves { 0.0 } else { beyond(2) };
        let packets = [by_kind, beyond(1), by_ttl, by_sources, by_newcomers]
            .into_iter()
            .fold(0.0, f64::max);
        let surplus = families.first().map_or([0.0; KINDS], |family| family.1);
        let kind = kind(seen, pool, learned, distance, &surplus, by_kind, packets);
        // A host that cannot keep up completes fewer handshakes, and customers ask again: the crowd's doing.
        let overloaded = learned.sees_answers(seen) && distance.of(Feature::Completion) < -LOUD;
        let late = overloaded || distance.of(Feature::ResponseTime) > LOUD;
        // What came over connections that were not completed is missing, so that the rest, with QUIC's UDP, looks like more.
        let left_over = kind == Kind::UdpFlood && learned.has_quic() && packets < 0.6 * seen.packets;
        if late && left_over || overloaded && matches!(kind, Kind::ManySources | Kind::Slow) {
            return Self {
                packets: 0.0,
                kind: Kind::ManySources,
                alike,
                told: false,
            };
        }
        if transfer(seen, learned, &surplus, &heavy, packets) {
            return Self {
                packets: 0.0,
                kind: Kind::FewSources,
                alike,
                told: false,
            };
        }
        let told = told(by_kind, packets) && !matches!(kind, Kind::FewSources | Kind::ManySources);
        Self {
            packets,
            kind,
            alike,
            told,
        }
    }
}

/// Whether what packets are makes most of what is foreign.
fn told(by_kind: f64, packets: f64) -> bool {
    by_kind >= 0.4 * packets && by_kind > 0.0
}

/// Whether what is foreign is somebody who sends or fetches much over a connection or a few: no attack, however unusual.
fn transfer(
    seen: &Observation,
    learned: &Learned,
    surplus: &[f64; KINDS],
    heavy: &Heavy,
    packets: f64,
) -> bool {
    let established = surplus.get(kind_of::TCP).copied().unwrap_or(0.0);
    let quic = learned.has_quic();
    let others: f64 = surplus
        .iter()
        .enumerate()
        .filter(|(kind, _)| *kind != kind_of::TCP && !(quic && *kind == kind_of::UDP))
        .map(|(_, count)| count)
        .sum();
    if others > 0.25 * packets.max(established) {
        return false;
    }
    let mut sizes = [0.0; SIZE_COUNTS];
    let foreign = learned.sizes.foreign(&seen.sizes, &mut sizes);
    // Up to 128 bytes, and from 1,025 to 1,518.
    let bulk = [0, 1, 5].iter().filter_map(|at| sizes.get(*at)).sum::<f64>();
    let by_size = foreign < 0.2 * packets || bulk >= MOSTLY * foreign;
    let share = packets / seen.packets.max(1.0);
    if share * heavy.samples < TOO_FEW {
        return by_size;
    }
    // Within what chance brings (two standard deviations of so many samples).
    let share = share.min(0.95);
    let chance = 2.0 * (share * (1.0 - share) / heavy.samples).sqrt();
    by_size && heavy.first >= MOSTLY * share - chance && heavy.bulk >= MOSTLY * heavy.first
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
) -> Kind {
    let all: f64 = surplus.iter().sum::<f64>().max(1e-9);
    let part = |kinds: &[usize]| {
        kinds
            .iter()
            .map(|kind| surplus.get(*kind).copied().unwrap_or(0.0))
            .sum::<f64>()
            / all
    };
    let few = sources(pool, learned, packets / seen.packets.max(1.0)).is_some_and(|sources| sources <= FEW);
    let told = told(by_kind, packets);
    if told && part(&[kind_of::REFLECTED, kind_of::FRAGMENT]) >= 0.5 {
        return Kind::Reflection;
    }
    if told && part(&[kind_of::UDP]) >= 0.5 {
        return Kind::UdpFlood;
    }
    let completes = !learned.sees_answers(seen) || distance.of(Feature::Completion) > -LOUD;
    if told && part(&[kind_of::SYN]) >= 0.5 && !completes {
        return if scans(pool.recent()) {
            Kind::Scan
        } else {
            Kind::SynFlood
        };
    }
    // Connections that are begun and not closed, with little in them.
    let opened = distance.of(Feature::SynShare) > LOUD || distance.of(Feature::BytesPerPacket) < -LOUD;
    let answered = !learned.sees_answers(seen) || seen.first_ack >= 0.7 * seen.syn;
    if completes && answered && distance.of(Feature::Closing) < -LOUD && opened {
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
    /// The share of those above the bound.
    share: f64,
    /// The share of the first [`TRANSFERS`].
    first: f64,
    /// Their frames of a transfer, as a share of all.
    bulk: f64,
    /// Samples there are.
    samples: f64,
}

/// How many sources what is foreign has, as far as pairs of samples tell; `share` is how much of all is foreign. Of k sources
/// that send as much as each other two packets have the same one with a chance of 1 / k.
fn sources(pool: &Pool, learned: &Learned, share: f64) -> Option<f64> {
    let found = pairs(pool.recent(), |one| Some(one.source));
    if found.alike < SAMPLES {
        return None;
    }
    let usual = learned.concentration().unwrap_or(0.0) * (1.0 - share).powi(2);
    let foreign = found.alike / found.all - usual;
    // Within what chance brings there may be any number of them.
    let chance = found.alike.sqrt() / found.all;
    (foreign > 2.0 * chance).then(|| share * share / foreign)
}

/// No source usually has more than the root of the concentration.
fn bound(learned: &Learned) -> f64 {
    let usual = learned.concentration().unwrap_or(0.0).max(0.0).sqrt();
    (1.5 * usual).max(0.01)
}

fn heavy(pool: &Pool, learned: &Learned) -> Heavy {
    let (mut counts, mut all): (HashMap<IpNet, (f64, f64)>, f64) = (HashMap::new(), 0.0);
    for one in pool.recent() {
        let count = counts.entry(one.source).or_default();
        count.0 += 1.0;
        count.1 += f64::from(u8::from(one.length <= BULK.0 || one.length >= BULK.1));
        all += 1.0;
    }
    let mut counts: Vec<(f64, f64)> = counts
        .into_values()
        .filter(|(count, _)| *count >= SAMPLES)
        .collect();
    counts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let bound = bound(learned) * all;
    let whole = all.max(1.0);
    let first = counts.iter().take(TRANSFERS);
    Heavy {
        share: counts
            .iter()
            .map(|(count, _)| count)
            .filter(|count| **count > bound)
            .sum::<f64>()
            / whole,
        first: first.clone().map(|(count, _)| count).sum::<f64>() / whole,
        bulk: first.map(|(_, bulk)| bulk).sum::<f64>() / whole,
        samples: all,
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
