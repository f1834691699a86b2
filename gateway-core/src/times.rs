//! How long handshakes and first answers take, told by the times of packets alone: from the SYN-ACK that leaves to the ACK
//! that arrives, and from a client's first data to the first data that leaves for it. What the data says does not matter,
//! so encrypted traffic is timed as well.
//!
//! A conversation has one word from its SYN-ACK to its first answer, in a table that others may overwrite: then it is not
//! timed. No stranger can fill it, for only what this host answers is in it.

use crate::{
    hash::{self, Key},
    judge::Shared,
    packet::Packet,
    wire::{ipv4, tcp},
};

/// Conversations that can be timed at once.
pub const CONVERSATIONS: u32 = 1 << 16;

/// Times are kept in units of 2¹⁰ ns.
const SHIFT: u32 = 10;
/// Bits of a time: 78 hours.
const TIME: u64 = (1 << 38) - 1;
/// A conversation that waits longer than this is another's: 60 s, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// A SYN-ACK left.
const OFFERED: u64 = 1;
/// The ACK came.
const ESTABLISHED: u64 = 2;
/// The first data came.
const ASKED: u64 = 3;

/// The table of conversations.
pub trait Tables {
    /// A word.
    type Word: Shared;
    /// A word of the table, below [`CONVERSATIONS`].
    fn conversation(&self, at: u32) -> Option<Self::Word>;
}

/// A word: 24 bits of the hash, 2 of the state, 38 of the time.
#[inline(always)]
const fn word(hash: u64, state: u64, now_ns: u64) -> u64 {
    (hash & 0xff_ffff) << 40 | state << 38 | now_ns >> SHIFT & TIME
}

/// The state in a word, if it is of this hash and recent, and how long ago that was.
#[inline(always)]
const fn held(word: u64, hash: u64, now_ns: u64) -> Option<(u64, u64)> {
    if word >> 40 != hash & 0xff_ffff {
        return None;
    }
    let age_ns = ((now_ns >> SHIFT).wrapping_sub(word) & TIME) << SHIFT;
    if age_ns > LONGEST_NS {
        return None;
    }
    Some((word >> 38 & 3, age_ns))
}

/// A TCP packet arrived: how long its handshake took, if this completes it.
#[inline(always)]
pub fn arrived<T: Tables>(tables: &T, key: &Key, now_ns: u64, packet: &Packet) -> Option<u64> {
    if packet.protocol != ipv4::TCP || packet.tcp_flags & (tcp::SYN | tcp::RST | tcp::ACK) != tcp::ACK {
        return None;
    }
    let client = (&packet.source, packet.source_port);
    let server = (&packet.destination, packet.destination_port);
    let hash = hash::connection(key, client, server, 1);
    let place = tables.conversation(hash::line(hash, CONVERSATIONS))?;
    let before = place.get();
    let (state, age_ns) = held(before, hash, now_ns)?;
    let next = if packet.payload == 0 { ESTABLISHED } else { ASKED };
    let timed = match state {
        OFFERED => Some(age_ns),
        ESTABLISHED if next == ASKED => None,
        _ => return None,
    };
    // A lost race is another conversation's, or another packet's of this one: then that one is timed.
    if place.swap(before, word(hash, next, now_ns)) {
        timed
    } else {
        None
    }
}

/// A TCP packet leaves: how long the first answer took, if this is it.
#[inline(always)]
pub fn leaving<T: Tables>(tables: &T, key: &Key, now_ns: u64, packet: &Packet) -> Option<u64> {
    let offer = packet.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK;
    if packet.protocol != ipv4::TCP || !offer && packet.payload == 0 {
        return None;
    }
    let client = (&packet.destination, packet.destination_port);
    let server = (&packet.source, packet.source_port);
    let hash = hash::connection(key, client, server, 1);
    let place = tables.conversation(hash::line(hash, CONVERSATIONS))?;
    let before = place.get();
    if offer {
        let _ = place.swap(before, word(hash, OFFERED, now_ns));
        return None;
    }
    let (state, age_ns) = held(before, hash, now_ns)?;
    // A server that speaks first has no first answer.
    if !matches!(state, ASKED | ESTABLISHED) || !place.swap(before, 0) || state != ASKED {
        return None;
    }
    Some(age_ns)
}
