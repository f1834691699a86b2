//! What is on the screen.

use std::time::Duration;

use super::{
    super::{frame, state::Pane},
    *,
};

fn shown(state: &State, width: u16, height: u16) -> String {
    let text = frame(state, PLAIN, width, height);
    for line in text.lines() {
        assert!(
            super::super::text::columns(line) <= usize::from(width),
            "{line:?}"
        );
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    assert_eq!(text.lines().count(), usize::from(height));
    text
}

#[test]
fn eighty_columns_show_all_that_matters() {
    let text = shown(&state(), 80, 24);
    for part in [
        " ENFORCE  revision 3  eth0 native  up 2 h 3 min",
        "no problems, no levers; 1 ban; 10 of 1,048,576 source slots in use",
        "storefront",
        "12.0k",
        "12.5 Mb/s",
        " 2 sources ",
        "192.0.2.7/32",
        "2001:db8:1234:5678::/64",
        "5%",
        "3%",
        "source_packets",
        "banned 198.51.100.0/24",
        "q quit",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn every_pane_fits_every_screen() {
    let mut state = state();
    state.data.networks = Some(Ok(three_sources()));
    state.data.flows = Some(Ok(flows()));
    for pane in Pane::ALL {
        state.pane = pane;
        for (width, height) in [(40, 10), (61, 13), (80, 24), (100, 40), (200, 60), (500, 200)] {
            let text = shown(&state, width, height);
            assert!(
                text.contains(pane.name()) && text.contains("ENFORCE"),
                "{pane:?}\n{text}"
            );
        }
    }
    for (width, height) in [(39, 10), (40, 9), (1, 1), (12, 3), (200, 2)] {
        let text = shown(&state, width, height);
        assert!(!text.contains("storefront"), "{text}");
    }
    assert!(shown(&state, 39, 10).contains("needs 40x10, has 39x10"));
}

#[test]
fn the_smallest_screen_shows_the_sources() {
    let text = shown(&state(), 40, 10);
    assert!(
        text.contains("192.0.2.7/32") && text.contains("9000") && text.contains("4500"),
        "{text}"
    );
}

#[test]
fn a_large_screen_uses_its_room() {
    let mut state = state();
    let many = (0..60).map(|last| source(&format!("192.0.2.{last}/32"), f64::from(last), false));
    state.data.sources = Some(Ok(sources(&many.collect::<Vec<_>>())));
    let text = shown(&state, 200, 60);
    let rows = text.lines().filter(|line| line.contains("192.0.2.")).count();
    assert!(rows > 30, "{rows}\n{text}");
}

#[test]
fn what_is_empty_says_why() {
    let mut state = State::default();
    assert!(shown(&state, 80, 24).contains("waiting for the controller"));
    state.take(
        Duration::ZERO,
        Round {
            sources: Some(Ok(SourcesAnswer::default())),
            ..round()
        },
    );
    assert!(shown(&state, 80, 24).contains("sampling is off"));
    state.service = Some("checkout".into());
    assert!(shown(&state, 80, 24).contains("the policy in force has no service checkout"));
    state.service = None;
    state.data.sources = Some(Err("this controller has no /v1/sources".into()));
    assert!(shown(&state, 80, 24).contains("this controller has no /v1/sources"));
    state.filter = "nowhere".into();
    state.data.sources = Some(Ok(three_sources()));
    assert!(shown(&state, 80, 24).contains("nothing here has \"nowhere\" in it"));
}

#[test]
fn trouble_is_said_and_what_was_known_stays() {
    let mut state = state();
    let error = weir::client::ClientError::NoController {
        socket: "/run/weir/weir.sock".into(),
    };
    state.take(
        Duration::from_secs(2),
        Round {
            error: Some(error),
            ..Round::default()
        },
    );
    let text = shown(&state, 80, 24);
    assert!(
        text.contains("controller does not answer, retrying: no controller answers at /run/weir")
            && text.contains("storefront"),
        "{text}"
    );
    state.take(Duration::from_secs(3), round());
    assert!(!shown(&state, 80, 24).contains("retrying"));
}

#[test]
fn what_waits_and_what_is_pulled_stand_above() {
    let mut state = state();
    let mut status = serde_json::to_value(status()).unwrap();
    status["policy"]["pending"] = json!({"until": "2026-11-27T09:00:00Z", "seconds_left": 45, "before": 2});
    status["policy"]["mode"] = json!("monitor");
    status["levers"] = json!([
        {"lever": "bypass", "all": false, "until": "2026-11-27T09:00:00Z", "seconds_left": 60},
        {"lever": "scale", "service": "storefront", "percent": 50, "until": "2026-11-27T09:00:00Z", "seconds_left": 5},
    ]);
    status["problems"] = json!(["eth1 has vanished"]);
    state.data.status = Some(serde_json::from_value(status).unwrap());
    state.paused = true;
    let text = shown(&state, 100, 40);
    for part in [
        " MONITOR ",
        "PAUSED",
        "revision 3 waits for confirmation: revision 2 is in force again in 45 s",
        "lever: bypass of all services, 1 min left",
        "lever: storefront scaled to 50%, 5 s left",
        "problem: eth1 has vanished",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(shown(&state, 80, 24).contains("(and 1 more: weir status)"));
}

#[test]
fn long_and_hostile_names_disturb_nothing() {
    let mut status = serde_json::to_value(status()).unwrap();
    status["services"][0]["service"] = json!("a\u{1b}[2J\u{202e}\u{0}店".repeat(40));
    status["problems"] = json!(["\u{1b}]0;owned\u{7}"]);
    status["services"][0]["drops"] = json!({"\r\n\u{9b}31mred": volume(u64::MAX, u64::MAX)});
    let mut state = state();
    let mut hostile = round();
    hostile.status = Some(serde_json::from_value(status).unwrap());
    hostile.events = Some(events(vec![event(2, "\u{1b}[1;1Hhere\n\n店店店店店")], 2));
    state.take(Duration::from_secs(2), hostile);
    for pane in Pane::ALL {
        state.pane = pane;
        for (width, height) in [(40, 10), (80, 24), (200, 60)] {
            shown(&state, width, height);
        }
    }
}

#[test]
fn big_numbers_keep_their_columns() {
    let mut status = serde_json::to_value(status()).unwrap();
    let service = &mut status["services"][0];
    service["packets_per_second"] = json!(1.23e15);
    service["bytes_per_second"] = json!(9.99e15);
    service["drops_per_second"] = json!(9.99e14);
    service["pass"] = volume(u64::MAX, u64::MAX / 4);
    let mut state = State::default();
    let mut big = round();
    big.status = Some(serde_json::from_value(status).unwrap());
    state.take(Duration::ZERO, big);
    let text = shown(&state, 80, 24);
    assert!(text.contains("231T") && text.contains("999T"), "{text}");
}

#[test]
fn only_ascii_where_only_ascii_can_be_shown() {
    let ascii = Theme {
        charset: Charset { unicode: false },
        ..PLAIN
    };
    let mut state = state();
    for dialog in [false, true] {
        if dialog {
            state.dialog = Some(super::super::state::Dialog::Help);
        }
        let text = frame(&state, ascii, 80, 24);
        assert!(text.is_ascii(), "{text}");
    }
}

#[test]
fn without_colours_nothing_is_coloured() {
    use ratatui::{Terminal, backend::TestBackend, style::Color};
    let coloured = |theme: Theme| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let drawn = terminal
            .draw(|frame| super::super::draw::draw(frame, &state(), theme))
            .unwrap();
        drawn
            .buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!coloured(PLAIN));
    assert!(coloured(Theme {
        colour: true,
        ..PLAIN
    }));
}

#[test]
fn an_attack_stands_above_in_its_row_and_in_its_details() {
    let mut state = state();
    let mut answer = serde_json::to_value(status()).unwrap();
    answer["services"][0]["verdict"] = json!("attack");
    answer["services"][0]["kind"] = json!("syn_flood");
    answer["services"][1]["verdict"] = json!("quiet");
    let told = json!({
        "service": "storefront", "verdict": "attack", "kind": "syn_flood", "score": 3.25, "volume_score": 1.0,
        "composition_score": 3.25, "since": "2026-11-27T08:59:00Z", "duration_seconds": 75,
        "packets_per_second": 120_000.0, "expected_packets_per_second": 3_000.0,
        "foreign_packets_per_second": 117_000.0,
        "features": [{"feature": "completion", "value": 0.02, "expected": 0.97, "share": 0.8}],
        "carriers": [{"prefix": "198.51.100.0/24", "packets_per_second": 12_000.0, "share": 0.1}],
        "learned": 1.0,
    });
    state.take(
        Duration::from_secs(2),
        Round {
            status: Some(serde_json::from_value(answer).unwrap()),
            anomalies: Some(vec![serde_json::from_value(told).unwrap()]),
            ..round()
        },
    );
    let text = shown(&state, 80, 24);
    for part in [
        "storefront: attack (syn_flood) for 1 min 15 s, 120k packets/s, usually 3000",
        "VERDICT",
        "syn_flood",
        "quiet",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    state.pane = Pane::Services;
    state.dialog = Some(super::super::state::Dialog::Details {
        key: "storefront".into(),
        scroll: 0,
    });
    let text = shown(&state, 100, 30);
    for part in [
        "verdict     attack (syn_flood) since 2026-11-27T08:59:00Z, score 3.25",
        "usually     3000 packets/s, now 120k",
        "completion: 0.020 (usually 0.970), 80% of the score",
        "carried by 198.51.100.0/24: 12.0k packets/s, 10%",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
