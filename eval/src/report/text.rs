//! The table.

use std::{collections::BTreeMap, fmt::Write};

use gateway_detect::Kind;

use super::{
    Results,
    line::{Line, groups, strength},
};
use crate::{
    demands::Demand,
    run::{
        crowds::Modelled,
        injected::{Trial, confusion},
        steps::{Came, alike},
        watch::{Entry, when},
    },
};

/// The most lines of reasons that are printed of each sort.
const MOST: usize = 12;

const HEAD: &str = "trials  attack   right  at end   median      max     over";

/// The table.
pub(crate) fn text(results: &Results, demands: &[Demand]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut out, results, demands);
    out
}

fn write_text(out: &mut String, results: &Results, demands: &[Demand]) -> std::fmt::Result {
    writeln!(
        out,
        "seed {}, {} weeks, one packet in {} sampled{}",
        results.seed,
        results.weeks,
        results.one_in,
        if results.quick { ", quick" } else { "" }
    )?;
    writeln!(out, "\nNormal traffic")?;
    writeln!(
        out,
        "{:<12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
        "service",
        "learned",
        "attacks",
        "a day",
        "a week",
        "stealth",
        "a week",
        "crowds",
        "attack s",
        "us/look"
    )?;
    for service in &results.services {
        let weeks = &service.weeks;
        let attacks = weeks.false_attacks.len() as f64;
        let stealths = weeks.stealths.len() as f64;
        writeln!(
            out,
            "{:<12} {:>9} {:>9} {:>8.3} {:>8.2} {:>8} {:>8.2} {:>8} {:>9} {:>8.2}",
            weeks.plan.name,
            weeks
                .learned_after
                .map_or_else(|| "never".to_owned(), |after| format!("{:.1} h", after / 3600.0)),
            weeks.false_attacks.len(),
            attacks / weeks.lasted / 7.0,
            attacks / weeks.lasted,
            weeks.stealths.len(),
            stealths / weeks.lasted,
            weeks.crowds,
            weeks.said.attack,
            weeks.detector_seconds / weeks.timed.max(1) as f64 * 1e6
        )?;
    }
    for service in &results.services {
        entries(
            out,
            service.weeks.plan.name,
            "false attacks",
            &service.weeks.false_attacks,
            when,
        )?;
        entries(
            out,
            service.weeks.plan.name,
            "false stealth",
            &service.weeks.stealths,
            when,
        )?;
    }
    highest_text(out, results)?;
    attacks_text(out, results)?;
    captures_text(out, results)?;
    steps_text(out, results)?;
    crowds_text(out, results)?;
    if let Some((_, table)) = &results.benchmark {
        writeln!(out, "\nNumenta Anomaly Benchmark\n{table}")?;
    }
    writeln!(out, "\nDemands (took {:.0} s)", results.took.as_secs_f64())?;
    for demand in demands {
        let met = match demand.met {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "-",
        };
        writeln!(out, "{met:<5} {}: {}", demand.what, demand.found)?;
    }
    Ok(())
}

/// False alarms: by what they are put down to, and the first of them.
fn entries(
    out: &mut String,
    service: &str,
    what: &str,
    entries: &[Entry],
    name: impl Fn(f64) -> String,
) -> std::fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let names: Vec<&str> = entry.oddities.iter().map(|oddity| oddity.name()).collect();
        let names = if names.is_empty() {
            "nothing odd".to_owned()
        } else {
            names.join("+")
        };
        *causes
            .entry(format!("{} during {names}", entry.verdict))
            .or_insert(0) += 1;
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    writeln!(out, "\n{service}: {} {what}", entries.len())?;
    for (cause, count) in causes.iter().take(MOST) {
        writeln!(out, "  {count:>5} {cause}")?;
    }
    for entry in entries.iter().take(MOST) {
        let names: Vec<&str> = entry.oddities.iter().map(|oddity| oddity.name()).collect();
        writeln!(
            out,
            "  {} {} [{}] {}",
            name(entry.at),
            entry.verdict,
            names.join("+"),
            entry.why.line()
        )?;
    }
    Ok(())
}

/// What comes nearest to an alarm, by what goes on: 1 is one.
fn highest_text(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        out,
        "\nHighest scores of normal traffic (volume/composition), by what went on"
    )?;
    write!(out, "{:<14}", "")?;
    for service in &results.services {
        write!(out, " {:>12}", service.weeks.plan.name)?;
    }
    writeln!(out)?;
    let mut names: Vec<&str> = results
        .services
        .iter()
        .flat_map(|service| service.weeks.highest.keys().copied())
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        write!(out, "{name:<14}")?;
        for service in &results.services {
            let cell = service
                .weeks
                .highest
                .get(name)
                .map_or_else(String::new, |(volume, composition)| {
                    format!("{volume:.2}/{composition:.2}")
                });
            write!(out, " {cell:>12}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What steps hit, against what was stated.
fn steps_text(out: &mut String, results: &Results) -> std::fmt::Result {
    let groups = alike(results.services.iter().flat_map(|service| &service.steps));
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nSteps against attacks: the largest share of normal sources that was stated, and that was hit"
    )?;
    writeln!(
        out,
        "{:<28} {:>8} {:>6} {:>9} {:>9} {:>9} {:>9}  withheld",
        "step", "attacks", "taken", "exceeded", "stated", "minute", "ten min"
    )?;
    for (what, group) in &groups {
        let withheld: Vec<String> = group
            .withheld
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        writeln!(
            out,
            "{what:<28} {:>8} {:>6} {:>9} {:>8.2}% {:>8.2}% {:>8.2}%  {}",
            group.thought_of,
            group.taken,
            group.exceeded,
            group.stated * 100.0,
            group.minute * 100.0,
            group.whole * 100.0,
            withheld.join(", ")
        )?;
    }
    let all = results.services.iter().flat_map(|service| &service.steps);
    let exceeded =
        all.filter(|step| matches!(step.came, Came::Taken { stated, minute, .. } if minute > stated));
    for step in exceeded.take(MOST) {
        writeln!(
            out,
            "  {} {} {}: {:?}",
            step.service, step.moment, step.attack, step.came
        )?;
    }
    Ok(())
}

fn attacks_text(out: &mut String, results: &Results) -> std::fmt::Result {
    let all = || results.services.iter().flat_map(|service| &service.attacks);
    if all().next().is_some() {
        writeln!(
            out,
            "\nAttacks, by form and strength (times the traffic they are put into)"
        )?;
        writeln!(out, "{:<22} {:>8}  {HEAD}", "form", "strength")?;
        for ((_, name, _), trials) in groups(all(), |trial| (trial.kind, trial.name.clone(), strength(trial)))
        {
            writeln!(
                out,
                "{name:<22} {:>8.2}  {}",
                trials[0].strength,
                Line::of(&trials).cells()
            )?;
        }
        writeln!(out, "\nAttacks of 1x and more, by service and moment")?;
        writeln!(out, "{:<22} {:>8}  {HEAD}", "service", "moment")?;
        let strong = all().filter(|trial| trial.strength >= 1.0);
        for ((service, moment), trials) in groups(strong, |trial| (trial.service, trial.moment)) {
            writeln!(out, "{service:<22} {moment:>8}  {}", Line::of(&trials).cells())?;
        }
        writeln!(out, "\nWhat was said at the end of attacks of 1x and more")?;
        let strong: Vec<Trial> = all().filter(|trial| trial.strength >= 1.0).cloned().collect();
        let counts = confusion(&strong);
        let mut columns: Vec<&String> = counts.keys().map(|(_, said)| said).collect();
        columns.sort();
        columns.dedup();
        write!(out, "{:<14}", "")?;
        for column in &columns {
            write!(out, " {column:>12}")?;
        }
        writeln!(out)?;
        for kind in Kind::ALL {
            write!(out, "{:<14}", kind.name())?;
            for column in &columns {
                write!(
                    out,
                    " {:>12}",
                    counts.get(&(kind, (*column).clone())).copied().unwrap_or(0)
                )?;
            }
            writeln!(out)?;
        }
        misses(
            out,
            "Attacks of 1x and more that were not called by their kind within 3 s",
            all(),
            3.0,
        )?;
    }
    let cold = || results.services.iter().flat_map(|service| &service.cold);
    if cold().next().is_some() {
        writeln!(out, "\nFrom the first seconds on, nothing learned")?;
        writeln!(out, "{:<22} {:>8}  {HEAD}", "form", "strength")?;
        for ((_, name, _), trials) in
            groups(cold(), |trial| (trial.kind, trial.name.clone(), strength(trial)))
        {
            writeln!(
                out,
                "{name:<22} {:>8.2}  {}",
                trials[0].strength,
                Line::of(&trials).cells()
            )?;
        }
    }
    Ok(())
}

/// The trials that are too late, first those that are strongest.
fn misses<'a>(
    out: &mut String,
    title: &str,
    trials: impl Iterator<Item = &'a Trial>,
    within: f64,
) -> std::fmt::Result {
    let mut late: Vec<&Trial> = trials
        .filter(|trial| trial.strength >= 1.0 && trial.right.is_none_or(|delay| delay > within))
        .collect();
    if late.is_empty() {
        return Ok(());
    }
    late.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    writeln!(out, "\n{title}: {}", late.len())?;
    for trial in late.iter().take(3 * MOST) {
        writeln!(
            out,
            "  {} {}x ({:.0}/s) on {} ({}): {}, at end {}: {}",
            trial.name,
            trial.strength,
            trial.rate,
            trial.service,
            trial.moment,
            trial.right.map_or_else(
                || "never by its kind".to_owned(),
                |delay| format!("after {delay:.1} s")
            ),
            trial.last,
            trial.why.line()
        )?;
    }
    Ok(())
}

fn captures_text(out: &mut String, results: &Results) -> std::fmt::Result {
    if results.captures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nCaptures")?;
    for captured in &results.captures {
        writeln!(
            out,
            "{}: {}, {} frames in {:.3} s, {} others left out",
            captured.name,
            captured.kind.name(),
            captured.frames.len(),
            captured.seconds,
            captured.others
        )?;
    }
    let all = || results.services.iter().flat_map(|service| &service.captures);
    writeln!(out, "{:<32} {:>8} {:>8}  {HEAD}", "capture", "moment", "strength")?;
    for ((name, crowd, _), trials) in groups(all(), |trial| {
        (trial.name.clone(), trial.moment == "crowd", strength(trial))
    }) {
        let moment = if crowd { "crowd" } else { "normal" };
        writeln!(
            out,
            "{name:<32} {moment:>8} {:>8.2}  {}",
            trials[0].strength,
            Line::of(&trials).cells()
        )?;
    }
    misses(
        out,
        "Captures that were not called by their kind within 1 s",
        all(),
        1.0 + 1e-6,
    )
}

fn crowds_text(out: &mut String, results: &Results) -> std::fmt::Result {
    let all: Vec<&Modelled> = results
        .services
        .iter()
        .flat_map(|service| &service.crowds)
        .collect();
    if !all.is_empty() {
        writeln!(out, "\nCrowds modelled")?;
        let mut by: BTreeMap<(&str, &str), Vec<&Modelled>> = BTreeMap::new();
        for crowd in &all {
            by.entry((crowd.service, crowd.moment)).or_default().push(crowd);
        }
        writeln!(
            out,
            "{:<12} {:>8} {:>7} {:>7} {:>9} {:>9} {:>8} {:>8}",
            "service", "moment", "crowds", "called", "median s", "max s", "attacks", "stealth"
        )?;
        for ((service, moment), crowds) in by {
            let mut delays: Vec<f64> = crowds.iter().filter_map(|crowd| crowd.called_after).collect();
            delays.sort_by(f64::total_cmp);
            let seconds =
                |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
            writeln!(
                out,
                "{service:<12} {moment:>8} {:>7} {:>7} {:>9} {:>9} {:>8} {:>8}",
                crowds.len(),
                delays.len(),
                seconds(delays.get(delays.len() / 2)),
                seconds(delays.last()),
                crowds.iter().map(|crowd| crowd.attacks.len()).sum::<usize>(),
                crowds.iter().map(|crowd| crowd.stealths.len()).sum::<usize>()
            )?;
        }
        for crowd in all.iter().filter(|crowd| !crowd.attacks.is_empty()).take(MOST) {
            let entry = &crowd.attacks[0];
            writeln!(
                out,
                "  {} ({}), {}: {} {}",
                crowd.service,
                crowd.moment,
                crowd.shape,
                entry.verdict,
                entry.why.line()
            )?;
        }
        for crowd in all.iter().filter(|crowd| crowd.called_after.is_none()).take(MOST) {
            writeln!(
                out,
                "  {} ({}), {}: not called a crowd; {}",
                crowd.service,
                crowd.moment,
                crowd.shape,
                crowd.why.line()
            )?;
        }
    }
    if let Some(recorded) = &results.recorded {
        writeln!(
            out,
            "\nWorld Cup 98: {} minutes, {} with an attack, {} with stealth; seconds: {} quiet, {} crowd, {} learning",
            recorded.minutes,
            recorded.attack_minutes,
            recorded.stealth_minutes,
            recorded.said.quiet,
            recorded.said.crowd,
            recorded.said.learning
        )?;
        for rise in &recorded.rises {
            writeln!(
                out,
                "  rise at {}, {:.1} times, {} minutes: {}; {}",
                rise.begins,
                rise.factor,
                rise.minutes + 1,
                rise.called_after.map_or_else(
                    || "not called a crowd".to_owned(),
                    |after| format!("called a crowd after {after} minutes")
                ),
                rise.why.line()
            )?;
        }
        for (sort, found) in [("attack", &recorded.attacks), ("stealth", &recorded.stealths)] {
            for (at, entry) in found.iter().take(MOST) {
                writeln!(out, "  {sort} at {at}: {} {}", entry.verdict, entry.why.line())?;
            }
        }
    }
    Ok(())
}
