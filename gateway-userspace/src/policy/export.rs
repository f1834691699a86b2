//! Reading `[export]`: who else is told of samples.

use std::net::{IpAddr, SocketAddr};

use super::{
    model::Sflow,
    walk::{Item, Section, Sink},
};

/// Reads `[export.sflow]`, if it is there.
pub(super) fn sflow(root: &Section<'_>, sampling: bool, sink: &mut Sink<'_>) -> Option<Sflow> {
    let export = root.section("export", sink)?;
    export.check_keys(&["sflow"], &[], sink);
    let section = export.section("sflow", sink)?;
    section.check_keys(&["collector", "agent"], &[], sink);
    let agent = section.get("agent").and_then(|item| address(&item, sink));
    let item = section.require(
        "collector",
        sink,
        "the collector's address and port, such as \"127.0.0.1:6343\"",
    )?;
    if !sampling {
        sink.warn(&item, "has no effect with sampling.one_in = 0");
    }
    let collector = collector(&item, sink)?;
    Some(Sflow { collector, agent })
}

fn collector(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<SocketAddr> {
    let expected = "an address and a port, such as \"127.0.0.1:6343\" or \"[2001:db8::1]:6343\"";
    let text = item.string(sink, expected)?;
    match text.parse::<SocketAddr>() {
        Ok(collector) if collector.port() != 0 && !collector.ip().is_unspecified() => Some(collector),
        _ => {
            // A name would have to be looked up, now and whenever it changes, by a node whose traffic may depend on it.
            sink.bad(item, format!("expected {expected}; names are not looked up"));
            None
        }
    }
}

fn address(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<IpAddr> {
    let expected = "an address, such as \"192.0.2.1\"";
    let text = item.string(sink, expected)?;
    let read = text.parse().ok();
    if read.is_none() {
        sink.bad(item, format!("expected {expected}"));
    }
    read
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::parse;

    fn read(section: &str) -> Result<Option<Sflow>, String> {
        let text = format!("version = 1\n{section}\n");
        let parsed = parse(&text, Path::new("p.toml"));
        parsed
            .map(|parsed| parsed.policy.sflow)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn collectors_are_addresses_with_ports() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("[export]"), Ok(None));
        let four = read("[export.sflow]\ncollector = \"127.0.0.1:6343\"\nagent = \"192.0.2.1\"")
            .unwrap()
            .unwrap();
        assert_eq!(
            (four.collector.port(), four.agent),
            (6343, "192.0.2.1".parse().ok())
        );
        let six = read("[export.sflow]\ncollector = \"[2001:db8::1]:6343\"")
            .unwrap()
            .unwrap();
        assert!(six.collector.is_ipv6() && six.agent.is_none());
        for (section, expected) in [
            (
                "[export.sflow]\ncollector = \"collector.example:6343\"",
                "names are not looked up",
            ),
            (
                "[export.sflow]\ncollector = \"127.0.0.1\"",
                "p.toml:3:13: export.sflow.collector",
            ),
            (
                "[export.sflow]\ncollector = \"127.0.0.1:0\"",
                "an address and a port",
            ),
            ("[export.sflow]", "the key is missing"),
            (
                "[export.sflow]\ncollector = \"127.0.0.1:6343\"\nagent = \"me\"",
                "export.sflow.agent",
            ),
            ("[export.netflow]\nx = 1", "export.netflow"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
    }
}
