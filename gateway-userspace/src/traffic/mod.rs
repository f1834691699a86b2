//! What samples say of the traffic: batches of them with names, the tables that estimate from them, and those who follow.
//!
//! It has a lock of its own, not the engine's: samples come thousands a second and must not wait for a policy.

mod batch;

use std::sync::Arc;

use tokio::sync::broadcast;

pub use batch::{Batch, Named, Names};

/// Batches that a slow follower may be behind before it loses the oldest.
const BEHIND: usize = 64;

/// What samples said, and who else wants to hear it.
#[derive(Debug)]
pub struct Traffic {
    followers: broadcast::Sender<Arc<Batch>>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            followers: broadcast::Sender::new(BEHIND),
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
        // Nobody may be listening.
        let _ = self.followers.send(Arc::new(batch));
    }
}
