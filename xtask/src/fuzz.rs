//! `cargo xtask fuzz`: the fuzz targets, built with the coverage that libFuzzer follows, bounded or for as long as is asked.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    call::Call,
    rights::Rights,
    setup::{self, Mode, Scope},
    tally::Tally,
    workspace::{self, cargo},
};

/// What `cargo xtask fuzz` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The targets (frames, policy, capture, api, state), or differential: mutations of the frames' corpus through the
    /// kernel and its twin, as root; none: all of the former, one after the other
    targets: Vec<String>,
    /// Executions of each target
    #[arg(long, default_value_t = 10_000_000)]
    runs: u64,
    /// Stop each target after so many seconds, whatever it has done by then; not for differential
    #[arg(long)]
    seconds: Option<u64>,
}

/// A target: its name, how many executions `cargo xtask test` gives it, and the longest input.
struct Target {
    name: &'static str,
    runs: u64,
    longest: u32,
}

/// Not a target of libFuzzer, but the test of that name.
const DIFFERENTIAL: &str = "differential";

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

/// What of the targets is built with coverage.
#[derive(Clone, Copy)]
enum Coverage {
    /// Every crate below them: what libFuzzer learns most from. All of them are built anew for it.
    Everything,
    /// The workspace's own: enough where the inputs are few. The others are those that the tests have built already.
    Ours,
}

/// The profile of the targets with coverage of everything, of the workspace's manifest.
const PROFILE: &str = "fuzz";

/// Set where this program is to be the compiler of the workspace's crates: the flags that it adds.
const FLAGS: &str = "WEIR_FUZZ_FLAGS";

/// LLVM's own flags for the coverage that libFuzzer reads: they need no unstable compiler. Overflows and debug assertions
/// are faults, too.
const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// Runs the targets that are asked for.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    setup::setup(Scope::Everything, Mode::Quiet)?;
    if options.targets == [DIFFERENTIAL] {
        return differential(options.runs);
    }
    let asked: Vec<&Target> = if options.targets.is_empty() {
        TARGETS.iter().collect()
    } else {
        let find = |name: &String| {
            TARGETS
                .iter()
                .find(|target| target.name == *name)
                .with_context(|| {
                    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                    format!(
                        "there is no target {name:?}; there are {}, and {DIFFERENTIAL} by itself",
                        names.join(", ")
                    )
                })
        };
        options.targets.iter().map(find).collect::<Result<_>>()?
    };
    let programs = build(Coverage::Everything)?;
    for target in asked {
        let found = workspace::target_dir()?.join("fuzz/corpus").join(target.name);
        run(&programs, target, &found, options.runs, options.seconds)?;
    }
    Ok(())
}

/// So many frames, made of the frames' corpus, through the kernel and its twin.
fn differential(frames: u64) -> Result<()> {
    const FRAMES: &str = "WEIR_DIFFERENTIAL_FRAMES";
    let mut call = cargo(["test", "--package", "weir-tests", "--test", DIFFERENTIAL])
        .args(["--", "--exact", "corpus_frames"])
        .env(FRAMES, frames.to_string());
    match Rights::of_this_process() {
        Rights::Root => (),
        // Only the test runs as root, not the compiler.
        Rights::Sudo => {
            let host = workspace::host()?.to_uppercase().replace('-', "_");
            let runner = format!("sudo -n --preserve-env={FRAMES}");
            call = call.env(format!("CARGO_TARGET_{host}_RUNNER"), runner);
        }
        Rights::None => bail!(
            "{DIFFERENTIAL} runs frames in the kernel: run it as root, or with sudo that asks for no password"
        ),
    }
    call.run()
}

/// Runs every target for its bounded number of executions from the repository's corpus, counted as one check each.
pub(crate) fn bounded(tally: &mut Tally) {
    let programs = match build(Coverage::Ours) {
        Ok(programs) => programs,
        Err(error) => {
            println!("{error:#}");
            return tally.check("the fuzz targets: build", false);
        }
    };
    for target in &TARGETS {
        let result = bounded_run(&programs, target);
        if let Err(error) = &result {
            println!("{error:#}");
        }
        tally.check(&format!("fuzz {}", target.name), result.is_ok());
    }
}

/// The same executions each time, as long as the code is the same: nothing that longer runs have found takes part.
fn bounded_run(programs: &Path, target: &Target) -> Result<()> {
    let found = workspace::target_dir()?.join("fuzz/bounded").join(target.name);
    let _ = fs::remove_dir_all(&found);
    run(programs, target, &found, target.runs, None)
}

/// Builds the targets; returns where they are.
fn build(coverage: Coverage) -> Result<PathBuf> {
    match coverage {
        Coverage::Everything => build_everything(),
        Coverage::Ours => {
            let this = env::current_exe().context("cannot tell where this program is")?;
            cargo(["build", "--locked", "--package", "weir-fuzz"])
                .env("RUSTC_WORKSPACE_WRAPPER", this.to_string_lossy())
                .env(FLAGS, COVERAGE.join("\x1f"))
                .run()?;
            let programs = workspace::target_dir()?.join("debug");
            for target in &TARGETS {
                has_coverage(&programs.join(target.name))?;
            }
            Ok(programs)
        }
    }
}

/// Fails for a program without the counters of the coverage: it would run, find nothing new, and pass.
fn has_coverage(program: &Path) -> Result<()> {
    const SECTION: &[u8] = b"__sancov_cntrs";
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if !bytes.windows(SECTION.len()).any(|window| window == SECTION) {
        bail!("{} was built without coverage", program.display());
    }
    Ok(())
}

/// Calls the compiler with the coverage's flags, if that is what this program was started for: cargo has no way to give flags to the
/// workspace's own crates alone, but lets a program be called in the compiler's place. Not for build scripts.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    let flags = env::var(FLAGS).ok()?;
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let mut command = Command::new(compiler);
    command.args(&arguments);
    if is_covered(&arguments) {
        command.args(flags.split('\x1f'));
    }
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: cannot start {command:?}: {error}");
            return Some(ExitCode::FAILURE);
        }
    };
    Some(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether what a compiler is asked for is a crate, and no build script. (Cargo also asks it what it is.)
fn is_covered(arguments: &[OsString]) -> bool {
    let named = arguments.iter().position(|argument| argument == "--crate-name");
    let name = named.and_then(|at| arguments.get(at + 1)?.to_str());
    name.is_some_and(|name| name != "___" && !name.starts_with("build_script_"))
}

/// Builds the targets in a folder of their own, for the flags differ.
fn build_everything() -> Result<PathBuf> {
    let (host, folder) = (workspace::host()?, workspace::target_dir()?.join("fuzz"));
    let folder_text = folder.to_string_lossy();
    // With a target named, the flags are not for build scripts.
    cargo([
        "build",
        "--profile",
        PROFILE,
        "--locked",
        "--package",
        "weir-fuzz",
        "--target",
        &host,
    ])
    .args(["--target-dir", &*folder_text])
    .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
    .run()?;
    Ok(folder.join(host).join(PROFILE))
}

/// Runs a target, from the repository's corpus and what is in `found`, where new inputs go.
fn run(programs: &Path, target: &Target, found: &Path, runs: u64, seconds: Option<u64>) -> Result<()> {
    let name = target.name;
    let findings = workspace::target_dir()?.join("fuzz/findings");
    for folder in [found, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let fuzz = workspace::root().join("fuzz");
    let mut args = vec![
        format!("-runs={runs}"),
        format!("-max_len={}", target.longest),
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
    // What a target writes stays in memory, where there is such a place, and goes when it has ended, however it did.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let scratch = parent.join(format!("weir-fuzz-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let call = Call::new(program.display().to_string(), args).env("TMPDIR", scratch.display().to_string());
    let passed = call.succeeds();
    let _ = fs::remove_dir_all(&scratch);
    if !passed? {
        bail!(
            "{name} found a fault; the input is the newest file {}/{name}-*: run `{} FILE` to see it again, mend it, and add the \
             file to fuzz/corpus/{name}",
            findings.display(),
            program.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_have_coverage_and_build_scripts_and_questions_have_none() {
        let is_covered = |text: &str| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            is_covered(&arguments)
        };
        assert!(is_covered(
            "--crate-name gateway_core --edition=2024 gateway-core/src/lib.rs"
        ));
        assert!(!is_covered(
            "--crate-name build_script_build --edition=2024 build.rs"
        ));
        assert!(!is_covered("- --crate-name ___ --print=file-names"));
        assert!(!is_covered("-vV"));
        assert!(!is_covered("--crate-name"));
    }
}
