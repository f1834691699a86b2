//! The buckets that a packet meets, in numbers.

use gateway_core::{bucket::spec::Spec, line::Charge};

use super::Teller;
use crate::{
    api::explain::BucketStep,
    explain::{Charged, KIND_NAMES, TIER_NAMES},
    policy::{model::Limit, units},
};

impl Teller<'_> {
    pub(super) fn bucket(&mut self, met: &Charged, limit: Option<Limit>) {
        let Some((tier, kind)) = self.place_of(met.spec.id()) else {
            return;
        };
        let overflow = met.shared && tier < 2;
        let state = state(met, limit, tier, kind);
        let show = |amount| show(kind, amount);
        let name = format!("{} {}", TIER_NAMES[tier].replace('_', " "), KIND_NAMES[kind]);
        let for_this = if state.open < state.left {
            format!(" ({} of it for this source)", show(state.open))
        } else {
            String::new()
        };
        let mut what = format!(
            "{name}: {} of {} left{for_this}, {} more a second; {} asked for",
            show(state.left),
            show(state.burst),
            show(state.rate),
            show(state.asked)
        );
        let outcome = match met.charge {
            Charge::Admitted => format!(" and given: {} left then", show(state.left_after)),
            Charge::Full => {
                "; no cell of the source table is free for this source: the overflow bucket decides"
                    .to_owned()
            }
            Charge::Lost => "; refused".to_owned(),
            Charge::Reserved => {
                " and refused: the rest is kept for sources that have shown more for themselves".to_owned()
            }
            Charge::Refused => match state.enough_after_ns {
                Some(ns) => format!(" and refused: enough in {} if nothing else comes", span(ns)),
                None => " and refused: it is more than the bucket ever holds".to_owned(),
            },
        };
        what.push_str(&outcome);
        let key = match tier {
            3 => vec![
                "service".to_owned(),
                self.explained.service.clone(),
                "total".to_owned(),
                if met.charge == Charge::Reserved {
                    "reserve"
                } else {
                    KIND_NAMES[kind]
                }
                .to_owned(),
            ],
            2 => self.own_key("total", KIND_NAMES[kind]),
            _ => self.own_key(TIER_NAMES[tier], KIND_NAMES[kind]),
        };
        let step = if overflow { "overflow" } else { "bucket" };
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        self.step_with(step, what, &key, Some(state));
        if self.reason().drops() && matches!(met.charge, Charge::Refused | Charge::Reserved | Charge::Lost) {
            self.decides();
        }
    }

    /// The tier and kind of a bucket of the subject that judges.
    fn place_of(&self, id: u32) -> Option<(usize, usize)> {
        let tiers = self.explained.subject.buckets.iter().enumerate();
        tiers
            .flat_map(|(tier, specs)| {
                specs
                    .iter()
                    .enumerate()
                    .map(move |(kind, spec)| (tier, kind, spec))
            })
            .find(|(_, _, spec)| spec.id() == id)
            .map(|(tier, kind, _)| (tier, kind))
    }
}

fn state(met: &Charged, limit: Option<Limit>, tier: usize, kind: usize) -> BucketStep {
    let spec = &met.spec;
    let limit = limit.unwrap_or_else(|| Limit {
        rate: per_second(spec),
        burst: spec.left(0, spec.depth),
    });
    let cost = spec.charge(met.amount);
    let refused = matches!(met.charge, Charge::Refused | Charge::Reserved);
    let over = (met.before + cost).saturating_sub(met.open);
    BucketStep {
        tier: TIER_NAMES[tier].to_owned(),
        kind: KIND_NAMES[kind].to_owned(),
        rate: limit.rate,
        burst: limit.burst,
        left: spec.left(met.before, spec.depth).min(limit.burst),
        open: spec.left(met.before, met.open).min(limit.burst),
        asked: u64::from(met.amount),
        admitted: met.charge == Charge::Admitted,
        left_after: spec.left(met.after, spec.depth).min(limit.burst),
        enough_after_ns: (refused && cost <= met.open).then(|| ns(spec, over)),
    }
}

/// A span in the bucket's units, in nanoseconds, rounded up.
fn ns(spec: &Spec, span: u64) -> u64 {
    (u128::from(span) << spec.right).div_ceil(1 << spec.left) as u64
}

/// How much the bucket refills a second, from what it charges.
fn per_second(spec: &Spec) -> u64 {
    let units = (1_000_000_000_u128 << spec.left) >> spec.right << spec.fraction;
    let cost = u128::from(spec.cost.max(1));
    ((units + cost / 2) / cost) as u64
}

fn show(kind: usize, amount: u64) -> String {
    if kind == 1 {
        units::format_bytes(amount)
    } else {
        grouped(amount)
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A short time in the unit that suits it.
fn span(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use gateway_core::bucket::spec::{Home, Kind};

    use super::*;

    #[test]
    fn what_is_left_is_what_would_be_admitted() {
        for (kind, home, rate, burst) in [
            (Kind::Packets, Home::Tagged, 2_000, 4_000),
            (Kind::Connections, Home::Shared, 20, 40),
            (Kind::Bytes, Home::Tagged, 5_000_000, 10_000_000),
            (Kind::Bytes, Home::Tagged, 50_000, 20_000),
            (Kind::Bytes, Home::Shared, 20_000_000, 3_000_000),
            (Kind::Packets, Home::Tagged, 1, 1),
        ] {
            let spec = Spec::new(kind, home, rate, burst).unwrap();
            assert_eq!(
                per_second(&spec).abs_diff(rate) * 1000,
                per_second(&spec).abs_diff(rate).min(rate / 1000) * 1000
            );
            for debt in [0, spec.depth / 3, spec.depth - 1, spec.depth] {
                let left = spec.left(debt, spec.depth);
                let fits = |amount: u64| debt + spec.charge(amount as u32) <= spec.depth;
                assert!(fits(left), "{spec:?} {debt}");
                assert!(!fits(left + 1), "{spec:?} {debt}");
            }
            assert_eq!(spec.left(spec.depth, spec.depth / 2), 0);
        }
    }

    #[test]
    fn a_span_is_in_the_unit_that_suits_it() {
        assert_eq!(span(999), "999 ns");
        assert_eq!(span(500_000), "500.0 µs");
        assert_eq!(span(1_500_000), "1.5 ms");
        assert_eq!(span(60_000_000_000), "60.0 s");
    }
}
