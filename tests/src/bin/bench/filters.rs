//! What can stand before the node's stack: Weir, and what a user might take instead, each with the same limit.

use std::{os::fd::OwnedFd, process::Command, time::Duration};

use anyhow::{Result, ensure};
use weir_tests::{
    bpf::program::{DROP, PASS},
    command::finish,
    daemon::Daemon,
    netns::Netns,
};

use crate::programs;

/// What is asked of a filter: to drop everything of whoever is over the limit, or to let everybody be within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// One packet a second and source; what is within it, one packet a second of all sources.
    Over,
    /// Ten thousand packets a second and source.
    Within,
}

/// The rate, also the burst, of [`Limit::Within`].
const ENOUGH: u32 = 10_000;
/// Sources that the other filters must have room for: a bound, up to which they take memory as sources come.
const SOURCES: u32 = 4_000_000;
/// Slots of Weir's table where a million sources are over their limit: twice as many, as it is to have of sources in debt. Where all are within it hardly any are
/// in debt at one moment, and the policy speaks of no slots, as policies do not.
const SLOTS: u32 = 2_000_000;

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// None at all; the interface receives by the same path.
    Nothing,
    /// An XDP program that answers at once.
    Bare,
    /// Weir, as a policy that speaks of nothing but the limit has it.
    Weir,
    /// Weir without samples and profiles.
    Blind,
    /// nftables in netdev's ingress hook.
    NftIngress,
    /// nftables in ip's prerouting hook, before connection tracking.
    NftPrerouting,
    /// iptables' hashlimit in raw's PREROUTING.
    Hashlimit,
    /// xdp-filter with a list of denied sources.
    DenyList,
}

/// Something that is in force as long as it lasts.
pub(crate) enum Hold<'n> {
    Nothing,
    Link { _link: OwnedFd },
    Daemon { _daemon: Box<Daemon<'n>> },
}

impl Filter {
    pub(crate) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Bare,
        Self::Weir,
        Self::Blind,
        Self::NftIngress,
        Self::NftPrerouting,
        Self::Hashlimit,
        Self::DenyList,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no filter",
            Self::Bare => "bare XDP program",
            Self::Weir => "Weir",
            Self::Blind => "Weir, neither samples nor profiles",
            Self::NftIngress => "nftables, netdev ingress",
            Self::NftPrerouting => "nftables, ip prerouting",
            Self::Hashlimit => "iptables hashlimit, raw PREROUTING",
            Self::DenyList => "xdp-filter, deny list",
        }
    }

    /// The program that it is set up with, when that is not Weir's own.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::NftIngress | Self::NftPrerouting => Some("nft"),
            Self::Hashlimit => Some("iptables"),
            Self::DenyList => Some("xdp-filter"),
            _ => None,
        }
    }

    /// Why it is left out on this machine.
    pub(crate) fn left_out(self) -> Option<String> {
        let program = self.program()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        (!there).then(|| format!("{}: `{program}` is not installed", self.name()))
    }

    /// Whether it can do this for so many sources: what knows no rates only drops, and a list is made for one source.
    pub(crate) fn serves(self, limit: Limit, sources: u32) -> bool {
        match self {
            Self::Nothing => limit == Limit::Within,
            Self::DenyList => limit == Limit::Over && sources == 1,
            _ => true,
        }
    }

    /// Puts it in force on an interface. `denied` is the one source of an address list.
    pub(crate) fn install<'n>(
        self,
        netns: &'n Netns,
        dev: &str,
        limit: Limit,
        denied: &str,
    ) -> Result<Hold<'n>> {
        match self {
            Self::Nothing => {}
            Self::Bare => {
                let program = programs::bare(if limit == Limit::Over { DROP } else { PASS })?;
                return Ok(Hold::Link {
                    _link: program.link(netns, dev)?,
                });
            }
            Self::Weir | Self::Blind => {
                let policy = policy(limit, self == Self::Blind);
                return Ok(Hold::Daemon {
                    _daemon: Box::new(Daemon::run(netns, &[dev], &policy)?),
                });
            }
            Self::NftIngress => {
                let hook = format!("hook ingress device \"{dev}\" priority 0;");
                feed(
                    netns.command("nft").args(["-f", "-"]),
                    &rules("netdev", &hook, limit),
                )?;
            }
            Self::NftPrerouting => {
                let hook = "hook prerouting priority raw;";
                feed(netns.command("nft").args(["-f", "-"]), &rules("ip", hook, limit))?;
            }
            Self::Hashlimit => hashlimit(netns, limit)?,
            Self::DenyList => {
                let mut load = netns.command("xdp-filter");
                load.args(["load", "--mode", "native", "--policy", "allow"]);
                feed(load.args(["--features", "ipv4,udp", dev]), "")?;
                feed(
                    netns.command("xdp-filter").args(["ip", denied, "--mode", "src"]),
                    "",
                )?;
            }
        }
        Ok(Hold::Nothing)
    }

    /// Takes off what outlives the namespace.
    pub(crate) fn remove(self, netns: &Netns, dev: &str) {
        if self == Self::DenyList {
            let _ = netns.command("xdp-filter").args(["unload", dev]).output();
        }
    }
}

/// Runs a command to its end with this input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let output = finish(command, Some(input), Duration::from_mins(1))?;
    ensure!(
        output.code == 0,
        "{command:?} ended with {}: {}",
        output.code,
        output.stderr.lines().next().unwrap_or_default()
    );
    Ok(())
}

/// Weir's policy.
fn policy(limit: Limit, blind: bool) -> String {
    let quiet = "[sampling]\none_in = 0\n[default]\nprofile = false\n";
    let (head, key) = if blind {
        (quiet, "profile = false\n")
    } else {
        ("", "")
    };
    let source = match limit {
        Limit::Over => format!("[source]\nmax_tracked = {SLOTS}\n"),
        Limit::Within => String::new(),
    };
    let limits = match limit {
        Limit::Over => {
            "[service.per_source]\npackets = { rate = 1, burst = 1 }\n[service.total]\npackets = { rate = 1, burst = 1 }\n"
                .to_owned()
        }
        Limit::Within => {
            format!("[service.per_source]\npackets = {{ rate = {ENOUGH}, burst = {ENOUGH} }}\n")
        }
    };
    format!(
        "version = 1\n{head}{source}[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n{key}{limits}"
    )
}

/// The rules of nftables.
fn rules(family: &str, hook: &str, limit: Limit) -> String {
    let (rate, total) = match limit {
        Limit::Over => (1, "udp dport 80 limit rate over 1/second burst 1 packets drop"),
        Limit::Within => (ENOUGH, ""),
    };
    format!(
        "table {family} bench {{\nset sources {{\ntype ipv4_addr\nflags dynamic\ntimeout 1m\nsize {SOURCES}\n}}\n\
         chain c {{\ntype filter {hook}\n\
         udp dport 80 update @sources {{ ip saddr limit rate over {rate}/second burst {rate} packets }} drop\n\
         {total}\n}}\n}}\n"
    )
}

fn hashlimit(netns: &Netns, limit: Limit) -> Result<()> {
    let rate = if limit == Limit::Over { 1 } else { ENOUGH };
    let rule = |more: &[&str]| {
        let mut command = netns.command("iptables");
        command.args(["-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "80"]);
        command.args(more);
        feed(&mut command, "")
    };
    rule(&[
        "-m",
        "hashlimit",
        "--hashlimit-above",
        &format!("{rate}/second"),
        "--hashlimit-burst",
        &rate.to_string(),
        "--hashlimit-mode",
        "srcip",
        "--hashlimit-name",
        "bench",
        "--hashlimit-htable-size",
        "1048576",
        "--hashlimit-htable-max",
        &SOURCES.to_string(),
        "-j",
        "DROP",
    ])?;
    if limit == Limit::Over {
        rule(&[
            "-m",
            "limit",
            "--limit",
            "1/second",
            "--limit-burst",
            "1",
            "-j",
            "RETURN",
        ])?;
        rule(&["-j", "DROP"])?;
    }
    Ok(())
}

/// The version of what was measured against, as it says itself.
pub(crate) fn versions() -> Vec<String> {
    let mut found = Vec::new();
    for (program, argument) in [
        ("nft", "--version"),
        ("iptables", "--version"),
        ("xdp-filter", "--version"),
    ] {
        let output = Command::new(program).arg(argument).output();
        if let Ok(output) = output
            && output.status.success()
        {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found.extend(text.lines().next().map(str::to_owned));
        }
    }
    found
}
