//! Samples of a capture, taken as the kernel takes them: the same countdown, the same window and the same cap, on the capture's
//! clock. The random numbers are of a fixed seed, so that a replay says the same again.

use std::cell::Cell;

use gateway_core::{
    judge::Shared,
    sample::{self, Countdown, Rate, Taken, Window, word},
};

/// Sightings of a service that are kept for a look where every packet is taken, some 30 MB of them; beyond that a random
/// choice stands for all.
pub(super) const EVERY: usize = 1 << 18;

/// Where the random numbers begin: any will do.
const SEED: u64 = 0x9216_d5d9_8979_fb1b;

/// Random numbers: `SplitMix64` (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new() -> Self {
        Self(SEED)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

type Words = [Cell<u64>; word::COUNT];

/// The window that the CPUs share in the kernel; here there is one.
struct OneCpu<'a>(&'a Words);

/// One of its words.
struct Word<'a>(Option<&'a Cell<u64>>);

impl Shared for Word<'_> {
    fn get(&self) -> u64 {
        self.0.map_or(0, Cell::get)
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.0
            .filter(|word| word.get() == old)
            .map(|word| word.set(new))
            .is_some()
    }
}

impl<'a> Window for OneCpu<'a> {
    type Word = Word<'a>;

    fn word(&self, at: usize) -> Word<'a> {
        Word(self.0.get(at))
    }
}

/// Picks packets.
#[derive(Debug)]
pub(super) struct Sampler {
    rate: Rate,
    /// Every packet is taken.
    every: bool,
    countdown: Countdown,
    words: Words,
    random: Random,
    /// How many packets were taken.
    pub(super) taken: u64,
    /// What they stand for.
    stands_for: u64,
}

impl Sampler {
    pub(super) fn new(rate: Rate, every: bool) -> Self {
        Self {
            rate,
            every,
            countdown: Countdown::default(),
            words: Words::default(),
            random: Random::new(),
            taken: 0,
            stands_for: 0,
        }
    }

    /// Whether a packet is taken: for how many it stands.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<u32> {
        let one_in = if self.every {
            Some(1)
        } else if self.rate.one_in == 0 || !self.countdown.count(now_ns) {
            None
        } else {
            let random = (self.random.next() >> 32) as u32;
            let window = OneCpu(&self.words);
            match sample::attend(&window, &mut self.countdown, self.rate, now_ns, random) {
                Taken::Yes(one_in) => Some(one_in),
                Taken::No | Taken::Suppressed => None,
            }
        };
        if let Some(one_in) = one_in {
            self.taken += 1;
            self.stands_for += u64::from(one_in);
        }
        one_in
    }

    fn missed(&self) -> u64 {
        self.words[word::MISSED].get()
    }
}

/// What samples of an interval must be scaled by: those over the cap never came, and stood for packets, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    stood_for: u64,
    missed: u64,
}

impl Scale {
    /// The factor since this was called last.
    pub(super) fn take(&mut self, sampler: &Sampler) -> f64 {
        let (stands_for, missed) = (
            sampler.stands_for - self.stood_for,
            sampler.missed() - self.missed,
        );
        (self.stood_for, self.missed) = (sampler.stands_for, sampler.missed());
        if stands_for == 0 {
            1.0
        } else {
            1.0 + missed as f64 / stands_for as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(rate: Rate, every: bool, packets: u64, gap_ns: u64) -> Sampler {
        let mut sampler = Sampler::new(rate, every);
        for packet in 0..packets {
            sampler.take(SECOND + packet * gap_ns);
        }
        sampler
    }

    #[test]
    fn one_in_so_many_is_taken_and_stands_for_the_rest() {
        // 20,000 packets a second for 50 s: 20 samples a second, far from the cap.
        let sampler = taken(Rate::new(1_000, 10_000), false, 1_000_000, 50_000);
        // A thousand samples: five standard errors are a sixth.
        assert!((840..1_160).contains(&sampler.taken), "{}", sampler.taken);
        let stands_for = sampler.stands_for as f64 / 1e6;
        assert!((0.84..1.16).contains(&stands_for), "{stands_for}");
        assert_eq!(sampler.missed(), 0);
        // The same again.
        let again = taken(Rate::new(1_000, 10_000), false, 1_000_000, 50_000);
        assert_eq!(
            (again.taken, again.stands_for),
            (sampler.taken, sampler.stands_for)
        );
    }

    #[test]
    fn the_cap_holds_and_what_it_costs_is_scaled_back() {
        // A million packets a second for 2 s, one in one, 10,000 samples a second at most: N must rise to about 114.
        let mut sampler = Sampler::new(Rate::new(1, 10_000), false);
        let mut scale = Scale::default();
        let mut whole = 0.0;
        let mut stood_for = 0;
        for packet in 0..2_000_000 {
            sampler.take(SECOND + packet * 1_000);
            if (packet + 1) % 100_000 == 0 {
                let of_tenth = (sampler.stands_for - stood_for) as f64;
                stood_for = sampler.stands_for;
                whole += of_tenth * scale.take(&sampler);
            }
        }
        assert!(sampler.taken <= 20_600, "{}", sampler.taken);
        assert!(sampler.taken > 15_000, "{}", sampler.taken);
        assert!(sampler.missed() > 0, "until N had risen, the cap refused some");
        assert!((0.95..1.05).contains(&(whole / 2e6)), "{whole}");
    }

    #[test]
    fn every_packet_and_none() {
        assert_eq!(taken(Rate::new(1_000, 1), true, 5_000, 10).taken, 5_000);
        assert_eq!(taken(Rate::new(0, 10_000), false, 5_000, 10).taken, 0);
    }
}
