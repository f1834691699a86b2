//! What is remembered of normal sources: whom would a step hit?
//!
//! Learned from quiet seconds only, from the samples that were taken of them. Two questions are answered, each with a share of
//! normal sources *from above*: what is not known counts against the step.
//!
//! - How many send more than so much in a second ([`Normal::hit`])? Of the sources that are there in a minute, the share
//!   that has such a second in it, for the ten minutes of a step. The number of sources is the kernel's own count, so those that send too little to be sampled
//!   count too.
//! - How many lie within these networks ([`Normal::hit_by_prefixes`])? Of the different sources of seven days. Where each is a single
//!   source, they are no more than that many of the sources that the kernel counts in a minute.
//!
//! **How sure.** Each answer is an upper bound of 99 %: of a hundred answers one may be below the truth, by a little. For sources
//! that are hardly ever sampled (those that send fewer packets in seven days than one sample stands for) an estimate stands, from how
//! many were sampled once and twice; where *only* such sources lie in a network, its share may be understated, by a
//! factor of 3 at most in the tests' simulations.
//!
//! **Memory**: [`Normal::bytes`], at most [`MOST_BYTES`] a service; one without traffic takes little more than the structure itself.
//! **Ageing**: what was counted halves every 56 hours, an eighth is left after seven days; a source is forgotten seven days after it was
//! last seen.

mod bounds;
mod rates;
mod sources;

use std::collections::HashMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::{
    bounds::poisson_most,
    rates::{Minute, Rates, What},
    sources::Sources,
};
use crate::observe::{Observation, Sighting};

/// The most bytes of a service's memory, the structure itself included.
pub const MOST_BYTES: usize = 8_192;

/// Quiet seconds without which nothing is answered.
const LEAST_SECONDS: f64 = 600.0;
/// Different sources without which nothing is answered.
const LEAST_SOURCES: usize = 20;
/// In so many minutes half of what was counted is forgotten: an eighth is left of what is a week old.
const HALF_LIFE_MINUTES: f64 = 3_360.0;
/// Seconds may be so far apart and still follow each other.
const GAP: f64 = 2.5;
/// A minute counts if it and so many seconds before it were quiet: the count of its sources may be that of the minute
/// before, which an attack would have swollen.
const QUIET_BEFORE: f64 = 120.0;
/// The kernel's count of a minute's sources may be off by this: see `gateway_core::profile`.
const COUNT_ERROR: f64 = 0.05;
/// Minutes that a step lasts, unless the policy says otherwise: the share is that of their sources.
const STEP_MINUTES: f64 = 10.0;
/// Bytes of a frame of which there may be some, though none was sampled: a full Ethernet frame.
const FRAME: f64 = 1_514.0;
/// Days whose peaks are kept.
const DAYS: usize = 8;
const DAY: f64 = 86_400.0;

/// Whose packets a limit counts together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Per {
    /// A source's.
    Source,
    /// A network's.
    Network,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Packets.
    Packets,
    /// New connections.
    Connections,
    /// Bytes of the frames.
    Bytes,
}

/// What everybody together sends in a second.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// Packets.
    pub packets: f64,
    /// Bytes.
    pub bytes: f64,
    /// New connections: TCP SYNs, and what else the samples say asks for one.
    pub connections: f64,
}

impl Load {
    /// Of an observation.
    pub fn of(observation: &Observation) -> Self {
        if observation.seconds <= 0.0 {
            return Self::default();
        }
        let other = |sighting: &&Sighting| sighting.connection && sighting.tcp_flags == 0;
        let others: f64 = observation
            .sightings
            .iter()
            .filter(other)
            .map(|one| one.weight)
            .sum();
        Self {
            packets: observation.packets / observation.seconds,
            bytes: observation.bytes / observation.seconds,
            connections: (observation.syn + others) / observation.seconds,
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            packets: self.packets.max(other.packets),
            bytes: self.bytes.max(other.bytes),
            connections: self.connections.max(other.connections),
        }
    }
}

/// The peaks of one day.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Peaks {
    day: u32,
    load: Load,
    /// The longest frame that was sampled.
    frame: u32,
}

/// What is remembered of normal sources.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Normal {
    key: u64,
    /// Quiet seconds that were learned.
    seconds: f64,
    /// The end of the last one, and since when none was missing.
    last: f64,
    quiet_since: f64,
    /// Lengths of the networks.
    networks: [u8; 2],
    minute: Minute,
    rates: Rates,
    sources: Sources,
    peaks: [Peaks; DAYS],
    /// Different sources of the last minute that counts; not kept, for after a restart it may be another hour.
    #[serde(skip)]
    present: Option<f64>,
}

impl Normal {
    /// One that nobody can foresee which sources it remembers of, who does not know the key.
    pub fn with_key(key: u64) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// Learns a second of normal traffic; `at`: its end, in seconds since 1970.
    pub fn learn(&mut self, at: f64, observation: &Observation) {
        let usable = at.is_finite() && at > 0.0 && (0.5..=GAP).contains(&observation.seconds);
        if !usable || at <= self.last {
            // A clock that was set back begins anew, once it has caught up or is far off.
            if at.is_finite() && at + DAY < self.last {
                (self.last, self.quiet_since) = (at, at);
                self.minute = Minute::default();
            }
            return;
        }
        if at - self.last > GAP {
            self.quiet_since = at - observation.seconds;
            self.minute = Minute::default();
        } else if minute(at) != minute(self.last) {
            self.end_minute(minute(at) as f64 * 60.0);
        }
        self.last = at;
        self.seconds += observation.seconds;
        let day = (at / DAY) as u32;
        self.raise(day, observation);
        self.meet(day, &observation.sightings);
        if let Some(sources) = observation
            .sources_per_minute
            .filter(|sources| sources.is_finite())
        {
            let fewest = self.minute.sources.unwrap_or(f64::INFINITY).min(sources);
            self.minute.sources = Some(fewest.max(0.0));
        }
    }

    /// The minute that ended at `end` is over.
    fn end_minute(&mut self, end: f64) {
        let minute = std::mem::take(&mut self.minute);
        if let Some(sources) = minute.sources
            && end - 60.0 - self.quiet_since >= QUIET_BEFORE
        {
            self.rates
                .age((-std::f64::consts::LN_2 / HALF_LIFE_MINUTES).exp());
            self.rates.keep(&minute, sources);
            self.present = Some(sources);
        }
    }

    fn raise(&mut self, day: u32, observation: &Observation) {
        let peaks = &mut self.peaks[day as usize % DAYS];
        if peaks.day != day {
            *peaks = Peaks {
                day,
                ..Peaks::default()
            };
        }
        peaks.load = peaks.load.max(Load::of(observation));
        let longest = observation.sightings.iter().map(|one| one.length).max();
        peaks.frame = peaks.frame.max(longest.unwrap_or(0));
    }

    fn meet(&mut self, day: u32, sightings: &[Sighting]) {
        let mut met: HashMap<(bool, IpNet), (u32, u32, f64)> = HashMap::new();
        for one in sightings.iter().filter(|one| one.weight.is_finite()) {
            for key in [(false, one.source), (true, one.network)] {
                let (packets, connections, weight) = met.entry(key).or_default();
                *packets += 1;
                *connections += u32::from(one.connection);
                *weight = one.weight.max(*weight);
            }
            self.networks[usize::from(one.network.addr().is_ipv6())] = one.network.prefix_len();
        }
        // In one order, so that the same traffic leaves the same memory.
        let mut met: Vec<_> = met.into_iter().collect();
        met.sort_unstable_by_key(|(key, _)| *key);
        for ((network, prefix), (packets, connections, weight)) in met {
            let per = if network { Per::Network } else { Per::Source };
            let hash = sources::hash(self.key, &prefix);
            self.minute.meet(per, hash, packets, connections, weight);
            if !network {
                self.sources.meet(self.key, day, &prefix);
            }
        }
    }

    fn known(&self) -> bool {
        self.seconds >= LEAST_SECONDS && self.sources.len() >= LEAST_SOURCES
    }

    /// The share of normal sources that a limit of so much a second would hit: see the module. A limit per network hits all
    /// sources of the networks that it hits. Nothing while too little is known, and where the service's sources are not counted.
    pub fn hit(&self, per: Per, unit: Unit, rate: f64) -> Option<f64> {
        let sources = self.rates.sources();
        if !self.known() || sources < 1.0 || rate.is_nan() {
            return None;
        }
        let (what, rate) = match unit {
            Unit::Packets => (What::Packets, rate),
            Unit::Connections => (What::Connections, rate),
            // More bytes than that take more frames than that, however long they are.
            Unit::Bytes => (What::Packets, rate / self.longest_frame()),
        };
        let above = self.rates.above(per, what, rate);
        let share = match per {
            Per::Source => above / sources,
            Per::Network => {
                let [v4, v6] = self.networks;
                // So many networks of a minute are hit; at worst it is the largest one each time.
                above / self.rates.minutes() * self.sources.share_of_largest(v4, v6)
            }
        };
        // What usually happens to so many may happen to a few more while the step lasts.
        let there = STEP_MINUTES
            * self
                .present
                .unwrap_or(f64::INFINITY)
                .min(sources / self.rates.minutes());
        let share = share.max(poisson_most(share * there) / there.max(1.0));
        Some(share.min(1.0))
    }

    /// The same for packets a second and source.
    pub fn hit_by_rate(&self, packets_per_second: f64) -> Option<f64> {
        self.hit(Per::Source, Unit::Packets, packets_per_second)
    }

    /// The share of normal sources within these prefixes; nothing while too little is known.
    pub fn hit_by_prefixes(&self, prefixes: &[IpNet]) -> Option<f64> {
        self.known().then(|| {
            let share = self.sources.share_within(prefixes);
            self.counted(prefixes).map_or(share, |counted| share.min(counted))
        })
    }

    /// So many sources are so many at most, of those that the kernel counted in a minute: nothing where a prefix is more than one
    /// source, or none were counted.
    fn counted(&self, prefixes: &[IpNet]) -> Option<f64> {
        let usual = self.rates.sources() / self.rates.minutes();
        let sources = (1.0 - COUNT_ERROR) * self.present?.min(usual);
        let single = sources >= 1.0 && prefixes.iter().all(|prefix| self.sources.is_one(prefix));
        single.then(|| (prefixes.len() as f64 / sources).min(1.0))
    }

    /// The most that everybody together sent in a second of the last seven days, by day's granularity.
    pub fn peak(&self) -> Load {
        let recent = self.recent().map(|peaks| peaks.load);
        recent.fold(Load::default(), Load::max)
    }

    fn recent(&self) -> impl Iterator<Item = &Peaks> {
        let today = (self.last / DAY) as u32;
        let recent = move |peaks: &&Peaks| today.saturating_sub(peaks.day) < DAYS as u32;
        self.peaks.iter().filter(recent)
    }

    fn longest_frame(&self) -> f64 {
        let longest = self.recent().map(|peaks| f64::from(peaks.frame));
        longest.fold(FRAME, f64::max)
    }

    /// Bytes that this takes, on the heap and off it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.rates.heap(&self.minute) + self.sources.heap()
    }
}

/// The number of the minute that a second which ended at `at` belongs to.
fn minute(at: f64) -> i64 {
    ((at - 0.5) / 60.0).floor() as i64
}

#[cfg(test)]
mod tests;
