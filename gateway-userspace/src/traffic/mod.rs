//! What samples say of the traffic: batches of them with names, the tables that estimate from them, and those who follow.
//!
//! It has a lock of its own, not the engine's: samples come thousands a second and must not wait for a policy.

mod batch;
mod query;
mod recent;
mod table;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod weights;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::broadcast;

pub use self::{
    batch::{Batch, Missed, Named, Names},
    query::{By, PortRow, Query},
    recent::{Page, Recent, Selection},
    tables::{Cut, Tables},
    weights::SPAN_SECONDS,
};
use crate::api::traffic::{Estimate, Flow, SourceUse};

/// Batches that a slow follower may be behind before it loses the oldest.
const BEHIND: usize = 64;

/// What samples said, and who else wants to hear it.
#[derive(Debug)]
pub struct Traffic {
    followers: broadcast::Sender<Arc<Batch>>,
    tables: Mutex<Tables>,
    recent: Recent,
    began: Instant,
}

/// How large the tables are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sizes {
    /// Flows.
    pub flows: usize,
    /// Sources at services.
    pub sources: usize,
    /// Networks at services.
    pub networks: usize,
    /// What had to go from full tables since the start.
    pub evicted: u64,
    /// Samples that were read since the start.
    pub samples: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            followers: broadcast::Sender::new(BEHIND),
            tables: Mutex::default(),
            recent: Recent::default(),
            began: Instant::now(),
        }
    }
}

impl Traffic {
    /// Hears every batch from now on; who is more than 64 batches behind is told how many it lost.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.followers.subscribe()
    }

    /// Takes a batch in.
    pub fn take_in(&self, batch: Batch) {
        let now = self.now();
        self.tables().add(&batch, now);
        let batch = Arc::new(batch);
        self.recent.take_in(&batch);
        // Nobody may be listening.
        let _ = self.followers.send(batch);
    }

    /// The last samples themselves.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// From now on sources are cut so.
    pub fn set_cut(&self, cut: Cut) {
        self.tables().cut = cut;
    }

    /// The heaviest sources, or networks.
    pub fn sources(&self, query: &Query) -> Vec<SourceUse> {
        let now = self.now();
        self.tables().sources(query, now)
    }

    /// The heaviest flows.
    pub fn flows(&self, query: &Query) -> Vec<Flow> {
        let now = self.now();
        self.tables().flows(query, now)
    }

    /// The ports that are asked for.
    pub fn ports(&self) -> Vec<PortRow> {
        let now = self.now();
        self.tables().ports(now)
    }

    /// All traffic, or that of one service.
    pub fn all(&self, service: Option<&str>) -> Estimate {
        let now = self.now();
        self.tables().all(service, now)
    }

    /// The span that rates are over, in seconds: shorter while there have been samples for less.
    pub fn span_seconds(&self) -> f64 {
        let now = self.now();
        self.tables().age(now).min(SPAN_SECONDS)
    }

    /// The N of the last sample of the last seconds.
    pub fn one_in(&self) -> Option<u32> {
        let now = self.now();
        let (one_in, at) = self.tables().one_in;
        (one_in != 0 && now - at < SPAN_SECONDS).then_some(one_in)
    }

    /// How large the tables are.
    pub fn sizes(&self) -> Sizes {
        let tables = self.tables();
        Sizes {
            flows: tables.flows.len(),
            sources: tables.sources.len(),
            networks: tables.networks.len(),
            evicted: tables.flows.evicted() + tables.sources.evicted() + tables.networks.evicted(),
            samples: tables.samples,
        }
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
