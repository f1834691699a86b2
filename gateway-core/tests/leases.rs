//! Leases of a total: several CPUs with slots of their own, any times, changes of the limit, and real threads.

mod common;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{SECOND, cases};
use gateway_core::{
    bucket::{
        cell,
        spec::{Home, Kind, Spec},
    },
    judge::Shared,
    lease::{self, FEWEST, LONGEST_NS, Lease, Leases, NoLeases, SLOTS, WORTH_NS},
    limit,
    line::{Charge, Versions},
};
use proptest::prelude::*;

/// The total's number.
const ID: u32 = 7;

fn total(kind: Kind, rate: u64, burst: u64, version: u8) -> Spec {
    Spec {
        id: ID,
        version,
        ..Spec::new(kind, Home::Shared, rate, burst).expect("within the policy's bounds")
    }
}

/// The total's cell.
#[derive(Debug, Default)]
struct Cell64(AtomicU64);

impl Shared for Cell64 {
    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.0
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// One CPU's slot, among so many others.
struct Cpu {
    slot: Cell<Lease>,
    others: u64,
}

impl Cpu {
    fn of(cpus: usize) -> Self {
        Self {
            slot: Cell::default(),
            others: cpus as u64 - 1,
        }
    }
}

impl<'a> Leases for &'a Cpu {
    type Slot = &'a Cell<Lease>;

    fn others(&self) -> u64 {
        self.others
    }

    fn slot(&self, _id: u32) -> Option<&'a Cell<Lease>> {
        Some(&self.slot)
    }
}

/// The limits that the total has had.
#[derive(Default)]
struct Known(RefCell<HashMap<u8, Spec>>);

impl Versions for Known {
    fn version(&self, _id: u32, version: u8) -> Option<Spec> {
        self.0.borrow().get(&version).copied()
    }
}

/// Charges as `judge` does.
fn charge<L: Leases, S: Shared>(
    shared: &S,
    known: &Known,
    leases: &L,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> Charge {
    limit::charge_shared(leases, spec, now_ns, amount, || {
        limit::shared_once(shared, known, leases, spec, now_ns, amount, open)
    })
}

/// What all leases but one may keep from a total, in the bucket's units: (CPUs − 1) × 0.1 % of a second's rate.
fn kept(spec: &Spec, cpus: usize) -> u64 {
    spec.clock(WORTH_NS) * (cpus as u64 - 1)
}

/// What one CPU may keep from it: a quarter of a millisecond's refill.
fn budget(spec: &Spec) -> u64 {
    spec.clock(WORTH_NS) / 4
}

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
        let specs = [ID, ID + SLOTS].map(|id| Spec { id, ..total(kind, rate, burst, 0) });
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

/// A total of which leases are taken, and its CPUs.
fn busy(cpus: usize) -> (Spec, Cell64, Known, Vec<Cpu>) {
    let spec = total(Kind::Packets, 10_000_000, 10_000_000, 0);
    let slots = (0..cpus).map(|_| Cpu::of(cpus)).collect();
    (spec, Cell64::default(), Known::default(), slots)
}

#[test]
fn one_cpu_alone_takes_no_leases_and_admits_its_burst_exactly() {
    let (spec, shared, known, slots) = busy(1);
    let passed = (0..10_100_000)
        .filter(|_| charge(&shared, &known, &&slots[0], &spec, SECOND, 1, spec.depth) == Charge::Admitted)
        .count();
    assert_eq!((passed, slots[0].slot.get()), (10_000_000, Lease::default()));
}

#[test]
fn one_busy_cpu_of_two_has_the_burst_but_a_lease() {
    let (spec, shared, known, slots) = busy(2);
    let passed = (0..10_100_000)
        .filter(|_| charge(&shared, &known, &&slots[0], &spec, SECOND, 1, spec.depth) == Charge::Admitted)
        .count();
    assert!((9_990_000..=10_000_000).contains(&passed), "{passed}");
    assert!(slots[0].slot.get().bucket != 0);
}

/// Brings a CPU to hold a lease; the time.
fn leased(spec: &Spec, shared: &Cell64, known: &Known, cpu: &Cpu) -> u64 {
    let mut now_ns = SECOND;
    for _ in 0..10_000 {
        assert_eq!(
            charge(shared, known, &cpu, spec, now_ns, 1, spec.depth),
            Charge::Admitted
        );
        if cpu.slot.get().left >= FEWEST / 2 * spec.charge(1) {
            return now_ns;
        }
        now_ns += 200;
    }
    panic!("no lease was taken: {:?}", cpu.slot.get());
}

#[test]
fn a_lease_is_used_without_touching_the_cell_until_it_ends() {
    let (spec, shared, known, slots) = busy(64);
    let now_ns = leased(&spec, &shared, &known, &slots[0]);
    let (cell, lease) = (shared.get(), slots[0].slot.get());
    assert!(lease.until_ns > now_ns && lease.until_ns - now_ns <= LONGEST_NS);
    assert!(lease.left <= spec.clock(WORTH_NS));
    charge(
        &shared,
        &known,
        &&slots[0],
        &spec,
        lease.until_ns - 1,
        1,
        spec.depth,
    );
    assert_eq!(shared.get(), cell, "paid from the lease");
    charge(&shared, &known, &&slots[0], &spec, lease.until_ns, 1, spec.depth);
    assert_ne!(shared.get(), cell, "the lease was over");
}

#[test]
fn a_lease_of_another_limit_is_void() {
    let (spec, shared, known, slots) = busy(64);
    known.0.borrow_mut().insert(0, spec);
    let now_ns = leased(&spec, &shared, &known, &slots[0]);
    // Ten times the rate: in its units the lease would be worth many more packets.
    let faster = total(Kind::Packets, 100_000_000, 100_000_000, 1);
    let cell = shared.get();
    charge(&shared, &known, &&slots[0], &faster, now_ns, 1, faster.depth);
    assert_ne!(shared.get(), cell, "paid from the old lease");
    assert_eq!(slots[0].slot.get().left, 0);
}

#[test]
fn leases_that_lie_idle_are_void_and_a_burst_is_a_burst() {
    let (spec, shared, known, slots) = busy(8);
    for cpu in &slots {
        leased(&spec, &shared, &known, cpu);
    }
    // Full again: what the CPUs hold must not come on top of the burst.
    let now_ns = 3 * SECOND;
    let passed = (0..88_000_000u64)
        .step_by(8)
        .flat_map(|_| &slots)
        .take(10_100_000)
        .filter(|cpu| charge(&shared, &known, cpu, &spec, now_ns, 1, spec.depth) == Charge::Admitted)
        .count();
    assert!(
        (10_000_000 - 7 * 10_000..=10_000_000).contains(&passed),
        "{passed}"
    );
}

#[test]
fn a_lease_ends_before_the_total_is_full_again() {
    for cpus in [2, 8, 64] {
        let (spec, shared, known, slots) = busy(cpus);
        let now_ns = leased(&spec, &shared, &known, &slots[0]);
        let lease = slots[0].slot.get();
        let debt = limit::shared_debt(shared.get(), &known, &spec, now_ns);
        let full_ns = now_ns + spec.nanoseconds(debt - lease.left);
        assert!(lease.until_ns < full_ns, "{cpus} CPUs");
    }
}

#[test]
fn small_rates_and_what_is_no_total_have_no_leases() {
    let small = total(Kind::Packets, 20_000, 20_000, 0);
    let source = Spec {
        id: ID,
        ..Spec::new(Kind::Packets, Home::Tagged, 1_000_000, 1_000_000).expect("within bounds")
    };
    for spec in [small, source] {
        let (shared, known, cpu) = (Cell64::default(), Known::default(), Cpu::of(2));
        let passed = (0..2_000_000)
            .filter(|_| charge(&shared, &known, &&cpu, &spec, SECOND, 1, spec.depth) == Charge::Admitted)
            .count() as u64;
        assert_eq!(passed, spec.left(0, spec.depth));
        assert_eq!(cpu.slot.get(), Lease::default());
    }
}

#[test]
fn what_is_forfeited_to_another_total_of_the_same_slot_is_not_forgotten() {
    const BURST: u64 = 1_000_000;
    let spec = total(Kind::Packets, 10_000_000, BURST, 0);
    let other = Spec {
        id: ID + SLOTS,
        ..spec
    };
    let (shared, others, known, cpu) = (Cell64::default(), Cell64::default(), Known::default(), Cpu::of(2));
    let mut passed = 0u64;
    let mut once = |shared: &Cell64, spec: &Spec| {
        let admitted = charge(shared, &known, &&cpu, spec, SECOND, 1, spec.depth) == Charge::Admitted;
        (admitted, cpu.slot.get().left)
    };
    let mut forfeited = 0;
    for _ in 0..2_000 {
        for _ in 0..100 {
            let (admitted, left) = once(&shared, &spec);
            assert!(admitted);
            passed += 1;
            if left > 0 {
                forfeited += left / spec.charge(1);
                break;
            }
        }
        // One packet takes the slot.
        once(&others, &other);
    }
    while once(&shared, &spec).0 {
        passed += 1;
    }
    assert!(forfeited > 0, "no lease was taken");
    assert!(
        (BURST - kept(&spec, 2) / spec.charge(1)..=BURST).contains(&passed),
        "{passed} passed, {forfeited} forfeited"
    );
}

#[test]
fn no_lease_is_taken_near_empty() {
    let (mut spec, shared, known, slots) = busy(64);
    // Strangers may charge little, and half of that is gone.
    let open = spec.clock(WORTH_NS) * 20;
    spec.leased = lease::shift(spec.depth, open);
    shared.swap(0, (spec.clock(SECOND) + open / 2 + 1) & cell::SHARED_MASK);
    for _ in 0..1_000 {
        charge(&shared, &known, &&slots[0], &spec, SECOND, 1, spec.depth);
        assert_eq!(slots[0].slot.get().left, 0);
    }
}

#[test]
fn the_shift_leaves_at_most_half_of_what_strangers_may_charge() {
    for (depth, stranger, shift) in [
        (1_000, 1_000, 1),
        (1_000, 999, 2),
        (1_000, 500, 2),
        (1_000, 75, 5),
        (1 << 57, 1, 58),
        (0, 0, 1),
    ] {
        assert_eq!(lease::shift(depth, stranger), shift, "{stranger} of {depth}");
        assert!(depth >> shift <= stranger / 2);
    }
}

#[test]
fn what_is_kept_for_proven_sources_strangers_do_not_get_by_leases_of_those() {
    let (mut spec, shared, known, slots) = busy(2);
    // A reserve of nine tenths: strangers may charge 7.5 % of the burst.
    let stranger = spec.depth / 40 * 3;
    spec.leased = lease::shift(spec.depth, stranger);
    let mut now_ns = SECOND;
    let mut refused = 0;
    for at in 0..2_000_000u64 {
        // Twice the rate, nearly all of it strangers'; on each CPU somebody who is proven now and then.
        now_ns += u64::from(at % 2 == 0) * 100;
        let cpu = &slots[at as usize % 2];
        let open = if at % 200 < 2 { spec.depth } else { stranger };
        match charge(&shared, &known, &cpu, &spec, now_ns, 1, open) {
            Charge::Admitted => {}
            _ => refused += 1,
        }
        let debt = limit::shared_debt(shared.get(), &known, &spec, now_ns);
        assert!(
            debt <= stranger + 2 * budget(&spec),
            "{debt} owed, strangers may {stranger}"
        );
    }
    assert!(refused > 100_000, "{refused} refused");
}

/// How many of ten thousand packets touched the total's cell, over a second of evenly spread traffic that takes up so many per cent
/// of a total of ten million packets a second; on a clock that ticks so often.
fn touching(cpus: usize, percent: u64, tick_ns: u64) -> u64 {
    let (spec, shared, known, slots) = busy(cpus);
    let (packets, mut touched) = (percent * 100_000, 0u64);
    for at in 0..packets {
        let now_ns = (SECOND + at * SECOND / packets) / tick_ns * tick_ns;
        let before = shared.get();
        let cpu = &slots[at as usize % cpus];
        let charged = charge(&shared, &known, &cpu, &spec, now_ns, 1, spec.depth);
        assert_eq!(charged, Charge::Admitted);
        touched += u64::from(shared.get() != before);
    }
    touched * 10_000 / packets
}

#[test]
fn most_packets_of_many_busy_cpus_are_paid_from_leases() {
    for (cpus, percent) in [
        (2, 10),
        (2, 70),
        (2, 90),
        (2, 99),
        (4, 90),
        (8, 70),
        (8, 90),
        (16, 90),
        (64, 90),
        (64, 99),
    ] {
        let (exact, coarse) = (touching(cpus, percent, 1), touching(cpus, percent, 4_000_000));
        println!(
            "{cpus} CPUs, {percent} % taken up: of 10,000 packets {exact} touch the cell, {coarse} on the coarse clock"
        );
        assert!(
            exact <= 100 && coarse <= 100,
            "{cpus} CPUs, {percent} %: {exact}, {coarse} on the coarse clock"
        );
    }
}

#[test]
fn threads_with_leases_get_at_most_the_burst_and_at_least_it_without_their_leases() {
    for threads in [2usize, 4] {
        let spec = total(Kind::Packets, 10_000_000, 400_000, 0);
        let shared = Cell64::default();
        let start = Barrier::new(threads);
        let (passed, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let (cpu, known) = (Cpu::of(threads), Known::default());
                    start.wait();
                    for _ in 0..400_000 {
                        match charge(&shared, &known, &&cpu, &spec, SECOND, 1, spec.depth) {
                            Charge::Admitted => passed.fetch_add(1, Ordering::Relaxed),
                            Charge::Lost => lost.fetch_add(1, Ordering::Relaxed),
                            _ => 0,
                        };
                    }
                });
            }
        });
        let (passed, kept) = (passed.into_inner(), kept(&spec, threads) / spec.charge(1) + 1);
        assert!(
            passed <= 400_000 && passed + kept >= 400_000,
            "{threads} threads: {passed} passed, {kept} may be kept, {lost:?} lost"
        );
    }
}

#[test]
fn threads_with_leases_on_a_running_clock_get_at_most_rate_times_time_and_burst() {
    const BURST: u64 = 200_000;
    let spec = total(Kind::Packets, 10_000_000, BURST, 0);
    let (shared, clock) = (Cell64::default(), AtomicU64::new(SECOND));
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (cpu, known) = (Cpu::of(2), Known::default());
                for at in 0..2_000_000u64 {
                    // Half the time at twice the rate, half the time far below it.
                    let step = if at % 400_000 < 200_000 { 50 } else { 400 };
                    let now_ns = clock.fetch_add(step, Ordering::Relaxed);
                    let charged = charge(&shared, &known, &&cpu, &spec, now_ns, 1, spec.depth);
                    passed.fetch_add(u64::from(charged == Charge::Admitted), Ordering::Relaxed);
                }
            });
        }
    });
    let elapsed = clock.into_inner() - SECOND;
    let (passed, bound) = (passed.into_inner(), BURST + elapsed / 100);
    assert!(passed <= bound + 1, "{passed} of {bound}");
}
