//! What keys do.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use weir::api::types::{BanRequest, UnbanRequest};

use super::{
    super::{
        feed::Change,
        frame,
        keys::Action,
        rows::listing,
        state::{By, Dialog, Pane, Stage},
    },
    *,
};

fn press(state: &mut State, code: KeyCode) -> Action {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn char(state: &mut State, c: char) -> Action {
    press(state, KeyCode::Char(c))
}

fn keys(state: &State) -> Vec<String> {
    let rows = listing(state.pane, state).rows;
    rows.into_iter().map(|row| row.key).collect()
}

#[test]
fn the_ways_out() {
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press(&mut state(), code), Action::Quit);
    }
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    let mut state = state();
    char(&mut state, 'b');
    assert_eq!(state.key(control('c')), Action::Quit, "also from a dialog");
    assert_eq!(state.key(control('z')), Action::Suspend);
}

#[test]
fn panes_are_reached_by_tab_and_number_and_ask_for_what_they_show() {
    let mut state = state();
    assert_eq!(press(&mut state, KeyCode::Tab), Action::Ask);
    assert_eq!((state.pane, state.ask().what), (Pane::Networks, What::Networks));
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.pane, Pane::Sources);
    char(&mut state, '4');
    assert_eq!((state.pane, state.ask().what), (Pane::Flows, What::Flows));
    char(&mut state, 'n');
    assert_eq!(state.pane, Pane::Networks);
    char(&mut state, 'n');
    assert_eq!(state.pane, Pane::Sources);
    for pane in Pane::ALL {
        state.pane = pane;
        assert_eq!(pane.step(Pane::ALL.len()), pane);
    }
}

#[test]
fn the_selection_follows_its_source() {
    let mut state = state();
    press(&mut state, KeyCode::Down);
    assert_eq!(state.selected_row().unwrap().key, "198.51.100.0/24");
    let mut other = round();
    other.sources = Some(Ok(sources(&[
        source("198.51.100.0/24", 10_000.0, true),
        source("192.0.2.7/32", 9_000.0, false),
    ])));
    state.take(Duration::from_secs(2), other);
    assert_eq!(keys(&state)[0], "198.51.100.0/24");
    assert_eq!(state.selected_row().unwrap().key, "198.51.100.0/24");

    // When it goes, the row in its place is taken.
    press(&mut state, KeyCode::End);
    let mut other = round();
    other.sources = Some(Ok(sources(&[source("203.0.113.1/32", 1.0, false)])));
    state.take(Duration::from_secs(3), other);
    assert_eq!(state.selected_row().unwrap().key, "203.0.113.1/32");
    for code in [KeyCode::PageDown, KeyCode::PageUp, KeyCode::Home, KeyCode::Up] {
        press(&mut state, code);
        assert_eq!(state.selected_row().unwrap().key, "203.0.113.1/32");
    }
}

#[test]
fn sorting_asks_for_the_heaviest_by_that() {
    let mut state = state();
    assert_eq!(
        char(&mut state, 's'),
        Action::Nothing,
        "by the error: no other rows"
    );
    assert_eq!(char(&mut state, 's'), Action::Ask);
    assert_eq!(state.ask().by, By::Bytes);
    assert_eq!(char(&mut state, 's'), Action::Ask);
    assert_eq!(state.ask().by, By::Dropped);
    char(&mut state, 'r');
    assert_eq!(keys(&state)[0], "2001:db8:1234:5678::/64");
    char(&mut state, 'r');
    assert_eq!(keys(&state)[0], "192.0.2.7/32");
}

#[test]
fn an_answer_to_another_question_is_not_shown() {
    let mut state = state();
    state.by = By::Bytes;
    let mut late = round();
    late.sources = Some(Ok(sources(&[])));
    state.take(Duration::from_secs(2), late);
    assert_eq!(keys(&state).len(), 3);
}

#[test]
fn filters_are_texts_and_prefixes() {
    let mut state = state();
    for (text, expected) in [
        ("storefront", 3),
        ("STORE", 3),
        ("198.51.100.9", 1),
        ("2001:db8::/32", 1),
        ("0.0.0.0/0", 2),
        ("nothing", 0),
    ] {
        char(&mut state, '/');
        for c in text.chars() {
            assert_eq!(char(&mut state, c), Action::Nothing);
        }
        press(&mut state, KeyCode::Enter);
        assert_eq!(keys(&state).len(), expected, "{text}");
        // What was before comes back.
        char(&mut state, '/');
        char(&mut state, 'x');
        press(&mut state, KeyCode::Esc);
        assert_eq!(state.filter, text);
        state.filter.clear();
    }
    assert_eq!(
        char(&mut state, 'q'),
        Action::Quit,
        "q is a letter only while it is written"
    );
}

#[test]
fn paused_rates_stand_still_and_the_node_does_not() {
    let mut state = state();
    char(&mut state, ' ');
    let mut other = round();
    other.sources = Some(Ok(sources(&[])));
    let mut status = status();
    status.policy.revision = 9;
    other.status = Some(status);
    state.take(Duration::from_secs(2), other);
    assert_eq!(keys(&state).len(), 3);
    let text = frame(&state, PLAIN, 80, 24);
    assert!(text.contains("PAUSED") && text.contains("revision 9"), "{text}");
    assert_eq!(char(&mut state, ' '), Action::Ask);
}

#[test]
fn a_ban_is_shown_asked_and_sent_exactly() {
    let mut state = state();
    char(&mut state, 'b');
    let text = frame(&state, PLAIN, 80, 24);
    assert!(text.contains("Ban 192.0.2.7/32 from all services?"), "{text}");
    assert!(text.contains("[10 min] 1 h  1 d  7 d  until unban"), "{text}");
    press(&mut state, KeyCode::Right);
    press(&mut state, KeyCode::Tab);
    assert!(frame(&state, PLAIN, 80, 24).contains("only from service storefront?"));
    // Another answer meanwhile changes nothing of it.
    let mut other = round();
    other.sources = Some(Ok(sources(&[source("203.0.113.1/32", 1e6, false)])));
    state.take(Duration::from_secs(2), other);
    assert_eq!(
        press(&mut state, KeyCode::Enter),
        Action::Change(Change::Ban(BanRequest {
            prefix: "192.0.2.7/32".into(),
            service: Some("storefront".into()),
            for_seconds: Some(3600),
            reason: Some("weir top".into()),
        }))
    );
    assert_eq!(press(&mut state, KeyCode::Enter), Action::Nothing, "once");
    state.changed(Ok("banned 192.0.2.7/32 for 1 h".into()));
    assert_eq!(state.dialog, None);
    assert!(frame(&state, PLAIN, 80, 24).contains("banned 192.0.2.7/32 for 1 h"));
    state.tick(Duration::from_mins(1));
    assert_eq!(state.notice, None);
}

#[test]
fn esc_and_a_key_at_once_ban_nobody() {
    let mut state = state();
    char(&mut state, 'b');
    let at_once = KeyEvent::new(KeyCode::Char('y'), KeyModifiers::ALT);
    assert_eq!(state.key(at_once), Action::Nothing);
    assert_eq!(state.dialog, None);
    assert_eq!(state.key(at_once), Action::Nothing);
}

#[test]
fn a_refusal_is_shown_in_the_controllers_words() {
    let mut state = state();
    char(&mut state, 'b');
    char(&mut state, '5');
    let Action::Change(Change::Ban(request)) = char(&mut state, 'y') else {
        panic!()
    };
    assert_eq!((request.service, request.for_seconds), (None, None));
    state.changed(Err("only root may change\u{1b}[2J".into()));
    let text = frame(&state, PLAIN, 80, 24);
    assert!(text.contains("refused: only root may change?[2J"), "{text}");
    assert_eq!(char(&mut state, 'y'), Action::Nothing);
    assert_eq!(state.dialog, None);
}

#[test]
fn a_ban_that_would_do_nothing_is_warned_of() {
    let warnings = |prefix: &str, mode: &str| {
        let mut state = state();
        let mut other = round();
        other.sources = Some(Ok(sources(&[source(prefix, 1.0, false)])));
        let mut status = serde_json::to_value(status()).unwrap();
        status["policy"]["mode"] = json!(mode);
        other.status = Some(serde_json::from_value(status).unwrap());
        state.take(Duration::from_secs(2), other);
        char(&mut state, 'b');
        let Some(Dialog::Ban { warnings, .. }) = state.dialog else {
            panic!()
        };
        warnings.join("\n")
    };
    assert_eq!(warnings("192.0.2.7/32", "enforce"), "");
    assert!(warnings("10.9.0.3/32", "enforce").contains("10.9.0.0/28 is protected"));
    assert!(warnings("10.9.0.0/24", "enforce").contains("10.9.0.0/28 in it is protected"));
    assert!(warnings("198.51.100.9/32", "enforce").contains("a ban of 198.51.100.0/24 holds it already"));
    assert!(warnings("192.0.2.7/32", "monitor").contains("monitor"));
}

#[test]
fn unban_takes_the_ban_that_holds_and_says_when_it_is_wider() {
    let mut state = state();
    state.data.bans = Some(Ok(vec![
        ban("198.51.0.0/16", None),
        ban("192.0.2.0/24", Some("storefront")),
    ]));
    char(&mut state, 'u');
    let text = frame(&state, PLAIN, 80, 24);
    assert!(
        text.contains("Take the ban of 192.0.2.0/24 back (service storefront)?")
            && text.contains("it holds all of 192.0.2.0/24, not only 192.0.2.7/32"),
        "{text}"
    );
    assert_eq!(
        press(&mut state, KeyCode::Enter),
        Action::Change(Change::Unban(UnbanRequest {
            prefix: "192.0.2.0/24".into(),
            service: Some("storefront".into()),
        }))
    );
    // Closed before the answer: it is said at the bottom.
    press(&mut state, KeyCode::Esc);
    state.changed(Err("no such ban".into()));
    assert!(state.notice.as_ref().unwrap().bad);

    press(&mut state, KeyCode::End);
    char(&mut state, 'u');
    assert_eq!(state.dialog, None);
    assert!(
        state
            .notice
            .unwrap()
            .text
            .contains("no ban holds 2001:db8:1234:5678::/64")
    );
}

#[test]
fn the_bans_own_row_is_the_one_that_goes() {
    let mut state = state();
    state.data.bans = Some(Ok(vec![
        ban("192.0.2.7/32", None),
        ban("192.0.2.7/32", Some("storefront")),
    ]));
    char(&mut state, '7');
    press(&mut state, KeyCode::Down);
    char(&mut state, 'u');
    let Some(Dialog::Unban {
        ban,
        wider_than,
        stage,
    }) = &state.dialog
    else {
        panic!()
    };
    assert_eq!(
        (ban.service.as_deref(), wider_than, stage),
        (Some("storefront"), &None, &Stage::Asked)
    );
}

#[test]
fn what_cannot_be_banned_says_what_can() {
    let mut state = state();
    char(&mut state, '1');
    char(&mut state, 'b');
    assert_eq!(state.dialog, None);
    assert!(state.notice.unwrap().text.contains("choose one in sources"));
}

#[test]
fn details_tell_all_and_stay_with_their_source() {
    let mut state = state();
    press(&mut state, KeyCode::Enter);
    let text = frame(&state, PLAIN, 80, 24);
    for part in [
        "192.0.2.7/32",
        "9000/s ± 5%",
        "dropped by source_packets: 4500 packets/s",
        "bucket per_source packets: 120 of 4,000 left",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let mut other = round();
    let both = vec![
        source("203.0.113.1/32", 1e6, false),
        source("192.0.2.7/32", 1.0, false),
    ];
    other.sources = Some(Ok(sources(&both)));
    state.take(Duration::from_secs(2), other);
    char(&mut state, 'b');
    let Some(Dialog::Ban { prefix, .. }) = &state.dialog else {
        panic!()
    };
    assert_eq!(prefix.to_string(), "192.0.2.7/32");
    for pane in Pane::ALL {
        state.dialog = None;
        state.data.flows = Some(Ok(flows()));
        state.pane = pane;
        press(&mut state, KeyCode::Enter);
        for (width, height) in [(40, 10), (80, 24)] {
            frame(&state, PLAIN, width, height);
        }
    }
}
