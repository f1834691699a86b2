//! Which packets are sampled: gaps, adaptation, the cap, and estimates.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;

use gateway_core::{
    judge::Shared,
    sample::{Countdown, Rate, Taken, WINDOW_NS, Window, attend, gap, miss, word},
};

#[derive(Default)]
struct Words([Cell<u64>; word::COUNT]);

struct Word<'a>(&'a Cell<u64>);

impl Shared for Word<'_> {
    fn get(&self) -> u64 {
        self.0.get()
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        let fits = self.0.get() == old;
        if fits {
            self.0.set(new);
        }
        fits
    }
}

impl<'a> Window for &'a Words {
    type Word = Word<'a>;

    fn word(&self, at: usize) -> Word<'a> {
        Word(&self.0[at])
    }
}

/// xorshift64*: the tests need a uniform number that is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

#[test]
fn gaps_are_geometric() {
    let mut random = Random(7);
    for n in [2_u32, 3, 7, 10, 100, 1_000, 65_537] {
        let draws = 400_000;
        let (mut sum, mut ones, mut beyond) = (0_f64, 0_u32, 0_u32);
        for _ in 0..draws {
            let gap = gap(n, random.next());
            assert!(gap >= 1);
            sum += f64::from(gap);
            ones += u32::from(gap == 1);
            beyond += u32::from(gap > n);
        }
        let (draws, n) = (f64::from(draws), f64::from(n));
        let within = |what: &str, found: f64, expected: f64, deviation: f64| {
            assert!(
                (found - expected).abs() < 4.5 * deviation + 0.0025 * expected,
                "N {n}: {what} {found}, expected {expected} ± {deviation}"
            );
        };
        let share = |p: f64| (p * (1.0 - p) / draws).sqrt();
        within("mean", sum / draws, n, ((1.0 - 1.0 / n) * n * n / draws).sqrt());
        within("P(1)", f64::from(ones) / draws, 1.0 / n, share(1.0 / n));
        let tail = (1.0 - 1.0 / n).powf(n);
        within("P(> N)", f64::from(beyond) / draws, tail, share(tail));
    }
    assert_eq!(gap(1, 0), 1);
    assert_eq!(gap(0, 5), 1);
    for random in [0, 1, u32::MAX] {
        assert!(gap(u32::MAX, random) >= 1);
    }
}

/// A node of some CPUs; its samples, and what they stand for.
struct Node {
    words: Words,
    cpus: Vec<Countdown>,
    random: Random,
    rate: Rate,
    taken: u64,
    stands_for: u64,
    /// Σ w (w − 1): the variance of the estimate.
    variance: f64,
}

impl Node {
    fn new(cpus: usize, rate: Rate) -> Self {
        Self {
            words: Words::default(),
            cpus: vec![Countdown::default(); cpus],
            random: Random(11),
            rate,
            taken: 0,
            stands_for: 0,
            variance: 0.0,
        }
    }

    /// One packet; what it was taken at.
    fn packet(&mut self, cpu: usize, now_ns: u64) -> Option<u32> {
        let countdown = &mut self.cpus[cpu];
        if !countdown.count(now_ns) {
            return None;
        }
        let random = self.random.next();
        let Taken::Yes(n) = attend(&&self.words, countdown, self.rate, now_ns, random) else {
            return None;
        };
        self.taken += 1;
        self.stands_for += u64::from(n);
        self.variance += f64::from(n) * (f64::from(n) - 1.0);
        Some(n)
    }

    /// So many packets a second on each CPU in turn; how many samples there were.
    fn send(&mut self, from_ns: u64, ns: u64, per_second: u64) -> u64 {
        let before = self.taken;
        let packets = u128::from(per_second) * u128::from(ns) / 1_000_000_000;
        for at in 0..packets as u64 {
            let now_ns = from_ns + (u128::from(at) * u128::from(ns) / packets) as u64;
            self.packet(at as usize % self.cpus.len(), now_ns);
        }
        self.taken - before
    }

    fn missed(&self) -> u64 {
        self.words.0[word::MISSED].get()
    }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn below_the_cap_one_packet_in_n_is_taken() {
    for cpus in [1, 4] {
        let mut node = Node::new(cpus, Rate::new(100, 10_000));
        let taken = node.send(SECOND, 4 * SECOND, 200_000);
        // 8,000 on average, deviation 89.
        assert!((7_600..8_400).contains(&taken), "{taken}");
        assert_eq!(node.missed(), 0);
    }
}

#[test]
fn above_the_cap_the_samples_stay_near_it_and_the_estimate_true() {
    for (cpus, per_second) in [(1, 2_000_000), (3, 5_000_000)] {
        let mut node = Node::new(cpus, Rate::new(10, 10_000));
        node.send(SECOND, SECOND / 2, per_second);
        let (stood, variance, missed) = (node.stands_for, node.variance, node.missed());
        let taken = node.send(SECOND * 3 / 2, SECOND, per_second);
        assert!((8_000..=10_500).contains(&taken), "{taken}");
        let missed = (node.missed() - missed) as f64;
        let estimate = (node.stands_for - stood) as f64 + missed;
        let deviation = (node.variance - variance + missed * per_second as f64 / 9_000.0).sqrt();
        assert!(
            (estimate - per_second as f64).abs() < 4.0 * deviation,
            "{estimate} ± {deviation} for {per_second}"
        );
    }
}

#[test]
fn a_flood_that_begins_is_held_at_once_and_a_calm_that_follows_is_seen_soon() {
    let mut node = Node::new(2, Rate::new(1_000, 10_000));
    node.send(SECOND, SECOND, 10_000);
    // 8 million a second: one in a thousand would be 8,000 in a second, within the cap; one in a hundred is not.
    node.rate = Rate::new(100, 10_000);
    let first = node.send(2 * SECOND, WINDOW_NS * 2, 8_000_000);
    assert!(first <= 10_000 / 20 + 10_000 / 50, "{first} in 20 ms");
    node.send(2 * SECOND + WINDOW_NS * 2, SECOND, 8_000_000);
    let high = node.words.0[word::ONE_IN].get();
    assert!(high > 500, "{high}");
    // Then next to nothing: N falls by half a window, without waiting for the long gap that was drawn.
    node.send(4 * SECOND, SECOND / 2, 2_000);
    assert_eq!(node.words.0[word::ONE_IN].get(), 100);
    let taken = node.send(5 * SECOND, 4 * SECOND, 10_000);
    assert!((300..500).contains(&taken), "{taken}");
}

#[test]
fn a_small_cap_is_kept_and_what_it_suppressed_is_known() {
    let mut node = Node::new(1, Rate::new(1, 10));
    let mut packets = 0;
    for second in 1..=20 {
        let taken = node.send(second * SECOND, SECOND, 1_000);
        packets += 1_000;
        assert!(taken <= 12, "{taken}");
    }
    let estimate = (node.stands_for + node.missed()) as f64;
    assert!((estimate / f64::from(packets) - 1.0).abs() < 0.3, "{estimate}");
    let before = node.missed();
    miss(&&node.words, 5);
    assert_eq!(node.missed(), before + 5);
}

#[test]
fn every_packet_where_one_in_one_is_asked_for() {
    let mut node = Node::new(1, Rate::new(1, 100_000));
    // The first of a CPU begins its countdown.
    node.packet(0, SECOND);
    for at in 1..=5_000 {
        assert_eq!(node.packet(0, SECOND + at * 20_000), Some(1), "packet {at}");
    }
}

/// Estimates of intervals: within three standard errors of the truth in 99 % of them.
#[test]
fn estimates_are_within_three_standard_errors() {
    let mut node = Node::new(2, Rate::new(50, 10_000));
    node.send(SECOND, SECOND, 100_000);
    let (mut good, intervals) = (0, 400);
    let mut random = Random(3);
    for at in 0..intervals {
        let per_second = 50_000 + u64::from(random.next()) % 2_000_000;
        let (stood, variance, missed) = (node.stands_for, node.variance, node.missed());
        let ns = SECOND / 10;
        node.send(2 * SECOND + at * ns, ns, per_second);
        let packets = (per_second / 10) as f64;
        let delivered = (node.stands_for - stood) as f64;
        let lost = (node.missed() - missed) as f64;
        // What was suppressed is as if the delivered samples stood for more.
        let scale = (delivered + lost) / delivered;
        let deviation = (node.variance - variance).sqrt() * scale;
        good += u32::from((delivered + lost - packets).abs() <= 3.0 * deviation);
    }
    assert!(
        f64::from(good) >= 0.99 * intervals as f64,
        "{good} of {intervals}"
    );
}
