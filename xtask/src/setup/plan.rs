//! From what the machine has to what must be done: a pure function, so that every situation can be tested.

use std::path::PathBuf;

use super::{
    facts::{
        BpfCore, Compiler, Facts, LINKED, Manager, OLDEST_RUST, Rustup, Scope, TOOLCHAIN_VARIABLE,
        major_minor,
    },
    linker::{LLVM_SUPPORTED, VERSION},
    packages::Packages,
};
use crate::call::Call;

/// Debian's compiler for building browsers, kept new in stable releases, and its prebuilt BPF core.
const DISTRIBUTION_RUST: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it is for, in a few words.
    pub(crate) why: String,
    pub(crate) call: Call,
    /// Whether it needs root.
    pub(crate) root: bool,
}

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What can only be planned once the steps are done.
    pub(crate) later: Vec<String>,
    /// What set-up cannot do: each a sentence with the way out.
    pub(crate) missing: Vec<String>,
    /// Packages that the package lists do not offer; fresh lists may.
    pub(crate) unknown_packages: Vec<String>,
    /// What the user should know, besides.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done and nothing is missing.
    pub(crate) fn is_done(&self) -> bool {
        self.steps.is_empty() && self.missing.is_empty()
    }

    fn step(&mut self, why: impl Into<String>, call: Call, root: bool) {
        self.steps.push(Step {
            why: why.into(),
            call,
            root,
        });
    }
}

/// The call that refreshes APT's package lists.
pub(crate) fn apt_update() -> Call {
    Call::new("apt-get", ["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive")
}

/// Plans what `facts` still lack.
pub(crate) fn plan(facts: &Facts, packages: &dyn Packages) -> Plan {
    let mut planner = Planner {
        facts,
        packages,
        apt: Vec::new(),
        plan: Plan::default(),
    };
    planner.tools();
    let llvm = planner.compiler();
    planner.linker(llvm);
    planner.components();
    planner.tester();
    if !planner.apt.is_empty() {
        let call = Call::new("apt-get", ["install", "-y", "-q", "--no-install-recommends"])
            .args(planner.apt.iter().map(String::as_str))
            .env("DEBIAN_FRONTEND", "noninteractive");
        let step = Step {
            why: "install the distribution's packages".into(),
            call,
            root: true,
        };
        planner.plan.steps.insert(0, step);
    }
    planner.plan
}

/// A compiler that the plan installs.
struct Planned {
    /// Its LLVM's major version, where the package lists tell it.
    llvm: Option<u32>,
}

struct Planner<'a> {
    facts: &'a Facts,
    packages: &'a dyn Packages,
    /// Packages for one call of `apt-get`, which comes first.
    apt: Vec<String>,
    plan: Plan,
}

impl Planner<'_> {
    fn tools(&mut self) {
        if self.facts.scope < Scope::Everything {
            return;
        }
        let missing = &self.facts.tools_missing;
        match self.facts.manager {
            _ if missing.is_empty() => {}
            Manager::Apt => self.apt.extend(missing.iter().map(|tool| tool.apt.to_owned())),
            Manager::Dnf => {
                let call = Call::new("dnf", ["install", "-y"]).args(missing.iter().map(|tool| tool.dnf));
                self.plan.step("install the test tools", call, true);
            }
            Manager::Other => {
                let names: Vec<_> = missing.iter().map(|tool| tool.program).collect();
                let names = names.join(", ");
                self.plan.missing.push(format!(
                    "the tests need {names}: install them with your package manager"
                ));
            }
        }
        if !self.facts.bpffs {
            let call = Call::new("mount", ["-t", "bpf", "bpf", "/sys/fs/bpf"]);
            self.plan.step("mount the BPF file system", call, true);
        }
    }

    /// Plans for the API tester.
    fn tester(&mut self) {
        let Some(tester) = self.facts.tester.as_ref().filter(|tester| !tester.installed) else {
            return;
        };
        if !tester.python {
            match self.facts.manager {
                Manager::Apt => self.apt.extend(["python3".to_owned(), "python3-venv".to_owned()]),
                Manager::Dnf => {
                    let call = Call::new("dnf", ["install", "-y", "python3", "python3-pip"]);
                    self.plan.step("install Python for the API tester", call, true);
                }
                Manager::Other => self.plan.missing.push(
                    "the API tester needs Python 3 with its venv module: install it with your package manager".into(),
                ),
            }
        }
        for (why, call) in tester.steps() {
            self.plan.step(why, call, false);
        }
    }

    /// Plans for a compiler; the major version of its LLVM when it can be known already.
    fn compiler(&mut self) -> Option<u32> {
        if self.facts.rustup == Rustup::Absent {
            self.plan.missing.push(
                "Weir's build asks rustup for the BPF compiler, and there is no rustup: install it with \
                 `curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y` or as your \
                 distribution's package `rustup`"
                    .into(),
            );
            return None;
        }
        if let Some((name, compiler)) = &self.facts.named {
            let fault = match compiler {
                None => "is not a toolchain that rustup knows",
                Some(compiler) if compiler.usable() => return Some(compiler.llvm),
                Some(Compiler {
                    core: BpfCore::None, ..
                }) => "has neither rust-src nor a prebuilt BPF core",
                Some(_) => "is too old",
            };
            self.plan.missing.push(format!(
                "{TOOLCHAIN_VARIABLE} names {name:?}, which {fault}: name one with Rust {}.{} or later that can \
                 compile BPF, or unset the variable",
                OLDEST_RUST.0, OLDEST_RUST.1
            ));
            return None;
        }
        let installed = [self.facts.nightly, self.facts.linked]
            .into_iter()
            .flatten()
            .find(|it| it.usable());
        // An old nightly with sources would be taken before anything else, and fail.
        let old_nightly = self
            .facts
            .nightly
            .is_some_and(|it| it.core == BpfCore::Source && !it.usable());
        if let Some(compiler) = installed
            && !old_nightly
        {
            return Some(compiler.llvm);
        }
        if !old_nightly {
            if let Some(compiler) = self.facts.system.filter(|it| it.usable()) {
                self.link_system();
                return Some(compiler.llvm);
            }
            if let Some(planned) = self.distribution_compiler() {
                return planned.llvm;
            }
        }
        self.nightly()
    }

    fn link_system(&mut self) {
        let call = Call::new("rustup", ["toolchain", "link", LINKED, "/usr"]);
        self.plan
            .step("let rustup know the distribution's compiler", call, false);
    }

    /// Plans for the distribution's compiler, where it offers one.
    fn distribution_compiler(&mut self) -> Option<Planned> {
        // Its packages would push out a rustup that came as a package too.
        if self.facts.manager != Manager::Apt || self.facts.rustup != Rustup::Own {
            return None;
        }
        let mut release = None;
        for package in DISTRIBUTION_RUST {
            let candidate = self.packages.candidate(package);
            if candidate.is_none() {
                self.plan.unknown_packages.push(package.into());
            }
            let version = candidate
                .as_deref()
                .and_then(major_minor)
                .filter(|version| *version >= OLDEST_RUST);
            release = Some(version?);
        }
        let (major, minor) = release?;
        self.apt.extend(DISTRIBUTION_RUST.map(str::to_owned));
        self.link_system();
        if !self.facts.rustup_first {
            self.plan.notes.push(
                "these packages bring a /usr/bin/cargo, which comes before rustup's in PATH: put rustup's first \
                 with `export PATH=\"$HOME/.cargo/bin:$PATH\"`"
                    .into(),
            );
        }
        let depends = self.packages.depends(&format!("libstd-rust-web-{major}.{minor}"));
        Some(Planned {
            llvm: depends
                .iter()
                .find_map(|package| package.strip_prefix("libllvm")?.parse().ok()),
        })
    }

    fn nightly(&mut self) -> Option<u32> {
        match self.facts.nightly {
            Some(nightly) if nightly.release >= OLDEST_RUST => {
                let call = Call::new(
                    "rustup",
                    ["component", "add", "rust-src", "--toolchain", "nightly"],
                );
                self.plan.step("let nightly compile BPF", call, false);
                Some(nightly.llvm)
            }
            _ => {
                let call = Call::new("rustup", ["toolchain", "install", "nightly"]).args([
                    "--profile",
                    "minimal",
                    "--component",
                    "rust-src",
                ]);
                self.plan.step("install a compiler for BPF", call, false);
                None
            }
        }
    }

    fn linker(&mut self, llvm: Option<u32>) {
        let Some(llvm) = llvm else {
            if self.plan.missing.is_empty() {
                let text =
                    format!("bpf-linker {VERSION} for the new compiler's LLVM, once it is there to be asked");
                self.plan.later.push(text);
            }
            return;
        };
        if self.facts.linker.is_some_and(|linker| linker.fits(llvm)) {
            return;
        }
        if !LLVM_SUPPORTED.contains(&llvm) {
            let (first, last) = LLVM_SUPPORTED.into_inner();
            self.plan.missing.push(format!(
                "the BPF compiler has LLVM {llvm}, and bpf-linker {VERSION} knows {first} to {last}: install a \
                 toolchain with one of these and name it in {TOOLCHAIN_VARIABLE}"
            ));
            return;
        }
        let Some(prefix) = self.llvm_prefix(llvm) else {
            self.plan.missing.push(format!(
                "bpf-linker must be built for LLVM {llvm}, and its development files are not there: install them \
                 (on Debian and Ubuntu `llvm-{llvm}-dev`, which the LLVM project also packages) and set LLVM_PREFIX \
                 to where they are, or put a bpf-linker {VERSION} made for LLVM {llvm} into PATH"
            ));
            return;
        };
        let mut call = Call::new(
            "cargo",
            ["install", "bpf-linker", "--version", VERSION, "--locked"],
        )
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", prefix.to_string_lossy());
        if self.facts.linker.is_some() {
            call = call.args(["--force"]);
        }
        self.plan
            .step(format!("build bpf-linker for LLVM {llvm}"), call, false);
    }

    /// Where the development files of this LLVM are, or will be after the packages are installed.
    fn llvm_prefix(&mut self, llvm: u32) -> Option<PathBuf> {
        if let Some(prefix) = self.facts.llvm.get(&llvm) {
            return Some(prefix.clone());
        }
        if self.facts.manager != Manager::Apt {
            return None;
        }
        let package = format!("llvm-{llvm}-dev");
        if self.packages.candidate(&package).is_none() {
            self.plan.unknown_packages.push(package);
            return None;
        }
        self.apt.push(package);
        Some(format!("/usr/lib/llvm-{llvm}").into())
    }

    fn components(&mut self) {
        if self.facts.scope < Scope::Check || self.facts.components_missing.is_empty() {
            return;
        }
        if self.facts.rustup != Rustup::Absent {
            let call =
                Call::new("rustup", ["component", "add"]).args(self.facts.components_missing.iter().copied());
            self.plan
                .step("install the formatter and the linter", call, false);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
