//! Tests of the policy file as a whole: what is read, and what each mistake is answered with.

#![allow(clippy::too_many_lines, reason = "tables")]

use std::{fmt::Write as _, path::Path};

use proptest::prelude::*;

use super::{model::*, *};

mod diff;
mod errors;
mod service_errors;
mod services;

const HEAD: &str = "version = 1\n";
const WEB: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\n";

fn parse_text(text: &str) -> Result<Parsed, PolicyErrors> {
    parse(text, Path::new("p.toml"))
}

fn policy(text: &str) -> Policy {
    parse_text(text)
        .unwrap_or_else(|errors| panic!("{errors}\n---\n{text}"))
        .policy
}

fn warnings(text: &str) -> Vec<String> {
    let parsed = parse_text(text).unwrap_or_else(|errors| panic!("{errors}\n---\n{text}"));
    parsed.warnings.iter().map(ToString::to_string).collect()
}

fn prefix(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

/// Every key of the schema that this version has.
const WHOLE: &str = r#"
version = 1
interfaces = ["eth0", "eth1.100"]
mode = "monitor"
[scope]
vlans = [200, 100, 200]
addresses = ["203.0.113.0/24", "2001:db8:1::/48"]
[source]
ipv4_prefix = 30
ipv6_prefix = 56
max_tracked = 2_000_000
[[protect]]
sources = ["10.9.0.0/28", "2001:db8::7"]
protocol = "tcp"
ports = [22, 9100]
[[protect]]
sources = ["10.9.0.0/28"]
[lists.zebra]
action = "drop"
prefixes = ["198.51.100.0/24", "198.51.100.0/24"]
files = ["lists/blocklist.txt"]
max_prefixes = 5
[lists.cdn]
prefixes = ["192.0.2.0/24"]
action = "trust"
proxy = true
[lists.mobile]
[default]
action = "drop"
replies = "none"
essential = "none"
profile = false
[anomaly]
enabled = true
sensitivity = "2/day"
[anomaly.webhook]
url = "https://hooks.example.com/weir?token=T0KEN"
secret_file = "/etc/weir/webhook.secret"
verdicts = ["crowd"]
[geo]
database = "country.mmdb"
[[service]]
name = "storefront"
anomaly = false
protocol = ["udp", "tcp"]
ports = [443, 80, "8000-8080", 81]
source_ports = []
addresses = ["203.0.113.5"]
only = ["cdn", "mobile"]
mode = "monitor"
enforce_share = "12.5%"
  [service.per_source]
  packets     = { rate = 2000, burst = 4000 }
  bytes       = { rate = "5MB", burst = "10MiB" }
  connections = { rate = 20 }
  block = { for = "30s", drops = 1000, within = "1m" }
  [service.per_network]
  ipv6_prefix = 40
  packets = { rate = "20k", burst = "40k" }
  [service.total]
  packets = { rate = "500k", burst = "1M" }
  bytes = { rate = "50GB" }
  reserve = "20%"
  [[service.class]]
  name = "mobile"
  lists = ["mobile"]
  mode = "monitor"
    [service.class.per_source]
    connections = { rate = 400, burst = 2000 }
    [service.class.per_network]
    ipv4_prefix = 20
    bytes = { rate = "1kB" }
    [service.class.total]
    packets = { rate = "50k", burst = "100k" }
[[service]]
name = "ping"
protocol = "icmp"
"#;

#[test]
fn the_whole_schema() {
    let policy = policy(WHOLE);
    assert_eq!(policy.interfaces, ["eth0", "eth1.100"]);
    assert_eq!(policy.mode, Mode::Monitor);
    assert_eq!(policy.scope.vlans, [100, 200]);
    assert_eq!(
        policy.scope.addresses,
        [prefix("203.0.113.0/24"), prefix("2001:db8:1::/48")]
    );
    assert_eq!(
        policy.source,
        Source {
            ipv4_prefix: 30,
            ipv6_prefix: 56,
            max_tracked: 2_000_000
        }
    );
    let port = |port| PortRange {
        first: port,
        last: port,
    };
    assert_eq!(
        policy.protect,
        [
            Protect {
                sources: vec![prefix("10.9.0.0/28"), prefix("2001:db8::7/128")],
                protocol: Protocol::Tcp,
                ports: vec![port(22), port(9100)],
            },
            Protect {
                sources: vec![prefix("10.9.0.0/28")],
                protocol: Protocol::Any,
                ports: Vec::new()
            },
        ]
    );
    let names: Vec<_> = policy.lists.iter().map(|list| list.name.as_str()).collect();
    assert_eq!(names, ["zebra", "cdn", "mobile"], "the order of the file");
    assert_eq!(policy.lists[0].action, Some(ListAction::Drop));
    assert_eq!(policy.lists[0].prefixes, [prefix("198.51.100.0/24")]);
    assert_eq!(policy.lists[0].files, [PathBuf::from("lists/blocklist.txt")]);
    assert_eq!(
        (policy.lists[0].max_prefixes, policy.lists[2].max_prefixes),
        (5, 1_000_000)
    );
    assert_eq!(
        (policy.lists[1].action, policy.lists[1].proxy),
        (Some(ListAction::Trust), true)
    );
    assert_eq!((policy.lists[2].action, policy.lists[2].proxy), (None, false));
    assert_eq!(
        policy.default,
        DefaultRule {
            action: DefaultAction::Drop,
            replies: Replies::None,
            essential: Essential::None,
            profile: false,
        }
    );

    let limit = |rate, burst| Some(Limit { rate, burst });
    assert_eq!(
        policy.services[0],
        Service {
            name: "storefront".into(),
            protocols: vec![Protocol::Tcp, Protocol::Udp],
            ports: vec![
                PortRange { first: 80, last: 81 },
                port(443),
                PortRange {
                    first: 8000,
                    last: 8080
                }
            ],
            source_ports: Vec::new(),
            addresses: vec![prefix("203.0.113.5/32")],
            only: vec!["cdn".into(), "mobile".into()],
            mode: Mode::Monitor,
            enforce_share_ppm: 125_000,
            profile: true,
            time: false,
            anomaly: false,
            on_attack: OnAttack::default(),
            per_source: Some(PerSource {
                limits: Limits {
                    packets: limit(2_000, 4_000),
                    bytes: limit(5_000_000, 10 << 20),
                    connections: limit(20, 20),
                },
                block: Some(Block {
                    for_seconds: 30,
                    drops: 1_000,
                    within_seconds: 60
                }),
            }),
            per_network: Some(PerNetwork {
                ipv4_prefix: 24,
                ipv6_prefix: 40,
                limits: Limits {
                    packets: limit(20_000, 40_000),
                    ..Limits::default()
                },
            }),
            total: Some(Total {
                limits: Limits {
                    packets: limit(500_000, 1_000_000),
                    bytes: limit(50_000_000_000, 50_000_000_000),
                    connections: None,
                },
                reserve_ppm: Some(200_000),
            }),
            classes: vec![Class {
                name: "mobile".into(),
                lists: vec!["mobile".into()],
                mode: Mode::Monitor,
                per_source: Some(PerSource {
                    limits: Limits {
                        connections: limit(400, 2_000),
                        ..Limits::default()
                    },
                    block: None,
                }),
                per_network: Some(PerNetwork {
                    ipv4_prefix: 20,
                    ipv6_prefix: 48,
                    limits: Limits {
                        bytes: limit(1_000, 1_514),
                        ..Limits::default()
                    },
                }),
                total: Some(Limits {
                    packets: limit(50_000, 100_000),
                    ..Limits::default()
                }),
            }],
        }
    );
}

#[test]
fn defaults() {
    let policy = policy(HEAD);
    assert_eq!(
        policy,
        Policy {
            interfaces: Vec::new(),
            mode: Mode::Enforce,
            scope: Scope::default(),
            source: Source {
                ipv4_prefix: 32,
                ipv6_prefix: 64,
                max_tracked: 1_000_000
            },
            protect: Vec::new(),
            sampling: model::Sampling::default(),
            sflow: None,
            webhook: None,
            geo: None,
            anomaly: model::Anomaly::default(),
            lists: Vec::new(),
            default: DefaultRule {
                action: DefaultAction::Pass,
                replies: Replies::Socket,
                essential: Essential::Pass,
                profile: true,
            },
            controller: Controller {
                on_loss: OnLoss::Hold,
                after_seconds: 300,
                socket_group: None,
            },
            services: Vec::new(),
        }
    );
}

#[test]
fn the_controllers_section_says_what_its_loss_means() {
    let text =
        format!("{HEAD}[controller]\non_loss = \"open\"\nafter = \"10s\"\nsocket_group = \"net-ops\"\n");
    let expected = Controller {
        on_loss: OnLoss::Open,
        after_seconds: 10,
        socket_group: Some("net-ops".into()),
    };
    assert_eq!(policy(&text).controller, expected);
}

#[test]
fn a_burst_left_out_is_a_second_within_the_bounds() {
    let burst = |tier: &str, kind: &str, rate: &str| {
        let policy = policy(&format!("{WEB}[service.{tier}]\n{kind} = {{ rate = {rate} }}\n"));
        let service = &policy.services[0];
        let limits = match tier {
            "per_source" => service.per_source.map(|tier| tier.limits),
            _ => service.total.map(|tier| tier.limits),
        };
        let limits = limits.unwrap();
        limits.packets.or(limits.bytes).unwrap().burst
    };
    assert_eq!(burst("per_source", "packets", "7"), 7);
    assert_eq!(burst("per_source", "packets", "\"100M\""), 8_000_000);
    assert_eq!(burst("total", "packets", "\"100M\""), 100_000_000);
    assert_eq!(burst("per_source", "bytes", "1000"), 1_514);
    assert_eq!(burst("per_source", "bytes", "\"1GB\""), 250_000_000);
    assert_eq!(burst("total", "bytes", "\"50GB\""), 50_000_000_000);
}

#[test]
fn a_network_is_no_longer_than_a_source() {
    let text = format!("{WEB}per_network.packets.rate = 1\n[source]\nipv4_prefix = 16\nipv6_prefix = 32\n");
    let network = policy(&text).services[0].per_network.unwrap();
    assert_eq!((network.ipv4_prefix, network.ipv6_prefix), (16, 32));
}

#[test]
fn warnings_have_places() {
    for (text, expected) in [
        (
            format!("{WEB}[service.per_source]\n"),
            "p.toml:5:1: service[1].per_source (service \"web\"): limits nothing",
        ),
        (
            format!("{WEB}[service.per_network]\n"),
            "p.toml:5:1: service[1].per_network (service \"web\"): limits nothing",
        ),
        (
            format!("{WEB}[service.total]\n"),
            "p.toml:5:1: service[1].total (service \"web\"): limits nothing",
        ),
        (
            format!("{WEB}per_source.block = {{ for = \"1s\", drops = 1, within = \"1s\" }}\n"),
            "service[1].per_source (service \"web\"): a block without packets, bytes or connections",
        ),
        (
            format!("{HEAD}[controller]\nafter = \"1m\"\n"),
            "p.toml:3:9: controller.after: \"1m\": has no effect without on_loss = \"open\"",
        ),
        (
            format!("{HEAD}[default]\nreplies = \"none\"\n"),
            "p.toml:3:11: default.replies: \"none\": has no effect without action = \"drop\"",
        ),
        (
            format!("{WEB}only = [\"l\", \"l\"]\n[lists.l]\n"),
            "p.toml:5:14: service[1].only[2] (service \"web\"): \"l\": is named twice",
        ),
        (
            format!("{WEB}only = [\"l\"]\n[lists.l]\naction = \"drop\"\n"),
            "service[1].only (service \"web\"): [\"l\"]: list \"l\" has action = \"drop\"",
        ),
        (
            format!("{WEB}class = [{{ name = \"c\", lists = [\"l\"] }}]\n[lists.l]\naction = \"drop\"\n"),
            "service[1].class[1].lists (service \"web\"): [\"l\"]: list \"l\" has action = \"drop\"",
        ),
        (
            format!(
                "{WEB}class = [{{ name = \"c\", lists = [\"l\"], per_source.packets.rate = 1 }}]\n[lists.l]\naction = \"trust\"\n"
            ),
            "list \"l\" has action = \"trust\": per_source and per_network never apply",
        ),
        (
            format!(
                "{WEB}class = [{{ name = \"c\", lists = [\"l\"] }}, {{ name = \"d\", lists = [\"l\"] }}]\n[lists.l]\n"
            ),
            "service[1].class[2] (service \"web\"): is never reached",
        ),
        (
            format!("{HEAD}[lists.l]\nfiles = [\"a\", \"a\"]\n"),
            "p.toml:3:15: lists.l.files[2]: \"a\": is named twice",
        ),
        (
            format!("{HEAD}[lists.l]\naction = \"drop\"\nproxy = true\n"),
            "p.toml:4:9: lists.l.proxy: true: has no effect",
        ),
    ] {
        let warnings = warnings(&text);
        assert!(
            warnings.len() == 1 && warnings[0].contains(expected),
            "{text}\n{warnings:#?}"
        );
    }
    assert!(warnings(WHOLE).is_empty(), "{:?}", warnings(WHOLE));
}

#[test]
fn ten_thousand_services_load_and_one_more_does_not() {
    let mut text = HEAD.to_owned();
    for number in 0..10_000_u32 {
        let (high, low) = (number / 250, number % 250);
        let _ = write!(
            text,
            "[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\nports = [443, \"8000-8080\"]\n\
             addresses = [\"10.0.{high}.{low}\", \"2001:db8::{high:x}:{low:x}\"]\n\
             per_source.packets = {{ rate = \"2k\", burst = 4000 }}\n"
        );
    }
    assert_eq!(policy(&text).services.len(), 10_000);
    text += "[[service]]\nname = \"more\"\nprotocol = \"udp\"\n";
    let errors = parse_text(&text).unwrap_err().to_string();
    assert_eq!(
        errors,
        "p.toml:2:1: service: expected at most 10000 services, not 10001"
    );
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let load_bytes = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        load(&path)
    };
    let loaded = load_bytes(b"version = 1\n").unwrap();
    assert_eq!(
        loaded.sha256,
        "dbab12665d98aef021ba64953c61b0ed8a908cfb56a1c01e2fcb4b052b71a2a1"
    );
    assert_eq!(
        (loaded.text.as_str(), loaded.path.as_path()),
        ("version = 1\n", path.as_path())
    );

    let big = vec![b'#'; (16 << 20) + 1];
    for (bytes, expected) in [
        (&b""[..], "expected a policy, but the file is empty"),
        (b" \n\t\n", "expected a policy, but the file is empty"),
        (
            b"version = 1\n\0",
            "expected a text file, but this one is binary (it has NUL bytes)",
        ),
        (
            b"version = 1\n# \xff\n",
            "expected a text file in UTF-8, but line 2 is not",
        ),
        (
            &big,
            "expected a policy of at most 16 MiB; put long lists into files of their own",
        ),
    ] {
        let errors = load_bytes(bytes).unwrap_err();
        assert_eq!(errors.to_string(), format!("{}: {expected}", path.display()));
    }
    let missing = folder.path().join("none.toml");
    let error = load(&missing).unwrap_err().to_string();
    assert!(
        error.contains("none.toml: expected a policy file, but there is none of that name"),
        "{error}"
    );
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected a policy file, but this is a directory"),
        "{error}"
    );
}

#[test]
fn a_half_written_file_is_invalid() {
    // Cut off anywhere inside the last service, the file is an error or says less, but nothing panics.
    for end in (0..WHOLE.len()).filter(|&end| WHOLE.is_char_boundary(end)) {
        let _ = parse_text(&WHOLE[..end]);
    }
    assert!(parse_text(&WHOLE[..WHOLE.len() - 3]).is_err());
}

#[test]
fn the_examples_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut shipped = 0;
    for entry in std::fs::read_dir(root.join("packaging")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let example = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert!(example.warnings.is_empty(), "{:?}", example.warnings);
            assert!(
                sizing::cells_in_debt(&example.policy).is_enough(),
                "{}",
                path.display()
            );
            shipped += 1;
        }
    }
    assert!(shipped >= 1, "packaging has no policy");
    let docs = std::fs::read_to_string(root.join("docs/policy.md")).unwrap();
    let mut examples = 0;
    for block in docs.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        // A part of a file is shown without the version that every file begins with.
        let text = if text.contains("version = ") {
            text.to_owned()
        } else {
            format!("{HEAD}{text}")
        };
        parse(&text, Path::new("docs/policy.md")).unwrap_or_else(|errors| panic!("{errors}\n---\n{text}"));
        examples += 1;
    }
    assert!(examples >= 2, "docs/policy.md has {examples} examples");
}

#[test]
fn ten_thousand_services_that_tie_are_answered_briefly() {
    let mut text = HEAD.to_owned();
    for number in 0..10_000_u32 {
        let _ = write!(text, "[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\n");
    }
    let errors = parse_text(&text).unwrap_err();
    assert_eq!(errors.errors().len(), 1_000);
    assert!(
        errors
            .to_string()
            .contains("\"s1\" and \"s0\" (service[1], line 2) tie for tcp at any address")
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = parse_text(&text);
    }

    #[test]
    fn no_mangled_policy_panics(at in 0..WHOLE.len(), length in 0_usize..40, put in "[\\[\\]{}\"=.,0-9a-z\n-]{0,6}") {
        let end = (at + length).min(WHOLE.len());
        if WHOLE.is_char_boundary(at) && WHOLE.is_char_boundary(end) {
            let text = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
            if let Err(errors) = parse_text(&text) {
                let places: Vec<_> = errors.errors().iter().map(|e| (e.line, e.column)).collect();
                prop_assert!(places.is_sorted());
                prop_assert!(errors.errors().iter().all(|e| e.message.contains("expected")), "{}", errors);
            }
        }
    }
}
