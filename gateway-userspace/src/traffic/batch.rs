//! Samples with the names that belong to their numbers.

use std::{collections::BTreeMap, sync::Arc};

use gateway_core::{
    sample::Sample as Head,
    verdict::{Reason, Verdict},
};
use jiff::Timestamp;

use crate::kernel::Sample;

/// A sample, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Named {
    /// The sample.
    pub sample: Sample,
    /// When its packet came.
    pub at: Timestamp,
    /// What happened to the packet.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The service; `default` for none.
    pub service: Arc<str>,
    /// The class; empty for none.
    pub class: Arc<str>,
    /// The interface.
    pub interface: Arc<str>,
    /// The interface's index; 0 where it has vanished.
    pub ifindex: u32,
}

/// The samples of one look into the ring, in their order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// The samples.
    pub samples: Vec<Named>,
}

/// How many packets went by for which samples never came, from the count that samples carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed(Option<u64>);

impl Missed {
    /// What has gone by since the sample before; `count` is what this one carries.
    pub fn since(&mut self, count: u64) -> u64 {
        // What was missed before anybody listened is nobody's.
        let before = self.0.unwrap_or(count);
        // A count that falls deep is that of new maps. One that falls a little is of a CPU that looked a little earlier.
        let anew = count < before / 2;
        self.0 = Some(if anew { count } else { before.max(count) });
        count.saturating_sub(before)
    }
}

/// The names behind the numbers of samples.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Services by number.
    pub services: BTreeMap<u32, Arc<str>>,
    /// The classes of each service, in their order.
    pub classes: BTreeMap<u32, Vec<Arc<str>>>,
    /// Interfaces by number, and their indexes.
    pub interfaces: BTreeMap<u32, (Arc<str>, u32)>,
}

impl Names {
    /// A sample with its names; nothing where its numbers mean nothing, which another version would have written.
    pub fn name(&self, sample: Sample, at: Timestamp) -> Option<Named> {
        let head: &Head = &sample.head;
        let (verdict, reason) = (head.verdict()?, head.reason()?);
        let service = match self.services.get(&head.service) {
            Some(service) if head.service != 0 => Arc::clone(service),
            // A service that is gone since.
            None if head.service != 0 => Arc::from("gone"),
            _ => Arc::from("default"),
        };
        let class = usize::from(head.class).checked_sub(1);
        let class = class
            .and_then(|class| self.classes.get(&head.service)?.get(class).map(Arc::clone))
            .unwrap_or_else(|| Arc::from(""));
        let (interface, ifindex) = self.interfaces.get(&head.interface).map_or_else(
            || (Arc::from("gone"), 0),
            |(name, index)| (Arc::clone(name), *index),
        );
        Some(Named {
            sample,
            at,
            verdict,
            reason,
            service,
            class,
            interface,
            ifindex,
        })
    }
}
