//! Names that tell who made a thing, so that leftovers can be told from what is in use.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

/// What every name of the laboratory begins with.
const PREFIX: &str = "weir-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test, thread or process uses: `weir-<pid>-<counter>-<hint>`.
pub fn unique(hint: &str) -> String {
    let counter = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{counter}-{hint}", std::process::id())
}

/// The process that made `name`, or `None` if the name is not one of [`unique`]'s.
pub fn maker(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let counter: Result<u32, _> = parts.next()?.parse();
    counter.is_ok().then_some(())?;
    parts.next().map(|_| pid)
}

/// Whether `name` is one of ours and the process that made it is gone.
pub fn is_leftover(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_name_their_maker() {
        let (a, b) = (unique("x"), unique("x"));
        assert_ne!(a, b);
        assert_eq!(maker(&a), Some(std::process::id()));
        assert!(!is_leftover(&a));
    }

    #[test]
    fn other_names_are_never_taken_for_leftovers() {
        for name in [
            "weir",
            "weir-",
            "weir-lab",
            "weir-4194999-x",
            "weir-4194999-0",
            "other-4194999-0-x",
            "eth0",
        ] {
            assert!(!is_leftover(name), "{name}");
        }
        // Above the kernel's largest process id, so that no such process can exist.
        assert!(is_leftover("weir-4194999-0-x"));
    }
}
