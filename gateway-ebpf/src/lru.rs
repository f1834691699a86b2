//! The source table as a hash map of the kernel's that evicts what was used longest ago: only built to be measured beside the
//! array (feature `lru`). The same cells and the same charge; only where a cell lies differs.

use gateway_core::{
    bucket::spec::Spec,
    line::{self, Amount, Charge, Line},
};

use crate::{atomic::Word, buckets::MapVersions, maps};

/// A line of one cell.
struct Cell(*mut u64);

impl Cell {
    #[inline(always)]
    fn word(&self) -> Word {
        // SAFETY: an entry of the map; one that is evicted meanwhile is memory of the map all the same.
        unsafe { Word::new(self.0) }
    }
}

impl Line for Cell {
    #[inline(always)]
    fn get(&self, at: usize) -> u64 {
        if at == 1 { self.word().get() } else { 0 }
    }

    #[inline(always)]
    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        at == 1 && self.word().swap(old, new)
    }
}

/// Tries once to charge a source's bucket.
#[inline(always)]
pub(crate) fn charge_once(spec: &Spec, hash: u64, now_ns: u64, amount: Amount) -> Charge {
    let key = hash ^ u64::from(spec.id()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = match maps::LRU.get_ptr_mut(&key) {
        Some(place) => place,
        None => {
            let _ = maps::LRU.insert(&key, &0, 0);
            match maps::LRU.get_ptr_mut(&key) {
                Some(place) => place,
                // Evicted within these few instructions: nothing is held, as after any eviction.
                None => return Charge::Admitted,
            }
        }
    };
    line::charge_once(&Cell(place), &MapVersions, spec, hash, now_ns, amount)
}
