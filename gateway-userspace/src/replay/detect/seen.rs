//! What an interval of a capture saw of a service, counted as the kernel counts it.

use std::cell::Cell;

use gateway_core::{
    hash::Key,
    image::Generation,
    judge::{Judgement, Shared},
    limit,
    packet::Packet,
    profile::{self, Profile, REGISTERS, Times},
    verdict::Verdict,
};
use gateway_detect::{Observation, Sighting};

use crate::distinct::Registers;

/// The counts of an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    pub(super) profile: Profile,
    pub(super) times: Times,
}

impl Counts {
    /// Counts a packet.
    pub(super) fn add(&mut self, packet: &Packet, length: u32, judgement: Judgement) {
        self.packets += 1;
        self.bytes += u64::from(length);
        self.dropped += u64::from(judgement.verdict != Verdict::Pass);
        self.profile.count(packet);
        if judgement.answered {
            self.profile.count_answer();
        }
    }

    /// Takes in the counts of a later interval.
    pub(super) fn join(&mut self, more: &Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.dropped += more.dropped;
        let (ours, theirs) = (&mut self.profile, &more.profile);
        for (count, more) in ours.sizes.iter_mut().zip(&theirs.sizes) {
            *count += more;
        }
        for (count, more) in ours.ttls.iter_mut().zip(&theirs.ttls) {
            *count += more;
        }
        ours.syn += theirs.syn;
        ours.syn_ack += theirs.syn_ack;
        ours.first_ack += theirs.first_ack;
        ours.fin += theirs.fin;
        ours.rst += theirs.rst;
        ours.udp += theirs.udp;
        ours.reflected += theirs.reflected;
        ours.fragments += theirs.fragments;
        let (ours, theirs) = (&mut self.times, &more.times);
        for (count, more) in ours.handshake.iter_mut().zip(&theirs.handshake) {
            *count += more;
        }
        for (count, more) in ours.first_byte.iter_mut().zip(&theirs.first_byte) {
            *count += more;
        }
        ours.handshake_ns += theirs.handshake_ns;
        ours.first_byte_ns += theirs.first_byte_ns;
    }

    /// What the detectors are shown of an interval that was so long.
    pub(super) fn observation(
        &self,
        seconds: f64,
        sources_per_minute: Option<f64>,
        sightings: Vec<Sighting>,
    ) -> Observation {
        let (profile, times) = (&self.profile, &self.times);
        Observation {
            seconds,
            packets: self.packets as f64,
            bytes: self.bytes as f64,
            sizes: profile.sizes.map(|count| count as f64),
            ttls: profile.ttls.map(|count| count as f64),
            syn: profile.syn as f64,
            syn_ack: profile.syn_ack as f64,
            first_ack: profile.first_ack as f64,
            fin: profile.fin as f64,
            rst: profile.rst as f64,
            udp: profile.udp as f64,
            reflected: profile.reflected as f64,
            fragments: profile.fragments as f64,
            dropped: self.dropped as f64,
            handshake_seconds: mean(&times.handshake, times.handshake_ns),
            first_byte_seconds: mean(&times.first_byte, times.first_byte_ns),
            sources_per_minute,
            sightings,
        }
    }
}

/// The mean of what was timed, in seconds.
fn mean(counts: &[u64], ns: u64) -> Option<f64> {
    let timed: u64 = counts.iter().sum();
    (timed > 0).then(|| ns as f64 / 1e9 / timed as f64)
}

/// The different sources of a minute, counted in registers like the kernel's. They take memory once there are any.
#[derive(Debug, Default)]
pub(super) struct Sources {
    words: Box<[Cell<u64>]>,
}

struct Word<'a>(&'a Cell<u64>);

impl Shared for Word<'_> {
    fn get(&self) -> u64 {
        self.0.get()
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        let same = self.0.get() == old;
        if same {
            self.0.set(new);
        }
        same
    }
}

impl Sources {
    /// Counts a packet's source.
    pub(super) fn see(&mut self, key: &Key, generation: &Generation, packet: &Packet) {
        if self.words.is_empty() {
            self.words = vec![Cell::new(0); REGISTERS / 8].into_boxed_slice();
        }
        let hash = limit::hash_of(key, generation, packet);
        profile::see(hash, |at| self.words.get(at).map(Word));
    }

    /// How many there were; from now on they are counted anew.
    pub(super) fn take(&mut self) -> f64 {
        let ranks: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.replace(0).to_le_bytes())
            .collect();
        Registers::of(&ranks).estimate() as f64
    }
}
