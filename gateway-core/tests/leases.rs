//! Leases of a total, case by case, and with real threads. `lease_properties.rs` has any traffic.

mod common;
#[path = "common/totals.rs"]
mod totals;

use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering},
};

use common::SECOND;
use gateway_core::{
    bucket::{
        cell,
        spec::{Home, Kind, Spec},
    },
    judge::Shared,
    lease::{self, FEWEST, LONGEST_NS, Lease, SLOTS, WORTH_NS},
    limit,
    line::Charge,
};
use totals::{Cell64, Cpu, ID, Known, budget, busy, charge, kept, total};

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
    let source = Spec::new(Kind::Packets, Home::Tagged, 1_000_000, 1_000_000).expect("within bounds");
    let source = source.of_bucket(ID, 0);
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
    let other = spec.of_bucket(ID + SLOTS, spec.version());
    let (shared, others, known, cpu) = (Cell64::default(), Cell64::default(), Known::default(), Cpu::of(2));
    let mut passed = 0u64;
    let once = |shared: &Cell64, spec: &Spec| {
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
