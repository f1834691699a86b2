//! Checks that what is linked into Weir may be given out under Weir's own licences.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::workspace::cargo;

/// Licences whose code may be in the userspace binary. `deny.toml` holds the same list.
const USERSPACE: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Licences whose code may be in the BPF object: the kernel's helpers demand compatibility with its
/// GPL, version 2, which Apache-2.0 alone does not have.
const KERNEL: [&str; 10] = [
    "0BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "ISC",
    "MIT",
    "Unlicense",
    "Zlib",
];

/// The crates that may not be linked, each as a sentence.
pub(crate) fn faults() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (package, what, allowed) in [
        ("gateway-userspace", "the userspace binary", &USERSPACE[..]),
        ("gateway-ebpf", "the BPF object", &KERNEL[..]),
    ] {
        // What is linked: neither what only builds or tests, nor what runs inside the compiler.
        let edges = [
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{l}",
        ];
        let tree = cargo(["tree", "--locked", "--package", package])
            .args(edges)
            .output()?;
        faults.extend(faults_in(&tree, what, allowed));
    }
    Ok(faults)
}

fn faults_in(tree: &str, what: &str, allowed: &[&str]) -> Vec<String> {
    let crates: BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    crates
        .into_iter()
        .filter_map(|line| {
            let (name, licence) = line.rsplit_once('|').unwrap_or((line, ""));
            let fault = match licence.trim() {
                "" => "states no licence".to_owned(),
                licence if satisfied(licence, allowed) => return None,
                licence => format!("is under {licence:?}"),
            };
            Some(format!(
                "{name} {fault} and is linked into {what}: replace it, or allow the licence with its reason"
            ))
        })
        .collect()
}

/// Whether the SPDX expression can be met with the allowed licences alone. What it cannot read is not met.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    // Older manifests write `MIT/Apache-2.0` for a choice.
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.choice() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn choice(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.choice()?;
            return self.take(")").then_some(met);
        }
        let (licence, rest) = self.words.split_first()?;
        self.words = rest;
        if self.take("WITH") {
            // An exception only ever allows more than the licence does.
            self.words = self.words.split_first()?.1;
        }
        Some(self.allowed.contains(licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_or_not() {
        for (expression, met) in [
            ("MIT", true),
            ("MIT OR GPL-3.0-only", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT AND (GPL-2.0-only OR LGPL-2.1-only)", false),
            ("GPL-2.0-only OR MIT AND Zlib", true),
            ("GPL-2.0-only", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT MIT", false),
            ("", false),
        ] {
            assert_eq!(satisfied(expression, &USERSPACE), met, "{expression:?}");
        }
    }

    #[test]
    fn apache_alone_is_not_for_the_kernel() {
        assert!(!satisfied("Apache-2.0", &KERNEL));
        assert!(satisfied("MIT OR Apache-2.0", &KERNEL));
    }

    #[test]
    fn a_fault_names_the_crate_once() {
        let tree = "weir v0.1.0|MIT\nbad v1.0.0|GPL-3.0-only\nbad v1.0.0|GPL-3.0-only\nnone v2.0.0|\n";
        let faults = faults_in(tree, "the userspace binary", &USERSPACE);
        assert_eq!(faults.len(), 2);
        assert!(
            faults[0].starts_with("bad v1.0.0 is under \"GPL-3.0-only\""),
            "{faults:?}"
        );
        assert!(
            faults[1].starts_with("none v2.0.0 states no licence"),
            "{faults:?}"
        );
    }

    #[test]
    fn cargo_deny_allows_the_same() {
        let deny = include_str!("../../deny.toml");
        let (_, list) = deny.split_once("\nallow = [").expect("deny.toml has a list");
        let (list, _) = list.split_once(']').expect("the list ends");
        let listed: Vec<_> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed, USERSPACE);
    }
}
