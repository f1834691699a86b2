//! Keys, and what is drawn: without a terminal and without a controller.

mod drawing;
mod typing;

use std::time::Duration;

use serde_json::{Value, json};
use weir::{
    api::{
        traffic::{FlowsAnswer, SourcesAnswer},
        types::{Ban, StatusAnswer},
    },
    events::{Entry, Event, Kind},
};

use super::{
    feed::{Ask, Round, What},
    state::State,
    text::Charset,
    theme::Theme,
};

const PLAIN: Theme = Theme {
    colour: false,
    charset: Charset { unicode: true },
};

fn volume(packets: u64, bytes: u64) -> Value {
    json!({"packets": packets, "bytes": bytes})
}

/// A node with a service and the default.
pub(super) fn status() -> StatusAnswer {
    let service = |name: &str, busy: bool| {
        let few = u64::from(busy);
        json!({
            "service": name, "mode": "enforce",
            "pass": volume(1_234_567 * few, 987_654_321 * few), "drop": volume(98_765 * few, 6_000_000 * few),
            "would_drop": volume(0, 0),
            "packets_per_second": 12_432.0 * few as f64, "bytes_per_second": 1_562_500.0 * few as f64,
            "drops_per_second": 432.0 * few as f64, "would_drops_per_second": 0.0,
            "drops": {"source_packets": volume(98_760 * few, 5_999_700 * few), "ban": volume(5 * few, 300 * few)},
            "would_drops": {},
        })
    };
    let status = json!({
        "schema": 1, "ok": true, "problems": [], "version": "0.1.0",
        "started_at": "2026-11-27T06:59:00Z", "uptime_seconds": 7380,
        "attachments": [{"interface": "eth0", "ifindex": 2, "xdp_mode": "native", "present": true}],
        "policy": {"revision": 3, "sha256": "ab", "path": "/etc/weir/policy.toml",
            "applied_at": "2026-11-27T08:59:00Z", "mode": "enforce", "differs_from_file": false},
        "rates_over_seconds": 5.0,
        "services": [service("storefront", true), service("default", false)],
        "levers": [], "bans": 1, "lists": 0,
        "losses": {"overflow": 0, "lost_race": 0, "uncounted": 0, "notice": 0, "sample": 0, "sample_suppressed": 0},
        "source_slots": {"in_debt": 10, "free": 1_048_566},
        "controller": {"on_loss": "hold"},
    });
    serde_json::from_value(status).unwrap()
}

fn source(prefix: &str, packets: f64, banned: bool) -> Value {
    json!({
        "source": prefix, "packets_per_second": packets, "bytes_per_second": packets * 100.0,
        "dropped_per_second": packets / 2.0, "connections_per_second": 1.0, "error": 0.05,
        "services": {"storefront": packets}, "reasons": {"source_packets": packets / 2.0},
        "first_seen": "2026-11-27T08:00:00Z", "last_seen": "2026-11-27T09:00:00Z", "banned": banned,
        "buckets": [
            {"tier": "per_source", "kind": "packets", "left": 120, "burst": 4000},
            {"tier": "total", "kind": "packets", "left": 9, "burst": 10},
        ],
    })
}

fn sources(sources: &[Value]) -> SourcesAnswer {
    let answer = json!({"schema": 1, "span_seconds": 10.0, "one_in": 1000,
        "all": {"packets_per_second": 1.0, "bytes_per_second": 1.0, "dropped_per_second": 0.0,
            "connections_per_second": 0.0, "error": 0.1}, "sources": sources});
    serde_json::from_value(answer).unwrap()
}

fn three_sources() -> SourcesAnswer {
    sources(&[
        source("192.0.2.7/32", 9_000.0, false),
        source("198.51.100.0/24", 300.0, true),
        source("2001:db8:1234:5678::/64", 20.0, false),
    ])
}

fn flows() -> FlowsAnswer {
    let answer = json!({"schema": 1, "span_seconds": 10.0, "one_in": 1000, "flows": [{
        "protocol": "tcp", "source": "2001:db8:1234:5678:9abc:def0:1234:5678", "source_port": 43210,
        "destination": "203.0.113.5", "destination_port": 443, "service": "storefront",
        "packets_per_second": 12.0, "bytes_per_second": 1e9, "dropped_per_second": 0.0,
        "connections_per_second": 0.1, "error": 0.5, "packets": 1000, "bytes": 64000, "samples": 4,
        "tcp_flags": "SYN ACK", "verdict": "drop", "reason": "source_connections",
        "first_seen": "2026-11-27T08:00:00Z", "last_seen": "2026-11-27T09:00:00Z",
    }]});
    serde_json::from_value(answer).unwrap()
}

fn ban(prefix: &str, service: Option<&str>) -> Ban {
    Ban {
        prefix: prefix.parse().unwrap(),
        service: service.map(Into::into),
        created_at: "2026-11-27T08:59:00Z".parse().unwrap(),
        until: None,
        seconds_left: Some(605),
        reason: Some("ticket 7".into()),
    }
}

fn event(number: u64, what: &str) -> Event {
    Event {
        number,
        at: "2026-11-27T08:59:00Z".parse().unwrap(),
        entry: Entry::new(Kind::Ban, what),
    }
}

fn events(events: Vec<Event>, next: u64) -> weir::api::types::EventsAnswer {
    weir::api::types::EventsAnswer {
        schema: 1,
        events,
        next,
        missed: 0,
        ended: false,
    }
}

fn round() -> Round {
    Round {
        ask: Ask {
            what: What::Sources,
            ..Ask::default()
        },
        status: Some(status()),
        sources: Some(Ok(three_sources())),
        bans: Some(Ok(vec![ban("198.51.100.0/24", None)])),
        events: Some(events(vec![event(1, "banned 198.51.100.0/24")], 1)),
        protected: Some(vec!["10.9.0.0/28".parse().unwrap()]),
        ..Round::default()
    }
}

/// What is there after the first answer.
fn state() -> State {
    let mut state = State::default();
    state.take(Duration::from_secs(1), round());
    state
}
