//! What the rest of the controller says to and hears from the kernel module.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which XDP mode to attach in (`--xdp-mode`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpModeChoice {
    /// Native, and generic with a warning where the driver cannot.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic (the kernel's fallback for every driver).
    Generic,
}

/// The XDP mode that an interface is attached in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, before the kernel allocates anything.
    Native,
    /// After the kernel built its packet; sees super-frames.
    Generic,
}

/// One interface under enforcement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Its index; 0 when the interface has vanished.
    pub ifindex: u32,
    /// The mode it is attached in.
    pub xdp_mode: XdpMode,
    /// Why native mode was not possible, when `auto` fell back.
    pub fallback: Option<String>,
    /// True when an existing pinned link was taken over rather than a new one made.
    pub reused: bool,
    /// What the interface is called now, when it was renamed since it was attached to.
    #[serde(default)]
    pub renamed: Option<String>,
}

/// What [`super::Dataplane::open`] found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opened {
    /// Nothing was pinned; everything is new.
    Fresh,
    /// The pinned maps fit and were taken over: buckets, bans and counters go on.
    Reused,
    /// Pinned maps did not fit and were replaced; the text says what is lost by it.
    Replaced(String),
}

/// What [`super::Dataplane::keep_pinned`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pinned {
    /// All is where it belongs.
    InPlace,
    /// The bpf file system is unmounted. Packets are judged for as long as this process runs.
    Unmounted,
    /// A bpf file system is mounted again, and everything is pinned in it.
    Restored,
    /// The folder was removed with all in it: nothing is attached any more.
    Removed,
}

/// A lever: an emergency measure with an expiry that the kernel honours by itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "lever", rename_all = "lowercase")]
pub enum Lever {
    /// Pass everything (`bypass`).
    Bypass {
        /// Only this service; `None`: the whole node.
        service: Option<String>,
        /// Also pass what bans and drop lists name.
        all: bool,
        /// When it ends, in nanoseconds of the kernel's monotonic clock.
        until_ns: u64,
    },
    /// Multiply every rate and burst of a service by `percent` / 100.
    Scale {
        /// The service.
        service: String,
        /// 1 to 10,000.
        percent: u32,
        /// When it ends, in nanoseconds of the kernel's monotonic clock.
        until_ns: u64,
    },
}

/// One series of the packet counters, summed over the CPUs. Series that never counted are left out.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Counter {
    /// The interface.
    pub interface: String,
    /// The service; `default` for none.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// One of the reasons of SPECIFICATION.md.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// Events that the kernel could only count, since the maps were created.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Packets judged by a shared overflow bucket.
    pub overflow: u64,
    /// Packets refused because a compare-and-swap lost every one of its tries.
    pub lost_race: u64,
    /// Packets that could not be counted under their series (an internal fault; must be 0).
    pub uncounted: u64,
    /// Notices of blocks that did not fit the ring.
    #[serde(default)]
    pub notice: u64,
    /// Samples that went into the ring; no loss, but counted beside them.
    #[serde(skip)]
    pub sampled: u64,
    /// Samples that did not fit the ring.
    #[serde(default)]
    pub sample: u64,
    /// Samples over the cap of `[sampling] max_per_second`, which were not taken.
    #[serde(default)]
    pub sample_suppressed: u64,
}

/// A sampled packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sample {
    /// Everything but the bytes.
    pub head: gateway_core::sample::Sample,
    /// The first bytes of the frame, at most [`gateway_core::sample::SNAP`].
    pub bytes: Vec<u8>,
}

/// What is left in one bucket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BucketLeft {
    /// `per_source`, `per_network`, `class_total` or `total`.
    pub tier: String,
    /// `packets`, `bytes` or `connections`.
    pub kind: String,
    /// How much it would admit at once now.
    pub left: u64,
    /// How much it admits when it is full.
    pub burst: u64,
}

/// What a service's traffic looks like, counted packet by packet in the kernel since the maps were made.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ServiceProfile {
    /// The service; `default` for none.
    pub service: String,
    /// TCP SYNs without ACK that arrived.
    pub syn: u64,
    /// SYN-ACKs that left (seen only where the program on the way out is attached).
    pub syn_ack: u64,
    /// ACKs that answered one of those: handshakes completed.
    pub first_ack: u64,
    /// TCP FINs that arrived.
    pub fin: u64,
    /// TCP RSTs that arrived.
    pub rst: u64,
    /// UDP packets, fragments included.
    #[serde(default)]
    pub udp: u64,
    /// UDP packets from a port that reflects ([`gateway_core::profile::reflects`]).
    #[serde(default)]
    pub reflected: u64,
    /// IP fragments other than the first.
    #[serde(default)]
    pub fragments: u64,
    /// Packets by frame length; [`gateway_core::profile::SIZES`] has the bounds.
    pub sizes: Vec<u64>,
    /// Packets by TTL or hop limit, in steps of [`gateway_core::profile::TTL_STEP`].
    pub ttls: Vec<u64>,
    /// Handshakes by round trip, if the service measures time; [`gateway_core::profile::time_bound_ns`] has the bounds.
    pub handshake: Vec<u64>,
    /// First answers by how long they took after the first request, likewise.
    pub first_byte: Vec<u64>,
    /// Nanoseconds in all handshakes' round trips together.
    pub handshake_ns: u64,
    /// Nanoseconds in all first answers' times together.
    pub first_byte_ns: u64,
}

/// How many different sources a service saw in an interval, as registers of `HyperLogLog`, which merge.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DistinctSources {
    /// The service; `default` for none.
    pub service: String,
    /// The registers, [`gateway_core::profile::REGISTERS`] of them.
    pub registers: Vec<u8>,
}

/// How full the source table is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SourceSlots {
    /// Slots with a bucket in debt, a running block or a count towards one.
    pub in_debt: u64,
    /// All others.
    pub free: u64,
}

/// The desired content of one entry of the ban table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BanEntry {
    /// The banned sources.
    pub prefix: IpNet,
    /// The service it is for; `None`: all.
    pub service: Option<String>,
    /// Expiry on the kernel's monotonic clock in nanoseconds; `u64::MAX`: never. The caller has already raised it
    /// to the latest expiry of every ban that covers this prefix (for the same service).
    pub until_ns: u64,
}

/// A policy that waits for confirmation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    /// Its text.
    pub text: String,
    /// When the kernel goes back to the policy before it, in nanoseconds of its monotonic clock.
    pub until_ns: u64,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Services in force.
    pub services: usize,
    /// Prefixes in lists, all families, after merging.
    pub prefixes: usize,
    /// How long the compilation and the switch took.
    pub took: Duration,
}

/// Why the kernel module could not do something. Every text says what to do next.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum KernelError {
    #[error("another weir controller (or command) holds {dir}; stop it first, or use another --bpffs")]
    Locked { dir: PathBuf },
    #[error("{dir} is not on a bpf file system; mount one with: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs { dir: PathBuf },
    #[error("not permitted to {what}; {advice}")]
    NotPermitted { what: String, advice: String },
    #[error("there is no interface {name}; `ip link` lists those that exist")]
    NoInterface { name: String },
    #[error(
        "{interface} already has an XDP program: {program}; weir does not push others aside; take it off first ({remove})"
    )]
    Occupied {
        interface: String,
        program: String,
        remove: String,
    },
    #[error(
        "there is no interface {name} any more: weir is attached to it under its new name {now}; name {now} in the policy or with --interface"
    )]
    Renamed { name: String, now: String },
    #[error("cannot attach to {interface} in {mode} mode: {why}")]
    Attach {
        interface: String,
        mode: &'static str,
        why: String,
    },
    #[error("the kernel refused the program: {why}")]
    Load { why: String },
    #[error("nothing is pinned under {dir}: weir is not enforcing there")]
    NotPinned { dir: PathBuf },
    #[error("enforcement was taken off by `weir detach`; restart `weir run` to enforce again")]
    Detached,
    #[error("weir is not attached to {interface}{}; nothing was changed", attached_to(.attached))]
    NotAttached { interface: String, attached: String },
    #[error("the policy is too large for the kernel tables: {what}")]
    TooLarge { what: String },
    #[error(
        "a policy waits for confirmation, and a change now would overwrite the one to go back to; keep it with \
         `weir policy confirm` or take it back with `weir policy rollback` first"
    )]
    Pending,
    #[error(
        "no policy waits for confirmation: there is none, or its time is over and the policy before it is in force"
    )]
    NotPending,
    #[error("no service named {name} is in force")]
    NoService { name: String },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Other(String),
}

/// What Weir is attached to, for an error.
fn attached_to(attached: &str) -> String {
    if attached.is_empty() {
        " or anything else".to_owned()
    } else {
        format!(", only to {attached}")
    }
}
