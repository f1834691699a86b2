//! Leases of a total under any traffic: several CPUs with slots of their own, any times, changes of the limit.

mod common;
#[path = "common/totals.rs"]
mod totals;

use std::cell::Cell;

use common::{SECOND, cases};
use gateway_core::{
    bucket::{cell, spec::Kind},
    judge::Shared as _,
    lease::{self, FEWEST, LONGEST_NS, NoLeases, SLOTS},
    limit,
    line::Charge,
};
use proptest::prelude::*;
use totals::{Cell64, Cpu, ID, Known, budget, charge, kept, total};

/// A bucket without wrapping, cells or leases.
struct Exact {
    full_at: u64,
    depth: u64,
}

impl Exact {
    /// Whether it admits; `open`: how deep at most.
    fn admits(&mut self, now: u64, cost: u64, open: u64) -> bool {
        let debt = self.full_at.saturating_sub(now);
        let admitted = debt + cost <= open.min(self.depth);
        if admitted {
            self.full_at = now + debt + cost;
        }
        admitted
    }

    /// Charges what was admitted elsewhere; whether that conforms.
    fn conforms(&mut self, now: u64, cost: u64) -> bool {
        self.admits(now, cost, self.depth)
    }
}

/// A packet: on which CPU, how long after the one before (ns), how large.
type Arrival = (usize, u64, u32);

/// Traffic in which leases are taken, rest, and meet a bucket that has filled up meanwhile or is being emptied: runs of packets on one or two
/// CPUs, spaced by parts of the time in which a packet's worth is refilled, pauses up to some leases' lives, and floods that leave nothing.
fn traffic(rate: u64, runs: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let refill_ns = SECOND / rate;
    let gap = prop_oneof![
        3 => Just(0u64),
        3 => 0..refill_ns + 1,
        3 => refill_ns..refill_ns * 2 + 1,
        2 => refill_ns * 2..refill_ns * 20 + 1,
    ];
    let pause = prop_oneof![
        4 => Just(0u64),
        3 => 0u64..500_000,
        3 => 0u64..5_000_000,
        1 => LONGEST_NS - 3..LONGEST_NS + 3,
        1 => 0u64..40_000_000,
    ];
    let many = prop_oneof![1 => 1usize..20, 4 => 20usize..400, 2 => 1_000usize..4_000];
    let run = (0usize..8, 0usize..8, gap, pause, many, 64u32..1_500);
    prop::collection::vec(run, 1..runs).prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(one, other, gap, pause, many, length)| {
                (0..many).map(move |at| {
                    let cpu = if at % 2 == 0 { one } else { other };
                    (cpu, if at == 0 { pause } else { gap }, length)
                })
            })
            .collect()
    })
}

/// A limit that is large enough for leases and whose burst a test can empty, with traffic for it.
fn tried(runs: usize) -> impl Strategy<Value = (Kind, u64, u64, Vec<Arrival>)> {
    // Bytes: packets of some 780.
    let limit = (any::<bool>(), 60_000u64..10_000_000, 256u64..3_000);
    limit.prop_flat_map(move |(bytes, rate, burst)| {
        let (kind, scale) = if bytes {
            (Kind::Bytes, 780)
        } else {
            (Kind::Packets, 1)
        };
        traffic(rate, runs).prop_map(move |traffic| (kind, rate * scale, burst * scale, traffic))
    })
}

/// What a packet asks of a bucket.
fn amount(kind: Kind, length: u32) -> u32 {
    if kind == Kind::Bytes { length } else { 1 }
}

/// A CPU that must leave its slot alone, in all but looking.
fn holding(lease: lease::Lease, others: usize) -> Cpu {
    let cpu = Cpu::of(others + 1);
    cpu.slot.set(lease);
    cpu
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Who is refused at sight, the whole charge would have refused, in the same way, and it would have changed nothing; and who is not is not
    /// refused by the whole one either, unless the cell is of another limit.
    #[test]
    fn a_total_refuses_at_sight_only_what_it_refuses(
        (rate, burst) in (1u64..10_000_000, 1u64..100_000),
        (share, slack) in (0u64..1_200, 0u64..3),
        now_ns in SECOND..1_000_000 * SECOND,
        (open, version, others) in (0u32..3, 0u8..4, 0usize..8),
        held in (any::<bool>(), 0u64..40_000_000, 0u64..20_000_000, any::<u32>(), any::<u32>()),
    ) {
        let mut spec = total(Kind::Packets, rate, burst, 1);
        let stranger = if open == 0 { spec.depth } else { (spec.depth / 2).max(spec.charge(1)) };
        spec.leased = lease::shift(spec.depth, stranger);
        let open = if open == 2 { spec.depth } else { stranger };
        // From no debt to more than there can be, and exactly what just fits and just does not.
        let debt = match share {
            1_100.. => (open - spec.charge(1)).saturating_add(slack).saturating_sub(1),
            _ => spec.depth / 1_000 * share,
        };
        let time = spec.clock(now_ns).wrapping_add(debt) & cell::SHARED_MASK;
        let full_at = u64::from(version) << 62 | time;
        let (shared, known) = (Cell64::default(), Known::default());
        prop_assert!(shared.swap(0, full_at) || full_at == 0);
        let lease = lease::Lease {
            bucket: if held.0 { u64::from(spec.label()) } else { 0 },
            until_ns: now_ns - 20_000_000 + held.1,
            // No lease pays: that is asked before.
            left: 0,
            charged: u64::from(held.3),
            lost: u64::from(held.4),
        };
        let (seeing, whole) = (holding(lease, others), holding(lease, others));
        let called = Cell::new(false);
        let at_sight = limit::charge_shared(&&seeing, &spec, now_ns, 1, || open, || Some(&shared), |_, _| {
            called.set(true);
            Charge::Lost
        });
        prop_assert_eq!(shared.get(), full_at);
        prop_assert_eq!(seeing.slot.get(), lease);
        let charged = limit::shared_once(&&shared, &known, &&whole, &spec, now_ns, 1, open);
        let refused = matches!(charged, Charge::Refused | Charge::Reserved);
        if !called.get() {
            prop_assert_eq!(at_sight, charged);
            prop_assert!(refused, "{:?}", charged);
            prop_assert_eq!(shared.get(), full_at);
            prop_assert_eq!(whole.slot.get(), lease);
        } else if version == spec.version() {
            prop_assert!(!refused, "{:?} was not seen", charged);
        }
    }
}

proptest! {
    #![proptest_config(cases(600))]

    /// Whatever passes conforms to the bucket without leases; whatever is refused, a bucket whose burst is smaller by
    /// (CPUs − 1) leases refuses too.
    #[test]
    fn a_leased_total_lies_between_its_burst_and_one_smaller_by_a_lease_for_each_other_cpu(
        cpus in 2usize..9,
        (kind, rate, burst, arrivals) in tried(40),
        strangers in 0u32..3,
    ) {
        let mut spec = total(kind, rate, burst, 0);
        if strangers != 0 {
            spec.leased = lease::shift(spec.depth, spec.depth / 2);
        }
        let (shared, known) = (Cell64::default(), Known::default());
        let slots: Vec<Cpu> = (0..cpus).map(|_| Cpu::of(cpus)).collect();
        let leases = Cell::new(0u32);
        let mut exact = Exact { full_at: 0, depth: spec.depth };
        let mut now_ns = 1_000 * SECOND;
        for (cpu, gap, length) in arrivals {
            now_ns += gap;
            let amount = amount(kind, length);
            let (now, cost) = (spec.clock(now_ns), spec.charge(amount));
            // Nobody is a stranger, everybody, or every other packet's sender.
            let open = if strangers == 1 || strangers == 2 && length % 2 == 0 { spec.depth / 2 } else { spec.depth };
            let debt = exact.full_at.saturating_sub(now);
            let cpu = &slots[cpu % cpus];
            let held = cpu.slot.get().left;
            let charged = charge(&shared, &known, &cpu, &spec, now_ns, amount, open);
            let lease = cpu.slot.get();
            let owed = limit::shared_debt(shared.get(), &known, &spec, now_ns);
            if lease.left > held {
                // One was taken: by how much, for how long, and what it leaves.
                prop_assert!(owed <= spec.depth / if strangers == 0 { 2 } else { 4 }, "{owed} owed after a lease");
                prop_assert!(lease.left + lease.lost <= budget(&spec) && lease.left >= FEWEST * cost);
                prop_assert!(lease.until_ns - now_ns <= LONGEST_NS);
                leases.set(leases.get() + 1);
            }
            if charged == Charge::Admitted {
                prop_assert!(exact.conforms(now, cost), "admitted beyond the burst: {debt} + {cost} of {}", spec.depth);
            } else {
                prop_assert!(
                    debt + cost + kept(&spec, cpus) > open,
                    "refused at {debt} + {cost} of {open}, {} may be kept", kept(&spec, cpus)
                );
            }
            // Whatever nobody has used, beyond the floor, some CPU knows to be lost, or holds.
            let unused = owed.saturating_sub(exact.full_at.saturating_sub(now));
            let known: u64 = slots.iter().map(|cpu| cpu.slot.get()).map(|lease| lease.left + lease.lost).sum();
            let floor = kept(&spec, cpus) - cpus as u64 * budget(&spec);
            prop_assert!(unused <= floor + known, "{unused} charged and not used, {known} known beyond {floor}");
        }
    }

    /// Two totals whose numbers have the same slot take it from each other in turns: neither admits more for it, nor less than its leases.
    #[test]
    fn totals_that_share_a_slot_know_what_they_have_lost(
        cpus in 2usize..9,
        (kind, rate, burst, arrivals) in tried(80),
    ) {
        let specs = [ID, ID + SLOTS].map(|id| total(kind, rate, burst, 0).of_bucket(id, 0));
        let (shared, known) = ([Cell64::default(), Cell64::default()], Known::default());
        let slots: Vec<Cpu> = (0..cpus).map(|_| Cpu::of(cpus)).collect();
        let mut exact = specs.map(|spec| Exact { full_at: 0, depth: spec.depth });
        let mut now_ns = 1_000 * SECOND;
        for (cpu, gap, length) in arrivals {
            now_ns += gap;
            // The packets of a run are of one length, and so of one total.
            let at = length as usize % 2;
            let (spec, amount) = (&specs[at], amount(kind, length));
            let (now, cost) = (spec.clock(now_ns), spec.charge(amount));
            let debt = exact[at].full_at.saturating_sub(now);
            let charged = charge(&shared[at], &known, &&slots[cpu % cpus], spec, now_ns, amount, spec.depth);
            if charged == Charge::Admitted {
                prop_assert!(exact[at].conforms(now, cost), "admitted beyond the burst: {debt} + {cost} of {}", spec.depth);
            } else {
                prop_assert!(debt + cost + kept(spec, cpus) > spec.depth, "refused at {debt} + {cost} of {}", spec.depth);
            }
        }
    }

    /// Of packets that are alike, no prefix has more that pass than without leases, and none has fewer than without leases from a
    /// burst that is smaller by (CPUs − 1) leases.
    #[test]
    fn every_prefix_lies_between_those_of_the_burst_and_of_one_smaller_by_the_leases_of_the_others(
        cpus in 1usize..9,
        (kind, rate, burst, arrivals) in tried(40),
    ) {
        let spec = total(kind, rate, burst, 0);
        let amount = amount(kind, 780);
        let (shared, without, smaller, known) = (Cell64::default(), Cell64::default(), Cell64::default(), Known::default());
        let slots: Vec<Cpu> = (0..cpus).map(|_| Cpu::of(cpus)).collect();
        let less = spec.depth.saturating_sub(kept(&spec, cpus));
        let (mut passed, mut most, mut least) = (0u64, 0u64, 0u64);
        let mut now_ns = 1_000 * SECOND;
        for (cpu, gap, _) in arrivals {
            now_ns += gap;
            let admitted = |charge| u64::from(charge == Charge::Admitted);
            passed += admitted(charge(&shared, &known, &&slots[cpu % cpus], &spec, now_ns, amount, spec.depth));
            most += admitted(charge(&without, &known, &NoLeases, &spec, now_ns, amount, spec.depth));
            least += admitted(charge(&smaller, &known, &NoLeases, &spec, now_ns, amount, less));
            prop_assert!(passed <= most, "{passed} passed, {most} without leases");
            prop_assert!(passed >= least, "{passed} passed, {least} from the smaller burst");
        }
    }

    /// A changed limit makes leases void: what passes under the new one conforms to it, from the debt that there was.
    #[test]
    fn a_changed_limit_makes_leases_void(
        cpus in 2usize..9,
        (kind, rate, burst, before) in tried(10),
        percent in 20u64..500,
        (_, _, _, after) in tried(10),
    ) {
        let old = total(kind, rate, burst, 0);
        let new = total(kind, (rate * percent / 100).max(1_000), (burst * percent / 100).max(1_514), 1);
        let (shared, known) = (Cell64::default(), Known::default());
        known.0.borrow_mut().insert(0, old);
        let slots: Vec<Cpu> = (0..cpus).map(|_| Cpu::of(cpus)).collect();
        let mut now_ns = 1_000 * SECOND;
        for (cpu, gap, length) in before {
            now_ns += gap;
            charge(&shared, &known, &&slots[cpu % cpus], &old, now_ns, amount(kind, length), old.depth);
        }
        // A debt drains at its old rate until somebody charges under the new one.
        now_ns += after.first().map_or(0, |(_, gap, _)| *gap);
        let owed = limit::shared_debt(shared.get(), &known, &new, now_ns);
        let mut exact = Exact { full_at: new.clock(now_ns) + owed, depth: new.depth };
        // What passed and was charged, and leases that are void now: all of it lies in the debt, so nothing comes on top.
        for (at, (cpu, gap, length)) in after.into_iter().enumerate() {
            now_ns += if at == 0 { 0 } else { gap };
            let amount = amount(kind, length);
            let charged = charge(&shared, &known, &&slots[cpu % cpus], &new, now_ns, amount, new.depth);
            if charged == Charge::Admitted {
                prop_assert!(exact.conforms(new.clock(now_ns), new.charge(amount)));
            }
        }
    }
}
