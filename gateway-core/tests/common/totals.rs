//! A total in memory, and the CPUs that take leases of it.

#![allow(dead_code, reason = "each test program uses some of this")]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use gateway_core::{
    bucket::spec::{Home, Kind, Spec},
    judge::Shared,
    lease::{Lease, Leases, WORTH_NS},
    limit,
    line::{Charge, Versions},
};

/// The total's number.
pub(crate) const ID: u32 = 7;

pub(crate) fn total(kind: Kind, rate: u64, burst: u64, version: u8) -> Spec {
    Spec::new(kind, Home::Shared, rate, burst)
        .expect("within the policy's bounds")
        .of_bucket(ID, version)
}

/// The total's cell.
#[derive(Debug, Default)]
pub(crate) struct Cell64(AtomicU64);

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
pub(crate) struct Cpu {
    pub(crate) slot: Cell<Lease>,
    others: u64,
}

impl Cpu {
    pub(crate) fn of(cpus: usize) -> Self {
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
pub(crate) struct Known(pub(crate) RefCell<HashMap<u8, Spec>>);

impl Versions for Known {
    fn version(&self, _id: u32, version: u8) -> Option<Spec> {
        self.0.borrow().get(&version).copied()
    }
}

/// Charges as `judge` does.
pub(crate) fn charge<L: Leases, S: Shared>(
    shared: &S,
    known: &Known,
    leases: &L,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> Charge {
    limit::charge_shared(
        leases,
        spec,
        now_ns,
        amount,
        || open,
        || Some(shared),
        |shared, open| limit::race(|| limit::shared_once(*shared, known, leases, spec, now_ns, amount, open)),
    )
}

/// What all leases but one may keep from a total, in the bucket's units: (CPUs − 1) × 0.1 % of a second's rate.
pub(crate) fn kept(spec: &Spec, cpus: usize) -> u64 {
    spec.clock(WORTH_NS) * (cpus as u64 - 1)
}

/// What one CPU may keep from it: a quarter of a millisecond's refill.
pub(crate) fn budget(spec: &Spec) -> u64 {
    spec.clock(WORTH_NS) / 4
}

/// A total of which leases are taken, and its CPUs.
pub(crate) fn busy(cpus: usize) -> (Spec, Cell64, Known, Vec<Cpu>) {
    let spec = total(Kind::Packets, 10_000_000, 10_000_000, 0);
    let slots = (0..cpus).map(|_| Cpu::of(cpus)).collect();
    (spec, Cell64::default(), Known::default(), slots)
}
