//! Where things are, and how cargo is called.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::call::Call;

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Cargo's target folder: the one that this program itself was built into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let this = env::current_exe().context("cannot tell where this program is")?;
    let dir = this.parent().and_then(Path::parent);
    Ok(dir
        .context("this program is not in a target folder: run it as `cargo xtask`")?
        .to_owned())
}

/// The cargo that runs this program, in the workspace's root.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Call {
    let program = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    Call::new(program, args).dir(&root())
}

/// Builds what users run, and returns where it is.
pub(crate) fn build_weir() -> Result<PathBuf> {
    cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "gateway-userspace",
        "--bin",
        "weir",
    ])
    .run()?;
    let weir = target_dir()?.join("release/weir");
    if !weir.is_file() {
        bail!(
            "cargo built `weir`, but not as {}: unset CARGO_BUILD_TARGET and `build.target`",
            weir.display()
        );
    }
    Ok(weir)
}

/// The triple of the machine that builds, such as `x86_64-unknown-linux-gnu`.
pub(crate) fn host() -> Result<String> {
    let text = Call::new("rustc", ["-vV"]).output()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` does not name its host")?.to_owned())
}
