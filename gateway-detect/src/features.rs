//! What traffic is made of, in numbers that do not depend on how much there is.
//!
//! Each feature is measured as its deviation from what was learned, in the logarithm (of a share: of its odds), with the
//! variance that chance gives it: few packets say little, and are drawn towards what is known of the service, so that a quiet
//! night is no anomaly and neither is a crowd.

use gateway_core::profile::{SIZE_COUNTS, TTL_COUNTS};
use serde::{Deserialize, Serialize};

use crate::{
    histogram::Histogram,
    memory::Memory,
    observe::Observation,
    pool::{Pairs, Pool, pairs},
};

/// The features.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Feature {
    /// Handshakes completed, of SYNs.
    Completion,
    /// SYNs, of all packets.
    SynShare,
    /// FINs and RSTs, of SYNs.
    Closing,
    /// Packets from networks that were not met in seven days.
    NewSources,
    /// Packets a source, in a minute.
    PacketsPerSource,
    /// Concentration of sources: the chance that two packets have the same one.
    Concentration,
    /// Similarity of the rates of sources: 1 where all send the same.
    Similarity,
    /// Divergence of the frame lengths from the learned ones.
    SizeDivergence,
    /// Divergence of the TTLs from the learned ones.
    TtlDivergence,
    /// Concentration of source ports: the chance that two packets have the same one.
    PortConcentration,
    /// UDP packets from ports that reflect, and fragments, of all packets.
    ReflectedShare,
    /// UDP, of all packets.
    UdpShare,
    /// Bytes a packet.
    BytesPerPacket,
    /// Seconds to the first byte of the response, or else of the handshake.
    ResponseTime,
    /// Divergence of the countries from the learned ones.
    CountryDivergence,
}

/// How many features there are.
pub const FEATURES: usize = 15;

impl Feature {
    /// All of them.
    pub const ALL: [Self; FEATURES] = [
        Self::Completion,
        Self::SynShare,
        Self::Closing,
        Self::NewSources,
        Self::PacketsPerSource,
        Self::Concentration,
        Self::Similarity,
        Self::SizeDivergence,
        Self::TtlDivergence,
        Self::PortConcentration,
        Self::ReflectedShare,
        Self::UdpShare,
        Self::BytesPerPacket,
        Self::ResponseTime,
        Self::CountryDivergence,
    ];

    /// Its name, as in labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::SynShare => "syn_share",
            Self::Closing => "closing",
            Self::NewSources => "new_sources",
            Self::PacketsPerSource => "packets_per_source",
            Self::Concentration => "concentration",
            Self::Similarity => "similarity",
            Self::SizeDivergence => "size_divergence",
            Self::TtlDivergence => "ttl_divergence",
            Self::PortConcentration => "port_concentration",
            Self::ReflectedShare => "reflected_share",
            Self::UdpShare => "udp_share",
            Self::BytesPerPacket => "bytes_per_packet",
            Self::ResponseTime => "response_time",
            Self::CountryDivergence => "country_divergence",
        }
    }
}

/// A feature of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// What it is, in its own unit; nothing where it cannot be told.
    pub value: Option<f64>,
    /// What it usually is.
    pub expected: Option<f64>,
    /// How far it is from the usual, in the logarithm; 0 where that cannot be told.
    pub deviation: f64,
    /// The variance of the deviation that chance brings.
    pub variance: f64,
}

/// The features of a moment.
pub type Features = [Measured; FEATURES];

/// A share, learned: how many of how many, both fading.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Share {
    part: f64,
    whole: f64,
}

/// How many observations the learned share weighs as, against those of a moment.
const PRIOR: f64 = 8.0;
/// The same of pairs that are alike.
const PAIRS: f64 = 2.0;
/// Shares are not learned to be nearer to 0 or 1 than this.
const LEAST_SHARE: f64 = 1e-4;
/// What is learned fades to 1/e in so many seconds with traffic: six hours.
pub(crate) const FADING_SECONDS: f64 = 6.0 * 3_600.0;

impl Share {
    fn learn(&mut self, part: f64, whole: f64, rate: f64) {
        self.part += rate * (part - self.part);
        self.whole += rate * (whole - self.whole);
    }

    fn usual(self) -> Option<f64> {
        (self.whole > 0.0).then(|| (self.part / self.whole).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE))
    }

    fn measure(self, part: f64, whole: f64) -> Measured {
        if whole <= 0.0 {
            return Measured {
                expected: self.usual(),
                ..Measured::default()
            };
        }
        let part = part.clamp(0.0, whole);
        let Some(usual) = self.usual() else {
            return Measured {
                value: Some(part / whole),
                ..Measured::default()
            };
        };
        let (yes, no) = (part + PRIOR * usual, whole - part + PRIOR * (1.0 - usual));
        // Odds of one in ten thousand and of one in a million are both rare.
        let odds = |yes: f64, no: f64| ((yes + 1e-3 * (yes + no)) / (no + 1e-3 * (yes + no))).ln();
        Measured {
            value: Some(part / whole),
            expected: Some(usual),
            deviation: odds(yes, no) - odds(usual, 1.0 - usual),
            variance: chance(yes, no),
        }
    }

    /// Pairs are few even among many samples, so a share of them is a rate.
    fn measure_pairs(self, found: Pairs) -> Measured {
        let usual = (self.whole > 0.0).then(|| (self.part / self.whole).max(1e-6));
        let Some(usual) = usual.filter(|_| found.all > 0.0) else {
            return Measured {
                value: (found.all > 0.0).then(|| found.alike / found.all),
                expected: usual,
                ..Measured::default()
            };
        };
        let alike = found.alike + PAIRS;
        Measured {
            value: Some(found.alike / found.all),
            expected: Some(usual),
            deviation: (alike / (found.all + PAIRS / usual)).ln() - usual.ln(),
            variance: 2.0 / alike,
        }
    }
}

/// The variance of log odds (Woolf 1955), less the part of it that comes from what was learned.
fn chance(yes: f64, no: f64) -> f64 {
    (1.0 / yes.max(1e-3) + 1.0 / no.max(1e-3)).min(4.0) / 2.0
}

/// A quantity whose logarithm is learned.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Level {
    log: f64,
    seen: f64,
}

impl Level {
    fn learn(&mut self, value: Option<f64>, rate: f64) {
        let Some(log) = value.filter(|value| *value > 0.0).map(f64::ln) else {
            return;
        };
        self.seen += 1.0;
        self.log += rate.max(1.0 / self.seen) * (log - self.log);
    }

    fn measure(self, value: Option<f64>, variance: f64) -> Measured {
        let value = value.filter(|value| *value > 0.0 && value.is_finite());
        let known = self.seen > 0.0;
        Measured {
            value,
            expected: known.then(|| self.log.exp()),
            deviation: value.filter(|_| known).map_or(0.0, |value| value.ln() - self.log),
            variance,
        }
    }
}

/// What the last samples have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Samples.
    pub count: f64,
    /// Those from networks that were not met.
    pub new: f64,
    /// Pairs of the same source.
    pub sources: Pairs,
    /// Pairs of the same source port.
    pub ports: Pairs,
}

/// What was learned of a service's composition.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Learned {
    /// Seconds with traffic that were learned.
    pub seconds: f64,
    completion: Share,
    syn: Share,
    closing: Share,
    new: Share,
    sources: Share,
    ports: Share,
    reflected: Share,
    udp: Share,
    length: Level,
    per_source: Level,
    similarity: Level,
    first_byte: Level,
    handshake: Level,
    /// Packets of the last minute, as an average that fades.
    minute: f64,
    /// Frame lengths.
    pub sizes: Histogram,
    /// TTLs.
    pub ttls: Histogram,
    /// What packets are: see [`kinds`].
    pub kinds: Histogram,
    countries: Histogram,
    names: Vec<[u8; 2]>,
    /// Networks met.
    pub memory: Memory,
}

/// Kinds of packets.
pub const KINDS: usize = 6;
/// Where each is in [`kinds`].
pub mod kind_of {
    /// TCP SYNs.
    pub const SYN: usize = 0;
    /// Other TCP.
    pub const TCP: usize = 1;
    /// UDP from ports that do not reflect.
    pub const UDP: usize = 2;
    /// UDP from ports that do.
    pub const REFLECTED: usize = 3;
    /// Fragments.
    pub const FRAGMENT: usize = 4;
    /// FINs and RSTs.
    pub const CLOSING: usize = 5;
}

/// Packets by what they are.
pub fn kinds(seen: &Observation) -> [f64; KINDS] {
    let plain = (seen.udp - seen.reflected - seen.fragments).max(0.0);
    let closing = seen.fin + seen.rst;
    let others = (seen.packets - seen.syn - closing - plain - seen.reflected - seen.fragments).max(0.0);
    [seen.syn, others, plain, seen.reflected, seen.fragments, closing]
}

/// Countries that are told apart.
const COUNTRIES: usize = 32;

impl Learned {
    /// Whether SYN-ACKs are seen, so that handshakes that are not completed can be told.
    pub fn sees_answers(&self, seen: &Observation) -> bool {
        seen.syn_ack > 0.0 || self.completion.whole > 0.0
    }

    /// Packets a second in the last minute with nothing unusual.
    pub fn rate(&self) -> f64 {
        self.minute
    }

    /// The usual share of SYNs.
    pub fn syn_share(&self) -> Option<f64> {
        self.syn.usual()
    }

    /// The usual share of completed handshakes.
    pub fn completion(&self) -> Option<f64> {
        self.completion.usual()
    }

    /// The usual share of UDP from ports that reflect, and of fragments.
    pub fn reflected_share(&self) -> Option<f64> {
        self.reflected.usual()
    }

    /// The usual share of UDP.
    pub fn udp_share(&self) -> Option<f64> {
        self.udp.usual()
    }

    /// Whether customers use UDP, too.
    pub fn has_quic(&self) -> bool {
        self.udp_share().unwrap_or(0.0) > 0.02
    }

    /// The usual share of packets from networks that were not met.
    pub fn new_sources(&self) -> Option<f64> {
        self.new.usual()
    }

    /// The usual chance that two packets have the same source.
    pub fn concentration(&self) -> Option<f64> {
        (self.sources.whole > 0.0).then(|| self.sources.part / self.sources.whole)
    }

    /// What the last samples have in common.
    pub fn sampled(&self, at: f64, pool: &Pool) -> Sampled {
        let samples = || pool.recent();
        let new = samples().filter(|one| !self.memory.knows(one.network, at));
        Sampled {
            count: samples().count() as f64,
            new: new.count() as f64,
            sources: pairs(samples(), |one| Some(one.source)),
            ports: pairs(samples(), |one| (one.source_port != 0).then_some(one.source_port)),
        }
    }

    /// Measures a second.
    pub fn measure(&self, seen: &Observation, sampled: &Sampled, pool: &Pool) -> Features {
        let all = seen.packets;
        let Sampled {
            count,
            new,
            sources,
            ports,
        } = *sampled;
        let (per_source, similarity) = self.per_source(seen, sources);
        let countries = self.countries_of(pool);
        // A burst of one flow is not so many independent packets.
        let some = all / 4.0;
        let share = |share: Share, part: f64| share.measure(part / 4.0, some);
        let divergence = |learned: &Histogram, counts: &[f64]| {
            let divergence = learned.divergence(counts);
            Measured {
                value: Some(divergence),
                expected: (!learned.is_empty()).then_some(0.0),
                deviation: divergence,
                variance: 1.0 / (counts.iter().sum::<f64>() / 4.0 + 20.0),
            }
        };
        let of = |feature: Feature| match feature {
            Feature::Completion if self.sees_answers(seen) => {
                self.completion.measure(seen.first_ack.min(seen.syn), seen.syn)
            }
            Feature::Completion => Measured::default(),
            Feature::SynShare => share(self.syn, seen.syn),
            Feature::Closing => {
                let closing = seen.fin + seen.rst;
                self.closing.measure(closing, closing + seen.syn)
            }
            Feature::NewSources => self.new.measure(new, count),
            Feature::PacketsPerSource => self.per_source.measure(per_source, 0.02),
            Feature::Concentration => self.sources.measure_pairs(sources),
            Feature::Similarity => self.similarity.measure(similarity, 0.05),
            Feature::SizeDivergence => divergence(&self.sizes, &seen.sizes),
            Feature::TtlDivergence => divergence(&self.ttls, &seen.ttls),
            Feature::PortConcentration => self.ports.measure_pairs(ports),
            Feature::ReflectedShare => share(self.reflected, seen.reflected + seen.fragments),
            Feature::UdpShare => share(self.udp, seen.udp),
            Feature::BytesPerPacket => {
                let length = (all > 0.0).then(|| seen.bytes / all);
                self.length.measure(length, 1.0 / (all / 4.0).max(1.0))
            }
            Feature::ResponseTime => {
                // Of a few connections.
                let variance = 1.0 / seen.first_ack.max(1.0);
                match seen.first_byte_seconds {
                    Some(time) => self.first_byte.measure(Some(time), variance),
                    None => self.handshake.measure(seen.handshake_seconds, variance),
                }
            }
            Feature::CountryDivergence => countries
                .as_deref()
                .map_or_else(Measured::default, |counts| divergence(&self.countries, counts)),
        };
        Feature::ALL.map(of)
    }

    /// Learns a second; `weight`: how much it counts, 1 as a rule.
    pub fn learn(&mut self, at: f64, seen: &Observation, sampled: &Sampled, pool: &Pool, weight: f64) {
        if seen.packets <= 0.0 {
            self.minute += (0.0 - self.minute) * (seen.seconds / 60.0).min(1.0);
            return;
        }
        let Sampled { sources, ports, .. } = *sampled;
        let (per_source, similarity) = self.per_source(seen, sources);
        self.seconds += seen.seconds;
        let rate = (1.0 / FADING_SECONDS).max(1.0 / self.seconds.max(1.0)) * weight;
        if seen.syn_ack > 0.0 {
            self.completion
                .learn(seen.first_ack.min(seen.syn), seen.syn, rate);
        }
        self.syn.learn(seen.syn, seen.packets, rate);
        let closing = seen.fin + seen.rst;
        self.closing.learn(closing, closing + seen.syn, rate);
        self.reflected
            .learn(seen.reflected + seen.fragments, seen.packets, rate);
        self.udp.learn(seen.udp, seen.packets, rate);
        self.length.learn(Some(seen.bytes / seen.packets), rate);
        self.per_source.learn(per_source, rate);
        self.similarity.learn(similarity, rate);
        self.first_byte.learn(seen.first_byte_seconds, rate);
        self.handshake.learn(seen.handshake_seconds, rate);
        // A second counts by how many packets it has, but a crowd's not as a thousand quiet ones.
        let much = (seen.packets / (self.minute + 1.0)).clamp(0.0, 2.0);
        self.sizes.learn(&seen.sizes, rate * much);
        self.ttls.learn(&seen.ttls, rate * much);
        self.kinds.learn(&kinds(seen), rate * much);
        let count = seen.sightings.len() as f64;
        let new = seen
            .sightings
            .iter()
            .filter(|one| !self.memory.knows(one.network, at))
            .count();
        self.new.learn(new as f64, count, rate);
        self.sources.learn(sources.alike, sources.all, rate);
        self.ports.learn(ports.alike, ports.all, rate);
        for one in &seen.sightings {
            self.memory.meet(one.network, at);
            if let Some(country) = one.country
                && self.names.len() < COUNTRIES
                && !self.names.contains(&country)
            {
                self.names.push(country);
            }
        }
        if let Some(counts) = self.countries_of(pool) {
            self.countries.learn(&counts, rate);
        }
        self.minute += (seen.packets - self.minute) * (seen.seconds / 60.0).min(1.0);
    }

    /// Packets a source in a minute, and how alike the rates of sources are, where the sources of a minute are known.
    ///
    /// With S sources of rates that vary by a coefficient c, two packets have the same source with a chance of (1 + c²) / S.
    fn per_source(&self, seen: &Observation, found: Pairs) -> (Option<f64>, Option<f64>) {
        let Some(sources) = seen.sources_per_minute.filter(|sources| *sources >= 1.0) else {
            return (None, None);
        };
        let per_source = (self.minute > 0.0).then(|| self.minute * 60.0 / sources);
        // Few pairs are drawn towards what is known.
        let similarity = self.concentration().filter(|chance| *chance > 0.0).map(|usual| {
            let chance = (found.alike + PAIRS) / (found.all + PAIRS / usual);
            (1.0 / (chance * sources)).min(1.0)
        });
        (per_source, similarity)
    }

    /// Samples by country; the last count is of those that are not told apart.
    fn countries_of(&self, pool: &Pool) -> Option<Vec<f64>> {
        if self.names.is_empty() {
            return None;
        }
        let mut counts = vec![0.0; COUNTRIES + 1];
        for country in pool.recent().filter_map(|one| one.country) {
            let at = self.names.iter().position(|name| *name == country);
            if let Some(count) = counts.get_mut(at.unwrap_or(COUNTRIES)) {
                *count += 1.0;
            }
        }
        Some(counts)
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
            + 4 * (KINDS + SIZE_COUNTS + TTL_COUNTS + COUNTRIES + 1)
            + 2 * self.names.capacity()
    }
}
