//! Checks between services: names, nesting and ties.

use super::*;

fn service(name: &str, rest: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\n{rest}\n")
}

fn errors_of(services: &[&str]) -> Vec<String> {
    let mut text = HEAD.to_owned();
    for (service_text, name) in services.iter().zip('a'..) {
        text += &service(&name.to_string(), service_text);
    }
    match parse_text(&text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn names_are_unique() {
    let text = format!(
        "{HEAD}{}{}",
        service("a", "protocol = \"tcp\""),
        service("a", "protocol = \"udp\"")
    );
    let errors = parse_text(&text).unwrap_err().to_string();
    assert!(
        errors.starts_with(
            "p.toml:6:8: service[2].name: expected a name that no other service has, but service[1] (line 3)"
        ),
        "{errors}"
    );
}

#[test]
fn services_that_tie_are_errors() {
    for (first, second, what) in [
        ("protocol = \"tcp\"", "protocol = \"tcp\"", "tcp at any address"),
        (
            "protocol = \"any\"",
            "protocol = \"any\"",
            "any protocol at any address",
        ),
        (
            "protocol = [\"icmp\", \"tcp\"]",
            "protocol = [\"icmp\", \"udp\"]",
            "icmp at any address",
        ),
        (
            "protocol = \"tcp\"\nports = [80, 443]",
            "protocol = [\"udp\", \"tcp\"]\nports = [443]",
            "tcp port 443 at any address",
        ),
        (
            "protocol = \"tcp\"\nports = [\"8000-8080\"]",
            "protocol = \"tcp\"\nports = [8040]",
            "tcp port 8040 at any address",
        ),
        (
            "protocol = \"udp\"\nports = [\"1-100\"]",
            "protocol = \"udp\"\nports = [\"50-200\"]",
            "udp ports 50-100 at any address",
        ),
        (
            "protocol = \"udp\"\nsource_ports = [53]",
            "protocol = \"udp\"\nsource_ports = [\"50-60\"]",
            "udp from source port 53 at any address",
        ),
        (
            "protocol = \"udp\"\nports = [1]\nsource_ports = [53]",
            "protocol = \"udp\"\nports = [\"1-9\"]\nsource_ports = [\"50-60\"]",
            "udp port 1 from source port 53 at any address",
        ),
        (
            "protocol = \"tcp\"\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]",
            "protocol = \"tcp\"\naddresses = [\"192.0.2.2/32\"]",
            "tcp at 192.0.2.2/32",
        ),
        (
            "protocol = \"tcp\"\naddresses = [\"::/0\"]",
            "protocol = \"tcp\"\naddresses = [\"::/0\"]",
            "tcp at ::/0",
        ),
    ] {
        let errors = errors_of(&[first, second]);
        assert_eq!(errors.len(), 1, "{first} {second}: {errors:?}");
        let expected = format!("but \"b\" and \"a\" (service[1], line 2) tie for {what};");
        assert!(
            errors[0].contains(": service[2] (service \"b\"): expected no packet")
                && errors[0].contains(&expected),
            "{errors:?}"
        );
    }
}

#[test]
fn services_of_different_rank_do_not_tie() {
    for (first, second) in [
        ("protocol = \"tcp\"", "protocol = \"udp\""),
        ("protocol = \"tcp\"", "protocol = \"any\""),
        ("protocol = \"tcp\"", "protocol = \"tcp\"\nports = [80]"),
        (
            "protocol = \"tcp\"\nports = [80]",
            "protocol = \"tcp\"\nports = [81]",
        ),
        (
            "protocol = \"tcp\"\nports = [80]",
            "protocol = \"tcp\"\nports = [80]\nsource_ports = [53]",
        ),
        (
            "protocol = \"tcp\"\nports = [80]",
            "protocol = \"tcp\"\nsource_ports = [53]",
        ),
        (
            "protocol = \"tcp\"\nports = [80]\nsource_ports = [53]",
            "protocol = \"tcp\"\nports = [80]\nsource_ports = [54]",
        ),
        (
            "protocol = \"tcp\"",
            "protocol = \"tcp\"\naddresses = [\"0.0.0.0/0\"]",
        ),
        (
            "protocol = \"tcp\"\naddresses = [\"0.0.0.0/0\"]",
            "protocol = \"tcp\"\naddresses = [\"::/0\"]",
        ),
        (
            "protocol = \"tcp\"\naddresses = [\"10.0.0.0/8\"]",
            "protocol = \"tcp\"\naddresses = [\"10.0.0.0/9\"]",
        ),
    ] {
        assert_eq!(errors_of(&[first, second]), [""; 0], "{first} {second}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nest = |count: u32| {
        let prefixes: Vec<_> = (0..count).map(|n| format!("\"10.0.0.0/{}\"", 8 + n)).collect();
        format!(
            "protocol = \"tcp\"\naddresses = [{}, \"11.0.0.0/8\"]",
            prefixes.join(", ")
        )
    };
    assert_eq!(errors_of(&[&nest(8)]), [""; 0]);
    let errors = errors_of(&[&nest(9)]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("service[1].addresses (service \"a\"): expected destination prefixes that nest at most 8 deep, but 10.0.0.0/8 > "), "{errors:?}");
    // The depth counts over all services and the scope.
    let text = format!(
        "{HEAD}[scope]\naddresses = [\"0.0.0.0/0\"]\n{}",
        service("a", &nest(8))
    );
    assert_eq!(parse_text(&text).unwrap_err().count(), 1);
}

proptest! {
    /// The sweep finds a tie exactly where comparing every pair does.
    #[test]
    fn ties_are_those_of_all_pairs(
        shapes in prop::collection::vec(
            (0_usize..3, prop::collection::vec((1_u16..40, 0_u16..6), 0..3), prop::collection::vec((1_u16..20, 0_u16..4), 0..3), 0_usize..3),
            1..7,
        )
    ) {
        let range = |pairs: &[(u16, u16)]| {
            pairs.iter().map(|(first, more)| format!("\"{first}-{}\"", first + more)).collect::<Vec<_>>().join(",")
        };
        let texts: Vec<_> = shapes
            .iter()
            .map(|(protocol, ports, source_ports, address)| {
                let protocol = ["\"tcp\"", "\"udp\"", "[\"tcp\", \"udp\"]"][*protocol];
                let address = ["", "\"192.0.2.0/24\"", "\"192.0.2.0/24\", \"::/0\""][*address];
                format!("protocol = {protocol}\nports = [{}]\nsource_ports = [{}]\naddresses = [{address}]", range(ports), range(source_ports))
            })
            .collect();
        // Each service alone is good; read them one by one, then compare pairs the simple way.
        let services: Vec<Service> =
            texts.iter().map(|text| policy(&format!("{HEAD}{}", service("x", text))).services.remove(0)).collect();
        let mut tied = vec![false; services.len()];
        let mut any = false;
        for later in 0..services.len() {
            for earlier in 0..later {
                if simple_tie(&services[earlier], &services[later]) {
                    any = true;
                    tied[earlier] = true;
                    tied[later] = true;
                }
            }
        }
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let errors = errors_of(&texts);
        prop_assert_eq!(any, !errors.is_empty());
        for (name, tied) in ('a'..).zip(&tied) {
            let named = errors.iter().any(|error| error.contains(&format!("\"{name}\"")));
            prop_assert_eq!(*tied, named, "{} {:?}", name, errors);
        }
    }
}

fn simple_tie(a: &Service, b: &Service) -> bool {
    let overlap = |a: &[PortRange], b: &[PortRange]| {
        if a.is_empty() || b.is_empty() {
            return a.is_empty() == b.is_empty();
        }
        a.iter()
            .any(|a| b.iter().any(|b| a.first <= b.last && b.first <= a.last))
    };
    let prefixes = if a.addresses.is_empty() || b.addresses.is_empty() {
        a.addresses.is_empty() == b.addresses.is_empty()
    } else {
        a.addresses.iter().any(|prefix| b.addresses.contains(prefix))
    };
    prefixes
        && a.protocols.iter().any(|protocol| b.protocols.contains(protocol))
        && overlap(&a.ports, &b.ports)
        && overlap(&a.source_ports, &b.source_ports)
}
