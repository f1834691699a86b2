//! What is asked of it: answers, and series.

use std::collections::{BTreeMap, BTreeSet};

use super::{ACCEPTED, Detection, at, lock, telling};
use crate::{
    api::{
        anomalies::{AnomaliesAnswer, AnomaliesQuery, AnomalyAccepted, AnomalySummary, EndedAnomaly},
        error::Failure,
        peer::Peer,
        types::{SCHEMA, code},
    },
    controller::backend::Moment,
    metrics::{Active, Anomalies, MOST, OTHER, Scored, Series},
};

/// Those that are over in an answer that does not say how many it wants.
const ENDED: usize = 100;

impl Detection {
    /// `GET /v1/anomalies`.
    pub fn answer(&self, query: &AnomaliesQuery, now: Moment) -> Result<AnomaliesAnswer, Failure> {
        let limit = query.limit.unwrap_or(ENDED);
        if limit > super::book::ENDED {
            return Err(Failure::invalid(format!(
                "limit must be 0 to {}",
                super::book::ENDED
            )));
        }
        let book = lock(&self.book);
        let only = query.service.as_deref();
        if let Some(service) = only
            && !book.services.contains_key(service)
        {
            drop(book);
            return Err(self.not_watched(service));
        }
        let ended = book.ended.iter();
        let ended = ended.filter(|ended| only.is_none_or(|only| only == ended.service));
        Ok(AnomaliesAnswer {
            schema: SCHEMA,
            summary: book.summary(),
            services: book.told(only, query.all.unwrap_or(false), at(now).wall),
            ended: ended.take(limit).cloned().collect(),
        })
    }

    /// How many services there is what to say of.
    pub fn summary(&self) -> AnomalySummary {
        lock(&self.book).summary()
    }

    fn not_watched(&self, service: &str) -> Failure {
        let failure = Failure::new(
            code::NO_EFFECT,
            format!("the traffic of {service} is not looked at for anomalies"),
        );
        if lock(&self.book).enabled {
            failure.hint("it is with profile = true and anomaly = true in the service's section, a second after the policy is in force")
        } else {
            failure.hint("it is with [anomaly] enabled = true in the policy")
        }
    }

    /// `POST /v1/anomalies/accept`: what is now is normal.
    pub fn accept(&self, service: &str, now: Moment, peer: Option<Peer>) -> Result<AnomalyAccepted, Failure> {
        let mut book = lock(&self.book);
        let Some(watch) = book.services.get(service) else {
            drop(book);
            return Err(self.not_watched(service));
        };
        let verdict = watch.detector.finding().verdict;
        let Some(turn) = book.accept(service, at(now).wall) else {
            return Err(Failure::new(
                code::NO_EFFECT,
                format!("{service} is {verdict}: there is no anomaly to accept"),
            ));
        };
        if let Some(last) = book.ended.front_mut() {
            last.why = Some(ACCEPTED.to_owned());
        }
        drop(book);
        let ended = EndedAnomaly {
            service: service.to_owned(),
            anomaly: turn.anomaly.clone(),
            ended_at: telling::time(turn.at),
            why: Some(ACCEPTED.to_owned()),
        };
        self.tell_accepted(turn, now, peer);
        Ok(AnomalyAccepted {
            schema: SCHEMA,
            ended,
        })
    }

    /// As series: of the services that have series of their own, and of all others together.
    pub fn observe(&self, series: &Series, now: Moment) -> Anomalies {
        let at = at(now).wall;
        let book = lock(&self.book);
        let mut scored: BTreeMap<&str, Scored> = BTreeMap::new();
        let mut active: BTreeMap<(&str, &'static str), bool> = BTreeMap::new();
        for (service, watch) in &book.services {
            let own = series.has(service);
            let one = scored.entry(if own { service } else { OTHER }).or_default();
            let finding = watch.detector.finding();
            one.volume = one.volume.max(telling::finite(finding.volume_score));
            one.composition = one.composition.max(telling::finite(finding.composition_score));
            if finding.learned > 0.0 {
                let usual = telling::finite(finding.expected_packets_per_second);
                *one.baseline.get_or_insert(0.0) += usual;
            }
            if own {
                let features = watch.detector.features();
                let told = features
                    .filter_map(|(feature, value, _)| Some((feature.name(), telling::finite(value?))));
                one.features = told.collect();
            }
            for (label, lasts) in watch.labels(at) {
                *active.entry((service, label)).or_default() |= lasts;
            }
        }
        Anomalies {
            scored: scored
                .into_iter()
                .map(|(service, scored)| Scored {
                    service: service.to_owned(),
                    ..scored
                })
                .collect(),
            active: bounded(active),
        }
    }
}

/// At most so many services of their own, those where something lasts first; the others together.
fn bounded(active: BTreeMap<(&str, &'static str), bool>) -> Vec<Active> {
    let mut services: BTreeMap<&str, bool> = BTreeMap::new();
    for ((service, _), lasts) in &active {
        *services.entry(service).or_default() |= lasts;
    }
    let mut order: Vec<(&str, bool)> = services.into_iter().collect();
    // Stable: names keep their order among equals.
    order.sort_by_key(|(_, lasts)| !lasts);
    let own: BTreeSet<&str> = order.iter().take(MOST).map(|(service, _)| *service).collect();
    let mut found: BTreeMap<(&str, &'static str), bool> = BTreeMap::new();
    for ((service, kind), lasts) in active {
        let service = if own.contains(service) { service } else { OTHER };
        *found.entry((service, kind)).or_default() |= lasts;
    }
    found
        .into_iter()
        .map(|((service, kind), lasts)| Active {
            service: service.to_owned(),
            kind,
            lasts,
        })
        .collect()
}
