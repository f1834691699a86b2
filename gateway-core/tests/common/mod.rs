//! What the integration tests share: a line of the source table in memory, and charging it as `judge` does.

#![allow(dead_code, reason = "each test program uses some of this")]

use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::{
    bucket::spec::{Home, Kind, Spec},
    line::{self, Amount, Charge, Line, TRIES, Versions, WORDS},
};
use proptest::test_runner::Config;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in an hour.
pub(crate) const HOUR: u64 = 3_600 * SECOND;
/// Bits of a bucket's number that the tests leave free in hashes, so that no two tags collide by chance.
const ID_BITS: u32 = 8;

/// A hash of source `number`; every source of a test lies in the one line under test.
pub(crate) fn hash(number: usize) -> u64 {
    (number as u64 + 1) << ID_BITS
}

/// A bucket of each source's packets.
pub(crate) fn packets(id: u32, rate: u64, burst: u64) -> Spec {
    Spec::new(Kind::Packets, Home::Tagged, rate, burst)
        .expect("within the policy's bounds")
        .of_bucket(id, 0)
}

/// So many random cases; a failing one is printed, not kept in a file.
pub(crate) fn cases(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

/// A line of the source table.
#[derive(Debug, Default)]
pub(crate) struct HostLine([AtomicU64; WORDS]);

impl HostLine {
    /// Another line of the same words.
    pub(crate) fn copy(&self) -> Self {
        Self(self.words().map(AtomicU64::new))
    }

    /// The words as they are.
    pub(crate) fn words(&self) -> [u64; WORDS] {
        std::array::from_fn(|at| self.get(at))
    }
}

impl Line for HostLine {
    fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::SeqCst)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.0[at]
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// No rate was ever changed.
pub(crate) struct OneSpec;

impl Versions for OneSpec {
    fn version(&self, _id: u32, _version: u8) -> Option<Spec> {
        None
    }
}

/// Tidies a line and charges a bucket in it, with the tries that `judge` allows.
pub(crate) fn charge<L: Line, V: Versions>(
    line: &L,
    versions: &V,
    spec: &Spec,
    hash: u64,
    now_ns: u64,
    amount: u32,
) -> Charge {
    line::tidy(line, now_ns);
    charge_untidied(line, versions, spec, hash, now_ns, amount)
}

/// Charges a bucket in a line as it is.
pub(crate) fn charge_untidied<L: Line, V: Versions>(
    line: &L,
    versions: &V,
    spec: &Spec,
    hash: u64,
    now_ns: u64,
    amount: u32,
) -> Charge {
    if let Some(decided) = line::charge_found(line, spec, hash, now_ns, spec.charge(amount)) {
        return decided;
    }
    for _ in 0..TRIES {
        match line::charge_once(line, versions, spec, hash, now_ns, Amount::new(amount, true)) {
            Charge::Lost => {}
            decided => return decided,
        }
    }
    Charge::Lost
}
