//! From readings of the kernel's profiles to observations.

use gateway_core::profile::{SIZE_COUNTS, SIZES};
use gateway_detect::{Observation, Sighting};

use crate::kernel::ServiceProfile;

/// What is seen of a service between two readings of its profile: `seconds` apart, with these samples.
pub(super) fn observe(
    before: &ServiceProfile,
    now: &ServiceProfile,
    seconds: f64,
    sightings: Vec<Sighting>,
    sources_per_minute: Option<f64>,
) -> Observation {
    // Counts that fall are those of new maps, which began at nothing.
    let none = ServiceProfile::default();
    let before = if packets(now) < packets(before) {
        &none
    } else {
        before
    };
    let since = |of: fn(&ServiceProfile) -> u64| of(now).saturating_sub(of(before)) as f64;
    let sizes: [f64; SIZE_COUNTS] = differences(&before.sizes, &now.sizes);
    let packets = sizes.iter().sum();
    Observation {
        seconds,
        packets,
        bytes: bytes(&sizes, &sightings),
        sizes,
        ttls: differences(&before.ttls, &now.ttls),
        syn: since(|profile| profile.syn),
        syn_ack: since(|profile| profile.syn_ack),
        first_ack: since(|profile| profile.first_ack),
        fin: since(|profile| profile.fin),
        rst: since(|profile| profile.rst),
        udp: since(|profile| profile.udp),
        reflected: since(|profile| profile.reflected),
        fragments: since(|profile| profile.fragments),
        dropped: packets * share(&sightings, |sighting| sighting.dropped),
        handshake_seconds: mean_seconds(
            &before.handshake,
            &now.handshake,
            since(|profile| profile.handshake_ns),
        ),
        first_byte_seconds: mean_seconds(
            &before.first_byte,
            &now.first_byte,
            since(|profile| profile.first_byte_ns),
        ),
        sources_per_minute,
        sightings,
    }
}

/// What is seen of a service whose profile has not changed.
pub(super) fn nothing(seconds: f64, sources_per_minute: Option<f64>) -> Observation {
    Observation {
        seconds,
        sources_per_minute,
        ..Observation::default()
    }
}

/// All packets of a profile.
fn packets(profile: &ServiceProfile) -> u64 {
    profile.sizes.iter().sum()
}

fn differences<const N: usize>(before: &[u64], now: &[u64]) -> [f64; N] {
    let mut found = [0.0; N];
    for (at, (found, now)) in found.iter_mut().zip(now).enumerate() {
        *found = now.saturating_sub(before.get(at).copied().unwrap_or(0)) as f64;
    }
    found
}

/// Bytes of packets that were counted by their length: those of a count are as long as the samples of it, or, without any, as
/// the middle of its bounds.
fn bytes(sizes: &[f64; SIZE_COUNTS], sightings: &[Sighting]) -> f64 {
    let mut seen = [(0.0, 0.0); SIZE_COUNTS];
    for sighting in sightings {
        let at = gateway_core::profile::size_at(sighting.length);
        if let Some((weight, bytes)) = seen.get_mut(at) {
            *weight += sighting.weight;
            *bytes += sighting.weight * f64::from(sighting.length);
        }
    }
    let lengths = seen.iter().enumerate().map(
        |(at, (weight, bytes))| {
            if *weight > 0.0 { bytes / weight } else { middle(at) }
        },
    );
    sizes
        .iter()
        .zip(lengths)
        .map(|(packets, length)| packets * length)
        .sum()
}

/// The middle of a count's lengths; of the last count, which has no upper bound, its least.
fn middle(at: usize) -> f64 {
    let bound = |at: usize| SIZES.get(at).map(|bound| f64::from(*bound));
    let below = at.checked_sub(1).and_then(bound);
    match (below, bound(at)) {
        // A frame of the least length without its check sequence, which is not counted.
        (None, Some(bound)) => bound - 4.0,
        (Some(below), Some(bound)) => f64::midpoint(below, bound),
        (below, None) => below.unwrap_or(0.0) + 1.0,
    }
}

fn share(sightings: &[Sighting], is: impl Fn(&Sighting) -> bool) -> f64 {
    let (mut all, mut those) = (0.0, 0.0);
    for sighting in sightings {
        all += sighting.weight;
        if is(sighting) {
            those += sighting.weight;
        }
    }
    if all > 0.0 { those / all } else { 0.0 }
}

fn mean_seconds(before: &[u64], now: &[u64], ns: f64) -> Option<f64> {
    let count = |counts: &[u64]| counts.iter().sum::<u64>();
    let times = count(now).saturating_sub(count(before));
    (times > 0).then(|| ns / times as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use gateway_core::profile::TTL_COUNTS;

    use super::*;

    fn profile(packets: u64) -> ServiceProfile {
        let mut profile = ServiceProfile {
            syn: packets / 2,
            udp: packets / 4,
            sizes: vec![0; SIZE_COUNTS],
            ttls: vec![0; TTL_COUNTS],
            ..ServiceProfile::default()
        };
        profile.sizes[0] = packets;
        profile.ttls[7] = packets;
        profile
    }

    fn sighting(length: u32, weight: f64, dropped: bool) -> Sighting {
        Sighting {
            weight,
            source: "192.0.2.1/32".parse().unwrap(),
            network: "192.0.2.0/24".parse().unwrap(),
            protocol: 6,
            source_port: 1,
            destination_port: 2,
            length,
            tcp_flags: 0,
            connection: false,
            dropped,
            country: None,
        }
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
    }

    #[test]
    fn an_observation_is_what_came_since() {
        let seen = observe(&profile(100), &profile(300), 0.5, Vec::new(), Some(7.0));
        near(seen.packets, 200.0);
        near(seen.rate(), 400.0);
        near(seen.syn, 100.0);
        near(seen.udp, 50.0);
        near(seen.ttls[7], 200.0);
        near(seen.bytes, 200.0 * 60.0);
        near(seen.dropped, 0.0);
        assert_eq!(
            (seen.handshake_seconds, seen.sources_per_minute),
            (None, Some(7.0))
        );
        // The profile of a service that came anew, or of new maps.
        near(
            observe(&profile(300), &profile(100), 1.0, Vec::new(), None).packets,
            100.0,
        );
        near(
            observe(&ServiceProfile::default(), &profile(8), 1.0, Vec::new(), None).packets,
            8.0,
        );
        near(
            observe(&profile(8), &profile(8), 1.0, Vec::new(), None).packets,
            0.0,
        );
    }

    #[test]
    fn lengths_and_drops_are_those_of_the_samples() {
        let mut now = profile(100);
        now.sizes[4] = 50;
        now.sizes[SIZE_COUNTS - 1] = 1;
        let sightings = vec![
            sighting(60, 10.0, false),
            sighting(64, 10.0, true),
            sighting(900, 20.0, false),
        ];
        let seen = observe(&ServiceProfile::default(), &now, 1.0, sightings, None);
        near(seen.bytes, 100.0 * 62.0 + 50.0 * 900.0 + 9_019.0);
        near(seen.dropped, 151.0 / 4.0);
    }

    #[test]
    fn times_are_the_mean_of_those_that_came_since() {
        let mut before = profile(0);
        (before.handshake, before.handshake_ns) = (vec![1, 1], 1_000);
        let mut now = profile(0);
        (now.handshake, now.handshake_ns) = (vec![1, 3], 4_000_001_000);
        let seen = observe(&before, &now, 1.0, Vec::new(), None);
        near(seen.handshake_seconds.unwrap(), 2.0);
        assert_eq!(seen.first_byte_seconds, None);
    }
}
