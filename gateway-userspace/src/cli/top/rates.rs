//! Rates from one answer to the next: what the counters of `GET /v1/status` gained, over the time between.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use weir::{
    api::types::{ServiceStatus, StatusAnswer},
    policy::model::Mode,
};

/// How many rates are kept for a service's trend.
const KEPT: usize = 256;

/// What a service does now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceRates {
    /// Its name.
    pub(super) service: String,
    /// Its mode.
    pub(super) mode: Mode,
    /// Packets a second that passed, would-be drops left out.
    pub(super) pass: f64,
    /// Packets a second that were dropped.
    pub(super) drop: f64,
    /// Packets a second that would have been dropped.
    pub(super) would_drop: f64,
    /// Bytes a second received.
    pub(super) bytes: f64,
    /// What is said of its traffic, where it is looked at, and the kind of an attack.
    pub(super) verdict: (Option<String>, Option<String>),
    /// By reason: packets dropped a second, those that would have been, and both since the maps were made.
    pub(super) reasons: BTreeMap<String, ReasonRates>,
}

/// What a reason does now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ReasonRates {
    /// Packets dropped a second.
    pub(super) drop: f64,
    /// Packets that would have been dropped, a second.
    pub(super) would_drop: f64,
    /// Packets, dropped or nearly, in all.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// The rates, and how they went.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    before: Option<(Duration, Vec<ServiceStatus>)>,
    /// The services in the answer's order.
    pub(super) now: Vec<ServiceRates>,
    /// Packets received a second, by service, the newest last.
    pub(super) trends: BTreeMap<String, VecDeque<f64>>,
}

impl Rates {
    /// Takes an answer in that came at `at`, on any clock that only goes forward.
    pub(super) fn take(&mut self, at: Duration, status: &StatusAnswer) {
        let before = self.before.as_ref();
        let seconds = before.map_or(0.0, |(then, _)| at.saturating_sub(*then).as_secs_f64());
        // Two answers in one moment say nothing about a rate.
        if before.is_some() && seconds < 0.05 {
            return;
        }
        self.now = status
            .services
            .iter()
            .map(|service| {
                let earlier = before
                    .and_then(|(_, services)| services.iter().find(|old| old.service == service.service));
                match earlier {
                    Some(earlier) => between(earlier, service, seconds),
                    None => first(service),
                }
            })
            .collect();
        for service in &self.now {
            let trend = self.trends.entry(service.service.clone()).or_default();
            trend.push_back(service.pass + service.drop + service.would_drop);
            if trend.len() > KEPT {
                trend.pop_front();
            }
        }
        // A service that the policy no longer has takes its trend along.
        self.trends
            .retain(|name, _| self.now.iter().any(|service| service.service == *name));
        self.before = Some((at, status.services.clone()));
    }
}

/// A service that was not there a moment ago has only the controller's own rates.
fn first(service: &ServiceStatus) -> ServiceRates {
    let refused = service.drops_per_second + service.would_drops_per_second;
    ServiceRates {
        service: service.service.clone(),
        mode: service.mode,
        pass: (service.packets_per_second - refused).max(0.0),
        drop: service.drops_per_second,
        would_drop: service.would_drops_per_second,
        bytes: service.bytes_per_second,
        verdict: (service.verdict.clone(), service.kind.clone()),
        reasons: reasons(service, |_, _| (0.0, 0.0)),
    }
}

fn between(old: &ServiceStatus, new: &ServiceStatus, seconds: f64) -> ServiceRates {
    // Counters that begin anew (a detach, other maps) must not look like a flood, nor like less than nothing.
    let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    let received =
        |service: &ServiceStatus| service.pass.bytes + service.drop.bytes + service.would_drop.bytes;
    ServiceRates {
        service: new.service.clone(),
        mode: new.mode,
        pass: rate(old.pass.packets, new.pass.packets),
        drop: rate(old.drop.packets, new.drop.packets),
        would_drop: rate(old.would_drop.packets, new.would_drop.packets),
        bytes: rate(received(old), received(new)),
        verdict: (new.verdict.clone(), new.kind.clone()),
        reasons: reasons(new, |reason, new| {
            let packets = |of: &BTreeMap<String, weir::api::types::Volume>| {
                of.get(reason).map_or(0, |volume| volume.packets)
            };
            (
                rate(packets(&old.drops), packets(&new.drops)),
                rate(packets(&old.would_drops), packets(&new.would_drops)),
            )
        }),
    }
}

fn reasons(
    service: &ServiceStatus,
    rates: impl Fn(&str, &ServiceStatus) -> (f64, f64),
) -> BTreeMap<String, ReasonRates> {
    let mut reasons: BTreeMap<String, ReasonRates> = BTreeMap::new();
    for (reason, volume) in service.drops.iter().chain(&service.would_drops) {
        let (drop, would_drop) = rates(reason, service);
        let sum = reasons.entry(reason.clone()).or_default();
        (sum.drop, sum.would_drop) = (drop, would_drop);
        sum.packets = sum.packets.saturating_add(volume.packets);
        sum.bytes = sum.bytes.saturating_add(volume.bytes);
    }
    reasons.retain(|_, sum| sum.packets > 0);
    reasons
}

#[cfg(test)]
mod tests {
    use weir::api::types::Volume;

    use super::{super::tests::status, *};

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_rate_is_what_the_counters_gained() {
        let mut rates = Rates::default();
        let mut answer = status();
        rates.take(seconds(10), &answer);
        let first = &rates.now[0];
        assert_eq!(
            (first.drop, first.bytes),
            (432.0, 1_562_500.0),
            "the controller's own"
        );

        let web = &mut answer.services[0];
        web.pass.packets += 2_000;
        web.drop.packets += 100;
        web.drop.bytes += 64_000;
        let ban = web.drops.entry("ban".into()).or_default();
        ban.packets += 100;
        rates.take(seconds(12), &answer);
        let now = &rates.now[0];
        assert_eq!((now.pass, now.drop, now.bytes), (1_000.0, 50.0, 32_000.0));
        assert_eq!(
            (now.reasons["ban"].drop, now.reasons["source_packets"].drop),
            (50.0, 0.0)
        );
        assert_eq!(rates.trends["storefront"].back(), Some(&1_050.0));
    }

    #[test]
    fn counters_that_begin_anew_are_no_rate() {
        let mut rates = Rates::default();
        let mut answer = status();
        rates.take(seconds(10), &answer);
        answer.services[0].pass = Volume::default();
        answer.services[0].drop = Volume::default();
        rates.take(seconds(11), &answer);
        assert_eq!((rates.now[0].pass, rates.now[0].drop), (0.0, 0.0));
        rates.take(seconds(11), &answer);
        assert!(rates.now[0].pass.is_finite(), "two answers at one moment");
        assert_eq!(rates.trends["storefront"].len(), 2);
    }

    #[test]
    fn trends_are_bounded_and_go_with_their_service() {
        let mut rates = Rates::default();
        let mut answer = status();
        for at in 0..2 * KEPT as u64 {
            rates.take(seconds(at), &answer);
        }
        assert_eq!(rates.trends["storefront"].len(), KEPT);
        answer.services.remove(0);
        rates.take(seconds(10_000), &answer);
        assert!(!rates.trends.contains_key("storefront"));
    }
}
