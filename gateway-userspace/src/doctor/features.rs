//! What the kernel's BPF can do, found by trying: programs and maps are made and dropped again at once.

use std::io;

use aya::{
    maps::{Array, MapError, MapType},
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, SyscallError, is_helper_supported, is_map_supported, is_program_supported},
};

use super::{Finding, system::Facts};

/// `BPF_F_MMAPABLE`: values that the controller reads without a system call each.
const MMAPABLE: u32 = 1 << 10;

/// What came of trying something.
#[derive(Debug)]
enum Tried {
    Works,
    Absent,
    /// This process may not try.
    NotPermitted,
    /// It could not be tried, for this reason.
    Unclear(String),
}

/// One thing to try, and what it is for.
struct Trial {
    what: &'static str,
    /// What to do about it when it is absent.
    mend: &'static str,
    /// Whether Weir works without it.
    needed: bool,
    run: fn() -> Tried,
}

const TRIALS: [Trial; 10] = [
    Trial {
        what: "XDP programs",
        mend: "Weir needs a kernel with CONFIG_BPF_SYSCALL and XDP",
        needed: true,
        run: || program(ProgramType::Xdp),
    },
    Trial {
        what: "prefix tries (lists and bans)",
        mend: "Weir needs a kernel with BPF_MAP_TYPE_LPM_TRIE",
        needed: true,
        run: || map(MapType::LpmTrie),
    },
    Trial {
        what: "maps in maps (policies that switch at once)",
        mend: "Weir needs a kernel with BPF_MAP_TYPE_ARRAY_OF_MAPS",
        needed: true,
        run: || map(MapType::ArrayOfMaps),
    },
    Trial {
        what: "per-CPU arrays (counters)",
        mend: "Weir needs a kernel with BPF_MAP_TYPE_PERCPU_ARRAY",
        needed: true,
        run: || map(MapType::PerCpuArray),
    },
    Trial {
        what: "arrays that can be mapped into memory",
        mend: "Weir needs Linux 5.5 or later for them",
        needed: true,
        run: mappable_array,
    },
    Trial {
        what: "ring buffers (events of the packet path)",
        mend: "Weir needs Linux 5.8 or later for them",
        needed: true,
        run: || map(MapType::RingBuf),
    },
    Trial {
        what: "programs in the host's TCP (handshakes that prove a source)",
        mend: "sources are proven by handshakes that pass through, and by nothing else",
        needed: false,
        run: || program(ProgramType::SockOps),
    },
    Trial {
        what: "programs on the way out (handshakes that pass through)",
        mend: "sources are proven by connections of this host, and by nothing else",
        needed: false,
        run: || program(ProgramType::SchedClassifier),
    },
    Trial {
        what: "socket lookups for TCP (replies = \"socket\")",
        mend: "with action = \"drop\", write replies = \"none\" and name the services that answers come to",
        needed: false,
        run: || helper(BpfHelper::BPF_FUNC_skc_lookup_tcp),
    },
    Trial {
        what: "socket lookups for UDP (replies = \"socket\")",
        mend: "with action = \"drop\", write replies = \"none\" and name the services that answers come to",
        needed: false,
        run: || helper(BpfHelper::BPF_FUNC_sk_lookup_udp),
    },
];

/// Tries everything and judges what came of it.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for trial in &TRIALS {
        let tried = (trial.run)();
        if matches!(tried, Tried::NotPermitted) {
            // The others would only say the same.
            findings.push(Finding::warn(
                "features",
                "this process may not try what the kernel's BPF can do",
                "run weir doctor as root",
            ));
            break;
        }
        findings.push(judge(trial, tried));
    }
    // The kernel can be asked for a compare-and-swap only by a program that has one; the version answers as well.
    if let Some(version) = facts.version.filter(|version| *version < (5, 12)) {
        findings.push(Finding::fail(
            "features",
            format!("Linux {}.{} has no compare-and-swap in BPF", version.0, version.1),
            "Weir needs Linux 5.12 or later for it",
        ));
    }
    findings
}

fn judge(trial: &Trial, tried: Tried) -> Finding {
    match tried {
        Tried::Works => Finding::ok("features", format!("the kernel has {}", trial.what)),
        Tried::Absent if trial.needed => Finding::fail(
            "features",
            format!("the kernel has no {}", trial.what),
            trial.mend,
        ),
        Tried::Absent => Finding::warn(
            "features",
            format!("the kernel has no {}", trial.what),
            trial.mend,
        ),
        Tried::NotPermitted => Finding::warn(
            "features",
            format!("not permitted to try {}", trial.what),
            "run weir doctor as root",
        ),
        Tried::Unclear(why) => Finding::warn(
            "features",
            format!("cannot tell whether the kernel has {}: {why}", trial.what),
            trial.mend,
        ),
    }
}

fn program(kind: ProgramType) -> Tried {
    of_program(is_program_supported(kind))
}

fn helper(helper: BpfHelper) -> Tried {
    of_program(is_helper_supported(ProgramType::Xdp, helper))
}

fn of_program(answer: Result<bool, ProgramError>) -> Tried {
    match answer {
        Ok(true) => Tried::Works,
        Ok(false) => Tried::Absent,
        Err(ProgramError::SyscallError(error)) => of_error(&error.io_error),
        Err(ProgramError::LoadError { io_error, .. }) => of_error(&io_error),
        Err(error) => Tried::Unclear(error.to_string()),
    }
}

fn map(kind: MapType) -> Tried {
    match is_map_supported(kind) {
        Ok(true) => Tried::Works,
        Ok(false) => Tried::Absent,
        Err(SyscallError { io_error, .. }) => of_error(&io_error),
    }
}

fn mappable_array() -> Tried {
    match Array::<_, u64>::create(1, MMAPABLE) {
        Ok(_) => Tried::Works,
        Err(MapError::CreateError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EINVAL) => {
            Tried::Absent
        }
        Err(MapError::CreateError { io_error, .. }) => of_error(&io_error),
        Err(error) => Tried::Unclear(error.to_string()),
    }
}

fn of_error(error: &io::Error) -> Tried {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Tried::NotPermitted,
        _ => Tried::Unclear(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_is_needed_fails_and_the_rest_warns() {
        let needed = &TRIALS[0];
        let optional = TRIALS.iter().find(|trial| !trial.needed).unwrap();
        assert_eq!(judge(needed, Tried::Works).level, Level::Ok);
        assert_eq!(judge(needed, Tried::Absent).level, Level::Fail);
        assert_eq!(judge(optional, Tried::Absent).level, Level::Warn);
        assert_eq!(judge(needed, Tried::Unclear("odd".into())).level, Level::Warn);
    }

    #[test]
    fn a_lack_of_rights_is_told_from_a_lack_of_a_feature() {
        assert!(matches!(
            of_error(&io::Error::from_raw_os_error(libc::EPERM)),
            Tried::NotPermitted
        ));
        assert!(matches!(
            of_error(&io::Error::from_raw_os_error(libc::ENOMEM)),
            Tried::Unclear(_)
        ));
    }
}
