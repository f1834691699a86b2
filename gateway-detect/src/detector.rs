//! The detector of one service.

use std::{collections::VecDeque, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::{
    composition::{Composition, Distance},
    features::{Feature, Features, Learned, Sampled},
    foreign::{Foreign, Usual},
    invariants,
    normal::Normal,
    observe::Observation,
    pool::Pool,
    tail::Tail,
    verdict::{Change, Finding, Kind, Speaking, Verdict},
    volume::Volume,
};

/// Seconds with traffic after which the composition is judged: ten minutes.
pub const LEARNING_SECONDS: f64 = 600.0;
/// Alarms of the composition, of so many seconds, that are needed: one second may be an accident.
const CONFIRMED: (u32, u32) = (2, 3);
/// An anomaly is over after so many seconds without: one that is plain, and one that comes and goes with chance.
const OVER_AFTER: (f64, f64) = (10.0, 60.0);
/// A crowd is one after so many seconds, and if it is no rarity, only from so many times the usual on.
const CROWD_AFTER: f64 = 15.0;
const CROWD: f64 = 1.8;
/// The same against the hour of the week alone.
const SURGE: f64 = 2.5;
/// Connections that are begun and not closed for so many seconds are a slow attack: a crowd that comes suddenly closes its first
/// ones later, too.
const SLOW_AFTER: f64 = 20.0;
/// Packets a second that are not many, however few are usual.
const LEAST_CROWD: f64 = 100.0;
/// It is over after so many.
const CROWD_OVER_AFTER: f64 = 60.0;
/// What lasts so long is the new usual: six hours of something that is little, a day of an attack.
const LASTING: (f64, f64) = (6.0 * 3_600.0, 24.0 * 3_600.0);
/// Foreign packets a second below which nothing is an attack, but stealthy.
const LEAST_FOREIGN: f64 = 20.0;
/// Foreign packets of a tenth of a second that are an alarm by themselves.
const LEAST_GLANCE: f64 = 50.0;
/// The same as a share of what is usual.
const FOREIGN_SHARE: f64 = 0.3;
const VAGUE_SHARE: f64 = 1.0;
/// The level before an anomaly fades so fast.
const LEVEL_SECONDS: f64 = 30.0;
/// A distance below this is never an alarm: as many features as there are make so much by chance.
const NEAR: f64 = 5.0;
/// One beyond this is, while the tail is still unknown.
const FAR: f64 = 12.0;
/// The least score that can be an alarm, where what is foreign is this many times what is usual.
const HALF: f64 = 0.5;
const MUCH: f64 = 1.5;
/// Scores are not higher than this.
const HIGHEST: f64 = 10.0;

/// The most bytes of a detector, but for samples of the last seconds.
pub const MOST_BYTES: usize = 32_768;

/// What the operator says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// False alarms a second that are put up with: `"1/week"` is 1 / 604,800.
    pub sensitivity: f64,
    /// Source ports that the service names, which are therefore no sign of reflection.
    pub source_ports: Vec<RangeInclusive<u16>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sensitivity: 1.0 / (7.0 * 86_400.0),
            source_ports: Vec::new(),
        }
    }
}

/// The detector of one service. What is saved of it (serde) is what it has learned and what it finds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Detector {
    #[serde(skip)]
    settings: Settings,
    #[serde(skip)]
    finding: Finding,
    #[serde(skip)]
    now: Now,
    learned: Learned,
    composition: Composition,
    tail: Tail,
    volume: Volume,
    usual: Usual,
    normal: Normal,
}

/// What lasts no longer than the process.
#[derive(Clone, Debug, Default)]
struct Now {
    pool: Pool,
    sampled: Sampled,
    /// The tenths of the last second that were looked at.
    tenths: VecDeque<(f64, Observation)>,
    features: Features,
    distance: Distance,
    /// The last seconds' alarms, the latest in the lowest bit.
    alarms: u32,
    /// Packets a second before.
    level: Option<f64>,
    /// Seconds that there has been much.
    many: f64,
    /// Seconds that connections have been begun and not closed.
    slow: f64,
    /// When an alarm was last, and when the volume was last beyond the usual.
    alarmed: Option<f64>,
    crowded: Option<f64>,
    /// The operator, or the time, has made this normal.
    accepted: bool,
}

/// What one second says.
struct Look {
    kind: Option<Kind>,
    foreign: f64,
    /// What is foreign is like all else but for its sources.
    alike: bool,
    /// Its kind is told by what the packets are, not by who sends them.
    told: bool,
    volume_score: f64,
    composition_score: f64,
    crowd: bool,
}

impl Detector {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The same with a key: who does not know it cannot choose who is remembered of normal sources.
    #[must_use]
    pub fn with_key(mut self, key: u64) -> Self {
        self.normal = Normal::with_key(key);
        self
    }

    /// From now on these settings hold; what was learned is kept.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Looks at a second. `at`: its end, in seconds since 1970. To be called every second, also when nothing came.
    pub fn tick(&mut self, at: f64, seen: &Observation) -> Option<Change> {
        self.now.pool.add(at, &seen.sightings);
        self.now.sampled = self.learned.sampled(at, &self.now.pool);
        self.now.features = self.learned.measure(seen, &self.now.sampled, &self.now.pool);
        self.now.distance = self.composition.distance(&self.now.features);
        let look = self.look(at, seen);
        let change = self.decide(at, seen, &look);
        self.learn(at, seen, &look);
        self.describe(at, seen, &look);
        change
    }

    /// Looks at a tenth of a second, for floods that need no baseline. Learns nothing.
    pub fn glance(&mut self, at: f64, seen: &Observation) -> Option<Change> {
        let alone = invariants::look(
            seen,
            &self.now.pool,
            &self.learned,
            self.knows(),
            self.own_ports(),
        );
        // A tenth of a second must say it loudly, for a burst may be an accident; or all that were looked at within a second
        // say it together.
        let alone = alone.filter(|alarm| alarm.foreign >= LEAST_GLANCE);
        let alarm = alone.or_else(|| self.together(at, seen))?;
        self.now.alarmed = Some(at);
        self.finding.at = at;
        self.finding.packets_per_second = seen.rate();
        self.finding.foreign_packets_per_second = alarm.foreign / seen.seconds.max(1e-3);
        self.finding.composition_score = self.finding.composition_score.max(1.0);
        self.turn(at, Verdict::Attack(alarm.kind))
    }

    /// Looks at the tenths of the last second together, as at a whole one.
    fn together(&mut self, at: f64, seen: &Observation) -> Option<invariants::Alarm> {
        let mut counts = seen.clone();
        counts.sightings.clear();
        let gone = |then: f64| !(0.0..0.95).contains(&(at - then));
        while self.now.tenths.front().is_some_and(|(then, _)| gone(*then)) {
            self.now.tenths.pop_front();
        }
        for (_, tenth) in &self.now.tenths {
            counts.add_counts(tenth);
        }
        let mut this = seen.clone();
        this.sightings.clear();
        self.now.tenths.push_back((at, this));
        counts.seconds = counts.seconds.max(1.0);
        invariants::look(
            &counts,
            &self.now.pool,
            &self.learned,
            self.knows(),
            self.own_ports(),
        )
        .map(|alarm| invariants::Alarm {
            foreign: alarm.foreign * seen.seconds,
            ..alarm
        })
    }

    /// How much of what is needed was learned, 0 to 1.
    pub fn learned(&self) -> f64 {
        (self.learned.seconds / LEARNING_SECONDS).min(1.0)
    }

    fn knows(&self) -> bool {
        self.learned.seconds >= LEARNING_SECONDS
    }

    fn own_ports(&self) -> bool {
        !self.settings.source_ports.is_empty()
    }

    fn score(&self, exceedance: f64) -> f64 {
        let target = self.settings.sensitivity.clamp(1e-9, 0.5);
        (exceedance.max(1e-300).ln() / target.ln()).clamp(0.0, HIGHEST)
    }

    fn look(&mut self, at: f64, seen: &Observation) -> Look {
        let rate = seen.rate();
        let scored = self.volume.score(at, rate);
        self.finding.expected_packets_per_second = scored.expected.max(0.0);
        let volume_score = self.score(scored.exceedance);
        let more = scored.deviation > 0.0;
        let times = |usual: f64| rate / usual.max(LEAST_CROWD);
        // An attack's own packets make no crowd that would be left when it ends: what came beside it must be many.
        let attacked = matches!(self.finding.verdict, Verdict::Attack(_));
        let beside = rate - self.finding.foreign_packets_per_second;
        let more = more && !(attacked && beside < CROWD * scored.expected.max(LEAST_CROWD));
        // A rise that takes an hour is not beyond what the last half hour makes one expect, but beyond the hour of the week.
        let many = more
            && (volume_score >= 1.0
                || scored.ramp
                || volume_score >= HALF && times(scored.expected) >= CROWD
                || scored.learned >= 1.0 && times(scored.seasonal) >= SURGE);
        // A second in between that has less does not make it begin anew.
        let seconds = if many { seen.seconds } else { -seen.seconds };
        self.now.many = (self.now.many + seconds).clamp(0.0, 2.0 * CROWD_AFTER);
        let crowd = self.now.many >= CROWD_AFTER && self.knows();
        let distance = self.now.distance.distance;
        let composition_score = if !self.knows() || distance < NEAR {
            0.0
        } else if self.tail.ready() {
            self.score(self.tail.exceedance(distance))
        } else {
            (distance / FAR).min(HIGHEST)
        };
        let invariant = invariants::look(
            seen,
            &self.now.pool,
            &self.learned,
            self.knows(),
            self.own_ports(),
        );
        // What is half as unusual as an alarm is one if there is as much of it as of everything else.
        let foreign = (composition_score >= HALF).then(|| {
            let (pool, learned) = (&self.now.pool, &self.learned);
            let crowd = crowd || self.finding.verdict == Verdict::Crowd;
            Foreign::of(seen, pool, learned, &self.usual, &self.now.distance, at, crowd)
        });
        // A transfer of much data is unusual and nobody's concern.
        let foreign = foreign.filter(|foreign| foreign.packets > 0.0 || foreign.kind == Kind::Slow);
        let usual = self.usual_rate();
        let much = foreign.is_some_and(|foreign| {
            let times = foreign.packets / seen.seconds.max(1e-3) / usual;
            composition_score >= 1.0 - (1.0 - HALF) * (times / MUCH).min(1.0)
        });
        self.now.alarms =
            self.now.alarms << 1 | u32::from(foreign.is_some() && (composition_score >= 1.0 || much));
        let lately = (self.now.alarms & ((1 << CONFIRMED.1) - 1)).count_ones();
        let confirmed = lately >= CONFIRMED.0 && self.now.alarms & 1 != 0;
        let mut look = Look {
            kind: None,
            foreign: 0.0,
            alike: false,
            told: true,
            volume_score,
            composition_score,
            crowd,
        };
        if let Some(alarm) = invariant {
            look.kind = Some(alarm.kind);
            look.foreign = alarm.foreign / seen.seconds.max(1e-3);
        } else if let Some(foreign) = foreign.filter(|_| confirmed) {
            look.foreign = foreign.packets / seen.seconds.max(1e-3);
            look.kind = Some(foreign.kind);
            look.alike = foreign.alike;
            look.told = foreign.told;
        }
        look
    }

    /// Packets a second that are usual: of the season's and of the last half minute's the fewer, for there may be a crowd.
    fn usual_rate(&self) -> f64 {
        let level = self.now.level.unwrap_or(0.0);
        level.min(self.finding.expected_packets_per_second).max(1.0)
    }

    /// Whether what is foreign is so much that it is an attack.
    fn much(&self, seen: &Observation, look: &Look) -> bool {
        let level = self.now.level.unwrap_or(0.0);
        let usual = self.usual_rate();
        let raised = seen.rate() >= level + 0.4 * look.foreign || look.volume_score >= 1.0 || look.crowd;
        // What is told by its sources alone may be a partner's batch, and newcomers are what a crowd is made of; it must be as
        // much as all the rest.
        let told = look.told || !self.crowded(look) && look.kind == Some(Kind::Slow);
        let share = if told { FOREIGN_SHARE } else { VAGUE_SHARE };
        // In a crowd it must be much of the crowd, which is more mixed than what was learned.
        let rest = (seen.rate() - look.foreign).max(usual);
        !look.alike && look.foreign >= LEAST_FOREIGN && look.foreign >= share * rest && raised
    }

    fn crowded(&self, look: &Look) -> bool {
        look.crowd || self.finding.verdict == Verdict::Crowd
    }

    fn decide(&mut self, at: f64, seen: &Observation, look: &Look) -> Option<Change> {
        let holds = |since: Option<f64>, seconds: f64| since.is_some_and(|then| at - then < seconds);
        if look.crowd {
            self.now.crowded = Some(at);
        }
        let was = self.finding.verdict;
        let slow = look.kind == Some(Kind::Slow);
        let seconds = if slow { seen.seconds } else { -seen.seconds };
        self.now.slow = (self.now.slow + seconds).clamp(0.0, 2.0 * SLOW_AFTER);
        if let Some(kind) = look.kind {
            self.now.alarmed = Some(at);
            // Once it is an attack it stays one while it is unusual; its kind changes only for a plainer one.
            let verdict = match was {
                Verdict::Attack(before) if before == kind || kind.is_vague() => Verdict::Attack(before),
                Verdict::Attack(_) => Verdict::Attack(kind),
                _ if slow && self.now.slow < SLOW_AFTER => {
                    if look.crowd {
                        Verdict::Crowd
                    } else {
                        was
                    }
                }
                _ if kind.is_plain() && look.foreign >= invariants::fewest(kind) || self.much(seen, look) => {
                    Verdict::Attack(kind)
                }
                // Some of a crowd is always odd.
                _ if self.crowded(look) => Verdict::Crowd,
                _ => Verdict::Stealth,
            };
            let lasting = match verdict {
                Verdict::Attack(_) => LASTING.1,
                _ => LASTING.0,
            };
            if was.kind().is_some() == verdict.kind().is_some()
                && was.anomalous()
                && at - self.finding.since > lasting
            {
                return self.accept(at);
            }
            return self.turn(at, verdict);
        }
        let over = match was.kind() {
            Some(kind) if !kind.is_vague() => OVER_AFTER.0,
            _ => OVER_AFTER.1,
        };
        if matches!(was, Verdict::Attack(_) | Verdict::Stealth) && holds(self.now.alarmed, over) {
            return None;
        }
        let verdict = if !self.knows() {
            Verdict::Learning
        } else if holds(self.now.crowded, CROWD_OVER_AFTER) {
            Verdict::Crowd
        } else {
            Verdict::Quiet
        };
        self.turn(at, verdict)
    }

    fn turn(&mut self, at: f64, verdict: Verdict) -> Option<Change> {
        let was = self.finding.verdict;
        if was == verdict {
            return None;
        }
        self.finding.verdict = verdict;
        if verdict.anomalous() {
            // From stealth to attack it is the same anomaly.
            if !matches!(was, Verdict::Attack(_) | Verdict::Stealth) || verdict == Verdict::Crowd {
                self.finding.since = at;
            }
            Some(Change::Began)
        } else {
            self.finding.since = at;
            was.anomalous().then_some(Change::Ended(was))
        }
    }

    fn learn(&mut self, at: f64, seen: &Observation, look: &Look) {
        let verdict = self.finding.verdict;
        let accepted = std::mem::take(&mut self.now.accepted);
        if !accepted && (look.kind.is_some() || matches!(verdict, Verdict::Attack(_) | Verdict::Stealth)) {
            return;
        }
        let rate = seen.rate();
        self.volume.learn(at, rate);
        let level = self.now.level.get_or_insert(rate);
        *level += (rate - *level) * (seen.seconds / LEVEL_SECONDS).min(1.0);
        if seen.packets <= 0.0 {
            if verdict == Verdict::Quiet {
                // An empty second is a quiet one: without it the minute would be no whole one.
                self.normal.learn(at, seen);
            }
            return;
        }
        if self.learned.seconds > 60.0 {
            self.composition.learn(&self.now.features, &self.now.distance);
            self.usual.learn(seen, &self.now.pool, &self.learned);
        }
        if self.learned.seconds > LEARNING_SECONDS / 2.0 {
            self.tail.learn(self.now.distance.distance);
        }
        self.learned
            .learn(at, seen, &self.now.sampled, &self.now.pool, 1.0);
        if verdict == Verdict::Quiet {
            self.normal.learn(at, seen);
        }
    }

    fn describe(&mut self, at: f64, seen: &Observation, look: &Look) {
        let finding = &mut self.finding;
        finding.at = at;
        finding.packets_per_second = seen.rate();
        finding.foreign_packets_per_second = look.foreign;
        finding.volume_score = look.volume_score;
        finding.composition_score = if look.kind.is_some() {
            look.composition_score.max(1.0)
        } else {
            look.composition_score
        };
        finding.learned = (self.learned.seconds / LEARNING_SECONDS).min(1.0);
        finding.features.clear();
        if finding.verdict.anomalous() {
            finding.features = Speaking::all(&self.now.features, &self.now.distance);
        }
        if matches!(finding.verdict, Verdict::Attack(_) | Verdict::Stealth) {
            if look.kind.is_some() || finding.carriers.is_empty() {
                finding.carriers =
                    crate::foreign::carriers(seen, &self.now.pool, &self.learned, finding.verdict, at);
            }
        } else {
            finding.carriers.clear();
        }
    }

    /// What is found.
    pub fn finding(&self) -> &Finding {
        &self.finding
    }

    /// Every feature: what it is, and what it usually is; nothing where it cannot be told.
    pub fn features(&self) -> impl Iterator<Item = (Feature, Option<f64>, Option<f64>)> {
        Feature::ALL
            .into_iter()
            .zip(&self.now.features)
            .map(|(feature, measured)| (feature, measured.value, measured.expected))
    }

    /// How far the last second was from the usual.
    pub fn distance(&self) -> &Distance {
        &self.now.distance
    }

    /// What is remembered of normal sources.
    pub fn normal(&self) -> &Normal {
        &self.normal
    }

    /// What is now is normal, by the operator's word: the anomaly ends and is learned.
    pub fn accept(&mut self, at: f64) -> Option<Change> {
        if !self.finding.verdict.anomalous() {
            return None;
        }
        // What was learned of the composition would call it unusual for hours.
        let memory = std::mem::take(&mut self.learned.memory);
        self.learned = Learned::default();
        self.learned.memory = memory;
        self.composition = Composition::default();
        self.tail = Tail::default();
        self.usual = Usual::default();
        self.now.alarms = 0;
        self.now.alarmed = None;
        self.now.crowded = None;
        self.now.level = None;
        self.now.accepted = true;
        self.turn(at, Verdict::Learning)
    }

    /// Bytes that it takes, with what is on the heap, but for samples of the last seconds; [`MOST_BYTES`] at most.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.learned.bytes()
            + self.composition.bytes()
            + self.tail.heap()
            + (self.volume.bytes() - size_of::<Volume>())
            + (self.normal.bytes() - size_of::<Normal>())
    }
}
