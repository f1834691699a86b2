//! `weir policy check`: whether a policy is valid, and what it amounts to.

use std::{
    fmt::Write as _,
    path::{self, Path},
};

use serde::Serialize;
use weir::{
    api::types::SCHEMA,
    kernel::ListContents,
    policy::{
        self, Finding, Loaded,
        model::{Limits, Mode, Policy},
        sizing::{self, Sizing},
    },
};

use super::super::{
    output::Failure,
    table::{Align, Table, counted, grouped},
};

/// How many of the most demanding buckets a check names.
const NAMED_BUCKETS: usize = 3;

/// What a policy amounts to.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    schema: u32,
    ok: bool,
    path: String,
    sha256: String,
    mode: Mode,
    interfaces: Vec<String>,
    services: usize,
    classes: usize,
    buckets: usize,
    lists: Vec<ListSummary>,
    warnings: Vec<Finding>,
    pub(super) sizing: Sizing,
}

#[derive(Debug, Serialize)]
struct ListSummary {
    list: String,
    prefixes: usize,
}

/// A valid policy file.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) loaded: Loaded,
    /// What its lists hold.
    pub(super) contents: ListContents,
    pub(super) summary: Summary,
}

/// Reads and checks a policy with the lists it names.
pub(super) fn check(file: &Path) -> Result<Checked, Failure> {
    let mut loaded = policy::load(file).map_err(|errors| Failure::of_policy(&errors))?;
    let folder = path::absolute(file)
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .unwrap_or_default();
    let contents =
        policy::lists::contents(&loaded.policy, &folder).map_err(|errors| Failure::of_policy(&errors))?;
    let files = policy::files::check(&loaded.policy, &folder, false);
    loaded
        .warnings
        .extend(files.map_err(|errors| Failure::of_policy(&errors))?);
    let policy = &loaded.policy;
    let lists = policy.lists.iter().map(|list| ListSummary {
        list: list.name.clone(),
        prefixes: contents.get(&list.name).map_or(0, Vec::len),
    });
    let summary = Summary {
        schema: SCHEMA,
        ok: true,
        path: file.display().to_string(),
        sha256: loaded.sha256.clone(),
        mode: policy.mode,
        interfaces: policy.interfaces.clone(),
        services: policy.services.len(),
        classes: policy.services.iter().map(|service| service.classes.len()).sum(),
        buckets: buckets(policy),
        lists: lists.collect(),
        warnings: loaded.warnings.clone(),
        sizing: sizing::cells_in_debt(policy),
    };
    Ok(Checked {
        loaded,
        contents,
        summary,
    })
}

/// The buckets that the policy names, those of a source or a network counted once.
fn buckets(policy: &Policy) -> usize {
    let of = |limits: &Limits| {
        [limits.packets, limits.bytes, limits.connections]
            .iter()
            .flatten()
            .count()
    };
    let mut count = 0;
    for service in &policy.services {
        count += service.per_source.as_ref().map_or(0, |tier| of(&tier.limits));
        count += service.per_network.as_ref().map_or(0, |tier| of(&tier.limits));
        count += service.total.as_ref().map_or(0, |tier| of(&tier.limits));
        for class in &service.classes {
            count += class.per_source.as_ref().map_or(0, |tier| of(&tier.limits));
            count += class.per_network.as_ref().map_or(0, |tier| of(&tier.limits));
            count += class.total.as_ref().map_or(0, of);
        }
    }
    count
}

pub(super) fn table_too_small(sizing: &Sizing) -> String {
    format!(
        "source.max_tracked is {}; give it at least {}, or sources of a large flood share overflow buckets",
        grouped(sizing.max_tracked.into()),
        grouped(sizing.recommended)
    )
}

pub(super) fn summary_text(summary: &Summary) -> String {
    let mode = match summary.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor (drops nothing, counts what it would drop)",
    };
    let interfaces = if summary.interfaces.is_empty() {
        "none (weir run needs --interface)".to_owned()
    } else {
        summary.interfaces.join(", ")
    };
    let prefixes: usize = summary.lists.iter().map(|list| list.prefixes).sum();
    let sizing = &summary.sizing;
    let mut text = format!(
        "{}: valid\n\
         mode          {mode}\n\
         interfaces    {interfaces}\n\
         services      {}, with {} and {}\n\
         lists         {}, with {}\n\
         source table  at most {} cells in debt at {} packets/s; max_tracked is {}\n",
        summary.path,
        grouped(summary.services as u64),
        counted(summary.classes as u64, "class", "classes"),
        counted(summary.buckets as u64, "bucket", "buckets"),
        grouped(summary.lists.len() as u64),
        counted(prefixes as u64, "prefix", "prefixes"),
        grouped(sizing.cells),
        grouped(sizing.packets_per_second),
        grouped(sizing.max_tracked.into()),
    );
    if !summary.lists.is_empty() {
        let mut table = Table::new(&[("LIST", Align::Left), ("PREFIXES", Align::Right)]);
        for list in &summary.lists {
            table.row([list.list.clone(), grouped(list.prefixes as u64)]);
        }
        let _ = write!(text, "\n{table}");
    }
    if !sizing.is_enough() {
        let mut table = Table::new(&[
            ("SERVICE", Align::Left),
            ("CLASS", Align::Left),
            ("BUCKET", Align::Left),
            ("CELLS", Align::Right),
        ]);
        for bucket in sizing.buckets.iter().take(NAMED_BUCKETS) {
            let class = if bucket.class.is_empty() {
                "-"
            } else {
                &bucket.class
            };
            table.row([
                bucket.service.clone(),
                class.to_owned(),
                format!("{}.{}", bucket.tier, bucket.kind),
                grouped(bucket.cells),
            ]);
        }
        let _ = write!(
            text,
            "\nwarning: {}\nthe most demanding buckets:\n{table}",
            table_too_small(sizing)
        );
    }
    for warning in &summary.warnings {
        let _ = write!(text, "\nwarning: {warning}");
    }
    if !summary.warnings.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POLICY: &str = r#"
version = 1
interfaces = ["eth0"]

[lists.bad]
action = "drop"
prefixes = ["192.0.2.0/24"]
files = ["bad.txt"]

[[service]]
name = "web"
protocol = "tcp"
ports = [80, 443]
  [service.per_source]
  packets = { rate = 2000, burst = 4000 }
  connections = { rate = 20, burst = 40 }
  [service.total]
  packets = { rate = "500k", burst = "1M" }
"#;

    #[test]
    fn a_valid_policy_is_summed_up() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        fs::write(&file, POLICY).unwrap();
        fs::write(directory.path().join("bad.txt"), "198.51.100.0/24\n203.0.113.1\n").unwrap();
        let Checked { loaded, summary, .. } = check(&file).unwrap();
        assert_eq!(loaded.text, POLICY);
        assert_eq!((summary.services, summary.classes, summary.buckets), (1, 0, 3));
        assert_eq!(summary.lists[0].prefixes, 3);
        let text = summary_text(&summary);
        assert!(text.contains("policy.toml: valid\n"), "{text}");
        assert!(text.contains("1, with 0 classes and 3 buckets"), "{text}");
        assert!(text.contains("1, with 3 prefixes"), "{text}");
        assert!(
            text.contains("cells in debt at 1,488,095 packets/s; max_tracked is 1,000,000"),
            "{text}"
        );
    }

    #[test]
    fn every_error_is_shown_and_exits_2() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        fs::write(
            &file,
            POLICY
                .replace("rate = 2000", "rate = 0")
                .replace("[80, 443]", "[0]"),
        )
        .unwrap();
        let failure = check(&file).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let text = format!("{failure:?}");
        assert!(
            text.contains("per_source.packets.rate") && text.contains("ports"),
            "{text}"
        );
    }

    #[test]
    fn a_list_file_that_is_not_there_is_an_invalid_policy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        fs::write(&file, POLICY).unwrap();
        let failure = check(&file).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(format!("{failure:?}").contains("bad.txt"));
    }
}
