//! `cargo xtask demo` and `cargo xtask bench`: programs of the `tests` crate that need root.

use std::{env, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    call::Call,
    rights::Rights,
    setup::{self, Mode, Scope},
    workspace::{build_weir, cargo, target_dir},
};

/// Builds `weir` and the program, and becomes the program, as root.
pub(crate) fn become_program(program: &str, features: &[&str], args: &[String]) -> Result<()> {
    setup::setup(Scope::Everything, Mode::Quiet)?;
    let rights = Rights::of_this_process();
    if rights == Rights::None {
        bail!("`cargo xtask {program}` makes network namespaces and loads BPF programs: run it as root");
    }
    let weir = build_weir()?;
    cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "weir-tests",
        "--bin",
        program,
    ])
    .args(features.iter().flat_map(|feature| ["--features", feature]))
    .run()?;
    let path = target_dir()?.join("release").join(program);
    let mut call = Call::new(path.to_string_lossy(), args).env("WEIR_BIN", weir.to_string_lossy());
    if let Ok(backtrace) = env::var("RUST_BACKTRACE") {
        call = call.env("RUST_BACKTRACE", backtrace);
    }
    // In this process's place, so that Ctrl-C and the exit code are the program's own.
    let error = Command::from(&call.as_root(rights)).exec();
    Err(error).with_context(|| format!("cannot start {}", path.display()))
}
