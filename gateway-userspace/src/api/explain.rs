//! What the socket answers to `GET /v1/explain`.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    explain::question::Part,
    policy::{model::Mode, places::Place},
};

pub use crate::explain::question::Question as ExplainQuery;

/// `GET /v1/explain`: what would happen to a packet now. Nothing is changed by the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// The moment that it is about.
    pub at: Timestamp,
    /// The packet, with everything that was not said filled in.
    pub packet: ExplainedPacket,
    /// The policy that judges it.
    pub policy: ExplainedBy,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: String,
    /// One of the reasons of SPECIFICATION.md.
    pub reason: String,
    /// The service that counts it; `default` for none.
    pub service: String,
    /// The class that counts it; empty for none.
    pub class: String,
    /// Where the policy says what decided; absent where a default did, or something that is in no policy, such as a ban.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Place>,
    /// What is looked at, in the order of judgement, up to what decides.
    pub steps: Vec<Step>,
    /// What to know about the answer.
    pub remarks: Vec<String>,
}

/// A packet in words.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPacket {
    /// The source address.
    pub src: IpAddr,
    /// The destination address.
    pub dst: IpAddr,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol's number.
    pub proto: String,
    /// The source port of TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// The destination port of TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// TCP flags, apart by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// The ICMP or `ICMPv6` type.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub icmp_type: Option<u8>,
    /// Bytes of the frame from the Ethernet header on.
    pub len: u32,
    /// The outermost VLAN identifier; absent: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Which fragment it is; absent: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment: Option<Part>,
    /// Whether it asks for a new connection.
    pub connection: bool,
}

/// The policy that judges a packet.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ExplainedBy {
    /// Its revision.
    pub revision: u64,
    /// The file that it came from.
    pub path: String,
    /// Its mode.
    pub mode: Mode,
}

/// One step of a judgement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is looked at: `scope`, `service`, `lists`, `class`, `lever`, `protect`, `ban`, `list`, `bypass`, `essential`,
    /// `reply`, `default`, `handshake`, `enforce_share`, `block`, `standing`, `bucket`, `overflow`, `strike` or `mode`.
    pub step: String,
    /// What was found, for people.
    pub what: String,
    /// Where the policy says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Place>,
    /// The bucket's state, for `bucket` and `overflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketStep>,
}

/// A bucket that the packet meets.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BucketStep {
    /// `per_source`, `per_network`, `class_total` or `total`; of an overflow bucket, that of the bucket it stands in for.
    pub tier: String,
    /// `packets`, `bytes` or `connections`.
    pub kind: String,
    /// How much is refilled a second.
    pub rate: u64,
    /// How much a full bucket admits at once.
    pub burst: u64,
    /// How much it would admit at once now, from a source that nothing is reserved against.
    pub left: u64,
    /// How much of that this source may use.
    pub open: u64,
    /// How much the packet asks for.
    pub asked: u64,
    /// Whether it gets it.
    pub admitted: bool,
    /// What would be left after it.
    pub left_after: u64,
    /// Where it refuses, when it would admit the packet if nothing else came, in nanoseconds; absent: never, or it admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enough_after_ns: Option<u64>,
}
