//! Reading `[sampling]`: how many packets are looked at.

use std::ops::RangeInclusive;

use super::{
    bounds,
    model::Sampling,
    units,
    walk::{Item, Section, Sink},
};

/// Reads `[sampling]`, or its defaults.
pub(super) fn sampling(root: &Section<'_>, sink: &mut Sink<'_>) -> Sampling {
    let mut sampling = Sampling::default();
    let Some(section) = root.section("sampling", sink) else {
        return sampling;
    };
    section.check_keys(&["one_in", "max_per_second"], &[], sink);
    if let Some(item) = section.get("one_in") {
        let one_in = count(&item, sink, &bounds::ONE_IN, "0 to 1,000,000,000");
        sampling.one_in = one_in.unwrap_or(sampling.one_in);
    }
    if let Some(item) = section.get("max_per_second") {
        let most = count(&item, sink, &bounds::MAX_PER_SECOND, "1 to 100,000");
        sampling.max_per_second = most.unwrap_or(sampling.max_per_second);
        if sampling.one_in == 0 {
            sink.warn(&item, "has no effect with one_in = 0");
        }
    }
    sampling
}

/// An integer, or a string with a suffix.
fn count(item: &Item<'_>, sink: &mut Sink<'_>, bounds: &RangeInclusive<u64>, range: &str) -> Option<u32> {
    let Some(integer) = item.any_integer() else {
        let example = "an integer, or a string such as \"10k\"";
        let read = item.quantity(sink, units::parse_count, example, bounds, range);
        return read.map(|n| n as u32);
    };
    let read = u64::try_from(integer).ok().filter(|n| bounds.contains(n));
    if read.is_none() {
        sink.bad(item, format!("expected {range}"));
    }
    read.map(|n| n as u32)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::parse;

    fn sampling(section: &str) -> Result<Sampling, String> {
        let text = format!("version = 1\n[sampling]\n{section}\n");
        parse(&text, Path::new("p.toml"))
            .map(|parsed| parsed.policy.sampling)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn keys_and_their_defaults() {
        let both = |one_in, max_per_second| Sampling {
            one_in,
            max_per_second,
        };
        assert_eq!(sampling(""), Ok(both(1_000, 10_000)));
        assert_eq!(sampling("one_in = 0"), Ok(both(0, 10_000)));
        assert_eq!(
            sampling("one_in = \"10k\"\nmax_per_second = 7"),
            Ok(both(10_000, 7))
        );
    }

    #[test]
    fn what_cannot_be_is_an_error_at_its_place() {
        for (section, expected) in [
            ("one_in = -1", "p.toml:3:10: sampling.one_in: -1"),
            ("max_per_second = 0", "p.toml:3:18: sampling.max_per_second: 0"),
            ("max_per_second = \"1M\"", "1 to 100,000"),
            ("rate = 1", "sampling.rate"),
        ] {
            let error = sampling(section).unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
    }
}
