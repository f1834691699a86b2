//! The sign of life that the kernel waits for.

use super::*;

const OPEN: &str = "[controller]\non_loss = \"open\"\nafter = \"60s\"\n";

fn opens_at(bench: &Bench) -> u64 {
    bench.kernel.0.lock().unwrap().open_at_ns
}

#[test]
fn under_hold_the_kernel_never_opens() {
    let bench = Bench::new();
    bench.kernel.0.lock().unwrap().open_at_ns = 77;
    let mut engine = bench.start();
    assert_eq!(opens_at(&bench), 0, "what an earlier policy said is taken back");
    bench.clock.pass(100);
    engine.beat();
    assert_eq!(opens_at(&bench), 0);
}

#[test]
fn under_open_every_beat_moves_the_end_on_and_silence_does_not() {
    let bench = Bench::new();
    bench.write_policy(&format!("{POLICY}{OPEN}"));
    let mut engine = bench.start();
    let started = bench.clock.now().ns;
    assert_eq!(opens_at(&bench), started + 60_000_000_000, "at once");
    bench.clock.pass(5);
    let rest = engine.beat();
    assert!(rest.as_secs() <= 5, "{rest:?}");
    assert_eq!(opens_at(&bench), started + 65_000_000_000);
    let status = engine.status().unwrap();
    assert_eq!(status.controller.after_seconds, Some(60));
    drop(engine);
    bench.clock.pass(100);
    assert_eq!(opens_at(&bench), started + 65_000_000_000);
}

#[test]
fn a_changed_policy_counts_at_once() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine
        .apply(prepared(&format!("{POLICY}{}", OPEN.replace("60s", "10s"))), None)
        .unwrap();
    assert_eq!(opens_at(&bench), bench.clock.now().ns + 10_000_000_000);
    assert!(engine.beat().as_secs_f64() < 3.4, "a third of the time at most");
    engine.apply(prepared(POLICY), None).unwrap();
    assert_eq!(opens_at(&bench), 0);
}

#[test]
fn a_policy_that_is_not_confirmed_takes_its_beat_with_it() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine
        .apply_within(prepared(&format!("{POLICY}{OPEN}")), 5, None)
        .unwrap();
    assert_ne!(opens_at(&bench), 0);
    bench.clock.pass(6);
    engine.upkeep();
    assert_eq!(opens_at(&bench), 0);
}

#[test]
fn a_kernel_that_cannot_be_told_is_a_problem_until_it_can() {
    let bench = Bench::new();
    bench.write_policy(&format!("{POLICY}{OPEN}"));
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().refuse = Some("no more writes");
    engine.beat();
    let problems = engine.status().unwrap().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("no more writes")),
        "{problems:?}"
    );
    engine.beat();
    let problems = engine.status().unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_door_that_cannot_be_set_is_a_warning_and_a_problem_and_no_refusal() {
    struct Stuck;
    impl crate::controller::access::Door for Stuck {
        fn let_in(&self, group: Option<&str>) -> Result<(), String> {
            group.map_or(Ok(()), |group| Err(format!("there is no group {group}")))
        }
    }
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.mind_the_door(Box::new(Stuck));
    assert!(engine.status().unwrap().ok);
    let text = format!("{POLICY}[controller]\nsocket_group = \"ghosts\"\n");
    let applied = engine.apply(prepared(&text), None).unwrap();
    assert_eq!(applied.warnings, ["there is no group ghosts"]);
    let problems = engine.status().unwrap().problems;
    assert!(
        problems.contains(&"there is no group ghosts".to_owned()),
        "{problems:?}"
    );
    engine.apply(prepared(POLICY), None).unwrap();
    let problems = engine.status().unwrap().problems;
    assert!(
        !problems.iter().any(|problem| problem.contains("ghosts")),
        "{problems:?}"
    );
}
