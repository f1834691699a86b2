//! Tells a crowd from an attack.
//!
//! Pure logic: no I/O and no clock; times are given, in seconds since 1970, so that the controller, `weir replay --detect` and
//! `cargo xtask eval` run the same detectors, the first on the node's clock, the others on the recording's.
//!
//! Once a second each service is [observed](observe); [`Detector`] keeps two axes: how much there is ([`volume`]), and what it
//! is made of ([`composition`]). Much of the usual kind is a crowd; what is unusual in kind is an attack, or, where it is
//! little, something stealthy ([`verdict`]).

pub mod composition;
pub mod cusum;
pub mod detector;
mod exact;
pub mod features;
pub mod foreign;
pub mod histogram;
pub mod invariants;
pub mod memory;
pub mod normal;
pub mod observe;
pub mod pool;
pub mod tail;
pub mod verdict;
pub mod volume;

/// The layout of a written [`Detector`]: raise it when anything that is saved of one is added, removed or changed.
pub const LAYOUT: u32 = 2;

pub use detector::{Detector, Settings};
pub use observe::{Observation, Sighting};
pub use verdict::{Carrier, Change, Finding, Kind, Speaking, Verdict};
