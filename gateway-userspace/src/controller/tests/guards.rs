//! Changes that would lock somebody out.

use super::*;
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        types::{ListAddRequest, ListReplaceRequest, code},
    },
    events::Kind,
};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.guarded = vec![
        Guarded::Other("192.0.3.9 50000 203.0.113.1 22".parse().unwrap()),
        Guarded::Local("203.0.113.1".parse().unwrap()),
        Guarded::Gateway("203.0.113.254".parse().unwrap()),
    ];
    bench
}

fn operator() -> Peer {
    Peer {
        uid: 1000,
        pid: None,
        session: Some("192.0.3.7 50001 203.0.113.1 22".parse().unwrap()),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, with: &[&str]) {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code::REFUSED, "{failure:?}");
    for piece in with {
        assert!(failure.message.contains(piece), "{piece}: {failure:?}");
    }
}

#[test]
fn bans_of_the_guarded_are_refused_unless_forced() {
    let bench = bench();
    let mut engine = bench.start();
    for (prefix, with) in [
        ("192.0.3.7", ["192.0.3.7", "your own SSH session", "--force"]),
        (
            "192.0.0.0/16",
            ["192.0.3.7", "your own SSH session", "[[protect]]"],
        ),
        (
            "192.0.3.9",
            ["192.0.3.9", "an SSH session with this host", "--force"],
        ),
        (
            "203.0.113.1",
            ["203.0.113.1", "an address of this host", "--force"],
        ),
        ("203.0.113.254", ["203.0.113.254", "default gateway", "--force"]),
    ] {
        let result = engine.ban(&bans(&[(prefix, None)]), Some(operator()));
        assert!(result.is_err(), "{prefix}: {result:?}");
        refused(result, &with);
    }
    refused(
        engine.ban(
            &bans(&[("203.0.114.0/24", None), ("203.0.113.1", None)]),
            Some(operator()),
        ),
        &["203.0.113.1"],
    );
    assert!(engine.list_bans().bans.is_empty(), "all or none");
    engine
        .ban(&bans(&[("203.0.114.0/24", None)]), Some(operator()))
        .unwrap();

    let mut forced = bans(&[("192.0.3.7", None)]);
    forced.force = true;
    let added = engine.ban(&forced, Some(operator())).unwrap();
    assert!(added.warnings[0].contains("192.0.3.7"), "{added:?}");
    let told = engine.events().last(100, None).events;
    assert!(
        told.iter().any(|event| event.entry.kind == Kind::LockOut),
        "{told:?}"
    );
    // It is cut off already; a wider ban does it no more harm.
    engine
        .ban(&bans(&[("192.0.3.0/29", None)]), Some(operator()))
        .unwrap();
}

#[test]
fn lists_that_cut_off_are_refused_unless_forced() {
    let bench = bench();
    let mut engine = bench.start();
    let add = |force| ListAddRequest {
        prefixes: vec!["192.0.3.0/24".into()],
        for_seconds: None,
        force,
    };
    refused(
        engine.list_add("blocklist", &add(false), Some(operator())),
        &["192.0.3.7", "list blocklist"],
    );
    let replace = ListReplaceRequest {
        prefixes: vec!["198.51.100.0/24".into(), "203.0.113.0/24".into()],
        max_change_percent: Some(100.0),
        force: false,
    };
    refused(engine.list_replace("blocklist", &replace, None), &["203.0.113.1"]);
    assert_eq!(engine.show_list("blocklist").unwrap().prefixes.len(), 1);
    engine
        .list_add("blocklist", &add(true), Some(operator()))
        .unwrap();
    assert_eq!(engine.show_list("blocklist").unwrap().prefixes.len(), 2);
}

#[test]
fn policies_that_cut_off_are_refused_and_a_reload_only_warns() {
    let bench = bench();
    let mut engine = bench.start();
    let drop = format!("{POLICY}\n[default]\naction = \"drop\"\n");
    refused(
        engine.apply_guarded(prepared(&drop), None, false, Some(operator())),
        &["192.0.3.7", "not connect to port 22 again", "default_drop"],
    );
    assert_eq!(engine.revision(), 1);
    let protected = drop.replace("sources = [\"10.8.0.0/28\"]", "sources = [\"192.0.3.0/24\"]");
    engine
        .apply_guarded(prepared(&protected), None, false, Some(operator()))
        .unwrap();
    let mut plain = POLICY.to_owned();
    plain.push_str("[lists.bad]\naction = \"drop\"\nprefixes = [\"192.0.3.0/24\"]\n");
    refused(
        engine.apply_guarded(prepared(&plain), None, false, Some(operator())),
        &["192.0.3.7", "reason list"],
    );
    let applied = engine.reload(prepared(&plain)).unwrap();
    assert!(
        applied
            .warnings
            .iter()
            .any(|warning| warning.contains("192.0.3.9")),
        "{applied:?}"
    );
}

#[test]
fn a_start_only_warns() {
    let bench = bench();
    bench.write_policy(&format!("{POLICY}\n[default]\naction = \"drop\"\n"));
    let mut engine = bench.start();
    engine.warn_of_lock_outs();
    let told = engine.events().last(100, None).events;
    let address = Some("192.0.3.9".parse().unwrap());
    assert!(
        told.iter()
            .any(|event| event.entry.kind == Kind::LockOut && event.entry.address == address)
    );
}
