//! What the controller says of services: the inventory, and what their profiles show.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    engine::Engine,
    rates::{per_second, totals},
    seen::{Glance, View, quantile},
};
use crate::{
    api::{
        error::Failure,
        traffic::{ServiceUse, ServicesAnswer},
        types::SCHEMA,
    },
    inventory::{self, Asked, Listening},
    kernel::{Counter, ServiceProfile},
    metrics::{OTHER, Profiled},
    policy::model::Protocol,
};

/// Protocols that have ports, by their numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Engine {
    /// Looks at the profiles, if that is due: for rates, and for the different sources of whole minutes.
    pub(super) fn look_at_services(&mut self) {
        let before = self.clock.now().ns;
        if before < self.seen.due_ns() {
            return;
        }
        let looked = self.view(before).and_then(|(view, _)| {
            let distinct = self.backend.take_distinct()?;
            Ok((view, distinct))
        });
        let cost = |engine: &Self| engine.clock.now().ns.saturating_sub(before);
        match looked {
            Ok((view, distinct)) => {
                let cost = cost(self);
                self.seen.keep(view, &distinct, cost);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the services' profiles");
                let cost = cost(self);
                self.seen.put_off(before, cost);
            }
        }
    }

    fn view(&mut self, now_ns: u64) -> Result<(View, Vec<Counter>), Failure> {
        let profiles = self.profiles(now_ns)?;
        let counters = self.backend.counters()?;
        Ok((View::of(now_ns, &counters, &profiles), counters))
    }

    /// The profiles, read at most once a second.
    fn profiles(&mut self, now_ns: u64) -> Result<Arc<Vec<Arc<ServiceProfile>>>, Failure> {
        match self.seen.profiles(now_ns) {
            Some(profiles) => Ok(profiles),
            None => self.fresh_profiles(),
        }
    }

    /// The profiles, read now.
    pub(super) fn fresh_profiles(&mut self) -> Result<Arc<Vec<Arc<ServiceProfile>>>, Failure> {
        let now_ns = self.clock.now().ns;
        let profiles = Arc::new(self.backend.profiles()?);
        self.seen.keep_profiles(now_ns, Arc::clone(&profiles));
        Ok(profiles)
    }

    /// The profiles as series.
    pub(super) fn profiled(&mut self, counters: &[Counter]) -> Result<Vec<Profiled>, Failure> {
        let now = self.clock.now().ns;
        let profiles = self.profiles(now)?;
        let bytes: BTreeMap<String, u64> = totals(counters)
            .into_iter()
            .map(|(service, totals)| (service, totals.bytes))
            .collect();
        let mut series = Profiled::of(&profiles, &self.seen.series, &bytes);
        for one in &mut series {
            let (minute, ten_minutes) = (&self.seen.minute, &self.seen.ten_minutes);
            (one.minute, one.ten_minutes) = if one.service == OTHER {
                (minute.others(), ten_minutes.others())
            } else {
                (minute.of(&one.service), ten_minutes.of(&one.service))
            };
        }
        Ok(series)
    }

    /// How much each port is asked for, by the samples.
    fn ports_asked(&self) -> Vec<Asked> {
        let rows = self.traffic.ports().into_iter().filter_map(|row| {
            let protocol = match row.protocol {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                _ => return None,
            };
            Some(Asked {
                protocol,
                port: row.port,
                estimate: row.estimate,
                top_source: row.top_source,
            })
        });
        rows.collect()
    }

    /// `GET /v1/services`.
    pub fn show_services(&mut self, sockets: &[Listening]) -> Result<ServicesAnswer, Failure> {
        self.look_after_pins();
        let now = self.clock.now().ns;
        let (present, _) = self.view(now)?;
        let none = View::default();
        let since = self.seen.since(now);
        let span_ns = since.map_or(0, |view| now - view.ns);
        let before = since.unwrap_or(&none);
        let policy = &self.in_force.prepared.policy;
        let names = policy.services.iter().map(|service| service.name.as_str());
        let services = names.chain(["default"]).map(|name| {
            let distinct = self.seen.minute.of(name);
            service_use(
                name,
                before.services.get(name),
                present.services.get(name),
                span_ns,
                distinct,
            )
        });
        let services = services.collect();
        Ok(ServicesAnswer {
            schema: SCHEMA,
            span_seconds: (span_ns as f64 / 1e8).round() / 10.0,
            ports: inventory::ports(policy, sockets, &self.ports_asked()),
            services,
        })
    }
}

fn service_use(
    name: &str,
    before: Option<&Glance>,
    now: Option<&Glance>,
    span_ns: u64,
    distinct_sources: u64,
) -> ServiceUse {
    let none = Glance::default();
    let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
    let rate = |of: fn(&Glance) -> u64| per_second(of(before), of(now), span_ns);
    let time = |of: fn(&Glance) -> &Vec<u64>, share| quantile(of(before), of(now), share);
    ServiceUse {
        service: name.to_owned(),
        packets_per_second: rate(|glance| glance.totals.packets),
        bytes_per_second: rate(|glance| glance.totals.bytes),
        syn_per_second: rate(|glance| glance.syn),
        first_ack_per_second: rate(|glance| glance.first_ack),
        distinct_sources,
        handshake_seconds_p50: time(|glance| &glance.handshake, 0.5),
        handshake_seconds_p99: time(|glance| &glance.handshake, 0.99),
        first_byte_seconds_p50: time(|glance| &glance.first_byte, 0.5),
        first_byte_seconds_p99: time(|glance| &glance.first_byte, 0.99),
    }
}
