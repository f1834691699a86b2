//! Budgets of the BPF programs: what each may cost in counts that are the same on every run (`tests/budgets.toml`).

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, bail};
use weir::{
    kernel::{Dataplane, ProgramCost},
    policy,
};

use crate::bpffs::BpffsDir;

/// The budgets, as they were when this was compiled.
pub const TEXT: &str = include_str!("../budgets.toml");
/// The file that they stand in.
pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.toml");

/// What is counted, and how many per cent of room a budget leaves over what was measured when it was set: compilers and kernels
/// differ by a few.
const COUNTS: [(&str, u32); 4] = [
    ("instructions", 10),
    ("jited_bytes", 10),
    ("verified_instructions", 30),
    ("stack_bytes", 0),
];

/// A program's counts, by name.
pub type Counts = BTreeMap<&'static str, u32>;

/// One count of one program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// The program.
    pub program: String,
    /// What is counted.
    pub count: &'static str,
    /// So many there are.
    pub measured: u32,
    /// So many there may be; nothing where the file does not say.
    pub budget: Option<u32>,
}

impl Line {
    /// Whether it is within its budget.
    pub fn fits(&self) -> bool {
        self.budget.is_some_and(|budget| self.measured <= budget)
    }
}

/// Loads every program and asks the kernel.
pub fn measure() -> Result<BTreeMap<String, Counts>> {
    let bpffs = BpffsDir::create()?;
    let source = policy::parse("version = 1\n", std::path::Path::new("budgets.toml"))?
        .policy
        .source;
    let (dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &source)?;
    let costs = dataplane.program_costs()?;
    Ok(costs.into_iter().map(counts).collect())
}

fn counts(cost: ProgramCost) -> (String, Counts) {
    let counts = [
        ("instructions", cost.instructions),
        ("jited_bytes", cost.jited_bytes),
        ("verified_instructions", cost.verified_instructions),
        ("stack_bytes", cost.stack_bytes),
    ];
    (cost.name, counts.into())
}

/// What was measured beside the budgets. A program of the budgets that is not there any more is an error.
pub fn compare(measured: &BTreeMap<String, Counts>, budgets: &str) -> Result<Vec<Line>> {
    let budgets: toml::Table = budgets.parse().context("the budgets are no TOML")?;
    if let Some(gone) = budgets.keys().find(|name| !measured.contains_key(*name)) {
        bail!("there is a budget for {gone}, which is no program: take it out of tests/budgets.toml");
    }
    let budget = |program: &str, count: &str| {
        let budget = budgets.get(program)?.get(count)?.as_integer()?;
        u32::try_from(budget).ok()
    };
    let mut lines = Vec::new();
    for (program, counts) in measured {
        for (count, _) in COUNTS {
            lines.push(Line {
                program: program.clone(),
                count,
                measured: counts.get(count).copied().unwrap_or(0),
                budget: budget(program, count),
            });
        }
    }
    Ok(lines)
}

/// A file of budgets around what was measured.
pub fn written(measured: &BTreeMap<String, Counts>) -> String {
    let mut text = "# What each BPF program may cost; `cargo xtask verify` holds them, and `cargo xtask verify --write` sets them anew, around what\n\
                    # is measured: 10 % over the instructions and the machine code, 30 % over what the verifier looks at, the stack as it is.\n"
        .to_owned();
    for (program, counts) in measured {
        let _ = write!(text, "\n[{program}]\n");
        for (count, room) in COUNTS {
            let measured = counts.get(count).copied().unwrap_or(0);
            let _ = writeln!(text, "{count} = {}", measured + measured * room / 100);
        }
    }
    text
}

/// A table of them.
pub fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<20}{:<24}{:>10}{:>10}\n",
        "PROGRAM", "COUNT", "MEASURED", "BUDGET"
    );
    for line in lines {
        let budget = line.budget.map_or("none".to_owned(), |budget| budget.to_string());
        let over = if line.fits() { "" } else { "  OVER" };
        let _ = writeln!(
            text,
            "{:<20}{:<24}{:>10}{budget:>10}{over}",
            line.program, line.count, line.measured
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> BTreeMap<String, Counts> {
        let counts = COUNTS.map(|(count, _)| (count, 1_000));
        [("weir".to_owned(), counts.into())].into()
    }

    #[test]
    fn what_is_over_or_unknown_does_not_fit() {
        let text = written(&measured());
        let lines = compare(&measured(), &text).unwrap();
        assert!(
            lines.len() == 4 && lines.iter().all(Line::fits),
            "{}",
            table(&lines)
        );
        let tight = text.replace("instructions = 1100", "instructions = 999");
        let lines = compare(&measured(), &tight).unwrap();
        let over: Vec<&str> = lines
            .iter()
            .filter(|line| !line.fits())
            .map(|line| line.count)
            .collect();
        assert_eq!(over, ["instructions"]);
        assert!(table(&lines).contains("999  OVER"), "{}", table(&lines));
        assert!(compare(&measured(), "").unwrap().iter().all(|line| !line.fits()));
        let gone = format!("{text}\n[gone]\ninstructions = 1\n");
        assert!(
            compare(&measured(), &gone)
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
        assert!(compare(&measured(), "[").is_err());
    }
}
