//! One interface: what its driver can do, and what stands in the way, from what is known of it.

use super::{
    Finding, drivers,
    drivers::Known,
    ethtool::Feature,
    netlink::{AttachedMode, Link, XdpFeatures},
    system::Version,
};

/// The bond modes in which the bonding driver takes an XDP program: round-robin, active-backup, XOR, 802.3ad.
const BOND_MODES_WITH_XDP: [u8; 4] = [0, 1, 2, 4];

/// What is known of one interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) link: Link,
    pub(super) driver: Option<String>,
    /// What the kernel says of the device; `None` where it does not.
    pub(super) features: Option<XdpFeatures>,
    pub(super) offloads: Vec<Feature>,
    /// The name of the program that is attached, where it can be read.
    pub(super) program: Option<String>,
    /// Weir itself is attached.
    pub(super) weir: bool,
    /// The interface that this one is a member of, and its kind.
    pub(super) master: Option<(String, Option<String>)>,
    /// Its members, if it is a bond.
    pub(super) members: Vec<String>,
    pub(super) kernel: Option<Version>,
}

/// Judges one interface.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![state(facts), driver(facts)];
    findings.push(mtu(facts));
    findings.extend(offloads(facts));
    findings.extend(topology(facts));
    findings.push(program(facts));
    findings
}

fn state(facts: &Facts) -> Finding {
    let name = &facts.link.name;
    match (facts.link.up, facts.link.running) {
        (false, _) => Finding::warn(
            "interface",
            "the interface is down",
            format!("ip link set dev {name} up"),
        ),
        (true, false) => Finding::warn(
            "interface",
            "the interface is up but has no carrier",
            "plug it in, or bring its peer up",
        ),
        (true, true) => Finding::ok("interface", "the interface is up"),
    }
}

fn native(facts: &Facts) -> Known {
    match facts.features {
        Some(features) if features.native() => Known::Native,
        Some(_) => Known::Unknown,
        None => facts
            .driver
            .as_deref()
            .map_or(Known::Unknown, |driver| drivers::lookup(driver, facts.kernel)),
    }
}

fn driver(facts: &Facts) -> Finding {
    const GENERIC: &str = "weir run falls back to generic mode, which costs several times as much a packet and counts \
                           super-frames of up to 64 kB as one packet; exact packet limits need native mode";
    let name = facts
        .driver
        .as_deref()
        .or(facts.link.kind.as_deref())
        .unwrap_or("unknown");
    if facts.link.loopback {
        return Finding::warn(
            "driver",
            "the loopback has generic XDP only",
            "attach to the interface that faces the network",
        );
    }
    match native(facts) {
        Known::Native => Finding::ok("driver", format!("driver {name} runs XDP programs (native mode)")),
        Known::Since((major, minor)) => Finding::warn(
            "driver",
            format!("driver {name} runs XDP programs from Linux {major}.{minor} on"),
            format!("upgrade the kernel; until then {GENERIC}"),
        ),
        Known::Unknown if facts.features.is_some() => Finding::warn(
            "driver",
            format!("driver {name} does not run XDP programs as it is set up now"),
            GENERIC,
        ),
        Known::Unknown => Finding::warn(
            "driver",
            format!("whether driver {name} runs XDP programs is unknown"),
            format!("weir run --xdp-mode native tells; without it {GENERIC}"),
        ),
    }
}

fn mtu(facts: &Facts) -> Finding {
    let (name, mtu) = (&facts.link.name, facts.link.mtu);
    let most = drivers::single_buffer_mtu(facts.driver.as_deref().unwrap_or_default());
    let what = format!("MTU {mtu}");
    if mtu <= most || facts.link.loopback {
        return Finding::ok("mtu", what);
    }
    match facts.features {
        Some(features) if features.multi_buffer() => {
            Finding::ok("mtu", what).note("frames of several buffers; the driver hands them to XDP")
        }
        // Nothing else stands between native mode and this driver, so the remedy is worth naming exactly.
        _ => Finding::warn(
            "mtu",
            format!("MTU {mtu} is more than the about {most} that fit in one buffer beside XDP's headroom"),
            format!("ip link set dev {name} mtu {most}, or expect generic mode"),
        ),
    }
}

fn offloads(facts: &Facts) -> Vec<Finding> {
    if facts.link.loopback {
        return Vec::new();
    }
    let name = &facts.link.name;
    let active = |feature: &str| {
        facts
            .offloads
            .iter()
            .any(|offload| offload.name == feature && offload.active)
    };
    let mut findings = Vec::new();
    if active("rx-vlan-hw-parse") {
        findings.push(Finding::warn(
            "rxvlan",
            "VLAN tags are taken off before XDP sees them (rx-vlan-offload): such frames look untagged",
            format!("ethtool -K {name} rxvlan off, if the policy's scope names vlans"),
        ));
    }
    if active("rx-lro") {
        findings.push(Finding::warn(
            "lro",
            "the card merges packets before XDP sees them (LRO): many drivers then refuse XDP, the others count wrongly",
            format!("ethtool -K {name} lro off"),
        ));
    }
    if active("rx-gro-hw") {
        findings.push(Finding::warn(
            "rx_gro_hw",
            "the card merges packets before XDP sees them (hardware GRO), which some drivers give up for XDP and some do not",
            format!("ethtool -K {name} rx-gro-hw off, if weir run says that native mode fails"),
        ));
    }
    if findings.is_empty() && !facts.offloads.is_empty() {
        findings.push(Finding::ok("offloads", "no offload is in the way"));
    }
    findings
}

/// Bonds, members of them, and pairs of virtual interfaces.
fn topology(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((master, Some(kind))) = &facts.master
        && kind == "bond"
    {
        findings.push(Finding::ok("bond", format!("a member of {master}")).note(format!(
            "attach to every member of {master}, or to {master} alone; not to both"
        )));
    }
    match facts.link.kind.as_deref() {
        Some("bond") => findings.push(bond(facts)),
        Some("veth") => findings.push(
            Finding::ok("veth", "one end of a pair of virtual interfaces").note(
                "Weir judges what this end receives; frames that a peer redirects here arrive only with an XDP program \
                 or gro on",
            ),
        ),
        Some(kind @ ("vlan" | "macvlan" | "ipvlan" | "bridge" | "team")) => findings.push(Finding::warn(
            "topology",
            format!("a {kind} interface has generic XDP only"),
            "attach to the interface below it; a policy's scope picks its VLANs",
        )),
        _ => {}
    }
    if facts.link.loopback {
        findings.push(Finding::warn(
            "loopback",
            "this is the loopback: only the machine's own traffic passes here",
            "protect what runs on it with a firewall; edge traffic never comes this way",
        ));
    }
    findings
}

fn bond(facts: &Facts) -> Finding {
    let members = if facts.members.is_empty() {
        "none yet".to_owned()
    } else {
        facts.members.join(", ")
    };
    match facts.link.bond_mode {
        Some(mode) if !BOND_MODES_WITH_XDP.contains(&mode) => Finding::warn(
            "bond",
            format!("this bond's mode takes no XDP program (members: {members})"),
            "attach to the members instead: one --interface for each",
        ),
        _ => Finding::ok("bond", format!("a bond (members: {members})")).note(
            "native mode here needs it from every member; attaching to the members works too, but not both",
        ),
    }
}

fn program(facts: &Facts) -> Finding {
    let name = &facts.link.name;
    let Some(program) = facts.link.xdp else {
        return Finding::ok("xdp", "no XDP program is attached");
    };
    let mode = match program.mode {
        AttachedMode::Native => "native",
        AttachedMode::Generic => "generic",
        AttachedMode::Hardware => "offloaded",
        AttachedMode::Several => "several modes",
    };
    let called = facts
        .program
        .as_ref()
        .map_or_else(String::new, |program| format!(" {program}"));
    let what = format!("XDP program{called} (id {}, {mode}) is attached", program.id);
    if facts.weir {
        let finding = Finding::ok("xdp", format!("{what}: it is Weir's own"));
        if program.mode == AttachedMode::Generic && native(facts) == Known::Native {
            return Finding::warn(
                "xdp",
                format!("{what}: it is Weir's own, in generic mode although the driver has native"),
                format!("weir detach --interface {name}, then weir run again says what native mode fails on"),
            );
        }
        finding
    } else {
        Finding::fail(
            "xdp",
            format!("{what}, and it is not Weir's: weir run refuses to push it aside"),
            format!("stop what attached it, or ip link set dev {name} xdp off"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Level, netlink::AttachedProgram};

    /// Breaks one thing about an interface.
    type Spoil = Box<dyn Fn(&mut Facts)>;

    fn card() -> Facts {
        Facts {
            link: Link {
                index: 2,
                name: "eth0".into(),
                up: true,
                running: true,
                mtu: 1500,
                ..Link::default()
            },
            driver: Some("ixgbe".into()),
            offloads: vec![Feature {
                name: "rx-lro".into(),
                active: false,
            }],
            kernel: Some((6, 18)),
            ..Facts::default()
        }
    }

    #[test]
    fn a_good_card_has_nothing_to_mend() {
        let findings = judge(&card());
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:?}"
        );
    }

    #[test]
    fn each_fault_is_found_and_says_how_to_mend_it() {
        let on = |name: &str| {
            vec![Feature {
                name: name.into(),
                active: true,
            }]
        };
        let program = |mode| Some(AttachedProgram { mode, id: 7 });
        let rows: Vec<(&str, Level, Spoil)> = vec![
            ("interface", Level::Warn, Box::new(|facts| facts.link.up = false)),
            (
                "interface",
                Level::Warn,
                Box::new(|facts| facts.link.running = false),
            ),
            (
                "driver",
                Level::Warn,
                Box::new(|facts| facts.driver = Some("r8169".into())),
            ),
            ("driver", Level::Warn, Box::new(|facts| facts.driver = None)),
            (
                "driver",
                Level::Warn,
                Box::new(|facts| facts.features = Some(XdpFeatures(0))),
            ),
            (
                "driver",
                Level::Warn,
                Box::new(|facts| facts.kernel = Some((4, 9))),
            ),
            ("mtu", Level::Warn, Box::new(|facts| facts.link.mtu = 9000)),
            (
                "rxvlan",
                Level::Warn,
                Box::new(move |facts| facts.offloads = on("rx-vlan-hw-parse")),
            ),
            (
                "lro",
                Level::Warn,
                Box::new(move |facts| facts.offloads = on("rx-lro")),
            ),
            (
                "rx_gro_hw",
                Level::Warn,
                Box::new(move |facts| facts.offloads = on("rx-gro-hw")),
            ),
            (
                "bond",
                Level::Warn,
                Box::new(|facts| {
                    facts.link.kind = Some("bond".into());
                    facts.link.bond_mode = Some(6);
                }),
            ),
            (
                "topology",
                Level::Warn,
                Box::new(|facts| facts.link.kind = Some("vlan".into())),
            ),
            (
                "xdp",
                Level::Fail,
                Box::new(move |facts| facts.link.xdp = program(AttachedMode::Native)),
            ),
            (
                "xdp",
                Level::Warn,
                Box::new(move |facts| {
                    facts.link.xdp = program(AttachedMode::Generic);
                    facts.weir = true;
                }),
            ),
        ];
        for (check, level, spoil) in rows {
            let mut facts = card();
            spoil(&mut facts);
            let faults: Vec<_> = judge(&facts)
                .into_iter()
                .filter(|finding| finding.level != Level::Ok)
                .collect();
            assert_eq!(faults.len(), 1, "{check}: {faults:?}");
            assert_eq!((faults[0].check, faults[0].level), (check, level));
            assert!(faults[0].mend.is_some());
        }
    }

    #[test]
    fn jumbo_frames_are_fine_where_the_driver_splits_them() {
        let mut facts = card();
        facts.link.mtu = 9000;
        facts.features = Some(XdpFeatures(0x21));
        assert_eq!(mtu(&facts).level, Level::Ok);
    }

    #[test]
    fn the_kernel_is_believed_before_the_table() {
        let mut facts = card();
        facts.driver = Some("brand_new".into());
        facts.features = Some(XdpFeatures(1));
        assert_eq!(driver(&facts).level, Level::Ok);
    }

    #[test]
    fn weirs_own_program_is_fine() {
        let mut facts = card();
        facts.link.xdp = Some(AttachedProgram {
            mode: AttachedMode::Native,
            id: 7,
        });
        facts.program = Some("weir".into());
        facts.weir = true;
        let finding = program(&facts);
        assert_eq!(finding.level, Level::Ok);
        assert_eq!(
            finding.what,
            "XDP program weir (id 7, native) is attached: it is Weir's own"
        );
    }

    #[test]
    fn the_loopback_says_what_it_is() {
        let mut facts = card();
        facts.link.loopback = true;
        facts.link.mtu = 65536;
        facts.driver = None;
        let checks: Vec<_> = judge(&facts)
            .into_iter()
            .filter(|finding| finding.level != Level::Ok)
            .map(|finding| finding.check)
            .collect();
        assert_eq!(checks, ["driver", "loopback"]);
    }
}
