//! Kernel versions as package names spell them: `6.1.0-56`, `6.12.117+deb12`.

use std::cmp::Ordering;

/// The numbers of a version, in order.
fn numbers(version: &str) -> impl Iterator<Item = u32> + '_ {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
}

/// Orders versions number by number.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    numbers(a).cmp(numbers(b))
}

/// Major and minor.
pub(crate) fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = numbers(version);
    Some((numbers.next()?, numbers.next()?))
}

/// Whether `version` is what a person means by `wanted`: the same, or one of that series.
pub(crate) fn is(version: &str, wanted: &str) -> bool {
    version
        .strip_prefix(wanted)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut versions = ["6.12.9+deb12", "6.1.0-9", "6.12.117+deb12", "6.1.0-56"];
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(
            versions,
            ["6.1.0-9", "6.1.0-56", "6.12.9+deb12", "6.12.117+deb12"]
        );
    }

    #[test]
    fn a_series_is_no_other_that_begins_alike() {
        assert!(is("6.1.0-56", "6.1"));
        assert!(is("6.1.0-56", "6.1.0-56"));
        assert!(!is("6.12.117+deb12", "6.1"));
        assert!(!is("6.1.0-56", "6.1.0-5"));
        assert!(is("6.12.117+deb12", "6.12.117"));
    }

    #[test]
    fn the_series_is_major_and_minor() {
        assert_eq!(series("6.12.117+deb12"), Some((6, 12)));
        assert_eq!(series("x"), None);
    }
}
