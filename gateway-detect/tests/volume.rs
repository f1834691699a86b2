//! The volume axis: what it expects, what it finds, what it forgets, and what bad input does to it.

mod noise;

use gateway_detect::volume::{Recorded, Scored, Volume};
use noise::Noise;
use proptest::prelude::*;

const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;
/// Monday, 6 January 2025, 00:00 UTC.
const MONDAY: u64 = 1_736_121_600;
/// What an alarm a week is, a second.
const RATE: f64 = 1.0 / WEEK as f64;

/// Traffic of a shop at one value in `step` seconds: quiet nights, busy evenings, weekends at half, noise that lasts for minutes.
struct Shop {
    noise: Noise,
    drift: f64,
    second: u64,
    step: u64,
}

impl Shop {
    fn new(seed: u64, step: u64) -> Self {
        Self {
            noise: Noise::new(seed),
            drift: 0.0,
            second: MONDAY,
            step,
        }
    }

    /// What is usual at a time.
    fn usual(at: u64) -> f64 {
        let day = (at % DAY) as f64 / DAY as f64 * std::f64::consts::TAU;
        let weekend = (at - MONDAY) % WEEK >= 5 * DAY;
        1000.0 * (1.2 * (day - 2.0).sin()).exp() * if weekend { 0.5 } else { 1.0 }
    }

    /// The next time and value.
    fn next(&mut self) -> (f64, f64) {
        self.second += self.step;
        let keep = (-(self.step as f64) / 1000.0).exp();
        self.drift = keep * self.drift + 0.05 * (1.0 - keep * keep).sqrt() * self.noise.normal();
        let mean = Self::usual(self.second) * self.drift.exp();
        (
            self.second as f64,
            (mean + mean.sqrt() * self.noise.normal()).max(0.0),
        )
    }

    /// Lets the axis learn for so long, and gives the times at which it would have alarmed.
    fn teach(&mut self, volume: &mut Volume, seconds: u64) -> Vec<f64> {
        let mut alarms = Vec::new();
        let mut quiet_from = 0.0;
        for _ in 0..seconds / self.step {
            let (at, value) = self.next();
            let scored = volume.score(at, value);
            if scored.exceedance < RATE * self.step as f64 && scored.learned >= 1.0 {
                if at > quiet_from {
                    alarms.push(at);
                }
                quiet_from = at + 60.0;
            }
            if at >= quiet_from {
                volume.learn(at, value);
            }
        }
        alarms
    }
}

fn taught(weeks: u64, step: u64) -> (Volume, Shop) {
    let (mut volume, mut shop) = (Volume::default(), Shop::new(11, step));
    shop.teach(&mut volume, weeks * WEEK);
    (volume, shop)
}

#[test]
fn one_alarm_a_week_is_one_alarm_a_week() {
    let mut alarms = 0;
    for seed in 0..3 {
        let (mut volume, mut shop) = (Volume::default(), Shop::new(seed + 1, 1));
        alarms += shop.teach(&mut volume, 5 * WEEK).len();
    }
    // 15 weeks, upwards and downwards: 30 were asked for.
    assert!((3..=45).contains(&alarms), "{alarms}");
}

#[test]
fn a_crowd_is_seen_at_once_and_a_failure_too() {
    let (mut volume, mut shop) = taught(3, 1);
    shop.teach(&mut volume, DAY / 2);
    let (at, value) = shop.next();
    for (factor, above) in [(4.0, true), (0.1, false)] {
        let scored = volume.clone().score(at, factor * value);
        assert!(scored.exceedance < 1e-3 * RATE, "{factor}: {scored:?}");
        assert_eq!(scored.deviation > 0.0, above, "{scored:?}");
    }
    let usual = volume.clone().score(at, value);
    assert!(usual.exceedance > 1e-3 && usual.learned >= 1.0, "{usual:?}");
}

#[test]
fn the_hour_of_the_week_is_known_while_learning_pauses() {
    // Learning stops on a Monday at 00:00, for a day and a half: what is expected follows the day all the same.
    let (mut volume, mut shop) = taught(4, 10);
    let mut worst: f64 = 1.0;
    for ten in 0..36 * 360 {
        let (at, value) = shop.next();
        let expected = volume.score(at, value).expected;
        if ten < 360 {
            // The model's weekend ends at midnight, the axis' within the hour.
            continue;
        }
        let ratio = expected / Shop::usual(at as u64);
        worst = worst.max(ratio).max(1.0 / ratio);
    }
    assert!(worst < 1.5, "{worst}");
    // Saturday is half of Friday; that was learned of the week, not of the day.
    let saturday = (MONDAY + 6 * WEEK + 5 * DAY + 12 * 3600) as f64;
    let ratio = volume.expected(saturday) / volume.expected(saturday - DAY as f64);
    assert!((0.4..0.75).contains(&ratio), "{ratio}");
}

#[test]
fn spikes_move_nothing() {
    let (mut volume, mut shop) = taught(2, 10);
    let mut spiked = volume.clone();
    for second in 0..20_000 {
        let (at, value) = shop.next();
        volume.score(at, value);
        volume.learn(at, value);
        let value = if second % 500 == 0 { 20.0 * value } else { value };
        spiked.score(at, value);
        spiked.learn(at, value);
    }
    let at = shop.second as f64;
    for later in [0.0, 6.0 * 3600.0, 20.0 * 3600.0] {
        let ratio = spiked.expected(at + later) / volume.expected(at + later);
        assert!((0.85..1.2).contains(&ratio), "{later}: {ratio}");
    }
}

#[test]
fn a_lasting_change_is_normal_once_it_is_accepted() {
    let (mut volume, mut shop) = taught(2, 1);
    let mut last = Scored::default();
    for _ in 0..3600 {
        let (at, value) = shop.next();
        last = volume.score(at, 5.0 * value);
    }
    assert!(
        last.exceedance < RATE,
        "an anomaly that lasts stays one: {last:?}"
    );
    volume.accept(shop.second as f64);
    let mut alarms = 0;
    for _ in 0..2 * DAY {
        let (at, value) = shop.next();
        let scored = volume.score(at, 5.0 * value);
        alarms += u32::from(scored.exceedance < RATE);
        volume.learn(at, 5.0 * value);
    }
    assert!(alarms <= 2, "{alarms}");
}

#[test]
fn slow_ramps_are_seen() {
    let (mut volume, mut shop) = taught(4, 10);
    let mut found = None;
    // Twice as much after half a day: no value stands out.
    for step in 0..DAY / 2 / 10 {
        let (at, value) = shop.next();
        let part = step as f64 / (DAY / 2 / 10) as f64;
        let scored = volume.score(at, value * 2_f64.powf(part));
        if scored.ramp && found.is_none() {
            found = Some(part);
        }
        if !scored.ramp {
            volume.learn(at, value * 2_f64.powf(part));
        }
    }
    assert!(found.is_some());
    // It is over some time after what caused it.
    let mut after = None;
    for step in 0..DAY / 10 {
        let (at, value) = shop.next();
        let scored = volume.score(at, value);
        if !scored.ramp {
            after = after.or(Some(step * 10));
            volume.learn(at, value);
        }
    }
    assert!(after.is_some_and(|seconds| seconds <= 4 * 3600), "{after:?}");
}

#[test]
fn weeks_as_usual_have_no_ramps() {
    let (mut volume, mut shop) = taught(3, 10);
    let mut ramps = 0;
    let mut on = false;
    for _ in 0..6 * WEEK / 10 {
        let (at, value) = shop.next();
        let scored = volume.score(at, value);
        ramps += u32::from(scored.ramp && !on);
        on = scored.ramp;
        if !on {
            volume.learn(at, value);
        }
    }
    assert!(ramps <= 3, "{ramps}");
}

#[test]
fn after_a_gap_or_a_clock_that_was_set_back_it_looks_before_it_speaks() {
    let (volume, mut shop) = taught(2, 1);
    for jump in [3.0 * 3600.0, -30.0 * DAY as f64, 4e9] {
        let mut volume = volume.clone();
        let start = shop.second as f64 + jump;
        for second in 0..100 {
            let (_, value) = shop.next();
            let at = start + f64::from(second);
            // Twice as much as before: what was before no longer counts.
            let scored = volume.score(at, 2.0 * value);
            assert!(scored.exceedance > RATE, "{jump} {second}: {scored:?}");
            volume.learn(at, 2.0 * value);
        }
    }
    // Less than an hour is no gap.
    let mut volume = volume.clone();
    let (at, value) = shop.next();
    assert!(volume.score(at + 600.0, 10.0 * value).exceedance < RATE);
}

#[test]
fn what_is_less_than_matters_is_no_news() {
    let mut volume = Volume::new(10.0);
    for second in 0..20_000 {
        volume.score(f64::from(second), 0.0);
        volume.learn(f64::from(second), 0.0);
    }
    assert!(volume.score(20_000.0, 9.0).exceedance >= 1.0);
    assert!(volume.score(20_001.0, 1000.0).exceedance < RATE);
}

#[test]
fn it_is_honest_while_it_is_young() {
    let (mut volume, mut shop) = (Volume::default(), Shop::new(4, 1));
    let mut before = 0.0;
    for second in 0..DAY {
        let (at, value) = shop.next();
        let scored = volume.score(at, value);
        assert!(scored.learned >= before && scored.learned <= (second + 1) as f64 / DAY as f64);
        before = scored.learned;
        volume.learn(at, value);
    }
    assert!(volume.score(shop.second as f64 + 1.0, 1000.0).learned > 0.98);
}

#[test]
fn no_number_changes_nothing() {
    let (volume, shop) = taught(1, 10);
    let at = shop.second as f64 + 10.0;
    for (at, value) in [
        (at, f64::NAN),
        (at, f64::INFINITY),
        (f64::NAN, 1.0),
        (f64::NEG_INFINITY, 1.0),
    ] {
        let mut bad = volume.clone();
        assert!(bad.score(at, value).exceedance >= 1.0);
        bad.learn(at, value);
        assert_eq!(bad, volume);
    }
}

#[test]
fn it_is_kept_and_goes_on() {
    let (mut volume, mut shop) = taught(1, 10);
    let text = serde_json::to_string(&volume).unwrap();
    let mut read: Volume = serde_json::from_str(&text).unwrap();
    // The text may be off by the last digit.
    let same = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    for _ in 0..1000 {
        let (at, value) = shop.next();
        let (a, b) = (read.score(at, value), volume.score(at, value));
        assert!(
            same(a.expected, b.expected) && same(a.exceedance, b.exceedance),
            "{a:?} {b:?}"
        );
        read.learn(at, value);
        volume.learn(at, value);
    }
    assert!(text.len() < 16_384, "{}", text.len());
}

#[test]
fn it_takes_four_kilobytes() {
    let (mut volume, mut shop) = (Volume::default(), Shop::new(4, 1));
    let mut most = 0;
    for second in 0..15 * DAY {
        let (at, value) = shop.next();
        volume.score(at, value);
        volume.learn(at, value);
        if second < 1000 || second % 1000 == 0 {
            most = most.max(volume.bytes());
        }
    }
    let read: Volume = serde_json::from_str(&serde_json::to_string(&volume).unwrap()).unwrap();
    most = most.max(read.bytes());
    // A little more for the minutes in which a threshold is being found.
    assert!(most <= 4608, "{most}");
    assert!(volume.bytes() <= 4096, "{}", volume.bytes());
}

#[test]
fn a_series_is_scored_by_its_past_alone() {
    let mut shop = Shop::new(8, 300);
    let rows: Vec<(f64, f64)> = (0..3000).map(|_| shop.next()).collect();
    let score = |rows: &[(f64, f64)]| -> Vec<f64> {
        let mut recorded = Recorded::default();
        rows.iter()
            .map(|&(at, value)| recorded.look(at, value).1)
            .collect()
    };
    let whole = score(&rows);
    assert_eq!(score(&rows[..2000]), whole[..2000]);
    let mut surge = rows.clone();
    surge[2500].1 *= 8.0;
    let scores = score(&surge);
    assert_eq!(scores[..2500], whole[..2500]);
    let highest = scores.iter().copied().fold(0.0, f64::max);
    assert!(scores[2500] >= highest, "{} of {highest}", scores[2500]);
}

/// Times and values as they come when something is broken.
fn broken() -> impl Strategy<Value = Vec<(f64, f64)>> {
    let at = prop_oneof![
        6 => 0.0..1e6,
        2 => any::<f64>(),
        1 => Just(1e18),
        1 => Just(-1e18),
    ];
    let value = prop_oneof![
        6 => 0.0..1e4,
        2 => any::<f64>(),
        1 => Just(0.0),
        1 => Just(f64::MAX),
        1 => Just(-f64::MAX),
    ];
    prop::collection::vec((at, value), 0..600)
}

proptest! {
    #[test]
    fn nothing_breaks_it(rows in broken(), regular in any::<bool>(), floor in any::<f64>(), skip in 1..10_usize) {
        let mut volume = Volume::new(floor);
        let mut recorded = Recorded::default();
        for (index, &(at, value)) in rows.iter().enumerate() {
            let at = if regular { index as f64 } else { at };
            let scored = volume.score(at, value);
            prop_assert!(scored.exceedance > 0.0 && scored.exceedance <= 1.0, "{scored:?}");
            prop_assert!((0.0..=1.0).contains(&scored.learned), "{scored:?}");
            prop_assert!(scored.expected.is_finite() && scored.deviation.is_finite(), "{scored:?}");
            if index % skip == 0 {
                volume.learn(at, value);
            }
            if index % 97 == 96 {
                volume.accept(at);
            }
            let (_, score) = recorded.look(at, value);
            prop_assert!((0.0..1.0).contains(&score), "{score}");
        }
        prop_assert!(volume.bytes() <= 8192);
        let text = serde_json::to_string(&volume).unwrap();
        prop_assert_eq!(serde_json::from_str::<Volume>(&text).is_ok(), true);
    }
}
