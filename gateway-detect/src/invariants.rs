//! Floods that need no baseline: from the first second, and within tenths of one.
//!
//! SYNs whose handshakes nobody completes and answers that nobody asked for are wrong whatever is usual; what is usual, once it
//! is known, only makes the bounds tighter.

use std::collections::HashMap;

use gateway_core::wire::{ipv4, tcp};

use crate::{
    features::Learned,
    observe::{Observation, Sighting},
    pool::Pool,
    verdict::Kind,
};

/// SYNs a second, beyond the usual, below which nobody is flooded: any host answers so many.
const LEAST_SYN: f64 = 100.0;
/// The same of packets that were reflected.
const LEAST_REFLECTED: f64 = 100.0;
/// Where both are most of what comes, and half as much as usual comes, so few SYNs, or reflected packets, are enough.
/// Fewer SYNs are what any scanner of the Internet brings.
const LEAST: (f64, f64) = (30.0, 10.0);
/// Of a service of which nothing is known yet, so many times more.
const STRANGER: f64 = 5.0;
/// The share of all packets that a flood has.
const SHARE: f64 = 0.12;
/// The same where nothing is known yet.
const STRANGER_SHARE: f64 = 0.35;
/// Completed handshakes, of all that were begun beyond the usual, above which they are no flood of SYNs.
const COMPLETED: f64 = 0.5;
/// SYNs to different ports that make a scan: samples, at least, and how many of them are of another port than the rest.
const SCANNED: (usize, f64) = (6, 0.7);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarm {
    /// The kind.
    pub kind: Kind,
    /// Packets of the interval that do not belong.
    pub foreign: f64,
}

/// Looks at an interval. `known`: enough was learned. `own_ports`: the service names the source ports that it is sent from, so
/// that what comes from there is no reflection.
pub fn look(
    seen: &Observation,
    pool: &Pool,
    learned: &Learned,
    known: bool,
    own_ports: bool,
) -> Option<Alarm> {
    if seen.seconds <= 0.0 {
        return None;
    }
    let reflected = if own_ports {
        None
    } else {
        reflected(seen, learned, known)
    };
    let alarms = [syns(seen, pool, learned, known), reflected];
    alarms
        .into_iter()
        .flatten()
        .max_by(|a, b| a.foreign.total_cmp(&b.foreign))
}

/// The part of `part` that the rest of the traffic does not bring with it usually.
fn beyond(part: f64, whole: f64, usual: f64) -> f64 {
    (part - (whole - part) * usual / (1.0 - usual)).max(0.0)
}

/// Packets that a flood has at least, and its share of all: a service that is asked for little is flooded by little, if that
/// is most of what comes.
fn bounds(
    (least, fewest): (f64, f64),
    learned: &Learned,
    known: bool,
    foreign: f64,
    seen: &Observation,
) -> (f64, f64) {
    if !known {
        return (STRANGER * least * seen.seconds, STRANGER_SHARE);
    }
    if foreign >= least * seen.seconds {
        return (least * seen.seconds, SHARE);
    }
    let usual = 0.5 * learned.rate();
    (usual.clamp(fewest, least) * seen.seconds, STRANGER_SHARE)
}

/// Foreign packets a second below which this kind, plain as it is, is no attack.
pub const fn fewest(kind: Kind) -> f64 {
    match kind {
        Kind::Reflection => LEAST.1,
        _ => LEAST.0,
    }
}

fn syns(seen: &Observation, pool: &Pool, learned: &Learned, known: bool) -> Option<Alarm> {
    let usual = learned.syn_share().filter(|_| known);
    let foreign = match usual {
        // Twice the usual is a second of many newcomers.
        Some(usual) => beyond(seen.syn, seen.packets, (2.0 * usual).min(0.9)),
        None => seen.syn,
    };
    let (least, share) = bounds((LEAST_SYN, LEAST.0), learned, usual.is_some(), foreign, seen);
    if foreign < least || foreign < share * seen.packets {
        return None;
    }
    if learned.sees_answers(seen) {
        // Those of the last round trip are still to come: one in four of what a sudden crowd begins in a tenth of a second.
        let usual = learned.completion().unwrap_or(1.0);
        let ordinary = (seen.syn - foreign).max(0.0) * usual;
        if seen.first_ack - ordinary > COMPLETED * foreign {
            return None;
        }
    }
    Some(Alarm {
        kind: if scans(pool.recent()) {
            Kind::Scan
        } else {
            Kind::SynFlood
        },
        foreign,
    })
}

fn reflected(seen: &Observation, learned: &Learned, known: bool) -> Option<Alarm> {
    let usual = learned.reflected_share().filter(|_| known);
    let part = seen.reflected + seen.fragments;
    let foreign = match usual {
        Some(usual) => beyond(part, seen.packets, (2.0 * usual).min(0.95)),
        None => part,
    };
    let (least, share) = bounds(
        (LEAST_REFLECTED, LEAST.1),
        learned,
        usual.is_some(),
        foreign,
        seen,
    );
    // Fragments alone may be large datagrams of a service that has such.
    let ports = seen.reflected > 0.05 * part || usual.is_some();
    (ports && foreign >= least && foreign >= share * seen.packets).then_some(Alarm {
        kind: Kind::Reflection,
        foreign,
    })
}

/// Whether the SYNs among the samples ask for many ports.
pub fn scans<'a>(sightings: impl Iterator<Item = &'a Sighting>) -> bool {
    let mut ports: HashMap<u16, usize> = HashMap::new();
    let mut all = 0;
    let asks = sightings
        .filter(|one| one.protocol == ipv4::TCP && one.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN);
    for one in asks {
        *ports.entry(one.destination_port).or_default() += 1;
        all += 1;
    }
    all >= SCANNED.0 && ports.len() as f64 >= SCANNED.1 * all.min(50) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Sampled;

    fn customers(scale: f64) -> Observation {
        Observation {
            seconds: 1.0,
            packets: 1_000.0 * scale,
            bytes: 200_000.0 * scale,
            syn: 80.0 * scale,
            syn_ack: 80.0 * scale,
            first_ack: 79.0 * scale,
            fin: 78.0 * scale,
            ..Observation::default()
        }
    }

    fn learned() -> Learned {
        let mut learned = Learned::default();
        for second in 0..1_000 {
            learned.learn(
                f64::from(second),
                &customers(1.0),
                &Sampled::default(),
                &Pool::default(),
                1.0,
            );
        }
        learned
    }

    fn found(seen: &Observation, known: bool) -> Option<Kind> {
        let learned = if known { learned() } else { Learned::default() };
        look(seen, &Pool::default(), &learned, known, false).map(|alarm| alarm.kind)
    }

    #[test]
    fn crowds_are_no_floods() {
        for scale in [0.1, 1.0, 10.0, 100.0] {
            assert_eq!(found(&customers(scale), true), None);
            assert_eq!(found(&customers(scale), false), None);
        }
        // All newcomers: three of ten packets are SYNs, and they get their connections.
        let mut seen = customers(10.0);
        (seen.syn, seen.syn_ack, seen.first_ack) = (3_000.0, 3_000.0, 2_900.0);
        assert_eq!(found(&seen, true), None);
    }

    #[test]
    fn syns_that_nobody_completes_are_a_flood() {
        let mut seen = customers(1.0);
        seen.syn += 1_000.0;
        seen.packets += 1_000.0;
        seen.syn_ack += 1_000.0;
        assert_eq!(found(&seen, true), Some(Kind::SynFlood));
        assert_eq!(found(&seen, false), Some(Kind::SynFlood));
        // In the middle of a crowd.
        let mut seen = customers(5.0);
        seen.syn += 2_000.0;
        seen.packets += 2_000.0;
        assert_eq!(found(&seen, true), Some(Kind::SynFlood));
        // Where answers are not seen.
        let mut seen = customers(1.0);
        (seen.syn_ack, seen.first_ack) = (0.0, 0.0);
        assert_eq!(found(&seen, false), None);
        seen.syn += 1_500.0;
        seen.packets += 1_500.0;
        assert_eq!(found(&seen, false), Some(Kind::SynFlood));
    }

    #[test]
    fn answers_that_nobody_asked_for_are_reflected() {
        let mut seen = customers(1.0);
        seen.udp += 1_000.0;
        seen.reflected += 700.0;
        seen.fragments += 300.0;
        seen.packets += 1_000.0;
        assert_eq!(found(&seen, true), Some(Kind::Reflection));
        assert_eq!(found(&seen, false), Some(Kind::Reflection));
        assert_eq!(
            look(&seen, &Pool::default(), &learned(), true, true),
            None,
            "from ports that the service names"
        );
    }
}
