//! What this machine has: everything that the planner decides from, gathered without changing anything.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    linker::{self, Linker},
    tester::Tester,
};
use crate::{call::Call, rights::Rights};

/// The rustup name under which a distribution's toolchain with a prebuilt BPF core is linked. The
/// controller's build script looks for it.
pub(crate) const LINKED: &str = "weir-bpf";
/// The environment variable that names another toolchain for the BPF half.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "WEIR_BPF_TOOLCHAIN";
/// The oldest Rust that compiles Weir, as major and minor version.
pub(crate) const OLDEST_RUST: (u32, u32) = (1, 95);

/// How much of the set-up a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// What compiles Weir.
    Build,
    /// That, and what formats and lints it.
    Check,
    /// That, and what the tests in the kernel use.
    Everything,
    /// That, and what boots other kernels.
    OtherKernels,
}

/// Where a toolchain's `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BpfCore {
    /// The `rust-src` component, compiled along.
    Source,
    /// A prebuilt library.
    Prebuilt,
    /// Nowhere.
    None,
}

/// A toolchain as far as BPF is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Major and minor version of `rustc`.
    pub(crate) release: (u32, u32),
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    pub(crate) core: BpfCore,
}

impl Compiler {
    /// Whether it can compile Weir's kernel half.
    pub(crate) fn usable(self) -> bool {
        self.core != BpfCore::None && self.release >= OLDEST_RUST
    }
}

/// How rustup came to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rustup {
    /// By its own installer: it lives beside the distribution's packages.
    Own,
    /// As a distribution's package, which conflicts with the distribution's own compiler.
    Packaged,
    /// It is not there.
    Absent,
}

/// A program that the tests in the kernel use, and the packages it is in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// What needs it first.
    scope: Scope,
    pub(crate) apt: &'static str,
    pub(crate) dnf: &'static str,
}

/// The programs that the tests in the kernel use, this one and others.
const TOOLS: [Tool; 12] = [
    // For libFuzzer.
    Tool {
        program: "c++",
        scope: Scope::Everything,
        apt: "g++",
        dnf: "gcc-c++",
    },
    Tool {
        program: "ip",
        scope: Scope::Everything,
        apt: "iproute2",
        dnf: "iproute",
    },
    Tool {
        program: "ethtool",
        scope: Scope::Everything,
        apt: "ethtool",
        dnf: "ethtool",
    },
    Tool {
        program: "tcpdump",
        scope: Scope::Everything,
        apt: "tcpdump",
        dnf: "tcpdump",
    },
    Tool {
        program: "nsenter",
        scope: Scope::Everything,
        apt: "util-linux",
        dnf: "util-linux",
    },
    // Brings promtool, too.
    Tool {
        program: "prometheus",
        scope: Scope::Everything,
        apt: "prometheus",
        dnf: "golang-github-prometheus",
    },
    // Reads what Weir exports, independently of it.
    Tool {
        program: "tshark",
        scope: Scope::Everything,
        apt: "tshark",
        dnf: "wireshark-cli",
    },
    // A collector of sFlow.
    Tool {
        program: "fastnetmon",
        scope: Scope::Everything,
        apt: "fastnetmon",
        dnf: "fastnetmon",
    },
    Tool {
        program: "qemu-system-x86_64",
        scope: Scope::OtherKernels,
        apt: "qemu-system-x86",
        dnf: "qemu-system-x86-core",
    },
    Tool {
        program: "busybox",
        scope: Scope::OtherKernels,
        apt: "busybox-static",
        dnf: "busybox",
    },
    Tool {
        program: "cpio",
        scope: Scope::OtherKernels,
        apt: "cpio",
        dnf: "cpio",
    },
    Tool {
        program: "depmod",
        scope: Scope::OtherKernels,
        apt: "kmod",
        dnf: "kmod",
    },
];

/// The programs that a scope needs.
pub(crate) fn tools(scope: Scope) -> impl Iterator<Item = &'static Tool> {
    TOOLS.iter().filter(move |tool| tool.scope <= scope)
}

/// The package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Other,
}

impl Manager {
    /// The first of those that are known.
    pub(crate) fn of_this_machine() -> Self {
        if find_program("apt-get").is_some() {
            Self::Apt
        } else if find_program("dnf").is_some() {
            Self::Dnf
        } else {
            Self::Other
        }
    }
}

/// The state of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) scope: Scope,
    pub(crate) rights: Rights,
    pub(crate) rustup: Rustup,
    /// Whether rustup's `cargo` comes before `/usr/bin` in `PATH`.
    pub(crate) rustup_first: bool,
    /// The toolchain that `WEIR_BPF_TOOLCHAIN` names, and what is known of it.
    pub(crate) named: Option<(String, Option<Compiler>)>,
    pub(crate) nightly: Option<Compiler>,
    pub(crate) linked: Option<Compiler>,
    /// The distribution's own compiler in `/usr`.
    pub(crate) system: Option<Compiler>,
    /// Components that the checks need and the active toolchain lacks.
    pub(crate) components_missing: Vec<&'static str>,
    pub(crate) linker: Option<Linker>,
    /// LLVM development files, by major version: the prefix they are installed under.
    pub(crate) llvm: BTreeMap<u32, PathBuf>,
    pub(crate) tools_missing: Vec<&'static Tool>,
    /// Whether a BPF file system is mounted at `/sys/fs/bpf`.
    pub(crate) bpffs: bool,
    pub(crate) manager: Manager,
    /// The API tester, where the scope needs it.
    pub(crate) tester: Option<Tester>,
}

impl Facts {
    /// Looks at this machine.
    pub(crate) fn gather(scope: Scope) -> Self {
        let rustup_path = find_program("rustup");
        let rustup = match &rustup_path {
            None => Rustup::Absent,
            Some(path) if path.starts_with("/usr/bin") || path.starts_with("/bin") => Rustup::Packaged,
            Some(_) => Rustup::Own,
        };
        let named = env::var(TOOLCHAIN_VARIABLE).ok().map(|name| {
            let compiler = rustup_compiler(&name);
            (name, compiler)
        });
        // In the order in which the build script looks; what comes after the first usable one is not asked for.
        let nightly = if named.is_none() {
            rustup_compiler("nightly")
        } else {
            None
        };
        let decided = named.is_some() || nightly.is_some_and(Compiler::usable);
        let linked = if decided { None } else { rustup_compiler(LINKED) };
        let decided = decided || linked.is_some_and(Compiler::usable);
        let system = if decided {
            None
        } else {
            compiler_at(Path::new("/usr"))
        };
        Self {
            scope,
            rights: Rights::of_this_process(),
            rustup,
            rustup_first: rustup_path.is_some_and(|path| comes_before_usr_bin(&path)),
            named,
            nightly,
            linked,
            system,
            components_missing: if scope >= Scope::Check {
                components_missing()
            } else {
                Vec::new()
            },
            linker: linker::find(),
            llvm: llvm_prefixes(),
            tools_missing: tools(scope)
                .filter(|tool| find_program(tool.program).is_none())
                .collect(),
            tester: (scope >= Scope::Everything).then(Tester::find),
            bpffs: bpffs_mounted(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
            manager: Manager::of_this_machine(),
        }
    }
}

/// The first `program` in `PATH` or, since ordinary users often lack them there, in the system's
/// own directories.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn comes_before_usr_bin(rustup: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let first = env::split_paths(&path).find(|dir| {
        Some(dir.as_path()) == rustup.parent() || dir == Path::new("/usr/bin") || dir == Path::new("/bin")
    });
    first.as_deref() == rustup.parent()
}

fn rustup_compiler(toolchain: &str) -> Option<Compiler> {
    let sysroot = Call::new("rustup", ["run", toolchain, "rustc", "--print", "sysroot"]).probe()?;
    compiler_at(Path::new(sysroot.trim()))
}

/// The compiler whose sysroot this is, asked directly: rustup's proxies cost more than the question.
fn compiler_at(sysroot: &Path) -> Option<Compiler> {
    let library = sysroot.join("lib/rustlib");
    let core = if library.join("src/rust/library/core").is_dir() {
        BpfCore::Source
    } else if library.join("bpfel-unknown-none/lib").is_dir() {
        BpfCore::Prebuilt
    } else {
        BpfCore::None
    };
    let rustc = sysroot.join("bin/rustc");
    let (release, llvm) = versions(&Call::new(rustc.to_string_lossy(), ["-vV"]).probe()?)?;
    Some(Compiler { release, llvm, core })
}

/// The compiler's version and its LLVM's major version, from what `rustc -vV` prints.
fn versions(verbose: &str) -> Option<((u32, u32), u32)> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
    let release = major_minor(field("release: ")?)?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// `1.96.0` or `1:1.96.0+dfsg1-1` as `(1, 96)`.
pub(crate) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let without_epoch = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = without_epoch.split('.').map(|part| part.trim().parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn components_missing() -> Vec<&'static str> {
    let Some(sysroot) = Call::new("rustc", ["--print", "sysroot"]).probe() else {
        return Vec::new();
    };
    let bin = Path::new(sysroot.trim()).join("bin");
    [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")]
        .into_iter()
        .filter(|(program, _)| !bin.join(program).is_file())
        .map(|(_, component)| component)
        .collect()
}

/// Installed LLVM development files: what `LLVM_PREFIX` names, and Debian's way to install several.
fn llvm_prefixes() -> BTreeMap<u32, PathBuf> {
    let installed = |prefix: &Path| prefix.join("lib/libLLVM.so").exists();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(Ok(major)) = name.strip_prefix("llvm-").map(str::parse)
            && installed(&entry.path())
        {
            found.insert(major, entry.path());
        }
    }
    if let Some(prefix) = env::var_os("LLVM_PREFIX").map(PathBuf::from) {
        let config = prefix.join("bin/llvm-config");
        let version = Call::new(config.to_string_lossy(), ["--version"]).probe();
        if let Some((major, _)) = version.as_deref().and_then(major_minor)
            && installed(&prefix)
        {
            found.insert(major, prefix);
        }
    }
    found
}

fn bpffs_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_verbose_text() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(versions(text), Some(((1, 97), 22)));
        assert_eq!(versions("release: 1.97.0\n"), None);
    }

    #[test]
    fn package_versions_lose_epoch_and_revision() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("1:22.1.8-1"), Some((22, 1)));
        assert_eq!(major_minor("(none)"), None);
    }

    #[test]
    fn a_compiler_needs_a_core_and_the_age() {
        let good = Compiler {
            release: OLDEST_RUST,
            llvm: 22,
            core: BpfCore::Source,
        };
        assert!(good.usable());
        assert!(
            !Compiler {
                core: BpfCore::None,
                ..good
            }
            .usable()
        );
        assert!(
            !Compiler {
                release: (1, 94),
                ..good
            }
            .usable()
        );
    }

    #[test]
    fn only_a_bpf_file_system_at_its_place_counts() {
        assert!(bpffs_mounted(
            "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"
        ));
        assert!(!bpffs_mounted("bpf /run/bpf bpf rw 0 0\n"));
        assert!(!bpffs_mounted("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
