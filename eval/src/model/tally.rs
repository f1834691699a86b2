//! What an interval's packets add up to: exact counts, and the samples that the product would have taken of them.

use gateway_core::profile::{self, TTL_COUNTS, TTL_STEP, reflects};
use gateway_detect::{Observation, Sighting};

use super::{
    population::{Host, Population, Senders},
    random::Random,
};

/// Protocol numbers.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// TCP flags.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Where a port comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    /// Always this one.
    Fixed(u16),
    /// One that the client's system chose: 32,768 to 60,999 or, behind address translators, anything from 1,024 on.
    Ephemeral,
    /// Any at all, as a flood's program draws it.
    Any,
    /// None: a later fragment.
    None,
}

impl Port {
    fn draw(self, random: &mut Random) -> u16 {
        match self {
            Self::Fixed(port) => port,
            Self::Ephemeral if random.chance(0.3) => 1024 + random.below(64_512) as u16,
            Self::Ephemeral => 32_768 + random.below(28_232) as u16,
            Self::Any => random.below(65_536) as u16,
            Self::None => 0,
        }
    }
}

/// What packets of a kind look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// IP protocol.
    pub(crate) protocol: u8,
    /// TCP flags, or 0.
    pub(crate) flags: u8,
    /// They ask for connections.
    pub(crate) connection: bool,
    /// Frame lengths: from, to, weight. Each range lies within one of the profile's.
    pub(crate) lengths: [(u16, u16, f64); 4],
    /// Source port.
    pub(crate) source_port: Port,
    /// Destination port.
    pub(crate) destination_port: Port,
}

impl Shape {
    /// TCP with these flags.
    pub(crate) const fn tcp(flags: u8, port: u16, lengths: [(u16, u16, f64); 4]) -> Self {
        Self {
            protocol: TCP,
            flags,
            connection: flags & (SYN | ACK) == SYN,
            lengths,
            source_port: Port::Ephemeral,
            destination_port: Port::Fixed(port),
        }
    }

    /// UDP.
    pub(crate) const fn udp(port: u16, lengths: [(u16, u16, f64); 4]) -> Self {
        Self {
            protocol: UDP,
            flags: 0,
            connection: false,
            lengths,
            source_port: Port::Ephemeral,
            destination_port: Port::Fixed(port),
        }
    }
}

/// One length range, for [`Shape::lengths`].
pub(crate) const fn one(low: u16, high: u16) -> [(u16, u16, f64); 4] {
    [(low, high, 1.0), (0, 0, 0.0), (0, 0, 0.0), (0, 0, 0.0)]
}

/// Two length ranges.
pub(crate) const fn two(first: (u16, u16, f64), second: (u16, u16, f64)) -> [(u16, u16, f64); 4] {
    [first, second, (0, 0, 0.0), (0, 0, 0.0)]
}

/// Packets of a kind from the same senders.
#[derive(Clone, Copy, Debug)]
struct Batch {
    count: f64,
    shape: Shape,
    from: Senders,
    dropped: bool,
}

/// How the product samples: one in so many, and at most so many a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampling {
    /// Mean.
    pub(crate) one_in: f64,
    /// Cap.
    pub(crate) max_per_second: f64,
}

impl Default for Sampling {
    /// What the product does unless the policy says otherwise.
    fn default() -> Self {
        Self {
            one_in: 1000.0,
            max_per_second: 10_000.0,
        }
    }
}

/// An interval that is being added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// What is exact.
    pub(crate) seen: Observation,
    batches: Vec<Batch>,
    /// Packets of the service's own customers, whose TTLs are drawn together.
    ours: f64,
    /// What arrived that is a real frame of a capture: samples of it, each of one packet.
    frames: Vec<Sighting>,
}

impl Tally {
    /// Begins an interval.
    pub(crate) fn new(seconds: f64) -> Self {
        Self {
            seen: Observation {
                seconds,
                ..Observation::default()
            },
            ..Self::default()
        }
    }

    /// Adds packets.
    pub(crate) fn add(&mut self, random: &mut Random, count: f64, shape: Shape, from: Senders) {
        if count <= 0.0 {
            return;
        }
        let seen = &mut self.seen;
        let weights = shape.lengths.map(|(.., weight)| weight);
        let mut bytes = 0.0;
        let mut lengths = |cell: usize, hit: f64, random: &mut Random| {
            let (low, high, _) = shape.lengths[cell];
            let (low, high) = (f64::from(low), f64::from(high));
            let noise = (high - low) * (hit / 12.0).sqrt() * random.normal();
            bytes += (hit * low.midpoint(high) + noise).clamp(hit * low, hit * high);
            seen.sizes[profile::size_at(low.midpoint(high) as u32)] += hit;
        };
        if weights[1] <= 0.0 {
            lengths(0, count, random);
        } else {
            let mut cells = [0.0; 4];
            random.distribute(count, &weights, |cell, hit| cells[cell] = hit);
            for (cell, hit) in cells.into_iter().enumerate().filter(|(_, hit)| *hit > 0.0) {
                lengths(cell, hit, random);
            }
        }
        seen.packets += count;
        seen.bytes += bytes.round();
        if shape.protocol == UDP {
            seen.udp += count;
            match shape.source_port {
                Port::Fixed(port) if reflects(port) => seen.reflected += count,
                Port::Any => seen.reflected += random.binomial(count, REFLECTING),
                _ => {}
            }
        }
        if matches!(shape.source_port, Port::None) {
            seen.fragments += count;
        } else if shape.protocol == TCP {
            if shape.flags & (SYN | ACK) == SYN {
                seen.syn += count;
            }
            if shape.flags & FIN != 0 {
                seen.fin += count;
            }
            if shape.flags & RST != 0 {
                seen.rst += count;
            }
        }
        match from {
            Senders::Customers { .. } => self.ours += count,
            Senders::Host(Host { ttl, .. }) => seen.ttls[ttl_at(ttl)] += count,
            Senders::Botnet(_) | Senders::Spoofed(_) | Senders::Reflectors(_) => {
                random.distribute(count, &from.ttls(), |cell, hit| seen.ttls[cell] += hit);
            }
        }
        self.batches.push(Batch {
            count,
            shape,
            from,
            dropped: false,
        });
    }

    /// Adds a packet of a capture, of which `sighting` says everything.
    pub(crate) fn add_frame(&mut self, sighting: Sighting, ttl: u8, later_fragment: bool) {
        let seen = &mut self.seen;
        seen.packets += 1.0;
        seen.bytes += f64::from(sighting.length);
        seen.sizes[profile::size_at(sighting.length)] += 1.0;
        seen.ttls[ttl_at(ttl)] += 1.0;
        if sighting.protocol == UDP {
            seen.udp += 1.0;
            seen.reflected += f64::from(reflects(sighting.source_port));
        }
        seen.fragments += f64::from(later_fragment);
        if sighting.protocol == TCP {
            seen.syn += f64::from(sighting.tcp_flags & (SYN | ACK) == SYN);
            seen.fin += f64::from(sighting.tcp_flags & FIN != 0);
            seen.rst += f64::from(sighting.tcp_flags & RST != 0);
        }
        self.frames.push(sighting);
    }

    /// Ends the interval: draws the customers' TTLs, and takes the samples.
    pub(crate) fn finish(
        mut self,
        random: &mut Random,
        population: &Population,
        sampling: Sampling,
    ) -> Observation {
        // A connection's packets have one TTL: so many connections, not so many packets, are drawn.
        let clump = population.packets_per_path();
        let mut weights = [0.0; TTL_COUNTS];
        for (weight, share) in weights.iter_mut().zip(population.ttls()) {
            if *share > 0.0 {
                *weight = random.poisson(share * self.ours / clump);
            }
        }
        if weights.iter().sum::<f64>() <= 0.0 {
            weights = *population.ttls();
        }
        let seen = &mut self.seen;
        random.distribute(self.ours, &weights, |cell, hit| seen.ttls[cell] += hit);

        // N aims at seven eighths of the cap; see gateway_core::sample.
        let aimed = seen.packets / seen.seconds / (sampling.max_per_second * 7.0 / 8.0);
        let one_in = aimed.max(sampling.one_in).floor().max(1.0);
        for batch in &self.batches {
            let taken = random.binomial(batch.count, 1.0 / one_in);
            for _ in 0..taken as u64 {
                let sighting = sighting(random, population, batch, one_in);
                self.seen.sightings.push(sighting);
            }
        }
        for frame in &self.frames {
            if random.chance(1.0 / one_in) {
                self.seen.sightings.push(Sighting {
                    weight: one_in,
                    ..*frame
                });
            }
        }
        // In the order of arrival nothing is grouped by kind.
        let sightings = &mut self.seen.sightings;
        for at in (1..sightings.len()).rev() {
            sightings.swap(at, random.below(at as u64 + 1) as usize);
        }
        self.seen
    }
}

/// One sampled packet of a batch.
fn sighting(random: &mut Random, population: &Population, batch: &Batch, weight: f64) -> Sighting {
    let shape = &batch.shape;
    let (source, network) = batch.from.draw(random, population);
    let total: f64 = shape.lengths.iter().map(|(.., weight)| weight).sum();
    let mut at = random.unit() * total;
    let mut length = shape.lengths[0].0;
    for (low, high, weight) in shape.lengths {
        if at < weight {
            length = low + random.below(u64::from(high - low) + 1) as u16;
            break;
        }
        at -= weight;
    }
    Sighting {
        weight,
        source,
        network,
        protocol: shape.protocol,
        source_port: shape.source_port.draw(random),
        destination_port: shape.destination_port.draw(random),
        length: u32::from(length),
        tcp_flags: shape.flags,
        connection: shape.connection,
        dropped: batch.dropped,
        country: None,
    }
}

/// Adds an interval to one that it is part of.
pub(crate) fn join(whole: &mut Observation, part: Observation) {
    let weigh = |a: Option<f64>, b: Option<f64>, a_seconds: f64, b_seconds: f64| match (a, b) {
        (Some(a), Some(b)) => Some((a * a_seconds + b * b_seconds) / (a_seconds + b_seconds)),
        (a, b) => a.or(b),
    };
    let (before, now) = (whole.seconds, part.seconds);
    whole.handshake_seconds = weigh(whole.handshake_seconds, part.handshake_seconds, before, now);
    whole.first_byte_seconds = weigh(whole.first_byte_seconds, part.first_byte_seconds, before, now);
    whole.seconds += part.seconds;
    whole.packets += part.packets;
    whole.bytes += part.bytes;
    for (sum, more) in whole.sizes.iter_mut().zip(part.sizes) {
        *sum += more;
    }
    for (sum, more) in whole.ttls.iter_mut().zip(part.ttls) {
        *sum += more;
    }
    whole.syn += part.syn;
    whole.syn_ack += part.syn_ack;
    whole.first_ack += part.first_ack;
    whole.fin += part.fin;
    whole.rst += part.rst;
    whole.udp += part.udp;
    whole.reflected += part.reflected;
    whole.fragments += part.fragments;
    whole.dropped += part.dropped;
    whole.sources_per_minute = part.sources_per_minute.or(whole.sources_per_minute);
    whole.sightings.extend(part.sightings);
}

/// The count that a TTL belongs to.
pub(crate) fn ttl_at(ttl: u8) -> usize {
    usize::from(ttl) / TTL_STEP as usize
}

/// How many ports reflect.
const fn reflecting_ports() -> u16 {
    let (mut port, mut count) = (u16::MAX, 0);
    while port > 0 {
        count += reflects(port) as u16;
        port -= 1;
    }
    count
}

/// The share of ports that reflect.
const REFLECTING: f64 = reflecting_ports() as f64 / 65_536.0;
