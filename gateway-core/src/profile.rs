//! What a service's traffic looks like: counts that every packet adds to, and how many different sources there are.

use crate::{
    image::Epoch,
    judge::Shared,
    packet::{Fragment, Network, Packet},
    wire::{ipv4, tcp},
};

/// Upper bounds of frame lengths, in bytes, from the Ethernet header on; a longer frame counts in one more.
pub const SIZES: [u32; 7] = [64, 128, 256, 512, 1024, 1518, 9018];
/// Counts of frame lengths.
pub const SIZE_COUNTS: usize = SIZES.len() + 1;
/// TTLs (hop limits) counted together: 0 to 7, 8 to 15, …
pub const TTL_STEP: u32 = 8;
/// Counts of TTLs.
pub const TTL_COUNTS: usize = 256 / TTL_STEP as usize;
/// Services in one page of profiles.
pub const PAGE_SERVICES: u32 = 64;
/// Services in one page of registers, two intervals each: one that is counted, one that is read.
pub const PAGE_DISTINCT: u32 = 16;
/// Registers of `HyperLogLog` (Flajolet, Fusy, Gandouet, Meunier 2007): a standard error of 1.04 / √4096 = 1.6 %.
pub const REGISTERS: usize = 4096;
/// Counts of times: number `i` counts what took less than 2^`i` × [`TIME_UNIT_NS`] and not less than the one before, and the
/// last one what took longer.
pub const TIME_COUNTS: usize = 24;
/// The first count's bound: 2.048 µs. The last bound is 8.6 s.
pub const TIME_UNIT_NS: u64 = 2048;

/// The upper bound of a count of times, in nanoseconds; nothing for the last, which has none.
pub const fn time_bound_ns(at: usize) -> Option<u64> {
    if at + 1 < TIME_COUNTS {
        Some(TIME_UNIT_NS << at)
    } else {
        None
    }
}

/// The count that a frame length belongs to.
#[inline(always)]
pub const fn size_at(length: u32) -> usize {
    // Lengths come mixed, and a branch on each bound would be guessed wrong for every other packet. So four bounds are compared at once, each
    // in 16 bits of a word, whose highest one remains where the bound is not below the length.
    let length = (if length > LONGEST { LONGEST } else { length }) as u64 * EACH;
    let low = ((LOW - length) & HIGHEST) >> 15;
    let high = ((HIGH - length) & HIGHEST) >> 15;
    SIZE_COUNTS - ((low + high).wrapping_mul(EACH) >> 48) as usize
}

/// A one in each 16 bits.
const EACH: u64 = 0x0001_0001_0001_0001;
/// The highest of each 16 bits.
const HIGHEST: u64 = EACH << 15;
/// No bound is greater, and longer frames are of the same count.
const LONGEST: u32 = 0x7fff;

/// The first four bounds.
const LOW: u64 = lanes(0);
/// The others.
const HIGH: u64 = lanes(4);
const _: () = assert!(SIZE_COUNTS == 8);

/// Four bounds from this one on, each with the highest of its 16 bits; beyond the last, a bound that nothing exceeds.
const fn lanes(first: usize) -> u64 {
    let (mut at, mut lanes) = (0, HIGHEST);
    while at < 4 {
        let bound = if first + at < SIZES.len() {
            SIZES[first + at]
        } else {
            LONGEST
        };
        assert!(bound <= LONGEST);
        lanes |= (bound as u64) << (16 * at);
        at += 1;
    }
    lanes
}

/// The count that a time belongs to.
#[inline(always)]
pub const fn time_at(ns: u64) -> usize {
    let mut at = 0;
    while at + 1 < TIME_COUNTS && ns >= TIME_UNIT_NS << at {
        at += 1;
    }
    at
}

/// Whether a service that answers from this UDP port has been used to reflect and amplify: those of CISA's alert TA14-017A
/// (UDP-based amplification attacks), and those found since: memcached (11211), ARMS (3283), WS-Discovery (3702), `CoAP` (5683),
/// Ubiquiti discovery (10001), `DHCPDiscover` (37810); without `OpenVPN` (1194), whose users are customers.
#[inline(always)]
pub const fn reflects(source_port: u16) -> bool {
    matches!(
        source_port,
        17 | 19
            | 53
            | 69
            | 111
            | 123
            | 137
            | 161
            | 389
            | 427
            | 520
            | 1900
            | 3283
            | 3702
            | 5353
            | 5683
            | 10_001
            | 11_211
            | 27_960
            | 37_810
    )
}

/// What one CPU has counted of one service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Profile {
    /// The word of the [`Epoch`] in which it counted last. With the next word first, for every packet reads both.
    pub epoch: u64,
    /// The hash of the source that was counted last among the different ones of that epoch; 0: none.
    pub source: u64,
    /// Packets by frame length.
    pub sizes: [u64; SIZE_COUNTS],
    /// Packets by TTL.
    pub ttls: [u64; TTL_COUNTS],
    /// TCP SYNs without ACK that arrived.
    pub syn: u64,
    /// SYN-ACKs that left.
    pub syn_ack: u64,
    /// ACKs that answered one of those.
    pub first_ack: u64,
    /// TCP FINs that arrived.
    pub fin: u64,
    /// TCP RSTs that arrived.
    pub rst: u64,
    /// UDP packets, fragments included.
    pub udp: u64,
    /// UDP packets from a port that reflects ([`reflects`]).
    pub reflected: u64,
    /// IP fragments other than the first.
    pub fragments: u64,
}

/// Words of a [`Profile`].
pub const PROFILE_WORDS: usize = PROFILE_MARKS + SIZE_COUNTS + TTL_COUNTS + 8;
/// Words of a [`Profile`] that come first and count nothing.
pub const PROFILE_MARKS: usize = 2;

impl Profile {
    /// Counts a packet.
    #[inline(always)]
    pub fn count(&mut self, packet: &Packet) {
        // The masks say to the verifier what is so anyway.
        self.sizes[size_at(packet.length) & (SIZE_COUNTS - 1)] += 1;
        if !matches!(packet.network, Network::Other(_)) {
            self.ttls[(usize::from(packet.ttl) / TTL_STEP as usize) & (TTL_COUNTS - 1)] += 1;
        }
        if packet.protocol == ipv4::TCP {
            // Nearly all packets are of the middle of a connection: they write nothing here.
            if packet.tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
                self.syn += u64::from(packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN);
                self.fin += u64::from(packet.tcp_flags & tcp::FIN != 0);
                self.rst += u64::from(packet.tcp_flags & tcp::RST != 0);
            }
        } else if packet.protocol == ipv4::UDP {
            self.udp += 1;
            if reflects(packet.source_port) {
                self.reflected += 1;
            }
        }
        if matches!(packet.fragment, Fragment::Later) {
            self.fragments += 1;
        }
    }

    /// Whether what is counted now is the first of an epoch, which this CPU's counts are of from now on. Then somebody has to tell userspace that
    /// the service's counts changed.
    #[inline(always)]
    pub fn enters(&mut self, epoch: Epoch) -> bool {
        if self.epoch == epoch.word() {
            return false;
        }
        self.epoch = epoch.word();
        self.source = 0;
        true
    }

    /// Counts a source among the different ones of the epoch, unless it is the one that was counted last: packets of one source come in
    /// trains, of a flood above all. Where the registers, whose `word` this is, do not know of it, `see` has to do [`see`], and say what that says.
    /// (Of a source whose hash is 0, one in 2⁶⁴, the first packet after another's counts.)
    #[inline(always)]
    pub fn count_source<S: Shared>(
        &mut self,
        hash: u64,
        word: impl Fn(usize) -> Option<S>,
        see: impl Fn() -> bool,
    ) {
        if self.source != hash && (seen(hash, word) || see()) {
            self.source = hash;
        }
    }

    /// Counts that a packet completed a handshake.
    #[inline(always)]
    pub fn count_answer(&mut self) {
        self.first_ack += 1;
    }
}

/// What one CPU has timed of one service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Times {
    /// Handshakes by round trip.
    pub handshake: [u64; TIME_COUNTS],
    /// First answers by how long they took.
    pub first_byte: [u64; TIME_COUNTS],
    /// Nanoseconds of all handshakes.
    pub handshake_ns: u64,
    /// Nanoseconds of all first answers.
    pub first_byte_ns: u64,
}

/// Words of [`Times`].
pub const TIMES_WORDS: usize = 2 * TIME_COUNTS + 2;

impl Times {
    /// Counts a handshake that took so long.
    #[inline(always)]
    pub fn count_handshake(&mut self, ns: u64) {
        self.handshake[bounded(time_at(ns))] += 1;
        self.handshake_ns += ns;
    }

    /// Counts a first answer that took so long.
    #[inline(always)]
    pub fn count_first_byte(&mut self, ns: u64) {
        self.first_byte[bounded(time_at(ns))] += 1;
        self.first_byte_ns += ns;
    }
}

/// What is so anyway, in a form that the verifier sees.
#[inline(always)]
const fn bounded(at: usize) -> usize {
    if at < TIME_COUNTS { at } else { TIME_COUNTS - 1 }
}

/// Raises a register to what a hash says, if it says more; `word` gives the word that holds a register's eight neighbours,
/// by number. Whether it says as much now: lost races are tried again a few times, and then the source's next packet has to try.
#[inline(always)]
pub fn see<S: Shared>(hash: u64, word: impl Fn(usize) -> Option<S>) -> bool {
    let (register, rest) = parts(hash);
    let Some(word) = word(register / 8) else {
        return false;
    };
    let shift = (register & 7) * 8;
    let rank = u64::from(rest.leading_zeros()) - 12 + 1;
    for _ in 0..4 {
        let held = word.get();
        if knows(held >> shift, rest) || word.swap(held, held & !(0xff << shift) | rank << shift) {
            return true;
        }
    }
    false
}

/// Raises the mark of a service to the number of an epoch in which its counts changed. Never lowers it: a CPU may still be in the epoch before. Whether
/// it says as much now: who loses a race finds it raised, and it does not rise four times within a call.
#[inline(always)]
pub fn mark<S: Shared>(mark: &S, number: u64) -> bool {
    for _ in 0..4 {
        let held = mark.get();
        if held >= number || mark.swap(held, number) {
            return true;
        }
    }
    false
}

/// Whether the register of a hash says as much already, as nearly always: no other packet has to be [seen](see).
#[inline(always)]
fn seen<S: Shared>(hash: u64, word: impl Fn(usize) -> Option<S>) -> bool {
    let (register, rest) = parts(hash);
    word(register / 8).is_some_and(|word| knows(word.get() >> ((register & 7) * 8), rest))
}

/// The register of a hash, and what of it is counted there.
#[inline(always)]
const fn parts(hash: u64) -> (usize, u64) {
    ((hash >> 52) as usize & (REGISTERS - 1), hash << 12 >> 12)
}

/// Whether the register in the lowest byte says at least as much as the rest of a hash.
#[inline(always)]
const fn knows(register: u64, rest: u64) -> bool {
    let known = register & 0xff;
    known > 52 || rest >> (52 - known) != 0
}

const _: () = assert!(size_of::<Profile>() == 8 * PROFILE_WORDS);
const _: () = assert!(size_of::<Times>() == 8 * TIMES_WORDS);
const _: () = assert!(SIZE_COUNTS.is_power_of_two() && TTL_COUNTS.is_power_of_two());
