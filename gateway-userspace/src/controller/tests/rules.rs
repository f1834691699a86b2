//! Bans, lists, levers, rates and upkeep.

use super::*;
use crate::{
    api::types::{
        LeverRequest, LeverStatus, ListAddRequest, ListOrigin, ListRemoveRequest, ListReplaceRequest,
        UnbanRequest, code,
    },
    kernel::{Counter, Losses},
};

fn counter(verdict: &'static str, reason: &'static str, packets: u64) -> Counter {
    Counter {
        interface: "lan0".into(),
        service: "storefront".into(),
        class: String::new(),
        verdict,
        reason,
        packets,
        bytes: packets * 100,
    }
}

#[test]
fn a_ban_that_would_do_nothing_says_why() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let protected = engine.ban(&bans(&[("10.9.0.3", None)]), None).unwrap_err();
    assert_eq!(protected.code, code::NO_EFFECT);
    assert!(
        protected.message.contains("10.9.0.0/28") && protected.message.contains("[[protect]]"),
        "{protected}"
    );

    engine.ban(&bans(&[("203.0.113.0/24", Some(600))]), None).unwrap();
    let covered = engine
        .ban(&bans(&[("203.0.113.7", Some(600))]), None)
        .unwrap_err();
    assert!(covered.message.contains("203.0.113.0/24"), "{covered}");
    // For longer than the wider one it does something.
    assert_eq!(
        engine
            .ban(&bans(&[("203.0.113.7", Some(601))]), None)
            .unwrap()
            .added,
        1
    );
    // The same again, for longer, is a renewal; for no longer it would do nothing.
    assert_eq!(
        engine.ban(&bans(&[("203.0.113.7", None)]), None).unwrap().renewed,
        1
    );
    assert_eq!(
        engine
            .ban(&bans(&[("203.0.113.7", Some(5))]), None)
            .unwrap_err()
            .code,
        code::NO_EFFECT
    );

    let forced = crate::api::types::BansRequest {
        force: true,
        ..bans(&[("10.9.0.3", None)])
    };
    let forced = engine.ban(&forced, None).unwrap();
    assert_eq!((forced.added, forced.warnings.len()), (1, 1));
}

#[test]
fn of_many_bans_those_that_do_something_are_made() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let answer = engine
        .ban(
            &bans(&[
                ("10.9.0.3", None),
                ("203.0.113.0/24", None),
                ("203.0.113.1", None),
                ("10.8.0.0/16", None),
            ]),
            None,
        )
        .unwrap();
    assert_eq!(answer.added, 2);
    let ineffective: Vec<String> = answer
        .ineffective
        .iter()
        .map(|ban| ban.prefix.to_string())
        .collect();
    assert_eq!(
        ineffective,
        ["10.9.0.3/32", "203.0.113.1/32"],
        "protected; covered by one of the same request"
    );
    assert!(
        answer.warnings[0].contains("partly protected"),
        "{:?}",
        answer.warnings
    );
}

#[test]
fn one_wrong_ban_refuses_them_all() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let host_bits = engine
        .ban(&bans(&[("203.0.113.1", None), ("203.0.113.1/24", None)]), None)
        .unwrap_err();
    assert!(host_bits.message.contains("203.0.113.0/24"), "{host_bits}");
    let mut unknown = bans(&[("203.0.113.1", None), ("203.0.113.2", None)]);
    unknown.bans[1].service = Some("shop".into());
    let unknown = engine.ban(&unknown, None).unwrap_err();
    assert_eq!(unknown.code, code::NOT_FOUND);
    assert!(unknown.hint.unwrap().contains("storefront"));
    assert!(engine.ban(&bans(&[("203.0.113.1", Some(0))]), None).is_err());
    assert!(engine.ban(&bans(&[]), None).is_err());
    assert_eq!(engine.list_bans().bans, []);
    assert!(bench.kernel.0.lock().unwrap().bans.is_empty());
}

#[test]
fn the_kernel_gets_the_latest_end_and_a_refusal_leaves_the_book_as_it_was() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine
        .ban(
            &bans(&[("203.0.113.7", Some(10)), ("203.0.113.0/24", Some(600))]),
            None,
        )
        .unwrap();
    let ends = |bench: &Bench| {
        bench
            .kernel
            .0
            .lock()
            .unwrap()
            .bans
            .values()
            .copied()
            .collect::<Vec<_>>()
    };
    let until = engine.clock.now().ns + 600_000_000_000;
    assert_eq!(ends(&bench), [until, until], "the /32 carries the end of the /24");

    bench.kernel.0.lock().unwrap().refuse = Some("no room");
    assert_eq!(
        engine
            .ban(&bans(&[("203.0.113.0/24", None)]), None)
            .unwrap_err()
            .code,
        code::INTERNAL
    );
    assert_eq!(ends(&bench), [until, until]);
    assert_eq!(engine.list_bans().bans[0].seconds_left, Some(600));

    let unban = |prefix: &str| UnbanRequest {
        prefix: prefix.into(),
        service: None,
    };
    let gone = engine.unban(&unban("203.0.113.0/24"), None).unwrap();
    assert_eq!(gone.still_covered_by, None);
    assert_eq!(ends(&bench), [engine.clock.now().ns + 10_000_000_000]);
    assert_eq!(
        engine.unban(&unban("203.0.113.0/24"), None).unwrap_err().code,
        code::NOT_FOUND
    );
}

#[test]
fn unban_points_to_the_ban_that_holds() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.ban(&bans(&[("203.0.113.0/24", None)]), None).unwrap();
    let request = UnbanRequest {
        prefix: "203.0.113.7".into(),
        service: None,
    };
    let failure = engine.unban(&request, None).unwrap_err();
    assert!(failure.hint.unwrap().contains("weir unban 203.0.113.0/24"));
    engine
        .ban(
            &crate::api::types::BansRequest {
                force: true,
                ..bans(&[("203.0.113.7", None)])
            },
            None,
        )
        .unwrap();
    let gone = engine.unban(&request, None).unwrap();
    assert_eq!(
        gone.still_covered_by.unwrap().prefix.to_string(),
        "203.0.113.0/24"
    );
}

#[test]
fn bans_of_a_service_wait_for_it() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let mut request = bans(&[("203.0.113.7", None)]);
    request.bans[0].service = Some("storefront".into());
    engine.ban(&request, None).unwrap();
    engine.apply(prepared("version = 1\n"), None).unwrap();
    assert_eq!(engine.list_bans().bans.len(), 1, "it is kept");
    bench.kernel.0.lock().unwrap().bans.clear();
    engine.apply(prepared(POLICY), None).unwrap();
    assert_eq!(
        bench.kernel.0.lock().unwrap().bans.len(),
        1,
        "and back in force with its service"
    );
}

#[test]
fn monitor_mode_warns_that_a_ban_only_counts() {
    let bench = Bench::new();
    bench.write_policy(&POLICY.replace("interfaces", "mode = \"monitor\"\ninterfaces"));
    let mut engine = bench.start();
    let answer = engine.ban(&bans(&[("203.0.113.7", None)]), None).unwrap();
    assert!(
        answer.warnings.iter().any(|warning| warning.contains("monitor")),
        "{:?}",
        answer.warnings
    );
}

#[test]
fn upkeep_lets_bans_and_temporary_prefixes_go_on_time() {
    let bench = Bench::new();
    let mut engine = bench.start();
    engine.ban(&bans(&[("203.0.113.7", Some(3))]), None).unwrap();
    let add = ListAddRequest {
        prefixes: vec!["100.64.0.0/10".into()],
        for_seconds: Some(4),
        force: false,
    };
    engine.list_add("blocklist", &add, None).unwrap();
    save(&mut engine);
    let start = engine.clock.now().ns;
    assert_eq!(engine.upkeep(), start + 3_000_000_000, "the ban is next");
    bench.clock.pass(3);
    assert_eq!(
        engine.upkeep(),
        start + 3_500_000_000,
        "the change is to be saved"
    );
    assert!(bench.kernel.0.lock().unwrap().bans.is_empty());
    save(&mut engine);
    assert_eq!(engine.upkeep(), start + 4_000_000_000, "then the prefix");
    bench.clock.pass(1);
    bench.kernel.0.lock().unwrap().refuse = Some("busy");
    engine.upkeep();
    assert!(
        engine
            .status()
            .unwrap()
            .problems
            .iter()
            .any(|problem| problem.contains("list entries"))
    );
    engine.upkeep();
    assert_eq!(
        bench.kernel.0.lock().unwrap().lists["blocklist"].len(),
        1,
        "tried again"
    );
    assert_eq!(engine.show_list("blocklist").unwrap().temporary, []);
}

#[test]
fn a_list_is_fed_live_within_its_bounds() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let unknown = engine.show_list("nets").unwrap_err();
    assert!(unknown.hint.unwrap().contains("blocklist"));
    let replace = |prefixes: &[&str], force| ListReplaceRequest {
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        max_change_percent: None,
        force,
    };
    let refused = engine
        .list_replace("blocklist", &replace(&["100.64.0.0/10"], false), None)
        .unwrap_err();
    assert_eq!(refused.code, code::REFUSED);
    let changed = engine
        .list_replace("blocklist", &replace(&["100.64.0.0/10"], true), None)
        .unwrap();
    assert_eq!((changed.added, changed.removed, changed.list.revision), (1, 1, 1));
    assert_eq!(changed.list.source, ListOrigin::Live);
    let applies = bench.kernel.0.lock().unwrap().applies;
    let again = engine
        .list_replace("blocklist", &replace(&["100.64.0.0/10"], false), None)
        .unwrap();
    assert_eq!((again.added, again.list.revision), (0, 2));
    assert_eq!(
        bench.kernel.0.lock().unwrap().applies,
        applies,
        "the same content costs the kernel nothing"
    );

    let add = ListAddRequest {
        prefixes: (0..5).map(|n| format!("101.{n}.0.0/16")).collect(),
        for_seconds: None,
        force: false,
    };
    assert_eq!(
        engine.list_add("blocklist", &add, None).unwrap_err().code,
        code::TOO_LARGE
    );
    let remove = ListRemoveRequest {
        prefixes: vec!["100.64.0.0/10".into()],
        force: false,
    };
    assert_eq!(
        engine
            .list_remove("blocklist", &remove, None)
            .unwrap()
            .list
            .prefixes,
        0
    );
    bench.kernel.0.lock().unwrap().refuse = Some("no room");
    let one = ListAddRequest {
        prefixes: vec!["101.0.0.0/16".into()],
        for_seconds: None,
        force: false,
    };
    assert!(engine.list_add("blocklist", &one, None).is_err());
    assert_eq!(
        engine.show_list("blocklist").unwrap().prefixes,
        [],
        "a refusal leaves it as it was"
    );
}

#[test]
fn levers_replace_their_like_and_are_checked() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let scale = |percent, for_seconds| LeverRequest::Scale {
        service: "storefront".into(),
        percent,
        for_seconds,
    };
    let bypass = |service: Option<&str>| LeverRequest::Bypass {
        service: service.map(str::to_owned),
        all: true,
        for_seconds: 60,
    };
    engine.pull_lever(&scale(50, 60), None).unwrap();
    engine.pull_lever(&bypass(None), None).unwrap();
    let levers = engine.pull_lever(&scale(200, 90), None).unwrap().levers;
    assert_eq!(levers.len(), 2);
    assert!(levers.iter().any(|lever| matches!(
        lever,
        LeverStatus::Scale {
            percent: 200,
            seconds_left: 90,
            ..
        }
    )));
    for wrong in [scale(0, 60), scale(10_001, 60), scale(50, 0), scale(50, 86_401)] {
        assert_eq!(
            engine.pull_lever(&wrong, None).unwrap_err().code,
            code::INVALID_REQUEST
        );
    }
    assert_eq!(
        engine.pull_lever(&bypass(Some("shop")), None).unwrap_err().code,
        code::NOT_FOUND
    );
    bench.clock.pass(60);
    assert_eq!(
        engine.show_levers().unwrap().levers.len(),
        1,
        "an expired one is not shown"
    );
    assert_eq!(engine.clear_levers(None).unwrap().cleared.len(), 1);
    assert_eq!(bench.kernel.0.lock().unwrap().levers, []);
}

#[test]
fn status_tells_rates_reasons_and_what_is_wrong() {
    let bench = Bench::new();
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().counters = vec![counter("pass", "pass", 100)];
    engine.upkeep();
    bench.clock.pass(4);
    bench.kernel.0.lock().unwrap().counters = vec![
        counter("pass", "pass", 500),
        counter("drop", "source_packets", 40),
        counter("would_drop", "ban", 8),
    ];
    let status = engine.status().unwrap();
    assert!(status.ok, "{:?}", status.problems);
    let names: Vec<&str> = status
        .services
        .iter()
        .map(|service| service.service.as_str())
        .collect();
    assert_eq!(names, ["storefront", "default"]);
    let storefront = &status.services[0];
    assert_eq!(
        (
            storefront.pass.packets,
            storefront.drop.bytes,
            storefront.would_drop.packets
        ),
        (500, 4000, 8)
    );
    assert_eq!(storefront.drops["source_packets"].packets, 40);
    assert!(
        (storefront.packets_per_second - 112.0).abs() < 1e-9
            && (storefront.drops_per_second - 10.0).abs() < 1e-9
    );
    assert!((status.rates_over_seconds - 4.0).abs() < 1e-9);

    bench.kernel.0.lock().unwrap().losses = Losses {
        overflow: 3,
        lost_race: 0,
        uncounted: 1,
        ..Losses::default()
    };
    bench
        .kernel
        .0
        .lock()
        .unwrap()
        .attached
        .get_mut("lan0")
        .unwrap()
        .ifindex = 0;
    let status = engine.status().unwrap();
    assert!(!status.ok && !status.attachments[0].present);
    for part in ["vanished", "overflow", "not counted"] {
        assert!(
            status.problems.iter().any(|problem| problem.contains(part)),
            "{part}: {:?}",
            status.problems
        );
    }
    assert!(engine.not_ready().is_some());
}

#[test]
fn detach_is_final_and_names_what_is_not_attached() {
    let bench = Bench::new();
    let mut engine = bench.start();
    assert_eq!(engine.not_ready(), None);
    assert_eq!(
        engine.detach(&["lan5".to_owned()], None).unwrap_err().code,
        code::NOT_FOUND
    );
    let detached = engine.detach(&[], None).unwrap();
    assert_eq!(
        (detached.detached, detached.remaining),
        (vec!["lan0".to_owned()], vec![])
    );
    assert!(engine.not_ready().is_some());
    engine
        .reload(Prepared::from_file(&bench.policy_file()).unwrap())
        .unwrap();
    assert!(
        bench.kernel.0.lock().unwrap().attached.is_empty(),
        "a reload does not attach again"
    );
    assert_eq!(engine.detach(&[], None).unwrap_err().code, code::NOT_FOUND);
}

#[test]
fn ten_thousand_bans_are_one_request() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let prefixes: Vec<String> = (0..10_000_u32)
        .map(|n| format!("11.{}.{}.1", n / 256, n % 256))
        .collect();
    let list: Vec<(&str, Option<u64>)> = prefixes
        .iter()
        .map(|prefix| (prefix.as_str(), Some(60)))
        .collect();
    assert_eq!(engine.ban(&bans(&list), None).unwrap().added, 10_000);
    assert_eq!(bench.kernel.0.lock().unwrap().bans.len(), 10_000);
    bench.clock.pass(60);
    engine.upkeep();
    assert!(engine.list_bans().bans.is_empty() && bench.kernel.0.lock().unwrap().bans.is_empty());
}
