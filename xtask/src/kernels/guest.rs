//! A guest: what it runs, how it is booted, and what its serial lines say.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::image::Image;
use crate::{call::Call, tally::Tally};

/// A test program of `tests/tests` that runs on a guest.
pub(crate) struct Test {
    /// Its name.
    pub(crate) program: &'static str,
    /// What of it is run, in the words of Rust's test harness.
    args: &'static str,
}

/// What runs on a guest, in order: everything that asks whether the kernel takes and runs the programs as the host's twin
/// does, and a smoke test of `weir` itself. It must need no tools but those in the archive, no captures, and no fast
/// machine.
pub(crate) const TESTS: [Test; 10] = [
    Test {
        program: "programs",
        // Budgets are those of the kernel that they were set on.
        args: "--exact the_verifier_takes_every_program",
    },
    Test {
        program: "verdicts",
        args: "",
    },
    Test {
        program: "framings",
        args: "",
    },
    Test {
        program: "differential",
        args: "--skip captured_frames --skip corpus_frames",
    },
    Test {
        program: "smoke",
        args: "",
    },
    Test {
        program: "interfaces",
        args: "--exact jumbo_frames_are_judged_whole generic_mode_enforces_and_says_what_it_means \
               auto_falls_back_where_a_driver_cannot bond_members_are_held",
    },
    Test {
        program: "zero_trust",
        args: "--exact replies_to_its_own_sockets_pass",
    },
    Test {
        program: "proofs",
        args: "--exact a_connection_of_this_host_proves_its_peer a_handshake_that_passes_through_proves_its_source",
    },
    Test {
        program: "filters",
        args: "",
    },
    Test {
        program: "bans",
        args: "--exact bans_for_one_service_and_across_restarts",
    },
];

/// How long a guest may take, from the start to its last word. Without KVM it is some twenty times slower than its host.
const PATIENCE: Duration = Duration::from_mins(15);

/// How long it may take to its first word.
const BOOT_PATIENCE: Duration = Duration::from_mins(3);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor.
    Kvm,
    /// qemu, the same everywhere.
    Emulation,
}

/// The script that a guest runs in place of an init.
pub(crate) fn init() -> String {
    let mut script = String::from(
        r#"#!/bin/busybox sh
/bin/busybox --install -s /usr/bin
export PATH=/bin:/usr/bin HOME=/root RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
# The kernel keeps the first line to itself, so that its messages do not mix with what tests print.
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
while read module; do
    insmod "/modules/$module" || echo "cannot load $module"
done </modules/order
ip link set lo up
export WEIR_BIN=/weir/weir WEIR_TEST_PATIENCE=8
"#,
    );
    // Whoever started the guest may be gone: it ends by itself.
    let _ = writeln!(script, "(sleep {}; poweroff -f) &", PATIENCE.as_secs());
    for Test { program, args } in &TESTS {
        let _ = write!(
            script,
            "echo '=== BEGIN {program}'\n/weir/{program} --test-threads=1 {args}\necho \"=== END {program} $?\"\n"
        );
    }
    script.push_str("echo '=== DONE'\npoweroff -f\n");
    script
}

/// Boots a kernel with an archive, and counts what its tests say.
pub(crate) fn run(image: &Image, archive: &Path, accelerator: Accelerator) -> Result<Tally> {
    let console = archive.with_extension("console");
    let _ = fs::remove_file(&console);
    let mut guest = Guest(
        Command::from(&call(image, archive, &console, accelerator))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64: run `cargo xtask setup`")?,
    );
    let output = guest.0.stdout.take().context("qemu has no standard output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });

    let mut listener = Listener::new(&image.release);
    let begun = Instant::now();
    let mut deadline = begun + BOOT_PATIENCE;
    let end = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                deadline = begun + PATIENCE;
                listener.line(&line, |text| println!("{text}"));
            }
            Err(RecvTimeoutError::Disconnected) => break "ended",
            Err(RecvTimeoutError::Timeout) => break "took too long",
        }
    };
    drop(guest);
    let finished = listener.done;
    let tally = listener.finish(end);
    if !finished {
        println!(
            "test-kernels: the last words of Linux {} on its console:",
            image.release
        );
        for line in last_lines(&console, 20) {
            println!("  {line}");
        }
    }
    Ok(tally)
}

/// A running qemu, ended when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn call(image: &Image, archive: &Path, console: &Path, accelerator: Accelerator) -> Call {
    let (accelerator, processor) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Emulation => ("tcg,thread=multi", "max"),
    };
    Call::new("qemu-system-x86_64", ["-accel", accelerator, "-cpu", processor])
        .args([
            "-smp",
            "2",
            "-m",
            "2048",
            "-no-reboot",
            "-display",
            "none",
            "-nodefaults",
        ])
        .args(["-serial", &format!("file:{}", console.display())])
        .args([
            "-chardev",
            "stdio,id=tests,signal=off",
            "-serial",
            "chardev:tests",
        ])
        .args(["-kernel", &image.vmlinuz.to_string_lossy()])
        .args(["-initrd", &archive.to_string_lossy()])
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
}

fn last_lines(file: &PathBuf, count: usize) -> Vec<String> {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text.lines().rev().take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}

/// Takes in what a guest says.
struct Listener {
    place: String,
    all: Tally,
    /// The test program that runs, what it counted and what it printed.
    current: Option<(String, Tally, Vec<String>)>,
    done: bool,
}

impl Listener {
    fn new(release: &str) -> Self {
        Self {
            place: format!("Linux {release}"),
            all: Tally::default(),
            current: None,
            done: false,
        }
    }

    /// Takes in a line; what a person should see goes to `say`.
    fn line(&mut self, line: &str, mut say: impl FnMut(&str)) {
        if let Some(program) = line.strip_prefix("=== BEGIN ") {
            self.current = Some((program.to_owned(), Tally::default(), Vec::new()));
        } else if let Some(code) = line
            .strip_prefix("=== END ")
            .and_then(|rest| rest.rsplit(' ').next())
        {
            let Some((program, mut tally, printed)) = self.current.take() else {
                return;
            };
            tally.end_run(&program, code == "0");
            if !tally.succeeded() {
                say(&format!("== {program} on {}", self.place));
                for line in &printed {
                    say(line);
                }
            }
            say(&format!("{}: {program}: {tally}", self.place));
            self.all.add(tally.on(&self.place));
        } else if line == "=== DONE" {
            self.done = true;
        } else if let Some((_, tally, printed)) = &mut self.current {
            tally.read(line.as_bytes());
            tally.read(b"\n");
            printed.push(line.to_owned());
        } else {
            say(&format!("{}: {line}", self.place));
        }
    }

    /// What it counted; a guest that fell silent before it was done has failed.
    fn finish(mut self, end: &str) -> Tally {
        if !self.done {
            let during = self.current.take().map_or_else(
                || "before or between its tests".to_owned(),
                |(program, _, printed)| {
                    format!(
                        "in {program}, after {:?}",
                        printed.last().map_or("", String::as_str)
                    )
                },
            );
            self.all.check(&format!("{} {end} {during}", self.place), false);
        }
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Tally, String) {
        let mut listener = Listener::new("6.1");
        let mut said = Vec::new();
        for line in lines {
            listener.line(line, |text| said.push(text.to_owned()));
        }
        (listener.finish("ended"), said.join("\n"))
    }

    const GOOD: [&str; 4] = [
        "=== BEGIN verdicts",
        "test a ... SKIP a: no bonds",
        "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        "=== END verdicts 0",
    ];

    #[test]
    fn a_guest_that_finishes_is_counted() {
        let (tally, said) = heard(&[&GOOD[..], &["=== DONE"]].concat());
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 1 skipped");
        assert_eq!(tally.skips(), ["SKIP a (Linux 6.1): no bonds"]);
        assert_eq!(said, "Linux 6.1: verdicts: 2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_failed_test_names_its_kernel_and_shows_its_output() {
        let failing = [
            "=== BEGIN bans",
            "oh no",
            "failures:",
            "    across",
            "",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "=== END bans 101",
            "=== DONE",
        ];
        let (tally, said) = heard(&failing);
        assert_eq!(tally.failures(), ["across (Linux 6.1)"]);
        assert!(said.contains("oh no"));
    }

    #[test]
    fn a_guest_that_falls_silent_has_failed() {
        let (tally, _) = heard(&[&GOOD[..], &["=== BEGIN bans", "test x ... "]].concat());
        assert_eq!(
            tally.failures(),
            ["Linux 6.1 ended in bans, after \"test x ... \""]
        );
        let (tally, _) = heard(&[]);
        assert!(!tally.succeeded());
    }

    #[test]
    fn the_guest_runs_every_test_and_ends() {
        let script = init();
        for test in TESTS {
            assert!(script.contains(&format!("/weir/{} --test-threads=1", test.program)));
        }
        assert!(script.ends_with("poweroff -f\n"));
    }
}
