use super::*;
use crate::policy::model::ListAction;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn list(max_prefixes: u32) -> List {
    List {
        name: "blocklist".into(),
        action: Some(ListAction::Drop),
        prefixes: Vec::new(),
        files: Vec::new(),
        max_prefixes,
        proxy: false,
    }
}

fn edit(overlay: &Overlay, base: &[IpNet], edit: Edit) -> Result<Edited, Failure> {
    overlay.edit(&list(100), base, edit, at(1))
}

fn replace(texts: &[&str], force: bool) -> Edit {
    Edit::Replace {
        prefixes: nets(texts),
        max_change_percent: 20.0,
        force,
    }
}

fn add(texts: &[&str], until: Option<i64>) -> Edit {
    Edit::Add {
        prefixes: nets(texts),
        until: until.map(at),
    }
}

fn remove(texts: &[&str]) -> Edit {
    Edit::Remove {
        prefixes: nets(texts),
    }
}

#[test]
fn additions_and_removals_outlive_a_new_policy() {
    let base = nets(&["10.0.0.0/8", "11.0.0.0/8"]);
    let edited = edit(
        &Overlay::default(),
        &base,
        add(&["12.0.0.0/8", "10.0.0.0/8"], None),
    )
    .unwrap();
    assert_eq!((edited.added, edited.removed), (1, 0));
    let edited = edit(&edited.overlay, &base, remove(&["10.0.0.0/8"])).unwrap();
    assert_eq!((edited.added, edited.removed), (0, 1));
    assert_eq!(edited.content, nets(&["11.0.0.0/8", "12.0.0.0/8"]));
    assert_eq!(edited.overlay.revision, 2);
    let newer = nets(&["10.0.0.0/8", "13.0.0.0/8"]);
    assert_eq!(
        edited.overlay.content(&newer),
        nets(&["12.0.0.0/8", "13.0.0.0/8"])
    );
    // Added again for good, it stands there once more.
    let edited = edit(&edited.overlay, &newer, add(&["10.0.0.0/8"], None)).unwrap();
    assert_eq!(edited.content, nets(&["10.0.0.0/8", "12.0.0.0/8", "13.0.0.0/8"]));
}

#[test]
fn a_replacement_is_the_list_whatever_the_policy_says() {
    let base = nets(&["10.0.0.0/8"]);
    let edited = edit(
        &Overlay::default(),
        &base,
        replace(&["10.0.0.0/8", "11.0.0.0/8"], true),
    )
    .unwrap();
    assert_eq!(
        edited.overlay.content(&nets(&["99.0.0.0/8"])),
        nets(&["10.0.0.0/8", "11.0.0.0/8"])
    );
}

#[test]
fn an_empty_or_wildly_different_feed_needs_force() {
    let base = nets(&[
        "10.0.0.0/8",
        "11.0.0.0/8",
        "12.0.0.0/8",
        "13.0.0.0/8",
        "14.0.0.0/8",
    ]);
    let none = Overlay::default();
    assert_eq!(
        edit(&none, &base, replace(&[], false)).unwrap_err().code,
        code::REFUSED
    );
    assert_eq!(edit(&none, &base, replace(&[], true)).unwrap().removed, 5);
    // One more of five is 20 %, one swapped for another is 40 %.
    let one_more = [
        "10.0.0.0/8",
        "11.0.0.0/8",
        "12.0.0.0/8",
        "13.0.0.0/8",
        "14.0.0.0/8",
        "15.0.0.0/8",
    ];
    assert_eq!(edit(&none, &base, replace(&one_more, false)).unwrap().added, 1);
    let refused = edit(&none, &base, replace(&one_more[1..], false)).unwrap_err();
    assert!(refused.message.contains("40.0 %"), "{refused}");
    assert!(
        edit(&none, &[], replace(&one_more, false)).is_ok(),
        "the first feed into an empty list"
    );
    assert!(edit(&none, &[], replace(&[], false)).is_err());
}

#[test]
fn temporary_prefixes_leave_and_later_ends_win() {
    let base = nets(&["10.0.0.0/8"]);
    let edited = edit(
        &Overlay::default(),
        &base,
        add(&["10.0.0.0/8", "11.0.0.0/8"], Some(50)),
    )
    .unwrap();
    let mut overlay = edit(&edited.overlay, &base, add(&["11.0.0.0/8"], Some(40)))
        .unwrap()
        .overlay;
    assert_eq!(overlay.next_end(), Some(at(50)));
    assert!(!overlay.expire(at(49)));
    assert!(overlay.expire(at(50)));
    assert_eq!(overlay.content(&base), base, "what the policy holds stays");
    assert_eq!(overlay.changed_at, at(50));
    // For good after for a while: it stays.
    let edited = edit(&overlay, &base, add(&["12.0.0.0/8"], Some(60))).unwrap();
    let mut overlay = edit(&edited.overlay, &base, add(&["12.0.0.0/8"], None))
        .unwrap()
        .overlay;
    assert!(!overlay.expire(at(99)));
    assert!(overlay.content(&base).contains(&nets(&["12.0.0.0/8"])[0]));
}

#[test]
fn a_removed_prefix_of_the_policy_can_come_back_for_a_while() {
    let base = nets(&["10.0.0.0/8"]);
    let edited = edit(&Overlay::default(), &base, remove(&["10.0.0.0/8"])).unwrap();
    let mut overlay = edit(&edited.overlay, &base, add(&["10.0.0.0/8"], Some(50)))
        .unwrap()
        .overlay;
    assert_eq!(overlay.content(&base), base);
    overlay.expire(at(50));
    assert_eq!(overlay.content(&base), []);
}

#[test]
fn removing_what_is_not_there_changes_nothing_and_names_the_wider_one() {
    let base = nets(&["10.0.0.0/8", "11.0.0.0/8"]);
    let failure = edit(&Overlay::default(), &base, remove(&["11.0.0.0/8", "10.1.0.0/16"])).unwrap_err();
    assert_eq!(failure.code, code::NOT_FOUND);
    assert!(failure.message.contains("10.1.0.0/16") && failure.hint.unwrap().contains("10.0.0.0/8"));
}

#[test]
fn max_prefixes_holds() {
    let overlay = Overlay::default();
    let failure = overlay
        .edit(
            &list(1),
            &nets(&["10.0.0.0/8"]),
            add(&["11.0.0.0/8"], None),
            at(1),
        )
        .unwrap_err();
    assert_eq!(failure.code, code::TOO_LARGE);
}

#[test]
fn the_state_file_reads_back() {
    let overlay = edit(
        &Overlay::default(),
        &nets(&["10.0.0.0/8"]),
        add(&["2001:db8::/32"], Some(9)),
    )
    .unwrap()
    .overlay;
    let overlay = edit(&overlay, &nets(&["10.0.0.0/8"]), remove(&["10.0.0.0/8"]))
        .unwrap()
        .overlay;
    let text = serde_json::to_string(&overlay).unwrap();
    assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
    assert_eq!(state_file("block.list"), "list-block.list.json");
}

#[test]
fn lists_that_the_policy_no_longer_declares_are_kept_but_unused() {
    let mut book = ListBook::default();
    let edited = edit(&Overlay::default(), &[], add(&["11.0.0.0/8"], Some(50))).unwrap();
    book.put("old", edited.overlay);
    let base = ListContents::from([("new".to_owned(), nets(&["10.0.0.0/8"]))]);
    assert_eq!(book.contents(&base), base);
    let back = ListContents::from([("old".to_owned(), Vec::new())]);
    assert_eq!(book.contents(&back)["old"], nets(&["11.0.0.0/8"]));
    assert_eq!(book.expire(at(50)), ["old"]);
    assert_eq!(book.next_end(), None);
}
