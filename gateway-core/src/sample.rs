//! Samples of the traffic: which packets are taken, and what a sample is.
//!
//! Each packet is taken with the same probability, one in N, independently of all others: the gap to the next sample is
//! drawn from the geometric distribution, so that the path only counts it down. N follows the traffic (see [`Window`]) so
//! that the samples per second stay near a cap, and every sample carries the N it was taken at.

use crate::{
    judge::Shared,
    verdict::{Reason, Verdict},
};

/// The most bytes of a frame that a sample holds.
pub const SNAP: usize = 128;

/// Bytes of the ring that carries samples: two seconds of the default cap.
pub const RING: u32 = 4 * 1024 * 1024;

/// The head of a sample in the ring; [`SNAP`] bytes follow, of which `captured` count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Sample {
    /// When, on the kernel's clock.
    pub at_ns: u64,
    /// Packets that samples stood for which never came (over the cap, or the ring was full): of all CPUs, since the maps
    /// were made.
    pub missed: u64,
    /// How many packets this sample stands for: one in so many was taken.
    pub one_in: u32,
    /// The frame's length from the Ethernet header on.
    pub length: u32,
    /// The number of the service that counted the packet; 0: the default.
    pub service: u32,
    /// The number of the interface.
    pub interface: u32,
    /// The number of a [`Verdict`].
    pub verdict: u8,
    /// The number of a [`Reason`].
    pub reason: u8,
    /// Bytes of the frame that follow, at most [`SNAP`].
    pub captured: u8,
    /// Which of the service's classes, counted from 1; 0: none.
    pub class: u8,
    /// Not used.
    pub reserved: [u8; 4],
}

impl Sample {
    /// The verdict; nothing where the number is of none.
    pub const fn verdict(&self) -> Option<Verdict> {
        Some(match self.verdict {
            0 => Verdict::Pass,
            1 => Verdict::Drop,
            2 => Verdict::WouldDrop,
            _ => return None,
        })
    }

    /// The reason; nothing where the number is of none.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(usize::from(self.reason)).copied()
    }
}

const _: () = assert!(size_of::<Sample>() == 40);

/// N is worked out anew so often, in nanoseconds: 10 ms.
pub const WINDOW_NS: u64 = 10_000_000;
/// The cap is a bucket of this many nanoseconds of samples: 50 ms.
const BURST_NS: u64 = 50_000_000;
/// Tries of a compare-and-swap of the window, of which there are a few a millisecond.
const TRIES: usize = 8;

/// What a policy says of samples.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Rate {
    /// One packet in so many, or fewer; 0: none.
    pub one_in: u32,
    /// The least time between two samples in the long run, in nanoseconds.
    pub gap_ns: u32,
}

impl Rate {
    /// One packet in `one_in` (0: none), and at most so many a second (at least 1).
    pub const fn new(one_in: u32, max_per_second: u32) -> Self {
        let most = if max_per_second == 0 { 1 } else { max_per_second };
        Self {
            one_in,
            gap_ns: 1_000_000_000 / most,
        }
    }
}

/// One CPU's way to its next sample.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Countdown {
    /// Packets to the next sample, which is the one that makes this 0.
    pub left: u32,
    /// What `left` was when this CPU last told the window of its packets.
    pub told: u32,
    /// The N that the gap was drawn at.
    pub one_in: u32,
    /// Not used.
    pub reserved: u32,
    /// The end of the window that this CPU knows.
    pub until_ns: u64,
}

impl Countdown {
    /// Counts a packet; whether [`attend`] must look at it. This is all that a packet costs that is not sampled.
    #[inline(always)]
    pub const fn count(&mut self, now_ns: u64) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left == 0 || now_ns >= self.until_ns
    }
}

/// What the CPUs share: a cache line of words.
pub trait Window {
    /// A word.
    type Word: Shared;
    /// One of its words.
    fn word(&self, at: usize) -> Self::Word;
}

/// The words of a [`Window`].
pub mod word {
    /// The end of the window, in nanoseconds.
    pub const UNTIL: usize = 0;
    /// Packets that were told in it.
    pub const SEEN: usize = 1;
    /// N.
    pub const ONE_IN: usize = 2;
    /// Packets that samples stood for which were never delivered.
    pub const MISSED: usize = 3;
    /// When the cap's bucket is full again, in nanoseconds.
    pub const FULL_AT: usize = 4;
    /// How many there are.
    pub const COUNT: usize = 8;
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// Nothing.
    No,
    /// It is a sample, of one in so many.
    Yes(u32),
    /// It would be one if the cap allowed it; it is counted as missed already.
    Suppressed,
}

/// Adds to a word; a race that is lost eight times loses what would be added, which is an estimate of a rate or is given
/// back to the caller to say.
#[inline(always)]
fn add<S: Shared>(word: &S, amount: u64) -> bool {
    for _ in 0..TRIES {
        let held = word.get();
        if word.swap(held, held.wrapping_add(amount)) {
            return true;
        }
    }
    false
}

/// Counts packets that samples stood for which are lost.
#[inline(always)]
pub fn miss<W: Window>(window: &W, packets: u32) {
    let _ = add(&window.word(word::MISSED), u64::from(packets));
}

/// Looks at a packet for which [`Countdown::count`] asked for it: tells the window how many packets this CPU had, begins
/// a new window when the old one is over, and draws a new gap when the last one is used up or N has changed (the gaps
/// have no memory, so that a new one may be drawn at any packet). `random` is uniform.
#[inline(always)]
pub fn attend<W: Window>(
    window: &W,
    countdown: &mut Countdown,
    rate: Rate,
    now_ns: u64,
    random: u32,
) -> Taken {
    let seen = countdown.told.wrapping_sub(countdown.left);
    countdown.told = countdown.left;
    let _ = add(&window.word(word::SEEN), u64::from(seen));
    let mut until_ns = window.word(word::UNTIL).get();
    if now_ns >= until_ns {
        let next_ns = now_ns + WINDOW_NS;
        if window.word(word::UNTIL).swap(until_ns, next_ns) {
            renew(
                window,
                rate,
                now_ns.saturating_sub(until_ns).saturating_add(WINDOW_NS),
            );
        }
        until_ns = next_ns;
    }
    countdown.until_ns = until_ns;
    let at = countdown.one_in;
    let hit = countdown.left == 0 && at != 0;
    // A policy that asks for more than the window allows yet waits for the next one.
    let one_in = (window.word(word::ONE_IN).get() as u32).max(1);
    if countdown.left == 0 || one_in != at {
        countdown.one_in = one_in;
        countdown.left = gap(one_in, random);
        countdown.told = countdown.left;
    }
    if !hit {
        Taken::No
    } else if within_cap(&window.word(word::FULL_AT), rate, now_ns) {
        Taken::Yes(at)
    } else {
        miss(window, at);
        Taken::Suppressed
    }
}

/// Works out N from the packets of the window that is over. It aims at seven eighths of the cap, so that chance seldom
/// takes more than the cap allows; it rises at once, and falls by half at most.
#[inline(always)]
fn renew<W: Window>(window: &W, rate: Rate, elapsed_ns: u64) {
    let seen = window.word(word::SEEN);
    let packets = seen.get();
    let _ = add(&seen, packets.wrapping_neg());
    // One sample each 8/7 of the gap: 2³² packets of a gap of a second, 2³⁰ ns, stay within 64 bits.
    let aimed_ns = u64::from(rate.gap_ns) + u64::from(rate.gap_ns) / 7;
    let wanted = packets.min(u64::from(u32::MAX)) * aimed_ns / elapsed_ns.max(1);
    let held = window.word(word::ONE_IN);
    let before = held.get();
    let one_in = wanted
        .max(before / 2)
        .max(u64::from(rate.one_in))
        .min(u64::from(u32::MAX));
    let _ = held.swap(before, one_in);
}

/// Charges the cap's bucket with a sample; whether it has room.
#[inline(always)]
fn within_cap<S: Shared>(full_at: &S, rate: Rate, now_ns: u64) -> bool {
    let gap_ns = u64::from(rate.gap_ns);
    // At least one sample fits, however few a second may be taken.
    let depth_ns = BURST_NS.max(gap_ns);
    for _ in 0..TRIES {
        let held = full_at.get();
        // A time further ahead than the depth is of another policy's cap.
        let begin = if held > now_ns && held - now_ns <= depth_ns {
            held
        } else {
            now_ns
        };
        if begin + gap_ns > now_ns + depth_ns {
            return false;
        }
        if full_at.swap(held, begin + gap_ns) {
            return true;
        }
    }
    false
}

/// A number of packets from the geometric distribution with mean N, at least 1: how far the next sample is.
///
/// ⌈ln u / ln(1 − 1/N)⌉ for a uniform u (Devroye, Non-Uniform Random Variate Generation, 1986, X.2). −1 / ln(1 − 1/N) is
/// N − 1/2 − 1/(12 N) − 1/(24 N²) − …, of which these terms are within 0.2 % for N = 2 and within 2·10⁻⁵ from 10 on.
#[inline(always)]
pub fn gap(one_in: u32, random: u32) -> u32 {
    if one_in <= 1 {
        return 1;
    }
    let n = u64::from(one_in);
    // In 2⁻²⁰: less than 2⁵² for any N.
    let scale = (n << 20) - (1 << 19) - (1 << 20) / (12 * n) - (1 << 20) / (12 * n) / (2 * n);
    // −ln u = −log2 u × ln 2, in 2⁻²⁰: at most 32 × ln 2 < 2⁵, so less than 2²⁵.
    let minus_ln = (minus_log2(random) * 726_817) >> 20;
    // Both are split so that the product, of up to 2⁷⁷, fits: the integer part of N times all of it, and the rest.
    let (whole, rest) = (scale >> 20, scale & ((1 << 20) - 1));
    let product = (whole * minus_ln + ((rest * minus_ln) >> 20)) >> 20;
    product.min(u64::from(u32::MAX) - 1) as u32 + 1
}

/// −log2(u / 2³²) in 2⁻²⁰, for a uniform u; 0 stands for 2³² here, so that the result is at most 32. Bit by bit: squaring a
/// number in \[1, 2) doubles its logarithm.
#[inline(always)]
fn minus_log2(random: u32) -> u64 {
    if random == 0 {
        return 0;
    }
    let zeros = random.leading_zeros();
    // In [2³¹, 2³²): a number from 1 to 2 with 31 bits behind the point.
    let mut mantissa = u64::from(random << zeros);
    let mut log = 0;
    for _ in 0..20 {
        mantissa = (mantissa * mantissa) >> 31;
        log <<= 1;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            log |= 1;
        }
    }
    ((u64::from(zeros) + 1) << 20) - log
}
