//! `weir explain`: what would happen to a packet, step by step.
//!
//! The decision function itself judges it, on a read of the live maps ([`crate::kernel::Dataplane::explain`]), while a
//! [`Recorder`] notes what it looks at. [`question`] makes the packet, and [`story`] tells what was seen, with the policy's
//! lines.

pub mod question;
mod recorder;
pub mod story;

use gateway_core::{
    image::{Generation, Subject},
    judge::Judgement,
    packet::Packet,
};

pub use self::recorder::{Charged, Recorder, Seen};
use crate::policy::model::Limit;

/// The tiers of buckets, in the order of judgement.
pub const TIER_NAMES: [&str; 4] = ["per_source", "per_network", "class_total", "total"];
/// The kinds of buckets of a tier, in the order of judgement.
pub const KIND_NAMES: [&str; 3] = ["packets", "bytes", "connections"];

/// A judgement and what led to it.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The verdict, and why.
    pub judgement: Judgement,
    /// The moment, on the kernel's clock.
    pub now_ns: u64,
    /// The generation in force then.
    pub generation: Generation,
    /// The service or class that judged, in the state that its lever is in.
    pub subject: Subject,
    /// Until when a lever scales it.
    pub scaled_until_ns: Option<u64>,
    /// The service; `default` for none.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// Whether the node only watches because no controller has reported for too long.
    pub opened: bool,
    /// Whether the source is in the service's `enforce_share`, where that is not all of them.
    pub enforced: Option<bool>,
    /// What was looked at, in that order.
    pub seen: Vec<Seen>,
    /// The limits of the buckets in `seen`, place by place.
    pub limits: Vec<Option<Limit>>,
}

/// A packet of nothing, to be filled in.
pub const fn blank() -> Packet {
    Packet {
        ttl: 64,
        ..Packet::EMPTY
    }
}
