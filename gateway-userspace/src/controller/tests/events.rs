//! What is told as events.

use std::time::Duration;

use gateway_core::image::{Notice, notice};
use tokio::sync::watch;

use super::*;
use crate::{
    api::{
        peer::Peer,
        types::{LeverRequest, ListAddRequest, UnbanRequest},
    },
    controller::{handle::Handle, notices},
    events::{Actor, Event, Kind},
};

fn me() -> Peer {
    Peer {
        uid: 1000,
        pid: Some(std::process::id() as i32),
        session: None,
    }
}

fn told(engine: &Engine, kind: Kind) -> Vec<Event> {
    let mut events = engine.events().last(1000, None).events;
    events.retain(|event| event.entry.kind == kind);
    events
}

#[test]
fn changes_are_told_with_who_and_why() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let mut request = bans(&[("192.0.3.1", Some(60))]);
    request.bans[0].reason = Some("ticket 7".into());
    engine.ban(&request, Some(me())).unwrap();
    let ban = &told(&engine, Kind::Ban)[0].entry;
    assert_eq!(ban.why.as_deref(), Some("ticket 7"));
    assert_eq!(ban.prefix, Some("192.0.3.1/32".parse().unwrap()));
    assert!(
        matches!(&ban.by, Actor::User { uid: 1000, pid: Some(_), command: Some(name) } if !name.is_empty()),
        "{ban:?}"
    );
    bench.clock.pass(61);
    engine.upkeep();
    assert_eq!(told(&engine, Kind::BanEnded)[0].entry.by, Actor::Controller);

    engine.ban(&bans(&[("192.0.3.2", None)]), Some(me())).unwrap();
    let unban = UnbanRequest {
        prefix: "192.0.3.2".into(),
        service: None,
    };
    engine.unban(&unban, Some(me())).unwrap();
    assert_eq!(told(&engine, Kind::Unban).len(), 1);
    let add = ListAddRequest {
        prefixes: vec!["192.0.3.3".into()],
        ..ListAddRequest::default()
    };
    engine.list_add("blocklist", &add, Some(me())).unwrap();
    assert_eq!(
        told(&engine, Kind::List)[0].entry.list.as_deref(),
        Some("blocklist")
    );
    let lever = LeverRequest::Scale {
        service: "storefront".into(),
        percent: 50,
        for_seconds: 60,
    };
    engine.pull_lever(&lever, Some(me())).unwrap();
    engine.clear_levers(Some(me())).unwrap();
    assert_eq!(told(&engine, Kind::Lever).len(), 2);
    engine.apply(prepared(POLICY), Some(me())).unwrap();
    assert_eq!(told(&engine, Kind::Policy)[0].entry.revision, Some(2));
    engine.detach(&[], Some(me())).unwrap();
    assert_eq!(told(&engine, Kind::Attach).len(), 1);
    assert_eq!(
        told(&engine, Kind::Detach)[0].entry.interface.as_deref(),
        Some("lan0")
    );
}

#[test]
fn a_feed_of_bans_is_one_event() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let prefixes: Vec<String> = (0..5000)
        .map(|n| format!("10.20.{}.{}", n / 256, n % 256))
        .collect();
    let feed: Vec<(&str, Option<u64>)> = prefixes.iter().map(|prefix| (prefix.as_str(), None)).collect();
    engine.ban(&bans(&feed), Some(me())).unwrap();
    let events = told(&engine, Kind::Ban);
    assert_eq!((events.len(), events[0].entry.count), (1, Some(5000)));
}

#[test]
fn faults_are_told_once_and_their_end() {
    let bench = Bench::new();
    let mut engine = bench.start();
    let gone = bench.kernel.0.lock().unwrap().attached.remove("lan0").unwrap();
    engine.upkeep();
    engine.upkeep();
    let faults = told(&engine, Kind::Fault);
    assert_eq!(
        (faults.len(), faults[0].entry.interface.as_deref()),
        (1, Some("lan0"))
    );
    bench
        .kernel
        .0
        .lock()
        .unwrap()
        .attached
        .insert("lan0".into(), gone);
    engine.upkeep();
    assert_eq!(told(&engine, Kind::Mended).len(), 1);
}

#[tokio::test]
async fn blocks_that_the_kernel_began_are_told() {
    let bench = Bench::new();
    let policy = format!(
        "{POLICY}[service.per_source]\npackets = {{ rate = 10, burst = 10 }}\n\
         block = {{ for = \"30s\", drops = 100, within = \"10s\" }}\n"
    );
    bench.write_policy(&policy);
    let engine = bench.start();
    let source = engine.notices().unwrap();
    let log = engine.events();
    let handle = Handle::new(engine);
    let (stop, stopping) = watch::channel(false);
    let one = Notice {
        at_ns: 999_000_000_000,
        until_ns: 1_029_000_000_000,
        service: 0,
        kind: notice::BLOCKED,
        source: crate::compile::prefix::words([192, 0, 2, 7].into()),
        v6: 0,
        interface: 0,
    };
    // One waits already, as after a restart.
    bench.kernel.announce([one]);
    let task = tokio::spawn(notices::follow(handle, source, stopping));
    let newest = log.last(1, None).next;
    assert!(log.wait(newest, Duration::from_secs(10)).await);
    let first = log.last(1, None);
    let entry = &first.events[0].entry;
    assert_eq!(entry.what, "192.0.2.7/32 is blocked at storefront");
    assert_eq!(
        entry.why.as_deref(),
        Some("100 packets over its limits within 10 s")
    );
    assert_eq!(
        (entry.service.as_deref(), &entry.by),
        (Some("storefront"), &Actor::Kernel)
    );
    assert_eq!(
        first.events[0].at.as_second(),
        1_799_999_999,
        "when it began, not when it was read"
    );

    bench.kernel.announce([Notice {
        kind: notice::BLOCKED_CONNECTIONS,
        ..one
    }]);
    assert!(log.wait(first.next, Duration::from_secs(10)).await);
    assert!(
        log.last(1, None).events[0]
            .entry
            .what
            .contains("no new connections")
    );
    stop.send(true).unwrap();
    task.await.unwrap().unwrap();
}
