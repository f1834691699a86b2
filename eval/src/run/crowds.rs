//! Crowds and nothing else: the World Cup's series, and crowds modelled on its rises.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use gateway_detect::Verdict;
use jiff::civil::DateTime;

use crate::{
    model::{
        crowd::{Crowd, Curve},
        plan::SPORT,
        random::{Random, mix},
        service::Service,
        talk::Talking,
        tally::Sampling,
    },
    run::{
        normal::Weeks,
        watch::{Entry, Said, Watch},
    },
};

/// A minute is part of a rise when it has so many times the median of the four hours before,
const OVER_HOURS: f64 = 3.0;
/// so many times the most of that hour on the seven days before,
const OVER_DAYS: f64 = 1.5;
/// and no fewer requests than this.
const LEAST: f64 = 1_000.0;
/// A rise is called in time within so many minutes of its beginning.
const IN_TIME: usize = 15;
/// Requests that a connection of [`SPORT`] has.
const REQUESTS: f64 = 8.0;

/// Requests a minute.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// The first minute, in seconds since 1970.
    pub(crate) begins: f64,
    pub(crate) counts: Vec<f64>,
}

/// Reads a series: `period,count`, a line a minute. Minutes that are missing are filled in between their neighbours.
pub(crate) fn read(path: &Path) -> Result<Series> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut series = Series {
        begins: 0.0,
        counts: Vec::new(),
    };
    for (number, line) in text.lines().enumerate().skip(1) {
        let place = || {
            format!(
                "{}, line {}: expected `YYYY-MM-DD HH:MM:SS,COUNT`",
                path.display(),
                number + 1
            )
        };
        let (period, count) = line.split_once(',').with_context(place)?;
        let time: DateTime = period.parse().with_context(place)?;
        let count: f64 = count.trim().parse().with_context(place)?;
        let at = time
            .to_zoned(jiff::tz::TimeZone::UTC)
            .with_context(place)?
            .timestamp()
            .as_second() as f64;
        if series.counts.is_empty() {
            series.begins = at;
        }
        let index = ((at - series.begins) / 60.0).round();
        let (index, held) = (index.max(0.0) as usize, series.counts.len());
        if index < held || index > held + 1440 {
            bail!("{}: the minutes are not in order", place());
        }
        let before = series.counts.last().copied().unwrap_or(count);
        for missing in held..index {
            let share = (missing + 1 - held) as f64 / (index + 1 - held) as f64;
            series.counts.push(before + (count - before) * share);
        }
        series.counts.push(count);
    }
    if series.counts.len() < 2 * 1440 {
        bail!("{}: fewer than two days of minutes", path.display());
    }
    Ok(series)
}

/// What came of a series.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) minutes: usize,
    pub(crate) said: Said,
    /// Minutes in which an attack was said.
    pub(crate) attack_minutes: usize,
    pub(crate) stealth_minutes: usize,
    pub(crate) attacks: Vec<(String, Entry)>,
    pub(crate) stealths: Vec<(String, Entry)>,
    /// When each rise began, how high it went, and how soon it was called a crowd, in minutes.
    pub(crate) rises: Vec<Rise>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rise {
    pub(crate) begins: String,
    pub(crate) factor: f64,
    pub(crate) minutes: usize,
    pub(crate) called_after: Option<usize>,
}

/// Runs a series, or its first `days`.
pub(crate) fn recorded(series: &Series, days: Option<usize>, seed: u64, sampling: Sampling) -> Recorded {
    let most = days.map_or(series.counts.len(), |days| (days * 1440).min(series.counts.len()));
    let counts = &series.counts[..most];
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let packets = mean / 60.0 / REQUESTS * Talking::packets_per_connection(&SPORT);
    let plan = crate::model::plan::Plan { packets, ..SPORT };
    let mut service = Service::new(plan, mix(seed), sampling, false);
    service.jump(series.begins);
    let mut watch = Watch::new(service);
    let mut minutes = Vec::with_capacity(counts.len());
    for (minute, &count) in counts.iter().enumerate() {
        let next = counts.get(minute + 1).copied().unwrap_or(count);
        let (mut attack, mut crowd, mut stealth) = (false, false, false);
        // Rises are looked at in tenths, and one minute in ten.
        let fine = minute % 10 == 0 || next > 1.5 * count;
        for second in 0..60 {
            let here = count + (next - count) * f64::from(second) / 60.0;
            watch.service.forced = Some(here / mean);
            if fine {
                watch.tenths();
            } else {
                watch.second();
            }
            attack |= matches!(watch.verdict(), Verdict::Attack(_));
            crowd |= watch.verdict() == Verdict::Crowd;
            stealth |= watch.verdict() == Verdict::Stealth;
        }
        minutes.push((attack, crowd, stealth));
    }
    let rises = rises(counts)
        .into_iter()
        .map(|(begins, ends, factor)| Rise {
            begins: name(series.begins + begins as f64 * 60.0),
            factor,
            minutes: ends - begins,
            called_after: minutes[begins.saturating_sub(2)..(begins + IN_TIME).min(minutes.len())]
                .iter()
                .position(|(_, crowd, _)| *crowd)
                .map(|after| after.saturating_sub(2)),
        })
        .collect();
    let of = |test: fn(Verdict) -> bool| {
        watch
            .entries
            .iter()
            .filter(|entry| test(entry.verdict))
            .map(|entry| (name(entry.at), entry.clone()))
            .collect()
    };
    Recorded {
        minutes: minutes.len(),
        said: watch.said,
        attack_minutes: minutes.iter().filter(|(attack, ..)| *attack).count(),
        stealth_minutes: minutes.iter().filter(|(.., stealth)| *stealth).count(),
        attacks: of(|verdict| verdict.kind().is_some()),
        stealths: of(|verdict| verdict == Verdict::Stealth),
        rises,
    }
}

fn name(at: f64) -> String {
    jiff::Timestamp::from_second(at as i64).map_or_else(|_| format!("{at}"), |time| time.to_string())
}

/// Rises of a series: first minute, last minute, and how many times the median of the hours before.
pub(crate) fn rises(counts: &[f64]) -> Vec<(usize, usize, f64)> {
    let mut rises: Vec<(usize, usize, f64)> = Vec::new();
    for minute in 3 * 1440..counts.len() {
        let count = counts[minute];
        if count < LEAST {
            continue;
        }
        let mut hours = counts[minute - 240..minute].to_vec();
        hours.sort_by(f64::total_cmp);
        let median = hours[120];
        if count < OVER_HOURS * median {
            continue;
        }
        let most = (1..=7)
            .filter_map(|day| minute.checked_sub(day * 1440))
            .flat_map(|same| &counts[same.saturating_sub(30)..same + 30])
            .fold(0.0, |most: f64, count| most.max(*count));
        if count < OVER_DAYS * most {
            continue;
        }
        match rises.last_mut() {
            Some(last) if minute - last.1 <= 60 => {
                last.1 = minute;
                last.2 = last.2.max(count / median.max(1.0));
            }
            _ => rises.push((minute, minute, count / median.max(1.0))),
        }
    }
    rises
}

/// What came of crowds modelled on a service.
#[derive(Debug)]
pub(crate) struct Modelled {
    pub(crate) service: &'static str,
    pub(crate) moment: &'static str,
    pub(crate) shape: String,
    /// Seconds after it had doubled until it was called a crowd.
    pub(crate) called_after: Option<f64>,
    pub(crate) said: Said,
    pub(crate) attacks: Vec<Entry>,
    pub(crate) stealths: Vec<Entry>,
}

/// Runs crowds on a service that is known: shapes of recorded rises, and of their like.
pub(crate) fn modelled(weeks: &Weeks, series: Option<&Series>, seed: u64, shapes: usize) -> Vec<Modelled> {
    let mut random = Random::new(mix(seed));
    let mut curves: Vec<(String, Curve)> = [
        (3.0, 300.0),
        (6.0, 120.0),
        (10.0, 180.0),
        (15.0, 60.0),
        (10.0, 20.0),
    ]
    .into_iter()
    .map(|(factor, rise)| {
        let curve = Curve::Rise {
            factor,
            rise,
            hold: random.between(300.0, 900.0),
            half: 300.0,
        };
        (format!("{factor}x in {rise} s"), curve)
    })
    .collect();
    if let Some(series) = series {
        for (begins, _, factor) in rises(&series.counts) {
            let from = begins.saturating_sub(20);
            let to = (begins + 60).min(series.counts.len());
            let mut before = series.counts[begins - 240..begins].to_vec();
            before.sort_by(f64::total_cmp);
            let factors = series.counts[from..to]
                .iter()
                .map(|count| count / before[120])
                .collect();
            let at = name(series.begins + begins as f64 * 60.0);
            curves.push((
                format!("{factor:.1}x as at {at}"),
                Curve::Recorded { step: 60.0, factors },
            ));
        }
    }
    curves.truncate(shapes);
    let mut all = Vec::new();
    for moment in &weeks.moments {
        for (number, (shape, curve)) in curves.iter().enumerate() {
            let mut watch = moment.watch.branch(mix(seed ^ number as u64));
            let begins = watch.service.at + 30.0;
            let crowd = Crowd {
                begins,
                curve: curve.clone(),
                fresh: random.between(0.05, 0.25),
            };
            watch.service.crowd(crowd.clone());
            let lasts = match curve {
                Curve::Rise { rise, hold, .. } => rise + hold + 600.0,
                Curve::Recorded { step, factors } => step * factors.len() as f64,
            };
            let (mut doubled, mut called) = (None, None);
            while watch.service.at < begins + lasts {
                watch.tenths();
                let at = watch.service.at;
                if doubled.is_none() && crowd.factor(at).is_some_and(|factor| factor >= 2.0) {
                    doubled = Some(at);
                }
                if called.is_none() && watch.verdict() == Verdict::Crowd {
                    called = Some(at);
                }
            }
            all.push(Modelled {
                service: weeks.plan.name,
                moment: moment.name,
                shape: shape.clone(),
                called_after: called.map(|called| (called - doubled.unwrap_or(called)).max(0.0)),
                said: watch.said,
                attacks: watch.attacks().map(|(entry, _)| entry.clone()).collect(),
                stealths: watch
                    .entries
                    .iter()
                    .filter(|entry| entry.verdict == Verdict::Stealth)
                    .cloned()
                    .collect(),
            });
        }
    }
    all
}
