//! Where counts of a profile begin and end, and when a source or a service is told of again.

use std::cell::Cell;

use gateway_core::{
    image::Epoch,
    judge::Shared,
    profile::{Profile, REGISTERS, SIZE_COUNTS, SIZES, mark, see, size_at},
};
use proptest::prelude::*;

#[test]
fn a_length_on_a_bound_counts_below_it_and_one_byte_more_above() {
    for (at, bound) in SIZES.into_iter().enumerate() {
        assert_eq!(size_at(bound), at, "{bound}");
        assert_eq!(size_at(bound + 1), at + 1, "{bound} and one");
    }
    assert_eq!(size_at(0), 0);
    assert_eq!(size_at(u32::MAX), SIZE_COUNTS - 1);
}

/// A word that loses so many races.
#[derive(Default)]
struct Word {
    value: Cell<u64>,
    losing: Cell<u32>,
    tries: Cell<u32>,
}

impl Shared for &Word {
    fn get(&self) -> u64 {
        self.value.get()
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.tries.set(self.tries.get() + 1);
        let left = self.losing.get();
        self.losing.set(left.saturating_sub(1));
        let won = left == 0 && self.value.get() == old;
        if won {
            self.value.set(new);
        }
        won
    }
}

#[test]
fn an_epoch_is_entered_once_by_the_counts_of_each_cpu() {
    let mut profile = Profile::default();
    // Before the first reading nobody asks who was touched.
    let before = Epoch::from_word(0);
    assert!(!profile.enters(before));
    let first = before.next(false);
    assert!(profile.enters(first));
    assert!(!profile.enters(first));
    // The other set of registers is another epoch, too.
    assert!(profile.enters(first.next(true)));
    // As is what a CPU read late.
    assert!(profile.enters(first));
}

#[test]
fn a_source_is_looked_up_again_after_another_one_in_another_epoch_and_when_it_was_not_counted() {
    const SOURCE: u64 = 0xabc0_0000_0000_1234;
    let words: Vec<Word> = (0..REGISTERS / 8).map(|_| Word::default()).collect();
    let looked = Cell::new(0);
    let mut profile = Profile::default();
    let mut epoch = Epoch::from_word(0).next(false);
    profile.enters(epoch);
    let count = |profile: &mut Profile, hash: u64| {
        looked.set(0);
        let word = |at: usize| Some(&words[at]);
        profile.count_source(
            hash,
            |at| {
                looked.set(looked.get() + 1);
                word(at)
            },
            || see(hash, word),
        );
        looked.get()
    };
    assert_eq!(count(&mut profile, SOURCE), 1);
    assert_eq!(count(&mut profile, SOURCE), 0);
    assert_eq!(count(&mut profile, SOURCE + 1), 1);
    assert_eq!(count(&mut profile, SOURCE), 1);
    epoch = epoch.next(false);
    profile.enters(epoch);
    assert_eq!(count(&mut profile, SOURCE), 1);
    // Of a register that could not be raised, the next packet tries again.
    let word = &words[0x123 / 8];
    word.losing.set(4);
    let unlucky = 0x1230_0000_0000_5678;
    assert_eq!(count(&mut profile, unlucky), 1);
    assert_eq!(word.value.get(), 0);
    assert_eq!(count(&mut profile, unlucky), 1);
    assert_ne!(word.value.get(), 0);
    assert_eq!(count(&mut profile, unlucky), 0);
}

#[test]
fn a_mark_is_raised_and_never_lowered() {
    let word = Word::default();
    assert!(mark(&&word, 7) && word.value.get() == 7);
    let tries = word.tries.get();
    assert!(mark(&&word, 7) && mark(&&word, 6) && word.value.get() == 7);
    assert_eq!(word.tries.get(), tries, "nothing to write");
    word.losing.set(2);
    assert!(mark(&&word, 8) && word.value.get() == 8);
    word.losing.set(100);
    assert!(!mark(&&word, 9));
}

proptest! {
    #[test]
    fn a_length_counts_behind_every_bound_that_it_passes(length: u32) {
        let passed = SIZES.into_iter().filter(|bound| length > *bound).count();
        prop_assert_eq!(size_at(length), passed);
    }
}
