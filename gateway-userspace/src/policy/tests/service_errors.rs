//! Every mistake within a service and its answer.

#![allow(
    clippy::too_many_lines,
    clippy::format_collect,
    reason = "tables of short texts"
)]

use super::{
    errors::{top, web},
    *,
};

#[test]
fn service_keys() {
    top(
        "[service]\nname = \"x\"",
        "2:1: service: [service]",
        "expected tables that begin with [[service]]",
    );
    top(
        "[[service]]\nprotocol = \"tcp\"",
        "2:1: service[1].name",
        "expected a name: the key is missing",
    );
    top(
        "[[service]]\nname = \"a\"",
        "2:1: service[1].protocol (service \"a\")",
        "expected \"tcp\", \"udp\", \"icmp\"",
    );
    top(
        "[[service]]\nname = 1\nprotocol = \"tcp\"",
        "3:8: service[1].name: 1",
        "expected a name",
    );
    for name in ["", "a b", "a\\u0000", "ä", &"x".repeat(64)] {
        top(
            &format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\""),
            "3:8: service[1].name",
            "expected a name of 1 to 63 letters",
        );
    }
    top(
        "[[service]]\nname = \"default\"\nprotocol = \"tcp\"",
        "3:8: service[1].name",
        "expected another name: \"default\" is",
    );
    top(
        "[[service]]\nname = \"a\"\nprotocol = \"sctp\"",
        "4:12: service[1].protocol (service \"a\")",
        "expected \"tcp\" or \"udp\" or \"icmp\" or \"any\"",
    );
    top(
        "[[service]]\nname = \"a\"\nprotocol = []",
        "4:12: service[1].protocol (service \"a\")",
        "a list of these, or \"any\"",
    );
    top(
        "[[service]]\nname = \"a\"\nprotocol = 6",
        "4:12: service[1].protocol (service \"a\")",
        "a list of these, or \"any\"",
    );
    top(
        "[[service]]\nname = \"a\"\nprotocol = [\"tcp\", \"any\"]",
        "4:12: service[1].protocol (service \"a\")",
        "expected \"any\" alone",
    );
    for (protocol, word) in [
        ("\"icmp\"", "icmp"),
        ("\"any\"", "any"),
        ("[\"icmp\", \"tcp\"]", "icmp"),
    ] {
        for key in ["ports", "source_ports"] {
            top(
                &format!("[[service]]\nname = \"a\"\nprotocol = {protocol}\n{key} = [80]"),
                &format!("5:{}: service[1].{key} (service \"a\")", key.len() + 4),
                &format!("expected no {key} where the protocol is or includes \"{word}\""),
            );
        }
    }
    web("port = [80]", "5:1: service[1].port @", "did you mean ports?");
    web(
        "on_attack = true",
        "5:13: service[1].on_attack @: true",
        "expected a table [service[1].on_attack]",
    );
    web(
        "profile = {}",
        "5:11: service[1].profile @: {}",
        "expected true or false",
    );
    web(
        "mode = \"off\"",
        "5:8: service[1].mode @: \"off\"",
        "expected \"enforce\" or \"monitor\"",
    );
    web(
        "enforce_share = \"101%\"",
        "5:17: service[1].enforce_share @: \"101%\"",
        "expected a share from \"0%\" to \"100%\"",
    );
    web(
        "enforce_share = 20",
        "5:17: service[1].enforce_share @: 20",
        "expected a share such as",
    );
    web(
        "enforce_share = \"0.00001%\"",
        "5:17: service[1].enforce_share @",
        "expected a number that comes out whole",
    );
    web(
        "addresses = \"::1\"",
        "5:13: service[1].addresses @: \"::1\"",
        "expected an array of prefixes",
    );
    web(
        "only = [\"blok\"]\n[lists.block]",
        "5:9: service[1].only[1] @: \"blok\"",
        "expected the name of a list: did you mean \"block\"?",
    );
    web(
        "only = [\"x\"]",
        "5:9: service[1].only[1] @: \"x\"",
        "there is no [lists.x]",
    );
    web(
        "only = [1]",
        "5:9: service[1].only[1] @: 1",
        "expected the name of a list",
    );
    assert_eq!(
        policy(&format!("{WEB}enforce_share = \"0%\"\n")).services[0].enforce_share_ppm,
        0
    );
}

#[test]
fn ports() {
    for (port, phrase) in [
        ("0", "expected a port from 1 to 65535"),
        ("65536", "expected a port from 1 to 65535"),
        ("-1", "expected a port from 1 to 65535"),
        ("80.5", "expected a port from 1 to 65535"),
        ("true", "expected a port from 1 to 65535"),
        ("\"http\"", "expected a port from 1 to 65535"),
        ("\"80-\"", "expected a port from 1 to 65535"),
        ("\"0-80\"", "expected a port from 1 to 65535"),
        (
            "\"8080-8000\"",
            "expected a range that begins with its lower port: \"8000-8080\"",
        ),
    ] {
        web(
            &format!("ports = [80, {port}]"),
            &format!("5:14: service[1].ports[2] @: {port}"),
            phrase,
        );
        web(
            &format!("source_ports = [{port}]"),
            &format!("5:17: service[1].source_ports[1] @: {port}"),
            phrase,
        );
    }
    web(
        "ports = 80",
        "5:9: service[1].ports @: 80",
        "expected an array of ports",
    );
    let ports = |count: u32| {
        (1..=count)
            .map(|n| (n * 2).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    web(
        &format!("ports = [{}]", ports(1_025)),
        "5:9: service[1].ports @",
        "expected at most 1024 separate port ranges, not 1025",
    );
    let both = format!("ports = [{}]\nsource_ports = [{}]", ports(33), ports(32));
    web(
        &both,
        "2:1: service[1].source_ports @",
        "expected at most 1024 pairs",
    );
}

#[test]
fn buckets() {
    for (tier, owner) in [
        ("per_source", "per_source"),
        ("per_network", "per_network"),
        ("total", "total"),
    ] {
        let place = |rest: &str| format!("6:{rest}").replace('~', owner);
        let bad = |line: &str, rest: &str, phrase: &str| {
            web(&format!("[service.{tier}]\n{line}"), &place(rest), phrase);
        };
        bad(
            "packets = 5",
            "11: service[1].~.packets @: 5",
            "expected a table { rate = …, burst = … }",
        );
        bad(
            "packets = {}",
            "11: service[1].~.packets.rate @",
            "expected a rate in packets a second: the key is missing",
        );
        bad(
            "packets = { rat = 1, rate = 1 }",
            "13: service[1].~.packets.rat @",
            "did you mean rate?",
        );
        bad(
            "packets = { rate = 0 }",
            "20: service[1].~.packets.rate @: 0",
            "expected 1 to 100M packets a second",
        );
        bad(
            "packets = { rate = -5 }",
            "20: service[1].~.packets.rate @: -5",
            "expected 1 to 100M packets a second",
        );
        bad(
            "packets = { rate = 100_000_001 }",
            "20: service[1].~.packets.rate @",
            "expected 1 to 100M packets a second",
        );
        bad(
            "packets = { rate = \"2G\" }",
            "20: service[1].~.packets.rate @: \"2G\"",
            "expected 1 to 100M packets a second",
        );
        bad(
            "packets = { rate = 1.5 }",
            "20: service[1].~.packets.rate @: 1.5",
            "expected an integer or a string such as \"20k\"",
        );
        bad(
            "packets = { rate = \"20 k\" }",
            "20: service[1].~.packets.rate @",
            "expected an integer, or a string such as",
        );
        bad(
            "packets = { rate = \"0.5\" }",
            "20: service[1].~.packets.rate @",
            "expected a number that comes out whole",
        );
        bad(
            "packets = { rate = \"5MB\" }",
            "20: service[1].~.packets.rate @",
            "expected an integer, or a string such as",
        );
        bad(
            "connections = { rate = \"1K\" }",
            "24: service[1].~.connections.rate @",
            "expected an integer, or a string",
        );
        bad(
            "connections = { rate = 1, burst = 0 }",
            "35: service[1].~.connections.burst @: 0",
            "expected 1 to ",
        );
        bad(
            "bytes = { rate = 999 }",
            "18: service[1].~.bytes.rate @: 999",
            "expected 1kB to 50GB a second",
        );
        bad(
            "bytes = { rate = \"51GB\" }",
            "18: service[1].~.bytes.rate @",
            "expected 1kB to 50GB a second",
        );
        bad(
            "bytes = { rate = \"5Mbit\" }",
            "18: service[1].~.bytes.rate @",
            "expected a number of bytes (not bits)",
        );
        bad(
            "bytes = { rate = 5000, burst = 1513 }",
            "32: service[1].~.bytes.burst @: 1513",
            "expected 1514B to ",
        );
    }
    for (tier, packets, bytes) in [
        ("per_source", "8M packets", "250MB"),
        ("per_network", "8M packets", "250MB"),
        ("total", "1G packets", "1TB"),
    ] {
        let over = |kind: &str, burst: &str, most: &str| {
            let line = format!("[service.{tier}]\n{kind} = {{ rate = 5000, burst = {burst} }}");
            let column = kind.len() + 27;
            web(
                &line,
                &format!("6:{column}: service[1].{tier}.{kind}.burst @"),
                &format!("to {most}"),
            );
        };
        over("packets", "1_000_000_001", packets);
        over("bytes", "\"1000.1GB\"", bytes);
    }
    web(
        "[service.per_source]\npackets = { rate = 1, burst = 8_000_001 }",
        "6:31: service[1].per_source.packets.burst @",
        "8M",
    );
    web(
        "[service.per_source]\nipv4_prefix = 24",
        "6:1: service[1].per_source.ipv4_prefix @",
        "expected one of packets",
    );
    web(
        "[service.per_network]\nblock = {}",
        "6:1: service[1].per_network.block @",
        "is not in this version",
    );
    web(
        "[service.total]\nreserve = 20",
        "6:11: service[1].total.reserve @: 20",
        "expected a share such as",
    );
    web(
        "[service.total]\nreserve = \"90.1%\"",
        "6:11: service[1].total.reserve @: \"90.1%\"",
        "must leave at least 10 %",
    );
    web(
        "[service.total]\nblock = {}",
        "6:1: service[1].total.block @",
        "expected one of packets",
    );
    web(
        "[service.per_network]\nipv4_prefix = 33",
        "6:15: service[1].per_network.ipv4_prefix @: 33",
        "expected an integer from 8 to 32",
    );
    web(
        "[service.per_network]\nipv6_prefix = 65",
        "6:15: service[1].per_network.ipv6_prefix @: 65",
        "expected at most 64, the source.ipv6_prefix",
    );
}

#[test]
fn blocks() {
    let block = |block: &str, place: &str, phrase: &str| {
        web(
            &format!("[service.per_source]\nblock = {block}"),
            &format!("6:{place}").replace('~', "service[1].per_source.block"),
            phrase,
        );
    };
    block("\"30s\"", "9: ~ @: \"30s\"", "expected a table { for");
    block(
        "{ drops = 1, within = \"1s\" }",
        "9: ~.for @",
        "expected a duration such as \"30s\": the key is missing",
    );
    block(
        "{ for = \"1s\", within = \"1s\" }",
        "9: ~.drops @",
        "expected a number of drops: the key is missing",
    );
    block(
        "{ for = \"1s\", drops = 1 }",
        "9: ~.within @",
        "expected a duration such as \"30s\": the key is missing",
    );
    block(
        "{ for = 30, drops = 1, within = \"1s\" }",
        "17: ~.for @: 30",
        "expected a duration such as",
    );
    block(
        "{ for = \"500ms\", drops = 1, within = \"1s\" }",
        "17: ~.for @",
        "expected a number that comes out whole in seconds",
    );
    block(
        "{ for = \"0s\", drops = 1, within = \"1s\" }",
        "17: ~.for @",
        "expected a duration from \"1s\" to \"1d\"",
    );
    block(
        "{ for = \"25h\", drops = 1, within = \"1s\" }",
        "17: ~.for @",
        "expected a duration from \"1s\" to \"1d\"",
    );
    block(
        "{ for = \"1s\", drops = 0, within = \"1s\" }",
        "31: ~.drops @: 0",
        "expected an integer from 1 to ",
    );
    block(
        "{ for = \"1s\", drops = 1_000_001, within = \"1s\" }",
        "31: ~.drops @",
        "expected an integer from 1 to ",
    );
    block(
        "{ for = \"1s\", drops = 1, within = \"61m\" }",
        "43: ~.within @",
        "expected a duration from \"1s\" to \"1h\"",
    );
    block(
        "{ for = \"1s\", drops = 1, within = \"1s\", whole = 1 }",
        "49: ~.whole @",
        "expected one of for, drops, within",
    );
}

#[test]
fn classes() {
    let class = |class: &str, place: &str, phrase: &str| {
        web(
            &format!("[[service.class]]\n{class}\n[lists.l]\n[lists.cdn]\nproxy = true"),
            place,
            phrase,
        );
    };
    web(
        "[service.class]\nname = \"c\"",
        "5:1: service[1].class @",
        "expected tables that begin with [[service.class]]",
    );
    class(
        "lists = [\"l\"]",
        "5:1: service[1].class[1].name @",
        "expected a name: the key is missing",
    );
    class(
        "name = \"c\"",
        "5:1: service[1].class[1].lists @",
        "expected an array of names of lists: the key is missing",
    );
    class(
        "name = \"c\"\nlists = []",
        "7:9: service[1].class[1].lists @: []",
        "expected at least one list",
    );
    class(
        "name = \"c\"\nlists = [\"no\"]",
        "7:10: service[1].class[1].lists[1] @: \"no\"",
        "expected the name of a list",
    );
    class(
        "name = \"c d\"\nlists = [\"l\"]",
        "6:8: service[1].class[1].name @",
        "expected a name of 1 to 63",
    );
    class(
        "name = \"c\"\nlists = [\"l\"]\nonly = []",
        "8:1: service[1].class[1].only @",
        "expected one of name, lists",
    );
    class(
        "name = \"c\"\nlists = [\"l\"]\ntotal.reserve = \"1%\"",
        "8:7: service[1].class[1].total.reserve @",
        "is not in this version",
    );
    class(
        "name = \"c\"\nlists = [\"l\", \"cdn\"]\nper_source.packets.rate = 1",
        "7:9: service[1].class[1].lists @: [\"l\", \"cdn\"]",
        "expected no per_source in a class of list \"cdn\", which says proxy = true",
    );
    class(
        "name = \"c\"\nlists = [\"l\"]\n[[service.class]]\nname = \"c\"\nlists = [\"cdn\"]",
        "9:8: service[1].class[2].name @",
        "expected a name that no other class",
    );
    let many: String = (0..17)
        .map(|n| format!("[[service.class]]\nname = \"c{n}\"\nlists = [\"l\"]\n"))
        .collect();
    web(
        &format!("{many}[lists.l]"),
        "2:1: service[1].class @",
        "expected at most 16 classes, not 17",
    );
}
