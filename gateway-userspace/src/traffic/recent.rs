//! The last samples themselves, for those who want packets. They are kept only while somebody asks for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gateway_core::{
    frame::Slice,
    packet::Network,
    parse::parse,
    verdict::{Reason, Verdict},
};
use ipnet::IpNet;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::Instant,
};

use super::batch::{Batch, Named};
use crate::compile::prefix;

/// Samples that are kept: more than a second's at the default cap, some 4 MB.
const KEPT: usize = 16_384;
/// How long they are kept for somebody who does not ask again.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Who may wait for samples at once.
const FOLLOWERS: usize = 8;

/// Which samples are wanted; all parts must agree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// Only of packets that were dropped, or would have been under `monitor`.
    pub dropped: bool,
    /// Only with one of these reasons; none: with any.
    pub reasons: Vec<Reason>,
    /// Only of this service (`default` for none).
    pub service: Option<String>,
    /// Only from within this prefix.
    pub source: Option<IpNet>,
    /// Only of this interface.
    pub interface: Option<String>,
}

impl Selection {
    /// Whether a sample is wanted.
    pub fn takes(&self, named: &Named) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        (!self.dropped || named.verdict != Verdict::Pass)
            && (self.reasons.is_empty() || self.reasons.contains(&named.reason))
            && is(&self.service, &named.service)
            && is(&self.interface, &named.interface)
            && self.source.is_none_or(|source| comes_from(named, &source))
    }
}

fn comes_from(named: &Named, source: &IpNet) -> bool {
    let frame = Slice {
        bytes: &named.sample.bytes,
        wire_length: named.sample.head.length,
    };
    parse(&frame).is_ok_and(|packet| match packet.network {
        Network::Other(_) => false,
        network => source.contains(&prefix::address(matches!(network, Network::V6), &packet.source)),
    })
}

/// Some of the last samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Those that are wanted, in their order.
    pub samples: Vec<Named>,
    /// The number of the last that was looked at: where to go on.
    pub next: u64,
    /// Samples, wanted or not, that were gone before they could be looked at.
    pub missed: u64,
}

/// The last samples, numbered from 1 on.
#[derive(Debug)]
pub struct Recent {
    kept: Mutex<Kept>,
    /// The number of the newest, and whether there will be no more.
    newest: watch::Sender<(u64, bool)>,
    followers: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each with the number of its first sample.
    batches: VecDeque<(u64, Arc<Batch>)>,
    samples: usize,
    newest: u64,
    asked: Option<Instant>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            newest: watch::Sender::new((0, false)),
            followers: Semaphore::new(FOLLOWERS),
        }
    }
}

impl Recent {
    /// Takes a batch in.
    pub(super) fn take_in(&self, batch: &Arc<Batch>) {
        let mut kept = self.kept();
        let first = kept.newest + 1;
        kept.newest += batch.samples.len() as u64;
        if kept.asked.is_some_and(|asked| asked.elapsed() < KEPT_FOR) {
            kept.samples += batch.samples.len();
            kept.batches.push_back((first, Arc::clone(batch)));
            while kept.samples > KEPT
                && let Some((_, oldest)) = kept.batches.pop_front()
            {
                kept.samples -= oldest.samples.len();
            }
        } else {
            (kept.batches, kept.samples) = (VecDeque::new(), 0);
        }
        let newest = kept.newest;
        drop(kept);
        self.newest.send_modify(|last| last.0 = newest);
    }

    /// There will be no more: lets those who wait go.
    pub fn close(&self) {
        self.newest.send_modify(|last| last.1 = true);
    }

    /// Whether there will be no more.
    pub fn is_closed(&self) -> bool {
        self.newest.borrow().1
    }

    /// The number of the newest sample. From now on samples are kept.
    pub fn newest(&self) -> u64 {
        let mut kept = self.kept();
        kept.asked = Some(Instant::now());
        kept.newest
    }

    /// The samples after a number, at most `limit` of those that are wanted.
    pub fn after(&self, after: u64, limit: usize, wanted: &Selection) -> Page {
        let mut kept = self.kept();
        kept.asked = Some(Instant::now());
        // A number from the future is of a controller that ran before this one.
        let after = after.min(kept.newest);
        let oldest = kept.batches.front().map_or(kept.newest + 1, |(first, _)| *first);
        let missed = oldest.saturating_sub(after + 1);
        let mut page = Page {
            missed,
            next: after + missed,
            ..Page::default()
        };
        let batches: Vec<(u64, Arc<Batch>)> = kept
            .batches
            .iter()
            .filter(|(first, batch)| first + batch.samples.len() as u64 > page.next + 1)
            .cloned()
            .collect();
        // Looking at packets must not hold up those that come.
        drop(kept);
        for (first, batch) in batches {
            for (number, named) in (first..).zip(&batch.samples) {
                if number <= page.next {
                    continue;
                }
                if page.samples.len() == limit {
                    return page;
                }
                page.next = number;
                if wanted.takes(named) {
                    page.samples.push(named.clone());
                }
            }
        }
        page
    }

    /// A place among those who may wait; none: too many do.
    pub fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.followers.try_acquire().ok()
    }

    /// Waits until there is a sample after a number, there will be none, or the time is over.
    pub async fn wait(&self, after: u64, until: Instant) {
        let mut newest = self.newest.subscribe();
        let more = newest.wait_for(|(newest, closed)| *newest > after || *closed);
        let _ = tokio::time::timeout_at(until, more).await;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
