//! What Weir does by itself about attacks: as `weir status` shows it, and `weir anomalies undo`.

use std::{fmt::Write as _, process::ExitCode};

use weir::{
    action::percent,
    api::actions::{ActionState, ActionStatus, ActionsUndone, UndoRequest},
    policy::model::AttackAction,
};

use super::{
    Context,
    output::Failure,
    table::{Align, Table, counted, span},
};

/// `weir anomalies undo [SERVICE]`.
pub(crate) fn undo(service: Option<&str>, context: &Context) -> Result<ExitCode, Failure> {
    let request = UndoRequest {
        service: service.map(str::to_owned),
    };
    let answer: ActionsUndone = context.client().post("/v1/anomalies/undo", &request)?;
    context.show(&answer, undone_text)?;
    Ok(ExitCode::SUCCESS)
}

fn undone_text(answer: &ActionsUndone) -> String {
    answer.undone.iter().fold(String::new(), |mut text, action| {
        let service = &action.service;
        let what = match action.state {
            ActionState::InForce => format!("{} taken back", title(action)),
            _ => "nothing was in force".to_owned(),
        };
        let _ = writeln!(
            text,
            "{service}: {what}; nothing more is done until this attack ({}) has ended",
            action.kind
        );
        text
    })
}

/// The steps as a table, and why there is none where there could be one.
pub(crate) fn actions_text(actions: &[ActionStatus]) -> String {
    let mut table = Table::new(&[
        ("ACTION", Align::Left),
        ("SERVICE", Align::Left),
        ("ATTACK", Align::Left),
        ("HITS AT MOST", Align::Right),
        ("LEFT", Align::Right),
    ]);
    let mut notes = String::new();
    for action in actions {
        let share = action.share.map_or_else(|| "-".to_owned(), percent);
        let left = action.seconds_left.map_or_else(|| "-".to_owned(), span);
        table.row([
            title(action),
            action.service.clone(),
            action.kind.clone(),
            share,
            left,
        ]);
        let service = &action.service;
        let note = match (action.state, &action.why) {
            (ActionState::Withheld, Some(why)) => format!("{service}: nothing is done: {why}"),
            (ActionState::Withheld, None) => continue,
            (ActionState::Undone, _) => {
                format!("{service}: it was undone: nothing is done until the attack has ended")
            }
            (ActionState::InForce, _) => {
                format!("{service}: by weir itself; `weir anomalies undo {service}` takes it back")
            }
        };
        let _ = writeln!(notes, "{note}");
    }
    format!("{table}{notes}")
}

fn title(action: &ActionStatus) -> String {
    match (action.state, action.action) {
        (ActionState::InForce, AttackAction::Tighten) => {
            format!("limits at {}%", action.percent.unwrap_or_default())
        }
        (ActionState::InForce, _) => {
            let bans = action.bans.as_ref().map_or(0, Vec::len);
            counted(bans as u64, "ban", "bans")
        }
        (ActionState::Undone, _) => "undone".to_owned(),
        (ActionState::Withheld, AttackAction::Tighten) => "no tightening".to_owned(),
        (ActionState::Withheld, _) => "no ban".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(state: ActionState) -> ActionStatus {
        let in_force = state == ActionState::InForce;
        ActionStatus {
            service: "shop".into(),
            kind: "few_sources".into(),
            attack_since: "2026-11-27T08:59:00Z".parse().unwrap(),
            action: AttackAction::Tighten,
            state,
            percent: in_force.then_some(40),
            bans: None,
            share: in_force.then_some(0.0042),
            since: None,
            until: None,
            seconds_left: in_force.then_some(540),
            why: Some("too little is known of normal traffic".into()),
        }
    }

    #[test]
    fn steps_are_shown_with_what_they_hit_and_the_way_back() {
        let bans = ActionStatus {
            service: "api".into(),
            action: AttackAction::Ban,
            percent: None,
            bans: Some(vec![
                "192.0.2.1/32".parse().unwrap(),
                "192.0.2.2/32".parse().unwrap(),
            ]),
            ..action(ActionState::InForce)
        };
        let expected = "\
ACTION         SERVICE  ATTACK       HITS AT MOST   LEFT
limits at 40%  shop     few_sources        0.42 %  9 min
2 bans         api      few_sources        0.42 %  9 min
no tightening  shop     few_sources             -      -
undone         shop     few_sources             -      -
shop: by weir itself; `weir anomalies undo shop` takes it back
api: by weir itself; `weir anomalies undo api` takes it back
shop: nothing is done: too little is known of normal traffic
shop: it was undone: nothing is done until the attack has ended
";
        let actions = [
            action(ActionState::InForce),
            bans,
            action(ActionState::Withheld),
            action(ActionState::Undone),
        ];
        assert_eq!(actions_text(&actions), expected);
    }

    #[test]
    fn what_was_undone_is_said() {
        let answer = ActionsUndone {
            schema: 1,
            undone: vec![action(ActionState::InForce), action(ActionState::Withheld)],
        };
        let text = undone_text(&answer);
        assert!(
            text.starts_with("shop: limits at 40% taken back; nothing more is done until this attack (few_sources) has ended\n")
                && text.contains("shop: nothing was in force;"),
            "{text}"
        );
    }
}
