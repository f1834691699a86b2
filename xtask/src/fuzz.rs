//! `cargo xtask fuzz`: the fuzz targets, built with the coverage that libFuzzer follows, bounded or for as long as is asked.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    setup::{self, Mode, Scope},
    tally::Tally,
    workspace::{self, cargo},
};

/// What `cargo xtask fuzz` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The targets (frames, policy, capture, api, state); none: all of them, one after the other
    targets: Vec<String>,
    /// Executions of each target
    #[arg(long, default_value_t = 10_000_000)]
    runs: u64,
    /// Stop each target after so many seconds, whatever it has done by then
    #[arg(long)]
    seconds: Option<u64>,
}

/// A target: its name, how many executions `cargo xtask test` gives it, and the longest input.
struct Target {
    name: &'static str,
    runs: u64,
    longest: u32,
}

/// Together about a minute on two cores.
const TARGETS: [Target; 5] = [
    Target {
        name: "frames",
        runs: 500_000,
        longest: 600,
    },
    Target {
        name: "policy",
        runs: 30_000,
        longest: 4_096,
    },
    Target {
        name: "capture",
        runs: 200_000,
        longest: 4_096,
    },
    Target {
        name: "api",
        runs: 10_000,
        longest: 2_048,
    },
    Target {
        name: "state",
        runs: 100_000,
        longest: 2_048,
    },
];

/// LLVM's own flags for the coverage that libFuzzer reads: they need no unstable compiler. Overflows and debug assertions
/// are faults, too.
const COVERAGE: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Runs the targets that are asked for.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    setup::setup(Scope::Everything, Mode::Quiet)?;
    let asked: Vec<&Target> = if options.targets.is_empty() {
        TARGETS.iter().collect()
    } else {
        let find = |name: &String| {
            TARGETS
                .iter()
                .find(|target| target.name == *name)
                .with_context(|| {
                    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                    format!("there is no target {name:?}; there are {}", names.join(", "))
                })
        };
        options.targets.iter().map(find).collect::<Result<_>>()?
    };
    let programs = build()?;
    for target in asked {
        run(&programs, target, options.runs, options.seconds)?;
    }
    Ok(())
}

/// Runs every target for its bounded number of executions, counted as one check each.
pub(crate) fn bounded(tally: &mut Tally) {
    let programs = match build() {
        Ok(programs) => programs,
        Err(error) => {
            println!("{error:#}");
            return tally.check("the fuzz targets: build", false);
        }
    };
    for target in &TARGETS {
        let result = run(&programs, target, target.runs, None);
        if let Err(error) = &result {
            println!("{error:#}");
        }
        tally.check(&format!("fuzz {}", target.name), result.is_ok());
    }
}

/// Builds the targets in a folder of their own, for the flags differ; returns where they are.
fn build() -> Result<PathBuf> {
    let (host, folder) = (workspace::host()?, workspace::target_dir()?.join("fuzz"));
    let folder_text = folder.to_string_lossy();
    // With a target named, the flags are not for build scripts.
    cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "weir-fuzz",
        "--target",
        &host,
    ])
    .args(["--target-dir", &*folder_text])
    .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
    .env("CARGO_PROFILE_RELEASE_LTO", "off")
    .run()?;
    Ok(folder.join(host).join("release"))
}

fn run(programs: &std::path::Path, target: &Target, runs: u64, seconds: Option<u64>) -> Result<()> {
    let name = target.name;
    let folder = workspace::target_dir()?.join("fuzz");
    let (found, findings) = (folder.join("corpus").join(name), folder.join("findings"));
    for folder in [&found, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let fuzz = workspace::root().join("fuzz");
    let mut args = vec![
        format!("-runs={runs}"),
        format!("-max_len={}", target.longest),
        // The same executions each time, as long as the code is the same.
        "-seed=1".to_owned(),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
        format!("-timeout={}", Duration::from_secs(20).as_secs()),
        "-rss_limit_mb=2048".to_owned(),
        format!("-artifact_prefix={}/{name}-", findings.display()),
    ];
    if let Some(seconds) = seconds {
        args.push(format!("-max_total_time={seconds}"));
    }
    let dictionary = fuzz.join("dictionaries").join(name);
    if dictionary.is_file() {
        args.push(format!("-dict={}", dictionary.display()));
    }
    args.push(found.display().to_string());
    args.push(fuzz.join("corpus").join(name).display().to_string());
    println!("fuzz {name}: {runs} executions");
    let program = programs.join(name);
    let call = crate::call::Call::new(program.display().to_string(), args);
    if !call.succeeds()? {
        bail!(
            "{name} found a fault; the input is the newest file {}/{name}-*: run `{} FILE` to see it again, mend it, and add the \
             file to fuzz/corpus/{name}",
            findings.display(),
            program.display()
        );
    }
    Ok(())
}
