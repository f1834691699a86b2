//! Whether this process may do what only root may.

use std::fs;

use crate::call::Call;

/// How far the user's rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The process runs as root.
    Root,
    /// `sudo` works without asking for a password.
    Sudo,
    /// Neither.
    None,
}

impl Rights {
    /// The rights of this process.
    pub(crate) fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if effective_uid(&status) == Some(0) {
            Self::Root
        } else if Call::new("sudo", ["-n", "true"]).probe().is_some() {
            Self::Sudo
        } else {
            Self::None
        }
    }
}

/// The effective user id from the text of `/proc/<pid>/status`.
fn effective_uid(status: &str) -> Option<u32> {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_effective_user() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }
}
