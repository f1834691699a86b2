//! The machine as a whole: kernel, JIT, bpffs, rights and processors.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{FsType, statfs};

use super::Finding;

/// A kernel version, major and minor.
pub(super) type Version = (u32, u32);

/// Below this the kernel lacks what Weir cannot do without: the compare-and-swap in BPF came with 5.12, and 5.15 is the
/// first long-term kernel that has it.
const OLDEST: Version = (5, 15);
/// The oldest kernel that Weir's own tests run on (`cargo xtask test-kernels`).
const TESTED: Version = (6, 1);
/// `BPF_FS_MAGIC`.
const BPFFS_MAGIC: libc::__fsword_t = 0xcafe_4a11;
/// The capabilities that stand for root where BPF is concerned, as bits of `CapEff`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What the machine says of itself; `None` where it does not say.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) version: Option<Version>,
    release: String,
    btf: bool,
    jit: Option<u8>,
    jit_harden: Option<u8>,
    /// Where it was looked for, and whether that is a bpf file system.
    bpffs: PathBuf,
    on_bpffs: bool,
    capabilities: Option<u64>,
    unprivileged_bpf_disabled: Option<u8>,
    online: Option<u32>,
    possible: Option<u32>,
}

impl Facts {
    /// Asks the machine.
    pub(super) fn read(bpffs: &Path) -> Self {
        let release = line("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            version: version(&release),
            release,
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            jit_harden: number("/proc/sys/net/core/bpf_jit_harden"),
            bpffs: bpffs.to_owned(),
            on_bpffs: on_bpffs(bpffs),
            capabilities: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|text| effective(&text)),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            online: line("/sys/devices/system/cpu/online").and_then(|text| count_cpus(&text)),
            possible: line("/sys/devices/system/cpu/possible").and_then(|text| count_cpus(&text)),
        }
    }
}

/// Judges the machine.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![kernel(facts), capabilities(facts), bpffs(facts), jit(facts)];
    findings.extend(jit_harden(facts));
    findings.push(btf(facts));
    findings.push(unprivileged(facts));
    findings.extend(processors(facts));
    findings
}

fn kernel(facts: &Facts) -> Finding {
    let release = &facts.release;
    match facts.version {
        None => Finding::warn(
            "kernel",
            format!("cannot tell the kernel's version from {release:?}"),
            format!("Weir needs Linux {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        Some(version) if version < OLDEST => Finding::fail(
            "kernel",
            format!("Linux {release} is too old"),
            format!(
                "Weir needs Linux {}.{} or later: upgrade the kernel",
                OLDEST.0, OLDEST.1
            ),
        ),
        Some(version) if version < TESTED => Finding::warn(
            "kernel",
            format!(
                "Linux {release} has what Weir needs, but Weir's tests run on {}.{} and later",
                TESTED.0, TESTED.1
            ),
            "start with mode = \"monitor\" in the policy and watch weir status",
        ),
        Some(_) => Finding::ok("kernel", format!("Linux {release}")),
    }
}

fn capabilities(facts: &Facts) -> Finding {
    let Some(effective) = facts.capabilities else {
        return Finding::warn("capabilities", "cannot read /proc/self/status", "mount /proc");
    };
    let has = |bit: u32| effective >> bit & 1 == 1;
    let missing: Vec<&str> = [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, held)| (!held).then_some(name))
    .collect();
    if missing.is_empty() {
        Finding::ok(
            "capabilities",
            "this process may load BPF programs and attach them",
        )
    } else {
        Finding::fail(
            "capabilities",
            format!("this process lacks {}", missing.join(", ")),
            "run weir as root, or give its service AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        )
    }
}

fn bpffs(facts: &Facts) -> Finding {
    let place = facts.bpffs.display();
    if facts.on_bpffs {
        Finding::ok("bpffs", format!("{place} is on a bpf file system"))
    } else {
        Finding::fail(
            "bpffs",
            format!("{place} is not on a bpf file system"),
            "mount one: mount -t bpf bpf /sys/fs/bpf (systemd does it at boot; a container needs it mounted in)",
        )
    }
}

fn jit(facts: &Facts) -> Finding {
    match facts.jit {
        Some(0) => Finding::warn(
            "jit",
            "the BPF compiler is off: every packet is judged by an interpreter, many times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(2) => Finding::warn(
            "jit",
            "the BPF compiler is on and prints its output to the kernel log (a debugging setting)",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("jit", "the BPF compiler is on"),
        // Kernels built with BPF_JIT_ALWAYS_ON still have the file; without it there is no compiler to speak of, or
        // this is a network namespace that does not show it.
        None => Finding::warn(
            "jit",
            "cannot read net.core.bpf_jit_enable",
            "look at it in the host's network namespace; it should be 1",
        ),
    }
}

fn jit_harden(facts: &Facts) -> Option<Finding> {
    // 1 hardens unprivileged programs only, which Weir's are not.
    (facts.jit_harden == Some(2)).then(|| {
        Finding::warn(
            "jit_harden",
            "constants are blinded in every BPF program, which slows Weir's",
            "sysctl -w net.core.bpf_jit_harden=1 blinds those of unprivileged programs only",
        )
    })
}

fn btf(facts: &Facts) -> Finding {
    if facts.btf {
        Finding::ok("btf", "the kernel describes its types (BTF)")
    } else {
        Finding::ok("btf", "the kernel has no BTF")
            .note("Weir works without it; tools that show its maps are poorer")
    }
}

fn unprivileged(facts: &Facts) -> Finding {
    match facts.unprivileged_bpf_disabled {
        Some(0) => Finding::warn(
            "unprivileged_bpf",
            "every user may load BPF programs",
            "no business of Weir's, but seldom wanted: sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        Some(_) => Finding::ok("unprivileged_bpf", "only privileged users load BPF programs"),
        None => Finding::ok(
            "unprivileged_bpf",
            "this kernel has no switch for unprivileged BPF",
        ),
    }
}

fn processors(facts: &Facts) -> Option<Finding> {
    let (online, possible) = (facts.online?, facts.possible?);
    let what = format!("{online} online of {possible} possible");
    let finding = Finding::ok("cpus", what);
    // Counters exist once per possible CPU; clouds often declare many more than they give.
    Some(if possible >= 4 * online.max(1) {
        finding.note("counters are allocated for every possible CPU; possible_cpus= on the kernel command line lowers it")
    } else {
        finding
    })
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u8> {
    line(path)?.parse().ok()
}

/// Major and minor of a release such as `6.18.4-cloud`.
fn version(release: &str) -> Option<Version> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The effective capabilities in the text of `/proc/self/status`.
fn effective(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// How many CPUs a list such as `0-3,8` names.
fn count_cpus(list: &str) -> Option<u32> {
    list.split(',')
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high): (u32, u32) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            high.checked_sub(low)?.checked_add(1)
        })
        .try_fold(0_u32, |sum, count| sum.checked_add(count?))
}

/// True when `path`, or the nearest folder above it that exists, is on a bpf file system.
fn on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing
        .and_then(|existing| statfs(existing).ok())
        .is_some_and(|stat| stat.filesystem_type() == FsType(BPFFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    /// Breaks one thing about the machine.
    type Spoil = fn(&mut Facts);

    fn good() -> Facts {
        Facts {
            version: Some((6, 18)),
            release: "6.18.1".into(),
            btf: true,
            jit: Some(1),
            jit_harden: Some(0),
            bpffs: "/sys/fs/bpf/weir".into(),
            on_bpffs: true,
            capabilities: Some(u64::MAX),
            unprivileged_bpf_disabled: Some(2),
            online: Some(4),
            possible: Some(4),
        }
    }

    fn level(facts: &Facts, check: &str) -> Option<Level> {
        judge(facts)
            .into_iter()
            .find(|finding| finding.check == check)
            .map(|finding| finding.level)
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        assert!(
            judge(&good())
                .iter()
                .all(|finding| finding.level == Level::Ok && finding.mend.is_none())
        );
    }

    #[test]
    fn each_fault_is_found_and_says_how_to_mend_it() {
        let rows: [(&str, Level, Spoil); 12] = [
            ("kernel", Level::Fail, |facts| facts.version = Some((5, 10))),
            ("kernel", Level::Warn, |facts| facts.version = Some((5, 15))),
            ("kernel", Level::Warn, |facts| facts.version = None),
            ("capabilities", Level::Fail, |facts| facts.capabilities = Some(0)),
            ("capabilities", Level::Fail, |facts| {
                facts.capabilities = Some(1 << CAP_SYS_ADMIN);
            }),
            ("capabilities", Level::Warn, |facts| facts.capabilities = None),
            ("bpffs", Level::Fail, |facts| facts.on_bpffs = false),
            ("jit", Level::Warn, |facts| facts.jit = Some(0)),
            ("jit", Level::Warn, |facts| facts.jit = Some(2)),
            ("jit", Level::Warn, |facts| facts.jit = None),
            ("jit_harden", Level::Warn, |facts| facts.jit_harden = Some(2)),
            ("unprivileged_bpf", Level::Warn, |facts| {
                facts.unprivileged_bpf_disabled = Some(0);
            }),
        ];
        for (check, expected, spoil) in rows {
            let mut facts = good();
            spoil(&mut facts);
            assert_eq!(level(&facts, check), Some(expected), "{check}");
            let faults: Vec<_> = judge(&facts)
                .into_iter()
                .filter(|finding| finding.level != Level::Ok)
                .collect();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].mend.is_some(), "{faults:?}");
        }
    }

    #[test]
    fn three_capabilities_are_enough() {
        let facts = Facts {
            capabilities: Some(1 << CAP_BPF | 1 << CAP_NET_ADMIN | 1 << CAP_PERFMON),
            ..good()
        };
        assert_eq!(level(&facts, "capabilities"), Some(Level::Ok));
    }

    #[test]
    fn releases_are_read() {
        for (release, expected) in [
            ("6.18.44-fc-v595", Some((6, 18))),
            ("5.15.0-119-generic", Some((5, 15))),
            ("6.1", Some((6, 1))),
            ("6.12-rc1", Some((6, 12))),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn capabilities_are_read() {
        let status =
            "Name:\tweir\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t000000c000001000\n";
        assert_eq!(effective(status), Some(0xc0_0000_1000));
        assert_eq!(effective("Name:\tweir\n"), None);
        assert_eq!(effective("CapEff:\tzz\n"), None);
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        for (list, expected) in [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
            ("x", None),
        ] {
            assert_eq!(count_cpus(list), expected, "{list}");
        }
    }

    #[test]
    fn many_possible_cpus_are_remarked() {
        let facts = Facts {
            possible: Some(64),
            ..good()
        };
        let finding = judge(&facts)
            .into_iter()
            .find(|finding| finding.check == "cpus")
            .unwrap();
        assert_eq!(finding.level, Level::Ok);
        assert!(finding.mend.is_some());
    }
}
