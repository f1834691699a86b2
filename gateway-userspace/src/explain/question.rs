//! The packet that is asked about.

use std::net::IpAddr;

use gateway_core::{
    packet::{Fragment, Network, Packet, UNTAGGED},
    wire::{ethernet, icmp, ipv4, ipv6, tcp, udp},
};
use serde::{Deserialize, Serialize};

use super::blank;
use crate::compile::prefix;

/// The longest frame: an IPv4 datagram behind an Ethernet header and a VLAN tag.
const LONGEST: u32 = 65_535 + 18;
/// The shortest frame on a wire, without its checksum.
const SHORTEST: u32 = 60;
/// The port that a packet comes from unless it is said otherwise: one that clients use.
const CLIENT_PORT: u16 = 50_000;
/// An echo request.
const ECHO: (u8, u8) = (8, 128);
/// The TCP flags by name, in the order of their bits.
const FLAGS: [(&str, u8); 8] = [
    ("fin", 0x01),
    ("syn", tcp::SYN),
    ("rst", tcp::RST),
    ("psh", 0x08),
    ("ack", tcp::ACK),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

/// `GET /v1/explain`: a packet by its properties. What is left out has a value that is common.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The source address.
    pub src: IpAddr,
    /// The destination address, of the same family.
    pub dst: IpAddr,
    /// `tcp`, `udp`, `icmp` (`ICMPv6` in IPv6), or the protocol's number, 0 to 255; absent: TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// The source port of TCP and UDP; absent: 50000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// The destination port of TCP and UDP; absent: 0, a port that no service names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// TCP flags, apart by commas (`syn`, `syn,ack`), or `none`; absent: `syn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Whether a UDP packet is a QUIC Initial, which asks for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<bool>,
    /// The frame's length from the Ethernet header on; absent: 64, or the least that the headers need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u32>,
    /// The outermost VLAN identifier, 0 to 4094; absent: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The interface that it arrives at, which must be under enforcement; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Which fragment of a datagram it is; absent: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<Part>,
    /// The ICMP or `ICMPv6` type; absent: an echo request.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub icmp_type: Option<u8>,
}

/// A fragment of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The first, which has the ports.
    First,
    /// A later one, which has none.
    Later,
}

/// Why there is no such packet. Every text says what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum NoPacket {
    #[error("src {src} and dst {dst} are of different families; give two IPv4 or two IPv6 addresses")]
    Families { src: IpAddr, dst: IpAddr },
    #[error("proto {0:?} is unknown; give tcp, udp, icmp or a number from 0 to 255")]
    Protocol(String),
    #[error("proto {0} is an IPv6 extension header; give the protocol that follows it")]
    Extension(u8),
    #[error("{key} is for {of} only, and this packet is {is}; leave it out, or give another proto")]
    Foreign {
        key: &'static str,
        of: &'static str,
        is: String,
    },
    #[error("a later fragment has no {0}; leave it out, or give fragment first")]
    Later(&'static str),
    #[error(
        "flags {0:?} has an unknown flag; give some of fin, syn, rst, psh, ack, urg, ece and cwr, apart by commas, or none"
    )]
    Flags(String),
    #[error(
        "len must be {least} to {most}: the frame from its Ethernet header on, which has {least} bytes of headers"
    )]
    Length { least: u32, most: u32 },
    #[error("vlan must be 0 to 4094")]
    Vlan,
}

/// A protocol as people call it: by number, in IPv6 or not.
pub fn protocol_name(protocol: u8, v6: bool) -> String {
    match (protocol, v6) {
        (ipv4::TCP, _) => "tcp".to_owned(),
        (ipv4::UDP, _) => "udp".to_owned(),
        (ipv4::ICMP, false) => "icmp".to_owned(),
        (ipv6::ICMPV6, true) => "icmpv6".to_owned(),
        (other, _) => other.to_string(),
    }
}

/// TCP flags by name, apart by commas; `none` for none.
pub fn flag_names(flags: u8) -> String {
    let names: Vec<&str> = FLAGS
        .iter()
        .filter(|(_, bit)| flags & bit != 0)
        .map(|(name, _)| *name)
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    }
}

impl Question {
    /// The packet.
    ///
    /// # Errors
    /// Where no packet can be so.
    pub fn packet(&self) -> Result<Packet, NoPacket> {
        let v6 = self.src.is_ipv6();
        if v6 != self.dst.is_ipv6() {
            let (src, dst) = (self.src, self.dst);
            return Err(NoPacket::Families { src, dst });
        }
        let protocol = self.protocol(v6)?;
        let mut packet = blank();
        packet.network = if v6 { Network::V6 } else { Network::V4 };
        packet.source = prefix::words(self.src);
        packet.destination = prefix::words(self.dst);
        packet.protocol = protocol;
        packet.fragment = match self.fragment {
            None => Fragment::Whole,
            Some(Part::First) => Fragment::First,
            Some(Part::Later) => Fragment::Later,
        };
        self.check_keys(protocol, v6)?;
        let mut headers = ethernet::HEADER + if v6 { ipv6::HEADER } else { ipv4::HEADER };
        if v6 && self.fragment.is_some() {
            headers += ipv6::FRAGMENT_HEADER;
        }
        if self.fragment != Some(Part::Later) {
            headers += match protocol {
                ipv4::TCP => tcp::HEADER,
                ipv4::UDP if self.quic == Some(true) => udp::HEADER + udp::QUIC_LONG,
                ipv4::UDP => udp::HEADER,
                ipv4::ICMP | ipv6::ICMPV6 => icmp::HEADER,
                _ => 0,
            };
            self.transport(&mut packet, v6)?;
        }
        if let Some(vlan) = self.vlan {
            if vlan > 4094 {
                return Err(NoPacket::Vlan);
            }
            packet.vlan = vlan;
            headers += ethernet::TAG;
        } else {
            packet.vlan = UNTAGGED;
        }
        let (least, most) = (headers as u32, LONGEST);
        packet.length = self.len.unwrap_or_else(|| least.max(SHORTEST + 4));
        if !(least..=most).contains(&packet.length) {
            return Err(NoPacket::Length { least, most });
        }
        if packet.protocol == ipv4::TCP && packet.fragment != Fragment::Later {
            packet.payload = u16::try_from(packet.length - least).unwrap_or(u16::MAX);
        }
        Ok(packet)
    }

    fn protocol(&self, v6: bool) -> Result<u8, NoPacket> {
        let Some(text) = &self.proto else {
            return Ok(ipv4::TCP);
        };
        let number = match text.as_str() {
            "tcp" => ipv4::TCP,
            "udp" => ipv4::UDP,
            "icmp" | "icmpv6" if v6 => ipv6::ICMPV6,
            "icmp" => ipv4::ICMP,
            text if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| NoPacket::Protocol(text.to_owned()))?
            }
            text => return Err(NoPacket::Protocol(text.to_owned())),
        };
        let extension = ipv6::is_extension(number) || matches!(number, ipv6::FRAGMENT | ipv6::AUTHENTICATION);
        if v6 && extension {
            return Err(NoPacket::Extension(number));
        }
        Ok(number)
    }

    /// Whether it says only what a packet of its protocol can have.
    fn check_keys(&self, protocol: u8, v6: bool) -> Result<(), NoPacket> {
        let (is_tcp, is_udp) = (protocol == ipv4::TCP, protocol == ipv4::UDP);
        let is_icmp = matches!(protocol, ipv4::ICMP | ipv6::ICMPV6);
        let later = self.fragment == Some(Part::Later);
        let keys = [
            ("sport", self.sport.is_some(), is_tcp || is_udp, "TCP and UDP"),
            ("dport", self.dport.is_some(), is_tcp || is_udp, "TCP and UDP"),
            ("flags", self.flags.is_some(), is_tcp, "TCP"),
            ("quic", self.quic.is_some(), is_udp, "UDP"),
            ("type", self.icmp_type.is_some(), is_icmp, "ICMP"),
        ];
        for (key, given, fits, of) in keys {
            if given && !fits {
                let is = match protocol_name(protocol, v6) {
                    number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                        format!("of protocol {number}")
                    }
                    name => name.to_uppercase().replace("ICMPV6", "ICMPv6"),
                };
                return Err(NoPacket::Foreign { key, of, is });
            }
            if given && later {
                return Err(NoPacket::Later(key));
            }
        }
        Ok(())
    }

    /// Fills in what the transport header says.
    fn transport(&self, packet: &mut Packet, v6: bool) -> Result<(), NoPacket> {
        match packet.protocol {
            ipv4::TCP => {
                packet.tcp_flags = match &self.flags {
                    None => tcp::SYN,
                    Some(text) => flags(text)?,
                };
                packet.connection = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
            }
            ipv4::UDP => packet.connection = self.quic == Some(true),
            ipv4::ICMP | ipv6::ICMPV6 => {
                let echo = if v6 { ECHO.1 } else { ECHO.0 };
                packet.icmp_type = self.icmp_type.unwrap_or(echo);
                return Ok(());
            }
            _ => return Ok(()),
        }
        packet.source_port = self.sport.unwrap_or(CLIENT_PORT);
        packet.destination_port = self.dport.unwrap_or(0);
        Ok(())
    }
}

fn flags(text: &str) -> Result<u8, NoPacket> {
    if text == "none" {
        return Ok(0);
    }
    text.split(',').try_fold(0, |all, name| {
        let found = FLAGS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
        found
            .map(|(_, bit)| all | bit)
            .ok_or_else(|| NoPacket::Flags(text.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str) -> Result<Packet, String> {
        let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
        let axum::extract::Query(question) =
            axum::extract::Query::<Question>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        question.packet().map_err(|error| error.to_string())
    }

    #[test]
    fn a_packet_has_what_is_said_and_what_is_common() {
        let packet = ask("src=192.0.2.7&dst=203.0.113.10&dport=443").unwrap();
        assert_eq!(
            (packet.protocol, packet.tcp_flags, packet.connection),
            (6, tcp::SYN, true)
        );
        assert_eq!(
            (packet.source_port, packet.destination_port, packet.length),
            (CLIENT_PORT, 443, 64)
        );
        assert_eq!(packet.vlan, UNTAGGED);
        let packet = ask("src=192.0.2.7&dst=203.0.113.10&flags=SYN,ack&len=1500&vlan=100").unwrap();
        assert_eq!(
            (packet.tcp_flags, packet.connection),
            (tcp::SYN | tcp::ACK, false)
        );
        assert_eq!(
            (packet.length, packet.vlan, packet.destination_port),
            (1500, 100, 0)
        );
        let packet = ask("src=2001:db8::1&dst=2001:db8::2&proto=icmp").unwrap();
        assert_eq!((packet.protocol, packet.icmp_type, packet.length), (58, 128, 64));
        let packet = ask("src=2001:db8::1&dst=2001:db8::2&proto=tcp&fragment=later").unwrap();
        assert_eq!(
            (packet.fragment, packet.tcp_flags, packet.connection),
            (Fragment::Later, 0, false)
        );
        let packet = ask("src=192.0.2.7&dst=203.0.113.10&proto=udp&quic=true&dport=443&len=1200").unwrap();
        assert!(packet.connection);
        assert_eq!(
            ask("src=192.0.2.7&dst=203.0.113.10&proto=47").unwrap().protocol,
            47
        );
        assert_eq!(
            ask("src=192.0.2.7&dst=203.0.113.10&flags=none")
                .unwrap()
                .tcp_flags,
            0
        );
    }

    #[test]
    fn what_no_packet_can_be_is_said() {
        let rows = [
            ("src=192.0.2.7&dst=::1", "different families"),
            (
                "src=192.0.2.7&dst=192.0.2.8&proto=sctp",
                "proto \"sctp\" is unknown",
            ),
            (
                "src=192.0.2.7&dst=192.0.2.8&proto=256",
                "proto \"256\" is unknown",
            ),
            ("src=::1&dst=::2&proto=44", "extension header"),
            (
                "src=192.0.2.7&dst=192.0.2.8&proto=udp&flags=syn",
                "flags is for TCP only",
            ),
            (
                "src=192.0.2.7&dst=192.0.2.8&proto=icmp&dport=7",
                "dport is for TCP and UDP only, and this packet is ICMP",
            ),
            (
                "src=192.0.2.7&dst=192.0.2.8&proto=47&sport=7",
                "this packet is of protocol 47",
            ),
            (
                "src=192.0.2.7&dst=192.0.2.8&type=8",
                "type is for ICMP only, and this packet is TCP",
            ),
            ("src=192.0.2.7&dst=192.0.2.8&flags=syn,fun", "unknown flag"),
            ("src=192.0.2.7&dst=192.0.2.8&flags=", "unknown flag"),
            ("src=192.0.2.7&dst=192.0.2.8&len=40", "len must be 54 to"),
            ("src=192.0.2.7&dst=192.0.2.8&len=99999", "len must be"),
            ("src=192.0.2.7&dst=192.0.2.8&vlan=4095", "vlan must be"),
            (
                "src=192.0.2.7&dst=192.0.2.8&fragment=later&dport=80",
                "a later fragment has no dport",
            ),
            ("src=192.0.2.7&dst=192.0.2.8&color=red", "unknown field"),
            ("src=192.0.2.7&dst=192.0.2.8&fragment=middle", "unknown variant"),
            ("src=192.0.2.7", "missing field"),
        ];
        for (query, expected) in rows {
            let error = ask(query).unwrap_err();
            assert!(error.contains(expected), "{query}: {error}");
        }
    }

    #[test]
    fn flags_are_named_in_the_order_of_their_bits() {
        assert_eq!(flag_names(tcp::SYN | tcp::ACK), "syn,ack");
        assert_eq!(flag_names(0), "none");
        assert_eq!(flags(&flag_names(0xff)), Ok(0xff));
    }
}
