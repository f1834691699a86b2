//! Where counts of a profile begin and end.

use gateway_core::profile::{SIZE_COUNTS, SIZES, size_at};
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

proptest! {
    #[test]
    fn a_length_counts_behind_every_bound_that_it_passes(length: u32) {
        let passed = SIZES.into_iter().filter(|bound| length > *bound).count();
        prop_assert_eq!(size_at(length), passed);
    }
}
