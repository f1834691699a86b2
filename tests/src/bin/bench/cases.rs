//! The policies and frames that the kernel's test-run is asked about.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use weir_tests::frame::{ACK, Frame, SYN, TPID_8021Q};

/// A policy, a frame, and which of the frame's bits are drawn anew in every run.
pub(crate) struct Case {
    /// The table that it stands in.
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) policy: String,
    /// What its list `bad` holds.
    pub(crate) listed: u32,
    /// How many other sources are banned.
    pub(crate) banned: u32,
    pub(crate) frame: Vec<u8>,
    /// Bits of the source that are drawn.
    pub(crate) bits: u32,
    /// It goes out, and no verdict is asked for.
    pub(crate) leaves: bool,
    /// Whether the second of two runs drops.
    pub(crate) drops: bool,
}

/// Slots of the source table where one source comes, and where a million do.
const FEW: u32 = 4_096;
const MANY: u32 = 2_000_000;

/// More than one CPU can send, and deep enough for the coarse clock, as policies are.
const PACKETS: &str = "[service.per_source]\npackets = { rate = \"18M\", burst = \"8M\" }\n";
/// What the limiters that Weir is compared with do.
pub(crate) const OVER: &str = "[service.per_source]\npackets = { rate = 1, burst = 1 }\n";
const THREE: &str =
    "bytes = { rate = \"600MB\", burst = \"250MB\" }\nconnections = { rate = 1000, burst = 1000 }\n";
const BLOCK: &str = "block = { for = \"30s\", drops = 1000, within = \"10s\" }\n";
const NETWORK: &str = "[service.per_network]\npackets = { rate = \"18M\", burst = \"8M\" }\n";
pub(crate) const TOTAL: &str = "[service.total]\npackets = { rate = \"100M\", burst = \"1G\" }\n";

/// A policy with one service.
#[derive(Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a part that is there or not"
)]
pub(crate) struct Parts<'a> {
    pub(crate) tracked: u32,
    pub(crate) samples: bool,
    pub(crate) profiles: bool,
    pub(crate) times: bool,
    pub(crate) list: bool,
    pub(crate) limits: &'a str,
}

impl Parts<'_> {
    pub(crate) fn policy(self) -> String {
        let list = if self.list {
            "[lists.bad]\naction = \"drop\"\nmax_prefixes = 1_000_000\nprefixes = [\"198.51.100.0/24\"]\n"
        } else {
            ""
        };
        let keys = match (self.profiles, self.times) {
            (false, _) => "profile = false\n",
            (true, true) => "time = true\n",
            (true, false) => "",
        };
        format!(
            "{}{list}[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n{keys}{}",
            head(self.tracked, self.samples, self.profiles),
            self.limits
        )
    }
}

fn head(tracked: u32, samples: bool, profiles: bool) -> String {
    let tracked = if tracked == 0 { FEW } else { tracked };
    // Traffic to no service has a profile unless a policy says otherwise; then every packet is asked whether it has one.
    format!(
        "version = 1\n[default]\nprofile = {profiles}\n[source]\nmax_tracked = {tracked}\n[sampling]\none_in = {}\n",
        if samples { 1_000 } else { 0 }
    )
}

/// A bare ACK to port 80.
pub(crate) fn plain() -> Vec<u8> {
    Frame::new()
        .ip("192.0.2.1", "203.0.113.10")
        .tcp(40_000, 80, ACK)
        .build()
}

/// So many prefixes in which none of the frames' sources lies: networks of 24 bits, every other one with a single address
/// in its neighbour's place.
pub(crate) fn prefixes(count: u32) -> Vec<IpNet> {
    (0..count)
        .map(|at| {
            let first = 0x2000_0000 + at * 256;
            let (first, length) = if at % 2 == 0 { (first, 24) } else { (first + 1, 32) };
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(first), length))
        })
        .collect()
}

fn case(group: &'static str, name: impl Into<String>, policy: String) -> Case {
    Case {
        group,
        name: name.into(),
        policy,
        listed: 0,
        banned: 0,
        frame: plain(),
        bits: 0,
        leaves: false,
        drops: false,
    }
}

/// Each stage over those before it.
fn stages(cases: &mut Vec<Case>) {
    let policy = |list, limits: &str| {
        Parts {
            list,
            limits,
            ..Parts::default()
        }
        .policy()
    };
    let nothing = head(FEW, false, false);
    cases.push(case("stages", "parse, no service", nothing));
    cases.push(case("stages", "+ a service that only counts", policy(false, "")));
    cases.push(case("stages", "+ a list", policy(true, "")));
    let per_source = PACKETS.to_owned();
    let three = per_source.clone() + THREE;
    let block = three.clone() + BLOCK;
    let network = block.clone() + NETWORK;
    let total = network.clone() + TOTAL;
    for (name, limits) in [
        ("+ bans", ""),
        ("+ per source, packets", per_source.as_str()),
        ("+ bytes and connections", &three),
        ("+ block", &block),
        ("+ per network", &network),
        ("+ total", &total),
    ] {
        let mut case = case("stages", name, policy(true, limits));
        case.banned = 1_000;
        cases.push(case);
    }
    for (name, samples) in [("+ profiles", false), ("+ sampling: the full policy", true)] {
        let parts = Parts {
            list: true,
            profiles: true,
            samples,
            limits: &total,
            ..Parts::default()
        };
        let mut case = case("stages", name, parts.policy());
        case.banned = 1_000;
        cases.push(case);
    }
}

/// Full policies of more and more services; the frame is for the last.
fn services(cases: &mut Vec<Case>) {
    for count in [1_u16, 10, 100, 1_000] {
        let mut policy = head(FEW, true, true);
        policy += "[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n";
        for at in 1..=count {
            let service = format!(
                "[[service]]\nname = \"s{at}\"\nprotocol = \"tcp\"\nports = [{}]\n{PACKETS}{THREE}{BLOCK}{NETWORK}{TOTAL}",
                2_000 + at
            );
            policy.push_str(&service);
        }
        let noun = if count == 1 { "service" } else { "services" };
        let mut case = case("services", format!("{count} {noun}"), policy);
        case.frame = Frame::new()
            .ip("192.0.2.1", "203.0.113.10")
            .tcp(40_000, 2_000 + count, ACK)
            .build();
        cases.push(case);
    }
}

/// Framings and verdicts, with a bucket of packets a source.
fn frames(cases: &mut Vec<Case>) {
    let ack = |frame: Frame| frame.tcp(40_000, 80, ACK).build();
    let four = || Frame::new().ip("192.0.2.1", "203.0.113.10");
    let six = || Frame::new().ip("2001:db8:1::1", "2001:db8::10");
    let tagged = Frame::new().vlan(TPID_8021Q, 9).ip("192.0.2.1", "203.0.113.10");
    for (name, frame) in [
        ("IPv4", ack(four())),
        ("IPv4, one VLAN tag", ack(tagged)),
        ("IPv6", ack(six())),
        (
            "IPv6, two extension headers",
            ack(six().hop_by_hop(1).destination_options(1)),
        ),
    ] {
        for (verdict, limits, drops) in [("passed", PACKETS, false), ("dropped", OVER, true)] {
            let policy = Parts {
                limits,
                ..Parts::default()
            }
            .policy();
            cases.push(Case {
                frame: frame.clone(),
                drops,
                ..case("frames", format!("{name}, {verdict}"), policy)
            });
        }
    }
}

/// A flood over the total of its service, each source within its own limit or without one: first come, first served, and with a part that is kept.
fn totals(cases: &mut Vec<Case>) {
    const LITTLE: &str = "[service.total]\npackets = { rate = 1, burst = 1 }\n";
    const KEPT: &str = "[service.total]\nreserve = \"20%\"\npackets = { rate = 2, burst = 2 }\n";
    let both = format!("{PACKETS}{LITTLE}");
    for (name, limits) in [
        ("IPv4, dropped by the total", LITTLE),
        ("IPv4, dropped by the total, with a bucket a source", &both),
        ("IPv4, dropped by the reserve of the total", KEPT),
    ] {
        let parts = Parts {
            limits,
            ..Parts::default()
        };
        cases.push(Case {
            drops: true,
            ..case("frames", name, parts.policy())
        });
    }
}

/// More and more sources, all over their limit.
fn sources(cases: &mut Vec<Case>) {
    for (name, bits) in SOURCES {
        for (family, source, target) in [
            ("IPv4", "20.0.0.1", "203.0.113.10"),
            ("IPv6", "2001:db8::1", "2001:db8:ffff::1"),
        ] {
            let parts = Parts {
                limits: OVER,
                tracked: MANY,
                ..Parts::default()
            };
            cases.push(Case {
                frame: Frame::new().ip(source, target).tcp(40_000, 80, ACK).build(),
                bits,
                drops: bits == 0,
                ..case("sources", format!("Weir, {family}, {name}"), parts.policy())
            });
        }
    }
}

/// Many more sources over their limit than the table has lines for: the overflow bucket judges most.
fn full_table(cases: &mut Vec<Case>) {
    let parts = Parts {
        limits: OVER,
        tracked: FEW,
        ..Parts::default()
    };
    let name = "Weir, IPv4, 131,072 sources, a full table";
    cases.push(Case {
        bits: 17,
        frame: Frame::new()
            .ip("20.0.0.1", "203.0.113.10")
            .tcp(40_000, 80, ACK)
            .build(),
        ..case("sources", name, parts.policy())
    });
}

/// How many sources, and the bits that are drawn.
pub(crate) const SOURCES: [(&str, u32); 4] = [
    ("1 source", 0),
    ("1,024 sources", 10),
    ("131,072 sources", 17),
    ("1,048,576 sources", 20),
];

/// Lists that the source is not in.
fn lists(cases: &mut Vec<Case>) {
    for (name, listed) in [
        ("empty", 0),
        ("10 prefixes", 10),
        ("10,000 prefixes", 10_000),
        ("1,000,000 prefixes", 1_000_000),
    ] {
        for (sources, bits) in [("one source", 0), ("1,048,576 sources", 20)] {
            let parts = Parts {
                list: true,
                limits: PACKETS,
                tracked: if bits == 0 { FEW } else { MANY },
                ..Parts::default()
            };
            cases.push(Case {
                listed,
                bits,
                ..case("lists", format!("{name}, {sources}"), parts.policy())
            });
        }
    }
}

/// What profiles and times cost, and what leaves.
fn profiles(cases: &mut Vec<Case>) {
    let payload = [0; 1_000];
    let policy = |samples, profiles, times| {
        Parts {
            samples,
            profiles,
            times,
            limits: PACKETS,
            ..Parts::default()
        }
        .policy()
    };
    let data = Frame::new()
        .ip("192.0.2.1", "203.0.113.10")
        .tcp(40_000, 80, ACK)
        .payload(&payload)
        .build();
    for (name, samples, profiles, times) in [
        ("data, neither", false, false, false),
        ("data, sampled", true, false, false),
        ("data, profile", false, true, false),
        ("data, profile and samples (the default)", true, true, false),
        ("data, profile and time", false, true, true),
    ] {
        cases.push(Case {
            frame: data.clone(),
            ..case("profiles", name, policy(samples, profiles, times))
        });
    }
    for (name, flags, payload, times) in [
        ("on the way out: data, profile", ACK, &payload[..], false),
        ("on the way out: SYN-ACK, profile", SYN | ACK, &[], false),
        ("on the way out: data, profile and time", ACK, &payload[..], true),
        ("on the way out: SYN-ACK, profile and time", SYN | ACK, &[], true),
    ] {
        let frame = Frame::new().ip("203.0.113.10", "192.0.2.1");
        cases.push(Case {
            frame: frame.tcp(80, 40_000, flags).payload(payload).build(),
            leaves: true,
            ..case("profiles", name, policy(false, true, times))
        });
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for add in [
        stages, services, frames, totals, sources, full_table, lists, profiles,
    ] {
        add(&mut cases);
    }
    cases
}
