//! The detectors of the services that are watched, and what they have found.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use gateway_detect::{Change, Detector, Finding, Observation, Settings, Sighting, Verdict};

use super::{
    dormant::Dormant,
    reading,
    sightings::Lengths,
    telling::{self, label, time},
};
use crate::{
    api::anomalies::{Anomaly, AnomalySummary, EndedAnomaly, ServiceAnomaly},
    kernel::ServiceProfile,
};

/// Anomalies that are over and still told.
pub(super) const ENDED: usize = 1_000;
/// For how long a label that was active is told to be so no more, in seconds: long enough for every scraper to see it.
const SHOWN_AFTER: f64 = 600.0;
/// The time in which the recent level of a service's packets follows what is, in seconds.
const LEVEL_SECONDS: f64 = 30.0;

/// Who is watched, and how; made anew when the policy in force changes.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// What it was made from: another policy has another one.
    pub key: String,
    /// Whether departures are looked for at all.
    pub enabled: bool,
    /// How many false alarms are put up with, as the policy writes it.
    pub sensitivity: String,
    /// Whether packets are sampled.
    pub sampled: bool,
    /// How sources are cut.
    pub source: Lengths,
    /// The services.
    pub services: Vec<Watched>,
}

/// A service that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its name; `default` for traffic to no service.
    pub service: Arc<str>,
    /// What its detector goes by.
    pub settings: Settings,
    /// How its networks are cut.
    pub network: Lengths,
}

/// Something began, or is over.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The service.
    pub service: Arc<str>,
    /// What changed.
    pub change: Change,
    /// What is found now.
    pub finding: Finding,
    /// When, in seconds since 1970.
    pub at: f64,
    /// What is told: what began, or what is over as it was at its worst.
    pub anomaly: Anomaly,
    /// What it was before, where one anomaly turned into another.
    pub before: Option<Anomaly>,
}

/// A reading of a service's profile.
#[derive(Clone, Debug)]
struct Reading {
    ns: u64,
    profile: Arc<ServiceProfile>,
}

/// A service's detector and what belongs to it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) detector: Detector,
    /// At the last whole second.
    second: Option<Reading>,
    /// At the last look, in between or not.
    last: Option<Reading>,
    /// When it was first looked at.
    first: Option<f64>,
    /// Packets a second, lately.
    level: Option<f64>,
    /// The anomaly that lasts, as it was at its worst.
    active: Option<Anomaly>,
    /// Labels that were active, and until when that is told.
    over: Vec<(&'static str, f64)>,
}

/// When something is looked at, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// The kernel's, in nanoseconds.
    pub(super) ns: u64,
    /// Seconds since 1970.
    pub(super) wall: f64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) key: Option<String>,
    pub(super) sampled: bool,
    pub(super) enabled: bool,
    sensitivity: String,
    pub(super) services: HashMap<Arc<str>, Watch>,
    pub(super) dormant: Dormant,
    /// The last first.
    pub(super) ended: VecDeque<EndedAnomaly>,
}

impl Watch {
    fn new(settings: Settings, learned: Option<Detector>) -> Self {
        let detector = match learned {
            Some(mut detector) => {
                detector.set(settings);
                detector
            }
            // The standard library's random numbers are the system's.
            None => Detector::new(settings).with_key(RandomState::new().hash_one(0)),
        };
        Self {
            detector,
            ..Self::default()
        }
    }

    /// What is seen between a reading and this one; nothing without one, or of no time at all.
    fn seen(
        before: Option<&Reading>,
        profile: &Arc<ServiceProfile>,
        ns: u64,
        sightings: Vec<Sighting>,
        sources_per_minute: Option<f64>,
    ) -> Option<Observation> {
        let before = before?;
        let seconds = ns.saturating_sub(before.ns) as f64 / 1e9;
        if seconds <= 0.0 {
            return None;
        }
        // Who was not touched has the same profile, and nearly all are not.
        if Arc::ptr_eq(&before.profile, profile) && sightings.is_empty() {
            return Some(reading::nothing(seconds, sources_per_minute));
        }
        let (before, now) = (&before.profile, profile);
        Some(reading::observe(
            before,
            now,
            seconds,
            sightings,
            sources_per_minute,
        ))
    }

    /// Follows an anomaly that lasts.
    fn follow(&mut self, at: f64) {
        let finding = self.detector.finding();
        let Some(worst) = &mut self.active else { return };
        let score = telling::finite(finding.volume_score.max(finding.composition_score));
        // One that began within a second has nothing that speaks yet.
        let speaks = worst.features.is_empty() && !finding.features.is_empty();
        if (score > worst.score || speaks) && finding.verdict.anomalous() {
            let since = worst.since;
            *worst = Anomaly {
                since,
                ..telling::anomaly(finding, at, at)
            };
        }
    }

    /// Ends the anomaly that lasts.
    pub(super) fn end(&mut self, at: f64) -> Option<Anomaly> {
        let mut ended = self.active.take()?;
        ended.duration_seconds = telling::duration(telling::seconds(ended.since), at);
        Some(ended)
    }

    /// Whether an anomaly lasts.
    pub(super) fn active(&self) -> Option<&Anomaly> {
        self.active.as_ref()
    }

    /// The labels to tell: those that are active (true) and those that were.
    pub(super) fn labels(&self, at: f64) -> Vec<(&'static str, bool)> {
        let now = label(self.detector.finding().verdict);
        let over = self.over.iter().filter(|(_, until)| *until > at);
        let over = over.map(|(label, _)| (*label, false));
        let over = over.filter(|(label, _)| Some(*label) != now);
        now.map(|label| (label, true)).into_iter().chain(over).collect()
    }

    fn told(&self, service: &str, at: f64) -> ServiceAnomaly {
        let finding = self.detector.finding();
        ServiceAnomaly {
            service: service.to_owned(),
            anomaly: telling::anomaly(finding, at, self.first.unwrap_or(at)),
            learned: telling::finite(finding.learned),
        }
    }
}

impl Book {
    /// From now on these are watched. Who was and is not any more keeps what was learned for a while.
    pub(super) fn set(&mut self, roster: Roster, at: f64) -> Vec<Turn> {
        let mut before = std::mem::take(&mut self.services);
        for Watched {
            service, settings, ..
        } in roster.services
        {
            let watch = if let Some(mut watch) = before.remove(&service) {
                watch.detector.set(settings);
                watch
            } else {
                Watch::new(settings, self.dormant.wake(&service))
            };
            self.services.insert(service, watch);
        }
        let mut turns = Vec::new();
        for (service, mut watch) in before {
            if let Some(anomaly) = watch.end(at) {
                let why = "the service is not watched any more".to_owned();
                self.keep(&service, anomaly.clone(), at, Some(why));
                turns.push(Turn {
                    change: Change::Ended(watch.detector.finding().verdict),
                    finding: Finding {
                        at,
                        ..Finding::default()
                    },
                    service: Arc::clone(&service),
                    at,
                    anomaly,
                    before: None,
                });
            }
            self.dormant.lay_down(&service, &watch.detector, at);
        }
        self.dormant.prune(at);
        self.key = Some(roster.key);
        self.sampled = roster.sampled;
        self.enabled = roster.enabled;
        self.sensitivity = roster.sensitivity;
        turns
    }

    /// Looks at a service's second.
    pub(super) fn tick(
        &mut self,
        service: &str,
        profile: &Arc<ServiceProfile>,
        at: At,
        sightings: Vec<Sighting>,
        sources_per_minute: Option<f64>,
    ) -> Option<Turn> {
        let watch = self.services.get_mut(service)?;
        let before = watch.second.as_ref();
        let seen = Watch::seen(before, profile, at.ns, sightings, sources_per_minute);
        let reading = Reading {
            ns: at.ns,
            profile: Arc::clone(profile),
        };
        watch.first.get_or_insert(at.wall);
        watch.second = Some(reading.clone());
        watch.last = Some(reading);
        let seen = seen?;
        let rate = seen.rate();
        let level = watch.level.get_or_insert(rate);
        *level += (rate - *level) * (1.0 - (-seen.seconds / LEVEL_SECONDS).exp());
        let change = watch.detector.tick(at.wall, &seen);
        self.turned(service, change, at.wall)
    }

    /// Looks at a part of a second.
    pub(super) fn glance(
        &mut self,
        service: &str,
        profile: &Arc<ServiceProfile>,
        at: At,
        sightings: Vec<Sighting>,
    ) -> Option<Turn> {
        let watch = self.services.get_mut(service)?;
        let seen = Watch::seen(watch.last.as_ref(), profile, at.ns, sightings, None);
        watch.last = Some(Reading {
            ns: at.ns,
            profile: Arc::clone(profile),
        });
        let change = watch.detector.glance(at.wall, &seen?);
        self.turned(service, change, at.wall)
    }

    /// The operator says that what is now is normal; nothing where nothing is unusual, or nobody of that name is watched.
    pub(super) fn accept(&mut self, service: &str, at: f64) -> Option<Turn> {
        let change = self.services.get_mut(service)?.detector.accept(at);
        self.turned(service, change, at)
    }

    /// What came of a look.
    fn turned(&mut self, service: &str, change: Option<Change>, at: f64) -> Option<Turn> {
        let watch = self.services.get_mut(service)?;
        let Some(change) = change else {
            watch.follow(at);
            return None;
        };
        let finding = watch.detector.finding().clone();
        let before = watch.end(at);
        if let Some(label) = before.as_ref().and_then(label_of) {
            watch.over.retain(|(other, until)| *other != label && *until > at);
            watch.over.push((label, at + SHOWN_AFTER));
        }
        let (anomaly, before) = match change {
            Change::Began => {
                let anomaly = telling::anomaly(&finding, at, at);
                watch.active = Some(anomaly.clone());
                if let Some(before) = before.clone() {
                    let why = format!("it is {} now", anomaly.title());
                    self.keep(service, before, at, Some(why));
                }
                (anomaly, before)
            }
            Change::Ended(verdict) => {
                // One without a beginning is a detector's that was read back.
                let anomaly = before.unwrap_or_else(|| Anomaly {
                    verdict: verdict.name().to_owned(),
                    kind: verdict.kind().map(|kind| kind.name().to_owned()),
                    since: time(at),
                    ..Anomaly::default()
                });
                self.keep(service, anomaly.clone(), at, None);
                (anomaly, None)
            }
        };
        Some(Turn {
            service: Arc::from(service),
            change,
            finding,
            at,
            anomaly,
            before,
        })
    }

    /// Keeps what is over.
    pub(super) fn keep(&mut self, service: &str, anomaly: Anomaly, at: f64, why: Option<String>) {
        self.ended.push_front(EndedAnomaly {
            service: service.to_owned(),
            anomaly,
            ended_at: time(at),
            why,
        });
        self.ended.truncate(ENDED);
    }

    /// Packets a second lately, and whether something other than an attack lasts; nothing for who is not watched.
    pub(super) fn level(&self, service: &str) -> Option<(f64, bool)> {
        let watch = self.services.get(service)?;
        let verdict = watch.detector.finding().verdict;
        let unusual = verdict.anomalous() && verdict.kind().is_none();
        Some((watch.level?, unusual))
    }

    /// How many services there is what to say of.
    pub(super) fn summary(&self) -> AnomalySummary {
        let mut summary = AnomalySummary {
            enabled: self.enabled,
            sensitivity: self.sensitivity.clone(),
            ..AnomalySummary::default()
        };
        for watch in self.services.values() {
            *match watch.detector.finding().verdict {
                Verdict::Attack(_) => &mut summary.attack,
                Verdict::Stealth => &mut summary.stealth,
                Verdict::Crowd => &mut summary.crowd,
                Verdict::Learning => &mut summary.learning,
                Verdict::Quiet => &mut summary.quiet,
            } += 1;
        }
        summary
    }

    /// What is said of every service.
    pub(super) fn verdicts(&self) -> BTreeMap<String, Verdict> {
        let services = self.services.iter();
        services
            .map(|(service, watch)| (service.to_string(), watch.detector.finding().verdict))
            .collect()
    }

    /// What is said of the services that are wanted: the anomalous ones, the highest score first, then the others.
    pub(super) fn told(&self, only: Option<&str>, all: bool, at: f64) -> Vec<ServiceAnomaly> {
        let wanted = |service: &str, watch: &Watch| {
            only.is_none_or(|only| only == service) && (all || watch.detector.finding().verdict.anomalous())
        };
        let services = self.services.iter();
        let mut told: Vec<(bool, ServiceAnomaly)> = services
            .filter(|(service, watch)| wanted(service, watch))
            .map(|(service, watch)| {
                let anomalous = watch.detector.finding().verdict.anomalous();
                (anomalous, watch.told(service, at))
            })
            .collect();
        told.sort_by(|(a, left), (b, right)| {
            let score =
                |told: &ServiceAnomaly, anomalous: bool| if anomalous { told.anomaly.score } else { 0.0 };
            b.cmp(a)
                .then(score(right, *b).total_cmp(&score(left, *a)))
                .then_with(|| left.service.cmp(&right.service))
        });
        told.into_iter().map(|(_, told)| told).collect()
    }
}

/// The label of what is told.
fn label_of(anomaly: &Anomaly) -> Option<&'static str> {
    let kind = anomaly.kind.as_deref();
    let verdicts = gateway_detect::Kind::ALL.into_iter().map(Verdict::Attack);
    let verdicts = verdicts.chain([Verdict::Crowd, Verdict::Stealth]);
    verdicts
        .filter(|verdict| verdict.name() == anomaly.verdict)
        .find(|verdict| verdict.kind().map(gateway_detect::Kind::name) == kind)
        .and_then(label)
}
