//! Statistics of what is counted in samples: how many there may be where so many were seen.

/// Standard deviations of a one-sided error of 1 in 100.
pub(super) const ONE_IN_100: f64 = 2.326;
/// And of 1 in 600: six bounds at once are wrong together in 1 of 100.
pub(super) const ONE_IN_600: f64 = 2.935;

/// Below so many events a tail is summed, above it is bounded.
const SUMMED: u32 = 32;

/// The mean that a Poisson count has at most, where `count` was counted; `z` says how sure.
///
/// Wilson and Hilferty's approximation (1931) of the chi-square quantile that is the exact bound (Garwood 1936). It also
/// holds for counts that were aged: a sum of counts weighted with at most 1 varies less than a count of the same mean.
pub(super) fn poisson_upper(count: f64, z: f64) -> f64 {
    let next = count.max(0.0) + 1.0;
    let root = 1.0 - 1.0 / (9.0 * next) + z / (3.0 * next.sqrt());
    next * root.powi(3)
}

/// So many will be counted at most where so many are to be expected, in 99 of 100 cases (Poisson).
pub(super) fn poisson_most(mean: f64) -> f64 {
    // Beyond this the normal distribution is near enough, and `exp` has digits to this.
    if mean > 100.0 {
        return (mean + ONE_IN_100 * mean.sqrt() + 1.0).ceil();
    }
    let (mut most, mut term) = (0.0, (-mean).exp());
    let mut below = term;
    while below < 0.99 {
        most += 1.0;
        term *= mean / most;
        if term < 1e-12 && most > mean {
            break;
        }
        below += term;
    }
    most
}

/// A lower bound of the probability that at least `least` of `packets` are sampled, each with probability `p`.
///
/// Exact where few are asked for. Above, the median of a binomial count is no less than its mean rounded down (Kaas and
/// Buhrman 1980), and Chernoff's bound where that says more.
pub(super) fn sampled_at_least(least: u32, packets: f64, p: f64) -> f64 {
    let packets = packets.max(0.0).floor();
    if f64::from(least) > packets {
        return 0.0;
    }
    if least == 0 || p >= 1.0 {
        return 1.0;
    }
    let mean = packets * p;
    if least <= SUMMED && mean < 700.0 {
        // The chance of none, and of each number from that of the one before.
        let mut term = (packets * (-p).ln_1p()).exp();
        let mut fewer = 0.0;
        for sampled in 0..least {
            fewer += term;
            term *= (packets - f64::from(sampled)) / f64::from(sampled + 1) * p / (1.0 - p);
        }
        // `term` is the chance of exactly so many: where that is small, the difference from 1 has no digits left.
        return term.max(1.0 - fewer);
    }
    let short = mean - f64::from(least);
    if f64::from(least) <= mean.floor() {
        (1.0 - (-short * short / (2.0 * mean)).exp()).max(0.5)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds_of_counts_are_those_of_the_tables() {
        // Garwood's exact bounds, one-sided 99 %.
        for (count, exact) in [
            (0.0, 4.605),
            (1.0, 6.638),
            (2.0, 8.406),
            (10.0, 20.145),
            (100.0, 126.08),
        ] {
            let bound = poisson_upper(count, ONE_IN_100);
            assert!((bound / exact - 1.0).abs() < 0.01, "{count}: {bound}");
        }
    }

    #[test]
    fn what_will_be_counted_is_the_quantile_of_the_tables() {
        // Quantiles of 99 %.
        for (mean, most) in [
            (0.0, 0.0),
            (0.01, 0.0),
            (0.02, 1.0),
            (0.6, 3.0),
            (1.0, 4.0),
            (10.0, 18.0),
            (100.0, 124.0),
        ] {
            assert!(
                (poisson_most(mean) - most).abs() < 0.5,
                "{mean}: {}",
                poisson_most(mean)
            );
        }
        assert!((124.0..=126.0).contains(&poisson_most(100.001)));
    }

    /// The tail by the definition, for numbers small enough.
    fn exact(least: u32, packets: u32, p: f64) -> f64 {
        let choose = |n: u32, k: u32| (0..k).fold(1.0, |c, i| c * f64::from(n - i) / f64::from(i + 1));
        (least..=packets)
            .map(|k| choose(packets, k) * p.powi(k as i32) * (1.0 - p).powi((packets - k) as i32))
            .sum()
    }

    #[test]
    fn a_tail_is_never_overstated_and_seldom_much_understated() {
        for p in [0.000_1, 0.001, 0.05, 0.3, 0.9] {
            for packets in [1_u32, 5, 20, 200, 900] {
                for least in [1, 2, 3, 6, 12, 24, 48, 96, 400] {
                    if least > packets {
                        assert!(sampled_at_least(least, f64::from(packets), p) <= 0.0);
                        continue;
                    }
                    let bound = sampled_at_least(least, f64::from(packets), p);
                    let exact = exact(least, packets, p);
                    let mean = f64::from(packets) * p;
                    assert!(
                        bound <= exact * (1.0 + 1e-6) + 1e-14,
                        "{least} of {packets} at {p}: {bound}, {exact}"
                    );
                    if least <= SUMMED && mean < 0.1 {
                        assert!(
                            bound >= exact * 0.9,
                            "{least} of {packets} at {p}: {bound}, {exact}"
                        );
                    } else if f64::from(least) <= mean.floor() {
                        assert!(
                            bound >= exact * 0.49,
                            "{least} of {packets} at {p}: {bound}, {exact}"
                        );
                    }
                }
            }
        }
        assert!(sampled_at_least(7, 7.0, 1.0) >= 1.0);
        assert!(sampled_at_least(8, 7.9, 1.0) <= 0.0);
    }
}
