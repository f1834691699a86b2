//! What the controller says of the traffic: sources, flows and services.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{kernel::BucketLeft, traffic::By};

/// What is estimated from samples, over [`SourcesAnswer::span_seconds`]. A rate's standard error is its value times `error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Packets a second.
    pub packets_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Packets a second that were dropped, or would have been under `monitor`.
    pub dropped_per_second: f64,
    /// New connections a second.
    pub connections_per_second: f64,
    /// The relative standard error of the packets, from 0; 1 is a hundred per cent. The bytes' is larger where frames differ.
    pub error: f64,
}

/// The query of `GET /v1/sources` and `GET /v1/flows`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficQuery {
    /// Only of this service (`default` for none).
    pub service: Option<String>,
    /// Only from within this prefix.
    pub source: Option<String>,
    /// What is heavy; absent: packets.
    pub by: Option<By>,
    /// At most so many, 1 to 1000; absent: 20.
    pub limit: Option<usize>,
    /// Networks in place of sources.
    pub networks: Option<bool>,
}

/// `GET /v1/sources`: the heaviest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourcesAnswer {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// The span that was looked at, in seconds.
    pub span_seconds: f64,
    /// One packet in so many is sampled at present; 0: sampling is off, and there is nothing to show.
    pub one_in: u32,
    /// All sources together.
    pub all: Estimate,
    /// The sources, or with `networks=true` their networks.
    pub sources: Vec<SourceUse>,
}

/// A source, or a network of sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceUse {
    /// The source as the policy cuts it (`[source] ipv4_prefix`, `ipv6_prefix`), or its network.
    pub source: IpNet,
    /// How much it sends.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Packets a second by service.
    pub services: BTreeMap<String, f64>,
    /// Packets a second by the reason of their drop.
    pub reasons: BTreeMap<String, f64>,
    /// When it was first seen, as far back as the table goes.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// Whether a ban covers it.
    pub banned: bool,
    /// What is left in its buckets at the service it sends most to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<BucketLeft>,
}

/// `GET /v1/flows`: the heaviest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowsAnswer {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// The span that was looked at, in seconds.
    pub span_seconds: f64,
    /// One packet in so many is sampled at present; 0: sampling is off.
    pub one_in: u32,
    /// The flows.
    pub flows: Vec<Flow>,
}

/// A flow: what has the same protocol, addresses and ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol's number.
    pub protocol: String,
    /// The source address.
    pub source: std::net::IpAddr,
    /// The source port; 0 where there is none.
    pub source_port: u16,
    /// The destination address.
    pub destination: std::net::IpAddr,
    /// The destination port; 0 where there is none.
    pub destination_port: u16,
    /// The service; `default` for none.
    pub service: String,
    /// How much of it there is.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Packets since it was first seen, estimated.
    pub packets: u64,
    /// Bytes since it was first seen, estimated.
    pub bytes: u64,
    /// How many samples that is from.
    pub samples: u64,
    /// TCP flags of all its samples, as in `SYN ACK`; empty for other protocols.
    pub tcp_flags: String,
    /// The last verdict.
    pub verdict: String,
    /// The last reason.
    pub reason: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

/// `GET /v1/services`: what this host serves and is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServicesAnswer {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// The span that rates were measured over, in seconds.
    pub span_seconds: f64,
    /// The ports, those that listen or are asked for.
    pub ports: Vec<PortUse>,
    /// The services of the policy.
    pub services: Vec<ServiceUse>,
}

/// A port of this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortUse {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port.
    pub port: u16,
    /// The service of the policy that names it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The addresses that a socket listens on; empty: none does.
    pub listening: Vec<std::net::IpAddr>,
    /// The program that listens, where that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// How much it is asked for, estimated from samples.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// The source that sends it most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_source: Option<IpNet>,
}

/// A service of the policy, counted packet by packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceUse {
    /// Its name.
    pub service: String,
    /// Packets a second.
    pub packets_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// New connections (SYNs) a second.
    pub syn_per_second: f64,
    /// Handshakes completed a second.
    pub first_ack_per_second: f64,
    /// Different sources in the last whole minute, within 5 %.
    pub distinct_sources: u64,
    /// The middle of the handshakes' round trips, in seconds, where the service measures time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_seconds_p50: Option<f64>,
    /// What 99 in 100 handshakes stay below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_seconds_p99: Option<f64>,
    /// The middle of the times to the first byte of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_seconds_p50: Option<f64>,
    /// What 99 in 100 of them stay below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_seconds_p99: Option<f64>,
}
