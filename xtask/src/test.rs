//! `cargo xtask test`: every check that a change must pass. The last line is the count.

use std::{sync::OnceLock, time::Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    call::Call,
    fuzz, kernels, licences,
    rights::Rights,
    setup::{self, Mode, Scope},
    tally::Tally,
    workspace::{self, cargo},
};

/// What `cargo xtask test` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Leave out what needs root and a kernel: only the checks and the host tests
    #[arg(long)]
    quick: bool,
    /// Run only the tests whose name contains this, and no other checks
    filter: Option<String>,
}

/// Environment variables that reach the kernel tests also through `sudo`.
const PASSED_ON: &str = "WEIR_BIN,RUST_BACKTRACE,RUST_LOG,CARGO_MANIFEST_DIR,CI";

/// Runs the checks and the tests, all of them whatever fails, and counts.
pub(crate) fn test(options: &Options) -> Result<()> {
    let other_kernels = !options.quick && options.filter.is_none();
    let scope = match (options.quick, other_kernels) {
        (true, _) => Scope::Check,
        (false, false) => Scope::Everything,
        (false, true) => kernels::scope(),
    };
    setup::setup(scope, Mode::Quiet)?;
    let rights = Rights::of_this_process();
    if !options.quick && rights == Rights::None {
        bail!(
            "the kernel tests need root, and neither root nor sudo without a password is to be had: run this as root, \
             or `cargo xtask test --quick` for the rest"
        );
    }
    let filter = options.filter.as_deref();
    let mut tally = Tally::default();
    let mut tests = 0;

    if filter.is_none() {
        checks(&mut tally)?;
    }
    let host = cargo([
        "test",
        "--no-fail-fast",
        "-p",
        "gateway-core",
        "-p",
        "gateway-detect",
        "-p",
        "weir-eval",
        "-p",
        "gateway-userspace",
        "-p",
        "xtask",
    ]);
    tests += run("host tests", &host.args(filter), &mut tally)?;
    if filter.is_none() && !options.quick {
        headline("fuzz targets, bounded");
        fuzz::bounded(&mut tally);
    }
    if !options.quick {
        tests += kernel_tests(filter, rights, &mut tally)?;
    }
    if other_kernels {
        on_other_kernels(&mut tally);
    }

    headline("result");
    for skip in tally.skips() {
        println!("{skip}");
    }
    for failure in tally.failures() {
        println!("FAILED {failure}");
    }
    if tests == 0 {
        tally.check(
            &filter.map_or("no test ran".into(), |it| {
                format!("no test's name contains {it:?}")
            }),
            false,
        );
        println!("FAILED {}", tally.failures().last().map_or("", String::as_str));
    }
    println!("{tally}");
    if !tally.succeeded() {
        // The count is the last line: everything has been said above it.
        std::process::exit(1);
    }
    Ok(())
}

fn checks(tally: &mut Tally) -> Result<()> {
    headline("format");
    tally.check(
        "format: run `cargo fmt --all`",
        cargo(["fmt", "--all", "--check"]).succeeds()?,
    );

    headline("clippy");
    let clippy = cargo([
        "clippy",
        "--workspace",
        "--exclude",
        "gateway-ebpf",
        "--all-targets",
    ]);
    tally.check(
        "clippy: its messages are above",
        clippy.args(["--", "-D", "warnings"]).succeeds()?,
    );

    headline("licences");
    let faults = licences::faults()?;
    for fault in &faults {
        println!("{fault}");
    }
    tally.check("licences: the crates are named above", faults.is_empty());
    Ok(())
}

/// Runs the tests that need a kernel, against the binary that users run.
fn kernel_tests(filter: Option<&str>, rights: Rights, tally: &mut Tally) -> Result<u64> {
    headline("weir, as it is released");
    let weir = match workspace::build_weir() {
        Ok(weir) => weir,
        Err(error) => {
            println!("{error:#}");
            tally.check("the release build of weir", false);
            return Ok(0);
        }
    };
    let mut call = cargo(["test", "--no-fail-fast", "-p", "weir-tests"])
        .args(filter)
        // Floods and measurements would disturb one another.
        .args(["--", "--test-threads=1"])
        .env("WEIR_BIN", weir.to_string_lossy());
    if rights == Rights::Sudo {
        // Only the tests run as root, not the compiler: nothing in the target folder becomes root's.
        let host = workspace::host()?.to_uppercase().replace('-', "_");
        call = call.env(
            format!("CARGO_TARGET_{host}_RUNNER"),
            format!("sudo -n --preserve-env={PASSED_ON}"),
        );
    }
    run("kernel tests", &call, tally)
}

/// Runs what can be run on other kernels, where they can be had.
fn on_other_kernels(tally: &mut Tally) {
    headline("other kernels");
    if let Some(why) = kernels::obstacle() {
        tally.skip(&format!("SKIP test-kernels: {why}"));
    } else if let Err(error) = kernels::run(&kernels::Options::default(), tally) {
        println!("{error:#}");
        tally.check(&format!("other kernels: {error:#}"), false);
    }
}

/// Runs one `cargo test` and returns how many tests it counted.
fn run(what: &str, call: &Call, tally: &mut Tally) -> Result<u64> {
    headline(what);
    let mut this = Tally::default();
    let succeeded = call.stream(&mut std::io::stdout().lock(), |piece| this.read(piece))?;
    this.end_run(what, succeeded);
    let tests = this.total();
    tally.add(this);
    Ok(tests)
}

/// Says what comes now, and how long it took until here.
fn headline(what: &str) {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGUN.get_or_init(Instant::now).elapsed().as_secs();
    println!("\n== {what} (after {} min {:02} s)", seconds / 60, seconds % 60);
}
