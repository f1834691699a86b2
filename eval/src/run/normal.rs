//! Weeks of normal traffic: how often is something called an attack that is none?

use std::collections::BTreeMap;

use gateway_detect::Verdict;

use crate::{
    model::{
        oddity::Oddity,
        plan::Plan,
        random::mix,
        season::{BEGIN, DAY, WEEK},
        service::Service,
        tally::Sampling,
    },
    run::watch::{Entry, Said, Watch},
};

/// In one minute of so many, the tenths of each second are looked at, too.
const TENTHS_ONE_IN: u64 = 10;
/// A service is as usual when nothing odd went on for so long, in seconds.
const CALM: f64 = 600.0;

/// When attacks are put in: name, day of the week, hour.
const MOMENTS: [(&str, f64, f64); 3] = [("calm", 1.0, 10.0), ("night", 5.0, 3.5), ("peak", 3.0, 20.0)];

/// A service and a detector that knows it, at a moment of the week.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) name: &'static str,
    pub(crate) watch: Watch,
}

/// What came of the weeks of one service.
#[derive(Debug)]
pub(crate) struct Weeks {
    pub(crate) plan: Plan,
    pub(crate) lasted: f64,
    /// How long it took until the detector had learned enough, in seconds; nothing if it never had.
    pub(crate) learned_after: Option<f64>,
    pub(crate) said: Said,
    /// What was called an attack, and was none.
    pub(crate) false_attacks: Vec<Entry>,
    pub(crate) stealths: Vec<Entry>,
    pub(crate) crowds: u64,
    /// Seconds that tenths were looked at in.
    pub(crate) in_tenths: u64,
    /// Seconds whose looks were timed, and the processor time of those.
    pub(crate) timed: u64,
    pub(crate) detector_seconds: f64,
    pub(crate) moments: Vec<Moment>,
    /// The highest scores of volume and of composition, by the oddity that went on, once enough was learned.
    pub(crate) highest: BTreeMap<&'static str, (f64, f64)>,
}

/// Runs a service for weeks, with all its oddities. The moments are of the last week.
pub(crate) fn run(plan: Plan, weeks: f64, seed: u64, sampling: Sampling) -> Weeks {
    let mut watch = Watch::new(Service::new(plan, mix(seed), sampling, true));
    let ends = BEGIN + weeks * WEEK;
    let last_week = BEGIN + (weeks - 1.0).max(0.0).floor() * WEEK;
    let mut wanted: Vec<_> = MOMENTS
        .iter()
        .map(|(name, day, hour)| (*name, last_week + day * DAY + hour * 3600.0))
        .collect();
    let mut highest = BTreeMap::new();
    let (mut moments, mut in_tenths, mut learned_after) = (Vec::new(), 0, None);
    while watch.service.at < ends {
        let minute = (watch.service.at / 60.0) as u64;
        // The first hour all of it, for then only the quick looks say anything.
        if mix(seed ^ minute).is_multiple_of(TENTHS_ONE_IN) || watch.service.at < BEGIN + 3600.0 {
            watch.tenths();
            in_tenths += 1;
        } else {
            watch.second();
        }
        let at = watch.service.at;
        let finding = watch.detector.finding();
        if finding.verdict != Verdict::Learning {
            let scores = (finding.volume_score, finding.composition_score);
            let mut names = watch.service.oddities(0.0).map(Oddity::name).peekable();
            if names.peek().is_none() && watch.service.oddities(CALM).next().is_none() {
                raise(&mut highest, "nothing odd", scores);
            }
            for name in names {
                raise(&mut highest, name, scores);
            }
        }
        if learned_after.is_none() && watch.said.learning + 60 < watch.said.total() {
            learned_after = Some(at - BEGIN);
        }
        wanted.retain(|&(name, from)| {
            let calm = watch.service.oddities(CALM).next().is_none() && !watch.verdict().anomalous();
            let take = at >= from && calm || at >= from + 3.0 * 3600.0 || at >= ends && at >= from;
            if take {
                moments.push(Moment {
                    name,
                    watch: watch.branch(mix(seed ^ at.to_bits())),
                });
            }
            !take
        });
    }
    Weeks {
        highest,
        plan,
        lasted: weeks,
        learned_after,
        said: watch.said,
        false_attacks: watch.attacks().map(|(entry, _)| entry.clone()).collect(),
        stealths: of(&watch, "stealth").cloned().collect(),
        crowds: of(&watch, "crowd").count() as u64,
        in_tenths,
        timed: watch.timed,
        detector_seconds: watch.took,
        moments,
    }
}

/// Keeps the highest scores.
fn raise(highest: &mut BTreeMap<&'static str, (f64, f64)>, name: &'static str, scores: (f64, f64)) {
    let held = highest.entry(name).or_insert((0.0, 0.0));
    *held = (held.0.max(scores.0), held.1.max(scores.1));
}

fn of<'a>(watch: &'a Watch, name: &'static str) -> impl Iterator<Item = &'a Entry> {
    watch
        .entries
        .iter()
        .filter(move |entry| entry.verdict.name() == name)
}
