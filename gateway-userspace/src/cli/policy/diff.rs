//! `weir policy diff`: what a file would change against the policy in force.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use ipnet::IpNet;
use serde::Serialize;
use weir::{
    api::types::{ListAnswer, ListOrigin, PolicyAnswer, SCHEMA, code},
    policy::{
        self,
        diff::{Change, Diff, Difference},
    },
};

use super::{
    super::{Context, output::Failure},
    check::{Checked, check},
};

/// What a file would change.
#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    same: bool,
    /// The policy in force.
    revision: u64,
    sha256: String,
    /// The file.
    path: String,
    path_sha256: String,
    #[serde(flatten)]
    diff: Diff,
}

pub(super) fn run(file: &Path, context: &Context) -> Result<(), Failure> {
    let Checked { loaded, contents, .. } = check(file)?;
    let client = context.client();
    let held: PolicyAnswer = client.get("/v1/policy")?;
    let in_force = policy::parse(&held.text, Path::new(&held.policy.path)).map_err(|errors| {
        Failure::new(
            code::INTERNAL,
            format!("this weir cannot read the policy in force: {errors}"),
        )
        .hint("use the weir of the controller's version")
    })?;
    let mut diff = policy::diff::diff(&in_force.policy, &loaded.policy);
    for list in &in_force.policy.lists {
        if let Some(next) = contents.get(&list.name) {
            let answer: ListAnswer = client.get(&format!("/v1/lists/{}", list.name))?;
            content(&mut diff, &answer, next);
        }
    }
    let answer = Answer {
        schema: SCHEMA,
        same: diff.differences.is_empty(),
        revision: held.policy.revision,
        sha256: held.policy.sha256,
        path: file.display().to_string(),
        path_sha256: loaded.sha256,
        diff,
    };
    context.show(&answer, text)
}

/// What changes in what a list holds, its files included; what was fed to it live stays in any case.
fn content(diff: &mut Diff, held: &ListAnswer, next: &[IpNet]) {
    let list = &held.list;
    if list.source == ListOrigin::Live || list.revision > 0 {
        diff.warnings.push(format!(
            "lists.{}: its live changes stay; `weir list show {}` prints what it holds",
            list.list, list.list
        ));
        return;
    }
    let (before, after): (BTreeSet<&IpNet>, BTreeSet<&IpNet>) =
        (held.prefixes.iter().collect(), next.iter().collect());
    let (added, removed) = (
        after.difference(&before).count(),
        before.difference(&after).count(),
    );
    if added + removed > 0 {
        diff.differences.push(Difference {
            at: format!("lists.{}", list.list),
            key: "content".into(),
            change: Change::Changed,
            before: Some(format!("{} prefixes", before.len())),
            after: Some(format!(
                "{} prefixes ({added} added, {removed} removed)",
                after.len()
            )),
        });
    }
}

fn text(answer: &Answer) -> String {
    let mut text = if answer.same {
        format!(
            "no differences: {} means what is in force as revision {}\n",
            answer.path, answer.revision
        )
    } else {
        format!(
            "revision {} (in force) against {}:\n",
            answer.revision, answer.path
        )
    };
    for one in &answer.diff.differences {
        let name = match (one.at.as_str(), one.key.as_str()) {
            ("", key) => key.to_owned(),
            (at, "") => at.to_owned(),
            (at, key) => format!("{at}.{key}"),
        };
        let _ = match (&one.before, &one.after) {
            (Some(before), Some(after)) => writeln!(text, "~ {name}: {before} -> {after}"),
            (None, Some(after)) => writeln!(text, "+ {name}: {after}"),
            (Some(before), None) => writeln!(text, "- {name}: {before}"),
            (None, None) => Ok(()),
        };
    }
    for warning in &answer.diff.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(differences: Vec<Difference>) -> Answer {
        Answer {
            schema: SCHEMA,
            same: differences.is_empty(),
            revision: 3,
            sha256: "a".into(),
            path: "new.toml".into(),
            path_sha256: "b".into(),
            diff: Diff {
                differences,
                warnings: vec!["mind the gap".into()],
            },
        }
    }

    #[test]
    fn differences_are_lines() {
        let one = |at: &str, key: &str, before: Option<&str>, after: Option<&str>| Difference {
            at: at.into(),
            key: key.into(),
            change: Change::Changed,
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let shown = text(&answer(vec![
            one("", "mode", Some("enforce"), Some("monitor")),
            one("service.web", "ports", Some("[80]"), None),
            one("service.dns", "", None, Some("protocol = [udp]")),
        ]));
        assert_eq!(
            shown,
            "revision 3 (in force) against new.toml:\n\
             ~ mode: enforce -> monitor\n\
             - service.web.ports: [80]\n\
             + service.dns: protocol = [udp]\n\
             warning: mind the gap\n"
        );
        let same = text(&answer(Vec::new()));
        assert!(
            same.starts_with("no differences: new.toml means what is in force as revision 3\n"),
            "{same}"
        );
    }

    #[test]
    fn json_has_everything_on_one_level() {
        let json = serde_json::to_value(answer(Vec::new())).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "schema": 1, "same": true, "revision": 3, "sha256": "a", "path": "new.toml", "path_sha256": "b",
                "differences": [], "warnings": ["mind the gap"],
            })
        );
    }
}
