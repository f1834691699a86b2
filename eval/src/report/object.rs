//! The same as JSON.

use gateway_detect::Kind;
use serde_json::{Value, json};

use super::{
    Results,
    line::{Line, groups, strength},
};
use crate::{
    demands::Demand,
    run::{
        injected::{Trial, confusion},
        steps::alike,
        watch::Entry,
    },
};

fn entry_json(entry: &Entry) -> Value {
    json!({
        "at": entry.at,
        "verdict": entry.verdict.name(),
        "kind": entry.verdict.kind().map(Kind::name),
        "oddities": entry.oddities.iter().map(|oddity| oddity.name()).collect::<Vec<_>>(),
        "why": entry.why.json(),
    })
}

fn trial_json(trial: &Trial) -> Value {
    json!({
        "name": trial.name,
        "kind": trial.kind.name(),
        "service": trial.service,
        "moment": trial.moment,
        "strength": trial.strength,
        "packets_per_second": trial.rate,
        "attack_after_seconds": trial.any,
        "right_kind_after_seconds": trial.right,
        "at_end": trial.last.name(),
        "at_end_kind": trial.last.kind().map(Kind::name),
        "over_after_seconds": trial.over,
        "called_before": trial.early,
        "why": trial.why.json(),
    })
}

/// The same as one object.
pub(crate) fn json(results: &Results, demands: &[Demand]) -> Value {
    let all = || results.services.iter().flat_map(|service| &service.attacks);
    let forms: Vec<Value> = groups(all(), |trial| (trial.name.clone(), strength(trial)))
        .into_iter()
        .map(|((name, _), trials)| {
            let mut line = Line::of(&trials).json();
            line["name"] = json!(name);
            line["kind"] = json!(trials[0].kind.name());
            line["strength"] = json!(trials[0].strength);
            line
        })
        .collect();
    let strong: Vec<Trial> = all().filter(|trial| trial.strength >= 1.0).cloned().collect();
    json!({
        "schema": 1,
        "seed": results.seed,
        "weeks": results.weeks,
        "quick": results.quick,
        "one_in": results.one_in,
        "took_seconds": results.took.as_secs_f64(),
        "services": results.services.iter().map(|service| {
            let weeks = &service.weeks;
            json!({
                "service": weeks.plan.name,
                "weeks": weeks.lasted,
                "learned_after_seconds": weeks.learned_after,
                "seconds": weeks.said.json(),
                "seconds_in_tenths": weeks.in_tenths,
                "crowds": weeks.crowds,
                "false_attacks": weeks.false_attacks.iter().map(entry_json).collect::<Vec<_>>(),
                "stealths": weeks.stealths.iter().map(entry_json).collect::<Vec<_>>(),
                "highest_scores": weeks.highest.iter().map(|(name, (volume, composition))| json!({
                    "oddity": name, "volume": volume, "composition": composition,
                })).collect::<Vec<_>>(),
                "look_seconds": weeks.detector_seconds / weeks.timed.max(1) as f64,
                "steps": alike(service.steps.iter()).iter().map(|(what, group)| json!({
                    "step": what,
                    "attacks": group.thought_of,
                    "taken": group.taken,
                    "exceeded": group.exceeded,
                    "stated_share": group.stated,
                    "minute_share": group.minute,
                    "step_share": group.whole,
                    "withheld": group.withheld,
                })).collect::<Vec<_>>(),
                "modelled_crowds": service.crowds.iter().map(|crowd| json!({
                    "moment": crowd.moment,
                    "shape": crowd.shape,
                    "called_after_seconds": crowd.called_after,
                    "seconds": crowd.said.json(),
                    "attacks": crowd.attacks.iter().map(entry_json).collect::<Vec<_>>(),
                    "stealths": crowd.stealths.iter().map(entry_json).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
                "cold": service.cold.iter().map(trial_json).collect::<Vec<_>>(),
                "captures": service.captures.iter().map(trial_json).collect::<Vec<_>>(),
                "attacks": service.attacks.iter().map(trial_json).collect::<Vec<_>>(),
            })
        }).collect::<Vec<_>>(),
        "attacks": forms,
        "confusion": confusion(&strong).into_iter().map(|((kind, said), count)| json!({
            "kind": kind.name(), "said": said, "count": count,
        })).collect::<Vec<_>>(),
        "world_cup": results.recorded.as_ref().map(|recorded| json!({
            "minutes": recorded.minutes,
            "attack_minutes": recorded.attack_minutes,
            "stealth_minutes": recorded.stealth_minutes,
            "seconds": recorded.said.json(),
            "rises": recorded.rises.iter().map(|rise| json!({
                "begins": rise.begins,
                "factor": rise.factor,
                "minutes": rise.minutes + 1,
                "called_after_minutes": rise.called_after,
                "why": rise.why.json(),
            })).collect::<Vec<_>>(),
        })),
        "nab": results.benchmark.as_ref().map(|(score, _)| score),
        "demands": demands.iter().map(|demand| json!({
            "demand": demand.what, "found": demand.found, "met": demand.met,
        })).collect::<Vec<_>>(),
    })
}
