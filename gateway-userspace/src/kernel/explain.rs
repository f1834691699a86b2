//! What would happen to a packet, and what is left in a source's buckets: judged on copies, changing nothing.

use std::net::IpAddr;

use gateway_core::{
    hash::{self, Domain},
    image::{KINDS, list_flags, subject_flags},
    judge::{self, Environment as _},
    limit, line,
    packet::Packet,
    proof::Tables as _,
};

use super::{BucketLeft, Dataplane, KernelError, peek::Peek};
use crate::{
    compile::prefix,
    explain::{Explained, KIND_NAMES, Recorder, Seen, TIER_NAMES},
};

impl Dataplane {
    /// Judges a packet as the kernel would at `now_ns` of its clock, on a read of the live maps.
    ///
    /// # Errors
    /// Where no policy is in force, or a map cannot be read.
    pub fn explain(&self, packet: &Packet, now_ns: u64) -> Result<Explained, KernelError> {
        self.still_there()?;
        let peek = Peek::new(self, now_ns)?;
        let recorder = Recorder::new(&peek);
        let judgement = judge::judge_packet(&recorder, packet);
        let seen = recorder.into_seen();
        let subject = peek.subject(judgement.subject).copied().unwrap_or_default();
        let in_force = peek.after_lever(&subject).copied().unwrap_or_default();
        peek.whole()?;
        // Every subject counts what passes.
        let (service, class) = self.owner(subject.series[0]);
        let limits = seen
            .iter()
            .map(|seen| match seen {
                Seen::Bucket(met) => {
                    let found = self.state.registry.bucket_of(met.spec.id(), met.spec.version());
                    found.map(|(_, limit)| limit)
                }
                _ => None,
            })
            .collect();
        Ok(Explained {
            judgement,
            now_ns,
            generation: *peek.generation(),
            scaled_until_ns: Some(subject.until_ns).filter(|until| *until != u64::MAX && now_ns < *until),
            subject: in_force,
            service,
            class,
            opened: peek.opened(),
            enforced: (in_force.enforce_share != u32::MAX).then(|| {
                let hash = limit::hash_of(&peek.key(), peek.generation(), packet);
                hash::share(hash) < in_force.enforce_share
            }),
            seen,
            limits,
        })
    }

    /// What is left in the buckets that a source has at a service: its own, its network's, its class's and the service's.
    /// Bytes are what is left for one who is not held back by a reserve.
    ///
    /// # Errors
    /// Where there is no such service, or a map cannot be read.
    pub fn left(&self, source: IpAddr, service: &str) -> Result<Vec<BucketLeft>, KernelError> {
        self.still_there()?;
        let number = self.number_of(service).ok_or_else(|| KernelError::NoService {
            name: service.to_owned(),
        })?;
        let now_ns = Self::now_ns();
        let peek = Peek::new(self, now_ns)?;
        let (v6, address) = (source.is_ipv6(), prefix::words(source));
        let entry = peek.lists(v6, &address);
        let Some(subject) = peek.judging(number, entry.mask()) else {
            peek.whole()?;
            return Ok(Vec::new());
        };
        let trusted = entry.flags & list_flags::TRUST != 0;
        let own = !trusted && entry.flags & list_flags::PROXY == 0;
        let key = peek.key();
        let generation = *peek.generation();
        let source_hash = limit::hash_of_address(&key, &generation, v6, &address);
        let network = limit::masked(v6, &address, subject.network_v4, &subject.network_v6);
        let network_hash = hash::hash(&key, Domain::Network, if v6 { 6 } else { 4 }, &network);
        let mut left = Vec::new();
        for (tier, specs) in subject.buckets.iter().enumerate() {
            let applies = match tier {
                0 => own,
                1 => !trusted,
                _ => true,
            };
            if !applies || subject.flags & subject_flags::TIER << tier == 0 {
                continue;
            }
            for (kind, spec) in specs.iter().enumerate().take(KINDS) {
                if !spec.exists() {
                    continue;
                }
                let hash = if tier == 0 { source_hash } else { network_hash };
                let debt = match tier {
                    0 | 1 => peek.line(hash).map(|line| {
                        // What a packet would do first: a stale cell is no debt.
                        peek.tidy(&line);
                        line::owed(&line, &peek, spec, hash, now_ns)
                    }),
                    _ => peek
                        .shared(spec.id())
                        .map(|cell| limit::shared_debt(judge::Shared::get(&cell), &peek, spec, now_ns)),
                };
                let full = spec.left(0, spec.depth);
                let burst = self.state.registry.bucket_of(spec.id(), spec.version());
                let burst = burst.map_or(full, |(_, limit)| limit.burst);
                left.push(BucketLeft {
                    tier: TIER_NAMES[tier].to_owned(),
                    kind: KIND_NAMES[kind].to_owned(),
                    left: debt.map_or(0, |debt| spec.left(debt, spec.depth)).min(burst),
                    burst,
                });
            }
        }
        peek.whole()?;
        Ok(left)
    }

    /// The service and class that a series counts for; the default and none where nobody knows.
    fn owner(&self, series: u32) -> (String, String) {
        let records = self.state.registry.series();
        let record = records
            .iter()
            .find(|record| record.number == series && series != 0);
        record.map_or_else(
            || (crate::compile::DEFAULT.to_owned(), String::new()),
            |record| (record.service.clone(), record.class.clone()),
        )
    }
}
