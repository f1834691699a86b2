//! The detectors over a capture, on its own clock: the same features from the same counts as on a node.
//!
//! Each second of the capture's clock, counted from its first packet, every service is looked at; a tenth of a second in which one
//! got at least [`ROSE`] times what it lately got is looked at as well. Of the second in which the capture ends, half or more
//! is looked at as what it is, less is not (unless there is no other). The memory does not depend on the capture: counts and at most
//! [`sampler::EVERY`] sightings a service and second.

mod report;
mod sampler;
mod seen;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use gateway_core::{
    image::{flags, subject_flags},
    judge::{self, Environment as _, Judgement},
    packet::{Malformed, Packet},
    times,
    verdict::Reason,
    wire::{ipv4, tcp},
};
use gateway_detect::{Change, Detector, Finding, Observation, Sighting};
use jiff::Timestamp;

pub use self::report::{Changed, Detected, FeatureValue, LearnedFrom, LearnedService, ServiceDetected};
use self::{
    report::Outcome,
    sampler::{EVERY, Random, Sampler, Scale},
    seen::{Counts, Sources},
};
use crate::{
    detect::{self, Lengths, Reservoir, Roster},
    geo::Database,
    policy::model::Policy,
    twin::Twin,
};

/// A tenth of a second with this many times the packets of a usual one is looked at at once.
pub const ROSE: f64 = 3.0;
/// Where a capture pauses for longer, nobody captured: the detectors are not told that there was nothing for so long.
pub const PAUSE_NS: u64 = 600 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;
const TENTH_NS: u64 = SECOND_NS / 10;
/// Tenths of a minute, in which different sources are counted.
const MINUTE: u64 = 600;
const WEEK: f64 = 7.0 * 86_400.0;
/// What a tenth of the usual level keeps of itself until the next: the level is that of the last ten seconds or so.
const KEEP: f64 = 0.99;

/// What looks at a service.
pub(super) trait Look {
    /// Looks at a second that ended at a time, in seconds since 1970.
    fn second(&mut self, at: f64, observation: &Observation) -> Option<Change>;
    /// Looks at a tenth of a second.
    fn tenth(&mut self, at: f64, observation: &Observation) -> Option<Change>;
    /// What is found.
    fn found(&self) -> &Finding;
    /// Every feature's name, what it is and what it usually is, as far as that can be told.
    fn all_features(&self) -> Vec<(&'static str, Option<f64>, Option<f64>)>;
}

impl Look for Detector {
    fn second(&mut self, at: f64, observation: &Observation) -> Option<Change> {
        self.tick(at, observation)
    }

    fn tenth(&mut self, at: f64, observation: &Observation) -> Option<Change> {
        self.glance(at, observation)
    }

    fn found(&self) -> &Finding {
        self.finding()
    }

    fn all_features(&self) -> Vec<(&'static str, Option<f64>, Option<f64>)> {
        self.features()
            .map(|(feature, value, usual)| (feature.name(), value, usual))
            .collect()
    }
}

/// What was learned before.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    /// The detectors of services, by name.
    pub detectors: BTreeMap<String, Detector>,
    /// When they last looked, in seconds since 1970 of their own clock.
    pub until: Option<f64>,
    /// Where it comes from, and how much it is.
    pub from: LearnedFrom,
}

impl Learned {
    /// What a controller has saved: the bytes of the file `detectors` in its state directory, and the file's name.
    ///
    /// # Errors
    /// Where they are of another version, or damaged.
    pub fn saved(bytes: &[u8], name: String) -> Result<Self, detect::Unreadable> {
        let (until, detectors) = detect::learned(bytes)?;
        let services = detectors.iter().map(|(service, detector)| {
            let learned = LearnedService {
                learned: detector.learned(),
                ..LearnedService::default()
            };
            (service.clone(), learned)
        });
        Ok(Self {
            from: LearnedFrom {
                file: Some(name),
                services: services.collect(),
                ..LearnedFrom::default()
            },
            detectors,
            until: Some(until),
        })
    }
}

/// How to detect.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Show the detectors every packet instead of samples.
    pub every_packet: bool,
    /// What they know before.
    pub learned: Option<Learned>,
    /// Where countries are looked up.
    pub countries: Option<Arc<Database>>,
}

/// What a service usually gets in a tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Packets of the tenths so far, each worth [`KEEP`] of the one after it.
    packets: f64,
    /// The tenth that was added last.
    last: u64,
}

impl Level {
    /// Adds a tenth, the first being number 0; whether it stands out from those before.
    fn add(&mut self, tenth: u64, packets: f64) -> bool {
        let tenths = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
        // Without a first tenth there is no level, and whatever comes stands out.
        let weights = (1.0 - KEEP.powi(tenths(tenth))) / (1.0 - KEEP);
        self.packets *= KEEP.powi(tenths(tenth.saturating_sub(self.last)));
        let usual = if weights > 0.0 {
            self.packets / weights
        } else {
            0.0
        };
        self.packets += packets;
        self.last = tenth;
        packets > 0.0 && packets >= ROSE * usual
    }
}

/// A service that is watched.
#[derive(Debug)]
struct Watched<L> {
    name: String,
    network: Lengths,
    look: L,
    /// It got something in this tenth.
    touched: bool,
    tenth: Counts,
    second: Counts,
    tenth_sightings: Reservoir,
    second_sightings: Reservoir,
    level: Level,
    sources: Sources,
    /// When its first packet came.
    first_ns: Option<u64>,
    /// The different sources of the last whole minute.
    per_minute: Option<f64>,
    outcome: Outcome,
}

/// Where the clock of the looks stands.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    /// When the first second of the current stretch began.
    began_ns: u64,
    /// Tenths since then that are over.
    tenths: u64,
    /// The tenth that the capture went on with after its last pause.
    resumed: u64,
}

impl Ticks {
    const fn end_ns(self) -> u64 {
        self.began_ns + (self.tenths + 1) * TENTH_NS
    }

    const fn second_ns(self) -> u64 {
        self.began_ns + self.tenths / 10 * SECOND_NS
    }
}

/// The detectors at work.
#[derive(Debug)]
pub(super) struct Detection<L = Detector> {
    watched: Vec<Watched<L>>,
    /// The place of each subject's service among them.
    places: Vec<Option<u32>>,
    /// Those that got something in this tenth.
    touched: Vec<u32>,
    source: Lengths,
    countries: Option<Arc<Database>>,
    every: bool,
    sampler: Sampler,
    random: Random,
    tenth_scale: Scale,
    second_scale: Scale,
    /// When the capture began, and where the looks are.
    began_ns: Option<u64>,
    ticks: Option<Ticks>,
    /// What is added to the capture's time for the detectors' clock, in seconds: whole weeks.
    shift: f64,
    known_until: Option<f64>,
    learned: Option<LearnedFrom>,
    changes: Vec<Changed>,
    /// Changes beyond those that are kept.
    unkept: u64,
    pauses: u64,
}

impl Detection<Detector> {
    /// The detectors of a policy that is in force in a twin, with what they knew before.
    pub(super) fn new(policy: &Policy, twin: &Twin, options: &Options) -> Self {
        let mut learned = options.learned.clone();
        let mut detection = Self::of(policy, twin, options.every_packet, |watched| {
            let known = learned
                .as_mut()
                .and_then(|of| of.detectors.remove(&*watched.service));
            let mut detector = known.unwrap_or_default();
            detector.set(watched.settings.clone());
            detector
        });
        detection.countries.clone_from(&options.countries);
        if let Some(learned) = learned {
            detection.known_until = learned.until;
            detection.learned = Some(learned.from);
        }
        detection
    }

    /// What was learned so far, for another capture.
    pub(super) fn into_learned(self, captures: Vec<String>) -> Learned {
        let until = self.ticks.map(|ticks| self.clock(ticks.second_ns()));
        let mut from = LearnedFrom {
            captures,
            file: self.learned.and_then(|of| of.file),
            services: BTreeMap::new(),
        };
        let mut detectors = BTreeMap::new();
        for watched in self.watched {
            // As after a restart: what lasted at the end of these captures is nothing of the next ones'.
            if let Some(detector) = detect::restarted(&watched.name, &watched.look) {
                from.add(&watched.name, detector.learned(), &watched.outcome);
                detectors.insert(watched.name, detector);
            }
        }
        Learned {
            detectors,
            until,
            from,
        }
    }
}

impl<L: Look> Detection<L> {
    fn of(policy: &Policy, twin: &Twin, every: bool, mut look: impl FnMut(&detect::Watched) -> L) -> Self {
        // Whoever asks for the detectors wants them.
        let mut policy = policy.clone();
        policy.anomaly.enabled = true;
        let roster = Roster::of(String::new(), &policy);
        let places: HashMap<&str, u32> = (0..)
            .zip(&roster.services)
            .map(|(place, watched)| (&*watched.service, place))
            .collect();
        let places = twin
            .owners()
            .iter()
            .map(|(service, _)| places.get(service.as_str()).copied())
            .collect();
        let watched = roster.services.iter().map(|watched| Watched {
            look: look(watched),
            name: watched.service.to_string(),
            network: watched.network,
            touched: false,
            tenth: Counts::default(),
            second: Counts::default(),
            tenth_sightings: Reservoir::default(),
            second_sightings: Reservoir::default(),
            level: Level::default(),
            sources: Sources::default(),
            first_ns: None,
            per_minute: None,
            outcome: Outcome::default(),
        });
        let watched = watched.collect();
        Self {
            watched,
            places,
            touched: Vec::new(),
            source: roster.source,
            countries: None,
            every,
            sampler: Sampler::new(twin.image().generation.sample, every),
            random: Random::new(),
            tenth_scale: Scale::default(),
            second_scale: Scale::default(),
            began_ns: None,
            ticks: None,
            shift: 0.0,
            known_until: None,
            learned: None,
            changes: Vec::new(),
            unkept: 0,
            pauses: 0,
        }
    }

    /// The time on the detectors' clock, in seconds since 1970.
    fn clock(&self, ns: u64) -> f64 {
        ns as f64 / 1e9 + self.shift
    }

    /// Moves the clock on; everything that ends on the way is looked at.
    pub(super) fn advance(&mut self, now_ns: u64) {
        let Some(ticks) = self.ticks else {
            self.begin(now_ns);
            return;
        };
        if now_ns.saturating_sub(ticks.end_ns()) > PAUSE_NS {
            while self.ticks.is_some_and(|ticks| ticks.tenths % 10 != 9) {
                self.close_tenth();
            }
            self.close_tenth();
            // Whole seconds after the beginning, as if they had been counted.
            let passed = (now_ns - ticks.began_ns) / SECOND_NS;
            self.ticks = Some(Ticks {
                tenths: passed * 10,
                resumed: passed * 10,
                ..ticks
            });
            self.pauses += 1;
            for watched in &mut self.watched {
                watched.sources.take();
                watched.per_minute = None;
            }
        }
        while self.ticks.is_some_and(|ticks| now_ns >= ticks.end_ns()) {
            self.close_tenth();
        }
    }

    fn begin(&mut self, now_ns: u64) {
        self.began_ns = Some(now_ns);
        self.ticks = Some(Ticks {
            began_ns: now_ns,
            tenths: 0,
            resumed: 0,
        });
        // The first time at or after what is known already, at the same hour of the week: the detectors' clock never runs
        // backwards, and forgets no more than it must.
        if let Some(until) = self.known_until {
            self.shift = ((until - now_ns as f64 / 1e9) / WEEK).ceil() * WEEK;
        }
    }

    /// A packet was judged.
    pub(super) fn arrives(
        &mut self,
        twin: &Twin,
        now_ns: u64,
        packet: Result<&Packet, Malformed>,
        length: u32,
        judgement: Judgement,
    ) {
        let taken = self.sampler.take(now_ns);
        // What is out of scope is not looked at, and answers to the host's own sockets are no service's traffic.
        if matches!(judgement.reason, Reason::OutOfScope | Reason::Reply) {
            return;
        }
        // What cannot be parsed has no profile in the kernel either.
        let Ok(packet) = packet else { return };
        let Some(place) = self.touch(judgement.subject) else {
            return;
        };
        let Some(watched) = self.watched.get_mut(place) else {
            return;
        };
        watched.first_ns.get_or_insert(now_ns);
        watched.tenth.add(packet, length, judgement);
        watched.sources.see(&twin.key(), twin.generation(), packet);
        let subject = twin.image().subjects.get(judgement.subject as usize);
        if subject.is_some_and(|subject| subject.flags & subject_flags::TIME != 0)
            && let Some(ns) = times::arrived(&twin, &twin.key(), now_ns, packet)
        {
            watched.tenth.times.count_handshake(ns);
        }
        let network = watched.network;
        if let Some(one_in) = taken
            && let Some(mut sighting) = detect::sighting(
                packet,
                judgement.verdict,
                (self.source, network),
                self.countries.as_deref(),
            )
        {
            (sighting.weight, sighting.length) = (f64::from(one_in), length);
            let (a_tenth, a_second) = if self.every {
                (EVERY, EVERY)
            } else {
                (detect::IN_BETWEEN, detect::A_SECOND)
            };
            watched.tenth_sightings.add(sighting, a_tenth, self.random.next());
            watched
                .second_sightings
                .add(sighting, a_second, self.random.next());
        }
    }

    /// A packet left: a SYN-ACK, or a first answer.
    pub(super) fn leaves(&mut self, twin: &Twin, now_ns: u64, packet: &Packet) {
        const FLAGS: u8 = tcp::SYN | tcp::ACK;
        let generation = twin.generation();
        let tcp = packet.protocol == ipv4::TCP;
        let syn_ack = tcp && packet.tcp_flags & (FLAGS | tcp::RST) == FLAGS;
        let first_byte = if tcp && generation.flags & flags::TIMES != 0 {
            times::leaving(&twin, &twin.key(), now_ns, packet)
        } else {
            None
        };
        if !syn_ack && first_byte.is_none() {
            return;
        }
        let number = judge::service(&twin, &packet.reversed());
        let timed = twin
            .image()
            .subjects
            .get(number as usize)
            .is_some_and(|subject| subject.flags & subject_flags::TIME != 0);
        let Some(place) = self.touch(number) else { return };
        if let Some(watched) = self.watched.get_mut(place) {
            watched.tenth.profile.syn_ack += u64::from(syn_ack);
            if let Some(ns) = first_byte.filter(|_| timed) {
                watched.tenth.times.count_first_byte(ns);
            }
        }
    }

    /// The place of a subject's service, if it is watched; it has something in this tenth.
    fn touch(&mut self, subject: u32) -> Option<usize> {
        let place = (*self.places.get(subject as usize)?)?;
        let watched = self.watched.get_mut(place as usize)?;
        if !std::mem::replace(&mut watched.touched, true) {
            self.touched.push(place);
        }
        Some(place as usize)
    }

    /// A tenth is over, and with every tenth one a second.
    fn close_tenth(&mut self) {
        let Some(ticks) = &mut self.ticks else { return };
        let (tenth, end_ns) = (ticks.tenths, ticks.end_ns());
        // A minute of which only the end was seen is none.
        let minute = (tenth + 1)
            .is_multiple_of(MINUTE)
            .then_some(tenth + 1 >= ticks.resumed + MINUTE);
        ticks.tenths += 1;
        let last = tenth % 10 == 9;
        self.glance(tenth, end_ns, !last);
        if last {
            self.look(end_ns, 1.0);
            if let Some(whole) = minute {
                for watched in &mut self.watched {
                    watched.per_minute = Some(watched.sources.take()).filter(|_| whole);
                }
            }
        }
    }

    /// Closes a tenth of whoever got something in it, and looks at those of whom it stands out.
    fn glance(&mut self, tenth: u64, end_ns: u64, look: bool) {
        let scale = self.tenth_scale.take(&self.sampler);
        let at = self.clock(end_ns);
        for place in std::mem::take(&mut self.touched) {
            let Some(watched) = self.watched.get_mut(place as usize) else {
                continue;
            };
            watched.touched = false;
            let counts = std::mem::take(&mut watched.tenth);
            let sightings = scaled(&mut watched.tenth_sightings, scale);
            watched.second.join(&counts);
            let rose = watched.level.add(tenth, counts.packets as f64);
            if rose && look {
                let observation = counts.observation(0.1, watched.per_minute, sightings);
                watched.look.tenth(at, &observation);
                self.note(place as usize, end_ns);
            }
        }
    }

    /// Closes a second, or what there was of one.
    fn look(&mut self, end_ns: u64, seconds: f64) {
        let scale = self.second_scale.take(&self.sampler);
        let at = self.clock(end_ns);
        for place in 0..self.watched.len() {
            let Some(watched) = self.watched.get_mut(place) else {
                continue;
            };
            let counts = std::mem::take(&mut watched.second);
            let sightings = scaled(&mut watched.second_sightings, scale);
            let observation = counts.observation(seconds, watched.per_minute, sightings);
            watched.look.second(at, &observation);
            watched.outcome.count(watched.look.found(), seconds);
            self.note(place, end_ns);
        }
    }

    /// Notes what is said of a service now, if it is not what was said before.
    fn note(&mut self, place: usize, at_ns: u64) {
        let Some(watched) = self.watched.get_mut(place) else {
            return;
        };
        let shift = self.shift;
        let times = report::Times {
            began_ns: self.began_ns.unwrap_or(at_ns),
            first_ns: watched.first_ns,
            at_ns,
        };
        let changed = watched
            .outcome
            .change(&watched.name, watched.look.found(), times, shift);
        if let Some(changed) = changed {
            if self.changes.len() < report::MOST_CHANGES {
                self.changes.push(changed);
            } else {
                self.unkept += 1;
            }
        }
    }

    /// The capture is over: looks at what remains. Nothing comes after this.
    pub(super) fn finish(&mut self, now_ns: u64) {
        if self.ticks.is_none() {
            return;
        }
        self.advance(now_ns);
        let Some(ticks) = self.ticks else { return };
        if !self.touched.is_empty() {
            self.glance(ticks.tenths, now_ns, true);
        }
        let left_ns = now_ns.saturating_sub(ticks.second_ns());
        // What is left of a second says little of the rate, unless it is most of one or all that there is.
        if left_ns >= SECOND_NS / 2 || ticks.tenths < 10 {
            self.look(now_ns, (left_ns.max(TENTH_NS)) as f64 / 1e9);
        }
        self.ticks = Some(Ticks {
            tenths: ticks.tenths / 10 * 10 + 10,
            ..ticks
        });
    }

    /// The changes so far.
    pub(super) fn changes(&self) -> &[Changed] {
        &self.changes
    }

    /// What was found.
    pub(super) fn detected(&self) -> Detected {
        let services = self.watched.iter().map(|watched| {
            let finding = watched.look.found();
            watched
                .outcome
                .service(&watched.name, finding, watched.look.all_features())
        });
        let mut services: Vec<ServiceDetected> = services.collect();
        // The traffic to no service last, as everywhere.
        services.sort_by_key(|of| of.service == crate::compile::DEFAULT);
        Detected {
            every_packet: self.every,
            sampled: self.sampler.taken,
            learned: self.learned.clone(),
            pauses: self.pauses,
            changes: self.changes.clone(),
            other_changes: self.unkept,
            services,
        }
    }
}

/// Takes what was kept, its weights times a factor.
fn scaled(sightings: &mut Reservoir, scale: f64) -> Vec<Sighting> {
    let mut sightings = std::mem::take(sightings).take();
    for sighting in &mut sightings {
        sighting.weight *= scale;
    }
    sightings
}

/// A moment of the capture from the detectors' clock.
fn moment(at: f64, shift: f64) -> Option<Timestamp> {
    let at = at - shift;
    if !at.is_finite() || at < 0.0 {
        return None;
    }
    Timestamp::from_nanosecond((at * 1e9).round() as i128).ok()
}
