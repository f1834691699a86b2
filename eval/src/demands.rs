//! What is demanded of the detectors, and whether it is met.

use gateway_detect::{Kind, Verdict};

use crate::{report::Results, run::injected::Trial};

/// Within so many seconds an attack in a capture is to be called by its kind,
const CAPTURE_WITHIN: f64 = 3.0;
/// a SYN or reflection flood within so many.
const FLOOD_WITHIN: f64 = 1.0;
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

/// Judges the results.
pub(crate) fn judge(results: &Results) -> Vec<Demand> {
    let mut demands = Vec::new();
    demands.push(match &results.recorded {
        None => Demand {
            what: "World Cup 98: no minute is called an attack",
            found: "not measured (--traffic DIR)".to_owned(),
            met: None,
        },
        Some(recorded) => Demand {
            what: "World Cup 98: no minute is called an attack",
            found: format!("{} of {} minutes", recorded.attack_minutes, recorded.minutes),
            met: Some(recorded.attack_minutes == 0),
        },
    });
    demands.push(match &results.recorded {
        Some(recorded) if !recorded.rises.is_empty() => {
            let called = recorded
                .rises
                .iter()
                .filter(|rise| rise.called_after.is_some())
                .count();
            Demand {
                what: "World Cup 98: rises are called a crowd",
                found: format!("{called} of {} rises", recorded.rises.len()),
                met: Some(called == recorded.rises.len()),
            }
        }
        _ => Demand {
            what: "World Cup 98: rises are called a crowd",
            found: "not measured".to_owned(),
            met: None,
        },
    });
    let crowds: Vec<_> = results
        .services
        .iter()
        .flat_map(|service| &service.crowds)
        .collect();
    let called = crowds.iter().filter(|crowd| crowd.called_after.is_some()).count();
    let attacked = crowds.iter().filter(|crowd| !crowd.attacks.is_empty()).count();
    demands.push(Demand {
        what: "crowds modelled on it: no attack is called",
        found: format!("in {attacked} of {} crowds", crowds.len()),
        met: (!crowds.is_empty()).then_some(attacked == 0),
    });
    demands.push(Demand {
        what: "crowds modelled on it: they are called a crowd",
        found: format!("{called} of {}", crowds.len()),
        met: (!crowds.is_empty()).then_some(called == crowds.len()),
    });
    for (what, crowd) in [
        (
            "captures at 1x and more, in normal traffic: the right kind within 3 s, floods within 1 s",
            false,
        ),
        (
            "captures at 1x and more, in a crowd: the right kind within 3 s, floods within 1 s",
            true,
        ),
    ] {
        let trials: Vec<&Trial> = results
            .services
            .iter()
            .flat_map(|service| &service.captures)
            .filter(|trial| (trial.moment == "crowd") == crowd)
            .collect();
        let missed = missed(&trials);
        demands.push(Demand {
            what,
            found: if trials.is_empty() {
                "not measured (--captures DIR)".to_owned()
            } else {
                format!("{} of {}", trials.len() - missed, trials.len())
            },
            met: (!trials.is_empty()).then_some(missed == 0),
        });
    }
    let worst = results
        .services
        .iter()
        .map(|service| {
            let weeks = &service.weeks;
            (weeks.false_attacks.len() as f64 / weeks.weeks, weeks.plan.name)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    demands.push(match worst {
        None => Demand {
            what: "at most one false attack a week and service, over eight weeks",
            found: "not measured".to_owned(),
            met: None,
        },
        Some((rate, name)) => Demand {
            what: "at most one false attack a week and service, over eight weeks",
            found: format!("at most {rate:.2} a week ({name}), over {} weeks", results.weeks),
            met: (results.weeks >= WEEKS || rate > 1.0).then_some(rate <= 1.0),
        },
    });
    demands.push(match &results.benchmark {
        Some(Ok(score)) => Demand {
            what: "Numenta benchmark, standard profile: at least 60",
            found: format!("{score:.1}"),
            met: Some(*score >= BENCHMARK),
        },
        Some(Err(error)) => Demand {
            what: "Numenta benchmark, standard profile: at least 60",
            found: error.clone(),
            met: Some(false),
        },
        None => Demand {
            what: "Numenta benchmark, standard profile: at least 60",
            found: "not measured (--traffic DIR)".to_owned(),
            met: None,
        },
    });
    let looks: u64 = results.services.iter().map(|service| service.weeks.looks).sum();
    let spent: f64 = results
        .services
        .iter()
        .map(|service| service.weeks.detector_seconds)
        .sum();
    let look = spent / looks.max(1) as f64;
    demands.push(Demand {
        what: "ten thousand services at 1 Hz under a tenth of a core: 10 us a second and service",
        found: format!(
            "{:.2} us, looks at tenths of a part of the seconds included",
            look * 1e6
        ),
        met: (looks > 0).then_some(look <= LOOK),
    });
    let trials = results.services.iter().flat_map(|service| &service.attacks);
    let early = trials.clone().filter(|trial| trial.early).count();
    let total = trials.count();
    demands.push(Demand {
        what: "no attack is called in the seconds before one",
        found: format!("{early} of {total}"),
        met: (total > 0).then_some(early == 0),
    });
    demands
}

/// Whether a trial was called by the right kind at its end.
pub(crate) fn rightly(trial: &Trial) -> bool {
    trial.last == Verdict::Attack(trial.kind)
}
