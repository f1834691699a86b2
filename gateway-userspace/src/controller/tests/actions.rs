//! Steps against attacks: levers and bans that end by themselves, are told, undone and known again.

use gateway_detect::{
    Carrier, Finding, Kind as Attack, Observation, Sighting, Verdict,
    normal::{Load, Normal},
};
use ipnet::IpNet;

use super::*;
use crate::{
    action::Case,
    api::{
        actions::{ActionState, ActionStatus, UndoRequest},
        types::{LeverRequest, LeverStatus},
    },
    events::{Entry, Kind},
    kernel::Lever,
    policy::model::AttackAction,
};

/// `tighten` for the storefront, `ban` for the mail.
fn policy(settings: &str) -> String {
    format!(
        "{POLICY}  [service.per_source]\n  packets = {{ rate = 2000, burst = 4000 }}\n  [service.on_attack]\n  action = \"tighten\"\n\
         {settings}\n[[service]]\nname = \"mail\"\nprotocol = \"tcp\"\nports = [25]\n  [service.on_attack]\n  action = \"ban\"\n  max_bans = 3\n"
    )
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write_policy(&policy(""));
    bench
}

/// Twenty minutes of 600 sources with two packets a second each, of which all were sampled.
fn normal() -> Normal {
    let mut normal = Normal::default();
    for at in 1..=1_200_u32 {
        let sightings = (0..100_u32).flat_map(|n| {
            let source = std::net::Ipv4Addr::from(0x0a01_0000 + (at % 6 * 100 + n) * 7);
            let one = Sighting {
                weight: 1.0,
                source: IpNet::new(source.into(), 32).unwrap(),
                network: IpNet::new(source.into(), 24).unwrap().trunc(),
                protocol: 6,
                source_port: 40_000,
                destination_port: 443,
                length: 300,
                tcp_flags: 0x10,
                connection: false,
                dropped: false,
                country: None,
            };
            [one, one]
        });
        let observation = Observation {
            seconds: 1.0,
            packets: 200.0,
            bytes: 60_000.0,
            sources_per_minute: Some(600.0),
            sightings: sightings.collect(),
            ..Observation::default()
        };
        normal.learn(1.79e9 + f64::from(at), &observation);
    }
    normal
}

fn case(service: &str, verdict: Verdict, normal: &Normal) -> Case {
    let carriers = [
        "203.0.113.1/32",
        "203.0.113.2/32",
        "203.0.113.3/32",
        "192.0.2.77/32",
    ];
    let finding = Finding {
        verdict,
        since: 1.8e9,
        at: 1.8e9,
        packets_per_second: 90_000.0,
        carriers: carriers
            .iter()
            .map(|prefix| Carrier {
                prefix: prefix.parse().unwrap(),
                packets_per_second: 20_000.0,
                share: 0.25,
            })
            .collect(),
        ..Finding::default()
    };
    Case {
        service: service.into(),
        load: Load {
            packets: finding.packets_per_second,
            bytes: 2.7e7,
            connections: 10.0,
        },
        finding,
        normal: normal.clone(),
    }
}

const ATTACK: Verdict = Verdict::Attack(Attack::FewSources);

fn told(engine: &Engine, kind: Kind) -> Vec<Entry> {
    let events = engine.events().last(1_000, None).events;
    let events = events.into_iter().map(|event| event.entry);
    events.filter(|entry| entry.kind == kind).collect()
}

fn scale(bench: &Bench) -> Option<u32> {
    let kernel = bench.kernel.0.lock().unwrap();
    kernel.levers.iter().find_map(|lever| match lever {
        Lever::Scale {
            service,
            percent,
            until_ns,
        } if service == "storefront" => (*until_ns > kernel.clock.now().ns).then_some(*percent),
        _ => None,
    })
}

fn status(engine: &mut Engine, service: &str) -> Option<ActionStatus> {
    let status = engine.status().unwrap();
    status
        .actions
        .into_iter()
        .find(|action| action.service == service)
}

fn undo(engine: &mut Engine, service: Option<&str>) -> Result<Vec<ActionStatus>, &'static str> {
    let request = UndoRequest {
        service: service.map(str::to_owned),
    };
    let undone = engine.undo_actions(&request, None);
    undone.map(|answer| answer.undone).map_err(|failure| failure.code)
}

#[test]
fn an_attack_tightens_and_the_step_ends_by_itself() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    assert_eq!(
        engine.acting_for(),
        [("storefront".to_owned(), false), ("mail".to_owned(), false)]
    );
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(20));
    let taken = told(&engine, Kind::ActionTaken);
    assert_eq!(taken.len(), 1);
    assert!(
        taken[0]
            .what
            .contains("attack (few_sources) on storefront: limits at 20 % until")
            && taken[0]
                .why
                .as_ref()
                .unwrap()
                .contains("of normal sources are hit"),
        "{taken:?}"
    );
    let shown = status(&mut engine, "storefront").unwrap();
    assert_eq!(
        (shown.action, shown.state, shown.percent, shown.seconds_left),
        (AttackAction::Tighten, ActionState::InForce, Some(20), Some(600))
    );
    assert!(shown.share.unwrap() < 0.01);
    let lever = engine.show_levers().unwrap().levers;
    assert!(matches!(
        &lever[..],
        [LeverStatus::Scale {
            percent: 20,
            seconds_left: 600,
            ..
        }]
    ));
    assert!(
        engine
            .automatic("storefront")
            .unwrap()
            .contains("weir anomalies undo storefront")
    );

    // The attack is over; the step stays for its time and no longer.
    bench.clock.pass(300);
    engine.react(&case("storefront", Verdict::Quiet, &normal));
    engine.upkeep();
    assert_eq!(scale(&bench), Some(20));
    bench.clock.pass(300);
    engine.upkeep();
    assert_eq!(scale(&bench), None, "the kernel ended it");
    assert_eq!(
        told(&engine, Kind::ActionEnded)[0].why.as_deref(),
        Some("its time is over")
    );
    engine.react(&case("storefront", Verdict::Quiet, &normal));
    assert_eq!(status(&mut engine, "storefront"), None);
    assert_eq!(engine.automatic("storefront"), None);
}

#[test]
fn an_attack_that_goes_on_is_held_without_a_gap() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    for _second in 0..700 {
        engine.react(&case("storefront", ATTACK, &normal));
        engine.upkeep();
        assert_eq!(scale(&bench), Some(20));
        bench.clock.pass(1);
    }
    assert_eq!(
        told(&engine, Kind::ActionTaken).len(),
        2,
        "once, and once again before it ended"
    );
    assert_eq!(told(&engine, Kind::ActionEnded).len(), 0);
}

#[test]
fn crowds_stealth_and_learning_are_never_acted_upon() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    for verdict in [
        Verdict::Crowd,
        Verdict::Stealth,
        Verdict::Learning,
        Verdict::Quiet,
    ] {
        for service in ["storefront", "mail"] {
            engine.react(&case(service, verdict, &normal));
        }
    }
    assert!(bench.kernel.0.lock().unwrap().levers.is_empty() && engine.list_bans().bans.is_empty());
    assert_eq!(
        told(&engine, Kind::ActionTaken).len() + told(&engine, Kind::ActionWithheld).len(),
        0
    );
    // What an attack has left in force is taken off a crowd at once.
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(20));
    engine.react(&case("storefront", Verdict::Crowd, &normal));
    assert_eq!(scale(&bench), None);
    assert!(
        told(&engine, Kind::ActionEnded)[0]
            .why
            .as_ref()
            .unwrap()
            .contains("crowd")
    );
}

#[test]
fn without_knowledge_nothing_is_done_and_it_is_said_once() {
    let bench = bench();
    let mut engine = bench.start();
    for _second in 0..30 {
        engine.react(&case("storefront", ATTACK, &Normal::default()));
        engine.react(&case("mail", ATTACK, &Normal::default()));
        bench.clock.pass(1);
    }
    assert_eq!(scale(&bench), None);
    let withheld = told(&engine, Kind::ActionWithheld);
    assert_eq!(withheld.len(), 2);
    assert!(
        withheld[0].why.as_ref().unwrap().contains("too little is known"),
        "{withheld:?}"
    );
    let shown = status(&mut engine, "storefront").unwrap();
    assert_eq!((shown.state, shown.share), (ActionState::Withheld, None));
    assert!(shown.why.unwrap().contains("too little is known"));
}

#[test]
fn what_was_undone_is_not_done_again_until_the_attack_has_ended() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    assert_eq!(undo(&mut engine, None), Err("not_found"));
    assert_eq!(undo(&mut engine, Some("nobody")), Err("not_found"));
    engine.react(&case("storefront", ATTACK, &normal));
    let undone = undo(&mut engine, Some("storefront")).unwrap();
    assert_eq!(undone[0].percent, Some(20));
    assert_eq!(scale(&bench), None);
    assert_eq!(undo(&mut engine, None), Err("not_found"), "once is enough");
    for _second in 0..100 {
        engine.react(&case("storefront", ATTACK, &normal));
        engine.upkeep();
        bench.clock.pass(1);
    }
    assert_eq!(scale(&bench), None);
    assert_eq!(
        status(&mut engine, "storefront").unwrap().state,
        ActionState::Undone
    );

    // Also not after a restart.
    save(&mut engine);
    drop(engine);
    let mut engine = bench.start();
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), None);
    for _second in 0..61 {
        engine.react(&case("storefront", Verdict::Quiet, &normal));
        bench.clock.pass(1);
    }
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(20), "another attack");
}

#[test]
fn an_operators_lever_is_neither_overwritten_nor_removed() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    let by_hand = |percent| LeverRequest::Scale {
        service: "storefront".into(),
        percent,
        for_seconds: 3_600,
    };
    engine.pull_lever(&by_hand(70), None).unwrap();
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(70));
    assert!(
        told(&engine, Kind::ActionWithheld)[0]
            .why
            .as_ref()
            .unwrap()
            .contains("a scale of this service")
    );
    assert!(engine.automatic("storefront").is_none());
    // Undoing touches nothing that is not Weir's own.
    undo(&mut engine, None).unwrap();
    assert_eq!(scale(&bench), Some(70));

    // One that is pulled over a step is the operator's from then on.
    engine.clear_levers(None).unwrap();
    for _second in 0..61 {
        engine.react(&case("storefront", Verdict::Quiet, &normal));
        bench.clock.pass(1);
    }
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(20));
    engine.pull_lever(&by_hand(20), None).unwrap();
    engine.upkeep();
    assert_eq!(
        status(&mut engine, "storefront").unwrap().state,
        ActionState::Undone
    );
    bench.clock.pass(700);
    engine.react(&case("storefront", ATTACK, &normal));
    engine.upkeep();
    assert_eq!(scale(&bench), Some(20), "for the hour that the operator said");
    // And one that is cleared is not set again.
    engine.clear_levers(None).unwrap();
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), None);
    let bypass = LeverRequest::Bypass {
        service: None,
        all: false,
        for_seconds: 60,
    };
    let other = self::bench();
    let mut fresh = other.start();
    fresh.pull_lever(&bypass, None).unwrap();
    fresh.react(&case("storefront", ATTACK, &normal));
    assert!(
        told(&fresh, Kind::ActionWithheld)[0]
            .why
            .as_ref()
            .unwrap()
            .contains("a bypass")
    );
}

#[test]
fn steps_are_known_again_after_a_restart_and_still_end() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().proven = vec!["203.0.113.1".parse().unwrap()];
    engine.react(&case("storefront", ATTACK, &normal));
    engine.react(&case("mail", ATTACK, &normal));
    save(&mut engine);
    drop(engine);
    bench.clock.pass(100);
    let mut engine = bench.start();
    engine.upkeep();
    let shown = status(&mut engine, "storefront").unwrap();
    assert_eq!((shown.percent, shown.seconds_left), (Some(20), Some(500)));
    assert_eq!(status(&mut engine, "mail").unwrap().bans.unwrap().len(), 1);
    assert_eq!(undo(&mut engine, None).unwrap().len(), 2);
    assert_eq!((scale(&bench), engine.list_bans().bans.len()), (None, 0));

    // One whose time ran out while no controller ran is only struck out.
    let mut engine = {
        drop(engine);
        bench.start()
    };
    bench.clock.pass(61);
    for service in ["storefront", "mail"] {
        engine.react(&case(service, Verdict::Quiet, &normal));
    }
    engine.react(&case("storefront", ATTACK, &normal));
    save(&mut engine);
    drop(engine);
    bench.clock.pass(601);
    let mut engine = bench.start();
    engine.upkeep();
    assert_eq!(scale(&bench), None);
    assert_eq!(
        told(&engine, Kind::ActionEnded).last().unwrap().why.as_deref(),
        Some("its time is over")
    );
}

#[test]
fn an_attack_bans_the_proven_with_the_reason_and_for_its_time() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    // The last carrier is in a list that is trusted.
    bench.kernel.0.lock().unwrap().proven = ["203.0.113.1", "203.0.113.3", "192.0.2.77"]
        .map(|address| address.parse().unwrap())
        .into();
    engine.react(&case("mail", ATTACK, &normal));
    let bans = engine.list_bans().bans;
    let banned: Vec<String> = bans.iter().map(|ban| ban.prefix.to_string()).collect();
    assert_eq!(banned, ["203.0.113.1/32", "203.0.113.3/32"]);
    assert!(
        bans.iter()
            .all(|ban| ban.service.as_deref() == Some("mail") && ban.seconds_left == Some(600))
    );
    assert_eq!(
        bans[0].reason.as_deref(),
        Some("attack on mail since 2027-01-15T08:00:00Z, banned by weir itself")
    );
    let taken = told(&engine, Kind::ActionTaken);
    assert!(
        taken[0].what.contains("2 bans until")
            && taken[0]
                .why
                .as_ref()
                .unwrap()
                .contains("1 without a completed handshake"),
        "{taken:?}"
    );
    // Another one proves itself later, and the operator's own ban stays the operator's.
    engine.ban(&bans_of("203.0.113.2", "mail"), None).unwrap();
    bench
        .kernel
        .0
        .lock()
        .unwrap()
        .proven
        .push("203.0.113.2".parse().unwrap());
    bench.clock.pass(10);
    engine.react(&case("mail", ATTACK, &normal));
    assert_eq!(status(&mut engine, "mail").unwrap().bans.unwrap().len(), 2);
    undo(&mut engine, Some("mail")).unwrap();
    let left = engine.list_bans().bans;
    assert_eq!((left.len(), left[0].reason.as_deref()), (1, Some("by hand")));
}

fn bans_of(prefix: &str, service: &str) -> BansRequest {
    let mut request = bans(&[(prefix, Some(3_600))]);
    request.bans[0].service = Some(service.into());
    request.bans[0].reason = Some("by hand".into());
    request
}

#[test]
fn one_who_is_guarded_does_not_save_the_others() {
    let (mut bench, normal) = (bench(), normal());
    bench.guarded = vec![Guarded::Gateway("203.0.113.1".parse().unwrap())];
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().proven = ["203.0.113.1", "203.0.113.3"]
        .map(|address| address.parse().unwrap())
        .into();
    engine.react(&case("mail", ATTACK, &normal));
    let status = status(&mut engine, "mail").unwrap();
    let bans: Vec<String> = status.bans.unwrap().iter().map(ToString::to_string).collect();
    assert!(bans.contains(&"203.0.113.3/32".to_owned()), "{bans:?}");
    assert!(engine.list_bans().bans.len() == bans.len());
}

#[test]
fn a_policy_that_no_longer_says_so_takes_the_step_off() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    engine.react(&case("storefront", ATTACK, &normal));
    let alert = policy("").replace("\"tighten\"", "\"alert\"");
    engine.apply(prepared(&alert), None).unwrap();
    engine.upkeep();
    assert_eq!(scale(&bench), None);
    assert_eq!(status(&mut engine, "storefront"), None);
    assert_eq!(engine.acting_for(), [("mail".to_owned(), false)]);
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), None);
}

#[test]
fn a_kernel_that_refuses_and_a_policy_that_waits_are_said() {
    let (bench, normal) = (bench(), normal());
    let mut engine = bench.start();
    bench.kernel.0.lock().unwrap().refuse = Some("no memory");
    engine.react(&case("storefront", ATTACK, &normal));
    assert!(
        told(&engine, Kind::ActionWithheld)[0]
            .why
            .as_ref()
            .unwrap()
            .contains("no memory")
    );
    bench.clock.pass(10);
    engine.react(&case("storefront", ATTACK, &normal));
    assert_eq!(scale(&bench), Some(20), "it is tried again");
    drop(engine);
    let bench = self::bench();
    let mut engine = bench.start();
    engine
        .apply_within(prepared(&policy("for = \"1m\"")), 60, None)
        .unwrap();
    engine.react(&case("storefront", ATTACK, &normal));
    assert!(
        told(&engine, Kind::ActionWithheld)[0]
            .why
            .as_ref()
            .unwrap()
            .contains("waits for confirmation")
    );
}
