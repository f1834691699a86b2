//! `sensitivity = "1/week"` means what it says: alarms that are asked for, and alarms that come, over simulated weeks.

mod noise;

use gateway_detect::tail::Tail;
use noise::Noise;
use proptest::prelude::*;

const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;
/// Alarms that are closer to each other are one.
const APART: u64 = 60;

/// Alarms a week of a detector that sees a value each second, from the second week to the seventh, where `rate` a second are
/// asked for. What is taken for an anomaly is not learned while it lasts, as in the product.
fn alarms_a_week(rate: f64, seeds: std::ops::Range<u64>, mut source: impl FnMut(&mut Noise) -> f64) -> f64 {
    let (first, last) = (1, 7);
    let mut alarms = 0_u64;
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let mut noise = Noise::new(seed + 1);
        let mut tail = Tail::default();
        let mut anomalous_until = 0;
        let mut peak = f64::MIN;
        for second in 0..last * WEEK {
            let value = source(&mut noise);
            if tail.ready() && tail.exceedance(value) < rate {
                if second >= anomalous_until && second >= first * WEEK {
                    alarms += 1;
                }
                anomalous_until = second + APART;
            }
            if second < anomalous_until {
                peak = peak.max(value);
                continue;
            }
            if peak > f64::MIN {
                tail.concede(peak);
                peak = f64::MIN;
            }
            tail.learn(value);
        }
    }
    alarms as f64 / (runs * (last - first)) as f64
}

/// Demands that what comes is what was asked for, within these factors.
fn demand(name: &str, least: f64, most: f64, mut source: impl FnMut(&mut Noise) -> f64) {
    for (asked, per_week) in [(1.0 / DAY as f64, 7.0), (1.0 / WEEK as f64, 1.0)] {
        let come = alarms_a_week(asked, 0..3, &mut source);
        assert!(
            (least * per_week..=most * per_week).contains(&come),
            "{name}: asked for {per_week} a week, {come:.2} came"
        );
    }
}

#[test]
fn gaussian() {
    demand("gaussian", 0.5, 2.0, Noise::normal);
}

#[test]
fn student_with_four_degrees() {
    demand("student", 0.5, 2.0, |noise| {
        let chi: f64 = (0..4).map(|_| noise.normal().powi(2)).sum();
        noise.normal() / (chi / 4.0).sqrt()
    });
}

#[test]
fn lognormal() {
    demand("lognormal", 0.5, 2.0, |noise| (0.5 * noise.normal()).exp());
}

/// Noise that remembers for about `1 / (1 - keep)` seconds.
fn autocorrelated(keep: f64) -> impl FnMut(&mut Noise) -> f64 {
    let mut state = 0.0;
    move |noise| {
        state = keep * state + (1.0 - keep * keep).sqrt() * noise.normal();
        state
    }
}

#[test]
fn autocorrelated_over_minutes() {
    // Fewer come than were asked for: within an excursion the noise is smooth, and thinner in the tail than the fit allows.
    demand("autocorrelated", 0.2, 2.0, autocorrelated(0.99));
}

#[test]
fn autocorrelated_over_a_quarter_of_an_hour() {
    demand("autocorrelated", 0.3, 2.0, autocorrelated(0.999));
}

#[test]
fn a_shift_that_lasts_is_forgotten_after_two_spans() {
    let mut noise = Noise::new(5);
    let mut tail = Tail::new(60, 20_000);
    for _ in 0..30_000 {
        tail.learn(10.0 + noise.normal());
    }
    assert!(tail.exceedance(12.0) > 1e-4);
    for _ in 0..45_000 {
        tail.learn(noise.normal());
    }
    assert!(tail.exceedance(12.0) < 1e-6, "{}", tail.exceedance(12.0));
    assert!(tail.exceedance(3.0) > 1e-5, "{}", tail.exceedance(3.0));
}

#[test]
fn a_daily_job_is_no_surprise() {
    // Noise, and once in a while a value far beyond it: no Pareto tail.
    let mut noise = Noise::new(9);
    let mut tail = Tail::new(12, 4032);
    for row in 0..4000 {
        let job = if row % 288 == 100 { 100.0 } else { 0.0 };
        tail.learn(job + noise.normal());
    }
    let rare = tail.exceedance(100.0);
    assert!((1.0 / 600.0..1.0 / 150.0).contains(&rare), "{rare}");
    assert!(tail.exceedance(200.0) < 1e-3);
}

#[test]
fn little_seen_is_little_said() {
    let mut noise = Noise::new(3);
    let mut tail = Tail::default();
    assert!(!tail.ready() && tail.exceedance(1e9) >= 1.0);
    for seen in 1..=100_u32 {
        tail.learn(noise.normal());
        assert!(tail.exceedance(1e9) >= 1.0 / (f64::from(seen) + 1.5));
    }
    assert!(!tail.ready());
}

#[test]
fn a_constant_does_not_stop_it() {
    let mut tail = Tail::default();
    for _ in 0..20_000 {
        tail.learn(4.0);
    }
    assert!(tail.ready());
    assert!(tail.exceedance(4.0) > 1e-3 && tail.exceedance(5.0) < 1e-6);
}

#[test]
fn whoever_sends_bursts_lifts_it_little() {
    let mut noise = Noise::new(7);
    let mut tail = Tail::default();
    for _ in 0..200_000 {
        tail.learn(noise.normal());
    }
    tail.concede(1000.0);
    assert!(tail.exceedance(10.0) < 1e-6, "{}", tail.exceedance(10.0));
}

proptest! {
    #[test]
    fn exceedances_are_probabilities_that_fall(
        values in prop::collection::vec(prop_oneof![any::<f64>(), -1.0..1.0, Just(0.0), Just(f64::NAN)], 0..1500),
        conceded in any::<f64>(),
        mut asked in prop::collection::vec(any::<f64>(), 20),
        run in 0..100_u32,
    ) {
        let mut tail = Tail::new(run, 1000);
        for &value in &values {
            tail.learn(value);
        }
        tail.concede(conceded);
        asked.retain(|value| !value.is_nan());
        asked.extend([f64::NEG_INFINITY, -1.0, -0.1, 0.0, 0.1, 1.0, 10.0, f64::INFINITY]);
        asked.sort_by(f64::total_cmp);
        let mut before = 1.0;
        for &value in &asked {
            let exceedance = tail.exceedance(value);
            prop_assert!(exceedance > 0.0 && exceedance <= before, "{value}: {exceedance} after {before}");
            before = exceedance;
        }
    }
}
