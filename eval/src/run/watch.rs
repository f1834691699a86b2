//! A detector at work on a modelled service, and what it said.

use gateway_detect::{Detector, Finding, Kind, Observation, Settings, Verdict};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::model::{oddity::Oddity, season::BEGIN, service::Service};

/// An oddity explains what is said within so many seconds after it.
const ECHO: f64 = 300.0;

/// The looks of one second in so many are timed.
const TIMED_ONE_IN: u64 = 61;

/// Processor time of this thread, in seconds: what others on the machine do is not counted.
fn thread_seconds() -> Option<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// A change of the verdict.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// When, in seconds since 1970.
    pub(crate) at: f64,
    /// What is said from then on.
    pub(crate) verdict: Verdict,
    /// Why: the scores, the rates, the loudest features.
    pub(crate) why: Why,
    /// What harmless oddities went on.
    pub(crate) oddities: Vec<Oddity>,
}

/// What a finding gave as its reasons.
#[derive(Clone, Debug, Default)]
pub(crate) struct Why {
    pub(crate) volume_score: f64,
    pub(crate) composition_score: f64,
    pub(crate) rate: f64,
    pub(crate) expected: f64,
    pub(crate) foreign: f64,
    pub(crate) features: Vec<(&'static str, f64, f64)>,
}

impl Why {
    pub(crate) fn of(finding: &Finding) -> Self {
        Self {
            volume_score: finding.volume_score,
            composition_score: finding.composition_score,
            rate: finding.packets_per_second,
            expected: finding.expected_packets_per_second,
            foreign: finding.foreign_packets_per_second,
            features: finding
                .features
                .iter()
                .take(4)
                .map(|speaking| (speaking.feature, speaking.value, speaking.expected))
                .collect(),
        }
    }

    /// On one line.
    pub(crate) fn line(&self) -> String {
        let features: Vec<String> = self
            .features
            .iter()
            .map(|(name, value, expected)| format!("{name} {value:.3} (usually {expected:.3})"))
            .collect();
        format!(
            "{:.0} pkt/s (usually {:.0}, foreign {:.0}), volume {:.2}, composition {:.2}: {}",
            self.rate,
            self.expected,
            self.foreign,
            self.volume_score,
            self.composition_score,
            features.join(", ")
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "volume_score": self.volume_score,
            "composition_score": self.composition_score,
            "packets_per_second": self.rate,
            "expected_packets_per_second": self.expected,
            "foreign_packets_per_second": self.foreign,
            "features": self.features.iter().map(|(feature, value, expected)| json!({
                "feature": feature, "value": value, "expected": expected,
            })).collect::<Vec<_>>(),
        })
    }
}

/// Seconds that each verdict was said, by the ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub(crate) learning: u64,
    pub(crate) quiet: u64,
    pub(crate) crowd: u64,
    pub(crate) attack: u64,
    pub(crate) stealth: u64,
}

impl Said {
    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Learning => &mut self.learning,
            Verdict::Quiet => &mut self.quiet,
            Verdict::Crowd => &mut self.crowd,
            Verdict::Attack(_) => &mut self.attack,
            Verdict::Stealth => &mut self.stealth,
        } += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.learning + self.quiet + self.crowd + self.attack + self.stealth
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "learning": self.learning,
            "quiet": self.quiet,
            "crowd": self.crowd,
            "attack": self.attack,
            "stealth": self.stealth,
        })
    }
}

/// A service that is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) service: Service,
    pub(crate) detector: Detector,
    pub(crate) said: Said,
    /// Every change of the verdict, in order.
    pub(crate) entries: Vec<Entry>,
    verdict: Verdict,
    /// Seconds whose looks were timed, and how long those took, in seconds of this thread's own processor time.
    pub(crate) timed: u64,
    pub(crate) took: f64,
}

impl Watch {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            detector: Detector::new(Settings::default()),
            said: Said::default(),
            entries: Vec::new(),
            verdict: Verdict::default(),
            timed: 0,
            took: 0.0,
        }
    }

    /// The same service and detector, with other chances from here on and nothing written down yet.
    pub(crate) fn branch(&self, seed: u64) -> Self {
        let mut branch = Self {
            entries: Vec::new(),
            said: Said::default(),
            timed: 0,
            took: 0.0,
            ..self.clone()
        };
        branch.service.reseed(seed);
        branch
    }

    /// What is said now.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A second, without looks at its tenths.
    pub(crate) fn second(&mut self) {
        let seen = self.service.second();
        self.tick(&seen);
    }

    /// A second with its tenths.
    pub(crate) fn tenths(&mut self) {
        let mut parts = Vec::with_capacity(10);
        let whole = self.service.tenths(|at, part| parts.push((at, part.clone())));
        let begun = self.clock();
        for (at, part) in parts {
            let _ = self.detector.glance(at, &part);
            self.note(at);
        }
        if let (Some(begun), Some(ended)) = (begun, thread_seconds()) {
            self.took += ended - begun;
        }
        self.tick(&whole);
    }

    fn tick(&mut self, seen: &Observation) {
        let (at, begun) = (self.service.at, self.clock());
        let _ = self.detector.tick(at, seen);
        if let (Some(begun), Some(ended)) = (begun, thread_seconds()) {
            self.timed += 1;
            self.took += ended - begun;
        }
        self.said.count(self.detector.finding().verdict);
        self.note(at);
    }

    /// The clock, where this second is one that is timed: asking it costs as much as a look.
    fn clock(&self) -> Option<f64> {
        (self.service.at as u64)
            .is_multiple_of(TIMED_ONE_IN)
            .then(thread_seconds)
            .flatten()
    }

    /// Writes down a change.
    fn note(&mut self, at: f64) {
        let finding = self.detector.finding();
        if finding.verdict == self.verdict {
            return;
        }
        self.verdict = finding.verdict;
        self.entries.push(Entry {
            at,
            verdict: finding.verdict,
            why: Why::of(finding),
            oddities: self.service.oddities(ECHO).collect(),
        });
    }

    /// When an attack was called, and by which kind: every time that the verdict became one of an attack.
    pub(crate) fn attacks(&self) -> impl Iterator<Item = (&Entry, Kind)> {
        let mut before = Verdict::Learning;
        self.entries.iter().filter_map(move |entry| {
            let was = std::mem::replace(&mut before, entry.verdict);
            match (was.kind(), entry.verdict.kind()) {
                (None, Some(kind)) => Some((entry, kind)),
                _ => None,
            }
        })
    }
}

/// A time of the model for people: the week, the day and the time of day.
pub(crate) fn when(at: f64) -> String {
    let since = at - BEGIN;
    let (day, left) = ((since / 86_400.0).floor(), since.rem_euclid(86_400.0));
    let names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    format!(
        "week {} {} {:02}:{:02}:{:02}",
        (day / 7.0).floor() + 1.0,
        names[day.rem_euclid(7.0) as usize],
        (left / 3600.0) as u32,
        (left / 60.0) as u32 % 60,
        left as u32 % 60
    )
}
