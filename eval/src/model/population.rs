//! Who sends: networks of different kinds, a few with many customers and many with few, and those that attack.

use std::net::{Ipv4Addr, Ipv6Addr};

use gateway_core::profile::TTL_COUNTS;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    random::{Random, Wander, mix},
    tally::ttl_at,
};

/// A kind of access network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Its share of the packets at three in the afternoon and at three at night.
    pub(crate) day: f64,
    pub(crate) night: f64,
    /// The TTL that its systems begin with, and how many routers are on the way: mean and deviation.
    pub(crate) initial_ttl: u8,
    pub(crate) hops: f64,
    pub(crate) hops_deviation: f64,
    /// The share of its systems that send TCP timestamps, which makes their ACKs longer.
    pub(crate) timestamps: f64,
    /// The share of IPv6.
    pub(crate) ipv6: f64,
    /// How many networks there are.
    pub(crate) networks: f64,
    /// How many addresses of each are used.
    pub(crate) hosts: u64,
    /// Round trip in seconds.
    pub(crate) round_trip: f64,
}

/// Homes with Windows systems.
pub(crate) const WINDOWS_HOMES: Access = Access {
    day: 0.22,
    night: 0.14,
    initial_ttl: 128,
    hops: 12.0,
    hops_deviation: 2.5,
    timestamps: 0.1,
    ipv6: 0.35,
    networks: 9_000.0,
    hosts: 220,
    round_trip: 0.024,
};
/// Homes with other systems.
pub(crate) const OTHER_HOMES: Access = Access {
    day: 0.16,
    night: 0.2,
    initial_ttl: 64,
    timestamps: 0.95,
    ..WINDOWS_HOMES
};
/// Mobile carriers: few addresses, each of many customers.
pub(crate) const MOBILE: Access = Access {
    day: 0.34,
    night: 0.4,
    initial_ttl: 64,
    hops: 15.0,
    hops_deviation: 2.0,
    timestamps: 0.97,
    ipv6: 0.5,
    networks: 350.0,
    hosts: 16,
    round_trip: 0.052,
};
/// Offices behind one address.
pub(crate) const OFFICES: Access = Access {
    day: 0.16,
    night: 0.02,
    initial_ttl: 128,
    hops: 10.0,
    hops_deviation: 2.0,
    timestamps: 0.25,
    ipv6: 0.05,
    networks: 2_500.0,
    hosts: 1,
    round_trip: 0.016,
};
/// Customers far away, who are awake at other hours.
pub(crate) const ABROAD: Access = Access {
    day: 0.07,
    night: 0.16,
    initial_ttl: 64,
    hops: 19.0,
    hops_deviation: 4.0,
    timestamps: 0.6,
    ipv6: 0.2,
    networks: 30_000.0,
    hosts: 120,
    round_trip: 0.14,
};
/// Programs in data centres: crawlers, price comparisons, monitoring.
pub(crate) const MACHINES: Access = Access {
    day: 0.05,
    night: 0.08,
    initial_ttl: 64,
    hops: 9.0,
    hops_deviation: 2.0,
    timestamps: 0.9,
    ipv6: 0.1,
    networks: 60.0,
    hosts: 12,
    round_trip: 0.012,
};

/// One sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) source: IpNet,
    pub(crate) network: IpNet,
    pub(crate) ttl: u8,
    pub(crate) timestamps: bool,
}

/// Machines under one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Botnet {
    pub(crate) seed: u64,
    pub(crate) hosts: u64,
}

impl Botnet {
    /// One of its hosts.
    pub(crate) fn draw(&self, random: &mut Random) -> (IpNet, IpNet) {
        let host = mix(self.seed ^ mix(random.below(self.hosts)));
        v4(host, (host >> 40) as u8)
    }
}

/// Who sends some packets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Senders {
    /// The service's customers. `fresh`: the share of those who come from networks never met before.
    Customers { fresh: f64 },
    /// One host.
    Host(Host),
    /// Hosts all over the world, each as busy as the other.
    Botnet(Botnet),
    /// Nobody: the source addresses are made up, and the packets come from few machines, a few routers away (the TTL).
    Spoofed(u8),
    /// Servers that answer what was asked in the victim's name.
    Reflectors(Botnet),
}

impl Senders {
    /// TTLs of those who attack.
    pub(crate) fn ttls(&self) -> [f64; TTL_COUNTS] {
        match *self {
            // A program that sets its own, at two sites.
            Self::Spoofed(ttl) => {
                let mut ttls = [0.0; TTL_COUNTS];
                ttls[ttl_at(ttl)] = 0.7;
                ttls[ttl_at(ttl.saturating_sub(6))] += 0.3;
                ttls
            }
            // Cameras and routers, which run Linux, and some Windows systems, far away.
            Self::Botnet(_) => blend(&[
                (0.8, 64, 17.0, 4.0),
                (0.15, 128, 17.0, 4.0),
                (0.05, 255, 16.0, 4.0),
            ]),
            Self::Reflectors(_) => blend(&[
                (0.55, 64, 15.0, 4.0),
                (0.15, 128, 15.0, 4.0),
                (0.3, 255, 14.0, 4.0),
            ]),
            Self::Customers { .. } | Self::Host(_) => [0.0; TTL_COUNTS],
        }
    }

    /// A source and its network.
    pub(crate) fn draw(&self, random: &mut Random, population: &Population) -> (IpNet, IpNet) {
        match *self {
            Self::Customers { fresh } => population.draw(random, fresh),
            Self::Host(host) => (host.source, host.network),
            Self::Botnet(net) | Self::Reflectors(net) => net.draw(random),
            Self::Spoofed(_) => {
                let bits = random.bits();
                v4(bits, (bits >> 40) as u8)
            }
        }
    }
}

/// A /32 and its /24 of public space, from random bits.
fn v4(bits: u64, host: u8) -> (IpNet, IpNet) {
    let mut first = (bits % 222) as u8 + 1;
    if first == 10 || first == 127 {
        first += 1;
    }
    let [second, third, ..] = (bits >> 8).to_le_bytes();
    let (source, network) = (
        Ipv4Addr::new(first, second, third, host),
        Ipv4Addr::new(first, second, third, 0),
    );
    (
        Ipv4Net::new_assert(source, 32).into(),
        Ipv4Net::new_assert(network, 24).into(),
    )
}

/// A /64 and its /48.
fn v6(bits: u64, subnet: u16) -> (IpNet, IpNet) {
    let [a, b, c, ..] = bits.to_le_bytes();
    let (one, two) = (u16::from_le_bytes([a, b]), u16::from(c));
    let (source, network) = (
        Ipv6Addr::new(0x2600 | (one & 0xff), one, two, subnet, 0, 0, 0, 0),
        Ipv6Addr::new(0x2600 | (one & 0xff), one, two, 0, 0, 0, 0, 0),
    );
    (
        Ipv6Net::new_assert(source, 64).into(),
        Ipv6Net::new_assert(network, 48).into(),
    )
}

/// Shares of TTLs of systems: share, initial TTL, hops and their deviation.
fn blend(parts: &[(f64, u8, f64, f64)]) -> [f64; TTL_COUNTS] {
    let mut ttls = [0.0; TTL_COUNTS];
    for &(share, initial, hops, deviation) in parts {
        let mut cells = [0.0; TTL_COUNTS];
        for distance in 1..=40_u8.min(initial) {
            let z = (f64::from(distance) - hops) / deviation;
            cells[ttl_at(initial - distance)] += (-z * z / 2.0).exp();
        }
        let sum: f64 = cells.iter().sum();
        for (ttl, cell) in ttls.iter_mut().zip(cells) {
            *ttl += share * cell / sum;
        }
    }
    ttls
}

/// The customers of a service.
#[derive(Clone, Debug)]
pub(crate) struct Population {
    seed: u64,
    accesses: Vec<Access>,
    /// TTLs of each kind of access.
    ttls_of: Vec<[f64; TTL_COUNTS]>,
    /// How the share of each kind wanders, in the logarithm.
    wander: Vec<Wander>,
    shares: Vec<f64>,
    ttls: [f64; TTL_COUNTS],
    timestamps: f64,
    round_trip: f64,
    packets_per_path: f64,
    /// New networks up to now.
    fresh_from: f64,
    fresh_per_day: f64,
}

impl Population {
    pub(crate) fn new(
        random: &mut Random,
        accesses: &[Access],
        packets_per_path: f64,
        fresh_per_day: f64,
    ) -> Self {
        let ttls_of = accesses
            .iter()
            .map(|of| blend(&[(1.0, of.initial_ttl, of.hops, of.hops_deviation)]))
            .collect();
        let wander = accesses
            .iter()
            .map(|_| Wander::new(random, 0.12, 3.0 * 3600.0))
            .collect();
        let mut population = Self {
            seed: random.bits(),
            accesses: accesses.to_vec(),
            ttls_of,
            wander,
            shares: vec![0.0; accesses.len()],
            ttls: [0.0; TTL_COUNTS],
            timestamps: 0.0,
            round_trip: 0.0,
            packets_per_path,
            fresh_from: 0.0,
            fresh_per_day,
        };
        population.renew(random, 0.0, 0.0);
        population
    }

    /// Goes on to another time: who is awake, and which networks are new. `hour`: of the day.
    pub(crate) fn renew(&mut self, random: &mut Random, hour: f64, seconds: f64) {
        let night = 0.5 - 0.5 * ((hour - 3.0) / 24.0 * std::f64::consts::TAU).cos();
        let mut sum = 0.0;
        for ((share, access), wander) in self.shares.iter_mut().zip(&self.accesses).zip(&mut self.wander) {
            let usual = access.night + (access.day - access.night) * night;
            *share = usual * wander.step(random, seconds).exp();
            sum += *share;
        }
        (self.ttls, self.timestamps, self.round_trip) = ([0.0; TTL_COUNTS], 0.0, 0.0);
        for ((share, access), ttls) in self.shares.iter_mut().zip(&self.accesses).zip(&self.ttls_of) {
            *share /= sum;
            for (all, of) in self.ttls.iter_mut().zip(ttls) {
                *all += *share * of;
            }
            self.timestamps += *share * access.timestamps;
            self.round_trip += *share * access.round_trip;
        }
        self.fresh_from += self.fresh_per_day * seconds / 86_400.0;
    }

    /// The way to one kind of networks becomes longer or shorter by some routers.
    pub(crate) fn reroute(&mut self, random: &mut Random) {
        let kind = random.below(self.accesses.len() as u64) as usize;
        let access = &mut self.accesses[kind];
        access.hops = (access.hops + random.between(-3.0, 3.0)).clamp(4.0, 28.0);
        self.ttls_of[kind] = blend(&[(1.0, access.initial_ttl, access.hops, access.hops_deviation)]);
    }

    pub(crate) fn ttls(&self) -> &[f64; TTL_COUNTS] {
        &self.ttls
    }

    pub(crate) fn timestamps(&self) -> f64 {
        self.timestamps
    }

    pub(crate) fn round_trip(&self) -> f64 {
        self.round_trip
    }

    /// How many packets of an interval come the same way.
    pub(crate) fn packets_per_path(&self) -> f64 {
        self.packets_per_path
    }

    /// A customer. Networks are as busy as Zipf's law has it: the n-th one n times less than the first.
    fn draw(&self, random: &mut Random, fresh: f64) -> (IpNet, IpNet) {
        let mut at = random.unit();
        let mut kind = self.accesses.len() - 1;
        for (index, share) in self.shares.iter().enumerate() {
            if at < *share {
                kind = index;
                break;
            }
            at -= share;
        }
        let access = &self.accesses[kind];
        let rank = if random.chance(fresh) {
            // Those that are new now; in a crowd more of them are.
            access.networks + self.fresh_from + (random.unit() * (1.0 + 3_000.0 * fresh)).floor()
        } else {
            access.networks.powf(random.unit()).floor()
        };
        self.place(random, kind, rank as u64)
    }

    fn place(&self, random: &mut Random, kind: usize, rank: u64) -> (IpNet, IpNet) {
        let access = &self.accesses[kind];
        let bits = mix(self.seed ^ mix((kind as u64) << 48 | rank));
        let host = random.below(access.hosts);
        if random.chance(access.ipv6) {
            v6(bits, host as u16)
        } else {
            v4(bits, (mix(bits ^ host) % 254) as u8 + 1)
        }
    }

    /// A single customer, of any kind.
    pub(crate) fn host(&self, random: &mut Random) -> Host {
        let (source, network) = self.draw(random, 0.1);
        let access = &self.accesses[random.below(self.accesses.len() as u64) as usize];
        let hops = (access.hops + access.hops_deviation * random.normal()).clamp(3.0, 30.0);
        Host {
            source,
            network,
            ttl: access.initial_ttl.saturating_sub(hops as u8),
            timestamps: random.chance(access.timestamps),
        }
    }
}
