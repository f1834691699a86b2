//! What a start puts in force, and what survives a stop.

use super::*;
use crate::{
    api::types::{ListAddRequest, ListReplaceRequest, code},
    kernel::Lever,
};

const OTHER: &str = "version = 1\ninterfaces = [\"lan0\"]\nmode = \"monitor\"\n";

#[test]
fn the_last_applied_policy_stays_unless_the_file_has_changed() {
    let bench = Bench::new();
    let mut engine = bench.start();
    assert!(!engine.policy().policy.differs_from_file);
    let applied = engine.apply(prepared(OTHER), None).unwrap();
    assert_eq!(applied.revision, 2);
    let status = engine.status().unwrap();
    assert!(
        status.policy.differs_from_file && !status.ok,
        "{:?}",
        status.problems
    );

    drop(engine);
    let mut engine = bench.start();
    let policy = engine.policy();
    assert_eq!(
        (policy.text.as_str(), policy.policy.revision),
        (OTHER, 2),
        "nothing has changed: it stays"
    );
    assert!(policy.policy.differs_from_file);

    drop(engine);
    bench.write_policy(&format!("{POLICY}# edited\n"));
    let mut engine = bench.start();
    let policy = engine.policy();
    assert!(
        policy.text.ends_with("# edited\n"),
        "the file has changed: it is read"
    );
    assert_eq!(policy.policy.revision, 3);
    assert!(!policy.policy.differs_from_file);
}

#[test]
fn a_reload_takes_the_file_even_when_something_else_was_applied() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.apply(prepared(OTHER), None).unwrap();
    engine
        .reload(Prepared::from_file(&bench.policy_file()).unwrap())
        .unwrap();
    assert_eq!(bench.kernel.0.lock().unwrap().text.as_deref(), Some(POLICY));
    drop(engine);
    assert_eq!(bench.start().policy().text, POLICY);
}

#[test]
fn a_damaged_state_never_stops_a_start() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.ban(&bans(&[("203.0.113.7", None)]), None).unwrap();
    let add = ListAddRequest {
        prefixes: vec!["203.0.113.9".into()],
        for_seconds: None,
        force: false,
    };
    engine.list_add("blocklist", &add, None).unwrap();
    save(&mut engine);
    drop(engine);
    let state = bench.dir.path().join("state");
    for file in ["policy.json", "bans.json", "list-blocklist.json"] {
        assert!(state.join(file).exists(), "{file}");
        corrupt(&state.join(file));
    }
    let mut engine = bench.start();
    assert_eq!(engine.list_bans().bans, []);
    assert_eq!(engine.policy().text, POLICY);
    for file in ["policy.json", "bans.json", "list-blocklist.json"] {
        assert!(state.join(format!("{file}.corrupt-1")).exists(), "{file}");
    }
}

#[test]
fn bans_and_lists_survive_a_restart_and_the_kernel_is_brought_up_to_date() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine
        .ban(
            &bans(&[
                ("203.0.113.7", Some(60)),
                ("203.0.113.8", Some(600)),
                ("2001:db8::/48", None),
            ]),
            None,
        )
        .unwrap();
    let replace = ListReplaceRequest {
        prefixes: vec!["100.64.0.0/10".into()],
        force: true,
        ..Default::default()
    };
    engine.list_replace("blocklist", &replace, None).unwrap();
    save(&mut engine);
    drop(engine);
    {
        // A reboot: the kernel has forgotten everything, and holds a ban that nobody made.
        let mut kernel = bench.kernel.0.lock().unwrap();
        kernel.bans.clear();
        kernel
            .bans
            .insert(("9.9.9.9/32".parse().unwrap(), None), u64::MAX);
    }
    bench.clock.pass(60);
    let engine = bench.start();
    let held: Vec<String> = engine
        .list_bans()
        .bans
        .iter()
        .map(|ban| ban.prefix.to_string())
        .collect();
    assert_eq!(held, ["203.0.113.8/32", "2001:db8::/48"]);
    assert_eq!(engine.list_bans().bans[0].seconds_left, Some(540));
    let kernel = bench.kernel.0.lock().unwrap();
    let entries: Vec<String> = kernel.bans.keys().map(|(prefix, _)| prefix.to_string()).collect();
    assert_eq!(entries, held);
    assert_eq!(kernel.lists["blocklist"], ["100.64.0.0/10".parse().unwrap()]);
}

#[test]
fn a_failed_attach_takes_back_what_it_made_and_leaves_the_rest() {
    let bench = Bench::new();
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().unwilling.push("lan9".into());
    let names = ["lan0", "lan1", "lan9"].map(str::to_owned);
    let failure = engine.attach(&names, XdpModeChoice::Auto).unwrap_err();
    assert!(failure.message.contains("lan9"));
    let attached: Vec<String> = bench.kernel.0.lock().unwrap().attached.keys().cloned().collect();
    assert_eq!(attached, ["lan0"], "lan1 was new, lan0 was in force before");
}

#[test]
fn levers_outlive_an_apply_unless_their_service_goes() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let node = Lever::Bypass {
        service: None,
        all: false,
        until_ns: u64::MAX,
    };
    let scale = Lever::Scale {
        service: "storefront".into(),
        percent: 50,
        until_ns: u64::MAX,
    };
    bench.kernel.0.lock().unwrap().levers = vec![node.clone(), scale.clone()];
    engine
        .apply(prepared(&format!("{POLICY}# again\n")), None)
        .unwrap();
    assert_eq!(bench.kernel.0.lock().unwrap().levers, [node.clone(), scale]);
    engine.apply(prepared(OTHER), None).unwrap();
    assert_eq!(bench.kernel.0.lock().unwrap().levers, [node]);
}

#[test]
fn a_policy_that_the_kernel_refuses_changes_nothing() {
    let bench = Bench::new();
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().refuse = Some("no room");
    assert_eq!(
        engine.apply(prepared(OTHER), None).unwrap_err().code,
        code::INTERNAL
    );
    let policy = engine.policy();
    assert_eq!((policy.text.as_str(), policy.policy.revision), (POLICY, 1));
    drop(engine);
    assert_eq!(bench.start().policy().policy.revision, 1);
}

#[test]
fn a_policy_with_less_room_than_the_live_list_is_refused() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let prefixes: Vec<String> = (0..5).map(|n| format!("100.{n}.0.0/16")).collect();
    let replace = ListReplaceRequest {
        prefixes,
        force: true,
        ..Default::default()
    };
    engine.list_replace("blocklist", &replace, None).unwrap();
    let tighter = POLICY.replace("max_prefixes = 5", "max_prefixes = 4");
    assert_eq!(
        engine.apply(prepared(&tighter), None).unwrap_err().code,
        code::CONFLICT
    );
    save(&mut engine);
    drop(engine);
    // A start must come up all the same: the policy's own content holds then.
    bench.write_policy(&tighter);
    drop(bench.start());
    assert_eq!(bench.kernel.0.lock().unwrap().lists["blocklist"].len(), 1);
}

#[test]
fn another_size_of_the_source_table_needs_a_restart() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let larger = format!("{POLICY}\n[source]\nmax_tracked = 2_000_000\n");
    bench.write_policy(&larger);
    let failure = engine
        .reload(Prepared::from_file(&bench.policy_file()).unwrap())
        .unwrap_err();
    assert_eq!(failure.code, code::CONFLICT);
    engine.apply(prepared(OTHER), None).unwrap();
    drop(engine);
    assert_eq!(
        bench.start().policy().text,
        larger,
        "the file was never in force, so it has changed"
    );
}
