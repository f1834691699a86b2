//! Every mistake outside services and its answer; what tests of mistakes share.

#![allow(clippy::format_collect, reason = "short texts")]

use super::*;

/// Asserts that a text has exactly one error, at that place and key, with that phrase.
fn one(text: &str, place: &str, phrase: &str) {
    let Err(errors) = parse_text(text) else {
        panic!("no error in:\n{text}")
    };
    let shown = errors.to_string();
    let expected = format!("p.toml:{place}: ");
    assert!(
        errors.count() == 1 && shown.starts_with(&expected),
        "expected one at {expected}, got\n{shown}\n---\n{text}"
    );
    assert!(
        shown.contains(phrase),
        "expected {phrase:?}, got\n{shown}\n---\n{text}"
    );
}

/// The same for a text behind `version = 1`, which is line 1.
pub(super) fn top(text: &str, place: &str, phrase: &str) {
    one(&format!("{HEAD}{text}\n"), place, phrase);
}

/// The same for keys of a tcp service without ports; the keys begin in line 5.
pub(super) fn web(text: &str, place: &str, phrase: &str) {
    let place = place.replace(" @", " (service \"web\")");
    one(&format!("{WEB}{text}\n"), &place, phrase);
}

#[test]
fn toml_itself() {
    one("version", "1:8", "expected TOML: key with no value");
    one(
        "version = 1\nversion = 1\n",
        "2:1",
        "version: expected TOML: duplicate key",
    );
    one("version = 1\n[scope\n", "2:7", "expected TOML: unclosed table");
    one("version = 1\nmode = \"x\n", "2:10", "expected TOML");
    // A word without quotes hides no other error, a missing bracket does.
    let errors = parse_text(&format!(
        "{WEB}per_source.packets.rate = 20k\nmode = \"x\"\nports = [0]\n"
    ))
    .unwrap_err();
    let errors = errors.to_string();
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].starts_with("p.toml:5:27: 20k: expected TOML: string values must be quoted"));
    assert!(lines[1].starts_with("p.toml:6:8: service[1].mode"));
    assert!(lines[2].starts_with("p.toml:7:10: service[1].ports[1]"));
    one(
        &format!("{WEB}ports = [1\nmode = \"x\"\n"),
        "6:1",
        "expected TOML: missing comma",
    );
    let errors = parse_text(&"=\n".repeat(100)).unwrap_err();
    assert_eq!((errors.errors().len(), errors.more()), (20, 80));
}

#[test]
fn top_level() {
    one(
        "mode = \"enforce\"\n",
        "1:1: version",
        "expected version = 1: the key is missing",
    );
    one(
        "version = 2\n",
        "1:11: version: 2",
        "expected 1, the only version",
    );
    one("version = \"1\"\n", "1:11: version: \"1\"", "expected 1");
    top(
        "mode = \"observe\"",
        "2:8: mode: \"observe\"",
        "expected \"enforce\" or \"monitor\"",
    );
    top("mode = 1", "2:8: mode: 1", "expected \"enforce\" or \"monitor\"");
    top(
        "interface = [\"eth0\"]",
        "2:1: interface",
        "did you mean interfaces?",
    );
    top("banana = 1", "2:1: banana", "expected one of version, interfaces");
    top("\"a b\" = 1", "2:1: \"a b\"", "expected one of version");
    top(
        "interfaces = \"eth0\"",
        "2:14: interfaces: \"eth0\"",
        "expected an array of interface names",
    );
    top(
        "interfaces = [1]",
        "2:15: interfaces[1]: 1",
        "expected an interface name",
    );
    for name in ["", "interface-too-long", "a/b", "a b", "..", "a:1"] {
        top(
            &format!("interfaces = [\"{name}\"]"),
            "2:15: interfaces[1]",
            "expected an interface name of 1 to 15 bytes",
        );
    }
    top(
        "interfaces = [\"a\", \"a\"]",
        "2:20: interfaces[2]: \"a\"",
        "expected each interface once",
    );
    let many: Vec<_> = (0..17).map(|n| format!("\"eth{n}\"")).collect();
    top(
        &format!("interfaces = [{}]", many.join(", ")),
        "2:14: interfaces",
        "expected at most 16 interfaces, not 17",
    );
    top(
        "[geo]\ndatabase = 1",
        "3:12: geo.database: 1",
        "a MaxMind database",
    );
}

#[test]
fn the_controllers_section() {
    let controller = |keys: &str, place: &str, phrase: &str| {
        top(&format!("[controller]\n{keys}"), place, phrase);
    };
    controller("on_los = \"hold\"", "3:1: controller.on_los", "on_loss");
    controller(
        "on_loss = \"close\"",
        "3:11: controller.on_loss: \"close\"",
        "expected \"hold\" or \"open\"",
    );
    for after in ["\"9s\"", "\"25h\"", "\"2d\""] {
        controller(
            &format!("on_loss = \"open\"\nafter = {after}"),
            &format!("4:9: controller.after: {after}"),
            "expected a duration from \"10s\" to \"1d\"",
        );
    }
    controller(
        "on_loss = \"open\"\nafter = 300",
        "4:9: controller.after: 300",
        "a duration such as \"5m\"",
    );
    let long = format!("\"{}\"", "g".repeat(33));
    for group in ["\"\"", "\"a b\"", "\"1000\"", "\"-x\"", "\"a:b\"", long.as_str()] {
        controller(
            &format!("socket_group = {group}"),
            "3:16: controller.socket_group",
            "expected the name of a group",
        );
    }
}

#[test]
fn scope_and_source() {
    top("scope = 1", "2:9: scope: 1", "expected a table [scope]");
    top("[scope]\nvlan = [1]", "3:1: scope.vlan", "did you mean vlans?");
    top(
        "[scope]\nvlans = [0]",
        "3:10: scope.vlans[1]: 0",
        "expected an integer from 1 to 4094",
    );
    top(
        "[scope]\nvlans = [1, 4095]",
        "3:13: scope.vlans[2]: 4095",
        "expected an integer from 1 to 4094",
    );
    top(
        "[scope]\naddresses = [\"203.0.113.7/24\"]",
        "3:14: scope.addresses[1]: \"203.0.113.7/24\"",
        "the network is 203.0.113.0/24",
    );
    top(
        "[scope]\naddresses = [\"::ffff:1.2.3.4\"]",
        "3:14: scope.addresses[1]",
        "expected no IPv4-mapped",
    );
    top(
        "[scope]\naddresses = [\"1.2.3.4/33\"]",
        "3:14: scope.addresses[1]",
        "expected a prefix length from 0 to 32",
    );
    top(
        "[scope]\naddresses = [\"example.org\"]",
        "3:14: scope.addresses[1]",
        "expected an address or a prefix",
    );
    top(
        "[scope]\naddresses = [4]",
        "3:14: scope.addresses[1]: 4",
        "expected a string with a prefix",
    );
    top(
        "[source]\nipv4_prefix = 7",
        "3:15: source.ipv4_prefix: 7",
        "expected an integer from 8 to 32",
    );
    top(
        "[source]\nipv4_prefix = 33",
        "3:15: source.ipv4_prefix: 33",
        "expected an integer from 8 to 32",
    );
    top(
        "[source]\nipv6_prefix = 15",
        "3:15: source.ipv6_prefix: 15",
        "expected an integer from 16 to 128",
    );
    top(
        "[source]\nmax_tracked = 1_023",
        "3:15: source.max_tracked: 1_023",
        "expected an integer from 1024 to 64000000",
    );
    top(
        "[source]\nmax_tracked = 64_000_001",
        "3:15: source.max_tracked",
        "expected an integer from 1024 to 64000000",
    );
    top(
        "[source]\nmax_tracked = -1",
        "3:15: source.max_tracked: -1",
        "expected an integer from 1024",
    );
    top(
        "[source]\nmax_tracked = 1.5",
        "3:15: source.max_tracked: 1.5",
        "expected an integer from 1024",
    );
}

#[test]
fn protect() {
    top(
        "[protect]\nsources = [\"::1\"]",
        "2:1: protect: [protect]",
        "expected tables that begin with [[protect]]",
    );
    top(
        "[[protect]]\nprotocol = \"tcp\"",
        "2:1: protect[1].sources",
        "expected an array of source prefixes: the key is missing",
    );
    top(
        "[[protect]]\nsources = []",
        "2:1: protect[1].sources",
        "expected at least one source prefix",
    );
    top(
        "[[protect]]\nsources = [\"::1\"]\nprotocol = \"sctp\"",
        "4:12: protect[1].protocol: \"sctp\"",
        "expected \"tcp\" or \"udp\"",
    );
    top(
        "[[protect]]\nsources = [\"::1\"]\nports = [22]",
        "4:9: protect[1].ports: [22]",
        "expected no ports without protocol",
    );
    let ports: Vec<_> = (1..=64).map(|n| (n * 2).to_string()).collect();
    let rule = format!(
        "[[protect]]\nsources = [\"::1\"]\nprotocol = \"tcp\"\nports = [{}]",
        ports.join(",")
    );
    assert_eq!(policy(&format!("{HEAD}{rule}\n")).protect[0].ports.len(), 64);
    top(
        &format!("{rule}\n[[protect]]\nsources = [\"::1\"]\n[[protect]]\nsources = [\"::1\"]"),
        "6:1: protect[2].ports",
        "expected at most 64 rules",
    );
}

#[test]
fn lists() {
    top("lists = 1", "2:9: lists: 1", "expected a table [lists]");
    top("[lists]\nl = 1", "3:5: lists.l: 1", "expected a table [lists.l]");
    top(
        "[lists.\"a b\"]",
        "2:1: lists.\"a b\"",
        "expected a name of 1 to 63 letters",
    );
    top(
        "[lists.l]\naction = \"block\"",
        "3:10: lists.l.action: \"block\"",
        "expected \"drop\" or \"trust\"",
    );
    top(
        "[lists.l]\nprefixes = [\"10.1.0.0/8\"]",
        "3:13: lists.l.prefixes[1]",
        "the network is 10.0.0.0/8",
    );
    top(
        "[lists.l]\nfiles = [\"\"]",
        "3:10: lists.l.files[1]: \"\"",
        "expected the path of a file",
    );
    top(
        "[lists.l]\nfiles = [7]",
        "3:10: lists.l.files[1]: 7",
        "expected a string with a path",
    );
    top(
        "[lists.l]\nmax_prefixes = 0",
        "3:16: lists.l.max_prefixes: 0",
        "expected an integer from 1 to 1000000",
    );
    top(
        "[lists.l]\nmax_prefixes = 1\nprefixes = [\"::1\", \"::2\"]",
        "4:12: lists.l.prefixes",
        "expected at most 1 prefixes",
    );
    top(
        "[lists.l]\nproxy = 1",
        "3:9: lists.l.proxy: 1",
        "expected true or false",
    );
    top(
        "[lists.l]\nprefix = []",
        "3:1: lists.l.prefix",
        "did you mean prefixes?",
    );
    let many: String = (0..65).map(|n| format!("[lists.l{n}]\n")).collect();
    top(&many, "2:2: lists", "expected at most 64 lists, not 65");
}

#[test]
fn default_rule() {
    top(
        "[default]\naction = \"deny\"",
        "3:10: default.action: \"deny\"",
        "expected \"pass\" or \"drop\"",
    );
    top(
        "[default]\naction = \"drop\"\nreplies = \"yes\"",
        "4:11: default.replies: \"yes\"",
        "expected \"socket\" or \"none\"",
    );
    top(
        "[default]\naction = \"drop\"\nessential = \"drop\"",
        "4:13: default.essential: \"drop\"",
        "expected \"pass\" or \"none\"",
    );
    top(
        "[default]\nessentials = \"none\"",
        "3:1: default.essentials",
        "did you mean essential?",
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "version = 1\nmode = \"x\"\n[[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [0, 99999]\n\
                [[service]]\nname = \"a\"\nprotocol = \"udp\"\nper_source.packets.rate = \"5x\"\n[geo]\n";
    let errors = parse_text(text).unwrap_err();
    let places: Vec<_> = errors.errors().iter().map(|e| (e.line, e.key.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, "mode"),
            (6, "service[1].ports[1]"),
            (6, "service[1].ports[2]"),
            (8, "service[2].name"),
            (10, "service[2].per_source.packets.rate"),
            (11, "geo.database"),
        ]
    );
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json["errors"][4]["service"], "a");
    assert_eq!(json["errors"][4]["value"], "\"5x\"");
    assert_eq!(json["errors"][4]["column"], 27);
}
