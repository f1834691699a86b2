//! Profiles: what every packet of a service adds to its counts, and the times of conversations.

use gateway_core::{
    image::{Control, Epoch, SUBJECTS, Subject, half, subject_flags},
    packet::Packet,
    profile::{self, PAGE_DISTINCT, PAGE_SERVICES, Profile, REGISTERS, Times},
    times,
};

use crate::{
    PacketPlace,
    buckets::MapWord,
    environment, maps,
    proofs::{self, key},
};

/// The table of conversations.
struct Conversations;

impl times::Tables for Conversations {
    type Word = MapWord;

    #[inline(always)]
    fn conversation(&self, at: u32) -> Option<MapWord> {
        maps::CONVERSATIONS.get_ptr_mut(at).map(MapWord::new)
    }
}

/// The entry of a subject in a generation.
#[inline(always)]
pub(crate) fn subject(generation: u32, number: u32) -> Option<&'static Subject> {
    maps::SUBJECT_TABLE.get(half(generation, SUBJECTS, number))
}

/// Counts a packet to a service by what it looks like, and by its times, where these are asked for. `flags`: those of its subject. `hash`: its
/// source's. `epoch`: how far userspace has read.
#[inline(always)]
pub(crate) fn look(
    packet: &Packet,
    service: u32,
    flags: u32,
    now_ns: u64,
    hash: u64,
    epoch: impl Fn() -> Epoch,
) {
    if flags & subject_flags::PROFILE != 0
        && let Some(profile) = profile_of(service)
    {
        // SAFETY: this CPU's own element, in all but the egress path, which adds to a count of its own.
        let profile = unsafe { &mut *profile };
        let epoch = epoch();
        if profile.enters(epoch) {
            weir_touch(service, epoch.number());
        }
        profile.count(packet);
        profile.count_source(
            hash,
            |at| register(service, epoch.set(), at),
            || weir_see(hash, service, epoch.set()) != 0,
        );
    }
    if flags & subject_flags::TIME != 0 {
        weir_time(proofs::place(packet), service, now_ns);
    }
}

/// Counts that a packet to a service completed a handshake.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_answered(service: u32) -> u32 {
    if let Some(profile) = profile_of(service) {
        // SAFETY: as above.
        unsafe { (*profile).count_answer() };
    }
    0
}

/// Counts a packet to a service by its times.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_time(place: *const PacketPlace, service: u32, now_ns: u64) -> u32 {
    if let Some(packet) = proofs::packet(place)
        && let Some(ns) = times::arrived(&Conversations, &key(), now_ns, packet)
        && let Some(times) = times_of(service)
    {
        // SAFETY: as above.
        unsafe { (*times).count_handshake(ns) };
    }
    0
}

/// This CPU's counts of a service.
#[inline(always)]
fn profile_of(service: u32) -> Option<*mut Profile> {
    maps::PROFILES.get_value_ptr_mut(service / PAGE_SERVICES, &(service % PAGE_SERVICES))
}

/// This CPU's times of a service.
#[inline(always)]
fn times_of(service: u32) -> Option<*mut Times> {
    maps::TIMES.get_value_ptr_mut(service / PAGE_SERVICES, &(service % PAGE_SERVICES))
}

/// Marks a service as one whose counts changed in an epoch of this number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_touch(service: u32, number: u64) -> u32 {
    match maps::TOUCHED.get_ptr_mut(service).map(MapWord::new) {
        Some(mark) => u32::from(profile::mark(&mark, number)),
        None => 0,
    }
}

/// [`profile::see`] in one of a service's two sets of registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_see(hash: u64, service: u32, set: u32) -> u32 {
    u32::from(profile::see(hash, |at| register(service, set & 1, at)))
}

/// A word of one of a service's two sets of registers.
#[inline(always)]
fn register(service: u32, set: u32, at: usize) -> Option<MapWord> {
    let page = service / PAGE_DISTINCT;
    let words = maps::DISTINCT.get_value_ptr_mut(page, &(service % PAGE_DISTINCT * 2 + set))?;
    // SAFETY: a word of a map element; the mask holds it there.
    Some(MapWord::new(unsafe {
        words.cast::<u64>().add(at & (REGISTERS / 8 - 1))
    }))
}

/// What a TCP packet that leaves says of the service that it comes from: a SYN-ACK, or a first answer. `flags`: those of
/// the generation.
#[inline(always)]
pub(crate) fn leaving(
    packet: &Packet,
    service: impl Fn() -> Option<&'static Subject>,
    syn_ack: bool,
    timed: bool,
    now_ns: u64,
) {
    let first_byte = if timed {
        times::leaving(&Conversations, &key(), now_ns, packet)
    } else {
        None
    };
    if !syn_ack && first_byte.is_none() {
        return;
    }
    let Some(subject) = service() else { return };
    if syn_ack
        && subject.flags & subject_flags::PROFILE != 0
        && let Some(profile) = profile_of(subject.service)
    {
        // The element does not say whether it is marked already: on the way out a packet may be interrupted by one that arrives.
        let epoch = Epoch::from_word(environment::control(Control::Epoch));
        weir_touch(subject.service, epoch.number());
        // SAFETY: this CPU's own element; programs on the way out do not nest, and only they write this count.
        unsafe { (*profile).syn_ack += 1 };
    }
    if let Some(ns) = first_byte
        && subject.flags & subject_flags::TIME != 0
        && let Some(times) = times_of(subject.service)
    {
        // SAFETY: as above.
        unsafe { (*times).count_first_byte(ns) };
    }
}
