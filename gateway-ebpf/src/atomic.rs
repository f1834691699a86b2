//! The compare-and-swap, and loads that are not torn.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use crate::frame::opaque;

/// A word of a map's value. Lives as long as the program runs: arrays are never freed under a running program.
#[derive(Clone, Copy)]
pub(crate) struct Word(*mut u64);

impl Word {
    /// The word at `place`.
    ///
    /// # Safety
    /// `place` must point to eight aligned bytes of a map value.
    #[inline(always)]
    pub(crate) const unsafe fn new(place: *mut u64) -> Self {
        Self(place)
    }

    /// Reads it.
    #[inline(always)]
    pub(crate) fn get(self) -> u64 {
        // SAFETY: `new` demands a valid place; an aligned 8-byte load is one instruction and never torn.
        unsafe { self.0.read_volatile() }
    }

    /// Replaces it if it is `old`; whether it did. One `lock cmpxchg` (BPF instruction set v3, kernel 5.12).
    #[inline(always)]
    pub(crate) fn swap(self, old: u64, new: u64) -> bool {
        // SAFETY: `new` demands a valid place; other CPUs only touch it atomically as well.
        let (held, _) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, old, new)
        };
        // Not what the intrinsic says of it, and so that the compiler does not see that it is the same: it would make a number of that, and compare
        // it again.
        opaque(held as usize) as u64 == old
    }
}
