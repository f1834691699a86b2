//! The registry's promises: names keep their numbers, and nobody inherits a debt.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{bucket::spec::Spec, image::Subject};
use proptest::prelude::*;

use super::{super::*, cases, policy, service};
use crate::policy::model::PerSource;

const SECOND: u64 = 1_000_000_000;

/// A service that holds each source to a rate of packets.
fn limited(name: &str, rate: u64, burst: u64) -> Service {
    let limits = Limits {
        packets: Some(Limit { rate, burst }),
        ..Limits::default()
    };
    Service {
        per_source: Some(PerSource { limits, block: None }),
        ..service(name)
    }
}

/// Compiles without lists and levers.
fn compiled(policy: &Policy, registry: &mut Registry, now_ns: u64) -> Image {
    compile(policy, &ListContents::new(), &[], registry, now_ns).expect("the policy fits")
}

/// The bucket of each source's packets at a service.
fn bucket(image: &Image, registry: &Registry, name: &str) -> Spec {
    let number = registry.service(name).expect("the service has a number");
    image.subjects[number as usize].buckets[0][0]
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.reindex();
    registry
}

#[test]
fn names_keep_their_numbers_across_policies() {
    let mut registry = registry();
    let first = compiled(
        &policy(vec![limited("a", 10, 10), limited("b", 10, 10)]),
        &mut registry,
        SECOND,
    );
    let (a, b) = (registry.service("a"), registry.service("b"));
    let spec = bucket(&first, &registry, "b");
    let second = compiled(
        &policy(vec![limited("c", 10, 10), limited("b", 10, 10)]),
        &mut registry,
        2 * SECOND,
    );
    assert_eq!(registry.service("b"), b);
    assert_eq!(bucket(&second, &registry, "b"), spec);
    assert_eq!(registry.service("a"), None);
    assert_eq!(second.gone, [a.expect("it had one")]);
    // The generation that is being replaced still knows the number that became free.
    assert_ne!(registry.service("c"), a);
    assert_ne!(bucket(&second, &registry, "c").id(), spec.id());
}

#[test]
fn a_registry_survives_a_restart() {
    let mut before = registry();
    let services = vec![limited("a", 10, 10), limited("b", 20, 10)];
    let first = compiled(&policy(services.clone()), &mut before, SECOND);
    let saved = serde_json::to_string(&before).expect("it can be written");
    let mut after: Registry = serde_json::from_str(&saved).expect("it can be read");
    after.reindex();
    let second = compiled(&policy(services), &mut after, 2 * SECOND);
    assert_eq!(first.subjects, second.subjects);
}

#[test]
fn a_freed_bucket_waits_for_its_longest_debt() {
    let mut registry = registry();
    // A hundred seconds to refill at 1/s, and a second for clocks that lag.
    let first = compiled(&policy(vec![limited("a", 1, 100)]), &mut registry, 0);
    let freed = bucket(&first, &registry, "a").id();
    compiled(&policy(Vec::new()), &mut registry, 0);
    let image = compiled(&policy(vec![limited("b", 1, 1)]), &mut registry, 100 * SECOND);
    assert_ne!(bucket(&image, &registry, "b").id(), freed);
    let image = compiled(
        &policy(vec![limited("b", 1, 1), limited("c", 1, 1)]),
        &mut registry,
        101 * SECOND,
    );
    assert_eq!(
        bucket(&image, &registry, "c").id(),
        freed,
        "a drained number is used again"
    );
}

#[test]
fn a_freed_block_waits_for_the_longest_block() {
    let blocked = |name: &str| {
        let mut service = limited(name, 1_000, 1);
        if let Some(own) = &mut service.per_source {
            own.block = Some(Block {
                for_seconds: 86_400,
                drops: 10,
                within_seconds: 3_600,
            });
        }
        service
    };
    let block = |image: &Image, registry: &Registry, name: &str| {
        image.subjects[registry.service(name).expect("it has a number") as usize]
            .block
            .id
    };
    let mut registry = registry();
    let first = compiled(&policy(vec![blocked("a")]), &mut registry, 0);
    let freed = block(&first, &registry, "a");
    compiled(&policy(Vec::new()), &mut registry, 0);
    let day = compiled(&policy(vec![blocked("b")]), &mut registry, 86_400 * SECOND);
    let subject = &day.subjects[1];
    assert!(subject.block.id != freed && subject.buckets[0][0].id() != freed);
}

#[test]
fn a_changed_limit_takes_another_version_and_the_old_one_stays_known() {
    let mut registry = registry();
    let known = |registry: &Registry, spec: Spec| {
        registry
            .versions()
            .any(|(id, specs)| id == spec.id() && specs[usize::from(spec.version())] == spec)
    };
    let mut seen = Vec::new();
    for rate in [10, 20, 30, 40] {
        let image = compiled(&policy(vec![limited("a", rate, 1_000)]), &mut registry, rate);
        let spec = bucket(&image, &registry, "a");
        assert!(
            seen.iter()
                .all(|old: &Spec| old.id() == spec.id() && old.version() != spec.version())
        );
        seen.push(spec);
        assert!(seen.iter().all(|spec| known(&registry, *spec)), "after {rate}/s");
    }
    // Back to a limit that is still known: the same version, no conversion.
    let image = compiled(&policy(vec![limited("a", 20, 1_000)]), &mut registry, 50);
    assert_eq!(bucket(&image, &registry, "a"), seen[1]);
    // A fifth limit takes the place of the one that drains first, never of the one in force.
    let image = compiled(&policy(vec![limited("a", 50, 1_000)]), &mut registry, 60);
    let fifth = bucket(&image, &registry, "a");
    assert_eq!(
        fifth.version(),
        seen[3].version(),
        "40/s drains before 30/s, 10/s"
    );
    assert!(
        known(&registry, seen[1]),
        "the version that was in force is forgotten"
    );
}

#[test]
fn a_scaled_service_has_both_limits_until_the_lever_ends() {
    let mut registry = registry();
    let plain = compiled(&policy(vec![limited("a", 100, 100)]), &mut registry, 0);
    let lever = Lever::Scale {
        service: "a".to_owned(),
        percent: 50,
        until_ns: 9 * SECOND,
    };
    let image = compile(
        &policy(vec![limited("a", 100, 100)]),
        &ListContents::new(),
        &[lever],
        &mut registry,
        SECOND,
    )
    .expect("the policy fits");
    let number = registry.service("a").expect("it has a number") as usize;
    let scaled: &Subject = &image.subjects[number];
    let after = &image.subjects[scaled.after as usize];
    assert_eq!(scaled.until_ns, 9 * SECOND);
    assert_eq!(after.until_ns, u64::MAX);
    assert_eq!(after.buckets, plain.subjects[number].buckets);
    assert_eq!(scaled.buckets[0][0].id(), after.buckets[0][0].id());
    assert_ne!(scaled.buckets[0][0].version(), after.buckets[0][0].version());
}

#[test]
fn series_keep_their_numbers_and_freed_ones_are_used_again() {
    let mut registry = registry();
    let first = compiled(
        &policy(vec![limited("a", 1, 1), limited("b", 1, 1)]),
        &mut registry,
        0,
    );
    let of_b = first.subjects[registry.service("b").expect("it has a number") as usize].series;
    let second = compiled(
        &policy(vec![limited("b", 2, 2), limited("d", 1, 1)]),
        &mut registry,
        1,
    );
    let number = registry.service("b").expect("it has a number") as usize;
    assert_eq!(second.subjects[number].series, of_b);
    let numbers: BTreeSet<u32> = registry.series().iter().map(|record| record.number).collect();
    assert_eq!(
        numbers.len(),
        registry.series().len(),
        "two series share a number"
    );
    // Those that drop have a second number, for `would_drop`.
    for record in registry.series() {
        let free = record.width() == 1 || !numbers.contains(&(record.number + 1));
        assert!(free, "{record:?} shares its second number");
    }
    let end = registry.series_end();
    let freed = registry.retire_series(|record| record.service != "a");
    assert!(!freed.is_empty());
    compiled(
        &policy(vec![limited("b", 2, 2), limited("d", 1, 1), limited("e", 1, 1)]),
        &mut registry,
        2,
    );
    let of_e: BTreeSet<u32> = registry
        .series()
        .iter()
        .filter(|record| record.service == "e")
        .flat_map(|record| record.number..record.number + record.width())
        .collect();
    assert_eq!(of_e, freed.into_iter().collect());
    assert_eq!(registry.series_end(), end, "freed numbers were not used");
}

#[test]
fn going_back_to_a_policy_gives_everything_back() {
    let mut registry = registry();
    let both = |rate| policy(vec![limited("a", rate, 100), limited("b", 1, 100)]);
    let first = compiled(&both(1), &mut registry, 0);
    let (of_a, of_b) = (bucket(&first, &registry, "a"), bucket(&first, &registry, "b"));
    let usage = registry.usage();
    let before: Vec<u32> = registry.series().iter().map(|record| record.number).collect();
    let number = registry.service("a");

    // Waits: `a` has another rate, `b` goes, `c` comes.
    let second = compiled(
        &policy(vec![limited("a", 2, 100), limited("c", 1, 1)]),
        &mut registry,
        SECOND,
    );
    assert_ne!(bucket(&second, &registry, "a").version(), of_a.version());
    assert_eq!(
        usage.services_not_in(&registry),
        [usage.service("b").expect("it had one")]
    );
    let c = registry.service("c").expect("it has a number");
    let of_c = bucket(&second, &registry, "c").id();
    assert!(
        usage.service_name(c).is_none(),
        "no number of the first policy is given away"
    );

    let (gone, cleared) = registry.back_to(&usage, 2 * SECOND);
    assert_eq!(gone, [c]);
    assert!(!cleared.is_empty() && cleared.iter().all(|number| !before.contains(number)));
    assert_eq!(registry.service("a"), number);
    assert_eq!(registry.service("c"), None);
    let after: Vec<u32> = registry.series().iter().map(|record| record.number).collect();
    assert_eq!(after, before);
    // Cells that were charged meanwhile are still understood, and nothing of the first policy is given to others.
    let waited = bucket(&second, &registry, "a").version();
    let known = registry
        .versions()
        .find(|(id, _)| *id == of_a.id())
        .expect("it is there")
        .1;
    assert_eq!(known[usize::from(waited)].id(), of_a.id());
    let again = compiled(&both(1), &mut registry, 3 * SECOND);
    assert_eq!(bucket(&again, &registry, "a"), of_a);
    assert_eq!(bucket(&again, &registry, "b"), of_b);
    // The bucket of `c` is given to another once its debts have drained, and not before.
    let named = policy(vec![
        limited("a", 1, 100),
        limited("b", 1, 100),
        limited("d", 1, 1),
    ]);
    let d = |registry: &mut Registry, now_ns| {
        let image = compiled(&named, registry, now_ns);
        bucket(&image, registry, "d").id()
    };
    assert_ne!(d(&mut registry.clone(), 3 * SECOND), of_c);
    assert_eq!(d(&mut registry, 1_000 * SECOND), of_c);
}

proptest! {
    #![proptest_config(cases(24))]

    /// Any order of policies: no two buckets share a number, and none takes over a number before the debts under it have
    /// drained.
    #[test]
    fn no_bucket_inherits_a_debt(
        policies in prop::collection::vec(
            (prop::collection::btree_map(0usize..6, (1u64..50, 1u64..500), 0..6), 0u64..200),
            1..16,
        ),
    ) {
        let mut registry = registry();
        let mut now = SECOND;
        // By number: who has it, and when all debts under it have drained.
        let mut holders: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        let mut in_force: BTreeMap<u32, u64> = BTreeMap::new();
        for (services, seconds) in policies {
            now += seconds * SECOND;
            let listed = services
                .iter()
                .map(|(name, (rate, burst))| limited(&format!("s{name}"), *rate, *burst))
                .collect();
            let image = compiled(&policy(listed), &mut registry, now);
            // What was in force until now may have been charged until now.
            for (id, drain) in std::mem::take(&mut in_force) {
                if let Some(holder) = holders.get_mut(&id) {
                    holder.1 = holder.1.max(now + drain);
                }
            }
            for (name, (rate, burst)) in services {
                let spec = bucket(&image, &registry, &format!("s{name}"));
                let held = holders.get(&spec.id()).copied();
                if let Some((holder, drained)) = held && holder != name {
                    prop_assert!(drained <= now, "s{} took over from s{} too early", name, holder);
                    holders.remove(&spec.id());
                }
                prop_assert!(in_force.insert(spec.id(), burst * SECOND / rate).is_none(), "a number is shared");
                holders.entry(spec.id()).or_insert((name, 0)).0 = name;
            }
        }
    }
}
