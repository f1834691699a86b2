//! Which of the rights that Weir needs this process lacks, for errors that name them.

use std::fs;

/// The capabilities that Weir needs, and their bits (include/uapi/linux/capability.h).
const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38)];
/// Stands for `CAP_BPF` and `CAP_PERFMON`, but not for `CAP_NET_ADMIN`.
const SYS_ADMIN: u32 = 21;

/// The end of a sentence that begins "not permitted to …".
pub(super) fn advice() -> String {
    advise(effective())
}

/// Whether one of them is missing: without `CAP_PERFMON` the verifier refuses what it takes with it, and gives a reason that
/// helps nobody.
pub(super) fn incomplete() -> bool {
    effective().is_some_and(|effective| !missing(effective).is_empty())
}

/// The effective capabilities of this process.
fn effective() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    NEEDED
        .iter()
        .filter(|(name, bit)| !has(*bit) && (*name == "CAP_NET_ADMIN" || !has(SYS_ADMIN)))
        .map(|(name, _)| *name)
        .collect()
}

fn advise(effective: Option<u64>) -> String {
    const WAY: &str =
        "run weir as root, or give its service AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON";
    let Some(effective) = effective else {
        return WAY.to_owned();
    };
    let missing = missing(effective);
    if missing.is_empty() {
        // A security module, a container's filter, the file's owner: the capabilities are not what is missing.
        return "it has every capability that weir needs, so something else forbids it (a container, a security module, \
                or the owner of the file)"
            .to_owned();
    }
    format!("this process lacks {}: {WAY}", missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = NEEDED.iter().fold(0, |all, (_, bit)| all | 1 << bit);
        assert!(advise(Some(all)).contains("something else"));
        assert!(advise(Some(all & !(1 << 38))).contains("lacks CAP_PERFMON:"));
        assert!(advise(Some(1 << SYS_ADMIN)).contains("lacks CAP_NET_ADMIN:"));
        assert!(advise(Some(0)).contains("lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON:"));
        assert!(advise(None).starts_with("run weir as root"));
    }
}
