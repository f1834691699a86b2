//! Attacks put into normal traffic and into crowds: are they found, how soon, and by what name?

use std::collections::BTreeMap;

use gateway_detect::{Kind, Verdict};

use crate::{
    model::{
        attack::{Attack, Form},
        crowd::{Crowd, Curve},
        plan::Talk,
        random::mix,
        service::Hostile,
    },
    run::{
        normal::{Moment, Weeks},
        watch::{Watch, Why},
    },
};

/// Strengths, in times of what the service has at that moment.
pub(crate) const STRENGTHS: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 5.0, 20.0];
/// Seconds before an attack in which everything is as usual.
const BEFORE: u64 = 20;
/// How long an attack lasts; one that is slow, longer.
const LASTS: f64 = 40.0;
const LASTS_SLOW: f64 = 180.0;
/// Seconds after it in which it may be said to be over.
const AFTER: u64 = 120;
/// How far into a crowd an attack comes, in seconds.
const INTO_CROWD: u64 = 600;

/// What came of one attack.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Another kind that is right, too.
    pub(crate) also: Option<Kind>,
    pub(crate) service: &'static str,
    pub(crate) moment: &'static str,
    pub(crate) strength: f64,
    pub(crate) rate: f64,
    /// Seconds until it was called an attack of any kind, and of the right kind.
    pub(crate) any: Option<f64>,
    pub(crate) right: Option<f64>,
    /// What was said at its end, and for most of the time after it was called an attack.
    pub(crate) last: Verdict,
    /// Seconds after its end until it was said to be over.
    pub(crate) over: Option<f64>,
    /// An attack was called before it began.
    pub(crate) early: bool,
    pub(crate) why: Why,
}

/// A crowd to attack in: ten times the usual.
pub(crate) fn into_crowd(moment: &Moment, seed: u64) -> Moment {
    let mut watch = moment.watch.branch(seed);
    let begins = watch.service.at + 60.0;
    watch.service.crowd(Crowd {
        begins,
        curve: Curve::Rise {
            factor: 10.0,
            rise: 180.0,
            hold: 3600.0,
            half: 1200.0,
        },
        fresh: 0.15,
    });
    for _ in 0..INTO_CROWD {
        watch.second();
    }
    Moment {
        name: "crowd",
        watch: watch.branch(seed),
    }
}

/// Runs an attack that `begin` makes: from its beginning and the packets a second that the service has.
pub(crate) fn trial(
    moment: &Moment,
    seed: u64,
    lasts: f64,
    begin: impl FnOnce(f64, f64) -> (Hostile, f64),
) -> (Watch, f64, f64) {
    let mut watch = moment.watch.branch(seed);
    let mut packets = 0.0;
    for _ in 0..BEFORE {
        watch.tenths();
        packets += watch.detector.finding().packets_per_second;
    }
    // The finding's rate is the detector's; the plan's is asked where it says nothing.
    let usual = if packets > 0.0 {
        packets / BEFORE as f64
    } else {
        watch.service.usual()
    };
    // Where next to nothing comes, times that is no attack.
    let usual = usual.max(watch.service.plan.packets / 5.0);
    let begins = watch.service.at + (mix(seed) % 10) as f64 / 10.0;
    let (hostile, rate) = begin(begins, usual);
    watch.service.hostile.push(hostile);
    for _ in 0..lasts.ceil() as u64 {
        watch.tenths();
    }
    (watch, begins, rate)
}

/// What is to be said of a trial.
pub(crate) fn judge(
    mut watch: Watch,
    begins: f64,
    lasts: f64,
    kind: Kind,
    also: Option<Kind>,
) -> (Option<f64>, Option<f64>, Verdict, Option<f64>, bool, Why) {
    let ends = begins + lasts;
    let last = watch.verdict();
    let first = |test: &dyn Fn(Kind) -> bool| {
        watch
            .entries
            .iter()
            .find(|entry| entry.at > begins && entry.verdict.kind().is_some_and(test))
            .map(|entry| entry.at - begins)
    };
    let (any, right) = (
        first(&|_| true),
        first(&|found| found == kind || Some(found) == also),
    );
    let early = watch
        .entries
        .iter()
        .any(|entry| entry.at <= begins && entry.verdict.kind().is_some());
    let why = watch
        .entries
        .iter()
        .find(|entry| entry.at > begins && entry.verdict.kind().is_some())
        .map_or_else(|| Why::of(watch.detector.finding()), |entry| entry.why.clone());
    let mut over = None;
    for _ in 0..AFTER {
        watch.second();
        if watch.service.at > ends && watch.verdict().kind().is_none() {
            over = Some(watch.service.at - ends);
            break;
        }
    }
    (any, right, last, over, early, why)
}

/// Puts every kind at every strength into every moment of a service.
pub(crate) fn run(weeks: &Weeks, seed: u64, strengths: &[f64]) -> Vec<Trial> {
    let datagrams = !matches!(weeks.plan.talk, Talk::Web { .. });
    let mut moments = weeks.moments.clone();
    if weeks.plan.crowds
        && let Some(calm) = moments.iter().find(|moment| moment.name == "calm")
    {
        let crowd = into_crowd(calm, mix(seed));
        moments.push(crowd);
    }
    let mut trials = Vec::new();
    for moment in &moments {
        for form in Form::ALL.into_iter().filter(|form| form.suits(datagrams)) {
            for &strength in strengths {
                let seed = mix(seed ^ mix(form as u64) ^ strength.to_bits() ^ mix(moment.name.len() as u64));
                let lasts = if form == Form::Slow { LASTS_SLOW } else { LASTS };
                let (watch, begins, rate) = trial(moment, seed, lasts, |begins, usual| {
                    let mut rate = strength * usual;
                    if form == Form::Slow {
                        rate /= weeks.plan.packets_per_connection();
                    }
                    let attack = Attack::new(form, begins, lasts, rate, datagrams, seed);
                    (Hostile::Modelled(attack), rate)
                });
                let (any, right, last, over, early, why) =
                    judge(watch, begins, lasts, form.kind(), form.also(datagrams));
                trials.push(Trial {
                    name: form.name().to_owned(),
                    kind: form.kind(),
                    also: form.also(datagrams),
                    service: weeks.plan.name,
                    moment: moment.name,
                    strength,
                    rate,
                    any,
                    right,
                    last,
                    over,
                    early,
                    why,
                });
            }
        }
    }
    trials
}

/// From the first second on: floods that need no baseline, at a detector that knows nothing.
pub(crate) fn cold(weeks: &Weeks, seed: u64, strengths: &[f64]) -> Vec<Trial> {
    let datagrams = !matches!(weeks.plan.talk, Talk::Web { .. });
    let Some(calm) = weeks.moments.iter().find(|moment| moment.name == "calm") else {
        return Vec::new();
    };
    let forms = [
        Form::SynSpoofed,
        Form::SynBotnet,
        Form::Ntp,
        Form::Dns,
        Form::MixedReflection,
    ];
    let mut trials = Vec::new();
    for form in forms {
        for &strength in strengths {
            let seed = mix(seed ^ mix(form as u64) ^ strength.to_bits());
            let fresh = Moment {
                name: "cold",
                watch: Watch::new(calm.watch.service.clone()),
            };
            let (watch, begins, rate) = trial(&fresh, seed, LASTS, |begins, _| {
                let rate = strength * calm.watch.service.usual();
                let attack = Attack::new(form, begins, LASTS, rate, datagrams, seed);
                (Hostile::Modelled(attack), rate)
            });
            let (any, right, last, over, early, why) =
                judge(watch, begins, LASTS, form.kind(), form.also(datagrams));
            trials.push(Trial {
                name: form.name().to_owned(),
                kind: form.kind(),
                also: form.also(datagrams),
                service: weeks.plan.name,
                moment: "cold",
                strength,
                rate,
                any,
                right,
                last,
                over,
                early,
                why,
            });
        }
    }
    trials
}

/// How often each kind was called what.
pub(crate) fn confusion(trials: &[Trial]) -> BTreeMap<(Kind, String), usize> {
    let mut counts = BTreeMap::new();
    for trial in trials {
        let said = trial
            .last
            .kind()
            .map_or_else(|| trial.last.name().to_owned(), |kind| kind.name().to_owned());
        *counts.entry((trial.kind, said)).or_insert(0) += 1;
    }
    counts
}
