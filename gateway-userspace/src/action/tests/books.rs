//! What is being done, what was undone, and for how long.

use jiff::Timestamp;

use super::*;
use crate::controller::backend::Moment;

const SECOND: u64 = 1_000_000_000;

fn wall(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn step(percent: u32, until: u64) -> InForce {
    InForce {
        what: What::Tighten { percent },
        share: 0.002,
        why: "why".into(),
        since: wall(0),
        until_ns: until * SECOND,
        until: wall(until as i64),
    }
}

fn attacked(book: &mut Book, second: u64) -> Attention {
    book.attacked("web", Kind::FewSources, wall(0), second * SECOND)
}

#[test]
fn an_attack_is_looked_at_at_once_and_then_every_ten_seconds() {
    let mut book = Book::default();
    assert_eq!(attacked(&mut book, 100), Attention::Fresh);
    assert_eq!(
        attacked(&mut book, 101),
        Attention::None,
        "nothing was done, and it was just looked at"
    );
    assert_eq!(attacked(&mut book, 110), Attention::Fresh);
    book.took("web", step(60, 700));
    assert_eq!(attacked(&mut book, 119), Attention::None);
    assert_eq!(attacked(&mut book, 120), Attention::Stronger);
    // Another kind is looked at at once.
    assert_eq!(
        book.attacked("web", Kind::SynFlood, wall(0), 121 * SECOND),
        Attention::Stronger
    );
    assert_eq!(
        book.attacked("web", Kind::SynFlood, wall(0), 690 * SECOND),
        Attention::Stronger
    );
    assert_eq!(
        book.attacked("web", Kind::SynFlood, wall(0), 698 * SECOND),
        Attention::Fresh,
        "it is about to end, and the attack goes on"
    );
}

#[test]
fn a_step_ends_by_itself_and_what_is_over_is_forgotten_after_a_minute() {
    let mut book = Book::default();
    attacked(&mut book, 100);
    book.took("web", step(60, 700));
    assert_eq!(book.next_end(), Some(700 * SECOND));
    assert!(!book.calm("web", 400 * SECOND), "a step is in force");
    assert_eq!(book.over(699 * SECOND), Vec::<String>::new());
    assert_eq!(book.over(700 * SECOND), ["web"]);
    assert_eq!(book.ended("web"), Some(step(60, 700)));
    assert!(book.calm("web", 701 * SECOND));
    assert!(book.get("web").is_none());
}

#[test]
fn what_was_undone_stays_undone_until_the_attack_has_ended() {
    let mut book = Book::default();
    attacked(&mut book, 100);
    book.took("web", step(60, 700));
    assert_eq!(book.undo("web"), Some(step(60, 700)));
    assert_eq!(attacked(&mut book, 120), Attention::None);
    // A pause of half a minute is no end.
    assert!(!book.calm("web", 150 * SECOND));
    assert_eq!(attacked(&mut book, 151), Attention::None);
    assert!(!book.calm("web", 210 * SECOND));
    assert!(book.calm("web", 211 * SECOND));
    assert_eq!(attacked(&mut book, 212), Attention::Fresh, "another attack");
}

#[test]
fn a_reason_is_told_once() {
    let mut book = Book::default();
    attacked(&mut book, 100);
    let impact = |share| Withheld::Impact {
        step: "limits at 80 %".into(),
        share,
        budget: 0.01,
    };
    assert!(book.withheld("web", &Withheld::Unknown));
    assert!(!book.withheld("web", &Withheld::Unknown));
    assert!(book.withheld("web", &impact(0.02)));
    assert!(!book.withheld("web", &impact(0.03)));
    let told = book.get("web").and_then(|one| one.withheld.clone()).unwrap();
    assert!(told.1.contains("3.0 %"), "the last figure is shown: {told:?}");
    assert!(
        !book.withheld("other", &Withheld::Unknown),
        "nothing is known of it"
    );
}

#[test]
fn what_is_saved_comes_back_with_its_ends() {
    let mut book = Book::default();
    attacked(&mut book, 100);
    book.took("web", step(60, 700));
    book.attacked("api", Kind::Slow, wall(3), 100 * SECOND);
    let bans = [(net("203.0.113.1/32"), 700 * SECOND)];
    let banned = InForce {
        what: What::Ban { bans: bans.into() },
        ..step(0, 700)
    };
    book.took("api", banned.clone());
    book.attacked("dns", Kind::Slow, wall(3), 100 * SECOND);
    book.undo("dns");
    let now = |ns: u64, second| Moment {
        ns,
        wall: wall(second),
    };
    let text = serde_json::to_string(&SavedActions::of(&book, "boot")).unwrap();
    let saved = || serde_json::from_str::<SavedActions>(&text).unwrap();

    let mut back = saved().restore("boot", now(200 * SECOND, 200));
    assert_eq!(back.step("web"), Some(&step(60, 700)));
    assert_eq!(back.step("api"), Some(&banned));
    assert!(back.get("dns").unwrap().undone);
    assert_eq!(
        back.attacked("dns", Kind::Slow, wall(3), 201 * SECOND),
        Attention::None,
        "still undone"
    );
    assert!(
        back.calm("dns", 261 * SECOND),
        "a minute after the start nobody has seen it again"
    );

    // After a reboot the levers are gone, and the bans end by the wall clock.
    let back = saved().restore("other", now(5 * SECOND, 400));
    assert_eq!(back.step("web"), None);
    let step = back.step("api").unwrap();
    assert_eq!(step.until_ns, 305 * SECOND);
    assert!(matches!(&step.what, What::Ban { bans } if bans.values().all(|end| *end == 305 * SECOND)));

    let other = SavedActions { schema: 9, ..saved() };
    assert_eq!(other.restore("boot", now(0, 0)).iter().count(), 0);
}
