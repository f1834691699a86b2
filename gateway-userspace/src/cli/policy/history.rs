//! `weir policy history`.

use std::fmt::Write as _;

use weir::{
    api::types::{HistoryAnswer, RevisionStatus},
    state::{By, Outcome},
};

use super::super::table::{Align, Table};

/// How much of a checksum tells two revisions apart at a glance.
const SHORT: usize = 12;

pub(super) fn text(answer: &HistoryAnswer) -> String {
    if answer.revisions.is_empty() {
        return "no revision is kept\n".to_owned();
    }
    let mut table = Table::new(&[
        ("REVISION", Align::Right),
        ("APPLIED", Align::Left),
        ("OUTCOME", Align::Left),
        ("SHA256", Align::Left),
        ("BY", Align::Left),
        ("FILE", Align::Left),
    ]);
    for held in &answer.revisions {
        table.row([
            held.revision.to_string(),
            format!("{:.0}", held.applied_at),
            outcome(held),
            held.sha256.chars().take(SHORT).collect(),
            held.by.as_ref().map_or_else(|| "weir itself".to_owned(), who),
            held.path.clone(),
        ]);
    }
    table.to_string()
}

fn outcome(held: &RevisionStatus) -> String {
    let word = match held.outcome {
        Outcome::Pending => "pending",
        Outcome::InForce => "in force",
        Outcome::Replaced => "replaced",
        Outcome::Reverted => "reverted",
        Outcome::RolledBack => "rolled back",
        Outcome::Failed => "failed",
    };
    match held.restores {
        None => word.to_owned(),
        Some(restores) => format!("{word} (as {restores})"),
    }
}

fn who(by: &By) -> String {
    let mut text = format!("uid {}", by.uid);
    if let Some(pid) = by.pid {
        let _ = write!(text, ", pid {pid}");
    }
    if let Some(command) = &by.command {
        let _ = write!(text, ": {command}");
    }
    text
}

#[cfg(test)]
mod tests {
    use weir::api::types::SCHEMA;

    use super::*;

    #[test]
    fn revisions_are_a_table() {
        let revision = RevisionStatus {
            revision: 7,
            sha256: "0123456789abcdef".into(),
            path: "/etc/weir/policy.toml".into(),
            applied_at: "2026-11-27T09:00:00Z".parse().unwrap(),
            by: Some(By {
                uid: 0,
                pid: Some(42),
                command: Some("weir policy rollback".into()),
            }),
            outcome: Outcome::InForce,
            restores: Some(3),
            confirmed_at: None,
            ended_at: None,
            why: None,
            text_kept: true,
        };
        let mut answer = HistoryAnswer {
            schema: SCHEMA,
            revisions: vec![revision],
        };
        let shown = text(&answer);
        for expected in [
            "2026-11-27T09:00:00Z",
            "in force (as 3)",
            "0123456789ab ",
            "uid 0, pid 42: weir policy rollback",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        answer.revisions[0].by = None;
        assert!(text(&answer).contains("weir itself"));
        answer.revisions.clear();
        assert_eq!(text(&answer), "no revision is kept\n");
    }
}
