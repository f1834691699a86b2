//! What Weir is measured beside. The benchmark goes on without what cannot be had, and names it: nothing here is an error.

use super::{
    facts::{Manager, find_program},
    plan,
};
use crate::{call::Call, rights::Rights};

/// The filters that a user might take instead: the program, and the package that has it in every distribution that is known.
const RIVALS: [(&str, &str); 3] = [
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("xdp-filter", "xdp-tools"),
];

/// Installs those that are missing, each by itself: a distribution may have some and not others.
pub(crate) fn install() {
    let rights = Rights::of_this_process();
    if rights == Rights::None {
        // Whoever may not install may not measure either, and is told so next.
        return;
    }
    let manager = Manager::of_this_machine();
    let mut refreshed = false;
    for (program, package) in RIVALS {
        if find_program(program).is_some() {
            continue;
        }
        let Some(install) = call(manager, package) else {
            return;
        };
        let install = install.as_root(rights);
        // On standard error: what comes after on standard output may be for a machine.
        eprintln!("setup: $ {install}");
        let mut done = install.probe().is_some();
        if !done && !refreshed && manager == Manager::Apt {
            let update = plan::apt_update().as_root(rights);
            eprintln!("setup: that failed, perhaps for old package lists\nsetup: $ {update}");
            refreshed = true;
            done = update.probe().is_some() && install.probe().is_some();
        }
        if !done {
            eprintln!("setup: no {program} then: the benchmark leaves it out");
        }
    }
}

/// How a package manager installs a package; nothing where there is none that is known.
fn call(manager: Manager, package: &str) -> Option<Call> {
    match manager {
        Manager::Apt => Some(
            Call::new(
                "apt-get",
                ["install", "-y", "-q", "--no-install-recommends", package],
            )
            .env("DEBIAN_FRONTEND", "noninteractive"),
        ),
        Manager::Dnf => Some(Call::new("dnf", ["install", "-y", package])),
        Manager::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_manager_is_asked_in_its_own_words() {
        let said = |manager| call(manager, "xdp-tools").map(|call| call.to_string());
        let apt = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends xdp-tools"
            .to_owned();
        assert_eq!(said(Manager::Apt), Some(apt));
        assert_eq!(said(Manager::Dnf), Some("dnf install -y xdp-tools".to_owned()));
        assert_eq!(said(Manager::Other), None);
    }
}
