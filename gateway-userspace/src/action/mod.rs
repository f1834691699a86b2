//! What Weir does by itself about an attack, where `[service.on_attack]` says so: what it may do, and what it does.
//!
//! Pure: no clock, no disk, no kernel.
//!
//! - [`tighten`] tries the scales of a service's limits, [`ban`] the carriers of the attack; each states which share of normal sources
//!   a step would hit, from above, and proposes only what stays under `max_impact`
//! - [`Spared`] holds whom no automatic ban may touch
//! - [`Book`] knows what is being done about which service, what the operator has undone, and for how long
//!
//! `controller/action_ops.rs` carries steps out with the levers and the bans that there are, so that all of them end by
//! themselves.

mod ban;
mod book;
mod saved;
mod spared;
mod tighten;
mod withheld;

#[cfg(test)]
mod tests;

use gateway_detect::{
    Finding,
    normal::{Load, Normal, Per, Unit},
};
use ipnet::IpNet;

pub use self::{
    ban::{BanPlan, Suspects, ban},
    book::{Attention, Book, InForce, LOOK_NS, Standing, What},
    saved::SavedActions,
    spared::Spared,
    tighten::{Bounded, TightenPlan, tighten},
    withheld::{Withheld, percent},
};

/// What is remembered of a service's normal traffic; nothing where too little is.
pub trait Remembered {
    /// The share of normal sources that a limit of so much a second would hit.
    fn hit(&self, per: Per, unit: Unit, rate: f64) -> Option<f64>;
    /// The share of normal sources within these prefixes.
    fn within(&self, prefixes: &[IpNet]) -> Option<f64>;
    /// The most that everybody together sent in a second.
    fn peak(&self) -> Load;
}

impl Remembered for Normal {
    fn hit(&self, per: Per, unit: Unit, rate: f64) -> Option<f64> {
        Self::hit(self, per, unit, rate)
    }

    fn within(&self, prefixes: &[IpNet]) -> Option<f64> {
        self.hit_by_prefixes(prefixes)
    }

    fn peak(&self) -> Load {
        Self::peak(self)
    }
}

/// A service at one moment, as whoever watches it tells.
#[derive(Clone, Debug)]
pub struct Case {
    /// The service.
    pub service: String,
    /// What is found of it.
    pub finding: Finding,
    /// What arrives in a second, whatever becomes of it.
    pub load: Load,
    /// What is remembered of its normal sources.
    pub normal: Normal,
}
