//! Policies that wait for confirmation, and the history.

use super::*;
use crate::{
    api::{
        error::Failure,
        types::{LeverRequest, ListAddRequest, UnbanRequest, code},
    },
    controller::policy_ops::Target,
    state::Outcome,
};

const OTHER: &str = "version = 1\ninterfaces = [\"lan0\"]\nmode = \"monitor\"\n[[service]]\nname = \"new\"\nprotocol = \"tcp\"\n";

impl Bench {
    fn judged_by(&self) -> String {
        let kernel = self.kernel.0.lock().unwrap();
        kernel.in_force().unwrap_or_default().to_owned()
    }
}

fn outcomes(engine: &Engine) -> Vec<(u64, Outcome)> {
    let history = engine.show_history();
    history
        .revisions
        .iter()
        .rev()
        .map(|held| (held.revision, held.outcome))
        .collect()
}

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>) {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code::CONFLICT);
    assert!(
        failure.message.contains("weir policy confirm") && failure.message.contains("weir policy rollback"),
        "{failure}"
    );
}

#[test]
fn an_unconfirmed_policy_reverts_and_a_confirmed_one_stays() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let applied = engine.apply_within(prepared(OTHER), 60, None).unwrap();
    let pending = applied.pending.unwrap();
    assert_eq!(
        (applied.revision, pending.seconds_left, pending.before),
        (2, 60, 1)
    );
    assert_eq!(bench.judged_by(), OTHER);
    assert_eq!(engine.policy().policy.pending, Some(pending));
    assert_eq!(engine.observe().unwrap().pending, 1);
    bench.clock.pass(59);
    engine.upkeep();
    assert_eq!(engine.policy().policy.revision, 2);
    bench.clock.pass(1);
    assert_eq!(bench.judged_by(), POLICY, "the kernel does not wait for anybody");
    engine.upkeep();
    let policy = engine.policy();
    assert_eq!((policy.text.as_str(), policy.policy.revision), (POLICY, 1));
    assert_eq!(policy.policy.pending, None);
    assert_eq!(engine.confirm(None).unwrap_err().code, code::CONFLICT, "too late");

    let applied = engine.apply_within(prepared(OTHER), 60, None).unwrap();
    assert_eq!(applied.revision, 3, "numbers are not used twice");
    assert_eq!(engine.confirm(None).unwrap().revision, 3);
    assert_eq!(engine.confirm(None).unwrap_err().code, code::CONFLICT);
    bench.clock.pass(600);
    engine.upkeep();
    assert_eq!(bench.judged_by(), OTHER);
    assert_eq!(
        outcomes(&engine),
        [
            (1, Outcome::Replaced),
            (2, Outcome::Reverted),
            (3, Outcome::InForce)
        ]
    );
    drop(engine);
    let mut engine = bench.start();
    assert_eq!(
        (engine.policy().text.as_str(), engine.policy().policy.revision),
        (OTHER, 3)
    );
}

#[test]
fn only_bans_change_while_a_policy_waits() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine
        .list_add(
            "blocklist",
            &ListAddRequest {
                prefixes: vec!["203.0.113.9".into()],
                for_seconds: Some(30),
                force: false,
            },
            None,
        )
        .unwrap();
    engine.apply_within(prepared(OTHER), 60, None).unwrap();
    refused(engine.apply(prepared(POLICY), None));
    refused(engine.apply_within(prepared(POLICY), 5, None));
    refused(engine.reload(Prepared::from_file(&bench.policy_file()).unwrap()));
    let add = ListAddRequest {
        prefixes: vec!["203.0.113.10".into()],
        for_seconds: None,
        force: false,
    };
    refused(engine.list_add("blocklist", &add, None));
    let scale = LeverRequest::Scale {
        service: "new".into(),
        percent: 50,
        for_seconds: 60,
    };
    refused(engine.pull_lever(&scale, None));
    refused(engine.clear_levers(None));
    refused(engine.rollback_target(Some(77)));
    assert_eq!(outcomes(&engine).len(), 2, "what was refused is no revision");

    // For services of both policies.
    for service in ["storefront", "new"] {
        let mut ban = bans(&[("203.0.113.7", None)]);
        ban.bans[0].service = Some(service.into());
        engine.ban(&ban, None).unwrap();
    }
    let unban = UnbanRequest {
        prefix: "203.0.113.7".into(),
        service: Some("new".into()),
    };
    engine.unban(&unban, None).unwrap();
    // A list entry ends when the policy has been decided upon, and the upkeep does not spin until then.
    bench.clock.pass(40);
    let next = engine.upkeep();
    assert!(engine.nanoseconds_to(next) > 0);
    engine.take_back(None).unwrap();
    engine.upkeep();
    let kernel = bench.kernel.0.lock().unwrap();
    assert_eq!(kernel.lists["blocklist"].len(), 1, "the entry has ended");
    let held: Vec<Option<&str>> = kernel
        .bans
        .keys()
        .map(|(_, service)| service.as_deref())
        .collect();
    assert_eq!(held, [Some("storefront")]);
}

#[test]
fn the_bypass_lever_takes_a_pending_policy_back_first() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.apply_within(prepared(OTHER), 60, None).unwrap();
    let bypass = LeverRequest::Bypass {
        service: None,
        all: false,
        for_seconds: 600,
    };
    let answer = engine.pull_lever(&bypass, None).unwrap();
    assert_eq!(answer.levers.len(), 1);
    assert!(answer.warnings[0].contains("revision 2"), "{:?}", answer.warnings);
    assert_eq!(bench.judged_by(), POLICY);
    assert_eq!(outcomes(&engine)[1], (2, Outcome::RolledBack));
}

#[test]
fn a_rollback_takes_back_what_waits_and_else_the_last_change() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let fails = engine.rollback_target(None).unwrap_err();
    assert_eq!(fails.code, code::NOT_FOUND);
    engine.apply_within(prepared(OTHER), 60, None).unwrap();
    assert!(matches!(engine.rollback_target(None).unwrap(), Target::Before));
    let back = engine.take_back(None).unwrap();
    assert_eq!((back.revision, back.taken_back, back.restores), (1, 2, None));
    assert_eq!(bench.judged_by(), POLICY);
    assert_eq!(
        engine.rollback_target(None).unwrap_err().code,
        code::NOT_FOUND,
        "2 never stayed"
    );

    engine.apply(prepared(OTHER), None).unwrap();
    let back_to = |engine: &mut Engine, to| {
        let Target::Revision(target) = engine.rollback_target(to).unwrap() else {
            panic!("nothing waits");
        };
        let text = target.text.unwrap();
        let prepared = Prepared::from_text(&text, &target.path).unwrap();
        engine.roll_back_to(prepared, target.revision, None).unwrap()
    };
    let back = back_to(&mut engine, None);
    assert_eq!((back.revision, back.taken_back, back.restores), (4, 3, Some(1)));
    assert_eq!(bench.judged_by(), POLICY);
    let back = back_to(&mut engine, None);
    assert_eq!(
        (back.revision, back.restores),
        (5, Some(3)),
        "a rollback is rolled back"
    );
    let back = back_to(&mut engine, Some(1));
    assert_eq!((back.revision, bench.judged_by()), (6, POLICY.to_owned()));
    let same = engine.rollback_target(Some(4)).unwrap_err();
    assert_eq!(same.code, code::NO_EFFECT);
    assert_eq!(
        engine.rollback_target(Some(99)).unwrap_err().code,
        code::NOT_FOUND
    );
    assert_eq!(
        outcomes(&engine)[2..],
        [
            (3, Outcome::RolledBack),
            (4, Outcome::RolledBack),
            (5, Outcome::RolledBack),
            (6, Outcome::InForce)
        ]
    );
}

#[test]
fn a_start_adopts_a_policy_that_waits() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.apply_within(prepared(OTHER), 60, None).unwrap();
    drop(engine);
    bench.clock.pass(20);
    // Not even an edited file takes its place, nor that of the policy it goes back to.
    bench.write_policy(&format!("{POLICY}# edited\n"));
    let mut engine = bench.start();
    let policy = engine.policy();
    assert_eq!((policy.text.as_str(), policy.policy.revision), (OTHER, 2));
    assert_eq!(policy.policy.pending.unwrap().seconds_left, 40);
    bench.clock.pass(40);
    engine.upkeep();
    assert_eq!(engine.policy().text, POLICY);
    assert_eq!(bench.judged_by(), POLICY);
    assert_eq!(outcomes(&engine), [(1, Outcome::InForce), (2, Outcome::Reverted)]);
    // The file has changed since it was last read, so the next start reads it.
    drop(engine);
    assert!(bench.start().policy().text.ends_with("# edited\n"));
}

#[test]
fn a_start_after_the_time_finds_the_policy_before() {
    let bench = Bench::new();
    let mut engine = bench.start();
    // The file itself: it must not come back as the file's policy either.
    bench.write_policy(OTHER);
    let file = Prepared::from_file(&bench.policy_file()).unwrap();
    engine.apply_within(file, 60, None).unwrap();
    drop(engine);
    bench.clock.pass(61);
    let mut engine = bench.start();
    assert_eq!(engine.policy().text, POLICY);
    assert!(engine.policy().policy.differs_from_file);
    assert_eq!(outcomes(&engine), [(1, Outcome::InForce), (2, Outcome::Reverted)]);
    drop(engine);
    {
        // And after a reboot.
        let mut kernel = bench.kernel.0.lock().unwrap();
        kernel.text = None;
        kernel.attached.clear();
    }
    assert_eq!(bench.start().policy().text, POLICY);
}

#[test]
fn a_reboot_takes_back_what_waits() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.apply_within(prepared(OTHER), 600, None).unwrap();
    drop(engine);
    {
        let mut kernel = bench.kernel.0.lock().unwrap();
        kernel.text = None;
        kernel.waiting = None;
        kernel.attached.clear();
    }
    let mut engine = bench.start();
    assert_eq!(
        (engine.policy().text.as_str(), bench.judged_by().as_str()),
        (POLICY, POLICY)
    );
    assert_eq!(outcomes(&engine)[1], (2, Outcome::Reverted));
}

/// A crash anywhere between the kernel's switch and the last file leaves something that a start reads right.
#[test]
fn a_crash_at_any_point_of_a_decision_is_read_right() {
    for (decision, survives) in [("confirm", OTHER), ("revert", POLICY)] {
        for written in ["nothing", "policy.json", "history.json"] {
            let bench = Bench::new();
            let mut engine = bench.start();
            engine.apply_within(prepared(OTHER), 60, None).unwrap();
            let state = bench.dir.path().join("state");
            let before =
                ["policy.json", "history.json"].map(|file| (file, fs::read(state.join(file)).unwrap()));
            match decision {
                "confirm" => drop(engine.confirm(None).unwrap()),
                _ => drop(engine.take_back(None).unwrap()),
            }
            drop(engine);
            // They are written in this order.
            let kept = ["nothing", "policy.json", "history.json"]
                .iter()
                .position(|file| *file == written)
                .unwrap();
            for (file, bytes) in &before[kept..] {
                fs::write(state.join(file), bytes).unwrap();
            }
            let mut engine = bench.start();
            let policy = engine.policy();
            assert_eq!(policy.text, survives, "{decision}, {written}");
            assert_eq!(policy.policy.pending, None);
            assert_eq!(bench.judged_by(), survives);
            let in_force: Vec<u64> = outcomes(&engine)
                .into_iter()
                .filter(|(_, outcome)| *outcome == Outcome::InForce)
                .map(|(revision, _)| revision)
                .collect();
            assert_eq!(in_force, [policy.policy.revision], "{decision}, {written}");
        }
    }
}

/// Killed between writing down that a policy will wait and its being in force.
#[test]
fn a_policy_that_never_came_into_force_is_reverted() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.apply_within(prepared(OTHER), 60, None).unwrap();
    drop(engine);
    bench.kernel.0.lock().unwrap().waiting = None;
    let mut engine = bench.start();
    assert_eq!(engine.policy().text, POLICY);
    assert_eq!(outcomes(&engine), [(1, Outcome::InForce), (2, Outcome::Reverted)]);
}

#[test]
fn a_policy_that_nobody_knows_any_more_is_taken_back() {
    for file in ["history.json", "policy.json"] {
        let bench = Bench::new();
        let mut engine = bench.start();
        engine.apply_within(prepared(OTHER), 60, None).unwrap();
        drop(engine);
        corrupt(&bench.dir.path().join("state").join(file));
        let mut engine = bench.start();
        assert_eq!(engine.policy().text, POLICY, "{file}");
        assert_eq!(bench.judged_by(), POLICY);
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_has_failed() {
    let bench = Bench::new();
    let mut engine = bench.start();
    for within in [None, Some(60)] {
        bench.kernel.0.lock().unwrap().refuse = Some("no room");
        let failure = match within {
            None => engine.apply(prepared(OTHER), None).unwrap_err(),
            Some(seconds) => engine.apply_within(prepared(OTHER), seconds, None).unwrap_err(),
        };
        assert_eq!(failure.code, code::INTERNAL);
        assert_eq!(engine.policy().policy.pending, None);
    }
    assert_eq!(
        outcomes(&engine),
        [(1, Outcome::InForce), (2, Outcome::Failed), (3, Outcome::Failed)]
    );
    let why = engine.show_history().revisions[0].why.clone();
    assert_eq!(why.as_deref(), Some("no room"));
    drop(engine);
    assert_eq!(bench.start().policy().policy.revision, 1);
}

#[test]
fn a_policy_that_cannot_be_written_down_does_not_wait() {
    let bench = Bench::new();
    let mut engine = bench.start();
    // A directory in the way of the file that is renamed into place.
    let history = bench.dir.path().join("state/history.json");
    fs::remove_file(&history).unwrap();
    fs::create_dir_all(history.join("in the way")).unwrap();
    let failure = engine.apply_within(prepared(OTHER), 60, None).unwrap_err();
    assert!(failure.message.contains("not applied"), "{failure}");
    assert_eq!(bench.judged_by(), POLICY);
    assert_eq!(outcomes(&engine).len(), 1);
}

#[test]
fn times_have_bounds() {
    let bench = Bench::new();
    let mut engine = bench.start();
    for seconds in [0, 3_601] {
        let failure = engine.apply_within(prepared(OTHER), seconds, None).unwrap_err();
        assert_eq!(failure.code, code::INVALID_REQUEST);
    }
}
