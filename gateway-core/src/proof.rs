//! Who has shown that its address is its own, and who at least behaves as one who has.
//!
//! Anybody can write any source into a packet; only who receives at that source completes a handshake. So a *proof* comes
//! from a handshake and from nothing else: from the host's own TCP (a connection was established, or its round trip
//! measured anew), or, where the host forwards, from an ACK that carries the number of a SYN-ACK seen on its way to
//! that source (an *offer*; guessing it takes 2³² packets within [`OFFER_LIFE`]). Packets without a handshake change nothing in
//! the table of proofs, so no flood can fill it.
//!
//! A newcomer has no proof yet, and a flood of first SYNs has none either. What tells them apart is that a client sends its SYN
//! *again* when no answer comes (RFC 6298: after a second, then twice that, …), and a flood of random sources does
//! not: a table of refused *attempts* remembers them, and one that comes again goes before those that come first. That table
//! can be filled: `SPECIFICATION.md` says up to which flood it serves.

use crate::{
    hash::{self, Key},
    judge::Shared,
    line::{self, Line, TRIES, WORDS},
    packet::{Address, Packet},
    wire::{ipv4, tcp},
};

/// A proof counts for so long after the handshake, or the round trip, that gave it, in units of 2³⁰ ns: an hour.
pub const LIFETIME: u64 = 3353;
/// A proof younger than this is not written again, in the same units.
pub const REFRESH: u64 = 60;
/// Offers that can be remembered.
pub const OFFERS: u32 = 1 << 17;
/// Words of refused attempts, two in each.
pub const ATTEMPTS: u32 = 1 << 21;
/// An offer can be answered for so long, in units of 2²⁸ ns: 9.9 s. No round trip is longer, and who does not answer is
/// offered the same again after 1, 3, 7 and 15 s (RFC 6298, as Linux does it).
pub const OFFER_LIFE: u64 = 37;
/// Cells that say, at the price of one look, whether an answer may be awaited at all.
pub const AWAITED: usize = 1 << 17;
/// An answer is awaited for so many units of 2³⁰ ns: [`OFFER_LIFE`], rounded up, and one for another CPU's clock.
const AWAITED_FOR: u16 = 11;
/// An attempt that comes again sooner is no retransmission, in units of 2²⁶ ns: 0.74 s. (RFC 6298 has at least a second
/// for the first; 67 ms are lost to rounding and some to a delay that shrank.)
pub const SOONEST: u64 = 11;

/// A second, nearly: the clock of proofs.
const PROOF_SHIFT: u32 = 30;
/// A stamp that is marked, and the bits of the mark's time, which wraps after 26 days.
const MARKED: u64 = 1 << 63;
const MARK_TIME: u64 = (1 << (63 - line::STAMP_BITS)) - 1;
const OFFER_SHIFT: u32 = 28;
const ATTEMPT_SHIFT: u32 = 26;
/// Bits of an attempt's time: 69 s.
const ATTEMPT_TIME: u64 = (1 << 10) - 1;

/// What a source has shown for itself; the later, the more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Standing {
    /// Nothing.
    Stranger = 0,
    /// It asks again for a connection that it was refused.
    Retry = 1,
    /// It has completed a handshake.
    Proven = 2,
}

impl Standing {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Retry,
            2 => Self::Proven,
            _ => Self::Stranger,
        }
    }
}

/// The tables of sources, proofs, offers and attempts.
pub trait Tables {
    /// A line of the source table.
    type Line: Line;
    /// A line of proofs.
    type Proofs: Line;
    /// A word of offers or attempts.
    type Word: Shared;

    /// The line of the source table of a hash.
    fn line(&self, hash: u64) -> Option<Self::Line>;
    /// The line of proofs of a source's hash.
    fn proofs(&self, hash: u64) -> Option<Self::Proofs>;
    /// A word of offers, below [`OFFERS`].
    fn offers(&self, at: u32) -> Option<Self::Word>;
    /// A word of attempts, below [`ATTEMPTS`].
    fn attempts(&self, at: u32) -> Option<Self::Word>;
}

/// The tag of a source in its line of proofs: the half of the hash that did not choose the line.
#[inline(always)]
const fn tag(hash: u64) -> u64 {
    hash & 0xffff_ffff
}

/// The clock of proofs. It begins at 1, so that no proof is a cell of zeros.
#[inline(always)]
const fn proof_clock(now_ns: u64) -> u64 {
    (now_ns >> PROOF_SHIFT) + 1
}

/// Whether a cell is a proof of a source that still counts.
#[inline(always)]
const fn counts(cell: u64, hash: u64, now: u64) -> bool {
    // A time ahead of now is another CPU's clock.
    cell >> 32 == tag(hash) && cell != 0 && now.saturating_sub(cell & 0xffff_ffff) <= LIFETIME
}

/// Whether a source has a proof that counts.
#[inline(always)]
pub fn proven<L: Line>(line: &L, hash: u64, now_ns: u64) -> bool {
    let now = proof_clock(now_ns);
    for at in 0..WORDS {
        if counts(line.get(at), hash, now) {
            return true;
        }
    }
    false
}

/// Gives a source a proof, or a fresher one, and marks its line of the source table.
#[inline(always)]
pub fn give<T: Tables>(tables: &T, hash: u64, now_ns: u64) {
    if let (Some(proofs), Some(line)) = (tables.proofs(hash), tables.line(hash)) {
        prove(&proofs, hash, now_ns);
        mark(&line, now_ns);
    }
}

/// Says in the stamp of a line of the source table that one of its sources has a proof, and since when. A packet has that
/// line at hand, and a line of proofs of very many comes from memory: without a mark nobody fetches it. As often as a proof, a mark is
/// written anew only after [`REFRESH`].
#[inline(always)]
fn mark<L: Line>(line: &L, now_ns: u64) {
    let now = proof_clock(now_ns);
    for _ in 0..TRIES {
        let stamp = line.get(0);
        if mark_age(stamp, now) < REFRESH {
            return;
        }
        let fresh = MARKED | (now & MARK_TIME) << line::STAMP_BITS | stamp & ((1 << line::STAMP_BITS) - 1);
        if line.swap(0, stamp, fresh) {
            return;
        }
    }
}

/// The age of the mark of a stamp; more than any proof's if there is none. A mark of the future is another clock's: it is of now, and so
/// is one of more than 13 days, which costs looks until it is written again.
#[inline(always)]
const fn mark_age(stamp: u64, now: u64) -> u64 {
    if stamp & MARKED == 0 {
        return u64::MAX;
    }
    let age = now.wrapping_sub(stamp >> line::STAMP_BITS) & MARK_TIME;
    if age > MARK_TIME / 2 { 0 } else { age }
}

/// Whether a source of a line of the source table may have a proof that counts: never no where one has.
#[inline(always)]
pub fn marked<L: Line>(line: &L, now_ns: u64) -> bool {
    mark_age(line.get(0), proof_clock(now_ns)) <= LIFETIME + REFRESH
}

/// Gives a source a proof, or a fresher one. Where its line is full, the one that was used longest ago goes. Two that race
/// for a cell: one of them has to complete another handshake.
#[inline(always)]
pub fn prove<L: Line>(line: &L, hash: u64, now_ns: u64) {
    let now = proof_clock(now_ns);
    let fresh = tag(hash) << 32 | now & 0xffff_ffff;
    let (mut place, mut oldest, mut replaced) = (0, u64::MAX, 0);
    for at in 0..WORDS {
        let held = line.get(at);
        let time = held & 0xffff_ffff;
        if held >> 32 == tag(hash) && held != 0 {
            if time + REFRESH <= now {
                let _ = line.swap(at, held, fresh);
            }
            return;
        }
        if time < oldest {
            (place, oldest, replaced) = (at, time, held);
        }
    }
    let _ = line.swap(place, replaced, fresh);
}

/// Scales a hash to a table's size.
#[inline(always)]
const fn place(hash: u64, size: u32) -> u32 {
    hash::line(hash, size)
}

/// Remembers the offer of a packet that leaves, if it is a SYN-ACK.
#[inline(always)]
pub fn offer<T: Tables>(tables: &T, key: &Key, now_ns: u64, packet: &Packet) {
    const FLAGS: u8 = tcp::SYN | tcp::ACK;
    if packet.protocol != ipv4::TCP || packet.tcp_flags & (FLAGS | tcp::RST) != FLAGS {
        return;
    }
    let hash = hash::connection(
        key,
        (&packet.destination, packet.destination_port),
        (&packet.source, packet.source_port),
        0,
    );
    if let Some(word) = tables.offers(place(hash, OFFERS)) {
        let awaited = packet.sequence.wrapping_add(1);
        // A race is lost to another offer of the same word: one of the two goes either way.
        let _ = word.swap(word.get(), offered(hash, now_ns, awaited));
    }
}

/// The cell of a peer. Not keyed: who fills cells makes others look twice, no more.
#[inline(always)]
pub const fn awaited_at(peer: &Address, port: u16) -> usize {
    // The high bits of products with odd numbers of no pattern depend on all bits below (Knuth, volume 3, 6.4; the numbers are of xxHash, Collet). What
    // tells IPv6 hosts of a site apart, the second and the last word, goes into different products.
    let first = ((peer[0] ^ peer[3]) as u64 | (port as u64) << 32).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let second = ((peer[1] ^ peer[2]) as u64).wrapping_mul(0xffff_ffff_85eb_ca77);
    (first.wrapping_add(second) >> 46) as usize & (AWAITED - 1)
}

/// What a cell says from now on: 0 is said by none.
#[inline(always)]
pub const fn awaited(now_ns: u64) -> u16 {
    (now_ns >> PROOF_SHIFT) as u16 | 0x8000
}

/// Whether a cell says that an answer may be awaited: never no where an offer can still be answered.
#[inline(always)]
pub const fn awaits(cell: u16, now_ns: u64) -> bool {
    let age = (now_ns >> PROOF_SHIFT).wrapping_sub(cell as u64) as u16 & 0x7fff;
    // An age near the wrap is another CPU's later clock.
    cell != 0 && (age <= AWAITED_FOR || age >= 0x7ffe)
}

/// An offer: 16 bits of the connection's hash, 16 of the time, and the number that answers it.
#[inline(always)]
const fn offered(hash: u64, now_ns: u64, awaited: u32) -> u64 {
    (hash & 0xffff) << 48 | (now_ns >> OFFER_SHIFT & 0xffff) << 32 | awaited as u64
}

/// Whether a packet could be the ACK of a handshake: one that carries little or nothing else, so that the bulk of a
/// connection does not look.
#[inline(always)]
pub const fn may_answer(packet: &Packet) -> bool {
    packet.protocol == ipv4::TCP
        && packet.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::ACK
        && packet.length <= 160
}

/// Proves the source of a packet that answers an offer; whether it does. `hash`: the source's, which is seldom asked for.
#[inline(always)]
pub fn answer<T: Tables>(
    tables: &T,
    key: &Key,
    now_ns: u64,
    packet: &Packet,
    hash: impl FnOnce() -> u64,
) -> bool {
    let connection = hash::connection(
        key,
        (&packet.source, packet.source_port),
        (&packet.destination, packet.destination_port),
        0,
    );
    let Some(word) = tables.offers(place(connection, OFFERS)) else {
        return false;
    };
    let held = word.get();
    let age = (now_ns >> OFFER_SHIFT).wrapping_sub(held >> 32) & 0xffff;
    let fits = held != 0 && held as u32 == packet.acknowledgement && held >> 48 == connection & 0xffff;
    // An age near the wrap is another CPU's later clock.
    if !fits || age > OFFER_LIFE && age < 0xfff0 {
        return false;
    }
    // Once: whoever heard the number on the way must not use it for ever.
    let _ = word.swap(held, 0);
    give(tables, hash(), now_ns);
    true
}

/// What the source of a packet has shown for itself. An attempt that is found counts once: the next one must wait again.
#[inline(always)]
pub fn standing<T: Tables>(tables: &T, key: &Key, now_ns: u64, packet: &Packet, hash: u64) -> Standing {
    if let Some(line) = tables.line(hash)
        && marked(&line, now_ns)
        && let Some(proofs) = tables.proofs(hash)
        && proven(&proofs, hash, now_ns)
    {
        return Standing::Proven;
    }
    if packet.protocol == ipv4::TCP && packet.connection {
        let attempt = attempt(key, packet);
        if let Some(word) = tables.attempts(place(attempt, ATTEMPTS))
            && again(&word, attempt, now_ns)
        {
            return Standing::Retry;
        }
    }
    Standing::Stranger
}

/// Remembers a SYN that was refused for want of a proof.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, key: &Key, now_ns: u64, packet: &Packet) {
    if packet.protocol == ipv4::TCP && packet.connection {
        let attempt = attempt(key, packet);
        if let Some(word) = tables.attempts(place(attempt, ATTEMPTS)) {
            refused(&word, attempt, now_ns);
        }
    }
}

/// What is the same in a SYN and in its retransmission, and in no other SYN: addresses, ports, sequence number.
#[inline(always)]
fn attempt(key: &Key, packet: &Packet) -> u64 {
    let (source, destination): (&Address, &Address) = (&packet.source, &packet.destination);
    hash::connection(
        key,
        (source, packet.source_port),
        (destination, packet.destination_port),
        packet.sequence,
    )
}

/// An attempt's half of a word: 22 bits of its hash, 10 of the time.
#[inline(always)]
const fn half(attempt: u64, now_ns: u64) -> u64 {
    (attempt & 0x3f_ffff) << 10 | now_ns >> ATTEMPT_SHIFT & ATTEMPT_TIME
}

/// How long ago a half of a word was written.
#[inline(always)]
const fn age(half: u64, now_ns: u64) -> u64 {
    (now_ns >> ATTEMPT_SHIFT).wrapping_sub(half) & ATTEMPT_TIME
}

/// Whether an attempt was refused before, long enough ago; if so, it begins to wait anew.
#[inline(always)]
fn again<S: Shared>(word: &S, attempt: u64, now_ns: u64) -> bool {
    let held = word.get();
    let (low, high) = (held & 0xffff_ffff, held >> 32);
    let fresh = half(attempt, now_ns);
    let new = if low != 0 && low >> 10 == fresh >> 10 && age(low, now_ns) >= SOONEST {
        high << 32 | fresh
    } else if high != 0 && high >> 10 == fresh >> 10 && age(high, now_ns) >= SOONEST {
        fresh << 32 | low
    } else {
        return false;
    };
    // Lost: then it comes once more, a little later.
    word.swap(held, new)
}

/// Remembers a refused attempt in place of the older of the word's two, unless it is there already.
#[inline(always)]
fn refused<S: Shared>(word: &S, attempt: u64, now_ns: u64) {
    let held = word.get();
    let (low, high) = (held & 0xffff_ffff, held >> 32);
    let fresh = half(attempt, now_ns);
    if low >> 10 == fresh >> 10 || high >> 10 == fresh >> 10 {
        return;
    }
    let low_goes = low == 0 || high != 0 && age(low, now_ns) >= age(high, now_ns);
    let new = if low_goes {
        high << 32 | fresh
    } else {
        fresh << 32 | low
    };
    let _ = word.swap(held, new);
}
