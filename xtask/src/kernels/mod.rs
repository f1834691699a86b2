//! `cargo xtask test-kernels`: Weir's kernel tests on the other kernels that the distribution packages.
//!
//! Each kernel image is fetched and unpacked, not installed, and booted in an emulated machine whose whole file system
//! is one archive in memory: the test programs of this workspace as cargo built them, the release build of `weir`, and
//! the few tools they call. Nothing is written to a disk, no network is attached, and it needs no root.

mod guest;
mod image;
mod initramfs;
mod programs;
mod version;

use std::{thread, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    setup::{self, Mode, Scope},
    tally::Tally,
    workspace::target_dir,
};
use guest::Accelerator;
use image::Image;

/// What `cargo xtask test-kernels` takes.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// A kernel to test, as a series (6.1) or a whole version; may be repeated
    ///
    /// Without it: the newest of every series that the distribution packages as a cloud image, from 5.15 on.
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Use the processor's virtualisation (KVM) and not emulation; not every machine that has /dev/kvm can
    #[arg(long)]
    kvm: bool,
}

/// What came out on one kernel.
struct Report {
    release: String,
    tally: Tally,
    seconds: u64,
}

/// Why kernels cannot be tested on this machine, in a sentence with the way out; nothing where they can.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !cfg!(target_arch = "x86_64") {
        Some("other kernels are only tested on x86-64: run this on such a machine")
    } else if !setup::has_apt() {
        Some(
            "the kernel images come from Debian's packages, and there is no apt-get here: run this on Debian 12 or \
             later, or in a container of it",
        )
    } else {
        None
    }
}

/// What this machine must have for every test that it can run.
pub(crate) fn scope() -> Scope {
    if obstacle().is_none() {
        Scope::OtherKernels
    } else {
        Scope::Everything
    }
}

/// Tests the kernels, prints a table, and fails if anything failed.
pub(crate) fn test_kernels(options: &Options) -> Result<()> {
    let mut tally = Tally::default();
    run(options, &mut tally)?;
    println!();
    for skip in tally.skips() {
        println!("{skip}");
    }
    for failure in tally.failures() {
        println!("FAILED {failure}");
    }
    println!("{tally}");
    if !tally.succeeded() {
        // The count is the last line: everything has been said above it.
        std::process::exit(1);
    }
    Ok(())
}

/// Tests the kernels, prints a table, and counts.
pub(crate) fn run(options: &Options, tally: &mut Tally) -> Result<()> {
    if let Some(why) = obstacle() {
        bail!("{why}");
    }
    setup::setup(Scope::OtherKernels, Mode::Quiet)?;
    let dir = target_dir()?.join("kernels");
    let images = image::fetch(&options.kernels, &dir)?;
    let programs = programs::build()?;
    let accelerator = if options.kvm {
        Accelerator::Kvm
    } else {
        Accelerator::Emulation
    };

    let mut reports = Vec::new();
    // A guest's tests keep one processor busy.
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    for group in images.chunks(at_once) {
        let outcomes: Vec<Result<Report>> = thread::scope(|scope| {
            let programs = &programs;
            let test = |image| scope.spawn(move || test_one(image, programs, accelerator));
            let running: Vec<_> = group.iter().map(test).collect();
            let joined = running.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("a thread that tests a kernel ended badly"))
            });
            joined.collect()
        });
        for (image, outcome) in group.iter().zip(outcomes) {
            reports.push(outcome.with_context(|| format!("cannot test Linux {}", image.release))?);
        }
    }
    println!("\n{:<34} passed  failed  skipped  seconds", "kernel");
    for report in reports {
        println!(
            "{:<34} {}  {:>7}",
            report.release,
            report.tally.columns(),
            report.seconds
        );
        tally.add(report.tally);
    }
    Ok(())
}

fn test_one(image: &Image, programs: &programs::Programs, accelerator: Accelerator) -> Result<Report> {
    let begun = Instant::now();
    let archive = initramfs::make(image, programs)?;
    let tally = guest::run(image, &archive, accelerator)?;
    Ok(Report {
        release: image.release.clone(),
        tally,
        seconds: begun.elapsed().as_secs(),
    })
}
