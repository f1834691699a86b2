//! Properties of one bucket: units fit every rate and burst of the policy, rates and bursts are as exact as promised,
//! and the wrapped arithmetic decides like an exact model on any clock.

use gateway_core::bucket::{
    cell, gcra,
    spec::{FINEST, FRACTION, Home, Kind, MIN_CHARGE, SHARED_DEPTH, SMALLEST, Spec, TAGGED_DEPTH},
};
use gateway_core::image::BUCKETS;
use proptest::prelude::*;

/// The smallest frame lengths that matter, and a super-frame of generic mode.
const LENGTHS: [u32; 8] = [34, 35, 60, 64, 100, 1_514, 9_014, 65_549];

/// Numbers of a range, evenly over their orders of magnitude, the ends among them.
fn magnitudes(from: u64, to: u64) -> impl Strategy<Value = u64> {
    let bits = from.ilog2()..=to.ilog2();
    let any = bits
        .prop_flat_map(|bits| 1u64 << bits..=(1 << bits) - 1 + (1 << bits))
        .prop_map(move |number| number.clamp(from, to));
    prop_oneof![8 => any, 1 => Just(from), 1 => Just(to)]
}

/// A limit that a policy may state, for every kind and table.
fn limits() -> impl Strategy<Value = (Kind, Home, u64, u64)> {
    let counted = |kind| {
        prop_oneof![
            (magnitudes(1, 100_000_000), magnitudes(1, 8_000_000)).prop_map(move |(rate, burst)| (
                kind,
                Home::Tagged,
                rate,
                burst
            )),
            (magnitudes(1, 100_000_000), magnitudes(1, 1_000_000_000)).prop_map(move |(rate, burst)| (
                kind,
                Home::Shared,
                rate,
                burst
            )),
        ]
    };
    let bytes = prop_oneof![
        (magnitudes(1_000, 50_000_000_000), magnitudes(1_514, 250_000_000)).prop_map(|(rate, burst)| (
            Kind::Bytes,
            Home::Tagged,
            rate,
            burst
        )),
        (
            magnitudes(1_000, 50_000_000_000),
            magnitudes(1_514, 1_000_000_000_000)
        )
            .prop_map(|(rate, burst)| (Kind::Bytes, Home::Shared, rate, burst)),
    ];
    prop_oneof![counted(Kind::Packets), counted(Kind::Connections), bytes]
}

/// What a cell holds of its bucket is what was put into it, from the half that is the source's and the half that is the spec's.
#[test]
fn a_cell_says_whose_it_is_and_by_which_spec() {
    let units = [(1, 1), (1_000, 10), (100_000_000, 100), (1_000_000, 1_000_000)];
    for (rate, burst) in units {
        let spec = Spec::new(Kind::Packets, Home::Tagged, rate, burst).expect("within the policy's bounds");
        for id in [1, 2, 127, 128, 0x5555, BUCKETS - 1] {
            for version in 0..4 {
                let spec = spec.of_bucket(id, version);
                assert_eq!((spec.id(), spec.version()), (id, version));
                for hash in [
                    0,
                    1,
                    u64::from(id),
                    0x1f_ffff,
                    0x20_0000,
                    0x0123_4567_89ab_cdef,
                    u64::MAX,
                ] {
                    for time in [0, 1, cell::TIME_MASK] {
                        let held = cell::bucket(cell::label(hash, spec.label()), time);
                        assert_eq!(cell::tag_of(held), cell::tag(hash, id));
                        assert_eq!(cell::exponent_of(held), u64::from(spec.exponent()));
                        assert_eq!(cell::version_of(held), version);
                        assert_eq!(held & cell::TIME_MASK, time);
                    }
                }
            }
        }
    }
}

/// So many random cases; a failing one is printed, not kept in a file.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn mask(home: Home) -> u64 {
    match home {
        Home::Tagged => cell::TIME_MASK,
        Home::Shared => cell::SHARED_MASK,
    }
}

/// What one packet of `length` bytes (or one packet, or one connection) weighs in tokens.
fn tokens(kind: Kind, length: u32) -> u32 {
    if kind == Kind::Bytes { length } else { 1 }
}

/// Whether the long-run rate of packets that weigh `amount` tokens is within a thousandth of `rate`: the bucket's
/// units of a second, against the units that `rate` tokens cost.
fn within_a_thousandth(spec: &Spec, rate: u64, amount: u32) -> bool {
    let second = (1_000_000_000u128 << spec.left) * u128::from(amount);
    let charged = (u128::from(rate) * u128::from(spec.charge(amount))) << spec.right;
    second.abs_diff(charged) * 1_000 <= charged
}

#[test]
fn the_corners_of_the_policy_fit_and_keep_their_rate() {
    for (kind, rates, tagged, shared) in [
        (
            Kind::Packets,
            [1, 3, 1_000, 100_000_000],
            [1, 2, 8_000_000],
            [1, 1_000_000, 1_000_000_000],
        ),
        (
            Kind::Connections,
            [1, 3, 1_000, 100_000_000],
            [1, 2, 8_000_000],
            [1, 1_000_000, 1_000_000_000],
        ),
        (
            Kind::Bytes,
            [1_000, 1_001, 125_000_000, 50_000_000_000],
            [1_514, 8_000_000, 250_000_000],
            [1_514, 1_000_000_000, 1_000_000_000_000],
        ),
    ] {
        for rate in rates {
            for (home, bursts) in [(Home::Tagged, tagged), (Home::Shared, shared)] {
                for burst in bursts {
                    let spec = Spec::new(kind, home, rate, burst)
                        .unwrap_or_else(|unfit| panic!("{kind:?} {home:?} {rate} {burst}: {unfit}"));
                    for length in LENGTHS {
                        assert!(
                            within_a_thousandth(&spec, rate, tokens(kind, length)),
                            "{kind:?} {home:?} {rate} {burst}, {length} bytes: {spec:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_time_of_a_total_wraps_after_hours_at_the_least() {
    const HOUR: u64 = 3_600_000_000_000;
    let wraps_ns = |kind, rate| {
        let spec = Spec::new(kind, Home::Shared, rate, 1_000_000).expect("within the policy's bounds");
        (cell::SHARED_MASK >> spec.left) << spec.right
    };
    assert!(wraps_ns(Kind::Bytes, 50_000_000_000) >= 19 * HOUR);
    assert!(wraps_ns(Kind::Bytes, 1_000_000_000) >= 3 * 24 * HOUR);
    assert!(wraps_ns(Kind::Packets, 100_000_000) >= 26 * 24 * HOUR);
    assert!(wraps_ns(Kind::Packets, 1_000_000) >= 4 * 365 * 24 * HOUR);
}

#[test]
fn no_rate_and_no_burst_are_refused() {
    for home in [Home::Tagged, Home::Shared] {
        assert!(Spec::new(Kind::Packets, home, 0, 1).is_err());
        assert!(Spec::new(Kind::Packets, home, 1, 0).is_err());
        assert!(Spec::new(Kind::Packets, home, 1, u64::MAX).is_err());
        assert!(Spec::new(Kind::Bytes, home, 1_000, u64::MAX).is_err());
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn every_limit_of_a_policy_fits((kind, home, rate, burst) in limits()) {
        let spec = Spec::new(kind, home, rate, burst);
        prop_assert!(spec.is_ok());
        let spec = spec.expect("just checked");
        let deepest = match home { Home::Tagged => TAGGED_DEPTH, Home::Shared => SHARED_DEPTH };
        prop_assert!(spec.depth <= deepest && spec.depth > 0);
        // Clocks may lag by 8 ms even in the finest unit of the source table.
        prop_assert!((spec.window - spec.depth) << spec.right >> spec.left >= 8_000_000, "{:?}", spec);
        // An admitted charge ends within the depth, and depth and slack lie within half of the range: "ahead" is
        // never ambiguous.
        prop_assert!(spec.window <= mask(home) / 2);
        if home == Home::Tagged {
            prop_assert!(spec.exponent() <= 30);
            prop_assert_eq!(u32::from(spec.exponent()) + u32::from(spec.left), FINEST + u32::from(spec.right));
        }
        let smallest = if kind == Kind::Bytes { SMALLEST as u32 } else { 1 };
        prop_assert!(spec.charge(smallest) >= MIN_CHARGE);
    }

    #[test]
    fn the_long_run_rate_is_within_a_thousandth(
        (kind, home, rate, burst) in limits(),
        length in 34u32..=65_549,
    ) {
        let spec = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        for length in LENGTHS.into_iter().chain([length]) {
            prop_assert!(within_a_thousandth(&spec, rate, tokens(kind, length)), "{:?} {} bytes", spec, length);
        }
    }

    #[test]
    fn a_full_bucket_admits_its_burst_to_the_token(
        (kind, home, rate, burst) in limits(),
        length in 34u32..=9_014,
        start in any::<u64>(),
    ) {
        let spec = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        let mask = mask(home);
        let amount = tokens(kind, length);
        let cost = spec.charge(amount);
        let now = spec.clock(start);
        // The first and last of a back-to-back burst; those between differ by their charge only.
        let most = burst / u64::from(amount);
        let admitted = spec.depth / cost;
        if spec.fraction == 0 {
            prop_assert_eq!(admitted, most, "{:?}", spec);
        } else {
            // Each packet is charged up to one unit less than it costs: one in the units that it costs, no more.
            prop_assert!(admitted >= most);
            prop_assert!(admitted <= most + most / (cost - 1).max(1) + 1, "{} {} {:?}", admitted, most, spec);
        }
        if admitted > 0 {
            let before = (admitted - 1) * cost;
            let time = now.wrapping_add(before) & mask;
            let last = gcra::charge(time, mask, now, cost, spec.depth, spec.window);
            prop_assert_eq!(last, Some(now.wrapping_add(before + cost) & mask));
        }
        let full = now.wrapping_add(admitted * cost) & mask;
        prop_assert_eq!(gcra::charge(full, mask, now, cost, spec.depth, spec.window), None);
    }
}

/// An exact bucket: unbounded integers, no wrapping, the clock as it is.
struct Exact {
    full_at: i128,
    depth: i128,
}

impl Exact {
    fn admits(&mut self, now: i128, cost: i128) -> bool {
        let after = (self.full_at - now).max(0) + cost;
        if after > self.depth {
            return false;
        }
        self.full_at = now + after;
        true
    }
}

/// What the clock does between two packets.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It stands still.
    Still,
    /// It runs on, in sixteenths of the time that one packet takes to refill.
    On(u64),
    /// It jumps ahead, in 1/256 of half the range.
    Jump(u64),
    /// Another CPU's clock: behind the latest by that many 1/256 of the slack.
    Behind(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Still),
        6 => (0u64..64).prop_map(Step::On),
        1 => (0u64..256).prop_map(Step::Jump),
        3 => (0u64..=256).prop_map(Step::Behind),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(cases(1_500))]

    /// Also with clocks that stand still, jump and run out of order between CPUs, and across the wrap of the time.
    #[test]
    fn the_wrapped_bucket_decides_like_the_exact_one(
        (kind, home, rate, burst) in limits(),
        steps in steps(),
        length in 34u32..=1_514,
        wraps in 1u64..1 << 20,
        before in 0u64..1 << 14,
    ) {
        let spec = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        let mask = mask(home);
        let cost = spec.charge(tokens(kind, length));
        // Starts just before the cell's time wraps, for the `wraps`th time.
        let range = i128::from(mask) + 1;
        let start = i128::from(wraps) * range - i128::from(cost) * i128::from(before) / 16;
        let slack = i128::from(spec.window - spec.depth);
        let (mut latest, mut time) = (start, (start.rem_euclid(range)) as u64);
        let mut exact = Exact { full_at: start, depth: i128::from(spec.depth) };
        let mut admitted = 0i128;
        let mut earliest = start;
        for step in steps {
            let mut now = latest;
            match step {
                Step::Still => {}
                Step::On(sixteenths) => now += i128::from(cost) * i128::from(sixteenths) / 16,
                Step::Jump(part) => now += range / 2 * i128::from(part) / 256 - i128::from(spec.window) / 2,
                Step::Behind(part) => now -= slack * i128::from(part) / 256,
            }
            let now = now.max(latest - slack);
            latest = latest.max(now);
            earliest = earliest.min(now);
            // The kernel's clock has 64 bits, the cell fewer.
            let clock = now.rem_euclid(1 << 64) as u64;
            let decided = gcra::charge(time, mask, clock, cost, spec.depth, spec.window);
            let expected = exact.admits(now, i128::from(cost));
            prop_assert_eq!(decided.is_some(), expected, "{:?} at {}", spec, now);
            if let Some(new) = decided {
                time = new;
                admitted += i128::from(cost);
                prop_assert_eq!(i128::from(time), exact.full_at.rem_euclid(range));
            }
            // Never more than rate × time + burst.
            prop_assert!(admitted <= i128::from(spec.depth) + latest - earliest);
        }
    }

    #[test]
    fn an_overloaded_bucket_passes_its_rate(
        (kind, home, rate, burst) in limits(),
        length in 34u32..=1_514,
        start in 0u64..1 << 50,
    ) {
        let spec = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        let mask = mask(home);
        let cost = spec.charge(tokens(kind, length));
        // A bucket of one packet is full, and idle, until the next one comes: it passes less, as it should.
        prop_assume!(2 * cost <= spec.depth);
        // Offered about ten times the limit, on a clock that the bucket cannot see whole units of.
        let step_ns = ((u128::from(cost) << spec.right >> spec.left) / 10) as u64;
        prop_assume!(step_ns > 0);
        let mut time = spec.clock(start) & mask;
        let mut used = 0u128;
        let packets = 20_000u64;
        for packet in 0..packets {
            let now = spec.clock(start + packet * step_ns);
            if let Some(new) = gcra::charge(time, mask, now, cost, spec.depth, spec.window) {
                time = new;
                used += u128::from(cost);
            }
        }
        let elapsed = u128::from(spec.clock(start + (packets - 1) * step_ns) - spec.clock(start));
        let allowed = u128::from(spec.depth) + elapsed;
        prop_assert!(used <= allowed);
        let offered = u128::from(packets) * u128::from(cost);
        prop_assert!(used + 2 * u128::from(cost) >= allowed.min(offered), "{} of {}", used, allowed);
    }
}

/// A debt of `debt` units under `old` in exact tokens times 2⁶⁴, and back in units of `new`.
fn exact_conversion(debt: u64, old: &Spec, new: &Spec) -> u128 {
    let scale = |spec: &Spec| u128::from(spec.cost) << (FRACTION - u32::from(spec.fraction));
    u128::from(debt) * scale(new) / scale(old)
}

proptest! {
    #![proptest_config(cases(6_000))]

    /// A changed rate or burst keeps the debt in tokens, cut by at most a part in 2²⁹ and a unit, and at most the new depth.
    #[test]
    fn a_changed_limit_keeps_the_debt_in_tokens(
        (kind, home, rate, burst) in limits(),
        seed in (any::<u64>(), any::<u64>()),
        part in 0u64..=1_000_000,
    ) {
        let old = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        // Another limit within the same bounds, whatever the first one was.
        let (rates, bursts) = match (kind, home) {
            (Kind::Bytes, Home::Tagged) => ((1_000, 50_000_000_000), (1_514, 250_000_000)),
            (Kind::Bytes, Home::Shared) => ((1_000, 50_000_000_000), (1_514, 1_000_000_000_000)),
            (_, Home::Tagged) => ((1, 100_000_000), (1, 8_000_000)),
            (_, Home::Shared) => ((1u64, 100_000_000u64), (1u64, 1_000_000_000u64)),
        };
        let pick = |seed: u64, (from, to): (u64, u64)| (seed >> (seed % 60)).clamp(from, to);
        let new = Spec::new(kind, home, pick(seed.0, rates), pick(seed.1, bursts)).expect("within the policy's bounds");
        let debt = (u128::from(old.depth) * u128::from(part) / 1_000_000) as u64;
        let exact = exact_conversion(debt, &old, &new).min(u128::from(new.depth));
        let converted = u128::from(new.convert(debt, &old));
        prop_assert!(converted <= u128::from(new.depth));
        prop_assert!(
            converted <= exact && exact - converted <= (exact >> 29) + 1,
            "{} units became {}, exactly {}: {:?} to {:?}", debt, converted, exact, old, new
        );
    }

    /// Whatever stands in a cell, a conversion ends within the new depth.
    #[test]
    fn a_conversion_never_exceeds_the_new_depth(
        (kind, home, rate, burst) in limits(),
        (old_kind, old_home, old_rate, old_burst) in limits(),
        debt in 0u64..1 << 59,
    ) {
        let new = Spec::new(kind, home, rate, burst).expect("within the policy's bounds");
        let old = Spec::new(old_kind, old_home, old_rate, old_burst).expect("within the policy's bounds");
        prop_assert!(new.convert(debt, &old) <= new.depth);
        prop_assert_eq!(new.convert(0, &old), 0);
    }
}
