//! What Weir is measured beside. The benchmark goes on without what cannot be had, and names it: nothing here is an error.

use super::{
    facts::{Manager, Tool, find_program},
    plan,
};
use crate::{call::Call, rights::Rights};

/// The filters that a user might take instead.
const RIVALS: [Tool; 3] = [
    Tool::of_bench("nft", "nftables"),
    Tool::of_bench("iptables", "iptables"),
    Tool::of_bench("xdp-filter", "xdp-tools"),
];

/// Installs those that are missing, each by itself: a distribution may have some and not others.
pub(crate) fn install() {
    let missing: Vec<&Tool> = RIVALS
        .iter()
        .filter(|tool| find_program(tool.program).is_none())
        .collect();
    let rights = Rights::of_this_process();
    if missing.is_empty() || rights == Rights::None {
        return;
    }
    let mut refreshed = false;
    for tool in missing {
        let Some(install) = call(Manager::of_this_machine(), tool) else {
            return;
        };
        let install = install.as_root(rights);
        // On standard error: what comes after on standard output may be for a machine.
        eprintln!("setup: $ {install}");
        let mut done = install.probe().is_some();
        if !done && !refreshed && Manager::of_this_machine() == Manager::Apt {
            let update = plan::apt_update().as_root(rights);
            eprintln!("setup: that failed, perhaps for old package lists\nsetup: $ {update}");
            refreshed = true;
            done = update.probe().is_some() && install.probe().is_some();
        }
        if !done {
            eprintln!("setup: no {} then: the benchmark leaves it out", tool.program);
        }
    }
}

/// How a package manager installs a program; nothing where there is none that is known.
fn call(manager: Manager, tool: &Tool) -> Option<Call> {
    match manager {
        Manager::Apt => Some(
            Call::new(
                "apt-get",
                ["install", "-y", "-q", "--no-install-recommends", tool.apt],
            )
            .env("DEBIAN_FRONTEND", "noninteractive"),
        ),
        Manager::Dnf => Some(Call::new("dnf", ["install", "-y", tool.dnf])),
        Manager::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_manager_is_asked_in_its_own_words() {
        let said = |manager| call(manager, &RIVALS[2]).map(|call| call.to_string());
        let apt = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends xdp-tools"
            .to_owned();
        assert_eq!(said(Manager::Apt), Some(apt));
        assert_eq!(said(Manager::Dnf), Some("dnf install -y xdp-tools".to_owned()));
        assert_eq!(said(Manager::Other), None);
    }
}
