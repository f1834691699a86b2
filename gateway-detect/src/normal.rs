//! What is remembered of normal sources: whom would a step hit?

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::observe::Observation;

/// What is remembered of normal sources.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Normal {}

impl Normal {
    /// Learns a second of normal traffic.
    pub fn learn(&mut self, _at: f64, _observation: &Observation) {}

    /// The share of normal sources that a limit of so many packets a second and source would hit; nothing while too little is
    /// known.
    pub fn hit_by_rate(&self, _packets_per_second: f64) -> Option<f64> {
        None
    }

    /// The share of normal sources within these prefixes; nothing while too little is known.
    pub fn hit_by_prefixes(&self, _prefixes: &[IpNet]) -> Option<f64> {
        None
    }
}
