//! A line of the source table against an exact model: who is in debt keeps his cell, who is not needs none, and no
//! idle time, however long, turns a paid debt into a debt.

mod common;

use std::collections::HashMap;

use common::{HOUR, HostLine, OneSpec, SECOND, cases, charge, charge_untidied, hash, packets};
use gateway_core::{
    bucket::{
        cell::{self, Use},
        spec::{FINEST, Spec},
    },
    line::{self, Amount, Block, Blocked, Charge, Strike, WORDS},
};
use proptest::prelude::*;

const YEAR: u64 = 365 * 24 * HOUR;

/// What each source owes: the time at which its bucket is full again, in the bucket's units, on a clock that never
/// wraps.
#[derive(Default)]
struct Exact {
    full_at: HashMap<usize, i128>,
}

fn units(spec: &Spec, now_ns: u64) -> i128 {
    (i128::from(now_ns) << spec.left) >> spec.right
}

impl Exact {
    fn debt(&self, source: usize, spec: &Spec, now_ns: u64) -> i128 {
        let full_at = self.full_at.get(&source).copied().unwrap_or(i128::MIN);
        full_at.saturating_sub(units(spec, now_ns)).max(0)
    }

    /// What the line must say to a packet.
    fn charge(&mut self, specs: &[Spec], source: usize, now_ns: u64) -> Charge {
        let spec = &specs[source];
        let (debt, cost) = (self.debt(source, spec, now_ns), i128::from(spec.charge(1)));
        let others = (0..specs.len())
            .filter(|other| *other != source && self.debt(*other, &specs[*other], now_ns) > 0)
            .count();
        if debt == 0 && others == WORDS - 1 {
            return Charge::Full;
        }
        if debt + cost > i128::from(spec.depth) {
            return Charge::Refused;
        }
        self.full_at.insert(source, units(spec, now_ns) + debt + cost);
        Charge::Admitted
    }
}

/// How long nothing touches the line.
#[derive(Clone, Copy, Debug)]
enum Gap {
    Nanoseconds(u64),
    /// In 1/16 of the time in which one packet of the source refills.
    Refills(u64),
    /// So many halves of the range of a unit, and a bit around it: where a stale time would look like a debt.
    HalfRanges(u32, u64, i64),
}

fn gaps() -> impl Strategy<Value = Gap> {
    prop_oneof![
        8 => Just(Gap::Nanoseconds(0)),
        8 => (0u64..64).prop_map(Gap::Refills),
        2 => (0u64..1 << 24).prop_map(Gap::Nanoseconds),
        1 => (0u64..48 * HOUR).prop_map(Gap::Nanoseconds),
        1 => (0u64..3 * YEAR).prop_map(Gap::Nanoseconds),
        2 => (0u32..=30, 1u64..5, -(1i64 << 24)..1 << 24)
            .prop_map(|(exponent, halves, around)| Gap::HalfRanges(exponent, halves, around)),
    ]
}

impl Gap {
    fn ns(self, spec: &Spec) -> u64 {
        match self {
            Self::Nanoseconds(ns) => ns,
            Self::Refills(sixteenths) => {
                ((u128::from(spec.charge(1)) * u128::from(sixteenths) / 16) << spec.right >> spec.left) as u64
            }
            Self::HalfRanges(exponent, halves, around) => {
                let ns = (u128::from(halves) << (cell::TIME_BITS - 1 + exponent)) >> FINEST;
                (ns as u64).saturating_add_signed(around)
            }
        }
    }
}

/// Limits of 1/s to 100M/s with bursts of any depth: every exponent there is.
fn limits() -> impl Strategy<Value = (u64, u64)> {
    (0u32..27, 0u32..23, any::<u64>()).prop_map(|(rate, burst, seed)| {
        let jitter = |power: u32, seed: u64| (1u64 << power) + seed % (1 << power);
        (
            jitter(rate, seed).min(100_000_000),
            jitter(burst, seed >> 32).min(8_000_000),
        )
    })
}

#[test]
fn the_limits_of_the_tests_reach_every_unit() {
    let mut seen = [false; 31];
    for rate in 0..27 {
        for burst in (0..23).map(|power| 1 << power).chain([8_000_000]) {
            seen[usize::from(packets(1, 1 << rate, burst).exponent())] = true;
        }
    }
    assert!(seen.iter().all(|seen| *seen), "{seen:?}");
}

proptest! {
    #![proptest_config(cases(600))]

    /// Many sources of different limits in one line, drops counted and blocks started among them, on any schedule:
    /// every answer is the exact model's. So a bucket in debt is never evicted, a newcomer to a line full of debtors
    /// gets `Full`, drained cells are used again, and no stale cell is taken for a debt.
    #[test]
    fn a_line_decides_like_the_exact_model(
        limits in prop::collection::vec(limits(), 12),
        schedule in prop::collection::vec((0usize..12, gaps(), 0u8..8), 1..300),
        start in 0u64..YEAR,
    ) {
        let specs: Vec<Spec> = limits.iter().map(|(rate, burst)| packets(1, *rate, *burst)).collect();
        // As seldom as a policy with these limits tidies its lines.
        let patience = specs.iter().map(Spec::patience).min().unwrap();
        let line = HostLine::default();
        let mut exact = Exact::default();
        let mut now = start;
        for (source, gap, strikes) in schedule {
            now += gap.ns(&specs[source]);
            // The kernel's clock begins when the machine does.
            prop_assume!(now < 250 * YEAR);
            let spec = &specs[source];
            let expected = exact.charge(&specs, source, now);
            if line::untidy(&line, now, patience) {
                line::tidy(&line, now);
            }
            // The way of nearly every packet, which looks only for a cell that is there, and the way of all others.
            let other = line.copy();
            prop_assert_eq!(
                charge_untidied(&line, &OneSpec, spec, hash(source), now, 1), expected,
                "source {} at {} after {:?}: {:?}", source, now, gap, line
            );
            let amount = Amount::new(1, true);
            prop_assert_eq!(line::charge_once(&other, &OneSpec, spec, hash(source), now, amount), expected);
            prop_assert_eq!(other.words(), line.words(), "source {} at {}", source, now);
            if strikes < 3 {
                let block = Block { id: 2, drops: 2, within: 100, reserved: 0, for_ns: HOUR };
                line::strike_once(&line, &block, hash(usize::from(strikes)), now, true);
            }
        }
    }

    /// Drop counts and blocks of one source, on any schedule, against a count without wrapping.
    #[test]
    fn strikes_and_blocks_agree_with_an_exact_count(
        drops in 1u32..6,
        within_seconds in 1u64..=3_600,
        for_seconds in 1u64..=86_400,
        schedule in prop::collection::vec(prop_oneof![
            6 => 0u64..SECOND,
            3 => 0u64..HOUR,
            1 => 0u64..48 * HOUR,
            1 => 0u64..5 * YEAR,
        ], 1..200),
        start in 0u64..YEAR,
    ) {
        let block = Block {
            id: 2,
            drops,
            within: (within_seconds * SECOND).div_ceil(1 << cell::STRIKE_SHIFT) as u32,
            reserved: 0,
            for_ns: for_seconds * SECOND,
        };
        let line = HostLine::default();
        let (mut since, mut counted, mut until) = (0u64, 0u32, 0u64);
        let mut now = start;
        for gap in schedule {
            now += gap;
            prop_assume!(now < 250 * YEAR);
            if line::untidy(&line, now, line::MOST_PATIENCE) {
                line::tidy(&line, now);
            }
            let blocked = now >> cell::BLOCK_SHIFT < until >> cell::BLOCK_SHIFT;
            prop_assert_eq!(line::blocked(&line, &block, hash(0), now) == Blocked::Whole, blocked, "at {} until {}", now, until);
            let expected = if blocked {
                Strike::Counted
            } else {
                let tick = now >> cell::STRIKE_SHIFT;
                if counted == 0 || tick - since > u64::from(block.within) {
                    (since, counted) = (tick, 0);
                }
                counted += 1;
                if counted == drops {
                    (counted, until) = (0, now + block.for_ns);
                    Strike::Started
                } else {
                    Strike::Counted
                }
            };
            prop_assert_eq!(line::strike_once(&line, &block, hash(0), now, true), expected, "at {}", now);
        }
    }
}

#[test]
fn a_newcomer_to_a_line_full_of_debtors_gets_full() {
    let line = HostLine::default();
    let spec = packets(1, 10, 2);
    for source in 0..WORDS - 1 {
        assert_eq!(
            charge(&line, &OneSpec, &spec, hash(source), SECOND, 1),
            Charge::Admitted
        );
    }
    let before = line.words();
    assert_eq!(charge(&line, &OneSpec, &spec, hash(20), SECOND, 1), Charge::Full);
    assert_eq!(line.words(), before, "a newcomer changed a line full of debtors");
    // The debtors are still held to their own buckets.
    assert_eq!(
        charge(&line, &OneSpec, &spec, hash(0), SECOND, 1),
        Charge::Admitted
    );
    assert_eq!(
        charge(&line, &OneSpec, &spec, hash(0), SECOND, 1),
        Charge::Refused
    );
}

#[test]
fn a_drained_cell_is_used_again() {
    let line = HostLine::default();
    let spec = packets(1, 10, 2);
    for source in 0..WORDS - 1 {
        charge(&line, &OneSpec, &spec, hash(source), SECOND, 1);
    }
    // One packet at 10/s is repaid after 0.1 s, a unit more or less.
    let repaid = SECOND + SECOND / 10;
    assert_eq!(
        charge(&line, &OneSpec, &spec, hash(20), repaid - SECOND / 1_000, 1),
        Charge::Full
    );
    assert_eq!(
        charge(&line, &OneSpec, &spec, hash(20), repaid + SECOND / 1_000, 1),
        Charge::Admitted
    );
}

#[test]
fn strikes_yield_before_blocks_and_blocks_before_debts() {
    let line = HostLine::default();
    let spec = packets(1, 1, 10);
    let now = 5 * SECOND;
    let block = |drops| Block {
        id: 2,
        drops,
        within: 100,
        reserved: 0,
        for_ns: HOUR,
    };
    for source in 0..3 {
        assert_eq!(
            line::strike_once(&line, &block(1), hash(source), now, true),
            Strike::Started
        );
    }
    for source in 3..5 {
        assert_eq!(
            line::strike_once(&line, &block(9), hash(source), now, true),
            Strike::Counted
        );
    }
    for source in 5..7 {
        assert_eq!(
            charge(&line, &OneSpec, &spec, hash(source), now, 1),
            Charge::Admitted
        );
    }
    let count = |wanted: Use| {
        line.words()[1..]
            .iter()
            .filter(|held| cell::used(**held, now, 0) == wanted)
            .count()
    };
    let mut seen = vec![(count(Use::Strikes), count(Use::Block), count(Use::Debt))];
    for source in 10..15 {
        assert_eq!(
            charge(&line, &OneSpec, &spec, hash(source), now, 1),
            Charge::Admitted
        );
        seen.push((count(Use::Strikes), count(Use::Block), count(Use::Debt)));
    }
    assert_eq!(
        seen,
        [(2, 3, 2), (1, 3, 3), (0, 3, 4), (0, 2, 5), (0, 1, 6), (0, 0, 7)]
    );
    assert_eq!(charge(&line, &OneSpec, &spec, hash(15), now, 1), Charge::Full);
}

#[test]
fn a_drop_count_takes_nobodys_place() {
    let line = HostLine::default();
    let spec = packets(1, 1, 10);
    for source in 0..WORDS - 1 {
        charge(&line, &OneSpec, &spec, hash(source), SECOND, 1);
    }
    let before = line.words();
    let block = Block {
        id: 2,
        drops: 1,
        within: 1,
        reserved: 0,
        for_ns: HOUR,
    };
    assert_eq!(
        line::strike_once(&line, &block, hash(20), SECOND, true),
        Strike::Counted
    );
    assert_eq!(line.words(), before);
}

#[test]
fn so_many_drops_start_a_block_and_it_lasts_its_time() {
    let block = Block {
        id: 2,
        drops: 1_000,
        within: (10 * SECOND).div_ceil(1 << cell::STRIKE_SHIFT) as u32,
        reserved: 0,
        for_ns: 30 * SECOND,
    };
    let line = HostLine::default();
    let now = 7 * HOUR + 123_456_789;
    for _ in 1..block.drops {
        assert_eq!(
            line::strike_once(&line, &block, hash(0), now, true),
            Strike::Counted
        );
        assert_eq!(line::blocked(&line, &block, hash(0), now), Blocked::Nothing);
    }
    assert_eq!(
        line::strike_once(&line, &block, hash(0), now, true),
        Strike::Started
    );
    let end = now + block.for_ns;
    assert_eq!(line::blocked(&line, &block, hash(0), now), Blocked::Whole);
    assert_eq!(
        line::blocked(&line, &block, hash(0), end - (1 << cell::BLOCK_SHIFT)),
        Blocked::Whole
    );
    assert_eq!(line::blocked(&line, &block, hash(0), end), Blocked::Nothing);
    assert!(
        line::blocked(&line, &block, hash(1), now) == Blocked::Nothing,
        "another source is blocked too"
    );
    // Nine hundred and ninety-nine drops, and the thousandth too late: the count begins anew.
    let later = end + HOUR;
    line::tidy(&line, later);
    for _ in 1..block.drops {
        assert_eq!(
            line::strike_once(&line, &block, hash(0), later, true),
            Strike::Counted
        );
    }
    let too_late = later + 11 * SECOND;
    assert_eq!(
        line::strike_once(&line, &block, hash(0), too_late, true),
        Strike::Counted
    );
    assert_eq!(line::blocked(&line, &block, hash(0), too_late), Blocked::Nothing);
}

/// The longest policy allows: 250,000 drops and an hour fit a drop count.
#[test]
fn the_policys_longest_counts_fit_a_cell() {
    const { assert!(cell::MAX_DROPS >= 250_000) };
    assert!(cell::MAX_WITHIN >= (3_600 * SECOND).div_ceil(1 << cell::STRIKE_SHIFT));
    let line = HostLine::default();
    let block = Block {
        id: 2,
        drops: 250_000,
        within: (3_600 * SECOND).div_ceil(1 << cell::STRIKE_SHIFT) as u32,
        reserved: 0,
        for_ns: 86_400 * SECOND,
    };
    let (mut now, mut started) = (SECOND, None);
    for strike in 1..=block.drops {
        line::tidy(&line, now);
        if line::strike_once(&line, &block, hash(0), now, true) == Strike::Started {
            started = Some(strike);
        }
        now += 3_590 * SECOND / 250_000;
    }
    assert_eq!(started, Some(block.drops));
    assert_eq!(
        line::blocked(&line, &block, hash(0), now + 86_390 * SECOND),
        Blocked::Whole
    );
    assert_eq!(
        line::blocked(&line, &block, hash(0), now + 86_400 * SECOND),
        Blocked::Nothing
    );
}

/// The specs of a bucket before and after its rate was changed.
struct TwoSpecs([Spec; 2]);

impl line::Versions for TwoSpecs {
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        self.0
            .iter()
            .find(|spec| spec.id() == id && spec.version() == version)
            .copied()
    }
}

#[test]
fn a_changed_rate_keeps_the_debt_of_a_source() {
    let old = packets(1, 100, 1_000);
    let new = packets(1, 7, 800).of_bucket(1, 1);
    let versions = TwoSpecs([old, new]);
    let line = HostLine::default();
    for _ in 0..600 {
        assert_eq!(
            charge(&line, &versions, &old, hash(0), SECOND, 1),
            Charge::Admitted
        );
    }
    // 600 tokens of debt and a depth of 800: 200 more, and the truncation of a conversion lets none through.
    let admitted = (0..400)
        .filter(|_| charge(&line, &versions, &new, hash(0), SECOND, 1) == Charge::Admitted)
        .count();
    assert_eq!(admitted, 200);
    let smaller = packets(1, 7, 100).of_bucket(1, 2);
    let versions = TwoSpecs([new, smaller]);
    // A debt above the new burst is cut to it: the next packet waits for one refill, not for seven hundred.
    assert_eq!(
        charge(&line, &versions, &smaller, hash(0), SECOND, 1),
        Charge::Refused
    );
    assert_eq!(
        charge(&line, &versions, &smaller, hash(0), SECOND + SECOND / 6, 1),
        Charge::Admitted
    );
}

/// A source whose cell would begin with zeros in its tag, unit and version, at a moment at which a time of zero looks like a debt: a free cell is
/// not taken for its own.
#[test]
fn a_free_cell_is_nobodys() {
    let spec = packets(1, 100_000_000, 100);
    assert_eq!((spec.exponent(), spec.version()), (0, 0), "the finest unit");
    let hash = u64::from(spec.id());
    assert_eq!(cell::tag(hash, spec.id()), 0);
    // All but a little of a cell's range: zero lies ahead, by half a packet more than half the depth.
    let now = (((1 << cell::TIME_BITS) - spec.depth / 2) >> FINEST) - 5;
    let line = HostLine::default();
    for packet in 0..100 {
        assert_eq!(
            charge_untidied(&line, &OneSpec, &spec, hash, now, 1),
            Charge::Admitted,
            "packet {packet}"
        );
    }
    assert_eq!(
        charge_untidied(&line, &OneSpec, &spec, hash, now, 1),
        Charge::Refused
    );
}
