//! A first policy, drawn from what a host serves and what its traffic was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    path::Path,
};

use super::{protocol_name, reachable, sockets::Listening};
use crate::{
    api::traffic::ServicesAnswer,
    guard::Session,
    policy::{bounds, model::Protocol, parse, sizing},
};

/// A limit is this many times what was seen: a draft must not cut off a good day.
const HEADROOM: f64 = 20.0;
/// The most services that are drafted; what a host listens on beyond that is named in a comment.
const MOST_SERVICES: usize = 200;

/// What ports are for, by their numbers: the names of services that everybody knows.
const KNOWN: [(u16, &str); 30] = [
    (21, "ftp"),
    (22, "ssh"),
    (25, "smtp"),
    (53, "dns"),
    (80, "web"),
    (110, "pop3"),
    (123, "ntp"),
    (143, "imap"),
    (389, "ldap"),
    (443, "web"),
    (465, "submission"),
    (500, "ipsec"),
    (587, "submission"),
    (636, "ldap"),
    (853, "dns-tls"),
    (993, "imap"),
    (995, "pop3"),
    (1194, "openvpn"),
    (1883, "mqtt"),
    (3306, "mysql"),
    (3478, "stun"),
    (4500, "ipsec"),
    (5060, "sip"),
    (5432, "postgresql"),
    (6379, "redis"),
    (8080, "web"),
    (8443, "web"),
    (9100, "node-exporter"),
    (11_211, "memcached"),
    (51_820, "wireguard"),
];

/// What a draft is drawn from.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The interfaces to attach to.
    pub interfaces: Vec<String>,
    /// The sockets that listen.
    pub sockets: Vec<Listening>,
    /// The SSH sessions that stand.
    pub sessions: Vec<Session>,
    /// The ports that SSH servers use.
    pub ssh_ports: BTreeSet<u16>,
    /// What a controller has measured, if one runs.
    pub measured: Option<ServicesAnswer>,
}

/// Ports that are one service.
#[derive(Debug)]
struct Group {
    name: String,
    protocols: Vec<Protocol>,
    ports: BTreeSet<u16>,
    programs: BTreeSet<String>,
}

/// Limits that fit a kind of service when nothing was measured: each source's, and all together's.
struct Usual {
    packets: u64,
    connections: Option<u64>,
    total: u64,
    why: &'static str,
}

/// Writes the policy, in monitor mode.
pub fn draft(draft: &Draft) -> String {
    let groups = groups(draft);
    let mut text = String::from(
        "# A draft, drawn by `weir policy init` from what this host serves. It drops nothing: mode = \"monitor\" counts what\n\
         # would be dropped. Read it, put it in force, watch `weir status` over a busy day, and change mode to \"enforce\" when\n\
         # what would be dropped is what should be. docs/policy.md explains every key.\n",
    );
    text.push_str(match &draft.measured {
        Some(_) => {
            "# The limits are from what a running controller had measured, with headroom; where it had measured nothing, from\n\
             # what is usual for such a service.\n"
        }
        None => {
            "# No controller was running: the services are from this host's sockets alone, and the limits are what is usual for\n\
             # such services. Draft again after a day under this policy to have them from your own traffic.\n"
        }
    });
    text.push_str("version = 1\n");
    interfaces(&mut text, &draft.interfaces);
    text.push_str("mode = \"monitor\"\n");
    let mut rules = String::new();
    protect(&mut rules, draft);
    for group in groups.iter().take(MOST_SERVICES) {
        service(&mut rules, group, draft);
    }
    ping(&mut rules);
    remarks(&mut rules, draft, groups.get(MOST_SERVICES..).unwrap_or_default());
    source(&mut text, &rules);
    text.push_str(&rules);
    text
}

/// Makes the table of sources as large as these rules need at worst, where the default is too small.
fn source(text: &mut String, rules: &str) {
    let Ok(parsed) = parse(&format!("version = 1\n{rules}"), Path::new("draft.toml")) else {
        return;
    };
    let sizing = sizing::cells_in_debt(&parsed.policy);
    if !sizing.is_enough() {
        let slots = rounded(sizing.recommended as f64).min(*bounds::MAX_TRACKED.end());
        let _ = write!(
            text,
            "\n# As many as these limits need on a link of 1 Gb/s full of the smallest packets.\n\
             [source]\nmax_tracked = {slots}\n"
        );
    }
}

fn interfaces(text: &mut String, names: &[String]) {
    if names.is_empty() {
        text.push_str(
            "# Name the interfaces that face the clients, here or with --interface.\ninterfaces = []\n",
        );
    } else {
        let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(text, "interfaces = [{}]", quoted.join(", "));
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn protect(text: &mut String, draft: &Draft) {
    let ports: Vec<String> = ssh_ports(draft).iter().map(u16::to_string).collect();
    let ports = if ports.is_empty() {
        "22".to_owned()
    } else {
        ports.join(", ")
    };
    let peers: BTreeSet<IpAddr> = draft.sessions.iter().map(|session| session.peer.ip()).collect();
    text.push_str(
        "\n# The way in for those who run this machine: it passes before everything and cannot be banned.\n",
    );
    if peers.is_empty() {
        let _ = write!(
            text,
            "# No SSH session stands; put your management network here before you enforce.\n\
             # [[protect]]\n# sources = [\"192.0.2.0/24\"]\n# protocol = \"tcp\"\n# ports = [{ports}]\n"
        );
        return;
    }
    // A link-local peer has no address that is its own elsewhere, and is one all the same.
    let sources: Vec<String> = peers.iter().map(|peer| quoted(&peer.to_string())).collect();
    let _ = write!(
        text,
        "# These are the other ends of the SSH sessions that stood; better name your management network as a whole.\n\
         [[protect]]\nsources = [{}]\nprotocol = \"tcp\"\nports = [{ports}]\n",
        sources.join(", ")
    );
}

/// The ports that an SSH server listens on for others; what it forwards for somebody stands on the loopback or is no listener.
fn ssh_ports(draft: &Draft) -> BTreeSet<u16> {
    let listening = draft
        .sockets
        .iter()
        .filter(|socket| socket.protocol == Protocol::Tcp && reachable(socket.address));
    let listening: BTreeSet<u16> = listening.map(|socket| socket.port).collect();
    draft.ssh_ports.intersection(&listening).copied().collect()
}

/// The ports that can be reached, by service: by what they are known for, else by their program.
fn groups(draft: &Draft) -> Vec<Group> {
    let ssh = ssh_ports(draft);
    let mut named: BTreeMap<(String, Protocol), Group> = BTreeMap::new();
    for socket in draft.sockets.iter().filter(|socket| reachable(socket.address)) {
        let name = if socket.protocol == Protocol::Tcp && ssh.contains(&socket.port) {
            "ssh".to_owned()
        } else {
            name_of(socket)
        };
        let group = named
            .entry((name.clone(), socket.protocol))
            .or_insert_with(|| Group {
                name,
                protocols: vec![socket.protocol],
                ports: BTreeSet::new(),
                programs: BTreeSet::new(),
            });
        group.ports.insert(socket.port);
        group.programs.extend(socket.program.clone());
    }
    let mut groups: Vec<Group> = Vec::new();
    for ((name, protocol), mut group) in named {
        match groups.last_mut() {
            // One service on both protocols shares its buckets; a source is one source.
            Some(before) if before.name == name && before.ports == group.ports => {
                before.protocols.push(protocol);
                before.programs.append(&mut group.programs);
            }
            Some(before) if before.name == name => {
                group.name = format!("{name}-{}", protocol_name(protocol));
                groups.push(group);
            }
            _ => groups.push(group),
        }
    }
    unique_names(&mut groups);
    groups.sort_by_key(|group| (group.ports.first().copied(), group.name.clone()));
    groups
}

/// A program may be called `web-udp`, as one of the drafted names is.
fn unique_names(groups: &mut [Group]) {
    let mut taken = BTreeSet::from(["default".to_owned(), "other".to_owned(), "ping".to_owned()]);
    for group in groups {
        let base = group.name.clone();
        let mut number = 2;
        while !taken.insert(group.name.clone()) {
            group.name = format!("{base}-{number}");
            number += 1;
        }
    }
}

fn name_of(socket: &Listening) -> String {
    if let Some((_, name)) = KNOWN.iter().find(|(port, _)| *port == socket.port) {
        return (*name).to_owned();
    }
    let program: String = socket
        .program
        .iter()
        .flat_map(|program| program.chars())
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let program = program.trim_matches('-');
    if program.starts_with(|c: char| c.is_ascii_lowercase()) {
        program.to_owned()
    } else {
        format!("{}-{}", protocol_name(socket.protocol), socket.port)
    }
}

fn usual(group: &Group) -> Usual {
    let tcp = group.protocols.contains(&Protocol::Tcp);
    match group.name.as_str() {
        "ssh" => Usual {
            packets: 1_000,
            connections: Some(2),
            total: 20_000,
            why: "an operator opens few connections; guessing passwords takes many",
        },
        "web" => Usual {
            packets: 2_000,
            connections: Some(20),
            total: 500_000,
            why: "a browser opens a handful of connections and downloads pictures",
        },
        "dns" => Usual {
            packets: 200,
            connections: tcp.then_some(10),
            total: 100_000,
            why: "a resolver asks often, a client rarely",
        },
        _ => Usual {
            packets: 1_000,
            connections: tcp.then_some(10),
            total: 100_000,
            why: "nothing is known of this service: a middling client",
        },
    }
}

/// What was seen of a group: packets and connections a second, and different sources in a minute.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    packets: f64,
    connections: f64,
    sources: u64,
}

fn measured(group: &Group, answer: &ServicesAnswer) -> Option<Measured> {
    let ports: Vec<_> = answer
        .ports
        .iter()
        .filter(|port| {
            group.ports.contains(&port.port)
                && group
                    .protocols
                    .iter()
                    .any(|protocol| protocol_name(*protocol) == port.protocol)
        })
        .collect();
    let mut seen = Measured::default();
    let services: BTreeSet<&str> = ports.iter().filter_map(|port| port.service.as_deref()).collect();
    // What a service counts exactly says more than samples do, where it has no ports beyond the group's.
    let exact = answer.services.iter().filter(|service| {
        let mut of_it = answer
            .ports
            .iter()
            .filter(|port| port.service.as_ref() == Some(&service.service));
        services.contains(service.service.as_str()) && of_it.all(|port| group.ports.contains(&port.port))
    });
    for service in exact {
        seen.packets += service.packets_per_second;
        seen.connections += service.syn_per_second;
        seen.sources += service.distinct_sources;
    }
    if seen.packets <= 0.0 {
        seen = Measured {
            packets: ports.iter().map(|port| port.estimate.packets_per_second).sum(),
            connections: ports
                .iter()
                .map(|port| port.estimate.connections_per_second)
                .sum(),
            sources: 0,
        };
    }
    (seen.packets > 0.0).then_some(seen)
}

/// A round number that is not below: two digits and zeros.
fn rounded(number: f64) -> u64 {
    let number = number.clamp(1.0, 50_000_000.0).ceil() as u64;
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number.div_ceil(unit) * unit
}

fn service(text: &mut String, group: &Group, draft: &Draft) {
    let usual = usual(group);
    let seen = draft.measured.as_ref().and_then(|answer| measured(group, answer));
    let (mut packets, mut connections, mut total) = (usual.packets, usual.connections, usual.total);
    let mut why = format!("usual: {}", usual.why);
    if let Some(seen) = seen {
        total = rounded(HEADROOM * seen.packets).max(1_000);
        why = format!(
            "seen: {:.0} packets/s and {:.0} new connections/s in all; the total is {HEADROOM} times that",
            seen.packets.max(1.0),
            seen.connections
        );
        if seen.sources > 0 {
            let each = seen.sources as f64;
            packets = packets.max(rounded(HEADROOM * seen.packets / each));
            connections = connections.map(|least| least.max(rounded(HEADROOM * seen.connections / each)));
            let _ = write!(
                why,
                ", and a source may send {HEADROOM} times the mean of {} sources, or what is usual",
                seen.sources
            );
        }
        // The shared bucket must not be smaller than one customer's.
        total = total.max(packets);
    }
    let programs: Vec<&str> = group.programs.iter().map(String::as_str).collect();
    let protocols: Vec<String> = group
        .protocols
        .iter()
        .map(|protocol| quoted(protocol_name(*protocol)))
        .collect();
    let ports: Vec<String> = group.ports.iter().map(u16::to_string).collect();
    text.push('\n');
    if !programs.is_empty() {
        let _ = writeln!(text, "# Listening: {}.", programs.join(", "));
    }
    let _ = write!(
        text,
        "# Limits {why}.\n\
         [[service]]\nname = {}\nprotocol = [{}]\nports = [{}]\n\
         \x20 [service.per_source]\n\x20 packets = {{ rate = {packets}, burst = {} }}\n",
        quoted(&group.name),
        protocols.join(", "),
        ports.join(", "),
        packets * 2,
    );
    if let Some(connections) = connections {
        let _ = writeln!(
            text,
            "  connections = {{ rate = {connections}, burst = {} }}",
            (connections * 2).max(10)
        );
    }
    let _ = write!(
        text,
        "\x20 [service.total]\n\x20 packets = {{ rate = {total}, burst = {} }}\n",
        total * 2
    );
}

fn ping(text: &mut String) {
    text.push_str(
        "\n# Pings and ICMP errors: enough for diagnosis and path MTU discovery.\n\
         [[service]]\nname = \"ping\"\nprotocol = \"icmp\"\n\
         \x20 [service.per_source]\n\x20 packets = { rate = 50, burst = 100 }\n\
         \x20 [service.total]\n\x20 packets = { rate = 5000, burst = 10000 }\n",
    );
}

/// What the draft leaves out, so that nobody has to guess.
fn remarks(text: &mut String, draft: &Draft, beyond: &[Group]) {
    let inner: BTreeSet<String> = draft
        .sockets
        .iter()
        .filter(|socket| !reachable(socket.address))
        .map(|socket| format!("{} {}", protocol_name(socket.protocol), socket.port))
        .collect();
    if !inner.is_empty() {
        let inner: Vec<String> = inner.into_iter().take(MOST_SERVICES).collect();
        let _ = write!(
            text,
            "\n# Left out, since only this host itself can reach them: {}.\n",
            inner.join(", ")
        );
    }
    if !beyond.is_empty() {
        let names: Vec<&str> = beyond.iter().map(|group| group.name.as_str()).collect();
        let _ = write!(
            text,
            "\n# Left out, since a draft has at most {MOST_SERVICES} services: {}.\n",
            names.join(", ")
        );
    }
    if let Some(answer) = &draft.measured {
        let asked: Vec<String> = answer
            .ports
            .iter()
            .filter(|port| port.listening.is_empty() && port.estimate.packets_per_second > 0.0)
            .map(|port| format!("{} {}", port.protocol, port.port))
            .collect();
        if !asked.is_empty() {
            let _ = write!(
                text,
                "\n# Asked for, though nobody listens: {}.\n",
                asked.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::traffic::{Estimate, PortUse, ServiceUse},
        policy::model::{Mode, Policy},
    };

    fn socket(protocol: Protocol, address: &str, port: u16, program: Option<&str>) -> Listening {
        Listening {
            protocol,
            address: address.parse().unwrap(),
            port,
            program: program.map(str::to_owned),
            inode: 1,
        }
    }

    fn host() -> Draft {
        use Protocol::{Tcp, Udp};
        Draft {
            interfaces: vec!["eth0".into()],
            sockets: vec![
                socket(Tcp, "0.0.0.0", 2222, Some("sshd")),
                socket(Tcp, "::", 2222, Some("sshd")),
                socket(Tcp, "::", 80, Some("nginx")),
                socket(Tcp, "::", 443, Some("nginx")),
                socket(Udp, "::", 443, Some("nginx")),
                socket(Tcp, "192.0.2.1", 53, Some("named")),
                socket(Udp, "192.0.2.1", 53, Some("named")),
                socket(Tcp, "127.0.0.1", 5432, Some("postgres")),
                socket(Tcp, "0.0.0.0", 7777, Some("9 weird \"name\"")),
                socket(Udp, "0.0.0.0", 7778, Some("default")),
                socket(Tcp, "0.0.0.0", 7779, Some("web-udp")),
                socket(Tcp, "0.0.0.0", 7780, None),
            ],
            sessions: vec!["192.0.2.7 50122 192.0.2.1 2222".parse().unwrap()],
            ssh_ports: BTreeSet::from([2222, 5432, 40_000]),
            measured: None,
        }
    }

    fn policy(text: &str) -> Policy {
        match parse(text, Path::new("draft.toml")) {
            Ok(parsed) => {
                assert!(parsed.warnings.is_empty(), "{:?}\n{text}", parsed.warnings);
                parsed.policy
            }
            Err(errors) => panic!("{errors}\n{text}"),
        }
    }

    fn names(policy: &Policy) -> Vec<&str> {
        policy
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect()
    }

    #[test]
    fn a_draft_is_a_policy_that_drops_nothing() {
        let text = draft(&host());
        let policy = policy(&text);
        assert_eq!(policy.mode, Mode::Monitor);
        assert_eq!(policy.interfaces, ["eth0"]);
        assert_eq!(
            names(&policy),
            [
                "dns",
                "web",
                "web-udp",
                "ssh",
                "tcp-7777",
                "default-2",
                "web-udp-tcp",
                "tcp-7780",
                "ping"
            ]
        );
        assert_eq!(
            policy.services[0].protocols.len(),
            2,
            "DNS is one service on both"
        );
        assert_eq!(policy.protect[0].sources, ["192.0.2.7/32".parse().unwrap()]);
        assert_eq!(policy.protect[0].ports[0].first, 2222);
        assert!(
            text.contains("only this host itself can reach them: tcp 5432"),
            "{text}"
        );
        assert!(text.contains("No controller was running"), "{text}");
        assert!(sizing::cells_in_debt(&policy).is_enough(), "{text}");
    }

    #[test]
    fn limits_have_headroom_over_what_was_seen() {
        let port = |port, service: Option<&str>, packets_per_second| PortUse {
            protocol: "tcp".into(),
            port,
            service: service.map(str::to_owned),
            listening: vec!["::".parse().unwrap()],
            program: None,
            estimate: Estimate {
                packets_per_second,
                connections_per_second: packets_per_second / 10.0,
                ..Estimate::default()
            },
            top_source: None,
        };
        let mut host = host();
        host.measured = Some(ServicesAnswer {
            ports: vec![
                port(80, Some("shop"), 1.0),
                port(443, Some("shop"), 1.0),
                port(7777, None, 30.0),
            ],
            services: vec![ServiceUse {
                service: "shop".into(),
                packets_per_second: 12_345.0,
                bytes_per_second: 1e6,
                syn_per_second: 100.0,
                first_ack_per_second: 90.0,
                distinct_sources: 50,
                handshake_seconds_p50: None,
                handshake_seconds_p99: None,
                first_byte_seconds_p50: None,
                first_byte_seconds_p99: None,
            }],
            ..ServicesAnswer::default()
        });
        let text = draft(&host);
        let policy = policy(&text);
        let of = |name: &str| {
            policy
                .services
                .iter()
                .find(|service| service.name == name)
                .unwrap()
        };
        let total = |name: &str| of(name).total.unwrap().limits.packets.unwrap().rate;
        assert_eq!(
            total("web"),
            250_000,
            "counted exactly, 20 times and rounded up: {text}"
        );
        assert_eq!(of("web").per_source.unwrap().limits.packets.unwrap().rate, 5_000);
        assert_eq!(of("web").per_source.unwrap().limits.connections.unwrap().rate, 40);
        assert_eq!(total("tcp-7777"), 1_000, "from samples: {text}");
        assert!(text.contains("seen: 12345 packets/s"), "{text}");
    }

    #[test]
    fn an_empty_host_has_a_draft_too() {
        let text = draft(&Draft::default());
        let policy = policy(&text);
        assert_eq!(names(&policy), ["ping"]);
        assert!(
            policy.protect.is_empty() && text.contains("# [[protect]]"),
            "{text}"
        );
    }

    #[test]
    fn a_host_of_many_ports_stays_within_bounds() {
        let mut host = host();
        host.sockets = (1..=5_000)
            .map(|port| socket(Protocol::Tcp, "::", port, None))
            .collect();
        let text = draft(&host);
        assert!(policy(&text).services.len() <= MOST_SERVICES + 1);
        assert!(text.contains("a draft has at most 200 services"), "{text}");
    }

    #[test]
    fn numbers_are_rounded_up_to_two_digits() {
        for (number, expected) in [(0.0, 1), (7.0, 7), (99.0, 99), (101.0, 110), (12_345.0, 13_000)] {
            assert_eq!(rounded(number), expected);
        }
    }
}
