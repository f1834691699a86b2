//! Faults that pass: interfaces that come back, pins that lose their place, a disk that is full, clocks that jump.

use std::fs;

use super::{Bench, bans, prepared, save};
use crate::{
    controller::engine::Engine,
    kernel::Pinned,
    state::{PolicyState, Store},
};

fn problems(engine: &mut Engine) -> String {
    engine.status().unwrap().problems.join("\n")
}

#[test]
fn an_interface_that_is_back_is_attached_to_again() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let set = |ifindex, unwilling: &[&str]| {
        let mut kernel = bench.kernel.0.lock().unwrap();
        if let Some(attachment) = kernel.attached.get_mut("lan0") {
            attachment.ifindex = ifindex;
        }
        kernel.unwilling = unwilling.iter().map(|name| (*name).to_owned()).collect();
    };
    let present = || {
        bench
            .kernel
            .0
            .lock()
            .unwrap()
            .attached
            .get("lan0")
            .map(|attachment| attachment.ifindex)
    };
    set(0, &["lan0"]);
    engine.upkeep();
    assert!(problems(&mut engine).contains("lan0 has vanished"));
    assert!(engine.not_ready().is_some());
    set(0, &[]);
    engine.upkeep();
    assert_eq!(present(), Some(0), "looked at once a second");
    bench.clock.pass(1);
    engine.upkeep();
    assert_eq!(present(), Some(7));
    assert!(!problems(&mut engine).contains("lan0") && engine.not_ready().is_none());
    // What was detached on purpose stays off.
    engine.detach(&[], None).unwrap();
    bench.clock.pass(5);
    engine.upkeep();
    assert_eq!(present(), None);
}

#[test]
fn a_renamed_interface_shows() {
    let bench = Bench::new();
    let mut engine = bench.start();
    if let Some(attachment) = bench.kernel.0.lock().unwrap().attached.get_mut("lan0") {
        attachment.renamed = Some("wan0".into());
    }
    assert!(problems(&mut engine).contains("interface lan0 is called wan0 now"));
}

#[test]
fn pins_without_a_place_are_a_problem_until_they_have_one() {
    let bench = Bench::new();
    let mut engine = bench.start();
    for (pinned, words) in [
        (Pinned::Unmounted, "was unmounted"),
        (Pinned::Removed, "was removed"),
        (Pinned::Restored, ""),
        (Pinned::InPlace, ""),
    ] {
        bench.kernel.0.lock().unwrap().pinned = Some(pinned);
        let problems = problems(&mut engine);
        assert!(problems.contains(words), "{pinned:?}: {problems}");
        assert_eq!(problems.is_empty(), words.is_empty(), "{pinned:?}: {problems}");
    }
}

#[test]
fn a_policy_that_cannot_be_saved_is_saved_later() {
    let bench = Bench::new();
    let mut engine = bench.start();
    save(&mut engine);
    let state = bench.dir.path().join("state");
    // A folder where the new file would be written.
    let in_the_way = state.join(format!(".{}.new", PolicyState::FILE));
    fs::create_dir(&in_the_way).unwrap();
    let text = "version = 1\n# another\n";
    let applied = engine.apply(prepared(text), None).unwrap();
    assert!(
        applied
            .warnings
            .iter()
            .any(|warning| warning.contains("would be lost with the next restart")),
        "{:?}",
        applied.warnings
    );
    assert!(problems(&mut engine).contains("not saved"));
    engine.upkeep();
    assert!(problems(&mut engine).contains("not saved"), "still");
    fs::remove_dir(&in_the_way).unwrap();
    engine.upkeep();
    assert!(!problems(&mut engine).contains("not saved"));
    drop(engine);
    let store = Store::open(&state).unwrap();
    let saved: PolicyState = store.load(PolicyState::FILE).unwrap().unwrap();
    assert_eq!((saved.text.as_str(), saved.revision), (text, applied.revision));
}

#[test]
fn a_step_of_the_wall_clock_moves_no_ban() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.ban(&bans(&[("203.0.113.7", Some(60))]), None).unwrap();
    let end = |bench: &Bench| {
        let kernel = bench.kernel.0.lock().unwrap();
        kernel.bans.values().copied().next()
    };
    let before = end(&bench);
    assert!(before.is_some());
    for step in [7_200, -14_400] {
        bench.clock.step(step);
        engine.upkeep();
        assert_eq!(end(&bench), before, "stepped by {step} s");
        save(&mut engine);
        drop(engine);
        engine = bench.start();
        assert_eq!(end(&bench), before, "restarted after a step of {step} s");
    }
    bench.clock.pass(60);
    engine.upkeep();
    assert_eq!(end(&bench), None, "it ends when it should");
}
