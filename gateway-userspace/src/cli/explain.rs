//! `weir explain`.

use std::{fmt::Write as _, net::IpAddr, process::ExitCode};

use weir::{
    api::explain::{ExplainAnswer, ExplainQuery, ExplainedPacket},
    explain::question::Part,
    policy::{model::Mode, places::Place},
};

use super::{Context, output::Failure, table::grouped};

/// Show what would happen to a packet now, and why
///
/// Step by step, with the state of each bucket that it would meet and the policy line that decides. The kernel's own
/// decision function judges it, on a read of the live maps; nothing is changed, so asking twice gives the same answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir explain --src 192.0.2.7 --dst 203.0.113.10 --dport 443             a first SYN
  weir explain --src 192.0.2.7 --dst 203.0.113.10 --dport 443 --flags ack --len 1500
  weir explain --src 2001:db8::7 --dst 2001:db8:1::10 --proto udp --dport 443 --quic --len 1200
  weir explain --src 192.0.2.7 --dst 203.0.113.10 --proto icmp --type 8

Exits 0 also where the packet would be dropped.")]
pub(crate) struct Args {
    /// Source address
    #[arg(long, value_name = "ADDR")]
    pub(crate) src: IpAddr,
    /// Destination address, of the same family
    #[arg(long, value_name = "ADDR")]
    pub(crate) dst: IpAddr,
    #[arg(
        long,
        value_name = "PROTO",
        help = "tcp, udp, icmp (ICMPv6 in IPv6) or the protocol's number [default: tcp]"
    )]
    pub(crate) proto: Option<String>,
    /// Source port of TCP and UDP [default: 50000]
    #[arg(long, value_name = "PORT")]
    pub(crate) sport: Option<u16>,
    /// Destination port of TCP and UDP [default: 0, which no service names]
    #[arg(long, value_name = "PORT")]
    pub(crate) dport: Option<u16>,
    /// TCP flags, apart by commas: syn, ack, fin, rst, psh, urg, ece, cwr; or none [default: syn]
    #[arg(long, value_name = "FLAGS")]
    pub(crate) flags: Option<String>,
    /// A QUIC Initial, which asks for a connection (UDP)
    #[arg(long)]
    pub(crate) quic: bool,
    /// Bytes of the frame from the Ethernet header on [default: 64, or what the headers need]
    #[arg(long, value_name = "BYTES")]
    pub(crate) len: Option<u32>,
    /// Outermost VLAN identifier, 0 to 4094 [default: untagged]
    #[arg(long, value_name = "ID")]
    pub(crate) vlan: Option<u16>,
    /// Interface that it arrives at; fails where weir is not attached to it
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// A fragment of a datagram: the first, which has the ports, or a later one
    #[arg(long, value_name = "PART", value_parser = part)]
    pub(crate) fragment: Option<Part>,
    #[arg(
        long = "type",
        value_name = "TYPE",
        help = "ICMP or ICMPv6 type [default: echo request]"
    )]
    pub(crate) icmp_type: Option<u8>,
}

fn part(text: &str) -> Result<Part, String> {
    match text {
        "first" => Ok(Part::First),
        "later" => Ok(Part::Later),
        _ => Err("expected first or later".to_owned()),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let query = ExplainQuery {
        src: args.src,
        dst: args.dst,
        proto: args.proto.clone(),
        sport: args.sport,
        dport: args.dport,
        flags: args.flags.clone(),
        quic: args.quic.then_some(true),
        len: args.len,
        vlan: args.vlan,
        interface: args.interface.clone(),
        fragment: args.fragment,
        icmp_type: args.icmp_type,
    };
    // Wrong usage is wrong without a controller too.
    query
        .packet()
        .map_err(|error| Failure::usage(error.to_string()))?;
    let answer: ExplainAnswer = context.client().get(&path(&query))?;
    context.show(&answer, text)?;
    Ok(ExitCode::SUCCESS)
}

/// The request's path.
fn path(query: &ExplainQuery) -> String {
    let mut path = format!("/v1/explain?src={}&dst={}", query.src, query.dst);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(path, "&{key}={}", encoded(&value));
        }
    };
    add("proto", query.proto.clone());
    add("sport", query.sport.map(|port| port.to_string()));
    add("dport", query.dport.map(|port| port.to_string()));
    add("flags", query.flags.clone());
    add("quic", query.quic.map(|quic| quic.to_string()));
    add("len", query.len.map(|len| len.to_string()));
    add("vlan", query.vlan.map(|vlan| vlan.to_string()));
    add("interface", query.interface.clone());
    let fragment = query.fragment.map(|part| match part {
        Part::First => "first".to_owned(),
        Part::Later => "later".to_owned(),
    });
    add("fragment", fragment);
    add("type", query.icmp_type.map(|number| number.to_string()));
    path
}

/// A value as a query has it (RFC 3986, 2.1).
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn text(answer: &ExplainAnswer) -> String {
    let mode = match answer.policy.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    };
    let mut text = format!(
        "{}\npolicy revision {} ({mode}) of {}, at {:.3}\n\n",
        packet(&answer.packet),
        answer.policy.revision,
        answer.policy.path,
        answer.at
    );
    let width = answer.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
    for step in &answer.steps {
        let _ = writeln!(text, "{:<width$}  {}", step.step, step.what);
        if let Some(place) = &step.policy {
            let _ = writeln!(text, "{:<width$}    {}", "", at(place));
        }
    }
    let of = match (answer.service.as_str(), answer.class.as_str()) {
        ("default", _) => String::new(),
        (service, "") => format!(" at {service}"),
        (service, class) => format!(" at {service}, class {class}"),
    };
    let verdict = match answer.verdict.as_str() {
        "drop" => "it is dropped",
        "would_drop" => "it passes, and is counted as one that would be dropped",
        _ => "it passes",
    };
    let _ = writeln!(
        text,
        "\n{}{of}: {verdict} (reason {})",
        answer.verdict, answer.reason
    );
    if let Some(place) = &answer.decided_by {
        let _ = writeln!(text, "decided by {}", at(place));
    }
    for remark in &answer.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    text
}

fn at(place: &Place) -> String {
    format!("{}:{}:{} {}", place.path, place.line, place.column, place.text)
}

/// The packet in one line.
fn packet(packet: &ExplainedPacket) -> String {
    let end = |address: IpAddr, port: Option<u16>| match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(v4), Some(port)) => format!("{v4}:{port}"),
        (IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
    };
    let mut text = format!(
        "{} {} -> {}",
        packet.proto,
        end(packet.src, packet.sport),
        end(packet.dst, packet.dport)
    );
    if let Some(flags) = &packet.flags {
        let _ = write!(text, ", flags {flags}");
    }
    if let Some(number) = packet.icmp_type {
        let _ = write!(text, ", type {number}");
    }
    let _ = write!(text, ", {} bytes", grouped(packet.len.into()));
    match packet.vlan {
        Some(vlan) => {
            let _ = write!(text, ", VLAN {vlan}");
        }
        None => text.push_str(", untagged"),
    }
    match packet.fragment {
        Some(Part::First) => text.push_str(", first fragment"),
        Some(Part::Later) => text.push_str(", later fragment"),
        None => {}
    }
    if packet.connection {
        text.push_str("; a new connection");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_for_a_query() {
        assert_eq!(encoded("syn,ack"), "syn,ack");
        assert_eq!(encoded("a b&c=d"), "a%20b%26c%3Dd");
    }

    #[test]
    fn a_path_has_what_was_said_and_nothing_else() {
        let query = ExplainQuery {
            src: "2001:db8::7".parse().unwrap(),
            dst: "2001:db8::1".parse().unwrap(),
            proto: Some("udp".into()),
            sport: None,
            dport: Some(443),
            flags: None,
            quic: Some(true),
            len: None,
            vlan: Some(7),
            interface: Some("eth0".into()),
            fragment: Some(Part::First),
            icmp_type: None,
        };
        assert_eq!(
            path(&query),
            "/v1/explain?src=2001:db8::7&dst=2001:db8::1&proto=udp&dport=443&quic=true&vlan=7&interface=eth0&fragment=first"
        );
    }

    #[test]
    fn a_packet_is_one_line() {
        let shown = packet(&ExplainedPacket {
            src: "2001:db8::7".parse().unwrap(),
            dst: "2001:db8::1".parse().unwrap(),
            proto: "tcp".into(),
            sport: Some(50_000),
            dport: Some(443),
            flags: Some("syn".into()),
            icmp_type: None,
            len: 1500,
            vlan: Some(7),
            fragment: Some(Part::First),
            connection: true,
        });
        assert_eq!(
            shown,
            "tcp [2001:db8::7]:50000 -> [2001:db8::1]:443, flags syn, 1,500 bytes, VLAN 7, first fragment; a new connection"
        );
    }
}
