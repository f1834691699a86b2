//! Every developer and release chore of Weir, in Rust: `cargo xtask <command>`.

mod call;
mod dist;
mod fuzz;
mod kernels;
mod lab;
mod licences;
mod rights;
mod setup;
mod tally;
mod test;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use setup::{Mode, Scope};

/// Weir's developer and release chores
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what a build and the tests need: a BPF compiler, bpf-linker, the test tools
    ///
    /// Says what it will do before it does it, and does nothing twice. Every other command calls it.
    /// Without the rights to install it prints the commands and exits 1. `WEIR_BPF_TOOLCHAIN` names
    /// a rustup toolchain to be used for BPF instead of the one that would be found.
    Setup {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Build `weir` as users run it, into target/release
    Build,
    /// Run every check: format, clippy, licences, host tests, and the tests in the kernel
    ///
    /// The tests in the kernel need root, or sudo without a password. The last line is the count:
    /// `N passed, N failed, N skipped`.
    Test(test::Options),
    /// Run the tests of the programs, and a few of `weir`, on other kernels, in emulated machines
    ///
    /// The kernels are those that the distribution packages as cloud images (Debian and its kin, x86-64). They are
    /// fetched once, into target/kernels, and not installed. Needs no root, once the tools are there.
    TestKernels(kernels::Options),
    /// Run the fuzz targets, ten million executions each unless told otherwise
    ///
    /// Needs a C++ compiler, for libFuzzer. What is found is kept in target/fuzz.
    Fuzz(fuzz::Options),
    /// Show Weir at work: shoppers, bots and a storefront in network namespaces of this machine
    ///
    /// Needs root, or sudo without a password. Takes under two minutes and leaves nothing behind.
    Demo {
        /// Leave the namespaces and Weir up, and print commands to try
        #[arg(long)]
        keep: bool,
        /// Passed on to the demo
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Measure what Weir costs: per packet, end to end beside other filters, and its control; needs root, or sudo
    /// without a password
    ///
    /// Installs the filters that it measures Weir beside (nftables, iptables, xdp-filter) where they are missing and can be had.
    /// Some eighteen minutes; a minute with `--quick`, which leaves the longest rows out. `--json` is for machines, `--markdown` for docs/performance.md,
    /// `--only packet`, `wire` or `control` measures one part.
    Bench {
        /// Instead, compare the source table with an `LRU_HASH`, and simulate attackers that fill its lines
        #[arg(long)]
        table: bool,
        /// Instead, measure how many packets a second `weir replay` judges on one core
        #[arg(long, conflicts_with = "table")]
        replay: bool,
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Hold what the BPF programs cost in counts to their budgets: instructions, machine code, what the verifier looks at, stack
    ///
    /// The budgets stand in tests/budgets.toml; `--write` sets them anew, `--json` is for machines. Needs root, or sudo without a
    /// password. The tests hold the same.
    Verify {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure the detectors: delays, false alarms and confusion, over modelled traffic, captures and recorded series
    ///
    /// `cargo xtask eval -- --help` says what can be given.
    Eval {
        /// Passed on to the evaluation
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check the licences of everything that is linked into Weir
    Licences,
    /// Make the archive that is given to users, with its checksum, in target/dist
    Release,
    /// Build `weir` and install it with its systemd unit and an example policy
    Install {
        /// Where the program and the unit go
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
        /// A folder that stands for `/`, to make packages from
        #[arg(long)]
        destdir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::as_compiler() {
        return code;
    }
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes on one line, and no backtrace, whatever RUST_BACKTRACE says: it is for the tests.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { dry_run } => {
            setup::setup(kernels::scope(), if dry_run { Mode::DryRun } else { Mode::Loud })
        }
        Command::Build => {
            setup::setup(Scope::Build, Mode::Quiet)?;
            println!("{}", workspace::build_weir()?.display());
            Ok(())
        }
        Command::Test(options) => test::test(&options),
        Command::Fuzz(options) => fuzz::fuzz(&options),
        Command::TestKernels(options) => kernels::test_kernels(&options),
        Command::Demo { keep, args } => {
            let keep = keep.then(|| "--keep".to_owned());
            lab::become_program("demo", &[], &keep.into_iter().chain(args).collect::<Vec<_>>())
        }
        Command::Bench {
            replay: true, args, ..
        } => lab::become_program("bench-replay", &[], &args),
        Command::Bench {
            table: true, args, ..
        } => lab::become_program("source-table", &["lru"], &args),
        Command::Bench { args, .. } => {
            // Only what is measured end to end is measured beside them.
            let elsewhere = ["packet", "control", "--rows"];
            if !args.iter().any(|argument| elsewhere.contains(&argument.as_str())) {
                setup::rivals::install();
            }
            lab::become_program("bench", &["lru"], &args)
        }
        Command::Verify { args } => lab::become_program("verify", &[], &args),
        Command::Eval { args } => {
            setup::setup(Scope::Build, Mode::Quiet)?;
            workspace::cargo(["run", "--release", "--locked", "--package", "weir-eval", "--"])
                .args(args)
                .run()
        }
        Command::Licences => {
            setup::setup(Scope::Build, Mode::Quiet)?;
            let faults = licences::faults()?;
            if !faults.is_empty() {
                bail!("{}", faults.join("\n"));
            }
            println!("every licence is allowed");
            Ok(())
        }
        Command::Release => dist::release(),
        Command::Install { prefix, destdir } => dist::install(&prefix, destdir.as_deref()),
    }
}
