//! Builds the kernel half and leaves the object where `include_bytes_aligned!` finds it.
//!
//! Two toolchains can compile it, and the first that is there is used: a rustup `nightly` with `rust-src`, or the
//! toolchain that `cargo xtask setup` links under the name `weir-bpf` (a distribution's rustc with a prebuilt `core`
//! for the BPF target). `WEIR_BPF_TOOLCHAIN` names another one.
//!
//! This is what `aya_build::build_ebpf` does, with one flag more: it fixes `CARGO_ENCODED_RUSTFLAGS` and leaves no way
//! to ask for `target-cpu=v3`, without which there is no 64-bit compare-and-swap.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The rustup name of a linked toolchain that brings a prebuilt `core` for BPF.
const LINKED: &str = "weir-bpf";
/// Crates that need unstable features; a stable toolchain allows them these and no others.
const UNSTABLE: &str = "aya_ebpf,weir_ebpf";
/// The BPF object, and the binary target of `gateway-ebpf` that it comes from.
const OBJECT: &str = "weir-ebpf";

fn sysroot(toolchain: &str) -> Option<String> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn has_rust_src(toolchain: &str) -> bool {
    sysroot(toolchain).is_some_and(|root| {
        Path::new(&root)
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

fn has_prebuilt_core(toolchain: &str) -> bool {
    sysroot(toolchain).is_some_and(|root| {
        Path::new(&root)
            .join("lib/rustlib/bpfel-unknown-none/lib")
            .is_dir()
    })
}

fn main() -> Result<()> {
    println!("cargo::rerun-if-env-changed=WEIR_BPF_TOOLCHAIN");
    for path in [
        "../gateway-core/src",
        "../gateway-core/Cargo.toml",
        "../gateway-ebpf",
        "../Cargo.lock",
        "build.rs",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let named = env::var("WEIR_BPF_TOOLCHAIN").ok();
    let toolchain = match &named {
        Some(name) => name.as_str(),
        None if has_rust_src("nightly") => "nightly",
        None if has_prebuilt_core(LINKED) => LINKED,
        None => bail!("no toolchain here can compile BPF: run `cargo xtask setup`, which installs one"),
    };
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    build(toolchain, target, &[], OBJECT)?;
    if env::var_os("CARGO_FEATURE_LRU").is_some() {
        build(toolchain, target, &["--features", "lru"], "weir-ebpf-lru")?;
    }
    Ok(())
}

/// Where the kernel half is built: beside the outer build's folders, one for all of them, since it is the same whatever profile and features the
/// outer build has. Not in one of those: cargo holds a lock on it while this script runs.
fn target_dir(out_dir: &Path) -> PathBuf {
    // target/PROFILE/build/gateway-userspace-HASH/out, with the target's triple before the profile where one is named.
    let shared = out_dir
        .ancestors()
        .skip(4)
        .take(2)
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    shared.unwrap_or(out_dir).join("bpf")
}

/// Builds the kernel half with more arguments, and leaves the object under a name.
fn build(toolchain: &str, target: &str, more: &[&str], name: &str) -> Result<()> {
    let out_dir = env::var("OUT_DIR")?;
    // A folder an object: whoever builds the other one at the same time must not replace this one before it is copied.
    let target_dir = target_dir(Path::new(&out_dir)).join(name);

    let mut cargo = Command::new("rustup");
    cargo.args([
        "run",
        toolchain,
        "cargo",
        "build",
        "--package",
        "gateway-ebpf",
        "--bin",
        OBJECT,
    ]);
    cargo
        .args(["--release", "--locked", "--target", target, "--target-dir"])
        .arg(&target_dir);
    cargo.args(more);
    if has_rust_src(toolchain) {
        cargo.args(["-Z", "build-std=core"]);
    } else {
        cargo.env("RUSTC_BOOTSTRAP", UNSTABLE);
    }
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Ctarget-cpu=v3",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for inherited in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO"] {
        cargo.env_remove(inherited);
    }
    let output = cargo.output().context("cannot run rustup")?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the BPF build failed (is bpf-linker there? `cargo xtask setup` installs it):\n{log}");
    }
    let mut in_diagnostic = false;
    for line in log.lines() {
        in_diagnostic = line.starts_with("warning") || (in_diagnostic && !line.trim().is_empty());
        if in_diagnostic {
            println!("cargo::warning={line}");
        }
    }
    let built = target_dir.join(target).join("release").join(OBJECT);
    fs::copy(&built, Path::new(&out_dir).join(name))
        .with_context(|| format!("no object at {}", built.display()))?;
    Ok(())
}
