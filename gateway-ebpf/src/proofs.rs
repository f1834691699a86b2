//! Proofs of sources: their maps, and the functions around them that the verifier checks once.

use gateway_core::{
    filter::Filters,
    hash::{self, Key},
    image::{Generation, half},
    limit,
    packet::{Address, Packet},
    proof::{self, Standing, Tables},
};

use crate::{
    PacketPlace,
    buckets::{MapLine, MapWord},
    maps,
};

/// The tables of sources, proofs, offers and attempts.
pub(crate) struct Proofs;

impl Tables for Proofs {
    type Line = MapLine;
    type Proofs = MapLine;
    type Word = MapWord;

    #[inline(always)]
    fn line(&self, hash: u64) -> Option<MapLine> {
        let line = hash::line(hash, maps::lines());
        maps::SOURCES.get_ptr_mut(line).map(MapLine::new)
    }

    #[inline(always)]
    fn proofs(&self, hash: u64) -> Option<MapLine> {
        let line = hash::line(hash, maps::lines());
        maps::PROOFS.get_ptr_mut(line).map(MapLine::new)
    }

    #[inline(always)]
    fn offers(&self, at: u32) -> Option<MapWord> {
        maps::OFFERS.get_ptr_mut(at).map(MapWord::new)
    }

    #[inline(always)]
    fn attempts(&self, at: u32) -> Option<MapWord> {
        maps::ATTEMPTS.get_ptr_mut(at).map(MapWord::new)
    }
}

/// The key of every hash.
#[inline(always)]
pub(crate) fn key() -> Key {
    let [a, b, c, d] = maps::hash_key();
    Key::new([a, b, c, d])
}

/// A packet as the functions here take it.
#[inline(always)]
pub(crate) fn place(packet: &Packet) -> *const PacketPlace {
    // Every packet lies in such a place: `run` makes them.
    core::ptr::from_ref(packet).cast()
}

/// The packet in a place.
#[inline(always)]
pub(crate) fn packet<'a>(place: *const PacketPlace) -> Option<&'a Packet> {
    if place.is_null() {
        return None;
    }
    // SAFETY: not null, and every caller has put a packet there.
    Some(unsafe { &*place.cast::<Packet>() })
}

#[inline(always)]
pub(crate) fn generation(number: u32) -> Option<&'static Generation> {
    maps::GENERATIONS.get(half(number, 1, 0))
}

/// The cell that says whether an answer of a peer may be awaited. `filters`: the element of their map.
#[inline(always)]
fn cell(filters: *mut Filters, peer: &Address, port: u16) -> *mut u16 {
    // SAFETY: of a map element; the mask of the place holds it there.
    unsafe {
        (&raw mut (*filters).awaited)
            .cast::<u16>()
            .add(proof::awaited_at(peer, port))
    }
}

/// Whether an answer of the packet's source may be awaited. `filters`: likewise.
#[inline(always)]
pub(crate) fn awaited(filters: *mut Filters, packet: &Packet, now_ns: u64) -> bool {
    // SAFETY: a cell of a map element.
    let held = unsafe { cell(filters, &packet.source, packet.source_port).read_volatile() };
    proof::awaits(held, now_ns)
}

/// Remembers the offer of a packet that leaves.
#[inline(always)]
pub(crate) fn offer(packet: &Packet, now_ns: u64) {
    proof::offer(&Proofs, &key(), now_ns, packet);
    if let Some(filters) = maps::FILTERS.get_ptr_mut(0) {
        let cell = cell(filters, &packet.destination, packet.destination_port);
        // SAFETY: a cell of a map element; who writes at the same time writes nearly the same.
        unsafe { cell.write_volatile(proof::awaited(now_ns)) };
    }
}

/// [`proof::standing`]; its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_standing(place: *const PacketPlace, number: u32, now_ns: u64) -> u32 {
    let (Some(packet), Some(generation)) = (packet(place), generation(number)) else {
        return Standing::Stranger as u32;
    };
    let key = key();
    let hash = limit::hash_of(&key, generation, packet);
    proof::standing(&Proofs, &key, now_ns, packet, hash) as u32
}

/// [`proof::answer`]; not 0 if it does.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_answer(place: *const PacketPlace, number: u32, now_ns: u64) -> u32 {
    let (Some(packet), Some(generation)) = (packet(place), generation(number)) else {
        return 0;
    };
    let key = key();
    let hash = || limit::hash_of(&key, generation, packet);
    u32::from(proof::answer(&Proofs, &key, now_ns, packet, hash))
}

/// [`proof::remember`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_remember(place: *const PacketPlace, now_ns: u64) -> u32 {
    if let Some(packet) = packet(place) {
        proof::remember(&Proofs, &key(), now_ns, packet);
    }
    0
}
