use std::{fs, io::Write as _, path::PathBuf};

use super::*;
use crate::events::file::NAME;

const BOUNDS: Bounds = Bounds {
    bytes: 1000,
    files: 3,
};

fn at(second: u64) -> Moment {
    Moment {
        ns: second * SECOND_NS,
        wall: Timestamp::from_second(1_800_000_000 + second as i64).unwrap(),
    }
}

fn entry(text: &str) -> Entry {
    Entry::new(Kind::Ban, text)
}

fn texts(page: &Page) -> Vec<&str> {
    page.events
        .iter()
        .map(|event| event.entry.what.as_str())
        .collect()
}

/// Every line of every file, oldest first.
fn lines(dir: &Path) -> Vec<String> {
    let files = ["events.jsonl.2", "events.jsonl.1", NAME].map(|name| dir.join(name));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn what_is_above_the_rate_is_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    let mut kernel = entry("block");
    kernel.by = Actor::Kernel;
    for _ in 0..500 {
        log.record(at(5), kernel.clone());
    }
    for _ in 0..30 {
        log.record(at(5), entry("ban"));
    }
    let page = log.last(1000, None);
    assert_eq!(page.events.len(), 100);
    assert_eq!(
        texts(&page).iter().filter(|text| **text == "ban").count(),
        20,
        "the kernel leaves room"
    );
    assert_eq!(log.lost(), 430);
    assert_eq!(log.due_ns(), Some(6 * SECOND_NS));
    log.tick(at(5));
    assert_eq!(log.last(1000, None).events.len(), 100, "its second is not over");
    log.tick(at(6));
    let page = log.last(1, None);
    assert_eq!(
        (page.events[0].entry.kind, page.events[0].entry.count),
        (Kind::Suppressed, Some(430))
    );
    assert_eq!(log.due_ns(), None);
    log.record(at(6), entry("next"));
    assert_eq!(texts(&log.last(1, None)), ["next"]);
}

#[test]
fn files_are_rotated_and_read_back_past_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::with_bounds(dir.path(), BOUNDS);
    for n in 0..60 {
        log.record(at(n), entry(&format!("event {n}")));
    }
    log.close(at(60), entry("end"));
    let names: Vec<PathBuf> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in &names {
        assert!(fs::metadata(name).unwrap().len() <= BOUNDS.bytes);
    }
    let kept = lines(dir.path());
    assert!(
        kept.len() > 10 && kept[kept.len() - 2].contains("event 59"),
        "{kept:?}"
    );

    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join(NAME))
        .unwrap();
    file.write_all(b"{\"number\": 61, \"at\": \"20").unwrap();
    let log = EventLog::with_bounds(dir.path(), BOUNDS);
    let before = log.last(1000, None);
    assert_eq!(before.events.len(), kept.len(), "the cut line is passed over");
    assert_eq!(before.next, 61, "numbers go on across restarts");
    log.record(at(100), entry("after the crash"));
    log.close(at(100), entry("end"));
    let again = EventLog::with_bounds(dir.path(), BOUNDS);
    assert_eq!(
        texts(&again.last(2, None)),
        ["after the crash", "end"],
        "it has a line of its own"
    );
    assert_eq!(again.last(2, None).events[0].number, 62);
}

#[test]
fn readers_go_on_after_their_number_and_hear_what_they_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    for n in 0..KEPT as u64 + 10 {
        log.record(at(n), entry("x"));
    }
    let page = log.after(0, 5);
    assert_eq!((page.missed, page.next, page.events.len()), (10, 15, 5));
    let page = log.after(page.next, 5);
    assert_eq!((page.missed, page.next), (0, 20));
    let newest = KEPT as u64 + 10;
    assert_eq!(log.after(newest, 5).events.len(), 0);
    assert_eq!(
        log.after(newest + 50, 5).missed,
        10,
        "a number from elsewhere begins anew"
    );
    let since = log.last(1000, Some(at(newest - 3).wall));
    assert_eq!(since.events.len(), 3);
}

#[tokio::test]
async fn waiting_ends_with_an_event_with_the_log_and_with_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EventLog::open(dir.path()));
    let patience = Duration::from_mins(5);
    let wait = |number: u64| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.wait(number, patience).await })
    };
    let waiting = wait(0);
    tokio::task::yield_now().await;
    log.record(at(1), entry("x"));
    assert!(waiting.await.unwrap());

    let crowd: Vec<_> = (0..FOLLOWERS).map(|_| wait(1)).collect();
    tokio::task::yield_now().await;
    assert!(!log.wait(1, patience).await, "one more is turned away");
    log.close(at(2), entry("end"));
    for one in crowd {
        assert!(one.await.unwrap());
    }
    assert!(log.after(1, 10).ended);
    assert!(!log.after(0, 1).ended, "the rest comes first");
}

#[test]
fn a_disk_that_refuses_is_a_fault_and_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let log = EventLog::open(&state);
    let told = |wanted: bool| {
        for _ in 0..500 {
            if log.fault().is_some() == wanted {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    };
    log.record(at(1), entry("nowhere to go"));
    assert!(told(true), "there is no such directory");
    assert_eq!(texts(&log.last(9, None)), ["nowhere to go"]);
    fs::create_dir(&state).unwrap();
    log.record(at(2), entry("written"));
    assert!(told(false), "it is tried again");
    log.close(at(2), entry("end"));
    assert_eq!(lines(&state).len(), 2);
}
