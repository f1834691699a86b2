//! What the services' traffic looked like lately: readings of the kernel's profiles, and the different sources of whole
//! minutes.

use std::{collections::BTreeMap, sync::Arc};

use gateway_core::profile::{TIME_COUNTS, time_bound_ns};

use super::rates::{self, Totals};
use crate::{
    distinct::Registers,
    kernel::{Counter, DistinctSources, ServiceProfile},
    metrics::Series,
};

/// How often the profiles are looked at, in nanoseconds.
const EVERY_NS: u64 = 10_000_000_000;
/// The least span that a rate is worked out over, in nanoseconds.
const LEAST_SPAN_NS: u64 = 2_000_000_000;
/// Looking may take this share of the time: one part in so many.
const SHARE: u64 = 200;
/// For how long a reading of the profiles is good, in nanoseconds.
const PROFILES_FOR_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

/// What one service had counted at a reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Glance {
    /// Packets, bytes and drops.
    pub totals: Totals,
    /// TCP SYNs.
    pub syn: u64,
    /// Handshakes completed.
    pub first_ack: u64,
    /// Handshakes by their round trip.
    pub handshake: Vec<u64>,
    /// First answers by how long they took.
    pub first_byte: Vec<u64>,
}

/// One reading of every service that has counted something.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// When, on the kernel's clock.
    pub ns: u64,
    /// The services.
    pub services: BTreeMap<String, Glance>,
}

impl View {
    /// From readings of the counters and of the profiles.
    pub(super) fn of(ns: u64, counters: &[Counter], profiles: &[Arc<ServiceProfile>]) -> Self {
        let totals = rates::totals(counters).into_iter();
        let mut services: BTreeMap<String, Glance> = totals
            .map(|(service, totals)| {
                let glance = Glance {
                    totals,
                    ..Glance::default()
                };
                (service, glance)
            })
            .collect();
        for profile in profiles.iter().filter(|profile| counted(profile)) {
            let glance = services.entry(profile.service.clone()).or_default();
            glance.syn = profile.syn;
            glance.first_ack = profile.first_ack;
            glance.handshake.clone_from(&profile.handshake);
            glance.first_byte.clone_from(&profile.first_byte);
        }
        Self { ns, services }
    }
}

/// Whether a profile has anything in it.
pub(super) fn counted(profile: &ServiceProfile) -> bool {
    let single = [
        profile.syn,
        profile.syn_ack,
        profile.first_ack,
        profile.fin,
        profile.rst,
    ];
    let many = [
        &profile.sizes,
        &profile.ttls,
        &profile.handshake,
        &profile.first_byte,
    ];
    single
        .iter()
        .chain(many.into_iter().flatten())
        .any(|count| *count > 0)
}

/// Everything that is kept of the profiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    older: Option<View>,
    newer: Option<View>,
    due_ns: u64,
    profiles: Option<(u64, Arc<Vec<Arc<ServiceProfile>>>)>,
    /// The services with series of their own.
    pub series: Series,
    /// Different sources in a minute.
    pub minute: Window<1>,
    /// Different sources in ten minutes.
    pub ten_minutes: Window<10>,
}

impl Seen {
    /// When to look next, on the kernel's clock.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Takes in a look at everything that took `cost_ns`: the dearer it was, the longer until the next.
    pub(super) fn keep(&mut self, view: View, distinct: &[DistinctSources], cost_ns: u64) {
        let met: Vec<(&str, Registers)> = distinct
            .iter()
            .map(|seen| (seen.service.as_str(), Registers::of(&seen.registers)))
            .collect();
        self.minute.take(view.ns, &met, &self.series);
        self.ten_minutes.take(view.ns, &met, &self.series);
        self.put_off(view.ns, cost_ns);
        self.older = self.newer.replace(view);
    }

    /// Puts off the next look.
    pub(super) fn put_off(&mut self, now_ns: u64, cost_ns: u64) {
        self.due_ns = now_ns + EVERY_NS.max(cost_ns.saturating_mul(SHARE));
    }

    /// The view to compare the present with: the oldest that is old enough, which is ten to twenty seconds old where there
    /// have been two looks.
    pub(super) fn since(&self, now_ns: u64) -> Option<&View> {
        [&self.older, &self.newer]
            .into_iter()
            .flatten()
            .find(|view| now_ns.saturating_sub(view.ns) >= LEAST_SPAN_NS)
    }

    /// A reading of the profiles that is still good.
    pub(super) fn profiles(&self, now_ns: u64) -> Option<Arc<Vec<Arc<ServiceProfile>>>> {
        let (at, profiles) = self.profiles.as_ref()?;
        (now_ns.saturating_sub(*at) < PROFILES_FOR_NS).then(|| Arc::clone(profiles))
    }

    /// Keeps a reading of the profiles.
    pub(super) fn keep_profiles(&mut self, now_ns: u64, profiles: Arc<Vec<Arc<ServiceProfile>>>) {
        let counted = profiles.iter().filter(|profile| counted(profile));
        self.series.admit(counted.map(AsRef::as_ref));
        self.profiles = Some((now_ns, profiles));
    }
}

/// Different sources in so many whole minutes. Only services with traffic take memory: some hundred bytes, or 4 kB where there
/// are many sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Window<const MINUTES: u64> {
    began_ns: u64,
    /// What was met since then.
    now: BTreeMap<String, Registers>,
    /// And by the services without series of their own, together.
    others_now: Registers,
    /// The estimates of the last whole window.
    last: Option<(Arc<BTreeMap<String, u64>>, u64)>,
}

impl<const MINUTES: u64> Window<MINUTES> {
    fn take(&mut self, now_ns: u64, met: &[(&str, Registers)], series: &Series) {
        if self.began_ns == 0 {
            self.began_ns = now_ns;
        }
        for (service, registers) in met.iter().filter(|(_, registers)| !registers.is_empty()) {
            if let Some(held) = self.now.get_mut(*service) {
                held.merge(registers);
            } else {
                self.now.insert((*service).to_owned(), registers.clone());
            }
            if !series.has(service) {
                self.others_now.merge(registers);
            }
        }
        if now_ns.saturating_sub(self.began_ns) >= MINUTES * MINUTE_NS {
            let others = std::mem::take(&mut self.others_now).estimate();
            let now = std::mem::take(&mut self.now).into_iter();
            let last = now.map(|(service, registers)| (service, registers.estimate()));
            self.last = Some((Arc::new(last.collect()), others));
            self.began_ns = now_ns;
        }
    }

    /// How many different sources a service saw in the last whole window; before there was one, so far.
    pub(super) fn of(&self, service: &str) -> u64 {
        match &self.last {
            Some((last, _)) => last.get(service).copied().unwrap_or(0),
            None => self.now.get(service).map_or(0, Registers::estimate),
        }
    }

    /// The estimates of the last whole window, once there was one; services without a source are left out.
    pub(super) fn last(&self) -> Option<Arc<BTreeMap<String, u64>>> {
        self.last.as_ref().map(|(last, _)| Arc::clone(last))
    }

    /// How many different sources the services without series of their own saw together.
    pub(super) fn others(&self) -> u64 {
        self.last
            .as_ref()
            .map_or_else(|| self.others_now.estimate(), |(_, others)| *others)
    }
}

/// The time that a share of what was counted since `before` stayed below, in seconds; nothing if there was none. Within a
/// count the times are taken as evenly spread; what is beyond the last bound counts as that bound.
pub(super) fn quantile(before: &[u64], now: &[u64], share: f64) -> Option<f64> {
    let since = |at: usize| {
        let before = before.get(at).copied().unwrap_or(0);
        now.get(at).copied().unwrap_or(0).saturating_sub(before)
    };
    let all: u64 = (0..TIME_COUNTS).map(since).sum();
    if all == 0 {
        return None;
    }
    let wanted = share * all as f64;
    let (mut below, mut from) = (0.0, 0.0);
    for at in 0..TIME_COUNTS {
        let Some(bound) = time_bound_ns(at) else { break };
        let (here, to) = (since(at) as f64, bound as f64 / 1e9);
        if here > 0.0 && below + here >= wanted {
            return Some(from + (to - from) * ((wanted - below) / here).clamp(0.0, 1.0));
        }
        below += here;
        from = to;
    }
    Some(from)
}

#[cfg(test)]
mod tests {
    use gateway_core::profile::REGISTERS;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Sources that are the same whenever their numbers are; each lights one register, most at rank 1 or 2.
    fn sources(service: &str, from: u64, count: u64) -> DistinctSources {
        let mut registers = vec![0; REGISTERS];
        for source in from..from + count {
            let mut hash = (source + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^= hash >> 31;
            let (index, rank) = ((hash >> 52) as usize, (hash << 12).leading_zeros() as u8 + 1);
            registers[index] = rank.max(registers[index]);
        }
        DistinctSources {
            service: service.into(),
            registers,
        }
    }

    fn near(value: u64, expected: u64) {
        assert!(
            value.abs_diff(expected) * 20 <= expected,
            "{value}, not about {expected}"
        );
    }

    #[test]
    fn different_sources_are_those_of_the_last_whole_minute() {
        let mut seen = Seen::default();
        let view = |second: u64| View {
            ns: second * SECOND,
            ..View::default()
        };
        // The same hundred sources every ten seconds are a hundred sources.
        for tick in 0..6 {
            seen.keep(view(1 + tick * 10), &[sources("web", 0, 100)], 0);
            near(seen.minute.of("web"), 100);
        }
        seen.keep(view(61), &[sources("web", 50, 100)], 0);
        near(seen.minute.of("web"), 150);
        near(seen.minute.others(), 150);
        // The next minute's are told when it is over.
        seen.keep(view(71), &[sources("web", 0, 3_000)], 0);
        near(seen.minute.of("web"), 150);
        near(seen.ten_minutes.of("web"), 3_000);
        seen.keep(view(121), &[], 0);
        near(seen.minute.of("web"), 3_000);
        seen.keep(view(181), &[], 0);
        assert_eq!((seen.minute.of("web"), seen.minute.others()), (0, 0));
        assert_eq!(seen.due_ns(), 191 * SECOND);
    }

    #[test]
    fn quantiles_are_of_what_came_since() {
        let mut before = vec![0; TIME_COUNTS];
        before[3] = 1_000;
        let mut now = before.clone();
        assert_eq!(quantile(&before, &now, 0.5), None);
        now[10] = 99;
        now[20] = 1;
        let bound = |at| time_bound_ns(at).unwrap() as f64 / 1e9;
        let middle = quantile(&before, &now, 0.5).unwrap();
        assert!(middle > bound(9) && middle < bound(10), "{middle}");
        let high = quantile(&before, &now, 0.995).unwrap();
        assert!(high > bound(19) && high <= bound(20), "{high}");
        // What is beyond every bound is told as the last.
        now[TIME_COUNTS - 1] = 1_000_000;
        assert!((quantile(&before, &now, 0.99).unwrap() - bound(TIME_COUNTS - 2)).abs() < f64::EPSILON);
        assert!(
            quantile(&[], &[5], 0.5).unwrap() > 0.0,
            "a short reading is taken as far as it goes"
        );
    }

    #[test]
    fn the_present_is_compared_with_ten_to_twenty_seconds_ago() {
        let mut seen = Seen::default();
        assert!(seen.since(SECOND).is_none());
        for second in [1, 11, 21] {
            let view = View {
                ns: second * SECOND,
                ..View::default()
            };
            seen.keep(view, &[], 0);
        }
        assert_eq!(seen.since(22 * SECOND).unwrap().ns, 11 * SECOND);
        let mut dear = Seen::default();
        dear.put_off(SECOND, SECOND);
        assert_eq!(dear.due_ns(), 201 * SECOND);
    }
}
