//! What is demanded of the detectors, and whether it is met.

use gateway_detect::{Kind, Verdict};

use crate::{
    report::Results,
    run::{
        injected::Trial,
        steps::{Came, Step},
    },
};

/// Within so many seconds an attack in a capture is to be called by its kind,
const CAPTURE_WITHIN: f64 = 3.0;
/// a SYN or reflection flood within so many.
const FLOOD_WITHIN: f64 = 1.0;
/// Attacks of captures with fewer packets a second than this are in the table but not among the demands: in a service that has
/// next to nothing at night, times its volume is a packet now and then.
const ATTACK_LEAST: f64 = 100.0;
/// Over so many weeks false alarms are counted.
const WEEKS: f64 = 8.0;
/// The benchmark's score that is to be reached.
const BENCHMARK: f64 = 60.0;
/// Of ten thousand services at one look a second, under a tenth of a core: seconds a look.
const LOOK: f64 = 10e-6;

/// A demand.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// What is demanded.
    pub(crate) what: &'static str,
    /// What was measured.
    pub(crate) found: String,
    /// Whether it is met; nothing where it was not measured, or not as much as is demanded.
    pub(crate) met: Option<bool>,
}

/// Within how many seconds a kind is to be called.
fn within(kind: Kind) -> f64 {
    match kind {
        Kind::SynFlood | Kind::Reflection => FLOOD_WITHIN,
        _ => CAPTURE_WITHIN,
    }
}

fn missed(trials: &[&Trial]) -> usize {
    trials
        .iter()
        .filter(|trial| trial.right.is_none_or(|delay| delay > within(trial.kind) + 1e-6))
        .count()
}

impl Demand {
    fn new(what: &'static str, found: String, met: Option<bool>) -> Self {
        Self { what, found, met }
    }

    /// One for which something is missing.
    fn unmeasured(what: &'static str, missing: &str) -> Self {
        Self::new(what, format!("not measured{missing}"), None)
    }
}

/// Judges the results.
pub(crate) fn judge(results: &Results) -> Vec<Demand> {
    let mut demands = recorded(results);
    demands.extend(modelled(results));
    demands.extend(captures(results));
    demands.push(false_attacks(results));
    demands.push(steps(results));
    let what = "Numenta benchmark, standard profile: at least 60";
    demands.push(match &results.benchmark {
        Some((score, _)) => Demand::new(what, format!("{score:.1}"), Some(*score >= BENCHMARK)),
        None => Demand::unmeasured(what, " (--traffic DIR)"),
    });
    demands.push(cost(results));
    let trials = || results.services.iter().flat_map(|service| &service.attacks);
    let (early, total) = (trials().filter(|trial| trial.early).count(), trials().count());
    demands.push(Demand::new(
        "no attack is called in the seconds before one",
        format!("{early} of {total}"),
        (total > 0).then_some(early == 0),
    ));
    demands
}

/// The World Cup's series.
fn recorded(results: &Results) -> Vec<Demand> {
    let (attacks, rises) = (
        "World Cup 98: no minute is called an attack",
        "World Cup 98: rises are called a crowd",
    );
    let Some(recorded) = &results.recorded else {
        let missing = " (--traffic DIR)";
        return vec![
            Demand::unmeasured(attacks, missing),
            Demand::unmeasured(rises, missing),
        ];
    };
    let found = format!("{} of {} minutes", recorded.attack_minutes, recorded.minutes);
    let called = recorded
        .rises
        .iter()
        .filter(|rise| rise.called_after.is_some())
        .count();
    let all = recorded.rises.len();
    vec![
        Demand::new(attacks, found, Some(recorded.attack_minutes == 0)),
        Demand::new(
            rises,
            format!("{called} of {all} rises"),
            (all > 0).then_some(called == all),
        ),
    ]
}

/// Crowds of the model.
fn modelled(results: &Results) -> [Demand; 2] {
    let crowds = || results.services.iter().flat_map(|service| &service.crowds);
    let all = crowds().count();
    let called = crowds().filter(|crowd| crowd.called_after.is_some()).count();
    let attacked = crowds().filter(|crowd| !crowd.attacks.is_empty()).count();
    [
        Demand::new(
            "crowds modelled on it: no attack is called",
            format!("in {attacked} of {all} crowds"),
            (all > 0).then_some(attacked == 0),
        ),
        Demand::new(
            "crowds modelled on it: they are called a crowd",
            format!("{called} of {all}"),
            (all > 0).then_some(called == all),
        ),
    ]
}

/// Captures, in normal traffic and in crowds.
fn captures(results: &Results) -> impl Iterator<Item = Demand> {
    [
        (
            "captures at 1x and more, in normal traffic: the right kind within 3 s, floods within 1 s",
            false,
        ),
        (
            "captures at 1x and more, in a crowd: the right kind within 3 s, floods within 1 s",
            true,
        ),
    ]
    .into_iter()
    .map(|(what, crowd)| {
        let trials: Vec<&Trial> = results
            .services
            .iter()
            .flat_map(|service| &service.captures)
            .filter(|trial| (trial.moment == "crowd") == crowd)
            .collect();
        if trials.is_empty() {
            return Demand::unmeasured(what, " (--captures DIR)");
        }
        let (demanded, weak): (Vec<&Trial>, Vec<&Trial>) =
            trials.into_iter().partition(|trial| trial.rate >= ATTACK_LEAST);
        let late = missed(&demanded);
        let mut found = format!("{} of {}", demanded.len() - late, demanded.len());
        if !weak.is_empty() {
            let (met, all) = (weak.len() - missed(&weak), weak.len());
            found = format!("{found}; of those below {ATTACK_LEAST} packets a second {met} of {all}");
        }
        Demand::new(what, found, Some(late == 0))
    })
}

/// Alarms of normal traffic: those of the worst service.
fn false_attacks(results: &Results) -> Demand {
    let what = "at most one false attack a week and service, over eight weeks";
    let worst = results
        .services
        .iter()
        .map(|service| {
            let weeks = &service.weeks;
            (weeks.false_attacks.len() as f64 / weeks.lasted, weeks.plan.name)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((rate, name)) = worst else {
        return Demand::unmeasured(what, "");
    };
    Demand::new(
        what,
        format!("at most {rate:.2} a week ({name}), over {} weeks", results.weeks),
        (results.weeks >= WEEKS || rate > 1.0).then_some(rate <= 1.0),
    )
}

/// What automatic steps hit.
fn steps(results: &Results) -> Demand {
    let what = "no automatic step hits more than the stated share of the normal sources of a minute";
    let steps = || results.services.iter().flat_map(|service| &service.steps);
    let taken = steps()
        .filter(|step| matches!(step.came, Came::Taken { .. }))
        .count();
    let exceeded = |step: &&Step| matches!(step.came, Came::Taken { stated, minute, .. } if minute > stated);
    let exceeded = steps().filter(exceeded).count();
    if taken == 0 {
        return Demand::unmeasured(what, "");
    }
    let found = format!(
        "{exceeded} of {taken} steps, {} withheld",
        steps().count() - taken
    );
    Demand::new(what, found, Some(exceeded == 0))
}

/// What a look costs.
fn cost(results: &Results) -> Demand {
    let what = "ten thousand services at 1 Hz under a tenth of a core: 10 us a second and service";
    let sum = |of: fn(&crate::report::ServiceResults) -> f64| results.services.iter().map(of).sum::<f64>();
    let timed = sum(|service| service.weeks.timed as f64);
    if timed <= 0.0 {
        return Demand::unmeasured(what, "");
    }
    let look = sum(|service| service.weeks.detector_seconds) / timed;
    let found = format!(
        "{:.2} us, looks at tenths of a part of the seconds included",
        look * 1e6
    );
    Demand::new(what, found, Some(look <= LOOK))
}

/// Whether a trial was called by the right kind at its end.
pub(crate) fn rightly(trial: &Trial) -> bool {
    trial.last == Verdict::Attack(trial.kind)
        || trial.also.is_some_and(|kind| trial.last == Verdict::Attack(kind))
}
