//! `weir doctor`: what this kernel, driver and machine can do, what is in the way, and how to mend it.
//!
//! Everything is read or tried, nothing is changed: the maps that are made to see whether they can be made are gone
//! with their descriptors. What the machine says is collected first ([`system::Facts`], [`interface::Facts`]) and judged
//! by functions without I/O, so that the judgement is tested on machines that nobody has at hand.

mod drivers;
mod ethtool;
mod features;
mod interface;
pub(crate) mod netlink;
mod silence;
pub(crate) mod stranger;
mod survey;
mod system;

use std::path::PathBuf;

use serde::Serialize;

/// How a finding weighs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Weir works, with a restriction that the finding names.
    Warn,
    /// Weir does not work like this.
    Fail,
}

impl Level {
    /// The word that stands in front of the line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the doctor's.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at: a stable word for programs (`kernel`, `bpffs`, `mtu`, …).
    pub check: &'static str,
    /// The interface it is about; absent: the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How it weighs.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// How to mend it, or what to know about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            interface: None,
            level: Level::Ok,
            what: what.into(),
            mend: None,
        }
    }

    fn warn(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            interface: None,
            level: Level::Warn,
            what: what.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            interface: None,
            level: Level::Fail,
            what: what.into(),
            mend: Some(mend.into()),
        }
    }

    /// The same finding with a remark.
    fn note(mut self, remark: impl Into<String>) -> Self {
        self.mend = Some(remark.into());
        self
    }

    /// The same finding about an interface.
    fn on(mut self, interface: &str) -> Self {
        self.interface = Some(interface.to_owned());
        self
    }
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces; empty: those that look like the machine's own, and those with an XDP program.
    pub interfaces: Vec<String>,
    /// Where Weir pins its maps.
    pub bpffs: PathBuf,
    /// The interfaces that Weir itself is attached to.
    pub weir_on: Vec<String>,
}

/// Looks at the machine and then at each interface, in a fixed order.
pub fn examine(options: &Options) -> Vec<Finding> {
    let facts = system::Facts::read(&options.bpffs);
    let mut findings = system::judge(&facts);
    findings.extend(features::findings(&facts));
    findings.extend(silence::findings(options));
    findings.extend(survey::findings(options, facts.version));
    findings
}

/// True when nothing failed.
pub fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_healthy_and_failures_are_not() {
        let ok = Finding::ok("a", "fine");
        let warn = Finding::warn("b", "so so", "do this");
        let fail = Finding::fail("c", "bad", "do that");
        assert!(healthy(&[ok.clone(), warn.clone()]));
        assert!(!healthy(&[ok, warn, fail]));
    }

    #[test]
    fn json_leaves_out_what_is_not_there() {
        let line = serde_json::to_string(&Finding::ok("kernel", "Linux 6.18")).unwrap();
        assert_eq!(line, r#"{"check":"kernel","level":"ok","what":"Linux 6.18"}"#);
        let line = serde_json::to_string(&Finding::fail("mtu", "9000", "lower it").on("eth0")).unwrap();
        assert_eq!(
            line,
            r#"{"check":"mtu","interface":"eth0","level":"fail","what":"9000","mend":"lower it"}"#
        );
    }

    #[test]
    fn this_machine_is_examined_without_a_panic() {
        let options = Options {
            interfaces: vec!["lo".into(), "weir-no-such".into()],
            bpffs: "/nowhere/weir".into(),
            weir_on: Vec::new(),
        };
        let findings = examine(&options);
        assert!(findings.iter().any(|finding| finding.check == "kernel"));
        let absent = findings
            .iter()
            .find(|finding| finding.interface.as_deref() == Some("weir-no-such"))
            .unwrap();
        assert_eq!((absent.check, absent.level), ("interface", Level::Fail));
    }
}
