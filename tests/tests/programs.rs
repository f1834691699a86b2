//! The kernel takes every program that Weir has. `cargo xtask test-kernels` asks other kernels too.

use anyhow::{Result, ensure};
use weir::{kernel::Dataplane, policy};
use weir_tests::{bpffs::BpffsDir, budgets, skip::require_root};

#[test]
fn the_verifier_takes_every_program() -> Result<()> {
    require_root();
    let bpffs = BpffsDir::create()?;
    let source = policy::parse("version = 1\n", std::path::Path::new("test.toml"))?
        .policy
        .source;
    let (dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &source)?;
    let programs = dataplane.load_every_program()?;
    println!("{}", programs.join(", "));
    for known in [
        "weir",
        "weir_frags",
        "weir_full",
        "weir_full_frags",
        "weir_base",
        "weir_base_frags",
        "weir_lean",
        "weir_lean_frags",
        "weir_egress",
        "weir_connections",
    ] {
        ensure!(programs.iter().any(|name| name == known), "{programs:?}");
    }
    Ok(())
}

#[test]
fn every_program_stays_within_its_budget() -> Result<()> {
    require_root();
    let measured = budgets::measure()?;
    let lines = budgets::compare(&measured, budgets::TEXT)?;
    let table = budgets::table(&lines);
    println!("{table}");
    ensure!(lines.iter().all(budgets::Line::fits), "{table}");
    Ok(())
}
