//! Every situation that set-up knows, as facts and the plan they lead to.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::{
    rights::Rights,
    setup::{facts::tools, linker::Linker, tester::Tester},
};

/// Package lists that offer what a test says.
#[derive(Default)]
struct Offered(HashMap<&'static str, &'static str>);

impl Packages for Offered {
    fn candidate(&self, package: &str) -> Option<String> {
        self.0.get(package).map(|version| (*version).to_owned())
    }

    fn depends(&self, package: &str) -> Vec<String> {
        assert_eq!(package, "libstd-rust-web-1.96");
        vec!["libc6".into(), "libllvm22".into()]
    }
}

fn nothing_offered() -> Offered {
    Offered::default()
}

fn debian() -> Offered {
    Offered(HashMap::from([
        ("rustc-web", "1.96.0+dfsg1-1~deb12u2"),
        ("cargo-web", "1.96.0+dfsg1-1~deb12u2"),
        ("libstd-rust-web-dev-bpf", "1.96.0+dfsg1-1~deb12u2"),
        ("llvm-22-dev", "1:22.1.8-1~deb12u1"),
    ]))
}

const NIGHTLY: Compiler = Compiler {
    release: (1, 97),
    llvm: 22,
    core: BpfCore::Source,
};
const DISTRIBUTION: Compiler = Compiler {
    release: (1, 96),
    llvm: 22,
    core: BpfCore::Prebuilt,
};
const WITHOUT_CORE: Compiler = Compiler {
    core: BpfCore::None,
    ..NIGHTLY
};
const LINKER: Linker = Linker {
    current: true,
    llvm: Some(22),
};

/// A machine with rustup, APT and nothing else.
fn bare() -> Facts {
    Facts {
        scope: Scope::Everything,
        rights: Rights::Root,
        rustup: Rustup::Own,
        rustup_first: true,
        named: None,
        nightly: None,
        linked: None,
        system: None,
        components_missing: vec!["rustfmt", "clippy"],
        linker: None,
        llvm: BTreeMap::new(),
        tools_missing: tools(Scope::Everything).collect(),
        bpffs: false,
        manager: Manager::Apt,
        tester: None,
    }
}

/// A machine that has everything.
fn ready() -> Facts {
    Facts {
        nightly: Some(NIGHTLY),
        components_missing: Vec::new(),
        linker: Some(LINKER),
        tools_missing: Vec::new(),
        bpffs: true,
        ..bare()
    }
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.call.to_string()).collect()
}

#[test]
fn a_ready_machine_needs_nothing() {
    assert_eq!(plan(&ready(), &nothing_offered()), Plan::default());
    let linked = Facts {
        nightly: Some(WITHOUT_CORE),
        linked: Some(DISTRIBUTION),
        ..ready()
    };
    assert_eq!(plan(&linked, &nothing_offered()), Plan::default());
}

#[test]
fn a_bare_debian_gets_its_own_compiler() {
    let plan = plan(&bare(), &debian());
    assert_eq!(
        commands(&plan),
        [
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends g++ iproute2 ethtool tcpdump \
             util-linux prometheus tshark fastnetmon rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev",
            "mount -t bpf bpf /sys/fs/bpf",
            "rustup toolchain link weir-bpf /usr",
            "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked --no-default-features \
             --features llvm-22",
            "rustup component add rustfmt clippy",
        ]
    );
    assert_eq!(
        plan.steps.iter().map(|step| step.root).collect::<Vec<_>>(),
        [true, true, false, false, false]
    );
    assert!(plan.missing.is_empty() && plan.notes.is_empty() && plan.later.is_empty());
}

#[test]
fn a_build_needs_neither_test_tools_nor_linter_nor_the_file_system() {
    let facts = Facts {
        scope: Scope::Build,
        nightly: Some(NIGHTLY),
        linker: Some(LINKER),
        ..bare()
    };
    assert_eq!(plan(&facts, &nothing_offered()), Plan::default());
}

#[test]
fn fresh_lists_are_asked_for_before_nightly_is_settled_on() {
    let plan = plan(&bare(), &nothing_offered());
    assert_eq!(plan.unknown_packages, ["rustc-web"]);
    assert!(
        commands(&plan)
            .iter()
            .any(|it| { it == "rustup toolchain install nightly --profile minimal --component rust-src" })
    );
    assert_eq!(
        plan.later,
        ["bpf-linker 0.13.0 for the new compiler's LLVM, once it is there to be asked"]
    );
}

#[test]
fn a_distribution_compiler_that_is_too_old_is_passed_over() {
    let mut offered = debian();
    offered.0.insert("rustc-web", "1.85.0+dfsg3-1");
    let plan = plan(&bare(), &offered);
    assert!(!commands(&plan)[0].contains("rustc-web"), "{plan:?}");
    assert!(
        commands(&plan)
            .iter()
            .any(|it| it.starts_with("rustup toolchain install nightly"))
    );
}

#[test]
fn a_packaged_rustup_is_not_pushed_out_by_the_distributions_compiler() {
    let plan = plan(
        &Facts {
            rustup: Rustup::Packaged,
            ..bare()
        },
        &debian(),
    );
    assert!(!commands(&plan)[0].contains("rustc-web"), "{plan:?}");
}

#[test]
fn an_installed_distribution_compiler_is_only_linked() {
    let facts = Facts {
        nightly: Some(WITHOUT_CORE),
        system: Some(DISTRIBUTION),
        ..ready()
    };
    assert_eq!(
        commands(&plan(&facts, &nothing_offered())),
        ["rustup toolchain link weir-bpf /usr"]
    );
}

#[test]
fn a_nightly_without_sources_gets_them_and_keeps_its_version() {
    let facts = Facts {
        manager: Manager::Other,
        nightly: Some(WITHOUT_CORE),
        ..ready()
    };
    assert_eq!(
        commands(&plan(&facts, &nothing_offered())),
        ["rustup component add rust-src --toolchain nightly"]
    );
}

#[test]
fn an_old_nightly_with_sources_is_renewed_because_the_build_would_take_it() {
    let old = Compiler {
        release: (1, 90),
        ..NIGHTLY
    };
    let facts = Facts {
        nightly: Some(old),
        linked: Some(DISTRIBUTION),
        ..ready()
    };
    assert_eq!(
        commands(&plan(&facts, &debian())),
        ["rustup toolchain install nightly --profile minimal --component rust-src"]
    );
}

#[test]
fn a_linker_for_another_llvm_is_replaced() {
    let linker = Some(Linker {
        llvm: Some(21),
        ..LINKER
    });
    let llvm = BTreeMap::from([(22, "/opt/llvm".into())]);
    let plan = plan(
        &Facts {
            linker,
            llvm,
            ..ready()
        },
        &nothing_offered(),
    );
    assert_eq!(
        commands(&plan),
        [
            "LLVM_PREFIX=/opt/llvm cargo install bpf-linker --version 0.13.0 --locked --no-default-features --features \
          llvm-22 --force"
        ]
    );
}

#[test]
fn an_llvm_that_nobody_packages_is_named() {
    let nightly = Some(Compiler { llvm: 23, ..NIGHTLY });
    let plan = plan(&Facts { nightly, ..ready() }, &debian());
    assert!(plan.steps.is_empty());
    assert_eq!(plan.unknown_packages, ["llvm-23-dev"]);
    assert_eq!(plan.missing.len(), 1);
    assert!(
        plan.missing[0].contains("LLVM 23") && plan.missing[0].contains("llvm-23-dev"),
        "{plan:?}"
    );
}

#[test]
fn an_llvm_that_the_linker_does_not_know_is_named() {
    let nightly = Some(Compiler { llvm: 24, ..NIGHTLY });
    let plan = plan(&Facts { nightly, ..ready() }, &debian());
    assert!(plan.steps.is_empty());
    assert!(
        plan.missing[0].contains("LLVM 24") && plan.missing[0].contains("21 to 23"),
        "{plan:?}"
    );
}

#[test]
fn a_named_toolchain_is_taken_or_refused_never_replaced() {
    let named = |compiler| Facts {
        nightly: None,
        named: Some(("mine".into(), compiler)),
        ..ready()
    };
    assert_eq!(plan(&named(Some(DISTRIBUTION)), &debian()), Plan::default());
    for (compiler, fault) in [
        (None, "is not a toolchain that rustup knows"),
        (Some(WITHOUT_CORE), "has neither rust-src nor a prebuilt BPF core"),
        (
            Some(Compiler {
                release: (1, 80),
                ..NIGHTLY
            }),
            "is too old",
        ),
    ] {
        let plan = plan(&named(compiler), &debian());
        assert!(plan.steps.is_empty(), "{plan:?}");
        assert!(
            plan.missing[0].contains("\"mine\"") && plan.missing[0].contains(fault),
            "{plan:?}"
        );
    }
}

#[test]
fn without_rustup_the_way_to_it_is_shown() {
    let plan = plan(
        &Facts {
            rustup: Rustup::Absent,
            nightly: None,
            ..ready()
        },
        &debian(),
    );
    assert!(plan.steps.is_empty());
    assert!(plan.missing[0].contains("https://sh.rustup.rs"), "{plan:?}");
}

#[test]
fn the_distributions_cargo_must_not_hide_rustups() {
    let plan = plan(
        &Facts {
            rustup_first: false,
            ..bare()
        },
        &debian(),
    );
    assert!(plan.notes[0].contains("export PATH="), "{plan:?}");
}

#[test]
fn other_kernels_need_a_machine_to_run_on() {
    let facts = Facts {
        scope: Scope::OtherKernels,
        tools_missing: tools(Scope::OtherKernels)
            .filter(|tool| tools(Scope::Everything).all(|other| other.program != tool.program))
            .collect(),
        ..ready()
    };
    assert_eq!(
        commands(&plan(&facts, &nothing_offered())),
        [
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends qemu-system-x86 \
             busybox-static cpio kmod"
        ]
    );
}

#[test]
fn fedora_gets_its_tools_by_their_names_there() {
    let facts = Facts {
        manager: Manager::Dnf,
        tools_missing: tools(Scope::Everything).collect(),
        ..ready()
    };
    assert_eq!(
        commands(&plan(&facts, &nothing_offered())),
        [
            "dnf install -y gcc-c++ iproute ethtool tcpdump util-linux golang-github-prometheus wireshark-cli fastnetmon"
        ]
    );
}

#[test]
fn elsewhere_the_missing_tools_are_named() {
    let facts = Facts {
        manager: Manager::Other,
        tools_missing: tools(Scope::Everything)
            .filter(|tool| tool.program == "tcpdump")
            .collect(),
        ..ready()
    };
    let plan = plan(&facts, &nothing_offered());
    assert_eq!(
        plan.missing,
        ["the tests need tcpdump: install them with your package manager"]
    );
}

#[test]
fn the_api_tester_gets_an_environment_of_its_own() {
    let mut facts = ready();
    let mut tester = Tester {
        python: true,
        installed: false,
        folder: "/t/schemathesis".into(),
        requirements: "/w/tests/api-tester.txt".into(),
    };
    facts.tester = Some(tester.clone());
    let calls = |facts: &Facts| -> Vec<String> {
        let plan = plan(facts, &debian());
        plan.steps.iter().map(|step| step.call.to_string()).collect()
    };
    let steps = calls(&facts);
    assert_eq!(steps[0], "python3 -m venv --clear /t/schemathesis");
    assert!(
        steps[1].starts_with("/t/schemathesis/bin/pip install")
            && steps[1].ends_with("-r /w/tests/api-tester.txt")
    );
    tester.python = false;
    facts.tester = Some(tester.clone());
    assert!(calls(&facts)[0].contains("python3-venv"), "{:?}", calls(&facts));
    tester.installed = true;
    facts.tester = Some(tester);
    assert!(calls(&facts).is_empty());
}
