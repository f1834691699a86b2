//! A model of a service's traffic, from a seed: customers with their habits and oddities, crowds, and attacks.
//!
//! Nothing here knows how the detectors work. Packets are not made one by one: the counts of a second are drawn from the
//! distributions that they have, and so are the packets that the product would have sampled.

pub(crate) mod attack;
pub(crate) mod crowd;
pub(crate) mod frames;
pub(crate) mod oddity;
pub(crate) mod plan;
pub(crate) mod population;
pub(crate) mod random;
pub(crate) mod season;
pub(crate) mod service;
pub(crate) mod talk;
pub(crate) mod tally;
