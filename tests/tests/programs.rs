//! The kernel takes every program that Weir has. `cargo xtask test-kernels` asks other kernels too.

use anyhow::{Result, ensure};
use weir::{kernel::Dataplane, policy};
use weir_tests::{bpffs::BpffsDir, skip::require_root};

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
    for known in ["weir", "weir_frags", "weir_egress", "weir_connections"] {
        ensure!(programs.iter().any(|name| name == known), "{programs:?}");
    }
    Ok(())
}
