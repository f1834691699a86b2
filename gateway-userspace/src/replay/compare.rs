//! What two policies did differently with the same packets.

use std::collections::HashMap;

use gateway_core::{judge::Judgement, verdict::Reason};

use super::{
    heavy::{CAPACITY, Heaviest},
    tally::{Count, SourceKey},
};

/// How many kinds of difference are told apart; what else there is, is counted as one.
const KINDS: usize = 16_384;

/// What one policy said of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Side {
    /// The service and class, as a place in [`Comparison::owners`].
    pub(super) owner: u32,
    /// The number of the verdict.
    pub(super) verdict: u8,
    /// The number of the reason.
    pub(super) reason: u8,
}

/// Packets of a source by both verdicts: first the policy's, then the other's.
pub(super) type Both = [[u64; 3]; 3];

/// The differences between a policy and another.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Services and classes of either.
    pub(super) owners: Vec<(String, String)>,
    /// The owner of each subject, of the policy and of the other.
    by_subject: [Vec<u32>; 2],
    /// Packets of which both said the same.
    pub(super) same: Count,
    pub(super) different: HashMap<[Side; 2], Count>,
    /// Differences beyond [`KINDS`].
    pub(super) others: Count,
    /// The sources whose verdicts differ.
    pub(super) sources: Heaviest<SourceKey, Both>,
}

impl Comparison {
    /// Of two policies with these owners of subjects.
    pub(super) fn new(policies: [&[(String, String)]; 2]) -> Self {
        let (mut owners, mut places) = (Vec::new(), HashMap::new());
        let by_subject = policies.map(|subjects| {
            let place = |owner: &(String, String)| {
                *places.entry(owner.clone()).or_insert_with(|| {
                    owners.push(owner.clone());
                    owners.len() as u32 - 1
                })
            };
            subjects.iter().map(place).collect()
        });
        Self {
            owners,
            by_subject,
            same: Count::default(),
            different: HashMap::new(),
            others: Count::default(),
            sources: Heaviest::new(CAPACITY),
        }
    }

    /// Counts what the policy and the other said of a packet.
    pub(super) fn add(&mut self, said: [Judgement; 2], length: u32, source: Option<SourceKey>) {
        let side = |at: usize| Side {
            owner: self.by_subject[at]
                .get(said[at].subject as usize)
                .copied()
                .unwrap_or(0),
            verdict: said[at].verdict as u8,
            reason: said[at].reason as u8,
        };
        let sides = [side(0), side(1)];
        if sides[0] == sides[1] {
            self.same.add(length);
            return;
        }
        if self.different.len() < KINDS || self.different.contains_key(&sides) {
            self.different.entry(sides).or_default().add(length);
        } else {
            self.others.add(length);
        }
        if sides[0].verdict != sides[1].verdict
            && let Some(source) = source
        {
            self.sources.add(source)[usize::from(sides[0].verdict)][usize::from(sides[1].verdict)] += 1;
        }
    }

    /// The name of a reason by its number.
    pub(super) fn reason(number: u8) -> &'static str {
        Reason::ALL
            .get(usize::from(number))
            .map_or("", |reason| reason.name())
    }
}
