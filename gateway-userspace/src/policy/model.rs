//! The live policy: what a valid policy file means, with every default filled in and every unit converted.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::webhook::Url;

/// Whether verdicts are carried out or only counted. Of two modes that apply, the safer ([`Mode::Monitor`]) wins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Drop what the policy says is to be dropped.
    #[default]
    Enforce,
    /// Count what would be dropped, drop nothing.
    Monitor,
}

/// A whole policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Policy {
    /// Interfaces to attach to; the command line overrides them.
    pub interfaces: Vec<String>,
    /// The mode of the whole node.
    pub mode: Mode,
    /// What Weir looks at.
    pub scope: Scope,
    /// What one source is.
    pub source: Source,
    /// Management traffic that passes before everything.
    pub protect: Vec<Protect>,
    /// Named sets of source prefixes, in the order of the file.
    pub lists: Vec<List>,
    /// Traffic to no service.
    pub default: DefaultRule,
    /// What happens without a controller, and who may talk to it.
    pub controller: Controller,
    /// Samples of the traffic.
    pub sampling: Sampling,
    /// Where samples are exported to.
    pub sflow: Option<Sflow>,
    /// What is looked for in the services' traffic.
    pub anomaly: Anomaly,
    /// Who is told of anomalies.
    pub webhook: Option<Webhook>,
    /// Where countries are looked up.
    pub geo: Option<Geo>,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
}

/// What Weir looks at; the rest passes as `out_of_scope`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Scope {
    /// Outermost VLAN identifiers (1 to 4094); empty: all, and untagged.
    pub vlans: Vec<u16>,
    /// Destination prefixes; empty: all.
    pub addresses: Vec<IpNet>,
}

/// What one source is, and how many are tracked.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Source {
    /// Bits of an IPv4 source that tell two sources apart, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 source that tell two sources apart, 16 to 128.
    pub ipv6_prefix: u8,
    /// Slots of the source table, allocated once.
    pub max_tracked: u32,
}

/// A protocol that a service or a protect rule names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and `ICMPv6`.
    Icmp,
    /// Every protocol.
    Any,
}

/// An inclusive range of ports; a single port is a range of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize)]
pub struct PortRange {
    /// First port of the range, 1 to 65535 (0 is allowed by the kernel and by captures, not by policies).
    pub first: u16,
    /// Last port of the range, not below `first`.
    pub last: u16,
}

/// Management traffic.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Protect {
    /// Source prefixes.
    pub sources: Vec<IpNet>,
    /// The protocol, or every one.
    pub protocol: Protocol,
    /// Destination ports; empty: all.
    pub ports: Vec<PortRange>,
}

/// What a list does with its members on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListAction {
    /// Members are dropped.
    Drop,
    /// Members skip per-source, per-network and block, never bans nor totals.
    Trust,
}

/// A named set of source prefixes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct List {
    /// Its name.
    pub name: String,
    /// What it does by itself; `None`: only classes and `only` use it.
    pub action: Option<ListAction>,
    /// Prefixes written in the policy.
    pub prefixes: Vec<IpNet>,
    /// Files with one prefix a line.
    pub files: Vec<PathBuf>,
    /// The most prefixes it may hold.
    pub max_prefixes: u32,
    /// Many clients behind each address: per-source limits, blocks and automatic bans skip it.
    pub proxy: bool,
}

/// `[controller]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Controller {
    /// What the kernel does when no controller has reported for a while.
    pub on_loss: OnLoss,
    /// After how many seconds of silence, 10 to 86,400.
    pub after_seconds: u64,
    /// The group whose members may connect to the control socket; none: the controller's own group.
    pub socket_group: Option<String>,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            on_loss: OnLoss::default(),
            after_seconds: super::bounds::DEFAULT_CONTROLLER_AFTER,
            socket_group: None,
        }
    }
}

/// `[sampling]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Sampling {
    /// One packet in so many is taken, or fewer where the cap asks for it; 0: none is.
    pub one_in: u32,
    /// The most samples a second of the whole node, 1 to 100,000.
    pub max_per_second: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            one_in: super::bounds::DEFAULT_ONE_IN,
            max_per_second: super::bounds::DEFAULT_MAX_PER_SECOND,
        }
    }
}

/// `[anomaly]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Anomaly {
    /// Whether departures from the usual are looked for.
    pub enabled: bool,
    /// How many false alarms are put up with.
    pub sensitivity: Sensitivity,
}

impl Default for Anomaly {
    fn default() -> Self {
        Self {
            enabled: true,
            sensitivity: Sensitivity {
                count: 1,
                period: Period::Week,
            },
        }
    }
}

/// `[anomaly] sensitivity`: how many false alarms a service may give in a period.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Sensitivity {
    /// So many, 1 to 1,000.
    pub count: u32,
    /// In that time.
    pub period: Period,
}

impl Sensitivity {
    /// False alarms a second.
    pub fn per_second(self) -> f64 {
        f64::from(self.count) / self.period.seconds()
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period.name())
    }
}

/// A period that false alarms are counted in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// Thirty days.
    Month,
}

impl Period {
    /// Its name in the policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    const fn seconds(self) -> f64 {
        let hours: f64 = match self {
            Self::Hour => 1.0,
            Self::Day => 24.0,
            Self::Week => 7.0 * 24.0,
            Self::Month => 30.0 * 24.0,
        };
        hours * 3_600.0
    }
}

/// `[anomaly.webhook]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Webhook {
    /// Where messages go.
    pub url: Url,
    /// A file with the secret that signs them; a relative path is relative to the policy's folder.
    pub secret_file: Option<PathBuf>,
    /// Of what is told, sorted, without repetition.
    pub verdicts: Vec<Told>,
}

/// A verdict that can be told of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Unusual in kind, and much of it.
    Attack,
    /// Unusual in kind, and little of it.
    Stealth,
    /// Much, of the usual kind.
    Crowd,
}

impl Told {
    /// Its name, as in the policy and as the verdict's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attack => "attack",
            Self::Stealth => "stealth",
            Self::Crowd => "crowd",
        }
    }
}

/// `[geo]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Geo {
    /// A MaxMind database with countries; a relative path is relative to the policy's folder.
    pub database: PathBuf,
}

/// `[export.sflow]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Sflow {
    /// Who collects the datagrams.
    pub collector: SocketAddr,
    /// The address that names this node; none: the one that the collector sees.
    pub agent: Option<IpAddr>,
}

/// `[controller] on_loss`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Enforcement goes on.
    #[default]
    Hold,
    /// The node is judged as under `mode = "monitor"`: counted, not dropped.
    Open,
}

/// What happens to traffic that no service matches.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DefaultRule {
    /// Pass it, or drop it (zero trust).
    pub action: DefaultAction,
    /// With `drop`: whether packets that answer a socket of this host pass.
    pub replies: Replies,
    /// With `drop`: whether what a network needs to work passes.
    pub essential: Essential,
    /// Whether its traffic has a profile.
    pub profile: bool,
}

/// `[default] action`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    /// Traffic to no service passes.
    #[default]
    Pass,
    /// Traffic to no service is dropped.
    Drop,
}

/// `[default] replies`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Replies {
    /// Packets that answer a socket of this host pass.
    #[default]
    Socket,
    /// They do not.
    None,
}

/// `[default] essential`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Essential {
    /// ARP, LACP, LLDP, neighbour discovery, router advertisements, DHCP and ICMP errors pass.
    #[default]
    Pass,
    /// They are judged like everything else.
    None,
}

/// A rate and a depth.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Limit {
    /// Packets, bytes or connections a second.
    pub rate: u64,
    /// The bucket's depth: a full bucket admits exactly this much back to back.
    pub burst: u64,
}

/// The three kinds of bucket of a tier.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Packets a second.
    pub packets: Option<Limit>,
    /// Bytes a second, counted from the Ethernet header on.
    pub bytes: Option<Limit>,
    /// TCP SYNs without ACK and QUIC Initials a second.
    pub connections: Option<Limit>,
}

/// A source with that many drops within that time is dropped whole, for so long.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Block {
    /// How long the block lasts, in seconds, 1 to 86,400.
    pub for_seconds: u64,
    /// How many drops start it, 1 to 250,000.
    pub drops: u32,
    /// Within which time they must fall, in seconds, 1 to 3,600.
    pub within_seconds: u64,
}

/// Each source's own buckets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PerSource {
    /// The buckets.
    pub limits: Limits,
    /// The block, if any.
    pub block: Option<Block>,
}

/// The buckets of a whole network of sources.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct PerNetwork {
    /// Bits of an IPv4 source that name its network, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 source that name its network, 16 to 128.
    pub ipv6_prefix: u8,
    /// The buckets.
    pub limits: Limits,
}

/// The buckets that everything to a service shares.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Total {
    /// The buckets.
    pub limits: Limits,
    /// Share of each burst that is kept for proven sources, in millionths, 0 to 900,000.
    pub reserve_ppm: Option<u32>,
}

/// What Weir does by itself about an attack on a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttackAction {
    /// It tells of it.
    #[default]
    Alert,
    /// It scales the service's limits down.
    Tighten,
    /// It bans who carries it.
    Ban,
}

/// `[service.on_attack]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct OnAttack {
    /// What is done.
    pub action: AttackAction,
    /// The share of normal sources that a step may hit, in millionths, 1 to 1,000,000.
    pub max_impact_ppm: u32,
    /// The most bans at a time.
    pub max_bans: u32,
    /// How long a step lasts before it steps back by itself, in seconds.
    pub for_seconds: u64,
    /// The lowest scale of the limits, in per cent, 1 to 99.
    pub least_percent: u32,
}

impl Default for OnAttack {
    fn default() -> Self {
        Self {
            action: AttackAction::default(),
            max_impact_ppm: super::bounds::DEFAULT_MAX_IMPACT_PPM,
            max_bans: super::bounds::DEFAULT_MAX_BANS,
            for_seconds: super::bounds::DEFAULT_ATTACK_FOR,
            least_percent: super::bounds::DEFAULT_LEAST_PERCENT,
        }
    }
}

/// Sources in certain lists, with limits of their own.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Class {
    /// Its name, unique in the service.
    pub name: String,
    /// The lists; a source in any of them belongs to the class.
    pub lists: Vec<String>,
    /// Its mode.
    pub mode: Mode,
    /// Each source's own buckets, instead of the service's.
    pub per_source: Option<PerSource>,
    /// Each network's buckets, instead of the service's.
    pub per_network: Option<PerNetwork>,
    /// Shared by the class, before the service's total.
    pub total: Option<Limits>,
}

/// A service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Service {
    /// Its name, unique; `default` is reserved.
    pub name: String,
    /// Its protocols, sorted, without repetition; `[Any]` alone means every one.
    pub protocols: Vec<Protocol>,
    /// Destination ports, sorted and merged; empty: all.
    pub ports: Vec<PortRange>,
    /// Source ports, sorted and merged; empty: all.
    pub source_ports: Vec<PortRange>,
    /// Destination prefixes; empty: any.
    pub addresses: Vec<IpNet>,
    /// Lists; sources in none of them are dropped. Empty: nobody is.
    pub only: Vec<String>,
    /// Its mode.
    pub mode: Mode,
    /// The share of sources that is enforced, in millionths (1,000,000 is all).
    pub enforce_share_ppm: u32,
    /// Whether its traffic is counted by frame length, TTL, TCP flags and different sources.
    pub profile: bool,
    /// Whether handshakes and first answers are timed.
    pub time: bool,
    /// Whether departures from its usual traffic are looked for; they are found in the profile, so not without one.
    pub anomaly: bool,
    /// What is done about an attack.
    pub on_attack: OnAttack,
    /// Each source's own buckets.
    pub per_source: Option<PerSource>,
    /// Each network's buckets.
    pub per_network: Option<PerNetwork>,
    /// What everything to this service shares.
    pub total: Option<Total>,
    /// The classes, in the order of the file; the first that matches decides.
    pub classes: Vec<Class>,
}
