//! What one policy did: counts by service, class, verdict and reason, over time, and of the heaviest sources.

use std::{
    collections::{BTreeMap, HashMap},
    ops::AddAssign,
};

use gateway_core::{
    image::Generation,
    judge::Judgement,
    packet::{Address, Network, Packet},
    verdict::{Reason, Verdict},
};
use ipnet::IpNet;

use super::{
    heavy::{CAPACITY, Heaviest},
    timeline::Timeline,
};
use crate::{compile::prefix, twin::Twin};

/// Packets, and their bytes from the Ethernet header on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Count {
    #[inline]
    pub(super) fn add(&mut self, length: u32) {
        self.packets += 1;
        self.bytes += u64::from(length);
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// A source, as a policy cuts it: its address under the mask, and the mask's length.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct SourceKey {
    v6: bool,
    length: u8,
    address: Address,
}

impl SourceKey {
    pub(super) fn new(generation: &Generation, packet: &Packet) -> Option<Self> {
        let source = &packet.source;
        match packet.network {
            Network::Other(_) => None,
            Network::V4 => Some(Self {
                v6: false,
                length: generation.source_v4.count_ones() as u8,
                address: [source[0] & generation.source_v4, 0, 0, 0],
            }),
            Network::V6 => {
                let mask = &generation.source_v6;
                Some(Self {
                    v6: true,
                    length: mask.iter().map(|word| word.count_ones()).sum::<u32>() as u8,
                    address: std::array::from_fn(|at| source[at] & mask[at]),
                })
            }
        }
    }

    pub(super) fn net(&self) -> IpNet {
        let address = prefix::address(self.v6, &self.address);
        IpNet::new(address, self.length).unwrap_or_else(|_| address.into())
    }
}

/// What became of a source's packets.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceCounts {
    /// Pass, drop and would drop.
    pub(super) verdicts: [Count; 3],
    /// Packets dropped, or that would have been, by reason.
    pub(super) reasons: BTreeMap<Reason, u64>,
}

/// Counts of one policy.
#[derive(Debug)]
pub(super) struct Tally {
    /// By subject (service or class) and reason; the second of each is what would have been dropped.
    counts: Vec<[[Count; 2]; Reason::COUNT]>,
    /// The service of each subject, by its place among the services: 0 is the default.
    services: Vec<usize>,
    /// The names of the services, by place.
    pub(super) names: Vec<String>,
    pub(super) timeline: Timeline,
    pub(super) sources: Heaviest<SourceKey, SourceCounts>,
}

impl Tally {
    pub(super) fn new(twin: &Twin, owners: &[(String, String)], width_ns: Option<u64>) -> Self {
        let mut places = HashMap::new();
        let (mut services, mut names) = (Vec::new(), Vec::new());
        for (subject, (service, _)) in twin.image().subjects.iter().zip(owners) {
            let place = *places.entry(subject.service).or_insert_with(|| {
                names.push(service.clone());
                names.len() - 1
            });
            services.push(place);
        }
        Self {
            counts: vec![[[Count::default(); 2]; Reason::COUNT]; services.len()],
            timeline: Timeline::new(names.len(), width_ns),
            services,
            names,
            sources: Heaviest::new(CAPACITY),
        }
    }

    /// Counts a judgement.
    pub(super) fn add(&mut self, now_ns: u64, judgement: Judgement, length: u32, source: Option<SourceKey>) {
        let (verdict, reason) = (judgement.verdict, judgement.reason);
        let subject = judgement.subject as usize;
        if let Some(counts) = self.counts.get_mut(subject) {
            counts[reason as usize][usize::from(verdict == Verdict::WouldDrop)].add(length);
        }
        let service = self.services.get(subject).copied().unwrap_or(0);
        self.timeline.add(now_ns, service, verdict, reason, length);
        if let Some(source) = source {
            let counts = self.sources.add(source);
            counts.verdicts[verdict as usize].add(length);
            if reason.drops() {
                *counts.reasons.entry(reason).or_default() += 1;
            }
        }
    }

    /// Every count that is not nothing, with its subject.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u32, Verdict, Reason, Count)> + '_ {
        (0..).zip(&self.counts).flat_map(|(subject, reasons)| {
            Reason::ALL.iter().zip(reasons).flat_map(move |(reason, counts)| {
                let verdicts = [
                    if reason.drops() {
                        Verdict::Drop
                    } else {
                        Verdict::Pass
                    },
                    Verdict::WouldDrop,
                ];
                verdicts
                    .into_iter()
                    .zip(counts)
                    .filter(|(_, count)| count.packets > 0)
                    .map(move |(verdict, count)| (subject, verdict, *reason, *count))
            })
        })
    }

    /// The place of a subject's service.
    pub(super) fn service(&self, subject: u32) -> usize {
        self.services.get(subject as usize).copied().unwrap_or(0)
    }
}
