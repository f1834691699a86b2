//! Samples on their way to the detectors: a bounded number of each service's.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use gateway_core::{
    frame::Slice,
    packet::{Fragment, Network, Packet},
    parse::parse,
    verdict::{Reason, Verdict},
    wire::ipv4,
};
use gateway_detect::Sighting;
use ipnet::IpNet;

use crate::{
    compile::prefix,
    geo::Database,
    traffic::{Batch, Missed, Named},
};

/// Samples of a service that are kept for a second's look; beyond that a random choice stands for all.
pub const A_SECOND: usize = 2_048;
/// The same for a look in between.
pub const IN_BETWEEN: usize = 512;

/// Bits of an IPv4 and of an IPv6 address.
pub type Lengths = (u8, u8);

/// How sources are cut, and who is watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    /// A source, as `[source]` says.
    pub(super) source: Lengths,
    /// The networks of each service that is watched.
    pub(super) networks: HashMap<Arc<str>, Lengths>,
}

/// A random choice of fixed size from all that came (algorithm R: Vitter, Random Sampling with a Reservoir, 1985).
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservoir {
    kept: Vec<Sighting>,
    came: u64,
    weight: f64,
}

impl Reservoir {
    /// Takes one in, as `random` (uniform) has it, and keeps at most so many.
    pub(crate) fn add(&mut self, sighting: Sighting, most: usize, random: u64) {
        self.came += 1;
        self.weight += sighting.weight;
        if self.kept.len() < most {
            self.kept.push(sighting);
        } else if let Some(place) = self.kept.get_mut((random % self.came) as usize) {
            *place = sighting;
        }
    }

    /// What is kept, with weights that stand for all that came.
    pub(crate) fn take(self) -> Vec<Sighting> {
        let mut kept = self.kept;
        if self.came > kept.len() as u64 {
            let weight: f64 = kept.iter().map(|sighting| sighting.weight).sum();
            let factor = self.weight / weight.max(f64::MIN_POSITIVE);
            for sighting in &mut kept {
                sighting.weight *= factor;
            }
        }
        kept
    }
}

/// What was sampled of one service since it was looked at.
#[derive(Clone, Debug, Default)]
struct Seen {
    second: Reservoir,
    between: Reservoir,
    /// Packets since somebody asked who has many.
    lately: f64,
}

/// The samples since the last looks.
#[derive(Debug)]
pub(super) struct Sightings {
    cuts: Cuts,
    missed: Missed,
    services: HashMap<Arc<str>, Seen>,
    random: u64,
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            cuts: Cuts::default(),
            missed: Missed::default(),
            services: HashMap::new(),
            // Keyed by the system, so that nobody can choose which of his packets are kept; never 0.
            random: RandomState::new().build_hasher().finish() | 1,
        }
    }
}

impl Sightings {
    /// From now on these are watched, and sources are cut so.
    pub(super) fn set(&mut self, cuts: Cuts) {
        self.services
            .retain(|service, _| cuts.networks.contains_key(service));
        self.cuts = cuts;
    }

    /// Takes a batch in.
    pub(super) fn add(&mut self, batch: &Batch, countries: Option<&Database>) {
        let Some(last) = batch.samples.last() else { return };
        // As in the tables of traffic: what never came is spread over what did.
        let gone = self.missed.since(last.sample.head.missed);
        let stands_for: f64 = batch
            .samples
            .iter()
            .map(|named| f64::from(named.sample.head.one_in))
            .sum();
        let scale = 1.0 + gone as f64 / stands_for.max(1.0);
        for named in &batch.samples {
            // Answers to this host's own sockets are no service's traffic.
            if named.reason != Reason::Reply {
                self.one(named, scale, countries);
            }
        }
    }

    fn one(&mut self, named: &Named, scale: f64, countries: Option<&Database>) {
        let Some((service, network)) = self.cuts.networks.get_key_value(&named.service) else {
            return;
        };
        let Some(sighting) = sampled(named, scale, (self.cuts.source, *network), countries) else {
            return;
        };
        // xorshift64 (Marsaglia, Xorshift RNGs, 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let seen = match self.services.get_mut(service) {
            Some(seen) => seen,
            None => self.services.entry(Arc::clone(service)).or_default(),
        };
        seen.lately += sighting.weight;
        seen.second.add(sighting, A_SECOND, self.random);
        // Other bits: the two choices are independent.
        seen.between
            .add(sighting, IN_BETWEEN, self.random.rotate_left(32));
    }

    /// Packets of each service since this was called last, estimated; those with none are left out.
    pub(super) fn lately(&mut self) -> Vec<(Arc<str>, f64)> {
        let services = self.services.iter_mut().filter(|(_, seen)| seen.lately > 0.0);
        services
            .map(|(service, seen)| (Arc::clone(service), std::mem::take(&mut seen.lately)))
            .collect()
    }

    /// Takes a service's since it was looked at last, in between or not.
    pub(super) fn take_between(&mut self, service: &str) -> Vec<Sighting> {
        self.services
            .get_mut(service)
            .map(|seen| std::mem::take(&mut seen.between).take())
            .unwrap_or_default()
    }

    /// Takes everybody's of the second.
    pub(super) fn take_second(&mut self) -> HashMap<Arc<str>, Vec<Sighting>> {
        let seen = std::mem::take(&mut self.services).into_iter();
        seen.map(|(service, seen)| (service, seen.second.take()))
            .collect()
    }
}

/// A sample as the detectors see it; nothing for what is no IP packet.
fn sampled(
    named: &Named,
    scale: f64,
    cuts: (Lengths, Lengths),
    countries: Option<&Database>,
) -> Option<Sighting> {
    let head = &named.sample.head;
    let frame = Slice {
        bytes: &named.sample.bytes,
        wire_length: head.length,
    };
    let packet = parse(&frame).ok()?;
    let mut sighting = sighting(&packet, named.verdict, cuts, countries)?;
    sighting.weight = f64::from(head.one_in) * scale;
    Some(sighting)
}

/// A packet as the detectors see it, standing for itself alone; nothing for what is no IP packet. `cuts`: how its source is cut,
/// and its network.
pub(crate) fn sighting(
    packet: &Packet,
    verdict: Verdict,
    (source_cut, network_cut): (Lengths, Lengths),
    countries: Option<&Database>,
) -> Option<Sighting> {
    if matches!(packet.network, Network::Other(_)) {
        return None;
    }
    let v6 = matches!(packet.network, Network::V6);
    let address = prefix::address(v6, &packet.source);
    let cut = |(v4, six): Lengths| Some(IpNet::new(address, if v6 { six } else { v4 }).ok()?.trunc());
    let (source_port, destination_port) = ports(packet);
    Some(Sighting {
        weight: 1.0,
        source: cut(source_cut)?,
        network: cut(network_cut)?,
        protocol: packet.protocol,
        source_port,
        destination_port,
        length: packet.length,
        tcp_flags: if packet.protocol == ipv4::TCP {
            packet.tcp_flags
        } else {
            0
        },
        connection: packet.connection,
        dropped: verdict != Verdict::Pass,
        country: countries.and_then(|countries| countries.country(address)),
    })
}

fn ports(packet: &Packet) -> (u16, u16) {
    match packet.protocol {
        ipv4::TCP | ipv4::UDP if !matches!(packet.fragment, Fragment::Later) => {
            (packet.source_port, packet.destination_port)
        }
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{geo::tests::Writer, traffic::tests::named};

    fn watching(services: &[&str]) -> Sightings {
        let mut sightings = Sightings::default();
        sightings.set(Cuts {
            source: (32, 64),
            networks: services
                .iter()
                .map(|service| (Arc::from(*service), (24, 48)))
                .collect(),
        });
        sightings
    }

    fn batch(samples: Vec<Named>) -> Batch {
        Batch { samples }
    }

    #[test]
    fn a_sample_is_seen_as_it_is() {
        let mut sightings = watching(&["shop"]);
        let mut lost = named(0xc000_0201, 0x02, 100, Reason::SourcePackets);
        lost.sample.head.missed = 100;
        sightings.add(&batch(vec![named(0xc000_0201, 0x02, 100, Reason::Pass)]), None);
        sightings.add(&batch(vec![lost]), None);
        assert_eq!(sightings.lately(), [(Arc::from("shop"), 300.0)]);
        assert!(sightings.lately().is_empty());
        let second = sightings.take_second();
        let [first, second] = second["shop"].as_slice() else {
            panic!("{second:?}");
        };
        assert_eq!(
            (first.weight, second.weight),
            (100.0, 200.0),
            "a hundred never came"
        );
        assert_eq!(first.source.to_string(), "192.0.2.1/32");
        assert_eq!(first.network.to_string(), "192.0.2.0/24");
        assert_eq!((first.source_port, first.destination_port), (40_000, 443));
        assert!(first.connection && !first.dropped && second.dropped);
        assert_eq!(first.tcp_flags, 0x02);
    }

    #[test]
    fn a_sample_has_its_country_while_a_database_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        std::fs::write(&path, Writer::new(6).country("192.0.2.0/24", "NL").bytes()).unwrap();
        let database = Database::open(&path).unwrap();
        let mut sightings = watching(&["shop"]);
        let samples = || batch(vec![named(0xc000_0201, 0x02, 100, Reason::Pass)]);
        sightings.add(&samples(), Some(&database));
        sightings.add(
            &batch(vec![named(0xc633_6401, 0x02, 100, Reason::Pass)]),
            Some(&database),
        );
        sightings.add(&samples(), None);
        let second = sightings.take_second();
        let countries: Vec<_> = second["shop"].iter().map(|of| of.country).collect();
        assert_eq!(countries, [Some(*b"NL"), None, None]);
    }

    #[test]
    fn who_is_not_watched_and_answers_are_left_out() {
        let mut sightings = watching(&["other"]);
        sightings.add(&batch(vec![named(0xc000_0201, 0x02, 100, Reason::Pass)]), None);
        assert!(sightings.take_second().is_empty());
        let mut sightings = watching(&["shop"]);
        sightings.add(&batch(vec![named(0xc000_0201, 0x02, 100, Reason::Reply)]), None);
        assert!(sightings.take_second().is_empty());
    }

    #[test]
    fn a_flood_is_a_bounded_choice_that_stands_for_all() {
        let mut sightings = watching(&["shop"]);
        for round in 0..10_u32 {
            let samples = (0..1_000_u32).map(|number| {
                // The second half comes from elsewhere.
                let source = 0x0a00_0000 + u32::from(round >= 5) * 0x10_0000 + number;
                named(source, 0x02, 100, Reason::Pass)
            });
            sightings.add(&batch(samples.collect()), None);
        }
        let between = sightings.take_between("shop");
        assert_eq!(between.len(), IN_BETWEEN);
        assert!(sightings.take_between("shop").is_empty());
        let kept = &sightings.take_second()["shop"];
        assert_eq!(kept.len(), A_SECOND);
        for kept in [&between, kept] {
            let all: f64 = kept.iter().map(|sighting| sighting.weight).sum();
            assert!((all - 1_000_000.0).abs() < 1e-3, "{all}");
            let later: IpNet = "10.16.0.0/16".parse().unwrap();
            let late = kept
                .iter()
                .filter(|sighting| later.contains(&sighting.source))
                .count();
            let share = late as f64 / kept.len() as f64;
            // Five standard errors of the smaller choice.
            assert!((share - 0.5).abs() < 0.11, "{share}");
        }
    }
}
