//! Policies are compared by meaning.

use std::path::Path;

use super::super::{
    diff::{Change, Diff, diff},
    parse,
};

const POLICY: &str = r#"
version = 1
[[protect]]
sources = ["10.9.0.0/28"]
[lists.cdn]
action = "trust"
prefixes = ["192.0.2.0/24", "198.51.100.0/24"]
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80, 443]
[service.per_source]
packets = { rate = 2000, burst = 4000 }
block = { for = "30s", drops = 1000, within = "10s" }
[service.total]
packets = { rate = "500k", burst = "1M" }
[[service]]
name = "dns"
protocol = "udp"
ports = [53]
"#;

fn compare(before: &str, after: &str) -> Diff {
    let policy = |text| parse(text, Path::new("/p.toml")).unwrap().policy;
    diff(&policy(before), &policy(after))
}

/// `at key before -> after`, a line a difference.
fn lines(diff: &Diff) -> Vec<String> {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    diff.differences
        .iter()
        .map(|one| {
            format!(
                "{} {} {} -> {}",
                one.at,
                one.key,
                side(&one.before),
                side(&one.after)
            )
        })
        .collect()
}

#[test]
fn spelling_order_and_comments_make_no_difference() {
    let other = r#"# another hand
version = 1
mode = "enforce"
[[protect]]
sources = ["10.9.0.0/28"]
protocol = "any"
[[service]]
name = "dns"
protocol = ["udp"]
ports = ["53"]
[[service]]
name = "web"
protocol = ["udp", "tcp"]
ports = [443, 80]
[service.per_source]
packets = { rate = "2k", burst = 4000 }
block = { for = "30s", drops = 1000, within = "10s" }
[service.total]
packets = { rate = 500000, burst = "1M" }
[lists.cdn]
prefixes = ["198.51.100.0/24", "192.0.2.0/24"]
action = "trust"
"#;
    assert_eq!(compare(POLICY, other), Diff::default());
}

#[test]
fn changed_keys_have_both_values() {
    let after = POLICY
        .replace("rate = 2000, burst = 4000", "rate = 2000, burst = 1000")
        .replace("ports = [80, 443]", "ports = [80, \"8000-8080\"]")
        .replace("for = \"30s\"", "for = \"1m\"")
        .replace("action = \"trust\"", "action = \"drop\"")
        .replace("[lists.cdn]", "[default]\naction = \"drop\"\n[lists.cdn]");
    let diff = compare(POLICY, &after);
    assert_eq!(
        lines(&diff),
        [
            " default.action pass -> drop",
            "lists.cdn action trust -> drop",
            "service.web per_source.block.for 30s -> 60s",
            "service.web per_source.packets.burst 4000 -> 1000",
            "service.web ports [80, 443] -> [80, 8000-8080]",
        ]
    );
    assert!(
        diff.warnings
            .iter()
            .any(|warning| warning.contains("service.web.per_source.packets") && warning.contains("1000")),
        "{:?}",
        diff.warnings
    );
    assert!(
        diff.warnings
            .iter()
            .any(|warning| warning.contains("[[protect]]"))
    );
}

#[test]
fn what_is_new_or_gone_is_one_difference() {
    let after = POLICY
        .replace("name = \"dns\"", "name = \"resolver\"")
        .replace("10.9.0.0/28", "10.9.0.0/29");
    let diff = compare(POLICY, &after);
    let told: Vec<(&str, Change)> = diff
        .differences
        .iter()
        .map(|one| (one.at.as_str(), one.change))
        .collect();
    assert_eq!(
        told,
        [
            ("protect", Change::Removed),
            ("protect", Change::Added),
            ("service.dns", Change::Removed),
            ("service.resolver", Change::Added),
        ]
    );
    let gone = diff.differences[2].before.as_deref().unwrap();
    assert!(
        gone.contains("ports = [53]") && gone.contains("protocol = [udp]"),
        "{gone}"
    );
    assert!(
        diff.warnings
            .iter()
            .any(|warning| warning.contains("service.dns") && warning.contains("counters"))
    );
}

#[test]
fn what_an_apply_would_refuse_or_forget_is_said() {
    let after = POLICY.replace(
        "version = 1",
        "version = 1\n[source]\nmax_tracked = 5000\nipv4_prefix = 24",
    );
    let diff = compare(POLICY, &after);
    assert_eq!(diff.differences.len(), 2, "{:?}", diff.differences);
    assert!(diff.warnings.iter().any(|warning| warning.contains("refused")));
    assert!(diff.warnings.iter().any(|warning| warning.contains("afresh")));
}
