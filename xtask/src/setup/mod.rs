//! `cargo xtask setup`: finds or installs what a build and the tests need. It plans, says what it is
//! about to do, does it, and looks again.

mod facts;
mod linker;
mod packages;
mod plan;
pub(crate) mod rivals;
mod tester;

use anyhow::{Result, bail};

use facts::{Facts, Manager};
pub(crate) use facts::{Scope, find_program};
use packages::{Apt, Packages as _};
pub(crate) use plan::apt_update;
use plan::{Plan, Step};

use crate::rights::Rights;

/// Rounds of planning and doing: what a compiler's LLVM is can be known only after it is installed.
const ROUNDS: usize = 4;

/// Whether this machine's packages are APT's.
pub(crate) fn has_apt() -> bool {
    find_program("apt-get").is_some()
}

/// The version of a package that APT would install.
pub(crate) fn apt_candidate(package: &str) -> Option<String> {
    Apt::default().candidate(package)
}

/// What `setup` shall do with its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Say when nothing is to be done, too.
    Loud,
    /// Say nothing when nothing is to be done.
    Quiet,
    /// Only say what would be done.
    DryRun,
}

/// Brings this machine to what `scope` needs, or fails with what a person must do.
pub(crate) fn setup(scope: Scope, mode: Mode) -> Result<()> {
    let mut refreshed = false;
    let mut before = Plan::default();
    for round in 0..ROUNDS {
        let facts = Facts::gather(scope);
        // New lists, new answers: what was asked before a refresh is not kept.
        let plan = plan::plan(&facts, &Apt::default());
        if plan.is_done() {
            if mode != Mode::Quiet || round > 0 {
                println!("setup: everything is there");
            }
            return Ok(());
        }
        let refresh = facts.manager == Manager::Apt && !plan.unknown_packages.is_empty() && !refreshed;
        if mode == Mode::DryRun {
            announce(&plan, facts.rights, refresh);
            return Ok(());
        }
        if !refresh && plan == before {
            bail!(still_missing(&plan));
        }
        // Half of a set-up that cannot be finished helps nobody.
        if facts.rights == Rights::None && (refresh || plan.steps.iter().any(|step| step.root)) {
            announce(&plan, facts.rights, refresh);
            bail!(
                "neither root nor sudo without a password: run the commands above yourself, then `cargo xtask setup`"
            );
        }
        if refresh {
            let update = plan::apt_update().as_root(facts.rights);
            println!(
                "setup: the package lists lack {}; refreshing them",
                plan.unknown_packages.join(", ")
            );
            println!("setup: $ {update}");
            if !update.succeeds()? {
                println!("setup: that failed; going on with the lists as they are");
            }
            refreshed = true;
            continue;
        }
        announce(&plan, facts.rights, false);
        if !plan.missing.is_empty() {
            bail!(
                "set-up cannot do all of this by itself: see `missing` above, then run `cargo xtask setup` again"
            );
        }
        for step in &plan.steps {
            perform(step, facts.manager, facts.rights, &mut refreshed)?;
        }
        before = plan;
    }
    bail!("set-up does not come to an end: run `cargo xtask setup --dry-run` to see what it still wants");
}

fn announce(plan: &Plan, rights: Rights, refresh: bool) {
    println!("setup: this is to be done:");
    if refresh {
        let update = plan::apt_update().as_root(rights);
        println!(
            "  refresh the package lists, which lack {}:",
            plan.unknown_packages.join(", ")
        );
        println!("    {update}");
        println!("  and then, unless the lists change it:");
    }
    for step in &plan.steps {
        println!("  {}:\n    {}", step.why, call_of(step, rights));
    }
    for text in &plan.later {
        println!("  afterwards: {text}");
    }
    // Fresh lists may bring what is missing now.
    let missing = if refresh { "else missing" } else { "missing" };
    for text in &plan.missing {
        println!("  {missing}: {text}");
    }
    for text in &plan.notes {
        println!("  note: {text}");
    }
}

fn call_of(step: &Step, rights: Rights) -> crate::call::Call {
    if step.root {
        step.call.as_root(rights)
    } else {
        step.call.clone()
    }
}

fn perform(step: &Step, manager: Manager, rights: Rights, refreshed: &mut bool) -> Result<()> {
    let call = call_of(step, rights);
    println!("setup: $ {call}");
    if call.succeeds()? {
        return Ok(());
    }
    // Lists that are older than the archive name files that are no longer there.
    if step.root
        && manager == Manager::Apt
        && !*refreshed
        && step.call.to_string().contains("apt-get install")
    {
        let update = plan::apt_update().as_root(rights);
        println!("setup: that failed, perhaps for old package lists; refreshing them\nsetup: $ {update}");
        update.run()?;
        *refreshed = true;
        println!("setup: $ {call}");
        if call.succeeds()? {
            return Ok(());
        }
    }
    bail!("cannot {}: `{call}` failed; its own message is above", step.why);
}

fn still_missing(plan: &Plan) -> String {
    let undone = plan
        .steps
        .iter()
        .map(|step| step.why.as_str())
        .chain(plan.missing.iter().map(String::as_str));
    format!(
        "these steps ran and changed nothing: {}; is another program of the same name earlier in PATH, or is \
         $HOME/.cargo/bin not in it?",
        undone.collect::<Vec<_>>().join("; ")
    )
}
